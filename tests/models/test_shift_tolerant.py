"""The trunks of ST-LPIPS: their maps, their smallest images, and what a shift by one pixel does to them."""

from __future__ import annotations

import pytest
import torch

from rdm_cli.models.shift_tolerant import BlurPool, ShiftTolerantConfig, ShiftTolerantNetwork, TrunkName

# As the package's own network gives them for 45 pixels.
SIDES = {"alex": (21, 11, 6, 6, 6), "vgg": (45, 23, 12, 7, 4)}


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_the_maps_of_each_trunk(trunk: TrunkName) -> None:
    config = ShiftTolerantConfig(trunk=trunk)
    network = ShiftTolerantNetwork(config)
    with torch.no_grad():
        maps = network(torch.zeros(1, 3, 45, 45))
        found = tuple(tuple(f.shape[1:]) for f in maps)
        assert found == tuple((c, s, s) for c, s in zip(config.channels, SIDES[trunk], strict=True))
        assert all(float(f.min()) >= 0 for f in maps)  # each slice ends with its ReLU
        assert network(torch.zeros(1, 3, config.smallest, config.smallest + 9))[-1].numel() > 0


@pytest.mark.parametrize("trunk", ["alex", "vgg"])
def test_the_smallest_image_is_the_one_that_it_says(
    trunk: TrunkName, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ShiftTolerantConfig(trunk=trunk)
    network = ShiftTolerantNetwork(config)
    one_less = torch.zeros(1, 3, config.smallest - 1, 64)
    with pytest.raises(ValueError, match=f"of {config.smallest} pixels a side or more"):
        network(one_less)
    monkeypatch.setattr(ShiftTolerantConfig, "smallest", 1)
    with pytest.raises(
        RuntimeError
    ):  # torch cannot mirror so small a map: the bound is no smaller than it must be
        network(one_less)


def test_other_tensors_are_refused() -> None:
    network = ShiftTolerantNetwork(ShiftTolerantConfig(trunk="alex"))
    for shape in ((3, 32, 32), (1, 1, 32, 32)):
        with pytest.raises(ValueError, match=r"takes images \(B, 3, H, W\)"):
            network(torch.zeros(shape))


def test_a_blur_keeps_every_second_place_of_the_mirrored_map() -> None:
    """By hand, in one dimension: the map is constant down its columns."""
    row = torch.tensor([1.0, 5.0, 2.0, 8.0, 3.0])
    mirrored = torch.tensor([2.0, 5.0, 1.0, 5.0, 2.0, 8.0, 3.0, 8.0, 2.0])
    blurred = (mirrored[:-2] + 2 * mirrored[1:-1] + mirrored[2:]) / 4
    found = BlurPool(2)(row.expand(1, 2, 6, 5))
    assert found.shape == (1, 2, 4, 4)
    torch.testing.assert_close(found, blurred[::2].expand(1, 2, 4, 4))
