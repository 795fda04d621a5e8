"""The checkpoint reader builds tensors and plain containers, and nothing that a pickle may ask for."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
import sys
import types
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rdm_cli.errors import CheckpointError
from rdm_cli.methods.official.pickled_values import Inert
from rdm_cli.methods.official.reading import load_official


class Asks:
    """Pickles as a call of ``function``, as a malicious file would."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a class of a package that is not installed, so that files can be written with it."""

    def make(module: str, name: str, bases: tuple[type, ...] = ()) -> type:
        parts = module.split(".")
        for i in range(len(parts)):
            monkeypatch.setitem(sys.modules, ".".join(parts[: i + 1]), types.ModuleType(parts[i]))
        cls = type(name, bases, {"__module__": module})
        setattr(sys.modules[module], name, cls)
        return cls

    return make


def write(path: Path, value: Any, how: str) -> Path:
    if how == "zip":
        torch.save(value, path)
    elif how == "stream":
        torch.save(value, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps(value, protocol=int(how)))
    return path


FORMATS = ("zip", "stream", "0", "2", "4", "5")


@pytest.mark.parametrize("how", FORMATS)
def test_tensors_and_containers_survive_in_every_format(tmp_path: Path, how: str) -> None:
    value = {
        "state_dict": OrderedDict(a=torch.arange(6.0).reshape(2, 3), b=torch.tensor([1, 2])),
        "lists": [1, 2.5, "x", None, True, (1, 2), {"k": {3, 4}}],
        "bytes": b"\x00\xff",
    }
    got = load_official(write(tmp_path / "a.ckpt", value, how))
    assert list(got) == list(value)
    assert got["lists"] == value["lists"] and got["bytes"] == value["bytes"]
    for name, tensor in value["state_dict"].items():
        torch.testing.assert_close(got["state_dict"][name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, f"{os.system.__module__}.system"),
        (eval, "builtins.eval"),
        (getattr, "builtins.getattr"),
        (subprocess.Popen, "subprocess.Popen"),
        (torch.load, "torch.serialization.load"),
        (io.FileIO, "_io.FileIO"),
    ],
)
def test_a_call_is_refused_by_name_and_not_made(tmp_path: Path, how: str, function: Any, name: str) -> None:
    trace = tmp_path / "trace"
    evil = Asks(function, f"open({str(trace)!r}, 'w')" if function is eval else f"touch {trace}")
    path = write(tmp_path / "evil.ckpt", {"state_dict": {"x": evil}}, how)
    with pytest.raises(CheckpointError) as caught:
        load_official(path)
    assert (
        str(caught.value) == f"{path}: the file asks for {name}, which is not a tensor or a plain container"
    )
    assert not trace.exists()


def test_lightning_classes_as_keys_become_placeholders(tmp_path: Path, foreign: Any) -> None:
    callback = foreign("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint")
    value = {"state_dict": {"w": torch.ones(2)}, "callbacks": {callback: {"best": "x.ckpt"}}}
    for how in FORMATS:
        got = load_official(write(tmp_path / f"{how}.ckpt", value, how))
        (key,) = got["callbacks"]
        assert issubclass(key, Inert) and key is not callback
        assert key.__module__ == callback.__module__ and key.__name__ == "ModelCheckpoint"
        assert got["callbacks"][key] == {"best": "x.ckpt"}


def test_foreign_objects_keep_their_state_as_data(tmp_path: Path, foreign: Any) -> None:
    attribute_dict = foreign("pytorch_lightning.utilities.parsing", "AttributeDict", (dict,))
    value = {
        "hyper_parameters": argparse.Namespace(lr=1e-4),
        "folder": Path("runs"),
        "attributes": attribute_dict(T=1000),
        "default": defaultdict(list, {"a": [1]}),
    }
    got = load_official(write(tmp_path / "a.ckpt", value, "zip"))
    assert isinstance(got["hyper_parameters"], Inert) and got["hyper_parameters"].state == {"lr": 1e-4}
    assert isinstance(got["folder"], Inert) and got["folder"].args == ("runs",)
    assert got["attributes"].items == [("T", 1000)]
    assert got["default"] == {"a": [1]} and type(got["default"]) is dict


def test_classes_of_unknown_packages_are_refused(tmp_path: Path, foreign: Any) -> None:
    cls = foreign("pytorch_lightning_evil.callbacks", "Callback")
    path = write(tmp_path / "a.ckpt", {"callbacks": {cls: 1}}, "zip")
    with pytest.raises(CheckpointError, match=r"asks for pytorch_lightning_evil\.callbacks\.Callback"):
        load_official(path)


def test_numpy_numbers_become_python_numbers(tmp_path: Path) -> None:
    # Adam's moments make torch's own reader see a foreign global; the placeholder forces ours
    value = {"best": np.float64(0.25), "n": np.int64(7), "root": argparse.Namespace()}
    got = load_official(write(tmp_path / "a.ckpt", value, "zip"))
    assert (got["best"], got["n"]) == (0.25, 7)
    assert type(got["best"]) is float and type(got["n"]) is int


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pkl", {"a": np.array([object], dtype=object)}, "2")
    with pytest.raises(CheckpointError, match=r"asks for numpy\._?core\.multiarray\._reconstruct"):
        load_official(path)


@pytest.mark.parametrize(
    ("opcodes", "words"),
    [
        # BUILD on a permitted function: would replace the defaults of torch's own code
        (b"ctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__)s\x86b", "sets the state of a function"),
        # INST and OBJ reach a class without REDUCE
        (b"(S'touch x'\nios\nsystem\n", "asks for os.system"),
        (b"(cos\nsystem\nS'touch x'\no", "asks for os.system"),
        # STACK_GLOBAL walks dotted names
        (b"\x8c\x05torch\x8c\x17serialization.os.system\x93", "asks for torch.serialization.os.system"),
        # NEWOBJ of something that is only a value
        (b"ctorch\nfloat32\n)\x81", "calls dtype"),
        (b"ctorch.storage\nUntypedStorage\n(J\xff\xff\xff\x7ftR", "calls UntypedStorage"),
        (b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR", "bytes are encoded as rot13"),
    ],
)
def test_other_ways_to_code_are_closed(tmp_path: Path, opcodes: bytes, words: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + opcodes + b".")
    with pytest.raises(CheckpointError) as caught:
        load_official(path)
    assert words in str(caught.value)


def test_damaged_files_are_told_in_one_line(tmp_path: Path) -> None:
    whole = {
        "zip": write(tmp_path / "whole.zip", {"state_dict": {"w": torch.randn(64, 64)}}, "zip"),
        "stream": write(tmp_path / "whole.tar", {"state_dict": {"w": torch.randn(64, 64)}}, "stream"),
        "pickle": write(tmp_path / "whole.pkl", {"state_dict": {"w": torch.randn(64, 64)}}, "4"),
    }
    contents = {"empty": b"", "text": b"not a checkpoint\n", "page": b"<!doctype html>", "PK": b"PK\x03\x04"}
    for kind, path in whole.items():
        data = path.read_bytes()
        for part in (0.001, 0.1, 0.5, 0.9, 0.999):
            contents[f"{kind} {part}"] = data[: int(len(data) * part)]
    for name, data in contents.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(CheckpointError) as caught:
            load_official(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: ") and "\n" not in message, name


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.ckpt: No such file"):
        load_official(tmp_path / "none.ckpt")
    with pytest.raises(CheckpointError, match="Is a directory"):
        load_official(tmp_path)


def test_a_file_that_holds_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds a list"):
        load_official(write(tmp_path / "a.pkl", [1, 2], "2"))


def test_programs_and_tar_archives_are_refused(tmp_path: Path) -> None:
    import tarfile
    import zipfile

    program = tmp_path / "program.pt"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("program/constants.pkl", pickle.dumps(()))
        archive.writestr("program/data.pkl", pickle.dumps({}))
    with pytest.raises(CheckpointError, match="TorchScript"):
        load_official(program)
    old = tmp_path / "old.tar"
    with tarfile.open(old, "w") as tar:
        tar.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    with pytest.raises(CheckpointError, match="tar archive"):
        load_official(old)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=80), prefix=st.sampled_from([b"", b"\x80\x02", b"\x80\x04}", b"PK\x03\x04"]))
def test_arbitrary_bytes_raise_nothing_else(tmp_path: Path, data: bytes, prefix: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(prefix + data)
    try:
        assert isinstance(load_official(path), dict)
    except CheckpointError as error:
        assert str(path) in str(error)
