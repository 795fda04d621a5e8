"""Optimal transport between the Gaussians of two classes: closed forms, and what it leaves alone."""

from __future__ import annotations

import torch
from torch import Tensor

from rdm_cli.methods.transport import Transport, Transports, exclusive, fit_transport, fit_transports, hidden


def drawn(num: int, std: Tensor, mean: Tensor, seed: int) -> Tensor:
    gen = torch.Generator().manual_seed(seed)
    return mean + std * torch.randn(num, len(std), generator=gen, dtype=torch.float64)


def test_between_diagonal_gaussians_each_value_is_scaled() -> None:
    """Of commuting covariances A is the square root of their quotient."""
    before, after = torch.tensor([1.0, 2.0, 3.0, 0.5]), torch.tensor([1.0, 0.5, 3.0, 2.0])
    shift = torch.tensor([0.0, 1.0, -2.0, 3.0])
    transport = fit_transport(
        drawn(200_000, before, torch.zeros(4), 0), drawn(200_000, after, shift, 1), rank=4
    )
    assert transport is not None
    z = torch.tensor([[1.0, 1.0, 1.0, 1.0], [-2.0, 0.0, 3.0, 5.0]])
    torch.testing.assert_close(transport.moved(z), z * after / before + shift, rtol=0.03, atol=0.03)
    torch.testing.assert_close(transport.moved(z, 0.0), z)
    half = transport.moved(z, torch.tensor([0.5, 1.0]))
    torch.testing.assert_close(half[0], (z[0] + transport.moved(z)[0]) / 2)
    torch.testing.assert_close(half[1], transport.moved(z)[1])


def test_moved_codes_have_the_moments_of_the_target() -> None:
    gen = torch.Generator().manual_seed(2)
    mixes = torch.randn(2, 5, 5, generator=gen, dtype=torch.float64)
    source = torch.randn(50_000, 5, generator=gen, dtype=torch.float64) @ mixes[0]
    target = torch.randn(50_000, 5, generator=gen, dtype=torch.float64) @ mixes[1] + 2
    transport = fit_transport(source, target, rank=5)
    assert transport is not None
    moved = transport.moved(source)
    torch.testing.assert_close(moved.mean(dim=0), target.mean(dim=0), rtol=0, atol=0.02)
    torch.testing.assert_close(torch.cov(moved.T), torch.cov(target.T), rtol=0.02, atol=0.1)


def test_what_only_one_side_has_goes_and_the_rest_stays() -> None:
    """Glasses of many colours: their colour is gone with them, as a mean direction cannot do it."""
    gen = torch.Generator().manual_seed(3)
    base = torch.randn(20_000, 6, generator=gen)
    colour = torch.randn(20_000, 1, generator=gen) * torch.tensor([0.0, 0.0, 0.0, 0.0, 3.0, 0.0]) + 4
    base[:, 4:] *= 0.1
    has = torch.arange(20_000) % 2 == 0
    z = torch.where(has[:, None], base + colour * torch.tensor([0, 0, 0, 0, 1.0, 1.0]), base)
    removal = fit_transports(z, has[:, None].float(), ["glasses"]).maps["glasses", False]
    back = removal.moved(z[has])
    assert float((back - base[has]).square().mean()) < 0.05
    direction = z[has] + z[~has].mean(dim=0) - z[has].mean(dim=0)
    assert float((direction - base[has]).square().mean()) > 1
    torch.testing.assert_close(back[:, :4], base[has][:, :4], rtol=0, atol=0.3)


def test_attributes_that_never_come_together() -> None:
    gen = torch.Generator().manual_seed(4)
    kind = torch.randint(0, 3, (2000,), generator=gen)
    labels = torch.stack([kind == 0, kind == 1, torch.rand(2000, generator=gen) < 0.5], dim=1).float()
    labels[:100, 2] = torch.nan
    names = ["glasses", "sunglasses", "smiling"]
    assert exclusive(labels, names) == {"glasses": ("sunglasses",), "sunglasses": ("glasses",), "smiling": ()}
    rare = torch.zeros(2000, 2)
    rare[:30, 0] = rare[40:70, 1] = 1  # chance would have them together once in two draws
    assert exclusive(rare, ["a", "b"]) == {"a": (), "b": ()}


def test_what_an_attribute_hides() -> None:
    labels = torch.zeros(100, 2)
    labels[:40, 0] = 1
    labels[:40, 1] = torch.nan
    assert hidden(labels, ["hat", "bald"]) == {"hat": ("bald",), "bald": ()}
    labels[0, 1] = 1.0
    assert hidden(labels, ["hat", "bald"]) == {"hat": (), "bald": ()}


def test_too_few_codes_give_no_transport() -> None:
    gen = torch.Generator().manual_seed(5)
    z = torch.randn(100, 40, generator=gen)
    assert fit_transport(z[:50], z[50:]) is None
    assert fit_transports(z, (torch.arange(100) % 2 == 0)[:, None].float(), ["a"]).maps == {}
    assert fit_transport(torch.randn(80, 40, generator=gen), torch.randn(80, 40, generator=gen)) is not None


def test_shapes_are_checked() -> None:
    try:
        Transport(
            mean_from=torch.zeros(3), mean_to=torch.zeros(2), vectors=torch.zeros(1, 3), gains=torch.ones(1)
        )
    except ValueError as error:
        assert "vectors (k, d)" in str(error)
    else:
        raise AssertionError("a transport of two widths")


def test_some_are_chosen_and_renamed_with_what_they_exclude_and_hide() -> None:
    one = Transport(
        mean_from=torch.zeros(2), mean_to=torch.ones(2), vectors=torch.eye(2)[:1], gains=torch.ones(1)
    )
    all_of_them = Transports(
        maps={("hat", True): one, ("scarf", True): one},
        exclusive={"hat": ("scarf", "hood"), "scarf": ("hat",)},
        hidden={"hat": ("bald",)},
    )
    chosen = all_of_them.select({"hat": "cap", "hood": "hood"})
    assert list(chosen.maps) == [("cap", True)]
    assert chosen.exclusive == {"cap": ("hood",)} and chosen.hidden == {"cap": ("bald",)}
