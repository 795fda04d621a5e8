"""What a picture says of how rdm made it: one canonical JSON object in its metadata, under the key ``rdm``.

A PNG holds it as text, a GIF as its comment, a JPEG and a WebP as the description in their EXIF, an MP4 in a
box of its own. So rdm knows its own pictures again: they are no inputs, and one that was made otherwise is
not written over unasked. A record holds

- ``software``: ``rdm`` and its version; ``command``: what makes it again, where a command made it;
- ``what`` the picture is: ``edit``, ``sample``, ``decode``, ``reconstruction``, ``interpolation``, ``grid``,
  ``explanation``;
- what it was made of: ``bundle`` and ``bundle_digest``, ``source`` and ``source_digest``;
- the settings on which its pixels depend: ``edits``, ``seed``, ``decoding``, ``precision`` and so on;
- ``code_digest``, the SHA-256 of the code that was written beside it, where there is one, and
  ``pixels_digest``, that of the pixels as they are read from the file: programs that change them may keep the
  text.

Nothing in it is of the day or the machine: equal runs give equal files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from rdm_cli import __version__
from rdm_cli.data.images.pixels import DECODER_ERRORS
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.data.io.places import Place, Readable, digest_of, put
from rdm_cli.errors import OccupiedError, PictureError

KEY = "rdm"
SOFTWARE = "rdm"
MOST_TEXT = 2**20  # bytes of a record that are read
_PNG = b"\x89PNG\r\n\x1a\n"
_DESCRIPTION = 0x010E  # a tag of EXIF: ImageDescription
_OWN_BOX = bytes.fromhex("7b0f0c5e4d9b5c1f9a3e72646d207265")  # what tells a box of an MP4 from any other's
WRITTEN = (".png", ".webp", ".jpg", ".jpeg")
"""Suffixes of the formats in which pictures are written: PNG and WebP keep every pixel, JPEG does not."""
LOSSY = (".jpg", ".jpeg")
_LARGEST_SIDE = {"JPEG": 65535, "WEBP": 16383}  # pixels
_ENCODING: Mapping[str, Mapping[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
}

# what the same settings may differ in: names, for digests say what was meant, and what came of the settings
_NO_SETTINGS = frozenset(
    (
        "software",
        "command",
        "bundle",
        "source",
        "sources",
        "code_digest",
        "pixels_digest",
        "num_pictures",
        "model_path",
        "receipt",
    )  # fmt: skip
)


def new_record(what: str, **settings: Any) -> dict[str, Any]:
    """The record of a picture that this rdm makes; settings that are None are left out."""
    given = {name: value for name, value in settings.items() if value is not None}
    return {"software": f"{SOFTWARE} {__version__}", "what": what, **given}


_command: Callable[[Mapping[str, Sequence[str]]], str] | None = None


@contextmanager
def command_recorded(write: Callable[[Mapping[str, Sequence[str]]], str]) -> Iterator[None]:
    """Within the block, in every thread of the process, pictures record the command that ``write`` gives.

    It is called with other words for some of the command's parameters, by their names: the inputs that the
    picture was made of, and how many samples give one of its number.
    """
    global _command
    before, _command = _command, write
    try:
        yield
    finally:
        _command = before


def with_command(record: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with the command that makes such a picture, where one is run and it names none."""
    if _command is None or "command" in record:
        return dict(record)
    instead: dict[str, Sequence[str]] = {}
    if sources := record.get("sources", [record["source"]] if "source" in record else []):
        instead["inputs"] = [record["model_path"], *sources] if "model_path" in record else sources
    if record.get("what") == "edit":  # the attributes stand among the inputs, whichever way they were typed
        answers = {True: "yes", False: "no"}
        (edit,) = record["edits"]
        told = (f"{k}={answers[v] if isinstance(v, bool) else format(v, 'g')}" for k, v in edit.items())
        instead |= {"inputs": [*instead.get("inputs", ()), *told], "attr": [], "scale": []}
    if "draw" in record and "condition" not in record:
        instead["num"] = [str(record["draw"] + 1)]
    return {**record, "command": _command(instead)}


def as_text(record: Mapping[str, Any]) -> str:
    """``record`` as canonical JSON: equal records are equal text."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def saving_options(record: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Arguments of Pillow's ``save`` that put ``record`` into a picture of ``kind``; {} for other kinds."""
    text = as_text(with_command(record))
    if kind == "PNG":
        info = PngInfo()
        info.add_text(KEY, text)
        return {"pnginfo": info}
    if kind in ("JPEG", "WEBP"):
        exif = Image.Exif()
        exif[_DESCRIPTION] = f"{KEY} {text}"
        return {"exif": exif.tobytes()}
    return {"comment": f"{KEY} {text}".encode()} if kind == "GIF" else {}


def mp4_box(record: Mapping[str, Any]) -> bytes:
    """``record`` as what may stand at the end of an MP4: players pass over a box of a kind of its own."""
    content = _OWN_BOX + as_text(with_command(record)).encode("ascii")
    return (8 + len(content)).to_bytes(4, "big") + b"uuid" + content


def save_image(image: Image.Image, place: Place, record: Mapping[str, Any]) -> str:
    """Write ``image`` in the suffix's format, whole or not at all; returns the SHA-256 of its bytes.

    Raises PictureError where it is larger than that format allows.
    """
    kind = Image.registered_extensions()[place.suffix.lower()]
    largest = _LARGEST_SIDE.get(kind)
    if largest is not None and max(image.size) > largest:
        size = "x".join(map(str, image.size))
        raise PictureError(
            f"{place}: a {kind} has at most {largest} pixels a side, not {size}", hint="name a .png"
        )
    file = io.BytesIO()
    whole = {**record, "pixels_digest": _pixels_digest(_as_it_is_read(image, kind))}
    image.save(file, format=kind, **_ENCODING.get(kind, {}), **saving_options(whole, kind))
    return put(place, file.getvalue())


def _as_it_is_read(image: Image.Image, kind: str) -> Image.Image:
    """What a file of ``kind`` gives back of ``image``: a JPEG changes pixels, a WebP has colours."""
    if kind != "JPEG":
        return image.convert("RGB") if kind == "WEBP" else image
    file = io.BytesIO()
    image.save(file, format=kind, **_ENCODING[kind])
    return Image.open(file, formats=[kind])


def read_record(source: Readable) -> dict[str, Any] | None:
    """The record of a picture or an animation, read without decoding it; None where rdm did not make it."""
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source.read_bytes()) as file:
            text = _text_in(file)
        return None if text is None else parse_object(text)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return None


def _text_in(file: BinaryIO) -> str | None:
    head = file.read(12)
    if head.startswith(_PNG):
        file.seek(len(_PNG))
        return _text_of_png(file)
    if head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        return _without_key(_description(_exif_of_webp(file)))
    if head.startswith(b"\xff\xd8"):
        file.seek(2)
        return _without_key(_description(_exif_of_jpeg(file)))
    if head[4:8] == b"ftyp":
        return _text_of_mp4(file)
    return _without_key(_comment_of_gif(file)) if head.startswith(b"GIF8") else None


def _without_key(text: str) -> str | None:
    return text.removeprefix(f"{KEY} ") if text.startswith(f"{KEY} ") else None


def _text_of_png(file: BinaryIO) -> str | None:
    """The text under the key, from the chunks before the pixels; Pillow would refuse large pictures."""
    head = KEY.encode() + b"\0"
    while len(chunk := file.read(8)) == 8 and chunk[4:] not in (b"IDAT", b"IEND"):
        size = int.from_bytes(chunk[:4], "big")
        start = file.read(len(head)) if chunk[4:] == b"tEXt" else b""
        if start == head:
            return file.read(min(size - len(head), MOST_TEXT)).decode("ascii")
        file.seek(size - len(start) + 4, io.SEEK_CUR)
    return None


def _exif_of_jpeg(file: BinaryIO) -> bytes:
    """The EXIF from the segments before the pixels; b"" where there is none."""
    while len(head := file.read(4)) == 4 and head[0] == 0xFF and head[1] != 0xDA:
        size = max(0, int.from_bytes(head[2:], "big") - 2)
        if head[1] == 0xE1:
            exif = file.read(size)
            if exif.startswith(b"Exif\0"):
                return exif
        else:
            file.seek(size, io.SEEK_CUR)
    return b""


def _comment_of_gif(file: BinaryIO) -> str:
    file.seek(0)
    with Image.open(file, formats=["GIF"]) as image:
        comment = image.info.get("comment", b"")
    return comment.decode("utf-8", "replace") if isinstance(comment, bytes) else str(comment)


def _exif_of_webp(file: BinaryIO) -> bytes:
    """The EXIF from the chunk behind the pixels; b"" where there is none."""
    while len(chunk := file.read(8)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"EXIF":
            return file.read(min(size, MOST_TEXT))
        file.seek(size + size % 2, io.SEEK_CUR)
    return b""


def _description(content: bytes) -> str:
    """The description among EXIF tags; a camera's, which may be damaged, are not parsed."""
    if f"{KEY} {{".encode() not in content:
        return ""
    exif = Image.Exif()
    exif.load(content)
    return str(exif.get(_DESCRIPTION, ""))


def _text_of_mp4(file: BinaryIO) -> str | None:
    """What rdm's own box holds; boxes of more than 4 GiB, which rdm does not write, end the search."""
    start = 0
    while file.seek(start) == start and len(head := file.read(8)) == 8:
        size = int.from_bytes(head[:4], "big")
        if size < len(head):
            return None
        if head[4:] == b"uuid" and file.read(len(_OWN_BOX)) == _OWN_BOX:
            return file.read(min(size - len(head) - len(_OWN_BOX), MOST_TEXT)).decode("ascii")
        start += size
    return None


def is_own_picture(path: Path) -> bool:
    """Whether rdm made the picture in this file: it carries a record, whatever it is called."""
    record = read_record(path) if path.is_file() else None
    return record is not None and str(record.get("software", "")).startswith(f"{SOFTWARE} ")


def is_edited_code(path: Path) -> bool:
    """Whether this file is the code of an edit: rdm made it beside the edited picture."""
    from rdm_cli.data.io.tensor_files import read_metadata

    try:
        return bool(path.is_file() and parse_object(read_metadata(path).get(KEY, "{}")).get("edits"))
    except (ValueError, OSError):
        return False


def same_settings(known: Mapping[str, Any], wanted: Mapping[str, Any], but: Collection[str] = ()) -> bool:
    """Whether two records tell of one picture, whichever rdm made it; ``but`` are names that may differ."""
    free = _NO_SETTINGS.union(but)
    first, second = ({name: r[name] for name in r if name not in free} for r in (known, wanted))
    return as_text(first) == as_text(second)


def refuse_other(place: Place, record: Mapping[str, Any], *, code: Place | None = None) -> None:
    """Raise OccupiedError unless ``place`` is free, or holds the picture that ``record`` tells of.

    ``code`` is where its code is to go, which must be free or hold the code that was written with it.
    """
    known = read_record(place) if place.is_file() else None
    if known is None and place.is_file():
        raise OccupiedError(f"{place}: is there already, and rdm did not make it", hint=HINT)
    if known is not None:
        refuse_other_settings(place, known, record)
    if known is not None and known.get("pixels_digest") not in (None, _digest_at(place)):
        raise OccupiedError(f"{place}: is there already, and was changed since rdm made it", hint=HINT)
    if code is not None and code.is_file() and (known or {}).get("code_digest") != digest_of(code):
        raise OccupiedError(f"{code}: is there already, and is not the code of {place.name}", hint=HINT)


def refuse_other_settings(place: Place, known: Mapping[str, Any], record: Mapping[str, Any]) -> None:
    """Raise OccupiedError where ``known``, which is at ``place``, and ``record`` tell of two pictures."""
    if not same_settings(known, record):
        raise OccupiedError(f"{place}: is there already, {_other(known, record)}", hint=HINT)


def _pixels_digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def _digest_at(place: Readable) -> str | None:
    """SHA-256 of the pixels of a picture of rdm's; None where they cannot be read any more."""
    try:
        with Image.open(io.BytesIO(place.read_bytes()), formats=["PNG", "WEBP", "JPEG"]) as image:
            return _pixels_digest(image)
    except (*DECODER_ERRORS, Image.DecompressionBombError):
        return None


HINT = "choose another place with -o, or replace it with --force"


def _other(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """In what the picture that is there is another one."""
    names = sorted((known.keys() | wanted.keys()) - _NO_SETTINGS)
    differ = [name for name in names if as_text({"": known.get(name)}) != as_text({"": wanted.get(name)})]
    if "what" in differ:
        return f"and is another picture of rdm's ({known.get('what')})"
    words = [_WORDS.get(name, name.replace("_", " ")) for name in differ]
    return f"made otherwise (another {', '.join(words)})"


_WORDS = {
    "bundle_digest": "bundle",
    "source_digest": "source",
    "source_digests": "source",
    "decoding": "solver or number of steps",
    "direction_digests": "direction of the attribute",
}
