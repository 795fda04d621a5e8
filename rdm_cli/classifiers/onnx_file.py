"""Classifiers in ONNX files, run by onnxruntime.

A file is read here before the runtime sees it. It may name other files for its weights, and the runtime would
open them: such names stay within the file's own folder, links included, or the file is refused.
"""

from __future__ import annotations

import ast
import json
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdm_cli.classifiers.classifier import Classifier, Outputs, make_classifier
from rdm_cli.classifiers.picture_format import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LARGEST,
    USUAL_SIZE,
    Layout,
    PictureFormat,
    checked_format,
)
from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import digest_of
from rdm_cli.errors import ClassifierError, RdmError, UsageError

MAX_BYTES = 2**31 - 1  # of the file: what its format allows
MAX_WEIGHTS = 2**34  # bytes of the weights beside it
MOST_CLASSES = 100_000
AT_ONCE = 64
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}
SOFTENERS: Mapping[str, Outputs] = {"Softmax": "probabilities", "Sigmoid": "probabilities"}
PURPOSE = "a classifier in an ONNX file"


def open_onnx(
    path: Path,
    asked: PictureFormat,
    *,
    labels: Sequence[str] | None,
    outputs: Outputs | None,
    image_size: int,
) -> Classifier:
    """The classifier in ``path``. What ``asked`` does not say is taken from the file, or for granted.

    Raises ClassifierError for a file that is none, is damaged or reads other files, UsageError without
    onnxruntime.
    """
    runtime = optional_module("onnxruntime", package="onnxruntime", purpose=PURPOSE, extra="classify")
    model = _read(path)
    session = _session(runtime, path)
    (given, *others), gives = session.get_inputs() or [None], session.get_outputs()
    if given is None or others:
        names = ", ".join(one.name for one in session.get_inputs()) or "none"
        raise ClassifierError(f"{path}: a classifier takes one input, pictures, and this takes {names}")
    if given.type not in TYPES:
        raise ClassifierError(f"{path}: its input is {given.type}, and pictures are {', '.join(TYPES)}")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    form, told = _format(path, list(given.shape), metadata, asked)
    answer = _answer(path, gives)
    if labels is None:
        labels = _labels(metadata, answer.shape)
    last = next((node.op_type for node in model.graph.node if answer.name in node.output), "")
    if outputs is None and last in SOFTENERS:
        outputs, told["outputs"] = SOFTENERS[last], f"probabilities: its last step is {last}"
    dtype = TYPES[given.type]
    batch = given.shape[0] if isinstance(given.shape[0], int) else None

    def run(part: np.ndarray) -> np.ndarray:
        try:
            (found,) = session.run([answer.name], {given.name: part})
        except Exception as error:  # the runtime's own exceptions have no base class but this
            raise ClassifierError(f"{path}: cannot be run: {_one_line(error)}") from None
        return np.asarray(found)

    def raw(x: Tensor) -> Tensor:
        values = form.given(x.detach().cpu())
        if dtype is np.uint8:
            values = (values * 255).round().clamp(0, 255)
        made = []
        for part in values.split(batch or AT_ONCE):
            num = len(part)
            if batch is not None and num < batch:
                part = torch.cat([part, part[-1:].expand(batch - num, -1, -1, -1)])
            found = run(np.ascontiguousarray(part.numpy().astype(dtype)))
            if found.dtype.kind not in "fiu" or found.ndim == 0 or len(found) != len(part):
                raise ClassifierError(
                    f"{path}: gives {found.shape} of {found.dtype} for {len(part)} pictures"
                )
            made.append(torch.from_numpy(found.astype(np.float32))[:num])
        return torch.cat(made)

    return make_classifier(
        raw,
        name=path.name,
        labels=labels,
        outputs=outputs,
        image_size=image_size,
        assumed=told,
        digest=digest_of(path),
    )


def _read(path: Path) -> Any:
    """The model in the file, without weights that lie elsewhere; raises ClassifierError."""
    onnx = optional_module("onnx", package="onnx", purpose=PURPOSE, extra="classify")
    decode_error = optional_module(
        "google.protobuf.message", package="onnx", purpose=PURPOSE, extra="classify"
    ).DecodeError
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ClassifierError(f"{path}: no regular file")
        if status.st_size > MAX_BYTES:
            raise ClassifierError(f"{path}: larger than the 2 GB that an ONNX file may have")
        model = onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise ClassifierError(f"{path}: cannot be read ({error.strerror})") from error
    except (decode_error, ValueError, RecursionError):
        raise ClassifierError(f"{path}: not an ONNX file, or a damaged one") from None
    if not model.graph.node:
        raise ClassifierError(f"{path}: not an ONNX file: there is no network in it")
    _refuse_other_places(path, model, onnx.TensorProto)
    return model


def _refuse_other_places(path: Path, model: Any, tensor_type: Any) -> None:
    """Raise ClassifierError where weights are to be read from outside the file's own folder, or are huge."""
    folder = path.resolve().parent
    places: set[Path] = set()
    for tensor in _tensors(model, tensor_type):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if tensor.data_location != tensor_type.EXTERNAL and not entries:
            continue
        name = entries.get("location", "")
        pure = PurePosixPath(name.replace("\\", "/"))
        beyond = not name or "\0" in name or pure.is_absolute() or ".." in pure.parts or ":" in name
        place = folder if beyond else (folder / pure).resolve()
        if beyond or not place.is_relative_to(folder):
            raise ClassifierError(
                f"{path}: its weights are to be read from {name!r}, outside its folder; it is not opened"
            )
        if not place.is_file():
            raise ClassifierError(f"{path}: its weights are in {name}, which is not there")
        places.add(place)
    if sum(place.stat().st_size for place in places) > MAX_WEIGHTS:
        raise ClassifierError(f"{path}: its weights are larger than {MAX_WEIGHTS >> 30} GB")


def _tensors(message: Any, tensor_type: Any) -> Iterator[Any]:
    """Every tensor in a protobuf ``message``, wherever it stands: initializers, attributes, functions."""
    waiting = [message]
    while waiting:
        one = waiting.pop()
        if isinstance(one, tensor_type):
            yield one
            continue
        for field, value in one.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if hasattr(value, "ListFields") else value)


def _session(runtime: Any, path: Path) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is told by the exception
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's own exceptions have no base class but this
        raise ClassifierError(f"{path}: onnxruntime does not open it: {_one_line(error)}") from None


def _format(
    path: Path, shape: list[Any], metadata: Mapping[str, str], asked: PictureFormat
) -> tuple[PictureFormat, dict[str, Any]]:
    """The pictures that an input of ``shape`` takes, and what was taken for granted."""
    if len(shape) != 4:
        raise ClassifierError(
            f"{path}: its input has the shape {shape}, and pictures are (batch, channels, height, width)"
        )
    sides = {side for side in shape if isinstance(side, int)}
    if any(side < 1 for side in sides) or max(sides, default=0) > LARGEST:
        raise ClassifierError(f"{path}: its input has the shape {shape}, which no picture has")
    told = {}
    known = _stated(path, metadata)
    layouts: list[Layout] = []
    if shape[1] in (1, 3):
        layouts.append("nchw")
    if shape[3] in (1, 3):
        layouts.append("nhwc")
    layout = asked.layout or known.layout or (layouts[0] if layouts else "nchw")
    if asked.layout is None and known.layout is None and len(layouts) != 1:
        told["layout"] = f"taken for {layout.upper()}: its shape does not say"
    channels, height, width = shape[1:] if layout == "nchw" else (shape[3], *shape[1:3])
    if isinstance(channels, int) and channels not in (1, 3):
        raise ClassifierError(f"{path}: its input {shape} has {channels} channels, and pictures have 1 or 3")
    fixed = (height, width) if isinstance(height, int) and isinstance(width, int) else None
    if fixed is not None and asked.size not in (None, fixed):
        raise UsageError(f"{path}: it takes pictures of {fixed[0]} x {fixed[1]}, not of {asked.size}")
    grey = channels == 1
    form = replace(known, size=fixed or known.size, layout=layout, channels=1 if grey else 3).updated(asked)
    if form.size is None:
        form = replace(form, size=(USUAL_SIZE, USUAL_SIZE))
        told["size"] = f"taken for {USUAL_SIZE} x {USUAL_SIZE}: it takes any"
    if form.mean is None and form.std is None:
        mean, std = ((0.0,), (1.0,)) if grey else (IMAGENET_MEAN, IMAGENET_STD)
        form = replace(form, mean=mean, std=std)
        of = "those of values in [0, 1]" if grey else "ImageNet's"
        told["mean and std"] = f"taken for {of}: the file does not say"
    return form, {**form.told(), **{f"{key}, a guess": value for key, value in told.items()}}


def _stated(path: Path, metadata: Mapping[str, str]) -> PictureFormat:
    """What the file's metadata say of pictures, under the names that exporters use."""
    found: dict[str, Any] = {}
    for key in ("mean", "std", "size", "layout"):
        for name in (key, f"image_{key}", {"size": "imgsz"}.get(key, key)):
            if name in metadata and key not in found:
                found[key] = metadata[name].lower() if key == "layout" else _numbers(metadata[name])
    if isinstance(size := found.get("size"), list):
        found["size"] = [int(side) for side in (size * 2 if len(size) == 1 else size)]
    try:
        return checked_format(**found)
    except RdmError as error:
        raise ClassifierError(f"{path}: its metadata: {error.message}") from None


def _numbers(text: str) -> list[float] | None:
    try:
        return [float(part) for part in text.strip("[]() ").split(",")]
    except ValueError:
        return None


def _labels(metadata: Mapping[str, str], shape: Sequence[Any]) -> list[str] | None:
    """The classes that the file's metadata name, where they are as many as the outputs."""
    for key in ("labels", "classes", "class_names", "names"):
        text = metadata.get(key, "")
        if not text:
            continue
        found: Any = None
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text)
                break
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
        if isinstance(found, dict):
            found = [found[key] for key in sorted(found, key=lambda key: (len(str(key)), str(key)))]
        if not isinstance(found, list):
            found = [part for part in text.replace("\n", ",").split(",") if part.strip()]
        names = [str(one).strip() for one in found]
        if len(set(names)) == len(names) and (not isinstance(shape[-1], int) or shape[-1] == len(names)):
            return names
    return None


def _answer(path: Path, gives: Sequence[Any]) -> Any:
    """The output that has the scores: the first of floats that is a table."""
    for one in gives:
        sides = [side for side in one.shape[1:] if isinstance(side, int)]
        small = not sides or max(sides) <= MOST_CLASSES
        flat = len(one.shape) > 0 and all(side == 1 for side in one.shape[2:])
        if one.type in ("tensor(float)", "tensor(float16)", "tensor(double)") and small and flat:
            return one
    told = ", ".join(f"{one.name} {one.type} {list(one.shape)}" for one in gives)
    raise ClassifierError(f"{path}: none of its outputs is a table of scores (pictures, classes): {told}")


def _one_line(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if len(words) <= 200 else words[:197] + "..."
