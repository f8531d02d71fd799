"""The live page's server: what it answers, and what it refuses."""

import http.client
import json
import threading

import explained as F
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from chainrule._errors import ChainruleError
from chainrule.explain import page as pages
from chainrule.explain.explanation import Explain
from chainrule.explain.server import TOKEN, Server

SLOTS = '<script type="application/json" id="data">null</script><script type="application/json" id="live">null</script>'


@pytest.fixture(scope="module")
def server():
    live = Explain(F.net, 0, "auto").live(jnp.array([1.0, 0.5]))
    with Server(live) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield running
        running.shutdown()


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><title>x</title>{SLOTS}")
    monkeypatch.setattr(pages, "BUNDLE", path)
    return path


def ask(server, method, path, body=None, **headers):
    own = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    try:
        own.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            own.putheader(name.replace("_", "-"), value)
        if body is not None and "Content_Length" not in headers:
            own.putheader("Content-Length", str(len(body)))
        own.endheaders(body)
        answer = own.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        own.close()


def post(server, request, **headers):
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    return ask(server, "POST", "/eval", body, **{TOKEN: server.token, **headers})


def test_it_listens_to_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert len(server.token) >= 30


def test_a_new_point(server):
    status, body, _ = post(server, {"x": [0.25, -1.0]})
    data = json.loads(body)
    assert (status, data["schema"]) == (200, "chainrule/explanation")
    wanted = jax.grad(F.net)(jnp.array([0.25, -1.0]))
    np.testing.assert_allclose(data["jacobian"]["values"], wanted, rtol=1e-9)


def test_values_at_many_points(server):
    points = [[0.0, 0.0], [1.0, 2.0], [-3.0, 0.5]]
    status, body, _ = post(server, {"points": points})
    assert status == 200
    np.testing.assert_allclose(json.loads(body)["values"], [[F.net(jnp.array(p))] for p in points], rtol=1e-9)


def test_the_page_needs_its_token(server, bundle):
    status, body, headers = ask(server, "GET", f"/?token={server.token}")
    assert status == 200
    assert '"url": "/eval"' in body
    assert server.token in body
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    for path in ("/", "/?token=", f"/?token={server.token}x", "/?token=%00"):
        assert ask(server, "GET", path)[0] == 403
    assert ask(server, "GET", "/etc/passwd")[0] == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1.evil.example:80", ""])
def test_a_foreign_host_is_refused(server, host):
    assert post(server, {"x": [0.0, 0.0]}, Host=host)[0] == 403


def test_a_foreign_origin_and_a_missing_token_are_refused(server):
    assert post(server, {"x": [0.0, 0.0]}, Origin="http://evil.example")[0] == 403
    assert ask(server, "POST", "/eval", b'{"x": [0, 0]}')[0] == 403
    assert post(server, {"x": [0.0, 0.0]}, **{TOKEN: "wrong"})[0] == 403
    assert ask(server, "POST", "/other", b"{}", **{TOKEN: server.token})[0] == 404


def test_a_large_body_is_refused_unread(server):
    status, body, _ = post(server, b"{}", Content_Length="1000001")
    assert (status, "1,000,000" in body) == (413, True)
    assert post(server, b"{}", Content_Length="9" * 30)[0] == 413


@pytest.mark.parametrize("length", ["", "-1", "two", "1e3", "٣"])
def test_a_length_that_is_none_is_refused(server, length):
    assert post(server, b"{}", Content_Length=length.encode())[0] == 400


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        {},
        [],
        {"x": [0.0, 0.0], "y": 1},
        {"x": [0.0]},
        {"x": [0.0, 0.0, 0.0]},
        {"x": ["0", "0"]},
        {"x": [True, 0.0]},
        {"x": [None, 0.0]},
        {"x": "00"},
        {"x": [[0.0], 0.0]},
        {"x": {"0": 0.0}},
        b'{"x": [NaN, 0.0]}',
        b'{"x": [1e999, 0.0]}',
        b'{"x": [' + b"9" * 400 + b", 0]}",
        {"points": []},
        {"points": [[0.0]]},
        {"points": 3},
        {"points": [[0.0, 0.0]] * 4097},
    ],
)
def test_anything_but_numbers_is_refused(server, request_):
    assert post(server, request_)[0] == 400


def test_the_page_holds_the_data_safely(bundle):
    found = pages.page('{"a": "</script><script>alert(1)</script>\u2028"}')
    assert "</script><script>alert" not in found
    assert r"\u003c/script\u003e" in found
    assert found.count("<script") == SLOTS.count("<script")
    frame = pages.in_notebook('{"a": "\\"><img src=x>"}', "<svg></svg>")
    assert frame.count("<img") == 0
    assert 'sandbox="allow-scripts allow-downloads"' in frame


def test_a_missing_or_a_broken_page_is_said(tmp_path, monkeypatch, bundle):
    bundle.write_text("<html></html>")
    with pytest.raises(ChainruleError, match="build it again"):
        pages.page("{}")
    monkeypatch.setattr(pages, "BUNDLE", tmp_path / "none.html")
    with pytest.raises(ChainruleError, match="npm run build"):
        pages.page("{}")
    assert pages.in_notebook("{}", "<svg></svg>") == "<div><svg></svg></div>"
