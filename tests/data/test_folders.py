"""Which inputs are found, and which plans of outputs are refused, on real folders."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.data.folders import Item, class_names, find_inputs, plan_outputs, read_path_list
from rdm_cli.data.images import SUFFIXES
from rdm_cli.errors import UsageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def relatives(items: list[Item]) -> list[str]:
    return [item.relative.as_posix() for item in items]


def items_of(root: Path, *names: str) -> list[Item]:
    return [Item(source=root / name, relative=Path(name)) for name in names]


def test_folder_is_searched_in_sorted_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a.png", "sub/deep/c.webp", "sub/z.png", "notes.txt", "code.safetensors")
    items = find_inputs([tmp_path], suffixes=SUFFIXES)
    assert relatives(items) == ["a.png", "b.JPG", "sub/deep/c.webp", "sub/z.png"]
    assert all(item.source == tmp_path / item.relative for item in items)


def test_codes_are_found_by_their_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.safetensors")
    assert relatives(find_inputs([tmp_path], suffixes={".safetensors"})) == ["a.safetensors"]


def test_results_of_an_earlier_run_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a-edited.png", "b-edited.png", "sub/a-edited.png", "c-edited.png", "c.jpg")
    items = find_inputs([tmp_path], results=["-edited.png"])
    assert relatives(items) == ["a.png", "b-edited.png", "c.jpg", "sub/a-edited.png"]
    named = [tmp_path / "a.png", tmp_path / "a-edited.png"]
    assert [item.source for item in find_inputs(named, results=["-edited.png"])] == named


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
    listing = Path.iterdir

    def refuse(folder: Path) -> object:
        if folder.name == "locked":
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(UsageError, match=r"locked/: cannot be listed \(Permission denied\)"):
        find_inputs([tmp_path], suffixes=SUFFIXES)


def test_outputs_lie_beside_their_sources(tmp_path: Path) -> None:
    items = items_of(tmp_path, "a.png", "sub/b.tar.jpg", "photo")
    targets = [target for _, target in plan_outputs(items, output=None, suffix=".safetensors")]
    expected = ["a.safetensors", "sub/b.tar.safetensors", "photo.safetensors"]
    assert targets == [tmp_path / name for name in expected]


def test_outputs_are_mirrored(tmp_path: Path) -> None:
    items = items_of(tmp_path / "in", "a.png", "sub/b.jpg")
    plan = plan_outputs(items, output=tmp_path / "new" / "out", suffix=".safetensors")
    out = tmp_path / "new" / "out"
    assert plan == [(items[0], out / "a.safetensors"), (items[1], out / "sub/b.safetensors")]
    assert not (tmp_path / "new").exists()


def test_shared_output_is_refused_by_both_names(tmp_path: Path) -> None:
    items = items_of(tmp_path, "a.png", "a.jpg")
    for output in (None, tmp_path / "out"):
        with pytest.raises(UsageError, match=r"a\.png and .*a\.jpg would both"):
            plan_outputs(items, output=output, suffix=".safetensors")


def test_two_roots_may_share_names_only_beside_their_sources(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "two/a.png")
    items = find_inputs([tmp_path / "one", tmp_path / "two"], suffixes=SUFFIXES)
    assert len(plan_outputs(items, output=None, suffix=".safetensors")) == 2
    with pytest.raises(UsageError, match=r"one/a\.png and .*two/a\.png"):
        plan_outputs(items, output=tmp_path / "out", suffix=".safetensors")


def test_same_output_through_a_linked_folder_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "real/a.png", "real/a.jpg")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    items = [*items_of(tmp_path / "real", "a.png"), *items_of(tmp_path / "link", "a.jpg")]
    with pytest.raises(UsageError, match="would both"):
        plan_outputs(items, output=None, suffix=".safetensors")


def test_source_named_twice_is_planned_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "faces/a.png", "faces/b.png")
    monkeypatch.chdir(tmp_path)
    named = [Path("faces"), tmp_path / "faces" / "a.png"]
    items = find_inputs(named, suffixes=SUFFIXES)
    for output in (None, Path("out")):
        plan = plan_outputs(items, output=output, suffix=".safetensors")
        assert [item.relative.name for item, _ in plan] == ["a.png", "b.png"]
    same = items[0]
    assert len(plan_outputs([same, same], output=None, suffix=".safetensors")) == 1


def test_output_that_would_replace_an_input_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    with pytest.raises(UsageError, match="would replace the input"):
        plan_outputs(items_of(tmp_path, "a.png"), output=None, suffix=".png")
    with pytest.raises(UsageError, match="would replace the input"):
        plan_outputs(items_of(tmp_path, "a.png"), output=tmp_path / "." / "sub" / "..", suffix=".png")
    (tmp_path / "link.gif").symlink_to(tmp_path / "out" / "x.png")
    with pytest.raises(UsageError, match=r"b\.png would replace the input .*link\.gif"):
        items = [Item(source=tmp_path / "b.png", relative=Path("x.png")), *items_of(tmp_path, "link.gif")]
        plan_outputs(items, output=tmp_path / "out", suffix=".png")


@pytest.mark.parametrize("blocker", ["out", "out/sub", "out/sub/deep"])
@pytest.mark.parametrize("dangling", [False, True])
def test_file_in_a_folders_place_is_refused(tmp_path: Path, blocker: str, dangling: bool) -> None:
    (tmp_path / blocker).parent.mkdir(parents=True, exist_ok=True)
    if dangling:
        (tmp_path / blocker).symlink_to(tmp_path / "nowhere")
    else:
        touch(tmp_path, blocker)
    items = items_of(tmp_path / "in", "ok.png", "sub/deep/a.png")
    with pytest.raises(UsageError, match=f"{blocker}: a file stands where an output folder"):
        plan_outputs(items, output=tmp_path / "out", suffix=".safetensors")


def test_folder_in_a_files_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(UsageError, match=r"a\.safetensors: a folder stands"):
        plan_outputs(items_of(tmp_path, "a.png"), output=None, suffix=".safetensors")


NAMES = st.text("ab", min_size=1, max_size=2)
RELATIVES = st.builds(
    lambda parts, suffix: Path(*parts).with_suffix(suffix),
    st.lists(NAMES, min_size=1, max_size=3),
    st.sampled_from([".png", ".jpg"]),
)


@given(st.lists(RELATIVES, unique=True, max_size=12))
def test_a_plan_is_one_to_one_or_refused(relatives: list[Path]) -> None:
    items = [Item(source=Path("/nowhere/in") / path, relative=path) for path in relatives]
    distinct = {path.with_suffix("") for path in relatives}
    try:
        plan = plan_outputs(items, output=Path("/nowhere/out"), suffix=".safetensors")
    except UsageError:
        assert len(distinct) < len(relatives)
    else:
        assert [item for item, _ in plan] == items
        assert len({target for _, target in plan}) == len(relatives) == len(distinct)


FILE_NAMES = st.text(
    st.characters(exclude_characters="\0\n\r/", exclude_categories=["Cs"]), min_size=1, max_size=8
).filter(lambda name: name.strip() and not name.startswith("\ufeff"))


@given(st.lists(FILE_NAMES), st.sampled_from(["\n", "\r\n", "\n\n", "\0"]))
def test_path_list_round_trip(names: list[str], separator: str) -> None:
    content = "".join(name + separator for name in names)
    expected = [Path(name) for name in names]
    assert read_path_list(io.StringIO(content, newline="")) == expected
    assert read_path_list(io.BytesIO(content.encode())) == expected


def test_path_list_keeps_newlines_between_nuls() -> None:
    assert read_path_list(io.BytesIO(b"a\nb.png\0 c.png")) == [Path("a\nb.png"), Path(" c.png")]


def test_path_list_of_names_that_are_not_utf8() -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"caf\xe9.png\n\n  \nb.png"), encoding="utf-8")
    names = read_path_list(stdin)
    assert [os.fsencode(name) for name in names] == [b"caf\xe9.png", b"b.png"]


def test_path_list_from_windows() -> None:
    assert read_path_list(io.BytesIO(b"\xef\xbb\xbfa.png\r\nb.png\r\n")) == [Path("a.png"), Path("b.png")]


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
