r"""What would have to change in a picture for a classifier to decide otherwise: counterfactual pictures.

The classifier is a black box that scores pictures. For each picture the search goes, until enough answers are
found,

1. through what the bundle knows: each attribute is set to what it is not, and the classifier is asked about
   what comes of it. Those that lead most of the way to another decision are tried in full, first those that
   change the fewest attributes, and of these the nearest in z; then those that lead a part of it, and pairs;
2. freely: the answers so far tell how the score depends on z, by ridge regression on whitened displacements
   y = W'(z' - z); or its gradient does, where that is asked for. Steps go along w, along the concepts of the
   bundle that are most alike, and at random. None leaves the domain of the training codes, and of what works
   the shortest way is taken.

Every answer is settled as an edit is (:mod:`rdm_cli.pipeline.editing`): pixels that need not change are the
image's own, and the picture is encoded and decoded until z stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.classifiers.classifier import Classifier
from rdm_cli.errors import BundleError, UsageError, setting
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.methods.directions import Directions
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.editing import (
    AMOUNTS,
    BEST,
    DEFAULT_EDITOR,
    Canvas,
    Donors,
    Mover,
    Settled,
    Wanted,
    changed,
    settle,
    untold,
)

TARGET = 0.9
"""How sure of the other answer the classifier is to be."""
MOST_TRIES = 3
"""Attributes, and as many pairs, that are tried in full for each answer."""
ROUNDS = 4
"""How often a picture is decoded and encoded again, at the most."""
NEAR, MOST_OF_IT = 0.25, 0.5
"""Shares of the way to the target that an attribute has to go in the first look to be tried at all, and to be
tried as if it went all of it: a picture that is not settled still holds traces of what was taken away."""
AT_ONCE = 512
"""Pictures that are asked about in one call of the classifier."""
FEWEST_PROBES, MOST_PROBES, PROBE_LENGTH = 8, 64, 0.5
"""Random steps around a picture, each there and back, as many as its code has values among all pictures; and
how far they go, in a code's typical length, sqrt(d)."""
LENGTHS = (0.2, 0.35, 0.5, 0.7, 0.9, 1.2)
"""Steps along a direction, in the same."""
GENERATIONS, NUM_CONCEPTS = 4, 6
RIDGE = 1e-2
HALVINGS = 4
"""How often the way to a free answer is halved to find the shortest that works."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An edited picture, and how it differs from the image.

    ``moves`` are the attributes that were set, none where z was moved freely. ``picture`` (C, H, W) is in
    [-1, 1], ``z`` (d,) what the encoder reads in it, ``score`` the probability of the class in question.
    ``holds``: the target is reached. ``before`` and ``after`` are the bundle's probabilities of its
    attributes, ``changed`` those whose verdict is another one now, ``kept`` says whether these are the
    ``moves`` and what they rule out or hide. ``z_distance`` is in what scales count, ``psnr_db`` compares
    picture and image, ``outside`` says whether z is unlike any training code.
    """

    moves: Mapping[str, bool]
    picture: Tensor
    z: Tensor
    score: float
    holds: bool
    before: Mapping[str, float]
    after: Mapping[str, float]
    changed: tuple[str, ...]
    kept: bool
    z_distance: float
    psnr_db: float
    outside: bool


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Of one image: what was asked about it, and the ``answers``, the one that was looked for first ahead.

    ``class_name`` is the class in question, ``score`` its probability, ``verdict`` whether the classifier
    says that the image is of it; answers reach ``target``, a probability of it or, where it is below 0.5, of
    less. Without any answer ``miss`` is the attempt that came nearest. ``num_decodes`` pictures were made.
    """

    image: Tensor
    class_name: str
    score: float
    verdict: bool
    target: float
    answers: tuple[Answer, ...]
    miss: Answer | None
    num_decodes: int

    @property
    def flipped(self) -> bool:
        """Whether there is a picture that the classifier decides otherwise about."""
        return len(self.answers) > 0


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a classifier is to be brought to say: of row i, ``columns[i]`` up or down (``signs`` 1 or -1)."""

    classifier: Classifier
    columns: Tensor
    signs: Tensor
    goal: float  # log-odds

    def log_odds(self, pictures: Tensor) -> Tensor:
        """What the classifier says of ``pictures`` (n, C, H, W), (n, K)."""
        return torch.cat([self.classifier.log_odds(p).detach().cpu() for p in pictures.split(AT_ONCE)])

    def nearness(self, rows: Tensor, log_odds: Tensor) -> Tensor:
        """How near pictures of ``rows`` with these ``log_odds`` (n, K) are to the goal, (n,).

        It is reached from 0 on: the log-odds of the class are beyond the goal, and the verdict is another.
        """
        columns = self.columns[rows, None]
        own = log_odds.gather(1, columns)[:, 0]
        found = own * self.signs[rows] - self.goal
        if not self.classifier.exclusive:
            return found
        rival = log_odds.scatter(1, columns, -torch.inf).amax(dim=1)
        return torch.where(self.signs[rows] < 0, found.minimum(rival - own), found)

    def towards(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """How near ``pictures`` (n, C, H, W) of ``rows`` are to the goal, (n,)."""
        return self.nearness(rows, self.log_odds(pictures))


def check_question(
    classifier: Classifier, class_name: str | None, target: float, *, gradients: bool = False
) -> None:
    """Raise UsageError for an unknown class, a target outside [0.5, 1), and what leaves the class open.

    And for ``gradients`` of a classifier that has none.
    """
    if gradients and not classifier.differentiable:
        raise UsageError(f"{setting('gradients')}: {classifier.name} is asked from outside, and has none")
    if not 0.5 <= target < 1:
        raise UsageError(f"{setting('target')} {target:g}: a probability from 0.5 to below 1")
    if class_name is not None:
        classifier.index(class_name)
    elif not classifier.exclusive and len(classifier.classes) > 1:
        raise UsageError(
            f"{classifier.name}: its classes do not rule one another out: say which one is asked about",
            hint=f"{setting('class_name')} {classifier.classes[0]}",
        )


def ask(
    classifier: Classifier, images: Tensor, *, class_name: str | None, target: float
) -> tuple[Question, Tensor, Tensor]:
    """The question about ``images`` (N, C, H, W), their log-odds (N, K), and the verdicts on them (N,).

    The class is ``class_name`` or, for None, that which each image is said to be of. Raises as
    :func:`check_question` does.
    """
    check_question(classifier, class_name, target)
    log_odds = torch.cat([classifier.log_odds(part).detach().cpu() for part in images.split(AT_ONCE)])
    if class_name is None:
        columns = log_odds.argmax(dim=1)
    else:
        columns = torch.full((len(images),), classifier.index(class_name))
    rows = torch.arange(len(images))
    said = classifier.verdicts(log_odds)[rows, columns]
    question = Question(
        classifier=classifier,
        columns=columns,
        signs=torch.where(said, -1.0, 1.0),
        goal=math.log(target / (1 - target)),
    )
    return question, log_odds, said


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where codes lie: ``whitening`` (d, d) gives them unit variance and ``colouring`` undoes it.

    ``spread`` (d,) are the standard deviations of their values. ``within`` takes codes (n, d) back to where
    codes are, ``outside`` says which of them are unlike any (n,).
    """

    whitening: Tensor
    colouring: Tensor
    spread: Tensor
    within: Callable[[Tensor], Tensor]
    outside: Callable[[Tensor], Tensor]

    @staticmethod
    def of(bundle: Bundle) -> Surroundings:
        """Those of the bundle's domain; else of its attributes or its prior; else of N(0, I)."""
        domain, directions = bundle.domain, _directions(bundle)
        if domain is not None:
            mean, whitening, limit = domain.mean, domain.whitening, domain.limit
            variance = torch.linalg.inv(whitening).square().sum(dim=0)
            spread = variance.sqrt() if directions is None else directions.spread

            def within(z: Tensor) -> Tensor:
                share = (limit / domain.distances(z).clamp(min=1e-6)).clamp(max=1)[:, None]
                return mean + (z - mean) * share

            return Surroundings(
                whitening=whitening,
                colouring=torch.linalg.inv(whitening),
                spread=spread,
                within=within,
                outside=domain.outside,
            )
        spread = torch.ones(bundle.z_width)
        if directions is not None:
            spread = directions.spread
        elif "prior" in bundle.parts:
            spread = bundle.prior.z_std.detach().cpu().flatten()
        return Surroundings(
            whitening=torch.diag(1 / spread),
            colouring=torch.diag(spread),
            spread=spread,
            within=lambda z: z,
            outside=lambda z: torch.zeros(len(z), dtype=torch.bool),
        )


def _directions(bundle: Bundle) -> Directions | None:
    try:
        return bundle.directions
    except BundleError:  # it has none
        return None


def explain(
    bundle: Bundle,
    canvas: Canvas,
    classifier: Classifier,
    *,
    class_name: str | None = None,
    target: float = TARGET,
    num_answers: int = 1,
    gradients: bool = False,
    seed: int = 0,
) -> list[Explanation]:
    """For each image of ``canvas``, up to ``num_answers`` pictures about which ``classifier`` says otherwise.

    ``class_name`` is the class in question, None: the one that each image is said to be of. ``target`` is
    the probability of the other answer that is to be reached. ``gradients``: free moves follow those of the
    classifier. Raises as :func:`check_question`
    does, and ClassifierError where the classifier fails.
    """
    check_question(classifier, class_name, target, gradients=gradients)
    question, log_odds, verdicts = ask(classifier, canvas.images, class_name=class_name, target=target)
    start = question.nearness(torch.arange(len(log_odds)), log_odds)
    scores = log_odds.gather(1, question.columns[:, None])[:, 0].sigmoid().tolist()
    search = _Search(
        bundle=bundle, canvas=canvas, question=question, start=start, gradients=gradients, seed=seed
    )
    search.run(num_answers)
    return [
        Explanation(
            image=canvas.images[row],
            class_name=classifier.classes[int(question.columns[row])],
            score=scores[row],
            verdict=bool(verdicts[row]),
            target=target if question.signs[row] > 0 else 1 - target,
            answers=tuple(search.answers[row]),
            miss=None if search.answers[row] else search.misses.get(row),
            num_decodes=int(search.num_decodes[row]),
        )
        for row in range(len(canvas.images))
    ]


@dataclass(frozen=True, kw_only=True)
class Wish:
    """Attributes that may be set: which ``share`` of the way to the goal it is, and how much changes."""

    moves: Wanted
    share: float
    num_changed: int
    distance: float

    @property
    def key(self) -> frozenset[tuple[str, bool]]:
        """What it is known by."""
        return frozenset(self.moves.items())

    @property
    def order(self) -> tuple[bool, float, float]:
        """What is tried first: what goes most of the way, by how little changes; then by the share."""
        if self.share >= MOST_OF_IT:
            return False, self.num_changed, self.distance
        return True, -self.share, self.distance


class _Search:
    """The search for all images of a canvas at once; ``start`` (N,) is how near they are to the goal."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        canvas: Canvas,
        question: Question,
        start: Tensor,
        gradients: bool,
        seed: int,
    ) -> None:
        self.bundle, self.canvas, self.question, self.seed = bundle, canvas, question, seed
        self.start, self.gradients = start, gradients and canvas.trace is not None
        self.z = canvas.codes.z.flatten(1)
        self.near = Surroundings.of(bundle)
        self.directions = _directions(bundle)
        self.first = None if self.directions is None else self.directions.logits(self.z)
        self.drawn = Donors(bundle=bundle, seed=seed)
        self.answers: list[list[Answer]] = [[] for _ in self.z]
        self.lesser: list[list[Answer]] = [[] for _ in self.z]  # which change something else, too
        self.misses: dict[int, Answer] = {}
        self.num_decodes = torch.ones(len(self.z), dtype=torch.long)
        self.tried: list[set[frozenset[tuple[str, bool]]]] = [set() for _ in self.z]
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []  # rows, displacements y, gains

    def run(self, num_answers: int) -> None:
        """Fill ``answers`` with up to ``num_answers`` each, and ``misses`` where there is none."""
        singles = self.screened() if self.directions is not None and self.directions.names else {}
        for wishes in (singles, self.pairs(singles)):
            for _ in range(MOST_TRIES * num_answers):
                chosen = self.next_of(wishes, num_answers)
                if not chosen:
                    break
                self.try_attributes(chosen)
            self.content_with_lesser(num_answers)
        left = [row for row, found in enumerate(self.answers) if len(found) < num_answers]
        if left:
            self.try_freely(torch.tensor(left))
            self.content_with_lesser(num_answers)

    def content_with_lesser(self, num_answers: int) -> None:
        """Fill up with answers that change something else, too, and forget the others of these."""
        for answers, lesser in zip(self.answers, self.lesser, strict=True):
            answers += lesser[: num_answers - len(answers)]
            lesser.clear()

    def ask_about(self, rows: Tensor, z: Tensor) -> Tensor:
        """How near pictures of other ``z`` (n, d) of ``rows`` are to the goal, (n,); and remember it."""
        self.num_decodes += torch.bincount(rows, minlength=len(self.z))
        towards = torch.cat(
            [
                self.question.towards(some, self.canvas.painted(some, part))
                for some, part in zip(rows.split(AT_ONCE), z.split(AT_ONCE), strict=True)
            ]
        )
        self.steps.append((rows, (z - self.z[rows]) @ self.near.whitening, towards - self.start[rows]))
        return towards

    # known attributes

    def screened(self) -> dict[int, list[Wish]]:
        """What may be set of each row, one attribute at a time."""
        assert self.directions is not None and self.first is not None
        rows, moved, wishes = [], [], []
        for k, name in enumerate(self.directions.names):
            for value in (True, False):
                some = ((self.first[:, k] > 0) != value).nonzero()[:, 0]
                if not len(some):
                    continue
                mover = Mover(bundle=self.bundle, wanted={name: value}, editor="transport", drawn=self.drawn)
                rows.append(some)
                moved.append(mover.moved(self.z[some], self.first[some], 0))
                wishes += [{name: value}] * len(some)
        which, z = torch.cat(rows), torch.cat(moved)
        start = self.start[which]
        shares = ((self.ask_about(which, z) - start) / (-start).clamp(min=1e-6)).tolist()
        distance = ((z - self.z[which]) / self.near.spread).square().mean(dim=1).sqrt().tolist()
        num_changed = changed(self.first[which], self.directions.logits(z)).sum(dim=1).tolist()
        found: dict[int, list[Wish]] = {}
        for i, row in enumerate(which.tolist()):
            wish = Wish(moves=wishes[i], share=shares[i], num_changed=num_changed[i], distance=distance[i])
            found.setdefault(row, []).append(wish)
        return found

    def pairs(self, singles: Mapping[int, list[Wish]]) -> dict[int, list[Wish]]:
        """Pairs of the attributes that come nearest to the goal, with what both gain together."""
        found = {}
        for row, wishes in singles.items():
            best = sorted(wishes, key=lambda wish: -wish.share)[:3]
            found[row] = [
                Wish(
                    moves={**a.moves, **b.moves},
                    share=a.share + b.share,
                    num_changed=a.num_changed + b.num_changed,
                    distance=math.hypot(a.distance, b.distance),
                )
                for a, b in combinations(best, 2)
                if self._goes_with(a.moves, b.moves)
            ]
        return found

    def _goes_with(self, a: Wanted, b: Wanted) -> bool:
        """Whether both can be set: neither rules out what the other wants to be there."""
        both = {**a, **b}
        ruled_out = {o for n, v in both.items() if v for o in self.bundle.transports.exclusive.get(n, ())}
        return a.keys() != b.keys() and not any(both.get(name) for name in ruled_out)

    def next_of(self, wishes: Mapping[int, list[Wish]], num_answers: int) -> dict[int, Wanted]:
        """What is tried next for each row that wants for answers, where there is anything promising."""
        chosen: dict[int, Wanted] = {}
        for row, known in wishes.items():
            promising = [wish for wish in known if wish.key not in self.tried[row] and wish.share > NEAR]
            if promising and len(self.answers[row]) < num_answers:
                chosen[row] = min(promising, key=lambda wish: wish.order).moves
        return chosen

    def try_attributes(self, chosen: Mapping[int, Wanted]) -> None:
        """Set what is ``chosen`` for each row, in full; keep what reaches the goal."""
        assert self.directions is not None and self.first is not None
        first = self.first
        of: dict[frozenset[tuple[str, bool]], list[int]] = {}
        for row, wanted in chosen.items():
            key = frozenset(wanted.items())
            self.tried[row].add(key)
            of.setdefault(key, []).append(row)
        watched = torch.zeros(first.shape, dtype=torch.bool)
        movers = {}
        for key, rows in of.items():
            wanted = dict(sorted(key))
            movers[key] = Mover(bundle=self.bundle, wanted=wanted, editor=DEFAULT_EDITOR, drawn=self.drawn)
            free = untold(self.bundle, wanted)
            watched[rows] = torch.tensor([name not in free for name in self.directions.names])

        def propose(left: Tensor, number: int) -> Tensor:
            moved = self.z[left].clone()
            at = {row: i for i, row in enumerate(left.tolist())}
            for key, rows in of.items():
                some = [row for row in rows if row in at]
                if some:
                    moved[[at[row] for row in some]] = movers[key].moved(self.z[some], first[some], number)
            return moved

        self.keep(self.settled(list(chosen), propose, watched), chosen)

    # freely

    def try_freely(self, rows: Tensor) -> None:
        """Move z of ``rows`` wherever the score leads, and keep what reaches the goal."""
        width = self.z.shape[1]
        length = math.sqrt(width)
        if not self.gradients:
            self.probe(rows)
        best_z, best = self.z[rows].clone(), self.start[rows].clone()
        for generation in range(GENERATIONS):
            left = (best < 0).nonzero()[:, 0]
            if not len(left):
                break
            ways = self.ways(rows[left], best_z[left], generation)  # (n, m, d), of unit length
            num_ways = ways.shape[1]
            base = (best_z[left] - self.z[rows[left]]) @ self.near.whitening
            y = base[:, None, None] + ways[:, :, None] * torch.tensor(LENGTHS)[:, None] * length
            which = rows[left].repeat_interleave(num_ways * len(LENGTHS))
            z = self.moved(which, y.reshape(-1, width))
            towards = self.ask_about(which, z).reshape(len(left), -1)
            moved = ((z - self.z[which]) @ self.near.whitening).norm(dim=1).reshape(len(left), -1)
            # of those that reach the goal the shortest way, otherwise the nearest to the goal
            order = torch.where(towards >= 0, 1e6 - moved, towards)
            found = order.argmax(dim=1)
            at = torch.arange(len(left))
            better = towards[at, found] > best[left]
            best[left[better]] = towards[at, found][better]
            best_z[left[better]] = z.reshape(len(left), -1, width)[at, found][better]
        best_z = self.shortened(rows, best_z, best)
        aims = dict(zip(rows.tolist(), best_z, strict=True))
        watched = torch.ones(self.first.shape if self.first is not None else (len(self.z), 0)).bool()

        def propose(left: Tensor, number: int) -> Tensor:
            return torch.stack([aims[row] for row in left.tolist()])

        self.keep(self.settled(rows.tolist(), propose, watched, amounts=(1.0,)), dict.fromkeys(aims, {}))

    def probe(self, rows: Tensor) -> None:
        """Ask about random steps around each of ``rows``, there and back."""
        width = self.z.shape[1]
        num = min(MOST_PROBES, max(FEWEST_PROBES, width // len(rows)))
        noise = keyed_noise(self.seed, range(len(rows) * num), (width,), "explain")
        y = torch.nn.functional.normalize(noise, dim=1) * PROBE_LENGTH * math.sqrt(width)
        which = rows.repeat_interleave(num).repeat(2)
        self.ask_about(which, self.moved(which, torch.cat([y, -y])))

    def moved(self, rows: Tensor, y: Tensor) -> Tensor:
        """z (n, d) of ``rows``, by whitened ``y`` (n, d) away from the images', within the domain."""
        return self.near.within(self.z[rows] + y @ self.near.colouring)

    def ways(self, rows: Tensor, z: Tensor, generation: int) -> Tensor:
        """Whitened directions (n, m, d) of unit length that are worth going from ``z`` (n, d) of ``rows``."""
        width = self.z.shape[1]
        if self.gradients:
            along = self.gradient(rows, z)
        else:
            columns = self.question.columns[rows].tolist()
            slopes = {column: self._slope(column) for column in set(columns)}
            along = torch.stack([slopes[column] for column in columns]) * self.question.signs[rows, None]
        found = [along]
        concepts = self.bundle.concepts
        if concepts is not None and generation == 0:
            patterns = torch.nn.functional.normalize(
                concepts.along * concepts.z_std @ self.near.whitening, dim=1
            )
            cosines = along @ patterns.T
            best = cosines.abs().topk(min(NUM_CONCEPTS, len(patterns)), dim=1).indices
            found += [
                patterns[best[:, k]] * cosines.gather(1, best[:, k : k + 1]).sign()
                for k in range(best.shape[1])
            ]
        else:
            keys = [f"{row} {generation} {k}" for k in range(2) for row in rows.tolist()]
            noise = torch.nn.functional.normalize(keyed_noise(self.seed, keys, (width,), "ways"), dim=1)
            found += [torch.nn.functional.normalize(along + part, dim=1) for part in noise.split(len(rows))]
        ways = torch.stack(found, dim=1)
        for i, row in enumerate(rows.tolist()):
            if self.answers[row]:  # another answer leads elsewhere
                known = torch.stack([answer.z - self.z[row] for answer in self.answers[row]])
                basis = torch.linalg.qr((known @ self.near.whitening).T).Q
                ways[i] = torch.nn.functional.normalize(ways[i] - ways[i] @ basis @ basis.T, dim=1)
        return ways

    def gradient(self, rows: Tensor, z: Tensor) -> Tensor:
        """Whitened directions (n, d) of unit length in which pictures of ``z`` come nearer to the goal."""
        z = z.detach().clone().requires_grad_()
        with torch.enable_grad():
            log_odds = self.question.classifier.log_odds(self.canvas.traced(rows, z))
            nearness = self.question.nearness(rows, log_odds.cpu())
            (found,) = torch.autograd.grad(nearness.sum(), z)
        return torch.nn.functional.normalize(found @ self.near.colouring.T, dim=1)

    def _slope(self, column: int) -> Tensor:
        """The direction (d,) of unit length in which the log-odds of a class rise, by all that was asked."""
        y, gain = [], []
        for rows, steps, gains in self.steps:
            mine = self.question.columns[rows] == column
            y.append(steps[mine])
            gain.append((gains * self.question.signs[rows])[mine])
        steps, gains = torch.cat(y), torch.cat(gain)
        scale = steps.square().sum(dim=1).mean().clamp(min=1e-9)
        gram = steps.T @ steps + RIDGE * scale * torch.eye(steps.shape[1])
        return torch.nn.functional.normalize(torch.linalg.solve(gram, steps.T @ gains), dim=0)

    def shortened(self, rows: Tensor, z: Tensor, towards: Tensor) -> Tensor:
        """``z`` (n, d) on the straight way from the images', as near to them as still reaches the goal."""
        low, high = torch.zeros(len(rows)), torch.ones(len(rows))
        reaching = (towards >= 0).nonzero()[:, 0]
        for _ in range(HALVINGS):
            if not len(reaching):
                break
            middle = (low + high)[reaching] / 2
            start = self.z[rows[reaching]]
            there = self.ask_about(rows[reaching], start + middle[:, None] * (z[reaching] - start)) >= 0
            high[reaching[there]] = middle[there]
            low[reaching[~there]] = middle[~there]
        return self.z[rows] + high[:, None] * (z - self.z[rows])

    # what came of it

    def settled(
        self,
        rows: Sequence[int],
        propose: Callable[[Tensor, int], Tensor],
        watched: Tensor,
        *,
        amounts: Sequence[float] = AMOUNTS,
    ) -> Settled:
        """What ``propose`` leads to for ``rows``, with the attributes ``watched`` (N, K) as they were."""

        def judge(left: Tensor, made: Tensor, seen_z: Tensor) -> tuple[Tensor, Tensor]:
            towards = self.question.towards(left, made)
            keeping = torch.ones(len(left), dtype=torch.bool)
            if self.directions is not None and self.first is not None:
                other = changed(self.first[left], self.directions.logits(seen_z))
                keeping = ~(other & watched[left]).any(dim=1)
            return (towards >= 0).long() * (1 + keeping.long() * (BEST - 1)), towards

        rank = torch.full((len(self.z),), BEST)
        rank[list(rows)] = 0
        found = settle(
            self.canvas,
            rank=rank,
            propose=propose,
            judge=judge,
            spread=self.near.spread,
            amounts=amounts,
            rounds=ROUNDS,
        )
        self.num_decodes += found.num_decodes
        return found

    def keep(self, settled: Settled, chosen: Mapping[int, Mapping[str, bool]]) -> None:
        """Take what reaches the goal into the answers, and of the rest what comes nearest."""
        rows = torch.tensor(sorted(chosen))
        log_odds = self.question.log_odds(settled.pictures[rows])
        scores = log_odds.gather(1, self.question.columns[rows, None])[:, 0].sigmoid()
        holds = self.question.nearness(rows, log_odds) >= 0
        for row, score, reached in zip(rows.tolist(), scores.tolist(), holds.tolist(), strict=True):
            answer = self.answer(row, chosen[row], settled, score=score, holds=reached)
            if answer.holds and self.is_other(answer, self.answers[row]):
                (self.answers if answer.kept else self.lesser)[row].append(answer)
            elif not answer.holds and self.is_nearer(row, answer):
                self.misses[row] = answer

    def is_other(self, one: Answer, answers: Sequence[Answer]) -> bool:
        """Whether ``one`` is none of the ``answers`` again: what was found freely may change the same."""
        return bool(one.moves) or not any(
            known.changed and set(known.changed) <= set(one.changed) for known in answers
        )

    def is_nearer(self, row: int, one: Answer) -> bool:
        """Whether no other attempt for ``row`` has come as near to the goal as ``one``."""
        best = self.misses.get(row)
        return best is None or (one.score - best.score) * float(self.question.signs[row]) > 0

    def answer(self, row: int, moves: Wanted, settled: Settled, *, score: float, holds: bool) -> Answer:
        """The picture of ``row`` as an answer."""
        z, picture = settled.z[row], settled.pictures[row]
        before: dict[str, float] = {}
        after: dict[str, float] = {}
        names: tuple[str, ...] = ()
        if self.directions is not None and self.first is not None:
            logits = self.directions.logits(z[None])
            known = self.directions.names
            before = dict(zip(known, self.first[row].sigmoid().tolist(), strict=True))
            after = dict(zip(known, logits[0].sigmoid().tolist(), strict=True))
            other = changed(self.first[row : row + 1], logits)[0]
            names = tuple(name for name, is_other in zip(known, other.tolist(), strict=True) if is_other)
        return Answer(
            moves=dict(moves),
            picture=picture,
            z=z,
            score=score,
            holds=holds,
            before=before,
            after=after,
            changed=names,
            kept=bool(settled.rank[row] != 1),
            z_distance=float(((z - self.z[row]) / self.near.spread).square().mean().sqrt()),
            psnr_db=float(psnr(picture[None], self.canvas.images[row : row + 1])[0]),
            outside=bool(self.near.outside(z[None])[0]),
        )
