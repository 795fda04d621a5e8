"""A GPU against the CPU: codes, pictures, the steps of training, and runs that stop on one and go on.

Left out unless asked for: ``pytest -m gpu tests/gpu``. RDM_TEST_DEVICE names another device than cuda; on the
CPU the same tests hold trivially, and show that they can run. Each prints what it measured, which ``-rP``
shows. Where there is no such device they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rdm_cli import Codes, Pipeline, open_pipeline
from rdm_cli.evaluation.distances import open_distances
from rdm_cli.evaluation.generation import features
from rdm_cli.metrics.features import open_effnet_lite0
from rdm_cli.metrics.reconstruction import psnr
from rdm_cli.registry import DEFAULT_BUNDLE, METHODS, load
from rdm_cli.runtime import resolve_device
from rdm_cli.training.checkpoint import load_checkpoint
from rdm_cli.training.loop import Settings, make_optimizer
from rdm_cli.training.pixel_judge import train_pixel_judge
from rdm_cli.training.run.plan import TrainOptions, make_accelerator, make_plan
from rdm_cli.training.run.run import TrainingRun

pytestmark = pytest.mark.gpu

DEVICE = os.environ.get("RDM_TEST_DEVICE", "cuda")
FACES = sorted((Path(__file__).resolve().parents[2] / "assets" / "faces").glob("*.png"))[:3]
STEPS = 10

# The largest relative distance of z and of x_T from the CPU's, and the least PSNR, in dB, between pictures of
# one code. TF32 keeps 10 bits of a factor's 23; an inversion amplifies what differs, some hundredfold.
TOLERANCES = {
    "fp32": {"z": 1e-4, "ddim": 1e-2, "exact": 1e-2, "picture": 60.0},
    "tf32": {"z": 1e-2, "ddim": 2e-1, "exact": 2e-1, "picture": 50.0},
}
BF16_PICTURE = 40.0  # dB, against fp32 on the same device
LOSS = (1e-4, 1e-2)  # relative, of the first step and of those after it, in which Muon has rounded to bf16
RESUMED = 1e-3  # relative, of weights and their average: some kernels of a GPU add in another order each time


@pytest.fixture(scope="module")
def device() -> torch.device:
    return resolve_device(DEVICE)


@pytest.fixture(params=["fp32", "tf32"])
def arithmetic(request: pytest.FixtureRequest) -> Iterator[str]:
    """Convolutions and products of float32 as they are, or in TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    on = request.param == "tf32"
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
    yield request.param
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def on_cpu() -> Pipeline:
    return open_pipeline(DEFAULT_BUNDLE, device="cpu", batch_size=len(FACES))


@pytest.fixture(scope="module")
def there(device: torch.device) -> Pipeline:
    return open_pipeline(DEFAULT_BUNDLE, device=device, batch_size=len(FACES))


@pytest.fixture(scope="module")
def x_0(on_cpu: Pipeline) -> Tensor:
    return on_cpu.load_images(FACES)


@pytest.fixture(scope="module")
def expected(on_cpu: Pipeline, x_0: Tensor) -> dict[str, tuple[Codes, Tensor]]:
    """Of each inversion the CPU's codes, and what it makes of them."""
    found = {}
    for inversion in ("ddim", "exact"):
        codes = on_cpu.encode(x_0, steps=STEPS, inversion=inversion)
        found[inversion] = codes, on_cpu.decode(codes)
    return found


def distance(found: Tensor | None, expected: Tensor | None) -> float:
    assert found is not None and expected is not None and bool(found.isfinite().all())
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("inversion", ["ddim", "exact"])
def test_codes_and_pictures_are_the_cpus(
    inversion: str, arithmetic: str, there: Pipeline, x_0: Tensor, expected: Any
) -> None:
    codes, pictures = expected[inversion]
    found = there.encode(x_0, steps=STEPS, inversion=inversion)
    z, x_T = distance(found.z, codes.z), distance(found.x_T, codes.x_T)
    alike = float(psnr(pictures, there.decode(codes)).min())
    own = float(psnr(x_0, there.decode(found)).min())
    theirs = float(psnr(x_0, pictures).min())
    print(f"{inversion}, {arithmetic}: z {z:.1e}, x_T {x_T:.1e}, pictures of one code {alike:.1f} dB apart; ")
    print(f"    there and back {own:.1f} dB, on the CPU {theirs:.1f}")
    limits = TOLERANCES[arithmetic]
    assert z < limits["z"] and x_T < limits[inversion] and alike > limits["picture"]
    assert own > min(theirs, 60.0) - 2.0


def test_bf16_is_near_fp32(device: torch.device, there: Pipeline, expected: Any) -> None:
    half = open_pipeline(DEFAULT_BUNDLE, device=device, batch_size=len(FACES), precision="bf16")
    codes, _ = expected["ddim"]
    found = float(psnr(there.decode(codes), half.decode(codes)).min())
    print(f"bf16 against fp32: {found:.1f} dB")
    assert found > BF16_PICTURE


def test_the_first_steps_have_the_cpus_losses(device: torch.device, x_0: Tensor) -> None:
    """Equal weights, images and noise; the preset's optimiser takes the steps."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    preset = load(METHODS, "method", "diffae").presets["small64"]
    generator = torch.Generator().manual_seed(0)
    drawn = [
        (
            torch.randint(0, 1000, (len(x_0),), generator=generator),
            torch.randn(x_0.shape, generator=generator),
        )
        for _ in range(3)
    ]

    def losses(where: torch.device) -> list[float]:
        torch.manual_seed(0)
        model = load(METHODS, "method", "diffae").model(preset.config).to(where).train()
        optimizer = make_optimizer(model, _settings(preset))
        found = []
        for t, eps in drawn:
            loss = model(x_0.to(where), t.to(where), eps.to(where)).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(float(loss))
        return found

    try:
        ours, theirs = losses(device), losses(torch.device("cpu"))
    finally:
        torch.backends.cudnn.allow_tf32 = before
    print(f"losses {ours}, the CPU's {theirs}")
    assert theirs[0] != theirs[1]
    assert ours[0] == pytest.approx(theirs[0], rel=LOSS[0])
    assert ours[1:] == pytest.approx(theirs[1:], rel=LOSS[1])


def _settings(preset: Any) -> Settings:
    recipe = {name: getattr(preset.recipe, name) for name in vars(preset.recipe) if name != "num_images"}
    return Settings(**recipe)


@pytest.fixture
def trained(tmp_path: Path, faces: Path, tiny_bundle: Path) -> Iterator[Any]:
    """``trained("run", 6, DEVICE)`` trains the tiny bundle's networks to step 6 and gives its checkpoint."""
    from accelerate.state import AcceleratorState, GradientState

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    def train(run: str, steps: int, where: str, *, resume: bool = False, precision: str = "no") -> Any:
        reset()
        given: dict[str, Any] = {
            "method": "diffae", "folder": faces, "run_folder": tmp_path / run,
            "bundle": tmp_path / f"of-{run}",
            "preset": None if resume else "small32", "init_from": None if resume else str(tiny_bundle),
            "num_steps": steps, "sheet_minutes": None, "batch_size": 4, "warmup_steps": 0,
            "decay_fraction": 0.0, "resume": resume, "mixed_precision": precision, "device": where,
        }  # fmt: skip
        accelerator = make_accelerator(device=where, threads=None, mixed_precision=precision, log=None)
        on_cpu = accelerator.device.type == "cpu"
        plan = make_plan(TrainOptions(**given), num_processes=1, on_cpu=on_cpu, command="rdm train")
        records = list(TrainingRun(plan, accelerator, print).steps())
        assert records[-1].step == steps
        return load_checkpoint(tmp_path / run)

    yield train
    reset()


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_run_that_stopped_goes_on_as_if_undisturbed(trained: Any, precision: str) -> None:
    whole = trained("whole", 12, DEVICE, precision=precision)
    first = trained("parts", 6, DEVICE, precision=precision)
    again = trained("parts", 12, DEVICE, precision=precision, resume=True)
    assert (first.progress.step, again.progress.step) == (6, 12)
    off, moved = _furthest(again.tensors, whole.tensors), _furthest(first.tensors, whole.tensors)
    print(f"{precision}: a resumed run's weights are {off:.1e} off; six steps are {moved:.1e}")
    assert set(again.tensors) == set(whole.tensors)
    assert off < (RESUMED if precision == "no" else 10 * RESUMED)
    assert off < moved / 3


def test_a_run_of_this_device_goes_on_on_the_cpu(trained: Any, tmp_path: Path) -> None:
    there = trained("run", 6, DEVICE)
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    here = trained("moved", 8, "cpu", resume=True)
    same = trained("run", 8, DEVICE, resume=True)
    off, moved = _furthest(here.tensors, same.tensors), _furthest(there.tensors, same.tensors)
    print(
        f"two steps on the CPU, or on {DEVICE}: weights {off:.1e} apart; the steps themselves are {moved:.1e}"
    )
    assert off < moved  # a GPU draws other noise
    assert open_pipeline(tmp_path / "of-moved", device="cpu").bundle.digest


def test_networks_of_metrics_say_the_same(device: torch.device) -> None:
    """Features, ST-LPIPS and a judge of pixels, on the CPU and here."""
    pictures = open_pipeline(DEFAULT_BUNDLE, device="cpu").load_images(FACES)
    extractor, (distances, _) = open_effnet_lite0(), open_distances()
    here, there = (features(extractor, pictures, at) for at in (device, torch.device("cpu")))
    assert float((here - there).norm() / there.norm()) < 1e-2
    (x, y), st_lpips = (pictures[:2], pictures[1:3]), distances[-1]
    assert torch.allclose(replace(st_lpips, device=device)(x, y), st_lpips(x, y), rtol=1e-2, atol=1e-3)
    labels = torch.tensor([[0.0], [1.0], [0.0]])
    judge = train_pixel_judge(pictures, labels, ["second"], epochs=30, device=device)
    assert judge.labels(pictures)[:, 0].tolist() == [False, True, False]
    assert next(judge.network.parameters()).device.type == device.type


def _furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The relative distance of all weights together, and of their average, whichever is larger."""
    largest = 0.0
    for part in ("model.", "average."):
        names = [name for name in expected if name.startswith(part)]
        assert names
        ours, theirs = (torch.cat([d[n].double().flatten() for n in names]) for d in (found, expected))
        assert bool(ours.isfinite().all())
        largest = max(largest, float((ours - theirs).norm() / theirs.norm()))
    return largest
