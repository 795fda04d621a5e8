"""rdm train METHOD: a method, or a first stage, on a folder of images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from rdm_cli import options as o
from rdm_cli.commands.training_job import carry_out
from rdm_cli.commands.training_words import (
    AROUND,
    PRESETS,
    FirstStageKind,
    LossWeighting,
    Predicted,
    Tracker,
)
from rdm_cli.console import Console
from rdm_cli.data.value_range import parse_range
from rdm_cli.errors import UsageError


def named(options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that the user named."""
    return {name: value for name, value in options.items() if value is not None}


def _of_kind(preset: str | None, kind: FirstStageKind | None) -> str | None:
    """A first stage's preset, which is of a kind; None where neither was named."""
    if preset is None and kind is None:
        return None
    if preset is not None and preset.startswith(tuple(f"{k.value}-" for k in FirstStageKind)):
        return preset  # as the list of presets has it
    return f"{(kind or FirstStageKind.kl).value}-{preset or 'small64'}"


def training_command(method: str, what: str, *, around: str | None = None) -> Callable[..., None]:
    """The command that trains ``method``; ``what`` names, in its help, what comes of it.

    ``around`` is what it is trained around, "dpm" or "first-stage": the command has options for it.
    """

    def train(
        folder: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The bundle to write.")
        ],
        preset: str | None = None,
        images: Annotated[
            int | None,
            typer.Option(
                "--images", min=1, help="Train on so many images seen.", show_default="the preset's"
            ),
        ] = None,
        steps: Annotated[int | None, typer.Option("--steps", min=1, help="Or on so many steps.")] = None,
        minutes: Annotated[float | None, typer.Option("--minutes", min=0.01, help="Or for so long.")] = None,
        batch_size: Annotated[
            int | None,
            typer.Option(
                "--batch-size",
                min=1,
                help="Images in one step, over all processes.",
                show_default="the preset's",
            ),
        ] = None,
        lr: Annotated[
            float | None, typer.Option("--lr", min=0.0, help="Learning rate.", show_default="the preset's")
        ] = None,
        warmup: Annotated[
            int | None,
            typer.Option("--warmup", min=0, help="Steps in which lr rises.", show_default="the preset's"),
        ] = None,
        decay: Annotated[
            float | None,
            typer.Option(
                "--decay",
                min=0.0,
                max=1.0,
                help="Last fraction of training, in which lr falls to 0.",
                show_default="the preset's",
            ),
        ] = None,
        weight_decay: Annotated[
            float | None,
            typer.Option("--weight-decay", min=0.0, show_default="the preset's", help="AdamW's."),
        ] = None,
        ema: Annotated[
            float | None,
            typer.Option(
                "--ema",
                min=0.0,
                max=0.999999,
                help="Decay of the averaged weights.",
                show_default="the preset's",
            ),
        ] = None,
        flip: Annotated[
            bool | None,
            typer.Option("--flip/--no-flip", help="Mirror half of the images.", show_default="the preset's"),
        ] = None,
        dpm: Annotated[
            str | None,
            typer.Option(
                "--dpm",
                metavar="BUNDLE",
                help="The pretrained model, which stays frozen; also a diffusers UNet2DModel pipeline.",
            ),
        ] = None,
        gamma: Annotated[
            float | None,
            typer.Option(
                "--gamma",
                min=0.0,
                help="Weigh the loss by SNR^gamma / (1 + SNR).",
                show_default="0.1 if the pretrained model predicts eps, else no weight",
            ),
        ] = None,
        first_stage: Annotated[
            str | None,
            typer.Option(
                "--first-stage",
                metavar="FOLDER",
                help="The autoencoder, frozen: diffusers' AutoencoderKL, VQModel or AutoencoderTiny.",
            ),
        ] = None,
        kind: Annotated[
            FirstStageKind | None,
            typer.Option("--kind", help="Gaussian latents, or quantised ones.", show_default="kl"),
        ] = None,
        perceptual_weight: Annotated[
            float | None,
            typer.Option(
                "--perceptual-weight",
                min=0.0,
                help="Add so many times the perceptual distance ST-LPIPS to the loss.",
                show_default="0",
            ),
        ] = None,
        kl_weight: Annotated[
            float | None,
            typer.Option(
                "--kl-weight",
                min=0.0,
                help="The paper's lambda: how far z is pulled to N(0, I).",
                show_default="the preset's",
            ),
        ] = None,
        predict: Annotated[
            Predicted | None,
            typer.Option("--predict", help="What the UNet predicts.", show_default="the preset's"),
        ] = None,
        weighting: Annotated[
            LossWeighting | None,
            typer.Option(
                "--weighting",
                help="The loss over t: likelihood, or other, as if of x_0 and eps the other were predicted.",
                show_default="none",
            ),
        ] = None,
        classes: Annotated[
            bool, typer.Option("--classes", help="Each sub-folder is a class, which the networks are told.")
        ] = False,
        cache_latents: Annotated[
            Path | None,
            typer.Option(
                "--cache-latents", metavar="DIR", help="Keep the latents there, and compute them but once."
            ),
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Say how large batch and memory would be and what is to do; write nothing."
            ),
        ] = False,
        init_from: Annotated[
            str | None, typer.Option("--init-from", metavar="BUNDLE", help="Start from a bundle's weights.")
        ] = None,
        run: Annotated[
            Path | None,
            typer.Option("--run", metavar="DIR", help="Checkpoint, log, sheets.", show_default="runs/NAME"),
        ] = None,
        checkpoint_minutes: Annotated[
            float, typer.Option("--checkpoint-minutes", min=0.0, help="Time between checkpoints.")
        ] = 5.0,
        sheet_minutes: Annotated[
            float, typer.Option("--sheet-minutes", min=0.0, help="Time between sheets of pictures; 0: none.")
        ] = 15.0,
        mixed_precision: Annotated[
            o.MixedPrecision | None,
            typer.Option(
                "--mixed-precision", help="Arithmetic of a step; fp16 needs a GPU.", show_default="no"
            ),
        ] = None,
        gradient_accumulation: Annotated[
            int | None,
            typer.Option("--gradient-accumulation", min=1, help="Passes in one step.", show_default="1"),
        ] = None,
        weights: Annotated[
            o.Weights | None,
            typer.Option("--weights", help="How the bundle stores weights.", show_default="fp32"),
        ] = None,
        log: Annotated[Tracker | None, typer.Option("--log", help="Log to tensorboard as well.")] = None,
        workers: Annotated[
            int | None,
            typer.Option(
                "--workers", min=0, help="Processes that decode images.", show_default="0 on a CPU, else 4"
            ),
        ] = None,
        fit: Annotated[
            o.Fit | None,
            typer.Option(
                "--fit", help="How an image becomes a square of the network's size.", show_default="crop"
            ),
        ] = None,
        max_pixels: Annotated[
            int | None,
            typer.Option(
                "--max-pixels",
                metavar="N",
                min=1,
                help="Leave out images of more pixels, which may be bombs.",
                show_default=str(o.MAX_PIXELS_DEFAULT),
            ),
        ] = None,
        value_range: Annotated[
            str | None,
            typer.Option(
                "--range",
                metavar="LO,HI",
                help="Grey images of more than 8 bits: which values are black and white.",
                show_default="found from each image's values",
            ),
        ] = None,
        seed: Annotated[
            int | None, typer.Option("--seed", help="Seed of everything random.", show_default="0")
        ] = None,
        device: o.Device = "auto",
        threads: o.Threads = None,
        as_json: o.Json = False,
        quiet: o.Quiet = False,
    ) -> None:
        console = Console(as_json=as_json, quiet=quiet)
        if sum(given is not None for given in (images, steps, minutes)) > 1:
            raise UsageError("--images, --steps and --minutes exclude each other")
        if value_range is not None:
            parse_range(value_range)  # a wrong one is told before any work
        changes: dict[str, Any] = {
            "batch_size": batch_size,
            "lr": lr,
            "warmup_steps": warmup,
            "decay_fraction": decay,
            "weight_decay": weight_decay,
            "ema_decay": ema,
            "flip": flip,
            "num_accumulations": gradient_accumulation,
            "num_workers": workers,
            "seed": seed,
        }
        adopting = {
            "gamma": gamma,
            "kl_weight": kl_weight,
            "perceptual_weight": perceptual_weight,
            "predict": predict and predict.value,
            "weighting": weighting and weighting.value,
        }
        carry_out(
            console,
            method,
            folder=folder,
            bundle=output,
            run_folder=run or Path("runs") / output.name,
            preset=_of_kind(preset, kind) if around == "nothing" else preset,
            changes=named(changes),
            num_images=images,
            num_steps=steps,
            minutes=minutes,
            resume=resume,
            init_from=init_from,
            pretrained=dpm or first_stage,
            adopting=named(adopting),
            classes=classes,
            kept={
                "fit": fit and fit.value,
                "mixed_precision": mixed_precision and mixed_precision.value,
                "max_pixels": max_pixels,
                "value_range": value_range,
                "weights": weights and weights.value,
                "latents": None if cache_latents is None else str(cache_latents),
            },
            checkpoint_minutes=checkpoint_minutes,
            sheet_minutes=sheet_minutes or None,
            tensorboard=log is not None,
            device=device,
            threads=threads,
            dry_run=dry_run,
        )

    train.__doc__ = f"""Train {what} on any folder of images.

    Runs on one process, or on many under 'torchrun --nproc-per-node N -m -- rdm_cli train {method} ...' (with
    --device cpu, that many processes on the CPU). A run that was stopped or killed goes on with --resume
    as if undisturbed; its settings are kept, and those named again are changed.
    """
    foreign = {name for kind, names in AROUND.items() if kind != around for name in names}
    signature = inspect.signature(train, eval_str=True)  # typer does so too, but not with a given one
    told = f"Networks and recipe: {PRESETS[method]} (docs/training.md)."
    option = typer.Option("--preset", help=told, show_default="small64")
    known = dict(signature.parameters)
    known["preset"] = known["preset"].replace(annotation=Annotated[str | None, option])
    kept = [p for name, p in known.items() if name not in foreign]
    train.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return train
