"""Pictures of a sparsity pattern: braille for the terminal, SVG for notebooks, matplotlib."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from chainrule._errors import ChainruleError, ShapeError
from chainrule._jacobians.structure import percent

# the bit of each dot of a braille character, by its row (of 4) and column (of 2)
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
_LEAST = 16  # dots that the short side of a long thin matrix keeps, or its columns would melt into one
_SVG_CELLS, _SVG_PIXELS, _SVG_LEAST = 120, 160, 24  # cells and pixels of the long side, pixels of a short one
_PIXELS = 2  # of the side of a marker at least
_THINNEST = 20  # times as long as wide: beyond it matplotlib's picture stretches, or it would be a hair


def _cells(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], high: int, wide: int) -> tuple[Any, Any]:
    """The cell of each entry in a high×wide grid laid over the matrix: its row and its column."""
    m, n = (max(s, 1) for s in shape)
    return rows.astype(np.int64) * high // m, cols.astype(np.int64) * wide // n


def raster(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], high: int, wide: int) -> np.ndarray:
    """Say which cells of a high×wide grid laid over the matrix hold an entry, [high, wide] of bool."""
    grid = np.zeros((high, wide), bool)
    grid[_cells(rows, cols, shape, high, wide)] = True
    return grid


def _fit(shape: tuple[int, int], high: int, wide: int) -> tuple[int, int]:
    """The largest grid of the matrix's proportions, with at most one cell an entry; a thin one is widened."""
    m, n = (max(s, 1) for s in shape)
    scale = min(high / m, wide / n, 1.0)
    return max(round(m * scale), min(m, high, _LEAST)), max(round(n * scale), min(n, wide, _LEAST))


def braille_spy(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], width: int = 60, height: int = 20) -> str:
    """Draw the pattern in braille dots, framed, at most `width`×`height` characters within the frame.

    A dot stands for one entry, or where the matrix is larger than the picture, for any entry in its part.
    """
    if width < 1 or height < 1:
        raise ShapeError(f"spy_text: the picture must be at least 1×1 characters, got width {width}, height {height}")
    high, wide = _fit(shape, 4 * height, 2 * width)
    grid = np.pad(raster(rows, cols, shape, high, wide), ((0, -high % 4), (0, -wide % 2)))
    # [4 a, 2 b] -> [a, 4, b, 2]
    dots = grid.reshape(grid.shape[0] // 4, 4, grid.shape[1] // 2, 2)
    codes = 0x2800 + np.einsum("ijkl,jl->ik", dots.astype(np.int64), _DOTS)
    lines = ["".join(map(chr, line)) for line in codes.tolist()]
    bar = "─" * len(lines[0])
    return "\n".join([f"┌{bar}┐", *[f"│{line}│" for line in lines], f"└{bar}┘ {shape[0]:,}×{shape[1]:,}"])


def html(title: str, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], nnz: int | None = None) -> str:
    """A title over the pattern as an SVG image and a table of its sizes; all in the page's text colour.

    nnz : the number of entries, where the places are only some of them.
    """
    (m, n), nnz = shape, len(rows) if nnz is None else nnz
    facts = {"outputs (m)": f"{m:,}", "inputs (n)": f"{n:,}", "nonzeros": f"{nnz:,} ({percent(nnz, m * n or 1)})"}
    left, right = "text-align:left;padding-right:1em", "text-align:right"
    table = "".join(f'<tr><td style="{left}">{k}</td><td style="{right}">{v}</td></tr>' for k, v in facts.items())
    return (
        f"<div><div><code>{escape(title)}</code></div>"
        f'<div style="display:flex;align-items:center;gap:1.5em;margin-top:0.5em">{_svg(rows, cols, shape)}'
        f"<table>{table}</table></div></div>"
    )


def _svg(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> str:
    high, wide = _fit(shape, _SVG_CELLS, _SVG_CELLS)
    grid = raster(rows, cols, shape, high, wide).astype(np.int8)
    # one rectangle for each run of cells in a line, so that a dense matrix takes no more text than a sparse one
    steps = np.diff(grid, axis=1, prepend=0, append=0)
    begins, ends = np.argwhere(steps == 1).tolist(), np.argwhere(steps == -1)[:, 1].tolist()
    path = "".join(f"M{j} {i}h{end - j}v1h{j - end}z" for (i, j), end in zip(begins, ends, strict=True))
    width, height = (max(round(side * _SVG_PIXELS / max(high, wide)), _SVG_LEAST) for side in (wide, high))
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {wide} {high}" role="img" '
        'preserveAspectRatio="none" shape-rendering="crispEdges" aria-label="sparsity pattern" '
        f'style="border:1px solid currentColor;flex:none"><path fill="currentColor" d="{path}"/></svg>'
    )


def plot(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], ax: Any = None, **options: Any) -> Any:
    """Draw the pattern with matplotlib, a square marker at each place; give the axes.

    The options are those of `Axes.scatter`. Raises ChainruleError where matplotlib is missing.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ChainruleError(
            "spy: matplotlib is missing; pip install 'chainrule[plots]', or use .spy_text()"
        ) from error
    ax = ax if ax is not None else plt.subplots()[1]
    m, n = (max(s, 1) for s in shape)
    box = ax.get_window_extent()
    side = max(min(box.height / m, box.width / n), _PIXELS) * 72 / ax.figure.dpi  # in points
    colour = {} if {"c", "color", "facecolors"} & options.keys() else {"color": plt.rcParams["text.color"]}
    ax.scatter(cols, rows, **{"s": side**2, "marker": "s", "linewidths": 0, **colour, **options})
    ax.set(xlim=(-0.5, n - 0.5), ylim=(m - 0.5, -0.5))
    ax.set_aspect("equal" if max(m, n) <= _THINNEST * min(m, n) else "auto")
    ax.set(xlabel=f"inputs (n = {shape[1]:,})", ylabel=f"outputs (m = {shape[0]:,})")
    ax.locator_params(nbins=6, integer=True, min_n_ticks=1)
    return ax
