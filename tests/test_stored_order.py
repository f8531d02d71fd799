"""What is ordered once for a pattern: SuperLU's columns, and the values of blocks that make up the entries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from numpy.testing import assert_allclose

import chainrule as cr
from chainrule._linalg.host import Sparse

RNG = np.random.default_rng(0)
N = 120
SYMMETRIC = np.abs(np.subtract.outer(np.arange(N), np.arange(N))) % 13 <= 1
PATTERNS = {
    "symmetric": SYMMETRIC,
    "symmetric, without a diagonal": SYMMETRIC & ~np.eye(N, dtype=bool),
    "unsymmetric": np.roll(np.eye(N, dtype=bool), 3, axis=0) | (RNG.random((N, N)) < 0.03),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_every_order_solves(name):
    mask = PATTERNS[name]
    rows, cols = np.nonzero(mask)
    method = Sparse(rows, cols, N)
    for seed in (1, 2):
        A = np.where(mask, np.random.default_rng(seed).normal(size=(N, N)), 0)
        b, factors = RNG.normal(size=(2, N)), method.factor(jnp.asarray(A[rows, cols]))
        assert_allclose(method.solve(factors, b, False), np.linalg.solve(A, b.T).T, rtol=1e-7, atol=1e-9)
        assert_allclose(method.solve(factors, b, True), np.linalg.solve(A.T, b.T).T, rtol=1e-7, atol=1e-9)
        sign, log = method.slogdet(jnp.asarray(A[rows, cols]))
        assert_allclose((sign, log), np.linalg.slogdet(A), rtol=1e-9)


def test_what_is_singular_whatever_its_values_has_no_order():
    rows, cols = np.array([0, 1, 2, 2]), np.array([0, 0, 1, 2])
    method = Sparse(rows, cols, 3)
    assert np.isnan(method.solve(method.factor(jnp.ones(4)), np.ones((1, 3)), False)).all()


@pytest.mark.parametrize("name", PATTERNS)
def test_the_columns_are_ordered_once(name, monkeypatch):
    asked, run = [], scipy.sparse.linalg.splu
    monkeypatch.setattr(
        scipy.sparse.linalg,
        "splu",
        lambda A, **options: (asked.append(options.get("permc_spec")), run(A, **options))[1],
    )
    rows, cols = np.nonzero(PATTERNS[name])
    method = Sparse(rows, cols, N)
    for seed in range(3):
        values = jnp.asarray(np.random.default_rng(seed).normal(size=len(rows)))
        method.solve(method.factor(values), np.ones((1, N)), False)
    assert asked == [None if name == "unsymmetric" else "MMD_AT_PLUS_A", *["NATURAL"] * 3]


def test_the_order_keeps_the_fill_low():
    k = 30
    line = scipy.sparse.diags_array([np.ones(k - 1), np.full(k, -4.0), np.ones(k - 1)], offsets=[-1, 0, 1])
    A = (scipy.sparse.kron(np.eye(k), line) + scipy.sparse.kron(line, np.eye(k))).tocsc()
    places = A.tocsr().tocoo()
    factor = Sparse(*places.coords, k * k)._factor(places.data)
    known = scipy.sparse.linalg.splu(A, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    assert factor.L.nnz + factor.U.nnz <= 1.02 * (known.L.nnz + known.U.nnz)


def lowered(f, *args):
    return jax.jit(f).lower(*args).as_text()


def laplacian(x):
    p = jnp.pad(x, 1)
    return p[2:] + p[:-2] - 2 * x + x**3


def test_the_entries_of_a_stencil_take_no_gather():
    x = RNG.normal(size=50)
    J = cr.jacobian(laplacian)(x)
    assert J.structure.parameters == (1, 1)
    assert_allclose(J.dense(), jax.jacfwd(laplacian)(x), atol=1e-14)
    rows, cols, values = J.coo()
    assert_allclose(values, np.asarray(jax.jacfwd(laplacian)(x))[rows, cols], atol=1e-14)
    assert "stablehlo.gather" not in lowered(lambda x: cr.jacobian(laplacian)(x).coo()[2], x)


def reactions(y):
    a, b, c = y[..., 0], y[..., 1], y[..., 2]
    return y - jnp.stack([b * c - a, a - b * b - b * c, b * b], axis=-1)


def test_of_values_that_share_a_place_only_the_further_ones_are_added():
    y = RNG.normal(size=(40, 3))
    J, want = cr.jacobian(reactions)(y), jax.jacfwd(reactions)(y).reshape(120, 120)
    rows, cols, values = J.coo()
    assert_allclose(values, np.asarray(want)[rows, cols], atol=1e-14)
    assert_allclose(J @ y.ravel(), want @ y.ravel(), atol=1e-12)
    assert_allclose(J.T @ y.ravel(), want.T @ y.ravel(), atol=1e-12)
    more = J._layout.pattern.more
    assert more is not None
    assert len(more[0]) < len(values) / 2


def test_a_diagonal_meets_dense_blocks_without_a_scatter():
    W, V = RNG.normal(size=(16, 32)), RNG.normal(size=(32, 16))

    def f(x):
        return 2 * x + jnp.tanh(x @ W) @ V

    x = RNG.normal(size=(512, 16))
    rows, cols, values = cr.jacobian(f)(x).coo()
    want = np.asarray(jax.vmap(jax.jacfwd(f))(x))
    assert_allclose(values, want[rows // 16, rows % 16, cols % 16], atol=1e-12)
    assert "stablehlo.scatter" not in lowered(lambda x: cr.jacobian(f)(x).coo()[2], x)
