"""A rule against its primitive: the oracle is the primitive on every dense column; no formula is written twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._api import jacobian
from chainrule._blocks.block import Block
from chainrule._program import Coefficient, Tangent
from chainrule._propagate import require_tangent, sweep

N = 7  # number of inputs that the seeds speak of

Blocks = Sequence[Block]


class Case(NamedTuple):
    """A linear function that uses the primitive; `kinds` are the kinds of numbers ('f', 'c') it is meant for."""

    name: str
    g: Callable[..., Any]
    shapes: Sequence[tuple[int, ...]]
    coefficients: Sequence[Any] = ()
    kinds: str = "fc"


class Comparison(NamedTuple):
    """What was computed in some setting, and what should have been."""

    what: str
    got: np.ndarray
    wanted: np.ndarray


# compiling dominates: each kind of blocks is tested in some of the settings, each setting on some of the kinds
EAGER = ("identity", "diagonal", "absent entries", "known", "sum", "scattered", "nothing")
COMPILED = ("dense", "same rows", "per sample", "absent entries")
UNKNOWN = ("diagonal", "per sample", "sum")


# operands ----------------------------------------------------------------------------------------


def seeds(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> dict[str, list[Block]]:
    """Sums of blocks of every kind, for an operand of this shape; NumPy values are known while tracing."""
    dtype, size, ones = np.dtype(dtype), int(np.prod(shape)), (1,) * len(shape)

    def cols(*parts: int) -> np.ndarray:
        return rng.integers(-1, N, size=parts).astype(np.int32)

    def known(*parts: int) -> np.ndarray:
        real = rng.normal(size=parts)
        return np.asarray(real + 1j * rng.normal(size=parts) if dtype.kind == "c" else real, dtype)

    def vals(*parts: int) -> Any:
        return jnp.asarray(known(*parts))

    first, own = (*shape[:1], *ones[1:]), np.arange(size, dtype=np.int32).reshape((*shape, 1)) % N
    every, absent = np.arange(N, dtype=np.int32).reshape((*ones, N)), cols(*shape, 3)
    kinds = {
        "identity": [Block(shape, own, np.ones((*ones, 1), dtype))],
        "diagonal": [Block(shape, own, vals(*shape, 1))],
        "dense": [Block(shape, every, vals(*shape, N))],
        "same rows": [Block(shape, every, vals(*ones, N))],
        "per sample": [Block(shape, cols(*first, 2), vals(*shape, 2))],
        # whatever stands in an absent entry must not reach the result
        "absent entries": [Block(shape, absent, jnp.asarray(np.where(absent < 0, np.nan, known(*shape, 3)), dtype))],
        "known": [Block(shape, cols(*shape, 2), known(*shape, 2)), Block(shape, cols(*ones, 1), known(*ones, 1))],
        "sum": [Block(shape, cols(*shape, 1), vals(*ones, 1)), Block(shape, cols(*ones, 2), vals(*shape, 2))],
        "nothing": [],
    }
    if size:
        rows = rng.permutation(size)[: max(size // 2, 1)]
        kinds["scattered"] = [Block(rows.shape, cols(len(rows), 2), vals(len(rows), 2), rows)]
    return kinds


def seeded(case: Case, kind: str, dtype: Any) -> list[list[Block]]:
    """The blocks of every operand of the case."""
    rng = np.random.default_rng(len(kind))
    return [seeds(shape, dtype, rng).get(kind, []) for shape in case.shapes]


def given_to(case: Case, dtype: Any) -> list[np.ndarray]:
    """The case's coefficients: the numbers in the operands' dtype, positions and masks as they are."""
    return [np.asarray(k, dtype if np.asarray(k).dtype.kind == "f" else None) for k in case.coefficients]


def _scaled(blocks: Blocks, factor: Any) -> list[Block]:
    return [b.with_vals(jnp.asarray(b.vals) * factor) for b in blocks]


def _with_values(tangent: Tangent, values: Sequence[Any]) -> Tangent:
    blocks = [b.with_vals(np.asarray(v)) for b, v in zip(tangent.blocks, values, strict=True)]
    return Tangent(tangent.shape, tangent.dtype, tuple(blocks))


# the rule, and the primitive ---------------------------------------------------------------------


def propagate(case: Case, seeds: Sequence[Blocks], dtype: Any, given: Sequence[Any]) -> list[Tangent]:
    """The tangents of the function's results."""
    shapes = [jax.ShapeDtypeStruct(s, dtype) for s in case.shapes]
    closed, outs = jax.make_jaxpr(case.g, return_shape=True)(*shapes, *given)
    tangents = [
        Tangent(s, np.dtype(dtype), () if 0 in s else tuple(k)) for s, k in zip(case.shapes, seeds, strict=True)
    ]
    values, _ = sweep("check_rule", closed.jaxpr, closed.consts, [*tangents, *[Coefficient(k) for k in given]])
    return [require_tangent(v, o.shape, o.dtype) for v, o in zip(values, jax.tree.leaves(outs), strict=True)]


def dense(tangent: Tangent) -> np.ndarray:
    """[*shape, N]: a sum of blocks written out."""
    strange = [b.vals.dtype for b in tangent.blocks if b.vals.dtype != tangent.dtype]
    # one block in another dtype shows in the whole
    out = np.zeros((int(np.prod(tangent.shape)), N), (strange or [tangent.dtype])[0])
    for b in tangent.blocks:
        rows = np.arange(int(np.prod(b.shape))) if b.rows is None else b.rows.reshape(-1)
        cols, vals = (np.broadcast_to(a, (*b.shape, b.slots)).reshape(-1, b.slots) for a in (b.cols, b.vals))
        line, present = np.broadcast_to(rows[:, None], cols.shape), cols >= 0
        np.add.at(out, (line[present], cols[present]), vals[present])
    return out.reshape((*tangent.shape, N))


def oracle(case: Case, dtype: Any) -> Callable[..., list[np.ndarray]]:
    """The function itself on every dense column: (seeds, coefficients) -> [*shape, N] of every result."""
    apply = jax.jit(jax.vmap(case.g, in_axes=[-1] * len(case.shapes) + [None] * len(case.coefficients), out_axes=-1))

    def on_columns(seeds: Sequence[Blocks], given: Sequence[Any]) -> list[np.ndarray]:
        columns = [dense(Tangent(s, np.dtype(dtype), tuple(k))) for s, k in zip(case.shapes, seeds, strict=True)]
        return [np.asarray(a) for a in jax.tree.leaves(apply(*columns, *given))]

    return on_columns


def _compile_and_run(
    case: Case, dtype: Any, kinds: Sequence[str], factors: Any, given: Sequence[Any], known: bool
) -> list[list[Tangent]]:
    """Propagate blocks of several kinds, times a factor, in one compiled program; the tangents of every kind.

    A vector of factors (with a leading axis on the coefficients) runs under `vmap`, and the values of the tangents
    get a leading axis. The coefficients are known numbers, or traced ones.
    """
    seen: list[list[Tangent]] = []

    def run(factor: Any, coefficients: Sequence[Any]) -> Any:
        seen.clear()
        for kind in kinds:
            blocks = [_scaled(k, factor) for k in seeded(case, kind, dtype)]
            seen.append(propagate(case, blocks, dtype, given if known else coefficients))
        return [[[jnp.asarray(b.vals) for b in t.blocks] for t in tangents] for tangents in seen]

    values = jax.jit(run if np.ndim(factors) == 0 else jax.vmap(run))(factors, [] if known else given)
    return [[_with_values(t, v) for t, v in zip(*both, strict=True)] for both in zip(seen, values, strict=True)]


def _pairs(what: str, got: Sequence[Tangent], wanted: Sequence[np.ndarray]) -> Iterator[Comparison]:
    for k, (tangent, w) in enumerate(zip(got, wanted, strict=True)):
        yield Comparison(f"{what}, result {k}", dense(tangent), w)


# the settings ------------------------------------------------------------------------------------


def eagerly(case: Case, dtype: Any, kinds: Sequence[str] = EAGER) -> Iterator[Comparison]:
    """Coefficients are known numbers."""
    given, wanted = given_to(case, dtype), oracle(case, dtype)
    for kind in kinds:
        blocks = seeded(case, kind, dtype)
        yield from _pairs(f"{kind} blocks", propagate(case, blocks, dtype, given), wanted(blocks, given))


def compiled(case: Case, dtype: Any, kinds: Sequence[str], known: bool) -> Iterator[Comparison]:
    """Under `jit`, with coefficients that are known or not."""
    given, wanted, two = given_to(case, dtype), oracle(case, dtype), np.dtype(dtype).type(2)
    for kind, got in zip(kinds, _compile_and_run(case, dtype, kinds, two, given, known), strict=True):
        blocks = [_scaled(k, two) for k in seeded(case, kind, dtype)]
        yield from _pairs(f"{kind} blocks under jit", got, wanted(blocks, given))


def batched(case: Case, dtype: Any, kinds: Sequence[str] = UNKNOWN) -> Iterator[Comparison]:
    """Under `vmap`: blocks and coefficients have one more axis, nothing of them is known."""
    given, wanted, factors = given_to(case, dtype), oracle(case, dtype), np.array([1.0, -3.0]).astype(dtype)
    several = [[k * f if k.dtype.kind in "fc" else k for k in given] for f in factors]
    stacked = [np.stack(k) for k in zip(*several, strict=True)]
    tangents = _compile_and_run(case, dtype, kinds, factors, stacked, known=False)
    for kind, got in zip(kinds, tangents, strict=True):
        blocks = seeded(case, kind, dtype)
        for k, (factor, own) in enumerate(zip(factors, several, strict=True)):
            one = [_with_values(t, [b.vals[k] for b in t.blocks]) for t in got]
            yield from _pairs(f"{kind} blocks under vmap", one, wanted([_scaled(b, factor) for b in blocks], own))


def transposed(case: Case, dtype: Any) -> Iterator[Comparison]:
    """⟨w, J v⟩ = ⟨Jᵀ w, v⟩, J from the blocks that went forward, Jᵀ from those of the transposed program.

    JAX raises ValueError where it has no transpose.
    """
    given, rng = given_to(case, dtype), np.random.default_rng(1)
    x = [jnp.asarray(rng.normal(size=s), dtype) for s in case.shapes]

    def real(*a: Any) -> list[Any]:
        outs = jax.tree.leaves(case.g(*a, *given))
        return [part for o in outs for part in ((o.real, o.imag) if jnp.iscomplexobj(o) else (o,))]

    numbers = tuple(range(len(x)))
    forward = jacobian(real, argnums=numbers, order="forward")(*x)
    reverse = jacobian(real, argnums=numbers, order="reverse")(*x)
    coarse = np.result_type(min((o.dtype for o in real(*x)), key=lambda d: d.itemsize, default=np.dtype(dtype)))
    v, w = (rng.normal(size=size).astype(forward.dtype) for size in forward.shape[::-1])
    products = np.asarray(w @ np.asarray(forward @ v)), np.asarray(np.asarray(reverse.T @ w) @ v)
    yield Comparison("⟨w, J v⟩ and ⟨Jᵀ w, v⟩", products[1].astype(coarse), products[0].astype(coarse))
    whole = [np.asarray(J.dense()).astype(coarse) for J in (reverse, forward)]
    yield Comparison("the transposed program and the forward one", *whole)
