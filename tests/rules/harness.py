"""A rule against its primitive: the oracle is the primitive on every dense column; no formula is written twice."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rules.cases import Case

from chainrule._block import Block
from chainrule._program import Coefficient, Tangent
from chainrule._propagate import require_tangent, sweep

N = 7  # number of inputs that the seeds speak of

Blocks = Sequence[Block]


def seeds(shape: tuple[int, ...], dtype: Any, rng: np.random.Generator) -> dict[str, list[Block]]:
    """Sums of blocks of every kind, for an operand of this shape; NumPy values are known while tracing."""
    dtype, size, ones = np.dtype(dtype), int(np.prod(shape)), (1,) * len(shape)

    def cols(*parts: int) -> np.ndarray:
        return rng.integers(-1, N, size=parts).astype(np.int32)

    def known(*parts: int) -> np.ndarray:
        real = rng.normal(size=parts)
        return np.asarray(real + 1j * rng.normal(size=parts) if dtype.kind == "c" else real, dtype)

    def vals(*parts: int) -> jax.Array:
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


KINDS = list(seeds((2,), np.float64, np.random.default_rng(0)))


def seeded(case: Case, kind: str, dtype: Any) -> list[list[Block]]:
    """The blocks of every operand of the case."""
    rng = np.random.default_rng(len(kind))
    return [seeds(shape, dtype, rng).get(kind, []) for shape in case.shapes]


def coefficients(case: Case, dtype: Any) -> list[np.ndarray]:
    """The case's coefficients: the numbers in the operands' dtype, positions and masks as they are."""
    return [np.asarray(k, dtype if np.asarray(k).dtype.kind == "f" else None) for k in case.coefficients]


def propagate(case: Case, seeds: Sequence[Blocks], dtype: Any, given: Sequence[Any]) -> list[Tangent]:
    """The tangents of the function's results."""
    shapes = [jax.ShapeDtypeStruct(s, dtype) for s in case.shapes]
    closed, outs = jax.make_jaxpr(case.g, return_shape=True)(*shapes, *given)
    tangents = [
        Tangent(s, np.dtype(dtype), () if 0 in s else tuple(k)) for s, k in zip(case.shapes, seeds, strict=True)
    ]
    values, _ = sweep(closed.jaxpr, closed.consts, [*tangents, *[Coefficient(k) for k in given]])
    return [require_tangent(v, o.shape, o.dtype) for v, o in zip(values, jax.tree.leaves(outs), strict=True)]


def dense(tangent: Tangent) -> np.ndarray:
    """[*shape, N]: a sum of blocks written out."""
    out = np.zeros((int(np.prod(tangent.shape)), N), tangent.dtype)
    for b in tangent.blocks:
        rows = np.arange(int(np.prod(b.shape))) if b.rows is None else b.rows.reshape(-1)
        cols, vals = (np.broadcast_to(a, (*b.shape, b.slots)).reshape(-1, b.slots) for a in (b.cols, b.vals))
        assert vals.dtype == tangent.dtype
        line, present = np.broadcast_to(rows[:, None], cols.shape), cols >= 0
        np.add.at(out, (line[present], cols[present]), vals[present])
    return out.reshape((*tangent.shape, N))


def oracle(case: Case, dtype: Any) -> Callable[..., list[Any]]:
    """The function itself on every dense column: (seeds, coefficients) -> [*shape, N] of every result."""
    apply = jax.jit(jax.vmap(case.g, in_axes=[-1] * len(case.shapes) + [None] * len(case.coefficients), out_axes=-1))

    def on_columns(seeds: Sequence[Blocks], given: Sequence[Any]) -> list[Any]:
        columns = [dense(Tangent(s, np.dtype(dtype), tuple(k))) for s, k in zip(case.shapes, seeds, strict=True)]
        return jax.tree.leaves(apply(*columns, *given))

    return on_columns


def compare(case: Case, dtype: Any = np.float64, kinds: Sequence[str] = KINDS) -> None:
    """Assert that propagation gives what the primitive gives, for some kinds of blocks."""
    given, wanted = coefficients(case, dtype), oracle(case, dtype)
    for kind in kinds:
        blocks = seeded(case, kind, dtype)
        check(propagate(case, blocks, dtype, given), wanted(blocks, given), kind)


def compile_and_run(
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
            blocks = [scaled(k, factor) for k in seeded(case, kind, dtype)]
            seen.append(propagate(case, blocks, dtype, given if known else coefficients))
        return [[[jnp.asarray(b.vals) for b in t.blocks] for t in tangents] for tangents in seen]

    values = jax.jit(run if np.ndim(factors) == 0 else jax.vmap(run))(factors, [] if known else given)
    return [[with_values(t, v) for t, v in zip(*both, strict=True)] for both in zip(seen, values, strict=True)]


def scaled(blocks: Blocks, factor: Any) -> list[Block]:
    return [b.with_vals(jnp.asarray(b.vals) * factor) for b in blocks]


def with_values(tangent: Tangent, values: Sequence[Any]) -> Tangent:
    blocks = [b.with_vals(np.asarray(v)) for b, v in zip(tangent.blocks, values, strict=True)]
    return Tangent(tangent.shape, tangent.dtype, tuple(blocks))


def check(got: Sequence[Tangent], wanted: Sequence[Any], kind: str) -> None:
    for tangent, w in zip(got, wanted, strict=True):
        assert (*tangent.shape, N) == w.shape and tangent.dtype == w.dtype, kind
        close(dense(tangent), np.asarray(w), kind)


def close(got: np.ndarray, wanted: np.ndarray, kind: str) -> None:
    tolerance = 200 * np.finfo(wanted.dtype).eps
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=kind)
