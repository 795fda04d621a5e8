"""rdm demo: one page that holds all it shows, and one picture; the same bytes twice, and nothing lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rdm_cli.data.images.record import read_record

Rdm = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("one_round")


class Pictures(HTMLParser):
    """Every picture's attributes, and every heading and code."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []
        self.still: list[dict[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.found.append(dict(attrs))
        if tag == "source":
            self.still.append(dict(attrs))


def test_the_page_holds_all_that_it_shows(demo_folder: Path, tiny_bundle: Path) -> None:
    html = (demo_folder / "index.html").read_text(encoding="utf-8")
    pictures = Pictures(html)
    # 8 faces, each with two decodes and three edits; 8 frames of the path, and it playing; 12 samples
    assert len(pictures.found) == 8 * 6 + 8 + 1 + 12
    assert all(str(p["src"]).startswith("data:image/") and str(p["alt"]).strip() for p in pictures.found)
    (moving,) = (p for p in pictures.found if str(p["src"]).startswith("data:image/webp"))
    assert "turns into" in str(moving["alt"])
    assert [s["media"] for s in pictures.still] == ["(prefers-reduced-motion: reduce)"]
    assert not re.search(r"https?://|<script|@import|url\(", html)
    for told in (
        "face-1.png, smiling",
        "smiling=yes",
        " dB<",
        "rdm sample --n",
        "tiny",
        "prefers-color-scheme: dark",
    ):
        assert told in html.replace("<span>", "").replace("</span>", ""), told


def test_the_picture_records_its_bundle(demo_folder: Path) -> None:
    record = read_record(demo_folder / "overview.png")
    assert record is not None and record["what"] == "overview" and record["bundle"] == "tiny"
    assert record["command"].startswith("rdm demo --bundle ")
    with Image.open(demo_folder / "overview.png") as image:
        assert image.width > 7 * 128 and image.height > 6 * 128


def test_twice_the_same_bytes(demo_folder: Path, tiny: Rdm, tmp_path: Path) -> None:
    made = Path(shutil.copytree(demo_folder, tmp_path / "demo"))
    first = {path.name: path.read_bytes() for path in made.iterdir()}
    done = tiny("demo", "-o", made)
    assert done.code == 0, done.err
    assert done.lines == [str(made / name) for name in ("overview.png", "index.html")]
    assert {path.name: path.read_bytes() for path in made.iterdir()} == first


def test_a_file_of_the_users_stays(tiny: Rdm, tmp_path: Path) -> None:
    """It lies in either place, and in both; --force replaces both."""
    page, overview = tmp_path / "index.html", tmp_path / "overview.png"
    for mine in ((overview,), (page, overview), (page,)):
        for path in (page, overview):
            path.unlink(missing_ok=True)
        for path in mine:
            path.write_text("<html>my own</html>")
        refused = tiny("demo", "-o", tmp_path)
        assert refused.code == 1
        assert f"{mine[0].name}: is there already, and rdm did not make it" in refused.err
        assert sorted(tmp_path.iterdir()) == sorted(mine)
        assert all(path.read_text() == "<html>my own</html>" for path in mine)
    overview.write_text("my own")
    assert tiny("demo", "-o", tmp_path, "--force").code == 0
    assert read_record(overview) is not None and "<html>my own" not in page.read_text(encoding="utf-8")


def test_samples_with_attributes_where_the_prior_knows_them(rdm: Rdm, told: Path, tmp_path: Path) -> None:
    """The fixture's prior knows hats and glasses, not smiles: then there is no such section."""
    assert rdm("demo", "-o", tmp_path, "-b", told).code == 0
    assert "as wanted" not in (tmp_path / "index.html").read_text(encoding="utf-8")
