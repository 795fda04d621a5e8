"""The verbs over codes: what is made of some, or drawn from nothing.

Everything here works on tensors and :class:`~rdm_cli.codes.code.Codes`; files are the caller's. Images
become codes, and codes images, in :mod:`rdm_cli.pipeline.coding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, cast, overload

import torch
from PIL.Image import Image
from torch import Tensor, nn

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.reading import refuse_not_finite
from rdm_cli.classifiers.opening import ClassifierSpec, open_classifier
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.images.pixels import MAX_PIXELS, Fit, Remark, warn_of
from rdm_cli.data.images.value_range import ValueRange
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import CodeError, RdmError, UsageError, setting
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.interpolation import lerp, slerp
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.spec import Sampling
from rdm_cli.methods.conditions import of_images
from rdm_cli.methods.directions import Directions
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.attributes import Attributes
from rdm_cli.pipeline.classes import checked_class, given_of_draw, require_alike
from rdm_cli.pipeline.coding import Coder
from rdm_cli.pipeline.compatibility import check_codes, check_steps_of_z, stop_shift_for
from rdm_cli.pipeline.editing import DEFAULT_EDITOR, SAYS_ALL_DB, Canvas, Edited, set_attributes
from rdm_cli.pipeline.explaining import TARGET, Explanation, explain
from rdm_cli.pipeline.fast_precision import fast_precision
from rdm_cli.pipeline.images import Images, LoadedImage, Output, Pictures, checked_output
from rdm_cli.pipeline.running import Advance, told_by_calls
from rdm_cli.pipeline.sampling import Way, checked_solver, sampling_way, solver_named, way_down, way_up
from rdm_cli.priors.gaussian import GaussianPrior
from rdm_cli.priors.latent_ddim import INVERSION_STEPS, LatentDDIM
from rdm_cli.registry import DEFAULT_BUNDLE, PRIORS, nearest
from rdm_cli.runtime import Precision, autocast, checked_precision, resolve_device, use_threads

ZPath = Literal["lerp", "prior"]
"""How z changes between two codes."""
CODES_AT_ONCE = 64
"""Rows that the prior's network is asked at once."""


def open_pipeline(
    bundle: str | Path = DEFAULT_BUNDLE,
    *,
    device: str | torch.device = "auto",
    threads: int | None = None,
    precision: Precision | Literal["auto"] = "fp32",
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
    networks, "auto" whichever of bf16 and fp32 is faster here; ``batch_size`` None chooses by device and
    number of items; ``threads`` sets torch's number of CPU threads, for the whole process, and None leaves it
    as it is: nothing else of the process is
    changed; ``show_progress`` draws a tqdm bar while the networks work; ``prior`` names what draws z, None
    the bundle's trained one or else the method's own; ``style`` is an image whose style everything is
    decoded in, for models that have one;
    ``class_name`` a class that all is of, for models that know classes; ``solver`` is what everything is
    decoded by, None being what each code records and, for what was drawn, the bundle's own; images of more
    than ``max_pixels`` are refused; grey images of more than 8 bits have black and white at
    ``value_range``, None: as found from their values. ``on_remark(image, text)`` is told of what was left
    out of an image; by default it warns. Without ``fetches`` the network is not asked for a bundle. Raises
    BundleError, UsageError or, for that image, ImageError.
    """
    resolved = resolve_device(device)
    if precision == "auto":
        precision = fast_precision(resolved)
    checked_precision(resolved, precision)  # before anything is loaded
    if threads is not None:
        use_threads(threads)
    if batch_size is not None and not (isinstance(batch_size, Integral) and batch_size >= 1):
        raise UsageError(f"{setting('batch_size')} {batch_size}: at least one image goes into a batch")
    if prior is not None and prior not in PRIORS:
        raise UsageError(f"there is no prior {prior!r}", hint=nearest(prior, PRIORS))
    opened = open_bundle(bundle, resolved, fetches=fetches)
    refuse_not_finite(cast(nn.Module, opened.model).named_parameters(), opened.folder)
    channels = opened.model.image_shape[0]
    if channels not in (1, 3):
        raise UsageError(
            f"{opened.name}: works on images of {channels} channels, and rdm reads grey and colour ones"
        )
    if style is not None and "style" not in of_images(opened.model.conditions):
        raise UsageError(f"{opened.name}: {setting('style')}: this is no model of style and shape")
    pipeline = Pipeline(
        bundle=opened,
        precision=precision,
        batch_size=batch_size,
        show_progress=show_progress,
        prior=prior,
        style=None if style is None else Path(style),
        class_name=checked_class(opened, class_name),
        sampler=None if solver is None else Sampling(solver=checked_solver(solver)),
        max_pixels=max_pixels,
        value_range=value_range,
        on_remark=on_remark,
    )
    _ = pipeline.own_conditions  # an image that cannot be read is told before any work
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

    def __repr__(self) -> str:
        """What it works on and where, in a few lines."""
        model, bundle = self.bundle.model, self.bundle
        channels, height, width = model.image_shape
        try:
            names = bundle.directions.names
        except RdmError:
            names = ()  # a plain DPM's, or not trained
        told = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
        lines = {
            "images": f"{height} x {width}, {'grey' if channels == 1 else 'RGB'}",
            "z": str(tuple(model.z_shape)) if bundle.has_z else "none",
            "x_T": str(tuple(model.x_T_shape)),
            "attributes": f"{len(names)}: {told}" if names else "none",
            "device": f"{bundle.device}, {self.precision}",
        }
        text = "\n".join(f"  {name:10}  {value}" for name, value in lines.items())
        return f"<Pipeline {bundle.name}, method {bundle.method.name}\n{text}>"

    def __dir__(self) -> list[str]:
        """What a user has use for; the verbs over files use more."""
        return sorted((*_FOR_USERS, *(name for name in super().__dir__() if name.startswith("__"))))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.bundle.device

    @property
    def attributes(self) -> Attributes:
        """The attributes that :meth:`manipulate` knows, each with its scores; printed, a line for each.

        Raises BundleError where the bundle has none, UsageError for a plain DPM, which has no z.
        """
        return Attributes(self.bundle.directions)

    def with_attributes(self, more: Directions) -> Pipeline:
        """This pipeline, whose bundle has ``more`` attributes beside its own."""
        return replace(self, bundle=self.bundle.with_attributes(more))

    def to(self, device: str | torch.device) -> Pipeline:
        """Move the networks to ``device`` ("cuda", "mps", "cpu", "auto"), in place; gives the pipeline back.

        Pipelines that share the open bundle move with it. Raises UsageError for a device that is not there or
        has not the pipeline's precision, RdmError where it has not the memory.
        """
        resolved = resolve_device(device)
        checked_precision(resolved, self.precision)
        self.bundle.move_to(resolved)
        return self

    @overload
    def manipulate(self, images: Codes, attributes: Mapping[str, float], *, output: None = None) -> Codes: ...

    @overload
    def manipulate(
        self, images: Codes | Images, attributes: Mapping[str, float], *, output: Literal["pil"]
    ) -> list[Image]: ...

    @overload
    def manipulate(
        self, images: Codes | Images, attributes: Mapping[str, float], *, output: Output | None = None
    ) -> Codes | Pictures: ...

    def manipulate(
        self,
        images: Codes | Images,
        attributes: Mapping[str, float],
        *,
        output: Output | None = None,
        steps: int | None = None,
    ) -> Codes | Pictures:
        """Move z along attribute directions, by each attribute's scale; x_T stays.

        z' = denorm(norm(z) + scale sqrt(d) w / ||w||).

        Codes come back as codes, unless an ``output`` ("pt", "pil" or "np", as in :meth:`decode`) asks for
        pictures. Images, of every kind that :meth:`encode` takes, are encoded in ``steps``, edited and
        decoded: pictures come back, as a tensor where no ``output`` is named. Raises UsageError for an
        unknown name and for a scale that is not finite, and what encode and decode raise.
        """
        checked_output(output)
        if not isinstance(attributes, Mapping) or not all(isinstance(s, Real) for s in attributes.values()):
            raise ValueError(f"attributes map names to numbers, as in {{'smiling': 0.3}}, not {attributes!r}")
        if isinstance(images, Codes):
            edited = self._edited(images, attributes)
            return edited if output is None else self.decode(edited, output=output, steps=steps)
        for name in attributes:
            self.bundle.directions.index(name)  # an unknown one is told before any work
        edited = self._edited(self.encode(images, steps=steps), attributes)
        return self.decode(edited, output=output or "pt")

    def _edited(self, codes: Codes, attributes: Mapping[str, float]) -> Codes:
        check_codes(self.bundle, codes)
        codes = self.as_asked(codes)
        z = codes.z
        for name, scale in attributes.items():
            z = self.bundle.directions.shift(z, name, scale)
        edits = tuple(f"{name}:{scale:g}" for name, scale in attributes.items())
        infos = tuple(replace(i, edits=(*i.edits, *edits), **UNMEASURED) for i in codes.infos)
        return codes.replace(z=z, infos=infos, residuals=None)

    def edit(
        self,
        images: Codes | Images,
        wanted: Mapping[str, bool],
        *,
        keep: Sequence[str] | None = None,
        like: Codes | Images | None = None,
        editor: str = DEFAULT_EDITOR,
        seed: int = 0,
        advance: Advance | None = None,
        **encoding: Any,
    ) -> Edited:
        """Set attributes, as in {"smiling": True, "glasses": False}, and see whether the pictures hold it.

        Each picture is encoded again: the bundle's classifiers say whether it shows what was wanted and
        whether the attributes ``keep`` are as they were (None: all others, less what the wanted ones rule
        out). Where it does not hold, the edit goes further; :mod:`rdm_cli.pipeline.editing` says how, and
        which editors there are. ``like`` is one image or code whose glasses, say, are borrowed; ``seed``
        draws the glasses otherwise: another one, other glasses. Images are of every kind that :meth:`encode`
        takes, and ``encoding`` are its further arguments, for them and for the edited pictures. The edited
        codes decode to the pictures; those that held nothing but z still hold z alone. Raises UsageError for
        unknown attributes and editors, ValueError for what is no mapping of names to True and False; and
        what :meth:`donor` does.
        """
        if not isinstance(wanted, Mapping) or not all(isinstance(v, bool) for v in wanted.values()):
            raise ValueError(
                f"attributes map names to True or False, as in {{'smiling': True}}, not {wanted!r}"
            )
        if not wanted:
            raise ValueError("no attribute is wanted")
        for name in wanted:
            self.bundle.directions.index(name)  # an unknown one is told before any work
        codes = images if isinstance(images, Codes) else self.encode(images, advance=advance, **encoding)
        check_codes(self.bundle, codes)
        codes = self.as_asked(codes)
        edited = set_attributes(
            self.bundle,
            codes,
            wanted,
            decode=lambda some: self._seen(some, seed, advance),
            draft=lambda some: self._seen(some.without_x_T(), seed, advance),
            read=self.encode_z,
            editor=editor,
            keep=keep,
            like=None if like is None else self.donor(like, wanted).z.flatten(1),
            seed=seed,
        )
        done = edited.amount.nonzero()[:, 0].tolist()
        if not done:
            return edited
        return replace(edited, codes=self._edited_codes(edited, done, wanted, advance))

    def explain(
        self,
        images: Images,
        classifier: ClassifierSpec,
        *,
        class_name: str | None = None,
        target: float = TARGET,
        answers: int = 1,
        gradients: bool = False,
        seed: int = 0,
        fit: Fit = "crop",
        classes: Sequence[str | None] | None = None,
        advance: Advance | None = None,
        **opening: Any,
    ) -> list[Explanation]:
        """For each image, the nearest edited pictures that a classifier decides otherwise about.

        ``classifier`` is an ONNX file, a Hugging Face folder, a torch module or a function of pictures
        (B, 3, H, W) in [-1, 1] to scores (B, K); ``opening`` are further arguments of
        :func:`~rdm_cli.classifiers.opening.open_classifier`, such as ``labels``. ``class_name`` is the class
        that is asked about, None: the one that it says each image is of. An answer makes the model say
        otherwise with the probability ``target``; up to ``answers`` different ones are looked for. Attributes
        that the bundle knows are tried first, then z is moved freely, along ``gradients`` where they are
        asked for; :mod:`rdm_cli.pipeline.explaining` says how. Images are of every kind that :meth:`encode`
        takes, ``classes`` theirs for bundles that know some, and ``seed`` makes another search. An
        :class:`~rdm_cli.pipeline.explaining.Explanation` comes for each image; one that could not be brought
        to another decision has no ``answers``.

        Raises UsageError for a plain DPM, an unknown class, a target outside [0.5, 1) and gradients of a
        model that has none, ClassifierError for one that cannot be opened or asked, and what :meth:`encode`
        raises.
        """
        self.bundle.require_z("counterfactuals")
        if not isinstance(answers, Integral) or answers < 1:
            raise ValueError(f"at least one answer is looked for, not {answers!r}")
        model = open_classifier(classifier, image_size=self.bundle.model.image_size, **opening)
        return explain(
            self.bundle,
            self._canvas(self._read(images, fit), classes, seed, advance),
            model,
            class_name=class_name,
            target=target,
            num_answers=int(answers),
            gradients=gradients,
            seed=seed,
        )

    def _canvas(
        self,
        images: Sequence[LoadedImage],
        classes: Sequence[str | None] | None,
        seed: int,
        advance: Advance | None,
    ) -> Canvas:
        """``images`` to be edited; x_T is inferred only where z alone does not bring one back."""
        x_0 = torch.stack([image.x_0 for image in images])

        def decode(some: Codes) -> Tensor:
            return self._seen(some, seed, advance)

        def draft(some: Codes) -> Tensor:
            return self._seen(some.without_x_T(), seed, advance)

        codes = self.encode(images, classes=classes, with_x_T=False, advance=advance)
        drafts, decoded = draft(codes), None
        if bool((psnr(drafts, x_0) < SAYS_ALL_DB).any()):
            codes = self.encode(images, classes=classes, advance=advance)
            decoded = decode(codes)
        return Canvas.of(
            codes,
            x_0,
            decode=decode,
            draft=draft,
            read=self.encode_z,
            drafts=drafts,
            decoded=decoded,
            trace=lambda z, some: self.traced(z, some, seed=seed),
        )

    def traced(self, z: Tensor, codes: Codes, *, seed: int = 0) -> Tensor:
        """What ``codes``, made alike, decode to with another ``z`` (N, d), through which gradients flow.

        All without x_T have that of (``seed``, 0). Raises CodeError where a solver keeps two states.
        """
        info = codes.infos[0]
        way = way_down(self.bundle, info, has_x_T=codes.x_T is not None, steps=None, sampler=self.sampler)
        if way.kernel.in_pairs:
            raise CodeError(f"{way.sampling.solver} keeps two states, and no gradients go through it")
        options: dict[str, Any] = {"timesteps": way.timesteps}
        if way.sampling.stop_shift:
            options["stop_below"] = way.spec.stop_below(way.sampling.stop_shift, way.steps)
        told = {**self.conditions_of(self.as_asked(codes)), "z": z.reshape(-1, *codes.z.shape[1:])}
        eps_fn = self.eps_fn({name: value.to(self.device) for name, value in told.items()}, **options)
        x_T = self.noise([0] * len(codes), seed=seed) if codes.x_T is None else codes.x_T
        x_0 = last(way.kernel.decode(eps_fn, x_T.float().to(self.device), way.spec, way.steps))
        return self.leave(x_0).cpu()

    def _seen(self, codes: Codes, seed: int, advance: Advance | None) -> Tensor:
        """What codes decode to; those without x_T all with the same one."""
        return self.decode(codes, seed=seed, keys=[0] * len(codes), advance=advance)

    def donor(self, like: Codes | Images, wanted: Mapping[str, bool]) -> Codes:
        """The code of the one image ``like``, without x_T, for :meth:`edit`.

        Raises ValueError for other than one, UsageError where it does not show what is ``wanted``.
        """
        if isinstance(like, str | Path) and Path(like).suffix == CODE_SUFFIX:
            like = Codes.load(Path(like))
        codes = like if isinstance(like, Codes) else self.encode(like, with_x_T=False)
        check_codes(self.bundle, codes)
        if len(codes) != 1:
            raise ValueError(f"attributes are borrowed from one image, not from {len(codes)}")
        directions = self.bundle.directions
        logits = directions.logits(codes.z.flatten(1))[0]
        for name, value in wanted.items():
            if bool(logits[directions.index(name)] > 0) != value:
                lacks = "does not show" if value else "shows"
                called = "the image" if codes.names is None else codes.names[0]
                raise UsageError(f"{called} {lacks} {name}, which was to be borrowed from it")
        return codes.without_x_T()

    def _edited_codes(
        self,
        edited: Edited,
        rows: Sequence[int],
        wanted: Mapping[str, bool],
        advance: Advance | None,
    ) -> Codes:
        """The codes of ``edited``, those of ``rows`` of their pictures, in the way that the images were."""
        codes = edited.codes.replace(residuals=None)
        words = tuple(f"{name}={'yes' if value else 'no'}" for name, value in wanted.items())
        infos = [
            replace(info, edits=(*info.edits, *words), **UNMEASURED) if row in rows else info
            for row, info in enumerate(codes.infos)
        ]
        codes = codes.replace(infos=tuple(infos))
        if codes.x_T is None:
            return codes
        way = self._way_of(codes)
        held = {"other"} if way.kernel.in_pairs else set()
        if held != codes.holds & {"other"}:  # then all change, so that they hold the same
            rows = range(len(codes))
        for row in rows:
            infos[row] = replace(infos[row], **asdict(way.sampling))
        pictures, own = edited.pictures[rows].clamp(-1, 1), [infos[row] for row in rows]
        made = self._encode(list(pictures), own, way, with_x_T=True, advance=advance)
        if len(rows) == len(codes):
            return made.replace(**{**codes.conditions, "z": made.z}, infos=tuple(infos), names=codes.names)
        changed: dict[str, Tensor] = {}
        for name in ("z", "x_T", "other"):
            if (values := getattr(codes, name)) is not None:
                changed[name] = values.clone()
                changed[name][list(rows)] = getattr(made, name)
        return codes.replace(**changed, infos=tuple(infos))

    def _way_of(self, codes: Codes) -> Way:
        """The way up that all ``codes`` record; the bundle's own where there is no such."""
        recorded = {(info.solver, info.steps, info.iterations) for info in codes.infos}
        if len(recorded) == 1:
            with suppress(UsageError):
                return way_up(self.bundle, *recorded.pop())
        return way_up(self.bundle)

    def interpolate(
        self, first: Codes, second: Codes, alphas: Sequence[float], *, path: ZPath | None = None
    ) -> Codes:
        """The path between two codes at each alpha in [0, 1]: slerp of x_T, and of z as ``path`` says.

        "prior" leads z through codes that the prior would draw: both become the noise that the prior draws
        them from, slerp leads from noise to noise, and back it comes as codes. "lerp" is the straight way
        (slerp where z is normal itself). None is "prior" where the bundle has a prior that predicts v.

        At 0 and 1 these are the two codes, each of which decodes as it was made. What lies between decodes on
        the path "prior" as a draw of the prior does: an inferred x_T still holds outlines of its image, and
        those of two images make a ghost. On the path "lerp" it decodes as the ends do, in a number of steps
        between theirs. Raises CodeError for codes that cannot be mixed,
        BundleError for the path "prior" without a trained prior.
        """
        first, second = self._ends(first, second)
        alpha = _checked_alphas(alphas)
        x_T, other = _between(first.x_T, second.x_T, alpha), _between(first.other, second.other, alpha)
        conditions: dict[str, Any] = {
            name: lerp(start[0], second.conditions[name][0], alpha)
            for name, start in first.conditions.items()
            if name != "z"
        }
        path = path or self.usual_path
        if path == "prior":
            z = self._through_the_prior(first.z, second.z, alpha)
        else:
            between = slerp if self.bundle.method.prior == "gaussian" else lerp
            z = between(first.z[0], second.z[0], alpha)
        infos = _infos_between(first, second, alphas)
        if path == "prior":
            drawn = asdict(sampling_way(self.bundle, None, None, stop_shift_for(self.bundle, None)).sampling)
            infos = tuple(
                info if a in (0, 1) else replace(info, **drawn) for info, a in zip(infos, alphas, strict=True)
            )
        return Codes(**conditions, z=z, x_T=x_T, infos=infos, other=other)

    @property
    def usual_path(self) -> ZPath:
        """The path of z where none is named."""
        if not self.bundle.has_z or self.bundle.model.time_dependent or "prior" not in self.bundle.parts:
            return "lerp"
        return "prior" if self.bundle.prior.config.prediction == "v" else "lerp"

    def _through_the_prior(self, first: Tensor, second: Tensor, alpha: Tensor) -> Tensor:
        """z (N, *z_shape) at each ``alpha`` (N,) from ``first`` to ``second`` (1, *z_shape), its ends."""
        prior = self.bundle.prior
        ends = torch.cat([first, second]).flatten(1).to(prior.z_mean.device)
        noise = prior.invert(ends)
        between = prior.sample(slerp(noise[0], noise[1], alpha), INVERSION_STEPS, "fixed-point")
        z = between.reshape(-1, *first.shape[1:]).to(first.device, first.dtype)
        for at, end in ((0, first), (1, second)):
            z[alpha == at] = end[0]
        return z

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
        if first.x_T is None or second.x_T is None:
            raise CodeError("a trajectory leads from one x_T to another, and a code has none")
        alpha = _checked_alphas(alphas)
        other = _between(first.other, second.other, alpha)
        states = [slerp(first.x_T[0], second.x_T[0], alpha), *([] if other is None else [other])]
        self.check_precision(first, second)
        ways = [
            way_down(self.bundle, info, has_x_T=True, steps=steps, sampler=self.sampler)
            for info in _infos_between(first, second, alphas)
        ]
        x_0 = torch.empty(len(alpha), *self.bundle.model.image_shape, dtype=torch.float32)
        for way in dict.fromkeys(ways):
            chosen = [i for i, other_way in enumerate(ways) if other_way == way]
            rows = [values[chosen] for values in (alpha, *states)]
            x_0[chosen] = self._trajectory(way, first, second, rows, advance)
        return x_0

    def _trajectory(
        self, way: Way, first: Codes, second: Codes, rows: Sequence[Tensor], advance: Advance | None
    ) -> Tensor:
        """``rows`` of alpha, x_T and, where a solver keeps one, the other state, decoded one ``way``."""
        model = self.network
        ends = [self.conditions_of(codes) for codes in (first, second)]
        for conditions in ends:
            check_steps_of_z(self.bundle, conditions, way.steps)

        def decode_batch(real: int, weight: Tensor, *start: Tensor) -> tuple[Tensor, ...]:
            here = [
                {name: x.to(weight.device).expand(len(weight), *x.shape[1:]) for name, x in end.items()}
                for end in ends
            ]
            with autocast(self.bundle.device, self.precision):
                denoise = model.path_denoiser(*here, weight, timesteps=way.timesteps)
            x_t = start[0] if len(start) == 1 else TwoStates(*start)
            eps_fn = self.in_precision(denoise)
            with told_by_calls(eps_fn, tell, num_images=real, num_calls=way.calls_down) as told:
                x_0 = last(way.kernel.decode(told, x_t, way.spec, way.steps))
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
        require_alike(first.infos[0], second.infos[0])
        return first, second

    @overload
    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        solver: str | None = None,
        steps: int | None = None,
        output: None = None,
        prior_steps: int | None = None,
        prior_solver: str | None = None,
        first: int = 0,
        stop_shift: float | None = None,
        wanted: Mapping[str, bool] | None = None,
    ) -> Codes: ...

    @overload
    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        solver: str | None = None,
        steps: int | None = None,
        output: Output,
        prior_steps: int | None = None,
        prior_solver: str | None = None,
        first: int = 0,
        stop_shift: float | None = None,
        wanted: Mapping[str, bool] | None = None,
    ) -> Pictures: ...

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        solver: str | None = None,
        steps: int | None = None,
        output: Output | None = None,
        prior_steps: int | None = None,
        prior_solver: str | None = None,
        first: int = 0,
        stop_shift: float | None = None,
        wanted: Mapping[str, bool] | None = None,
    ) -> Codes | Pictures:
        """Draw ``num`` codes: x_T from N(0, I) and z, where there is one, from the pipeline's prior.

        Draw i (from ``first`` on) depends on (``seed``, i) alone. ``solver`` and ``steps`` are those that the
        draws are to be decoded by, and the codes record them; None: the pipeline's and the bundle's own. An
        ``output`` ("pt", "pil" or "np", as in :meth:`decode`) asks for the pictures instead of the codes.
        ``prior_steps`` and ``prior_solver`` are those of a trained prior, ``stop_shift`` PDAE's; None: the
        method's own. ``wanted`` are attributes to have or to lack, as in {"glasses": True}, for a prior that
        was trained with labels. Raises BundleError without a prior, UsageError for steps, solvers and
        attributes that there are not, ValueError for fewer than one code.
        """
        checked_output(output)
        if not isinstance(num, Integral):
            raise ValueError(f"a whole number of codes is drawn, not {num!r}")
        if num < 1:
            raise ValueError(f"at least one code is drawn, not {num}")
        if solver is not None:
            drawing = replace(self, sampler=Sampling(solver=checked_solver(solver)))
        else:
            drawing = self
        keys = range(first, first + int(num))
        z = drawing.sample_z(
            keys, seed=seed, decode_steps=steps, steps=prior_steps, solver=prior_solver, wanted=wanted
        )
        codes = drawing.drawn(z, keys, seed=seed, stop_shift=stop_shift)
        if solver is not None or steps is not None:
            way = sampling_way(self.bundle, drawing.sampler, steps, codes.infos[0].stop_shift)
            codes = codes.replace(infos=tuple(replace(i, **asdict(way.sampling)) for i in codes.infos))
        return codes if output is None else drawing.decode(codes, output=output)

    def drawn(
        self, z: Tensor, keys: Sequence[int], *, seed: int = 0, stop_shift: float | None = None
    ) -> Codes:
        """Draws of ``z`` (N, *z_shape) as codes, each with its key's x_T and, where there are some, class."""
        info = self.info(steps=None, stop_shift=stop_shift_for(self.bundle, stop_shift))
        infos = tuple(replace(info, **given_of_draw(self.bundle, seed, key)) for key in keys)
        return self.as_asked(Codes(z=z, x_T=self.noise(keys, seed=seed), infos=infos))

    def sample_z(
        self,
        keys: Sequence[int | str],
        *,
        seed: int = 0,
        decode_steps: int | None = None,
        steps: int | None = None,
        solver: str | None = None,
        wanted: Mapping[str, bool] | None = None,
    ) -> Tensor:
        """z (N, *z_shape) from the prior, one for each key; (N, 0) for a plain DPM.

        ``steps`` and ``solver`` are the prior's, None being its own; ``wanted`` attributes, which the prior
        has to know. Where z depends on t, N(0, I) gives one
        for each of the ``decode_steps``, all equal: z of neighbouring timesteps are nearly so, and what is
        drawn anew at each decodes to the mean of all images.
        """
        if wanted:
            self.bundle.require_z("wanted attributes")
        if not self.bundle.has_z:
            return torch.zeros(len(keys), 0, dtype=torch.float32)
        prior = self.z_prior
        if unknown := [name for name in wanted or {} if name not in prior.attributes]:
            known = ", ".join(prior.attributes) or "none: it was trained without labels"
            raise UsageError(
                f"{self.bundle.name}: its prior knows no attribute {unknown[0]!r}; known: {known}"
            )
        if self.bundle.model.time_dependent and isinstance(prior, GaussianPrior):
            num = sampling_way(self.bundle, self.sampler, decode_steps).steps
            shape = self.bundle.model.z_shape[1:]
            z = keyed_noise(seed, keys, (math.prod(shape),), "z").unflatten(1, shape)
            return z[:, None].expand(len(keys), num, *shape)
        noise = keyed_noise(seed, keys, (self.bundle.z_width,), "z")
        # always so many at once: how a processor multiplies matrices, and so the last bits, depends on it
        drawing = replace(self, batch_size=CODES_AT_ONCE)
        (z,) = drawing.in_batches(lambda _, part: (prior.sample(part, steps, solver, wanted=wanted),), noise)
        return z.unflatten(1, self.bundle.model.z_shape)


_NAMES_SHOWN = 8
_FOR_USERS = (
    "attributes", "batch_size", "bundle", "class_name", "decode", "device", "donor", "edit", "encode",
    "explain",
    "interpolate", "load_images", "manipulate", "precision", "sample", "to", "trajectory",
)  # fmt: skip


def _checked_alphas(alphas: Sequence[float]) -> Tensor:
    """``alphas`` as a tensor; raises ValueError where they are not numbers in [0, 1]."""
    try:
        alpha = torch.tensor(list(alphas), dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"alphas are numbers in [0, 1], not {alphas!r}") from error
    if alpha.ndim != 1 or not bool(((alpha >= 0) & (alpha <= 1)).all()):
        raise ValueError(f"alphas are numbers in [0, 1], not {list(alphas)}")
    return alpha


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
