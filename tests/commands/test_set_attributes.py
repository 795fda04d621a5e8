"""rdm manipulate NAME=yes|no: what is wanted is set, looked at again, and said where it does not hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.data.avatars import draw_avatar, render
from rdm_cli.data.counterfactuals import counterfactuals
from rdm_cli.data.images.record import read_record

Rdm = Callable[..., Any]


@pytest.fixture(scope="module")
def with_glasses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two drawn faces with glasses."""
    folder = tmp_path_factory.mktemp("glasses") / "faces"
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


def test_a_receipt_lies_beside_each_edit_and_show_prints_it(
    rdm: Rdm, with_glasses: Path, tmp_path: Path
) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    words = ("manipulate", with_glasses, "glasses=no", "-o", out)
    done = rdm(*words, "--report", page, "--json")
    assert done.code == 0 and str(page) in done.err
    for one in done.objects:
        record = json.loads(Path(one["receipt"]).read_text())
        in_picture = read_record(Path(one["output"])) or {}
        assert record == {key: value for key, value in in_picture.items() if key != "pixels_digest"}
        receipt = record["receipt"]
        assert receipt["holds"] and receipt["kept"] and receipt["changed"] == []
        assert receipt["probabilities"] == one["probabilities"]
        assert receipt["z_distance"] > 0 and receipt["num_decodes"] >= 2
        assert record["command"] == f"rdm manipulate {record['source']} glasses=no"
    first = done.objects[0]
    shown = rdm("show", first["output"])
    assert shown.code == 0 and "distance in z" in shown.out and "what was watched stayed" in shown.out
    row = next(line for line in shown.lines if line.split()[:1] == ["glasses"])
    assert [f"{p:.4f}" for p in first["probabilities"]["glasses"]] == row.split()[1:3]
    assert row.rstrip().endswith("as wanted") and "NOT" not in row
    text = page.read_text()
    assert "default-src 'none'" in text and text.count("data:image/png") == 6  # before, after, difference
    assert "0-glasses=no.png" in text and "1-glasses=no.png" in text and "as wanted" in text
    assert rdm(*words, "--report", page).code == 0  # the very results, and the page, are made again


def test_a_file_in_a_receipts_place_stays(rdm: Rdm, with_glasses: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    mine = out / "0-glasses=no.json"
    mine.write_text('{"mine": true}')
    words = ("manipulate", with_glasses / "0.png", "glasses=no", "-o", f"{out}/")
    refused = rdm(*words)
    assert refused.code == 1 and "0-glasses=no.json: is there already, and rdm did not make it" in refused.err
    assert mine.read_text() == '{"mine": true}' and list(out.iterdir()) == [mine]
    assert rdm(*words, "--force").code == 0 and "receipt" in json.loads(mine.read_text())
    page = tmp_path / "page.html"
    page.write_text("mine")
    taken = rdm("manipulate", with_glasses / "1.png", "glasses=no", "-o", f"{out}/", "--report", page)
    assert taken.code == 1 and "page.html: is there already" in taken.err and page.read_text() == "mine"


@pytest.mark.long
def test_a_donor_lends_its_sunglasses_and_seeds_draw_others(rdm: Rdm, tmp_path: Path) -> None:
    """The face wears the donor's very pair: of all true faces with sunglasses, that one is nearest."""
    drawn = [draw_avatar(77, i) for i in range(120)]
    bare = next(a for a in drawn if a.accessory is None and a.facial_hair is None and not a.hides_hair)
    donor = next(a for a in drawn if a.labels()["sunglasses"])
    render(bare, 64).save(tmp_path / "face.png")
    render(donor, 64).save(tmp_path / "donor.png")
    words = ("manipulate", tmp_path / "face.png", "sunglasses=yes")
    out = tmp_path / "worn.png"
    assert rdm(*words, "--like", tmp_path / "donor.png", "-o", out).code == 0
    worn = np.asarray(Image.open(out), dtype=float)
    truths = counterfactuals(bare, "sunglasses")
    errors = [float(np.square(worn - np.asarray(render(truth, 64), dtype=float)).mean()) for truth in truths]
    best = truths[errors.index(min(errors))]
    assert (best.accessory, best.accessory_colour) == (donor.accessory, donor.accessory_colour)
    refused = rdm(*words, "--like", tmp_path / "face.png", "-o", tmp_path / "no.png")
    assert refused.code in (1, 2) and "face does not show sunglasses" in refused.err
    strip = rdm(*words, "--variants", 2, "-o", tmp_path / "strip.png")
    assert strip.code in (0, 3) and not list(tmp_path.glob("strip*.safetensors"))
    first, second = (rdm(*words, "--seed", k, "-o", tmp_path / f"{k}.png") for k in (0, 1))
    assert first.code in (0, 3) and second.code in (0, 3)
    assert (tmp_path / "0.png").read_bytes() != (tmp_path / "1.png").read_bytes()


def test_what_cannot_be_kept_is_said_in_one_line(rdm: Rdm, with_glasses: Path, tmp_path: Path) -> None:
    """A hat hides whether somebody is bald, and glasses rule out sunglasses."""
    words = ("manipulate", with_glasses / "0.png", "hat=yes", "--keep", "beard", "--keep", "bald")
    done = rdm(*words, "-o", tmp_path / "a.png")
    assert "rdm: --keep bald: passed over, for that cannot stay as it is with hat=yes" in done.err
    assert "keep beard" not in done.err
    unknown = rdm(*words, "--keep", "berd", "-o", tmp_path / "b.png")
    assert unknown.code in (1, 2) and "no attribute named 'berd'" in unknown.err


def test_a_scale_that_leads_nowhere_is_said(rdm: Rdm, with_glasses: Path, tmp_path: Path) -> None:
    words = ("manipulate", with_glasses / "0.png", "--attr", "smiling", "--scales=0,0.1,3,-4", "--json")
    done = rdm(*words, "-o", tmp_path / "strip.png")
    assert done.code == 0 and done.objects[0]["outside"] == 2
    assert "rdm: 2 edits lead beyond the codes of the images that the bundle was trained on" in done.err
    near = rdm("manipulate", with_glasses / "0.png", "smiling=0.1", "-o", tmp_path / "near.png")
    assert near.code == 0 and "beyond" not in near.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("glasses=yes", "smiling=0.3"), "some attributes have a scale and some yes or no"),
        (("glasses=maybe",), "'maybe' is neither yes, no nor a number"),
        (("glasses=0.3", "--keep", "beard"), "--variants and --report go with NAME=yes"),
        (("glasses=0.3", "--report", "there"), "--variants and --report go with NAME=yes"),
        (("glasses=yes", "--variants", "2", "--like", "donor.png"), "--variants goes neither with --like"),
        (("glasses=yes", "sunglasses=yes"), "no image shows"),
        (("hatt=yes",), "no attribute named 'hatt'"),
    ],
)
def test_wrong_words_are_one_line(
    rdm: Rdm, with_glasses: Path, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    refused = rdm("manipulate", with_glasses / "0.png", *words, "-o", tmp_path / "out")
    assert refused.code in (1, 2) and told in refused.err and "Traceback" not in refused.err
