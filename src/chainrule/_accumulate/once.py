"""What XLA on a CPU would compute again for every element of a larger array.

It fuses what is element-wise with all that reads it, and takes a sum of four terms for as cheap as a copy. Where such
a value is broadcast, a kernel then computes it once for each element of the result, and of a value that was turned
reads every operand across its rows. It is quicker to write the small array first. A sine it takes for cheap, too: one
is taken once wherever it is broadcast. See `taken_once` in `_blocks/block.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from chainrule._jax import Equation, Jaxpr, Literal

_WORTH = 2**15  # operations that are saved, from which on a kernel of its own is worth it
_TURNED = 4  # operations that it takes to read an element across the rows
_WRITTEN = 8  # operations that it takes to write an element and to read it again
_CHOSEN = {"concatenate", "pad"}
_BRANCH = 5  # operations that it takes to choose an operand of an element, for each of them
_MOST = 64  # operations of one element; more are not told apart
_VIEWS = frozenset({"broadcast_in_dim", "reshape", "squeeze", "expand_dims", "transpose"})
_DEAR = frozenset({"exp", "log", "tanh", "logistic", "sqrt", "rsqrt", "div"})
ELEMENTWISE = frozenset(
    {
        *("add", "add_any", "sub", "mul", "div", "neg", "max", "min", "exp", "log", "tanh", "logistic", "sin", "cos"),
        *("sqrt", "rsqrt", "integer_pow", "square", "abs", "sign", "convert_element_type", "select_n", "copy"),
    }
)


def repeated(jaxpr: Jaxpr) -> set[Any]:
    """The variables that are cheaper to write once than to compute for each element that they are broadcast to."""
    work: dict[Any, int] = {}  # operations that XLA would repeat for each element
    sines: dict[Any, set[Any]] = {}  # of which it would take each element
    chosen: set[Any] = set()  # which it computes behind branches: these are not kept in a register
    found: set[Any] = set()
    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name not in ELEMENTWISE and name not in _VIEWS and name not in _CHOSEN:
            continue
        (out,), operands = eqn.outvars, {v for v in eqn.invars if not isinstance(v, Literal)}
        for v in operands if name in ELEMENTWISE or name == "broadcast_in_dim" else ():
            if v.aval.size < out.aval.size:
                found |= sines.pop(v, set())
                if _saved(eqn, v, work.get(v, 0), v in chosen) >= _WORTH:
                    found.add(v)
                    chosen.discard(v)
                    work[v] = 0
        before = sum(work.get(v, 0) for v in operands)
        work[out] = 0 if _is_dear(eqn) else min(before + _own_work(eqn), _MOST)
        if name in _CHOSEN or (work[out] and not chosen.isdisjoint(operands)):
            chosen.add(out)
        sines[out] = {out} if _is_sine(eqn) else set().union(*(sines.get(v, ()) for v in operands))
    return found


def _saved(eqn: Equation, v: Any, work: int, chosen: bool) -> int:
    """The operations that it saves to write an operand that an equation broadcasts.

    A single one is often a product by one, which XLA leaves out. What is the same along the innermost axes is kept in
    a register there, unless it is `chosen`.
    """
    own, out = v.aval.shape, eqn.outvars[0].aval.shape
    places = eqn.params["broadcast_dimensions"] if eqn.primitive.name == "broadcast_in_dim" else range(len(own))
    varies = [place for place, n in zip(places, own, strict=True) if n > 1]
    if not varies or work < 2 or not _is_real(v):
        return 0
    last = len(out) if chosen else varies[-1] + 1
    return (work - 1) * (math.prod(out[:last]) - v.aval.size) - _WRITTEN * v.aval.size


def _own_work(eqn: Equation) -> int:
    if eqn.primitive.name == "transpose":
        order = [k for k in eqn.params["permutation"] if eqn.invars[0].aval.shape[k] > 1]
        return _TURNED if order[-1:] != sorted(order)[-1:] else 0
    if eqn.primitive.name in _CHOSEN:
        return _BRANCH * len(eqn.invars)
    return int(eqn.primitive.name in ELEMENTWISE)


def _is_sine(eqn: Equation) -> bool:
    return eqn.primitive.name in ("sin", "cos") and _is_real(eqn.outvars[0])


def _is_dear(eqn: Equation) -> bool:
    """Whether XLA never repeats it; a division by a number is a product."""
    return eqn.primitive.name in _DEAR and not (eqn.primitive.name == "div" and isinstance(eqn.invars[1], Literal))


def _is_real(v: Any) -> bool:
    return bool(np.issubdtype(v.aval.dtype, np.floating)) and v.aval.size > 1
