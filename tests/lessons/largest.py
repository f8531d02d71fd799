"""The largest array that a program forms: what shows that no matrix is among them."""

from collections.abc import Callable, Iterator
from typing import Any

import jax


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, those of the programs inside (`jit`, `cond`, …) too."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def largest_array(f: Callable[..., Any], *args: Any) -> int:
    """Number of elements of the largest array that any equation of f's program gives."""
    return max(v.aval.size for e in _equations(jax.make_jaxpr(f)(*args)) for v in e.outvars)
