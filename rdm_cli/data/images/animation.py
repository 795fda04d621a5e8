"""Pictures one after the other, there and back: as GIF, animated WebP, or MP4 where ffmpeg is there."""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast, get_args

from PIL import Image

from rdm_cli.data.images.record import mp4_box, saving_options
from rdm_cli.errors import RdmError, UsageError, setting

AnimationKind = Literal["gif", "webp", "mp4"]
"""What an animation is written as."""


def animation_kinds(text: str) -> tuple[AnimationKind, ...]:
    """The kinds in ``gif,webp``, each once; raises UsageError for others and for none."""
    kinds = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",")))
    known = get_args(AnimationKind)
    if wrong := [kind for kind in kinds if kind not in known]:
        raise UsageError(
            f"{setting('animation')} {text}: {wrong[0] or 'nothing'!r} is no kind of animation",
            hint=f"known: {', '.join(known)}",
        )
    return cast("tuple[AnimationKind, ...]", kinds)


def require_encoder(kind: AnimationKind) -> None:
    """Raise UsageError where this machine cannot write such animations."""
    if kind == "mp4":
        _ffmpeg()


def animation_bytes(
    frames: Sequence[Image.Image], kind: AnimationKind, record: Mapping[str, Any], *, frame_ms: int
) -> bytes:
    """``frames``, of one size, as a file of that ``kind`` that carries ``record``.

    They lead there and back, so that the loop has no jump. Raises UsageError where there is no encoder, and
    RdmError where it fails.
    """
    loop = [*frames, *frames[-2:0:-1]]
    if kind == "mp4":
        return _mp4(loop, frame_ms) + mp4_box(record)
    file = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if kind == "webp" else {}
    loop[0].save(
        file,
        format=kind.upper(),
        save_all=True,
        append_images=loop[1:],
        duration=frame_ms,
        loop=0,
        **options,
        **saving_options(record, kind.upper()),
    )
    return file.getvalue()


def _ffmpeg() -> str:
    """The program ffmpeg, on the PATH or in the package imageio-ffmpeg; raises UsageError for neither."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        return str(import_module("imageio_ffmpeg").get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        raise UsageError(
            "an MP4 is written by ffmpeg, which is not installed",
            hint="install ffmpeg, or pip install imageio-ffmpeg; a webp needs neither",
        ) from None


def _mp4(frames: Sequence[Image.Image], frame_ms: int) -> bytes:
    """H.264 of near-lossless quality that every browser plays; equal frames give equal bytes."""
    width, height = frames[0].size
    with tempfile.TemporaryDirectory(prefix="rdm-") as scratch:
        video = Path(scratch) / "animation.mp4"
        command = [
            _ffmpeg(), "-nostdin", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24",
            "-s", f"{width}x{height}", "-r", f"1000/{frame_ms}", "-i", "-", "-an", "-c:v", "libx264",
            "-threads", "1", "-crf", "12", "-pix_fmt", "yuv420p", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2",
            "-movflags", "+faststart", "-fflags", "+bitexact", "-flags:v", "+bitexact", str(video),
        ]  # fmt: skip
        pixels = b"".join(frame.convert("RGB").tobytes() for frame in frames)
        done = subprocess.run(command, input=pixels, capture_output=True, check=False)
        if done.returncode != 0 or not video.is_file():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise RdmError(f"ffmpeg could not write an MP4 ({said[-1] if said else 'it says nothing'})")
        return video.read_bytes()
