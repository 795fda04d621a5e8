"""The log of a training run: one JSON object a line, cut back to the checkpoint on resuming."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rdm_cli.data.io.atomic import atomic_path, naming
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.training.loop import StepRecord


class RunLog:
    """``log.jsonl`` (a line a step) and ``diagnostics.jsonl`` (a line a sheet) of a run's folder.

    Opening drops what a killed run wrote after ``step``, its last checkpoint: those steps run again.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._diagnostics = folder / "diagnostics.jsonl"
        self._path = folder / "log.jsonl"
        for file in (self._path, self._diagnostics):
            _cut(file, step)
        self._steps = self._path.open("a", encoding="utf-8")

    def write(self, record: StepRecord) -> None:
        """Add a step; buffered."""
        with naming(self._path):
            self._steps.write(json.dumps(asdict(record)) + "\n")

    def write_diagnostics(self, **values: Any) -> None:
        """Add what was measured with a sheet, ``step`` among it."""
        with naming(self._diagnostics), self._diagnostics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def flush(self) -> None:
        """Hand every line so far to the system; a closed log has none left."""
        if not self._steps.closed:
            with naming(self._path):
                self._steps.flush()

    def close(self) -> None:
        """Write out what is buffered."""
        with naming(self._path):
            self._steps.close()


def _cut(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if parse_object(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break  # a line cut short by the kill; nothing valid follows it
    with atomic_path(path) as temporary:
        temporary.write_text("".join(kept), encoding="utf-8")
