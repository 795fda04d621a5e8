"""One HTML file with all that it shows inside it: it opens offline, for years, wherever it is sent.

Pictures are data URIs; there is no script but that of a map, and a content security policy forbids the page
to ask for anything. It follows the reader's light or dark setting, plots too, and can be read aloud: tables
have headers, pictures say what they show.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from rdm_cli import __version__
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.images.record import HINT
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.errors import OccupiedError
from rdm_cli.reports.plots import Plot, svg_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of a page: the bytes of a PNG or WebP file, words below it, and what it shows in words.

    ``still``, a PNG, is what readers see instead who asked for less motion.
    """

    picture: bytes
    alt: str
    caption: str = ""
    note: str = ""
    still: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Card:
    """Pictures that belong together, side by side below a ``title``, in ``columns`` where there is room."""

    shown: Sequence[Shown]
    columns: int
    title: str = ""


MADE_BY = '<meta name="generator" content="rdm '
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
SMALL_PX = 256  # pictures up to this width are shown larger than they are, pixel by pixel
SHOWN_PX = 96
WIDE_PX = 704  # pictures from this width on are not shown narrower


class HtmlPage:
    """A page under one ``title``, filled from the top; ``lead`` is what it says first.

    Texts are plain: what is special in HTML is escaped here.
    """

    def __init__(self, title: str, lead: str = "") -> None:
        self.title = title
        self._lead = lead
        self._sections: list[tuple[str, str]] = []
        self._body: list[str] = []

    def section(self, heading: str) -> None:
        """Begin a section; the page's contents list it."""
        slug = re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
        anchor = f"s{len(self._sections) + 1}-{slug}"
        self._sections.append((anchor, heading))
        self._body.append(f'<h2 id="{anchor}">{escape(heading)}</h2>')

    def paragraph(self, text: str) -> None:
        """Add a paragraph."""
        self._body.append(f"<p>{escape(text)}</p>")

    def points(self, texts: Sequence[str]) -> None:
        """Add a list of remarks."""
        items = "".join(f"<li>{escape(text)}</li>" for text in texts)
        self._body.append(f"<ul>{items}</ul>")

    def facts(self, facts: Mapping[str, object]) -> None:
        """Add names with what they stand for."""
        pairs = "".join(f"<dt>{escape(n)}</dt><dd>{escape(str(v))}</dd>" for n, v in facts.items())
        self._body.append(f"<dl>{pairs}</dl>")

    def table(
        self, caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, num_words: int = 1
    ) -> None:
        """Add a table whose first ``num_words`` columns say what a row is about; the others hold figures."""
        head = "".join(
            f'<th scope="col"{_word(i < num_words)}>{escape(c)}</th>' for i, c in enumerate(columns)
        )
        body = []
        for row in rows:
            cells = [f'<th scope="row">{escape(row[0])}</th>']
            cells += [
                f"<td{_word(i < num_words)}>{escape(cell)}</td>" for i, cell in enumerate(row[1:], start=1)
            ]
            body.append(f"<tr>{''.join(cells)}</tr>")
        self._body.append(
            # what scrolls must be reachable by the keyboard too
            f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
            f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
            f"<tbody>{''.join(body)}</tbody></table></div>"
        )

    def plot(self, plot: Plot, description: str) -> None:
        """Add ``plot`` twice, for light and for dark readers; ``description`` is read where none is seen."""
        light, dark = (_data_uri(svg, "svg+xml") for svg in svg_of(plot))
        picture = (
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
            f'<img src="{light}" alt="{escape(description)}"></picture>'
        )
        self._body.append(f"<figure>{_wide(plot.title or description, picture)}</figure>")

    def sheet(self, caption: str, rows: Sequence[tuple[str, Tensor]]) -> None:
        """Add named rows of images (N, C, H, W) in [-1, 1], one above the other."""
        strips = []
        for name, images in rows:
            strip = grid([to_pil(image) for image in images], len(images))
            factor = max(1, SHOWN_PX // images.shape[-1])
            alt = f"{name}: {len(images)} pictures in a row"
            strips.append(
                f'<div class="row"><span>{escape(name)}</span>'
                f'<img class="small" src="{_data_uri(png_bytes(strip), "png")}" alt="{escape(alt)}" '
                f'width="{strip.width * factor}" height="{strip.height * factor}"></div>'
            )
        self._figure(caption, "".join(strips), kind="sheet")

    def cards(self, cards: Sequence[Card], *, width: int) -> None:
        """Add cards, as many in a row as there is room for, each ``width`` rem wide or more."""
        body = "".join(_card(card) for card in cards)
        self._body.append(f'<div class="cards" style="--card: {width}rem">{body}</div>')

    def command(self, text: str) -> None:
        """Add a command to type."""
        words = " ".join(f"<span>{escape(word)}</span>" for word in text.split())  # no break within an option
        self._body.append(f"<pre><code>{words}</code></pre>")

    def picture(self, caption: str, png: bytes, alt: str) -> None:
        """Add one picture, the bytes of a PNG file."""
        with Image.open(io.BytesIO(png)) as image:
            width, height = image.size
        factor = 2 if width <= SMALL_PX else 1
        kind = ' class="small"' if factor > 1 else ""
        size = f'width="{width * factor}" height="{height * factor}"'
        source = _data_uri(png, "png")
        shown = f'<img{kind} src="{source}" alt="{escape(alt)}" {size}>'
        if width >= WIDE_PX:
            shown = _wide(caption, shown)
        self._figure(caption, shown)

    def _figure(self, caption: str, content: str, *, kind: str = "") -> None:
        named = f' class="{kind}"' if kind else ""
        self._body.append(f"<figure{named}><figcaption>{escape(caption)}</figcaption>{content}</figure>")

    def html(self) -> str:
        """The whole file."""
        links = "".join(f'<li><a href="#{a}">{escape(heading)}</a></li>' for a, heading in self._sections)
        contents = f'<nav aria-label="Contents"><ul>{links}</ul></nav>' if len(self._sections) > 1 else ""
        lead = f"<p>{escape(self._lead)}</p>" if self._lead else ""
        return whole_page(
            self.title,
            f"<main>\n<h1>{escape(self.title)}</h1>\n"
            + "\n".join([lead, contents, *self._body])
            + "\n</main>",
        )

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        with atomic_path(path) as temporary:
            temporary.write_text(self.html(), encoding="utf-8")


def whole_page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """The file of a page: its ``title`` is plain text, ``body`` HTML; ``style`` goes after that of all pages.

    ``script`` is run at the end of the body; no other is, whatever the body holds: the policy has its digest.
    """
    policy = POLICY
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
        script = f"<script>{script}</script>\n"
    style = files("rdm_cli.reports").joinpath("page.css").read_text(encoding="utf-8") + style
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'{MADE_BY}{__version__}">\n'
        f"<title>{escape(title)}</title>\n"
        '<link rel="icon" href="data:,">\n'  # else a browser asks the server for one
        f"<style>\n{style}</style>\n</head>\n<body>\n{body}\n{script}</body>\n</html>\n"
    )


def refuse_other_page(path: Path) -> None:
    """Raise OccupiedError where a file that is no page of rdm's stands in the place of one."""
    if not path.exists():
        return
    with path.open("rb") as file:
        head = file.read(4096)
    if MADE_BY.encode() not in head:
        raise OccupiedError(f"{path}: is there already, and rdm did not make it", hint=HINT)


def _wide(name: str, picture: str) -> str:
    """A picture with words in it: it is not shown smaller, but scrolls by itself where there is no room."""
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(name)}">{picture}</div>'


def _card(card: Card) -> str:
    title = f"<h3>{escape(card.title)}</h3>" if card.title else ""
    figures = "".join(_figure_of(one) for one in card.shown)
    style = f' style="--columns: {card.columns}"'
    return f'<div class="card">{title}<div class="side-by-side"{style}>{figures}</div></div>'


def _figure_of(one: Shown) -> str:
    with Image.open(io.BytesIO(one.picture)) as image:
        (width, height), kind = image.size, str(image.format).lower()
    source = _data_uri(one.picture, kind)
    picture = f'<img src="{source}" alt="{escape(one.alt)}" width="{width}" height="{height}">'
    if one.still is not None:
        still = _data_uri(one.still, "png")
        picture = (
            f'<picture><source media="(prefers-reduced-motion: reduce)" srcset="{still}">{picture}</picture>'
        )
    note = f"<small>{escape(one.note)}</small>" if one.note else ""
    words = f"<figcaption>{escape(one.caption)}{note}</figcaption>" if one.caption or note else ""
    return f"<figure>{picture}{words}</figure>"


def _word(is_word: bool) -> str:
    return ' class="word"' if is_word else ""


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def png_bytes(image: Image.Image) -> bytes:
    """``image`` as a PNG file without metadata."""
    content = io.BytesIO()
    image.save(content, format="png")
    return content.getvalue()
