"""Edits that are looked at: attributes are set, and the picture is read again to see whether they hold.

An editor moves z. What comes of it is decoded with the image's own x_T and encoded again; the bundle's
classifiers say whether the picture now shows what was wanted, and whether all else is as it was. Where it
does not show, the edit goes further; of those that hold the one that moves least is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import Codes
from rdm_cli.errors import UsageError
from rdm_cli.priors.latent_ddim import INVERSION_STEPS
from rdm_cli.registry import nearest

AMOUNTS = (1.0, 1.25, 1.5, 2.0)
"""Shares of the way that are tried in turn."""
LOGIT = 6.0
"""How clearly the editor "target" wants to be understood: about as clearly as drawn faces are."""
HOLDS = 0.0
"""Logit from which a picture read again is taken to show an attribute."""
SCALE = 0.3
"""How far the editor "direction" goes, as ``--scale`` does."""

Wanted = Mapping[str, bool]
Editor = Callable[[Bundle, Tensor, str, bool, float], Tensor]
"""(bundle, z (N, d), attribute, added, share of the way) -> z (N, d)."""


def along_direction(bundle: Bundle, z: Tensor, name: str, value: bool, amount: float) -> Tensor:
    """The published edit: the same step for every face."""
    return bundle.directions.shift(z, name, amount * (SCALE if value else -SCALE))


def to_target(bundle: Bundle, z: Tensor, name: str, value: bool, amount: float) -> Tensor:
    """Along the same direction, as far as each face needs for the classifier to be sure."""
    return bundle.directions.reached(z, name, amount * (LOGIT if value else -LOGIT))


def by_transport(bundle: Bundle, z: Tensor, name: str, value: bool, amount: float) -> Tensor:
    """By the optimal transport between codes without and with it; as "target" where there is none."""
    transport = bundle.transports.maps.get((name, value))
    return to_target(bundle, z, name, value, amount) if transport is None else transport.moved(z, amount)


def by_abduction(bundle: Bundle, z: Tensor, name: str, value: bool, amount: float) -> Tensor:
    """Through the noise that the prior draws z from: what the attributes do not say stays (Pearl).

    Needs a prior that was trained with labels. ``amount`` beyond 1 goes on in a straight line.
    """
    prior, directions = bundle.prior, bundle.directions
    shown = (directions.logits(z) > 0).float()
    known = {n: shown[:, directions.index(n)] for n in prior.attributes if n in directions.names}
    wanted = dict(known)
    if value:
        wanted |= {n: torch.zeros(len(z)) for n in bundle.transports.exclusive.get(name, ()) if n in wanted}
    wanted[name] = torch.full((len(z),), float(value))
    noise = prior.invert(z.to(prior.z_mean.device), known=known)
    moved = prior.sample(noise, INVERSION_STEPS, "fixed-point", wanted=wanted).to(z)
    return z + amount * (moved - z)


DEFAULT_EDITOR = "transport"
EDITORS: Mapping[str, Editor] = {
    "transport": by_transport,
    "target": to_target,
    "abduct": by_abduction,
    "direction": along_direction,
}


@dataclass(frozen=True, kw_only=True)
class Edited:
    """``codes`` (N) of edited images, and the pictures that they decode to, (N, C, H, W) in [-1, 1].

    ``holds`` (N,): whether each shows all that was wanted; ``kept`` (N,): whether the classifiers' other
    verdicts are as they were. ``before`` and ``after`` (N, K): the probabilities of the bundle's attributes,
    in its order; ``amount`` (N,): the share of the way that was gone, 0 where nothing had to be done.
    """

    codes: Codes
    pictures: Tensor
    holds: Tensor
    kept: Tensor
    before: Tensor
    after: Tensor
    amount: Tensor


def set_attributes(
    bundle: Bundle,
    codes: Codes,
    wanted: Wanted,
    *,
    decode: Callable[[Codes], Tensor],
    read: Callable[[Tensor, Codes], Tensor],
    editor: str = DEFAULT_EDITOR,
    keep: Sequence[str] | None = None,
    amounts: Sequence[float] = AMOUNTS,
) -> Edited:
    """``codes`` with the attributes ``wanted``, by the least of ``amounts`` that holds.

    ``decode`` makes pictures of codes, ``read`` z (N, d) of the pictures of codes. ``keep`` are attributes
    whose verdicts are to stay, None: all but those that the wanted ones rule out. A face that shows what
    is wanted already stays as it is. Raises UsageError for unknown attributes and
    editors, and for wanted ones that rule one another out.
    """
    directions = bundle.directions
    if editor not in EDITORS:
        raise UsageError(f"there is no editor {editor!r}", hint=nearest(editor, EDITORS))
    columns = {name: directions.index(name) for name in wanted}
    ruled_out = {
        other
        for name, value in wanted.items()
        if value
        for other in bundle.transports.exclusive.get(name, ())
    }
    if contradiction := [name for name in ruled_out if wanted.get(name)]:
        raise UsageError(f"no image shows {contradiction[0]} and what else is wanted of it")
    unseen = {other for name in wanted for other in bundle.transports.hidden.get(name, ())} | ruled_out
    others = [n for n in (directions.names if keep is None else keep) if n not in wanted and n not in unseen]
    watched = [directions.index(name) for name in others]

    signs = torch.tensor([1.0 if value else -1.0 for value in wanted.values()])
    rows = list(columns.values())
    start = codes.z.flatten(1)
    first = directions.logits(start)
    z, pictures, after = start.clone(), decode(codes).clone(), first.clone()
    holds = (first[:, rows] * signs > HOLDS).all(dim=1)
    kept, amount = torch.ones(len(codes), dtype=torch.bool), torch.zeros(len(codes))
    clearest = torch.full((len(codes),), -torch.inf)
    for share in amounts:
        left = (~(holds & kept)).nonzero()[:, 0]
        if not len(left):
            break
        moved = start[left]
        for name, value in wanted.items():
            # what it rules out goes first: brown hair becomes no hair of a second colour
            for other in bundle.transports.exclusive.get(name, ()) if value else ():
                shown = directions.logits(moved)[:, directions.index(other)] > 0
                moved = torch.where(shown[:, None], EDITORS[editor](bundle, moved, other, False, 1.0), moved)
            needed = directions.logits(moved)[:, columns[name]] * (1 if value else -1) <= HOLDS
            needed |= first[left, columns[name]] * (1 if value else -1) <= HOLDS
            moved = torch.where(needed[:, None], EDITORS[editor](bundle, moved, name, value, share), moved)
        part = codes.select(left.tolist()).replace(z=moved.reshape(-1, *codes.z.shape[1:]))
        made = decode(part)
        seen = directions.logits(read(made, part))
        clear = (seen[:, rows] * signs).min(dim=1).values
        holding = clear > HOLDS
        keeping = ((seen[:, watched] > 0) == (first[left][:, watched] > 0)).all(dim=1)
        # better is what holds where nothing did, what keeps the rest where that did not, or what is clearer
        better = (
            (holding & ~holds[left])
            | (holding & keeping & ~kept[left])
            | (~holds[left] & (clear > clearest[left]))
        )
        taken = left[better]
        z[taken], pictures[taken], after[taken] = moved[better], made[better], seen[better]
        holds[taken], kept[taken], clearest[taken] = holding[better], keeping[better], clear[better]
        amount[taken] = share
    return Edited(
        codes=codes.replace(z=z.reshape(codes.z.shape)),
        pictures=pictures,
        holds=holds,
        kept=kept,
        before=first.sigmoid(),
        after=after.sigmoid(),
        amount=amount,
    )
