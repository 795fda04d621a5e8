"""How well each inversion brings images back, at what cost in network calls, and what its x_T is like.

    rdm data avatars held-out --n 1000 --seed 2 -q >held-out.txt
    python benchmarks/inversion.py --images held-out --n 256 --markdown docs/performance.md

Prints a Markdown table to stdout: PSNR of the float images before rounding (the worst and the mean; and of
the first image where it is decoded alone, since another batch size makes the network round differently),
network calls for encode and decode together, and statistics of x_T. With --json FILE the figures are kept as
well; each method can be run alone with --method.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from belm import belm_weight
from edict import edict_decode, edict_encode
from noise_statistics import noise_statistics
from report_tables import WIDTH, PageOption, keep_json, publish, refuse_unmarked, table
from torch import Tensor

from rdm_cli import open_pipeline
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.fixed_point import fixed_point_encode
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.kernels.spec import EpsFn
from rdm_cli.kernels.two_step import Weight, two_step_decode, two_step_encode
from rdm_cli.runtime import set_up

SCRIPT = "inversion"
State = Tensor | TwoStates


@dataclass(frozen=True, kw_only=True)
class Method:
    """An inversion and the decoding that goes with it, on ``steps`` steps each.

    ``clamps``: as the bundle does; it is what the papers do, on timesteps even in t.
    """

    encode: Callable[..., Iterator[State]]
    decode: Callable[..., Iterator[Tensor]] = ddim_decode
    steps: int
    spacing: Spacing = "log-snr"
    clamps: bool = False


def fixed_point(num_iterations: int) -> Callable[..., Iterator[Tensor]]:
    return partial(fixed_point_encode, num_iterations=num_iterations)


def two_step(weight: Weight | None = None) -> Method:
    """``weight`` None is BDIA's default."""
    return Method(
        encode=partial(two_step_encode, weight=weight),
        decode=partial(two_step_decode, weight=weight),
        steps=19,
    )


METHODS = {
    "ddim, as published": Method(encode=ddim_encode, steps=20, spacing="stride", clamps=True),
    "ddim": Method(encode=ddim_encode, steps=20),
    "ddim, 15": Method(encode=ddim_encode, steps=15),
    "fixed-point, 2 iterations": Method(encode=fixed_point(2), steps=10),
    "fixed-point, 3 iterations": Method(encode=fixed_point(3), steps=10),
    "bdia": two_step(),
    "bdia, gamma 1": two_step(lambda *_: 1.0),
    "o-belm": two_step(belm_weight),
    "edict": Method(encode=edict_encode, decode=edict_decode, steps=10),
    "edict, even in t": Method(encode=edict_encode, decode=edict_decode, steps=10, spacing="stride"),
}


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is measured of one method, over all images; statistics are means over the images."""

    spacing: str
    steps: int
    network_calls: int
    worst_psnr_db: float
    mean_psnr_db: float
    alone_psnr_db: float
    x_T_mean: float
    x_T_std: float
    x_T_horizontal: float
    x_T_vertical: float
    seconds: float


class Counted:
    """A denoiser that counts how often it was asked."""

    def __init__(self, eps_fn: EpsFn) -> None:
        self.eps_fn = eps_fn
        self.calls = 0

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        self.calls += 1
        return self.eps_fn(x_t, t)


def psnr_db(x_0: Tensor, back: Tensor) -> Tensor:
    """PSNR of each pair in dB, (B,), in float64: at 70 dB and beyond float32 has no digits left."""
    return -10 * ((back.double() - x_0.double()) / 2).square().mean(dim=(1, 2, 3)).log10()


def first_of(state: State) -> State:
    """The first item of a batch, as a batch of one."""
    return TwoStates(*(s[:1] for s in state)) if isinstance(state, TwoStates) else state[:1]


@torch.no_grad()
def measure(pipeline: Any, method: Method, x_0: Tensor) -> Figures:
    """Encode ``x_0`` (N, 3, H, W) and decode it again, as one batch; then the first by itself."""
    model = pipeline.bundle.model
    clamps = model.sampling.clip_x_0 and method.clamps
    spec = replace(model.sampling, clip_x_0=clamps, spacing=method.spacing)
    started = time.perf_counter()
    z = model.encode(x_0)["z"].float()
    eps_fn = Counted(pipeline.eps_fn({"z": z}))
    state = last(method.encode(eps_fn, x_0, spec, method.steps))
    psnr = psnr_db(x_0, last(method.decode(eps_fn, state, spec, method.steps)))
    seconds = time.perf_counter() - started
    alone = last(method.decode(pipeline.eps_fn({"z": z[:1]}), first_of(state), spec, method.steps))
    statistics = noise_statistics(state.x_t if isinstance(state, TwoStates) else state)
    return Figures(
        spacing=spec.spacing,
        steps=method.steps,
        network_calls=eps_fn.calls,
        worst_psnr_db=float(psnr.min()),
        mean_psnr_db=float(psnr.mean()),
        alone_psnr_db=float(psnr_db(x_0[:1], alone)),
        x_T_mean=float(statistics.mean.mean()),
        x_T_std=float(statistics.std.mean()),
        x_T_horizontal=float(statistics.horizontal.mean()),
        x_T_vertical=float(statistics.vertical.mean()),
        seconds=seconds,
    )


def markdown(rows: dict[str, Figures], *, num: int, precision: str) -> str:
    """The table, and above it what was measured."""
    told = (
        f"{num} held-out images as one batch, network in {precision}: PSNR of the float images before "
        "rounding, in dB; *alone* is the first image decoded as a batch of one. Calls are the network's, "
        "for encode and decode together. x_T of N(0, I) has mean 0, standard deviation 1 and correlations of "
        "0 between neighbours (h and v)."
    )
    header = ("inversion", "timesteps", "steps", "calls", "PSNR, worst", "mean", "alone", "x_T's mean")
    lines = [
        (
            name,
            row.spacing,
            str(row.steps),
            str(row.network_calls),
            *(f"{psnr:.1f}" for psnr in (row.worst_psnr_db, row.mean_psnr_db, row.alone_psnr_db)),
            *(f"{v:.3f}" for v in (row.x_T_mean, row.x_T_std, row.x_T_horizontal, row.x_T_vertical)),
        )
        for name, row in rows.items()
    ]
    return f"{textwrap.fill(told, WIDTH)}\n\n{table((*header, 'std', 'h', 'v'), lines)}"


def main(
    images: Annotated[Path, typer.Option(help="A folder of images that the bundle was not trained on.")],
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    n: Annotated[int, typer.Option(help="How many of the images, in order of their names.")] = 16,
    method: Annotated[list[str] | None, typer.Option(help=f"Any of: {'; '.join(METHODS)}.")] = None,
    precision: Annotated[str, typer.Option(help="fp32 or bf16, of the network.")] = "fp32",
    json_file: Annotated[Path | None, typer.Option("--json", help="Keep the figures here.")] = None,
    page: PageOption = None,
) -> None:
    """Measure, and print the table."""
    refuse_unmarked(page, SCRIPT)
    unknown = [name for name in method or [] if name not in METHODS]
    if unknown:
        raise typer.BadParameter(f"there is no method {unknown[0]!r}; known: {'; '.join(METHODS)}")
    paths = sorted(images.glob("*.png"))[:n]
    if not paths:
        raise typer.BadParameter(f"{images}: no PNG files here")
    pipeline = open_pipeline(bundle, device=set_up(), precision=precision, batch_size=len(paths))  # type: ignore[arg-type]
    x_0 = pipeline.load_images(paths).to(pipeline.bundle.device)
    rows = {}
    for name in method or METHODS:
        rows[name] = measure(pipeline, METHODS[name], x_0)
        print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
    if json_file is not None:
        figures = {
            "bundle": pipeline.bundle.name,
            "digest": pipeline.bundle.digest,
            "num_images": len(paths),
            "precision": precision,
            "methods": {name: asdict(row) for name, row in rows.items()},
        }
        keep_json(json_file, figures)
    publish(markdown(rows, num=len(paths), precision=precision), page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
