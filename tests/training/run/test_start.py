"""What a run starts from: the preset that a folder's images fill."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from rdm_cli.errors import UsageError
from rdm_cli.methods.diffae.method import METHOD as DIFFAE
from rdm_cli.methods.lrdm.method import METHOD as LRDM
from rdm_cli.training.run.start import small_preset


@pytest.mark.parametrize(
    ("sizes", "diffae", "lrdm"),
    [
        ([(8, 8)], "small32", "small32"),
        ([(32, 32), (33, 90), (4000, 40)], "small32", "small32"),
        ([(64, 80)] * 5 + [(20, 20)] * 4, "small64", "small64"),
        ([(200, 128)] * 3, "small64", "small128"),
    ],
)
def test_the_largest_small_preset_that_the_images_fill(
    tmp_path: Path, sizes: list[tuple[int, int]], diffae: str, lrdm: str
) -> None:
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    (tmp_path / "x.png").write_text("no image")
    assert (small_preset(DIFFAE, tmp_path), small_preset(LRDM, tmp_path)) == (diffae, lrdm)


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        small_preset(DIFFAE, tmp_path)
