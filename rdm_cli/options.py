"""Options that several commands share, as Annotated aliases: one meaning, one help text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from rdm_cli.data.images import MAX_PIXELS
from rdm_cli.data.value_range import parse_range
from rdm_cli.registry import DEFAULT_BUNDLE


class Fit(StrEnum):
    """How an image becomes a square."""

    crop = "crop"
    pad = "pad"
    stretch = "stretch"


class Precision(StrEnum):
    """Arithmetic of the networks; the sampler's own is float32, or float64 where it must undo itself."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class MixedPrecision(StrEnum):
    """Arithmetic of a training step."""

    no = "no"
    bf16 = "bf16"
    fp16 = "fp16"


class Weights(StrEnum):
    """How a bundle stores its weights."""

    fp32 = "fp32"
    fp16 = "fp16"


class StartNoise(StrEnum):
    """Where x_T comes from."""

    inferred = "inferred"
    random = "random"


class Inversion(StrEnum):
    """How x_T is inferred."""

    ddim = "ddim"
    fixed_point = "fixed-point"
    exact = "exact"


class Solver(StrEnum):
    """How an x_T is decoded."""

    ddim = "ddim"
    ancestral = "ancestral"
    dpm_solver = "dpm-solver++"
    unipc = "unipc"
    heun = "heun"


class Prior(StrEnum):
    """What draws z."""

    latent_ddim = "latent-ddim"
    gaussian = "gaussian"


Inputs = Annotated[
    list[str] | None,
    typer.Argument(help="Files and folders; - reads one file from stdin.", show_default=False),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        "--files-from", metavar="FILE", help="Read more input paths from FILE, one a line; - is stdin."
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N, from 1, so that N machines do it all; 1/1 is all of it.",
        show_default="that of the SLURM array or of RANK, else all",
    ),
]
ManifestOption = Annotated[
    str | None,
    typer.Option(
        "--manifest",
        metavar="FILE",
        help="Append a JSON line an item: input, output, digest, seconds, error.",
        show_default="with shards, a file in -o",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Where results go; without it, beside each input."),
]
OutputPlace = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="DIR", help="Where results go; without it, beside each input."),
]
Column = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="NAME",
        help="The column of Parquet files that holds the images.",
        show_default="'image', or the only one that does",
    ),
]
AsTar = Annotated[
    bool,
    typer.Option("--tar", help="Write .tar files into -o: one for each input archive, or one for all files."),
]
Bundle = Annotated[
    str,
    typer.Option(
        "-b", "--bundle", metavar="BUNDLE", help="A shipped name, a folder, or hf:owner/name[@revision].",
        envvar="RDM_BUNDLE",
    ),
]  # fmt: skip
BundlesAndData = Annotated[
    list[str],
    typer.Argument(metavar="BUNDLE... FOLDER", help="Bundles to compare, and a folder of images."),
]
Report = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Write a JSON file and an HTML report here."),
]
StepsList = Annotated[
    str, typer.Option("--steps", metavar="T,...", help="Sampling steps, one or several numbers.")
]
LabelTable = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="FILE", help="Labels: metadata.csv, metadata.jsonl or one of CelebA's lists.",
        show_default="beside the images",
    ),
]  # fmt: skip
LabelNames = Annotated[
    list[str] | None,
    typer.Option("--attr", metavar="NAME", help="An attribute; repeat it.", show_default="all"),
]
LPIPSWeights = Annotated[
    list[Path] | None,
    typer.Option(
        "--lpips-weights", metavar="FILE", help="Weights for LPIPS itself: torchvision's AlexNet or VGG16.",
        show_default="ST-LPIPS alone",
    ),
]  # fmt: skip
InceptionWeights = Annotated[
    Path | None,
    typer.Option(
        "--inception-weights", metavar="FILE", help="Weights for FID and KID: pt_inception-2015-12-05.",
        show_default="EffNet-Lite0",
    ),
]  # fmt: skip
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Sampling steps; without it, the bundle's own number.",
        show_default=False,
    ),
]
InversionOption = Annotated[
    Inversion,
    typer.Option(
        "--inversion",
        help="How x_T is inferred: as published, by solving each step, or so that a decode undoes each "
        "(but not what an LRDM's first stage loses).",
    ),
]
Iterations = Annotated[
    int | None,
    typer.Option(
        "--iterations", min=1, help="Network calls in a step that solves an equation.", show_default="3"
    ),
]
SolverOption = Annotated[
    Solver | None,
    typer.Option(
        "--solver",
        help="How x_T is decoded, whatever a code records; fixed-point and exact codes allow no other.",
        show_default="each code's own, else the bundle's",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace what stands in a result's place, whoever made it.")
]
Seed = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
BatchSize = Annotated[
    int | None,
    typer.Option(
        "--batch-size",
        min=1,
        help="Images in one pass of the networks; results do not depend on it beyond rounding.",
        show_default="by device",
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.", envvar="RDM_DEVICE")
]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads.", show_default="all cores")
]
PrecisionOption = Annotated[Precision, typer.Option("--precision", help="Arithmetic of the networks.")]
PrecisionOfCodes = Annotated[
    Precision | None,
    typer.Option("--precision", help="Arithmetic of the networks.", show_default="the one each code records"),
]
FitOption = Annotated[Fit, typer.Option("--fit", help="How an image becomes a square of the bundle's size.")]
MaxPixels = Annotated[
    int,
    typer.Option(
        "--max-pixels", metavar="N", min=1, help="Refuse images of more pixels, which may be bombs."
    ),
]
ValueRangeOption = Annotated[
    Any,
    typer.Option(
        "--range",
        metavar="LO,HI",
        parser=parse_range,
        help="Grey images of more than 8 bits: which values are black and white.",
        show_default="found from each image's values",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per item on stdout.")]
Quiet = Annotated[
    bool,
    typer.Option("-q", "--quiet", help="Say only what failed; stdout still has its line for each result."),
]
Failures = Annotated[
    Path | None,
    typer.Option("--failures", metavar="FILE", help="Write what failed to FILE, one JSON object a line."),
]
Attr = Annotated[
    list[str] | None,
    typer.Option(
        "--attr",
        metavar="NAME",
        help="An attribute to move; repeat it, each with a --scale.",
        show_default=False,
    ),
]
Style = Annotated[
    Path | None,
    typer.Option(
        "--style", metavar="IMAGE", help="Models of style and shape: the image whose style is taken.",
        show_default="each image's own",
    ),
]  # fmt: skip
ClassName = Annotated[
    str | None,
    typer.Option(
        "--class", metavar="NAME", help="Class-conditional models: the class that all is taken to be of.",
        show_default="each image's folder, each code's own",
    ),
]  # fmt: skip
Columns = Annotated[
    int | None, typer.Option("--columns", min=1, help="Pictures in one row of a grid.", show_default="square")
]

BUNDLE_DEFAULT = DEFAULT_BUNDLE
MAX_PIXELS_DEFAULT = MAX_PIXELS
