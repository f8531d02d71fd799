"""The remainder f(x + h) − f(x) − J h over a ladder of ‖h‖: how fast it goes to 0, direction by direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WHOLE = 2048  # outputs that are looked at one by one; of more, those that stand out on the ladder
_SIGNIFICANT = 10.0  # times the rounding level
_FITTED = 6  # points of a ladder that give its order
_LAW = 0.12  # by which, in logarithms, points may miss the law that they follow
_BATCH = 2**22  # numbers at once
_FEW = 16  # inputs whose coordinate directions are all tried


class Tolerance(NamedTuple):
    """What a dtype can show: its rounding, and the relative error of a derivative that is let pass."""

    eps: float
    relative: float

    @classmethod
    def of(cls, dtype: Any) -> Tolerance:
        eps = float(jnp.finfo(dtype).eps)
        return cls(eps, 1e-6 if eps < 1e-12 else 2e-3 if eps < 1e-5 else 0.1)


class Directions(NamedTuple):
    """Paths h(t) = t·first + t²·second through x; `kinds` are 'random', 'curved', or the number of a coordinate."""

    kinds: tuple[str | int, ...]
    first: np.ndarray
    second: np.ndarray


class Ladders(NamedTuple):
    """remainders : [steps, directions, 2 sides, outputs], signed, NaN where f(x + h) is not finite.

    lengths : of h, relative to x. slopes : J d, [directions, outputs]. outputs : which ones. base : f(x), all of it.
    """

    lengths: np.ndarray
    remainders: np.ndarray
    slopes: np.ndarray
    outputs: np.ndarray
    base: np.ndarray
    noise: np.ndarray
    scale: np.ndarray


def scales_of(x: np.ndarray, sizes: list[int]) -> np.ndarray:
    """The size of a step in each input: its own, but not far below that of the leaf it stands in, and 1 for 0."""
    parts = []
    for leaf in np.split(x, np.cumsum(sizes)[:-1]):
        leaf = np.asarray(leaf, float)  # a size that the dtype of x holds, too
        typical = size_of(leaf) / np.sqrt(leaf.size or 1)
        parts.append(np.maximum(np.abs(leaf), 0.1 * (typical or 1.0)) if typical else np.ones(leaf.shape))
    return np.concatenate(parts) if parts else np.zeros(0)


def directions_of(scale: np.ndarray, pointed: list[int], random: int, seed: int) -> Directions:
    """Random directions, coordinates (all of few; of many a sample, and those that a switch points at), curves."""
    n, rng = len(scale), np.random.default_rng(seed)
    large = n > 100_000
    drawn = [int(j) for j in rng.choice(n, size=2 if large else 6, replace=False)] if n > _FEW else list(range(n))
    chosen = list(dict.fromkeys([*pointed, *drawn]))
    count = 3 if large else random
    kinds: list[str | int] = ["random"] * count
    first = [*(rng.normal(size=(count, n)) * scale)]
    first[2] = first[0] + first[1]  # shows whether the slopes of f add up
    second = [np.zeros(n) for _ in range(count + len(chosen))]
    for j in chosen:
        kinds.append(j)
        first.append(scale * (np.arange(n) == j))
    for j in chosen[: 1 if large else 3] if n > 1 else []:
        kinds.append("curved")
        first.append(scale * (np.arange(n) == j))
        second.append(rng.normal(size=n) * scale)
    return Directions(tuple(kinds), np.array(first).reshape(-1, n), np.array(second).reshape(-1, n))


def ladder(eps: float, size: int) -> np.ndarray:
    """The lengths from the largest to the smallest: two a decade, one where f is large."""
    ratio, least = (10.0 if size > 200_000 else 10**0.5), eps**0.62
    return 0.1 * ratio ** -np.arange(int(np.log(0.1 / least) / np.log(ratio)) + 1.0)


def climb(
    f: Callable[[Any], Any], slope: Callable[[Any, Any], Any], x: Any, directions: Directions, noise: np.ndarray,
    widest: int, tol: Tolerance, batched: bool,
) -> Ladders:  # fmt: skip
    """Run the ladder in every direction, both ways; `widest` is the size of the largest array of f."""
    m = len(noise)
    ts = ladder(tol.eps, max(x.size, m))
    count = max(1, min(256, _BATCH // max(widest, 1))) if batched else None
    first, second = (jnp.asarray(d, x.dtype) for d in directions[1:])
    rows = np.array([(i, s, k) for k in range(len(ts)) for i in range(len(first)) for s in (1, -1)]).reshape(-1, 3)
    given = (x, first, second, jnp.asarray(ts, x.dtype), jnp.asarray(rows))

    def run(pick: Callable[..., Any], *more: Any) -> list[np.ndarray]:
        program = compiled(lambda *a: _remainders(f, slope, pick, count, *a), max(widest, m))
        return [np.asarray(a) for a in program(*given, *more)]

    def standing_out(r: Any, t: Any, scale: Any, level: Any) -> Any:
        return jnp.argmax(jnp.abs(jnp.nan_to_num(r)) / (level + tol.relative * t * scale + 1e-290))

    outputs = np.arange(m)
    if m > WHOLE:
        picked, *_ = run(standing_out, jnp.asarray(_SIGNIFICANT * noise))
        outputs = np.unique(picked)[:WHOLE]
        found, slopes, base = run(lambda r, t, scale, where: r[where], jnp.asarray(outputs))
    else:
        found, slopes, base = run(lambda r, t, scale: r)
    scale = np.abs(slopes).max(0)
    shape = (len(ts), len(first), 2, len(outputs))
    return Ladders(ts, found.reshape(shape), slopes[:, outputs], outputs, base, noise[outputs], scale[outputs])


def compiled(run: Callable[..., Any], size: int) -> Callable[..., Any]:
    """Compiled in haste where it is small and runs once: compiling would take longer than all else."""
    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0} if size <= 10_000 else None)


def size_of(array: np.ndarray) -> float:
    """The norm, also where squares overflow."""
    largest = float(np.abs(array).max(initial=0.0))
    return largest * float(np.linalg.norm(array / largest)) if largest and np.isfinite(largest) else largest


def in_chunks(run: Any, rows: Any, count: int | None) -> Any:
    """A function of each row, so many at once; one by one for None."""
    if count is None:
        return lax.map(run, rows)
    if len(rows) <= count:
        return jax.vmap(run)(rows)
    chunks = -(-len(rows) // count)
    # a last chunk of its own size would be compiled apart: fill it with what is there
    filled = jnp.concatenate([rows, rows[: chunks * count - len(rows)]])
    found = lax.map(jax.vmap(run), filled.reshape((chunks, count, *rows.shape[1:])))
    return found.reshape((chunks * count, *found.shape[2:]))[: len(rows)]


def _remainders(
    f: Any, slope: Any, pick: Any, count: int | None,
    x: Any, first: Any, second: Any, ts: Any, rows: Any, *more: Any,
) -> Any:  # fmt: skip
    """One row for each (direction, side, length); with J d of every direction, and f(x)."""
    slopes, bends = jnp.split(in_chunks(lambda d: slope(x, d), jnp.concatenate([first, second]), count), 2)
    base, scale = f(x), jnp.abs(slopes).max(0)

    def one(row: Any) -> Any:
        i, t = row[0], row[1] * ts[row[2]]
        value = f(x + t * first[i] + t * t * second[i])
        return pick(value - base - t * slopes[i] - t * t * bends[i], jnp.abs(t), scale, *more)

    return in_chunks(one, rows, count), slopes, base


class Orders(NamedTuple):
    """Of every (direction, side, output): the fitted order (inf: no remainder), and where the fit begins."""

    order: np.ndarray
    lowest: np.ndarray


def orders_of(ladders: Ladders, tol: Tolerance) -> Orders:
    """Fit the order to the lowest points above the noise.

    A point counts that stands above the rounding level and above what an error of the derivative within the tolerance
    would leave. Where the law that was fitted should still be seen below the lowest of them, and is not, the remainder
    ends there: what makes it is a switch at a distance. Points that follow no law and are small are rounding after all.
    """
    ts = ladders.lengths[::-1, None, None, None]
    rounding = _SIGNIFICANT * (ladders.noise + tol.eps * ts * ladders.scale) + 1e-290
    level = rounding + ts * tol.relative * ladders.scale
    signed = ladders.remainders[::-1]  # from the smallest length on
    order, lowest, erratic = _fit(signed, ts, level)
    again = _fit(signed, ts, 30 * level)
    order, lowest = np.where(erratic, again[0], order), np.where(erratic, again[1], lowest)
    small = at_step(np.abs(signed), lowest) < 1e4 * at_step(np.broadcast_to(rounding, signed.shape), lowest)
    return Orders(np.where(erratic & again[2] & small, np.inf, order), len(ts) - 1 - lowest)


def _fit(signed: np.ndarray, ts: np.ndarray, level: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The order, the lowest point that was seen, and whether the points follow no law."""
    size, level = np.abs(signed), np.broadcast_to(level, signed.shape)
    seen = np.isfinite(size) & (size > level)
    # the remainder of a ball, not of a sphere: one that oscillates is no smaller where it passes 0
    envelope = np.maximum.accumulate(np.where(seen, size, 0), axis=0)
    rank = np.cumsum(seen, axis=0) * seen
    fitted = (rank > 0) & (rank <= _FITTED)
    count = fitted.sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        a = np.where(fitted, np.log(ts), 0.0)
        b = np.where(fitted, np.log(np.where(fitted, envelope, 1.0)), 0.0)
        da, db = (np.where(fitted, v - v.sum(0) / np.maximum(count, 1), 0.0) for v in (a, b))
        order = (da * db).sum(0) / (da * da).sum(0)
        off = np.sqrt(((db - order * da) ** 2).sum(0) / np.maximum(count, 1))
    turns = fitted & (np.sign(signed) != np.sign(at_step(signed, np.argmax(seen, axis=0))))
    lowest = np.argmax(seen, axis=0)
    before = np.maximum(lowest - 1, 0)
    lengths = ts[:, 0, 0, 0]
    law = np.where(np.isfinite(order), order, 2.0)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = at_step(size, lowest) * (lengths[before] / lengths[lowest]) ** law
    ends = (lowest > 0) & np.isfinite(at_step(size, before)) & (expected > 3 * at_step(level, before))
    order = np.where((count < 3) | ends | ~np.isfinite(order), np.inf, order)
    return order, lowest, turns.any(0) | (off > _LAW)


def at_step(values: np.ndarray, k: np.ndarray) -> np.ndarray:
    """[steps, ...] -> [...]: the value at a step of its own for each."""
    return np.take_along_axis(values, k[None], axis=0)[0]


def lost_sides(ladders: Ladders) -> np.ndarray:
    """[directions, 2]: whether f is not finite however near, on this side."""
    low = ladders.remainders[-3:]
    return ~np.isfinite(low).all(axis=(0, 3))
