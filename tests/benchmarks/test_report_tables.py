"""Tables of benchmarks find their place on a page, and a page without one is told of before anything runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import typer
from report_tables import markers, publish, refuse_unmarked

ROOT = Path(__file__).resolve().parents[2]
FILLED = {
    "coding_speed": "performance",
    "training_speed": "performance",
    "time_to_quality": "performance",
    "start_up": "performance",
    "solver_frontier": "performance",
    "inversion": "performance",
    "editing_inversions": "performance",
    "outside": "performance",
    "methods_speed": "training",
}


def test_tables_are_printed_and_take_their_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    begin, end = markers("coding_speed")
    other = "\n".join(markers("start_up"))
    page.write_text(f"# Title\n\n{begin}\nold\n{end}\n\n{other}\n", encoding="utf-8")
    refuse_unmarked(page, "coding_speed")
    for tables in ("| a |", "| b |"):
        publish(tables, page, "coding_speed")
        assert page.read_text(encoding="utf-8") == f"# Title\n\n{begin}\n\n{tables}\n\n{end}\n\n{other}\n"
    publish("| c |", None, "coding_speed")
    assert capsys.readouterr().out == "| a |\n| b |\n| c |\n"


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    refuse_unmarked(None, "coding_speed")
    page = tmp_path / "page.md"
    with pytest.raises(typer.BadParameter, match=r"page\.md"):
        refuse_unmarked(page, "coding_speed")
    page.write_text("\n".join(markers("start_up")), encoding="utf-8")
    with pytest.raises(typer.BadParameter, match=r"page\.md: the lines <!-- figures: .*coding_speed\.py -->"):
        refuse_unmarked(page, "coding_speed")


@pytest.mark.parametrize("script", FILLED)
def test_the_projects_pages_have_a_place_for_each_script(script: str) -> None:
    assert importlib.import_module(script).SCRIPT == script
    refuse_unmarked(ROOT / "docs" / f"{FILLED[script]}.md", script)
