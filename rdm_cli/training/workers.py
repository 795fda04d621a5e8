"""Processes that load images: one that dies is noticed, and named as what it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from rdm_cli.errors import RdmError

NEWS_SECONDS = 0.5


@contextmanager
def dead_workers_told() -> Iterator[None]:
    """Within the block what torch raises where a DataLoader's worker died becomes an RdmError.

    It has no exception of its own for it: a RuntimeError, from wherever the news arrives, or, where the dead
    one's tensors are still being fetched, a connection that breaks off.
    """
    try:
        yield
    except (RuntimeError, ConnectionResetError, ConnectionRefusedError, EOFError) as error:
        told = str(error)
        if isinstance(error, RuntimeError) and not told.startswith("DataLoader worker"):
            raise
        if not isinstance(error, RuntimeError):
            with suppress(RuntimeError):
                time.sleep(NEWS_SECONDS)  # or torch's own news would come amid whatever is done next
        reason = " ".join(told.split()).rstrip(".") or "it broke off"
        raise RdmError(
            f"a process that loads images died ({reason})",
            hint="often for want of memory: try fewer --workers; --resume goes on from the checkpoint",
        ) from error
