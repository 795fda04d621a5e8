"""rdm evaluate attributes and disentanglement: what z says about labelled images."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from rdm_cli import options as o
from rdm_cli.commands.evaluation_job import bundles_then_folder, check_output, evaluate, opened
from rdm_cli.console import Console

Num = Annotated[int, typer.Option("-n", "--n", min=8, help="Labelled images, the first of the folder.")]


class Predictor(StrEnum):
    """The classifier that DCI looks into."""

    lasso = "lasso"
    trees = "trees"


def attributes(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    num: Num = 2000,
    seed: o.Seed = 0,
    fit: o.FitOption = o.Fit.crop,
    class_name: o.ClassName = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS_DEFAULT,
    value_range: o.ValueRangeOption = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = o.Precision.fp32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure linear probes on z, a quarter of the images held out.

    AUROC, average precision and F1, beside the same probes on principal components of the pixels and on a
    network that never learned. Needs labels.
    """
    console = Console(as_json=as_json, quiet=quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    check_output(output)
    from rdm_cli.core.evaluation.attributes import LEAD, attributes_plots, measure_attributes
    from rdm_cli.core.evaluation.material import gather_labelled

    material = gather_labelled(folder, num, fit.value, table=labels, names=attr, purpose="probing attributes")
    subjects = opened(
        bundles,
        device=device,
        threads=threads,
        precision=precision,
        batch_size=batch_size,
        max_pixels=max_pixels,
        value_range=value_range,
        console=console,
        class_name=class_name,
    )
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
        precision=precision.value,
        plots=attributes_plots,
    )


def disentanglement(
    bundles_and_data: o.BundlesAndData,
    output: o.Report = None,
    labels: o.LabelTable = None,
    attr: o.LabelNames = None,
    num: Num = 2000,
    predictor: Annotated[
        Predictor, typer.Option("--predictor", help="What DCI fits; trees take minutes.")
    ] = Predictor.lasso,
    seed: o.Seed = 0,
    fit: o.FitOption = o.Fit.crop,
    class_name: o.ClassName = None,
    max_pixels: o.MaxPixels = o.MAX_PIXELS_DEFAULT,
    value_range: o.ValueRangeOption = None,
    batch_size: o.BatchSize = None,
    precision: o.PrecisionOption = o.Precision.fp32,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Measure DCI, MIG and TAD of z against labels, beside those of components of the pixels.

    Needs two labelled attributes or more.
    """
    console = Console(as_json=as_json, quiet=quiet)
    bundles, folder = bundles_then_folder(bundles_and_data)
    check_output(output)
    from rdm_cli.core.evaluation.disentanglement import (
        LEAD,
        disentanglement_plots,
        measure_disentanglement,
    )
    from rdm_cli.core.evaluation.material import gather_labelled

    purpose = "measuring disentanglement"
    material = gather_labelled(folder, num, fit.value, table=labels, names=attr, purpose=purpose)
    subjects = opened(
        bundles,
        device=device,
        threads=threads,
        precision=precision,
        batch_size=batch_size,
        max_pixels=max_pixels,
        value_range=value_range,
        console=console,
        class_name=class_name,
    )
    evaluate(
        console,
        "disentanglement",
        LEAD,
        material,
        subjects,
        work=lambda subject: float(len(material)),
        measure=lambda subject, advance: measure_disentanglement(
            subject, material, predictor=predictor.value, seed=seed, advance=advance
        ),
        output=output,
        seed=seed,
        precision=precision.value,
        plots=disentanglement_plots,
    )
