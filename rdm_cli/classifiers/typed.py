"""What is typed about a classifier: sizes, means, and the names of classes."""

from __future__ import annotations

from pathlib import Path

from rdm_cli.errors import UsageError

MOST_BYTES = 2**22  # of a file of names


def parse_size(text: str) -> tuple[int, ...]:
    """``"224"`` or ``"HEIGHT,WIDTH"``; raises UsageError."""
    try:
        sides = tuple(int(part) for part in text.replace("x", ",").split(","))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2):
        raise UsageError(f"--size {text}: one side in pixels, or height and width with a comma between")
    return sides if len(sides) == 2 else (sides[0], sides[0])


def parse_numbers(text: str) -> tuple[float, ...]:
    """``"0.5"`` or three numbers with commas between; raises UsageError."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{text}: one number is needed, or three with commas between") from None


def parse_names(text: str) -> tuple[str, ...]:
    """Names with commas between or, where ``text`` is a file, those in its lines; raises UsageError."""
    path = Path(text)
    if "," in text or not path.is_file():
        names = text.split(",")
    else:
        try:
            with path.open(encoding="utf-8-sig") as file:
                names = file.read(MOST_BYTES).splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--classes {text}: cannot be read as text ({error})") from None
    found = tuple(name.strip() for name in names if name.strip())
    if not found:
        raise UsageError(f"--classes {text}: there is no name of a class")
    return found
