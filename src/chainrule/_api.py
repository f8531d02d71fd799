"""The transforms: the one module that knows the floors below together."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._block import identity
from chainrule._errors import InputTypeError, ShapeError
from chainrule._jacobian import Jacobian, Layout, Space
from chainrule._jax import has_custom_vjp
from chainrule._program import Coefficient, Context, Tangent, as_jax
from chainrule._propagate import require_tangent, sweep
from chainrule._trace import Problem, flat_output, linear_jaxpr, name_of, pick, require_inputs, space_of

Order = Literal["auto", "forward", "reverse"]
_TIE = 1.3  # orders whose counted costs differ by less are taken as equal; forward is kept


@dataclass(frozen=True, eq=False)
class _Swept:
    value: Any
    aux: Any
    jacobian: Jacobian


def _sweep(problem: Problem, has_aux: bool, reverse: bool) -> _Swept:
    """One assembled Jacobian, from the input or from the output."""
    function, found = flat_output(problem, has_aux)
    closed, (y_shape, aux_shape, _) = linear_jaxpr(function, problem.leaves, reverse)
    columns = space_of(problem.tree, problem.leaves, problem.name)
    rows = space_of(found["tree"], y_shape, problem.name)
    seeded, swept = (rows, columns) if reverse else (columns, rows)
    inputs = [Coefficient(x) for x in problem.leaves]
    values, context = sweep(closed.jaxpr, closed.consts, [*inputs, *_seeds(seeded)])
    n_y, n_aux = len(y_shape), len(jax.tree.leaves(aux_shape))
    y = [_plain(v) for v in values[:n_y]]
    aux = jax.tree.unflatten(jax.tree.structure(aux_shape), [_plain(v) for v in values[n_y : n_y + n_aux]])
    tangents = [
        require_tangent(v, s, d) for v, s, d in zip(values[n_y + n_aux :], swept.shapes, swept.dtypes, strict=True)
    ]
    J = _assemble(tangents, rows, columns, swept, reverse, context)
    return _Swept(jax.tree.unflatten(found["tree"], y), aux, J)


def _plain(value: Any) -> Any:
    return as_jax(value.value) if isinstance(value, Coefficient) else jnp.zeros(value.shape, value.dtype)


def _seeds(space: Space) -> list[Tangent]:
    seeds, offset = [], 0
    for shape, dtype, size in zip(space.shapes, space.dtypes, space.sizes, strict=True):
        seeds.append(Tangent(shape, dtype, (identity(shape, offset, dtype),)))
        offset += size
    return seeds


def _assemble(tangents: Sequence[Tangent], rows: Space, columns: Space, swept: Space, reverse: bool, context: Context) -> Jacobian:  # noqa: E501
    entries, values, offset = [], [], 0
    for tangent, size in zip(tangents, swept.sizes, strict=True):
        for b in tangent.blocks:
            if size and (b.cols >= 0).any():
                known = b.vals if b.static else None
                entries.append((offset, b.shape, b.cols, known, b.vals.shape))
                values += [] if b.static else [b.vals]
        offset += size
    dtype = functools.reduce(jnp.promote_types, [t.dtype for t in tangents]) if tangents else jnp.float32
    order = "reverse" if reverse else "forward"
    return Jacobian(Layout(rows, columns, tuple(entries), dtype, reverse, order, context.cost), tuple(values))


def _cheapest(problem: Problem, has_aux: bool, order: Order, holomorphic: bool) -> _Swept:
    """Both sweeps are counted, one is kept; XLA never sees the other."""
    if order not in ("auto", "forward", "reverse"):
        raise InputTypeError(f"jacobian of {problem.name}: order={order!r} is not one of 'auto', 'forward', 'reverse'")
    require_inputs(problem, holomorphic)
    if order != "auto":
        return _checked(_sweep(problem, has_aux, order == "reverse"), problem, order)
    function, _ = flat_output(problem, has_aux)
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in problem.leaves]
    traced, out = jax.make_jaxpr(lambda *x: function(*x)[0], return_shape=True)(*shapes)
    m, n = (sum(int(np.prod(a.shape)) for a in arrays) for arrays in (out, shapes))
    if has_custom_vjp(traced.jaxpr):
        return _sweep(problem, has_aux, True)
    loops = {"while"} & {e.primitive.name for e in traced.jaxpr.eqns}
    complex_out = any(jnp.issubdtype(o.dtype, jnp.complexfloating) for o in out)
    if loops or (complex_out and not holomorphic) or n <= 1:
        return _sweep(problem, has_aux, False)
    if m <= 1:
        return _sweep(problem, has_aux, True)
    forward = _sweep(problem, has_aux, False)
    if forward.jacobian.cost <= 4 * (m + n) * max(1, len(traced.jaxpr.eqns)):
        return forward  # already within a small multiple of what the function itself costs
    try:
        reverse = _sweep(problem, has_aux, True)
    except (ValueError, NotImplementedError):
        return forward  # JAX itself cannot reverse this function
    return reverse if reverse.jacobian.cost * _TIE < forward.jacobian.cost else forward


def _checked(swept: _Swept, problem: Problem, order: Order) -> _Swept:
    if order == "reverse" and not all(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in problem.leaves):
        if any(jnp.issubdtype(d, jnp.complexfloating) for d in swept.jacobian._layout.rows.dtypes):
            raise InputTypeError(f"jacobian of {problem.name}: complex outputs of real inputs need order='forward'")
    return swept


class _Known:
    """Arrays of whole numbers among the arguments: known while tracing, compared by content."""

    def __init__(self, arrays: dict[int, np.ndarray]):
        self.arrays = arrays
        parts = [(k, a.shape, str(a.dtype), hashlib.blake2b(a.tobytes()).digest()) for k, a in arrays.items()]
        self.key = tuple(parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Known) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


_NOTHING_KNOWN = _Known({})


class Transform:
    """A compiled transform of a function; `.trace(*args)` gives JAX's ahead-of-time stage."""

    def __init__(self, f: Callable[..., Any], argnums: int | tuple[int, ...], finish: Any, **options: Any):
        if not callable(f):
            raise InputTypeError(f"jacobian: the first argument must be a function, got {type(f).__name__}")
        self._f, self._argnums, self._finish, self._options = f, argnums, finish, options
        functools.update_wrapper(self, f, updated=())
        self._cache: dict[Any, Any] = {}

    def _split(self, args: tuple[Any, ...]) -> tuple[_Known, list[Any], Any]:
        leaves, tree = jax.tree.flatten(args)
        numbers = (self._argnums,) if isinstance(self._argnums, int) else self._argnums
        chosen = {k % max(len(args), 1) for k in numbers}
        counts = [len(jax.tree.leaves(a)) for a in args]
        owner = np.repeat(np.arange(len(args)), counts)
        known = {
            k: np.asarray(x)
            for k, x in enumerate(leaves)
            if int(owner[k]) not in chosen and _whole_and_concrete(x)
        }
        return (_Known(known) if known else _NOTHING_KNOWN), [x for k, x in enumerate(leaves) if k not in known], tree

    def __call__(self, *args: Any) -> Any:
        return self._compiled(args)(*self._split(args)[1])

    def trace(self, *args: Any) -> Any:
        """Trace for these arguments: JAX's stage object, with `.lower().compile()`."""
        return self._compiled(args).trace(*self._split(args)[1])

    def _compiled(self, args: tuple[Any, ...]) -> Any:
        known, _, tree = self._split(args)
        if (known, tree) not in self._cache:
            self._cache[known, tree] = jax.jit(functools.partial(self._flat, known, tree))
        return self._cache[known, tree]

    def _flat(self, known: _Known, tree: Any, *leaves: Any) -> Any:
        left = iter(leaves)
        full = [known.arrays[k] if k in known.arrays else next(left) for k in range(tree.num_leaves)]
        args = jax.tree.unflatten(tree, full)
        problem = pick(self._f, self._argnums, args)
        return self._finish(_cheapest(problem, **self._options))


def _whole_and_concrete(x: Any) -> bool:
    if isinstance(x, jax.core.Tracer) or not hasattr(x, "dtype"):
        return False
    return np.dtype(x.dtype).kind in "iub" if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else False


def jacobian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
             holomorphic: bool = False, order: Order = "auto") -> Callable[..., Any]:  # fmt: skip
    """Assemble the Jacobian of `f`, sparse where it is sparse.

    Parameters
    ----------
    f : a pure function of pytrees of arrays, as for `jax.jit`.
    argnums : which positional arguments are differentiated.
    has_aux : whether `f` returns a pair (output, aux).
    holomorphic : promise that `f` is complex-differentiable; needed for complex inputs.
    order : accumulate from the input ('forward'), from the output ('reverse'), or the cheaper ('auto').

    Returns
    -------
    A function of the same arguments that gives a `Jacobian` of shape (outputs, inputs), or
    (Jacobian, aux) with `has_aux`.

    Raises
    ------
    InputTypeError : for inputs or outputs that are not floating point.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> J = cr.jacobian(lambda x: jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]]))(jnp.array([1.0, 2.0]))
    >>> J.dense().tolist()
    [[2.0, 1.0], [2.0, 1.0]]

    The method: Griewank and Walther, Evaluating Derivatives (2008), chapters 3 and 7.
    """

    def finish(s: _Swept) -> Any:
        return (s.jacobian, s.aux) if has_aux else s.jacobian

    return Transform(f, argnums, finish, has_aux=has_aux, holomorphic=holomorphic, order=order)


def value_and_jacobian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
                       holomorphic: bool = False, order: Order = "auto") -> Callable[..., Any]:  # fmt: skip
    """Give (f(x), Jacobian), or ((f(x), aux), Jacobian) with `has_aux`; see `jacobian`.

    >>> import chainrule as cr, jax.numpy as jnp
    >>> y, J = cr.value_and_jacobian(jnp.sin)(jnp.zeros(3))
    >>> J.shape
    (3, 3)
    """

    def finish(s: _Swept) -> Any:
        return ((s.value, s.aux), s.jacobian) if has_aux else (s.value, s.jacobian)

    return Transform(f, argnums, finish, has_aux=has_aux, holomorphic=holomorphic, order=order)


def gradient(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False) -> Callable[..., Any]:
    """The gradient of a scalar function, shaped like its argument.

    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.gradient(lambda x: (x**2).sum())(jnp.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """
    return jax.grad(f, argnums, has_aux=has_aux)


def hessian(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False,
            order: Order = "auto") -> Callable[..., Any]:  # fmt: skip
    """The Hessian of a scalar function: the Jacobian of its gradient, sparse where it is sparse.

    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.hessian(lambda x: (x**3).sum())(jnp.array([1.0, 2.0])).diagonal().tolist()
    [6.0, 12.0]
    """
    return jacobian(jax.grad(f, argnums, has_aux=has_aux), argnums, has_aux=has_aux, order=order)


def _primal_and_last(f: Any, argnums: Any, args: tuple[Any, ...]) -> tuple[Problem, Any]:
    if len(args) < 2:
        raise InputTypeError(f"{name_of(f)}: give the function's arguments and then the tangent or cotangent")
    return pick(f, argnums, args[:-1]), args[-1]


def _require_like(what: str, name: str, given: Any, wanted: Any) -> None:
    shapes = [tuple(jnp.shape(x)) for x in jax.tree.leaves(given)]
    expected = [tuple(jnp.shape(x)) for x in jax.tree.leaves(wanted)]
    if jax.tree.structure(given) != jax.tree.structure(wanted) or shapes != expected:
        raise ShapeError(f"{what} of {name}: got shapes {shapes}, needs a pytree of shapes {expected}")


def pushforward(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """J dx in one forward sweep: call with the arguments of `f`, then the tangent.

    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.pushforward(lambda x: x**2)(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [2.0, 4.0]
    """

    def push(*args: Any) -> Any:
        problem, dx = _primal_and_last(f, argnums, args)
        _require_like("pushforward: the tangent", problem.name, dx, jax.tree.unflatten(problem.tree, problem.leaves))
        tangents = tuple(jnp.asarray(t, x.dtype) for t, x in zip(jax.tree.leaves(dx), problem.leaves, strict=True))
        return jax.jvp(problem.function, problem.leaves, tangents)[1]

    return push


def pullback(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The product of the transposed Jacobian with w in one reverse sweep: the arguments of `f`, then w.

    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.pullback(lambda x: x**2)(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [2.0, 4.0]
    """

    def pull(*args: Any) -> Any:
        problem, w = _primal_and_last(f, argnums, args)
        y, vjp = jax.vjp(problem.function, *problem.leaves)
        _require_like("pullback: the cotangent", problem.name, w, y)
        return jax.tree.unflatten(problem.tree, vjp(jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), w, y)))

    return pull


def hvp(f: Callable[..., Any], argnums: int | tuple[int, ...] = 0) -> Callable[..., Any]:
    """The product of the Hessian of a scalar function with v, forward over reverse.

    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.hvp(lambda x: (x**3).sum())(jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [6.0, 12.0]
    """
    return pushforward(jax.grad(f, argnums), argnums)


