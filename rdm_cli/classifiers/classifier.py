r"""Any classifier: pictures to the log-odds of its classes, whoever made it.

A model's raw outputs become log-odds of each class against all else, the one scale on which models of one
logit, of a softmax and of probabilities can be asked the same:

    softmax        v_k - log sum_{j != k} exp v_j
    sigmoid        v_k
    probabilities  log p_k / (1 - p_k)

The score of a class is the sigmoid of its log-odds: its probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from rdm_cli.errors import ClassifierError, UsageError, setting
from rdm_cli.kernels.randomness import keyed_noise

Outputs = Literal["softmax", "sigmoid", "probabilities"]
"""What a model's raw outputs are: logits of one class among several, logits of each class by itself, or
probabilities."""
SURE = 1e-6  # a probability of 0 or 1 counts as so far from it
SUMS = 1e-3  # what probabilities of one class among several may sum to beside 1
NUM_PROBES = 8
ONE_CLASS = "positive"
"""What the only class of a model with one output is called where nobody named it."""


@dataclass(frozen=True, kw_only=True)
class Classifier:
    """A model that tells ``classes``, K of them, and what is to be known of it.

    ``raw`` takes pictures (B, 3, H, W), float32 in [-1, 1], and gives the model's own outputs (B, K), which
    are ``outputs``. ``exclusive``: a picture is of one class; otherwise each class is a question of its own.
    ``differentiable``: gradients flow through ``raw`` to the pictures. ``assumed`` is what was found out or
    taken for granted (input size, mean, what the outputs are), for people to read. ``digest`` is the SHA-256
    of its files, None where it has none.
    """

    name: str
    classes: tuple[str, ...]
    raw: Callable[[Tensor], Tensor]
    outputs: Outputs
    exclusive: bool
    differentiable: bool = False
    assumed: Mapping[str, Any] = field(default_factory=dict)
    digest: str | None = None

    def log_odds(self, x: Tensor) -> Tensor:
        """The log-odds of each class, float32 (B, K), for pictures ``x`` (B, 1 or 3, H, W) in [-1, 1].

        Raises ClassifierError where the model fails, or answers with something that is no score.
        """
        return _log_odds(self._raw(x), self.outputs, self.name)

    def scores(self, x: Tensor) -> Tensor:
        """The probability of each class, float32 (B, K) in [0, 1]; as :meth:`log_odds` otherwise."""
        return self.log_odds(x).sigmoid()

    def verdicts(self, log_odds: Tensor) -> Tensor:
        """Which classes pictures with these ``log_odds`` (B, K) are said to be of: bool (B, K).

        The likeliest one where classes are ``exclusive``, otherwise each that is likelier than not.
        """
        if not self.exclusive:
            return log_odds > 0
        likeliest = log_odds.argmax(dim=1, keepdim=True)
        return torch.arange(len(self.classes), device=log_odds.device) == likeliest

    def index(self, name: str) -> int:
        """The column of the class ``name``; raises UsageError where there is none."""
        if name in self.classes:
            return self.classes.index(name)
        shown = ", ".join(self.classes[:20]) + (", ..." if len(self.classes) > 20 else "")
        raise UsageError(f"{self.name}: there is no class {name!r}; its classes: {shown}")

    def _raw(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"pictures are (B, 3, H, W), not {tuple(x.shape)}")
        if len(x) == 0:
            return x.new_zeros(0, len(self.classes))
        return _checked(self.raw(x.expand(-1, 3, -1, -1)), len(x), len(self.classes), self.name)


def make_classifier(
    raw: Callable[[Tensor], Any],
    *,
    name: str,
    labels: Sequence[str] | None = None,
    outputs: Outputs | None = None,
    image_size: int = 64,
    differentiable: bool = False,
    assumed: Mapping[str, Any] | None = None,
    digest: str | None = None,
) -> Classifier:
    """A :class:`Classifier` of a function: pictures (B, 3, H, W) in [-1, 1] to outputs (B, K) or (B,).

    It is asked once, about pictures of ``image_size``, to see how many classes there are and, where
    ``outputs`` is None, what the outputs are: probabilities where all lie in [0, 1], otherwise logits, of one
    class among several where there are several. ``labels`` name the classes. Raises UsageError where
    these are too few or too many, ClassifierError where the answers are no scores.
    """
    if outputs is not None and outputs not in get_args(Outputs):
        raise UsageError(
            f"{setting('outputs')} {outputs}: there is no such kind", hint=", ".join(get_args(Outputs))
        )

    def asked(x: Tensor) -> Tensor:
        return _two_axes(raw(x), name)

    answers = asked(_probes(image_size)).detach()
    answers = _checked(answers, NUM_PROBES, answers.shape[1], name)
    num_classes = answers.shape[1]
    told = dict(assumed or {})
    if outputs is None:
        outputs, told["outputs"] = _guessed(answers)
    else:
        told.setdefault("outputs", outputs)
    _log_odds(answers, outputs, name)  # an option that does not fit is told before any work
    exclusive = num_classes > 1 and outputs != "sigmoid"
    if outputs == "probabilities":
        exclusive = exclusive and _sums_to_one(answers)
    if labels is None:
        names = (ONE_CLASS,) if num_classes == 1 else tuple(map(str, range(num_classes)))
        told["classes"] = "not named: " + (names[0] if num_classes == 1 else f"0 to {num_classes - 1}")
    else:
        names = tuple(labels)
        if len(names) != num_classes:
            raise UsageError(f"{name}: it has {num_classes} outputs, and {len(names)} names of classes")
        if len(set(names)) < num_classes:
            raise UsageError(f"{name}: two of its classes have one name")
    return Classifier(
        name=name,
        classes=names,
        raw=asked,
        outputs=outputs,
        exclusive=exclusive,
        differentiable=differentiable,
        assumed=told,
        digest=digest,
    )


def of_module(
    module: nn.Module,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    outputs: Outputs | None = None,
    image_size: int = 64,
) -> Classifier:
    """A torch ``module`` that takes pictures (B, 3, H, W) in [-1, 1], in evaluation mode, with gradients."""
    module.eval()
    parameter = next(module.parameters(), None)

    def raw(x: Tensor) -> Any:
        given = x if parameter is None else x.to(parameter.device, parameter.dtype)
        return module(given)

    return make_classifier(
        raw,
        name=name or type(module).__name__,
        labels=labels,
        outputs=outputs,
        image_size=image_size,
        differentiable=True,
    )


def _probes(size: int) -> Tensor:
    """Pictures to ask a model about when it is opened: black, white, and noise of all strengths."""
    noise = keyed_noise(0, range(NUM_PROBES), (3, size, size), "probe")
    strength = torch.linspace(0.1, 2, NUM_PROBES)[:, None, None, None]
    x = (noise * strength).clamp(-1, 1)
    x[0], x[1] = -1, 1
    return x


def _guessed(answers: Tensor) -> tuple[Outputs, str]:
    """What ``answers`` (B, K) are, and why, in words."""
    if bool(((answers >= 0) & (answers <= 1)).all()):
        if _sums_to_one(answers):
            return "probabilities", "probabilities: all in [0, 1], and they sum to 1"
        return "probabilities", "probabilities: all in [0, 1]"
    if answers.shape[1] == 1:
        return "sigmoid", "one logit: not all in [0, 1]"
    return "softmax", "logits of one class among several: not all in [0, 1]"


def _sums_to_one(answers: Tensor) -> bool:
    return bool(((answers.sum(dim=1) - 1).abs() < SUMS).all()) and answers.shape[1] > 1


def _two_axes(answers: Any, name: str) -> Tensor:
    """Whatever a function gave as (B, K); raises ClassifierError for what is no such table."""
    logits = getattr(answers, "logits", None)  # what the networks of transformers give
    try:
        found = torch.as_tensor(answers if logits is None else logits)
    except (TypeError, ValueError, RuntimeError):
        raise ClassifierError(
            f"{name}: gives a {type(answers).__name__}, and a table of scores was expected"
        ) from None
    if found.ndim > 2 and math.prod(found.shape[2:]) == 1:
        found = found.flatten(1)
    if found.ndim == 1:
        found = found[:, None]
    if found.ndim != 2 or found.shape[1] == 0 or found.is_complex():
        raise ClassifierError(
            f"{name}: gives {tuple(found.shape)} of {found.dtype}, and scores are (pictures, classes)"
        )
    return found.float()


def _checked(answers: Tensor, num_pictures: int, num_classes: int, name: str) -> Tensor:
    if answers.shape != (num_pictures, num_classes):
        raise ClassifierError(
            f"{name}: gives {tuple(answers.shape)} scores for {num_pictures} pictures and "
            f"{num_classes} classes"
        )
    if not bool(torch.isfinite(answers).all()):
        num = int((~torch.isfinite(answers)).any(dim=1).sum())
        raise ClassifierError(f"{name}: gives NaN or infinite scores, for {num} of {num_pictures} pictures")
    return answers


def _log_odds(raw: Tensor, outputs: Outputs, name: str) -> Tensor:
    if outputs == "sigmoid" or (outputs == "softmax" and raw.shape[1] == 1):
        return raw
    if outputs == "softmax":
        # of the likeliest class the others are summed by themselves: 1 - p would be all rounding
        likeliest = raw.argmax(dim=1, keepdim=True)
        rest = raw.scatter(1, likeliest, -torch.inf).logsumexp(dim=1, keepdim=True)
        total = raw.logsumexp(dim=1, keepdim=True)
        share = (raw - total).exp().scatter(1, likeliest, 0.0)
        return raw - (total + torch.log1p(-share)).scatter(1, likeliest, rest)
    low, high = float(raw.min()), float(raw.max())
    if low < -SUMS or high > 1 + SUMS:
        raise ClassifierError(
            f"{name}: its outputs were taken for probabilities, and one is {low if low < 0 else high:.4g}",
            hint=f"say what they are: {setting('outputs')} softmax or sigmoid",
        )
    return raw.clamp(SURE, 1 - SURE).logit()
