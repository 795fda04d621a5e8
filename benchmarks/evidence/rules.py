"""The rules that turn figures into verdicts. Each takes findings and a contender, and decides by intervals.

An interval is the figure's own 95 % one, or its value where it has none. *Surely better* means that two
intervals have nothing in common and the better one is on the better side; *as good* that the other is not
surely better; *surely no worse* that the worse end of the interval is within a margin of the other's value.
A rule gives whether the claim holds, and the figures that decide, as text.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch

from evidence.contenders import DIFFAE, LRDM, PDAE, PLAIN
from evidence.few_shot import NAME as SHARE
from evidence.few_shot import NOTHING, SHARE_OF_SET
from evidence.findings import Findings, NotMeasured, chosen
from rdm_cli.evaluation.attributes import MEAN
from rdm_cli.evaluation.edit import WORST
from rdm_cli.evaluation.figures import Figure
from rdm_cli.evaluation.interpolation import NOISE, PIXELS
from rdm_cli.metrics.intervals import LEVEL, STUDENT, Estimate, mean_half_width

FULL_STEPS, FEW_STEPS, SAMPLE_STEPS = 100, 10, 50
NEAR_SSIM = 0.99
READABLE = 0.9
SHOWS, SPARES, SPARES_EACH = 0.5, 0.05, 0.1
MARGIN = 0.2  # of the other's kernel distance, by which samples may be worse and count as no worse
EDIT_SCALE = 0.3
NOISY = (300, 900)  # where z is to help: t from, and up to
BASELINES = ("PCA of pixels", "random network")
OWN_PRIOR = {DIFFAE: "latent-ddim", PDAE: "latent-ddim", LRDM: "gaussian", PLAIN: "x_T alone"}

Ruling = tuple[bool, str]


def ends(figure: Figure) -> tuple[float, float]:
    """The interval's ends; twice the value where there is no interval."""
    if figure.interval is None:
        return figure.value, figure.value
    return figure.interval.low, figure.interval.high


def surely_better(one: Figure, other: Figure) -> bool:
    """Whether all of ``one``'s interval lies on the better side of all of ``other``'s."""
    assert one.better, f"{one.name} has no better side"
    (low, high), (other_low, other_high) = ends(one), ends(other)
    return high < other_low if one.better == "lower" else low > other_high


def as_good(one: Figure, other: Figure) -> bool:
    """Whether ``other`` is not surely better; False where either is no number."""
    numbers = (*ends(one), *ends(other))
    return all(math.isfinite(n) for n in numbers) and not surely_better(other, one)


def surely_no_worse(one: Figure, other: Figure) -> bool:
    """Whether the worse end of ``one``'s interval is within MARGIN of ``other``'s value; lower is better."""
    assert one.better == "lower", f"{one.name}: a margin is one of a distance"
    return ends(one)[1] <= other.value + MARGIN * abs(other.value)


def pooled(figures: Sequence[Figure]) -> Figure:
    """The mean of ``figures`` of one kind, weighted by their numbers of images.

    Its interval adds theirs as independent errors add: half-widths by the root of the sum of squares.
    """
    total = sum(f.num for f in figures)
    weights = [f.num / total for f in figures]
    value = sum(w * f.value for w, f in zip(weights, figures, strict=True))
    below, above = (
        math.sqrt(sum((w * (end - f.value)) ** 2 for w, f, end in zip(weights, figures, side, strict=True)))
        for side in zip(*(ends(f) for f in figures), strict=True)
    )
    interval = Estimate(
        value=value, low=value - below, high=value + above, level=LEVEL, num_resamples=0, method="pooled"
    )
    return replace(figures[0], value=value, num=total, interval=interval, condition={})


def shown(figure: Figure, *, percent: bool = False) -> str:
    """A figure with its interval, for people."""
    low, high = ends(figure)
    if percent:
        return f"{100 * figure.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    unit = f" {figure.unit}" if figure.unit else ""
    return f"{figure.cell}{unit}"


def near_exact(findings: Findings, who: str) -> Ruling:
    """SSIM of the whole code at least NEAR_SSIM, less of z with another x_T and of a plain DPM's x_T."""
    whole, z_alone = (
        findings.one("reconstruction", who, "SSIM", x_T=kind, T=FULL_STEPS) for kind in ("inferred", "random")
    )
    psnr = findings.one("reconstruction", who, "PSNR", x_T="inferred", T=FULL_STEPS)
    plain = findings.one("reconstruction", PLAIN, "SSIM", x_T="inferred", T=FULL_STEPS)
    holds = ends(whole)[0] >= NEAR_SSIM and all(surely_better(whole, less) for less in (z_alone, plain))
    told = f"SSIM {shown(whole)}, PSNR {shown(psnr)}; z alone: SSIM {shown(z_alone)}"
    return holds, f"{told}; plain DPM, x_T alone: SSIM {shown(plain)}"


def linear(findings: Findings, who: str) -> Ruling:
    """AUROC of probes on z at least READABLE, and surely better than on either baseline."""
    of_z = findings.one("attributes", who, "AUROC", attribute=MEAN, features="z")
    others = [findings.one("attributes", who, "AUROC", attribute=MEAN, features=b) for b in BASELINES]
    holds = ends(of_z)[0] >= READABLE and all(surely_better(of_z, other) for other in others)
    told = ", ".join(f"{b} {shown(other)}" for b, other in zip(BASELINES, others, strict=True))
    return holds, f"mean AUROC {shown(of_z)}; {told}"


def edits(findings: Findings, who: str) -> tuple[Figure, Figure]:
    """Success and other verdicts changed at scales of EDIT_SCALE, pooled over attributes and directions."""
    success, changed = (pooled(_of_edits(findings, who, name)) for name in ("success", "others changed"))
    return success, changed


def selective(findings: Findings, who: str) -> Ruling:
    """Success at least SHOWS, other verdicts changed at most SPARES, on no one more than SPARES_EACH."""
    success, changed = edits(findings, who)
    worst = worst_spared(findings, who)
    holds = ends(success)[0] >= SHOWS and ends(changed)[1] <= SPARES and worst.value <= SPARES_EACH
    told = f"success {shown(success, percent=True)}; others changed {shown(changed, percent=True)}"
    moved, other = worst.condition["attribute"], worst.condition.get("other", "?")
    return holds, f"{told}; worst, {other} where {moved} is moved: {shown(worst, percent=True)}"


def worst_spared(findings: Findings, who: str) -> Figure:
    """The other attribute whose verdicts change most, at scales of EDIT_SCALE, over all attributes moved."""
    return max(_of_edits(findings, who, WORST), key=lambda figure: figure.value)


def _of_edits(findings: Findings, who: str, name: str) -> list[Figure]:
    """The figures ``name`` at scales of EDIT_SCALE, of all attributes moved."""
    kept = findings.all("edits", who, name)
    found = [f for scale in (EDIT_SCALE, -EDIT_SCALE) for f in chosen(kept, name, scale=scale)]
    if not found:
        raise NotMeasured(f"no edit at scale {EDIT_SCALE:g}")
    return found


def sees_more(findings: Findings, who: str) -> Ruling:
    """The gap with z surely below the plain DPM's, at every t measured in NOISY."""
    first, last = NOISY
    pairs = []
    for own in findings.all("denoising", who, "squared gap", predictor="with z"):
        t = own.condition["t"]
        if first <= float(t) <= last:
            pairs.append((own, findings.one("denoising", PDAE, "squared gap", predictor="without z", t=t)))
    if not pairs:
        raise NotMeasured(f"no t between {first} and {last}")
    holds = all(surely_better(own, plain) for own, plain in pairs)
    middle, plain = min(pairs, key=lambda pair: abs(float(pair[0].condition["t"]) - sum(NOISY) / 2))
    return holds, f"t={middle.condition['t']}: {shown(middle)}; plain DPM {shown(plain)}"


def sample_distance(findings: Findings, who: str, steps: int) -> Figure:
    """The kernel distance of samples from a contender's own prior."""
    return findings.one("generation", who, "KD-", prior=OWN_PRIOR[who], T=steps)


def samples_early(findings: Findings, who: str) -> Ruling:
    """Samples in FEW_STEPS surely better than the plain DPM's."""
    own, plain = (sample_distance(findings, name, FEW_STEPS) for name in (who, PLAIN))
    return surely_better(own, plain), _distances(own, plain, "plain DPM")


def samples_as_well(findings: Findings, who: str) -> Ruling:
    """Samples in SAMPLE_STEPS surely no worse than the plain DPM's."""
    own, plain = (sample_distance(findings, name, SAMPLE_STEPS) for name in (who, PLAIN))
    return surely_no_worse(own, plain), _distances(own, plain, "plain DPM")


def needs_no_prior(findings: Findings, who: str) -> Ruling:
    """Samples from N(0, I) surely no worse than Diff-AE's with its latent DPM, and surely better than blends.

    Blends are two images mixed half and half: what is no better than those would be no sample at all.
    """
    own, other = (sample_distance(findings, name, SAMPLE_STEPS) for name in (who, DIFFAE))
    blends = findings.one("interpolation", who, "halfway", way=PIXELS)
    holds = surely_no_worse(own, other) and surely_better(own, blends)
    return holds, f"{_distances(own, other, 'Diff-AE with a latent DPM')}; two images mixed {shown(blends)}"


def _distances(own: Figure, other: Figure, of: str) -> str:
    return f"{own.name} {shown(own)}; {of} {shown(other)}"


def conditional(given: str, findings: Findings, who: str) -> Ruling:
    """After examples, surely more pictures that show the attribute than without, over attributes and sets.

    What is counted is a set of examples: by how much more often its draws show what it has than all draws do.
    The interval is Student's over those, with the error of the shares among all draws added.
    """
    free = {f.condition["attribute"]: f for f in findings.all("few-shot", who, SHARE, given=NOTHING)}
    sets = findings.all("few-shot", who, SHARE_OF_SET, given=given)
    missing = sorted(str(name) for name in free.keys() ^ {f.condition["attribute"] for f in sets})
    if missing:
        raise NotMeasured(f"no figures both with and without examples of {', '.join(missing)}")
    if len(sets) < 2:
        raise NotMeasured("one set of examples alone has no spread")
    gains = [f.value - free[f.condition["attribute"]].value for f in sets]
    of_sets = t_interval(gains).interval
    all_draws = pooled(list(free.values()))
    assert of_sets is not None
    # the shares among all draws are the same for every set: their error does not average out
    low, high = (
        mean + sign * math.hypot(end - mean, side - all_draws.value)
        for mean, sign, end, side in zip(
            (of_sets.value,) * 2, (-1, 1), (of_sets.low, of_sets.high), reversed(ends(all_draws)), strict=True
        )
    )
    asked = sum(f.value for f in sets) / len(sets)
    told = f"{100 * asked:.1f} % of draws after {len(sets)} sets of examples, {100 * all_draws.value:.1f} % "
    told += f"without: {100 * of_sets.value:.1f} ({100 * low:.1f} to {100 * high:.1f}) points more"
    return low > 0, told


def t_interval(values: Sequence[float]) -> Figure:
    """The mean of independent ``values``, two or more, with Student's interval."""
    num, mean = len(values), statistics.fmean(values)
    half = mean_half_width(torch.tensor(values, dtype=torch.float64), level=LEVEL)
    interval = Estimate(
        value=mean, low=mean - half, high=mean + half, level=LEVEL, num_resamples=0, method=STUDENT
    )
    return Figure(bundle="", name="mean", value=mean, num=num, interval=interval)


def smooth(findings: Findings, who: str) -> Ruling:
    """PPL and smoothness of the way through whole codes surely better than through the plain DPM's noise."""
    told, holds = [], True
    for name in ("PPL", "smoothness"):
        own = findings.one("interpolation", who, name, way="z and x_T")
        noise = findings.one("interpolation", PLAIN, name, way=NOISE)
        holds = holds and surely_better(own, noise)
        told.append(f"{name} {shown(own)}, DDIM noise {shown(noise)}")
    return holds, "; ".join(told)


def halfway(findings: Findings, who: str) -> Ruling:
    """Pictures halfway surely more like images than those through noise and those of pixels mixed."""
    own = findings.one("interpolation", who, "halfway", way="z and x_T")
    noise = findings.one("interpolation", PLAIN, "halfway", way=NOISE)
    pixels = findings.one("interpolation", who, "halfway", way=PIXELS)
    holds = surely_better(own, noise) and surely_better(own, pixels)
    return holds, f"KD {shown(own)}; DDIM noise {shown(noise)}, pixels {shown(pixels)}"


def _training(findings: Findings) -> tuple[dict[int, Figure], dict[int, Figure]]:
    """PDAE's and Diff-AE's errors with inferred x_T, by the images seen."""
    if not findings.against:
        raise NotMeasured("benchmarks/pdae_against_diffae.py has left no figures here")
    by_name: list[dict[int, Figure]] = []
    for name in (PDAE, DIFFAE):
        found = chosen([f for f in findings.against if f.bundle == name], "MSE", x_T="inferred")
        by_name.append({int(f.condition["images seen"]): f for f in found})
    both = sorted(by_name[0].keys() & by_name[1].keys())
    if not both:
        raise NotMeasured("both were never measured after as many images")
    ours, theirs = ({n: found[n] for n in both} for found in by_name)
    return ours, theirs


def better_after_as_many(findings: Findings, who: str) -> Ruling:
    """The error with inferred x_T surely below Diff-AE's after each number of images measured."""
    ours, theirs = _training(findings)
    last = max(ours)
    wins = sum(surely_better(ours[n], theirs[n]) for n in ours)
    told = (
        f"{wins} of {len(ours)} times; after {last:,} images: MSE {shown(ours[last])}, "
        f"Diff-AE {shown(theirs[last])}"
    )
    return wins == len(ours), told


def faster(findings: Findings, who: str) -> Ruling:
    """An error no larger than Diff-AE's at the end after fewer images, those of pretraining apart."""
    ours, theirs = _training(findings)
    last = max(theirs)
    reached = [n for n in sorted(ours) if ours[n].value <= theirs[last].value]
    apart = "" if findings.pretraining is None else f" (and {findings.pretraining:,} of the DPM's before)"
    end = f"Diff-AE after {last:,}: MSE {shown(theirs[last])}"
    if not reached:
        return False, f"PDAE never gets there; {end}"
    return reached[0] < last, f"PDAE after {reached[0]:,} images{apart}: {shown(ours[reached[0]])}; {end}"


def trades(findings: Findings, who: str) -> Ruling:
    """From the least lambda to the largest: z alone brings back surely less, samples are surely better."""
    weights = sorted({float(f.condition["lambda"]) for f in findings.sweep})
    if len(weights) < 2:
        raise NotMeasured("benchmarks/lambda_sweep.py has left no figures of two lambdas here")
    told, pairs = [], []
    for name, how in (("PSNR", {"x_T": "random"}), ("KD-", {})):
        found = [chosen(findings.sweep, name, **{"lambda": w, **how}) for w in (weights[0], weights[-1])]
        if not all(found):
            raise NotMeasured(f"the sweep has no {name}")
        low, high = found[0][0], found[1][0]
        pairs.append((low, high))
        told.append(f"{low.name} {shown(low)} at {weights[0]:g}, {shown(high)} at {weights[-1]:g}")
    (psnr_low, psnr_high), (kd_low, kd_high) = pairs
    return surely_better(psnr_low, psnr_high) and surely_better(kd_high, kd_low), "; ".join(told)
