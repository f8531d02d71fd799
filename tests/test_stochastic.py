"""Estimates of traces, diagonals and log-determinants: unbiased, with errors that cover, exact where that is cheap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule._stochastic.lanczos import tridiagonal
from chainrule._stochastic.probing import _basis

RNG = np.random.default_rng(0)
N, REPEATS = 30, 300
KEYS = jax.random.split(jax.random.key(0), REPEATS)
B = jnp.asarray(RNG.normal(size=(N, N)) / np.sqrt(N))
U = jnp.asarray(RNG.normal(size=(N, 3)))
X = jnp.asarray(RNG.normal(size=N))
MAPS = {
    "general": B,
    "positive definite": B @ B.T,
    "decaying": jnp.diag(jnp.exp(-jnp.arange(float(N)) / 3)) @ (jnp.eye(N) + 0.1 * B),
    "tiny": 1e-100 * (jnp.eye(N) + B),
}
METHODS = ("hutchinson", "hutch++", "xtrace")


def repeated(transform, *args):
    """The same estimate with many keys."""
    return jax.tree.map(np.asarray, jax.vmap(lambda key: transform(*args, key=key))(KEYS))


def assert_unbiased(values, exact, spread=4.5):
    """Within so many standard errors of the mean of all repeats, entry by entry."""
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    assert (abs(values.mean(0) - exact) <= spread * error + 1e-12 * np.abs(exact).max()).all()


# traces and diagonals ------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("method", METHODS)
def test_traces_are_unbiased_and_error_bars_cover(method, distribution):
    of = cr.trace_estimate(lambda x, A: A @ x, method=method, probes=24, distribution=distribution)
    run = jax.jit(lambda A: jax.vmap(lambda key: of(X, A, key=key))(KEYS))
    for A in MAPS.values():
        e, exact = jax.tree.map(np.asarray, run(A)), float(jnp.trace(A))
        assert_unbiased(e.value, exact)
        assert (abs(e.value - exact) <= 2 * e.standard_error + 1e-12 * abs(exact)).mean() > 0.8
        assert not e.exact and e.probes == 24 and e.method == method


@pytest.mark.parametrize("method", METHODS)
def test_diagonals_are_unbiased_and_error_bars_cover(method):
    of = cr.diagonal_estimate(lambda x, A: A @ x, method=method, probes=24)
    run = jax.jit(lambda A: jax.vmap(lambda key: of(X, A, key=key))(KEYS))
    for A in MAPS.values():
        e, exact = jax.tree.map(np.asarray, run(A)), np.diag(A)
        assert_unbiased(e.value, exact)
        assert e.value.shape == (REPEATS, N)
        assert (abs(e.value - exact) <= 2 * e.standard_error + 1e-12 * abs(exact)).mean() > 0.8


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_low_rank_is_found_exactly(method):
    trace, diagonal = (
        of(lambda x, A: A @ x, method=method, probes=18) for of in (cr.trace_estimate, cr.diagonal_estimate)
    )
    for A in (U @ U.T, jnp.outer(X, jnp.cos(X)), jnp.zeros((N, N))):
        for e, exact in ((trace(X, A, key=KEYS[0]), jnp.trace(A)), (diagonal(X, A, key=KEYS[0]), jnp.diag(A))):
            np.testing.assert_allclose(e.value, exact, atol=1e-10)
            np.testing.assert_allclose(e.standard_error, 0, atol=1e-10)


def test_variance_is_reduced_where_singular_values_decay():
    A = 0.1 * B + 10 * U @ U.T
    errors = [repeated(cr.trace_estimate(lambda x: A @ x, method=m, probes=24), X).value.std() for m in METHODS]
    assert errors[0] > 30 * errors[1] and errors[0] > 30 * errors[2]


@pytest.mark.parametrize("resphered", [False, True])
def test_xtrace_is_what_it_is_defined_to_be(resphered):
    """Leave-one-out, by a QR decomposition for each probe."""
    A, k = np.asarray(B), 5
    distribution = "normal" if resphered else "rademacher"
    e = cr.trace_estimate(lambda x: B @ x, method="xtrace", probes=2 * k, distribution=distribution)(X, key=KEYS[1])
    draw = jax.random.normal if resphered else jax.random.rademacher
    x, found = np.asarray(draw(KEYS[1], (k, N), B.dtype)), []
    for i in range(k):
        Q = np.linalg.qr(A @ np.delete(x, i, 0).T)[0]
        g = x[i] - Q @ (Q.T @ x[i])
        scale = (N - k + 1) / (g @ g) if resphered else 1
        found.append(np.trace(Q.T @ A @ Q) + scale * g @ A @ g)
    np.testing.assert_allclose(e.value, np.mean(found), rtol=1e-10)


def test_the_basis_knows_what_each_row_adds():
    Y = jnp.asarray(RNG.normal(size=(4, N)))
    Y = Y.at[3].set(Y[0] - 2 * Y[1])  # rank 3; without row 2 the rank is 2, without any other it stays 3
    Q, S = _basis(1e-200 * Y)
    np.testing.assert_allclose(jnp.linalg.norm(S, axis=1), [0, 0, 1, 0], atol=1e-12)
    for i in range(4):
        P = Q.T @ Q - jnp.outer(S[i] @ Q, S[i] @ Q)
        others = np.delete(np.asarray(Y), i, 0)
        np.testing.assert_allclose(others @ P, others, atol=1e-10)
        assert round(float(jnp.trace(P))) == np.linalg.matrix_rank(others)


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_are_unbiased_too(method):
    def exact(c):
        return jnp.trace(jax.jacfwd(lambda x: B @ jnp.sin(c * (B @ x)))(X))

    def estimate(c, key):
        return cr.trace_estimate(lambda x: B @ jnp.sin(c * (B @ x)), method=method, probes=12)(X, key=key).value

    found = jax.vmap(jax.grad(estimate), (None, 0))(0.7, KEYS)
    assert_unbiased(np.asarray(found), float(jax.grad(exact)(0.7)))


# the choice ----------------------------------------------------------------------------------------


def test_the_exact_way_is_taken_where_it_is_cheaper_and_it_is_said():
    e = cr.trace_estimate(jnp.sin)(X)
    assert e.exact and e.method == "exact" and "diagonal" in e.reason and e.probes == 0
    assert "exact" in repr(e) and "±" not in repr(e)
    np.testing.assert_allclose(e.value, jnp.cos(X).sum())
    assert e.standard_error == 0

    def dense(x):
        return B @ jnp.tanh(B @ x)

    few, many = (cr.trace_estimate(dense, probes=k)(X, key=KEYS[0]) for k in (4, 64))
    assert not few.exact and few.method == "xtrace" and many.exact
    np.testing.assert_allclose(many.value, jnp.trace(jax.jacfwd(dense)(X)))
    assert "±" in repr(few) and "4 products" in few.reason


def test_loops_are_counted_with_all_their_passes():
    def loop(x):
        return jax.lax.scan(lambda c, _: (1.1 * jnp.sin(c), None), x, None, length=100)[0]

    e = cr.trace_estimate(loop)(X)
    assert e.exact
    np.testing.assert_allclose(e.value, jnp.trace(jax.jacfwd(loop)(X)))


def test_what_does_not_fit_in_memory_is_estimated():
    x = jnp.ones(300_000)
    e = cr.trace_estimate(lambda x: x * x.sum(), probes=8)(x, key=KEYS[0])
    assert not e.exact and "does not fit" in e.reason
    assert abs(e.value / (len(x) ** 2 + len(x)) - 1) < 1e-3


def test_a_jacobian_may_be_given():
    def f(x):
        return B @ jnp.sin(x)

    stored, free = cr.jacobian(f)(X), cr.linearize(f)(X)
    exact = jnp.trace(stored.dense())
    for e in (
        cr.trace_estimate(stored)(),
        cr.trace_estimate(free, probes=N)(),
        jax.jit(lambda J: cr.trace_estimate(J)())(stored),
    ):
        assert e.exact
        np.testing.assert_allclose(e.value, exact)
    e = cr.trace_estimate(free, probes=20)(key=KEYS[0])
    assert not e.exact and abs(e.value - exact) < 4 * e.standard_error
    np.testing.assert_allclose(cr.diagonal_estimate(stored)().value, jnp.diag(stored.dense()))
    np.testing.assert_allclose(cr.log_det_estimate(stored)().value, jnp.linalg.slogdet(stored.dense())[1])
    softmax = cr.jacobian(jax.nn.softmax, order="factored")(X)
    s = jax.nn.softmax(X)
    np.testing.assert_allclose(cr.trace_estimate(softmax)().value, 1 - (s**2).sum())


def test_a_batch_of_jacobians():
    xs = jnp.stack([X, 2 * X])
    exact = jax.vmap(lambda x: jnp.trace(jax.jacfwd(lambda x: B @ jnp.sin(x))(x)))(xs)
    stored = jax.vmap(cr.jacobian(lambda x: B @ jnp.sin(x)))(xs)
    np.testing.assert_allclose(cr.trace_estimate(stored)().value, exact)
    free = jax.vmap(cr.linearize(lambda x: B @ jnp.sin(x)))(xs)
    e = cr.trace_estimate(free, probes=20)(key=KEYS[0])
    assert (abs(e.value - exact) < 4 * e.standard_error).all()


def test_transforms_and_pytrees():
    def f(x, c):
        return {"a": c * x["a"] * x["b"].sum(), "b": x["b"] ** 2}

    x = {"a": X, "b": jnp.ones((2, 3))}
    exact = jnp.trace(cr.jacobian(f)(x, 2.0).dense())
    for method in ("exact", "hutchinson"):
        of = cr.trace_estimate(f, method=method)
        np.testing.assert_allclose(of(x, 2.0, key=KEYS[0]).value, exact, rtol=1e-1)
        np.testing.assert_allclose(jax.jit(lambda x, of=of: of(x, 2.0, key=KEYS[0]).value)(x), exact, rtol=1e-1)
    by_c = jax.grad(lambda c: cr.trace_estimate(f, method="exact")(x, c).value)(2.0)
    np.testing.assert_allclose(by_c, N * 6.0)
    assert cr.trace_estimate(lambda c, x: c * x, argnums=1)(2.0, X).value == 2 * N
    assert cr.trace_estimate(lambda c, x: c * x, argnums=-1)(2.0, X).value == 2 * N
    assert cr.trace_estimate(lambda x, c: c * x)(X, c=3.0).value == 3 * N


def test_a_key_of_either_kind_and_new_ones_without_compiling():
    traced = []

    def f(x):
        traced.append(1)
        return B @ jnp.tanh(B @ x)

    of = cr.trace_estimate(f, probes=8)
    first = of(X, key=jax.random.PRNGKey(0)).value
    count = len(traced)
    assert of(X, key=jax.random.PRNGKey(1)).value != first and len(traced) == count
    assert of(X, key=jax.random.key(0)).value == first


def test_a_single_sample_says_nothing_of_its_error():
    for method, probes in (("hutchinson", 1), ("hutch++", 3), ("xtrace", 2)):
        e = cr.trace_estimate(lambda x: B @ x, method=method, probes=probes)(X, key=KEYS[0])
        assert jnp.isfinite(e.value) and e.standard_error == jnp.inf


def test_float32_and_more_probes_than_numbers():
    A = B.astype(jnp.float32)[:6, :6]
    for method in METHODS:
        e = cr.trace_estimate(lambda x: A @ x, method=method, probes=30)(jnp.ones(6, jnp.float32), key=KEYS[0])
        assert e.value.dtype == e.standard_error.dtype == jnp.float32
        assert abs(e.value - jnp.trace(A)) < 6 * e.standard_error + 1e-4


# log-determinants ----------------------------------------------------------------------------------

DETERMINANTS = {
    "lanczos": B @ B.T + 0.5 * jnp.eye(N),
    "normal": jnp.eye(N) + 0.4 * B,
    "series": jnp.eye(N) + 0.3 * B,
}


@pytest.mark.parametrize("method", DETERMINANTS)
def test_log_dets_and_their_derivatives(method):
    A = DETERMINANTS[method]

    def estimate(c, key):
        return cr.log_det_estimate(lambda x: A @ x + c * x, method=method)(X, key=key)

    e = jax.tree.map(np.asarray, jax.vmap(estimate, (None, 0))(0.1, KEYS))
    inverse = jnp.linalg.inv(A + 0.1 * jnp.eye(N))
    exact = float(-jnp.linalg.slogdet(inverse)[1])
    assert_unbiased(e.value, exact)
    assert (abs(e.value - exact) <= 2 * e.standard_error).mean() > 0.88
    first = jax.grad(lambda c, key: estimate(c, key).value)
    assert_unbiased(np.asarray(jax.vmap(first, (None, 0))(0.1, KEYS)), float(jnp.trace(inverse)))
    if method == "series":  # the derivatives of 'normal' and of 'series' are one
        return
    second = jax.vmap(jax.grad(first), (None, 0))(0.1, KEYS[:100])
    assert_unbiased(np.asarray(second), float(-jnp.trace(inverse @ inverse)))


@pytest.mark.parametrize("method", ["lanczos", "normal"])
@pytest.mark.parametrize("estimator", ["hutch++", "xtrace"])
def test_log_dets_by_a_split_trace(method, estimator):
    A = DETERMINANTS[method]

    def estimate(c, key, **options):
        transform = cr.log_det_estimate(lambda x: A @ x + c * x, method=method, estimator=estimator, **options)
        return transform(X, key=key)

    e = jax.tree.map(np.asarray, jax.vmap(lambda key: estimate(0.1, key, probes=18))(KEYS[:200]))
    exact = float(jnp.linalg.slogdet(A + 0.1 * jnp.eye(N))[1])
    assert_unbiased(e.value, exact)
    assert (abs(e.value - exact) <= 2.5 * e.standard_error).mean() > 0.88
    assert e.method == f"{method}, {estimator}"
    slope = jax.vmap(jax.grad(lambda c, key: estimate(c, key).value), (None, 0))(0.1, KEYS[:200])
    assert_unbiased(np.asarray(slope), float(jnp.trace(jnp.linalg.inv(A + 0.1 * jnp.eye(N)))))


def test_a_split_trace_is_exact_for_the_identity_and_low_rank():
    def f(x):
        return x + U.T @ (U @ x)

    U = 3 * jax.random.normal(KEYS[0], (3, 60))
    exact = jnp.linalg.slogdet(jnp.eye(60) + U.T @ U)[1]
    errors = {}
    for estimator in ("hutchinson", "hutch++", "xtrace"):
        e = cr.log_det_estimate(f, method="lanczos", probes=16, estimator=estimator)(jnp.ones(60), key=KEYS[1])
        errors[estimator] = abs(float(e.value - exact))
    assert max(errors["hutch++"], errors["xtrace"]) < 1e-9 * exact < 1e-3 * errors["hutchinson"]


def test_log_det_chooses():
    e = cr.log_det_estimate(jnp.exp)(X)
    assert e.exact and "diagonal" in e.reason
    np.testing.assert_allclose(e.value, X.sum())

    def grid(u):
        u = u.reshape(30, 30)
        around = sum(jnp.roll(u, s, a) for s in (1, -1) for a in (0, 1))
        return (4.5 * u - around + 0.1 * u**3).reshape(-1)

    u = jnp.ones(900)
    exact = cr.log_det_estimate(grid, probes=32)(u)
    assert exact.exact and "sparse" in exact.reason
    np.testing.assert_allclose(exact.value, jnp.linalg.slogdet(jax.jacfwd(grid)(u))[1])
    e = cr.log_det_estimate(grid, probes=4, terms=12)(u, key=KEYS[0])
    assert e.method == "normal" and abs(e.value - exact.value) < 5 * e.standard_error
    J = cr.jacobian(lambda z: z + jax.nn.softmax(z), order="factored")(X)
    assert "rank 1" in cr.log_det_estimate(J)().reason


def test_lanczos_stops_where_the_space_is_used_up():
    A = jnp.diag(jnp.repeat(jnp.array([2.0, 5.0]), 4))
    T, Q = tridiagonal(lambda v: A @ v, jnp.ones(8) / np.sqrt(8), 6)
    np.testing.assert_array_equal(T[2:], np.eye(6)[2:])
    np.testing.assert_allclose(jnp.linalg.eigvalsh(T[:2, :2]), [2, 5])
    np.testing.assert_allclose(Q @ Q.T, np.diag([1, 1, 0, 0, 0, 0]), atol=1e-14)
    e = cr.log_det_estimate(lambda v: A @ v, method="lanczos")(jnp.ones(8), key=KEYS[0])
    np.testing.assert_allclose(e.value, 4 * np.log(10.0))
    assert jnp.isnan(cr.log_det_estimate(lambda v: -v, method="lanczos")(X, key=KEYS[0]).value)


# refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "error", "says"),
    [
        (lambda: cr.trace_estimate(jnp.sin, method="best"), cr.InputTypeError, "'hutch\\+\\+'"),
        (lambda: cr.trace_estimate(jnp.sin, probes=0), cr.InputTypeError, "probes=0"),
        (lambda: cr.trace_estimate(jnp.sin, probes=2, method="hutch++"), cr.InputTypeError, "from 3 on"),
        (lambda: cr.trace_estimate(jnp.sin, distribution="cauchy"), cr.InputTypeError, "rademacher"),
        (lambda: cr.log_det_estimate(jnp.sin, terms=True), cr.InputTypeError, "terms=True"),
        (lambda: cr.log_det_estimate(jnp.sin, estimator="best"), cr.InputTypeError, "estimator='best'"),
        (lambda: cr.log_det_estimate(jnp.sin, method="series", estimator="xtrace"), cr.InputTypeError, "at random"),
        (lambda: cr.log_det_estimate(jnp.sin, probes=2, estimator="hutch++"), cr.InputTypeError, "probes=2"),
        (lambda: cr.trace_estimate(lambda x: x[1:])(X), cr.ShapeError, "29×30.*only a square J has a trace"),
        (lambda: cr.trace_estimate(cr.jacobian(lambda x: x[1:])(X)), cr.ShapeError, "not square"),
        (lambda: cr.trace_estimate(lambda x: B @ jnp.sin(B @ x), probes=2)(X), cr.InputTypeError, "jax.random.key"),
        (lambda: cr.trace_estimate(jnp.sin, method="hutchinson")(X, key=3), cr.InputTypeError, "int64"),
        (lambda: cr.trace_estimate(jnp.sin)(jnp.arange(3)), cr.InputTypeError, "floating point"),
        (lambda: cr.trace_estimate(jnp.sin)(X.astype(complex)), cr.InputTypeError, "complex"),
        (
            lambda: cr.trace_estimate(cr.linearize(jnp.sin, holomorphic=True)(X.astype(complex)), probes=4)(
                key=KEYS[0]
            ),
            cr.InputTypeError,
            "only method='exact'",
        ),
    ],
)
def test_refusals(run, error, says):
    with pytest.raises(error, match=says):
        run()


def test_maps_of_nothing_and_of_complex_values():
    for estimate in (cr.trace_estimate, cr.diagonal_estimate, cr.log_det_estimate):
        e = estimate(lambda x: x)(jnp.zeros(0))
        assert e.exact and not jnp.any(e.value)
    assert repr(cr.trace_estimate(lambda x: x.astype(complex) * jnp.asarray(1j))(jnp.ones(2))).startswith(
        "Estimate 0+2j"
    )
    with pytest.raises(cr.InputTypeError, match=r"of shape \(2,\)"):
        cr.trace_estimate(jnp.sin, method="xtrace")(jnp.ones(3), key=jax.random.split(jax.random.key(0)))


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
@pytest.mark.parametrize("estimate", [cr.trace_estimate, cr.diagonal_estimate])
def test_as_many_probes_as_dimensions_leave_nothing_to_chance(estimate, distribution):
    A = np.random.default_rng(0).normal(size=(6, 6))
    made = estimate(lambda x: jnp.sin(A @ x), method="xtrace", probes=12, distribution=distribution)
    e = made(jnp.zeros(6), key=jax.random.key(0))
    exact = np.diagonal(A) if estimate is cr.diagonal_estimate else np.trace(A)
    np.testing.assert_allclose(e.value, exact, rtol=1e-12)
    assert not np.any(e.standard_error) and e.probes == 6


def test_the_logarithm_by_as_many_probes_as_dimensions():
    A = np.random.default_rng(0).normal(size=(4, 4)) + 4 * np.eye(4)
    made = cr.log_det_estimate(lambda x: A @ x, method="normal", estimator="xtrace", probes=8)
    e = made(jnp.zeros(4), key=jax.random.key(0))
    np.testing.assert_allclose(e.value, np.linalg.slogdet(A)[1], rtol=1e-9)
    assert e.standard_error == 0
