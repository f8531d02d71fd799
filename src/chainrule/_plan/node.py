"""How a Jacobian between two cuts of a program is had: plain values, which can be compared and written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from chainrule._plan.pattern import Work


@dataclass(frozen=True)
class Elimination:
    """The arrays of a link, by number, in the order of their elimination; and the rule that found it."""

    order: tuple[int, ...]
    rule: str
    work: Work = field(compare=False)
    peak: int = field(compare=False)


@dataclass(frozen=True)
class Meeting:
    """The arrays at which a forward and a reverse sweep meet, by number; see `meeting`."""

    arrays: tuple[int, ...]
    work: Work = field(compare=False)
    peak: int = field(compare=False)


Kind = Literal["forward", "reverse", "product", "eliminate", "meet"]


@dataclass(frozen=True)
class Node:
    """How the Jacobian between cuts `start` < `stop` is had.

    'forward' sweeps on from `parts[0]`, or from its start where it has no parts; 'reverse' does so from its
    stop; 'product' multiplies parts (of start to between, of between to stop); 'eliminate' eliminates the arrays of a
    link in an order of their own; 'meet' sweeps forward from the start and in reverse from the stop, to arrays between.
    """

    kind: Kind
    start: int
    stop: int
    parts: tuple[Node, ...] = ()
    eliminated: Elimination | None = None
    met: Meeting | None = None

    @property
    def pure(self) -> bool:
        """Whether this is one sweep."""
        return not self.parts and self.eliminated is None and self.met is None

    @property
    def between(self) -> int:
        """The cut at which a part ends and the rest begins."""
        return self.parts[0].start if self.kind == "reverse" else self.parts[0].stop

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Node:
        """The node that `dataclasses.asdict` took apart."""
        eliminated, met = given["eliminated"], given.get("met")
        if eliminated is not None:
            work = Work(**eliminated["work"])
            eliminated = Elimination(tuple(eliminated["order"]), eliminated["rule"], work, eliminated["peak"])
        if met is not None:
            met = Meeting(tuple(met["arrays"]), Work(**met["work"]), met["peak"])
        parts = tuple(map(cls.from_dict, given["parts"]))
        return cls(given["kind"], given["start"], given["stop"], parts, eliminated, met)


@dataclass(frozen=True)
class Leg:
    """From one cut of a body to the next: through its equations, or by a product with what `node` assembles."""

    start: int
    stop: int
    node: Node | None

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Leg:
        """The leg that `dataclasses.asdict` took apart."""
        node = given["node"]
        return cls(given["start"], given["stop"], None if node is None else Node.from_dict(node))


@dataclass(frozen=True)
class Body:
    """The order of the body of a loop, the same at every step.

    `digest` tells which body this is, and what enters it. `length`: steps of the loop. `cuts`: where the body is cut,
    by the numbers of its arrays. `pushed`, `multiply_adds`: what all steps take through the equations one by one, and
    in this order.
    """

    digest: str
    length: int
    cuts: tuple[tuple[int, ...], ...]
    labels: tuple[str, ...] = field(compare=False)
    legs: tuple[Leg, ...]
    pushed: int = field(compare=False)
    multiply_adds: int = field(compare=False)

    @property
    def pure(self) -> bool:
        """Whether what enters is pushed through the equations one by one."""
        return all(leg.node is None for leg in self.legs)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Body:
        """The order that `dataclasses.asdict` took apart."""
        own = {"cuts": tuple(map(tuple, given["cuts"])), "labels": tuple(given["labels"])}
        return cls(**{**given, **own, "legs": tuple(map(Leg.from_dict, given["legs"]))})
