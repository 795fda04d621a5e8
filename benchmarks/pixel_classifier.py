"""A judge that knows pixels only: a small CNN that tells attributes of avatars from the image.

It never sees a code, so it can say whether an edit of a code shows in the picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.kernels.randomness import keyed_generator


class PixelClassifier(nn.Module):
    """Images (B, 3, 64, 64) in [-1, 1] to one logit an attribute, (B, K)."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        widths = (3, 32, 64, 128, 128)
        self.features = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 3, stride=2, padding=1), nn.GroupNorm(8, b), nn.SiLU())
                for a, b in zip(widths, widths[1:], strict=False)
            )
        )
        self.head = nn.Linear(widths[-1] * 16, len(names))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self.head(self.features(x).flatten(1))

    @torch.no_grad()
    def labels(self, x: Tensor) -> Tensor:
        """What the pictures show: bool (B, K)."""
        return torch.cat([self(part) > 0 for part in x.split(256)])


def train_pixel_classifier(
    x: Tensor, labels: Tensor, names: Sequence[str], *, epochs: int = 4, seed: int = 0
) -> PixelClassifier:
    """Fit on images ``x`` (N, 3, 64, 64) in [-1, 1] and ``labels`` (N, K) of 0 and 1."""
    torch.manual_seed(seed)
    model = PixelClassifier(names)
    num_steps = epochs * (len(x) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=keyed_generator(seed, "epoch", epoch))
        for rows in order[: len(x) // 64 * 64].split(64):
            loss = F.binary_cross_entropy_with_logits(model(x[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()
