"""Whole programs against `jax.jacfwd` in float64, in every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

RNG = np.random.default_rng(0)
W = RNG.normal(size=(4, 5))
K = RNG.normal(size=(3, 2, 3, 3))


@jax.custom_jvp
def doubled_rule(x):
    return x**2


doubled_rule.defjvp(lambda p, t: (p[0] ** 2, 4 * p[0] * t[0]))


def attention(x):
    q = x.reshape(3, 2)
    return jax.nn.softmax(q @ q.T) @ q


PROGRAMS = {
    "A1": (lambda x: jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]]), 2),
    "mlp": (lambda x: jnp.tanh(W @ jnp.sin(x)), 5),
    "softmax": (lambda x: jax.nn.softmax(x.reshape(2, 3), -1), 6),
    "roll": (lambda x: jnp.roll(x, 1) * x + jnp.roll(x, -1), 6),
    "gather": (lambda x: x[jnp.array([0, -1, 2, 2])] * x[jnp.array([1, 1, 1, 1])], 6),
    "scatter": (lambda x: jnp.zeros(4).at[jnp.array([0, 1, 1, 5])].add(x[:4] ** 2), 6),
    "cumsum": (lambda x: jnp.cumsum(x**2), 6),
    "conv": (lambda x: jnp.tanh(jax.lax.conv_general_dilated(x.reshape(1, 2, 3, 3), K, (1, 1), "SAME")), 18),
    "solve": (lambda x: jnp.linalg.solve(jnp.outer(x, x) + jnp.eye(3), x), 3),
    "scan": (lambda x: jax.lax.scan(lambda c, a: (jnp.sin(c * a), c), x[0], x)[1], 5),
    "while": (lambda x: jax.lax.while_loop(lambda c: c.sum() < 10, lambda c: c * 2, jnp.abs(x)), 3),
    "cond": (lambda x: jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), 3),
    "tril": (lambda x: jnp.tril(W[:, :4]) @ x, 4),
    "remat": (jax.checkpoint(lambda x: jnp.sin(jnp.sin(x))), 4),
    "attention": (attention, 6),
    "arrowhead": (lambda x: jnp.concatenate([x.sum()[None], x[0] * x[1:]]), 6),
    "fft": (lambda x: jnp.abs(jnp.fft.fft(x)) ** 2, 6),
    "cholesky": (lambda x: jnp.linalg.cholesky(jnp.outer(x, x) + 3 * jnp.eye(3)), 3),
    "sort": (lambda x: jnp.sort(x) * x, 5),
    "straight_through": (lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x), 5),
    "custom_jvp": (doubled_rule, 5),
    "pad": (lambda x: jnp.pad(x, (1, 2))[::2] * 2, 5),
    "max_pool": (lambda x: jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "VALID"), 5),
    "logsumexp": (jax.nn.logsumexp, 5),
    "constant": (lambda x: jnp.ones(3), 5),
    "where": (lambda x: jnp.where(jnp.arange(5) > 2, x, x**2), 5),
    "dynamic_slice": (lambda x: jax.lax.dynamic_slice(x, (jnp.argmax(x),), (2,)) * x[0], 5),
    "prod": (jnp.prod, 5),
    "einsum": (lambda x: jnp.einsum("ij,jk->ik", x.reshape(2, 3), x.reshape(3, 2)), 6),
    "unstack": (lambda x: jnp.stack([a * b for a, b in zip(x[1:], x[:-1], strict=True)]), 5),
}


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program_agrees_with_jacfwd(name, order):
    f, n = PROGRAMS[name]
    if name == "while" and order == "reverse":
        with pytest.raises(cr.MissingRuleError, match="while"):
            cr.jacobian(f, order=order)(jnp.ones(n))
        return
    x = jnp.asarray(np.random.default_rng(1).normal(size=n))
    expected = np.asarray(jax.jacfwd(lambda x: f(x))(x)).reshape(-1, n)
    np.testing.assert_allclose(cr.jacobian(f, order=order)(x).dense(), expected, atol=1e-12)


def test_stencil_stays_sparse():
    J = cr.jacobian(lambda x: jnp.stack([jnp.roll(x, 1) + x**2, jnp.roll(x, -1)]))(jnp.ones(1000))
    assert J.shape == (2000, 1000) and J.nnz == 3000


def test_masked_weights_are_seen_to_be_triangular():
    J = cr.jacobian(lambda x, w: jnp.tril(w) @ x)(jnp.ones(4), jnp.asarray(RNG.normal(size=(4, 4))))
    assert J.nnz == 10


def test_custom_vjp_is_taken_from_the_output():
    @jax.custom_vjp
    def f(x):
        return x**2

    f.defvjp(lambda x: (x**2, x), lambda x, g: (3 * g * x,))
    x = jnp.array([1.0, 2.0])
    np.testing.assert_allclose(cr.jacobian(f)(x).dense(), jax.jacrev(f)(x))


def test_transforms_compose():
    f, _ = PROGRAMS["mlp"]
    x = jnp.asarray(RNG.normal(size=(3, 5)))
    batch = jax.vmap(lambda a: cr.jacobian(f)(a).dense())(x)
    np.testing.assert_allclose(batch, jax.vmap(jax.jacfwd(f))(x), atol=1e-12)
    twice = cr.jacobian(lambda a: cr.jacobian(f)(a).dense())(x[0]).tree()
    np.testing.assert_allclose(twice, jax.jacfwd(jax.jacfwd(f))(x[0]), atol=1e-12)


def test_pytrees_and_argnums():
    def f(p, s):
        return {"a": p["w"] * s, "b": (p["w"].sum() * p["v"],)}

    p = {"w": jnp.arange(3.0), "v": jnp.array(2.0)}
    ours = cr.jacobian(f, argnums=(0, 1))(p, jnp.array(3.0)).tree()
    theirs = jax.jacrev(f, argnums=(0, 1))(p, jnp.array(3.0))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(np.testing.assert_allclose, ours, theirs)


def test_refusals_name_the_way_out():
    with pytest.raises(cr.InputTypeError, match="floating point, got int"):
        cr.jacobian(jnp.sin)(jnp.arange(3))
    g, f = cr.jacobian(lambda u: u * 2)(jnp.ones(3)), cr.jacobian(lambda x: x)(jnp.ones(2))
    with pytest.raises(cr.ShapeError, match="takes 3 inputs"):
        g @ f


def test_hessian_and_products():
    def rosenbrock(x):
        return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()

    x = jnp.asarray(RNG.normal(size=20))
    H = cr.hessian(rosenbrock)(x)
    assert H.nnz == 58
    np.testing.assert_allclose(H.dense(), jax.hessian(rosenbrock)(x), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(H @ x, cr.hvp(rosenbrock)(x, x), rtol=1e-10)
