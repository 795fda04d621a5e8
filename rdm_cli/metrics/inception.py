"""The extractor of FID and KID, from a file of weights that the user names.

Features are those of the last pooling (2048). As published figures have them, images go to 299 pixels by
bilinear interpolation without antialiasing, and on to [-1, 1]. Not verified here against a published figure:
no package index holds the weights. What is: the names and shapes of every tensor, the count of weights, and
each block's arithmetic (tests/metrics/test_inception.py).
"""

from __future__ import annotations

from pathlib import Path

import torch

from rdm_cli.errors import CheckpointError
from rdm_cli.metrics.features import FeatureExtractor
from rdm_cli.metrics.named_weights import read_weights
from rdm_cli.models.fid_inception import FIDInception

NAME = "Inception-v3 (FID)"
HINT = "name pt_inception-2015-12-05-6726825d.pth"


def open_inception(path: Path) -> FeatureExtractor:
    """The frozen extractor, on the CPU until it is given images elsewhere.

    Raises UsageError where there is no such file, CheckpointError where it holds another network.
    """
    stored, sha256 = read_weights(path)
    with torch.device("meta"):
        network = FIDInception()
    # the file's classifier is not needed, and old files lack the norms' counters, which say nothing here
    wanted = network.state_dict()
    known = {name: value for name, value in stored.items() if name in wanted}
    counters = {name: torch.tensor(0) for name in wanted if name.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counters, **known}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: not the weights of FID's Inception ({reason})", hint=HINT) from error
    return FeatureExtractor(
        name=NAME,
        network=network.eval().requires_grad_(False),
        sha256=sha256,
        size_px=299,
        resize="bilinear",
        antialias=False,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
