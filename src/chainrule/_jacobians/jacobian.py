"""`Jacobian`: the derivative as a linear map, in numerator layout."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError, ShapeError
from chainrule._jacobians.display import braille_spy, html, plot
from chainrule._jacobians.structure import Structure
from chainrule._linalg.interface import LinearAlgebra
from chainrule._memory import require_memory
from chainrule._mesh import within_automatic
from chainrule._options import is_index, optional
from chainrule._space import Space, converted, flat

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact


@within_automatic("tree", "bcoo", "__matmul__", "__add__", "__mul__", "__getitem__", "row", "diagonal", "trace")
class Jacobian(LinearAlgebra):
    """The m×n linear map `dx -> J dx` that best approximates a function at a point.

    Rows are outputs, columns are inputs: `f(x + dx) ≈ f(x) + J @ dx`. It is an immutable pytree whose
    sparsity pattern is static, so it passes through `jit`, `vmap` and `grad` like an array. One that
    comes out of `vmap` has the batch as leading axes of everything that it gives.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> J = cr.jacobian(lambda x: x[1:] * x[:-1])(jnp.array([1.0, 2.0, 3.0]))
    >>> J.shape, J.nnz, J[0, 1].item()
    ((2, 3), 4, 1.0)
    >>> (J @ jnp.ones(3)).tolist(), (J.T @ jnp.ones(2)).tolist()
    ([3.0, 5.0], [2.0, 4.0, 2.0])
    """

    __array_priority__ = 100

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a Jacobian cannot be changed: {name} is set once; make a new one with +, -, * and @")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a Jacobian cannot be changed: {name} stays")

    # what a kind of Jacobian provides ------------------------------------------------------------

    if TYPE_CHECKING:  # as attributes or as properties

        @property
        def _rows(self) -> Space: ...
        @property
        def _columns(self) -> Space: ...

        dtype: Any

        @property
        def order(self) -> str: ...
        @property
        def cost(self) -> int: ...

    @property
    def fallbacks(self) -> tuple[str, ...]:
        """The primitives of the function that no rule covered."""
        return ()

    @property
    def _batch(self) -> int:
        """Number of leading batch axes, left by `vmap`."""
        raise NotImplementedError

    @property
    def T(self) -> Jacobian:
        """The transpose; `J.T @ w` is the pullback of w."""
        raise NotImplementedError

    @property
    def structure(self) -> Structure:
        """What the static pattern is; `str()` of it gives the words that a person would use."""
        raise NotImplementedError

    @property
    def nnz(self) -> int:
        """Number of entries that are not known to vanish."""
        raise NotImplementedError

    def _apply(self, v: Inexact[Array, " n"]) -> Inexact[Array, " m"]:
        """[n] -> [m]."""
        raise NotImplementedError

    def _after(self, other: Jacobian) -> Jacobian:
        raise NotImplementedError

    def _before(self, other: Jacobian) -> Jacobian:
        raise NotImplementedError

    def _plus(self, other: Jacobian) -> Jacobian:
        raise NotImplementedError

    def _times(self, scalar: Any) -> Jacobian:
        raise NotImplementedError

    def coo(self) -> tuple[np.ndarray, np.ndarray, Inexact[Array, "*batch nnz"]]:
        """Give (rows, cols, values), unique and row-major.

        rows, cols : NumPy arrays [nnz] of whole numbers, known while tracing.
        values : JAX array [nnz].
        """
        raise NotImplementedError

    @property
    def factors(self) -> tuple[Any, ...]:
        """The links of a product that is not multiplied out, the last one first; of any other Jacobian itself."""
        return (self,)

    def assemble(self) -> Any:
        """The same map with its entries stored, as one factor."""
        return self

    # what all of them share ----------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), outputs by inputs."""
        return self._rows.size, self._columns.size

    @property
    def in_tree(self) -> Any:
        """The pytree structure of the inputs."""
        return self._columns.tree

    @property
    def out_tree(self) -> Any:
        """The pytree structure of the outputs."""
        return self._rows.tree

    @property
    def in_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the inputs' leaves."""
        return self._columns.shapes

    @property
    def out_shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shapes of the outputs' leaves."""
        return self._rows.shapes

    def dense(self) -> Inexact[Array, "*batch m n"]:
        """Give the (m, n) array. Raises MemoryLimitError before it allocates what would not fit."""
        raise NotImplementedError

    _without_matrix = "Use .scipy() or .coo(), or chainrule.linearize for products only."

    def _require_memory(self, what: str) -> None:
        require_memory(f"{what} of {self._says('J')}", self.shape, np.dtype(self.dtype).itemsize, self._without_matrix)

    def tree(self) -> Any:
        """Give exactly what `jax.jacobian` returns: the outputs' pytree of the inputs' pytrees of arrays.

        Every array has the shape (*output's shape, *input's shape) and the dtype of the input, or the
        output's complex one where only the output is complex.
        """
        dense, rows, columns = self.dense(), self._rows, self._columns
        outs = []
        for r, m, out_shape, out_dtype in zip(rows.offsets, rows.sizes, rows.shapes, rows.dtypes, strict=True):
            ins, out_complex = [], jnp.issubdtype(out_dtype, jnp.complexfloating)
            for c, n, shape, dtype in zip(columns.offsets, columns.sizes, columns.shapes, columns.dtypes, strict=True):
                part = dense[..., r : r + m, c : c + n].reshape((*dense.shape[:-2], *out_shape, *shape))
                both = out_complex and not jnp.issubdtype(dtype, jnp.complexfloating)
                ins.append(part if both else converted(part, dtype))
            outs.append(jax.tree.unflatten(columns.tree, ins))
        return jax.tree.unflatten(rows.tree, outs)

    def bcoo(self) -> Any:
        """Give a `jax.experimental.sparse.BCOO` array of shape (m, n)."""
        from jax.experimental.sparse import BCOO

        if self._batch:
            return jax.vmap(lambda J: J.bcoo())(self)
        rows, cols, values = self.coo()
        places = jnp.asarray(np.stack([rows, cols], axis=1))
        return BCOO((values, places), shape=self.shape, indices_sorted=True, unique_indices=True)

    def scipy(self) -> Any:
        """Give a `scipy.sparse.csr_array`. Not inside `jit`: SciPy needs numbers."""
        import scipy.sparse

        rows, cols, values = self.coo()
        if isinstance(values, jax.core.Tracer):
            raise ChainruleError(
                "scipy: the values are traced (inside jit, vmap or grad); call it outside, or use .coo()"
            )
        if self._batch:
            raise ShapeError(
                f"scipy: a batch of Jacobians {values.shape[:-1]} is no matrix; take one with jax.tree.map"
            )
        # indices of one dtype, or SciPy converts them; a copy, for its own methods change them in place
        starts = np.searchsorted(rows, np.arange(self.shape[0] + 1, dtype=rows.dtype))
        starts = starts.astype(cols.dtype) if len(rows) <= np.iinfo(cols.dtype).max else starts
        return scipy.sparse.csr_array((np.array(values), cols.copy(), starts), shape=self.shape)

    def lineax(self, tags: Any = ()) -> Any:
        """Give a `lineax.AbstractLinearOperator`, tagged by the structure (the extra `solvers`).

        tags : tags of lineax that the caller promises besides, such as `lineax.symmetric_tag` for a Hessian.

        Examples
        --------
        >>> import chainrule as cr, jax.numpy as jnp, lineax as lx
        >>> A = cr.jacobian(lambda x: x**3)(jnp.array([1.0, 2.0])).lineax()
        >>> lx.is_diagonal(A), lx.linear_solve(A, jnp.array([3.0, 24.0])).value.tolist()
        (True, [1.0, 2.0])
        """
        optional("J.lineax()", "lineax")
        from chainrule._linalg.lineax_operator import operator as lineax_operator

        if self._batch:
            raise ShapeError(f"lineax: {self._says('J')} is a batch of Jacobians; call it inside vmap")
        return lineax_operator(self, tags)

    def __matmul__(self, other: Any) -> Any:
        """The map applied: a pushforward, or the chain rule.

        A pytree like the inputs gives one like the outputs (so does a vector, where the input is one vector);
        any other flat (n,) vector gives an (m,) one, an (n, k) matrix an (m, k) one, a Jacobian the
        composition. Raises ShapeError where the shapes do not fit.
        """
        if isinstance(other, Jacobian):
            return self._after_checked(other)
        if self._batch:
            return self._batched_product(other)
        if self._columns.holds(other):
            given = [getattr(x, "dtype", None) for x in jax.tree.leaves(other)]
            return self._rows.unflatten(self._apply(flat(other)), cast=given == list(self._columns.dtypes))
        if hasattr(other, "tocsr"):
            raise InputTypeError(
                f"Jacobian @ A: A is a {type(other).__name__} of SciPy; use J.scipy() @ A for a sparse product"
            )
        shape = tuple(np.shape(other)) if hasattr(other, "shape") else None
        if shape == (self.shape[1],):
            return self._apply(jnp.asarray(other))
        if shape is not None and len(shape) == 2 and shape[0] == self.shape[1]:
            return jax.vmap(self._apply, in_axes=1, out_axes=1)(jnp.asarray(other))
        given = [tuple(np.shape(x)) for x in jax.tree.leaves(other)]
        raise ShapeError(
            f"Jacobian @ v: {self._says('J')} takes inputs of shapes {list(self.in_shapes)}, v has shapes {given}. "
            f"Give the inputs' pytree, a flat ({self.shape[1]},) vector or a ({self.shape[1]}, k) matrix."
        )

    def _batched_product(self, other: Any) -> Any:
        own = np.shape(jax.tree.leaves(self)[-1])[:1]
        given = [tuple(np.shape(x)) for x in jax.tree.leaves(other)]
        if any(shape[:1] != own for shape in given):
            raise ShapeError(
                f"Jacobian @ v: {self._says('J')} is a batch of {own[0]}, v has shapes {given}; "
                "every array of v needs the batch as its first axis."
            )
        return jax.vmap(operator.matmul)(self, other)

    def _after_checked(self, f: Jacobian) -> Jacobian:
        m, k = self.shape[1], f.shape[0]
        if m != k:
            left, right = self._columns, f._columns
            raise ShapeError(
                f"cannot compose these Jacobians: {left.name or 'the left map'} takes {m} inputs, "
                f"{right.name or 'the right map'} gives {k} outputs.\n"
                f"  left  {self._says('J')}      right {f._says('J')}\n"
                "  J_g(f(x)) @ J_f(x) needs g's inputs to be f's outputs."
            )
        return self._with(f, lambda g, f: g._after(f))

    def _with(self, other: Jacobian, combine: Callable[[Any, Any], Jacobian]) -> Jacobian:
        """Combine two Jacobians, for every member of a batch where one of them is a batch."""
        depth = max(self._batch, other._batch)
        if not depth:
            return combine(self, other)
        axes = tuple(0 if J._batch == depth else None for J in (self, other))
        sizes = {np.shape(jax.tree.leaves(J)[-1])[:1] for J, axis in zip((self, other), axes, strict=True) if axis == 0}
        if len(sizes) > 1:
            raise ShapeError(
                f"{self._says('J')} and {other._says('J')} are batches of different sizes: {sorted(sizes)}"
            )
        return jax.vmap(lambda J, K: J._with(K, combine), in_axes=axes)(self, other)

    def _says(self, letter: str) -> str:
        name, place = self._columns.name, self._columns.place
        where = f"  ({name} at {place})" if place else ""
        return f"{letter}_{name or 'f'} : {self.shape[0]}×{self.shape[1]}{where}"

    def __add__(self, other: Any) -> Jacobian:
        if not isinstance(other, Jacobian):
            return NotImplemented
        if self.shape != other.shape:
            raise ShapeError(
                f"cannot add these Jacobians: {self._says('J')} and {other._says('J')} differ in shape; "
                "a sum needs equal numbers of outputs and of inputs."
            )
        return self._with(other, lambda J, K: J._plus(K))

    def __neg__(self) -> Jacobian:
        return self._times(-1)

    def __sub__(self, other: Any) -> Jacobian:
        return self + (-other) if isinstance(other, Jacobian) else NotImplemented

    def __mul__(self, scalar: Any) -> Jacobian:
        if not isinstance(scalar, (int, float, complex, Jacobian)) and not hasattr(scalar, "dtype"):
            return NotImplemented
        if isinstance(scalar, Jacobian) or np.ndim(scalar) != 0:
            shape = scalar.shape if hasattr(scalar, "shape") else np.shape(scalar)
            raise ShapeError(f"Jacobian * c: c must be one number, got shape {shape}; use @ for products of maps")
        return self._times(scalar)

    __rmul__ = __mul__

    def __truediv__(self, scalar: Any) -> Jacobian:
        return NotImplemented if isinstance(scalar, Jacobian) else self * (1 / scalar)

    def __getitem__(self, index: Any) -> Any:
        """`J[i, j]`: an entry; `J[i]`: a row; else what NumPy's indexing of the dense array would give."""
        whole = slice(None)
        pair: tuple[Any, Any] = index if isinstance(index, tuple) and len(index) == 2 else (index, whole)
        i, j = pair
        if is_index(i) and is_index(j):
            return self.row(i)[..., self._inside(j, 1)]
        if is_index(i) and isinstance(j, slice):
            return self.row(i)[..., j]
        if isinstance(i, slice) and is_index(j):
            return self.col(j)[..., i]
        dense = self.dense()
        try:
            return dense[(whole,) * self._batch + (index if isinstance(index, tuple) else (index,))]
        except (TypeError, IndexError) as error:
            raise InputTypeError(
                f"J[{index!r}]: {self._says('J')} takes one or two whole numbers, slices or arrays of these"
            ) from error

    def _inside(self, index: int, axis: int) -> int:
        size = self.shape[axis]
        if not is_index(index):
            raise InputTypeError(f"a {('row', 'column')[axis]} of J has a whole number, got {index!r}")
        if not -size <= index < size:
            raise ShapeError(f"Jacobian index {index} is out of range for the {size} {('rows', 'columns')[axis]} of J")
        return int(index) % size

    def row(self, i: int) -> Inexact[Array, "*batch n"]:
        """Row i, an (n,) array: the gradient of output i."""
        rows, cols, values = self.coo()
        i = self._inside(i, 0)
        mine = slice(*np.searchsorted(rows, [i, i + 1]))
        zeros = jnp.zeros((*values.shape[:-1], self.shape[1]), self.dtype)
        return zeros.at[..., cols[mine]].set(values[..., mine])

    def col(self, j: int) -> Inexact[Array, "*batch m"]:
        """Column j, an (m,) array: the effect of input j."""
        return self.T.row(self._inside(j, 1))

    def diagonal(self) -> Inexact[Array, "*batch k"]:
        """The entries J[i, i], a (min(m, n),) array."""
        rows, cols, values = self.coo()
        mine = np.flatnonzero(rows == cols)
        zeros = jnp.zeros((*values.shape[:-1], min(self.shape)), self.dtype)
        return zeros.at[..., rows[mine]].set(values[..., mine])

    def trace(self) -> Inexact[Array, "*batch"]:
        """The sum of the diagonal. Raises ShapeError where J is not square."""
        if self.shape[0] != self.shape[1]:
            raise ShapeError(f"trace: {self._says('J')} is not square; only a square J has a trace, see .diagonal()")
        return self.diagonal().sum(axis=-1)

    def __repr__(self) -> str:
        (m, n), dtype, batch = self.shape, np.dtype(self.dtype), " (a batch)" if self._batch else ""
        return f"Jacobian {m}×{n} {dtype}{batch} · {self.structure} · {self.order}, {self.cost:,} multiply-adds"

    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        return self.coo()[:2]

    def spy_text(self, width: int = 60, height: int = 20) -> str:
        """The pattern as a picture of braille dots, for the terminal."""
        return braille_spy(*self._positions(), self.shape, width, height)

    def spy(self, ax: Any = None, **options: Any) -> Any:
        """Draw the pattern with matplotlib (the extra `plots`), a marker for each entry; give the axes.

        Options are those of `Axes.scatter`: `color="tab:red"`, `s=4.0`; `c=J.coo()[2]` colours entries by their values.
        """
        return plot(*self._positions(), self.shape, ax=ax, **options)

    def _repr_html_(self) -> str:
        return html(repr(self), *self._positions(), self.shape, self.nnz)
