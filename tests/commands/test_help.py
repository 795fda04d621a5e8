"""Help: every command's fits 80 columns, and asking for it imports nothing heavy."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from make_cli_reference import PLACE, pages, reference

from rdm_cli import __version__
from rdm_cli.cli import app
from rdm_cli.help_page import PANELS

Rdm = Callable[..., Any]
COMMANDS = typer.main.get_command(app)
PAGES = dict(pages())


def paths(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in (getattr(command, "commands", None) or {}).items():
        yield from paths(child, (*path, name))


@pytest.mark.parametrize("path", list(paths(COMMANDS)), ids=" ".join)
def test_help_fits_80_columns(rdm: Rdm, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    result = rdm(*path, "--help")
    assert result.code == 0 and result.err == ""
    assert f"Usage: {' '.join(('rdm', *path))}" in result.out
    assert max(len(line) for line in result.lines) <= 80
    assert "…" not in result.out  # an option whose name is cut short cannot be looked up


def test_the_reference_in_docs_is_in_step() -> None:
    assert PLACE.read_text(encoding="utf-8") == reference(), "run: make reference"


def test_the_reference_has_the_pages_that_help_prints(rdm: Rdm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("rdm", "rdm train", "rdm train prior", "rdm encode"):
        assert rdm(*name.split()[1:], "--help").out.rstrip() == PAGES[name].rstrip()


@pytest.mark.parametrize("name", PAGES)
def test_placeholders_are_the_user_s_words(name: str) -> None:
    """``N``, ``DB`` or ``FILE``, and choices; never what Python calls a type."""
    placeholders = re.findall(r"^  (?:-.*? )?(<\S.*?>)", PAGES[name], flags=re.M)
    assert all("|" in found or found == "<tensorboard>" for found in placeholders)
    assert not re.search(r"x>=|<=x|default: \(", PAGES[name])  # limits and defaults are words, too
    assert not re.search(r"<(int|float|str|path|list)|RANGE|TEXT|INTEGER", PAGES[name])


@pytest.mark.parametrize("name", PAGES)
def test_panels_stand_in_one_order(name: str) -> None:
    headings = re.findall(r"^(\S[^:\n]*):$", PAGES[name], flags=re.M)
    panels = [heading for heading in headings if heading not in ("Commands", "Examples")]
    assert panels == sorted(panels, key=PANELS.index) and len(panels) == len(set(panels))
    assert headings[-1] == "Examples"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_ends_with_two_examples_that_are_understood(name: str) -> None:
    _, found, examples = PAGES[name].partition("\nExamples:\n")
    lines = examples.strip().splitlines()
    assert found and len(lines) == 2
    for line in lines:
        words = shlex.split(line.partition(" > ")[0])
        command: Any = COMMANDS
        path, context = words[0], None
        assert line.strip().startswith(name)
        rest = words[1:]
        while hasattr(command, "commands"):
            context = command.make_context(path, list(rest), parent=context)
            path, command = rest[0], command.commands[rest[0]]
            rest = rest[1:]
        command.make_context(path, rest, parent=context)  # parses, and runs nothing


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
