"""rdm augment: counterfactual pictures with labels, to train a classifier that looks at the right thing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.opening import open_on
from rdm_cli.console import Console
from rdm_cli.errors import UsageError
from rdm_cli.option_groups import spread

INCOMPLETE = 3


@spread
def augment(
    folder: Annotated[Path, typer.Argument(help="Folder of labelled images.")],
    labels: Annotated[
        Path,
        typer.Option("--labels", metavar="FILE", help="metadata.csv, metadata.jsonl, or a CelebA list."),
    ],
    label: Annotated[
        str, typer.Option("--label", metavar="NAME", help="The column that a classifier is to tell.")
    ],
    balance: Annotated[
        str,
        typer.Option(
            "--balance",
            metavar="NAME,...",
            help="Attributes of the bundle that are to say nothing of the label.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for pictures and metadata.csv.")
    ],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    seed: o.Seed = 0,
    *,
    images: o.SquareFiles,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Add edited pictures to labelled images, until attributes are independent of the label.

    Which image has which attribute is read by the bundle's classifiers: no table of the attributes is needed.
    Of either label, each combination of the attributes gets as many pictures as the most frequent one has,
    by edits of images with the same label. Each edit is verified: one that fails, or changes something else,
    is left out, counted and listed in left-out.jsonl, and another image is taken.

    DIR has the images, as squares of the bundle's size, the edited ones beside them, and metadata.csv: the
    labels of each, what it is a counterfactual of, and what was changed. The same command goes on where it
    stopped. The exit code is 3 where images ran out before all was in balance.

    Examples:
        rdm augment faces/ --labels t.csv --label smiling --balance glasses -o new/
        rdm augment faces/ --labels t.csv --label old --balance hat,beard -o new/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    names = list(dict.fromkeys(name.strip() for name in balance.split(",") if name.strip()))
    if not names:
        raise UsageError("--balance names no attribute")
    if output.resolve() == folder.resolve() or output.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"-o {output}: lies within the images", hint="name a folder outside")
    from rdm_cli.data.sinks.outputs import refuse_blocked
    from rdm_cli.jobs.augment import TABLE, labelled_images, plan_augmentation, refuse_names

    refuse_blocked(output)
    pipeline = open_on(machine, bundle, images, console.remark)
    refuse_names(pipeline, label, names)
    found = labelled_images(folder, labels, label)
    for line in found.notes:
        console.problem(f"rdm: {line}")
    console.note(f"rdm: reading {len(found.items)} images")
    plan = plan_augmentation(pipeline, found, names, label, output, fit=images.fit, seed=seed)
    with console.progress("editing", plan.num_needed, unit="pictures") as advance:
        result = plan.carry_out(advance)
    for name in names:
        (without, having), (then_without, then_having) = result.before[name], result.after[name]
        console.emit(
            f"{name}\tin {without:.1%} and {having:.1%} of the images without and with {label}"
            f"\tnow {then_without:.1%} and {then_having:.1%}",
            attribute=name,
            label=label,
            share_before=[without, having],
            share_after=[then_without, then_having],
            bundle=pipeline.bundle.name,
            output=str(output / TABLE),
            images=result.num_images,
            needed=result.num_needed,
            made=result.num_made,
            already=result.num_known,
            left_out=dict(result.left_out),
            short=result.num_short,
        )
    num = result.num_made + result.num_known
    told = f"{result.num_images} images, {num} of {result.num_needed} counterfactuals"
    if result.num_known:
        told += f", {result.num_known} of them were there already"
    left_out = ", ".join(f"{num} edits were left out: {why}" for why, num in result.left_out.items())
    console.note(f"rdm: {told} -> {output / TABLE}" + (f"; {left_out}" if left_out else ""))
    if result.num_short:
        console.problem(
            f"rdm: {result.num_short} pictures are missing: no image was left to edit, so the attributes "
            f"still say something of {label}; add images"
        )
        raise typer.Exit(INCOMPLETE)
