"""What the verbs over files read: images and codes, one file or a batch of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import Fit
from rdm_cli.data.io.places import Readable, changed, digest_of, held
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import CodeError
from rdm_cli.pipeline.batching import batch_size_for_z, batches_at_once
from rdm_cli.pipeline.compatibility import check_codes
from rdm_cli.pipeline.effort import Effort
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.runtime import default_batch_size


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """An image that is to be decoded, and its file's SHA-256; None of a path that is no file.

    ``given`` is what its code records because of where it lies.
    """

    source: Readable
    digest: str | None
    given: Mapping[str, Any]


def in_batches_for(
    pipeline: Pipeline, num_items: int | None, *, z_alone: bool = False
) -> tuple[Pipeline, int]:
    """``pipeline`` with its batch size settled for a whole job, and how many images to hand to it at a time.

    The user's, or the device's usual one, or fewer where there are fewer items; None are too many to be
    counted. It holds for short batches too, so what is left over or encoded again comes out as it would among
    the others. Shards of a job give the number of items of the whole. ``z_alone``: no x_T is inferred, and
    several batches may be encoded at the same time.
    """
    device, shape = pipeline.bundle.device, pipeline.bundle.model.image_shape
    usual = batch_size_for_z(device, shape) if z_alone else None
    size = pipeline.batch_size or batch_size_for(device, num_items, usual=usual)
    num_at_a_time = size * (batches_at_once(device, shape, size) if z_alone else 1)
    return replace(pipeline, batch_size=size), num_at_a_time


def batch_size_for(device: torch.device, num_items: int | None, *, usual: int | None = None) -> int:
    """The ``usual`` batch size, or less for fewer items, of which None are too many to be counted.

    ``usual`` None is the device's.
    """
    usual = default_batch_size(device) if usual is None else usual
    return usual if num_items is None else min(usual, 1 << max(0, num_items - 1).bit_length())


def load_image(pipeline: Pipeline, path: Readable, fit: Fit) -> LoadedImage:
    """Read one image; raises ImageError, or UsageError where the bundle knows classes and it is of none."""
    return decoded(pipeline, hashed(pipeline, path), fit)


def hashed(pipeline: Pipeline, path: Readable) -> ImageFile:
    """The digest of an image that is not decoded yet; raises as :func:`load_image`."""
    given = pipeline.given_of(Path(str(path)))
    source = held(path)
    digest = digest_of(source) if not isinstance(source, Path) or source.is_file() else None
    return ImageFile(source=source, digest=digest, given=given)


def decoded(pipeline: Pipeline, file: ImageFile, fit: Fit) -> LoadedImage:
    """Decode an image; raises ImageError."""
    source, digest = file.source, file.digest
    x_0, size = pipeline.load_with_size(source, fit)  # which says what a path is that is no file
    if digest is None or (isinstance(source, Path) and digest_of(source) != digest):
        raise changed(source)
    record = {
        "source": source.name,
        "source_digest": digest,
        "source_size": size,
        "fit": fit,
        "value_range": pipeline.value_range,
        **file.given,
    }
    return LoadedImage(x_0=x_0[0], name=source.name, record=record)


def load_code(pipeline: Pipeline, path: Readable) -> Codes:
    """Read a code of the pipeline's bundle; raises CodeError."""
    codes = Codes.load(path)
    try:
        check_codes(pipeline.bundle, codes)
    except CodeError as error:
        raise CodeError(f"{path}: {error.message}", hint=error.hint) from error
    return codes


def load_image_or_code(pipeline: Pipeline, path: Readable, fit: Fit) -> LoadedImage | Codes:
    """Read a code as it is, or an image to be encoded; raises ImageError or CodeError."""
    return load_code(pipeline, path) if path.suffix == CODE_SUFFIX else load_image(pipeline, path, fit)


def encode_loaded(
    pipeline: Pipeline,
    loaded: Sequence[LoadedImage | Codes],
    effort: Effort,
    *,
    advance: Advance = ignore_progress,
) -> list[Codes]:
    """The code of each that was ``loaded``: codes as they are, images encoded."""
    images = [item for item in loaded if isinstance(item, LoadedImage)]
    made = iter(pipeline.encode(images, **asdict(effort), advance=advance) if images else ())
    advance(len(loaded) - len(images))
    return [next(made) if isinstance(item, LoadedImage) else item for item in loaded]
