"""A run's page: what it shows of a log, and that a run writes it with its sheets."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from rdm_cli.reports import plots
from rdm_cli.training.run.page import FILE_NAME, loss_plot, spread, swapped_plot, write_run_page


def run_folder(folder: Path, *, num_steps: int, sheets: tuple[int, ...] = ()) -> Path:
    """What a run leaves."""
    (folder / "sheets").mkdir(parents=True)
    records = [
        {
            "step": k, "num_images": 8 * k, "loss": 1.0 / k, "lr": 0.0, "images_per_second": 10.0,
            "seconds_left": 0.0, "elapsed_seconds": 0.8 * k, "fraction": k / num_steps,
        }
        for k in range(1, num_steps + 1)
    ]  # fmt: skip
    lines = [json.dumps(record) for record in records]
    (folder / "log.jsonl").write_text("\n".join([*lines, '{"step": 9, "lo']))
    told: list[dict[str, Any]] = []
    for step in sheets:
        Image.new("RGB", (40, 20), (step % 256, 0, 0)).save(folder / "sheets" / f"{step:07d}.png")
        swapped = {"100": [1.0, 1.0 + step / 100], "900": [2.0, 2.0]}
        told.append({"step": step, "sheet": f"{step:07d}.png", "swapped_z": swapped})
    (folder / "diagnostics.jsonl").write_text("".join(json.dumps(t) + "\n" for t in told))
    return folder


def test_the_loss_is_the_mean_of_stretches() -> None:
    plot = loss_plot([(8 * k, float(k % 2)) for k in range(1, 3001)])
    assert plot is not None and not plot.log_y
    ((name, line),) = plot.lines.items()
    assert "mean of 20 steps" in name and len(line.x) == 150 and line.x[-1] == 24000
    assert set(line.y) == {0.5} and set(line.low) == {0.0} and set(line.high) == {1.0}
    few = loss_plot([(8, 2.0), (16, float("nan")), (24, 1.0)])
    assert few is not None and few.lines["loss"].y == [2.0, 1.0] and few.log_y
    assert loss_plot([(8, 2.0)]) is None


def test_swapped_z_as_ratios() -> None:
    told = [{"step": s, "swapped_z": {"100": [1.0, s], "900": [0.0, 1.0]}} for s in (2, 4)]
    plot = swapped_plot(told)
    assert plot is not None and list(plot.lines) == ["t=100"] and plot.lines["t=100"].y == [2.0, 4.0]
    assert swapped_plot(told[:1]) is None and swapped_plot([{"step": 1, "swapped_z": {}}] * 2) is None


@pytest.mark.parametrize("num", [1, 12, 13, 100])
def test_sheets_are_spread_over_the_run(num: int) -> None:
    shown = spread(list(range(num)), 12)
    assert len(shown) == min(num, 12) and shown[0] == 0 and shown[-1] == num - 1
    assert len(set(shown)) == len(shown)


def test_the_page_has_all_of_it(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "run", num_steps=40, sheets=tuple(range(1, 31)))
    path = write_run_page(folder, name="my <bundle>", facts={"command": "rdm train & more"})
    html = path.read_text(encoding="utf-8")
    assert path.name == FILE_NAME and "training my &lt;bundle&gt;" in html and "rdm train &amp; more" in html
    assert html.count('alt="sheet of pictures at step') == 12 and "12 of 30 sheets" in html
    assert html.index("step 30<") < html.index("step 1<")  # the last one first
    assert html.count("<picture>") == 2 and "images a second" in html


def test_without_matplotlib_it_has_the_plots_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "can_plot", lambda: False)
    folder = run_folder(tmp_path / "run", num_steps=4000, sheets=(2000, 4000))
    html = write_run_page(folder, name="x", facts={}).read_text()
    assert html.count("<picture>") == 2 and "at step 4000" in html
    encoded = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', html)
    loss, swapped = (base64.b64decode(one).decode() for one in encoded)
    for text in ("Training loss", "images seen", ">loss<", ">10,000<", ">0.01<", "middle 80 %"):
        assert text in loss, text
    assert ">t=100<" in swapped and ">ratio<" in swapped
    ElementTree.fromstring(loss)  # well formed
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "No step is logged yet" in write_run_page(empty, name="x", facts={}).read_text()
