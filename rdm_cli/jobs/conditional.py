"""Sampling what is like a few examples, or has an attribute (Diff-AE, section 5.4; D2C).

Draws of the latent prior are accepted with the probability that a linear classifier on z gives them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.io.places import digest_of
from rdm_cli.data.sources.folders import CODE_SUFFIXES, PassedOver, find_inputs
from rdm_cli.errors import UsageError, setting
from rdm_cli.jobs.loading import encode_loaded, load_image_or_code
from rdm_cli.jobs.pictures import Draws
from rdm_cli.methods.few_shot import accept_reject, fit_few_shot
from rdm_cli.pipeline.effort import Effort
from rdm_cli.pipeline.pipeline import Pipeline

NUM_UNLABELLED = 512
NUM_AT_ONCE = 256  # images in memory
DOUBTFUL_LOSS = 0.68


@dataclass(frozen=True, kw_only=True)
class Condition:
    """P(accept | z) for z (B, ...) to (B,), and a line about where it comes from.

    ``score``, of the same shapes, ranks draws where the probabilities of all are next to nothing. With a
    ``threshold``, draws of at least that probability are accepted, and no others. ``doubts`` say why its
    verdicts may mean little. ``record`` is what the pictures record of it.
    """

    probability: Callable[[Tensor], Tensor]
    score: Callable[[Tensor], Tensor]
    description: str
    record: Mapping[str, Any]
    threshold: float | None = None
    doubts: str | None = None


@dataclass(frozen=True, kw_only=True)
class FolderCodes:
    """``z`` (N, *z_shape) of a folder's images and codes, SHA-256 over their files, and what was none."""

    z: Tensor
    digest: str
    passed_over: PassedOver


def folder_codes(pipeline: Pipeline, folder: Path) -> FolderCodes:
    """The z of the images and codes below ``folder``; raises the first one's error."""
    passed_over = PassedOver()
    found = find_inputs([folder], suffixes=SUFFIXES | CODE_SUFFIXES, passed_over=passed_over)
    paths = [item.source for item in found]
    parts = []
    for start in range(0, len(paths), NUM_AT_ONCE):
        some = paths[start : start + NUM_AT_ONCE]
        loaded = [load_image_or_code(pipeline, path, "crop") for path in some]
        codes = encode_loaded(pipeline, loaded, Effort(with_x_T=False))
        parts += [code.z for code in codes]
    digest = hashlib.sha256("".join(digest_of(path) for path in paths).encode()).hexdigest()
    return FolderCodes(z=torch.cat(parts), digest=digest, passed_over=passed_over)


def few_shot_condition(
    pipeline: Pipeline, like: Path, *, unlike: Path | None, unlabelled: Path | None, seed: int
) -> Condition:
    """A classifier from a few examples, against counter-examples or unlabelled codes.

    Where neither is given, draws of the prior itself serve as the unlabelled ones.
    """
    pipeline.bundle.require_one_z(setting("like"))
    positive = folder_codes(pipeline, like)
    beside: FolderCodes | None = None
    names = [f"unlabelled {i}" for i in range(NUM_UNLABELLED)]
    population = pipeline.sample_z(names, seed=seed)
    if unlike is not None:
        beside, kind = folder_codes(pipeline, unlike), f"{unlike} as counter-examples"
    elif unlabelled is not None:
        beside, kind = folder_codes(pipeline, unlabelled), f"{unlabelled} unlabelled"
    else:
        kind = f"{NUM_UNLABELLED} prior samples unlabelled"
    prior = pipeline.z_prior
    classifier = fit_few_shot(
        positive.z,
        population if beside is None else beside.z,
        prior.z_mean.cpu(),
        prior.z_std.cpu(),
        positive_unlabelled=unlike is None,
        seed=seed,
        z_population=population,
    )
    learned = classifier.log_loss < DOUBTFUL_LOSS
    passed_over = PassedOver(positive.passed_over)
    if beside is not None:
        passed_over.update(beside.passed_over)
    return Condition(
        probability=classifier.probability,
        score=classifier.logits,
        record={
            "like": positive.digest,
            "unlike" if unlike is not None else "unlabelled": None if beside is None else beside.digest,
        },
        # a handful of examples leaves probabilities vague: looking as positive as they do is the better sieve
        threshold=classifier.typical_probability,
        description=f"classifier on z: {len(positive.z)} examples from {like}, {kind}; cross-validated "
        f"log loss {classifier.log_loss:.3f} (0.693 knows nothing)"
        + (f"; {passed_over}" if passed_over else ""),
        doubts=None if learned else f"{like}: the classifier has learned next to nothing; give more examples",
    )


def attribute_condition(pipeline: Pipeline, wanted: Mapping[str, bool]) -> Condition:
    """The classifiers of stored attributes, each ``wanted`` or not; raises UsageError for an unknown name.

    A draw is accepted with the product of the probabilities that each says what is wanted.
    """
    directions = pipeline.bundle.directions
    rows = [directions.index(name) for name in wanted]
    signs = torch.tensor([1.0 if value else -1.0 for value in wanted.values()])

    def logits(z: Tensor) -> Tensor:
        return directions.logits(z)[:, rows] * signs.to(z.device)

    def score(z: Tensor) -> Tensor:
        return F.logsigmoid(logits(z)).sum(dim=1) if len(rows) > 1 else logits(z)[:, 0]

    doubts = [line for name in wanted if (line := directions.doubts(name))]
    digests = {name: directions.digest(name) for name in wanted}
    (first, is_wanted), *others = wanted.items()
    record: dict[str, Any] = {"attributes": dict(wanted), "direction_digests": digests}
    if is_wanted and not others:  # as it was recorded when there was but this
        record = {"attribute": first, "direction_digest": digests[first]}
    return Condition(
        probability=lambda z: logits(z).sigmoid().prod(dim=1),
        score=score,
        description=f"accepting draws by the stored {in_words(wanted)}",
        record=record,
        doubts="; ".join(doubts) or None,
    )


def in_words(wanted: Mapping[str, bool]) -> str:
    """What is ``wanted`` as a message says it: attribute 'hat', or attributes 'hat', not 'smiling'."""
    told = ", ".join(f"'{name}'" if value else f"not '{name}'" for name, value in wanted.items())
    return f"attribute {told}" if len(wanted) == 1 else f"attributes {told}"


def wanted_attributes(text: str) -> dict[str, bool]:
    """What ``NAME,NAME=yes,NAME=no`` asks for; raises UsageError where it cannot be, or asks for both."""
    wanted: dict[str, bool] = {}
    for part in text.split(","):
        name, equals, answer = (piece.strip() for piece in part.partition("="))
        if not name or (equals and answer not in ("yes", "no")):
            raise UsageError(
                f"{setting('attr')} {text}: {part.strip() or 'nothing'!r} is no attribute that is asked for",
                hint="write glasses, glasses=yes or glasses=no, several with commas between them",
            )
        is_wanted = answer != "no"
        if wanted.setdefault(name, is_wanted) != is_wanted:
            raise UsageError(f"{setting('attr')} {text}: {name} is asked for and ruled out at once")
    return wanted


def knows_all(pipeline: Pipeline, wanted: Mapping[str, bool]) -> bool:
    """Whether the prior can be told all that is ``wanted``, so that no draw has to be rejected."""
    return all(name in pipeline.z_prior.attributes for name in wanted)


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The ``numbers`` of draws: ``num_accepted`` of ``num_drawn``, then the best others."""

    numbers: list[int]
    num_accepted: int
    num_drawn: int

    @property
    def told(self) -> str:
        """A line about how many were accepted."""
        share = 100 * self.num_accepted / self.num_drawn
        return f"accepted {self.num_accepted} of {self.num_drawn} draws ({share:.1f} %)"


def accepted_draws(
    pipeline: Pipeline,
    condition: Condition,
    num: int,
    draws: Draws,
    *,
    max_draws: int,
    keep_best: bool = False,
) -> Drawn:
    """The numbers of the first ``num`` accepted draws.

    Where ``max_draws`` do not give enough, the best-scoring others fill up with ``keep_best``; else, and
    where ``max_draws`` are fewer than ``num``, raises RdmError.
    """
    accepted = accept_reject(
        lambda numbers: draws.z(pipeline, list(numbers)),
        condition.probability,
        num,
        seed=draws.seed,
        max_draws=max_draws,
        threshold=condition.threshold,
        score=condition.score if keep_best else None,
    )
    numbers = [int(i) for i in accepted.draws]
    return Drawn(numbers=numbers, num_accepted=accepted.num_accepted, num_drawn=accepted.num_drawn)
