"""The transforms: the one module that knows the floors below together.

What linearizes and composes is imported where it is first used: JAX's extension interface, which it
stands on, takes about as long to import as all of this library.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._compiled import Transform
from chainrule._errors import InputTypeError, ShapeError
from chainrule._space import name_of
from chainrule._trace import Problem, pick, require_inputs, scalar_function

if TYPE_CHECKING:
    from chainrule._accumulate import Order
    from chainrule._plan.plan import Plan
    from chainrule._recorded import Accumulated

Argnums = int | Sequence[int]
ChunkSize = int | Literal["auto"] | None


def checked_argnums(name: str, f: Any, argnums: Argnums, least: int = 0) -> int | tuple[int, ...]:
    """The whole number, or the sequence of them as a tuple."""
    numbers: tuple[Any, ...] = tuple(argnums) if isinstance(argnums, (tuple, list)) else (argnums,)
    if len(numbers) < least or not all(isinstance(k, (int, np.integer)) and not isinstance(k, bool) for k in numbers):
        raise InputTypeError(
            f"{name} of {name_of(f)}: argnums={argnums!r} is neither a whole number nor a tuple of whole numbers"
        )
    return numbers if isinstance(argnums, (tuple, list)) else numbers[0]


def _require_sizes(name: str, f: Any, chunk_size: Any, memory_limit: Any, shard_axis: Any) -> None:
    """Refuse what is no number of columns, or of bytes, before equal numbers share a program (True is 1)."""
    what = f"{name} of {name_of(f)}"
    if chunk_size not in (None, "auto") and not _is_count(chunk_size):
        raise InputTypeError(
            f"{what}: chunk_size={chunk_size!r} is neither a positive whole number, nor 'auto', nor None"
        )
    if memory_limit is not None and not _is_count(memory_limit):
        raise InputTypeError(f"{what}: memory_limit={memory_limit!r} is not a positive whole number of bytes")
    if shard_axis is not None and not isinstance(shard_axis, str):
        raise InputTypeError(f"{what}: shard_axis={shard_axis!r} is not the name of an axis of the mesh, nor None")


def _is_count(size: Any) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size > 0


def places(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    return argnums if isinstance(argnums, tuple) else (argnums,)


def _accumulating(
    name: str, f: Any, argnums: Argnums, finish: Callable[[Accumulated], Any], *options: Any
) -> Transform:
    """A transform of the accumulated Jacobian; the options are those of `Options`."""
    numbers = checked_argnums(name, f, argnums)
    _require_sizes(name, f, *options[-3:])

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._accumulate import Options, accumulate
        from chainrule._parts import in_parts

        return in_parts(lambda *own: finish(accumulate(pick(name, function, numbers, own), Options(*options))), *args)

    return Transform(name, f, places(numbers), body, (name, numbers, *options), patterned=True)


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
        Bytes that one array may take; 80 % of the device's free memory unless given.
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
    finish = _with_aux if has_aux else _bare
    return _accumulating(
        "jacobian", f, argnums, finish, has_aux, order, holomorphic, chunk_size, memory_limit, shard_axis
    )


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
    finish = _value_and_aux if has_aux else _value
    options = (has_aux, order, holomorphic, chunk_size, memory_limit, shard_axis)
    return _accumulating("value_and_jacobian", f, argnums, finish, *options)


def _bare(a: Accumulated) -> Any:
    return a.jacobian


def _with_aux(a: Accumulated) -> Any:
    return a.jacobian, a.aux


def _value(a: Accumulated) -> Any:
    return a.value, a.jacobian


def _value_and_aux(a: Accumulated) -> Any:
    return (a.value, a.aux), a.jacobian


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
    numbers = checked_argnums("hessian", f, argnums, least=1)
    _require_sizes("hessian", f, chunk_size, memory_limit, shard_axis)
    options = has_aux, order, False, chunk_size, memory_limit, shard_axis

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        from chainrule._accumulate import Options, accumulate
        from chainrule._parts import in_parts

        scalar = scalar_function("hessian", function, has_aux)
        require_inputs(pick("hessian", function, numbers, args), False)
        slope, finish = jax.grad(scalar, numbers, has_aux=has_aux), _with_aux if has_aux else _bare
        return in_parts(lambda *own: finish(accumulate(pick("hessian", slope, numbers, own), Options(*options))), *args)

    return Transform("hessian", f, places(numbers), body, ("hessian", numbers, *options), patterned=True)


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
        from chainrule._matrix_free import linearized

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

    numbers = checked_argnums("pushforward", f, argnums)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        problem, dx = _problem_and_last("pushforward", function, numbers, args)
        return _push(problem, dx)

    return Transform("pushforward", f, _with_last(numbers), body, ("pushforward", numbers))


def _push(problem: Problem, dx: Any) -> Any:
    like = jax.tree.unflatten(problem.tree, problem.leaves)
    tangents = jax.tree.leaves(_like(f"{problem.what}: the tangent", dx, like))
    return jax.jvp(problem.function, problem.leaves, tuple(tangents))[1]


def pullback(f: Callable[..., Any], argnums: Argnums = 0) -> Transform:
    """The product of the transposed Jacobian with w in one reverse sweep: the arguments of `f`, then w.

    Raises ShapeError where the cotangent w is not shaped like the output.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.pullback(lambda x: x**2)(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [2.0, 4.0]
    """

    numbers = checked_argnums("pullback", f, argnums)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        problem, w = _problem_and_last("pullback", function, numbers, args)
        y, pull = jax.vjp(problem.function, *problem.leaves)
        return jax.tree.unflatten(problem.tree, pull(_like(f"{problem.what}: the cotangent", w, y)))

    return Transform("pullback", f, _with_last(numbers), body, ("pullback", numbers))


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

    numbers = checked_argnums("hvp", f, argnums)

    def body(function: Any, args: tuple[Any, ...]) -> Any:
        problem, v = _problem_and_last("hvp", function, numbers, args)
        gradient_of = jax.grad(scalar_function("hvp", function, False), numbers)
        return _push(pick("hvp", gradient_of, numbers, args[:-1]), v) if problem.leaves else v

    return Transform("hvp", f, _with_last(numbers), body, ("hvp", numbers))


def _with_last(argnums: int | tuple[int, ...]) -> tuple[int, ...]:
    """Places among (*args, direction) of the arguments' numbers, and of the direction, which is not the function's."""
    return (*(k if k >= 0 else k - 1 for k in places(argnums)), -1)


def _problem_and_last(name: str, f: Any, argnums: int | tuple[int, ...], args: tuple[Any, ...]) -> tuple[Problem, Any]:
    if len(args) < 2:
        raise InputTypeError(
            f"{name} of {name_of(f)}: got {len(args)} arguments; give the function's own, and then the direction"
        )
    problem = pick(name, f, argnums, args[:-1])
    require_inputs(problem, False, complex_too=True)
    return problem, args[-1]


def _like(what: str, given: Any, wanted: Any) -> Any:
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
