"""A batch job on a Ray cluster, or on a Ray of this machine's own.

Ray Data has the work in two steps. Reading tasks, each with a part of the inputs (an archive, some row
groups, some hundreds of files), hand on what the files hold, a few hundred at a time; workers, each with its
bundle open, do with them what the same job does on one machine. So Ray schedules, holds readers back while
workers are busy, spills, starts anew what died, and knows where the GPUs are. How names, damage and results
are treated is the job's own: results are the very files that it writes without Ray.

A part or a batch that is lost with its machine is done again as a whole. That changes nothing: results have
places of their own, are written whole, and those that are there already are passed over.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Protocol

from rdm_cli.data.images.pixels import SAID_ONCE, warn_of
from rdm_cli.data.io.optional import optional_module
from rdm_cli.data.io.places import Blob, Readable, held
from rdm_cli.data.sources.folders import Item, PassedOver
from rdm_cli.data.sources.lmdbs import Lmdb
from rdm_cli.data.sources.parquet import ParquetImages
from rdm_cli.data.sources.source import Holds, Source, all_of
from rdm_cli.errors import (
    BundleError,
    RdmError,
    SourceError,
    UsageError,
    setting_writer,
    settings_written_by,
)
from rdm_cli.jobs.batch import Outcome, Task, told
from rdm_cli.jobs.job import Job
from rdm_cli.jobs.results import Result

ITEMS_IN_A_PART = 4096
"""Inputs that one reading task reads, where they are files or rows; an archive is read by one."""
BYTES_AT_ONCE = 2**25
"""A reading task hands on at once as many inputs as it was told to, or fewer that hold so many bytes."""
ANSWER_SECONDS = 10.0
"""How long a cluster may take to answer at its address."""
WORKER_CPUS = 0.5
READER_CPUS = 0.1
"""What a worker, and a reading task, take of a CPU in Ray's books. Where there is no GPU, there is a worker
for each CPU; the rest is room for reading, and for the workers of machines that are lost."""


class Work(Protocol):
    """What is done with some inputs: :func:`~rdm_cli.jobs.encode.encode_files` with its options, say.

    ``opened`` is what a worker opened for it.
    """

    def __call__(self, opened: Any, tasks: Iterable[Task], /) -> Iterator[Outcome[Task, Result]]:
        """One outcome for each task."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What every worker does: ``work``, with what ``opened(on_remark=...)`` opens, once for each worker.

    That is a pipeline whose bundle must have this ``digest`` on all machines; None: what else the work takes,
    such as what opens the bundle that a code records. Each has ``threads`` and, ``on_gpus``, a GPU
    that ``per_gpu`` of them share; None: where the cluster has some. It is handed ``items_at_once``, which
    are done again where it dies. All of it is pickled.
    """

    opened: Callable[..., Any]
    digest: str | None
    work: Work
    on_gpus: bool | None
    per_gpu: int = 1
    threads: int = 1
    items_at_once: int = 256


def outcomes_on_ray(
    job: Job, workers: Workers, address: str | None = None
) -> Iterator[Outcome[Task, Result]]:
    """Do the work with each input of ``job``; outcomes come as they are made, in no order.

    ``address`` is that of a Ray cluster; None: what RAY_ADDRESS says, or else a Ray of this machine's own,
    for this job. Raises UsageError where Ray is absent or its cluster has no GPU, and for an LMDB, which
    cannot be divided; RdmError for what Ray says.
    """
    for source in job.sources:
        if isinstance(source, Lmdb):
            raise UsageError(f"{source.path}: an LMDB is read by one process", hint="leave out --engine")
    with _connected(address) as ray:
        resources = ray.cluster_resources()
        num = workers.per_gpu * int(resources.get("GPU", 0))
        share = {"num_cpus": WORKER_CPUS * workers.threads}
        if workers.on_gpus and not num:
            raise UsageError("Ray's cluster has no GPU", hint="--device cpu")
        if workers.on_gpus is False or not num:
            num = max(1, int(resources.get("CPU", 0)) // workers.threads)
        else:
            share["num_gpus"] = 1 / workers.per_gpu
        here = _Here(folder=os.getcwd(), writes_settings=setting_writer())
        at_once = workers.items_at_once
        parts = [{"part": ray.cloudpickle.dumps((here, at_once, part))} for part in _parts(job)]
        if not parts:  # of a shard to which nothing falls
            return
        rows = ray.data.from_items(parts, override_num_blocks=len(parts))
        rows = rows.map_batches(
            _read, batch_size=1, batch_format="pyarrow", num_cpus=READER_CPUS,
            compute=ray.data.TaskPoolStrategy(size=2 * num),
        )  # fmt: skip
        rows = rows.map_batches(
            _Worker, batch_size=1, batch_format="pyarrow", fn_constructor_args=(here, ray.put(workers)),
            compute=ray.data.ActorPoolStrategy(size=num), **share,
        )  # fmt: skip
        has_said_once = False
        with _told_of(ray), closing(iter(rows.iter_batches(batch_size=None, batch_format="pyarrow"))) as made:
            for cell in (cell for table in made for cell in table.column("batch")):
                batch: _Made = pickle.loads(cell.as_py())
                job.sources[batch.source].passed_over.update(batch.passed_over)
                for name, text in batch.remarks:
                    if text.endswith(SAID_ONCE) and has_said_once:
                        continue  # each worker says it once
                    has_said_once = has_said_once or text.endswith(SAID_ONCE)
                    job.remark(name, text)
                yield from batch.outcomes
                if batch.error is not None:
                    raise batch.error


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """Ray, connected to a cluster, which says nothing that the job does not say; it ends with the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 starves workers beside any other program
    ray: Any = optional_module("ray", package="Ray", purpose="--engine ray", extra="ray")
    optional_module("pandas", package="pandas", purpose="--engine ray", extra="ray")  # Ray Data's, always
    optional_module("ray.data", package="Ray Data", purpose="--engine ray", extra="ray")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"ray\.")
    address = address or os.environ.get("RAY_ADDRESS")
    # without an address Ray looks for the last Ray of this machine, and waits for it where it is gone
    where: dict[str, Any] = {"address": address or "local"}
    if not address:
        where["include_dashboard"] = False
    if address:
        _refuse_silent(address)
    try:
        with _mute(), _own_signals():
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RdmError(f"Ray at {where['address']}: {_one_line(error)}") from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_max_block_size = 2**20  # what is handed on at once stays as it is, however small
    try:
        yield ray
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Raise RdmError where nobody answers at ``address``: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if not host or "://" in address or not port.isdigit():
        return  # such as auto, which Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS).close()
    except OSError as error:
        raise RdmError(
            f"Ray at {address}: {error.strerror or error}", hint="'ray start --head' says its address"
        ) from error


@contextmanager
def _mute() -> Iterator[None]:
    """Within the block nothing goes to stderr: Ray has no other switch for its first line."""
    told, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(told, 2)
        os.close(told)
        os.close(nowhere)


@contextmanager
def _own_signals() -> Iterator[None]:
    """After the block SIGINT and SIGTERM do what they did before: Ray takes them for itself."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _told_of(ray: Any) -> Iterator[None]:
    """Within the block what Ray says of itself (a node that has gone, say) is an RdmError of one line."""
    try:
        yield
    except ray.exceptions.RayTaskError:
        raise  # a fault of rdm's own, with its traceback
    except ray.exceptions.RayError as error:
        raise RdmError(f"Ray: {_one_line(error)}") from error


def _one_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclass(frozen=True, kw_only=True)
class _Here:
    """Where the command runs, and how it writes settings in messages: workers do as it does."""

    folder: str
    writes_settings: Callable[[str], str]

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Within the block, messages and relative paths are those of the command."""
        try:
            os.chdir(self.folder)
        except OSError as error:
            node = os.uname().nodename
            raise RdmError(
                f"{node}: {self.folder} is not there", hint="run it in a folder that all machines see"
            ) from error
        with settings_written_by(self.writes_settings):
            yield


class _Part(Protocol):
    """What one reading task reads: :class:`Job` is one."""

    @property
    def tasks(self) -> Iterator[Task]: ...  # noqa: D102

    @property
    def passed_over(self) -> PassedOver: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class _Files:
    """A part: files that were found, which the command has counted."""

    found: list[Task]
    passed_over: PassedOver

    @property
    def tasks(self) -> Iterator[Task]:
        """See :class:`_Part`."""
        return iter(self.found)


class _PartOfSource:
    """A source: of an archive or a table those pieces that ``names`` holds; None: all."""

    def __init__(self, source: Source, names: frozenset[str] | None) -> None:
        self.source, self.names = source, names
        self.counted, self.whole = source.counted, source.whole
        self.passed_over = source.passed_over

    def items(self, holds: Holds = all_of) -> Iterator[Item[Readable]]:
        """See :class:`~rdm_cli.data.sources.source.Source`."""
        names = self.names
        return self.source.items(holds if names is None else lambda name: name in names and holds(name))


def _parts(job: Job) -> Iterator[tuple[int, _Part]]:
    """The parts of a job, each with the number of its source; an archive is one, a table some row groups."""
    if all(source.counted for source in job.sources):
        tasks = job.tasks
        # a small job is divided, too
        num = ITEMS_IN_A_PART if job.num_items is None else min(ITEMS_IN_A_PART, 1 + job.num_items // 16)
        while found := list(islice(tasks, num)):
            yield 0, _Files(found=found, passed_over=PassedOver())
        return
    for i, source in enumerate(job.sources):
        for names in _pieces(source):
            alone = replace(job, sources=[_PartOfSource(source, names)], remark=warn_of, manifest=None)
            yield i, alone


def _pieces(source: Source) -> Iterator[frozenset[str] | None]:
    """The names of row groups that are read by one task; None for all of a source."""
    sizes: dict[str, int] = {}
    if isinstance(source, ParquetImages):
        with suppress(Exception):  # what is wrong with it is told by whoever reads it
            sizes = source.group_sizes()
    if not sizes:
        yield None
        return
    most = min(ITEMS_IN_A_PART, 1 + sum(sizes.values()) // 16)
    names, num = list[str](), 0
    for name, size in sizes.items():
        if names and num + size > most:
            yield frozenset(names)
            names, num = [], 0
        names.append(name)
        num += size
    yield frozenset(names)


_TOLD = (RdmError, OSError, MemoryError)
"""What ends the job, and is raised again where the command runs: Ray hands on its text, not its kind."""


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """Inputs that were read; what their part ``passed_over``, and why it cannot be read on, with the last."""

    source: int
    tasks: list[Task]
    passed_over: PassedOver
    error: Exception | None = None


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What became of a batch, what is to be remarked of images, and why the job cannot go on."""

    source: int
    outcomes: list[Outcome[Task, Result]]
    remarks: list[tuple[str, str]]
    passed_over: PassedOver
    error: Exception | None


def _read(parts: Any) -> Iterator[Any]:
    """Ray's reading task: a batch of inputs, with what they hold, after the other."""
    here, at_once, (source, part) = pickle.loads(parts.column("part")[0].as_py())
    try:
        with here.entered():
            for tasks, is_last in _batches(part.tasks, at_once):
                passed_over = part.passed_over if is_last else PassedOver()
                yield _as_row(_Batch(source=source, tasks=tasks, passed_over=passed_over))
    except _TOLD as error:
        yield _as_row(_Batch(source=source, tasks=[], passed_over=PassedOver(), error=error))


def _as_row(value: _Batch | _Made) -> Any:
    """A table of pyarrow's with one row, which Ray hands on whole."""
    import pyarrow as arrow

    return arrow.table({"batch": arrow.array([pickle.dumps(value)], arrow.large_binary())})


def _batches(tasks: Iterable[Task], num: int) -> Iterator[tuple[list[Task], bool]]:
    """``tasks`` with what they hold, ``num`` at a time, and whether they are the last, which may be none."""
    found, num_bytes = list[Task](), 0
    for task in map(_with_content, tasks):
        found.append(task)
        num_bytes += len(task.source.read_bytes()) if isinstance(task.source, Blob) else 0
        if len(found) == num or num_bytes >= BYTES_AT_ONCE:
            yield found, False
            found, num_bytes = [], 0
    yield found, True


def _with_content(task: Task) -> Task:
    """A task whose source is what it holds, or whose error says why it cannot be read."""
    if task.error is not None:
        return replace(task, source=Blob(str(task.source), b""))
    try:
        return replace(task, source=held(task.source))
    except RdmError as error:
        fault = error
    except OSError as error:
        fault = SourceError(told(error))
    return replace(task, source=Blob(str(task.source), b""), error=fault)


class _Worker:
    """Ray's worker: what is opened once, and what is done with each batch of inputs."""

    def __init__(self, here: _Here, workers: Any) -> None:
        import ray

        self._here = here
        self._workers: Workers = ray.get(workers)
        self._remarks: list[tuple[str, str]] = []

    @cached_property
    def _opened(self) -> Any:
        """Opened for the first batch: what goes wrong before that, Ray does not hand on as it is."""
        opened = self._workers.opened(on_remark=lambda name, text: self._remarks.append((name, text)))
        if (digest := self._workers.digest) is not None and opened.bundle.digest != digest:
            bundle = opened.bundle
            raise BundleError(
                f"{os.uname().nodename}: {bundle.name} is another bundle there ({bundle.digest[:12]}, not "
                f"{digest[:12]})",
                hint="name one that all machines have",
            )
        return opened

    def __call__(self, batches: Any) -> Any:
        """One batch, and what became of it."""
        batch: _Batch = pickle.loads(batches.column("batch")[0].as_py())
        outcomes, error = list[Outcome[Task, Result]](), batch.error
        tasks = iter(batch.tasks)  # a list would pass for the whole job, which settles the batch size
        try:
            with self._here.entered():
                for outcome in self._workers.work(self._opened, tasks):
                    outcomes.append(_light(outcome))
        except _TOLD as fault:
            error = fault
        remarks, self._remarks = self._remarks, []
        return _as_row(
            _Made(
                source=batch.source,
                outcomes=outcomes,
                remarks=remarks,
                passed_over=batch.passed_over,
                error=error,
            )
        )


def _light(outcome: Outcome[Task, Result]) -> Outcome[Task, Result]:
    """An outcome without what its input holds."""
    return replace(outcome, item=replace(outcome.item, source=Blob(str(outcome.item.source), b"")))
