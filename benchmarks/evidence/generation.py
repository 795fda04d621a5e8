"""How like images the samples are, at several T: of each bundle's own prior, and of the plain DPM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from evidence.contenders import ALL
from evidence.study import SEED, Bench, Folders, Settings, Sizes, Study, listed, titled, without
from rdm_cli.evaluation.figures import Figure, Part, curves, drawn
from rdm_cli.evaluation.generation import (
    LEAD,
    NO_Z,
    Reference,
    generation_work,
    measure_generation,
)
from rdm_cli.evaluation.material import Material, Subject
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

ABOUT = f"{LEAD} For images of the same kind KD is 0 on average, and may fall below."
PRIORS = {"latent-ddim": "latent DPM", "gaussian": "N(0, I)", NO_Z: NO_Z}
TABLED = ("KD-", "FD-", "precision", "recall")


def settings(sizes: Sizes) -> dict[str, Any]:
    return {"num": sizes.num_samples, "steps": list(sizes.sampling_steps)}


def materials(bench: Bench, chosen: Settings) -> dict[str, Material]:
    return {"held-out": bench.images(chosen["num"])}


def work(bench: Bench, chosen: Settings, subject: Subject) -> float:
    return generation_work(subject, chosen["num"], chosen["steps"])


def measure(bench: Bench, chosen: Settings, subject: Subject, advance: Advance) -> Part:
    return measure_generation(
        subject,
        Reference(material=bench.images(chosen["num"]), extractor=bench.extractor),
        num=chosen["num"],
        steps=chosen["steps"],
        seed=SEED,
        advance=advance,
    )


def commands(chosen: Settings, bundles: Sequence[str], folders: Folders) -> list[str]:
    words = f"-n {chosen['num']} --steps {listed(chosen['steps'])}"
    return [f"rdm evaluate generation {' '.join(bundles)} {folders.held_out} {words}"]


def tables(figures: Sequence[Figure]) -> list[Figure]:
    return [_named(f) for f in figures if f.name.startswith(TABLED)]


def plots(figures: Sequence[Figure]) -> list[Plot]:
    named = [_named(f) for f in figures if f.name.startswith("KD-")]
    return drawn(*(curves(named, name, "T") for name in dict.fromkeys(f.name for f in named)))


def _named(figure: Figure) -> Figure:
    named = titled(figure)
    prior = PRIORS.get(str(figure.condition["prior"]), str(figure.condition["prior"]))
    return replace(without(named, "prior"), bundle=f"{named.bundle}, {prior}")


STUDY = Study(
    name="generation",
    title="Samples",
    about=ABOUT,
    contenders=ALL,
    uses=("prior",),
    settings=settings,
    materials=materials,
    measure=measure,
    work=work,
    commands=commands,
    tables=tables,
    plots=plots,
    extracts=True,
)
