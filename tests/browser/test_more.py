"""The page around the mathematics: folding, search, exports, practice, hostile data, access."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from browser.bundle import WEB, absent
from browser.documents import FIELD, NET, SOFT, Example, Step, stored
from browser.test_page import last, near, number, numbers


def grouped() -> tuple[Example, dict]:
    """Two layers, the inner one folded, with the Jacobian of the whole group on its edge."""
    A = np.array([[0.5, -1.0], [2.0, 0.3], [1.0, 1.0]])
    steps = [
        Step("u", ("x",), lambda x: A @ x, "dot", "u = A @ x", group="g1"),
        Step("v", ("u",), jnp.sin, "sin", "v = jnp.sin(u)", "diagonal", group="g1"),
        Step("y", ("v",), lambda v: jnp.array([1.0, 2.0, -1.0]) @ v, "dot", "y = c @ v"),
    ]
    group = {
        "id": "g1",
        "parent": None,
        "kind": "jit",
        "name": "layer",
        "symbol": "layer",
        "text": "v = layer(x)",
        "times": 1,
        "open": False,
        "inputs": ["n0"],
        "outputs": ["n2"],
        "size": 2,
    }
    example = Example("deep", np.array([0.4, -0.2]), steps, ("y",), (group,))
    data = example.document()
    inner = Example("inner", example.x, steps[:2], ("v",))
    data["edges"].append(
        {"id": "eg", "from": "n0", "to": "n2", "group": "g1", "jacobian": stored(inner.jacobian(), "∂v/∂x")}
    )
    return example, data


def test_a_folded_group_is_one_box_with_the_jacobian_of_the_whole(visit):
    example, data = grouped()
    page = visit(data)
    assert page.locator(".node").count() == 3
    last(page)

    def pulled():
        return [number(t.partition("∇")[2]) for t in page.locator('[data-n="n0"] .row').all_text_contents()]

    assert near(pulled(), example.jacobian()[0])
    total = number(page.locator(".paths .wf span").last.inner_text())
    page.locator('[data-f="fold:n2"]').click()
    assert page.locator(".node").count() == 4
    last(page)
    assert near(pulled(), example.jacobian()[0]) and number(page.locator(".paths .wf span").last.inner_text()) == total
    page.locator('[data-f="level-m"]').click()
    assert page.locator(".node").count() == 3


def test_search_reaches_into_what_is_folded(visit):
    _, data = grouped()
    page = visit(data)
    page.keyboard.press("/")
    page.locator(".query").fill("A @ x")
    assert page.locator(".found li").count() == 1
    page.locator(".query").press("Enter")
    assert page.locator('[data-n="n1"]').count() == 1
    page.keyboard.press("/")
    page.locator(".query").fill("nothing of this name")
    assert page.locator("dialog [role=status]").inner_text() == "0 values"


def test_only_what_lies_between(visit):
    steps = [Step(f"u{k}", ("x",), lambda x, k=k: x * k, "scale", kind="diagonal") for k in range(6)]
    steps.append(Step("y", ("u0",), jnp.sum, "sum"))
    page = visit(Example("fan", np.array([1.0, 2.0]), steps, ("y",)).document())
    assert page.locator(".node").count() == 8
    page.locator('[data-f="only"]').click()
    assert page.locator(".node").count() == 3


def saved(page, kind: str) -> bytes:
    page.keyboard.press("e")
    with page.expect_download() as got:
        page.locator(f'[data-x="{kind}"]').click()
    page.keyboard.press("Escape")
    return Path(got.value.path()).read_bytes()


def test_exports(visit, tmp_path):
    data = NET.document()
    page = visit(data)
    svg = ElementTree.fromstring(saved(page, "SVG"))
    said = "".join(svg.itertext())
    assert (
        svg.tag.endswith("svg") and "0.850" in said and "CR Math" in said and "var(--" not in (svg.get("viewBox") or "")
    )
    png = saved(page, "PNG")
    assert png[:8] == b"\x89PNG\r\n\x1a\n" and int.from_bytes(png[16:20]) >= 1800 and len(png) > 20000
    tex = saved(page, "LaTeX").decode()
    assert r"\frac{\partial" in tex and float(tex.rsplit("=", 1)[1]) == pytest.approx(NET.jacobian()[0, 0])
    assert json.loads(saved(page, "JSON")) == data
    html = saved(page, "HTML")
    again = tmp_path / "again.html"
    again.write_bytes(html)
    page.goto(again.as_uri())
    assert near(number(page.locator(".paths .wf span").last.inner_text()), NET.jacobian()[0, 0])


def answer(page, kind: str, *values: str) -> str:
    q = page.locator(f'[data-q="{kind}"]')
    for k, v in enumerate(values):
        q.locator("input").nth(k).fill(v)
    q.get_by_role("button", name="Check").click()
    return q.locator("[role=status]").inner_text()


def test_practice_says_what_went_wrong(visit):
    page = visit(NET.document())
    page.keyboard.press("p")
    assert page.locator("table.cost").count() == 0  # nothing on the page gives the answers away
    assert page.locator("g.jg", has_text="? × ?").count() == 2
    options = page.locator('[data-q="order"] [data-f^="opt:"]')
    assert [b.get_attribute("data-f").split(":")[-1] for b in options.all()] == ["forward", "reverse"]
    assert "transpose" in answer(page, "shape", "2", "3")
    assert "whole" in answer(page, "shape", "1", "2")
    assert "Right" in answer(page, "shape", "3", "2")
    assert page.locator("g.jg", has_text="? × ?").count() == 1
    explorer = "document.getElementById('app').explorer"
    page.evaluate(f"{explorer}.P.level = 'medium'; {explorer}.S.j = 0; {explorer}.draw()")
    J = NET.jacobian()[0]
    h = np.tanh(np.asarray(NET.values(NET.x)["a"]))
    local = 1 - h**2
    products = [c * d * w for c, d, w in zip([1.5, -1.0, 2.0], local, [-0.5, 1.2, 0.9], strict=True)]
    assert "wrong sign" in answer(page, "entry", f"{-J[1]:.3f}")
    assert "Wrong column" in answer(page, "entry", f"{J[0]:.3f}")
    assert "Dropped path" in answer(page, "entry", f"{J[1] - products[0]:.3f}")
    assert "one path alone" in answer(page, "entry", f"{products[2]:.3f}")
    without = sum(c * w for c, w in zip([1.5, -1.0, 2.0], [-0.5, 1.2, 0.9], strict=True))
    assert "Missing factor" in answer(page, "entry", f"{without:.3f}")
    assert "Not yet" in answer(page, "entry", "77")
    q = page.locator('[data-q="entry"]')
    solution = q.get_by_role("button", name="Show solution")
    for _ in range(3):
        assert solution.is_disabled()
        q.get_by_role("button", name="Hint").click()
    assert q.locator(".hints li").count() == 3
    solution.click()
    assert near(numbers(q.locator(".solution").inner_text())[-1], J[1])
    assert "Right" in answer(page, "entry", f"{J[1]:.2f}".replace("-", "−"))
    order = page.locator('[data-q="order"]')
    order.locator('[data-f$=":forward"]').click()
    assert "the other" in order.locator("[role=status]").inner_text()
    order.locator('[data-f$=":reverse"]').click()
    assert "Right" in order.locator("[role=status]").inner_text()
    assert page.locator("table.cost .chosen").count() == 1


def test_an_entry_of_the_transpose_is_named(visit):
    page = visit(FIELD.document(np.array([1.0, 5.0])))
    page.keyboard.press("p")
    explorer = "document.getElementById('app').explorer"
    page.evaluate(f"{explorer}.P.level = 'medium'; {explorer}.S.i = 0; {explorer}.S.j = 0; {explorer}.draw()")
    J = FIELD.jacobian(np.array([1.0, 5.0]))
    assert "transpose" in answer(page, "entry", str(J[1, 0]))


def test_levels_unlock_after_two_right_in_a_row_and_progress_is_kept(visit):
    page = visit(NET.document())
    page.keyboard.press("p")
    assert page.locator('[data-f="level:medium"]').is_disabled()
    answer(page, "shape", "3", "2")
    page.locator('[data-q="order"] [data-f$=":reverse"]').click()
    assert page.locator('[data-f="level:medium"]').is_enabled()
    page.reload()
    page.keyboard.press("p")
    assert page.locator('[data-f="level:medium"]').is_enabled() and "2 in all" in page.locator(".levels").inner_text()


HOSTILE = [
    "<script>window.hacked=1</script>",
    '"><img src=x onerror="window.hacked=1">',
    "\u202eabc\u202c\u202e",
    "x" * 10_000,
    "'`${window.hacked=1}`",
    "</script><script>window.hacked=1//",
    "",
    "𝔘𝔫𝔦\u0000\u0007",
]


@pytest.mark.parametrize("bad", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_neither_break_nor_inject(visit, bad):
    data = NET.document()
    data["function"] |= {"name": bad, "file": bad, "source": [{"line": 1, "text": bad}]}
    for node in data["nodes"]:
        node |= {"name": bad, "symbol": bad, "operation": bad, "text": bad, "latex": bad}
    for edge in data["edges"]:
        edge["jacobian"] |= {"label": bad, "note": bad}
        edge["jacobian"]["structure"] |= {"words": bad, "glyph": bad}
    data["groups"] = [
        {
            "id": bad,
            "parent": bad,
            "kind": bad,
            "name": bad,
            "symbol": bad,
            "text": bad,
            "times": 3,
            "open": True,
            "inputs": [],
            "outputs": [],
            "size": 0,
        }
    ]
    data["orders"] |= {"note": bad, "reason": bad}
    data["practice"] = [{"id": bad, "question": bad, "kind": "entry", "answer": 1.0}]
    page = visit(data)
    last(page)
    for key in ["/", "e", "?"]:
        page.keyboard.press(key)
        page.keyboard.press("Escape")
    page.evaluate("const a = document.getElementById('app').explorer; a.openEdge(a.graph.edges[0])")
    page.keyboard.press("Escape")
    page.keyboard.press("p")
    assert page.evaluate("window.hacked") is None
    assert page.locator(".q").count() == 4
    root = page.evaluate(
        "[...document.getElementById('app').shadowRoot.querySelectorAll('script, img, iframe')].length"
    )
    assert root == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1")
    ElementTree.fromstring(saved(page, "SVG")) if "\u0000" not in bad else None


def test_values_that_are_no_numbers_are_shown(visit):
    with np.errstate(all="ignore"):
        bad = Example(
            "bad",
            np.array([0.0, 1.0]),
            [
                Step("u", ("x",), lambda x: jnp.log(x), "log", kind="diagonal"),
                Step("y", ("u",), lambda u: u * jnp.array([0.0, jnp.nan]), "times", kind="diagonal"),
            ],
            ("y",),
        )
        page = visit(bad.document())
    last(page)
    said = page.locator("#canvas").text_content()
    assert "NaN" in said and "−∞" in said and "∞" in said
    for block in ["area", "output", "level"]:
        page.locator(f'[data-b="{block}"]').click()


@pytest.mark.parametrize("shape", [(0,), (3, 0)])
def test_empty_arrays(visit, shape):
    empty = Example("empty", np.zeros(shape), [Step("y", ("x",), lambda x: x * 2, "twice", kind="diagonal")], ("y",))
    page = visit(empty.document())
    last(page)
    page.keyboard.press("p")
    assert "empty" in page.locator("#canvas").text_content()


def test_a_constant_function_and_a_foreign_document(visit):
    data = NET.document() | {
        "nodes": [],
        "edges": [],
        "outputs": [{"node": None, "name": "y", "shape": [], "offset": 0, "size": 1}],
    }
    page = visit(data)
    assert "No value depends" in page.locator("#canvas").text_content()
    page = visit({"schema": "chainrule/explanation", "version": 99})
    assert "version 1" in page.locator("p").inner_text()


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_violation_of_accessibility(visit, theme):
    axe = WEB / "node_modules" / "axe-core" / "axe.min.js"
    if not axe.exists():
        absent("axe-core is not installed: npm install in src/chainrule/explain/web")
    for data in (NET.document(), grouped()[1], SOFT.document()):
        page = visit(data, color_scheme=theme)
        assert page.locator(".root").get_attribute("data-theme") == theme
        page.evaluate(axe.read_text(encoding="utf-8"))

        def check(page=page):
            found = page.evaluate(
                """axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v =>
                  [v.id, v.nodes.slice(0, 4).map(n => n.html.slice(0, 200) + ' :: ' + n.failureSummary)]))"""
            )
            assert found == []

        last(page)
        check()
        page.keyboard.press("p")
        check()
        if data["function"]["name"] == "net":
            for key in ["/", "e", "?"]:
                page.keyboard.press(key)
                check()
                page.keyboard.press("Escape")
            page.locator('[data-f="point"]').click()
            check()
            page.keyboard.press("Escape")
            page.locator('[data-f="card:e0"]').press("Enter")
            check()


@pytest.mark.parametrize("width", [1440, 1000, 600])
def test_narrow_containers_stack_and_never_overflow(visit, width):
    page = visit(NET.document(), viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tops = [page.locator(f"#{k}").bounding_box()["y"] for k in ("h-graph", "h-cost", "tab-e", "h-geo", "h-gl")]
    assert (tops == sorted(tops)) == (width <= 1080)


@pytest.mark.parametrize("width", [1200, 400])
def test_numbers_stay_beside_their_bars_and_the_costs_of_a_long_chain_fit(visit, width):
    A = jnp.array([[0.5, -1.0, 0.3], [1.0, 0.2, -0.7], [0.4, 0.4, 0.4], [-0.3, 0.8, 1.1]])
    B = jnp.array([[1.0, -0.5, 0.2, 0.7], [0.3, 0.9, -1.0, 0.1]])

    def net(x):
        h = jax.nn.relu(A @ x + 0.1)
        z = B @ h
        p = jax.nn.softmax(z)
        return -jnp.log(p[0])

    data = cr.explain(net)(jnp.array([1.0, 0.5, 0.2])).to_dict()
    page = visit(data, viewport={"width": width, "height": 900})
    for row in page.locator(".wf").all():
        box, label = row.bounding_box(), row.locator("span").bounding_box()
        assert label["x"] >= box["x"] and label["x"] + label["width"] <= box["x"] + box["width"] + 1
    if width == 1200:
        table = page.locator("table.cost")
        assert table.evaluate("t => t.parentElement.scrollWidth <= t.parentElement.clientWidth")
        tools = page.locator("header .tools > *").all()
        assert len({round(t.bounding_box()["y"] + t.bounding_box()["height"] / 2) for t in tools}) == 1
    page.locator("#tab-p").click()  # brackets that are too long to compare are named by their direction
    assert page.get_by_role("button", name="from the output").count() == 1


def test_a_loop_shows_the_value_of_each_iteration(visit):
    def f(x):
        return jax.lax.scan(lambda s, t: (jnp.sin(s) * t, None), x, jnp.arange(1.0, 5.0))[0]

    page = visit(cr.explain(f)(jnp.array([1.0, 0.5])).to_dict())
    page.locator('[data-f^="loop:"]').focus()
    page.keyboard.press("Enter")
    seen = page.locator("dialog .comp b")
    s = jnp.array([1.0, 0.5])
    for k, t in enumerate(range(1, 5)):
        s = jnp.sin(s) * t
        page.locator('[data-f="turn"]').fill(str(k + 1))
        assert all(near(number(a), float(b), 3) for a, b in zip(seen.all_inner_texts(), s, strict=True))
    assert "of 4" in page.locator("dialog").inner_text()


def test_text_and_page_count_the_same_paths(visit):
    def f(x):
        h = jnp.tanh(np.array([[1.0, -0.5], [0.8, 1.2]]) @ x) * 2.0
        y = h @ h
        return y  # noqa: RET504

    found = cr.explain(f)(jnp.array([1.0, 0.5]))
    page = visit(found.to_dict())
    shown = re.match(r"\d+", page.locator('[data-t="count"]').inner_text())[0]
    assert f": {shown} paths count" in str(found) and found.paths(0, 0)["count"] != "0"


def test_a_single_step_has_nothing_to_multiply(visit):
    found = cr.explain(lambda x: x**2)(jnp.array([1.0, 0.5]))
    assert "nothing to multiply" in str(found)
    page = visit(found.to_dict())
    assert page.locator("table.cost").count() == 0
    page.keyboard.press("p")
    assert page.locator('[data-q="order"]').count() == 0
