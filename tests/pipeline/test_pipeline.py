"""The promises of design.md: same batch size, same bytes; shards; batch sizes; keyed randomness."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import rdm_cli
from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.bundles.places import assets_folder
from rdm_cli.codes.code import Codes
from rdm_cli.data.images.pixels import to_pixels
from rdm_cli.errors import CodeError, ImageError, RdmError, UsageError
from rdm_cli.kernels.spec import Sampling
from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline

NUM = 7


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> Pipeline:
    return Pipeline(bundle=open_bundle(str(tiny_bundle)), batch_size=3)


@pytest.fixture(scope="module")
def x_0() -> Tensor:
    corners = torch.rand(NUM, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(corners, size=16, mode="bilinear")


@pytest.fixture(scope="module")
def codes(pipeline: Pipeline, x_0: Tensor) -> Codes:
    return pipeline.encode(x_0)


@pytest.fixture(scope="module")
def decoded(pipeline: Pipeline, codes: Codes) -> Tensor:
    return pipeline.decode(codes)


def same(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None and expected is not None
    assert torch.equal(actual, expected)


def test_the_same_twice(pipeline: Pipeline, x_0: Tensor, codes: Codes, decoded: Tensor) -> None:
    again = pipeline.encode(x_0)
    same(again.z, codes.z)
    same(again.x_T, codes.x_T)
    same(pipeline.decode(codes), decoded)


@pytest.mark.parametrize("part", [slice(1, 6), slice(2, 4), slice(6, 7)])
def test_a_shard_is_its_part_of_the_whole(
    pipeline: Pipeline, x_0: Tensor, codes: Codes, decoded: Tensor, part: slice
) -> None:
    """Bit for bit, at offsets that are no multiples of the batch size, with short last batches."""
    assert codes.x_T is not None
    shard = pipeline.encode(x_0[part])
    same(shard.z, codes.z[part])
    same(shard.x_T, codes.x_T[part])
    chosen = Codes(z=codes.z[part], x_T=codes.x_T[part], infos=codes.infos[part])
    same(pipeline.decode(chosen), decoded[part])


@pytest.mark.parametrize("batch_size", [1, 2, 8, None])
def test_batch_size_changes_rounding_alone(
    pipeline: Pipeline, x_0: Tensor, codes: Codes, decoded: Tensor, batch_size: int | None
) -> None:
    other = replace(pipeline, batch_size=batch_size)
    again = other.encode(x_0)
    assert codes.x_T is not None and again.x_T is not None
    for ours, theirs in ((again.z, codes.z), (again.x_T, codes.x_T)):
        assert (ours - theirs).norm() <= 1e-5 * theirs.norm()
    levels = (to_pixels(other.decode(codes)).int() - to_pixels(decoded).int()).abs()
    assert (levels <= 1).float().mean() >= 0.999


def test_batch_size_changes_rounding_alone_where_a_model_diffuses_latents() -> None:
    """A first stage's rounding, which differs by batch size, would come out fifty times as large in x_T."""
    one, all_four = (open_pipeline("avatars128-lrdm", device="cpu", batch_size=size) for size in (1, 4))
    x_0 = one.load_images(sorted((assets_folder() / "faces").glob("*.png"))[:4])
    codes, others = (pipeline.encode(x_0, steps=5) for pipeline in (one, all_four))
    assert codes.x_T is not None and others.x_T is not None
    for ours, theirs in ((codes.z, others.z), (codes.x_T, others.x_T)):
        differences = (ours - theirs).flatten(1).norm(dim=1) / theirs.flatten(1).norm(dim=1)
        assert differences.max() <= 1e-5
    network: Any = all_four.network  # its first stage sees an image at a time, whatever the batch size
    whole, seen = network.enter, []
    network.enter = lambda x: seen.append(len(x)) or whole(x)
    with torch.no_grad():
        all_four.enter(x_0)
    assert seen == [1, 1, 1, 1]


def test_codes_carry_how_they_were_made(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> None:
    assert codes.infos == (pipeline.info(steps=5),) * NUM
    assert pipeline.encode(x_0[:1], steps=2).infos[0].steps == 2
    z_alone = pipeline.encode(x_0, with_x_T=False)
    assert z_alone.x_T is None and z_alone.infos[0].steps is None
    same(z_alone.z, codes.z)


def test_z_and_x_T_both_matter(pipeline: Pipeline, codes: Codes, decoded: Tensor) -> None:
    """Otherwise the other tests of this file would hold nothing."""
    assert codes.x_T is not None
    rolled = codes.replace(z=codes.z.roll(1, 0)), codes.replace(x_T=codes.x_T.roll(1, 0))
    for other in rolled:
        assert (pipeline.decode(other) - decoded).abs().mean() > 0.02


def test_decode_follows_the_recorded_steps(pipeline: Pipeline, codes: Codes, decoded: Tensor) -> None:
    infos = [replace(info, steps=2 if i % 2 else 3) for i, info in enumerate(codes.infos)]
    mixed = codes.replace(infos=tuple(infos))
    x_0 = pipeline.decode(mixed)
    for steps, rows in ((3, slice(0, None, 2)), (2, slice(1, None, 2))):
        same(x_0[rows], pipeline.decode(codes, steps=steps)[rows])
        assert not torch.equal(x_0[rows], decoded[rows])
    same(pipeline.decode(mixed, steps=5), decoded)
    without = codes.replace(infos=tuple(replace(i, steps=None) for i in codes.infos))
    same(pipeline.decode(without), decoded)


def test_progress_adds_up_to_the_images(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> None:
    told: list[float] = []
    pipeline.encode(x_0, advance=told.append)
    assert sum(told) == pytest.approx(NUM)
    told.clear()
    pipeline.decode(codes, advance=told.append)
    assert sum(told) == pytest.approx(NUM)


def test_samples_are_keyed_by_seed_and_number(pipeline: Pipeline) -> None:
    many, one = pipeline.sample(8, seed=1), pipeline.sample(1, seed=1, first=3)
    same(one.x_T, many[3].x_T)
    same(one.z, many[3].z)
    other = pipeline.sample(8, seed=2)
    assert many.x_T is not None and other.x_T is not None
    assert len({row.numpy().tobytes() for row in (*many.x_T, *other.x_T)}) == 16
    assert len({row.numpy().tobytes() for row in (*many.z, *other.z)}) == 16
    free = replace(pipeline, batch_size=None).sample(8, seed=1)
    same(free.x_T, many.x_T)
    torch.testing.assert_close(free.z, many.z, rtol=1e-5, atol=1e-5)


def test_noise_is_keyed_by_name(pipeline: Pipeline, codes: Codes) -> None:
    bare = codes.replace(x_T=None)
    names = [f"image {i}" for i in range(NUM)]
    pictures = pipeline.decode(bare, seed=4, keys=names)
    same(pipeline.decode(bare[5], seed=4, keys=names[5:6]), pictures[5:6])
    assert not torch.equal(pipeline.decode(bare[5], seed=5, keys=names[5:6]), pictures[5:6])
    assert not torch.equal(pipeline.decode(bare[5], seed=4, keys=["other"]), pictures[5:6])


def test_codes_of_others_are_refused(pipeline: Pipeline, codes: Codes) -> None:
    assert codes.x_T is not None
    foreign = codes.replace(
        infos=tuple(replace(i, bundle="other", bundle_digest="0" * 64) for i in codes.infos)
    )
    uses = (
        lambda c: pipeline.decode(c),
        lambda c: pipeline.manipulate(c, {"hat": 1.0}),
        lambda c: pipeline.interpolate(c[0], codes[0], [0.0]),
        lambda c: pipeline.interpolate(codes[0], c[0], [0.0]),
    )
    for use in uses:
        with pytest.raises(CodeError, match="made with bundle other"):
            use(foreign)
    with pytest.raises(CodeError, match="z has the shape"):
        pipeline.decode(codes.replace(z=codes.z[:, :5]))
    with pytest.raises(CodeError, match="x_T has the shape"):
        pipeline.decode(codes.replace(x_T=codes.x_T[..., :8]))
    for steps in (0, -1, 1001):
        with pytest.raises(CodeError, match=f"records {steps} steps"):
            pipeline.decode(codes.replace(infos=tuple(replace(i, steps=steps) for i in codes.infos)))


def test_interpolation_ends_at_the_reconstructions(pipeline: Pipeline, codes: Codes, decoded: Tensor) -> None:
    path = pipeline.interpolate(codes[0], codes[1], [0.0, 0.5, 1.0])
    assert path.infos[0].source is None and path.infos[0].steps == 5
    pictures = pipeline.decode(path)
    # the same batch size, so the same bits: the ends of lerp and slerp are exact
    same(pictures[[0, 2]], decoded[:2])
    assert (pictures[1] - pictures[0]).abs().max() > 0.01


def test_equal_inputs_interpolate_to_themselves(pipeline: Pipeline, codes: Codes) -> None:
    path = pipeline.interpolate(codes[0], codes[0], [0.0, 0.25, 0.5, 1.0])
    assert path.x_T is not None and codes.x_T is not None
    assert torch.isfinite(path.z).all() and torch.isfinite(path.x_T).all()
    torch.testing.assert_close(path.x_T, codes.x_T[:1].expand_as(path.x_T), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(path.z, codes.z[:1].expand_as(path.z), rtol=1e-6, atol=1e-6)
    assert torch.isfinite(pipeline.decode(path)).all()


def test_interpolation_takes_codes_of_one_kind(pipeline: Pipeline, codes: Codes) -> None:
    bare = codes.replace(x_T=None)
    with pytest.raises(CodeError, match="x_T"):
        pipeline.interpolate(codes[0], bare[0], [0.5])
    assert pipeline.interpolate(bare[0], bare[1], [0.5]).x_T is None
    with pytest.raises(ValueError, match="one code at each end"):
        pipeline.interpolate(codes, codes, [0.5])


def test_manipulation(pipeline: Pipeline, codes: Codes) -> None:
    """z' = denorm(norm(z) + scale sqrt(d) w / ||w||), and back again."""
    still = pipeline.manipulate(codes, {"smiling": 0.0})
    torch.testing.assert_close(still.z, codes.z, rtol=1e-6, atol=1e-6)
    same(still.x_T, codes.x_T)
    moved = pipeline.manipulate(codes, {"smiling": 0.3, "hat": -0.1})
    directions = pipeline.bundle.directions
    w = directions.weight / directions.weight.norm(dim=1, keepdim=True)
    expected = codes.z + (0.3 * w[0] - 0.1 * w[2]) * 8**0.5  # the bundle's z_mean is 0, its z_std 1
    torch.testing.assert_close(moved.z, expected, rtol=1e-5, atol=1e-6)
    assert moved.infos[0].edits == ("smiling:0.3", "hat:-0.1") and moved.infos[0].source_digest is None
    back = pipeline.manipulate(moved, {"smiling": -0.3, "hat": 0.1})
    torch.testing.assert_close(back.z, codes.z, rtol=1e-5, atol=1e-5)
    with pytest.raises(UsageError, match="did you mean 'glasses'"):
        pipeline.manipulate(codes, {"glases": 1.0})


def test_half_of_the_precision_is_near(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> None:
    """bfloat16 keeps 8 bits: z moves by about 1 % and stays float32, as the sampler does."""
    half = replace(pipeline, precision="bf16").encode(x_0[:3])
    assert half.z.dtype == torch.float32 and half.x_T is not None and half.x_T.dtype == torch.float32
    assert (half.z - codes.z[:3]).norm() < 0.05 * codes.z[:3].norm()
    assert half.infos[0].precision == "bf16"


def test_the_python_api_opens_a_bundle(tiny_bundle: Path, faces: Path) -> None:
    pipeline = rdm_cli.open_pipeline(str(tiny_bundle), device="cpu", batch_size=2)
    x_0 = pipeline.load_images([faces / "a.png", faces / "b.png"])
    assert x_0.shape == (2, 3, 16, 16) and x_0.dtype == torch.float32
    assert -1 <= x_0.min() and x_0.max() <= 1
    picture = pipeline.decode(pipeline.encode(x_0))
    assert picture.shape == x_0.shape
    with pytest.raises(RdmError, match="no such bundle"):
        rdm_cli.open_pipeline("nosuch", device="cpu")
    with pytest.raises(UsageError, match="^device nonsense"):
        rdm_cli.open_pipeline(str(tiny_bundle), device="nonsense")
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        rdm_cli.open_pipeline(str(tiny_bundle), device="cpu", precision="fp16")
    with pytest.raises(AttributeError):
        rdm_cli.nosuch  # noqa: B018


def sampled_by(pipeline: Pipeline, **how: Any) -> Pipeline:
    return replace(pipeline, sampler=Sampling(**how))


def test_a_sampler_overrides_what_a_code_records(pipeline: Pipeline, codes: Codes, decoded: Tensor) -> None:
    """The user comes before the record, solver and steps each by itself."""
    by_heun = sampled_by(pipeline, solver="heun").decode(codes)
    assert not torch.equal(by_heun, decoded)
    as_heun = codes.replace(infos=tuple(replace(i, solver="heun", spacing="log-snr") for i in codes.infos))
    same(pipeline.decode(as_heun), by_heun)
    same(sampled_by(pipeline, solver="ddim").decode(as_heun), decoded)  # the other way round
    same(sampled_by(pipeline, solver="ddim").decode(codes), decoded)
    same(sampled_by(pipeline, solver="ddim", steps=3).decode(codes), pipeline.decode(codes, steps=3))
    same(sampled_by(pipeline, solver="ddim", steps=3).decode(codes, steps=5), decoded)
    path = sampled_by(pipeline, solver="heun").trajectory(codes[0], codes[1], [0.0])
    torch.testing.assert_close(path, by_heun[:1], rtol=0, atol=1e-4)


def test_a_code_of_one_way_alone_is_refused_another(pipeline: Pipeline, x_0: Tensor) -> None:
    code = pipeline.encode(x_0[:1], inversion="exact", steps=4)
    picture = pipeline.decode(code)
    same(sampled_by(pipeline, solver="exact").decode(code, steps=4), picture)
    for other in (
        {"solver": "heun"},
        {"solver": "exact", "steps": 5},
        {"solver": "exact", "spacing": "karras"},
    ):
        with pytest.raises(CodeError, match="made by exact in 4 steps, and decodes in no other way"):
            sampled_by(pipeline, **other).decode(code)


def test_whether_a_code_decodes_as_it_was_made_follows_the_way_and_not_the_words(
    pipeline: Pipeline, codes: Codes
) -> None:
    """A lossless code keeps its residual where --solver names the very solver that made it."""
    info = codes.infos[0]
    assert pipeline.decodes_as_made(info, None) and pipeline.decodes_as_made(info, 5)
    assert sampled_by(pipeline, solver="ddim").decodes_as_made(info, None)
    assert not sampled_by(pipeline, solver="heun").decodes_as_made(info, None)
    assert not sampled_by(pipeline, solver="ddim", steps=2).decodes_as_made(info, None)
    assert not pipeline.decodes_as_made(info, 4)
    assert not replace(pipeline, precision="bf16").decodes_as_made(info, None)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, "5"])
def test_steps_that_there_are_not_are_refused_and_0_is_not_the_usual_number(
    pipeline: Pipeline, x_0: Tensor, codes: Codes, steps: Any
) -> None:
    uses = (
        lambda: pipeline.encode(x_0[:1], steps=steps),
        lambda: pipeline.decode(codes[0], steps=steps),
        lambda: pipeline.decode(codes[0].without_x_T(), steps=steps),
        lambda: pipeline.trajectory(codes[0], codes[1], [0.5], steps=steps),
    )
    for use in uses:
        with pytest.raises(UsageError, match=f"steps {steps!r}: (ddim takes 1 to 1000|a whole number)"):
            use()
    if isinstance(steps, int):
        with pytest.raises(UsageError, match=f"prior_steps {steps}: the prior takes 1 to 1000"):
            pipeline.sample(1, prior_steps=steps)
        with pytest.raises(UsageError, match=f"steps {steps}: "):
            sampled_by(pipeline, solver="ddim", steps=steps).decode(codes[0])


def test_steps_of_numpy_are_steps(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> None:
    found = pipeline.encode(x_0[:1], steps=np.int64(5))  # type: ignore[arg-type]
    assert found.infos == codes.infos[:1] and type(found.infos[0].steps) is int


def test_iterations_of_0_are_refused(pipeline: Pipeline, x_0: Tensor) -> None:
    for inversion in ("fixed-point", "exact"):
        with pytest.raises(UsageError, match="iterations 0: the network is asked once at least"):
            pipeline.encode(x_0[:1], inversion=inversion, iterations=0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "floats in .-1, 1., not torch.uint8"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.int64), "floats in .-1, 1., not torch.int64"),
        (torch.full((1, 3, 16, 16), 255.0), "reaches 255: pixels / 127.5 - 1"),
        (torch.full((1, 3, 16, 16), -3.0), "reaches 3: "),
        (torch.full((1, 3, 16, 16), float("nan")), "reaches nan"),
        (torch.full((1, 3, 16, 16), float("inf")), "reaches inf"),
        (torch.zeros(1, 3, 32, 32), r"\(N, 3, 16, 16\) or \(3, 16, 16\), not \(1, 3, 32, 32\)"),
        (torch.zeros(1, 1, 16, 16), r"not \(1, 1, 16, 16\)"),
        (torch.zeros(16, 16), r"not \(16, 16\)"),
        (torch.zeros(0, 3, 16, 16), r"not \(0, 3, 16, 16\)"),
        (np.zeros((1, 3, 16, 16), dtype=np.float32), r"uint8 .*, and not float32 \(1, 3, 16, 16\)"),
    ],
)
def test_what_are_no_images_in_unit_range_are_refused(pipeline: Pipeline, wrong: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        pipeline.encode(wrong)


def test_images_of_any_float_are_the_same_codes(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> None:
    same(pipeline.encode(x_0.double()).x_T, codes.x_T)
    exact_in_half = x_0.bfloat16()
    same(pipeline.encode(exact_in_half).z, pipeline.encode(exact_in_half.float()).z)
    slightly_over = pipeline.encode(x_0 * 1.1)  # as a network may decode
    assert torch.isfinite(slightly_over.z).all()


def test_as_many_classes_and_keys_as_images_and_codes(pipeline: Pipeline, x_0: Tensor, codes: Codes) -> None:
    with pytest.raises(ValueError, match="7 images need as many classes, not 1"):
        pipeline.encode(x_0, classes=[None])
    with pytest.raises(ValueError, match="7 codes need as many keys, not 2"):
        pipeline.decode(codes.without_x_T(), keys=["a", "b"])
    with pytest.raises(ValueError, match="at least one code"):
        pipeline.sample(0)


def test_a_path_alone_is_one_image(pipeline: Pipeline, faces: Path) -> None:
    one = pipeline.load_images([faces / "a.png"])
    for path in (faces / "a.png", str(faces / "a.png"), [str(faces / "a.png")], faces.glob("a.png")):
        same(pipeline.load_images(path), one)
    with pytest.raises(ImageError, match=r"^a\.png: no such file"):
        pipeline.load_images("a.png")
    with pytest.raises(ValueError, match="no image is named"):
        pipeline.load_images([])
    with pytest.raises(ValueError, match="there is no fit 'foo'; known: crop, pad, stretch"):
        pipeline.load_images(faces / "a.png", "foo")  # type: ignore[arg-type]


def test_slices_of_codes_are_codes(pipeline: Pipeline, codes: Codes, decoded: Tensor) -> None:
    same(pipeline.decode(codes[2:5]), decoded[2:5])
    assert len(pipeline.decode(codes[7:])) == 0


def test_equal_seeds_of_all_kinds_are_the_same_samples(pipeline: Pipeline) -> None:
    expected = pipeline.sample(2, seed=1)
    for seed in (np.int64(1), True, torch.tensor(1)):
        found = pipeline.sample(2, seed=seed)  # type: ignore[arg-type]
        same(found.z, expected.z)
        same(found.x_T, expected.x_T)
    for seed in (1.0, "1", None):
        with pytest.raises(ValueError, match="a seed must be an integer"):
            pipeline.sample(2, seed=seed)  # type: ignore[arg-type]


def test_ends_that_hold_different_things_are_not_interpolated(pipeline: Pipeline, x_0: Tensor) -> None:
    """What one end lacks was left out of the whole way, whose ends were then no reconstructions."""
    pair = pipeline.encode(x_0[:2], inversion="exact", steps=4)
    with pytest.raises(CodeError, match="holds a second state or a style that the other has not"):
        pipeline.interpolate(pair[0], pair[1].replace(other=None), [0.5])
    lossless = pair[1].replace(residuals=(b"r",))  # of its own picture alone
    assert pipeline.interpolate(pair[0], lossless, [0.5]).holds == {"x_T", "other"}


def test_a_draw_of_the_prior_has_the_same_bits_alone_and_among_others(tiny_bundle: Path) -> None:
    pipeline = Pipeline(bundle=open_bundle(tiny_bundle))
    z = pipeline.sample_z(range(100), seed=7)
    for num in (4, 5, 65):
        assert torch.equal(pipeline.sample_z(range(num), seed=7), z[:num])
    assert torch.equal(replace(pipeline, batch_size=3).sample_z([70, 3], seed=7), z[[70, 3]])
