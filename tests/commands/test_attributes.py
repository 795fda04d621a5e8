"""rdm attributes: what a bundle can move, with scores and relations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle

Rdm = Callable[..., Any]


def test_list(tiny: Rdm) -> None:
    objects = tiny("attributes", "list", "--json").objects
    assert [o["attribute"] for o in objects] == ["smiling", "glasses", "hat"]
    assert objects[0] == {
        "attribute": "smiling", "auroc": 0.9, "average_precision": 0.8, "num_positive": 5, "num_labelled": 10,
    }  # fmt: skip
    table = tiny("attributes", "list")
    assert table.code == 0 and table.err == ""
    (row,) = [line for line in table.lines if line.startswith("smiling")]
    assert row.split() == ["smiling", "0.9000", "0.8000", "5"]
    (row,) = [line for line in table.lines if line.startswith("hat")]
    assert row.split() == ["hat", "-", "-", "-"]  # no scores are stored for it


def test_an_attribute_that_was_hardly_learned_is_named_where_it_is_listed_and_used(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "weak"))
    stored = folder / "attributes" / "attributes.json"
    values = json.loads(stored.read_text())
    values["scores"]["smiling"]["auroc"] = 0.39
    stored.write_text(json.dumps(values))
    told = "rdm: attribute 'smiling' was hardly learned: AUROC 0.39"
    for words in (
        ("attributes", "list"),
        ("attributes", "list", "--json"),
        ("attributes", "show", "smiling"),
        ("manipulate", faces / "a.png", "--attr", "smiling", "--steps", 1, "-o", tmp_path / "o", "-q"),
        ("sample", "-n", 1, "--attr", "smiling", "--steps", 1, "-o", tmp_path / "s", "-q"),
    ):
        result = rdm(*words, "-b", folder)
        assert result.code == 0
        assert [line for line in result.err.splitlines() if line.startswith(told)], words
    spared = ("manipulate", faces / "a.png", "--attr", "glasses", "--steps", 1, "-o", tmp_path / "p")
    assert "hardly learned" not in rdm(*spared, "-b", folder).err


def test_show(tiny: Rdm, tiny_bundle: Path) -> None:
    (shown,) = tiny("attributes", "show", "smiling", "--json").objects
    w = open_bundle(str(tiny_bundle)).directions.weight
    for i, name in ((1, "glasses"), (2, "hat")):
        expected = float(torch.nn.functional.cosine_similarity(w[0], w[i], dim=0))
        assert shown["related"][name] == pytest.approx(expected, abs=1e-5)
    (shown,) = tiny("attributes", "show", "smiling", "--top", 1, "--json").objects
    assert len(shown["related"]) == 1
    text = tiny("attributes", "show", "hat")
    assert text.code == 0 and "cosine with smiling" in text.out
