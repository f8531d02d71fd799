"""Every method of `Jacobian` against NumPy on the dense matrix, assembled and matrix-free, one and a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 5))
FUNCTIONS = {
    "dense": lambda x: jnp.tanh(W @ x),
    "banded": lambda x: x[1:] * x[:-1],
    "diagonal": jnp.sin,
    "known values": lambda x: x[np.array([3, 1])] - x[0],
    "repeated places": lambda x: jnp.stack([x[0] * x[0] + x[0] * x[1], x[4]]),
    "scattered rows": lambda x: jnp.concatenate([(x**2).sum()[None], x[0] * x[1:]]),
    "zero": lambda x: jnp.ones(3),
    "scalar": jnp.prod,
}
X = jnp.asarray(RNG.normal(size=5))
close = np.testing.assert_allclose


@pytest.fixture(
    params=[(n, o) for n in FUNCTIONS for o in ("forward", "reverse", "linearize")], ids=lambda p: "-".join(p)
)
def pair(request):
    """A Jacobian, and the dense matrix that it stands for."""
    name, order = request.param
    f = FUNCTIONS[name]
    J = cr.linearize(f)(X) if order == "linearize" else cr.jacobian(f, order=order)(X)
    return J, np.asarray(jax.jacfwd(f)(X)).reshape(-1, 5)


def test_conversions(pair):
    J, D = pair
    assert J.shape == D.shape and J.dtype == jnp.float64
    close(J.dense(), D, atol=1e-14)
    close(J.T.dense(), D.T, atol=1e-14)
    close(J.T.T.dense(), D, atol=1e-14)
    close(J.tree().reshape(D.shape), D, atol=1e-14)
    close(J.bcoo().todense(), D, atol=1e-14)
    close(J.scipy().toarray(), D, atol=1e-14)
    for K in (J, J.T):
        rows, cols, values = K.coo()
        assert len(rows) == K.nnz == len(values)
        places = rows.astype(np.int64) * K.shape[1] + cols
        assert (np.diff(places) > 0).all()  # row-major, each once
    assert np.count_nonzero(D) <= J.nnz


def test_products(pair):
    J, D = pair
    m, n = D.shape
    v, w, V = RNG.normal(size=n), RNG.normal(size=m), RNG.normal(size=(n, 3))
    close(np.ravel(J @ v), D @ v, atol=1e-13)
    close(J.T @ w if m != 1 else J.T @ w[0], D.T @ w, atol=1e-13)
    close(J @ V, D @ V, atol=1e-13)
    close((J.T @ J).dense(), D.T @ D, atol=1e-13)
    close((J @ J.T).dense(), D @ D.T, atol=1e-13)


def test_arithmetic(pair):
    J, D = pair
    c = jnp.array(3.0)
    close((2.0 * J + J * c - J / 2).dense(), 4.5 * D, atol=1e-13)
    close((-J).dense(), -D, atol=1e-14)
    K = cr.jacobian(lambda x: jnp.tile(x[:1], D.shape[0]), order="reverse")(X)
    close((J + K).dense(), D + np.eye(1, 5), atol=1e-13)
    close((K.T - J.T).dense(), (np.eye(1, 5) - D).T, atol=1e-13)


def test_parts(pair):
    J, D = pair
    m, n = D.shape
    close([J[i, j] for i in range(m) for j in range(-n, 0)], D.ravel(), atol=1e-14)
    close(J[-1], D[-1], atol=1e-14)
    close(J[0, 1:3], D[0, 1:3], atol=1e-14)
    close(J[:, 1], D[:, 1], atol=1e-14)
    close(J[:1, ::2], D[:1, ::2], atol=1e-14)
    close(J.row(0), D[0], atol=1e-14)
    close(J.col(np.int64(4)), D[:, 4], atol=1e-14)
    close(J.diagonal(), np.diagonal(D), atol=1e-14)
    close((J.T @ J).trace(), np.trace(D.T @ D), atol=1e-13)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_a_batch_has_leading_axes_everywhere(name, transform):
    f, batch = FUNCTIONS[name], jnp.asarray(RNG.normal(size=(3, 5)))
    J = jax.vmap(transform(f))(batch)
    D = np.asarray(jax.vmap(jax.jacfwd(f))(batch)).reshape(3, -1, 5)
    assert "a batch" in repr(J) and J.shape == D.shape[1:]
    close(J.dense(), D, atol=1e-14)
    close(J.T.dense(), D.transpose(0, 2, 1), atol=1e-14)
    close((2.0 * J + J).dense(), 3 * D, atol=1e-13)
    close((J.T @ J).dense(), D.transpose(0, 2, 1) @ D, atol=1e-13)
    close((J @ batch).reshape(3, -1), np.einsum("bij,bj->bi", D, batch), atol=1e-13)
    close(J.row(0), D[:, 0], atol=1e-14)
    close(J[0, 1], D[:, 0, 1], atol=1e-14)
    close(J.diagonal(), np.diagonal(D, axis1=1, axis2=2), atol=1e-14)
    close(J.tree().reshape(D.shape), D, atol=1e-14)
    close(J.bcoo().todense(), D, atol=1e-14)
    with pytest.raises(cr.ShapeError, match="batch"):
        J.scipy()


def test_pytrees_in_and_out():
    def f(p):
        return {"sum": p["a"].sum() * p["b"], "pair": (p["b"] ** 2, p["a"][:2])}

    p = {"a": jnp.arange(3.0), "b": jnp.array([1.0, 2.0])}
    J = cr.jacobian(f)(p)
    v = jax.tree.map(jnp.ones_like, p)
    expected = jax.jvp(f, (p,), (v,))[1]
    jax.tree.map(lambda a, b: close(a, b, atol=1e-14), J @ v, expected)
    jax.tree.map(lambda a, b: close(a, b), J.T @ expected, jax.vjp(f, p)[1](expected)[0])
    assert J.in_shapes == ((3,), (2,)) and J.out_shapes == ((2,), (2,), (2,))
    assert J.in_tree == jax.tree.structure(p) and J.out_tree == jax.tree.structure(expected)


def test_differentiation_and_jit_through_methods():
    def f(x):
        J = cr.jacobian(FUNCTIONS["dense"])(x)
        return (J @ x).sum() + J.diagonal().sum() + (J.T @ J).trace() + J[0, 1]

    def g(x):
        D = jax.jacfwd(FUNCTIONS["dense"])(x)
        return (D @ x).sum() + jnp.diagonal(D).sum() + jnp.trace(D.T @ D) + D[0, 1]

    close(jax.grad(f)(X), jax.grad(g)(X))
    close(jax.jit(f)(X), g(X))
    with pytest.raises(cr.ChainruleError, match="traced"):
        jax.jit(lambda x: cr.jacobian(jnp.sin)(x).scipy())(X)


def test_refusals():
    J = cr.jacobian(FUNCTIONS["dense"])(X)
    with pytest.raises(cr.ShapeError, match=r"4×5.*takes inputs of shapes \[\(5,\)\], v has shapes \[\(4,\)\]"):
        J @ jnp.ones(4)
    with pytest.raises(cr.ShapeError, match=r"4×5.*5×4"):
        J + J.T
    with pytest.raises(cr.ShapeError, match="not square"):
        J.trace()
    with pytest.raises(cr.ShapeError, match="out of range for the 4 rows"):
        J[4, 0]
    with pytest.raises(cr.ShapeError, match="out of range for the 5 columns"):
        J.col(-6)
    with pytest.raises(cr.ShapeError, match="one number"):
        J * jnp.ones(3)
    with pytest.raises(TypeError):
        J + 1
    with pytest.raises(cr.MemoryLimitError, match=r"300000×300000 .* 671 GiB.*linearize"):
        cr.jacobian(jnp.sin)(jnp.ones(300_000)).dense()
    loop = cr.linearize(lambda x: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: 2 * c, x))(jnp.ones(3))
    close(loop @ jnp.ones(3), 4 * np.ones(3))
    with pytest.raises(cr.MissingRuleError, match="cannot transpose"):
        loop.T @ jnp.ones(3)


def test_repr_is_one_line_that_says_what_it_is():
    assert repr(cr.jacobian(jnp.sin)(X)) == "Jacobian 5×5 float64 · diagonal · forward, 5 multiply-adds"
    assert "matrix-free" in repr(cr.linearize(jnp.sin)(X))


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_pictures(transform):
    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    J = transform(jnp.sin)(X)
    assert J.spy_text().splitlines()[0].startswith("┌")
    assert "<svg" in J._repr_html_() and "5×5" in J._repr_html_()
    assert J.spy().get_xlabel() == "inputs (n = 5)"
    plt.close("all")
