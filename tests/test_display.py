"""Pictures of patterns: every entry shows, nothing else does, at any size."""

import re
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import chainrule as cr
from chainrule import ChainruleError, ShapeError
from chainrule._jacobians.display import braille_spy, html, plot, raster

patterns = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=12))
HUGE = 10**9


def places(dense):
    return *np.nonzero(dense), np.shape(dense)


def diagonal(n, count=1000):
    """Some entries on the diagonal of an n×n matrix, its ends among them."""
    there = np.unique(np.linspace(0, n - 1, count).astype(np.int64))
    return there, there, (n, n)


def drawn(text):
    """The lines within the frame."""
    lines = text.splitlines()
    assert {len(line) for line in lines[:-1]} == {len(lines[0])}
    return [line.strip("│") for line in lines[1:-1]]


def dots(text):
    """The dots of a braille picture, [4 lines, 2 characters] of bool, read off the order of Unicode's dots."""
    order = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]
    lines = drawn(text)
    grid = np.zeros((4 * len(lines), 2 * len(lines[0])), bool)
    for i, line in enumerate(lines):
        for j, character in enumerate(line):
            for bit, (down, right) in enumerate(order):
                grid[4 * i + down, 2 * j + right] = (ord(character) - 0x2800) >> bit & 1
    return grid


# braille ------------------------------------------------------------------------------------------


def test_a_small_picture():
    assert braille_spy(*places(np.eye(3))) == "┌──┐\n│⠑⠄│\n└──┘ 3×3"


@given(patterns)
def test_a_small_matrix_has_a_dot_for_each_entry(a):
    grid = dots(braille_spy(*places(a)))
    m, n = a.shape
    np.testing.assert_array_equal(grid[:m, :n], a)
    assert not grid[m:].any() and not grid[:, n:].any()


@pytest.mark.parametrize("shape", [(0, 0), (0, 5), (5, 0), (1, 1), (1, 10**7), (10**7, 1), (10**7, 300), (HUGE, HUGE)])
def test_any_size_fits(shape):
    corners = np.array([0, shape[0] - 1]), np.array([0, shape[1] - 1])
    rows, cols = corners if min(shape) > 0 else (np.array([], int),) * 2
    text = braille_spy(rows, cols, shape, width=30, height=10)
    assert text.endswith(f" {shape[0]:,}×{shape[1]:,}")
    assert 1 <= len(drawn(text)) <= 10 and 1 <= len(drawn(text)[0]) <= 30
    assert dots(text).any() == (min(shape) > 0)


@given(patterns, st.integers(1, 4), st.integers(1, 2))
def test_a_picture_keeps_to_its_size(a, width, height):
    lines = drawn(braille_spy(*places(a), width, height))
    assert len(lines) <= height and len(lines[0]) <= width


def test_a_long_thin_matrix_keeps_its_columns():
    rows = np.arange(10_000)
    grid = dots(braille_spy(rows, np.where(rows < 5000, 0, 3), (10_000, 4)))
    assert grid[:40, 0].all() and grid[40:, 3].all() and grid.sum() == 80


def test_a_picture_of_no_size_is_refused():
    with pytest.raises(ShapeError, match=r"at least 1×1 characters, got width 0, height 20"):
        braille_spy(*places(np.eye(3)), width=0)


# the raster beneath all of them -------------------------------------------------------------------


@given(patterns, st.integers(1, 5), st.integers(1, 5))
def test_a_cell_is_set_where_its_part_has_an_entry(a, high, wide):
    m, n = a.shape
    expected = np.zeros((high, wide), bool)
    for i, j in np.argwhere(a):
        expected[i * high // m, j * wide // n] = True
    np.testing.assert_array_equal(raster(*places(a), high, wide), expected)


def test_places_of_small_integers_do_not_overflow():
    there = np.arange(30_000, dtype=np.int16)
    assert raster(there, there, (30_000, 30_000), 100, 100).sum() == 100


# HTML ---------------------------------------------------------------------------------------------


def cells(text):
    """The cells that the SVG image fills."""
    svg = ElementTree.fromstring(text).find(".//svg")
    wide, high = map(int, svg.get("viewBox").split()[2:])
    grid = np.zeros((high, wide), bool)
    for x, y, run, back in re.findall(r"M(\d+) (\d+)h(\d+)v1h-(\d+)z", svg.find("path").get("d")):
        assert run == back
        grid[int(y), int(x) : int(x) + int(run)] = True
    return grid


@given(patterns.filter(lambda a: a.size))
def test_html_fills_the_cells_of_the_entries(a):
    np.testing.assert_array_equal(cells(html("f", *places(a))), a)


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (HUGE, 2)])
def test_html_of_any_size(shape):
    none = np.array([], int)
    text = html("f", none, none, shape)
    assert not cells(text).any()
    assert f">{shape[0]:,}</td>" in text
    assert "0 (0 %)" in text


def test_html_escapes_the_title():
    text = html("<script>alert('f & g')</script>", *places(np.eye(2)))
    assert "<script" not in text
    assert ElementTree.fromstring(text).find(".//code").text == "<script>alert('f & g')</script>"


def test_html_takes_its_colours_from_the_page_and_loads_nothing():
    text = html("f", *places(np.eye(2)))
    assert set(re.findall(r'(?:fill|color)[=:]"?([\w#]+)', text)) == {"currentColor"}
    assert "#" not in text and "url(" not in text and "http" not in text


@pytest.mark.parametrize(
    "pattern",
    [places(np.ones((500, 500))), diagonal(HUGE), places(np.indices((120, 120)).sum(0) % 2)],
    ids=["dense", "diagonal", "chequered"],
)
def test_html_is_small(pattern):
    assert len(html("f", *pattern)) < 120_000


# matplotlib ---------------------------------------------------------------------------------------


@pytest.fixture
def plt():
    import matplotlib.pyplot as plt

    with mpl.rc_context():
        plt.switch_backend("Agg")
        yield plt
        plt.close("all")


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (1, 1), (1, 40), (7, 5), (100_000, 3)])
def test_plot_of_any_size(plt, shape):
    there = np.arange(min(shape))
    ax = plot(there, there, shape)
    ax.figure.canvas.draw()
    assert ax.get_xlabel() == f"inputs (n = {shape[1]:,})"
    assert ax.get_ylabel() == f"outputs (m = {shape[0]:,})"


def test_plot_draws_on_the_axes_that_are_given(plt):
    ax = plt.subplots(1, 2)[1][1]
    assert plot(*places(np.tri(5)), ax=ax) is ax
    # an entry's square lies around its whole numbers, row 0 on top
    assert ax.get_xlim() == (-0.5, 4.5) and ax.get_ylim() == (4.5, -0.5)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), np.argwhere(np.tri(5))[:, ::-1])


def test_every_entry_of_a_large_matrix_is_drawn_at_its_place(plt):
    """So that a part that is zoomed in shows its entries."""
    rows, cols, shape = diagonal(HUGE, 100_000)
    marks = plot(rows, cols, shape).collections[0]
    np.testing.assert_array_equal(marks.get_offsets(), np.stack([cols, rows], 1))
    assert marks.get_sizes() * (marks.figure.dpi / 72) ** 2 >= 1  # a pixel, or a diagonal would have gaps


def test_options_of_the_plot(plt):
    from matplotlib.colors import to_rgba

    A = np.array([[1.0, 0], [3, 2]])
    red = plot(*places(A), color="red", s=4.0).collections[0]
    assert tuple(red.get_facecolor()[0]) == to_rgba("red") and red.get_sizes().tolist() == [4.0]
    J = cr.jacobian(lambda x: A @ x)(np.ones(2))
    assert J.spy(c=J.coo()[2], cmap="RdBu").collections[0].get_array().tolist() == J.coo()[2].tolist()
    with plt.rc_context({"text.color": "white"}):  # as in a dark style
        assert tuple(J.spy().collections[0].get_facecolor()[0]) == to_rgba("white")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ChainruleError, match=r"pip install 'chainrule\[plots\]'"):
        plot(*places(np.eye(3)))
