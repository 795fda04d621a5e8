"""LPIPS from files of weights: torchmetrics' own network on the same ones, and what is refused."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.metrics.lpips import open_lpips
from rdm_cli.models.lpips_network import LPIPSConfig, LPIPSNetwork
from rdm_cli.models.shift_tolerant import TrunkName


def alexnet() -> nn.Sequential:
    """torchvision's ``alexnet().features``, written out."""
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
    )  # fmt: skip


def vgg16() -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0):
        if width == 0:
            layers.append(nn.MaxPool2d(2, stride=2))
            continue
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers)


def trunk_of(kind: TrunkName) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return alexnet() if kind == "alex" else vgg16()


def saved(trunk: nn.Sequential, path: Path) -> Path:
    """``trunk`` as torchvision's files of weights have it, with the classifier that nobody needs."""
    state = {f"features.{name}": value for name, value in trunk.state_dict().items()}
    torch.save(state | {"classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def pictures(size: int) -> tuple[Tensor, Tensor]:
    x, y = torch.rand(2, 3, 3, size, size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return x, y


@pytest.mark.parametrize(("kind", "size"), [("alex", 31), ("alex", 64), ("vgg", 32)])
def test_torchmetrics_gives_the_same(
    kind: TrunkName, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.functional.image import lpips as theirs

    trunk = trunk_of(kind)
    monkeypatch.setattr(theirs, "_get_tv_model_features", lambda *a, **k: trunk)
    x, y = pictures(size)
    with torch.no_grad():
        expected = theirs._LPIPS(pretrained=True, net=kind, pnet_rand=True, use_dropout=True).eval()(x, y)
    ours = open_lpips([saved(trunk, tmp_path / "trunk.pth")])
    # theirs adds 1e-8 under the root of a place's length, the original and this do not
    torch.testing.assert_close(ours(x, y), expected.flatten(), rtol=1e-4, atol=1e-7)
    assert ours.trunk == kind
    torch.testing.assert_close(ours(x, x), torch.zeros(3))


def test_a_whole_network_brings_its_own_heads_and_every_file_is_named(tmp_path: Path) -> None:
    trunk, widths = trunk_of("alex"), (64, 192, 384, 256, 256)
    slices = {0: 1, 3: 2, 6: 3, 8: 4, 10: 5}
    state = {
        f"net.slice{slices[int(name.split('.')[0])]}.{name}": value
        for name, value in trunk.state_dict().items()
    }
    heads = {f"lin{k}.model.1.weight": torch.full((1, c, 1, 1), 0.5) for k, c in enumerate(widths)}
    whole = tmp_path / "lpips.pth"
    torch.save(state | heads, whole)
    lpips = open_lpips([whole])
    assert lpips.sha256 == hashlib.sha256(whole.read_bytes()).hexdigest()
    assert all(bool((head == 0.5).all()) for head in lpips.network.heads)
    alone = open_lpips([saved(trunk, tmp_path / "trunk.pth")])
    first, second = alone.sha256.split("+")
    assert first == hashlib.sha256((tmp_path / "trunk.pth").read_bytes()).hexdigest() and len(second) == 64


@pytest.mark.parametrize(("kind", "smallest"), [("alex", 31), ("vgg", 16)])
def test_the_smallest_picture_is_the_smallest(kind: TrunkName, smallest: int) -> None:
    network = LPIPSNetwork(LPIPSConfig(trunk=kind))
    assert network.config.smallest == smallest
    assert min(network(torch.zeros(1, 3, smallest, smallest))[-1].shape[2:]) == 1
    with pytest.raises(ValueError, match=f"of {smallest} pixels a side"):
        network(torch.zeros(1, 3, smallest - 1, smallest))
    with pytest.raises(RuntimeError):  # there would be nothing left
        network.features(torch.zeros(1, 3, smallest - 1, smallest - 1))


def test_what_is_no_such_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.pth: no such file of weights"):
        open_lpips([tmp_path / "none.pth"])
    text = tmp_path / "text.pth"
    text.write_text("hello")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        open_lpips([text])
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="not the weights of AlexNet or VGG16"):
        open_lpips([other])
    part = tmp_path / "part.pth"
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, part)
    with pytest.raises(CheckpointError, match="not the weights of LPIPS"):
        open_lpips([part])
    nested = tmp_path / "nested.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}}, nested)
    with pytest.raises(CheckpointError, match="something other than tensors"):
        open_lpips([nested])
