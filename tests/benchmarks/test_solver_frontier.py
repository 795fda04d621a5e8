"""The knee: which curve it names, how it becomes a bundle's default, and that codes stay valid."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from solver_frontier import keep_knee, knee, knee_text

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.errors import UsageError
from rdm_cli.kernels.spec import Sampling


def row(value: float, half: float = 1.0) -> dict[str, Any]:
    return {"fd": [value, value - half, value + half], "kd": [0.0, 0.0, 0.0]}


FIGURES = {
    "ddim": {"8": row(14.0), "20": row(10.9), "100": row(10.0)},
    "unipc": {"5": row(11.01), "8": row(10.99)},
    "heun": {"8": row(10.5)},
}


def test_the_knee_is_the_fewest_calls_within_the_references_interval() -> None:
    assert knee(FIGURES) == ("heun", 8)
    assert knee({name: FIGURES[name] for name in ("ddim", "unipc")}) == ("unipc", 8)
    assert knee({"ddim": FIGURES["ddim"]}) == ("ddim", 20)
    assert "heun with 8 calls, FD 10.50; 100-step DDIM has 10.00 (9.00 to 11.00)" in knee_text(FIGURES)


def test_without_the_reference_there_is_no_knee(tmp_path: Path) -> None:
    figures = {"ddim": {"8": row(14.0)}, "unipc": {"8": row(9.0)}}
    assert knee(figures) is None and knee_text(figures) == ""
    with pytest.raises(UsageError, match="there is no knee"):
        keep_knee(tmp_path, figures)


def test_the_kept_knee_is_the_bundles_sampler_and_leaves_its_digest(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, folder)
    before = open_bundle(str(folder))
    for figures, expected in (
        (
            FIGURES,
            Sampling(solver="heun", steps=4),
        ),  # 2 calls a step, 1 for the last: 7 calls
        ({**FIGURES, "unipc, karras": {"5": row(10.0)}}, Sampling(solver="unipc", spacing="karras", steps=5)),
    ):
        keep_knee(folder, figures)
        after = open_bundle(str(folder))
        assert after.model.sampling.sampler == expected
        assert after.digest == before.digest
        assert after.model.sampling.steps == before.model.sampling.steps
