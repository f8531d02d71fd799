"""Measure Jacobians against code by hand and against other ways to get them, side by side in one process.

    python benchmarks/run.py [--smoke] [--problems a,b] [--rounds 30] [--out DIR]

Every candidate is compiled ahead of time, its values are checked, then all of a problem take turns; the
figures are medians. Trace, pattern and compile times stand apart.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import platform
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import scipy.sparse  # noqa: E402
from jax.flatten_util import ravel_pytree  # noqa: E402
from problem import Problem  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import track  # noqa: E402
from rich.table import Table  # noqa: E402

import chainrule as cr  # noqa: E402

jax.config.update("jax_enable_x64", True)
DENSE_BYTES = 2**30  # larger dense Jacobians are not tried
RIVALS = ("jacfwd", "jacrev", "asdex", "sparsejac")


def all_problems() -> list[Problem]:
    names = sorted(p.stem for p in (HERE / "problems").glob("*.py") if p.stem != "__init__")
    return [p for name in names for p in importlib.import_module(f"problems.{name}").problems]


def timed(action: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def compiled(f: Any, x: Any) -> tuple[Any, dict[str, float]]:
    """Trace and compile ahead of time."""
    traced, trace = timed(lambda: (f if hasattr(f, "trace") else jax.jit(f)).trace(x))
    program, compile_time = timed(lambda: traced.lower().compile())
    return program, {"trace_s": trace, "compile_s": compile_time}


def flat_of(p: Problem) -> tuple[Any, Any]:
    """f on flat vectors, as the sparse rivals want it."""
    flat, unflatten = ravel_pytree(p.x)
    if p.hessian:
        return p.f, flat
    return (lambda v: ravel_pytree(p.f(unflatten(v)))[0]), flat


def rivals(p: Problem, J: Any) -> dict[str, tuple[Any, Any, dict[str, float]]]:
    """What else gives this Jacobian: {name: (compiled, argument, times)}."""
    found: dict[str, Any] = {}
    m, n = J.shape
    flat_f, flat = flat_of(p)
    dense = {"jacfwd": jax.jacfwd(flat_f), "jacrev": jax.jacrev(flat_f)}
    if p.hessian:
        dense = {"jacfwd": jax.jacfwd(jax.grad(flat_f)), "jacrev": jax.jacrev(jax.grad(flat_f))}
    if 8 * m * n <= DENSE_BYTES:
        for name, f in dense.items():
            found[name] = (*_attempt(f, flat), flat)
    asdex = _import("asdex")
    if asdex is not None:
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        sparse, pattern = timed(lambda: (asdex.hessian if p.hessian else asdex.jacobian)(flat_f, flat))
        program, times = _attempt(sparse, flat)
        found["asdex"] = (program, {**times, "pattern_s": pattern}, flat)
    sparsejac = _import("sparsejac")
    if sparsejac is not None and max(m, n) <= 1024:
        g = jax.grad(flat_f) if p.hessian else flat_f
        sparse, pattern = timed(lambda: sparsejac.jacfwd(g, J.bcoo()))
        program, times = _attempt(sparse, flat)
        found["sparsejac"] = (program, {**times, "pattern_s": pattern}, flat)
    return {name: (program, x, times) for name, (program, times, x) in found.items() if program is not None}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _attempt(f: Any, x: Any) -> tuple[Any, dict[str, float]]:
    try:
        return compiled(f, x)
    except Exception as error:
        warnings.warn(f"a rival does not run: {type(error).__name__}: {error}", stacklevel=2)
        return None, {}


def rounds(candidates: dict[str, tuple[Any, Any]], count: int) -> dict[str, list[float]]:
    """All candidates in turn, seconds of every run; at least `count`, for a short while more where they are quick.

    Each turn runs a candidate once for the caches, which another may have emptied, and then some times for the record.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for program, x in candidates.values():
        for _ in range(3):
            jax.block_until_ready(program(x))
    start = time.perf_counter()
    while len(times["f"]) < count or (time.perf_counter() - start < 0.02 * count and len(times["f"]) < 20 * count):
        for name, (program, x) in candidates.items():
            took = [timed(lambda: jax.block_until_ready(program(x)))[1] for _ in range(5)]  # noqa: B023
            times[name] += took[1:] if sum(took) < 1 else took
    return times


def check(p: Problem, J: Any, by_hand: Any) -> float:
    """The largest difference to the code by hand, relative to the largest entry."""
    wanted = p.matrix(jax.tree.map(np.asarray, by_hand))
    difference = abs(J.scipy() - scipy.sparse.csr_array(wanted)).max()
    return float(difference / abs(wanted).max())


def measure(p: Problem, count: int) -> dict[str, Any]:
    x = jax.tree.map(jnp.asarray, p.x)
    transform = cr.hessian(p.f) if p.hessian else cr.jacobian(p.f)
    ours, our_times = compiled(transform, x)
    hand, _ = compiled(p.by_hand, x)
    f, _ = compiled(p.f, x)
    J = ours(x)
    _, pattern = timed(lambda: J.nnz)
    error = check(p, J, hand(x))
    others = rivals(p, J)
    candidates = {"f": (f, x), "ours": (ours, x), "by hand": (hand, x)}
    candidates |= {name: (program, argument) for name, (program, argument, _) in others.items()}
    runs = rounds(candidates, count)
    medians = {name: statistics.median(t) for name, t in runs.items()}
    best = min((medians[name] for name in others), default=math.nan)
    memory = ours.memory_analysis()
    forward = others.get("jacfwd", (None, None, {}))[2].get("compile_s")
    return {
        "problem": p.name,
        "m": J.shape[0],
        "n": J.shape[1],
        "nnz": J.nnz,
        "structure": str(J.structure),
        "order": J.order,
        "multiply_adds": J.cost,
        "relative_error": error,
        "seconds": medians,
        "spread": {name: statistics.quantiles(t, n=4)[2] - statistics.quantiles(t, n=4)[0] for name, t in runs.items()},
        "trace_s": our_times["trace_s"],
        "pattern_s": pattern,
        "compile_s": our_times["compile_s"],
        "rival_times": {name: t for name, (_, _, t) in others.items()},
        "peak_bytes": memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else None,
        "ours/by hand": medians["ours"] / medians["by hand"],
        "ours/best rival": medians["ours"] / best,
        "compile/jacfwd": our_times["compile_s"] / forward if forward else math.nan,
    }


COLUMNS = ("problem", "m × n", "nnz", "order", "f", "ours", "by hand", *RIVALS, "trace", "pattern", "compile", "peak MB",
           "÷ hand", "÷ rival", "compile ÷")  # fmt: skip


def cells(row: dict[str, Any]) -> list[str]:
    def ms(seconds: float | None) -> str:
        return "–" if seconds is None else f"{1e3 * seconds:.3g}"

    s = row["seconds"]
    return [
        row["problem"],
        f"{row['m']}×{row['n']}",
        str(row["nnz"]),
        row["order"],
        *[ms(s.get(name)) for name in ("f", "ours", "by hand", *RIVALS)],
        *[ms(row[name]) for name in ("trace_s", "pattern_s", "compile_s")],
        f"{(row['peak_bytes'] or 0) / 1e6:.3g}",
        *[
            "–" if math.isnan(row[k]) else f"{row[k]:.2f}"
            for k in ("ours/by hand", "ours/best rival", "compile/jacfwd")
        ],
    ]


def environment() -> dict[str, Any]:
    return {
        "device": str(jax.devices()[0]),
        "cpu": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "dtype": "float64",
        "date": time.strftime("%Y-%m-%d"),
    }


def markdown(rows: list[dict[str, Any]], summary: str) -> str:
    about = ", ".join(f"{k} {v}" for k, v in environment().items())
    lines = [f"# Benchmarks\n\n{about}. Times are medians in ms; ÷ columns are ratios of ours to the others'.\n"]
    lines += ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    return "\n".join([*lines, "", summary, ""])


def summarize(rows: list[dict[str, Any]]) -> str:
    ratios = [1 / row["ours/best rival"] for row in rows if not math.isnan(row["ours/best rival"])]
    mean = math.exp(statistics.fmean(map(math.log, ratios))) if ratios else math.nan
    worst = max(rows, key=lambda row: row["ours/by hand"])
    return (
        f"Against the best rival: {mean:.1f}× faster in geometric mean over {len(ratios)} problems. "
        f"Against code by hand: at most {worst['ours/by hand']:.2f}× its time ({worst['problem']})."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small problems, few rounds")
    parser.add_argument("--problems", default="", help="names or parts of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=0, help="runs of every candidate (default 50, with --smoke 5)")
    parser.add_argument("--out", type=Path, default=None, help="folder of report.md and report.json")
    options = parser.parse_args()
    wanted = [w.strip().lower() for w in options.problems.split(",") if w.strip()]
    chosen = [p for p in all_problems() if (p.smoke or not options.smoke)]
    chosen = [p for p in chosen if not wanted or any(w in p.name.lower() for w in wanted)]
    console, table, rows = Console(width=None if sys.stdout.isatty() else 220), Table(*COLUMNS), []
    for p in track(chosen, description="measuring", console=Console(stderr=True)):
        rows.append(measure(p, options.rounds or (5 if options.smoke else 50)))
        table.add_row(*cells(rows[-1]))
    console.print(table)
    console.print(summarize(rows))
    out = options.out or (None if options.smoke or wanted else HERE / "report")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(markdown(rows, summarize(rows)))
        (out / "report.json").write_text(json.dumps({"environment": environment(), "rows": rows}, indent=1))
    wrong = [row["problem"] for row in rows if not row["relative_error"] < 1e-8]
    if wrong:
        console.print(f"WRONG VALUES: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
