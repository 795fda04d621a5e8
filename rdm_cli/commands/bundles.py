"""rdm bundles: list, show, check, copy, convert, push, pull."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.help_page import App

app = App(
    no_args_is_help=True,
    help="""Trained bundles: list, show, check, copy, convert, push, pull.

Examples:
    rdm bundles list
    rdm bundles copy avatars64-diffae my-bundle
""",
)


@app.command("list")
def list_bundles(as_json: o.Json = False) -> None:
    """List bundles: shipped ones, those in this folder, the one in RDM_BUNDLE, and fetched ones.

    Examples:
        rdm bundles list
        rdm bundles list --json
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.listing import listed_bundles, summary

    rows = []
    for one in listed_bundles():
        try:
            facts = summary(one.folder)
        except BundleError as error:
            console.problem(f"rdm: {error}")
            continue
        if as_json:
            console.emit("", bundle=one.name, place=one.place, **facts)
        rows.append([one.name, facts["method"], facts["image_size"], facts["megabytes"], one.place])
    if not as_json:
        console.table(
            "bundles",
            ["bundle", "method", "pixels", "MB", "place"],
            [[str(c) for c in r] for r in rows],
        )


@app.command("show")
def show_bundle(
    bundle: o.BundleArgument = o.BUNDLE_DEFAULT,
    card: Annotated[bool, typer.Option("--card", help="Print the model card instead.")] = False,
    as_json: o.Json = False,
) -> None:
    """Show what is in a bundle: networks, sampler, prior, attributes, digest.

    Examples:
        rdm bundles show avatars64-pdae
        rdm bundles show avatars128-lrdm --card
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
    bundle: o.BundleArgument = o.BUNDLE_DEFAULT,
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
    bundle: o.BundleArgument,
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


@app.command("push")
def push_bundle(
    bundle: o.BundleArgument,
    repository: Annotated[
        str, typer.Argument(metavar="hf:OWNER/NAME", help="The repository; it is made if it is not there.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a repository that others cannot see.")
    ] = False,
    branch: Annotated[
        str | None,
        typer.Option("--branch", metavar="NAME", help="The branch to write to.", show_default="main"),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="Licence of the weights, as the hub writes it: mit, cc-by-4.0.",
            show_default="the card's",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace what the repository holds, whatever it is.")
    ] = False,
    as_json: o.Json = False,
) -> None:
    """Put a bundle on the Hugging Face hub, in one commit, and print its address.

    It is checked first, as by 'rdm bundles check'. Its model card gets the head that the hub reads: tags,
    licence, and the scores of its attributes. Log in before with 'hf auth login', or set HF_TOKEN.

    Examples:
        rdm bundles push my-bundle hf:me/faces --license mit
        rdm bundles push my-bundle hf:me/faces --private --branch v2
    """
    console = Console(as_json=as_json)
    name = _repository(repository)
    if "@" in name:
        raise UsageError(f"{repository}: a push writes to a branch", hint="name it with --branch")
    from rdm_cli.bundles.hub import push
    from rdm_cli.bundles.places import INDEX, find_bundle
    from rdm_cli.pipeline.inspection import check

    folder = find_bundle(bundle)
    if not (folder / INDEX).is_file() or "method" not in read_object(folder / INDEX):
        raise UsageError(
            f"{bundle}: a diffusers pipeline, and no bundle of rdm's",
            hint="rdm bundles convert dpm makes one of it",
        )
    for part, problem in check(bundle):
        if problem is not None:
            raise BundleError(f"{bundle}: not in order, so it is not pushed: {part}: {problem}")
    done = push(folder, name, name=folder.name, private=private, branch=branch, licence=licence, force=force)
    if done.num_left:
        console.note(f"rdm: {folder}: files that are no part of the bundle and stay here: {done.num_left}")
    console.emit(done.address, bundle=bundle, output=done.address, commit=done.commit)


@app.command("pull")
def pull_bundle(
    repository: Annotated[str, typer.Argument(metavar="hf:OWNER/NAME[@REVISION]", help="The repository.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="DIR",
            help="Copy it to this folder, to change it.",
            show_default="the hub's cache alone",
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Fetch a bundle from the Hugging Face hub, and print where it is.

    Commands that name it as hf:OWNER/NAME find it in the cache from then on, as 'rdm bundles list' shows.

    Examples:
        rdm bundles pull hf:me/faces
        rdm bundles pull hf:me/faces@v2 -o my-bundle
    """
    console = Console(as_json=as_json)
    _repository(repository)
    from rdm_cli.bundles.listing import summary
    from rdm_cli.bundles.places import INDEX, copy_bundle, find_bundle

    folder = find_bundle(repository)
    if not (folder / INDEX).is_file():
        raise BundleError(f"{repository}: {INDEX} is missing, so this is no bundle")
    facts = summary(folder)
    if output is not None:
        copy_bundle(repository, output)
    place = str(output or facts["folder"])
    console.emit(place, bundle=repository, output=place, method=facts["method"], megabytes=facts["megabytes"])


def _repository(text: str) -> str:
    """``owner/name`` of ``hf:owner/name``, with an @revision if it has one; raises UsageError."""
    name = text.removeprefix("hf:")
    parts = name.partition("@")[0].split("/")
    if not text.startswith("hf:") or len(parts) != 2 or not all(parts):
        raise UsageError(f"{text}: no repository of the hub", hint="write hf:owner/name")
    return name
