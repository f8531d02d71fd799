"""Explanations hold what JAX computes: values, local Jacobians, groups, sweeps; on one line per step of the source."""

import json

import explained as F
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import chainrule as cr
from chainrule._jax import as_callable, count_equations
from chainrule._trace import pick
from chainrule.explain import encode
from chainrule.explain.explanation import Explain

POINT = jnp.array([1.0, 0.5])
TREE = {"w": jnp.arange(6.0).reshape(3, 2) / 3, "v": jnp.array([0.5, -1.0])}
CASES = {
    "net": (F.net, POINT),
    "one line": (F.one_line, POINT),
    "quadratic": (F.quadratic, jnp.array([1.0, 2.0])),
    "softmax": (F.softmax, POINT),
    "nested": (F.nested, POINT),
    "custom": (F.custom, POINT),
    "counted": (F.counted, POINT),
    "tree": (lambda p: F.tree(p, 2.0), TREE),
    "empty": (lambda x: x * 2.0, jnp.zeros(0)),
    "itself": (lambda x: x, POINT),
    "constant": (lambda x: (jnp.ones(2), x.sum()), POINT),
    "scalar": (lambda x: jnp.sin(x) * x, jnp.asarray(0.3)),
    "twice": (lambda x: {"a": x * 2.0, "b": x * 3.0}, POINT),
    "batch": (lambda x: jnp.einsum("ijk,kl->ijl", x, F.W[:2]), jnp.arange(8.0).reshape(2, 2, 2)),
    "batched in the last axis": (lambda x: F.W @ x, jnp.arange(8.0).reshape(2, 4)),
    "library": (jax.nn.softmax, jnp.arange(12.0)),
}


def flat_jacobian(f, x):
    flat, back = ravel_pytree(x)
    return np.asarray(jax.jacfwd(lambda v: ravel_pytree(f(back(v)))[0])(flat))


def close(a, b):
    np.testing.assert_allclose(np.asarray(a, float), np.asarray(b, float), rtol=1e-9, atol=1e-10)


def entries(value):
    return [encode.read(v) for v in value["full"]]


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_jax(name):
    f, x = CASES[name]
    explain = Explain(f, 0, "auto")
    data = explain(x).to_dict()
    problem = pick("explain", f, 0, (x,))
    graph, _ = explain._prepared(problem, (x,))
    nodes = {n.id: n for n in graph.nodes}
    close(encode.matrix_of(data["jacobian"]), flat_jacobian(f, x))
    values = {}
    for n in data["nodes"]:
        jaxpr, consts = graph.flat.part(graph.flat.invars, [nodes[n["id"]].variable])
        values[n["id"]] = as_callable(jaxpr, consts)(*problem.leaves)[0]
        close(entries(n["value"]), np.ravel(values[n["id"]]))
    for e in data["edges"]:
        start, stop = nodes[e["from"]], nodes[e["to"]]
        inside = stop.step.operations if e["group"] is None else inner_operations(graph, e["group"])
        jaxpr, consts, others = between(graph, inside, start, stop)
        known = [evaluated(graph, v, problem.leaves) for v in others]
        run = as_callable(jaxpr, consts)
        wanted = jax.jacfwd(lambda v, run=run, known=known: run(v, *known)[0])(values[start.id])
        found = encode.matrix_of(e["jacobian"])
        close(found, np.reshape(wanted, found.shape))
        close(encode.read(e["jacobian"]["norm"]), np.linalg.norm(found))


def inner_operations(graph, group):
    own = next(g for g in graph.groups if g.id == group)
    return [o for step in own.scope.steps() for o in step.operations]


def between(graph, operations, start, stop):
    made = {v for o in operations for v in o.eqn.outvars}
    read = [v for o in operations for v in o.eqn.invars if hasattr(v, "aval") and not hasattr(v, "val")]
    others = [v for v in dict.fromkeys(read) if v not in made and v is not start.variable]
    others = [v for v in others if v not in graph.flat.constants]
    jaxpr, consts = graph.flat.part([start.variable, *others], [stop.variable], operations)
    return jaxpr, consts, others


def evaluated(graph, v, leaves):
    jaxpr, consts = graph.flat.part(graph.flat.invars, [v])
    return as_callable(jaxpr, consts)(*leaves)[0]


@pytest.mark.parametrize("name", CASES)
def test_document_is_plain_and_comes_back(name):
    f, x = CASES[name]
    found = cr.explain(f)(x)
    text = found.to_json()
    assert cr.Explanation.from_dict(json.loads(text)) == found
    data = found.to_dict()
    assert (data["schema"], data["version"]) == ("chainrule/explanation", 1)
    ids = [n["id"] for n in data["nodes"]]
    assert ids == [f"n{k}" for k in range(len(ids))]
    at = {n: k for k, n in enumerate(ids)}
    assert all(at[e["from"]] < at[e["to"]] for e in data["edges"])
    groups = {g["id"]: g for g in data["groups"]}
    assert all(n["group"] in {None, *groups} for n in data["nodes"])
    assert all(g["parent"] in {None, *groups} for g in groups.values())
    assert str(found)
    assert found.svg().startswith("<svg")


@pytest.mark.parametrize("name", ["net", "nested", "softmax", "tree"])
def test_sums_over_paths_add_up_after_a_round_trip(name):
    f, x = CASES[name]
    found = cr.explain(f)(x)
    again = cr.Explanation.from_dict(found.to_dict())
    J = flat_jacobian(f, x)
    for i in range(J.shape[0]):
        for j in range(min(J.shape[1], 3)):
            own = found.paths(i, j)
            total = sum(encode.read(p["product"]) for p in own["top"]) + encode.read(own["rest"]["sum"])
            close([total, encode.read(own["value"])], [J[i, j]] * 2)
            assert int(own["count"]) + int(own["zero"]) == int(own["total"])
            there = again.paths(i, j)
            assert (there["count"], there["total"]) == (own["count"], own["total"])


TABLE = """\
edge   local Jacobian        shape  structure
x → a  W                     3×2    dense
a → h  Diag(σ′)  (σ = tanh)  3×3    diagonal
h → ℓ  cᵀ                    1×3    dense

∇ₓℓ = Wᵀ Diag(σ′) c"""


def test_table_of_a_layer():
    found = cr.explain(F.net)(POINT)
    assert found.table() == TABLE
    text = str(found)
    for line in ("Δa = W Δx", "∇a = Diag(σ′) ∇h", "∇x = Wᵀ ∇a", "(cᵀ Diag(σ′)) W", "cᵀ (Diag(σ′) W)"):
        assert line in text
    latex = r"\frac{\partial \ell}{\partial {x}_{1}} = \sum_{k=1}^{3} \frac{\partial \ell}{\partial {h}_{k}}"
    assert found.latex(0, 0).startswith(latex)
    assert found.latex(0, 0).endswith(f"= {flat_jacobian(F.net, POINT)[0, 0]:.6g}")


def test_the_text_says_what_the_symbols_of_folded_steps_stand_for():
    def f(x):
        a = jnp.sin(x) * jnp.exp(x[::-1])
        return a * a

    text = str(cr.explain(f)(jnp.array([0.3, 0.6])))
    inner = text.split("inside the steps\n")[1].split("\n\n")[0].splitlines()
    assert [line.split("  ")[0] for line in inner[:1]] == ["u₁"]
    assert "jnp.sin(x)" in inner[0] and "test_explanation.py:" in inner[0]
    assert "inside the steps" not in str(cr.explain(F.net)(POINT))


def test_costs_of_a_layer():
    items = {o["name"]: o for o in cr.explain(F.net)(POINT).to_dict()["orders"]["items"]}
    assert [items["reverse"][k] for k in ("multiply_adds", "dense", "peak", "chosen")] == [9, 15, 3, True]
    assert [items["forward"][k] for k in ("multiply_adds", "dense", "peak", "chosen")] == [12, 24, 6, False]
    assert [t["shape"] for t in items["reverse"]["travels"]] == [[1, 1], [1, 3], [1, 3], [1, 2]]
    plan = cr.plan(F.net)(POINT)
    assert {name: o["planned"] for name, o in items.items()} == {o.name: o.multiply_adds for o in plan.orders}


def test_one_line_unfolds_into_its_operations():
    nodes = cr.explain(F.one_line)(POINT).to_dict()["nodes"]
    assert [n["text"] for n in nodes[1:]] == ["W @ x + b", "jnp.tanh(W @ x + b)", "c @ jnp.tanh(W @ x + b)"]
    assert [n["operation"] for n in nodes[1:]] == ["affine", "tanh", "dot"]


def test_calls_loops_and_branches_fold():
    data = cr.explain(F.nested)(POINT).to_dict()
    outer = [(g["kind"], g["name"], g["times"]) for g in data["groups"] if g["parent"] is None]
    assert outer[0] == ("jit", "act", 1)
    assert [(k, t) for k, _, t in outer[1:3]] == [("repeat", 4), ("repeat", 3)]
    scan = next(n for n in data["nodes"] if n["loop"])
    assert (scan["loop"]["kind"], scan["loop"]["times"], scan["symbol"]) == ("scan", 4, "r")
    assert any("cos" in n["text"] for n in data["nodes"])  # the branch that was taken
    other = cr.explain(F.nested)(POINT * 0 - 100.0).to_dict()
    assert [n["symbol"] for n in data["nodes"] if n["text"].startswith("a = ") or n["name"] == "a"] == ["a"]
    assert [o["node"] for o in data["outputs"]][1] == "n0"  # x itself
    assert other["outputs"][1]["node"] == "n0"


@pytest.mark.parametrize("reverse", [False, True])
def test_a_loop_has_the_value_of_each_iteration(reverse):
    ts = jnp.arange(1.0, 5.0)

    def f(x):
        return jax.lax.scan(lambda s, t: ((jnp.sin(s[0]) * t, s[1] + 1), t), (x * 2.0, 0), ts, reverse=reverse)[0][0]

    node = cr.explain(f)(POINT).to_dict()["nodes"][-1]
    s, wanted = POINT * 2.0, []
    for t in ts[::-1] if reverse else ts:
        s = jnp.sin(s) * t
        wanted.append(s)
    close(node["loop"]["values"], wanted)
    close(node["loop"]["values"][-1], entries(node["value"]))
    assert all(n["loop"] is None or n["loop"]["values"] for n in cr.explain(F.nested)(POINT).to_dict()["nodes"])
    long = cr.explain(lambda x: jax.lax.fori_loop(0, 2000, lambda _, v: v * 0.5, x))(POINT).to_dict()["nodes"][-1]
    assert long["loop"]["values"] is None  # as a document is to stay small


def test_custom_rules_are_followed():
    data = cr.explain(F.custom)(POINT).to_dict()
    assert any(n["custom"] for n in data["nodes"])
    close(encode.matrix_of(data["jacobian"]), np.diag(2.0 + np.cos(POINT)))
    found = cr.explain(lambda x: F.clipped(x) * 5.0)(POINT)  # its rule goes backwards only
    close(found.jacobian, np.asarray(jax.jacrev(lambda x: F.clipped(x) * 5.0)(POINT)))


@pytest.mark.parametrize("f", [F.bent, F.called_back, lambda x: jnp.sin(F.cut(x * 2.0)).sum()])
def test_a_step_without_a_linear_derivative_is_opaque(f):
    found = cr.explain(f)(POINT)
    data = found.to_dict()
    whole = next(e for e in data["edges"] if e["jacobian"]["note"])
    assert (whole["jacobian"]["form"], whole["jacobian"]["note"]) == ("structure", "no linear derivative")
    assert data["jacobian"]["form"] == "structure" and "no linear derivative" in data["jacobian"]["note"]
    last = data["nodes"][-1]
    close(entries(last["value"]), np.ravel(f(POINT)))
    assert "no linear derivative" in str(found) and found.svg() and found.html()
    with pytest.raises(cr.ShapeError, match="no linear derivative"):
        found.paths(0, 0)


def test_complex_steps_are_two_real_numbers_each():
    def spectrum(x):
        z = jnp.fft.rfft(x)
        return jnp.abs(z) ** 2

    x = jnp.array([1.0, 2.0, 4.0, -1.0])
    found = cr.explain(spectrum)(x)
    data = found.to_dict()
    z = next(n for n in data["nodes"] if n["name"] == "z")
    wanted = np.fft.rfft(x)
    close(entries(z["value"]), [*wanted.real, *wanted.imag])
    assert (z["shape"], z["dtype"]) == ([2, 3], "complex128")
    close(found.jacobian, jax.jacobian(spectrum)(x))
    own = found.paths(1, 2)
    close(sum(encode.read(p["product"]) for p in own["top"]) + encode.read(own["rest"]["sum"]), found.jacobian[1, 2])
    J = jax.jacfwd(jnp.fft.fft)(x)
    close(cr.explain(jnp.fft.fft)(x).jacobian, np.vstack([J.real, J.imag]))


def test_whole_numbers_among_the_outputs_do_not_change():
    found = cr.explain(lambda x: {"a": x * 2.0, "n": jnp.argmax(x), "three": 3})(POINT)
    close(found.jacobian, [[2.0, 0.0], [0.0, 2.0], [0.0, 0.0], [0.0, 0.0]])
    assert [o["node"] for o in found.to_dict()["outputs"]][1:] == [None, None]


def test_branches_are_chosen_anew_at_each_point():
    @cr.explain
    def explain(x):
        up = jax.lax.cond(x[0] > 0.0, lambda v: v * v, lambda v: 3.0 * v, x)
        return jax.lax.cond(up[1] > 1.0, jnp.sin, lambda v: v, up)

    slopes = {(1.0, 0.5): [2.0, 1.0], (2.0, 0.3): [4.0, 0.6], (-1.0, 0.1): [3.0, 3.0], (0.5, 0.5): [1.0, 1.0]}
    for x, wanted in slopes.items():
        close(explain(jnp.array(x)).jacobian, np.diag(wanted))
    assert len(explain._known) == 2  # graphs: of points that take the same branches one
    x = jnp.array([2.0, 3.0])
    close(explain(x).jacobian, np.diag(2 * x * np.cos(x**2)))


def test_softmax_is_a_diagonal_and_rank_one():
    W = np.random.default_rng(0).normal(size=(30, 20))

    def f(x):
        z = W @ x
        s = jax.nn.softmax(z)
        return s  # noqa: RET504

    x = jnp.linspace(-1.0, 1.0, 20)
    found = cr.explain(f)(x)
    assert "z → s  Diag(s) − s sᵀ  30×30  diagonal + rank 1" in found.table()
    J = found.to_dict()["edges"][1]["jacobian"]
    assert (J["form"], J["rank"], J["structure"]["glyph"]) == ("low-rank", 1, "diaglow")
    close(encode.matrix_of(J), jax.jacobian(jax.nn.softmax)(W @ x))


def test_what_is_said_of_the_whole():
    about = cr.explain(F.quadratic)(jnp.array([1.0, 2.0])).to_dict()["jacobian"]["about"]
    assert (about["rank"], about["structural_rank"], about["det"], about["divergence"]) == (1, 2, 0, 3)
    assert about["curl"] == 1.0
    assert about["invertible"] is False
    kernel = np.asarray(about["kernel"][0])
    close(np.asarray([[2.0, 1.0], [2.0, 1.0]]) @ kernel, [0.0, 0.0])

    def field(x):
        return jnp.stack([x[1] * x[2], x[0] ** 2, x[2] * x[0]])

    x = jnp.array([1.0, 2.0, 3.0])
    J = jax.jacobian(field)(x)
    about = cr.explain(field)(x).to_dict()["jacobian"]["about"]
    close(about["curl"], [J[2, 1] - J[1, 2], J[0, 2] - J[2, 0], J[1, 0] - J[0, 1]])
    about = cr.explain(F.net)(POINT).to_dict()["jacobian"]["about"]
    close(about["laplacian"], jnp.trace(jax.hessian(F.net)(POINT)))
    close(about["gradient"], jax.grad(F.net)(POINT))


def test_samples_are_values_on_a_grid():
    samples = cr.explain(F.net)(POINT).to_dict()["samples"]
    n = samples["n"]
    first = np.linspace(samples["low"][0], samples["high"][0], n)
    second = np.linspace(samples["low"][1], samples["high"][1], n)
    values = np.reshape(samples["values"], (n, n))
    close(values[3, 7], F.net(jnp.array([first[7], second[3]])))
    close(values[n // 2, n // 2], F.net(POINT))


def test_a_second_point_is_evaluated_anew():
    explain = cr.explain(F.net)
    a, b = explain(POINT), explain(POINT + 1.0)
    close(b.jacobian, flat_jacobian(F.net, POINT + 1.0))
    assert a.to_dict()["nodes"][0]["value"] != b.to_dict()["nodes"][0]["value"]
    scaled = cr.explain(F.tree)
    close(scaled(TREE, 2.0).jacobian[-1], flat_jacobian(lambda p: F.tree(p, 2.0), TREE)[-1])
    close(scaled(TREE, 5.0).jacobian[-1], flat_jacobian(lambda p: F.tree(p, 5.0), TREE)[-1])


def test_several_arguments():
    def f(x, y):
        return x * y

    found = cr.explain(f, argnums=(0, 1))(POINT, POINT + 1)
    assert [i["name"] for i in found.to_dict()["inputs"]] == ["x", "y"]
    close(found.jacobian, np.hstack([np.diag(POINT + 1), np.diag(POINT)]))


def test_explanations_do_not_change():
    found = cr.explain(F.net)(POINT)
    with pytest.raises(AttributeError, match="cannot be changed"):
        found.data = {}
    found.to_dict()["nodes"].clear()
    assert found.to_dict()["nodes"]
    assert len({found, cr.Explanation.from_dict(found.to_dict())}) == 1


def test_what_is_no_explanation_is_refused():
    data = cr.explain(F.net)(POINT).to_dict()
    with pytest.raises(cr.InputTypeError, match="version 2"):
        cr.Explanation.from_dict({**data, "version": 2})
    with pytest.raises(cr.InputTypeError, match="floating point"):
        cr.explain(F.net)(jnp.array([1, 2]))
    for wrong, kind in ((lambda x: (x, "text"), "str"), (lambda x: (x, jax.random.key(0)), "key")):
        with pytest.raises(cr.InputTypeError, match=f"the output holds an? .*{kind}"):
            cr.explain(wrong)(POINT)
    with pytest.raises(cr.InputTypeError, match="detail"):
        cr.explain(F.net, detail="all")
    with pytest.raises(cr.ShapeError, match=r"no entry \(1, 0\)"):
        cr.explain(F.net)(POINT).paths(1, 0)


def test_a_transformer_is_folded():
    model, x = F.transformer()
    closed = jax.make_jaxpr(model)(x)
    assert count_equations(closed.jaxpr) >= 2000
    explain = Explain(model, 0, "auto")
    found = explain(jnp.asarray(x))
    graph, evaluator = explain._known[0][-1]
    assert len(graph.nodes) > 900 and len(evaluator._pieces) <= 20  # of equal steps one is compiled
    close(found.jacobian.ravel(), np.ravel(jax.grad(model)(x)))
    data = found.to_dict()
    blocks, *_ = [g for g in data["groups"] if g["parent"] is None]
    assert (blocks["kind"], blocks["name"], blocks["times"]) == ("repeat", "layer", 12)
    heads = [g for g in data["groups"] if (g["kind"], g["times"]) == ("repeat", 8)]
    assert [g["size"] for g in heads] == [64] * 12  # the loop over the heads of each layer, eight lines long
    assert len(found.table().splitlines()) <= 6
    assert len(found.to_json()) < 2.5e6
    own = found.paths(0, 5)
    assert len(own["count"]) > 100
    total = sum(encode.read(p["product"]) for p in own["top"]) + encode.read(own["rest"]["sum"])
    close(total, found.jacobian[0, 5])


def test_labels_are_unambiguous():
    def f(h):
        h = jnp.tanh(h * 3.0)
        out = jnp.sum(h**2)
        return out * 2.0

    data = cr.explain(f)(POINT).to_dict()
    labels = {e["jacobian"]["label"] for e in data["edges"]}
    assert "1ᵀ Diag(2 h⁽¹⁾)" in labels  # of a group that holds a short chain: its product, by the values' own names
    assert "2.0ᵀ" not in str(cr.explain(f)(POINT))  # a number is its own transpose


def test_a_line_has_no_diagonal():
    def f(x):
        a, b = x
        p = a * b
        q = jnp.sin(b)
        return jnp.stack([p, q])

    words = {tuple(e["jacobian"]["shape"]): e["jacobian"]["structure"] for e in cr.explain(f)(POINT).to_dict()["edges"]}
    assert words[1, 2]["words"] == words[2, 1]["words"] == "1 of 2 entries" and words[1, 2]["kind"] == "sparse"
    assert words[1, 1]["words"] == "one number"


def test_equal_steps_share_their_patterns():
    def f(x):
        for _ in range(100):
            x = jnp.sin(x) @ np.eye(2)[::-1] + x
        return x

    explain = Explain(f, 0, "auto")
    found = explain(POINT)
    close(found.jacobian, jax.jacfwd(f)(POINT))
    evaluated = found._kept[1]
    patterns = {id(J.pattern) for J in evaluated.jacobians.values()}
    assert len(patterns) < 20 < len(evaluated.jacobians)
