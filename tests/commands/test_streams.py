"""Pipes, signals and full disks."""

from __future__ import annotations

import io
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rdm_cli.codes.code import Codes
from rdm_cli.training.checkpoint import load_checkpoint

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
    with Image.open(io.BytesIO(picture.raw)) as piped, Image.open(tmp_path / "out" / "a.png") as written:
        assert piped.tobytes() == written.tobytes()  # their records differ: one has a source that has a name


def test_stdin_into_a_folder(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    result = tiny("encode", "-", "-o", tmp_path / "o", stdin=(faces / "a.png").read_bytes())
    assert result.code == 0 and result.lines == [str(tmp_path / "o" / "stdin.safetensors")]


def test_what_fails_on_stdin_is_called_stdin(tiny: Rdm, tmp_path: Path) -> None:
    for verb in ("encode", "reconstruct", "decode"):
        result = tiny(verb, "-", "-o", tmp_path, "-q", "--json", stdin=b"not an image")
        assert result.code == 1 and len(result.objects) == 1
        assert result.objects[0]["input"] == "-"
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


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_closed_pipe_is_141_and_the_summary_is_right(
    rdms: Any, tiny_bundle: Path, faces: Path, tmp_path: Path, batch_size: int
) -> None:
    """``rdm encode ... | head -1``: as many codes lie there as are said to, whatever a batch holds."""
    for i in range(20):
        shutil.copy(faces / "a.png", faces / f"more-{i:02d}.png")
    os.mkfifo(tmp_path / "pipe")
    words = ("encode", faces, "-o", tmp_path / "o", "-b", tiny_bundle, "--batch-size", batch_size)
    pid = rdms.start(*words, "--steps", 20, stdout=tmp_path / "pipe")
    with (tmp_path / "pipe").open("rb") as pipe:
        assert pipe.readline() == f"{tmp_path}/o/a.safetensors\n".encode()
    assert rdms.wait(pid, PATIENCE) == 141
    said = rdms.said
    num = len(list((tmp_path / "o").rglob("*.safetensors")))
    assert 2 <= num < 25
    assert said.startswith(f"encoded {num} images in ") and len(said.splitlines()) == 1
    assert said.endswith(f", stopped early: {25 - num} not done\n")


def test_a_closed_pipe_of_a_listing_is_141(spawn: Spawn) -> None:
    """Whatever prints: a table, help, the version."""
    for words in (("bundles", "list"), ("--help",), ("--version",), ("bundles",)):
        reader, writer = os.pipe()
        os.close(reader)
        process = spawn(*words, stdout=writer)
        os.close(writer)
        assert process.communicate(timeout=PATIENCE)[1] == b"" and process.returncode == 141, words


def test_a_training_whose_reader_is_gone_saves_its_state(
    rdms: Any, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    pid = rdms.start(
        "train", "diffae", faces, "-o", tmp_path / "bundle", "--run", tmp_path / "run", "--init-from",
        tiny_bundle, "--batch-size", 2, "--steps", 20, "--sheet-minutes", 0, "--device", "cpu", "--json",
        stdout=tmp_path / "pipe",
    )  # fmt: skip
    with (tmp_path / "pipe").open("rb") as pipe:
        assert b'"step": 1,' in pipe.readline()
    assert rdms.wait(pid, PATIENCE) == 141
    said = rdms.said
    assert "Traceback" not in said
    (line,) = [line for line in said.splitlines() if line.startswith("rdm: saved at step ")]
    assert "go on with: " in line and load_checkpoint(tmp_path / "run").progress.step == 20


@pytest.mark.long
def test_a_full_stdout_is_named_and_the_count_is_true(
    spawn: Spawn, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    encode = ("encode", faces, "-o", tmp_path / "o", "-b", tiny_bundle, "--steps", 1)
    for words in ((*encode, "--json"), ("bundles", "list"), ("--help",), ("--version",)):
        with open("/dev/full", "wb") as full:
            process = spawn(*words, stdout=full)
        *summary, line = process.communicate(timeout=PATIENCE)[1].decode().splitlines()
        assert process.returncode == 1 and line == "rdm: stdout: No space left on device"
        if words[0] == "encode":
            num = len(list((tmp_path / "o").rglob("*.safetensors")))
            assert num == 1 and summary[0].startswith("encoded 1 image in ")
            assert summary[0].endswith("stopped early: 4 not done")


def test_a_closed_stdout_is_told_before_any_work(
    spawn: Spawn, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    process = spawn(
        "encode", faces, "-o", tmp_path / "o", "-b", tiny_bundle, "--steps", 1, preexec_fn=lambda: os.close(1)
    )
    errors = process.communicate(timeout=PATIENCE)[1].decode()
    assert process.returncode == 1 and not (tmp_path / "o").exists()
    assert errors == "rdm: stdout is closed, and results are told there; to do without: >/dev/null\n"


@pytest.mark.long
def test_without_stderr_the_work_is_done_and_stdout_holds_data_alone(
    spawn: Spawn, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    """``2>&-`` and a stderr on a full disk: the exit code and stdout say how it went."""
    (faces / "bad.png").write_text("no picture")
    words = ("encode", faces, "-b", tiny_bundle, "--steps", 1, "-o")
    expected = sorted(str(tmp_path / "o" / f"{n}.safetensors") for n in ("a", "b", "c", "d", "sub/e"))
    with open("/dev/full", "wb") as full:
        for options in ({"preexec_fn": lambda: os.close(2)}, {"stderr": full}):
            shutil.rmtree(tmp_path / "o", ignore_errors=True)
            process = spawn(*words, tmp_path / "o", **options)
            out = process.communicate(timeout=PATIENCE)[0].decode()
            assert process.returncode == 3 and sorted(out.splitlines()) == expected
    # without any stream, no file may take the number of one
    process = spawn(*words, tmp_path / "p", preexec_fn=lambda: [os.close(i) for i in (0, 2)])
    assert len(process.communicate(timeout=PATIENCE)[0].splitlines()) == 5 and process.returncode == 3
    for path in (tmp_path / "p").rglob("*.safetensors"):
        Codes.load(path)


def test_interrupted(rdms: Any, tiny_bundle: Path, faces: Path, tmp_path: Path) -> None:
    """Ctrl-C between files: what was written is whole, nothing else is there, and the exit code is 130."""
    output = tmp_path / "o"
    failures = tmp_path / "failures"
    (faces / "0.png").touch()
    pid = rdms.start(
        "encode", faces, "-o", output, "-b", tiny_bundle, "--batch-size", 1, "--steps", 150,
        "--failures", failures,
    )  # fmt: skip
    limit = time.monotonic() + PATIENCE
    while not (output / "a.safetensors").exists() and time.monotonic() < limit:
        time.sleep(0.02)
    os.kill(pid, signal.SIGINT)
    assert rdms.wait(pid, PATIENCE) == 130
    assert "Traceback" not in rdms.said
    assert rdms.said.splitlines()[-1].startswith("rdm: interrupted")
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
