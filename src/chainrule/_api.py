"""The transforms: the one module that knows the floors below together.

What linearizes and composes is imported where it is first used: JAX's extension interface, which it
stands on, takes about as long to import as all of this library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._compiled import Transform
from chainrule._errors import InputTypeError, ShapeError
from chainrule._options import ChunkSize, Options, Order
from chainrule._space import name_of
from chainrule._trace import Problem, pick, require_inputs, scalar_function

if TYPE_CHECKING:
    from chainrule._accumulate.recorded import Accumulated
    from chainrule._plan.plan import Plan

Argnums = int | Sequence[int]


def checked_argnums(name: str, f: Any, argnums: Argnums, least: int = 0) -> int | tuple[int, ...]:
    """The whole number, or the sequence of them as a tuple."""
    numbers: tuple[Any, ...] = tuple(argnums) if isinstance(argnums, (tuple, list)) else (argnums,)
    if len(numbers) < least or not all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in numbers):
        raise InputTypeError(
            f"{name} of {name_of(f)}: argnums={argnums!r} is neither a whole number nor a tuple of whole numbers"
        )
    return numbers if isinstance(argnums, (tuple, list)) else numbers[0]


def places(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    return argnums if isinstance(argnums, tuple) else (argnums,)


def _accumulating(
    name: str,
    f: Any,
    argnums: Argnums,
    options: Options,
    finish: Callable[[Accumulated, bool], Any],
    problem_of: Callable[..., Problem] = pick,
    least: int = 0,
) -> Transform:
    """A transform of the accumulated Jacobian; `finish` makes of this, and of has_aux, what is returned."""
    numbers = checked_argnums(name, f, argnums, least)
    options.require_sizes(f"{name} of {name_of(f)}")

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._accumulate.accumulate import accumulate
        from chainrule._accumulate.parts import in_parts

        def run(*own: Any) -> Any:
            return finish(accumulate(problem_of(name, function, numbers, own), options), options.has_aux)

        return in_parts(run, *args)

    return Transform(name, f, places(numbers), body, (name, numbers, options), patterned=True)


def _with_aux(found: Accumulated, has_aux: bool) -> Any:
    return (found.jacobian, found.aux) if has_aux else found.jacobian


def _with_value(found: Accumulated, has_aux: bool) -> Any:
    return (found.value, found.aux) if has_aux else found.value, found.jacobian


def jacobian(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    holomorphic: bool = False,
    order: Order | Plan = "auto",
    chunk_size: ChunkSize = None,
    memory_limit: int | None = None,
    shard_axis: str | None = None,
) -> Transform:
    """Assemble the Jacobian of `f`, sparse where it is sparse.

    Parameters
    ----------
    f : callable
        A pure function of pytrees of arrays, as for `jax.jit`; it gives a pytree of floating-point arrays.
    argnums : int or sequence of int
        Which positional arguments are differentiated. Whole numbers among the others (indices, masks)
        are known while tracing and shape the sparsity pattern.
    has_aux : bool
        Whether `f` returns a pair (output, aux).
    holomorphic : bool
        Promise that `f` is complex-differentiable; needed for complex inputs.
    order : {'auto', 'forward', 'reverse', 'factored'} or Plan
        Accumulate from the input, from the output, or in the order that costs least, a mixed one included; or in that
        of a plan that `plan` made for this function and these shapes. 'factored' keeps the product of the links
        between arrays that every path passes through: see `J.factors` and `J.assemble()`.
    chunk_size : int or 'auto', optional
        Compute a dense Jacobian so many columns (in reverse order: rows) at a time, which takes less memory; its
        pattern is not looked for. 'auto' does so only where the whole would not fit, in parts that do.
    memory_limit : int, optional
        Bytes that one array may take; 80 % of the device's free memory unless given. An entry of a sparsity pattern
        counts 16 bytes, and 40 where patterns are sorted.
    shard_axis : str, optional
        Compute a dense Jacobian's columns (in reverse order: its rows) split over the devices along this axis of the
        mesh, that of `jax.set_mesh` or of the arguments; its pattern is not looked for. A number of columns that the
        devices do not divide is padded on the way.

    Returns
    -------
    Transform
        A function of the same arguments that gives a `Jacobian` of shape (outputs, inputs), or
        (Jacobian, aux) with `has_aux`. It is compiled once for each shape of the arguments; inside
        `jit`, `vmap` and `grad` it is traced like any JAX function. Its `.trace(*args)` gives JAX's
        ahead-of-time stage.

    Raises
    ------
    InputTypeError
        Inputs or outputs that are not floating point; complex inputs without `holomorphic`; an unknown
        order; an argument that is not there.
    MissingRuleError
        A custom derivative rule that is not linear.
    MemoryLimitError
        A step whose Jacobian, or a J, that would not fit in memory. It is raised before anything is compiled, and
        names the step and the ways out.

    Notes
    -----
    The function is linearized by JAX; one rule per linear primitive then multiplies structured blocks.
    See Griewank and Walther, *Evaluating Derivatives* (2008), chapters 3 and 7.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> J = cr.jacobian(lambda x: jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]]))(jnp.array([1.0, 2.0]))
    >>> J.dense().tolist()
    [[2.0, 1.0], [2.0, 1.0]]

    Dense columns, split over all devices:

    >>> import jax
    >>> mesh = jax.make_mesh((jax.device_count(),), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    >>> with jax.set_mesh(mesh):
    ...     J = cr.jacobian(jnp.cumsum, order="forward", shard_axis="d")(jnp.ones(2))
    >>> J.dense().tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    options = Options(has_aux, order, holomorphic, chunk_size, memory_limit, shard_axis)
    return _accumulating("jacobian", f, argnums, options, _with_aux)


def value_and_jacobian(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    holomorphic: bool = False,
    order: Order | Plan = "auto",
    chunk_size: ChunkSize = None,
    memory_limit: int | None = None,
    shard_axis: str | None = None,
) -> Transform:
    """Give (f(x), Jacobian), or ((f(x), aux), Jacobian) with `has_aux`, from one run; see `jacobian`.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> y, J = cr.value_and_jacobian(jnp.sin)(jnp.zeros(3))
    >>> y.tolist(), J.diagonal().tolist()
    ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    """
    options = Options(has_aux, order, holomorphic, chunk_size, memory_limit, shard_axis)
    return _accumulating("value_and_jacobian", f, argnums, options, _with_value)


def hessian(
    f: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    order: Order | Plan = "auto",
    chunk_size: ChunkSize = None,
    memory_limit: int | None = None,
    shard_axis: str | None = None,
) -> Transform:
    """The Hessian of a scalar function: the Jacobian of its gradient, sparse where it is sparse.

    Parameters
    ----------
    f, argnums, has_aux, order, chunk_size, memory_limit, shard_axis
        As for `jacobian`; `f` gives one real number.

    Returns
    -------
    Transform
        A function of the same arguments that gives a symmetric (n, n) `Jacobian`, or (Jacobian, aux).

    Raises
    ------
    ShapeError
        Where `f` gives anything but one real number.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.hessian(lambda x: (x**3).sum())(jnp.array([1.0, 2.0])).diagonal().tolist()
    [6.0, 12.0]
    """
    options = Options(has_aux, order, False, chunk_size, memory_limit, shard_axis)

    def of_gradient(name: str, function: Any, numbers: Any, args: tuple[Any, ...]) -> Problem:
        require_inputs(pick(name, function, numbers, args), False)
        return _gradient_problem(name, function, numbers, args, has_aux)

    return _accumulating("hessian", f, argnums, options, _with_aux, of_gradient, least=1)


def gradient(f: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False) -> Transform:
    """The gradient of a scalar function, a pytree like its argument; (gradient, aux) with `has_aux`.

    Raises ShapeError where `f` gives anything but one real number. For complex arguments the convention
    is that of `jax.grad`.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.gradient(lambda x: (x**2).sum())(jnp.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """

    numbers = checked_argnums("gradient", f, argnums, least=1)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        require_inputs(pick("gradient", function, numbers, args), False, complex_too=True)
        return jax.grad(scalar_function("gradient", function, has_aux), numbers, has_aux=has_aux)(*args)

    return Transform("gradient", f, places(numbers), body, ("gradient", numbers, has_aux))


def linearize(
    f: Callable[..., Any], argnums: Argnums = 0, *, has_aux: bool = False, holomorphic: bool = False
) -> Transform:
    """The Jacobian of `f` as a program: products only, nothing of the size of the matrix is stored.

    The result has the face of every `Jacobian`: `J @ v` runs the linearized program once, `J.T @ w` its
    transpose, and `+`, `@` and scalar factors combine programs. What needs the entries
    (`.dense()`, `.coo()`, `.diagonal()`) forms them, one product for each column.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> J = cr.linearize(lambda x: jnp.cumsum(x) ** 2)(jnp.array([1.0, 2.0]))
    >>> (J @ jnp.ones(2)).tolist(), (J.T @ jnp.ones(2)).tolist()
    ([2.0, 12.0], [8.0, 6.0])
    """

    numbers = checked_argnums("linearize", f, argnums)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._jacobians.matrix_free import linearized

        problem = pick("linearize", function, numbers, args)
        require_inputs(problem, holomorphic)
        J, aux = linearized(problem, has_aux)
        return (J, aux) if has_aux else J

    return Transform("linearize", f, places(numbers), body, ("linearize", numbers, has_aux, holomorphic))


def pushforward(f: Callable[..., Any], argnums: Argnums = 0) -> Transform:
    """J dx in one forward sweep: call with the arguments of `f`, then the tangent (a pytree like the input).

    Raises ShapeError where the tangent is not shaped like the differentiated arguments.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.pushforward(lambda x: x**2)(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [2.0, 4.0]
    """
    return _along("pushforward", f, argnums, push)


def pullback(f: Callable[..., Any], argnums: Argnums = 0) -> Transform:
    """The product of the transposed Jacobian with w in one reverse sweep: the arguments of `f`, then w.

    Raises ShapeError where the cotangent w is not shaped like the output.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.pullback(lambda x: x**2)(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [2.0, 4.0]
    """

    def run(problem: Problem, w: Any) -> Any:
        y, pull = jax.vjp(problem.function, *problem.leaves)
        return jax.tree.unflatten(problem.tree, pull(converted_like(f"{problem.what}: the cotangent", w, y)))

    return _along("pullback", f, argnums, run)


def hvp(f: Callable[..., Any], argnums: Argnums = 0) -> Transform:
    """The product of the Hessian of a scalar function with v, forward over reverse: the arguments, then v.

    Raises ShapeError where `f` gives anything but one real number, or v is not shaped like the input.
    See Pearlmutter, *Fast exact multiplication by the Hessian* (1994).

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.hvp(lambda x: (x**3).sum())(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [6.0, 12.0]
    """
    return _along("hvp", f, argnums, lambda problem, v: push(problem, v) if problem.leaves else v, _gradient_problem)


def _gradient_problem(name: str, f: Any, argnums: Any, args: Sequence[Any], has_aux: bool = False) -> Problem:
    """That of the gradient of a scalar function."""
    return pick(name, jax.grad(scalar_function(name, f, has_aux), argnums, has_aux=has_aux), argnums, args)


def _along(
    name: str,
    f: Any,
    argnums: Argnums,
    run: Callable[[Problem, Any], Any],
    problem_of: Callable[..., Problem] | None = None,
) -> Transform:
    """A transform whose last argument is a direction: `run(problem, direction)`; `problem_of`: another than f's own."""
    numbers = checked_argnums(name, f, argnums)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        problem, direction = problem_and_last(name, function, numbers, args)
        own = problem if problem_of is None else problem_of(name, function, numbers, args[:-1])
        return run(own, direction)

    return Transform(name, f, with_last(numbers), body, (name, numbers))


def with_last(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    """Places among (*args, direction) of the arguments' numbers, and of the direction, which is not the function's."""
    return (*(k if k >= 0 else k - 1 for k in places(argnums)), -1)


def problem_and_last(
    name: str, f: Any, argnums: int | tuple[int, ...], args: tuple[Any, ...], last: str = "the direction"
) -> tuple[Problem, Any]:
    """The problem of all arguments but the last, and this."""
    if len(args) < 2:
        raise InputTypeError(
            f"{name} of {name_of(f)}: got {len(args)} arguments; give the function's own, and then {last}"
        )
    problem = pick(name, f, argnums, args[:-1])
    require_inputs(problem, False, complex_too=True)
    return problem, args[-1]


def push(problem: Problem, dx: Any) -> Any:
    """J dx."""
    like = jax.tree.unflatten(problem.tree, problem.leaves)
    tangents = jax.tree.leaves(converted_like(f"{problem.what}: the tangent", dx, like))
    return jax.jvp(problem.function, problem.leaves, tuple(tangents))[1]


def converted_like(what: str, given: Any, wanted: Any) -> Any:
    """The direction in the dtypes of what it belongs to."""
    shapes = [tuple(jnp.shape(x)) for x in jax.tree.leaves(given)]
    expected = [tuple(jnp.shape(x)) for x in jax.tree.leaves(wanted)]
    own, other = str(jax.tree.structure(given)), str(jax.tree.structure(wanted))
    if own != other or shapes != expected:
        raise ShapeError(f"{what} has shapes {shapes} in {own}, but must have {expected} in {other}")
    for a, b in zip(jax.tree.leaves(given), jax.tree.leaves(wanted), strict=True):
        if jnp.iscomplexobj(a) and not jnp.iscomplexobj(b):
            raise InputTypeError(f"{what} is {jnp.asarray(a).dtype}, but must be {b.dtype} as what it belongs to")
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), given, wanted)
