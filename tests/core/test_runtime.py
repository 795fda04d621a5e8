"""What is cast once is what autocast casts at every call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rdm_cli.core.bundles import Bundle
from rdm_cli.core.runtime import autocast
from rdm_cli.core.training_start import build_model
from rdm_cli.methods.method import Method
from rdm_cli.models.blocks import attend
from rdm_cli.registry import METHODS, load

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "preset"), [(n, "small32") for n in ("diffae", "dpm", "pdae", "lrdm")])
def test_weights_cast_once_change_no_bit(name: str, preset: str) -> None:
    torch.manual_seed(0)
    method: Method = load(METHODS, "method", name)
    model: Any = build_model(method, method.presets[preset].config).eval().requires_grad_(False)
    for parameter in model.parameters():  # what begins at zero would hide everything behind it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    bundle = Bundle(name="random", folder=Path(), method=method, model=model, digest="")
    cast = bundle.model_in("bf16")
    assert bundle.model_in("fp32") is model and bundle.model_in("bf16") is cast and cast is not model
    images = torch.rand(2, *model.image_shape) * 2 - 1
    x_t, t = torch.randn(2, *model.x_T_shape), torch.tensor([20, 700])

    def answers(network: Any) -> list[torch.Tensor]:
        with torch.inference_mode(), autocast(CPU, "bf16"):
            z = network.encode(network.enter(images))
            return [z, network.denoiser(z)(x_t, t), network.leave(x_t)]

    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = answers(cast)
    for ours, theirs in zip(found, answers(model), strict=True):
        assert torch.equal(ours, theirs)
    assert found[1].abs().sum() > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    dtypes = {p.dtype for p in cast.parameters()}  # type: ignore[attr-defined]
    assert dtypes == {torch.float32, torch.bfloat16}


def test_attention_in_bfloat16_is_that_in_float32_rounded() -> None:
    q, k, v = torch.randn(3, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16().unbind(0)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02)
    full = attend(q.float(), k.float(), v.float())
    torch.testing.assert_close(full.double(), exact, rtol=1e-5, atol=1e-5)
