"""How close an image comes back: from z alone, and from z with the x_T inferred for it, at several T."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from rdm_cli.evaluation.distances import PictureDistance, usable
from rdm_cli.evaluation.figures import Figure, Part, Scalar, Sheet, curves, drawn, mean_figure
from rdm_cli.evaluation.material import SHOWN, Material, Subject
from rdm_cli.metrics.reconstruction import ms_ssim, mse, num_scales, psnr, ssim
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

LEAD = (
    "Each image is encoded and decoded in T steps both ways. With the inferred x_T the code is whole; with a "
    "random x_T the picture shows what z alone holds. Means over the images."
)
UNIT = {"scale": "images in [0, 1]"}
SSIM_BORDER = "padded with zeros as in the papers, which scores higher than without a border"


def reconstruction_work(subject: Subject, material: Material, steps: Sequence[int]) -> float:
    """How many images' worth of work :func:`measure_reconstruction` is."""
    passes = 3 if subject.pipeline.bundle.has_z else 2
    return float(len(material) * len(steps) * passes)


def measure_reconstruction(
    subject: Subject,
    material: Material,
    *,
    steps: Sequence[int],
    inversion: str | None,
    distances: Sequence[PictureDistance],
    seed: int,
    advance: Advance,
) -> Part:
    """MSE, PSNR, SSIM, MS-SSIM and ``distances`` of each kind of reconstruction, at each of ``steps``.

    ``inversion`` infers x_T, None being the bundle's own; a random one is drawn for (``seed``, the image's
    number).
    """
    pipeline = subject.pipeline
    x_0 = material.images(pipeline)
    able, notes = usable(distances, subject)
    figures: list[Figure] = []
    rows: list[tuple[str, Tensor]] = [("image", x_0[:SHOWN])]
    if not pipeline.bundle.has_z:
        notes.append(f"{subject.name}: a plain DPM has no z, its codes are x_T alone")
    for t in steps:
        codes = material.encoded(pipeline, x_0, steps=t, inversion=inversion, advance=advance)
        kinds = {"inferred": codes}
        if pipeline.bundle.has_z:
            kinds["random"] = codes.without_x_T()
        for kind, given in kinds.items():
            back = pipeline.decode(given, steps=t, seed=seed, advance=advance)
            how: dict[str, Scalar] = {"x_T": kind, "T": t}
            figures += _figures(subject.name, how, x_0, back, able, seed)
            rows.append((f"T={t}, {kind} x_T", back[:SHOWN]))
    sheet = Sheet(caption=f"{subject.name}: images, and what comes back of them", rows=rows)
    return Part(figures=figures, sheets=[sheet], notes=notes)


def reconstruction_plots(figures: Sequence[Figure]) -> list[Plot]:
    """PSNR, SSIM and the perceptual distances over T."""
    names = [name for name in dict.fromkeys(f.name for f in figures) if name not in ("MSE", "MS-SSIM")]
    return drawn(*(curves(figures, name, "T") for name in names))


def _figures(
    bundle: str,
    how: dict[str, Scalar],
    x_0: Tensor,
    back: Tensor,
    distances: Sequence[PictureDistance],
    seed: int,
) -> list[Figure]:
    about: dict[str, Any] = {"bundle": bundle, "condition": how, "seed": seed}
    window = UNIT | {"window": "11 px, sigma 1.5"}
    found = [
        mean_figure(
            mse(x_0, back), name="MSE", better="lower", bounds=(0.0, 1.0), computed_with=UNIT, **about
        ),
        mean_figure(psnr(x_0, back), name="PSNR", unit="dB", better="higher", computed_with=UNIT, **about),
        mean_figure(
            ssim(x_0, back),
            name="SSIM",
            better="higher",
            bounds=(-1.0, 1.0),
            computed_with=window | {"border": SSIM_BORDER},
            **about,
        ),
    ]
    scales = num_scales(*x_0.shape[2:])
    if scales > 1:  # one scale is SSIM again
        found.append(
            mean_figure(
                ms_ssim(x_0, back),
                name="MS-SSIM",
                better="higher",
                bounds=(0.0, 1.0),
                computed_with=window | {"scales": scales},
                **about,
            )
        )
    for distance in distances:
        found.append(
            mean_figure(
                distance(x_0, back),
                name=distance.name,
                better="lower",
                computed_with=distance.computed_with | {"image_size_px": x_0.shape[-1]},
                **about,
            )
        )
    return found
