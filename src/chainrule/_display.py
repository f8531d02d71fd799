"""Pictures of a sparsity pattern: braille for the terminal, SVG for notebooks, matplotlib."""

from __future__ import annotations

import html as escape_html
from typing import Any

import numpy as np

from chainrule._errors import ChainruleError

# the bit of each dot of a braille character, by its row (of 4) and column (of 2)
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def raster(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], height: int, width: int) -> np.ndarray:
    """Say which cells of a height×width grid laid over the matrix hold an entry, [height, width] of bool."""
    (m, n), grid = shape, np.zeros((height, width), bool)
    if m and n:
        grid[rows.astype(np.int64) * height // m, cols.astype(np.int64) * width // n] = True
    return grid


def _fit(shape: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The largest grid of the matrix's proportions, with at most one dot an entry."""
    m, n = (max(s, 1) for s in shape)
    scale = min(height / m, width / n, 1.0)
    return max(round(m * scale), 1), max(round(n * scale), 1)


def braille_spy(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], width: int = 60, height: int = 20) -> str:
    """Draw the pattern in braille dots, framed, at most `width`×`height` characters within the frame."""
    dots_high, dots_wide = _fit(shape, 4 * height, 2 * width)
    grid = raster(rows, cols, shape, dots_high, dots_wide)
    grid = np.pad(grid, ((0, -dots_high % 4), (0, -dots_wide % 2)))
    # [4 a, 2 b] -> [a, 4, b, 2]
    cells = grid.reshape(grid.shape[0] // 4, 4, grid.shape[1] // 2, 2)
    codes = 0x2800 + np.einsum("ijkl,jl->ik", cells.astype(np.int64), _DOTS)
    lines = ["".join(chr(c) for c in line) for line in codes]
    bar = "─" * len(lines[0])
    return "\n".join([f"┌{bar}┐", *[f"│{line}│" for line in lines], f"└{bar}┘ {shape[0]:,}×{shape[1]:,}"])


def html(title: str, rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int]) -> str:
    """A line of text above the pattern as an SVG image; its colour is the page's text colour."""
    high, wide = _fit(shape, 160, 160)
    grid = raster(rows, cols, shape, high, wide)
    cell = max(1, 160 // max(high, wide))
    squares = "".join(f"M{j * cell} {i * cell}h{cell}v{cell}h-{cell}z" for i, j in np.argwhere(grid).tolist())
    picture = (
        f'<svg width="{wide * cell}" height="{high * cell}" viewBox="0 0 {wide * cell} {high * cell}" role="img" '
        'aria-label="sparsity pattern" style="border:1px solid currentColor">'
        f'<path fill="currentColor" d="{squares}"/></svg>'
    )
    return f"<div><code>{escape_html.escape(title)}</code><br/>{picture}</div>"


def plot(rows: np.ndarray, cols: np.ndarray, shape: tuple[int, int], ax: Any = None) -> Any:
    """Draw the pattern with matplotlib; give the axes. Raises ChainruleError where matplotlib is missing."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ChainruleError(
            "spy: matplotlib is missing; pip install 'chainrule[plots]', or use .spy_text()"
        ) from error
    ax = ax if ax is not None else plt.subplots()[1]
    high, wide = _fit(shape, 1000, 1000)
    grid = raster(rows, cols, shape, high, wide)
    edges = (-0.5, shape[1] - 0.5, shape[0] - 0.5, -0.5)
    ax.imshow(grid, cmap="Greys", extent=edges, interpolation="nearest", vmin=0, vmax=1)
    ax.set(xlabel=f"inputs (n = {shape[1]:,})", ylabel=f"outputs (m = {shape[0]:,})")
    return ax
