"""Wrong uses: the documented exit code, and one line that says what is wrong and where."""

from __future__ import annotations

import os
import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.images.pixels import load_rgb

Rdm = Callable[..., Any]


@dataclass(frozen=True)
class Place:
    """Files that a wrong use may name."""

    root: Path
    bundle: Path
    bare: Path
    faces: Path
    code: Path
    foreign: Path


@pytest.fixture(scope="module")
def place(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("wrong")
    faces = root / "faces"
    (faces / "twins").mkdir(parents=True)
    from PIL import Image

    for name in ("a.png", "b.png", "twins/a.png", "twins/a.bmp"):
        Image.new("RGB", (16, 16), "red").save(faces / name)
    (root / "empty").mkdir()
    (root / "file").write_text("in the way")
    (root / "text.png").write_text("no picture")
    (root / "list").write_text("")
    bare = Path(shutil.copytree(tiny_bundle, root / "bare"))
    shutil.rmtree(bare / "prior")
    shutil.rmtree(bare / "attributes")
    broken = Path(shutil.copytree(tiny_bundle, root / "broken"))
    (broken / "unet" / "config.json").unlink()
    bundle = open_bundle(str(tiny_bundle))
    info = CodeInfo(method="diffae", bundle="tiny", bundle_digest=bundle.digest, image_size=16, steps=1)
    strange = CodeInfo(method="diffae", bundle="other", bundle_digest="0" * 64, image_size=16, steps=1)
    for name, chosen in (("code", info), ("foreign", strange)):
        codes = Codes(z=torch.zeros(1, 8), x_T=torch.zeros(1, 3, 16, 16), infos=(chosen,))
        codes.save([root / f"{name}.safetensors"])
    (root / "damaged.safetensors").write_bytes(b"damaged")
    return Place(
        root=root, bundle=tiny_bundle, bare=bare, faces=faces, code=root / "code.safetensors",
        foreign=root / "foreign.safetensors",
    )  # fmt: skip


# (command, exit code, what the line says). {root}, {faces}, {code} and so on are the places above.
WRONG = [
    # words that mean nothing
    ("encod", 2, "No such command 'encod'. Did you mean 'encode'"),
    ("encode --bogus", 2, "--bogus.*see 'rdm encode --help'"),
    ("encode {faces} --steps many", 2, "--steps"),
    ("encode {faces} --steps 0", 2, "--steps"),
    ("encode {faces}/a.png -b {bundle} --steps 1001", 2, "tiny: --steps 1001: ddim takes 1 to 1000"),
    ("sample -n 1 -b {bundle} -o {root}/o --steps 1001", 2, "tiny: --steps 1001: ddim takes 1 to 1000"),
    ("sample -n 1 -b {bundle} -o {root}/o --prior-steps 1001", 2, "--prior-steps 1001: the prior takes 1 to"),
    ("decode {code} -b {bundle} -o {root}/o --steps 1001 -q", 1, "--steps 1001: ddim takes 1 to 1000"),
    ("encode {faces} --fit cut", 2, "--fit"),
    ("encode {faces} --batch-size 0 -b {bundle}", 2, "--batch-size"),
    ("bundles nosuch", 2, "No such command 'nosuch'"),
    ("attributes show", 2, "Missing argument 'name'"),
    ("train diffae {faces}", 2, "Missing option"),
    ("data avatars {root}/o -n 0", 2, "--n"),
    ("data avatars {root}/o -n 1 --seed -1", 2, "--seed -1: avatars are drawn for seeds from 0 on"),
    ("sample -n 0", 2, "--n"),
    # inputs
    ("encode", 2, "no inputs were given"),
    ("decode --files-from {root}/list", 2, "no inputs were given"),
    ("encode {root}/nosuch.png", 2, "{root}/nosuch.png: no such file or folder"),
    ("encode --files-from {root}/nosuch", 1, "{root}/nosuch: No such file"),
    ("encode {root}/empty", 2, "{root}/empty/: no images found"),
    ("decode {faces} -b {bundle}", 2, "no codes found"),
    ("encode - {faces}/a.png", 2, "- reads one file from stdin"),
    ("encode - --files-from - -o {root}/o", 2, "- reads one file from stdin"),
    ("encode -", 2, "no place of its own"),
    ("encode {faces}/a.png {faces}/b.png -o -", 2, "-o - takes one input, and there are 2"),
    ("encode {root}/text.png -b {bundle} -q", 1, "{root}/text.png: not an image"),
    ("interpolate {faces}/a.png", 2, "at least two"),
    ("interpolate {faces}/a.png {root}/nosuch.png -b {bundle} -o {root}/o", 1, "nosuch.png: no such file"),
    ("interpolate {faces}/a.png {faces} -b {bundle} -o {root}/o", 2, "{faces}: this is a folder"),
    ("interpolate {faces} -b {bundle} -o {root}/o", 2, "this is a folder.*order.*all of them as {faces}/"),
    ("codes table {code} -o {root}/z.csv", 2, "-o {root}/z.csv: tables are Parquet.*use -o {root}/z.parquet"),
    ("codes table {code} -o {root}/z", 2, "-o {root}/z: tables are Parquet.*use -o {root}/z.parquet"),
    ("codes table {code}", 2, "needs a file to be written to; add -o z.parquet"),
    ("interpolate {faces}/a.png {foreign} -b {bundle} -o {root}/o", 1, "{foreign}: .*made with bundle other"),
    ("sample --like {root}/nosuch -b {bundle} -o {root}/o", 2, "{root}/nosuch: no such file or folder"),
    ("sample --like {root}/empty -b {bundle} -o {root}/o", 2, "no images or codes found"),
    ("train diffae {root}/empty -o {root}/new --run {root}/run --preset small32", 2, "no images found"),
    ("train prior {root}/empty -b {bundle}", 2, "no codes found"),
    ("train attributes {code} -b {bundle} --labels {root}/nosuch.csv", 2, "{root}/nosuch.csv: no such label"),
    # outputs
    ("encode {faces}/twins -b {bundle}", 2, "twins/a.bmp and .*twins/a.png would both be written to"),
    ("encode {faces}/a.png -o {root}/file -b {bundle}", 2, "{root}/file: a file stands where"),
    ("decode {code} -o {root}/file/deep -b {bundle}", 2, "{root}/file: a file stands where"),
    ("interpolate {faces}/a.png {faces}/b.png -o {root}/file -b {bundle}", 2, "{root}/file: a file stands"),
    ("sample -n 1 -o {root}/file -b {bundle}", 2, "{root}/file: a file stands where"),
    ("data avatars {root}/file -n 1 --workers 1", 1, "{root}/file: File exists"),
    ("encode {faces}/a.png -o - --json -b {bundle}", 2, "-o - .*--json"),
    ("bundles convert diffae {code} -o {faces}", 2, "{faces} exists"),
    ("bundles convert diffae {code} -o {faces} --force", 2, "{faces}: .*else than a bundle"),
    # bundles
    ("encode {faces}/a.png -b nosuch", 2, "nosuch: no such bundle"),
    ("encode {faces}/a.png -b {faces}", 2, "{faces}: model_index.json is missing"),
    ("encode {faces}/a.png -b {root}/broken", 1, "{root}/broken/unet/config.json: this part .* is missing"),
    ("decode {code} -b nosuch", 2, "nosuch: no such bundle"),
    ("reconstruct {faces}/a.png -b nosuch", 2, "nosuch: no such bundle"),
    ("interpolate {faces}/a.png {faces}/b.png -b nosuch -o {root}/o", 2, "nosuch: no such bundle"),
    ("manipulate {faces}/a.png --attr hat -b nosuch", 2, "nosuch: no such bundle"),
    ("sample -b nosuch -o {root}/o", 2, "nosuch: no such bundle"),
    ("attributes list -b nosuch", 2, "nosuch: no such bundle"),
    ("attributes show hat -b nosuch", 2, "nosuch: no such bundle"),
    ("bundles show nosuch", 2, "nosuch: no such bundle"),
    ("bundles show nosuch --card", 2, "nosuch: no such bundle"),
    ("bundles check nosuch", 2, "nosuch: no such bundle"),
    ("bundles check {root}/broken", 1, "not in order: networks"),
    ("train prior {root} -b nosuch", 2, "nosuch: no such bundle"),
    ("train attributes {root} --labels x.csv -b nosuch", 2, "nosuch: no such bundle"),
    ("train diffae {faces} -o {root}/new --run {root}/run --init-from nosuch", 2, "nosuch: no such bundle"),
    ("sample -b {bare} -o {root}/o", 1, "has no latent prior; train one: rdm train prior"),
    ("manipulate {faces}/a.png --attr hat -b {bare}", 1, "has no attributes; train some"),
    ("attributes list -b {bare}", 1, "has no attributes"),
    ("bundles convert nosuch {code} -o {root}/new", 2, "no method 'nosuch'"),
    ("bundles convert diffae {code} -o {root}/new", 1, "{code}"),
    ("bundles convert diffae {root}/nosuch -o {root}/new", 1, "{root}/nosuch: No such file"),
    # codes
    ("decode {foreign} -b {bundle} -q", 1, "{foreign}: this code was made with bundle other"),
    ("decode {foreign} -q", 1, "{foreign}: .*cannot be opened.*say where it is with --bundle"),
    ("decode {root}/damaged.safetensors -b {bundle} -q", 1, "damaged.safetensors: not a readable"),
    ("decode {faces}/a.png -b {bundle} -o {root}/o -q", 1, "a.png: not a readable .safetensors"),
    ("manipulate {foreign} --attr hat -b {bundle} -q", 1, "{foreign}: this code was made with bundle other"),
    # attributes and scales
    ("manipulate {faces}/a.png", 2, "no attribute was named; rdm attributes list"),
    ("manipulate {faces}/a.png --attr smilling -b {bundle}", 2, "did you mean 'smiling'"),
    ("manipulate {faces}/a.png --attr beard -b {bundle}", 2, "known: smiling, glasses, hat"),
    ("manipulate {faces}/a.png --attr hat --attr hat", 2, "named twice"),
    ("manipulate {faces}/a.png --attr hat --attr smiling --scale 1", 2, "2 --attr need as many --scale"),
    ("manipulate {faces}/a.png --attr hat --scale much", 2, "--scale"),
    ("manipulate {faces}/a.png --attr hat --scale nan", 2, "finite"),
    ("manipulate {faces}/a.png --attr hat --scales 1,,2", 2, "--scales 1,,2: numbers between commas"),
    ("manipulate {faces}/a.png --attr hat --scales 0,inf", 2, "--scales 0,inf"),
    ("manipulate {faces}/a.png --attr hat --scales 0,1 --scale 1", 2, "--scales goes with one --attr"),
    ("manipulate {faces}/a.png --attr hat --attr smiling --scales 0,1", 2, "--scales goes with one --attr"),
    ("attributes show smile -b {bundle}", 2, "did you mean 'smiling'"),
    ("sample --attr beard -b {bundle} -o {root}/o", 2, "no attribute named 'beard'"),
    # options that do not go together
    ("sample --like {faces} --attr hat", 2, "exclude each other"),
    ("sample --unlike {faces}", 2, "go with --like"),
    ("sample --like {faces} --unlike {faces} --unlabelled {faces}", 2, "exclude each other"),
    ("sample --attr hat -n 50 --max-draws 2 -b {bundle} -o {root}/o -q", 2, "--max-draws 2: .*50 samples"),
    ("encode {faces}/a.png -b {bundle} --precision fp16 --device cpu", 2, "fp16 needs a GPU"),
    ("decode {code} --precision fp16 --device cpu", 2, "fp16 needs a GPU"),
    ("decode {code} --device nonsense", 2, "--device nonsense"),
    ("decode {code} --device gpu", 2, "--device gpu: there is no such kind of device; cuda is a GPU of"),
    ("encode {faces}/a.png -b {bundle} --device nonsense", 2, "--device nonsense"),
    ("encode {faces}/a.png -b {bundle} --device meta", 2, "--device meta: its tensors hold no values"),
    ("decode {code} --device meta", 2, "--device meta: its tensors hold no values"),
    ("train prior {root} -b {bundle} --device meta", 2, "--device meta: its tensors hold no values"),
    ("encode {faces}/a.png -b {bundle} --threads 0", 2, "--threads"),
    ("encode {faces}/a.png -b {bundle} --threads 100000", 2, "--threads 100000: between 1 and 1024"),
    ("train prior {root} -b {bundle} --threads 100000", 2, "--threads 100000: between 1 and 1024"),
    (
        "train diffae {faces} -o {root}/new --run {root}/run --preset small32 --seed 99999999999999999999",
        2,
        "--seed 99999999999999999999: training takes seeds of 64 bits",
    ),
    ("train diffae {faces} -o {root}/new --steps 1 --images 1", 2, "exclude each other"),
    ("train diffae {faces} -o {root}/new --run {root}/run --preset small65", 2, "'small64'"),
]  # fmt: skip


@pytest.mark.parametrize(("command", "code", "told"), WRONG, ids=[w[0] for w in WRONG])
def test_wrong_use(
    rdm: Rdm, place: Place, command: str, code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {k: str(v) for k, v in vars(place).items()}
    monkeypatch.chdir(place.root)  # whatever is written in spite of all stays out of the project
    before = sorted(place.root.rglob("*"))
    result = rdm(*(word.format_map(places) for word in command.split()))
    assert result.code == code, result.err
    (line,) = result.err.splitlines()
    assert line.startswith("rdm: ")
    pattern = told.format_map({k: re.escape(v) for k, v in places.items()})
    assert re.search(pattern, line), line
    left = [p for p in sorted(place.root.rglob("*")) if p not in before and p.is_file()]
    assert not left, left


def test_codes_know_their_bundle(rdm: Rdm, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --bundle, decode opens the bundle of the recorded name."""
    monkeypatch.chdir(place.bundle.parent)
    result = rdm("decode", place.code, "-o", place.root / "decoded", "-q")
    assert result.code == 0 and (place.root / "decoded" / "code.png").is_file()


def test_decode_spares_the_original(tiny: Rdm, faces: Path) -> None:
    before = (faces / "a.png").read_bytes()
    assert tiny("encode", faces / "a.png", "--steps", 1).code == 0
    result = tiny("decode", faces / "a.safetensors", "-q")
    assert result.code == 1 and len(result.err.splitlines()) == 1
    assert "write elsewhere with -o" in result.err
    assert (faces / "a.png").read_bytes() == before


def test_what_goes_with_a_result_replaces_no_input(tiny: Rdm, faces: Path) -> None:
    shutil.copy(faces / "a.png", faces / "a-reconstruction-side-by-side.png")
    result = tiny("reconstruct", faces / "a.png", faces / "a-reconstruction-side-by-side.png", "--steps", 1)
    assert result.code == 3 and "a.png: what goes with the result of" in result.err
    assert "would replace the input" in result.err
    assert tiny("encode", faces / "a.png", "--steps", 1).code == 0
    os.rename(faces / "a.safetensors", faces / "a-hat+0.3.safetensors")
    before = (faces / "a-hat+0.3.safetensors").read_bytes()
    command = ("manipulate", faces / "a.png", faces / "a-hat+0.3.safetensors", "--attr", "hat", "--steps", 1)
    result = tiny(*command)
    assert result.code == 3 and "would replace the input" in result.err
    assert (faces / "a-hat+0.3.safetensors").read_bytes() == before


def test_results_beside_their_images_are_not_worked_on_again(tiny: Rdm, tmp_path: Path, faces: Path) -> None:
    folder = tmp_path / "again"
    folder.mkdir()
    shutil.copy(faces / "a.png", folder)
    for command in (("reconstruct", "--steps", 1), ("manipulate", "--attr", "hat", "--steps", 1)):
        first = tiny(command[0], folder, *command[1:], "-q")
        names = sorted(path.name for path in folder.iterdir())
        again = tiny(command[0], folder, *command[1:], "-q")
        assert (first.code, again.code) == (0, 0)
        assert again.out == first.out
        assert sorted(path.name for path in folder.iterdir()) == names
        for path in folder.iterdir():
            if path.name != "a.png":
                path.unlink()


def test_no_arguments_print_the_help_as_help_does(rdm: Rdm) -> None:
    """It was squeezed into one line on stderr."""
    for command in ((), ("train",), ("bundles",), ("codes",), ("attributes",), ("evaluate",), ("data",)):
        result = rdm(*command)
        assert (result.code, result.err) == (0, "") and len(result.lines) > 5
        assert result.out == rdm(*command, "--help").out


def test_failures_that_cannot_be_written(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = tiny(
        "encode",
        faces / "a.png",
        "-o",
        tmp_path / "o",
        "--no-x-t",
        "-q",
        "--failures",
        tmp_path / "file" / "x",
    )
    assert result.code == 1 and len(result.err.splitlines()) == 1


def test_too_little_memory_fails_by_name_and_the_rest_is_done(
    tiny: Rdm, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was a traceback of torch, and no other image was worked on."""
    from rdm_cli.pipeline import coding

    real, calls = coding.Coder.eps_fn, [0]

    def now_and_then(self: Any, *given: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nmore")
        return real(self, *given, **more)

    monkeypatch.setattr(coding.Coder, "eps_fn", now_and_then)
    words = (
        "encode",
        faces / "a.png",
        faces / "b.png",
        "-o",
        tmp_path / "o",
        "--steps",
        1,
        "--batch-size",
        1,
    )
    result = tiny(*words, "-q")
    assert result.code == 3
    told = "1 image at once on cpu: the memory does not suffice; another --device may have more"
    assert result.err == f"rdm: {faces}/a.png: {told}\n"
    assert (tmp_path / "o" / "b.safetensors").is_file()


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_too_little_memory_anywhere_is_one_line(
    tiny: Rdm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from rdm_cli.jobs import pictures

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(pictures, "write_samples", full)
    result = tiny("sample", "-n", 1, "-o", tmp_path / "o", "--steps", 1, "-q")
    assert (result.code, result.err) == (
        1, "rdm: the memory does not suffice; a smaller --batch-size needs less\n"
    )  # fmt: skip


def test_pillow_s_remarks_on_odd_metadata_are_kept_to_itself(
    spawn: Callable[..., Any], tiny_bundle: Path, tmp_path: Path
) -> None:
    tags = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 8, 279: 64, 296: 2}
    num = dict.fromkeys(tags, 1) | {296: 2}  # one resolution unit too many, of which Pillow warns
    entries = b"".join(struct.pack("<HHII", t, 3 if t == 296 else 4, num[t], v) for t, v in tags.items())
    path = tmp_path / "a.tif"
    path.write_bytes(
        b"II*\0" + struct.pack("<I", 72) + bytes(64) + struct.pack("<H", 10) + entries + bytes(4)
    )
    with pytest.warns(UserWarning, match="Metadata Warning"):
        load_rgb(path)
    words = ("encode", path, "-b", tiny_bundle, "-o", tmp_path / "o", "--no-x-t", "-q")
    process = spawn(*words, env={"PYTHONWARNINGS": "always"})
    _, err = process.communicate(timeout=120)
    assert (process.returncode, [line for line in err.splitlines() if b"PIL" in line]) == (0, [])
