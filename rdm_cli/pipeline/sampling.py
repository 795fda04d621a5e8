"""Which way a code is decoded: by which solver, on which timesteps, in how many steps.

In this order, the first that says something:

1. the user: a ``sampler`` and ``steps``, each by itself, override what a code records;
2. the code: one that was inferred from an image is decoded the way it was made, a sample as it was shown;
3. the bundle: it says how it samples what was drawn and records nothing.

A code of ``fixed-point`` or ``exact`` decodes in one way alone, the one that it records. A user who asks for
another is refused: no picture comes out that the code does not stand for.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from typing import get_args

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import CodeInfo
from rdm_cli.errors import CodeError, UsageError, setting
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.kernels.solvers import Solver
from rdm_cli.kernels.spec import Sampler, SamplingSpec
from rdm_cli.registry import SOLVERS, load

INVERSIONS = ("ddim", "fixed-point", "exact")


@dataclass(frozen=True, kw_only=True)
class Way:
    """A ``solver`` by name, its timesteps (None: the method's own), steps, and PDAE's stop-shift."""

    solver: str
    spacing: str | None
    steps: int
    stop_shift: float = 0.0

    @property
    def kernel(self) -> Solver:
        """The solver itself."""
        return solver_named(self.solver)

    def timesteps(self, bundle: Bundle) -> list[int]:
        """Those that the network is told, ascending."""
        visited: list[int] = self.spec(bundle).trajectory(self.steps).t.tolist()
        return visited

    def spec(self, bundle: Bundle) -> SamplingSpec:
        """The bundle's spec as this way follows it."""
        return self.kernel.spec(bundle.model.sampling, self.spacing)


def solver_named(name: str) -> Solver:
    """A solver of the registry; raises UsageError listing those that there are."""
    solver: Solver = load(SOLVERS, "solver", name)
    return solver


def checked_solver(name: str) -> str:
    """``name`` as it is; raises UsageError where there is no such solver."""
    solver_named(name)
    return name


def way_up(bundle: Bundle, inversion: str, steps: int | None) -> Way:
    """How images are encoded: ``inversion`` and ``steps``, None being its or the bundle's own number.

    Raises UsageError for a solver that leads down alone, and for steps that it has not.
    """
    solver = solver_named(inversion)
    if solver.encode is None:
        raise UsageError(
            f"{setting('inversion')} {inversion}: this solver only decodes", hint=", ".join(INVERSIONS)
        )
    num = _first(steps, solver.steps, bundle.model.sampling.steps)
    way = Way(solver=inversion, spacing=solver.spacing, steps=num)
    # LRDM's inverse leads from the first of its timesteps to the last: there must be two
    return _checked(bundle, way, least=2 if way.spec(bundle).spacing == "ahead" else 1)


def sampling_way(bundle: Bundle, sampler: Sampler | None, steps: int | None, stop_shift: float = 0.0) -> Way:
    """How what was drawn is decoded: as ``sampler`` says or, where it is None, as the bundle has it."""
    chosen = sampler or bundle.model.sampling.sampler
    spacing = chosen.spacing or solver_named(chosen.solver).spacing
    num = _first(steps, chosen.steps, bundle.model.sampling.steps)
    way = Way(solver=chosen.solver, spacing=spacing, steps=num, stop_shift=stop_shift)
    return _checked(bundle, way)


def way_down(
    bundle: Bundle, info: CodeInfo, *, has_x_T: bool, steps: int | None, sampler: Sampler | None
) -> Way:
    """How a code is decoded; ``steps`` and ``sampler`` are the user's, None where there is no wish.

    Raises CodeError where a code that decodes one way alone is asked to go another, or records one that rdm
    does not know.
    """
    if info.solver not in SOLVERS or info.spacing not in (None, *get_args(Spacing)):
        raise CodeError(f"the code records solver {info.solver!r} on {info.spacing!r}, unknown here")
    # an x_T that is drawn anew owes nothing to the inversion that it replaces
    bound = bundle.model.time_dependent  # a z for each timestep, of the way that it was made on
    recorded = info.steps is not None and (has_x_T or bound or solver_named(info.solver).clamps)
    if not recorded:
        return sampling_way(bundle, sampler, steps, info.stop_shift)
    assert info.steps is not None
    own = Way(solver=info.solver, spacing=info.spacing, steps=info.steps, stop_shift=info.stop_shift)
    if not own.kernel.clamps:
        asked_steps = _first(steps, None if sampler is None else sampler.steps, own.steps)
        asked_spacing = (None if sampler is None else sampler.spacing) or own.spacing
        asked_solver = sampler.solver if sampler is not None else own.solver
        if (asked_solver, asked_spacing, asked_steps) != (own.solver, own.spacing, own.steps):
            raise CodeError(
                f"this code was made by {own.solver} in {own.steps} steps, and decodes in no other way",
                hint=f"leave out {setting('steps')} and {setting('solver')}",
            )
        return _checked(bundle, own)
    if sampler is not None:
        asked = sampling_way(bundle, sampler, _first(steps, sampler.steps, own.steps), info.stop_shift)
        if bound and asked.steps == own.steps and asked.timesteps(bundle) != own.timesteps(bundle):
            raise CodeError(
                f"the code holds z at the timesteps of {own.solver}, and not at those of {asked.solver}",
                hint=f"leave out {setting('solver')}",
            )
        return asked
    return _checked(bundle, replace(own, steps=_first(steps, own.steps)))


def _first(*numbers: int | None) -> int:
    """The first number of steps that is given; 0 is one, and refused later. UsageError for no integer."""
    number = next(number for number in numbers if number is not None)
    try:
        return int(operator.index(number))
    except TypeError:
        raise UsageError(f"{setting('steps')} {number!r}: a whole number is needed") from None


def _checked(bundle: Bundle, way: Way, least: int = 1) -> Way:
    most = way.spec(bundle).max_steps
    least = 2 if way.kernel.in_pairs else least
    if not least <= way.steps <= most:
        raise UsageError(
            f"{bundle.name}: {setting('steps')} {way.steps}: {way.solver} takes {least} to {most}"
        )
    return way
