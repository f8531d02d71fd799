"""Chains of steps that are written out agree with JAX, and their bands are multiplied link by link."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from time_steps import WALLS, results_of, rod

import chainrule as cr
from chainrule._accumulate import links

rng = np.random.default_rng(0)


def ring(u: Any) -> Any:
    left, right = jnp.roll(u, 1, -1), jnp.roll(u, -1, -1)
    return u - 0.1 * u * (right - left) + 0.2 * (right - 2 * u + left)


def midpoint(u: Any) -> Any:
    return u + 0.1 * rod(u + 0.05 * rod(u))


def times(step: Any, count: int) -> Any:
    def f(u: Any) -> Any:
        for _ in range(count):
            u = step(u)
        return u

    return f


def plane(u: Any) -> Any:
    """Neighbours along two axes: its columns do not move alike in all rows."""
    return u * (jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0)) + u * (jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1)) - 4 * u * u


CHAINS = {
    "zero outside": (times(rod, 3), (12,), 2),
    "periodic": (times(ring, 3), (12,), 2),
    "until dense": (times(ring, 7), (12,), None),
    "rows of their own": (times(ring, 3), (3, 12), 2),
    "several stages": (times(midpoint, 3), (20,), 2),
    "fixed walls": (times(lambda u: WALLS * rod(u), 3), (12,), 2),
    "between dense layers": (lambda x: np.ones((4, 12)) @ times(ring, 3)(np.ones((12, 5)) @ x), (5,), None),
    "what enters has gaps": (lambda x: times(rod, 3)(jnp.pad(x[::2], (3, 3)) + jnp.pad(x, 0)[:12]), (12,), None),
    "two axes": (times(plane, 2), (4, 5), 0),
    "one input of two": (lambda x: times(ring, 3)(x[0] * x[1]), (2, 12), None),
    "growing": (times(lambda u: rod(jnp.pad(u, 1))[1:], 3), (9,), None),
    "complex": (lambda x: jnp.abs(times(ring, 3)(jax.lax.complex(x, 2 * x))), (12,), 0),
    "single": (times(lambda u: u * jnp.roll(u, 1), 3), (12,), 0),
}


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("name", list(CHAINS))
def test_agrees_with_jax(name: str, order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    f, shape, count = CHAINS[name]
    if name == "complex" and order == "reverse":
        order = "forward"
    found = results_of(monkeypatch, links, "_multiplied")
    x = jnp.asarray(rng.uniform(0.5, 1.0, size=shape))
    J = cr.jacobian(f, order=order)(x)
    dense = jax.jacfwd(f)(x)
    np.testing.assert_allclose(J.dense().reshape(dense.shape), dense, rtol=1e-12, atol=1e-13)
    if count is not None:
        assert sum(m is not None for m in found) == count


@pytest.mark.parametrize("name", ["zero outside", "periodic", "fixed walls"])
def test_the_pattern_is_that_of_the_equations(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    f, shape, _ = CHAINS[name]
    x = jnp.asarray(rng.uniform(0.5, 1.0, size=shape))
    J = cr.jacobian(f, order="forward")(x)
    monkeypatch.setattr(links, "_multiplied", lambda *_: None)
    K = cr.jacobian(lambda x: f(x), order="forward")(x)
    assert J.nnz == K.nnz and J.cost < K.cost
    assert (J.scipy() != 0).nnz == (abs(J.scipy()) + abs(K.scipy()) != 0).nnz


def test_a_chain_under_transforms() -> None:
    f = times(rod, 3)
    xs = jnp.asarray(rng.uniform(0.5, 1.0, size=(4, 12)))

    def norm(jacobian: Any) -> Any:
        return lambda x: (jacobian(x) ** 2).sum()

    ours = jax.jit(lambda x: cr.jacobian(f)(x).dense())
    np.testing.assert_allclose(jax.vmap(ours)(xs), jax.vmap(jax.jacfwd(f))(xs), rtol=1e-12, atol=1e-13)
    expected = jax.grad(norm(jax.jacfwd(f)))(xs[0])
    np.testing.assert_allclose(jax.grad(norm(ours))(xs[0]), expected, rtol=1e-11, atol=1e-12)


def test_a_band_is_moved_once_a_step() -> None:
    """The multiply-adds of a long chain are those of the products alone, and one Jacobian for each step."""
    x = jnp.asarray(rng.uniform(size=200))
    short, long = (cr.jacobian(times(ring, n), order="forward")(x) for n in (5, 9))
    products = sum(3 * (2 * n + 3) * 200 for n in range(5, 9))
    own = cr.jacobian(ring, order="forward")(x).cost
    assert long.cost - short.cost == products + 4 * own
