"""LRDM's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rdm_cli.kernels.parameterization import Prediction
from rdm_cli.methods.lrdm.config import LRDMConfig
from rdm_cli.methods.lrdm.convert import read_lrdm
from rdm_cli.methods.lrdm.model import LRDM
from rdm_cli.methods.lrdm.presets import PRESETS
from rdm_cli.methods.method import Converted, Method, Pretrained
from rdm_cli.models.first_stage import FirstStageConfig
from rdm_cli.models.latent_unet import LatentUNetConfig, Weighting
from rdm_cli.models.representation import RepresentationConfig
from rdm_cli.models.style_shape import StyleShapeConfig


def adopt(
    config: LRDMConfig,
    pretrained: Any,
    kl_weight: float | None = None,
    classes: tuple[str, ...] = (),
    predict: Prediction | None = None,
    weighting: Weighting | None = None,
) -> LRDMConfig:
    """``config``'s networks on the latents of a ``pretrained`` first stage, for images of its own size.

    ``kl_weight`` is lambda; None keeps the preset's. ``classes`` are the names of what the images are divided
    into, which the networks are then told. ``predict`` is what the UNet does, ``weighting`` that of its loss
    over t (:mod:`rdm_cli.methods.lrdm.losses`); None keeps the preset's. Raises ValueError where those
    latents cannot be halved as often as the networks do, for classes of style and shape, and for a weighting
    that ``predict`` has not.
    """
    stage: FirstStageConfig = pretrained.config
    if config.image_size % stage.factor:
        raise ValueError(f"it leaves no whole number of places of {config.image_size} pixels")
    old, size = config.unet.latent_size, config.image_size // stage.factor
    # attention stays at the levels where it was
    resolutions = tuple(side * size // old for side in config.unet.attention_resolutions)
    latents = {
        "latent_size": size, "latent_channels": stage.latent_channels, "attention_resolutions": resolutions,
    }  # fmt: skip
    representation = config.representation
    assert representation is not None
    if classes and isinstance(representation, StyleShapeConfig):
        raise ValueError("a model of style and shape knows no classes")
    settings: dict[str, Any] = {} if kl_weight is None else {"kl_weight": kl_weight}
    if config.generator is not None:
        settings["generator"] = replace(
            config.generator, image_size=size, image_channels=stage.latent_channels
        )
    known = {"num_classes": len(classes)} if classes else {}
    return replace(
        config,
        unet=replace(
            config.unet,
            **latents,  # type: ignore[arg-type]
            class_names=classes,
            weighting=weighting or config.unet.weighting,
        ),
        prediction=predict or config.prediction,
        representation=replace(representation, **latents, **settings, **known),  # type: ignore[arg-type]
        first_stage=stage,
    )


def adopted(config: LRDMConfig) -> dict[str, Any]:
    """Which options of :func:`adopt` make ``config``."""
    assert config.representation is not None
    return {
        "kl_weight": config.representation.kl_weight,
        "classes": bool(config.unet.class_names),
        "predict": config.prediction,
        "weighting": config.unet.weighting,
    }


def convert(files: Sequence[Path]) -> Converted:
    """Read the authors' checkpoint and settings; see :mod:`rdm_cli.methods.lrdm.convert`."""
    official = read_lrdm(files)
    model = LRDM(official.config)
    model.load_state_dict(official.state)
    num_parameters = sum(p.numel() for p in model.parameters())
    size = " x ".join(map(str, model.z_shape))
    summary = f"{model.image_size} px, z of {size}, {num_parameters:,} parameters"
    if classes := official.config.class_names:
        summary += f", {len(classes)} classes"
    return Converted(model=model, prior=None, directions=None, summary=summary)


METHOD = Method(
    name="lrdm",
    title="LRDM (Traub 2022, arXiv 2210.11058)",
    components={
        "first_stage": FirstStageConfig,
        "unet": LatentUNetConfig,
        "representation": RepresentationConfig | StyleShapeConfig,
    },
    config=LRDMConfig,
    model=LRDM,
    presets=PRESETS,
    convert=convert,
    prior="gaussian",
    averaged="unet",
    pretrained=Pretrained(
        kind="first-stage",
        option="--first-stage",
        purpose="works on the latents of a first stage",
        hint="name one with --first-stage FOLDER: any diffusers AutoencoderKL, VQModel or AutoencoderTiny; "
        "rdm train first-stage trains one",
    ),
    adopt=adopt,
    adopted=adopted,
    optional=frozenset({"first_stage", "representation"}),
)
