"""PDAE's promises: it starts as the DPM that it was given, and trains nothing of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.pdae.coefficients import mean_shift, score_shift
from rdm_cli.methods.pdae.config import pdae_config
from rdm_cli.methods.pdae.method import adopt
from rdm_cli.methods.pdae.model import PDAE
from rdm_cli.methods.pdae.presets import PRESETS
from rdm_cli.models.strided_encoder import (
    SIZES,
    StridedEncoder,
    StridedEncoderConfig,
    published_channels,
)
from rdm_cli.models.unet import UNetConfig

UNET = UNetConfig(
    image_size=32, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(8,),
    time_width=64, z_width=None, dropout=0.3, patch_size=2,
)  # fmt: skip


def randomised(model: nn.Module, seed: int = 0) -> Any:
    """Every parameter that starts at zero drawn at random: else most of a network cannot be seen."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():
                weight.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return model


def fresh(prediction: Prediction = "eps", gamma: float | None = 0.1, *, sees: bool = False) -> PDAE:
    torch.manual_seed(0)
    sampling = SamplingSpec(spacing="linspace")
    config = pdae_config(
        UNET, z_width=8, prediction=prediction, sampling=sampling, gamma=gamma, sees_prediction=sees
    )
    model = PDAE(config)
    randomised(model.unet)
    return model


def batch(num: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x_0, eps = torch.randn(2, num, 3, 32, 32, generator=generator)
    return x_0.clamp(-1, 1), torch.linspace(0, 999, num).long(), eps


@pytest.mark.parametrize("prediction", ["eps", "v", "x_0"])
@pytest.mark.parametrize("sees", [False, True])
def test_it_starts_as_the_dpm(prediction: Prediction, sees: bool) -> None:
    model = fresh(prediction, sees=sees).eval()
    plain = DPM(DPMConfig(unet=UNET, prediction=prediction, sampling=model.sampling)).eval()
    plain.unet.load_state_dict(model.unet.state_dict())
    x_t, t, _ = batch()
    _, g = model.predict(x_t, t, model._condition(torch.randn(4, 8)))
    assert g.shape == x_t.shape and not g.any()
    ours, theirs = (
        model.denoiser({"z": torch.randn(4, 8)})(x_t, t),
        plain.denoiser({"z": torch.zeros(4, 0)})(x_t, t),
    )
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("sees", [False, True])
def test_two_steps_train_all_but_the_dpm(prediction: Prediction, channels_last: bool, sees: bool) -> None:
    """In channels_last, frozen features without gradient would crash torch's GroupNorm, and the process."""
    model = fresh(prediction, sees=sees)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    assert not model.unet.training and model.shift.training and model.encoder.training
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    x_0, t, eps = batch()
    if channels_last:
        x_0, eps = (x.contiguous(memory_format=torch.channels_last) for x in (x_0, eps))
    for _ in range(2):
        optimizer.zero_grad()
        model(x_0, t, eps).mean().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("unet.")
        assert parameter.requires_grad is not frozen
        assert (parameter.grad is None) is frozen, name
        if frozen:
            assert torch.equal(parameter, before[name]), name
    assert not torch.equal(model.shift.conv_out.weight, before["shift.conv_out.weight"])


@pytest.mark.parametrize("sees", [False, True])
def test_once_the_branch_is_off_zero_every_parameter_gets_a_gradient(sees: bool) -> None:
    model = randomised(fresh(sees=sees)).train()
    x_0, t, eps = batch()
    model(x_0, t, eps).mean().backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("unet."):
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_z_matters_and_stops_mattering() -> None:
    """Below ``stop_below`` the DPM's own answer comes back, whatever z."""
    model = randomised(fresh()).eval()
    x_t, t, _ = batch()
    first, second = (model.denoiser({"z": z}, stop_below=500) for z in torch.randn(2, 4, 8))
    low, high = t.clamp(max=499), t.clamp(min=500)
    assert torch.equal(first(x_t, low), second(x_t, low))
    assert not torch.allclose(first(x_t, high), second(x_t, high))
    whole = model.denoiser({"z": torch.zeros(4, 8)})
    assert not torch.allclose(whole(x_t, low), first(x_t, low))


def test_joins_start_at_nothing_and_show_the_frozen_way_up() -> None:
    """With joins at zero the branch is the one without; off zero, G follows what the frozen way up makes."""
    blind, seeing = randomised(fresh()), fresh(sees=True)
    missing, unexpected = seeing.load_state_dict(blind.state_dict(), strict=False)
    assert not unexpected and missing and all(name.startswith("shift.joins.") for name in missing)
    x_t, t, _ = batch()
    z = torch.randn(4, 8)

    def shift(model: PDAE) -> Tensor:
        return model.eval().predict(x_t, t, model._condition(z))[1]

    torch.testing.assert_close(shift(seeing), shift(blind), rtol=0, atol=0)
    randomised(seeing)
    before, unseen = shift(seeing), shift(blind)
    with torch.no_grad():
        seeing.unet.up[-1].res.conv_2.weight.mul_(1.5)  # the last map of the frozen way up, and nothing below
        blind.unet.up[-1].res.conv_2.weight.mul_(1.5)
    assert not torch.allclose(shift(seeing), before)
    torch.testing.assert_close(shift(blind), unseen, rtol=0, atol=0)


def test_the_path_between_two_codes_ends_at_them() -> None:
    model = randomised(fresh("v")).eval()
    x_t, t, _ = batch()
    z_first, z_second = torch.randn(2, 4, 8)
    for weight, z in ((0.0, z_first), (1.0, z_second)):
        walked = model.path_denoiser({"z": z_first}, {"z": z_second}, torch.full((4,), weight))(x_t, t)
        torch.testing.assert_close(walked, model.denoiser({"z": z})(x_t, t), rtol=1e-5, atol=1e-5)


def test_the_two_coefficients_part_at_small_t() -> None:
    """The ratios that methods/pdae.md lists."""
    schedule = SamplingSpec().schedule
    ratio = mean_shift(schedule) / score_shift(schedule)
    for t, expected in ((0, 0.0), (1, 0.455), (10, 0.864), (50, 0.964), (500, 0.994)):
        assert float(ratio[t]) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("size", SIZES)
def test_encoders_of_every_size(size: int) -> None:
    torch.manual_seed(0)
    config = StridedEncoderConfig(image_size=size, channels=published_channels(size), z_width=16)
    encoder = StridedEncoder(config).eval()
    x_0 = torch.rand(2, 3, size, size) * 2 - 1
    z = encoder(x_0)
    assert z.shape == (2, 16)
    # a batch mixes nothing between images
    torch.testing.assert_close(encoder(x_0[:1]), z[:1], rtol=1e-4, atol=1e-5)
    assert encoder.attention is not None and encoder.proj_out.in_features == 16 * config.channels[-1]
    with pytest.raises(ValueError, match=f"takes images of 3 x {size} x {size}"):
        encoder(torch.zeros(2, 3, size // 2, size // 2))


@pytest.mark.parametrize(("size", "expected"), [(64, 1_487_104), (128, 3_914_240)])
def test_published_encoders_have_the_published_sizes(size: int, expected: int) -> None:
    with torch.device("meta"):
        encoder = StridedEncoder(StridedEncoderConfig(image_size=size, channels=published_channels(size)))
    num = sum(math.prod(p.shape) for p in encoder.parameters())
    assert num == expected
    assert round(num / 1e6, 2) == {64: 1.49, 128: 3.91}[size]


@pytest.mark.parametrize("size", [16, 48, 96, 1024])
def test_other_sizes_are_refused_by_name(size: int) -> None:
    with pytest.raises(ValueError, match=f"32, 64, 128, 256, 512 pixels, not of {size}"):
        StridedEncoderConfig(image_size=size, channels=(64,))
    with pytest.raises(ValueError, match="64 pixels take 4 convolutions, not 1"):
        StridedEncoderConfig(image_size=64, channels=(64,))


def test_presets_fit_any_dpm() -> None:
    with torch.device("meta"):
        dpm = DPM(DPMConfig(unet=UNET, prediction="v"))
        for name, preset in PRESETS.items():
            model = PDAE(adopt(preset.config, dpm))
            assert model.config.unet == UNET and model.prediction == "v", name
            assert model.z_shape == (preset.config.encoder.z_width,)
            assert model.config.shift.gamma == preset.config.shift.gamma
        with pytest.raises(ValueError, match="not a plain DPM"):
            adopt(PRESETS["small32"].config, model)
