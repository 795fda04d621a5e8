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
from typing import TypedDict

from torch import Tensor

from rdm_cli.errors import UsageError


class AttributeScore(TypedDict):
    """Held-out scores of one classifier, and how many examples of the whole set knew the attribute."""

    auroc: float
    average_precision: float
    num_positive: int
    num_labelled: int


@dataclass(frozen=True, kw_only=True)
class Directions:
    """K named classifiers on standardised codes.

    ``weight`` (K, d), ``bias`` (K,), ``z_mean`` and ``z_std`` (d,). ``pattern`` (K, d) is what edits follow;
    None: the classifier's weight, as in the paper. ``scores`` by name; directions that
    came without scores (a converted checkpoint's) are not in it.
    """

    names: tuple[str, ...]
    weight: Tensor
    bias: Tensor
    z_mean: Tensor
    z_std: Tensor
    pattern: Tensor | None = None
    scores: Mapping[str, AttributeScore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        num_names, width = len(self.names), self.z_mean.numel()
        shapes = [tuple(part.shape) for part in (self.weight, self.bias, self.z_mean, self.z_std)]
        if shapes != [(num_names, width), (num_names,), (width,), (width,)]:
            raise ValueError(f"directions of {num_names} names have shapes {shapes}")
        if self.pattern is not None and self.pattern.shape != self.weight.shape:
            raise ValueError(f"patterns of shape {tuple(self.pattern.shape)} for weights of {shapes[0]}")

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

        Raises UsageError for an unknown name and for one whose weights are all zero, ValueError for
        codes of another width.
        """
        w = self.along[self.index(name)].to(z.device, z.dtype)
        if not w.any():
            raise UsageError(f"attribute '{name}' has no direction: its classifier learned nothing")
        step = scale * math.sqrt(w.numel()) * w / w.norm()
        normalised = self._normalised(z) + step
        return (normalised * self.z_std.to(w) + self.z_mean.to(w)).reshape(z.shape)

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
        w = self.along[self.index(name)]
        norms = (self.along.norm(dim=1) * w.norm()).clamp(min=1e-12)
        cosines = (self.along @ w / norms).tolist()
        others = [(n, c) for n, c in zip(self.names, cosines, strict=True) if n != name]
        return sorted(others, key=lambda pair: -abs(pair[1]))

    def logits(self, z: Tensor) -> Tensor:
        """How clearly codes ``z`` (B, ...) have each attribute: (B, K), before the sigmoid."""
        normalised = self._normalised(z)
        return normalised @ self.weight.to(normalised).T + self.bias.to(normalised)

    def _normalised(self, z: Tensor) -> Tensor:
        flat = z.flatten(1)
        if flat.shape[1] != self.z_mean.numel():
            raise ValueError(f"directions for {self.z_mean.numel()} values in z do not fit {flat.shape[1]}")
        return (flat - self.z_mean.to(flat)) / self.z_std.to(flat)
