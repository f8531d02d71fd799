"""Draw the reports: one static page with charts of all problems against all rivals, and the figure of the README.

    python benchmarks/charts.py [--report DIR]

Reads the JSON that run.py, solves.py, laplacians.py and growth.py have written to a folder, and writes `index.html`,
which needs no network, and `figure.svg` beside it. run.py calls it at the end.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RIVALS = ("jacfwd", "jacrev", "asdex", "sparsejac")
# told apart by people who see no red or no green (Okabe and Ito)
COLOURS = {"jacfwd": "#0072b2", "jacrev": "#56b4e9", "asdex": "#d55e00", "sparsejac": "#cc79a7", "by hand": "#009e73"}
TITLES = {
    "report": "Jacobians",
    "solves": "Solves, flows and functions that equations define",
    "laplacians": "Laplacians",
}
STYLE = {"svg.fonttype": "none", "svg.hashsalt": "chainrule", "font.family": "sans-serif", "font.size": 9}
Row = dict[str, Any]


def ratios(row: Row) -> dict[str, float]:
    """How many times as long as ours each other way takes."""
    times = row["median_s"]
    return {name: times[name] / times["ours"] for name in (*RIVALS, "by hand") if times.get(name)}


def strips(rows: list[Row]) -> dict[str, list[float]]:
    """What the figure of the README shows: a number for each problem, above 1 where chainrule is the faster."""
    found = [ratios(row) for row in rows]
    return {
        "the better of jacfwd and jacrev": [
            min(r[k] for k in RIVALS[:2] if k in r) for r in found if {*RIVALS[:2]} & {*r}
        ],
        "the best of asdex and sparsejac": [
            min(r[k] for k in RIVALS[2:] if k in r) for r in found if {*RIVALS[2:]} & {*r}
        ],
        "the Jacobian by hand": [r["by hand"] for r in found if "by hand" in r],
    }


def figure(rows: list[Row], about: dict[str, Any]) -> plt.Figure:
    """Three strips of dots, one dot a problem."""
    fig, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
    strip_of = strips(rows)
    for y, values in enumerate(reversed(strip_of.values())):
        colour = ("#009e73", "#d55e00", "#0072b2")[y]
        # side by side where they would hide each other
        offsets = [0.24 * ((k * 0.618) % 1 - 0.5) for k in range(len(values))]
        ax.scatter(sorted(values), [y + o for o in offsets], s=22, color=colour, alpha=0.75, linewidths=0)
        middle = statistics.median(values)
        ax.plot([middle] * 2, [y - 0.3, y + 0.3], color="#222", lw=1.5)
        ax.annotate(f"{middle:.3g}×", (middle, y + 0.3), ha="center", va="bottom", fontsize=8)
    _scale(ax)
    names = [f"against {name},\n{len(values)} problems" for name, values in strip_of.items()]
    ax.set_yticks(range(len(names)), reversed(names))
    ax.set_ylim(-0.5, 2.55)
    ax.set_xlabel(f"how many times faster chainrule is (float64, {about['device']}, {about['cores']} cores)")
    return fig


def by_problem(rows: list[Row]) -> plt.Figure:
    """All problems, all rivals: a line a problem, a dot a rival."""
    rows = sorted(rows, key=lambda row: min(ratios(row).values(), default=1))
    fig, ax = plt.subplots(figsize=(9, 0.24 * len(rows) + 1.2), layout="constrained")
    for name, colour in COLOURS.items():
        dots = [(ratios(row)[name], y) for y, row in enumerate(rows) if name in ratios(row)]
        if dots:
            marker = "D" if name == "by hand" else "o"
            ax.scatter(*zip(*dots, strict=True), s=24, color=colour, label=name, marker=marker, linewidths=0, zorder=3)
    ax.set_yticks(range(len(rows)), [row["problem"] for row in rows])
    ax.grid(axis="y", color="#ddd", lw=0.5)
    _scale(ax)
    ax.set_xlabel("time over ours: chainrule is faster right of the line")
    ax.legend(loc="lower right", ncols=len(COLOURS), frameon=False, bbox_to_anchor=(1, 1))
    ax.set_ylim(-0.7, len(rows) - 0.3)
    return fig


def by_task(rows: list[Row]) -> plt.Figure:
    """The reports of tasks: every way as a dot, ours the line."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    fig, ax = plt.subplots(figsize=(9, 0.3 * len(tasks) + 1.2), layout="constrained")
    for row in rows:
        if row["way"] == "ours" or not row["ratio"]:
            continue
        y = len(tasks) - 1 - tasks.index(row["task"])
        mine = row["way"].startswith("ours")
        ax.scatter([row["ratio"]], [y], s=20, color="#0072b2" if mine else "#d55e00", linewidths=0, zorder=3)
        ax.annotate(row["way"], (row["ratio"], y), (3, 3), textcoords="offset points", fontsize=6)
    ax.set_yticks(range(len(tasks)), list(reversed(tasks)))
    ax.grid(axis="y", color="#ddd", lw=0.5)
    _scale(ax)
    ax.set_xlabel("time over ours: chainrule is faster right of the line")
    return fig


def _scale(ax: plt.Axes) -> None:
    ax.set_xscale("log")
    ax.axvline(1, color="#222", lw=1)
    ax.xaxis.set_major_formatter(mpl.ticker.FuncFormatter(lambda x, _: f"{x:g}×"))
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def svg(fig: plt.Figure) -> str:
    """The text of the picture, the same for the same figures."""
    out = io.StringIO()
    fig.savefig(out, format="svg", metadata={"Date": None}, facecolor="white")
    plt.close(fig)
    return out.getvalue()


def table(rows: list[Row]) -> str:
    """Every measured time in ms, with quartiles."""
    if "task" in rows[0]:
        cells = [("task", "way", "ms", "÷ ours", "relative error")]
        cells += [
            (r["task"], r["way"], _ms(r["median_s"]), _number(r["ratio"]), _number(r["relative_error"])) for r in rows
        ]
    else:
        names = ("f", "ours", "coo", "by hand", *RIVALS)
        cells = [("problem", "m × n", "nonzeros", "order", *[f"{n}, ms" for n in names])]
        for r in rows:
            times = [_ms(r["median_s"][n]) if n in r["median_s"] else r["left_out"].get(n, "–") for n in names]
            cells.append((r["problem"], f"{r['m']:,}×{r['n']:,}", f"{r['nnz']:,}", r["order"], *times))
    head, *body = ["".join(f"<{t}>{html.escape(str(c))}</{t}>" for c in line) for t, line in _tagged(cells)]
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(f'<tr>{line}</tr>' for line in body)}</tbody></table>"


def _tagged(cells: list[tuple[str, ...]]) -> list[tuple[str, tuple[str, ...]]]:
    return [("th" if k == 0 else "td", line) for k, line in enumerate(cells)]


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g}"


def _number(x: float | None) -> str:
    return "–" if x is None else f"{x:.3g}"


CSS = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; background: #fff }
.scroll { overflow-x: auto } table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums }
th, td { border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: right } th:first-child, td:first-child { text-align: left }
.about { color: #555 } svg { max-width: 100%; height: auto }
"""  # noqa: E501


def page(folder: Path) -> str:
    """The static page of all reports in a folder."""
    parts = []
    for name, title in TITLES.items():
        if not (folder / f"{name}.json").exists():
            continue
        report = json.loads((folder / f"{name}.json").read_text())
        rows, about = report["rows"], report["environment"]
        said = ", ".join(f"{k} {v}" for k, v in about.items())
        drawn = svg(by_task(rows) if "task" in rows[0] else by_problem(rows))
        parts.append(
            f"<section><h2>{title}</h2><p class=about>Measured on {html.escape(said)}. Medians, side by side in one "
            f"process, after warm-up.</p><div class=scroll>{drawn[drawn.index('<svg') :]}</div>"
            f"<details><summary>All figures</summary><div class=scroll>{table(rows)}</div></details></section>"
        )
    growth = folder / "growth.svg"
    if growth.exists():
        text = growth.read_text()
        parts.append(f"<section><h2>Growth</h2><div class=scroll>{text[text.index('<svg') :]}</div></section>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>chainrule: benchmarks</title>'
        f'<meta name="viewport" content="width=device-width"><style>{CSS}</style></head><body><h1>chainrule: benchmarks'
        f"</h1>{''.join(parts)}</body></html>\n"
    )


def write(folder: Path) -> None:
    """Write index.html and, of the Jacobians, figure.svg."""
    with mpl.rc_context(STYLE):
        (folder / "index.html").write_text(page(folder))
        if (folder / "report.json").exists():
            report = json.loads((folder / "report.json").read_text())
            (folder / "figure.svg").write_text(svg(figure(report["rows"], report["environment"])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the reports of a folder.")
    parser.add_argument("--report", type=Path, default=HERE / "report")
    write(parser.parse_args().report)
