"""rdm attributes: what a bundle can move, with scores and relations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle

Rdm = Callable[..., Any]


def test_list(tiny: Rdm) -> None:
    objects = tiny("attributes", "list", "--json").objects
    assert [o["attribute"] for o in objects] == ["smiling", "glasses", "hat"]
    assert objects[0] == {
        "attribute": "smiling", "auroc": 0.9, "average_precision": 0.8, "num_positive": 5, "num_labelled": 10,
    }  # fmt: skip
    table = tiny("attributes", "list")
    assert table.code == 0 and table.err == ""
    (row,) = [line for line in table.lines if line.startswith("smiling")]
    assert row.split() == ["smiling", "0.9000", "0.8000", "5"]
    (row,) = [line for line in table.lines if line.startswith("hat")]
    assert row.split() == ["hat", "-", "-", "-"]  # no scores are stored for it


def test_an_attribute_that_was_hardly_learned_is_named_where_it_is_listed_and_used(
    rdm: Rdm, tiny_bundle: Path, faces: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "weak"))
    stored = folder / "attributes" / "attributes.json"
    values = json.loads(stored.read_text())
    values["scores"]["smiling"]["auroc"] = 0.39
    stored.write_text(json.dumps(values))
    told = "rdm: attribute 'smiling' was hardly learned: AUROC 0.39"
    for words in (
        ("attributes", "list"),
        ("attributes", "list", "--json"),
        ("attributes", "show", "smiling"),
        ("manipulate", faces / "a.png", "--attr", "smiling", "--steps", 1, "-o", tmp_path / "o", "-q"),
        ("sample", "-n", 1, "--attr", "smiling", "--steps", 1, "-o", tmp_path / "s", "-q"),
    ):
        result = rdm(*words, "-b", folder)
        assert result.code == 0
        assert [line for line in result.err.splitlines() if line.startswith(told)], words
    spared = ("manipulate", faces / "a.png", "--attr", "glasses", "--steps", 1, "-o", tmp_path / "p")
    assert "hardly learned" not in rdm(*spared, "-b", folder).err


def test_show(tiny: Rdm, tiny_bundle: Path) -> None:
    (shown,) = tiny("attributes", "show", "smiling", "--json").objects
    w = open_bundle(str(tiny_bundle)).directions.weight
    for i, name in ((1, "glasses"), (2, "hat")):
        expected = float(torch.nn.functional.cosine_similarity(w[0], w[i], dim=0))
        assert shown["related"][name] == pytest.approx(expected, abs=1e-5)
    (shown,) = tiny("attributes", "show", "smiling", "--top", 1, "--json").objects
    assert len(shown["related"]) == 1
    text = tiny("attributes", "show", "hat")
    assert text.code == 0 and "cosine with smiling" in text.out


@pytest.fixture
def own(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the user's own."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "own"))


@pytest.fixture
def sides(faces: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two pictures that have something, and three that lack it."""
    having, without = tmp_path / "having", tmp_path / "without"
    for folder, names in ((having, ("a", "b")), (without, ("c", "d", "sub/e"))):
        folder.mkdir()
        for name in names:
            shutil.copy(faces / f"{name}.png", folder / f"{Path(name).name}.png")
    return having, without


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_one_that_was_learned_stands_beside_the_others_and_can_be_set(
    rdm: Rdm, tiny_bundle: Path, own: Path, sides: tuple[Path, Path], tmp_path: Path
) -> None:
    having, without = sides
    before = open_bundle(own)
    assert before.directions.names == ("smiling", "glasses", "hat")
    learned = rdm("attributes", "learn", "cap", "--with", having, "--without", without, "-b", own, "--json")
    assert learned.code == 0
    (told,) = learned.objects
    assert told["attribute"] == "cap" and told["output"] == str(own)
    assert (told["num_positive"], told["num_labelled"]) == (2, 5) and told["nearest"] is None
    assert "rdm attributes discover CODES --keep" in learned.err  # it has no concepts
    after = open_bundle(own)
    assert after.directions.names == ("smiling", "glasses", "hat", "cap") and after.digest == before.digest
    torch.testing.assert_close(after.directions.weight[:3], before.directions.weight, rtol=0, atol=0)
    assert after.directions.scores["smiling"] == before.directions.scores["smiling"]
    edited = rdm("manipulate", without / "c.png", "cap=yes", "-b", own, "-o", tmp_path / "o.png", "--json")
    assert edited.code in (0, 3) and "cap" in edited.objects[0]["probabilities"]


@pytest.mark.parametrize("kind", ["--without", "--unlabelled"])
def test_one_that_was_learned_goes_into_a_file_and_from_there_into_a_copy(
    rdm: Rdm, own: Path, sides: tuple[Path, Path], tmp_path: Path, kind: str
) -> None:
    having, without = sides
    file, copy = tmp_path / "cap.safetensors", tmp_path / "copy"
    before = bytes_below(own)
    learned = rdm("attributes", "learn", "cap", "--with", having, kind, without, "-b", own, "-o", file)
    assert learned.code == 0 and file.stat().st_size < 10_000
    taken = rdm("attributes", "import", file, "cap=bonnet", "-b", own, "-o", copy)
    assert taken.code == 0 and bytes_below(own) == before
    assert open_bundle(copy).directions.names == ("smiling", "glasses", "hat", "bonnet")
    assert open_bundle(copy).digest == open_bundle(own).digest


def test_pictures_on_both_sides_and_too_few_are_refused(
    rdm: Rdm, own: Path, sides: tuple[Path, Path], tmp_path: Path
) -> None:
    having, without = sides
    shutil.copy(having / "a.png", without / "again.png")
    learn = ("attributes", "learn", "cap", "--with", having, "-b", own)
    twice = rdm(*learn, "--without", without)
    assert twice.code == 2 and "1 of the pictures in" in twice.err and "as well" in twice.err
    few = rdm(*learn, "--without", without / "c.png")
    assert few.code == 2 and "1 pictures without it are too few" in few.err
    neither = rdm(*learn)
    assert neither.code == 2 and "one of --without and --unlabelled is needed" in neither.err
    assert open_bundle(own).directions.names == ("smiling", "glasses", "hat")


def test_a_bundle_that_comes_with_rdm_is_not_changed_and_the_hint_says_how(
    rdm: Rdm, sides: tuple[Path, Path], tmp_path: Path
) -> None:
    for words in (
        ("learn", "cap", "--with", sides[0], "--without", sides[1]),
        ("rename", "smiling", "happy"),
        ("remove", "smiling"),
    ):
        refused = rdm("attributes", *words, "-b", "avatars64-diffae")
        assert refused.code == 2, words
        assert "read-only" in refused.err and "-o my-bundle" in refused.err
    done = rdm("attributes", "rename", "smiling", "happy", "-b", "avatars64-diffae", "-o", tmp_path / "mine")
    assert done.code == 0
    mine, shipped = open_bundle(tmp_path / "mine"), open_bundle("avatars64-diffae")
    assert mine.digest == shipped.digest and mine.directions.names[0] == "happy"
    assert mine.transports.digest("happy") == shipped.transports.digest("smiling")
    assert mine.prior.attributes == ("happy", *shipped.prior.attributes[1:])
    noise = torch.randn(2, mine.prior.z_width, generator=torch.Generator().manual_seed(0))
    drawn = (
        one.prior.sample(noise, 2, wanted={name: True})
        for one, name in ((mine, "happy"), (shipped, "smiling"))
    )
    assert torch.equal(*drawn)


def test_rename_and_remove_touch_nothing_else(rdm: Rdm, own: Path) -> None:
    before = open_bundle(own).directions
    assert rdm("attributes", "rename", "glasses", "spectacles", "-b", own).code == 0
    renamed = open_bundle(own).directions
    assert renamed.names == ("smiling", "spectacles", "hat")
    assert (
        torch.equal(renamed.weight, before.weight)
        and renamed.scores["spectacles"] == before.scores["glasses"]
    )
    assert rdm("attributes", "remove", "smiling", "hat", "-b", own).code == 0
    left = open_bundle(own).directions
    assert left.names == ("spectacles",) and torch.equal(left.weight, before.weight[1:2])
    assert rdm("attributes", "remove", "spectacles", "-b", own).code == 0
    assert rdm("attributes", "list", "-b", own).code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("rename", "glasses", "hat"), "the bundle has an attribute 'hat' already"),
        (("rename", "glasses", "a=b"), "cannot be an attribute's name"),
        (("rename", "glass", "cap"), "did you mean 'glasses'?"),
        (("remove", "glasses", "hatt"), "did you mean 'hat'?"),
        (("export", "hatt", "-o", "x.safetensors"), "did you mean 'hat'?"),
        (("export", "hat", "-o", "x.json"), "a file of attributes ends in .safetensors"),
        (("import", "none.safetensors"), "no such file"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(
    rdm: Rdm, own: Path, words: tuple[str, ...], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = bytes_below(own)
    refused = rdm("attributes", *words, "-b", own)
    assert refused.code == 2 and told in refused.err
    assert bytes_below(own) == before and not list(tmp_path.glob("x.*"))


def test_a_file_of_attributes_comes_back_as_it_was(rdm: Rdm, own: Path, tmp_path: Path) -> None:
    file, before = tmp_path / "two.safetensors", open_bundle(own).directions
    exported = rdm("attributes", "export", "hat", "smiling", "-b", own, "-o", file, "--json")
    assert exported.code == 0 and exported.objects[0]["attributes"] == ["hat", "smiling"]
    again = rdm("attributes", "export", "hat", "-b", own, "-o", file)
    assert again.code == 2 and "exists" in again.err
    taken = rdm("attributes", "import", file, "-b", own)
    assert taken.code == 2 and "the bundle has an attribute 'hat' already" in taken.err
    assert rdm("attributes", "remove", "hat", "smiling", "-b", own).code == 0
    assert rdm("attributes", "import", file, "-b", own).code == 0
    after = open_bundle(own).directions
    assert after.names == ("glasses", "hat", "smiling")
    for name in before.names:
        assert after.digest(name) == before.digest(name)
        assert after.scores.get(name) == before.scores.get(name)


def test_attributes_of_another_bundle_are_refused(rdm: Rdm, own: Path, tmp_path: Path) -> None:
    file = tmp_path / "smile.safetensors"
    assert rdm("attributes", "export", "smiling", "-b", "avatars64-diffae", "-o", file).code == 0
    refused = rdm("attributes", "import", file, "smiling=happy", "-b", own)
    assert refused.code == 1 and "these attributes are of bundle avatars64-diffae" in refused.err
    file.write_bytes(file.read_bytes()[:-40])
    damaged = rdm(
        "attributes", "import", file, "smiling=happy", "-b", "avatars64-diffae", "-o", tmp_path / "x"
    )
    assert damaged.code == 1 and "damaged" in damaged.err and not (tmp_path / "x").exists()
    shutil.copy(own / "attributes" / "attributes.safetensors", file)
    other = rdm("attributes", "import", file, "-b", own)
    assert other.code == 1 and "these are no attributes" in other.err


def test_a_copy_with_a_change_appears_whole_or_not_at_all(
    rdm: Rdm, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("rdm_cli.bundles.writing.save_directions", full)
    before = bytes_below(own)
    for place in ((), ("-o", tmp_path / "copy")):
        failed = rdm("attributes", "rename", "hat", "cap", "-b", own, *place)
        assert failed.code == 1 and "No space left" in failed.err
    assert bytes_below(own) == before and sorted(p.name for p in tmp_path.iterdir()) == ["own"]


@pytest.fixture
def many_codes(own: Path, tmp_path: Path) -> Path:
    """Codes of 400 pictures that do not exist, half of which have something, and a table that says which."""
    from rdm_cli.pipeline.pipeline import open_pipeline

    pipeline = open_pipeline(str(own))
    codes = pipeline.sample(400).without_x_T()
    z = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    has = torch.arange(400) % 2 == 0
    z[:, 0] = z[:, 0] / 8 + has
    folder = tmp_path / "codes"
    folder.mkdir()
    codes.replace(z=z).save(folder / f"{i:03}.safetensors" for i in range(400))
    rows = [f"{i:03}.png,{int(has[i])},{int(z[i, 1] > 0)}" for i in range(400)]
    (tmp_path / "table.csv").write_text("\n".join(["file_name,cap,scarf", *rows, ""]))
    return folder


def test_add_fits_what_a_table_has_and_leaves_the_rest(
    rdm: Rdm, own: Path, many_codes: Path, tmp_path: Path
) -> None:
    table = tmp_path / "table.csv"
    before = open_bundle(own).directions
    added = rdm("attributes", "add", many_codes, "cap", "--labels", table, "-b", own, "--json")
    assert added.code == 0 and [one["attribute"] for one in added.objects] == ["cap"]
    assert added.objects[0]["auroc"] > 0.99
    after = open_bundle(own).directions
    assert after.names == ("smiling", "glasses", "hat", "cap")
    for name in before.names:
        assert torch.equal(after.weight[after.index(name)], before.weight[before.index(name)])
    again = rdm("attributes", "add", many_codes, "--labels", table, "-b", own)
    assert again.code == 2 and "'cap' already" in again.err
    unknown = rdm("attributes", "add", many_codes, "bonnet", "--labels", table, "-b", own)
    assert unknown.code == 2 and "no label 'bonnet' in this table" in unknown.err
    alone = tmp_path / "scarf.safetensors"
    assert rdm("attributes", "add", many_codes, "scarf", "--labels", table, "-b", own, "-o", alone).code == 0
    assert rdm("attributes", "import", alone, "-b", own).code == 0
    assert open_bundle(own).directions.names == ("smiling", "glasses", "hat", "cap", "scarf")


def test_what_is_discovered_has_a_sheet_and_becomes_an_attribute(
    rdm: Rdm, own: Path, many_codes: Path, tmp_path: Path
) -> None:
    out = tmp_path / "found"
    discover = ("attributes", "discover", many_codes, "-b", own, "--n", 1, "--steps", 1, "-o", out)
    found = rdm(*discover, "--keep", "--json")
    assert found.code == 0
    (told,) = found.objects
    assert told["direction"] == "concept-001" and told["share"] == pytest.approx(0.5, abs=0.02)
    assert sorted(p.name for p in out.iterdir()) == ["concept-001.png", "directions.safetensors"]
    bundle = open_bundle(own)
    assert bundle.concepts is not None and bundle.concepts.names[0] == "concept-001"
    assert bundle.directions.names == ("smiling", "glasses", "hat")  # it has no name yet
    again = rdm(*discover)
    assert again.code == 2 and "exists" in again.err
    named = rdm("attributes", "import", out / "directions.safetensors", "concept-001=cap", "-b", own)
    assert named.code == 0
    shown = rdm("show", out / "concept-001.png", "--json")
    assert shown.code == 0
    from rdm_cli.codes.sets import read_code_set

    z = read_code_set(many_codes, bundle_name="own", bundle_digest=bundle.digest).z
    verdicts = open_bundle(own).directions.logits(z)[:, -1] > 0
    agrees = float((verdicts == (torch.arange(400) % 2 == 0)).float().mean())
    assert max(agrees, 1 - agrees) > 0.95


def test_damaged_concepts_are_told(rdm: Rdm, own: Path, sides: tuple[Path, Path]) -> None:
    folder = own / "concepts"
    shutil.copytree(own / "attributes", folder)
    assert rdm("bundles", "check", own).code == 0
    (folder / "attributes.safetensors").write_bytes(b"no tensors")
    checked = rdm("bundles", "check", own)
    assert checked.code == 1 and "concepts" in checked.err + checked.out
    learn = ("attributes", "learn", "cap", "--with", sides[0], "--without", sides[1], "-b", own)
    learned = rdm(*learn)
    assert learned.code == 1 and "damaged weights" in learned.err


def test_too_few_codes_are_refused_before_anything_is_written(
    rdm: Rdm, own: Path, many_codes: Path, tmp_path: Path
) -> None:
    for file in sorted(many_codes.iterdir())[100:]:
        file.unlink()
    out = tmp_path / "found"
    refused = rdm("attributes", "discover", many_codes, "-b", own, "-o", out)
    assert refused.code == 1 and "100 codes are too few" in refused.err and not out.exists()
