"""How images are encoded: the user's words first, then the bundle's own way, then the solver's numbers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from rdm_cli import Pipeline, open_pipeline
from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.kernels.spec import Sampling
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.sampling import way_up


def scheduler(folder: Path) -> Path:
    return folder / "scheduler" / "scheduler_config.json"


def with_inverter(source: Path, folder: Path, inverter: Mapping[str, Any]) -> Path:
    """A copy of a bundle that names its own way up."""
    shutil.copytree(source, folder)
    values = json.loads(scheduler(folder).read_text())
    values["_rdm"]["inverter"] = dict(inverter)
    scheduler(folder).write_text(json.dumps(values))
    return folder


@pytest.fixture
def own(tiny_bundle: Path, tmp_path: Path) -> Pipeline:
    return open_pipeline(with_inverter(tiny_bundle, tmp_path / "own", {"solver": "exact", "steps": 5}))


def test_the_users_words_then_the_bundles_then_the_solvers(own: Pipeline, tiny_bundle: Path) -> None:
    def sampling(*given: Any) -> Sampling:
        return way_up(own.bundle, *given).sampling

    assert sampling() == Sampling(solver="exact", spacing="log-snr", steps=5, iterations=3)
    assert sampling(None, 8) == Sampling(solver="exact", spacing="log-snr", steps=8, iterations=3)
    assert sampling("exact", None, 2) == Sampling(solver="exact", spacing="log-snr", steps=5, iterations=2)
    # another inversion has numbers of its own
    assert sampling("fixed-point") == Sampling(
        solver="fixed-point", spacing="log-snr", steps=10, iterations=3
    )
    steps = own.bundle.model.sampling.steps
    assert sampling("ddim") == Sampling(solver="ddim", steps=steps)
    assert way_up(open_bundle(tiny_bundle)).sampling == Sampling(solver="ddim", steps=steps)
    with pytest.raises(UsageError, match="ddim solves no equation"):
        way_up(own.bundle, "ddim", None, 2)
    with pytest.raises(UsageError, match="asked once at least"):
        way_up(own.bundle, None, None, 0)


def test_a_bundles_own_way_is_what_encode_does_and_no_part_of_its_digest(
    own: Pipeline, tiny_bundle: Path
) -> None:
    assert own.bundle.digest == open_bundle(tiny_bundle).digest
    x_0 = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = own.encode(x_0)
    info = codes.infos[0]
    assert (info.solver, info.steps, info.iterations) == ("exact", 5, 3) and codes.other is not None
    assert float(psnr(x_0, own.decode(codes)).min()) > 100
    # any other bundle of these networks decodes it the same way
    assert torch.equal(open_pipeline(tiny_bundle).decode(codes), own.decode(codes))


@pytest.mark.parametrize(
    "inverter", [{"solver": "unipc"}, {"solver": "exact", "steps": 0}, {"iterations": 0}, {"solver": "none"}]
)
def test_a_way_up_that_there_is_not_is_refused(
    tiny_bundle: Path, tmp_path: Path, inverter: dict[str, Any]
) -> None:
    with pytest.raises(BundleError, match=r"scheduler_config\.json"):
        open_bundle(with_inverter(tiny_bundle, tmp_path / "own", inverter))


@pytest.mark.parametrize("name", ["avatars64-diffae", "avatars64-pdae", "avatars128-lrdm"])
def test_shipped_bundles_restore_the_image_by_default(name: str) -> None:
    """At 60 dB or more; a first stage's loss is not the code's."""
    pipeline = open_pipeline(name)
    x_0 = pipeline.load_images(Path(__file__).parents[2] / "assets" / "faces" / "face-1.png")
    expected = pipeline.leave(pipeline.enter(x_0)).cpu()
    decoded = pipeline.decode(pipeline.encode(x_0))
    assert float(psnr(expected, decoded).min()) > 60


def test_between_two_codes_pictures_are_decoded_as_draws_are(own: Pipeline) -> None:
    x_0 = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    codes = own.encode(x_0)
    drawn = own.bundle.model.sampling.sampler
    path = own.interpolate(codes[0], codes[1], [0.0, 0.5, 1.0], path="prior")
    assert [info.solver for info in path.infos] == ["exact", drawn.solver, "exact"]
    assert path.infos[1].steps == (drawn.steps or own.bundle.model.sampling.steps)
    pictures = own.decode(path)
    assert float(psnr(x_0, pictures[::2]).min()) > 100
    straight = own.interpolate(codes[0], codes[1], [0.0, 0.5, 1.0], path="lerp")
    assert {info.solver for info in straight.infos} == {"exact"}
