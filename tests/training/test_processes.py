"""A worker process that dies ends the job in one line."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rdm_cli.training.processes import dead_workers_reported

# A process of its own: torch tells of the death through a signal, which might reach pytest.
PROGRAM = """
import os, signal, torch
from torch.utils.data import DataLoader, Dataset
from rdm_cli.errors import RdmError
from rdm_cli.training.processes import dead_workers_reported

class Deadly(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        if index == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(1)

try:
    with dead_workers_reported():
        list(DataLoader(Deadly(), num_workers=1))
except RdmError as error:
    print(error, flush=True)
    os._exit(0)
"""


def test_a_killed_worker_is_told() -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert "a process that loads images died" in run.stdout and "--workers" in run.stdout, run.stderr
    assert len(run.stdout.splitlines()) == 1


def test_other_errors_are_as_they_were() -> None:
    with pytest.raises(RuntimeError, match="shapes"), dead_workers_reported():
        raise RuntimeError("shapes do not agree")
