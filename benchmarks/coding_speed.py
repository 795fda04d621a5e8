"""Encode and decode against a plain loop and against diffusers' schedulers, on one network in one process.

    python benchmarks/coding_speed.py --markdown docs/performance.md
    python benchmarks/coding_speed.py --device cuda --batch-size 64

The network is Diff-AE's of a preset, with random weights, which cost what trained ones do. The plain loop is
what one writes from the paper's equations: fp32, ``inference_mode``, contiguous memory, z encoded once.
Before anything is timed, its pictures and rdm's in fp32 are compared with the loop's in float64: with random
weights rounding grows from step to step, and rdm's may be as far off as the plain loop's, not further. All
alternatives share the process, its threads and what rdm asks of the C library's allocator; each runs once a
round, and ratios are those within a round. The second table says which part of the machine's own peak, a
large matrix product in the same precision, the UNet's forward reaches. The product is asked for twice, for
torch has two libraries for it: as ``torch.mm`` and as a convolution of 1x1; the faster is the peak.
"""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any, cast

import torch
import torch.nn.functional as F
import typer
from diffusers import DDIMInverseScheduler, DDIMScheduler
from interleaved import Seconds, ratio_text, timed_side_by_side
from report_tables import WIDTH, PageOption, publish, refuse_unmarked, table
from speed_measurement import waited_for, where
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.methods.method import Method
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.registry import METHODS, load
from rdm_cli.runtime import Precision, autocast, set_up, with_cast_weights

SCRIPT = "coding_speed"
PLAIN = "plain loop, fp32"
RDM = "rdm, fp32"
NUM_TRAIN_STEPS = 1000
MATRIX = 3072
SIDE = 64  # of the image that holds the same product as a convolution
SLACK = 2
"""How many times the plain loop's own rounding rdm's may be: both are draws of one size, not one number."""


def trained_looking(model: Any) -> None:
    """Fill what begins at zero, so that eps depends on x_t, t and z as it does after training."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.data.copy_(0.02 * torch.randn(parameter.shape, generator=generator))


def in_float64(model: Any) -> Any:
    """A copy that computes in float64, but for the sinusoid of t."""
    copied = copy.deepcopy(model).double()
    copied.unet.time_embed.linear_1.register_forward_pre_hook(lambda _, given: (given[0].double(),))
    return copied


def plain_coding(model: Any, steps: int) -> Callable[[Tensor], Tensor]:
    """Encode and decode as the equations have it, on ``steps`` evenly strided timesteps."""
    betas = torch.linspace(1e-4, 0.02, NUM_TRAIN_STEPS, dtype=torch.float64)
    alpha_bars = torch.cumprod(1 - betas, 0)
    chosen = list(range(0, NUM_TRAIN_STEPS, NUM_TRAIN_STEPS // steps))
    levels = [1.0, *(float(alpha_bars[t]) for t in chosen), 0.0]

    def step(x: Tensor, z: Tensor, t: int, here: float, to: float) -> Tensor:
        eps = model.unet(x, torch.full((len(x),), t, device=x.device), model.unet.condition(z))
        x_0 = ((x - (1 - here) ** 0.5 * eps) / here**0.5).clamp(-1, 1)
        eps = (x - here**0.5 * x_0) / (1 - here) ** 0.5
        return to**0.5 * x_0 + (1 - to) ** 0.5 * eps

    @torch.inference_mode()
    def code(x_0: Tensor) -> Tensor:
        z = model.encoder(x_0)
        x = x_0
        for i, t in enumerate(chosen):
            x = step(x, z, t, levels[i + 1], levels[i + 2])
        for i in reversed(range(len(chosen))):
            x = step(x, z, chosen[i], levels[i + 1], levels[i])
        return x

    return code


def diffusers_coding(model: Any, steps: int) -> Callable[[Tensor], Tensor]:
    """The same with diffusers' two schedulers."""
    common = {
        "num_train_timesteps": NUM_TRAIN_STEPS,
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "timestep_spacing": "leading",
        "clip_sample": True,
    }
    up, down = DDIMInverseScheduler(**common), DDIMScheduler(**common)

    @torch.inference_mode()
    def code(x_0: Tensor) -> Tensor:
        z = model.encoder(x_0)
        x = x_0
        for scheduler in (up, down):
            scheduler.set_timesteps(steps)
            for t in scheduler.timesteps.to(x.device):
                eps = model.unet(x, t.expand(len(x)), model.unet.condition(z))
                x = scheduler.step(eps, t, x).prev_sample
        return x

    return code


def rdm_coding(bundle: Bundle, steps: int, precision: Any, batch_size: int) -> Callable[[Tensor], Tensor]:
    """rdm's own way, as its commands go it."""
    pipeline = Pipeline(bundle=bundle, precision=precision, batch_size=batch_size)
    return lambda x_0: pipeline.decode(pipeline.encode(x_0, steps=steps), steps=steps)


def shares_of_peak(model: Any, x: Tensor, rounds: int) -> list[tuple[str, ...]]:
    """Rows of precision, GFLOP/s of both products and of the UNet's forward, and its share of the better."""
    device = x.device
    z_scales = model.unet.condition(torch.randn(len(x), *model.z_shape, device=device))
    t = torch.full((len(x),), 500, device=device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.unet(x, t, z_scales)
    work = dict.fromkeys(("mm", "convolution"), 2 * MATRIX**3) | {"forward": counter.get_total_flops()}
    rows = []
    for precision in ("fp32", "bf16"):
        kind = torch.float32 if precision == "fp32" else torch.bfloat16
        a, b = (torch.randn(MATRIX, MATRIX, device=device).to(kind) for _ in range(2))
        unet = cast(Any, with_cast_weights(model, cast(Precision, precision))).unet

        def forward(precision: Any = precision, unet: Any = unet) -> None:
            with torch.inference_mode(), autocast(device, precision):
                unet(x, t, z_scales)

        def product(a: Tensor = a, b: Tensor = b) -> None:
            torch.mm(a, b)

        image, kernel = b.view(1, MATRIX, SIDE, MATRIX // SIDE), a.view(MATRIX, MATRIX, 1, 1)

        def convolution(image: Tensor = image, kernel: Tensor = kernel) -> None:
            F.conv2d(image, kernel)

        alternatives = {"mm": product, "convolution": convolution, "forward": forward}
        alternatives = {name: waited_for(call, device) for name, call in alternatives.items()}
        seconds = timed_side_by_side(alternatives, rounds=rounds)
        rate = {name: work[name] / median(found) / 1e9 for name, found in seconds.items()}
        share = f"{100 * rate['forward'] / max(rate['mm'], rate['convolution']):.0f} %"
        rows.append((precision, *(f"{rate[name]:,.0f}" for name in alternatives), share))
    return rows


def markdown(seconds: Seconds, shares: list[tuple[str, ...]], *, told: str, images: int) -> str:
    """Both tables, and above them what was measured."""
    diffusers = next(name for name in seconds if name.startswith("diffusers"))
    rows = [
        (
            name,
            f"{images / median(found):.2f}",
            ratio_text(seconds, name, PLAIN),
            ratio_text(seconds, name, diffusers),
        )
        for name, found in seconds.items()
    ]
    speed = table(("", "images/s", "times the plain loop", "times diffusers' loop"), rows)
    header = ("precision", "torch.mm (GFLOP/s)", "1x1 convolution", "UNet's forward", "share of the better")
    peak = table(header, shares)
    return f"{textwrap.fill(told, WIDTH)}\n\n{speed}\n\n{peak}"


def main(
    preset: Annotated[str, typer.Option(help="A preset of Diff-AE.")] = "celeba64",
    batch_size: Annotated[int, typer.Option(min=1, help="Images at once.")] = 8,
    steps: Annotated[int, typer.Option(min=1, help="Steps each way; a divisor of 1000.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 5,
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, or a GPU as torch calls it.")] = "cpu",
    page: PageOption = None,
) -> None:
    """Compare pictures, then speeds, and print the tables."""
    refuse_unmarked(page, SCRIPT)
    if NUM_TRAIN_STEPS % steps:
        raise typer.BadParameter(f"--steps: {steps} does not divide {NUM_TRAIN_STEPS}")
    resolved = set_up(device=device, threads=threads)
    torch.manual_seed(0)
    method: Method = load(METHODS, "method", "diffae")
    if preset.startswith("small"):
        raise typer.BadParameter("--preset: one whose network predicts eps, as the plain loop takes it to do")
    model: Any = method.model(method.presets[preset].config)
    trained_looking(model)
    model.eval().requires_grad_(False).to(resolved)
    bundle = Bundle(name=preset, folder=Path(), method=method, model=model, digest="")
    x_0 = (torch.rand(batch_size, *model.image_shape) * 2 - 1).to(resolved)
    codings = {
        PLAIN: plain_coding(model, steps),
        "diffusers' schedulers, fp32": diffusers_coding(model, steps),
        RDM: rdm_coding(bundle, steps, "fp32", batch_size),
        "rdm, bf16": rdm_coding(bundle, steps, "bf16", batch_size),
    }
    torch.backends.cudnn.allow_tf32 = False  # what is compared is rounding in float32
    exact = plain_coding(in_float64(model), steps)(x_0.double())
    rounding = {name: float((codings[name](x_0).to(resolved) - exact).abs().max()) for name in (PLAIN, RDM)}
    torch.backends.cudnn.allow_tf32 = True  # as torch has it, and so all that is timed
    if rounding[RDM] > SLACK * rounding[PLAIN]:
        raise RuntimeError(f"not the same work: from the loop in float64 they differ by {rounding}")
    alternatives = {name: waited_for(lambda code=code: code(x_0), resolved) for name, code in codings.items()}
    seconds = timed_side_by_side(alternatives, rounds=rounds)
    told = (
        f"{preset}, random weights, {batch_size} images at once, {steps} + {steps} steps, "
        f"{where(resolved, threads)}, {rounds} rounds: images a second by the median round, ratios as "
        f"median (least to greatest) of the rounds' own. From the plain loop's pictures in float64 "
        f"its own in fp32 differ by {rounding[PLAIN]:.1e} at most, rdm's by {rounding[RDM]:.1e}; "
        "diffusers' are others, for its schedulers end a step further from noise."
    )
    tables = markdown(seconds, shares_of_peak(model, x_0, rounds), told=told, images=batch_size)
    publish(tables, page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
