"""The system's own viewer of pictures and pages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rdm_cli.errors import RdmError

PATIENCE_SECONDS = 3.0  # in which a viewer that cannot start says so


def open_in_viewer(path: Path) -> None:
    """Open ``path`` in what the system shows such files with; raises RdmError where there is nothing."""
    hint = f"open it yourself: {path}"
    if sys.platform == "win32":
        try:
            os.startfile(path.resolve())
        except OSError as error:
            raise RdmError(f"no viewer could be started ({error.strerror})", hint=hint) from error
        return
    program = "open" if sys.platform == "darwin" else "xdg-open"
    if shutil.which(program) is None:
        raise RdmError(f"no viewer could be started: {program} is not installed", hint=hint)
    null = subprocess.DEVNULL
    viewer = subprocess.Popen(
        [program, str(path.resolve())], stdin=null, stdout=null, stderr=null, start_new_session=True
    )
    try:
        code = viewer.wait(PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:  # it is the viewer itself, and stays
        return
    if code != 0:
        raise RdmError(f"no viewer could be started: {program} ended with {code}", hint=hint)
