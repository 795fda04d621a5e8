"""Training the latent prior: what it learns, what it reports, and that it repeats."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIMConfig
from rdm_cli.training.prior import PriorSettings, PriorTraining, train_prior

WIDTH = 4
CONFIG = LatentDDIMConfig(
    network=LatentMLPConfig(z_width=WIDTH, hidden_width=64, num_layers=3, time_channels=32)
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
