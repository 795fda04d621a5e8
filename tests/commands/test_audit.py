"""rdm audit and rdm augment: what is refused before any work, and where reports go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.evaluation.moved import Moved, MovedFaces

Rdm = Callable[..., Any]


@pytest.fixture
def score(tmp_path: Path) -> Path:
    """A program that gives every picture the same score."""
    path = tmp_path / "score"
    path.write_text("#!/bin/sh\nwhile read -r picture; do echo 0.5; done\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{faces}",), "a model and a folder expected, not 1 words"),
        (("--command", "{score}", "{faces}", "x"), "a folder expected, not 2 words"),
        (("--command", "{score}", "{faces}", "--label", "hat"), "--label goes with --labels"),
        (("--command", "{score}", "{faces}", "--target", "hat", "--labels", "t.csv"), "give one of them"),
        (("--command", "{score}", "{faces}", "--attr", "beard"), "no attribute named 'beard'"),
        (("--command", "{score}", "{faces}", "--class", "red"), "there is no class 'red'"),
    ],
)
def test_what_contradicts_itself_is_told_before_any_work(
    tiny: Rdm, faces: Path, score: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    named = [word.format(faces=faces, score=score) for word in words]
    done = tiny("audit", *named, "-o", tmp_path / "out")
    assert done.code == 2 and said in done.err, done.err
    assert not (tmp_path / "out").exists()


def test_each_model_has_a_report_of_its_own(
    tiny: Rdm, faces: Path, score: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    def moved(self: MovedFaces, name: str, *_: Any, **__: Any) -> Moved:
        rows = torch.arange(5)
        picture, yes = torch.zeros(5, 3, 16, 16).byte(), torch.ones(5).bool()
        return Moved(name=name, rows=rows, added=yes, before=picture, after=picture, holds=yes, kept=yes)

    monkeypatch.setattr(MovedFaces, "moved", moved)
    other = score.with_name("other")
    other.write_bytes(score.read_bytes())
    other.chmod(0o755)
    for program in (score, other):
        done = tiny("audit", "--command", program, faces, "--directions", 0, "-o", tmp_path / "out")
        assert done.code == 0, done.err
        assert "fewer than 8 edits count" in done.err and "not seen: Only these were moved" in done.err
    assert len(list((tmp_path / "out").glob("*/audit.html"))) == 2
    place = next((tmp_path / "out").glob("*score/audit.html"))
    place.write_text("somebody's")
    done = tiny("audit", "--command", score, faces, "--directions", 0, "-o", tmp_path / "out")
    assert done.code == 1 and "rdm did not make it" in done.err and place.read_text() == "somebody's"


def test_a_folder_is_not_augmented_into_itself(tiny: Rdm, faces: Path) -> None:
    words = ("augment", faces, "--labels", "t.csv", "--label", "tall")
    done = tiny(*words, "--balance", "hat", "-o", faces / "new")
    assert done.code == 2 and "lies within the images" in done.err and not (faces / "new").exists()
    done = tiny(*words, "--balance", ",", "-o", faces.parent / "new")
    assert done.code == 2 and "--balance names no attribute" in done.err
