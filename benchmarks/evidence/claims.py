"""The papers' claims: what each says, by which rule it holds or does not hold here, and for whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from evidence.contenders import DIFFAE, LRDM, PDAE, TITLES, WITH_Z
from evidence.few_shot import LIKE, UNLIKE
from evidence.findings import Findings, NotMeasured
from evidence.rules import (
    EDIT_SCALE,
    FEW_STEPS,
    FULL_STEPS,
    NEAR_SSIM,
    NOISY,
    READABLE,
    SAMPLE_STEPS,
    SHOWS,
    SPARES,
    SPARES_EACH,
    Ruling,
    better_after_as_many,
    conditional,
    faster,
    halfway,
    linear,
    near_exact,
    needs_no_prior,
    samples_as_well,
    samples_early,
    sees_more,
    selective,
    smooth,
    trades,
)

HOLDS, FAILS, UNKNOWN = "**holds**", "**does not hold here**", "not measured"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim: what it says, the ``rule`` in words, the ``decide`` that is the rule, and of ``who``.

    ``shown_in`` is the heading of the page's section that has its figures.
    """

    number: str
    text: str
    rule: str
    shown_in: str
    who: tuple[str, ...]
    decide: Callable[[Findings, str], Ruling]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A claim decided for one contender; ``holds`` None: not measured, and ``figures`` says why."""

    claim: Claim
    who: str
    holds: bool | None
    figures: str

    @property
    def word(self) -> str:
        """The verdict as the page prints it."""
        if self.holds is None:
            return UNKNOWN
        return HOLDS if self.holds else FAILS


CLAIMS = (
    Claim(
        number="1",
        text="Codes of two parts, z and x_T, bring images back almost exactly (Diff-AE, PDAE, LRDM)",
        rule=f"At T = {FULL_STEPS} with inferred x_T, SSIM is at least {NEAR_SSIM:g} with its whole interval "
        "(the papers print .991 for Diff-AE and .994 for PDAE), and surely higher than with a random x_T, "
        "and than that of the plain DPM, whose code is x_T alone.",
        shown_in="Reconstruction",
        who=WITH_Z,
        decide=near_exact,
    ),
    Claim(
        number="2",
        text="z is linear: a plane through it tells attributes apart (Diff-AE, PDAE, LRDM)",
        rule=f"The mean AUROC of linear probes on z is at least {READABLE:g} with its whole interval, and "
        "surely higher than that of the same probes on principal components of the pixels and on a network "
        "that never learned.",
        shown_in="What z says about attributes",
        who=WITH_Z,
        decide=linear,
    ),
    Claim(
        number="3",
        text="Edits along a direction change what they should and little else (Diff-AE, PDAE)",
        rule=f"At scales {EDIT_SCALE:g} (where the attribute is missing) and {-EDIT_SCALE:g} (where it is "
        f"there), over all attributes moved: the edit shows in {100 * SHOWS:g} % or more, and at most "
        f"{100 * SPARES:g} % of the judge's other verdicts change, both with the whole interval; and on no "
        f"one other attribute do more than {100 * SPARES_EACH:g} % change.",
        shown_in="Edits",
        who=WITH_Z,
        decide=selective,
    ),
    Claim(
        number="4a",
        text="Who knows z sees more of x_0 in x_t than an unconditional DPM (Diff-AE, PDAE)",
        rule="The squared gap of the posterior mean with z is surely smaller than the plain DPM's at every "
        f"t measured from {NOISY[0]} to {NOISY[1]}.",
        shown_in="One step of denoising",
        who=(DIFFAE, PDAE),
        decide=sees_more,
    ),
    Claim(
        number="4b",
        text="So a few steps suffice: better samples than an unconditional DPM's (Diff-AE)",
        rule=f"In {FEW_STEPS} steps, the kernel distance of samples from the method's own prior to images is "
        "surely smaller than that of the plain DPM's samples.",
        shown_in="Samples",
        who=WITH_Z,
        decide=samples_early,
    ),
    Claim(
        number="5",
        text="A latent DPM over z makes of an autoencoder a generative model (Diff-AE, PDAE)",
        rule=f"In {SAMPLE_STEPS} steps, the kernel distance of its samples to images is surely no worse than "
        "that of the plain DPM's.",
        shown_in="Samples",
        who=(DIFFAE, PDAE),
        decide=samples_as_well,
    ),
    Claim(
        number="6a",
        text="A few examples are enough to sample more like them (Diff-AE)",
        rule="Over all attributes asked for and all sets of examples, surely more of the draws that are "
        "accepted after a set show the attribute than of all draws.",
        shown_in="Samples after a few examples",
        who=WITH_Z,
        decide=partial(conditional, LIKE),
    ),
    Claim(
        number="6b",
        text="The same with as many counter-examples (Diff-AE)",
        rule="As 6a, with examples and as many counter-examples.",
        shown_in="Samples after a few examples",
        who=WITH_Z,
        decide=partial(conditional, UNLIKE),
    ),
    Claim(
        number="7a",
        text="PDAE reconstructs better than Diff-AE",
        rule="After every number of training images at which both were measured, the mean squared error with "
        "inferred x_T is surely smaller. Recipe, images and size of the encoder are the same.",
        shown_in="PDAE's training beside Diff-AE's",
        who=(PDAE,),
        decide=better_after_as_many,
    ),
    Claim(
        number="7b",
        text="PDAE trains faster than Diff-AE",
        rule="After fewer training images than Diff-AE saw in all, PDAE's mean squared error with inferred "
        "x_T is no larger than Diff-AE's is at the end. The frozen DPM's own training is not counted, and "
        "stands beside.",
        shown_in="PDAE's training beside Diff-AE's",
        who=(PDAE,),
        decide=faster,
    ),
    Claim(
        number="8a",
        text="LRDM samples from N(0, I), with no second model",
        rule=f"In {SAMPLE_STEPS} steps, the kernel distance of its samples to images is surely no worse than "
        "that of Diff-AE's samples, whose z a latent DPM draws, and surely smaller than that of two images "
        "mixed half and half.",
        shown_in="Samples",
        who=(LRDM,),
        decide=needs_no_prior,
    ),
    Claim(
        number="8b",
        text="LRDM's lambda trades reconstruction against sampling",
        rule="From the smallest lambda to the largest, the PSNR of z alone surely falls, and the kernel "
        "distance of samples surely gets better.",
        shown_in="Lambda of LRDM",
        who=(LRDM,),
        decide=trades,
    ),
    Claim(
        number="9a",
        text="Interpolation in codes is smooth, that of a DPM's noise is not (Diff-AE, PDAE)",
        rule="On the way through z and x_T, PPL is surely smaller and smoothness surely higher than on the "
        "way through the noise of the plain DPM.",
        shown_in="Interpolation",
        who=WITH_Z,
        decide=smooth,
    ),
    Claim(
        number="9b",
        text="What lies halfway between two images is an image (Diff-AE, PDAE)",
        rule="The kernel distance of pictures halfway to images is surely smaller than that of pictures "
        "halfway through the plain DPM's noise, and of pixels mixed half and half.",
        shown_in="Interpolation",
        who=WITH_Z,
        decide=halfway,
    ),
)


def decided(claim: Claim, findings: Findings, who: str) -> Verdict:
    """The verdict on one claim for one contender."""
    try:
        holds, figures = claim.decide(findings, who)
    except NotMeasured as error:
        return Verdict(claim=claim, who=who, holds=None, figures=str(error))
    return Verdict(claim=claim, who=who, holds=holds, figures=figures)


def verdicts(findings: Findings) -> list[Verdict]:
    """Every claim, for all of whom it is made here."""
    return [decided(claim, findings, who) for claim in CLAIMS for who in claim.who]


def verdict_row(verdict: Verdict) -> tuple[str, ...]:
    """A row of the page's table."""
    claim = verdict.claim
    return claim.number, claim.text, TITLES[verdict.who], verdict.word, verdict.figures
