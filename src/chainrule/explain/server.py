"""The live page: a server for this machine alone, which evaluates the function at points of numbers."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import InputTypeError
from chainrule.explain.encode import numbers
from chainrule.explain.explanation import Explain, Explanation
from chainrule.explain.page import page

TOKEN = "X-Chainrule-Token"
_MOST_BYTES, _MOST_POINTS = 1_000_000, 4096
_POLICY = "default-src 'none'; script-src 'unsafe-inline' blob:; worker-src blob:; style-src 'unsafe-inline'; "
_POLICY += "font-src data:; img-src data: blob:; connect-src 'self'"


class Refusal(Exception):
    """A request that is not served: a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Live:
    """A function at a point that can be moved."""

    def __init__(self, explain: Explain, point: Any) -> None:
        self._explain, self._lock = explain, threading.Lock()
        leaves, self._tree = jax.tree.flatten(point)
        self._leaves = [jnp.asarray(x) for x in leaves]
        self.size = sum(x.size for x in self._leaves)
        self.first = self.at(np.concatenate([np.ravel(x) for x in self._leaves]) if leaves else np.zeros(0))
        self._values: Callable[[Any], Any] | None = None

    def at(self, x: Any) -> Explanation:
        """The explanation at a point, given as its flat numbers."""
        offset, leaves = 0, []
        for leaf in self._leaves:
            leaves.append(jnp.asarray(x[offset : offset + leaf.size], leaf.dtype).reshape(leaf.shape))
            offset += leaf.size
        with self._lock:
            return self._explain(jax.tree.unflatten(self._tree, leaves))

    def answer(self, request: Any) -> str:
        """JSON for {"x": [n numbers]} or {"points": [[n numbers], …]}; a Refusal for anything else."""
        if not isinstance(request, dict) or len(request) != 1 or not set(request) <= {"x", "points"}:
            raise Refusal(400, 'give {"x": [numbers]} or {"points": [[numbers], …]}')
        if "x" in request:
            return self.at(self._numbers(request["x"])).to_json()
        points = request["points"]
        if not isinstance(points, list) or not 0 < len(points) <= _MOST_POINTS:
            raise Refusal(400, f"give 1 to {_MOST_POINTS:,} points")
        found = self._at_points(np.stack([self._numbers(p) for p in points]))
        return json.dumps({"values": [numbers(row) for row in np.asarray(found)]})

    def _at_points(self, points: np.ndarray) -> Any:
        with self._lock:
            if self._values is None:
                try:
                    self._values = self._explain.values(jax.tree.unflatten(self._tree, self._leaves))
                except InputTypeError as error:
                    raise Refusal(400, str(error)) from error
            return self._values(jnp.asarray(points, self._leaves[0].dtype))

    def _numbers(self, given: Any) -> np.ndarray:
        plain = isinstance(given, list) and len(given) == self.size
        if not plain or any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in given):
            raise Refusal(400, f"a point is a list of {self.size} numbers")
        try:
            found = np.asarray(given, np.float64)
        except OverflowError as error:
            raise Refusal(400, "a number is too large") from error
        if not np.isfinite(found).all():
            raise Refusal(400, "a point has finite numbers")
        return found


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
