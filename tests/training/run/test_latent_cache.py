"""Latents on disk: what the first stage says, once, whole or not at all, and found again."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rdm_cli.data.dataset import ImageFolder
from rdm_cli.data.images.pixels import to_unit_range
from rdm_cli.errors import CheckpointError, PictureError
from rdm_cli.models.first_stage import build_first_stage, f4, to_moments
from rdm_cli.training.batches import Share, training_batch
from rdm_cli.training.run import latent_cache
from rdm_cli.training.run.latent_cache import cached_latents, latents_digest

CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path: Path) -> ImageFolder:
    (tmp_path / "faces").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "faces" / f"{i}.png")
    return ImageFolder(tmp_path / "faces", size=16)


def first_stage(kind: str) -> Any:
    torch.manual_seed(0)
    return build_first_stage(f4(kind, (32, 32, 32), num_codes=8, layers=1)).eval().requires_grad_(False)


def cache(folder: Path, images: ImageFolder, network: Any, *, flip: bool = True) -> Any:
    return cached_latents(folder, images, network, flip=flip, device=CPU, note=lambda text: None)


@pytest.mark.parametrize(("kind", "parts"), [("kl", 2), ("vq", 1)])
@pytest.mark.parametrize("flip", [True, False])
def test_they_are_the_first_stages_own(
    images: ImageFolder, tmp_path: Path, kind: str, parts: int, flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latent_cache, "NUM_AT_ONCE", 2)  # a short last batch
    network = first_stage(kind)
    stored = cache(tmp_path / "cache", images, network, flip=flip)
    assert len(stored) == 5 and stored[0].shape == (1 + flip, parts, 3, 4, 4)
    stored = pickle.loads(pickle.dumps(stored))  # as worker processes get it
    for i in range(5):
        x_0 = to_unit_range(images[i][None])
        for variant in range(1 + flip):
            mean, std = to_moments(network, x_0.flip(3) if variant else x_0)
            expected = torch.cat([mean] if std is None else [mean, std])
            torch.testing.assert_close(stored[i][variant].float(), expected, atol=2e-3, rtol=2e-3)


def test_batches_of_latents(images: ImageFolder, tmp_path: Path) -> None:
    """Timesteps, noise and flips are those of the images' batches; what is drawn has the right moments."""
    settings: dict[str, Any] = {"num_train_steps": 1000, "seed": 0, "x_T_shape": (3, 4, 4)}
    five = Share(step=3, places=range(5), batch_size=5)
    network = first_stage("vq")
    stored = cache(tmp_path / "cache", images, network)
    latents = torch.stack([stored[i] for i in range(5)])
    pixels = torch.stack([images[i] for i in range(5)])
    z_0, t, eps, _ = training_batch(latents, flip=True, share=five, **settings)
    x_0, t_too, eps_too, _ = training_batch(pixels, flip=True, share=five, **settings)
    assert torch.equal(t, t_too) and torch.equal(eps, eps_too) and eps.shape == (5, 3, 4, 4)
    torch.testing.assert_close(z_0, to_moments(network, x_0)[0], atol=2e-3, rtol=2e-3)
    many = torch.stack([torch.full((1, 3, 4, 4), 5.0), torch.full((1, 3, 4, 4), 2.0)], dim=1).half()
    many = many[:, None].expand(4096, 1, 2, 3, 4, 4)
    everyone = Share(step=3, places=range(4096), batch_size=4096)
    settings["noise_shapes"] = {"latents": (3, 4, 4)}
    drawn, _, _, _ = training_batch(many, flip=False, share=everyone, **settings)
    assert abs(float(drawn.mean()) - 5) < 0.02 and abs(float(drawn.std()) - 2) < 0.02


def test_the_file_is_found_again_and_only_where_it_fits(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = first_stage("vq")
    first = cache(tmp_path / "cache", images, network)
    before = first.path.stat().st_mtime_ns
    monkeypatch.setattr(latent_cache, "_moments", None)  # nothing is computed
    assert cache(tmp_path / "cache", images, network).path.stat().st_mtime_ns == before
    known = latents_digest(images, network, flip=True)
    assert latents_digest(images, network, flip=False) != known
    os.utime(images.paths[0], ns=(1, 1))
    assert latents_digest(images, network, flip=True) != known
    known = latents_digest(images, network, flip=True)
    network.register_to_config(_name_or_path="/elsewhere")  # the same network, wherever it lies
    assert latents_digest(images, network, flip=True) == known
    network.register_to_config(norm_num_groups=16)  # of the same weights another network can be made
    assert latents_digest(images, network, flip=True) != known
    known = latents_digest(images, network, flip=True)
    network.encoder.conv_in.bias.data += 1
    assert latents_digest(images, network, flip=True) != known


def test_damaged_latents_are_one_line(images: ImageFolder, tmp_path: Path) -> None:
    network = first_stage("vq")
    path = cache(tmp_path / "cache", images, network).path
    for content in (b"", path.read_bytes()[:40], path.read_bytes()[:-10]):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="not readable latents .* remove the file"):
            cache(tmp_path / "cache", images, network)


def test_a_full_disk_is_an_error_and_no_signal(images: ImageFolder) -> None:
    """A mapped file would end the process by a bus error; /dev/full fails as a full disk does."""
    if not os.access("/dev/full", os.W_OK):
        pytest.skip("there is no /dev/full here")
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb") as file:
        latent_cache.write_latents(file, images, first_stage("vq"), flip=True, device=CPU, note=print)


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(
    images: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    honest: Callable[..., np.ndarray] = latent_cache._moments
    asked = []

    def fails_later(*arguments: Any, **named: Any) -> np.ndarray:
        asked.append(arguments)
        if len(asked) == 3:
            raise error
        return honest(*arguments, **named)

    monkeypatch.setattr(latent_cache, "NUM_AT_ONCE", 2)
    monkeypatch.setattr(latent_cache, "_moments", fails_later)
    with pytest.raises(type(error)):
        cache(tmp_path / "cache", images, first_stage("vq"))
    assert list((tmp_path / "cache").iterdir()) == []


def test_latents_that_are_not_finite_are_not_kept(images: ImageFolder, tmp_path: Path) -> None:
    network = first_stage("kl")
    with torch.no_grad():
        network.quant_conv.bias[0] = 1e6  # which fits float32, and not the float16 that is stored
    with pytest.raises(PictureError, match=r"0\.png: its latents hold values that are not finite"):
        cache(tmp_path / "cache", images, network)
    assert not list((tmp_path / "cache").glob("*"))
