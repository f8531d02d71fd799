"""One equation of a program as a function of its varying operands, and its derivatives."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._jax import as_function, has_custom_vjp

Arrays = Sequence[Any]


class Function:
    """An equation as a function of its varying operands alone, and its pushforward."""

    def __init__(self, eqn: Any, values: Sequence[Any], places: Sequence[int], live: Sequence[bool]):
        self.eqn, self.live, self._run = eqn, live, as_function(eqn)
        self._places = list(places)
        self._full = list(values)
        self.operands = tuple(self._full[k] for k in self._places)
        self._backwards = has_custom_vjp(SimpleNamespace(eqns=[eqn]))  # as the body of a jaxpr

    def __call__(self, *varying: Any) -> list[Any]:
        full = list(self._full)
        for k, v in zip(self._places, varying, strict=True):
            full[k] = v
        return list(itertools.compress(self._run(*full), self.live))

    def push(self, operands: Arrays, tangents: Arrays) -> list[Any]:
        """F'(operands) tangents. What has a rule for the reverse direction only is transposed: it is linear."""
        if not self._backwards:
            return jax.jvp(self, tuple(operands), tuple(tangents))[1]
        outs, pull = jax.vjp(self, *operands)
        return jax.linear_transpose(pull, outs)(tuple(tangents))[0]

    def bend(self, tangents: Arrays, others: Arrays) -> list[Any]:
        """F''(operands)[tangents, others]."""
        return jax.jvp(lambda *u: self.push(u, tangents), self.operands, tuple(others))[1]

    @functools.cached_property
    def slopes(self) -> list[Any]:
        """Of a function of each element, the derivative by each operand."""
        return [self.push(self.operands, self.only(k))[0] for k in range(len(self.operands))]

    def only(self, place: int) -> tuple[Any, ...]:
        """Tangents of one in one operand, of zero in the others."""
        return tuple(jnp.ones_like(u) if k == place else jnp.zeros_like(u) for k, u in enumerate(self.operands))

    @property
    def shapes(self) -> list[Any]:
        return [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in self.operands]
