"""Measure what an operation, a multiply-add and a number moved take on this machine's backend, in float64.

    uv run python benchmarks/calibrate.py

prints the line for `WEIGHTS` in `src/chainrule/_plan/weights.py`, with the date and the kind of machine.
"""

from __future__ import annotations

import datetime
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

jax.config.update("jax_enable_x64", True)


def seconds(function: Callable[..., Any], *args: Any) -> float:
    """Median of runs after a first one."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*args))
    runs = []
    for _ in range(40):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        runs.append(time.perf_counter() - start)
    return statistics.median(runs)


def operation() -> float:
    """Of a chain of small products, each a kernel of its own: what one more of them takes."""
    a = jnp.asarray(np.random.default_rng(0).normal(size=(12, 12))) / 12

    def chain(count: int) -> Callable[[Any], Any]:
        def run(x: Any) -> Any:
            for _ in range(count):
                x = jnp.tanh(a @ x)
            return x

        return run

    few, many = 8, 72
    return (seconds(chain(many), a) - seconds(chain(few), a)) / (many - few)


def multiply_add() -> float:
    """A product of matrices of the size of a Jacobian."""
    n = 384
    a = jnp.asarray(np.random.default_rng(0).normal(size=(n, n)))
    return seconds(lambda x: x @ a, a) / n**3


def number() -> float:
    """An element-wise product of arrays that no cache holds: two are read, one is written."""
    n = 4_000_000
    a = jnp.ones(n)
    return seconds(lambda x, y: x * y, a, a + 1) / (3 * n)


def main() -> None:
    """Print the measured weights."""
    own = f"Weights(operation={operation():.1e}, multiply_add={multiply_add():.1e}, number={number():.1e})"
    machine = f"{platform.machine()}, {jax.devices()[0].device_kind}, JAX {jax.__version__}"
    day = datetime.datetime.now(tz=datetime.UTC).date()
    line = f'"{jax.default_backend()}": {own},  # {day}, {machine}'
    Console(soft_wrap=True, highlight=False).print(line)


if __name__ == "__main__":
    main()
