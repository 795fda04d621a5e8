"""Training steps against a plain fp32 loop, on one network in one process.

    python benchmarks/training_speed.py --markdown docs/performance.md
    python benchmarks/training_speed.py --device cuda --batch-size 128

Both train Diff-AE's networks of a preset, from random weights, on uint8 noise in memory, so that reading
files is left out. The plain loop is what one writes first: fp32, torch's dropout, timesteps and noise from
torch's generator, gradients clipped one after the other, Adam without ``fused``, and an average of the
weights kept parameter by parameter. rdm's is ``rdm train``'s own loop. Each makes one step a round; ratios
are those within a round.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import torch
import typer
from interleaved import ratio_text, timed_side_by_side
from report_tables import WIDTH, PageOption, publish, refuse_unmarked, table
from speed_measurement import training_step, waited_for, where
from torch import Tensor, nn

from rdm_cli.methods.method import Method
from rdm_cli.models.dropout import Dropout
from rdm_cli.registry import METHODS, load
from rdm_cli.runtime import set_up
from rdm_cli.training.run.plan import make_accelerator

SCRIPT = "training_speed"
PLAIN = "plain loop, fp32"


def with_torchs_dropout(model: nn.Module) -> nn.Module:
    """``model`` with torch's dropout in the place of rdm's."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, Dropout):
                setattr(module, name, nn.Dropout(child.p))
    return model


def plain_step(
    model: Any, images: Tensor, *, lr: float, decay: float, clip_norm: float
) -> Callable[[], None]:
    """One step of a loop without any of rdm's care, on ``images`` uint8 (B, 3, H, W), where these lie."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, foreach=False)
    averages = {name: p.detach().clone() for name, p in model.named_parameters()}
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bars = torch.cumprod(1 - betas, 0).float().to(images.device)
    model.train()

    def step() -> None:
        x_0 = images.float() / 127.5 - 1
        t = torch.randint(0, 1000, (len(x_0),), device=x_0.device)
        eps = torch.randn_like(x_0)
        alpha_bar = alpha_bars[t][:, None, None, None]
        x_t = alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
        z = model.encoder(x_0)
        loss = (model.unet(x_t, t, model.unet.condition(z)) - eps).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm, foreach=False)
        optimizer.step()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                averages[name].mul_(decay).add_(parameter, alpha=1 - decay)

    return step


def counted(step: Callable[[], Any], seen: list[int]) -> Callable[[], object]:
    """``step``, after which ``seen`` says how many images were: on a GPU a record may be of several steps."""

    def take() -> None:
        seen.append(step().num_images)

    return take


def main(
    preset: Annotated[str, typer.Option(help="A preset of Diff-AE.")] = "celeba64",
    batch_size: Annotated[int, typer.Option(min=1, help="Images a step.")] = 8,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds that are counted.")] = 10,
    precision: Annotated[str, typer.Option(help="Of rdm's training: bf16 or no.")] = "bf16",
    threads: Annotated[int, typer.Option(min=1, help="Threads.")] = 2,
    device: Annotated[str, typer.Option(help="cpu, or a GPU as torch calls it.")] = "cpu",
    page: PageOption = None,
) -> None:
    """Measure, and print the table."""
    refuse_unmarked(page, SCRIPT)
    resolved = set_up(device=device, threads=threads)
    method: Method = load(METHODS, "method", "diffae")
    chosen = method.presets[preset]
    models: list[Any] = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(method.model(chosen.config).to(resolved))
    images = (255 * torch.rand(batch_size, *models[0].image_shape)).byte().to(resolved)
    recipe = chosen.recipe
    alternatives: dict[str, Callable[[], object]] = {
        PLAIN: plain_step(
            with_torchs_dropout(models[0]), images, lr=recipe.lr, decay=recipe.ema_decay, clip_norm=1.0
        )
    }
    accelerator = make_accelerator(
        device=device, threads=threads, mixed_precision=precision, tracker_folder=None
    )
    alternatives[f"rdm train, {'fp32' if precision == 'no' else precision}"] = training_step(
        method, chosen, models[1], accelerator, cached=False, batch_size=batch_size
    )
    seen: list[int] = []
    for name, step in alternatives.items():
        alternatives[name] = waited_for(step if name == PLAIN else counted(step, seen), resolved)
    seconds = timed_side_by_side(alternatives, rounds=rounds)
    ours = next(name for name in seconds if name != PLAIN)
    images_a_round = [now - before for before, now in zip(seen, seen[1:], strict=False)]
    seconds[ours] = [s * batch_size / n for s, n in zip(seconds[ours], images_a_round, strict=True)]
    rows = [
        (name, f"{batch_size / median(found):.2f}", ratio_text(seconds, name, PLAIN))
        for name, found in seconds.items()
    ]
    told = (
        f"{preset}, batches of {batch_size}, {where(resolved, threads)}, {rounds} rounds of a step each: "
        "images a second by the median round, ratios as median (least to greatest) of the rounds' own."
    )
    tables = f"{textwrap.fill(told, WIDTH)}\n\n{table(('', 'images/s', 'times the plain loop'), rows)}"
    publish(tables, page, SCRIPT)


if __name__ == "__main__":
    typer.run(main)
