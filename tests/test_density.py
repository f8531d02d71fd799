"""Log-determinants by structure: equal to those of the dense Jacobian, at the cost that a person would derive."""

import flows
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flows import point
from jax.scipy import stats

import chainrule as cr
from chainrule._accumulate.narrow import split_at_both_ends
from chainrule._density import determinant
from chainrule._density.diagonal import blocks_of
from chainrule._jacobians.low_rank import LowRankUpdate

SIZES = {"glow": 64}


def dense_slogdet(f, x):
    return np.linalg.slogdet(np.asarray(jax.jacfwd(f)(x)))


def links(f, x):
    """The Jacobians of the links, whose determinants are multiplied."""
    found = []

    def blocks(*given):
        found.append(blocks_of(*given))
        return found[-1]

    def split(*given):
        parts = split_at_both_ends(*given)
        if parts is not None:
            A, U, C, V = parts
            found.append(LowRankUpdate(A, U if C is None else U @ C, V))
        return parts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(determinant, "blocks_of", blocks)
        patch.setattr(determinant, "split_at_both_ends", split)
        jax.eval_shape(lambda x: cr.slogdet(f)(x), x)
    assert found
    return found


def flops(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis().get("flops", 0.0)


@pytest.mark.parametrize("name", flows.FLOWS)
def test_flows_have_the_determinant_of_their_dense_jacobian(name):
    n = SIZES.get(name, 16)
    f, x = flows.FLOWS[name](n), point(n)
    sign, log = cr.slogdet(f)(x)
    expected = dense_slogdet(f, x)
    assert float(sign) == expected[0]
    np.testing.assert_allclose(log, expected[1], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", ["real_nvp", "halves", "masked", "maf"])
def test_conditioners_are_not_differentiated(name):
    """Beside the function itself, some operations for each number: not one for each number and hidden unit."""
    n = 64
    f, x = flows.FLOWS[name](n), point(n)
    assert all(J.structure.kind in ("diagonal", "scaled permutation") for J in links(f, x))
    assert flops(cr.log_abs_det(f), x) <= flops(f, x) + 40 * n


def test_one_small_determinant_for_all_pixels():
    f, x = flows.glow(64), point(64)
    assert flops(cr.log_abs_det(f), x) <= flops(f, x) + 60 * 64
    text = cr.log_abs_det(f).trace(x).lower().as_text()
    assert "tensor<1x4x4xf64>" in text and "tensor<16x4x4xf64>" not in text


def test_cost_grows_with_the_function():
    more = {n: flops(cr.log_abs_det(flows.made(n)), point(n)) - flops(flows.made(n), point(n)) for n in (32, 128)}
    assert more[128] <= 5 * max(more[32], 128)


@pytest.mark.parametrize(
    ("name", "n", "kinds"),
    [
        ("planar", 64, {"diagonal + low rank"}),
        ("residual", 64, {"diagonal + low rank"}),
        ("householder", 64, {"diagonal + low rank"}),
        (
            "glow",
            64,
            {"Kronecker", "diagonal", "scaled permutation", "permuted block-diagonal"},
        ),  # beside what is put out
        ("scanned", 16, {"scaled permutation"}),
    ],
)
def test_links_are_found_to_be_what_they_are(name, n, kinds):
    assert {J.structure.kind for J in links(flows.FLOWS[name](n), point(n))} == kinds


def test_rotations_have_the_logarithm_zero():
    for name in ("householder", "orthogonal"):
        assert abs(float(cr.log_abs_det(flows.FLOWS[name](24))(point(24)))) < 1e-12


def test_of_a_dense_part_only_the_blocks_are_computed():
    """A deep network of masked blocks: block-triangular throughout, so that the blocks on the diagonal are all."""
    n, rng = 24, np.random.default_rng(0)
    label = rng.permutation(np.arange(n) // 4)
    W = [np.where(label[:, None] >= label[None], rng.normal(size=(n, n)), 0) for _ in range(3)]

    def f(x):
        for A in W:
            x = x + jnp.tanh(A @ x) * jnp.sum(x * 0 + 1)
        return jnp.tanh(W[0] @ jnp.sin(W[1] @ x)) + 3 * x

    (*_, last) = links(f, point(n))
    assert last.nnz == n * 4
    np.testing.assert_allclose(cr.slogdet(f)(point(n)), dense_slogdet(f, point(n)), rtol=1e-11)


@pytest.mark.parametrize("seed", range(5))
def test_random_sparse_programs(seed):
    """Sums, products, joins and masked matrices at random: nothing that counts may be left out."""
    rng = np.random.default_rng(seed)
    n = 12
    masks = [rng.random((n, n)) < p for p in (0.1, 0.2, 0.3)]
    W = [np.where(m | (rng.permutation(n)[:, None] == np.arange(n)[None]), rng.normal(size=(n, n)), 0) for m in masks]
    order, cut = rng.permutation(n), int(rng.integers(1, n))

    def f(x):
        a, b = x[:cut], x[cut:]
        h = jnp.tanh(W[0] @ x)
        y = jnp.concatenate([b * jnp.exp(0.1 * jnp.cumsum(h)[cut:]), a + h[:cut]])[order]
        z = y + jnp.where(masks[1], W[1], 0.0) @ jnp.sin(y) * (1 + jnp.abs(y[::-1]))
        return W[2] @ z + z**3

    sign, log = cr.slogdet(f)(point(n, seed))
    expected = dense_slogdet(f, point(n, seed))
    assert float(sign) == expected[0]
    np.testing.assert_allclose(log, expected[1], rtol=1e-9)


def loss(log_det):
    def of(parameters, x):
        a, b = jnp.split(x, 2)
        return log_det(lambda y: flow(parameters, y))(jnp.concatenate([b, a]))

    return of


def flow(p, x):
    a, b = jnp.split(x, 2)
    h = jnp.tanh(a @ p["in"])
    x = jnp.concatenate([b * jnp.exp(h @ p["scale"]) + h @ p["shift"], a])
    x = p["W"] @ x
    return x + p["u"] * jnp.tanh(p["u"] @ x)


def test_gradients_by_parameters_that_are_closed_over_and_by_the_point():
    names = {"in": (4, 5), "scale": (5, 4), "shift": (5, 4), "W": (8, 8), "u": (8,)}
    parameters = dict(zip(names, flows.weights(*names.values()), strict=True))
    dense = loss(lambda f: lambda x: jnp.linalg.slogdet(jax.jacfwd(f)(x))[1])
    found = jax.jit(jax.grad(loss(cr.log_abs_det), (0, 1)))(parameters, point(8))
    expected = jax.grad(dense, (0, 1))(parameters, point(8))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), found, expected)


def test_batches_by_a_leading_axis_and_by_vmap():
    f, X = flows.real_nvp(8), jnp.stack([point(8, k) for k in range(3)])
    expected = [dense_slogdet(f, x)[1] for x in X]
    np.testing.assert_allclose(cr.log_abs_det(f, batched=True)(X), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(cr.log_abs_det(f))(X), expected, rtol=1e-12)
    np.testing.assert_allclose([cr.log_abs_det(f)(x) for x in X], expected, rtol=1e-12)


def test_batches_of_a_link_of_low_rank():
    f, X = flows.planar(32), jnp.stack([point(32, k) for k in range(3)])
    np.testing.assert_allclose(
        cr.log_abs_det(f, batched=True)(X), [dense_slogdet(f, x)[1] for x in X], rtol=1e-10, atol=1e-12
    )
    assert "callback" not in cr.log_abs_det(f, batched=True).trace(X).lower().as_text()


@pytest.mark.parametrize("name", ["planar", "residual"])
def test_weights_of_a_link_of_low_rank_meet_once_for_a_batch(name):
    """V U is one small matrix for all points; only what lies between them differs from point to point."""
    f, x = flows.FLOWS[name](64), point(64)
    more = [
        flops(cr.log_abs_det(f, batched=True), X) - flops(jax.vmap(f), X) for X in (jnp.stack([x] * k) for k in (2, 34))
    ]
    assert more[1] - more[0] < 32 * 200  # for each point, less than V U takes


def test_pytrees_and_argnums():
    def f(scale, x):
        return [x["b"] * scale + x["a"].sum(), jnp.stack([x["a"][1], x["a"][0] ** 3])]

    x = {"a": point(2), "b": point(3).reshape(3, 1)}
    sign, log = cr.slogdet(f, argnums=1)(jnp.asarray(2.0), x)
    a = float(x["a"][0])
    np.testing.assert_allclose(log, 3 * np.log(2) + np.log(3 * a**2), rtol=1e-12)
    J = cr.jacobian(f, argnums=1)(jnp.asarray(2.0), x).dense()
    assert float(sign) == np.linalg.slogdet(J)[0]
    y, log = cr.value_and_log_abs_det(f, 1)(jnp.asarray(2.0), x)
    jax.tree.map(np.testing.assert_array_equal, y, f(jnp.asarray(2.0), x))


def test_functions_that_go_one_way_only():
    @jax.custom_vjp
    def cube(x):
        return x**3

    cube.defvjp(lambda x: (x**3, x), lambda x, w: (3 * x**2 * w,))

    def loop(x):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, x))[1]

    x = jnp.abs(point(4))
    np.testing.assert_allclose(cr.log_abs_det(lambda x: jnp.cumsum(cube(x)))(x), jnp.log(3 * x**2).sum(), rtol=1e-12)
    np.testing.assert_allclose(cr.log_abs_det(loop)(x), dense_slogdet(loop, x)[1], rtol=1e-12)


def test_a_loop_that_counts_what_it_carries_beside_the_point():
    """Of its results some have no tangent; and it is block-triangular, so that the others are looked through."""
    layer, x = flows.coupling(6), point(6)

    def loop(x):
        return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, layer(s[1])), (0, x))[1]

    def beside(x):
        return jnp.concatenate([x[:3], loop(x)[3:] * jnp.exp(x[:3])])

    for f in (loop, beside):
        sign, log = dense_slogdet(f, x)
        got = cr.slogdet(f)(x)
        assert float(got[0]) == sign
        np.testing.assert_allclose(got[1], log, rtol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * jnp.array([1.0, 0.0, 2.0]),
        lambda x: jnp.stack([x[0], x[1], x[1]]),
        lambda x: jnp.stack([x[0], x[1], jnp.ones(())]),
        lambda x: x - x.mean(),
        lambda x: jnp.stack([x.sum()] * 3),
    ],
)
def test_singular_maps_have_the_logarithm_minus_infinity(f):
    sign, log = cr.slogdet(f)(jnp.array([1.0, 2.0, 3.0]))
    assert log < -30
    assert abs(sign) * np.exp(log) < 1e-13


def test_a_loop_that_carries_a_pair_and_a_count():
    def f(x):
        def step(carry, w):
            a, k, b = carry
            return (b * jnp.exp(jnp.sin(a) * w), k + 1, a + k * b), k

        a, _, b = jax.lax.scan(step, (x[2:], 1.0, x[:2]), jnp.arange(1.0, 4.0))[0]
        return jnp.concatenate([b, a])

    sign, log = cr.slogdet(f)(point(4))
    expected = dense_slogdet(f, point(4))
    assert float(sign) == expected[0]
    np.testing.assert_allclose(log, expected[1], rtol=1e-12)


def test_single_precision():
    f, x = flows.coupling(8), point(8)
    single = cr.log_abs_det(lambda x: f(x.astype(float)).astype(jnp.float32))(x.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, dense_slogdet(f, x)[1], rtol=1e-5)


def test_what_is_refused():
    with pytest.raises(cr.ShapeError, match=r"log_abs_det of .*: 2 outputs of 3 inputs; only a square Jacobian"):
        cr.log_abs_det(lambda x: x[:2])(jnp.ones(3))
    with pytest.raises(cr.InputTypeError, match="floating point"):
        cr.log_abs_det(lambda x: x)(jnp.arange(3))
    with pytest.raises(cr.InputTypeError, match="complex"):
        cr.log_abs_det(lambda x: x)(jnp.ones(3, complex))
    with pytest.raises(cr.ShapeError, match="points along a first axis"):
        cr.log_abs_det(lambda x: x, batched=True)({"a": jnp.ones((3, 2)), "b": jnp.ones((2, 2))})
    with pytest.raises(cr.ShapeError, match="one real number"):
        cr.transform_log_density(lambda z: z, jnp.sin)(jnp.ones(3))


# densities ------------------------------------------------------------------------------------------------------------


def normal(z):
    return stats.norm.logpdf(z).sum()


def test_an_affine_map_of_a_normal_density():
    A, b = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3))), point(3)
    log_p = cr.transform_log_density(normal, lambda x, A, b: jnp.linalg.solve(A, x - b))
    expected = stats.multivariate_normal.logpdf(point(3, 2), b, A @ A.T)
    np.testing.assert_allclose(log_p(point(3, 2), A, b), expected, rtol=1e-10)
    np.testing.assert_allclose(
        jax.grad(log_p, 1)(point(3, 2), A, b),
        jax.grad(lambda A: stats.multivariate_normal.logpdf(point(3, 2), b, A @ A.T))(A),
        rtol=1e-8,
    )


def test_samples_have_the_density_that_the_other_direction_gives():
    g, z = flows.real_nvp(8), jnp.stack([point(8, k) for k in range(4)])
    x, log_p = cr.transform_samples(normal, cr.triangular_inverse(g), batched=True)(z)
    np.testing.assert_allclose(jax.vmap(g)(x), z, atol=1e-12)
    np.testing.assert_allclose(cr.transform_log_density(normal, g, batched=True)(x), log_p, rtol=1e-10)


def test_a_density_is_learned_by_its_likelihood():
    X = 2.0 + 3.0 * jax.random.normal(jax.random.key(0), (400, 1))
    log_p = cr.transform_log_density(normal, lambda x, p: (x - p[0]) * jnp.exp(-p[1]), batched=True)
    step = jax.jit(lambda p: p + 0.3 * jax.grad(lambda p: log_p(X, p).mean())(p))
    p = jnp.zeros(2)
    for _ in range(500):
        p = step(p)
    np.testing.assert_allclose([p[0], jnp.exp(p[1])], [X.mean(), X.std()], rtol=1e-3)


def test_the_logarithm_is_real_where_the_values_are_complex():
    log = cr.log_abs_det(lambda x: x.astype(complex) ** 2)(jnp.array([1.0, 2.0]))
    assert log.dtype == jnp.float64
    np.testing.assert_allclose(log, jnp.log(8.0), rtol=1e-12)


def scanned(x):
    return jax.lax.scan(lambda c, _: (jnp.stack([c[0] ** 2, jnp.sin(c[0])]), None), x, None, length=2)[0]


@pytest.mark.parametrize("f", [lambda x: jnp.stack([x[0] ** 2, 2 * x[0]]), lambda x: x[jnp.zeros(2, int)], scanned])
def test_where_zeros_alone_make_it_singular_there_is_no_gradient(f):
    log = cr.log_abs_det(f)
    assert log(jnp.ones(2)) == -jnp.inf
    assert jnp.isnan(jax.grad(log)(jnp.ones(2))).all() and jnp.isnan(jax.jacfwd(log)(jnp.ones(2))).all()
    many = jax.grad(lambda X: cr.log_abs_det(f, batched=True)(X).sum())(jnp.ones((3, 2)))
    assert jnp.isnan(many).all()


def test_an_assembled_singular_jacobian_has_no_gradient_of_its_logarithm():
    log = lambda x: cr.jacobian(lambda x: jnp.stack([x[0] ** 2, 2 * x[0]]))(x).slogdet()[1]  # noqa: E731
    assert log(jnp.ones(2)) == -jnp.inf and jnp.isnan(jax.grad(log)(jnp.ones(2))[0])


def test_no_step_of_a_singular_body_is_the_identity():
    none = lambda x: jax.lax.scan(lambda c, _: (c * jnp.array([1.0, 0.0]), None), x, None, length=0)[0]  # noqa: E731
    sign, log = cr.slogdet(none)(jnp.ones(2))
    assert (float(sign), float(log)) == (1.0, 0.0)
