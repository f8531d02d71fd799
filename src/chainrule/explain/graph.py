"""Values, groups and edges of a function, without numbers: what `explain` draws."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import Literal
from chainrule.explain.flatten import Flat
from chainrule.explain.names import Name, Names, given_name, leaving
from chainrule.explain.tree import Scope, Step, Uses, collapse, dissolve, fold_repeats, merge, tree_of

_MOST_OPERATIONS = 150  # more equations are shown line by line


@dataclass(eq=False)
class Node:
    """One value that depends on the inputs."""

    id: str
    variable: Any
    name: Name
    step: Step | None
    role: str
    group: Group | None = None
    text: str = ""
    operation: str = ""
    place: dict[str, Any] | None = None
    tree: Any = None

    @cached_property
    def shape(self) -> tuple[int, ...]:
        return real_shape(self.variable.aval)

    @cached_property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def number(self) -> int:
        """Its place in the order of the program."""
        return int(self.id[1:])

    def around(self) -> Iterator[Group]:
        """The groups that it is in, from within."""
        group = self.group
        while group is not None:
            yield group
            group = group.parent


def real_shape(aval: Any) -> tuple[int, ...]:
    """The shape as real numbers: complex ones are two each."""
    both = hasattr(aval, "dtype") and jnp.issubdtype(aval.dtype, jnp.complexfloating)
    return (2, *aval.shape) if both else tuple(aval.shape)


@dataclass(eq=False)
class Group:
    """Values that fold into one box."""

    id: str
    scope: Scope
    parent: Group | None
    nodes: list[Node] = field(default_factory=list)  # those inside, at every depth
    inputs: list[Node] = field(default_factory=list)
    outputs: list[Node] = field(default_factory=list)


@dataclass(eq=False)
class Edge:
    """From one value to one that is computed from it; of a group: for all that lies between."""

    id: str
    start: Node
    stop: Node
    group: Group | None = None


@dataclass(eq=False)
class Graph:
    """All of it; `extra` are values that are no nodes (whole numbers) and that steps read."""

    flat: Flat
    nodes: list[Node]
    groups: list[Group]
    edges: list[Edge]
    inputs: list[Node]
    outputs: list[Node | None]
    extra: dict[Any, Step]
    of: dict[Any, Node]
    size: int


def graph_of(flat: Flat, names: Sequence[str], detail: str) -> Graph:
    """The graph of a program, whose inputs have these names."""
    active = flat.active()
    root = tree_of(flat, active)
    count = sum(len(s.operations) for s in root.steps())
    lines = detail == "lines" or (detail == "auto" and count > _MOST_OPERATIONS)
    uses = merge(root, flat.outvars, active, lines)
    found = Names()
    inputs = [
        Node(f"n{k}", v, found.unique(name), None, "input", operation="input")
        for k, (v, name) in enumerate(zip(flat.invars, names, strict=True))
    ]
    made = _values(root, uses, found, flat)
    collapse(root)
    dissolve(root)
    fold_repeats(root)
    nodes = [*inputs, *_ordered(made, flat)]
    for k, node in enumerate(nodes):
        node.id = f"n{k}"
    groups = _groups(root, {id(n.step): n for n in made}, made)
    of = {n.variable: n for n in nodes}
    extra = {v: s for s in root.steps() for v in uses.results(s) if v not in of}
    edges = _edges(nodes, of, uses)
    graph = Graph(flat, nodes, groups, edges, inputs, [], extra, of, count)
    graph.outputs = [None if isinstance(v, Literal) else of.get(v) for v in flat.outvars]
    _borders(graph)
    return graph


def _values(root: Scope, uses: Uses, names: Names, flat: Flat) -> list[Node]:
    """A node for each value that is read outside of its step, named in the order of the program."""
    made: list[Node] = []
    inside: dict[Any, Any] = {}
    outputs = {v for v in flat.outvars if not isinstance(v, Literal)}
    wanted = [(step, v) for step in root.steps() for v in uses.results(step) if _differentiable(v)]
    given = {id(v): given_name(step, v, uses, inside) for step, v in wanted}
    names.uses.update({plain: names.uses.get(plain, -1) for plain in given.values() if plain})
    for step, v in wanted:
        plain = given[id(v)]
        name = names.unique(plain) if plain else names.anonymous()
        role = "output" if v in outputs else "step"
        made.append(_described(Node("", v, name, step, role), root, uses, inside))
    return made


def _described(node: Node, root: Scope, uses: Uses, inside: dict[Any, Any]) -> Node:
    """The text, the place and the operation of a value."""
    step = node.step
    assert step is not None
    node.operation = _word(step)
    if step.frame is None:
        return node
    at = step.frame.position
    text, node.tree = step.frame.expression
    line = next((s for s in step.scope.around() if s.kind == "line" and s.statement), None)
    if line is not None and line.statement is not None:
        node.place = line.statement.place()
        whole = all(s is step for s in line.steps()) or (bool(leaving(line, uses, inside)) and node.tree is None)
        if whole:
            text, node.tree = line.statement.text, line.statement.tree
    if at is not None and node.place is not None:
        node.place["line"] = at[0] if not node.place["line"] else node.place["line"]
    node.text = text
    return node


_WORDS = {
    "dot_general": "dot",
    "mul": "multiply",
    "sub": "subtract",
    "div": "divide",
    "neg": "negate",
    "integer_pow": "power",
    "pow": "power",
    "square": "square",
    "reduce_sum": "sum",
    "reduce_max": "max",
    "reduce_min": "min",
    "concatenate": "concatenate",
    "select_n": "where",
    "logistic": "σ",
    "custom_jvp_call": "custom",
    "custom_vjp_call": "custom",
    "custom_vjp_call_jaxpr": "custom",
    "conv_general_dilated": "convolution",
    "dynamic_slice": "slice",
}


def _word(step: Step) -> str:
    """A short word for what a step does: the function that is called in the source, or the primitive."""
    import ast

    tree = step.frame.expression[1] if step.frame else None
    primitives = step.primitives
    if isinstance(tree, ast.Call):
        called = tree.func
        name = called.attr if isinstance(called, ast.Attribute) else called.id if isinstance(called, ast.Name) else ""
        if name:
            return name[:24]
    for loop in ("scan", "while"):
        if loop in primitives:
            return loop
    real = [
        p for p in primitives if p not in ("broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "slice")
    ]
    if real[:1] == ["dot_general"] and set(real) <= {"dot_general", "add", "sub", "transpose"} and len(real) > 1:
        return "affine"
    return _WORDS.get((real or primitives)[-1], (real or primitives)[-1])


def _differentiable(v: Any) -> bool:
    return hasattr(v.aval, "dtype") and jnp.issubdtype(v.aval.dtype, jnp.inexact)


def _ordered(made: list[Node], flat: Flat) -> list[Node]:
    """In the order of the program."""
    at = {v: k for k, o in enumerate(flat.operations) for v in o.eqn.outvars}
    return sorted(made, key=lambda n: at[n.variable])


def _groups(root: Scope, known: dict[int, Node], made: list[Node]) -> list[Group]:
    groups: list[Group] = []
    by_step: dict[int, list[Node]] = {}
    for node in made:
        by_step.setdefault(id(node.step), []).append(node)

    def visit(scope: Scope, parent: Group | None) -> list[Node]:
        inside: list[Node] = []
        for item in scope.items:
            if isinstance(item, Step):
                own = by_step.get(id(item), [])
                for node in own:
                    node.group = parent
            else:
                group = Group(f"g{len(groups)}", item, parent)
                groups.append(group)
                own = group.nodes = visit(item, group)
            inside += own
        return inside

    visit(root, None)
    return [g for g in groups if g.nodes]


def _edges(nodes: list[Node], of: dict[Any, Node], uses: Uses) -> list[Edge]:
    edges: list[Edge] = []
    for node in nodes:
        if node.step is None:
            continue
        operands = uses.operands(node.step)
        for v in reads(node, operands):
            if v in of:
                edges.append(Edge(f"e{len(edges)}", of[v], node))
    return edges


def reads(node: Node, operands: Sequence[Any]) -> list[Any]:
    """The operands of a step that one of its values depends on."""
    assert node.step is not None
    wanted = {node.variable}
    for o in reversed(node.step.operations):
        if not wanted.isdisjoint(o.eqn.outvars):
            wanted.update(v for v in o.eqn.invars if not isinstance(v, Literal))
    return [v for v in operands if v in wanted]


def _borders(graph: Graph) -> None:
    """What each group reads and gives."""
    read: dict[Group, set[Node]] = {g: set() for g in graph.groups}
    given: dict[Group, set[Node]] = {g: set() for g in graph.groups}
    for e in graph.edges:
        before, after = set(e.start.around()), set(e.stop.around())
        for group in after - before:
            read[group].add(e.start)
        for group in before - after:
            given[group].add(e.start)
    for node in (n for n in graph.outputs if n is not None):
        for group in node.around():
            given[group].add(node)
    for group in graph.groups:
        group.inputs, group.outputs = (sorted(s[group], key=lambda n: n.number) for s in (read, given))


def input_names(f: Any, numbers: Sequence[int], args: Sequence[Any]) -> list[str]:
    """Names of the leaves of the differentiated arguments: of parameters, with the keys of what they hold."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    found: list[str] = []
    for k in numbers:
        own = (
            parameters[k].name
            if k < len(parameters) and parameters[k].kind < 2
            else ("x" if len(numbers) == 1 else f"x{k}")
        )
        for path, _ in jax.tree_util.tree_flatten_with_path(args[k])[0]:
            found.append(_leaf_name(own, path))
    return found


def _leaf_name(own: str, path: Sequence[Any]) -> str:
    if not path:
        return own
    last = path[-1]
    key = getattr(last, "key", getattr(last, "name", getattr(last, "idx", "")))
    return f"{own}{key}" if isinstance(key, int) else str(key)
