"""Maps that are a sparse one and a few of rank one: found in the program, solved by parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

N = 64
WEIGHTS = np.random.default_rng(1).normal(size=(N, N)) / 8


def helmholtz(x):
    return jax.grad(lambda x: jnp.sum(x * jnp.log(x / (1 - 0.3 * x.sum() / N))))(x)


CASES = {
    "identity and softmax": (lambda x: x + jax.nn.softmax(x), "diagonal + rank 1"),
    "Helmholtz": (helmholtz, "diagonal + rank 2"),
    "layer norm": (lambda x: (x - x.mean()) / jnp.sqrt(x.var() + 1e-5) + x, "diagonal + rank 3"),
    "one narrow array behind another": (
        lambda x: jax.nn.softmax(jnp.sin(x) * x.sum()) + x * jnp.sum(x**2),
        "diagonal + rank 3",
    ),
    "beside a stencil": (lambda x: 4 * x - jnp.roll(x, 1) + jnp.sum(x**2), "sparse + rank 1"),
    # without the update the first row of the diagonal vanishes
    "a singular diagonal": (
        lambda x: x * jnp.sum(x) * (jnp.arange(N) > 0).astype(x.dtype) + jnp.ones(N) * jnp.sum(x**2),
        "diagonal + rank 2",
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    f, words = CASES[request.param]
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, N))
    return f, words, x, jax.jacfwd(f)(x)


def test_the_parts_are_found(case):
    f, words, x, dense = case
    J = cr.jacobian(f, order="factored")(x)
    (found,) = J.factors
    assert str(found.structure) == words
    np.testing.assert_allclose(J.dense(), dense, atol=1e-12)
    np.testing.assert_allclose(J.diagonal(), jnp.diag(dense), atol=1e-12)
    np.testing.assert_allclose(found.T.dense(), dense.T, atol=1e-12)
    np.testing.assert_allclose((2 * found + found).dense(), 3 * dense, atol=1e-12)
    np.testing.assert_allclose((found @ found).dense(), dense @ dense, atol=1e-11)
    A, U, V = found.parts
    assert found.nnz == A.nnz + U.size + V.size < N * N / 2
    np.testing.assert_allclose(A.dense() + U @ V, dense, atol=1e-12)


def test_solves_and_determinants(case):
    f, _, x, dense = case
    J = cr.jacobian(f, order="factored")(x)
    b = np.random.default_rng(2).normal(size=(N, 3))
    np.testing.assert_allclose(J.solve(b), np.linalg.solve(dense, b), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(J.T.solve(b[:, 0]), np.linalg.solve(dense.T, b[:, 0]), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(J.factorize().T.solve(b), np.linalg.solve(dense.T, b), rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(J.slogdet(), np.linalg.slogdet(dense), rtol=1e-10)
    np.testing.assert_allclose(J.inverse().dense(), np.linalg.inv(dense), rtol=1e-8, atol=1e-10)


def test_derivatives_and_batches(case):
    f, _, x, _ = case
    b = jnp.linspace(-1, 1, N)

    def ours(x):
        J = cr.jacobian(f, order="factored")(x)
        return jnp.sum(jnp.sin(J.solve(b))) + J.slogdet()[1]

    def plain(x):
        J = jax.jacfwd(f)(x)
        return jnp.sum(jnp.sin(jnp.linalg.solve(J, b))) + jnp.linalg.slogdet(J)[1]

    np.testing.assert_allclose(jax.jit(jax.grad(ours))(x), jax.grad(plain)(x), rtol=1e-8, atol=1e-9)
    several = jnp.stack([x, 0.9 * x])
    np.testing.assert_allclose(jax.vmap(ours)(several), [plain(x) for x in several], rtol=1e-9)


def test_many_inputs_take_no_matrix():
    n = 100_000
    x = jnp.linspace(-1, 1, n)
    J = cr.jacobian(lambda x: x + jax.nn.softmax(x), order="factored")(x)
    s = jax.nn.softmax(x)
    y = jnp.ones(n) / (1 + s)
    by_hand = y + s / (1 + s) * (s @ y) / (1 - s @ (s / (1 + s)))
    np.testing.assert_allclose(J.solve(jnp.ones(n)), by_hand, rtol=1e-12)
    assert J.nnz == 3 * n


def test_a_singular_map_is_refused():
    J = cr.jacobian(jax.nn.softmax, order="factored")(jnp.linspace(0, 1, N))
    with pytest.raises(cr.SingularError, match="singular to working precision"):
        J.solve(jnp.ones(N))


def test_rows_that_are_normalized_one_by_one_stay_blocks():
    J = cr.jacobian(lambda x: jax.nn.softmax(x, axis=-1), order="factored")(jnp.ones((40, 6)))
    assert str(J.factors[0].structure) == "block-diagonal (40 blocks 6×6)"


def test_a_layer_before_it_is_a_link_of_its_own_or_dense():
    f = lambda x: x + jax.nn.softmax(WEIGHTS @ x)  # noqa: E731
    x = jnp.linspace(-1, 1, N)
    np.testing.assert_allclose(cr.jacobian(f, order="factored")(x).dense(), jax.jacfwd(f)(x), atol=1e-12)
