"""The solvers by name: how each goes from x_T to x_0 and, where it is an inversion, from x_0 to x_T.

All have one signature: a denoiser, where to start, the sampling spec, the number of steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from rdm_cli.kernels.ancestral import ancestral_sample, noise_of
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode
from rdm_cli.kernels.fixed_point import fixed_point_encode
from rdm_cli.kernels.heun import heun_decode
from rdm_cli.kernels.multistep import dpm_solver_decode, unipc_decode
from rdm_cli.kernels.reversible import TwoStates, asked_on
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.kernels.spec import EpsFn, SamplingSpec
from rdm_cli.kernels.two_step import two_states, two_step_decode, two_step_encode

State = Tensor | TwoStates
"""Where a trajectory stands: x_t, or a pair of which x_t is the first."""


@dataclass(frozen=True, kw_only=True)
class Solver:
    """A way down and, for an inversion, the way up that it undoes.

    ``decode(eps_fn, state, spec, num_steps)`` and ``encode(eps_fn, x_0, spec, num_steps, iterations)`` yield
    a state after each step. ``spacing`` None is the method's own; ``steps`` None is the bundle's own number.
    ``iterations`` are an inversion's network calls where it solves an equation, ``calls_per_step`` those of a
    decode. ``clamps`` False: x_0 is
    never clamped, whatever the spec says. ``in_pairs``: its states are pairs, both of which a decode needs.
    """

    decode: Callable[[EpsFn, State, SamplingSpec, int], Iterator[Tensor]]
    encode: Callable[[EpsFn, Tensor, SamplingSpec, int, int], Iterator[State]] | None = None
    spacing: Spacing | None = None
    steps: int | None = None
    iterations: int = 1
    calls_per_step: int = 1
    clamps: bool = True
    in_pairs: bool = False

    def calls_down(self, num_steps: int) -> int:
        """Network calls of a decode, but for one that a solver may need more or less at its ends."""
        return self.calls_per_step * num_steps

    def calls_up(self, num_steps: int, iterations: int | None = None) -> int:
        """Network calls of an inversion; ``iterations`` None are the solver's own."""
        num = iterations or self.iterations
        return num_steps - 1 + num if self.in_pairs else num * num_steps

    def spec(self, own: SamplingSpec, spacing: str | None = None) -> SamplingSpec:
        """The method's ``own`` spec as this solver follows it, on the timesteps of ``spacing`` if given."""
        chosen: Spacing = spacing or self.spacing or own.spacing  # type: ignore[assignment]
        return replace(own, spacing=chosen, clip_x_0=own.clip_x_0 and self.clamps)


def _ddim_up(eps_fn: EpsFn, x_0: Tensor, spec: SamplingSpec, num_steps: int, _: int) -> Iterator[Tensor]:
    return ddim_encode(eps_fn, x_0, spec, num_steps)


def _fixed_point_up(
    eps_fn: EpsFn, x_0: Tensor, spec: SamplingSpec, num_steps: int, iterations: int
) -> Iterator[Tensor]:
    return fixed_point_encode(eps_fn, x_0, spec, num_steps, num_iterations=iterations)


def _exact_up(
    eps_fn: EpsFn, x_0: Tensor, spec: SamplingSpec, num_steps: int, iterations: int
) -> Iterator[TwoStates]:
    return two_step_encode(eps_fn, x_0, spec, num_steps, start_iterations=iterations)


def _exact_down(eps_fn: EpsFn, state: State, spec: SamplingSpec, num_steps: int) -> Iterator[Tensor]:
    """From a pair, or from an x_T alone, which a DDIM step gives a second state."""
    if not isinstance(state, TwoStates):
        eps_fn = asked_on(eps_fn, state.device)
        state = two_states(eps_fn, state, spec, num_steps)
        yield state.other
    yield from two_step_decode(eps_fn, state, spec, num_steps)


def _ancestral_down(eps_fn: EpsFn, x_T: Tensor, spec: SamplingSpec, num_steps: int) -> Iterator[Tensor]:
    return ancestral_sample(eps_fn, x_T, spec, num_steps, noise_fn=noise_of(x_T))


DDIM = Solver(decode=ddim_decode, encode=_ddim_up)  # type: ignore[arg-type]
ANCESTRAL = Solver(decode=_ancestral_down)  # type: ignore[arg-type]
DPM_SOLVER = Solver(decode=dpm_solver_decode, spacing="log-snr")  # type: ignore[arg-type]
UNIPC = Solver(decode=unipc_decode, spacing="log-snr")  # type: ignore[arg-type]
HEUN = Solver(decode=heun_decode, spacing="log-snr", calls_per_step=2)  # type: ignore[arg-type]
FIXED_POINT = Solver(
    decode=ddim_decode,  # type: ignore[arg-type]
    encode=_fixed_point_up,
    spacing="log-snr",
    steps=10,
    iterations=3,
    clamps=False,
)
EXACT = Solver(
    decode=_exact_down,
    encode=_exact_up,
    spacing="log-snr",
    steps=19,
    iterations=3,
    clamps=False,
    in_pairs=True,
)
