"""A process that has imported everything and forks an rdm for each request: killing one costs no start.

Requests and answers are JSON lines. {"argv": [...], "log": FILE} starts one and is answered with its pid; it
may write files of "limit" bytes, where there is one, knows the variables of "environment" besides, works
in "folder", where there is one, and has other values for the "constants", by their modules and names. It
reads the file "stdin", where there is one, and writes its results to "stdout", which may be a FIFO.
{"wait": PID, "seconds": S} is answered with its exit code, negative for a signal; it has S seconds to end.
"""

from __future__ import annotations

import gc
import json
import os
import pkgutil
import resource
import signal
import sys
import time
from importlib import import_module
from typing import Any

from PIL import Image

import rdm_cli

# what the package imports where it is used; an optimiser's first step imports torch._dynamo
LIBRARIES = ("torch", "torch._dynamo", "accelerate", "safetensors.torch", "pydantic")


def run(
    argv: list[str],
    log: str,
    limit: int | None = None,
    environment: dict[str, str] | None = None,
    folder: str | None = None,
    constants: dict[str, Any] | None = None,
    stdin: str | None = None,
    stdout: str | None = None,
) -> None:
    """Become ``rdm`` with these words; its output goes to ``log``."""
    if stdin is not None:
        os.dup2(os.open(stdin, os.O_RDONLY), 0)
        sys.stdin = open(0)
    os.environ.update(environment or {})
    if folder is not None:
        os.chdir(folder)
    for where, value in (constants or {}).items():
        module, name = where.rsplit(".", 1)
        assert hasattr(import_module(module), name), where
        setattr(import_module(module), name, value)
    if limit is not None:  # as a full disk does, the kernel refuses more
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle if stdout is None else os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(handle, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["rdm", *argv]
    code = 1
    try:
        code = import_module("rdm_cli.cli").main(argv)
        sys.stdout.flush()
    finally:
        os._exit(code)


def answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


def wait(pid: int, seconds: float) -> int:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def serve() -> None:
    for name in LIBRARIES:
        import_module(name)
    for module in pkgutil.walk_packages(rdm_cli.__path__, "rdm_cli."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    Image.init()  # every plugin
    _ = import_module("rdm_cli.cli").app.built
    gc.freeze()  # or every fork would copy what it looks through
    answer("ready")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer(wait(request["wait"], request["seconds"]))
            continue
        pid = os.fork()
        if pid == 0:
            sys.stdin.close()
            run(**request)
        answer(pid)


if __name__ == "__main__":
    serve()
