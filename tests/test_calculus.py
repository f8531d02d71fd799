"""Vector calculus on fields of every kind, against dense Jacobians and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import chainrule as cr

RNG = np.random.default_rng(11)
MIXING = RNG.normal(size=(8, 8))
A3, B3 = RNG.normal(size=(8, 3)), RNG.normal(size=(3, 8))


def point(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=n))


def stencil(x):
    return (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1)) * x


FIELDS = {
    "elementwise": (lambda x: jnp.sin(x) * x, 5),
    "network": (lambda x: jnp.tanh(MIXING @ jnp.tanh(MIXING @ x)), 8),
    "stencil": (stencil, 7),
    "reversed": (lambda x: x[::-1] ** 2, 6),
    "masked": (lambda x: jnp.where(jnp.arange(6) > 2, x**3, x.sum()), 6),
    "gathered": (lambda x: x[jnp.array([1, 0, 2, 2])] * x, 4),
    "linear in no input": (lambda x: jnp.ones(3), 3),
    "one number": (lambda x: x**3, 1),
    "shifted": (lambda x: jnp.concatenate([x[1:] ** 2, jnp.zeros(1)]), 5),
    "a custom_vjp": (lambda x: only_backwards(x) * x, 4),
    "of three": (lambda x: jnp.tanh(B3 @ jnp.sin(A3 @ x)), 3),
}


@jax.custom_vjp
def only_backwards(x):
    return jnp.sin(x).sum()


only_backwards.defvjp(lambda x: (jnp.sin(x).sum(), x), lambda x, w: (w * jnp.cos(x),))


@pytest.fixture(params=FIELDS)
def field(request):
    f, n = FIELDS[request.param]
    x = point(n)
    return f, x, jax.jacrev(f)(x)


def test_against_the_dense_jacobian(field):
    f, x, J = field
    np.testing.assert_allclose(cr.divergence(f)(x), jnp.trace(J), atol=1e-12)
    np.testing.assert_allclose(cr.antisymmetric_part(f)(x).dense(), (J - J.T) / 2, atol=1e-12)
    np.testing.assert_allclose(cr.jacobian_determinant(f)(x), jnp.linalg.det(J), rtol=1e-9, atol=1e-11)
    assert bool(cr.is_conservative(f)(x)) == np.allclose(J, J.T, rtol=0, atol=1e-10)
    assert bool(cr.is_incompressible(f)(x)) == (abs(np.trace(J)) < 1e-10)
    np.testing.assert_allclose(cr.jacobian(f)(x).diagonal(), jnp.diagonal(J), atol=1e-12)


def test_batches_by_a_leading_axis_by_vmap_and_inside_jit(field):
    f, x, _ = field
    points = jnp.stack([x, 0.5 * x, x - 0.1])
    J = jax.vmap(jax.jacrev(f))(points)
    for got in (cr.divergence(f, batched=True)(points), jax.jit(jax.vmap(cr.divergence(f)))(points)):
        np.testing.assert_allclose(got, jnp.trace(J, axis1=1, axis2=2), atol=1e-12)
    W = cr.antisymmetric_part(f, batched=True)(points)
    np.testing.assert_allclose(W.dense(), (J - jnp.swapaxes(J, 1, 2)) / 2, atol=1e-12)
    for of in (cr.is_conservative, cr.is_incompressible, cr.jacobian_determinant):
        np.testing.assert_allclose(of(f, batched=True)(points), [of(f)(x) for x in points], rtol=1e-9, atol=1e-12)


def test_gradients_of_them():
    f, x = FIELDS["network"][0], point(8)

    def plain(x):
        J = jax.jacfwd(f)(x)
        return jnp.trace(J) + jnp.linalg.det(J) + (jnp.triu(J - J.T) ** 2).sum()

    def ours(x):
        W = cr.antisymmetric_part(f)(x)
        return cr.divergence(f)(x) + cr.jacobian_determinant(f)(x) + 2 * (W.coo()[2] ** 2).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(ours))(x), jax.grad(plain)(x), rtol=1e-9, atol=1e-11)


def test_curl_in_two_and_three_dimensions():
    f, x = FIELDS["of three"][0], point(3)
    J = jax.jacfwd(f)(x)
    expected = jnp.stack([J[2, 1] - J[1, 2], J[0, 2] - J[2, 0], J[1, 0] - J[0, 1]])
    np.testing.assert_allclose(cr.curl(f)(x), expected, atol=1e-13)
    v = point(3, 1)
    np.testing.assert_allclose(cr.antisymmetric_part(f)(x) @ v, jnp.cross(expected, v) / 2, atol=1e-13)
    points = jnp.stack([x, 2 * x])
    assert cr.curl(f, batched=True)(points).shape == (2, 3)
    np.testing.assert_allclose(cr.curl(f, batched=True)(points), jax.vmap(cr.curl(f))(points), atol=1e-13)
    g = lambda x: jnp.tanh(MIXING[:2, :2] @ x)  # noqa: E731
    J = jax.jacfwd(g)(x[:2])
    np.testing.assert_allclose(cr.curl(g)(x[:2]), J[1, 0] - J[0, 1], atol=1e-13)
    assert cr.curl(g)(x[:2]).shape == ()


def test_pytrees_and_the_other_arguments():
    def f(t, p, k=1.0):
        return {"a": k * t * p["b"].sum() * p["a"], "b": jnp.stack([p["a"] @ p["a"], p["b"][0] * p["b"][1]])}

    p = {"a": jnp.array([1.0, 2.0]), "b": jnp.array([3.0, 4.0])}
    assert float(cr.divergence(f, argnums=1)(2.0, p, k=3.0)) == pytest.approx(2 * 6 * 7 + 3)
    many = jax.tree.map(lambda x: jnp.stack([x, 2 * x]), p)
    np.testing.assert_allclose(cr.divergence(f, argnums=1, batched=True)(2.0, many, k=3.0), [87, 174])
    two = lambda x, y, z: (y * z, -x * z)  # noqa: E731
    assert float(cr.curl(two, argnums=(0, 1))(1.0, 2.0, 3.0)) == -6
    three = cr.curl(lambda p: {"x": p["y"][0] * p["x"], "y": p["y"] ** 2 * p["x"]})
    assert jax.tree.map(jnp.shape, three({"x": jnp.array(1.0), "y": jnp.ones(2)})) == {"x": (), "y": (2,)}


def test_entries_only_where_the_field_has_them():
    n = 100_000
    x = point(n)
    W = cr.antisymmetric_part(stencil)(x)
    assert W.nnz == 2 * n
    np.testing.assert_allclose(cr.divergence(stencil)(x), (jnp.roll(x, 1) - 4 * x + jnp.roll(x, -1)).sum(), rtol=1e-9)
    assert cr.antisymmetric_part(jnp.sin)(x).nnz == 0
    shifted = lambda x: jnp.roll(x, 1) * 1e30  # noqa: E731
    assert bool(cr.is_incompressible(shifted)(x)) and not bool(cr.is_conservative(shifted)(x))
    # true by the pattern, whatever the values
    assert bool(cr.is_incompressible(shifted)(x * jnp.inf)) and bool(cr.is_conservative(lambda x: x**-1)(0 * x))
    assert not bool(cr.is_incompressible(lambda x: x**-1)(0 * x))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_tolerances_follow_the_dtype(dtype):
    x = point(50).astype(dtype)

    def gradient_of(x):  # symmetric but for rounding
        return jax.grad(lambda x: jnp.exp(jnp.sin(x).sum() / 50) * jnp.tanh(x @ jnp.cos(x)))(x)

    def nearly(x):
        return gradient_of(x) + 1e-3 * jnp.concatenate([x[1:], x[:1]])

    assert bool(cr.is_conservative(gradient_of)(x)) and not bool(cr.is_conservative(nearly)(x))
    assert bool(cr.is_conservative(nearly, rtol=1.0)(x))
    rounded = lambda x: jnp.stack([0.1 * x[0], 0.2 * x[1], -0.3 * x[2]]) * jnp.asarray(1e9, dtype)  # noqa: E731
    assert bool(cr.is_incompressible(rounded)(x[:3]))
    assert not bool(cr.is_incompressible(lambda x: rounded(x) * (1 + 1e-3 * x))(x[:3]))


def test_directional():
    f = lambda x: jnp.stack([x @ x, jnp.sin(x).sum()])  # noqa: E731
    x, v = point(4), point(4, 1)
    J = jax.jacfwd(f)(x)
    np.testing.assert_allclose(cr.directional(f)(x, v), J @ v, rtol=1e-12)
    np.testing.assert_allclose(cr.directional(f)(x, 3 * v), 3 * J @ v, rtol=1e-12)
    np.testing.assert_allclose(cr.directional(f, normalize=True)(x, v), J @ v / jnp.linalg.norm(v), rtol=1e-12)
    assert bool(jnp.isnan(cr.directional(f, normalize=True)(x, 0 * v)).all())
    points, ways = jnp.stack([x, 2 * x]), jnp.stack([v, -v])
    expected = jax.vmap(lambda x, v: jax.jvp(f, (x,), (v,))[1])(points, ways)
    np.testing.assert_allclose(cr.directional(f, batched=True)(points, ways), expected, rtol=1e-12)
    same = cr.directional(f, batched=True)(points, v)
    np.testing.assert_allclose(same[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(same[1], -expected[1], rtol=1e-12)
    with pytest.raises(cr.ShapeError, match=r"directional of .*: the tangent has shapes \[\(3,\)\]"):
        cr.directional(f)(x, v[:3])
    with pytest.raises(cr.ShapeError, match="a batch of 2 points needs as many beside them"):
        cr.directional(f, batched=True)(points, jnp.ones((3, 4)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("power", [-0.9, -0.5, 0.5, 0.9])
def test_the_slope_along_a_direction_is_that_of_any_length(dtype, power):
    """The squares of its entries are 0 or inf in this dtype; the entries are not."""
    f = lambda x: jnp.stack([x @ x, jnp.sin(x).sum()])  # noqa: E731
    x, v = point(4).astype(dtype), point(4, 1).astype(dtype)
    size = float(jnp.finfo(dtype).max) ** power
    got, expected = (cr.directional(f, normalize=True)(x, w) for w in (size * v, v))
    rtol = 100 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got, expected, rtol=rtol)
    turned = lambda s: jax.jvp(lambda v: cr.directional(f, normalize=True)(x, s * v), (v,), (x,))[1]  # noqa: E731
    np.testing.assert_allclose(turned(size), turned(1.0), rtol=rtol, atol=rtol)


def test_a_potential_needs_the_point_where_it_is_zero():
    with pytest.raises(cr.InputTypeError, match=r"potential of .*: got 1 arguments; .* and then x0"):
        cr.potential(jnp.sin)(point(3))


# potentials ------------------------------------------------------------------------------------------

POTENTIALS = {
    "polynomial": (lambda x: x[0] ** 2 * x[1] + x[2] ** 3, None),
    "trigonometric": (lambda x: jnp.sin(x[0] * x[1]) + jnp.cos(x[2]) * x[0], None),
    "network": (lambda x: jnp.tanh(MIXING[0] @ jnp.tanh(A3 @ x)), None),
    "exact by 2 nodes": (lambda x: x[0] * x[1] * x[2], 2),
    "steep": (lambda x: jnp.exp(-30 * (x @ x)), None),
}


@pytest.mark.parametrize("name", POTENTIALS)
def test_the_gradient_of_the_potential_is_the_field(name):
    V, order = POTENTIALS[name]
    f, x, x0 = jax.grad(V), point(3), point(3, 1)
    phi = cr.potential(f, order=order)
    np.testing.assert_allclose(phi(x, x0), V(x) - V(x0), rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(jax.grad(phi)(x, x0), f(x), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(jax.jit(phi)(x, x0), phi(x, x0), rtol=1e-12)
    points = jnp.stack([x, 0.5 * x, x0])
    expected = [V(p) - V(x0) for p in points]
    for got in (cr.potential(f, order=order, batched=True)(points, x0), jax.vmap(phi, in_axes=(0, None))(points, x0)):
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10)
    assert float(phi(x0, x0)) == 0


def test_potential_of_a_pytree_with_parameters():
    def f(k, p):
        return {"u": k * p["v"], "v": k * p["u"]}

    p, zero = {"u": jnp.array([1.0, 2.0]), "v": jnp.array([3.0, 5.0])}, {"u": jnp.zeros(2), "v": jnp.zeros(2)}
    phi = cr.potential(f, argnums=1)
    assert float(phi(2.0, p, zero)) == pytest.approx(26)
    np.testing.assert_allclose(jax.grad(lambda k: phi(k, p, zero))(2.0), 13)
    assert float(cr.potential(lambda x: x**3)(jnp.float32(2), jnp.float32(0))) == pytest.approx(4, rel=1e-6)


def turning(x):
    return jnp.stack([-x[1], x[0]])


def test_a_field_that_turns_has_no_potential():
    x, x0 = jnp.array([1.0, 0.5]), jnp.zeros(2)
    with pytest.raises(cr.NotConservativeError, match=r"potential of turning: the gradient of the line integral is \["):
        cr.potential(turning)(x, x0)
    with pytest.raises(cr.NotConservativeError, match=r"the gradient of the line integral at point 1 is"):
        cr.potential(turning, batched=True)(jnp.stack([x0, x]), x0)
    assert abs(float(cr.potential(turning, check=False)(x, x0))) < 1e-15
    assert bool(jnp.isnan(jax.jit(cr.potential(turning))(x, x0)))
    assert bool(jnp.isnan(cr.potential(jnp.sin)(x * jnp.nan, x0)))  # nan in, nan out
    with pytest.raises(cr.NotConservativeError, match="give more nodes with order="):
        cr.potential(lambda x: jnp.cos(40 * x), order=3)(x, x0)


# identities on random fields -------------------------------------------------------------------------


def random_scalar(kind, seed):
    """A scalar function of three numbers."""
    rng = np.random.default_rng(seed)
    W, c = rng.normal(size=(4, 3)), rng.normal(size=4)
    return {
        "polynomial": lambda x: c @ (W @ x) ** 3 + (c[:3] @ x) * x.prod(),
        "trigonometric": lambda x: jnp.sin(W @ x) @ c + jnp.cos(x).prod(),
        "network": lambda x: c @ jnp.tanh(W @ jnp.tanh(W[:3] @ x)),
    }[kind]


KINDS = st.sampled_from(["polynomial", "trigonometric", "network"])


@settings(max_examples=3)
@given(KINDS, st.integers(0, 2**31))
def test_the_curl_of_a_gradient_is_zero(kind, seed):
    V, x = random_scalar(kind, seed), point(3, seed)
    f = jax.grad(V)
    size = float(abs(jax.hessian(V)(x)).max()) + 1
    np.testing.assert_allclose(cr.curl(f)(x), 0, atol=1e-12 * size)
    assert bool(cr.is_conservative(f)(x))
    assert float(cr.divergence(f)(x)) == pytest.approx(float(jnp.trace(jax.hessian(V)(x))), abs=1e-11 * size)


@settings(max_examples=3)
@given(KINDS, st.integers(0, 2**31))
def test_the_divergence_of_a_curl_is_zero(kind, seed):
    parts, x = [random_scalar(kind, seed + k) for k in range(3)], point(3, seed)
    of = cr.curl(lambda x: jnp.stack([p(x) for p in parts]))
    size = float(abs(jax.jacfwd(of)(x)).max()) + 1
    np.testing.assert_allclose(cr.divergence(of)(x), 0, atol=1e-12 * size)
    assert bool(cr.is_incompressible(of)(x))


# refusals --------------------------------------------------------------------------------------------


def tall(x):
    return jnp.concatenate([x, x[:1]])


@pytest.mark.parametrize(
    "of", [cr.divergence, cr.antisymmetric_part, cr.is_conservative, cr.is_incompressible], ids=lambda f: f.__name__
)
def test_what_is_no_field_is_refused(of):
    text = rf"{of.__name__} of tall: a field .* has shapes \[\(3,\)\] .* the values have shapes \[\(4,\)\] .*4×3"
    with pytest.raises(cr.ShapeError, match=text):
        of(tall)(jnp.ones(3))
    with pytest.raises(cr.ShapeError, match="Choose the point with argnums"):
        of(lambda x: (x[0], x[1]))(jnp.ones(2))
    with pytest.raises(cr.ShapeError, match="batched=True needs points along a first axis"):
        of(jnp.sin, batched=True)(jnp.array(1.0))
    with pytest.raises(cr.InputTypeError, match="floating point"):
        of(jnp.sin)(jnp.arange(3))


def test_other_refusals():
    with pytest.raises(cr.ShapeError, match="a curl has a point of 2 or of 3"):
        cr.curl(jnp.sin)(jnp.ones(4))
    with pytest.raises(cr.ShapeError, match="jacobian_determinant: J_tall : 4×3"):
        cr.jacobian_determinant(tall)(jnp.ones(3))
    with pytest.raises(cr.ShapeError, match="potential of tall: a field gives a vector"):
        cr.potential(tall)(jnp.ones(3), jnp.ones(3))
    with pytest.raises(cr.ShapeError, match="potential of sin: x0 has shapes"):
        cr.potential(jnp.sin)(jnp.ones(3), jnp.ones(2))
    for order in (0, 1.5, True):
        with pytest.raises(cr.InputTypeError, match="no whole number from 1 on"):
            cr.potential(jnp.sin, order=order)
    for of in (cr.is_conservative, cr.is_incompressible):
        with pytest.raises(cr.InputTypeError, match="rtol=-1 is no number from 0 on"):
            of(jnp.sin, rtol=-1)
    with pytest.raises(cr.InputTypeError, match="the first argument must be a function"):
        cr.divergence(3)


def test_a_potential_at_no_points():
    assert cr.potential(lambda x: x, batched=True)(jnp.zeros((0, 2)), jnp.zeros(2)).shape == (0,)
