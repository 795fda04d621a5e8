"""rdm train METHOD: a method, or a first stage, on a folder of images."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args

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
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread


def named(options: dict[str, Any]) -> dict[str, Any]:
    """Those of ``options`` that the user named."""
    return {name: value for name, value in options.items() if value is not None}


def _of_kind(preset: str | None, kind: FirstStageKind | None) -> str | None:
    """A first stage's preset, which is of a kind; None where neither was named."""
    if preset is None and kind is None:
        return None
    if preset is not None and preset.startswith(tuple(f"{k}-" for k in get_args(FirstStageKind))):
        return preset  # as the list of presets has it
    return f"{kind or 'kl'}-{preset or 'small64'}"


def training_command(method: str, what: str, *, around: str | None = None) -> Callable[..., None]:
    """The command that trains ``method``; ``what`` names, in its help, what comes of it.

    ``around`` is what it is trained around, "dpm" or "first-stage": the command has options for it.
    """

    @spread
    def train(
        folder: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The bundle to write.")
        ],
        preset: str | None = None,
        images: Annotated[
            int | None,
            typer.Option(
                "--images", metavar="N", min=1, help="Stop after N images seen.", show_default="the preset's"
            ),
        ] = None,
        steps: Annotated[
            int | None, typer.Option("--steps", metavar="N", min=1, help="Stop after N optimiser steps.")
        ] = None,
        minutes: Annotated[
            float | None,
            typer.Option("--minutes", metavar="MINUTES", min=0.01, help="Stop after so many minutes."),
        ] = None,
        batch_size: Annotated[
            int | None,
            typer.Option(
                "--batch-size",
                metavar="N",
                min=1,
                help="Images in one step, over all processes.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        lr: Annotated[
            float | None,
            typer.Option(
                "--lr",
                metavar="RATE",
                min=0.0,
                help="Learning rate.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        warmup: Annotated[
            int | None,
            typer.Option(
                "--warmup",
                metavar="N",
                min=0,
                help="Steps in which the learning rate rises from 0.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        decay: Annotated[
            float | None,
            typer.Option(
                "--decay",
                metavar="FRACTION",
                min=0.0,
                max=1.0,
                help="Last fraction of training, in which the learning rate falls to 0.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        weight_decay: Annotated[
            float | None,
            typer.Option(
                "--weight-decay",
                metavar="W",
                min=0.0,
                show_default="the preset's",
                help="Weight decay of AdamW.",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        ema: Annotated[
            float | None,
            typer.Option(
                "--ema",
                metavar="DECAY",
                min=0.0,
                max=0.999999,
                help="Decay of the averaged weights.",
                show_default="the preset's",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        flip: Annotated[
            bool | None,
            typer.Option(
                "--flip/--no-flip",
                help="Mirror half of the images.",
                show_default="the preset's",
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        dpm: Annotated[
            str | None,
            typer.Option(
                "--dpm",
                metavar="BUNDLE",
                help="The pretrained model, which stays frozen; also a diffusers UNet2DModel pipeline.",
                rich_help_panel="Method",
            ),
        ] = None,
        gamma: Annotated[
            float | None,
            typer.Option(
                "--gamma",
                metavar="GAMMA",
                min=0.0,
                help="Weigh the loss by SNR^gamma / (1 + SNR).",
                show_default="0.1 if the pretrained model predicts eps, else no weight",
                rich_help_panel="Method",
            ),
        ] = None,
        first_stage: Annotated[
            str | None,
            typer.Option(
                "--first-stage",
                metavar="FOLDER",
                help="The autoencoder, frozen: diffusers' AutoencoderKL, VQModel or AutoencoderTiny.",
                rich_help_panel="Method",
            ),
        ] = None,
        kind: Annotated[
            FirstStageKind | None,
            typer.Option(
                "--kind",
                help="Gaussian latents, or quantised ones.",
                show_default="kl",
                rich_help_panel="Method",
            ),
        ] = None,
        perceptual_weight: Annotated[
            float | None,
            typer.Option(
                "--perceptual-weight",
                metavar="W",
                min=0.0,
                help="Weight of the perceptual distance ST-LPIPS in the loss.",
                show_default="0",
                rich_help_panel="Method",
            ),
        ] = None,
        kl_weight: Annotated[
            float | None,
            typer.Option(
                "--kl-weight",
                metavar="W",
                min=0.0,
                help="The paper's lambda: how far z is pulled to N(0, I).",
                show_default="the preset's",
                rich_help_panel="Method",
            ),
        ] = None,
        predict: Annotated[
            Predicted | None,
            typer.Option(
                "--predict",
                help="What the UNet predicts.",
                show_default="the preset's",
                rich_help_panel="Method",
            ),
        ] = None,
        weighting: Annotated[
            LossWeighting | None,
            typer.Option(
                "--weighting",
                help="Weight of the loss over t: none, likelihood, or other (that of eps for a network that "
                "predicts x_0, and the reverse).",
                show_default="none",
                rich_help_panel="Method",
            ),
        ] = None,
        classes: Annotated[
            bool,
            typer.Option(
                "--classes",
                help="Each sub-folder is a class, which the networks are given.",
                rich_help_panel="Method",
            ),
        ] = False,
        cache_latents: Annotated[
            Path | None,
            typer.Option(
                "--cache-latents",
                metavar="DIR",
                help="Compute the latents once and keep them in DIR.",
                rich_help_panel="Method",
            ),
        ] = None,
        resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's checkpoint.")] = False,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Print the batch, the memory it needs and the work to do; write nothing."
            ),
        ] = False,
        init_from: Annotated[
            str | None, typer.Option("--init-from", metavar="BUNDLE", help="Start from a bundle's weights.")
        ] = None,
        run: Annotated[
            Path | None,
            typer.Option(
                "--run",
                metavar="DIR",
                help="Folder for checkpoint, log and sheets.",
                show_default="runs/NAME",
                rich_help_panel="Run",
            ),
        ] = None,
        checkpoint_minutes: Annotated[
            float,
            typer.Option(
                "--checkpoint-minutes",
                metavar="MINUTES",
                min=0.0,
                help="Minutes between checkpoints.",
                rich_help_panel="Run",
            ),
        ] = 5.0,
        sheet_minutes: Annotated[
            float,
            typer.Option(
                "--sheet-minutes",
                metavar="MINUTES",
                min=0.0,
                help="Minutes between sheets of pictures; 0: no sheets.",
                rich_help_panel="Run",
            ),
        ] = 15.0,
        mixed_precision: Annotated[
            o.MixedPrecision | None,
            typer.Option(
                "--mixed-precision",
                help="Arithmetic of a step; fp16 needs a GPU.",
                show_default="no",
                rich_help_panel=o.MACHINE,
            ),
        ] = None,
        gradient_accumulation: Annotated[
            int | None,
            typer.Option(
                "--gradient-accumulation",
                metavar="N",
                min=1,
                help="Passes in one step: less memory, the same batch.",
                show_default="1",
                rich_help_panel="Optimiser",
            ),
        ] = None,
        weights: Annotated[
            o.Weights | None,
            typer.Option(
                "--weights", help="How the bundle stores weights.", show_default="fp32", rich_help_panel="Run"
            ),
        ] = None,
        log: Annotated[
            Tracker | None, typer.Option("--log", help="Log to tensorboard as well.", rich_help_panel="Run")
        ] = None,
        workers: Annotated[
            int | None,
            typer.Option(
                "--workers",
                metavar="N",
                min=0,
                help="Processes that decode images.",
                show_default="0 on a CPU, else 4",
                rich_help_panel=o.MACHINE,
            ),
        ] = None,
        fit: Annotated[
            o.Fit | None,
            typer.Option(
                "--fit",
                help="How an image becomes a square of the network's size.",
                show_default="crop",
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        max_pixels: Annotated[
            int | None,
            typer.Option(
                "--max-pixels",
                metavar="N",
                min=1,
                help="Leave out images of more than N pixels (guards against decompression bombs).",
                show_default=str(o.MAX_PIXELS_DEFAULT),
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        value_range: Annotated[
            str | None,
            typer.Option(
                "--range",
                metavar="LO,HI",
                help="Grey images of more than 8 bits: which values are black and white.",
                show_default="found from each image's values",
                rich_help_panel=o.IMAGES,
            ),
        ] = None,
        seed: Annotated[
            int | None,
            typer.Option(
                "--seed",
                metavar="N",
                help="Seed of everything random.",
                show_default="0",
                rich_help_panel="Run",
            ),
        ] = None,
        *,
        processor: o.Processor,
        voice: o.Voice,
    ) -> None:
        console = Console(as_json=voice.as_json, quiet=voice.quiet)
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
            "predict": predict,
            "weighting": weighting,
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
                "fit": fit,
                "mixed_precision": mixed_precision,
                "max_pixels": max_pixels,
                "value_range": value_range,
                "weights": weights,
                "latents": None if cache_latents is None else str(cache_latents),
            },
            checkpoint_minutes=checkpoint_minutes,
            sheet_minutes=sheet_minutes or None,
            tensorboard=log is not None,
            device=processor.device,
            threads=processor.threads,
            dry_run=dry_run,
        )

    needed = {"dpm": " --dpm my-dpm", "first-stage": " --first-stage vae/"}.get(around or "", "")
    train.__doc__ = f"""Train {what} on any folder of images.

    Runs on one process, or on many under 'torchrun --nproc-per-node N -m -- rdm_cli train {method} ...' (with
    --device cpu, that many processes on the CPU). A run that was stopped or killed goes on with --resume
    as if undisturbed; its settings are kept, and those named again are changed.

    Examples:
        rdm train {method} faces/ -o my-bundle{needed} --preset small64
        rdm train {method} faces/ -o my-bundle{needed} --resume
    """
    foreign = {name for kind, names in AROUND.items() if kind != around for name in names}
    signature = inspect.signature(train, eval_str=True)  # typer does so too, but not with a given one
    told = f"Networks and recipe: {PRESETS[method]} (docs/training.md)."
    option = typer.Option("--preset", metavar="NAME", help=told, show_default="small64")
    known = dict(signature.parameters)
    known["preset"] = known["preset"].replace(annotation=Annotated[str | None, option])
    kept = [p for name, p in known.items() if name not in foreign]
    train.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return train
