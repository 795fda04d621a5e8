r"""Attribute directions: what to add to a code so that the face smiles (Diff-AE, section 5.3).

    z' = denorm(norm(z) + scale sqrt(d) w / ||w||),        norm(z) = (z - z_mean) / z_std

d is the number of values in z, so ``scale`` is the step in units of the standardised code's own typical
length, whatever the method. For w the paper takes a linear classifier's weight on standardised codes. That
is a filter: it is free to lean on combinations of z that hardly vary, and moving along it may change the
verdict more than the picture. The pattern, how codes with the attribute differ in the mean from codes
without (Haufe et al. 2014, "On the interpretation of weight vectors of linear models"), stays among codes
that exist; where ``pattern`` is given, edits follow it and the classifier only classifies.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Required, TypedDict

import torch
from torch import Tensor

from rdm_cli.errors import UsageError

WEAK_AUROC = 0.6  # below it a classifier has learned next to nothing


class AttributeScales(TypedDict, total=False):
    """Scales along a direction, by held-out codes.

    From which the classifier sees the attribute in half, and in nine of ten, of the codes that lack it; and,
    below 0, from which it sees it no more in as many of those that have it.
    """

    added_in_half: float
    added_in_nine_tenths: float
    removed_in_half: float
    removed_in_nine_tenths: float


class AttributeScore(AttributeScales):
    """Held-out scores of one classifier, and how many examples of the whole set knew the attribute."""

    auroc: Required[float]
    average_precision: Required[float]
    num_positive: Required[int]
    num_labelled: Required[int]


@dataclass(frozen=True, kw_only=True)
class Directions:
    """K named classifiers on standardised codes.

    ``weight`` (K, d), ``bias`` (K,), ``z_mean`` and ``z_std`` (d,), or (K, d) where each was fitted on codes
    of its own. ``pattern`` (K, d) is what edits follow; None: the classifier's weight, as in the paper.
    ``scores`` by name; directions that came without scores (a converted checkpoint's) are not in it.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    z_mean: Tensor
    z_std: Tensor
    pattern: Tensor | None = None
    scores: Mapping[str, AttributeScore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_names, width = len(self.names), self.width
        shapes = [tuple(part.shape) for part in (self.weight, self.bias, self.z_mean, self.z_std)]
        moments = (num_names, width) if self.z_mean.ndim == 2 else (width,)
        if shapes != [(num_names, width), (num_names,), moments, moments]:
            raise ValueError(f"directions of {num_names} names have shapes {shapes}")
        if self.pattern is not None and self.pattern.shape != self.weight.shape:
            raise ValueError(f"patterns of shape {tuple(self.pattern.shape)} for weights of {shapes[0]}")

    @property
    def width(self) -> int:
        """d, the number of values in z."""
        return self.z_mean.shape[-1] if self.z_mean.ndim else 1

    @property
    def along(self) -> Tensor:
        """What edits follow, (K, d): the patterns, else the classifiers' weights."""
        return self.weight if self.pattern is None else self.pattern

    def index(self, name: str) -> int:
        """The row of ``name``; raises UsageError that lists the known names where there is none."""
        if name in self.names:
            return self.names.index(name)
        folded = {known.lower(): known for known in self.names}
        nearest = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.4)
        known = ", ".join(self.names) or "none"
        raise UsageError(
            f"no attribute named '{name}'; known: {known}",
            hint=f"did you mean '{folded[nearest[0]]}'?" if nearest else None,
        )

    def shift(self, z: Tensor, name: str, scale: float) -> Tensor:
        """Move codes ``z`` (B, ...) along ``name``; same shape and dtype.

        Raises UsageError for an unknown name, for one whose weights are all zero and for a scale that is not
        finite, ValueError for codes of another width.
        """
        if not math.isfinite(scale):
            raise UsageError(f"attribute '{name}': a scale of {scale} moves nothing anywhere")
        row = self.index(name)
        w = self.along[row].to(z.device, z.dtype)
        if not w.any():
            raise UsageError(f"attribute '{name}' has no direction: its classifier learned nothing")
        step = scale * math.sqrt(w.numel()) * w / w.norm()
        z_mean, z_std = self._moments(row, w)
        return ((self._flat(z) - z_mean) / z_std + step).mul(z_std).add(z_mean).reshape(z.shape)

    def reached(self, z: Tensor, name: str, logit: float) -> Tensor:
        """Move codes ``z`` (B, d) along ``name``, each as far as its classifier needs to give ``logit``."""
        step = self.shift(z, name, 1.0) - z
        return z + step * self.scales_needed(z, name, logit)[:, None]

    def scales_needed(self, z: Tensor, name: str, logit: float = 0.0) -> Tensor:
        """How far codes ``z`` (B, d) go along ``name`` until its classifier gives ``logit``, (B,)."""
        k = self.index(name)
        before = self.logits(z)[:, k]
        gain = self.logits(self.shift(z, name, 1.0))[:, k] - before
        return (logit - before) / gain.clamp(min=1e-6)

    @property
    def spread(self) -> Tensor:
        """The standard deviations of codes, (d,): in the mean, where each attribute has its own."""
        return self.z_std if self.z_std.ndim == 1 else self.z_std.mean(dim=0)

    def distance(self, z: Tensor, other: Tensor) -> Tensor:
        """How far codes ``other`` (B, ...) are from ``z``, (B,), in what scales count: a scale moves as far.

        The root mean square of the differences, in standard deviations of the codes.
        """
        return ((self._flat(other) - self._flat(z)) / self.spread.to(z)).square().mean(dim=1).sqrt()

    def digest(self, name: str) -> str:
        """SHA-256 of all that edits along ``name``, and its classifier, depend on."""
        row = self.index(name)
        parts = (self.along[row], self.weight[row], self.bias[row : row + 1], self.z_mean, self.z_std)
        found = hashlib.sha256()
        for part in parts:
            found.update(part.detach().cpu().float().numpy().tobytes())
        return found.hexdigest()

    def cosines(self, name: str) -> list[tuple[str, float]]:
        """The other attributes by how nearly their directions are ``name``'s, most alike first.

        Cosine in standardised z, -1 to 1, of what edits follow: 0 means that they have nothing in common.
        """
        row = self.index(name)
        w = self.along[row]
        # in name's standardised z, whatever each of the others was standardised with
        along = self.along if self.z_std.ndim == 1 else self.along * self.z_std / self.z_std[row]
        norms = (along.norm(dim=1) * w.norm()).clamp(min=1e-12)
        cosines = (along @ w / norms).tolist()
        others = [(n, c) for n, c in zip(self.names, cosines, strict=True) if n != name]
        return sorted(others, key=lambda pair: -abs(pair[1]))

    def logits(self, z: Tensor) -> Tensor:
        """How clearly codes ``z`` (B, ...) have each attribute: (B, K), before the sigmoid."""
        flat = self._flat(z)
        weight, bias, z_mean, z_std = (p.to(flat) for p in (self.weight, self.bias, self.z_mean, self.z_std))
        if z_mean.ndim == 1:
            return (flat - z_mean) / z_std @ weight.T + bias
        each = [(flat - z_mean[k]) / z_std[k] @ weight[k] for k in range(len(self.names))]
        return torch.stack(each, dim=1) + bias

    def updated(self, other: Directions) -> Directions:
        """These and ``other``'s: a name of both is ``other``'s, and the rest stays what it was.

        Raises ValueError where z has another number of values.
        """
        if other.width != self.width:
            raise ValueError(
                f"directions for {self.width} values in z do not go with those for {other.width}"
            )
        names = tuple(dict.fromkeys([*self.names, *other.names]))
        rows = [
            len(self.names) + other.names.index(name) if name in other.names else self.names.index(name)
            for name in names
        ]

        def joined(part: str, *shape: int) -> Tensor:
            """Both parts by row, each in ``shape`` for one attribute."""
            both = [(d, getattr(d, part)) for d in (self, other)]
            return torch.cat([p.expand(len(d.names), *shape) for d, p in both])[rows]

        same = torch.equal(self.z_mean, other.z_mean) and torch.equal(self.z_std, other.z_std)
        without = self.pattern is None and other.pattern is None
        kept = {name: score for name, score in self.scores.items() if name not in other.names}
        return Directions(
            names=names,
            weight=joined("weight", self.width),
            bias=joined("bias"),
            z_mean=self.z_mean if same else joined("z_mean", self.width),
            z_std=self.z_std if same else joined("z_std", self.width),
            pattern=None if without else joined("along", self.width),
            scores={**kept, **other.scores},
        )

    def select(self, names: Mapping[str, str]) -> Directions:
        """Those of the attributes that ``names`` has, each under the name that it gives, in its order.

        Raises UsageError for an unknown attribute, ValueError where two are to have one name.
        """
        if len(set(names.values())) < len(names):
            raise ValueError("two attributes cannot have one name")
        rows = [self.index(name) for name in names]

        def moments(part: Tensor) -> Tensor:
            return part if part.ndim == 1 else part[rows]

        return Directions(
            names=tuple(names.values()),
            weight=self.weight[rows],
            bias=self.bias[rows],
            z_mean=moments(self.z_mean),
            z_std=moments(self.z_std),
            pattern=None if self.pattern is None else self.pattern[rows],
            scores={new: self.scores[old] for old, new in names.items() if old in self.scores},
        )

    def doubts(self, name: str) -> str | None:
        """What a person should know before trusting ``name``: a line where it hardly tells codes apart."""
        auroc = self.scores[name].get("auroc") if name in self.scores else None
        if auroc is None or auroc >= WEAK_AUROC:
            return None
        return (
            f"attribute '{name}' was hardly learned: AUROC {auroc:.2f} on codes that were not fitted, "
            "where guessing has 0.5; edits along it may show anything"
        )

    def _moments(self, row: int, like: Tensor) -> tuple[Tensor, Tensor]:
        z_mean, z_std = self.z_mean.to(like), self.z_std.to(like)
        return (z_mean, z_std) if z_mean.ndim == 1 else (z_mean[row], z_std[row])

    def _flat(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        if flat.shape[1] != self.width:
            raise ValueError(f"directions for {self.width} values in z do not fit {flat.shape[1]}")
        return flat
