"""rdm manipulate NAME=yes|no: what is wanted is set, looked at again, and said where it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.data.avatars import draw_avatar, render

Rdm = Callable[..., Any]


@pytest.fixture
def with_glasses(tmp_path: Path) -> Path:
    """Two drawn faces with glasses."""
    folder = tmp_path / "faces"
    folder.mkdir()
    found = [avatar for avatar in (draw_avatar(77, i) for i in range(40)) if avatar.labels()["glasses"]][1:3]
    for i, avatar in enumerate(found):
        render(avatar, 64).save(folder / f"{i}.png")
    return folder


def test_what_is_wanted_is_set_and_told(rdm: Rdm, with_glasses: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = rdm("manipulate", with_glasses, "glasses=no", "smiling=yes", "-o", out, "--json")
    assert done.code == 0
    assert [Path(one["output"]).name for one in done.objects] == [
        f"{i}-glasses=no-smiling=yes.png" for i in (0, 1)
    ]
    for one in done.objects:
        assert one["holds"] and one["edits"] == [{"glasses": False, "smiling": True}]
        before, after = one["probabilities"]["glasses"]
        assert before > 0.5 > after and one["probabilities"]["smiling"][1] > 0.5
        assert Path(one["code"]).is_file()
    again = rdm("manipulate", with_glasses, "glasses=no", "smiling=yes", "-o", out)
    assert again.code == 0  # the very results are made again
    code = done.objects[0]["code"]
    back = rdm("manipulate", code, "glasses=yes", "-o", tmp_path / "back.png", "--json")
    assert back.code == 0 and back.objects[0]["probabilities"]["glasses"][1] > 0.5


def test_what_does_not_hold_is_said_and_the_code_is_3(
    rdm: Rdm, with_glasses: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The published edit by next to nothing shows nothing; its picture is written all the same."""
    monkeypatch.setattr("rdm_cli.pipeline.editing.SCALE", 1e-4)
    out = tmp_path / "out"
    done = rdm("manipulate", with_glasses, "glasses=no", "--editor", "direction", "-o", out)
    assert done.code == 3 and done.err.count("it does not show what was wanted") == 2
    assert sorted(path.name for path in out.glob("*.png")) == ["0-glasses=no.png", "1-glasses=no.png"]
    # a face that shows it already is left alone
    stays = rdm("manipulate", with_glasses, "glasses=yes", "--editor", "direction", "-o", out, "--json")
    assert stays.code == 0 and [one["amount"] for one in stays.objects] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("glasses=yes", "smiling=0.3"), "some attributes have a scale and some yes or no"),
        (("glasses=maybe",), "'maybe' is neither yes, no nor a number"),
        (("glasses=0.3", "--keep", "beard"), "--keep and --editor go with NAME=yes or NAME=no"),
        (("glasses=yes", "sunglasses=yes"), "no image shows"),
        (("hatt=yes",), "no attribute named 'hatt'"),
    ],
)
def test_wrong_words_are_one_line(
    rdm: Rdm, with_glasses: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    refused = rdm("manipulate", with_glasses / "0.png", *words, "-o", tmp_path / "out")
    assert refused.code in (1, 2) and told in refused.err and "Traceback" not in refused.err
