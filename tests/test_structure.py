"""The words for a pattern, against the definitions spelled out on dense arrays of 0 and 1."""

import itertools
import time

import numpy as np
import pytest
import scipy.linalg
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from chainrule._jacobians.structure import Places, Structure, bandwidth, percent

EYE, ONES = np.eye(6), np.ones
TRIDIAGONAL = np.eye(20) + np.eye(20, k=1) + np.eye(20, k=-1)
PERIODIC = TRIDIAGONAL + np.eye(20, k=19) + np.eye(20, k=-19)
ARROW = np.eye(20) + np.outer(np.arange(20) == 0, ONES(20)) + np.outer(ONES(20), np.arange(20) == 0)


def blocks(*shapes):
    return scipy.linalg.block_diag(*[ONES(shape) for shape in shapes])


def name(dense, values=None):
    return Places(*np.nonzero(dense), np.shape(dense), values=values).structure


@pytest.mark.parametrize(
    ("dense", "words"),
    [
        (np.zeros((3, 4)), "zero"),
        (np.zeros((0, 4)), "zero"),
        (np.zeros((0, 0)), "zero"),
        (ONES((1, 1)), "diagonal"),
        (EYE, "diagonal"),
        (np.eye(3, 9), "diagonal"),
        (np.eye(9, 3), "diagonal"),
        (np.diag([1, 0, 1, 0]), "diagonal"),
        (EYE[::-1], "scaled permutation"),
        (np.roll(EYE, 1, axis=0), "scaled permutation"),
        (ONES((1, 5)), "dense"),
        (ONES((5, 1)), "dense"),
        (ONES((2, 2)), "dense"),
        (1 - EYE, "dense (30 nonzeros, 83 %)"),
        (blocks(*[(2, 3)] * 4), "block-diagonal (4 blocks 2×3)"),
        (blocks(*[(1, 3)] * 5), "block-diagonal (5 blocks 1×3)"),
        (blocks(*[(2, 1)] * 1200), "block-diagonal (1,200 blocks 2×1)"),
        (blocks((2, 3), (1, 1), (3, 1)), "block-diagonal (3 blocks)"),
        (blocks((2, 2), (2, 3)), "block-diagonal (2 blocks)"),
        (blocks((1, 2), (2, 2)), "block-diagonal (2 blocks)"),
        # as many entries a row as full blocks would have, but with a gap
        (np.array([[1, 0, 1], [0, 0, 1]]), "sparse (3 nonzeros, 50 %)"),
        (blocks(*[(1, 3), (0, 1)] * 5), "sparse (15 nonzeros, 15 %)"),
        (blocks(*[(3, 1), (1, 0)] * 5), "sparse (15 nonzeros, 15 %)"),
        (blocks((0, 1), *[(1, 3)] * 5), "sparse (15 nonzeros, 19 %)"),
        (TRIDIAGONAL, "banded(1, 1)"),
        (TRIDIAGONAL[:4, :4], "banded(1, 1)"),
        (TRIDIAGONAL[:19], "banded(1, 1)"),
        (np.tril(TRIDIAGONAL), "banded(1, 0)"),
        (np.eye(19, 20) + np.eye(19, 20, k=1), "banded(0, 1)"),
        # with absent diagonals: narrow up to a quarter of the side
        (np.eye(20) + np.eye(20, k=2) + np.eye(20, k=-2), "banded(2, 2)"),
        (np.eye(20) + np.eye(20, k=3) + np.eye(20, k=-2), "sparse (55 nonzeros, 14 %)"),
        (TRIDIAGONAL[:3, :3], "dense (7 nonzeros, 78 %)"),
        (np.tri(8), "lower triangular"),
        (np.tri(8).T, "upper triangular"),
        (np.tri(8, k=-1), "lower triangular"),
        (np.tri(2), "lower triangular"),
        (np.tril(ARROW), "lower triangular"),
        (ARROW, "arrowhead (border 1)"),
        (ARROW[::-1], "sparse (58 nonzeros, 14 %)"),
        (np.kron(TRIDIAGONAL[:4, :4], np.eye(3)), "block-diagonal after a permutation (3 blocks 4×4)"),
        (np.kron(np.eye(3), np.tri(4)), "lower triangular"),
        (np.tri(8)[[3, 1, 0, 2, 6, 5, 7, 4]], "triangular after a permutation"),
        (
            np.block([[np.zeros((2, 2)), ONES((2, 2))], [ONES((2, 4))]]),
            "block-triangular after a permutation (2 blocks, the largest 2×2)",
        ),
        (PERIODIC, "sparse (60 nonzeros, 15 %)"),
        (np.eye(3, 9, k=4), "sparse (3 nonzeros, 11 %)"),
    ],
)
def test_words(dense, words):
    assert str(name(dense)) == words


def test_known_ones_tell_an_identity_and_a_permutation():
    assert str(name(EYE, ONES(6))) == "identity"
    assert str(name(EYE[::-1], ONES(6))) == "permutation"
    twos = np.array([1, 1, 2, 1, 1, 1])
    assert str(name(EYE, twos)) == "diagonal"
    assert str(name(EYE[::-1], twos)) == "scaled permutation"
    # a rectangle or a gap is no identity
    assert str(name(np.eye(3, 9), ONES(3))) == "diagonal"
    assert str(name(np.diag([1, 0, 1]), ONES(2))) == "diagonal"


def test_parameters():
    assert name(TRIDIAGONAL) == Structure("banded", (1, 1))
    assert name(blocks(*[(2, 3)] * 4)) == Structure("block-diagonal", (4, 2, 3))
    assert name(PERIODIC) == Structure("sparse", (60, 400))
    assert {type(p) for p in name(blocks(*[(2, 3)] * 4)).parameters} == {int}


@pytest.mark.parametrize(
    ("part", "whole", "words"),
    [
        (0, 7, "0 %"),
        (7, 7, "100 %"),
        (1, 8, "12 %"),
        (999, 1000, "99 %"),
        (3_145_728, 524_288**2, "0.0011 %"),
        (1, 10**11, "0.000000001 %"),
    ],
)
def test_percent(part, whole, words):
    assert percent(part, whole) == words


# the definitions, on the whole array --------------------------------------------------------------


def has_full_blocks(a):
    """Two or more full blocks: cut wherever all that is left of and above the cut is apart from the rest."""
    m, n = a.shape
    corners = [(i, j) for i in range(1, m) for j in range(1, n) if not a[:i, j:].any() and not a[i:, :j].any()]
    cuts = [(0, 0), *corners, (m, n)]
    pairs = list(itertools.pairwise(cuts))
    return bool(corners) and all(i < k and j < q and a[i:k, j:q].all() for (i, j), (k, q) in pairs)


def offsets(a):
    return np.subtract.outer(np.arange(a.shape[0]), np.arange(a.shape[1]))


def in_band(a, lower, upper):
    return (offsets(a) <= lower) & (-offsets(a) <= upper)


HOLDS = {
    "zero": lambda a: not a.any(),
    "diagonal": lambda a: a.any() and not a[offsets(a) != 0].any(),
    "scaled permutation": lambda a: (a.sum(0) == 1).all() and (a.sum(1) == 1).all() and a.shape[0] == a.shape[1],
    "block-diagonal": has_full_blocks,
    "lower triangular": lambda a: a.shape[0] == a.shape[1] and not np.triu(a, 1).any(),
    "upper triangular": lambda a: a.shape[0] == a.shape[1] and not np.tril(a, -1).any(),
    "arrowhead": lambda a: a.shape[0] == a.shape[1] and has_dense_border(a),
    "permuted block-diagonal": lambda a: len(set(parts(a))) > 1 and a.any(0).all() and a.any(1).all(),
    "permuted triangular": lambda a: a.shape[0] == a.shape[1] and set(irreducible(a)) == {1},
    "block-triangular": lambda a: a.shape[0] == a.shape[1] and len(irreducible(a)) > 1,
}


def has_dense_border(a):
    """Take away the rows and columns with more than half of the entries: a diagonal is left of a quarter or more."""
    off = a & ~np.eye(len(a), dtype=bool)
    inner = off.sum(0) + off.sum(1) <= len(a) // 2
    return len(a) > 3 and 0 < 4 * (~inner).sum() <= len(a) and not off[np.ix_(inner, inner)].any()


def reach(a):
    """Which vertices of a directed graph reach which."""
    a = a | np.eye(len(a), dtype=bool)
    for k in range(len(a)):
        a = a | np.outer(a[:, k], a[k])
    return a


def parts(a):
    """For each row and column the first one that it hangs together with."""
    m, n = a.shape
    both = np.block([[np.zeros((m, m), bool), a], [a.T, np.zeros((n, n), bool)]])
    return reach(both).argmax(1)


def irreducible(a):
    """The sizes of the blocks of the triangular form; none where no permutation has a full diagonal."""
    n = len(a)
    full = (p for p in itertools.permutations(range(n)) if a[range(n), p].all())
    there = next((reach(a[:, list(p)]) for p in full), None)
    return [] if there is None or not n else np.unique((there & there.T).argmax(1), return_counts=True)[1].tolist()


def full_blocks(sizes):
    return st.lists(st.tuples(sizes, sizes), min_size=1, max_size=4).map(lambda s: blocks(*s).astype(bool))


def one_flipped(a, place):
    flipped = np.arange(a.size).reshape(a.shape) == place % a.size
    return a ^ flipped


shapes = array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=7)
patterns = st.one_of(
    arrays(bool, shapes),
    arrays(bool, shapes).map(np.tril),
    st.tuples(arrays(bool, shapes, fill=st.just(True)), st.integers(0, 2), st.integers(0, 2)).map(
        lambda t: t[0] & in_band(*t)
    ),
    st.permutations(range(5)).map(lambda p: np.eye(5, dtype=bool)[p]),
    full_blocks(st.integers(1, 3)),
    # near misses: empty rows and columns, and one entry more or less
    full_blocks(st.integers(0, 3)),
    st.tuples(full_blocks(st.integers(1, 3)), st.integers(0, 200)).map(lambda t: one_flipped(*t)),
)


@given(patterns)
@example(np.eye(2, 3, dtype=bool))
def test_words_are_true_of_the_dense_pattern(a):
    found = name(a)
    if found.kind in HOLDS:
        assert HOLDS[found.kind](a)
    elif found.kind == "banded":
        assert not a[~in_band(a, *found.parameters)].any()
        assert sum(found.parameters) + 1 < min(a.shape)
    else:
        # what is only counted, or full, is nothing that has a better name
        assert found.kind in ("sparse", "dense")
        assert found.parameters == ((int(a.sum()), a.size) if not a.all() else ())
        assert found.kind == ("dense" if 2 * a.sum() > a.size else "sparse")
        better = [kind for kind, holds in HOLDS.items() if holds(a)]
        assert not better or a.all()


@given(patterns)
def test_special_patterns_are_not_missed(a):
    kinds = ["zero", "diagonal", "scaled permutation", *(["dense"] if a.all() else []), "block-diagonal"]
    first = next((kind for kind in kinds if kind == "dense" or HOLDS[kind](a)), None)
    if first is not None:
        assert name(a).kind == first


@given(patterns)
def test_a_transpose_has_the_mirrored_name(a):
    mirrored = {"lower triangular": "upper triangular", "upper triangular": "lower triangular"}
    there, back = name(a), name(a.T)
    assert back.kind == mirrored.get(there.kind, there.kind)
    assert bandwidth(*np.nonzero(a.T)) == bandwidth(*np.nonzero(a))[::-1]
    if there.kind == "block-diagonal" and len(there.parameters) == 3:
        count, height, width = there.parameters
        assert back.parameters == (count, width, height)


@given(patterns)
def test_bandwidth(a):
    below, above = np.where(a, offsets(a), 0), np.where(a, -offsets(a), 0)
    assert bandwidth(*np.nonzero(a)) == (below.max(initial=0), above.max(initial=0))


def test_bandwidth_of_unsigned_places():
    places = np.array([0, 3], np.uint32), np.array([2, 0], np.uint32)
    assert bandwidth(*places) == (3, 2)


# many entries -------------------------------------------------------------------------------------

MANY = 1_000_000


def stencil(n):
    rows, cols = np.repeat(np.arange(n), 3), (np.arange(n)[:, None] + [-1, 0, 1]).ravel()
    inside = (cols >= 0) & (cols < n)
    return rows[inside], cols[inside]


def wrapped(n):
    return np.repeat(np.arange(n), 3), np.sort((np.arange(n)[:, None] + [-1, 0, 1]) % n).ravel()


@pytest.mark.parametrize(
    ("pattern", "size", "words"),
    [
        (stencil, MANY, "banded(1, 1)"),
        (wrapped, MANY, "sparse (3,000,000 nonzeros, 0.0003 %)"),
        (lambda n: (np.repeat(np.arange(n), 3), np.tile(np.arange(n).reshape(-1, 3), 3).ravel()), 999_999, "blocks"),
        (lambda n: (np.arange(n), np.roll(np.arange(n), 7)), 3 * MANY, "scaled permutation"),
        (lambda n: np.tril_indices(n), 2449, "lower triangular"),
    ],
    ids=["banded", "periodic", "blocks", "permutation", "triangular"],
)
def test_three_million_entries_take_a_moment(pattern, size, words):
    rows, cols = pattern(size)
    start = time.process_time()
    found = str(Places(rows, cols, (size, size)).structure)
    assert time.process_time() - start < 0.5  # 0.02 to 0.17 s measured; the rest is for a slower machine
    assert words in found
