"""Random programs against `jax.jacfwd` in float64; Hypothesis shrinks a failure and prints how to repeat it."""

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import chainrule as cr
from chainrule._jax import walk

GROUPS, EXAMPLES = 16, 36  # 576 programs, in parts that run side by side


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


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_programs(group):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
    @given(
        program=programs.steps,
        shapes=programs.shapes,
        order=st.sampled_from(["auto", "forward", "reverse"]),
        within=st.sampled_from(["eager", "eager", "vmap", "grad"]),
        seed=st.integers(0, 1000),
    )
    def check(program, shapes, order, within, seed):
        x = inputs_of(shapes, seed)

        def f(*a):
            return programs.run(program, *a)

        def ours(*a):
            return cr.jacobian(f, argnums=tuple(range(len(a))), order=order)(*a).dense()

        def theirs(*a):
            return wanted(f, a)

        if within == "vmap":
            ours, theirs = jax.jit(jax.vmap(ours)), jax.jit(jax.vmap(theirs))
            x = tuple(jnp.stack([a, a[::-1] if a.ndim else -a]) for a in x)
        elif within == "grad":
            numbers = tuple(range(len(x)))
            plain_ours, plain_theirs = ours, theirs
            ours = jax.jit(jax.grad(lambda *a: jnp.sin(plain_ours(*a)).sum(), numbers))
            theirs = jax.jit(jax.grad(lambda *a: jnp.sin(plain_theirs(*a)).sum(), numbers))
        else:
            theirs = jax.jit(theirs)
        for got, expected in zip(jax.tree.leaves(ours(*x)), jax.tree.leaves(theirs(*x)), strict=True):
            scale = max(1.0, float(jnp.abs(expected).max(initial=0.0)))
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * scale)

    check()


def test_programs_are_made_of_many_primitives():
    x = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    found = set()
    for step in programs.STEPS:
        found |= {eqn.primitive.name for eqn in walk(jax.make_jaxpr(lambda a, step=step: step(a, 3))(x).jaxpr)}
    assert len(found - {"jit", "pjit", "closed_call"}) >= 60
