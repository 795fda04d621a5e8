"""Sheets: what a network in training makes of a few of its images, as one picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from rdm_cli.data.dataset import ImageFolder
from rdm_cli.data.images.pixels import to_pil, to_unit_range
from rdm_cli.data.images.record import new_record, save_image
from rdm_cli.data.images.sheet import Tile, enlarged, lay_out
from rdm_cli.methods.method import RepresentationModel
from rdm_cli.training import diagnostics

NUM_IMAGES = 8
NUM_STEPS = 20  # of an inversion and of a decode
TILE_PIXELS = 128  # that a picture is wide at least


def draw_sheet(
    model: nn.Module, images: ImageFolder, path: Path, device: torch.device, record: Mapping[str, Any]
) -> tuple[dict[int, tuple[float, float]], str | None]:
    """Draw reconstructions, and decodes of z with other x_T, of images spread over the folder.

    Which images, and all noise, are the same in every sheet. Returns, at some t, the loss with each
    image's own z and with its neighbour's, and what else the model has to say. One that is no diffusion
    model draws rows of its own. ``record`` is what the sheet records of its run.
    """
    described = cast(RepresentationModel, model)
    num = min(NUM_IMAGES, len(images))
    chosen = [i * len(images) // num for i in range(num)] * (2 if num == 1 else 1)
    x_0 = to_unit_range(torch.stack([images[i] for i in chosen])).to(device)
    own: Any = model
    draws_its_own = hasattr(model, "picture_rows")
    classes = images.classes(chosen)
    given = {} if classes is None else {"class": classes.to(device)}
    if draws_its_own:
        rows = own.picture_rows(x_0)
    else:
        rows = diagnostics.picture_rows(described, x_0, NUM_STEPS, given=given)
    tiles = [[Tile(enlarged(to_pil(picture), TILE_PIXELS)) for picture in row] for row in rows.values()]
    sheet = lay_out(tiles, names=list(rows), title=f"{record['bundle']}, step {record['step']:,}")
    save_image(sheet, path, new_record("training sheet", **record))
    if draws_its_own:
        return {}, own.remark(rows)
    return diagnostics.swapped_z_losses(described, x_0, given=given), None
