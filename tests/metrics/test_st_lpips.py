"""ST-LPIPS against the package's own output, and against what a perceptual distance must do."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rdm_cli.errors import CheckpointError, UsageError
from rdm_cli.metrics import st_lpips
from rdm_cli.metrics.st_lpips import PACKAGE, STLPIPS, open_st_lpips
from rdm_cli.models.shift_tolerant import TrunkName

try:
    metadata.version(PACKAGE)
except metadata.PackageNotFoundError:
    INSTALLED = False
else:
    INSTALLED = True
needs_weights = pytest.mark.skipif(not INSTALLED, reason=f"{PACKAGE} is not installed")

# What stlpips-pytorch 0.0.2 itself, stlpips.LPIPS(net=..., variant="shift_tolerant"), gave for waves(size),
# run once with empty stand-ins for torchvision, IPython and torchsummary, which it imports and need not have.
THEIRS = {
    ("alex", 32): (0.0113480, 0.0053168),
    ("alex", 45): (0.0357688, 0.0069108),
    ("alex", 64): (0.0386535, 0.0143803),
    ("vgg", 32): (0.1264104, 0.1785563),
    ("vgg", 45): (0.2415465, 0.3356796),
}
SHA256 = {
    "alex": "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    "vgg": "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
}


@pytest.fixture(scope="module")
def distance() -> STLPIPS:
    return open_st_lpips("alex")


def waves(size: int) -> tuple[Tensor, Tensor]:
    """Two pairs of striped pictures (2, 3, size, size) in [-1, 1], the second of each with bent stripes."""
    i = torch.arange(size, dtype=torch.float64)[:, None]
    j = torch.arange(size, dtype=torch.float64)[None, :]
    c = torch.arange(3, dtype=torch.float64)[:, None, None]
    b = torch.arange(2, dtype=torch.float64)[:, None, None, None]
    phase = 0.31 * i + 0.17 * (c + 1) * j + b
    return torch.sin(phase).float(), torch.sin(phase + 0.4 * torch.cos(0.9 * j + i * (b + 1))).float()


def blobs(size: int = 65) -> Tensor:
    """Two smooth pictures (2, 3, size, size) in [-1, 1]."""
    coarse = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear", align_corners=True)


@needs_weights
@pytest.mark.parametrize(("trunk", "size"), THEIRS)
def test_the_package_gives_the_same(trunk: TrunkName, size: int) -> None:
    opened = open_st_lpips(trunk)
    assert opened.sha256 == SHA256[trunk]
    # float32 through up to thirteen convolutions, whose sums another machine may take in another order
    torch.testing.assert_close(opened(*waves(size)), torch.tensor(THEIRS[trunk, size]), rtol=1e-4, atol=1e-6)


@needs_weights
def test_it_is_a_distance(distance: STLPIPS) -> None:
    x, y = waves(32)
    assert torch.equal(distance(x, x), torch.zeros(2))
    torch.testing.assert_close(distance(x, y), distance(y, x))
    torch.testing.assert_close(distance(x, y)[:1], distance(x[:1], y[:1]))
    with pytest.raises(ValueError, match="share one shape"):
        distance(x, y[:, :, 1:])


@needs_weights
def test_it_grows_with_noise(distance: STLPIPS) -> None:
    x = blobs()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    found = torch.stack([distance(x, x + level * noise) for level in (0.02, 0.05, 0.1, 0.2, 0.4)])
    assert bool((found.diff(dim=0) > 0).all())


@needs_weights
def test_a_shift_of_one_pixel_counts_less_than_noise_of_the_same_squared_error(distance: STLPIPS) -> None:
    """The paper's point; plain squared error cannot tell the two apart."""
    whole = blobs()
    x, shifted = whole[..., :-1, :-1], whole[..., 1:, 1:]
    size_of_shift = (x - shifted).square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    noisy = x + size_of_shift * torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    assert bool((distance(x, shifted) < 0.35 * distance(x, noisy)).all())


@needs_weights
@pytest.mark.parametrize("level", [0.0, 0.5])
def test_gradients_are_finite_also_on_flat_and_equal_images(distance: STLPIPS, level: float) -> None:
    x = torch.zeros(1, 3, 32, 32, requires_grad=True)
    distance(x, torch.full_like(x, level)).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all())
    assert bool(x.grad.any()) == (level > 0)
    assert not any(p.requires_grad for p in distance.network.parameters())


@needs_weights
def test_opening_it_draws_no_random_number_and_runs_none_of_the_package_s_code() -> None:
    before = torch.random.get_rng_state()
    open_st_lpips()
    assert torch.equal(before, torch.random.get_rng_state())
    assert not any(name.startswith("stlpips") for name in sys.modules)


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(st_lpips, "PACKAGE", "no-such-package")
    with pytest.raises(UsageError, match=r"needs the weights of no-such-package; pip install 'rdm-cli\[perc"):
        open_st_lpips()


def test_a_damaged_file_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "alex.pth"
    monkeypatch.setattr(st_lpips, "_weights_file", lambda trunk: path)
    for write in (lambda: path.write_bytes(b"nothing"), lambda: torch.save({"net.x": torch.ones(1)}, path)):
        write()
        with pytest.raises(CheckpointError, match=r"alex\.pth: not the weights of ST-LPIPS"):
            open_st_lpips()
