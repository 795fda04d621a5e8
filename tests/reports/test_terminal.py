"""Pictures in a terminal: which protocol, by the environment, and that each says what the picture shows."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from rdm_cli.reports.terminal import CHUNK, graphics_of, in_terminal


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, "kitty"),
        ({"TERM": "xterm-ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-sixel"}, "sixel"),
        ({"TERM": "xterm-256color"}, "blocks"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, "blocks"),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1", "TMUX": "/tmp/x"}, "blocks"),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, "blocks"),
        ({"TERM": "xterm-256color", "NO_COLOR": "1"}, None),
        ({"TERM": "xterm-kitty", "NO_COLOR": "1"}, "kitty"),
        ({"TERM": "dumb"}, None),
        ({}, None),
    ],
)
def test_which_protocol(environment: dict[str, str], found: str | None) -> None:
    assert graphics_of(environment, is_terminal=True, encoding="utf-8") == found
    assert graphics_of(environment, is_terminal=False, encoding="utf-8") is None


def test_blocks_need_unicode() -> None:
    assert graphics_of({"TERM": "xterm"}, is_terminal=True, encoding="ascii") is None


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_kitty_gets_a_png_in_pieces() -> None:
    drawn = in_terminal(noise(64, 64), "kitty", columns=80)
    pieces = re.findall(rb"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn)
    assert b"".join(re.split(rb"\x1b_G[^\x1b]*\x1b\\", drawn)) == b"\n"
    assert pieces[0][0].startswith(b"a=T,f=100,q=2,") and all(len(data) <= CHUNK for _, data in pieces)
    assert [head[-3:] for head, _ in pieces] == [b"m=1"] * (len(pieces) - 1) + [b"m=0"] and len(pieces) > 1
    with Image.open(io.BytesIO(base64.b64decode(b"".join(data for _, data in pieces)))) as shown:
        assert shown.size == (256, 256) and shown.getpixel((4, 0)) == noise(64, 64).getpixel((1, 0))


def test_iterm2_gets_a_whole_file() -> None:
    found = re.fullmatch(rb"\x1b\]1337;File=inline=1;size=(\d+);width=640px;.*?:(.*)\x07\n",
                         in_terminal(noise(700, 20), "iterm2", columns=80))  # fmt: skip
    assert found
    content = base64.b64decode(found[2])
    with Image.open(io.BytesIO(content)) as shown:
        assert len(content) == int(found[1]) and shown.size == (640, 18)


def decoded_sixels(drawn: bytes) -> np.ndarray:
    """What a terminal would show, (H, W, 3) in percent."""
    head = re.match(rb'\x1bPq"1;1;(\d+);(\d+)', drawn)
    assert head and drawn.endswith(b"\x1b\\\n")
    width, height = int(head[1]), int(head[2])
    body = drawn[head.end() : -3].decode()
    shown = np.full((height + 6, width, 3), -1)
    palette = {int(n): [int(v) for v in rgb.split(";")] for n, rgb in re.findall(r"#(\d+);2;([\d;]+)", body)}
    body = re.sub(r"#\d+;2;[\d;]+", "", body)
    for top, band in enumerate(body.split("-")[:-1]):
        for number, letters in re.findall(r"#(\d+)([^#$]*)\$", band):
            x = 0
            for count, letter in re.findall(r"(?:!(\d+))?([?-~])", letters):
                for _ in range(int(count or 1)):
                    for bit in range(6):
                        if (ord(letter) - 63) >> bit & 1:
                            shown[6 * top + bit, x] = palette[int(number)]
                    x += 1
            assert x == width
    return shown[:height]


def test_sixels_show_every_pixel_once() -> None:
    image = Image.new("RGB", (300, 20), "white")
    image.paste((255, 0, 0), (0, 0, 100, 7))
    image.paste((0, 51, 255), (100, 5, 290, 20))
    shown = decoded_sixels(in_terminal(image, "sixel", columns=80))
    assert np.abs(shown - np.asarray(image, dtype=float) * 100 / 255).max() <= 1


def test_blocks_hold_two_pixels_a_cell() -> None:
    image = noise(10, 5)
    lines = in_terminal(image, "blocks", columns=80).decode().splitlines()
    assert len(lines) == 3 and all(line.endswith("\x1b[0m") for line in lines)
    cells = [
        re.findall(r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m\u2580", line) for line in lines
    ]
    pixels = np.array(cells, dtype=int).reshape(3, 10, 2, 3).transpose(0, 2, 1, 3).reshape(6, 10, 3)
    assert (pixels[:5] == np.asarray(image)).all()
    narrow = in_terminal(noise(64, 64), "blocks", columns=20).decode().splitlines()
    assert len(narrow) == 10 and narrow[0].count("\u2580") == 20
