"""Where a primitive does the same all along an axis, what does not vary there is taken once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import chainrule as cr

n = 5
A = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)) + 4 * np.eye(n))
SCALES = jnp.asarray(np.random.default_rng(1).normal(size=(7, 7)))
MAPS = {
    "solve": lambda X: jnp.linalg.solve(A, X),
    "triangular solve": lambda X: lax.linalg.triangular_solve(A, X, left_side=True),
    "triangular solve from the right": lambda X: lax.linalg.triangular_solve(A, X.T).T,
    "tridiagonal solve": lambda X: lax.linalg.tridiagonal_solve(A[0], A[1] + 9, A[2], X),
    "fft": lambda X: jnp.fft.fft(X, axis=0).real,
}


@pytest.mark.parametrize("name", list(MAPS))
def test_columns_that_are_not_mixed_cost_nothing(name):
    costs = [cr.jacobian(MAPS[name], order="forward")(jnp.ones((n, m))).cost for m in (1, 2, 7, 12)]
    assert len(set(costs)) == 1


@pytest.mark.parametrize("m", [1, 2, 7])
@pytest.mark.parametrize("name", list(MAPS))
def test_values(name, m):
    X = jnp.asarray(np.random.default_rng(2).normal(size=(n, m)))
    for f in (
        MAPS[name],
        lambda X: MAPS[name](jnp.tanh(X)),  # varies along all axes
        lambda X: MAPS[name](jnp.sin(X[:, :1]) + 0 * X),  # equal columns
        lambda X: MAPS[name](X * SCALES[:1, :m] + X[:1]),  # a sum
        lambda X: MAPS[name](jnp.einsum("im,mk->ik", X, SCALES[:m])),  # columns of X beside each other
    ):
        for run in (lambda g: g, jax.jit):
            found = run(lambda X, f=f: cr.jacobian(f, order="forward")(X).dense())(X)
            np.testing.assert_allclose(found, jax.jacfwd(f)(X).reshape(found.shape), rtol=1e-10, atol=1e-12)


def test_two_mixed_axes_make_a_product_of_factors():
    def f(X):
        return lax.linalg.triangular_solve(A, lax.linalg.triangular_solve(A, X, left_side=True))

    X = jnp.ones((n, n))
    J = cr.jacobian(f, order="forward")(X)
    np.testing.assert_allclose(J.tree(), jax.jacfwd(f)(X), rtol=1e-10, atol=1e-12)
    assert J.cost < 8 * n**4  # n⁴ entries, each of one product; solved one by one, they take n times as many


def test_a_matrix_that_differs_along_an_axis_is_not_taken_for_one():
    matrices = jnp.stack([A, 2 * A + jnp.eye(n)])

    def f(X):
        return jnp.linalg.solve(matrices, X)

    X = jnp.ones((2, n, 3))
    np.testing.assert_allclose(cr.jacobian(f, order="forward")(X).tree(), jax.jacfwd(f)(X), rtol=1e-10, atol=1e-12)


def test_a_map_that_is_linear_in_real_numbers_alone():
    factors = lax.complex(SCALES[:1], SCALES[1:2])

    def f(x):
        return jnp.fft.irfft(lax.complex(x, 0 * x)[:, None] * factors, axis=0)

    x = jnp.ones(n)
    np.testing.assert_allclose(cr.jacobian(f, order="forward")(x).tree(), jax.jacfwd(f)(x), rtol=1e-10, atol=1e-12)
