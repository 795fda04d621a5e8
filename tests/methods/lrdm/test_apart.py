"""LRDM's files whose representation encoder and decoder were configured apart, each by its own settings."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.config_json import from_json, to_json
from rdm_cli.cli import main
from rdm_cli.errors import CheckpointError
from rdm_cli.methods.lrdm.config import LRDMConfig
from rdm_cli.methods.lrdm.convert import read_lrdm
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.models.latent_unet import LatentUNetConfig
from rdm_cli.models.representation import PyramidConfig, RepresentationConfig
from rdm_cli.models.style_shape import StyleShapeConfig

SETTINGS = {
    "diffusion_model_config": {"params": {"resolution": 16, "num_ch_per_head": 8, "dropout": 0.1}},
    "warp_kwargs": {"grid_size": 4, "strength_factor": 2.0},
}
ALIKE: dict[str, Any] = {
    "latent_size": 16, "latent_channels": 3, "model_channels": 8, "channel_mult": (1, 2, 1), "z_channels": 4,
    "hidden_channels": 6, "num_encoder_blocks": 2, "num_decoder_blocks": 1, "attention_resolutions": (8, 4),
}  # fmt: skip
APART = {
    "channels": PyramidConfig(model_channels=16, channel_mult=(1, 2, 1), attention_resolutions=(8, 4)),
    "multipliers": PyramidConfig(model_channels=8, channel_mult=(1, 4, 2), attention_resolutions=(8, 4)),
    "attention": PyramidConfig(model_channels=8, channel_mult=(1, 2, 1), attention_resolutions=(16,)),
    "hidden": PyramidConfig(
        model_channels=8, channel_mult=(1, 2, 1), attention_resolutions=(8, 4), hidden_channels=10
    ),
    "all": PyramidConfig(
        model_channels=12, channel_mult=(1, 1, 2), attention_resolutions=(4,), hidden_channels=5
    ),
}


def model_of(representation: RepresentationConfig | StyleShapeConfig) -> LRDM:
    """An LRDM, with random weights, of which nothing is zero."""
    unet = LatentUNetConfig(
        latent_size=16, latent_channels=3, model_channels=8,
        channel_mult=(1, 2, 2)[: len(representation.channel_mult)], head_channels=8, dropout=0.1,
        attention_resolutions=(8,), map_channels=representation.map_channels,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LRDM(LRDMConfig(unet=unet, representation=representation, first_stage=None))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval().requires_grad_(False)


BLOCK = {
    "norm_1": "in_layers.0", "conv_1": "in_layers.2", "embed_proj": "emb_layers.1", "norm_2": "out_layers.0",
    "conv_2": "out_layers.3", "skip": "skip_connection",
}  # fmt: skip
WHOLE = {
    "embedding.linear_1": "time_conditioning.1", "embedding.linear_2": "time_conditioning.3",
    "conv_in": "conv_in", "from_z": "conv_r_in",
}  # fmt: skip
PREFIXES = {
    "unet.": "diff_model.", "representation.encoder.": "repr_ae.encoder.",
    "representation.pyramid.": "repr_ae.decoder.", "representation.to_z.": "repr_ae.quant_conv.",
    "representation.from_z.": "repr_ae.post_quant_conv.",
}  # fmt: skip


def authors_state(model: LRDM) -> dict[str, Tensor]:
    """``model``'s weights as the authors' checkpoint names them."""
    ours = model.state_dict()
    attends = {m[1] for m in (re.match(r"(.+\.(?:down|up)\.\d+)\.attentions\.", name) for name in ours) if m}
    state = {"scale_factor": ours["unet.scale_factor"]}
    for name, value in ours.items():
        prefix = next(p for p in PREFIXES if name.startswith(p))
        layer, _, kind = name.removeprefix(prefix).rpartition(".")
        if prefix.endswith("_z.") or name == "unet.scale_factor":
            state |= {PREFIXES[prefix] + kind: value} if prefix.endswith("_z.") else {}
            continue
        state[f"{PREFIXES[prefix]}{theirs(prefix, layer, attends)}.{kind}"] = value
    return state


def theirs(prefix: str, layer: str, attends: set[str]) -> str:
    if layer in WHOLE:
        return WHOLE[layer]
    if layer.startswith("head."):
        return f"conv_out.{layer[-1]}" if prefix == "unet." else ("norm_out", "conv_out")[layer[-1] == "2"]
    if match := re.fullmatch(r"mid(?:dle)?\.(block_1|attention|block_2)\.(.+)", layer):
        part = {"block_1": "0", "attention": "1", "block_2": "2"}[match[1]]
        return f"mid.{part}.{BLOCK.get(match[2], match[2])}"
    if match := re.fullmatch(r"(down|up)\.(\d+)\.resampler\.(.+)", layer):
        return f"{match[1]}.{match[2]}.{match[1]}sample.{BLOCK[match[3]]}"
    match = re.fullmatch(r"(down|up)\.(\d+)\.(blocks|attentions)\.(\d+)\.(.+)", layer)
    assert match is not None, layer
    way, level, part, index, rest = match.groups()
    both = f"{prefix}{way}.{level}" in attends
    place = 2 * int(index) + (part == "attentions") if both else int(index)
    return f"{way}.{level}.main.{place}.{BLOCK.get(rest, rest)}"


def written(model: LRDM, folder: Path) -> list[Path]:
    files = [folder / "apart.ckpt", folder / "apart-project.yaml"]
    torch.save({"state_dict": authors_state(model)}, files[0])
    files[1].write_text(json.dumps({"model": {"params": SETTINGS}}))
    return files


def opens_as(model: LRDM, files: list[Path]) -> None:
    read = read_lrdm(files)
    found, meant = read.config.representation, model.config.representation
    assert found is not None and meant is not None and (found.pyramid is None) == (meant.pyramid is None)
    if found.pyramid is not None and meant.pyramid is not None:
        # 16 x (1, 2, 1) and 8 x (2, 4, 2) are one network, unless it is told the time
        assert found.pyramid.widths == meant.pyramid.widths
        names = ("attention_resolutions", "hidden_channels")
        assert all(getattr(found.pyramid, n) == getattr(meant.pyramid, n) for n in names)
        found = replace(found, pyramid=meant.pyramid)  # type: ignore[type-var]
    assert replace(read.config, representation=found) == model.config
    state = model.state_dict()
    assert read.state.keys() == state.keys()
    assert all(torch.equal(read.state[name], state[name]) for name in state)


@pytest.mark.parametrize("time", [False, True])
@pytest.mark.parametrize("apart", [None, *APART])
def test_a_decoder_of_its_own_shape(apart: str | None, time: bool, tmp_path: Path) -> None:
    own = None if apart is None else APART[apart]
    representation = RepresentationConfig(**ALIKE, time=time, pyramid=own)
    if apart == "channels":  # more blocks as well
        representation = replace(representation, num_decoder_blocks=3)
    opens_as(model_of(representation), written(model_of(representation), tmp_path))


@pytest.mark.parametrize("apart", [None, "channels", "multipliers", "attention", "all"])
def test_a_style_decoder_of_its_own_shape(apart: str | None, tmp_path: Path) -> None:
    own = None if apart is None else replace(APART[apart], hidden_channels=None)
    settings = {k: v for k, v in ALIKE.items() if k not in ("hidden_channels", "num_decoder_blocks")}
    representation = StyleShapeConfig(
        **settings, num_decoder_blocks=3, kl_weight=1e-4, grid_size=4, warp_strength=2.0, pyramid=own
    )
    opens_as(model_of(representation), written(model_of(representation), tmp_path))


def test_it_encodes_decodes_and_comes_back_from_its_bundle(tmp_path: Path) -> None:
    model = model_of(RepresentationConfig(**ALIKE, pyramid=APART["all"]))
    files = [str(path) for path in written(model, tmp_path)]
    assert main(["bundles", "convert", "lrdm", *files, "-o", str(tmp_path / "new")]) == 0
    opened: Any = open_bundle(str(tmp_path / "new")).model
    z_0, t = torch.randn(2, 3, 16, 16), torch.tensor([9, 700])
    mean = model.posterior(z_0)[0]
    maps = opened.pyramid(mean)
    assert [m.shape[1:] for m in maps] == [(24, 4, 4), (12, 8, 8), (12, 16, 16)]
    assert torch.equal(opened.denoiser({"z": mean})(z_0, t), model.denoiser({"z": mean})(z_0, t))
    other = model.denoiser({"z": mean.flip(0)})(z_0, t)
    assert not torch.allclose(other, model.denoiser({"z": mean})(z_0, t))  # z reaches the answer


@pytest.mark.parametrize("levels", [2, 4])
def test_ways_that_do_not_meet(levels: int, tmp_path: Path) -> None:
    model = model_of(RepresentationConfig(**ALIKE))
    files, state = written(model, tmp_path), authors_state(model)
    if levels == 2:
        state = {n: t for n, t in state.items() if "decoder.up.2." not in n}
    else:
        state |= {n.replace(".up.0.", ".up.3."): t for n, t in state.items() if "decoder.up.0." in n}
    torch.save({"state_dict": state}, files[0])
    with pytest.raises(CheckpointError, match="encoder and pyramid have different numbers of levels"):
        read_lrdm(files)


def test_time_that_one_alone_is_told(tmp_path: Path) -> None:
    model = model_of(RepresentationConfig(**ALIKE, time=True))
    files = written(model, tmp_path)
    state = {n: t for n, t in authors_state(model).items() if "decoder.time_conditioning" not in n}
    torch.save({"state_dict": state}, files[0])
    with pytest.raises(CheckpointError, match="one alone is told the time"):
        read_lrdm(files)


def test_what_was_written_before_is_written_alike() -> None:
    """A representation whose ways are alike says no more than it did, so that its bundle's digest stays."""
    alike, apart = RepresentationConfig(**ALIKE), RepresentationConfig(**ALIKE, pyramid=APART["all"])
    assert "pyramid" not in to_json(alike) and from_json(RepresentationConfig, plain(alike)) == alike
    assert from_json(RepresentationConfig, plain(apart)) == apart
    with pytest.raises(ValueError, match="different numbers of levels"):
        replace(apart, channel_mult=(1, 2))


def plain(config: Any) -> Any:
    return json.loads(json.dumps(to_json(config)))
