"""What a job made of one item: a record for each verb, which says what is printed of it as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """The file ``output``, and the SHA-256 of its bytes, None where nobody computed it.

    ``skipped``: it was there already, and stays. ``replaced``: it stands where another image's code stood.
    """

    output: str
    digest: str | None = None
    skipped: bool = False
    replaced: bool = False

    def as_json(self) -> dict[str, Any]:
        """What is printed of it, in this order."""
        found = {"output": self.output, "skipped": self.skipped}
        return found if self.digest is None else {**found, "digest": self.digest}


@dataclass(frozen=True, kw_only=True)
class CheckedCode(Result):
    """A code that was read again; ``recorded``: a manifest records these very bytes."""

    recorded: bool

    def as_json(self) -> dict[str, Any]:
        """See :class:`Result`."""
        return {"output": self.output, "digest": self.digest, "recorded": self.recorded}


@dataclass(frozen=True, kw_only=True)
class OfImage(Result):
    """What was made of an image of ``source_size``, width and height, fitted to ``image_size`` a side."""

    source_size: tuple[int, int]
    image_size: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """How well a code brings its image back: MSE, and PSNR in dB, None where it is exact.

    ``solver`` and ``steps`` are those that it took, ``bytes`` the sizes of a lossless code's parts.
    """

    mse: float
    psnr_db: float | None
    solver: str
    steps: int | None
    bytes: Mapping[str, int] | None = None


@dataclass(frozen=True, kw_only=True)
class Encoded(OfImage):
    """A code, and its error where that was measured."""

    measured: Measured | None = None

    def as_json(self) -> dict[str, Any]:
        """See :class:`Result`."""
        found: dict[str, Any] = {
            "output": self.output,
            "skipped": self.skipped,
            "replaced": self.replaced,
            "digest": self.digest,
            "source_size": self.source_size,
            "image_size": self.image_size,
        }
        if self.measured is not None:
            found |= asdict(self.measured)
            if found["bytes"] is None:
                del found["bytes"]
        return found


@dataclass(frozen=True, kw_only=True)
class Reconstructed(OfImage):
    """A reconstruction, the file that shows it ``side_by_side`` with its image, and how well they agree.

    ``psnr_db`` None: they are the same.
    """

    side_by_side: str
    mse: float
    psnr_db: float | None
    ssim: float

    def as_json(self) -> dict[str, Any]:
        """See :class:`Result`."""
        names = ("output", "digest", "side_by_side", "source_size", "image_size", "mse", "psnr_db", "ssim")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What was seen of an edit, when its picture had been encoded again.

    ``holds``: it shows what was wanted; ``kept``: nothing that was watched ``changed``. ``amount`` is the
    share of the way that z went, ``z_distance`` how far that is in what ``--scale`` counts. ``probabilities``
    are each attribute's before and after, ``not_watched`` those that may have changed.
    """

    holds: bool
    kept: bool
    amount: float
    z_distance: float
    num_decodes: int
    probabilities: Mapping[str, Sequence[float]]
    changed: Sequence[str]
    not_watched: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """As it is printed and recorded."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Edited(Result):
    """An edited picture or a strip of several; ``code`` and ``receipt_file`` lie beside the picture.

    Where attributes were set, ``holds`` says whether all pictures show it, and of one picture the ``receipt``
    says more. Where z was moved ``outside`` are the edits that lead beyond the bundle's training codes; None:
    nobody can tell.
    """

    edits: Sequence[Mapping[str, float | bool]]
    holds: bool | None = None
    receipt: Receipt | None = None
    outside: int | None = None
    code: str | None = None
    receipt_file: str | None = None

    def as_json(self) -> dict[str, Any]:
        """See :class:`Result`."""
        edits = [dict(edit) for edit in self.edits]
        found: dict[str, Any] = {"output": self.output, "digest": self.digest, "edits": edits}
        if self.holds is None:
            found["outside"] = self.outside
        else:
            found |= {"holds": self.holds} if self.receipt is None else self.receipt.as_json()
        files = {"code": self.code, "receipt": self.receipt_file}
        return found | {name: file for name, file in files.items() if file is not None}
