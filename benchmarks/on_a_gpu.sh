#!/usr/bin/env bash
# A quarter of an hour on a machine with a GPU and no network: avatars, tests, speeds, trainings, and all of it packed.
#
#   OUT=results bash benchmarks/on_a_gpu.sh --deadline 540
#   bash benchmarks/on_a_gpu.sh --help
#
# rdm is used from this checkout, with the Python named by PYTHON and the packages that it has. Wheels of those that
# it lacks lie in the folder WHEELS (.whl beside the checkout's files); what is installed already is left as it is.
# benchmarks/on_a_gpu.py does the work and has the list of trainings.
set -uo pipefail
BEGUN="$(date +%s.%N)"
cd "$(dirname "$0")/.." || exit
PYTHON="${PYTHON:-python3}"
WHEELS="${WHEELS:-.whl}"
SITE="$(mktemp -d)"
trap 'rm -rf "$SITE"' EXIT
mapfile -t wanted < <("$PYTHON" - "$WHEELS" <<'END'
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

for wheel in sorted(Path(sys.argv[1]).glob("*.whl")):
    try:
        version(wheel.name.partition("-")[0])
    except PackageNotFoundError:
        print(wheel)
END
)
if [ "${#wanted[@]}" -gt 0 ]; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" "${wanted[@]}" ||
        echo "on_a_gpu: not every wheel of $WHEELS could be installed" >&2
fi
export PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
"$PYTHON" benchmarks/on_a_gpu.py --begun "$BEGUN" "$@"
