"""The command line: `chainrule jacobian FILE.py:function`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import typer
from jax.flatten_util import ravel_pytree
from rich.console import Console

import chainrule as cr

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_out, _err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)


class UsageError(Exception):
    """What the user gave cannot be worked with; shown as one line, exit code 2."""


@app.callback()
def _commands() -> None:
    """The derivative as a linear map."""


def main() -> None:
    """Run the command line; a mistake of the user's ends in one line and exit code 2."""
    try:
        app()
    except (UsageError, cr.ChainruleError) as error:
        _err.print(f"error: {' '.join(str(error).split())}", markup=False, style="red")
        sys.exit(2)


@contextlib.contextmanager
def _phase(what: str, times: dict[str, float]) -> Iterator[None]:
    """Time a phase; one that takes more than a second shows that it is under way."""
    status = _err.status(f"{what} …")
    timer = threading.Timer(1.0, status.start)
    start = time.perf_counter()
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        status.stop()
        times[what] = time.perf_counter() - start


def _module(place: str) -> Any:
    path = Path(place)
    is_file = path.suffix == ".py" or "/" in place
    if is_file and not path.is_file():
        raise UsageError(f"no file {place}")
    # the folder of a script, or the current one, as `python FILE.py` and `python -m` do
    sys.path.insert(0, str(path.parent) if is_file else "")
    try:
        return importlib.import_module(path.stem if is_file else place)
    except Exception as error:
        raise UsageError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error


def _function(target: str) -> tuple[Any, Callable[..., Any]]:
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise UsageError(f"{target!r} is not FILE.py:function or package.module:function")
    module = _module(place)
    if not hasattr(module, name):
        found = [
            k for k, v in vars(module).items() if callable(v) and not k.startswith("_") and not isinstance(v, type)
        ]
        raise UsageError(f"{place} has no function {name!r}; it has {', '.join(found) or 'none'}")
    if not callable(getattr(module, name)):
        raise UsageError(f"{target} is a {type(getattr(module, name)).__name__}, not a function")
    return module, getattr(module, name)


def _point(module: Any, at: str | None) -> Any:
    """The point of `--at` or the module's `x0` (a value, or a function that gives it), as floating-point arrays."""
    if at is None:
        if not hasattr(module, "x0"):
            raise UsageError(f"give the point with --at, or as x0 in {module.__name__}")
        point = module.x0() if callable(module.x0) else module.x0
    elif Path(at).suffix in _READERS:
        point = _read(Path(at))
    else:
        try:
            point = ast.literal_eval(at)
        except (ValueError, SyntaxError) as error:
            raise UsageError(
                f"--at {at!r} is no file (.npy, .npz, .json, .csv) and no literal such as '[1.0, 2.0]'"
            ) from error
    return _as_arrays(point)


def _as_arrays(point: Any) -> Any:
    """Lists of numbers become arrays; dicts and tuples stay pytrees."""
    if isinstance(point, dict):
        return {k: _as_arrays(v) for k, v in point.items()}
    if isinstance(point, tuple):
        return tuple(_as_arrays(v) for v in point)
    try:
        array = np.asarray(point)
    except ValueError as error:
        raise UsageError(f"the point is not an array: {error}") from error
    if array.dtype.kind not in "fc":
        whole = "; write 1.0 for 1" if array.dtype.kind in "iu" else ""
        raise UsageError(f"the point must be floating point, got {array.dtype} of shape {array.shape}{whole}")
    return array


def _read_npz(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as arrays:
        return {k: arrays[k] for k in arrays.files}


_READERS: dict[str, Callable[[Path], Any]] = {
    ".npy": lambda path: np.load(path, allow_pickle=False),
    ".npz": _read_npz,
    ".json": lambda path: json.loads(path.read_text()),
    ".csv": lambda path: np.loadtxt(path, delimiter=",", dtype=float),
}


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"no file {path}")
    try:
        return _READERS[path.suffix](path)
    except Exception as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _writer(path: Path) -> Callable[[Any], None]:
    if path.suffix not in (".npz", ".mtx"):
        raise UsageError(f"--out {path}: write to a name that ends in .npz (scipy.sparse) or .mtx (Matrix Market)")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: no folder {path.parent}")

    def write(matrix: Any) -> None:
        import scipy.io
        import scipy.sparse

        scipy.sparse.save_npz(path, matrix) if path.suffix == ".npz" else scipy.io.mmwrite(path, matrix)

    return write


@app.command()
def jacobian(
    target: Annotated[str, typer.Argument(metavar="FILE.py:function", help="or package.module:function")],
    at: Annotated[
        str | None, typer.Option(help="the point: .npy, .npz, .json, .csv or a literal; default: the module's x0")
    ] = None,
    order: Annotated[
        Literal["auto", "forward", "reverse"], typer.Option(help="direction of the accumulation")
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="write J to .npz (scipy.sparse) or .mtx (Matrix Market)")] = None,
    check: Annotated[bool, typer.Option("--check", help="compare with JAX and with finite differences")] = False,
) -> None:
    """Assemble the Jacobian of a function at a point; print what it is, what it cost and its picture."""
    write = _writer(out) if out else None
    module, f = _function(target)
    point = _point(module, at)
    if any(x.dtype.itemsize >= 8 and x.dtype != np.complex64 for x in jax.tree.leaves(point)):
        jax.config.update("jax_enable_x64", True)
    times: dict[str, float] = {}
    point = jax.tree.map(jnp.asarray, point)
    J = _timed(cr.jacobian(f, order=order, holomorphic=_is_complex(point)), point, times, target)
    _report(J, times)
    if write:
        with _phase("write", times):
            write(J.scipy())
        _out.print(f"written     {out}")
    if check and not _check(f, point, J, times):
        raise typer.Exit(1)


def _is_complex(point: Any) -> bool:
    return any(jnp.iscomplexobj(x) for x in jax.tree.leaves(point))


def _timed(transform: Any, point: Any, times: dict[str, float], target: str) -> Any:
    """Trace, compile and run apart; a second run is the one that is timed."""
    try:
        with _phase("trace", times):
            traced = transform.trace(point)
        with _phase("compile", times):
            compiled = traced.lower().compile()
        jax.block_until_ready(compiled(point))
        with _phase("run", times):
            J = jax.block_until_ready(compiled(point))
        with _phase("pattern", times):
            _ = J.nnz
    except cr.ChainruleError:
        raise
    except Exception as error:
        shapes = [tuple(x.shape) for x in jax.tree.leaves(point)]
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise UsageError(f"{target} fails at a point of shape {shapes}: {type(error).__name__}: {first}") from error
    return J


def _report(J: Any, times: dict[str, float]) -> None:
    m, n = J.shape
    _out.print(J.spy_text())
    _out.print(f"shape       {m:,} outputs × {n:,} inputs, {np.dtype(J.dtype)}")
    _out.print(f"structure   {J.structure}")
    _out.print(f"order       {J.order}")
    _out.print(f"nonzeros    {J.nnz:,}")
    _out.print(f"cost        {J.cost:,} multiply-adds")
    _out.print("times       " + ", ".join(f"{what} {1e3 * t:.3g} ms" for what, t in times.items()))


def _check(f: Callable[..., Any], point: Any, J: Any, times: dict[str, float], directions: int = 3) -> bool:
    """Products with J against JAX in both directions, and against central differences of f."""
    errors: dict[str, float] = {}
    with _phase("check", times):
        for seed in range(directions):
            for what, error in _compare(f, point, J, np.random.default_rng(seed)):
                errors[what] = max(error, errors.get(what, 0.0))
    eps = float(jnp.finfo(J.dtype).eps)
    # a central difference loses a third of the digits, and more where f is ill scaled
    limits = {"pushforward": eps**0.5, "pullback": eps**0.5, "finite differences": 50 * eps**0.5}
    agreed = all(errors[what] <= limits[what] for what in errors)
    for what, error in errors.items():
        verdict = "agrees" if error <= limits[what] else f"DISAGREES (limit {limits[what]:.1e})"
        _out.print(f"check       {what}: relative error {error:.1e}, {verdict}")
    return agreed


def _compare(f: Callable[..., Any], point: Any, J: Any, rng: np.random.Generator) -> Iterator[tuple[str, float]]:
    flat, unflatten = ravel_pytree(point)

    def flat_f(x: Any) -> Any:
        return ravel_pytree(f(unflatten(x)))[0]

    v = jnp.asarray(rng.normal(size=flat.shape), flat.dtype)
    Jv, exact = jax.jit(lambda J, v: J @ v)(J, v), None
    with contextlib.suppress(TypeError):  # a custom_vjp has no pushforward in JAX
        exact = jax.jvp(flat_f, (flat,), (v,))[1]
        yield "pushforward", _relative(Jv, exact)
    with contextlib.suppress(ValueError):  # a while loop has no pullback in JAX
        y, pull = jax.vjp(flat_f, flat)
        w = jnp.asarray(rng.normal(size=y.shape), y.dtype)
        yield "pullback", _relative(jax.jit(lambda J, w: J.T @ w)(J, w), pull(w)[0])
    h = (
        float(jnp.finfo(flat.dtype).eps) ** (1 / 3)
        * max(1.0, float(jnp.abs(flat).max(initial=0)))
        / float(jnp.abs(v).max(initial=1))
    )
    yield "finite differences", _relative(Jv, (flat_f(flat + h * v) - flat_f(flat - h * v)) / (2 * h))


def _relative(a: Any, b: Any) -> float:
    scale = float(jnp.linalg.norm(b))
    error = float(jnp.linalg.norm(a - b)) / (scale or 1.0)
    return error if np.isfinite(error) else np.inf
