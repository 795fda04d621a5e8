"""Pipes, signals and full disks."""

from __future__ import annotations

import io
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from rdm_cli.core.codes import Codes

Rdm = Callable[..., Any]
Spawn = Callable[..., "subprocess.Popen[bytes]"]
PATIENCE = 300  # seconds: a busy machine takes long to import torch


def test_one_image_through_pipes(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    image = (faces / "a.png").read_bytes()
    code = tiny("encode", "-", "-o", "-", stdin=image)
    assert code.code == 0 and "encoded 1 image" in code.err
    (tmp_path / "a.safetensors").write_bytes(code.raw)
    assert Codes.load(tmp_path / "a.safetensors").infos[0].image_size == 16
    picture = tiny("decode", "-", "-o", "-", stdin=code.raw)
    assert picture.code == 0
    with Image.open(io.BytesIO(picture.raw)) as opened:
        assert (opened.format, opened.size, opened.mode) == ("PNG", (16, 16), "RGB")
    # the same as by way of files
    tiny("encode", faces / "a.png", "-o", tmp_path / "codes")
    tiny("decode", tmp_path / "codes", "-o", tmp_path / "out")
    assert (tmp_path / "out" / "a.png").read_bytes() == picture.raw


def test_stdin_into_a_folder(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    result = tiny("encode", "-", "-o", tmp_path / "o", stdin=(faces / "a.png").read_bytes())
    assert result.code == 0 and result.lines == [str(tmp_path / "o" / "stdin.safetensors")]


def test_what_fails_on_stdin_is_called_stdin(tiny: Rdm, tmp_path: Path) -> None:
    for verb in ("encode", "reconstruct", "decode"):
        result = tiny(verb, "-", "-o", tmp_path, "-q", "--json", stdin=b"not an image")
        assert result.code == 1 and len(result.objects) == 1
        assert result.objects[0]["source"] == "-"
        assert result.err.startswith("rdm: -: ") and "/rdm-" not in result.err


def test_edits_and_reconstructions_to_stdout(tiny: Rdm, faces: Path) -> None:
    for command in (("reconstruct",), ("manipulate", "--attr", "hat")):
        result = tiny(*command, faces / "a.png", "-o", "-")
        assert result.code == 0 and result.raw.startswith(b"\x89PNG")
    assert sorted(p.name for p in faces.iterdir()) == ["a.png", "b.png", "c.png", "d.png", "sub"]


def test_paths_from_stdin_and_from_a_file(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    names = [faces / "a.png", faces / "sub"]
    listed = "".join(f"{name}\n" for name in names)
    result = tiny("encode", "--files-from", "-", "-o", tmp_path / "o", "--no-x-t", stdin=listed.encode())
    expected = [str(tmp_path / "o" / f"{n}.safetensors") for n in "ae"]
    assert result.code == 0 and result.lines == expected
    (tmp_path / "list").write_bytes(b"\0".join(os.fsencode(name) for name in names))
    options = ("--files-from", tmp_path / "list", "-o", tmp_path / "o", "--no-x-t")
    everything = tiny("encode", faces / "b.png", *options)
    assert sorted(everything.lines) == sorted([str(tmp_path / "o" / "b.safetensors"), *expected])


@contextmanager
def files_limited_to(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let a file grow past ``num_bytes``, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_fails_each_image_by_name(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    output = tmp_path / "o"
    with files_limited_to(2000):
        result = tiny("encode", faces / "a.png", faces / "b.png", "-o", output, "--steps", 1, "-q")
    assert result.code == 1 and result.out == ""
    first, second = result.err.splitlines()
    for line, name in ((first, "a"), (second, "b")):
        assert line == f"rdm: {faces}/{name}.png: {output}/{name}.safetensors: File too large"
    assert os.listdir(output) == []


def test_a_full_disk_at_the_end_is_one_line(tiny: Rdm, tmp_path: Path, faces: Path) -> None:
    for command in (("interpolate", faces / "a.png", faces / "b.png"), ("sample", "-n", 1)):
        with files_limited_to(100):
            result = tiny(*command, "-o", tmp_path / "o", "--steps", 1, "-q")
        assert result.code == 1
        assert len(result.err.splitlines()) == 1 and result.err.endswith("File too large\n")
        assert os.listdir(tmp_path / "o") == []


def test_a_closed_pipe_is_no_traceback(spawn: Spawn, tiny_bundle: Path, faces: Path, tmp_path: Path) -> None:
    process = spawn(
        "encode", faces, "-o", tmp_path / "o", "-b", tiny_bundle, "--batch-size", 1, "--steps", 50, "-q"
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == f"{tmp_path}/o/a.safetensors\n".encode()
    process.stdout.close()
    errors = process.stderr.read()
    assert process.wait(PATIENCE) == 0 and errors == b""


def test_interrupted(spawn: Spawn, tiny_bundle: Path, faces: Path, tmp_path: Path) -> None:
    """Ctrl-C between files: what was written is whole, nothing else is there, and the exit code is 130."""
    output = tmp_path / "o"
    failures = tmp_path / "failures"
    (faces / "0.png").touch()
    process = spawn(
        "encode", faces, "-o", output, "-b", tiny_bundle, "--batch-size", 1, "--steps", 1000,
        "--failures", failures,
    )  # fmt: skip
    limit = time.monotonic() + PATIENCE
    while not (output / "a.safetensors").exists() and time.monotonic() < limit and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert errors.splitlines()[-1].startswith(b"rdm: interrupted")
    written = [p for p in output.rglob("*") if p.is_file()]
    assert 1 <= len(written) < 5 and all(p.suffix == ".safetensors" for p in written)
    for path in written:
        assert not path.name.startswith(".")
        Codes.load(path)
    assert b"0.png" in failures.read_bytes()


def test_interrupted_within_the_process(tiny: Rdm, faces: Path, monkeypatch: Any, tmp_path: Path) -> None:
    """The same for Ctrl-C in the middle of writing a picture, which no timing hits reliably."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", interrupt)
    for command in (
        ("reconstruct", faces), ("manipulate", faces, "--attr", "hat"), ("sample", "-n", 1),
        ("interpolate", faces / "a.png", faces / "b.png"),
    ):  # fmt: skip
        result = tiny(*command, "-o", tmp_path / "o", "--steps", 1)
        assert result.code == 130
        assert result.err.splitlines()[-1].startswith("rdm: interrupted")
        assert not [p for p in (tmp_path / "o").rglob("*") if p.is_file()]
