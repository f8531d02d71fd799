"""The transforms: arguments, pytrees, dtypes, orders, nesting, and what they refuse."""

import dataclasses
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same

import chainrule as cr

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=5))


def model(p, s, scale=1.0):
    return {"a": p["w"] * s * scale, "b": (jnp.sin(p["w"]).sum() * p["v"], p["v"] * s)}


P = {"w": jnp.arange(3.0), "v": jnp.array(2.0), "none": None, "empty": jnp.zeros((0, 2))}


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (1, 0), (0, 1)])
def test_argnums_and_pytrees_mean_what_they_mean_in_jax(argnums, order):
    s = jnp.array(3.0)
    same(cr.jacobian(model, argnums, order=order)(P, s).tree(), jax.jacobian(model, argnums)(P, s))
    y, J = cr.value_and_jacobian(model, argnums, order=order)(P, s)
    same(y, model(P, s))
    assert J.shape == (5, sum(leaf.size for leaf in jax.tree.leaves(J.tree()["b"][0])))


def loss(p, s):
    return (p["w"] * s).sum() * jnp.sin(p["v"]) + (p["w"] ** 3).sum() * s


def picked(f, argnums, args):
    """f of the differentiated arguments alone, and these."""
    numbers = (argnums,) if isinstance(argnums, int) else argnums
    x = args[argnums] if isinstance(argnums, int) else tuple(args[k] for k in numbers)

    def inner(x):
        full = list(args)
        for k, value in zip(numbers, (x,) if isinstance(argnums, int) else x, strict=True):
            full[k] = value
        return f(*full)

    return inner, x


@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (1, 0), (0, -1)])
def test_argnums_of_the_other_transforms(argnums):
    args, w = (P, jnp.array(3.0)), jnp.array(2.0)
    inner, x = picked(loss, argnums, args)
    push, pull = jax.jvp(inner, (x,), (x,))[1], jax.vjp(inner, x)[1](w)[0]
    same(cr.gradient(loss, argnums)(*args), jax.grad(inner)(x))
    same(cr.pushforward(loss, argnums)(*args, x), push)
    same(cr.pullback(loss, argnums)(*args, w), pull)
    same(cr.hvp(loss, argnums)(*args, x), jax.jvp(jax.grad(inner), (x,), (x,))[1])
    for order in ("auto", "forward", "reverse"):
        same(cr.hessian(loss, argnums, order=order)(*args).tree(), jax.hessian(inner)(x))
    L = cr.linearize(loss, argnums)(*args)
    same(L.tree(), jax.jacobian(inner)(x))
    same(L @ x, push)
    same(L.T @ w, pull)


@pytest.mark.parametrize("order", ["auto", "forward", "reverse", "linearize"])
def test_nothing_in_or_nothing_out(order):
    def of(f):
        return cr.linearize(f) if order == "linearize" else cr.jacobian(f, order=order)

    for nothing in ({}, (), None, {"a": None}, jnp.zeros((0, 2))):
        J = of(lambda p: X)(nothing)
        assert J.shape == (5, 0) and J.dense().shape == (5, 0) and repr(J)
        same(J @ jnp.zeros(0), jnp.zeros(5))
        J = of(lambda x, nothing=nothing: nothing)(X)
        assert J.shape == (0, 5) and J.dense().shape == (0, 5) and repr(J)
        same(J.T @ jnp.zeros(0), jnp.zeros(5))
    same(cr.gradient(lambda p: jnp.array(1.0))({}), {})
    same(cr.pullback(lambda p: X)({}, X), {})
    same(cr.pushforward(lambda x: {})(X, X), {})


def test_registered_containers():
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass
    class Pair:
        a: jax.Array
        b: jax.Array

    q = Pair(X, jnp.array(2.0))
    J = cr.jacobian(lambda q: Pair(q.a * q.b, q.b**2))(q)
    same(J.tree(), jax.jacobian(lambda q: Pair(q.a * q.b, q.b**2))(q))
    same(J @ q, Pair(2 * X * q.b, 2 * q.b**2))


def test_has_aux():
    def f(x):
        return x**2, {"seen": x.sum(), "count": jnp.array(3)}

    J, aux = cr.jacobian(f, has_aux=True)(X)
    assert aux["count"] == 3 and aux["seen"] == X.sum()
    (y, aux), K = cr.value_and_jacobian(f, has_aux=True)(X)
    same(y, X**2)
    same(J.dense(), K.dense())
    L, aux = cr.linearize(f, has_aux=True)(X)
    same(L.dense(), J.dense())
    slope, aux = cr.gradient(lambda x: (x.prod(), x), has_aux=True)(X)
    same(aux, X)
    same(slope, jax.grad(jnp.prod)(X))
    H, aux = cr.hessian(lambda x: (x.prod(), x), has_aux=True)(X)
    same(aux, X)
    same(H.dense(), jax.hessian(jnp.prod)(X))


def g(x):
    return jnp.tanh(x[1:] * x[:-1])


TRANSFORMS = {
    "jacobian": (lambda x: cr.jacobian(g)(x).dense(), jax.jacfwd(g)),
    "value_and_jacobian": (lambda x: cr.value_and_jacobian(g)(x)[1].dense(), jax.jacfwd(g)),
    "hessian": (lambda x: cr.hessian(lambda x: g(x).prod())(x).dense(), jax.hessian(lambda x: g(x).prod())),
    "gradient": (cr.gradient(lambda x: g(x).prod()), jax.grad(lambda x: g(x).prod())),
    "linearize": (lambda x: cr.linearize(g)(x) @ x, lambda x: jax.jvp(g, (x,), (x,))[1]),
    "pushforward": (lambda x: cr.pushforward(g)(x, x), lambda x: jax.jvp(g, (x,), (x,))[1]),
    "pullback": (lambda x: cr.pullback(g)(x, x[1:]), lambda x: jax.vjp(g, x)[1](x[1:])[0]),
    "hvp": (lambda x: cr.hvp(lambda x: g(x).prod())(x, x), lambda x: jax.hessian(lambda x: g(x).prod())(x) @ x),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms_go_through_jax_transforms(name):
    ours, theirs = TRANSFORMS[name]
    batch = jnp.asarray(RNG.normal(size=(3, 5)))
    same(ours(X), theirs(X))
    same(jax.jit(ours)(X), theirs(X))
    same(jax.vmap(ours)(batch), jax.vmap(theirs)(batch))
    same(jax.lax.map(ours, batch), jax.vmap(theirs)(batch))
    same(jax.grad(lambda x: jnp.sum(ours(x) ** 2))(X), jax.grad(lambda x: jnp.sum(theirs(x) ** 2))(X))
    same(jax.jvp(ours, (X,), (X,))[1], jax.jvp(theirs, (X,), (X,))[1])


def test_nested_in_themselves():
    inner = cr.jacobian(lambda x: cr.jacobian(g)(x).dense())(X).tree()
    same(inner, jax.jacfwd(jax.jacfwd(g))(X))
    same(cr.hessian(lambda x: (cr.gradient(lambda y: g(y).sum())(x) ** 2).sum())(X).dense(),
         jax.hessian(lambda x: (jax.grad(lambda y: g(y).sum())(x) ** 2).sum())(X))  # fmt: skip
    same(
        cr.jacobian(lambda x: cr.linearize(g)(x) @ jnp.ones(5))(X).tree(),
        jax.jacfwd(lambda x: jax.jvp(g, (x,), (jnp.ones(5),))[1])(X),
    )


def test_a_jacobian_passes_through_jit_without_a_second_trace():
    traces = []

    @jax.jit
    def apply(J, v):
        traces.append(1)
        return J @ v

    for f in (cr.jacobian(g), cr.linearize(g)):
        traces.clear()
        apply(f(X), X)
        same(apply(f(2 * X), X), jax.jvp(g, (2 * X,), (X,))[1])
        assert len(traces) == 1


def test_f_is_traced_once_and_shared_by_equal_transforms():
    calls = []

    def f(x):
        calls.append(1)
        return x**2

    cr.jacobian(f)(X)
    first = len(calls)
    cr.jacobian(f)(2 * X)
    cr.jacobian(f)(3 * X)
    assert len(calls) == first
    cr.jacobian(f)(jnp.ones(2))
    assert len(calls) > first


def test_eager_call_adds_little_over_the_compiled_program():
    transform = cr.jacobian(g)
    compiled = transform.trace(X).lower().compile()
    jax.block_until_ready((transform(X), compiled(X)))

    def fastest(call):
        times = []
        for _ in range(200):
            start = time.perf_counter()
            jax.block_until_ready(call(X))
            times.append(time.perf_counter() - start)
        return min(times)

    # the promise is 100 µs; the fastest of many runs is not a matter of the machine's load
    assert fastest(transform) - fastest(compiled) < 100e-6


def test_whole_numbers_are_known_while_tracing():
    def f(x, index, power, mode):
        return x[index] ** power if mode == "take" else x

    first, second = jnp.array([0, 2]), jnp.array([1, 1])
    transform = cr.jacobian(f)
    for index in (first, second, np.array([3])):
        J = transform(X, index, 3, "take")
        assert J.nnz == len(index)
        same(J.dense(), jax.jacfwd(lambda x, index=index: x[index] ** 3)(X))
    assert transform(X, first, 3, "leave").nnz == 5
    stage = transform.trace(X, first, 3, "take").lower().compile()
    same(stage(X, first, 3, "take").dense(), transform(X, first, 3, "take").dense())
    index = np.array([0])
    before = transform(X, index, 3, "take").dense()
    index[0] = 4  # a NumPy array may change; what was traced must not
    assert not np.array_equal(transform(X, index, 3, "take").dense(), before)


def test_straight_through_and_custom_rules():
    same(cr.jacobian(lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x))(X).dense(), jnp.eye(5))

    @jax.custom_jvp
    def squared(x):
        return x**2

    squared.defjvp(lambda p, t: (p[0] ** 2, 4 * p[0] * t[0]))
    same(cr.jacobian(squared)(X).diagonal(), 4 * X)

    @jax.custom_vjp
    def cubed(x, c):
        return c * x**3

    cubed.defvjp(lambda x, c: (c * x**3, (x, c)), lambda r, w: (7 * w * r[0] * r[1], w.sum()))
    J = cr.jacobian(lambda x: cubed(jnp.sin(x), 2.0))(X)
    assert J.order == "reverse" and J.nnz == 5
    same(J.tree(), jax.jacrev(lambda x: cubed(jnp.sin(x), 2.0))(X))
    L = cr.linearize(lambda x: cubed(jnp.sin(x), 2.0))(X)
    same(L @ X, J @ X)
    same(L.T @ X, J.T @ X)


TAKE = {
    "jacobian": (lambda x, i: cr.jacobian(take)(x, i).dense(), lambda x, i: jax.jacfwd(take)(x, i)),
    "hessian": (lambda x, i: cr.hessian(taken)(x, i).dense(), lambda x, i: jax.hessian(taken)(x, i)),
    "gradient": (lambda x, i: cr.gradient(taken)(x, i), lambda x, i: jax.grad(taken)(x, i)),
    "linearize": (lambda x, i: cr.linearize(take)(x, i).dense(), lambda x, i: jax.jacfwd(take)(x, i)),
    "pushforward": (lambda x, i: cr.pushforward(take)(x, i, x), lambda x, i: jax.jacfwd(take)(x, i) @ x),
    "pullback": (lambda x, i: cr.pullback(take)(x, i, x), lambda x, i: x @ jax.jacfwd(take)(x, i)),
    "hvp": (lambda x, i: cr.hvp(taken)(x, i, x), lambda x, i: jax.hessian(taken)(x, i) @ x),
}


def take(x, i):
    return x[i] * jnp.sin(x)


def taken(x, i):
    return take(x, i).sum()


@pytest.mark.parametrize("name", TAKE)
def test_whole_numbers_beside_the_input_known_or_traced(name):
    ours, theirs = TAKE[name]
    same(ours(X, 2), theirs(X, 2))
    same(jax.jit(ours)(X, 2), theirs(X, 2))
    places = jnp.array([0, 3])
    same(jax.vmap(ours, (None, 0))(X, places), jax.vmap(theirs, (None, 0))(X, places))


RETRACES = {
    "jacobian": lambda f, x: cr.jacobian(f)(x),
    "value_and_jacobian": lambda f, x: cr.value_and_jacobian(f)(x),
    "hessian": lambda f, x: cr.hessian(f)(x),
    "gradient": lambda f, x: cr.gradient(f)(x),
    "linearize": lambda f, x: cr.linearize(f)(x),
    "pushforward": lambda f, x: cr.pushforward(f)(x, x),
    "pullback": lambda f, x: cr.pullback(f)(x, x.sum()),
    "hvp": lambda f, x: cr.hvp(f)(x, x),
}


@pytest.mark.parametrize("name", RETRACES)
def test_no_transform_runs_f_again_for_equal_shapes(name):
    calls = []

    def f(x):
        calls.append(1)
        return (x**3).sum()

    RETRACES[name](f, X)
    first = len(calls)
    RETRACES[name](f, 2 * X)
    assert len(calls) == first
    RETRACES[name](f, X[1:])
    assert len(calls) > first


def test_anything_that_can_be_called():
    class Layer:
        def __init__(self, w):
            self.w = w

        def __call__(self, x):
            return self.w * x

        def squared(self, x):
            return self.w * x**2

    layer = Layer(jnp.array(2.0))
    same(cr.jacobian(layer)(X).diagonal(), jnp.full(5, 2.0))
    same(cr.jacobian(layer.squared)(X).diagonal(), 4 * X)
    same(cr.jacobian(functools.partial(jnp.multiply, 3.0))(X).diagonal(), jnp.full(5, 3.0))
    same(cr.jacobian(jax.jit(jnp.sin))(X).diagonal(), jnp.cos(X))
    same(cr.jacobian(lambda x: x[0] * x[1])([2.0, 3.0]).dense(), jnp.array([[3.0, 2.0]]))
    for c in (1.0, 2.0, 3.0):  # a closure made anew has its own constants
        same(cr.jacobian(lambda x, c=c: c * x)(X).diagonal(), jnp.full(5, c))
        same(cr.jacobian(lambda x: c * x)(X).diagonal(), jnp.full(5, c))  # noqa: B023


@jax.custom_vjp
def outward(x):
    return x**3


outward.defvjp(lambda x: (x**3, x), lambda x, w: (7 * w * x,))


def test_a_custom_vjp_under_every_transform():
    for order in ("auto", "reverse"):
        same(cr.jacobian(outward, order=order)(X).diagonal(), 7 * X)
    same(cr.value_and_jacobian(outward)(X)[0], X**3)
    same(cr.pullback(outward)(X, X), 7 * X**2)
    same(cr.gradient(lambda x: outward(x).sum())(X), 7 * X)
    same(cr.hessian(lambda x: outward(x).sum())(X).dense(), 7 * jnp.eye(5))
    same(cr.hvp(lambda x: outward(x).sum())(X, X), 7 * X)
    same(jax.jit(lambda x: cr.jacobian(outward)(x).diagonal())(X), 7 * X)
    same(jax.vmap(lambda x: cr.jacobian(outward)(x).diagonal())(jnp.stack([X, -X])), 7 * jnp.stack([X, -X]))
    same(jax.grad(lambda x: cr.jacobian(outward)(x).dense().sum())(X), jnp.full(5, 7.0))


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
def test_a_custom_jvp_under_every_transform(order):
    @jax.custom_jvp
    def squared(x):
        return x**2

    squared.defjvp(lambda p, t: (p[0] ** 2, 4 * p[0] * t[0]))
    same(cr.jacobian(squared, order=order)(X).diagonal(), 4 * X)
    same(cr.hessian(lambda x: squared(x).sum(), order=order)(X).dense(), jax.hessian(lambda x: squared(x).sum())(X))
    same(cr.pushforward(squared)(X, X), 4 * X**2)
    same(cr.pullback(squared)(X, X), 4 * X**2)
    same(cr.linearize(squared)(X).diagonal(), 4 * X)


def test_keywords_reach_the_function():
    def f(x, power=1, scale=1.0):
        return scale * x**power

    transform = cr.jacobian(f)
    np.testing.assert_allclose(transform(X, power=3, scale=jnp.array(2.0)).diagonal(), 6 * X**2)
    np.testing.assert_allclose(transform.trace(X, power=2).lower().compile()(X, power=2).diagonal(), 2 * X)
    np.testing.assert_allclose(cr.pushforward(f)(X, X, power=2), 2 * X**2)
    np.testing.assert_allclose(cr.jacobian(f, np.int64(0))(X).diagonal(), 1.0)
