"""The parts of a bundle, each read from its files; what is wrong is a BundleError that says where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from rdm_cli.bundles.config_json import from_json
from rdm_cli.data.io.json_text import parse_object, read_object
from rdm_cli.data.io.tensor_files import first_not_finite, read_tensors, read_with_metadata, tensor_shapes
from rdm_cli.errors import BundleError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import Domain
from rdm_cli.methods.transport import Transport, Transports
from rdm_cli.models.size_limit import no_larger_than

CONCEPTS = "concepts"
DOMAIN, DOMAIN_FILE = "domain", "domain.safetensors"
TRANSPORTS, TRANSPORT_PARTS = "transports.safetensors", ("mean_from", "mean_to", "vectors", "gains")
WEIGHTS = "diffusion_pytorch_model.safetensors"
T = TypeVar("T")
Network = TypeVar("Network", bound=nn.Module)

_NO_NETWORK = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip


def read_directions(folder: Path) -> Directions:
    """The attribute directions in ``folder``; raises BundleError for what is none."""
    header = read_json(folder / "attributes.json")
    tensors = _read(read_tensors, folder / "attributes.safetensors")
    names, scores = header.get("names"), header.get("scores")
    if not are_names(names) or not are_scores(scores):
        raise BundleError(f"{folder / 'attributes.json'}: not the attributes of a bundle")
    try:
        values: dict[str, Any] = {name: value.float() for name, value in tensors.items()}
        directions = Directions(names=tuple(names), scores=scores, **values)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{folder}: not the attributes of a bundle ({error})") from error
    refuse_not_finite(values.items(), folder / "attributes.safetensors")
    return directions


def read_transports(folder: Path) -> Transports:
    """The transports of attributes in ``folder``, none where there are none; BundleError for damaged ones."""
    path = folder / TRANSPORTS
    if not path.is_file():
        return Transports()
    metadata, tensors = _read(read_with_metadata, path)
    refuse_not_finite(tensors.items(), path)
    try:
        return transports_from(parse_object(metadata["rdm"]), tensors)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path}: not the transports of attributes ({error})") from error


def transports_from(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Transports:
    """What :func:`~rdm_cli.bundles.writing.transport_parts` wrote down.

    Raises AttributeError, LookupError, TypeError or ValueError where that is something else.
    """
    parts: dict[tuple[str, bool], dict[str, Tensor]] = {}
    names = [str(name) for name in told["names"]]
    for name, value in tensors.items():
        row, added, part = name.split(".")
        parts.setdefault((names[int(row)], bool(int(added))), {})[part] = value.float()
    maps = {key: Transport(**found) for key, found in parts.items()}
    others = {part: {k: tuple(v) for k, v in told[part].items()} for part in ("exclusive", "hidden")}
    return Transports(maps=maps, **others)


def read_domain(folder: Path) -> Domain:
    """What training images look like, from ``folder``; raises BundleError for what says nothing of it."""
    tensors = _read(read_tensors, folder / DOMAIN_FILE)
    refuse_not_finite(tensors.items(), folder / DOMAIN_FILE)
    try:
        limit = float(tensors.pop("limit"))
        return Domain(limit=limit, **{name: value.float() for name, value in tensors.items()})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}: not the domain of a bundle ({error})") from error


def refuse_not_finite(tensors: Iterable[tuple[str, Tensor]], where: Path) -> None:
    """Raise BundleError where one of the named tensors of ``where`` holds NaN or an infinity."""
    name = first_not_finite(tensors)
    if name is not None:
        raise BundleError(f"{where}: {name} holds values that are not finite")


def are_names(names: Any) -> TypeGuard[list[str]]:
    """Whether a file's ``names`` are a list of words that differ."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return False
    return len(set(names)) == len(names)


def are_scores(scores: Any) -> TypeGuard[dict[str, Any]]:
    """Whether a file's ``scores`` map names to numbers by name."""
    if not isinstance(scores, dict) or not all(isinstance(score, dict) for score in scores.values()):
        return False
    values = [value for score in scores.values() for value in score.values()]
    return all(value is None or isinstance(value, int | float) for value in values)


def parse_config(config: type[Any], values: Mapping[str, Any], where: Path) -> Any:
    """The config of the network in ``where``; raises BundleError where ``values`` describe none."""
    try:
        return from_json(config, values)
    except ValueError as error:
        raise BundleError(f"{where / 'config.json'}: {error}") from error


def build_network(folder: Path, weights: Iterable[Path], build: Callable[[], Any]) -> Any:
    """What ``build`` makes for the files ``weights`` to fill; raises BundleError where it makes nothing."""
    shapes = [shape for path in weights for shape in _read(tensor_shapes, path).values()]
    try:
        # layers draw their first weights: the numbers that the caller draws next are the caller's own
        with no_larger_than(shapes), torch.random.fork_rng(devices=[]):
            return build()
    except _NO_NETWORK as error:
        # the values have the right types, so what is wrong with them only the networks can tell
        reason = " ".join(str(error).split())[:300]
        raise BundleError(f"{folder}: its config.json files describe no network ({reason})") from error


def load_weights(network: nn.Module, folder: Path) -> None:
    """Fill a network with the weights in ``folder``; raises BundleError where they are not its own."""
    tensors = _read(read_tensors, folder / WEIGHTS)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BundleError(f"{folder / WEIGHTS}: the weights do not fit config.json: {first[:200]}") from error


def in_float32(network: Network) -> Network:
    """``network`` with its weights in float32, also where the process makes tensors in another by default."""
    for value in network.state_dict(keep_vars=True).values():
        if value.is_floating_point():
            value.data = value.data.float()
    return network


def _read(read: Callable[[Path], T], path: Path) -> T:
    try:
        return read(path)
    except FileNotFoundError:
        raise BundleError(f"{path}: this part of the bundle is missing") from None
    except (ValueError, OSError) as error:
        raise BundleError(f"{path}: damaged weights ({error})") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in one of a bundle's files; raises BundleError."""
    try:
        return read_object(path)
    except FileNotFoundError:
        raise BundleError(
            f"{path}: this part of the bundle is missing", hint="rdm bundles list shows what there is"
        ) from None
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: not readable as JSON ({error})") from error
