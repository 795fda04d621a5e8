"""The page from figures made up for it; the project's page, README and cards in step with what is kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import report_tables
from evidence.contenders import ALL, DIFFAE, LRDM, PDAE, PLAIN, WITH_Z, Shelf
from evidence.findings import AGAINST, CHANGED, Findings, read_findings
from evidence.glance import NEEDS, choice
from evidence.page import page
from evidence.places import BEGIN, END, Place, places, quoted, refuse_unmarked
from evidence.store import Picture, Store
from evidence.studies import STUDIES

from rdm_cli.bundles.places import assets_folder
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.evaluation.figures import Figure

ROOT = Path(__file__).resolve().parent.parent.parent
Make = Callable[..., Figure]


@pytest.fixture
def some(figure: Make, findings_of: Callable[..., Findings]) -> Findings:
    """Reconstruction of Diff-AE and the plain DPM, training and a sweep; PDAE and LRDM are missing."""
    studies = {
        "reconstruction": [
            figure(who, name, value - (kind == "random"), 0.001, "higher", x_T=kind, T=100)
            for who, psnr, ssim, kinds in (
                (DIFFAE, 46.0, 0.998, ("inferred", "random")),
                (PLAIN, 24.0, 0.9, ("inferred",)),
            )
            for kind in kinds
            for name, value in (("PSNR", psnr), ("SSIM", ssim))
        ]
    }
    absent = {("reconstruction", n): f"bundle {n} is not shipped" for n in (PDAE, LRDM)}
    against = tuple(
        figure(who, "MSE", value, 0.1, "lower", **{"images seen": 10, "x_T": "inferred"})
        for who, value in ((DIFFAE, 2.0), (PDAE, 1.0))
    )
    found = findings_of(studies, absent=absent, against=against)
    entries = found.entries["reconstruction"]
    drawn = Picture(file="reconstruction-a.webp", caption="a sheet", rows=("image", "T=100"))
    settings = {"num": 50, "steps": [100], "batch_size": 40}
    for name, entry in entries.items():
        key = {**entry.key, "settings": settings}
        found.entries["reconstruction"][name] = replace(entry, key=key, pictures=(drawn,), seconds=90.0)  # type: ignore[index]
    return found


def test_the_page_says_what_was_found(some: Findings, tmp_path: Path) -> None:
    (tmp_path / f"{Path(AGAINST).stem}-training.png").touch()
    text = page(some, tmp_path)
    command = (
        f"rdm evaluate reconstruction {DIFFAE} runs/evidence/{PLAIN} runs/evidence/held-out "
        "-n 50 --steps 100 --batch-size 40"
    )
    assert text.count(f"Reproduced by `{command}`.") == 1  # below the table; one T draws no plot
    assert "| inferred | 100 | PSNR ↑ | 46 (46 to 46) | 24 (24 to 24) |" in text
    assert "PDAE: not measured: bundle avatars64-pdae is not shipped." in text
    assert "Measured in 3 minutes in all, on a machine." in text
    below = "Reproduced by `make evidence PART=reconstruction AGAIN=1`."
    assert f"![a sheet](figures/evidence/reconstruction-a.webp)\n\n{below}" in text
    assert "a sheet. Rows: image, T=100." in text
    assert "| Diff-AE | **holds** | SSIM" in text and "| 7a | PDAE reconstructs better" in text
    assert "figures/pdae-against-diffae-training.png" in text
    assert "training-and-pretraining" not in text
    assert "Not measured: lambda-sweep.json is not in docs/figures." in text
    # every picture and every table of figures has its command below
    parts = text.split("\n\n")
    for part, following in zip(parts, parts[1:], strict=False):
        if part.startswith("![") or (part.startswith("|") and "holds if" not in part):
            assert following.startswith("Reproduced by `"), part
    # links within the page lead somewhere
    anchors = {
        re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^## (.+)$", text, re.M)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    assert page(some, tmp_path) == text


def test_a_page_of_nothing_says_so(findings_of: Callable[..., Findings], tmp_path: Path) -> None:
    text = page(findings_of({}), tmp_path)
    assert "Nothing was measured yet." in text and "**holds**" not in text and "not measured" in text


def test_the_best_is_chosen_and_who_is_as_good(figure: Make, findings_of: Callable[..., Findings]) -> None:
    need = NEEDS[0]
    assert set(need.who) == set(ALL)

    def of(**values: float) -> Findings:
        names = {"diffae": DIFFAE, "pdae": PDAE, "plain": PLAIN}
        about = {"x_T": "inferred", "T": 100}
        return findings_of(
            {
                "reconstruction": [
                    figure(names[k], "PSNR", v, 1.0, "higher", **about) for k, v in values.items()
                ]
            }
        )

    assert choice(need, of(diffae=40.0, pdae=45.0, plain=20.0))[1] == "PDAE"
    text, chosen, why = choice(need, of(diffae=44.0, pdae=45.0, plain=20.0))
    assert chosen == "PDAE (as good: Diff-AE)"
    assert why.index("PDAE 45") < why.index("Diff-AE 44") < why.index("plain DPM 20")
    assert choice(need, of(plain=20.0))[1] == "plain DPM (nobody else was measured)"
    assert choice(need, of())[1] == "not measured"


def test_a_place_is_filled_and_known_to_be_in_step(some: Findings, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"# A\n\n{BEGIN}\nold\n{END}\n\nend\n")
    with pytest.raises(UsageError, match=r"missing"):
        (tmp_path / "assets/bundles" / DIFFAE).mkdir(parents=True)
        (tmp_path / "assets/bundles" / DIFFAE / "README.md").write_text("# no place\n")
        refuse_unmarked(tmp_path)
    (tmp_path / "assets/bundles" / DIFFAE / "README.md").write_text(f"{BEGIN}\n{END}\n")
    refuse_unmarked(tmp_path)
    found = list(places(some, tmp_path))
    assert [p.page.parent.name for p in found] == [tmp_path.name, DIFFAE]
    assert not any(p.is_in_step for p in found)
    for place in found:
        place.fill()
        assert place.is_in_step
    assert "whole code: PSNR, inferred x_T, T = 100 ↑ | 46 (46 to 46) |" in found[0].page.read_text()
    assert found[0].page.read_text().startswith("# A\n") and found[0].page.read_text().endswith("\n\nend\n")
    other = Place(page=found[0].page, begin=BEGIN, end=END, text=found[0].text.replace("46", "47"))
    assert not other.is_in_step


def test_a_cards_report_is_filled_too(findings_of: Callable[..., Findings], tmp_path: Path) -> None:
    card = tmp_path / "assets/bundles" / DIFFAE / "README.md"
    report = tmp_path / "docs/figures/bundle-report" / f"{DIFFAE}.json"
    for path in (card, report):
        path.parent.mkdir(parents=True)
    card.write_text(f"{report_tables.BEGIN}\n{report_tables.END}\n")
    figures = {"num_held_out": 1000, "precision": "fp32", "digest": "ab" * 32}
    report.write_text(json.dumps(figures | {"swapped": {"500": {"own": 0.5, "swapped": 1.0, "ratio": 2.0}}}))
    (place,) = places(findings_of({}), tmp_path)
    assert not place.is_in_step
    place.fill()
    assert place.is_in_step and "| 500 | 0.5000 | 1.0000 | 2.0 |" in card.read_text()
    report.write_text("{}")
    with pytest.raises(RdmError, match="no figures of benchmarks/bundle_report.py"):
        list(places(findings_of({}), tmp_path))


def test_the_readme_has_a_column_for_each_report(
    findings_of: Callable[..., Findings], tmp_path: Path
) -> None:
    reports = tmp_path / "docs/figures/bundle-report"
    reports.mkdir(parents=True)
    ways = {"whole code, exact in 5": 200.0, "z alone, random x_T, ddim in 1": 40.0}
    pictures = ("other images", "their z, random x_T", "halfway from one to another", "samples of the prior")
    for i, name in enumerate(WITH_Z):
        assert len(list(places(findings_of({}), tmp_path))) == min(i, 1)  # who has no report has no column
        figures: dict[str, Any] = {
            "own way": {way: {"psnr_db": quality - 100 * (i == 2)} for way, quality in ways.items()},
            "distances": {of: {"kd": 7.0 + i, "low": 6.0, "high": 9.5} for of in pictures},
            "probes": {attribute: {"auroc": 0.9 + i / 100} for attribute in report_tables.PROBED},
        }
        if i != 2:
            figures["edits"] = {"+0.3": dict.fromkeys(report_tables.PROBED, 0.8 + i / 1000)}
        (reports / f"{name}.json").write_text(json.dumps(figures))
    readme = tmp_path / "README.md"
    readme.write_text(f"{report_tables.BEGIN}\n{report_tables.END}\n")
    (place,) = places(findings_of({}), tmp_path)
    place.fill()
    assert place.is_in_step and place.page == readme
    text = readme.read_text()
    assert "| PSNR (dB), whole code | exact | exact | 100.0 |" in text
    assert "| KD × 1000 of samples | 7.0 (6.0 to 9.5) | 8.0 (6.0 to 9.5) | 9.0 (6.0 to 9.5) |" in text
    assert "scale 0.3` changes | 80.0 % | 80.1 % | - |" in text


def test_the_sweep_is_a_row_for_each_lambda(
    figure: Make, findings_of: Callable[..., Findings], tmp_path: Path
) -> None:
    page = tmp_path / "docs" / "training.md"
    page.parent.mkdir()
    begin, end = report_tables.markers("lambda_sweep")
    page.write_text(f"{begin}\n{end}\n")
    sweep = [
        figure(LRDM, name, value, 0.1, "lower", **{"lambda": weight, **how})
        for weight, start in ((1e-3, 20.0), (1e-5, 30.0))
        for name, value, how in (
            ("PSNR", start, {"x_T": "inferred"}),
            ("PSNR", start - 5, {"x_T": "random"}),
            ("KD-EffNet", 7.0, {}),
        )
    ]
    (place,) = places(findings_of({}, sweep=tuple(sweep)), tmp_path)
    place.fill()
    rows = [line.split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")][2:]
    assert [[cell.split(" (")[0].strip("| ") for cell in row] for row in rows] == [
        ["1e-05", "30", "25", "-", "7", "-"],
        ["0.001", "20", "15", "-", "7", "-"],
    ]


def test_figures_of_another_bundle_are_not_quoted(findings_of: Callable[..., Findings]) -> None:
    assert quoted(findings_of({}), WITH_Z) == ""
    changed = findings_of({}, absent={("edits", DIFFAE): f"bundle {DIFFAE} {CHANGED}"})
    assert quoted(changed, (DIFFAE,)) == f"Not measured: bundle {DIFFAE} {CHANGED}."
    assert quoted(changed, (PDAE,)) == ""


@pytest.fixture(scope="module")
def findings() -> Findings:
    """What the project has kept of the bundles that it ships."""
    shelf = Shelf(bundles=assets_folder() / "bundles", work=ROOT / "runs", batch_size=1)
    figures = ROOT / "docs" / "figures"
    return read_findings(Store(folder=figures / "evidence"), shelf, list(STUDIES.values()), figures)


def test_the_projects_page_is_in_step(findings: Findings) -> None:
    text = (ROOT / "docs" / "evidence.md").read_text(encoding="utf-8")
    assert text == page(findings, ROOT / "docs" / "figures"), "run: make evidence PART=page"
    for target in re.findall(r"\]\((figures/[^)]+\.(?:png|webp))\)", text):
        assert (ROOT / "docs" / target).exists(), target


def test_readme_and_cards_are_in_step(findings: Findings) -> None:
    refuse_unmarked(ROOT)
    for place in places(findings, ROOT):
        assert place.is_in_step, f"{place.page}: run: make evidence PART=page"
