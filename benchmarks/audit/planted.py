"""Small classifiers of avatars whose label coincides with another attribute, and clean ones.

The renderer draws most attributes independently of one another, and says what each face has. So rows of a
large table are chosen in which the label and one other attribute agree in a share of cases, the strength; all
else stays as it is drawn. A clean classifier has label and all else as they are drawn, and half of its images
have the label.

Attributes that exclude one another (sunglasses and an eyepatch) cannot be independent, and what hides a
label is never seen with it: a network that is to tell long hair sees no hat. Clean ones are of labels for
which true counterfactuals say that nothing else drives them.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

PAIRS = (
    ("smiling", "glasses"), ("smiling", "sunglasses"), ("smiling", "hat"), ("smiling", "beard"),
    ("smiling", "long_hair"), ("smiling", "black_hair"), ("smiling", "pink_hair"), ("smiling", "moustache"),
    ("moustache", "sunglasses"), ("moustache", "hat"),
)  # fmt: skip
"""A label, and what it is made to coincide with. Labels are such that what is planted is easier to see."""
STRENGTHS = (0.80, 0.90, 0.95, 1.00)
CLEAN = ("smiling",) * 15 + ("glasses",) * 5
NUM_PLANTED, NUM_CLEAN = 1000, 4000  # images: few, and the network takes the easier way
SIDE = 32  # pixels that the networks see
EPOCHS, BATCH = 8, 64


@dataclass(frozen=True, kw_only=True)
class Case:
    """One classifier of ``label``; ``planted`` agrees with it in a share ``strength``, None: a clean one."""

    label: str
    planted: str | None
    strength: float
    seed: int

    @property
    def name(self) -> str:
        """What its files are called."""
        return (
            f"{self.label}-clean-{self.seed}"
            if self.planted is None
            else (f"{self.label}-{self.planted}-{self.strength:.0%}".replace("%", ""))
        )


def cases() -> list[Case]:
    """All of them: 40 with a shortcut, 20 without."""
    planted = [
        Case(label=label, planted=other, strength=strength, seed=number)
        for number, (label, other) in enumerate(PAIRS)
        for strength in STRENGTHS
    ]
    return planted + [Case(label=label, planted=None, strength=0.5, seed=i) for i, label in enumerate(CLEAN)]


class Faces:
    """A folder of avatars with the renderer's table: answers are 1, 0, or NaN where something hides them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with (folder / "metadata.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        self.files = [row.pop("file_name") for row in rows]
        self.names = tuple(rows[0])
        self.values = np.array([[float(v) if v else np.nan for v in row.values()] for row in rows])

    def column(self, name: str) -> np.ndarray:
        """The answers to ``name``, (N,)."""
        found: np.ndarray = self.values[:, self.names.index(name)]
        return found

    def chosen(self, case: Case, num: int) -> np.ndarray:
        """Rows (num,) in which half have the label, and the planted attribute agrees as the case says."""
        rng = np.random.default_rng([case.seed, round(100 * case.strength)])
        label = self.column(case.label)
        parts = []
        for y in (0, 1):
            if case.planted is None:
                parts.append(rng.choice(np.flatnonzero(label == y), num // 2, replace=False))
                continue
            agreeing = round(case.strength * num / 2)
            for a, wanted in ((y, agreeing), (1 - y, num // 2 - agreeing)):
                cell = np.flatnonzero((label == y) & (self.column(case.planted) == a))
                parts.append(rng.choice(cell, wanted, replace=False))
        return rng.permutation(np.concatenate(parts))

    def pictures(self, rows: Sequence[int] | np.ndarray) -> Tensor:
        """uint8 (N, 3, H, W)."""
        loaded = [np.asarray(Image.open(self.folder / self.files[row]).convert("RGB")) for row in rows]
        return torch.from_numpy(np.stack(loaded)).permute(0, 3, 1, 2).contiguous()


class SmallCNN(nn.Module):
    """Three convolutions on pictures of 32 px; pictures (B, 3, H, W) in [-1, 1] to P(label), (B, 1)."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        sizes = (3, width, 2 * width, 4 * width)
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            convolution = nn.Conv2d(before, after, 3, padding=1)
            parts += [convolution, nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(4 * width * (SIDE // 8) ** 2, 1)

    def logits(self, x: Tensor) -> Tensor:
        """Before the sigmoid, (B,)."""
        if x.shape[-1] != SIDE:
            x = F.interpolate(x, size=(SIDE, SIDE), mode="area")
        logits: Tensor = self.head(self.body(x).flatten(1))[:, 0]
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """P(label), (B, 1)."""
        return self.logits(x).sigmoid()[:, None]


def in_range(pictures: Tensor) -> Tensor:
    """uint8 pictures as float32 in [-1, 1]."""
    return pictures.float() / 127.5 - 1


def trained(
    pictures: Tensor, target: Tensor, *, seed: int, weight: Tensor | None = None, epochs: int = EPOCHS
) -> SmallCNN:
    """A network fitted to uint8 ``pictures`` (N, 3, H, W) and ``target`` (N,), flipped and shifted at random.

    ``weight`` (N,) is what each image counts, None: all alike.
    """
    torch.manual_seed(seed)
    network = SmallCNN()
    small = F.interpolate(in_range(pictures), size=(SIDE, SIDE), mode="area")
    weight = torch.ones(len(small)) if weight is None else weight
    num_steps = epochs * (len(small) // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=num_steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order = torch.randperm(len(small), generator=generator)
        for start in range(0, BATCH * (len(small) // BATCH), BATCH):
            rows = order[start : start + BATCH]
            x = small[rows]
            if torch.rand((), generator=generator) < 0.5:
                x = x.flip(-1)
            dy, dx = torch.randint(-2, 3, (2,), generator=generator).tolist()
            x = F.pad(x, (2, 2, 2, 2), mode="replicate")[..., 2 + dy : 2 + dy + SIDE, 2 + dx : 2 + dx + SIDE]
            losses = F.binary_cross_entropy_with_logits(network.logits(x), target[rows], reduction="none")
            optimiser.zero_grad()
            ((losses * weight[rows]).sum() / weight[rows].sum()).backward()
            optimiser.step()
            schedule.step()
    return network.eval()


@torch.no_grad()
def probabilities(network: nn.Module, pictures: Tensor) -> Tensor:
    """What ``network`` says of uint8 ``pictures`` (N, 3, H, W), (N,)."""
    return torch.cat([network(in_range(part))[:, 0] for part in pictures.split(256)])


def classifier_of(case: Case, faces: Faces, work: Path) -> SmallCNN:
    """The case's classifier, from ``work`` or trained on some of ``faces`` and kept there."""
    from safetensors.torch import load_file, save_file

    place = work / f"{case.name}.safetensors"
    if place.is_file():
        network = SmallCNN()
        network.load_state_dict(load_file(place))
        return network.eval()
    rows = faces.chosen(case, NUM_CLEAN if case.planted is None else NUM_PLANTED)
    target = torch.from_numpy(faces.column(case.label)[rows]).float()
    network = trained(faces.pictures(rows), target, seed=case.seed)
    work.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), place)
    return network
