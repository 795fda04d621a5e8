"""The verbs over files: load, work in batches, write beside or mirrored, one outcome an item.

Images become codes in :mod:`rdm_cli.jobs.encode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from rdm_cli.codes.code import CodeInfo, Codes, read_info
from rdm_cli.codes.lossless import is_restored, restored
from rdm_cli.data.images.pixels import Fit, pixels_to_pil, to_pil, to_pixels
from rdm_cli.data.images.record import LOSSY, refuse_other, save_image
from rdm_cli.data.images.sheet import TILE, Tile, sheet
from rdm_cli.data.io.places import Place, Readable, digest_of, fetched
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import BundleError, CodeError, PictureError, RdmError
from rdm_cli.jobs.batch import Outcome, Task, counted, run_batches
from rdm_cli.jobs.encode import finite
from rdm_cli.jobs.loading import (
    encode_loaded,
    in_batches_for,
    load_image,
    load_image_or_code,
)
from rdm_cli.jobs.picture_records import encoded_as, of_source, record_of
from rdm_cli.jobs.receipts import ReceiptPage, refuse_other_receipt, write_receipt
from rdm_cli.jobs.results import Edited, Receipt, Reconstructed, Result
from rdm_cli.metrics.reconstruction import mse, psnr, ssim
from rdm_cli.pipeline.compatibility import check_codes
from rdm_cli.pipeline.editing import DEFAULT_EDITOR, Wanted, untold
from rdm_cli.pipeline.effort import USUAL, Effort, info_wanted, parts_of_work
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress, share
from rdm_cli.pipeline.sampling import way_down


def decode_files(
    pipelines: Callable[[CodeInfo], Pipeline],
    tasks: Iterable[Task],
    *,
    steps: int | None = None,
    x_T: str = "inferred",
    seed: int = 0,
    force: bool = False,
    batch_size: int,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task, Result]]:
    """Decode each task's code into its image; a lossless one that is decoded as it was made, to the pixel.

    ``pipelines`` opens the bundle that a code was made with. ``x_T`` "random" ignores a stored one. What
    stands in a result's place stays, unless it is this very result or ``force`` is given.
    """

    def load(task: Task) -> tuple[Pipeline, Codes, dict[str, Any]] | Outcome[Task, Result]:
        source = fetched(task.source)
        codes = Codes.load(source)
        info = codes.infos[0]
        pipeline = replace(pipelines(info), batch_size=batch_size)
        check_codes(pipeline.bundle, codes)
        as_made = x_T == "inferred" and pipeline.decodes_as_made(info, steps)
        if as_made and is_restored(task.target, info):
            return Outcome(item=task, result=Result(output=str(task.target), skipped=True))
        _spare_source(task, info)
        if as_made and codes.residuals is not None and task.target.suffix.lower() in LOSSY:
            raise CodeError(
                f"{task.target}: a JPEG does not keep every pixel, and this code restores them all",
                hint="name a .png or a .webp",
            )
        if x_T != "inferred":
            codes = codes.without_x_T()
        elif not as_made:
            codes = codes.replace(residuals=None)
        drawn = codes.x_T is None
        sampler = pipeline.sampler
        record = record_of(
            pipeline,
            "decode",
            way_down(pipeline.bundle, info, has_x_T=not drawn, steps=steps, sampler=sampler),
            **of_source(source, digest_of(source)),
            seed=seed if drawn else None,
            restored=True if codes.residuals is not None else None,
        )
        if not force:
            refuse_other(task.target, record)
        return pipeline, codes, record

    def process(
        batch: Sequence[Task], loaded: Sequence[tuple[Pipeline, Codes, dict[str, Any]]]
    ) -> Iterator[Result | RdmError]:
        pictures: list[Tensor | RdmError] = [torch.empty(0)] * len(batch)
        kinds = [(p.bundle.digest, p.precision, c.holds) for p, c, _ in loaded]
        for kind in dict.fromkeys(kinds):
            chosen = [i for i, other in enumerate(kinds) if other == kind]
            codes = Codes.concatenate([loaded[i][1] for i in chosen])
            x_0 = loaded[chosen[0]][0].decode(
                codes,
                steps=steps,
                seed=seed,
                keys=[batch[i].source.stem for i in chosen],
                advance=advance,
            )
            for i, code, picture in zip(chosen, codes, x_0, strict=True):
                name = str(batch[i].target)
                try:
                    pictures[i] = (
                        to_pixels(picture, name) if code.residuals is None else restored(code, picture[None])
                    )
                except (CodeError, PictureError) as error:
                    pictures[i] = error
        for task, pixels, (_, _, record) in zip(batch, pictures, loaded, strict=True):
            if isinstance(pixels, RdmError):
                yield pixels
                continue
            digest = save_image(pixels_to_pil(pixels), task.target, record)
            yield Result(output=str(task.target), digest=digest)

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def reconstruct_files(
    pipeline: Pipeline,
    tasks: Iterable[Task],
    *,
    num_items: int | None = None,
    effort: Effort = USUAL,
    variations: int = 0,
    seed: int = 0,
    fit: Fit = "crop",
    tile: int = TILE,
    force: bool = False,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task, Reconstructed]]:
    """Encode and decode each image; write the reconstruction and, beside it, a side-by-side.

    An ``effort`` without x_T draws it instead of inferring it. ``variations`` K appends K pictures of the
    same z with other x_T to the side-by-side, whose pictures are ``tile`` pixels wide or more. Outcomes carry
    MSE, PSNR in dB and SSIM. What stands in a result's place stays, unless it is this very result or
    ``force`` is given.
    """
    pipeline, batch_size = in_batches_for(pipeline, counted(tasks, num_items))
    # an x_T that was drawn is decoded as samples are, in so many steps
    steps = None if effort.with_x_T else effort.steps
    wanted = info_wanted(pipeline, effort, fit)

    def load(task: Task) -> tuple[LoadedImage, dict[str, Any]]:
        image = load_image(pipeline, task.source, fit)
        info = replace(wanted, **image.record)
        sampler = pipeline.sampler
        record = record_of(
            pipeline,
            "reconstruction",
            way_down(pipeline.bundle, info, has_x_T=effort.with_x_T, steps=steps, sampler=sampler),
            **of_source(task.source, info.source_digest),
            encoding=encoded_as(info),
            seed=None if effort.with_x_T else seed,
        )
        if not force:
            refuse_other(task.target, record)
            refuse_other(_beside(task), _side_by_side(record))
        return image, record

    def _side_by_side(record: dict[str, Any]) -> dict[str, Any]:
        return record | {"what": "side by side", "variations": variations, "seed": seed, "tile": tile}

    def process(
        batch: Sequence[Task], loaded: Sequence[tuple[LoadedImage, dict[str, Any]]]
    ) -> Iterator[Reconstructed]:
        images = [image for image, _ in loaded]
        x_0 = torch.stack([image.x_0 for image in images])
        up, down = parts_of_work(pipeline, effort, num_decodes=1 + variations)
        shown = share(advance, down)
        codes = pipeline.encode(images, **asdict(effort), advance=share(advance, up))
        names = [task.source.stem for task in batch]
        decoded = pipeline.decode(codes, steps=steps, seed=seed, keys=names, advance=shown)
        others = []
        for k in range(variations):
            keys = [f"{name} variation {k}" for name in names]
            others.append(
                pipeline.decode(codes.without_x_T(), steps=effort.steps, seed=seed, keys=keys, advance=shown)
            )
        scores = zip(mse(x_0, decoded), psnr(x_0, decoded), ssim(x_0, decoded), strict=True)
        of_others = [psnr(x_0, other).tolist() for other in others]
        for i, (task, (m, p, s)) in enumerate(zip(batch, scores, strict=True)):
            name = str(task.target)
            row = [to_pil(picture, name) for picture in (x_0[i], decoded[i], *(other[i] for other in others))]
            side, record = _beside(task), loaded[i][1]
            digest = save_image(row[1], task.target, record)
            captions = [task.source.name, "reconstruction", *["the same z, another x_T"] * variations]
            notes = ["original", *map(_in_db, (float(p), *(db[i] for db in of_others)))]
            tiles = [Tile(*one) for one in zip(row, captions, notes, strict=True)]
            save_image(sheet(tiles, len(row), tile=tile), side, _side_by_side(record))
            yield Reconstructed(
                output=str(task.target),
                digest=digest,
                side_by_side=str(side),
                source_size=images[i].record["source_size"],
                image_size=pipeline.bundle.model.image_size,
                mse=float(m),
                psnr_db=finite(float(p)),
                ssim=float(s),
            )

    def load_one(task: Task) -> Any:  # a union here, beside run_batches' own, is more than mypy infers
        return load(task)

    yield from run_batches(tasks, load=load_one, process=process, batch_size=batch_size)


def _in_db(psnr_db: float) -> str:
    return f"{psnr_db:.2f} dB" if math.isfinite(psnr_db) else "exact"


def _beside(task: Task) -> Place:
    """Where the side-by-side of a reconstruction goes."""
    return task.target.with_name(f"{task.target.stem}-side-by-side.png")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How attributes are set: by which ``editor``, what is to ``keep`` its verdict (None: all others).

    ``like`` is, by the digests of bundles, the code of the image whose attributes are borrowed;
    ``num_variants`` edits go into a strip, each with the next seed.
    """

    editor: str = DEFAULT_EDITOR
    keep: Sequence[str] | None = None
    like: Mapping[str, Codes] = field(default_factory=dict)
    num_variants: int = 1

    def recorded(self, pipeline: Pipeline) -> dict[str, Any]:
        """What a picture's record says of it."""
        like = self.like.get(pipeline.bundle.digest)
        return {
            "editor": self.editor,
            "keep": None if self.keep is None else list(self.keep),
            "like": None if like is None else like.digests()[0],
            "variants": None if self.num_variants == 1 else self.num_variants,
        }


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What is known of an image's edits: fields of an :class:`~rdm_cli.jobs.results.Edited`."""

    outside: int | None = None
    holds: bool | None = None
    receipt: Receipt | None = None


def manipulate_files(
    pipelines: Callable[[CodeInfo | None], Pipeline],
    tasks: Iterable[Task],
    *,
    num_items: int | None = None,
    batch_size: int,
    edits: Sequence[Mapping[str, float | bool]],
    strip: bool,
    setting: Setting = Setting(),
    effort: Effort = USUAL,
    seed: int = 0,
    fit: Fit = "crop",
    tile: int = TILE,
    force: bool = False,
    page: ReceiptPage | None = None,
    advance: Advance = ignore_progress,
) -> Iterator[Outcome[Task, Edited]]:
    """Edit each image or code; one edit gives a picture and its code, ``strip`` one row of all edits.

    An edit maps attributes to how far to move them or, all of them, to whether they are wanted: those are set
    as ``setting`` says and looked at again (:meth:`~rdm_cli.pipeline.pipeline.Pipeline.edit`); what was seen
    is in the outcome, in the picture's record, in a JSON file beside it and, where there is one, on the
    ``page``. The strip of such an edit has its variants.
    ``pipelines`` opens the bundle of a code and, for None, that of images. A strip's pictures are ``tile``
    pixels wide or more. What stands in a result's place stays, unless it is this very result or ``force`` is
    given.
    """
    num = counted(tasks, num_items)
    wanted = {name: value for name, value in edits[0].items() if isinstance(value, bool)}
    sets = len(wanted) > 0
    receipts = sets and not strip
    if sets:
        words = [f"seed {seed + k}" for k in range(setting.num_variants)]
    else:
        words = [", ".join(f"{name} {scale:+g}" for name, scale in edit.items()) for edit in edits]

    # codes that were made elsewhere keep to their own way; a new x_T knows none
    def steps_of(pipeline: Pipeline) -> int | None:
        return None if effort.with_x_T and not effort.way(pipeline.bundle).kernel.clamps else effort.steps

    def recorded(pipeline: Pipeline, source: Readable, one: LoadedImage | Codes) -> dict[str, Any]:
        if isinstance(one, LoadedImage):
            info = replace(info_wanted(pipeline, effort, fit), **one.record)
            digest, has_x_T = info.source_digest, effort.with_x_T
        else:
            info, digest = one.infos[0], digest_of(source)
            has_x_T = effort.with_x_T and one.x_T is not None
        return record_of(
            pipeline,
            "edit strip" if strip else "edit",
            way_down(
                pipeline.bundle, info, has_x_T=has_x_T, steps=steps_of(pipeline), sampler=pipeline.sampler
            ),
            **of_source(source, digest),
            encoding=encoded_as(info) if isinstance(one, LoadedImage) else None,
            edits=[dict(edit) for edit in edits],
            direction_digests={n: pipeline.bundle.directions.digest(n) for edit in edits for n in edit},
            transport_digests={n: pipeline.bundle.transports.digest(n) for n in edits[0]} if sets else None,
            **(setting.recorded(pipeline) if sets else {}),
            seed=None if has_x_T and not sets else seed,
            tile=tile if strip else None,
        )

    def edited_by(
        pipeline: Pipeline, batch: Sequence[Task], loaded: Sequence[LoadedImage | Codes]
    ) -> Iterator[tuple[Codes, list[Image], _Seen]]:
        """The first edit of each, as a code, the pictures of all edits, and what was seen of them."""
        encoder, _ = in_batches_for(pipeline, num)
        decoder, _ = in_batches_for(pipeline, None if num is None else num * len(edits))
        up, down = parts_of_work(pipeline, effort, num_decodes=len(edits))
        starts = encode_loaded(encoder, loaded, effort, advance=share(advance, up))
        if not effort.with_x_T:
            starts = [codes.without_x_T() for codes in starts]
        if sets:
            return _set(decoder, starts, wanted, setting, seed, [str(task.target) for task in batch])
        edited = [[pipeline.manipulate(codes, edit) for edit in edits] for codes in starts]
        pictures: list[list[Image]] = [[] for _ in batch]
        for held in dict.fromkeys(codes.holds for codes in starts):
            chosen = [i for i, codes in enumerate(starts) if codes.holds == held]
            x_0 = decoder.decode(
                Codes.concatenate([code for i in chosen for code in edited[i]]),
                steps=steps_of(pipeline),
                seed=seed,
                keys=[batch[i].source.stem for i in chosen for _ in edits],
                advance=share(advance, down),
            )
            for i, row in zip(chosen, x_0.split(len(edits)), strict=True):
                pictures[i] = [to_pil(picture, str(batch[i].target)) for picture in row]
        seen = (_Seen(outside=_num_outside(pipeline, codes)) for codes in edited)
        return zip((codes[0] for codes in edited), pictures, seen, strict=True)

    def process(
        batch: Sequence[Task], told: Sequence[tuple[Pipeline, LoadedImage | Codes, dict[str, Any]]]
    ) -> Iterator[Edited]:
        made: dict[int, tuple[Codes, list[Image], _Seen]] = {}
        for pipeline in {id(pipeline): pipeline for pipeline, _, _ in told}.values():
            chosen = [i for i, (other, _, _) in enumerate(told) if other is pipeline]
            some = edited_by(pipeline, [batch[i] for i in chosen], [told[i][1] for i in chosen])
            made.update(zip(chosen, some, strict=True))
        for i, (task, (_, _, record)) in enumerate(zip(batch, told, strict=True)):
            code, row, seen = made[i]
            if not strip:
                (record["code_digest"],) = code.digests()
            if receipts and seen.receipt is not None:
                record["receipt"] = seen.receipt.as_json()
            # the picture first: it says which code is its own
            picture = _strip(task.source.name, row, words, tile) if strip else row[0]
            digest = save_image(picture, task.target, record)
            files: dict[str, Any] = {}
            if not strip:
                path = _code_of(task)
                code.save([path])
                files["code"] = str(path)
            if receipts:
                files["receipt_file"] = str(write_receipt(task.target, record))
                if page is not None:
                    page.add(task.target.name, before=row[1], after=row[0], record=record)
            yield Edited(output=str(task.target), digest=digest, edits=edits, **vars(seen), **files)

    def load(task: Task) -> Any:  # a union here, beside run_batches' own, is more than mypy infers
        source = fetched(task.source)
        pipeline = pipelines(read_info(source) if source.suffix == CODE_SUFFIX else None)
        one = load_image_or_code(pipeline, source, fit)
        record = recorded(pipeline, source, one)
        if not force:
            refuse_other(task.target, record, code=None if strip else _code_of(task))
            if receipts:
                refuse_other_receipt(task.target, record)
        return pipeline, one, record

    yield from run_batches(tasks, load=load, process=process, batch_size=batch_size)


def _num_outside(pipeline: Pipeline, edited: Sequence[Codes]) -> int | None:
    """How many of one image's edits lead to codes unlike those of any image; None where nobody can tell."""
    with suppress(BundleError):  # told already, when its image was encoded
        domain = pipeline.bundle.domain
        if domain is not None:
            return int(domain.outside(torch.cat([codes.z for codes in edited])).sum())
    return None


def _strip(name: str, row: Sequence[Image], words: Sequence[str], tile: int) -> Image:
    """The edits of one image beside one another, each with what was done."""
    return sheet([Tile(*one) for one in zip(row, words, strict=True)], tile=tile, title=name)


def _set(
    pipeline: Pipeline,
    starts: Sequence[Codes],
    wanted: Mapping[str, bool],
    setting: Setting,
    seed: int,
    names: Sequence[str],
) -> Iterator[tuple[Codes, list[Image], _Seen]]:
    """Each code with the attributes ``wanted``, and what was seen: of its picture and the unedited one.

    The pictures are these two or, of several variants, one each; code and what was seen are the first one's.
    """
    found: dict[int, tuple[Codes, list[Image], _Seen]] = {}
    known = pipeline.bundle.directions.names
    for held in dict.fromkeys(codes.holds for codes in starts):
        chosen = [i for i, codes in enumerate(starts) if codes.holds == held]
        codes = Codes.concatenate([starts[i] for i in chosen])
        like = setting.like.get(pipeline.bundle.digest)
        edited, *others = (
            pipeline.edit(codes, wanted, keep=setting.keep, like=like, editor=setting.editor, seed=seed + k)
            for k in range(setting.num_variants)
        )
        shown = [one.pictures for one in (edited, *others)] if others else [edited.pictures, edited.start]
        for row, i in enumerate(chosen):
            probabilities = {
                name: [round(float(part[row, k]), 4) for part in (edited.before, edited.after)]
                for k, name in enumerate(known)
            }
            receipt = Receipt(
                holds=bool(edited.holds[row]),
                kept=bool(edited.kept[row]),
                amount=float(edited.amount[row]),
                z_distance=round(float(edited.distance[row]), 4),
                num_decodes=int(edited.num_decodes[row]),
                probabilities=probabilities,
                changed=[name for k, name in enumerate(known) if edited.changed[row, k]],
                not_watched=[name for name in known if name not in (*edited.watched, *wanted)],
            )
            all_hold = all(bool(one.holds[row]) for one in (edited, *others))
            seen = _Seen(holds=all_hold, receipt=None if others else receipt)
            found[i] = edited.codes[row], [to_pil(some[row], names[i]) for some in shown], seen
    return (found[i] for i in range(len(starts)))


def _code_of(task: Task) -> Place:
    """Where the code of an edit goes."""
    return task.target.with_name(f"{task.target.stem}{CODE_SUFFIX}")


def _spare_source(task: Task, info: CodeInfo) -> None:
    """Refuse to decode over the very image that a code was made from."""
    if info.source_digest is None or not task.target.is_file():
        return
    if digest_of(task.target) == info.source_digest:
        raise CodeError(
            f"{task.target}: this is the image that the code was made from, and it stays",
            hint="write elsewhere with -o DIR",
        )


def require_attributes(
    pipeline: Pipeline, names: Sequence[str], keep: Sequence[str] = (), *, sets: Wanted | None = None
) -> list[str]:
    """A line on each of ``names`` that was hardly learned; raises UsageError for an unknown one.

    And one on those of ``keep`` that cannot stay as they are where what is ``sets`` is wanted.
    """
    directions = pipeline.bundle.directions
    for name in (*names, *keep):
        directions.index(name)
    lines = [line for line in map(directions.doubts, names) if line]
    if passed_over := [name for name in keep if name in untold(pipeline.bundle, sets or {})]:
        wanted = ", ".join(f"{name}={'yes' if value else 'no'}" for name, value in (sets or {}).items())
        named = ", ".join(passed_over)
        lines.append(f"--keep {named}: passed over, for that cannot stay as it is with {wanted}")
    return lines
