"""Numbers of a graph: the values, and the Jacobians that the engine gives for its edges."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian
from chainrule._errors import ChainruleError
from chainrule._jax import Literal, as_callable
from chainrule._trace import Problem
from chainrule.explain.graph import Edge, Graph, Group, Node
from chainrule.explain.products import Product, pushed, stacked

_MOST_ENTRIES = 1 << 20  # of a Jacobian whose numbers are computed
_TOGETHER = 64  # so many steps at most are compiled as one program
LARGE = 400  # more equations are not compiled as a whole
_CHAINED = 3  # steps of so many equations may be a diagonal and a map of low rank

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """Of one point: values by node, Jacobians by edge (None: not formed), the whole Jacobian."""

    values: dict[str, Any]
    jacobians: dict[str, Any]
    whole: Any


class Evaluator:
    """Computes all numbers of a graph at any point of the same shapes."""

    def __init__(self, graph: Graph, problem: Problem) -> None:
        self.graph = graph
        self.pieces: dict[Any, Callable[..., Any]] = {}
        self.edges = [self._edge(e) for e in graph.edges]
        self.group_edges = _group_edges(graph)
        self.large = graph.size > LARGE
        self._whole = jacobian(_flat_function(problem), tuple(range(len(problem.leaves))))
        self._all = jax.jit(self._numbers) if len(graph.edges) <= _TOGETHER else self._numbers

    def __call__(self, leaves: Sequence[Any]) -> Evaluated:
        values, found, whole = self._all(tuple(leaves))
        local = {k: None if J is None else Product.of(J) for k, J in found.items()}
        jacobians = dict(found)
        for group in reversed(self.graph.groups):  # those within come first
            for start in group.inputs:
                edges = [e for e in self._own(group) if e.id in local]
                reached = pushed(start, edges, local, _MOST_ENTRIES)
                for edge in self.group_edges:
                    if edge.group is group and edge.start is start:
                        jacobians[edge.id] = local[edge.id] = reached[edge.stop.id]
        return Evaluated(values, jacobians, whole if whole is not None else self._multiplied(local))

    def _own(self, group: Group | None) -> list[Edge]:
        """The edges that stand in a group itself, its groups folded, in the order of what they lead to."""
        inner = [g for g in self.graph.groups if g.parent is group]
        own = [e for e in self.graph.edges if e.stop.group is group]
        own += [e for e in self.group_edges if e.group in inner]
        return sorted(own, key=lambda e: int(e.stop.id[1:]))

    def _multiplied(self, local: dict[str, Any]) -> Any:
        """The whole Jacobian of a program that is too long to be compiled in a moment: the product of its steps."""
        graph = self.graph
        if not self.large or None in graph.outputs or self._entries > _MOST_ENTRIES:
            return None
        edges, columns = self._own(None), []
        for start in graph.inputs:
            reached = pushed(start, edges, local, _MOST_ENTRIES)
            parts = [_end(start, stop, reached) for stop in graph.outputs if stop is not None]
            if any(p is None for p in parts):
                return None
            columns.append(stacked(parts, 0))
        return stacked(columns, 1)

    @property
    def _entries(self) -> int:
        rows = sum(math.prod(v.aval.shape) for v in self.graph.flat.outvars)
        return rows * sum(n.size for n in self.graph.inputs)

    # steps ----------------------------------------------------------------------------------------

    def _edge(self, edge: Edge) -> Callable[[dict[Any, Any]], Any]:
        """A function of the values that gives the Jacobian of one edge."""
        graph, node = self.graph, edge.stop
        operands = [edge.start.variable, *(v for v in self._others(node) if v is not edge.start.variable)]
        jaxpr, consts = graph.flat.part(operands, [node.variable], node.step and node.step.operations)
        given = [k for k, c in enumerate(consts) if _full(c)]
        key = (str(jaxpr), *(id(c) for k, c in enumerate(consts) if k not in given))
        if key not in self.pieces:
            self.pieces[key] = _local(jaxpr, consts, given, edge)
        piece, arguments = self.pieces[key], [consts[k] for k in given]
        return lambda values: piece(values[operands[0]], [values[v] for v in operands[1:]], arguments)

    def _others(self, node: Node) -> list[Any]:
        assert node.step is not None
        made = {v for o in node.step.operations for v in o.eqn.outvars}
        read = dict.fromkeys(v for o in node.step.operations for v in o.eqn.invars if not isinstance(v, Literal))
        known = self.graph.of.keys() | set(self.graph.extra)
        return [v for v in read if v in known and v not in made]

    def _numbers(self, leaves: Sequence[Any]) -> tuple[Numbers, Numbers, Any]:
        graph = self.graph
        wanted = [n.variable for n in graph.nodes if n.step is not None] + graph.extra
        jaxpr, consts = graph.flat.part(graph.flat.invars, wanted)
        found = as_callable(jaxpr, consts)(*leaves)
        values = dict(zip([*graph.flat.invars, *wanted], [*leaves, *found], strict=True))
        local = {e.id: piece(values) for e, piece in zip(graph.edges, self.edges, strict=True)}
        whole = self._whole(*leaves) if self._entries <= _MOST_ENTRIES and not self.large else None
        return {k.id: values[k.variable] for k in graph.nodes}, local, whole


def _group_edges(graph: Graph) -> list[Edge]:
    """An edge for each input and output of a group between which there is a way inside."""
    found = []
    for group in graph.groups:
        inside = {id(n) for n in group.nodes}
        own = [e for e in graph.edges if id(e.stop) in inside]
        for start in group.inputs:
            reached = {id(start)}
            for e in own:  # in topological order
                if id(e.start) in reached and (e.start is start or id(e.start) in inside):
                    reached.add(id(e.stop))
            stops = [stop for stop in group.outputs if id(stop) in reached]
            found += [Edge(f"{group.id}:{start.id}:{stop.id}", start, stop, group) for stop in stops]
    return found


def _end(start: Node, stop: Node, reached: dict[str, Any]) -> Any:
    """What an output is to an input: reached, the input itself, or apart from it."""
    if stop is start:
        return Product(np.eye(start.size), np.eye(start.size, dtype=np.float32))
    apart = Product(np.zeros((stop.size, start.size)), np.zeros((stop.size, start.size), np.float32))
    return reached.get(stop.id, apart)


def _full(constant: Any) -> bool:
    """Whether a constant has no zeros and no repeated value that could give a Jacobian structure."""
    if not isinstance(constant, (jax.Array, np.ndarray)) or not jnp.issubdtype(constant.dtype, jnp.floating):
        return False
    known = np.asarray(constant)
    return known.size > 16 and bool((known != 0).all()) and bool((known != known.flat[0]).any())


def _local(jaxpr: Any, consts: Sequence[Any], given: Sequence[int], edge: Edge) -> Callable[..., Any]:
    """The Jacobian of a step by one operand, as a function of it, of the others and of the large constants."""
    m, n = edge.stop.size, edge.start.size

    def step(x: Any, others: Sequence[Any], arguments: Sequence[Any]) -> Any:
        own = list(consts)
        for k, value in zip(given, arguments, strict=True):
            own[k] = value
        return as_callable(jaxpr, own)(x, *others)[0]

    step.__name__ = edge.stop.name.plain
    if m * n > _MOST_ENTRIES:
        return lambda *args: None
    if m == n > 8 and len(jaxpr.eqns) >= _CHAINED:
        whole, chained = jacobian(step), jacobian(step, order="factored")
        return lambda *args: _update(chained, args) or whole(*args)
    return jacobian(step)


def _update(chained: Callable[..., Any], args: Any) -> Any:
    """A diagonal or sparse map plus one of low rank, where the step is one; else None."""
    try:
        factors = chained(*args).factors
    except ChainruleError:
        return None
    return factors[0] if len(factors) == 1 and hasattr(factors[0], "parts") else None


def _flat_function(problem: Problem) -> Callable[..., Any]:
    def function(*leaves: Any) -> Any:
        outs = [jnp.ravel(jnp.asarray(o)) for o in jax.tree.leaves(problem.function(*leaves))]
        return outs[0] if len(outs) == 1 else tuple(outs)

    function.__name__ = getattr(problem.f, "__name__", "f")
    return function
