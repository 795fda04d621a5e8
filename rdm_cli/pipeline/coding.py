"""Images to codes and back, in batches.

A batch is always padded to its full size, so what an image becomes does not depend on how many others
happened to be left over. Randomness is keyed by (seed, item), never by batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, overload

import torch
from PIL.Image import Image
from torch import Tensor

from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.images.pixels import (
    MAX_PIXELS,
    SAID_ONCE,
    Fit,
    Remark,
    load_rgb,
    square_bytes,
    to_unit_range,
    warn_of,
)
from rdm_cli.data.images.value_range import ValueRange
from rdm_cli.data.io.places import Readable, digest_of
from rdm_cli.errors import BundleError, CodeError, setting
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.randomness import keyed_noise
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.spec import Sampling
from rdm_cli.methods.conditions import of_images
from rdm_cli.methods.domain import more_than_chance
from rdm_cli.pipeline.classes import given_conditions, given_of
from rdm_cli.pipeline.compatibility import check_codes, check_steps_of_z
from rdm_cli.pipeline.images import (
    ImageReader,
    Images,
    LoadedImage,
    Output,
    Pictures,
    as_output,
    checked_output,
)
from rdm_cli.pipeline.running import Advance, Runner, told_by_calls
from rdm_cli.pipeline.sampling import Way, checked_solver, way_down, way_up
from rdm_cli.runtime import autocast


@dataclass(frozen=True, kw_only=True)
class Coder(Runner):
    """Encodes and decodes with an open bundle.

    ``style`` is an image whose style everything is decoded in; ``class_name`` a class that every image is
    of, and that everything is decoded as. None: each has its own. ``sampler`` is how everything is decoded:
    it overrides what a code records, but where a code decodes in no other way; None: each code as it
    records, and what was drawn as the bundle has it. An image of more than ``max_pixels`` is not read;
    ``value_range`` and ``on_remark`` are those of :func:`~rdm_cli.data.images.pixels.load_rgb`.
    """

    style: Path | None = None
    class_name: str | None = None
    sampler: Sampling | None = None
    max_pixels: int = MAX_PIXELS
    value_range: ValueRange | None = None
    on_remark: Remark = warn_of

    def info(self, **how: Any) -> CodeInfo:
        """The metadata of a code that this pipeline makes; ``how`` are further fields."""
        return CodeInfo(
            method=self.bundle.method.name,
            bundle=self.bundle.name,
            bundle_digest=self.bundle.digest,
            image_size=self.bundle.model.image_size,
            precision=self.precision,
            **how,
        )

    def info_of(self, way: Way, *, with_x_T: bool, **how: Any) -> CodeInfo:
        """The metadata of a code that is made that ``way``; z alone depends on it in few models."""
        of_steps = with_x_T or self.bundle.model.time_dependent
        return self.info(**(asdict(way.sampling) if of_steps else {}), **how)

    def load_images(self, images: Images, fit: Fit = "crop") -> Tensor:
        """Images of any kind as x_0 (N, *image_shape) in [-1, 1]; see :meth:`encode` for the kinds.

        Raises ImageError for what is no image, ValueError for none at all or an unknown ``fit``.
        """
        return torch.stack([image.x_0 for image in self._read(images, fit)])

    def load_with_size(self, source: Readable, fit: Fit = "crop") -> tuple[Tensor, tuple[int, int]]:
        """One file as :meth:`load_images` reads it, and its width and height, upright, before the fit."""
        channels, size, _ = self.bundle.model.image_shape
        how: Any = {"value_range": self.value_range, "on_remark": self.on_remark}
        image = load_rgb(source, max_pixels=self.max_pixels, **how)
        pixels = square_bytes(image, size, fit, channels=channels)
        return to_unit_range(torch.from_numpy(pixels[None].copy())), image.size

    def _read(self, images: Images, fit: Fit) -> list[LoadedImage]:
        reader = ImageReader(
            shape=self.bundle.model.image_shape,
            given=self.given_of,
            fit=fit,
            max_pixels=self.max_pixels,
            value_range=self.value_range,
            on_remark=self.on_remark,
        )
        return reader.read(images)

    def given_of(self, path: Path | None) -> dict[str, Any]:
        """What the code of an image file, None: of no file, records as given by name; raises UsageError."""
        return given_of(self.bundle, path, self.class_name)

    def encode(
        self,
        images: Images,
        *,
        fit: Fit = "crop",
        classes: Sequence[str | None] | None = None,
        names: Sequence[str] | None = None,
        steps: int | None = None,
        inversion: str | None = None,
        iterations: int | None = None,
        with_x_T: bool = True,
        advance: Advance | None = None,
    ) -> Codes:
        """Images to codes.

        ``images`` are one or several of these, mixed as you like: paths of image files, or of folders, which
        stand for the images below them; PIL images; uint8 arrays (H, W, 3), (H, W) or (N, H, W, 3); float
        tensors (3, H, W) or (N, 3, H, W) in [-1, 1]. Tensors have the bundle's size; all others are brought
        to it as ``fit`` says: "crop" cuts the centre square, "pad" puts the whole image on white, "stretch"
        ignores the proportions. Codes of files are called by their files' names.

        ``names`` are what the codes are called, None: as their files are, or by their numbers.
        ``classes`` name that of each image, for bundles that know some; None: all of the pipeline's own, or
        a file of that of its folder. ``inversion`` infers x_T (None: the bundle's own; "ddim" is the
        published one, "fixed-point" solves each of its steps, "exact" can be undone) in ``steps`` steps,
        asking the network ``iterations`` times where it solves an equation (None: the bundle's numbers or,
        for another inversion, its own); ``with_x_T`` False gives z alone. ``advance`` is told of progress,
        in images.

        Raises ImageError for what is no image, UsageError where nothing would be left and for steps that
        there are not, CodeError for an unknown class, ValueError for tensors and arrays of another shape,
        dtype or range.
        """
        read = self._read(images, fit)
        way = way_up(self.bundle, inversion, steps, iterations)
        info = self.info_of(way, with_x_T=with_x_T)
        infos = [replace(info, **image.record) for image in read]
        if classes is not None:
            if len(classes) != len(read):
                raise ValueError(f"{len(read)} images need as many classes, not {len(classes)}")
            infos = [replace(info, class_name=name) for info, name in zip(infos, classes, strict=True)]
        x_0 = [image.x_0 for image in read]
        codes = self._encode(x_0, infos, way, with_x_T=with_x_T, advance=advance)
        if names is None and any(image.name is not None for image in read):
            names = [image.name or f"{i:06d}" for i, image in enumerate(read)]
        codes = codes.replace(names=None if names is None else tuple(names))
        self._tell_outside(codes)
        return codes

    def _encode(
        self,
        x_0: Sequence[Tensor],
        infos: Sequence[CodeInfo],
        way: Way,
        *,
        with_x_T: bool,
        advance: Advance | None,
    ) -> Codes:
        """``x_0``, N of ``image_shape``, checked already, to codes with these ``infos``, that ``way``."""
        given = given_conditions(self.bundle, infos)
        if not with_x_T:
            self.bundle.require_z("codes without x_T")
        model, upward = self.network, way.kernel.encode
        assert upward is not None
        kept = ("z", *of_images(self.bundle.model.conditions))

        def encode_batch(real: int, x: Tensor, *rows: Tensor) -> tuple[Tensor, ...]:
            x = self.enter(x)
            with autocast(self.bundle.device, self.precision):
                conditions = model.encode(x, dict(zip(given, rows, strict=True)), timesteps=way.timesteps)
            conditions["z"] = conditions["z"].float()
            of_image = [conditions[name] for name in kept]
            if not with_x_T:
                return tuple(of_image)
            eps_fn = self.eps_fn(conditions, timesteps=way.timesteps)
            with told_by_calls(eps_fn, tell, num_images=real, num_calls=way.calls_up) as told:
                end = last(upward(told, x, way.spec, way.steps, way.iterations))
            return *of_image, *(end if isinstance(end, TwoStates) else (end,))

        with self.progress(advance, "encoding", len(x_0)) as tell:
            if with_x_T:
                found = self.in_batches(encode_batch, x_0, *given.values())
            else:
                found = self.in_batches_of_z(encode_batch, x_0, *given.values(), done=tell)
        states = ("x_T", "other") if way.kernel.in_pairs else ("x_T",)
        tensors: dict[str, Any] = dict(zip(kept + (states if with_x_T else ()), found, strict=True))
        return Codes(**{"x_T": None, **tensors}, infos=tuple(infos))

    def encode_z(self, pictures: Tensor, codes: Codes) -> Tensor:
        """z (N, *z_shape) of decoded pictures (N, C, H, W) of ``codes``, cut off beyond [-1, 1]."""
        x_0, way = list(pictures.clamp(-1, 1)), way_up(self.bundle)
        return self._encode(x_0, codes.infos, way, with_x_T=False, advance=None).z

    def _tell_outside(self, codes: Codes) -> None:
        """Remark, once for a bundle, that more images are unlike those of its training than chance has it."""
        name, seen = self.bundle.name, self.bundle.seen
        if seen["told"]:
            return
        try:
            domain = self.bundle.domain
        except BundleError as error:  # its networks work without it
            seen["told"] = 1
            self.on_remark(name, str(error))
            return
        outside = [] if domain is None else domain.outside(codes.z).tolist()
        seen.update(images=len(outside), outside=sum(outside))
        if any(outside) and more_than_chance(seen["outside"], seen["images"]):
            seen["told"] = 1
            first = outside.index(True)
            others = (
                f" and {seen['outside'] - 1} more of {seen['images']} are" if seen["images"] > 1 else " is"
            )
            self.on_remark(
                f"image {first}" if codes.names is None else codes.names[first],
                f"this image{others} unlike those that {name} was trained on: such a code says little, and "
                "edits may not show. For such images, train on your own: rdm train all FOLDER -o BUNDLE; or "
                f"convert a published checkpoint: rdm bundles convert. {SAID_ONCE}",
            )

    @overload
    def decode(
        self,
        codes: Codes,
        *,
        output: Literal["pt"] = "pt",
        steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        keys: Sequence[int | str] | None = None,
        advance: Advance | None = None,
    ) -> Tensor: ...

    @overload
    def decode(
        self,
        codes: Codes,
        *,
        output: Literal["pil"],
        steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        keys: Sequence[int | str] | None = None,
        advance: Advance | None = None,
    ) -> list[Image]: ...

    @overload
    def decode(
        self,
        codes: Codes,
        *,
        output: Output,
        steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        keys: Sequence[int | str] | None = None,
        advance: Advance | None = None,
    ) -> Pictures: ...

    def decode(
        self,
        codes: Codes,
        *,
        output: Output = "pt",
        steps: int | None = None,
        solver: str | None = None,
        seed: int = 0,
        keys: Sequence[int | str] | None = None,
        advance: Advance | None = None,
    ) -> Pictures:
        """Codes to pictures.

        ``output``: "pt" is a tensor x_0 (N, 3, H, W) in [-1, 1]; "pil" a list of PIL images; "np" a uint8
        array (N, H, W, 3).

        Each code is decoded by ``solver`` or, where it is None, as the pipeline was opened to; else the way
        that the code records, or as its bundle samples where it records none; ``steps`` changes the number of
        steps. A code that decodes in one way alone is refused where solver or steps ask for another
        (:mod:`rdm_cli.pipeline.sampling`). A code without x_T gets one drawn for (``seed``, its key);
        ``keys`` None numbers the codes. Raises CodeError, UsageError for steps and solvers that there are
        not, and ValueError for other than one key a code, an unknown output and what are no codes.
        """
        checked_output(output)
        sampler = self.sampler if solver is None else Sampling(solver=checked_solver(solver))
        return as_output(self._decoded(codes, sampler, steps, seed, keys, advance), output)

    def _decoded(
        self,
        codes: Codes,
        sampler: Sampling | None,
        steps: int | None,
        seed: int,
        keys: Sequence[int | str] | None,
        advance: Advance | None,
    ) -> Tensor:
        check_codes(self.bundle, codes)
        if keys is not None and len(keys) != len(codes):
            raise ValueError(f"{len(codes)} codes need as many keys, not {len(keys)}")
        codes = self.as_asked(codes)
        conditions = self.conditions_of(codes)
        self.check_precision(codes)
        x_T = codes.x_T
        if x_T is None:
            x_T = self.noise(keys if keys is not None else range(len(codes)), seed=seed)
        has_x_T = codes.x_T is not None
        ways = [
            way_down(self.bundle, info, has_x_T=has_x_T, steps=steps, sampler=sampler) for info in codes.infos
        ]
        x_0 = torch.empty(len(codes), *self.bundle.model.image_shape, dtype=torch.float32)
        for way in dict.fromkeys(ways):
            chosen = [i for i, w in enumerate(ways) if w == way]
            pair = {"other": codes.other} if codes.other is not None and way.kernel.in_pairs else {}
            # in float64 only for a solver that keeps two states
            given = {"x_T": x_T if pair else x_T.float(), **pair, **conditions}
            with self.progress(advance, "decoding", len(chosen)) as tell:
                rows = {name: values[chosen] for name, values in given.items()}
                x_0[chosen] = self._decode(way, rows, tell)
        return x_0

    def _decode(self, way: Way, given: Mapping[str, Tensor], tell: Advance) -> Tensor:
        """``given`` rows of conditions and x_T, and of the other state if any, decoded one ``way``."""
        check_steps_of_z(self.bundle, given, way.steps)
        options: dict[str, Any] = {"timesteps": way.timesteps}
        if way.sampling.stop_shift:
            options["stop_below"] = way.spec.stop_below(way.sampling.stop_shift, way.steps)

        def decode_batch(real: int, *rows: Tensor) -> tuple[Tensor, ...]:
            conditions = dict(zip(given, rows, strict=True))
            x_t, other = conditions.pop("x_T"), conditions.pop("other", None)
            start = x_t if other is None else TwoStates(x_t, other)
            eps_fn = self.eps_fn(conditions, **options)
            with told_by_calls(eps_fn, tell, num_images=real, num_calls=way.calls_down) as told:
                x_0 = last(way.kernel.decode(told, start, way.spec, way.steps))
            return (self.leave(x_0),)

        return self.in_batches(decode_batch, *given.values())[0]

    def conditions_of(self, codes: Codes) -> dict[str, Tensor]:
        """All that the denoiser of ``codes`` is told; raises CodeError where they lack some of it."""
        conditions = codes.conditions | given_conditions(self.bundle, codes.infos)
        for name in of_images(self.bundle.model.conditions).keys() - conditions.keys():
            hint = f"name an image that has one with {setting(name)}"
            raise CodeError(f"the code holds no {name}", hint=hint)
        return conditions

    def check_precision(self, *codes: Codes) -> None:
        """Raise CodeError where codes that keep two states would be decoded in another arithmetic."""
        for info in (info for some in codes if some.other is not None for info in some.infos):
            if info.precision != self.precision:
                raise CodeError(
                    f"this code was made in {info.precision} and does not decode in {self.precision}",
                    hint=f"{setting('precision')} {info.precision}",
                )

    def decodes_as_made(self, info: CodeInfo, steps: int | None) -> bool:
        """Whether :meth:`decode` in ``steps`` shows the very picture that such a code was made to show."""
        as_told = self.style is None and self.class_name in (None, info.class_name)
        if not as_told or self.precision != info.precision:
            return False
        made = way_down(self.bundle, info, has_x_T=True, steps=None, sampler=None)
        return way_down(self.bundle, info, has_x_T=True, steps=steps, sampler=self.sampler) == made

    def noise(self, keys: Sequence[int | str], *, seed: int = 0) -> Tensor:
        """x_T (N, C, H, W) from N(0, I), one for each key."""
        return keyed_noise(seed, keys, self.bundle.model.x_T_shape, "x_T")

    @cached_property
    def own_conditions(self) -> dict[str, Tensor]:
        """What every code is decoded with in place of its own: the style, where an image is named for it."""
        if self.style is None:
            return {}
        with torch.no_grad():
            inner = self.enter(self.load_images([self.style]).to(self.bundle.device))
            with autocast(self.bundle.device, self.precision):
                return {"style": self.network.encode(inner)["style"].cpu()}

    @cached_property
    def recorded_conditions(self) -> dict[str, str | None]:
        """The coder's own style and class as a picture's record has them; None: each code has its own."""
        style_digest = None if self.style is None else digest_of(self.style)
        return {"style_digest": style_digest, "class_name": self.class_name}

    def as_asked(self, codes: Codes) -> Codes:
        """``codes`` in the coder's style and of its class, where it has one; else as they are."""
        if self.class_name is not None:
            codes = codes.replace(infos=tuple(replace(i, class_name=self.class_name) for i in codes.infos))
        own = {name: x.expand(len(codes), *x.shape[1:]) for name, x in self.own_conditions.items()}
        return codes.replace(**own) if own else codes
