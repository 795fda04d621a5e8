"""How much of the package a command passes through: functions and files, counted by a trace of a real run.

    python benchmarks/call_path.py
    python benchmarks/call_path.py --list encode

``encode`` is ``rdm encode`` of one drawn face with default options, ``train`` is two steps of ``rdm train
diffae``. Counted are the package's functions that ran until the network was first asked, those on the stack
at that moment, and those of the whole run; ``models/`` and ``kernels/``, which are the work itself, are left
out. A function counts once, however often it is called.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from typing import Annotated, Any

import typer

import rdm_cli

PACKAGE = Path(rdm_cli.__file__).parent
FACE = Path(__file__).resolve().parent.parent / "assets" / "faces" / "face-1.png"
WORK = ("models", "kernels")


@dataclass
class Trace:
    """What ran, as (file below the package, function) in the order of the first call."""

    ran: dict[tuple[str, str], None] = field(default_factory=dict)
    before: list[tuple[str, str]] | None = None
    stack: list[tuple[str, str]] | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or (place := self._place(frame.f_code)) is None:
            return
        self.ran.setdefault(place, None)
        if self.before is None and place[0].startswith("models/") and frame.f_code.co_name == "forward":
            self.before = list(self.ran)
            self.stack = []
            while frame.f_back is not None:
                frame = frame.f_back
                if (above := self._place(frame.f_code)) is not None:
                    self.stack.append(above)
            self.stack.reverse()

    @staticmethod
    def _place(code: CodeType) -> tuple[str, str] | None:
        if not code.co_filename.startswith(str(PACKAGE)) or code.co_name.startswith("<"):
            return None
        if not code.co_flags & inspect.CO_OPTIMIZED:
            return None  # the body of a class
        return str(Path(code.co_filename).relative_to(PACKAGE)), code.co_qualname


def encode(scratch: Path) -> list[str]:
    return ["encode", str(FACE), "-o", str(scratch / "codes"), "-q"]


def train(scratch: Path) -> list[str]:
    faces = str(FACE.parent)
    return [
        "train", "diffae", faces, "-o", str(scratch / "bundle"), "--run", str(scratch / "run"),
        "--preset", "small32", "--steps", "2", "--batch-size", "2",
    ]  # fmt: skip


COMMANDS: dict[str, Callable[[Path], list[str]]] = {"encode": encode, "train": train}


def traced(words: list[str]) -> Trace:
    from rdm_cli.cli import app

    trace = Trace()
    threading.setprofile(trace)  # images are read in a thread of their own
    sys.setprofile(trace)
    try:
        app(words, standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return trace


def counts(places: list[tuple[str, str]]) -> dict[str, int]:
    """Functions and files of the package besides the work itself, and the lines of these files."""
    around = [place for place in places if not place[0].startswith(WORK)]
    files = sorted({file for file, _ in around})
    lines = sum(len((PACKAGE / file).read_text("utf-8").splitlines()) for file in files)
    return {"functions": len(around), "files": len(files), "lines_of_files": lines}


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Of encode, train; both by default.")] = None,
    show: Annotated[
        bool, typer.Option("--list", help="Print each function, in the order of first calls.")
    ] = False,
) -> None:
    for name in names or list(COMMANDS):
        with tempfile.TemporaryDirectory() as scratch:
            os.chdir(scratch)
            trace = traced(COMMANDS[name](Path(scratch)))
        assert trace.before is not None and trace.stack is not None, "the network was never asked"
        if show:
            print("\n".join(f"{file}  {function}" for file, function in trace.before))
        print(
            json.dumps(
                {
                    "command": name,
                    "before_the_network": counts(trace.before),
                    "on_the_stack": counts(trace.stack),
                    "whole_run": counts(list(trace.ran)),
                }
            )
        )


if __name__ == "__main__":
    typer.run(main)
