"""The two sweeps step by step, the cost of each order, and the formulas of the chain and of its entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from chainrule.explain import formula as m
from chainrule.explain.formula import Formula
from chainrule.explain.graph import Edge, Graph, Node

_MOST_PATHS = 6  # between values, in a written sum
_MOST_LINKS = 12  # of a chain that is written as a product
_MOST_WRITTEN = 300  # steps of the finest sweep that are written out
_LETTERS = "kpqrstuvw"

Said = Mapping[str, dict[str, Any]]  # the encoded Jacobians by edge
Labels = Mapping[str, Formula]


def sweeps(graph: Graph, said: Said, labels: Labels) -> dict[str, Any]:
    """Every step of the sweep from the input, and of the one from the output."""
    if len(graph.nodes) > _MOST_WRITTEN:  # the page writes those of what it shows
        return {"forward": [], "reverse": []}
    into: dict[str, list[Edge]] = {n.id: [] for n in graph.nodes}
    out: dict[str, list[Edge]] = {n.id: [] for n in graph.nodes}
    for e in graph.edges:
        into[e.stop.id].append(e)
        out[e.start.id].append(e)
    forward = [_step("Δ", n, into[n.id], said, labels, False) for n in graph.nodes if into[n.id]]
    reverse = [_step("∇", n, out[n.id], said, labels, True) for n in reversed(graph.nodes) if out[n.id]]
    return {"forward": forward, "reverse": reverse}


def _step(sign: str, node: Node, edges: Sequence[Edge], said: Said, labels: Labels, back: bool) -> dict[str, Any]:
    left = m.operator(sign, "\\Delta" if sign == "Δ" else "\\nabla") + m.named(node.name)
    terms = []
    for e in edges:
        other = m.operator(sign, "\\Delta" if sign == "Δ" else "\\nabla") + m.named((e.stop if back else e.start).name)
        factor = labels[e.id].T if back else labels[e.id]
        terms.append(m.product([factor, other]))
    whole = left + m.operator(" = ", "=") + m.total(terms)
    structured = sum(_multiply_adds(said, e) for e in edges)
    dense = sum(e.start.size * e.stop.size for e in edges)
    own = {"node": node.id, "title": f"{sign}{node.name.symbol}", **whole.to_dict(), "edges": [e.id for e in edges]}
    return own | {"multiply_adds": structured, "dense": dense, "held": node.size}


def _multiply_adds(said: Said, edge: Edge) -> int:
    """Of one product with a vector; what is not formed counts as dense."""
    own = said[edge.id]["multiply_adds"]
    return edge.start.size * edge.stop.size if own is None else own


# orders -------------------------------------------------------------------------------------------


def orders(graph: Graph, said: Said, labels: Labels, plan: Any) -> dict[str, Any]:
    """What the product of the local Jacobians costs from the input and from the output, and what `plan` says."""
    n, rows = sum(k.size for k in graph.inputs), sum(k.size for k in graph.outputs if k is not None)
    items = [_order(graph, said, labels, False, n, rows), _order(graph, said, labels, True, n, rows)]
    planned = {o.name: o for o in plan.orders} if plan else {}
    for item in items:
        own = planned.get(item["name"])
        item["planned"] = own.multiply_adds if own else None
    for name, own in planned.items():
        if name not in ("forward", "reverse"):
            more = {"name": name, "title": name, "multiply_adds": own.multiply_adds, "planned": own.multiply_adds}
            items.append(more | {"dense": None, "peak": own.peak, "bracket": None, "travels": []})
    chosen = plan.chosen if plan else min(items, key=lambda i: i["multiply_adds"])["name"]
    for item in items:
        item["chosen"] = item["name"] == chosen
        item["steps"] = plan.steps() if plan and item["chosen"] else []
    note = (
        "Multiply-adds of the product of the local Jacobians of all steps, those inside of groups too, each as it is "
        "stored; dense: with every one stored in full. Peak: entries of the largest intermediate before the "
        "result. The plan counts the primitives of the program, which are finer."
    )
    said_of = {"reason": plan.reason if plan else "", "single": plan.single if plan else None}
    return {"note": note, "chosen": chosen, **said_of, "items": sorted(items, key=lambda i: i["multiply_adds"])}


def _order(graph: Graph, said: Said, labels: Labels, back: bool, n: int, rows: int) -> dict[str, Any]:
    width = rows if back else n
    seeds = {k.id for k in (graph.outputs if back else graph.inputs) if k is not None}
    ends = {k.id for k in (graph.inputs if back else graph.outputs) if k is not None}
    structured = dense = 0
    for e in graph.edges:
        seed = e.stop.id if back else e.start.id
        if seed not in seeds:  # a product with the identity is free
            structured += _multiply_adds(said, e) * width
            dense += e.start.size * e.stop.size * width
    nodes = [*reversed(graph.nodes)] if back else graph.nodes
    inner = [k.size * width for k in nodes if k.id not in ends | seeds]
    shapes = [[rows, k.size] if back else [k.size, n] for k in nodes]
    travels = (
        [{"shape": s, "at": k.id} for s, k in zip(shapes, nodes, strict=True)] if len(nodes) <= 2 * _MOST_LINKS else []
    )
    name, title = ("reverse", "from the output") if back else ("forward", "from the input")
    chain = chain_of(graph)
    return {
        "name": name,
        "title": title,
        "multiply_adds": structured,
        "dense": dense,
        "peak": max(inner, default=0),
        "bracket": _bracket([labels[e.id] for e in chain], back) if chain else None,
        "travels": travels,
    }


def _bracket(factors: Sequence[Formula], back: bool) -> str:
    """The product with its brackets, from the input factors on."""
    texts = [f.as_factor().text for f in reversed(factors)]  # the last map first
    while len(texts) > 2:
        if back:
            texts[:2] = [f"({texts[0]} {texts[1]})"]
        else:
            texts[-2:] = [f"({texts[-2]} {texts[-1]})"]
    return " ".join(texts)


# formulas ----------------------------------------------------------------------------------------


def chain_of(graph: Graph) -> list[Edge]:
    """The edges from the only input to the only output, where there is but one way; else none."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.edges) > _MOST_LINKS:
        return []
    straight = all(a.stop is b.start for a, b in zip(graph.edges, graph.edges[1:], strict=False))
    ends = graph.edges and graph.edges[0].start is graph.inputs[0] and graph.edges[-1].stop is graph.outputs[0]
    return list(graph.edges) if straight and ends else []


def chain_formula(graph: Graph, labels: Labels) -> Formula | None:
    """∇ₓℓ = Wᵀ Diag(σ′) c of a scalar chain, J = … of any other one."""
    edges = chain_of(graph)
    if not edges:
        return None
    start, stop = m.named(edges[0].start.name), m.named(edges[-1].stop.name)
    if edges[-1].stop.size == 1 and not edges[-1].stop.shape:
        return m.gradient(stop, start) + m.operator(" = ", "=") + m.product([labels[e.id].T for e in edges])
    J = Formula("J", "J", "<mi>J</mi>")
    return J + m.operator(" = ", "=") + m.product([labels[e.id] for e in reversed(edges)])


def entry_formula(graph: Graph, said: Said, stop: tuple[Node, int], start: tuple[Node, int]) -> Formula:
    """∂yᵢ/∂xⱼ as a sum of products of partials, with one index for each value that the sum runs over."""
    (last, i), (first, j) = stop, start
    left = m.fraction(_component(last, str(i + 1)), _component(first, str(j + 1)))
    paths, used = _node_paths(graph, first, last), {n.name.base for n in graph.nodes}
    letters = [c for c in _LETTERS if c not in used] or list(_LETTERS)
    if not paths:
        right = m.digits(0) if last is not first else m.digits(int(i == j))
    elif len(paths) > _MOST_PATHS:
        right = Formula(
            "Σ over all paths", "\\sum_{\\text{paths}} \\prod \\partial", "<mo>∑</mo><mtext>over all paths</mtext>"
        )
    else:
        right = m.total([_along(path, said, i, j, letters) for path in paths])
    return left + m.operator(" = ", "=") + right


def _component(node: Node, index: str) -> Formula:
    return m.indexed(m.named(node.name), index if node.shape else "")


def _node_paths(graph: Graph, first: Node, last: Node) -> list[list[Edge]]:
    """The ways between two values, one more than are written at most."""
    reach = {last.id}
    out: dict[str, list[Edge]] = {n.id: [] for n in graph.nodes}
    for e in reversed(graph.edges):
        if e.stop.id in reach:
            reach.add(e.start.id)
            out[e.start.id].insert(0, e)
    found: list[list[Edge]] = []
    open_paths: list[list[Edge]] = [[e] for e in out[first.id]]
    while open_paths and len(found) <= _MOST_PATHS:
        path = open_paths.pop(0)
        if path[-1].stop is last:
            found.append(path)
        open_paths += [[*path, e] for e in out[path[-1].stop.id]]
        if len(open_paths) > 20 * _MOST_PATHS:
            return [[] for _ in range(_MOST_PATHS + 1)]
    return found


def _along(path: Sequence[Edge], said: Said, i: int, j: int, free: Sequence[str]) -> Formula:
    """Σₖ ∂ℓ/∂hₖ ∂hₖ/∂aₖ ∂aₖ/∂xⱼ: values that a diagonal map joins share an index."""
    same = [said[e.id]["structure"]["kind"] in ("identity", "scaled identity", "diagonal") for e in path]
    index = [str(j + 1)]
    for e, diagonal in zip(path, same, strict=True):
        index.append(index[-1] if diagonal and e.start.size == e.stop.size else "")
    # from the end: what a diagonal map joins with the output has its index
    index[-1] = str(i + 1)
    for k in range(len(path) - 1, 0, -1):
        if same[k] and path[k].start.size == path[k].stop.size and not index[k]:
            index[k] = index[k + 1]
    letters: list[tuple[str, int]] = []
    for k in range(1, len(path)):
        node = path[k].start
        if index[k]:
            continue
        if k > 1 and same[k - 1] and index[k - 1] and path[k - 1].start.size == node.size:
            index[k] = index[k - 1]
        elif node.size > 1 or node.shape:
            letters.append((free[len(letters) % len(free)], node.size))
            index[k] = letters[-1][0]
    at = [path[0].start, *(e.stop for e in path)]
    partials = [
        m.fraction(_component(at[k + 1], index[k + 1]), _component(at[k], index[k])) for k in reversed(range(len(path)))
    ]
    return m.summed(letters, _product_of_fractions(partials))


def _product_of_fractions(partials: Sequence[Formula]) -> Formula:
    return m.joined(partials, " ", "\\,", "<mspace width='0.12em'/>")
