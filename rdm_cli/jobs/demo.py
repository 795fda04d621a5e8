"""The demo: what a bundle makes of a few faces, as one page and as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rdm_cli import __version__
from rdm_cli.bundles.places import assets_folder
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.animation import animation_bytes
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.images.record import refuse_other, save_image
from rdm_cli.data.images.sheet import Tile, enlarged, lay_out
from rdm_cli.errors import RdmError
from rdm_cli.jobs.conditional import knows_all
from rdm_cli.jobs.picture_records import record_of
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.priors.latent_ddim import LatentDDIM
from rdm_cli.reports.html_page import Card, HtmlPage, Shown, png_bytes, refuse_other_page

EDITED = ("smiling", "glasses", "glasses", "beard", "beard", "sunglasses", "smiling", "glasses")
"""The attribute that each of the shipped faces is edited by."""
ENDS = (0, 5)  # the faces between which the path leads
NUM_FRAMES, FRAME_MS = 15, 100
NUM_SAMPLES, SEED = 12, 0
WANTED = {"glasses": True, "smiling": False}
PAIRS = 28  # rem of a card of three pictures: two cards beside one another on a screen
PAGE, OVERVIEW = "index.html", "overview.png"
PAGE_PIXELS, OVERVIEW_PIXELS, OVERVIEW_FACES = 256, 128, 7


@dataclass(frozen=True, kw_only=True)
class Face:
    """An image, what its code brings back, and what z alone brings back, with an x_T that is drawn.

    ``without`` and ``having`` are the face without its ``attribute`` and with it, None where the bundle has
    no attributes.
    """

    name: str
    image: Image.Image
    decoded: Image.Image
    psnr_db: float
    z_alone: Image.Image
    z_alone_db: float
    attribute: str | None = None
    without: Image.Image | None = None
    having: Image.Image | None = None


@dataclass(frozen=True, kw_only=True)
class Made:
    """Everything that the demo shows; ``wanted`` are samples with attributes, where the prior knows them."""

    faces: Sequence[Face]
    path: Sequence[Image.Image]
    samples: Sequence[Image.Image]
    wanted: Sequence[Image.Image]


def demo_faces() -> list[Path]:
    """The faces that come with rdm."""
    return sorted((assets_folder() / "faces").glob("*.png"))


def make_demo(
    pipeline: Pipeline,
    output: Path,
    *,
    force: bool = False,
    advance: Advance = ignore_progress,
) -> tuple[Path, Path]:
    """Write the page and the picture into ``output``; returns their paths.

    Raises OccupiedError, before any work, where a place of theirs holds what rdm did not make.
    """
    page, overview = output / PAGE, output / OVERVIEW
    record = record_of(pipeline, "overview", None, seed=SEED)
    if not force:
        refuse_other_page(page)
        refuse_other(overview, record)
    made = make(pipeline, demo_faces(), advance)
    write_page(pipeline, made, page)
    save_image(overview_picture(made), overview, record)
    return page, overview


def make(pipeline: Pipeline, paths: Sequence[Path], advance: Advance) -> Made:
    """Encode the faces, decode, edit and interpolate their codes, and draw samples; ``advance`` gets 1."""
    pipeline.bundle.require_z("the demo")
    x_0 = pipeline.load_images(paths)
    codes = pipeline.encode(x_0)
    advance(0.35)
    decoded = pipeline.decode(codes)
    z_alone = pipeline.decode(codes.without_x_T(), seed=SEED)
    advance(0.2)
    attributes = _attributes(pipeline, len(paths))
    edits = _edits(pipeline, codes, attributes)
    advance(0.2)
    path = pipeline.decode(_path(pipeline, codes))
    advance(0.2)
    samples = pipeline.decode(pipeline.sample(NUM_SAMPLES, seed=SEED), output="pil")
    wanted: list[Image.Image] = []
    if isinstance(pipeline.z_prior, LatentDDIM) and knows_all(pipeline, WANTED):
        drawn = pipeline.sample(NUM_SAMPLES, seed=SEED, wanted=WANTED)
        wanted = pipeline.decode(drawn, output="pil")
    advance(0.05)
    measured = (psnr(x_0, decoded).tolist(), psnr(x_0, z_alone).tolist())
    faces = [
        Face(
            name=paths[i].name,
            image=to_pil(x_0[i]),
            decoded=to_pil(decoded[i]),
            psnr_db=measured[0][i],
            z_alone=to_pil(z_alone[i]),
            z_alone_db=measured[1][i],
            attribute=attributes[i],
            without=None if edits is None else to_pil(edits[0][i]),
            having=None if edits is None else to_pil(edits[1][i]),
        )
        for i in range(len(paths))
    ]
    return Made(faces=faces, path=[to_pil(x) for x in path], samples=samples, wanted=wanted)


def _attributes(pipeline: Pipeline, num: int) -> list[str | None]:
    """The attribute that each face is edited along; None for all where the bundle has none of them."""
    try:
        known = [name for name in EDITED if name in pipeline.bundle.directions.names]
    except RdmError:
        known = []
    asked = [EDITED[i % len(EDITED)] for i in range(num)]
    return [
        name if name in known else known[i % len(known)] if known else None for i, name in enumerate(asked)
    ]


def _edits(
    pipeline: Pipeline, codes: Codes, attributes: Sequence[str | None]
) -> tuple[Tensor, Tensor] | None:
    """Each face without its attribute, and with it."""
    if None in attributes:
        return None
    without, having = (torch.empty(len(codes), *pipeline.bundle.model.image_shape) for _ in range(2))
    for name in dict.fromkeys(name for name in attributes if name is not None):
        rows = [i for i, other in enumerate(attributes) if other == name]
        for value, pictures in ((False, without), (True, having)):
            pictures[rows] = pipeline.edit(codes.select(rows), {name: value}).pictures
    return without, having


def _path(pipeline: Pipeline, codes: Codes) -> Codes:
    first, second = (codes[i] for i in ENDS)
    return pipeline.interpolate(first, second, [i / (NUM_FRAMES - 1) for i in range(NUM_FRAMES)])


def write_page(pipeline: Pipeline, made: Made, place: Path) -> None:
    """Write what was made as one HTML file that holds all of it."""
    bundle = pipeline.bundle
    page = HtmlPage(
        "Images to codes, and back",
        f"rdm has turned each of these {len(made.faces)} faces into a code, and worked on the codes alone. A "
        f"code is z, {bundle.z_width} numbers that say what a picture shows, and x_T, a noise map that holds "
        f"the rest. The model is the bundle {bundle.name}.",
    )
    _add_faces(page, made.faces)
    if any(face.attribute for face in made.faces):
        _add_edits(page, made.faces)
    _add_path(page, made)
    page.section("New faces")
    page.paragraph("z is drawn from a prior over codes, x_T from a normal distribution.")
    page.command(f"rdm sample --n {NUM_SAMPLES} --seed {SEED} -o samples/")
    page.cards([_samples(made.samples, "a new face")], width=18)
    if made.wanted:
        page.section("New faces, as wanted")
        page.paragraph("The prior was trained with labels, and is told: glasses, and no smile.")
        page.command(f"rdm sample --n {NUM_SAMPLES} --attr glasses=yes,smiling=no -o serious/")
        page.cards([_samples(made.wanted, "a new face with glasses that does not smile")], width=18)
    page.section("How it was made")
    page.facts(
        {
            "command": "rdm demo", "software": f"rdm {__version__}", "bundle": bundle.name,
            "digest": bundle.digest, "seed": SEED, "precision": pipeline.precision,
        }
    )  # fmt: skip
    page.save(place)


def _add_faces(page: HtmlPage, faces: Sequence[Face]) -> None:
    page.section("What a code keeps")
    page.paragraph(
        "A whole code brings the picture back; the figure is its PSNR, and above 50 dB no eye sees a "
        "difference. z alone, with another x_T, brings back what the picture shows."
    )
    page.command("rdm reconstruct face.png --variations 1")
    page.cards(
        [
            Card(
                title=face.name,
                columns=3,
                shown=[
                    _shown(face.image, "image", alt=f"the face {face.name}"),
                    _shown(face.decoded, "its code", _in_db(face.psnr_db), alt=f"{face.name}, decoded"),
                    _shown(face.z_alone, "z alone", _in_db(face.z_alone_db), alt=f"{face.name}, of z alone"),
                ],
            )
            for face in faces
        ],
        width=PAIRS,
    )


def _add_edits(page: HtmlPage, faces: Sequence[Face]) -> None:
    page.section("Edits")
    page.paragraph(
        "z is moved to where codes without an attribute lie, or codes with it; x_T stays. Each picture is "
        "read again, and the edit goes further where it does not show."
    )
    page.command("rdm manipulate face.png smiling=yes")
    cards = []
    for face in faces:
        if face.attribute is None or face.without is None or face.having is None:
            continue
        shown = [
            _shown(face.without, f"{face.attribute}=no", alt=f"{face.name} without {face.attribute}"),
            _shown(face.decoded, "as it is", alt=f"{face.name} as it is"),
            _shown(face.having, f"{face.attribute}=yes", alt=f"{face.name} with {face.attribute}"),
        ]
        cards.append(Card(title=f"{face.name}, {face.attribute}", columns=3, shown=shown))
    page.cards(cards, width=PAIRS)


def _add_path(page: HtmlPage, made: Made) -> None:
    first, second = (made.faces[i].name for i in ENDS)
    page.section("From one face to another")
    page.paragraph("Every picture on the way is a code of its own.")
    page.command(f"rdm interpolate {first} {second} --frames {NUM_FRAMES} --animation webp")
    frames = [enlarged(frame, PAGE_PIXELS) for frame in made.path]
    middle = png_bytes(frames[len(frames) // 2])
    moving = animation_bytes(frames, "webp", {}, frame_ms=FRAME_MS)
    moves = Shown(picture=moving, still=middle, alt=f"{first} turns into {second} and back")
    alphas = [i / (NUM_FRAMES - 1) for i in range(NUM_FRAMES)]
    strip = [
        _shown(made.path[i], f"{alphas[i]:.2f}", alt=f"the picture at {alphas[i]:.2f}")
        for i in range(0, NUM_FRAMES, 2)
    ]
    page.cards([Card(shown=[moves], columns=1), Card(shown=strip, columns=4)], width=18)


def _samples(images: Sequence[Image.Image], alt: str) -> Card:
    shown = [_shown(image, str(i), alt=f"{alt}, number {i}") for i, image in enumerate(images)]
    return Card(shown=shown, columns=6)


def _shown(image: Image.Image, caption: str, note: str = "", *, alt: str) -> Shown:
    return Shown(picture=png_bytes(enlarged(image, PAGE_PIXELS)), caption=caption, note=note, alt=alt)


def overview_picture(made: Made) -> Image.Image:
    """A face a column: the image, its code, z alone, its edits; and new faces in the last row."""
    faces = made.faces[:OVERVIEW_FACES]
    rows: dict[str, list[Tile]] = {
        "image": [_tile(face.image) for face in faces],
        "its code": [_tile(face.decoded, _in_db(face.psnr_db)) for face in faces],
        "z alone": [_tile(face.z_alone, _in_db(face.z_alone_db)) for face in faces],
    }
    for name, value in (("without", "no"), ("with", "yes")):
        edits = [
            (face.without if value == "no" else face.having, f"{face.attribute}={value}") for face in faces
        ]
        if row := [_tile(image, caption) for image, caption in edits if image is not None]:
            rows[name] = row
    rows["new faces"] = [_tile(image) for image in made.samples[: len(faces)]]
    return lay_out(list(rows.values()), names=list(rows), gap=10)


def _tile(image: Image.Image, caption: str = "") -> Tile:
    return Tile(enlarged(image, OVERVIEW_PIXELS), caption)


def _in_db(value: float) -> str:
    return f"{value:.1f} dB" if value < float("inf") else "exact"
