"""One measurement of methods_speed.py: one configuration trains or samples, in a process of its own.

    python benchmarks/speed_measurement.py lrdm-cached 64 train --batch-size 16

Weights are random and images are noise, in memory: neither changes what a step costs; reading image files is
left out. Training is the shell's own loop (loss, gradient, clipping, AdamW, average of the weights); sampling
is what ``rdm sample`` does: z from the method's own prior, x_T from noise, DDIM and, where there is a first
stage, its decoder. The first step is not counted. Prints one JSON object.

Memory is the process's peak, less its peak before any network was built: what Python and its libraries take.
"""

from __future__ import annotations

import dataclasses
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import Codes
from rdm_cli.methods.method import Method
from rdm_cli.methods.pdae.config import pdae_config
from rdm_cli.methods.presets import Preset
from rdm_cli.pipeline.compatibility import stop_shift_for
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.priors.gaussian import GaussianPrior
from rdm_cli.priors.latent_ddim import LatentDDIM
from rdm_cli.registry import METHODS, load
from rdm_cli.training.checkpoint import Progress
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.loop import Budget, Settings, make_optimizer, train_steps
from rdm_cli.training.run.on_codes import prior_config
from rdm_cli.training.run.plan import make_accelerator

PUBLISHED = {"diffae": "ffhq256", "pdae": "published", "lrdm": "r64x8x8"}
"""The preset of each method at 256 pixels; at others it is the small one of that size."""
NUM_ITEMS = 64


class Noise(Dataset[Tensor]):
    """Items of ``shape``: uint8 images, or float16 latents."""

    def __init__(self, shape: tuple[int, ...], *, latents: bool) -> None:
        generator = torch.Generator().manual_seed(0)
        drawn = torch.rand((NUM_ITEMS, *shape), generator=generator)
        self._items = drawn.half() if latents else (255 * drawn).byte()

    def __len__(self) -> int:
        return NUM_ITEMS

    def __getitem__(self, index: int) -> Tensor:
        return self._items[index]


def chosen_preset(method: Method, size: int) -> Preset:
    """The preset of ``size`` pixels.

    PDAE is published around no model of 256 pixels: there it stands around Diff-AE's UNet without z, so that
    the two differ by the method alone.
    """
    if size != 256:
        return method.presets[f"small{size}"]
    preset = method.presets[PUBLISHED[method.name]]
    if method.name != "pdae":
        return preset
    unet = load(METHODS, "method", "diffae").presets[PUBLISHED["diffae"]].config.unet
    config = pdae_config(
        dataclasses.replace(unet, z_width=None),
        z_width=preset.config.encoder.z_width,
        prediction="eps",
        sampling=preset.config.sampling,
        gamma=0.1,
    )
    return dataclasses.replace(preset, config=config)


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def timed(step: Callable[[], object], seconds: float) -> list[float]:
    """Seconds of each call of ``step``, for at least ``seconds``, after one that is not counted."""
    step()
    found: list[float] = []
    while not found or sum(found) < seconds:
        begun = time.perf_counter()
        step()
        found.append(time.perf_counter() - begun)
    return found


def waited_for(work: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """``work``, over when ``device`` is done with it: a GPU goes on after the call has come back."""

    def wait() -> object:
        found = work()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return found

    return wait


def where(device: torch.device, threads: int) -> str:
    """What computed, in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{threads} CPU threads"


def training_step(
    method: Method, preset: Preset, model: Any, accelerator: Accelerator, *, cached: bool, batch_size: int
) -> Callable[[], object]:
    """What makes one optimiser step of the training shell."""
    recipe = dataclasses.asdict(preset.recipe) | {"batch_size": batch_size}
    del recipe["num_images"]
    settings = Settings(**recipe)
    average = WeightAverage(model, settings.ema_decay, only=method.averaged)
    wrapped, optimizer = accelerator.prepare(model, make_optimizer(model, settings))
    variants = (2 if settings.flip else 1, 1)  # as the cache of a VQ's latents has them
    steps = train_steps(
        wrapped,
        average=average,
        optimizer=optimizer,
        images=Noise((*variants, *model.x_T_shape) if cached else model.image_shape, latents=cached),
        num_train_steps=model.sampling.schedule.num_train_steps,
        x_T_shape=model.x_T_shape,
        settings=settings,
        budget=Budget(num_images=sys.maxsize),
        start=Progress(),
        accelerator=accelerator,
    )
    return lambda: next(steps)


def sampling_step(
    method: Method,
    model: Any,
    prior: LatentDDIM | GaussianPrior,
    *,
    batch_size: int,
    precision: Any,
    steps: int,
) -> Callable[[], object]:
    """What draws one batch of images."""
    model.eval().requires_grad_(False)
    bundle = Bundle(name="random", folder=Path(), method=method, model=model, digest="")
    pipeline = Pipeline(bundle=bundle, precision=precision, batch_size=batch_size)
    info = pipeline.info(steps=None, stop_shift=stop_shift_for(bundle, None))

    def draw() -> Tensor:
        z = prior.sample(torch.randn(batch_size, prior.z_width), steps).unflatten(1, model.z_shape)
        codes = Codes(z=z, x_T=pipeline.noise(range(batch_size)), infos=(info,) * batch_size)
        return pipeline.decode(codes, steps=steps)

    return draw


def num_bytes(*networks: Any) -> int:
    """What the parameters of ``networks`` take in float32."""
    return sum(4 * p.numel() for n in networks if isinstance(n, nn.Module) for p in n.parameters())


def main(
    configuration: Annotated[str, typer.Argument(help="diffae, pdae, lrdm or lrdm-cached.")],
    size: Annotated[int, typer.Argument(help="Side of the images: 32, 64 or 256.")],
    task: Annotated[str, typer.Argument(help="train or sample.")],
    batch_size: Annotated[int, typer.Option(help="Images at once.")],
    steps: Annotated[int, typer.Option(help="DDIM steps.")] = 10,
    precision: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    seconds: Annotated[float, typer.Option(help="Measure for at least so long.")] = 4.0,
    threads: Annotated[int | None, typer.Option(help="Threads; all cores without it.")] = None,
) -> None:
    """Measure, and print the figures."""
    method: Method = load(METHODS, "method", configuration.removesuffix("-cached"))
    preset = chosen_preset(method, size)
    accelerator = make_accelerator(
        device="cpu",
        threads=threads,
        mixed_precision="no" if precision == "fp32" else precision,
        tracker_folder=None,
    )
    with torch.device("meta"):  # whatever is imported on the way is in memory before the measurement begins
        method.model(preset.config)
    before = peak_bytes()
    model: Any = method.model(preset.config)
    prior: LatentDDIM | GaussianPrior | None = None
    if task == "train":
        cached = configuration.endswith("-cached")
        step = training_step(method, preset, model, accelerator, cached=cached, batch_size=batch_size)
    else:
        if method.prior == "gaussian":
            prior = GaussianPrior(z_width=torch.Size(model.z_shape).numel())
        else:
            prior = LatentDDIM(prior_config(preset.prior)).eval()
        step = sampling_step(method, model, prior, batch_size=batch_size, precision=precision, steps=steps)
    found = timed(step, seconds)
    figures = {
        "seconds_per_image": sum(found) / len(found) / batch_size,
        "num_timed": len(found),
        "parameter_bytes": num_bytes(model),
        "prior_bytes": num_bytes(prior),
        "peak_bytes": peak_bytes(),
        "libraries_bytes": before,
        "num_threads": torch.get_num_threads(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    typer.run(main)
