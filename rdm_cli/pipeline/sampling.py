"""How images are encoded, and how codes are decoded: by which solver, on which timesteps, in how many steps.

Up, in this order, the first that says something: the user, who may name an inversion, its steps and its
iterations, each by itself; the bundle's ``inverter``; the solver's own numbers.

Down:

1. the user: a ``sampler`` and ``steps``, each by itself, override what a code records;
2. the code: one that was inferred from an image is decoded the way it was made, a sample as it was shown;
3. the bundle: it says how it samples what was drawn and records nothing.

A code of ``fixed-point`` or ``exact`` decodes in one way alone, the one that it records. A user who asks for
another is refused: no picture comes out that the code does not stand for.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any, cast, get_args

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import CodeInfo
from rdm_cli.errors import CodeError, UsageError, setting
from rdm_cli.kernels.schedules import Spacing
from rdm_cli.kernels.solvers import Solver
from rdm_cli.kernels.spec import Sampling, SamplingSpec
from rdm_cli.registry import INVERSIONS, SOLVERS, load


@dataclass(frozen=True, kw_only=True)
class Way:
    """A sampling that leaves nothing open, in the ``spec`` of the bundle that follows it."""

    sampling: Sampling
    spec: SamplingSpec

    @cached_property
    def kernel(self) -> Solver:
        """The solver itself."""
        return solver_named(self.sampling.solver)

    @property
    def steps(self) -> int:
        """How many steps."""
        return cast(int, self.sampling.steps)

    @property
    def iterations(self) -> int:
        """Network calls of each step up."""
        return self.sampling.iterations or self.kernel.iterations

    @property
    def calls_up(self) -> int:
        """Network calls of an inversion."""
        return self.kernel.calls_up(self.steps, self.iterations)

    @property
    def calls_down(self) -> int:
        """Network calls of a decode."""
        return self.kernel.calls_down(self.steps)

    @property
    def timesteps(self) -> tuple[int, ...]:
        """Those that the network is told, ascending."""
        return _timesteps(self.spec, self.steps)


@cache  # a trajectory takes longer than the z of an image
def _timesteps(spec: SamplingSpec, num_steps: int) -> tuple[int, ...]:
    return tuple(spec.trajectory(num_steps).t.tolist())


def solver_named(name: str) -> Solver:
    """A solver of the registry; raises UsageError listing those that there are."""
    solver: Solver = load(SOLVERS, "solver", name)
    return solver


def checked_solver(name: str) -> str:
    """``name`` as it is; raises UsageError where there is no such solver."""
    solver_named(name)
    return name


def way_up(
    bundle: Bundle, inversion: str | None = None, steps: int | None = None, iterations: int | None = None
) -> Way:
    """How images are encoded; None is the bundle's own or, where it names none, the solver's own.

    Raises UsageError for a solver that leads down alone, for steps that it has not, and for iterations of one
    that solves no equation.
    """
    own = bundle.model.sampling.inverter
    solver = solver_named(inversion or own.solver)
    if solver.encode is None:
        raise UsageError(
            f"{setting('inversion')} {inversion}: this solver only decodes", hint=", ".join(INVERSIONS)
        )
    if inversion is not None and inversion != own.solver:
        own = Sampling(solver=inversion)
    if iterations is not None and solver.iterations == 1:
        raise UsageError(f"{setting('iterations')}: {own.solver} solves no equation")
    if iterations is not None and iterations < 1:
        raise UsageError(f"{setting('iterations')} {iterations}: the network is asked once at least")
    num_iterations = None if solver.iterations == 1 else iterations or own.iterations or solver.iterations
    num = _first(steps, own.steps, solver.steps, bundle.model.sampling.steps)
    way = _way(
        bundle, replace(own, spacing=own.spacing or solver.spacing, steps=num, iterations=num_iterations)
    )
    # LRDM's inverse leads from the first of its timesteps to the last: there must be two
    return _checked(bundle, way, least=2 if way.spec.spacing == "ahead" else 1)


def sampling_way(bundle: Bundle, sampler: Sampling | None, steps: int | None, stop_shift: float = 0.0) -> Way:
    """How what was drawn is decoded: as ``sampler`` says or, where it is None, as the bundle has it."""
    chosen = sampler or bundle.model.sampling.sampler
    num = _first(steps, chosen.steps, bundle.model.sampling.steps)
    spacing = chosen.spacing or solver_named(chosen.solver).spacing
    return _checked(bundle, _way(bundle, replace(chosen, spacing=spacing, steps=num, stop_shift=stop_shift)))


def recorded(info: CodeInfo) -> Sampling:
    """How a code says that it was made; raises CodeError for a solver or timesteps unknown here."""
    if info.solver not in SOLVERS or info.spacing not in (None, *get_args(Spacing)):
        raise CodeError(f"the code records solver {info.solver!r} on {info.spacing!r}, unknown here")
    return Sampling(
        solver=info.solver,
        spacing=cast(Any, info.spacing),
        steps=info.steps,
        iterations=info.iterations,
        stop_shift=info.stop_shift,
    )


def way_down(
    bundle: Bundle, info: CodeInfo, *, has_x_T: bool, steps: int | None, sampler: Sampling | None
) -> Way:
    """How a code is decoded; ``steps`` and ``sampler`` are the user's, None where there is no wish.

    Raises CodeError where a code that decodes one way alone is asked to go another, or records one that rdm
    does not know.
    """
    own = recorded(info)
    # an x_T that is drawn anew owes nothing to the inversion that it replaces
    bound = bundle.model.time_dependent  # a z for each timestep, of the way that it was made on
    binding = own.steps is not None and (has_x_T or bound or solver_named(own.solver).clamps)
    if not binding:
        return sampling_way(bundle, sampler, steps, own.stop_shift)
    way = _way(bundle, own)
    if not way.kernel.clamps:
        asked = replace(
            own,
            solver=own.solver if sampler is None else sampler.solver,
            spacing=(sampler and sampler.spacing) or own.spacing,
            steps=_first(steps, None if sampler is None else sampler.steps, way.steps),
        )
        if asked != own:
            raise CodeError(
                f"this code was made by {own.solver} in {own.steps} steps, and decodes in no other way",
                hint=f"leave out {setting('steps')} and {setting('solver')}",
            )
        return _checked(bundle, way)
    if sampler is None:
        return _checked(bundle, _way(bundle, replace(own, steps=_first(steps, own.steps))))
    other = sampling_way(bundle, sampler, _first(steps, sampler.steps, own.steps), own.stop_shift)
    if bound and other.steps == way.steps and other.timesteps != way.timesteps:
        raise CodeError(
            f"the code holds z at the timesteps of {own.solver}, and not at those of {sampler.solver}",
            hint=f"leave out {setting('solver')}",
        )
    return other


def _way(bundle: Bundle, sampling: Sampling) -> Way:
    solver = solver_named(sampling.solver)
    return Way(sampling=sampling, spec=solver.spec(bundle.model.sampling, sampling.spacing))


def _first(*numbers: int | None) -> int:
    """The first number of steps that is given; 0 is one, and refused later. UsageError for no integer."""
    number = next(number for number in numbers if number is not None)
    try:
        return int(operator.index(number))
    except TypeError:
        raise UsageError(f"{setting('steps')} {number!r}: a whole number is needed") from None


def _checked(bundle: Bundle, way: Way, least: int = 1) -> Way:
    most = way.spec.max_steps
    least = 2 if way.kernel.in_pairs else least
    if not least <= way.steps <= most:
        raise UsageError(
            f"{bundle.name}: {setting('steps')} {way.steps}: {way.sampling.solver} takes {least} to {most}"
        )
    return way
