"""What a study is, what it is given, and how large it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from evidence.contenders import IMAGE_SIZE, TITLES
from rdm_cli.evaluation.distances import PictureDistance, open_distances
from rdm_cli.evaluation.figures import Figure, Part, Sheet
from rdm_cli.evaluation.judging import Court, court
from rdm_cli.evaluation.material import Material, Subject, gather, gather_labelled
from rdm_cli.metrics.features import FeatureExtractor, open_effnet_lite0
from rdm_cli.pipeline.running import Advance
from rdm_cli.reports.plots import Plot

SEED = 0
WORK = "runs/evidence"
HELD_OUT_SEED, TRAIN_SEED = 2, 1
Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Labelled avatars of one size: those to measure on, to learn from, and a place for more."""

    held_out: Path
    train: Path
    work: Path

    def of_size(self, image_size: int) -> Folders:
        """The folders beside these with the same faces, drawn ``image_size`` px a side."""
        if image_size == IMAGE_SIZE:
            return self
        held_out, train = (f.with_name(f"{f.name}-{image_size}") for f in (self.held_out, self.train))
        return Folders(held_out=held_out, train=train, work=self.work / f"{image_size}-px")


FOLDERS = Folders(held_out=Path(f"{WORK}/held-out"), train=Path(f"{WORK}/train"), work=Path(WORK))
"""As the page names them."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many images, and how many steps; the defaults are those of docs/evidence.md.

    ``num_train`` images train the judge of edits; ``num_edited`` are moved for each attribute and direction;
    ``num_sets`` times ``num_examples`` are given for each attribute, and ``num_conditional`` samples drawn
    after each set. ``batch_size`` images are worked on at once: 40 is fastest at 64 px on two cores.
    """

    batch_size: int = 40
    num_held_out: int = 1000
    num_train: int = 12000
    num_reconstructed: int = 50
    reconstruction_steps: tuple[int, ...] = (10, 20, 100)
    num_probed: int = 1000
    num_edited: int = 48
    scales: tuple[float, ...] = (-0.3, 0.15, 0.3)
    attributes: tuple[str, ...] = ("smiling", "glasses", "beard")
    num_denoised: int = 256
    every: int = 100
    num_samples: int = 300
    sampling_steps: tuple[int, ...] = (1, 2, 10, 50)
    few_shot_attributes: tuple[str, ...] = ("smiling", "glasses", "beard", "hat")
    num_examples: int = 5
    num_sets: int = 4
    num_conditional: int = 25
    num_unconditional: int = 200
    max_draws: int = 5000
    num_pairs: int = 32
    num_frames: int = 9
    num_halfway: int = 150
    steps: int = 20


FULL = Sizes()
TINY = Sizes(
    batch_size=4,
    num_held_out=40,
    num_train=48,
    num_reconstructed=4,
    reconstruction_steps=(2,),
    num_probed=40,
    num_edited=2,
    attributes=("smiling", "glasses"),
    num_denoised=4,
    every=500,
    num_samples=12,
    sampling_steps=(2,),
    few_shot_attributes=("smiling",),
    num_examples=2,
    num_sets=1,
    num_conditional=2,
    num_unconditional=4,
    num_pairs=2,
    num_frames=3,
    num_halfway=10,
    steps=2,
)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all studies share at one size: folders of labelled images, and a ``work`` folder.

    Networks are opened once.
    """

    held_out: Path
    train: Path
    work: Path
    _materials: dict[tuple[Path, int, bool], Material] = field(default_factory=dict)
    _courts: dict[int, Court] = field(default_factory=dict)

    def images(self, num: int) -> Material:
        """The first ``num`` held-out images; raises UsageError where there are none."""
        return self._material(self.held_out, num, labelled=False)

    def labelled(self, num: int) -> Material:
        """The same with their labels; raises UsageError where there are none."""
        return self._material(self.held_out, num, labelled=True)

    def training(self, num: int) -> Material:
        """The first ``num`` labelled images that bundles may have been trained on."""
        return self._material(self.train, num, labelled=True)

    def _material(self, folder: Path, num: int, *, labelled: bool) -> Material:
        key = (folder, num, labelled)
        if key not in self._materials:
            self._materials[key] = (
                gather_labelled(folder, num, table=None, names=None, purpose="this study")
                if labelled
                else gather(folder, num)
            )
        return self._materials[key]

    def court(self, num: int) -> Court:
        """Held-out images to edit, and a judge trained on others, ``num`` of each at the most."""
        if num not in self._courts:
            self._courts[num] = court(self.labelled(num), self.training(num), seed=SEED)
        return self._courts[num]

    @cached_property
    def distances(self) -> list[PictureDistance]:
        """The perceptual distances that are installed."""
        return open_distances()[0]

    @cached_property
    def extractor(self) -> FeatureExtractor:
        """The network on whose features distributions are compared; raises UsageError without it."""
        return open_effnet_lite0()


@dataclass(frozen=True, kw_only=True)
class Study:
    """One evaluation of several contenders.

    ``settings`` are what ``measure`` reads, and part of an entry's key, as are digests of the ``materials``
    and of what a bundle ``uses`` besides its networks. ``measure`` gives figures, of which those that
    ``keeps`` are kept, and sheets, of which those that ``shows`` are drawn. ``tables`` arranges figures for
    the page, under the name that each column or ``row`` is to have; ``commands`` reproduce them, for bundles
    and folders as the user names them. ``extracts``: figures rest on the bench's extractor.
    """

    name: str
    title: str
    about: str
    contenders: tuple[str, ...]
    settings: Callable[[Sizes], dict[str, Any]]
    materials: Callable[[Bench, Settings], Mapping[str, Material]]
    measure: Callable[[Bench, Settings, Subject, Advance], Part]
    work: Callable[[Bench, Settings, Subject], float]
    commands: Callable[[Settings, Sequence[str], Folders], list[str]]
    tables: Callable[[Sequence[Figure]], Sequence[Figure]]
    plots: Callable[[Sequence[Figure]], Sequence[Plot]]
    uses: tuple[str, ...] = ()
    keeps: Callable[[Figure], bool] = lambda figure: not figure.detail
    shows: Callable[[Sheet], bool] = lambda sheet: True
    row: str = "figure"
    extracts: bool = False


def titled(figure: Figure) -> Figure:
    """``figure`` under its method's title instead of its bundle's name."""
    return replace(figure, bundle=TITLES.get(figure.bundle, figure.bundle))


def without(figure: Figure, *keys: str) -> Figure:
    """``figure`` without some of its conditions."""
    return replace(figure, condition={k: v for k, v in figure.condition.items() if k not in keys})


def turned(figure: Figure, row: str) -> Figure:
    """``figure`` for a table with a row for each ``row`` and a column for each kind of figure."""
    return replace(figure, bundle=figure.label, name=row, unit="", better="", condition={})


def listed(values: Sequence[Any]) -> str:
    """``values`` as an option takes them."""
    return ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
