"""`save_jacobian`: the pieces of a Jacobian streamed to a Zarr store, which a kill leaves in order."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._errors import ChainruleError, InputTypeError
from chainrule._jacobians.structure import bandwidth
from chainrule._options import optional, require_count
from chainrule._space import Space, name_of
from chainrule._stored.chunks import Chunks
from chainrule._stored.jacobian import FORMAT, PROGRESS, StoredJacobian, described, open_jacobian

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_PART, _LOCK = "progress.part", "progress.lock"  # a state that is being written; who may write
_CHUNK = 2**18  # numbers in a chunk of an array
_STORED = {np.dtype(name) for name in ("float32", "float64", "complex64", "complex128")}
_MEMORY = 2**28  # bytes of a piece: not what is free, or the pieces would differ from run to run


def save_jacobian(
    f: Callable[..., Any],
    x: Any,
    path: Any,
    *,
    by_memory: int = _MEMORY,
    holomorphic: bool = False,
    progress: bool = False,
) -> StoredJacobian:
    """Write the Jacobian of `f` at `x` to a Zarr store, piece by piece (the extra `store`).

    A run that was stopped, or killed, is continued by the same call: finished pieces are not computed again, and the
    finished store is the one that a run without interruption makes.

    Parameters
    ----------
    f, x, holomorphic
        A function of one argument, as for `jacobian`, and the point.
    path : str or Path
        The folder of the store: a new one, or that of a run that was stopped.
    by_memory : int
        Bytes that a piece may take; 256 MiB unless given.
    progress : bool
        Show a bar with the time that is left, on standard error.

    Returns
    -------
    StoredJacobian
        What `open_jacobian(path)` gives.

    Raises
    ------
    ChainruleError
        `path` holds something else, or the Jacobian of another function, point or option; another process is writing
        to it; or the disk is full, after which the same call goes on.
    InputTypeError
        As `jacobian`; or where the Jacobian is of half precision, or `x` is traced.

    Notes
    -----
    The arrays are those of SciPy's CSR format: `data`, `indices` and `indptr`, the last one int64, in chunks with
    CRC32C checksums. A chunk is written once, when it is full; what is left of it stands in a file beside the arrays
    that is replaced as a whole after each piece.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     J = cr.save_jacobian(lambda x: x[1:] * x[:-1], jnp.arange(1.0, 4.0), folder + "/J.zarr")
    ...     J.shape, J.nnz, (J @ jnp.ones(3)).tolist()
    ((2, 3), 4, [3.0, 5.0])
    """
    what = f"save_jacobian of {name_of(f)}"
    require_count(what, "by_memory", by_memory)
    zarr = optional("save_jacobian", "zarr", "store")
    folder = Path(path).absolute()
    chunks = Chunks(f, 0, holomorphic, True, None, by_memory)
    own = digest(f, x, holomorphic, by_memory)
    if _finished(what, folder, own):
        return open_jacobian(folder)
    pieces = chunks.pieces(x)
    if np.dtype(pieces.dtype) not in _STORED:
        raise InputTypeError(f"{what}: its Jacobian is {pieces.dtype}, which SciPy's CSR format does not hold; convert "
                             "x, and what f computes with, by .astype(jnp.float32)")  # fmt: skip
    with _alone(what, folder):
        if not _finished(what, folder, own):  # by another process, just now
            writer = _Writer(zarr, folder, pieces.spaces, np.dtype(pieces.dtype), own, what)
            waiting = [piece for piece in chunks.cut(pieces) if piece.stop > writer.rows]
            with _bar(progress, what, pieces.shape[0], writer.rows) as advance:
                for chunk in chunks.computed(pieces, waiting):
                    matrix = chunk.jacobian.scipy()
                    writer.add(matrix[max(writer.rows - chunk.rows.start, 0) :])
                    advance(writer.rows)
            writer.finish()
    return open_jacobian(folder)


def digest(f: Callable[..., Any], x: Any, holomorphic: bool, by_memory: int) -> str:
    """A number for the linearized f, derivative rules and constants included, the point and the options."""
    from chainrule._accumulate.accumulate import only_order
    from chainrule._jax import constants
    from chainrule._trace import flat_output, linear_jaxpr, pick, require_inputs

    found = hashlib.blake2b(digest_size=16)
    problem = pick("save_jacobian", f, 0, (x,))
    require_inputs(problem, holomorphic)
    only, _ = only_order(problem, False, holomorphic)
    closed, _ = linear_jaxpr(problem.what, flat_output(problem, False)[0], problem.leaves, only == "reverse")
    found.update(re.sub(r" at 0x[0-9a-f]+", "", str(closed.jaxpr)).encode())
    for value in [*constants(closed), *problem.leaves]:
        if isinstance(value, jax.core.Tracer):
            raise InputTypeError(f"{problem.what}: the point and what f closes over are numbers; call it outside jit, "
                                 "vmap and grad")  # fmt: skip
        key = jnp.issubdtype(jnp.result_type(value), jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(value) if key else value)
        found.update(f"{array.shape} {array.dtype}".encode() + array.tobytes())
    found.update(str((str(problem.tree), FORMAT, by_memory, holomorphic)).encode())
    return found.hexdigest()


def _finished(what: str, folder: Path, own: str) -> bool:
    """Whether the store is there already; a folder of anything else is refused."""
    if folder.exists() and not folder.is_dir():
        raise ChainruleError(f"{what}: {folder} is a file; a store is a folder: give another path")
    if not folder.exists() or (folder / PROGRESS).exists() or not any(folder.iterdir()):
        return False
    if any(p.name not in (_PART, _LOCK) for p in folder.iterdir()):
        found = open_jacobian(folder)._group.attrs["digest"]  # says what is wrong with any other folder
        if found != own:
            raise _differs(what, folder)
        return True
    return False


def _differs(what: str, folder: Path) -> ChainruleError:
    return ChainruleError(
        f"{what}: {folder} holds the Jacobian of another function, point or option; "
        "give these, another path, or remove the folder"
    )


@contextlib.contextmanager
def _alone(what: str, folder: Path) -> Iterator[None]:
    """While no other process writes to the folder; when a process ends, however it ends, the system frees its lock."""
    with _writing(what, folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / _LOCK).open("a")
    with file:
        if not _locked(file):
            raise ChainruleError(f"{what}: another process, or thread, is writing to {folder}; wait until it has ended")
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # where an open file cannot be removed, it stays, and says nothing
                (folder / _LOCK).unlink()


def _locked(file: Any) -> bool:
    """Whether the lock of this file could be had; where the file system has none, it is had."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(file.name))
    except FileNotFoundError:  # who had the lock has just finished, and removed the file
        return False


@contextlib.contextmanager
def _writing(what: str, folder: Path) -> Iterator[None]:
    """Say what an error of the disk means for the store."""
    try:
        yield
    except OSError as error:
        raise ChainruleError(
            f"{what}: {folder} cannot be written ({error}); what is there is in order: once there is room, the "
            "same call goes on where it stopped"
        ) from error


class _Writer:
    """CSR arrays that grow by rows. What is on disk is always a whole number of pieces, and a state that says which."""

    names = ("data", "indices", "indptr")

    def __init__(self, zarr: Any, folder: Path, spaces: tuple[Space, Space], dtype: Any, own: str, what: str):
        self._zarr, self._folder, self._spaces, self._digest, self._what = zarr, folder, spaces, own, what
        self.rows, self._band, n = 0, (0, 0), spaces[1].size
        index = np.int32 if n < 2**31 else np.int64
        self._dtypes = dict(zip(self.names, (dtype, np.dtype(index), np.dtype(np.int64)), strict=True))
        self._written = dict.fromkeys(self.names, 0)  # numbers in full chunks
        self._tails = {name: np.zeros(int(name == "indptr"), kind) for name, kind in self._dtypes.items()}
        with _writing(what, folder):
            if (folder / PROGRESS).exists():
                self._restore()
            else:
                self._commit()
            self._group = self._opened()

    def _opened(self) -> Any:
        group = self._zarr.open_group(str(self._folder), mode="a", zarr_format=3)
        for name, dtype in self._dtypes.items():
            if name not in group:
                group.create_array(
                    name,
                    shape=(0,),
                    chunks=(_CHUNK,),
                    dtype=dtype,
                    compressors=[self._zarr.codecs.ZstdCodec(level=1), self._zarr.codecs.Crc32cCodec()],
                )
        return group

    def _restore(self) -> None:
        with np.load(self._folder / PROGRESS, allow_pickle=False) as state:
            if str(state["digest"]) != self._digest:
                raise _differs(self._what, self._folder)
            self.rows, (lower, upper) = int(state["rows"]), state["band"]
            self._band = int(lower), int(upper)
            self._written = {name: int(state[f"written_{name}"]) for name in self.names}
            self._tails = {name: state[f"tail_{name}"] for name in self.names}

    def _commit(self) -> None:
        """Replace the state as a whole, once the chunks that it speaks of are on disk."""
        written = {f"written_{name}": count for name, count in self._written.items()}
        tails = {f"tail_{name}": tail for name, tail in self._tails.items()}
        new = self._folder / _PART
        with new.open("wb") as file:
            state = {"digest": self._digest, "rows": self.rows, "m": self._spaces[0].size, "band": self._band}
            np.savez(file, **state, **written, **tails)  # type: ignore[arg-type]
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._folder / PROGRESS)

    def add(self, matrix: Any) -> None:
        """Append rows."""
        entries = self._written["data"] + len(self._tails["data"])
        lines = self.rows + np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        (lower, upper), own = self._band, bandwidth(lines, matrix.indices)
        self._band = max(lower, own[0]), max(upper, own[1])
        parts = matrix.data, matrix.indices, matrix.indptr[1:].astype(np.int64) + entries
        with _writing(self._what, self._folder):
            for name, part in zip(self.names, parts, strict=True):
                tail = np.concatenate([self._tails[name], part.astype(self._dtypes[name], copy=False)])
                full = len(tail) // _CHUNK * _CHUNK
                self._write(name, tail[:full])
                self._tails[name] = tail[full:].copy()
            self.rows += matrix.shape[0]
            self._commit()

    def _write(self, name: str, values: np.ndarray) -> None:
        start, array = self._written[name], self._group[name]
        if len(values):
            if array.shape[0] < start + len(values):
                array.resize((start + len(values),))
            self._put(name, start, values)
        self._written[name] = start + len(values)

    def _put(self, name: str, start: int, values: np.ndarray) -> None:
        with self._zarr.config.set({"array.write_empty_chunks": True}):  # a chunk that is not there is missing
            self._group[name][start : start + len(values)] = values

    def finish(self) -> None:
        """Write what is left, and the attributes that make the store a Jacobian."""
        rows, columns = self._spaces
        with _writing(self._what, self._folder):
            for name in self.names:
                start, tail = self._written[name], self._tails[name]
                self._group[name].resize((start + len(tail),))
                if len(tail):
                    self._put(name, start, tail)
            self._group.attrs.update(
                format=FORMAT, shape=[rows.size, columns.size], digest=self._digest, rows=described(rows),
                columns=described(columns), band=list(self._band),
            )  # fmt: skip
            for left in self._folder.rglob("*.partial"):  # of chunks that a kill interrupted
                left.unlink()
            (self._folder / PROGRESS).unlink()


@contextlib.contextmanager
def _bar(shown: bool, what: str, rows: int, done: int) -> Iterator[Callable[[int], None]]:
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=rows, completed=done)
        yield lambda now: bar.update(task, completed=now)
