"""Loops whose steps only add up: what is added is summed first, and met once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import chainrule as cr

rng = np.random.default_rng(0)
N, H, T = 30, 12, 10
W, U, D = rng.normal(size=(H, H)) / 4, rng.normal(size=(H, N)) / 4, rng.normal(size=(3, H))
x0 = jnp.asarray(rng.normal(size=N))
z0 = rng.normal(size=H)


def fixed_point(x):
    return D @ lax.fori_loop(0, T, lambda _, z: jnp.tanh(W @ z + U @ x), jnp.asarray(z0))


def fixed_point_of_einsum(x):
    return D @ lax.fori_loop(0, T, lambda _, z: jnp.tanh(W @ z + jnp.einsum("n,hn->h", x, U)), jnp.asarray(z0))


def into_two(x):
    """The sums for both parts of x have one source, one of them a second one that is no product."""
    a, b = x[:H], x

    def step(_, z):
        return jnp.tanh(W @ z + U @ b + a) * a

    return D @ lax.fori_loop(0, T, step, jnp.asarray(z0))


def integral(x):
    """Forwards: an integral beside the state, entered with a tangent."""

    def step(carry, _):
        z, total = carry
        return (jnp.tanh(W @ z), total + D.T @ (D @ z)), None

    return lax.scan(step, (U @ x, x[:H]), None, length=T)[0][1]


def seen_on_the_way(x):
    """The sums are given away at every step: nothing may be postponed."""

    def step(carry, _):
        z, total = carry
        total = total + D @ z
        return (jnp.tanh(W @ z), total), total

    return lax.scan(step, (U @ x, jnp.zeros(3)), None, length=T)


def used_by_the_state(x):
    def step(carry, _):
        z, total = carry
        return (jnp.tanh(W @ z + total.sum()), total + D @ z), None

    return lax.scan(step, (U @ x, jnp.zeros(3)), None, length=T)[0][1]


def of_inputs(x):
    """Every step brings columns of its own."""
    return lax.scan(lambda s, a: (s + D @ (U[:, :3] @ a), None), jnp.zeros(3), x.reshape(T, 3))[0]


def doubled(x):
    """What is added may hold the sum itself a second time."""
    return lax.fori_loop(0, 3, lambda _, s: s + (s + U[:, :H] @ s), x[:H])


def changing(x):
    """The matrix differs from step to step."""
    Ds = D * np.arange(1.0, T + 1)[:, None, None]
    step = lambda c, D: ((jnp.tanh(W @ c[0]), c[1] + D @ c[0]), None)  # noqa: E731
    return lax.scan(step, (U @ x, jnp.zeros(3)), Ds)[0][1]


def by_the_input(x):
    """A constant of the loop that carries a tangent is no coefficient."""
    weights = jnp.outer(x[:3], x[:H])
    step = lambda c, t: (c + weights @ (D.T @ jnp.ones(3) * t), None)  # noqa: E731
    return lax.scan(step, jnp.zeros(3), jnp.arange(1.0, 5.0))[0]


FUNCTIONS = [
    *(fixed_point, fixed_point_of_einsum, into_two, integral, seen_on_the_way, used_by_the_state),
    *(of_inputs, doubled, changing, by_the_input),
]


@pytest.mark.parametrize("order", ["forward", "reverse", "auto"])
@pytest.mark.parametrize("f", FUNCTIONS, ids=lambda f: f.__name__)
def test_the_jacobian_is_that_of_jax(f, order):
    wanted = jax.jacfwd(f)(x0)
    found = cr.jacobian(f, order=order)(x0).tree()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("f", [fixed_point, fixed_point_of_einsum])
def test_the_matrix_of_the_input_is_met_once(f):
    """[3, H] @ W at each step, and one [3, H] @ U for all of them."""
    states, inputs = 3 * H * H * T, 3 * H * N
    assert cr.jacobian(f, order="reverse")(x0).cost < 1.5 * (states + inputs)
    assert 1.5 * (states + inputs) < 3 * H * N * T


def test_an_integral_meets_its_matrices_once():
    found = cr.jacobian(integral, order="forward")(x0)
    assert found.cost < 1.5 * N * H * H * T


def test_the_pattern_is_no_looser():
    """Sums of a part of the state, entered with a few columns."""
    M = np.kron(np.eye(3), np.ones((4, 4)))

    def f(x):
        step = lambda c, _: ((jnp.sin(c[0]), c[1] + M @ c[0]), None)  # noqa: E731
        return lax.scan(step, (x, jnp.zeros(12)), None, length=5)[0][1]

    x = jnp.arange(12.0)
    rows, cols, _ = cr.jacobian(f, order="forward")(x).coo()
    assert (rows // 4 == cols // 4).all()
    assert len(rows) == 48
