"""A folder as a dataset: its order, its cache, and what becomes of bad files."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from rdm_cli.data import dataset
from rdm_cli.data.dataset import ImageFolder, WithClasses
from rdm_cli.data.pixel_cache import PixelCache
from rdm_cli.errors import ImageError, UsageError


def write_folder(folder: Path, *, good: int, bad: tuple[int, ...] = ()) -> None:
    """Files 00.png, 01.png, ...: flat images whose level is their number; those in ``bad`` are text."""
    folder.mkdir(exist_ok=True)
    for i in range(good + len(bad)):
        path = folder / f"{i:02d}.png"
        if i in bad:
            path.write_text("not an image")
        else:
            Image.new("RGB", (8, 8), (i, i, i)).save(path)


def levels(images: ImageFolder, indices: list[int]) -> list[int]:
    return [int(images[i][0, 0, 0]) for i in indices]


def ignore(path: Path, error: ImageError) -> None:
    """A report of a bad file that this test has no use for."""


def test_items_are_the_pixels_in_path_order(tmp_path: Path) -> None:
    write_folder(tmp_path, good=3)
    (tmp_path / "sub").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "sub" / "x.png")
    images = ImageFolder(tmp_path, size=8)
    assert [path.name for path in images.paths] == ["00.png", "01.png", "02.png", "x.png"]
    assert len(images) == 4
    torch.testing.assert_close(images[3], torch.from_numpy(pixels).permute(2, 0, 1))
    assert levels(images, [0, 1, 2, -3]) == [0, 1, 2, 1]
    assert len(list(images)) == 4
    with pytest.raises(IndexError):
        images[4]


def test_size_and_fit_are_those_asked_for(tmp_path: Path) -> None:
    Image.new("RGB", (32, 16), "black").save(tmp_path / "a.png")
    assert ImageFolder(tmp_path, size=8)[0].shape == (3, 8, 8)
    padded = ImageFolder(tmp_path, size=8, fit="pad")[0]
    assert padded[0, 0, 0] == 255 and padded[0, 4, 4] == 0


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded from now on."""
    reads: list[str] = []
    decode = dataset.image_bytes

    def counted(path: Path, *rest: Any, **named: Any) -> np.ndarray:
        reads.append(path.name)
        return decode(path, *rest, **named)

    monkeypatch.setattr(dataset, "image_bytes", counted)
    return reads


def with_cache(images: ImageFolder, path: Path, **options: Any) -> ImageFolder:
    shape = (images.channels, images.size, images.size)
    images.cache = PixelCache(path, num=len(images), shape=shape, note=pytest.fail, **options)
    return images


def test_cache_reads_each_file_once_and_lends_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "in", good=4)
    reads = counted_reads(monkeypatch)
    images = with_cache(ImageFolder(tmp_path / "in", size=8), tmp_path / "pixels")
    for _ in range(2):
        images[1].fill_(99)
        assert levels(images, [1, 2]) == [1, 2]
    again = with_cache(ImageFolder(tmp_path / "in", size=8), tmp_path / "pixels")
    assert levels(again, [0, 1, 2]) == [0, 1, 2]
    assert reads == ["01.png", "02.png", "00.png"]


def test_cache_stops_at_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "in", good=4)
    reads = counted_reads(monkeypatch)
    images = with_cache(ImageFolder(tmp_path / "in", size=8), tmp_path / "pixels", budget=2 * 3 * 8 * 8 + 1)
    for _ in range(3):
        assert levels(images, [0, 1, 2, 3]) == [0, 1, 2, 3]
    assert reads == ["00.png", "01.png", "02.png", "03.png", "02.png", "03.png", "02.png", "03.png"]


def test_digest_changes_with_files_and_with_how_they_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path, good=3)
    known = ImageFolder(tmp_path, size=8).digest()
    assert ImageFolder(tmp_path, size=8).digest() == known
    assert ImageFolder(tmp_path, size=4).digest() != known
    assert ImageFolder(tmp_path, size=8, fit="pad").digest() != known
    assert ImageFolder(tmp_path, size=8, channels=1).digest() != known
    os.utime(tmp_path / "01.png", ns=(0, 1))
    assert ImageFolder(tmp_path, size=8).digest() != known


def test_bad_file_is_reported_once_and_replaced_by_the_next(tmp_path: Path) -> None:
    write_folder(tmp_path, good=6, bad=(2, 3, 7))
    reported: list[str] = []
    images = ImageFolder(tmp_path, size=8, on_bad=lambda path, error: reported.append(path.name))
    for _ in range(2):
        assert levels(images, [2, 3, 7, 0]) == [4, 4, 8, 0]
    assert reported == ["02.png", "03.png", "07.png"]
    assert [path.name for path in images.bad_paths] == reported


def test_last_file_is_replaced_by_the_first(tmp_path: Path) -> None:
    write_folder(tmp_path, good=3, bad=(3,))
    assert levels(ImageFolder(tmp_path, size=8, on_bad=ignore), [3]) == [0]


def test_replacement_does_not_depend_on_what_came_before(tmp_path: Path) -> None:
    write_folder(tmp_path, good=20, bad=(3, 4, 11, 23))
    undisturbed = with_cache(ImageFolder(tmp_path, size=8, on_bad=ignore), tmp_path / "pixels")
    expected = levels(undisturbed, list(range(24)))
    resumed = ImageFolder(tmp_path, size=8, on_bad=ignore)
    assert levels(resumed, list(reversed(range(24)))) == expected[::-1]


def test_default_report_is_a_warning_by_name(tmp_path: Path) -> None:
    write_folder(tmp_path, good=2, bad=(1,))
    images = ImageFolder(tmp_path, size=8)
    with pytest.warns(UserWarning, match=r"01\.png: not an image.*another image takes its place") as caught:
        levels(images, [1, 1, 1])
    assert len(caught) == 1


def test_mostly_bad_folder_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, good=20, bad=tuple(range(20)))
    with pytest.raises(ImageError, match=r"16 of the 16 images seen cannot be read; the latest: .*15\.png"):
        ImageFolder(tmp_path, size=8, on_bad=ignore)[0]


def test_exactly_half_bad_is_borne(tmp_path: Path) -> None:
    write_folder(tmp_path, good=2, bad=(0, 1))
    assert levels(ImageFolder(tmp_path, size=8, on_bad=ignore), [2, 3, 0, 1]) == [2, 3, 2, 2]


def test_wholly_bad_folder_is_refused_each_time(tmp_path: Path) -> None:
    write_folder(tmp_path, good=0, bad=(0, 1))
    images = ImageFolder(tmp_path, size=8, on_bad=ignore)
    for message in ("2 of the 2 images", r"none of the 2 images can be read.*00\.png"):
        with pytest.raises(ImageError, match=message):
            images[0]


def test_no_folder_and_no_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, message in (
        ("empty", "no images found"),
        ("file", "this is a file"),
        ("missing", "no such file or folder"),
    ):
        with pytest.raises(UsageError, match=message):
            ImageFolder(tmp_path / name, size=8)


def test_pickle_carries_no_pixels(tmp_path: Path) -> None:
    write_folder(tmp_path / "in", good=40)
    images = ImageFolder(tmp_path / "in", size=8)
    images.cache = PixelCache(tmp_path / "pixels", num=40, shape=(3, 8, 8), note=print)
    before = len(pickle.dumps(images))
    list(images)
    assert len(pickle.dumps(images)) - before < 3 * 8 * 8
    assert levels(pickle.loads(pickle.dumps(images)), [5, 6]) == [5, 6]


def test_workers_yield_what_one_process_does(tmp_path: Path) -> None:
    write_folder(tmp_path, good=6, bad=(2,))
    alone = list(DataLoader(ImageFolder(tmp_path, size=8, on_bad=ignore), batch_size=3))
    images = ImageFolder(tmp_path, size=8)  # what is sent to a spawned worker must be importable there
    images.cache = PixelCache(tmp_path / "pixels", num=7, shape=(3, 8, 8), note=print)
    shared = list(DataLoader(images, batch_size=3, num_workers=2, multiprocessing_context="spawn"))
    assert [len(batch) for batch in shared] == [3, 3, 1]
    for expected, batch in zip(alone, shared, strict=True):
        torch.testing.assert_close(batch, expected, rtol=0, atol=0)
    kept = PixelCache(tmp_path / "pixels", num=7, shape=(3, 8, 8), note=print)
    assert [kept.read(i) is not None for i in range(7)] == [True, True, False, True, True, True, True]


def test_classes_are_folders_and_a_bad_file_is_replaced_within_its_own(tmp_path: Path) -> None:
    for name, level in (("a/1", 10), ("a/2", 20), ("b/1", 30), ("b/2", 40)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (level,) * 3).save(tmp_path / f"{name}.png")
    (tmp_path / "a" / "2.png").write_text("no picture")
    images = ImageFolder(tmp_path, size=8, on_bad=ignore, class_names=("a", "b"))
    labels = images.classes(range(4))
    assert labels is not None and labels.tolist() == [0, 0, 1, 1]
    assert [int(images[i][0, 0, 0]) for i in range(4)] == [10, 10, 30, 40]
    pairs = WithClasses(images, images)
    assert [(int(x[0, 0, 0]), int(y)) for x, y in (pairs[i] for i in range(len(pairs)))] == [
        (10, 0), (10, 0), (30, 1), (40, 1),
    ]  # fmt: skip
    (tmp_path / "a" / "1.png").write_text("no picture")
    images = ImageFolder(tmp_path, size=8, on_bad=ignore, class_names=("a", "b"))
    with pytest.raises(ImageError, match="none of the 2 images of a can be read"):
        images[0]
    plain = ImageFolder(tmp_path, size=8, on_bad=ignore)
    assert plain.classes([0]) is None and int(plain[2][0, 0, 0]) == 30
    with pytest.raises(UsageError, match="b is none of the classes a, c"):
        ImageFolder(tmp_path, size=8, class_names=("a", "c"))
