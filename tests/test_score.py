"""Scores, the losses that learn them, and the walks that follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
POINTS = jnp.asarray(RNG.normal(size=(50, 3)))
PARAMS = {"W": jnp.asarray(RNG.normal(size=(4, 3))), "V": jnp.asarray(RNG.normal(size=(3, 4)))}


def network(params, x):
    return params["V"] @ jnp.tanh(params["W"] @ x) - x


def hyvarinen(params, points):
    """Its loss by dense Jacobians."""
    values = jax.vmap(network, (None, 0))(params, points)
    traces = jax.vmap(lambda x: jnp.trace(jax.jacfwd(network, 1)(params, x)))(points)
    return ((values**2).sum(1) / 2 + traces).mean()


def assert_trees_close(a, b, **tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_score_is_the_gradient_of_a_log_density():
    def log_p(x, spread):
        return -jnp.sum(x["a"] ** 2) / (2 * spread) - jnp.sum(jnp.abs(x["b"]) ** 3)

    x = {"a": POINTS[0], "b": POINTS[1]}
    assert_trees_close(cr.score(log_p)(x, 2.0), jax.grad(log_p)(x, 2.0))
    assert_trees_close(jax.jit(cr.score(log_p))(x, 2.0), jax.grad(log_p)(x, 2.0))
    np.testing.assert_allclose(jax.vmap(cr.score(lambda x: -(x**2).sum()))(POINTS), -2 * POINTS)
    np.testing.assert_allclose(cr.score(log_p, argnums=1)(x, 2.0), jax.grad(log_p, 1)(x, 2.0))


def test_score_matching_is_its_formula_with_its_gradient():
    loss = cr.score_matching_loss(network)
    np.testing.assert_allclose(loss(PARAMS, POINTS), hyvarinen(PARAMS, POINTS))
    assert_trees_close(jax.jit(jax.grad(loss))(PARAMS, POINTS), jax.grad(hyvarinen)(PARAMS, POINTS), rtol=1e-9)
    alone = cr.score_matching_loss(lambda x: network(PARAMS, x))
    np.testing.assert_allclose(alone(POINTS), hyvarinen(PARAMS, POINTS))


def test_score_matching_of_pytrees_and_of_numbers():
    def s(scale, x):
        return {"a": -scale * x["a"], "b": -(x["b"] ** 3)}

    x = {"a": POINTS, "b": POINTS[:, 0]}
    exact = ((4 * POINTS**2).sum(1) + POINTS[:, 0] ** 6) / 2 - 6 - 3 * POINTS[:, 0] ** 2
    np.testing.assert_allclose(cr.score_matching_loss(s)(2.0, x), exact.mean())
    keys = jax.random.split(KEY, 3)
    for key in keys:  # signs make no error where the Jacobian is diagonal
        np.testing.assert_allclose(cr.sliced_score_matching_loss(s)(2.0, x, key=key), exact.mean())


def test_sliced_score_matching_is_unbiased():
    for probes in (1, 3):
        loss = cr.sliced_score_matching_loss(network, probes=probes)
        run = jax.jit(jax.vmap(lambda key, loss=loss: jax.value_and_grad(loss)(PARAMS, POINTS, key=key)))
        values, gradients = run(jax.random.split(KEY, 400))
        assert abs(values.mean() - hyvarinen(PARAMS, POINTS)) < 4 * values.std() / 20
        exact = jax.grad(hyvarinen)(PARAMS, POINTS)
        errors = jax.tree.map(lambda g, e: (abs(g.mean(0) - e) < 4.5 * g.std(0) / 20 + 1e-12).all(), gradients, exact)
        assert all(jax.tree.leaves(errors))


def test_denoising_learns_the_score_of_the_smoothed_data():
    """Of one data point the smoothed density is normal: its score has no loss at all, at any level."""
    data = jnp.ones((200, 2))

    def s(mean, x, sigma):
        return (mean - x) / sigma**2

    levels = cr.denoising_score_matching_loss(s, [0.1, 1.0, 3.0])
    np.testing.assert_allclose(levels(1.0, data, key=KEY), 0, atol=1e-20)
    assert abs(jax.grad(levels)(1.0, data, key=KEY)) < 1e-9
    # at another mean m the loss is λ(σ) (m - 1)² / σ⁴ for two numbers: λ = σ² unless given
    one = cr.denoising_score_matching_loss(lambda mean, x: s(mean, x, 0.5), 0.5)
    np.testing.assert_allclose(one(2.0, data, key=KEY), 1 / 0.25)
    own = cr.denoising_score_matching_loss(s, (0.5,), weights=lambda sigma: sigma**4)
    np.testing.assert_allclose(own(3.0, data, key=KEY), 4.0)


def test_every_level_of_noise_is_met_equally_often():
    found = cr.denoising_score_matching_loss(
        lambda x, sigma: jnp.where(sigma == 2, jnp.ones(1), 0) * 1e6 + 0 * x, [1.0, 2.0], weights=lambda sigma: 2e-12
    )(jnp.zeros((4000, 1)), key=KEY)
    assert abs(found - 0.5) < 0.03


def test_stein_tells_samples_from_others():
    def log_p(x):
        return -(x**2).sum() / 2 - 0.1 * (x**4).sum()

    start = jnp.zeros((4000, 2))
    good = cr.langevin(cr.score(log_p), start, KEY, step=0.1, steps=100, log_p=log_p)
    assert 0.8 < good.accepted < 1

    def phi(x):
        return {"a": jnp.sin(x), "b": x.prod()}

    e = cr.stein_residual(log_p, phi)(good.x)
    assert e.value.shape == e.standard_error.shape == (3, 2) and e.probes == 4000
    assert (abs(e.value) < 4 * e.standard_error).all()
    wrong = cr.stein_residual(log_p, phi)(1.3 * good.x)
    assert (abs(wrong.value[0, 0]) > 8 * wrong.standard_error[0, 0]).all()


def test_metropolis_takes_away_the_error_of_the_step():
    def log_p(x):
        return -(x**2).sum() / 2

    start, h = jax.random.normal(KEY, (5000, 1)), 0.8
    plain = cr.langevin(cr.score(log_p), start, jax.random.key(1), step=h, steps=60)
    tested = cr.langevin(cr.score(log_p), start, jax.random.key(1), step=h, steps=60, log_p=log_p)
    assert plain.accepted == 1 and 0.3 < tested.accepted < 0.95
    np.testing.assert_allclose(plain.x.var(), 1 / (1 - h / 2), rtol=0.08)  # where this walk ends: 2h / (1 - (1 - h)²)
    np.testing.assert_allclose(tested.x.var(), 1, rtol=0.08)


def test_langevin_keeps_dtype_shape_and_start():
    x0 = jnp.ones((3, 2, 2), jnp.float32)
    walk = cr.langevin(lambda x: -x, x0, KEY, step=0.1, steps=4)
    assert walk.x.shape == x0.shape and walk.x.dtype == jnp.float32
    assert len(np.unique(walk.x)) == 12  # every particle has its own noise
    np.testing.assert_array_equal(cr.langevin(lambda x: -x, x0, KEY, step=0.1, steps=0).x, x0)
    run = jax.jit(lambda x, key: cr.langevin(lambda x: -x, x, key, step=0.1, steps=4).x)
    np.testing.assert_allclose(run(x0, KEY), walk.x, rtol=1e-6)


def test_annealing_finds_modes_far_apart():
    centres, weights = jnp.array([-20.0, 20.0]), jnp.array([0.25, 0.75])

    def smoothed(x, sigma):
        spread = 1 + sigma**2
        own = jax.nn.softmax(jnp.log(weights) - (x[0] - centres) ** 2 / (2 * spread))
        return (own @ centres - x) / spread

    sigmas = np.geomspace(30, 0.3, 12)
    start = 30 * jax.random.normal(KEY, (2000, 1))
    x = cr.annealed_langevin(smoothed, sigmas[::-1], start, jax.random.key(1), step=0.02, steps=40).x
    right = x[:, 0] > 0
    assert abs(right.mean() - 0.75) < 0.05
    assert abs(x[right].mean() - 20) < 0.15 and abs(x[~right].mean() + 20) < 0.25
    assert 0.8 < x[right].std() < 1.15
    noisy = cr.annealed_langevin(smoothed, sigmas, start, jax.random.key(1), step=0.02, steps=40, denoise=False).x
    np.testing.assert_allclose(noisy + 0.09 * jax.vmap(lambda x: smoothed(x, 0.3))(noisy), x, rtol=1e-9)


def first(x, sigma):
    return x[:1]


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda: cr.score(lambda x: x)(POINTS[0]), cr.ShapeError, "one real number"),
        (lambda: cr.score(lambda x: x.sum())(jnp.arange(3)), cr.InputTypeError, "floating"),
        (lambda: cr.score_matching_loss(lambda x: x[1:])(POINTS), cr.ShapeError, "2 outputs for 3"),
        (lambda: cr.score_matching_loss(lambda x: x)(1.0), cr.ShapeError, "along a first axis"),
        (lambda: cr.sliced_score_matching_loss(jnp.sin)(POINTS), cr.InputTypeError, "jax.random.key"),
        (lambda: cr.sliced_score_matching_loss(jnp.sin, probes=0), cr.InputTypeError, "probes=0"),
        (lambda: cr.sliced_score_matching_loss(lambda x: x[1:])(POINTS, key=KEY), cr.ShapeError, "2 outputs for 3"),
        (lambda: cr.denoising_score_matching_loss(jnp.sin, [1.0, 0.0]), cr.InputTypeError, "positive"),
        (lambda: cr.denoising_score_matching_loss(jnp.sin, 1.0)(POINTS), cr.InputTypeError, "jax.random.key"),
        (lambda: cr.stein_residual(3, jnp.sin), cr.InputTypeError, "function"),
        (lambda: cr.langevin(jnp.sin, POINTS, KEY, step=0.1, steps=1.5), cr.InputTypeError, "steps=1.5"),
        (
            lambda: cr.langevin(jnp.sin, jnp.ones(()), KEY, step=0.1, steps=1),
            cr.ShapeError,
            "along a first axis",
        ),
        (
            lambda: cr.langevin(jnp.sin, jnp.ones((2, 1), int), KEY, step=0.1, steps=1),
            cr.InputTypeError,
            "floating point",
        ),
        (lambda: cr.langevin(jnp.sin, POINTS, KEY, step=-0.1, steps=1), cr.InputTypeError, "step=-0.1"),
        (lambda: cr.langevin(jnp.sin, POINTS, KEY, step=0.1, steps=1, log_p=jnp.sin), cr.ShapeError, "one real number"),
        (lambda: cr.langevin(jnp.sin, {"a": POINTS}, KEY, step=0.1, steps=1), cr.InputTypeError, "one array"),
        (lambda: cr.sliced_score_matching_loss(jnp.sin)(jnp.ones((2, 3), int), key=KEY), cr.InputTypeError, "floating"),
        (lambda: cr.sliced_score_matching_loss(jnp.sin)(key=KEY), cr.InputTypeError, "0 positional arguments"),
        (lambda: cr.denoising_score_matching_loss(jnp.sin, "a"), cr.InputTypeError, "sigmas='a'"),
        (
            lambda: cr.langevin(jnp.sum, POINTS, KEY, step=0.1, steps=1),
            cr.ShapeError,
            "langevin of sum: .* 1 outputs for 3",
        ),
        (
            lambda: cr.annealed_langevin(first, [1.0, 0.5], POINTS, KEY, step=0.1, steps=1),
            cr.ShapeError,
            "^annealed_langevin of first: .* 1 outputs for 3",
        ),
        (
            lambda: cr.annealed_langevin(jnp.sin, [], POINTS, KEY, step=0.1, steps=1),
            cr.InputTypeError,
            "positive",
        ),
    ],
)
def test_refusals(run, error, says):
    with pytest.raises(error, match=says):
        run()


def test_particles_show_in_a_line():
    drawn = cr.langevin(lambda x: -x, jnp.zeros((10, 2)), jax.random.key(0), step=0.1, steps=2)
    assert repr(drawn) == "Particles float64[10, 2] · 1.0 of the proposals accepted"
