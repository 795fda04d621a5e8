"""ST-LPIPS, a perceptual distance (Ghildyal & Liu, ECCV 2022, arXiv 2207.13686): LPIPS that bears a shift.

The distance of :mod:`rdm_cli.metrics.layered_distance` on five maps of a trunk that does not skip places
(:mod:`rdm_cli.models.shift_tolerant`). Its figures are not LPIPS's, and are never called so.

The weights are those of the package ``stlpips-pytorch`` (BSD-2-Clause). None of its modules is imported or
copied; some of them are CC BY-NC-SA. Verified: its own output, computed once, and this agree within 2e-7 on
both trunks at 32, 45 and 64 pixels (tests/metrics/test_st_lpips.py). Not verified: the 0.7778 that its README
prints for two photographs, which the package does not have.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.metrics.layered_distance import layered_distance
from rdm_cli.models.shift_tolerant import ShiftTolerantConfig, ShiftTolerantNetwork, TrunkName

PACKAGE = "stlpips-pytorch"
INSTALL = "pip install 'rdm-cli[perceptual]'"


@dataclass(frozen=True, kw_only=True)
class STLPIPS:
    """The distance; a function, so a model that holds one neither trains nor stores its ``network``.

    ``sha256`` is that of the file of weights, 64 hexadecimal digits: what a figure was computed with.
    """

    network: ShiftTolerantNetwork
    sha256: str

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Distance of each pair, (B,) float32, 0 where the two are equal.

        ``x`` and ``y`` (B, 3, H, W) in [-1, 1], on one device; gradients flow to both. Raises ValueError for
        other shapes and for images too small (below 21 pixels a side on alex, 18 on vgg).
        """
        return layered_distance(self.network, x, y)


def open_st_lpips(trunk: TrunkName = "alex") -> STLPIPS:
    """ST-LPIPS on ``trunk``, frozen, on the CPU until it is given images elsewhere.

    Raises UsageError where the package that has the weights is not installed, CheckpointError where its file
    is not what it should be.
    """
    path = _weights_file(trunk)
    raw = path.read_bytes()
    try:
        with unset_fake_temporarily():  # where a step's memory is counted, the rest has no values
            stored = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        with torch.device("meta"):  # no weights are drawn: a training run's are the same with and without
            network = ShiftTolerantNetwork(ShiftTolerantConfig(trunk=trunk))
        network.load_state_dict({_our_name(name): value for name, value in stored.items()}, assign=True)
    except Exception as error:  # torch raises many kinds for files that are not what they should be
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not the weights of ST-LPIPS ({reason})", hint=INSTALL) from error
    network.eval().requires_grad_(False)
    return STLPIPS(network=network, sha256=hashlib.sha256(raw).hexdigest())


def _weights_file(trunk: TrunkName) -> Path:
    """Where the package keeps them; asked of its installation's records, so that none of its code runs."""
    try:
        found = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        raise UsageError(f"ST-LPIPS needs the weights of {PACKAGE}", hint=INSTALL) from None
    path = Path(str(found.locate_file(f"stlpips_pytorch/weights/vST0.0/{trunk}_shift_tolerant.pth")))
    if not path.is_file():
        raise CheckpointError(f"{path}: the weights of ST-LPIPS are missing", hint=INSTALL)
    return path


def _our_name(name: str) -> str:
    """``lin0.model.1.weight`` is ``heads.0`` here; the trunk's names are the same."""
    name = name.removeprefix("scaling_layer.")
    return f"heads.{name[3:].partition('.')[0]}" if name.startswith("lin") else name
