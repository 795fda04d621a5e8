"""Weights by the golden files' own rule, under the names that ADM's and PDAE's authors use."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from rdm_cli.models.unet import UNetConfig

UNET_B = UNetConfig(
    image_size=16, model_channels=32, channel_mult=(1, 2, 2), num_res_blocks=2, attention_resolutions=(8, 4),
    num_heads=4, time_width=128, z_width=None, dropout=0.0,
)  # fmt: skip


@pytest.fixture(scope="session")
def unet_b() -> UNetConfig:
    """The UNet of golden.json's ``config_B``."""
    return UNET_B


@pytest.fixture(scope="session")
def generated() -> Callable[[dict[str, tuple[int, ...]], int], dict[str, Tensor]]:
    """``generated(shapes, base)``: weights by golden.json's ``generated_weights_rule``."""
    return weights_by_rule


@pytest.fixture(scope="session")
def shift_unet_b() -> dict[str, Tensor]:
    """The whole shift UNet of ``config_B``, the trained half included, with z of 16 values."""
    return weights_by_rule(official_shapes(UNET_B, z_width=16), 1000)


def official_shapes(config: UNetConfig, z_width: int) -> dict[str, tuple[int, ...]]:
    """Every name and shape of the authors' shift UNet of such a configuration, the trained half included."""
    shapes: dict[str, tuple[int, ...]] = {}
    e = 4 * config.model_channels

    def layer(name: str, weight: tuple[int, ...]) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    def res(name: str, c_in: int, c_out: int, shift: bool) -> None:
        layer(f"{name}.in_layers.0", (c_in,))
        layer(f"{name}.in_layers.2", (c_out, c_in, 3, 3))
        layer(f"{name}.emb_layers.1", (2 * c_out, e))
        if shift:
            layer(f"{name}.emb_z_layers.1", (2 * c_out, e))
        layer(f"{name}.out_layers.0", (c_out,))
        layer(f"{name}.out_layers.3", (c_out, c_out, 3, 3))
        if c_in != c_out:
            layer(f"{name}.skip_connection", (c_out, c_in, 1, 1))

    def attention(name: str, c: int) -> None:
        layer(f"{name}.norm", (c,))
        layer(f"{name}.qkv", (3 * c, c, 1))
        layer(f"{name}.proj_out", (c, c, 1))

    widths = [m * config.model_channels for m in config.channel_mult]
    sides = [config.image_size >> level for level in range(len(widths))]
    layer("time_embed.0", (e, config.model_channels))
    layer("time_embed.2", (e, e))
    layer("label_emb", (e, z_width))
    layer("input_blocks.0.0", (widths[0], 3, 3, 3))
    c, laterals, i = widths[0], [widths[0]], 1
    for level, width in enumerate(widths):
        for _ in range(config.num_res_blocks):
            res(f"input_blocks.{i}.0", c, width, False)
            c = width
            if sides[level] in config.attention_resolutions:
                attention(f"input_blocks.{i}.1", c)
            laterals.append(c)
            i += 1
        if level < len(widths) - 1:
            res(f"input_blocks.{i}.0", c, c, False)
            laterals.append(c)
            i += 1
    for prefix in ("", "shift_"):
        shift, h, left, j = bool(prefix), c, list(laterals), 0
        for k in (0, 2):
            res(f"{prefix}middle_block.{k}", h, h, shift)
        attention(f"{prefix}middle_block.1", h)
        for level in reversed(range(len(widths))):
            for block in range(config.num_res_blocks + 1):
                name, part = f"{prefix}output_blocks.{j}", 1
                res(f"{name}.0", h + left.pop(), widths[level], shift)
                h = widths[level]
                if sides[level] in config.attention_resolutions:
                    attention(f"{name}.{part}", h)
                    part += 1
                if level and block == config.num_res_blocks:
                    res(f"{name}.{part}", h, h, shift)
                j += 1
        layer(f"{prefix}out.0", (h,))
        layer(f"{prefix}out.2", (3, h, 3, 3))
    return shapes


def weights_by_rule(shapes: dict[str, tuple[int, ...]], base: int) -> dict[str, Tensor]:
    """Weights by the golden file's rule (golden.json, ``generated_weights_rule``)."""
    state = {}
    for k, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        w = np.random.RandomState(base + k).standard_normal(shape)
        if len(shape) > 1:
            w = w / np.sqrt(np.prod(shape[1:]))
        else:
            w = 1 + 0.1 * w if name.endswith(".weight") else 0.1 * w
        state[name] = torch.from_numpy(w.astype(np.float32))
    return state
