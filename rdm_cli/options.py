"""Options that several commands share: one meaning, one help text.

Those that go together are a group, which a command takes whole (:mod:`rdm_cli.option_groups`); the others are
``Annotated`` aliases.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from rdm_cli import completion
from rdm_cli.classifiers.typed import parse_names, parse_numbers, parse_size
from rdm_cli.data.images.pixels import MAX_PIXELS
from rdm_cli.data.images.sheet import TILE
from rdm_cli.data.images.value_range import parse_range
from rdm_cli.option_groups import group
from rdm_cli.registry import DEFAULT_BUNDLE

BUNDLE_DEFAULT = DEFAULT_BUNDLE
MAX_PIXELS_DEFAULT = MAX_PIXELS
TILE_DEFAULT = TILE

Fit = Literal["crop", "pad", "stretch"]
"""How an image becomes a square."""
Precision = Literal["fp32", "bf16", "fp16"]
"""Arithmetic of the networks; the sampler's own is float32, or float64 where it must undo itself."""
AnyPrecision = Literal["fp32", "bf16", "fp16", "auto"]
"""The same, or whichever is faster."""
MixedPrecision = Literal["no", "bf16", "fp16"]
"""Arithmetic of a training step."""
Weights = Literal["fp32", "fp16"]
"""How a bundle stores its weights."""
Engine = Literal["none", "ray"]
"""What divides a job among machines; none: this process does it."""
StartNoise = Literal["inferred", "random"]
"""Where x_T comes from."""
Inversion = Literal["ddim", "fixed-point", "exact"]
"""How x_T is inferred."""
Solver = Literal["ddim", "ancestral", "dpm-solver++", "unipc", "heun"]
"""How an x_T is decoded."""
Prior = Literal["latent-ddim", "gaussian"]
"""What draws z."""
Tracker = Literal["tensorboard", "trackio", "wandb"]
"""Where else a training run logs to."""

SOLVER, IMAGES, BATCH_JOB, MACHINE, MESSAGES = "Solver", "Images", "Batch job", "Machine", "Messages"
OPTIMISER, RUN, CLASSIFIER = "Optimiser", "Run", "Classifier"

# What, where, how.

Inputs = Annotated[
    list[str] | None,
    typer.Argument(help="Files and folders; - reads one file from stdin.", show_default=False),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", metavar="PLACE",
        help="A folder for results, or the file for the one result; without it, beside each input.",
    ),
]  # fmt: skip
Bundle = Annotated[
    str,
    typer.Option(
        "-b", "--bundle", metavar="BUNDLE", help="A shipped name, a folder, or hf:owner/name[@revision].",
        envvar="RDM_BUNDLE", autocompletion=completion.bundles,
    ),
]  # fmt: skip
BundleArgument = Annotated[
    str,
    typer.Argument(help="A shipped name, a folder, or hf:owner/name.", autocompletion=completion.bundles),
]
RecordedBundle = Annotated[
    str | None,
    typer.Option(
        "-b", "--bundle", metavar="BUNDLE", help="A shipped name, a folder, or hf:owner/name[@revision].",
        envvar="RDM_BUNDLE", show_default=f"the one each code records; for images {DEFAULT_BUNDLE}",
        autocompletion=completion.bundles,
    ),
]  # fmt: skip
BundleOfCodes = Annotated[
    str | None,
    typer.Option(
        "-b", "--bundle", metavar="BUNDLE", help="A shipped name, a folder, or hf:owner/name[@revision].",
        envvar="RDM_BUNDLE", show_default="the one that the codes record", autocompletion=completion.bundles,
    ),
]  # fmt: skip
CodesPlace = Annotated[
    Path, typer.Argument(metavar="TABLE|FOLDER", help="A table of codes, or a folder.", show_default=False)
]
Originals = Annotated[
    Path | None,
    typer.Option(
        "--images",
        metavar="FOLDER",
        help="Where the images lie that the codes were made of, under the codes' names.",
        show_default="a folder of codes itself",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace a file that is in a result's place, whoever wrote it.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of everything random.")]
Attr = Annotated[
    list[str] | None,
    typer.Option(
        "--attr",
        metavar="NAME",
        help="An attribute to move; repeat it, each with a --scale.",
        show_default=False,
        autocompletion=completion.attributes,
    ),
]
Columns = Annotated[
    int | None,
    typer.Option(
        "--columns", metavar="N", min=1, help="Pictures in one row of a grid.", show_default="square"
    ),
]
TilePixels = Annotated[
    int,
    typer.Option(
        "--tile",
        metavar="PX",
        min=0,
        max=4096,
        help="Enlarge each picture of a sheet, and of an animation, to at least PX pixels; 0 leaves them as "
        "they are, without captions.",
    ),
]
WeightsOption = Annotated[Weights, typer.Option("--weights", help="How the bundle stores its weights.")]

# What evaluations share.

BundlesAndData = Annotated[
    list[str],
    typer.Argument(
        metavar="BUNDLE... FOLDER", help="Bundles to compare, and a folder of images.",
        autocompletion=completion.bundles_and_folders,
    ),
]  # fmt: skip
Report = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="DIR", help="Write a JSON file and an HTML report here."),
]
StepsList = Annotated[
    str, typer.Option("--steps", metavar="T,...", help="Sampling steps, one or several numbers.")
]
EvaluationSteps = Annotated[
    int, typer.Option("--steps", metavar="N", min=1, help="Steps to encode and decode in.")
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

# How an image becomes a code, and a code an image.

Steps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="N",
        min=1,
        help="Sampling steps; without it, the bundle's own number.",
        show_default=False,
        rich_help_panel=SOLVER,
    ),
]
InversionOption = Annotated[
    Inversion | None,
    typer.Option(
        "--inversion",
        help="How x_T is inferred: ddim, as published; fixed-point, by solving each step; exact, so that a "
        "decode undoes each step (what an LRDM's first stage loses stays lost).",
        show_default="the bundle's own",
        rich_help_panel=SOLVER,
    ),
]
SolverOption = Annotated[
    Solver | None,
    typer.Option(
        "--solver",
        help="Decode x_T with this solver; a code made with fixed-point or exact can only be decoded with "
        "its own.",
        show_default="each code's own, else the bundle's",
        rich_help_panel=SOLVER,
    ),
]


@group(SOLVER)
class Inverting:
    """How x_T is inferred from an image, and in how many steps."""

    steps: Steps = None
    inversion: InversionOption = None
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations",
            metavar="N",
            min=1,
            help="Network calls in a step that solves an equation.",
            show_default="the bundle's or the inversion's own",
        ),
    ] = None


# How files become tensors.

Style = Annotated[
    Path | None,
    typer.Option(
        "--style",
        metavar="IMAGE",
        help="Models of style and shape: the image whose style is taken.",
        show_default="each image's own",
        rich_help_panel=IMAGES,
    ),
]


@group(IMAGES)
class ImageFiles:
    """How image files are read."""

    max_pixels: Annotated[
        int,
        typer.Option(
            "--max-pixels",
            metavar="N",
            min=1,
            help="Refuse images of more than N pixels (guards against decompression bombs).",
        ),
    ] = MAX_PIXELS_DEFAULT
    value_range: Annotated[
        Any,
        typer.Option(
            "--range",
            metavar="LO,HI",
            parser=parse_range,
            help="Grey images of more than 8 bits: which values are black and white.",
            show_default="found from each image's values",
        ),
    ] = None


@group(CLASSIFIER)
class Model:
    """A classifier: where it lives, which pictures it takes, and what it gives."""

    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="WORDS",
            help="In the place of MODEL, a program with its arguments: it reads paths of PNG files on stdin, "
            "or as arguments where one is {}, and writes a JSON value a picture, its scores. No shell is "
            "started.",
            show_default=False,
        ),
    ] = None
    labels: Annotated[
        Any,
        typer.Option(
            "--labels",
            metavar="NAME,...|FILE",
            parser=parse_names,
            help="The names of its classes, in the order of its outputs; or a file with a name a line.",
            show_default="as it says, else numbers",
        ),
    ] = None
    size: Annotated[
        Any,
        typer.Option(
            "--size",
            metavar="PX|H,W",
            parser=parse_size,
            help="The size of the pictures that it takes.",
            show_default="as it says, else 224",
        ),
    ] = None
    layout: Annotated[
        Literal["nchw", "nhwc"] | None,
        typer.Option(
            "--layout", help="Whether channels come before rows or last.", show_default="by its input's shape"
        ),
    ] = None
    mean: Annotated[
        Any,
        typer.Option(
            "--mean",
            metavar="M,M,M",
            parser=parse_numbers,
            help="What is taken from pictures in [0, 1].",
            show_default="as it says, else ImageNet's",
        ),
    ] = None
    std: Annotated[
        Any,
        typer.Option(
            "--std",
            metavar="S,S,S",
            parser=parse_numbers,
            help="What they are divided by then.",
            show_default="as it says, else ImageNet's",
        ),
    ] = None
    outputs: Annotated[
        Literal["softmax", "sigmoid", "probabilities"] | None,
        typer.Option(
            "--outputs",
            help="What it gives: logits of one class among several (softmax), logits of each class by itself "
            "(sigmoid), or probabilities.",
            show_default="found out",
        ),
    ] = None
    time_limit: Annotated[
        float,
        typer.Option("--time-limit", metavar="SECONDS", help="End a --command that takes longer for a call."),
    ] = 600.0


@group(IMAGES)
class CodePictures:
    """The pictures of codes that were found, as one file."""

    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="FILE", help="Write a sheet of the pictures to this PNG file."),
    ] = None
    originals: Originals = None
    tile: TilePixels = TILE_DEFAULT
    force: Force = False


@group(IMAGES)
class Images(ImageFiles):
    """How image files are read, and of which class they are."""

    class_name: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="NAME",
            help="Class-conditional models: the class that all images are taken to be of.",
            show_default="each image's folder, each code's own",
        ),
    ] = None


@group(IMAGES)
class FittedImages(Images):
    """How image files are read and made as large as the network's images."""

    fit: Annotated[Fit, typer.Option("--fit", help="How an image becomes a square of the bundle's size.")] = (
        "crop"
    )


# Jobs of many files.

Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N, from 1, so that N machines do it all; 1/1 is all of it.",
        show_default="that of the SLURM array or of RANK, else all",
        rich_help_panel=BATCH_JOB,
    ),
]


@group(BATCH_JOB)
class Work:
    """Which files a job is about, and what becomes of those that fail."""

    files_from: Annotated[
        str | None,
        typer.Option(
            "--files-from", metavar="FILE", help="Read more input paths from FILE, one a line; - is stdin."
        ),
    ] = None
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="The column of Parquet files that holds the images.",
            show_default="'image', or the only one that does",
        ),
    ] = None
    failures: Annotated[
        Path | None,
        typer.Option("--failures", metavar="FILE", help="Write what failed to FILE, one JSON object a line."),
    ] = None


@group(BATCH_JOB)
class ShardedWork(Work):
    """A job that many machines may share."""

    as_tar: Annotated[
        bool,
        typer.Option(
            "--tar", help="Write .tar files into -o: one for each input archive, or one for all files."
        ),
    ] = False
    shard: Shard = None
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest",
            metavar="FILE",
            help="Append a JSON line for each item: input, output, digest, seconds, error.",
            show_default="with shards, a file in -o",
        ),
    ] = None


@group(BATCH_JOB)
class Engines:
    """An engine that others made, which divides a job among machines."""

    engine: Annotated[
        Engine,
        typer.Option(
            "--engine", help="ray: divide the job among the processors of this machine, or of a Ray cluster."
        ),
    ] = "none"
    address: Annotated[
        str | None,
        typer.Option(
            "--address",
            metavar="HOST:PORT",
            help="The address of the Ray cluster, with --engine.",
            show_default="RAY_ADDRESS, else this machine",
        ),
    ] = None
    per_gpu: Annotated[
        int,
        typer.Option(
            "--per-gpu",
            metavar="N",
            min=1,
            help="Workers that share a GPU, with --engine; each decodes images on one processor.",
        ),
    ] = 1


# What runs the networks.

PRECISION_HELP = "Arithmetic of the networks."


@group(MACHINE)
class Processor:
    """What computes."""

    device: Annotated[
        str,
        typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.", envvar="RDM_DEVICE"),
    ] = "auto"
    threads: Annotated[
        int | None,
        typer.Option("--threads", metavar="N", min=1, help="CPU threads.", show_default="all cores"),
    ] = None


@group(MACHINE)
class BatchedProcessor(Processor):
    """What computes, and how many images at once."""

    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=1,
            help="Images in one pass of the networks; results do not depend on it beyond rounding.",
            show_default="by device",
        ),
    ] = None


@group(MACHINE)
class Machine(BatchedProcessor):
    """What computes, how many images at once, and how precisely."""

    precision: Annotated[
        AnyPrecision,
        typer.Option(
            "--precision",
            help=f"{PRECISION_HELP} auto: bf16 where this machine is faster in it, which is measured once.",
        ),
    ] = "fp32"


@group(MACHINE)
class DecodingMachine(BatchedProcessor):
    """A machine that is as precise as each code says, unless told otherwise."""

    precision: Annotated[
        Precision | None,
        typer.Option("--precision", help=PRECISION_HELP, show_default="the one each code records"),
    ] = None


# How a model is trained. The fields are those of rdm_cli.training.run.plan.TrainOptions.


def left_open(name: str, metavar: str | None, text: str, default: str = "the preset's", **more: Any) -> Any:
    """An option of training that has no value of its own; ``default`` says where it comes from then."""
    return typer.Option(name, metavar=metavar, help=text, show_default=default, **more)


@group(OPTIMISER)
class Optimiser:
    """What a step is made of."""

    batch_size: Annotated[
        int | None, left_open("--batch-size", "N", "Images in one step, over all processes.", min=1)
    ] = None
    lr: Annotated[float | None, left_open("--lr", "RATE", "Learning rate.", min=0.0)] = None
    warmup_steps: Annotated[
        int | None, left_open("--warmup", "N", "Steps in which the learning rate rises from 0.", min=0)
    ] = None
    decay_fraction: Annotated[
        float | None,
        left_open(
            "--decay",
            "FRACTION",
            "Last fraction of training, in which the learning rate falls to 0.",
            min=0.0,
            max=1.0,
        ),
    ] = None
    weight_decay: Annotated[
        float | None, left_open("--weight-decay", "W", "Weight decay of AdamW.", min=0.0)
    ] = None
    ema_decay: Annotated[
        float | None, left_open("--ema", "DECAY", "Decay of the averaged weights.", min=0.0, max=0.999999)
    ] = None
    num_accumulations: Annotated[
        int | None,
        left_open(
            "--gradient-accumulation", "N", "Passes in one step: less memory, the same batch.", "1", min=1
        ),
    ] = None


@group(RUN)
class Run:
    """What the run leaves, and where."""

    run_folder: Annotated[
        Path | None, left_open("--run", "DIR", "Folder for checkpoint, log and sheets.", "runs/NAME")
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
        Weights | None, left_open("--weights", None, "How the bundle stores weights.", "fp32")
    ] = None
    log: Annotated[Tracker | None, typer.Option("--log", help="Log to this tracker as well.")] = None
    seed: Annotated[int | None, left_open("--seed", "N", "Seed of everything random.", "0")] = None


@group(IMAGES)
class TrainingImages:
    """How the images are read."""

    flip: Annotated[bool | None, left_open("--flip/--no-flip", None, "Mirror half of the images.")] = None
    fit: Annotated[
        Fit | None, left_open("--fit", None, "How an image becomes a square of the network's size.", "crop")
    ] = None
    max_pixels: Annotated[
        int | None,
        left_open(
            "--max-pixels",
            "N",
            "Leave out images of more than N pixels (guards against decompression bombs).",
            str(MAX_PIXELS_DEFAULT),
            min=1,
        ),
    ] = None
    value_range: Annotated[
        str | None,
        left_open(
            "--range",
            "LO,HI",
            "Grey images of more than 8 bits: which values are black and white.",
            "found from each image's values",
        ),
    ] = None


@group(MACHINE)
class TrainingMachine(Processor):
    """What computes, and how."""

    mixed_precision: Annotated[
        MixedPrecision | None,
        left_open("--mixed-precision", None, "Arithmetic of a step; fp16 needs a GPU.", "no"),
    ] = None
    compile: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Compile the step with torch.compile: minutes at the start, then faster on a GPU.",
        ),
    ] = False
    num_workers: Annotated[
        int | None, left_open("--workers", "N", "Processes that decode images.", "0 on a CPU, else 4", min=0)
    ] = None


# What is printed.

Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON object per item on stdout.", rich_help_panel=MESSAGES),
]


@group(MESSAGES)
class Voice:
    """What is said, and how."""

    as_json: Json = False
    quiet: Annotated[
        bool,
        typer.Option(
            "-q", "--quiet", help="Say only what failed; stdout still has its line for each result."
        ),
    ] = False
