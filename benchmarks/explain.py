"""Counterfactual pictures against true ones: `explain`, and plain gradient ascent in pixels and in z.

    rdm data avatars train --n 60000 --seed 1
    rdm data avatars held-out --n 1000 --seed 20261127
    python benchmarks/explain.py --train train --held-out held-out --seed-of-faces 20261127 \
        --attr smiling --attr glasses --attr beard --num 67 -o runs/explain

For each attribute a small CNN is trained on 4,000 faces to tell it. Faces that have a true counterfactual,
half of them with the attribute and half without, are changed until the CNN says otherwise with a probability
of 0.9, in three ways: by `Pipeline.explain`, which asks the CNN alone; by gradient ascent on the pixels; and
by gradient ascent on z, decoded with the noise that it began with. Each picture is compared with the nearest
true one (the same face, drawn with that attribute alone changed). A judge that was trained on other faces
says in which pictures that attribute changed, and no other that stays in the true one. Seconds are those of
the processor on one thread. What was measured already is not measured again.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from rdm_cli import open_pipeline
from rdm_cli.classifiers.classifier import Classifier
from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.data.avatars import Avatar, draw_avatar
from rdm_cli.data.counterfactuals import counterfactuals
from rdm_cli.data.images.pixels import load_rgb, to_pil, to_pixels, to_unit_range
from rdm_cli.data.images.sheet import Tile, sheet
from rdm_cli.data.io.atomic import atomic_path
from rdm_cli.data.nearest_truth import Truths
from rdm_cli.evaluation.generation import features
from rdm_cli.metrics.distribution import kernel_distance
from rdm_cli.metrics.features import open_effnet_lite0
from rdm_cli.metrics.intervals import share_estimate
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.explaining import TARGET, ask
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.runtime import set_up
from rdm_cli.training.pixel_judge import PixelJudge, train_pixel_judge

NUM_TRAIN, NUM_JUDGE = 4000, 4000
AT_ONCE = 64
NUM_KD = 600
PIXEL_STEPS, PIXEL_STEP = 200, 0.02  # of a picture's root mean square, in [-1, 1]
Z_STEPS, Z_STEP = 60, 0.05  # of a code's typical length
SHOWN = 12
GOAL = math.log(TARGET / (1 - TARGET)) - 0.1  # rounding to 8 bits may take so much of the log-odds
WAYS = ("explain", "ascent in pixels", "ascent in z")


@dataclass(frozen=True, kw_only=True)
class Faces:
    """Drawn faces of a folder: ``images`` (N, 3, H, W) in [-1, 1] and the ``avatars``."""

    images: Tensor
    avatars: Sequence[Avatar]

    @staticmethod
    def read(folder: Path, seed: int, numbers: Sequence[int]) -> Faces:
        """Those of ``numbers``."""
        pictures = [load_rgb(folder / f"{number:06d}.png") for number in numbers]
        pixels = torch.stack([torch.frombuffer(bytearray(p.tobytes()), dtype=torch.uint8) for p in pictures])
        size = pictures[0].height
        x = to_unit_range(pixels.reshape(len(pictures), size, size, 3).permute(0, 3, 1, 2))
        return Faces(images=x, avatars=[draw_avatar(seed, number) for number in numbers])

    def labels(self, names: Sequence[str]) -> Tensor:
        """(N, K), NaN where a label is not known."""
        told = [avatar.labels() for avatar in self.avatars]
        values = [[one[name] for name in names] for one in told]
        return torch.tensor([[float("nan") if v is None else float(v) for v in row] for row in values])


def trained(path: Path, folder: Path, seed: int, first: int, num: int, names: Sequence[str]) -> PixelJudge:
    """A CNN on faces ``first`` to ``first + num`` that tells ``names``; kept at ``path``."""
    from rdm_cli.data.io.tensor_files import read_tensors, write_tensors
    from rdm_cli.models.pixel_classifier import PixelClassifier, PixelClassifierConfig

    if not path.is_file():
        faces = Faces.read(folder, seed, range(first, first + num))
        judge = train_pixel_judge(faces.images, faces.labels(names), names, seed=first)
        write_tensors(path, judge.network.state_dict(), {})
    network = PixelClassifier(PixelClassifierConfig(num_attributes=len(names)))
    network.load_state_dict(read_tensors(path))
    return PixelJudge(network=network.eval().requires_grad_(False), names=tuple(names), num_images=num)


def by_pixels(images: Tensor, model: Classifier) -> Tensor:
    """Plain gradient ascent on pixels: steps of one length up the log-odds, until the goal is reached."""
    return _ascent(images, images, lambda x, rows: x, model, step=PIXEL_STEP, num_steps=PIXEL_STEPS)


def by_z(images: Tensor, model: Classifier, pipeline: Pipeline) -> Tensor:
    """Plain gradient ascent on standardised z, decoded with the same noise as before."""
    codes = pipeline.encode(images, with_x_T=False)
    spread = pipeline.bundle.directions.spread

    def decoded(y: Tensor, rows: Tensor) -> Tensor:
        return pipeline.traced(y * spread, codes.select(rows.tolist()))

    return _ascent(codes.z.flatten(1) / spread, images, decoded, model, step=Z_STEP, num_steps=Z_STEPS)


def _ascent(
    start: Tensor,
    images: Tensor,
    decode: Callable[[Tensor, Tensor], Tensor],
    model: Classifier,
    *,
    step: float,
    num_steps: int,
) -> Tensor:
    """The pictures of ``start`` after steps of root mean square ``step`` along the gradient."""
    question, _, _ = ask(model, images, class_name=model.classes[0], target=TARGET)
    found, values = images.clone(), start.clone()
    left = torch.arange(len(images))
    for _ in range(num_steps):
        v = values[left].requires_grad_()
        pictures = decode(v, left).clamp(-1, 1)
        log_odds = model.log_odds(pictures)[:, 0] * question.signs[left]
        (gradient,) = torch.autograd.grad(log_odds.sum(), v)
        found[left] = pictures.detach()
        rms = gradient.flatten(1).square().mean(dim=1).sqrt().clamp(min=1e-12)
        values[left] = (v + step * gradient / rms.reshape(-1, *[1] * (v.ndim - 1))).detach()
        left = left[(log_odds < question.goal).detach()]
        if not len(left):
            break
    return found


def cases(faces: Faces, attribute: str, num: int) -> list[int]:
    """The first ``num`` faces with a true counterfactual, half of them with the attribute."""
    sides: dict[bool, list[int]] = {True: [], False: []}
    for row, avatar in enumerate(faces.avatars):
        if counterfactuals(avatar, attribute):
            sides[bool(avatar.labels()[attribute])].append(row)
    half = min(num // 2, len(sides[True]))
    return sorted(sides[True][:half] + sides[False][: num - half])


def measured(
    way: str, images: Tensor, avatars: Sequence[Avatar], made: Tensor, attribute: str, judge: PixelJudge
) -> tuple[list[dict[str, Any]], Tensor]:
    """What is to be said of each picture, and the nearest true ones."""
    before, after = judge.labels(images), judge.labels(made)
    rows, truths = [], []
    for k, avatar in enumerate(avatars):
        true = Truths(counterfactuals(avatar, attribute), images.shape[-1])
        nearest = true.nearest(to_pixels(made[k]))
        truths.append(to_unit_range(true.picture(nearest)))
        old, new = avatar.labels(), nearest.labels()
        others = [
            i for i, n in enumerate(judge.names) if n != attribute and old[n] is not None and old[n] == new[n]
        ]
        changed = bool(after[k, judge.names.index(attribute)]) != bool(old[attribute])
        rows.append(
            {
                "way": way,
                "attribute": attribute,
                "psnr_db": min(60.0, float(psnr(made[k : k + 1], truths[-1][None])[0])),
                "attribute_changed": changed,
                "others_kept": bool((before[k, others] == after[k, others]).all()),
            }
        )
    return rows, torch.stack(truths)


def main(
    train: Annotated[Path, typer.Option(help="Faces to train on.")],
    held_out: Annotated[Path, typer.Option(help="Faces to be changed.")],
    seed_of_faces: Annotated[int, typer.Option(help="The seed of those.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="For networks, figures and sheets.")],
    train_seed: Annotated[int, typer.Option(help="The seed of those to train on.")] = 1,
    attr: Annotated[list[str] | None, typer.Option(help="Attributes.")] = None,
    num: Annotated[int, typer.Option(help="Faces for each attribute.")] = 67,
    bundle: Annotated[str, typer.Option(help="The bundle.")] = "avatars64-diffae",
    ways: Annotated[str, typer.Option(help="Which ways.")] = ",".join(WAYS),
) -> None:
    """Measure, and print a table."""
    set_up(device="cpu", threads=1)
    output.mkdir(parents=True, exist_ok=True)
    pipeline = open_pipeline(bundle)
    names = list(draw_avatar(0, 0).labels())
    judge = trained(output / "judge.safetensors", train, train_seed, NUM_TRAIN, NUM_JUDGE, names)
    numbers = range(len(list(held_out.glob("*.png"))))
    faces = Faces.read(held_out, seed_of_faces, numbers)
    extractor = open_effnet_lite0()
    real = features(extractor, faces.images[-NUM_KD:])
    figures = output / f"figures-{pipeline.bundle.name}.json"
    known: dict[str, Any] = json.loads(figures.read_text()) if figures.is_file() else {"rows": [], "kd": {}}
    for attribute in attr or ["smiling", "glasses", "beard"]:
        path = output / f"cnn-{attribute}.safetensors"
        cnn = trained(path, train, train_seed, 0, NUM_TRAIN, [attribute])
        model = open_classifier(cnn.network, labels=[attribute])
        chosen = cases(faces, attribute, num)
        images, avatars = faces.images[chosen], [faces.avatars[row] for row in chosen]
        shown = [images]
        for way in ways.split(","):
            if any(row["attribute"] == attribute and row["way"] == way for row in known["rows"]):
                continue
            begun, made = time.process_time(), []
            for some in images.split(AT_ONCE):
                if way == "explain":
                    found = pipeline.explain(some, cnn.logits, labels=[attribute])
                    made += [one.answers[0].picture if one.flipped else one.image for one in found]
                else:
                    by = by_pixels(some, model) if "pixels" in way else by_z(some, model, pipeline)
                    made += list(by)
            seconds = (time.process_time() - begun) / len(images)
            pictures = torch.stack(made)
            rows, truths = measured(way, images, avatars, pictures, attribute, judge)
            start = model.log_odds(images)[:, 0]
            end = model.log_odds(to_unit_range(to_pixels(pictures)))[:, 0]
            for row, a, b in zip(rows, start.tolist(), end.tolist(), strict=True):
                row |= {"flipped": abs(b) >= GOAL and (a > 0) != (b > 0), "seconds": seconds}
            known["rows"] += rows
            estimate = kernel_distance(real, features(extractor, pictures), seed=0)
            known["kd"][f"{attribute}, {way}"] = [
                1000 * v for v in (estimate.value, estimate.low, estimate.high)
            ]
            shown += [pictures, truths]
            with atomic_path(figures) as temporary:
                temporary.write_text(json.dumps(known, indent=1))
            print(attribute, way, summary(rows), known["kd"][f"{attribute}, {way}"], flush=True)
        if len(shown) > 1:
            tiles = [Tile(to_pil(x[k], "")) for k in range(min(SHOWN, len(images))) for x in shown]
            sheet(tiles, len(shown), tile=64).save(output / f"{attribute}-{pipeline.bundle.name}.png")
    print("| way | pictures | flipped | PSNR to the nearest true (dB) | that alone changed | s a picture |")
    for way in WAYS:
        if rows := [row for row in known["rows"] if row["way"] == way]:
            print(f"| {way} | {summary(rows)} |")


def summary(rows: Sequence[dict[str, Any]]) -> str:
    """Figures of some pictures, in words."""
    flipped = share_estimate(torch.tensor([row["flipped"] for row in rows]))
    alone = torch.tensor([row["attribute_changed"] and row["others_kept"] for row in rows]).float().mean()
    db = torch.tensor([row["psnr_db"] for row in rows])
    seconds = sum(row["seconds"] for row in rows) / len(rows)
    return (
        f"{len(rows)} | {flipped.value:.3f} ({flipped.low:.3f} to {flipped.high:.3f}) | "
        f"{float(db.mean()):.2f} | {float(alone):.3f} | {seconds:.2f}"
    )


if __name__ == "__main__":
    typer.run(main)
