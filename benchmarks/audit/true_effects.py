"""What a classifier really does: drawn faces with one attribute changed, as the renderer knows them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdm_cli.data.avatars import COLUMNS, Avatar, draw_avatar, render
from rdm_cli.data.counterfactuals import ATTRIBUTES, counterfactuals


def true_pairs(seed: int, num_faces: int, *, per_side: int, size: int, place: Path) -> dict[str, Tensor]:
    """Pairs of pictures by attribute: uint8 (N, 2, 3, H, W), without it and with it; kept at ``place``.

    Beside them, as ``glasses.labels``, what is true of both: float32 (N, 2, K) by :data:`COLUMNS`.

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
        pairs, labels = [], []
        for has in (False, True):
            ours = [a for a in avatars if bool(a.labels()[name]) == has and counterfactuals(a, name)]
            for avatar in ours[:per_side]:
                others = counterfactuals(avatar, name)
                both = (avatar, others[int(rng.integers(len(others)))])[:: -1 if has else 1]
                pairs.append(torch.stack([_pixels(one, size) for one in both]))
                answers = [[one.labels()[column] for column in COLUMNS] for one in both]
                labels.append([[math.nan if v is None else float(v) for v in row] for row in answers])
        found[name], found[f"{name}.labels"] = torch.stack(pairs), torch.tensor(labels)
    place.parent.mkdir(parents=True, exist_ok=True)
    save_file(found, place)
    return found


def keeping(pairs: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """The pairs (N, 2, 3, H, W) by attribute in which the ``label`` is the same without and with it.

    Those of the label itself are all there. A label that is not there may get hidden.
    """
    found = {}
    for name in ATTRIBUTES:
        before, after = pairs[f"{name}.labels"][:, :, COLUMNS.index(label)].T
        same = (before == after) | ((before == 0) & after.isnan())
        found[name] = pairs[name] if name == label else pairs[name][same]
    return found


def _pixels(avatar: Avatar, size: int) -> Tensor:
    return torch.from_numpy(np.array(render(avatar, size))).permute(2, 0, 1).contiguous()
