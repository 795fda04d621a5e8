r"""The true picture that is nearest to an edited one, among all that a face could be after one change.

There are dozens of them: each hat in each colour. A pixel is affine in the colour c of a drawn thing, so a
kind of hat is drawn twice, in black and in white; its distance to a picture y is, for each channel,

    |y - x(c)|^2 = |r|^2 - 2 c r's + c^2 |s|^2,        r = y - x(black),    s = x(white) - x(black)

Drawing rounds, by two levels of 255 at the most; the nearest is drawn in its own colour before anything is
measured against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdm_cli.data.avatars import Avatar, render

COLOURS = ("hair_colour", "hat_colour", "accessory_colour", "facial_hair_colour")
BLACK, WHITE = "000000", "ffffff"


class Truths:
    """The faces ``others``, alike but for one thing and its colour, as pictures of ``size_px`` a side."""

    def __init__(self, others: Sequence[Avatar], size_px: int) -> None:
        if not others:
            raise ValueError("there are no true pictures to find the nearest of")
        self.others = tuple(others)
        self.size_px = size_px
        self._drawn: dict[Avatar, Tensor] = {}
        varying = [name for name in COLOURS if len({getattr(one, name) for one in others}) > 1]
        by_kind: dict[Avatar, list[int]] = {}
        for index, one in enumerate(others):
            by_kind.setdefault(_coloured(one, varying, BLACK), []).append(index)
        start: list[Tensor] = []
        span: list[Tensor] = []
        self._place = torch.zeros(len(others), dtype=torch.long)  # the row of start and span
        self._colour = torch.zeros(len(others), 3)
        for kind, members in by_kind.items():
            if len(members) <= 2:  # as many pictures as black and white are
                for index in members:
                    self._place[index] = len(start)
                    start.append(self.picture(others[index]))
                    span.append(torch.zeros_like(start[-1]))
                continue
            for index in members:
                self._place[index] = len(start)
                self._colour[index] = _share_of_white(getattr(others[index], varying[0]))
            black, white = (self.picture(_coloured(kind, varying, colour)) for colour in (BLACK, WHITE))
            start.append(black)
            span.append(white.float() - black.float())
        self._start = torch.stack(start).float().flatten(2)  # (K, 3, H W)
        self._span = torch.stack(span).float().flatten(2)

    def picture(self, avatar: Avatar) -> Tensor:
        """``avatar`` as uint8 (3, H, W), drawn once."""
        if avatar not in self._drawn:
            pixels = np.array(render(avatar, self.size_px), dtype=np.uint8)
            self._drawn[avatar] = torch.from_numpy(pixels).permute(2, 0, 1)
        return self._drawn[avatar]

    def distances(self, picture: Tensor) -> Tensor:
        """Squared difference of ``picture``, uint8 (3, H, W), to each of ``others``, up to rounding: (N,)."""
        rest = picture.float().flatten(1) - self._start
        constant, linear, square = (
            (a * b).sum(dim=2)[self._place]
            for a, b in ((rest, rest), (rest, self._span), (self._span, self._span))
        )
        return (constant - 2 * self._colour * linear + self._colour.square() * square).sum(dim=1)

    def nearest(self, picture: Tensor) -> Avatar:
        """The one of ``others`` that is most like ``picture``, uint8 (3, H, W), in its pixels."""
        return self.others[int(self.distances(picture).argmin())]


def _coloured(avatar: Avatar, parts: Sequence[str], colour: str) -> Avatar:
    changes: dict[str, Any] = dict.fromkeys(parts, colour)
    return replace(avatar, **changes)


def _share_of_white(colour: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(colour))) / 255
