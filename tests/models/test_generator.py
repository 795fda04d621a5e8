"""The generator of a guess, and a UNet that is shown one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rdm_cli.models.generator import Generator, GeneratorConfig
from rdm_cli.models.unet import ConditionalUNet, UNetConfig

SMALL: dict[str, Any] = {
    "image_size": 16, "channels": (64, 32), "num_res_blocks": (1, 2), "z_width": 8,
}  # fmt: skip


def test_the_guess_has_the_images_shape_and_a_map_for_each_level() -> None:
    guess = Generator(GeneratorConfig(**SMALL))(torch.randn(3, 8))
    assert guess.picture.shape == (3, 3, 16, 16)
    assert [tuple(m.shape) for m in guess.maps] == [(3, 64, 4, 4), (3, 32, 8, 8)]


def test_the_picture_is_float32_under_autocast() -> None:
    generator, z = Generator(GeneratorConfig(**SMALL)), torch.randn(2, 8)
    exact = generator(z).picture
    with torch.autocast("cpu", torch.bfloat16):
        half = generator(z).picture
    assert half.dtype == torch.float32
    assert (half - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image_size": 18}, "halved"),
        ({"channels": ()}, "halved"),
        ({"num_res_blocks": (1,)}, "one block or more"),
        ({"num_res_blocks": (0, 1)}, "one block or more"),
        ({"spread": 0.0}, "more than 0"),
    ],
)
def test_what_is_no_generator_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GeneratorConfig(**SMALL | change)


def test_a_unet_sees_the_guess_and_every_one_of_its_maps() -> None:
    config = UNetConfig(
        image_size=16, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(),
        time_width=16, z_width=8, dropout=0.0, patch_size=2, guess_channels=(32, 64),
    )  # fmt: skip
    torch.manual_seed(0)
    unet, generator = ConditionalUNet(config), Generator(GeneratorConfig(**SMALL))
    for p in unet.parameters():  # the layers that start at zero as well
        torch.nn.init.normal_(p, std=0.1)
    z, x, t = torch.randn(2, 8), torch.randn(2, 3, 16, 16), torch.tensor([5, 900])
    guess = generator(z)
    seen = [guess.picture, *guess.maps]
    for value in seen:
        value.retain_grad()
    unet(x, t, unet.condition(z), guess).square().sum().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in seen)
