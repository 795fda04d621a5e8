"""rdm bundles: list, show, check, copy, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.help_page import App

app = App(
    no_args_is_help=True,
    help="""Trained bundles: list, show, check, copy, convert.

Examples:
    rdm bundles list
    rdm bundles copy avatars64-diffae my-bundle
""",
)


@app.command("list")
def list_bundles(as_json: o.Json = False) -> None:
    """List the bundles that come with rdm.

    Examples:
        rdm bundles list
        rdm bundles list --json
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.places import shipped_bundles
    from rdm_cli.pipeline.inspection import summary

    rows = []
    for name, folder in shipped_bundles().items():
        facts = summary(folder)
        if as_json:
            console.emit("", bundle=name, **facts)
        rows.append(
            [name, facts["method"], facts["image_size"], ", ".join(facts["parts"]), facts["megabytes"]]
        )
    if not as_json:
        console.table(
            "shipped bundles",
            ["bundle", "method", "pixels", "parts", "MB"],
            [[str(c) for c in r] for r in rows],
        )


@app.command("show")
def show_bundle(
    bundle: Annotated[
        str, typer.Argument(help="A shipped name, a folder, or hf:owner/name.")
    ] = o.BUNDLE_DEFAULT,
    card: Annotated[bool, typer.Option("--card", help="Print the model card instead.")] = False,
    as_json: o.Json = False,
) -> None:
    """Show what is in a bundle: networks, sampler, prior, attributes, digest.

    Examples:
        rdm bundles show avatars64-pdae
        rdm bundles show avatars64-lrdm --card
    """
    console = Console(as_json=as_json)
    from rdm_cli.pipeline.inspection import details, read_card

    if card:
        text = read_card(bundle)
        console.emit_document(text.rstrip(), bundle=bundle, card=text)
        return
    facts = details(bundle)
    if as_json:
        console.emit("", **facts)
    else:
        console.facts(str(facts["bundle"]), facts)


@app.command("check")
def check_bundle(
    bundle: Annotated[
        str, typer.Argument(help="A shipped name, a folder, or hf:owner/name.")
    ] = o.BUNDLE_DEFAULT,
    as_json: o.Json = False,
) -> None:
    """Open every part of a bundle, run its networks once, and say what is wrong.

    Examples:
        rdm bundles check my-bundle
        rdm bundles check hf:owner/name --json
    """
    console = Console(as_json=as_json)
    from rdm_cli.pipeline.inspection import check

    failed = []
    for part, problem in check(bundle):
        console.emit(f"{part}\t{problem or 'ok'}", part=part, ok=problem is None, problem=problem)
        if problem is not None:
            failed.append(part)
    if failed:
        console.problem(f"rdm: {bundle}: not in order: {', '.join(failed)}")
        raise typer.Exit(1)


@app.command("copy")
def copy(
    bundle: Annotated[str, typer.Argument(help="A shipped name, a folder, or hf:owner/name.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the copy goes.")],
    as_json: o.Json = False,
) -> None:
    """Copy a bundle, to put a prior or attributes of your own into it.

    Bundles that come with rdm, and fetched ones, are read-only. Codes of a bundle are codes of its copy.

    Examples:
        rdm bundles copy avatars64-diffae my-bundle
        rdm bundles copy hf:owner/name my-bundle
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.places import copy_bundle

    source = copy_bundle(bundle, folder)
    console.emit(str(folder), output=str(folder), bundle=bundle, input=str(source))


@app.command("convert")
def convert_bundle(
    method: Annotated[str, typer.Argument(help="diffae, pdae, lrdm, or dpm (a plain diffusion model).")],
    files: Annotated[
        list[Path],
        typer.Argument(help="The authors' files, in any order; for dpm also a diffusers pipeline's folder."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The bundle to write.")],
    weights: o.WeightsOption = "fp32",
    class_label: Annotated[
        int | None,
        typer.Option(
            "--class-label",
            metavar="N",
            min=0,
            help="dpm: the class that a class-conditional model is used for.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a bundle that is there.")] = False,
    as_json: o.Json = False,
) -> None:
    """Turn official checkpoints into a bundle.

    The files are told apart by their content. Nothing in them is executed.

    Examples:
        rdm bundles convert diffae last.ckpt latent.pkl -o ffhq256
        rdm bundles convert dpm my-ddpm/ -o my-dpm --weights fp16
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.conversion import convert_files
    from rdm_cli.runtime import weights_dtype

    options = {} if class_label is None else {"class_label": class_label}
    summary = convert_files(method, files, output, dtype=weights_dtype(weights), force=force, options=options)
    console.note(summary)
    console.emit(str(output), output=str(output), summary=summary)
