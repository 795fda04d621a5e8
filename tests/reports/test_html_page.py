"""A page that holds all it shows: nothing outside, nothing unescaped, everything said in words too."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import torch
from PIL import Image

from rdm_cli.reports.html_page import Card, HtmlPage, Shown
from rdm_cli.reports.plots import Line, Plot, svg_of


class Elements(HTMLParser):
    """Every element of a page, with its attributes, and whether each that was opened is closed."""

    VOID = frozenset(("meta", "link", "img", "source", "br"))

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def plot() -> Plot:
    line = Line(x=[1, 2, 5], y=[3.0, 4.0, 4.5], low=[2.5, 3.5, 4.2], high=[3.5, 4.5, 4.8])
    return Plot(lines={"a <b>": line}, x_label="T", y_label="PSNR (dB)", title="PSNR")


def page() -> HtmlPage:
    made = HtmlPage("R & <script>alert(1)</script>", "What <was> done.")
    made.section("Figures & more")
    made.table('a "caption"', ["what", "<x>"], [["<i>", "1 & 2"]])
    made.section("Pictures")
    made.plot(plot(), "PSNR over T")
    made.sheet("rows", [("first & last", torch.zeros(3, 3, 16, 16)), ("grey", torch.ones(3, 1, 16, 16))])
    content = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(content, format="png")
    made.picture("a sheet", content.getvalue(), "a red one")
    made.points(["<a>"])
    shown = Shown(picture=content.getvalue(), alt="a <face>", caption="<its code>", note="1 & 2 dB")
    moving = Shown(picture=content.getvalue(), still=content.getvalue(), alt="it moves")
    made.cards([Card(title="<b>", columns=2, shown=[shown, moving])], width=16)
    made.command("rdm show <x> --tile 5")
    made.facts({"n": "<5>"})
    return made


def test_everything_is_inside_and_escaped() -> None:
    html = page().html()
    elements = Elements(html)
    assert elements.open == []
    assert not elements.named("script") and not elements.named("i") and not elements.named("x")
    sources = [a["src"] for a in elements.named("img")] + [a["srcset"] for a in elements.named("source")]
    assert len(sources) == 8 and all(str(s).startswith("data:image/") for s in sources)
    # no address anywhere but the SVGs' own namespaces, which are within the data URIs
    assert not re.search(r"https?://", html) and "@import" not in html and "url(" not in html
    (policy,) = (a["content"] for a in elements.named("meta") if "http-equiv" in a)
    assert str(policy).startswith("default-src 'none'")


def test_it_can_be_read_aloud_and_reached_by_keyboard() -> None:
    elements = Elements(page().html())
    assert elements.named("html") == [{"lang": "en"}]
    assert all(str(a["alt"]).strip() for a in elements.named("img"))
    assert {a["scope"] for a in elements.named("th")} == {"col", "row"}
    assert elements.named("caption") and elements.named("main")
    targets = {a["id"] for a in elements.named("h2")}
    assert {str(a["href"])[1:] for a in elements.named("a")} == targets and len(targets) == 2
    assert [a["tabindex"] for a in elements.named("div") if a.get("class") == "scroll"] == ["0"]


def test_pictures_are_what_they_were() -> None:
    strips = [a for a in Elements(page().html()).named("img") if "small" in str(a.get("class"))]
    with Image.open(io.BytesIO(base64.b64decode(str(strips[0]["src"]).partition(",")[2]))) as strip:
        assert strip.size == (3 * 18 - 2, 16) and strip.getpixel((3, 3)) == (128, 128, 128)
    # small pictures are enlarged by a whole number, pixel by pixel
    assert (strips[0]["width"], strips[0]["height"]) == (str(6 * 52), str(6 * 16))


def test_plots_are_for_both_grounds_and_the_same_every_time() -> None:
    light, dark = svg_of(plot())
    assert (light, dark) == svg_of(plot())
    assert b"#1f2328" in light and b"#e6e8eb" not in light
    assert b"#e6e8eb" in dark and b"#1f2328" not in dark
    assert b"<text" not in light and b"font-family" not in light  # outlines: no font is asked for


def test_it_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "page.html"
    page().save(path)
    assert path.read_text(encoding="utf-8") == page().html()
    assert page().html() == page().html()
