"""The reports opened in a real browser: no missing picture, no word in the console, no outside request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rdm_cli.training.run.page import write_run_page

Rdm = Callable[..., Any]


@dataclass(frozen=True)
class Seen:
    """What went wrong on a page, and what it looks like."""

    complaints: list[str]
    requests: list[str]
    missing: list[str]
    num_pictures: int
    background: str
    text: str
    is_too_wide: bool


def look(browser: Any, path: Path, scheme: str = "light", width: int = 1280) -> Seen:
    """Open a file as a reader would, wait for all of it, and write down what happens."""
    complaints: list[str] = []
    requests: list[str] = []
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url[:80]}"))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    pictures = page.evaluate(
        "() => [...document.images].map(i => [i.complete && i.naturalWidth > 0, i.alt || i.currentSrc])"
    )
    seen = Seen(
        complaints=complaints,
        requests=[url for url in requests if not url.startswith("data:") and url != path.as_uri()],
        missing=[name for whole, name in pictures if not whole],
        num_pictures=len(pictures),
        background=page.evaluate("() => getComputedStyle(document.body).backgroundColor"),
        text=page.inner_text("body"),
        is_too_wide=page.evaluate("() => document.documentElement.scrollWidth > innerWidth"),
    )
    page.close()
    return seen


def nothing_wrong(seen: Seen) -> bool:
    return not (seen.complaints or seen.requests or seen.missing)


def test_what_is_wrong_would_be_seen(browser: Any, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<img src='gone.png' alt='gone'><script>throw new Error('no')</script>"
        "<img src='http://127.0.0.1:9/x.png' alt='outside'>"
    )
    seen = look(browser, bad)
    assert seen.missing == ["gone", "outside"]
    assert not seen.is_too_wide
    wide = tmp_path / "wide.html"
    wide.write_text("<div style='width: 500px'>wide</div>")
    assert look(browser, wide, width=400).is_too_wide
    assert any("no" in complaint for complaint in seen.complaints)
    assert "http://127.0.0.1:9/x.png" in seen.requests


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_opens_offline(
    rdm: Rdm, browser: Any, tiny_bundle: Path, faces: Path, tmp_path: Path, scheme: str
) -> None:
    out = tmp_path / "out"
    done = rdm("evaluate", "reconstruction", tiny_bundle, faces, "--steps", "2,3", "-o", out, "-q")
    assert done.code == 0, done.err
    seen = look(browser, out / "reconstruction.html", scheme)
    assert nothing_wrong(seen), seen
    assert seen.num_pictures >= 5  # the images and two kinds of reconstruction at two T, and plots
    assert (seen.background == "rgb(255, 255, 255)") == (scheme == "light")
    assert "PSNR (dB)" in seen.text and "data_sha256" in seen.text


def test_a_runs_page_opens_offline(browser: Any, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "sheets").mkdir()
    Image.new("RGB", (30, 20), "red").save(tmp_path / "sheets" / "0000002.png")
    rest = '"images_per_second": 1.0, "elapsed_seconds": 1.0, "fraction": 1.0'
    lines = [f'{{"step": {k}, "num_images": {k}, "loss": 1.0, {rest}}}' for k in (1, 2)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines))
    (tmp_path / "diagnostics.jsonl").write_text('{"step": 2, "sheet": "0000002.png", "swapped_z": {}}\n')
    seen = look(browser, write_run_page(tmp_path, name="mine", facts={"command": "rdm train"}))
    assert nothing_wrong(seen), seen
    assert seen.num_pictures >= 1 and "training mine" in seen.text


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_demo_opens_offline_on_a_phone_and_on_a_screen(
    browser: Any, demo_folder: Path, scheme: str, width: int
) -> None:
    seen = look(browser, demo_folder / "index.html", scheme, width)
    assert nothing_wrong(seen) and not seen.is_too_wide, seen
    assert seen.num_pictures == 69 and (seen.background == "rgb(255, 255, 255)") == (scheme == "light")


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</script><script>document.title = 'owned'</script>",
    "a' \"b&amp;",
]


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_map_opens_offline_and_names_are_only_names(
    rdm: Rdm, browser: Any, tiny_bundle: Path, faces: Path, tmp_path: Path, scheme: str, width: int
) -> None:
    """Its names are HTML; a person hovers, clicks, types and takes the keys, and sees them as they are."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    codes, table, page = tmp_path / "codes", tmp_path / "<i>z&.parquet", tmp_path / "map.html"
    assert rdm("encode", faces, "-o", codes, "--no-x-t", "-b", tiny_bundle).code == 0
    assert rdm("codes", "table", codes, "-o", table, "-b", tiny_bundle).code == 0
    found = pq.read_table(table)
    names = [*HOSTILE, "sub/e", "zz"]
    pq.write_table(found.set_column(0, "name", pa.array(names)), table)
    assert rdm("codes", "map", table, "-o", page, "-b", tiny_bundle, "--images", faces).code == 0
    seen = look(browser, page, scheme, width)
    assert not (seen.complaints or seen.requests or seen.is_too_wide), seen
    assert "Map of <i>z&.parquet" in seen.text
    assert (seen.background == "rgb(255, 255, 255)") == (scheme == "light")

    opened = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    opened.on("pageerror", lambda error: pytest.fail(str(error)))
    opened.on("dialog", lambda dialog: pytest.fail(dialog.message))
    opened.goto(page.as_uri(), wait_until="load")
    assert opened.get_by_role("application").get_attribute("aria-label") == "map of 5 codes"
    for name in names:
        opened.fill("#find", name)
        opened.press("#find", "Enter")
        assert opened.inner_text("#found") == "1 found" and opened.inner_text("#name") == name
        assert opened.locator("#picture").is_visible() == (name == "sub/e")
        assert opened.inner_text("#said").startswith(f"{name}: ")
    opened.fill("#find", "")
    opened.select_option("#colour", label="hat")
    box = opened.locator("#map").bounding_box()
    at = opened.evaluate("[px(0), py(0)]")
    opened.mouse.move(box["x"] + at[0], box["y"] + at[1])
    assert opened.inner_text("#tip-name") == HOSTILE[0] and "hat" in opened.inner_text("#tip-value")
    opened.mouse.down()
    opened.mouse.up()
    assert opened.inner_text("#name") == HOSTILE[0]
    before = opened.evaluate("scale")
    opened.focus("#map")
    opened.keyboard.press("+")
    assert opened.evaluate("scale") == pytest.approx(1.5 * before)
    opened.keyboard.press("0")
    for key in ("ArrowRight", "ArrowLeft", "ArrowUp", "ArrowDown"):
        opened.keyboard.press(key)
    assert opened.inner_text("#name") != HOSTILE[0]
    assert opened.title() == "Map of <i>z&.parquet" and opened.locator("script").count() == 2
    opened.close()


def test_a_map_of_fifty_thousand_codes_is_painted_within_a_frame(browser: Any, tmp_path: Path) -> None:
    import numpy as np

    from rdm_cli.reports.map_page import Points, map_page

    rng = np.random.default_rng(0)
    points = Points(
        names=[f"{i:06d}" for i in range(50_000)],
        xy=rng.standard_normal((50_000, 2)),
        probabilities={"hat": rng.random(50_000)},
        pictures={},
    )
    (tmp_path / "map.html").write_text(map_page("many", "50,000 codes", points), encoding="utf-8")
    assert (tmp_path / "map.html").stat().st_size < 2**20
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((tmp_path / "map.html").as_uri(), wait_until="load")
    page.wait_for_function("document.getElementById('map').dataset.milliseconds")
    times = page.evaluate(
        "() => Array.from({length: 15}, (_, k) => { zoom(k < 8 ? 1.05 : 1 / 1.05); paint();"
        " return Number(document.getElementById('map').dataset.milliseconds); })"
    )
    assert sorted(times)[7] < 100  # some 5 ms on an idle core: a path a point took ten times as long
    colours = page.evaluate(
        "() => new Set(new Uint32Array("
        "context.getImageData(0, 0, canvas.width, canvas.height).data.buffer)).size"
    )
    assert colours > 20
    page.close()
