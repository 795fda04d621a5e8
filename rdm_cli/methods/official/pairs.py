"""A checkpoint and the settings that lie beside it as text: which file is which, told by its content."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from rdm_cli.errors import CheckpointError

Weights = tuple[Path, Mapping[str, Tensor]]
Settings = tuple[Path, Mapping[str, Any]]

MAX_SETTINGS_BYTES = 2**20


def weights_and_settings(
    files: Sequence[Path],
    *,
    read_weights: Callable[[Path], Mapping[str, Tensor]],
    read_settings: Callable[[Path], Mapping[str, Any]],
    suffix: str,
) -> tuple[Weights, Settings | None]:
    """The one checkpoint among ``files``, of which there may be one settings file more, each with its path.

    Raises CheckpointError for two of a kind, and where there is no checkpoint, which ends in ``suffix``.
    """
    weights: Weights | None = None
    settings: Settings | None = None
    for path in map(Path, files):
        if is_text(path):
            if settings is not None:
                raise CheckpointError(f"{settings[0]} and {path} both hold settings")
            settings = path, read_settings(path)
        else:
            if weights is not None:
                raise CheckpointError(f"{weights[0]} and {path} both hold weights")
            weights = path, read_weights(path)
    if weights is None:
        raise CheckpointError(f"{listed(files)}: the checkpoint is missing", hint=f"add its {suffix} file")
    return weights, settings


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Say of a CheckpointError raised within that ``path`` is the file."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error.message}", hint=error.hint) from error


def listed(files: Sequence[Path]) -> str:
    """``files`` by name, for an error about all of them."""
    return ", ".join(map(str, files)) or "no files"


def is_text(path: Path) -> bool:
    """Whether a file is text, as settings are: pickles and archives are no UTF-8, or hold zeros."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    return bool(head) and b"\0" not in head


def read_mapping(path: Path) -> Mapping[str, Any]:
    """A YAML file's mapping; raises CheckpointError where it holds none."""
    import yaml

    with path.open("rb") as file:
        text = file.read(MAX_SETTINGS_BYTES + 1)
    if len(text) > MAX_SETTINGS_BYTES:
        raise CheckpointError(f"{path}: a text longer than settings are")
    try:
        values = yaml.safe_load(text.decode("utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a day 99 is a ValueError
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: neither a checkpoint nor readable as YAML ({reason})") from error
    if not isinstance(values, Mapping):
        raise CheckpointError(f"{path}: a text without settings")
    return values
