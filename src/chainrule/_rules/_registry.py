"""The table of rules, keyed by primitive object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chainrule._jax import IGNORED_PARAMETERS, primitive

Rule = Callable[..., Any]
SCATTERED: set[Any] = set()  # primitives whose rule takes scattered blocks as they are
PARAMETERS: dict[Any, frozenset[str]] = {}  # what each rule reads
RULES: dict[Any, Rule] = {}
ZEROS: dict[Any, Rule] = {}  # of control flow without tangents: what is known of the zeros among the results


def rule_for(eqn: Any) -> Rule | None:
    """The rule of an equation, if it knows every parameter that can change the mathematics."""
    own = PARAMETERS.get(eqn.primitive)
    if own is None or not own.union(IGNORED_PARAMETERS).issuperset(eqn.params):
        return None
    return RULES[eqn.primitive]


def zeros(name: str) -> Callable[[Rule], Rule]:
    """Register what finds zeros among the results of a primitive that was applied to coefficients alone.

    It takes (context, equation, values, results) and gives the results, with what is known of them.
    """

    def register(function: Rule) -> Rule:
        ZEROS[primitive(name)] = function
        return function

    return register


def rule(*names: str, reads: str = "", scattered: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule for the primitives of these names; a second registration raises.

    A rule takes (context, equation, values) and gives the list of the equation's results, or
    NotImplemented where it leaves this case to the fallback. `reads` names the equation's parameters that
    it takes into account: an equation with any other goes to the fallback, nothing is guessed. A rule
    that is not marked `scattered` gets blocks that hold all rows.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            found = primitive(name)
            if found is None:
                continue
            if RULES.setdefault(found, function) is not function:
                raise ValueError(f"a rule for {name} is already registered")
            PARAMETERS[found] = frozenset(reads.split())
            if scattered:
                SCATTERED.add(found)
        return function

    return register
