"""Numbers of a graph: the values, and the Jacobians that the engine gives for its edges."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian
from chainrule._errors import ChainruleError
from chainrule._jax import Literal, as_callable
from chainrule._trace import Problem
from chainrule.explain.flatten import digest, signature
from chainrule.explain.graph import Edge, Graph, Group, Node, real_shape
from chainrule.explain.iterations import iterations
from chainrule.explain.products import Pattern, Product, constant, pushed, stacked
from chainrule.explain.tree import Step

MOST_ENTRIES = 1 << 20  # of a Jacobian whose numbers are computed
_TOGETHER = 64  # so many steps at most are compiled as one program
LARGE = 400  # more equations are not compiled as a whole
_QUICKLY = {"xla_backend_optimization_level": 0}  # what is run once is compiled with less effort
_CHAINED = 3  # steps of so many equations may be a diagonal and a map of low rank

Numbers = dict[str, Any]


@dataclass(frozen=True)
class Evaluated:
    """Of one point: (value, value after each iteration of a loop) by node, Jacobians by edge, the whole Jacobian.

    None stands for a Jacobian that is not formed, and for the iterations of what is no loop.
    """

    values: dict[str, Any]
    jacobians: dict[str, Any]
    whole: Any


class Evaluator:
    """Computes all numbers of a graph at any point of the same shapes."""

    def __init__(self, graph: Graph, problem: Problem) -> None:
        self.graph = graph
        self.group_edges = _group_edges(graph)
        self._across: dict[Group, dict[Node, list[Edge]]] = {g: {} for g in graph.groups}  # those of a group, by start
        for e in self.group_edges:
            assert e.group is not None
            self._across[e.group].setdefault(e.start, []).append(e)
        # those that stand in a group itself, its groups folded, in the order of what they lead to
        self.own: dict[Group | None, list[Edge]] = {g: [] for g in (None, *graph.groups)}
        for e in sorted([*graph.edges, *self.group_edges], key=lambda e: e.stop.number):
            self.own[e.group.parent if e.group else e.stop.group].append(e)
        self.large = graph.size > LARGE
        self._into: dict[Any, list[Edge]] = {}
        for e in graph.edges:
            self._into.setdefault(e.stop.variable, []).append(e)
        self._together = len(graph.edges) <= _TOGETHER
        with ThreadPoolExecutor() as pool:
            self._pieces: dict[Any, tuple[_Piece, Callable[..., Any]]] = {}
            self._pieces_of: dict[str, tuple[_Piece, int]] = {}  # of edges, and which one of the piece's Jacobians
            self._steps = [self._step(v, step, pool) for v, step in _in_order(graph)]
        self._whole = jacobian(_flat_function(problem), tuple(range(len(problem.leaves))))
        self._all = jax.jit(self._numbers, compiler_options=_QUICKLY) if self._together else self._numbers

    def __call__(self, leaves: Sequence[Any]) -> Evaluated:
        values, found, whole = self._all(jax.device_get(tuple(leaves)))
        values, entries = jax.device_get((values, {k: J and J[0] for k, J in found.items()}))
        local: Numbers = dict.fromkeys(found)
        for k, (piece, at) in self._pieces_of.items():
            if known := piece.known[at]:
                local[k] = Product.of(*known, entries[k], found[k][1])
        for group in reversed(self.graph.groups):  # those within come first
            for start, across in self._across[group].items():
                reached = pushed(start, self.own[group], local, MOST_ENTRIES)
                local |= {e.id: reached[e.stop.id] for e in across}
        return Evaluated(values, local, whole if whole is not None else self._multiplied(local))

    def _multiplied(self, local: dict[str, Any]) -> Any:
        """The whole Jacobian of a program that is too long to be compiled in a moment: the product of its steps."""
        graph = self.graph
        if not self.large or None in graph.outputs or self._entries > MOST_ENTRIES:
            return None
        columns = []
        for start in graph.inputs:
            reached = pushed(start, self.own[None], local, MOST_ENTRIES)
            parts = [_end(start, stop, reached) for stop in graph.outputs if stop is not None]
            if any(p is None for p in parts):
                return None
            columns.append(stacked(parts, 0))
        return stacked(columns, 1)

    @property
    def _entries(self) -> int:
        rows = sum(math.prod(real_shape(v.aval)) for v in self.graph.flat.outvars)
        return rows * sum(n.size for n in self.graph.inputs)

    # steps ----------------------------------------------------------------------------------------

    def _step(self, v: Any, step: Step, pool: Executor) -> tuple[Any, list[Any], Callable[..., Any], list[Any]]:
        """A value: its variable, those that it is computed from, the function that does it, and its constants."""
        graph = self.graph
        operands = [u for u in _read(v, step) if u in graph.of or u in graph.extra]
        jaxpr, consts = graph.flat.part(operands, [v], step.operations)
        given = [k for k, c in enumerate(consts) if _full(c)]
        starts = [e.start.variable for e in self._into.get(v, ())]
        chosen = [operands.index(u) for u in starts]
        kept = [digest(c) for k, c in enumerate(consts) if k not in given]
        key = (signature(jaxpr), *given, *kept, "by", *chosen)
        if key not in self._pieces:
            piece, arguments = _Piece(jaxpr, consts, given, chosen), [consts[k] for k in given]
            run = jax.jit(piece) if self._together else _compiled(piece, operands, arguments, pool)
            self._pieces[key] = piece, run
        piece, run = self._pieces[key]
        self._pieces_of |= {e.id: (piece, k) for k, e in enumerate(self._into.get(v, ()))}
        return v, operands, run, [consts[k] for k in given]

    def _numbers(self, leaves: Sequence[Any]) -> tuple[Numbers, Numbers, Any]:
        graph = self.graph
        values, histories = dict(zip(graph.flat.invars, leaves, strict=True)), dict[Any, Any]()
        local: Numbers = {}
        for v, operands, piece, arguments in self._steps:
            values[v], histories[v], found = piece([values[u] for u in operands], arguments)
            local |= {e.id: J for e, J in zip(self._into.get(v, ()), found, strict=True)}
        whole = self._at(leaves) if self._entries <= MOST_ENTRIES and not self.large else None
        known = {k.id: (values[k.variable], histories.get(k.variable)) for k in graph.nodes}
        return known, local, whole

    def _at(self, leaves: Sequence[Any]) -> Any:
        """The whole Jacobian; None where a step has no linear derivative."""
        try:
            return self._whole(*leaves)
        except ChainruleError:
            return None


def _in_order(graph: Graph) -> list[tuple[Any, Step]]:
    """All values that steps give, in the order of the program."""
    at = {v: k for k, o in enumerate(graph.flat.operations) for v in o.eqn.outvars}
    steps = {n.variable: n.step for n in graph.nodes if n.step is not None} | graph.extra
    return sorted(steps.items(), key=lambda pair: at[pair[0]])


def _read(v: Any, step: Step) -> list[Any]:
    """The variables from outside of a step that one of its values is computed from."""
    wanted, made = {v: None}, set()
    for o in reversed(step.operations):
        made.update(o.eqn.outvars)
        if any(w in wanted for w in o.eqn.outvars):
            wanted |= dict.fromkeys(u for u in o.eqn.invars if not isinstance(u, Literal))
    return [u for u in wanted if u not in made]


def _group_edges(graph: Graph) -> list[Edge]:
    """An edge for each input and output of a group between which there is a way inside."""
    into: dict[Group, list[Edge]] = {g: [] for g in graph.groups}
    for e in graph.edges:  # in topological order
        for group in e.stop.around():
            into[group].append(e)
    found = []
    for group in graph.groups:
        for start in group.inputs:
            reached = {start}
            for e in into[group]:
                if e.start in reached:
                    reached.add(e.stop)
            stops = [stop for stop in group.outputs if stop in reached]
            found += [Edge(f"{group.id}:{start.id}:{stop.id}", start, stop, group) for stop in stops]
    return found


def _end(start: Node, stop: Node, reached: dict[str, Any]) -> Any:
    """What an output is to an input: reached, the input itself, or apart from it."""
    if stop is start:
        return constant(np.eye(start.size))
    return reached[stop.id] if stop.id in reached else constant(np.zeros((stop.size, start.size)))


def _full(constant: Any) -> bool:
    """Whether a constant has no zeros and no repeated value that could give a Jacobian structure."""
    if not isinstance(constant, (jax.Array, np.ndarray)) or not jnp.issubdtype(constant.dtype, jnp.floating):
        return False
    known = np.asarray(constant)
    return known.size > 16 and bool((known != 0).all()) and bool((known != known.flat[0]).any())


class _Piece:
    """The value of a step, that after each iteration of a loop, and the entries of its Jacobians by chosen operands.

    Entries come with the parts of a map of low rank; what is known of each Jacobian without numbers stays here, for it
    is found while the piece is traced.
    """

    def __init__(self, jaxpr: Any, consts: Sequence[Any], given: Sequence[int], chosen: Sequence[int]) -> None:
        self._jaxpr, self._consts, self._given, self._chosen = jaxpr, consts, given, chosen
        self.known: list[tuple[Pattern, str] | None] = []  # (pattern, order) of each

    def __call__(self, operands: Sequence[Any], arguments: Sequence[Any]) -> Any:
        consts = list(self._consts)
        for k, value in zip(self._given, arguments, strict=True):
            consts[k] = value
        step, found = as_callable(self._jaxpr, consts), []
        for k in self._chosen:

            def by_one(x: Any, k: int = k) -> Any:
                return parts(step(*operands[:k], joined(x, operands[k].dtype), *operands[k + 1 :])[0])

            found.append(_local(by_one, parts(operands[k]), self._jaxpr))
        self.known = [J if J is None else (Pattern.of(J), J.order) for J in found]
        entries = [J if J is None else (J.assemble().coo()[2], getattr(J, "parts", None)) for J in found]
        return step(*operands)[0], iterations(self._jaxpr, consts, operands), entries


def _compiled(run: Any, operands: Sequence[Any], arguments: Sequence[Any], pool: Executor) -> Callable[..., Any]:
    """A long program is compiled step by step, several at a time."""
    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in operands]
    found = pool.submit(jax.jit(run, compiler_options=_QUICKLY).lower(shapes, arguments).compile)
    return lambda *args: found.result()(*args)


def _local(f: Callable[..., Any], x: Any, jaxpr: Any) -> Any:
    """The Jacobian of a step by one operand; None where it is too large, or where the step has no linear derivative."""
    m, n = math.prod(real_shape(jaxpr.outvars[0].aval)), x.size
    if m * n > MOST_ENTRIES:
        return None
    # what is of low rank goes through fewer numbers
    narrow = any(v.aval.size < n for e in jaxpr.eqns for v in e.outvars)
    if m == n > 8 and narrow and len(jaxpr.eqns) >= _CHAINED and (found := _update(jacobian(f, order="factored"), x)):
        return found
    for order in ("forward", "auto") if m >= n else ("auto",):  # the cheaper one is not worth the search for it
        with contextlib.suppress(ChainruleError):
            return jacobian(f, order=order)(x)
    return None


def parts(x: Any) -> Any:
    """An array of real numbers: of complex ones the real parts, then the imaginary ones."""
    return jnp.stack([x.real, x.imag]) if jnp.issubdtype(x.dtype, jnp.complexfloating) else x


def joined(x: Any, dtype: Any) -> Any:
    """What `parts` took apart."""
    return jax.lax.complex(x[0], x[1]) if jnp.issubdtype(dtype, jnp.complexfloating) else x


def _update(chained: Callable[..., Any], x: Any) -> Any:
    """A diagonal or sparse map plus one of low rank, where the step is one; else None."""
    try:
        factors = chained(x).factors
    except ChainruleError:
        return None
    return factors[0] if len(factors) == 1 and hasattr(factors[0], "parts") else None


def real_output(out: Any) -> Any:
    """An output as a list of real numbers; whole numbers do not change with the inputs."""
    flat = jnp.asarray(out)
    return jnp.ravel(parts(flat) if jnp.issubdtype(flat.dtype, jnp.inexact) else flat.astype(float))


def _flat_function(problem: Problem) -> Callable[..., Any]:
    def function(*leaves: Any) -> Any:
        outs = [real_output(o) for o in jax.tree.leaves(problem.function(*leaves))]
        return outs[0] if len(outs) == 1 else tuple(outs)

    function.__name__ = getattr(problem.f, "__name__", "f")
    return function
