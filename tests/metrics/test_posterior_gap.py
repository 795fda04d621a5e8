"""The posterior gap against the posterior means themselves, and against the authors' figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rdm_cli.kernels.ancestral import ancestral_step
from rdm_cli.kernels.parameterization import add_noise
from rdm_cli.kernels.schedules import LINEAR, ScheduleConfig
from rdm_cli.metrics.posterior_gap import posterior_gap


@pytest.mark.parametrize("schedule", [LINEAR, ScheduleConfig(beta_kind="cosine")])
def test_it_is_the_distance_of_two_posterior_means(schedule: ScheduleConfig) -> None:
    """Ho et al. (2020), eq. 7, which the ancestral step computes from x_0."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps, predicted = torch.randn(3, 4, 3, 8, 8, generator=generator, dtype=torch.float64)
    alpha_bar = schedule.alpha_bar()
    for t in (1, 10, 500, 900):
        x_t = add_noise(x_0, eps, alpha_bar[t].expand(4))
        means = [
            ancestral_step(lambda *_, e=e: e, x_t, t, alpha_bar[t], alpha_bar[t - 1], None, clip=False)
            for e in (eps, predicted)
        ]
        expected = (means[0] - means[1]).square().mean(dim=(1, 2, 3))
        t_batch = torch.full((4,), t)
        found = posterior_gap(schedule, t_batch, eps, predicted)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)
    assert not posterior_gap(schedule, t_batch, eps, eps).any()


def test_each_image_has_its_own_t() -> None:
    eps, predicted = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    both = posterior_gap(LINEAR, torch.tensor([5, 800]), eps, predicted)
    for i, t in enumerate((5, 800)):
        alone = posterior_gap(LINEAR, torch.tensor([t]), eps[i : i + 1], predicted[i : i + 1])
        torch.testing.assert_close(both[i : i + 1], alone)


@pytest.mark.golden
def test_the_authors_figures(golden: Callable[[str], Path]) -> None:
    """Their noise is uniform, t goes from 9 down to 0, and theirs are means over a batch of two."""
    from rdm_cli.methods.pdae.convert import read_pdae
    from rdm_cli.methods.pdae.model import PDAE

    folder = golden("pdae")
    files = [p for p in sorted(folder.iterdir()) if p.suffix in (".pt", ".yml")]
    official = read_pdae(files)
    model = PDAE(official.config)
    model.load_state_dict(official.state)
    model.eval().requires_grad_(False)
    g = load_file(folder / "golden.safetensors")
    for row, t in enumerate(range(9, -1, -1)):
        t_batch = torch.tensor([t, t])
        x_t = add_noise(g["x0_32"], g["uniform_32"], model.alpha_bar[t_batch])
        answers = model.one_step(x_t, t_batch, {"z": g["z"]})
        for name, expected in (("without z", g["gap_dpm"]), ("with z", g["gap_pdae"])):
            found = posterior_gap(LINEAR, t_batch, g["uniform_32"], answers[name]).mean()
            torch.testing.assert_close(found, expected[row], rtol=2e-5, atol=0.0)
