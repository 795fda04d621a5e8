"""The server answers its own page and nobody else, reads no more than it may, and says what was wrong."""

from __future__ import annotations

import http.client
import io
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from PIL import Image

from rdm_cli import cli
from rdm_cli.app import desk as desks
from rdm_cli.app.server import MOST_BYTES, SCRIPTS, PageServer

TOKEN = "the-token-of-a-test"


def request(
    server: PageServer, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request; ``Host=None`` is not sent."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body if method == "POST" else None, given)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def ask(server: PageServer, verb: str, asked: Any = None, *, tab: str = "one", **headers: str) -> Any:
    """What the page gets for ``asked``, with its status where it is no 200."""
    told = {"X_Rdm_Token": TOKEN, "X_Rdm_Tab": tab, **headers}
    status, _, content = request(server, "POST", f"/api/{verb}", json.dumps(asked or {}).encode(), **told)
    return json.loads(content) if status == 200 else (status, json.loads(content)["error"])


def send(server: PageServer, name: str, content: bytes) -> Any:
    asked = quote(json.dumps({"name": name}))
    told = {"X_Rdm_Token": TOKEN, "X_Rdm_Tab": "one", "X_Rdm_Asked": asked}
    status, _, answer = request(server, "POST", "/api/open", content, **told)
    return json.loads(answer) if status == 200 else (status, json.loads(answer)["error"])


def png(size: tuple[int, int] = (16, 16)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "png")
    return file.getvalue()


def test_the_page_is_there_and_asks_nothing_outside(served: PageServer) -> None:
    for path in ("/", "/app.css", *(f"/{name}" for name in SCRIPTS)):
        status, headers, content = request(served, "GET", path)
        assert status == 200 and content
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert b"http://" not in content and b"https://" not in content
        assert TOKEN.encode() not in content


@pytest.mark.parametrize(
    "path",
    ["/../server.py", "/page/index.html", "/%2e%2e/desk.py", "//etc/passwd", "/etc/passwd", "/app.css?x"],
)
def test_no_other_file_is_there(served: PageServer, path: str) -> None:
    assert request(served, "GET", path)[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:{port}", ""])
def test_another_host_is_refused(served: PageServer, host: str) -> None:
    named = host.format(port=served.server_port)
    assert request(served, "GET", "/", Host=named)[0] == 403
    assert ask(served, "start", Host=named)[0] == 403


def test_a_request_without_the_token_or_of_another_page_is_refused(served: PageServer) -> None:
    assert ask(served, "start")["bundle"] == "tiny"
    for token in ("", "wrong", TOKEN[:-1], TOKEN + "x", "\u00e9"):
        assert ask(served, "start", X_Rdm_Token=token)[0] == 403
    assert ask(served, "start", Origin="http://evil.example")[0] == 403
    assert ask(served, "start", Origin=f"http://127.0.0.1:{served.server_port}")["bundle"] == "tiny"
    assert ask(served, "no-such-verb")[0] == 404
    assert request(served, "GET", "/api/start", X_Rdm_Token=TOKEN)[0] == 404


def test_only_named_files_are_read_by_their_number(served: PageServer, faces: Path) -> None:
    assert ask(served, "pick", {"number": 0})["name"] == "a.png"
    for number in (99, -1, "0", "../a.png", None, 1.5, True):
        assert ask(served, "pick", {"number": number})[0] == 422
    (faces / "a.png").unlink()
    status, error = ask(served, "pick", {"number": 0})
    assert status == 422 and "a.png" in error


@pytest.mark.parametrize("name", ["../../a.png", "C:\\x\\a.png", "/etc/a.png", "a.png"])
def test_the_name_of_what_is_dropped_is_its_last_part(served: PageServer, name: str) -> None:
    assert send(served, name, png())["name"] == "a.png"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.png", b"this is no picture", "a.png"),
        ("a.png", png()[:40], "a.png"),
        ("a.safetensors", b"this is no code", "a.safetensors"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "a.svg"),
        ("", png(), "no picture"),
        ("..", png(), "no name"),
        ("a\0.png", png(), "no name"),
        ("a.png", b"", "no picture"),
    ],
)
def test_what_is_no_picture_is_said_and_the_page_goes_on(
    served: PageServer, name: str, content: bytes, said: str
) -> None:
    status, error = send(served, name, content)
    assert status == 422 and said in error
    assert send(served, "good.png", png())["name"] == "good.png"


def test_a_decompression_bomb_is_refused(served: PageServer) -> None:
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "png")
    bomb = file.getvalue()
    assert len(bomb) < 2**17
    status, error = send(served, "bomb.png", bomb)
    assert status == 422 and "pixels" in error


def raw(server: PageServer, head: str, body: bytes = b"") -> bytes:
    """The first line of an answer to a request that no client library would send."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        told = f"Host: 127.0.0.1:{server.server_port}\r\nX-Rdm-Token: {TOKEN}\r\nX-Rdm-Tab: one\r\n"
        connection.sendall(f"POST /api/open HTTP/1.1\r\n{told}{head}\r\n".encode() + body)
        return connection.makefile("rb").readline()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (f"Content-Length: {MOST_BYTES + 1}\r\n", b"413"),
        ("Content-Length: 99999999999999999999\r\n", b"413"),
        ("Content-Length: -1\r\n", b"411"),
        ("Content-Length: many\r\n", b"411"),
        ("Transfer-Encoding: chunked\r\n", b"411"),
    ],
)
def test_a_request_that_is_too_long_or_has_no_length_is_not_read(
    served: PageServer, head: str, status: bytes
) -> None:
    assert raw(served, head).split()[1] == status


def test_what_is_no_json_is_refused(served: PageServer) -> None:
    told = {"X_Rdm_Token": TOKEN, "X_Rdm_Tab": "one"}
    for body in (b"", b"[]", b"{", b"[" * 100_000, b'{"seed": 1e999}'):
        assert request(served, "POST", "/api/draw", body, **told)[0] == 400
    for asked in (
        {"seed": -1},
        {"seed": "0"},
        {"seed": 0, "wanted": ["hat"]},
        {"seed": 0, "wanted": {"hat": 1}},
    ):
        assert ask(served, "draw", asked)[0] == 422
    assert ask(served, "mix", {"keys": ["1"], "weights": [1]})[0] == 410
    assert ask(served, "mix", {"keys": [], "weights": [1, 2]})[0] == 422


def test_tabs_do_not_see_one_anothers_pictures_and_the_oldest_goes(
    served: PageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desks, "MOST_TABS", 2)
    mine = ask(served, "pick", {"number": 0}, tab="mine")
    assert ask(served, "settle", {"key": mine["key"], "edit": {}}, tab="other")[0] == 410
    assert "picture" in ask(served, "settle", {"key": mine["key"], "edit": {}}, tab="mine")
    for tab in ("third", "fourth"):
        ask(served, "start", tab=tab)
    status, error = ask(served, "settle", {"key": mine["key"], "edit": {}}, tab="mine")
    assert status == 410 and "not open any more" in error


def test_a_tab_keeps_so_many_pictures(served: PageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MOST_SOURCES", 2)
    first, *_ = [ask(served, "pick", {"number": i})["key"] for i in range(3)]
    assert ask(served, "settle", {"key": first, "edit": {}})[0] == 410


def test_a_newer_edit_of_the_tab_supersedes_an_older_one(served: PageServer) -> None:
    key = ask(served, "pick", {"number": 0})["key"]
    asked = {"key": key, "edit": {"scales": {"hat": 0.2}}}
    assert "picture" in ask(served, "settle", asked | {"turn": 5})
    assert ask(served, "settle", asked | {"turn": 4})[0] == 409
    other = ask(served, "pick", {"number": 0}, tab="two")["key"]
    assert "picture" in ask(served, "settle", asked | {"key": other, "turn": 1}, tab="two")


def test_the_cloud_is_asked_by_numbers(served: PageServer) -> None:
    there = ask(served, "map")
    assert len(there["names"]) == 12 and set(there["attributes"]) == {"smiling", "glasses", "hat"}
    assert "picture" in ask(served, "point", {"number": 3})
    assert ask(served, "explore", {"number": 3})["name"].endswith(".safetensors")
    for verb in ("point", "explore"):
        assert ask(served, verb, {"number": 12})[0] == 422
    assert ask(served, "table", {"numbers": [0, 12]})[0] == 422
    assert ask(served, "table", {"numbers": "all"})[0] == 422


def test_the_app_runs_until_it_is_interrupted(tiny_bundle: Path, codes: Path) -> None:
    words = ["app", str(codes), "-b", str(tiny_bundle), "--no-browser", "--json"]
    app = subprocess.Popen(
        [sys.executable, "-m", "rdm_cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background job ignores Ctrl-C, and would hand that on
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert app.stdout is not None and app.stderr is not None
    page = json.loads(app.stdout.readline())
    address, _, token = page["url"].partition("/#")
    port = int(address.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    told = {"X-Rdm-Token": token, "X-Rdm-Tab": "t"}
    connection.request("POST", "/api/start", b"{}", told)
    started = json.loads(connection.getresponse().read())
    assert len(started["files"]) == 12 and started["explores"] and page["kind"] == "page"
    app.send_signal(signal.SIGINT)
    begun = time.monotonic()
    assert app.wait(timeout=30) == 0 and time.monotonic() - begun < 10
    assert "Traceback" not in app.stderr.read()
    connection.close()


def test_a_port_that_is_taken_is_told(
    tiny_bundle: Path, served: PageServer, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(served.server_port)
    assert cli.main(["app", "-b", str(tiny_bundle), "--no-browser", "--port", port]) == 2
    assert f"--port {port}: cannot listen there" in capsys.readouterr().err


def test_a_picture_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str], faces: Path) -> None:
    assert cli.main(["app", str(faces / "gone"), "--no-browser"]) == 2
    assert "gone" in capsys.readouterr().err
