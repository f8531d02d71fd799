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


@pytest.mark.parametrize("n", [N, 10_000])
def test_a_singular_map_is_refused(n):
    x = jnp.linspace(0, 1, n)
    J = cr.jacobian(jax.nn.softmax, order="factored")(x)
    for b in (jnp.ones(n), x - x.mean()):  # not in the image, and in it
        with pytest.raises(cr.SingularError, match="singular to working precision"):
            J.solve(b)
    assert bool(jnp.isnan(jax.jit(lambda J, b: J.T.solve(b))(J, x)).all())


SINGULAR = {
    "softmax": (jax.nn.softmax, 1),
    "centred": (lambda x: x - x.mean(), 1),
    "normalized": (lambda x: (x - x.mean()) / jnp.sqrt(x.var()), 2),
    "a projection, not orthogonal": (
        lambda x: x - jnp.linspace(1, 2, N) * (x @ SINE) / WEIGHT,
        1,
    ),
    "beside a stencil": (lambda x: 4 * x - jnp.roll(x, 1) - jnp.roll(x, 2) - 2 * x.mean(), 1),
    "regular": (lambda x: x + jax.nn.softmax(x), 0),
    # rows and columns of zeros beside it: numbers that are too small for a float
    "underflow": (lambda x: jax.nn.softmax(jnp.where(jnp.arange(N) < 5, -1e4, x)), 6),
}
SINE = np.sin(np.arange(1.0 * N))
WEIGHT = float(np.linspace(1, 2, N) @ SINE)


@pytest.fixture(params=SINGULAR)
def singular(request):
    f, lost = SINGULAR[request.param]
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, N))
    return f, lost, x, jax.jacfwd(f)(x)


def test_the_shortest_solution_the_rank_and_the_kernel(singular):
    f, nullity, x, dense = singular
    J = cr.jacobian(f, order="factored")(x)
    assert nullity == N - np.linalg.matrix_rank(dense)
    assert int(J.rank()) == int(jax.jit(lambda J: J.rank())(J)) == N - nullity
    assert bool(J.is_invertible()) == (nullity == 0)
    kernel = J.null_space()
    assert kernel.shape == (N, nullity)
    np.testing.assert_allclose(kernel.T @ kernel, jnp.eye(nullity), atol=1e-12)
    np.testing.assert_allclose(dense @ kernel, 0, atol=1e-13)
    b = np.random.default_rng(2).normal(size=(N, 3))
    for K, A in ((J, dense), (J.T, dense.T)):
        expected = jnp.linalg.lstsq(A, b)[0]
        np.testing.assert_allclose(K.lstsq(b), expected, rtol=1e-8, atol=1e-9 * abs(expected).max())
    hadamard = float(jnp.linalg.norm(dense, axis=1).prod())  # no determinant is larger
    np.testing.assert_allclose(J.det(), jnp.linalg.det(dense), rtol=1e-9, atol=1e-12 * hadamard)


def test_derivatives_of_the_shortest_solution():
    """Of the first and the second order, in J and in b, where the rank stays; against finite differences of NumPy."""
    b = np.random.default_rng(4).normal(size=N)
    x, v = (jnp.asarray(np.random.default_rng(k).uniform(0.1, 0.9, N)) for k in (0, 1))

    def f(x):
        return jax.nn.softmax(x) * jnp.linspace(1, 2, N)

    def ours(x):
        return jnp.sin(cr.jacobian(f, order="factored")(x).lstsq(b * x) / 100).sum()

    def plain(x):
        return float(np.sin(np.linalg.pinv(np.asarray(jax.jacfwd(f)(x)), rcond=1e-12) @ (b * x) / 100).sum())

    h = 1e-5
    slope = (plain(x + h * v) - plain(x - h * v)) / (2 * h)
    np.testing.assert_allclose(ours(x), plain(x), rtol=1e-9)
    gradient = jax.jit(jax.grad(ours))
    np.testing.assert_allclose(gradient(x) @ v, slope, rtol=1e-6)
    slope, second = jax.jit(lambda x: jax.jvp(lambda x: (ours(x), jax.grad(ours)(x)), (x,), (v,))[1])(x)
    np.testing.assert_allclose(slope, gradient(x) @ v, rtol=1e-10)
    bent = (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
    np.testing.assert_allclose(second, bent, rtol=1e-5, atol=1e-6)


def test_batches_of_shortest_solutions_and_ranks():
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (3, N)))
    J = jax.vmap(cr.jacobian(jax.nn.softmax, order="factored"))(x)
    b = jnp.asarray(np.random.default_rng(1).normal(size=(3, N)))
    expected = [jnp.linalg.lstsq(jax.jacfwd(jax.nn.softmax)(x), b)[0] for x, b in zip(x, b, strict=True)]
    np.testing.assert_allclose(J.lstsq(b), expected, rtol=1e-8, atol=1e-8)
    assert J.rank().tolist() == [N - 1] * 3 and J.null_space().shape == (3, N, 1)


def test_an_update_of_a_singular_map_by_its_singular_values():
    f, x = CASES["a singular diagonal"][0], jnp.linspace(0.1, 0.9, N)
    J, dense = cr.jacobian(f, order="factored")(x), jax.jacfwd(f)(x)
    b = jnp.sin(jnp.arange(1.0 * N))
    for run in (lambda J: J.lstsq(b), jax.jit(lambda J: J.lstsq(b))):
        np.testing.assert_allclose(run(J), jnp.linalg.lstsq(dense, b)[0], rtol=1e-9)
    relu = cr.jacobian(lambda x: jax.nn.relu(x - 0.5) - x.mean(), order="factored")(x)
    assert int(relu.rank()) == np.linalg.matrix_rank(relu.dense())
    np.testing.assert_allclose(relu.lstsq(b), jnp.linalg.lstsq(relu.dense(), b)[0], rtol=1e-9, atol=1e-12)


def test_rows_that_are_normalized_one_by_one_stay_blocks():
    J = cr.jacobian(lambda x: jax.nn.softmax(x, axis=-1), order="factored")(jnp.ones((40, 6)))
    assert str(J.factors[0].structure) == "block-diagonal (40 blocks 6×6)"


def test_a_layer_before_it_is_a_link_of_its_own_or_dense():
    f = lambda x: x + jax.nn.softmax(WEIGHTS @ x)  # noqa: E731
    x = jnp.linspace(-1, 1, N)
    np.testing.assert_allclose(cr.jacobian(f, order="factored")(x).dense(), jax.jacfwd(f)(x), atol=1e-12)
