"""rdm evaluate edit --truth and rdm data avatars --counterfactuals, on faces of which the truth is known."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rdm_cli.data.avatars import write_avatars

Rdm = Callable[..., Any]
SEED = 5


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 80 avatars of 16 px."""
    folder = tmp_path_factory.mktemp("drawn")
    list(write_avatars(folder, num_images=80, size=16, seed=SEED, workers=1))
    return folder


@pytest.mark.usefixtures("one_round", "short_judge")
@pytest.mark.long
def test_every_way_is_measured_on_both_sides(
    rdm: Rdm, tiny_bundle: Path, drawn: Path, tmp_path: Path
) -> None:
    out, sheets = tmp_path / "out", tmp_path / "sheets"
    words = ("evaluate", "edit", tiny_bundle, drawn, "--truth", SEED, "-n", 3, "--attr", "smiling")
    more = ("--editor", "target", "--editor", "direction", "--editor", "abduct", "--sheets", sheets)
    done = rdm(*words, *more, "-o", out)
    assert done.code == 0, done.err
    assert "the editor abduct is left out" in done.err
    report = json.loads((out / "edit.json").read_text())
    assert report["settings"]["avatars_seed"] == SEED and report["settings"]["editors"]
    found: dict[tuple[str, str], dict[str, float]] = {}
    for figure in report["figures"]:
        how = figure["condition"]
        if how.get("attribute") == "smiling" and "by" in how:
            found.setdefault((how["edit"], how["by"]), {})[figure["figure"]] = figure["value"]
    ways = {"unedited", "blend", "scale 0.3", "target", "direction", "oracle"}
    assert {way for _, way in found} - {"real faces", "abduct"} == ways  # abduct: where it has nothing to do
    for side in ("added", "removed"):
        for way in ways:
            figures = found[side, way]
            assert {"landed", "others changed", "PSNR", "PSNR inside"} <= set(figures)
            assert 0 <= figures["landed"] <= 1 and figures["PSNR"] > 0
        # the picture as it was shows nothing of the change, and is the truth wherever nothing is to change
        assert found[side, "unedited"].get("success", 0.0) == 0 == found[side, "unedited"]["others changed"]
        assert "PSNR outside" not in found[side, "unedited"] and "PSNR outside" in found[side, "blend"]
    assert any(f["condition"].get("attribute") == "all" for f in report["figures"])
    page = (out / "edit.html").read_text()
    assert "tiny: smiling added by target, worst first" in page and "nearest truth" in page
    names = {path.name for path in sheets.iterdir() if "abduct" not in path.name}
    assert len(names) == 4 and "tiny-smiling-added-target.png" in names
    with Image.open(sheets / "tiny-smiling-added-target.png") as sheet:
        assert sheet.height > 3 * 96  # before, after, nearest truth


def test_the_images_must_be_the_avatars_of_that_seed(
    rdm: Rdm, tiny_bundle: Path, drawn: Path, faces: Path, tmp_path: Path
) -> None:
    other = rdm("evaluate", "edit", tiny_bundle, drawn, "--truth", SEED + 1)
    assert other.code == 2 and f"not the face of that number of seed {SEED + 1}" in other.err
    assert f"rdm data avatars FOLDER --seed {SEED + 1}" in other.err
    (faces / "metadata.csv").write_text("file_name,smiling\na.png,1\nb.png,0\nc.png,1\n")
    none = rdm("evaluate", "edit", tiny_bundle, faces, "--truth", SEED)
    assert none.code == 2 and "not called as a drawn face is" in none.err
    large = tmp_path / "large"
    list(write_avatars(large, num_images=20, size=32, seed=SEED, workers=1))
    size = rdm("evaluate", "edit", tiny_bundle, large, "--truth", SEED)
    assert size.code == 2 and "as it is drawn 16 pixels wide, which tiny works on" in size.err


def test_options_that_do_not_go_together(rdm: Rdm, tiny_bundle: Path, drawn: Path) -> None:
    words = ("evaluate", "edit", tiny_bundle, drawn)
    for more in (("--editor", "target"), ("--sheets", "there")):
        alone = rdm(*words, *more)
        assert alone.code == 2 and "--editor and --sheets go with --truth" in alone.err
    for more in (("--scales", "0.3"), ("--steps", 5)):
        both = rdm(*words, "--truth", SEED, *more)
        assert both.code == 2 and "--scales and --steps do not go with --truth" in both.err
    editor = rdm(*words, "--truth", SEED, "--editor", "targets")
    assert editor.code == 2 and "did you mean 'target'" in editor.err
    attribute = rdm(*words, "--truth", SEED, "--attr", "smilin")
    assert attribute.code == 2 and "no attribute named 'smilin'" in attribute.err


def test_counterfactuals_are_drawn_beside_their_faces(rdm: Rdm, tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    words = ("data", "avatars", folder, "--counterfactuals", "beard", "--size", 16, "--workers", 1)
    done = rdm(*words, "--n", 2, "--seed", SEED, "--json")
    assert done.code == 0
    with (folder / "counterfactuals.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [one["output"] for one in done.objects[:-1]] == [str(folder / row["file_name"]) for row in rows]
    assert done.objects[-1] == {"output": str(folder / "counterfactuals.csv"), "kind": "labels"}
    assert sum(not row["counterfactual_of"] for row in rows) == 2
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    again = rdm(*words, "--n", 2, "--seed", SEED)
    assert again.code == 0 and {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    other = rdm(*words, "--n", 2, "--seed", SEED + 1)
    assert other.code == 1 and "counterfactuals.csv: is there already, with other pictures" in other.err
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    unknown = rdm("data", "avatars", tmp_path / "none", "--counterfactuals", "beards")
    assert unknown.code == 2 and "did you mean 'beard'" in unknown.err and not (tmp_path / "none").exists()
