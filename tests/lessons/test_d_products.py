"""Products without a matrix: sweeps, Hessians, gradients of matrices, attention."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from largest import largest_array

import chainrule as cr

RNG = np.random.default_rng(2)


def test_d1_one_sweep_each_way():
    calls = []

    def f(x):
        calls.append(1)
        return jnp.tanh(x[:3]) * x[1:]

    x, v, u = (jnp.asarray(RNG.normal(size=k)) for k in (4, 4, 3))
    J = jax.jacfwd(f)(x)
    calls.clear()
    np.testing.assert_allclose(cr.pushforward(f)(x, v), J @ v)
    assert len(calls) == 1
    np.testing.assert_allclose(cr.pullback(f)(x, u), u @ J)
    assert len(calls) == 2
    calls.clear()
    linear = cr.linearize(f)(x)
    assert len(calls) <= 2  # f is traced twice at most: to look for custom rules, and to linearize
    calls.clear()
    np.testing.assert_allclose(linear @ v, J @ v)
    np.testing.assert_allclose(linear.T @ u, u @ J)
    assert not calls  # the products run the linear program, not f


def test_d2_hessian_is_the_jacobian_of_the_gradient():
    def f(x):
        return jnp.sin(x).prod() + (x[1:] * x[:-1] ** 2).sum()

    x, v = jnp.asarray(RNG.normal(size=5)), jnp.asarray(RNG.normal(size=5))
    H = cr.hessian(f)(x)
    np.testing.assert_allclose(H.dense(), jax.hessian(f)(x), atol=1e-13)
    np.testing.assert_allclose(cr.jacobian(jax.grad(f))(x).dense(), H.dense(), atol=1e-13)
    np.testing.assert_allclose(H.dense(), H.T.dense(), atol=1e-13)
    np.testing.assert_allclose(cr.hvp(f)(x, v), H @ v, atol=1e-13)


def test_d2_hessian_vector_product_is_two_sweeps_without_the_hessian():
    calls = []

    def f(x):
        calls.append(1)
        return jnp.sin(x[1:] * x[:-1]).sum()

    n = 1000
    x, v = (jnp.asarray(RNG.normal(size=n)) for _ in range(2))
    expected = jax.jvp(jax.grad(f), (x,), (v,))[1]
    calls.clear()
    np.testing.assert_allclose(cr.hvp(f)(x, v), expected, rtol=1e-10, atol=1e-12)
    assert len(calls) == 1  # the sweep from the input runs over the sweep from the output of one trace
    assert largest_array(cr.hvp(f), x, v) <= n


def chained_rosenbrock(x):
    return jnp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


@pytest.mark.parametrize("method", ["cg", "direct"])
@pytest.mark.parametrize(("n", "most"), [(2, 40), (1000, 1500)])
def test_d3_newton_cg_on_rosenbrock(n, most, method):
    """H d = -∇f by conjugate gradients on Hv, and with the sparse H; from the classical start (-1.2, 1, -1.2, …)."""
    s = cr.newton_cg(chained_rosenbrock, jnp.tile(jnp.array([-1.2, 1.0]), n // 2), method=method, max_iterations=most)
    assert s.converged and len(s.history) == s.iterations + 1
    assert f"converged after {s.iterations} iterations" in str(s)
    np.testing.assert_allclose(jax.grad(chained_rosenbrock)(s.x), 0, atol=1e-7)
    np.testing.assert_allclose(s.x, 1, atol=1e-8)
    assert ("Hv" in s.history[0].direction) == (method == "cg")


def test_d3_direction_is_that_of_the_dense_hessian():
    x = jnp.asarray(RNG.uniform(0.9, 1.1, size=200))
    exact = jnp.linalg.solve(jax.hessian(chained_rosenbrock)(x), -jax.grad(chained_rosenbrock)(x))
    s = cr.newton_cg(chained_rosenbrock, x, max_iterations=1)
    assert s.history[0].fraction == 1 and "solve of H" in s.history[0].direction
    np.testing.assert_allclose(s.x - x, exact, rtol=1e-8, atol=1e-12)


def test_d4_gradient_of_a_matrix():
    W, x, y = (jnp.asarray(RNG.normal(size=s)) for s in ((3, 2), 2, 3))

    def loss(W):
        return ((W @ x - y) ** 2).sum()

    G = cr.gradient(loss)(W)
    assert G.shape == W.shape
    np.testing.assert_allclose(G, 2 * jnp.outer(W @ x - y, x))
    assert loss(W - 0.01 * G) < loss(W)


def test_d5_attention_pullback_by_pieces_and_without_the_softmax_jacobian():
    n, d = 64, 8
    Q, K, V, dO = (jnp.asarray(RNG.normal(size=(n, d))) for _ in range(4))

    def attention(Q, K, V):
        return jax.nn.softmax(Q @ K.T / np.sqrt(d), axis=-1) @ V

    pull = cr.pullback(attention, argnums=(0, 1, 2))
    dQ, dK, dV = pull(Q, K, V, dO)
    S = jax.nn.softmax(Q @ K.T / np.sqrt(d), axis=-1)
    dS = dO @ V.T
    dA = S * dS - S * (S * dS).sum(1, keepdims=True)  # row by row
    for got, expected in zip((dQ, dK, dV), (dA @ K / np.sqrt(d), dA.T @ Q / np.sqrt(d), S.T @ dO), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-12)
    expected = jax.grad(lambda *a: (attention(*a) * dO).sum(), argnums=(0, 1, 2))(Q, K, V)
    for got, wanted in zip((dQ, dK, dV), expected, strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    # nothing of n × n × n elements, let alone (n²)², is in the program
    assert largest_array(pull, Q, K, V, dO) <= n * n


def attention(Q, K, V):
    return jax.nn.softmax(Q @ K.T / np.sqrt(Q.shape[1]), axis=-1) @ V


def bytes_of(f, *args):
    """Bytes that the compiled program needs beside its inputs."""
    found = f.trace(*args).lower().compile().memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes


WAYS = {
    "pullback": lambda Q, K, V, dO: (cr.pullback(attention, argnums=(0, 1, 2)), Q, K, V, dO),
    "gradient": lambda Q, K, V, dO: (
        cr.gradient(lambda Q, K, V, dO: (attention(Q, K, V) * dO).sum(), argnums=(0, 1, 2)),
        *(Q, K, V, dO),
    ),
    "linearize": lambda Q, K, V, dO: (
        jax.jit(lambda Q, K, V, dO: cr.linearize(attention, argnums=(0, 1, 2))(Q, K, V).T @ dO),
        *(Q, K, V, dO),
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_d5_memory_of_the_whole_pullback_grows_with_the_square_of_the_length(way):
    used = []
    for n in (128, 256, 512, 1024):
        f, *given = WAYS[way](*(jnp.ones((n, 4)) for _ in range(4)))
        used.append(bytes_of(f, *given))
        assert used[-1] < 12 * n * n * 8  # a few arrays of scores
    for small, large in itertools.pairwise(used):
        assert large < 4.2 * small  # n³ would be 8 times as much


def test_d5_the_jacobian_of_softmax_is_a_diagonal_and_a_map_of_rank_one():
    z = jnp.asarray(RNG.normal(size=50))
    J, s = cr.jacobian(jax.nn.softmax, order="factored")(z), jax.nn.softmax(z)
    assert str(J.structure) == "diagonal + rank 1"
    np.testing.assert_allclose(J.dense(), jnp.diag(s) - jnp.outer(s, s), atol=1e-15)
    assert int(J.rank()) == 49
    np.testing.assert_allclose(abs(J.null_space()), np.full((50, 1), 50**-0.5), rtol=1e-12)  # the constants
    b = jnp.asarray(RNG.normal(size=50))
    with pytest.raises(cr.SingularError):
        J.solve(b)
    within = b - b.mean()  # solvable: the image is what adds up to 0
    x = J.lstsq(within)
    np.testing.assert_allclose(J @ x, within, atol=1e-12)
    np.testing.assert_allclose(x, within / s - (within / s).mean(), rtol=1e-10)
    np.testing.assert_allclose(J.lstsq(b), jnp.linalg.lstsq(J.dense(), b)[0], rtol=1e-10)
    assert float(J.det()) == pytest.approx(0, abs=1e-15)
    K = cr.jacobian(lambda z: z + jax.nn.softmax(z), order="factored")(z)
    np.testing.assert_allclose(K.det(), jnp.linalg.det(K.dense()), rtol=1e-12)  # by the determinant lemma
    np.testing.assert_allclose(K.slogdet()[1], jnp.linalg.slogdet(K.dense())[1], rtol=1e-12)


def test_d5_a_million_numbers_take_no_matrix():
    n = 1_000_000
    z = jnp.asarray(RNG.normal(size=n))
    J, s, v = cr.jacobian(jax.nn.softmax, order="factored")(z), jax.nn.softmax(z), jnp.sin(z)
    assert J.nnz == 3 * n
    np.testing.assert_allclose(J @ v, s * (v - s @ v), atol=1e-15)
    np.testing.assert_allclose(J.T @ v, J @ v, atol=1e-15)


def test_d5_softmax_is_solved_on_its_image_without_a_matrix():
    n = 100_000
    z = jnp.asarray(RNG.normal(size=n))
    J, s = cr.jacobian(jax.nn.softmax, order="factored")(z), jax.nn.softmax(z)
    b = jnp.sin(z) - jnp.sin(z).mean()
    np.testing.assert_allclose(J.lstsq(b), b / s - (b / s).mean(), rtol=1e-9, atol=1e-6)
    assert int(J.rank()) == n - 1 and J.null_space().shape == (n, 1)
    assert largest_array(lambda J, b: J.lstsq(b), J, b) < 20 * n
