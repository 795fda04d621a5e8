"""What the page settles on is what its commands make in a shell, pixel by pixel."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from rdm_cli.app.between import command, export, mixture
from rdm_cli.app.drawing import drawn_sheet
from rdm_cli.app.studio import Drawing, Studio
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.record import read_record
from rdm_cli.data.io.places import Blob
from rdm_cli.errors import UsageError
from rdm_cli.jobs.demo import demo_faces
from rdm_cli.pipeline.pipeline import open_pipeline
from rdm_cli.registry import DEFAULT_BUNDLE

Typed = Callable[[str], None]
pytestmark = pytest.mark.usefixtures("one_round")
EDITS: list[dict[str, Any]] = [
    {"scales": {"smiling": 0.3, "glasses": -0.2}},
    {"wanted": {"smiling": False}, "keep": ["hat"], "seed": 2},
    {"wanted": {"hat": False, "smiling": True}, "scales": {"glasses": 0.12}},
]


@pytest.fixture(scope="module")
def shipped() -> Studio:
    return Studio(pipeline=open_pipeline(DEFAULT_BUNDLE))


def pixels(picture: Image.Image | Path | bytes) -> bytes:
    if isinstance(picture, Image.Image):
        return picture.tobytes()
    with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as opened:
        return opened.tobytes()


@pytest.mark.parametrize("asked", EDITS, ids=["moved", "set", "both"])
def test_the_settled_picture_is_the_commands(
    studio: Studio, faces: Path, tmp_path: Path, type_in: Typed, asked: Mapping[str, Any]
) -> None:
    source, edit = studio.open(faces / "a.png", "faces/a.png"), studio.edit(asked)
    seen = studio.settle(source, edit)
    commands = studio.commands(source, edit)
    type_in(commands)
    assert pixels(tmp_path / "a-edited.png") == pixels(seen.picture)
    assert pixels(seen.picture) != pixels(studio.settle(source, studio.edit({})).picture)
    saved = studio.save(source, edit)
    assert pixels(saved.picture) == pixels(seen.picture)
    assert saved.stem == "a-edited" and saved.code == (tmp_path / "a-edited.safetensors").read_bytes()
    record = read_record(Blob("a.png", saved.picture))
    assert record is not None and record["command"] == commands.splitlines()[-1]


def test_an_edit_that_borrows_is_the_commands(
    studio: Studio, faces: Path, tmp_path: Path, type_in: Typed
) -> None:
    source = studio.open(faces / "a.png", "faces/a.png")
    others = [studio.open(faces / f"{name}.png", f"faces/{name}.png") for name in "bcd"]
    readings = [(one, name, p) for one in others for name, p in studio.readings(one.code).items()]
    like, name, _ = next(reading for reading in readings if reading[2] > 0.5)
    edit = studio.edit({"wanted": {name: True}}, like)
    seen = studio.settle(source, edit)
    type_in(studio.commands(source, edit))
    assert pixels(tmp_path / "a-edited.png") == pixels(seen.picture)


def test_a_drawn_picture_is_edited_as_the_commands_do(studio: Studio, tmp_path: Path, type_in: Typed) -> None:
    for drawing in (Drawing(seed=3), Drawing(seed=0, number=4)):
        source, edit = studio.draw(drawing), studio.edit({"scales": {"smiling": 0.4}})
        type_in(studio.commands(source, edit))
        stem = source.file.stem
        assert pixels(tmp_path / f"{stem}-edited.png") == pixels(studio.settle(source, edit).picture)


def test_one_goes_on_from_an_edited_picture(
    studio: Studio, faces: Path, tmp_path: Path, type_in: Typed
) -> None:
    source = studio.open(faces / "b.png", "faces/b.png")
    onward = studio.continued(source, studio.edit({"scales": {"hat": 0.5}}))
    edit = studio.edit({"scales": {"smiling": 0.25}})
    type_in(studio.commands(onward, edit))
    assert pixels(tmp_path / "b-edited-edited.png") == pixels(studio.settle(onward, edit).picture)
    assert studio.continued(source, studio.edit({})) is source


def test_a_preview_is_nearly_the_settled_picture_and_exact_where_nothing_moved(shipped: Studio) -> None:
    source = shipped.open(demo_faces()[0])
    rest = shipped.edit({})
    settled = shipped.settle(source, rest).picture
    assert pixels(shipped.preview(source, rest).picture) == pixels(settled)
    moved = shipped.edit({"scales": {"glasses": 0.3}})
    preview, after = shipped.preview(source, moved).picture, shipped.settle(source, moved).picture
    assert _apart(preview, after) < 0.2 * _apart(settled, after)


def _apart(one: Image.Image, other: Image.Image) -> float:
    return sum(ImageStat.Stat(ImageChops.difference(one, other)).rms)


def test_names_that_look_like_options_or_attributes_stay_files(
    studio: Studio, faces: Path, tmp_path: Path, type_in: Typed
) -> None:
    for name in ("-n.png", "a=1.png", "two words; rm.png"):
        (tmp_path / name).write_bytes((faces / "a.png").read_bytes())
        source = studio.open(Blob(name, (tmp_path / name).read_bytes()))
        edit = studio.edit({"scales": {"smiling": 0.3}})
        type_in(studio.commands(source, edit))
        made = tmp_path / f"{source.file.stem}-edited.png"
        assert pixels(made) == pixels(studio.settle(source, edit).picture)


@pytest.mark.parametrize(
    "asked",
    [
        {"scales": {"smiling": 9}},
        {"scales": {"smiling": True}},
        {"scales": {"smiling": float("nan")}},
        {"scales": {"no such": 0.1}},
        {"scales": ["smiling"]},
        {"wanted": {"smiling": 1}},
        {"wanted": {"smiling": True}, "seed": -1},
        {"wanted": {"smiling": True}, "keep": [3]},
    ],
)
def test_what_is_no_edit_is_refused(studio: Studio, asked: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError):
        studio.edit(asked)


def test_settled_edits_are_kept_and_do_not_pile_up(studio: Studio, faces: Path) -> None:
    source = studio.open(faces / "a.png")
    has_hat = studio.readings(source.code)["hat"] > 0.5  # it is so already: nothing has to be tried
    for seed in range(12):
        studio.settle(source, studio.edit({"wanted": {"hat": has_hat}, "seed": seed}))
    assert len(source.bases) <= 8
    calls: list[float] = []
    studio.settle(source, studio.edit({"wanted": {"hat": has_hat}, "seed": 11}), calls.append)
    assert calls == []


def test_attributes_that_rule_one_another_out_are_one_group(shipped: Studio) -> None:
    groups = shipped.groups()
    assert ["glasses", "sunglasses", "eyepatch"] in groups and ["smiling"] in groups
    assert sorted(sum(groups, [])) == sorted(shipped.names)


def test_between_two_is_a_frame_of_the_way(
    studio: Studio, faces: Path, tmp_path: Path, type_in: Typed
) -> None:
    ends = [studio.open(faces / f"{name}.png", f"faces/{name}.png") for name in "ab"]
    for kind, name in (("strip", "between.png"), ("animation", "between.gif")):
        type_in(command(studio, ends, 3, kind).replace("--frames 3", "--frames 3 --tile 128"))
        assert pixels(export(studio, ends, 3, kind)) == pixels(tmp_path / name)
    type_in(f"rdm interpolate faces/a.png faces/b.png --frames 3 -b {studio.options[1]} -o walk")
    apart = _apart(mixture(studio, ends, [1, 1]), Image.open(tmp_path / "walk" / "frame-0001.png"))
    assert apart < 1  # another batch size: rounding
    with pytest.raises(UsageError):
        mixture(studio, ends, [0, 0])


def test_a_corner_of_the_triangle_is_its_picture(studio: Studio, faces: Path) -> None:
    ends = [studio.open(faces / f"{name}.png") for name in "abc"]
    for i in range(3):
        weights = [1.0 if k == i else 0.0 for k in range(3)]
        whole = studio.settle(ends[i], studio.edit({})).picture
        assert _apart(mixture(studio, ends, weights), whole) < 3
    middle = mixture(studio, ends, [1, 1, 1])
    assert all(_apart(middle, end.picture) > 3 for end in ends)


def test_a_sheet_is_what_the_command_draws(studio: Studio, tmp_path: Path, type_in: Typed) -> None:
    sheet = drawn_sheet(studio, 3, 5, {})
    type_in(sheet.command)
    for i, picture in enumerate(sheet.pictures):
        assert pixels(picture) == pixels(tmp_path / "samples-5" / f"{i:06d}.png")
    wanted = drawn_sheet(studio, 2, 5, {"smiling": True})
    type_in(wanted.command.replace("samples-5", "smiling"))
    numbers = [one.number for one in wanted.drawings]
    for number, picture in zip(numbers, wanted.pictures, strict=True):
        assert pixels(picture) == pixels(tmp_path / "smiling" / f"{number:06d}.png")


def test_more_like_these_gives_others(studio: Studio) -> None:
    examples = [Drawing(seed=1, number=i) for i in range(3)]
    sheet = drawn_sheet(studio, 2, 7, {}, examples)
    assert len(sheet.pictures) == 2 and sheet.command == ""
    assert all(Codes.load(studio.draw(one).file).z.shape == (1, 8) for one in sheet.drawings)
    with pytest.raises(UsageError):
        drawn_sheet(studio, 49, 0, {})
