"""Bundles on a stand-in of the Hugging Face hub: rdm bundles push and pull, and hf: wherever it is read.

rdm runs in a process of its own, for huggingface_hub reads where the hub is when it is imported.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

Files = dict[str, bytes]


@dataclass
class Repository:
    """Commits by their SHA, and the branches that name them."""

    private: bool = False
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        """Let a branch be these files from now on."""
        sha = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        return sha

    def sha(self, revision: str) -> str | None:
        """The commit of a branch, or one that is named itself."""
        return self.branches.get(revision, revision if revision in self.commits else None)


class Hub(ThreadingHTTPServer):
    """A stand-in for the hub: the few addresses of it that huggingface_hub asks, on this machine.

    ``tokens`` say whose repositories a token may write. Large files come through LFS, as on the hub without
    Xet. ``repositories`` may be looked into and filled.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Repository] = {}
        self.tokens = {"token-of-me": "me"}
        self.objects: dict[str, bytes] = {}
        self.asked: list[str] = []


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing: the test's own output is enough."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def _answer(self, method: str) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{method} {path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for verb, pattern, answer in ROUTES:
            if verb == ("GET" if method == "HEAD" else method) and (found := re.fullmatch(pattern, path)):
                answer(self, body, **found.groupdict())
                return
        self.send(404, {"error": f"no such address: {method} {path}"})

    @property
    def user(self) -> str | None:
        """Who asks, by the token."""
        return self.server.tokens.get(self.headers.get("Authorization", "").removeprefix("Bearer "))

    def send(self, status: int, content: Any = None, **headers: str) -> None:
        """An answer of JSON, or of bytes."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def found(self, name: str, revision: str = "main") -> tuple[Repository, str] | None:
        """A repository that the user may see and a commit of it; None where the answer was sent."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and self.user != name.split("/")[0]):
            # a stranger is not told whether it is there
            status = 401 if self.user is None else 404
            self.send(status, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        sha = repository.sha(revision)
        if sha is None:
            self.send(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
            return None
        return repository, sha

    def may_write(self, name: str) -> bool:
        """Whether the user owns a repository; where not, the answer was sent."""
        if self.user is None:
            self.send(401, {"error": "Invalid username or password."})
        elif self.user != name.split("/")[0]:
            self.send(403, {"error": "You don't have the rights to write here"})
        else:
            return True
        return False

    def info(self, body: bytes, name: str, revision: str = "main") -> None:
        """What a repository is."""
        if (found := self.found(name, revision)) is not None:
            repository, sha = found
            files = [{"rfilename": path} for path in sorted(repository.commits[sha])]
            facts = {"id": name, "modelId": name, "private": repository.private, "sha": sha}
            self.send(200, facts | {"siblings": files, "tags": [], "downloads": 0, "likes": 0})

    def tree(self, body: bytes, name: str, revision: str) -> None:
        """The files of a commit."""
        if (found := self.found(name, revision)) is not None:
            files = found[0].commits[found[1]]
            rows = [
                {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for path, data in sorted(files.items())
            ]
            self.send(200, rows)

    def file(self, body: bytes, name: str, revision: str, path: str) -> None:
        """One file."""
        if (found := self.found(name, revision)) is not None:
            data = found[0].commits[found[1]].get(path)
            if data is None:
                self.send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound")
            else:
                etag = f'"{hashlib.sha1(data).hexdigest()}"'
                self.send(200, data, ETag=etag, X_Repo_Commit=found[1])

    def create(self, body: bytes) -> None:
        """Make a repository, with what the hub puts into each."""
        asked = json.loads(body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self.may_write(name):
            return
        if name in self.server.repositories:
            self.send(409, {"error": "You already created this model repo"})
            return
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories[name] = made = Repository(private=private)
        made.commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.send(200, {"url": f"{self.server.address}/{name}", "name": name, "id": name})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        """Make a branch where the main one is."""
        if self.may_write(name) and (found := self.found(name)) is not None:
            repository, sha = found
            status = 409 if branch in repository.branches else 200
            repository.branches.setdefault(branch, sha)
            self.send(status, {})

    def validate(self, body: bytes) -> None:
        """Whether a card's head can be read; it has to have one."""
        content = json.loads(body)["content"]
        told = [] if content.startswith("---\n") else [{"message": "empty or missing yaml metadata"}]
        self.send(200, {"errors": [], "warnings": told})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        """How each file is to be sent."""
        if self.may_write(name) and self.found(name, revision) is not None:
            files = [
                {"path": one["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if one["path"].endswith(".safetensors") else "regular"}
                for one in json.loads(body)["files"]
            ]  # fmt: skip
            self.send(200, {"files": files})

    def batch(self, body: bytes, name: str) -> None:
        """Where large files are to be put."""
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.address}/objects/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self.send(200, {"transfer": "basic", "objects": objects})

    def put(self, body: bytes, oid: str) -> None:
        """A large file."""
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self.send(200, {})

    def commit(self, body: bytes, name: str, revision: str) -> None:
        """All of a commit, or none."""
        if not self.may_write(name) or (found := self.found(name, revision)) is None:
            return
        repository, sha = found
        files = dict(repository.commits[sha])
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        made = repository.commit(revision, files)
        url = f"{self.server.address}/{name}/commit/{made}"
        self.send(200, {"commitUrl": url, "commitOid": made})


NAME, REVISION = r"(?P<name>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", rf"/api/models/{NAME}", _Handler.info),
    ("GET", rf"/api/models/{NAME}/revision/{REVISION}", _Handler.info),
    ("GET", rf"/api/models/{NAME}/tree/{REVISION}", _Handler.tree),
    ("GET", rf"/{NAME}/resolve/{REVISION}/(?P<path>.+)", _Handler.file),
    ("POST", r"/api/repos/create", _Handler.create),
    ("POST", rf"/api/models/{NAME}/branch/(?P<branch>[^/]+)", _Handler.branch),
    ("POST", r"/api/validate-yaml", _Handler.validate),
    ("POST", rf"/api/models/{NAME}/preupload/{REVISION}", _Handler.preupload),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", r"/objects/(?P<oid>[0-9a-f]+)", _Handler.put),
    ("POST", rf"/api/models/{NAME}/commit/{REVISION}", _Handler.commit),
]


DRIVER = """
import contextlib, io, json, sys
from rdm_cli.cli import main

answers = []
for words in json.loads(sys.argv[1]):
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    out.flush()
    answers.append([code, out.buffer.getvalue().decode(), err.getvalue()])
print(json.dumps(answers), file=sys.__stdout__)
"""

Run = Callable[..., list[tuple[int, str, str]]]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """Commands, all in one process, to (exit code, stdout, stderr) each; more words set the environment."""

    def commands(*lines: str, **more: str) -> list[tuple[int, str, str]]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")} | {
            "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "token-of-me",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "OMP_NUM_THREADS": "1", **more,
        }  # fmt: skip
        words = json.dumps([line.split() for line in lines])
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, words],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return [(code, out, err) for code, out, err in json.loads(done.stdout)]

    return commands


@pytest.fixture
def mine(tiny_bundle: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle, tmp_path / "mine"))


def files_below(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def head_of(card: bytes) -> dict[str, Any]:
    _, head, text = card.decode().split("---\n", 2)
    assert text.lstrip().startswith("# tiny")
    found: dict[str, Any] = yaml.safe_load(head)
    return found


def test_a_bundle_is_pushed_pulled_and_read(
    run: Run, hub: Hub, mine: Path, faces: Path, tmp_path: Path
) -> None:
    (mine / "notes.txt").write_text("not for others")
    (mine / ".hidden").mkdir()
    (mine / ".hidden" / "x.json").write_text("{}")
    pushed, pulled, copied, again, listed, read, decoded = run(
        "bundles push mine hf:me/faces --license mit --json",
        "bundles pull hf:me/faces",
        "bundles pull hf:me/faces@main -o copy",
        "bundles pull hf:me/faces -o copy",
        "bundles list --json",
        f"encode {faces / 'a.png'} -b hf:me/faces -o a.safetensors",
        "decode a.safetensors -o a.png",
    )
    address = f"{hub.address}/me/faces"
    assert pushed[0] == 0 and json.loads(pushed[1])["output"] == address
    assert "files that are no part of the bundle and stay here: 1" in pushed[2]
    there = hub.repositories["me/faces"].commits[json.loads(pushed[1])["commit"]]
    ours = {
        name: data for name, data in files_below(mine).items() if name not in ("notes.txt", ".hidden/x.json")
    }
    assert there.keys() == ours.keys() | {".gitattributes"} and not hub.repositories["me/faces"].private
    assert all(there[name] == data for name, data in ours.items() if name != "README.md")
    assert (mine / "README.md").read_text() == "# tiny\n", "the bundle itself stays as it is"

    head = head_of(there["README.md"])
    assert head["license"] == "mit" and head["library_name"] == "rdm"
    assert {"rdm", "diffae", "representation-learning", "diffusion"} <= set(head["tags"])
    (result,) = head["model-index"][0]["results"]
    scores = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert scores["AUROC, smiling"] == 0.9 and scores["average precision, glasses"] == 0.6

    assert pulled[0] == copied[0] == 0 and copied[1] == "copy\n"
    assert files_below(Path(pulled[1].strip())) == {n: d for n, d in there.items() if n != ".gitattributes"}
    assert files_below(tmp_path / "copy") == files_below(Path(pulled[1].strip()))
    assert again[0] == 2 and "copy exists" in again[2]
    assert "hf:me/faces" in [json.loads(line)["bundle"] for line in listed[1].splitlines()]
    assert read[0] == decoded[0] == 0, "a code that records hf:me/faces is decoded from the cache"


@pytest.mark.long
def test_a_revision_is_read_as_it_was(run: Run, hub: Hub, mine: Path, tmp_path: Path) -> None:
    """A branch of its own, a second push that has fewer files, and the commit of the first."""
    (first,) = run("bundles push mine hf:me/faces --branch v1 --json")
    facts = json.loads(first[1])
    assert first[0] == 0 and facts["output"] == f"{hub.address}/me/faces/tree/v1"
    repository = hub.repositories["me/faces"]
    assert set(repository.commits[repository.branches["main"]]) == {".gitattributes"}
    shutil.rmtree(mine / "prior")
    card = mine / "README.md"
    card.write_text("---\nlicense: cc-by-4.0\nlanguage: en\ntags:\n- faces\n---\n\n# tiny\n")
    second, old, new, main, unknown = run(
        "bundles push mine hf:me/faces --branch v1",
        f"bundles pull hf:me/faces@{facts['commit']} -o old",
        "bundles pull hf:me/faces@v1 -o new",
        "bundles pull hf:me/faces",
        "bundles pull hf:me/faces@v9",
    )
    assert [one[0] for one in (second, old, new)] == [0, 0, 0]
    assert "prior/config.json" in files_below(tmp_path / "old")
    assert "prior/config.json" not in files_below(tmp_path / "new"), "no mixture of two bundles"
    head = head_of((tmp_path / "new" / "README.md").read_bytes())
    assert head["license"] == "cc-by-4.0" and head["language"] == "en", "what the card's head says, stays"
    assert head["tags"][:2] == ["faces", "rdm"] and len(head["model-index"][0]["results"]) == 1
    assert main[0] == 1 and "hf:me/faces: model_index.json is missing" in main[2]
    assert (
        unknown[0] == 1
        and "hf:me/faces@v9: this repository has no revision 'v9'" in unknown[2]
        and unknown[2].count("\n") == 1
    )


@pytest.mark.long
def test_private_repositories(run: Run, hub: Hub, mine: Path) -> None:
    hub.repositories["me/open"] = Repository()
    hub.repositories["me/open"].commit("main", {".gitattributes": b""})
    made, public = run("bundles push mine hf:me/secret --private", "bundles push mine hf:me/open --private")
    assert made[0] == 0 and hub.repositories["me/secret"].private
    assert public[0] == 2 and "this repository is public" in public[2]
    assert list(hub.repositories["me/open"].commits.values()) == [{".gitattributes": b""}]
    (stranger,) = run("bundles pull hf:me/secret", HF_TOKEN="", HF_HOME="elsewhere")
    assert stranger[0] == 1 and "hf:me/secret: there is no such repository" in stranger[2]


def test_what_rdm_did_not_make_is_not_replaced(run: Run, hub: Hub, mine: Path) -> None:
    pipeline = {
        "model_index.json": b'{"_class_name": "DDPMPipeline"}',
        "unet/config.json": b"{}",
        "x.bin": b"x",
    }
    for name, files in (("me/theirs", pipeline), ("me/texts", {"README.md": b"# mine\n"})):
        hub.repositories[name] = Repository()
        hub.repositories[name].commit("main", files)
    theirs, texts, forced = run(
        "bundles push mine hf:me/theirs",
        "bundles push mine hf:me/texts",
        "bundles push mine hf:me/theirs --force",
    )
    for refused in (theirs, texts):
        assert refused[0] == 2 and "holds something else than a bundle" in refused[2]
    assert len(hub.repositories["me/texts"].commits) == 1
    repository = hub.repositories["me/theirs"]
    now = repository.commits[repository.branches["main"]]
    assert forced[0] == 0 and "encoder/config.json" in now and "x.bin" in now


@pytest.mark.long
def test_each_refusal_is_one_line(run: Run, hub: Hub, mine: Path, tmp_path: Path) -> None:
    shutil.copytree(mine, tmp_path / "broken")
    (tmp_path / "broken" / "README.md").unlink()
    lines = {
        "bundles push mine hf:you/faces": (1, "hf:you/faces: you may not write there"),
        "bundles push broken hf:me/faces": (1, "broken: not in order, so it is not pushed: model card"),
        "bundles push nowhere hf:me/faces": (2, "nowhere: no such bundle"),
        "bundles push mine me/faces": (2, "me/faces: no repository of the hub; write hf:owner/name"),
        "bundles push mine hf:faces": (2, "hf:faces: no repository of the hub"),
        "bundles push mine hf:me/faces@v2": (2, "name it with --branch"),
        "bundles pull hf:me/nowhere": (
            1,
            "hf:me/nowhere: there is no such repository, or you may not see it",
        ),
        "bundles pull me/nowhere": (2, "me/nowhere: no repository of the hub"),
    }
    for done, (code, told) in zip(run(*lines), lines.values(), strict=True):
        assert done[0] == code and told in done[2] and done[2].count("\n") == 1 and not done[1]
    (nobody,) = run("bundles push mine hf:me/faces", HF_TOKEN="")
    assert nobody[0] == 1 and "does not know who you are" in nobody[2] and "hf auth login" in nobody[2]
    assert nobody[2].count("\n") == 1
    address = hub.address
    hub.address = "http://127.0.0.1:9"  # where nobody answers
    (push,) = run("bundles push mine hf:me/faces", HF_HUB_ETAG_TIMEOUT="1")
    hub.address = address
    assert push[0] == 1 and "hf:me/faces: cannot be pushed" in push[2] and push[2].count("\n") == 1
    assert not hub.repositories
