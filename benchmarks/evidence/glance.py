"""Which method to choose for what, and each bundle's figures in a few rows: both read off the findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from evidence.contenders import ALL, TITLES, WITH_Z, method_of
from evidence.few_shot import LIKE
from evidence.findings import Findings, NotMeasured, chosen
from evidence.rules import (
    EDIT_SCALE,
    FEW_STEPS,
    FULL_STEPS,
    SAMPLE_STEPS,
    SHOWS,
    as_good,
    edits,
    pooled,
    sample_distance,
    shown,
)
from rdm_cli.evaluation.attributes import MEAN
from rdm_cli.evaluation.figures import Figure

Figured = Callable[[Findings, str], Figure]


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something that a method is wanted for, and the figure that says how well each of ``who`` serves."""

    text: str
    by: str
    figure: Figured
    who: tuple[str, ...] = WITH_Z
    percent: bool = False


def _reconstruction(x_T: str, findings: Findings, who: str) -> Figure:
    return findings.one("reconstruction", who, "PSNR", x_T=x_T, T=FULL_STEPS)


def _probes(findings: Findings, who: str) -> Figure:
    return findings.one("attributes", who, "AUROC", attribute=MEAN, features="z")


def _shows(findings: Findings, who: str) -> Figure:
    return edits(findings, who)[0]


def _spares(findings: Findings, who: str) -> Figure:
    """What else edits change, of those whose edits show: what moves nothing spares all."""
    success, changed = edits(findings, who)
    if success.value < SHOWS:
        raise NotMeasured("its edits do not show")
    return changed


def _samples(steps: int, findings: Findings, who: str) -> Figure:
    return sample_distance(findings, who, steps)


def _own_samples(findings: Findings, who: str) -> Figure:
    steps = findings.own_steps("generation", who)
    return findings.one("generation", who, "KD-", prior="latent-ddim", T=steps)


def _examples(findings: Findings, who: str) -> Figure:
    return pooled(findings.all("few-shot", who, "share", given=LIKE))


def _way(findings: Findings, who: str) -> Figure:
    return findings.one("interpolation", who, "halfway", way="z and x_T")


NEEDS = (
    Need(
        text="bringing an image back from its whole code",
        by=f"PSNR, inferred x_T, T = {FULL_STEPS}",
        figure=partial(_reconstruction, "inferred"),
        who=ALL,
    ),
    Need(
        text="bringing it back from a small z alone",
        by=f"PSNR, random x_T, T = {FULL_STEPS}",
        figure=partial(_reconstruction, "random"),
    ),
    Need(text="features for a linear classifier", by="mean AUROC of probes", figure=_probes),
    Need(
        text="edits that show",
        by=f"success at scale ±{EDIT_SCALE:g}",
        figure=_shows,
        percent=True,
    ),
    Need(
        text="edits that show and spare the rest",
        by=f"other verdicts changed at scale ±{EDIT_SCALE:g}, of those that show in {100 * SHOWS:g} %",
        figure=_spares,
        percent=True,
    ),
    Need(text="samples as the bundle draws them", by="KD, its own prior and steps", figure=_own_samples),
    Need(
        text="samples, with time to spare",
        by=f"KD, T = {SAMPLE_STEPS}",
        figure=partial(_samples, SAMPLE_STEPS),
        who=ALL,
    ),
    Need(
        text="samples in a few steps",
        by=f"KD, T = {FEW_STEPS}",
        figure=partial(_samples, FEW_STEPS),
        who=ALL,
    ),
    Need(
        text="samples like a few examples",
        by="share that shows the attribute",
        figure=_examples,
        percent=True,
    ),
    Need(text="ways from image to image", by="KD of what lies halfway", figure=_way),
)
FACTS: tuple[tuple[str, str, Callable[[str], bool]], ...] = (
    (
        "no second model to sample from",
        "z is trained to be N(0, I)",
        lambda n: method_of(n).prior == "gaussian",
    ),
    ("an encoder for a diffusion model that you have", "it stays frozen", lambda n: _around(n) == "dpm"),
    (
        "large images at the cost of small ones",
        "it diffuses an autoencoder's latents",
        lambda n: _around(n) == "first-stage",
    ),
)


def choice(need: Need, findings: Findings) -> tuple[str, str, str]:
    """What is needed, whom to choose by the measured figures, and those figures."""
    found: dict[str, Figure] = {}
    for who in need.who:
        try:
            found[who] = need.figure(findings, who)
        except NotMeasured:
            continue
    if not found:
        return need.text, "not measured", f"{need.by}"
    sign = 1 if next(iter(found.values())).better == "higher" else -1
    order = sorted(found, key=lambda who: -sign * found[who].value)
    best, rest = order[0], order[1:]
    equal = [TITLES[who] for who in rest if as_good(found[who], found[best])]
    text = TITLES[best] + (f" (as good: {', '.join(equal)})" if equal else "")
    if len(found) == 1:
        text += " (nobody else was measured)"
    told = "; ".join(f"{TITLES[who]} {shown(found[who], percent=need.percent)}" for who in order)
    return need.text, text, f"{need.by}: {told}"


def choices(findings: Findings) -> list[tuple[str, str, str]]:
    """The table of what to choose: by figures, and by what the methods are."""
    rows = [choice(need, findings) for need in NEEDS]
    for text, why, serves in FACTS:
        rows.append((text, ", ".join(TITLES[n] for n in WITH_Z if serves(n)), why))
    return rows


def headline(findings: Findings, names: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """A few rows for bundles' cards and README, a column for each of ``names`` that was measured.

    Columns, which are empty where nothing was measured, and rows.
    """
    rows: dict[str, dict[str, str]] = {}
    for need in NEEDS:
        for who in names:
            try:
                figure = need.figure(findings, who)
            except NotMeasured:
                continue
            arrow = "↑" if figure.better == "higher" else "↓"
            label = f"{need.text}: {need.by} {arrow}"
            rows.setdefault(label, {})[who] = shown(figure, percent=need.percent)
    measured = [who for who in names if any(who in cells for cells in rows.values())]
    if not measured:
        return [], []
    table = [(label, *(cells.get(who, "-") for who in measured)) for label, cells in rows.items()]
    return [f"`{who}`" for who in measured], table


def swept(figures: Sequence[Figure]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The sweep of lambda in a row for each: header and rows, none where it was not run."""
    columns = {
        "PSNR, inferred x_T ↑": ("PSNR", {"x_T": "inferred"}),
        "PSNR, random x_T ↑": ("PSNR", {"x_T": "random"}),
        "FD ↓": ("FD", {}),
        "KD × 1000 ↓": ("KD", {}),
        "coverage ↑": ("coverage", {}),
    }
    rows = []
    for weight in sorted({float(f.condition["lambda"]) for f in figures}):
        found = [chosen(figures, name, **{"lambda": weight, **how}) for name, how in columns.values()]
        rows.append((f"{weight:g}", *(shown(f[0]) if f else "-" for f in found)))
    return ("λ", *columns), rows


def _around(name: str) -> str:
    pretrained = method_of(name).pretrained
    return "" if pretrained is None else pretrained.kind
