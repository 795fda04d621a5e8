"""The judge of edits: trained on labelled images that are not edited, and itself put to the test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rdm_cli.evaluation.figures import Figure, Scalar, estimated
from rdm_cli.evaluation.material import Labels, Material, Subject
from rdm_cli.metrics.linear_probes import MIN_EXAMPLES, hold_out
from rdm_cli.metrics.ranking import separation
from rdm_cli.training.pixel_judge import PixelJudge, train_pixel_judge

RELIABLE = 0.9  # AUROC; below, a judge's verdicts on an attribute mean little


@dataclass(frozen=True, kw_only=True)
class Court:
    """Images to edit, and labelled ones to train the judge on: other ones, or no verdict would count.

    ``known`` keeps a judge for each shape of images.
    """

    edited: Material
    learned: Material
    seed: int
    known: dict[tuple[int, ...], PixelJudge] = field(default_factory=dict)

    def judge(self, subject: Subject) -> PixelJudge:
        """The judge of pictures of ``subject``'s size; trained when first asked for."""
        shape = subject.pipeline.bundle.model.image_shape
        if shape not in self.known:
            labels = judged_labels(self.learned.known())
            images = self.learned.images(subject.pipeline)
            self.known[shape] = train_pixel_judge(
                images, labels.values, labels.names, seed=self.seed, device=subject.pipeline.device
            )
        return self.known[shape]


def court(material: Material, learned: Material | None, *, seed: int) -> Court:
    """``material`` to be edited and ``learned`` to train on or, where it is None, a quarter and the rest."""
    if learned is not None:
        return Court(edited=material, learned=learned, seed=seed)
    held_out = hold_out(len(material), seed=seed)
    return Court(
        edited=material.select(held_out.nonzero()[:, 0].tolist()),
        learned=material.select((~held_out).nonzero()[:, 0].tolist()),
        seed=seed,
    )


def judged_labels(labels: Labels) -> Labels:
    """The attributes of which a judge can learn: with examples of both answers."""
    enough = [
        name
        for k, name in enumerate(labels.names)
        if min(int((labels.values[:, k] > 0).sum()), int((labels.values[:, k] == 0).sum())) >= MIN_EXAMPLES
    ]
    return labels.only(enough)


def judge_figures(
    bundle: str, judge: PixelJudge, x_0: Tensor, labels: Labels, names: Sequence[str], seed: int
) -> tuple[list[Figure], list[str]]:
    """How well the judge tells ``names`` on images that are not edited, and a line on each it cannot tell."""
    figures, notes = [], []
    logits = judge.logits(x_0)
    for name in names:
        label = labels.values[:, labels.names.index(name)]
        known = ~label.isnan()
        target = label[known] > 0
        if target.all() or not target.any():
            notes.append(f"{name}: the judge cannot be tested, there are images of one kind alone")
            continue
        scores = logits[known, judge.names.index(name)]
        found = separation(scores, target, seed=seed).auroc
        figures.append(
            estimated(
                found,
                bundle=bundle,
                name="judge's AUROC",
                condition={"attribute": name},
                num=len(target),
                better="higher",
                computed_with=provenance_of(judge),
            )
        )
        if found.value < RELIABLE:
            notes.append(f"{name}: the judge's AUROC is {found.value:.2f}, its verdicts mean little")
    return figures, notes


def provenance_of(judge: PixelJudge) -> dict[str, Scalar]:
    """Which judge a verdict is of."""
    return {
        "judge": "CNN on pixels",
        "sha256": judge.sha256,
        "trained_on": judge.num_images,
        "num_attributes": len(judge.names),
    }


def border_change(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference of each pair (N, C, H, W) in the outer eighth, (N,), in levels of 255.

    There a centred face is not, so what changes is mostly background.
    """
    height, width = x.shape[2:]
    inside = torch.zeros(height, width, dtype=torch.bool)
    inside[height // 8 : height - height // 8, width // 8 : width - width // 8] = True
    return (x - y).abs()[..., ~inside].mean(dim=(1, 2)) * 127.5
