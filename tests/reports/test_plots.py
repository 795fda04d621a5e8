"""Plots: whatever the names, all of them are in the picture, and none lies over a curve."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("matplotlib")

from rdm_cli.reports.plots import INK, INK_ON_DARK, Line, Plot, _figure

NAMES = {
    "short": ["a", "b", "c", "d", "e"],
    "long": [f"bundle {i}, given examples and as many counter-examples" for i in range(9)],
    "mixed": ["pixels", "plain DPM: interpolation in the noise", "LRDM"],
}


@pytest.mark.parametrize("rows", [False, True], ids=["curves", "rows"])
@pytest.mark.parametrize("kind", NAMES)
def test_the_legend_is_whole_and_beside_the_axes(kind: str, rows: bool) -> None:
    line = Line(x=[0, 1], y=[0.2, 0.4], low=[0.1, 0.3], high=[0.3, 0.5])
    lines = {name: line for name in NAMES[kind]}
    plot = Plot(lines=lines, x_label="x", y_label="y", names=("one", "two") if rows else ())
    figure = _figure(plot, INK)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == NAMES[kind]
    box, whole = legend.get_window_extent(), figure.bbox
    assert box.x0 >= whole.x0 and box.x1 <= whole.x1 and box.y0 >= whole.y0
    (axes,) = figure.axes
    assert box.y1 <= axes.get_window_extent().y0
    assert axes.get_window_extent().height > whole.height / 4


def test_a_point_of_another_comparison_is_not_joined() -> None:
    line = Line(x=[0.0, 0.15, 0.3], y=[0.1, 0.4, 0.8], low=[0, 0.3, 0.7], high=[0.2, 0.5, 0.9], apart=(0.0,))
    (axes,) = _figure(Plot(lines={"a": line}, x_label="scale", y_label="success"), INK).axes
    joined = [drawn for drawn in axes.lines if drawn.get_linestyle() != "None"]
    assert [list(drawn.get_xdata()) for drawn in joined] == [[0.15, 0.3]]
    assert [list(drawn.get_xdata()) for drawn in axes.containers[0].lines[:1]] == [[0.0]]
    (band, *_) = axes.collections
    assert band.get_paths()[0].vertices[:, 0].min() == 0.15


def test_one_curve_that_the_axis_names_has_no_legend() -> None:
    line = Line(x=[0, 1], y=[0.2, 0.4], low=[0.1, 0.3], high=[0.3, 0.5])
    for name, legends in (("PPL", 0), ("Diff-AE", 1)):
        plot = Plot(lines={name: line}, x_label="way", y_label="PPL, lower is better")
        assert len(_figure(plot, INK).legends) == legends


@pytest.mark.parametrize(("y", "labels"), [([0.002, 0.006], 2), ([0.003, 30.0], 3), ([20.0, 60.0], 2)])
def test_every_number_beside_an_axis_is_a_number_in_the_ink_of_its_ground(
    y: list[float], labels: int
) -> None:
    """A logarithmic axis of less than a decade has its numbers at what matplotlib calls minor ticks."""
    line = Line(x=[0, 2_000_000], y=y, low=y, high=y)
    plot = Plot(lines={"a": line}, x_label="images", y_label="loss", log_y=True)
    figure = _figure(plot, INK_ON_DARK)
    figure.canvas.draw()
    (axes,) = figure.axes
    axis = axes.yaxis
    shown = [text for text in (*axis.get_majorticklabels(), *axis.get_minorticklabels()) if text.get_text()]
    assert len(shown) >= labels and {text.get_color() for text in shown} == {INK_ON_DARK}
    words = [text.get_text() for text in (*shown, *axes.get_xticklabels())]
    assert all(re.fullmatch(r"[\d.,\u2212-]+", word) for word in words), words  # 0.002 and 2,000,000
    assert "1,000,000" in words and axes.xaxis.get_offset_text().get_text() == ""
