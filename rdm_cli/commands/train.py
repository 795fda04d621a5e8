"""rdm train: a method, or a first stage, on images; a prior or attributes on codes.

The options of ``rdm train METHOD`` stand in groups whose fields have the names of
:class:`~rdm_cli.training.run.plan.TrainOptions`, so that together they are one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.commands.follow_training import (
    follow_attributes,
    follow_prior,
    train_or_forecast,
)
from rdm_cli.commands.train_all import train_all
from rdm_cli.config_file import Config, PrintConfig, emit_config, unless_overruled
from rdm_cli.console import Console
from rdm_cli.help_page import App
from rdm_cli.option_groups import group, spread
from rdm_cli.registry import FIRST_STAGE, PRESETS, load

app = App(
    no_args_is_help=True,
    help="""Train a method on images, or a prior or attributes on codes.

Examples:
    rdm train diffae faces/ -o my-bundle --preset small64 --minutes 60
    rdm train attributes codes/ --labels metadata.csv -b my-bundle
""",
)

FirstStageKind = Literal["kl", "vq"]
"""What a first stage makes of its latents."""
Predicted = Literal["x_0", "eps", "v"]
"""What an LRDM's UNet predicts."""
LossWeighting = Literal["none", "likelihood", "other"]
"""How an LRDM's loss is weighed over t."""
Along = Literal["means", "classifier"]
"""What an edit follows."""


@group("Method")
class NoMore:
    """A method that has no options of its own."""


@group("Method")
class AroundDPM:
    """PDAE."""

    pretrained: Annotated[
        str | None,
        typer.Option(
            "--dpm",
            metavar="BUNDLE",
            help="The pretrained model, which stays frozen; also a diffusers UNet2DModel pipeline.",
        ),
    ] = None
    gamma: Annotated[
        float | None,
        o.left_open(
            "--gamma",
            "GAMMA",
            "Weigh the loss by SNR^gamma / (1 + SNR).",
            "0.1 in the preset published, else no weight",
            min=0.0,
        ),
    ] = None


@group("Method")
class AroundFirstStage:
    """LRDM."""

    pretrained: Annotated[
        str | None,
        typer.Option(
            "--first-stage",
            metavar="FOLDER",
            help="The autoencoder, frozen: diffusers' AutoencoderKL, VQModel or AutoencoderTiny.",
        ),
    ] = None
    kl_weight: Annotated[
        float | None,
        o.left_open("--kl-weight", "W", "The paper's lambda: how far z is pulled to N(0, I).", min=0.0),
    ] = None
    predict: Annotated[Predicted | None, o.left_open("--predict", None, "What the UNet predicts.")] = None
    weighting: Annotated[
        LossWeighting | None,
        o.left_open(
            "--weighting",
            None,
            "Weight of the loss over t: none, likelihood, or other (that of eps for a network that predicts "
            "x_0, and the reverse).",
            "none",
        ),
    ] = None
    classes: Annotated[
        bool, typer.Option("--classes", help="Each sub-folder is a class, which the networks are given.")
    ] = False
    latents: Annotated[
        Path | None,
        typer.Option("--cache-latents", metavar="DIR", help="Compute the latents once and keep them in DIR."),
    ] = None


@group("Method")
class FirstStage:
    """A first stage itself."""

    kind: Annotated[
        FirstStageKind | None, o.left_open("--kind", None, "Gaussian latents, or quantised ones.", "kl")
    ] = None
    perceptual_weight: Annotated[
        float | None,
        o.left_open(
            "--perceptual-weight",
            "W",
            "Weight of the perceptual distance ST-LPIPS in the loss.",
            "0",
            min=0.0,
        ),
    ] = None


def _of_kind(preset: str | None, kind: FirstStageKind | None) -> str | None:
    """A first stage's preset, which is of a kind; None where neither was named."""
    if preset is None and kind is None:
        return None
    if preset is not None and preset.startswith(tuple(f"{k}-" for k in get_args(FirstStageKind))):
        return preset  # as the list of presets has it
    return f"{kind or 'kl'}-{preset or 'small64'}"


def _is_first_attempt(console: Console, run_folder: Path) -> bool:
    """Whether a launcher started a run that has no checkpoint yet.

    torchrun starts lost processes anew by the command that it was given, so one command has to say both.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return False
    from rdm_cli.training.checkpoint import FILE_NAME

    if (run_folder / FILE_NAME).exists():
        return False
    if os.environ.get("RANK") == "0":
        console.note(f"rdm: {run_folder}: no checkpoint yet, so the run begins")
    return True


def _training_command(method: str, what: str, own: type[Any], needed: str = "") -> Callable[..., None]:
    """The command that trains ``method``; ``what`` names, in its help, what comes of it.

    ``own`` is the group of the options that it alone has, ``needed`` those that its examples need.
    """

    def train(
        ctx: typer.Context,
        folder: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
        output: Annotated[
            Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The bundle to write.")
        ],
        preset: str | None = None,
        num_images: Annotated[
            int | None, o.left_open("--images", "N", "Stop after N images seen.", min=1)
        ] = None,
        num_steps: Annotated[
            int | None, typer.Option("--steps", metavar="N", min=1, help="Stop after N optimiser steps.")
        ] = None,
        minutes: Annotated[
            float | None,
            typer.Option("--minutes", metavar="MINUTES", min=0.01, help="Stop after so many minutes."),
        ] = None,
        resume: Annotated[
            bool,
            typer.Option(
                "--resume",
                help="Go on from the run's checkpoint; under a launcher begin, where there is none yet.",
            ),
        ] = False,
        dry_run: Annotated[
            bool,
            typer.Option(
                "--dry-run", help="Print the batch, the memory it needs and the work to do; write nothing."
            ),
        ] = False,
        init_from: Annotated[
            str | None, typer.Option("--init-from", metavar="BUNDLE", help="Start from a bundle's weights.")
        ] = None,
        config: Config = None,
        print_config: PrintConfig = False,
        *,
        of_method: Any,
        optimiser: o.Optimiser,
        run: o.Run,
        images: o.TrainingImages,
        machine: o.TrainingMachine,
        voice: o.Voice,
    ) -> None:
        from rdm_cli.training.run.plan import TrainOptions

        more = vars(of_method) | vars(optimiser) | vars(run) | vars(images) | vars(machine)
        if method == FIRST_STAGE:
            preset = _of_kind(preset, more.pop("kind"))
        console = Console(as_json=voice.as_json, quiet=voice.quiet)
        budget: dict[str, Any] = {"num_images": num_images, "num_steps": num_steps, "minutes": minutes}
        if config is not None:
            budget = unless_overruled(ctx, budget)
        run_folder = more["run_folder"] = run.run_folder or Path("runs") / output.name
        options = TrainOptions(
            method=method,
            folder=folder,
            bundle=output,
            preset=preset,
            init_from=init_from,
            resume=resume and not _is_first_attempt(console, run_folder),
            **budget,
            **more,
        )
        show = partial(emit_config, console, ctx) if print_config else None
        plan = train_or_forecast(console, options, dry_run=dry_run, show=show)
        if plan is not None:
            console.emit(str(output), output=str(output), run=str(plan.run_folder))

    train.__doc__ = f"""Train {what} on any folder of images.

    Runs on one process, or on many under 'torchrun --nproc-per-node N -m -- rdm_cli train {method} ...' (with
    --device cpu, that many processes on the CPU). A run that was stopped or killed goes on with --resume
    as if undisturbed; its settings are kept, and those named again are changed.

    Examples:
        rdm train {method} faces/ -o my-bundle{needed} --preset small64
        rdm train {method} faces/ -o my-bundle{needed} --resume
    """
    kinds = tuple(f"{kind}-" for kind in get_args(FirstStageKind))
    presets = load(PRESETS, "method", method)  # names alone, without torch
    names = dict.fromkeys(name.partition("-")[2] if name.startswith(kinds) else name for name in presets)
    listed = f"Networks and recipe: {', '.join(names)} (docs/training.md)."
    train.__annotations__ |= {
        "preset": Annotated[
            str | None,
            o.left_open("--preset", "NAME", listed, "small64", autocompletion=completion.presets),
        ],
        "of_method": own,
    }
    return spread(train)


app.command("all")(train_all)
app.command("diffae")(_training_command("diffae", "a Diff-AE", NoMore))
app.command("dpm")(_training_command("dpm", "a plain diffusion model, without an encoder,", NoMore))
app.command("pdae")(
    _training_command(
        "pdae", "an encoder for a pretrained diffusion model (PDAE)", AroundDPM, " --dpm my-dpm"
    )
)
app.command("lrdm")(
    _training_command(
        "lrdm",
        "a latent diffusion model with a representation (LRDM)",
        AroundFirstStage,
        " --first-stage vae/",
    )
)
app.command(FIRST_STAGE)(
    _training_command(FIRST_STAGE, "the first stage of an LRDM, an autoencoder,", FirstStage)
)


Codes = Annotated[Path, typer.Argument(help="Folder of codes, from rdm encode (--no-x-t will do).")]
TrainedBundle = Annotated[
    str,
    typer.Option(
        "-b",
        "--bundle",
        metavar="BUNDLE",
        help="The bundle that made the codes; it gets the result.",
        autocompletion=completion.bundles,
    ),
]


@app.command("prior")
@spread
def prior(
    codes: Codes,
    bundle: TrainedBundle,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="What the prior can be told: metadata.csv, metadata.jsonl, or one of CelebA's lists.",
            show_default="none",
        ),
    ] = None,
    samples: Annotated[
        int | None, o.left_open("--samples", "N", "Codes seen in all.", "2,000,000", min=1)
    ] = None,
    batch_size: Annotated[
        int | None,
        o.left_open("--batch-size", "N", "Codes in a step.", "256", min=1, rich_help_panel="Optimiser"),
    ] = None,
    lr: Annotated[
        float | None,
        o.left_open("--lr", "RATE", "Learning rate.", "the network's", min=0.0, rich_help_panel="Optimiser"),
    ] = None,
    layers: Annotated[int | None, o.left_open("--layers", "N", "Layers of the network.", min=2)] = None,
    hidden_width: Annotated[
        int | None, o.left_open("--hidden-width", "N", "Width of its hidden layers.", min=1)
    ] = None,
    seed: o.Seed = 0,
    weights: o.WeightsOption = "fp32",
    *,
    processor: o.Processor,
    voice: o.Voice,
) -> None:
    """Train the latent DDIM that rdm sample draws z with, and put it into the bundle.

    With --labels it learns z for any attributes said or left open, and rdm sample --attr needs no rejection.

    Examples:
        rdm train prior codes/ -b my-bundle --labels metadata.csv
        rdm train prior codes/ -b my-bundle --samples 500000 --device cuda
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.bundles.bundle import open_bundle
    from rdm_cli.runtime import set_up
    from rdm_cli.training.run.on_codes import prior_network, prior_settings

    opened = open_bundle(bundle, set_up(device=processor.device, threads=processor.threads))
    network = prior_network(opened, layers, hidden_width, with_labels=labels is not None)
    settings = prior_settings(network, samples=samples, batch_size=batch_size, lr=lr)
    num_codes = follow_prior(
        console, opened, codes, settings=settings, network=network, labels=labels, seed=seed, weights=weights
    )
    folder = opened.folder / "prior"
    console.emit(str(folder), output=str(folder), num_codes=num_codes)


@app.command("attributes")
@spread
def attributes(
    codes: Codes,
    labels: Annotated[
        Path,
        typer.Option(
            "--labels", metavar="FILE", help="metadata.csv, metadata.jsonl, or one of CelebA's lists."
        ),
    ],
    bundle: TrainedBundle,
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out",
            metavar="FRACTION",
            min=0.01,
            max=0.9,
            help="Fraction of the codes that is kept for the scores.",
        ),
    ] = 0.2,
    along: Annotated[
        Along,
        typer.Option("--along", help="What edits follow: the classes' means, or the classifier (the paper)."),
    ] = "means",
    replace_all: Annotated[
        bool, typer.Option("--replace", help="Drop the other attributes that the bundle has.")
    ] = False,
    seed: o.Seed = 0,
    *,
    voice: o.Voice,
) -> None:
    """Fit a direction for each label, score it on held-out codes, and put all into the bundle.

    Attributes of the same names are replaced; the bundle's others stay. Bundles that come with rdm are
    read-only: copy one with rdm bundles copy.

    Examples:
        rdm train attributes codes/ --labels metadata.csv -b my-bundle
        rdm train attributes codes/ --labels list_attr_celeba.txt -b my-bundle
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    from rdm_cli.bundles.bundle import open_bundle

    opened = open_bundle(bundle)
    fit = follow_attributes(
        console, opened, codes, labels, held_out=held_out, along=along, replace_all=replace_all, seed=seed
    )
    for name in fit.directions.names:
        score = fit.directions.scores[name]
        console.emit(
            f"{name}\tAUROC {score['auroc']:.4f}\tAP {score['average_precision']:.4f}"
            f"\t{score['num_positive']} of {score['num_labelled']}",
            attribute=name,
            **score,
        )
