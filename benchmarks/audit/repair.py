"""Repair a classifier that looks at the wrong thing: worst-group accuracy with and without ``rdm augment``.

    python -m benchmarks.audit.repair --train TRAIN --faces HELD_OUT --work DIR

The classifiers are to tell who smiles, and of the 600 faces that they learn from, 98 % wear glasses where
they smile, and 2 % where they do not. Three kinds are trained: logistic regression on pixels, on z, and a
small CNN; each on the faces as they are, on the same with ``rdm augment``'s pictures, which needs no table of
who wears glasses, and on the faces weighted by their group, which needs one: the renderer's, or what the
bundle's classifiers read in z. Accuracy is that on other faces, in the worst of the four groups of smile and
glasses.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.audit.planted import SIDE, Case, Faces, in_range, probabilities, trained
from rdm_cli.data.images.pixels import to_pixels
from rdm_cli.jobs.augment import labelled_images, plan_augmentation
from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline

LABEL, PLANTED = "smiling", "glasses"
NUM, DRAWN, STRENGTH, CNN_EPOCHS, SEEDS = 600, 1000, 0.98, 40, (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Examples:
    """N pictures, uint8 (N, 3, H, W), their z (N, d), who smiles (N,), and who wears glasses (N,)."""

    pictures: Tensor
    z: Tensor
    label: Tensor
    group: Tensor

    def weights(self, group: Tensor) -> Tensor:
        """What each counts, (N,), so that the four cells of label and ``group`` count the same."""
        cell = (2 * self.label + group).long()
        counts = torch.bincount(cell, minlength=4).clamp(min=1)
        return len(cell) / (4 * counts[cell].float())


def examples(
    pipeline: Pipeline, folder: Path, names: list[str], label: list[float], group: list[float]
) -> Examples:
    """Pictures ``names`` of ``folder``."""
    paths = [folder / name for name in names]
    z = pipeline.encode(paths, with_x_T=False).z.flatten(1)
    pictures = to_pixels(pipeline.load_images(paths))
    return Examples(pictures=pictures, z=z, label=torch.tensor(label), group=torch.tensor(group))


def write_biased(train: Faces, folder: Path) -> tuple[list[str], np.ndarray]:
    """Copy the faces to learn from, and write labels.csv, with the label alone; gives names and rows."""
    case = Case(label=LABEL, planted=PLANTED, strength=STRENGTH, seed=27)
    rows = np.array(sorted(train.chosen(case, DRAWN)[:NUM].tolist()))
    names = [train.files[row] for row in rows]
    (folder / "biased").mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(train.folder / name, folder / "biased" / name)
    with (folder / "labels.csv").open("w", newline="") as file:
        answers = train.column(LABEL)[rows].astype(int)
        csv.writer(file).writerows([("file_name", LABEL), *zip(names, answers, strict=True)])
    return names, rows


Fit = Callable[[Examples, Tensor | None, int], Callable[[Examples], Tensor]]
"""(examples, what each counts, seed) to a function of examples that says who smiles, bool (N,)."""


def small_cnn(some: Examples, weight: Tensor | None, seed: int) -> Callable[[Examples], Tensor]:
    """A network of three convolutions."""
    network = trained(some.pictures, some.label, seed=seed, weight=weight, epochs=CNN_EPOCHS)
    return lambda other: probabilities(network, other.pictures) > 0.5


def logistic(view: Callable[[Examples], Tensor]) -> Fit:
    """scikit-learn's logistic regression on standardised values of a ``view``."""

    def fit(some: Examples, weight: Tensor | None, seed: int) -> Callable[[Examples], Tensor]:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        found = make_pipeline(StandardScaler(), LogisticRegression(C=10, max_iter=3000, random_state=seed))
        counts = None if weight is None else weight.numpy()
        found.fit(view(some).numpy(), some.label.numpy(), logisticregression__sample_weight=counts)
        return lambda other: torch.from_numpy(found.predict(view(other).numpy())) > 0.5

    return fit


def pixels(some: Examples) -> Tensor:
    """Pictures of 32 px as rows of numbers."""
    return F.interpolate(in_range(some.pictures), size=(SIDE, SIDE), mode="area").flatten(1)


KINDS: Mapping[str, Fit] = {
    "logistic regression on pixels": logistic(pixels),
    "logistic regression on z": logistic(lambda some: some.z),
    "small CNN": small_cnn,
}


def by_group(says: Callable[[Examples], Tensor], test: Examples) -> list[float]:
    """Accuracy in the four groups: no smile and no glasses, no smile with glasses, and so on."""
    right = says(test) == (test.label > 0.5)
    cell = 2 * test.label + test.group
    return [float(right[cell == c].float().mean()) for c in range(4)]


def main() -> None:
    """Run it; prints a table, and writes repair.json below ``--work``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--bundle", default="avatars64-diffae")
    asked = parser.parse_args()
    folder, train, pipeline = asked.work / "repair", Faces(asked.train), open_pipeline(asked.bundle)
    names, rows = write_biased(train, folder)
    found = labelled_images(folder / "biased", folder / "labels.csv", LABEL)
    result = plan_augmentation(pipeline, found, [PLANTED], LABEL, folder / "balanced").carry_out()
    print(result)
    label, group = (train.column(name)[rows].tolist() for name in (LABEL, PLANTED))
    biased = examples(pipeline, folder / "biased", names, label, group)
    with (folder / "balanced" / "metadata.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    balanced = examples(
        pipeline,
        folder / "balanced",
        [row["file_name"] for row in table],
        [float(row[LABEL]) for row in table],
        [float(row[PLANTED]) for row in table],
    )
    others = Faces(asked.faces)
    test = examples(
        pipeline, asked.faces, others.files, others.column(LABEL).tolist(), others.column(PLANTED).tolist()
    )
    directions = pipeline.bundle.directions
    read = (directions.logits(biased.z)[:, directions.index(PLANTED)] > 0).float()
    ways: Mapping[str, tuple[Examples, Tensor | None]] = {
        "as they are": (biased, None),
        "with rdm augment (no group labels)": (balanced, None),
        "weighted by group (labels of the renderer)": (biased, biased.weights(biased.group)),
        "weighted by group (read in z)": (biased, biased.weights(read)),
    }
    results = []
    for kind, fit in KINDS.items():
        for way, (some, weight) in ways.items():
            groups = [
                by_group(fit(some, weight, seed), test) for seed in (SEEDS if kind == "small CNN" else (0,))
            ]
            worst = [min(one) for one in groups]
            results.append({"classifier": kind, "trained on": way, "worst": worst, "groups": groups})
            mean = sum(sum(one) for one in groups) / (4 * len(groups))
            print(
                f"{kind:30} {way:44} worst group {100 * sum(worst) / len(worst):5.1f} % "
                f"({', '.join(f'{100 * one:.1f}' for one in worst)}), mean of groups {100 * mean:.1f} %",
                flush=True,
            )
    (folder / "repair.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
