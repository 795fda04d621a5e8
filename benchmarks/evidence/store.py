"""What was measured, kept: a JSON file a study, with an entry a contender, keyed by all it rests on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rdm_cli import __version__
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import RdmError
from rdm_cli.evaluation.figures import Figure
from rdm_cli.evaluation.report import figure_from, figure_record


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A sheet that was drawn: its ``file``'s name beside the JSON, what it shows, and what its rows are."""

    file: str
    caption: str
    rows: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one study found about one contender.

    ``key`` is all that the figures depend on: digests and settings. ``seconds`` they took on ``machine``.
    """

    key: Mapping[str, Any]
    seconds: float
    machine: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Store:
    """The JSON files of a ``folder``."""

    folder: Path

    def path(self, study: str) -> Path:
        """The file of a study."""
        return self.folder / f"{study}.json"

    def entries(self, study: str) -> dict[str, Entry]:
        """What is kept of a study, by contender; nothing where it was never run.

        Raises RdmError for a file that is damaged or of something else.
        """
        path = self.path(study)
        if not path.exists():
            return {}
        try:
            return {name: _entry(found) for name, found in read_object(path)["measured"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RdmError(
                f"{path}: holds no figures of a study ({error!r})", hint="remove it to measure them again"
            ) from error

    def keep(self, study: str, name: str, entry: Entry) -> None:
        """Put ``entry`` in the place of what was kept of this contender; the file is whole at any moment."""
        measured = self.entries(study) | {name: entry}
        content = {
            "study": study,
            "rdm_version": __version__,
            "measured": {key: _content(value) for key, value in measured.items()},
        }
        with atomic_path(self.path(study)) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _content(entry: Entry) -> dict[str, Any]:
    return {
        "key": dict(entry.key),
        "seconds": round(entry.seconds, 1),
        "machine": entry.machine,
        "notes": list(entry.notes),
        "pictures": [asdict(picture) for picture in entry.pictures],
        "figures": [figure_record(figure) for figure in entry.figures],
    }


def _entry(found: Mapping[str, Any]) -> Entry:
    pictures = (Picture(**(p | {"rows": tuple(p["rows"])})) for p in found["pictures"])
    return Entry(
        key=found["key"],
        seconds=float(found["seconds"]),
        machine=str(found["machine"]),
        figures=tuple(figure_from(figure) for figure in found["figures"]),
        notes=tuple(found["notes"]),
        pictures=tuple(pictures),
    )
