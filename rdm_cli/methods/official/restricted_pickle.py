"""An unpickler for files that anyone may have written: tensors, plain containers and placeholders, no more.

What each name becomes is in :mod:`rdm_cli.methods.official.pickled_values`: those of known trainers are
placeholders, which can be stored and called and do nothing. Every other name is refused, and the refusal
says which. What is built takes no more memory than the file.
"""

from __future__ import annotations

import _compat_pickle
import io
import pickle
import types
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

import torch

from rdm_cli.errors import CheckpointError
from rdm_cli.methods.official.pickled_values import CALLABLES, INERT_MODULES, VALUES, Inert, frozen, plain_key


def _storage_from_bytes(data: bytes) -> Any:
    # how a tensor looks where it was pickled without torch.save: torch's older format, within a string
    file = io.BytesIO(data)
    if not is_torch_stream(file):
        raise CheckpointError("holds a tensor in a format that tensors are not pickled in")
    return restricted_torch_load(file)


_CALLABLES: dict[tuple[str, str], Callable[..., Any]] = {
    **CALLABLES,
    ("torch.storage", "_load_from_bytes"): _storage_from_bytes,
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
    pop_mark: Callable[[], list[Any]]
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
        if key in VALUES:
            return VALUES[key]
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

    def load_dict(self) -> None:
        """A dict of plain keys."""
        items = self.pop_mark()
        self.append({plain_key(items[i]): items[i + 1] for i in range(0, len(items), 2)})

    def load_setitem(self) -> None:
        """One item of a dict or of an inert object."""
        value = self.stack.pop()
        key = self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        """Items of a dict or of an inert object."""
        self._set_items(self.pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (dict, Inert)):
            raise CheckpointError(f"sets items of a {type(target).__name__}")
        for i in range(0, len(items), 2):
            target[plain_key(items[i])] = items[i + 1]

    def load_additems(self) -> None:
        """Items of a set."""
        items = self.pop_mark()
        if not isinstance(self.stack[-1], set):
            raise CheckpointError(f"adds items to a {type(self.stack[-1]).__name__}")
        self.stack[-1].update(map(plain_key, items))

    def load_frozenset(self) -> None:
        """A frozenset of plain values."""
        self.append(frozen(self.pop_mark()))

    def load_append(self) -> None:
        """One item of a list or of an inert object."""
        self._append_all([self.stack.pop()])

    def load_appends(self) -> None:
        """Items of a list or of an inert object."""
        self._append_all(self.pop_mark())

    def _append_all(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, (list, Inert)):
            raise CheckpointError(f"appends to a {type(target).__name__}")
        for item in items:
            target.append(item)

    def load_extension(self) -> None:
        """Extension codes stand for names that another process registered: none is known here."""
        raise CheckpointError("asks for a name of copyreg's extension registry")

    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.ADDITEMS[0]] = load_additems
    dispatch[pickle.FROZENSET[0]] = load_frozenset
    dispatch[pickle.APPEND[0]] = load_append
    dispatch[pickle.APPENDS[0]] = load_appends
    dispatch |= dict.fromkeys((pickle.EXT1[0], pickle.EXT2[0], pickle.EXT4[0]), load_extension)
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_newobj
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
    del dispatch[pickle.BYTEARRAY8[0]]  # it would allocate whatever length the file claims


def restricted_load(file: BinaryIO, **kwargs: Any) -> Any:
    """What a pickle holds; raises CheckpointError for what it may not, anything at all for damage."""
    return RestrictedUnpickler(file, **kwargs).load()


_PICKLE_MODULE: Any = types.SimpleNamespace(
    __name__="rdm_restricted_pickle", Unpickler=RestrictedUnpickler, load=restricted_load
)


def restricted_torch_load(file: Any, *, mmap: bool = False) -> Any:
    """torch's reader of its own formats, on the CPU, with this unpickler in them.

    torch's ``weights_only`` reader is not tried first: a hostile file would choose whichever suits it.
    """
    return torch.load(file, weights_only=False, map_location="cpu", mmap=mmap, pickle_module=_PICKLE_MODULE)


def is_torch_stream(file: BinaryIO) -> bool:
    """Whether a file begins with the number that torch's older format begins with; it is read from 0 on."""
    try:
        return bool(restricted_load(file) == torch.serialization.MAGIC_NUMBER)
    except Exception:  # not even one pickle: the caller reads it again and reports why
        return False
    finally:
        file.seek(0)
