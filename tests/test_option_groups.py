"""Groups of options: a command has their fields as options, and is called with the groups."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from rdm_cli.option_groups import group, spread

Number = Annotated[int, typer.Option("--number", metavar="N", help="How many.")]
Name = Annotated[str | None, typer.Option("--name", help="What it is called.", rich_help_panel="Elsewhere")]


@group("Counting")
class Counting:
    """Two options."""

    number: Number = 3
    name: Name = None


def command() -> tuple[typer.Typer, list[object]]:
    app, seen = typer.Typer(), list[object]()

    @app.command()
    @spread
    def run(
        word: Annotated[str, typer.Argument()],
        *,
        loud: Annotated[bool, typer.Option("--loud")] = False,
        counting: Counting,
    ) -> None:
        """Say a word."""
        seen.extend([word, loud, counting])

    return app, seen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a"], ["a", False, Counting()]),
        (["a", "--number", "5", "--loud"], ["a", True, Counting(number=5)]),
        (["--name", "b", "c"], ["c", False, Counting(name="b")]),
    ],
)
def test_a_command_is_called_with_its_groups(words: list[str], expected: list[object]) -> None:
    app, seen = command()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert seen == expected


def test_help_shows_a_panel_a_group() -> None:
    app, _ = command()
    text = CliRunner().invoke(app, ["--help"]).output
    assert "Say a word." in text
    assert text.index("Options") < text.index("Counting") < text.index("--number") < text.index("Elsewhere")
    assert text.index("Elsewhere") < text.index("--name")


def test_two_options_of_one_name_are_a_mistake() -> None:
    def run(number: Number = 1, *, counting: Counting) -> None: ...

    with pytest.raises(TypeError, match="more than one parameter is called number"):
        spread(run)


@group("Outside")
class Outer:
    """A group within a group."""

    counting: Counting
    loud: Annotated[bool, typer.Option("--loud")] = False


def test_a_group_within_a_group_keeps_its_panel() -> None:
    app, seen = typer.Typer(), list[Outer]()

    @app.command()
    @spread
    def run(*, outer: Outer) -> None:
        seen.append(outer)

    assert CliRunner().invoke(app, ["--number", "5", "--loud"]).exit_code == 0
    assert seen == [Outer(counting=Counting(number=5), loud=True)]
    text = CliRunner().invoke(app, ["--help"]).output
    assert text.index("Counting") < text.index("--number") < text.index("Outside") < text.index("--loud")
