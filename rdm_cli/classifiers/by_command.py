"""Classifiers that live elsewhere: a program that gets paths of PNG files and writes their scores as JSON.

The paths come on its stdin, one a line, or as arguments in the place of an argument ``{}``. On stdout it
writes one JSON value a picture, in their order: as lines, or as one array of all. A value is a number, an
array of numbers or an object of numbers by class. It is started without a shell.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdm_cli.classifiers.classifier import Classifier, Outputs, make_classifier
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.io.json_text import parse_json
from rdm_cli.errors import ClassifierError, UsageError, setting

PLACE = "{}"  # the argument that paths replace
MOST_ARGUMENTS = 1000  # paths of one call, where they are arguments


def open_command(
    command: str,
    *,
    labels: Sequence[str] | None,
    outputs: Outputs | None,
    image_size: int,
    time_limit: float,
) -> Classifier:
    """The program and arguments ``command``, asked at once about as many pictures as there are.

    Raises UsageError where there is no such program, ClassifierError where it fails, takes longer than
    ``time_limit`` seconds, or writes what are no scores.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{setting('command')} {command}: {error}") from None
    if not words:
        raise UsageError(f"{setting('command')}: no program is named")
    if shutil.which(words[0]) is None:
        raise UsageError(f"{setting('command')}: there is no program {words[0]!r}")
    name = Path(words[0]).name
    program = _Program(words=words, name=name, time_limit=time_limit)
    if labels is None:
        labels = program.classes(torch.zeros(1, 3, image_size, image_size))
    return make_classifier(
        program.scores,
        name=name,
        labels=labels,
        outputs=outputs,
        image_size=image_size,
        assumed={"command": command},
    )


class _Program:
    """A program in ``words``, called with pictures."""

    def __init__(self, *, words: Sequence[str], name: str, time_limit: float) -> None:
        self.words, self.name, self.time_limit = words, name, time_limit
        self.keys: list[str] | None = None

    def classes(self, x: Tensor) -> list[str] | None:
        """The names of its classes, where it gives objects."""
        value = self.values(x)[0]
        self.keys = list(value) if isinstance(value, dict) else None
        return self.keys

    def scores(self, x: Tensor) -> Tensor:
        """The outputs (B, K) for pictures ``x`` (B, 3, H, W) in [-1, 1]."""
        rows = [self._row(value) for value in self.values(x)]
        if len(set(map(len, rows))) != 1:
            raise ClassifierError(f"{self.name}: gives pictures different numbers of scores")
        return torch.tensor(rows)

    def values(self, x: Tensor) -> list[Any]:
        """One JSON value a picture."""
        at_once = MOST_ARGUMENTS if PLACE in self.words else len(x)
        return [value for part in x.split(at_once) for value in self._asked(part)]

    def _asked(self, x: Tensor) -> list[Any]:
        with tempfile.TemporaryDirectory(prefix="rdm-") as folder:
            paths = [str(Path(folder) / f"{k:06d}.png") for k in range(len(x))]
            for path, picture in zip(paths, x.detach().cpu(), strict=True):
                to_pil(picture, path).save(path, compress_level=1)
            words: list[str] = []
            for word in self.words:
                words.extend(paths if word == PLACE else [word])
            given = "" if PLACE in self.words else "".join(f"{path}\n" for path in paths)
            text = self._run(words, given)
        return self._parsed(text, len(x))

    def _run(self, words: Sequence[str], given: str) -> str:
        process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # so that what it starts ends with it
        )
        try:
            out, err = process.communicate(given.encode(), timeout=self.time_limit)
        except subprocess.TimeoutExpired:
            raise ClassifierError(
                f"{self.name}: took longer than {self.time_limit:g} seconds, and was ended",
                hint=f"allow it more: {setting('time_limit')}",
            ) from None
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            lines = err.decode(errors="replace").split("\n")
            last = next(
                (line.strip() for line in reversed(lines) if line.strip()), "it wrote nothing on stderr"
            )
            raise ClassifierError(f"{self.name}: exit code {process.returncode}: {last[:200]}")
        return out.decode(errors="replace")

    def _parsed(self, text: str, num: int) -> list[Any]:
        try:
            try:
                values = parse_json(text)
                if not isinstance(values, list) or (num == 1 and len(values) != 1):
                    values = [values]
                elif num == 1 and text.lstrip()[:1] == "[" and _is_number(values[0]):
                    values = [values]  # one picture's array, or the array of one picture: the same scores
            except ValueError:
                values = [parse_json(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise ClassifierError(f"{self.name}: wrote no JSON: {error}") from None
        if len(values) != num:
            raise ClassifierError(f"{self.name}: wrote {len(values)} values for {num} pictures")
        return values

    def _row(self, value: Any) -> list[float]:
        if isinstance(value, dict) and self.keys is not None and set(value) == set(self.keys):
            value = [value[key] for key in self.keys]
        elif isinstance(value, dict) and self.keys is None:
            value = list(value.values())
        row = value if isinstance(value, list) else [value]
        if not row or not all(map(_is_number, row)):
            raise ClassifierError(
                f"{self.name}: wrote {str(value)[:80]!r} for a picture; a number, an array of numbers or an "
                "object of numbers by class was expected"
            )
        return [float(one) for one in row]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
