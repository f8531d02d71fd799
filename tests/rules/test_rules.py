"""Every rule against its primitive applied to the dense columns: eager, jit, vmap, and as a pair with its transpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rules import cases
from rules.harness import Block, compare, oracle, propagated, seeds

import chainrule as cr
from chainrule._jax import primitive, walk
from chainrule._rules import RULES, _registry

KINDS = list(seeds((2,), np.float64, np.random.default_rng(0)))
IDS = [f"{k}-{name}" for k, (name, *_) in enumerate(cases.CASES)]
EVERY_CASE = pytest.mark.parametrize("case", cases.CASES, ids=IDS)
# served by inlining, by the fallback, or by the transposed program only
WITHOUT_RULE = {"jit", "remat", "while", "scatter_sub", "scatter_mul", "reduce_precision", "custom_linear_solve"}


def operands(case, dtype=np.float64):
    return [(shape, np.dtype(dtype)) for shape in case[2]]


def of_kind(case, kind, dtype=np.float64):
    rng = np.random.default_rng(len(kind))
    return [seeds(s, d, rng).get(kind, []) for s, d in operands(case, dtype)]


@EVERY_CASE
@pytest.mark.parametrize("kind", KINDS)
def test_rule_is_the_primitive_on_dense_columns(case, kind):
    compare(case[1], operands(case), of_kind(case, kind))


@EVERY_CASE
def test_rule_under_jit_and_vmap(case):
    g, given = case[1], operands(case)

    def scaled(factor):
        kinds = [[b.with_vals(jnp.asarray(b.vals) * factor) for b in k] for k in of_kind(case, "sum")]
        return propagated(g, given, kinds)

    wanted = oracle(g, given, of_kind(case, "sum"))
    for got, w in zip(jax.jit(scaled)(2.0), wanted, strict=True):
        np.testing.assert_allclose(got, 2 * w, rtol=1e-12, atol=1e-12)
    for got, w in zip(jax.vmap(scaled)(jnp.array([1.0, -3.0])), wanted, strict=True):
        np.testing.assert_allclose(got, jnp.stack([w, -3 * w]), rtol=1e-12, atol=1e-12)


@EVERY_CASE
def test_forward_and_reverse_are_transposes(case):
    g, x = case[1], [jnp.asarray(np.random.default_rng(1).normal(size=s)) for s in case[2]]

    def real(*a):
        return [part for o in jax.tree.leaves(g(*a)) for part in ((o.real, o.imag) if jnp.iscomplexobj(o) else (o,))]

    forward = cr.jacobian(real, argnums=tuple(range(len(x))), order="forward")(*x)
    rng = np.random.default_rng(2)
    v, w = rng.normal(size=forward.shape[1]), rng.normal(size=forward.shape[0])
    np.testing.assert_allclose(w @ (forward @ v), (forward.T @ w) @ v, rtol=1e-10, atol=1e-10)
    if case[0] == "while":
        with pytest.raises(ValueError, match="while"):
            cr.jacobian(real, order="reverse")(*x)
        return
    reverse = cr.jacobian(real, argnums=tuple(range(len(x))), order="reverse")(*x)
    np.testing.assert_allclose(reverse.dense(), forward.dense(), rtol=1e-10, atol=1e-10)


OTHER_DTYPES = [
    lambda a: -a,
    lambda a: a.sum(1),
    lambda a: a[::-1, 1:],
    lambda a: jnp.cumsum(a, 0),
    lambda a: a.T @ jnp.ones((3, 2), a.dtype),
    lambda a: jnp.concatenate([a, a], 1),
]


@pytest.mark.parametrize("dtype", [np.float32, np.complex128])
@pytest.mark.parametrize("g", OTHER_DTYPES)
def test_rule_in_other_dtypes(g, dtype):
    case = ("", g, [(3, 4)])
    for kind in KINDS:
        compare(g, operands(case, dtype), of_kind(case, kind, dtype))


def test_every_registered_primitive_has_a_case():
    named = {primitive(name.replace("-", "_")) for name, *_ in cases.CASES}
    assert {p.name for p in RULES if p not in named} == set()


@EVERY_CASE
def test_case_contains_its_primitive(case):
    shapes = [jax.ShapeDtypeStruct(s, d) for s, d in operands(case)]
    found = {eqn.primitive for eqn in walk(jax.make_jaxpr(case[1])(*shapes).jaxpr)}
    name = {"expand_dims": "broadcast_in_dim"}.get(case[0], case[0]).replace("-", "_")
    assert primitive(name) in found


def test_primitives_without_a_rule_are_known():
    found = {name: primitive(name.replace("-", "_")) for name, *_ in cases.CASES}
    assert {name for name, p in found.items() if p is not None and p not in RULES} == WITHOUT_RULE


@pytest.mark.parametrize("off", ["value", "column"])
def test_a_planted_wrong_rule_is_caught(monkeypatch, off):
    neg = primitive("neg")
    right = RULES[neg]

    def wrong(context, eqn, values):
        (u,) = right(context, eqn, values)
        bent = [
            b.with_vals(b.vals * 1.0005) if off == "value" else Block(b.shape, (b.cols + 1) % 7, b.vals, b.rows)
            for b in u.blocks
        ]
        return [type(u)(u.shape, u.dtype, tuple(bent))]

    monkeypatch.setitem(RULES, neg, wrong)
    case = next(case for case in cases.CASES if case[0] == "neg")
    with pytest.raises(AssertionError, match="Not equal"):
        compare(case[1], operands(case), of_kind(case, "diagonal"))


def test_a_second_registration_raises():
    with pytest.raises(ValueError, match="already registered"):
        _registry.rule("neg")(lambda *a: None)


def test_an_unknown_parameter_takes_the_fallback(monkeypatch):
    monkeypatch.setitem(_registry.PARAMETERS, primitive("transpose"), frozenset())
    case = next(case for case in cases.CASES if case[0] == "transpose")
    compare(case[1], operands(case), of_kind(case, "diagonal"))
    monkeypatch.setitem(RULES, primitive("transpose"), None)
    compare(case[1], operands(case), of_kind(case, "diagonal"))


SPARSE = [
    ("slice", lambda x: x[2:7], 5),
    ("roll", lambda x: jnp.roll(x, 3), 12),
    ("pad", lambda x: jnp.pad(x, (2, 1)), 12),
    ("gather", lambda x: x[np.array([3, 3, 1])], 3),
    ("transpose", lambda x: x.reshape(3, 4).T, 12),
    ("sum", lambda x: x.sum(), 12),
    ("sum of rows", lambda x: x.reshape(3, 4).sum(1), 12),
    ("matrix per sample", lambda x: x.reshape(3, 4) @ C44, 48),
    ("convolution", lambda x: jnp.convolve(x, np.array([1.0, 2.0, 3.0])), 36),
    ("triangle", lambda x: jnp.cumsum(x), 78),
    ("stencil", lambda x: x[2:] - 2.0 * x[1:-1] + x[:-2], 30),
    ("segments", lambda x: jax.ops.segment_sum(x, np.arange(12) // 5, 3), 12),
    ("concatenation", lambda x: jnp.concatenate([x.sum()[None], 2.0 * x[1:]]), 23),
    ("window", lambda x: jax.lax.reduce_window(x, 0.0, jax.lax.add, (3,), (3,), "VALID"), 12),
]
C44 = np.random.default_rng(5).normal(size=(4, 4))


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("case", SPARSE, ids=[name for name, *_ in SPARSE])
def test_sparse_stays_sparse(case, order):
    _, f, nnz = case
    assert cr.jacobian(f, order=order)(jnp.arange(12.0)).nnz == nnz
