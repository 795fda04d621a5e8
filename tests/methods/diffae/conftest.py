"""Diff-AE's fixtures: a tiny model's files as the authors write them, and the golden tensors."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rdm_cli.kernels.ddim import ddim_decode, last
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.methods.diffae.convert import OfficialDiffAE, method_state, read_diffae
from rdm_cli.methods.diffae.model import DiffAE
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.official.names import latent_name, renamed
from rdm_cli.methods.official.reading import load_official
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.latent_mlp import LatentMLP, LatentMLPConfig
from rdm_cli.models.unet import UNetConfig
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig

TINY = DiffAEConfig(
    encoder=EncoderConfig(
        image_size=16, model_channels=4, channel_mult=(1, 2, 2), num_res_blocks=1, attention_resolutions=(8,),
        z_width=6,
    ),
    unet=UNetConfig(
        image_size=16, model_channels=4, channel_mult=(1, 2), num_res_blocks=1, attention_resolutions=(8,),
        time_width=12, z_width=6,
    ),
)  # fmt: skip
TINY_PRIOR = LatentMLPConfig(z_width=6, hidden_width=10, num_layers=3, time_channels=8)


def official_name(ours: str, unet: UNetConfig) -> str:
    """The authors' name of one of our parameters, written from their layout (diffae.md)."""
    layer, kind = ours.rsplit(".", 1)
    net, layer = layer.split(".", 1)
    prefix = "encoder." if net == "encoder" else ""
    fixed = {
        "time_embed.linear_1": "time_embed.time_embed.0",
        "time_embed.linear_2": "time_embed.time_embed.2",
        "conv_in": "input_blocks.0.0",
        "norm_out": "out.0",
        "conv_out": "out.2",
        "proj_out": "out.3",
    }
    inner = {
        "norm_1": "in_layers.0", "conv_1": "in_layers.2", "time_proj": "emb_layers.1",
        "z_proj": "cond_emb_layers.1", "norm_2": "out_layers.0", "conv_2": "out_layers.3",
        "skip": "skip_connection", "norm": "norm", "qkv": "qkv", "proj_out": "proj_out",
    }  # fmt: skip
    if layer in fixed:
        return f"{prefix}{fixed[layer]}.{kind}"
    block, last = layer.rsplit(".", 1)
    middles = {"middle_1": 0, "middle_attention": 1, "middle_2": 2}
    if block.startswith("middle"):
        place = f"middle_block.{middles[block] if block in middles else block.split('.')[1]}"
    else:
        way, i, part = block.split(".")
        if way == "down":
            place = f"input_blocks.{int(i) + 1}.{0 if part == 'res' else 1}"
        else:
            level = len(unet.channel_mult) - 1 - int(i) // (unet.num_res_blocks + 1)
            attends = (unet.image_size >> level) in unet.attention_resolutions
            place = f"output_blocks.{i}.{ {'res': 0, 'attention': 1, 'up': 2 if attends else 1}[part] }"
    return f"{prefix}{place}.{inner[last]}.{kind}"


def meta_state(module: Any, config: Any) -> dict[str, Tensor]:
    with torch.device("meta"):
        return module(config).state_dict()


def official_autoencoder(config: DiffAEConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    return {official_name(name, config.unet): tensor for name, tensor in ours.items()}


def official_prior(config: LatentMLPConfig, ours: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, tensor in ours.items():
        name = name.replace("linear_1", "0").replace("linear_2", "2")
        name = name.replace("linear_out", f"layers.{config.num_layers - 1}.linear")
        if "time_proj" in name:
            state[name.replace("time_proj", "cond_layers.1")] = tensor
        state[name.replace("time_proj", "linear_emb")] = tensor
    return state


@pytest.fixture(scope="session")
def authors() -> SimpleNamespace:
    """Our states under the authors' names, and states without memory to try that with."""
    return SimpleNamespace(autoencoder=official_autoencoder, prior=official_prior, meta_state=meta_state)


def random_state(module: Any, config: Any, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(t.shape, generator=generator) for n, t in meta_state(module, config).items()}


HYPER = {"img_size": 16, "dropout": 0.1, "net_beatgans_attn_head": 1, "net_enc_num_res_blocks": 1, "T": 1000}


class Files:
    """A tiny model's files as the authors' trainers write them; tests change parts before writing."""

    config, prior_config = TINY, TINY_PRIOR

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ours = random_state(DiffAE, TINY, 0)
        self.prior = random_state(LatentMLP, TINY_PRIOR, 1)
        base = official_autoencoder(TINY, self.ours)
        latent_net = {f"latent_net.{n}": t for n, t in official_prior(TINY_PRIOR, self.prior).items()}
        stats = {"conds_mean": torch.randn(1, 6), "conds_std": torch.rand(1, 6) + 0.5}

        def doubled(state: dict[str, Tensor]) -> dict[str, Tensor]:
            raw = {f"model.{n}": t + 1 for n, t in state.items()}
            return {
                "x_T": torch.randn(2, 3, 16, 16),
                **raw,
                **{f"ema_model.{n}": t for n, t in state.items()},
            }

        weight, bias = torch.randn(40, 6), torch.randn(40)
        self.classifier = (weight, bias)
        self.content: dict[str, dict[str, Any]] = {
            "auto": {"state_dict": doubled(base), "hyper_parameters": dict(HYPER)},
            "latent": {
                "state_dict": {**stats, **doubled({**base, **latent_net})},
                "hyper_parameters": dict(HYPER),
            },
            "cls": {
                "state_dict": {
                    **stats,
                    "classifier.weight": weight, "classifier.bias": bias,
                    "ema_classifier.weight": weight + 1, "ema_classifier.bias": bias + 1,
                },
                "hyper_parameters": dict(HYPER),
            },
            "codes": {"conds": torch.randn(9, 6), **{n: t[0] for n, t in stats.items()}},
        }  # fmt: skip

    def state(self, name: str) -> dict[str, Tensor]:
        return self.content[name].get("state_dict", self.content[name])

    def write(self, *names: str) -> list[Path]:
        paths = [self.folder / f"{name}.bin" for name in names]
        for name, path in zip(names, paths, strict=True):
            # the foreign object sends the file to the restricted reader, as Lightning's files go
            torch.save({**self.content[name], "args": argparse.Namespace()}, path)
        return paths


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


FILES = ("official_tiny_cls.ckpt", "official_tiny_latent.pkl", "official_tiny.ckpt")


@dataclass(frozen=True)
class Golden:
    """The authors' tensors and notes, and what rdm made of their files."""

    tensors: dict[str, Tensor]
    notes: dict[str, Any]
    official: OfficialDiffAE
    model: DiffAE
    prior: LatentDDIM
    directions: Directions
    raw: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    @property
    def spec(self) -> SamplingSpec:
        """The sampler that a converted bundle has by default."""
        return self.official.config.sampling

    def decode(self, z: Tensor, x_T: Tensor, num_steps: int) -> Tensor:
        """Images in [0, 1], as the authors store them."""
        x_0 = last(ddim_decode(self.model.denoiser({"z": z}), x_T, self.spec, num_steps))
        return ((x_0 + 1) / 2).clamp(0, 1)

    def raw_model(self) -> DiffAE:
        """The network that was being trained, rather than its average; no dropout, as in the notes."""
        model = DiffAE(self.official.config)
        own = {name: tensor for name, tensor in self.raw.items() if not name.startswith("latent_net.")}
        model.load_state_dict(method_state(own, self.official.config))
        return model.eval()

    def raw_prior(self) -> LatentDDIM:
        """The same of the latent network; it is not trained with statistics of its own."""
        prior = LatentDDIM(self.prior.config)
        part = "latent_net."
        own = {name.removeprefix(part): t for name, t in self.raw.items() if name.startswith(part)}
        names = {name: latent_name(name, self.prior.config.network.num_layers) for name in own}
        prior.network.load_state_dict(renamed(own, names, prior.network.state_dict()))
        return prior.eval()


@pytest.fixture(scope="module")
def g(golden: Callable[[str], Path]) -> Golden:
    folder = golden("diffae")
    official = read_diffae([folder / name for name in FILES])
    model = DiffAE(official.config)
    model.load_state_dict(official.method_state)
    assert official.prior_config is not None and official.prior_state is not None
    assert official.z_mean is not None and official.z_std is not None and official.classifier is not None
    prior = LatentDDIM(LatentDDIMConfig(network=official.prior_config))
    assert isinstance(prior.network, LatentMLP)
    prior.network.load_state_dict(official.prior_state)
    prior.z_mean.copy_(official.z_mean)
    prior.z_std.copy_(official.z_std)
    weight, bias = official.classifier
    directions = Directions(
        names=official.attribute_names, weight=weight, bias=bias, z_mean=official.z_mean, z_std=official.z_std
    )
    state = load_official(folder / "official_tiny.ckpt")["state_dict"]
    return Golden(
        tensors=load_file(folder / "golden.safetensors"),
        notes=json.loads((folder / "golden.json").read_text()),
        official=official,
        model=model.eval(),
        prior=prior.eval(),
        directions=directions,
        raw={n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")},
    )
