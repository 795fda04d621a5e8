"""LPIPS, version 0.1 (Zhang et al., CVPR 2018, arXiv 1801.03924), with weights that the user names.

The distance of :mod:`rdm_cli.metrics.layered_distance` on AlexNet or VGG16. No package index holds the
trunks, which were trained on ImageNet: name torchvision's file (``alexnet-owt-7be5be79.pth`` or
``vgg16-397923af.pth``), or the whole network as ``lpips.LPIPS(net=...).state_dict()`` has it. The heads, what
was learned from people's judgements, are the file's own or, where it has none, those that torchmetrics ships
(BSD-2-Clause).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError
from rdm_cli.metrics.extras import file_of_package
from rdm_cli.metrics.layered_distance import layered_distance
from rdm_cli.metrics.named_weights import read_weights
from rdm_cli.models.lpips_network import LPIPSConfig, LPIPSNetwork
from rdm_cli.models.shift_tolerant import TrunkName

HINT = "name torchvision's alexnet-owt-7be5be79.pth or vgg16-397923af.pth"
FIRST_LAYER: dict[tuple[int, ...], TrunkName] = {(64, 3, 11, 11): "alex", (64, 3, 3, 3): "vgg"}


@dataclass(frozen=True, kw_only=True)
class LPIPS:
    """The distance, on a frozen ``network``.

    ``sha256`` is that of the trunk's file and, where the heads came from another, of that: joined by "+".
    """

    network: LPIPSNetwork
    sha256: str

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each pair, (B,) float32, 0 where the two are equal.

        ``x`` and ``y`` (B, 3, H, W) in [-1, 1], on one device. Raises ValueError for other shapes and for
        images of fewer than :attr:`smallest_px`.
        """
        return layered_distance(self.network, x, y)

    @property
    def trunk(self) -> TrunkName:
        """``alex`` or ``vgg``."""
        return self.network.config.trunk

    @property
    def smallest_px(self) -> int:
        """The fewest pixels a side that it can see."""
        return self.network.config.smallest


def open_lpips(paths: Sequence[Path]) -> LPIPS:
    """LPIPS from one or more files of weights, on the CPU until it is given images elsewhere.

    Raises UsageError for a file that is not there, CheckpointError where the files do not hold a trunk.
    """
    stored: dict[str, Tensor] = {}
    digests = []
    for path in paths:
        tensors, digest = read_weights(path)
        stored |= tensors
        digests.append(digest)
    where = " and ".join(str(path) for path in paths)
    trunk, heads = _trunk_weights(stored), _head_weights(stored)
    kind = FIRST_LAYER.get(tuple(trunk["features.0.weight"].shape)) if "features.0.weight" in trunk else None
    if kind is None:
        raise CheckpointError(f"{where}: not the weights of AlexNet or VGG16", hint=HINT)
    if not heads:
        path = file_of_package("torchmetrics", f"torchmetrics/functional/image/lpips_models/{kind}.pth")
        heads = _head_weights(torch.load(path, map_location="cpu", weights_only=True))
        digests.append(hashlib.sha256(path.read_bytes()).hexdigest())
    with torch.device("meta"):
        network = LPIPSNetwork(LPIPSConfig(trunk=kind))
    try:
        network.load_state_dict({**trunk, **heads}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{where}: not the weights of LPIPS ({reason})", hint=HINT) from error
    network.eval().requires_grad_(False)
    return LPIPS(network=network, sha256="+".join(digests))


def _trunk_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``features.N.*`` of torchvision's files and ``net.sliceK.N.*`` of LPIPS's own are one numbering."""
    found = {}
    for name, value in stored.items():
        match = re.fullmatch(r"(?:features|net\.slice\d)\.(\d+)\.(weight|bias)", name)
        if match:
            found[f"features.{match[1]}.{match[2]}"] = value.float()
    return found


def _head_weights(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in stored.items():
        match = re.fullmatch(r"lin(\d)\.model\.1\.weight", name)
        if match:
            found[f"heads.{match[1]}"] = value.float()
    return found
