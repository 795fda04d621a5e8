"""A judge that knows pixels only: a classifier of images, trained on labelled ones.

It never sees a code, so it can say whether an edit of a code shows in the picture.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.models.pixel_classifier import PixelClassifier, PixelClassifierConfig

BATCH = 64
EPOCHS = 4
FEWEST_STEPS = 300  # a small set is seen more often
PEAK_LR = 2e-3
AT_ONCE = 256
CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class PixelJudge:
    """A trained ``network`` and the K ``names`` of what it tells, learned from ``num_images``.

    It judges where its network is; what it says is on the CPU.
    """

    network: PixelClassifier
    names: tuple[str, ...]
    num_images: int

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """How clearly pictures ``x`` (N, C, H, W) in [-1, 1] show each attribute: (N, K), 0 for even odds."""
        device = next(self.network.parameters()).device
        return torch.cat([self.network(part.to(device)).cpu() for part in x.split(AT_ONCE)])

    def labels(self, x: Tensor) -> Tensor:
        """What the pictures show: bool (N, K)."""
        return self.logits(x) > 0

    @property
    def sha256(self) -> str:
        """Of the weights, 64 hexadecimal digits: the same training gives the same."""
        digest = hashlib.sha256()
        for value in self.network.state_dict().values():
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()


def train_pixel_judge(
    x: Tensor,
    labels: Tensor,
    names: Sequence[str],
    *,
    seed: int = 0,
    epochs: int | None = None,
    device: torch.device = CPU,
) -> PixelJudge:
    """Fit on images ``x`` (N, C, H, W) in [-1, 1] and ``labels`` (N, K) of 0 and 1, NaN where unknown.

    ``epochs`` None takes four, and more where N is small. The network is trained on ``device`` and stays
    there. On a CPU the same arguments give the same weights. The caller's random state is left alone. Raises
    ValueError for shapes that disagree and for no images.
    """
    if len(x) == 0 or labels.shape != (len(x), len(names)):
        raise ValueError(f"labels must be ({len(x)}, {len(names)}) of images, not {tuple(labels.shape)}")
    batch = min(BATCH, len(x))
    in_epoch = len(x) // batch
    if epochs is None:
        epochs = max(EPOCHS, math.ceil(FEWEST_STEPS / in_epoch))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = PixelClassifier(PixelClassifierConfig(num_attributes=len(names), channels=x.shape[1]))
    network.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=PEAK_LR, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LR, total_steps=epochs * in_epoch)
    known = (~labels.isnan()).to(device)
    target = labels.nan_to_num(0.0).float().to(device)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=keyed_generator(seed, "epoch", epoch))
        for rows in order[: in_epoch * batch].split(batch):
            losses = F.binary_cross_entropy_with_logits(
                network(x[rows].to(device)), target[rows], reduction="none"
            )
            loss = (losses * known[rows]).sum() / known[rows].sum().clamp(min=1)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return PixelJudge(network=network.eval().requires_grad_(False), names=tuple(names), num_images=len(x))
