"""Order and cost: one value, many costs, and the cheapest order found. Counted as products of Jacobians."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

S = jax.ShapeDtypeStruct


def through(x, matrices):
    return functools.reduce(lambda u, A: A @ u, matrices, x)


def net(x, matrices):
    return functools.reduce(lambda u, A: jnp.tanh(A @ u), matrices, x)


def matrices(*sizes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(n)) for n, m in itertools.pairwise(sizes)]


def shapes(*sizes):
    return [S((m, n), jnp.float64) for n, m in itertools.pairwise(sizes)]


def test_c1_every_order_gives_the_same_value():
    W, x = matrices(60, 50, 3, 40, 70), jnp.ones(60)
    p = cr.plan(net)(x, W)
    found = [cr.jacobian(net, order=order)(x, W).dense() for order in ("forward", "reverse", p)]
    assert p.chosen == "mixed"
    for J in found:
        np.testing.assert_allclose(J, jax.jacfwd(net)(x, W), rtol=1e-12, atol=1e-14)


def test_c2_both_bracketings_of_three_matrices():
    m, n, p = 30, 20, 10  # A: 1×m, B: m×n, C: n×p
    plan = cr.plan(through)(S((p,), jnp.float64), shapes(p, n, m, 1))
    assert plan["reverse"].multiply_adds == m * n + n * p  # (A B) C
    assert plan["forward"].multiply_adds == m * n * p + m * p  # A (B C)
    assert plan.chosen == "reverse"
    assert "800" in str(plan)
    assert "6,300" in str(plan)


def test_c3_a_million_inputs_and_ten_layers():
    sizes = (10**6, *[10**3] * 10, 1)
    plan = cr.plan(through)(S((10**6,), jnp.float32), [S(w.shape, jnp.float32) for w in shapes(*sizes)])
    forward, reverse = plan["forward"], plan["reverse"]
    assert (forward.peak, reverse.peak) == (10**9, 10**3)
    assert forward.multiply_adds == 9_001 * 10**9
    assert reverse.multiply_adds == 1_009 * 10**6
    one = 10**9 + 9 * 10**6 + 10**3
    assert plan.single == one  # 10⁶ separate pushforwards take a million times one pullback
    text = str(plan)
    assert "products of Jacobians" in text
    assert f"1,000,000 separate pushforwards take {10**6 * one:,} multiply-adds, 1 pullbacks {one:,}" in text


@pytest.mark.parametrize(
    ("sizes", "wanted"),
    [((3, 50, 200), "forward"), ((200, 50, 1), "reverse"), ((300, 200, 4, 200, 300), "mixed")],
)
def test_c4_the_shape_decides(sizes, wanted):
    assert cr.plan(net)(S((sizes[0],), jnp.float64), shapes(*sizes)).chosen == wanted


def test_c5_a_pullback_never_makes_the_matrix():
    n = 10**4
    layer = cr.pullback(lambda x, W: jnp.tanh(W @ x))
    compiled = layer.trace(S((n,), jnp.float32), S((n, n), jnp.float32), S((n,), jnp.float32)).lower().compile()
    # beside the 10⁸ entries of W, which are given, nothing of the size of the layer's Jacobian
    assert compiled.memory_analysis().temp_size_in_bytes < 10**6


def test_c6_one_sweep_an_input_or_an_output():
    sizes = (40, 30, 20, 50)
    plan = cr.plan(through)(S((40,), jnp.float64), shapes(*sizes))
    assert plan.single == 40 * 30 + 30 * 20 + 20 * 50
    # as products the first layer is taken as it is
    assert plan["forward"].multiply_adds == 40 * (30 * 20 + 20 * 50)
    assert plan["reverse"].multiply_adds == 50 * (20 * 30 + 30 * 40)


@pytest.mark.parametrize("seed", range(5))
def test_c7_the_best_order_of_a_chain(seed):
    rng = np.random.default_rng(seed)
    sizes = tuple(int(s) for s in rng.integers(50, 900, size=9))

    @functools.cache
    def best(i, j):
        splits = [best(i, k) + best(k, j) + sizes[i] * sizes[k] * sizes[j] for k in range(i + 1, j)]
        return min(splits, default=0)

    plan = cr.plan(through)(S((sizes[0],), jnp.float64), shapes(*sizes))
    assert min(o.multiply_adds for o in plan.orders) == pytest.approx(best(0, 8), rel=0.02)


def test_c7_a_diagonal_costs_a_scaling():
    plan = cr.plan(lambda x, d, A: A @ (d * x))(S((40,), jnp.float64), S((40,), jnp.float64), S((30, 40), jnp.float64))
    assert plan["forward"].multiply_adds == plan["reverse"].multiply_adds == 30 * 40
