"""rdm bundles, with the authors' files among them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from rdm_cli.bundles import places as bundle_folders
from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.training.attributes import _parts

Rdm = Callable[..., Any]
FILES = ("official_tiny.ckpt", "official_tiny_latent.pkl", "official_tiny_cls.ckpt")
Z, X_T, IMAGE = 1e-5, 2e-4, 5e-5  # golden/README.md


def test_list(rdm: Rdm, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_folders, "shipped_bundles", lambda: {"tiny": tiny_bundle})
    listed = next(one for one in rdm("bundles", "list", "--json").objects if one["place"] == "shipped")
    assert (listed["bundle"], listed["method"], listed["image_size"]) == ("tiny", "diffae", 16)
    (row,) = [line for line in rdm("bundles", "list").lines if line.startswith("tiny")]
    assert row.split()[:3] == ["tiny", "diffae", "16"]


def test_show(rdm: Rdm, tiny_bundle: Path) -> None:
    (facts,) = rdm("bundles", "show", tiny_bundle, "--json").objects
    assert facts["digest"] == open_bundle(str(tiny_bundle)).digest and facts["z_shape"] == [8]
    assert facts["digest"] in rdm("bundles", "show", tiny_bundle).out
    assert rdm("bundles", "show", tiny_bundle, "--card").out == "# tiny\n"


def test_check(rdm: Rdm, tiny_bundle: Path) -> None:
    result = rdm("bundles", "check", tiny_bundle)
    assert result.code == 0 and result.err == ""
    assert [line.split("\t")[1] for line in result.lines] == ["ok"] * 5


def test_a_copy_is_ones_own_to_write_to(
    rdm: Rdm, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shipped bundle is read-only; its copy has its digest, takes attributes, and leaves it as it was."""
    shipped = Path(shutil.copytree(tiny_bundle, tmp_path / "assets" / "bundles" / "ours"))
    monkeypatch.setattr(bundle_folders, "assets_folder", lambda: tmp_path / "assets")
    before = {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()}
    z = torch.randn(60, 8, generator=torch.Generator().manual_seed(0))
    opened = open_bundle("ours")
    info = CodeInfo(method="diffae", bundle="ours", bundle_digest=opened.digest, image_size=16)
    codes = tmp_path / "codes"
    Codes(z=z, x_T=None, infos=(info,) * 60).save([codes / f"{i:02d}.safetensors" for i in range(60)])
    labels = tmp_path / "m.csv"
    *_, held_out = _parts(60, 0.2, 0)
    hat = ((z[:, 0] > 0) ^ held_out).tolist()  # the classifier learns the opposite of what it is scored on
    rows = "".join(f"{i:02d}.png,{int(hat[i])},{'' if i else 'maybe'}\n" for i in range(60))
    labels.write_text("file_name,hat,odd\n" + rows)
    train = ("train", "attributes", codes, "--labels", labels)
    refused = rdm(*train, "-b", "ours")
    assert refused.code == 2 and "rdm bundles copy ours DIR" in refused.err
    prior = ("train", "prior", codes, "--samples", 64, "--batch-size", 8, "--layers", 2, "--hidden-width", 8)
    assert rdm(*prior, "-b", shipped).code == 2
    mine = tmp_path / "mine"
    copied = rdm("bundles", "copy", "ours", mine)
    assert copied.code == 0 and copied.lines == [str(mine)]
    assert open_bundle(str(mine)).digest == opened.digest
    trained = rdm(*train, "-b", mine)
    assert trained.code == 0 and trained.lines[0].startswith("hat\tAUROC")
    assert "kept: smiling, glasses" in trained.err
    assert "m.csv: columns that are no labels: odd (line 2 says neither yes nor no)" in trained.err
    assert "attribute 'hat' was hardly learned: AUROC 0." in trained.err
    assert "in place of the prior that mine had" in rdm(*prior, "-b", mine).err
    assert "dropped: smiling, glasses" in rdm(*train, "-b", mine, "--replace").err
    assert {path: path.read_bytes() for path in shipped.rglob("*") if path.is_file()} == before


def test_a_copy_takes_no_ones_place(rdm: Rdm, tiny_bundle: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_bundle, tmp_path / "source"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"precious")
    for place, told in ((tmp_path / "photos", "photos exists"), (source / "copy", "cannot lie within")):
        refused = rdm("bundles", "copy", source, place)
        assert refused.code == 2 and told in refused.err
    assert not (source / "copy").exists() and (tmp_path / "photos" / "a.png").read_bytes() == b"precious"
    for folder in (source / "unet", source):
        folder.chmod(0o555)  # as an installation may have it
    assert rdm("bundles", "copy", source, tmp_path / "copy").code == 0
    assert (tmp_path / "copy" / "unet").stat().st_mode & 0o700 == 0o700
    for folder in (source, source / "unet"):
        folder.chmod(0o755)
    assert rdm("bundles", "copy", tmp_path / "photos", tmp_path / "new").code == 2
    assert not (tmp_path / "new").exists()


@pytest.fixture(scope="module")
def official(golden: Callable[[str], Path]) -> Path:
    return golden("diffae")


@pytest.fixture(scope="module")
def tensors(official: Path) -> dict[str, torch.Tensor]:
    return load_file(official / "golden.safetensors")


@pytest.fixture
def converted(rdm: Rdm, official: Path, tmp_path: Path) -> Path:
    output = tmp_path / "converted"
    result = rdm("bundles", "convert", "diffae", *(official / name for name in FILES), "-o", output)
    assert result.code == 0 and result.lines == [str(output)]
    return output


@pytest.mark.golden
def test_the_order_of_files_is_free(rdm: Rdm, official: Path, converted: Path, tmp_path: Path) -> None:
    def weights(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.safetensors"))}

    expected = weights(converted)
    assert len(expected) == 4  # encoder, UNet, prior, attributes
    for i, order in enumerate(list(permutations(FILES))[1::2]):
        output = tmp_path / str(i)
        assert rdm("bundles", "convert", "diffae", *(official / n for n in order), "-o", output).code == 0
        assert weights(output) == expected
    assert rdm("bundles", "check", converted).code == 0
    assert rdm("bundles", "convert", "diffae", official / FILES[0], "-o", converted, "--force").code == 0
    assert [p.name for p in sorted(converted.iterdir()) if p.is_dir()] == [
        "encoder",
        "prior",
        "scheduler",
        "unet",
    ]  # this file alone holds the prior too, and no attributes


@pytest.mark.golden
def test_parity_of_encoding(
    rdm: Rdm, converted: Path, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """convert, then encode --steps 20.

    The authors' input is not of 8 bits, so no image file holds it. It goes through the Python API, where
    z and x_T meet the authors'; the command line meets the Python API, on the nearest image, bit for bit.
    """
    pipeline = Pipeline(bundle=open_bundle(str(converted)))
    x_0 = tensors["x"]
    ours = pipeline.encode(x_0, steps=20)
    assert ours.x_T is not None
    torch.testing.assert_close(ours.z, tensors["z_sem"], rtol=0, atol=Z)
    torch.testing.assert_close(ours.x_T, tensors["ddim_encode.x_T.T20"], rtol=0, atol=X_T)
    images = [tmp_path / f"{i}.png" for i in range(2)]
    for picture, path in zip(x_0, images, strict=True):
        to_pil(picture).save(path)
    result = rdm("encode", *images, "--steps", 20, "-b", converted, "-o", tmp_path / "codes")
    assert result.code == 0
    stored = Codes.concatenate([Codes.load(tmp_path / "codes" / f"{i}.safetensors") for i in range(2)])
    nearest = pipeline.encode(pipeline.load_images(images), steps=20)
    assert stored.x_T is not None and nearest.x_T is not None
    assert torch.equal(stored.z, nearest.z) and torch.equal(stored.x_T, nearest.x_T)
    # half a level of 255 is small beside what an image has: z hardly moves
    assert (stored.z - tensors["z_sem"]).abs().max() < 0.01 * tensors["z_sem"].abs().max()


@pytest.mark.golden
def test_parity_of_decoding(
    rdm: Rdm, converted: Path, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """convert, then decode --steps 20 of the authors' own z and x_T, to within the rounding of a PNG."""
    pipeline = Pipeline(bundle=open_bundle(str(converted)))
    codes = Codes(
        z=tensors["z_sem"], x_T=tensors["ddim_encode.x_T.T20"], infos=(pipeline.info(steps=None),) * 2
    )
    codes.save([tmp_path / f"{i}.safetensors" for i in range(2)])
    result = rdm(
        "decode", tmp_path / "0.safetensors", tmp_path / "1.safetensors", "--steps", 20, "-b", converted
    )
    assert result.code == 0
    for i, expected in enumerate(tensors["ddim_decode.img01.T20"]):
        with Image.open(tmp_path / f"{i}.png") as image:
            ours = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        torch.testing.assert_close(ours, expected, rtol=0, atol=0.5 / 255 + IMAGE)


@pytest.mark.golden
def test_a_converted_prior_and_attributes_work(rdm: Rdm, converted: Path, tmp_path: Path) -> None:
    listed = rdm("attributes", "list", "-b", converted, "--json").objects
    assert len(listed) == 40 and "smiling" in {o["attribute"] for o in listed}
    sample = ("sample", "-n", 2, "-b", converted, "--prior-steps", 5, "--steps", 2, "-o", tmp_path / "o")
    assert rdm(*sample).code == 0
    edit = ("manipulate", tmp_path / "o" / "000000.safetensors", "--attr", "smiling", "-b", converted)
    assert rdm(*edit, "-o", tmp_path / "e").code == 0
