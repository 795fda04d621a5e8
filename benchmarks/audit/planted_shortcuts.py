"""Does ``rdm audit`` name the shortcut of a classifier? 40 with a planted one, 20 without, and the truth.

    python -m benchmarks.audit.planted_shortcuts --train TRAIN --faces HELD_OUT --seed 20261127 --work DIR

``--train`` are avatars with metadata.csv, ``--faces`` those that are edited, of ``--seed``. What each
classifier really does is known from true counterfactuals, which the renderer draws.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.audit.planted import Case, Faces, cases, classifier_of, probabilities
from benchmarks.audit.true_effects import keeping, true_pairs
from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.evaluation.audit import LEAST_EFFECT, LEAST_FACES, SIGNIFICANT, Audit, audit
from rdm_cli.evaluation.material import gather
from rdm_cli.evaluation.moved import MovedFaces
from rdm_cli.metrics.effects import sign_flip_p_values
from rdm_cli.pipeline.pipeline import open_pipeline

PER_SIDE = 50  # faces with true counterfactuals, that lack an attribute and that have it


def true_differences(network: torch.nn.Module, pairs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The score with each attribute less that without it, of each face: (N,)."""
    return {
        name: probabilities(network, some[:, 1]) - probabilities(network, some[:, 0])
        for name, some in pairs.items()
        if len(some) >= LEAST_FACES
    }


def measured(case: Case, network: torch.nn.Module, found: Audit, pairs: dict[str, Tensor]) -> dict[str, Any]:
    """What the audit said of one classifier, and what is true."""
    by_name = true_differences(network, keeping(pairs, case.label))
    longest = max(map(len, by_name.values()))
    table = torch.full((longest, len(by_name)), math.nan)
    for k, values in enumerate(by_name.values()):
        table[: len(values), k] = values
    p = dict(zip(by_name, sign_flip_p_values(table, seed=0).tolist(), strict=True))
    effects = {name: float(values.mean()) for name, values in by_name.items()}
    others = sorted((name for name in effects if name != case.label), key=lambda name: -abs(effects[name]))
    said = [f for f in found.findings if not f.is_target and f.effect is not None]
    return {
        "case": case.name,
        "label": case.label,
        "planted": case.planted,
        "strength": case.strength,
        "said": {f.name: f.effect.value for f in found.findings if f.effect is not None},
        "named_first": said[0].name,
        "accused": [f.name for f in found.accused],
        "true": effects,
        "true_first": others[0],
        "truly_driving": [n for n in others if abs(effects[n]) >= found.threshold and p[n] < SIGNIFICANT],
        "threshold": found.threshold,
    }


def main() -> None:
    """Run the bench; prints a line a classifier, and writes results.json below ``--work``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--num", type=int, default=48, help="faces on which each attribute is moved")
    parser.add_argument("--bundle", default="avatars64-diffae")
    parser.add_argument(
        "--attributes", help="only these, between commas; all that the bundle knows otherwise"
    )
    asked = parser.parse_args()
    train, edits = Faces(asked.train), asked.work / asked.faces.name
    material = gather(asked.faces, None)
    pipeline = open_pipeline(asked.bundle)
    faces = MovedFaces(pipeline=pipeline, material=material, num=asked.num, folder=edits / "edits")
    size = pipeline.bundle.model.image_size
    place = edits / "pairs.safetensors"
    pairs = true_pairs(asked.seed, len(material), per_side=PER_SIDE, size=size, place=place)
    names = asked.attributes.split(",") if asked.attributes else None
    results = []
    for case in cases():
        network = classifier_of(case, train, asked.work / "classifiers")
        model = open_classifier(network, labels=[case.label], image_size=size)
        results.append(
            measured(case, network, audit(faces, model, target=case.label, attributes=names), pairs)
        )
        print(line_of(results[-1]), flush=True)
    (edits / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(summary(results))


def line_of(one: dict[str, Any]) -> str:
    """One classifier in a line."""
    first, true = one["named_first"], one["true_first"]
    label = one["label"]
    own = f"{label} {one['said'].get(label, math.nan):+.2f} (true {one['true'][label]:+.2f})"
    return (
        f"{one['case']:28} {own:34} audit {first} {one['said'][first]:+.3f}, "
        f"truth {true} {one['true'][true]:+.3f}; accused {one['accused']}, truly {one['truly_driving']}"
    )


def summary(results: list[dict[str, Any]]) -> str:
    """The scores."""
    planted = [one for one in results if one["planted"]]
    clean = [one for one in results if not one["planted"]]
    learned = [one for one in planted if one["planted"] in one["truly_driving"]]
    accused = [one for one in clean if one["accused"]]
    gaps = [abs(one["said"][n] - one["true"][n]) for one in results for n in one["said"] if n in one["true"]]
    agreed = [
        (n in one["accused"]) == (n in one["truly_driving"])
        for one in results
        for n in one["true"]
        if n != one["label"] and n in one["said"]
    ]
    return "\n".join(
        [
            f"named the planted attribute first: {_first(planted, 'named_first')} of {len(planted)}",
            f"  by true counterfactuals it is first in {_first(planted, 'true_first')}, "
            f"and drives the model in {len(learned)}; of these named first {_first(learned, 'named_first')}",
            f"accused the planted attribute: {sum(one['planted'] in one['accused'] for one in planted)}",
            f"clean ones accused of anything: {len(accused)} of {len(clean)}: "
            + ", ".join(f"{one['case']} {one['accused']}, truly {one['truly_driving']}" for one in accused),
            f"verdicts on attributes that agree with the truth's: {sum(agreed)} of {len(agreed)}",
            f"mean difference of effect from the true one: {sum(gaps) / len(gaps):.4f}",
            f"threshold {LEAST_EFFECT}, p {SIGNIFICANT}",
        ]
    )


def _first(some: list[dict[str, Any]], who: str) -> int:
    return sum(one[who] == one["planted"] for one in some)


if __name__ == "__main__":
    main()
