"""Image classifiers in Hugging Face's layout: a folder with config.json and safetensors, run by transformers.

Nothing but safetensors is read, no code of a folder is run, and nothing is fetched.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

from torch import Tensor

from rdm_cli.classifiers.classifier import Classifier, Outputs, make_classifier
from rdm_cli.classifiers.picture_format import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    USUAL_SIZE,
    PictureFormat,
    checked_format,
)
from rdm_cli.data.io.json_text import read_object
from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import digest_of
from rdm_cli.data.io.tensor_files import tensor_shapes
from rdm_cli.errors import ClassifierError, RdmError
from rdm_cli.models.size_limit import no_larger_than

PURPOSE = "a classifier in a Hugging Face folder"
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
PROCESSOR = "preprocessor_config.json"


def open_folder(
    folder: Path,
    asked: PictureFormat,
    *,
    labels: Sequence[str] | None,
    outputs: Outputs | None,
    image_size: int,
) -> Classifier:
    """The image classifier in ``folder``. What ``asked`` does not say is taken from it, or for granted.

    Raises ClassifierError for a folder of another kind, a damaged one, one with pickles alone or with code
    of its own; UsageError without transformers.
    """
    config = _object(folder / "config.json")
    if "auto_map" in config:
        raise ClassifierError(f"{folder}: needs Python code of its own, which is not run")
    if (folder / "adapter_config.json").exists():
        raise ClassifierError(f"{folder}: an adapter, which names another model; merge the two first")
    kinds = config.get("architectures")
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        kinds = []
    if not any(kind.endswith("ForImageClassification") for kind in kinds):
        raise ClassifierError(f"{folder}: {', '.join(kinds) or 'it names no network'}: no image classifier")
    files = _weights(folder)
    network = _network(folder, files)
    form, told = _format(folder, asked)
    if labels is None:
        labels = _labels(config)
    if outputs is None:
        alone = network.config.num_labels == 1
        several = config.get("problem_type") == "multi_label_classification"
        outputs = "sigmoid" if several or alone else "softmax"

    def raw(x: Tensor) -> Any:
        parameter = next(network.parameters())
        return network(form.given(x).to(parameter.device, parameter.dtype)).logits

    return make_classifier(
        raw,
        name=folder.resolve().name,
        labels=labels,
        outputs=outputs,
        image_size=image_size,
        differentiable=True,
        assumed={"network": kinds[0], **told},
        digest=hashlib.sha256("".join(map(digest_of, [folder / "config.json", *files])).encode()).hexdigest(),
    )


def _object(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except FileNotFoundError:
        raise ClassifierError(
            f"{path.parent}: no {path.name}: not a Hugging Face folder of an image classifier"
        ) from None
    except (OSError, ValueError) as error:
        raise ClassifierError(f"{path}: {error}") from None


def _weights(folder: Path) -> list[Path]:
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        pickles = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
        found = f"{pickles[0]} is a pickle, which is not read" if pickles else "there are no weights"
        raise ClassifierError(
            f"{folder}: {found}", hint="save it with save_pretrained(..., safe_serialization=True)"
        )
    parts = _object(folder / WEIGHTS_INDEX).get("weight_map")
    names = sorted(set(map(str, parts.values()))) if isinstance(parts, Mapping) else []
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise ClassifierError(f"{folder / WEIGHTS_INDEX}: {name!r} is no safetensors file of this folder")
    if not names or not all((folder / name).is_file() for name in names):
        raise ClassifierError(f"{folder / WEIGHTS_INDEX}: names files that are not there")
    return [folder / name for name in names]


def _network(folder: Path, files: Sequence[Path]) -> Any:
    transformers = optional_module("transformers", package="transformers", purpose=PURPOSE, extra="classify")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        shapes = [shape for file in files for shape in tensor_shapes(file).values()]
        with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), no_larger_than(shapes):
            network, loading = transformers.AutoModelForImageClassification.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation="eager",  # others may be named in config.json, and fetched
            )
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, AttributeError) as error:
        raise ClassifierError(f"{folder}: transformers does not open it: {_one_line(error)}") from None
    if missing := sorted(loading["missing_keys"]):
        raise ClassifierError(f"{folder}: its weights have no {missing[0]}: an untrained classifier")
    return network.eval().requires_grad_(False)


def _format(folder: Path, asked: PictureFormat) -> tuple[PictureFormat, dict[str, Any]]:
    """The pictures that it takes, by its preprocessor_config.json, and what was taken for granted."""
    path = folder / PROCESSOR
    known = _object(path) if path.is_file() else {}
    told: dict[str, Any] = {}
    size, crop = _sides(known.get("size")), _sides(known.get("crop_size"))
    form = PictureFormat(layout="nchw")
    try:
        if known.get("do_normalize", True) and "image_mean" in known:
            form = form.updated(checked_format(mean=known["image_mean"], std=known["image_std"]))
        elif known:
            form = form.updated(checked_format(mean=(0.0,), std=(1.0,)))
        if crop is not None and known.get("do_center_crop") and size is not None:
            form = PictureFormat(
                size=crop, layout="nchw", mean=form.mean, std=form.std, resized=max(size[0], *crop)
            )
        elif size is not None:
            form = form.updated(checked_format(size=size))
    except (RdmError, KeyError, TypeError) as error:
        raise ClassifierError(f"{path}: {error}") from None
    form = form.updated(asked)
    if form.size is None:
        form = form.updated(PictureFormat(size=(USUAL_SIZE, USUAL_SIZE)))
        told["size, a guess"] = f"taken for {USUAL_SIZE} x {USUAL_SIZE}: {PROCESSOR} does not say"
    if form.mean is None and form.std is None:
        form = form.updated(PictureFormat(mean=IMAGENET_MEAN, std=IMAGENET_STD))
        told["mean and std, a guess"] = f"taken for ImageNet's: {PROCESSOR} does not say"
    return form, {**form.told(), **told}


def _sides(value: Any) -> tuple[int, int] | None:
    if isinstance(value, Mapping):
        if "shortest_edge" in value:
            value = value["shortest_edge"]
        else:
            value = [value.get("height"), value.get("width")]
    if isinstance(value, int):
        value = [value, value]
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return value[0], value[1]
    return None


def _labels(config: Mapping[str, Any]) -> list[str] | None:
    names = config.get("id2label")
    if not isinstance(names, Mapping) or not names:
        return None
    try:
        found = [str(names[key]) for key in sorted(names, key=int)]
    except ValueError:
        return None
    return found if len(set(found)) == len(found) else None


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else words[:197] + "..."
