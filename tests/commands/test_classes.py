"""A class-conditional LRDM: trained on sub-folders, each image of the class that its folder is named for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import Codes, read_info

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("fresh_accelerate", "short_sheets")
SMALL = ("--batch-size", 4, "--threads", 1, "--warmup", 0, "--decay", 0)


@pytest.fixture
def divided(faces: Path, tmp_path: Path) -> Path:
    """Five faces in two classes."""
    folder = tmp_path / "divided"
    for name, kind in (("a", "cat"), ("b", "cat"), ("c", "dog"), ("d", "dog"), ("sub/e", "dog")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (faces / f"{name}.png").rename(folder / kind / f"{Path(name).name}.png")
    return folder


@pytest.fixture
def train(rdm: Rdm, divided: Path, tmp_path: Path) -> Rdm:
    """``train("mine", "--steps", 2)`` trains an LRDM on a fresh first stage."""
    places = ("-o", tmp_path / "stage", "--run", tmp_path / "stage-run", "--sheet-minutes", 0, "--steps", 2)
    assert rdm("train", "first-stage", divided, "--preset", "small32", *places, *SMALL).code == 0

    def run(name: str, *words: object) -> Any:
        places = ("-o", tmp_path / name, "--run", tmp_path / f"{name}-run", "--preset", "small32")
        return rdm("train", "lrdm", divided, *places, "--first-stage", tmp_path / "stage", *SMALL, *words)

    return run


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


def test_from_folders_to_samples(
    train: Rdm, rdm: Rdm, divided: Path, tmp_path: Path, pixels_of: Callable[[Path], bytes]
) -> None:
    trained = train("mine", "--classes", "--steps", 8, "--lr", 0.003, "--ema", 0.5)
    assert trained.code == 0 and "loss with own -> swapped z" in trained.err
    mine, made = tmp_path / "mine", tmp_path / "made"
    model = cast(Any, open_bundle(str(mine)).model)
    assert [known.names for known in model.conditions] == [("cat", "dog")]
    assert rdm("bundles", "check", mine).code == 0
    assert "cat" in rdm("bundles", "show", mine).out

    some, codes = ("-b", mine, "--steps", 4), tmp_path / "codes"
    assert rdm("encode", divided, "-o", codes, *some).code == 0
    assert read_info(codes / "cat" / "a.safetensors").class_name == "cat"
    assert read_info(codes / "dog" / "e.safetensors").class_name == "dog"
    assert "5 already done" in rdm("encode", divided, "-o", codes, *some).err
    assert "encoded 2" in rdm("encode", divided, "-o", codes, *some, "--class", "dog").err  # the two cats
    assert rdm("encode", divided / "cat", "-o", codes / "cat", *some, "--force").code == 0

    assert rdm("decode", codes, "-o", made / "own", "-b", mine).code == 0
    assert rdm("decode", codes, "-o", made / "dogs", "-b", mine, "--class", "dog").code == 0
    own, dogs = ([pixels_of(made / d / n) for n in ("cat/a.png", "dog/c.png")] for d in ("own", "dogs"))
    assert own[0] != dogs[0] and own[1] == dogs[1]
    assert rdm("reconstruct", divided, "-o", made / "r", *some).code == 0
    ends = (codes / "cat" / "a.safetensors", divided / "dog" / "c.png")
    for way in ("lerp", "trajectory"):
        words = (*ends, "-o", made / way, "--frames", 3, "--path", way, *some)
        refused = rdm("interpolate", *words)
        assert refused.code == 1 and "one code is of the class cat, the other of dog" in refused.err
        assert rdm("interpolate", *words, "--class", "cat").code == 0

    assert rdm("sample", "-n", 8, "-o", made / "s", *some).code == 0
    drawn = [read_info(path).class_name for path in sorted((made / "s").glob("*.safetensors"))]
    assert set(drawn) == {"cat", "dog"}
    assert rdm("sample", "-n", 3, "-o", made / "fewer", *some).code == 0
    few = [read_info(path).class_name for path in sorted((made / "fewer").glob("*.safetensors"))]
    assert few == drawn[:3]  # sample i is of one class, however many are drawn
    assert rdm("sample", "-n", 2, "-o", made / "cats", *some, "--class", "cat").code == 0
    assert read_info(made / "cats" / "000001.safetensors").class_name == "cat"
    gap = rdm("evaluate", "gap", mine, divided, "-n", 4, "--every", 500, "--at", 400)
    assert gap.code == 0


@pytest.mark.long
def test_the_networks_are_told(train: Rdm, tmp_path: Path) -> None:
    """With the cache and without it the losses agree; without classes they are others."""
    quiet = ("--steps", 3, "--sheet-minutes", 0)
    assert train("told", "--classes", *quiet).code == 0
    assert train("cached", "--classes", "--cache-latents", tmp_path / "latents", *quiet).code == 0
    assert train("untold", *quiet).code == 0
    told, cached, untold = (losses(tmp_path / f"{name}-run") for name in ("told", "cached", "untold"))
    assert len(told) == len(cached) == 3 and told != untold
    model = cast(Any, open_bundle(str(tmp_path / "told")).model)
    resumed = train("told", "--resume", "--steps", 4, "--sheet-minutes", 0)
    assert resumed.code == 0 and "resuming at step 3" in resumed.err
    assert train("told", "--resume", "--classes", "--steps", 5, "--sheet-minutes", 0).code == 0
    again = train("untold", "--resume", "--classes", "--steps", 4)
    assert again.code == 2 and "--classes: what is resumed or started from keeps its own" in again.err
    z_0 = torch.randn(2, *model.x_T_shape, generator=torch.Generator().manual_seed(0))
    cats, dogs = (model.encode(z_0, {"class": torch.full((2,), y)})["z"] for y in (0, 1))
    assert not torch.equal(cats, dogs)


def test_what_has_no_class(train: Rdm, rdm: Rdm, divided: Path, tiny_bundle: Path, tmp_path: Path) -> None:
    assert train("mine", "--classes", "--steps", 1, "--sheet-minutes", 0).code == 0
    some = ("-b", tmp_path / "mine", "--steps", 4)
    loose = tmp_path / "a.png"
    loose.write_bytes((divided / "cat" / "a.png").read_bytes())
    refused = rdm("encode", loose, divided / "cat" / "b.png", "-o", tmp_path / "codes", *some)
    assert refused.code == 3 and "a.png: of which class is it? Its folder" in refused.err
    assert "name one with --class" in refused.err
    wrong = rdm("encode", loose, *some, "--class", "bird")
    assert wrong.code == 2 and "there is no class 'bird'" in wrong.err and "cat, dog" in wrong.err
    foreign = rdm("encode", loose, "-b", tiny_bundle, "--class", "cat")
    assert foreign.code == 2 and "this bundle knows no classes" in foreign.err
    code = tmp_path / "codes" / "b.safetensors"
    found = Codes.load(code)
    nameless = found.replace(infos=(type(found.infos[0])(**{**vars(found.infos[0]), "class_name": None}),))
    nameless.save([code])
    undecided = rdm("decode", code, "-o", tmp_path / "d", "-b", tmp_path / "mine")
    assert undecided.code == 1 and "no class is recorded" in undecided.err
    assert rdm("decode", code, "-o", tmp_path / "d", "-b", tmp_path / "mine", "--class", "dog").code == 0

    (divided / "f.png").write_bytes(loose.read_bytes())
    stray = train("other", "--classes", "--steps", 1)
    assert stray.code == 2 and "f.png: lies in no sub-folder, which would be its class" in stray.err
    resumed = train("mine", "--resume", "--steps", 2)
    assert resumed.code == 2 and "f.png: lies in no sub-folder" in resumed.err
    (divided / "f.png").unlink()
    (divided / "bird").mkdir()
    (divided / "bird" / "f.png").write_bytes(loose.read_bytes())
    grown = train("mine", "--resume", "--steps", 2)
    assert grown.code == 2 and "bird is none of the classes cat, dog" in grown.err
    style = train("styled", "--classes", "--preset", "small32-style", "--steps", 1)
    assert style.code == 2 and "a model of style and shape knows no classes" in style.err
