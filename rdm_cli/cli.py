"""The command line: mounts the commands, and turns every error into one line and an exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated

import typer
from typer.exceptions import TyperException

from rdm_cli import __version__
from rdm_cli.commands import app as page_command
from rdm_cli.commands import (
    attributes,
    audit,
    augment,
    bundles,
    codes,
    data,
    decode,
    demo,
    doctor,
    encode,
    evaluate,
    explain,
    interpolate,
    manipulate,
    reconstruct,
    sample,
    show,
    train,
)
from rdm_cli.console import open_closed_streams, say, stdout_failed, write_out
from rdm_cli.errors import RdmError, ReaderGoneError, StreamError, settings_written_by
from rdm_cli.help_page import App

INTERRUPTED = 130
SPINS = 1000

app = App(
    name="rdm",
    help="""Representation diffusion models: encode images into codes, decode codes into images, and edit
images through their codes.

Examples:
    rdm manipulate photo.png --attr smiling --scale 0.3
    rdm encode faces/ -o codes/
""",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long options short at 80 columns
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("encode")(encode.encode)
app.command("decode")(decode.decode)
app.command("reconstruct")(reconstruct.reconstruct)
app.command("interpolate")(interpolate.interpolate)
app.command("manipulate")(manipulate.manipulate)
app.command("sample")(sample.sample)
app.command("explain")(explain.explain)
app.command("audit")(audit.audit)
app.command("augment")(augment.augment)
app.command("show")(show.show)
app.command("demo")(demo.demo)
app.command("app")(page_command.app)
app.command("doctor")(doctor.doctor)
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(attributes.app, name="attributes")
app.add_typer(bundles.app, name="bundles")
app.add_typer(codes.app, name="codes")
app.add_typer(data.app, name="data")


def _print_version(wanted: bool) -> None:
    if wanted:
        write_out(f"rdm {__version__}\n".encode())
        raise typer.Exit


@app.callback()
def rdm(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Representation diffusion models: encode, decode and edit images through their codes."""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code.

    0 all done, 1 all failed, 2 usage, 3 some failed, 130 interrupted, 141 the reader of stdout is gone.
    """
    arguments = sys.argv[1:] if argv is None else argv
    _let_threads_sleep()
    # Pillow's remarks on odd metadata, and its own limit on pixels, which --max-pixels says image by image
    warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        open_closed_streams()
        with _terminable(), settings_written_by(_as_option):
            return _run(arguments)
    except StreamError as error:
        if not isinstance(error, ReaderGoneError):
            say(_line(error.message, error.hint))
        return error.exit_code


def _let_threads_sleep() -> None:
    """Threads that wait for one another sleep soon, where the user has not said otherwise.

    By default those of GNU's OpenMP spin for milliseconds. On a machine whose cores are busy they take turns
    with those that they wait for, and a job takes three times as long. torch reads this when it is imported.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ):
        os.environ["GOMP_SPINCOUNT"] = str(SPINS)


_OPTIONS_OF_OTHER_NAMES = {"class_name": "--class", "value_range": "--range"}


def _as_option(setting: str) -> str:
    """The option of a setting that the core names as Python does."""
    return _OPTIONS_OF_OTHER_NAMES.get(setting, f"--{setting.lower().replace('_', '-')}")


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM, which schedulers send before they kill, is the same as Ctrl-C."""
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) in (signal.SIG_IGN, None):
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _run(arguments: list[str]) -> int:
    try:
        result = app.built(arguments, prog_name="rdm", standalone_mode=False)
        _flush()
        if result == INTERRUPTED:
            return _interrupted()
        return result if isinstance(result, int) else 0
    except StreamError:
        raise
    except RdmError as error:
        return _fail(arguments, error.message, error.hint, error.exit_code)
    except TyperException as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError" and context is not None:  # typer has no public name
            write_out(f"{context.get_help()}\n".encode())
            return 0
        message = " ".join(error.format_message().rstrip(".").split())
        path = context.command_path if context is not None else "rdm"
        return _fail(arguments, message, f"see '{path} --help'", 2)
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # which typer makes exit code 1
            raise stdout_failed(stop.__context__) from None
        raise
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except OSError as error:
        _flush()  # where it was stdout that failed, that is what is said
        if _raised_by_typer(error):
            raise stdout_failed(error) from error
        where = f"{error.filename}: " if error.filename else ""
        return _fail(arguments, f"{where}{error.strerror or error}", None, 1)
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        return _fail(arguments, "the memory does not suffice", "a smaller --batch-size needs less", 1)


def _is_out_of_memory(error: Exception) -> bool:
    """Whether the work ended for want of memory; where torch is not loaded, it has not said so."""
    if isinstance(error, MemoryError):
        return True
    if "torch" not in sys.modules:
        return False
    from rdm_cli.runtime import is_out_of_memory

    return is_out_of_memory(error)


def _raised_by_typer(error: OSError) -> bool:
    """Whether help could not be printed: typer writes nowhere but to stdout, and names no file."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return str(frames[-1][0].f_globals.get("__name__", "")).startswith("typer.")


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise stdout_failed(error) from error


def _interrupted() -> int:
    say("rdm: interrupted; finished files are whole, the rest was not begun")
    return INTERRUPTED


def _fail(arguments: list[str], message: str, hint: str | None, code: int) -> int:
    if "--json" in arguments:
        with suppress(StreamError):  # stderr has it, too
            write_out(json.dumps({"error": message, "hint": hint}).encode() + b"\n")
    say(_line(message, hint))
    return code


def _line(message: str, hint: str | None) -> str:
    return f"rdm: {message}; {hint}" if hint else f"rdm: {message}"
