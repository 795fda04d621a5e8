"""The shipped bundle: its first stage is diffusers' own, faces come back, codes are drawn from N(0, I)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rdm_cli import Pipeline, open_pipeline
from rdm_cli.bundles.places import shipped_bundles
from rdm_cli.metrics.reconstruction import psnr

NAME = "avatars64-lrdm"
FACES = sorted((Path(__file__).resolve().parents[3] / "assets" / "faces").glob("*.png"))
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline(NAME, device="cpu", batch_size=len(FACES))


@pytest.fixture(scope="module")
def x_0(pipeline: Pipeline) -> Tensor:
    return pipeline.load_images(FACES)


def test_diffusers_opens_the_first_stage_and_agrees(pipeline: Pipeline, x_0: Tensor) -> None:
    from diffusers import AutoencoderKL

    folder = shipped_bundles()[NAME] / "first_stage"
    theirs = cast(Any, AutoencoderKL.from_pretrained(folder)).float().eval()
    model: Any = pipeline.bundle.model
    with torch.no_grad():
        latents = theirs.encode(x_0).latent_dist.mode()
        decoded = theirs.decode(latents).sample
        z_0 = model.enter(x_0)
        torch.testing.assert_close(z_0, latents * model.unet.scale_factor, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(model.leave(z_0), decoded, atol=1e-5, rtol=1e-5)
    assert float(psnr(x_0, decoded).mean()) > 27


def test_faces_come_back_nearly_as_from_the_first_stage(pipeline: Pipeline, x_0: Tensor) -> None:
    model: Any = pipeline.bundle.model
    with torch.no_grad():
        bound = float(psnr(x_0, model.leave(model.enter(x_0))).mean())
    codes = pipeline.encode(x_0, steps=20)
    back = float(psnr(x_0, pipeline.decode(codes)).mean())
    assert back > bound - 2.5
    others = float(psnr(x_0, pipeline.decode(codes.replace(z=codes.z.roll(1, 0)))).mean())
    assert others < back - 10
    assert codes.x_T is not None and 0.7 < float(codes.x_T.std()) < 1.3


def test_samples_are_drawn_without_a_second_model(pipeline: Pipeline) -> None:
    assert not (shipped_bundles()[NAME] / "prior").exists()
    codes = pipeline.sample(4, seed=0)
    again = pipeline.sample(4, seed=0)
    assert torch.equal(codes.z, again.z) and abs(float(codes.z.std()) - 1) < 0.05
    pictures = pipeline.decode(codes, steps=10)
    assert pictures.shape == (4, 3, 64, 64) and bool(pictures.isfinite().all())
    assert float(pictures.std(dim=0).mean()) > 0.1  # four faces, not one


def test_size() -> None:
    sizes = [path.stat().st_size for path in shipped_bundles()[NAME].rglob("*") if path.is_file()]
    assert max(sizes) < 16 * MEGABYTE and sum(sizes) < 24 * MEGABYTE
