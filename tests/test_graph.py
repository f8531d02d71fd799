"""Calculus on graphs, against scipy.sparse.csgraph and dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from scipy.sparse.csgraph import laplacian

import chainrule as cr
import chainrule.graph as graph


def random_graph(n, seed=0, density=0.2):
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.uniform(0.5, 2, (n, n)) * (rng.uniform(size=(n, n)) < density), 1)
    return upper + upper.T


def ring(n):
    own = np.arange(n)
    ones = np.ones(n)
    A = scipy.sparse.coo_array((ones, (own, (own + 1) % n)), shape=(n, n)).tocsr()
    return A + A.T


A = random_graph(20)
KINDS = {
    "dense": np.asarray,
    "csr": scipy.sparse.csr_array,
    "coo matrix": scipy.sparse.coo_matrix,
    "with loops": lambda A: A + np.diag(np.arange(20.0)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_adjacency_matrix(kind):
    own = KINDS[kind](A)
    L = laplacian(A)
    B = graph.incidence(own)
    assert B.shape == ((A > 0).sum() // 2, 20)
    np.testing.assert_allclose((B.T @ B).toarray(), L, atol=1e-13)
    np.testing.assert_allclose(graph.laplacian(own).toarray(), L, atol=1e-13)
    normed = graph.laplacian(own, normalized=True).toarray()
    np.testing.assert_allclose(normed, laplacian(A, normed=True), atol=1e-13)
    assert scipy.sparse.issparse(graph.laplacian(own))


def test_gradient_and_divergence_are_adjoint():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, 3))
    y = rng.normal(size=(graph.incidence(A).shape[0], 3))
    g, d = graph.gradient(A, x), graph.divergence(A, y)
    i, j = np.nonzero(np.triu(A))
    np.testing.assert_allclose(g, np.sqrt(A[i, j])[:, None] * (x[j] - x[i]))
    np.testing.assert_allclose((g * y).sum(), -(x * d).sum())
    np.testing.assert_allclose(graph.divergence(A, g), -laplacian(A) @ x, atol=1e-12)
    np.testing.assert_allclose(graph.gradient(A, x[:, 0]), g[:, 0])
    np.testing.assert_allclose(d.sum(0), 0, atol=1e-12)  # what flows out of one node flows into another


def test_the_hessian_of_the_energy_is_twice_the_laplacian_and_sparse():
    L, x = laplacian(A), np.random.default_rng(2).normal(size=20)
    E = graph.energy(A)
    np.testing.assert_allclose(E(x), x @ L @ x)
    H = cr.hessian(E)(jnp.asarray(x))
    np.testing.assert_allclose(H.dense(), 2 * L, atol=1e-13)
    assert H.nnz == np.count_nonzero(L)
    np.testing.assert_allclose(jax.grad(E)(jnp.asarray(x)), 2 * L @ x, atol=1e-12)
    np.testing.assert_allclose(graph.energy(-A)(x), -(x @ L @ x))
    both = jnp.stack([x, 2 * x], axis=1)
    np.testing.assert_allclose(jax.jit(E)(both), 5 * (x @ L @ x))
    assert jax.jit(E)(both.astype(jnp.float32)).dtype == jnp.float32
    n = 50_000
    assert cr.hessian(graph.energy(ring(n)))(jnp.zeros(n)).nnz == 3 * n


def test_fourier_basis():
    L = laplacian(A)
    frequencies, modes = graph.fourier_basis(A)
    np.testing.assert_allclose(frequencies, scipy.linalg.eigvalsh(L), atol=1e-12)
    np.testing.assert_allclose(modes @ np.diag(frequencies) @ modes.T, L, atol=1e-12)
    few, slow = graph.fourier_basis(A, 3, normalized=True)
    np.testing.assert_allclose(few, scipy.linalg.eigvalsh(laplacian(A, normed=True))[:3], atol=1e-12)
    assert slow.shape == (20, 3)


def test_a_few_modes_of_a_large_graph():
    n = 3000
    frequencies, modes = graph.fourier_basis(ring(n), 5)
    expected = 2 - 2 * np.cos(2 * np.pi * np.array([0, 1, 1, 2, 2]) / n)
    np.testing.assert_allclose(frequencies, expected, atol=1e-10)
    np.testing.assert_allclose(modes.T @ modes, np.eye(5), atol=1e-10)
    np.testing.assert_allclose(graph.laplacian(ring(n)) @ modes, modes * frequencies, atol=1e-9)


@pytest.mark.parametrize("normalized", [False, True])
def test_spectral_filters(normalized):
    L, x = laplacian(A, normed=normalized), np.random.default_rng(3).normal(size=(20, 2))
    heat = lambda s: np.exp(-0.5 * s)  # noqa: E731
    expected = scipy.linalg.expm(-0.5 * L) @ x
    np.testing.assert_allclose(graph.spectral_filter(A, x, heat, normalized=normalized), expected, atol=1e-12)
    for degree, error in ((5, 0.5), (40, 1e-11)):
        got = graph.spectral_filter(A, x, heat, degree=degree, normalized=normalized)
        np.testing.assert_allclose(got, expected, atol=error)
    square = graph.spectral_filter(A, x[:, 0], lambda s: s**2 + 1, degree=2, normalized=normalized)
    np.testing.assert_allclose(square, L @ L @ x[:, 0] + x[:, 0], atol=1e-10)
    for degree in (0, None):
        constant = graph.spectral_filter(A, x, lambda s: 3.0, degree=degree, normalized=normalized)
        np.testing.assert_allclose(constant, 3 * x, atol=1e-12)


def test_a_filter_of_a_large_graph_takes_no_basis():
    n = 100_000
    x = np.cos(2 * np.pi * np.arange(n) / 100)  # a mode of the ring
    frequency = 2 - 2 * np.cos(2 * np.pi / 100)
    got = graph.spectral_filter(ring(n), x, lambda s: 1 / (1 + s), degree=30)
    np.testing.assert_allclose(got, x / (1 + frequency), atol=1e-8)


def test_graphs_without_edges():
    none = np.zeros((3, 3))
    x = np.array([1.0, 2.0, 4.0])
    assert graph.incidence(none).shape == (0, 3) and graph.gradient(none, x).shape == (0,)
    assert graph.divergence(none, np.zeros(0)).tolist() == [0, 0, 0]
    assert float(graph.energy(none)(x)) == 0
    np.testing.assert_allclose(graph.spectral_filter(none, x, lambda s: s + 2), 2 * x)
    np.testing.assert_allclose(graph.spectral_filter(none, x, lambda s: s + 2, degree=3), 2 * x)


def test_refusals():
    for of in (graph.incidence, graph.laplacian, graph.fourier_basis, graph.energy):
        with pytest.raises(cr.ShapeError, match=rf"{of.__name__}: A has the shape \(2, 3\)"):
            of(np.ones((2, 3)))
        with pytest.raises(cr.InputTypeError, match=r"not symmetric; .* give"):
            of(np.triu(np.ones((3, 3))))
        with pytest.raises(cr.InputTypeError, match="real, finite weights"):
            of(1j * np.ones((3, 3)))
        with pytest.raises(cr.InputTypeError, match="real, finite weights"):
            of(np.full((3, 3), np.nan))
    for of in (graph.incidence, graph.fourier_basis):
        with pytest.raises(cr.InputTypeError, match="negative weight, -1"):
            of(np.eye(2) - np.ones((2, 2)))
    with pytest.raises(cr.ShapeError, match=r"gradient: a signal has a row for each node, \(20,\)"):
        graph.gradient(A, np.ones(3))
    with pytest.raises(cr.ShapeError, match="divergence: a signal has a row for each edge"):
        graph.divergence(A, np.ones(20))
    with pytest.raises(cr.InputTypeError, match=r"gradient: .*outside of jit"):
        jax.jit(lambda x: graph.gradient(np.ones((2, 2)), x))(np.ones(2))
    with pytest.raises(cr.ShapeError, match="energy: a signal has a row for each node"):
        graph.energy(A)(jnp.ones(3))
    for k in (0, 21, 1.5):
        with pytest.raises(cr.InputTypeError, match="no whole number from 1 to the 20 nodes"):
            graph.fourier_basis(A, k)
    with pytest.raises(cr.InputTypeError, match="degree=-1"):
        graph.spectral_filter(A, np.ones(20), np.exp, degree=-1)


def test_the_energy_of_whole_numbers_keeps_the_weights():
    E = graph.energy(np.array([[0, 0.5], [0.5, 0]]))
    assert E(jnp.array([0, 2])) == 2.0
    with pytest.raises(cr.InputTypeError, match="x is complex"):
        E(jnp.array([0, 1j]))
    with pytest.raises(cr.InputTypeError, match="no matrix of numbers"):
        graph.incidence([[0, 1], [1]])


def test_weights_that_are_not_finite_are_named():
    with pytest.raises(cr.InputTypeError, match=r"A holds \[nan\]; an adjacency matrix has real, finite weights"):
        graph.laplacian([[0, np.nan], [np.nan, 0]])
