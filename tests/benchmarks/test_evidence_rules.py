"""Each rule gives both verdicts, on figures made up for it, and none where a figure is missing."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from evidence.claims import CLAIMS, FAILS, HOLDS, UNKNOWN, decided, verdicts
from evidence.contenders import DIFFAE, LRDM, PDAE, PLAIN, TITLES
from evidence.few_shot import LIKE, NOTHING, SHARE_OF_SET, UNLIKE
from evidence.few_shot import NAME as SHARE
from evidence.findings import Findings
from evidence.rules import as_good, pooled, shown, surely_better, t_interval

from rdm_cli.evaluation.edit import WORST
from rdm_cli.evaluation.figures import Figure

Make = Callable[..., Figure]
BY_NUMBER = {claim.number: claim for claim in CLAIMS}


@pytest.fixture
def verdict(findings_of: Callable[..., Findings]) -> Callable[..., Any]:
    """``verdict(number, who, studies)``: whether that claim holds on these figures."""

    def decide(number: str, who: str, studies: dict[str, list[Figure]], **more: Any) -> Any:
        return decided(BY_NUMBER[number], findings_of(studies, **more), who)

    return decide


def test_intervals_decide(figure: Make) -> None:
    low, near, far = (figure("a", "KD", v, 1.0, "lower") for v in (1.0, 2.5, 4.0))
    assert surely_better(low, far) and not surely_better(far, low)
    assert not surely_better(low, near) and not surely_better(near, low)
    assert as_good(near, low) and as_good(low, far) and not as_good(far, low)
    high = [replace(f, better="higher") for f in (low, far)]
    assert surely_better(high[1], high[0]) and not surely_better(high[0], high[1])
    touching = figure("a", "KD", 3.0, 1.0, "lower")  # 2 to 4, and low ends at 2
    assert not surely_better(low, touching)
    bare = Figure(bundle="a", name="KD", value=0.5, num=1, better="lower")
    assert surely_better(bare, figure("a", "KD", 2.0, 1.0, "lower"))
    none = replace(bare, value=math.nan)
    assert not as_good(none, low) and not surely_better(none, low)
    with pytest.raises(AssertionError, match="no better side"):
        surely_better(replace(low, better=""), far)


def test_pooled_figures_weigh_by_their_images(figure: Make) -> None:
    found = pooled(
        [
            figure("a", "success", 0.5, 0.3, "higher", num=10),
            figure("a", "success", 1.0, 0.4, "higher", num=30),
        ]
    )
    assert found.value == 0.875 and found.num == 40 and found.interval is not None
    assert found.interval.high - found.value == pytest.approx(math.hypot(0.25 * 0.3, 0.75 * 0.4))
    assert shown(found, percent=True).startswith("87.5 % (")


def test_1_near_exact(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(ssim: float, half: float, alone: float, plain: float = 0.9) -> dict[str, list[Figure]]:
        about = {"better": "higher", "T": 100}
        return {
            "reconstruction": [
                figure(DIFFAE, "SSIM", ssim, half, x_T="inferred", **about),
                figure(DIFFAE, "SSIM", alone, half, x_T="random", **about),
                figure(DIFFAE, "PSNR", 46.0, 1.0, x_T="inferred", **about),
                figure(PLAIN, "SSIM", plain, half, x_T="inferred", **about),
            ]
        }

    holds = verdict("1", DIFFAE, of(0.998, 0.001, 0.93))
    assert holds.holds is True and holds.word == HOLDS
    assert "SSIM 0.998 (0.997 to 0.999)" in holds.figures and "0.93" in holds.figures
    fails = verdict("1", DIFFAE, of(0.991, 0.002, 0.93))  # the interval reaches below .99
    assert fails.holds is False and fails.word == FAILS
    assert verdict("1", DIFFAE, of(0.998, 0.001, 0.9975)).holds is False  # z alone says as much
    assert verdict("1", DIFFAE, of(0.998, 0.001, 0.93, plain=0.997)).holds is False  # and so does no z


def test_2_linear(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(z: float, components: float) -> dict[str, list[Figure]]:
        values = {"z": z, "PCA of pixels": components, "random network": 0.7}
        return {
            "attributes": [
                figure(PDAE, "AUROC", v, 0.01, "higher", attribute="mean", features=f)
                for f, v in values.items()
            ]
        }

    assert verdict("2", PDAE, of(0.95, 0.8)).holds is True
    assert verdict("2", PDAE, of(0.95, 0.94)).holds is False
    assert verdict("2", PDAE, of(0.905, 0.8)).holds is False


def test_3_edits(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(success: float, changed: float, worst: float = 0.05) -> dict[str, list[Figure]]:
        found = []
        for attribute in ("smiling", "hat"):
            for scale in (0.3, -0.3, 0.15):
                how = {"attribute": attribute, "scale": scale}
                # what is moved by half as much does not count
                found.append(
                    figure(LRDM, "success", success if abs(scale) == 0.3 else 0.0, 0.1, "higher", **how)
                )
                found.append(figure(LRDM, "others changed", changed, 0.01, "lower", **how))
                of_one = worst if attribute == "hat" and abs(scale) == 0.3 else 0.01
                found.append(figure(LRDM, WORST, of_one, 0.05, "lower", other="beard", **how))
        return {"edits": found}

    assert verdict("3", LRDM, of(0.8, 0.02)).holds is True
    assert verdict("3", LRDM, of(0.52, 0.02)).holds is False
    assert verdict("3", LRDM, of(0.8, 0.048)).holds is False
    assert verdict("3", LRDM, of(0.8, 0.02, worst=0.12)).holds is False  # one other attribute pays for it
    told = verdict("3", LRDM, of(0.8, 0.02)).figures
    assert "80.0 %" in told and "worst, beard where hat is moved: 5.0 %" in told
    only_half = {"edits": [f for f in of(0.8, 0.02)["edits"] if f.condition["scale"] == 0.15]}
    assert verdict("3", LRDM, only_half).word == UNKNOWN


def test_4a_one_step(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(late: float) -> dict[str, list[Figure]]:
        name, better = "squared gap", "lower"
        return {
            "denoising": [
                *(figure(DIFFAE, name, 1.0, 0.1, better, t=t, predictor="with z") for t in (300, 600)),
                figure(DIFFAE, name, late, 0.1, better, t=900, predictor="with z"),
                figure(DIFFAE, name, 9.0, 0.1, better, t=100, predictor="with z"),  # too early to count
                *(
                    figure(PDAE, name, 2.0, 0.1, better, t=t, predictor="without z")
                    for t in (100, 300, 600, 900)
                ),
            ]
        }

    assert verdict("4a", DIFFAE, of(1.5)).holds is True
    assert "t=600: 1 (0.9 to 1.1); plain DPM 2" in verdict("4a", DIFFAE, of(1.5)).figures
    assert verdict("4a", DIFFAE, of(1.9)).holds is False


def samples(
    figure: Make, steps: int, half: float = 0.05, blends: float = 9.0, **values: float
) -> dict[str, list[Figure]]:
    who = {"diffae": (DIFFAE, "latent-ddim"), "lrdm": (LRDM, "gaussian"), "plain": (PLAIN, "x_T alone")}
    return {
        "generation": [
            figure(who[key][0], "KD-Net x 1000", value, half, "lower", prior=who[key][1], T=steps)
            for key, value in values.items()
        ],
        "interpolation": [figure(LRDM, "halfway, KD-Net x 1000", blends, half, "lower", way="pixels")],
    }


def test_4b_5_and_8a_samples(figure: Make, verdict: Callable[..., Any]) -> None:
    assert verdict("4b", DIFFAE, samples(figure, 10, diffae=1.0, plain=3.0)).holds is True
    assert verdict("4b", DIFFAE, samples(figure, 10, half=0.5, diffae=2.5, plain=3.0)).holds is False
    assert verdict("5", DIFFAE, samples(figure, 50, diffae=3.5, plain=3.0)).holds is True  # a sixth worse
    assert verdict("5", DIFFAE, samples(figure, 50, half=0.2, diffae=3.5, plain=3.0)).holds is False
    assert verdict("5", DIFFAE, samples(figure, 50, diffae=4.5, plain=3.0)).holds is False
    assert verdict("8a", LRDM, samples(figure, 50, diffae=1.0, lrdm=1.1)).holds is True
    assert verdict("8a", LRDM, samples(figure, 50, diffae=1.0, lrdm=1.5)).holds is False
    # as good as Diff-AE's, which are no samples
    assert verdict("8a", LRDM, samples(figure, 50, blends=1.0, diffae=1.0, lrdm=1.0)).holds is False
    # the other number of steps says nothing
    assert verdict("5", DIFFAE, samples(figure, 10, diffae=1.0, plain=3.0)).word == UNKNOWN


def test_6_few_shot(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(given: str, *values: float, asked: tuple[str, ...] = ("hat", "beard")) -> dict[str, list[Figure]]:
        free = [
            figure(DIFFAE, SHARE, 0.3, 0.05, "higher", num=200, attribute=a, given=NOTHING)
            for a in ("hat", "beard")
        ]
        after = [
            figure(DIFFAE, SHARE_OF_SET, v, 0.1, "higher", attribute=a, given=given, set=k + 1)
            for k, v in enumerate(values)
            for a in asked
        ]
        return {"few-shot": [*free, *after]}

    for number, given in (("6a", LIKE), ("6b", UNLIKE)):
        holds = verdict(number, DIFFAE, of(given, 0.6, 0.7, 0.8))
        assert holds.holds is True and holds.figures.startswith("70.0 % of draws after 6 sets of examples")
        assert verdict(number, DIFFAE, of(given, 0.31, 0.33, 0.35)).holds is False  # all draws may do that
        assert verdict(number, DIFFAE, of(given, 0.0, 0.4, 1.0)).holds is False  # one set did it
    assert verdict("6b", DIFFAE, of(LIKE, 0.7, 0.7)).word == UNKNOWN
    half = verdict("6a", DIFFAE, of(LIKE, 0.6, 0.7, asked=("hat",)))
    assert half.word == UNKNOWN and half.figures.endswith("with and without examples of beard")


def test_student_s_interval() -> None:
    from scipy.stats import t as student

    values = [0.2, 0.5, 0.1, 0.4]
    found = t_interval(values).interval
    assert found is not None
    low, high = student.interval(0.95, 3, loc=0.3, scale=np.std(values, ddof=1) / 2)
    assert (found.value, found.low, found.high) == pytest.approx((0.3, low, high))


def errors(figure: Make, name: str, values: dict[int, float]) -> list[Figure]:
    return [
        figure(name, "MSE", v, 0.1, "lower", **{"images seen": n, "x_T": "inferred"})
        for n, v in values.items()
    ]


def test_7_training(figure: Make, verdict: Callable[..., Any]) -> None:
    theirs = errors(figure, DIFFAE, {10: 9.0, 20: 5.0})
    better = (*theirs, *errors(figure, PDAE, {10: 4.0, 20: 2.0}))
    later = (*theirs, *errors(figure, PDAE, {10: 6.0, 20: 4.0}))
    slower = (*theirs, *errors(figure, PDAE, {10: 9.5, 20: 5.5}))
    assert verdict("7a", PDAE, {}, against=better).holds is True
    assert verdict("7a", PDAE, {}, against=slower).holds is False
    fast = verdict("7b", PDAE, {}, against=better, pretraining=300_000)
    assert fast.holds is True and "after 10 images (and 300,000 of the DPM's before)" in fast.figures
    assert verdict("7b", PDAE, {}, against=later).holds is False
    assert "never gets there" in verdict("7b", PDAE, {}, against=slower).figures
    unequal = (*theirs, *errors(figure, PDAE, {30: 1.0}))
    for none in ((), unequal):
        assert verdict("7a", PDAE, {}, against=none).word == UNKNOWN


def test_8b_lambda(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(psnr: tuple[float, float], kd: tuple[float, float]) -> tuple[Figure, ...]:
        found = []
        for weight, p, k in zip((1e-5, 1e-3), psnr, kd, strict=True):
            found.append(figure("LRDM", "PSNR", p, 0.1, "higher", **{"lambda": weight, "x_T": "random"}))
            found.append(
                figure("LRDM", "KD-Net x 1000", k, 0.1, "lower", **{"lambda": weight, "prior": "gaussian"})
            )
        return tuple(found)

    assert verdict("8b", LRDM, {}, sweep=of((25.0, 22.0), (5.0, 2.0))).holds is True
    assert verdict("8b", LRDM, {}, sweep=of((25.0, 24.9), (5.0, 2.0))).holds is False
    assert verdict("8b", LRDM, {}, sweep=of((25.0, 22.0), (2.0, 5.0))).holds is False
    assert verdict("8b", LRDM, {}, sweep=of((25.0, 22.0), (5.0, 2.0))[:2]).word == UNKNOWN


def test_9_interpolation(figure: Make, verdict: Callable[..., Any]) -> None:
    def of(ppl: float, smoothness: float, kd: float) -> dict[str, list[Figure]]:
        found = []
        for who, way, values in (
            (DIFFAE, "z and x_T", (ppl, smoothness, kd)),
            (DIFFAE, "pixels", (1.0, 0.9, 20.0)),
            (PLAIN, "DDIM noise", (3.0, 0.5, 40.0)),
        ):
            for name, better, value in zip(
                ("PPL (MSE)", "smoothness", "halfway, KD-Net x 1000"),
                ("lower", "higher", "lower"),
                values,
                strict=True,
            ):
                found.append(figure(who, name, value, 0.05, better, way=way))
        return {"interpolation": found}

    good = of(1.0, 0.9, 5.0)
    assert verdict("9a", DIFFAE, good).holds is True and verdict("9b", DIFFAE, good).holds is True
    assert verdict("9a", DIFFAE, of(4.0, 0.9, 5.0)).holds is False
    assert verdict("9a", DIFFAE, of(1.0, 0.5, 5.0)).holds is False
    assert verdict("9b", DIFFAE, of(1.0, 0.9, 30.0)).holds is False  # mixing pixels does better


def test_what_is_missing_is_told(findings_of: Callable[..., Findings]) -> None:
    absent = {("reconstruction", LRDM): f"bundle {LRDM} is not shipped"}
    found = verdicts(findings_of({}, absent=absent))
    assert {v.word for v in found} == {UNKNOWN}
    (first,) = (v for v in found if v.claim.number == "1" and v.who == LRDM)
    assert first.figures == f"bundle {LRDM} is not shipped"
    assert all(v.figures for v in found)
    assert [v.claim.number for v in found] == [c.number for c in CLAIMS for _ in c.who]
    assert set(TITLES) >= {who for c in CLAIMS for who in c.who}
