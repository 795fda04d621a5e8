"""Edits that are looked at: attributes are set, and the picture is read again to see whether they hold.

An editor moves z, and what comes of it is settled in rounds, until z stays. In each, z is decoded with the
same noise as the unedited z; where the two pictures differ the new one is taken, elsewhere the image itself,
and the result is encoded again. What an editor moved by mistake goes back to the image's own, and an average
pair of glasses becomes one that the encoder knows. The bundle's classifiers say whether the picture now shows
what was wanted, and whether all else is as it was. Where it does not, the edit goes further, or another way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from rdm_cli.bundles.bundle import Bundle
from rdm_cli.codes.code import Codes
from rdm_cli.errors import BundleError, UsageError
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.priors.latent_ddim import INVERSION_STEPS
from rdm_cli.registry import nearest

AMOUNTS = (1.0, 1.25, 1.5, 2.0)
"""Shares of the way that are tried in turn."""
NUM_ROUNDS = 8
"""How often what an editor made is decoded and encoded again, at the most."""
SETTLED = 0.02
"""A round that moves z by less, in what scales count, is the last."""
LOGIT = 6.0
"""How clearly the editor "target" wants to be understood: about as clearly as drawn faces are."""
HOLDS = 0.0
"""Logit from which a picture read again is taken to show an attribute."""
UNSURE = 1.0
"""Logits up to so far from 0 were no verdict, so that none has changed."""
SCALE = 0.3
"""How far the editor "direction" goes, as ``--scale`` does."""
ALIKE, OTHER = 0.12, 0.25
"""Differences of two pictures in [-1, 1], in the mean around a pixel: up to the first the image's own pixel
is kept, from the second on the new one is taken, between them a mix."""
AROUND = 3 / 64
"""How wide "around a pixel" is, in sides of a picture."""
SAYS_ALL_DB = 30.0
"""Where z alone brings the image back so well, the new part is drawn from z alone: the image's own x_T still
holds traces of what was there. Elsewhere it is decoded with that x_T, which holds what z does not."""
NUM_DONORS = 512
NUM_DONOR_STEPS = 10
CLEAR = 3.0
"""Logit from which nobody doubts: where an edit is to come, and what a drawn code has to be a donor."""
MANY_KINDS = 4.0
"""Where codes with an attribute vary so many times as much in some direction as codes without it, there are
many ways to have it, and an average of them is none."""

Wanted = Mapping[str, bool]


@dataclass(frozen=True, kw_only=True)
class Donors:
    """Codes whose attributes are borrowed: those of ``like`` (1, d), or draws of the bundle's prior.

    ``seed`` chooses the draws; another one, other glasses.
    """

    bundle: Bundle
    like: Tensor | None = None
    seed: int = 0
    drawn: dict[tuple[str, bool], Tensor] = field(default_factory=dict)

    def having(self, name: str, value: bool) -> Tensor:
        """Codes (M, d) that clearly show ``name`` or, where ``value`` is False, clearly do not."""
        if self.like is not None:
            return self.like
        if (name, value) not in self.drawn:
            self.drawn[name, value] = self._draw(name, value)
        return self.drawn[name, value]

    def _draw(self, name: str, value: bool) -> Tensor:
        directions = self.bundle.directions
        ruled_out = self.bundle.transports.exclusive.get(name, ()) if value else ()
        answers = {name: value} | dict.fromkeys(ruled_out, False)
        try:
            prior = self.bundle.prior
        except BundleError:  # it has none
            return torch.empty(0, directions.width)
        told = {known: answer for known, answer in answers.items() if known in prior.attributes}
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(NUM_DONORS, prior.z_width, generator=generator)
        z = prior.sample(noise.to(prior.z_mean), NUM_DONOR_STEPS, wanted=told or None).cpu()
        logits = directions.logits(z)
        clear = torch.ones(len(z), dtype=torch.bool)
        for known, answer in answers.items():
            clear &= logits[:, directions.index(known)] * (1 if answer else -1) > CLEAR
        return z[clear]


@dataclass(frozen=True, kw_only=True)
class Move:
    """One change of z: of the attribute ``name`` to ``value``; ``number`` counts the attempts from 0."""

    bundle: Bundle
    donors: Donors
    name: str
    value: bool
    number: int = 0

    @property
    def amount(self) -> float:
        """The share of the way to go."""
        return AMOUNTS[min(self.number, len(AMOUNTS) - 1)]


Editor = Callable[[Tensor, Move], Tensor]
"""(z (N, d), what to change) -> z (N, d)."""


def along_direction(z: Tensor, move: Move) -> Tensor:
    """The published edit: the same step for every face."""
    return move.bundle.directions.shift(z, move.name, move.amount * (SCALE if move.value else -SCALE))


def to_target(z: Tensor, move: Move) -> Tensor:
    """Along the same direction, as far as each face needs for the classifier to be sure."""
    goal = move.amount * (LOGIT if move.value else -LOGIT)
    return move.bundle.directions.reached(z, move.name, goal)


def by_transport(z: Tensor, move: Move) -> Tensor:
    """By the optimal transport between codes without and with it; as "target" where there is none."""
    transport = move.bundle.transports.maps.get((move.name, move.value))
    return to_target(z, move) if transport is None else transport.moved(z, move.amount)


def by_donor(z: Tensor, move: Move) -> Tensor:
    """By what the nearest donor has beyond itself without the attribute; as "transport" without donors.

    Donors are compared as they would be without the attribute (with it, where it is to go). A further attempt
    takes the next nearest.
    """
    donors = move.donors.having(move.name, move.value)
    if not len(donors):
        return by_transport(z, move)
    undone = Move(bundle=move.bundle, donors=move.donors, name=move.name, value=not move.value)
    bare = by_transport(donors, undone)
    z_std = move.bundle.directions.spread
    apart = torch.cdist(z / z_std, bare / z_std)
    chosen = apart.argsort(dim=1)[:, min(move.number, len(donors) - 1)]
    return z + move.amount * (donors - bare)[chosen]


def by_abduction(z: Tensor, move: Move) -> Tensor:
    """Through the noise that the prior draws z from: what the attributes do not say stays (Pearl).

    Needs a prior that was trained with labels. An amount beyond 1 goes on in a straight line.
    """
    prior, directions = move.bundle.prior, move.bundle.directions
    shown = (directions.logits(z) > 0).float()
    known = {n: shown[:, directions.index(n)] for n in prior.attributes if n in directions.names}
    wanted = dict(known)
    if move.value:
        ruled_out = move.bundle.transports.exclusive.get(move.name, ())
        wanted |= {n: torch.zeros(len(z)) for n in ruled_out if n in wanted}
    wanted[move.name] = torch.full((len(z),), float(move.value))
    noise = prior.invert(z.to(prior.z_mean.device), known=known)
    moved = prior.sample(noise, INVERSION_STEPS, "fixed-point", wanted=wanted).to(z)
    return z + move.amount * (moved - z)


def by_kind(z: Tensor, move: Move) -> Tensor:
    """As "donor" where there are many ways to have the attribute, as "transport" where there are few."""
    transport = move.bundle.transports.maps.get((move.name, move.value))
    many = transport is not None and bool(transport.gains.max() > MANY_KINDS)
    return by_donor(z, move) if many or move.donors.like is not None else by_transport(z, move)


DEFAULT_EDITOR = "auto"
EDITORS: Mapping[str, Editor] = {
    "auto": by_kind,
    "transport": by_transport,
    "donor": by_donor,
    "target": to_target,
    "abduct": by_abduction,
    "direction": along_direction,
}


@dataclass(frozen=True, kw_only=True)
class Edited:
    """``codes`` (N) of edited images, and their ``pictures``, (N, C, H, W) in [-1, 1].

    ``holds`` (N,): whether each shows all that was wanted; ``kept`` (N,): whether the classifiers' other
    verdicts are as they were. ``before`` and ``after`` (N, K): the probabilities of the bundle's attributes,
    in its order; ``amount`` (N,): the share of the way that was gone, 0 where nothing had to be done.
    ``start`` are the pictures of the unedited codes, ``distance`` (N,) how far z was moved, in what scales
    count, ``num_decodes`` (N,) how many pictures were decoded for it; ``watched`` are the attributes whose
    verdicts were to stay, ``changed`` (N, K) says which of these did not.
    """

    codes: Codes
    pictures: Tensor
    holds: Tensor
    kept: Tensor
    before: Tensor
    after: Tensor
    amount: Tensor
    start: Tensor
    distance: Tensor
    num_decodes: Tensor
    watched: tuple[str, ...]
    changed: Tensor


Decode = Callable[[Codes], Tensor]
"""Codes to pictures (N, C, H, W) in [-1, 1]."""
Judge = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(which rows, their pictures (n, C, H, W), the z (n, d) read in these) -> (rank (n,), how clear (n,))."""
BEST = 3
"""The rank of an edit that nothing is left to do about. 0: it does not hold; 1: it does; 2: the rest is kept,
too; 3: and it is clear, for which one more attempt is made."""


@dataclass(frozen=True, kw_only=True)
class Canvas:
    """What edits of N ``codes`` are painted on: ``images`` (N, C, H, W) in [-1, 1], whose pixels stay.

    ``unedited`` are pictures of the codes as edited ones are made: by ``draft``, of z alone, where ``by_z``
    (N,) says that this brings the image back, by ``decode`` elsewhere. ``read`` gives z of pictures.
    ``trace`` makes pictures (n, C, H, W) of z (n, d) and the codes that it belongs to, through which
    gradients flow; None: there is no such.
    """

    codes: Codes
    images: Tensor
    unedited: Tensor
    by_z: Tensor
    decode: Decode
    draft: Decode
    read: Callable[[Tensor, Codes], Tensor]
    trace: Callable[[Tensor, Codes], Tensor] | None = None

    @staticmethod
    def of(
        codes: Codes,
        images: Tensor,
        *,
        decode: Decode,
        draft: Decode,
        read: Callable[[Tensor, Codes], Tensor],
        drafts: Tensor | None = None,
        decoded: Tensor | None = None,
        trace: Callable[[Tensor, Codes], Tensor] | None = None,
    ) -> Canvas:
        """A canvas of ``images``; ``drafts`` of the codes and what they decode to are made where None.

        ``decoded`` None says that the images are what the codes decode to.
        """
        drafts = draft(codes) if drafts is None else drafts
        by_z = psnr(drafts, images) >= SAYS_ALL_DB
        other = images if decoded is None else decoded
        unedited = torch.where(by_z[:, None, None, None], drafts, other)
        return Canvas(
            codes=codes,
            images=images,
            unedited=unedited,
            by_z=by_z,
            decode=decode,
            draft=draft,
            read=read,
            trace=trace,
        )

    def painted(self, rows: Tensor, z: Tensor) -> Tensor:
        """Pictures (n, C, H, W) of the codes ``rows`` with other ``z`` (n, d); what stays is the image's."""
        part, own = self.codes.select(rows.tolist()), self.by_z[rows]
        part = part.replace(z=z.reshape(-1, *self.codes.z.shape[1:]))
        made = torch.empty_like(self.images[rows])
        for view, chosen in ((self.draft, own), (self.decode, ~own)):
            if chosen.any():
                made[chosen] = view(part.select(chosen.nonzero()[:, 0].tolist()))
        return rest_kept(made, self.unedited[rows], self.images[rows])

    def traced(self, rows: Tensor, z: Tensor) -> Tensor:
        """As :meth:`painted`, without keeping pixels, and with gradients of ``z``."""
        assert self.trace is not None
        part = self.codes.select(rows.tolist())
        made = []
        for k in range(len(rows)):
            one = part.select([k])
            made.append(self.trace(z[k : k + 1], one.without_x_T() if self.by_z[rows[k]] else one))
        return torch.cat(made)

    def read_in(self, rows: Tensor, pictures: Tensor) -> Tensor:
        """z (n, d) of ``pictures`` (n, C, H, W) made of the codes ``rows``."""
        return self.read(pictures, self.codes.select(rows.tolist())).flatten(1)


@dataclass(frozen=True, kw_only=True)
class Settled:
    """The best of all attempts: ``z`` (N, d) as read in ``pictures`` (N, C, H, W), and its ``rank`` (N,).

    Where no attempt was better than none, both are the unedited ones. ``amount`` (N,) is the share of the way
    that was gone, ``num_decodes`` (N,) how many pictures were made.
    """

    z: Tensor
    pictures: Tensor
    rank: Tensor
    amount: Tensor
    num_decodes: Tensor


def settle(
    canvas: Canvas,
    *,
    rank: Tensor,
    propose: Callable[[Tensor, int], Tensor],
    judge: Judge,
    spread: Tensor,
    amounts: Sequence[float] = AMOUNTS,
    rounds: int | None = None,
) -> Settled:
    """Attempts, each painted and read again in rounds until z stays; the best one of each row.

    ``propose(rows, number)`` gives z (n, d) of an attempt, ``judge`` ranks what came of it. ``rank`` (N,) is
    that of the unedited; rows of ``BEST`` are left alone. ``spread`` (d,) is what changes of z count in.
    ``rounds`` None means NUM_ROUNDS.
    """
    rounds = NUM_ROUNDS if rounds is None else rounds
    z, pictures, rank = canvas.codes.z.flatten(1).clone(), canvas.images.clone(), rank.clone()
    num_decodes = torch.zeros(len(z), dtype=torch.long)
    amount, clearest = torch.zeros(len(z)), torch.full((len(z),), -torch.inf)
    for number, share in enumerate(amounts):
        left = (rank < (BEST if number < 2 else 2)).nonzero()[:, 0]
        rank_before = rank.clone()
        moved = propose(left, number)
        for _ in range(rounds):
            if not len(left):
                break
            made = canvas.painted(left, moved)
            num_decodes[left] += 1
            seen_z = canvas.read_in(left, made)
            found, clear = judge(left, made, seen_z)
            # a later round is the better one as long as it holds; a further attempt has to hold better
            better = (found >= rank[left]) & (found > rank_before[left])
            better |= (rank[left] == 0) & (found == 0) & (clear > clearest[left])
            taken = left[better]
            z[taken], pictures[taken] = seen_z[better], made[better]
            rank[taken], clearest[taken], amount[taken] = found[better], clear[better], share
            moving = ((seen_z - moved) / spread).square().mean(dim=1).sqrt() > SETTLED
            left, moved = left[moving], seen_z[moving]
    return Settled(z=z, pictures=pictures, rank=rank, amount=amount, num_decodes=num_decodes)


def untold(bundle: Bundle, wanted: Wanted) -> set[str]:
    """Attributes whose verdicts cannot stay: those that the ``wanted`` ones rule out or hide, and these."""
    transports = bundle.transports
    ruled_out = {o for n, value in wanted.items() if value for o in transports.exclusive.get(n, ())}
    return ruled_out.union(wanted, *(transports.hidden.get(name, ()) for name in wanted))


def set_attributes(
    bundle: Bundle,
    codes: Codes,
    wanted: Wanted,
    *,
    decode: Callable[[Codes], Tensor],
    draft: Callable[[Codes], Tensor],
    read: Callable[[Tensor, Codes], Tensor],
    editor: str = DEFAULT_EDITOR,
    keep: Sequence[str] | None = None,
    like: Tensor | None = None,
    seed: int = 0,
) -> Edited:
    """``codes`` with the attributes ``wanted``, by the first attempt that holds.

    ``decode`` makes pictures of codes, ``draft`` of their z alone and the same noise for each, ``read`` z
    (N, d) of the pictures of codes. ``keep`` are attributes whose verdicts are to stay, None: all but those
    that the wanted ones rule out. ``like`` (1, d) is the z of an image whose attributes are borrowed. A face
    that shows what is wanted already stays as it is, except ``like`` another. In the result z is what
    ``read`` sees in the pictures; x_T is still the image's. Raises UsageError for unknown attributes and
    editors, and for wanted ones that rule one another out.
    """
    directions = bundle.directions
    if editor not in EDITORS:
        raise UsageError(f"there is no editor {editor!r}", hint=nearest(editor, EDITORS))
    columns = {name: directions.index(name) for name in wanted}
    ruled_out = {o for n, value in wanted.items() if value for o in bundle.transports.exclusive.get(n, ())}
    if contradiction := [name for name in ruled_out if wanted.get(name)]:
        raise UsageError(f"no image shows {contradiction[0]} and what else is wanted of it")
    free = untold(bundle, wanted)
    others = [name for name in (directions.names if keep is None else keep) if name not in free]
    watched = [directions.index(name) for name in others]
    signs = torch.tensor([1.0 if value else -1.0 for value in wanted.values()])
    rows = list(columns.values())

    start = codes.z.flatten(1)
    first = directions.logits(start)
    canvas = Canvas.of(codes, decode(codes), decode=decode, draft=draft, read=read)
    mover = Mover(bundle=bundle, wanted=wanted, editor=editor, like=like, seed=seed)

    def judge(left: Tensor, made: Tensor, seen_z: Tensor) -> tuple[Tensor, Tensor]:
        seen = directions.logits(seen_z)
        clear = (seen[:, rows] * signs).min(dim=1).values
        keeping = ~changed(first[left], seen)[:, watched].any(dim=1)
        return (clear > HOLDS).long() * (1 + keeping.long() * (1 + (clear > CLEAR).long())), clear

    there = (first[:, rows] * signs > HOLDS).all(dim=1)
    settled = settle(
        canvas,
        rank=torch.where(there & (like is None), BEST, 0),
        propose=lambda left, number: mover.moved(start[left], first[left], number),
        judge=judge,
        spread=directions.spread,
    )
    after = directions.logits(settled.z)
    return Edited(
        codes=codes.replace(z=settled.z.reshape(codes.z.shape)),
        pictures=settled.pictures,
        holds=settled.rank > 0,
        kept=settled.rank != 1,
        before=first.sigmoid(),
        after=after.sigmoid(),
        amount=settled.amount,
        start=canvas.images,
        distance=directions.distance(start, settled.z),
        num_decodes=settled.num_decodes + 2,
        watched=tuple(others),
        changed=changed(first, after) & torch.isin(torch.arange(first.shape[1]), torch.tensor(watched)),
    )


def changed(before: Tensor, after: Tensor) -> Tensor:
    """Which verdicts, logits (N, K) ``before`` and ``after``, are others: bool (N, K)."""
    return (before.abs() > UNSURE) & ((before > 0) != (after > 0))


class Mover:
    """All that is ``wanted`` as one move of z, in attempts that go further and further."""

    def __init__(
        self,
        *,
        bundle: Bundle,
        wanted: Wanted,
        editor: str,
        like: Tensor | None = None,
        seed: int = 0,
        drawn: Donors | None = None,
    ) -> None:
        self.bundle, self.wanted, self.editor = bundle, wanted, EDITORS[editor]
        self.borrows = like is not None
        self.drawn = Donors(bundle=bundle, seed=seed) if drawn is None else drawn
        self.donors = self.drawn if like is None else Donors(bundle=bundle, like=like, seed=seed)

    def moved(self, z: Tensor, first: Tensor, number: int) -> Tensor:
        """``z`` (N, d), whose logits were ``first`` (N, K), in the attempt of that ``number``."""
        directions = self.bundle.directions
        for name, value in self.wanted.items():
            sign, k = (1 if value else -1), directions.index(name)
            # what it rules out goes first: brown hair becomes no hair of a second colour
            for other in self.bundle.transports.exclusive.get(name, ()) if value else ():
                shown = directions.logits(z)[:, directions.index(other)] > 0
                gone = Move(bundle=self.bundle, donors=self.drawn, name=other, value=False)
                z = torch.where(shown[:, None], self.editor(z, gone), z)
            if self.borrows and value:  # what the face has itself goes before what it borrows comes
                shown = directions.logits(z)[:, k] > 0
                gone = Move(bundle=self.bundle, donors=self.drawn, name=name, value=False)
                z = torch.where(shown[:, None], self.editor(z, gone), z)
            needed = (directions.logits(z)[:, k] * sign <= HOLDS) | (first[:, k] * sign <= HOLDS)
            move = Move(bundle=self.bundle, donors=self.donors, name=name, value=value, number=number)
            z = torch.where(needed[:, None], self.editor(z, move), z)
        return z


def rest_kept(made: Tensor, unedited: Tensor, images: Tensor) -> Tensor:
    """``made`` where it differs from ``unedited``, ``images`` elsewhere; all (N, C, H, W) in [-1, 1]."""
    width = max(3, round(images.shape[-1] * AROUND) | 1)
    differs = (made - unedited).abs().amax(dim=1, keepdim=True)
    differs = F.avg_pool2d(F.pad(differs, (width // 2,) * 4, mode="replicate"), width, stride=1)
    share = ((differs - ALIKE) / (OTHER - ALIKE)).clamp(0, 1)
    share = share * share * (3 - 2 * share)  # without an edge
    return images + share * (made - images)
