"""Random programs against `jax.jacfwd` in float64; Hypothesis shrinks a failure and prints how to repeat it.

Points are random, so that they miss the kinks; a program that makes one of its own (the norm of zeros), where JAX
itself gives no number, is drawn again.
"""

import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, seed, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule._jax import walk

GROUPS, EXAMPLES = 8, 12  # 96 programs, in parts that run side by side; the fuzzer runs others
CALLS = {"jit", "pjit", "closed_call", "custom_jvp_call", "custom_vjp_call"}  # they hold programs, and are none

sizes = st.sampled_from([2, 3, 1, 4, 2, 3, 4, 0])  # an empty array makes most of a program trivial
shapes = st.lists(
    st.lists(sizes, max_size=3).map(tuple).filter(lambda s: math.prod(s) <= programs.LIMIT), min_size=1, max_size=3
)


@pytest.fixture
def run_seed(testrun_uid):
    """One number for all parts of a run; a run is repeated by giving it in the environment."""
    return int(os.environ.get("CHAINRULE_SEED") or int(testrun_uid, 16) % 2**32)


def inputs_of(shapes, seed):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.uniform(-2, 2, size=s)) for s in shapes)


def wanted(f, x):
    """jacfwd of the flat outputs, [m, n]."""

    def flat(*a):
        return jnp.concatenate([o.ravel() for o in f(*a)])

    m = jax.eval_shape(flat, *x).size
    blocks = jax.jacfwd(flat, argnums=tuple(range(len(x))))(*x)
    return jnp.concatenate([b.reshape(m, a.size) for b, a in zip(blocks, x, strict=True)], axis=1)


def products(J):
    """What a user may ask a Jacobian for, next to its entries."""
    m, n = J.shape
    v, w = np.cos(np.arange(n)), np.sin(1.0 + np.arange(m))
    return (J @ v, J.T @ w) if isinstance(J, jax.Array) else (flat(J @ v), flat(J.T @ w))


def flat(tree):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def both(f, order, within, x):
    """(ours, JAX's) of one program, in one of the ways in which a Jacobian is used."""
    numbers = tuple(range(len(x)))

    def ours(*a):
        return cr.jacobian(f, argnums=numbers, order=order)(*a)

    def theirs(*a):
        return wanted(f, a)

    if within == "jit":
        return jax.jit(lambda *a: products(ours(*a)))(*x), jax.jit(lambda *a: products(theirs(*a)))(*x)
    if within == "vmap":
        x = tuple(jnp.stack([a, a[::-1] if a.ndim else -a]) for a in x)
        return jax.vmap(ours)(*x).dense(), jax.jit(jax.vmap(theirs))(*x)
    if within == "grad":
        mine = jax.grad(lambda *a: jnp.sin(ours(*a).dense()).sum(), numbers)
        return jax.jit(mine)(*x), jax.jit(jax.grad(lambda *a: jnp.sin(theirs(*a)).sum(), numbers))(*x)
    return ours(*x).dense(), jax.jit(theirs)(*x)


def tolerance(f, x):
    """A step in float32 rounds forward tangents and backward cotangents differently."""
    steps = walk(jax.make_jaxpr(f)(*x).jaxpr)
    single = any(v.aval.dtype == jnp.float32 for eqn in steps for v in eqn.outvars)
    return 1e-5 if single else 1e-9


def check(program, shapes, order, within, point):
    x = inputs_of(shapes, point)

    def f(*a):
        return programs.run(program, *a)

    near = tolerance(f, x)
    ours, theirs = both(f, order, within, x)
    assume(all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(theirs)))
    try:
        agree(ours, theirs, near)
    except AssertionError:
        with (
            jax.disable_jit()
        ):  # XLA compiles the derivative of cumsum(pad(x)) wrongly: what it runs step by step counts
            agree(ours, both(f, order, within, x)[1], near)


def agree(ours, theirs, near):
    for got, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        scale = max(1.0, float(jnp.abs(expected).max(initial=0.0)))
        np.testing.assert_allclose(got, expected, rtol=near, atol=near * scale)


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs(group, run_seed):
    @seed(run_seed + group)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(
        program=programs.steps,
        shapes=shapes,
        order=st.sampled_from(["auto", "forward", "reverse"]),
        within=st.sampled_from(["eager", "eager", "jit", "vmap", "grad"]),
        point=st.integers(0, 1000),
    )
    def one(program, shapes, order, within, point):
        note(f"repeat the run with CHAINRULE_SEED={run_seed}")
        check(program, shapes, order, within, point)

    one()


def test_random_programs_are_made_of_many_primitives(run_seed):
    """What Hypothesis draws is counted, not what the grammar could make."""
    found, alive = set(), []

    @seed(run_seed)
    @settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck), database=None,
              phases=[Phase.generate])  # fmt: skip
    @given(program=programs.steps, shapes=shapes)
    def draw(program, shapes):
        closed = jax.make_jaxpr(lambda *a: programs.run(program, *a))(*inputs_of(shapes, 0))
        names = {eqn.primitive.name for eqn in walk(closed.jaxpr)} - CALLS
        found.update(names)
        alive.append(len(names))

    draw()
    assert len(found) >= 30, sorted(found)
    assert np.mean(alive) >= 3  # most programs do something


def test_every_step_of_the_grammar_is_traced():
    x = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    found = set()
    for step in programs.STEPS:
        found |= {eqn.primitive.name for eqn in walk(jax.make_jaxpr(lambda a, step=step: step(a, 3))(x).jaxpr)}
    assert len(found - CALLS) >= 60


def masked_product(x):
    """Both slots of the last row stand for the one input: they add up."""
    rows = jnp.outer(jnp.pad(x, (1, 0)), np.ones(2))
    return jnp.fft.fft((np.tril(np.ones((2, 2))) * rows) @ np.ones((2, 1)), axis=0).real


@pytest.mark.parametrize("order", ["auto", "forward", "reverse"])
@pytest.mark.parametrize("f", [masked_product])
def test_what_random_programs_have_found(f, order):
    x = jnp.ones(1)
    np.testing.assert_allclose(cr.jacobian(f, order=order)(x).dense(), wanted(lambda x: (f(x),), (x,)))
