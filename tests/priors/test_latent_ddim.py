"""The latent DDIM against the authors' tensors, a Gaussian's closed form and its own inverse."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rdm_cli.bundles.config_json import from_json, to_json
from rdm_cli.errors import UsageError
from rdm_cli.kernels.ddim import ddim_decode, last
from rdm_cli.kernels.schedules import LINEAR
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.residual_mlp import ResidualMLPConfig
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig

SMALL = LatentDDIMConfig(network=LatentMLPConfig(z_width=6, hidden_width=16, num_layers=3))


class ExactGaussian(nn.Module):
    """eps of codes that are N(mu, s^2): sqrt(1-ab) (z_t - sqrt(ab) mu) / (ab s^2 + 1 - ab)."""

    def __init__(self, prior: LatentDDIM, mu: float, s: float) -> None:
        super().__init__()
        self.alpha_bar, self.mu, self.s = prior.alpha_bar, mu, s

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        ab = self.alpha_bar[t].float()[:, None]
        return (1 - ab).sqrt() * (z_t - ab.sqrt() * self.mu) / (ab * self.s**2 + 1 - ab)


def test_sampling_a_gaussian_follows_its_closed_form() -> None:
    """The flow of N(mu, s^2) keeps (z_t - sqrt(ab) mu) / sqrt(ab s^2 + 1 - ab); nothing is clamped."""
    prior = LatentDDIM(SMALL)
    mu, s = 2.0, 3.0  # far outside [-1, 1]
    prior.network = ExactGaussian(prior, mu, s)
    noise = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    ab = float(prior.alpha_bar[-1])
    expected = mu + s * (noise - ab**0.5 * mu) / (ab * s**2 + 1 - ab) ** 0.5
    coarse, fine = (prior.sample(noise, num_steps=n) for n in (250, 1000))
    # DDIM is of first order: a quarter of the step leaves about a quarter of the error.
    error_coarse, error_fine = (float((z - expected).abs().mean()) for z in (coarse, fine))
    assert error_fine < 0.05
    assert 2.5 < error_coarse / error_fine < 6


@pytest.mark.parametrize(("solver", "steps"), [("dpm-solver++", 60), ("unipc", 60), ("heun", 30)])
def test_other_solvers_follow_the_same_flow_better_in_60_calls(solver: str, steps: int) -> None:
    prior = LatentDDIM(SMALL)
    prior.network = ExactGaussian(prior, 2.0, 3.0)
    noise = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    ab = float(prior.alpha_bar[-1])
    expected = 2 + 3 * (noise - ab**0.5 * 2) / (ab * 9 + 1 - ab) ** 0.5
    error = (prior.sample(noise, steps, solver) - expected).abs().mean()
    assert error < 0.25 * (prior.sample(noise, 60) - expected).abs().mean()
    with pytest.raises(UsageError, match="there is no solver 'euler'"):
        prior.sample(noise, steps, "euler")


def test_normalise_and_denormalise_are_inverse() -> None:
    prior = LatentDDIM(SMALL)
    prior.z_mean.copy_(torch.randn(6))
    prior.z_std.copy_(torch.rand(6) + 0.1)
    z = torch.randn(5, 6)
    torch.testing.assert_close(prior.denormalise(prior.normalise(z)), z)
    torch.testing.assert_close(prior.normalise(prior.z_mean[None]), torch.zeros(1, 6))


def test_statistics_are_saved_with_the_weights() -> None:
    state = LatentDDIM(SMALL).state_dict()
    assert {"z_mean", "z_std"} <= set(state)
    assert "alpha_bar" not in state


def test_samples_are_denormalised_and_independent_of_their_batch() -> None:
    prior = LatentDDIM(SMALL)
    noise = torch.randn(4, 6)
    plain = prior.sample(noise, num_steps=5)
    prior.z_mean.fill_(3.0)
    prior.z_std.fill_(2.0)
    torch.testing.assert_close(prior.sample(noise, num_steps=5), 2 * plain + 3)
    torch.testing.assert_close(prior.sample(noise[2:3], num_steps=5), 2 * plain[2:3] + 3)
    with pytest.raises(ValueError, match="noise must be"):
        prior.sample(torch.randn(4, 7))


def _placeholder(*arguments: Any, **keywords: Any) -> None:
    return None


class _TensorsOnly:
    """A pickle module for torch.load that builds nothing but tensors and plain containers."""

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if module.startswith("torch") or module == "collections":
                return super().find_class(module, name)
            return type(name, (), {"__init__": _placeholder})

    load, __name__ = pickle.load, "tensors_only"


def official(folder: Path) -> LatentDDIM:
    """The authors' tiny checkpoint as a LatentDDIM."""
    path = folder / "official_tiny.ckpt"
    state = torch.load(path, pickle_module=_TensorsOnly(), weights_only=False)["state_dict"]
    prefix = "ema_model.latent_net."
    theirs = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    config = LatentMLPConfig(z_width=64, hidden_width=96, num_layers=4, time_channels=64)
    prior = LatentDDIM(LatentDDIMConfig(network=config))
    ours: dict[str, Tensor] = {
        "z_mean": state["conds_mean"].reshape(-1),
        "z_std": state["conds_std"].reshape(-1),
    }
    for kind in ("weight", "bias"):
        ours[f"network.time_embed.linear_1.{kind}"] = theirs[f"time_embed.0.{kind}"]
        ours[f"network.time_embed.linear_2.{kind}"] = theirs[f"time_embed.2.{kind}"]
        for k in range(3):
            ours[f"network.layers.{k}.linear.{kind}"] = theirs[f"layers.{k}.linear.{kind}"]
            ours[f"network.layers.{k}.time_proj.{kind}"] = theirs[f"layers.{k}.linear_emb.{kind}"]
            ours[f"network.layers.{k}.norm.{kind}"] = theirs[f"layers.{k}.norm.{kind}"]
        ours[f"network.linear_out.{kind}"] = theirs[f"layers.3.linear.{kind}"]
    prior.load_state_dict(ours)
    return prior.eval()


@pytest.mark.golden
def test_golden_predictions_and_samples(golden) -> None:
    tensors = load_file(golden("diffae") / "golden.safetensors")
    prior = official(golden("diffae"))
    noise = tensors["latent_noise"]
    with torch.no_grad():
        for t in (0, 500, 999):
            predicted = prior.network(noise, torch.full((2,), t))
            torch.testing.assert_close(predicted, tensors[f"latent.pred.{t}"], rtol=1e-5, atol=1e-5)
    sampled = prior.sample(noise, num_steps=20)
    torch.testing.assert_close(sampled, tensors["latent.sample.T20"], rtol=1e-4, atol=1e-4)
    normalised = prior.normalise(sampled)
    torch.testing.assert_close(normalised, tensors["latent.sample_normed.T20"], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(prior.normalise(tensors["z_sem"]), tensors["z_norm"], rtol=1e-4, atol=1e-4)


def told(attributes: tuple[str, ...] = ("glasses", "hat"), spread: float = 0.3) -> LatentDDIM:
    """A prior that predicts v and can be told attributes, with random weights that make them matter."""
    config = LatentDDIMConfig(
        network=ResidualMLPConfig(z_width=6, hidden_width=16, num_layers=2, embedding_width=16),
        prediction="v",
        schedule=LINEAR,
        solver="dpm-solver++",
        steps=10,
        attributes=attributes,
    )
    prior = LatentDDIM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator))
    prior.z_mean.fill_(2.0)
    prior.z_std.fill_(3.0)
    return prior


class ExactGaussianV(ExactGaussian):
    """v of the same codes: sqrt(ab) eps - sqrt(1-ab) x_0, with the mean of x_0 given z_t."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        ab = self.alpha_bar[t].float()[:, None]
        eps = super().forward(z_t, t)
        return (eps - (1 - ab).sqrt() * z_t) / ab.sqrt()


@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++", "heun"])
def test_a_prior_that_predicts_v_follows_the_same_closed_form(solver: str) -> None:
    config = replace(SMALL, prediction="v")
    noise = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    drawn = []
    for prior, network in ((LatentDDIM(SMALL), ExactGaussian), (LatentDDIM(config), ExactGaussianV)):
        prior.network = network(prior, 2.0, 3.0)
        drawn.append(prior.sample(noise, 40, solver))
    torch.testing.assert_close(drawn[1], drawn[0], rtol=1e-3, atol=1e-3)


def test_the_inverse_is_found_to_a_thousandth() -> None:
    """z goes to the noise that gives z again, with and without what is known of it."""
    prior = told(spread=0.15)  # as steep as trained ones are; wilder weights take more steps
    z = 2 + 3 * torch.randn(20, 6, generator=torch.Generator().manual_seed(1))
    for known in (None, {"glasses": True}, {"glasses": False, "hat": (torch.arange(20) % 2).float()}):
        for steps in (20, 40):
            noise = prior.invert(z, steps, known=known)
            back = prior.sample(noise, steps, "fixed-point", wanted=known)
            assert ((back - z) / prior.z_std).abs().max() < 1e-3
    # the other answer to what is known gives another code: abduction, action, prediction
    other = prior.sample(
        prior.invert(z, known={"glasses": True}), 20, "fixed-point", wanted={"glasses": False}
    )
    assert (other - z).abs().mean() > 0.05


def test_a_gaussian_s_inverse_follows_its_closed_form() -> None:
    config = replace(SMALL, prediction="v", schedule=LINEAR)
    prior = LatentDDIM(config)
    prior.network = ExactGaussianV(prior, 0.5, 0.7)
    noise = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    ab = float(prior.alpha_bar[-1])
    z = 0.5 + 0.7 * (noise - ab**0.5 * 0.5) / (ab * 0.49 + 1 - ab) ** 0.5
    torch.testing.assert_close(prior.invert(z, 300), noise, rtol=0, atol=0.05)


def test_what_is_wanted_is_told_code_by_code() -> None:
    prior = told()
    noise = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    plain, glasses, bare = (
        prior.sample(noise, wanted=w) for w in (None, {"glasses": True}, {"glasses": False})
    )
    assert (glasses - bare).abs().mean() > 0.05 and (glasses - plain).abs().mean() > 0.01
    mixed = prior.sample(noise, wanted={"glasses": torch.tensor([1.0, 0.0, float("nan"), 1.0])})
    torch.testing.assert_close(mixed, torch.stack([glasses[0], bare[1], plain[2], glasses[3]]))
    with pytest.raises(UsageError, match="knows no attribute 'glases'.*did you mean 'glasses'"):
        prior.sample(noise, wanted={"glases": True})
    with pytest.raises(UsageError, match="knows no attribute 'hat'.*trained without labels"):
        told(()).sample(noise, wanted={"hat": True})
    with pytest.raises(ValueError, match="z must be"):
        prior.invert(torch.zeros(2, 7))


def test_attributes_that_a_network_cannot_be_told_are_refused() -> None:
    with pytest.raises(ValueError, match="a LatentMLP cannot be told"):
        replace(SMALL, attributes=("hat",))
    with pytest.raises(ValueError, match="named twice"):
        replace(told().config, attributes=("hat", "hat"))


def test_a_prior_of_before_draws_what_it_drew_bit_for_bit() -> None:
    """The config of a bundle written before opens, and asks its network nothing but (z_t, t)."""
    stored = {
        "_class_name": "LatentDDIM",
        "network": {"z_width": 6, "hidden_width": 16, "num_layers": 3, "time_channels": 64},
        "schedule": {
            "beta_kind": "constant",
            "beta_start": 0.008,
            "beta_end": 0.008,
            "num_train_steps": 1000,
        },
        "steps": 100,
    }
    config = from_json(LatentDDIMConfig, stored)
    assert config == replace(SMALL, network=LatentMLPConfig(z_width=6, hidden_width=16, num_layers=3))
    torch.manual_seed(0)
    prior = LatentDDIM(config).eval()
    noise = torch.randn(3, 6)
    spec = config.sampling
    with torch.no_grad():
        by_hand = last(ddim_decode(prior.network, noise, spec, 20))
    assert torch.equal(prior.sample(noise, 20), prior.denormalise(by_hand))
    assert from_json(LatentDDIMConfig, to_json(told().config)) == told().config
