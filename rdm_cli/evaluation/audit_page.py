"""An audit as a page to read, a JSON file, and sheets of pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from rdm_cli import __version__
from rdm_cli.classifiers.classifier import Classifier
from rdm_cli.data.images.pixels import pixels_to_pil
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.data.images.sheet import TILE, Tile, enlarged, lay_out
from rdm_cli.data.io.places import put
from rdm_cli.escapes import file_name
from rdm_cli.evaluation.audit import (
    LEAST_EFFECT,
    SHARE_OF_TARGET,
    SIGNIFICANT,
    Audit,
    Finding,
    audit_record,
    blind_to,
)
from rdm_cli.evaluation.report import NO_PLOTS
from rdm_cli.metrics.intervals import Estimate
from rdm_cli.reports.html_page import Card, HtmlPage, Shown, png_bytes, refuse_other_page
from rdm_cli.reports.plots import Line, Plot, can_plot

LEAD = (
    "Each attribute was added to faces that lack it and taken from faces that have it, nothing else was "
    "changed, and the model was asked about both pictures. The effect of an attribute is the mean of the "
    "score with it less the score without it; 0.5 means that the attribute alone adds half to the "
    "probability of the class."
)
MOST_MOVED = 8  # pictures shown of each attribute that drives the model
COLUMNS = ("attribute", "verdict", "effect", "added", "removed", "p", "faces", "edit failed", "not alone")
JSON, PAGE, SHEETS = "audit.json", "audit.html", "sheets"


def report_folder(model: Classifier, folder: Path) -> Path:
    """Where the report on ``model`` goes: a folder of its own, so that others stay.

    Raises OccupiedError, before any work, where files of others are in the places of the report.
    """
    found = folder / file_name(str(model.assumed.get("command", model.name)))
    refuse_other_page(found / PAGE)
    return found


def write_audit(found: Audit, folder: Path, names: list[str]) -> Iterator[Path]:
    """Write page, JSON and sheets below ``folder``, and yield their places.

    ``names`` are those of the images. A sheet is written of each direction without a name, and of whatever
    drives the model.
    """
    for finding in found.findings:
        if finding.num and (finding.is_concept or finding.drives):
            place = folder / SHEETS / f"{finding.moved.file_name}.png"
            picture, told = _sheet(finding, names), {"direction": finding.name, "model": found.model.name}
            save_image(picture, place, new_record("audit", bundle=found.bundle, **told))
            yield place
    text = json.dumps(audit_record(found), indent=2, allow_nan=False)
    put(folder / JSON, f"{text}\n".encode())
    yield folder / JSON
    _page(found, names).save(folder / PAGE)
    yield folder / PAGE


def _page(found: Audit, names: list[str]) -> HtmlPage:
    known = [finding.name for finding in found.findings if not finding.is_concept]
    page = HtmlPage(f"What {found.model.name} looks at", LEAD)
    page.section("Verdict")
    page.paragraph(f"{found.summary}.")
    page.paragraph(
        f"An attribute drives the model where its effect is at least {found.threshold:.3f} and chance "
        f"explains it in less than {SIGNIFICANT:.0%} of cases, corrected for the number of attributes. The "
        f"least effect is {LEAST_EFFECT} or, if that is more, {SHARE_OF_TARGET:.0%} of what the model's own "
        "subject does."
    )
    page.facts(
        {
            "class asked about": found.class_name,
            "own subject": f"{found.target or 'not known'}: {found.target_from}",
            "images": found.num_images,
        }
    )
    page.section("Effects")
    page.table(
        "Effects on the model's score, a probability, with 95 % intervals.",
        COLUMNS,
        [_row(finding) for finding in found.findings],
        num_words=2,
    )
    page.paragraph(
        "Added and removed: over faces that lacked the attribute and faces that had it; both say what having "
        "it does. Faces: those that count. Edit failed: the new picture does not show what was wanted. Not "
        "alone: the bundle's classifiers see something else changed as well, so the face is left out."
    )
    if can_plot():
        page.plot(effects_plot(found), "effect of each attribute; the figures are in the table")
    else:
        page.paragraph(NO_PLOTS)
    driving = [finding for finding in found.findings if finding.drives]
    if driving:
        page.section("The pictures that moved most")
        for finding in driving:
            page.cards([_card(finding, names)], width=24)
    concepts = [finding for finding in found.findings if finding.is_concept and finding.num]
    if concepts:
        page.section("Directions without a name")
        page.paragraph(
            "Found in the codes without labels: those that go most with what of the score no attribute "
            "explains. See what changes; rdm attributes discover and import give a direction a name."
        )
        for finding in concepts:
            page.cards([_card(finding, names)], width=24)
    page.section("What this audit cannot see")
    page.points([*blind_to(found, known), *found.notes])
    page.section("Computed with")
    page.facts({"rdm": __version__, "bundle": found.bundle, **found.settings})
    page.facts({"model": found.model.name, **found.model.assumed})
    return page


def effects_plot(found: Audit) -> Plot:
    """Effects with their intervals, a row for each attribute."""
    known = [finding for finding in found.findings if finding.effect is not None]
    lines: dict[str, Line] = {}
    for label, chosen in (
        ("drives the model", [f for f in known if f.accused]),
        ("own subject", [f for f in known if f.is_target]),
        ("does not", [f for f in known if not f.accused and not f.is_target]),
    ):
        if chosen:
            effects = [f.effect for f in chosen if f.effect is not None]
            lines[label] = Line(
                x=[float(known.index(f)) for f in chosen],
                y=[e.value for e in effects],
                low=[e.low if e.has_ends else e.value for e in effects],
                high=[e.high if e.has_ends else e.value for e in effects],
            )
    return Plot(
        lines=lines,
        x_label="attribute",
        y_label=f"effect on P({found.class_name})",
        title="What each attribute adds to the score",
        names=tuple(finding.name for finding in known),
    )


def _row(finding: Finding) -> list[str]:
    return [
        finding.name,
        finding.verdict,
        *map(_told, (finding.effect, finding.added, finding.removed)),
        f"{finding.p:.4f}" if finding.effect is not None else "-",
        str(finding.num),
        str(finding.num_failed),
        str(finding.num_not_alone),
    ]


def _told(found: Estimate | None) -> str:
    if found is None:
        return "-"
    return f"{found.value:+.3f}" + (f" ({found.low:+.3f} to {found.high:+.3f})" if found.has_ends else "")


def _pictures(finding: Finding, row: int) -> tuple[Image.Image, Image.Image]:
    """The face of that row of ``moved``, without and with the attribute."""
    before, after = (pixels_to_pil(part[row]) for part in (finding.moved.before, finding.moved.after))
    return (before, after) if finding.moved.added[row] else (after, before)


def _card(finding: Finding, names: list[str]) -> Card:
    shown = []
    for row in finding.most_moved(MOST_MOVED // 2):
        name = names[int(finding.moved.rows[row])]
        moved = f"{float(finding.differences[row]):+.2f}"
        for picture, word in zip(_pictures(finding, row), ("without", "with"), strict=True):
            alt = f"{name} {word} {finding.name}"
            caption = word if word == "without" else f"with: {moved}"
            shown.append(Shown(picture=png_bytes(enlarged(picture, TILE // 2)), alt=alt, caption=caption))
    return Card(shown=shown, columns=MOST_MOVED, title=finding.name)


def _sheet(finding: Finding, names: list[str]) -> Image.Image:
    without, having = [], []
    for row in finding.most_moved(MOST_MOVED):
        first, second = (enlarged(picture, TILE // 2) for picture in _pictures(finding, row))
        without.append(Tile(first, names[int(finding.moved.rows[row])]))
        having.append(Tile(second, f"{float(finding.differences[row]):+.3f}"))
    title = f"{finding.name}: the faces that moved most"
    return lay_out([without, having], title=title, names=("without", "with"))
