"""Whatever a classifier is given as, opened: a file, a folder, a program, a Python function, a network."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from rdm_cli.classifiers.classifier import Classifier, Outputs, make_classifier, of_module
from rdm_cli.classifiers.picture_format import checked_format
from rdm_cli.errors import ClassifierError, UsageError, setting

ClassifierSpec = str | os.PathLike[str] | Classifier | nn.Module | Callable[[Tensor], Any]
"""What :func:`open_classifier` opens."""
KINDS = "an ONNX file (.onnx), or a Hugging Face folder of an image classifier with safetensors"
TIME_LIMIT = 600.0  # seconds, for each call of a program


def open_classifier(
    spec: ClassifierSpec | None = None,
    *,
    command: str | None = None,
    size: int | Sequence[int] | None = None,
    layout: str | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    labels: Sequence[str] | None = None,
    outputs: Outputs | None = None,
    image_size: int = 64,
    time_limit: float = TIME_LIMIT,
) -> Classifier:
    """Open ``spec``: an ONNX file, a Hugging Face folder, a network, a function; or the program ``command``.

    A torch module or a function is given pictures (B, 3, H, W), float32 in [-1, 1], and gives (B, K); a
    module's gradients are used where gradients are. An ONNX file and a folder say themselves what pictures
    they take, as far as they do; ``size`` (pixels, or height and width), ``layout`` ("nchw", "nhwc"),
    ``mean`` and ``std`` (of values in [0, 1]) say it instead. ``labels`` name the classes. ``outputs`` is
    "softmax" or "sigmoid" for logits, or "probabilities"; None: found out. ``command`` is a program and its
    arguments: it gets paths of PNG files and writes their scores as JSON
    (:mod:`rdm_cli.classifiers.by_command`), within ``time_limit`` seconds. ``image_size`` is that of the
    pictures that it will be asked about.

    No pickle is read, no code of a model is run, and nothing is fetched. Raises UsageError for what
    contradicts itself, ClassifierError for a model that cannot be opened or asked.
    """
    asked = checked_format(size=size, layout=layout, mean=mean, std=std)
    is_asked = asked != checked_format()
    if (spec is None) == (command is None):
        raise UsageError(f"a classifier is a model or a {setting('command')}: name one of them")
    if command is not None:
        from rdm_cli.classifiers.by_command import open_command

        _refuse_format(is_asked, setting("command"))
        return open_command(
            command, labels=labels, outputs=outputs, image_size=image_size, time_limit=time_limit
        )
    if isinstance(spec, Classifier):
        _refuse_format(is_asked or outputs is not None, spec.name)
        return spec if labels is None else _renamed(spec, labels)
    if isinstance(spec, nn.Module):
        _refuse_format(is_asked, type(spec).__name__)
        return of_module(spec, labels=labels, outputs=outputs, image_size=image_size)
    if callable(spec):
        name = getattr(spec, "__name__", type(spec).__name__)
        _refuse_format(is_asked, name)
        return make_classifier(spec, name=name, labels=labels, outputs=outputs, image_size=image_size)
    path = Path(os.fspath(spec))  # type: ignore[arg-type]  # None was refused above
    if not path.exists():
        raise UsageError(f"{path}: no such model", hint=f"a model is {KINDS}")
    if path.is_dir():
        from rdm_cli.classifiers.hugging_face import open_folder

        return open_folder(path, asked, labels=labels, outputs=outputs, image_size=image_size)
    if path.suffix.lower() != ".onnx":
        raise ClassifierError(f"{path}: not a model that rdm reads", hint=f"a model is {KINDS}")
    from rdm_cli.classifiers.onnx_file import open_onnx

    return open_onnx(path, asked, labels=labels, outputs=outputs, image_size=image_size)


def _renamed(classifier: Classifier, labels: Sequence[str]) -> Classifier:
    if len(labels) != len(classifier.classes) or len(set(labels)) < len(labels):
        raise UsageError(
            f"{classifier.name}: {len(classifier.classes)} different names of classes are needed"
        )
    return replace(classifier, classes=tuple(labels))


def _refuse_format(is_asked: bool, name: str) -> None:
    """Size, layout, mean and std are for files: a function takes care of them itself."""
    if is_asked:
        raise UsageError(
            f"{name}: {setting('size')}, {setting('layout')}, {setting('mean')} and {setting('std')} are for "
            "files and folders; this is given pictures as they are"
        )
