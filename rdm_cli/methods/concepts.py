r"""Concepts: directions in which codes fall into two kinds, found without labels.

What a face either has or lacks divides the codes along some direction into two heaps. Such directions are
found in three steps, on whitened codes x:

1. FastICA (Hyvarinen 1999) in the leading principal components alone, for several numbers of them: few show
   that somebody wears glasses, many show which. The contrasts are log cosh and, for what some have and most
   lack, the third power.
2. From each w found, in all components: a mixture of two Gaussians is fitted to w'x, q is the posterior of
   the upper one, and the next w is Cov(x, q), the discriminant of the two heaps. A few rounds settle it.
3. Of concepts that say nearly the same of codes, the one with the clearest gap between its heaps stays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.errors import RdmError
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.kernels.standardise import mean_and_std
from rdm_cli.methods.directions import Directions

LEAST_CODES = 20  # for each value of a code
NUMS_COMPONENTS = (8, 16, 24, 32, 48, 64, 96, 128, 192)
ICA_ROUNDS, MIXTURE_ROUNDS = 120, 15
BATCH = 12000  # codes that a round looks at
LEAST_GAP = 1.8  # between the heaps' means, in the sum of their standard deviations
LEAST_SHARE = 0.01  # of the codes, in the smaller heap
CERTAIN = 6.0  # the logit at a heap's mean, at most: an edit goes there, and no farther
ALIKE = 0.95  # correlation of posteriors beyond which two concepts are one
MUCH_ALIKE = 0.6  # and beyond which they are not shown side by side
MOST = 600


@dataclass(frozen=True, kw_only=True)
class _Heaps:
    """Two Gaussians along each of K directions: ``mean``, ``std`` and ``share``, each (2, K), lower first."""

    mean: Tensor
    std: Tensor
    share: Tensor

    @staticmethod
    def guess(num: int) -> _Heaps:
        """Where the fit begins: two heaps of half of the codes each."""
        return _Heaps(
            mean=torch.tensor([[-0.7], [0.9]]).repeat(1, num),
            std=torch.full((2, num), 0.7),
            share=torch.full((2, num), 0.5),
        )

    def posterior(self, s: Tensor) -> Tensor:
        """Probability of the upper heap for ``s`` (N, K): (N, K)."""
        off = (s - self.mean[:, None]) / self.std[:, None]
        return (self.share.log()[:, None] - self.std.log()[:, None] - off.square() / 2).softmax(dim=0)[1]

    def fitted(self, s: Tensor, rounds: int) -> _Heaps:
        """After so many rounds of expectation and maximisation on ``s`` (N, K)."""
        found = self
        for _ in range(rounds):
            upper = found.posterior(s)
            of = torch.stack([1 - upper, upper])
            num = of.sum(dim=1) + 1  # one code in each, so that none dies out
            mean = (of * s).sum(dim=1) / num
            variance = (of * (s - mean[:, None]).square()).sum(dim=1) / num
            found = _Heaps(mean=mean, std=variance.clamp(min=0.0025).sqrt(), share=num / num.sum(dim=0))
        return found

    def gap(self) -> Tensor:
        """How far apart the heaps are, (K,), in the sum of their standard deviations."""
        return (self.mean[1] - self.mean[0]) / self.std.sum(dim=0)

    def select(self, rows: Tensor) -> _Heaps:
        """Those of some directions."""
        return _Heaps(mean=self.mean[:, rows], std=self.std[:, rows], share=self.share[:, rows])


def find_concepts(
    z: Tensor, *, seed: int = 0, most: int = MOST, advance: Callable[[float], None] = lambda share: None
) -> Directions:
    """Up to ``most`` concepts of codes ``z`` (N, ...), called ``concept-001`` and so on, the clearest first.

    ``advance`` is told the share of the work that each step was. Raises RdmError for fewer than 20 codes for
    each of their values, and where nothing divides them.
    """
    z = z.flatten(1).cpu().float()
    if len(z) < (needed := LEAST_CODES * z.shape[1]):
        raise RdmError(
            f"{len(z)} codes are too few to find directions among {z.shape[1]} values",
            hint=f"encode at least {needed} images",
        )
    z = z[torch.randperm(len(z), generator=keyed_generator(seed, "concepts"))]
    mean, whitening = _whitening(z)
    x = (z - mean) @ whitening
    nums = sorted({min(num, x.shape[1]) for num in NUMS_COMPONENTS})
    weights, heaps = [], []
    for num in nums:
        for contrast in (_log_cosh, _third_power):
            w = F.pad(_independent(x[:, :num], contrast, seed), (0, x.shape[1] - num))
            found = _two_heaps(x, w)
            weights.append(found[0])
            heaps.append(found[1])
            advance(num / (2 * sum(nums)))
    w = torch.cat(weights)
    joined = _Heaps(**{n: torch.cat([getattr(h, n) for h in heaps], dim=1) for n in ("mean", "std", "share")})
    rows = _clearest(joined.posterior(x[:BATCH] @ w.T), joined, most)
    if not len(rows):
        raise RdmError("nothing divides these codes into two kinds", hint="encode more images, or other ones")
    return _as_directions(z, x @ w[rows].T, whitening @ w[rows].T, mean, joined.select(rows))


def different(concepts: Directions, z: Tensor, num: int) -> list[str]:
    """The names of the first ``num`` concepts whose verdicts on codes ``z`` (N, ...) are not much alike."""
    said = concepts.logits(z.flatten(1).cpu().float()[:BATCH]).sigmoid()
    alike = torch.corrcoef(said.T).nan_to_num().reshape(len(concepts.names), -1).abs()
    kept: list[int] = []
    for row in range(len(concepts.names)):
        if not (alike[row, kept] > MUCH_ALIKE).any():
            kept.append(row)
    return [concepts.names[row] for row in kept[:num]]


def _whitening(z: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (d,) of codes, and (d, k), which whitens them, the largest components first."""
    values, vectors = torch.linalg.eigh(torch.cov(z.double().T).reshape(z.shape[1], z.shape[1]))
    kept = values > 1e-7 * values.max()
    values, vectors = values[kept].flip(0), vectors[:, kept].flip(1)
    return z.mean(dim=0), (vectors / values.sqrt()).float()


def _batch(x: Tensor, turn: int) -> Tensor:
    """The codes that round ``turn`` looks at: each in its turn."""
    num = min(BATCH, len(x))
    return x[torch.arange(turn * num, (turn + 1) * num) % len(x)]


def _log_cosh(s: Tensor) -> tuple[Tensor, Tensor]:
    """The contrast's derivative at ``s`` (N, K), and the mean of the second one, (K,)."""
    g = s.tanh()
    return g, (1 - g.square()).mean(dim=0)


def _third_power(s: Tensor) -> tuple[Tensor, Tensor]:
    return s.square(), s.new_zeros(s.shape[1])


def _independent(x: Tensor, contrast: Callable[[Tensor], tuple[Tensor, Tensor]], seed: int) -> Tensor:
    """FastICA's rows (k, k), all at once, on whitened ``x`` (N, k); turned so that the longer tail is up."""
    num = x.shape[1]
    w = _orthogonal(torch.randn(num, num, generator=keyed_generator(seed, "concepts", num)))
    for turn in range(ICA_ROUNDS):
        some = _batch(x, turn)
        g, slope = contrast(some @ w.T)
        new = F.normalize(g.T @ some / len(some) - slope[:, None] * w, dim=1)
        new = new * (new * w).sum(dim=1, keepdim=True).sign()
        share = 1.0 if turn < ICA_ROUNDS // 2 else 0.3  # batches differ: the later ones are averaged
        w = _orthogonal((1 - share) * w + share * new)
    return w * (_batch(x, 0) @ w.T).pow(3).mean(dim=0).sign()[:, None]


def _orthogonal(w: Tensor) -> Tensor:
    """The orthogonal matrix nearest to ``w``."""
    left, _, right = torch.linalg.svd(w)
    return left @ right


def _two_heaps(x: Tensor, w: Tensor) -> tuple[Tensor, _Heaps]:
    """Each row of ``w`` (K, d) as the discriminant of the two heaps that it shows, and these heaps."""
    heaps = _Heaps.guess(len(w))
    for turn in range(MIXTURE_ROUNDS):
        some, w = _batch(x, turn), F.normalize(w, dim=1)
        s = some @ w.T
        heaps = heaps.fitted(s, MIXTURE_ROUNDS if turn == 0 else 4)
        upper = heaps.posterior(s)
        w = (upper - upper.mean(dim=0)).T @ some / len(some)
    w = F.normalize(w, dim=1)
    return w, heaps.fitted(_batch(x, 0) @ w.T, MIXTURE_ROUNDS)


def _clearest(posterior: Tensor, heaps: _Heaps, most: int) -> Tensor:
    """The rows to keep, by their gap: none that says of codes what one before it says."""
    gap, share = heaps.gap(), posterior.mean(dim=0)
    alike = torch.corrcoef(posterior.T).nan_to_num().reshape(len(gap), len(gap)).abs()
    is_one = (gap > LEAST_GAP) & (share > LEAST_SHARE) & (share < 1 - LEAST_SHARE)
    kept: list[int] = []
    for row in gap.argsort(descending=True, stable=True).tolist():
        if is_one[row] and not (alike[row, kept] > ALIKE).any():
            kept.append(row)
    return torch.tensor(kept[:most], dtype=torch.long)


def _as_directions(z: Tensor, s: Tensor, w: Tensor, mean: Tensor, heaps: _Heaps) -> Directions:
    """Concepts ``s = (z - mean) w`` (N, K) as classifiers: the logit is 0 where both heaps are as likely."""
    z_mean, z_std = mean_and_std(z)
    variance = (heaps.share * heaps.std.square()).sum(dim=0)
    apart = heaps.mean[1] - heaps.mean[0]
    slope = apart / variance
    middle = heaps.mean.mean(dim=0) - (heaps.share[1] / heaps.share[0]).log() / slope
    slope = torch.minimum(slope, 2 * CERTAIN / apart)
    upper = ((s - middle) * slope).sigmoid()
    x = (z - z_mean) / z_std
    pattern = (upper / upper.sum(dim=0)).T @ x - ((1 - upper) / (1 - upper).sum(dim=0)).T @ x
    weight = (w * slope).T  # of z, not standardised
    return Directions(
        names=tuple(f"concept-{i + 1:03}" for i in range(len(middle))),
        weight=weight * z_std,
        bias=weight @ (z_mean - mean) - middle * slope,
        z_mean=z_mean,
        z_std=z_std,
        pattern=pattern,
    )
