"""Opening a pipeline as a command's options say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rdm_cli import options as o
from rdm_cli.errors import BundleError

if TYPE_CHECKING:
    from rdm_cli.classifiers.classifier import Classifier
    from rdm_cli.codes.code import CodeInfo
    from rdm_cli.pipeline.pipeline import Pipeline


def open_on(
    machine: o.Machine, bundle: str, images: o.ImageFiles, on_remark: Callable[[str, str], None], **more: Any
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
        class_name=images.class_name if isinstance(images, o.Images) else None,
        on_remark=on_remark,
        **more,
    )


def open_for(info: CodeInfo | None, bundle: str | None, opened: Callable[..., Pipeline]) -> Pipeline:
    """The pipeline of a code, by the bundle that it records, or of an image (None), by the default one.

    ``bundle`` is the one that was asked for, whatever is recorded. ``opened(name, fetches=...)`` opens one;
    what is fetched is for the user to say, and not for a file.
    """
    if bundle is not None or info is None:
        return opened(bundle or o.BUNDLE_DEFAULT, fetches=bundle is not None)
    try:
        return opened(info.bundle, fetches=False)
    except BundleError as error:
        raise BundleError(
            f"the bundle it was made with cannot be opened: {error.message}",
            hint="say where it is with --bundle",
        ) from error


def open_model(spec: str | None, model: o.Model, image_size: int) -> Classifier:
    """The classifier that a command was given as ``spec``, or as ``--command``."""
    from rdm_cli.classifiers.opening import open_classifier

    return open_classifier(
        spec,
        command=model.command,
        size=model.size,
        layout=model.layout,
        mean=model.mean,
        std=model.std,
        labels=model.classes,
        outputs=model.outputs,
        image_size=image_size,
        time_limit=model.time_limit,
    )
