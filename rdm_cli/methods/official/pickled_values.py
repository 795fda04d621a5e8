"""What the names in a foreign pickle may become: tensors, plain containers, and placeholders that do nothing.

Nothing that is built here takes more memory than its data, or hashes for ever. Which instructions of a pickle
reach these is the unpickler's matter: :mod:`rdm_cli.methods.official.restricted_pickle`.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError

INERT_MODULES = (
    "pytorch_lightning",
    "lightning",
    "lightning_fabric",
    "omegaconf",
    "argparse",
    "pathlib",
    "typing",
    "torch.optim",
    # modules of the authors' repositories whose classes occur in hyper-parameters
    "config",
    "config_base",
    "choices",
    "diffusion",
    "model",
    "dist_utils",
)


class Inert:
    """Stands for an object of a class that is not here; keeps what the pickle says of it."""

    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs
        self.items: list[Any] = []

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def append(self, item: Any) -> None:
        """Keep an item of what would have been a list."""
        self.items.append(item)


def _mapping_without_factory(*_: Any) -> dict[Any, Any]:
    return {}


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    # pickles of protocol 2 spell bytes this way, always in latin1
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}")
    return text.encode("latin1")


def _numpy_dtype(name: str, *_: Any) -> Any:
    import numpy as np

    dtype = np.dtype(name)
    if dtype.kind not in "biufc":
        raise pickle.UnpicklingError(f"a numpy value is of type {name!r}, which is not a number")
    return dtype


def _numpy_scalar(dtype: Any, data: bytes) -> int | float | complex | bool:
    import numpy as np

    if not isinstance(dtype, np.dtype):
        raise pickle.UnpicklingError("a numpy value has no type")
    value: int | float | complex | bool = np.frombuffer(data, dtype)[0].item()
    return value


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *rest: Any) -> Tensor:
    return _no_larger_than_its_data(torch._utils._rebuild_tensor(storage, offset, size, stride))


def _parameter(data: Any, *_: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise CheckpointError(f"holds a parameter that is a {type(data).__name__}")
    return data


def _no_larger_than_its_data(tensor: Tensor) -> Tensor:
    """As it is; CheckpointError for one whose strides repeat its values, to any size that a file claims."""
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise CheckpointError(f"holds a tensor of the shape {tuple(tensor.shape)} without data for it")
    return tensor


def plain_key(key: Any) -> Any:
    """As it is; CheckpointError where hashing it may take for ever, as tuples in tuples in tuples do."""
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, (tuple, frozenset)):
            raise CheckpointError("holds a key that is nested")
    return key


def _ordered(pairs: Iterable[Any] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((plain_key(key), value) for key, value in pairs)


def _counter(counts: Any = ()) -> dict[Any, Any]:
    return {plain_key(key): value for key, value in dict(counts).items()}


def _set(items: Iterable[Any] = ()) -> set[Any]:
    return {plain_key(item) for item in items}


def frozen(items: Iterable[Any] = ()) -> frozenset[Any]:
    """A frozenset of plain values; CheckpointError as :func:`plain_key` has it."""
    return frozenset(_set(items))


CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): _ordered,
    ("collections", "defaultdict"): _mapping_without_factory,
    ("collections", "Counter"): _counter,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): frozen,
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
# these may be stored, as the default factory of a dict is, and not called
VALUES: dict[tuple[str, str], Any] = {
    **{("builtins", t.__name__): t for t in (bool, int, float, str, list, tuple, dict, object)},
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    **{
        ("torch", str(d).removeprefix("torch.")): d
        for d in vars(torch).values()
        if isinstance(d, torch.dtype)
    },
}
