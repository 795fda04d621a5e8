"""Counterfactuals beside labelled images: what is to be made, and what becomes of the folder."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.record import read_record
from rdm_cli.errors import OccupiedError, UsageError
from rdm_cli.jobs.augment import Result, labelled_images, needs, plan_augmentation, refuse_names
from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline

NUM = 12


@pytest.mark.parametrize("num_names", [1, 2, 3])
def test_what_is_made_leaves_attributes_independent(num_names: int) -> None:
    generator = torch.Generator().manual_seed(num_names)
    label = torch.rand(2000, generator=generator) < 0.3
    shows = torch.rand(2000, num_names, generator=generator) < torch.where(label, 0.9, 0.2)[:, None]
    cells = Counter((bool(y), tuple(a)) for y, a in zip(label, shows.tolist(), strict=True))
    for need in needs(label, shows, seed=0):
        assert sum(map(len, need.sources.values())) >= need.num > 0
        assert need.cell not in need.sources
        for cell, rows in need.sources.items():
            assert all(bool(label[i]) == need.label and tuple(shows[i].tolist()) == cell for i in rows)
        cells[need.label, need.cell] += need.num
    totals = {value: sum(num for (y, _), num in cells.items() if y == value) for value in (False, True)}
    for combination in {cell for _, cell in cells}:
        without, having = (cells[value, combination] / totals[value] for value in (False, True))
        assert without == pytest.approx(having, abs=0.003)  # but for rounding to whole pictures


def test_nothing_is_made_where_nothing_goes_with_the_label() -> None:
    label = torch.arange(40) % 2 > 0
    rare = (torch.arange(40) // 2 % 10 == 0)[:, None]  # two of either twenty
    assert needs(label, rare, seed=0) == [] == needs(label, torch.zeros(40, 1).bool(), seed=0)
    (more, fewer) = needs(label, torch.where(label, rare[:, 0], torch.arange(40) % 8 == 0)[:, None], seed=0)
    assert {(more.label, more.cell), (fewer.label, fewer.cell)} == {(False, (False,)), (True, (True,))}
    assert (more.num, fewer.num) == (3, 3)  # of 5 in 20 and 2 in 20, to 5 in 23
    with pytest.raises(UsageError, match="the same label"):
        needs(torch.ones(3).bool(), torch.zeros(3, 1).bool(), seed=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve images; of the last one nobody knows the label."""
    rows = ["file_name,tall,hat,note"]
    (tmp_path / "faces" / "sub").mkdir(parents=True)
    for i in range(NUM):
        name = f"{'sub/' if i == 3 else ''}{i:02d}.png"
        Image.new("RGB", (16, 16), (20 * i, 90, 90)).save(tmp_path / "faces" / name)
        rows.append(f"{name},{i % 2 if i < NUM - 1 else ''},{int(i % 4 > 1)},words")
    (tmp_path / "labels.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "faces"


@pytest.fixture
def pipeline(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    """The tiny bundle, which sees glasses in odd images and in 02; edits of images in ``failing`` fail."""
    opened = open_pipeline(tiny_bundle)
    calls: list[tuple[list[int], dict[str, bool]]] = []
    failing: set[int] = set()

    def number(source: Any) -> int:
        return int(Path(source).stem)

    def encode(self: Pipeline, images: list[Path], **_: Any) -> Any:
        numbers = list(map(number, images))
        directions = self.bundle.directions
        shows = torch.tensor([[0.0, float(i % 2 or i == 2), 0.0] for i in numbers])
        z = (4 * shows - 2.0) @ torch.linalg.pinv(directions.weight).T
        return SimpleNamespace(z=z, numbers=numbers)

    def edit(self: Pipeline, codes: Any, wanted: Mapping[str, bool], **_: Any) -> Any:
        calls.append((codes.numbers, dict(wanted)))
        holds = torch.tensor([i not in failing for i in codes.numbers])
        pictures = torch.stack([torch.full((3, 16, 16), i / NUM) for i in codes.numbers])
        kept = torch.tensor([i != 5 for i in codes.numbers])
        return SimpleNamespace(pictures=pictures, holds=holds, kept=kept)

    monkeypatch.setattr(Pipeline, "encode", encode)
    monkeypatch.setattr(Pipeline, "edit", edit)
    monkeypatch.setattr(Codes, "select", lambda *_: None)
    opened.bundle.__dict__["calls"], opened.bundle.__dict__["failing"] = calls, failing
    yield opened


def carried_out(pipeline: Pipeline, folder: Path, **how: Any) -> Result:
    images = labelled_images(folder, folder.parent / "labels.csv", "tall")
    return plan_augmentation(pipeline, images, ["glasses"], "tall", folder.parent / "out", **how).carry_out()


def test_a_folder_is_filled_until_the_label_says_nothing(pipeline: Pipeline, folder: Path) -> None:
    # without the label: 00 to 10, one of them with glasses; with it: 01 to 09, all with glasses
    pipeline.bundle.__dict__["failing"].add(7)
    result = carried_out(pipeline, folder)
    assert result.before == {"glasses": (pytest.approx(1 / 6), 1.0)}
    assert (result.num_images, result.num_needed) == (11, 9)
    # of five tall ones, 07 failed and 05 changed otherwise: images ran out
    assert (result.num_made, result.num_short) == (8, 1)
    assert sum(result.left_out.values()) == 2 and len(result.left_out) == 2
    assert result.after == {"glasses": (pytest.approx(6 / 11), pytest.approx(5 / 8))}
    out = folder.parent / "out"
    with (out / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 19 and all((out / row["file_name"]).is_file() for row in rows)
    made = [row for row in rows if row["counterfactual_of"]]
    assert Counter(row["edits"] for row in made) == {"glasses=yes": 5, "glasses=no": 3}
    (one,) = [row for row in made if row["counterfactual_of"] == "sub/03.png"]
    wanted = {"file_name": "sub/03-glasses=no.png", "tall": "1", "hat": "1", "glasses": "0"}
    assert one == {**wanted, "counterfactual_of": "sub/03.png", "edits": "glasses=no"}
    record = read_record(out / "sub/03-glasses=no.png")
    assert record is not None and record["source"] == "sub/03.png" and record["edits"] == [{"glasses": False}]
    with Image.open(folder / "04.png") as source, Image.open(out / "04.png") as copy:
        assert source.tobytes() == copy.tobytes()
    lines = [json.loads(line) for line in (out / "left-out.jsonl").read_text().splitlines()]
    assert {line["record"]["source"] for line in lines} == {"07.png", "05.png"}


def test_it_goes_on_where_it_stopped(pipeline: Pipeline, folder: Path) -> None:
    calls, out = pipeline.bundle.__dict__["calls"], folder.parent / "out"
    first = carried_out(pipeline, folder)
    table = (out / "metadata.csv").read_bytes()
    (out / "metadata.csv").unlink()
    (out / "01-glasses=no.png").unlink()
    with (out / "left-out.jsonl").open("a") as file:
        file.write('{"why": "half a li')  # as a kill leaves it
    calls.clear()
    again = carried_out(pipeline, folder)
    assert calls == [([1], {"glasses": False})]
    assert (again.num_made, again.num_known) == (1, first.num_made - 1)
    assert again.left_out == first.left_out and (out / "metadata.csv").read_bytes() == table


def test_nothing_of_others_is_overwritten(pipeline: Pipeline, folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    (out / "metadata.csv").write_text("file_name,tall\n")
    with pytest.raises(OccupiedError, match="with other labels"):
        carried_out(pipeline, folder)
    (out / "metadata.csv").unlink()
    Image.new("RGB", (16, 16)).save(out / "04.png")
    with pytest.raises(OccupiedError, match="another picture"):
        carried_out(pipeline, folder)
    (out / "04.png").unlink()
    carried_out(pipeline, folder)
    with pytest.raises(OccupiedError, match="made otherwise"):
        carried_out(pipeline, folder, seed=1)


def test_what_cannot_be_balanced_is_refused(pipeline: Pipeline, folder: Path) -> None:
    with pytest.raises(UsageError, match="no attribute named 'nosuch'"):
        refuse_names(pipeline, "tall", ["nosuch"])
    with pytest.raises(UsageError, match="independent of itself"):
        refuse_names(pipeline, "hat", ["hat"])
    shipped = open_pipeline()
    with pytest.raises(UsageError, match="hat rules out or hides black_hair, which could not stay"):
        refuse_names(shipped, "black_hair", ["hat"])
    with pytest.raises(UsageError, match="no picture could show both"):
        refuse_names(shipped, "smiling", ["glasses", "sunglasses"])
    with pytest.raises(UsageError, match="no label named 'nosuch'"):
        labelled_images(folder, folder.parent / "labels.csv", "nosuch")


def test_images_and_columns_that_do_not_count_are_told(folder: Path) -> None:
    images = labelled_images(folder, folder.parent / "labels.csv", "tall")
    assert len(images.items) == NUM - 1 and images.label.sum() == 5
    told = "\n".join(images.notes)
    assert "1 images are left out" in told and "note (line 2 says neither yes nor no" in told
