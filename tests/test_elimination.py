"""Orders of elimination: they give the Jacobian, cost what they say, and as little as is published."""

import importlib
import math
import random
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from chainrule._jax import run_equation
from chainrule._plan import elimination

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
scalar_counts = importlib.import_module("scalar_counts")
graphs = importlib.import_module("problems.scalar_graphs")

VALUES = elimination.Algebra(lambda outer, inner: (outer * inner, 1), lambda a, b: a + b)
SHAPES = elimination.Algebra(
    lambda outer, inner: ((outer[0], inner[1]), outer[0] * outer[1] * inner[1]), lambda a, b: a, math.prod
)
EVERY_FUNCTION = pytest.mark.parametrize("scalar", graphs.functions, ids=lambda s: s.name)


def partials(jaxpr, consts, xs):
    """{(p, s): ds/dp} and the outputs' vertices, from an interpreter that shares nothing with `graph_of`."""
    edges, values, vertices = {}, dict(zip(jaxpr.constvars, consts, strict=True)), {}
    values.update(zip(jaxpr.invars, xs, strict=True))
    vertices.update((v, k) for k, v in enumerate(jaxpr.invars))
    for eqn in jaxpr.eqns:
        assert "jaxpr" not in eqn.params and len(eqn.outvars) == 1
        operands = [v.val if hasattr(v, "val") else values[v] for v in eqn.invars]
        values[eqn.outvars[0]] = run_equation(eqn, operands)[0]
        at = {k: vertices[v] for k, v in enumerate(eqn.invars) if not hasattr(v, "val") and v in vertices}
        if not at or eqn.primitive.name == "sign":
            continue
        if eqn.primitive.name in scalar_counts.VIEWS:
            vertices[eqn.outvars[0]] = at[0]
            continue
        s = vertices[eqn.outvars[0]] = len(set(vertices.values()))
        for k, p in at.items():
            slope = jax.grad(lambda *a, e=eqn: run_equation(e, a)[0], argnums=k)(*operands)
            edges[p, s] = edges.get((p, s), 0.0) + float(slope)
    return edges, [vertices[v] for v in jaxpr.outvars]


def eliminated(edges, order):
    graph = elimination.ComputationalGraph(edges, VALUES)
    for v in order:
        graph.eliminate(v)
    return graph


@EVERY_FUNCTION
def test_every_order_gives_the_jacobian(scalar):
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(scalar.f)(*scalar.x)
        values, outs = partials(closed.jaxpr, closed.consts, [np.asarray(x) for x in scalar.x])
        expected = np.array(jax.jacobian(scalar.f, argnums=tuple(range(len(scalar.x))))(*scalar.x))
        edges = scalar_counts.graph_of(scalar.f, *scalar.x)
    sinks = sorted(s for (_, s), edge in edges.items() if edge == elimination.IDENTITY)
    edges = {edge: values.get(edge, 1.0) for edge in edges}
    used = {p for p, _ in values}
    copies = iter(sinks)
    rows = [next(copies) if v in used and sinks else v for v in outs]
    for plan in elimination.orderings(edges):
        graph = eliminated(edges, plan.order)
        found = [[graph.preds[r].get(p, 0.0) for p in range(len(scalar.x))] for r in rows]
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8 * np.abs(expected).max())


@EVERY_FUNCTION
def test_the_least_count_is_no_more_than_the_published_ones(scalar):
    edges = scalar_counts.graph_of(scalar.f, *scalar.x)
    costs = {plan.rule: plan.cost for plan in elimination.orderings(edges)}
    if scalar.published:
        np.testing.assert_allclose([costs["forward"], costs["reverse"]], scalar.published[:2], rtol=0.01)
    assert min(costs.values()) <= min(scalar.published, default=costs["Markowitz"])
    assert elimination.best(edges).cost == min(costs.values())


@EVERY_FUNCTION
def test_views_make_no_difference(scalar):
    in_parts = scalar_counts.graph_of(scalar.f, *scalar.x)
    assert scalar_counts.graph_of(scalar.vector, np.array(scalar.x, "f4")) == in_parts


def random_graph(seed, n=30):
    rng = random.Random(seed)
    return {(rng.randrange(max(0, s - 8), s), s): 1 for s in range(4, n) for _ in range(rng.randint(1, 3))}


def by_trial(edges, score):
    """The greedy order, with all scores computed anew at every step."""
    graph, order = elimination.ComputationalGraph(edges), []
    left = graph.inner()
    while left:
        order.append(min(left, key=lambda v: (score(graph, v), -v)))
        left.remove(order[-1])
        graph.eliminate(order[-1])
    return order


@pytest.mark.parametrize("seed", range(20))
def test_scores_are_renewed_where_they_change(seed):
    edges = random_graph(seed)
    width = elimination.ComputationalGraph(edges).width()

    def delta(graph, v):
        edges_at = len(graph.preds[v]) + len(graph.succs[v])
        made = sum(s not in graph.succs[p] for p in graph.preds[v] for s in graph.succs[v])
        return graph.cost(v) + width * (made - edges_at)

    assert elimination.delta_greedy(edges) == by_trial(edges, delta)
    assert elimination.markowitz(edges) == by_trial(edges, lambda graph, v: graph.cost(v))


def test_single_successors_go_first():
    edges = {(0, 2): 1, (1, 2): 1, (2, 3): 1, (3, 4): 1, (3, 5): 1, (5, 6): 1}
    assert elimination.eliad(edges) == [5, 2, 3]
    matrices = elimination.Algebra(elimination.SCALAR.compose, elimination.SCALAR.add, elementwise=lambda e: e != "A")
    assert elimination.eliad({**edges, (3, 5): "A"}, matrices)[0] == 2


def test_elementwise_vertices_in_series_go_before_any_rule():
    """A layer after another, a residual connection, and slopes that are applied in three steps: one product each."""
    compose, add = elimination.SCALAR.compose, elimination.SCALAR.add
    counted = elimination.Algebra(compose, add, elementwise=lambda edge: edge != "A")
    edges = {(0, 1): "A", (1, 2): 1, (2, 3): 1, (3, 4): 1, (4, 5): "A", (0, 5): 1, (5, 6): "A"}
    for order in elimination.orders(edges, counted).values():
        assert order[:2] == [3, 2]
        assert sorted(order) == [1, 2, 3, 4, 5]


def test_an_identity_costs_nothing():
    edges = {(0, 1): 1, (1, 2): 1, (1, 3): elimination.IDENTITY}
    assert elimination.count(edges, [1]) == 1


@pytest.mark.parametrize("seed", range(10))
def test_a_chain_of_matrices_is_bracketed_best(seed):
    """Compared with the dynamic program for chains."""
    sizes = np.random.default_rng(seed).integers(1, 50, size=8).tolist()
    edges = {(k, k + 1): (sizes[k + 1], sizes[k]) for k in range(7)}
    table = {(i, i + 1): 0 for i in range(7)}
    for length in range(2, 8):
        for i in range(8 - length):
            j = i + length
            table[i, j] = min(table[i, k] + table[k, j] + sizes[i] * sizes[k] * sizes[j] for k in range(i + 1, j))
    plan = elimination.best(edges, SHAPES, effort=500, width=min(sizes[0], sizes[-1]))
    assert plan.cost == elimination.count(edges, plan.order, SHAPES) == table[0, 7]


def test_annealing_repeats_itself_and_makes_nothing_worse():
    edges = random_graph(3, 60)
    plan = elimination.best(edges)
    better = elimination.anneal(edges, plan, effort=300)
    assert better == elimination.anneal(edges, plan, effort=300)
    assert better.cost <= plan.cost
    assert sorted(better.order) == sorted(plan.order)
    assert elimination.count(edges, better.order) == better.cost
    assert elimination.count(edges, better.order, bound=better.cost - 1) == math.inf
