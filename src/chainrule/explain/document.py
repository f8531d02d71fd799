"""From a function and a point to the document: all that the terminal, the page and the files show."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError
from chainrule._laplacian.laplacian import laplacian
from chainrule._planning import plan
from chainrule._space import name_of
from chainrule._trace import Problem
from chainrule.explain import encode
from chainrule.explain.evaluate import LARGE, MOST_ENTRIES, Evaluated, Evaluator, parts, real_output
from chainrule.explain.graph import Edge, Graph, Group, Node, real_shape
from chainrule.explain.labels import Label, labels
from chainrule.explain.live import apart
from chainrule.explain.paths import Link, link, path_sum
from chainrule.explain.source import source_of
from chainrule.explain.sweeps import chain_formula, entry_formula, orders, sweeps

SCHEMA, VERSION = "chainrule/explanation", 1
_IN_FULL = 50_000  # numbers of all Jacobians that are kept in full; the others are images
_HISTOGRAMS = 300  # values with one
_SMALL = 64  # rows and columns of a Jacobian whose rank and kernel are said
_ALL_PAIRS = 16  # entries of a Jacobian whose sums over paths are all in the document
_FEW = 150  # equations of a function that is evaluated on a grid, and whose Laplacian is said
_GRID, _REACH = 33, 0.75


def document(
    graph: Graph, problem: Problem, evaluator: Evaluator, leaves: Sequence[Any]
) -> tuple[dict[str, Any], Evaluated]:
    """The document and the numbers that it was made of, some of which it does not hold."""
    found = evaluator(leaves)
    edges = [*graph.edges, *evaluator.group_edges]
    named = labels(graph, evaluator.own, found.jacobians)
    formulas = {k: formula for k, (formula, _) in named.items()}
    said = _jacobians(edges, found, named)
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "function": _function(problem),
        "x64": bool(jax.config.read("jax_enable_x64")),
        "inputs": _ends(graph.inputs, [v.aval for v in graph.flat.invars]),
        "outputs": _ends(graph.outputs, [v.aval for v in graph.flat.outvars]),
        "nodes": [_node(n, graph, found.values[n.id], k < _HISTOGRAMS) for k, n in enumerate(graph.nodes)],
        "groups": [_group(g, graph) for g in graph.groups],
        "edges": [
            {"id": e.id, "from": e.start.id, "to": e.stop.id, "group": e.group and e.group.id, "jacobian": said[e.id]}
            for e in edges
        ],
        "jacobian": _whole(graph, problem, found, leaves),
        "sweeps": sweeps(graph, said, formulas),
        "orders": orders(graph, said, formulas, _plan(problem, graph)),
    }
    pairs = _pairs(data["jacobian"], found.whole)
    shown = {e["id"] for e in visible_edges(data)}  # as the page and the table begin
    links = links_of((e for e in edges if e.id in shown), found) or links_of(graph.edges, found)
    sums = [sum_over_paths(data, links, found.whole, i, j, 8) for i, j in pairs] if links else []
    written = [
        {"i": i, "j": j, **entry_formula(graph, said, last, _at(data["inputs"], graph.inputs, j)).to_dict()}
        for i, j in pairs
        if (last := _at(data["outputs"], graph.outputs, i))[0] is not None
    ]
    chain = chain_formula(graph, formulas)
    data |= {"paths": sums, "formulas": {"chain": chain.to_dict() if chain else None, "entries": written}}
    data |= {"samples": _samples(graph, problem, leaves), "practice": [], "lesson": None}
    return data, found


def _function(problem: Problem) -> dict[str, Any]:
    file, line, lines = source_of(problem.f)
    return {"name": name_of(problem.f), "file": file, "line": line, "source": lines}


def _ends(nodes: Sequence[Node | None], avals: Sequence[Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    offset = 0
    for node, aval in zip(nodes, avals, strict=True):
        name = node.name.symbol if node else "constant"
        size = math.prod(real_shape(aval))
        where = {"shape": list(real_shape(aval)), "offset": offset, "size": size}
        found.append({"node": node and node.id, "name": name, **where})
        offset += size
    return found


def _node(node: Node, graph: Graph, found: tuple[Any, Any], histogram: bool) -> dict[str, Any]:
    value, history = found
    step = node.step
    eqns = [o.eqn for o in step.operations] if step else []
    primitives, end = step.primitives if step else [], node.role != "step"
    return {
        "id": node.id,
        "name": str(node.name),
        "symbol": node.name.symbol,
        "latex": node.name.latex,
        "role": node.role,
        "text": node.text,
        "operation": node.operation,
        "place": node.place,
        "primitives": primitives,
        "equations": len(eqns),
        "shape": list(node.shape),
        "size": node.size,
        "dtype": str(node.variable.aval.dtype),
        "value": encode.value_of(parts(value), histogram or end, encode.STORED if end else encode.FULL),
        "group": node.group and node.group.id,
        "loop": _loop(eqns, history),
        "custom": any(p.startswith("custom_") and p != "custom_linear_solve" for p in primitives),
        "output_of": [k for k, n in enumerate(graph.outputs) if n is node],
    }


def _loop(eqns: Sequence[Any], history: Any) -> dict[str, Any] | None:
    for eqn in eqns:
        if eqn.primitive.name in ("scan", "while"):
            values = None if history is None else [encode.numbers(v) for v in history]
            return {"kind": eqn.primitive.name, "times": eqn.params.get("length"), "values": values}
    return None


def _group(group: Group, graph: Graph) -> dict[str, Any]:
    scope = group.scope
    out = group.outputs[-1].name if group.outputs else group.nodes[-1].name
    name = scope.name or str(out)
    return {
        "id": group.id,
        "parent": group.parent and group.parent.id,
        "kind": scope.kind,
        "name": name,
        "symbol": scope.name or out.symbol,
        "text": scope.statement.text if scope.statement else "",
        "place": scope.statement.place() if scope.statement else None,
        "times": scope.times,
        "open": False,
        "size": len(group.nodes),
        "inputs": [n.id for n in group.inputs],
        "outputs": [n.id for n in group.outputs],
    }


def _jacobians(edges: Sequence[Edge], found: Evaluated, named: Mapping[str, Label]) -> dict[str, Any]:
    """Every edge's Jacobian as plain values, the outermost first while there is room for numbers."""
    said, room = {}, _IN_FULL
    for edge in sorted(edges, key=_depth):
        J = found.jacobians[edge.id]
        formula, note = named[edge.id]
        if J is None and edge.group is None and edge.start.size * edge.stop.size <= MOST_ENTRIES:
            note = "no linear derivative"
        detail = encode.Detail.FULL if room > 0 else encode.Detail.IMAGE if room > -_IN_FULL else encode.Detail.NORM
        own = encode.jacobian_of(J, (edge.stop.size, edge.start.size), detail)
        room -= (
            len(own["image"]["cells"]) if own["form"] == "image" else own["stored"] if own["form"] != "structure" else 0
        )
        written = formula.to_dict() if room > 0 else {"text": formula.text}
        said[edge.id] = {"label": written.pop("text"), **written, "note": note, **own}
    return said


def _depth(edge: Edge) -> int:
    group = edge.group.parent if edge.group else edge.stop.group
    depth = 0
    while group is not None:
        depth, group = depth + 1, group.parent
    return depth


def links_of(edges: Iterable[Edge], found: Evaluated) -> list[Link] | None:
    """The matrices of edges; None where one is not formed."""
    known = [(e, found.jacobians[e.id]) for e in edges]
    if any(J is None for _, J in known):
        return None
    return [link(e.id, e.start.id, e.stop.id, J.pattern, J.coo()[2]) for e, J in known]


# the whole Jacobian ------------------------------------------------------------------------------


def _whole(graph: Graph, problem: Problem, found: Evaluated, leaves: Sequence[Any]) -> dict[str, Any]:
    J = found.whole
    shape = tuple(sum(math.prod(real_shape(v.aval)) for v in vs) for vs in (graph.flat.outvars, graph.flat.invars))
    own = encode.jacobian_of(J, shape)  # type: ignore[arg-type]
    unknown = J is None and math.prod(own["shape"]) <= MOST_ENTRIES and not graph.size > LARGE
    note = "a step has no linear derivative" if unknown else ""
    names = {"label": "J", "latex": "J", "mathml": "<math><mi>J</mi></math>", "note": note}
    return {**names, **own, "about": _about(J, graph, problem, leaves) if J is not None else {}}


def _about(J: Any, graph: Graph, problem: Problem, leaves: Sequence[Any]) -> dict[str, Any]:
    (m, n), said = J.shape, dict[str, Any]()
    if not hasattr(J, "rank"):  # a product of many steps
        return {"gradient": encode.numbers(J.row(0))} if m == 1 and n <= encode.STORED else {}
    if 0 < m <= _SMALL and 0 < n <= _SMALL and bool(jnp.isfinite(J.coo()[2]).all()):
        with contextlib.suppress(ChainruleError, ArithmeticError):
            rank = int(J.rank())
            said |= {
                "rank": rank,
                "structural_rank": int(J.structural_rank),
                "singular_values": encode.numbers(J.singular_values()),
            }
            said |= {"kernel": [encode.numbers(v) for v in np.asarray(J.null_space()).T]}
            said |= {"injective": rank == n, "surjective": rank == m, "invertible": rank == m == n}
            if m == n:
                said["det"] = encode.number(J.det())
    one = len(graph.inputs) == len(graph.outputs) == 1
    if m == n and m:
        said["trace"] = encode.number(J.trace())
        if one and graph.outputs[0] is not None and graph.inputs[0].shape == graph.outputs[0].shape:
            said["divergence"] = said["trace"]
            said |= _curl(J)
    if m == 1 and n:
        said["gradient"] = encode.numbers(J.row(0)) if n <= encode.STORED else None
        if one and n <= 16 and graph.size <= _FEW:
            said |= _laplacian(problem, leaves)
    return said


def _curl(J: Any) -> dict[str, Any]:
    if J.shape == (2, 2):
        return {"curl": encode.number(J[1, 0] - J[0, 1])}
    if J.shape == (3, 3):
        return {"curl": encode.numbers([J[2, 1] - J[1, 2], J[0, 2] - J[2, 0], J[1, 0] - J[0, 1]])}
    return {}


def _laplacian(problem: Problem, leaves: Sequence[Any]) -> dict[str, Any]:
    def scalar(x: Any) -> Any:
        return jnp.ravel(jax.tree.leaves(problem.function(x))[0])[0]

    try:
        return {"laplacian": encode.number(laplacian(scalar)(leaves[0]))}
    except (ChainruleError, TypeError, ValueError):
        return {}


def _plan(problem: Problem, graph: Graph) -> Any:
    if graph.size > LARGE:
        return None
    try:
        return plan(problem.function, tuple(range(len(problem.leaves))))(*problem.leaves)
    except (ChainruleError, TypeError, ValueError):
        return None


def _samples(graph: Graph, problem: Problem, leaves: Sequence[Any]) -> dict[str, Any] | None:
    """The values on a grid around the point, of a function of two numbers that gives one."""
    sizes = [n.size for n in graph.inputs], [n.size if n else 0 for n in graph.outputs]
    if sizes != ([2], [1]) or graph.size > _FEW:
        return None
    x = jnp.asarray(leaves[0])
    steps = np.linspace(-_REACH, _REACH, _GRID)
    second, first = np.meshgrid(steps, steps, indexing="ij")
    points = np.ravel(x) + np.stack([first.ravel(), second.ravel()], axis=1)
    try:
        values = values_at(problem)(points)
    except Exception:  # a user's function need not work under vmap
        return None
    low, high = points.min(axis=0), points.max(axis=0)
    return {"low": encode.numbers(low), "high": encode.numbers(high), "n": _GRID, "values": encode.numbers(values)}


def values_at(problem: Problem) -> Callable[[Any], Any]:
    """f at many points [k, n] in one call: [k, m]."""

    def one(x: Any) -> Any:
        outs = jax.tree.leaves(problem.function(*apart(x, problem.leaves)))
        return jnp.concatenate([real_output(o) for o in outs])

    return jax.jit(jax.vmap(one))


# paths -------------------------------------------------------------------------------------------


def visible_edges(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The edges as the page starts: a folded group is one step."""
    groups = {g["id"]: g for g in data["groups"]}
    inner = {n["id"]: n["group"] for n in data["nodes"]}

    def folded(group: str | None) -> str | None:
        """The outermost folded group around a place."""
        found = None
        while group is not None:
            found = group if not groups[group]["open"] else found
            group = groups[group]["parent"]
        return found

    shown = []
    for e in data["edges"]:
        if e["group"] is None:
            keep = folded(inner[e["to"]]) is None
        else:
            keep = folded(e["group"]) == e["group"] and folded(groups[e["group"]]["parent"]) is None
        if keep:
            shown.append(e)
    order = {n["id"]: k for k, n in enumerate(data["nodes"])}
    return sorted(shown, key=lambda e: (order[e["to"]], order[e["from"]]))


def _pairs(said: dict[str, Any], J: Any) -> list[tuple[int, int]]:
    m, n = said["shape"]
    if not m * n:
        return []
    if m * n <= _ALL_PAIRS:
        return [(i, j) for i in range(m) for j in range(n)]
    if J is None:
        return [(0, 0)]
    rows, cols, values = J.coo()
    if not len(rows):
        return [(0, 0)]
    k = int(np.argmax(np.nan_to_num(np.abs(np.asarray(values)))))
    return [(int(rows[k]), int(cols[k]))]


def _at(ends: Sequence[dict[str, Any]], nodes: Sequence[Node | None], index: int) -> Any:
    """The value that holds a row or a column, and which component it is."""
    k = next(k for k, e in enumerate(ends) if e["offset"] <= index < e["offset"] + e["size"])
    return nodes[k], index - ends[k]["offset"]


def sum_over_paths(data: dict[str, Any], links: list[Link], whole: Any, i: int, j: int, k: int) -> dict[str, Any]:
    """∂yᵢ/∂xⱼ as a sum over paths, from a document and the matrices of its edges."""
    first, last = _component(data["inputs"], j), _component(data["outputs"], i)
    value = None if whole is None else float(whole[i, j])
    if last[0] is None:
        return path_sum([], {}, [], first, ("", 0), (i, j), 0.0, k).to_dict()
    order, sizes = [n["id"] for n in data["nodes"]], {n["id"]: n["size"] for n in data["nodes"]}
    return path_sum(order, sizes, links, first, last, (i, j), value, k).to_dict()


def _component(ends: Sequence[dict[str, Any]], index: int) -> Any:
    own = next(e for e in ends if e["offset"] <= index < e["offset"] + e["size"])
    return own["node"], index - own["offset"]
