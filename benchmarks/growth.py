"""How trace, compile, run and memory grow with the size of a problem: slopes in log–log, and a picture.

    python benchmarks/growth.py [--smoke] [--out DIR]

Families: stencils by the nonzeros of J, per-sample networks by the batch, loops by their steps. Of each size a fresh
function is traced, its pattern found, compiled and run; run times are the shortest of some. A slope is fitted over the
sizes where a figure has left its constant part behind. Beside the run stands a copy of as many bytes as the program
writes: its slope, above 1 where arrays outgrow the caches, is the machine's own. Writes growth.json, growth.md and
growth.svg.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import report  # noqa: E402
from candidates import timed  # noqa: E402
from problems.brusselator import f as brusselator  # noqa: E402
from problems.brusselator import point  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402

import chainrule as cr  # noqa: E402

jax.config.update("jax_enable_x64", True)
SECONDS, BYTES = ("trace", "pattern", "compile", "run", "copy"), ("peak", "J")
FIGURES = (*SECONDS, *BYTES)
GOAL = 1.05
PAST = 4.0  # times its value at the smallest size: from there on a figure is past its constant part
LEAST = 3  # sizes that a slope is fitted to


@dataclass(frozen=True)
class Family:
    """Problems of one kind; `make(size)` gives a function and a point, `unit` what the size counts."""

    name: str
    unit: str
    make: Callable[[int], tuple[Callable[..., Any], Any]]
    sizes: tuple[int, ...]
    smoke: tuple[int, ...]


def stencil(nonzeros: int) -> tuple[Callable[..., Any], Any]:
    """The 2-D Brusselator whose Jacobian has about so many nonzeros: 12 for each cell."""
    return lambda x: brusselator(x), point(max(4, round(math.sqrt(nonzeros / 12))))


def per_sample(batch: int) -> tuple[Callable[..., Any], Any]:
    """A network 8 → 16 → 4 on a batch: a Jacobian of as many blocks."""
    rng = np.random.default_rng(0)
    W, V = rng.normal(size=(8, 16)), rng.normal(size=(16, 4))
    return lambda x: jnp.tanh(x @ W) @ V, rng.normal(size=(batch, 8))


def loop(steps: int) -> tuple[Callable[..., Any], Any]:
    """So many steps of an explicit scheme in a `scan` that gives the state after each."""

    def run(x: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            c = c + 0.1 * jnp.sin(c)
            return c, c

        return jax.lax.scan(step, x, length=steps)[1]

    return run, np.linspace(0.1, 1.0, 16)


FAMILIES = (
    Family("stencil", "nonzeros", stencil, tuple(10**k for k in range(3, 8)), (10**3, 10**4)),
    Family("per-sample net", "batch", per_sample, (1, 10, 100, 1000, 10_000, 100_000), (10, 100)),
    Family("loop", "steps", loop, (10, 100, 1000, 10_000, 100_000), (10, 100)),
)


def measure(family: Family, size: int, repeats: int) -> dict[str, float]:
    """One size: seconds of each phase, bytes of the compiled program and of J."""
    f, x = family.make(size)
    x, transform = jnp.asarray(x), cr.jacobian(f)
    traced, trace_s = timed(lambda: transform.trace(x))
    program, compile_s = timed(lambda: traced.lower().compile())
    J = jax.block_until_ready(program(x))
    _, pattern_s = timed(lambda: J.nnz)
    memory = program.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.output_size_in_bytes if memory else math.nan
    own = sum(v.nbytes for v in jax.tree.leaves(J))
    array = jnp.zeros(max(int(peak if memory else own) // 8, 1))
    copy = jax.jit(lambda x: x + 1).lower(array).compile()
    seconds = (
        trace_s,
        pattern_s,
        compile_s,
        shortest(lambda: program(x), repeats),
        shortest(lambda: copy(array), repeats),
    )
    return {"size": size, "nnz": J.nnz, **dict(zip(FIGURES, (*seconds, float(peak), float(own)), strict=True))}


def shortest(action: Callable[[], Any], repeats: int) -> float:
    """Seconds of the quickest of some runs."""
    jax.block_until_ready(action())
    start, runs = time.perf_counter(), list[float]()
    while len(runs) < repeats or (time.perf_counter() - start < 0.3 and len(runs) < 200):
        runs.append(timed(lambda: jax.block_until_ready(action()))[1])
    return min(runs)


def slope(sizes: list[int], figures: list[float]) -> float:
    """The slope in log–log where the figure is past its constant part; nan where it hardly gets there."""
    past = [k for k, y in enumerate(figures) if y >= PAST * min(figures)]
    first = max(min(past[0] - 1, len(sizes) - LEAST), 0) if past else None
    if first is None or len(sizes) < LEAST:
        return math.nan
    x, y = np.log(sizes[first:]), np.log(np.maximum(figures[first:], 1e-12))
    return float(np.polyfit(x, y, 1)[0])


def slopes(rows: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure of a family."""
    sizes = [int(r["size"]) for r in rows]
    return {name: slope(sizes, [r[name] for r in rows]) for name in FIGURES}


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """The report in Markdown."""
    lines = ["# Growth", "", ", ".join(f"{k} {v}" for k, v in report.environment().items()), ""]
    for family in (f for f in FAMILIES if f.name in found):
        rows = found[family.name]
        fitted = slopes(rows)
        head = " | ".join([family.unit, "nnz", *(f"{n} ms" for n in SECONDS), *(f"{n} MB" for n in BYTES)])
        lines += [f"## {family.name}, by {family.unit}", "", f"| {head} |"]
        lines += ["| --- " * (2 + len(FIGURES)) + "|"]
        for r in rows:
            cells = [f"{1e3 * r[n]:.3g}" for n in SECONDS] + [f"{r[n] / 1e6:.3g}" for n in BYTES]
            lines.append(f"| {int(r['size']):,} | {int(r['nnz']):,} | " + " | ".join(cells) + " |")
        shown = ["–" if math.isnan(s) else f"{s:.2f}{'*' if s > GOAL else ''}" for s in fitted.values()]
        lines += ["| slope | | " + " | ".join(shown) + " |", ""]
    lines.append(
        f"A slope is fitted where a figure is past {PAST:g} times its smallest value; – where it hardly grows at all. "
        f"Goal: ≤ {GOAL}; * marks one above. Copy: of as many bytes as the peak, on the same device. "
        "Peak: temporary and output memory of the compiled program; J: its stored values."
    )  # fmt: skip
    return "\n".join(lines) + "\n"


def plot(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """One panel for each family; a line of slope 1 beside."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "growth"
    figure, axes = plt.subplots(2, len(found), figsize=(4.2 * len(found), 6.4), squeeze=False, layout="constrained")
    for column, (name, rows) in zip(axes.T, found.items(), strict=True):
        sizes = np.array([r["size"] for r in rows], float)
        fitted = slopes(rows)
        for ax, names, unit in ((column[0], SECONDS, "s"), (column[1], BYTES, "bytes")):
            for figure_name in names:
                values = [r[figure_name] for r in rows]
                own = "" if math.isnan(fitted[figure_name]) else f" ({fitted[figure_name]:.2f})"
                ax.loglog(sizes, values, "o-", ms=3, label=figure_name + own)
            top = max(rows[-1][n] for n in names)
            ax.loglog(sizes, top * sizes / sizes[-1], ":", color="gray", lw=1, label="slope 1")
            ax.set_ylabel(unit)
            ax.legend(fontsize=7)
        column[0].set_title(name)
        column[1].set_xlabel(next(f.unit for f in FAMILIES if f.name == name))
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smoke", action="store_true", help="two small sizes of each family")
    parser.add_argument("--out", type=Path, default=None, help="folder of growth.md, growth.json and growth.svg")
    options = parser.parse_args(arguments)
    found: dict[str, list[dict[str, float]]] = {}
    jax.block_until_ready(cr.jacobian(jnp.sin)(jnp.ones(3)))  # what a process does once is no problem's cost
    shown = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    with Progress(*shown, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        for family in FAMILIES:
            sizes = family.smoke if options.smoke else family.sizes
            task = progress.add_task(family.name, total=len(sizes))
            found[family.name] = []
            for size in sizes:
                found[family.name].append(measure(family, size, 2 if options.smoke else 5))
                progress.advance(task)
    text = table(found)
    Console(soft_wrap=True, highlight=False).print(text, markup=False)
    out = options.out or (None if options.smoke else HERE / "report")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        kept = {
            "environment": report.environment(),
            "families": found,
            "slopes": {k: slopes(v) for k, v in found.items()},
        }
        (out / "growth.json").write_text(json.dumps(kept, indent=1) + "\n")
        (out / "growth.md").write_text(text)
        plot(found, out / "growth.svg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
