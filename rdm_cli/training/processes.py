"""The processes of one run: what they agree on, what they take turns at, and who of them speaks.

accelerate starts them, averages their gradients and adds up their numbers. What is here keeps them together:
none goes on where another one cannot, for the others would wait for it for ever. Where a process that loads
images for one of them dies, that is noticed here too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, TypeAlias, TypeVar

import torch

from rdm_cli.errors import RdmError

if TYPE_CHECKING:
    from accelerate import Accelerator, PartialState

PATIENCE = timedelta(hours=12)
"""How long processes wait for one another: while the first computes latents or draws sheets, all do."""

NEWS_SECONDS = 0.5
"""How long torch takes to notice that a process that loads images has died."""

THREADS_SECONDS = 0.2
"""How long gloo's threads have to free what they were last given, which takes them microseconds."""

Processes: TypeAlias = "Accelerator | PartialState"
"""What knows of them: accelerate's view of the run, before or after the arithmetic of training is settled."""

Result = TypeVar("Result")


class ReportedElsewhereError(RdmError):
    """Why a run ends, which another process reports: this one is to end without a word.

    Its exit code is 0 where all know that the run ends: a launcher would kill the others, who may be about to
    save and to report why, when it sees one fail.
    """

    def __init__(self, message: str, *, exit_code: int = 0) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def agree(processes: Processes, *, asked: bool = False, error: Exception | None = None) -> bool:
    """Whether any process was ``asked`` to end; to be called by all at the same point.

    Where any of them has an ``error``, all raise: a process alone its own, several in the main process what
    the first of them says, an RdmError, and in the others ReportedElsewhereError.
    """
    if processes.num_processes == 1:
        if error is not None:
            raise error
        return asked
    from accelerate.utils import reduce

    flags = torch.tensor([float(asked), float(error is not None)], device=processes.device)
    num_asked, num_failed = reduce(flags, "sum").tolist()
    if num_failed:
        _raise_in_all(processes, error)
    return bool(num_asked)


def _raise_in_all(processes: Processes, error: Exception | None) -> NoReturn:
    from accelerate.utils import gather_object

    mine = None if error is None else (str(getattr(error, "message", error)), getattr(error, "hint", None))
    everyone = gather_object([mine])
    first = next(i for i, theirs in enumerate(everyone) if theirs is not None)
    message, hint = everyone[first]
    if not processes.is_main_process:
        raise ReportedElsewhereError(message) from error
    if error is not None:
        raise error
    raise RdmError(f"process {first} of {processes.num_processes}: {message}", hint=hint)


@contextmanager
def together(processes: Processes) -> Iterator[None]:
    """What all processes do, each for itself; where one of them fails, all do, and say so once.

    Raises as :func:`agree` does. What is done within the block must not wait for other processes.
    """
    error: Exception | None = None
    try:
        yield
    except (RdmError, OSError) as failure:
        error = failure
    agree(processes, error=error)


def in_turn(processes: Processes, work: Callable[[], Result]) -> Result:
    """``work()`` of each process: the main one's first, then that of each machine's first, then the rest's.

    For work whose result is kept on a disk, where those who come later find it. Raises as :func:`agree` does.
    """
    mine = 0 if processes.is_main_process else 1 if processes.is_local_main_process else 2
    done: list[Result] = []
    for turn in range(3 if processes.num_processes > 1 else 1):
        with together(processes):
            if turn == mine:
                done.append(work())
    return done[0]


def is_the_same(processes: Processes, number: int) -> bool:
    """Whether all processes have the same ``number``, of at most 63 bits."""
    if processes.num_processes == 1:
        return True
    from accelerate.utils import gather

    numbers = gather(torch.tensor([number], device=processes.device))
    return bool((numbers == number).all())


def mean_and_clock(processes: Processes, value: float, seconds: float) -> tuple[float, float]:
    """The mean of all processes' ``value``, and the main one's ``seconds``.

    Learning rate and end of training follow the clock, so there must be one.
    """
    if processes.num_processes == 1:
        return value, seconds
    from accelerate.utils import reduce

    mine = [value / processes.num_processes, seconds if processes.is_main_process else 0.0]
    total = torch.tensor(mine, dtype=torch.float64, device=processes.device)
    mean, clock = reduce(total, "sum").tolist()
    return mean, clock


def leave(accelerator: Accelerator) -> None:
    """End a run, once gloo's threads are done with what they were last given.

    torch frees the group with Python's lock held and waits for its threads. One that is still about to free a
    tensor waits for that lock, for ever (ProcessGroupGloo's destructor beside AsyncWork's). Asleep, this
    thread leaves the lock to it.
    """
    if accelerator.num_processes > 1:
        time.sleep(THREADS_SECONDS)
    accelerator.end_training()


@contextmanager
def lost_processes_reported(
    processes: Processes, way_back: Callable[[], str | None] = lambda: None
) -> Iterator[None]:
    """Within the block, what torch raises where another process has gone becomes an RdmError.

    ``way_back()`` is its hint. The first that notices reports it, the others raise ReportedElsewhereError.
    """
    try:
        yield
    except RuntimeError as error:
        if processes.num_processes == 1 or not _is_of_a_connection(error):
            raise
        message = "another process of this run has ended"
        if not _is_first_to_report(processes):
            raise ReportedElsewhereError(message, exit_code=1) from error
        raise RdmError(message, hint=way_back()) from error


def _is_of_a_connection(error: RuntimeError) -> bool:
    """torch has classes for NCCL's errors and its own; gloo's are known by their words."""
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)


def _is_first_to_report(processes: Processes) -> bool:
    """Whether no other process has reported yet, by the store at which all of them met.

    A launcher may keep it, and it outlives the processes; else the main one does, and it has gone if the
    store has.
    """
    from torch.distributed.distributed_c10d import _get_default_store

    try:
        return bool(_get_default_store().add("lost_processes_reported", 1) == 1)
    except RuntimeError:
        return processes.process_index == 1


@contextmanager
def dead_workers_reported() -> Iterator[None]:
    """Within the block what torch raises where a DataLoader's worker died becomes an RdmError.

    It has no exception of its own for it: a RuntimeError, from wherever the news arrives, or, where the dead
    one's tensors are still being fetched, a connection that breaks off.
    """
    try:
        yield
    except (RuntimeError, ConnectionResetError, ConnectionRefusedError, EOFError) as error:
        message = str(error)
        if isinstance(error, RuntimeError) and not message.startswith("DataLoader worker"):
            raise
        if not isinstance(error, RuntimeError):
            with suppress(RuntimeError):
                time.sleep(NEWS_SECONDS)  # or torch's own news would come amid whatever is done next
        reason = " ".join(message.split()).rstrip(".") or "it broke off"
        raise RdmError(
            f"a process that loads images died ({reason})",
            hint="often for want of memory: try fewer --workers; --resume goes on from the checkpoint",
        ) from error
