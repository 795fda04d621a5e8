"""What is kept is not measured again, what rests on something else is; and what the plain DPM is made of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evidence import few_shot
from evidence.contenders import DIFFAE, LRDM, PDAE, PLAIN, Shelf, write_plain
from evidence.findings import CHANGED, read_findings
from evidence.running import prepared, run
from evidence.store import Store
from evidence.study import TINY, Bench, Study
from PIL import Image

from rdm_cli import Codes, open_pipeline
from rdm_cli.console import Console
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.evaluation.figures import Figure, Part, Sheet

QUIET = Console(quiet=True)


class Counted:
    """A study of one figure that counts whom it measured, and may fail."""

    def __init__(self) -> None:
        self.measured: list[str] = []
        self.fails_on = ""
        self.error: BaseException = KeyboardInterrupt()

    def study(
        self, uses: tuple[str, ...] = (), names: tuple[str, ...] = (DIFFAE, PDAE, LRDM, PLAIN)
    ) -> Study:
        return Study(
            name="counted",
            title="Counted",
            about="",
            contenders=names,
            settings=lambda sizes: {"steps": sizes.steps},
            materials=lambda bench, settings: {"held-out": bench.images(3)},
            measure=self.measure,
            work=lambda bench, settings, subject: 1.0,
            commands=lambda settings, bundles, folders: ["true"],
            tables=lambda figures: figures,
            plots=lambda figures: [],
            uses=uses,
        )

    def measure(self, bench: Bench, settings: Any, subject: Any, advance: Any) -> Part:
        if subject.name == self.fails_on:
            raise self.error
        self.measured.append(subject.name)
        figure = Figure(bundle=subject.name, name="PSNR", value=float(len(self.measured)), num=1)
        hidden = replace(figure, name="hidden", detail=True)
        rows = [("image", torch.zeros(2, 3, 8, 8)), ("again", torch.zeros(2, 3, 8, 8))]
        return Part(figures=[figure, hidden], sheets=[Sheet(caption=subject.name, rows=rows)])


@pytest.fixture
def place(small_bundles: Path, tmp_path: Path) -> dict[str, Any]:
    """Bundles of one's own, four labelled images, and an empty store."""
    images = tmp_path / "images"
    images.mkdir()
    rows = ["file_name,smiling"]
    for i in range(4):
        pixels = np.full((16, 16, 3), 60 * i, dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"{i}.png")
        rows.append(f"{i}.png,{i % 2}")
    (images / "metadata.csv").write_text("\n".join(rows) + "\n")
    shutil.copytree(small_bundles, tmp_path / "bundles")
    return {
        "bench": Bench(held_out=images, train=images, work=tmp_path / "work"),
        "shelf": Shelf(bundles=tmp_path / "bundles", work=tmp_path / "work", batch_size=2),
        "store": Store(folder=tmp_path / "kept"),
    }


def again(counted: Counted, place: dict[str, Any], study: Study, sizes: Any = TINY) -> list[str]:
    """Whom a run measures; the shelf is a new one, as in another process."""
    counted.measured.clear()
    shelf = replace(place["shelf"], opened={})
    run([study], {64: place["bench"]}, shelf, place["store"], sizes, QUIET)
    return list(counted.measured)


def test_what_is_kept_is_not_measured_again(place: dict[str, Any]) -> None:
    counted = Counted()
    study = counted.study()
    assert again(counted, place, study) == [DIFFAE, PDAE, PLAIN]  # there is no LRDM
    assert again(counted, place, study) == []
    entry = place["store"].entries("counted")[DIFFAE]
    assert [f.name for f in entry.figures] == ["PSNR"]
    (picture,) = entry.pictures
    assert picture.rows == ("image", "again")
    with Image.open(place["store"].folder / picture.file) as sheet:
        assert sheet.format == "WEBP" and sheet.width > sheet.height / 2
    # other settings
    assert again(counted, place, study, replace(TINY, steps=3)) == [DIFFAE, PDAE, PLAIN]
    # other images
    Image.new("RGB", (16, 16)).save(place["bench"].held_out / "1.png")
    place["bench"] = replace(place["bench"], _materials={})
    assert again(counted, place, study, replace(TINY, steps=3)) == [DIFFAE, PDAE, PLAIN]


def test_only_the_bundle_that_changed_is_measured_again(place: dict[str, Any]) -> None:
    counted = Counted()
    study, folder = counted.study(), place["shelf"].bundles
    again(counted, place, study)
    scheduler = folder / PDAE / "scheduler" / "scheduler_config.json"
    found = json.loads(scheduler.read_text())
    scheduler.write_text(json.dumps(found | {"rdm": found.get("rdm", {})}, indent=3))
    findings = read_findings(place["store"], place["shelf"], [study], folder)
    assert list(findings.entries["counted"]) == [DIFFAE]
    assert findings.absent["counted", PDAE].endswith(CHANGED)
    assert findings.absent["counted", PLAIN] == f"bundle {PDAE} {CHANGED}"
    assert findings.absent["counted", LRDM] == f"bundle {LRDM} is not shipped"
    assert again(counted, place, study) == [PDAE, PLAIN]


def test_a_prior_counts_where_it_is_used(place: dict[str, Any]) -> None:
    counted = Counted()
    for uses, expected in (((), []), (("prior",), [DIFFAE])):
        study = counted.study(uses, (DIFFAE, PDAE))
        again(counted, place, study)
        config = place["shelf"].bundles / DIFFAE / "prior" / "config.json"
        config.write_text(config.read_text() + "\n")
        assert again(counted, place, study) == expected
    assert place["shelf"].key(PDAE, ("prior",))["prior"] == "none"


def test_a_stopped_run_goes_on_with_the_next(place: dict[str, Any]) -> None:
    counted = Counted()
    counted.fails_on = PDAE
    study = counted.study()
    with pytest.raises(KeyboardInterrupt):
        again(counted, place, study)
    assert list(place["store"].entries("counted")) == [DIFFAE]
    counted.fails_on = ""
    assert again(counted, place, study) == [PDAE, PLAIN]


def test_what_fails_does_not_stop_the_rest(place: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    counted = Counted()
    counted.fails_on, counted.error = DIFFAE, UsageError("it has no beard")
    study = counted.study()
    failed = run([study], {64: place["bench"]}, place["shelf"], place["store"], TINY, QUIET)
    assert failed == ["counted, Diff-AE"] and counted.measured == [PDAE, PLAIN]
    assert capsys.readouterr().err == "counted, Diff-AE: failed: it has no beard\n"


def test_the_plain_model_is_pdaes_without_its_shift(small_bundles: Path, tmp_path: Path) -> None:
    write_plain(small_bundles / PDAE, tmp_path / PLAIN)
    plain, pdae = (open_pipeline(str(f), batch_size=2) for f in (tmp_path / PLAIN, small_bundles / PDAE))
    assert not plain.bundle.has_z and plain.bundle.name == PLAIN
    x_T = pdae.noise(range(2))
    codes = Codes(z=torch.zeros(2, 0), x_T=x_T, infos=(plain.info(),) * 2)
    shiftless = pdae.drawn(torch.randn(2, *pdae.bundle.model.z_shape), range(2), stop_shift=1.0)
    assert torch.equal(plain.decode(codes, steps=3), pdae.decode(shiftless, steps=3))
    with pytest.raises(BundleError, match="a bundle of PDAE is needed"):
        write_plain(small_bundles / DIFFAE, tmp_path / "no")


def test_sets_of_examples_share_no_image(place: dict[str, Any], tmp_path: Path) -> None:
    for k in range(2):
        few_shot._write_examples(place["bench"].training(4), "smiling", k, 1, tmp_path / str(k))
    found = [
        sorted(p.name for p in (tmp_path / str(k) / kind).iterdir())
        for k in range(2)
        for kind in ("like", "unlike")
    ]
    assert found == [["1.png"], ["0.png"], ["3.png"], ["2.png"]]


def test_too_few_images_are_told_before_any_work(place: dict[str, Any], tmp_path: Path) -> None:
    folder = place["bench"].held_out
    with pytest.raises(
        UsageError, match=r"4 labelled avatars, and 40 are needed; rdm data avatars .* --seed 2"
    ):
        prepared(folder, None, tmp_path, TINY, QUIET)
