"""rdm doctor: one page about this installation, for whoever reports a fault."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rdm_cli import completion
from rdm_cli import options as o
from rdm_cli.console import Console

WIDTH = 12


def doctor(
    bundle: Annotated[
        str | None,
        typer.Option(
            "-b",
            "--bundle",
            metavar="BUNDLE",
            help="Open and run this one too: a shipped name, a folder, or hf:owner/name.",
            autocompletion=completion.bundles,
        ),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Say what is installed, which devices and precisions work, and where there is room.

    One page that a report of a fault can contain. Exit code 1 where something that rdm needs does not work.

    Examples:
        rdm doctor
        rdm doctor -b my-bundle --json
    """
    console = Console(as_json=as_json)
    from rdm_cli.pipeline.installation import examine

    facts = examine(bundle)
    if as_json:
        console.emit("", **facts)
    else:
        for line in _page(facts):
            console.emit(line)
    if facts["problems"]:
        raise typer.Exit(1)


def _page(facts: dict[str, Any]) -> list[str]:
    """The facts, a line each: what it is about, then what is the case."""
    lines = [
        _line("rdm", f"{facts['rdm']}, Python {facts['python']}, {facts['system']}"),
        _line("packages", ", ".join(f"{name} {found or '-'}" for name, found in facts["packages"].items())),
    ]
    lines.append(_line("machine", ", ".join(f"{name} {value}" for name, value in facts["machine"].items())))
    for name, lacking in facts["extras"].items():
        lines.append(_line(f"[{name}]", f"lacks {', '.join(lacking)}" if lacking else "installed"))
    for device in facts["devices"]:
        found = "; ".join(f"{p} {device[p]}" for p in ("fp32", "bf16", "fp16"))
        lines.append(_line(device["device"], f"{device['name']}: {found}"))
    memory = ", ".join(f"{gigabytes} GB {name}" for name, gigabytes in facts["memory"].items())
    threads = f"{facts['threads']} threads on {facts['cores']} cores"
    lines.append(_line("runs on", ", ".join(filter(None, (facts["device_auto"], threads, memory)))))
    for name, place in facts["places"].items():
        blocked = "" if place["writable"] else ", cannot be written"
        lines.append(_line(name, f"{place['path']}: {place['free_gb']} GB free{blocked}"))
    lines += [_line(name, value) for name, value in facts["environment"].items()]
    lines += [_line(f"bundle {key}", _value(value)) for key, value in facts.get("bundle_facts", {}).items()]
    return lines + [_line("problem", problem) for problem in facts["problems"] or ["none"]]


def _line(name: str, text: str) -> str:
    return f"{name:<{WIDTH}} {text}"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
