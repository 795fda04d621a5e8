"""The records of pictures that a pipeline makes: what was decoded, from what, and how."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rdm_cli.codes.code import CodeInfo
from rdm_cli.data.images.record import new_record
from rdm_cli.data.io.places import Readable
from rdm_cli.pipeline.coding import Coder
from rdm_cli.pipeline.sampling import Way


def record_of(pipeline: Coder, what: str, way: Way | None, **settings: Any) -> dict[str, Any]:
    """The record of a picture that ``pipeline`` decodes by ``way``; None where what is decoded records it.

    ``settings`` are further ones, left out where they are None; see :mod:`rdm_cli.data.images.record`.
    """
    return new_record(
        what,
        bundle=pipeline.bundle.name,
        bundle_digest=pipeline.bundle.digest,
        precision=pipeline.precision,
        decoding=None if way is None else _decoded_as(way),
        **pipeline.recorded_conditions,
        **settings,
    )


def _decoded_as(way: Way) -> dict[str, Any]:
    """What of ``way`` a decode depends on."""
    return {name: value for name, value in asdict(way.sampling).items() if name != "iterations"}


def encoded_as(info: CodeInfo) -> dict[str, Any]:
    """How an image was encoded, as far as the picture that its code decodes to depends on it."""
    names = ("solver", "spacing", "steps", "iterations", "fit", "class_name")
    return {name: getattr(info, name) for name in names}


def of_source(source: Readable, digest: str | None) -> dict[str, Any]:
    """The file that a picture was made of, an image or a code, with its SHA-256."""
    return {"source": source.name, "source_digest": digest}
