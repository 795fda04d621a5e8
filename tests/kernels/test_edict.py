"""EDICT, which only a benchmark uses: the image comes back to rounding, a step is the paper's formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from edict import edict_decode, edict_encode

from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.spec import SamplingSpec

FREE = SamplingSpec(clip_x_0=False)
EXACT = {"dtype": torch.float64}


@pytest.mark.parametrize("spacing", ["stride", "linspace", "karras", "log-snr"])
def test_the_image_comes_back_to_the_rounding_of_float64(spacing: str, draw: Any, mixture: Any) -> None:
    eps_fn, x_0 = mixture((3, 4, 4)), 0.6 * draw(0, 2, 3, 4, 4)
    spec = FREE.spaced(spacing)
    states = last(edict_encode(eps_fn, x_0, spec, 10, **EXACT))
    back = last(edict_decode(eps_fn, states, spec, 10, **EXACT))
    torch.testing.assert_close(back, x_0, rtol=0, atol=1e-9)


def test_an_edict_step_is_its_formula(draw: Any, mixture: Any) -> None:
    eps_fn, (x, y) = mixture((5,)), draw(4, 2, 3, 5)
    leg = FREE.trajectory(4).decoding()[0]
    a = (leg.alpha_bar_to / leg.alpha_bar).sqrt()
    b = (1 - leg.alpha_bar_to).sqrt() - (leg.alpha_bar_to * (1 - leg.alpha_bar) / leg.alpha_bar).sqrt()
    t = torch.tensor(leg.t).expand(3)
    x_middle = a * x + b * eps_fn(y, t)
    y_middle = a * y + b * eps_fn(x_middle, t)
    expected = 0.93 * x_middle + 0.07 * y_middle
    got = next(edict_decode(eps_fn, TwoStates(x, y), FREE, 4, **EXACT))
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_two_network_calls_a_step(draw: Any, mixture: Any, counted: Any) -> None:
    up, down = counted(mixture((3,))), counted(mixture((3,)))
    states = list(edict_encode(up, draw(5, 2, 3), FREE, 7))
    list(edict_decode(down, states[-1], FREE, 7))
    assert (len(states), up.calls, down.calls) == (7, 14, 14)


def test_mixing_is_a_share(draw: Any, mixture: Any) -> None:
    with pytest.raises(ValueError, match="mixing"):
        next(edict_encode(mixture((3,)), draw(5, 2, 3), FREE, 5, mixing=1.5))
