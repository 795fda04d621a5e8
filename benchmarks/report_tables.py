"""Figures as Markdown tables, on their own or within a page; above all those of bundle_report.py."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from rdm_cli.data.io.atomic import atomic_path

BEGIN, END = "<!-- figures: benchmarks/bundle_report.py -->", "<!-- end of figures -->"
WIDTH = 112
PROBED = ("smiling", "glasses", "beard", "hat")
EXACT_DB = 150.0  # a mean squared error of 4e-15: rounding in float32
PageOption = Annotated[
    Path | None, typer.Option("--markdown", help="A page of the docs in which to replace the tables.")
]


def markdown(figures: dict[str, Any]) -> str:
    """Every table that there are figures for, with what they were measured on."""
    num, precision, digest = (figures[name] for name in ("num_held_out", "precision", "digest"))
    parts = [
        f"Measured on {num:,} held-out images where a table names no other number, networks in {precision}, "
        f"bundle `{digest[:12]}`."
    ]
    if found := figures.get("own way"):
        rows = [
            (n, f"{f['num']:,}", f"{f['psnr_db']:.2f}", f"{f['least_psnr_db']:.2f}", f"{f['ssim']:.4f}")
            for n, f in found.items()
        ]
        parts.append(table(("by the bundle's own ways", "images", "PSNR (dB)", "least", "SSIM"), rows))
    if found := figures.get("distances"):
        rows = [
            (n, f"{f['num']:,}", f"{f['kd']:.1f} ({f['low']:.1f} to {f['high']:.1f})")
            for n, f in found.items()
        ]
        num_real = next(iter(found.values()))["num_real"]
        header = ("pictures", "number", f"KD x 1000 from {num_real:,} real images, EffNet-Lite0")
        parts.append(table(header, rows))
    if found := figures.get("true edits"):
        parts.append(
            textwrap.fill(
                "The renderer knows the same face with one attribute changed. PSNR to the nearest such "
                "picture, of the image as it was, and of that picture's z decoded with the image's own x_T:",
                WIDTH,
            )
        )
        rows = [
            (n, f"{f['num']}", f"{f['unedited_psnr_db']:.1f}", f"{f['own_x_T_psnr_db']:.1f}")
            for n, f in found.items()
        ]
        parts.append(table(("change", "faces", "unedited (dB)", "true z, own x_T (dB)"), rows))
    if found := figures.get("reconstruction"):
        rows = [
            (n, f"{f['num']:,}", f"{f['psnr_db']:.2f}", f"{f['mse']:.2e}", f"{f['ssim']:.4f}")
            for n, f in found.items()
        ]
        parts.append(table(("DDIM, both ways", "images", "PSNR (dB)", "MSE", "SSIM"), rows))
    if found := figures.get("swapped"):
        rows = [(t, f"{f['own']:.4f}", f"{f['swapped']:.4f}", f"{f['ratio']:.1f}") for t, f in found.items()]
        parts.append(table(("t", "loss, own z", "loss, swapped z", "ratio"), rows))
    if found := figures.get("probes"):
        parts.append("The stored linear probes on z:")
        rows = [
            (
                name,
                f"{f['auroc']:.4f}",
                f"{f['average_precision']:.4f}",
                f"{f['num_positive']} / {f['num_labelled']}",
            )
            for name, f in found.items()
        ]
        parts.append(table(("attribute", "AUROC", "average precision", "positives"), rows))
    if found := figures.get("edits"):
        right = ", ".join(f"{name} {100 * share:.1f} %" for name, share in figures["judge_accuracy"].items())
        told = (
            "The edit `--attr smiling`, judged by a CNN on pixels that "
            f"never saw a code; on the images as they are it is right about {right}. Positive scales are "
            "for faces that do not smile, negative ones for faces that do."
        )
        parts.append(textwrap.fill(told, WIDTH))
        judged = list(figures["judge_accuracy"])
        rows = [
            (scale, str(f["num"]), *(f"{100 * f[name]:.1f} %" for name in judged))
            for scale, f in sorted(found.items(), key=lambda pair: float(pair[0]))
        ]
        header = ("scale", "faces", *(f"{n} {'flipped' if n == 'smiling' else 'kept'}" for n in judged))
        parts.append(table(header, rows))
    return "\n\n".join(parts)


def side_by_side(reports: dict[str, dict[str, Any]]) -> str:
    """The rows that say most of each report, a column for each that has them; "" where none has.

    "-" stands for what a report does not have.
    """
    parts = {"own way", "distances", "probes"}
    reports = {name: report for name, report in reports.items() if parts <= report.keys()}
    if not reports:
        return ""
    smiles = "of faces that do not smile, `--attr smiling --scale 0.3` changes"
    rows = {
        "PSNR (dB), whole code": lambda f: _psnr(f, "whole code"),
        "PSNR (dB), z alone": lambda f: _psnr(f, "z alone"),
        "KD × 1000 of other real faces": lambda f: _distance(f, "other images"),
        "KD × 1000 of decodes of z alone": lambda f: _distance(f, "their z, random x_T"),
        "KD × 1000 of samples": lambda f: _distance(f, "samples of the prior"),
        "KD × 1000 halfway from one face to another": lambda f: _distance(f, "halfway from one to another"),
        f"AUROC of linear probes on z: {', '.join(PROBED)}": lambda f: ", ".join(
            f"{f['probes'][name]['auroc']:.3f}" for name in PROBED
        ),
        smiles: lambda f: _share(f, "smiling"),
        f"and leaves as they were: {', '.join(PROBED[1:])}": lambda f: (
            ", ".join(_share(f, name) for name in PROBED[1:]) if "edits" in f else "-"
        ),
    }
    header = ("on held-out faces", *(f"`{name}`" for name in reports))
    return table(header, [(text, *(cell(f) for f in reports.values())) for text, cell in rows.items()])


def _psnr(figures: dict[str, Any], way: str) -> str:
    """The quality by the bundle's own way whose name begins so."""
    (found,) = (found for name, found in figures["own way"].items() if name.startswith(way))
    return "exact" if found["psnr_db"] >= EXACT_DB else f"{found['psnr_db']:.1f}"


def _distance(figures: dict[str, Any], pictures: str) -> str:
    found = figures["distances"][pictures]
    return f"{found['kd']:.1f} ({found['low']:.1f} to {found['high']:.1f})"


def _share(figures: dict[str, Any], name: str) -> str:
    return f"{100 * figures['edits']['+0.3'][name]:.1f} %" if "edits" in figures else "-"


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def fill_card(card: Path, figures: dict[str, Any]) -> None:
    """Put the tables between the card's two markers; raises ValueError where it has none."""
    fill_between(card, BEGIN, END, markdown(figures))


def markers(script: str) -> tuple[str, str]:
    """The lines between which a page has the tables of ``benchmarks/SCRIPT.py``."""
    return f"<!-- figures: benchmarks/{script}.py -->", f"<!-- end of figures: {script} -->"


def refuse_unmarked(page: Path | None, script: str) -> None:
    """Raise BadParameter where ``page`` has no place for the script's tables: before measuring, not after."""
    if page is None:
        return
    try:
        around(page, *markers(script))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--markdown: {error}") from error


def publish(tables: str, page: Path | None, script: str) -> None:
    """Print the tables, and put them into their place on ``page`` where there is one."""
    print(tables)
    if page is not None:
        fill_between(page, *markers(script), tables)


def fill_between(page: Path, begin: str, end: str, tables: str) -> None:
    """Put ``tables`` between the lines ``begin`` and ``end`` of ``page``; ValueError where it lacks them."""
    before, after = around(page, begin, end)
    with atomic_path(page) as temporary:
        temporary.write_text(f"{before}{begin}\n\n{tables}\n\n{end}{after}", encoding="utf-8")


def keep_json(path: Path, figures: dict[str, Any]) -> None:
    """Write ``figures`` to ``path`` whole or not at all, and its folder where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def around(page: Path, begin: str, end: str) -> tuple[str, str]:
    """What stands before the line ``begin`` and after ``end``; ValueError where ``page`` lacks them."""
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page}: the lines {begin} and {end} are missing")
    return before, after
