"""Links of a nonlinear program inverted one after the other, each by Newton steps with its diagonal blocks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._accumulate.loop_body import planning
from chainrule._accumulate.recorded import Recorded, recorded_program
from chainrule._density.determinant import places_of
from chainrule._density.diagonal import Form, blocks_of, patterns
from chainrule._errors import ShapeError, SingularError
from chainrule._linear import evaluate, record, section
from chainrule._program import Linear
from chainrule._space import flat, space_of
from chainrule._trace import Problem, flat_output, pick, require_inputs

Map = Callable[[Sequence[Any]], list[Any]]  # arrays -> arrays
_MOST = 60  # steps for each level, up to which a scalar equation is bisected
_POWER = 0.75  # of the rounding unit: the last step, relative to x, after which no other is taken
_ROUNDING = 4  # units, up to which f(x) is y: where f is flat, x has fewer digits than that asks for


def inverted(f: Callable[..., Any], y: Any, start: Any, rest: Sequence[Any]) -> Any:
    """The x with f(x, *rest) = y."""
    problem = pick("triangular_inverse", f, 0, (start, *rest))
    require_inputs(problem, False)
    function, found = flat_output(problem, False)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in problem.leaves]
    closed = jax.make_jaxpr(lambda *x: function(*x)[0])(*shapes)
    _require_form(problem, found["tree"], [tuple(v.shape) for v in closed.out_avals], y)
    m, n = (sum(v.size for v in own) for own in (closed.out_avals, shapes))
    if m != n:
        raise ShapeError(f"{problem.what}: {m} outputs of {n} inputs; only a map to as many numbers has an inverse")
    seeds = [Linear(s.shape, s.dtype) for s in shapes]
    values, steps = record(closed.jaxpr, closed.consts, seeds)
    program = section(steps, seeds, values)
    if len({id(v) for v in program.targets}) < len(values):
        raise SingularError(f"{problem.what}: an output is there twice, or does not depend on the input")

    def part(i: int, j: int, sources: Sequence[Linear], targets: Sequence[Linear]) -> Map:
        own = section(program.steps[i:j], sources, targets)
        return lambda arrays: evaluate(own, [v.restated() for v in own.coefficients], arrays)

    parts = [part(i, j, a, b) for (i, a), (j, b) in pairwise(places_of(program))] if program.steps else []
    x = [jnp.asarray(a).astype(v.dtype) for a, v in zip(jax.tree.leaves(y), program.targets, strict=True)]
    for link in reversed(_links(problem, parts)):
        x = link.inverse(x)
    return jax.tree.unflatten(problem.tree, x)


def _require_form(problem: Problem, tree: Any, shapes: Sequence[Any], y: Any) -> None:
    given = [np.shape(v) for v in jax.tree.leaves(y)]
    if jax.tree.structure(y) != tree or given != shapes:
        raise ShapeError(
            f"{problem.what}: f(start) has shapes {shapes} in {tree}, y has {given} in {jax.tree.structure(y)}; "
            "where x has another form than y, give a point of its form as start=..."
        )


def _links(problem: Problem, parts: Sequence[Map]) -> list[_Link]:
    """Parts that only move numbers joined with the next one, or the last; each with a point to start from."""
    links: list[_Link] = []
    near: list[Any] = list(jax.lax.stop_gradient(problem.leaves))
    for h in parts:
        own = _Link(problem, h, near)
        near = jax.lax.stop_gradient(h(near))
        if links and (own.moves or links[-1].moves):
            own = _Link(problem, _after(h, links[-1].h), links[-1].near)
            links.pop()
        links.append(own)
    return links


def _after(h: Map, first: Map) -> Map:
    return lambda arrays: h(first(arrays))


class _Link:
    """A square map of arrays, the pattern of its Jacobian, and a point."""

    def __init__(self, problem: Problem, h: Map, near: Sequence[Any]):
        self._problem, self.h, self.near = problem, h, list(near)
        self._columns = space_of(jax.tree.structure(self.near), self.near, h)
        found: list[Form | None] = []
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in near]
        jax.eval_shape(lambda arrays: found.append(Form.of(_patterns(self._recorded(arrays))[0])), shapes)
        (form,) = found
        if form is None:
            raise SingularError(f"{problem.what}: the zeros of the Jacobian of a link alone make it singular")
        self.form = form

    @property
    def moves(self) -> bool:
        """Whether it is a permutation, with signs or known factors."""
        places = self.form.places
        return places.values is not None and len(places.rows) == places.shape[0]

    def _recorded(self, arrays: Sequence[Any]) -> Recorded:
        leaves, tree = tuple(arrays), jax.tree.structure(list(arrays))
        own = Problem(lambda *x: self.h(list(x)), self._problem.f, self._problem.what, leaves, tree)
        return recorded_program(own, False, False)

    def inverse(self, y: list[Any]) -> list[Any]:
        """The arrays that the map takes to y, by the implicit function theorem where that is differentiated."""
        given = flat(y)

        @functools.partial(jax.checkpoint, prevent_cse=False)  # its derivative keeps h with all that is known of it
        def residual(x: Any) -> Any:
            return flat(self.h(self._columns.unflatten(x, cast=True))) - given

        start = flat(self.near).astype(given.dtype)
        x = jax.lax.custom_root(residual, start, lambda _, x: self._root(x, given), self._tangent)
        return self._columns.unflatten(x, cast=True)

    def _step(self, x: Any, y: Any) -> tuple[Any, Any]:
        """D(x)⁻¹ (y - h(x)) [n], 0 where a scalar equation has no residual to divide; and where it has none [n]."""
        form, recorded = self.form, self._recorded(self._columns.unflatten(x, cast=True))
        alone, starts = form.sizes[form.cols] == 1, np.cumsum(form.sizes) - form.sizes
        own = np.argsort(form.rows, kind="stable")[starts[form.cols]]  # the row of each column that is alone
        left = y - flat(recorded.value)
        solved = alone & (abs(left) <= _ROUNDING * jnp.finfo(x.dtype).eps * abs(y))[own]
        s = _divided(_blocks(recorded), left)
        return jnp.where(solved & ~jnp.isfinite(s), 0, s), solved

    def _root(self, x: Any, y: Any) -> Any:
        """Level by level; the numbers of the first level that is not done yet stay where their signs enclose them.

        A step of Newton's method that is no less than half the one before it is not taken: it may be the first of
        hundreds, as down a tail of exp. The enclosing numbers are halved, or where one end is open, steps double.
        """
        form = self.form
        level = form.column_levels
        alone, count = form.sizes[form.cols] == 1, int(level.max(initial=0)) + 1
        closest, enough = float(jnp.finfo(x.dtype).eps) ** _POWER, _enough(x)

        def more(state: Any) -> Any:
            return (state[-1] < count) & (state[-2] < round(_MOST * count))

        def step(state: Any) -> Any:
            x, good, low, high, last, moved, k, first = state
            s, solved = self._step(x, y)
            # the next error is this one's square where all lower levels are done; elsewhere it is only less
            near = jnp.where(level > first, enough * abs(x), closest * (abs(x) + abs(x).max(initial=0)))
            far = ~solved & ~(abs(s) <= near)  # nan is far
            here, bad = alone & (level == first), ~jnp.isfinite(s)
            low = jnp.where(here & (s > 0), jnp.maximum(low, x), low)
            high = jnp.where(here & (s < 0), jnp.minimum(high, x), high)
            serves = (x + s > low) & (x + s < high) & ~(abs(s) > last / 2)
            after = jnp.where(here & far & ~serves, _between(low, high, x, s, moved), x + s)
            after = jnp.where(bad & ~here | jnp.isnan(s), (x + good) / 2, after)  # back to where f is defined
            after = jnp.where(level < first, x, after)  # its last digits would disturb all that follow
            following = jnp.where(far, level, count).min(initial=count)
            same = (level == following) & (following == first)
            low, high, last = (jnp.where(same, a, b) for a, b in ((low, -inf), (high, inf), (abs(s), inf)))
            return after, jnp.where(bad, good, x), low, high, last, after - x, k + 1, following

        inf, zero = jnp.full_like(x, jnp.inf), jnp.zeros((), jnp.int32)
        x, *_, first = jax.lax.while_loop(more, step, (x, x, -inf, inf, inf, 0 * x, zero, zero))
        return jnp.where(first == count, x, jnp.nan)

    def _tangent(self, product: Callable[[Any], Any], b: Any) -> Any:
        """J x = b by substitution of blocks: x ← x + D⁻¹ (b - J x), exact after as many times as there are levels.

        Most often all levels are exact to rounding much before.
        """
        own = Problem(lambda x: [product(x)], self._problem.f, self._problem.what, (jnp.zeros_like(b),), _ONE)
        D = jax.lax.stop_gradient(_blocks(recorded_program(own, False, False)))
        factors, form, enough = D._eliminated(), self.form, _enough(b)
        count, start = int(form.levels.max(initial=0)) + 1, jnp.full((), -1, jnp.int32)

        def solve(times: Callable[[Any], Any], c: Any, transposed: bool) -> Any:
            level = count - 1 - form.levels[form.rows] if transposed else form.column_levels

            def refined(state: Any) -> Any:
                x, first = state
                s = D._by_factors(factors, (c - times(x))[None], transposed)[0]
                far = (level > first) & ~(abs(s) <= enough * abs(x))
                return x + s, jnp.where(far, level, count).min(initial=count)

            return jax.lax.while_loop(lambda state: state[1] < count, refined, (jnp.zeros_like(c), start))[0]

        return jax.lax.custom_linear_solve(
            product,
            b,
            solve=lambda times, c: solve(times, c, False),
            transpose_solve=lambda times, c: solve(times, c, True),
        )


_ONE = jax.tree.structure([0])


def _between(low: Any, high: Any, x: Any, s: Any, moved: Any) -> Any:
    """The middle; where one end is open, x and twice the step before, or twice s; away from where f is flat."""
    middle = low + (high - low) / 2
    away = jnp.where(jnp.isfinite(s), 2 * jnp.maximum(abs(moved), abs(s)), 1 + abs(x))
    return jnp.where(jnp.isfinite(middle), middle, x + jnp.where(jnp.isfinite(low), away, -away))


def _enough(x: Any) -> float:
    """The step, relative to x, that rounding in a sum of as many numbers may cause.

    A level that takes no larger one need not wait for those below it; one that does is right when it has waited.
    """
    return float(_ROUNDING**2 * jnp.finfo(x.dtype).eps * x.size**0.5)


def _patterns(recorded: Recorded) -> Any:
    return patterns(recorded.program, recorded.rows, recorded.columns)


def _blocks(recorded: Recorded) -> Any:
    """The diagonal blocks of the Jacobian."""
    places, met = _patterns(recorded)
    form = Form.of(places)
    assert form is not None  # the pattern was looked at before
    return blocks_of(planning(()), recorded.program, form, met, recorded.rows, recorded.columns)


def _divided(D: Any, b: Any) -> Any:
    """D⁻¹ b, [n]."""
    return D._by_factors(D._eliminated(), b[None], False)[0]
