"""Building blocks shared by the UNets and encoders.

The residual block is the one of Dhariwal & Nichol (2021) as Diff-AE uses it (arXiv 2111.15640,
section 3 and its appendix on the architecture): time enters as a scale and a shift of the second
group norm, and the semantic code as a further scale,

    h = SiLU(GN(x));  resample h and x;  h = conv(h)
    h = (1 + z_scale) * ((1 + t_scale) * GN(h) + t_shift);  h = conv(dropout(SiLU(h)))
    y = skip(x) + h

In PDAE's shift branch (arXiv 2212.12990) the code shifts as well: + z_shift before that last SiLU.

Legend of shapes: B batch, C channels, H, W height and width, E width of the time embedding,
S width of the code.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdm_cli.models.dropout import Dropout

Resample = Literal["none", "up", "down"]


def group_norm(channels: int) -> nn.GroupNorm:
    """A group norm of ``min(32, channels)`` groups; its statistics are taken in float32."""
    return nn.GroupNorm(min(32, channels), channels)


Layer = TypeVar("Layer", nn.Conv1d, nn.Conv2d, nn.Linear)


def zero_init(module: Layer) -> Layer:
    """Set a layer's parameters to zero, so that its residual branch starts as nothing."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


_KINDS_THAT_CAST = tuple(k for k in ("cpu", "cuda", "mps", "xpu") if torch.amp.is_autocast_available(k))
"""Of devices; asked once, for torch.compile cannot look into the question."""


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution in float32, whatever autocast says: bfloat16 rounds a picture to half a level of 255."""

    in_full_precision = True

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        with torch.autocast(kind, enabled=False) if kind in _KINDS_THAT_CAST else nullcontext():
            return super().forward(x.float())


def sinusoidal_embedding(t: Tensor, width: int) -> Tensor:
    """Embed timesteps: ``t`` (B,) to (B, width), cosines first, then sines.

    Frequencies fall geometrically from 1 to 1e-4 over half the width.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t.device) / half
    angles = t.float()[:, None] * torch.exp(-math.log(10_000) * exponents)  # (B, half)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoid, Linear, SiLU, Linear: ``t`` (B,) to (B, width_out)."""

    def __init__(self, width_in: int, width_out: int, width_hidden: int | None = None) -> None:
        super().__init__()
        self.width_in = width_in
        self.linear_1 = nn.Linear(width_in, width_hidden or width_out)
        self.linear_2 = nn.Linear(width_hidden or width_out, width_out)

    def forward(self, t: Tensor) -> Tensor:
        h = self.linear_1(sinusoidal_embedding(t, self.width_in))
        return self.linear_2(F.silu(h))


def resample(x: Tensor, mode: Resample) -> Tensor:
    """Nearest-neighbour doubling or 2x2 average pooling of ``x`` (B, C, H, W).

    Written as views and sums: on a CPU in bfloat16, torch's own pooling and interpolation take
    2 to 8 times as long and were a tenth of a training step.
    """
    b, c, h, w = x.shape
    if mode == "up":
        x = x[:, :, :, None, :, None].expand(b, c, h, 2, w, 2)
        return x.reshape(b, c, 2 * h, 2 * w)
    if mode == "down":
        rows = x.unflatten(2, (h // 2, 2))
        pairs = (rows[:, :, :, 0] + rows[:, :, :, 1]).unflatten(3, (w // 2, 2))
        return (pairs[..., 0] + pairs[..., 1]) * 0.25
    return x


class EncoderResBlock(nn.Module):
    """The first half of a residual block: norm, SiLU, resampling, one convolution, skip.

    Diff-AE's semantic encoder uses this alone, without time, code or dropout.
    """

    def __init__(
        self, channels_in: int, channels_out: int, mode: Resample = "none", norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.mode: Resample = mode
        self.norm_1 = group_norm(channels_in) if norm is None else norm
        self.conv_1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.skip: nn.Module = (
            nn.Identity() if channels_in == channels_out else nn.Conv2d(channels_in, channels_out, 1)
        )

    def first_half(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return (h, resampled x), both at the block's output resolution."""
        h = resample(F.silu(self.norm_1(x)), self.mode)
        return self.conv_1(h), resample(x, self.mode)

    def forward(self, x: Tensor) -> Tensor:
        h, x = self.first_half(x)
        return self.skip(x) + h


class ConditionalResBlock(EncoderResBlock):
    """A residual block modulated by time and, where ``z_width`` is given, by the semantic code.

    The code scales or, with ``z_shifts``, scales and shifts.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        time_width: int,
        z_width: int | None,
        dropout: float,
        mode: Resample = "none",
        z_shifts: bool = False,
    ) -> None:
        super().__init__(channels_in, channels_out, mode)
        self.z_shifts = z_shifts
        self.time_proj = nn.Linear(time_width, 2 * channels_out)
        self.z_proj = nn.Linear(z_width, (1 + z_shifts) * channels_out) if z_width else None
        self.norm_2 = group_norm(channels_out)
        self.dropout = Dropout(dropout)
        self.conv_2 = zero_init(nn.Conv2d(channels_out, channels_out, 3, padding=1))

    def z_scale(self, z_activated: Tensor) -> Tensor | None:
        """The code's scale, minus one: SiLU(z) (B, S) to (B, C), or with its shift beside it (B, 2 C)."""
        return None if self.z_proj is None else self.z_proj(z_activated)

    def modulated(self, x: Tensor, t_activated: Tensor, z_scale: Tensor | None) -> Tensor:
        """``x`` (B, C_in, H, W), SiLU(time embedding) (B, E) and :meth:`z_scale` to (B, C, H', W')."""
        h, x = self.first_half(x)
        scale, shift = self.time_proj(t_activated).chunk(2, dim=1)
        scale = 1 + scale
        if z_scale is not None:  # one fused scale and shift: a pass over h fewer
            z_scale, *z_shift = z_scale.chunk(1 + self.z_shifts, dim=1)
            scale, shift = scale * (1 + z_scale), shift * (1 + z_scale)
            shift = shift + z_shift[0] if z_shift else shift
        h = self.norm_2(h)
        h = h * scale[:, :, None, None] + shift[:, :, None, None]
        return self.skip(x) + self.conv_2(self.dropout(F.silu(h)))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of ``q`` to ``k`` and ``v``, each (B, heads, positions, width).

    In bfloat16 on a CPU the two products stand alone: torch's fused attention goes through float32 there, at
    four times the cost.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    weights = (q @ k.transpose(2, 3) * q.shape[3] ** -0.5).softmax(3, dtype=torch.float32)
    return weights.to(q.dtype) @ v


class SelfAttention(nn.Module):
    """Residual self-attention over positions; ``qkv`` is laid out head by head as q | k | v."""

    def __init__(self, channels: int, num_heads: int = 1, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = group_norm(channels) if norm is None else norm
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = zero_init(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        flat = x.reshape(b, c, h * w)
        qkv = self.qkv(self.norm(flat))
        qkv = qkv.reshape(b, self.num_heads, 3, c // self.num_heads, h * w).transpose(3, 4)
        q, k, v = qkv.unbind(2)  # each (B, heads, H*W, C/heads)
        a = attend(q, k, v).transpose(2, 3).reshape(b, c, h * w)
        return x + self.proj_out(a).reshape(b, c, h, w)
