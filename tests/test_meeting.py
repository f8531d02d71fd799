"""Sweeps that meet: the cut that is cheapest, and that any cut gives the Jacobian."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from test_hypothesis_programs import agree, inputs_of, shapes, tolerance, wanted

import chainrule as cr
from chainrule._accumulate import accumulate
from chainrule._accumulate.recorded import carried_out, swept
from chainrule._linear import LinearProgram, Step
from chainrule._plan import meeting
from chainrule._plan.body import divisible
from chainrule._plan.meeting import Sizes, boundary
from chainrule._plan.node import Meeting, Node
from chainrule._plan.pattern import Work
from chainrule._program import Linear

rng = np.random.default_rng(0)


def affine(first, then):
    return first[0] * then[0], then[0] * first[1] + then[1]


def gates(x):
    """h_t = a_t h_{t-1} + b_t with a = sigmoid(x)."""
    return jax.lax.associative_scan(affine, (jax.nn.sigmoid(x), jnp.asarray(np.cos(np.arange(len(x))), x.dtype)))[1]


def both(x):
    return jax.lax.associative_scan(affine, (jax.nn.sigmoid(x[0]), x[1]))[1]


def backwards(x):
    return jax.lax.associative_scan(affine, (jax.nn.sigmoid(x), jnp.sin(x)), reverse=True)[1]


def rows(x):
    """A recurrence for each of three channels."""
    return jax.lax.associative_scan(affine, (jax.nn.sigmoid(x), x**2), axis=0)[1]


def pieces(x):
    """Two outputs, one of them made of the other."""
    h = gates(x["gates"]) * x["scale"]
    return h, jnp.cumsum(jnp.flip(h)) + 1.0


CASES = {
    "gates": (gates, rng.normal(size=37)),
    "one step": (gates, rng.normal(size=64)),
    "gates and inputs": (both, rng.normal(size=(2, 45))),
    "backwards": (backwards, rng.normal(size=50)),
    "channels": (rows, rng.normal(size=(64, 4))),
    "single precision": (gates, rng.normal(size=40).astype(np.float32)),
}


def dense(J, x):
    """What `jax.jacfwd` gives, as a matrix."""
    return np.concatenate([np.asarray(leaf).reshape(-1, x.size) for leaf in jax.tree.leaves(J)])


@pytest.mark.parametrize("name", list(CASES))
def test_sweeps_meet_in_a_scan_by_pairs(name):
    f, x = CASES[name]
    x = jnp.asarray(x)
    compiled = cr.jacobian(f).trace(x).lower().compile()
    forward = cr.jacobian(f, order="forward")(x)
    near = 1e-5 if x.dtype == jnp.float32 else 1e-11
    for point in (x, 0.3 - x):
        J = compiled(point)
        assert J.order == "mixed"
        assert 2 * J.cost < forward.cost
        expected = dense(jax.jacfwd(f)(point), x)
        np.testing.assert_allclose(J.dense(), expected, rtol=near, atol=near)
        v, w = (jnp.cos(jnp.arange(n, dtype=x.dtype)) for n in J.shape[::-1])
        products = (J @ v.reshape(x.shape), expected @ v), (J.T @ w.reshape(f(x).shape), w @ expected)
        for ours, theirs in products:
            np.testing.assert_allclose(np.ravel(ours), theirs, rtol=100 * near, atol=100 * near)
    assert {*zip(*forward.coo()[:2], strict=True)} == {*zip(*J.coo()[:2], strict=True)}


def test_it_goes_through_transformations():
    x = jnp.asarray(rng.normal(size=(3, 40)))

    def norm(jacobian):
        return lambda x: jnp.sin(jacobian(x)).sum()

    J = jax.jit(jax.vmap(cr.jacobian(gates)))(x)
    np.testing.assert_allclose(J.dense(), jax.vmap(jax.jacfwd(gates))(x), rtol=1e-11, atol=1e-12)
    ours = jax.grad(norm(lambda x: cr.jacobian(gates)(x).dense()))(x[0])
    np.testing.assert_allclose(ours, jax.grad(norm(jax.jacfwd(gates)))(x[0]), rtol=1e-10, atol=1e-11)


def test_outputs_are_told_apart():
    x = {"gates": jnp.asarray(rng.normal(size=40)), "scale": jnp.asarray(1.5)}
    J = cr.jacobian(pieces)(x)
    expected = jax.jacfwd(pieces)(x)
    columns = [np.concatenate([np.reshape(e[k], (40, -1)) for k in ("gates", "scale")], axis=1) for e in expected]
    np.testing.assert_allclose(J.dense(), np.concatenate(columns), rtol=1e-11, atol=1e-11)


def test_what_is_stored_is_what_is_there():
    J = cr.jacobian(gates)(jnp.asarray(rng.normal(size=256)))
    assert J.nnz == 256 * 255 // 2
    assert str(J.structure) == "lower triangular"
    assert sum(leaf.size for leaf in jax.tree.leaves(J)) <= 1.15 * J.nnz


def test_a_plan_says_where_sweeps_meet_and_replays_it():
    x = jnp.asarray(rng.normal(size=64))
    p = cr.plan(gates)(x)
    assert p.chosen == "mixed"
    assert "where they meet" in str(p)
    kept = cr.Plan.from_dict(json.loads(json.dumps(p.to_dict())))
    assert kept == p
    J = cr.jacobian(gates, order=kept)(x)
    assert (J.order, J.cost) == ("mixed", p["mixed"].multiply_adds)
    np.testing.assert_allclose(J.dense(), jax.jacfwd(gates)(x), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: jnp.tanh(x[1:] - x[:-1]) * x[1:],
        lambda x: jax.lax.scan(lambda h, a: (h * a, h * a), x[0], x)[1],
        lambda x: gates(x).astype(complex),
    ],
    ids=["a stencil", "a loop", "complex"],
)
def test_elsewhere_one_sweep_is_taken(f):
    x = jnp.asarray(rng.normal(size=64))
    assert cr.jacobian(f)(x).order in ("forward", "reverse")


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(program=programs.steps, shapes=shapes, point=st.integers(0, 1000), share=st.floats(0, 1))
def test_any_cut_gives_the_jacobian(program, shapes, point, share):
    """The first arrays of a program are a closure of its graph."""
    x, met = inputs_of(shapes, point), []

    def f(*a):
        return programs.run(program, *a)

    def at_a_cut(problem, recorded, reverse):
        own = recorded.program
        if not own.steps or not divisible(own):
            return swept(problem, recorded)
        ahead = {id(v) for v in own.arrays[: len(own.inputs) + round(share * len(own.steps))]}
        for step in own.steps:  # of a step all results, or none
            if not ahead.isdisjoint(map(id, step.outs)):
                ahead.update(map(id, step.outs))
        cut = tuple(own.numbers[id(v)] for v in boundary(own, ahead))
        met.append(cut)
        node = Node("meet", 0, 1, met=Meeting(cut, Work(), 0))
        return carried_out(problem, recorded, [own.inputs, own.targets], node)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accumulate, "best_of", at_a_cut)
        J = cr.jacobian(f, argnums=tuple(range(len(x))))(*x)
    assume(met)
    expected = jax.jit(lambda *a: wanted(f, a))(*x)
    assume(bool(jnp.isfinite(expected).all()))
    agree(J.dense(), expected, tolerance(f, x))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_closure_is_cheaper(data):
    """Against all closures of a small random graph."""
    n = data.draw(st.integers(2, 8))
    arrays = [Linear((data.draw(st.integers(1, 3)),), np.float64) for _ in range(n)]
    steps = []
    for k in range(1, n):
        sources = data.draw(st.lists(st.sampled_from(arrays[:k]), min_size=1, max_size=3))
        steps.append(Step(None, tuple(sources), (arrays[k],)))
    program = LinearProgram((arrays[0],), (arrays[-1],), tuple(steps))

    def counts():
        return {
            id(v): np.array(data.draw(st.lists(st.integers(0, 9), min_size=v.size, max_size=v.size))) for v in arrays
        }

    computed = frozenset(id(v) for v in arrays[1:] if data.draw(st.booleans()))
    sizes = Sizes(program, counts(), counts(), computed, 0)

    def cost(ahead):
        own = sum(
            (sizes.forward if id(v) in ahead else sizes.reverse)[id(v)].sum() for v in arrays if id(v) in computed
        )
        users = {id(v) for s in steps if any(id(w) not in ahead for w in s.outs) for v in s.sources}
        return own + sum(sizes.product(v) for v in arrays if id(v) in ahead and id(v) in users)

    closures = [
        {id(arrays[0]), *map(id, chosen)}
        for count in range(n)
        for chosen in itertools.combinations(arrays[1:], count)
        if all({id(v) for v in s.sources} <= {id(arrays[0]), *map(id, chosen)} for s in steps if s.outs[0] in chosen)
    ]
    assert cost(sizes._ahead()) == min(map(cost, closures))


def test_large_numbers_are_counted_in_few_bits():
    a, b, c = (Linear((1,), np.float64) for _ in range(3))
    program = LinearProgram((a,), (c,), (Step(None, (a,), (b,)), Step(None, (b,), (c,))))
    forward, reverse = ({id(v): np.array([n]) for v, n in zip((a, b, c), own, strict=True)}
                        for own in ((1, 2**40, 2**41), (2**44, 1, 1)))  # fmt: skip
    sizes = Sizes(program, forward, reverse, frozenset(map(id, (b, c))), 0)
    assert sizes._ahead() == {id(a), id(b)}


def test_stencils_are_not_looked_at_from_their_outputs(monkeypatch):
    """No cut takes less than a multiply-add for each number: the counts of the forward sweep say enough."""
    monkeypatch.setattr(meeting, "cotangents", None)

    def smooth(x):
        return jnp.tanh(x[2:] - 2.0 * x[1:-1] + 3.0 * x[:-2])

    x = jnp.asarray(rng.normal(size=64))
    J = cr.jacobian(lambda x: smooth(smooth(x)))(x)
    np.testing.assert_allclose(J.dense(), jax.jacfwd(lambda x: smooth(smooth(x)))(x), rtol=1e-11, atol=1e-12)
    assert J.order == "forward"
