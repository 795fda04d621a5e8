"""Which images and which labels an evaluation takes, and what it says where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from rdm_cli.errors import RdmError, UsageError
from rdm_cli.evaluation.material import gather, gather_labelled, subjects
from rdm_cli.pipeline.pipeline import open_pipeline

CELEBA = """5
Smiling Wearing_Hat
a.jpg 1 -1
b.jpg -1 -1
c.jpg 1 1
d.jpg -1 1
e.jpg 1 -1
"""


def test_the_first_images_and_what_they_are_called(faces: Path) -> None:
    assert [item.relative.as_posix() for item in gather(faces, 2).items] == ["a.png", "b.png"]
    assert len(gather(faces, None)) == 5
    digest = gather(faces, 2).digest
    assert digest == gather(faces, 2).digest != gather(faces, 3).digest
    (faces / "empty").mkdir()
    with pytest.raises(UsageError, match="no image"):
        gather(faces / "empty", 2)


@pytest.mark.parametrize("place", [".", "..", "../Anno"])
def test_celebas_list_is_found_where_people_have_it(faces: Path, place: str) -> None:
    (faces.parent / "Anno").mkdir()
    (faces / place / "list_attr_celeba.txt").write_text(CELEBA)
    found = gather_labelled(faces, None, table=None, names=["wearing_hat"], purpose="this")
    assert found.known().names == ("wearing_hat",)
    assert found.known().values[:, 0].tolist() == [0, 0, 1, 1, 0]
    assert found.facts["labels"] == "list_attr_celeba.txt"


def test_images_that_the_table_lacks_are_left_out(faces: Path, tmp_path: Path) -> None:
    table = tmp_path / "some.csv"
    table.write_text("file_name,smiling\nb.png,1\nd.png,0\n")
    found = gather_labelled(faces, None, table=table, names=None, purpose="this")
    assert [item.relative.name for item in found.items] == ["b.png", "d.png"]
    assert len(gather_labelled(faces, 1, table=table, names=None, purpose="this")) == 1
    with pytest.raises(UsageError, match="no attribute named 'hat'; known: smiling"):
        gather_labelled(faces, None, table=table, names=["hat"], purpose="this")


def test_a_table_above_the_splits_gives_no_other_splits_labels(faces: Path) -> None:
    """metadata.csv at the root speaks of train/a.png; val/a.png is another picture."""
    root = faces.parent
    (root / "metadata.csv").write_text("file_name,smiling\ntrain/a.png,1\ntrain/b.png,0\n")
    with pytest.raises(UsageError, match="knows none of .*called faces/a.png, the first row train/a.png"):
        gather_labelled(faces, None, table=None, names=None, purpose="this")
    (root / "metadata.csv").write_text("file_name,smiling\ntrain/a.png,1\nfaces/b.png,0\nfaces/sub/e.png,1\n")
    found = gather_labelled(faces, None, table=None, names=None, purpose="this")
    assert [item.relative.as_posix() for item in found.items] == ["b.png", "sub/e.png"]
    assert found.known().values[:, 0].tolist() == [0, 1]
    assert found.notes == (
        "metadata.csv: 3 of 5 images have no row in the label table, faces/a.png among them",
    )


def test_a_tables_paths_may_start_at_the_folder_that_was_named(faces: Path) -> None:
    table = faces.parent / "labels.csv"
    table.write_text("file_name,smiling,age\na.png,1,30\nsub/e.png,0,31\n")
    found = gather_labelled(faces, None, table=table, names=None, purpose="this")
    assert [item.relative.as_posix() for item in found.items] == ["a.png", "sub/e.png"]
    assert [note.split(":")[1] for note in found.notes] == [
        " 3 of 5 images have no row in the label table, b.png among them", " columns that are no labels",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="age is no label: line 2 says neither yes nor no"):
        gather_labelled(faces, None, table=table, names=["age"], purpose="this")


def test_without_labels_one_line_says_so(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no labels, and this needs some; name a table with labels"):
        gather_labelled(faces, None, table=None, names=None, purpose="this")
    other = tmp_path / "other.csv"
    other.write_text("file_name,smiling\nz.png,1\n")
    with pytest.raises(RdmError, match="knows none of the images"):
        gather_labelled(faces, None, table=other, names=None, purpose="this")


def test_two_bundles_of_one_name_are_told_apart(tiny_bundle: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / "tiny"
    twin.parent.mkdir()
    twin.symlink_to(tiny_bundle)
    specs = [str(tiny_bundle), str(twin)]
    pipelines = [open_pipeline(spec, device="cpu") for spec in specs]
    assert [s.name for s in subjects(specs, pipelines)] == specs
    assert [s.name for s in subjects(specs[:1], pipelines[:1])] == ["tiny"]
    with pytest.raises(UsageError, match="named twice"):
        subjects([specs[0], specs[0]], [pipelines[0], pipelines[0]])
