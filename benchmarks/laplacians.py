"""Measure Laplacians of networks and energies against folx and dense JAX, side by side in one process.

    python benchmarks/laplacians.py [--smoke] [--only NAME] [--out DIR]

Each way takes a batch of points; the answers are compared with a loop of Hessian-vector products in its dtype.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from solve_problems.task import VARIANTS, Task, Ways, jitted
from solves import main

import chainrule as cr

FOLX = importlib.util.find_spec("folx") is not None
THRESHOLDS = (0, 6, 16, 10**9)
LEGEND = (
    "Medians in ms after a warm-up; the ways of a task take turns, each with eight inputs. ÷ ours: the time of a way "
    "over that of the first. folx at T: with sparsity_threshold=T. A way that refuses a function is not there. * marks "
    "a goal that is missed. Where the load average is not small, other processes ran at the same time."
)
RNG = np.random.default_rng(0)
Scalar = Callable[[Any], Any]


def network(widths: Sequence[int], dtype: Any) -> Scalar:
    """A tanh network; the last width is 1."""
    sizes = list(zip(widths[1:], widths, strict=False))
    layers = [(RNG.normal(size=(m, n)) / np.sqrt(n), 0.1 * RNG.normal(size=m)) for m, n in sizes]
    layers = [tuple(a.astype(dtype) for a in layer) for layer in layers]

    def f(x: Any) -> Any:
        for W, b in layers[:-1]:
            x = jnp.tanh(x @ W.T + b)
        return (x @ layers[-1][0].T + layers[-1][1]).sum()

    return f


def separable(blocks: int, size: int, dtype: Any) -> Scalar:
    """A sum over blocks of inputs of one network."""
    own = network((size, 32, 32, 1), dtype)
    return lambda x: jax.vmap(own)(x.reshape(blocks, size)).sum()


def pairs(x: Any) -> Any:
    return jnp.exp(-((x[:, None] - x[None]) ** 2)).sum()


def particles(x: Any) -> Any:
    r = x.reshape(-1, 3)
    return jnp.exp(-((r[:, None] - r[None]) ** 2).sum(-1)).sum()


def rosenbrock(x: Any) -> Any:
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def log_sum(x: Any) -> Any:
    return jax.nn.logsumexp(jnp.sin(x))


def attention(x: Any) -> Any:
    q = x.reshape(-1, 8)
    return (jax.nn.softmax(q @ q.T, axis=-1) @ jnp.tanh(q)).sum()


def convolved(x: Any) -> Any:
    return (jnp.convolve(jnp.tanh(jnp.convolve(x, np.arange(3).astype(x.dtype))), np.ones(3, x.dtype)) ** 2).sum()


def steps(x: Any) -> Any:
    """Ten steps of a nonlinear heat equation, in a loop."""

    def step(u: Any, _: Any) -> Any:
        wide = jnp.pad(u, 1)
        return u + 0.1 * (wide[2:] + wide[:-2] - 2 * u) - 0.1 * u**3, None

    return (lax.scan(step, x, None, length=10)[0] ** 2).sum()


def waist(n: int, dtype: Any) -> Scalar:
    """Few sums of many inputs, through a wide network."""
    W, own = (RNG.normal(size=(10, n)) / np.sqrt(n)).astype(dtype), network((10, 256, 256, 1), dtype)
    return lambda x: own(jnp.tanh(W @ x))


@jax.custom_vjp
def _bent(x: Any) -> Any:
    return jnp.sin(x)


_bent.defvjp(lambda x: (jnp.sin(x), x), lambda x, w: (jnp.cos(x) * w,))


def custom(x: Any) -> Any:
    return (_bent(x[1:]) * _bent(x[:-1])).sum()


def determinant(x: Any) -> Any:
    n = int(x.size**0.5)
    return jnp.linalg.slogdet(x.reshape(n, n) + 3 * jnp.eye(n, dtype=x.dtype))[1]


def trace_of_hessian(f: Scalar) -> Scalar:
    return lambda x: jnp.trace(jax.hessian(f)(x))


def product_loop(f: Scalar) -> Scalar:
    """One Hessian-vector product for each input, one after the other."""

    def g(x: Any) -> Any:
        def one(v: Any) -> Any:
            return jax.jvp(jax.grad(f), (x,), (v,))[1] @ v

        return lax.map(one, jnp.eye(x.size, dtype=x.dtype)).sum()

    return g


def folx_at(f: Scalar, threshold: int) -> Scalar:
    import folx

    return lambda x: folx.forward_laplacian(f, sparsity_threshold=threshold, disable_jit=True)(x).laplacian


def make(f: Scalar, n: int, batch: int, dtype: Any) -> Ways:
    inputs = [(RNG.normal(size=(batch, n)).astype(dtype),) for _ in range(VARIANTS)]
    ways = {"ours": cr.laplacian(f, batched=True), "jax.hessian": jax.vmap(trace_of_hessian(f))}
    ways["Hv loop"] = jax.vmap(product_loop(f))
    if FOLX:
        ways |= {f"folx at {t:g}": jax.vmap(folx_at(f, t)) for t in THRESHOLDS}
    reference = np.asarray(jax.jit(jax.vmap(product_loop(f)))(jnp.asarray(inputs[0][0])))
    return Ways({name: jitted(way, inputs) for name, way in ways.items() if _runs(way, inputs[0])}, reference)


def _runs(way: Scalar, given: tuple[Any, ...]) -> bool:
    try:
        jax.eval_shape(way, *given)
    except Exception:  # folx refuses in many ways
        return False
    return True


def all_tasks() -> Iterator[Task]:
    """Some rows for each function and dtype."""
    single, double = np.float32, np.float64
    for dtype in (single, double):
        makers = {
            "network 256-256-256-256-1": (network((256,) * 4 + (1,), dtype), 256, 64, 0.9),
            "separable 64×4": (separable(64, 4, dtype), 256, 8, 1.0),
            "pairs n=256": (pairs, 256, 4, 1.0),
            "particles 32×3": (particles, 96, 4, 1.0),
        }
        if dtype is double:
            makers |= {
                "Rosenbrock n=1000": (rosenbrock, 1000, 4, 1.0),
                "logsumexp n=256": (log_sum, 256, 4, 1.0),
                "attention 16×8": (attention, 128, 4, 1.0),
                "two convolutions n=256": (convolved, 256, 4, 1.0),
                "heat steps in a scan n=64": (steps, 64, 4, 1.0),
                "waist 1000-10-256-256-1": (waist(1000, dtype), 1000, 4, 1.0),
                "custom_vjp n=256": (custom, 256, 4, 1.0),
                "log-determinant 12×12": (determinant, 144, 4, 1.0),
            }
        rivals = ("jax.hessian", "Hv loop", *(f"folx at {t:g}" for t in THRESHOLDS))
        for name, (f, n, batch, goal) in makers.items():
            own = functools.partial(make, f, n, batch, dtype)
            within = 1e-3 if dtype is single else 1e-9
            yield Task(f"{name}: {np.dtype(dtype)}", own, {}, dict.fromkeys(rivals, goal), within)
    for name, f, n in (("small pairs", pairs, 12), ("small network", network((6, 8, 1), double), 6)):
        yield Task(name, functools.partial(make, f, n, 2, double), {}, {}, 1e-9, smoke=True)


if __name__ == "__main__":
    sys.exit(main(all_tasks, "laplacians", __doc__ or "", LEGEND))
