"""Checks for users' tests: a Jacobian against JAX and against differences, a rule against its primitive.

Import it by its name: `import chainrule.testing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import Argnums, checked_argnums, jacobian
from chainrule._check.agreement import Check as Check
from chainrule._check.agreement import DisagreementError as DisagreementError
from chainrule._check.agreement import Given, agree
from chainrule._check.agreement import Report as Report
from chainrule._check.rule import COMPILED, UNKNOWN, Case, Comparison, batched, compiled, eagerly, given_to, transposed
from chainrule._errors import InputTypeError, MissingRuleError, NotReversibleError
from chainrule._jax import walk
from chainrule._options import Order
from chainrule._rules import RULES
from chainrule._space import name_of
from chainrule._trace import pick


def check_jacobian(
    f: Callable[..., Any],
    *args: Any,
    argnums: Argnums = 0,
    order: Order | None = None,
    directions: int = 3,
    seed: int = 0,
    rtol: float | None = None,
    dense_limit: float = 4e6,
    finite_differences: bool = True,
) -> Report:
    """Compare the Jacobian of `f` with JAX and with finite differences.

    Parameters
    ----------
    f : callable
        A function as for `chainrule.jacobian`.
    *args
        The point: the arguments of `f`; pytrees of arrays.
    argnums : int or tuple of int
        Which arguments are differentiated.
    order : {'auto', 'forward', 'reverse'}, optional
        The order to check; by default every one that JAX has for `f`.
    directions : int
        How many random directions are compared, forward and reverse each.
    seed : int
        What the directions are drawn from.
    rtol : float, optional
        The largest deviation from JAX, relative to the largest entry; by default 1e-9 in float64, 1e-4 in float32.
    dense_limit : float
        The whole matrix and its pattern are compared where it has at most so many entries.
    finite_differences : bool
        Whether central differences are compared too. Switch it off where a custom derivative rule of `f` is
        meant not to be its derivative, or where `f` has a kink close to the point.

    Returns
    -------
    Report
        The checks that were done, with their deviations.

    Raises
    ------
    DisagreementError
        Where a check fails: an AssertionError that names the function, the check, and the entry that is worst.

    Examples
    --------
    >>> import jax.numpy as jnp
    >>> from chainrule.testing import check_jacobian
    >>> report = check_jacobian(lambda x: x[1:] * x[:-1], jnp.array([1.0, 2.0, 3.0]), order="forward")
    >>> [check.name.removeprefix("order=forward: ") for check in report.checks]
    ['pushforward', 'finite differences', 'pullback', 'pattern', 'values']
    """
    given = Given.of(
        pick("check_jacobian", f, checked_argnums("check_jacobian", f, argnums), args), finite_differences, dense_limit
    )
    every: tuple[tuple[Order, Any], ...] = (("auto", True), ("forward", given.push), ("reverse", given.reverse))
    orders = [order] if order else [one for one, exists in every if exists]
    near, checks = given.rtol if rtol is None else rtol, []
    for one in orders:
        J = jacobian(f, argnums, order=one, holomorphic=given.holomorphic)(*args)
        checks += [
            given.check(f"order={one}: {what}", *parts) for what, *parts in given.compared(J, near, directions, seed)
        ]
    missing = {"pushforward": given.push, "pullback": given.pull, "pattern or values": given.whole}
    return Report.of(given.name, checks, [f"no {what}" for what, run in missing.items() if run is None])


def check_rule(
    function: Any, *shapes: tuple[int, ...], coefficients: Sequence[Any] = (), dtypes: Sequence[Any] = ()
) -> Report:
    """Compare the rules of the primitives in a linear function with the function on dense columns.

    The operands are of every kind (identity, diagonal, dense, per sample, absent entries, values that are known, sums,
    scattered rows), eagerly and under `jit` and `vmap`, with coefficients that are known and that are not; and the
    forward program is compared with the transposed one.

    Parameters
    ----------
    function : callable or primitive
        A function of the operands and then of the coefficients, linear in the operands.
    *shapes
        The shapes of the operands; try sizes 0 and 1 too.
    coefficients : sequence of array
        Whatever else the function takes; floating-point numbers are given in the dtype of the operands.
    dtypes : sequence of dtype
        The dtypes of the operands; by default JAX's own floating-point one.

    Returns
    -------
    Report
        The checks that were done; its notes name the primitives that have a rule, and those that have none.

    Raises
    ------
    DisagreementError
        Where a rule gives other values than its primitive, or another dtype.
    InputTypeError
        Where no operand is given, or the function is not linear in them.

    Examples
    --------
    >>> from jax import lax
    >>> from chainrule.testing import check_rule
    >>> check_rule(lambda a: lax.rev(a, (0,)), (3, 4)).notes
    ('rules of: rev',)
    """
    g = function if callable(function) else function.bind
    case, types = Case(name_of(g), g, shapes, coefficients), [np.dtype(d) for d in dtypes or [jnp.zeros(0).dtype]]
    if not shapes:
        raise InputTypeError(f"check_rule of {case.name}: give the shapes of the operands that it is linear in")
    notes = _rules_of(case, types[0])
    try:
        checks = [check for dtype in types for check in _checked(case, dtype, notes)]
    except MissingRuleError as error:
        raise InputTypeError(
            f"check_rule of {case.name}: the function must be linear in its operands of shapes {[*shapes]}; what it is "
            f"not linear in is given in coefficients ({error})"
        ) from error
    return Report.of(case.name, checks, notes)


def _checked(case: Case, dtype: Any, notes: list[str]) -> Iterator[Check]:
    for what, got, wanted in _settings(case, dtype, notes):
        if got.dtype != wanted.dtype:
            raise DisagreementError(f"{case.name}: {what} in {dtype}: {got.dtype} in place of {wanted.dtype}")
        near = 200 * float(jnp.finfo(wanted.dtype).eps)
        yield agree(case.name, f"{what} in {dtype}", got, wanted, near, lambda k: f"entry {[*k]}")


def _settings(case: Case, dtype: Any, notes: list[str]) -> Iterator[Comparison]:
    yield from eagerly(case, dtype)
    yield from compiled(case, dtype, COMPILED, known=True)
    yield from compiled(case, dtype, UNKNOWN, known=False)
    yield from batched(case, dtype)
    if dtype.kind == "f":
        try:
            pairs = list(transposed(case, dtype))
        except NotReversibleError as error:
            notes.append(f"no transpose in JAX: {error}")
        else:
            yield from pairs


def _rules_of(case: Case, dtype: Any) -> list[str]:
    """Which primitives of the function have a rule; those that hold programs are looked into."""
    operands = [jax.ShapeDtypeStruct(s, dtype) for s in case.shapes]
    found = {e.primitive for e in walk(jax.make_jaxpr(case.g)(*operands, *given_to(case, dtype)).jaxpr)}
    sides = {"rules of": found & RULES.keys(), "no rule of": found - RULES.keys()}
    return [f"{side}: {', '.join(sorted(map(str, own)))}" for side, own in sides.items() if own]
