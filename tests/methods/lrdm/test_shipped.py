"""The shipped bundle: its first stage is diffusers' own, faces come back, and a prior draws its codes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from rdm_cli import Pipeline, open_pipeline
from rdm_cli.bundles.places import shipped_bundles
from rdm_cli.data.avatars import write_avatars
from rdm_cli.metrics.reconstruction import psnr

NAME = "avatars128-lrdm"
NUM = 3
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline(NAME, device="cpu", batch_size=NUM)


@pytest.fixture(scope="module")
def x_0(pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Faces that nothing was trained on, drawn at the bundle's size: those of assets/ are of 64 px."""
    drawn = write_avatars(tmp_path_factory.mktemp("faces"), num_images=NUM, size=128, seed=9)
    return pipeline.load_images([path for path in drawn if path.suffix == ".png"])


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
    assert float(psnr(x_0, decoded).mean()) > 44


def test_faces_come_back_nearly_as_from_the_first_stage(pipeline: Pipeline, x_0: Tensor) -> None:
    model: Any = pipeline.bundle.model
    with torch.no_grad():
        bound = float(psnr(x_0, model.leave(model.enter(x_0))).mean())
    codes = pipeline.encode(x_0, steps=10)
    back = float(psnr(x_0, pipeline.decode(codes)).mean())
    assert back > bound - 6
    others = float(psnr(x_0, pipeline.decode(codes.replace(z=codes.z.roll(1, 0)))).mean())
    assert others < back - 10
    assert codes.x_T is not None and 0.7 < float(codes.x_T.std()) < 1.3


def test_samples_are_drawn_by_the_prior_or_from_a_gaussian(pipeline: Pipeline) -> None:
    codes, again = (pipeline.sample(4, seed=0) for _ in range(2))
    assert torch.equal(codes.z, again.z)
    pictures = pipeline.decode(codes)
    assert pictures.shape == (4, 3, 128, 128) and bool(pictures.isfinite().all())
    assert float(pictures.std(dim=0).mean()) > 0.1  # four faces, not one
    gaussian = replace(pipeline, prior="gaussian").sample(
        4, seed=0
    )  # the paper's way, without a second model
    assert not torch.equal(gaussian.z, codes.z) and abs(float(gaussian.z.std()) - 1) < 0.1


def test_size() -> None:
    sizes = [path.stat().st_size for path in shipped_bundles()[NAME].rglob("*") if path.is_file()]
    assert max(sizes) < 16 * MEGABYTE and sum(sizes) < 24 * MEGABYTE
