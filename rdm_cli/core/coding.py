"""Images to codes and back, in batches.

A batch is always padded to its full size, so what an image becomes does not depend on how many others
happened to be left over. Randomness is keyed by (seed, item), never by batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdm_cli.core.classes import class_numbers, class_of_image
from rdm_cli.core.codes import CodeInfo, Codes
from rdm_cli.core.compatibility import allowed_steps, check_codes, check_steps_of_z
from rdm_cli.core.running import Advance, Runner, watched
from rdm_cli.core.runtime import autocast
from rdm_cli.data.images import Fit, image_bytes, to_unit_range
from rdm_cli.errors import CodeError
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.randomness import keyed_noise


@dataclass(frozen=True, kw_only=True)
class Coder(Runner):
    """Encodes and decodes with an open bundle.

    ``style`` is an image whose style everything is decoded in; ``class_name`` a class that every image is
    of, and that everything is decoded as. None: each has its own.
    """

    style: Path | None = None
    class_name: str | None = None

    @property
    def default_steps(self) -> int:
        """Sampling steps where the user names none."""
        return self.bundle.model.sampling.steps

    def info(self, *, steps: int | None, fit: Fit = "crop", stop_shift: float = 0.0) -> CodeInfo:
        """The metadata of a code that this pipeline makes."""
        return CodeInfo(
            method=self.bundle.method.name,
            bundle=self.bundle.name,
            bundle_digest=self.bundle.digest,
            image_size=self.bundle.model.image_size,
            steps=steps,
            precision=self.precision,
            fit=fit,
            stop_shift=stop_shift,
        )

    def load_images(self, paths: Sequence[Path | str], fit: Fit = "crop") -> Tensor:
        """Read image files as x_0 (N, *image_shape) in [-1, 1]; raises ImageError."""
        channels, size, _ = self.bundle.model.image_shape
        pixels = [image_bytes(Path(p), size, fit, channels=channels) for p in paths]
        return to_unit_range(torch.from_numpy(np.stack(pixels)))

    def class_of(self, path: Path) -> str | None:
        """The class of an image file; None where the bundle knows none. Raises UsageError."""
        return self.class_name or class_of_image(self.bundle, path)

    def encode(
        self,
        x_0: Tensor,
        *,
        classes: Sequence[str | None] | None = None,
        steps: int | None = None,
        with_x_T: bool = True,
        advance: Advance | None = None,
    ) -> Codes:
        """Images ``x_0`` (N, 3, H, W) in [-1, 1] to codes.

        ``classes`` name that of each image, for bundles that know some; None: all of the coder's own.
        ``steps`` DDIM steps infer x_T (None: the bundle's default); ``with_x_T`` False gives z alone.
        Raises UsageError where that would leave nothing, CodeError for an unknown class.
        """
        names = [self.class_name] * len(x_0) if classes is None else list(classes)
        numbers = class_numbers(self.bundle, names)
        if not with_x_T:
            self.bundle.require_z("codes without x_T")
        n = allowed_steps(self.bundle, steps) or self.default_steps
        model: Any = self.bundle.model
        known = self.timesteps(n)

        def encode_batch(real: int, x: Tensor, *y: Tensor) -> tuple[Tensor, ...]:
            given = known | dict(zip(numbers, y, strict=True))
            with autocast(self.bundle.device, self.precision):
                x = model.enter(x).float()
                z = model.encode(x, **given).float()
            styled = {"style": x} if model.style_shape else {}
            if not with_x_T:
                return z, *styled.values()
            path = ddim_encode(self.eps_fn(z, **given, **styled), x, model.sampling, n)
            return z, *styled.values(), last(watched(path, lambda: tell(real / n)))

        with self.progress(advance, "encoding", len(x_0)) as tell:
            z, *rest = self.in_batches(encode_batch, x_0, *numbers.values())
            if not with_x_T:
                tell(len(x_0))
        x_T = rest.pop() if with_x_T else None
        info = self.info(steps=n if with_x_T or known else None)
        infos = tuple(replace(info, class_name=name) for name in names)
        return Codes(z=z, x_T=x_T, infos=infos, style=rest[0] if rest else None)

    def decode(
        self,
        codes: Codes,
        *,
        steps: int | None = None,
        seed: int = 0,
        keys: Sequence[int | str] | None = None,
        advance: Advance | None = None,
    ) -> Tensor:
        """Codes to images x_0 (N, 3, H, W) in [-1, 1].

        ``steps`` None follows the steps each code was made with, else the bundle's default. A code
        without x_T gets one drawn for (``seed``, its key); ``keys`` None numbers the codes.
        """
        check_codes(self.bundle, codes)
        codes = self.as_asked(codes)
        if self.bundle.model.style_shape and codes.style is None:
            raise CodeError("the code holds no style", hint="name an image that has one with --style")
        conditions = class_numbers(self.bundle, [info.class_name for info in codes.infos])
        conditions |= {} if codes.style is None else {"style": codes.style}
        x_T = codes.x_T
        if x_T is None:
            x_T = self.noise(keys if keys is not None else range(len(codes)), seed=seed)
        steps = allowed_steps(self.bundle, steps)
        wanted = [(steps or info.steps or self.default_steps, info.stop_shift) for info in codes.infos]
        spec = self.bundle.model.sampling
        x_0 = torch.empty(len(codes), *self.bundle.model.image_shape)
        for n, stop in sorted(set(wanted)):
            chosen = [i for i, w in enumerate(wanted) if w == (n, stop)]
            check_steps_of_z(self.bundle, codes.z, n)
            options = self.timesteps(n) | ({"stop_below": spec.stop_below(stop, n)} if stop else {})

            def decode_batch(
                real: int,
                z: Tensor,
                x_t: Tensor,
                *given: Tensor,
                n: int = n,
                options: Mapping[str, Any] = options,
            ) -> tuple[Tensor, ...]:
                own = dict(zip(conditions, given, strict=True))
                path = ddim_decode(self.eps_fn(z, **options, **own), x_t, spec, n)
                return (self.leave(last(watched(path, lambda: tell(real / n)))),)

            with self.progress(advance, "decoding", len(chosen)) as tell:
                rows = (values[chosen] for values in (codes.z, x_T, *conditions.values()))
                (x_0[chosen],) = self.in_batches(decode_batch, *rows)
        return x_0

    def noise(self, keys: Sequence[int | str], *, seed: int = 0) -> Tensor:
        """x_T (N, C, H, W) from N(0, I), one for each key."""
        return keyed_noise(seed, keys, self.bundle.model.x_T_shape, "x_T")

    @cached_property
    def style_latents(self) -> Tensor | None:
        """The latents of the image whose style is taken, (1, *x_T_shape); None: each code has its own."""
        if self.style is None:
            return None
        with torch.no_grad(), autocast(self.bundle.device, self.precision):
            images = self.load_images([self.style]).to(self.bundle.device)
            return self.bundle.model.enter(images).float().cpu()

    def as_asked(self, codes: Codes) -> Codes:
        """``codes`` in the coder's style and of its class, where it has one; else as they are."""
        if self.class_name is not None:
            codes = codes.replace(infos=tuple(replace(i, class_name=self.class_name) for i in codes.infos))
        latents = self.style_latents
        if latents is None:
            return codes
        return codes.replace(style=latents.expand(len(codes), *latents.shape[1:]))
