"""The live page: a server for this machine alone, which evaluates the function at points of numbers."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chainrule.explain.live import Live, Refusal
from chainrule.explain.page import page

TOKEN = "X-Chainrule-Token"
_MOST_BYTES = 1_000_000
_POLICY = "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; "
_POLICY += "font-src data:; img-src data: blob:; connect-src 'self'"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "chainrule", ""
    disable_nagle_algorithm = True
    timeout = 30

    def do_GET(self) -> None:
        self._served(self._page)

    def do_POST(self) -> None:
        self._served(self._evaluation)

    def _served(self, answer: Callable[[], tuple[str, str]]) -> None:
        try:
            self._check_host()
            kind, body = answer()
            self._send(200, kind, body)
        except Refusal as refusal:
            self.close_connection = True  # what is left of the request is not read
            self._send(refusal.status, "application/json", json.dumps({"error": refusal.reason}))
        except Exception as error:  # of the user's function
            self.close_connection = True
            self._send(500, "application/json", json.dumps({"error": f"{type(error).__name__}: {error}"[:500]}))

    def _check_host(self) -> None:
        """A page of another site that points its name at this machine has another Host."""
        if self.headers.get("Host", "") not in self.server.hosts:
            raise Refusal(403, "this host is not served")
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{h}" for h in self.server.hosts}:
            raise Refusal(403, "this origin is not served")

    def _page(self) -> tuple[str, str]:
        path, _, query = self.path.partition("?")
        if path != "/":
            raise Refusal(404, "there is one page here")
        if not _equal(query, f"token={self.server.token}"):
            raise Refusal(403, "open the address with its token")
        return "text/html; charset=utf-8", self.server.page()

    def _evaluation(self) -> tuple[str, str]:
        if self.path != "/eval":
            raise Refusal(404, "POST to /eval")
        if not _equal(self.headers.get(TOKEN, ""), self.server.token):
            raise Refusal(403, "the token is missing or wrong")
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()) or "Transfer-Encoding" in self.headers:
            raise Refusal(400, "give the body with its length")
        if len(length) > 12 or int(length) > _MOST_BYTES:
            raise Refusal(413, f"a body has at most {_MOST_BYTES:,} bytes")
        try:
            request = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise Refusal(400, "the body is no JSON") from error
        return "application/json", self.server.live.answer(request)

    def _send(self, status: int, kind: str, body: str) -> None:
        raw = body.encode("utf-8", errors="replace")
        self.send_response(status)
        headers = {"Content-Type": kind, "Content-Length": str(len(raw)), "Cache-Control": "no-store"}
        headers |= {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"}
        headers |= {"Content-Security-Policy": _POLICY}
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the terminal is the user's."""


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", errors="replace"), wanted.encode())


class Server(ThreadingHTTPServer):
    """A server of one function on a free port of 127.0.0.1; `.url` has the random token."""

    daemon_threads = True

    def __init__(self, live: Live, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.live, self.token = live, secrets.token_urlsafe(24)
        own = self.server_address[1]
        self.hosts = {f"127.0.0.1:{own}", f"localhost:{own}"}
        self.url = f"http://127.0.0.1:{own}/?token={self.token}"

    def page(self) -> str:
        return page(self.live.first.to_json(), {"url": "/eval", "headers": {TOKEN: self.token}})
