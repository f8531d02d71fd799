"""The command line: `chainrule jacobian FILE.py:function`, `chainrule check FILE.py:function`."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import json
import sys
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import typer
from rich.console import Console

import chainrule as cr
from chainrule._check.agreement import Given
from chainrule._space import unit_of
from chainrule._stored import command as save_command
from chainrule._trace import pick
from chainrule.explain.commands import add_to

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
_out, _err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

Times = dict[str, float]  # seconds of each phase


class UsageError(Exception):
    """What the user gave cannot be worked with; shown as one line, exit code 2."""


@app.callback()
def _commands() -> None:
    """The derivative as a linear map."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a mistake of the user's ends in one line and exit code 2."""
    try:
        app(arguments)
    except (UsageError, cr.ChainruleError) as error:
        _err.print(f"error: {_one_line(error)}", markup=False, style="red")
        sys.exit(2)


@app.command()
def jacobian(
    target: Annotated[str, typer.Argument(metavar="FILE.py:function", help="or package.module:function")],
    at: Annotated[
        str | None,
        typer.Option(
            metavar="POINT",
            help="a .npy, .npz, .json or .csv file, or a literal like '[1.0, 2.0]'; else the module's x0",
        ),
    ] = None,
    order: Annotated[
        Literal["auto", "forward", "reverse"], typer.Option(help="direction of the accumulation")
    ] = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="write J: .npz (scipy.sparse) or .mtx (Matrix Market)")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="compare with JAX and with finite differences")] = False,
) -> None:
    """Assemble the Jacobian of a function at a point; print what it is, what it cost and its picture.

    Exit codes: 0; 1 where --check finds a difference; 2 where something given cannot be worked with.
    """
    write = _writer(out) if out else None
    module, f = _function(target)
    point = _point(module, at)
    times: Times = {}
    with _blaming(target, point):
        J = _assembled(f, point, order, times)
        _report(J, times)
        agreed = _check(f, point, J, times) if check else True
    if write:
        with _phase("write", times):
            write(J.scipy())
        _out.print(f"written     {out}", markup=False)
    if not agreed:
        raise typer.Exit(1)


@app.command()
def check(
    target: Annotated[str, typer.Argument(metavar="FILE.py:function", help="or package.module:function")],
    at: Annotated[
        str | None,
        typer.Option(metavar="POINT", help="as for jacobian; else the module's x0"),
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write the report as a page")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as JSON")] = False,
) -> None:
    """Say whether a function is differentiable at a point and its derivative right, and if not, which line is to blame.

    Exit codes: 0; 1 where it is not; 2 where something given cannot be worked with.
    """
    if html and not html.absolute().parent.is_dir():
        raise UsageError(f"--html {html}: no folder {html.parent}")
    module, f = _function(target)
    point = _point(module, at)
    with _blaming(target, point), _phase("check", {}):
        report = cr.check(f)(point)
    _out.print(json.dumps(report.to_dict(), indent=1) if as_json else str(report), markup=False)
    if html:
        report.save(html)
    if not report.ok:
        raise typer.Exit(1)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


# progress and blame ------------------------------------------------------------------------------


@contextlib.contextmanager
def _phase(what: str, times: Times) -> Iterator[None]:
    """Time a phase; one that takes more than a second shows that it is under way."""
    status = _err.status(f"{what} …")
    timer = threading.Timer(1.0, status.start)
    timer.daemon = True
    start = time.perf_counter()
    timer.start()
    try:
        yield
    finally:
        times[what] = time.perf_counter() - start
        timer.cancel()
        timer.join()  # or it might start the display after its end
        status.stop()


@contextlib.contextmanager
def _blaming(target: str, point: Any) -> Iterator[None]:
    """Say in one line which function fails where, in place of JAX's traceback."""
    try:
        yield
    except cr.ChainruleError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{x.dtype}{list(x.shape)}" for x in jax.tree.leaves(point))
        first, *_ = [*str(error).strip().splitlines(), ""]
        raise UsageError(f"{target} fails at the point {shapes}: {type(error).__name__}: {first}") from error


# the function ------------------------------------------------------------------------------------


def _function(target: str) -> tuple[ModuleType, Callable[..., Any]]:
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise UsageError(f"{target!r} is not FILE.py:function or package.module:function")
    module = _module(place)
    if not hasattr(module, name):
        found = [k for k, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
        functions = [k for k in found if not isinstance(vars(module)[k], type) and not k.startswith("_")]
        raise UsageError(f"{place} has no function {name!r}; it has {', '.join(functions) or 'none'}")
    if not callable(getattr(module, name)):
        raise UsageError(f"{target} is a {type(getattr(module, name)).__name__}, not a function")
    return module, getattr(module, name)


def _module(place: str) -> ModuleType:
    path = Path(place)
    is_file = path.suffix == ".py" or path.name != place
    if is_file and not path.is_file():
        raise UsageError(f"no file {place}")
    # the folder of a script, or the current one, as `python FILE.py` and `python -m` do
    sys.path.insert(0, str(path.parent.absolute()) if is_file else "")
    try:
        return _run_file(path) if is_file else importlib.import_module(place)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise UsageError(f"{place} cannot be imported: {type(error).__name__}: {_one_line(error)}") from error


def _run_file(path: Path) -> ModuleType:
    """Import a file by its place, whatever other module has its name."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    return module


# the point ---------------------------------------------------------------------------------------


def _point(module: ModuleType, at: str | None) -> Any:
    """The point of `--at` or the module's `x0` (a value, or a function that gives it), as a pytree of JAX arrays.

    Lists of numbers are arrays. Double precision is switched on where the point has it.
    """
    given = _x0(module) if at is None else _read(Path(at)) if Path(at).suffix in _READERS else _literal(at)
    point = jax.tree.map(_numbers, given, is_leaf=_is_list_of_numbers)
    if any(x.dtype in (np.float64, np.complex128) for x in jax.tree.leaves(point)):
        jax.config.update("jax_enable_x64", True)
    return jax.tree.map(jnp.asarray, point)


def _x0(module: ModuleType) -> Any:
    if not hasattr(module, "x0"):
        raise UsageError(f"no point: give one with --at, or define x0 in {module.__name__}")
    try:
        return module.x0() if callable(module.x0) else module.x0
    except Exception as error:
        raise UsageError(f"x0() of {module.__name__} fails: {type(error).__name__}: {_one_line(error)}") from error


def _literal(at: str) -> Any:
    try:
        return ast.literal_eval(at)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        files = ", ".join(_READERS)
        raise UsageError(f"--at {at!r} is neither a file ({files}) nor a literal such as '[1.0, 2.0]'") from error


def _is_list_of_numbers(x: Any) -> bool:
    return isinstance(x, list) and all(isinstance(v, int | float | complex) or _is_list_of_numbers(v) for v in x)


def _numbers(leaf: Any) -> Any:
    try:
        array = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
    except ValueError as error:
        raise UsageError(f"the point is not an array: {_one_line(error)}") from error
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        advice = "; write 1.0 for 1" if array.dtype.kind in "iu" else ""
        raise UsageError(f"the point must be floating point, got {array.dtype} of shape {array.shape}{advice}")
    return array


def _read_npz(path: Path) -> dict[str, np.ndarray]:
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
        raise UsageError(f"{path} cannot be read: {_one_line(error)}") from error


# the Jacobian ------------------------------------------------------------------------------------


def _assembled(f: Callable[..., Any], point: Any, order: Literal["auto", "forward", "reverse"], times: Times) -> Any:
    """Trace, compile and run apart; the time of a run is the shortest of some after the first."""
    holomorphic = any(jnp.iscomplexobj(x) for x in jax.tree.leaves(point))
    with _phase("trace", times):
        traced = cr.jacobian(f, order=order, holomorphic=holomorphic).trace(point)
    with _phase("compile", times):
        compiled = traced.lower().compile()
    with _phase("run", times):
        J = jax.block_until_ready(compiled(point))
        shortest = min(timeit.repeat(lambda: jax.block_until_ready(compiled(point)), number=1, repeat=5))
    times["run"] = shortest
    with _phase("pattern", times):
        _ = J.nnz
    return J


def _report(J: Any, times: Times) -> None:
    m, n = J.shape
    _out.print(J.spy_text(), markup=False)
    _out.print(f"shape       {m:,} outputs × {n:,} inputs, {np.dtype(J.dtype)}")
    _out.print(f"structure   {J.structure}")
    _out.print(f"order       {J.order}")
    _out.print(f"nonzeros    {J.nnz:,}")
    _out.print(f"cost        {J.cost:,} multiply-adds")
    if J.fallbacks:
        _out.print(f"no rule for {', '.join(J.fallbacks)}: applied to dense columns")
    _out.print("times       " + ", ".join(f"{what} {1e3 * t:.3g} ms" for what, t in times.items()))


def _writer(path: Path) -> Callable[[Any], None]:
    if path.suffix not in (".npz", ".mtx"):
        raise UsageError(f"--out {path}: write to a name that ends in .npz (scipy.sparse) or .mtx (Matrix Market)")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"--out {path}: no folder {path.parent}")

    def write(matrix: Any) -> None:
        import scipy.io
        import scipy.sparse

        try:
            scipy.sparse.save_npz(path, matrix) if path.suffix == ".npz" else scipy.io.mmwrite(path, matrix)
        except OSError as error:
            raise UsageError(f"--out {path}: {_one_line(error)}") from error

    return write


# the explorer ------------------------------------------------------------------------------------


def _target(target: str, at: str | None) -> tuple[Any, Any, Any]:
    module, f = _function(target)
    point = _point(module, at)
    return f, point, _blaming(target, point)


add_to(app, _target)
save_command.add_to(app, _target)


# the check ---------------------------------------------------------------------------------------


def _check(f: Callable[..., Any], point: Any, J: Any, times: Times) -> bool:
    """Products with J against JAX in both directions, and against central differences of f."""
    errors: dict[str, float | None] = dict.fromkeys(("pushforward", "pullback", "finite differences"))
    with _phase("check", times):
        given = Given.of(pick("check", f, 0, (point,)), differences=True, dense_limit=-1)
        for what, got, wanted, *_ in given.compared(J, near=0.0, directions=3, seed=0):
            errors[what] = max(errors[what] or 0.0, _relative(got, wanted))
    eps = unit_of((given.x, given.y))
    # a central difference loses a third of the digits, and more where f is ill scaled
    limits = dict.fromkeys(errors, eps**0.5) | {"finite differences": 50 * eps**0.5}
    verdicts = [_verdict(what, error, limits[what]) for what, error in errors.items()]
    return all(verdicts)


def _relative(a: Any, b: Any) -> float:
    scale = float(jnp.linalg.norm(b))
    error = float(jnp.linalg.norm(a - b)) / (scale or 1.0)
    return error if np.isfinite(error) else np.inf


def _verdict(what: str, error: float | None, limit: float) -> bool:
    agrees = error is None or error <= limit
    verdict = "agrees" if agrees else f"DISAGREES (limit {limit:.1e})"
    said = "JAX has none for this function" if error is None else f"largest relative error {error:.1e}, {verdict}"
    _out.print(f"check       {what}: {said}", markup=False)
    return agrees
