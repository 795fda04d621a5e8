"""Sampling what is like a few examples: through a whole bundle; the statistics are test_few_shot's."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.jobs.conditional import (
    Condition,
    accepted_draws,
    attribute_condition,
    few_shot_condition,
    folder_codes,
)
from rdm_cli.jobs.pictures import Draws
from rdm_cli.pipeline.pipeline import Pipeline


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(bundle=open_bundle(str(tiny_bundle)))


@pytest.fixture
def smiling(pipeline: Pipeline, tmp_path: Path) -> tuple[Path, Path]:
    """Folders of five codes each: samples that smile clearly, and samples that clearly do not."""
    codes = pipeline.sample(200, seed=9)
    logits = pipeline.bundle.directions.logits(codes.z)[:, 0]
    order = logits.argsort().tolist()
    for name, chosen in (("yes", order[-5:]), ("no", order[:5])):
        for i in chosen:
            codes[i].replace(x_T=None).save([tmp_path / name / f"{i}.safetensors"])
    return tmp_path / "yes", tmp_path / "no"


def smile(pipeline: Pipeline, z: torch.Tensor) -> float:
    return float((pipeline.bundle.directions.logits(z)[:, 0] > 0).float().mean())


@pytest.mark.parametrize("kind", ["prior", "unlike", "unlabelled"])
def test_five_examples(pipeline: Pipeline, smiling: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    like, unlike = smiling
    if kind == "unlabelled":
        codes = pipeline.sample(60, seed=10)
        codes.replace(x_T=None).save([tmp_path / "any" / f"{i}.safetensors" for i in range(60)])
    condition = few_shot_condition(
        pipeline,
        like,
        unlike=unlike if kind == "unlike" else None,
        unlabelled=tmp_path / "any" if kind == "unlabelled" else None,
        seed=0,
    )
    assert "5 examples" in condition.description
    draws = Draws(seed=3)
    drawn = accepted_draws(pipeline, condition, 100, draws, max_draws=10_000)
    numbers = drawn.numbers
    assert len(numbers) == 100 and numbers == sorted(set(numbers))
    assert drawn.told.startswith("accepted 100 of ") and "%" in drawn.told
    # five examples tell little; a shift by 0.15 is three standard errors of a share among 100
    assert (
        smile(pipeline, draws.z(pipeline, numbers))
        > smile(pipeline, pipeline.sample_z(range(1000), seed=3)) + 0.15
    )


def test_accepted_draws_are_the_samples_of_their_numbers(pipeline: Pipeline) -> None:
    condition = attribute_condition(pipeline, {"hat": True})
    draws = Draws(seed=5)
    numbers = accepted_draws(pipeline, condition, 3, draws, max_draws=100).numbers
    codes = draws.codes(pipeline, draws.z(pipeline, numbers), numbers)
    plain = pipeline.sample(max(numbers) + 1, seed=5)
    assert codes.x_T is not None and plain.x_T is not None
    assert torch.equal(codes.x_T, plain.x_T[numbers])
    torch.testing.assert_close(codes.z, plain.z[numbers], rtol=1e-5, atol=1e-5)
    assert accepted_draws(pipeline, condition, 2, draws, max_draws=100).numbers == numbers[:2]


def test_the_hopeless_case_stops(pipeline: Pipeline) -> None:
    with pytest.raises(RdmError, match="accepted only . of 50 samples in 3 draws"):
        accepted_draws(
            pipeline, attribute_condition(pipeline, {"hat": True}), 50, Draws(), max_draws=3, keep_best=True
        )
    with pytest.raises(RdmError, match="accepted only 0 of 2 samples in 30 draws"):
        accepted_draws(pipeline, never(pipeline), 2, Draws(), max_draws=30)


def never(pipeline: Pipeline) -> Condition:
    """A condition that accepts nothing, and ranks by the classifier of hats."""
    hats = attribute_condition(pipeline, {"hat": True})
    return replace(hats, probability=lambda z: torch.zeros(len(z)), threshold=0.5)


def test_where_none_is_accepted_the_best_scoring_are_kept(pipeline: Pipeline) -> None:
    """The best of all draws by the classifier's logits, which still differ where every probability is 0."""
    condition = never(pipeline)
    drawn = accepted_draws(pipeline, condition, 4, Draws(), max_draws=600, keep_best=True)
    assert (drawn.num_accepted, drawn.num_drawn) == (0, 600)
    logits = condition.score(pipeline.sample_z(range(600), seed=0))
    assert drawn.numbers == logits.argsort(descending=True)[:4].tolist()
    torch.testing.assert_close(condition.score(Draws().z(pipeline, drawn.numbers)), logits[drawn.numbers])


def test_a_condition_by_a_weak_attribute_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "weak"))
    stored = folder / "attributes" / "attributes.json"
    stored.write_text(stored.read_text().replace("0.9,", "0.39,"))
    weak = Pipeline(bundle=open_bundle(str(folder)))
    assert "AUROC 0.39" in (attribute_condition(weak, {"smiling": True}).doubts or "")
    assert attribute_condition(weak, {"glasses": True}).doubts is None


def test_what_cannot_be_learned_from(pipeline: Pipeline, faces: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 2"):
        few_shot_condition(pipeline, faces / "sub", unlike=None, unlabelled=None, seed=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no images or codes found"):
        few_shot_condition(pipeline, tmp_path / "empty", unlike=None, unlabelled=None, seed=0)
    with pytest.raises(UsageError, match="no attribute named"):
        attribute_condition(pipeline, {"beard": True})


def test_images_and_codes_may_be_mixed(pipeline: Pipeline, faces: Path) -> None:
    z = folder_codes(pipeline, faces).z
    code = pipeline.encode(pipeline.load_images([faces / "a.png"]))
    code.save([faces / "f.safetensors"])
    both = folder_codes(pipeline, faces).z
    assert z.shape == (5, 8) and both.shape == (6, 8)
    assert torch.equal(both[-2], code.z[0])  # a, b, c, d, f, sub/e
