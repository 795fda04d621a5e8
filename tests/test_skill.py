"""Every command of docs/SKILL.md runs as it stands, in the order in which it stands there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from rdm_cli import cli

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "SKILL.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, flags=re.M | re.S)
    for line in block.splitlines()
]
# a training, and what takes many steps, is shortened; nothing else about a command is changed
SHORTER = {
    r"--minutes \d+": "--steps 1 --batch-size 2 --sheet-minutes 0",
    r"--n 24": "--n 8",
    r"(rdm evaluate reconstruction )": r"\1-n 2 ",
}
MAY_NOT_HOLD = ("manipulate", "augment")  # exit code 3: an edit of few faces failed, and the page says so


@pytest.mark.usefixtures("fresh_accelerate")
def test_every_command_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one process: what a shell would do besides is nothing, for no command of the page needs a shell."""
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        for pattern, replacement in SHORTER.items():
            command = re.sub(pattern, replacement, command)
        program, *words = shlex.split(command)
        assert program == "rdm"
        code = cli.main(words)
        said = capsys.readouterr()
        assert code in ((0, 3) if words[0] in MAY_NOT_HOLD else (0,)), f"{command}\n{said.err}"
        if "--json" in words:
            assert all(isinstance(json.loads(line), dict) for line in said.out.splitlines())


def test_the_page_has_every_verb_of_the_readme() -> None:
    def verbs(text: str) -> set[str]:
        blocks = re.findall(r"^```sh\n(.*?)^```$", text, flags=re.M | re.S)
        return set(re.findall(r"^rdm (\w+)", "\n".join(blocks), flags=re.M))

    missing = verbs((ROOT / "README.md").read_text(encoding="utf-8")) - verbs(PAGE)
    assert missing <= {"app"}  # which runs until it is interrupted


def test_what_is_linked_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / target).exists(), target


def test_commands_in_the_text_exist() -> None:
    known = {name.name for name in (*cli.app.registered_commands, *cli.app.registered_groups)}
    assert {word for word in re.findall(r"`rdm ([a-z]+)", PAGE)} <= known
