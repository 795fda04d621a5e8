"""Which plans of outputs are made, and which are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdm_cli.data.images.pixels import SUFFIXES
from rdm_cli.data.sinks.outputs import Beside, Folder, Sink, check_plan
from rdm_cli.data.sources.folders import Item, find_inputs
from rdm_cli.errors import UsageError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def items_of(root: Path, *names: str) -> list[Item[Path]]:
    return [Item(source=root / name, relative=Path(name)) for name in names]


def plan_outputs(
    items: Sequence[Item[Path]], *, output: Path | None, suffix: str, spared: Sequence[str] = ()
) -> list[tuple[Item[Path], Path]]:
    sink = Beside() if output is None else Folder(output)
    plan = check_plan(lambda: iter(items), sink, suffix, spared=spared)
    for _, error in plan.apply(items):
        if error is not None:
            raise error
    return [(item, sink.place(item, suffix)) for item, _ in plan.apply(items)]


def faults(
    items: Sequence[Item[Path]], sink: Sink, suffix: str, spared: Sequence[str] = ()
) -> dict[str, str]:
    """Of every item its fault; empty where it has none."""
    plan = check_plan(lambda: iter(items), sink, suffix, spared=spared)
    return {str(item.source): error.message if error else "" for item, error in plan.apply(items)}


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


def test_one_item_that_has_no_place_leaves_the_others_theirs(tmp_path: Path) -> None:
    """Each of those that would share a name says so, and what is in no other's way is planned."""
    names = ["a.png", "a.jpg", "a.gif", "b.png", "sub/a.png", "deep/x.png", "c.png"]
    items = items_of(tmp_path / "in", *names)
    out = tmp_path / "out"
    touch(out, "deep")
    (out / "c.safetensors").mkdir()
    found = {Path(name).relative_to(tmp_path / "in").as_posix(): why
             for name, why in faults(items, Folder(out), ".safetensors").items()}  # fmt: skip
    assert [name for name in names if not found[name]] == ["b.png", "sub/a.png"]
    for name in ("a.png", "a.jpg", "a.gif"):
        assert name in found[name] and found[name].endswith(f"would both be written to {out}/a.safetensors")
    assert found["deep/x.png"].endswith(
        f"in/deep/x.png: {out}/deep: a file stands where an output folder is needed"
    )
    assert found["c.png"].endswith("a folder stands where its output should go")


def test_an_item_that_would_replace_an_input_leaves_the_others_theirs(tmp_path: Path) -> None:
    items = items_of(tmp_path, "a.png", "a-edited.safetensors", "b.png")
    found = faults(items, Beside(), "-edited.png", ["-edited.safetensors"])
    assert [Path(name).name for name, why in found.items() if why] == ["a.png"]


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
        found = faults(items, Folder(Path("/nowhere/out")), ".safetensors")
        alone = [p for p in relatives if sum(p.with_suffix("") == q.with_suffix("") for q in relatives) == 1]
        assert [name for name, why in found.items() if not why] == [f"/nowhere/in/{p}" for p in alone]
    else:
        assert [item for item, _ in plan] == items
        assert len({target for _, target in plan}) == len(relatives) == len(distinct)


def test_what_goes_with_a_result_replaces_no_input(tmp_path: Path) -> None:
    items = items_of(tmp_path, "a.png", "a-edited.safetensors")
    with pytest.raises(UsageError, match=r"goes with the result of .*a\.png would replace .*a-edited\.safet"):
        plan_outputs(items, output=None, suffix="-edited.png", spared=["-edited.safetensors"])
    assert len(plan_outputs(items, output=None, suffix="-edited.png")) == 2


def test_names_that_share_a_fingerprint_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 bits agree by chance once in billions of jobs; then the names decide."""
    from rdm_cli.data.sinks import outputs

    monkeypatch.setattr(outputs, "fingerprint", lambda name: len(name) % 2)
    items = items_of(Path("/nowhere"), *(f"{'x' * i}.png" for i in range(1, 9)))
    plan = plan_outputs([*items, items[0]], output=Path("/nowhere/out"), suffix=".safetensors")
    assert len({item.source for item, _ in plan}) == 8
