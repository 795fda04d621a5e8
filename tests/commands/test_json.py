"""With --json, every line of stdout is a JSON object, whatever goes wrong.

The commands come from rdm's own tree: one that is new and not in the table fails the first test.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from rdm_cli.cli import app

Rdm = Callable[..., Any]


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """(words, command) of every command that does something."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield " ".join(path), command
        return
    for name, child in inner.items():
        yield from leaves(child, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))

# Of each command: uses, with their exit code. {work} is a folder of the test's own.
USES: dict[str, list[tuple[str, int]]] = {
    "encode": [("{faces} -o {work}/o --verify --steps 1", 0), ("{mixed} -o {work}/m --no-x-t", 3),
               ("{mixed} -o {work}/z.parquet --no-x-t", 3), ("{mixed}/bad.png -b {bundle}", 1),
               ("{work}/nosuch", 2)],
    "decode": [("{codes} -o {work}/o --steps 1", 0), ("{codes} {mixed}/bad.png -o {work}/m --steps 1", 3),
               ("{mixed}/bad.png -o {work}/m", 1)],
    "reconstruct": [("{faces} -o {work}/o --steps 1", 0), ("{mixed} -o {work}/m --steps 1", 3)],
    "interpolate": [("{faces}/a.png {faces}/b.png -o {work}/o --steps 1 --frames 3", 0),
                    ("{faces}/a.png {mixed}/bad.png -o {work}/m --steps 1", 1)],
    "manipulate": [("{faces}/a.png --attr hat -o {work}/o --steps 1", 0),
                   ("{mixed} --attr hat --scales 0,1 -o {work}/m --steps 1", 3), ("{faces} --attr beard", 2)],
    "audit": [("{faces} --command {score} --attr hat --directions 0 --faces 2 -o {work}/o", 0),
              ("{faces} --command {score} --target beard -o {work}/p", 2),
              ("{faces} --command {work}/nosuch -o {work}/q", 2)],
    "augment": [("{many} --labels {many}/metadata.csv --label hat --balance smiling -o {work}/o", 0),
                ("{many} --labels {many}/metadata.csv --label hat --balance hat -o {work}/p", 2)],
    "explain": [("{model} {mixed} -o {work}/m --mean 0 --std 1 --target 0.5", 3), ("{faces}", 2)],
    "sample": [("-n 2 -o {work}/o --steps 1", 0), ("-n 2 --attr hat -o {work}/a --steps 1", 0),
               ("-n 9 --attr hat --max-draws 9 -o {work}/h", 3)],
    "train all": [("{many} -o {work}/new --run {work}/run --preset small32 --steps 1 --batch-size 2 "
                   "--sheet-minutes 0 --prior-samples 8", 0),
                  ("{many} --labels {work}/nosuch.csv -o {work}/new", 2)],
    "train diffae": [("{faces} -o {work}/new --run {work}/run --init-from {bundle} --steps 2 --batch-size 2 "
                      "--sheet-minutes 0", 0),
                     ("{faces} -o {work}/other --run {work}/run2 --device cpu --mixed-precision fp16", 2)],
    "train dpm": [("{faces} -o {work}/new --run {work}/run --init-from {plain} --steps 1 --batch-size 2 "
                   "--sheet-minutes 0", 0), ("{faces} -o {work}/new --preset nosuch", 2)],
    "train pdae": [("{faces} -o {work}/new --run {work}/run --dpm {plain} --steps 1 --batch-size 2 "
                    "--sheet-minutes 0", 0), ("{faces} -o {work}/new --dpm {bundle}", 2)],
    "train lrdm": [("{faces} -o {work}/new --run {work}/run --preset small32 --first-stage {stage} --steps 1 "
                    "--batch-size 2 --sheet-minutes 0", 0), ("{faces} -o {work}/new", 2)],
    "train first-stage": [("{faces} -o {work}/new --run {work}/run --preset small32 --steps 1 --batch-size 2 "
                           "--sheet-minutes 0", 0), ("{faces} -o {work}/new --preset nosuch", 2)],
    "evaluate reconstruction": [("{plain} {faces} -n 2 --steps 1 -o {work}/o", 0), ("{faces}", 2),
                                ("{plain} {mixed} --steps 1", 1)],
    "evaluate generation": [("{plain} {many} -n 12 --steps 1 -o {work}/o", 0),
                            ("{plain} {many} --steps 0", 2)],
    "evaluate attributes": [("{bundle} {many} --attr hat -o {work}/o", 0), ("{bundle} {faces}", 2)],
    "evaluate disentanglement": [("{bundle} {many}", 0), ("{bundle} {faces}", 2)],
    "evaluate interpolation": [("{bundle} {faces} -n 2 --steps 1", 0), ("{bundle} {work}/nosuch", 2)],
    "evaluate edit": [("{bundle} {many} --attr hat --scales 0.3 --steps 1", 0), ("{bundle} {faces}", 2)],
    "evaluate gap": [("{plain} {faces} -n 2 --every 500 --at 500 -o {work}/o", 0), ("{faces}", 2),
                     ("{plain} {mixed}", 1)],
    "train prior": [("{codes} --samples 64 --batch-size 8 --layers 2 --hidden-width 8", 0), ("{faces}", 2)],
    "train attributes": [("{codes} --labels {labels}", 0), ("{codes} --labels {work}/nosuch.csv", 2)],
    "attributes list": [("", 0), ("-b nosuch", 2)],
    "attributes show": [("hat", 0), ("beard", 2)],
    "attributes learn": [("cap --with {faces} --without {many} -o {work}/cap.safetensors", 0),
                         ("cap --with {work}/nosuch --without {faces} -o {work}/n.safetensors", 2)],
    "attributes add": [("{codes} tall --labels {labels} -o {work}/tall.safetensors", 0),
                       ("{codes} --labels {work}/nosuch.csv -o {work}/n.safetensors", 2)],
    "attributes rename": [("hat cap -o {work}/new", 0), ("beard cap -o {work}/other", 2)],
    "attributes remove": [("hat -o {work}/new", 0), ("beard -o {work}/other", 2)],
    "attributes export": [("hat -o {work}/hat.safetensors", 0), ("beard -o {work}/n.safetensors", 2)],
    "attributes import": [("{mixed}/bad.png -o {work}/new", 1), ("{work}/nosuch -o {work}/new", 2)],
    "attributes discover": [("{codes} --n 1 -o {work}/found", 0), ("{faces} -o {work}/n", 2)],
    "bundles list": [("", 0)],
    "show": [("{faces} {codes} {bundle} {faces}/a.png", 0), ("{faces}/a.png {mixed}/bad.png", 3),
             ("{mixed}", 3), ("{work}/nosuch", 1)],
    "demo": [("-b {bundle} -o {work}/o", 0), ("-b nosuch -o {work}/p", 2)],
    "app": [("{work}/nosuch --no-browser", 2), ("{faces} -b {plain} --no-browser", 2)],
    "doctor": [("", 0), ("-b {bundle}", 0), ("-b nosuch", 1)],
    "bundles show": [("{bundle}", 0), ("{bundle} --card", 0), ("nosuch", 2)],
    "bundles check": [("{bundle}", 0), ("{broken}", 1), ("nosuch", 2)],
    "bundles copy": [("{bundle} {work}/copy", 0), ("{bundle} {faces}", 2), ("nosuch {work}/new", 2)],
    "bundles push": [("{bundle} faces", 2), ("{bundle} hf:me/faces@v2", 2), ("nosuch hf:me/faces", 2)],
    "bundles pull": [("me/faces", 2)],
    "bundles convert": [("diffae {mixed}/bad.png -o {work}/new", 1), ("nosuch x -o {work}/new", 2)],
    "codes table": [("{codes} -o {work}/z.parquet", 0), ("{codes} {mixed}/bad.png -o {work}/y.parquet", 3),
                    ("{codes} -o {work}/z.csv", 2), ("{mixed}/bad.png -o {work}/x.parquet", 1)],
    "codes search": [("{codes} {codes}/000003.safetensors -b {bundle}", 0), ("{codes} hat -b {bundle}", 0),
                     ("{codes} beard -b {bundle}", 2), ("{work}/nosuch hat", 2)],
    "codes index": [("{codes} -o {work}/z.index", 0), ("{faces} -o {work}/n.index", 2)],
    "codes map": [("{codes} -o {work}/map.html -b {bundle}", 0), ("{faces} -o {work}/n.html", 2)],
    "codes odd": [("{codes} -b {bundle}", 0), ("{faces}", 2)],
    "codes twins": [("{codes} --at 0.5 -b {bundle}", 0), ("{faces}", 2)],
    "codes verify": [("{codes}", 0), ("{codes} {mixed}/bad.png", 3)],
    "codes status": [("{jobs}", 0), ("{codes}", 2), ("{jobs}/half.jsonl", 3)],
    "codes merge": [("{jobs}/done.manifest.jsonl {jobs}/half.jsonl -o {work}/m.jsonl", 0),
                    ("{jobs} -o {work}/m.parquet", 2)],
    "data avatars": [("{work}/o -n 2 --size 16 --workers 1", 0), ("{mixed}/bad.png -n 1 --workers 1", 1)],
}  # fmt: skip
PAGE = (Path(__file__).parents[2] / "docs" / "formats.md").read_text("utf-8")
DOCUMENTED = {  # the first cells of the page's table
    field
    for line in PAGE.partition("## JSON lines")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| `")
    for field in re.findall(r"`([^`]+)`", line.split(" | ")[0])
}
ENDINGS = ("_parameters", "_low", "_high")  # of fields that the table names as a kind
NAMES_ITS_BUNDLE = {"encode", "explain", "decode", "reconstruct", "interpolate", "manipulate", "sample",
                    "train prior", "train attributes", "attributes list", "attributes show",
                    "attributes learn", "attributes add", "attributes rename", "attributes remove",
                    "attributes export", "attributes import", "attributes discover", "audit",
                    "augment"}  # fmt: skip


@pytest.fixture(scope="module")
def places(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory, onnx_classifier: Callable[..., Path]
) -> dict[str, Path]:
    import torch
    from diffusers import AutoencoderKL
    from PIL import Image

    from rdm_cli.bundles.bundle import open_bundle
    from rdm_cli.bundles.writing import save_bundle
    from rdm_cli.methods.dpm.method import METHOD
    from rdm_cli.methods.dpm.model import DPM, DPMConfig
    from rdm_cli.models.unet import UNetConfig
    from rdm_cli.pipeline.pipeline import Pipeline

    root = tmp_path_factory.mktemp("json")
    faces, mixed = root / "faces", root / "mixed"
    for folder, names in ((faces, "abcd"), (mixed, "ab")):
        folder.mkdir()
        for i, name in enumerate(names):
            Image.new("RGB", (16, 16), (60 * i, 90, 200 - 40 * i)).save(folder / f"{name}.png")
    (mixed / "bad.png").write_text("no picture")
    # what train writes to is a copy
    bundle = Path(shutil.copytree(tiny_bundle, root / "bundle"))
    broken = Path(shutil.copytree(tiny_bundle, root / "broken"))
    (broken / "prior" / "config.json").unlink()
    unet = UNetConfig(
        image_size=32, model_channels=32, channel_mult=(1,), num_res_blocks=1, attention_resolutions=(),
        time_width=32, z_width=None, patch_size=4,
    )  # fmt: skip
    save_bundle(root / "plain", METHOD, DPM(DPMConfig(unet=unet)), card="# plain\n")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    stage = AutoencoderKL(**blocks, block_out_channels=(8, 8, 8), norm_num_groups=4)
    stage.save_pretrained(root / "stage")
    pipeline = Pipeline(bundle=open_bundle(str(bundle)))
    codes = pipeline.sample(160, seed=0)
    z = torch.randn(160, 8, generator=torch.Generator().manual_seed(0))
    z[:, 0] += 6 * (torch.arange(160) % 2)  # two kinds of codes, for what looks for such
    codes.replace(z=z).save([root / "codes" / f"{i:06d}.safetensors" for i in range(160)])
    with (root / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "hat", "never", "tall"])
        rows.writerows([f"{i:06d}.png", i % 2, 0, i // 2 % 2] for i in range(160))
    many = root / "many"
    many.mkdir()
    with (many / "metadata.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "hat", "glasses"])
        for i in range(48):
            Image.new("RGB", (16, 16), (5 * i, 200 * (i % 2), 200 * (i // 2 % 2))).save(many / f"{i:02d}.png")
            rows.writerow([f"{i:02d}.png", i % 2, i // 2 % 2])
    score = root / "score"
    score.write_text("#!/bin/sh\nwhile read -r picture; do echo 0.5; done\n")
    score.chmod(0o755)
    jobs = root / "jobs"
    jobs.mkdir()
    record = {"input": "a.png", "output": "a.safetensors", "digest": "0" * 64, "seconds": 0.1, "error": None}
    for name, num_items in (("done.manifest.jsonl", 1), ("half.jsonl", 2)):
        part = {"verb": "encode", "shard": "1/1", "items": num_items}
        (jobs / name).write_text(f"{json.dumps(part)}\n{json.dumps(record)}\n")
    return {
        "jobs": jobs, "many": many, "faces": faces, "mixed": mixed, "bundle": bundle, "broken": broken,
        "codes": root / "codes", "labels": root / "labels.csv", "plain": root / "plain",
        "stage": root / "stage", "score": score, "model": onnx_classifier(root / "model.onnx"),
    }  # fmt: skip


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_every_command_is_covered_and_has_json() -> None:
    assert set(USES) == set(COMMANDS)
    for name, command in COMMANDS.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert "--json" in options, name


@pytest.mark.usefixtures("fresh_accelerate", "one_round", "short_sheets", "short_judge")
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_stdout_parses_line_by_line(rdm: Rdm, places: dict[str, Path], tmp_path: Path, name: str) -> None:
    uses = [(use, code) for use, code in USES[name]] + [("--no-such-option", 2)]
    known = {key: str(path) for key, path in places.items()} | {"work": str(tmp_path)}
    for use, code in uses:
        words = use.format_map(known).split()
        if name in NAMES_ITS_BUNDLE and "-b" not in words and "--no-such-option" not in words:
            words += ["-b", known["bundle"]]
        result = rdm(*name.split(), *words, "--json")
        assert result.code == code, (use, result.err)
        objects = [json.loads(line, parse_constant=refuse) for line in result.out.splitlines()]
        assert all(isinstance(o, dict) for o in objects)
        for field in {field for o in objects for field in o}:
            known_as = next((f"*{e}" for e in ENDINGS if field.endswith(e)), field)
            assert known_as in DOCUMENTED, f"{field}: not in docs/formats.md, under JSON lines"
        if code == 0 and name not in {"bundles list", "codes odd"}:  # nothing may be shipped yet, or odd
            assert objects and not any("error" in o for o in objects)
        if code in (1, 2, 3) and (code == 2 or name not in {"bundles check", "codes status", "doctor"}):
            told = [o for o in objects if o.get("error")]
            assert told, use
            # stderr says the same, in words
            for o in told:
                assert " ".join(re.split(r"\s+", o["error"])) in result.err, use


def test_numbers_that_json_lacks_are_null(capsys: pytest.CaptureFixture[str]) -> None:
    from rdm_cli.console import Console

    Console(as_json=True).emit("", a=float("nan"), b=[float("inf"), 1.5], c={"d": -float("inf")}, e="ä\n")
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": None}, "e": "ä\n"}


def test_a_field_is_called_the_same_everywhere(rdm: Rdm, places: dict[str, Path], tmp_path: Path) -> None:
    """An input is ``input`` on stdout, in manifests, failures and status; a method is called by its name."""
    manifest, failed = tmp_path / "m.manifest.jsonl", tmp_path / "failed.jsonl"
    words = ("encode", places["mixed"], "-o", tmp_path / "o", "--no-x-t", "-b", places["bundle"], "--json")
    told = rdm(*words, "--manifest", manifest, "--failures", failed).objects
    written = [json.loads(line) for line in manifest.read_text().splitlines()[1:]]
    assert {o["input"] for o in told} == {o["input"] for o in written}
    (bad,) = [o for o in told if "error" in o]
    assert [json.loads(line) for line in failed.read_text().splitlines()] == [bad]
    assert rdm("codes", "status", manifest, "--failed", "--json").objects == [bad]
    assert not any("source" in o for o in told)
    (shown,) = rdm("bundles", "show", places["bundle"], "--json").objects
    assert shown["method"] == "diffae" and {"unet", "encoder", "prior"} <= set(shown["parts"])
    for listed in rdm("bundles", "list", "--json").objects:
        assert listed["method"] in ("diffae", "pdae", "lrdm") and isinstance(listed["parts"], list)
