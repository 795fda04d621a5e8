"""What the machine offers: device, threads, precision and memory."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from numbers import Integral
from typing import Literal, cast, get_args

import torch
from torch import nn

from rdm_cli.errors import CodeError, RdmError, UsageError, setting

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

MAX_THREADS = 1024
"""More than any machine has cores; OpenMP ends the process where the system gives it no more threads."""

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> None:
    """Ask glibc to keep what is freed instead of handing it back to the kernel.

    A network frees and asks again for the same large activations at every step; getting them as fresh
    pages costs up to half the time of a convolution on a CPU. Elsewhere than on glibc: does nothing.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return  # another C library: nothing to tune, nothing lost
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 64 * 2**20)


def resolve_device(name: str | torch.device) -> torch.device:
    """``auto`` (CUDA, then MPS, then CPU) or what torch calls a device.

    Raises UsageError for a device that is absent, and for one that holds no values, as torch's "meta" does.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        hint = "cuda is a GPU of NVIDIA's or AMD's, mps one of Apple's, auto whichever there is"
        raise UsageError(f"{setting('device')} {name}: there is no such kind of device", hint=hint) from None
    try:
        if device.type == "meta":
            raise RuntimeError("its tensors hold no values")
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, ImportError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(
                f"{setting('device')} {name}", "wait until others leave it, or name another"
            ) from error
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"{setting('device')} {name}: {reason}", hint=f"try {setting('device')} cpu"
        ) from error
    return device


def use_threads(num: int) -> None:
    """Let torch compute on ``num`` threads in this process; raises UsageError where it cannot."""
    if not isinstance(num, Integral) or not 1 <= num <= MAX_THREADS:
        raise UsageError(f"{setting('threads')} {num}: between 1 and {MAX_THREADS} threads can be had")
    torch.set_num_threads(int(num))


def set_up(*, device: str = "auto", threads: int | None = None) -> torch.device:
    """Make this process one that runs networks and nothing else, and say on which device.

    It changes how the whole process allocates memory, and how many threads it computes on (``threads`` None:
    all cores, unless OMP_NUM_THREADS says otherwise). Commands do so; opening a pipeline does not, and a
    script of one's own that wants their speed calls this first. Raises UsageError for a device or a number of
    threads that cannot be had.
    """
    keep_freed_memory()
    resolved = resolve_device(device)
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = min(cores or 1, MAX_THREADS)
    if threads is not None:
        use_threads(threads)
    return resolved


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python says that the memory of a device, or of the machine, is used up.

    torch has a class for GPUs alone; a CPU and the libraries of a GPU say so in words.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "STATUS_ALLOC_FAILED")


def out_of_memory(what: str, hint: str) -> RdmError:
    """What is told of an error that :func:`is_out_of_memory`."""
    return RdmError(f"{what}: the memory does not suffice", hint=hint)


@contextmanager
def memory_told(what: str, hint: str) -> Iterator[None]:
    """Within the block, an error that :func:`is_out_of_memory` becomes an RdmError about ``what``."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(what, hint) from error


def precision_named(name: str) -> Precision:
    """``name`` as a precision; raises CodeError where it is none, for such a name stands in a code."""
    if name not in get_args(Precision):
        raise CodeError(f"the code records the precision {name!r}, unknown here")
    return cast(Precision, name)


def checked_precision(device: torch.device, name: str) -> Precision:
    """``name`` as a precision; raises UsageError where it is none, or ``device`` does not have it."""
    known = get_args(Precision)
    if name not in known:
        raise UsageError(f"there is no precision {name!r}", hint=f"known: {', '.join(known)}")
    if name == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU", hint=f"on a CPU, use {setting('precision')} bf16 or fp32")
    return cast(Precision, name)


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Run the networks in ``precision``, whatever the caller has set; the sampler's arithmetic stays float32.

    fp32 is that within a caller's own ``torch.autocast`` as well: a code says in which precision it was made.
    """
    checked_precision(device, precision)
    if precision == "fp32":
        known = torch.amp.is_autocast_available(device.type)  # where not, there is nothing to switch off
        return torch.autocast(device.type, enabled=False) if known else nullcontext()
    return torch.autocast(device.type, _DTYPES[precision])


def with_cast_weights(model: nn.Module, precision: Precision) -> nn.Module:
    """``model``, or for half precision a copy whose convolutions and linear layers hold their weights in it.

    :func:`autocast` casts those weights at every call, to the same values; here they are cast once.
    """
    if precision == "fp32":
        return model
    cast = copy.deepcopy(model)
    for module in cast.modules():
        casts = not getattr(module, "in_full_precision", False)
        if casts and isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            module.to(_DTYPES[precision])
    return cast


def default_batch_size(device: torch.device) -> int:
    """Images in one forward pass where the user names no number."""
    return 8 if device.type == "cpu" else 64


def weights_dtype(name: str) -> torch.dtype:
    """``fp16`` or ``fp32`` as torch's dtype: how a bundle stores its weights."""
    return torch.float16 if name == "fp16" else torch.float32
