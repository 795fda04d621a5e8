"""The verbs over codes: what is made of some, or drawn from nothing.

Everything here works on tensors and :class:`~rdm_cli.core.codes.Codes`; files are the caller's. Images
become codes, and codes images, in :mod:`rdm_cli.core.coding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from rdm_cli.core.bundle_parts import refuse_not_finite
from rdm_cli.core.bundles import open_bundle
from rdm_cli.core.classes import checked_class, class_numbers, common_class, drawn_class
from rdm_cli.core.codes import CodeInfo, Codes
from rdm_cli.core.coding import Coder
from rdm_cli.core.compatibility import check_codes, check_steps_of_z, stop_shift_for
from rdm_cli.core.running import Advance, told_by_calls
from rdm_cli.core.runtime import Precision, autocast, checked_precision, resolve_device, use_threads
from rdm_cli.core.ways import Way, checked_solver, sampling_way, solver_named, way_down
from rdm_cli.data.images import MAX_PIXELS, Remark, warn_of
from rdm_cli.data.value_range import ValueRange
from rdm_cli.errors import CodeError, UsageError
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.interpolation import lerp, slerp
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.spec import Sampler
from rdm_cli.priors.gaussian import GaussianPrior
from rdm_cli.priors.latent_ddim import LatentDDIM
from rdm_cli.registry import DEFAULT_BUNDLE, PRIORS, nearest


def open_pipeline(
    bundle: str | Path = DEFAULT_BUNDLE,
    *,
    device: str | torch.device = "auto",
    threads: int | None = None,
    precision: Precision = "fp32",
    batch_size: int | None = None,
    show_progress: bool = False,
    prior: str | None = None,
    style: str | Path | None = None,
    class_name: str | None = None,
    solver: str | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
    on_remark: Remark = warn_of,
    fetches: bool = True,
) -> Pipeline:
    """Open a bundle for work.

    ``bundle`` is a shipped name, a folder or ``hf:owner/name[@revision]``; ``precision`` that of the
    networks; ``batch_size`` None chooses by device and number of items; ``threads`` sets torch's number
    of CPU threads, for the whole process, and None leaves it as it is: nothing else of the process is
    changed; ``show_progress`` draws a tqdm bar while the networks work; ``prior`` names what draws z, None
    the method's own; ``style`` is an image whose style everything is decoded in, for models that have one;
    ``class_name`` a class that all is of, for models that know classes; ``solver`` is what everything is
    decoded by, None being what each code records and, for what was drawn, the bundle's own; images of more
    than ``max_pixels`` are refused; grey images of more than 8 bits have black and white at
    ``value_range``, None: as found from their values. ``on_remark(image, text)`` is told of what was left
    out of an image; by default it warns. Without ``fetches`` the network is not asked for a bundle. Raises
    BundleError, UsageError or, for that image, ImageError.
    """
    resolved = resolve_device(device)
    checked_precision(resolved, precision)  # before anything is loaded
    if threads is not None:
        use_threads(threads)
    if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size >= 1):
        raise UsageError(f"--batch-size {batch_size}: at least one image goes into a batch")
    if prior is not None and prior not in PRIORS:
        raise UsageError(f"there is no prior {prior!r}", hint=nearest(prior, PRIORS))
    opened = open_bundle(bundle, resolved, fetches=fetches)
    refuse_not_finite(cast(nn.Module, opened.model).named_parameters(), opened.folder)
    channels = opened.model.image_shape[0]
    if channels not in (1, 3):
        raise UsageError(
            f"{opened.name}: works on images of {channels} channels, and rdm reads grey and colour ones"
        )
    if style is not None and not opened.model.style_shape:
        raise UsageError(f"{opened.name}: --style: this is no model of style and shape")
    pipeline = Pipeline(
        bundle=opened,
        precision=precision,
        batch_size=batch_size,
        show_progress=show_progress,
        prior=prior,
        style=None if style is None else Path(style),
        class_name=checked_class(opened, class_name),
        sampler=None if solver is None else Sampler(solver=checked_solver(solver)),
        max_pixels=max_pixels,
        value_range=value_range,
        on_remark=on_remark,
    )
    _ = pipeline.style_latents  # an image that cannot be read is told before any work
    return pipeline


UNMEASURED: Any = {
    "source_digest": None,
    "source_size": None,
    "mse": None,
    "psnr_db": None,
    "pixels_digest": None,
}
"""What a code's info no longer says once the code is no image's any more."""


@dataclass(frozen=True, kw_only=True)
class Pipeline(Coder):
    """The verbs, on an open bundle; see :func:`open_pipeline`."""

    prior: str | None = None

    @property
    def z_prior(self) -> LatentDDIM | GaussianPrior:
        """What draws z; raises BundleError where it was not trained, UsageError where it does not apply."""
        return self.bundle.prior_named(self.prior)

    def manipulate(self, codes: Codes, attributes: Mapping[str, float]) -> Codes:
        """Move z along attribute directions, by each attribute's scale; x_T stays.

        z' = denorm(norm(z) + scale sqrt(d) w / ||w||). Raises UsageError for an unknown name.
        """
        check_codes(self.bundle, codes)
        codes = self.as_asked(codes)
        z = codes.z
        for name, scale in attributes.items():
            z = self.bundle.directions.shift(z, name, scale)
        edits = tuple(f"{name}:{scale:g}" for name, scale in attributes.items())
        infos = tuple(replace(i, edits=(*i.edits, *edits), **UNMEASURED) for i in codes.infos)
        return codes.replace(z=z, infos=infos, residuals=None)

    def interpolate(self, first: Codes, second: Codes, alphas: Sequence[float]) -> Codes:
        """The path between two codes at each alpha in [0, 1]: slerp of x_T, and of z as the method has it.

        At 0 and 1 these are the two codes, each of which decodes as it was made; what lies between two
        numbers of steps decodes in a number between them. Raises CodeError for codes that cannot be mixed.
        """
        first, second = self._ends(first, second)
        alpha = torch.tensor(list(alphas), dtype=torch.float32)
        x_T, other = _between(first.x_T, second.x_T, alpha), _between(first.other, second.other, alpha)
        between = slerp if self.bundle.method.prior == "gaussian" else lerp
        style = None
        if first.style is not None and second.style is not None:
            style = lerp(first.style[0], second.style[0], alpha)
        z = between(first.z[0], second.z[0], alpha)
        infos = _infos_between(first, second, alphas)
        return Codes(z=z, x_T=x_T, infos=infos, style=style, other=other)

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
        first, second = self._ends(first, second)
        if self.bundle.model.style_shape:
            raise UsageError(f"{self.bundle.name}: --path trajectory: not for a model of style and shape")
        if first.x_T is None or second.x_T is None:
            raise CodeError("a trajectory leads from one x_T to another, and a code has none")
        alpha = torch.tensor(list(alphas), dtype=torch.float32)
        other = _between(first.other, second.other, alpha)
        states = [slerp(first.x_T[0], second.x_T[0], alpha), *([] if other is None else [other])]
        self.check_precision(first, second)
        ways = [
            way_down(self.bundle, info, has_x_T=True, steps=steps, sampler=self.sampler)
            for info in _infos_between(first, second, alphas)
        ]
        x_0 = torch.empty(len(alpha), *self.bundle.model.image_shape)
        for way in dict.fromkeys(ways):
            chosen = [i for i, other_way in enumerate(ways) if other_way == way]
            rows = [values[chosen] for values in (alpha, *states)]
            x_0[chosen] = self._trajectory(way, first, second, rows, advance)
        return x_0

    def _trajectory(
        self, way: Way, first: Codes, second: Codes, rows: Sequence[Tensor], advance: Advance | None
    ) -> Tensor:
        """``rows`` of alpha, x_T and, where a solver keeps one, the other state, decoded one ``way``."""
        spec, n = way.spec(self.bundle), way.steps
        model = self.network
        check_steps_of_z(self.bundle, first.z, n)
        check_steps_of_z(self.bundle, second.z, n)
        y = class_numbers(self.bundle, [first.infos[0].class_name])

        def decode_batch(real: int, weight: Tensor, *start: Tensor) -> tuple[Tensor, ...]:
            z_first, z_second = (
                c.z.to(weight.device).expand(len(weight), *c.z.shape[1:]) for c in (first, second)
            )
            known = {name: value.to(weight.device).expand(len(weight)) for name, value in y.items()}
            with autocast(self.bundle.device, self.precision):
                denoise = model.path_denoiser(z_first, z_second, weight, **self.timesteps(spec, n), **known)
            x_t = start[0] if len(start) == 1 else TwoStates(*start)
            num_calls = way.kernel.calls_down(n)
            eps_fn = self.in_precision(denoise)
            with told_by_calls(eps_fn, tell, num_images=real, num_calls=num_calls) as told:
                x_0 = last(way.kernel.decode(told, x_t, spec, n))
            return (self.leave(x_0),)

        with self.progress(advance, "decoding", len(rows[0])) as tell:
            (x_0,) = self.in_batches(decode_batch, *rows)
        return x_0

    def _ends(self, first: Codes, second: Codes) -> tuple[Codes, Codes]:
        check_codes(self.bundle, first)
        check_codes(self.bundle, second)
        if len(first) != 1 or len(second) != 1:
            raise ValueError("interpolation takes one code at each end")
        if (first.x_T is None) != (second.x_T is None):
            raise CodeError(
                "one of the two codes has an x_T and the other has none", hint="encode both alike"
            )
        if _made_by(first) != _made_by(second):
            raise CodeError(
                f"the x_T of the two codes are of two kinds: {_made_by(first)} and {_made_by(second)}",
                hint="encode both alike",
            )
        if first.z.shape != second.z.shape:
            raise CodeError(
                "the two codes hold z for different numbers of steps", hint="encode both in as many steps"
            )
        first, second = self.as_asked(first), self.as_asked(second)
        if (first.holds ^ second.holds) - {"residuals"}:
            raise CodeError(
                "one of the two codes holds a second state or a style that the other has not",
                hint="encode both alike",
            )
        common_class(first.infos[0], second.infos[0])
        return first, second

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        steps: int | None = None,
        prior_steps: int | None = None,
        prior_solver: str | None = None,
        first: int = 0,
        stop_shift: float | None = None,
    ) -> Codes:
        """Draw ``num`` codes: x_T from N(0, I) and z, where there is one, from the pipeline's prior.

        Draw i (from ``first`` on) depends on (``seed``, i) alone. They are to be decoded in ``steps`` (None:
        the bundle's own), which matters where z depends on t. ``stop_shift`` None is the method's own.
        Raises BundleError without a prior, UsageError for steps that there are not, ValueError for fewer
        than one code.
        """
        if num < 1:
            raise ValueError(f"at least one code is drawn, not {num}")
        keys = range(first, first + num)
        z = self.sample_z(keys, seed=seed, decode_steps=steps, steps=prior_steps, solver=prior_solver)
        return self.drawn(z, keys, seed=seed, stop_shift=stop_shift)

    def drawn(
        self, z: Tensor, keys: Sequence[int], *, seed: int = 0, stop_shift: float | None = None
    ) -> Codes:
        """Draws of ``z`` (N, *z_shape) as codes, each with its key's x_T and, where there are some, class."""
        info = self.info(steps=None, stop_shift=stop_shift_for(self.bundle, stop_shift))
        infos = tuple(replace(info, class_name=drawn_class(self.bundle, seed, key)) for key in keys)
        return self.as_asked(Codes(z=z, x_T=self.noise(keys, seed=seed), infos=infos))

    def sample_z(
        self,
        keys: Sequence[int | str],
        *,
        seed: int = 0,
        decode_steps: int | None = None,
        steps: int | None = None,
        solver: str | None = None,
    ) -> Tensor:
        """z (N, *z_shape) from the prior, one for each key; (N, 0) for a plain DPM.

        ``steps`` and ``solver`` are the prior's, None being its own. Where z depends on t, N(0, I) gives one
        for each of the ``decode_steps``, all equal: z of neighbouring timesteps are nearly so, and what is
        drawn anew at each decodes to the mean of all images.
        """
        if not self.bundle.has_z:
            return torch.zeros(len(keys), 0, dtype=torch.float32)
        prior = self.z_prior
        if self.bundle.model.time_dependent and isinstance(prior, GaussianPrior):
            num = sampling_way(self.bundle, self.sampler, decode_steps).steps
            shape = self.bundle.model.z_shape[1:]
            z = keyed_noise(seed, keys, (math.prod(shape),), "z").unflatten(1, shape)
            return z[:, None].expand(len(keys), num, *shape)
        noise = keyed_noise(seed, keys, (self.bundle.z_width,), "z")
        (z,) = self.in_batches(lambda _, part: (prior.sample(part, steps, solver),), noise, at_least=64)
        return z.unflatten(1, self.bundle.model.z_shape)


def _infos_between(first: Codes, second: Codes, alphas: Sequence[float]) -> tuple[CodeInfo, ...]:
    """How the codes on a path are decoded: the ends as they were made, the others in between."""
    ends = [replace(end.infos[0], source=None, **UNMEASURED) for end in (first, second)]
    infos = []
    for alpha in alphas:
        near, far = ends if alpha < 0.5 else reversed(ends)
        if alpha not in (0, 1):
            weight = min(alpha, 1 - alpha)  # of the farther end
            edits = near.edits if near.edits == far.edits else ()
            shift = (1 - weight) * near.stop_shift + weight * far.stop_shift
            steps = near.steps
            if near.steps is not None and far.steps is not None:
                steps = round((1 - weight) * near.steps + weight * far.steps)
            near = replace(near, steps=steps, stop_shift=shift, edits=edits)
        infos.append(near)
    return tuple(infos)


def _between(first: Tensor | None, second: Tensor | None, alpha: Tensor) -> Tensor | None:
    """slerp of two states (1, C, H, W), or None where a code has none."""
    return None if first is None or second is None else slerp(first[0], second[0], alpha)


def _made_by(codes: Codes) -> str:
    """By what a code's x_T was inferred, as far as it matters to another that it is to be mixed with."""
    info = codes.infos[0]
    words = [info.solver, *([info.spacing] if info.spacing else [])]
    bound = codes.x_T is not None and not solver_named(info.solver).clamps
    return " ".join([*words, *([f"in {info.steps} steps"] if bound else [])])
