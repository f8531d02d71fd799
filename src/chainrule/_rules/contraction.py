"""Einstein sums of a tangent and a coefficient: products of Jacobians."""

from __future__ import annotations

import math
import string
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import (
    Block,
    compressed,
    densify,
    join,
    multiply,
    only,
    presence,
    same_but_absent,
    union,
    xp,
)
from chainrule._blocks.rows import present_parts
from chainrule._errors import MissingRuleError
from chainrule._memory import require_columns, require_memory
from chainrule._program import Coefficient, Context, Contracted, Tangent, Value, as_jax
from chainrule._rules._registry import rule
from chainrule._rules.einsum import einsum, parted
from chainrule._rules.pointwise import overlaid, tidy, union_width


@rule("dot_general", reads="dimension_numbers", scattered=True)
def dot_general(context: Context, eqn: Any, values: list[Value]) -> Any:
    """out[b, i, j] = sum over k of u[b, i, k] C[b, j, k], for either operand a tangent."""
    if all(isinstance(v, Tangent) for v in values):
        raise MissingRuleError("jacobian: a product of two tangents is not linear; check the custom derivative rules")
    where = 0 if isinstance(values[0], Tangent) else 1
    u, c = values[where], values[1 - where]
    assert isinstance(u, Tangent)
    assert isinstance(c, Coefficient)
    letters, precision = letters_of(eqn), eqn.params["precision"]
    subscripts = f"{letters[where]},{letters[1 - where]}->{letters[2]}"
    return [contracted(context, eqn.outvars[0].aval, *associated(u, c, subscripts, precision), precision)]


def contracted(context: Context, aval: Any, u: Tangent, c: Coefficient, subscripts: str, precision: Any) -> Contracted:
    """The sum, to be taken when it is needed."""

    def take() -> tuple[Block, ...]:
        blocks = contract(context, u.filled(), c.value, subscripts, c.nonzero, precision)
        for b in blocks:
            require_memory("jacobian: a product", b.vals.shape, b.vals.dtype.itemsize)
        return tidy([b.with_vals(b.vals.astype(aval.dtype)) for b in blocks])

    return Contracted(aval, u, c, subscripts, precision, take)


def associated(u: Tangent, c: Coefficient, subscripts: str, precision: Any) -> tuple[Tangent, Coefficient, str]:
    """Rewrite (s C) D as s (C D) where the axes that D sums belong to C alone and it costs less."""
    if not isinstance(u, Contracted) or u.taken or u.precision != precision:
        return u, c, subscripts
    mine, other, out = parted(subscripts)
    source, inner, between = parted(u.subscripts)
    fresh = iter(x for x in string.ascii_letters if x not in mine + other + out)
    names = dict(zip(between, mine, strict=True))
    names |= {x: next(fresh) for x in dict.fromkeys(source + inner) if x not in names}
    source, inner = ("".join(names[x] for x in s) for s in (source, inner))
    summed = [x for x in mine if x not in out]
    if not summed or set(summed) & set(source):
        return u, c, subscripts
    shapes = (*u.source.shape, *u.coefficient.value.shape, *c.value.shape)
    sizes = dict(zip(source + inner + other, shapes, strict=True))
    kept = "".join(x for x in dict.fromkeys(inner + other) if x not in summed)

    def cost(labels: str, slots: int = 1) -> int:
        return slots * math.prod(sizes[x] for x in set(labels))

    slots = sum(b.slots for b in u.source.blocks)
    moved = [x for k, x in enumerate(source) if x not in mine and any(b.cols.shape[k] != 1 for b in u.source.blocks)]
    one_by_one = cost(source + inner, slots) + cost(mine + other, slots * math.prod(sizes[x] for x in moved))
    if cost(inner + other) + cost(source + kept, slots) > one_by_one:
        return u, c, subscripts
    known = u.coefficient.static and c.static
    left, right = (a.value if known else as_jax(a.value) for a in (u.coefficient, c))
    product = einsum(f"{inner},{other}->{kept}", left, right, precision)
    return (
        u.source,
        Coefficient(product, _product_support(u.coefficient, c, inner, other, kept)),
        f"{source},{kept}->{out}",
    )


def _product_support(a: Coefficient, b: Coefficient, inner: str, other: str, kept: str) -> np.ndarray | None:
    """Where an Einstein sum of two coefficients can differ from zero."""
    if a.nonzero is None and b.nonzero is None:
        return None
    places = [np.ones(v.shape) if v.nonzero is None else v.nonzero.astype(float) for v in (a, b)]
    return np.einsum(f"{inner},{other}->{kept}", *places, optimize=True) != 0


def transposed(context: Context, eqn: Any, u: Contracted, permutation: Any) -> list[Value]:
    """The same sum with its axes in another order."""
    mine, other, out = parted(u.subscripts)
    turned = f"{mine},{other}->{''.join(out[k] for k in permutation)}"
    return [contracted(context, eqn.outvars[0].aval, u.source, u.coefficient, turned, u.precision)]


def letters_of(eqn: Any) -> tuple[str, str, str]:
    """The axes of both operands of a dot_general, and of its result."""
    ((ca, cb), (ba, bb)) = eqn.params["dimension_numbers"]
    pool = iter(string.ascii_letters)
    a = [next(pool) for _ in eqn.invars[0].aval.shape]
    b = [next(pool) for _ in eqn.invars[1].aval.shape]
    for i, j in [*zip(ca, cb, strict=True), *zip(ba, bb, strict=True)]:
        b[j] = a[i]
    batch = [a[i] for i in ba]
    free_a = [x for i, x in enumerate(a) if i not in (*ca, *ba)]
    free_b = [x for i, x in enumerate(b) if i not in (*cb, *bb)]
    return "".join(a), "".join(b), "".join(batch + free_a + free_b)


def contract(
    context: Context, u: Tangent, c: Any, subscripts: str, nonzero: np.ndarray | None = None, precision: Any = None
) -> list[Block]:
    """Einstein sum of every block of `u` with the coefficient `c`.

    Contracted axes along which the columns are constant are summed; the others move into the slots,
    or are first made dense where that gives fewer of them. Of a coefficient with few nonzeros only these are met.
    """
    mine, other, out = parted(subscripts)
    axes = [k for k, x in enumerate(mine) if x not in out]
    blocks, done = list(u.blocks), []
    # of arrays that were concatenated each meets its own part of the coefficient
    for part, own in present_parts(blocks, axes[0]) if len(axes) == 1 else ():
        cut = tuple(part if x == mine[axes[0]] else slice(None) for x in other)
        known = None if nonzero is None else nonzero[cut]
        piece = Tangent(own[0].shape, u.dtype, tuple(own))
        done += contract(context, piece, c[cut], subscripts, known, precision)
    if done:
        return done
    if nonzero is not None and len(axes) == 1 and set(other) & set(mine) == {mine[axes[0]]}:
        lines = _lines(nonzero, other, mine[axes[0]])
        if int(lines.sum(axis=1).max(initial=0)) * _SPARSE <= lines.shape[1]:
            done = [_along_nonzeros(context, b, c, subscripts, lines) for b in blocks if b.cols.shape[axes[0]] != 1]
            blocks = [b for b in blocks if b.cols.shape[axes[0]] == 1]
    for b, there in _choose_slots(blocks, axes, nonzero is not None):
        block = _contract_block(context, b, c, subscripts, nonzero, precision)
        # slots are left out last: before, they are those of `there`
        done.append(drop_absent(block) if there is None else _reached(block, there, nonzero, subscripts))
    return done


def _reached(block: Block, there: np.ndarray, nonzero: Any, subscripts: str) -> Block:
    """Absent: the columns that no path over nonzeros of the coefficient reaches."""
    mine, other, out = parted(subscripts)
    slot = next(x for x in string.ascii_letters if x not in mine + other)
    paths = np.einsum(
        f"{mine}{slot},{other}->{out}{slot}", there.astype(np.float32), nonzero.astype(np.float32), optimize=True
    )
    cols = only(block.cols, paths > 0)
    return Block(block.shape, compressed(cols, len(block.shape)), block.vals)


_SPARSE = 4  # a coefficient is sparse where no line has more than a part in so many of nonzeros


def _lines(array: Any, labels: str, summed: str) -> Any:
    """A coefficient as [kept axes, summed axis]."""
    order = [k for k, x in enumerate(labels) if x != summed] + [labels.index(summed)]
    return xp(array).transpose(array, order).reshape((-1, array.shape[order[-1]]))


def _along_nonzeros(context: Context, b: Block, c: Any, subscripts: str, lines: np.ndarray) -> Block:
    """out[f, r] = sum over the few k with C[f, k] ≠ 0 of C[f, k] u[r, k]: each of them takes slots of its own."""
    mine, other, out = parted(subscripts)
    (summed,) = [x for x in mine if x not in out]
    axis, free, rest = mine.index(summed), [x for x in other if x != summed], [x for x in mine if x != summed]
    width = max(int(lines.sum(axis=1).max(initial=0)), 1)
    at = np.argsort(~lines, axis=1, kind="stable")[:, :width]
    present = np.take_along_axis(lines, at, axis=1)
    sizes = dict(zip(mine, b.shape, strict=True)) | dict(zip(other, c.shape, strict=True))
    factor = _lines(c, other, summed)
    factor = xp(factor).take_along_axis(factor, at, axis=1).reshape((*at.shape, *[1] * len(b.shape)))

    def arranged(a: Any) -> Any:
        """[f, w, *rest, q] -> [*out, w q]"""
        a = b.full_slots(a)
        a = a.reshape((*[sizes[x] for x in free], *a.shape[1:]))
        labels = [*free, "", *rest]
        a = xp(a).transpose(a, [*[labels.index(x) for x in out], len(free), len(labels)])
        return a.reshape((*a.shape[:-2], -1))

    require_columns((*at.shape, *np.delete(b.cols.shape, axis)))
    cols = np.moveaxis(b.cols, axis, 0)[at]
    cols = only(cols, present.reshape(factor.shape))
    vals = xp(b.vals).moveaxis(b.vals, axis, 0)
    product = multiply(vals[None] if len(vals) == 1 else vals[at], factor)
    context.cost += math.prod(product.shape)
    block = Block(tuple(sizes[x] for x in out), arranged(cols), arranged(product))
    return union([block]) if union_width([block], math.prod(block.shape)) < block.slots else block


def _choose_slots(blocks: list[Block], axes: list[int], track: bool) -> list[tuple[Block, np.ndarray | None]]:
    """Densify where the slots of the outer product would outnumber the distinct columns.

    With `track`, what was densified comes with the rows that had each column.
    """
    same: list[tuple[Block, np.ndarray | None]] = [(b, None) for b in blocks if all(b.cols.shape[k] == 1 for k in axes)]
    vary = []
    for b in (b for b in blocks if not all(b.cols.shape[k] == 1 for k in axes)):
        alike = same_but_absent(b, [k for k in axes if b.cols.shape[k] != 1]) if (b.cols < 0).any() else None
        if alike is None:
            vary.append(b)
        else:
            same.append((alike, presence([b], axes) if track else None))
    same = _side_by_side(same)
    if not vary:
        return same
    vary = overlaid(vary, known=True)
    width = sum(b.slots * int(np.prod([b.shape[k] for k in axes if b.cols.shape[k] != 1])) for b in vary)
    batch = 1 if all(b.cols.ndim == len(axes) + 1 for b in vary) else None
    columns = len(np.unique(np.concatenate([b.cols.reshape(-1) for b in vary]))) if batch or len(vary) > 1 else width
    if columns >= width:
        return [*same, *[(b, None) for b in vary]]
    return [*same, (densify(vary, axes), presence(vary, axes) if track else None)]


def _side_by_side(blocks: list[tuple[Block, np.ndarray | None]]) -> list[tuple[Block, np.ndarray | None]]:
    """Join unknown values of the same rows along the slots: one product in place of many."""
    groups: dict[Any, list[Block]] = {}
    out = []
    for b, there in blocks:
        if b.static or there is not None or b.vals.shape[-1] != b.slots:
            out.append((b, there))
        else:
            groups.setdefault((b.vals.shape[:-1], b.cols.shape[:-1]), []).append(b)
    return [*out, *((join(group), None) for group in groups.values())]


def _contract_block(
    context: Context, b: Block, c: Any, subscripts: str, nonzero: np.ndarray | None, precision: Any
) -> Block:
    mine, other, out = parted(subscripts)
    slot = next(x for x in string.ascii_letters if x not in mine + other)
    sizes = dict(zip(mine, b.shape, strict=True)) | dict(zip(other, c.shape, strict=True)) | {slot: b.slots}
    moved = [x for k, x in enumerate(mine) if x not in out and b.cols.shape[k] != 1]
    inner = _by_stride(b, mine + slot, [*moved, slot])
    labels, vals = _squeezed(b.vals, mine + slot, (*b.shape, b.slots))
    met, factor = other, c
    if nonzero is not None and set(other) <= {*out, *moved}:  # nothing of it is summed: its zeros become absent
        factor = _one_number(c, nonzero)
        met, factor = _squeezed(factor, other, c.shape)
    target = "".join(x for x in [*out, *inner] if x in labels + met)
    # with one vector the matrix is read once, whichever way, and better as the one that the value is computed with
    vector = all(sizes[x] == 1 for x in labels if x not in met)
    if not vector and _turns(labels, met, target, sizes):
        product = _turned(labels, met, target, vals, factor, precision)
    else:
        lined, factor = (met, factor) if vector else _lined_up(met, factor, target)
        product = (_slots_first if context.summed else einsum)(f"{labels},{lined}->{target}", vals, factor, precision)
    context.cost += math.prod(sizes[x] for x in set(labels + met))
    cols = _moved_cols(b, mine + slot, out, inner, sizes)
    if nonzero is not None:  # absent: what meets zeros alone
        left = "".join(x for x in other if x in out or x in moved)
        there = nonzero.any(axis=tuple(k for k, x in enumerate(other) if x not in left))
        if not there.all():
            known = "".join(x for x in [*out, *inner] if x in left)
            keep = _merge_slots(np.einsum(f"{left}->{known}", there), known, out, inner, sizes)
            cols = only(cols, keep)
    shape = tuple(sizes[x] for x in out)
    return Block(shape, cols, _merge_slots(product, target, out, inner, sizes))


def _one_number(c: Any, nonzero: np.ndarray) -> Any:
    """A coefficient whose nonzeros are one known number, as this number: an axis of size 1 is 'the same along it'."""
    if not isinstance(c, np.ndarray) or not nonzero.any():
        return c
    first = c[nonzero][0]
    return np.full((1,) * c.ndim, first, c.dtype) if (c[nonzero] == first).all() else c


def _slots_first(subscripts: str, vals: Any, c: Any, precision: Any) -> Any:
    """The same with the slots before the last axis of rows on both sides, as `pointwise.scale` writes them then."""
    labels, lined, target = parted(subscripts)
    if min(len(labels), len(target)) < 2 or labels[-1] != target[-1]:
        return einsum(subscripts, vals, c, precision)
    labels, target = (f"{x[:-2]}{x[-1]}{x[-2]}" for x in (labels, target))
    product = einsum(f"{labels},{lined}->{target}", xp(vals).swapaxes(vals, -1, -2), c, precision)
    return xp(product).swapaxes(product, -1, -2)


def _turns(labels: str, other: str, target: str, sizes: dict[str, int]) -> bool:
    """Whether a product is one by the transpose of a stored matrix that is larger than its other operand and result."""
    summed = "".join(x for x in other if x not in target)
    if not summed or not set(summed) <= set(labels) or set(other) & set(labels) != set(summed):
        return False
    matrix, *others = (math.prod(sizes[x] for x in part) for part in (other, labels, target))
    return other.startswith(summed) and matrix >= max(others)


def _turned(labels: str, other: str, target: str, vals: Any, c: Any, precision: Any) -> Any:
    """The transposed product, by the matrix as it is stored; XLA would turn it back where no barrier stands."""
    summed = [x for x in other if x in labels]
    kept = [x for x in labels if x not in summed]
    barrier, own, out = jax.lax.optimization_barrier, [*kept, *summed], [*kept, *(x for x in other if x not in summed)]
    left = barrier(jnp.transpose(vals, [labels.index(x) for x in own]))
    product = barrier(einsum(f"{''.join(own)},{other}->{''.join(out)}", left, as_jax(c), precision))
    return jnp.transpose(product, [out.index(x) for x in target])


def _lined_up(labels: str, c: Any, target: str) -> tuple[str, Any]:
    """A known coefficient with the axes that are summed last: a product by the transpose of a stored matrix is slow."""
    if not isinstance(c, np.ndarray):
        return labels, c
    order = sorted(range(c.ndim), key=lambda k: (labels[k] not in target, target.find(labels[k])))
    return "".join(labels[k] for k in order), np.array(c.transpose(order), order="C")


def _by_stride(b: Block, labels: str, inner: list[str]) -> list[str]:
    """The axes that become slots, those first along which the columns grow most: sums then find equal columns."""
    if len(inner) == 1 or 0 in b.cols.shape:
        return inner
    first = b.cols[(0,) * b.cols.ndim]

    def stride(x: str) -> int:
        axis = labels.index(x)
        place = tuple(int(k == axis and b.cols.shape[k] > 1) for k in range(b.cols.ndim))
        return int(b.cols[place] - first)

    return sorted(inner, key=stride, reverse=True)


def _squeezed(array: Any, labels: str, full: tuple[int, ...]) -> tuple[str, Any]:
    """Leave out the axes along which an array is the same: einsum then sums or repeats the other operand."""
    # a contracted axis of size 1 in place of n stands for n equal summands
    drop = [k for k, (a, s) in enumerate(zip(array.shape, full, strict=True)) if a == 1 and s != 1]
    left = "".join(x for k, x in enumerate(labels) if k not in drop)
    return left, xp(array).squeeze(array, tuple(drop))


def _merge_slots(array: Any, labels: str, out: str, inner: list[str], sizes: dict[str, int]) -> Any:
    """[*present out axes, *present inner axes] -> [*out axes or 1s, product of the inner ones]."""
    rows = [sizes[x] if x in labels else 1 for x in out]
    array = array.reshape((*rows, *[sizes[x] if x in labels else 1 for x in inner]))
    if len(inner) > 1:
        array = xp(array).broadcast_to(array, (*rows, *[sizes[x] for x in inner]))
    return array.reshape((*rows, math.prod(array.shape[len(rows) :])))


def _moved_cols(b: Block, labels: str, out: str, inner: list[str], sizes: dict[str, int]) -> np.ndarray:
    """The columns of the result, [*out axes or 1s, product of the inner axes]."""
    cols = b.full_slots(b.cols)
    kept = [x for x in out if x in labels]
    summed = [x for x in labels if x not in out and x not in inner]
    cols = np.transpose(cols, [labels.index(x) for x in [*kept, *summed, *inner]])
    rows = [cols.shape[kept.index(x)] if x in kept else 1 for x in out]
    require_columns((*rows, math.prod(sizes[x] for x in inner)))
    return cols.reshape((*rows, math.prod(sizes[x] for x in inner)))


def drop_absent(block: Block) -> Block:
    """Leave out slots that no row uses; gather the rest closer where most are absent."""
    present = block.cols >= 0
    if present.all() or block.cols.size == 0:
        return block
    width = int(present.sum(axis=-1).max())
    if width * 2 > block.slots or width == 0:
        return block
    order = np.argsort(~present, axis=-1, kind="stable")[..., :width]
    cols = np.take_along_axis(block.cols, order, axis=-1)
    if block.vals.shape[-1] == 1:
        return Block(block.shape, cols, block.vals)
    rows = np.broadcast_shapes(order.shape[:-1], block.vals.shape[:-1])
    vals = xp(block.vals).broadcast_to(block.vals, (*rows, block.slots))
    return Block(block.shape, cols, xp(vals).take_along_axis(vals, np.broadcast_to(order, (*rows, width)), axis=-1))
