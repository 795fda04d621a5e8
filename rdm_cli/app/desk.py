"""What tabs of the page ask for, as JSON, and what they get: a studio, and what each tab has open.

Tabs do not see one another's pictures. There are so many tabs, each with so many pictures; where there come
more, those go that were not used for longest. Work is done by one at a time: two at once would each take
twice as long.
"""

from __future__ import annotations

import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from rdm_cli.app.between import SUFFIXES, Export, command, export, mixture
from rdm_cli.app.cloud import Cloud, cloud_of
from rdm_cli.app.drawing import drawn_sheet
from rdm_cli.app.studio import Drawing, Edit, Seen, Source, Studio
from rdm_cli.collection.rows import Collection
from rdm_cli.data.io.places import Blob, Readable
from rdm_cli.data.sources.folders import CODE_SUFFIX
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.reports.html_page import png_bytes

MOST_TABS = 12
MOST_SOURCES = 32  # of a tab
LONGEST_NAME = 255


class GoneError(RdmError):
    """What a tab speaks of is not there any more."""


class SupersededError(RdmError):
    """The same tab has asked for something newer."""


@dataclass(frozen=True, kw_only=True)
class File:
    """An answer that is a file to save."""

    name: str
    content: bytes


@dataclass(kw_only=True)
class Tab:
    """What one tab has open, by keys, and the ``newest`` edit that it asked for, as it counts them."""

    sources: OrderedDict[str, Source] = field(default_factory=OrderedDict)
    num_opened: int = 0
    newest: int = 0


class Remarks:
    """What was said of images and codes since the last answer."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def say(self, name: str, text: str) -> None:
        """Keep what is to be said until an answer is sent; a pipeline's ``on_remark``."""
        self._lines.append(text if name in text else f"{name}: {text}")

    def taken(self) -> list[str]:
        """All of it; there is none left then."""
        lines, self._lines = self._lines, []
        return lines


@dataclass(kw_only=True)
class Desk:
    """Answers what the page asks.

    ``files`` are those that were named on the command line, ``collection`` the codes to explore; ``remarks``
    is where the studio's pipeline says what is to be said of an image.
    """

    studio: Studio
    files: Sequence[Readable] = ()
    collection: Collection | None = None
    remarks: Remarks = field(default_factory=Remarks)
    _tabs: OrderedDict[str, Tab] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tabs_lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, verb: str, tab: str, asked: Mapping[str, Any], body: bytes = b"") -> Any:
        """What ``verb`` gives; raises RdmError for what cannot be, KeyError for an unknown verb."""
        do = VERBS[verb]
        mine = self._tab(tab)
        if verb in ("preview", "settle"):
            mine.newest = max(mine.newest, _whole(asked, "turn"))
        with self._lock:
            given = do(self, mine, asked, body)
            said = self.remarks.taken()
            if isinstance(given, dict):
                given["remarks"] = [*said, *given.get("remarks", ())]
            return given

    def _tab(self, name: str) -> Tab:
        with self._tabs_lock:
            tab = self._tabs.setdefault(name, Tab())
            self._tabs.move_to_end(name)
            while len(self._tabs) > MOST_TABS:
                self._tabs.popitem(last=False)
            return tab

    # What is opened.

    def _start(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        studio, bundle = self.studio, self.studio.pipeline.bundle
        directions = bundle.directions if studio.names else None
        doubts = {n: line for n in studio.names if directions and (line := directions.doubts(n))}
        return {
            "bundle": bundle.name,
            "size": bundle.model.image_size,
            "groups": studio.groups(),
            "exclusive": {n: list(o) for n, o in bundle.transports.exclusive.items()} if directions else {},
            "doubts": doubts,
            "draws": studio.draws,
            "files": [str(file) for file in self.files],
            "explores": self.collection is not None,
        }

    def _open(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        name = asked.get("name")
        if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not body:
            raise UsageError("no picture was sent")
        # a browser gives the last part of a path, and a page of another kind may not give more
        name = name.replace("\\", "/").rpartition("/")[2]
        if name in ("", ".", "..") or "\0" in name:
            raise UsageError("the picture has no name that a file can have")
        return self._shown(tab, self.studio.open(Blob(name, body)))

    def _pick(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        file = self._file(asked)
        return self._shown(tab, self.studio.open(file, str(file)))

    def _thumbnail(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return {"picture": _uri(self.studio.thumbnail(self._file(asked)))}

    def _draw(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return self._shown(tab, self.studio.draw(_drawing(asked)))

    def _continue(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return self._shown(tab, self.studio.continued(*self._edit(tab, asked)))

    def _file(self, asked: Mapping[str, Any]) -> Readable:
        number = _whole(asked, "number")
        if number >= len(self.files):
            raise UsageError(f"there are {len(self.files)} files")
        return self.files[number]

    def _shown(self, tab: Tab, source: Source) -> dict[str, Any]:
        tab.num_opened += 1
        key = str(tab.num_opened)
        tab.sources[key] = source
        while len(tab.sources) > MOST_SOURCES:
            tab.sources.popitem(last=False)
        return {"key": key, "name": source.file.name, "picture": _uri(source.picture)}

    # How it is edited.

    def _preview(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        source, edit = self._edit(tab, asked)
        return _seen(self.studio.preview(source, edit))

    def _settle(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        source, edit = self._edit(tab, asked)
        turn = _whole(asked, "turn")

        def advance(_: float) -> None:
            if tab.newest > turn:
                raise SupersededError("a newer edit was asked for")

        advance(0.0)
        seen = _seen(self.studio.settle(source, edit, advance))
        return seen | {"command": self.studio.commands(source, edit)}

    def _save(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> File:
        saved = self.studio.save(*self._edit(tab, asked))
        if asked.get("what") == "code":
            return File(name=f"{saved.stem}{CODE_SUFFIX}", content=saved.code)
        return File(name=f"{saved.stem}.png", content=saved.picture)

    # Between pictures, and new ones.

    def _mix(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        weights = asked.get("weights")
        if not isinstance(weights, list) or not all(isinstance(w, int | float) for w in weights):
            raise UsageError("weights are numbers")
        return {"picture": _uri(mixture(self.studio, self._several(tab, asked), weights))}

    def _way(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        sources, num_frames = self._several(tab, asked), _whole(asked, "frames")
        return {"command": command(self.studio, sources, num_frames, "strip")}

    def _export(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> File:
        kind: Export = "animation" if asked.get("what") == "animation" else "strip"
        content = export(self.studio, self._several(tab, asked), _whole(asked, "frames"), kind)
        return File(name=f"between{SUFFIXES[kind]}", content=content)

    def _several(self, tab: Tab, asked: Mapping[str, Any]) -> list[Source]:
        keys = asked.get("keys")
        if not isinstance(keys, list) or len(keys) > 3:
            raise UsageError("two or three pictures are named")
        return [self._source(tab, key) for key in keys]

    def _sheet(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        like = asked.get("like") or []
        if not isinstance(like, list) or not all(isinstance(one, dict) for one in like):
            raise UsageError("examples are draws")
        sheet = drawn_sheet(
            self.studio,
            _whole(asked, "num"),
            _whole(asked, "seed"),
            _wanted(asked),
            [_drawing(one) for one in like],
        )
        drawn = zip(sheet.drawings, sheet.pictures, strict=True)
        return {
            "drawn": [{**vars(one), "picture": _uri(picture)} for one, picture in drawn],
            "command": sheet.command,
            "remarks": list(sheet.remarks),
        }

    # The cloud of codes.

    @cached_property
    def _cloud(self) -> Cloud:
        if self.collection is None:
            raise UsageError("no codes were named")
        return cloud_of(self.studio, self.collection)

    def _map(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        cloud = self._cloud
        x, y = cloud.xy.T
        levels = {n: np.rint(255 * p).astype(np.uint8) for n, p in cloud.rows.probabilities.items()}
        return {
            "names": cloud.rows.names,
            "x": _base64(np.ascontiguousarray(x)),
            "y": _base64(np.ascontiguousarray(y)),
            "attributes": {name: _base64(values) for name, values in levels.items()},
            "told": cloud.told,
        }

    def _point(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return {"picture": _uri(self._cloud.picture(self.studio, _whole(asked, "number")))}

    def _explore(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        return self._shown(tab, self._cloud.source(self.studio, _whole(asked, "number")))

    def _table(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> File:
        return File(name="chosen.csv", content=self._cloud.table(_numbers(asked)))

    def _learn(self, tab: Tab, asked: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        learned = self._cloud.learned(self.studio, _numbers(asked), str(asked.get("name", "")))
        return {"told": learned.told, "file": base64.b64encode(learned.content).decode("ascii")}

    def _edit(self, tab: Tab, asked: Mapping[str, Any]) -> tuple[Source, Edit]:
        edit = asked.get("edit")
        if not isinstance(edit, dict):
            raise UsageError("no edit was sent")
        like = None if edit.get("like") is None else self._source(tab, edit["like"])
        return self._source(tab, asked.get("key")), self.studio.edit(edit, like)

    def _source(self, tab: Tab, key: object) -> Source:
        if not isinstance(key, str) or key not in tab.sources:
            raise GoneError("this picture is not open any more", hint="open it again")
        tab.sources.move_to_end(key)
        return tab.sources[key]


VERBS: Mapping[str, Callable[[Desk, Tab, Mapping[str, Any], bytes], Any]] = {
    "start": Desk._start,
    "open": Desk._open,
    "pick": Desk._pick,
    "thumbnail": Desk._thumbnail,
    "draw": Desk._draw,
    "preview": Desk._preview,
    "settle": Desk._settle,
    "save": Desk._save,
    "continue": Desk._continue,
    "mix": Desk._mix,
    "way": Desk._way,
    "export": Desk._export,
    "sheet": Desk._sheet,
    "map": Desk._map,
    "point": Desk._point,
    "explore": Desk._explore,
    "table": Desk._table,
    "learn": Desk._learn,
}
"""What a page may ask for."""


def _seen(seen: Seen) -> dict[str, Any]:
    readings = {name: round(value, 4) for name, value in seen.readings.items()}
    return {"picture": _uri(seen.picture), "readings": readings, "remarks": list(seen.remarks)}


def _uri(picture: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(png_bytes(picture)).decode('ascii')}"


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(values.tobytes()).decode("ascii")


def _whole(asked: Mapping[str, Any], name: str) -> int:
    value = asked.get(name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise UsageError(f"{name} is a whole number from 0")
    return value


def _numbers(asked: Mapping[str, Any]) -> list[int]:
    numbers = asked.get("numbers")
    if not isinstance(numbers, list):
        raise UsageError("no points were named")
    return [_whole({"number": number}, "number") for number in numbers]


def _drawing(asked: Mapping[str, Any]) -> Drawing:
    return Drawing(seed=_whole(asked, "seed"), number=_whole(asked, "number"), wanted=_wanted(asked))


def _wanted(asked: Mapping[str, Any]) -> dict[str, bool]:
    wanted = asked.get("wanted") or {}
    if not isinstance(wanted, dict) or not all(isinstance(v, bool) for v in wanted.values()):
        raise UsageError("an attribute is wanted or not: true or false")
    return wanted
