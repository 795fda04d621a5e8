"""Figures made up for the rules, and small bundles under the shipped names."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evidence.contenders import DIFFAE, PDAE
from evidence.findings import Findings
from evidence.store import Entry

from rdm_cli.bundles.writing import save_bundle
from rdm_cli.evaluation.figures import Figure
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.methods.pdae.method import METHOD
from rdm_cli.methods.pdae.model import PDAE as Model
from rdm_cli.methods.pdae.presets import pdae_config
from rdm_cli.metrics.intervals import Estimate
from rdm_cli.models.unet import UNetConfig

Make = Callable[..., Figure]


@pytest.fixture(scope="session")
def figure() -> Make:
    """``figure(bundle, name, value, half, better, **condition)``, with an interval of that half-width."""

    def make(
        bundle: str, name: str, value: float, half: float, better: Any, num: int = 50, **condition: Any
    ) -> Figure:
        interval = Estimate(value=value, low=value - half, high=value + half, level=0.95, num_resamples=9)
        return Figure(
            bundle=bundle,
            name=name,
            value=value,
            num=num,
            condition=condition,
            interval=interval,
            better=better,
        )

    return make


@pytest.fixture(scope="session")
def findings_of() -> Callable[..., Findings]:
    """``findings_of({"study": [figures]})``, each under its own bundle."""

    def make(studies: dict[str, list[Figure]], **more: Any) -> Findings:
        entries: dict[str, dict[str, Entry]] = {}
        for study, figures in studies.items():
            for name in dict.fromkeys(f.bundle for f in figures):
                own = tuple(f for f in figures if f.bundle == name)
                entries.setdefault(study, {})[name] = Entry(
                    key={"bundle": {"bundle": name, "digest": "0" * 64}, "settings": {}},
                    seconds=1.0,
                    machine="a machine",
                    figures=own,
                )
        return Findings(entries=entries, **more)

    return make


@pytest.fixture(scope="session")
def small_bundles(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bundles of two shipped names: the tiny Diff-AE, and a PDAE of 32 px without a prior."""
    folder = tmp_path_factory.mktemp("shelf") / "bundles"
    shutil.copytree(tiny_bundle, folder / DIFFAE)
    unet = UNetConfig(
        image_size=32, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, z_width=None,
        attention_resolutions=(), time_width=32,
    )  # fmt: skip
    sampling = SamplingSpec(steps=4, spacing="linspace")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Model(pdae_config(unet, z_width=8, prediction="eps", sampling=sampling, gamma=0.1))
        for weight in model.parameters():
            if not weight.any():
                torch.nn.init.normal_(weight, std=0.05)
    save_bundle(folder / PDAE, METHOD, model, card="# pdae\n")
    return folder
