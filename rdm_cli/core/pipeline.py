"""The verbs over batches: encode, decode, manipulate, interpolate, sample.

Everything here works on tensors and :class:`~rdm_cli.core.codes.Codes`; files are the caller's. A
batch is always padded to its full size, so what an image becomes does not depend on how many others
happened to be left over. Randomness is keyed by (seed, item), never by batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rdm_cli.core.bundles import open_bundle
from rdm_cli.core.codes import CodeInfo, Codes
from rdm_cli.core.compatibility import allowed_steps, check_codes, check_steps_of_z, stop_shift_for
from rdm_cli.core.running import Advance, Runner, watched
from rdm_cli.core.runtime import Precision, autocast, set_up
from rdm_cli.data.images import Fit, image_bytes, to_unit_range
from rdm_cli.errors import CodeError, UsageError
from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.interpolation import lerp, slerp
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.priors.gaussian import GaussianPrior
from rdm_cli.priors.latent_ddim import LatentDDIM
from rdm_cli.registry import DEFAULT_BUNDLE


def open_pipeline(
    bundle: str = DEFAULT_BUNDLE,
    *,
    device: str = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    show_progress: bool = False,
    prior: str | None = None,
    style: Path | None = None,
) -> Pipeline:
    """Open a bundle for work.

    ``bundle`` is a shipped name, a folder or ``hf:owner/name[@revision]``; ``precision`` that of the
    networks; ``batch_size`` None chooses by device and number of items; ``threads`` None uses all
    cores; ``show_progress`` draws a tqdm bar while the networks work; ``prior`` names what draws z, None the
    method's own; ``style`` is an image whose style everything is decoded in, for models that have one. Raises
    BundleError or UsageError.
    """
    resolved = set_up(device=device, threads=threads)
    autocast(resolved, precision)  # refuses what the device cannot do before anything is loaded
    opened = open_bundle(bundle, resolved)
    if style is not None and not opened.model.style_shape:
        raise UsageError(f"{opened.name}: --style: this is no model of style and shape")
    return Pipeline(
        bundle=opened,
        precision=precision,
        batch_size=batch_size,
        show_progress=show_progress,
        prior=prior,
        style=style,
    )


@dataclass(frozen=True, kw_only=True)
class Pipeline(Runner):
    """The verbs, on an open bundle; see :func:`open_pipeline`."""

    prior: str | None = None
    style: Path | None = None

    @property
    def z_prior(self) -> LatentDDIM | GaussianPrior:
        """What draws z; raises BundleError where it was not trained, UsageError where it does not apply."""
        return self.bundle.prior_named(self.prior)

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
        """Read image files as x_0 (N, 3, H, W) in [-1, 1]; raises ImageError."""
        size = self.bundle.model.image_size
        return to_unit_range(torch.from_numpy(np.stack([image_bytes(Path(p), size, fit) for p in paths])))

    def encode(
        self,
        x_0: Tensor,
        *,
        steps: int | None = None,
        with_x_T: bool = True,
        advance: Advance | None = None,
    ) -> Codes:
        """Images ``x_0`` (N, 3, H, W) in [-1, 1] to codes.

        ``steps`` DDIM steps infer x_T (None: the bundle's default); ``with_x_T`` False gives z alone.
        Raises UsageError where that would leave nothing.
        """
        if not with_x_T:
            self.bundle.require_z("codes without x_T")
        n = allowed_steps(self.bundle, steps) or self.default_steps
        model: Any = self.bundle.model
        known = self.timesteps(n)

        def encode_batch(real: int, x: Tensor) -> tuple[Tensor, ...]:
            with autocast(self.bundle.device, self.precision):
                x = model.enter(x).float()
                z = model.encode(x, **known).float()
            styled = {"style": x} if model.style_shape else {}
            if not with_x_T:
                return z, *styled.values()
            path = ddim_encode(self.eps_fn(z, **known, **styled), x, model.sampling, n)
            return z, *styled.values(), last(watched(path, lambda: tell(real / n)))

        with self.progress(advance, "encoding", len(x_0)) as tell:
            z, *rest = self.in_batches(encode_batch, x_0)
            if not with_x_T:
                tell(len(x_0))
        x_T = rest.pop() if with_x_T else None
        info = self.info(steps=n if with_x_T or known else None)
        return Codes(z=z, x_T=x_T, infos=(info,) * len(x_0), style=rest[0] if rest else None)

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
        codes = self.in_style(codes)
        if self.bundle.model.style_shape and codes.style is None:
            raise CodeError("the code holds no style", hint="name an image that has one with --style")
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
                *style: Tensor,
                n: int = n,
                options: Mapping[str, Any] = options,
            ) -> tuple[Tensor, ...]:
                styled = {"style": style[0]} if style else {}
                path = ddim_decode(self.eps_fn(z, **options, **styled), x_t, spec, n)
                return (self.leave(last(watched(path, lambda: tell(real / n)))),)

            with self.progress(advance, "decoding", len(chosen)) as tell:
                given = [codes.z, x_T] if codes.style is None else [codes.z, x_T, codes.style]
                (x_0[chosen],) = self.in_batches(decode_batch, *(values[chosen] for values in given))
        return x_0

    def manipulate(self, codes: Codes, attributes: Mapping[str, float]) -> Codes:
        """Move z along attribute directions, by each attribute's scale; x_T stays.

        z' = denorm(norm(z) + scale sqrt(d) w / ||w||). Raises UsageError for an unknown name.
        """
        check_codes(self.bundle, codes)
        codes = self.in_style(codes)
        z = codes.z
        for name, scale in attributes.items():
            z = self.bundle.directions.shift(z, name, scale)
        edits = tuple(f"{name}:{scale:g}" for name, scale in attributes.items())
        infos = tuple(
            replace(i, edits=(*i.edits, *edits), mse=None, psnr_db=None, source_digest=None)
            for i in codes.infos
        )
        return codes.replace(z=z, infos=infos)

    def interpolate(self, first: Codes, second: Codes, alphas: Sequence[float]) -> Codes:
        """The path between two codes at each alpha in [0, 1]: slerp of x_T, and of z as the method has it."""
        self._check_ends(first, second)
        alpha = torch.tensor(list(alphas), dtype=torch.float32)
        x_T = None
        if first.x_T is not None and second.x_T is not None:
            x_T = slerp(first.x_T[0], second.x_T[0], alpha)
        info = replace(first.infos[0], source=None, source_digest=None, mse=None, psnr_db=None)
        between = slerp if self.bundle.method.prior == "gaussian" else lerp
        first, second = self.in_style(first), self.in_style(second)
        style = None
        if first.style is not None and second.style is not None:
            style = lerp(first.style[0], second.style[0], alpha)
        z = between(first.z[0], second.z[0], alpha)
        return Codes(z=z, x_T=x_T, infos=(info,) * len(alpha), style=style)

    def trajectory(
        self,
        first: Codes,
        second: Codes,
        alphas: Sequence[float],
        *,
        steps: int | None = None,
        advance: Advance | None = None,
    ) -> Tensor:
        """Images (N, 3, H, W) between two codes: slerp of x_T and, at each step, lerp of what the two z say.

        PDAE's second way to interpolate (arXiv 2212.12990, section 4.3). A picture on it has no z of its own.
        """
        self._check_ends(first, second)
        if self.bundle.model.style_shape:
            raise UsageError(f"{self.bundle.name}: --path trajectory: not for a model of style and shape")
        if first.x_T is None or second.x_T is None:
            raise CodeError("a trajectory leads from one x_T to another, and a code has none")
        alpha = torch.tensor(list(alphas), dtype=torch.float32)
        x_T = slerp(first.x_T[0], second.x_T[0], alpha)
        n = allowed_steps(self.bundle, steps) or first.infos[0].steps or self.default_steps
        model: Any = self.bundle.model
        check_steps_of_z(self.bundle, first.z, n)
        check_steps_of_z(self.bundle, second.z, n)

        def decode_batch(real: int, weight: Tensor, x_t: Tensor) -> tuple[Tensor, ...]:
            z_first, z_second = (
                c.z.to(weight.device).expand(len(weight), *c.z.shape[1:]) for c in (first, second)
            )
            with autocast(self.bundle.device, self.precision):
                denoise = model.path_denoiser(z_first, z_second, weight, **self.timesteps(n))
            path = ddim_decode(self.in_precision(denoise), x_t, model.sampling, n)
            return (self.leave(last(watched(path, lambda: tell(real / n)))),)

        with self.progress(advance, "decoding", len(alpha)) as tell:
            (x_0,) = self.in_batches(decode_batch, alpha, x_T)
        return x_0

    def _check_ends(self, first: Codes, second: Codes) -> None:
        check_codes(self.bundle, first)
        check_codes(self.bundle, second)
        if len(first) != 1 or len(second) != 1:
            raise ValueError("interpolation takes one code at each end")
        if (first.x_T is None) != (second.x_T is None):
            raise CodeError(
                "one of the two codes has an x_T and the other has none", hint="encode both alike"
            )

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        prior_steps: int | None = None,
        first: int = 0,
        stop_shift: float | None = None,
    ) -> Codes:
        """Draw ``num`` codes: x_T from N(0, I) and z, where there is one, from the pipeline's prior.

        Draw i (from ``first`` on) depends on (``seed``, i) alone. ``stop_shift`` None is the method's own.
        Raises BundleError without a prior.
        """
        info = self.info(steps=None, stop_shift=stop_shift_for(self.bundle, stop_shift))
        keys = range(first, first + num)
        x_T = self.noise(keys, seed=seed)
        z = self.sample_z(keys, seed=seed, steps=prior_steps)
        return self.in_style(Codes(z=z, x_T=x_T, infos=(info,) * num))

    def sample_z(self, keys: Sequence[int | str], *, seed: int = 0, steps: int | None = None) -> Tensor:
        """z (N, *z_shape) from the prior, one for each key; (N, 0) for a plain DPM."""
        if not self.bundle.has_z:
            return torch.zeros(len(keys), 0)
        prior = self.z_prior
        noise = keyed_noise(seed, keys, (self.bundle.z_width,), "z")
        (z,) = self.in_batches(lambda _, part: (prior.sample(part, steps),), noise, at_least=64)
        return z.unflatten(1, self.bundle.model.z_shape)

    def noise(self, keys: Sequence[int | str], *, seed: int = 0) -> Tensor:
        """x_T (N, C, H, W) from N(0, I), one for each key."""
        return keyed_noise(seed, keys, self.bundle.model.x_T_shape, "x_T")

    def in_style(self, codes: Codes) -> Codes:
        """``codes`` in the pipeline's style, where it has one; else as they are."""
        if self.style is None:
            return codes
        with torch.no_grad(), autocast(self.bundle.device, self.precision):
            images = self.load_images([self.style]).to(self.bundle.device)
            latents = self.bundle.model.enter(images).float().cpu()
        return codes.replace(style=latents.expand(len(codes), *latents.shape[1:]))
