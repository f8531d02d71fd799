"""Loops that are weighted sums of neighbours agree with JAX, whatever their edges, entering carry and outputs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from time_steps import WALLS, results_of, rod

import chainrule as cr
from chainrule._rules import loop

rng = np.random.default_rng(0)
HOLES = np.array([1.0, 0.0, 2.0, 0.0, 0.0, 3.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0])


def ring(u: Any) -> Any:
    return u + 0.1 * u * (jnp.roll(u, 1) - 2 * u + jnp.roll(u, -1)) + 0.1 * jnp.sin(u)


def laplacian(w: Any) -> Any:
    """Periodic along the first axis, zero outside along the second."""
    wide = jnp.pad(w, ((0, 0), (1, 1)))
    return jnp.roll(w, 1, 0) + jnp.roll(w, -1, 0) + wide[:, 2:] + wide[:, :-2] - 4 * w


def two_fields(state: Any) -> Any:
    u, v = state
    return u + 0.1 * laplacian(u) + 0.1 * (u * u * v - 3 * u), v + 0.05 * laplacian(v) - 0.1 * u * u * v


def loops(step: Any, T: int, **options: Any) -> Any:
    return lambda u: lax.scan(lambda u, _: (step(u), None), u, None, length=T, **options)[0]


def kept(step: Any, T: int, **options: Any) -> Any:
    return lambda u: lax.scan(lambda u, _: (step(u), u), u, None, length=T, **options)


def driven(u: Any) -> Any:
    """Backwards, with a coefficient at each step; the states after each step come out."""
    return lax.scan(lambda u, a: (rod(a * rod(u)),) * 2, u, jnp.linspace(0.5, 1.5, 6), reverse=True)[1]


CASES = {
    "zero outside": (loops(rod, 3), (12,)),
    "zero outside, many steps": (loops(rod, 40), (60,)),
    "periodic": (loops(ring, 3), (12,)),
    "periodic, until dense": (loops(ring, 30), (12,)),
    "two fields, two axes": (lambda x: jnp.stack(loops(two_fields, 2)((x[0], x[1]))), (2, 5, 6)),
    "two fields, dense": (lambda x: jnp.stack(loops(two_fields, 20)((x[0], x[1]))), (2, 4, 4)),
    "kept": (kept(rod, 3), (12,)),
    "kept in stages": (kept(rod, 20), (60,)),
    "kept backwards": (kept(ring, 20, reverse=True), (50,)),
    "driven": (driven, (12,)),
    "some do not enter": (lambda x: loops(rod, 3)(x * HOLES), (12,)),
    "some enter twice": (lambda x: loops(rod, 20)(HOLES * x + 2 * jnp.roll(x, 3)), (12,)),
    "fixed walls": (loops(lambda u: WALLS * rod(u), 3), (12,)),
    "starts at zero": (lambda x: loops(two_fields, 2)((x, 0.0 * x))[1], (5, 6)),
}


@pytest.mark.parametrize("order", ["forward", "reverse"])
@pytest.mark.parametrize("name", list(CASES))
def test_agrees_with_jax(name: str, order: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = results_of(monkeypatch, loop, "stencil_of")
    f, shape = CASES[name]
    x = jnp.asarray(rng.uniform(0.2, 0.8, size=shape))
    J = cr.jacobian(f, order=order).trace(x).lower().compile()(x)
    wanted = jax.tree.leaves(jax.jacfwd(f)(x))
    np.testing.assert_allclose(J.dense(), jnp.concatenate([w.reshape(-1, x.size) for w in wanted]), atol=1e-12)
    assert order == "reverse" or any(s is not None for s in found)


def test_a_step_that_is_linear_over_the_reals_alone() -> None:
    def step(z: Any) -> Any:
        return 0.5 * jnp.roll(z, 1).conj() + lax.complex(0.1 * z.real * z.imag, jnp.sin(z.real))

    def f(x: Any) -> Any:
        z = loops(step, 3)(lax.complex(x[0], x[1]))
        return jnp.stack([z.real, z.imag])

    x = jnp.asarray(rng.uniform(size=(2, 5)))
    np.testing.assert_allclose(cr.jacobian(f)(x).dense(), jax.jacfwd(f)(x).reshape(10, 10), atol=1e-12)


def test_infinities_stay_where_they_are() -> None:
    f, x = loops(rod, 3), jnp.asarray(rng.uniform(size=12)).at[5].set(jnp.inf)
    J = np.asarray(cr.jacobian(f)(x).dense())
    wanted = np.asarray(jax.jacfwd(f)(x))
    sound = np.isfinite(wanted)
    assert sound[0].all() and sound[-1].all()
    np.testing.assert_allclose(J[sound], wanted[sound])
