"""Who is compared: the shipped bundles, by name, and the plain diffusion model inside PDAE's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rdm_cli import open_pipeline
from rdm_cli.bundles.bundle import SCHEDULER, bundle_digest, open_bundle
from rdm_cli.bundles.places import INDEX
from rdm_cli.bundles.reading import read_json
from rdm_cli.bundles.scheduler_json import read_scheduler
from rdm_cli.bundles.writing import save_bundle
from rdm_cli.errors import BundleError
from rdm_cli.evaluation.material import Subject
from rdm_cli.methods.dpm.method import METHOD as DPM_METHOD
from rdm_cli.methods.dpm.model import DPM, DPMConfig
from rdm_cli.methods.method import Method
from rdm_cli.registry import METHODS, load

DIFFAE, PDAE, LRDM, PLAIN = "avatars64-diffae", "avatars64-pdae", "avatars128-lrdm", "avatars64-dpm"
TITLES = {DIFFAE: "Diff-AE", PDAE: "PDAE", LRDM: "LRDM", PLAIN: "plain DPM"}
METHOD_NAMES = {DIFFAE: "diffae", PDAE: "pdae", LRDM: "lrdm", PLAIN: "dpm"}
WITH_Z = (DIFFAE, PDAE, LRDM)
ALL = (*WITH_Z, PLAIN)
IMAGE_SIZE = 64
OTHER_SIZES = {LRDM: 128}
"""Pixels a side, of contenders that do not work on 64."""
CARD = """# {name}

The plain diffusion model that PDAE's bundle {source} is built around and leaves as it was: its `unet`, weight
for weight. Written by benchmarks/make_evidence.py, for comparisons.
"""


def source_of(name: str) -> str:
    """The shipped bundle that a contender's networks lie in."""
    return PDAE if name == PLAIN else name


def image_size_of(name: str) -> int:
    """Pixels a side of the images that a contender works on."""
    return OTHER_SIZES.get(name, IMAGE_SIZE)


def method_of(name: str) -> Method:
    """A contender's method."""
    method: Method = load(METHODS, "method", METHOD_NAMES[name])
    return method


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """Where bundles lie: shipped ones in ``bundles``, what is made of them in ``work``.

    They are opened to work on ``batch_size`` images at once.
    """

    bundles: Path
    work: Path
    batch_size: int
    opened: dict[str, Subject] = field(default_factory=dict)

    def is_shipped(self, name: str) -> bool:
        """Whether the bundle that ``name`` needs is there."""
        return (self.bundles / source_of(name) / INDEX).is_file()

    def key(self, name: str, uses: Sequence[str] = ()) -> dict[str, str]:
        """What figures of a shipped contender depend on: digests of its networks and of what else they use,
        and how it samples.

        ``uses`` are sub-folders that the bundle's own digest leaves out. Raises BundleError for a damaged
        bundle.
        """
        source = source_of(name)
        folder = self.bundles / source
        method: Method = load(METHODS, "method", str(read_json(folder / INDEX).get("method")))
        present = [c for c in method.components if (folder / c).is_dir()]
        sampler = read_scheduler(read_json(folder / SCHEDULER))[0].sampler
        # the bundle's digest leaves out how it samples by default, which draws do not
        own = {
            "bundle": source,
            "digest": bundle_digest(folder, present),
            "sampler": " ".join(map(str, (sampler.solver, sampler.spacing, sampler.steps))),
        }
        return own | {part: _digest_of_files(folder / part) for part in uses}

    def open(self, name: str) -> Subject:
        """A shipped contender under its own name; opened once. Raises BundleError."""
        if name not in self.opened:
            folder = self.bundles / name
            if name == PLAIN:
                folder = self.work / PLAIN
                write_plain(self.bundles / PDAE, folder)
            pipeline = open_pipeline(str(folder), batch_size=self.batch_size)
            self.opened[name] = Subject(name=name, pipeline=pipeline)
        return self.opened[name]


def write_plain(pdae: Path, folder: Path) -> None:
    """The frozen half of the bundle ``pdae`` as a plain DPM's bundle ``folder``; raises BundleError."""
    bundle = open_bundle(str(pdae))
    if bundle.method.name != METHOD_NAMES[PDAE]:
        raise BundleError(f"{pdae}: a bundle of PDAE is needed, and this is one of {bundle.method.title}")
    model: Any = bundle.model
    config = DPMConfig(unet=model.config.unet, prediction=model.prediction, sampling=model.sampling)
    plain = DPM(config)
    plain.unet = model.unet
    save_bundle(folder, DPM_METHOD, plain, card=CARD.format(name=folder.name, source=pdae.name))


def _digest_of_files(folder: Path) -> str:
    if not folder.is_dir():
        return "none"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
