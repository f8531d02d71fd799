"""Fields: what flows out, what turns, what is a gradient; the same on graphs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import laplacian

import chainrule as cr
import chainrule.graph as graph

RNG = np.random.default_rng(6)
W = RNG.normal(size=(3, 5, 3))
POINTS = jnp.asarray(RNG.normal(size=(6, 3)))


def wavy(k):
    """A scalar function of three numbers."""
    return lambda x: jnp.tanh(W[k] @ x).sum() * jnp.sin(x).prod() + (x[0] * x[1] - x[2]) ** 2


def test_e1_divergence_is_the_trace_and_curl_the_antisymmetric_part():
    f = lambda x: jnp.stack([wavy(k)(x) for k in range(3)])  # noqa: E731
    J = jax.vmap(jax.jacfwd(f))(POINTS)
    np.testing.assert_allclose(cr.divergence(f, batched=True)(POINTS), jnp.trace(J, axis1=1, axis2=2), atol=1e-12)
    curls, parts = cr.curl(f, batched=True)(POINTS), cr.antisymmetric_part(f, batched=True)(POINTS).dense()
    np.testing.assert_allclose(parts, (J - J.swapaxes(1, 2)) / 2, atol=1e-12)
    v = jnp.array([0.3, -1.0, 2.0])
    np.testing.assert_allclose(parts @ v, jnp.cross(curls, jnp.broadcast_to(v, curls.shape)) / 2, atol=1e-12)


def test_e1_the_rate_at_which_a_small_volume_grows_and_the_turning_of_a_wheel():
    f = lambda x: jnp.stack([x[0] ** 2 - x[1], x[0] + jnp.sin(x[1])])  # noqa: E731
    x, h = jnp.array([0.4, 0.7]), 1e-4
    moved = lambda x: x + h * f(x)  # noqa: E731
    volume = float(cr.jacobian_determinant(moved)(x))
    assert (volume - 1) / h == pytest.approx(float(cr.divergence(f)(x)), abs=1e-3)
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)  # the circulation around a small circle, by its area
    circle = np.stack([np.cos(angles), np.sin(angles)], 1)
    tangent = np.stack([-np.sin(angles), np.cos(angles)], 1)
    circulation = (jax.vmap(f)(x[None] + h * circle) * tangent).sum(1).mean() * 2 * np.pi * h
    assert float(circulation / (np.pi * h**2)) == pytest.approx(float(cr.curl(f)(x)), rel=1e-5)


def test_e1_the_curl_of_a_gradient_and_the_divergence_of_a_curl_are_zero():
    np.testing.assert_allclose(cr.curl(jax.grad(wavy(0)), batched=True)(POINTS), 0, atol=1e-11)
    curl = cr.curl(lambda x: jnp.stack([wavy(k)(x) for k in range(3)]))
    np.testing.assert_allclose(cr.divergence(curl, batched=True)(POINTS), 0, atol=1e-10)


A = np.triu(RNG.uniform(0.5, 2, (12, 12)) * (RNG.uniform(size=(12, 12)) < 0.4), 1)
A = A + A.T


def test_e5_the_energy_of_a_graph_and_its_hessian():
    L, x = laplacian(A), RNG.normal(size=12)
    np.testing.assert_allclose(graph.laplacian(A).toarray(), L, atol=1e-13)
    i, j = np.nonzero(np.triu(A))
    E = graph.energy(scipy.sparse.csr_array(A))
    np.testing.assert_allclose(E(x), (A[i, j] * (x[i] - x[j]) ** 2).sum())
    np.testing.assert_allclose(E(x), x @ L @ x)
    np.testing.assert_allclose(E(x), (graph.gradient(A, x) ** 2).sum())
    H = cr.hessian(E)(jnp.asarray(x))
    np.testing.assert_allclose(H.scipy().toarray(), 2 * L, atol=1e-13)
    assert H.nnz == np.count_nonzero(L) < 144


def test_e5_the_fourier_basis_diagonalizes_and_filters():
    L, x = laplacian(A), RNG.normal(size=12)
    frequencies, U = graph.fourier_basis(A)
    np.testing.assert_allclose(U.T @ U, np.eye(12), atol=1e-12)
    np.testing.assert_allclose(U.T @ L @ U, np.diag(frequencies), atol=1e-12)
    np.testing.assert_allclose(L @ U[:, 0], 0, atol=1e-12)  # constant on each connected part
    warm = graph.spectral_filter(A, x, lambda s: np.exp(-s))
    np.testing.assert_allclose(warm, scipy.linalg.expm(-L) @ x, atol=1e-12)
    assert float(graph.energy(A)(warm)) < float(graph.energy(A)(x))  # heat makes smooth
    low = graph.spectral_filter(A, x, lambda s: s <= frequencies[3])
    np.testing.assert_allclose(low, U[:, :4] @ U[:, :4].T @ x, atol=1e-12)


def stirred(x):  # by a stream function: (∂ψ/∂y, -∂ψ/∂x)
    slope = jax.grad(lambda x: jnp.sin(x[0]) * jnp.cos(x[1]))(x)
    return jnp.stack([slope[1], -slope[0]])


def newton(x):  # a force towards the origin, as of gravity
    return -x / jnp.linalg.norm(x) ** 3


def test_e6_what_is_incompressible_and_what_is_conservative():
    assert cr.is_incompressible(stirred, batched=True)(POINTS[:, :2]).all()
    assert not cr.is_conservative(stirred, batched=True)(POINTS[:, :2]).any()
    assert cr.is_conservative(newton, batched=True)(POINTS).all()
    assert cr.is_incompressible(newton, batched=True)(POINTS).all()  # away from the origin
    gradient = jax.grad(wavy(1))
    assert cr.is_conservative(gradient, batched=True)(POINTS).all()
    assert not cr.is_incompressible(gradient, batched=True)(POINTS).any()


def test_e6_a_potential_is_recovered():
    x0 = jnp.array([1.0, 1.0, 1.0])
    near = x0[None] + 0.3 * POINTS
    heights = cr.potential(newton, batched=True)(near, x0)
    expected = 1 / jnp.linalg.norm(near, axis=1) - 1 / jnp.linalg.norm(x0)
    np.testing.assert_allclose(heights, expected, rtol=1e-9, atol=1e-11)
    phi = cr.potential(jax.grad(wavy(2)))
    for x in POINTS[:2]:
        np.testing.assert_allclose(phi(x, x0), wavy(2)(x) - wavy(2)(x0), rtol=1e-9)
        np.testing.assert_allclose(jax.grad(phi)(x, x0), jax.grad(wavy(2))(x), rtol=1e-8, atol=1e-8)
    with pytest.raises(cr.NotConservativeError):
        cr.potential(stirred)(POINTS[0, :2], jnp.zeros(2))
