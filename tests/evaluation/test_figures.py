"""Figures as rows of a table, as JSON and as lines of a plot."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from rdm_cli.evaluation.figures import Evaluation, Figure, curves, mean_figure, rows_of_points
from rdm_cli.evaluation.report import (
    comparison,
    figure_from,
    figure_record,
    provenance,
    record,
    save_json,
)


def figure(bundle: str, t: int, value: float, kind: str = "z") -> Figure:
    how = {"x_T": kind, "T": t}
    return Figure(bundle=bundle, name="PSNR", value=value, num=5, condition=how, unit="dB", better="higher")


FIGURES = [figure("a", 10, 1.0), figure("a", 5, 2.0), figure("b", 5, 3.0), figure("b", 5, 4.0, "x")]


def test_bundles_stand_side_by_side() -> None:
    columns, rows, num_words = comparison(FIGURES)
    assert columns == ["x_T", "T", "figure", "a", "b"] and num_words == 3
    assert rows == [
        ["z", "10", "PSNR (dB) ↑", "1", "-"],
        ["z", "5", "PSNR (dB) ↑", "2", "3"],
        ["x", "5", "PSNR (dB) ↑", "-", "4"],
    ]


def test_a_mean_has_an_interval_where_there_can_be_one() -> None:
    found = mean_figure(torch.tensor([1.0, 2.0, 3.0]), seed=0, bundle="a", name="MSE")
    assert found.interval is not None and found.interval.low < 2.0 < found.interval.high
    assert found.num == 3 and found.cell.startswith("2 (")
    perfect = mean_figure(torch.tensor([math.inf, 3.0]), seed=0, bundle="a", name="PSNR")
    assert perfect.value == math.inf and perfect.interval is None and perfect.cell == "inf"
    none = mean_figure(torch.zeros(4), seed=0, bundle="a", name="others changed", bounds=(0.0, 1.0))
    assert none.cell == "0 (0 to 0.5271)" and figure_record(none)["interval"] == "rule of three"
    same = mean_figure(torch.zeros(4), seed=0, bundle="a", name="LPIPS")  # how far it may reach is not known
    assert same.interval is None and same.cell == "0"
    alone = mean_figure(torch.tensor([4.0]), seed=0, bundle="a", name="MSE")
    assert alone.value == 4.0 and alone.interval is None


def test_lines_run_over_a_condition_in_its_order() -> None:
    plot = curves(FIGURES, "PSNR", "T")
    assert plot is not None and list(plot.lines) == ["a, x_T z"]  # the others have one point
    assert plot.lines["a, x_T z"].x == [5.0, 10.0] and plot.lines["a, x_T z"].y == [2.0, 1.0]
    assert curves(FIGURES, "SSIM", "T") is None and curves(FIGURES, "PSNR", "scale") is None
    beside = curves(FIGURES, "PSNR", "T", apart=(5.0,))
    assert beside is not None and beside.lines["a, x_T z"].apart == (5.0,)
    rows = rows_of_points(FIGURES, "PSNR", "x_T")
    assert rows is not None and rows.names == ("z", "x") and rows.lines["b, T 5"].x == [0.0, 1.0]


def test_provenance_is_told_once_for_each_way() -> None:
    with_network = [
        Figure(bundle="a", name="FD", value=1.0, num=n, computed_with={"sha256": "ab" * 32}) for n in (7, 9)
    ]
    assert provenance(with_network, digits=4) == [["FD", "n 7 to 9, sha256 abab"]]
    assert provenance(FIGURES) == [["PSNR", "n 5"]]
    other = Figure(bundle="a", name="SSIM", value=1.0, num=5)
    assert provenance([*FIGURES, other]) == [["PSNR, SSIM", "n 5"]]


def test_json_says_what_a_figure_depends_on(tmp_path: Path) -> None:
    evaluation = Evaluation(
        name="reconstruction",
        lead="",
        settings={"seed": 3},
        bundles={"a": {"digest": "da"}, "b": {"digest": "db"}},
        figures=[*FIGURES, Figure(bundle="a", name="PSNR", value=math.inf, num=1)],
        notes=["n"],
    )
    first = record(evaluation, FIGURES[0])
    assert first["bundle_digest"] == "da" and first["settings"] == {"seed": 3} and first["low"] is None
    save_json(evaluation, tmp_path / "x.json")
    content = json.loads((tmp_path / "x.json").read_text())
    assert content["figures"][-1]["value"] is None and content["figures"][0]["condition"]["T"] == 10
    assert content["notes"] == ["n"] and content["settings"] == {"seed": 3}


def test_a_figure_comes_back_from_json() -> None:
    about = {"seed": 0, "bundle": "a", "name": "MSE", "computed_with": {"T": 3}}
    few, many = (mean_figure(torch.arange(float(num)), **about) for num in (3, 40))
    assert [figure_record(one)["interval"] for one in (few, many)] == ["Student's t", "bootstrap"]
    for one in (few, many, FIGURES[0]):
        assert figure_from(json.loads(json.dumps(figure_record(one)))) == one
    lost = figure_from(figure_record(mean_figure(torch.tensor([math.inf]), seed=0, bundle="a", name="PSNR")))
    assert math.isnan(lost.value) and lost.interval is None
