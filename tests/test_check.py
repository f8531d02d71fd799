"""`check`: no false alarm on smooth functions, no miss on planted faults, and the step to blame by its line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import jax.scipy.special as jss
import numpy as np
import pytest
from jax import lax

import chainrule as cr
from chainrule import cli

X = jnp.array([0.7, -1.3, 0.4])
P = jnp.array([0.8, 1.7, 2.9])  # positive
U = jnp.array([0.3, -0.6, 0.8])  # within (-1, 1)
Z = jnp.zeros(3)
W = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
S = W @ W.T + 3 * jnp.eye(3)


def scanned(x):
    return lax.scan(lambda c, a: (jnp.sin(c) * a + 0.5, c * a), x[0], x)


def looped(x):
    return lax.fori_loop(0, 4, lambda k, c: jnp.tanh(W @ c), x)


def newton_root(x):
    return lax.while_loop(
        lambda c: jnp.abs(c[0] ** 2 - c[1]) > 1e-9, lambda c: ((c[0] + c[1] / c[0]) / 2, c[1]), (x[0], x[0])
    )[0]


@jax.custom_jvp
def right_jvp(x):
    return jnp.sin(x) * x


right_jvp.defjvp(lambda p, t: (jnp.sin(p[0]) * p[0], (jnp.cos(p[0]) * p[0] + jnp.sin(p[0])) * t[0]))


@jax.custom_vjp
def right_vjp(x):
    return jnp.exp(x)


right_vjp.defvjp(lambda x: (jnp.exp(x), jnp.exp(x)), lambda e, w: (e * w,))


@jax.custom_vjp
def halved_by_a_loop(x):
    return x / 2


def by_iteration(_, w):  # a loop of unknown length, which has no transpose
    return (lax.while_loop(lambda s: s[1] < 60, lambda s: (0.5 * s[0] + 0.25 * w, s[1] + 1), (w, 0))[0],)


halved_by_a_loop.defvjp(lambda x: (x / 2, None), by_iteration)


def safe_norm(x):
    square = jnp.sum(x**2)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def chained(x):
    for _ in range(6):
        x = jnp.tanh(W @ x) + 0.1 * x
    return x


SMOOTH = {
    **{name: (getattr(jnp, name), X) for name in ("sin", "cos", "exp", "sinh", "cosh", "tanh", "arctan", "arcsinh")},
    **{name: (getattr(jnp, name), X) for name in ("square", "sinc", "exp2", "expm1", "cbrt", "abs", "reciprocal")},
    **{name: (getattr(jnp, name), P) for name in ("log", "log1p", "log2", "log10", "sqrt")},
    **{name: (getattr(jnp, name), U) for name in ("arcsin", "arccos", "arctanh", "tan")},
    **{name: (getattr(jss, name), X) for name in ("erf", "erfc", "expit", "ndtr", "i0e")},
    **{name: (getattr(jss, name), P) for name in ("gammaln", "digamma", "entr", "logsumexp")},
    **{name: (getattr(jss, name), U) for name in ("erfinv",)},
    **{name: (getattr(jax.nn, name), X) for name in ("softplus", "gelu", "silu", "softmax", "log_softmax", "elu")},
    **{name: (getattr(jax.nn, name), X) for name in ("relu", "relu6", "leaky_relu", "hard_tanh", "mish", "soft_sign")},
    "relu squared at 0": (lambda x: jax.nn.relu(x) ** 2, Z),
    "softplus at 0": (jax.nn.softplus, Z),
    "logaddexp of equals": (lambda x: jnp.logaddexp(x, x[::-1]), jnp.ones(3)),
    "logsumexp of equals": (jss.logsumexp, jnp.ones(3)),
    "softmax of equals": (jax.nn.softmax, jnp.ones(3)),
    "x |x| at 0": (lambda x: x * jnp.abs(x), Z),
    "|x|**1.5 at 0": (lambda x: jnp.abs(x) ** 1.5, Z),
    "where of equal sides": (lambda x: jnp.where(x > 0, jnp.sin(x), x), Z),
    "where, x squared or 0": (lambda x: jnp.where(x > 0, x**2, 0.0), Z),
    "max of equals": (lambda x: jnp.maximum(x, x), X),
    "sum of a sort": (lambda x: jnp.sum(jnp.sort(x) ** 2), jnp.ones(3)),
    "x squared sin(1/x) at 0": (lambda x: jnp.where(x == 0, 0, x**3 * jnp.sin(1 / jnp.where(x == 0, 1, x))), Z),
    "flat at 0": (lambda x: jnp.where(x == 0, 0, jnp.exp(-1 / jnp.where(x == 0, 1, x) ** 2)), Z),
    "safe norm": (safe_norm, X),
    "norm": (jnp.linalg.norm, X),
    "constant": (lambda x: jnp.ones(2), X),
    "identity": (lambda x: x, X),
    "affine": (lambda x: W @ x + 1e3, X),
    "linear, large": (lambda x: 1e12 * (W @ x), X),
    "linear, small": (lambda x: 1e-12 * (W @ x), X),
    "quadratic form": (lambda x: x @ W @ x, X),
    "cubic at 0": (lambda x: x**3, Z),
    "polynomial": (lambda x: jnp.polyval(jnp.arange(1.0, 6.0), x), X),
    "rosenbrock": (lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), X),
    "large offset": (lambda x: (x + 1e8) - 1e8, X),
    "cancelling": (lambda x: jnp.exp(x + 20.0) - jnp.exp(20.0) * jnp.exp(x), X),
    "one minus cos": (lambda x: (1 - jnp.cos(1e-4 * x)) * 1e8, X),
    "fast oscillation": (lambda x: jnp.sin(1e4 * x), X),
    "steep": (lambda x: jnp.tanh(1e3 * (x - 0.7001)), X),
    "mixed scales": (lambda x: x[0] * x[1] + x[2] ** 2, jnp.array([1e8, 1e-8, 1.0])),
    "tiny inputs": (lambda x: jnp.sin(x * 1e10), X * 1e-10),
    "squares that underflow": (lambda x: jnp.sin(x * 1e200), X * 1e-200),
    "huge inputs": (lambda x: (x * 1e-10) ** 3, X * 1e10),
    "overflow nearby": (lambda x: jnp.exp(x), jnp.array([700.0, -700.0])),
    "solve": (lambda x: jnp.linalg.solve(S + jnp.diag(x), x), X),
    "inverse": (lambda x: jnp.linalg.inv(S + jnp.outer(x, x)), X),
    "det": (lambda x: jnp.linalg.det(S + jnp.diag(x)), X),
    "cholesky": (lambda x: jnp.linalg.cholesky(S + jnp.outer(x, x)), X),
    "eigenvalues": (lambda x: jnp.linalg.eigvalsh(S + jnp.diag(x)), X),
    "triangular solve": (lambda x: jsl.solve_triangular(jnp.tril(S), x**2, lower=True), X),
    "fft": (lambda x: jnp.abs(jnp.fft.fft(x)) ** 2, X),
    "convolution": (lambda x: jnp.convolve(x, x**2), X),
    "sort": (lambda x: jnp.sort(x) ** 2, X),
    "median": (jnp.median, X),
    "max": (lambda x: jnp.max(x) * x, X),
    "top_k": (lambda x: lax.top_k(x, 2)[0] ** 2, X),
    "clip": (lambda x: jnp.clip(x, -1.0, 0.5) * x, X),
    "round times x": (lambda x: jnp.round(x) * x, X),
    "remainder": (lambda x: jnp.mod(x, 1.0) ** 2, X),
    "interp": (lambda x: jnp.interp(x, jnp.arange(-3.0, 4.0), jnp.arange(-3.0, 4.0) ** 2), X),
    "cond": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), X),
    "scan": (scanned, X),
    "fori_loop": (looped, X),
    "while to a root": (newton_root, P),
    "remat": (jax.checkpoint(chained), X),
    "deep chain": (chained, X),
    "custom_jvp": (right_jvp, X),
    "custom_vjp": (right_vjp, X),
    "custom_vjp with a loop": (lambda x: halved_by_a_loop(jnp.sin(x)), X),
    "pytree": (lambda p: {"y": p["a"] * p["b"][0], "z": jnp.sin(p["b"][0])}, {"a": X, "b": [jnp.asarray(2.0)]}),
    "scalar": (lambda x: jnp.exp(-(x**2)), jnp.asarray(0.3)),
    "complex inside": (lambda x: jnp.real(jnp.exp(1j * x) * x), X),
    "float32": (lambda x: jnp.tanh(x) * x, X.astype(jnp.float32)),
    "float32 within": (lambda x: jnp.sin(x.astype(jnp.float32)), X),
    "many inputs": (lambda x: jnp.sum(jnp.sin(x)) * x[:2], jnp.linspace(-1, 1, 300)),
    "many outputs": (lambda x: jnp.outer(x, x), jnp.linspace(-1, 1, 60)),
}  # fmt: skip


def test_there_are_a_hundred_smooth_functions():
    assert len(SMOOTH) >= 100


@pytest.mark.parametrize("name", SMOOTH)
def test_no_false_alarm(name):
    f, x = SMOOTH[name]
    with jax.numpy_dtype_promotion("standard"):
        report = cr.check(f)(x)
    assert report.ok, report
    assert report.findings == () and report.verdict.startswith("differentiable")
    report.assert_ok()


# faults ------------------------------------------------------------------------------------------


def jvp_rule(primal, rule):
    f = jax.custom_jvp(primal)
    f.defjvp(lambda p, t: (primal(p[0]), rule(p[0], t[0])))
    return f


def vjp_rule(primal, rule):
    f = jax.custom_vjp(primal)
    f.defvjp(lambda x: (primal(x), x), lambda x, w: (rule(x, w),))
    return f


slightly = jvp_rule(jnp.sin, lambda x, t: 1.0005 * jnp.cos(x) * t)
hardly = jvp_rule(jnp.exp, lambda x, t: (jnp.exp(x) + 1e-4) * t)
negated = jvp_rule(lambda x: W @ x, lambda x, t: -(W @ t))
transposed = vjp_rule(lambda x: W @ x, lambda x, w: W @ w)
dropped = vjp_rule(lambda x: x**3, lambda x, w: 0 * w)
not_linear = jvp_rule(lambda x: jnp.sin(x), lambda x, t: jnp.cos(x) * jnp.abs(t))


def ratio(top, power=1):
    def f(v):
        below = v[0] ** (2 * power) + v[1] ** 2
        return jnp.where(below > 0, top(v) / jnp.where(below > 0, below, 1.0), 0.0)

    return f


clipped = vjp_rule(lambda x: x, lambda x, w: jnp.clip(w, -1, 1))


def lying_transpose(x):
    return jax.custom_derivatives.linear_call(lambda _, v: 2 * v, lambda _, w: 3 * w, (), x)


def not_symmetric(x):
    A = jnp.array([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 4.0]])
    return lax.custom_linear_solve(lambda v: A @ v, x, lambda _, b: jnp.linalg.solve(A, b), symmetric=True)


def deep(x):
    def step(c, a):
        return jnp.maximum(c - 1.0, 0.0) + a, jnp.sin(a)

    return lax.scan(step, x[0], x)


def counting(x):
    return lax.while_loop(lambda c: c[0] < 8.0, lambda c: (c[0] * 2.0, c[1] + c[2], c[2]), (x[0], x[1], x[1]))[1]


def inside_scan(x):
    return lax.scan(lambda c, a: (c + slightly(a), c), 0.0, x)


def straight_through(x):
    return x + lax.stop_gradient(jnp.round(x) - x)


O2 = jnp.zeros(2)
E = jnp.array([0.0, 1.0, 2.0])
ONES = jnp.ones(3)

# name: (function, point, kind, what the places say)
FAULTS = {
    "abs at 0": (lambda x: jnp.abs(x) * 2, E, "kink", "abs"),
    "relu at 0": (lambda x: jax.nn.relu(x), E, "kink", "relu"),
    "maximum of equals": (lambda x: jnp.maximum(x, x[::-1] ** 2), ONES, "kink", "max"),
    "minimum of equals": (lambda x: jnp.minimum(x, 1.0), ONES, "kink", "min"),
    "clip at its bound": (lambda x: jnp.clip(x, 0.0, 5.0), E, "kink", "clip"),
    "clamp at its bound": (lambda x: lax.clamp(0.0, x, 5.0), E, "kink", "clip"),
    "leaky relu at 0": (jax.nn.leaky_relu, E, "kink", "where"),
    "hinge": (lambda x: jnp.sum(jnp.maximum(0.0, 1 - x)), E, "kink", "max"),
    "largest of equals": (lambda x: jnp.max(x), ONES, "kink", "max"),
    "sort of equals": (lambda x: jnp.sort(x), ONES, "kink", "sort"),
    "median of equals": (lambda x: jnp.median(x), ONES, "not linear", "sort"),
    "top_k of equals": (lambda x: lax.top_k(x, 1)[0], ONES, "kink", "top_k"),
    "running maximum": (lambda x: lax.cummax(x), ONES, "kink", "cummax"),
    "max-pooling of equals": (
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"), ONES, "kink", "max-pooling"),
    "where, two slopes": (lambda x: jnp.where(x > 1, 2 * x, x + 1), E, "kink", "where"),
    "select by cond": (lambda x: lax.cond(x[0] > 0, lambda x: 2 * x[0], lambda x: x[0], x), E, "kink", "cond"),
    "in the first step of a scan": (deep, jnp.array([1.0, 2.0, 3.0]), "kink", "step 0 of the loop"),
    "interp at a node": (lambda x: jnp.interp(x, jnp.arange(3.0), jnp.array([0.0, 1.0, 0.0])), E, "kink", ""),
    "where, two values": (lambda x: jnp.where(x >= 1, x + 1, x), E, "jump", "where"),
    "a mask times x": (lambda x: (x > 1) * (x + 1.0), E, "jump", "comparison"),
    "round at a half": (lambda x: jnp.round(x), jnp.array([0.5, 1.1]), "jump", "round"),
    "floor at an integer": (lambda x: jnp.floor(x) * x, E + 1.0, "jump", "floor"),
    "ceil at an integer": (lambda x: jnp.ceil(x), E + 1.0, "jump", "ceil"),
    "sign at 0": (lambda x: jnp.sign(x) + x, E, "jump", "sign"),
    "remainder at a multiple": (lambda x: jnp.mod(x, 1.0), E + 1.0, "jump", "where"),
    "integers at an integer": (lambda x: x.astype(int).astype(float), E + 1.0, "jump", "conversion"),
    "an entry by argmax": (lambda x: jnp.arange(3.0)[jnp.argmax(x)] * x, ONES, "jump", "argmax"),
    "iterations that change": (counting, jnp.array([2.0, 3.0]), "jump", "while"),
    "positions by argsort": (lambda x: jnp.argsort(x) * x, ONES, "jump", "sort in argsort"),
    "a place in a table": (lambda x: jnp.searchsorted(jnp.arange(4.0), x) + x, E, "jump", "where in"),
    "an angle on the cut": (lambda x: jnp.arctan2(x[0], x[1] - 2.0), E, "jump", "arctan2"),
    "a complex logarithm on the cut": (
        lambda x: jnp.log(lax.complex(x[0] - 1, x[0])).imag, E, "jump", "branch cut of log"),
    "a modulus at 0": (lambda x: jnp.abs(lax.complex(x[0], 2 * x[0])), E, "kink", "abs"),
    "xy/(x²+y²)": (ratio(lambda v: v[0] * v[1]), O2, "jump", "where"),
    "x³/(x²+y²)": (ratio(lambda v: v[0] ** 3), O2, "not linear", "where"),
    "x²y/(x⁴+y²)": (ratio(lambda v: v[0] ** 2 * v[1], 2), O2, "jump", "where"),
    "x³y/(x⁴+y²)": (ratio(lambda v: v[0] ** 3 * v[1], 2), O2, "", ""),
    "a cone": (safe_norm, O2, "kink", "where"),
    "equal eigenvalues": (
        lambda x: jnp.linalg.eigvalsh(jnp.diag(x) + x[0] * jnp.eye(3)), ONES, "kink", "equal eigenvalues"),
    "custom_jvp off by 0.05 %": (slightly, X, "wrong derivative", "custom_jvp of sin"),
    "custom_jvp off by 0.005 %": (hardly, X, "wrong derivative", "custom_jvp of exp"),
    "custom_jvp negated": (lambda x: negated(jnp.tanh(x)), X, "wrong derivative", "custom_jvp of"),
    "custom_jvp in a scan": (inside_scan, X, "wrong derivative", "of the loop"),
    "custom_vjp transposed": (lambda x: transposed(x) ** 2, X, "wrong derivative", "custom_vjp of"),
    "custom_vjp dropped": (lambda x: dropped(x) + x, X, "wrong derivative", "custom_vjp of"),
    "custom_vjp clips": (lambda x: jnp.sum(clipped(3 * x) ** 3), X, "wrong derivative", "custom_vjp of"),
    "custom_vjp clips what is large": (clipped, X, "rules disagree", "custom_vjp of"),
    "custom_jvp not linear": (not_linear, X, "wrong derivative", "custom_jvp of <lambda>"),
    "straight-through estimator": (straight_through, X, "wrong derivative", "stop_gradient"),
    "linear_call with a wrong transpose": (lambda x: lying_transpose(jnp.sin(x)), X, "rules disagree", "linear_call"),
    "a solve that is not symmetric": (not_symmetric, X, "rules disagree", "custom_linear_solve"),
    "sqrt under where": (lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), E, "not finite", "sqrt at test_check.py"),
    "x log x under where": (lambda x: jnp.where(x > 0, x * jnp.log(x), 0.0), E, "not finite", "log at test_check.py"),
    "norm at 0": (jnp.linalg.norm, Z, "not finite", "sqrt in norm"),
    "0/0": (lambda x: x / x, E, "not finite", "div at test_check.py"),
    "log of 0": (lambda x: jnp.log(x), E, "not finite", "log at test_check.py"),
    "sqrt below 0": (lambda x: jnp.sqrt(x - 1), E, "not finite", "sqrt at test_check.py"),
    "root at 0": (lambda x: jnp.sqrt(x), E, "not finite", "sqrt"),
    "NaN in a scan": (lambda x: lax.scan(lambda c, a: (c - 1, jnp.log(c) * a), 1.5, x)[1], X, "not finite", "step 2"),
    "overflow in float32": (lambda x: jnp.exp(100 * x), ONES.astype(jnp.float32), "not finite", "exp at"),
    "a weight that is NaN": (
        lambda x: Z.at[1].set(jnp.nan) * x, X, "not finite", "mul at test_check.py"),
    "where gives NaN": (lambda x: jnp.where(x > 0, x, jnp.nan), X, "not finite", "from a constant that is not finite"),
    "a square that overflows": (
        lambda x: jnp.sum(x**2), jnp.array([1e30, 1.0], jnp.float32), "not finite", "integer_pow at"),
    "edge of the domain": (lambda x: x**1.5, E, "edge", "power"),
    "|x|**0.7": (lambda x: jnp.abs(x) ** 0.5 * jnp.where(x == 0, 0.0, 1.0), E, "", ""),
}  # fmt: skip


def test_there_are_forty_faults():
    assert len(FAULTS) >= 40


@pytest.mark.parametrize("name", FAULTS)
def test_no_miss(name):
    f, x, kind, said = FAULTS[name]
    with jax.numpy_dtype_promotion("standard"):
        report = cr.check(f)(x)
    assert not report.ok, report
    assert kind in ("", report.findings[0].kind), report
    assert said in " ".join(p for finding in report.findings for p in finding.places), report
    with pytest.raises(cr.CheckError, match="check of"):
        report.assert_ok()


# what a report says ------------------------------------------------------------------------------


def kinked(x):
    return jnp.maximum(x[0] - 0.25, 0.0) + jnp.abs(2.0 * x[1])


@pytest.fixture(scope="module")
def bad():
    """A report with a kink at x, and one at a distance."""
    return cr.check(kinked)(jnp.array([0.5, 0.0]))


def test_how_near_a_switch_is(bad):
    at, near = bad.switches
    assert (at.kind, at.at_x, at.distance, at.move) == ("abs", True, 0.0, 0.0)
    assert (near.kind, near.at_x, near.effect) == ("max", False, "kink")
    np.testing.assert_allclose([near.distance, near.move, near.relative], [0.25, 0.25, 0.5])
    assert near.place.startswith("test_check.py:") and "jnp.maximum" in near.code


def test_the_direction_that_fails_is_named(bad):
    (finding,) = bad.findings
    assert "along coordinate 1" in finding.message and "order 1.00" in finding.message
    named = {d.name: d for d in bad.directions}
    assert named["coordinate 0"].status == "smooth" and named["coordinate 1"].status == "fails"
    one = named["coordinate 1"]
    np.testing.assert_allclose([one.ahead, one.behind], [2.0, -2.0], rtol=1e-6)
    assert one.order == pytest.approx(1.0, abs=0.01)


def test_the_report_is_json(bad):
    read = json.loads(json.dumps(bad.to_dict(), allow_nan=False))
    assert read["ok"] is False and read["findings"][0]["kind"] == "kink" and read["shape"] == [1, 2]
    assert len(read["directions"]) == len(bad.directions)


def test_the_page_needs_nothing_else(bad, tmp_path):
    bad.save(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<svg" in page and "kinked" in page and "jnp.abs" in page
    assert "1e-0" not in page and re.search(r"‖h‖ from 1e-\d+ to 1e(-1|0)<", page)
    assert "http" not in page and "<script" not in page and bad._repr_html_() in page


def test_it_cannot_be_changed(bad):
    with pytest.raises(AttributeError):
        bad.ok = True
    assert repr(bad) == str(bad)


def test_a_wrong_rule_behind_a_jump_is_named_too():
    report = cr.check(lambda x: jnp.floor(x) + hardly(x))(jnp.ones(1))
    assert [f.kind for f in report.findings] == ["jump"]
    assert any("the custom_jvp of exp" in note for note in report.notes)


def test_entries_of_pytrees_are_named():
    report = cr.check(lambda p: {"out": jnp.abs(p["b"])})({"a": jnp.ones(2), "b": jnp.array([1.0, 0.0])})
    text = report.findings[0].message
    assert "coordinate 3 (['b'][1])" in text and "output 1 (['out'][1])" in text


def test_other_arguments_and_argnums():
    def f(x, y):
        return jnp.abs(x) * y

    assert cr.check(f, argnums=1)(Z, X).ok
    assert not cr.check(f, argnums=(0, 1))(Z, X).ok


def test_one_entry_of_many_is_found():
    x = jnp.linspace(1.0, 2.0, 20_000).at[777].set(0.0)
    report = cr.check(lambda x: jnp.sum(jax.nn.relu(x)) + jnp.sin(x[:3]))(x)
    assert "coordinate 777" in [d.name for d in report.directions if d.status == "fails"]
    assert report.switches[0].within[-1] == "relu"


def test_a_kink_at_a_distance_does_no_harm():
    for distance in (1e-1, 1e-3, 1e-5):
        report = cr.check(lambda x, d=distance: jnp.abs(x - 1.0 - d) + x**2)(jnp.ones(1))
        assert report.ok, report
        np.testing.assert_allclose(report.switches[0].move, distance, rtol=1e-6)


@pytest.mark.parametrize("share", [1e-3, 1e-5])
def test_a_derivative_that_is_hardly_wrong(share):
    f = jvp_rule(lambda x: jnp.sin(x), lambda x, t: (1 + share) * jnp.cos(x) * t)
    assert not cr.check(f)(X).ok
    assert cr.check(f, rtol=10 * share)(X).ok


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(cr.InputTypeError, match="outside of jit"):
        jax.jit(lambda x: cr.check(jnp.sin)(x).ok)(X)
    with pytest.raises(cr.InputTypeError, match="floating point"):
        cr.check(jnp.sin)(jnp.arange(3))
    with pytest.raises(cr.InputTypeError, match="complex128; give real and imaginary parts"):
        cr.check(jnp.sin)(X.astype(complex))


@pytest.mark.parametrize("option", [{"directions": 1}, {"directions": 3.5}, {"rtol": -1.0}, {"seed": 0.5}])
def test_options_that_are_none_are_refused(option):
    ((name, given),) = option.items()
    with pytest.raises(cr.InputTypeError, match=f"^check of sin: {name}={given} is no"):
        cr.check(jnp.sin, **option)


def test_nothing_to_check():
    assert cr.check(jnp.sin)(jnp.zeros(0)).ok
    assert cr.check(lambda x: x[:0])(X).ok


def test_a_point_that_is_not_finite():
    report = cr.check(jnp.sin)(X.at[1].set(jnp.nan))
    assert report.findings[0].message == "x itself is not finite"


WITHOUT_X64 = """
import jax, jax.numpy as jnp, chainrule as cr
for f, x in [(jnp.tanh, [0.3, 1.0]), (jnp.abs, [0.0, 1.0]), (lambda x: jnp.where(x > 1, x, 0.0), [1.0]),
             (lambda x: jnp.exp(x) @ jnp.sin(x), [0.5, -0.3]), (lambda x: jnp.maximum(x, 0.0) ** 2, [0.0, 1.0])]:
    report = cr.check(f)(jnp.array(x))
    print(report.ok, report.dtype, report.findings[0].kind if report.findings else "", report.notes)
"""


def test_without_double_precision():
    run = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", WITHOUT_X64],
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["True", "False", "False", "True", "True"]
    assert " kink " in lines[1] and " jump " in lines[2]
    assert all("float64 switched off" in line and "float32" in line for line in lines)


# the command line --------------------------------------------------------------------------------

MODULE = """
import jax.numpy as jnp
x0 = [0.0, 1.0]
def smooth(x):
    return jnp.sin(x)
def kinked(x):
    return jnp.abs(x)
"""


def test_command_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "model.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["check", *arguments])
        return stopped.value.code or 0, *capsys.readouterr()

    code, printed, _ = run("model.py:smooth")
    assert code == 0 and "differentiable, and its derivative is right" in printed
    code, printed, _ = run("model.py:kinked", "--html", "page.html")
    assert code == 1 and "model.py:7" in printed and "abs" in printed and Path("page.html").exists()
    code, printed, _ = run("model.py:kinked", "--at", "[1.0, 2.0]", "--json")
    assert code == 0 and json.loads(printed)["ok"]
    code, printed, errors = run("model.py:kinked", "--html", "no/page.html")
    assert (code, printed) == (2, "") and "no folder" in errors
    code, _, errors = run("model.py:absent")
    assert code == 2 and "no function 'absent'" in errors
