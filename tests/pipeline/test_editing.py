"""Edits that are read again: the least that holds, what rules what out, and true counterfactuals."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli import open_pipeline
from rdm_cli.codes.code import CodeInfo, Codes
from rdm_cli.data.avatars import draw_avatar, render
from rdm_cli.data.counterfactuals import counterfactuals
from rdm_cli.errors import UsageError
from rdm_cli.methods.directions import Directions
from rdm_cli.methods.transport import Transport, Transports
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.pipeline.editing import EDITORS, Edited, rest_kept, set_attributes, untold

NAMES = ("glasses", "sunglasses", "smiling")


def bundle(
    *,
    exclusive: dict[str, tuple[str, ...]] | None = None,
    hidden: dict[str, tuple[str, ...]] | None = None,
) -> Any:
    """Codes of three numbers, each of which says whether an attribute is there: above 0 it is."""
    ones = torch.ones(3)
    directions = Directions(
        names=NAMES, weight=torch.eye(3), bias=torch.zeros(3), z_mean=torch.zeros(3), z_std=ones
    )
    maps = {
        (name, value): Transport(
            mean_from=torch.zeros(3),
            mean_to=torch.eye(3)[k] * (4 if value else -4),
            vectors=torch.zeros(1, 3),
            gains=ones[:1],
        )
        for k, name in enumerate(NAMES)
        for value in (True, False)
    }
    return SimpleNamespace(
        directions=directions,
        transports=Transports(maps=maps, exclusive=exclusive or {}, hidden=hidden or {}),
        z_width=3,
    )


def edited(z: list[list[float]], wanted: dict[str, bool], *, shows: float = 1.0, **how: Any) -> Edited:
    """An edit in a world in which a picture shows each attribute less clearly by 1 - ``shows``."""
    start = torch.tensor(z)
    info = CodeInfo(method="diffae", bundle="b", bundle_digest="0", image_size=1)
    codes = Codes(z=start, x_T=None, infos=(info,) * len(z))

    def decode(some: Codes) -> Tensor:
        return some.z[:, :, None, None]

    def read(pictures: Tensor, _: Codes) -> Tensor:
        return pictures.flatten(1) - (1 - shows)

    return set_attributes(
        how.pop("bundle", bundle()), codes, wanted, decode=decode, draft=decode, read=read, **how
    )


def test_what_is_there_already_stays_and_the_rest_is_moved() -> None:
    found = edited([[-2.0, -1.0, 1.0], [3.0, -1.0, 1.0]], {"glasses": True})
    torch.testing.assert_close(found.codes.z, torch.tensor([[2.0, -1.0, 1.0], [3.0, -1.0, 1.0]]))
    assert found.amount.tolist() == [1.0, 0.0] and found.holds.all() and found.kept.all()
    assert found.before[0, 0] < 0.5 < found.after[0, 0]
    torch.testing.assert_close(found.before[0, 1:], found.after[0, 1:])


def test_the_least_that_holds_is_kept() -> None:
    """A picture shows 0.6 less than its code says: from -3.5 the whole way, 4, is too short; 5 is enough.

    A third round would show no glasses, so the second one's is taken; from -0.1 the first's, which is clear.
    """
    found = edited([[-0.1, -1.0, 1.5], [-3.5, -1.0, 1.5], [-9.0, -1.0, 1.5]], {"glasses": True}, shows=0.4)
    assert found.amount.tolist()[:2] == [1.0, 1.25]
    assert found.holds.tolist() == [True, True, False]  # twice the way is not enough from -9
    torch.testing.assert_close(found.codes.z[:, 0], torch.tensor([3.3, 0.3, -1.6]))
    assert found.amount[2] == 2.0


def test_what_an_attribute_rules_out_goes_first() -> None:
    exclusive = {"glasses": ("sunglasses",), "sunglasses": ("glasses",), "smiling": ()}
    found = edited([[-2.0, 1.0, 1.0]], {"glasses": True}, bundle=bundle(exclusive=exclusive))
    torch.testing.assert_close(found.codes.z, torch.tensor([[2.0, -3.0, 1.0]]))
    assert found.holds.all() and found.kept.all()
    with pytest.raises(UsageError, match="no image shows"):
        edited([[0.0, 0.0, 0.0]], {"glasses": True, "sunglasses": True}, bundle=bundle(exclusive=exclusive))


def test_what_is_done_for_it_is_told() -> None:
    """How far z was moved, how often a picture was decoded, and which verdicts were watched."""
    found = edited([[-3.5, -1.0, 1.0], [3.0, -1.0, 1.0]], {"glasses": True}, shows=0.4)
    torch.testing.assert_close(
        found.distance, torch.tensor([[3.8, 1.2, 1.2], [0.0, 0.0, 0.0]]).square().mean(dim=1).sqrt()
    )
    assert found.num_decodes.tolist() == [18, 2]  # twice unedited; eight rounds each by 1 and by 1.25
    torch.testing.assert_close(found.start[0].flatten(), torch.tensor([-3.5, -1.0, 1.0]))
    assert found.watched == ("sunglasses", "smiling")


def test_a_verdict_that_was_none_cannot_change() -> None:
    """By then nobody smiles in either picture: of the one it was sure, of the other it was not."""
    found = edited([[-2.0, -1.0, 1.2], [-2.0, -1.0, 0.9]], {"glasses": True}, shows=-0.3)
    assert (found.after[:, 2] < 0.5).all() and found.holds.tolist() == [True, True]
    assert found.kept.tolist() == [False, True]
    assert found.changed.tolist() == [[False, False, True], [False, False, False]]


def test_attributes_are_borrowed_from_one_image() -> None:
    """The donor's glasses are at 9, and 4 are taken off it to see what they are: 4 come, whatever z is."""
    one = bundle()
    like = torch.tensor([[9.0, -1.0, 1.0]])
    found = edited([[-2.0, -1.0, 1.0], [3.5, -1.0, 1.0]], {"glasses": True}, bundle=one, like=like)
    torch.testing.assert_close(
        found.codes.z[:, 0], torch.tensor([2.0, 3.5])
    )  # 3.5 - 4 + 4: its own went first
    assert found.amount.tolist() == [1.0, 1.0]


def test_a_donor_is_found_where_each_attribute_has_moments_of_its_own() -> None:
    """As after ``rdm attributes import``: z_mean and z_std are (K, d) then."""
    one = bundle()
    one.directions = replace(one.directions, z_mean=torch.zeros(3, 3), z_std=torch.ones(3, 3))
    like = torch.tensor([[9.0, -1.0, 1.0]])
    found = edited([[-2.0, -1.0, 1.0]], {"glasses": True}, bundle=one, like=like)
    torch.testing.assert_close(found.codes.z[:, 0], torch.tensor([2.0]))


def test_what_did_not_change_is_the_image_itself() -> None:
    """Pixels that a move changes by little go back to the image's; around a real change the new ones stay."""
    image = torch.zeros(1, 3, 64, 64)
    unedited = image + 0.3  # the noise of a draft is no change
    made = unedited + 0.05
    made[..., :20, :20] = 1.0
    found = rest_kept(made, unedited, image)
    assert (found[..., :18, :18] == 1.0).all() and (found[..., 22:, :] == 0).all()
    assert ((found >= 0) & (found <= 1)).all()


def test_what_cannot_stay_is_not_watched() -> None:
    one = bundle(exclusive={"glasses": ("sunglasses",)}, hidden={"glasses": ("smiling",)})
    assert untold(one, {"glasses": True}) == {"glasses", "sunglasses", "smiling"}
    assert untold(one, {"glasses": False}) == {"glasses", "smiling"}  # sunglasses need not come
    found = edited([[-2.0, -1.0, 1.0]], {"glasses": True}, bundle=one, keep=["smiling"])
    assert found.watched == ()


def test_unknown_names_are_told() -> None:
    with pytest.raises(UsageError, match="no attribute named 'hat'"):
        edited([[0.0, 0.0, 0.0]], {"hat": True})
    with pytest.raises(UsageError, match="did you mean 'target'"):
        edited([[0.0, 0.0, 0.0]], {"glasses": True}, editor="targets")


@pytest.mark.parametrize("editor", EDITORS)
def test_drawn_faces_take_their_glasses_off(editor: str) -> None:
    """The picture is nearer to the true face without glasses than the one with them is, and they are gone."""
    pipeline = open_pipeline("avatars64-diffae")
    faces = [draw_avatar(77, i) for i in range(40)]
    faces = [face for face in faces if face.labels()["glasses"]][1:4]
    x_0 = pipeline.load_images([render(face, 64) for face in faces])
    true = pipeline.load_images([render(counterfactuals(face, "glasses")[0], 64) for face in faces])
    found = pipeline.edit(x_0, {"glasses": False}, editor=editor)
    assert found.holds.all()
    gain = {"auto": 7.0, "transport": 7.0, "donor": 7.0, "abduct": 5.0, "target": 3.0, "direction": 4.0}[
        editor
    ]
    assert float((psnr(found.pictures, true) - psnr(x_0, true)).mean()) > gain
    assert found.codes.infos[0].edits == ("glasses=no",)
    assert float(psnr(pipeline.decode(found.codes), found.pictures).min()) > 60
