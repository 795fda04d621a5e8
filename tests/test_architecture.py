"""The layout's promises: which way imports point, what stays light, how long a file may be."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

from rdm_cli import registry

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "rdm_cli"

# From the ground up. A module imports from layers below its own, and from its own room; the rooms of one
# layer in JOINED also know one another. training/run is a room of its own, above the rest of training.
JOINED = [{"methods", "priors", "training", "data", "metrics", "classifiers"}, {"codes", "bundles"}]
LAYERS = [
    {"errors", "escapes"},
    {"registry", "runtime"},
    {"kernels"},
    {"models"},
    JOINED[0],
    {"reports"},
    JOINED[1],
    {"collection"},
    {"pipeline"},
    {"jobs", "evaluation", "training.run"},
    {"app", "engines"},
    {"__init__"},
    {"typed_command"},
    {"option_groups", "help_page", "completion"},
    {"options", "console"},
    {"config_file"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
RANKS = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

LONG = 600  # lines: one thing, or two?
VAGUE_NAMES = {"utils", "helpers", "misc", "common"}
HEAVY = (
    "torch", "diffusers", "accelerate", "torchmetrics", "sklearn", "scipy", "huggingface_hub",
    "pyarrow", "fsspec", "lmdb", "usearch", "umap", "ray", "onnx", "onnxruntime", "transformers",
)  # fmt: skip
TENSOR_LIBRARIES = {"torch", "numpy", "diffusers", "accelerate"}
FORBIDDEN = {
    "torchvision": "cannot be imported beside a CPU build of torch",
    "click": "typer ships without it",
    "pytorch_lightning": "official checkpoints must open without it",
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


PACKAGE_FILES = sources("rdm_cli")
ALL_FILES = sources("rdm_cli", "tests", "benchmarks")


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def layer_of(path: Path) -> str:
    """The room that a file lies in: the first part of its path, a folder or a module of its own."""
    return room_of(path.relative_to(PACKAGE).with_suffix("").parts)


def room_of(parts: tuple[str, ...]) -> str:
    """The room of a dotted name's parts below the package."""
    return "training.run" if parts[:2] == ("training", "run") else parts[0]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def runtime_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those under ``if TYPE_CHECKING:``."""
    for node in ast.iter_child_nodes(tree):
        if is_type_checking(node):
            assert isinstance(node, ast.If)
            for other in node.orelse:
                yield other
                yield from runtime_nodes(other)
            continue
        yield node
        yield from runtime_nodes(node)


def imported_by(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """The dotted names that one statement imports; ``package`` is where relative ones start."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = ".".join([*base, *([node.module] if node.module else [])])
        yield from (f"{module}.{alias.name}" for alias in node.names)


@cache
def imports(path: Path, *, type_checking: bool = True) -> list[tuple[int, str]]:
    """(line, dotted name) of each import in a file, those inside functions too."""
    tree = ast.parse(path.read_text("utf-8"))
    nodes = ast.walk(tree) if type_checking else runtime_nodes(tree)
    package = path.relative_to(ROOT).parts[:-1]
    return [(getattr(node, "lineno", 0), name) for node in nodes for name in imported_by(node, package)]


def target_layer(name: str) -> str | None:
    """The layer that ``rdm_cli.x.y`` lies in; None for other packages and for the version."""
    first, _, rest = name.partition(".")
    if first != "rdm_cli" or rest == "__version__":
        return None
    layer = room_of(tuple(rest.split(".")))
    return layer if layer in RANKS else "__init__"


def may_import(source: str, target: str) -> bool:
    if source == target or any({source, target} <= rooms for rooms in JOINED):
        return True
    return RANKS[target] < RANKS[source]


@pytest.mark.parametrize(
    ("source", "target", "allowed"),
    [
        ("cli", "commands", True),
        ("commands", "cli", False),
        ("commands", "options", True),
        ("jobs", "options", False),
        ("pipeline", "console", False),
        ("jobs", "pipeline", True),
        ("pipeline", "jobs", False),
        ("jobs", "evaluation", False),
        ("app", "jobs", True),
        ("jobs", "app", False),
        ("commands", "app", True),
        ("evaluation", "jobs", False),
        ("training.run", "training", True),
        ("training.run", "bundles", True),
        ("training", "training.run", False),
        ("codes", "bundles", True),
        ("bundles", "pipeline", False),
        ("classifiers", "data", True),
        ("classifiers", "bundles", False),
        ("pipeline", "classifiers", True),
        ("collection", "codes", True),
        ("collection", "pipeline", False),
        ("methods", "priors", True),
        ("models", "methods", False),
        ("models", "kernels", True),
        ("kernels", "models", False),
        ("kernels", "errors", True),
        ("registry", "errors", True),
        ("errors", "registry", False),
        ("registry", "methods", False),
    ],
)
def test_the_rule_for_imports_is_the_intended_one(source: str, target: str, allowed: bool) -> None:
    assert may_import(source, target) is allowed


def test_imports_are_found_wherever_they_stand(tmp_path: Path) -> None:
    code = "import torch.nn as n\nfrom . import a\nfrom ..codes import b\ndef f():\n    from c import d\n"
    nodes = list(ast.walk(ast.parse(code)))
    found = {name for node in nodes for name in imported_by(node, ("rdm_cli", "data"))}
    assert found == {"torch.nn", "rdm_cli.data.a", "rdm_cli.codes.b", "c.d"}
    hidden = ast.parse("if TYPE_CHECKING:\n    import torch\nelse:\n    import json\n")
    assert {n for node in runtime_nodes(hidden) for n in imported_by(node, ())} == {"json"}


# Each of the following looks at all files: a test for each of them would take longer to start than to run.


def test_imports_point_one_way() -> None:
    homeless = [relative(path) for path in PACKAGE_FILES if layer_of(path) not in RANKS]
    assert not homeless, f"no layer of LAYERS holds {homeless}"
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in PACKAGE_FILES
        for line, name in imports(path)
        if (target := target_layer(name)) is not None and not may_import(layer_of(path), target)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_that_breaks_an_installation() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}, which {FORBIDDEN[name.partition('.')[0]]}"
        for path in ALL_FILES
        for line, name in imports(path)
        if name.partition(".")[0] in FORBIDDEN
    ]
    assert not wrong, "\n".join(wrong)


def in_layers(*layers: str) -> list[Path]:
    """The package's files of these layers, each of which has some."""
    found = [path for path in PACKAGE_FILES if layer_of(path) in layers]
    assert {layer_of(path) for path in found} == set(layers)
    return found


def test_commands_do_no_tensor_arithmetic() -> None:
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in in_layers("commands", "cli", "options", "console")
        for line, name in imports(path, type_checking=False)
        if name.partition(".")[0] in TENSOR_LIBRARIES
    ]
    assert not wrong, "\n".join(wrong)


def test_kernels_see_no_files() -> None:
    file_formats = {"pathlib", "os", "io", "json", "safetensors", "PIL", "shutil", "tempfile"}
    wrong = [
        f"{relative(path)}:{line} imports {name}"
        for path in in_layers("kernels")
        for line, name in imports(path)
        if name.partition(".")[0] in file_formats
    ]
    assert not wrong, "\n".join(wrong)


OF_ONE_METHOD = {"style", "style_shape", "class_names", "known_classes"}


def test_what_only_one_method_can_is_asked_for_nowhere() -> None:
    """Conditions pass through by name: which a model takes, its ``conditions`` say."""
    wrong = [
        f"{relative(path)}:{getattr(node, 'lineno', 0)} asks for {found}"
        for path in in_layers("jobs", "evaluation", "app", "collection")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (found := {getattr(node, field, None) for field in ("attr", "id", "arg", "name")} & OF_ONE_METHOD)
    ]
    assert not wrong, "\n".join(wrong)


def test_files_are_short_and_named_after_what_they_hold() -> None:
    vague = []
    for path in ALL_FILES:
        num_lines = len(path.read_text("utf-8").splitlines())
        if num_lines > LONG:
            warnings.warn(f"{relative(path)} has {num_lines} lines: one thing, or two?", stacklevel=1)
        parts = {part.removeprefix("test_") for part in path.relative_to(ROOT).with_suffix("").parts}
        if parts & VAGUE_NAMES:
            vague.append(relative(path))
    assert not vague, f"these do not say what they hold: {vague}"


def test_modules_say_what_they_are() -> None:
    """The first thing in a file that holds any code is its docstring."""
    begins = re.compile(r'(?:\s|#.*\n)*(?:r?"""|\Z)')
    silent = [relative(path) for path in ALL_FILES if not begins.match(path.read_text("utf-8"))]
    assert not silent, f"no module docstring in {silent}"


def loaded_after(statement: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after ``statement``."""
    listing = "import json, sys\nprint(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    code = f"{statement}\n{listing}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_command_line_imports_nothing_heavy() -> None:
    assert not loaded_after("import rdm_cli.cli") & set(HEAVY)


def test_no_command_imports_anything_heavy_before_it_runs() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in sources("rdm_cli/commands")
        if path.stem != "__init__"
    ]
    assert modules
    assert not loaded_after("\n".join(f"import {module}" for module in modules)) & set(HEAVY)


@pytest.mark.parametrize("module", ["rdm_cli", "rdm_cli.errors", "rdm_cli.registry"])
def test_the_package_and_its_leaves_import_nothing_heavy(module: str) -> None:
    assert not loaded_after(f"import {module}") & {*HEAVY, "numpy", "PIL"}


def registered() -> list[tuple[str, str, str]]:
    return [
        (table, name, target)
        for table, entries in vars(registry).items()
        if table.isupper() and isinstance(entries, dict)
        for name, target in entries.items()
    ]


def test_the_registry_has_entries() -> None:
    assert {"METHODS", "PRIORS", "SOLVERS"} <= {table for table, _, _ in registered()}


@pytest.mark.parametrize(("table", "name", "target"), registered())
def test_registry_entries_resolve(table: str, name: str, target: str) -> None:
    module, separator, attribute = target.partition(":")
    assert separator, f"{table}[{name!r}] is not 'module:attribute'"
    assert hasattr(import_module(module), attribute), f"{table}[{name!r}]: {target} does not exist"


def test_public_names_resolve() -> None:
    import rdm_cli

    for name in rdm_cli.__all__:
        assert getattr(rdm_cli, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = rdm_cli.no_such_name


def walks() -> list[tuple[str, str]]:
    """(function, file) of each row of the walks in docs/architecture.md."""
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    sections = [part for part in page.split("\n## ") if part.startswith("A walk: ")]
    assert [part.partition("`")[2].split()[:2] for part in sections] == [["rdm", "encode"], ["rdm", "train"]]
    return re.findall(r"^\| `([\w.]+)` \| `([\w/]+\.py)` \| ", "\n".join(sections), re.MULTILINE)


def test_the_walks_have_rows() -> None:
    assert len(walks()) > 40


@pytest.mark.parametrize(("name", "file"), dict.fromkeys(walks()))
def test_every_step_of_the_walks_exists(name: str, file: str) -> None:
    """A function, class or method of that name, defined in that file."""
    body: list[ast.stmt] = ast.parse((PACKAGE / file).read_text("utf-8")).body
    for part in name.split("."):
        found = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == part]
        assert found, f"docs/architecture.md: {file} has no {name}"
        body = found[0].body


def test_every_file_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`((?:[\w.]+/)*\w+\.py)`", page))
    folders = (ROOT, PACKAGE, ROOT / "benchmarks" / "evidence")
    bare = {path.name for path in ALL_FILES}
    missing = [
        n for n in named if not any((f / n).is_file() for f in folders) and not ("/" not in n and n in bare)
    ]
    assert missing == []
