"""What a training run starts from: a model with fresh or given weights, and images."""

from __future__ import annotations

import hashlib
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.pretrained import open_first_stage, open_pretrained
from rdm_cli.data.dataset import ImageFolder, WithClasses, warn_of_bad
from rdm_cli.data.images.pixels import Remark, load_rgb, to_unit_range, warn_of
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.data.sources.folders import find_inputs
from rdm_cli.errors import ImageError
from rdm_cli.methods.method import Method
from rdm_cli.training.run.latent_cache import cached_latents
from rdm_cli.training.run.plan import RunPlan

CALIBRATION_IMAGES = 1600  # of which a first stage's latents' spread is measured
CALIBRATION_BATCH = 16
SIZED_IMAGES = 16  # by whose size a preset is chosen


def training_images(
    plan: RunPlan,
    *,
    on_bad: Callable[[Path, ImageError], None] = warn_of_bad,
    on_remark: Remark = warn_of,
) -> ImageFolder:
    """The images of ``plan``, none of them read yet; UsageError where there are none."""
    config = plan.config if hasattr(plan.config, "image_size") else plan.config.unet
    return ImageFolder(
        plan.folder,
        size=config.image_size,
        channels=config.image_channels,
        fit=cast(Any, plan.fit),
        on_bad=on_bad,
        class_names=plan.class_names,
        max_pixels=plan.max_pixels,
        value_range=None if plan.value_range is None else parse_range(plan.value_range),
        on_remark=on_remark,
    )


def file_digests(images: ImageFolder) -> dict[str, str]:
    """By which a resumed run knows its images again, and processes that they all have the same.

    ``named``: of their names and sizes in bytes; ``timed``: of these and of when each was written last, which
    a copy of the folder may lose. No file is opened, for there may be millions.
    """
    named, timed = hashlib.sha256(), hashlib.sha256()
    for path in images.paths:
        status = path.stat() if path.exists() else None  # a dangling link has a stand-in
        name = os.fsencode(path.relative_to(images.folder)) + b"\0"
        for digest in (named, timed):
            digest.update(name + (b"" if status is None else b"%d" % status.st_size) + b"\0")
        timed.update(b"" if status is None else b"%d" % status.st_mtime_ns)
    return {"named": named.hexdigest(), "timed": timed.hexdigest()}


def small_preset(method: Method, folder: Path) -> str:
    """The largest of the method's presets ``small32``, ``small64``, ... that the images in ``folder`` fill.

    Half of some images spread over the folder, those that can be read, are as large. Raises UsageError where
    there are no images.
    """
    paths = [item.source for item in find_inputs([folder])]
    num = min(SIZED_IMAGES, len(paths))
    sides = []
    for path in (paths[i * len(paths) // num] for i in range(num)):
        with suppress(ImageError):
            sides.append(min(load_rgb(path, on_remark=lambda name, text: None).size))
    usual = statistics.median(sides) if sides else math.inf
    sizes = sorted(
        int(name.removeprefix("small")) for name in method.presets if re.fullmatch(r"small\d+", name)
    )
    return f"small{max((size for size in sizes if size <= usual), default=sizes[0])}"


def starting_model(plan: RunPlan, images: ImageFolder, device: torch.device, *, resumed: bool) -> nn.Module:
    """The model of ``plan`` on ``device``; a ``resumed`` one gets its weights from the checkpoint, later.

    The weights' start is the seed's, whatever ran before in this process.
    """
    torch.manual_seed(plan.settings.seed)
    model = plan.method.model(plan.config)
    if resumed:
        return model.to(device)
    if plan.init_from is not None:
        if plan.method.samples:
            model.load_state_dict(cast(nn.Module, open_bundle(plan.init_from).model).state_dict())
        else:
            network = open_first_stage(plan.init_from).network
            cast(Any, model).first_stage.load_state_dict(network.state_dict())
        return model.to(device)
    if plan.pretrained is not None:
        assert plan.method.pretrained is not None
        cast(Any, model).adopt(open_pretrained(plan.method.pretrained, plan.pretrained))
    model.to(device)
    if hasattr(model, "calibrate"):
        cast(Any, model).calibrate(_some(images, device))
    return model


def _some(images: ImageFolder, device: torch.device) -> Iterator[Tensor]:
    """Images spread over the folder, in batches, for what a model measures before it is trained."""
    num = min(CALIBRATION_IMAGES, len(images))
    chosen = [i * len(images) // num for i in range(num)]
    for start in range(0, num, CALIBRATION_BATCH):
        some = [images[i] for i in chosen[start : start + CALIBRATION_BATCH]]
        yield to_unit_range(torch.stack(some)).to(device)


def training_data(
    plan: RunPlan, images: ImageFolder, model: nn.Module, device: torch.device, note: Callable[[str], None]
) -> Dataset[Any]:
    """What the loop sees: the images or, where the plan says so, their latents from the disk.

    With their classes, where there are some. Raises UsageError for a model that needs the images themselves.
    """
    stored: Dataset[Tensor] = images
    if plan.latents is not None:
        network = cast(Any, model).first_stage
        stored = cached_latents(
            plan.latents, images, network, flip=plan.settings.flip, device=device, note=note
        )
    return WithClasses(stored, images) if images.class_names else stored
