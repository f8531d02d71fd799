"""The chain rule: composition is a product of Jacobians, in the right order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

RNG = np.random.default_rng(1)
NET = [RNG.normal(size=s) for s in ((5, 4), (6, 5), (3, 6))]


def both_ways(g, f, x):
    """The Jacobian of g∘f, composed first and multiplied after; they must agree."""
    composed = cr.jacobian(lambda x: g(f(x)))(x).dense()
    np.testing.assert_allclose((cr.jacobian(g)(f(x)) @ cr.jacobian(f)(x)).dense(), composed, rtol=1e-12, atol=1e-12)
    return np.asarray(composed)


PAIRS = [
    (jnp.sin, jnp.cumsum),
    (lambda u: u[::-1] * u, lambda x: jnp.concatenate([x, x**2])),
    (lambda u: u.sum(), jnp.tanh),
    (lambda u: jnp.outer(u, u).ravel(), lambda x: x[:2]),
]


@pytest.mark.parametrize(("g", "f"), PAIRS)
def test_b1_compose_then_differentiate_is_multiply(g, f):
    both_ways(g, f, jnp.asarray(RNG.normal(size=4)))


def test_b2_gradient_is_orthogonal_to_the_level_set():
    def circle(t):
        return jnp.stack([jnp.cos(t), jnp.sin(t)])

    def f(x):
        return (x**2).sum()

    for t in RNG.normal(size=3):
        rate = cr.jacobian(f)(circle(t)) @ cr.jacobian(circle)(jnp.asarray(t))
        np.testing.assert_allclose(rate.dense(), [[0.0]], atol=1e-16)


def test_b3_sum_over_paths_multiply_along_edges():
    def g(x):
        return jnp.stack([x[0] * x[1], x[1] + x[2] ** 2])

    def f(u):
        return jnp.stack([u[0] + u[1], u[0] * u[1]])

    x = jnp.asarray(RNG.normal(size=3))
    Jf, Jg = cr.jacobian(f)(g(x)), cr.jacobian(g)(x)
    H = both_ways(f, g, x)
    for i in range(2):
        for j in range(3):
            paths = [Jf[i, k] * Jg[k, j] for k in range(2)]
            np.testing.assert_allclose(H[i, j], sum(paths), atol=1e-14)
    assert Jg[0, 2] == 0  # the path through u₁ meets a zero
    np.testing.assert_allclose(H[1, 2], 2 * x[2] * x[0] * x[1])


def test_b4_scalar_cases():
    x = jnp.asarray(0.7)
    np.testing.assert_allclose(both_ways(jnp.sin, jnp.square, x), [[2 * x * jnp.cos(x**2)]])
    np.testing.assert_allclose(both_ways(jnp.square, lambda x: 3 * x + 1, x), [[18 * x + 6]])
    np.testing.assert_allclose(both_ways(jnp.sum, lambda x: jnp.stack([x, x**2]), x), [[1 + 2 * x]])
    np.testing.assert_allclose(both_ways(jnp.sum, jnp.square, jnp.array([1.0, 3.0])), [[2.0, 6.0]])


def test_b5_gradient_of_a_composition():
    def g(x):
        return jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]])

    def f(u):
        return u[0] + u[1] ** 2

    a, b = x = jnp.asarray(RNG.normal(size=2))
    np.testing.assert_allclose(both_ways(f, g, x), [[2 * a + 2 * a * b**2, 1 + 2 * a**2 * b]])
    np.testing.assert_array_equal(both_ways(f, g, jnp.array([1.0, 2.0])), [[10.0, 5.0]])


def test_b6_push_and_pull_are_dual():
    def g(x):
        return jnp.stack([x[0] + 2 * x[1], x[0] - x[1]])

    def f(u):
        return u[0] ** 2 + 3 * u[1]

    x, dx = jnp.ones(2), jnp.array([0.01, -0.02])
    np.testing.assert_array_equal(g(x), [3, 0])
    assert f(g(x)) == 9
    du = cr.pushforward(g)(x, dx)
    np.testing.assert_allclose(du, [-0.03, 0.03])
    dl = cr.pushforward(f)(g(x), du)
    np.testing.assert_allclose(dl, -0.09)
    gradient = cr.pullback(g)(x, cr.pullback(f)(g(x), jnp.ones(())))
    np.testing.assert_allclose(gradient, [9, 9])
    np.testing.assert_allclose(gradient @ dx, dl)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_b7_three_layers_and_their_transposes_in_the_opposite_order(transform):
    g, f, r = (lambda x, W=W: jnp.tanh(W @ x) for W in NET)
    x = jnp.asarray(RNG.normal(size=4))
    Jg, Jf, Jr = transform(g)(x), transform(f)(g(x)), transform(r)(f(g(x)))
    J = cr.jacobian(lambda x: r(f(g(x))))(x)
    np.testing.assert_allclose((Jr @ Jf @ Jg).dense(), J.dense(), atol=1e-13)
    w = RNG.normal(size=3)
    np.testing.assert_allclose(Jg.T @ (Jf.T @ (Jr.T @ w)), J.T @ w, atol=1e-13)
    np.testing.assert_allclose((Jg.T @ Jf.T @ Jr.T).dense(), J.T.dense(), atol=1e-13)


def test_b8_the_edges_of_a_small_network():
    W, b, c = RNG.normal(size=(3, 2)), RNG.normal(size=3), RNG.normal(size=3)
    x = jnp.asarray(RNG.normal(size=2))
    a = W @ x + b
    edges = [
        (cr.jacobian(lambda x: W @ x + b)(x), (3, 2), W),
        (cr.jacobian(jax.nn.sigmoid)(a), (3, 3), np.diag(jax.vmap(jax.grad(jax.nn.sigmoid))(a))),
        (cr.jacobian(lambda h: c @ h)(jax.nn.sigmoid(a)), (1, 3), c[None]),
    ]
    for J, shape, expected in edges:
        assert J.shape == shape
        np.testing.assert_allclose(J.dense(), expected)
    assert [str(J.structure) for J, *_ in edges] == ["dense", "diagonal", "dense"]
    gradient = cr.gradient(lambda x: c @ jax.nn.sigmoid(W @ x + b))(x)
    np.testing.assert_allclose(gradient, W.T @ edges[1][2] @ c)
    np.testing.assert_allclose((edges[2][0] @ edges[1][0] @ edges[0][0]).row(0), gradient)


def test_b9_two_layers_with_and_without_activation():
    W1, W2, _ = NET
    x = jnp.asarray(RNG.normal(size=4))
    np.testing.assert_allclose(cr.jacobian(lambda x: W2 @ (W1 @ x))(x).dense(), W2 @ W1)
    slope = np.diag(1 - np.tanh(W1 @ x) ** 2)
    np.testing.assert_allclose(cr.jacobian(lambda x: W2 @ jnp.tanh(W1 @ x))(x).dense(), W2 @ slope @ W1)


def test_b10_the_order_of_the_product_cannot_be_reversed():
    W1, W2, _ = NET
    x = jnp.zeros(4)
    inner, outer = cr.jacobian(lambda x: W1 @ x)(x), cr.jacobian(lambda u: W2 @ u)(W1 @ x)
    assert (outer @ inner).shape == (6, 4)
    with pytest.raises(cr.ShapeError, match="cannot compose"):
        inner @ outer
