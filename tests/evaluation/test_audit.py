"""An audit of classifiers whose truth is a closed form: linear in a mean colour."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.codes.code import Codes
from rdm_cli.data.io.tensor_files import read_metadata
from rdm_cli.errors import OccupiedError, UsageError
from rdm_cli.evaluation.audit import Audit, _concepts_to_move, audit, audit_record, class_asked
from rdm_cli.evaluation.audit_page import write_audit
from rdm_cli.evaluation.material import gather, gather_labelled
from rdm_cli.evaluation.moved import Moved, MovedFaces
from rdm_cli.methods.directions import Directions
from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline

NUM = 24


class Painted(MovedFaces):
    """Faces of which glasses are 20 levels more of red, a hat 40 levels less; smiling 60 levels of green."""

    def moved(self, name: str, concepts: Directions | None = None, **_: Any) -> Moved:
        rows = torch.arange(len(self.material))
        before = torch.full((len(rows), 3, 16, 16), 100).byte() + (rows % 7).byte()[:, None, None, None]
        channel, levels = {"glasses": (0, 20), "hat": (0, -40), "smiling": (1, 60)}[name]
        added = rows % 3 > 0
        after = before.short()
        after[:, channel] += torch.where(added, levels, -levels).short()[:, None, None]
        holds, kept = rows % 6 != 0, rows % 5 != 0
        after[~(holds & kept), channel] = 255  # must not count
        return Moved(
            name=name, rows=rows, added=added, before=before, after=after.byte(), holds=holds, kept=kept
        )


def of_red(x: Tensor) -> Tensor:
    """P = 0.2 + half the mean of red in [0, 1]."""
    return 0.2 + 0.5 * (x[:, :1].mean(dim=(2, 3)) + 1) / 2


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    rows = ["file_name,smiling,other"]
    for i in range(NUM):
        Image.new("RGB", (16, 16), (10 * i, 200 * (i % 2), 9 * i)).save(folder / f"{i:02d}.png")
        rows.append(f"{i:02d}.png,{i % 2},{i // 12}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return open_pipeline(tiny_bundle)


def asked(faces: MovedFaces, model: Callable[[Tensor], Tensor], **how: Any) -> Audit:
    return audit(faces, open_classifier(model, image_size=16), **how)


def test_effects_are_those_of_the_closed_form(pipeline: Pipeline, many: Path, tmp_path: Path) -> None:
    found = asked(Painted(pipeline=pipeline, material=gather(many, None), num=NUM), of_red)
    by_name = {finding.name: finding for finding in found.findings}
    assert [f.name for f in found.findings] == ["hat", "glasses", "smiling"]  # the strongest first
    for name, true in (("hat", -0.5 * 40 / 255), ("glasses", 0.5 * 20 / 255), ("smiling", 0.0)):
        for estimate in (by_name[name].effect, by_name[name].added, by_name[name].removed):
            assert estimate is None or estimate.value == pytest.approx(true, abs=1e-5)
        assert by_name[name].effect is not None
    # 24 faces: every sixth does not hold, and of the others every fifth is not alone
    assert [(f.num, f.num_failed, f.num_not_alone) for f in found.findings] == [(16, 4, 4)] * 3
    assert by_name["hat"].p < 0.001 and by_name["smiling"].p == 1
    # glasses are certain too, but move the score by less than anybody would mind
    assert by_name["glasses"].p < 0.001 and [f.name for f in found.accused] == ["hat"]
    written = list(write_audit(found, tmp_path, [f"{i}.png" for i in range(NUM)]))
    assert {place.name for place in written} == {"hat.png", "audit.json", "audit.html"}
    record = json.loads((tmp_path / "audit.json").read_text())
    assert record == audit_record(found) and record["accused"] == ["hat"]
    page = (tmp_path / "audit.html").read_text()
    assert "DRIVES IT" in page and "cannot see" in page and "the camera" in page


def test_the_models_own_subject_is_not_accused(pipeline: Pipeline, many: Path) -> None:
    faces = Painted(pipeline=pipeline, material=gather(many, None), num=NUM)
    found = asked(faces, of_red, target="hat")
    assert found.target == "hat" and not found.accused
    assert [f.verdict for f in found.findings] == ["own subject", "no", "no"]
    ignored = asked(faces, of_red, target="smiling")
    assert [f.verdict for f in ignored.findings] == ["DRIVES IT", "no", "own subject, IGNORED"]
    # with a strong subject, a tenth of what it does is the least that is accused
    strong = asked(
        faces, lambda x: of_red(x) / 20 + (x[:, 1:2].mean(dim=(2, 3)) + 1) / 2 * 0.9, target="smiling"
    )
    assert strong.threshold == pytest.approx(0.05) or strong.threshold == pytest.approx(0.1 * 0.9 * 60 / 255)


def test_labels_say_which_attribute_the_subject_is(pipeline: Pipeline, many: Path) -> None:
    def read(x: Tensor) -> Tensor:
        return (x[:, 1:2].mean(dim=(2, 3)) > 0).float() * 0.8 + 0.1

    labels = gather_labelled(many, None, table=None, names=None, purpose="a test")
    directions = pipeline.bundle.directions
    shows = {"smiling": torch.zeros(NUM), "glasses": torch.arange(NUM) % 2, "hat": torch.arange(NUM) // 12}
    logits = 2 * torch.stack([shows[name] for name in directions.names], dim=1) - 1.0
    z = logits @ torch.linalg.pinv(directions.weight).T
    faces = Painted(pipeline=pipeline, material=labels, num=NUM)
    faces.__dict__["z"] = z
    found = asked(faces, read)  # the model tells the column smiling, which glasses agree with
    assert found.target == "glasses" and "labels smiling (correlation 1.00)" in found.target_from
    assert asked(faces, read, label="other").target == "hat"
    with pytest.raises(UsageError, match="no attribute named 'nosuch'"):
        asked(faces, read, label="nosuch")


def test_of_several_classes_one_must_be_named() -> None:
    three = open_classifier(lambda x: x.mean(dim=(2, 3)), labels=["a", "b", "c"], outputs="softmax")
    with pytest.raises(UsageError, match="has 3 classes"):
        class_asked(three, None)
    assert class_asked(three, "b") == "b"
    assert class_asked(open_classifier(of_red), None) == "positive"


def test_edits_are_made_once_for_all_models(
    pipeline: Pipeline, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faces(**other: Any) -> MovedFaces:
        how: dict[str, Any] = {"material": gather(many, 6), "num": 4, "folder": tmp_path} | other
        return MovedFaces(pipeline=pipeline, **how)

    calls: list[Mapping[str, bool]] = []

    def edit(self: Pipeline, codes: Codes, wanted: Mapping[str, bool], **_: Any) -> Any:
        calls.append(wanted)
        start = torch.zeros(len(codes), 3, 16, 16)
        done = torch.ones(len(codes)).bool()
        return SimpleNamespace(start=start, pictures=start + 0.5, holds=done, kept=~done)

    monkeypatch.setattr(Pipeline, "edit", edit)
    first = faces().moved("hat")
    assert calls and first.holds.all() and not first.alone.any() and first.after.unique().tolist() == [191]
    assert len(first.rows) == 4 and first.before.shape == (4, 3, 16, 16)
    place = tmp_path / "hat.safetensors"
    assert json.loads(read_metadata(place)["rdm"])["bundle_digest"] == pipeline.bundle.digest
    calls.clear()
    again = faces().moved("hat")
    assert not calls and all(
        torch.equal(getattr(first, n), getattr(again, n)) for n in ("rows", "after", "kept")
    )
    faces(material=gather(many, 7)).moved("hat")  # other images: made anew, in its place
    assert calls
    place.write_bytes(b"somebody's")
    with pytest.raises(OccupiedError, match="rdm did not make it"):
        faces().moved("hat")


def test_a_face_on_which_it_is_hidden_is_not_moved(tmp_path: Path) -> None:
    """Hair below a hat is not recoloured; and glasses go to faces without sunglasses first."""
    pipeline = open_pipeline()
    folder = tmp_path / "faces"
    folder.mkdir()
    directions = pipeline.bundle.directions
    for i in range(4):
        Image.new("RGB", (64, 64), (50 * i, 90, 90)).save(folder / f"{i}.png")
    wanted = torch.full((4, len(directions.names)), -6.0)
    wanted[0, directions.index("hat")] = wanted[1, directions.index("headscarf")] = 6.0
    wanted[2, directions.index("sunglasses")] = 6.0
    scaled = torch.linalg.lstsq(directions.weight, (wanted - directions.bias).T).solution.T
    faces = MovedFaces(pipeline=pipeline, material=gather(folder, None), num=8)
    faces.__dict__["z"] = scaled * directions.z_std + directions.z_mean
    black, _ = faces._chosen("black_hair", pipeline)
    assert sorted(black.tolist()) == [2, 3]
    glasses, _ = faces._chosen("glasses", pipeline)
    assert sorted(glasses[:3].tolist()) == [0, 1, 3] and int(glasses[3]) == 2


@pytest.mark.long
def test_a_planted_shortcut_is_named_on_the_shipped_bundle() -> None:
    """A model of smiles that counts glasses twice as much; both are read in z, so the truth is known."""
    pipeline = open_pipeline(on_remark=lambda *_: None)  # noise, which a model is asked about, is no face
    directions = pipeline.bundle.directions
    columns = [directions.index(name) for name in ("smiling", "glasses")]

    def fooled(x: Tensor) -> Tensor:
        z = pipeline.encode(x, with_x_T=False).z.flatten(1)
        smiles, glasses = directions.logits(z)[:, columns].sigmoid().T
        return 0.1 + 0.2 * smiles + 0.4 * glasses

    material = gather(Path(__file__).parents[2] / "assets" / "faces", None)
    faces = MovedFaces(pipeline=pipeline, material=material, num=8)
    model = open_classifier(fooled, image_size=64)
    found = audit(faces, model, target="smiling", attributes=["smiling", "glasses"])
    assert [finding.name for finding in found.accused] == ["glasses"] and found.findings[0].name == "glasses"
    for finding, true in zip(found.findings, (0.4, 0.2), strict=True):
        assert finding.effect is not None and finding.effect.value == pytest.approx(true, abs=0.04)


def test_the_direction_that_the_score_follows_is_moved(tmp_path: Path) -> None:
    """Of hundreds of concepts, the one that a score is made of is found, and no known attribute again."""
    pipeline = open_pipeline()
    bundle, concepts = pipeline.bundle, pipeline.bundle.concepts
    assert concepts is not None
    z = pipeline.sample_z([str(i) for i in range(400)], seed=0).flatten(1)
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    faces = MovedFaces(pipeline=pipeline, material=gather(tmp_path, None), num=8)
    faces.__dict__["z"] = z
    said = concepts.logits(z).sigmoid()
    shows = (bundle.directions.logits(z) > 0).float()
    alike = torch.corrcoef(torch.cat([shows, said], dim=1).T).nan_to_num().abs()[shows.shape[1] :]
    new = int((alike[:, : shows.shape[1]].amax(dim=1) - said.std(dim=0)).argmin())
    score = 0.2 + 0.2 * said[:, new] + 0.5 * shows[:, bundle.directions.index("smiling")]
    chosen = _concepts_to_move(faces, score, 3)
    assert chosen[0] == concepts.names[new] and len(chosen) == 3
    assert all(alike[concepts.names.index(name), : shows.shape[1]].max() < 0.6 for name in chosen)
    assert _concepts_to_move(faces, score, 0) == []
    more = pipeline.with_attributes(concepts.select({chosen[0]: chosen[0]}))
    assert more.bundle.directions.names == (*bundle.directions.names, chosen[0])
    assert chosen[0] not in bundle.directions.names and more.bundle.prior is bundle.prior
