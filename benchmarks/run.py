"""Measure Jacobians against code by hand and against other ways to get them, side by side in one process.

    python benchmarks/run.py [--smoke] [--float32] [--problems a,b] [--rounds 50] [--out DIR]

Every candidate is compiled ahead of time and its values are checked; then all of a problem take turns, and
the figures are medians. Trace, pattern and compile times stand apart. README.md says what is timed, exactly.
"""

from __future__ import annotations

import argparse
import importlib
import math
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import charts  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import report  # noqa: E402
import scipy.sparse  # noqa: E402
from candidates import (  # noqa: E402
    Candidate,
    Limits,
    compiled,
    copy_bandwidth,
    dense,
    orders,
    ours,
    plan_of,
    rivals,
    streamed,
    timed,
)
from problem import Problem  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

import chainrule as cr  # noqa: E402

jax.config.update("jax_enable_x64", True)
TOLERANCE = {"float64": 1e-9, "float32": 1e-3}  # of the largest difference, relative to the largest entry
FULL = Limits(
    turns=50,
    candidate_s=4.0,
    quick_s=1.5,
    dense_bytes=2**30,
    coloured_pairs=2_000_000,
    compiles=3,
    coo=True,
    all_orders=True,
    setup_s=40,
)
SMOKE = Limits(
    turns=5, candidate_s=0.3, quick_s=0.1, dense_bytes=2**25, coloured_pairs=300_000, compiles=1, coo=False
)  # fmt: skip


def all_problems() -> list[Problem]:
    """Those of every file in problems/, in order of the files' names."""
    names = sorted(p.stem for p in (HERE / "problems").glob("*.py") if p.stem != "__init__")
    return [p for name in names for p in importlib.import_module(f"problems.{name}").problems]


def tolerance() -> float:
    """For the dtype that JAX computes with."""
    return TOLERANCE[str(jnp.result_type(float))]


def take_turns(candidates: dict[str, Candidate], limits: Limits) -> dict[str, list[float]]:
    """Seconds of every run; the candidates take turns, so that a busy moment of the machine meets them all.

    In its turn a candidate runs once for the caches, which another may have emptied, and four times for the
    record. Each turn starts with another candidate. A slow one leaves once its time is used up.
    """
    times: dict[str, list[float]] = {name: [] for name in candidates}
    spent = dict.fromkeys(candidates, 0.0)
    names, start, turn = list(candidates), time.perf_counter(), 0
    while turn < limits.turns or time.perf_counter() - start < limits.quick_s:
        due = [n for n in names if spent[n] < limits.candidate_s]
        if not due:
            break
        first = turn % len(due)
        for name in due[first:] + due[:first]:
            took = _one_turn(candidates[name], limits.candidate_s)
            times[name] += took[1:] if len(took) > 1 else took
            spent[name] += sum(took)
        turn += 1
    return times


def _one_turn(candidate: Candidate, limit_s: float) -> list[float]:
    took: list[float] = []
    while len(took) < 5 and (len(took) < 2 or sum(took) < limit_s / 3):
        took.append(timed(candidate)[1])
    return took


def difference(J: cr.Jacobian, wanted: Any) -> float:
    """The largest difference of two matrices, relative to the largest entry."""
    wanted = scipy.sparse.csr_array(wanted)
    return float(abs(J.scipy() - wanted).max() / abs(wanted).max())


def check(p: Problem, J: cr.Jacobian, by_hand: Any, others: dict[str, Candidate]) -> dict[str, float]:
    """Largest differences of ours to the code by hand and to the rivals; to large rivals along a random direction."""
    errors = {"by hand": difference(J, p.matrix(jax.tree.map(np.asarray, by_hand)))}
    v = np.random.default_rng(1).normal(size=J.shape[1])
    expected = J.scipy() @ v
    for name, candidate in others.items():
        theirs = candidate()
        if hasattr(theirs, "todense") or theirs.nbytes > 2**26:
            errors[name] = float(abs(np.asarray(theirs @ v) - expected).max() / abs(expected).max())
        else:
            errors[name] = difference(J, np.asarray(theirs))
    return errors


def compile_times(p: Problem, candidates: dict[str, Candidate], count: int) -> dict[str, float]:
    """Of ours and of `jacfwd`: medians of `count` compilations in turn, or the first where that took long."""
    makers = {"ours": ours(p), "jacfwd": dense(p, "jacfwd")}
    found = {name: [candidates[name].compile_s] for name in makers if name in candidates}
    if max(sum(t) for t in found.values()) < 3:
        for _ in range(count - 1):
            for name, times in found.items():
                times.append(compiled(makers[name](), candidates[name].argument).compile_s)
    return {name: statistics.median(times) for name, times in found.items()}


def measure(p: Problem, limits: Limits) -> dict[str, Any]:
    """One row of the report."""
    x = jax.tree.map(jnp.asarray, p.x)
    mine = compiled(ours(p)(), x)
    J = mine()
    _, pattern_s = timed(lambda: J.nnz)
    mine = replace(mine, pattern_s=pattern_s)
    hand = compiled(p.by_hand, x)
    others, left_out = rivals(p, J, limits)
    errors = check(p, J, hand(), others)
    plan = plan_of(p)
    candidates = {"f": compiled(p.f, x), "ours": mine, "by hand": hand, **others}
    if limits.all_orders:
        candidates |= orders(p, x, plan, J.order)
    if limits.coo:
        transform = ours(p)()
        candidates["coo"] = compiled(lambda x: transform(x).coo()[2], x)
    for candidate in candidates.values():
        candidate()
    compiling = compile_times(p, candidates, limits.compiles)
    row = _row(p, J, candidates, take_turns(candidates, limits), errors, left_out, compiling)
    return row | _of_orders(plan, J, row["median_s"])


def _of_orders(plan: cr.Plan, J: cr.Jacobian, medians: dict[str, float]) -> dict[str, Any]:
    """Counts of all orders; what structure gains over dense sweeps, and the order over structured ones."""
    counts = {o.name: o.multiply_adds for o in plan.orders}
    sweeps = [counts[name] for name in ("forward", "reverse") if name in counts]
    dense_sweep = min(J.shape) * plan.single
    times = {name: medians.get("ours" if name == J.order else f"{name} order", math.nan) for name in counts}
    known = [t for t in times.values() if not math.isnan(t)]
    return {
        "orders": counts,
        "order_s": times,
        "structure gain": dense_sweep / max(min(sweeps), 1),
        "order gain": min(sweeps) / max(counts.get(J.order, min(sweeps)), 1),
        "chosen/best order": medians["ours"] / min(known, default=math.nan),
    }


def _row(
    p: Problem,
    J: cr.Jacobian,
    candidates: dict[str, Candidate],
    runs: dict[str, list[float]],
    errors: dict[str, float],
    left_out: dict[str, str],
    compiling: dict[str, float],
) -> dict[str, Any]:
    medians = {name: statistics.median(t) for name, t in runs.items()}
    # what any program has to read and to write: the point, and the values of J as they are stored
    moved = sum(v.nbytes for v in jax.tree.leaves((candidates["ours"].argument, J)))
    best = min((medians[n] for n in errors if n != "by hand" and errors[n] < tolerance()), default=math.nan)
    return {
        "problem": p.name,
        "m": J.shape[0],
        "n": J.shape[1],
        "nnz": J.nnz,
        "structure": str(J.structure),
        "order": J.order,
        "multiply_adds": J.cost,
        "median_s": medians,
        "quartiles_s": {name: statistics.quantiles(t, n=4)[::2] if len(t) > 1 else t * 2 for name, t in runs.items()},
        "best_s": {name: min(t) for name, t in runs.items()},
        "runs": {name: len(t) for name, t in runs.items()},
        "trace_s": {name: c.trace_s for name, c in candidates.items()},
        "pattern_s": {name: c.pattern_s for name, c in candidates.items() if c.pattern_s},
        "compile_s": {**{name: c.compile_s for name, c in candidates.items()}, **compiling},
        "peak_bytes": {name: c.peak_bytes for name, c in candidates.items()},
        "nnz_bytes": jnp.dtype(J.dtype).itemsize * J.nnz,
        "moved_bytes": moved,
        "streamed_s": streamed(candidates["ours"], moved),
        "relative_error": errors,
        "left_out": left_out,
        "ours/by hand": medians["ours"] / medians["by hand"],
        "ours/best rival": medians["ours"] / best,
        "coo/best rival": medians.get("coo", math.nan) / best,
        "compile/jacfwd": compiling["ours"] / compiling.get("jacfwd", math.nan),
    }


def of_bandwidth(row: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """Bytes each second of ours on a sparse problem, and the share of what a copy reaches; nan for a dense one."""
    sparse = row["nnz"] < row["m"] * row["n"]
    rate = row["moved_bytes"] / row["streamed_s"] if sparse else math.nan
    return {"bandwidth": bandwidth, "bytes per second": rate, "of bandwidth": rate / bandwidth}


def wrong(rows: list[dict[str, Any]]) -> list[str]:
    """Which of our Jacobians disagree with the code by hand or with JAX."""
    judges = ("by hand", "jacfwd", "jacrev")
    return [
        f"{row['problem']} (against {name}: {row['relative_error'][name]:.1e})"
        for row in rows
        for name in judges
        if not row["relative_error"].get(name, 0.0) < tolerance()
    ]


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small problems, few rounds; checks the values")
    parser.add_argument("--float32", action="store_true", help="single precision, in which most GPUs are quicker")
    parser.add_argument("--problems", default="", help="names or parts of them, separated by commas")
    parser.add_argument("--rounds", type=int, default=0, help="turns of every candidate (default 50, with --smoke 5)")
    parser.add_argument("--out", type=Path, default=None, help="folder of report.md and report.json")
    return parser.parse_args(arguments)


def chosen(options: argparse.Namespace) -> list[Problem]:
    wanted = [w.strip().lower() for w in options.problems.split(",") if w.strip()]
    sized = [p for p in all_problems() if p.smoke or not options.smoke]
    here = [p for p in sized if not p.large or p.name.lower() in wanted or jax.default_backend() != "cpu"]
    return [p for p in here if not wanted or any(w in p.name.lower() for w in wanted)]


def main() -> int:
    options = options_of()
    jax.config.update("jax_enable_x64", not options.float32)
    limits = SMOKE if options.smoke else FULL
    limits = replace(limits, turns=options.rounds or limits.turns)
    problems, rows = chosen(options), []
    compiled(cr.jacobian(jnp.sin), jnp.ones(3))()  # what a process does once is no problem's cost
    shown = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*shown, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(problems))
        for p in problems:
            progress.update(task, description=p.name)
            rows.append(measure(p, limits))
            progress.advance(task)
    if not rows:
        raise SystemExit(f"no problem is called like {options.problems!r}: {', '.join(p.name for p in all_problems())}")
    bandwidth = copy_bandwidth(2**22 if options.smoke else 2**26)
    rows = [row | of_bandwidth(row, bandwidth) for row in rows]
    report.show(rows)
    whole = not options.smoke and not options.float32 and not options.problems
    if options.out or whole:
        report.write(rows, options.out or HERE / "report")
        charts.write(options.out or HERE / "report")
    for problem in wrong(rows):
        Console(stderr=True).print(f"WRONG VALUES: {problem}")
    return 1 if wrong(rows) else 0


if __name__ == "__main__":
    sys.exit(main())
