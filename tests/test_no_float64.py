"""Everything runs on a device without float64, as Apple's GPUs are, and gives there what a CPU gives.

The device is a fake: its tensors say that they lie elsewhere (on "meta", the one other device that torch's
autograd knows on every machine) and are computed on the CPU. Whatever makes a float64 tensor there raises the
TypeError that a Mac raises, and so does an operation that mixes devices, but for numbers of no dimension.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from rdm_cli.bundles.bundle import Bundle, open_bundle
from rdm_cli.bundles.places import shipped_bundles
from rdm_cli.kernels import float64
from rdm_cli.kernels.ddim import last
from rdm_cli.kernels.float64 import Table, has_float64
from rdm_cli.kernels.interpolation import lerp, slerp
from rdm_cli.kernels.parameterization import add_noise, to_eps, to_x_0, training_target
from rdm_cli.kernels.reversible import TwoStates
from rdm_cli.kernels.spec import SamplingSpec
from rdm_cli.kernels.standardise import mean_and_std
from rdm_cli.kernels.two_step import two_step_decode, two_step_encode
from rdm_cli.kernels.warp import moved, tps_warp
from rdm_cli.methods.method import Method
from rdm_cli.models.latent_mlp import LatentMLPConfig
from rdm_cli.pipeline.pipeline import Pipeline
from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig
from rdm_cli.registry import METHODS, SOLVERS, load

DEVICE = torch.device("meta")


class OnDevice(Tensor):
    """A tensor of the device; ``held`` is the CPU's."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        if held.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as it has none")
        made: OnDevice = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.shape, strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    def __repr__(self) -> str:
        return f"OnDevice({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:
        return self.held.tolist()


class _Mode(TorchDispatchMode):
    """Sees to what is made on the device from nothing, and to what is moved there."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


MOVES = ("aten::_to_copy", "aten::copy_")


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
    there = [x for x in given if isinstance(x, OnDevice)]
    asked = kwargs.get("device")
    name = func._schema.name
    if there and name not in MOVES and any(x.ndim and not isinstance(x, OnDevice) for x in given):
        indices = name.startswith("aten::index") or name == "aten::_index_put_impl_"
        if not indices:
            raise RuntimeError(f"{name}: tensors of two devices")
    goes_there = torch.device(asked).type == DEVICE.type if asked is not None else bool(there)
    # a Mac casts while it copies; that the cast comes first is this project's own care
    if name == "aten::_to_copy" and goes_there and not there and given[0].dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype as it has none")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu") if goes_there else asked}
    if kwargs.get("pin_memory"):
        kwargs = {**kwargs, "pin_memory": False}
    plain_args, plain_kwargs = tree_map(_plain, (args, kwargs))
    result = func(*plain_args, **plain_kwargs)
    if func._schema.is_mutable and args and isinstance(args[0], Tensor) and result is plain_args[0]:
        return args[0]
    return tree_map(_there, result) if goes_there else result


def _plain(x: Any) -> Any:
    return x.held if isinstance(x, OnDevice) else x


def _there(x: Any) -> Any:
    return OnDevice(x) if isinstance(x, Tensor) and not isinstance(x, OnDevice) else x


@contextmanager
def no_float64_device() -> Iterator[torch.device]:
    """The device, which is there within the block."""
    float64._KNOWN.clear()
    try:
        with _Mode():
            yield DEVICE
    finally:
        float64._KNOWN.clear()


SPEC = SamplingSpec(spacing="log-snr", steps=4)
TABLE = Table(SPEC.schedule.alpha_bar())


@pytest.fixture
def device() -> Iterator[torch.device]:
    with no_float64_device() as found:
        yield found


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


def denoise(x_t: Tensor, t: Tensor) -> Tensor:
    """As a network that predicts v: by a table over t, read wherever t lies."""
    return to_eps("v", torch.sin(3 * x_t), x_t, TABLE[t])


def on_cpu(value: Tensor) -> Tensor:
    return value.cpu()


def test_the_device_refuses_float64(device: torch.device, x: Tensor) -> None:
    """The fake does what a Mac does; without that the tests here would hold anything."""
    assert not has_float64(device) and has_float64(x.device)
    there = x.to(device)
    for make in (
        lambda: there.double(),
        lambda: x.double().to(device),
        lambda: torch.zeros(1, dtype=torch.float64, device=device),
        lambda: torch.nn.Linear(1, 1).double().to(device),
    ):
        with pytest.raises(TypeError, match="float64"):
            make()
    with pytest.raises(RuntimeError, match="two devices"):
        there + x


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_go_down_and_up(name: str, device: torch.device, x: Tensor) -> None:
    solver = load(SOLVERS, "solver", name)
    spec = solver.spec(SPEC)
    expected, found = (last(solver.decode(denoise, noise, spec, 4)) for noise in (x, x.to(device)))
    assert torch.equal(on_cpu(found), expected)
    if solver.encode is None:
        return
    there = last(solver.encode(denoise, x.to(device), spec, 4, 2))
    here = last(solver.encode(denoise, x, spec, 4, 2))
    if isinstance(here, TwoStates):
        assert not isinstance(there.x_t, OnDevice) and there.x_t.dtype == torch.float64
        assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))
    else:
        assert isinstance(there, OnDevice) and torch.equal(on_cpu(there), here)


def test_two_steps(device: torch.device, x: Tensor) -> None:
    there, here = (last(two_step_encode(denoise, x_0, SPEC)) for x_0 in (x.to(device), x))
    assert all(torch.equal(a, b) for a, b in zip(there, here, strict=True))
    assert torch.equal(
        last(two_step_decode(denoise, there, SPEC)), last(two_step_decode(denoise, here, SPEC))
    )


def test_conversions_take_alpha_bar_from_the_cpu(device: torch.device, x: Tensor) -> None:
    t = torch.tensor([0, 999])
    eps = x.flip(0)
    for convert in (
        lambda x, eps, ab: add_noise(x, eps, ab),
        lambda x, eps, ab: to_x_0(eps, x, ab),
        lambda x, eps, ab: to_eps("x_0", eps, x, ab),
        lambda x, eps, ab: training_target("v", x, eps, ab),
    ):
        found = convert(x.to(device), eps.to(device), TABLE[t.to(device)])
        assert isinstance(found, OnDevice)
        assert torch.equal(on_cpu(found), convert(x, eps, TABLE.values[t]))


def test_interpolation_standardising_and_warps(device: torch.device, x: Tensor) -> None:
    alphas = torch.tensor([0.0, 0.3, 1.0])
    there = x.to(device)
    for between in (lerp, slerp):
        for alpha, there_alpha in ((0.3, 0.3), (alphas, alphas.to(device))):
            found = between(there[0], there[1], there_alpha)
            assert isinstance(found, OnDevice)
            assert torch.equal(on_cpu(found), between(x[0], x[1], alpha))
    for found, expected in zip(mean_and_std(there.flatten(1)), mean_and_std(x.flatten(1)), strict=True):
        assert torch.equal(on_cpu(found), expected)
    uniform = x.flatten(1)[:, :32].reshape(2, 16, 2)
    warped = tps_warp(there, moved(uniform.to(device), 4, 2.0))
    assert torch.equal(on_cpu(warped), tps_warp(x, moved(uniform, 4, 2.0)))


def test_a_table_keeps_a_copy_where_there_is_float64() -> None:
    """No read of a table makes a GPU wait for the CPU."""
    assert TABLE[torch.tensor([3])].dtype == torch.float64
    table = Table(TABLE.values)
    table[torch.zeros(1, dtype=torch.int64, device="meta")]
    assert {str(device) for device in table._copies} == {"cpu", "meta"}


def test_spacing_does_not_change_the_float64_of_a_cpu(x: Tensor) -> None:
    """On a CPU nothing is rounded that was not rounded before."""
    spec = replace(SPEC, clip_x_0=False)
    states = last(two_step_encode(denoise, x, spec))
    assert states.x_t.dtype == torch.float64
    assert (last(two_step_decode(denoise, states, spec)).float() - x).abs().max() < 1e-6


METHOD_PRESETS = [
    ("diffae", "small32"), ("dpm", "small32"), ("pdae", "small32"), ("lrdm", "small32"),
    ("lrdm", "small32-t"), ("lrdm", "small32-style"),
]  # fmt: skip


def random_model(method: str, preset: str) -> Any:
    """A model of a preset, with weights of which none is zero, so that all that it computes matters."""
    record: Method = load(METHODS, "method", method)
    torch.manual_seed(0)
    model = record.model(record.presets[preset].config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


@pytest.mark.parametrize(("method", "preset"), METHOD_PRESETS)
def test_no_model_holds_a_float64_tensor(method: str, preset: str) -> None:
    model = random_model(method, preset)
    held = {**dict(model.named_buffers()), **dict(model.named_parameters())}
    assert {name for name, value in held.items() if value.dtype == torch.float64} == set()


@pytest.mark.parametrize(("method", "preset"), METHOD_PRESETS)
def test_a_loss_and_its_gradients(method: str, preset: str, device: torch.device) -> None:
    model = random_model(method, preset).train()
    generator = torch.Generator().manual_seed(1)
    x_0 = torch.randn(2, *model.image_shape, generator=generator).clamp(-1, 1)
    eps = torch.randn(2, *model.x_T_shape, generator=generator)
    noise = {n: torch.randn(2, *s, generator=generator) for n, s in model.noise_shapes.items()}
    losses, gradients = [], []
    for where in (torch.device("cpu"), device):
        model = model.to(where)
        more = {"noise": {n: v.to(where) for n, v in noise.items()}} if noise else {}
        torch.manual_seed(2)
        loss = model(x_0.to(where), torch.tensor([10, 900]).to(where), eps.to(where), **more)
        model.zero_grad()
        loss.mean().backward()
        losses.append(on_cpu(loss.detach()))
        gradients.append([on_cpu(p.grad) for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=0)
    for here, there in zip(*gradients, strict=True):  # sums in another order
        assert (there - here).norm() <= 1e-4 * here.norm() + 1e-6


@pytest.mark.parametrize(
    ("method", "preset", "inversion"),
    [(*one, how) for one, how in zip(METHOD_PRESETS, ["fixed-point", "ddim", "exact"] * 2, strict=True)],
)
def test_codes_and_pictures(method: str, preset: str, inversion: str, device: torch.device) -> None:
    model = random_model(method, preset).eval().requires_grad_(False)
    bundle = Bundle(
        name=method, folder=Path(), method=load(METHODS, "method", method), model=model, digest="0" * 64
    )
    x_0 = torch.randn(1, *model.image_shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    found = []
    for where in (torch.device("cpu"), device):
        pipeline = Pipeline(bundle=replace(bundle, model=model.to(where), device=where))
        codes = pipeline.encode(x_0, inversion=inversion, steps=2)
        found.append((codes.z, codes.x_T, codes.other, pipeline.decode(codes)))
    for here, there in zip(*found, strict=True):
        # diffusers' attention is another kernel there, so rounding differs
        assert here is None or (here - there).norm() <= 1e-4 * here.norm()
        assert here is None or here.isfinite().all()


def test_the_latent_prior(device: torch.device) -> None:
    config = LatentDDIMConfig(network=LatentMLPConfig(z_width=8, hidden_width=16, num_layers=3))
    torch.manual_seed(0)
    prior = LatentDDIM(config).eval()
    z = torch.randn(4, 8)
    here, loss = prior.sample(z, 3), prior(z, torch.tensor([0, 1, 2, 999]), z.flip(0))
    prior = prior.to(device)
    assert torch.equal(on_cpu(prior.sample(z.to(device), 3)), here)
    t = torch.tensor([0, 1, 2, 999]).to(device)
    assert torch.equal(on_cpu(prior(z.to(device), t, z.flip(0).to(device)).detach()), loss.detach())


@pytest.mark.parametrize("name", sorted(shipped_bundles()))
def test_shipped_bundles_open_there(name: str, device: torch.device) -> None:
    bundle = open_bundle(name, device)
    assert all(p.device.type == device.type for p in bundle.model.parameters())  # type: ignore[attr-defined]
    if "prior" in bundle.parts:
        assert bundle.prior.z_mean.device.type == device.type
