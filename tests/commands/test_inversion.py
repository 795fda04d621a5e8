"""Codes that decode to the very image: three inversions, lossless codes, and what is refused.

The tiny bundle's network is a random one, on which each inversion has a harder time than on a trained one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import Codes, read_info
from rdm_cli.errors import CodeError, UsageError
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline import effort
from rdm_cli.pipeline.effort import Effort, encode_verified, ladder
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline

Rdm = Callable[..., Any]


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(bundle=open_bundle(str(tiny_bundle)))


def images(num: int = 4) -> Tensor:
    coarse = torch.rand(num, 3, 4, 4, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=16, mode="bicubic").clamp(-1, 1)


def loaded(x_0: Tensor) -> list[LoadedImage]:
    return [LoadedImage(x_0=one) for one in x_0]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def test_exact_gives_the_image_back_and_fixed_point_nearly(pipeline: Pipeline) -> None:
    x_0 = images()

    def worst(inversion: str, **how: Any) -> float:
        codes = pipeline.encode(x_0, inversion=inversion, **how)
        return float(psnr(x_0, pipeline.decode(codes)).min())

    assert worst("exact", steps=4) > 100  # float32 pictures: rounding alone is left
    assert worst("exact", steps=19) > 100
    solved = [worst("fixed-point", steps=20, iterations=n) for n in (1, 3, 6)]
    assert solved[0] < solved[1] < solved[2]
    assert solved[1] > worst("ddim", steps=40) + 10  # 80 network calls each, there and back
    with pytest.raises(UsageError, match="only decodes"):
        pipeline.encode(x_0, inversion="heun")
    with pytest.raises(UsageError, match="exact takes 2 to 1000"):
        pipeline.encode(x_0, inversion="exact", steps=1)


def test_a_pair_survives_its_file_and_nothing_else_is_stored_so_wide(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    x_0 = images(2)
    codes = pipeline.encode(x_0, inversion="exact", steps=6)
    assert codes.other is not None and codes.x_T is not None
    assert codes.x_T.dtype == codes.other.dtype == torch.float64 and codes.z.dtype == torch.float32
    assert codes.infos[0].solver == "exact" and codes.infos[0].spacing == "log-snr"
    codes.save([tmp_path / "a", tmp_path / "b"])
    again = Codes.concatenate([Codes.load(tmp_path / name) for name in "ab"])
    assert torch.equal(pipeline.decode(again), pipeline.decode(codes))
    assert float(psnr(x_0, pipeline.decode(again)).min()) > 100
    narrow = pipeline.encode(x_0, inversion="fixed-point", steps=6)
    assert narrow.other is None and narrow.x_T is not None and narrow.x_T.dtype == torch.float32


def test_such_codes_decode_one_way_alone(pipeline: Pipeline) -> None:
    x_0 = images(1)
    for inversion in ("exact", "fixed-point"):
        codes = pipeline.encode(x_0, inversion=inversion, steps=6)
        with pytest.raises(CodeError, match=f"made by {inversion} in 6 steps, and decodes in no other way"):
            pipeline.decode(codes, steps=7)
        assert torch.equal(pipeline.decode(codes, steps=6), pipeline.decode(codes))
        drawn = pipeline.decode(codes.without_x_T(), steps=7)  # another x_T owes it nothing
        assert torch.isfinite(drawn).all()
    plain = pipeline.encode(x_0, steps=6)
    assert not torch.equal(pipeline.decode(plain, steps=7), pipeline.decode(plain))


def test_edits_and_paths_start_from_such_codes(pipeline: Pipeline) -> None:
    x_0 = images(2)
    for inversion in ("exact", "fixed-point"):
        codes = pipeline.encode(x_0, inversion=inversion, steps=20)
        still = pipeline.decode(pipeline.manipulate(codes, {"smiling": 0.0}))
        assert float(psnr(x_0, still).min()) > (100 if inversion == "exact" else 35)
        moved = pipeline.decode(pipeline.manipulate(codes, {"smiling": 0.5}))
        assert torch.isfinite(moved).all() and not torch.allclose(moved, still)
        first, second = codes[0], codes[1]
        path = pipeline.interpolate(first, second, [0.0, 0.5, 1.0])
        walked = pipeline.decode(path)
        assert torch.isfinite(walked).all()
        by_shifts = pipeline.trajectory(first, second, [0.0, 0.5, 1.0])
        assert torch.isfinite(by_shifts).all()
        for ends in (walked[::2], by_shifts[::2]):
            assert float(psnr(x_0, ends).min()) > (100 if inversion == "exact" else 35)
    with pytest.raises(CodeError, match=r"of two kinds: fixed-point log-snr in 20 steps and ddim"):
        pipeline.interpolate(codes[0], pipeline.encode(x_0[1:], steps=20), [0.5])


@pytest.mark.long
def test_harder_ways_until_it_is_good_enough(pipeline: Pipeline) -> None:
    x_0 = images(2)
    (least,) = {v.code.infos[0].solver for v in encode_verified(pipeline, loaded(x_0), Effort())}  # type: ignore[union-attr]
    assert least == "ddim"
    rungs = ladder(pipeline, Effort())
    assert [r.way(pipeline.bundle).sampling.solver for r in rungs] == ["ddim"] * 2 + ["fixed-point"] * 3 + [
        "exact"
    ] * 2
    assert [(r.steps, r.iterations) for r in rungs[2:]] == [
        (None, None),
        (20, None),
        (20, 5),
        (None, None),
        (38, None),
    ]
    # what is weaker than the user's own is no next step
    assert [r.steps for r in ladder(pipeline, Effort(inversion="fixed-point", steps=25))] == [
        25,
        20,
        None,
        38,
    ]
    assert ladder(pipeline, Effort(inversion="exact", steps=50)) == [Effort(inversion="exact", steps=50)]
    for wanted in (20.0, 55.0, 90.0):
        made = encode_verified(pipeline, loaded(x_0), Effort(), min_psnr_db=wanted)
        for i, one in enumerate(made):
            assert not isinstance(one, Exception) and one.psnr_db >= wanted
            # beyond 100 dB it is float32's last digits that are compared
            again = float(psnr(x_0[i : i + 1], pipeline.decode(one.code)))
            assert again == pytest.approx(one.psnr_db, abs=0.5) or min(again, one.psnr_db) > 100


def test_what_is_no_picture_is_no_code(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Pipeline, "decode", lambda self, codes, **_: torch.full_like(images(len(codes)), torch.nan)
    )
    for wanted in (None, 10.0):
        made = encode_verified(pipeline, loaded(images(2)), Effort(steps=2), min_psnr_db=wanted)
        assert ["not finite" in str(one) for one in made] == [True, True]


def test_codes_decode_in_the_precision_that_they_were_made_in(
    tiny: Rdm, faces: Path, tmp_path: Path, pipeline: Pipeline
) -> None:
    words = ("--inversion", "exact", "--steps", 6, "--lossless", "--precision", "bf16")
    assert tiny("encode", faces / "a.png", faces / "b.png", "-o", tmp_path, *words).code == 0
    out = tmp_path / "out"
    assert tiny("decode", tmp_path / "a.safetensors", "-o", out).code == 0
    assert (pixels(out / "a.png") == pixels(faces / "a.png")).all()
    refused = tiny("decode", tmp_path / "b.safetensors", "-o", out, "--precision", "fp32")
    assert refused.code == 1 and "made in bf16 and does not decode in fp32; --precision bf16" in refused.err
    code = Codes.load(tmp_path / "b.safetensors")
    code.replace(infos=(replace(code.infos[0], precision="int4"),)).save([tmp_path / "b.safetensors"])
    unknown = tiny("decode", tmp_path / "b.safetensors", "-o", out)
    assert unknown.code == 1 and "records the precision 'int4', unknown here" in unknown.err
    ends = [pipeline.encode(images(1), inversion="exact", steps=6)] * 2
    ends[1] = ends[1].replace(infos=(replace(ends[1].infos[0], precision="bf16"),))
    with pytest.raises(CodeError, match="made in bf16"):
        pipeline.trajectory(ends[0], ends[1], [0.5])


def test_codes_that_record_what_cannot_be_are_refused(pipeline: Pipeline) -> None:
    codes = pipeline.encode(images(1), inversion="exact", steps=6)
    for hostile in ({"steps": 1}, {"steps": 1000, "spacing": "linspace"}):
        with pytest.raises(UsageError, match=f"steps {hostile['steps']}: exact takes 2 to"):
            pipeline.decode(codes.replace(infos=(replace(codes.infos[0], **hostile),)))


def test_what_no_way_reaches_is_said(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "ladder", lambda pipeline, first: [first])
    made = encode_verified(pipeline, loaded(images()), Effort(), min_psnr_db=30.0)
    assert all(isinstance(one, CodeError) for one in made)
    assert "dB and no more, 30 were asked for" in str(made[0])


@pytest.mark.parametrize("inversion", ["ddim", "fixed-point", "exact"])
def test_lossless_codes_restore_every_pixel(tiny: Rdm, faces: Path, tmp_path: Path, inversion: str) -> None:
    codes, out = tmp_path / "codes", tmp_path / "out"
    words = ("--lossless", "--inversion", inversion, "--steps", 6)
    made = tiny("encode", faces, "-o", codes, *words, "--json")
    assert made.code == 0 and len(made.objects) == 5
    sizes = made.objects[0]["bytes"]
    assert {"z", "x_T", "residual", "as_png", "as_webp"} <= sizes.keys() and sizes["residual"] > 0
    assert ("other" in sizes) == (inversion == "exact")
    told = tiny("encode", faces / "a.png", "-o", tmp_path, *words, "--force")
    assert f"residual {sizes['residual']:,}" in told.out and "as lossless WebP" in told.out
    again = tiny("encode", faces, "-o", codes, *words)
    assert "5 already done" in again.err
    for size, threads in ((3, 2), (1, 1)):
        decoded = tiny("decode", codes, "-o", out, "--batch-size", size, "--threads", threads)
        assert decoded.code == 0
        for name in ("a", "b", "c", "d", "sub/e"):
            assert (pixels(out / f"{name}.png") == pixels(faces / f"{name}.png")).all()
    # another picture of the same code is no restored image
    words = ("--x-t", "random")
    kept = tiny("decode", codes / "a.safetensors", "-o", out, *words)
    assert kept.code == 1 and "a.png: is there already, made otherwise" in kept.err
    other = tiny("decode", codes / "a.safetensors", "-o", tmp_path / "other", *words)
    assert other.code == 0 and (pixels(tmp_path / "other" / "a.png") != pixels(faces / "a.png")).any()


def test_a_residual_that_does_not_fit_is_no_picture(
    tiny: Rdm, faces: Path, tmp_path: Path, pipeline: Pipeline
) -> None:
    words = ("--lossless", "--inversion", "exact", "--steps", 6)
    assert tiny("encode", faces / "a.png", faces / "b.png", "-o", tmp_path, *words).code == 0
    path = tmp_path / "a.safetensors"
    code = Codes.load(path)
    assert code.x_T is not None and code.residuals is not None
    code.replace(x_T=torch.zeros_like(code.x_T)).save([path])
    refused = tiny("decode", tmp_path, "-o", tmp_path / "out")
    assert refused.code == 3 and "a.safetensors: the code decodes too far" in refused.err
    assert not (tmp_path / "out" / "a.png").exists() and (tmp_path / "out" / "b.png").exists()
    code.replace(residuals=(code.residuals[0][:7],)).save([path])
    damaged = tiny("decode", path, "-o", tmp_path / "out")
    assert damaged.code == 1 and "residual cannot be used" in damaged.err
    code.replace(infos=(replace(code.infos[0], solver="unheard-of"),)).save([path])
    unknown = tiny("decode", path, "-o", tmp_path / "out")
    assert unknown.code == 1 and "records solver 'unheard-of'" in unknown.err


def test_two_levels_off_elsewhere_is_no_matter(pipeline: Pipeline) -> None:
    """What another machine decodes: every value of the picture up to two levels off."""
    from rdm_cli.codes.lossless import restored, with_residual
    from rdm_cli.data.images.pixels import to_pixels, to_unit_range

    x_0 = to_unit_range(to_pixels(images(1)))
    code = pipeline.encode(x_0, steps=6)
    picture = pipeline.decode(code)
    lossless = with_residual(code, x_0, picture)
    levels = to_pixels(picture).int()
    for seed in range(5):
        noise = torch.randint(-2, 3, levels.shape, generator=torch.Generator().manual_seed(seed))
        elsewhere = to_unit_range((levels + noise).clamp(0, 255).byte())
        assert torch.equal(restored(lossless, elsewhere), to_pixels(x_0)[0])


def test_options(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    one = (faces / "a.png", "-o", tmp_path)
    assert tiny("encode", *one, "--no-x-t", "--lossless").code == 2
    assert tiny("encode", *one, "--no-x-t", "--min-psnr", 30).code == 2
    assert "--verify needs an x_T" in tiny("encode", *one, "--no-x-t", "--verify").err
    solves = tiny("encode", *one, "--iterations", 2)
    assert solves.code == 2 and "--iterations: ddim solves no equation" in solves.err
    assert tiny("encode", *one, "--min-psnr", 60, "--json").objects[0]["psnr_db"] >= 60
    info = read_info(tmp_path / "a.safetensors")
    assert info.psnr_db is None or info.psnr_db >= 60
    assert "1 already done" in tiny("encode", *one, "--min-psnr", 50).err
    assert "encoded 1" in tiny("encode", *one, "--min-psnr", 140).err
    fixed = ("--inversion", "fixed-point", "--steps", 5)
    refused = tiny("encode", *one, *fixed)
    assert refused.code == 1 and "holds more than is asked for" in refused.err
    assert tiny("encode", *one, *fixed, "--force").code == 0
    assert "1 already done" in tiny("encode", *one, *fixed).err
    assert "encoded 1" in tiny("encode", *one, *fixed, "--iterations", 4).err
    refused = tiny("decode", tmp_path / "a.safetensors", "-o", tmp_path / "d", "--steps", 3)
    assert refused.code == 1 and "leave out --steps and --solver" in refused.err
    assert len(refused.err.splitlines()) == 2  # the problem and the summary
    again = tiny("reconstruct", *one, "--inversion", "fixed-point", "--steps", 20, "--json")
    assert again.code == 0 and again.objects[0]["psnr_db"] > 30
    moved = tiny("manipulate", *one, "--attr", "smiling", "--inversion", "exact", "--steps", 5)
    assert moved.code == 0 and Codes.load(tmp_path / "a-smiling+0.3.safetensors").other is not None
    ends = (faces / "a.png", faces / "b.png")
    assert tiny("interpolate", *ends, "-o", tmp_path / "w", "--frames", 3, *fixed).code == 0


@pytest.mark.parametrize("solver", ["ancestral", "dpm-solver++", "unipc", "heun"])
def test_samples_are_decoded_again_by_the_solver_that_drew_them(
    tiny: Rdm, tmp_path: Path, solver: str
) -> None:
    drawn = tiny("sample", "-n", 2, "-o", tmp_path / "s", "--solver", solver, "--steps", 4)
    assert drawn.code == 0
    code = tmp_path / "s" / "000001.safetensors"
    assert read_info(code).solver == solver and read_info(code).steps == 4
    assert tiny("decode", code, "-o", tmp_path / "again").code == 0
    # alone it is decoded at another batch size, which rounds differently
    shown, again = (pixels(tmp_path / name / "000001.png") for name in ("s", "again"))
    assert abs(shown - again).max() <= 1
    other = ("sample", "-n", 2, "-o", tmp_path / "p", "--solver", solver, "--steps", 4)
    assert tiny(*other, "--prior-solver", solver, "--prior-steps", 6).code == 0
    assert abs(pixels(tmp_path / "p" / "000001.png") - shown).max() > 0
    assert tiny("decode", code, "-o", tmp_path / "ddim", "--solver", "ddim").code == 0
    assert abs(pixels(tmp_path / "ddim" / "000001.png") - shown).max() > 0
