"""What benchmarks/on_a_gpu.sh does: steps that are timed and cannot stop one another, and a pack in time.

    OUT=results bash benchmarks/on_a_gpu.sh --deadline 540 --avatars64 60000 --chains diffae,pdae,lrdm
    bash benchmarks/on_a_gpu.sh --device cpu --tiny          # the same in miniature, in a minute or two

Seconds are counted from the start of the shell script. The trainings are in CHAINS, below. Only the standard
library is imported here: the work is done by the commands that are run.

OUT holds, at the end and after every training: log.txt (what happened when), logs.tar.gz (what each step
printed, and the trainings' logs, sheets and pages) and bundles.tar.00, ... (``cat bundles.tar.* | tar x``).
These are at most 8 files of 15.9 MB, 63 MB in all. A bundle that does not fit is left out whole, and the log
says so.
"""

from __future__ import annotations

import argparse
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent

START_SECONDS = 20.0
"""What a training needs besides its minutes: imports, finding its images, a last sheet, the bundle."""
PACK_SECONDS = 15.0
RESCUE_SECONDS = 30.0
"""Before packing: to stop what runs on, and to make a bundle of the checkpoint that it leaves."""
INDICES = ("model_index.json", "config.json")  # of a bundle; of a network alone, as a first stage is
PART_BYTES = 15_900_000
MOST_BYTES = 63_000_000
MOST_PARTS = 6  # of bundles; with log.txt and logs.tar.gz, and one to spare


@dataclass(frozen=True)
class Work:
    """One rdm command of a chain.

    ``command`` may name {av64} and {av128}, the folders of avatars, {bundles} and {runs}, where these lie,
    and {minutes}: this command's ``share`` of the time that the chain still has, beside the shares of those
    after it. A command without {minutes} has share 0 and takes as long as it takes.
    """

    command: str
    share: float = 0.0


SPEED = (
    "--no-flip --workers 12 --mixed-precision bf16 --weights fp16 --checkpoint-minutes 2 --sheet-minutes 60"
)

# Each chain runs beside the others, its commands one after the other: edit options, shares and order here.
CHAINS: dict[str, list[Work]] = {
    "diffae": [
        Work(
            f"train diffae {{av64}} -o {{bundles}}/avatars64-diffae --run {{runs}}/avatars64-diffae "
            f"--batch-size 256 {SPEED} --minutes {{minutes}}",
            share=1.0,
        ),
    ],
    "pdae": [
        Work(
            f"train dpm {{av64}} -o {{bundles}}/avatars64-dpm --run {{runs}}/avatars64-dpm "
            f"--batch-size 256 {SPEED} --minutes {{minutes}}",
            share=0.4,
        ),
        Work(
            f"train pdae {{av64}} --dpm {{bundles}}/avatars64-dpm -o {{bundles}}/avatars64-pdae "
            f"--run {{runs}}/avatars64-pdae --batch-size 256 {SPEED} --minutes {{minutes}}",
            share=0.6,
        ),
    ],
    "lrdm": [
        Work(
            f"train first-stage {{av128}} --preset small128 -o {{bundles}}/avatars128-first-stage "
            f"--run {{runs}}/avatars128-first-stage --batch-size 64 {SPEED} --minutes {{minutes}}",
            share=0.4,
        ),
        Work(
            f"train lrdm {{av128}} --preset small128 --first-stage {{bundles}}/avatars128-first-stage "
            f"-o {{bundles}}/avatars128-lrdm --run {{runs}}/avatars128-lrdm "
            f"--batch-size 128 {SPEED} --minutes {{minutes}}",
            share=0.6,
        ),
    ],
}
PACKED_LAST = ("avatars64-dpm", "avatars128-first-stage")
"""Bundles that others were trained around, and contain: packed where there is room."""

TINY = {"avatars64": 24, "avatars128": 12, "deadline": 300.0, "rounds": 1}
TINY_OPTIONS = {"--batch-size": "4", "--mixed-precision": "bf16"}


@dataclass
class Plan:
    """The options, and the folders that follow from them."""

    options: argparse.Namespace
    begun: float = field(default_factory=time.time)
    lock: threading.Lock = field(default_factory=threading.Lock)
    running: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.out: Path = self.options.out
        self.work: Path = self.options.work
        self.logs = self.work / "logs"
        self.bundles = self.work / "bundles"
        self.runs = self.work / "runs"
        for folder in (self.out, self.logs, self.bundles, self.runs):
            folder.mkdir(parents=True, exist_ok=True)
        self.stops = threading.Event()

    @property
    def seconds(self) -> float:
        """Since the shell script began."""
        return time.time() - self.begun

    def left(self, before_end: float = 0.0) -> float:
        """Seconds until ``before_end`` seconds before the deadline."""
        return float(self.options.deadline) - before_end - self.seconds

    def say(self, text: str) -> None:
        """A line for the log and for whoever looks on."""
        line = f"[{self.seconds:7.1f} s] {text}"
        with self.lock:
            print(line, flush=True)
            with (self.out / "log.txt").open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def step(
    plan: Plan,
    name: str,
    command: Sequence[str],
    *,
    limit: float,
    tail: int = 0,
    heeds_stop: bool = True,
    env: Mapping[str, str] | None = None,
) -> bool:
    """Run ``command`` for ``limit`` seconds at most; its output goes to logs/NAME.txt. Whether it succeeded.

    The last ``tail`` lines are said. One that is too slow is interrupted, and killed where it does not heed
    that. What fails is said, with its last lines, and is no reason for an error here.
    """
    if limit <= 0 or (heeds_stop and plan.stops.is_set()):
        plan.say(f"{name}: not run, for there is no time left")
        return False
    path, begun = plan.logs / f"{name}.txt", time.monotonic()
    plan.say(f"{name}: {shlex.join(command)}")
    try:
        with path.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=PROJECT,
                env=os.environ | dict(env or {}),
                process_group=0,
            )
    except OSError as error:
        plan.say(f"{name}: FAILED: {error}")
        return False
    plan.running.add(process)
    ended = "ended"
    while process.poll() is None:
        if time.monotonic() - begun > limit or (heeds_stop and plan.stops.is_set()):
            ended = "was stopped"
            stop(process)
            break
        time.sleep(0.1)
    plan.running.discard(process)
    ok = process.returncode == 0
    told = "ok" if ok else f"FAILED, {ended} with {process.returncode}"
    plan.say(f"{name}: {told}, {time.monotonic() - begun:.1f} s")
    lines = path.read_text("utf-8", "replace").splitlines()
    for line in lines[-(tail if ok else max(tail, 15)) :] if tail or not ok else ():
        plan.say(f"    {line}")
    return ok


def stop(process: subprocess.Popen[bytes]) -> None:
    """Interrupt ``process``, which a training heeds by saving; then kill what is left of it and its own."""
    for sent, seconds in ((signal.SIGINT, RESCUE_SECONDS / 2), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, sent)
        except ProcessLookupError:
            pass
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            continue
    process.poll()


def rdm(*arguments: str) -> list[str]:
    """The command line of ``rdm ARGUMENTS``, which is not installed here."""
    return [sys.executable, "-m", "rdm_cli", *arguments]


def say_machine(plan: Plan) -> None:
    """Versions, GPU, cores, and what rdm finds."""
    versions = (
        "import os, platform; print('python', platform.python_version(), '; cores', os.cpu_count())\n"
        "import torch; print('torch', torch.__version__, torch.cuda.get_device_name() if "
        "torch.cuda.is_available() else 'no GPU')\n"
        "for n in ('diffusers', 'accelerate', 'numpy', 'dicebear', 'resvg_py', 'safetensors', 'PIL'):\n"
        "    m = __import__(n); print(n, getattr(m, '__version__', 'is there'))"
    )
    if shutil.which("nvidia-smi"):
        step(plan, "nvidia-smi", ["nvidia-smi"], limit=20, tail=20)
    step(plan, "versions", [sys.executable, "-c", versions], limit=90, tail=10)
    step(plan, "doctor", rdm("doctor"), limit=60, tail=40)


def draw(plan: Plan, ready: Mapping[int, threading.Event]) -> None:
    """Draw the avatars, 64 px first; a size's event is set when all lie there, or none will come any more."""
    for size, event in ready.items():
        num = getattr(plan.options, f"avatars{size}")
        if num > 0:
            folder = plan.work / f"avatars{size}"
            # of what is drawn beside trainings, these come first
            nice = ["nice", "-n", "10"] if size != min(ready) and shutil.which("nice") else []
            options = ("--n", str(num), "--size", str(size), "--seed", str(plan.options.seed), "--quiet")
            limit = plan.left(RESCUE_SECONDS + PACK_SECONDS)
            step(plan, f"avatars{size}", [*nice, *rdm("data", "avatars", str(folder), *options)], limit=limit)
        event.set()


def measure(plan: Plan) -> None:
    """The tests marked gpu, and both speeds."""
    device = plan.options.device
    if "tests" in plan.options.steps:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rP",
            "-m",
            "gpu",
            "-p",
            "no:cacheprovider",
            "tests/gpu",
        ]
        limit = min(150.0, plan.left(60))
        step(plan, "tests", command, limit=limit, tail=60, env={"RDM_TEST_DEVICE": device})
    if "speeds" in plan.options.steps:
        batch = "2" if plan.options.tiny else "64"
        speeds = {
            "training_speed": ["--batch-size", batch, "--rounds", str(4 * plan.options.rounds)],
            "coding_speed": ["--batch-size", batch, "--rounds", str(plan.options.rounds)],
        }
        for name, options in speeds.items():
            command = [sys.executable, f"benchmarks/{name}.py", "--device", device, *options]
            limit = min(30.0 if plan.options.tiny else 90.0, plan.left(60))
            step(plan, name, command, limit=limit, tail=14)


def train(plan: Plan, name: str, works: Sequence[Work], ready: Mapping[int, threading.Event]) -> None:
    """Run a chain to its end, or to the first command that leaves nothing for the next."""
    folders = {f"av{size}": str(plan.work / f"avatars{size}") for size in ready}
    folders |= {"bundles": str(plan.bundles), "runs": str(plan.runs)}
    for i, work in enumerate(works):
        for size, event in ready.items():
            if f"{{av{size}}}" in work.command:
                event.wait(max(0.0, plan.left(RESCUE_SECONDS + PACK_SECONDS)))
        time_left = plan.left(RESCUE_SECONDS + PACK_SECONDS)
        shares = sum(later.share for later in works[i:])
        seconds = time_left * work.share / shares - START_SECONDS if work.share else time_left
        if seconds <= 0:
            plan.say(f"{name}: {time_left:.0f} s are too few for: {work.command}")
            return
        arguments = shlex.split(work.command.format(**folders, minutes=f"{seconds / 60:.3f}"))
        if plan.options.tiny:
            arguments = changed(arguments, TINY_OPTIONS)
        if arguments[0] == "train":
            arguments += ["--device", plan.options.device]
        label = f"{name}-{i + 1}"
        ok = step(plan, label, rdm(*arguments), limit=time_left)
        if not ok and arguments[0] == "train" and "-o" in arguments:
            ok = rescue(plan, label, arguments)
        pack(plan)
        if not ok:
            return


def rescue(plan: Plan, label: str, arguments: Sequence[str]) -> bool:
    """Make a bundle of the checkpoint that a training left which did not come to its end."""
    where = dict(zip(arguments, arguments[1:], strict=False))
    bundle, run = Path(where["-o"]), Path(where.get("--run", ""))
    if (bundle / "model_index.json").is_file():
        return True
    if not (run / "checkpoint.safetensors").is_file():
        return False
    again = changed(arguments, {"--minutes": "0.01", "--sheet-minutes": "0"})
    limit = plan.left(PACK_SECONDS)
    return step(plan, f"{label}-rescue", rdm(*again, "--resume"), limit=limit, heeds_stop=False)


def changed(arguments: Sequence[str], values: Mapping[str, str]) -> list[str]:
    """``arguments`` with other ``values`` of the options that they have."""
    return [values.get(before, word) for before, word in zip(["", *arguments[:-1]], arguments, strict=True)]


def pack(plan: Plan) -> None:
    """Write logs and finished bundles to OUT, in the place of what an earlier call wrote there."""
    with plan.lock:
        problems = []
        for name, make in (("logs", _pack_logs), ("bundles", _pack_bundles)):
            try:
                problems += make(plan)
            except OSError as error:
                problems.append(f"{name}: not packed: {error}")
    for text in problems:
        plan.say(text)


def _pack_logs(plan: Plan) -> list[str]:
    new = plan.work / "logs.tar.gz"
    with tarfile.open(new, "w:gz", compresslevel=1) as tar:
        tar.add(plan.logs, "logs")
        for path in sorted(plan.runs.rglob("*")):
            told = path.suffix in (".jsonl", ".html", ".png") and not path.name.startswith(".")
            if path.is_file() and told and path.stat().st_size < PART_BYTES // 4:
                tar.add(path, f"runs/{path.relative_to(plan.runs)}")
    if new.stat().st_size > PART_BYTES:
        return [f"logs.tar.gz: left out, for it has {new.stat().st_size:,} bytes"]
    shutil.copyfile(new, plan.out / "logs.tar.gz")
    return []


def _pack_bundles(plan: Plan) -> list[str]:
    """One tar of the bundles that are whole, in parts."""
    whole = [path.parent for path in sorted(plan.bundles.glob("*/*.json")) if path.name in INDICES]
    whole = [folder for folder in dict.fromkeys(whole) if not folder.name.startswith(".")]
    whole.sort(key=lambda folder: folder.name in PACKED_LAST)
    logs = plan.out / "logs.tar.gz"
    room = MOST_BYTES - (logs.stat().st_size if logs.is_file() else 0) - 1_000_000  # log.txt
    room = min(room, MOST_PARTS * PART_BYTES)
    packed, problems = io.BytesIO(), []
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for folder in whole:
            size = sum(path.stat().st_size + 2048 for path in folder.rglob("*"))
            if packed.tell() + size + 20_480 > room:
                problems.append(f"{folder.name}: left out, for there is no room for its {size:,} bytes")
                continue
            tar.add(folder, folder.name)
    raw = packed.getvalue() if whole else b""
    parts = [raw[i : i + PART_BYTES] for i in range(0, len(raw), PART_BYTES)]
    for i, part in enumerate(parts):
        (plan.out / f"bundles.tar.{i:02d}").write_bytes(part)
    for path in plan.out.glob("bundles.tar.*"):
        if int(path.suffix[1:]) >= len(parts):
            path.unlink()
    return problems


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; each may also be given by an environment variable of its name in capitals."""
    parser = argparse.ArgumentParser(
        prog="on_a_gpu.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    def option(name: str, default: object, told: str) -> None:
        given = os.environ.get(name.upper(), default)
        kind = type(default)
        parser.add_argument(f"--{name}", type=kind, default=kind(given), help=f"{told} ({given})")  # type: ignore

    option("out", Path("out/gpu"), "folder for what is to be kept")
    option("work", Path(tempfile.gettempdir()) / "rdm-on-a-gpu", "folder for everything else")
    option("deadline", 540.0, "seconds after the start by which all is written")
    option("avatars64", 60_000, "how many avatars of 64 px are drawn")
    option("avatars128", 20_000, "how many of 128 px")
    option("seed", 1, "of the avatars")
    option("rounds", 3, "of each speed")
    option("steps", "machine,tests,speeds,train", "which steps are done, parted by commas")
    option("chains", ",".join(CHAINS), "which chains are trained, parted by commas; see CHAINS")
    parser.add_argument(
        "--device", default=os.environ.get("RDM_DEVICE", "cuda"), help="cuda, or cpu to try it"
    )
    parser.add_argument("--tiny", action="store_true", help="few avatars, small batches: to try it on a CPU")
    parser.add_argument("--begun", type=float, default=time.time(), help=argparse.SUPPRESS)
    if "--tiny" in (sys.argv[1:] if arguments is None else arguments):
        parser.set_defaults(**TINY)
    options = parser.parse_args(arguments)
    for name, known in (("steps", {"machine", "tests", "speeds", "train"}), ("chains", set(CHAINS))):
        asked = [word for word in getattr(options, name).split(",") if word]
        if unknown := set(asked) - known:
            parser.error(
                f"--{name}: there is no {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}"
            )
        setattr(options, name, asked)
    options.out, options.work = options.out.absolute(), options.work.absolute()
    return options


def main() -> int:
    """Do the steps; 0 also where some failed, for the log says which."""
    options = parsed()
    plan = Plan(options, begun=options.begun)
    threads = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan.say(f"{options.device}, until {options.deadline:.0f} s, in {plan.work}, results in {plan.out}")
    try:
        ready = {64: threading.Event(), 128: threading.Event()}
        if "train" in options.steps:
            threads.append(threading.Thread(target=draw, args=(plan, ready), daemon=True))
            threads[-1].start()
        if "machine" in options.steps:
            say_machine(plan)
        measure(plan)
        pack(plan)
        if "train" in options.steps:
            for name in options.chains:
                given = (plan, name, CHAINS[name], ready)
                threads.append(threading.Thread(target=train, args=given, daemon=True))
                threads[-1].start()
            for thread in threads:
                thread.join(max(0.0, plan.left(RESCUE_SECONDS + PACK_SECONDS)))
    except (KeyboardInterrupt, SystemExit):
        plan.say("interrupted: what there is gets packed")
    plan.stops.set()
    for thread in threads:
        thread.join(max(0.0, plan.left(PACK_SECONDS)))
    for process in list(plan.running):
        stop(process)
    plan.say("packing")
    pack(plan)
    files = sorted(path for path in plan.out.iterdir() if path.is_file())
    plan.say(f"done: {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
