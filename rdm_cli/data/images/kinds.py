"""What kind of image a file is, told by its first bytes, whatever it is called."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

HEAD_BYTES = 64

# Cameras' raw files are TIFFs whose first page is a thumbnail: to read that would be to read something else.
_RAW_SUFFIXES = frozenset(
    (".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mef", ".mos", ".mrw", ".nef", ".nrw",
     ".orf", ".pef", ".raw", ".rw2", ".rwl", ".sr2", ".srf", ".srw")
)  # fmt: skip

_STARTS = {
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
}

# Two letters begin many a text; what follows them does not.
_PATTERNS = {
    re.compile(rb"P[1-6]\s+(#[^\n]*\n\s*)*\d"): "PPM",
    re.compile(rb"P(f|y[ \n]?)\s+\S*\d"): "PPM",
    re.compile(rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", flags=re.DOTALL): "BMP",
    re.compile(rb"RIFF.{4}WEBP", flags=re.DOTALL): "WEBP",
}

_AVIF_BRANDS = frozenset((b"avif", b"avis"))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))


def kind_of(head: bytes) -> str | None:
    """Which format that rdm reads begins with these bytes (of ``HEAD_BYTES``, or all there are); or None."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    for pattern, kind in _PATTERNS.items():
        if pattern.match(head):
            return kind
    if head[4:8] != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & _HEIF_BRANDS else None


def holds_image(path: Path) -> bool:
    """Whether a file whose name does not say so is an image: a look at its first bytes.

    What cannot be opened, is no regular file, or is called like a camera's raw file is none.
    """
    if path.suffix.lower() in _RAW_SUFFIXES:
        return False
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with path.open("rb", buffering=0) as file:
            return kind_of(file.read(HEAD_BYTES)) is not None
    except OSError:
        return False
