"""`Plan`: what each order of the product costs, which one is taken and why; a value that can be printed and kept."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from chainrule._errors import InputTypeError
from chainrule._plan.node import Body, Meeting, Node
from chainrule._plan.weights import Weights


@dataclass(frozen=True)
class OrderCost:
    """What one order takes, from shapes and patterns.

    multiply_adds : those of all products of Jacobians.
    peak : numbers of the largest Jacobian on the way, the result not counted.
    numbers : numbers that are read and written.
    operations : products and sums.
    seconds : all of this, weighed; or the measured time.
    node : the order itself, as sweeps and products between cuts.
    bodies : the orders of the bodies of the loops on the way.
    """

    name: str
    multiply_adds: int
    peak: int
    numbers: int
    operations: int
    seconds: float
    node: Node
    bodies: tuple[Body, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The order in which a Jacobian is accumulated, chosen by cost; see `chainrule.plan`.

    Attributes
    ----------
    what : the function. shape : (outputs, inputs). orders : the `OrderCost` of each order that the program has: 'mixed'
    is one where that is cheaper than all others. chosen : the name of one. reason : why, in a sentence. single :
    multiply-adds of one pushforward, or of one pullback. digest : which program this plan belongs to. cuts : where the
    program is cut, by the numbers of its arrays. labels : names of the cuts. measured_on : backend and JAX version of
    measured times. fallbacks : the primitives of its steps that no rule covers, or whose parameters none knows: they
    are applied to dense columns.

    Examples
    --------
    >>> import chainrule as cr, jax, jax.numpy as jnp
    >>> A, B, C = jnp.ones((1, 30)), jnp.ones((30, 20)), jnp.ones((20, 10))
    >>> p = cr.plan(lambda x: A @ (B @ (C @ x)))(jnp.ones(10))
    >>> p.chosen, p["reverse"].multiply_adds, p["forward"].multiply_adds
    ('reverse', 800, 6300)
    """

    what: str = field(compare=False)
    shape: tuple[int, int]
    orders: tuple[OrderCost, ...]
    chosen: str
    reason: str = field(compare=False)
    single: int = field(compare=False)
    digest: str
    cuts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...] = field(compare=False)
    measured_on: str = field(default="", compare=False)
    fallbacks: tuple[str, ...] = field(default=(), compare=False)

    @property
    def node(self) -> Node:
        """The chosen order."""
        return self[self.chosen].node

    def __getitem__(self, name: str) -> OrderCost:
        """The cost of an order by its name, one of those in `orders`; InputTypeError of any other."""
        for order in self.orders:
            if order.name == name:
                return order
        known = ", ".join(repr(o.name) for o in self.orders)
        raise InputTypeError(
            f"plan of {self.what}: there is no order {name!r} of this program; there are {known} (see .orders)"
        )

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """The orders and their costs as text, with the chosen one and its steps."""
        m, n = self.shape
        rows = [_HEAD, *map(_cells, self.orders)]
        widths = [max(len(r[k]) for r in rows) for k in range(len(_HEAD))]
        lines = [f"plan of {self.what}: {m:,}×{n:,}", ""]
        for row in rows:
            mark = "→" if row[0] == self.chosen else " "
            cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
            lines.append(f"{mark} {'  '.join(cells)}")
        lines += ["", self.reason, *(f"  {k}. {s}" for k, s in enumerate(self.steps(), 1))]
        if self.fallbacks:
            lines.append(f"without a rule, applied to dense columns: {', '.join(self.fallbacks)}")
        push, pull = n * self.single, m * self.single
        separate = f"{n:,} separate pushforwards take {push:,} multiply-adds, {m:,} pullbacks {pull:,}"
        return "\n".join([*lines, "", f"counted as products of Jacobians; {separate}"])

    def steps(self) -> list[str]:
        """The chosen order, step by step."""
        return [*_steps(self.node, self.labels), *map(_in_loop, self[self.chosen].bodies)]

    def _repr_html_(self) -> str:
        rows = []
        for o in self.orders:
            cells = "".join(f"<td style='text-align:right'>{html.escape(c)}</td>" for c in _cells(o))
            rows.append(f"<tr style='font-weight:{'bold' if o.name == self.chosen else 'normal'}'>{cells}</tr>")
        title = f"plan of {html.escape(self.what)}: {self.shape[0]:,}×{self.shape[1]:,}"
        steps = "".join(f"<li>{html.escape(s)}</li>" for s in self.steps())
        heads = "".join(f"<th>{h}</th>" for h in _HEAD)
        return (
            f"<div><b>{title}</b><table><tr>{heads}</tr>{''.join(rows)}</table>"
            f"<p>{html.escape(self.reason)}</p><ol>{steps}</ol></div>"
        )

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Plan:
        """The plan that `to_dict` wrote. Raises InputTypeError where it is none."""
        try:
            found = cls(
                **{
                    **given,
                    "shape": tuple(given["shape"]),
                    "orders": tuple(map(_order_from_dict, given["orders"])),
                    "cuts": tuple(map(tuple, given["cuts"])),
                    "labels": tuple(given["labels"]),
                    "fallbacks": tuple(given.get("fallbacks", ())),
                }
            )
            found.steps()
        except (TypeError, KeyError, ValueError, AttributeError, IndexError) as error:
            raise InputTypeError(f"Plan.from_dict: this is no plan that Plan.to_dict wrote ({error})") from error
        return found


def _steps(node: Node, labels: Sequence[str]) -> Iterator[str]:
    for part in node.parts:
        yield from _steps(part, labels)
    start, stop = labels[node.start], labels[node.stop]
    if node.kind == "product":
        yield f"multiply the Jacobians of {stop} and of {start} that meet at {labels[node.between]}"
    elif node.kind == "eliminate":
        assert node.eliminated is not None
        count = len(node.eliminated.order)
        yield f"eliminate {count} arrays between {start} and {stop} in the order of {node.eliminated.rule}"
    elif node.kind == "meet":
        assert node.met is not None
        count = len(node.met.arrays)
        yield f"sweep forward from {start} and in reverse from {stop}, to the {count} arrays where they meet"
        yield "multiply there the column of outputs of each element by its row of inputs"
    elif node.kind == "forward":
        yield f"sweep forward from {labels[node.between] if node.parts else start} to {stop}"
    else:
        yield f"sweep in reverse from {labels[node.between] if node.parts else stop} to {start}"


def _in_loop(body: Body) -> str:
    """The order of the body of a loop, in a line."""
    legs = []
    for leg in body.legs:
        start, stop = body.labels[leg.start], body.labels[leg.stop]
        if leg.node is None:
            legs.append(f"push from {start} to {stop}")
        else:
            how = ", ".join(_steps(leg.node, body.labels))
            legs.append(f"multiply by the Jacobian of {stop} by {start} ({how})")
    count = f"{body.multiply_adds:,} multiply-adds"
    saved = "" if body.pure else f" in place of {body.pushed:,}"
    return f"in each of the {body.length:,} steps of a loop: {'; '.join(legs)}: {count}{saved}"


_HEAD = ("order", "multiply-adds", "peak entries", "numbers moved", "operations", "µs")


def _cells(o: OrderCost) -> tuple[str, ...]:
    counts = (f"{c:,}" for c in (o.multiply_adds, o.peak, o.numbers, o.operations))
    return (o.name, *counts, f"{o.seconds * 1e6:,.1f}")


class PlanCache:
    """Measured plans by program, to be held, saved and given again.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cache = cr.PlanCache()
    >>> p = cr.plan(jnp.tanh, measure=True, cache=cache)(jnp.ones(3))
    >>> len(cache), cr.plan(jnp.tanh, measure=True, cache=cache)(jnp.ones(3)) == p
    (1, True)
    """

    def __init__(self) -> None:
        self._plans: dict[str, Plan] = {}

    def __len__(self) -> int:
        return len(self._plans)

    def get(self, digest: str, measured_on: str) -> Plan | None:
        """The plan of a program that was measured on this backend, if there is one."""
        return self._plans.get(digest + measured_on)

    def add(self, plan: Plan) -> None:
        """Keep a plan."""
        self._plans[plan.digest + plan.measured_on] = plan

    def save(self, path: str | Path) -> None:
        """Write all plans to a JSON file."""
        Path(path).write_text(json.dumps([p.to_dict() for p in self._plans.values()]))

    @classmethod
    def load(cls, path: str | Path) -> PlanCache:
        """Read what `save` wrote. Raises InputTypeError where the file holds no plans."""
        cache = cls()
        try:
            given = json.loads(Path(path).read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputTypeError(f"PlanCache.load: {path} is no JSON file ({error})") from error
        for plan in given if isinstance(given, list) else [given]:
            cache.add(Plan.from_dict(plan))
        return cache


def _order_from_dict(given: Mapping[str, Any]) -> OrderCost:
    bodies = tuple(map(Body.from_dict, given["bodies"]))
    return OrderCost(**{**given, "node": Node.from_dict(given["node"]), "bodies": bodies})


def with_bodies(plan: Plan, bodies: Mapping[str, tuple[Body, ...]]) -> Plan:
    """The plan with the orders of the bodies of its loops, by the orders that have them."""
    return replace(plan, orders=tuple(replace(o, bodies=bodies.get(o.name, o.bodies)) for o in plan.orders))


def with_meeting(plan: Plan, met: Meeting, weights: Weights) -> Plan:
    """The plan with the order of two sweeps that meet as its mixed one."""
    work, node = met.work, Node("meet", 0, len(plan.cuts) - 1, met=met)
    counts = work.multiply_adds, met.peak, work.numbers, work.operations
    others = tuple(o for o in plan.orders if o.name != "mixed")
    return replace(plan, orders=(*others, OrderCost("mixed", *counts, weights.seconds(work), node)))


def counted(plan: Plan, multiply_adds: Mapping[str, int], chosen: str) -> Plan:
    """The plan with counts of real sweeps in place of those from shapes."""
    orders = tuple(replace(o, multiply_adds=multiply_adds.get(o.name, o.multiply_adds)) for o in plan.orders)
    counts = "by the multiply-adds of the sweeps, counted over their blocks"
    rule = "forward where that is near the least, or about equal; reverse of few outputs; mixed where it is sure to pay"
    reason = f"{chosen}: {counts} ({rule})"
    return replace(plan, orders=orders, chosen=chosen, reason=reason)


def measured(plan: Plan, seconds: Mapping[str, float], measured_on: str) -> Plan:
    """The plan with measured times, and the fastest order chosen."""
    orders = tuple(replace(o, seconds=seconds[o.name]) for o in plan.orders if o.name in seconds)
    best = min(orders, key=lambda o: o.seconds)
    times = ", ".join(f"{o.name} {o.seconds * 1e6:,.0f} µs" for o in orders)
    reason = f"{best.name}: the fastest that was measured ({times})"
    return replace(plan, orders=orders, chosen=best.name, reason=reason, measured_on=measured_on)
