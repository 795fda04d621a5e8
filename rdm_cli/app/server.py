"""The page of ``rdm app`` and its answers over HTTP, for this machine's own browser.

The page's files are open to whoever may connect, for they hold nothing. Every answer beyond them needs the
token that only the page's address has, in a header: another site's page knows it not, and cannot send such a
header. The Host that a browser names has to be this server's own, so that no other name can be made to lead
here. Nothing is read from a path that a request names. A request's size is known before it is read.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import quote, unquote

from rdm_cli.app.desk import VERBS, Desk, File, GoneError, SupersededError
from rdm_cli.data.io.json_text import parse_object
from rdm_cli.errors import RdmError

MOST_BYTES = 64 * 2**20  # of a picture or a code that is sent here
MOST_JSON = 2**18
PATIENCE_SECONDS = 60.0  # for a request that has begun, and between two of one connection
TOKEN, TAB, ASKED = "X-Rdm-Token", "X-Rdm-Tab", "X-Rdm-Asked"
LONGEST_TAB = 64
SCRIPTS = ("app.js", "between.js", "draw.js", "edit.js", "explore.js", "link.js")
PAGE = {"/": "index.html"} | {f"/{name}": name for name in ("app.css", *SCRIPTS)}
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
AFTER_READING = (HTTPStatus.CONFLICT, HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY)
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _Refused(Exception):
    """A request that gets no answer, and why."""

    def __init__(self, status: HTTPStatus, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.hint = status, message, hint


class PageServer(ThreadingHTTPServer):
    """Serves the page at ``host`` and ``port`` (0: a free one) and answers by ``desk``.

    ``token`` is what every request for an answer has to know; ``on_problem`` is told of faults of ours.
    Raises OSError where the port is taken.
    """

    daemon_threads = True  # Ctrl-C waits for nobody
    block_on_close = False

    def __init__(
        self, host: str, port: int, desk: Desk, token: str, on_problem: Callable[[str], None]
    ) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.desk, self.token, self.on_problem = desk, token, on_problem
        self.host = host
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """The page's address, with the token."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/#{self.token}"

    def knows_host(self, named: str) -> bool:
        """Whether a request's Host is this server: its name, this machine's, or an address as such."""
        host, _, port = named.rpartition(":")
        if port != str(self.server_port):
            return False
        host = host.removeprefix("[").removesuffix("]").lower()
        if host in ("localhost", "127.0.0.1", "::1", self.host.lower()):
            return True
        try:  # an address cannot be made to mean another one, as a name can
            return bool(ipaddress.ip_address(host)) and not self._is_local
        except ValueError:
            return not self._is_local and host == socket.gethostname().lower()

    @property
    def _is_local(self) -> bool:
        return self.host in ("127.0.0.1", "::1", "localhost")

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that broke is the browser's business."""


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "rdm", ""
    disable_nagle_algorithm = True
    timeout = PATIENCE_SECONDS

    def do_GET(self) -> None:
        """The page's own files."""
        try:
            self._check_host()
            if self.path not in PAGE:
                raise _Refused(HTTPStatus.NOT_FOUND, "there is no such page")
        except _Refused as refused:
            return self._refuse(refused)
        name = PAGE[self.path]
        content = files("rdm_cli.app").joinpath("page", name).read_bytes()
        self._send(HTTPStatus.OK, content, f"{KINDS[name.rpartition('.')[2]]}; charset=utf-8")

    def do_POST(self) -> None:
        """An answer of the desk."""
        try:
            self._check_host()
            given = self._answer(self._checked_verb())
        except _Refused as refused:
            return self._refuse(refused)
        if isinstance(given, File):
            self._send(HTTPStatus.OK, given.content, "application/octet-stream", name=given.name)
        else:
            self._send(HTTPStatus.OK, json.dumps(given).encode(), "application/json")

    def _check_host(self) -> None:
        if not self.server.knows_host(self.headers.get("Host", "")):
            raise _Refused(HTTPStatus.FORBIDDEN, "this server goes by another name")

    def _checked_verb(self) -> str:
        """What is asked for; nothing that may not be asked is read."""
        origin = self.headers.get("Origin")
        if origin is not None and origin != f"http://{self.headers['Host']}":
            raise _Refused(HTTPStatus.FORBIDDEN, "another site's page may not ask here")
        if not hmac.compare_digest(self.headers.get(TOKEN, "").encode(), self.server.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "open the whole address that rdm app printed")
        verb = self.path.removeprefix("/api/")
        if not self.path.startswith("/api/") or verb not in VERBS:
            raise _Refused(HTTPStatus.NOT_FOUND, "there is no such answer")
        if not 0 < len(self.headers.get(TAB, "")) <= LONGEST_TAB:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"a request names its tab: {TAB}")
        return verb

    def _answer(self, verb: str) -> Any:
        body = self._body(MOST_BYTES if verb == "open" else MOST_JSON)
        try:
            asked = parse_object(unquote(self.headers.get(ASKED, "")) if verb == "open" else body)
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST, "this is no JSON object") from None
        try:
            return self.server.desk.answer(verb, self.headers[TAB], asked, body)
        except SupersededError as error:
            raise _Refused(HTTPStatus.CONFLICT, error.message) from error
        except GoneError as error:
            raise _Refused(HTTPStatus.GONE, error.message, error.hint) from error
        except RdmError as error:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, error.message, error.hint) from error
        except Exception as error:  # a fault of ours: it is said, and the page goes on
            told = f"{type(error).__name__}: {error}"
            self.server.on_problem(f"rdm: {verb}: {told}")
            raise _Refused(HTTPStatus.INTERNAL_SERVER_ERROR, told) from error

    def _body(self, most: int) -> bytes:
        """What was sent, of ``most`` bytes or fewer."""
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "a request says how long it is")
        if (size := int(length)) > most:
            told = f"{most // 2**20} MiB" if most >= 2**20 else f"{most // 2**10} KiB"
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"more than {told} are not read")
        body = self.rfile.read(size)
        if len(body) < size:
            raise _Refused(HTTPStatus.BAD_REQUEST, "it was cut short")
        return body

    def _refuse(self, refused: _Refused) -> None:
        if refused.status not in AFTER_READING:
            self.close_connection = True  # what was sent may wait there unread
        answer = {"error": refused.message, "hint": refused.hint}
        self._send(refused.status, json.dumps(answer).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str, *, name: str | None = None) -> None:
        self.send_response(status)
        for header, value in HEADERS.items():
            self.send_header(header, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if name is not None:
            self.send_header("Content-Disposition", f"attachment; filename*=UTF-8''{quote(name, safe='')}")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of requests."""
