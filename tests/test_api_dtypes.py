"""Dtypes of the transforms: mixed, low precision, complex."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agreement import same

import chainrule as cr

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=5))


def test_mixed_float_dtypes():
    def f(a, b):
        return a.astype(jnp.float64) * b, (a * 2).astype(jnp.bfloat16)

    a, b = jnp.arange(3, dtype=jnp.float32), jnp.arange(1.0, 4.0)
    J = cr.jacobian(f, (0, 1))(a, b)
    assert J.dtype == jnp.float64
    np.testing.assert_allclose(J.dense()[:3], np.concatenate([np.diag(b), np.diag(a)], 1))
    half = cr.jacobian(jnp.sin)(jnp.ones(3, jnp.bfloat16))
    assert half.dtype == jnp.bfloat16 and half.dense().dtype == jnp.bfloat16


def test_mixed_dtypes_come_back_as_they_went_in():
    def f(a, b):
        return {"wide": a.astype(jnp.float64) * b, "half": (a * 2).astype(jnp.bfloat16)}

    a, b = jnp.arange(3, dtype=jnp.float32), jnp.arange(1.0, 4.0)
    w = f(a, b)
    with jax.numpy_dtype_promotion("standard"):
        tree, push = jax.jacobian(f, (0, 1))(a, b), jax.jvp(f, (a, b), (a, b))[1]
        pull = jax.vjp(f, a, b)[1](w)
    for J in (*(cr.jacobian(f, (0, 1), order=o)(a, b) for o in ("forward", "reverse")), cr.linearize(f, (0, 1))(a, b)):
        same(J.tree(), tree)
        same(J @ (a, b), push)
        same(J.T @ w, pull)
    same(cr.pushforward(f, (0, 1))(a, b, (a, b)), push)
    same(cr.pullback(f, (0, 1))(a, b, w), pull)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_low_precision_stays_low(dtype):
    x = X.astype(dtype)
    for J in (cr.jacobian(jnp.sin)(x), cr.linearize(jnp.sin)(x)):
        for K in (J, J.T, 2.0 * J, J / 2, J + J, J.T @ J):
            assert K.dtype == K.dense().dtype == K.coo()[2].dtype == dtype
        assert (J @ x).dtype == dtype
    assert cr.hessian(lambda x: (x**3).sum())(x).dtype == dtype


HOLOMORPHIC = {
    "auto": lambda f: cr.jacobian(f, holomorphic=True),
    "forward": lambda f: cr.jacobian(f, holomorphic=True, order="forward"),
    "reverse": lambda f: cr.jacobian(f, holomorphic=True, order="reverse"),
    "linearize": lambda f: cr.linearize(f, holomorphic=True),
}


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_holomorphic_functions(name):
    def f(z):
        return {"a": jnp.sin(z[1:]) * z[0], "b": jnp.exp(z).sum()}

    z = jax.lax.complex(X[:3], X[2:])
    J = HOLOMORPHIC[name](f)(z)
    D = J.dense()
    same(J.tree(), jax.jacobian(f, holomorphic=True)(z))
    same(J.T.dense(), D.T)
    same(J @ z, {"a": D[:2] @ z, "b": D[2] @ z})
    same(J.T @ f(z), D.T @ jnp.stack([*f(z)["a"], f(z)["b"]]))
    same(jax.vmap(lambda z: HOLOMORPHIC[name](f)(z).dense())(jnp.stack([z, 2 * z]))[0], D)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_complex_outputs_of_real_inputs(transform):
    J, D = transform(jnp.fft.fft)(X), jax.jacfwd(jnp.fft.fft)(X)
    same(J @ X, jnp.fft.fft(X))
    same(J.T.dense(), D.T)
    same((J.T @ J).dense(), D.T @ D)


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_real_outputs_beside_complex_ones_stay_real(transform):
    def f(x):
        return {"real": x**2, "complex": jnp.fft.fft(x)}

    same(transform(f)(X).tree(), jax.jacfwd(f)(X))


def test_products_with_complex_inputs_follow_jax():
    def energy(z):
        return (jnp.abs(z) ** 2).sum()

    z = jax.lax.complex(X, X[::-1])
    same(cr.pushforward(jnp.abs)(z, z), jax.jvp(jnp.abs, (z,), (z,))[1])
    same(cr.pullback(jnp.abs)(z, X), jax.vjp(jnp.abs, z)[1](X)[0])
    same(cr.hvp(energy)(z, z), jax.jvp(jax.grad(energy), (z,), (z,))[1])
    with pytest.raises(cr.InputTypeError, match=r"hessian of energy.*complex128.*separate real inputs"):
        cr.hessian(energy)(z)


def test_complex_where_the_convention_is_clear():
    z = jnp.asarray(RNG.normal(size=3) + 1j * RNG.normal(size=3))
    same(
        cr.jacobian(lambda z: z**2 * z[0], holomorphic=True)(z).tree(),
        jax.jacobian(lambda z: z**2 * z[0], holomorphic=True)(z),
    )
    same(cr.jacobian(jnp.fft.fft)(X).tree(), jax.jacfwd(jnp.fft.fft)(X))
    same(cr.gradient(lambda z: (jnp.abs(z) ** 2).sum())(z), jax.grad(lambda z: (jnp.abs(z) ** 2).sum())(z))
    with pytest.raises(cr.InputTypeError, match=r"complex128.*holomorphic=True.*separate real inputs"):
        cr.jacobian(jnp.abs)(z)
    with pytest.raises(cr.InputTypeError, match=r"holomorphic=True needs complex inputs, got float64 of shape \(5,\)"):
        cr.jacobian(jnp.sin, holomorphic=True)(X)
    with pytest.raises(cr.InputTypeError, match="order='forward'"):
        cr.jacobian(jnp.fft.fft, order="reverse")(X)
