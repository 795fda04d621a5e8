r"""Heun's method on the probability flow (Karras et al. 2022, arXiv 2206.00364, algorithm 1), second order.

Per unit of signal the flow of a VP model is d x_bar / d sigma_bar = eps, with x_bar = x_t / sqrt(ab) and
sigma_bar = sqrt(1/ab - 1), the schedule's own noise. An Euler step of it is DDIM's; Heun's repeats the step
with the mean of eps at both of its ends:

    x_to' = r x_t + c eps(x_t, t),     x_to = r x_t + c (eps(x_t, t) + eps(x_to', t_to)) / 2

A step that leads to sigma_bar = 0 has no timestep at its end and stays Euler's, as in the paper. So N steps
that lead to alpha_bar 1 ask the network 2 N - 1 times. Timesteps: see ``kernels/spacing.py``.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from rdm_cli.kernels.ddim import eps_coefficients, predict_at
from rdm_cli.kernels.spec import EpsFn, SamplingSpec


def heun_decode(
    eps_fn: EpsFn, x_T: Tensor, spec: SamplingSpec, num_steps: int | None = None
) -> Iterator[Tensor]:
    """Yield x_t after each step from ``x_T`` (B, ...); the last is x_0.

    ``num_steps`` None takes the spec's own; two network calls a step, one where it leads to alpha_bar 1.
    """
    path = spec.trajectory(num_steps)
    ends = path.t.flip(0).tolist()[1:]  # the timestep at the end of each step; none at alpha_bar 1
    x_t = x_T
    for step, leg in enumerate(path.decoding()):
        r, c = eps_coefficients(leg.alpha_bar, leg.alpha_bar_to)
        _, eps = predict_at(eps_fn, x_t, leg.t, leg.alpha_bar, clip=spec.clip_x_0)
        x_to = r * x_t + c * eps
        if step < len(ends):
            _, eps_to = predict_at(eps_fn, x_to, ends[step], leg.alpha_bar_to, clip=spec.clip_x_0)
            x_to = r * x_t + c * (eps + eps_to) / 2
        x_t = x_to
        yield x_t
