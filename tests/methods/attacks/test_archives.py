"""Archives, texts and folders that try the same as hostile pickles: to run, to write, to fill the memory."""

from __future__ import annotations

import io
import pickle
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

METHODS = ("diffae", "pdae", "lrdm", "dpm")

Attack = Callable[[Path, str], None]
ATTACKS: dict[str, Attack] = {}


def attack(function: Attack) -> Attack:
    ATTACKS[function.__name__.replace("_", " ")] = function
    return function


def calling(module: str, name: str, argument: str) -> bytes:
    """A pickle that calls a function."""
    return b"\x80\x02" + f"c{module}\n{name}\n(V{argument}\ntR.".encode()


def program(canary: str) -> bytes:
    return calling("builtins", "eval", f"open({canary!r}, 'w')")


def shell(canary: str) -> bytes:
    return calling("os", "system", f"touch {canary}")


def as_zip(data: bytes, *others: tuple[str | zipfile.ZipInfo, bytes], how: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        for name, content in others:
            archive.writestr(name, content)
    return file.getvalue()


EMPTY = pickle.dumps({"state_dict": {}}, 2)


def link(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@attack
def zip_with_an_absolute_name(path: Path, canary: str) -> None:
    path.write_bytes(as_zip(EMPTY, (canary, b"x")))


@attack
def zip_that_climbs(path: Path, canary: str) -> None:
    path.write_bytes(as_zip(EMPTY, (f"archive/../../../../../../../..{canary}", b"x")))


@attack
def zip_with_a_link(path: Path, canary: str) -> None:
    path.write_bytes(as_zip(EMPTY, (link("archive/data/1"), canary.encode())))


@attack
def zip_with_two_pickles(path: Path, canary: str) -> None:
    evil = shell(canary)
    with pytest.warns(UserWarning, match="Duplicate"):
        path.write_bytes(as_zip(EMPTY, ("archive/data.pkl", evil)))


@attack
def zip_bomb(path: Path, canary: str) -> None:
    path.write_bytes(as_zip(EMPTY, ("archive/data/1", bytes(300_000_000)), how=zipfile.ZIP_DEFLATED))


@attack
def program_of_torch(path: Path, canary: str) -> None:
    path.write_bytes(as_zip(EMPTY, ("archive/constants.pkl", program(canary))))


@attack
def program_of_torch_in_disguise(path: Path, canary: str) -> None:
    path.write_bytes(as_zip(EMPTY, ("archive/Constants.PKL\0.txt", program(canary))))


def tar_members(canary: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    members = []
    for name, content in (
        ("sys_info", pickle.dumps({"little_endian": True})), ("pickle", shell(canary)),
        ("storages", pickle.dumps(0)), ("tensors", pickle.dumps(0)), (canary, b"x"),
        (f"../../..{canary}", b"x"),
    ):  # fmt: skip
        info = tarfile.TarInfo(name)
        info.size = len(content)
        members.append((info, content))
    symbolic = tarfile.TarInfo("storages/link")
    symbolic.type, symbolic.linkname = tarfile.SYMTYPE, str(Path(canary).parent)
    return [*members, (symbolic, b"")]


@attack
def tar_of_2017(path: Path, canary: str) -> None:
    with tarfile.open(path, "w") as archive:
        for info, content in tar_members(canary):
            archive.addfile(info, io.BytesIO(content))


@attack
def tar_that_begins_as_a_stream(path: Path, canary: str) -> None:
    """The number of torch's older format is the name of the first member: the file is both."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin1") as archive:
        number = pickle.dumps(torch.serialization.MAGIC_NUMBER, 2).decode("latin1")
        archive.addfile(tarfile.TarInfo(number))
        for info, content in tar_members(canary):
            archive.addfile(info, io.BytesIO(content))


@attack
def yaml_that_calls(path: Path, canary: str) -> None:
    path.write_text(f"model: !!python/object/apply:os.system ['touch {canary}']\n")


@attack
def yaml_that_imports(path: Path, canary: str) -> None:
    path.write_text("model: !!python/module:antigravity\n")


@attack
def yaml_nested_too_deeply(path: Path, canary: str) -> None:
    path.write_text("[" * 100_000)


@attack
def yaml_that_multiplies(path: Path, canary: str) -> None:
    lines = ["a: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"b{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    path.write_text("\n".join(lines))


@attack
def yaml_of_a_day_that_never_was(path: Path, canary: str) -> None:
    path.write_text("day: 2001-99-99\n")


@attack
def text_of_many_megabytes(path: Path, canary: str) -> None:
    path.write_text("a: b\n" * 500_000)


@attack
def pipeline_with_pickled_weights(path: Path, canary: str) -> None:
    path.mkdir()
    (path / "config.json").write_text('{"_class_name": "UNet2DModel", "sample_size": 8}')
    scheduler = '{"_class_name": "DDPMScheduler", "beta_schedule": "linear"}'
    (path / "scheduler_config.json").write_text(scheduler)
    evil = as_zip(shell(canary))
    (path / "diffusion_pytorch_model.bin").write_bytes(evil)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_gets_nowhere(name: str, tmp_path: Path, gets_nowhere: Callable[..., None]) -> None:
    ATTACKS[name](tmp_path / "evil.ckpt", str(tmp_path / "canary"))
    gets_nowhere(tmp_path / "evil.ckpt", METHODS)
