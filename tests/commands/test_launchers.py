"""rdm train under accelerate's launcher and torchrun: two real processes, gloo, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from rdm_cli.bundles.bundle import open_bundle
from rdm_cli.training.checkpoint import FILE_NAME, load_checkpoint

pytestmark = pytest.mark.slow
PATIENCE = 600
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def accelerate(*words: object) -> list[str]:
    """accelerate's launcher of two processes; its --cpu would start one, where there is no MPI."""
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", str(free_port()), *map(str, words),
    ]  # fmt: skip


def torchrun(*words: object) -> list[str]:
    """torch's own; without "--" it takes --run for an option of its own, cut short."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
        "--master-port", str(free_port()), "-m", "--", *map(str, words),
    ]  # fmt: skip


def training(place: Path, faces: Path, bundle: Path, *words: object) -> list[object]:
    return [
        "train", "diffae", faces, "-o", place / "out", "--run", place / "run", "--init-from", bundle,
        "--batch-size", 4, "--sheet-minutes", 0, "--device", "cpu", "--threads", 1, *words,
    ]  # fmt: skip


def losses(run: Path) -> list[tuple[int, float]]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines)]


@pytest.mark.parametrize("launcher", ["accelerate", "torchrun"])
def test_two_processes_train_one_network(
    faces: Path, tiny_bundle: Path, tmp_path: Path, launcher: str
) -> None:
    """gloo; each process sees its half of the batch, both end, and one alone writes and speaks."""
    words = training(tmp_path, faces, tiny_bundle, "--steps", 4, "--json")
    command = torchrun("rdm_cli", *words) if launcher == "torchrun" else accelerate("-m", "rdm_cli", *words)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [o["step"] for o in printed[:-1]] == [1, 4]
    assert printed[-1]["output"] == str(tmp_path / "out")
    assert [step for step, _ in losses(tmp_path / "run")] == [1, 2, 3, 4]
    assert all(0 < loss < 100 for _, loss in losses(tmp_path / "run"))
    assert load_checkpoint(tmp_path / "run").progress.num_images == 16
    assert open_bundle(str(tmp_path / "out")).model.image_size == 16


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_ends_torchrun_saves_once(
    faces: Path, tiny_bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """SIGINT as a terminal sends it, to the whole group; SIGTERM as a scheduler does, to the launcher."""
    words = training(tmp_path, faces, tiny_bundle, "--steps", 100_000, "--checkpoint-minutes", 1e-3)
    with subprocess.Popen(
        torchrun("rdm_cli", *words),
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        # a shell's background job ignores Ctrl-C, and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        start_new_session=True,
    ) as process:
        try:
            limit = time.monotonic() + PATIENCE
            while not (tmp_path / "run" / FILE_NAME).exists():
                assert process.poll() is None and time.monotonic() < limit
                time.sleep(0.05)
            (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0 and out == ""
    saved = load_checkpoint(tmp_path / "run").progress.step
    said = [line for line in err.splitlines() if line.startswith("rdm: ")]
    assert len(said) == 2, err
    assert said[0].startswith(f"rdm: saved at step {saved}; go on with: ")
    assert said[1].startswith("rdm: interrupted")


SHARED = """
import sys, torch
from pathlib import Path
from torch import nn
from accelerate import Accelerator
from rdm_cli.training.ema import WeightAverage
from rdm_cli.training.checkpoint import Progress
from rdm_cli.training.loop import Budget, Settings, make_optimizer, train_steps

class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(12, 12).double()
    def forward(self, x_0, t, eps, noise):
        weight = t.double()[:, None] / 1000
        x_t = (1 - weight) * x_0.double().flatten(1) + weight * eps.double().flatten(1)
        return (self.layer(x_t) - eps.double().flatten(1) - noise["z"].double()).square().mean(1)

class Pictures(torch.utils.data.Dataset):
    def __len__(self):
        return 11
    def __getitem__(self, i):
        return torch.arange(12, dtype=torch.uint8).view(3, 2, 2) + 20 * i

settings = Settings(batch_size=4, lr=0.01, weight_decay=0.0, warmup_steps=0, decay_fraction=0.0,
                    ema_decay=0.9, flip=True, num_accumulations=int(sys.argv[2]))
model = Noisy()
optimizer = make_optimizer(model, settings)
average = WeightAverage(model, 0.9)
accelerator = Accelerator(cpu=True)
wrapped, prepared = accelerator.prepare(model, optimizer)
records = list(train_steps(wrapped, average=average, optimizer=prepared, images=Pictures(),
    num_train_steps=1000, settings=settings, budget=Budget(num_images=80), start=Progress(),
    accelerator=accelerator, noise_shapes={"z": (12,)}))
torch.save((model.state_dict(), average.averages, [r.loss for r in records],
            [r.elapsed_seconds for r in records]),
           Path(sys.argv[1]) / f"{accelerator.num_processes}-{accelerator.process_index}.pt")
accelerator.end_training()
"""


@pytest.mark.parametrize("num_accumulations", [1, 2])
def test_shards_sum_to_the_batch_of_one_process(tmp_path: Path, num_accumulations: int) -> None:
    """In float64 nothing is left to rounding: two processes take the steps of one, noise, flips and all."""
    script = tmp_path / "shared.py"
    script.write_text(SHARED)
    alone = [sys.executable, str(script), str(tmp_path), "1"]
    for command in (alone, accelerate(script, tmp_path, num_accumulations)):
        subprocess.run(command, check=True, timeout=PATIENCE, env=ENVIRONMENT)
    one, first, second = (
        torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("1-0", "2-0", "2-1")
    )
    assert all(torch.equal(first[part][name], second[part][name]) for part in (0, 1) for name in first[part])
    assert first[2:] == second[2:]  # losses and the main process's clock
    for part in (0, 1):
        # twenty steps of Adam make more of 1e-16, but not a billion times as much
        torch.testing.assert_close(first[part], one[part], rtol=1e-9, atol=1e-10)
    assert first[2] == pytest.approx(one[2], rel=1e-9)


def listens(port: int) -> bool:
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def agents(port: int, log: Path, words: list[object], *, number: int) -> subprocess.Popen[bytes]:
    """One of two torchrun agents, each with a process, as on a machine of its own; in a group of its own."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1",
        "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "run",
        "--max-restarts", "3", "-m", "--", "rdm_cli", *map(str, words),
    ]  # fmt: skip
    # or torch 2.13 tells an agent that comes back no address: it is published in the first round alone
    environment = ENVIRONMENT | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with (log.parent / f"{log.name}-{number}").open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)


def test_two_agents_train_as_one_process_does_and_go_on_after_one_was_killed(
    faces: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    """Two machines, as far as one can play them: each has an agent, and they meet at a rendezvous."""
    num_steps = 60
    asked = ["--steps", num_steps, "--checkpoint-minutes", 1e-3]
    alone = training(tmp_path / "alone", faces, tiny_bundle, *asked)
    subprocess.run(
        [sys.executable, "-m", "rdm_cli", *map(str, alone)], check=True, timeout=PATIENCE, env=ENVIRONMENT
    )
    port, log = free_port(), tmp_path / "agent"
    words = training(tmp_path / "both", faces, tiny_bundle, *asked, "--resume")
    running = [agents(port, log, words, number=1)]
    limit = time.monotonic() + PATIENCE
    while not listens(port):  # the first keeps what they meet at: its machine is not the one to lose
        assert running[0].poll() is None and time.monotonic() < limit
        time.sleep(0.05)
    running.append(agents(port, log, words, number=2))
    checkpoint = tmp_path / "both" / "run" / FILE_NAME

    def said() -> str:
        return "\n".join(path.read_text() for path in sorted(tmp_path.glob("agent-*")))

    try:
        while not checkpoint.exists():
            assert all(one.poll() is None for one in running) and time.monotonic() < limit, said()
            time.sleep(0.02)
        # the machine of the second is lost, its process with it, and comes back
        os.killpg(running[1].pid, signal.SIGKILL)
        running[1].wait()
        lost_at = load_checkpoint(tmp_path / "both" / "run").progress.step
        running[1] = agents(port, log, words, number=3)
        for one in running:
            assert one.wait(timeout=PATIENCE) == 0, said()
    finally:
        for one in running:
            if one.poll() is None:
                os.killpg(one.pid, signal.SIGKILL)
    assert lost_at < num_steps, "it was over before one was killed"
    assert said().count("no checkpoint yet, so the run begins") == 1
    assert [step for step, _ in losses(tmp_path / "both" / "run")] == list(range(1, num_steps + 1))
    one, two = (dict(losses(tmp_path / name / "run")) for name in ("alone", "both"))
    assert two == pytest.approx(one, rel=1e-3)
