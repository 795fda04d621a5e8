"""The verbs over files: bytes that depend on nothing but the file, and what is skipped."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import Fit
from rdm_cli.data.io.places import Readable
from rdm_cli.errors import CodeError, UsageError
from rdm_cli.jobs import loading
from rdm_cli.jobs.batch import Outcome, Task
from rdm_cli.jobs.encode import Encoding, encode_files
from rdm_cli.jobs.files import decode_files, manipulate_files, reconstruct_files
from rdm_cli.jobs.results import Edited, Encoded, Result
from rdm_cli.pipeline import coding
from rdm_cli.pipeline.effort import Effort
from rdm_cli.pipeline.pipeline import Pipeline

R = TypeVar("R")


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(bundle=open_bundle(str(tiny_bundle)))


def tasks_for(sources: Sequence[Path], output: Path, suffix: str) -> list[Task]:
    return [Task(source=s, target=output / f"{s.stem}{suffix}", name=str(s)) for s in sources]


def encode(
    pipeline: Pipeline,
    sources: Sequence[Path],
    output: Path,
    *,
    verify: bool = False,
    fit: Fit = "crop",
    force: bool = False,
    **effort: Any,
) -> list[Outcome[Task, Result]]:
    encoding = Encoding(effort=Effort(**effort), verify=verify)
    return list(
        encode_files(pipeline, tasks_for(sources, output, ".safetensors"), encoding, fit=fit, force=force)
    )


def done(outcome: Outcome[Task, R]) -> R:
    """The result of what did not fail."""
    assert outcome.result is not None, outcome.error
    return outcome.result


def decode(pipeline: Pipeline, codes: Path, output: Path, batch_size: int) -> dict[str, bytes]:
    tasks = tasks_for(sorted(codes.glob("*.safetensors")), output, ".png")
    outcomes = list(decode_files(lambda _: pipeline, tasks, batch_size=batch_size))
    assert all(o.error is None for o in outcomes)
    return contents(output)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=int)


def pictures(faces: Path) -> list[Path]:
    return sorted(faces.rglob("*.png"))


def test_files_do_not_depend_on_their_neighbours(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    """Five images in batches of three or on their own, some damaged, some done: the same bytes."""
    sources = pictures(faces)
    whole, pipeline = tmp_path / "whole", Pipeline(bundle=pipeline.bundle, batch_size=3)
    encode(pipeline, sources, whole)
    expected = contents(whole)
    assert len(expected) == 5
    parts = tmp_path / "parts"
    encode(pipeline, sources[:2], parts)
    encode(pipeline, sources[1:], parts)
    assert contents(parts) == expected
    bad = faces / "0bad.png"
    bad.write_bytes(b"x")
    outcomes = encode(pipeline, [bad, *sources], tmp_path / "mixed")
    assert [o.item.source for o in outcomes if o.error] == [bad]
    assert contents(tmp_path / "mixed") == expected
    assert decode(pipeline, whole, tmp_path / "a", 3) == decode(pipeline, parts, tmp_path / "b", 3)


def test_codes_without_x_T_do_not_depend_on_their_neighbours(tiny_bundle: Path, tmp_path: Path) -> None:
    """In several batches at a time, or in one; with images in between that are there already."""
    sources = [tmp_path / f"{i:03d}.png" for i in range(140)]
    for i, path in enumerate(sources):
        Image.fromarray(np.full((16, 16, 3), i, np.uint8)).save(path)
    pipeline = Pipeline(bundle=open_bundle(str(tiny_bundle)), batch_size=64)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert loading.in_batches_for(pipeline, len(sources), z_alone=True)[1] == 128
        encode(pipeline, sources, tmp_path / "whole", with_x_T=False)
        encode(pipeline, sources[100:103], tmp_path / "parts", with_x_T=False)
        encode(pipeline, sources, tmp_path / "parts", with_x_T=False)
    finally:
        torch.set_num_threads(before)
    expected = contents(tmp_path / "whole")
    assert len(expected) == 140
    assert contents(tmp_path / "parts") == expected


def test_what_is_encoded_again_comes_out_alike(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    """The batch size is settled by the job, not by what is left of it, with the default one too."""
    sources = pictures(faces)
    encode(pipeline, sources, tmp_path / "codes")
    expected = contents(tmp_path / "codes")
    (tmp_path / "codes" / "c.safetensors").unlink()
    outcomes = encode(pipeline, sources, tmp_path / "codes")
    assert [o.item.source.stem for o in outcomes if not done(o).skipped] == ["c"]
    assert contents(tmp_path / "codes") == expected


def test_a_retried_batch_comes_out_alike(
    pipeline: Pipeline, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = pictures(faces)
    encode(pipeline, sources, tmp_path / "codes")
    expected = contents(tmp_path / "codes")
    save = Codes.save

    def full_for_c(self: Codes, paths: Sequence[Path]) -> list[str]:
        if paths[0].stem == "c":
            raise OSError(28, "No space left on device", str(paths[0]))
        return save(self, paths)

    monkeypatch.setattr(Codes, "save", full_for_c)
    outcomes = encode(pipeline, sources, tmp_path / "retried")
    failed = {o.item.source.stem: o.error for o in outcomes if o.error}
    assert failed == {"c": f"{tmp_path}/retried/c.safetensors: No space left on device"}
    assert contents(tmp_path / "retried") == {n: b for n, b in expected.items() if n != "c.safetensors"}


def test_what_is_up_to_date_is_not_decoded_and_what_is_damaged_is_named_on_every_run(
    pipeline: Pipeline, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file with the digest that its code records was decoded before; any other is decoded to be told of."""
    sources, read = pictures(faces), list[str]()
    shown = coding.load_rgb

    def counted(source: Readable, **options: Any) -> Image.Image:
        read.append(source.stem)
        return shown(source, **options)

    monkeypatch.setattr(coding, "load_rgb", counted)
    encode(pipeline, sources, tmp_path, with_x_T=False)
    assert read == list("abcde")
    (faces / "b.png").write_bytes((faces / "b.png").read_bytes()[:60])  # it has a code, of what it was
    (faces / "c.png").write_bytes(b"")
    (tmp_path / "d.safetensors").write_bytes(b"no code")
    (faces / "d.png").write_bytes(b"damaged, and no code in its place")
    for _ in range(2):
        read.clear()
        outcomes = encode(pipeline, sources, tmp_path, with_x_T=False)
        errors = {o.item.source.stem: o.error for o in outcomes if o.error}
        skipped = [o.result is not None and o.result.skipped for o in outcomes]
        assert read == list("bcd") and skipped == [True, *[False] * 3, True]
        assert f"{faces}/b.png: damaged image" in errors["b"]
        assert errors["c"] == f"{faces}/c.png: the file is empty"
        assert errors["d"] == f"{faces}/d.png: not an image that can be read"


def test_an_image_is_hashed_once(
    pipeline: Pipeline, faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And read once: what is hashed is what is decoded."""
    hashed, of = list[str](), loading.digest_of

    def counted(source: Readable) -> str:
        hashed.append(source.stem)
        return of(source)

    monkeypatch.setattr(loading, "digest_of", counted)
    for _ in range(2):
        hashed.clear()
        encode(pipeline, pictures(faces), tmp_path, with_x_T=False)
        assert hashed == list("abcde")


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
def test_the_size_of_an_image_on_its_side_is_recorded_upright(
    pipeline: Pipeline, tmp_path: Path, kind: str
) -> None:
    exif, path = Image.Exif(), tmp_path / f"a.{kind}"
    exif[0x112] = 6
    Image.new("RGB", (31, 20), "red").save(path, exif=exif)
    (outcome,) = encode(pipeline, [path], tmp_path, with_x_T=False)
    assert isinstance(outcome.result, Encoded) and outcome.result.source_size == (20, 31)


def test_what_makes_an_encoding_stale(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    source, output = [faces / "a.png"], tmp_path / "codes"

    def skips(**settings: Any) -> bool:
        (outcome,) = encode(pipeline, source, output, **settings)
        return done(outcome).skipped

    assert not skips()
    assert skips() and skips(steps=5)
    assert not skips(steps=6) and skips(steps=6)
    assert not skips(steps=6, fit="pad")
    assert not skips(with_x_T=False, force=True) and skips(with_x_T=False)
    assert not skips() and not skips(verify=True) and skips(verify=True)
    assert skips()  # a measured code serves where none was asked for
    assert not skips(force=True)
    shutil.copy(faces / "b.png", faces / "a.png")
    assert not skips() and skips()


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        ({}, {"with_x_T": False}, "holds more than is asked for: x_T"),
        ({"verify": True}, {"steps": 6}, "holds more than is asked for: its measured error"),
        ({"inversion": "exact"}, {}, "holds more than is asked for: the second state of an exact inversion"),
        (
            {"inversion": "fixed-point"},
            {},
            "was made by fixed-point in 10 steps, which is more than ddim in 5",
        ),
        ({"steps": 6}, {"steps": 2}, "was made by ddim in 6 steps, which is more than ddim in 2"),
    ],
)
def test_a_weaker_rerun_spares_a_better_code(
    pipeline: Pipeline, faces: Path, tmp_path: Path, first: Any, then: Any, told: str
) -> None:
    source, code = [faces / "a.png"], tmp_path / "a.safetensors"
    encode(pipeline, source, tmp_path, **first)
    before = code.read_bytes()
    (outcome,) = encode(pipeline, source, tmp_path, **then)
    assert outcome.error is not None and outcome.error.startswith(f"{code}: {told}; ")
    assert code.read_bytes() == before
    (forced,) = encode(pipeline, source, tmp_path, force=True, **then)
    assert forced.error is None and code.read_bytes() != before


def test_encoding_replaces_nothing_but_a_code_of_the_image(
    pipeline: Pipeline, faces: Path, tmp_path: Path
) -> None:
    code, source = tmp_path / "a.safetensors", [faces / "a.png"]
    for other, told in (
        (b"someone's weights", "is there already, and is no code of rdm's"),
        (b"", "is there already, and is no code of rdm's"),
        (None, "is the code of a sample or an edit, and not of an image"),
    ):
        if other is None:
            pipeline.sample(1).save([code])
        else:
            code.write_bytes(other)
        before = code.read_bytes()
        (outcome,) = encode(pipeline, source, tmp_path)
        assert outcome.error is not None and told in outcome.error and outcome.occupied
        assert code.read_bytes() == before
    (forced,) = encode(pipeline, source, tmp_path, force=True)
    assert forced.error is None and Codes.load(code).infos[0].source == "a.png"


def test_verified_codes_record_their_error(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    (outcome,) = encode(pipeline, [faces / "a.png"], tmp_path, verify=True)
    info = Codes.load(tmp_path / "a.safetensors").infos[0]
    assert isinstance(outcome.result, Encoded) and outcome.result.measured is not None
    assert (info.mse, info.psnr_db) == (outcome.result.measured.mse, outcome.result.measured.psnr_db)
    assert info.mse is not None and 0 < info.mse < 1
    assert info.source == "a.png" and info.source_digest is not None and len(info.source_digest) == 64


def test_decoding_spares_the_original(pipeline: Pipeline, faces: Path) -> None:
    before = (faces / "a.png").read_bytes()
    encode(pipeline, [faces / "a.png"], faces)
    tasks = tasks_for([faces / "a.safetensors"], faces, ".png")
    (outcome,) = decode_files(lambda _: pipeline, tasks, batch_size=1)
    assert outcome.error is not None and "and it stays" in outcome.error
    assert (faces / "a.png").read_bytes() == before
    (faces / "a.png").unlink()
    for _ in range(2):  # what decode wrote it may write again
        (outcome,) = decode_files(lambda _: pipeline, tasks, batch_size=1)
        assert outcome.error is None


def test_random_noise_is_keyed_by_the_file(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    encode(pipeline, pictures(faces), tmp_path / "codes", with_x_T=False)

    def drawn(names: str, seed: int, output: str) -> dict[str, bytes]:
        tasks = tasks_for([tmp_path / "codes" / f"{n}.safetensors" for n in names], tmp_path / output, ".png")
        list(decode_files(lambda _: pipeline, tasks, batch_size=2, x_T="random", seed=seed))
        return contents(tmp_path / output)

    whole = drawn("abcde", 0, "whole")
    assert drawn("db", 0, "part") == {n: whole[n] for n in ("b.png", "d.png")}
    assert drawn("b", 1, "other") != {"b.png": whole["b.png"]}


def test_reconstruction_files(
    pipeline: Pipeline, faces: Path, tmp_path: Path, pixels_of: Callable[[Path], bytes]
) -> None:
    tasks = tasks_for([faces / "a.png"], tmp_path, "-r.png")
    (inferred,) = reconstruct_files(pipeline, tasks, variations=2, tile=0)
    with Image.open(done(inferred).side_by_side) as sheet:
        assert sheet.size == (16 * 4 + 2 * 3, 16)
    first = pixels_of(tmp_path / "a-r.png")
    (random,) = reconstruct_files(pipeline, tasks, effort=Effort(with_x_T=False), force=True)
    assert pixels_of(tmp_path / "a-r.png") != first
    assert 0 < done(inferred).mse < 1 and done(random).mse != done(inferred).mse


def manipulated(pipeline: Pipeline, tasks: list[Task], **options: Any) -> Iterator[Outcome[Task, Edited]]:
    """The outcomes of manipulating, every input with this one pipeline."""
    return manipulate_files(lambda _: pipeline, tasks, batch_size=8, **options)


def test_manipulated_files(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    tasks = tasks_for([faces / "a.png"], tmp_path, "-edited.png")
    (outcome,) = manipulated(pipeline, tasks, edits=[{"smiling": 0.3}], strip=False)
    edited = Codes.load(Path(str(done(outcome).code)))
    assert edited.infos[0].edits == ("smiling:0.3",)
    code = tasks_for([Path(str(done(outcome).code))], tmp_path / "d", ".png")
    (again,) = decode_files(lambda _: pipeline, code, batch_size=1)
    assert np.array_equal(values(Path(done(again).output)), values(tmp_path / "a-edited.png"))
    with pytest.raises(UsageError, match="no attribute named 'beard'"):
        pipeline.manipulate(edited, {"beard": 1.0})


def test_manipulating_a_mixed_batch(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    """Images, codes with x_T and codes without, in one batch: each comes out as it does alone."""
    encode(pipeline, [faces / "a.png"], tmp_path / "full")
    encode(pipeline, [faces / "b.png"], tmp_path / "bare", with_x_T=False)
    sources = [
        faces / "c.png",
        tmp_path / "bare" / "b.safetensors",
        tmp_path / "full" / "a.safetensors",
        faces / "b.png",
    ]
    edits = [{"smiling": -0.5}, {"smiling": 0.5}]
    for strip in (False, True):
        kept = edits if strip else edits[:1]
        together = tasks_for(sources, tmp_path / f"together-{strip}", f"-{strip}.png")
        together = [
            replace(t, target=t.target.with_name(f"{i}{t.target.name}")) for i, t in enumerate(together)
        ]
        outcomes = list(manipulated(pipeline, together, edits=kept, strip=strip))
        assert [o.item for o in outcomes] == together and not any(o.error for o in outcomes)
        for task in together:
            alone = replace(task, target=tmp_path / "alone" / task.target.name)
            (outcome,) = manipulated(pipeline, [alone], edits=kept, strip=strip)
            assert outcome.error is None
            difference = values(task.target) - values(alone.target)
            assert np.abs(difference).max() <= 1
            if not strip:
                ours, theirs = (Codes.load(t.target.with_suffix(".safetensors")) for t in (task, alone))
                torch.testing.assert_close(ours.z, theirs.z)
                assert ours.infos == theirs.infos
                assert (ours.x_T is None) == (theirs.x_T is None) == (task.source.parent.name == "bare")


def test_exact_codes_keep_both_states_beside_others(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    """A batch of codes of several inversions: an edit that moves nothing shows each image again."""
    sources = []
    for name, inversion in (("a", "exact"), ("b", "ddim"), ("c", "exact")):
        encode(pipeline, [faces / f"{name}.png"], tmp_path / inversion, inversion=inversion, steps=20)
        sources.append(tmp_path / inversion / f"{name}.safetensors")
    tasks = tasks_for(sources, tmp_path / "out", ".png")
    outcomes = list(manipulated(pipeline, tasks, edits=[{"smiling": 0.0}], strip=False))
    assert not any(o.error for o in outcomes)
    for name in ("a", "c"):
        assert Codes.load(tmp_path / "out" / f"{name}.safetensors").other is not None
        assert np.abs(values(tmp_path / "out" / f"{name}.png") - values(faces / f"{name}.png")).max() <= 1


def test_a_random_start_is_decoded_in_the_steps_that_are_asked_for(
    pipeline: Pipeline, faces: Path, tmp_path: Path
) -> None:
    pictures = []
    for steps in (2, 4):
        (task,) = tasks_for([faces / "a.png"], tmp_path / str(steps), ".png")
        effort = Effort(inversion="exact", steps=steps, with_x_T=False)
        (outcome,) = manipulated(pipeline, [task], edits=[{"smiling": 0.1}], strip=False, effort=effort)
        assert outcome.error is None
        pictures.append(values(task.target))
    assert np.abs(pictures[0] - pictures[1]).max() > 1


def test_errors_name_the_code(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    from rdm_cli.jobs.loading import load_image_or_code

    encode(pipeline, [faces / "a.png"], tmp_path)
    path = tmp_path / "a.safetensors"
    codes = Codes.load(path)
    codes.replace(infos=(replace(codes.infos[0], bundle_digest="0" * 64),)).save([path])
    with pytest.raises(CodeError, match=str(path)):
        load_image_or_code(pipeline, path, "crop")
