"""rdm train prior and rdm train attributes: from codes, never from images again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.option_groups import spread

if TYPE_CHECKING:
    from rdm_cli.training.prior import PriorRecord

Codes = Annotated[Path, typer.Argument(help="Folder of codes, from rdm encode (--no-x-t will do).")]
TrainedBundle = Annotated[
    str,
    typer.Option(
        "-b", "--bundle", metavar="BUNDLE", help="The bundle that made the codes; it gets the result."
    ),
]


Along = Literal["means", "classifier"]
"""What an edit follows."""


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
        int | None,
        typer.Option("--samples", metavar="N", min=1, help="Codes seen in all.", show_default="2,000,000"),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=1,
            help="Codes in a step.",
            show_default="256",
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
            show_default="the network's",
            rich_help_panel="Optimiser",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            "--layers", metavar="N", min=2, help="Layers of the network.", show_default="the preset's"
        ),
    ] = None,
    hidden_width: Annotated[
        int | None,
        typer.Option(
            "--hidden-width",
            metavar="N",
            min=1,
            help="Width of its hidden layers.",
            show_default="the preset's",
        ),
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
