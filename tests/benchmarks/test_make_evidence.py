"""The script itself: bad words, and a whole run on tiny bundles, a few images and steps."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import make_evidence
import pytest
from evidence.contenders import DIFFAE, LRDM, PDAE, PLAIN
from evidence.studies import STUDIES
from evidence.study import FOLDERS

from rdm_cli import cli
from rdm_cli.errors import UsageError
from rdm_cli.evaluation.report import figure_from

SCRIPT = Path(make_evidence.__file__)


def test_bad_words_are_one_line(tmp_path: Path, small_bundles: Path) -> None:
    def refused(*, parts: list[str], docs: Path = tmp_path / "docs", bundles: Path = small_bundles) -> str:
        with pytest.raises(UsageError) as error:
            make_evidence.make(parts, docs, bundles, tmp_path, None, None, True)
        return str(error.value)

    assert refused(parts=["nothing"]).startswith("--part nothing: there is no such part; known: material, ")
    assert refused(parts=["page"], docs=make_evidence.DOCS).startswith("--tiny: figures of a few images")
    assert refused(parts=["page"], bundles=tmp_path / "no") == f"--bundles {tmp_path / 'no'}: no such folder"
    (tmp_path / "file").touch()
    assert "file" in refused(parts=["page"], docs=tmp_path / "file")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--part", "nothing"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: --part nothing") and len(done.stderr.splitlines()) == 1


@pytest.mark.long
def test_some_parts(small_bundles: Path, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    parts = ["material", "attributes", "denoising"]
    make_evidence.make(parts, docs, small_bundles, tmp_path / "work", None, None, True)
    assert sorted(p.name for p in (docs / "figures" / "evidence").glob("*.json")) == [
        "attributes.json",
        "denoising.json",
    ]
    assert (tmp_path / "work" / PLAIN / "model_index.json").exists()
    text = (docs / "evidence.md").read_text()
    assert text.count("Reproduced by `rdm evaluate attributes ") == 2  # a table and a plot
    assert "| t | figure | Diff-AE, with z | plain DPM | PDAE, with z |" in text
    for target in re.findall(r"\]\((figures/[^)]+\.(?:png|webp))\)", text):
        assert (docs / target).stat().st_size > 100


@pytest.mark.slow
def test_a_whole_run(small_bundles: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    docs, work = tmp_path / "docs", tmp_path / "work"
    make_evidence.make(list(make_evidence.PARTS), docs, small_bundles, work, None, None, True)
    told = capsys.readouterr().err
    assert f"edits, LRDM: not measured: bundle {LRDM} is not shipped" in told
    kept = docs / "figures" / "evidence"
    for name, study in STUDIES.items():
        measured = json.loads((kept / f"{name}.json").read_text())["measured"]
        assert set(measured) == set(study.contenders) - {LRDM}
        assert measured[DIFFAE]["figures"], name
    text = (docs / "evidence.md").read_text()
    assert "this bundle has no latent prior" in text  # PDAE's, and what needs one says so
    for study in STUDIES.values():
        assert f"## {study.title}\n" in text
    # again: everything is kept
    before = {path: path.read_bytes() for path in kept.glob("*.json")}
    make_evidence.make(list(make_evidence.PARTS), docs, small_bundles, work, None, None, True)
    assert " measured in " not in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in kept.glob("*.json")}
    # a command as the page prints it gives the figures on the page
    settings = json.loads((kept / "reconstruction.json").read_text())["measured"][DIFFAE]["key"]["settings"]
    (command,) = STUDIES["reconstruction"].commands(settings, ["BUNDLES"], FOLDERS)
    words = command.split()[1:]
    bundles = [str(small_bundles / DIFFAE), str(small_bundles / PDAE), str(work / PLAIN)]
    at = words.index("BUNDLES")
    words[at : at + 2] = [*bundles, str(work / "held-out")]
    assert (
        cli.main([*words, "--batch-size", str(settings["batch_size"]), "-o", str(tmp_path / "report")]) == 0
    )
    found = json.loads((tmp_path / "report" / "reconstruction.json").read_text())["figures"]
    ours = [
        figure_from(f)
        for entry in json.loads((kept / "reconstruction.json").read_text())["measured"].values()
        for f in entry["figures"]
    ]
    assert [figure_from(f) for f in found] == ours
