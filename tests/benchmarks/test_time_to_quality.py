"""What time_to_quality says of pictures: restored means every pixel, and no difference has a name."""

from __future__ import annotations

import pytest
import torch
from time_to_quality import PUBLISHED, markdown, mean_psnr_db, share_restored, told_db


def test_restored_is_every_pixel_of_an_image_at_8_bits() -> None:
    x_0 = torch.linspace(-1, 1, 3 * 4 * 4).reshape(1, 3, 4, 4).repeat(3, 1, 1, 1)
    back = x_0.clone()
    back[1] += 0.45 / 127.5  # less than half a level, everywhere
    back[2, 0, 0, 0] += 0.55 / 127.5  # more than half of one, in one place
    assert share_restored(x_0, back) == pytest.approx(2 / 3)
    assert share_restored(x_0[2:], back[2:]) == 0


def test_psnr_is_its_closed_form_and_what_is_equal_is_told() -> None:
    x_0 = torch.zeros(2, 3, 4, 4)
    assert mean_psnr_db(x_0, x_0 + 0.02) == pytest.approx(40, abs=1e-4)  # 1 % of the range of 2
    assert told_db(mean_psnr_db(x_0, x_0)) == "> 150"
    assert told_db(40.04) == "40.0"


def test_the_fastest_that_reaches_a_level_is_named() -> None:
    seconds = {PUBLISHED.title: [8.0, 8.0], "quick": [1.0, 2.0], "good": [2.0, 4.0]}
    reached = {PUBLISHED.title: 41.0, "quick": 31.0, "good": 45.0}
    restored = dict.fromkeys(seconds, 0.0)
    told = markdown(seconds, reached, restored, told="told", images=2)
    assert "| 30 dB | quick | 31.0 | 0 % | 0.750 | 6.00 (4.00 to 8.00) |" in told
    assert "| 40 dB | good | 45.0 | 0 % | 1.500 | 3.00 (2.00 to 4.00) |" in told
    assert "| 50 dB | none of these |" in told and "| every pixel | none of these |" in told
