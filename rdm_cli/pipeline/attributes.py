"""The attributes that a bundle can edit, as a mapping that reads well where it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

from rdm_cli.methods.directions import Directions


class Attributes(Mapping[str, Mapping[str, float]]):
    """Each attribute's name and its held-out scores; {} where a direction came without scores."""

    def __init__(self, directions: Directions) -> None:
        self._scores = {name: _scores(directions, name) for name in directions.names}

    def __getitem__(self, name: str) -> Mapping[str, float]:
        """One attribute's ``auroc``, ``average_precision``, ``num_positive`` and ``num_labelled``."""
        return self._scores[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scores)

    def __len__(self) -> int:
        return len(self._scores)

    def __repr__(self) -> str:
        """A line for each attribute."""
        width = max(map(len, self), default=0)
        return "\n".join(f"{name:{width}}  {_told(score)}" for name, score in self.items()) or "no attributes"


def _scores(directions: Directions, name: str) -> dict[str, float]:
    return {key: cast(float, value) for key, value in directions.scores.get(name, {}).items()}


def _told(score: Mapping[str, float]) -> str:
    """One attribute's scores in words."""
    words = []
    if (auroc := score.get("auroc")) is not None:
        words.append(f"AUROC {auroc:.3f}")
    if (precision := score.get("average_precision")) is not None:
        words.append(f"AP {precision:.3f}")
    if (num := score.get("num_positive")) is not None:
        of = f" of {score['num_labelled']:,}" if "num_labelled" in score else ""
        words.append(f"{num:,}{of} examples have it")
    return ", ".join(words) or "no scores"
