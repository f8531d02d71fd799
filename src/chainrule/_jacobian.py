"""`Jacobian`: the derivative as a linear map, in numerator layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from chainrule._block import Block
from chainrule._errors import ChainruleError, MemoryLimitError, ShapeError

_DENSE_LIMIT = 2**34  # bytes of a dense array that are asked for without a word


@dataclass(frozen=True, eq=False)
class Space:
    """A pytree of arrays, seen as one flat axis."""

    tree: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[Any, ...]
    name: str = ""

    @cached_property
    def sizes(self) -> list[int]:
        return [math.prod(s) for s in self.shapes]

    @cached_property
    def size(self) -> int:
        return sum(self.sizes)

    @cached_property
    def key(self) -> Any:
        return (self.tree, self.shapes, tuple(str(d) for d in self.dtypes))


@dataclass(frozen=True, eq=False)
class Layout:
    """All that is known of a Jacobian while tracing: spaces, columns, known values, how it was made.

    `entries` holds, per block, (offset of its rows, rows' shape, columns, known values or None, shape of values).
    `flipped` says that the blocks are those of the transpose.
    """

    rows: Space
    columns: Space
    entries: tuple[tuple[int, tuple[int, ...], np.ndarray, np.ndarray | None, tuple[int, ...]], ...]
    dtype: Any
    flipped: bool = False
    order: str = "forward"
    cost: int = 0

    @cached_property
    def key(self) -> Any:
        parts = [(o, s, c.shape, c.tobytes(), None if v is None else v.tobytes(), w) for o, s, c, v, w in self.entries]
        return (self.rows.key, self.columns.key, tuple(parts), str(self.dtype), self.flipped, self.order)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layout) and self.key == other.key)

    def __hash__(self) -> int:
        return hash((self.rows.size, self.columns.size, len(self.entries)))

    @cached_property
    def pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(rows, columns, which entry adds where, which entries are present): unique and row-major."""
        lines, cols = [], []
        for offset, shape, c, _, w in self.entries:
            full = np.broadcast_shapes((*shape, 1), c.shape, w) if 0 not in shape else (*shape, 0)
            size = math.prod(shape)
            cols.append(np.broadcast_to(c, full).reshape(-1) if size else np.empty(0, np.int64))
            lines.append(np.repeat(np.arange(offset, offset + size), full[-1]))
        line = np.concatenate([*lines, np.empty(0, np.int64)]).astype(np.int64)
        col = np.concatenate([*cols, np.empty(0, np.int64)]).astype(np.int64)
        present = np.flatnonzero(col >= 0)
        i, j = line[present], col[present]
        if self.flipped:
            i, j = j, i
        key = i * max(self.columns.size, 1) + j
        unique, where = np.unique(key, return_inverse=True)
        return unique // max(self.columns.size, 1), unique % max(self.columns.size, 1), where, present


@jax.tree_util.register_pytree_node_class
class Jacobian:
    """The m×n linear map `dx -> J dx` that best approximates a function at a point.

    Rows are outputs, columns are inputs: `f(x + dx) ≈ f(x) + J @ dx`. It is an immutable pytree whose
    sparsity pattern is static, so it passes through `jit`, `vmap` and `grad` like an array.
    """

    __array_priority__ = 100

    def __init__(self, layout: Layout, values: tuple[Any, ...]):
        self._layout = layout
        self._values = values

    def tree_flatten(self) -> tuple[tuple[Any, ...], Layout]:
        return self._values, self._layout

    @classmethod
    def tree_unflatten(cls, layout: Layout, values: Any) -> Jacobian:
        return cls(layout, tuple(values))

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n): outputs by inputs."""
        return self._layout.rows.size, self._layout.columns.size

    @property
    def dtype(self) -> Any:
        """The dtype of the entries."""
        return self._layout.dtype

    @property
    def nnz(self) -> int:
        """Number of entries that are not known to vanish."""
        return len(self._layout.pattern[0])

    @property
    def order(self) -> str:
        """In which direction the chain rule was accumulated."""
        return self._layout.order

    @property
    def cost(self) -> int:
        """Multiply-adds of the accumulation, counted from shapes."""
        return self._layout.cost

    @property
    def in_tree(self) -> Any:
        return self._layout.columns.tree

    @property
    def out_tree(self) -> Any:
        return self._layout.rows.tree

    @property
    def in_shapes(self) -> tuple[tuple[int, ...], ...]:
        return self._layout.columns.shapes

    @property
    def out_shapes(self) -> tuple[tuple[int, ...], ...]:
        return self._layout.rows.shapes

    @property
    def structure(self) -> str:
        """What the static pattern is, in the words that a person would use."""
        rows, cols, _, _ = self._layout.pattern
        m, n = self.shape
        if not len(rows):
            return "zero"
        if m == n == len(rows) and np.array_equal(rows, cols):
            return "diagonal"
        return "dense" if len(rows) == m * n else f"sparse ({len(rows)} nonzeros, {len(rows) / (m * n):.2g} of all)"

    @property
    def T(self) -> Jacobian:
        """The transpose: `J.T @ w` is the pullback of w."""
        old = self._layout
        return Jacobian(replace(old, rows=old.columns, columns=old.rows, flipped=not old.flipped), self._values)

    def _blocks(self) -> list[tuple[int, Block]]:
        left = iter(self._values)
        return [(o, Block(s, c, next(left) if v is None else v)) for o, s, c, v, _ in self._layout.entries]

    def _batched(self) -> bool:
        shapes = [w for *_, v, w in self._layout.entries if v is None]
        return any(np.ndim(v) > len(w) for v, w in zip(self._values, shapes, strict=True))

    def coo(self) -> tuple[np.ndarray, np.ndarray, Any]:
        """Give (rows, cols, values), unique and row-major; rows and cols are NumPy arrays of whole numbers."""
        if self._batched():
            rows, cols, _, _ = self._layout.pattern
            return rows, cols, jax.vmap(lambda J: J.coo()[2])(self)
        rows, cols, where, present = self._layout.pattern
        flat = [_all_values(b, self.dtype) for _, b in self._blocks()]
        if not flat:
            return rows, cols, jnp.zeros((0,), self.dtype)
        values = jnp.concatenate(flat)
        values = values if len(present) == len(values) else values[present]
        if len(rows) == len(where) and (np.array_equal(where, np.arange(len(where)))):
            return rows, cols, values
        return rows, cols, jnp.zeros((len(rows),), self.dtype).at[where].add(values)

    def dense(self) -> Any:
        """Give the (m, n) array. Raises MemoryLimitError before it allocates more than 16 GiB."""
        m, n = self.shape
        if m * n * np.dtype(self.dtype).itemsize > _DENSE_LIMIT:
            size = m * n * np.dtype(self.dtype).itemsize / 2**30
            raise MemoryLimitError(
                f"dense: a {m}×{n} array of {self.dtype} takes {size:.0f} GiB. "
                "Use .scipy() or .coo(), or chainrule.linearize for products only."
            )
        if self._batched():
            return jax.vmap(Jacobian.dense)(self)
        rows, cols, values = self.coo()
        if len(rows) == m * n:
            return values.reshape(m, n)
        return jnp.zeros((m, n), self.dtype).at[rows, cols].set(values, unique_indices=True)

    def tree(self) -> Any:
        """Give exactly what `jax.jacobian` returns: outputs' pytree of inputs' pytrees of arrays."""
        dense, lay = self.dense(), self._layout
        batch = dense.shape[:-2]
        outs, r = [], 0
        for m, out_shape in zip(lay.rows.sizes, lay.rows.shapes, strict=True):
            ins, c = [], 0
            for n, in_shape, in_dtype in zip(lay.columns.sizes, lay.columns.shapes, lay.columns.dtypes, strict=True):
                part = dense[..., r : r + m, c : c + n].reshape((*batch, *out_shape, *in_shape))
                ins.append(part)
                c += n
            outs.append(jax.tree.unflatten(lay.columns.tree, ins))
            r += m
        return jax.tree.unflatten(lay.rows.tree, outs)

    def bcoo(self) -> Any:
        """Give a `jax.experimental.sparse.BCOO` array."""
        from jax.experimental.sparse import BCOO

        rows, cols, values = self.coo()
        index = jnp.asarray(np.stack([rows, cols], axis=1))
        return BCOO((values, index), shape=self.shape, indices_sorted=True, unique_indices=True)

    def scipy(self) -> Any:
        """Give a `scipy.sparse.csr_array`. Not inside `jit`: SciPy needs numbers."""
        import scipy.sparse

        rows, cols, values = self.coo()
        if isinstance(values, jax.core.Tracer):
            raise ChainruleError("scipy: the values are traced (inside jit, vmap or grad); call it outside, or use .coo()")
        return scipy.sparse.coo_array((np.asarray(values), (rows, cols)), shape=self.shape).tocsr()

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Jacobian):
            return _compose(self, other)
        leaves, tree = jax.tree.flatten(other)
        as_array = len(leaves) == 1 and leaves[0] is other
        if as_array and jnp.ndim(other) == 2 and jnp.shape(other)[0] == self.shape[1] and self.in_shapes != (jnp.shape(other),):
            return jax.vmap(self._apply, in_axes=1, out_axes=1)(jnp.asarray(other))
        if as_array and jnp.ndim(other) == 1 and jnp.shape(other) == (self.shape[1],):
            out = self._apply(jnp.asarray(other))
            return out if self.in_shapes != (jnp.shape(other),) or not _is_leaf(self.in_tree) else self._out(out)
        if tree != self.in_tree or tuple(jnp.shape(x) for x in leaves) != self.in_shapes:
            shapes = [tuple(jnp.shape(x)) for x in leaves]
            raise ShapeError(
                f"Jacobian @ v: J is {self.shape[0]}×{self.shape[1]} and takes inputs of shapes "
                f"{list(self.in_shapes)}, v has shapes {shapes}. Give a flat ({self.shape[1]},) vector or the inputs' pytree."
            )
        return self._out(self._apply(ravel_pytree(other)[0]))

    def _out(self, flat: Any) -> Any:
        rows = self._layout.rows
        pieces = jnp.split(flat, np.cumsum(rows.sizes)[:-1]) if rows.shapes else []
        return jax.tree.unflatten(rows.tree, [p.reshape(s) for p, s in zip(pieces, rows.shapes, strict=True)])

    def _apply(self, v: Any) -> Any:
        rows, cols, values = self.coo()
        dtype = jnp.promote_types(values.dtype, v.dtype)
        products = values.astype(dtype) * v.astype(dtype)[cols]
        return jax.ops.segment_sum(products, rows, self.shape[0], indices_are_sorted=True)

    def __add__(self, other: Jacobian) -> Jacobian:
        if not isinstance(other, Jacobian):
            return NotImplemented
        if self.shape != other.shape:
            raise ShapeError(f"cannot add these Jacobians: {_describe(self)} and {_describe(other)} differ in shape")
        a, b = self._layout, other._layout
        if a.flipped != b.flipped:
            return self + _rebuilt(other, a.flipped)
        lay = replace(a, entries=a.entries + b.entries, cost=a.cost + b.cost, dtype=jnp.promote_types(a.dtype, b.dtype))
        return Jacobian(lay, self._values + other._values)

    def __neg__(self) -> Jacobian:
        return self * -1

    def __sub__(self, other: Jacobian) -> Jacobian:
        return self + (-other)

    def __mul__(self, scalar: Any) -> Jacobian:
        if jnp.ndim(scalar) != 0:
            raise ShapeError(f"Jacobian * c: c must be a number, got shape {jnp.shape(scalar)}; use @ for products of maps")
        rows, cols, values = self.coo()
        c = scalar if isinstance(scalar, (int, float)) else jnp.asarray(scalar, values.dtype)
        return from_coo(self._layout, rows, cols, values * c)

    __rmul__ = __mul__

    def __getitem__(self, index: Any) -> Any:
        """`J[i, j]`: an entry, or what NumPy's indexing of the dense array would give."""
        if isinstance(index, tuple) and len(index) == 2 and all(isinstance(k, (int, np.integer)) for k in index):
            i, j = (_inside(int(k), size) for k, size in zip(index, self.shape, strict=True))
            rows, cols, values = self.coo()
            found = np.flatnonzero((rows == i) & (cols == j))
            return values[found[0]] if len(found) else jnp.zeros((), self.dtype)
        return self.dense()[index]

    def row(self, i: int) -> Any:
        """Row i, as an (n,) array: the gradient of output i."""
        rows, cols, values = self.coo()
        mine = np.flatnonzero(rows == _inside(i, self.shape[0]))
        return jnp.zeros((self.shape[1],), self.dtype).at[cols[mine]].set(values[mine])

    def col(self, j: int) -> Any:
        """Column j, as an (m,) array: the effect of input j."""
        return self.T.row(j)

    def diagonal(self) -> Any:
        """The entries J[i, i], as a (min(m, n),) array."""
        rows, cols, values = self.coo()
        mine = np.flatnonzero(rows == cols)
        return jnp.zeros((min(self.shape),), self.dtype).at[rows[mine]].set(values[mine])

    def trace(self) -> Any:
        """The sum of the diagonal of a square Jacobian."""
        if self.shape[0] != self.shape[1]:
            raise ShapeError(f"trace: J is {self.shape[0]}×{self.shape[1]}, only a square one has a trace; see .diagonal()")
        return self.diagonal().sum()

    def __repr__(self) -> str:
        m, n = self.shape
        return f"Jacobian {m}×{n} {self.dtype} · {self.structure} · {self.order}, {self.cost} multiply-adds"


def _is_leaf(tree: Any) -> bool:
    return tree == jax.tree.structure(0)


def _all_values(block: Block, dtype: Any) -> Any:
    full = np.broadcast_shapes((*block.shape, 1), block.cols.shape, block.vals.shape) if 0 not in block.shape else (0,)
    if 0 in block.shape:
        return jnp.zeros((0,), dtype)
    return jnp.broadcast_to(jnp.asarray(block.vals), full).reshape(-1).astype(dtype)


def _inside(index: int, size: int) -> int:
    if not -size <= index < size:
        raise ShapeError(f"Jacobian index {index} is out of range for an axis of {size}")
    return index % size


def _describe(J: Jacobian) -> str:
    return f"J_{J._layout.rows.name or 'f'} : {J.shape[0]}×{J.shape[1]}"


def from_coo(like: Layout, rows: np.ndarray, cols: np.ndarray, values: Any, columns: Space | None = None) -> Jacobian:
    """A Jacobian of `like`'s rows from a unique pattern: its rows padded to equal width where that is cheap."""
    columns = columns or like.columns
    m = like.rows.size
    counts = np.bincount(rows, minlength=m) if m else np.zeros(0, int)
    width = max(int(counts.max(initial=0)), 1)
    slot = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    table = np.full((m, width), -1, np.int32)
    table[rows, slot] = cols
    vals = jnp.zeros((m, width), values.dtype).at[rows, slot].set(values, unique_indices=True)
    lay = Layout(like.rows, columns, ((0, (m,), table, None, (m, width)),), values.dtype, False, like.order, like.cost)
    return Jacobian(lay, (vals,))


def _rebuilt(J: Jacobian, flipped: bool) -> Jacobian:
    """The same map with its blocks stored the other way round."""
    if not flipped:
        return from_coo(J._layout, *J.coo())
    turned = J.T
    return from_coo(turned._layout, *turned.coo()).T


def _compose(g: Jacobian, f: Jacobian) -> Jacobian:
    """The chain rule: J_g @ J_f."""
    (p, m), (k, n) = g.shape, f.shape
    if m != k:
        left, right = g._layout.columns.name or "the left map", f._layout.columns.name or "the right map"
        raise ShapeError(
            f"cannot compose these Jacobians: {left} takes {m} inputs, {right} gives {k} outputs.\n"
            f"  left  J_g : {p}×{m}  ({left})      right J_f : {k}×{n}  ({right})\n"
            "  J_g(f(x)) @ J_f(x) needs g's inputs to be f's outputs."
        )
    gi, gj, gv = g.coo()
    fi, fj, fv = f.coo()
    start, count = np.searchsorted(fi, np.arange(m)), np.bincount(fi, minlength=m) if m else np.zeros(0, int)
    copies = count[gj]
    left = np.repeat(np.arange(len(gi)), copies)
    within = np.arange(len(left)) - np.repeat(np.cumsum(copies) - copies, copies)
    right = start[gj[left]] + within
    key = gi[left] * max(n, 1) + fj[right]
    unique, where = np.unique(key, return_inverse=True)
    dtype = jnp.promote_types(gv.dtype, fv.dtype)
    values = jnp.zeros((len(unique),), dtype).at[where].add(gv[left].astype(dtype) * fv[right].astype(dtype))
    cost = g.cost + f.cost + len(left)
    like = replace(g._layout, cost=cost)
    return from_coo(like, unique // max(n, 1), unique % max(n, 1), values, f._layout.columns)
