"""Which inputs are found, on real folders and in lists of paths."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.images.record import saving_options
from rdm_cli.data.sources.folders import Item, PassedOver, class_names, find_inputs, items_at, read_path_list
from rdm_cli.errors import UsageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def relatives(items: list[Item]) -> list[str]:
    return [item.relative.as_posix() for item in items]


def test_folder_is_searched_in_sorted_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "sub/deep/c.webp", "sub/z.png", "notes.txt", "code.safetensors")
    items = find_inputs([tmp_path], suffixes=SUFFIXES)
    assert relatives(items) == ["a.png", "b.JPG", "sub/deep/c.webp", "sub/z.png"]
    assert all(item.source == tmp_path / item.relative for item in items)


def test_codes_are_found_by_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.safetensors")
    assert relatives(find_inputs([tmp_path], suffixes={".safetensors"})) == ["a.safetensors"]


def test_pictures_that_rdm_made_are_passed_over_in_folders_and_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "sub/b.jpg")
    picture = Image.new("RGB", (8, 8))
    own = saving_options({"software": "rdm 1.0", "what": "edit"}, "PNG")
    for name in ("a-smiling+0.3.png", "sub/of-any-name.png", "sub/renamed.jpg"):
        picture.save(tmp_path / name, "PNG", **own)
    # text under the same key, but not rdm's
    picture.save(tmp_path / "other.png", **saving_options({"software": "rdmx"}, "PNG"))
    passed_over = PassedOver()
    items = find_inputs([tmp_path], passed_over=passed_over)
    assert relatives(items) == ["a.png", "other.png", "sub/b.jpg"]
    assert passed_over == {"made by rdm": 3}
    assert str(passed_over) == "passed over 3 files made by rdm"
    # named, or where nobody counts them, they are inputs as any others
    named = [tmp_path / "a-smiling+0.3.png"]
    assert [item.source for item in find_inputs(named, passed_over=PassedOver())] == named
    assert len(find_inputs([tmp_path])) == 6


def test_codes_of_edits_are_passed_over_beside_images_alone(tmp_path: Path) -> None:
    for name, record in (("a", '{"edits":[]}'), ("a-hat+1", '{"edits":["hat:1"]}'), ("other", '{"x":1}')):
        save_file({"z": torch.zeros(1)}, tmp_path / f"{name}.safetensors", metadata={"rdm": record})
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    passed_over = PassedOver()
    both = find_inputs([tmp_path], suffixes=SUFFIXES | {".safetensors"}, passed_over=passed_over)
    assert [item.source.stem for item in both] == ["a", "damaged", "other"]
    assert passed_over == {"made by rdm": 1}
    codes = find_inputs([tmp_path], suffixes={".safetensors"}, passed_over=passed_over)
    assert len(codes) == 4  # what decodes codes decodes those of edits, too


def test_a_folder_of_nothing_but_own_pictures_says_so(tmp_path: Path) -> None:
    own = saving_options({"software": "rdm 1.0"}, "PNG")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", **own)
    with pytest.raises(UsageError, match=r"no images found \(passed over 1 file made by rdm\)") as caught:
        find_inputs([tmp_path], passed_over=PassedOver())
    assert caught.value.hint == "such pictures are inputs where they are named as files"


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    root = tmp_path / ".cache"  # a hidden folder that is asked for by name is searched
    touch(root, "a.png", ".b.png", ".git/c.png", ".a-x1y2.png")
    assert relatives(find_inputs([root], suffixes=SUFFIXES)) == ["a.png"]


def test_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "in/photo.raw", "in/.hidden")
    items = find_inputs([tmp_path / "in/photo.raw", tmp_path / "in/.hidden"], suffixes=SUFFIXES)
    assert relatives(items) == ["photo.raw", ".hidden"]


def test_order_and_repetition_of_names_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    named = [tmp_path / name for name in ("b.png", "a.png", "b.png")]
    assert [item.source for item in find_inputs(named, suffixes=SUFFIXES)] == named


def test_bad_entries_of_a_folder_are_items(tmp_path: Path) -> None:
    touch(tmp_path, "ok.png", "x.png/inside.png")
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    items = find_inputs([tmp_path], suffixes=SUFFIXES)
    assert relatives(items) == ["dangling.png", "loop.png", "ok.png", "x.png"]


def test_bad_entries_named_by_a_glob_are_items(tmp_path: Path) -> None:
    touch(tmp_path, "ok.png")
    (tmp_path / "x.png").mkdir()
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nowhere")
    items = find_inputs(sorted(tmp_path.glob("*")), suffixes=SUFFIXES)
    assert relatives(items) == ["dangling.png", "ok.png", "x.png"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "outside", "far.png", "deep/far.png")
    root = tmp_path / "in"
    touch(root, "real/a.png")
    (root / "real" / "up").symlink_to(root)
    (root / "alias").symlink_to(root / "real")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "link2").symlink_to(tmp_path / "outside")
    (tmp_path / "outside" / "back").symlink_to(root)
    items = find_inputs([root], suffixes=SUFFIXES)
    assert relatives(items) == ["link/deep/far.png", "link/far.png", "real/a.png"]


def test_densely_linked_folders_end(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(12)]  # 12! simple paths, were each path followed
    for name in names:
        touch(tmp_path, f"{name}/a.png")
        for other in names:
            (tmp_path / name / f"to-{other}").symlink_to(tmp_path / other)
    assert relatives(find_inputs([tmp_path], suffixes=SUFFIXES)) == sorted(f"{n}/a.png" for n in names)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    with pytest.raises(UsageError, match=r"b\.png: no such file or folder") as caught:
        find_inputs([tmp_path / "a.png", tmp_path / "b.png"], suffixes=SUFFIXES)
    assert caught.value.exit_code == 2


def test_nothing_found_names_folder_and_suffixes(tmp_path: Path) -> None:
    touch(tmp_path, "faces/notes.txt")
    with pytest.raises(UsageError, match="faces/: no images found") as caught:
        find_inputs([tmp_path / "faces"], suffixes=SUFFIXES)
    assert all(suffix in str(caught.value.hint) for suffix in SUFFIXES)
    with pytest.raises(UsageError, match="faces/: no codes found"):
        find_inputs([tmp_path / "faces"], suffixes={".safetensors"})
    with pytest.raises(UsageError, match="faces/: no images or codes found"):
        find_inputs([tmp_path / "faces"], suffixes=SUFFIXES | {".safetensors"})
    with pytest.raises(UsageError, match="no inputs"):
        find_inputs([], suffixes=SUFFIXES)


def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.png", "locked/b.png")
    listing = os.scandir

    def refuse(folder: Path) -> object:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UsageError, match=r"locked/: cannot be listed \(Permission denied\)"):
        find_inputs([tmp_path], suffixes=SUFFIXES)
    # a job does the rest
    good, locked = items_at(tmp_path, suffixes=SUFFIXES)
    assert (
        good.error is None
        and locked.source == tmp_path / "locked"
        and "cannot be listed" in str(locked.error)
    )
    with pytest.raises(UsageError, match="cannot be listed"):
        list(items_at(tmp_path / "locked", suffixes=SUFFIXES))


FILE_NAMES = st.text(
    st.characters(exclude_characters="\0\n\r/", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name.strip() and not name.startswith("\ufeff"))


def listed(content: bytes) -> list[Path]:
    return [Path(name) for name in read_path_list(io.BytesIO(content))]


def test_a_long_list_is_read_in_parts() -> None:
    names = [f"{'x' * 97}{i:05d}.png" for i in range(2000)]
    for separator in ("\n", "\0"):
        assert listed(separator.join(names).encode()) == [Path(name) for name in names]


@given(st.lists(FILE_NAMES), st.sampled_from(["\n", "\r\n", "\n\n", "\0"]))
def test_path_list_round_trip(names: list[str], separator: str) -> None:
    content = "".join(name + separator for name in names)
    expected = [Path(name) for name in names]
    assert listed(content.encode()) == expected


def test_path_list_keeps_newlines_between_nuls() -> None:
    assert listed(b"a\nb.png\0 c.png") == [Path("a\nb.png"), Path(" c.png")]


def test_path_list_of_names_that_are_not_utf8() -> None:
    names = listed(b"caf\xe9.png\n\n  \nb.png")
    assert [os.fsencode(name) for name in names] == [b"caf\xe9.png", b"b.png"]


def test_path_list_from_windows() -> None:
    assert listed(b"\xef\xbb\xbfa.png\r\nb.png\r\n") == [Path("a.png"), Path("b.png")]


def test_classes_are_the_sub_folders_that_hold_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("b/x.png", "a/deep/y.png", "a/z.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert class_names(tmp_path) == ("a", "b")
    one = tmp_path / "one"
    (one / "a").mkdir(parents=True)
    (one / "a" / "x.png").touch()
    with pytest.raises(UsageError, match="1 sub-folder with images, and classes are two or more"):
        class_names(one)
    (tmp_path / "loose.png").touch()
    with pytest.raises(UsageError, match="loose.png: lies in no sub-folder"):
        class_names(tmp_path)
