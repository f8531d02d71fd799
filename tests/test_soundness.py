"""What could make a derivative wrong without a crash: shared caches, custom rules, indices, masks and effects.

Every function is compared with JAX at several points, in every order that JAX itself has for it.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same
from jax import lax
from jax.experimental import sparse

import chainrule as cr

ALL = ("auto", "forward", "reverse")
FORWARD = ("auto", "forward")
REVERSE = ("auto", "reverse")
C = np.array([0.5, -1.0, 2.0, 3.0])


class Case(NamedTuple):
    """A function of one vector of `n` numbers, and the orders in which it has a derivative."""

    name: str
    f: Callable[[jax.Array], Any]
    n: int = 4
    orders: tuple[str, ...] = ALL
    draw: Callable[[np.random.Generator, int], Any] = lambda rng, n: rng.normal(size=n)


def near_integers(rng: np.random.Generator, n: int) -> np.ndarray:
    """Numbers whose whole parts differ from point to point, negative ones too."""
    return rng.integers(-3, 7, size=n) + rng.uniform(0.2, 0.8, size=n)


# a helper that is traced once and called with constants and with variables --------------------------


@jax.jit
def helper(a: Any, b: Any) -> Any:
    return jnp.sin(a) * b + a[::-1]


@functools.partial(jax.jit, static_argnums=1)
def powered(a: Any, k: int) -> Any:
    return a**k if k % 2 else a[::-1] * k


@jax.jit
def with_loop(a: Any, b: Any) -> Any:
    return lax.fori_loop(0, 3, lambda i, s: s * a + b, b)


CACHED = [
    Case("constant first", lambda x: helper(C, x) + helper(x, C)),
    Case("variable first", lambda x: helper(x, C) * helper(C, x)),
    Case("constants alone, then variables", lambda x: helper(C, C) + helper(x, x) * x),
    Case("variables, then constants alone", lambda x: helper(x, x) * helper(C, C)),
    Case("equal constants of other values", lambda x: helper(C, x) + helper(2.0 * C, x) + helper(C - 1.0, x)),
    Case("zeros, then values", lambda x: helper(np.zeros(4), x) + helper(C, x)),
    Case("values, then zeros", lambda x: helper(C, x) + helper(np.zeros(4), x)),
    Case("masks of other shapes", lambda x: helper(x, (C > 0).astype(float)) + helper(x, (C < 1).astype(float))),
    Case("stopped, then not", lambda x: helper(lax.stop_gradient(x), x) + helper(x, lax.stop_gradient(x))),
    Case("static arguments", lambda x: powered(x, 1) + powered(x, 2) * powered(x, 3)),
    Case("a loop inside", lambda x: with_loop(C, x) + with_loop(x, C) + with_loop(x, x)),
    Case("the same twice", lambda x: helper(helper(x, C), helper(x, C))),
    Case("nested jit", lambda x: jax.jit(lambda y: helper(y, C) + helper(x, y))(x**2)),
    Case("donated", lambda x: jax.jit(lambda y: y * x, donate_argnums=0)(jnp.sin(x))),
    Case("donated twice", lambda x: jax.jit(jax.jit(jnp.sin, donate_argnums=0), donate_argnums=0)(x * C)),
]

# loops -------------------------------------------------------------------------------------------------


def closing_while(x: Any) -> Any:
    """Both the condition and the body close over values that depend on the input."""
    limit, factor = 4.0 + jnp.sum(x**2), 1.1 + jnp.abs(x)
    return lax.while_loop(lambda s: jnp.sum(s) < limit, lambda s: s * factor + x**2, jnp.abs(x) + 0.1)


def counting_while(x: Any) -> Any:
    """The length is known to nobody; the carry holds a whole number too."""
    start = (jnp.array(0), x)
    return lax.while_loop(lambda s: s[0] < jnp.argmax(x) + 1, lambda s: (s[0] + 1, jnp.sin(s[1]) * x[s[0]]), start)[1]


def traced_bound(x: Any) -> Any:
    return lax.fori_loop(0, jnp.argmax(x) + 1, lambda i, s: s * x + C, x)


def indexed_loop(x: Any) -> Any:
    return lax.fori_loop(1, 4, lambda i, s: s.at[i].set(s[i - 1] * x[i]), x)


def while_in_scan(x: Any) -> Any:
    """The cheapest order of the body would begin at its outputs, which the inner loop does not allow."""

    def turn(s: Any, a: Any) -> tuple[Any, Any]:
        return lax.while_loop(lambda t: jnp.abs(t) > 0.3, lambda t: 0.5 * t * jnp.cos(a), s + a), s * a

    return lax.scan(turn, 0.0, x)


def while_in_cond(x: Any) -> Any:
    return lax.cond(x[0] > 0.0, while_in_scan, lambda x: (x.sum(), x**2), x)


def growing_loops(x: Any) -> Any:
    def turn(i: Any, y: Any) -> Any:
        return lax.fori_loop(0, i + 1, lambda j, z: z.at[j].add(jnp.sin(z[i])), y)

    return lax.fori_loop(0, 3, turn, x)


def swapped(x: Any) -> Any:
    """Carries that trade places: what is constant at first is not so later."""
    a, b, c = lax.fori_loop(0, 3, lambda i, s: (s[1], s[2], s[0] * 2.0), (jnp.asarray(C), jnp.ones(4), x))
    return a + b * x + c**2


def late_dependence(x: Any) -> Any:
    """The input reaches the first carry only after three steps."""
    step = lambda s, _: ((s[1], s[2], jnp.sin(s[2]), s[3]), s[0])  # noqa: E731
    start = (jnp.zeros(4), jnp.ones(4), x, jnp.asarray(C))
    carry, kept = lax.scan(step, start, None, length=4)
    return carry[0] * carry[3], kept


def zeros_that_fill(x: Any) -> Any:
    """A carry of zeros, whose product with the input vanishes in the first step alone."""
    return lax.scan(lambda s, a: (s + a, s * x), 0.0, x)[1]


LOOPS = [
    Case("while that closes over the input", closing_while, orders=FORWARD),
    Case("while with a counter", counting_while, orders=FORWARD),
    Case("fori_loop with a traced bound", traced_bound, orders=FORWARD),
    Case("while under vmap", lambda x: jax.vmap(lambda a: closing_while(a * C))(0.1 * x), orders=FORWARD),
    Case(
        "while of a vector and a constant",
        lambda x: lax.while_loop(
            lambda s: s[0].sum() < 20.0, lambda s: (s[0] * 2.0 + s[1], s[1]), (jnp.abs(x), jnp.asarray(np.abs(C)))
        )[0],
        orders=FORWARD,
    ),
    Case("while in a scan", while_in_scan, orders=FORWARD),
    Case("while in a scan in a cond", while_in_cond, orders=FORWARD),
    Case("fori_loop as long as the turn of another", growing_loops, orders=FORWARD),
    Case("fori_loop that indexes", indexed_loop),
    Case("carries trade places", swapped),
    Case("dependence comes late", late_dependence),
    Case("zeros that fill", zeros_that_fill),
    Case("no turn at all", lambda x: lax.fori_loop(0, 0, lambda i, s: s * x, jnp.asarray(C)) + x),
    Case("scan of length zero", lambda x: lax.scan(lambda s, a: (s * a, s), x[0], x[:0])[0] + x),
    Case("scan of length one", lambda x: lax.scan(lambda s, a: (s * a, s * a), x[0], x[:1])),
    Case("scan backwards", lambda x: lax.scan(lambda s, a: (s * a + 1.0, s), x[0], x, reverse=True)),
    Case(
        "scan with a whole number in its carry",
        lambda x: lax.scan(lambda s, a: ((s[0] + 1, s[1] * x[s[0]]), a * s[1]), (jnp.array(0), 1.0), x)[1],
    ),
    Case(
        "scan of a cond",
        lambda x: lax.scan(lambda s, a: lax.cond(a > 0, lambda: (s * a, s), lambda: (s + a, 2.0 * s)), 1.0, x),
    ),
    Case("remat of a scan", jax.checkpoint(lambda x: lax.scan(lambda s, a: (jnp.sin(s * a), s), x[0], x)[1])),
    Case("scan closes over the input", lambda x: lax.scan(lambda s, a: (s * x[1] + a, s), x[0], C)),
]

# custom rules ------------------------------------------------------------------------------------------


@jax.custom_jvp
def borrowed(a: Any, b: Any) -> Any:
    return a * b


@borrowed.defjvp
def _(primals: Any, tangents: Any) -> Any:
    """Wrong on purpose: each tangent is scaled by the other argument's neighbours."""
    (a, b), (da, db) = primals, tangents
    return a * b, jnp.roll(b, 1) * da + jnp.cos(a) * db + jnp.roll(da, -1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def scaled(x: Any, k: float) -> Any:
    return k * x**2


@scaled.defjvp
def _(k: float, primals: Any, tangents: Any) -> Any:
    return scaled(primals[0], k), 10.0 * k * tangents[0]


@jax.custom_jvp
def pair(a: Any, b: Any) -> Any:
    return a + b, a * b


@pair.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (a, b), (da, db) = primals, tangents
    return pair(a, b), (3.0 * da, b * da - a * db)


@jax.custom_vjp
def backwards(a: Any, b: Any) -> Any:
    return jnp.sin(a) * b


backwards.defvjp(
    lambda a, b: (jnp.sin(a) * b, (a, b)),
    lambda r, g: (jnp.roll(g, 1) * r[1] ** 2, 5.0 * g[::-1] * r[0]),
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def reversed_scale(x: Any, k: float) -> Any:
    return x * k


reversed_scale.defvjp(lambda x, k: (x * k, x), lambda k, x, g: (-k * x * g,))


@jax.custom_jvp
def logistic(x: Any) -> Any:
    return 1.0 / (1.0 + jnp.exp(-x))


logistic.defjvps(lambda t, ans, x: t * ans * (1.0 - ans))


@jax.custom_jvp
def constant_rule(x: Any) -> Any:
    return jnp.sin(x)


constant_rule.defjvp(lambda p, t: (jnp.sin(p[0]), jnp.zeros_like(t[0])))


def straight_through(x: Any) -> Any:
    return x + lax.stop_gradient(jnp.round(x) - x)


def implicit(x: Any) -> Any:
    """The fixed point y = cos(x y)."""
    return lax.custom_root(
        lambda y: y - jnp.cos(0.3 * x * y),
        jnp.ones_like(x),
        lambda f, y: lax.fori_loop(0, 60, lambda _, y: y - f(y), y),
        lambda g, b: b / g(jnp.ones_like(b)),
    )


def solved(x: Any) -> Any:
    """A linear system whose matrix and right side depend on the input."""
    matrix = jnp.outer(x, x) + 3.0 * jnp.eye(4)
    return lax.custom_linear_solve(
        lambda v: matrix @ v, x**2, lambda mv, b: jnp.linalg.solve(matrix, b), symmetric=True
    )


CUSTOM = [
    Case("tangents scaled by the other argument", lambda x: borrowed(x, x**2)),
    Case("first argument constant", lambda x: borrowed(C, x)),
    Case("second argument constant", lambda x: borrowed(x, C)),
    Case("one after the other", lambda x: borrowed(C, x) + borrowed(x, C) + borrowed(x, x)),
    Case("under jit", lambda x: jax.jit(borrowed)(x, C) * jax.jit(borrowed)(C, x)),
    Case("under vmap", lambda x: jax.vmap(lambda a: borrowed(a * C, x))(x)),
    Case("inside a scan", lambda x: lax.scan(lambda s, a: (borrowed(s, x) * a, None), x, C)[0]),
    Case(
        "inside a cond, reverse",
        lambda x: lax.cond(x[0] > 0, lambda: borrowed(x, C), lambda: borrowed(C, x)),
        orders=("reverse",),
    ),
    Case(
        "inside a cond",
        lambda x: lax.cond(x[0] > 0, lambda: borrowed(x, C), lambda: borrowed(C, x)),
    ),
    Case("inside a scan, beside a constant", lambda x: lax.scan(lambda s, a: (borrowed(s, C) * a, None), x, C)[0]),
    Case("logaddexp in a scan", lambda x: lax.scan(lambda s, a: (jnp.logaddexp(s, C) * a, s), x, C)),
    Case(
        "logaddexp in a cond",
        lambda x: lax.cond(x[0] > 0, lambda: jnp.logaddexp(x, C), lambda: x),
    ),
    Case("activations in a scan", lambda x: lax.scan(lambda s, a: (jax.nn.silu(s) * jax.nn.relu(a), s), x, C)),
    Case("an argument that is no input", lambda x: scaled(x, 2.0) + scaled(x, 3.0)),
    Case("two results", lambda x: pair(x, C * x)),
    Case("two results, one of them used", lambda x: pair(x, C * x)[1]),
    Case("defjvps", lambda x: logistic(x) * logistic(C)),
    Case("a rule of zeros", lambda x: constant_rule(x) + x**2),
    Case("constants twice", lambda x: x * borrowed(jnp.asarray(C), jnp.asarray(2.0 * C))),
    Case("one constant twice", lambda x: (lambda c: x * borrowed(c, c))(jnp.asarray(C))),
    Case("logaddexp of the input with itself", lambda x: jnp.logaddexp(x, x)),
    Case("custom_vjp", lambda x: backwards(x, C), orders=REVERSE),
    Case("custom_vjp of two inputs", lambda x: backwards(x, x**2), orders=REVERSE),
    Case("custom_vjp, constant first", lambda x: backwards(C, x) + backwards(x, C), orders=REVERSE),
    Case(
        "custom_vjp with an argument that is no input",
        lambda x: reversed_scale(x, 2.0) * reversed_scale(x, 3.0),
        orders=REVERSE,
    ),
    Case("custom_vjp in a scan", lambda x: lax.scan(lambda s, a: (backwards(s, x) + a, s), x, C), orders=REVERSE),
    Case("custom_vjp under vmap", lambda x: jax.vmap(lambda a: backwards(a * C, x))(x), orders=REVERSE),
    Case("custom_vjp of a known value", lambda x: x * backwards(jnp.asarray(C), jnp.asarray(2.0 * C))),
    Case("straight through", straight_through),
    Case("straight through a sign", lambda x: jnp.tanh(x) + lax.stop_gradient(jnp.sign(x) - jnp.tanh(x))),
    Case("stop_gradient", lambda x: x * lax.stop_gradient(x) + lax.stop_gradient(jnp.cumsum(x))),
    Case("stop_gradient of a factor", lambda x: lax.stop_gradient(jnp.outer(x, x)) @ x),
    Case("custom_root", implicit),
    Case(
        "custom_root of constants",
        lambda x: (
            x
            * lax.custom_root(
                lambda y: y**3 - C**2,
                jnp.ones(4),
                lambda f, y: lax.fori_loop(0, 40, lambda _, y: y - f(y) / 12.0, y),
                lambda g, b: b / g(jnp.ones(4)),
            )
        ),
    ),
    Case("custom_linear_solve", solved),
    Case("cg", lambda x: jax.scipy.sparse.linalg.cg(lambda v: (2.0 + x**2) * v, x, tol=1e-15)[0], orders=("reverse",)),
    Case(
        "cg, forward",
        lambda x: jax.scipy.sparse.linalg.cg(lambda v: (2.0 + x**2) * v, x, tol=1e-15)[0],
        orders=FORWARD,
    ),
    Case("device_put of two", lambda x: jax.device_put((jnp.sin(x), x**2))),
    Case(
        "sparse matrix of inputs",
        lambda x: sparse.BCOO((x, np.array([[0, 1], [1, 0], [2, 2], [3, 1]])), shape=(4, 4)).todense(),
    ),
]

# indices -----------------------------------------------------------------------------------------------

TWICE = np.array([0, 2, 2, 0])
WILD = np.array([-1, 7, -9, 2])


def whole(x: Any) -> Any:
    return jnp.floor(x).astype(int)


INDICES = [
    Case("add, duplicates", lambda x: x.at[TWICE].add(x**2)),
    Case("set, duplicates", lambda x: jnp.zeros(4).at[TWICE].set(jnp.broadcast_to(x[1], 4))),
    Case("multiply, unique", lambda x: x.at[np.array([0, 2])].mul(x[:2], unique_indices=True)),
    Case("max, duplicates", lambda x: x.at[TWICE].max(2.0 * x)),
    Case("min, duplicates", lambda x: jnp.zeros(4).at[TWICE].min(x)),
    Case("add, duplicates by the input", lambda x: jnp.zeros(4).at[whole(x) % 2].add(x), draw=near_integers),
    Case("add, promised to be unique", lambda x: x.at[np.array([3, 1])].add(x[:2], unique_indices=True)),
    Case("subtract from a slice", lambda x: x.at[1:3].subtract(x[2:] ** 2)),
    Case("gather, wild, default", lambda x: x[WILD] * x),
    Case("gather, wild, clip", lambda x: x.at[WILD].get(mode="clip") * x),
    Case("gather, wild, fill", lambda x: x.at[WILD].get(mode="fill", fill_value=3.0) * x),
    Case("gather, wild, wrap", lambda x: jnp.take(x, WILD, mode="wrap") * x),
    Case("gather, promised in bounds", lambda x: x.at[np.array([3, 0])].get(mode="promise_in_bounds")),
    Case("gather, wild by the input, clip", lambda x: x.at[whole(x)].get(mode="clip") * x, draw=near_integers),
    Case(
        "gather, wild by the input, fill",
        lambda x: x.at[whole(x)].get(mode="fill", fill_value=0.0) * x,
        draw=near_integers,
    ),
    Case("gather, wild by the input, wrap", lambda x: jnp.take(x, whole(x), mode="wrap"), draw=near_integers),
    Case("scatter, wild, drop", lambda x: x.at[WILD].add(x**2, mode="drop")),
    Case("scatter, wild, clip", lambda x: x.at[WILD].add(x**2, mode="clip")),
    Case("scatter, wild by the input, drop", lambda x: x.at[whole(x)].add(x, mode="drop"), draw=near_integers),
    Case("scatter, wild by the input, clip", lambda x: x.at[whole(x)].add(x, mode="clip"), draw=near_integers),
    Case("set, wild by the input, drop", lambda x: x.at[whole(x[0])].set(x[1] ** 2, mode="drop"), draw=near_integers),
    Case("dynamic_slice beyond the end", lambda x: lax.dynamic_slice(x, (7,), (2,)) * x[:2]),
    Case("dynamic_slice from the input", lambda x: lax.dynamic_slice(x, (whole(x[0]),), (2,)), draw=near_integers),
    Case(
        "dynamic update from the input",
        lambda x: lax.dynamic_update_slice(x**2, x[:2], (whole(x[0]),)),
        draw=near_integers,
    ),
    Case("rows of a matrix by the input", lambda x: jnp.outer(x, x)[whole(x) % 4], draw=near_integers),
    Case(
        "take_along_axis by the input",
        lambda x: jnp.take_along_axis(jnp.outer(x, x), jnp.argsort(jnp.outer(x, C), axis=1), 1),
    ),
    Case("segment_sum by the input", lambda x: jax.ops.segment_sum(x**2, whole(x) % 3, 3), draw=near_integers),
    Case("segment_sum out of range", lambda x: jax.ops.segment_sum(x, np.array([0, 5, 1, -1]), 3)),
    Case("integers and back", lambda x: x.astype(int).astype(float) * x, draw=near_integers),
    Case("integers and back alone", lambda x: jnp.floor(x) + x.astype(int).astype(float), draw=near_integers),
    Case("booleans and back", lambda x: (x > 0).astype(float) * x + (x > 1).astype(float)),
    Case("float32 and back", lambda x: x.astype(jnp.float32).astype(float) * 2.0 + x),
    Case("sort carries", lambda x: lax.sort((x % 1.0, x, x**2), num_keys=1)[1:], draw=near_integers),
    Case("top_k with its indices", lambda x: (lambda v, i: v * x[i])(*lax.top_k(x, 2))),
    Case(
        "switch out of range", lambda x: lax.switch(whole(x[0]), [jnp.sin, jnp.cumsum, jnp.flip], x), draw=near_integers
    ),
    Case(
        "switch under vmap",
        lambda x: jax.vmap(lambda a: lax.switch(whole(a), [jnp.sin, lambda a: a**3, lambda a: 0.0 * a], a))(x),
        draw=near_integers,
    ),
    Case("cond under vmap", jax.vmap(lambda a: lax.cond(a > 0, lambda a: a**2, lambda a: -a, a))),
    Case(
        "cond under vmap, rows",
        lambda x: jax.vmap(lambda r: lax.cond(r[0] > 0, jnp.cumsum, lambda r: r[::-1] * x, r))(jnp.outer(x, C)),
    ),
    Case(
        "cond under vmap, operands not mapped",
        lambda x: jax.vmap(lambda a: lax.cond(a > 0, lambda: x * a, lambda: jnp.flip(x)))(x),
    ),
    Case("cond with a constant branch", lambda x: lax.cond(x[0] > 0, lambda: x, lambda: jnp.asarray(C))),
    Case("argmax", lambda x: x * jnp.argmax(x).astype(float)),
]

# zeros that multiply infinities ---------------------------------------------------------------------------

OPEN = np.array([True, False, True, True])


def masked_softmax(x: Any) -> Any:
    return jax.nn.softmax(jnp.where(OPEN, x, -jnp.inf))


def double_where(x: Any) -> Any:
    safe = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, jnp.sqrt(safe) + jnp.log(safe), 0.0)


def safe_norm(x: Any) -> Any:
    squares = jnp.sum(jnp.where(OPEN, 0.0, x) ** 2)
    nonzero = squares > 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, squares, 1.0)), 0.0)


def with_zero(rng: np.random.Generator, n: int) -> np.ndarray:
    x = rng.normal(size=n)
    x[1] = 0.0
    return x


MASKS = [
    Case("softmax with -inf", masked_softmax),
    Case("softmax with -inf, times the input", lambda x: masked_softmax(x) * x),
    Case("softmax with -inf added", lambda x: jax.nn.softmax(x + np.where(OPEN, 0.0, -np.inf))),
    Case("softmax with where", lambda x: jax.nn.softmax(x, where=OPEN)),
    Case("logsumexp with -inf", lambda x: jax.nn.logsumexp(jnp.where(OPEN, x, -jnp.inf))),
    Case("max with -inf", lambda x: jnp.max(jnp.where(OPEN, x, -jnp.inf))),
    Case("double where", double_where),
    Case("double where at zero", double_where, draw=with_zero),
    Case("safe norm", safe_norm),
    Case("safe norm at zero", safe_norm, draw=with_zero),
    Case("NaN of no consequence", lambda x: jnp.where(OPEN, x, jnp.nan)[np.array([0, 2, 3])] ** 2),
    Case("select of constants that are NaN", lambda x: jnp.where(OPEN, x**2, np.nan)),
    Case("xlogy at zero", lambda x: jax.scipy.special.xlogy(C, jnp.abs(x) + 0.1)),
    Case("sinc at zero", jnp.sinc, draw=with_zero),
    Case("abs, sign and relu at zero", lambda x: jnp.abs(x) + jax.nn.relu(x) + jnp.sign(x), draw=with_zero),
    Case(
        "maximum of equals", lambda x: jnp.maximum(x, 0.0) + jnp.minimum(x, x) + jnp.clip(x, 0.0, 1.0), draw=with_zero
    ),
    Case("max of equals", lambda x: jnp.max(jnp.floor(x) * 0.0 + jnp.array(1.0) * x[:1]) * x),
    Case("product with a zero", lambda x: jnp.prod(x) + jnp.cumprod(x), draw=with_zero),
    Case("power at zero", lambda x: x**2 + x**3 + jnp.power(jnp.abs(x) + 0.5, x), draw=with_zero),
]


def platform_solve(x: Any) -> Any:
    """What only the branch of another platform reads has a cotangent of zeros, which a solve hands on."""
    y = jnp.linalg.solve(jnp.diag(x) + 3 * jnp.eye(4), x)
    return lax.platform_dependent(x, cpu=jnp.tanh, default=lambda t: t * y)


def platform_window(x: Any) -> Any:
    def smallest(t: Any) -> Any:
        return lax.reduce_window(t, jnp.inf, lax.min, (2,), (1,), "SAME")

    y = lax.cond(x.sum() > 0.1, jnp.sin, smallest, x)
    return lax.platform_dependent(x, cpu=jnp.tanh, default=lambda t: t * y)


def scalar_product_unused(x: Any) -> Any:
    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        v = jnp.vdot(carry, x)
        return jnp.tanh(v * jnp.ones(4)), v

    return lax.scan(step, jnp.zeros(4), jnp.outer(jnp.ones(3), x))[0]


def checkpointed_loop(x: Any) -> Any:
    """What is recomputed is a loop that carries values beside their tangents."""

    def steps(t: Any) -> Any:
        return jnp.tanh(lax.fori_loop(0, 2, lambda i, t: jnp.sin(t) * (i + 1.0), t))

    return jax.checkpoint(steps, policy=jax.checkpoint_policies.dots_saveable)(x)


def checkpointed_scan(x: Any) -> Any:
    def steps(t: Any) -> Any:
        return jnp.tanh(lax.scan(lambda s, t: (jnp.tanh(s + t), s * t), jnp.zeros(()), t)[1])

    return jax.checkpoint(steps)(x)


ZEROS = [
    Case("loop in a checkpoint", checkpointed_loop),
    Case("scan in a checkpoint", checkpointed_scan),
    Case("solve for another platform", platform_solve),
    Case("window for another platform", platform_window),
    Case("product of a carry that starts as zeros", scalar_product_unused),
]

CASES = {
    f"{group}: {case.name}": case
    for group, cases in {
        "cached": CACHED,
        "loop": LOOPS,
        "custom": CUSTOM,
        "index": INDICES,
        "mask": MASKS,
        "zero": ZEROS,
    }.items()
    for case in cases
}


# what is compiled here runs a few times on a few numbers: optimizing it would take most of the time
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def truth(case: Case) -> Callable[[jax.Array], Any]:
    differentiate = jax.jacfwd if "forward" in case.orders else jax.jacrev
    return jax.jit(differentiate(case.f), compiler_options=QUICK)


def points(case: Case) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(case.draw(rng, case.n), float) for _ in range(4)]


@pytest.mark.parametrize("name", list(CASES))
def test_agrees_with_jax_at_every_point_in_every_order(name: str) -> None:
    case = CASES[name]
    expected = truth(case)
    for order in case.orders:
        ours = jax.jit(cr.jacobian(case.f, order=order), compiler_options=QUICK)
        for x in points(case):
            same(ours(x).tree(), expected(x), rtol=1e-9, atol=1e-9)


# where a known zero meets an infinity, JAX computes 0 * inf; an entry that is not there is zero
INFINITE = {
    "sqrt where it is masked": lambda x: jnp.where(OPEN, jnp.sqrt(jnp.abs(x)), 0.0),
    "log times a mask": lambda x: jnp.log(jnp.abs(x)) * OPEN.astype(float),
    "inverse that is not chosen": lambda x: jnp.where(x == 0.0, 0.0, 1.0 / x),
    "norm of nothing": lambda x: x * jnp.linalg.norm(jnp.where(OPEN, 0.0, x)),
    "a column of infinities": lambda x: jnp.where(OPEN, x, jnp.inf) * x,
}


@pytest.mark.parametrize("order", ALL)
@pytest.mark.parametrize("name", INFINITE)
def test_zero_times_infinity_is_that_of_jax_or_zero(name: str, order: str) -> None:
    f, x = INFINITE[name], jnp.array([0.5, 0.0, -1.5, 2.0])
    differentiate = jax.jacrev if order == "reverse" else jax.jacfwd
    ours, expected = np.asarray(cr.jacobian(f, order=order)(x).dense()), np.asarray(differentiate(f)(x))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(ours[finite], expected[finite], rtol=1e-12)
    assert all(
        a == 0.0 or np.array_equal(a, b, equal_nan=True) for a, b in zip(ours[~finite], expected[~finite], strict=True)
    )


# what stays from one call to the next -------------------------------------------------------------------


def test_a_constant_changed_between_calls() -> None:
    """As under `jax.jit`, a function keeps the constants that it was traced with; another one has its own."""
    factor = np.array(C)

    def scale(x: Any) -> Any:
        return factor * x

    x = jnp.ones(4)
    jacobian = cr.jacobian(scale)
    np.testing.assert_array_equal(jacobian(x).diagonal(), C)
    J = jacobian(x)
    factor[:] = 0.0
    np.testing.assert_array_equal(J.diagonal(), C)
    np.testing.assert_array_equal(cr.jacobian(lambda x: factor * x)(x).diagonal(), 0.0)


@pytest.mark.parametrize("values", [C, 0.0 * C, -C])
def test_functions_made_alike_have_their_own_constants(values: np.ndarray) -> None:
    def made(v: Any) -> Callable[[Any], Any]:
        return lambda x: v * x + jnp.where(v > 0, x[::-1], 0.0)

    x = jnp.arange(4.0)
    for v in (values, values[::-1], jnp.asarray(values)):
        np.testing.assert_allclose(cr.jacobian(made(v))(x).dense(), jax.jacfwd(made(v))(x))


def test_whole_numbers_of_equal_shapes_have_their_own_patterns() -> None:
    def f(x: Any, index: Any, open_: Any) -> Any:
        return jnp.where(open_, x[index], 0.0)

    jacobian, x = cr.jacobian(f), jnp.arange(4.0) + 1.0
    for index in (np.array([0, 1, 2, 3]), np.array([3, 3, 0, 0]), np.array([1, 2, 3, 0])):
        for open_ in (np.array([True, True, False, True]), np.array([False, False, True, False])):
            J = jacobian(x, index, open_)
            np.testing.assert_array_equal(J.dense(), jax.jacfwd(f)(x, index, open_))
            assert J.nnz == open_.sum()


def test_static_arguments_and_equal_shapes() -> None:
    def f(x: Any, k: Any) -> Any:
        return jnp.roll(x, k) * x

    x = jnp.arange(5.0) + 1.0
    for k in (1, 2, -1, 0, np.int32(3)):
        np.testing.assert_allclose(cr.jacobian(f)(x, k).dense(), jax.jacfwd(f)(x, k))
    for k in (1, 2, 3):
        np.testing.assert_allclose(cr.jacobian(functools.partial(powered, k=k))(x).dense(), jax.jacfwd(powered)(x, k))


def test_aux_is_that_of_the_point() -> None:
    def f(x: Any) -> Any:
        return helper(x, C), {"sum": x.sum(), "order": jnp.argsort(x), "constant": C}

    jacobian = cr.jacobian(f, has_aux=True)
    for x in (jnp.arange(4.0), -jnp.arange(4.0), jnp.asarray(C)):
        J, aux = jacobian(x)
        expected, theirs = jax.jacfwd(f, has_aux=True)(x)
        np.testing.assert_allclose(J.dense(), expected, atol=1e-12)
        jax.tree.map(np.testing.assert_allclose, aux, theirs)


@pytest.mark.parametrize("order", ALL)
def test_callbacks_are_called_and_change_nothing(order: str) -> None:
    seen: list[np.ndarray] = []

    def f(x: Any) -> Any:
        y = jnp.sin(x) * C
        jax.debug.callback(lambda v: seen.append(np.asarray(v)), y)
        return y[1:] * x[:-1]

    for x in (jnp.arange(4.0), jnp.asarray(C)):
        ours = cr.jacobian(f, order=order)(x).dense()
        jax.effects_barrier()
        assert any(np.allclose(v, np.sin(x) * C) for v in seen)
        np.testing.assert_allclose(ours, jax.jacfwd(f)(x), atol=1e-12)


def test_pure_callback_of_a_constant() -> None:
    def f(x: Any) -> Any:
        shape = jax.ShapeDtypeStruct((4,), jnp.float64)
        return x * jax.pure_callback(lambda v: np.asarray(v) + 1.0, shape, lax.stop_gradient(x))

    for x in (jnp.arange(4.0), jnp.asarray(C)):
        np.testing.assert_allclose(cr.jacobian(f)(x).diagonal(), x + 1.0)


def test_donated_arguments_of_a_function_in_use() -> None:
    """The function donates its argument, which the caller goes on to use."""
    f = jax.jit(lambda x: jnp.sin(x) * C, donate_argnums=0)
    for x in (np.arange(4.0), C):
        given = jnp.array(x)
        J = cr.jacobian(f)(given)
        np.testing.assert_allclose(J.diagonal(), np.cos(x) * C)
        np.testing.assert_array_equal(given, x)


# the transforms through each other ---------------------------------------------------------------------

THROUGH = [
    "cached: constant first", "cached: a loop inside", "custom: tangents scaled by the other argument",
    "custom: straight through", "custom: two results, one of them used", "index: add, duplicates by the input",
    "index: switch under vmap", "index: cond under vmap, rows", "index: gather, wild by the input, fill",
    "loop: carries trade places", "loop: zeros that fill", "mask: softmax with -inf, times the input",
    "mask: double where", "mask: product with a zero",
]  # fmt: skip


@pytest.mark.parametrize("name", THROUGH)
def test_batches_agree_with_jax(name: str) -> None:
    case = CASES[name]
    x = jnp.stack(points(case))
    ours = jax.jit(jax.vmap(lambda x: cr.jacobian(case.f)(x).tree()), compiler_options=QUICK)(x)
    same(ours, jax.jit(jax.vmap(jax.jacfwd(case.f)), compiler_options=QUICK)(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", THROUGH)
def test_gradients_through_a_jacobian_agree_with_jax(name: str) -> None:
    case = CASES[name]

    def loss(jacobian: Callable[[jax.Array], Any]) -> Callable[[jax.Array], Any]:
        return lambda x: sum(jnp.sum(jnp.sin(j)) for j in jax.tree.leaves(jacobian(x)))

    ours = jax.jit(jax.grad(loss(lambda x: cr.jacobian(case.f)(x).dense())), compiler_options=QUICK)
    theirs = jax.jit(jax.grad(loss(jax.jacrev(case.f))), compiler_options=QUICK)
    for x in points(case)[:2]:
        np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", THROUGH)
def test_products_and_values_agree_with_jax(name: str) -> None:
    """Matrix-free products and the value beside the Jacobian, from their own traces."""
    case = CASES[name]
    dx = jnp.cos(jnp.arange(float(case.n)))

    def ours(x: Any) -> Any:
        y, J = cr.value_and_jacobian(case.f)(x)
        return y, J @ dx, cr.linearize(case.f)(x) @ dx, cr.pushforward(case.f)(x, dx), cr.pullback(case.f)(x, y)

    def theirs(x: Any) -> Any:
        y, dy = jax.jvp(case.f, (x,), (dx,))
        return y, dy, dy, dy, jax.vjp(case.f, x)[1](y)[0]

    ours, theirs = (jax.jit(f, compiler_options=QUICK) for f in (ours, theirs))
    for x in points(case)[:2]:
        same(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


def test_what_is_not_finite_is_no_warning_of_numpy():
    J = cr.jacobian(lambda x: 1.0 / (x * 0.0))(jnp.ones(3)).dense()
    theirs = jax.jacfwd(lambda x: 1.0 / (x * 0.0))(jnp.ones(3))
    np.testing.assert_array_equal(np.diagonal(J), np.diagonal(theirs))
