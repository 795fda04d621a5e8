"""Which values of a grey image of more than 8 bits are black and white.

Files do not say it: 16 bits may hold a camera's 12, floats may be fractions of white, levels up to 255, or in
[-1, 1]. Each kind of values has the ranges that are usual for it (``_USUAL``), and the first that fits what
was found is taken. A range fits where the values lie in it, give or take 5 % of its width, and reach at least
a quarter of it. What was found leaves out values that are not finite, and the lowest and the highest one in
1000 (at least one each), so that a hot pixel decides nothing. Where no range fits, the image is refused: the
message has what was found. docs/formats.md has the table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rdm_cli.errors import ImageError, UsageError, setting

ValueRange = tuple[float, float]
"""The values that are black and white."""

_LEFT_OUT = 1000  # one value in so many, at either end
_TOLERANCE = 0.05  # of a range's width
_REACHED = 0.25  # of a range's width

FRACTION, SIGNED, LEVELS, LEVELS_16 = (0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0)

_USUAL: dict[str, tuple[ValueRange, ...]] = {
    "uint12": ((0.0, 4095.0),),
    "uint16": (LEVELS_16,),
    "uint32": (LEVELS, LEVELS_16, (0.0, 4294967295.0)),
    "int8": (),
    "int16": (LEVELS,),
    "int32": (LEVELS, LEVELS_16),
    "float32": (FRACTION, SIGNED, LEVELS),
}
"""Kinds of values, each with the ranges that it is usually meant to have; int8 has no usual one."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What an image's values are: the lowest and highest of all finite ones, and without the extremes."""

    lowest: float
    highest: float
    low: float
    high: float

    def fits(self, asked: ValueRange) -> bool:
        """Whether these values are likely meant to have this range."""
        black, white = asked
        slack, quarter = _TOLERANCE * (white - black), black + _REACHED * (white - black)
        if self.low < black - slack or self.high > white + slack:
            return False
        if black < 0 and self.low >= quarter:
            return False
        # a few marks on black are beyond what is left out
        highest = self.highest if self.low == self.high == black else self.high
        return highest >= quarter or self.lowest == self.highest == black


def parse_range(text: str) -> ValueRange:
    """``"LO,HI"``, two finite numbers of which the second is larger; raises UsageError."""
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"--range {text}: two numbers are needed, the value of black and the larger one of white",
            hint="--range 0,4095 is that of 12 bits",
        )
    return low, high


def grey_levels(
    name: str, values: np.ndarray, kind: str, asked: ValueRange | None, *, inverted: bool = False
) -> np.ndarray:
    """``values`` (H, W) of a ``kind`` as uint8 levels; ``asked`` is their range, None: the one that fits.

    What is not finite becomes black, but +inf white. ``inverted``: the lowest value is white. Raises
    ImageError, which calls the image ``name``, where no range fits.
    """
    finite = values if values.dtype.kind in "iu" else values[np.isfinite(values)]
    if finite.size == 0:
        raise ImageError(f"{name}: none of its values is a finite number")
    black, white = asked or _usual_range(name, found_in(finite), kind)
    share = values.astype(np.float64)  # the one array of that size, which may be a gigabyte
    share -= black
    share /= white - black
    np.nan_to_num(share, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
    share.clip(0, 1, out=share)
    if inverted:
        np.subtract(1, share, out=share)
    share *= 255
    levels: np.ndarray = share.round(out=share).astype(np.uint8)
    return levels


def num_not_finite(values: np.ndarray) -> int:
    """How many of the values are NaN or infinite."""
    return 0 if values.dtype.kind in "iu" else int(values.size - np.isfinite(values).sum())


def found_in(finite: np.ndarray) -> Found:
    """What values there are, of at least one finite number and nothing else."""
    flat = finite.ravel()
    left_out = min(max(1, flat.size // _LEFT_OUT), (flat.size - 1) // 2)
    places = [0, left_out, flat.size - 1 - left_out, flat.size - 1]
    ordered = np.partition(flat, sorted(set(places)))
    lowest, low, high, highest = (float(ordered[i]) for i in places)
    return Found(lowest=lowest, highest=highest, low=low, high=high)


def _usual_range(name: str, found: Found, kind: str) -> ValueRange:
    for usual in _USUAL[kind]:
        if found.fits(usual):
            return usual
    known = ", ".join(f"{low:,.0f} to {high:,.0f}" for low, high in _USUAL[kind])
    why = f", which do not fit the usual range ({known})" if known else ""
    raise ImageError(
        f"{name}: its {kind} values are {_number(found.lowest)} to {_number(found.highest)}{why}: "
        "which of them are black and white is not known",
        hint="say it with {0}, as in {0} {1}".format(setting("value_range"), _suggested(found, kind)),
    )


def _suggested(found: Found, kind: str) -> str:
    """The range of as many bits as the values take, or the values' own."""
    if kind.startswith("uint") or (kind.startswith("int") and found.lowest >= 0):
        return f"0,{2 ** max(1, int(found.high)).bit_length() - 1}"
    if found.lowest == found.highest:
        return "0,1"
    return f"{_number(found.lowest, '')},{_number(found.highest, '')}"


def _number(value: float, separator: str = ",") -> str:
    return f"{value:{separator}.0f}" if value == int(value) else f"{value:.6g}"
