"""What the transforms refuse: every message names the function, the argument and the way out."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

X = jnp.asarray(np.random.default_rng(0).normal(size=5))


def g(x):
    return jnp.tanh(x[1:] * x[:-1])


@jax.custom_vjp
def outward(x):
    return x**3


outward.defvjp(lambda x: (x**3, x), lambda x, w: (7 * w * x,))


def dilated_pool(x):
    """JAX has no transpose of it."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (2,), (1,), "VALID", window_dilation=(2,))


REFUSALS = [
    (lambda: cr.jacobian(3), cr.InputTypeError, r"jacobian: the first argument must be a function, got int"),
    (
        lambda: cr.jacobian(g)(jnp.arange(3)),
        cr.InputTypeError,
        r"jacobian of g: .*int64 of shape \(3,\).*astype\(float\)",
    ),
    (lambda: cr.jacobian(g)(jnp.array([True])), cr.InputTypeError, "got bool"),
    (lambda: cr.hessian(g)(jnp.arange(3)), cr.InputTypeError, "hessian of g"),
    (lambda: cr.jacobian(g, 1)(X), cr.InputTypeError, "argnums=1, but only 1 positional"),
    (lambda: cr.jacobian(g, -2)(X), cr.InputTypeError, "argnums=-2"),
    (lambda: cr.jacobian(g, (0, -1))(X), cr.InputTypeError, "twice"),
    (lambda: cr.jacobian(g)(), cr.InputTypeError, "only 0 positional"),
    (lambda: cr.jacobian(g, order="sideways")(X), cr.InputTypeError, "auto, forward, reverse"),
    (lambda: cr.jacobian(lambda x: "a")(X), cr.InputTypeError, "an output is a str, not an array"),
    (
        lambda: cr.jacobian(lambda x: jnp.argmax(x))(X),
        cr.InputTypeError,
        r"outputs must be floating point, got int64.*has_aux",
    ),
    (lambda: cr.jacobian(g, has_aux=True)(X), cr.InputTypeError, "needs a pair"),
    (lambda: cr.jacobian(g)("a"), cr.InputTypeError, "an input is a str"),
    (
        lambda: cr.hessian(g)(X),
        cr.ShapeError,
        r"hessian of g: the output must be one real number, got .*\(4,\).*jacobian",
    ),
    (lambda: cr.gradient(g)(X), cr.ShapeError, "gradient of g"),
    (lambda: cr.hvp(g)(X, X), cr.ShapeError, "hvp of g"),
    (lambda: cr.pushforward(g)(X), cr.InputTypeError, "pushforward of g: got 1 arguments"),
    (lambda: cr.pushforward(g)(X, X[1:]), cr.ShapeError, r"the tangent has shapes \[\(4,\)\].*must have \[\(5,\)\]"),
    (lambda: cr.pullback(g)(X, X), cr.ShapeError, r"the cotangent has shapes \[\(5,\)\].*must have \[\(4,\)\]"),
    (lambda: cr.jacobian(g, 0.5)(X), cr.InputTypeError, r"argnums=0.5"),
    (lambda: cr.jacobian(g, "x")(X), cr.InputTypeError, r"argnums='x'"),
    (lambda: cr.jacobian(g, order=None)(X), cr.InputTypeError, "auto, forward, reverse"),
    (lambda: cr.hessian(lambda x: x.sum(), order="up")(X), cr.InputTypeError, "hessian of .*'up'"),
    (lambda: cr.linearize(g)(jnp.arange(3)), cr.InputTypeError, "linearize of g: .*int64"),
    (lambda: cr.linearize(lambda x: x > 0)(X), cr.InputTypeError, "got bool"),
    (lambda: cr.gradient(g)(jnp.arange(3)), cr.InputTypeError, "gradient of g: .*int64"),
    (lambda: cr.pushforward(g)(jnp.arange(3), X), cr.InputTypeError, "pushforward of g: .*int64"),
    (lambda: cr.gradient(g, has_aux=True)(X), cr.InputTypeError, "gradient of g: .*needs a pair"),
    (lambda: cr.linearize(None), cr.InputTypeError, "linearize: the first argument must be a function, got NoneType"),
    (lambda: cr.hvp(g)(X), cr.InputTypeError, "hvp of g: got 1 arguments"),
    (lambda: cr.pushforward(g, 1)(X, X), cr.InputTypeError, "pushforward of g: argnums=1"),
    (lambda: cr.pushforward(g)(X, {"a": X}), cr.ShapeError, r"tangent has .*'a'.*must have"),
    (lambda: cr.hvp(lambda x: x.sum())(X, X[1:]), cr.ShapeError, r"hvp of .*\[\(4,\)\].*\[\(5,\)\]"),
    (lambda: cr.pushforward(g)(X, jax.lax.complex(X, X)), cr.InputTypeError, "pushforward of g: .*complex128.*float64"),
    (lambda: cr.jacobian(dilated_pool, order="reverse")(X), cr.MissingRuleError, "dilated_pool.*dilation.*forward"),
    (lambda: cr.jacobian(lambda x: x.at[np.array([0, 0])].multiply(x[:2]))(X), cr.MissingRuleError, "unique_indices"),
    (lambda: cr.jacobian(outward, order="forward")(X), cr.MissingRuleError, "outward.*custom_vjp.*reverse"),
    (lambda: cr.pushforward(outward)(X, X), cr.MissingRuleError, "outward.*custom_vjp.*pullback"),
]


@pytest.mark.parametrize("case", range(len(REFUSALS)))
def test_refusals_name_the_function_the_argument_and_the_way_out(case):
    call, error, text = REFUSALS[case]
    with pytest.raises(error, match=text):
        call()


def test_what_has_no_transpose_goes_forward():
    def loss(x):
        return dilated_pool(x).sum()

    np.testing.assert_array_equal(cr.jacobian(loss)(X).dense()[0], jax.jacfwd(loss)(X))


def test_a_nonlinear_custom_rule_is_refused():
    @jax.custom_vjp
    def f(x):
        return x * 1.0

    f.defvjp(lambda x: (x, None), lambda _, w: (jnp.clip(w, -0.5, 0.5),))
    with pytest.raises(cr.MissingRuleError, match="not linear"):
        cr.jacobian(f)(jnp.ones(2))


ADVICE = {"argnums": "with argnums", "holomorphic": "holomorphic=True", "has_aux": "has_aux=True"}
TRANSFORMS = [cr.jacobian, cr.linearize, cr.hessian, cr.plan, cr.check, cr.log_abs_det, cr.divergence]


@pytest.mark.parametrize("transform", [*TRANSFORMS, cr.laplacian, cr.triangular_inverse])
def test_an_error_names_the_options_that_there_are(transform):
    known = inspect.signature(transform).parameters
    whole, complex_x = jnp.ones(2, int), jnp.ones(2, complex)
    for f, x, option in [(lambda x: x, whole, "argnums"), (lambda x: x, complex_x, "holomorphic"),
                         (lambda x: (x, x.astype(int)), jnp.ones(2), "has_aux")]:  # fmt: skip
        with pytest.raises((cr.InputTypeError, cr.ShapeError)) as refused:
            transform(f)(x)
        if isinstance(refused.value, cr.InputTypeError):
            assert (ADVICE[option] in str(refused.value)) == (option in known)


def test_what_has_a_start_has_no_argnums():
    for run in (
        lambda x: cr.gradient_flow(lambda x: x @ x, x, 1.0),
        lambda x: cr.langevin(lambda x: -x, x, jax.random.key(0), step=0.1, steps=1),
        lambda x: cr.root(lambda x, y: y - x, x)(jnp.ones(2)),
    ):
        for x in (jnp.ones((2, 2), int), "a start"):
            with pytest.raises(cr.InputTypeError, match="convert ") as refused:
                run(x)
            assert "argnums" not in str(refused.value)


def branching(x):
    return x if x[0] > 0 else -x


@pytest.mark.parametrize(
    "transform",
    [
        *(lambda f, order=order: cr.jacobian(f, order=order) for order in ("auto", "forward", "reverse")),
        cr.hessian,
        cr.linearize,
    ],
)
def test_what_cannot_be_traced_is_named_with_its_line(transform):
    line = branching.__code__.co_firstlineno
    with pytest.raises(jax.errors.TracerBoolConversionError, match=rf"branching at .*test_api_refusals\.py:{line}"):
        transform(branching)(jnp.ones(3))


@pytest.mark.parametrize("transform", [cr.jacobian, cr.linearize])
def test_a_real_function_of_complex_numbers_is_not_holomorphic(transform):
    with pytest.raises(cr.InputTypeError, match=r"holomorphic=True needs complex outputs, got float64 of shape \(2,\)"):
        transform(jnp.abs, holomorphic=True)(jnp.array([1.0 + 2.0j, 3.0j]))
