"""Reads the papers' own checkpoints, which are pickles, without running what a pickle may ask for.

torch's ``weights_only`` reader is tried first. Trainers also store their own classes (Lightning keys
its callbacks by class), which it refuses; those files are read by :class:`RestrictedUnpickler`. It
builds tensors and plain containers. Names of known trainers become :class:`Inert` placeholders, which
can be stored and called and do nothing. Every other name is refused, and the refusal says which.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickle
import tarfile
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch

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


def _storage_from_bytes(data: bytes) -> Any:
    # how a tensor looks where it was pickled without torch.save
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _mapping_without_factory,
    ("collections", "Counter"): dict,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "complex"): complex,
    ("_codecs", "encode"): _latin1,
    ("numpy", "dtype"): _numpy_dtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("torch", "Size"): torch.Size,
    ("torch", "device"): torch.device,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
}
# these may be stored, as the default factory of a dict is, and not called
_VALUES: dict[tuple[str, str], Any] = {
    **{("builtins", t.__name__): t for t in (bool, int, float, str, list, tuple, dict, object)},
    ("torch.storage", "UntypedStorage"): torch.UntypedStorage,
    **{
        ("torch", str(d).removeprefix("torch.")): d
        for d in vars(torch).values()
        if isinstance(d, torch.dtype)
    },
}
_CALLABLE_IDS = {id(f) for f in _CALLABLES.values()}


def _is_inert_class(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Inert)


class RestrictedUnpickler(pickle._Unpickler):
    """Builds tensors, plain containers and :class:`Inert` objects; refuses every other name.

    It derives from the unpickler written in Python because calls (REDUCE, NEWOBJ) and state (BUILD)
    must pass through it too: a permitted function is still an object whose defaults could be set.
    """

    proto: int
    stack: list[Any]
    append: Callable[[Any], None]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO, **kwargs: Any) -> None:
        super().__init__(file, **kwargs)
        self._inert_classes: dict[tuple[str, str], type[Inert]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What ``module.name`` becomes; raises CheckpointError where it may become nothing."""
        if self.proto < 3:  # those spell names as Python 2 did
            module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
            module = _compat_pickle.IMPORT_MAPPING.get(module, module)
        key = (module, name)
        if key in _CALLABLES:
            return _CALLABLES[key]
        if key in _VALUES:
            return _VALUES[key]
        if any(module == inert or module.startswith(inert + ".") for inert in INERT_MODULES):
            return self._inert_classes.setdefault(key, type(name, (Inert,), {"__module__": module}))
        raise CheckpointError(f"asks for {module}.{name}, which is not a tensor or a plain container")

    def _call(self, function: Any, args: Any, kwargs: dict[str, Any] | None = None) -> Any:
        if not (_is_inert_class(function) or id(function) in _CALLABLE_IDS):
            name = getattr(function, "__qualname__", None) or type(function).__name__
            raise CheckpointError(f"calls {name}, which is not a tensor or a plain container")
        return function(*args, **(kwargs or {}))

    def _instantiate(self, klass: Any, args: Any) -> None:
        self.append(self._call(klass, args))

    def load_reduce(self) -> None:
        """Call a permitted function."""
        args = self.stack.pop()
        self.stack[-1] = self._call(self.stack[-1], args)

    def load_newobj(self) -> None:
        """Make an inert object; nothing else is made this way."""
        args = self.stack.pop()
        self.append(self._call(self.stack.pop(), args))

    def load_newobj_ex(self) -> None:
        """Make an inert object from keyword arguments."""
        kwargs = self.stack.pop()
        args = self.stack.pop()
        self.append(self._call(self.stack.pop(), args, kwargs))

    def load_build(self) -> None:
        """Keep the state of an inert object; drop an OrderedDict's, which is a module's metadata."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Inert):
            target.state = state
        elif type(target).__module__.startswith("numpy"):
            if state[1] not in ("<", "|", "="):
                raise CheckpointError("holds a big-endian number, which rdm does not read")
        elif not isinstance(target, OrderedDict):
            raise CheckpointError(f"sets the state of a {type(target).__name__}")

    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    del dispatch[pickle.BYTEARRAY8[0]]  # it would allocate whatever length the file claims


def _restricted_load(file: BinaryIO, **kwargs: Any) -> Any:
    return RestrictedUnpickler(file, **kwargs).load()


_PICKLE_MODULE: Any = types.SimpleNamespace(
    __name__="rdm_restricted_pickle", Unpickler=RestrictedUnpickler, load=_restricted_load
)


def load_official(path: Path | str) -> Mapping[str, Any]:
    """Read a checkpoint of torch (zip or the older stream) or a plain pickle, onto the CPU.

    Returns the mapping that it holds. Raises CheckpointError, naming the file, where it is missing,
    damaged, not a mapping, or asks for more than tensors and plain containers.
    """
    path = Path(path)
    try:
        value = _load(path)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: the file {error.message}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle may raise nearly anything
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path}: not a checkpoint that can be read ({type(error).__name__}: {reason})",
            hint="download it again if it should be one",
        ) from error
    if not isinstance(value, Mapping):
        raise CheckpointError(f"{path}: the file holds a {type(value).__name__}, not a checkpoint's mapping")
    return value


def _load(path: Path) -> Any:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise CheckpointError("is empty")
    is_zip = head == b"PK\x03\x04"
    mmap = is_zip and _is_stored_zip(path)
    if not is_zip and tarfile.is_tarfile(path):
        raise CheckpointError("is a tar archive, a format torch gave up in 2017")
    if not is_zip and not _is_torch_stream(path):
        with path.open("rb") as file:
            return _restricted_load(file)
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception:  # whatever the reason: the next reader reads it, or says why not
        return torch.load(
            path, weights_only=False, map_location="cpu", mmap=mmap, pickle_module=_PICKLE_MODULE
        )


def _is_stored_zip(path: Path) -> bool:
    """Whether the archive's members lie in it uncompressed, so that they can be mapped."""
    if not zipfile.is_zipfile(path):
        raise CheckpointError("is cut short: it begins as an archive and does not end as one")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise CheckpointError("is a TorchScript program, not a checkpoint")
    return all(member.compress_type == zipfile.ZIP_STORED for member in members)


def _is_torch_stream(path: Path) -> bool:
    """Whether the file begins with the number that torch's older format begins with."""
    with path.open("rb") as file:
        try:
            return bool(_restricted_load(file) == torch.serialization.MAGIC_NUMBER)
        except Exception:  # not even one pickle: the caller reads it again and reports why
            return False
