"""Opening a pipeline as a command's options say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rdm_cli import options as o

if TYPE_CHECKING:
    from rdm_cli.pipeline.pipeline import Pipeline


def open_on(
    machine: o.Machine, bundle: str, images: o.Images, on_remark: Callable[[str, str], None], **more: Any
) -> Pipeline:
    """The pipeline of ``bundle`` on ``machine``; ``more`` are other arguments of ``open_pipeline``."""
    from rdm_cli.pipeline.pipeline import open_pipeline
    from rdm_cli.runtime import set_up

    return open_pipeline(
        bundle,
        device=set_up(device=machine.device, threads=machine.threads),
        precision=machine.precision,
        batch_size=machine.batch_size,
        max_pixels=images.max_pixels,
        value_range=images.value_range,
        class_name=images.class_name,
        on_remark=on_remark,
        **more,
    )
