"""A Jacobian in a Zarr store: read row by row, a part of it in memory at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, ShapeError
from chainrule._jacobians.jacobian import Jacobian
from chainrule._jacobians.structure import Structure, without_places
from chainrule._linalg.interface import LinearAlgebra
from chainrule._options import optional
from chainrule._space import Space, promoted

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Inexact

_READ = 2**22  # entries that are in memory at a time
FORMAT = "chainrule CSR 1"
PROGRESS = "progress.npz"


class StoredJacobian(Jacobian):
    """A Jacobian whose entries lie in a store; `open_jacobian` gives it.

    Products stream through the entries, and rows are read as they are asked for. What needs all entries at once
    (`solve`, sums, composition) takes those of `.assemble()`, in memory. It is no pytree: nothing of it can be traced.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     J = cr.save_jacobian(lambda x: x[1:] * x[:-1], jnp.arange(4.0), folder + "/J.zarr")
    ...     (J @ jnp.ones(4)).tolist()
    [1.0, 3.0, 5.0]
    """

    order, cost = "stored", 0
    _batch = 0

    def __init__(self, path: Path, group: Any, spaces: tuple[Space, Space], flipped: bool = False):
        rows, columns = spaces[::-1] if flipped else spaces
        self.__dict__.update(_path=path, _group=group, _spaces=spaces, _flipped=flipped, _rows=rows, _columns=columns)
        self.__dict__.update(dtype=np.dtype(group["data"].dtype))

    if TYPE_CHECKING:
        _path: Path
        _group: Any
        _spaces: tuple[Space, Space]
        _flipped: bool

    @property
    def nnz(self) -> int:
        """Number of entries that are stored."""
        return int(self._group["data"].shape[0])

    @property
    def structure(self) -> Structure:
        """What the number of entries and the bandwidths say, which were counted as they were written."""
        lower, upper = self._group.attrs["band"]
        return without_places(self.nnz, (upper, lower) if self._flipped else (lower, upper), self.shape)

    @property
    def T(self) -> StoredJacobian:
        """The transpose, of the same store."""
        return StoredJacobian(self._path, self._group, self._spaces, not self._flipped)

    def __reduce__(self) -> Any:
        if self._flipped:
            raise TypeError("a transposed stored Jacobian cannot be pickled; pickle the path of its store")
        return open_jacobian, (str(self._path),)

    # reading ---------------------------------------------------------------------------------------

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        """A part of an array; a chunk that is missing or whose checksum differs is refused."""
        array = self._group[name]
        size = array.chunks[0]
        for k in range(start // size, -(-stop // size) if stop > start else start // size):
            if not (self._path / name / "c" / str(k)).exists():
                raise ChainruleError(f"{self._path}: chunk {k} of {name} is missing; save the Jacobian anew")
        try:
            return np.asarray(array[start:stop])
        except Exception as error:
            raise ChainruleError(
                f"{self._path}: {name}[{start}:{stop}] cannot be read, its chunk is corrupted ({error}); "
                "save the Jacobian anew"
            ) from error

    def _csr(self, start: int, stop: int) -> Any:
        """Rows of what is stored, as a SciPy matrix."""
        import scipy.sparse

        starts = self._read("indptr", start, stop + 1)
        first, last = int(starts[0]), int(starts[-1])
        data, indices = self._read("data", first, last), self._read("indices", first, last)
        own = (starts - first).astype(indices.dtype) if last - first < 2**31 else starts - first
        return scipy.sparse.csr_array((data, indices, own), shape=(stop - start, self._spaces[1].size))

    def _parts(self) -> Iterator[tuple[int, int, Any]]:
        """All rows of what is stored, so many at a time as hold about `_READ` entries."""
        m, start = self._spaces[0].size, 0
        step = max(1, m * _READ // max(self.nnz, 1))
        while start < m:
            stop = min(start + step, m)
            yield start, stop, self._csr(start, stop)
            start = stop

    def _apply(self, v: Any) -> Any:
        """[n] -> [m], or [n, k] -> [m, k]."""
        if isinstance(v, jax.core.Tracer):
            raise ChainruleError("a stored Jacobian is read from a file: multiply outside jit, vmap and grad")
        given, dtype = np.asarray(v), promoted(self.dtype, v.dtype)
        out = np.zeros((self.shape[0], *given.shape[1:]), dtype)
        for start, stop, own in self._parts():
            if self._flipped:
                out += own.T @ given[start:stop]
            else:
                out[start:stop] = own @ given
        return jnp.asarray(out)

    def __matmul__(self, other: Any) -> Any:
        """J @ v of a vector, a pytree or a matrix, streamed; of a Jacobian the composition, in memory."""
        shape = () if isinstance(other, Jacobian) else tuple(getattr(other, "shape", ()))
        if len(shape) == 2 and shape[0] == self.shape[1] and not self._columns.holds(other):
            return self._apply(jnp.asarray(other))
        return super().__matmul__(other)

    def __rmatmul__(self, other: Any) -> Any:
        """`v @ J`: the pullback of a flat vector, or of each row of a matrix."""
        if np.ndim(other) == 2:
            return self.T._checked(np.shape(other)[1], "v @ J")._apply(jnp.asarray(other).T).T
        return self.T @ other

    def _checked(self, size: int, what: str) -> StoredJacobian:
        if size != self.shape[1]:
            raise ShapeError(f"{what}: {self.T._says('J')}, v has {size} columns")
        return self

    def rows(self, start: int, stop: int) -> Jacobian:
        """Rows start … stop − 1, in memory: a `Jacobian` of that many outputs."""
        part = self.scipy(start, stop)
        return self._in_memory(part, self._rows.part(part.shape[0]))

    def _in_memory(self, matrix: Any, rows: Space) -> Any:
        from chainrule._jacobians.assembled import from_coo
        from chainrule._jacobians.layout import Layout

        places = matrix.tocoo()
        like = Layout(rows, self._columns, (), jnp.dtype(self.dtype), order=self.order)
        return from_coo(like, places.coords[0], places.coords[1], jnp.asarray(places.data))

    def scipy(self, start: int = 0, stop: int | None = None) -> Any:
        """Rows start … stop − 1 (all of them) as a `scipy.sparse.csr_array`."""
        if self._flipped:
            import scipy.sparse

            lines = slice(start, stop)
            parts = [own.T.tocsr()[lines] for _, _, own in self._parts()]
            size = len(range(*lines.indices(self.shape[0])))
            return scipy.sparse.hstack(parts).tocsr() if parts else scipy.sparse.csr_array((size, self.shape[1]))
        first, last, _ = slice(start, stop).indices(self.shape[0])
        return self._csr(first, max(first, last))

    def assemble(self) -> Any:
        """The same map in memory, as an assembled `Jacobian`."""
        return self._in_memory(self.scipy(), self._rows)

    # what a Jacobian provides, of all entries ------------------------------------------------------

    def coo(self) -> tuple[np.ndarray, np.ndarray, Inexact[Array, " nnz"]]:
        """Give (rows, cols, values), unique and row-major, all in memory."""
        whole = self.scipy().tocoo()
        return whole.coords[0], whole.coords[1], jnp.asarray(whole.data)

    def dense(self) -> Inexact[Array, "m n"]:
        """Give the (m, n) array. Raises MemoryLimitError before it allocates what would not fit."""
        self._require_memory("dense")
        return jnp.asarray(self.scipy().toarray())

    def row(self, i: int) -> Inexact[Array, " n"]:
        """Row i, an (n,) array; nothing else is read."""
        i = self._inside(i, 0)
        return jnp.asarray(self.scipy(i, i + 1).toarray()[0])

    def __getitem__(self, index: Any) -> Any:
        """As of any Jacobian; of a range of rows (`J[i:j]`) only these are read."""
        if isinstance(index, slice) and index.step in (None, 1):
            return jnp.asarray(self.scipy(*index.indices(self.shape[0])[:2]).toarray())
        return super().__getitem__(index)

    def _after(self, other: Jacobian) -> Jacobian:
        return self.assemble()._after(other.assemble())

    def _before(self, other: Jacobian) -> Jacobian:
        return other._after(self.assemble())

    def _plus(self, other: Jacobian) -> Jacobian:
        return self.assemble()._plus(other.assemble())

    def _times(self, scalar: Any) -> Jacobian:
        return self.assemble()._times(scalar)


def _loaded(name: str) -> Callable[..., Any]:
    def method(self: StoredJacobian, *args: Any, **keywords: Any) -> Any:
        return getattr(self.assemble(), name)(*args, **keywords)

    return functools.update_wrapper(method, getattr(LinearAlgebra, name))


for _name in (name for name, found in vars(LinearAlgebra).items() if not name.startswith("_") and callable(found)):
    setattr(StoredJacobian, _name, _loaded(_name))  # solves and what else needs all entries


def open_jacobian(path: Any) -> StoredJacobian:
    """Open what `save_jacobian` wrote (the extra `store`); its entries are read as they are asked for.

    Parameters
    ----------
    path : str or Path
        The folder of the store.

    Returns
    -------
    StoredJacobian
        A `Jacobian` of the same shape and dtypes. `J @ v`, `v @ J` and `J.T @ w` stream through the store;
        `J.rows(i, j)` is a `Jacobian` of some rows, `J.scipy(i, j)` SciPy's matrix of them, `J.assemble()` all of it
        in memory. Pytrees of several arrays come back as lists of them.

    Raises
    ------
    ChainruleError
        There is no such store, it is incomplete (it says how far), or a chunk is missing or its checksum wrong, which
        shows when it is read.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = cr.save_jacobian(lambda x: x**2, jnp.arange(1.0, 4.0), folder + "/J.zarr")
    ...     J = cr.open_jacobian(folder + "/J.zarr")
    ...     J[1:3].tolist(), (jnp.ones(3) @ J).tolist()
    ([[0.0, 4.0, 0.0], [0.0, 0.0, 6.0]], [2.0, 4.0, 6.0])
    """
    zarr, path = optional("open_jacobian", "zarr", "store"), Path(path).absolute()
    if not path.is_dir():
        raise ChainruleError(f"open_jacobian: there is no store {path}")
    if (path / PROGRESS).exists():
        raise incomplete(path)
    try:
        group = zarr.open_group(str(path), mode="r")
        meta = dict(group.attrs)
        spaces = _space(meta["rows"]), _space(meta["columns"])
        return StoredJacobian(path, group, spaces)
    except Exception as error:
        raise ChainruleError(
            f"open_jacobian: {path} cannot be read as a Jacobian: {type(error).__name__}: {error}"
        ) from error


def incomplete(path: Path) -> ChainruleError:
    """What is said of a store that is not finished."""
    with np.load(path / PROGRESS, allow_pickle=False) as state:
        done, m = int(state["rows"]), int(state["m"])
    return ChainruleError(
        f"open_jacobian: {path} is incomplete: {done:,} of {m:,} rows ({100 * done // max(m, 1)} %) are written. "
        "Call save_jacobian with the same function, point and options: it goes on where it stopped."
    )


def described(space: Space) -> dict[str, Any]:
    """A space as JSON."""
    return {
        "shapes": [list(s) for s in space.shapes],
        "dtypes": [str(np.dtype(d)) for d in space.dtypes],
        "name": space.name,
        "place": space.place,
    }


def _space(meta: dict[str, Any]) -> Space:
    shapes, dtypes = tuple(tuple(s) for s in meta["shapes"]), tuple(jnp.dtype(d) for d in meta["dtypes"])
    tree = jax.tree.structure(0 if len(shapes) == 1 else [0] * len(shapes))
    return Space(tree, shapes, dtypes, meta["name"], meta["place"])
