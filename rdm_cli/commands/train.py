"""rdm train: a method, or a first stage, on images; a prior or attributes on codes.

The options of ``rdm train METHOD`` stand in groups whose fields have the names of
:class:`~rdm_cli.training.run.plan.TrainOptions`, so that together they are one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from rdm_cli import options as o
from rdm_cli.commands.follow_training import options_in_effect, train_or_forecast
from rdm_cli.config_file import Config, PrintConfig, emit_config, unless_overruled
from rdm_cli.console import Console
from rdm_cli.help_page import App
from rdm_cli.option_groups import group, spread
from rdm_cli.registry import FIRST_STAGE, PRESETS, load

if TYPE_CHECKING:
    from rdm_cli.training.prior import PriorRecord

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
Tracker = Literal["tensorboard"]
"""Where else a run logs to."""
Along = Literal["means", "classifier"]
"""What an edit follows."""


def _said(name: str, metavar: str | None, text: str, default: str = "the preset's", **more: Any) -> Any:
    """An option of training that has no value of its own; ``default`` says where it comes from then."""
    return typer.Option(name, metavar=metavar, help=text, show_default=default, **more)


@group("Optimiser")
class Optimiser:
    """What a step is made of."""

    batch_size: Annotated[
        int | None, _said("--batch-size", "N", "Images in one step, over all processes.", min=1)
    ] = None
    lr: Annotated[float | None, _said("--lr", "RATE", "Learning rate.", min=0.0)] = None
    warmup_steps: Annotated[
        int | None, _said("--warmup", "N", "Steps in which the learning rate rises from 0.", min=0)
    ] = None
    decay_fraction: Annotated[
        float | None,
        _said(
            "--decay",
            "FRACTION",
            "Last fraction of training, in which the learning rate falls to 0.",
            min=0.0,
            max=1.0,
        ),
    ] = None
    weight_decay: Annotated[float | None, _said("--weight-decay", "W", "Weight decay of AdamW.", min=0.0)] = (
        None
    )
    ema_decay: Annotated[
        float | None, _said("--ema", "DECAY", "Decay of the averaged weights.", min=0.0, max=0.999999)
    ] = None
    num_accumulations: Annotated[
        int | None,
        _said("--gradient-accumulation", "N", "Passes in one step: less memory, the same batch.", "1", min=1),
    ] = None


@group("Run")
class Run:
    """What the run leaves, and where."""

    run_folder: Annotated[
        Path | None, _said("--run", "DIR", "Folder for checkpoint, log and sheets.", "runs/NAME")
    ] = None
    checkpoint_minutes: Annotated[
        float,
        typer.Option("--checkpoint-minutes", metavar="MINUTES", min=0.0, help="Minutes between checkpoints."),
    ] = 5.0
    sheet_minutes: Annotated[
        float,
        typer.Option(
            "--sheet-minutes",
            metavar="MINUTES",
            min=0.0,
            help="Minutes between sheets of pictures; 0: no sheets.",
        ),
    ] = 15.0
    weights: Annotated[
        o.Weights | None, _said("--weights", None, "How the bundle stores weights.", "fp32")
    ] = None
    log: Annotated[Tracker | None, typer.Option("--log", help="Log to tensorboard as well.")] = None
    seed: Annotated[int | None, _said("--seed", "N", "Seed of everything random.", "0")] = None


@group(o.IMAGES)
class TrainingImages:
    """How the images are read."""

    flip: Annotated[bool | None, _said("--flip/--no-flip", None, "Mirror half of the images.")] = None
    fit: Annotated[
        o.Fit | None, _said("--fit", None, "How an image becomes a square of the network's size.", "crop")
    ] = None
    max_pixels: Annotated[
        int | None,
        _said(
            "--max-pixels",
            "N",
            "Leave out images of more than N pixels (guards against decompression bombs).",
            str(o.MAX_PIXELS_DEFAULT),
            min=1,
        ),
    ] = None
    value_range: Annotated[
        str | None,
        _said(
            "--range",
            "LO,HI",
            "Grey images of more than 8 bits: which values are black and white.",
            "found from each image's values",
        ),
    ] = None


@group(o.MACHINE)
class TrainingMachine(o.Processor):
    """What computes, and how."""

    mixed_precision: Annotated[
        o.MixedPrecision | None,
        _said("--mixed-precision", None, "Arithmetic of a step; fp16 needs a GPU.", "no"),
    ] = None
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the step with torch.compile: minutes at the start, then faster on a GPU.",
        ),
    ] = False
    num_workers: Annotated[
        int | None, _said("--workers", "N", "Processes that decode images.", "0 on a CPU, else 4", min=0)
    ] = None


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
        _said(
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
        _said("--kl-weight", "W", "The paper's lambda: how far z is pulled to N(0, I).", min=0.0),
    ] = None
    predict: Annotated[Predicted | None, _said("--predict", None, "What the UNet predicts.")] = None
    weighting: Annotated[
        LossWeighting | None,
        _said(
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
        FirstStageKind | None, _said("--kind", None, "Gaussian latents, or quantised ones.", "kl")
    ] = None
    perceptual_weight: Annotated[
        float | None,
        _said(
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


def _training_command(method: str, what: str, own: type[Any], needed: str = "") -> Callable[..., None]:
    """The command that trains ``method``; ``what`` names, in its help, what comes of it.

    ``own`` is the group of the options that it alone has, ``needed`` those that its examples need.
    """

    def train(
        ctx: typer.Context,
        folder: Annotated[Path, typer.Argument(help="Folder of images, searched recursively.")],
        bundle: Annotated[
            Path, typer.Option("-o", "--output", metavar="BUNDLE", help="The bundle to write.")
        ],
        preset: str | None = None,
        num_images: Annotated[int | None, _said("--images", "N", "Stop after N images seen.", min=1)] = None,
        num_steps: Annotated[
            int | None, typer.Option("--steps", metavar="N", min=1, help="Stop after N optimiser steps.")
        ] = None,
        minutes: Annotated[
            float | None,
            typer.Option("--minutes", metavar="MINUTES", min=0.01, help="Stop after so many minutes."),
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
        config: Config = None,
        print_config: PrintConfig = False,
        *,
        of_method: Any,
        optimiser: Optimiser,
        run: Run,
        images: TrainingImages,
        machine: TrainingMachine,
        voice: o.Voice,
    ) -> None:
        from rdm_cli.training.run.plan import TrainOptions

        more = vars(of_method) | vars(optimiser) | vars(run) | vars(images) | vars(machine)
        if method == FIRST_STAGE:
            preset = _of_kind(preset, more.pop("kind"))
        more["run_folder"] = run.run_folder or Path("runs") / bundle.name
        options = TrainOptions(
            method=method,
            folder=folder,
            bundle=bundle,
            preset=preset,
            init_from=init_from,
            resume=resume,
            **unless_overruled(ctx, num_images=num_images, num_steps=num_steps, minutes=minutes),
            **more,
        )
        console = Console(as_json=voice.as_json, quiet=voice.quiet)
        if print_config:
            emit_config(console, ctx, vars(options_in_effect(options)))
        else:
            train_or_forecast(console, options, dry_run=dry_run)

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
        "preset": Annotated[str | None, _said("--preset", "NAME", listed, "small64")],
        "of_method": own,
    }
    return spread(train)


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
        "-b", "--bundle", metavar="BUNDLE", help="The bundle that made the codes; it gets the result."
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
    samples: Annotated[int | None, _said("--samples", "N", "Codes seen in all.", "2,000,000", min=1)] = None,
    batch_size: Annotated[
        int | None,
        _said("--batch-size", "N", "Codes in a step.", "256", min=1, rich_help_panel="Optimiser"),
    ] = None,
    lr: Annotated[
        float | None,
        _said("--lr", "RATE", "Learning rate.", "the network's", min=0.0, rich_help_panel="Optimiser"),
    ] = None,
    layers: Annotated[int | None, _said("--layers", "N", "Layers of the network.", min=2)] = None,
    hidden_width: Annotated[
        int | None, _said("--hidden-width", "N", "Width of its hidden layers.", min=1)
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
    from rdm_cli.runtime import set_up, weights_dtype
    from rdm_cli.training.run.on_codes import prior_network, prior_settings, train_bundle_prior

    opened = open_bundle(bundle, set_up(device=processor.device, threads=processor.threads))
    had_one = "prior" in opened.parts
    network = prior_network(opened, layers, hidden_width, with_labels=labels is not None)
    settings = prior_settings(network, samples=samples, batch_size=batch_size, lr=lr)
    with console.progress("training the prior", settings.num_steps, unit="steps") as advance:

        def on_record(record: PriorRecord) -> None:
            advance(1.0)
            if record.held_out_loss is None and record.seen_loss is None:
                return
            if console.as_json:
                console.emit(
                    "",
                    step=record.step,
                    loss=record.loss,
                    seen=record.seen_loss,
                    held_out=record.held_out_loss,
                )
            else:
                console.note(
                    f"step {record.step}/{settings.num_steps}: loss on codes seen {record.seen_loss:.4f}, "
                    f"held out {record.held_out_loss or float('nan'):.4f}"
                )

        num = train_bundle_prior(
            opened,
            codes,
            settings=settings,
            network=network,
            labels=labels,
            seed=seed,
            weights_dtype=weights_dtype(weights),
            on_record=on_record,
            note=console.note,
        )
    if had_one:
        console.note(f"in place of the prior that {opened.name} had")
    folder = opened.folder / "prior"
    console.emit(str(folder), output=str(folder), num_codes=num)


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
    from rdm_cli.training.run.on_codes import train_bundle_attributes

    opened = open_bundle(bundle)
    trained = train_bundle_attributes(
        opened,
        codes,
        labels,
        held_out=held_out,
        seed=seed,
        along=along,
        replace_all=replace_all,
        note=console.note,
    )
    fit = trained.fit
    for name in fit.names:
        score = fit.scores[name]
        console.emit(
            f"{name}\tAUROC {score['auroc']:.4f}\tAP {score['average_precision']:.4f}"
            f"\t{score['num_positive']} of {score['num_labelled']}",
            attribute=name,
            **score,
        )
    for name, reason in fit.skipped.items():
        stays = ": the bundle keeps the one it has" if name in trained.kept else ""
        console.problem(f"rdm: {name} left out: {reason}{stays}")
    for line in filter(None, map(fit.directions.doubts, fit.names)):
        console.problem(f"rdm: {line}")
    for line in trained.remarks:
        console.problem(f"rdm: {labels.name}: {line}")
    console.note(
        f"{len(fit.names)} attributes from {trained.num_labelled} codes -> {opened.folder / 'attributes'}"
    )
    for done, names in (("kept", trained.kept), ("dropped", trained.dropped)):
        if names:
            console.note(f"{done}: {', '.join(names)}")
