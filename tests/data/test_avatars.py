"""The avatar generator against DiceBear's own account of what it drew, and against its promises."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dicebear import Avatar as Drawing
from hypothesis import given, settings
from hypothesis import strategies as st

from rdm_cli.data import avatars
from rdm_cli.data.avatars import COLUMNS, HAIR_COLUMNS, draw_avatar, render, write_avatars
from rdm_cli.data.images.pixels import load_rgb
from rdm_cli.data.labels import read_labels
from rdm_cli.errors import OccupiedError

SEEDS = st.integers(0, 2**31)
INDICES = st.integers(0, 10**6)


def digests(seed: int, count: int, size: int = 64) -> list[str]:
    return [hashlib.sha256(render(draw_avatar(seed, i), size).tobytes()).hexdigest() for i in range(count)]


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve avatars of seed 5 at 32 px, drawn in this process."""
    folder = tmp_path_factory.mktemp("twelve")
    paths = list(write_avatars(folder, num_images=12, size=32, seed=5, workers=1))
    assert [path.name for path in paths] == [*(f"{i:06d}.png" for i in range(12)), "metadata.csv"]
    return folder


def test_workers_do_not_change_a_byte(twelve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(avatars, "CHUNK", 4)  # else one draws them all, in this process
    list(write_avatars(tmp_path, num_images=12, size=32, seed=5, workers=2))
    assert bytes_in(tmp_path) == bytes_in(twelve)


def test_the_process_that_waits_draws_nothing(
    twelve: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it drew itself, one face after the other, would bound the speed on a machine of many cores."""

    def refuse(seed: int, index: int) -> None:
        raise AssertionError("a face was drawn outside the workers")

    monkeypatch.setattr(avatars, "draw_avatar", refuse)
    monkeypatch.setattr(avatars, "CHUNK", 4)
    for num in (12, 5):  # the second time labels are compared too
        list(write_avatars(tmp_path, num_images=num, size=32, seed=5, workers=2))
    assert bytes_in(tmp_path) == bytes_in(twelve)


def test_a_smaller_set_is_a_prefix(twelve: Path, tmp_path: Path) -> None:
    list(write_avatars(tmp_path, num_images=5, size=32, seed=5, workers=1))
    whole, part = bytes_in(twelve), bytes_in(tmp_path)
    assert len(part) == 6
    rows = part.pop("metadata.csv")
    assert whole["metadata.csv"].startswith(rows)
    assert part == {name: whole[name] for name in part}


def test_no_other_file_is_written_over(tmp_path: Path) -> None:
    """The same avatars may be drawn again, and more or fewer of them; another set or a user's file stays."""

    def draw(num: int, seed: int = 5, **options: bool) -> dict[str, bytes]:
        list(write_avatars(tmp_path, num_images=num, size=16, seed=seed, workers=1, **options))
        return bytes_in(tmp_path)

    more = draw(2) | draw(3)
    assert draw(2) == more == bytes_in(tmp_path)  # and the labels of the third are kept
    with pytest.raises(OccupiedError, match=r"metadata\.csv: is there already, with other labels"):
        draw(2, seed=6)
    (tmp_path / "000001.png").write_bytes(b"my own")
    with pytest.raises(OccupiedError, match=r"000001\.png: is there already, and is another picture"):
        draw(3)
    assert bytes_in(tmp_path) == more | {"000001.png": b"my own"}
    assert draw(3, force=True) == more


def test_files_hold_the_rendered_pixels(twelve: Path) -> None:
    for i in (0, 7):
        expected = np.asarray(render(draw_avatar(5, i), 32))
        assert expected.shape == (32, 32, 3)
        np.testing.assert_array_equal(np.asarray(load_rgb(twelve / f"{i:06d}.png")), expected)


def test_metadata_is_the_labels(twelve: Path) -> None:
    with (twelve / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file_name", *COLUMNS]
    for i, row in enumerate(rows):
        labels = draw_avatar(5, i).labels()
        assert row.pop("file_name") == f"{i:06d}.png"
        assert row == {name: "" if value is None else str(value) for name, value in labels.items()}


def test_metadata_is_read_as_a_label_table(twelve: Path) -> None:
    table = read_labels(twelve / "metadata.csv")
    assert table.names == COLUMNS and not table.skipped and len(table.files) == 12
    hat = table.values[:, COLUMNS.index("hat")] + table.values[:, COLUMNS.index("headscarf")]
    bald = table.values[:, COLUMNS.index("bald")]
    assert hat.sum() > 0 and bool((bald.isnan() == (hat == 1)).all())


def test_different_seeds_share_no_picture() -> None:
    sets = [set(digests(seed, 100)) for seed in (0, 1, 7)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    assert min(len(found) for found in sets) > 95  # and within a set faces hardly ever repeat


def test_rendering_is_deterministic() -> None:
    assert digests(3, 4) == digests(3, 4)


@settings(max_examples=50)
@given(SEEDS, INDICES)
def test_a_seed_keeps_to_its_bucket(seed: int, index: int) -> None:
    avatar = draw_avatar(seed, index)
    assert avatar == draw_avatar(seed, index)
    assert avatar.bucket() == seed % avatars.NUM_BUCKETS


@settings(max_examples=60, deadline=None)
@given(SEEDS, INDICES)
def test_labels_are_what_dicebear_drew(seed: int, index: int) -> None:
    avatar = draw_avatar(seed, index)
    drawn = Drawing(avatars._style(), avatar.options()).to_json()["options"]
    labels = avatar.labels()

    def variant(component: str) -> str:
        chosen = drawn.get(f"{component}Variant")
        return str(chosen[0] if isinstance(chosen, list) else chosen) if chosen else ""

    top, accessory, facial_hair = variant("top"), variant("accessories"), variant("facialHair")
    assert labels["smiling"] == (variant("mouth") in {"smile", "twinkle", "default"})
    assert labels["glasses"] == (accessory in {"prescription01", "prescription02", "round"})
    assert labels["sunglasses"] == (accessory in {"kurt", "sunglasses", "wayfarers"})
    assert labels["eyepatch"] == (accessory == "eyepatch")
    assert labels["beard"] == facial_hair.startswith("beard")
    assert labels["moustache"] == facial_hair.startswith("moustache")
    assert labels["hat"] == (top == "hat" or top.startswith("winterHat"))
    assert labels["headscarf"] == (top in {"hijab", "turban"})
    covered = labels["hat"] or labels["headscarf"]
    assert all((labels[name] is None) == covered for name in HAIR_COLUMNS)
    if not covered:
        assert labels["bald"] == (top == "")
        colours = [name for name in HAIR_COLUMNS[2:] if labels[name]]
        assert len(colours) == (top != "")


def test_every_variant_is_one_of_the_style() -> None:
    """A misspelt variant would be dropped by DiceBear without a word, and its label would lie."""
    from importlib.resources import files

    style = json.loads(files("dicebear_styles").joinpath("avataaars.json").read_text("utf-8"))
    known = {name: set(part["variants"]) for name, part in style["components"].items()}
    used = {
        "mouth": avatars.SMILES + avatars.OTHER_MOUTHS,
        "eyes": avatars.EYES,
        "eyebrows": avatars.EYEBROWS,
        "accessories": (*avatars.GLASSES, *avatars.SUNGLASSES, "eyepatch"),
        "facialHair": avatars.BEARDS + avatars.MOUSTACHES,
        "top": avatars.HATS + avatars.HEADSCARVES + avatars.LONG_HAIR + avatars.SHORT_HAIR,
        "clothes": avatars.CLOTHES,
    }
    for component, variants in used.items():
        assert set(variants) <= known[component], component
        assert len(set(variants)) == len(variants), component


def test_attributes_are_not_rare() -> None:
    """Each label has enough of both answers among 1,000 faces for a probe to be trained and scored."""
    counts: Counter[str] = Counter()
    for i in range(1000):
        counts.update({name: value for name, value in draw_avatar(11, i).labels().items() if value})
    for name in ("smiling", "glasses", "sunglasses", "beard", "moustache", "hat", "long_hair"):
        assert 60 <= counts[name] <= 940, (name, counts[name])


def test_a_label_shows_in_the_picture() -> None:
    """Sunglasses darken the face where the eyes are, whatever else was drawn."""
    from dataclasses import replace

    for i in range(10):
        bare = replace(draw_avatar(2, i), accessory=None, dx=0, dy=0)
        worn = replace(bare, accessory="sunglasses", accessory_colour="262e33")
        pixels = [np.asarray(render(face, 64)).astype(np.int64) for face in (bare, worn)]
        changed = np.argwhere(np.abs(pixels[0] - pixels[1]).max(axis=2) > 8)
        assert len(changed) > 100
        # Eyes lie in the middle third of the crop's height, and glasses span most of the face.
        assert 12 <= changed[:, 0].min() and changed[:, 0].max() <= 44
