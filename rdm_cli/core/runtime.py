"""What the machine offers: device, threads, precision and memory."""

from __future__ import annotations

import copy
import ctypes
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast, get_args

import torch
from torch import nn

from rdm_cli.errors import CodeError, UsageError
from rdm_cli.models.blocks import FullPrecisionConv2d

Precision = Literal["fp32", "bf16", "fp16"]
_DTYPES: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}

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


def resolve_device(name: str) -> torch.device:
    """``auto`` (CUDA, then MPS, then CPU) or what torch calls a device; UsageError if it is absent."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"--device {name}: {reason}", hint="try --device cpu") from error
    return device


def set_up(*, device: str = "auto", threads: int | None = None) -> torch.device:
    """Prepare this process for running networks, and say on which device."""
    keep_freed_memory()
    resolved = resolve_device(device)
    if threads is None and "OMP_NUM_THREADS" not in os.environ:
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if threads is not None:
        torch.set_num_threads(threads)
    return resolved


def precision_named(name: str) -> Precision:
    """``name`` as a precision; raises CodeError where it is none, for such a name stands in a code."""
    for precision in get_args(Precision):
        if name == precision:
            return cast(Precision, precision)
    raise CodeError(f"the code records the precision {name!r}, unknown here")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Run the networks in ``precision``; the sampler's own arithmetic stays float32."""
    if precision == "fp32":
        return nullcontext()
    if precision == "fp16" and device.type == "cpu":
        raise UsageError("fp16 needs a GPU", hint="on a CPU, use --precision bf16 or fp32")
    return torch.autocast(device.type, _DTYPES[precision])


def with_cast_weights(model: nn.Module, precision: Precision) -> nn.Module:
    """``model``, or for half precision a copy whose convolutions and linear layers hold their weights in it.

    :func:`autocast` casts those weights at every call, to the same values; here they are cast once.
    """
    if precision == "fp32":
        return model
    cast = copy.deepcopy(model)
    for module in cast.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and not isinstance(
            module, FullPrecisionConv2d
        ):
            module.to(_DTYPES[precision])
    return cast


def default_batch_size(device: torch.device) -> int:
    """Images in one forward pass where the user names no number."""
    return 8 if device.type == "cpu" else 64


def weights_dtype(name: str) -> torch.dtype:
    """``fp16`` or ``fp32`` as torch's dtype: how a bundle stores its weights."""
    return torch.float16 if name == "fp16" else torch.float32
