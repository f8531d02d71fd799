"""The order of the body of a loop: planned once, counted, shown in a plan and replayed."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr
from chainrule._jax import walk
from chainrule._plan.node import Leg

rng = np.random.default_rng(0)
N, LATENT, HIDDEN, STEPS = 200, 8, 64, 5


def weights(*shape):
    return rng.normal(size=shape) / np.sqrt(shape[-1])


E, V, U = weights(LATENT, N), weights(HIDDEN, LATENT), weights(LATENT, HIDDEN)
UX, SQUARE = weights(HIDDEN, LATENT), weights(LATENT, LATENT)
NARROW, WIDE = [weights(60, 20), weights(2, 60)], [weights(60, 2), weights(20, 60)]
X, XS = rng.normal(size=N), rng.normal(size=(STEPS, LATENT))


def body(h):
    return h + U @ jnp.sin(V @ h)


def latent(x):
    """A latent ODE: few numbers, many hidden ones, and a wide Jacobian that enters."""
    return jax.lax.scan(lambda h, _: (body(h), None), jnp.tanh(E @ x), None, length=STEPS)[0]


def by_fori_loop(x):
    return jax.lax.fori_loop(0, STEPS, lambda _, h: body(h), jnp.tanh(E @ x))


def recurrent(xs):
    def step(h, x):
        h = U @ jnp.tanh(V @ h + UX @ x)
        return h, (h, h[:2])

    return jax.lax.scan(step, jnp.zeros(LATENT), xs)[1]


def square(x):
    """A body without a waist: every bracketing is as dear."""
    return jax.lax.scan(lambda h, _: (jnp.tanh(SQUARE @ h), None), jnp.tanh(E @ x), None, length=STEPS)[0]


def two_parts(x):
    """A carry of two parts, one of which is handed on as it came."""

    def step(carry, _):
        h, c = carry
        return (c + U @ jnp.tanh(V @ h + UX @ c), h), c

    h = jnp.tanh(E @ x)
    return jax.lax.scan(step, (h, h * h), None, length=STEPS)


def nested(x):
    def step(h, k):
        return jax.lax.scan(lambda g, _: (body(g) * k, None), h, None, length=3)[0], None

    return jax.lax.scan(step, jnp.tanh(E @ x), jnp.linspace(0.2, 0.8, 4))[0]


def of_weights(w):
    """What is constant in the loop depends on the input."""
    return jax.lax.scan(lambda h, _: (jnp.tanh(w.T @ jnp.tanh(w @ h)), None), jnp.ones(3), None, length=STEPS)[0]


def waist(x):
    """A body that is narrow inside: it is assembled in two parts, and the wide Jacobian passes between them."""

    def step(h, _):
        for W in (*NARROW, *WIDE):
            h = jnp.tanh(W @ h)
        return h, None

    return jax.lax.scan(step, x.reshape(20, -1).sum(axis=1) * x[:20], None, length=3)[0]


FUNCTIONS = [
    (latent, X),
    (by_fori_loop, X),
    (recurrent, XS),
    (square, X),
    (two_parts, X),
    (nested, X),
    (of_weights, rng.normal(size=(30, 3))),
    (waist, X),
]
EVERY = pytest.mark.parametrize(("f", "x"), FUNCTIONS, ids=lambda v: getattr(v, "__name__", ""))


def difference(J, f, x):
    expected = jax.tree.leaves(jax.jacfwd(f)(x))
    rows = [np.asarray(e).reshape(-1, np.size(x)) for e in expected]
    return np.abs(np.asarray(J.dense()) - np.concatenate(rows)).max()


@EVERY
@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
def test_the_order_of_a_body_does_not_change_values(f, x, order):
    assert difference(cr.jacobian(f, order=order)(jnp.asarray(x)), f, x) < 1e-12


@EVERY
def test_the_order_of_a_body_is_replayed(f, x):
    x = jnp.asarray(x)
    p = cr.plan(f)(x)
    assert p == cr.plan(f)(x)
    q = cr.Plan.from_dict(json.loads(json.dumps(p.to_dict())))
    assert q == p
    assert str(q) == str(p)
    for order in p.orders:
        assert difference(cr.jacobian(f, order=replace(q, chosen=order.name))(x), f, x) < 1e-12
    assert cr.jacobian(f, order=q)(x).cost == cr.jacobian(f)(x).cost


def body_of(plan, order):
    (found,) = plan[order].bodies
    return found


def test_the_jacobian_of_a_body_with_a_waist_is_assembled_first():
    own = body_of(cr.plan(latent)(jnp.asarray(X)), "forward")
    assert own.length == STEPS
    assert own.legs[0].node is not None
    # a tanh of the hidden ones, and the products with both matrices, of N columns
    assert own.pushed == STEPS * (2 * LATENT * HIDDEN + HIDDEN) * N
    # the 8×8 Jacobian U diag V, its identity, and one product with 8×N
    assembled = STEPS * (HIDDEN * LATENT + LATENT * HIDDEN * LATENT)
    assert own.multiply_adds == pytest.approx(assembled + STEPS * LATENT * LATENT * N, rel=0.01)
    # by the blocks of the sweep, which also counts each factor of cos (V h)
    cost = cr.jacobian(latent, order="forward")(jnp.asarray(X)).cost
    assert cost == pytest.approx(own.multiply_adds + LATENT * N, rel=0.1)


def test_a_body_without_a_waist_is_pushed_through_its_equations():
    p = cr.plan(square)(jnp.asarray(X))
    assert all(b.pure for o in p.orders for b in o.bodies)
    assert "push from what enters to what leaves" in str(cr.plan(square)(jnp.asarray(X)))


def test_a_body_with_a_waist_inside_is_cut_there():
    own = body_of(cr.plan(waist)(jnp.asarray(X)), "forward")
    assert len(own.legs) == 2
    assert all(leg.node is not None for leg in own.legs)
    assert own.labels[own.legs[0].stop].startswith("the 2 of step")


def test_a_plan_says_how_the_steps_of_a_loop_are_taken():
    p = replace(cr.plan(latent)(jnp.asarray(X)), chosen="forward")
    (line,) = [s for s in p.steps() if "loop" in s]
    assert line.startswith("in each of the 5 steps of a loop: multiply by the Jacobian of what leaves by what enters (")
    assert f"multiply-adds in place of {STEPS * (2 * LATENT * HIDDEN + HIDDEN) * N:,}" in line


def test_the_order_that_a_plan_holds_is_the_one_that_is_taken():
    x = jnp.asarray(X)
    p = replace(cr.plan(latent)(x), chosen="forward")
    own = body_of(p, "forward")
    pushed = replace(own, legs=(Leg(0, len(own.cuts) - 1, None),))
    orders = tuple(replace(o, bodies=(pushed,)) if o.name == "forward" else o for o in p.orders)
    J, K = cr.jacobian(latent, order=p)(x), cr.jacobian(latent, order=replace(p, orders=orders))(x)
    assert K.cost > 3 * J.cost
    np.testing.assert_allclose(K.dense(), J.dense(), rtol=1e-10, atol=1e-12)


def test_the_pattern_of_a_loop_does_not_depend_on_the_order_of_its_body():
    J = cr.jacobian(recurrent, order="forward")(jnp.asarray(XS))
    assert J.nnz == np.count_nonzero(np.kron(np.tril(np.ones((STEPS, STEPS))), np.ones((LATENT, LATENT)))) * 10 // 8
    assert cr.jacobian(recurrent, order="reverse")(jnp.asarray(XS)).nnz == J.nnz


def test_a_loop_is_weighed_against_other_orders_with_the_order_of_its_body():
    W, steps = weights(N, LATENT), 200

    def f(x):
        return W @ jax.lax.scan(lambda h, _: (body(h), None), E @ x, None, length=steps)[0]

    p = cr.plan(f)(jnp.asarray(X))
    assert p.chosen == "mixed"
    assembled, last = steps * (HIDDEN * LATENT + LATENT * HIDDEN * LATENT), N * LATENT * N
    (own,) = p["mixed"].bodies
    # few columns are pushed: a product would save no time
    assert own.multiply_adds == own.pushed == steps * (2 * LATENT * HIDDEN + HIDDEN) * LATENT
    assert p["forward"].multiply_adds == pytest.approx(assembled + steps * LATENT * LATENT * N + last, rel=0.05)
    assert p["mixed"].multiply_adds == own.multiply_adds + last + N * LATENT * LATENT


def test_what_enters_with_a_step_is_placed_by_a_slice():
    """Its columns stand side by side, also where the step laid them beside those that are carried."""
    H, T = 6, 40
    W, U = rng.normal(size=(H, H)) / 3, rng.normal(size=(H, H)) / 3

    def f(xs):
        return jax.lax.scan(lambda h, x: (jnp.tanh(W @ h + U @ x),) * 2, jnp.zeros(H), xs)[1]

    xs = jnp.asarray(rng.normal(size=(T, H)))
    taken = {e.primitive.name for e in walk(cr.jacobian(f, order="forward").trace(xs).jaxpr.jaxpr)}
    assert "dynamic_update_slice" in taken and not any(name.startswith("scatter") for name in taken)
    J = cr.jacobian(f, order="forward")(xs)
    np.testing.assert_allclose(J.tree(), jax.jacfwd(f)(xs), rtol=1e-11, atol=1e-12)
