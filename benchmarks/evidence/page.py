"""docs/evidence.md: written from what was kept, and from nothing else."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

from report_tables import table

from evidence.claims import CLAIMS, Verdict, verdict_row, verdicts
from evidence.contenders import IMAGE_SIZE, LRDM, OTHER_SIZES, PLAIN, TITLES, image_size_of
from evidence.findings import AGAINST, SWEEP, Findings
from evidence.glance import choices
from evidence.rules import MARGIN
from evidence.store import Entry, Picture
from evidence.studies import STUDIES
from evidence.study import FOLDERS, FULL, HELD_OUT_SEED, TRAIN_SEED, WORK, Study, titled, without
from rdm_cli.evaluation.figures import Figure
from rdm_cli.evaluation.report import comparison
from rdm_cli.reports.plots import Plot

WIDTH = 112
PICTURES = "figures/evidence"
ONE = "make evidence PART={} AGAIN=1"  # what is kept is else not measured again
MATERIAL, PAGE = "make evidence PART=material", "make evidence PART=page"
AGAINST_PLOTS = ("training", "training-and-pretraining")
AGAINST_COMMAND = (
    f"python benchmarks/pdae_against_diffae.py --train runs/avatars --held-out {FOLDERS.held_out} "
    f"--dpm {WORK}/{PLAIN} --dpm-images 300000 -o runs/against --figures docs/figures"
)
SWEEP_COMMAND = (
    "python benchmarks/lambda_sweep.py runs/sweep-1e-5 runs/sweep-1e-4 runs/sweep-1e-3 "
    f"--held-out {FOLDERS.held_out} --output docs/figures"
)
TRAINING_IMAGES = f"`rdm data avatars runs/avatars --n 40000 --seed {TRAIN_SEED}`"


def page(findings: Findings, pictures: Path) -> str:
    """The whole page; ``pictures`` is the folder in which other benchmarks' plots may lie."""
    found = verdicts(findings)
    parts = [
        "# Evidence",
        *_lead(findings),
        "## At a glance",
        *_glance(findings),
        "## The papers' claims, and what was found",
        *_claims(found),
        "## The rules",
        *_rules(),
    ]
    for study in STUDIES.values():
        parts += [f"## {study.title}", *_section(study, findings)]
    parts += ["## PDAE's training beside Diff-AE's", *_against(findings, pictures)]
    parts += ["## Lambda of LRDM", *_sweep(findings)]
    return "\n\n".join(parts) + "\n"


def _lead(findings: Findings) -> list[str]:
    entries = [e for by_name in findings.entries.values() for e in by_name.values()]
    others = ", ".join(f"{TITLES[name]}: {size}" for name, size in OTHER_SIZES.items())
    lines = [
        "This page is written by `make evidence`, every word and figure of it, from the JSON files in "
        f"[{PICTURES}]({PICTURES}); what should change is changed in benchmarks/evidence. It puts the "
        "papers' claims to the test on the bundles that rdm ships, which were trained on drawn faces of "
        f"{IMAGE_SIZE} pixels ({others}). *Does not hold here* is a finding about these bundles, at their "
        "size and on these images, not about the papers.",
        f"All are measured on the same held-out avatars, which nothing was trained on (`rdm data avatars "
        f"{FOLDERS.held_out} --n {FULL.num_held_out} --seed {HELD_OUT_SEED}`; where something is learned "
        f"from pictures, it is from `{FOLDERS.train}`, seed {TRAIN_SEED}). Bundles of "
        "another size see the same faces, drawn at that size. The plain DPM is the frozen half of {PDAE}. "
        f"Both are made by `{MATERIAL}`. Intervals are of 95 %, over images; "
        "what each figure is, [evaluation.md](evaluation.md) says.",
    ]
    if entries:
        minutes = sum(entry.seconds for entry in entries) / 60
        machines = sorted({entry.machine for entry in entries})
        bundles = sorted({(e.key["bundle"]["bundle"], e.key["bundle"]["digest"][:12]) for e in entries})
        told = ", ".join(f"`{name}` ({digest})" for name, digest in bundles)
        lines.append(f"Measured in {minutes:.0f} minutes in all, on {'; '.join(machines)}. Bundles: {told}.")
    else:
        lines.append("Nothing was measured yet.")
    return [_filled(line) for line in lines]


def _glance(findings: Findings) -> list[str]:
    rows = choices(findings)
    told = (
        "The best of those that were measured comes first. *As good*: its interval meets the best one's. KD "
        "is the kernel distance times 1000; lower is better for it and for what else edits change."
    )
    return [_filled(told), table(("for", "choose", "because"), rows), _command(PAGE)]


def _claims(found: Sequence[Verdict]) -> list[str]:
    header = ("", "claim", "measured on", "verdict", "figures, with 95 % intervals")
    rows, told = [], None
    for verdict in found:
        number, text, *rest = verdict_row(verdict)
        rows.append(("", "", *rest) if verdict.claim is told else (number, text, *rest))
        told = verdict.claim
    return [table(header, rows), _command(PAGE)]


def _rules() -> list[str]:
    lead = (
        "Verdicts are computed (benchmarks/evidence/rules.py). *Surely* means that the two 95 % intervals "
        "have nothing in common; *surely no worse* that the worse end of the interval is at most "
        f"{100 * MARGIN:g} % above the other's value. What the intervals leave open does not hold."
    )
    rows = [(claim.number, claim.rule, f"[{claim.shown_in}](#{_anchor(claim.shown_in)})") for claim in CLAIMS]
    return [_filled(lead), table(("", "holds if", "figures"), rows)]


def _section(study: Study, findings: Findings) -> list[str]:
    entries = findings.entries.get(study.name, {})
    parts = [_filled(study.about)]
    parts += [
        f"{TITLES[name]}: not measured: {findings.absent[study.name, name]}."
        for name in study.contenders
        if (study.name, name) in findings.absent
    ]
    if not entries:
        return parts
    command = _commands(study, entries)
    figures = findings.measured(study.name)
    tabled = study.tables(figures)
    if tabled:
        parts += [f"N = {_numbers(tabled)}.", figures_table(tabled, study.row), command]
    for plot, file in zip(study.plots(figures), plot_files(study, figures), strict=True):
        parts += [_image(file, _described(plot)), command]
    for entry in entries.values():
        for picture in entry.pictures:
            parts += [_sheet(picture), _command(ONE.format(study.name))]
    notes = dict.fromkeys(note for entry in entries.values() for note in entry.notes)
    return [*parts, *(_filled(f"Remark: {note}.") for note in notes)]


def figures_table(figures: Sequence[Figure], row: str = "figure") -> str:
    """``figures`` as Markdown, a column for each bundle's name; ``row`` is what the figures' names are."""
    columns, rows, num_words = comparison(figures)
    columns[num_words - 1] = row
    return table(columns, rows)


def plot_files(study: Study, figures: Sequence[Figure]) -> list[str]:
    """The names of a study's plots, in order."""
    return [f"{study.name}-plot-{k + 1}.png" for k in range(len(study.plots(figures)))]


def _against(findings: Findings, pictures: Path) -> list[str]:
    lead = (
        "Both are trained on the same images by the same recipe, and measured after the same numbers of "
        "images; the mean squared error is of DDIM there and back, with inferred and with random x_T. They "
        f"are trained on {TRAINING_IMAGES}."
    )
    if not findings.against:
        return [_filled(lead), f"Not measured: {AGAINST} is not in docs/figures.", _command(AGAINST_COMMAND)]
    command = _command(AGAINST_COMMAND)
    figures = [titled(figure) for figure in findings.against]
    parts = [_filled(lead), figures_table(figures), command]
    for name in AGAINST_PLOTS:
        file = f"{Path(AGAINST).stem}-{name}.png"
        if (pictures / file).exists():
            described = "MSE over the images seen" + (", with pretraining" if "pre" in name else "")
            parts += [f"![{described}](figures/{file})", command]
    return parts


def _sweep(findings: Findings) -> list[str]:
    lead = (
        f"Small {TITLES[LRDM]}s that differ in lambda alone: what z alone brings back, and how like images "
        f"samples from N(0, I) are. They are trained on {TRAINING_IMAGES} by the commands that "
        "benchmarks/lambda_sweep.py begins with, on one first stage: docs/training.md says which."
    )
    if not findings.sweep:
        return [_filled(lead), f"Not measured: {SWEEP}.json is not in docs/figures.", _command(SWEEP_COMMAND)]
    wanted = ("PSNR", "SSIM", "KD-", "FD-", "precision", "recall")
    figures = [without(f, "T", "prior") for f in findings.sweep if f.name.startswith(wanted)]
    return [_filled(lead), figures_table(figures), _command(SWEEP_COMMAND)]


def _commands(study: Study, entries: Mapping[str, Entry]) -> str:
    settings = dict(next(iter(entries.values())).key["settings"])
    by_size: dict[int, list[str]] = {}
    for name in entries:
        by_size.setdefault(image_size_of(name), []).append(_spec(name))
    found = dict.fromkeys(
        command
        for size, bundles in by_size.items()
        for command in study.commands(settings, bundles, FOLDERS.of_size(size))
    )
    batch = f" --batch-size {settings['batch_size']}"
    return _command(*(c + batch if c.startswith("rdm evaluate") else c for c in found))


def _spec(name: str) -> str:
    return f"{WORK}/{PLAIN}" if name == PLAIN else name


def _numbers(figures: Sequence[Figure]) -> str:
    few, many = min(f.num for f in figures), max(f.num for f in figures)
    return str(few) if few == many else f"{few} to {many}"


def _sheet(picture: Picture) -> str:
    told = f"{picture.caption}. Rows: {', '.join(picture.rows)}."
    return f"{_filled(told)}\n\n{_image(picture.file, picture.caption)}"


def _image(file: str, described: str) -> str:
    return f"![{described}]({PICTURES}/{file})"


def _described(plot: Plot) -> str:
    return f"{plot.y_label} over {plot.x_label}"


def _command(*commands: str) -> str:
    """The line below a figure."""
    return f"Reproduced by {' and '.join(f'`{command}`' for command in commands)}."


def _anchor(heading: str) -> str:
    """As GitHub and GitLab make them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _filled(text: str) -> str:
    """``text`` in lines, none of which ends within a command."""
    whole = re.sub(r"`[^`]*`", lambda found: found.group().replace(" ", "\0"), text)
    return textwrap.fill(whole, WIDTH, break_long_words=False, break_on_hyphens=False).replace("\0", " ")
