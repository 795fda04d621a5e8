"""Fixtures that every test may use."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# how long an example takes says how busy the machine is
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# A thread that waits for others sleeps, and takes no core from other tests' processes. Read when torch is
# imported, here and in the processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# no network of its own: a request that is seen is the page's
BROWSER_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip

PROJECT = Path(__file__).resolve().parent.parent
SERVER = Path(__file__).with_name("rdm_server.py")


LONGEST = ("test_readme.py", "test_skill.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A minute's test begins first: at the end, one process would wait for the other's."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """The folder of golden tensors of one method, as ``golden("diffae")``.

    ``RDM_GOLDEN`` names the folder of all methods; where it is set, a missing folder is a failure.
    """

    def folder(name: str) -> Path:
        given = os.environ.get("RDM_GOLDEN")
        path = (Path(given) if given else PROJECT.parent / "shared" / "golden") / name
        if not path.is_dir():
            if given:
                pytest.fail(f"RDM_GOLDEN is set and {path} is no folder")
            pytest.skip(f"golden tensors: {path} is no folder; set RDM_GOLDEN to where they are")
        return path

    return folder


@pytest.fixture
def pixels_of() -> Callable[[Path], bytes]:
    """What a picture shows. Its file's bytes say besides how it was made, and so differ between verbs."""
    from PIL import Image

    def shown(path: Path) -> bytes:
        with Image.open(path) as image:
            return image.tobytes()

    return shown


@pytest.fixture(autouse=True)
def threads_as_told() -> Iterator[None]:
    """A command that a test runs may set torch's threads: those after it compute on OMP_NUM_THREADS again.

    Two processes of two threads each on two cores wait for one another most of the time.
    """
    yield
    told, torch = os.environ.get("OMP_NUM_THREADS"), sys.modules.get("torch")
    if told is not None and torch is not None and torch.get_num_threads() != int(told):
        torch.set_num_threads(int(told))


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """accelerate keeps one state a process, of one arithmetic: none is left over, before or after."""
    from accelerate.state import AcceleratorState, GradientState

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    reset()
    yield
    reset()


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle ``tiny``: a random Diff-AE of 16 px with z of 8, a latent prior, and three attributes.

    What starts at zero is drawn at random as well, so that pictures depend on z and on t.
    """
    import torch
    from torch import nn

    from rdm_cli.bundles.writing import save_bundle
    from rdm_cli.kernels.spec import SamplingSpec
    from rdm_cli.methods.diffae.config import DiffAEConfig
    from rdm_cli.methods.diffae.method import METHOD
    from rdm_cli.methods.diffae.model import DiffAE
    from rdm_cli.methods.directions import Directions
    from rdm_cli.models.encoder import EncoderConfig
    from rdm_cli.models.latent_mlp import LatentMLPConfig
    from rdm_cli.models.unet import UNetConfig
    from rdm_cli.priors.latent_ddim import LatentDDIM, LatentDDIMConfig

    shared: dict[str, Any] = {
        "image_size": 16, "model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1,
        "attention_resolutions": (8,), "z_width": 8, "patch_size": 2,
    }  # fmt: skip
    config = DiffAEConfig(
        encoder=EncoderConfig(**shared),
        unet=UNetConfig(**shared, time_width=32, dropout=0.0),
        prediction="v",
        sampling=SamplingSpec(steps=5),
    )
    network = LatentMLPConfig(z_width=8, hidden_width=16, num_layers=2, time_channels=8)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DiffAE(config)
        with torch.no_grad():
            for weight in model.parameters():
                if not weight.any():
                    weight.normal_(std=0.05)
        # a wider projection: codes of different pictures must differ visibly
        nn.init.normal_(model.encoder.proj_out.weight, std=0.5)
        prior = LatentDDIM(LatentDDIMConfig(network=network, steps=5))
        prior.z_std.fill_(0.02)  # an untrained prior draws codes some fifty times too long
        weight = torch.randn(3, 8)
    directions = Directions(
        names=("smiling", "glasses", "hat"),
        weight=weight,
        bias=torch.zeros(3),
        z_mean=torch.zeros(8),
        z_std=torch.ones(8),
        scores={
            "smiling": {"auroc": 0.9, "average_precision": 0.8, "num_positive": 5, "num_labelled": 10},
            "glasses": {"auroc": 0.7, "average_precision": 0.6, "num_positive": 4, "num_labelled": 10},
        },
    )
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    save_bundle(folder, METHOD, model, card="# tiny\n", prior=prior, directions=directions)
    return folder


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits are painted and read again once an attempt: a random network's never settle."""
    monkeypatch.setattr("rdm_cli.pipeline.editing.NUM_ROUNDS", 1)


class Rdms:
    """Forks of a process that has imported everything."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), "HF_HUB_OFFLINE": "1"}
        pipe = subprocess.PIPE
        self.server = subprocess.Popen(
            [sys.executable, str(SERVER)], stdin=pipe, stdout=pipe, text=True, env=environment
        )
        assert self._answer() == "ready"

    def _answer(self) -> Any:
        assert self.server.stdout is not None
        return json.loads(self.server.stdout.readline())

    def _ask(self, **request: Any) -> Any:
        assert self.server.stdin is not None
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return self._answer()

    def start(
        self,
        *argv: object,
        limit: int | None = None,
        log: Path | None = None,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        constants: dict[str, Any] | None = None,
        stdin: Path | None = None,
        stdout: Path | None = None,
    ) -> int:
        """Start one in ``folder``, whose files have at most ``limit`` bytes; returns its pid.

        ``constants`` are values for it alone, as ``{"rdm_cli.evaluation.card.STEPS": 2}``. It reads the file
        ``stdin``, and ``stdout`` takes its results, which may be a FIFO; else they go to the log.
        """
        pid: int = self._ask(
            argv=[str(word) for word in argv],
            log=str(log or self.log),
            limit=limit,
            environment=environment,
            folder=str(folder or Path.cwd()),
            constants=constants,
            stdin=None if stdin is None else str(stdin),
            stdout=None if stdout is None else str(stdout),
        )
        return pid

    def wait(self, pid: int, seconds: float = 600) -> int:
        """Its exit code; negative for a signal. One that takes longer than ``seconds`` is killed."""
        code: int = self._ask(wait=pid, seconds=seconds)
        return code

    def run(self, *argv: object, **how: Any) -> int:
        """Start one and wait for it."""
        return self.wait(self.start(*argv, **how))

    @property
    def said(self) -> str:
        """What the last one printed."""
        return self.log.read_text()


@pytest.fixture(scope="session")
def rdms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rdms]:
    """Runs rdm in processes of its own, quickly."""
    started = Rdms(tmp_path_factory.mktemp("server") / "log")
    yield started
    assert started.server.stdin is not None
    started.server.stdin.close()
    started.server.wait()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder ``faces`` of five smooth pictures, ``a.png`` to ``e.png``, the last ``sub/e.png``."""
    import numpy as np
    from PIL import Image

    folder = tmp_path / "faces"
    (folder / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d", "sub/e"):
        corners = rng.integers(0, 256, (3, 3, 3), dtype=np.uint8)
        Image.fromarray(corners).resize((16, 16), Image.Resampling.BICUBIC).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def onnx_classifier() -> Callable[..., Path]:
    """Write a classifier as an ONNX file: the mean of each channel of its input, times ``weight`` (3, K)."""
    import numpy as np

    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto

    def write(
        path: Path,
        *,
        shape: tuple[Any, ...] = ("batch", 3, 32, 32),
        weight: Any = ((4.0, -4.0), (0.0, 0.0), (0.0, 0.0)),
        softmax: bool = False,
        dtype: int = kinds.FLOAT,
        metadata: dict[str, str] | None = None,
        location: str | None = None,
        more_inputs: tuple[str, ...] = (),
    ) -> Path:
        values = np.array(weight, dtype=np.float32)
        tensor = onnx.numpy_helper.from_array(values, "weight")
        if location is not None:
            tensor.ClearField("raw_data")
            tensor.data_location = kinds.EXTERNAL
            tensor.external_data.add(key="location", value=location)
        axes = [2, 3] if shape[1:2] != (32,) else [1, 2]
        nodes = [
            helper.make_node("Cast", ["pictures"], ["as_float"], to=kinds.FLOAT),
            helper.make_node("ReduceMean", ["as_float"], ["means"], axes=axes[: len(shape) - 2], keepdims=0),
            helper.make_node("MatMul", ["means", "weight"], ["logits"]),
            *([helper.make_node("Softmax", ["logits"], ["scores"], axis=1)] if softmax else []),
        ]
        graph = helper.make_graph(
            nodes,
            "means",
            [
                helper.make_tensor_value_info("pictures", dtype, shape),
                *(helper.make_tensor_value_info(n, kinds.FLOAT, [1]) for n in more_inputs),
            ],
            [
                helper.make_tensor_value_info(
                    "scores" if softmax else "logits", kinds.FLOAT, [shape[0], values.shape[1]]
                )
            ],
            [tensor],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, metadata or {})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model.SerializeToString())
        return path

    return write


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The machine's Chromium, driven by playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    named = os.environ.get("RDM_CHROMIUM")
    found = named or next((path for name in CHROMIUMS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no chromium on this machine: apt-get install chromium, or set RDM_CHROMIUM")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=found, args=list(BROWSER_FLAGS))
        yield started
        started.close()
