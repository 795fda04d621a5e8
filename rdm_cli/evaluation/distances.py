"""Perceptual distances of pictures, as evaluations use them: in parts, with what they are computed with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.errors import UsageError
from rdm_cli.evaluation.figures import Scalar
from rdm_cli.evaluation.material import Subject, as_rgb
from rdm_cli.metrics.interpolation import Distance
from rdm_cli.metrics.lpips import open_lpips
from rdm_cli.metrics.reconstruction import mse
from rdm_cli.metrics.st_lpips import open_st_lpips

PAIRS_AT_ONCE = 64
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class PictureDistance:
    """A distance of two batches of pictures (N, C, H, W) in [-1, 1], by ``name``; (N,), float32 on the CPU.

    ``smallest_px`` is the least that its network can see; it is computed on ``device``.
    """

    name: str
    distance: Distance
    smallest_px: int
    computed_with: dict[str, Scalar]
    device: torch.device = CPU

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each pair, without gradients."""
        parts = zip(x.split(PAIRS_AT_ONCE), y.split(PAIRS_AT_ONCE), strict=True)
        with torch.no_grad():
            return torch.cat([self._distance(a, b).float().cpu() for a, b in parts])

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distance(as_rgb(x.to(self.device)), as_rgb(y.to(self.device)))

    def sees(self, image_size_px: int) -> bool:
        """Whether pictures of that size are large enough for it."""
        return image_size_px >= self.smallest_px


SQUARED = PictureDistance(
    name="MSE", distance=mse, smallest_px=1, computed_with={"scale": "images in [0, 1]"}
)  # what is left where there is no perceptual one


def open_distances(lpips_weights: Sequence[Path] = ()) -> tuple[list[PictureDistance], list[str]]:
    """ST-LPIPS where it is installed, and LPIPS where its weights are named; and what is missing.

    Raises UsageError or CheckpointError for weights that are named and cannot be used.
    """
    found, notes = [], []
    if lpips_weights:
        lpips = open_lpips(lpips_weights)
        found.append(
            PictureDistance(
                name=f"LPIPS-{lpips.trunk}",
                distance=lpips,
                smallest_px=lpips.smallest_px,
                computed_with={
                    "extractor": f"LPIPS v0.1, {lpips.trunk}",
                    "sha256": lpips.sha256,
                    "resize": "none",
                },
            )
        )
    try:
        st_lpips = open_st_lpips()
    except UsageError as error:
        notes.append(f"ST-LPIPS is left out: {error}")
    else:
        config = st_lpips.network.config
        found.append(
            PictureDistance(
                name=f"ST-LPIPS-{config.trunk}",
                distance=st_lpips,
                smallest_px=config.smallest,
                computed_with={
                    "extractor": f"ST-LPIPS, {config.trunk}",
                    "sha256": st_lpips.sha256,
                    "resize": "none",
                },
            )
        )
    return found, notes


def usable(distances: Sequence[PictureDistance], subject: Subject) -> tuple[list[PictureDistance], list[str]]:
    """Those that see pictures of ``subject``'s size, on its device, and a line about each of the others."""
    bundle = subject.pipeline.bundle
    image_size_px = bundle.model.image_size
    notes = [
        f"{subject.name}: {d.name} needs {d.smallest_px} px, and its images have {image_size_px}"
        for d in distances
        if not d.sees(image_size_px)
    ]
    return [replace(d, device=bundle.device) for d in distances if d.sees(image_size_px)], notes


def first_choice(distances: Sequence[PictureDistance], subject: Subject) -> PictureDistance:
    """The first of :func:`usable`; the mean squared error where there is none."""
    able, _ = usable(distances, subject)
    return able[0] if able else SQUARED
