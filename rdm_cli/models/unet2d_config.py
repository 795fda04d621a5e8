"""What rdm needs to know of a diffusers ``UNet2DModel``'s configuration, without importing diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rdm_cli.models.foreign_config import ForeignConfig

DOWN_BLOCKS = frozenset({"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"})
UP_BLOCKS = frozenset({"UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"})
CLASS_LABEL = "_rdm_class_label"


@dataclass(frozen=True, kw_only=True)
class UNet2DConfig(ForeignConfig):
    """A ``UNet2DModel``'s.

    A class-conditional one is used for a single class, whose number stands under ``_rdm_class_label``.
    Raises ValueError, naming the entry, for networks that are no plain UNets on square images.
    """

    CLASSES: ClassVar[tuple[str, ...]] = ("UNet2DModel",)
    z_width: ClassVar[None] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.values.get("sample_size")
        if isinstance(size, list | tuple) and len(set(size)) == 1:
            size = size[0]
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"sample_size {size!r}: rdm needs the side of square images")
        halvings = len(self.values.get("block_out_channels", (224,) * 4)) - 1
        if size % 2 ** min(halvings, size.bit_length()):
            raise ValueError(f"sample_size {size}: the network halves it {halvings} times, and that is odd")
        self._refuse("time_embedding_type", {"positional", "learned"}, "positional")
        self._refuse("mid_block_type", {"UNetMidBlock2D", None}, "UNetMidBlock2D")
        for name, known in (("down_block_types", DOWN_BLOCKS), ("up_block_types", UP_BLOCKS)):
            other = [kind for kind in self.values.get(name, ()) if kind not in known]
            if other:
                raise ValueError(f"{name} {other[0]!r}: rdm knows {', '.join(sorted(known))}")
        channels = self.image_channels
        if self.values.get("out_channels", 3) not in (channels, 2 * channels):
            raise ValueError(
                f"out_channels {self.values.get('out_channels')!r}: not those of in_channels {channels}, "
                "with or without a learned variance"
            )
        self._check_class()

    def _refuse(self, name: str, known: set[str | None], default: str) -> None:
        given = self.values.get(name, default)
        if given not in known:
            raise ValueError(f"{name} {given!r}: rdm knows {', '.join(map(str, sorted(known, key=str)))}")

    def _check_class(self) -> None:
        kind, num = self.values.get("class_embed_type"), self.values.get("num_class_embeds")
        if kind == "identity":
            raise ValueError("class_embed_type 'identity': rdm knows classes by their number alone")
        if kind is None and num is None:
            if self.class_label is not None:
                raise ValueError("a class is named, and the network knows none")
        elif self.class_label is None:
            raise ValueError(
                "it is class-conditional, and no class is named: rdm bundles convert dpm --class-label N"
            )
        elif num is not None and not 0 <= self.class_label < num:
            raise ValueError(f"there is no class {self.class_label}: they go from 0 to {num - 1}")

    @property
    def class_label(self) -> int | None:
        """The class that the network is asked about; None: it knows no classes."""
        label = self.values.get(CLASS_LABEL)
        return None if label is None else int(label)

    @property
    def image_size(self) -> int:
        """Side of the images in pixels."""
        size = self.values["sample_size"]
        return int(size if isinstance(size, int) else size[0])

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return int(self.values.get("in_channels", 3))

    @property
    def time_width(self) -> int:
        """Width of the time embedding."""
        width = self.values.get("time_embedding_dim")
        return int(width or 4 * self.values.get("block_out_channels", (224,))[0])
