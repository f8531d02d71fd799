"""Walk a program with its values: how near each switch is, what is not finite, and which custom rule is wrong.

Every array goes with its tangents along several directions, so that one pass gives the distance |a − b| of each switch,
and to first order the ‖dx‖ that closes it, |a − b| / ‖∇(a − b)‖. Some of the tangents are rounding errors, one more in
every step that rounds: where they arrive is the noise that the value carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from chainrule._check.flow import NOISE, Flow, Path, Reading, Readings, inexact, push, signs
from chainrule._check.kinks import is_comparison, switch_of
from chainrule._check.local_rules import rule_reading, transpose_reading
from chainrule._jax import (
    Literal,
    as_callable,
    as_function,
    custom_call,
    defined_at,
    dependent,
    inner_jaxpr,
    scan_counts,
    written_at,
)

NEAREST = 4  # columns that a switch names
_EXACT = {  # they do not round
    *("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose", "rev", "slice", "dynamic_slice", "pad"),
    *("concatenate", "split", "gather", "select_n", "dynamic_update_slice", "copy", "copy_p", "stop_gradient"),
    *("neg", "abs", "sign", "floor", "real", "imag", "conj"),
    *("max", "min", "reduce_max", "reduce_min", "sort", "clamp"),
}
_FILLING = (
    "gather",
    "select_n",
    "concatenate",
    "pad",
    "dynamic_update_slice",
)  # with NaN that is there, or beyond bounds
_DECIDES = {"select_n": "where", "cond": "cond", "while": "while"}
_TRANSPOSED = ("custom_jvp_call", "custom_linear_solve", "linear_call")


@dataclass
class Site:
    """What an equation is: its primitive, its switch, the file and line, the calls it stands within."""

    name: str
    place: tuple[str, int] | None
    within: tuple[str, ...]
    kind: str = ""
    effect: str = ""
    decides: set[str] = field(default_factory=set)


class Walker:
    """Walks jaxprs; `sites` says what was met. `gradient`: how many rows make the gradient, the columns' rows follow.

    `basis` says whether these are all the coordinate directions, or random ones with two that find single columns.
    """

    def __init__(self, gradient: int, basis: bool, eps: float):
        self.gradient, self.basis, self.eps = gradient, basis, eps
        self.sites: dict[Path, Site] = {}

    def run(
        self, jaxpr: Any, consts: Sequence[Any], flows: Sequence[Flow], path: Path, within: tuple[str, ...], place: Any
    ) -> tuple[list[Flow], Readings]:
        """Equation by equation."""
        env: dict[Any, Flow] = dict(zip(jaxpr.constvars, map(Flow, consts), strict=True))
        env.update(zip(jaxpr.invars, flows, strict=True))

        def read(v: Any) -> Flow:
            return Flow(v.val) if isinstance(v, Literal) else env[v]

        readings: Readings = {}
        for k, eqn in enumerate(jaxpr.eqns):
            own, ins = (*path, k), [read(v) for v in eqn.invars]
            self.sites[own] = Site(eqn.primitive.name, written_at(eqn) or place, within)
            outs, found = self._step(eqn, ins, own)
            readings |= found
            env.update(zip(eqn.outvars, outs, strict=True))
        return [read(v) for v in jaxpr.outvars], readings

    def _step(self, eqn: Any, ins: list[Flow], path: Path) -> tuple[list[Flow], Readings]:
        site, name = self.sites[path], eqn.primitive.name
        if name in _DECIDES:
            self._decide(ins[0].origins, _DECIDES[name])
        inner = inner_jaxpr(eqn)
        if inner:
            return self.run(*inner, ins, path, self._inside(site, inner[0]), site.place)
        loops = {"scan": self._scan, "while": self._while, "cond": self._cond}
        if name in loops:
            return loops[name](eqn, ins, path)
        outs = self._apply(eqn, ins, path)
        readings = self._switch(eqn, ins, path)
        if name not in _EXACT or name in _FILLING:
            readings |= self._finite(ins, outs, path)
        custom = custom_call(eqn)
        if custom:
            jaxpr, consts, _ = custom
            results, found = self.run(jaxpr, consts, ins, path, self._inside(site, jaxpr), site.place)
            outs = [o._replace(origins=r.origins) for o, r in zip(outs, results, strict=True)]
            readings |= found | {(path, "rule"): rule_reading(eqn, as_callable(jaxpr, consts), ins, self.eps)}
            site.kind = defined_at(jaxpr)
        if name in _TRANSPOSED:
            transposed = transpose_reading(eqn, ins)
            readings |= {(path, "transpose"): transposed} if transposed else {}
        return outs, readings

    def _inside(self, site: Site, jaxpr: Any) -> tuple[str, ...]:
        return (*site.within, defined_at(jaxpr).partition(" at ")[0] or site.name)

    def _decide(self, origins: frozenset[Path], what: str) -> None:
        for path in origins:
            self.sites[path].decides.add(what)

    def _apply(self, eqn: Any, ins: list[Flow], path: Path) -> list[Flow]:
        """The results of one equation, their tangents, and a rounding error in each."""
        run, values = as_function(eqn), [f.value for f in ins]
        outs, tangents = run(*values), push(run, values, [f.tangents for f in ins])
        origins = frozenset().union(*[f.origins for f in ins])
        if is_comparison(eqn) and any(f.tangents is not None for f in ins):
            origins |= {path}
        if eqn.primitive.name not in _EXACT:
            salt = hash(path)
            tangents = [self._rounded(o, t, salt + k) for k, (o, t) in enumerate(zip(outs, tangents, strict=True))]
        return [
            Flow(o, t, frozenset() if inexact(o) and eqn.primitive.name == "select_n" else origins)
            for o, t in zip(outs, tangents, strict=True)
        ]

    def _rounded(self, value: Any, tangents: Any, salt: int) -> Any:
        if tangents is None:
            return None
        unit = float(jnp.finfo(value.dtype).eps) / self.eps
        size = jnp.abs(value).astype(value.real.dtype)
        error = (jnp.where(jnp.isfinite(size), size, 0) * signs(value, salt) * unit).astype(tangents.dtype)
        return tangents.at[-NOISE:].add(error)

    def _finite(self, ins: list[Flow], outs: list[Flow], path: Path) -> Readings:
        """Whether finite operands gave a value, or a derivative, that is none.

        Of values the number says whether all operands were finite, or those alone that depend on x.
        """

        def finite(arrays: list[Any]) -> Any:
            every = [jnp.isfinite(a).all() for a in arrays if a is not None and inexact(a)]
            return jnp.stack(every).all() if every else jnp.asarray(True)

        def reading(before: Any, after: Any, *numbers: Any) -> Reading:
            near = jnp.where(before & ~after, 0.0, jnp.inf)
            return Reading(near, jnp.asarray(numbers, float), jnp.zeros(0, np.int32))

        values, slopes = [[getattr(f, part) for f in ins] for part in ("value", "tangents")]
        moving = [f.value for f in ins if f.tangents is not None or f.origins]
        sound, after = finite(values), finite([f.value for f in outs])
        found = {(path, "value"): reading(finite(moving) if moving else sound, after, sound)}
        if any(f.tangents is not None for f in ins):
            found[path, "slope"] = reading(sound & finite(slopes), finite([f.tangents for f in outs]))
        return found

    def _switch(self, eqn: Any, ins: list[Flow], path: Path) -> Readings:
        switch = switch_of(eqn) if any(f.tangents is not None for f in ins) else None
        values = [f.value for f in ins]
        if switch is None or not inexact(values[0]):
            return {}

        def margin(*xs: Any) -> list[Any]:
            return [switch.margin(*xs)]

        (gap,), (rows,) = margin(*values), push(margin, values, [f.tangents for f in ins])
        if rows is None or not gap.size:
            return {}
        self.sites[path].kind, self.sites[path].effect = switch.kind, switch.effect
        return {(path, "switch"): self._nearest(gap, rows)}

    def _nearest(self, gap: Any, rows: Any) -> Reading:
        """The smallest ‖dx‖ that closes a gap: numbers are the gap, ‖dx‖, how many are 0, and columns to look at."""
        size, steep = jnp.abs(gap), rows[: self.gradient].astype(gap.dtype)
        slope = jnp.sqrt((steep**2).sum(0) / (1 if self.basis else self.gradient))
        way = jnp.where(size == 0, 0, jnp.where(slope > 0, size / jnp.where(slope > 0, slope, 1), jnp.inf))
        way = jnp.where(jnp.isnan(slope), size, jnp.where(jnp.isfinite(size), way, jnp.inf)).reshape(-1)
        places = _smallest(way, min(NEAREST, way.size))
        columns = self._columns(rows.reshape((len(rows), -1))[:, places])
        columns = jnp.where(way[places] < jnp.inf, columns, -1)
        columns = jnp.concatenate([columns, jnp.full(NEAREST - len(places), -1.0, columns.dtype)])
        best, count = places[0], (way == 0).sum()
        numbers = jnp.stack([size.reshape(-1)[best], way[best], count.astype(gap.dtype), best.astype(gap.dtype)])
        return Reading(way[best].astype(float), jnp.concatenate([numbers, columns.astype(gap.dtype)]).astype(float),
                       jnp.zeros(0, np.int32))  # fmt: skip

    def _columns(self, rows: Any) -> Any:
        """[rows, places] -> the input that each place depends on most, or −1."""
        if self.basis:
            return jnp.abs(rows[: self.gradient]).argmax(0).astype(float)
        ones, numbers = rows[self.gradient], rows[self.gradient + 1]
        ratio = numbers / jnp.where(ones == 0, 1, ones) - 1
        return jnp.where((ones != 0) & (jnp.abs(ratio - jnp.round(ratio)) < 1e-3), jnp.round(ratio), -1).astype(float)

    # control flow ----------------------------------------------------------------------------------

    def _branches(self, eqn: Any, ins: list[Flow], path: Path) -> Any:
        """Functions of the operands, one for each branch, and the readings that each of them makes."""
        marks = dependent(eqn, [f.tangents is not None for f in ins])
        values, tangents = [f.value for f in ins[1:]], [f.tangents for f in ins[1:]]
        site, rows = self.sites[path], self._height(ins)

        def branch(k: int, jaxpr: Any) -> Any:
            def run(values: Any, tangents: Any) -> Any:
                flows, found = self.run(
                    jaxpr.jaxpr, jaxpr.consts, [*map(Flow, values, tangents)], (*path, k), site.within, site.place
                )
                return [f.value for f in flows], _filled(flows, marks, rows), found

            return run

        return [branch(k, b) for k, b in enumerate(eqn.params["branches"])], values, tangents

    def _cond(self, eqn: Any, ins: list[Flow], path: Path) -> tuple[list[Flow], Readings]:
        runs, values, tangents = self._branches(eqn, ins, path)
        absent = [_absent(jax.eval_shape(run, values, tangents)[2]) for run in runs]

        def whole(k: int) -> Any:
            def run(values: Any, tangents: Any) -> Any:
                *outs, found = runs[k](values, tangents)
                return *outs, {key: r for other in absent for key, r in other.items()} | found

            return run

        index = ins[0].value.astype(np.int32)
        outs, ts, readings = lax.switch(index, [whole(k) for k in range(len(runs))], values, tangents)
        return [*map(Flow, outs, ts)], readings

    def _scan(self, eqn: Any, ins: list[Flow], path: Path) -> tuple[list[Flow], Readings]:
        a, b = scan_counts(eqn)
        body, marks = eqn.params["jaxpr"], dependent(eqn, [f.tangents is not None for f in ins])
        site, rows = self.sites[path], self._height(ins)
        consts, start = ins[:a], _started(ins[a : a + b], marks[:b], rows)
        sliced = [(f.value, None if f.tangents is None else jnp.moveaxis(f.tangents, 0, 1)) for f in ins[a + b :]]

        def walk(carry: Any, x: Any) -> Any:
            flows = [*consts, *map(Flow, *carry), *[Flow(*pair) for pair in x]]
            outs, found = self.run(body.jaxpr, body.consts, flows, path, site.within, site.place)
            return [f.value for f in outs], _filled(outs, marks, rows), found

        first = [jax.tree.map(lambda s: s[0], pair) for pair in sliced]
        if not eqn.params["length"]:
            return self._apply(eqn, ins, path), {}
        best = _absent(jax.eval_shape(walk, start, first)[2], deeper=True)

        def step(state: Any, x: Any) -> Any:
            k, carry, best = state
            values, ts, found = walk(carry, x)
            return (k + 1, (values[:b], ts[:b]), _merged(best, found, k)), (values[b:], ts[b:])

        options = {"length": eqn.params["length"], "reverse": eqn.params["reverse"]}
        (_, (values, ts), best), (ys, yts) = lax.scan(step, (jnp.int32(0), start, best), sliced, **options)
        yts = [None if t is None else jnp.moveaxis(t, 1, 0) for t in yts]
        return [*map(Flow, values, ts), *map(Flow, ys, yts)], best

    def _while(self, eqn: Any, ins: list[Flow], path: Path) -> tuple[list[Flow], Readings]:
        a, b = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        site, rows = self.sites[path], self._height(ins)
        marks = dependent(eqn, [f.tangents is not None for f in ins])
        start = _started(ins[a + b :], marks, rows)
        test, body = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"]

        def asked(carry: Any) -> tuple[list[Flow], Readings]:
            flows = [*ins[:a], *map(Flow, *carry)]
            (answer,), found = self.run(test.jaxpr, test.consts, flows, (*path, 0), site.within, site.place)
            self._decide(answer.origins, "while")
            return [answer], found

        def walk(carry: Any) -> Any:
            flows = [*ins[a : a + b], *map(Flow, *carry)]
            outs, found = self.run(body.jaxpr, body.consts, flows, (*path, 1), site.within, site.place)
            return ([f.value for f in outs], _filled(outs, marks, rows)), asked(carry)[1] | found

        best = _absent(jax.eval_shape(walk, start)[1], deeper=True)

        def step(state: Any) -> Any:
            k, carry, best = state
            after, found = walk(carry)
            return k + 1, after, _merged(best, found, k)

        def going(state: Any) -> Any:
            return as_callable(test.jaxpr, test.consts)(*[f.value for f in ins[:a]], *state[1][0])[0]

        count, carry, best = lax.while_loop(going, step, (jnp.int32(0), start, best))
        last = asked(carry)[1]
        best = {**best, **_merged({key: best[key] for key in last}, last, count)}
        return [*map(Flow, *carry)], best

    def _height(self, ins: list[Flow]) -> int:
        return next((len(f.tangents) for f in ins if f.tangents is not None), 0)


def _smallest(values: Any, count: int) -> Any:
    """The places of the smallest values; of many in so many passes, for a sort would take longest of all."""
    if values.size <= 4096:
        return lax.top_k(-values, count)[1]
    found = []
    for _ in range(count):
        found.append(jnp.argmin(values))
        values = values.at[found[-1]].set(jnp.inf)
    return jnp.stack(found)


def pointed(readings: Readings, within: float) -> list[int]:
    """The columns that move the switches so near to x."""
    found = [r for (_, what), r in readings.items() if what == "switch" and r.near <= within]
    return list(dict.fromkeys(int(j) for r in found for j in r.numbers[4:] if j >= 0))[:NEAREST]


def _absent(shapes: Any, deeper: bool = False) -> Readings:
    """Readings that every other one is nearer than; with `deeper`, of a loop around them."""
    return {
        key: Reading(
            jnp.full((), jnp.inf, r.near.dtype),
            jnp.zeros(r.numbers.shape, r.numbers.dtype),
            jnp.zeros(r.steps.shape[0] + deeper, np.int32),
        )
        for key, r in shapes.items()
    }


def _merged(best: Readings, found: Readings, step: Any) -> Readings:
    def nearer(old: Reading, new: Reading) -> Reading:
        new = new._replace(steps=jnp.concatenate([jnp.asarray(step, np.int32)[None], new.steps]))
        return jax.tree.map(lambda a, b: jnp.where(new.near < old.near, b, a), old, new)

    return {key: nearer(best[key], found[key]) for key in best}


def _started(flows: Sequence[Flow], marks: Sequence[bool], rows: int) -> tuple[list[Any], list[Any]]:
    return [jnp.asarray(f.value) for f in flows], _filled(flows, marks, rows)


def _filled(flows: Sequence[Flow], marks: Sequence[bool], rows: int) -> list[Any]:
    """Tangents for what depends on x in some step or branch, zeros where not in this one; None for all else."""

    def filled(f: Flow, mark: bool) -> Any:
        if not (mark and inexact(f.value)):
            return None
        if f.tangents is not None:
            return f.tangents
        return jnp.zeros((rows, *jnp.shape(f.value)), jnp.result_type(f.value))

    return [filled(f, mark) for f, mark in zip(flows, marks, strict=True)]
