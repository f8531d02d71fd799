"""In a notebook the page is live: what the widget sends and answers, without a browser."""

import json

import comm
import explained as F
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule.explain import page as pages

POINT = jnp.array([1.0, 0.5])


@pytest.fixture
def sent(monkeypatch):
    """The messages of all widgets to their front ends."""
    found = []

    class Channel(comm.base_comm.BaseComm):
        def publish_msg(self, msg_type, data=None, metadata=None, buffers=None, **keys):
            found.append((msg_type, data))

    monkeypatch.setattr(comm, "create_comm", Channel)
    return found


def ask(widget, sent, message):
    """One round trip, as the front end makes it."""
    sent.clear()
    data = {"method": "custom", "content": message}
    widget.comm.handle_msg({"content": {"comm_id": widget.comm.comm_id, "data": data}, "buffers": []})
    [(kind, answer)] = sent
    assert (kind, answer["method"]) == ("comm_msg", "custom")
    return json.loads(json.dumps(answer["content"], allow_nan=False))


def test_a_widget_shows_the_explanation_and_answers_for_other_points(sent):
    found = cr.explain(F.net)(POINT)
    widget = found._widget()
    opened = dict(sent)["comm_open"]["state"]
    assert opened["data"] == found.to_dict()
    assert opened["_esm"] in pages.BUNDLE.read_text(encoding="utf-8")
    answer = ask(widget, sent, {"id": 7, "x": [0.25, -1.0]})
    assert answer["id"] == 7
    wanted = jax.grad(F.net)(jnp.array([0.25, -1.0]))
    np.testing.assert_allclose(answer["answer"]["jacobian"]["values"], wanted, rtol=1e-9)
    points = [[0.0, 0.0], [1.0, 2.0]]
    answer = ask(widget, sent, {"id": 8, "points": points})
    np.testing.assert_allclose(answer["answer"]["values"], [[F.net(jnp.array(p))] for p in points], rtol=1e-9)


@pytest.mark.parametrize(
    ("message", "reason"),
    [({"id": 1, "x": [1.0]}, "2 numbers"), ({"id": 1, "x": ["<b>", 1]}, "numbers"), ("y", "give"), ({"id": 1}, "give")],
)
def test_a_widget_refuses_what_the_server_refuses(sent, message, reason):
    widget = cr.explain(F.net)(POINT)._widget()
    assert reason in ask(widget, sent, message)["answer"]["error"]


def test_all_differentiated_arguments_move_and_the_others_stay(sent):
    def f(x, scale, y):
        return scale * x[:, None] * y["k"].astype(x.dtype)[None]

    y = {"k": jnp.array([3.0, 4.0], jnp.float32)}
    widget = cr.explain(f, argnums=(2, 0))(POINT, 2.0, y)._widget()
    answer = ask(widget, sent, {"id": 1, "points": [[5.0, 6.0, 7.0, 8.0]]})  # y, then x
    np.testing.assert_allclose(answer["answer"]["values"], [[70.0, 84.0, 80.0, 96.0]])
    answer = ask(widget, sent, {"id": 2, "x": [5.0, 6.0, 7.0, 8.0]})
    assert [i["name"] for i in answer["answer"]["inputs"]] == ["k", "x"]
    assert [n["value"]["full"] for n in answer["answer"]["nodes"][:2]] == [[5, 6], [7, 8]]


def test_errors_of_the_function_are_answers(sent):
    broken = []

    def f(x):
        if broken:
            raise ValueError("no such <point>")
        return jax.lax.cond(x[0] > 2.0, jnp.sin, jnp.cos, x)

    widget = cr.explain(f)(POINT)._widget()
    broken.append(True)  # the other branch is traced anew
    assert ask(widget, sent, {"id": 1, "x": [3.0, 0.0]})["answer"] == {"error": "ValueError: no such <point>"}
    assert "error" not in ask(widget, sent, {"id": 2, "x": [0.5, 0.0]})["answer"]


def test_what_notebooks_are_given(monkeypatch, sent):
    found = cr.explain(F.net)(POINT)
    bundle = found._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in (bundle[0] if isinstance(bundle, tuple) else bundle)
    again = cr.Explanation.from_dict(found.to_dict())  # of a file: nothing can be asked
    assert again._repr_mimebundle_() == {}
    assert again._mime_() == ("text/html", again._repr_html_())
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert found._repr_mimebundle_() == {}
    assert found._mime_()[0] == "text/html"
