"""The transform `laplacian`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from chainrule._api import Argnums, checked_argnums, places
from chainrule._compiled import Transform
from chainrule._errors import ChainruleError
from chainrule._fields.field import accumulated, at_points
from chainrule._space import Space
from chainrule._trace import Problem, flat_output, pick, require_inputs


def laplacian(f: Callable[..., Any], argnums: Argnums = 0, *, batched: bool = False) -> Transform:
    """The Laplacian Δf = Σ_k ∂²f/∂x_k², the trace of the Hessian: of each output its own.

    Parameters
    ----------
    f : callable
        A pure function of pytrees of real arrays, as for `jacobian`; it gives a pytree of arrays of any shape.
    argnums : int or sequence of int
        Which positional arguments the derivatives are taken by; the sum runs over all of their elements.
    batched : bool
        Whether these arguments are batches of points: each array has one more axis in front, and so has each result.

    Returns
    -------
    Transform
        A function of the same arguments that gives a pytree like the output of `f`. It is compiled once for each shape
        of the arguments, and can be mapped, differentiated and compiled further.

    Raises
    ------
    ShapeError
        Where the points of a batch are not equally many in every leaf.
    InputTypeError
        Inputs or outputs that are not floating point; complex inputs; an argument that is not there.
    MemoryLimitError
        A Jacobian of an intermediate array that would not fit in memory.

    Notes
    -----
    It is positive where f is below its average over small spheres around x, and zero for harmonic functions.
    Each step of f carries its value, its Jacobian, sparse where it is sparse, and its Laplacian; see Li et al., *A
    computational framework for neural network-based variational Monte Carlo with Forward Laplacian* (2023).
    The rule of a `custom_jvp` stands for the first derivative of its function wherever that occurs, as in the product
    rule; `jax.hessian` differentiates the rule's primal output anew, and differs where the two disagree.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.laplacian(lambda x: (x**3).sum())(jnp.array([1.0, 2.0])).item()
    18.0
    >>> cr.laplacian(lambda x: x[0] ** 2 - x[1] ** 2, batched=True)(jnp.ones((3, 2))).tolist()
    [0.0, 0.0, 0.0]
    """
    numbers = checked_argnums("laplacian", f, argnums, least=1)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        problem = pick("laplacian", function, numbers, args)
        require_inputs(problem, False)
        return at_points(problem, batched, _of_point)

    return Transform("laplacian", f, places(numbers), body, ("laplacian", numbers, batched), patterned=True)


def _of_point(problem: Problem) -> Any:
    from chainrule._jax import has_custom_vjp

    function, found = flat_output(problem, False)
    closed, shapes = jax.make_jaxpr(lambda *x: function(*x)[0], return_shape=True)(*problem.leaves)
    own: Sequence[Any] | None = None
    if has_custom_vjp(closed.jaxpr) and problem.leaves:
        # its rule is for the gradient: what is differentiated further is the rule itself, as `jax.hessian` does
        own = _traces_of_hessians(problem, shapes)
    if own is None:
        own = _forward(problem, closed, shapes)
    return jax.tree.unflatten(found["tree"], own)


def _forward(problem: Problem, closed: Any, shapes: Sequence[Any]) -> Sequence[Any]:
    """The forward Laplacian; that of a scalar function from its Hessian, where that is counted cheaper."""
    from chainrule._accumulate.loop_body import planning
    from chainrule._laplacian.forward import Curved
    from chainrule._laplacian.solves import laplacians  # with loops and solves, which these files enter
    from chainrule._linear import seeds_of
    from chainrule._program import Coefficient, Linear

    seeds = seeds_of([Linear(x.shape, x.dtype) for x in problem.leaves])
    inputs = [Curved(Coefficient(x), t) for x, t in zip(problem.leaves, seeds, strict=True)]
    context, costs = planning(()), list[int]()
    context.summed = True
    outs = laplacians(context, closed.jaxpr, closed.consts, inputs, False, costs)
    if [s.shape for s in shapes] == [()] and _through_a_waist(closed.jaxpr, costs, context.cost):
        own = _traces_of_hessians(problem, shapes, context.cost)
        if own is not None:
            return own
    return [
        o.laplacian if isinstance(o, Curved) and o.laplacian is not None else jnp.zeros(s.shape, s.dtype)
        for o, s in zip(outs, shapes, strict=True)
    ]


_LEAST = 10**6  # multiply-adds below which nothing is to be gained
_GAIN = 1.3  # times as cheap as the forward Laplacian must the Hessian be


def _through_a_waist(jaxpr: Any, costs: list[int], total: int) -> bool:
    """Whether most of the work comes after narrow arrays: a Hessian has a column there for each of their elements."""
    from chainrule._jax import live_sizes

    widths = live_sizes(jaxpr)
    return total > _LEAST and any(
        (total - cost) * (1 - min(width / widths[0], 1)) > total * (1 - 1 / _GAIN)
        for cost, width in zip(costs, widths, strict=True)
    )


def _traces_of_hessians(problem: Problem, shapes: Sequence[Any], most: int | None = None) -> list[Any] | None:
    """The traces of the structured Hessians of all outputs, each the Jacobian of a pullback.

    None where a step cannot be reversed, where it would not fit, or where it is not cheaper than `most`.
    """
    from chainrule._accumulate.accumulate import plan_of

    space = Space(jax.tree.structure(list(shapes)), tuple(s.shape for s in shapes), tuple(s.dtype for s in shapes))
    if any(jnp.issubdtype(d, jnp.complexfloating) for d in space.dtypes):
        return None

    def one(w: Any) -> Any:
        def gradient(*leaves: Any) -> Any:
            outs, pull = jax.vjp(lambda *x: jax.tree.leaves(problem.function(*x)), *leaves)
            return list(pull(jax.tree.unflatten(jax.tree.structure(outs), space.unflatten(w, cast=True))))

        own = Problem(gradient, problem.f, problem.what, problem.leaves, jax.tree.structure(list(problem.leaves)))
        plan = None if most is None else plan_of(own, False, False, 0)
        if plan is not None and plan[plan.chosen].multiply_adds * _GAIN >= (most or 0):
            return None
        return accumulated(own, plan or "auto").trace()

    with contextlib.suppress(ChainruleError, ValueError):
        every = jnp.eye(space.size, dtype=space.dtype)
        traces = one(every[0]) if space.size == 1 else jax.vmap(one)(every)
        return None if traces is None else space.unflatten(jnp.atleast_1d(traces), cast=True)
    return None
