"""rdm attributes: what a bundle can move."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.console import Console
from rdm_cli.help_page import App

app = App(
    no_args_is_help=True,
    help="""The attributes that a bundle can move.

Examples:
    rdm attributes list
    rdm attributes show smiling
""",
)


@app.command("list")
def list_attributes(
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    as_json: o.Json = False,
) -> None:
    """List a bundle's attributes with their held-out scores.

    Examples:
        rdm attributes list
        rdm attributes list -b avatars64-pdae --json
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.bundle import open_bundle

    directions = open_bundle(bundle).directions
    rows = []
    for name in directions.names:
        score: Any = directions.scores.get(name, {})
        if as_json:
            console.emit("", attribute=name, **score)
        rows.append(
            [name, *(_cell(score.get(key)) for key in ("auroc", "average_precision", "num_positive"))]
        )
    if not as_json:
        console.table(f"attributes of {bundle}", ["attribute", "AUROC", "AP", "positives"], rows)
    for line in filter(None, map(directions.doubts, directions.names)):
        console.problem(f"rdm: {line}")


@app.command("show")
def show_attribute(
    name: Annotated[str, typer.Argument(help="The attribute's name.", autocompletion=completion.attributes)],
    bundle: o.Bundle = o.BUNDLE_DEFAULT,
    top: Annotated[int, typer.Option("--top", metavar="N", min=1, help="How many related attributes.")] = 5,
    as_json: o.Json = False,
) -> None:
    """Show one attribute: its scores, and which others its direction moves along with it.

    Examples:
        rdm attributes show smiling
        rdm attributes show smiling -b avatars64-pdae --top 10
    """
    console = Console(as_json=as_json)
    from rdm_cli.bundles.bundle import open_bundle

    directions = open_bundle(bundle).directions
    directions.index(name)
    related = directions.cosines(name)[:top]
    score: Any = directions.scores.get(name, {})
    if doubts := directions.doubts(name):
        console.problem(f"rdm: {doubts}")
    if as_json:
        console.emit("", attribute=name, **score, related=dict(related))
        return
    rows = [[key, _cell(value)] for key, value in score.items()]
    rows += [[f"cosine with {other}", _cell(cosine)] for other, cosine in related]
    console.table(name, ["", ""], rows)


def _cell(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
