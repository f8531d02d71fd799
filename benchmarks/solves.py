"""Measure what a structured Jacobian is solved for, against the best other ways, side by side in one process.

    python benchmarks/solves.py [--smoke] [--only NAME] [--out DIR]

Every way is warmed up and its answer compared with a reference in extended precision; then all ways of a task take
turns, and the figures are medians.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import report  # noqa: E402
from candidates import timed  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from run import FULL, SMOKE, take_turns  # noqa: E402
from solve_problems.task import Task, Way, Ways  # noqa: E402

LIMITS = replace(FULL, turns=15, candidate_s=4.0, quick_s=1.0)
SHORT = replace(SMOKE, turns=1, candidate_s=0.2, quick_s=0.0)
VERSIONS = ("scipy", "lineax", "diffrax", "klujax", "folx")
COLUMNS = ("task", "way", "ms", "quartiles", "runs", "÷ ours", "relative error", "goal")
LEGEND = (
    "Medians in ms after a warm-up; the ways of a task take turns, each with eight inputs, so that none meets a factor "
    "that was kept. ÷ ours: the time of a way over that of the first. Relative error: the largest difference to a "
    "reference (solves with residuals in extended precision; for Kvaerno5, SciPy's Radau with tighter tolerances). "
    "SuperLU alone, KLU alone: the share of SciPy's and klujax's solver, to factor and solve with matrices that are "
    "there. By hand: pattern and values as a person derives them. * marks a goal that is missed. Where the load "
    "average is not small, other processes ran at the same time: ratios hold better than times."
)
Row = dict[str, Any]


def all_tasks() -> Iterator[Task]:
    """Those of every file in solve_problems/."""
    names = sorted(p.stem for p in (HERE / "solve_problems").glob("*.py") if p.stem not in ("__init__", "task"))
    for name in names:
        yield from importlib.import_module(f"solve_problems.{name}").tasks


def error(found: Any, reference: Any) -> float:
    """The largest difference of each array, relative to its largest entry; the largest of these."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(reference), strict=True)
    return max(float(abs(np.asarray(a) - b).max() / abs(b).max()) for a, b in pairs)


class Turns:
    """A way as something to be called: each call takes the next input."""

    def __init__(self, way: Way):
        self._way, self._next = way, 0

    def __call__(self) -> Any:
        self._next += 1
        return self._way(self._next - 1)


def measure(task: Task, smoke: bool) -> list[Row]:
    """The rows of a task: one for each way."""
    made: Ways = task.make()
    turns = {name: Turns(way) for name, way in made.ways.items()}
    first = {name: timed(turn) for name, turn in turns.items()}
    errors = {n: error(answer, made.reference) for n, (answer, _) in first.items() if n not in made.parts}
    runs = take_turns({n: t for n, t in turns.items() if n not in made.once}, SHORT if smoke else LIMITS)
    runs |= {name: [first[name][1]] for name in made.once}
    medians = {name: statistics.median(runs[name]) for name in turns}
    base = next(iter(medians.values()))
    return [
        {
            "task": task.name + (f" ({made.note})" if made.note else ""),
            "way": name,
            "median_s": medians[name],
            "quartiles_s": statistics.quantiles(runs[name], n=4)[::2] if len(runs[name]) > 1 else runs[name] * 2,
            "runs": len(runs[name]),
            "ratio": medians[name] / base,
            "relative_error": errors.get(name),
            "right": not name.startswith("ours") or errors[name] <= task.within,
            **_goal(task, name, medians[name], base),
        }
        for name in turns
    ]


def _goal(task: Task, name: str, median: float, base: float) -> Row:
    if name in task.most_ms:
        return {"goal": f"≤ {task.most_ms[name]:g} ms", "reached": 1e3 * median <= task.most_ms[name]}
    if name in task.times:
        return {"goal": f"≥ {task.times[name]:g}×", "reached": median / base >= task.times[name]}
    return {"goal": "", "reached": None}


def cells(row: Row) -> list[str]:
    low, high = (1e3 * s for s in row["quartiles_s"])
    return [
        row["task"],
        row["way"],
        _ms(1e3 * row["median_s"]),
        f"{_ms(low)}–{_ms(high)}",
        str(row["runs"]),
        f"{row['ratio']:.2f}",
        "–" if row["relative_error"] is None else f"{row['relative_error']:.1e}" + ("" if row["right"] else " WRONG"),
        row["goal"] + ("*" if row["reached"] is False else ""),
    ]


def _ms(ms: float) -> str:
    return f"{ms:.3g}" if ms < 1000 else f"{ms:.0f}"


def growth(rows: list[Row]) -> list[str]:
    """How the time of ours grows where a task comes in several sizes."""
    sizes: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row["way"].startswith("ours") and " n=" in row["task"]:
            name, size = row["task"].split(" (")[0].split(" n=")
            n, _, what = size.partition(": ")
            sizes.setdefault(f"{name}, {what}, {row['way']}", []).append((int(n), row["median_s"]))
    return [
        f"{name}: {n} → {m}, time ×{t / s:.3g}, growth n^{math.log(t / s) / math.log(m / n):.2f}."
        for name, points in sizes.items()
        if len(points) > 2
        for (n, s), (m, t) in [(min(points), max(points))]
    ]


def environment() -> Row:
    found = report.environment() | {"cores used": len(os.sched_getaffinity(0))}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def show(rows: list[Row], legend: str) -> None:
    table = Table()
    for k, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if k < 2 else "right")
    for row in rows:
        table.add_row(*cells(row))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    for line in (legend, *growth(rows)):
        console.print(line, highlight=False)


def write(rows: list[Row], folder: Path, name: str, legend: str) -> None:
    """Write the report as Markdown and as JSON."""
    about = environment()
    lines = [COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows)]
    text = [f"# {name.capitalize()}", "", ", ".join(f"{k} {v}" for k, v in about.items()), ""]
    text += [f"| {' | '.join(line)} |" for line in lines] + ["", legend, "", *[f"- {line}" for line in growth(rows)]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text("\n".join(text) + "\n")
    (folder / f"{name}.json").write_text(json.dumps({"environment": about, "rows": rows}, indent=1) + "\n")


def main(tasks: Callable[[], Iterable[Task]], name: str, about: str, legend: str) -> int:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="small tasks, few rounds; checks the answers")
    parser.add_argument("--only", default="", help="names or parts of them, separated by commas")
    parser.add_argument("--out", type=Path, default=None, help=f"folder of {name}.md and {name}.json")
    options = parser.parse_args()
    wanted = [w.strip().lower() for w in options.only.split(",") if w.strip()]
    sized = [t for t in tasks() if t.smoke == options.smoke]
    chosen = [t for t in sized if not wanted or any(w in t.name.lower() for w in wanted)]
    if not chosen:
        raise SystemExit(f"no task is called like {options.only!r}: {', '.join(t.name for t in sized)}")
    rows: list[Row] = []
    for task in chosen:
        found, seconds = timed(lambda task=task: measure(task, options.smoke))
        Console(stderr=True).print(f"{task.name}: {seconds:.1f} s", highlight=False)
        rows += found
    show(rows, legend)
    if options.out or not (options.smoke or wanted):
        write(rows, options.out or HERE / "report", name, legend)
    wrong = [row for row in rows if not row["right"]]
    for row in wrong:
        Console(stderr=True).print(f"WRONG: {row['task']}, {row['way']}: {row['relative_error']:.1e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(all_tasks, "solves", __doc__, LEGEND))
