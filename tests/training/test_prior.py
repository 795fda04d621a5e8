"""Training the latent prior: what it learns, what it reports, and that it repeats."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.kernels.schedules import LINEAR
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.residual_mlp import ResidualMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIMConfig
from rdm_cli.training.prior import PriorSettings, PriorTraining, train_prior, what_is_told

WIDTH = 4
CONFIG = LatentDDIMConfig(
    network=LatentMLPConfig(z_width=WIDTH, hidden_width=64, num_layers=3, time_channels=32)
)
TOLD = LatentDDIMConfig(
    network=ResidualMLPConfig(z_width=WIDTH, hidden_width=64, num_layers=2, embedding_width=32),
    prediction="v",
    schedule=LINEAR,
    solver="dpm-solver++",
    steps=15,
    attributes=("shifted", "tall"),
)
SHORT = PriorSettings(num_samples=64 * 6, batch_size=64, warmup_steps=2, report_every_steps=3)


def codes(num: int = 400) -> Tensor:
    """Correlated Gaussian codes with a mean, (num, WIDTH)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.tensor(
        [[1.0, 0.8, 0.0, 0.0], [0.0, 0.6, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.1]]
    )
    return torch.randn(num, WIDTH, generator=generator) @ mix + torch.tensor([5.0, 0.0, -1.0, 0.0])


def test_the_codes_distribution_is_learned() -> None:
    z = codes(2000)
    settings = PriorSettings(num_samples=1500 * 128, batch_size=128, lr=2e-3, warmup_steps=50, ema_decay=0.99)
    prior = train_prior(z, CONFIG, settings=settings, seed=0)
    noise = torch.randn(2000, WIDTH, generator=torch.Generator().manual_seed(1))
    sampled = prior.normalise(prior.sample(noise, num_steps=50))
    real = prior.normalise(z)
    # A brief run of a tiny network; an untrained one misses the covariances by 1 and more.
    torch.testing.assert_close(sampled.mean(0), real.mean(0), rtol=0, atol=0.12)
    torch.testing.assert_close(sampled.T.cov(), real.T.cov(), rtol=0, atol=0.25)
    assert sampled.T.corrcoef()[0, 1] == pytest.approx(0.8, abs=0.1)


def test_runs_repeat_bit_for_bit_whatever_the_global_generator_does() -> None:
    records, weights = [], []
    for disturbance in (1, 2):
        torch.manual_seed(disturbance)
        training = PriorTraining(codes(), CONFIG, settings=SHORT, seed=3)
        losses = []
        for record in training.steps():
            torch.rand(disturbance)
            losses.append((record.loss, record.seen_loss, record.held_out_loss))
        records.append(losses)
        weights.append(training.result().state_dict())
    assert records[0] == records[1]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    other = train_prior(codes(), CONFIG, settings=SHORT, seed=4)
    assert not torch.equal(other.network.linear_out.weight, weights[0]["network.linear_out.weight"])


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(
    tmp_path: Path, optimizer: Literal["adam", "muon"]
) -> None:
    """Stopped after two of six steps, in another object: the same losses and weights as undisturbed."""
    settings = replace(SHORT, optimizer=optimizer)
    whole = PriorTraining(codes(), CONFIG, settings=settings, seed=3)
    losses = [record.loss for record in whole.steps()]
    first = PriorTraining(codes(), CONFIG, settings=settings, seed=3)
    for record in first.steps():
        if record.step == 2:
            break
    first.save(tmp_path)
    again = PriorTraining(codes(), CONFIG, settings=settings, seed=3)
    assert again.resume(tmp_path) and again.num_steps_done == 2
    rest = list(again.steps())
    assert [record.loss for record in rest] == losses[2:] and rest[0].num_samples == 3 * 64
    for name, value in whole.result().state_dict().items():
        assert torch.equal(again.result().state_dict()[name], value), name


def test_another_run_does_not_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    PriorTraining(codes(), CONFIG, settings=SHORT, seed=3).save(tmp_path)
    for z, settings, seed in (
        (codes() + 1, SHORT, 3),
        (codes(), replace(SHORT, lr=1e-5), 3),
        (codes(), SHORT, 4),
    ):
        other = PriorTraining(z, CONFIG, settings=settings, seed=seed)
        assert not other.resume(tmp_path) and other.num_steps_done == 0


def test_records_count_and_report_on_time() -> None:
    records = list(PriorTraining(codes(), CONFIG, settings=SHORT, seed=0).steps())
    assert [record.step for record in records] == [1, 2, 3, 4, 5, 6]
    assert records[-1].num_samples == SHORT.num_samples
    assert [record.held_out_loss is not None for record in records] == [False, False, True] * 2
    assert records[0].lr == pytest.approx(SHORT.lr / 2)
    assert 0 < records[-1].lr < SHORT.lr


def test_learning_by_heart_shows_in_the_held_out_loss() -> None:
    settings = PriorSettings(
        num_samples=600 * 64,
        batch_size=64,
        lr=2e-3,
        warmup_steps=20,
        ema_decay=0.98,
        held_out_fraction=0.5,
        report_every_steps=600,
    )
    training = PriorTraining(codes(16), CONFIG, settings=settings, seed=0)
    last = list(training.steps())[-1]
    assert last.seen_loss is not None and last.held_out_loss is not None
    assert last.held_out_loss > 1.2 * last.seen_loss


def test_held_out_codes_are_never_trained_on() -> None:
    z = codes(40)
    order = torch.randperm(40, generator=keyed_generator(0, "prior-held-out"))
    spoilt = z.clone()
    spoilt[order[:10]] += 100
    settings = PriorSettings(num_samples=64, batch_size=32, held_out_fraction=0.25)
    first, second = (train_prior(part, CONFIG, settings=settings, seed=0) for part in (z, spoilt))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_without_a_held_out_part_there_is_no_such_loss() -> None:
    settings = PriorSettings(num_samples=64, batch_size=32, held_out_fraction=0.0)
    assert list(PriorTraining(codes(8), CONFIG, settings=settings, seed=0).steps())[-1].held_out_loss is None


def test_wrong_codes_and_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="codes must be"):
        PriorTraining(torch.zeros(10, WIDTH + 1), CONFIG, settings=SHORT, seed=0)
    with pytest.raises(ValueError, match="at least two codes"):
        PriorTraining(torch.zeros(1, WIDTH), CONFIG, settings=SHORT, seed=0)
    with pytest.raises(ValueError, match="held-out fraction"):
        PriorSettings(held_out_fraction=1.0)


def test_a_prior_that_is_told_attributes_draws_codes_that_have_them() -> None:
    """Each attribute moves one value of z; what is not said is drawn as often as there was of it."""
    labels = (torch.rand(2000, 2, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    z = codes(2000)
    z[:, 0] += 8 * labels[:, 0]
    z[:, 2] -= 24 * labels[:, 1]
    labels[::4, 1] = float("nan")  # unknown is not no
    settings = PriorSettings(num_samples=600 * 128, batch_size=128, lr=4e-3, warmup_steps=50, ema_decay=0.99)
    prior = train_prior(z, TOLD, settings=settings, seed=0, labels=labels)
    noise = torch.randn(1000, WIDTH, generator=torch.Generator().manual_seed(1))

    def shown(**wanted: bool) -> list[float]:
        drawn = prior.sample(noise, wanted=wanted)
        return [float((drawn[:, 0] > 9).float().mean()), float((drawn[:, 2] < -13).float().mean())]

    assert shown(shifted=True, tall=True) == pytest.approx([1, 1], abs=0.05)
    assert shown(shifted=True, tall=False) == pytest.approx([1, 0], abs=0.05)
    assert shown(shifted=False) == pytest.approx([0, 0.5], abs=0.12)
    assert shown() == pytest.approx([0.5, 0.5], abs=0.12)
    # abduction: the same code with another answer moves that value alone
    few = z[(labels[:, 0] == 0) & (labels[:, 1] == 0)][:100]
    of_few = {"shifted": False, "tall": False}
    moved = prior.sample(
        prior.invert(few, known=of_few), 20, "fixed-point", wanted={**of_few, "shifted": True}
    )
    difference = (moved - few).mean(0)
    assert difference[0] == pytest.approx(8, abs=1.5)
    assert difference[2] == pytest.approx(0, abs=2) and difference[3] == pytest.approx(0, abs=0.2)


def test_a_step_tells_all_labels_some_or_none() -> None:
    said = torch.ones(4000, 6)
    said[:, 5] = 0  # unknown: nothing to tell
    told = what_is_told(said, torch.Generator().manual_seed(0))
    counts = told[:, :5].sum(dim=1)
    assert set(told.unique().tolist()) == {0.0, 1.0} and not told[:, 5].any()
    assert (counts == 0).float().mean() == pytest.approx(0.1 + 0.6 / 6, abs=0.03)
    assert (counts == 5).float().mean() == pytest.approx(0.3 + 0.6 / 6, abs=0.03)


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"labels must be \(400, 2\), not \(400, 1\)"):
        PriorTraining(codes(), TOLD, settings=SHORT, seed=0, labels=torch.zeros(400, 1))


def test_told_runs_repeat_bit_for_bit_and_even_log_snr_changes_them() -> None:
    labels = (codes()[:, :2] > 0).float()
    runs = [
        train_prior(codes(), TOLD, settings=replace(SHORT, timesteps=kind), seed=1, labels=labels)
        for kind in ("uniform", "uniform", "log-snr")
    ]
    states = [run.state_dict()["network.linear_in.weight"] for run in runs]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
