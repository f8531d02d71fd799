"""Inverses by substitution: a round trip, few runs of the function, derivatives of the implicit function theorem."""

import flows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import point

import chainrule as cr
from chainrule._density import inverting

EASY = ["coupling", "real_nvp", "halves", "masked", "made", "maf"]


def monotone(x):
    """Each number is bent by those before it; steep in the middle, flat far out."""
    before = jnp.concatenate([jnp.zeros(1), jnp.cumsum(x)[:-1]])
    return jnp.arctan(4 * x) + 0.01 * x + jnp.sin(before)


@pytest.mark.parametrize("name", EASY)
def test_round_trips(name):
    f, x = flows.FLOWS[name](8), point(8)
    inverse = cr.triangular_inverse(f)
    np.testing.assert_allclose(inverse(f(x)), x, atol=1e-11)
    np.testing.assert_allclose(f(inverse(x)), x, atol=1e-11)


@pytest.mark.parametrize(("name", "levels"), [("coupling", 2), ("masked", 2), ("made", 8)])
def test_as_many_runs_as_levels_and_one_to_see_it(name, levels, monkeypatch):
    f, x, start = flows.FLOWS[name](8), point(8), point(8, 5)
    monkeypatch.setattr(inverting, "_MOST", (levels + 1) / levels)  # of each link
    np.testing.assert_allclose(cr.triangular_inverse(f)(f(x), start=start), x, atol=1e-11)
    monkeypatch.setattr(inverting, "_MOST", 1)
    assert jnp.isnan(cr.triangular_inverse(lambda x: f(x))(f(x), start=start)).any()


def test_masks_times_given_weights_are_seen(monkeypatch):
    own = np.arange(8)
    into, out = own[:, None] <= own[None], own[:, None] < own[None]
    W, V = flows.weights((8, 8), (8, 8))

    def f(x, W, V):
        return (x - jnp.tanh(x @ (W * into.astype(float))) @ jnp.where(out, V, 0)) * 2.0

    monkeypatch.setattr(inverting, "_MOST", 9 / 8)
    inverse, x = jax.jit(cr.triangular_inverse(f)), point(8)
    np.testing.assert_allclose(inverse(f(x, W, V), W, V), x, atol=1e-12)
    J = np.asarray(jax.jacfwd(f)(x, W, V))
    found = jax.vjp(lambda y: inverse(y, W, V), f(x, W, V))[1](point(8, 2))[0]
    np.testing.assert_allclose(found, np.linalg.solve(J.T, point(8, 2)), rtol=1e-10)


def test_levels_that_hardly_depend_on_those_below_do_not_wait_for_them(monkeypatch):
    f, x = flows.made(64), point(64)
    monkeypatch.setattr(inverting, "_MOST", 0.5)
    np.testing.assert_allclose(cr.triangular_inverse(f)(f(x)), x, rtol=1e-13, atol=1e-14)


def test_small_numbers_beside_a_large_one_have_all_their_digits():
    def f(x):
        return x.at[1:-1].add(0.5 * x[:-2])

    J, size = np.asarray(jax.jacfwd(f)(jnp.zeros(12))), np.array([1e-20] * 11 + [1.0])
    inverse, y, b = cr.triangular_inverse(f), jnp.asarray(size * point(12)), jnp.asarray(size * point(12, 2))
    for found, matrix in [(inverse(y), J), (jax.jvp(inverse, (b,), (y,))[1], J), (jax.vjp(inverse, b)[1](y)[0], J.T)]:
        np.testing.assert_allclose(found, np.linalg.solve(matrix, y), rtol=1e-14)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_bent_numbers_are_enclosed(scale):
    y = monotone(scale * point(8))
    np.testing.assert_allclose(monotone(cr.triangular_inverse(monotone)(y)), y, rtol=1e-10, atol=1e-10)


def test_falling_functions_and_blocks():
    A = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4)))

    def f(x):
        a, b = jnp.split(A @ jnp.tanh(x), 2)
        return jnp.concatenate([-a, b**3])

    x = 0.5 * point(4)
    np.testing.assert_allclose(cr.triangular_inverse(f)(f(x), start=0.1 * x), x, rtol=1e-7)


@pytest.mark.parametrize("f", [flows.halves(6), flows.made(6), monotone], ids=["halves", "made", "monotone"])
def test_derivatives_are_those_of_the_implicit_function_theorem(f):
    x = point(6)
    y, J, inverse = f(x), np.asarray(jax.jacfwd(f)(x)), cr.triangular_inverse(f)
    np.testing.assert_allclose(jax.jvp(inverse, (y,), (point(6, 2),))[1], np.linalg.solve(J, point(6, 2)), rtol=1e-7)
    w = jax.vjp(inverse, y)[1](point(6, 2))[0]
    np.testing.assert_allclose(w, np.linalg.solve(J.T, point(6, 2)), rtol=1e-7)


def test_derivatives_by_parameters_given_and_closed_over():
    def f(x, a):
        return jnp.stack([x[0] * a, x[1] * jnp.exp(x[0]) + a**2])

    y, a = jnp.array([1.0, 2.0]), jnp.asarray(1.5)
    exact = lambda a: jnp.stack([y[0] / a, (y[1] - a**2) * jnp.exp(-y[0] / a)])  # noqa: E731
    given = jax.jacrev(lambda a: cr.triangular_inverse(f)(y, a))(a)
    closed = jax.jacfwd(lambda a: cr.triangular_inverse(lambda x: f(x, a))(y))(a)
    np.testing.assert_allclose(given, jax.jacfwd(exact)(a), rtol=1e-12)
    np.testing.assert_allclose(closed, jax.jacfwd(exact)(a), rtol=1e-12)
    second = jax.hessian(lambda a: cr.triangular_inverse(f)(y, a).sum())(a)
    np.testing.assert_allclose(second, jax.hessian(lambda a: exact(a).sum())(a), rtol=1e-10)


def test_batches():
    f = flows.maf(6)
    X = jnp.stack([point(6, k) for k in range(3)])
    np.testing.assert_allclose(cr.triangular_inverse(f, batched=True)(jax.vmap(f)(X)), X, atol=1e-11)
    np.testing.assert_allclose(jax.vmap(cr.triangular_inverse(f))(jax.vmap(f)(X)), X, atol=1e-11)


def test_another_form_and_another_domain():
    def f(x):  # from (0, 1) to all numbers
        u = jnp.log(x["u"]) - jnp.log1p(-x["u"])
        return u, x["v"] + u[0]

    x = {"u": jnp.array([0.1, 0.7]), "v": jnp.asarray(3.0)}
    start = {"u": jnp.full(2, 0.5), "v": jnp.asarray(0.0)}
    found = cr.triangular_inverse(f)(f(x), start=start)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9), found, x)


def test_what_is_refused():
    with pytest.raises(cr.ShapeError, match="give a point of its form as start="):
        cr.triangular_inverse(lambda x: (x[:1], x[1:]))(jnp.ones(2), start=jnp.ones(2))
    with pytest.raises(cr.SingularError, match="twice, or does not depend"):
        cr.triangular_inverse(lambda x: jnp.ones(2))(jnp.ones(2))
    with pytest.raises(cr.SingularError, match="zeros of the Jacobian"):
        cr.triangular_inverse(lambda x: x * jnp.array([1.0, 0.0]))(jnp.ones(2))


def test_where_there_is_no_inverse_it_is_nan():
    assert jnp.isnan(cr.triangular_inverse(lambda x: jnp.exp(x) + 1)(jnp.zeros(2))).all()


def test_batches_and_maps_that_are_refused():
    scaled = cr.triangular_inverse(lambda x, s: s * x, batched=True)
    np.testing.assert_allclose(scaled(jnp.ones((2, 3)), s=2.0), 0.5)
    with pytest.raises(cr.ShapeError, match="along a first axis"):
        scaled(jnp.array(1.0), 2.0)
    with pytest.raises(cr.ShapeError, match="1 outputs of 3 inputs"):
        cr.triangular_inverse(lambda x: x.sum())(jnp.array(1.0), start=jnp.ones(3))


@pytest.mark.parametrize("exact", [-69.0, -690.0])
def test_down_a_tail_steps_double(exact):
    """Newton's method alone takes a step of 1 for each of these."""
    y = jnp.exp(jnp.array([exact]))
    np.testing.assert_allclose(cr.triangular_inverse(jnp.exp)(y), [exact], rtol=1e-12)


def test_a_flat_end_has_as_many_digits_as_the_residual_tells():
    y = jnp.array([0.999999999, -0.5])
    found = cr.triangular_inverse(jnp.tanh)(y)
    np.testing.assert_allclose(jnp.tanh(found), y, rtol=1e-15)
    np.testing.assert_allclose(found, np.arctanh(y), rtol=1e-7)


def test_a_start_that_solves_it_where_the_derivative_is_zero():
    assert cr.triangular_inverse(lambda x: x**3)(jnp.zeros(2)).tolist() == [0.0, 0.0]
