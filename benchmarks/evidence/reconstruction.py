"""How close images come back: from z alone, and from z with the x_T inferred for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evidence.contenders import ALL
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, listed, titled
from rdm_cli.evaluation.figures import Figure, Part
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.evaluation.reconstruction import (
    LEAD,
    measure_reconstruction,
    reconstruction_plots,
    reconstruction_work,
)
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot


def settings(sizes: Sizes) -> dict[str, Any]:
    return {"num": sizes.num_reconstructed, "steps": list(sizes.reconstruction_steps)}


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    return {"held-out": bench.images(chosen["num"])}


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    return reconstruction_work(subject, bench.images(chosen["num"]), chosen["steps"])


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    return measure_reconstruction(
        subject,
        bench.images(chosen["num"]),
        steps=chosen["steps"],
        inversion="ddim",
        distances=bench.distances,
        seed=SEED,
        advance=advance,
    )


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    words = f"-n {chosen['num']} --steps {listed(chosen['steps'])}"
    return [f"rdm evaluate reconstruction {' '.join(bundles)} {folders.held_out} {words}"]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    return [titled(figure) for figure in figures if figure.name != "MS-SSIM"]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    return reconstruction_plots([titled(f) for f in figures if f.name == "PSNR"])


STUDY = Study(
    name="reconstruction",
    title="Reconstruction",
    about=LEAD,
    contenders=ALL,
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
)
