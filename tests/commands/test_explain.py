"""rdm explain: what lies in the folder afterwards, what is said, and what is refused."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rdm_cli.data.images.record import read_record

Rdm = Callable[..., Any]
PLAIN = ("--mean", "0", "--std", "1")


@pytest.fixture(autouse=True)
def fewer_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random network's codes have eight values: a few steps around each tell enough.

    Its pictures are no faces either: painted and read again they never settle: one round tells as much.
    """
    from rdm_cli.pipeline import explaining

    fewer = {"MOST_PROBES": 8, "GENERATIONS": 2, "ROUNDS": 1, "HALVINGS": 2, "MOST_TRIES": 1}
    for constant, few in fewer.items():
        monkeypatch.setattr(explaining, constant, few)


@pytest.fixture
def model(onnx_classifier: Callable[..., Path], tmp_path: Path) -> Path:
    """Whether a picture is red rather than blue."""
    pytest.importorskip("onnxruntime")
    weight = ((20.0, -20.0), (0.0, 0.0), (-20.0, 20.0))
    return onnx_classifier(tmp_path / "model.onnx", weight=weight, metadata={"labels": "red,blue"})


def redness(path: Path) -> float:
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float) / 255
    return float(1 / (1 + np.exp(-40 * (pixels[..., 0] - pixels[..., 2]).mean())))


@pytest.mark.long
def test_pictures_maps_records_and_a_page(tiny: Rdm, model: Path, faces: Path, tmp_path: Path) -> None:
    words = ("explain", model, faces / "a.png", faces / "b.png", "-o", tmp_path / "why", *PLAIN)
    words += ("--target", 0.5, "--answers", 2)
    result = tiny(*words, "--json")
    assert result.code in (0, 3), result.err
    flipped = 0
    for told, source in zip(result.objects, ("a", "b"), strict=True):
        record = json.loads((tmp_path / "why" / f"{source}-explained.json").read_text())
        assert record["what"] == "explanation" and record["source"] == f"{source}.png"
        assert {key: told[key] for key in record["receipt"]} == record["receipt"]
        before = redness(faces / f"{source}.png")
        of_class = before if told["class"] == "red" else 1 - before
        assert told["score"] == pytest.approx(of_class, abs=0.02) and told["verdict"]
        for answer in told["answers"]:
            place = Path(answer["output"])
            after = redness(place) if told["class"] == "red" else 1 - redness(place)
            assert after < 0.5 + 0.02 and answer["score"] == pytest.approx(after, abs=0.05)
            difference = place.with_name(f"{place.stem}-difference.png")
            assert read_record(place)["number"] == read_record(difference)["number"]
            assert set(answer["probabilities"]) == {"smiling", "glasses", "hat"}
        flipped += told["flipped"]
        assert told["flipped"] == bool(told["answers"]) and told["output"] == (
            told["answers"][0]["output"] if told["answers"] else None
        )
    assert flipped, "a random network that flips nothing shows nothing"
    summary = json.loads((tmp_path / "why" / "explain.json").read_text())
    assert (summary["num_pictures"], summary["num_flipped"]) == (2, flipped)
    assert summary["model"]["classes"] == ["red", "blue"]
    assert summary["model"]["assumed"]["input"] == "32 x 32, RGB"
    page = (tmp_path / "why" / "explain.html").read_text()
    assert "Why model.onnx decides as it does" in page and page.count("as it is") >= 2
    assert "rdm: model.onnx: mean: [0.0]" in result.err

    # the same command again makes the same files, and another one replaces none
    before = {path: path.read_bytes() for path in (tmp_path / "why").iterdir()}
    assert tiny(*words).code == result.code
    assert {path: path.read_bytes() for path in (tmp_path / "why").iterdir()} == before
    other = tiny(*words, "--seed", 1)
    assert other.code == 1 and "made otherwise (another seed)" in other.err
    assert tiny(*words, "--seed", 1, "--force").code in (0, 3)


def test_a_picture_that_cannot_be_flipped_is_told(
    tiny: Rdm, onnx_classifier: Callable[..., Path], faces: Path, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    flat = onnx_classifier(tmp_path / "flat.onnx", weight=((0.01, 0.0), (0.0, 0.0), (0.0, 0.0)))
    result = tiny("explain", flat, faces / "a.png", "-o", tmp_path / "why", *PLAIN, "--outputs", "softmax")
    assert result.code == 3
    assert result.lines == [str(tmp_path / "why" / "a-explained.json")]
    assert "a-explained.json: 0 at 0.50" in result.err and "stays; the nearest came to" in result.err
    assert not (tmp_path / "why" / "a-explained.png").exists()
    assert "No picture was found" in (tmp_path / "why" / "explain.html").read_text()


def test_a_program_is_asked(tiny: Rdm, faces: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys\nfrom PIL import Image\n"
        "for line in sys.stdin:\n"
        "    r, g, b = Image.open(line.strip()).convert('RGB').resize((1, 1)).getpixel((0, 0))\n"
        "    print(json.dumps({'red': (r - b) / 5, 'blue': (b - r) / 5}))"
    )
    command = shlex.join([sys.executable, "-c", code])
    words = ("explain", "--command", command, faces / "a.png", "-o", tmp_path / "why", "--target", 0.5)
    result = tiny(*words, "--class", "red", "--json")
    assert result.code in (0, 3), result.err
    (told,) = result.objects
    assert told["class"] == "red" and (tmp_path / "why" / "explain.html").is_file()
    assert tiny(*words, "--class", "green").err.startswith("rdm: ")


def test_what_is_missing_or_contradicts_itself(tiny: Rdm, model: Path, faces: Path, tmp_path: Path) -> None:
    out = ("-o", tmp_path / "why")
    for words, said in (
        (("explain", model, faces), "a folder for the results is needed; add -o DIR"),
        (("explain", *out), "no model was given; name an ONNX file or a folder, or use --command"),
        (("explain", model, *out), "no inputs were given"),
        (("explain", tmp_path / "gone.onnx", faces, *out), "gone.onnx: no such model"),
        (("explain", model, faces, *out, "--classes", "a"), "it has 2 outputs, and 1 names"),
        (("explain", model, faces, *out, "--class", "green"), "no class 'green'; its classes: red, blue"),
        (("explain", model, faces, *out, "--target", 2), "--target 2: a probability from 0.5"),
        (("explain", model, faces, *out, "--mean", "x"), "x: one number is needed"),
    ):
        result = tiny(*words)
        assert result.code in (1, 2) and said in result.err, words
        assert not (tmp_path / "why").exists()
