"""The patterns of the local Jacobians of linear equations, from parameters and shapes: a small function each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from chainrule._blocks.block import once
from chainrule._jax import HANDED_ON, count_operations, primitive, scan_counts
from chainrule._plan.pattern import NUMBER, Group, Shape, Term, Terms, full, group
from chainrule._program import Coefficient


@dataclass(frozen=True)
class Column:
    """Multiply-adds of an equation that is applied as a whole: `each` on every column; `many` of a loop on so many."""

    each: int
    many: Callable[[int], int] | None = None

    def __add__(self, other: Column) -> Column:
        each = self.each + other.each
        if self.many is other.many is None:
            return Column(each)
        return Column(each, lambda columns: self.multiply_adds(columns) + other.multiply_adds(columns))

    def multiply_adds(self, columns: int) -> int:
        """Those of so many columns."""
        return self.each * columns if self.many is None else self.many(columns)


@dataclass(frozen=True)
class Local:
    """The Jacobian of one result of an equation with respect to one operand.

    `column`: what the equation takes where it is applied as a whole, column by column.
    """

    terms: Terms
    column: Column | None = None


Rule = Callable[[Any, int, Shape, Shape], Terms]  # (equation, number of the operand, its shape, result's shape)
_RULES: dict[Any, Rule] = {}  # by the primitive


def _of(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update({found: rule for name in names if (found := primitive(name)) is not None})
        return rule

    return register


def local(equation: Any, operands: Any, k: int, result: int) -> Local:
    """The pattern of a result with respect to operand k."""
    source, target = tuple(operands[k].shape), tuple(equation.outvars[result].aval.shape)
    rule, name = _RULES.get(equation.primitive), equation.primitive.name
    if k != result and name in HANDED_ON:
        return Local(())
    if rule is None:
        return Local((_whole(equation, k, source, target),), Column(column(equation)))
    terms = rule(equation, k, source, target)
    if name == "dot_general":
        terms = _known_zeros(terms, operands[1 - k])
    if name in ("mul", "div") and is_number(operands[1 - k]):
        terms = _numbers(terms)
    return Local(terms)


def is_number(value: Any) -> bool:
    """Whether every element is one known number."""
    if not isinstance(value, Coefficient) or not value.static or value.value.dtype.kind not in "iuf":
        return False
    return bool((once(value.value) == value.value.flat[0]).all()) if value.value.size else True


_SPARSE = 4  # a matrix is multiplied by its nonzeros where so many times more of it is known to vanish


def _known_zeros(terms: Terms, other: Any) -> Terms:
    """The group of a contraction, the last one, has as many entries as the other operand may have nonzeros."""
    nonzero = other.nonzero if isinstance(other, Coefficient) else None
    if nonzero is None or not nonzero.size:
        return terms
    share = float(once(nonzero).mean())
    *rest, last = terms[0].groups
    if last.unit:
        return terms
    known = last._replace(nnz=max(int(share * last.nnz), 1), indexed=share * _SPARSE <= 1)
    return (Term((*rest, known), terms[0].key),)


def _numbers(terms: Terms) -> Terms:
    return tuple(Term(tuple(g._replace(unit=True) for g in t.groups if g is not NUMBER), t.key) for t in terms)


def _kept(source: Shape, target: Shape, pairs: Any, unit: bool = True, part: bool = False) -> Iterator[Group]:
    """The diagonals of axes that are kept, as (axis of the source, axis of the target); `part`: of a part of them."""
    for i, j in pairs:
        n, m = source[i], target[j]
        if n != 1 or m != 1:
            nnz = min(n, m) if part or (n != 1 and m != 1) else max(n, m)
            yield group(source, target, [i], [j], nnz, unit)


def _key(equation: Any, k: int) -> int:
    return hash((equation.primitive.name, k, repr([(n, v) for n, v in equation.params.items() if "sharding" not in n])))


@_of("add", "add_any", "sub", "neg", "convert_element_type", "copy", "real", "imag", "complex", "conj", "device_put",
     "name", "stop_gradient", "reduce_precision", "optimization_barrier", "sharding_constraint")  # fmt: skip
def _same(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    return (Term(tuple(_broadcasted(source, target))),)


@_of("mul", "div", "select_n")
def _scaled(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    return (Term((*_broadcasted(source, target, unit=False), NUMBER)),)


def _broadcasted(source: Shape, target: Shape, unit: bool = True) -> Iterator[Group]:
    """Axis by axis; a number goes to every place."""
    if source or not target:
        return _kept(source, target, _aligned(source, target), unit)
    return (group(source, target, [], [j], n, unit) for j, n in enumerate(target) if n != 1)


def _aligned(source: Shape, target: Shape) -> list[tuple[int, int]]:
    return [(i, i) for i in range(len(target))] if source else []


@_of("slice", "pad", "rev", "concatenate", "dynamic_slice", "dynamic_update_slice", "split", "tile")
def _moved(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    if len(source) != len(target):
        return (full(source, target),)
    return (Term(tuple(_kept(source, target, _aligned(source, target), part=True)), _key(equation, k)),)


@_of("stack", "unstack")
def _stacked(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    """An axis more, or less; of it one place."""
    axis = equation.params["axis"]
    if len(target) > len(source):
        pairs = [(d, d + (d >= axis)) for d in range(len(source))]
        one = [group(source, target, [], [axis], 1)] if target[axis] != 1 else []
    else:
        pairs = [(d + (d >= axis), d) for d in range(len(target))]
        one = [group(source, target, [axis], [], 1)] if source[axis] != 1 else []
    return (Term((*_kept(source, target, pairs), *one), _key(equation, k)),)


@_of("broadcast_in_dim")
def _broadcast(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    kept = dict(enumerate(equation.params["broadcast_dimensions"]))
    new = [j for j in range(len(target)) if j not in kept.values() and target[j] != 1]
    groups = [*_kept(source, target, kept.items()), *(group(source, target, [], [j], target[j]) for j in new)]
    return (Term(tuple(groups)),)


@_of("transpose")
def _transpose(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    return (Term(tuple(_kept(source, target, [(i, j) for j, i in enumerate(equation.params["permutation"])]))),)


@_of("reduce_sum")
def _summed(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    axes = equation.params["axes"]
    kept = [i for i in range(len(source)) if i not in axes]
    groups = [*_kept(source, target, zip(kept, range(len(target)), strict=True))]
    return (Term((*groups, *(group(source, target, [i], [], source[i]) for i in axes if source[i] != 1))),)


@_of("reshape", "squeeze")
def _reshape(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    """Axes that are split or joined form a group: each of its places is one place of the others."""
    groups, i, j = [], 0, 0
    while i < len(source) or j < len(target):
        a, b = source[i : i + 1], target[j : j + 1]
        i, j = i + 1, j + 1
        while math.prod(a) != math.prod(b):
            if math.prod(a) < math.prod(b) or j >= len(target):
                a, i = (*a, source[i]), i + 1
            else:
                b, j = (*b, target[j]), j + 1
        if math.prod(a) != 1:
            ins = [i - len(a) + d for d, n in enumerate(a) if n != 1]
            groups.append(group(source, target, ins, [j - len(b) + d for d, n in enumerate(b) if n != 1], math.prod(a)))
    return (Term(tuple(groups)),)


@_of("dot_general")
def _dot(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    """Batch axes are diagonals; what is summed, against what the other operand brings, a full matrix."""
    contracted, batch = equation.params["dimension_numbers"]
    own, other = contracted[k], contracted[1 - k]
    rest = [d for d in range(len(source)) if d not in own and d not in batch[k]]
    shape = equation.invars[1 - k].aval.shape
    count = sum(d not in other and d not in batch[1 - k] for d in range(len(shape)))
    first = len(batch[k])
    mine = range(first, first + len(rest)) if k == 0 else range(len(target) - len(rest), len(target))
    new = [j for j in range(first, first + count + len(rest)) if j not in mine]
    summed = [i for i in own if source[i] != 1]
    made = [j for j in new if target[j] != 1]
    groups = [
        *_kept(source, target, zip(batch[k], range(first), strict=True), unit=False),
        *_kept(source, target, zip(rest, mine, strict=True)),
    ]
    if summed or made:
        nnz = math.prod(source[i] for i in summed) * math.prod(target[j] for j in made)
        groups.append(group(source, target, summed, made, nnz, unit=False))
    elif not any(not g.unit for g in groups):
        return (Term(tuple(g._replace(unit=False) for g in groups)),)
    return (Term(tuple(groups)),)


@_of("cumsum", "reduce_window_sum")
def _cumulative(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    axis = equation.params.get("axis")
    groups = []
    for d in range(len(target)):
        if d == axis:
            groups.append(group(source, target, [d], [d], source[d] * (source[d] + 1) // 2))
        elif axis is None:
            width = equation.params["window_dimensions"][d]
            groups.append(group(source, target, [d], [d], min(target[d] * width, target[d] * source[d])))
        else:
            groups += _kept(source, target, [(d, d)])
    return (Term(tuple(g for g in groups if g.nnz != 1)),)


@_of("gather")
def _gathered(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    numbers = equation.params["dimension_numbers"]
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    window = [d for d in range(len(source)) if d not in dropped]
    return (_indexed(equation, k, source, target, list(zip(window, numbers.offset_dims, strict=True))),)


@_of("scatter", "scatter_add", "scatter_sub", "scatter_mul")
def _scattered(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    if k == 0:
        return (Term(tuple(_kept(source, target, _aligned(source, target)))),)
    numbers = equation.params["dimension_numbers"]
    dropped = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = [d for d in range(len(target)) if d not in dropped]
    return (_indexed(equation, k, source, target, list(zip(numbers.update_window_dims, window, strict=True))),)


def _indexed(equation: Any, k: int, source: Shape, target: Shape, window: list[tuple[int, int]]) -> Term:
    """Axes of the window are kept; the axes that are chosen from form one group with those of the choices."""
    same = [(i, j) for i, j in window if source[i] == target[j]]
    ins = [i for i in range(len(source)) if i not in [a for a, _ in same] and source[i] != 1]
    outs = [j for j in range(len(target)) if j not in [b for _, b in same] and target[j] != 1]
    chosen = max(math.prod(target[j] for j in outs), 1) if equation.primitive.name == "gather" else 0
    count = chosen or max(math.prod(source[i] for i in ins), 1)
    chosen_from = [group(source, target, ins, outs, count)._replace(indexed=True)] if ins or outs else []
    groups = [*_kept(source, target, same), *chosen_from]
    return Term(tuple(groups), _key(equation, k))


@_of("triangular_solve", "tridiagonal_solve")
def _solved(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    axis = len(target) - (2 if equation.params.get("left_side", True) else 1)
    return _mixing(source, target, {axis})


@_of("custom_linear_solve")
def _systems(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    """One system for each place of the axes before the last two of the matrices."""
    rank = max([len(v.aval.shape) for v in equation.invars[:-1]], default=0)
    if source != target or rank < 3:
        return (full(source, target),)
    matrices = len(target) >= rank
    axes = {len(target) - 2} if matrices else {len(target) - 1}
    return _mixing(source, target, axes)


@_of("fft")
def _transformed(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    return _mixing(source, target, set(range(len(target) - len(equation.params["fft_lengths"]), len(target))))


@_of("conv_general_dilated")
def _convolved(equation: Any, k: int, source: Shape, target: Shape) -> Terms:
    numbers, kernel = equation.params["dimension_numbers"], equation.invars[1].aval.shape
    if k != 0 or equation.params["batch_group_count"] != 1:
        return (full(source, target),)
    lhs, rhs, out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
    groups = [*_kept(source, target, [(lhs[0], out[0])])]
    channels = source[lhs[1]] * target[out[1]] // equation.params["feature_group_count"]
    groups.append(group(source, target, [lhs[1]], [out[1]], channels, False))
    for i, w, j in zip(lhs[2:], rhs[2:], out[2:], strict=True):
        groups.append(group(source, target, [i], [j], min(target[j] * kernel[w], target[j] * source[i]), False))
    return (Term(tuple(groups)),)


def _mixing(source: Shape, target: Shape, axes: set[int]) -> Terms:
    groups = [*_kept(source, target, [(d, d) for d in range(len(target)) if d not in axes])]
    mixed = [group(source, target, [d], [d], source[d] * target[d], False) for d in axes]
    return (Term((*groups, *mixed)),)


def _whole(equation: Any, k: int, source: Shape, target: Shape) -> Term:
    """What is not taken apart: full, but for the time of a loop that carries nothing."""
    if equation.primitive.name == "scan" and source and target:
        consts, carry = scan_counts(equation)
        if not carry and k >= consts:
            rest = full((1, *source[1:]), (1, *target[1:])).groups
            return Term((*_kept(source, target, [(0, 0)], unit=False), *(g for g in rest if g.ins or g.outs)))
    return full(source, target)


def column(equation: Any) -> int:
    """Multiply-adds of an equation on one column: a loop's body so many times, else one for each element."""
    length = equation.params.get("length", 1)
    inner = [v for value in equation.params.values() for v in (value if isinstance(value, tuple) else (value,))]
    bodies = [count_operations(v.jaxpr) for v in inner if hasattr(v, "jaxpr")]
    sizes = sum(math.prod(v.aval.shape) for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "shape"))
    return length * max(bodies, default=0) if bodies else sizes
