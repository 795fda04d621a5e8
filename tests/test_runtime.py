"""What the host of a pipeline has set stays and counts for nothing; devices, threads and memory, in one line.

And: what is cast once is what autocast casts at every call.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from rdm_cli import runtime
from rdm_cli.bundles.bundle import Bundle, open_bundle
from rdm_cli.errors import RdmError, UsageError
from rdm_cli.methods.method import Method
from rdm_cli.models.blocks import attend
from rdm_cli.pipeline.pipeline import Pipeline, open_pipeline
from rdm_cli.registry import METHODS, load
from rdm_cli.runtime import autocast, is_out_of_memory, resolve_device, set_up, use_threads

CPU = torch.device("cpu")


@pytest.mark.parametrize(("name", "preset"), [(n, "small32") for n in ("diffae", "dpm", "pdae", "lrdm")])
def test_weights_cast_once_change_no_bit(name: str, preset: str) -> None:
    torch.manual_seed(0)
    method: Method = load(METHODS, "method", name)
    model: Any = method.model(method.presets[preset].config).eval().requires_grad_(False)
    for parameter in model.parameters():  # what begins at zero would hide everything behind it
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    bundle = Bundle(name="random", folder=Path(), method=method, model=model, digest="")
    cast = bundle.model_in("bf16")
    assert bundle.model_in("fp32") is model and bundle.model_in("bf16") is cast and cast is not model
    images = torch.rand(2, *model.image_shape) * 2 - 1
    x_t, t = torch.randn(2, *model.x_T_shape), torch.tensor([20, 700])

    def answers(network: Any) -> list[torch.Tensor]:
        with torch.inference_mode(), autocast(CPU, "bf16"):
            z = network.encode(network.enter(images))["z"]
            return [z, network.denoiser({"z": z})(x_t, t), network.leave(x_t)]

    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = answers(cast)
    for ours, theirs in zip(found, answers(model), strict=True):
        assert torch.equal(ours, theirs)
    assert found[1].abs().sum() > 0
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    dtypes = {p.dtype for p in cast.parameters()}  # type: ignore[attr-defined]
    assert dtypes == {torch.float32, torch.bfloat16}


def test_attention_in_bfloat16_is_that_in_float32_rounded() -> None:
    q, k, v = torch.randn(3, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16().unbind(0)
    exact = F.scaled_dot_product_attention(q.double(), k.double(), v.double())
    found = attend(q, k, v)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), exact, rtol=0.02, atol=0.02)
    full = attend(q.float(), k.float(), v.float())
    torch.testing.assert_close(full.double(), exact, rtol=1e-5, atol=1e-5)


@pytest.fixture
def host() -> Iterator[None]:
    """A host program's own threads and default dtype, which the test may change."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)


def made(bundle: Path, precision: Any = "fp32") -> list[Tensor]:
    """What a newly opened pipeline makes of a seed: codes, pictures, and codes of these."""
    pipeline = Pipeline(bundle=open_bundle(bundle), batch_size=2, precision=precision)
    drawn = pipeline.sample(2, seed=3)
    x_0 = pipeline.decode(drawn)
    codes = pipeline.encode(x_0.clamp(-1, 1))
    exact = pipeline.encode(x_0.clamp(-1, 1), inversion="exact", steps=3)
    moved = pipeline.manipulate(codes, {"smiling": 0.5})
    between = pipeline.interpolate(codes[0], codes[1], [0.5])
    assert codes.infos[0].precision == precision
    assert drawn.x_T is not None and codes.x_T is not None and exact.x_T is not None
    return [
        drawn.z, drawn.x_T, x_0, codes.z, codes.x_T, exact.x_T, moved.z, between.z,
        pipeline.decode(exact), pipeline.trajectory(codes[0], codes[1], [0.5]),
    ]  # fmt: skip


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert [t.dtype for t in found] == [t.dtype for t in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_outer_autocast_changes_no_code(tiny_bundle: Path, precision: str) -> None:
    """A code says fp32: within torch.autocast of bf16 it used to be made in bf16 all the same."""
    expected = made(tiny_bundle, precision)
    with torch.autocast("cpu", torch.float16 if precision == "bf16" else torch.bfloat16):
        found = made(tiny_bundle, precision)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype != torch.float32  # the host's own goes on
    assert_same(found, expected)


def test_another_default_dtype_changes_no_code(tiny_bundle: Path, host: None) -> None:
    expected = made(tiny_bundle)
    torch.set_default_dtype(torch.float64)
    assert_same(made(tiny_bundle), expected)
    assert torch.get_default_dtype() == torch.float64


def test_opening_a_pipeline_leaves_its_host_alone(
    tiny_bundle: Path, faces: Path, monkeypatch: pytest.MonkeyPatch, host: None
) -> None:
    torch.set_num_threads(3)
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: pytest.fail("malloc is the host's"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12_345)
    warnings.simplefilter("error", RuntimeWarning)  # pytest puts the filters back
    filters, state = list(warnings.filters), torch.get_rng_state()
    pipeline = open_pipeline(tiny_bundle, device="cpu", batch_size=2)
    codes = pipeline.encode(pipeline.load_images(faces / "a.png"), steps=2)
    pipeline.decode(codes)
    pipeline.sample(1, steps=2)
    assert torch.get_num_threads() == 3
    assert Image.MAX_IMAGE_PIXELS == 12_345
    assert warnings.filters == filters
    assert torch.equal(torch.get_rng_state(), state)
    open_pipeline(tiny_bundle, device="cpu", threads=2)  # asked for
    assert torch.get_num_threads() == 2


def test_commands_own_their_process(monkeypatch: pytest.MonkeyPatch, host: None) -> None:
    calls: list[None] = []
    monkeypatch.setattr(runtime, "keep_freed_memory", lambda: calls.append(None))
    assert set_up(device="cpu", threads=2) == torch.device("cpu")
    assert calls == [None] and torch.get_num_threads() == 2


@pytest.mark.parametrize("num", [0, -1, 1025, 100_000, 1.5])
def test_threads_that_cannot_be_had_are_refused(num: Any, tiny_bundle: Path, host: None) -> None:
    """OpenMP ends the whole process, by a segmentation fault, where it gets no more threads."""
    before = torch.get_num_threads()
    for use in (lambda: use_threads(num), lambda: open_pipeline(tiny_bundle, device="cpu", threads=num)):
        with pytest.raises(UsageError, match=f"threads {num}: between 1 and 1024"):
            use()
    assert torch.get_num_threads() == before


def test_devices_that_hold_no_values_are_refused() -> None:
    with pytest.raises(UsageError, match="^device meta: its tensors hold no values; try device cpu"):
        resolve_device("meta")
    for name in ("hpu", "xla", "privateuseone", "nonsense", "cpu:x"):
        with pytest.raises(UsageError, match=f"^device {name}: ") as caught:
            resolve_device(name)
        assert "\n" not in str(caught.value)
    assert resolve_device(torch.device("cpu")) == torch.device("cpu")


class Full(nn.Module):
    """A network for which the memory does not suffice."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def forward(self, *_: Any, **__: Any) -> Tensor:
        raise self.error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nsecond line"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: ..."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda e: type(e).__name__)
def test_too_little_memory_is_one_line_that_says_what_to_do(tiny_bundle: Path, error: Exception) -> None:
    assert is_out_of_memory(error)
    bundle = open_bundle(tiny_bundle)
    codes = Pipeline(bundle=bundle).sample(2)
    bundle.model.unet.conv_out, bundle.model.encoder = Full(error), Full(error)  # type: ignore[attr-defined]
    pipeline = Pipeline(bundle=bundle, batch_size=8)
    for use in (lambda: pipeline.decode(codes), lambda: pipeline.encode(torch.zeros(1, 3, 16, 16))):
        with pytest.raises(RdmError) as caught:
            use()
        told = "8 images at once on cpu: the memory does not suffice; take fewer: batch_size 4"
        assert str(caught.value) == told


def test_other_errors_of_torch_are_not_called_a_want_of_memory(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    bundle.model.encoder = Full(RuntimeError("shape mismatch"))  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="shape mismatch"):
        Pipeline(bundle=bundle).encode(torch.zeros(1, 3, 16, 16))
    assert not is_out_of_memory(ValueError("out of memory"))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"precision": "foo"}, "there is no precision 'foo'; known: fp32, bf16, fp16"),
        ({"batch_size": 0}, "batch_size 0: at least one"),
        ({"batch_size": 2.5}, "batch_size 2.5: at least one"),
        ({"device": None}, "device None: "),
        ({"batch_size": -4}, "batch_size -4: at least one"),
        ({"prior": "foo"}, "there is no prior 'foo'"),
        ({"solver": "foo"}, "there is no solver 'foo'"),
        ({"device": "meta"}, "device meta"),
        ({"threads": 0}, "threads 0"),
    ],
)  # fmt: skip
def test_what_a_pipeline_cannot_be_opened_with_is_one_line(
    tiny_bundle: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        open_pipeline(tiny_bundle, **{"device": "cpu", **wrong})
    assert str(caught.value).startswith(told)


def test_a_path_is_a_bundle(tiny_bundle: Path) -> None:
    for spec in (tiny_bundle, str(tiny_bundle)):
        assert open_pipeline(spec, device="cpu").bundle.name == "tiny"
    with pytest.raises(RdmError, match="no such bundle"):
        open_pipeline(Path("nosuch"), device="cpu")


def test_precisions_of_other_pipelines_stay(tiny_bundle: Path) -> None:
    """Pipelines of two precisions on one bundle do not see one another."""
    one = Pipeline(bundle=open_bundle(tiny_bundle), batch_size=2)
    x_0 = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before = one.encode(x_0, with_x_T=False).z
    replace(one, precision="bf16").encode(x_0, with_x_T=False)
    assert torch.equal(one.encode(x_0, with_x_T=False).z, before)


def test_importing_and_opening_in_a_new_process_warns_of_nothing(tiny_bundle: Path) -> None:
    code = f"import rdm_cli; rdm_cli.open_pipeline({str(tiny_bundle)!r}, device='cpu').sample(1, steps=2)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="torch brings GNU's OpenMP on Linux alone")
@pytest.mark.parametrize(
    ("own", "told"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "0")],
)
def test_threads_of_a_command_sleep_while_they_wait(own: dict[str, str], told: str) -> None:
    """As OpenMP itself says what it was told; spinning ones slow a busy machine down."""
    code = "from rdm_cli.cli import main; main(['--version']); import torch"
    environment = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    environment |= own | {"OMP_DISPLAY_ENV": "verbose"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and f"GOMP_SPINCOUNT = '{told}'" in done.stderr, done.stderr


def test_a_bundle_that_a_device_has_no_room_for_is_one_line(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(nn.Module, "to", full)
    with pytest.raises(RdmError) as caught:
        open_bundle(tiny_bundle)
    assert str(caught.value).startswith(f"{tiny_bundle} on cpu: the memory does not suffice; close other")


def test_threads_of_numpy_are_threads(host: None) -> None:
    use_threads(np.int64(2))  # type: ignore[arg-type]
    assert torch.get_num_threads() == 2
