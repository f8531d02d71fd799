"""Linear algebra by structure: values against NumPy, derivatives against JAX on the dense matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from systems import SYSTEMS, by_jax, dense_of, jacobian_of, point

import chainrule as cr

EVERY_SYSTEM = pytest.mark.parametrize("name", SYSTEMS)
# one for each method, small ones where there are any
EVERY_METHOD = pytest.mark.parametrize(
    "name",
    [
        *("permutation", "tridiagonal", "banded, swaps", "blocks", "large blocks", "unequal blocks"),
        *("Kronecker left", "permuted triangular", "sparse upper", "block-triangular", "deep block-triangular"),
        *("sparse", "dense"),
    ],
)


def right_hand_sides(n):
    rng = np.random.default_rng(0)
    b, B = rng.normal(size=n), rng.normal(size=(n, 3))
    return b, B, b + 1j * rng.normal(size=n)


def close(got, want, digits=10):
    assert got.shape == want.shape
    assert_allclose(got, want, rtol=0, atol=10.0**-digits * max(1, np.abs(want).max(initial=0)))


@EVERY_SYSTEM
def test_the_method_follows_from_the_structure(name):
    J = jacobian_of(name)
    assert J.structure.kind == SYSTEMS[name].kind
    assert type(J._layout.straight.method).__name__ == SYSTEMS[name].method
    close(J.dense(), dense_of(name))


@jax.jit
def _solved(J, b, B, c):
    F = J.factorize()
    straight = J.solve(b), J.solve(B), J.solve(c), F.solve(B), J.T.factorize().T.solve(B), J.lstsq(B)
    transposed = J.T.solve(b), J.T.solve(B), J.T.solve(c), F.T.solve(B), F.T.T.T.solve(B), J.T.lstsq(B)
    return straight, transposed


@EVERY_SYSTEM
def test_solve(name):
    J, A = jacobian_of(name), dense_of(name)
    b, B, c = right_hand_sides(len(A))
    for found, matrix in zip(_solved(J, b, B, c), (A, A.T), strict=True):
        for x, right in zip(found, (b, B, c, B, B, B), strict=True):
            close(x.reshape(right.shape), np.linalg.solve(matrix, right), 8)
    close(J.solve(b), np.linalg.solve(A, b), 8)  # outside jit, where a nan would be refused
    close(J.factorize().T.solve(b).reshape(-1), np.linalg.solve(A.T, b), 8)


@jax.jit
def _numbers(J):
    F, n = J.factorize(), J.shape[0]
    image = J.range(n)
    return {
        "det": (J.det(), J.T.det(), F.det()),
        "slogdet": (*J.slogdet(), *J.T.slogdet(), *F.T.slogdet()),
        "inverse": (J.inverse().dense(), J.T.inverse().dense().T, J.inverse() @ J.dense()),
        "stretch": (J.singular_values(), J.cond(), J.rank(), J.is_invertible()),
        "spaces": (J.null_space(0), image @ image.T),
    }


@EVERY_SYSTEM
def test_determinant_inverse_and_singular_values(name):
    J, A = jacobian_of(name), dense_of(name)
    got, n = _numbers(J), len(A)
    s = np.linalg.svd(A, compute_uv=False)
    assert_allclose(got["det"], [np.linalg.det(A)] * 3, rtol=1e-9)
    assert_allclose(got["slogdet"], [*np.linalg.slogdet(A)] * 3, rtol=1e-10)
    for found, want in zip(got["inverse"], (np.linalg.inv(A), np.linalg.inv(A), np.eye(n)), strict=True):
        close(found, want)
    assert_allclose(got["stretch"][0], s, rtol=1e-8)
    assert_allclose(got["stretch"][1:], [s[0] / s[-1], n, 1], rtol=1e-8)
    assert J.structural_rank == n
    close(got["spaces"][0], np.zeros((n, 0)))
    close(got["spaces"][1], np.eye(n))


@EVERY_METHOD
def test_an_inverse_has_the_parts_of_the_jacobian(name):
    J = jacobian_of(name)
    count = J._layout.places.components[0]
    assert J.inverse().nnz <= sum(s * s for s in np.bincount(J._layout.places.components[1]))
    assert J.inverse()._layout.places.components[0] == count


def _derivatives(name, jacobian, solve, log_det):
    """Of two solves and a log-determinant: backwards in x and b, forwards in x."""
    f, n = SYSTEMS[name][:2]
    rng = np.random.default_rng(3)
    b, v, w = (jnp.asarray(rng.normal(size=n)) for _ in range(3))

    def numbers(x, b):
        J = jacobian(f)(x)
        return jnp.stack([w @ solve(J, b), v @ solve(J.T, b).reshape(-1), log_det(J)])

    def run(x):
        return jax.jacrev(numbers, (0, 1))(x, b), jax.jvp(lambda x: numbers(x, b), (x,), (v,))

    return jax.jit(run)(point(n))


@EVERY_SYSTEM
def test_derivatives(name):
    got = _derivatives(name, cr.jacobian, lambda J, b: J.factorize().solve(b), lambda J: J.slogdet()[1])
    want = _derivatives(name, by_jax, jnp.linalg.solve, lambda J: jnp.linalg.slogdet(J)[1])
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        close(a, b, 8)


@EVERY_METHOD
def test_second_derivatives(name):
    f, n = SYSTEMS[name][:2]
    b, v = (jnp.asarray(a) for a in np.random.default_rng(4).normal(size=(2, n)))

    def ours(x):
        J = cr.jacobian(f)(x)
        return v @ J.solve(b) + J.slogdet()[1]

    def dense(x):
        A = by_jax(f)(x)
        return v @ jnp.linalg.solve(A, b) + jnp.linalg.slogdet(A)[1]

    got, want = (jax.jit(lambda x, g=g: jax.jvp(jax.grad(g), (x,), (v,))[1])(point(n)) for g in (ours, dense))
    close(got, want, 7)


@pytest.mark.parametrize("name", ["permutation", "blocks", "unequal blocks", "permuted triangular", "block-triangular"])
def test_the_determinant_has_a_derivative_where_it_vanishes(name):
    f, n = SYSTEMS[name][:2]
    # the derivative of t + t²/10 vanishes at -5; JAX's derivative of a determinant wants that pivot to come last
    x = point(n).at[1].set({"permutation": -1.0, "block-triangular": -5.0 + 1e-10}.get(name, -5.0))
    got = jax.grad(lambda x: cr.jacobian(f)(x).det())(x)

    def det(t):
        return np.linalg.det(np.asarray(by_jax(f)(x.at[1].add(t))))

    assert abs(cr.jacobian(f)(x).det()) < 1e-9 * abs(det(1.0))
    assert_allclose(got[1], (det(0.5) - det(-0.5)), rtol=1e-8)  # a line, as only one column depends on x[1]
    assert np.abs(np.delete(got, 1)).max() < 1e-9 * abs(got[1])


@EVERY_METHOD
def test_a_batch(name):
    f, n = SYSTEMS[name][:2]
    points = jnp.stack([point(n), 1.1 * point(n), 0.9 * point(n)])
    B = jnp.asarray(np.random.default_rng(6).normal(size=(3, n)))
    A = np.stack([by_jax(f)(x) for x in points])
    want = np.stack([np.linalg.solve(a, b) for a, b in zip(A, np.asarray(B), strict=True)])
    J = jax.vmap(cr.jacobian(f))(points)
    close(J.solve(B), want)
    close(J.factorize().T.T.solve(B), want)
    close(jax.jit(jax.vmap(lambda x, b: cr.jacobian(f)(x).solve(b)))(points, B), want)
    assert_allclose(J.slogdet(), np.linalg.slogdet(A), rtol=1e-9)
    close(J.inverse().dense(), np.linalg.inv(A))


@EVERY_METHOD
def test_dtypes(name):
    f, n = SYSTEMS[name][:2]
    A, (b, _, c) = dense_of(name), right_hand_sides(n)
    J = cr.jacobian(f)(point(n, np.float32))
    assert J.dtype == np.float32
    for right, dtype in ((b.astype(np.float32), np.float32), (b, np.float64), (c, np.complex128)):
        x = J.solve(right)
        assert x.dtype == dtype
        close(x, np.linalg.solve(A, right), 3)
    assert J.factorize().solve(b).dtype == np.float64
    assert_allclose(J.slogdet(), np.linalg.slogdet(A), rtol=1e-4)
    assert J.slogdet()[1].dtype == np.float32
    x = jacobian_of(name).solve(b.astype(np.float32))
    assert x.dtype == np.float64
    close(x, np.linalg.solve(A, b.astype(np.float32)))


@jax.jit
def _complex(J, b, B, c):
    return (J.solve(b), J.solve(c)), J.T.factorize().solve(B), J.slogdet(), J.inverse().dense()


@EVERY_METHOD
def test_complex_entries(name):
    f, n = SYSTEMS[name][:2]
    z, (b, B, c) = jax.lax.complex(point(n), 0.3 * point(n)[::-1]), right_hand_sides(n)
    J, A = cr.jacobian(f, holomorphic=True)(z), np.asarray(by_jax(f, holomorphic=True)(z))
    assert J.dtype == np.complex128
    straight, transposed, slogdet, inverse = _complex(J, b, B, c)
    close(straight[0], np.linalg.solve(A, b), 9)
    close(straight[1], np.linalg.solve(A, c), 9)
    close(transposed, np.linalg.solve(A.T, B), 9)
    assert_allclose(slogdet, np.linalg.slogdet(A), rtol=1e-9)
    close(inverse, np.linalg.inv(A), 9)
    assert_allclose(J.det(), np.linalg.det(A), rtol=1e-8)


def test_a_pytree_comes_back_as_the_inputs_are():
    def f(x):
        return x["a"] + x["b"][0, 0], x["b"][0] ** 2

    x = {"a": jnp.array(1.5), "b": jnp.array([[1.0, 2.0]])}
    J, b = cr.jacobian(f)(x), (jnp.array(1.0), jnp.array([2.0, 3.0]))
    for solve in (J.solve, J.factorize().solve, J.lstsq, lambda b: J.inverse() @ b):
        got = solve(b)
        assert jax.tree.structure(got) == jax.tree.structure(x)
        assert_allclose(
            np.concatenate([got["a"][None], got["b"][0]]), np.linalg.solve(J.dense(), [1.0, 2.0, 3.0]), atol=1e-12
        )
    flat = J.solve(jnp.array([1.0, 2.0, 3.0]))
    assert flat.shape == (3,)


@pytest.mark.parametrize("n", [0, 1])
def test_hardly_any_unknowns(n):
    J, A = cr.jacobian(lambda x: x**2)(jnp.ones(n)), 2 * np.eye(n)
    assert J.solve(jnp.ones(n)).tolist() == [0.5] * n
    assert J.factorize().T.solve(jnp.ones(n)).tolist() == [0.5] * n
    assert J.det() == np.linalg.det(A)
    assert tuple(map(float, J.slogdet())) == pytest.approx(tuple(np.linalg.slogdet(A)))
    assert J.inverse().dense().shape == (n, n)
    assert J.rank() == n
    assert J.cond() == 1
    assert J.null_space().shape == (n, 0)
    assert J.lstsq(jnp.ones(n)).shape == (n,)
