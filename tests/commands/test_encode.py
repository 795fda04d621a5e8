"""rdm encode over what people have in their folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rdm_cli.codes.code import Codes, read_info

Rdm = Callable[..., Any]
RNG = np.random.default_rng(0)


def pixels(*shape: int, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, high, shape).astype(dtype)


def write_rgb(path: Path) -> None:
    Image.fromarray(pixels(20, 24, 3)).save(path)


def write_cmyk(path: Path) -> None:
    Image.frombytes("CMYK", (24, 20), pixels(20, 24, 4).tobytes()).save(path)


def write_16_bit(path: Path) -> None:
    Image.fromarray(pixels(20, 24, high=65536, dtype=np.uint16)).save(path)


def write_rgba(path: Path) -> None:
    Image.fromarray(pixels(24, 20, 4)).save(path)


def write_grey(path: Path) -> None:
    Image.fromarray(pixels(16, 16)).save(path)


def write_palette(path: Path) -> None:
    Image.fromarray(pixels(20, 24, 3)).quantize(16).save(path)


def write_rotated(path: Path) -> None:
    image = Image.fromarray(pixels(20, 24, 3))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)


def write_animated(path: Path) -> None:
    frames = [Image.fromarray(pixels(20, 20, 3)) for _ in range(3)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def write_pixel(path: Path) -> None:
    Image.fromarray(pixels(1, 1, 3)).save(path)


KINDS: list[tuple[str, Callable[[Path], None]]] = [
    ("rgb.png", write_rgb), ("rgb.webp", write_rgb), ("rgb.bmp", write_rgb), ("cmyk.jpg", write_cmyk),
    ("deep.png", write_16_bit), ("deep.tiff", write_16_bit), ("alpha.png", write_rgba),
    ("grey.png", write_grey), ("palette.png", write_palette), ("palette.GIF", write_palette),
    ("rotated.jpeg", write_rotated), ("animated.gif", write_animated), ("pixel.png", write_pixel),
]  # fmt: skip


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 good images in three folders, and five bad ones."""
    root = tmp_path_factory.mktemp("mixed")
    for i in range(200):
        name, write = KINDS[i % len(KINDS)]
        folder = root / ("", "one", "one/two")[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / f"{i:03d}-{name}")
    whole = root / "one" / "truncated.png"
    write_rgb(whole)
    whole.write_bytes(whole.read_bytes()[:-400])
    (root / "empty.png").touch()
    (root / "text.png").write_text("this is no picture\n")
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "x.png").mkdir()
    return root


BAD = ("dangling.png", "empty.png", "one/truncated.png", "text.png", "x.png")


def test_200_good_images_and_5_bad_ones(tiny: Rdm, mixed: Path, tmp_path: Path) -> None:
    output, failures = tmp_path / "codes", tmp_path / "failures.jsonl"
    command = ("encode", mixed, "-o", output, "--steps", 2, "--batch-size", 16, "--failures", failures)
    first = tiny(*command)
    assert first.code == 3
    written = sorted(output.rglob("*"))
    stamps = {p: p.stat().st_mtime_ns for p in written if p.is_file()}
    assert len(stamps) == len(first.lines) == 200
    assert {Path(line) for line in first.lines} == set(stamps)
    images = {p.relative_to(mixed).with_suffix("") for p in mixed.rglob("*") if p.stem[:3].isdigit()}
    assert {p.relative_to(output).with_suffix("") for p in stamps} == images
    for path in stamps:
        assert read_info(path).steps == 2
    for bad in BAD:
        (line,) = [text for text in first.err.splitlines() if str(mixed / bad) in text]
        assert line.startswith("rdm: ")
    assert "encoded 200 images" in first.err and "images/s" in first.err and "5 failed" in first.err
    told = [json.loads(line) for line in failures.read_text().splitlines()]
    assert sorted(t["input"] for t in told) == sorted(str(mixed / bad) for bad in BAD)
    assert all(set(t) == {"input", "error"} and t["error"] for t in told)

    second = tiny(*command)
    assert second.code == 3
    assert "encoded 0 images" in second.err
    assert "200 already done" in second.err and "5 failed" in second.err
    assert {p: p.stat().st_mtime_ns for p in output.rglob("*") if p.is_file()} == stamps
    assert all(str(mixed / bad) in second.err for bad in BAD)


def test_all_failed_is_1_and_all_done_is_0(tiny: Rdm, mixed: Path, faces: Path, tmp_path: Path) -> None:
    assert tiny("encode", mixed / "empty.png", mixed / "text.png", "-o", tmp_path / "o").code == 1
    assert not list((tmp_path / "o").rglob("*"))
    result = tiny("encode", faces, "-o", tmp_path / "o", "--failures", tmp_path / "f")
    assert result.code == 0 and (tmp_path / "f").read_text() == ""


def test_only_what_changed_is_encoded_again(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "codes"

    def encoded(*options: object) -> set[str]:
        result = tiny("encode", faces, "-o", output, "--json", *options)
        assert result.code == 0 and len(result.objects) == 5
        return {Path(o["input"]).stem for o in result.objects if not o["skipped"]}

    assert encoded("--steps", 2) == set("abcde")
    assert encoded("--steps", 2) == set()
    shutil.copy(faces / "a.png", faces / "b.png")
    assert encoded("--steps", 2) == {"b"}
    assert encoded("--steps", 3) == set("abcde")
    assert encoded("--steps", 3, "--fit", "stretch") == set("abcde")
    assert encoded("--no-x-t", "--force") == set("abcde")
    assert encoded("--no-x-t", "--steps", 4) == set()  # z alone takes no steps
    assert encoded("--no-x-t", "--force") == set("abcde")
    assert Codes.load(output / "a.safetensors").x_T is None


def test_results_lie_beside_their_images(tiny: Rdm, faces: Path) -> None:
    result = tiny("encode", faces / "a.png", faces / "sub", "--steps", 1)
    assert result.code == 0
    assert result.lines == [str(faces / "a.safetensors"), str(faces / "sub" / "e.safetensors")]
    assert sorted(p.name for p in faces.iterdir()) == [
        "a.png",
        "a.safetensors",
        *"b.png c.png d.png sub".split(),
    ]


def test_the_command_line_is_the_python_api(
    tiny: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    import torch

    from rdm_cli import open_pipeline

    verified = tiny("encode", faces / "a.png", "-o", tmp_path, "--verify", "--json").objects[0]
    pipeline = open_pipeline(str(tiny_bundle), device="cpu")
    x_0 = pipeline.load_images([faces / "a.png"])
    ours, stored = pipeline.encode(x_0), Codes.load(tmp_path / "a.safetensors")
    assert ours.x_T is not None and stored.x_T is not None
    assert torch.equal(ours.z, stored.z) and torch.equal(ours.x_T, stored.x_T)
    difference = (pipeline.decode(ours) - x_0).square().mean() / 4  # on the [0, 1] scale
    assert verified["mse"] == pytest.approx(float(difference), rel=1e-5)
    assert verified["psnr_db"] == pytest.approx(-10 * np.log10(float(difference)), abs=1e-3)


def test_quiet_says_what_failed_alone(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    assert tiny("encode", faces, "-o", tmp_path / "o", "-q", "--no-x-t").err == ""
    (faces / "bad.png").touch()
    result = tiny("encode", faces, "-o", tmp_path / "o", "-q", "--no-x-t")
    assert result.err.splitlines() == [f"rdm: {faces}/bad.png: the file is empty"]


def test_a_photo_comes_back_as_the_fitted_image_and_that_is_said(tiny: Rdm, tmp_path: Path) -> None:
    """In the record of its code, in its line, and once a run: also where nothing is lost of it."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, size in (("a", (160, 120)), ("b", (16, 16)), ("c", (33, 44))):
        Image.new("RGB", size, "teal").save(photos / f"{name}.png")
    upright = Image.Exif()
    upright[0x0112] = 6  # lies on its side
    Image.new("RGB", (60, 30), "teal").save(photos / "d.jpg", exif=upright)
    options = ("--steps", 2, "--inversion", "fixed-point", "--lossless", "--json")
    result = tiny("encode", photos, "-o", tmp_path / "o", *options)
    assert result.code == 0
    sizes = {Path(o["input"]).stem: (o["source_size"], o["image_size"]) for o in result.objects}
    assert sizes == {"a": ([160, 120], 16), "b": ([16, 16], 16), "c": ([33, 44], 16), "d": ([30, 60], 16)}
    for name, (size, _) in sizes.items():
        info = read_info(tmp_path / "o" / f"{name}.safetensors")
        assert (list(info.source_size or ()), info.image_size, info.fit) == (size, 16, "crop")
    (remark,) = [line for line in result.err.splitlines() if "fitted image" in line]
    assert remark == (
        "rdm: a code brings back the fitted image, not the file: 160x120 comes back as 16x16 (--fit crop); "
        "3 of 4 images had another size"
    )
    again = tiny("encode", photos, "-o", tmp_path / "o", *options)  # up to date, whatever its size
    assert [o["skipped"] for o in again.objects] == [True] * 4 and "fitted image" not in again.err
    alone = tiny("encode", photos / "b.png", "-o", tmp_path / "p", "--no-x-t")
    assert "fitted image" not in alone.err
    measured = tiny("reconstruct", photos / "a.png", "-o", tmp_path / "r", "--steps", 1)
    assert "160x120 comes back as 16x16" in measured.err


def test_a_code_of_before_that_knows_no_source_size_is_up_to_date(
    tiny: Rdm, faces: Path, tmp_path: Path
) -> None:
    tiny("encode", faces / "a.png", "-o", tmp_path, "--no-x-t")
    path = tmp_path / "a.safetensors"
    with safe_open(path, "pt") as file:
        known = json.loads(file.metadata()["rdm"])
    del known["source_size"]
    text = json.dumps(known, sort_keys=True, separators=(",", ":"))
    save_file(load_file(path), path, metadata={"rdm": text})
    before = path.read_bytes()
    assert read_info(path).source_size is None
    result = tiny("encode", faces / "a.png", "-o", tmp_path, "--no-x-t", "--json")
    assert result.objects[0]["skipped"] and path.read_bytes() == before
