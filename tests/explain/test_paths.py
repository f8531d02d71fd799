"""Numbers of paths, the largest ones and their sum, against all paths of small graphs."""

import itertools

import numpy as np
import pytest

from chainrule.explain.paths import link, path_sum
from chainrule.explain.products import constant

K = 6


def random_graph(seed):
    """A random graph of values: sizes, and edges with matrices in which many entries vanish."""
    rng = np.random.default_rng(seed)
    order = [f"v{k}" for k in range(int(rng.integers(2, 6)))]
    sizes = {v: int(rng.integers(1, 4)) for v in order}
    edges = []
    for a, b in itertools.combinations(order, 2):
        if rng.random() < 0.7:
            matrix = np.round(rng.normal(size=(sizes[b], sizes[a])), 2) * (rng.random((sizes[b], sizes[a])) < 0.6)
            edges.append((a, b, matrix))
    return order, sizes, edges


def all_paths(edges, at, last):
    if at == last:
        yield []
        return
    for a, b, matrix in edges:
        if a == at[0]:
            for row in range(matrix.shape[0]):
                if b == last[0] and row != last[1]:
                    continue
                for rest in all_paths(edges, (b, row), last):
                    yield [matrix[row, at[1]], *rest]


def links_of(edges):
    found = []
    for k, (a, b, matrix) in enumerate(edges):
        own = constant(matrix)
        found.append(link(f"e{k}", a, b, own.pattern, own.coo()[2]))
    return found


@pytest.mark.parametrize("seed", range(40))
def test_against_all_paths(seed):
    order, sizes, edges = random_graph(seed)
    for j, i in itertools.product(range(sizes[order[0]]), range(sizes[order[-1]])):
        first, last = (order[0], j), (order[-1], i)
        paths = list(all_paths(edges, first, last))
        products = np.array([np.prod(p) for p in paths] or [0.0])
        own = path_sum(order, sizes, links_of(edges), first, last, (i, j), None, K)
        nonzero = [p for p in paths if all(p)]
        assert (own.count, own.zero) == (len(nonzero), len(paths) - len(nonzero))
        assert own.value == pytest.approx(products.sum(), abs=1e-12)
        sizes_found = [abs(p["product"]) for p in own.top if p["nonzero"]]
        wanted = sorted((abs(np.prod(p)) for p in nonzero), reverse=True)[:K]
        np.testing.assert_allclose(sizes_found, wanted, rtol=1e-9)
        zeros = [p for p in own.top if not p["nonzero"]]
        assert len(zeros) == min(K - len(sizes_found), len(paths) - len(nonzero))
        assert all(p["product"] == 0 for p in zeros)
        said = own.to_dict()
        total = sum(p["product"] for p in said["top"]) + said["rest"]["sum"]
        assert total == pytest.approx(products.sum(), abs=1e-11)


def test_long_chains_are_counted_exactly():
    depth, width = 200, 7
    order = [f"v{k}" for k in range(depth + 1)]
    sizes = dict.fromkeys(order, width)
    ones = np.full((width, width), 0.25)
    edges = [(a, b, ones) for a, b in itertools.pairwise(order)]
    own = path_sum(order, sizes, links_of(edges), ("v0", 0), (order[-1], 1), (1, 0), None, 3)
    assert own.count == width ** (depth - 1)
    assert own.zero == 0
    assert [p["product"] for p in own.top] == pytest.approx([0.25**depth] * 3)


def test_an_input_that_is_the_output():
    own = path_sum(["a"], {"a": 2}, [], ("a", 0), ("a", 0), (0, 0), 1.0, 8)
    assert (own.count, own.zero, [p["product"] for p in own.top]) == (1, 0, [1.0])
    own = path_sum(["a"], {"a": 2}, [], ("a", 0), ("a", 1), (1, 0), 0.0, 8)
    assert (own.count, own.zero, own.top) == (0, 0, ())


def test_what_is_not_finite_comes_first():
    edges = [("a", "b", np.array([[1.0], [np.inf], [np.nan]])), ("b", "c", np.array([[1.0, 1.0, 1.0]]))]
    own = path_sum(["a", "b", "c"], {"a": 1, "b": 3, "c": 1}, links_of(edges), ("a", 0), ("c", 0), (0, 0), None, 3)
    assert own.count == 3
    assert not np.isfinite([p["product"] for p in own.top[:2]]).any()
    assert own.to_dict()["value"] == "NaN"
