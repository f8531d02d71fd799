"""Count the multiplications that orders of elimination take for functions of scalars.

    python benchmarks/scalar_counts.py [effort]

Prints one row a function. Published counts stand behind a slash; `effort` is the number of trials of annealing.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from problems.scalar_graphs import Scalar, functions
from rich.console import Console
from rich.table import Table

from chainrule._plan import elimination

VIEWS = {"reshape", "slice", "squeeze", "broadcast_in_dim", "concatenate", "stack", "unstack", "split",
         "convert_element_type", "copy"}  # fmt: skip
FLAT = {"sign", "gt", "ge", "lt", "le", "eq", "ne", "stop_gradient"}  # their derivatives are zero


def graph_of(f: Callable[..., Any], *xs: Any) -> dict[tuple[int, int], int]:
    """The graph of what computes with scalars: one vertex an equation of the jaxpr that depends on the inputs.

    Every operand that does so gives one edge, also where its derivative is constant; views give neither vertices nor
    edges. What no output depends on is left out. An output that is used further becomes a vertex to eliminate, with an
    output of its own behind an edge that is the identity and costs nothing, as in the published counts.
    """
    closed = jax.make_jaxpr(f)(*xs)
    edges: dict[tuple[int, int], int] = {}
    shapes = [v.aval.shape for v in closed.jaxpr.invars]
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
    names = [np.arange(end - math.prod(shape), end).reshape(shape) for shape, end in zip(shapes, ends, strict=True)]
    outs = [int(v) for a in walk(closed.jaxpr, names, edges, [ends[-1]]) for v in np.ravel(a) if v >= 0]
    return with_outputs(edges, outs)


def walk(jaxpr: Any, names: list[np.ndarray], edges: dict[tuple[int, int], int], free: list[int]) -> list[np.ndarray]:
    """Add the equations to the edges; arrays of vertices stand for values, -1 for constants."""
    known = dict(zip(jaxpr.invars, names, strict=True))

    def read(v: Any) -> np.ndarray:
        literal = hasattr(v, "val") or v not in known
        return np.full(v.aval.shape, -1) if literal else known[v]

    for eqn in jaxpr.eqns:
        operands, name = [read(v) for v in eqn.invars], eqn.primitive.name
        if "jaxpr" in eqn.params:
            results = walk(eqn.params["jaxpr"].jaxpr, operands, edges, free)
        elif name in VIEWS:
            kept = {k: p for k, p in eqn.params.items() if k != "new_dtype"}
            same = name in ("convert_element_type", "copy")
            moved = operands[0] if same else eqn.primitive.bind(*operands, **kept)
            results = [np.asarray(a) for a in (moved if isinstance(moved, list) else [moved])]
        elif name in FLAT or all((a < 0).all() for a in operands):
            results = [np.full(v.aval.shape, -1) for v in eqn.outvars]
        else:
            results = [vertex(operands, edges, free)]
        known.update(zip(eqn.outvars, results, strict=True))
    return [read(v) for v in jaxpr.outvars]


def vertex(operands: list[np.ndarray], edges: dict[tuple[int, int], int], free: list[int]) -> np.ndarray:
    """A new vertex behind the operands."""
    s = free[0]
    free[0] += 1
    edges.update({(int(a), s): elimination.NUMBER for a in operands if a.item() >= 0})
    return np.array(s)


def with_outputs(edges: dict[tuple[int, int], int], outs: list[int]) -> dict[tuple[int, int], int]:
    """Keep what leads to an output; give outputs that are used further a vertex of their own."""
    live = set(outs)
    for p, s in sorted(edges, key=lambda edge: -edge[1]):
        if s in live:
            live.add(p)
    kept = {edge: value for edge, value in edges.items() if edge[1] in live}
    used, last = {p for p, _ in kept}, max(s for _, s in kept)
    further = (v for v in outs if v in used)
    return kept | {(v, last + 1 + k): elimination.IDENTITY for k, v in enumerate(further)}


def row(scalar: Scalar, effort: int) -> list[str]:
    """The cells of one function."""
    edges = graph_of(scalar.f, *scalar.x)
    times = []
    for _ in range(20):
        start = time.perf_counter()
        elimination.delta_greedy(edges)
        times.append(time.perf_counter() - start)
    costs = {plan.rule: f"{plan.cost:.0f}" for plan in elimination.orderings(edges)}
    for rule, published in zip(("forward", "reverse", "Markowitz"), scalar.published, strict=False):
        costs[rule] += f" / {published}"
    least = elimination.best(edges, effort=effort)
    learned = f" / {scalar.published[3]}" if scalar.published else ""
    vertices = len(elimination.ComputationalGraph(edges).inner())
    return [scalar.name, str(vertices), *costs.values(), f"{least.cost:.0f}{learned}", f"{1e3 * min(times):.1f}"]


def main() -> None:
    effort = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    table = Table("function", "vertices", "forward", "reverse", "Markowitz", "ELIAD", "delta", "least / learned", "ms")
    for scalar in functions:
        table.add_row(*row(scalar, effort))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
