"""The configuration of the Diff-AE authors' networks, from shapes and hyper-parameters.

Shapes are the truth: depths, widths and where attention sits come from them. Hyper-parameters say
what no shape shows: heads, dropout, and settings under which the same weights would mean another
network, which are refused. Files without hyper-parameters get the published values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.diffae.config import DiffAEConfig
from rdm_cli.methods.official.shapes import count, latent_mlp_config, shape_of
from rdm_cli.models.encoder import EncoderConfig
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.models.unet import UNetConfig

State = Mapping[str, Tensor]
Hyper = Mapping[str, Any]

# name in hyper_parameters -> values for which the weights mean what rdm makes of them
_AUTOENCODER_SETTINGS: dict[str, tuple[Any, ...]] = {
    "T": (1000,),
    "beta_scheduler": ("linear",),
    "beatgans_rescale_timesteps": (False,),
    "net_enc_pool": ("adaptivenonzero",),
    "net_resblock_updown": (True,),
    "net_autoenc_stochastic": (False,),
}
_MODEL_SETTINGS: dict[str, tuple[Any, ...]] = {
    "num_head_channels": (-1,),
    "num_heads_upsample": (-1,),
    "use_new_attention_order": (False,),
}
_LATENT_SETTINGS: dict[str, tuple[Any, ...]] = {
    "latent_beta_scheduler": ("const0.008",),
    "latent_rescale_timesteps": (False,),
    "latent_clip_sample": (False,),
    "latent_znormalize": (True,),
    "net_latent_condition_bias": (1,),
    "net_latent_time_last_act": (False,),
}


def _check(hyper: Hyper, settings: Mapping[str, tuple[Any, ...]]) -> None:
    for name, allowed in settings.items():
        if name in hyper and hyper[name] not in allowed:
            raise CheckpointError(
                f"its hyper-parameter {name} is {hyper[name]!r}; rdm reads networks with {allowed[0]!r}"
            )


def _model_hyper(hyper: Hyper) -> Hyper:
    nested = hyper.get("model_conf")
    return nested if isinstance(nested, Mapping) else {}


def image_size(x_T: Tensor | None, hyper: Hyper, given: int | None) -> int:
    """Side in pixels: from the stored ``x_T`` (N, 3, H, H), the hyper-parameters, or as ``given``.

    Raises CheckpointError where they disagree or none says it.
    """
    said: dict[str, int] = {}
    if x_T is not None:
        if x_T.ndim != 4 or x_T.shape[2] != x_T.shape[3]:
            raise CheckpointError(f"x_T has shape {tuple(x_T.shape)}, which is no batch of square images")
        said["its x_T"] = x_T.shape[3]
    if isinstance(hyper.get("img_size"), int):
        said["its hyper-parameter img_size"] = hyper["img_size"]
    if given is not None:
        said["the caller"] = given
    if not said:
        raise CheckpointError("nothing in it says the size of its images")
    if len(set(said.values())) > 1:
        words = " and ".join(f"{who} says {size}" for who, size in said.items())
        raise CheckpointError(f"the size of its images is unclear: {words}")
    return next(iter(said.values()))


def _multipliers(widths: list[int], channels: int) -> tuple[int, ...]:
    if any(width % channels for width in widths):
        raise CheckpointError(f"its widths {widths} are no multiples of its {channels} channels")
    return tuple(width // channels for width in widths)


def _resolutions(state: State, firsts: list[int], size: int, prefix: str = "") -> tuple[int, ...]:
    """Sides of the maps of those levels, given by their first blocks, that have attention."""
    return tuple(
        size >> level for level, i in enumerate(firsts) if f"{prefix}input_blocks.{i}.1.qkv.weight" in state
    )


def _width(state: State, i: int, prefix: str = "") -> int:
    return shape_of(state, f"{prefix}input_blocks.{i}.0.in_layers.2.weight")[0]


def _unet_config(state: State, size: int, heads: int, dropout: float) -> UNetConfig:
    time_width, channels = shape_of(state, "time_embed.time_embed.0.weight")
    num_levels = count(state, r"output_blocks\.(\d+)\.[12]\.in_layers") + 1
    num_res_blocks = count(state, r"output_blocks\.(\d+)\.") // num_levels - 1
    firsts = [1 + level * (num_res_blocks + 1) for level in range(num_levels)]
    return UNetConfig(
        image_size=size,
        model_channels=channels,
        channel_mult=_multipliers([_width(state, i) for i in firsts], channels),
        num_res_blocks=num_res_blocks,
        attention_resolutions=_resolutions(state, firsts, size),
        num_heads=heads,
        time_width=time_width,
        z_width=shape_of(state, "input_blocks.1.0.cond_emb_layers.1.weight")[1],
        dropout=dropout,
        image_channels=shape_of(state, "input_blocks.0.0.weight")[1],
    )


def _encoder_res_blocks(state: State, num_blocks: int, said: int | None) -> int:
    """Residual blocks a level of the encoder, whose ``num_blocks`` entries include those that go down.

    A block that goes down has the parameters of any other, but it changes no width and attends to
    nothing; only the true number divides the entries into such levels.
    """
    widths = [_width(state, i, "encoder.") for i in range(1, num_blocks + 1)]
    attends = [f"encoder.input_blocks.{i}.1.qkv.weight" in state for i in range(1, num_blocks + 1)]

    def fits(n: int) -> bool:
        if n < 1 or (num_blocks + 1) % (n + 1):
            return False
        for start in range(0, num_blocks, n + 1):
            level, down = slice(start, start + n), slice(start + n, start + n + 1)
            if len(set(widths[start : start + n + 1])) > 1 or len(set(attends[level])) > 1:
                return False
            if any(attends[down]):
                return False
        return True

    candidates = [n for n in range(1, num_blocks + 1) if fits(n)]
    if said in candidates:
        return said
    if said is not None or not candidates:
        raise CheckpointError("its encoder is not made of levels of equally many blocks")
    return 2 if 2 in candidates else candidates[0]  # the reference's default, where it is possible


def _encoder_config(state: State, size: int, channels: int, heads: int, hyper: Hyper) -> EncoderConfig:
    num_blocks = count(state, r"encoder\.input_blocks\.(\d+)\.") - 1
    said = hyper.get("net_enc_num_res_blocks", _model_hyper(hyper).get("enc_num_res_block"))
    n = _encoder_res_blocks(state, num_blocks, said)
    firsts = list(range(1, num_blocks + 1, n + 1))
    return EncoderConfig(
        image_size=size,
        model_channels=channels,
        channel_mult=_multipliers([_width(state, i, "encoder.") for i in firsts], channels),
        num_res_blocks=n,
        attention_resolutions=_resolutions(state, firsts, size, "encoder."),
        num_heads=heads,
        z_width=shape_of(state, "encoder.out.3.weight")[0],
        image_channels=shape_of(state, "encoder.input_blocks.0.0.weight")[1],
    )


def autoencoder_config(state: State, hyper: Hyper, size: int) -> DiffAEConfig:
    """The DiffAE of ``state`` (official names, no prefix), sampled as in the paper.

    Raises CheckpointError where the shapes fit none, or a hyper-parameter says it is another network.
    """
    _check(hyper, _AUTOENCODER_SETTINGS)
    _check(_model_hyper(hyper), _MODEL_SETTINGS)
    heads = int(hyper.get("net_beatgans_attn_head", 1))
    unet = _unet_config(state, size, heads, float(hyper.get("dropout", 0.1)))
    encoder = _encoder_config(state, size, unet.model_channels, heads, hyper)
    if encoder.z_width != unet.z_width:
        raise CheckpointError(
            f"its encoder writes z of {encoder.z_width} values, its UNet reads {unet.z_width}"
        )
    return DiffAEConfig(encoder=encoder, unet=unet, prediction="eps", sampling=SamplingSpec())


def latent_config(state: State, hyper: Hyper) -> LatentMLPConfig:
    """The LatentMLP of ``state`` (official names after ``latent_net.``); errors as above."""
    _check(hyper, _LATENT_SETTINGS)
    return latent_mlp_config(state)
