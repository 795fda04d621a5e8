"""Searching a collection: what a query is, and which codes come first.

A query is an image, a code, a sample of the prior, or words over attributes. Images, codes and samples ask
for what is like all of them; words ask for what holds, and together with images they choose among what is
alike.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

import numpy as np

from rdm_cli.codes.code import read_z
from rdm_cli.collection.index import Index
from rdm_cli.collection.nearest import (
    Found,
    Hit,
    attribute_score,
    best_of,
    cosine_score,
    mean_direction,
    only_where,
    words_score,
)
from rdm_cli.collection.rows import Collection, OfOneBundle, require_bundle
from rdm_cli.collection.space import Space, space_of_domain, space_of_rows
from rdm_cli.collection.words import Both, Words, names_in, parse_words
from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import BundleError, CodeError, UsageError, setting
from rdm_cli.pipeline.pipeline import Pipeline

_SAMPLE = re.compile(r"sample:(\d+)(?::(\d+))?")


@dataclass(frozen=True, kw_only=True)
class Query:
    """What is asked for: ``z`` (Q, d) of what the codes shall be like, ``words`` that shall hold, or both.

    ``files`` are the images and codes among the queries.
    """

    z: np.ndarray
    words: Words | None
    files: list[Path] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The ``hits``, whose scores are a ``kind``: cosine, distance or probability; and what to say of them."""

    hits: list[Hit]
    kind: str
    told: str


Opened = Callable[[], Pipeline]
"""Opens the pipeline of the bundle, once; raises BundleError."""


def read_query(texts: Sequence[str], codes: OfOneBundle, opened: Opened) -> Query:
    """What ``texts`` ask of ``codes``: files, ``sample:SEED`` or ``sample:SEED:NUMBER``, and words.

    What names a file is that file. The pipeline is opened where it is needed. Raises UsageError for what is
    no query, CodeError for codes of another bundle, ImageError for what is no image.
    """
    parts: list[np.ndarray] = []
    words: Words | None = None
    files: list[Path] = []
    for text in texts:
        path = Path(text)
        if sample := _SAMPLE.fullmatch(text):
            pipeline = pipeline_for(codes, opened)
            seed, number = int(sample[1]), int(sample[2] or 0)
            parts.append(pipeline.sample_z([number], seed=seed).flatten(1).cpu().numpy())
        elif os.path.lexists(text):
            if path.is_dir():
                raise UsageError(f"{text}: a folder is no query", hint="name images or codes in it")
            files.append(path)
            parts.append(
                _z_of_code(path, codes)
                if path.suffix.lower() == CODE_SUFFIX
                else _z_of_image(path, codes, opened)
            )
        elif os.sep in text or PurePath(text).suffix.lower() in {*SUFFIXES, CODE_SUFFIX}:
            raise UsageError(f"{text}: no such file")
        else:
            found = parse_words(text)
            words = found if words is None else Both(words, found)
    z = np.concatenate(parts).astype(np.float32) if parts else np.empty((0, codes.width), dtype=np.float32)
    if z.shape[1] != codes.width:
        raise UsageError(f"{codes.place}: its z have {codes.width} values, and those asked for {z.shape[1]}")
    return Query(z=z, words=words, files=files)


def pipeline_for(codes: OfOneBundle, opened: Opened) -> Pipeline:
    """The pipeline of the bundle that made ``codes``; raises CodeError where it is another one."""
    pipeline = opened()
    pipeline.bundle.require_z("a search")
    require_bundle(codes, pipeline.bundle.name, pipeline.bundle.digest)
    return pipeline


def _z_of_code(path: Path, codes: OfOneBundle) -> np.ndarray:
    info, z = read_z(path)
    require_bundle(codes, info.bundle, info.bundle_digest)
    if z.numel() != codes.width:
        raise CodeError(f"{path}: its z has {z.numel()} values, and those of {codes.place} {codes.width}")
    return z.flatten()[None].numpy()


def _z_of_image(path: Path, codes: OfOneBundle, opened: Opened) -> np.ndarray:
    found: np.ndarray = pipeline_for(codes, opened).encode(path, with_x_T=False).z.flatten(1).cpu().numpy()
    return found


def space_for(collection: Collection, opened: Opened) -> Space:
    """That of the bundle's training codes, or the collection's own where it is not here."""
    try:
        pipeline = pipeline_for(collection, opened)
        domain = pipeline.bundle.domain
    except (BundleError, CodeError):
        domain = None
    if domain is None:
        return space_of_rows(collection)
    return space_of_domain(domain, pipeline.bundle.name)


def search_rows(
    collection: Collection,
    query: Query,
    num: int,
    opened: Opened,
    *,
    by: Sequence[str] = (),
    advance: Callable[[float], None] = lambda amount: None,
) -> Answer:
    """The ``num`` codes that ``query`` asks for, in one pass over the collection.

    With attributes ``by``, codes are as near as their logits of these are; without, as their cosine says.
    """
    if by and not len(query.z):
        raise UsageError(f"{setting('by')} compares with an image, a code or a sample", hint="name one")
    directions = pipeline_for(collection, opened).bundle.directions if by or query.words else None
    holds = None if directions is None or query.words is None else words_score(directions, query.words)
    if not len(query.z):
        assert holds is not None
        found = best_of(collection, num, only_where(holds, holds), advance)
        hits = [Hit(name=h.name, path=h.path, score=_sigmoid(h.score)) for h in found.hits]
        return Answer(hits=hits, kind="probability", told=_held(found, "by the bundle's classifiers"))
    if by:
        assert directions is not None
        score, kind = attribute_score(directions, list(by), query.z), "distance"
        told = f"distances of the logits of {', '.join(by)}"
    else:
        space = space_for(collection, opened)
        score, kind = cosine_score(space, query.z), "cosine"
        told = f"cosines of z, standardised by {space.origin}"
    found = best_of(collection, num, score if holds is None else only_where(holds, score), advance)
    hits = found.hits
    if by:
        hits = [Hit(name=h.name, path=h.path, score=-h.score) for h in hits]
    return Answer(hits=hits, kind=kind, told=told if holds is None else _held(found, told))


def search_index(index: Index, query: Query, num: int, *, by: Sequence[str] = ()) -> Answer:
    """As :func:`search_rows`, of an index, which knows cosines alone."""
    if by or query.words is not None:
        what = setting("by") if by else "words"
        raise UsageError(
            f"{index.place}: an index knows cosines alone, and {what} need z",
            hint=f"search {index.contents.source}",
        )
    space = index.contents.space
    return Answer(
        hits=index.search(mean_direction(space, query.z), num),
        kind="cosine",
        told=f"cosines of z, standardised by {space.origin}; of {index.contents.num_rows} codes, by an index",
    )


def doubts_of(query: Query, by: Sequence[str], opened: Opened) -> list[str]:
    """What a person should know of the attributes that were named, a line each."""
    names = dict.fromkeys([*by, *(names_in(query.words) if query.words else ())])
    if not names:
        return []
    directions = opened().bundle.directions
    return [line for name in names if (line := directions.doubts(name))]


def _held(found: Found, told: str) -> str:
    return f"the words hold of {found.num_asked} of {found.num_codes} codes, {told}"


def _sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-np.float64(np.clip(logit, -500, 500)))))
