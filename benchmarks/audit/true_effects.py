"""What a classifier really does: drawn faces with one attribute changed, as the renderer knows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdm_cli.data.avatars import draw_avatar, render
from rdm_cli.data.counterfactuals import ATTRIBUTES, counterfactuals


def true_pairs(seed: int, num_faces: int, *, per_side: int, size: int, place: Path) -> dict[str, Tensor]:
    """Pairs of pictures by attribute: uint8 (N, 2, 3, H, W), without it and with it; kept at ``place``.

    Up to ``per_side`` faces that lack the attribute, and as many that have it, of the first ``num_faces`` of
    ``seed``; of several true counterfactuals one is drawn by lot.
    """
    from safetensors.torch import load_file, save_file

    if place.is_file():
        return load_file(place)
    avatars = [draw_avatar(seed, i) for i in range(num_faces)]
    rng = np.random.default_rng(seed)
    found: dict[str, Tensor] = {}
    for name in ATTRIBUTES:
        pairs = []
        for has in (False, True):
            ours = [a for a in avatars if bool(a.labels()[name]) == has and counterfactuals(a, name)]
            for avatar in ours[:per_side]:
                others = counterfactuals(avatar, name)
                both = (avatar, others[int(rng.integers(len(others)))])
                pairs.append(torch.stack([_pixels(one, size) for one in (both[::-1] if has else both)]))
        found[name] = torch.stack(pairs)
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file(found, place)
    return found


def _pixels(avatar: object, size: int) -> Tensor:
    return torch.from_numpy(np.array(render(avatar, size))).permute(2, 0, 1).contiguous()  # type: ignore[arg-type]
