"""docs/api.md is what the docstrings say, and what it shows runs; so does the notebook."""

from __future__ import annotations

import json
import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import api_page
import pytest

import rdm_cli

DOCS = api_page.PAGE.parent
NOTEBOOK = DOCS / "six-verbs.ipynb"
BUNDLE = "avatars64-diffae"


@pytest.fixture
def place(faces: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a.png, b.png and c.png to work in."""
    monkeypatch.chdir(faces)
    return faces


def test_the_page_is_what_the_docstrings_say() -> None:
    """Where it is not: python benchmarks/api_page.py."""
    assert api_page.PAGE.read_text(encoding="utf-8") == api_page.page()


def test_the_page_has_all_that_the_package_and_a_pipeline_offer() -> None:
    text = api_page.page()
    for name in set(rdm_cli.__all__) - {"__version__"}:
        assert re.search(rf"^##+ .*\b{name}\b", text, flags=re.M), name
    assert not re.search(r":\w+:`|``", text.replace("```", ""))


def test_the_examples_of_the_page_run(place: Path, tiny_bundle: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", api_page.HEAD, flags=re.M | re.S)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block.replace(BUNDLE, str(tiny_bundle)), names)
    assert len(names["images"]) == 3 and len(names["codes"]) == 3 and names["pictures"].shape[0] == 3
    assert (place / "codes/a.safetensors").is_file()


def test_the_notebook_runs(place: Path, tiny_bundle: Path) -> None:
    """By nbclient where it is installed, in a kernel of its own; else its code, in order."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    told = json.loads(text)
    sources = ["".join(cell["source"]) for cell in told["cells"] if cell["cell_type"] == "code"]
    for verb in ("encode(", "decode(", "manipulate(", "interpolate(", "sample(", "reconstruct"):
        assert verb in text
    if find_spec("nbclient") is None or find_spec("ipykernel") is None:
        names: dict[str, Any] = {}
        for source in sources:
            exec(source.replace(BUNDLE, str(tiny_bundle)), names)
        return
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.reads(text.replace(BUNDLE, str(tiny_bundle)), as_version=4)
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(place)}}).execute()
    shown = [o for cell in notebook.cells if cell.cell_type == "code" for o in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 5


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
