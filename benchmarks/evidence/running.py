"""Measures what is not yet kept, a contender at a time, so that a stopped run goes on where it was."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from evidence.contenders import IMAGE_SIZE, TITLES, Shelf, image_size_of, source_of
from evidence.page import plot_files
from evidence.store import Entry, Picture, Store
from evidence.study import HELD_OUT_SEED, SEED, TRAIN_SEED, Bench, Folders, Sizes, Study
from rdm_cli.console import Console
from rdm_cli.data.avatars import write_avatars
from rdm_cli.data.images.pixels import grid, to_pil
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.evaluation.figures import Sheet
from rdm_cli.evaluation.material import Material
from rdm_cli.reports.plots import can_plot, save_plot

ZOOM = 2
QUALITY = 90


def draw_material(folder: Path, num: int, seed: int, image_size: int, console: Console) -> None:
    """The first ``num`` avatars of ``seed``, ``image_size`` px a side, in ``folder``, unless they are there.

    Raises UsageError where what draws them is not installed.
    """
    if num_drawn(folder) >= num:
        return
    labels = folder / "metadata.csv"
    with console.progress(f"drawing {folder}", float(num)) as advance:
        for path in write_avatars(folder, num_images=num, size=image_size, seed=seed):
            if path != labels:
                advance(1.0)
    console.note(f"{folder}: {num} avatars of seed {seed}")


def num_drawn(folder: Path) -> int:
    """How many avatars were drawn into ``folder``: as many as its table has, which is written last."""
    labels = folder / "metadata.csv"
    return len(labels.read_text(encoding="utf-8").splitlines()) - 1 if labels.exists() else 0


def prepared(
    held_out: Path | None,
    train: Path | None,
    work: Path,
    sizes: Sizes,
    console: Console,
    image_size: int = IMAGE_SIZE,
) -> Bench:
    """The bench of one size, on folders of the user's or on avatars that are drawn into ``work``.

    ``held_out`` and ``train`` name folders of 64 px; those of another size lie beside them
    (:meth:`Folders.of_size`). Raises UsageError where one of the user's has too few avatars.
    """
    given = Folders(held_out=held_out or work / "held-out", train=train or work / "train", work=work)
    folders = given.of_size(image_size)
    for folder, is_own, num, seed in (
        (folders.held_out, held_out is None, sizes.num_held_out, HELD_OUT_SEED),
        (folders.train, train is None, sizes.num_train, TRAIN_SEED),
    ):
        if is_own:
            draw_material(folder, num, seed, image_size, console)
        elif num_drawn(folder) < num:
            raise UsageError(
                f"{folder}: {num_drawn(folder)} labelled avatars, and {num} are needed",
                hint=f"rdm data avatars {folder} --n {num} --size {image_size} --seed {seed}",
            )
    return Bench(held_out=folders.held_out, train=folders.train, work=folders.work)


def wanted_key(
    study: Study, name: str, shelf: Shelf, bench: Bench, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """All that a study's figures of a contender depend on: bundle, settings, seed, images, their features."""
    materials: Mapping[str, Material] = study.materials(bench, settings)
    return {
        "bundle": shelf.key(name, study.uses),
        "settings": dict(settings),
        "seed": SEED,
        **({} if image_size_of(name) == IMAGE_SIZE else {"image_size": image_size_of(name)}),
        **({"extractor_sha256": bench.extractor.sha256} if study.extracts else {}),
        "data": {kind: {"num": len(found), "sha256": found.digest} for kind, found in materials.items()},
    }


def run(
    studies: Sequence[Study],
    benches: Mapping[int, Bench],
    shelf: Shelf,
    store: Store,
    sizes: Sizes,
    console: Console,
    *,
    again: bool = False,
) -> list[str]:
    """Measure every contender of every study whose key differs from the one that is kept; ``again``: all.

    Each is measured on the one of ``benches`` that has images of its size.
    What fails is told and left out; returned are those, a few words each.
    """
    failed: list[str] = []
    for study in studies:
        settings = study.settings(sizes) | {"batch_size": sizes.batch_size}
        for name in study.contenders:
            label = f"{study.name}, {TITLES[name]}"
            if not shelf.is_shipped(name):
                console.note(f"{label}: not measured: bundle {source_of(name)} is not shipped")
                continue
            bench = benches[image_size_of(name)]
            key = wanted_key(study, name, shelf, bench, settings)
            kept = store.entries(study.name).get(name)
            if kept is not None and kept.key == key and not again:
                console.note(f"{label}: kept")
                continue
            try:
                entry = measured(study, name, bench, shelf, key, store.folder, console)
            except RdmError as error:
                console.problem(f"{label}: failed: {error}")
                failed.append(label)
                continue
            store.keep(study.name, name, entry)
            console.note(f"{label}: measured in {entry.seconds:.0f} s")
    return failed


def measured(
    study: Study,
    name: str,
    bench: Bench,
    shelf: Shelf,
    key: Mapping[str, Any],
    folder: Path,
    console: Console,
) -> Entry:
    """Measure one contender, and draw its sheets into ``folder``."""
    settings, subject = key["settings"], shelf.open(name)
    begun = time.perf_counter()
    with console.progress(f"{study.name}, {TITLES[name]}", study.work(bench, settings, subject)) as advance:
        part = study.measure(bench, settings, subject, advance)
    seconds = time.perf_counter() - begun
    sheets = [sheet for sheet in part.sheets if study.shows(sheet)]
    pictures = tuple(
        _drawn(sheet, folder / f"{study.name}-{name}-{k + 1}.webp") for k, sheet in enumerate(sheets)
    )
    return Entry(
        key=key,
        seconds=seconds,
        machine=machine(),
        figures=tuple(figure for figure in part.figures if study.keeps(figure)),
        notes=tuple(part.notes),
        pictures=pictures,
    )


def draw_plots(studies: Sequence[Study], store: Store, measured_of: Mapping[str, Sequence[Any]]) -> None:
    """Every study's plots of the figures ``measured_of`` it; nothing where matplotlib is not installed."""
    if not can_plot():
        return
    for study in studies:
        figures = measured_of[study.name]
        for plot, file in zip(study.plots(figures), plot_files(study, figures), strict=True):
            save_plot(plot, store.folder / file)


def machine() -> str:
    """What measured, as far as time depends on it."""
    cores, threads = os.cpu_count(), torch.get_num_threads()
    return f"{platform.machine()}, {cores} cores, {threads} threads, torch {torch.__version__}"


def _drawn(sheet: Sheet, path: Path) -> Picture:
    """The sheet's rows, one above the other, in ``path``."""
    tiles = [to_pil(picture) for _, row in sheet.rows for picture in row]
    drawing = grid(tiles, len(sheet.rows[0][1]))
    with atomic_path(path) as temporary:
        drawing.resize((drawing.width * ZOOM, drawing.height * ZOOM), 0).save(
            temporary, format="webp", quality=QUALITY
        )
    return Picture(file=path.name, caption=sheet.caption, rows=tuple(name for name, _ in sheet.rows))
