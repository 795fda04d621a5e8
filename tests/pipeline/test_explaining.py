"""Counterfactual pictures: the nearest known attribute, pairs, free moves, and what cannot be flipped."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli import open_pipeline
from rdm_cli.classifiers.opening import open_classifier
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.domain import Domain
from rdm_cli.methods.transport import Transport, Transports
from rdm_cli.pipeline import explaining
from rdm_cli.pipeline.editing import Canvas
from rdm_cli.pipeline.explaining import Explanation, explain

NAMES = ("glasses", "hat", "smiling")
LENGTHS = (4.0, 6.0, 4.0)  # of the way from without to with


class World(SimpleNamespace):
    """A bundle whose codes are three numbers, above 0 where an attribute is there; a picture shows z."""

    @property
    def prior(self) -> Any:
        raise BundleError("it has none")


def world(*names: str, **more: Any) -> Any:
    rows = [NAMES.index(name) for name in names]
    directions = Directions(
        names=names,
        weight=torch.eye(3)[rows] * 3,
        bias=torch.zeros(len(rows)),
        z_mean=torch.zeros(3),
        z_std=torch.ones(3),
    )
    maps = {
        (name, value): Transport(
            mean_from=torch.zeros(3),
            mean_to=torch.eye(3)[k] * (LENGTHS[k] if value else -LENGTHS[k]),
            vectors=torch.zeros(1, 3),
            gains=torch.ones(1),
        )
        for name, k in zip(names, rows, strict=True)
        for value in (True, False)
    }
    told = {"domain": None, "concepts": None, "parts": (), "z_width": 3}
    return World(directions=directions, transports=Transports(maps=maps), **(told | more))


def explained(z: list[list[float]], model: Any, bundle: Any = None, **how: Any) -> list[Explanation]:
    start = torch.tensor(z)
    info = CodeInfo(method="diffae", bundle="b", bundle_digest="0", image_size=1)
    codes = Codes(z=start, x_T=None, infos=(info,) * len(z))

    def decode(some: Codes) -> Tensor:
        return some.z[:, :, None, None]

    canvas = Canvas.of(
        codes,
        decode(codes),
        decode=decode,
        draft=decode,
        read=lambda pictures, _: pictures.flatten(1),
        trace=lambda values, _: values[:, :, None, None],
    )
    bundle = world(*NAMES) if bundle is None else bundle
    classifier = open_classifier(model, image_size=1, outputs=how.pop("outputs", "sigmoid"))
    return explain(bundle, canvas, classifier, **how)


def channel(k: int) -> Any:
    return lambda x: 3 * x[:, k].flatten()


def test_the_attribute_that_the_model_looks_at_is_set_and_nothing_else() -> None:
    z = [[-2.0, 2.0, -2.0], [2.0, -2.0, 2.0]]
    for start, one in zip(z, explained(z, channel(2)), strict=True):
        (answer,) = one.answers
        has = start[2] > 0
        assert (one.flipped, one.verdict, answer.moves) == (True, has, {"smiling": not has})
        assert answer.score > 0.9 if not has else answer.score < 0.1
        assert answer.z[:2].tolist() == start[:2] and answer.changed == ("smiling",) and answer.kept
        assert (answer.before["smiling"] > 0.5) == has and (answer.after["smiling"] > 0.5) != has
        assert answer.z_distance == pytest.approx(4 / 3**0.5)


def test_of_two_attributes_the_nearer_one_is_changed() -> None:
    def either(x: Tensor) -> Tensor:
        return 3 * x[:, [1, 2]].amax(dim=(1, 2, 3))

    near, further = explained([[-2.0, -2.0, -2.0]], either, num_answers=2)[0].answers
    assert near.moves == {"smiling": True} and further.moves == {"hat": True}
    assert near.z_distance < further.z_distance


def test_a_free_answer_is_another_one_than_those_that_attributes_gave() -> None:
    def either(x: Tensor) -> Tensor:
        return 3 * x[:, [1, 2]].amax(dim=(1, 2, 3))

    by_hat, freely = explained([[-2.0, -2.0, -1.0]], either, world("hat"), num_answers=2)[0].answers
    assert by_hat.moves == {"hat": True} and freely.moves == {}
    assert freely.changed == () and freely.z[2] > 0 > by_hat.z[2]


def test_two_attributes_are_changed_where_one_does_not_do() -> None:
    def both(x: Tensor) -> Tensor:
        return 3 * (x[:, 0].clamp(max=2) + x[:, 2].clamp(max=2)).flatten() - 6

    (answer,) = explained([[-2.0, -2.0, -2.0]], both)[0].answers
    assert answer.moves == {"glasses": True, "smiling": True} and answer.score > 0.9


def test_what_no_attribute_says_is_found_freely_and_no_further_than_is_needed() -> None:
    (one,) = explained([[2.0, -2.0, -0.5]], channel(2), world("glasses", "hat"))
    (answer,) = one.answers
    assert answer.moves == {} and answer.score > 0.9
    assert answer.score < 0.97  # log-odds of 2.2 are asked for, and the way is halved until it just does
    assert answer.changed == () and (answer.z[:2] - torch.tensor([2.0, -2.0])).abs().max() < 0.8


class Channel(torch.nn.Module):
    """Looks at the last channel alone."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x[:, 2].flatten()


def test_gradients_lead_free_moves_straight_to_the_goal() -> None:
    (one,) = explained([[2.0, -2.0, -0.5]], Channel(), world("glasses", "hat"), gradients=True)
    (answer,) = one.answers
    assert answer.score > 0.9 and torch.equal(answer.z[:2], torch.tensor([2.0, -2.0]))
    (blind,) = explained([[2.0, -2.0, -0.5]], Channel(), world("glasses", "hat"))
    assert one.num_decodes < blind.num_decodes
    with pytest.raises(UsageError, match="gradients: <lambda> is asked from outside, and has none"):
        explained([[2.0, -2.0, -0.5]], channel(2), gradients=True)


def test_pictures_through_which_gradients_flow_are_those_that_are_decoded(tiny_bundle: Any) -> None:
    pipe = open_pipeline(tiny_bundle)
    codes = pipe.sample(2).without_x_T()
    z = codes.z.clone().requires_grad_()
    traced = pipe.traced(z, codes)
    torch.testing.assert_close(traced, pipe.decode(codes, keys=[0, 0]), atol=1e-4, rtol=1e-3)
    (gradient,) = torch.autograd.grad(traced.sum(), z)
    assert bool(gradient.isfinite().all()) and bool((gradient != 0).any())


def test_free_moves_stay_among_codes_that_there_are() -> None:
    domain = Domain(mean=torch.zeros(3), whitening=torch.eye(3), limit=2.0)
    (one,) = explained([[0.1, 0.1, -0.5]], channel(2), world("hat", domain=domain), target=0.999)
    assert not one.flipped and one.miss is not None
    assert one.miss.z.norm() < 2.05 and one.miss.score > one.score
    (other,) = explained([[0.1, 0.1, -0.5]], channel(2), world("hat", domain=domain), target=0.9)
    assert other.flipped and not other.answers[0].outside


def test_a_bundle_without_attributes_is_searched_freely() -> None:
    class Bare(World):
        @property
        def directions(self) -> Any:
            raise BundleError("it has none")

    bare = Bare(transports=Transports(), domain=None, concepts=None, parts=(), z_width=3)
    (one,) = explained([[0.5, 0.5, -0.5]], channel(0), bare)
    (answer,) = one.answers
    assert answer.score < 0.1 and answer.before == {} and answer.changed == ()


def test_what_cannot_be_flipped_has_no_answer() -> None:
    (one,) = explained([[2.0, 2.0, 2.0]], lambda x: torch.full((len(x),), 3.0))
    assert not one.flipped and one.answers == () and one.score == pytest.approx(0.9526, abs=1e-3)
    assert one.num_decodes > 10


def test_the_class_in_question_is_the_one_that_the_model_names_or_that_was_asked_about() -> None:
    def three(x: Tensor) -> Tensor:
        return 3 * x.flatten(1)

    (one,) = explained([[2.0, -2.0, -2.0]], three, outputs="softmax")
    assert (one.class_name, one.verdict, one.target) == ("0", True, pytest.approx(0.1))
    assert one.answers[0].score <= 0.1
    (other,) = explained([[2.0, -2.0, -2.0]], three, outputs="softmax", class_name="2")
    assert (other.class_name, other.verdict) == ("2", False) and other.answers[0].score >= 0.9


def test_a_class_that_is_likeliest_at_less_than_a_half_is_flipped_by_another_verdict() -> None:
    def four(x: Tensor) -> Tensor:
        return torch.cat([x.flatten(1) / 4, torch.zeros(len(x), 1)], dim=1)

    (one,) = explained([[2.0, 1.8, -2.0]], four, outputs="softmax", target=0.6)
    assert one.verdict and one.score < 0.4  # which is less than the target of 0.6 for the others already
    assert one.flipped
    after = four(one.answers[0].picture[None])
    assert int(after.argmax()) != 0


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"target": 1.0}, "target 1: a probability from 0.5"),
        ({"target": 0.4}, "a probability from 0.5"),
        ({"class_name": "x"}, "there is no class 'x'"),
        ({}, "say which one is asked about; class_name 0"),
    ],
)
def test_questions_that_cannot_be_asked(how: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        explained([[2.0, 2.0, 2.0]], lambda x: 3 * x.flatten(1), **how)


def test_a_pipeline_explains_images_of_every_kind(
    tiny_bundle: Any, faces: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random network's pictures are no faces; what is said of them has to be true all the same."""
    fewer = {"MOST_PROBES": 8, "GENERATIONS": 2, "ROUNDS": 1, "HALVINGS": 2, "MOST_TRIES": 1}
    for constant, few in fewer.items():
        monkeypatch.setattr(explaining, constant, few)
    pipe = open_pipeline(tiny_bundle)

    def redness(x: Tensor) -> Tensor:
        return 20 * (x[:, 0] - x[:, 2]).mean(dim=(1, 2))

    found = pipe.explain(faces, redness, labels=["red"], target=0.6)
    x_0 = pipe.load_images(faces)
    assert len(found) == len(x_0)
    for one, image in zip(found, x_0, strict=True):
        torch.testing.assert_close(one.image, image)
        assert one.class_name == "red" and one.verdict == bool(redness(image[None]) > 0)
        for answer in one.answers:
            score = float(redness(answer.picture[None]).sigmoid())
            assert answer.score == pytest.approx(score, abs=1e-4)
            assert (score <= 0.4) if one.verdict else (score >= 0.6)
    with pytest.raises(ValueError, match="at least one answer"):
        pipe.explain(faces, redness, answers=0)
