"""What the page of ``rdm app`` can do, as functions of pictures: no web in here.

An edit is a record of what is wanted; the picture that it settles on depends on it and on the source alone,
and is, pixel by pixel, the one that :meth:`Studio.commands` make in a shell. What a slider shows while it
moves is a preview: what z alone says of the edited code, in one step, less what it says of the unedited one,
added to the settled picture that the sliders began from.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image
from torch import Tensor

from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import to_pil
from rdm_cli.data.images.record import command_recorded
from rdm_cli.data.io.places import Blob, Readable
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.jobs.batch import Task
from rdm_cli.jobs.files import Setting, manipulate_files
from rdm_cli.jobs.loading import encode_loaded, load_image_or_code
from rdm_cli.jobs.pictures import PRIOR_BATCH, Draws
from rdm_cli.pipeline.editing import Edited
from rdm_cli.pipeline.effort import USUAL
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.pipeline.running import Advance, ignore_progress
from rdm_cli.reports.html_page import png_bytes

FARTHEST = 2.0  # that a slider moves, in what --scale counts
MOST_EDITS_KEPT = 8  # settled edits of one picture in memory
MOST_DRAWS = 64  # of a seed that a command may draw to come to the one that is meant
PREVIEW_STEPS = 1


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What is asked of one picture: attributes to set, then attributes to move by a scale.

    ``keep`` are attributes whose verdicts are to stay, None: all others; ``seed`` draws what is set, ``like``
    is the picture that it is borrowed from.
    """

    wanted: Mapping[str, bool] = field(default_factory=dict)
    keep: tuple[str, ...] | None = None
    seed: int = 0
    like: Source | None = None
    scales: Mapping[str, float] = field(default_factory=dict)

    @property
    def set_by(self) -> tuple[object, ...]:
        """All that the picture before the sliders depends on."""
        return (*self.wanted.items(), self.keep, self.seed, self.like) if self.wanted else ()


@dataclass(frozen=True, kw_only=True)
class Base:
    """A picture before the sliders: its ``code`` (1), ``picture`` (1, C, H, W) in [-1, 1] and ``stem``.

    ``edited`` says what came of the attributes that were set, None where none were.
    """

    code: Codes
    picture: Tensor
    stem: str
    edited: Edited | None = None

    @cached_property
    def drafts(self) -> dict[str, Tensor]:
        """What z alone says of it, once it was asked."""
        return {}


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A picture to edit: ``file`` as it was read, its ``code`` (1), and its ``picture`` in model pixels.

    ``word`` is what a command calls it, ``first`` are the commands that make it.
    """

    file: Readable
    word: str
    code: Codes
    picture: Image.Image
    first: tuple[str, ...] = ()
    bases: dict[tuple[object, ...], Base] = field(default_factory=dict)

    @property
    def is_code(self) -> bool:
        """Whether the file is a code."""
        return self.file.suffix == CODE_SUFFIX


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The draw ``number`` of ``seed``, of a prior that is told what is ``wanted``."""

    seed: int
    number: int = 0
    wanted: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A picture, the probabilities of the bundle's attributes that its code has, and remarks on it."""

    picture: Image.Image
    readings: Mapping[str, float]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Saved:
    """What the command of an edit writes: the picture and its code, as files' bytes, and their stem."""

    stem: str
    picture: bytes
    code: bytes


@dataclass(frozen=True, kw_only=True)
class Line:
    """One command: ``edit`` is what it does, of the attributes that are set or of those that are moved."""

    words: Sequence[str]
    target: str
    edit: Mapping[str, float | bool]

    def text(self, _: object = None) -> str:
        """What to type; also what the pictures record that it makes."""
        return shlex.join(self.words)


@dataclass(frozen=True, kw_only=True)
class Studio:
    """An open pipeline and what a page does with it; ``options`` are words that its commands need."""

    pipeline: Pipeline
    options: tuple[str, ...] = ()

    @cached_property
    def single(self) -> Pipeline:
        """The pipeline for one picture at a time, as a command works on one file."""
        return replace(self.pipeline, batch_size=1)

    @property
    def names(self) -> tuple[str, ...]:
        """The bundle's attributes; none where it has none."""
        return self.pipeline.bundle.directions.names if "attributes" in self.pipeline.bundle.parts else ()

    def groups(self) -> list[list[str]]:
        """The attributes, those together that rule one another out, in the bundle's order."""
        exclusive = self.pipeline.bundle.transports.exclusive if self.names else {}
        groups: list[list[str]] = []
        for name in self.names:
            joined = [g for g in groups if any(o in exclusive.get(name, ()) for o in g)]
            if not joined:
                groups.append([name])
                continue
            joined[0].append(name)
            for other in joined[1:]:
                joined[0].extend(other)
                groups.remove(other)
        order = {name: i for i, name in enumerate(self.names)}
        return [sorted(group, key=order.__getitem__) for group in groups]

    def edit(self, asked: Mapping[str, Any], like: Source | None = None) -> Edit:
        """The edit that JSON asks for; raises UsageError for what is none."""
        wanted, scales = asked.get("wanted") or {}, asked.get("scales") or {}
        keep, seed = asked.get("keep"), asked.get("seed", 0)
        lists = isinstance(wanted, Mapping) and isinstance(scales, Mapping)
        lists = lists and (keep is None or isinstance(keep, list))
        if not lists or not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**31:
            raise UsageError("this is no edit: it has wanted, scales, keep and a seed from 0")
        for name in (*wanted, *scales, *(keep or ())):
            self.pipeline.bundle.directions.index(name if isinstance(name, str) else repr(name))
        if not all(isinstance(value, bool) for value in wanted.values()):
            raise UsageError("an attribute is wanted or not: true or false")
        for name, scale in scales.items():
            if isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) <= FARTHEST:
                raise UsageError(f"{name}: a scale is a number from -{FARTHEST:g} to {FARTHEST:g}")
        # as a command says it: what it reads is what was settled
        moved = {name: float(f"{scale:.4g}") for name, scale in scales.items() if round(scale, 4)}
        return Edit(
            wanted=dict(wanted),
            keep=None if keep is None or not wanted else tuple(keep),
            seed=seed if wanted else 0,
            like=like if wanted else None,
            scales=moved,
        )

    # What is edited.

    def open(self, file: Readable, word: str | None = None) -> Source:
        """Read an image or a code; ``word`` is what commands call it, None: its name.

        Raises ImageError or CodeError.
        """
        loaded = load_image_or_code(self.single, file, "crop")
        (code,) = encode_loaded(self.single, [loaded], USUAL)
        if isinstance(loaded, LoadedImage):
            picture = to_pil(loaded.x_0)
        else:
            picture = to_pil(self._decoded(code, file.stem)[0])
        return Source(file=file, word=_word(word or file.name), code=code, picture=picture)

    def draw(self, drawing: Drawing) -> Source:
        """One draw, as ``rdm sample`` has it."""
        code = self.drawn(drawing)
        name, place = f"{drawing.number:06d}{CODE_SUFFIX}", f"samples-{drawing.seed}/"
        if drawing.number == 0:
            name, place = f"sample-{drawing.seed}{CODE_SUFFIX}", ""
        near = drawing.number < MOST_DRAWS
        words = self.sampling(drawing.number + 1, drawing.seed, drawing.wanted)
        words += ["-o", place or str(PurePath(name).with_suffix(".png"))]
        first = shlex.join(words) if near else f"# save the code of this draw as {name}"
        return Source(
            file=Blob(name, code_bytes(code, name)),
            word=_word(place + name if near else name),
            code=code,
            picture=to_pil(self._decoded(code, PurePath(name).stem)[0]),
            first=(first,),
        )

    def drawn(self, drawing: Drawing) -> Codes:
        """The code (1) of a draw."""
        draws = Draws(seed=drawing.seed, wanted=drawing.wanted or None)
        # near ones in the batch in which the command draws them: to the last bit the same
        near = drawing.number < MOST_DRAWS
        numbers = list(range(drawing.number + 1)) if near else [drawing.number]
        size = self.pipeline.size_of_batches(len(numbers), at_least=PRIOR_BATCH)
        z = draws.z(replace(self.pipeline, batch_size=size), numbers)
        return draws.codes(self.single, z[-1:], [drawing.number])

    def sampling(self, num: int, seed: int, wanted: Mapping[str, bool]) -> list[str]:
        """The words of the command that draws ``num`` samples."""
        told = ",".join(f"{name}={_answer(value)}" for name, value in wanted.items())
        attr = ["--attr", told] if told else []
        return ["rdm", "sample", "-n", str(num), "--seed", str(seed), *attr, *self.options]

    def continued(self, source: Source, edit: Edit) -> Source:
        """The edited picture as one to go on from: the code that :meth:`commands` write."""
        saved, lines = self.save(source, edit), self.commands(source, edit)
        if not lines:
            return source
        name = f"{saved.stem}{CODE_SUFFIX}"
        with Image.open(io.BytesIO(saved.picture)) as picture:
            shown = picture.convert("RGB")
        file = Blob(name, saved.code)
        return Source(file=file, word=_word(name), code=Codes.load(file), picture=shown, first=(lines,))

    @property
    def draws(self) -> bool:
        """Whether there is something that draws z."""
        try:
            return self.pipeline.z_prior is not None
        except RdmError:
            return False

    def thumbnail(self, file: Readable) -> Image.Image:
        """What an image or a code shows, in model pixels; raises ImageError or CodeError."""
        if file.suffix == CODE_SUFFIX:
            return self.open(file).picture
        return to_pil(self.single.load_with_size(file)[0][0])

    # How it is edited.

    def preview(self, source: Source, edit: Edit) -> Seen:
        """About what :meth:`settle` gives, in one call of the network."""
        base = source.bases.get(edit.set_by)
        if base is None or self.pipeline.bundle.model.time_dependent:
            return self.settle(source, edit)
        moved = self.single.manipulate(base.code, edit.scales)
        if "z" not in base.drafts:
            base.drafts["z"] = self.draft(base.code)
        picture = base.picture + self.draft(moved) - base.drafts["z"] if edit.scales else base.picture
        return Seen(picture=to_pil(picture[0].clamp(-1, 1)), readings=self.readings(moved))

    def settle(self, source: Source, edit: Edit, advance: Advance = ignore_progress) -> Seen:
        """The picture of ``edit``, the one that :meth:`commands` make; raises what Pipeline.edit does."""
        base = self._base(source, edit, advance)
        remarks = [] if base.edited is None else self._remarks(base.edited, edit)
        if not edit.scales:
            readings = self.readings(base.code)
            if base.edited is not None:
                readings = dict(zip(self.names, base.edited.after[0].tolist(), strict=True))
            return Seen(picture=to_pil(base.picture[0]), readings=readings, remarks=tuple(remarks))
        moved = self.single.manipulate(base.code, edit.scales)
        picture = to_pil(self._decoded(moved, base.stem, advance)[0])
        return Seen(picture=picture, readings=self.readings(moved), remarks=tuple(remarks))

    def draft(self, code: Codes) -> Tensor:
        """What z alone of a code (1) shows, (1, C, H, W), in one call of the network."""
        return self.single.decode(code.without_x_T(), steps=PREVIEW_STEPS, keys=[0], advance=ignore_progress)

    def readings(self, code: Codes) -> dict[str, float]:
        """The probability of each attribute that a code (1) has."""
        if not self.names:
            return {}
        logits = self.pipeline.bundle.directions.logits(code.z.flatten(1))
        return dict(zip(self.names, logits[0].sigmoid().tolist(), strict=True))

    def _base(self, source: Source, edit: Edit, advance: Advance) -> Base:
        key = edit.set_by
        if key in source.bases:
            source.bases[key] = source.bases.pop(key)  # the latest is the last
            return source.bases[key]
        if not edit.wanted:
            stem = source.file.stem
            base = Base(code=source.code, picture=self._decoded(source.code, stem, advance), stem=stem)
        else:
            edited = self.single.edit(
                source.code,
                edit.wanted,
                keep=edit.keep,
                like=self._donor(edit),
                seed=edit.seed,
                advance=advance,
            )
            base = Base(
                code=edited.codes, picture=edited.pictures, stem=f"{source.file.stem}-set", edited=edited
            )
        source.bases[key] = base
        while len(source.bases) > MOST_EDITS_KEPT:
            del source.bases[next(iter(source.bases))]
        return base

    def _donor(self, edit: Edit) -> Codes | None:
        if edit.like is None:
            return None
        return self.pipeline.donor(edit.like.code if edit.like.is_code else edit.like.file, edit.wanted)

    def _remarks(self, edited: Edited, edit: Edit) -> list[str]:
        if not bool(edited.holds[0]):
            told = ", ".join(f"{name}: {_answer(value)}" for name, value in edit.wanted.items())
            return [f"It does not show what was wanted ({told}). Another seed may."]
        if not bool(edited.kept[0]):
            changed = [name for k, name in enumerate(self.names) if edited.changed[0, k]]
            return [f"Something else changed: {', '.join(changed)}."]
        return []

    def _decoded(self, code: Codes, stem: str, advance: Advance = ignore_progress) -> Tensor:
        return self.single.decode(code, keys=[stem], advance=advance)

    # The commands that do the same.

    def lines(self, source: Source, edit: Edit) -> list[Line]:
        """One command for what is set and one for what is moved: the second edits the code of the first."""
        lines, word, stem = [], source.word, source.file.stem
        if edit.wanted:
            target = f"{stem}-set.png" if edit.scales else f"{stem}-edited.png"
            told = [f"{name}={_answer(value)}" for name, value in edit.wanted.items()]
            for name in edit.keep or ():
                told += ["--keep", name]
            told += ["--like", edit.like.word] if edit.like is not None else []
            told += ["--seed", str(edit.seed)] if edit.seed else []
            lines.append(self._line(word, told, target, edit.wanted))
            word = _word(f"{stem}-set{CODE_SUFFIX}")
        if edit.scales:
            told = [f"{name}={scale:g}" for name, scale in edit.scales.items()]
            lines.append(self._line(word, told, f"{stem}-edited.png", edit.scales))
        return lines

    def _line(self, word: str, told: Sequence[str], target: str, edit: Mapping[str, float | bool]) -> Line:
        words = ["rdm", "manipulate", word, *told, *self.options, "-o", _word(target)]
        return Line(words=words, target=target, edit=edit)

    def commands(self, source: Source, edit: Edit) -> str:
        """What to type for the settled picture, a line a command; "" where nothing is asked for."""
        lines = self.lines(source, edit)
        return "\n".join([*source.first, *(line.text() for line in lines)]) if lines else ""

    def save(self, source: Source, edit: Edit) -> Saved:
        """The files that the last of :meth:`commands` writes, or those of the unedited picture.

        The commands' own function writes them. Raises RdmError where it fails.
        """
        if not (lines := self.lines(source, edit)):
            stem = source.file.stem
            picture = png_bytes(to_pil(self._base(source, edit, ignore_progress).picture[0]))
            return Saved(stem=stem, picture=picture, code=code_bytes(source.code, f"{stem}{CODE_SUFFIX}"))
        donor = self._donor(edit)
        like = {} if donor is None else {self.pipeline.bundle.digest: donor}
        with TemporaryDirectory(prefix="rdm-app-") as made:
            file = source.file
            for line in lines:
                target = Path(made) / line.target
                with command_recorded(line.text):
                    (done,) = manipulate_files(
                        lambda _: self.pipeline,
                        [Task(source=file, target=target, name=file.name)],
                        batch_size=1,
                        edits=[line.edit],
                        strip=False,
                        setting=Setting(keep=edit.keep, like=like),
                        seed=edit.seed if line.edit is edit.wanted else 0,
                    )
                if done.error is not None:
                    raise RdmError(done.error)
                file = target.with_suffix(CODE_SUFFIX)
            return Saved(stem=target.stem, picture=target.read_bytes(), code=file.read_bytes())


def code_bytes(code: Codes, name: str) -> bytes:
    """The file of a code (1), as ``rdm encode`` writes it."""
    with TemporaryDirectory(prefix="rdm-app-") as folder:
        place = Path(folder) / name
        code.save([place])
        return place.read_bytes()


def _answer(value: bool) -> str:
    return "yes" if value else "no"


def _word(path: str) -> str:
    """A path as an argument that is neither taken for an option nor for NAME=VALUE."""
    return f"./{path}" if path.startswith("-") or ("=" in path and "/" not in path) else path
