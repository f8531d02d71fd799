"""What a task is: one answer, in several ways that take turns; and how a reference is computed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

VARIANTS = 8  # inputs that a way is given in turn: more than there are factors that SuperLU's callback keeps
KLU = importlib.util.find_spec("klujax") is not None

Way = Callable[[int], Any]  # number of the input -> the answer, with the device synchronized


@dataclass(frozen=True)
class Ways:
    """What a task compares.

    ways : by name; the first is ours, and the ratios are to it.
    reference : the answer to the first input, a tree like that of each way.
    parts : ways that do only a share of the work and give no answer.
    once : ways so slow that the run which is checked is the one that is timed.
    note : what the report should say beside the name.
    """

    ways: dict[str, Way]
    reference: Any
    parts: frozenset[str] = frozenset()
    once: frozenset[str] = frozenset()
    note: str = ""


@dataclass(frozen=True)
class Task:
    """Some rows of the report.

    most_ms : by way, the median that it should stay within.
    times : by rival, how many times as long as ours it should take.
    within : the largest relative error of ours.
    smoke : whether the task is small enough for a short run; small ones are in no other.
    """

    name: str
    make: Callable[[], Ways]
    most_ms: dict[str, float] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    within: float = 1e-12
    smoke: bool = False


def jitted(f: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> Way:
    """Compile at the first call; each call takes the next input."""
    g, inputs = jax.jit(f), [jax.tree.map(jnp.asarray, given) for given in inputs]
    return lambda i: jax.block_until_ready(g(*inputs[i % len(inputs)]))


def on_host(f: Callable[..., Any], inputs: Sequence[tuple[Any, ...]]) -> Way:
    return lambda i: f(*inputs[i % len(inputs)])


def refined(A: Any, b: np.ndarray, steps: int = 3) -> np.ndarray:
    """A x = b by SuperLU, its residual corrected in extended precision."""
    lu, wide = scipy.sparse.linalg.splu(A.astype(float).tocsc()), A.astype(np.longdouble).tocsr()
    x = lu.solve(b.astype(float)).astype(np.longdouble)
    for _ in range(steps):
        x = x + lu.solve((b - wide @ x).astype(float))
    return x
