"""Pickles that try to run code, write or fill the memory when they are converted: none gets anywhere.

Each is given to ``rdm bundles convert`` as a plain pickle, in torch's archive and in torch's older stream. An
audit hook watches the interpreter: no process, no file opened for writing, no unrestricted unpickler.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rdm_cli.methods.official.reading import load_official

METHODS = ("diffae", "pdae", "lrdm", "dpm")

# Calls of a function by name: (module, name, arguments as opcodes that leave one tuple).


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def whole(body: bytes) -> bytes:
    """A pickle of a mapping whose value ``body`` makes."""
    return b"\x80\x02}" + text("state_dict") + body + b"s."


def as_zip(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", b"\0" * 16)
    return file.getvalue()


def as_stream(data: bytes, keys: bytes = pickle.dumps([], 2)) -> bytes:
    number, version = torch.serialization.MAGIC_NUMBER, torch.serialization.PROTOCOL_VERSION
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    return b"".join(pickle.dumps(part, 2) for part in (number, version, sizes)) + data + keys


FORMATS: dict[str, Callable[[bytes], bytes]] = {"plain": bytes, "zip": as_zip, "stream": as_stream}


def program(canary: str) -> bytes:
    return text(f"open({canary!r}, 'w').close()")


def shell(canary: str) -> bytes:
    return text(f"touch {canary}")


FLOATS = named("torch", "FloatStorage")


def stored(kind: bytes, *, key: str = "0", place: str = "cpu", num: bytes = b"K\x04") -> bytes:
    """A storage, which lies outside of the pickle."""
    return b"(" + text("storage") + kind + text(key) + text(place) + num + b"tQ"


def module(kind: bytes, path: str) -> bytes:
    return b"(" + text("module") + kind + text(path) + text("source") + b"tQ"


CALLS: dict[str, Callable[[str], bytes]] = {
    "os.system": lambda c: call(named("os", "system"), shell(c)),
    "posix.system": lambda c: call(named("posix", "system"), shell(c)),
    "commands of Python 2": lambda c: call(named("commands", "getoutput"), shell(c)),
    "eval": lambda c: call(named("builtins", "eval"), program(c)),
    "eval of Python 2": lambda c: call(named("__builtin__", "eval"), program(c)),
    "exec": lambda c: call(named("builtins", "exec"), program(c)),
    "open": lambda c: call(named("builtins", "open"), text(c), text("w")),
    "file": lambda c: call(named("_io", "FileIO"), text(c), text("w")),
    "Popen": lambda c: call(named("subprocess", "Popen"), text("touch"), b"N", shell(c)),
    "runpy": lambda c: call(named("runpy", "_run_code"), program(c), b"}"),
    "timeit": lambda c: call(named("timeit", "timeit"), program(c)),
    "profile": lambda c: call(named("cProfile", "run"), program(c)),
    "debugger": lambda c: call(named("bdb", "Bdb.run"), program(c)),
    "numpy's runstring": lambda c: call(named("numpy.testing._private.utils", "runstring"), program(c), b"}"),
    "numpy's load": lambda c: call(named("numpy", "load"), text(c), b"N", b"\x88"),
    "torch.load": lambda c: call(named("torch", "load"), text(c)),
    "torch.save": lambda c: call(named("torch", "save"), b"N", text(c)),
    "torch.hub": lambda c: call(named("torch.hub", "load"), text("a/b"), text("c")),
    "torch.ops": lambda c: call(named("torch.ops", "load_library"), text(c)),
    "pickle in a pickle": lambda c: call(
        named("pickle", "loads"), b"C" + bytes([len(os.fsencode(c)) + 30]) + b"x" * (len(os.fsencode(c)) + 30)
    ),
    "import": lambda c: call(named("importlib", "import_module"), text("antigravity")),
    "a library": lambda c: call(named("ctypes", "CDLL"), text("libc.so.6")),
    "a browser": lambda c: call(named("webbrowser", "open"), text("http://localhost:9")),
    "a socket": lambda c: call(named("socket", "create_connection"), b"(" + text("localhost") + b"K\x09t"),
    "removing": lambda c: call(named("shutil", "rmtree"), text(str(Path(c).parent))),
    "a function's code": lambda c: call(
        named("types", "FunctionType"), call(named("marshal", "loads"), b"N")
    ),
    "reconstructor": lambda c: call(
        named("copyreg", "_reconstructor"), named("os", "stat_result"), b"N", b"N"
    ),
    "partial": lambda c: call(call(named("functools", "partial"), named("os", "system"), shell(c))),
    "reduce": lambda c: call(named("functools", "reduce"), named("os", "system"), b"]"),
    "map": lambda c: call(named("builtins", "list"), call(named("builtins", "map"), named("os", "system"))),
    "getattr": lambda c: call(call(named("builtins", "getattr"), named("os", "path"), text("os"))),
    "getattr of what is permitted": lambda c: call(
        named("builtins", "getattr"), named("collections", "OrderedDict"), text("__globals__")
    ),
    "attrgetter": lambda c: call(call(named("operator", "attrgetter"), text("system")), named("os", "path")),
    "methodcaller": lambda c: call(named("operator", "methodcaller"), text("system"), shell(c)),
    "a factory": lambda c: call(named("collections", "defaultdict"), named("os", "system")),
    "nested": lambda c: call(named("collections", "OrderedDict"), call(named("os", "system"), shell(c))),
    "a hook": lambda c: call(named("torch._utils", "_rebuild_parameter"), b"N\x88" + named("os", "system")),
    "a dotted name": lambda c: call(
        b"\x8c\x05torch\x8c\x17serialization.os.system\x93", shell(c)
    ),
    "a placeholder's method": lambda c: call(
        b"\x8c\x07pathlib\x8c\x0fPath.write_text\x93", text(c), text("x")
    ),
    "a class of an inert module": lambda c: call(named("typing", "sys.modules"), text("os")),
    "INST": lambda c: b"(" + shell(c) + b"ios\nsystem\n",
    "OBJ": lambda c: b"(" + named("os", "system") + shell(c) + b"o",
    "NEWOBJ": lambda c: named("subprocess", "Popen") + b"(" + text("touch") + b"t\x81",
    "NEWOBJ_EX": lambda c: named("subprocess", "Popen") + b"(" + text("touch") + b"t}\x92",
    "NEWOBJ of a value": lambda c: named("builtins", "object") + b")\x81",
    "defaults of a function": lambda c: (
        named("torch._utils", "_rebuild_tensor_v2") + b"N}" + text("__defaults__") + b")s\x86b"
    ),
    "state of a class": lambda c: named("pathlib", "Path") + b"}" + text("__init__") + b"Nsb",
    "items of a function": lambda c: named("torch", "device") + text("a") + text("b") + b"s",
    "append to a class": lambda c: named("builtins", "list") + text("a") + b"a",
    "items of a class": lambda c: named("builtins", "dict") + b"(" + text("a") + b"\x90",
    "rot13": lambda c: call(named("_codecs", "encode"), text("flfgrz"), text("rot13")),
    "EXT1": lambda c: call(b"\x82\xf0", shell(c)),
    "EXT2": lambda c: call(b"\x83\xf0\x00", shell(c)),
    "EXT4": lambda c: call(b"\x84\xf0\x00\x00\x00", shell(c)),
    "PERSID": lambda c: f"P{c}\n".encode(),
    "BINPERSID": lambda c: text(c) + b"Q",
    "a storage of an odd type": lambda c: stored(named("os", "system")),
    "a storage of no type": lambda c: stored(named("torch", "SystemStorage")),
    "a storage elsewhere": lambda c: stored(FLOATS, key=f"../../{c}"),
    "a storage on another device": lambda c: stored(FLOATS, place="hpu; touch x"),
    # torch's older format compares a class with the source that is stored, and writes the difference
    "a module's source": lambda c: module(named("pathlib", "Path"), c),
    "a module of a permitted class": lambda c: module(named("collections", "OrderedDict"), c),
    # memory and time
    "a storage of 4 TB": lambda c: call(named("torch", "UntypedStorage"), b"\x8a\x06" + b"\0\0\0\0\0\x04"),
    "a claim of 4 TB": lambda c: stored(FLOATS, num=b"\x8a\x06\0\0\0\0\0\x01"),
    "strides of zero": lambda c: call(
        named("torch._utils", "_rebuild_tensor_v2"), stored(FLOATS), b"K\0",
        b"(J\xff\xff\xff\x7fJ\xff\xff\xff\x7ft(K\0K\0t\x89", call(named("collections", "OrderedDict")),
    ),
    "a string of 2**62 bytes": lambda c: b"\x8d" + struct.pack("<Q", 2**62) + b"x",
    "bytes of 2**40": lambda c: b"\x8e" + struct.pack("<Q", 2**40) + b"x",
    "a bytearray of 2**33": lambda c: b"\x96" + struct.pack("<Q", 2**33) + b"x",
    "a number of 2 GB": lambda c: b"\x8b" + struct.pack("<I", 2**31 - 1) + b"x",
    "a frame of 2**62": lambda c: b"\x95" + struct.pack("<Q", 2**62) + b"x",
    "a place far out": lambda c: b"Nr" + struct.pack("<I", 2**32 - 1),
    "a key that hashes for ever": lambda c: b"}" + b")" + b"2\x86" * 64 + b"Ns",
    "a set that hashes for ever": lambda c: b"\x8f(" + b")" + b"2\x86" * 64 + b"\x90",
    "the deepest list": lambda c: b"]" * 50_000 + b"a" * 49_999,
    "a tensor in itself": lambda c: call(named("torch.storage", "_load_from_bytes"), b"B\x02\0\0\0PK"),
    "a program in a tensor": lambda c: call(
        named("torch.storage", "_load_from_bytes"),
        (lambda data: b"B" + struct.pack("<I", len(data)) + data)(
            as_stream(whole(call(named("os", "system"), shell(c))))
        ),
    ),
}  # fmt: skip


@pytest.fixture
def registered() -> Iterator[None]:
    """``os.system`` in the extension registry, and in its cache, where no filter sees it."""
    copyreg.add_extension("os", "system", 0xF0)
    copyreg._extension_cache[0xF0] = os.system  # type: ignore[attr-defined]
    yield
    copyreg.remove_extension("os", "system", 0xF0)


def test_the_corpus_is_large() -> None:
    assert len(CALLS) >= 70


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("name", CALLS)
def test_an_attack_gets_nowhere(
    name: str, how: str, tmp_path: Path, gets_nowhere: Callable[..., None], registered: None
) -> None:
    path = tmp_path / "evil.ckpt"
    path.write_bytes(FORMATS[how](whole(CALLS[name](str(tmp_path / "canary")))))
    gets_nowhere(path, [METHODS[len(name) % 4]])


@pytest.mark.slow
@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize("name", CALLS)
def test_an_attack_gets_nowhere_by_any_method(
    name: str, how: str, tmp_path: Path, gets_nowhere: Callable[..., None], registered: None
) -> None:
    path = tmp_path / "evil.ckpt"
    path.write_bytes(FORMATS[how](whole(CALLS[name](str(tmp_path / "canary")))))
    gets_nowhere(path, METHODS)


def test_a_harmless_file_of_the_same_make_is_read(tmp_path: Path) -> None:
    """The corpus fails for what it asks for, not for how it is written."""
    for how, wrap in FORMATS.items():
        path = tmp_path / how
        path.write_bytes(wrap(whole(call(named("collections", "OrderedDict")))))
        assert load_official(path) == {"state_dict": OrderedDict()}
