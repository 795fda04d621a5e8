"""What a training run starts from: a checkpoint, or a model with fresh or given weights, and images."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.pretrained import open_first_stage, open_pretrained
from rdm_cli.data.dataset import ImageFolder, WithClasses, warn_of_bad
from rdm_cli.data.images.pixels import Remark, to_unit_range, warn_of
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.data.pixel_cache import PATTERN, PixelCache
from rdm_cli.errors import ImageError
from rdm_cli.methods.method import Method
from rdm_cli.training.checkpoint import Checkpoint, load_checkpoint, load_header
from rdm_cli.training.run.latent_cache import cached_latents
from rdm_cli.training.run.plan import RunPlan

CALIBRATION_IMAGES = 1600  # of which a first stage's latents' spread is measured
CALIBRATION_BATCH = 16
PIXELS_DIGEST_LENGTH = 16


def earlier_checkpoint(plan: RunPlan, *, tensors: bool = True) -> Checkpoint | None:
    """What ``plan`` goes on from, None for a new run; without ``tensors`` just how far it has come.

    Raises CheckpointError where there is nothing to resume.
    """
    if not plan.resume:
        return None
    return load_checkpoint(plan.run_folder) if tensors else load_header(plan.run_folder)


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
        class_names=getattr(plan.config, "class_names", ()),
        max_pixels=plan.max_pixels,
        value_range=None if plan.value_range is None else parse_range(plan.value_range),
        on_remark=on_remark,
    )


def pixel_cache(plan: RunPlan, images: ImageFolder, note: Callable[[str], None]) -> PixelCache:
    """Where a run keeps the pixels of ``images``: a file in its folder, named by what they depend on."""
    return PixelCache(
        plan.run_folder / PATTERN.replace("*", images.digest()[:PIXELS_DIGEST_LENGTH]),
        num=len(images),
        shape=(images.channels, images.size, images.size),
        note=note,
    )


def fingerprint(images: ImageFolder) -> int:
    """63 bits of which images there are, and in which order, wherever their folder lies."""
    digest = hashlib.blake2b(digest_size=8)
    for path in images.paths:
        digest.update(os.fsencode(path.relative_to(images.folder)) + b"\0")
    return int.from_bytes(digest.digest(), "big") >> 1


def file_digests(images: ImageFolder) -> dict[str, str]:
    """By which a resumed run knows its images again, wherever their folder lies now.

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


def build_model(method: Method, config: Any) -> nn.Module:
    """A method's model with fresh weights, to be trained."""
    if method.build_to_train is not None:
        return method.build_to_train(config)
    parts = {name: getattr(config, name) for name in method.components}
    return method.build(parts, config.sampling, config.prediction)


def starting_model(plan: RunPlan, images: ImageFolder, device: torch.device, *, resumed: bool) -> nn.Module:
    """The model of ``plan`` on ``device``; a ``resumed`` one gets its weights from the checkpoint, later.

    The weights' start is the seed's, whatever ran before in this process.
    """
    torch.manual_seed(plan.settings.seed)
    model = build_model(plan.method, plan.config)
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
    stored = images if plan.latents is None else _latents(plan, plan.latents, images, model, device, note)
    return WithClasses(stored, images) if images.class_names else stored


def _latents(
    plan: RunPlan,
    folder: Path,
    images: ImageFolder,
    model: nn.Module,
    device: torch.device,
    note: Callable[[str], None],
) -> Dataset[Tensor]:
    network = cast(Any, model).first_stage
    return cached_latents(folder, images, network, flip=plan.settings.flip, device=device, note=note)
