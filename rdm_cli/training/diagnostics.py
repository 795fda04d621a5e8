"""Looks into a training run: is z used, and what do its pictures look like?"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rdm_cli.kernels.ddim import ddim_decode, ddim_encode, last
from rdm_cli.kernels.randomness import keyed_generator, keyed_noise
from rdm_cli.methods.conditions import NOTHING, Conditions, of_images

if TYPE_CHECKING:
    from rdm_cli.methods.method import RepresentationModel

DECODED_ROWS = ("reconstruction", "z, another x_T", "z, a third x_T")
TIMESTEPS = (100, 300, 500, 700, 900)


def averaged_copy(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` with ``weights``, for evaluation; the run's own is left alone."""
    twin = copy.deepcopy(model)
    twin.load_state_dict(dict(weights))
    return twin.eval().requires_grad_(False)


@torch.no_grad()
def swapped_z_losses(
    model: RepresentationModel,
    x_0: Tensor,
    timesteps: tuple[int, ...] = TIMESTEPS,
    seed: int = 0,
    given: Conditions = NOTHING,
) -> dict[int, tuple[float, float]]:
    """At each t: (loss with the image's own z, loss with its neighbour's), same noise for both.

    ``x_0`` (B, 3, H, W), B at least 2; ``given`` are the conditions that are given by name. Where the two are
    equal, the decoder does not use z. A model without z has nothing to swap: the answer is empty.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        known = model.training_conditions(x_0)
    x_0 = model.enter(x_0)
    losses: dict[int, tuple[float, float]] = {}
    for t in timesteps:
        own = model.encode(x_0, given, timesteps=[t]) | known
        if own["z"].numel() == 0:
            return {}
        eps = torch.randn(x_0.shape, generator=keyed_generator(seed, "swapped z", t)).to(x_0.device)
        t_batch = torch.full((len(x_0),), t, dtype=torch.int64, device=x_0.device)
        pair = [model.loss(x_0, t_batch, eps, one) for one in (own, _of_the_one_before(own, "z"))]
        losses[t] = (float(pair[0].mean()), float(pair[1].mean()))
    return losses


def _of_the_one_before(conditions: Conditions, name: str) -> dict[str, Tensor]:
    """``conditions`` with each image's ``name`` in the place of the next one's."""
    return {**conditions, name: torch.roll(conditions[name], 1, dims=0)}


@torch.no_grad()
def picture_rows(
    model: RepresentationModel, x_0: Tensor, num_steps: int, given: Conditions = NOTHING
) -> dict[str, Tensor]:
    """Rows of a sheet, by their names: x_0, its reconstruction with inferred x_T, z with two other x_T.

    ``given`` are the conditions that are given by name. Of each that an image gives besides z (its style,
    where a model has one), a further row has the images with that of the one before.
    """
    inner = model.enter(x_0)
    spec = model.sampling
    timesteps = spec.trajectory(num_steps).t.tolist()
    conditions = model.encode(inner, given, timesteps=timesteps)
    eps_fn = model.denoiser(conditions, timesteps=timesteps)
    starts = [last(ddim_encode(eps_fn, inner, spec, num_steps))]
    for k in range(2):
        starts.append(keyed_noise(k, range(len(x_0)), inner.shape[1:], "sheet").to(x_0.device))
    decoded = (model.leave(last(ddim_decode(eps_fn, x_T, spec, num_steps))) for x_T in starts)
    rows = {"image": x_0, **dict(zip(DECODED_ROWS, decoded, strict=True))}
    for name in of_images(model.conditions):
        other = model.denoiser(_of_the_one_before(conditions, name), timesteps=timesteps)
        rows[f"{name} of the one before"] = model.leave(last(ddim_decode(other, starts[1], spec, num_steps)))
    return rows
