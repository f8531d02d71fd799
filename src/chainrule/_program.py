"""Values of a linear program: coefficients (no tangent operand) and tangents (blocks)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax.numpy as jnp
import numpy as np

from chainrule._blocks.block import Block, once
from chainrule._blocks.rows import fill
from chainrule._plan.node import Body


@dataclass(frozen=True, eq=False)
class Coefficient:
    """A value that does not depend on the tangents.

    A NumPy value is known while tracing. `support`, where given, is False where the value is known to
    vanish whatever the inputs are; `drowned` is True where it is known to be −∞ (a masked score). `places`: see
    `partly`. What a branch of unknown index gave has `branches`: the index, and of each branch whether it gives zeros.
    """

    value: Any
    support: np.ndarray | None = None
    drowned: np.ndarray | None = None
    places: tuple[np.ndarray, np.ndarray] | None = None
    branches: tuple[Any, tuple[bool, ...]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(self.value))

    @property
    def dtype(self) -> Any:
        return jnp.result_type(self.value)

    @property
    def static(self) -> bool:
        return isinstance(self.value, np.ndarray)

    @property
    def nonzero(self) -> np.ndarray | None:
        """Where the value may differ from zero, or None where nothing is known."""
        if not self.static or self.value.dtype.kind not in "biufcV":
            return self.support
        nonzero = np.asarray(once(self.value) != 0)
        return None if nonzero.all() else np.broadcast_to(nonzero, self.value.shape)

    @property
    def minus_infinity(self) -> np.ndarray | None:
        """Where the value is known to be −∞, or None where it is nowhere."""
        if not self.static or self.value.dtype.kind != "f":
            return self.drowned
        low = np.isneginf(self.value)
        return low if low.any() else None

    @property
    def partly(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Of whole numbers: where they are known, and these numbers (0 elsewhere)."""
        if self.static and self.value.dtype.kind in "iub":
            return np.ones(self.value.shape, bool), self.value
        if self.places is None and self.support is not None and self.dtype.kind in "iub":
            return ~self.support, np.zeros(self.shape, self.dtype)
        return self.places

    @property
    def zero(self) -> bool:
        nonzero = self.nonzero
        return 0 in self.shape or (nonzero is not None and not once(nonzero).any())

    def restated(self) -> Any:
        """The value for a program that is traced anew: it says again what is known of its zeros and of −∞."""
        value = self.value
        for known, number in ((self.support, 0), (None if self.drowned is None else ~self.drowned, -np.inf)):
            if known is not None and not self.static:
                value = jnp.where(known, value, jnp.asarray(number, value.dtype))
        return value


@dataclass(frozen=True, eq=False)
class Tangent:
    """The Jacobian of one intermediate array, as a sum of blocks (none: zero)."""

    shape: tuple[int, ...]
    dtype: Any
    blocks: tuple[Block, ...]

    @property
    def vanishes(self) -> bool:
        """Say whether the Jacobian is known to be zero."""
        return not self.blocks

    @property
    def taken(self) -> bool:
        """Whether the blocks are there."""
        return True

    def filled(self) -> Tangent:
        """The same without scattered blocks."""
        if all(b.rows is None for b in self.blocks):
            return self
        return Tangent(self.shape, self.dtype, tuple(f for b in self.blocks for f in fill(b, self.shape)))


class Awaited(Tangent):
    """A tangent whose blocks are taken when they are asked for: what comes next may do without them."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, take: Callable[[], tuple[Block, ...]]):
        self.__dict__.update(shape=shape, dtype=dtype, take=take)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks, once they are asked for."""
        return self.__dict__["take"]()

    @property
    def taken(self) -> bool:
        """Whether the blocks were asked for."""
        return "blocks" in self.__dict__


class Contracted(Awaited):
    """An Einstein sum of a tangent and a coefficient.

    A next contraction may meet the coefficient alone: (u C) D = u (C D), where the right side is often cheaper.
    `subscripts` reads 'source,coefficient->result'.
    """

    source: Tangent
    coefficient: Coefficient
    subscripts: str
    precision: Any

    def __init__(
        self,
        aval: Any,
        source: Tangent,
        coefficient: Coefficient,
        subscripts: str,
        precision: Any,
        take: Callable[[], tuple[Block, ...]],
    ):
        super().__init__(tuple(aval.shape), aval.dtype, take)
        self.__dict__.update(source=source, coefficient=coefficient, subscripts=subscripts, precision=precision)

    @property
    def vanishes(self) -> bool:
        """A sum that was worth keeping is not known to vanish."""
        return False


class Scaled(Awaited):
    """An element-wise product: a sum of it is an Einstein sum."""

    source: Tangent
    coefficient: Coefficient

    def __init__(self, source: Tangent, coefficient: Coefficient, take: Callable[[], tuple[Block, ...]]):
        super().__init__(source.shape, source.dtype, take)
        self.__dict__.update(source=source, coefficient=coefficient)

    @property
    def vanishes(self) -> bool:
        """By a coefficient without known zeros it vanishes where its source does.

        This is asked before the next step, so that the source is taken by then: a long chain of products does not nest.
        """
        return not self.source.blocks


@dataclass(frozen=True, eq=False)
class Linear:
    """An array of a linear program: a place that a tangent will take."""

    shape: tuple[int, ...]
    dtype: Any

    @property
    def size(self) -> int:
        return math.prod(self.shape)


Value = Coefficient | Tangent


def _straight(context: Context, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Value], length: int) -> list[Any]:
    """Equation by equation."""
    return context.propagate(jaxpr, consts, operands)


@dataclass
class Context:
    """What a rule may ask of the sweep it is part of: inner jaxprs, and the count of its cost.

    `apply` is what becomes of a linear equation: its rule, or a note of it. `through` takes tangents through the body
    of a loop of so many steps, in an order of its own where there is one. `summed`: the slots are summed in the end; a
    product that a sum is fused with is quicker with the coefficient on its left.
    """

    propagate: Callable[..., list[Any]]
    apply: Callable[..., Sequence[Any]]
    summed: bool = False
    cost: int = 0
    largest: int = 0  # bytes of the largest array
    fallbacks: dict[str, None] = field(default_factory=dict)  # primitives that no rule covered, in order
    through: Callable[..., list[Any]] = _straight
    bodies: dict[str, Body] = field(default_factory=dict)  # those that `through` was asked for, by their digest

    def count(self, *blocks: Block) -> None:
        self.cost += sum(int(np.prod(b.vals.shape)) for b in blocks if not b.static)


def zero_coefficient(like: Any) -> Coefficient:
    """Known zeros of the shape and dtype of another value."""
    return Coefficient(np.broadcast_to(np.zeros((), like.dtype), like.shape))


def zero_tangent(like: Any) -> Tangent:
    """The Jacobian of an array that depends on nothing, of the shape and dtype of another one."""
    return Tangent(tuple(like.shape), like.dtype, ())


def plain(value: Value) -> Any:
    """A coefficient's number in JAX, zeros in place of a tangent."""
    return jnp.zeros(value.shape, value.dtype) if isinstance(value, Tangent) else as_jax(value.value)


def as_jax(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    own = once(value)
    return jnp.asarray(value) if own.size == value.size else jnp.broadcast_to(jnp.asarray(own), value.shape)
