"""Counterfactual pictures of files: edited pictures that a classifier decides otherwise about, and a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageChops

from rdm_cli.classifiers.classifier import Classifier
from rdm_cli.data.images.pixels import Fit, to_pil
from rdm_cli.data.images.record import SOFTWARE, new_record, refuse_other, save_image, with_command
from rdm_cli.data.images.sheet import TILE, enlarged
from rdm_cli.data.io.json_text import read_object
from rdm_cli.data.io.places import Place, fetched, put
from rdm_cli.errors import OccupiedError
from rdm_cli.jobs.batch import Outcome, Task, run_batches
from rdm_cli.jobs.loading import load_image
from rdm_cli.jobs.picture_records import of_source, record_of
from rdm_cli.jobs.receipts import GAIN, refuse_other_receipt, write_receipt
from rdm_cli.jobs.results import Explained
from rdm_cli.pipeline.explaining import Answer, Explanation
from rdm_cli.pipeline.images import LoadedImage
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.reports.html_page import Card, HtmlPage, Shown, png_bytes, refuse_other_page

ENDING = "-explained.png"
AT_ONCE = 64
"""Pictures that are searched for together; what the model says of one helps with the others."""
MOST_SHOWN = 200
"""Pictures of a page."""
SHOWN_CHANGE = 0.05
"""Changes of a probability from which on a page tells them."""
LEAD = (
    "Each picture was changed as little as was found to be needed for the model to decide otherwise. It was "
    "edited through its code, and pixels that need not change are the image's own. The difference is "
    f"{GAIN} times that of the two. The distance in z is in what --scale counts."
)


def further(target: Place, number: int) -> Place:
    """Where answer ``number`` of a picture goes, from 1: the first is the target itself."""
    return target if number == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}")


def difference_of(picture: Place) -> Place:
    """Where the difference map of an answer goes."""
    return picture.with_name(f"{picture.stem}-difference.png")


def told(answer: Answer) -> dict[str, Any]:
    """An answer as JSON."""
    changes = {name: [round(value, 4), round(answer.after[name], 4)] for name, value in answer.before.items()}
    return {
        "score": round(answer.score, 4),
        "moves": dict(answer.moves),
        "changed": list(answer.changed),
        "kept": answer.kept,
        "probabilities": changes,
        "z_distance": round(answer.z_distance, 4),
        "psnr_db": round(answer.psnr_db, 2),
        "outside": answer.outside,
    }


def explain_files(
    pipeline: Pipeline,
    classifier: Classifier,
    tasks: Iterable[Task],
    *,
    class_name: str | None,
    target: float,
    answers: int,
    gradients: bool = False,
    seed: int = 0,
    fit: Fit = "crop",
    force: bool = False,
    at_once: int = AT_ONCE,
    model_path: str | None = None,
    page: ExplanationPage,
) -> Iterator[Outcome[Task, Explained]]:
    """Write, for each image, pictures that ``classifier`` decides otherwise about; see ``Pipeline.explain``.

    Beside each answer goes its difference map, beside the first a JSON file with what was found; of an image
    whose verdict does not change there is that file alone. What stands in a result's place stays, unless
    it is this very result or ``force`` is given. ``model_path`` is what the recorded command calls the model.
    """

    def load(task: Task) -> Any:  # a union here, beside run_batches' own, is more than mypy infers
        source = fetched(task.source)
        image = load_image(pipeline, source, fit)
        record = record_of(
            pipeline,
            "explanation",
            None,
            **of_source(source, image.record["source_digest"]),
            fit=fit,
            model=classifier.name,
            model_path=model_path,
            model_digest=classifier.digest,
            asked=class_name,
            target=target,
            answers=answers,
            gradients=gradients or None,
            seed=seed,
        )
        if not force:
            for number in range(1, answers + 1):
                place = further(task.target, number)
                refuse_other(place, _numbered(record, number))
                refuse_other(difference_of(place), _numbered(record, number, difference=True))
            refuse_other_receipt(task.target, record)
        return image, record

    def process(
        batch: Sequence[Task], loaded: Sequence[tuple[LoadedImage, dict[str, Any]]]
    ) -> Iterator[Explained]:
        found = pipeline.explain(
            [image for image, _ in loaded],
            classifier,
            class_name=class_name,
            target=target,
            answers=answers,
            gradients=gradients,
            seed=seed,
        )
        for task, (_, record), one in zip(batch, loaded, found, strict=True):
            yield _written(task, record, one, page)

    yield from run_batches(tasks, load=load, process=process, batch_size=at_once)


def _numbered(record: dict[str, Any], number: int, *, difference: bool = False) -> dict[str, Any]:
    what = "difference map" if difference else record["what"]
    return record | {"what": what, "number": number}


def _written(task: Task, record: dict[str, Any], one: Explanation, page: ExplanationPage) -> Explained:
    """Write what was found of one image."""
    image = to_pil(one.image, task.name)
    pictures = [to_pil(answer.picture, str(task.target)) for answer in one.answers]
    outputs = []
    for number, picture in enumerate(pictures, start=1):
        place = further(task.target, number)
        save_image(picture, place, _numbered(record, number))
        difference = _difference(image, picture)
        save_image(difference, difference_of(place), _numbered(record, number, difference=True))
        outputs.append(str(place))
    seen = {
        "class": one.class_name,
        "score": round(one.score, 4),
        "verdict": one.verdict,
        "flipped": one.flipped,
        "answers": [
            {"output": output, **told(answer)} for output, answer in zip(outputs, one.answers, strict=True)
        ],
        "miss": None if one.miss is None else told(one.miss),
        "num_decodes": one.num_decodes,
    }
    receipt = write_receipt(task.target, record | {"receipt": seen})
    page.add(task.name, image, pictures, seen)
    output = outputs[0] if outputs else str(receipt)
    return Explained(output=output, found=seen, receipt_file=str(receipt))


def _difference(before: Image.Image, after: Image.Image) -> Image.Image:
    return ImageChops.difference(before, after).point(lambda level: GAIN * level)


class ExplanationPage:
    """The page ``explain.html`` and the summary ``explain.json`` of a folder of answers.

    Raises OccupiedError where another file is in the place of either.
    """

    def __init__(self, folder: Path, classifier: Classifier, *, target: float, force: bool = False) -> None:
        self.path, self.summary = folder / "explain.html", folder / "explain.json"
        if not force:
            refuse_other_page(self.path)
            _refuse_other_summary(self.summary)
        self.classifier, self.target = classifier, target
        self.num = self.num_flipped = 0
        self.moves: Counter[str] = Counter()
        self._page = HtmlPage(f"Why {classifier.name} decides as it does", LEAD)
        self._page.facts({"model": classifier.name, "classes": len(classifier.classes), **classifier.assumed})

    def add(
        self, name: str, image: Image.Image, pictures: Sequence[Image.Image], seen: dict[str, Any]
    ) -> None:
        """Add an image, the answers' pictures and what was seen of them."""
        self.num += 1
        self.num_flipped += seen["flipped"]
        if seen["answers"]:
            moves = seen["answers"][0]["moves"]
            self.moves[_words(moves)] += 1
        if self.num > MOST_SHOWN:
            return
        shown = [("as it is", f"{seen['class']}: {seen['score']:.3f}", image)]
        for answer, picture in zip(seen["answers"], pictures, strict=True):
            shown.append((_words(answer["moves"]), f"{answer['score']:.3f}", picture))
            shown.append(("difference", "", _difference(image, picture)))
        self._page.section(name)
        cards = [
            Shown(picture=png_bytes(enlarged(one, TILE)), alt=f"{name}: {called}", caption=called, note=note)
            for called, note, one in shown
        ]
        self._page.cards([Card(shown=cards, columns=len(cards))], width=24)
        if not seen["flipped"]:
            self._page.paragraph("No picture was found that the model decides otherwise about.")
        for answer in seen["answers"]:
            rows = [
                [key, f"{before:.3f}", f"{after:.3f}"]
                for key, (before, after) in answer["probabilities"].items()
                if abs(after - before) >= SHOWN_CHANGE
            ]
            self._page.facts({"distance in z": answer["z_distance"], "PSNR to the image": answer["psnr_db"]})
            if rows:
                caption = "What the bundle's classifiers read otherwise, as probabilities."
                self._page.table(caption, ("attribute", "before", "after"), rows)

    def save(self) -> list[Path]:
        """Write page and summary, whole or not at all; gives their paths."""
        if self.num > MOST_SHOWN:
            self._page.paragraph(f"{self.num - MOST_SHOWN} more pictures are not shown here.")
        self._page.section("All pictures")
        rows = [[words, str(num)] for words, num in self.moves.most_common()]
        if rows:
            self._page.table("What was changed, in how many pictures.", ("change", "pictures"), rows)
        told = {
            **new_record("explanations"),
            "model": {
                "name": self.classifier.name,
                "digest": self.classifier.digest,
                "classes": list(self.classifier.classes),
                "assumed": dict(self.classifier.assumed),
            },
            "target": self.target,
            "num_pictures": self.num,
            "num_flipped": self.num_flipped,
            "changes": dict(self.moves.most_common()),
        }
        recorded = with_command(told)
        if "command" in recorded:
            self._page.command(recorded["command"])
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._page.save(self.path)
        put(self.summary, f"{json.dumps(recorded, indent=2)}\n".encode())
        return [self.path, self.summary]


def _words(moves: dict[str, bool]) -> str:
    if not moves:
        return "freely in z"
    return ", ".join(f"{name}={'yes' if value else 'no'}" for name, value in moves.items())


def _refuse_other_summary(path: Path) -> None:
    if not path.is_file():
        return
    try:
        known = read_object(path)
    except (ValueError, OSError):
        known = {}
    if not str(known.get("software", "")).startswith(f"{SOFTWARE} ") or known.get("what") != "explanations":
        raise OccupiedError(f"{path}: is there already, and is no summary of rdm's", hint="name another -o")
