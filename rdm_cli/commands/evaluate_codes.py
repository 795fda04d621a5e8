"""rdm evaluate attributes and disentanglement: what z says about labelled images."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import bundles_then_folder, check_output, evaluate, opened
from rdm_cli.console import Console
from rdm_cli.option_groups import spread

Num = Annotated[
    int, typer.Option("-n", "--n", metavar="N", min=8, help="Use the first N labelled images of the folder.")
]


Predictor = Literal["lasso", "trees"]
"""The classifier that DCI looks into."""


@spread
def attributes(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    num: Num = 2000,
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure linear probes on z, a quarter of the images held out.

    AUROC, average precision and F1, beside the same probes on principal components of the pixels and on a
    network that never learned. Needs labels.

    Examples:
        rdm evaluate attributes avatars64-diffae faces/
        rdm evaluate attributes a-bundle b-bundle faces/ --attr smiling -o report/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    check_output(output, "attributes")
    from rdm_cli.evaluation.attributes import LEAD, attributes_plots, measure_attributes
    from rdm_cli.evaluation.material import gather_labelled

    material = gather_labelled(
        folder, num, images.fit, table=labels, names=attr, purpose="probing attributes"
    )
    subjects = opened(bundles, machine, images, console)
    evaluate(
        console,
        "attributes",
        LEAD,
        material,
        subjects,
        work=lambda subject: float(len(material)),
        measure=lambda subject, advance: measure_attributes(subject, material, seed=seed, advance=advance),
        output=output,
        seed=seed,
        precision=machine.precision,
        plots=attributes_plots,
    )


@spread
def disentanglement(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    num: Num = 2000,
    predictor: Annotated[
        Predictor, typer.Option("--predictor", help="What DCI fits; trees take minutes.")
    ] = "lasso",
    seed: o.Seed = 0,
    *,
    images: o.FittedImages,
    machine: o.Machine,
    voice: o.Voice,
) -> None:
    """Measure DCI, MIG and TAD of z against labels, beside those of components of the pixels.

    Needs two labelled attributes or more.

    Examples:
        rdm evaluate disentanglement avatars64-diffae faces/
        rdm evaluate disentanglement a-bundle faces/ --predictor trees -o report/
    """
    console = Console(as_json=voice.as_json, quiet=voice.quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    check_output(output, "disentanglement")
    from rdm_cli.evaluation.disentanglement import (
        LEAD,
        disentanglement_plots,
        measure_disentanglement,
    )
    from rdm_cli.evaluation.material import gather_labelled

    purpose = "measuring disentanglement"
    material = gather_labelled(folder, num, images.fit, table=labels, names=attr, purpose=purpose)
    subjects = opened(bundles, machine, images, console)
    evaluate(
        console,
        "disentanglement",
        LEAD,
        material,
        subjects,
        work=lambda subject: float(len(material)),
        measure=lambda subject, advance: measure_disentanglement(
            subject, material, predictor=predictor, seed=seed, advance=advance
        ),
        output=output,
        seed=seed,
        precision=machine.precision,
        plots=disentanglement_plots,
    )
