"""FID's Inception: its size, its names, and the arithmetic in which it differs from others."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.metrics.inception import open_inception
from rdm_cli.models.fid_inception import NUM_FEATURES, BlockA, BlockE, FIDInception

# torchvision's inception_v3 without its auxiliary head, and of that the classifier of 1000 classes
PUBLISHED_WEIGHTS = 23_834_568
CLASSIFIER = NUM_FEATURES * 1000 + 1000


def test_it_has_as_many_weights_as_published() -> None:
    with torch.device("meta"):
        network = FIDInception()
    assert sum(p.numel() for p in network.parameters()) == PUBLISHED_WEIGHTS - CLASSIFIER
    names = set(network.state_dict())
    # some of the file's, one of each kind
    assert {
        "Conv2d_1a_3x3.conv.weight",
        "Conv2d_4a_3x3.bn.running_var",
        "Mixed_5b.branch3x3dbl_3.conv.weight",
        "Mixed_6a.branch3x3.bn.bias",
        "Mixed_6e.branch7x7dbl_5.conv.weight",
        "Mixed_7a.branch7x7x3_4.bn.running_mean",
        "Mixed_7c.branch3x3dbl_3b.conv.weight",
        "Mixed_7c.branch_pool.conv.weight",
    } <= names


def test_averages_leave_out_what_lies_beyond_the_border() -> None:
    block = BlockA(192, pool=32).eval()
    x = torch.ones(1, 192, 5, 5)
    with torch.no_grad():
        pooled = block(x)[:, -32:]
    # a constant stays one up to the border, where zeros counted in would pull it down
    torch.testing.assert_close(pooled, pooled[..., 2:3, 2:3].expand_as(pooled))


def test_the_last_block_pools_by_the_maximum() -> None:
    x = torch.rand(1, 16, 6, 6, generator=torch.Generator().manual_seed(0))
    found = {}
    for by_maximum in (False, True):
        block = BlockE(16, by_maximum=by_maximum).eval()
        with torch.no_grad():
            found[by_maximum] = block(x)[:, -192:]
            counts = F.conv2d(torch.ones(1, 1, 6, 6), torch.ones(1, 1, 3, 3), padding=1)
            mean = F.conv2d(x, torch.ones(16, 1, 3, 3), padding=1, groups=16) / counts
            padded = F.pad(x, (1, 1, 1, 1), value=-1.0)
            most = padded.unfold(2, 3, 1).unfold(3, 3, 1).amax(dim=(-1, -2))
            torch.testing.assert_close(found[by_maximum], block.branch_pool(most if by_maximum else mean))


def test_a_file_of_weights_becomes_an_extractor(tmp_path: Path) -> None:
    path = tmp_path / "inception.pth"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = FIDInception().state_dict()
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old | {"fc.weight": torch.zeros(1008, 2048), "fc.bias": torch.zeros(1008)}, path)
    extractor = open_inception(path)
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    assert extractor(x).shape == (1, NUM_FEATURES)
    prepared = extractor.prepare(x)
    expected = F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False)
    torch.testing.assert_close(prepared, expected, rtol=0, atol=1e-5)
    assert extractor.provenance["resize"] == "bilinear, not antialiased, to 299 px"
    assert len(extractor.provenance["sha256"]) == 64


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file of weights"):
        open_inception(tmp_path / "none.pth")
    other = tmp_path / "other.pth"
    torch.save({"conv.weight": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match="not the weights of FID's Inception"):
        open_inception(other)
