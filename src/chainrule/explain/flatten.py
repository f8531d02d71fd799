"""A traced function as one straight list of equations, each with the frames that it was traced in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._jax import (
    Literal,
    as_callable,
    dependent,
    inner_jaxpr,
    part_of,
    primitive,
    run_equation,
    straight_line,
    variable,
)
from chainrule.explain.source import Frame, Frames


@dataclass(frozen=True, eq=False)
class Operation:
    """An equation and its frames, the outermost first."""

    eqn: Any
    stack: tuple[Frame, ...]
    branch: str = ""  # "branch 2 of 3": which one of a cond was taken


@dataclass(eq=False)
class Flat:
    """The equations of a function without calls and branches; `choices`: which branches the point takes."""

    invars: list[Any]
    outvars: list[Any] = field(default_factory=list)
    constants: dict[Any, Any] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)
    choices: list[tuple[Callable[..., Any], int]] = field(default_factory=list)  # (index of one at a point, this one)

    def taken(self, leaves: Sequence[Any]) -> bool:
        """Whether another point takes the same branches."""
        return all(int(index(*leaves)) == k for index, k in self.choices)

    def part(self, invars: Sequence[Any], outvars: Sequence[Any], among: Any = None) -> tuple[Any, list[Any]]:
        """The equations (of these operations) that lead from variables to others, and their constants."""
        eqns = [o.eqn for o in (self.operations if among is None else among)]
        part = part_of(straight_line((), invars, outvars, eqns), invars, outvars)
        used = dict.fromkeys(v for e in part.eqns for v in e.invars if not isinstance(v, Literal))
        used |= dict.fromkeys(v for v in outvars if not isinstance(v, Literal))
        kept = {v: self.constants[v] for v in used if v in self.constants}
        return straight_line(list(kept), invars, outvars, part.eqns), list(kept.values())

    def active(self) -> set[Any]:
        """The variables that depend on the inputs."""
        found = set(self.invars)
        for operation in self.operations:
            eqn = operation.eqn
            marks = [not isinstance(v, Literal) and v in found for v in eqn.invars]
            if any(marks):
                found.update(v for v, own in zip(eqn.outvars, dependent(eqn, marks), strict=True) if own)
        return found


def flatten(closed: Any, leaves: Sequence[Any]) -> Flat:
    """Inline the calls of a closed jaxpr, and of its conds the branches that are taken at the point."""
    invars = [variable(v) for v in closed.jaxpr.invars]
    flat = Flat(invars)
    known = dict(zip(closed.jaxpr.invars, invars, strict=True))
    _Inliner(flat, leaves).run(closed.jaxpr, closed.consts, known, (), "call", "")
    flat.outvars = [_read(known, v) for v in closed.jaxpr.outvars]
    _fold_constants(flat)
    return flat


def _fold_constants(flat: Flat) -> None:
    """Evaluate what does not depend on the inputs: it becomes a constant."""
    active, kept = flat.active(), []
    for operation in flat.operations:
        eqn = operation.eqn
        if any(v in active for v in eqn.outvars) or eqn.effects:
            kept.append(operation)
            continue
        operands = [v.val if isinstance(v, Literal) else flat.constants[v] for v in eqn.invars]
        flat.constants.update(zip(eqn.outvars, run_equation(eqn, operands), strict=True))
    flat.operations = kept


def _read(known: dict[Any, Any], v: Any) -> Any:
    return v if isinstance(v, Literal) else known[v]


@dataclass
class _Inliner:
    flat: Flat
    leaves: Sequence[Any]
    frames: Frames = field(default_factory=Frames)

    def run(
        self,
        jaxpr: Any,
        consts: Sequence[Any],
        known: dict[Any, Any],
        outer: tuple[Frame, ...],
        entry: str,
        branch: str,
    ) -> None:
        for v, value in zip(jaxpr.constvars, consts, strict=True):
            known[v] = variable(v)
            self.flat.constants[known[v]] = value
        for eqn in jaxpr.eqns:
            stack = (*outer, *self.frames.of(eqn, entry))
            operands = [_read(known, v) for v in eqn.invars]
            inner, way, said = self._inner(eqn, operands)
            if inner is None:
                outs = [variable(v) for v in eqn.outvars]
                known.update(zip(eqn.outvars, outs, strict=True))
                self.flat.operations.append(Operation(eqn.replace(invars=operands, outvars=outs), stack, branch))
                continue
            operands = operands[1:] if way == "branch" else operands
            own = dict(zip(inner[0].invars, operands, strict=True))
            self.run(inner[0], inner[1], own, stack, way, said or branch)
            known.update((v, _read(own, w)) for v, w in zip(eqn.outvars, inner[0].outvars, strict=True))

    def _inner(self, eqn: Any, operands: Sequence[Any]) -> tuple[Any, str, str]:
        if eqn.primitive is primitive("cond"):
            branches = eqn.params["branches"]
            index = self._chosen(operands[0], len(branches))
            taken = branches[index]
            return (taken.jaxpr, taken.consts), "branch", f"branch {index + 1} of {len(branches)}"
        return inner_jaxpr(eqn), "jit", ""

    def _chosen(self, v: Any, count: int) -> int:
        if isinstance(v, Literal):
            return int(np.clip(v.val, 0, count - 1))
        jaxpr, consts = self.flat.part(self.flat.invars, [v])
        index = jax.jit(lambda *leaves: jnp.clip(as_callable(jaxpr, consts)(*leaves)[0], 0, count - 1))
        self.flat.choices.append((index, int(index(*self.leaves))))
        return self.flat.choices[-1][1]


# equal programs -----------------------------------------------------------------------------------


def signature(jaxpr: Any) -> Any:
    """What a jaxpr without its constants computes: equal for equal equations, however their variables are called."""
    numbers: dict[Any, int] = {}

    def written(v: Any) -> Any:
        if isinstance(v, Literal):
            return digest(v.val)
        return numbers.setdefault(v, len(numbers)), kind_of(v)

    ends = tuple(written(v) for v in (*jaxpr.constvars, *jaxpr.invars))
    eqns = tuple(
        (
            e.primitive,
            tuple((name, _hashable(value)) for name, value in sorted(e.params.items())),
            tuple(written(v) for v in (*e.invars, *e.outvars)),
        )
        for e in jaxpr.eqns
    )
    return len(jaxpr.constvars), ends, eqns, tuple(written(v) for v in jaxpr.outvars)


def kind_of(v: Any) -> Any:
    """Shape and dtype of a variable, to be compared."""
    aval = v.aval
    return (aval.shape, aval.dtype, aval.weak_type) if isinstance(aval, jax.core.ShapedArray) else str(aval)


def _hashable(value: Any) -> Any:
    """A parameter of an equation; of one that cannot be compared the object itself."""
    if isinstance(value, (list, tuple)):
        return tuple(_hashable(v) for v in value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return type(value), value


def digest(constant: Any) -> Any:
    """A constant by its content."""
    if not isinstance(constant, (jax.Array, np.ndarray, np.generic)) or not _plain(constant.dtype):
        return _hashable(constant) if not hasattr(constant, "shape") else id(constant)
    known = np.asarray(constant)
    return known.shape, str(known.dtype), hashlib.blake2b(known.tobytes()).digest()


def _plain(dtype: Any) -> bool:
    return not jax.dtypes.issubdtype(dtype, jax.dtypes.extended)
