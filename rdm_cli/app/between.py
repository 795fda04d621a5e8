"""Between two or three pictures: what lies there, and the way through them as a strip or an animation."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from PIL import Image

from rdm_cli.app.studio import Source, Studio
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.images.record import command_recorded
from rdm_cli.errors import UsageError
from rdm_cli.jobs.pictures import interpolate_files

Export = Literal["strip", "animation"]
SUFFIXES: dict[Export, str] = {"strip": ".png", "animation": ".gif"}
FRAMES_AT_MOST = 64
FRAME_MS = 120
TILE_PIXELS = 128
KEY = "interpolation"  # of the x_T that codes without one share, as the command has it


def mixture(studio: Studio, sources: Sequence[Source], weights: Sequence[float]) -> Image.Image:
    """The picture between two or three ``sources``, of non-negative ``weights`` that are not all 0.

    Of two it is a frame of the path that :func:`command` leads. Between three z and x_T are mixed straight
    from code to code: first two of them, then these with the third. Raises CodeError for codes that cannot be
    mixed, UsageError for other numbers.
    """
    total = sum(weights)
    if len(sources) not in (2, 3) or len(weights) != len(sources) or min(weights) < 0 or not total > 0:
        raise UsageError("two or three pictures are mixed, by weights from 0 on")
    pipeline = studio.single
    if len(sources) == 2:
        code = pipeline.interpolate(sources[0].code, sources[1].code, [weights[1] / total])
    else:
        both = weights[0] + weights[1]
        code = _straight(studio, sources[0].code, sources[1].code, weights[1] / both if both else 0.0)
        code = _straight(studio, code, sources[2].code, weights[2] / total)
    return to_pil(pipeline.decode(code, keys=[KEY])[0])


def _straight(studio: Studio, first: Codes, second: Codes, alpha: float) -> Codes:
    return studio.single.interpolate(first, second, [alpha], path="lerp")


def command(studio: Studio, sources: Sequence[Source], num_frames: int, kind: Export) -> str:
    """What to type for the same file; "" with fewer than two pictures."""
    if len(sources) < 2:
        return ""
    words = ["rdm", "interpolate", *(source.word for source in sources), "--frames", str(num_frames)]
    words += [*studio.options, "-o", f"between{SUFFIXES[kind]}"]
    return "\n".join([*dict.fromkeys(line for source in sources for line in source.first), shlex.join(words)])


def export(studio: Studio, sources: Sequence[Source], num_frames: int, kind: Export) -> bytes:
    """The file of the way through ``sources``: the one that :func:`command` writes.

    Raises UsageError for fewer than two or more frames than ``FRAMES_AT_MOST``, and what mixing raises.
    """
    if len(sources) < 2 or not 2 <= num_frames <= FRAMES_AT_MOST:
        raise UsageError(f"a way leads through two pictures or more, in 2 to {FRAMES_AT_MOST} frames")
    text = command(studio, sources, num_frames, kind)
    with TemporaryDirectory(prefix="rdm-app-") as made, command_recorded(lambda _: text.rpartition("\n")[2]):
        inputs = []
        for i, source in enumerate(sources):  # each in a folder of its own: two may have one name
            place = Path(made) / str(i) / source.file.name
            place.parent.mkdir()
            place.write_bytes(source.file.read_bytes())
            inputs.append(place)
        output = Path(made) / f"between{SUFFIXES[kind]}"
        for _ in interpolate_files(
            studio.pipeline,
            inputs,
            output,
            alone=kind,
            num_frames=num_frames,
            frame_ms=FRAME_MS,
            animations=("gif",) if kind == "animation" else (),
            tile=TILE_PIXELS,
        ):
            pass
        return output.read_bytes()
