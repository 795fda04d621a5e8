"""What is known: the kept figures of the bundles as they are shipped, and why others are missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evidence.contenders import DIFFAE, PDAE, Shelf, source_of
from evidence.store import Entry, Store
from evidence.study import Study
from rdm_cli.data.io.json_text import read_object
from rdm_cli.errors import RdmError
from rdm_cli.evaluation.figures import Figure
from rdm_cli.metrics.intervals import LEVEL, Estimate

AGAINST = "pdae-against-diffae.json"  # of benchmarks/pdae_against_diffae.py
CHANGED = "has changed since it was measured"
COMPARED = {"settings": "settings", "seed": "seeds", "data": "images", "extractor_sha256": "features"}
SWEEP = "lambda-sweep"  # of benchmarks/lambda_sweep.py


class NotMeasured(Exception):
    """A figure that there is none of; says why."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """``entries`` by study and contender; for others ``absent`` says why they are not there.

    ``against`` are the figures of PDAE's training beside Diff-AE's, and ``pretraining`` how many images its
    frozen model had seen before (None: not recorded); ``sweep`` those of LRDMs by lambda.
    """

    entries: Mapping[str, Mapping[str, Entry]]
    absent: Mapping[tuple[str, str], str] = field(default_factory=dict)
    against: tuple[Figure, ...] = ()
    pretraining: int | None = None
    sweep: tuple[Figure, ...] = ()

    def measured(self, study: str) -> list[Figure]:
        """All figures of a study, contender by contender."""
        return [figure for entry in self.entries.get(study, {}).values() for figure in entry.figures]

    def all(self, study: str, contender: str, name: str, **condition: Any) -> list[Figure]:
        """The figures whose name begins with ``name`` and that have this condition.

        Raises NotMeasured where there are none.
        """
        entry = self._entry(study, contender)
        found = chosen(entry.figures, name, **condition)
        if not found:
            told = ", ".join(f"{key} {value}" for key, value in condition.items())
            raise NotMeasured("; ".join(entry.notes) or f"no figure {name} at {told or 'all'}")
        return found

    def own_steps(self, study: str, contender: str) -> int:
        """The steps in which the bundle decodes what is drawn; NotMeasured where it names none."""
        steps = str(self._entry(study, contender).key["bundle"]["sampler"]).split()[-1]
        if not steps.isdigit():
            raise NotMeasured("its bundle names no steps for what is drawn")
        return int(steps)

    def _entry(self, study: str, contender: str) -> Entry:
        entry = self.entries.get(study, {}).get(contender)
        if entry is None:
            raise NotMeasured(self.absent.get((study, contender), "make evidence has not measured it"))
        return entry

    def one(self, study: str, contender: str, name: str, **condition: Any) -> Figure:
        """The first of :meth:`all`."""
        return self.all(study, contender, name, **condition)[0]


def chosen(figures: Sequence[Figure], name: str, **condition: Any) -> list[Figure]:
    """Those whose name begins with ``name`` and that have this condition."""
    wanted = condition.items()
    return [f for f in figures if f.name.startswith(name) and wanted <= dict(f.condition).items()]


def read_findings(store: Store, shelf: Shelf, studies: Sequence[Study], figures: Path) -> Findings:
    """What ``store`` has of the bundles on ``shelf``, and what other benchmarks left in ``figures``.

    Figures of another version of a bundle are left out, and so are those with other settings, seed or images
    than the first contender's of the study: they cannot be compared. Raises RdmError for a damaged file.
    """
    entries: dict[str, dict[str, Entry]] = {}
    absent: dict[tuple[str, str], str] = {}
    for study in studies:
        kept = store.entries(study.name)
        for name in study.contenders:
            if not shelf.is_shipped(name):
                absent[study.name, name] = f"bundle {source_of(name)} is not shipped"
            elif name not in kept:
                absent[study.name, name] = "make evidence has not measured it"
            elif kept[name].key["bundle"] != shelf.key(name, study.uses):
                absent[study.name, name] = f"bundle {source_of(name)} {CHANGED}"
            elif (other := _differs(kept[name], entries.get(study.name, {}))) is not None:
                absent[study.name, name] = f"its {other} differ from those of the others, make evidence again"
            else:
                entries.setdefault(study.name, {})[name] = kept[name]
    against, pretraining = read_against(figures / AGAINST)
    swept = Store(folder=figures).entries(SWEEP)
    return Findings(
        entries=entries,
        absent=absent,
        against=against,
        pretraining=pretraining,
        sweep=tuple(figure for entry in swept.values() for figure in entry.figures),
    )


def _differs(entry: Entry, others: Mapping[str, Entry]) -> str | None:
    """In what ``entry`` was measured otherwise than the first of ``others``; None: in nothing."""
    first = next(iter(others.values()), entry)
    same_size = entry.key.get("image_size") == first.key.get("image_size")
    found = (
        part
        for part in COMPARED
        if entry.key.get(part) != first.key.get(part)
        and (part != "data" or same_size or _numbers(entry) != _numbers(first))
    )
    return next((COMPARED[part] for part in found), None)


def _numbers(entry: Entry) -> dict[str, int]:
    """How many images of each kind: at another size the same faces are other files."""
    return {kind: found["num"] for kind, found in entry.key["data"].items()}


def read_against(path: Path) -> tuple[tuple[Figure, ...], int | None]:
    """The errors that benchmarks/pdae_against_diffae.py measured, and the images of pretraining.

    Nothing where it was not run; raises RdmError for a damaged file.
    """
    if not path.exists():
        return (), None
    try:
        content = read_object(path)
        results = content.get("results", content)
        num = int(content.get("num_held_out", 0))
        figures = tuple(
            _error(name, int(seen), kind, found, num)
            for method, name in (("diffae", DIFFAE), ("pdae", PDAE))
            for seen, point in results[method].items()
            for kind, found in point.items()
            if kind in ("inferred", "random")
        )
        pretraining = content.get("dpm_images")
        return figures, None if pretraining is None else int(pretraining)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RdmError(f"{path}: holds no figures of that benchmark ({error!r})") from error


def _error(name: str, seen: int, kind: str, found: Mapping[str, float], num: int) -> Figure:
    value, half = float(found["mse"]), float(found["half_width"])
    interval = Estimate(
        value=value, low=value - half, high=value + half, level=LEVEL, num_resamples=0, method="normal"
    )
    return Figure(
        bundle=name,
        name="MSE",
        value=value,
        num=num,
        condition={"images seen": seen, "x_T": kind},
        interval=interval,
        better="lower",
        computed_with={"interval": "normal approximation over images"},
    )
