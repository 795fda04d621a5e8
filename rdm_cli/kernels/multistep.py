r"""Multistep solvers of the probability flow: DPM-Solver++(2M) and UniPC, N network calls for N steps.

Both integrate the predicted x_0 over lambda = log(alpha / sigma) = -log sigma_bar. With alpha = sqrt(ab) and
sigma = sqrt(1 - ab), a step from s to t of length h = lambda_t - lambda_s is a DDIM step,

    x_t = sigma_t / sigma_s x_s + alpha_t (1 - exp(-h)) D,

where DDIM takes for D the prediction m_s at s, and these take a better guess of x_0 on the way there:

    DPM-Solver++(2M)   D = m_s + (m_s - m_r) / (2 h_r / h)           r the step before s, h_r its length
                       (Lu et al. 2022, arXiv 2211.01095, algorithm 2)
    UniP-2, B_2(h)     the same;
    UniC-p, B_2(h)     D = m_s + rho_r (m_r - m_s) / rk + rho_t (m_t - m_s),    rk = -h_r / h
                       (Zhao et al. 2023, arXiv 2302.04867, eq. 5 and section 3.4)

UniC redoes a step once the prediction m_t at its end is known, which the next step has to ask for anyway. The
last step is always DDIM's: where it leads to ab = 1, h is infinite and a slope means nothing, and on
timesteps that are even in t it is so much longer than the one before that a slope misleads. Decoding starts
at the noisiest timestep of the trajectory, where x_T is taken to be x and log-SNR is finite. Timesteps: see
``kernels/spacing.py``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from torch import Tensor

from rdm_cli.kernels.ddim import predict_at
from rdm_cli.kernels.schedules import Leg
from rdm_cli.kernels.spec import EpsFn, SamplingSpec


def dpm_solver_decode(
    eps_fn: EpsFn, x_T: Tensor, spec: SamplingSpec, num_steps: int | None = None
) -> Iterator[Tensor]:
    """DPM-Solver++(2M): yield x_t after each step from ``x_T`` (B, ...); the last is x_0.

    ``num_steps`` None takes the spec's own. One network call a step. Second order.
    """
    legs = spec.trajectory(num_steps).decoding()
    x_t, x_0_before = x_T, None
    for step, leg in enumerate(legs):
        x_0, _ = predict_at(eps_fn, x_t, leg.t, leg.alpha_bar, clip=spec.clip_x_0)
        guess = x_0
        if x_0_before is not None and step < len(legs) - 1:
            guess = x_0 + (x_0 - x_0_before) * (_length(leg) / _length(legs[step - 1]) / 2)
        x_t = move(x_t, guess, leg)
        x_0_before = x_0
        yield x_t


def unipc_decode(
    eps_fn: EpsFn, x_T: Tensor, spec: SamplingSpec, num_steps: int | None = None
) -> Iterator[Tensor]:
    """UniPC-2 with B_2(h): yield x_t after each step from ``x_T`` (B, ...), as predicted; the last is x_0.

    ``num_steps`` None takes the spec's own. One network call a step, shared by the corrector of a step and
    the predictor of the next.
    """
    legs = spec.trajectory(num_steps).decoding()
    x_t, x_before = x_T, x_T
    known: list[Tensor] = []  # the predictions of x_0 before this one, at most two, the latest last
    second_order = False
    for step, leg in enumerate(legs):
        x_0, _ = predict_at(eps_fn, x_t, leg.t, leg.alpha_bar, clip=spec.clip_x_0)
        if step > 0:
            x_t = _corrected(x_before, [*known, x_0], legs[:step], second_order=second_order)
        second_order = 0 < step < len(legs) - 1
        guess = x_0
        if second_order:
            guess = x_0 + (x_0 - known[-1]) * (_length(leg) / _length(legs[step - 1]) / 2)
        x_before, known = x_t, [*known[-1:], x_0]
        x_t = move(x_t, guess, leg)
        yield x_t


def move(x_t: Tensor, x_0: Tensor, leg: Leg) -> Tensor:
    """``x_t`` where it is after ``leg`` if ``x_0`` is its image: DDIM's step, with eps re-derived."""
    alpha, alpha_to = math.sqrt(leg.alpha_bar), math.sqrt(leg.alpha_bar_to)
    ratio = math.sqrt((1 - leg.alpha_bar_to) / (1 - leg.alpha_bar))
    return ratio * x_t + (alpha_to - ratio * alpha) * x_0


def _corrected(
    x_before: Tensor, known: Sequence[Tensor], legs: Sequence[Leg], *, second_order: bool
) -> Tensor:
    """``x_before`` moved over the last of ``legs`` again, now that x_0 is known at its end (UniC)."""
    x_0, x_0_end = known[-2:]
    if not second_order:
        return move(x_before, x_0 + (x_0_end - x_0) / 2, legs[-1])
    h, h_before = _length(legs[-1]), _length(legs[-2])
    rk = -h_before / h
    phi_1 = math.expm1(-h)
    phi_2 = phi_1 / -h - 1
    phi_3 = phi_2 / -h - 0.5
    b_1, b_2 = phi_2 / phi_1, 2 * phi_3 / phi_1  # [[1, 1], [rk, 1]] rho = b
    rho_before = (b_1 - b_2) / (1 - rk)
    guess = x_0 + (known[-3] - x_0) * (rho_before / rk) + (x_0_end - x_0) * (b_1 - rho_before)
    return move(x_before, guess, legs[-1])


def _length(leg: Leg) -> float:
    """h of a step between noise levels, in lambda = log(alpha / sigma)."""
    snr, snr_to = leg.alpha_bar / (1 - leg.alpha_bar), leg.alpha_bar_to / (1 - leg.alpha_bar_to)
    return math.log(snr_to / snr) / 2
