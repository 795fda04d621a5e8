"""The figures that README and model cards quote: found between markers, filled from what was kept.

A place begins with the line ``BEGIN`` and ends with the line ``END``. Places of benchmarks/bundle_report.py
are filled from docs/figures/bundle-report/NAME.json: a card's if its file is there, README's if all are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report_tables

from evidence.contenders import WITH_Z
from evidence.findings import CHANGED, Findings
from evidence.glance import headline, swept
from evidence.study import FOLDERS
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import RdmError, UsageError

BEGIN, END = "<!-- figures: make evidence -->", "<!-- end of figures: evidence -->"
REPORTS = "bundle-report"


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where ``page`` quotes figures, between ``begin`` and ``end``, and the ``text`` that belongs there."""

    page: Path
    begin: str
    end: str
    text: str

    @property
    def is_in_step(self) -> bool:
        """Whether the text stands there; ValueError where the page lacks the markers."""
        before, after = report_tables.around(self.page, self.begin, self.end)
        return self.page.read_text(encoding="utf-8") == self.filled(before, after)

    def fill(self) -> None:
        """Put the text there; ValueError where the page lacks the markers."""
        report_tables.fill_between(self.page, self.begin, self.end, self.text)

    def filled(self, before: str, after: str) -> str:
        """The page with the text in its place."""
        return f"{before}{self.begin}\n\n{self.text}\n\n{self.end}{after}"


def refuse_unmarked(root: Path) -> None:
    """Raise UsageError for a page of the project at ``root`` that has no place for its figures."""
    cards = (root / "assets" / "bundles" / name / "README.md" for name in WITH_Z)
    for page in (root / "README.md", *(card for card in cards if card.exists())):
        try:
            report_tables.around(page, BEGIN, END)
        except ValueError as error:
            raise UsageError(str(error)) from error


def places(findings: Findings, root: Path) -> Iterator[Place]:
    """Every place of the project at ``root`` that there are figures for."""
    if findings.sweep:
        begin, end = report_tables.markers("lambda_sweep")
        text = report_tables.table(*swept(findings.sweep))
        yield Place(page=root / "docs" / "training.md", begin=begin, end=end, text=text)
    readme = quoted(findings, WITH_Z)
    if readme:
        yield Place(page=root / "README.md", begin=BEGIN, end=END, text=readme)
    reports = {name: path for name in WITH_Z if (path := _report_of(root, name)).exists()}
    if text := _told(reports, report_tables.side_by_side):
        yield Place(page=root / "README.md", begin=report_tables.BEGIN, end=report_tables.END, text=text)
    for name in WITH_Z:
        card = root / "assets" / "bundles" / name / "README.md"
        if not card.exists():
            continue
        own = quoted(findings, (name,))
        if own:
            yield Place(page=card, begin=BEGIN, end=END, text=own)
        if name in reports:
            text = _told({name: reports[name]}, lambda found: report_tables.markdown(*found.values()))
            yield Place(page=card, begin=report_tables.BEGIN, end=report_tables.END, text=text)


def quoted(findings: Findings, names: tuple[str, ...]) -> str:
    """The rows that are quoted of the bundles ``names``; "" where none of them was ever measured."""
    columns, rows = headline(findings, names)
    if not rows:
        changed = {why for (_, name), why in findings.absent.items() if name in names and CHANGED in why}
        return f"Not measured: {'; '.join(sorted(changed))}." if changed else ""
    told = f"""\
Held-out avatars (`{FOLDERS.held_out}`), 95 % intervals, all of it in docs/evidence.md.
↑: more is better, ↓: less is; KD is the kernel distance times 1000."""
    return f"{told}\n\n{report_tables.table(('for', *columns), rows)}"


def _report_of(root: Path, name: str) -> Path:
    return root / "docs" / "figures" / REPORTS / f"{name}.json"


def _told(reports: dict[str, Path], tell: Callable[[dict[str, Any]], str]) -> str:
    """What ``tell`` makes of the reports' figures by name; RdmError where a file does not hold them."""
    try:
        return tell({name: read_object(path) for name, path in reports.items()})
    except (OSError, ValueError, KeyError, TypeError) as error:
        paths = ", ".join(map(str, reports.values()))
        raise RdmError(f"{paths}: no figures of benchmarks/bundle_report.py ({error!r})") from error
