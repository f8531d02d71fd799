"""The report: one table, in the terminal, as Markdown and as JSON."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
from candidates import ORDERS, RIVALS
from rich.console import Console
from rich.table import Table

TARGETS = {"ours/by hand": 1.2, "ours/best rival": 1.05, "compile/jacfwd": 1.5}
COLUMNS = ("problem", "m × n", "nnz", "order", "f", "ours", "coo", "by hand", *RIVALS, "trace", "pattern", "compile",
           "peak MB", "nnz MB", "moved MB", "GB/s", "of copy", "÷ hand", "÷ rival", "compile ÷")  # fmt: skip
LEGEND = (
    "Times are medians in ms. coo: our sorted (rows, cols, values) in place of blocks. ÷ hand and ÷ rival: our time "
    "over that of the code by hand and of the best rival; compile ÷: our compile time over that of jacfwd. Peak: "
    "temporary and output memory of our program; nnz: one number for each nonzero. * marks a figure past its target. "
    "Moved: the point and the stored values of J, once each; GB/s: these over the time of one "
    "of several calls that are launched in a row; of copy: that over the bandwidth of a large copy on the same device "
    "(more than 100 % where a cache holds them)."
)
ORDER_COLUMNS = ("problem", "chosen", *(f"{name}, multiply-adds" for name in ORDERS), "structure gain", "order gain",
                 *(f"{name}, ms" for name in ORDERS), "÷ best order")  # fmt: skip
ORDER_LEGEND = (
    "Multiply-adds are counted from shapes and patterns, before anything runs. Structure gain: dense sweeps, column by "
    "column or row by row, over the better structured sweep; order gain: that sweep over the chosen order. ÷ best "
    "order: the time of the chosen order over that of the fastest that was measured."
)
Row = dict[str, Any]
_BEYOND = 16e6  # bytes, of which caches do not hold most


def cells(row: Row) -> list[str]:
    """A row as text, one cell a column."""
    return [
        row["problem"],
        f"{row['m']}×{row['n']}",
        str(row["nnz"]),
        row["order"],
        *[_run(row, name) for name in ("f", "ours", "coo", "by hand", *RIVALS)],
        _ms(row["trace_s"]["ours"]),
        _ms(row["pattern_s"].get("ours", 0.0)),
        _ms(row["compile_s"]["ours"]),
        f"{(row['peak_bytes']['ours'] or math.nan) / 1e6:.3g}",
        f"{row['nnz_bytes'] / 1e6:.3g}",
        f"{row['moved_bytes'] / 1e6:.3g}",
        "–" if math.isnan(row["of bandwidth"]) else f"{row['bytes per second'] / 1e9:.3g}",
        "–" if math.isnan(row["of bandwidth"]) else f"{row['of bandwidth']:.0%}",
        *[_ratio(row[name], target) for name, target in TARGETS.items()],
    ]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def _run(row: Row, name: str) -> str:
    if name in row["median_s"]:
        return _ms(row["median_s"][name])
    reason = row["left_out"].get(name, "skipped" if name == "coo" else "")
    return reason if reason in ("impossible", "skipped", "not installed") else "fails"


def _ratio(ratio: float, target: float) -> str:
    return "–" if math.isnan(ratio) else f"{ratio:.2f}{'*' if ratio > target else ''}"


def order_cells(row: Row) -> list[str]:
    """What the orders of a row take, as text."""
    counts, times = row["orders"], row["order_s"]
    return [
        row["problem"],
        row["order"],
        *[f"{counts[name]:,}" if name in counts else "–" for name in ORDERS],
        *[f"{row[name]:,.1f}" for name in ("structure gain", "order gain")],
        *[_ms(times[name]) if not math.isnan(times.get(name, math.nan)) else "–" for name in ORDERS],
        _ratio(row["chosen/best order"], 1.15),
    ]


def summary(rows: list[Row]) -> list[str]:
    """What the table says, in a few lines."""
    lines = [f"Against the best rival: {_speedup(rows, 'ours/best rival')} faster in geometric mean."]
    if any("coo" in row["median_s"] for row in rows):
        lines.append(f"The values of .coo() against the best rival: {_speedup(rows, 'coo/best rival')} faster.")
    large = [row for row in rows if row["of bandwidth"] > 0 and row["moved_bytes"] > _BEYOND]
    if large:
        shares = ", ".join(f"{row['problem']} {row['of bandwidth']:.0%}" for row in large)
        rate = f"{large[0]['bandwidth'] / 1e9:.3g} GB/s"
        lines.append(f"Of the copy's {rate}, where more than {_BEYOND / 1e6:.0f} MB move: {shares}.")
    for name, target in TARGETS.items():
        past = [f"{row['problem']} {row[name]:.2f}" for row in rows if row[name] > target]
        lines.append(f"{name} ≤ {target}: " + (f"missed by {'; '.join(past)}." if past else "reached everywhere."))
    return lines


def _speedup(rows: list[Row], name: str) -> str:
    ratios = [row[name] for row in rows if not math.isnan(row[name])]
    return f"{1 / statistics.geometric_mean(ratios):.2f}× ({len(ratios)} problems)" if ratios else "–"


def environment() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "device": jax.devices()[0].device_kind,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "load average": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "jax": jax.__version__,
        **{name: _version(name) for name in ("numpy", "scipy", "asdex", "sparsejac")},
        "dtype": str(jax.numpy.result_type(float)),
        "date": time.strftime("%Y-%m-%d"),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def show(rows: list[Row]) -> None:
    """Print the table and what it says."""
    console = Console(width=None if sys.stdout.isatty() else 240)
    table = Table()
    for k, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if k in (0, 3) else "right")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)
    for line in (LEGEND, *summary(rows)):
        console.print(line, highlight=False)
    table = Table()
    for name in ORDER_COLUMNS:
        table.add_column(name, justify="left" if name in ("problem", "chosen") else "right")
    for row in rows:
        table.add_row(*order_cells(row))
    console.print(table)
    console.print(ORDER_LEGEND, highlight=False)


def markdown(rows: list[Row]) -> str:
    """The table and what it says, as Markdown."""
    about = ", ".join(f"{name} {value}" for name, value in environment().items())
    table = [" | ".join(line) for line in (COLUMNS, ["---"] * len(COLUMNS), *map(cells, rows))]
    return "\n".join(
        [f"# Benchmarks\n\n{about}\n", *[f"| {line} |" for line in table], "", LEGEND, ""]
        + [f"- {line}" for line in summary(rows)]
        + ["", "## Orders", ""]
        + [f"| {' | '.join(line)} |" for line in (ORDER_COLUMNS, ["---"] * len(ORDER_COLUMNS), *map(order_cells, rows))]
        + ["", ORDER_LEGEND, ""]
    )


def write(rows: list[Row], folder: Path) -> None:
    """Write report.md and report.json; what is no number there is null."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.md").write_text(markdown(rows))
    plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    (folder / "report.json").write_text(json.dumps({"environment": environment(), "rows": plain}, indent=1) + "\n")
