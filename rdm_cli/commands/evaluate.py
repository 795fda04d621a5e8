"""rdm evaluate: what bundles are worth, measured on a folder of images."""

from __future__ import annotations

from rdm_cli.commands import (
    evaluate_codes,
    evaluate_edit,
    evaluate_gap,
    evaluate_generation,
    evaluate_interpolation,
    evaluate_reconstruction,
)
from rdm_cli.help_page import App

app = App(
    no_args_is_help=True,
    help="""Measure bundles on a folder of images, side by side.

Examples:
    rdm evaluate reconstruction avatars64-diffae avatars64-pdae faces/
    rdm evaluate generation my-bundle faces/ -o report/
""",
)
app.command("reconstruction")(evaluate_reconstruction.reconstruction)
app.command("generation")(evaluate_generation.generation)
app.command("attributes")(evaluate_codes.attributes)
app.command("disentanglement")(evaluate_codes.disentanglement)
app.command("interpolation")(evaluate_interpolation.interpolation)
app.command("edit")(evaluate_edit.edit)
app.command("gap")(evaluate_gap.gap)
