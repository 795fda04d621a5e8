"""The scheduler's JSON: read back as it was, and opened by diffusers to the same end."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.scheduler_json import read_scheduler, scheduler_json
from rdm_cli.kernels.ddim import ddim_step
from rdm_cli.kernels.schedules import ScheduleConfig
from rdm_cli.kernels.spec import SamplingSpec


def test_diffusers_opens_the_scheduler(tiny_bundle: Path, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler  # 5 s, and this process may need it nowhere else

    shutil.copytree(tiny_bundle / "scheduler", tmp_path / "scheduler")
    bundle = open_bundle(str(tiny_bundle))
    theirs = DDIMScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    spec = bundle.model.sampling
    # diffusers' table is a float32 product of 1000 factors: 1000 roundings of 6e-8
    torch.testing.assert_close(theirs.alphas_cumprod.double(), spec.schedule.alpha_bar(), rtol=6e-5, atol=0)
    assert theirs.config.prediction_type == "v_prediction" and theirs.config.clip_sample
    for steps in (5, 10, 20, 50, 100, 250, 1000):
        theirs.set_timesteps(steps)
        assert theirs.timesteps.flip(0).tolist() == spec.trajectory(steps).t.tolist()


def test_one_step_of_diffusers_is_ours(tiny_bundle: Path) -> None:
    from diffusers import DDIMScheduler

    bundle = open_bundle(str(tiny_bundle))
    theirs = DDIMScheduler.from_pretrained(tiny_bundle, subfolder="scheduler")
    theirs.set_timesteps(10)
    path = bundle.model.sampling.trajectory(10)
    generator = torch.Generator().manual_seed(0)
    x_t, v = torch.randn(2, 2, 3, 4, 4, generator=generator)
    for i in (0, 5, 9):
        t, alpha_bar = int(path.t[i]), path.alpha_bar[i]
        eps = alpha_bar.sqrt().float() * v + (1 - alpha_bar).sqrt().float() * x_t
        to = path.alpha_bar_prev[i]
        ours = ddim_step(lambda *_, eps=eps: eps, x_t, t, alpha_bar, to, clip=True)
        expected = theirs.step(v, t, x_t, use_clipped_model_output=True).prev_sample
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spacing", ["stride", "linspace"])
@pytest.mark.parametrize("kind", ["linear", "constant", "cosine"])
def test_schedulers_survive_json(kind: str, spacing: str) -> None:
    schedule = ScheduleConfig(beta_kind=kind, beta_start=0.001, beta_end=0.01, num_train_steps=50)
    spec = SamplingSpec(schedule=schedule, spacing=spacing, clip_x_0=False, steps=7)
    values = json.loads(json.dumps(scheduler_json(spec, "x_0")))
    assert read_scheduler(values) == (spec, "x_0")
