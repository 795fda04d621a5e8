"""Inversion on the shipped bundle: what issue 5 promises of it, on a few faces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.fixed_point import fixed_point_encode
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.kernels.two_step import two_step_decode, two_step_encode

FACES = sorted((Path(__file__).resolve().parents[2] / "assets" / "faces").glob("*.png"))[:2]
LOG_SNR = SamplingSpec(clip_x_0=False, spacing="log-snr")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces() -> Iterator[tuple[Tensor, EpsFn]]:
    """Two faces, and the bundle's denoiser for their codes."""
    from rdm_cli.pipeline.pipeline import open_pipeline

    pipeline = open_pipeline("avatars64-diffae", device="cpu", batch_size=len(FACES))
    model: Any = pipeline.bundle.model
    x_0 = pipeline.load_images(FACES)
    with torch.no_grad():
        yield x_0, pipeline.eps_fn(model.encode(x_0))


def worst_psnr_db(x_0: Tensor, back: Tensor) -> float:
    error = ((back.double() - x_0.double()) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * error.log10()).min())


def test_fixed_point_is_10_db_above_ddim_at_equal_network_calls(faces: tuple[Tensor, EpsFn]) -> None:
    x_0, eps_fn = faces
    x_T = last(fixed_point_encode(eps_fn, x_0, LOG_SNR, 10, num_iterations=2))
    solved = worst_psnr_db(x_0, last(ddim_decode(eps_fn, x_T, LOG_SNR, 10)))
    x_T = last(ddim_encode(eps_fn, x_0, LOG_SNR, 15))
    assert solved > worst_psnr_db(x_0, last(ddim_decode(eps_fn, x_T, LOG_SNR, 15))) + 10


def test_exact_is_far_above_70_db(faces: tuple[Tensor, EpsFn]) -> None:
    x_0, eps_fn = faces
    states = last(two_step_encode(eps_fn, x_0, LOG_SNR, 10))
    assert worst_psnr_db(x_0, last(two_step_decode(eps_fn, states, LOG_SNR, 10))) > 150
