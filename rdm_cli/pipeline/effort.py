"""How hard an image is worked on for its x_T, and harder ways until its code brings it back well enough."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.images.pixels import Fit
from rdm_cli.errors import CodeError, RdmError, setting
from rdm_cli.metrics.reconstruction import mse, psnr
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress, share
from rdm_cli.pipeline.sampling import Way, sampling_way, way_up

MANY_STEPS = 20
MANY_ITERATIONS = 5
_FIXED_POINT = "fixed-point"


@dataclass(frozen=True, kw_only=True)
class Effort:
    """An inversion, its steps and its iterations, None being the bundle's; ``with_x_T`` False: z alone.

    They are arguments of :meth:`~rdm_cli.pipeline.pipeline.Pipeline.encode`, by the same names.
    """

    inversion: str | None = None
    steps: int | None = None
    iterations: int | None = None
    with_x_T: bool = True

    def way(self, bundle: Bundle) -> Way:
        """The way up in ``bundle``; raises UsageError as :func:`~rdm_cli.pipeline.sampling.way_up` does."""
        return way_up(bundle, self.inversion, self.steps, self.iterations)


USUAL = Effort()


@dataclass(frozen=True, kw_only=True)
class Verified:
    """A code, the picture that it decodes to (1, C, H, W), and its error: MSE, and PSNR in dB."""

    code: Codes
    picture: Tensor
    mse: float
    psnr_db: float


def ladder(pipeline: Pipeline, effort: Effort) -> list[Effort]:
    """``effort`` and harder ones: first more steps, then more iterations, then the exact solver."""
    bundle = pipeline.bundle
    own = effort.way(bundle)
    inversion = own.sampling.solver
    rungs = []
    if inversion == "ddim":
        rungs.append(replace(effort, steps=min(2 * own.steps, bundle.model.sampling.max_steps)))
    if inversion != "exact":
        rungs += [
            Effort(inversion=_FIXED_POINT),
            Effort(inversion=_FIXED_POINT, steps=MANY_STEPS),
            Effort(inversion=_FIXED_POINT, steps=MANY_STEPS, iterations=MANY_ITERATIONS),
        ]
    exact = way_up(bundle, "exact")
    rungs += [Effort(inversion="exact"), Effort(inversion="exact", steps=2 * exact.steps)]
    ways = [(rung, rung.way(bundle)) for rung in rungs]
    harder = [r for r, way in ways if way.sampling.solver != inversion or _work(way) > _work(own)]
    return [effort, *harder]


def _work(way: Way) -> int:
    """How hard a way up is: its steps, as often as each may ask the network."""
    return way.steps * way.iterations


def parts_of_work(pipeline: Pipeline, effort: Effort, *, num_decodes: int) -> tuple[float, float]:
    """Of an image's network calls, those of its encoding and those of each decode, as parts of 1."""
    bundle = pipeline.bundle
    way = effort.way(bundle)
    up = way.calls_up if effort.with_x_T else 1
    if not effort.with_x_T:
        way = sampling_way(bundle, pipeline.sampler, effort.steps)
    down = way.calls_down
    total = up + num_decodes * down
    return up / total, down / total


def info_wanted(pipeline: Pipeline, effort: Effort, fit: Fit) -> CodeInfo:
    """The metadata of a code that is made by ``effort``, as far as no image is asked."""
    way = effort.way(pipeline.bundle)
    return pipeline.info_of(way, with_x_T=effort.with_x_T, fit=fit, value_range=pipeline.value_range)


def encode_verified(
    pipeline: Pipeline,
    images: Sequence[LoadedImage],
    effort: Effort,
    *,
    min_psnr_db: float | None = None,
    advance: Advance = ignore_progress,
) -> list[Verified | RdmError]:
    """Each image's code, decoded again and measured; with ``min_psnr_db``, by the least effort that gives it.

    In the place of an image that none gives so much stands a CodeError.
    """
    found: dict[int, Verified] = {}
    waiting = list(range(len(images)))
    rungs = [effort] if min_psnr_db is None else ladder(pipeline, effort)
    left = 1.0  # of the progress of an image that waits
    for rung in rungs:
        some = [images[i] for i in waiting]
        x_0 = torch.stack([image.x_0 for image in some])
        # an image counts once, and nobody knows how many rungs it takes: each moves it half of the way
        part = left if rung is rungs[-1] else left / 2
        left -= part
        up, down = parts_of_work(pipeline, rung, num_decodes=1)
        codes = pipeline.encode(some, **asdict(rung), advance=share(advance, part * up))
        pictures = pipeline.decode(codes, advance=share(advance, part * down))
        for i, code, picture, m, p in zip(
            waiting, codes, pictures, mse(x_0, pictures), psnr(x_0, pictures), strict=True
        ):
            # what is no picture is no code either, however much it compares as equal
            if math.isfinite(float(m)) and (i not in found or float(p) > found[i].psnr_db):
                found[i] = Verified(code=code, picture=picture[None], mse=float(m), psnr_db=float(p))
        num_waited = len(waiting)
        reached = {i for i, one in found.items() if min_psnr_db is None or one.psnr_db >= min_psnr_db}
        waiting = [i for i in waiting if i not in reached]
        advance(left * (num_waited - len(waiting)))
        if not waiting or min_psnr_db is None:
            break
    return [_short(found.get(i), min_psnr_db) if i in waiting else found[i] for i in range(len(images))]


def _short(found: Verified | None, min_psnr_db: float | None) -> CodeError:
    """What to say of an image whose code does not bring it back, or not so well as was asked."""
    if found is None:
        return CodeError(
            "its code decodes to values that are not finite", hint=f"try another {setting('precision')}"
        )
    return CodeError(
        f"its code reaches {found.psnr_db:.1f} dB and no more, {min_psnr_db:g} were asked for",
        hint=f"ask for less, or add {setting('lossless')} without {setting('min_psnr')}",
    )
