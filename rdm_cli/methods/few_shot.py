r"""Few-shot conditional sampling (Diff-AE, section 5.4, after D2C, arXiv 2106.06819).

A linear classifier on codes is fitted to a handful of examples; codes drawn from the prior p(z) are then
accepted with a probability, which is rejection sampling of a conditional distribution.

Both classes weigh the same in the loss, however many examples each has (oversampling the positives gives
the same minimum). The odds a(z) = exp(logit) then estimate a ratio of densities, and what is accepted is

    binary, others negative      a = p(z | positive) / p(z | negative),   probability = a / (1 + a)
    positive-unlabelled          a = p(z | positive) / p(z),              probability = min(1, a / a_+)

In the second case the other codes are draws of p(z) itself, so that accepting in proportion to a *is*
rejection sampling of p(z | positive), and a / (1 + a) would not do: it accepts a code of average odds half
of the time. 1 / a_+ stands for the share of positives in p(z), as the mean score of held-out positives does
in Elkan & Noto (2008); a_+ is the geometric mean of their odds, which one outlier among five cannot ruin.

Five points in 256 dimensions can always be separated, so two things hold the weights back. The penalty is
l2/2 w'(S + I)w, with S the covariance of the standardised codes: codes vary mostly along a few shared
directions (hair, skin), in which five examples differ by chance, and there the weights cost more. And l2
is chosen by cross-validated log-loss, leave-one-out where there are five: a proper score, under which
overconfident weights lose.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.errors import RdmError, UsageError
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.training.logistic import Logistic, fit_logistic

L2_GRID = (100.0, 30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01)
NUM_FOLDS = 5
MAX_TUNING_OTHERS = 2000  # more would only slow the choice of the penalty


@dataclass(frozen=True, kw_only=True)
class FewShotClassifier:
    """A linear classifier on standardised codes; ``weight``, ``z_mean`` and ``z_std`` float32 (d,).

    ``typical_logit`` is log a_+, the mean logit of positives that were held out. ``l2`` is the penalty
    that was chosen, ``log_loss`` its cross-validated loss in nats: log 2 = 0.693 means that nothing was
    learned.
    """

    weight: Tensor
    bias: float
    z_mean: Tensor
    z_std: Tensor
    positive_unlabelled: bool
    typical_logit: float
    l2: float
    log_loss: float

    def logits(self, z: Tensor) -> Tensor:
        """Log-odds of codes ``z`` (B, ...), not standardised: (B,)."""
        flat = z.flatten(1)
        if flat.shape[1] != self.weight.numel():
            raise ValueError(
                f"a classifier of {self.weight.numel()} values in z does not fit {flat.shape[1]}"
            )
        return (flat - self.z_mean.to(flat)) / self.z_std.to(flat) @ self.weight.to(flat) + self.bias

    def probability(self, z: Tensor) -> Tensor:
        """Probability with which codes ``z`` (B, ...) are accepted, (B,)."""
        logits = self.logits(z)
        if self.positive_unlabelled:
            return (logits - self.typical_logit).clamp(max=0).exp()
        return logits.sigmoid()

    @property
    def typical_probability(self) -> float:
        """The probability of a code that looks as positive as a held-out example does.

        As the threshold of :func:`accept_reject` it gives purer and less varied samples than the
        probabilities do, which a handful of examples leaves vague: 5 avatars with hats among 20 % in the
        population gave a quarter of hats by probability, and more than half by this threshold.
        """
        if self.positive_unlabelled:
            return 1.0
        return float(torch.tensor(self.typical_logit).sigmoid())


def fit_few_shot(
    z_positive: Tensor,
    z_other: Tensor,
    z_mean: Tensor,
    z_std: Tensor,
    *,
    positive_unlabelled: bool,
    seed: int,
    z_population: Tensor | None = None,
) -> FewShotClassifier:
    """Fit a classifier that tells ``z_positive`` (P, ...) from ``z_other`` (M, ...).

    ``z_other`` are negatives, or with ``positive_unlabelled`` codes of which nothing is known.
    ``z_mean`` and ``z_std`` (d,) are the prior's. ``z_population`` (N, ...) are any codes of the kind that
    will be drawn, to take the covariance from; None takes ``z_other``, which serves if there are hundreds.
    Raises UsageError for fewer than two of either.
    """
    for kind, codes in (("positive", z_positive), ("other", z_other)):
        if len(codes) < 2:
            raise UsageError(
                f"few-shot sampling needs at least 2 {kind} images, not {len(codes)}",
                hint="give 5 or more",
            )
    mean, std = z_mean.cpu().double(), z_std.cpu().double()
    parts = (z_positive, z_other, z_other if z_population is None else z_population)
    ours, theirs, population = ((part.flatten(1).cpu().double() - mean) / std for part in parts)
    if not all(bool(torch.isfinite(part).all()) for part in (ours, theirs, population)):
        raise ValueError("codes to learn from must be finite")
    whitening = _half_whitening(population)
    x = torch.cat([ours, theirs]) @ whitening
    positive = torch.arange(len(x)) < len(z_positive)
    l2, log_loss, typical_logit = _choose_l2(x, positive, seed)
    fit = fit_logistic(x, positive[:, None].double(), _balanced(positive)[:, None], x.new_tensor([l2]))
    return FewShotClassifier(
        weight=(whitening @ fit.weight[0]).float(),
        bias=float(fit.bias[0]),
        z_mean=z_mean.float().cpu(),
        z_std=z_std.float().cpu(),
        positive_unlabelled=positive_unlabelled,
        typical_logit=typical_logit,
        l2=l2,
        log_loss=log_loss,
    )


def _half_whitening(x: Tensor) -> Tensor:
    """The matrix (d, d) after which an isotropic penalty is w'(S + I)w, for ``x`` float64 (N, d)."""
    centred = x - x.mean(dim=0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(x))
    return axes / (variances.clamp(min=0) + 1).sqrt()


def _balanced(positive: Tensor, part: Tensor | None = None) -> Tensor:
    """Weights (N,) of half in total for each class, over the rows of ``part`` (None: all)."""
    part = torch.ones_like(positive) if part is None else part
    ours, theirs = (positive & part).double(), (~positive & part).double()
    return 0.5 * ours / ours.sum() + 0.5 * theirs / theirs.sum()


def _choose_l2(x: Tensor, positive: Tensor, seed: int) -> tuple[float, float, float]:
    """(penalty, its cross-validated log-loss, mean held-out logit of the positives)."""
    generator = keyed_generator(seed, "few-shot-folds")
    ours = positive.nonzero()[:, 0]
    theirs = (~positive).nonzero()[:, 0]
    ours = ours[torch.randperm(len(ours), generator=generator)]
    theirs = theirs[torch.randperm(len(theirs), generator=generator)][:MAX_TUNING_OTHERS]
    num_folds = min(NUM_FOLDS, len(ours), len(theirs))
    rows = torch.cat([ours, theirs])
    fold = torch.cat([torch.arange(len(ours)), torch.arange(len(theirs))]) % num_folds
    x, positive = x[rows], positive[rows]
    target = positive.double()
    training = torch.stack([_balanced(positive, fold != i) for i in range(num_folds)], dim=1)
    best = (0.0, float("inf"), 0.0)
    fit: Logistic | None = None
    for l2 in L2_GRID:
        penalties = x.new_full((num_folds,), l2)
        fit = fit_logistic(x, target[:, None].expand(-1, num_folds), training, penalties, start=fit)
        logits = fit.logits(x).gather(1, fold[:, None])[:, 0]  # each row's by the fit that never saw it
        bce = F.binary_cross_entropy_with_logits(logits, target, weight=_balanced(positive), reduction="sum")
        if float(bce) < best[1]:
            best = (l2, float(bce), float(logits[positive].mean()))
    return best


@dataclass(frozen=True, kw_only=True)
class AcceptReject:
    """What rejection sampling found.

    ``z`` (num, ...): the first accepted draws in order and, where they are fewer than were asked for, the
    best-scoring of the others, the best first. ``draws`` are their numbers; ``num_drawn`` is how many draws
    it took, up to and with the last accepted one.
    """

    z: Tensor
    draws: tuple[int, ...]
    num_accepted: int
    num_drawn: int

    @property
    def acceptance_rate(self) -> float:
        """Accepted of drawn, 0 to 1."""
        return self.num_accepted / self.num_drawn


def accept_reject(
    draw: Callable[[Sequence[int]], Tensor],
    probability: Callable[[Tensor], Tensor],
    num: int,
    *,
    seed: int,
    max_draws: int,
    batch_size: int = 256,
    threshold: float | None = None,
    score: Callable[[Tensor], Tensor] | None = None,
) -> AcceptReject:
    """Draw until ``num`` codes are accepted, each with its probability.

    ``draw(numbers)`` gives the codes (len(numbers), ...) of these draws of the prior, each a function of
    its number alone; ``probability`` maps them to (B,). Draw i is accepted by a random number keyed by
    (seed, i), so ``batch_size`` changes nothing. ``threshold`` accepts, instead, every code of at least
    that probability. Where ``max_draws`` draws do not suffice, those that ``score``, of the same shape as
    ``probability``, ranks highest take the places of what is missing; without a ``score``, raises RdmError.
    """
    if min(num, max_draws, batch_size) < 1:
        raise ValueError("the numbers of codes, draws and codes in a batch must be at least 1")
    found: list[Tensor] = []
    draws: list[int] = []
    best = _Best(score=score, num=num)
    for first in range(0, max_draws, batch_size):
        numbers = range(first, min(first + batch_size, max_draws))
        z = draw(numbers)
        chance = probability(z).cpu()
        bar = _uniform(seed, numbers) if threshold is None else torch.full((len(numbers),), threshold)
        accepted = (chance > bar) if threshold is None else (chance >= bar)
        places = accepted.nonzero()[:, 0].tolist()[: num - len(draws)]
        found.append(z[places])
        draws += [numbers[i] for i in places]
        if len(draws) == num:
            return AcceptReject(
                z=torch.cat(found), draws=tuple(draws), num_accepted=num, num_drawn=draws[-1] + 1
            )
        best.consider(z, numbers, ~accepted)
    if score is not None and max_draws >= num:
        z, others = best.first(num - len(draws))
        return AcceptReject(
            z=torch.cat([*found, z]), draws=(*draws, *others), num_accepted=len(draws), num_drawn=max_draws
        )
    raise RdmError(
        f"accepted only {len(draws)} of {num} samples in {max_draws} draws ({len(draws) / max_draws:.2%})",
        hint="give more example images, use a stored attribute (--attr), or allow more draws",
    )


@dataclass(kw_only=True)
class _Best:
    """The ``num`` draws of the highest ``score`` among those that were not accepted, the best first."""

    score: Callable[[Tensor], Tensor] | None
    num: int
    scores: Tensor | None = None
    z: Tensor | None = None
    draws: Tensor | None = None

    def consider(self, z: Tensor, numbers: Sequence[int], rejected: Tensor) -> None:
        """Compare those ``rejected``, bool (B,), of the draws ``numbers`` with codes ``z`` (B, ...)."""
        if self.score is None:
            return
        z, draws = z[rejected.to(z.device)], torch.tensor(list(numbers))[rejected]
        scores = self.score(z).cpu()
        if self.scores is not None and self.z is not None and self.draws is not None:
            scores = torch.cat([self.scores, scores])
            z, draws = torch.cat([self.z, z]), torch.cat([self.draws, draws])
        order = scores.argsort(descending=True, stable=True)[: self.num]
        self.scores, self.z, self.draws = scores[order], z[order.to(z.device)], draws[order]

    def first(self, num: int) -> tuple[Tensor, list[int]]:
        """The codes (num, ...) and the numbers of the ``num`` best."""
        assert self.z is not None and self.draws is not None
        return self.z[:num], self.draws[:num].tolist()


def _uniform(seed: int, numbers: Sequence[int]) -> Tensor:
    """Uniform [0, 1) numbers, (len(numbers),), each keyed by its draw."""
    return torch.cat([torch.rand(1, generator=keyed_generator(seed, "accept", i)) for i in numbers])
