"""The page as a person uses it, in a real browser: dropped, moved, undone, saved, and typed into a shell."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rdm_cli.app.server import PageServer

pytestmark = pytest.mark.usefixtures("one_round")
DROP = """async (bytes) => {
  const file = new File([new Uint8Array(bytes)], "dropped.png", { type: "image/png" });
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(file);
  document.body.dispatchEvent(new DragEvent("dragenter", { dataTransfer, bubbles: true }));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
}"""
ONE_ROUND = {"rdm_cli.pipeline.editing.NUM_ROUNDS": 1}
PIXELS = """async (id) => {
  const image = document.getElementById(id);
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  canvas.getContext("2d").drawImage(image, 0, 0);
  return [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data];
}"""


@pytest.fixture
def page(browser: Any, served: PageServer) -> Iterator[Any]:
    """The page, opened and settled; at the end nothing was complained of and nothing asked for outside."""
    complaints: list[str] = []
    requests: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    opened = context.new_page()
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    home = served.url.partition("#")[0]
    own = (home, "data:", f"blob:{home}")
    opened.on(
        "request", lambda request: requests.append(request.url) if not request.url.startswith(own) else None
    )
    opened.goto(served.url)
    settled(opened)
    yield opened
    context.close()
    assert complaints == [] and [url for url in requests if not url.startswith(own)] == []


def settled(page: Any) -> None:
    """Wait until the picture is the final one."""
    page.wait_for_selector("#edited[data-settled]", state="attached", timeout=60_000)
    page.wait_for_selector("#state:empty", state="attached", timeout=60_000)


def shown(page: Any, name: str = "edited") -> bytes:
    """RGB of a picture of the page, as the browser has it."""
    rgba = page.evaluate(PIXELS, name)
    return bytes(value for i, value in enumerate(rgba) if i % 4 != 3)


def slide(page: Any, name: str, keys: str, times: int) -> None:
    page.focus(f"#slide-{name}")
    for _ in range(times):
        page.keyboard.press(keys)
    page.wait_for_selector("#state.busy", state="attached")
    settled(page)


def test_a_picture_is_dropped_edited_undone_saved_and_made_again_in_a_shell(
    page: Any, faces: Path, tmp_path: Path, rdms: Any
) -> None:
    place = tmp_path / "shell"
    place.mkdir()
    content = (faces / "b.png").read_bytes()
    (place / "dropped.png").write_bytes(content)
    page.evaluate(DROP, list(content))
    page.wait_for_selector("#source-name:text-is('dropped.png')")
    settled(page)
    with Image.open(faces / "b.png") as image:
        assert shown(page, "original") == image.convert("RGB").tobytes()
    start = shown(page)

    slide(page, "smiling", "ArrowRight", 10)
    once = shown(page)
    assert once != start and "smiling=0.2 " in page.inner_text("#command")
    slide(page, "hat", "ArrowLeft", 5)
    assert shown(page) != once
    page.keyboard.press("Control+z")
    settled(page)
    assert shown(page) == once and page.input_value("#slide-hat") == "0"
    page.keyboard.press("Control+Shift+Z")
    page.wait_for_selector("#state:empty", state="attached")
    settled(page)
    assert page.input_value("#slide-hat") == "-0.1"

    page.get_by_label("Yes or no").check()
    page.get_by_role("radiogroup", name="glasses", exact=True).get_by_label("yes").check()
    settled(page)
    page.get_by_label("keep hat").uncheck()
    page.wait_for_selector("#command:has-text('--keep smiling')")
    settled(page)

    commands = page.inner_text("#command").splitlines()
    assert len(commands) == 2 and "glasses=yes" in commands[0] and "smiling=0.2" in commands[1]
    for line in commands:
        code = rdms.run(*shlex.split(line)[1:], "-q", folder=place, constants=ONE_ROUND)
        assert code in (0, 3), rdms.said  # an untrained bundle's edit need not hold
    with page.expect_download() as waiting:
        page.click("#save")
    waiting.value.save_as(tmp_path / "saved.png")
    assert waiting.value.suggested_filename == "dropped-edited.png"
    with Image.open(place / "dropped-edited.png") as made, Image.open(tmp_path / "saved.png") as saved:
        assert shown(page) == made.tobytes() == saved.tobytes()
    with page.expect_download() as waiting:
        page.click("#save-code")
    waiting.value.save_as(tmp_path / "saved.safetensors")
    code = (place / "dropped-edited.safetensors").read_bytes()
    assert (tmp_path / "saved.safetensors").read_bytes() == code

    page.keyboard.press("d")
    assert page.is_visible("#differs") and not page.is_visible("#edited")
    page.click("#reset")
    settled(page)
    assert shown(page) == start and page.inner_text("#command") == ""


def test_the_page_leads_between_pictures_draws_new_ones_and_fits_a_phone(page: Any) -> None:
    page.click("#tab-between")
    for letter in "ABC":
        page.get_by_label(f"{letter}: Draw one").click()
        page.wait_for_selector(f"img[alt^='{letter}: ']")
    page.wait_for_selector("#mixed[src]")
    page.wait_for_selector("#mixed-state:empty", state="attached")
    middle = shown(page, "mixed")
    page.focus("#triangle")
    for _ in range(20):
        page.keyboard.press("ArrowUp")
    page.wait_for_selector("#mixed-label:text-is('100 % A, 0 % B, 0 % C')")
    page.wait_for_selector("#mixed-state:empty", state="attached")
    assert shown(page, "mixed") != middle
    with page.expect_download() as waiting:
        page.click("#save-animation")
    assert waiting.value.suggested_filename == "between.gif"

    page.click("#tab-draw")
    page.wait_for_selector("#sheet li >> nth=11")
    for i in (1, 2, 3):
        page.get_by_label(f"More like picture {i}", exact=True).check()
    page.click("#more-like")
    page.wait_for_selector("#more-like:disabled")
    page.wait_for_selector("#sheet-state:empty", state="attached")
    page.get_by_label("Edit picture 2", exact=True).click()
    page.wait_for_selector("#edit:not([hidden])")
    settled(page)
    page.set_viewport_size({"width": 400, "height": 800})
    for name in ("edit", "between", "draw", "explore"):
        page.click(f"#tab-{name}")
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), name


def test_codes_are_explored_by_keys_and_chosen_by_a_line(page: Any, tmp_path: Path) -> None:
    page.click("#tab-explore")
    page.wait_for_selector("#cloud-told:has-text('12 codes')")
    box = page.locator("#cloud").bounding_box()
    corners = [
        (box["x"] + dx, box["y"] + dy) for dx in (3, box["width"] - 3) for dy in (3, box["height"] - 3)
    ]
    page.mouse.move(*corners[0])
    page.mouse.down()
    for corner in (corners[1], corners[3], corners[2]):
        page.mouse.move(*corner, steps=3)
    page.mouse.up()
    page.wait_for_selector("#save-table:text-is('Save table of 12')")
    with page.expect_download() as waiting:
        page.click("#save-table")
    waiting.value.save_as(tmp_path / "chosen.csv")
    assert len((tmp_path / "chosen.csv").read_text("utf-8").splitlines()) == 13
    page.focus("#cloud")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tip-picture[src]")
    name = page.inner_text("#tip-name")
    page.keyboard.press("Enter")
    page.wait_for_selector("#edit:not([hidden])")
    settled(page)
    assert page.inner_text("#source-name") == f"{name}.safetensors"


def test_everything_that_can_be_used_has_a_name(page: Any) -> None:
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("button, input, img, canvas, svg, [role]")]
          .filter((one) => !(one.getAttribute("aria-label") || one.getAttribute("aria-labelledby") || one.alt
            || one.title || one.innerText?.trim() || one.textContent.trim() || one.labels?.length
            || one.getAttribute("role") === "status" || one.getAttribute("role") === "alert"
            || (one.tagName === "IMG" && one.hasAttribute("alt"))))
          .map((one) => one.outerHTML.slice(0, 120))"""
    )
    assert unnamed == []


def test_an_address_without_the_token_says_what_is_missing(browser: Any, served: PageServer) -> None:
    opened = browser.new_page()
    opened.goto(served.url.partition("#")[0])
    opened.wait_for_selector("#notice:has-text('the whole address')")
    opened.close()
