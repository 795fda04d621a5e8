r"""An attribute from a handful of pictures with it and a handful without.

Five codes a side say next to nothing of 256 dimensions: the difference of their means is mostly chance. So
what is known of the codes decides, and the pictures only choose. Candidates are the attributes that a bundle
has and the concepts found in its codes (``methods/concepts.py``), each as it is or turned round, and each two
together (facial hair, but no beard). Each gives probabilities q(z), and says of pictures

    p(z | with) / p(z) = (1 - ERROR) q(z) / E q + ERROR,        likewise 1 - q for those without

so that one odd picture does not rule it out. Codes drawn from the prior are given the mean of q over
candidates, weighted by how well they say what the pictures are (Bayes), and the linear discriminant of these
is what is kept. A share of the plain discriminant of the pictures, shrunk towards where codes vary most,
stands for what no candidate knows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.errors import UsageError
from rdm_cli.kernels.standardise import mean_and_std
from rdm_cli.methods.directions import AttributeScore, Directions
from rdm_cli.methods.domain import Domain
from rdm_cli.metrics.intervals import Estimate
from rdm_cli.metrics.ranking import separation

NUM_POPULATION = 2048
LEAST_PICTURES = 2
LEAST_SHARE = 0.005  # of the population that has what a candidate says, or lacks it
ERROR = 0.05
PAIR_PENALTY = 3.0  # nats that two candidates together have to be better
KNOWN_BONUS = 2.0  # nats by which an attribute with a name is likelier than a concept
PLAIN_SHARE = 0.3
PLAIN_VARIANCE = 0.1  # of the difference of the means along an average direction, before it is seen
MOST_LIKELY = 100
COMPANION = 0.5  # correlation of verdicts
DOUBT = 1 / 400  # whose logit is -6


@dataclass(frozen=True, kw_only=True)
class Learned:
    """``directions`` of the one attribute that was learned, and the leave-one-out ``auroc`` of its pictures.

    ``nearest`` is the candidate whose verdicts are most like the learned ones, and ``agreement`` their
    correlation, -1 to 1; None and 0 where there were no candidates. ``companions`` are the attributes with
    names that mostly come with it, or mostly do not: they change with it, and are not something else.
    """

    directions: Directions
    auroc: Estimate
    nearest: str | None
    agreement: float
    companions: tuple[str, ...]

    @property
    def is_chance(self) -> bool:
        """Whether pictures that were left out are told no better than by guessing."""
        return self.auroc.value <= 0.5 or (self.auroc.has_ends and self.auroc.low <= 0.5)


def learn_attribute(
    name: str,
    z_with: Tensor,
    z_without: Tensor,
    *,
    population: Tensor,
    domain: Domain,
    candidates: Directions | None,
    num_known: int = 0,
    unlabelled: bool = False,
    seed: int = 0,
) -> Learned:
    """The attribute ``name`` that codes ``z_with`` (P, ...) have and ``z_without`` (M, ...) lack.

    With ``unlabelled`` nothing is known of the latter. ``population`` (N, ...) are codes of any images of the
    kind; ``candidates`` are what divides codes, of which the first ``num_known`` have names. Raises
    UsageError for fewer than two pictures a side.
    """
    for kind, codes in (("with it", z_with), ("unlabelled" if unlabelled else "without it", z_without)):
        if len(codes) < LEAST_PICTURES:
            raise UsageError(
                f"{len(codes)} pictures {kind} are too few to learn from, {LEAST_PICTURES} are the least",
                hint="give five or more of each",
            )
    z = torch.cat([z_with.flatten(1), z_without.flatten(1)]).cpu().float()
    population = population.flatten(1).cpu().float()
    learner = Learner(
        z=z,
        has=torch.arange(len(z)) < len(z_with),
        population=population,
        domain=domain,
        candidates=candidates,
        num_known=num_known,
        unlabelled=unlabelled,
    )
    found = learner.directions(name)
    scored = separation(learner.left_out_logits(), learner.has, seed=seed)
    score: AttributeScore = {
        "auroc": scored.auroc.value,
        "average_precision": scored.average_precision.value,
        "num_positive": len(z_with),
        "num_labelled": len(z),
    }
    together = learner.agreements(found.logits(population)[:, 0].sigmoid())
    nearest = max(together, key=lambda one: abs(together[one]), default=None)
    return Learned(
        directions=replace(found, scores={name: score}),
        auroc=scored.auroc,
        nearest=nearest,
        agreement=0.0 if nearest is None else together[nearest],
        companions=tuple(one for one in list(together)[:num_known] if abs(together[one]) > COMPANION),
    )


def _pattern(x: Tensor, probability: Tensor) -> Tensor:
    """Mean of ``x`` (N, d) where something is probably there, less the mean where it is not, (1, d)."""
    ours, theirs = probability, 1 - probability
    return (ours @ x / ours.sum() - theirs @ x / theirs.sum())[None]


@dataclass(frozen=True, kw_only=True)
class Learner:
    """How an attribute is learned, before anything is written down: what :func:`learn_attribute` is made of.

    Codes ``z`` (n, d), which of them ``has`` it (n,), and what is known besides; see learn_attribute.
    """

    z: Tensor
    has: Tensor
    population: Tensor
    domain: Domain
    candidates: Directions | None
    num_known: int
    unlabelled: bool

    @cached_property
    def x(self) -> Tensor:
        """The pictures' whitened codes."""
        return (self.z - self.domain.mean) @ self.domain.whitening

    @cached_property
    def x_population(self) -> Tensor:
        """The population's whitened codes."""
        return (self.population - self.domain.mean) @ self.domain.whitening

    def _both_ways(self, z: Tensor) -> Tensor:
        """What each candidate, and after them each turned round, says of ``z`` (N, d): (N, 2 K)."""
        assert self.candidates is not None
        said = self.candidates.logits(z).sigmoid()
        return torch.cat([said, 1 - said], dim=1)

    @cached_property
    def _of_population(self) -> Tensor:
        return self._both_ways(self.population)

    @cached_property
    def _of_pictures(self) -> Tensor:
        return self._both_ways(self.z)

    @cached_property
    def _shares(self) -> Tensor:
        """E q of each candidate, on the diagonal, and of each two together, (2 K, 2 K)."""
        said = self._of_population
        shares = said.T @ said / len(said)
        return torch.diagonal_scatter(shares, said.mean(dim=0))

    @cached_property
    def _before(self) -> Tensor:
        """How likely each was before any picture, in nats; -inf for what is there twice, or next to never."""
        num = len(self._shares)
        bonus = torch.zeros(num // 2)
        bonus[: self.num_known] = KNOWN_BONUS
        bonus = bonus.repeat(2)
        before = torch.diagonal_scatter(bonus + bonus[:, None] - PAIR_PENALTY, bonus)
        usual = (self._shares > LEAST_SHARE) & (self._shares < 1 - LEAST_SHARE)
        return before.masked_fill(torch.ones_like(usual).tril(-1).bool() | ~usual, -math.inf)

    def _said(self, row: int) -> Tensor:
        """The log likelihood of picture ``row`` under each candidate and each two, (2 K, 2 K)."""
        q = self._of_pictures[row]
        both, shares = torch.diagonal_scatter(torch.outer(q, q), q), self._shares
        if not self.has[row]:
            if self.unlabelled:
                return torch.zeros_like(both)
            both, shares = 1 - both, 1 - shares
        return ((1 - ERROR) * both / shares.clamp(min=1e-6) + ERROR).log()

    @cached_property
    def _evidence(self) -> Tensor:
        return self._before + sum(self._said(row) for row in range(len(self.z)))

    def fit(self, left_out: int | None = None) -> tuple[Tensor, Tensor]:
        """Weight (d,) and bias of the logit on whitened codes, of all pictures but ``left_out``."""
        used = torch.ones_like(self.has)
        if left_out is not None:
            used[left_out] = False
        weight = self._plain(used)
        if self.candidates is not None:
            weight = self._explained(weight, left_out)
        logits = self.x @ weight
        # halfway between the pictures: how many codes have it, nobody knows
        return weight, -(logits[self.has & used].mean() + logits[~self.has & used].mean()) / 2

    def _explained(self, plain: Tensor, left_out: int | None) -> Tensor:
        """What the candidates make of the pictures but ``left_out``, with a share of ``plain``, (d,)."""
        evidence = self._evidence if left_out is None else self._evidence - self._said(left_out)
        likely, places = evidence.flatten().topk(min(MOST_LIKELY, evidence.numel()))
        first, second = places // len(evidence), places % len(evidence)
        said = self._of_population
        together = torch.where(first == second, said[:, first], said[:, first] * said[:, second])
        probability = together @ likely.softmax(dim=0)
        weight = F.normalize((probability - probability.mean()) @ self.x_population, dim=0)
        weight = weight + PLAIN_SHARE * F.normalize(plain, dim=0)
        return weight * fitted_slope(self.x_population @ weight, probability)

    def _plain(self, used: Tensor) -> Tensor:
        """The discriminant of the pictures alone: its mean a posteriori, under a variance as codes have."""
        ours, theirs = self.x[self.has & used], self.x[~self.has & used]
        stretch = 1 / self.domain.whitening.norm(dim=0)  # how far codes vary along each whitened axis
        variance = PLAIN_VARIANCE * (stretch / stretch.mean()).square()
        noise = 1 / len(ours) + 1 / len(theirs)
        return variance / (variance + noise) * (ours.mean(dim=0) - theirs.mean(dim=0))

    def directions(self, name: str) -> Directions:
        """The attribute as a bundle stores one, called ``name``, without scores."""
        weight, bias = self.fit()
        known = self.candidates
        if known is not None and known.z_mean.ndim == 1:  # so that a bundle's attributes share them
            z_mean, z_std = known.z_mean, known.z_std
        else:
            z_mean, z_std = mean_and_std(self.population)
        in_z = self.domain.whitening @ weight
        probability = (self.x_population @ weight + bias).sigmoid()
        return Directions(
            names=(name,),
            weight=(in_z * z_std)[None],
            bias=(bias + in_z @ (z_mean - self.domain.mean))[None],
            z_mean=z_mean,
            z_std=z_std,
            pattern=_pattern((self.population - z_mean) / z_std, probability),
        )

    def left_out_logits(self) -> Tensor:
        """The logit of each picture by what was learned from the others, (n,)."""
        found = []
        for row in range(len(self.z)):
            weight, bias = self.fit(left_out=row)
            found.append(self.x[row] @ weight + bias)
        return torch.stack(found)

    def agreements(self, probability: Tensor) -> dict[str, float]:
        """How each candidate's verdicts on the population correlate with ``probability`` (N,), by name."""
        if self.candidates is None:
            return {}
        said = self._of_population[:, : len(self.candidates.names)]
        together = torch.corrcoef(torch.cat([probability[:, None], said], dim=1).T)[0, 1:].nan_to_num()
        return dict(zip(self.candidates.names, together.tolist(), strict=True))


def fitted_slope(s: Tensor, probability: Tensor) -> Tensor:
    """The slope of the logits that are linear in ``s`` (N,) and fit ``probability`` (N,), by Newton's method.

    A little doubt stays: where two heaps are far apart, their logits are 12 apart, and an edit goes as far.
    """
    target = DOUBT + (1 - 2 * DOUBT) * probability.double()
    columns = torch.stack([s, torch.ones_like(s)], dim=1).double()
    found = columns.new_zeros(2)
    for _ in range(50):
        p = (columns @ found).sigmoid()
        gradient = columns.T @ (p - target) / len(s)
        curvature = (columns.T * (p * (1 - p))) @ columns / len(s)
        step = torch.linalg.solve(curvature + 1e-9 * torch.eye(2).double(), gradient)
        found = found - step * min(1.0, 2.0 / float(step.norm()))
        if float(gradient.abs().max()) < 1e-9:
            break
    return found[0].float()
