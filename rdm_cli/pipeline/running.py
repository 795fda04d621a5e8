"""How a bundle's networks are run: in which arithmetic, in which batches, telling how far they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.errors import setting
from rdm_cli.kernels.spec import EpsFn
from rdm_cli.methods.conditions import Conditions
from rdm_cli.pipeline.batching import batch_size_for_z, batches_at_once, in_padded_batches
from rdm_cli.runtime import Precision, autocast, default_batch_size, memory_told

BAR_FORMAT = "{l_bar}{bar}| {n:.1f}/{total} [{elapsed}<{remaining}]"

Advance = Callable[[float], None]
"""Called with how many images' worth of work was just done (a fraction at each network call)."""


def ignore_progress(_: float) -> None:
    """An ``advance`` for callers who show nothing."""


@dataclass(frozen=True, kw_only=True)
class Runner:
    """An open bundle and how to run it; ``batch_size`` None chooses by device and number of items."""

    bundle: Bundle
    precision: Precision = "fp32"
    batch_size: int | None = None
    show_progress: bool = False

    @property
    def network(self) -> Any:
        """The bundle's model as it is run: its weights in the runner's precision."""
        return self.bundle.model_in(self.precision)

    @contextmanager
    def progress(self, advance: Advance | None, label: str, num: int) -> Iterator[Advance]:
        """The caller's ``advance``, else a tqdm bar where the pipeline shows one, else nothing."""
        if advance is not None or not self.show_progress:
            yield advance or ignore_progress
            return
        from tqdm.auto import tqdm

        with tqdm(total=num, desc=label, unit="image", bar_format=BAR_FORMAT) as bar:
            yield bar.update

    def enter(self, x_0: Tensor) -> Tensor:
        """Images ``x_0`` (B, C, H, W) in [-1, 1] to the space that the model diffuses in, float32.

        In fp32 one image at a time: a first stage's latents differ by some 5e-7 between batch sizes, and an
        inversion makes fifty times as much of it in x_T, where its own networks make 4e-6.
        """
        parts = x_0.split(1) if self.precision == "fp32" else (x_0,)
        with autocast(self.bundle.device, self.precision):
            return torch.cat([self.network.enter(part).float() for part in parts])

    def leave(self, x: Tensor) -> Tensor:
        """From the space that the model diffuses in to images."""
        with autocast(self.bundle.device, self.precision):
            return self.network.leave(x.float().to(self.bundle.device)).float()

    def eps_fn(self, conditions: Conditions, **options: Any) -> EpsFn:
        """The model's denoiser under ``conditions``, with its own ``options``, in the runner's precision."""
        with autocast(self.bundle.device, self.precision):
            denoise = self.network.denoiser(conditions, **options)
        return self.in_precision(denoise)

    def in_precision(self, denoise: EpsFn) -> EpsFn:
        """``denoise`` in the runner's precision, on the bundle's device; its answer is float32.

        A solver may keep its states on the CPU: in float64, where the device has none.
        """
        device, precision = self.bundle.device, self.precision

        def eps_fn(x_t: Tensor, t: Tensor) -> Tensor:
            with autocast(device, precision):
                return denoise(x_t.to(device), t.to(device)).float()

        return eps_fn

    def in_batches(
        self,
        run: Callable[..., tuple[Tensor, ...]],
        *columns: Tensor | Sequence[Tensor],
        at_least: int = 1,
        at_once: int = 1,
        done: Advance = ignore_progress,
    ) -> tuple[Tensor, ...]:
        """Run ``run(number of real rows, *rows)`` over padded slices of at least ``at_least`` rows.

        For ``columns``, ``at_once`` and ``done`` see :func:`~rdm_cli.pipeline.batching.in_padded_batches`.
        Raises RdmError where the device has not the memory for a slice.
        """
        size, device = self.size_of_batches(len(columns[0]), at_least=at_least), self.bundle.device
        num = size * at_once
        what = f"{num} image{'' if num == 1 else 's'} at once on {device}"
        hint = (
            f"take fewer: {setting('batch_size')} {size // 2}"
            if size > 1
            else f"another {setting('device')} may have more"
        )
        with autocast(device, "fp32"), memory_told(what, hint):  # whatever the caller has set
            return in_padded_batches(run, *columns, size=size, device=device, at_once=at_once, done=done)

    def in_batches_of_z(
        self,
        run: Callable[..., tuple[Tensor, ...]],
        x_0: Sequence[Tensor],
        *columns: Tensor,
        done: Advance,
    ) -> tuple[Tensor, ...]:
        """As :meth:`in_batches`, for images of which z alone is computed: the fastest way of each device."""
        device, shape = self.bundle.device, self.bundle.model.image_shape
        at_least = batch_size_for_z(device, shape)
        size = self.size_of_batches(len(x_0), at_least=at_least)
        at_once = batches_at_once(device, shape, size)
        return self.in_batches(run, x_0, *columns, at_least=at_least, at_once=at_once, done=done)

    def size_of_batches(self, num: int, *, at_least: int = 1) -> int:
        """Rows in each batch of ``num``: the user's or, without one, the device's or ``at_least`` these."""
        if self.batch_size is not None:
            return self.batch_size
        return min(max(default_batch_size(self.bundle.device), at_least), 1 << max(0, num - 1).bit_length())


@contextmanager
def told_by_calls(eps_fn: EpsFn, advance: Advance, *, num_images: int, num_calls: int) -> Iterator[EpsFn]:
    """``eps_fn``, each call of which tells ``advance`` its part of ``num_images``.

    ``num_calls`` are all that are to come; at the end of the block what is left is told, however many came.
    """
    left = float(num_images)

    def call(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal left
        eps = eps_fn(x_t, t)
        part = min(left, num_images / num_calls)
        left -= part
        advance(part)
        return eps

    yield call
    advance(left)


def share(advance: Advance, part: float) -> Advance:
    """An ``advance`` for work that is only a ``part`` of what an image takes, in (0, 1]."""
    return lambda amount: advance(part * amount)
