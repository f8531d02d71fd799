"""What a person would call the local Jacobian of a step: W, Diag(σ′), cᵀ, Diag(s) − s sᵀ; else ∂v/∂u."""

from __future__ import annotations

import ast
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from chainrule._jax import Literal
from chainrule.explain import formula as m
from chainrule.explain.formula import Formula
from chainrule.explain.graph import Edge, Graph, Group, Node
from chainrule.explain.names import Name

_ACTIVATIONS = {"tanh", "sigmoid", "logistic", "relu", "gelu", "silu", "swish", "softplus", "elu", "selu", "leaky_relu"}
_SHIFTS = {"add", "sub", "broadcast_in_dim", "reshape", "squeeze", "convert_element_type", "transpose", "copy"}
_LONGEST = 24
_FACTORS = 3  # of the chain in a group that is written as a product


Label = tuple[Formula, str]  # with a note on its letters


def labels(graph: Graph, within: Mapping[Group | None, Sequence[Edge]], found: Mapping[str, Any]) -> dict[str, Label]:
    """The formula of every edge's Jacobian; `within`: the edges that stand in each group."""
    names = {n.variable: n.name for n in graph.nodes}
    said = {e.id: label(e, found[e.id], names) for e in graph.edges}
    for group in reversed(graph.groups):  # those within come first
        for e in within[group.parent]:
            if e.group is group:
                said[e.id] = _chained(e, within[group], said) or label(e, found[e.id], names)
    return said


def _chained(edge: Edge, inner: Sequence[Edge], said: Mapping[str, Label]) -> Label | None:
    """Diag(σ′) W: what a group is that holds a short chain of maps with names of their own."""
    ways = zip((edge.start, *(e.stop for e in inner)), (*(e.start for e in inner), edge.stop), strict=True)
    if not 1 < len(inner) <= _FACTORS or any(a is not b for a, b in ways):
        return None
    parts = [said[e.id] for e in reversed(inner)]
    if any("∂" in f.text or f.text == "0" for f, _ in parts):
        return None
    factors = [f for f, _ in parts if f.text != "I"] or [parts[0][0]]
    whole = m.product(factors) if len(factors) > 1 else factors[0]
    return whole, ", ".join(dict.fromkeys(note for _, note in parts if note))


def label(edge: Edge, J: Any, names: Mapping[Any, Name]) -> Label:
    """The formula of an edge's Jacobian; names: of the values."""
    found = _known(edge, J, names) if edge.group is None else None
    formula, note = found or (_by_structure(edge, J), "")
    number = edge.start.size == edge.stop.size == 1  # which is its own transpose
    return (replace(formula, symmetric=True) if number else formula), note


def _by_structure(edge: Edge, J: Any) -> Formula:
    if J is not None and J.structure.kind == "identity":
        return m.digits(1) if J.shape == (1, 1) else Formula("I", "I", "<mi>I</mi>", symmetric=True)
    if J is not None and J.structure.kind == "zero":
        return Formula("0", "0", "<mn>0</mn>")
    return m.fraction(m.named(edge.stop.name), m.named(edge.start.name))


def _known(edge: Edge, J: Any, names: Mapping[Any, Name]) -> Label | None:
    step = edge.stop.step
    if step is None or J is None or J.structure.kind in ("identity", "zero"):
        return None
    core = [o.eqn for o in step.operations if o.eqn.primitive.name not in _SHIFTS]
    if edge.stop.operation == "softmax" and len(edge.stop.shape) == 1:
        s = m.named(edge.stop.name)
        return _minus(m.diag(s), m.product([s, m.row(s)])), ""
    if len(core) == 1 and core[0].primitive.name == "dot_general":
        found = _contraction(edge, core[0], names)
        return (found, "") if found else None
    if J.structure.kind in ("diagonal", "scaled identity") and J.shape[0] == J.shape[1]:
        return _elementwise(edge, core, J, names)
    if [e.primitive.name for e in core] == ["reduce_sum"] and edge.stop.size == 1:
        return m.row(Formula("1", "\\mathbf{1}", "<mn>𝟏</mn>")), ""
    return None


def _minus(a: Formula, b: Formula) -> Formula:
    mathml = f"{a.mathml}<mo>−</mo>{b.mathml}"
    return Formula(f"{a.text} − {b.text}", f"{a.latex} - {b.latex}", mathml, symmetric=True, compound=True)


# products with a matrix --------------------------------------------------------------------------


def _contraction(edge: Edge, eqn: Any, names: Mapping[Any, Name]) -> Formula | None:
    """W of W x, cᵀ of c·x, I ⊗ W of a batch: by what stands on the other side in the source."""
    sides = [None if isinstance(v, Literal) else v for v in eqn.invars]
    tree = _product_in(edge.stop.tree)
    if tree is None:
        return None
    start = edge.start.variable
    made = _followed(edge.stop, start)
    mine = [v in made for v in sides]
    if sum(mine) != 1:
        return None
    name = _written(tree[1], sides[1], names) if mine[0] else _written(tree[0], sides[0], names)
    (contracted, batch) = eqn.params["dimension_numbers"]
    ranks = [len(v.aval.shape) for v in eqn.invars]
    return None if name is None or batch[0] else _map(name, mine[0], ranks, contracted)


def _map(name: Formula, left: bool, ranks: Sequence[int], contracted: Any) -> Formula | None:
    mine, other = (ranks[0], ranks[1]) if left else (ranks[1], ranks[0])
    at = contracted[1 if left else 0]
    if len(at) != 1:
        return None
    if other == 1 and mine == 1:
        return m.row(name)
    if other != 2:
        return None
    plain = name if at[0] == 1 else m.row(name)  # contracted over its columns: W x
    if mine == 1:
        return plain
    if mine == 2:
        eye, times = Formula("I", "I", "<mi>I</mi>"), m.operator(" ⊗ ", "\\otimes")
        pair = (eye, plain) if left else (plain, eye)
        return Formula(**{**vars(pair[0] + times + pair[1]), "compound": True})
    return None


def _followed(node: Node, start: Any) -> set[Any]:
    """The variables of a step that are nothing but moved entries of one operand."""
    found = {start}
    assert node.step is not None
    for o in node.step.operations:
        moves = o.eqn.primitive.name in _SHIFTS - {"add", "sub"}
        if moves and any(not isinstance(v, Literal) and v in found for v in o.eqn.invars):
            found.update(o.eqn.outvars)
    return found


@functools.lru_cache(maxsize=1024)  # equal steps share their place in the source
def _product_in(tree: Any) -> tuple[Any, Any] | None:
    """The two sides of the product of matrices in an expression."""
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            return node.left, node.right
        if isinstance(node, ast.Call) and len(node.args) == 2:
            called = node.func
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            if name in ("dot", "matmul", "vdot", "inner"):
                return node.args[0], node.args[1]
            if name == "dot" and isinstance(called, ast.Attribute):
                return called.value, node.args[0]
    return None


def _written(tree: Any, v: Any, names: Mapping[Any, Name]) -> Formula | None:
    """One side of an operation, as the value is called that it is; else as the source has it."""
    return m.named(names[v]) if isinstance(tree, ast.Name) and v in names else symbol(tree)


def symbol(tree: Any) -> Formula | None:
    """A variable of the source as a formula: of an attribute or a key its last name."""
    if isinstance(tree, ast.Name):
        return m.named(Name(tree.id))
    if isinstance(tree, ast.Attribute) and tree.attr == "T":
        inner = symbol(tree.value)
        return m.row(inner) if inner else None
    if isinstance(tree, ast.Attribute):
        return m.named(Name(tree.attr))
    if isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Constant):
        key = tree.slice.value
        if isinstance(key, str) and 0 < len(key) <= _LONGEST:
            return m.named(Name(key))
        inner = symbol(tree.value)
        return m.indexed(inner, str(key)) if inner and isinstance(key, int) else None
    return None


# element by element ------------------------------------------------------------------------------


def _elementwise(edge: Edge, core: Sequence[Any], J: Any, names: Mapping[Any, Name]) -> Label | None:
    tree, scalar = edge.stop.tree, J.shape == (1, 1)

    def diagonal(inner: Formula) -> Formula:
        return inner if scalar else m.diag(inner)

    if isinstance(tree, ast.Call) and len(tree.args) == 1 and edge.stop.operation.isidentifier():
        name = edge.stop.operation
        if name in _ACTIVATIONS:
            return diagonal(m.prime(Formula("σ", "\\sigma", "<mi>σ</mi>"))), f"σ = {name}"
        return diagonal(m.prime(m.word(name))), ""
    if len(core) == 1 and isinstance(tree, ast.BinOp):
        if isinstance(tree.op, ast.Mult):
            return _times(edge, tree, core[0], diagonal, names)
        if isinstance(tree.op, ast.Pow) and isinstance(tree.right, ast.Constant) and tree.right.value == 2:
            u = _written(tree.left, edge.start.variable, names)
            return (diagonal(m.product([m.digits(2), u])), "") if u else None
    return None


def _times(edge: Edge, tree: ast.BinOp, eqn: Any, diagonal: Any, names: Mapping[Any, Name]) -> Label | None:
    own = edge.start.name.plain
    sides = [side for side in (tree.left, tree.right) if not (isinstance(side, ast.Name) and side.id == own)]
    if not sides:
        return diagonal(m.product([m.digits(2), m.named(edge.start.name)])), ""
    fixed: list[ast.expr] = [side for side in sides if isinstance(side, ast.Constant)]
    if len(sides) == 2 and not fixed:
        return None
    sides = fixed or sides
    if isinstance(sides[0], ast.Constant) and isinstance(sides[0].value, (int, float)):
        scale = m.digits(sides[0].value)
        eye = Formula("I", "I", "<mi>I</mi>", symmetric=True)
        return (scale if edge.stop.size == 1 else Formula(**{**vars(m.product([scale, eye])), "symmetric": True})), ""
    mine = _followed(edge.stop, edge.start.variable)
    others = [v for v in eqn.invars if not isinstance(v, Literal) and v not in mine]
    found = _written(sides[0], others[0] if others else None, names)
    return (diagonal(found), "") if found else None
