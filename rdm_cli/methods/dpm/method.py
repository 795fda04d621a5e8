"""The plain DPM's entry in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rdm_cli.errors import CheckpointError
from rdm_cli.methods.dpm.convert import read_dpm
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.dpm.pipelines import find_pipeline, read_pipeline
from rdm_cli.methods.dpm.presets import PRESETS
from rdm_cli.methods.method import Converted, Method
from rdm_cli.models.backbones import Backbone
from rdm_cli.models.first_stage import FirstStageConfig


def convert(files: Sequence[Path], class_label: int | None = None) -> Converted:
    """Read a pretrained DPM: an ADM checkpoint with its settings, or the folder of a diffusers pipeline.

    A class-conditional one is used for the class ``class_label`` alone. Raises CheckpointError.
    """
    remarks: tuple[str, ...] = ()
    if len(files) == 1 and files[0].is_dir():
        pipeline = find_pipeline(files[0])
        if pipeline is None:
            raise CheckpointError(f"{files[0]}: holds no diffusers pipeline of a UNet2DModel")
        model = read_pipeline(pipeline, class_label=class_label, pickled=True)
        remarks = pipeline.remarks
    else:
        official = read_dpm(files, class_label)
        model = DPM(official.config)
        model.load_state_dict(official.state)
    num_parameters = sum(p.numel() for p in model.parameters())
    summary = "; ".join([f"{model.image_size} px, {num_parameters:,} parameters", *remarks])
    return Converted(model=model, prior=None, directions=None, summary=summary)


METHOD = Method(
    name="dpm",
    title="a plain diffusion model (Ho et al., NeurIPS 2020, arXiv 2006.11239)",
    components={"first_stage": FirstStageConfig, "unet": Backbone},
    optional=frozenset({"first_stage"}),
    config=DPMConfig,
    model=DPM,
    presets=PRESETS,
    convert=convert,
    convert_options=frozenset({"class_label"}),
)
