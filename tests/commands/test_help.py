"""Help: every command's fits 80 columns, and asking for it imports nothing heavy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer

from rdm_cli import __version__
from rdm_cli.cli import app

Rdm = Callable[..., Any]


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in (getattr(command, "commands", None) or {}).items():
        yield from paths(child, (*path, name))


@pytest.mark.parametrize("path", list(paths(typer.main.get_command(app))), ids=" ".join)
def test_help_fits_80_columns(rdm: Rdm, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = rdm(*path, "--help")
    assert result.code == 0 and result.err == ""
    assert f"Usage: {' '.join(('rdm', *path))}" in result.out
    assert max(len(line) for line in result.lines) <= 80
    assert "…" not in result.out  # an option whose name is cut short cannot be looked up


def test_help_imports_nothing_heavy() -> None:
    """In a process of its own, for this one has torch already."""
    program = (
        "import sys; from rdm_cli.cli import main; code = main(['--help']); "
        "print(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'torch', 'diffusers', 'accelerate', 'huggingface_hub', 'safetensors', 'torchmetrics', 'rich'}), "
        "file=sys.stderr); sys.exit(code)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0 and "Usage: rdm" in result.stdout
    assert result.stderr == "[]\n"


def test_version(rdm: Rdm) -> None:
    result = rdm("--version")
    assert (result.code, result.out) == (0, f"rdm {__version__}\n")


def test_every_preset_is_named_in_its_method_s_help() -> None:
    from rdm_cli.commands.training_words import PRESETS
    from rdm_cli.registry import TRAINABLE, load

    for method, told in PRESETS.items():
        presets = load(TRAINABLE, "method", method).presets
        known = {name.removeprefix("kl-").removeprefix("vq-") for name in presets}
        assert set(told.split(", ")) == known, method
    assert PRESETS.keys() == TRAINABLE.keys()


def test_help_says_what_comes_back_and_what_quiet_leaves(rdm: Rdm) -> None:
    told = " ".join(rdm("encode", "--help").out.split())
    assert "1600x1200 comes back as 64x64" in told and "no more than its first stage" in told
    assert "restores every pixel of the fitted image" in told
    assert "Say only what failed; stdout still has its line for each result." in told
