"""Pictures of several codes at once: paths between codes, and samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.animation import AnimationKind, animation_bytes, require_encoder
from rdm_cli.data.images.pixels import Fit, load_rgb, to_pil
from rdm_cli.data.images.record import (
    HINT,
    read_record,
    refuse_other,
    same_settings,
    save_image,
)
from rdm_cli.data.images.sheet import TILE, Tile, enlarged, sheet
from rdm_cli.data.io.places import digest_of, put
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import OccupiedError
from rdm_cli.jobs.loading import encode_loaded, in_batches_for, load_image_or_code
from rdm_cli.jobs.picture_records import encoded_as, record_of
from rdm_cli.pipeline.compatibility import stop_shift_for
from rdm_cli.pipeline.effort import USUAL, Effort, info_wanted
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.pipeline.sampling import Way, sampling_way
from rdm_cli.priors.gaussian import GaussianPrior

WayOfZ = Literal["lerp", "prior", "trajectory"]
"""How z changes on the way from one code to another; a trajectory has no z between its ends."""
GRID_PICTURES = 256  # those of a sheet, however many samples there are
PRIOR_BATCH = 64  # a prior is a small network: z are drawn so many at once, where a decode takes fewer


def interpolate_files(
    pipeline: Pipeline,
    inputs: Sequence[Path],
    output: Path,
    *,
    alone: Literal["strip", "animation"] | None = None,
    num_frames: int,
    frame_ms: int,
    effort: Effort = USUAL,
    fit: Fit = "crop",
    path: WayOfZ | None = None,
    animations: Sequence[AnimationKind] = ("gif",),
    tile: int = TILE,
    force: bool = False,
    advance: Advance = ignore_progress,
) -> Iterator[tuple[str, Path]]:
    """Write frames, codes, a strip and animations of the path through ``inputs``; yields (kind, path).

    They go into the folder ``output``; where the strip or the animation is to be ``alone``, it is its file.
    ``num_frames`` from one input to the next, both included; an inner input is shown once. ``path`` is how z
    changes, None the bundle's usual way. A "trajectory" leaves no codes: its pictures have no z of their own.
    Strip and animations show the frames ``tile`` pixels wide or more; 0: as they are. Raises OccupiedError,
    before any work, where ``output`` holds what is not a result of this very path, unless ``force`` is given,
    and UsageError for an animation that this machine cannot write.
    """
    for kind in animations:
        require_encoder(kind)  # before any work
    loaded = [load_image_or_code(pipeline, source, fit) for source in inputs]
    chosen: WayOfZ = path or pipeline.usual_path
    trajectory = chosen == "trajectory"
    if chosen == "prior":
        _ = pipeline.bundle.prior  # a bundle without one is told before any work
    record = _path_record(
        pipeline,
        inputs,
        loaded,
        encoding=encoded_as(info_wanted(pipeline, effort, fit)),
        steps=effort.steps,
        num_frames=num_frames,
        path=chosen,
        prior_digest=pipeline.bundle.prior_digest if chosen == "prior" else None,
    )
    num = (num_frames - 1) * (len(inputs) - 1) + 1
    frames = [output / f"frame-{i:04d}.png" for i in range(num)]
    strip = output if alone else output / "strip.png"
    moving = [output if alone else output / f"animation.{kind}" for kind in animations]
    told = [record | {"frame": i} for i in range(num)]
    of_strip = record | {"what": "interpolation strip", "tile": tile}
    of_animation = record | {"what": "interpolation animation", "frame_ms": frame_ms, "tile": tile}
    if not force and alone:
        refuse_other(output, of_animation if alone == "animation" else of_strip)
    elif not force:
        for frame, of_frame in zip(frames, told, strict=True):
            refuse_other(frame, of_frame, code=None if trajectory else frame.with_suffix(CODE_SUFFIX))
        refuse_other(strip, of_strip)
        for animation in moving:
            refuse_other(animation, of_animation)
        _refuse_another_run(output.glob("frame-*.png"), record, but=("frame",))
    ends: list[Codes] = []
    for one in loaded:
        ends += encode_loaded(pipeline, [one], effort, advance=advance)
    # beside images, the steps are those that these are encoded in: codes made elsewhere keep to their own
    only_codes = not any(isinstance(one, LoadedImage) for one in loaded)
    steps = effort.steps if only_codes and effort.way(pipeline.bundle).kernel.clamps else None
    alphas = [i / (num_frames - 1) for i in range(num_frames)]
    legs = [
        (first, second, alphas if i == 0 else alphas[1:])
        for i, (first, second) in enumerate(zip(ends, ends[1:], strict=False))
    ]
    codes = None
    if chosen == "trajectory":
        x_0 = torch.cat([pipeline.trajectory(*leg, steps=steps, advance=advance) for leg in legs])
    else:
        codes = Codes.concatenate([pipeline.interpolate(*leg, path=chosen) for leg in legs])
        # codes without an x_T share one: else each frame would be another picture
        keys = ["interpolation"] * len(codes)
        x_0 = pipeline.decode(codes, steps=steps, keys=keys, advance=advance)
    pictures = [to_pil(x, str(frame)) for x, frame in zip(x_0, frames, strict=True)]
    for i, (picture, frame, of_frame) in enumerate(zip(pictures, frames, told, strict=True)):
        if alone:
            break
        if codes is None:
            save_image(picture, frame, of_frame)
        else:
            _save_with_code(picture, codes[i], frame, of_frame)
        yield "frame", frame
    if alone != "animation":
        save_image(sheet(_captioned(pictures, inputs, alphas), tile=tile), strip, of_strip)
        yield "strip", strip
    if alone == "strip":
        return
    shown = [enlarged(picture, tile) for picture in pictures]
    for animation, kind in zip(moving, animations, strict=True):
        put(animation, animation_bytes(shown, kind, of_animation, frame_ms=frame_ms))
        yield "animation", animation


def _captioned(
    pictures: Sequence[Image.Image], inputs: Sequence[Path], alphas: Sequence[float]
) -> list[Tile]:
    """The frames of a path, each with its alpha on its leg, and at the ends of legs the input's name."""
    tiles = []
    for i, picture in enumerate(pictures):
        leg, step = divmod(i, len(alphas) - 1)
        name = inputs[leg].name if step == 0 else ""
        caption = f"alpha {alphas[step]:.3g}" if leg < len(inputs) - 1 else f"alpha {alphas[-1]:.3g}"
        tiles.append(Tile(picture, caption, name))
    return tiles


def _path_record(
    pipeline: Pipeline,
    inputs: Sequence[Path],
    loaded: Sequence[LoadedImage | Codes],
    *,
    encoding: Mapping[str, Any],
    **settings: Any,
) -> dict[str, Any]:
    """What all results of one path have in common; only images are encoded, and codes say how they were."""
    digests = [
        one.record["source_digest"] if isinstance(one, LoadedImage) else digest_of(path)
        for path, one in zip(inputs, loaded, strict=True)
    ]
    has_images = any(isinstance(one, LoadedImage) for one in loaded)
    return record_of(
        pipeline,
        "interpolation",
        None,
        sources=[path.name for path in inputs],
        source_digests=digests,
        encoding=encoding if has_images else None,
        **settings,
    )


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How samples are drawn and decoded; sample i depends on these and on i alone.

    ``steps`` None is the bundle's own number, ``prior_steps`` and ``prior_solver`` None are the prior's own,
    ``stop_shift`` None the method's. ``wanted`` are attributes that the prior is told.
    """

    seed: int = 0
    steps: int | None = None
    prior_steps: int | None = None
    prior_solver: str | None = None
    stop_shift: float | None = None
    wanted: Mapping[str, bool] | None = None

    def z(self, pipeline: Pipeline, numbers: Sequence[int]) -> Tensor:
        """z (N, *z_shape) of these samples."""
        return pipeline.sample_z(
            numbers,
            seed=self.seed,
            decode_steps=self.steps,
            steps=self.prior_steps,
            solver=self.prior_solver,
            wanted=self.wanted,
        )

    def codes(self, pipeline: Pipeline, z: Tensor, numbers: Sequence[int]) -> Codes:
        """The samples of these ``numbers`` and ``z`` as codes, which record how they are decoded."""
        codes = pipeline.drawn(z, numbers, seed=self.seed, stop_shift=self.stop_shift)
        how: dict[str, Any] = asdict(self._way(pipeline).sampling)
        return codes.replace(infos=tuple(replace(info, **how) for info in codes.infos))

    def _way(self, pipeline: Pipeline) -> Way:
        shift = stop_shift_for(pipeline.bundle, self.stop_shift)
        return sampling_way(pipeline.bundle, pipeline.sampler, self.steps, shift)

    def record(self, pipeline: Pipeline, condition: Mapping[str, Any] | None) -> dict[str, Any]:
        """What the records of all these samples have in common; ``condition`` is what they were chosen by."""
        return record_of(
            pipeline,
            "sample",
            self._way(pipeline),
            seed=self.seed,
            prior=self._prior(pipeline),
            condition=condition,
        )

    def _prior(self, pipeline: Pipeline) -> dict[str, Any] | None:
        """What draws z, and how. A trained prior has a digest of its own: the bundle's does not cover it."""
        if not pipeline.bundle.has_z:
            return None
        if isinstance(pipeline.z_prior, GaussianPrior):
            return {"name": "gaussian"}
        how = {"digest": pipeline.bundle.prior_digest, "steps": self.prior_steps, "solver": self.prior_solver}
        told = {"wanted": dict(self.wanted)} if self.wanted else {}
        return {"name": "latent-ddim", **how, **told}


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A picture that sampling made: ``kind`` sample or grid; of a sample its ``number`` and its code.

    ``skipped``: it was there already.
    """

    kind: str
    path: Path
    number: int | None = None
    code: Path | None = None
    skipped: bool = False


def write_samples(
    pipeline: Pipeline,
    draws: Draws,
    numbers: Sequence[int],
    output: Path,
    *,
    alone: bool = False,
    holds: Callable[[str], bool] | None = None,
    condition: Mapping[str, Any] | None = None,
    columns: int | None = None,
    tile: int = TILE,
    force: bool = False,
    advance: Advance = ignore_progress,
) -> Iterator[Sampled]:
    """Draw, decode and write the samples of these ``numbers``, a batch at a time, then their grid.

    They go into the folder ``output``; with ``alone`` that is the file of the one sample, which has no grid.
    A sample that is there already is kept, so a run goes on where an earlier one stopped; ``force`` makes all
    of them again. ``holds`` says which file names are a shard's (None: all); a shard makes no grid. The grid
    shows the first 256, ``tile`` pixels wide or more. Raises OccupiedError, before any work, where ``output``
    holds what would be replaced, or samples that were drawn otherwise, unless ``force`` is given.
    """
    record = draws.record(pipeline, condition)
    makes_grid = holds is None and not alone

    def path_of(number: int) -> Path:
        return output if alone else output / f"{number:06d}.png"

    grid, shown = output / "grid.png", [path_of(number) for number in numbers[:GRID_PICTURES]]
    of_sheet = record | {"what": "grid", "num_pictures": len(shown), "tile": tile}

    def own() -> Iterator[tuple[int, Path]]:
        for number in numbers:
            path = path_of(number)
            if holds is None or holds(path.name):
                yield number, path

    if not force:
        for number, path in own():
            refuse_other(path, record | {"draw": number}, code=path.with_suffix(CODE_SUFFIX))
        if not alone:
            _refuse_another_run(output.glob("[0-9]*.png"), record, but=("draw",))
        if makes_grid:
            refuse_other(grid, of_sheet)
    decoder, batch_size = in_batches_for(pipeline, len(numbers))
    drawer = replace(pipeline, batch_size=pipeline.size_of_batches(len(numbers), at_least=PRIOR_BATCH))

    def made(some: Sequence[tuple[int, Path]]) -> Iterator[Sampled]:
        all_z = draws.z(drawer, [number for number, _ in some])
        for start in range(0, len(some), batch_size):
            batch, z = some[start : start + batch_size], all_z[start : start + batch_size]
            chosen = [number for number, _ in batch]
            codes = draws.codes(decoder, z, chosen)
            x_0 = decoder.decode(codes, steps=draws.steps, seed=draws.seed, keys=chosen, advance=advance)
            for i, (number, path) in enumerate(batch):
                picture = to_pil(x_0[i], str(path))
                _save_with_code(picture, codes[i], path, record | {"draw": number})
                yield Sampled(kind="sample", path=path, number=number, code=path.with_suffix(CODE_SUFFIX))

    waiting: list[tuple[int, Path]] = []
    for number, path in own():
        code = path.with_suffix(CODE_SUFFIX)
        if not force and path.is_file() and code.is_file():
            advance(1.0)
            yield Sampled(kind="sample", path=path, number=number, code=code, skipped=True)
            continue
        waiting.append((number, path))
        if len(waiting) >= max(batch_size, PRIOR_BATCH):
            yield from made(waiting)
            waiting.clear()
    yield from made(waiting) if waiting else ()
    if makes_grid:
        tiles = [Tile(load_rgb(path), path.stem) for path in shown]
        title = ", ".join([pipeline.bundle.name, f"seed {draws.seed}", *_chosen_by(draws, condition or {})])
        columns = columns or math.ceil(math.sqrt(len(tiles)))
        save_image(sheet(tiles, columns, tile=tile, title=title), grid, of_sheet)
        yield Sampled(kind="grid", path=grid)


def _chosen_by(draws: Draws, condition: Mapping[str, Any]) -> list[str]:
    """What the samples of a grid were chosen by, in a few words."""
    wanted = dict(draws.wanted or condition.get("attributes", {}))
    if "attribute" in condition:
        wanted = {condition["attribute"]: True}
    words = [name if is_wanted else f"not {name}" for name, is_wanted in wanted.items()]
    return [*words, "like examples"] if "like" in condition else words


def _save_with_code(picture: Image.Image, code: Codes, path: Path, record: Mapping[str, Any]) -> None:
    """Write a picture and its code. The picture is first: it says which code is its own."""
    (digest,) = code.digests()
    save_image(picture, path, {**record, "code_digest": digest})
    code.save([path.with_suffix(CODE_SUFFIX)])


def _refuse_another_run(paths: Iterable[Path], record: Mapping[str, Any], but: Sequence[str]) -> None:
    """Raise OccupiedError for a picture of the kind that was made otherwise: no folder holds two runs."""
    for path in sorted(paths):
        known = read_record(path)
        if known is None or known.get("what") != record["what"] or same_settings(known, record, but):
            continue
        raise OccupiedError(f"{path}: is of another run of this command, with other settings", hint=HINT)
