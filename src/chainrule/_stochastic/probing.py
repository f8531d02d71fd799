"""Random probes of a linear map: its trace and its diagonal from products alone, with a standard error.

Every estimator averages samples, one for each probe, that all have what is wanted for their expectation. The subspaces
that Hutch++ and XTrace split off are held fixed under differentiation: an estimate is then linear in the map, so its
derivative is the same estimate, unbiased too, of the derivative of the map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chainrule._linalg.host import working
from chainrule._space import shown

Product = Callable[[Any], Any]  # [k, n] -> [k, n], every row by itself


@jax.tree_util.register_dataclass
@dataclass(frozen=True, repr=False)
class Estimate:
    """A number, or an array of them, with the standard error that chance gives it.

    Attributes
    ----------
    value : what was asked for. standard_error : like `value`; 0 where it is exact, inf where a single sample tells
    nothing of its error; it has no derivative. probes : random vectors that were drawn, products that were spent on a
    trace or a diagonal, or samples of an expectation; 0 where it is exact. method : 'exact' or the name of the
    estimator. exact : whether chance has no part in it. reason : why this way was taken, and what the ways cost.

    It is a pytree of `value` and `standard_error`, so it passes through `jit`, `vmap` and `grad`.

    Examples
    --------
    >>> import chainrule as cr, jax.numpy as jnp
    >>> cr.trace_estimate(jnp.sin)(jnp.zeros(3))
    Estimate 3.0 · exact: J is diagonal and takes 6 multiply-adds, 32 products 96
    """

    value: Any
    standard_error: Any
    probes: int = field(metadata={"static": True})
    method: str = field(metadata={"static": True})
    exact: bool = field(metadata={"static": True})
    reason: str = field(metadata={"static": True})

    def __repr__(self) -> str:
        error = "" if self.exact else f" ± {shown(self.standard_error)}"
        how = self.method if self.exact else f"{self.method}, {self.probes:,} probes"
        return f"Estimate {shown(self.value)}{error} · {how}" + (f": {self.reason}" if self.reason else "")


def averaged(samples: Any) -> tuple[Any, Any]:
    """[k, ...] -> the mean and its standard error, the latter without derivative."""
    k, fixed = len(samples), jax.lax.stop_gradient(samples)
    mean = samples.mean(0)
    return mean, fixed.std(0, ddof=1) / k**0.5 if k > 1 else jnp.full_like(fixed[0], jnp.inf)


def drawn(key: Any, shape: tuple[int, ...], dtype: Any, distribution: str) -> Any:
    """Probes ε with E[ε εᵀ] = I."""
    draw = jax.random.rademacher if distribution == "rademacher" else jax.random.normal
    return draw(key, shape, dtype)


def drawn_like(key: Any, x: Any, distribution: str) -> Any:
    """A probe that is a pytree like x."""
    leaves, tree = jax.tree.flatten(x)
    keys = jax.random.split(key, len(leaves))
    own = [drawn(k, jnp.shape(v), v.dtype, distribution) for k, v in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, own)


def trace(method: str, push: Product, key: Any, n: int, probes: int, distribution: str, dtype: Any) -> tuple[Any, Any]:
    """An estimate of tr A and its standard error, from `probes` products in all."""
    if method == "hutchinson":
        x = drawn(key, (probes, n), dtype, distribution)
        return averaged((x * push(x)).sum(1))
    if method == "hutch++":
        sketch, x = _parts(key, n, probes, distribution, dtype)
        Q = _basis(push(sketch))[0]
        rest = x - (x @ Q.T) @ Q
        return averaged((Q * push(Q)).sum() + (rest * push(rest)).sum(1))
    if probes // 2 >= n:
        return _certain(jnp.trace(push(jnp.eye(n, dtype=dtype))))
    return _xtrace(push, drawn(key, (probes // 2, n), dtype, distribution), distribution == "normal")


def diagonal(
    method: str, push: Product, pull: Product, key: Any, n: int, probes: int, distribution: str, dtype: Any
) -> tuple[Any, Any]:
    """An estimate of the diagonal of A [n] and its standard errors, from `probes` products in all; `pull`: with Aᵀ."""
    if method == "hutchinson":
        x = drawn(key, (probes, n), dtype, distribution)
        return averaged(x * push(x))
    if method == "hutch++":
        sketch, x = _parts(key, n, probes, distribution, dtype)
        Q = _basis(push(sketch))[0]
        y = push(x)
        return averaged((Q * pull(Q)).sum(0, keepdims=True) + x * (y - (y @ Q.T) @ Q))
    if probes // 2 >= n:
        return _certain(jnp.diagonal(push(jnp.eye(n, dtype=dtype))))
    return _xdiag(push, pull, drawn(key, (probes // 2, n), dtype, distribution))


def _certain(value: Any) -> tuple[Any, Any]:
    """What products with all unit vectors give: no more of them tell more, and chance has no part in it."""
    return value, jnp.zeros_like(jax.lax.stop_gradient(value))


def _parts(key: Any, n: int, probes: int, distribution: str, dtype: Any) -> tuple[Any, Any]:
    """A third of the probes for the sketch, whose image takes a third of the products too, and those that are left."""
    k = min(probes // 3, n)
    x = drawn(key, (probes - k, n), dtype, distribution)
    return x[:k], x[k:]


def _basis(Y: Any) -> tuple[Any, Any]:
    """Rows y_i [k, n] -> an orthonormal basis Q [k, n] of their span, and S [k, k]: what it loses without each of them.

    The span of all rows but y_i is that of the rows of Q without the direction s_i = S[i] (in coordinates of Q). Where
    the rows are dependent some of Q are 0; s_i is 0 where the others span y_i as well. No derivatives.
    """
    dtype = Y.dtype
    Y = jax.lax.stop_gradient(Y).astype(working(dtype))
    eps = float(jnp.finfo(Y.dtype).eps)
    U, sizes, Vh = jnp.linalg.svd(Y.T, full_matrices=False)  # [n, r], [r], [r, i]
    kept = sizes > max(Y.shape) * eps * sizes[0]
    inverse = jnp.where(kept, sizes[0] / jnp.where(kept, sizes, 1), 0)  # scaled: sizes may be as small as numbers are
    alone = jnp.where(kept[:, None], Vh**2, 0).sum(0) > 1 - eps**0.5  # is y_i no combination of the others?
    S = (inverse[:, None] * Vh).T
    length = jnp.linalg.norm(S, axis=1, keepdims=True)
    S = jnp.where(alone[:, None] & (length > 0), S / jnp.where(length > 0, length, 1), 0)
    return jnp.where(kept, U, 0).T.astype(dtype), S.astype(dtype)


def _without(S: Any, W: Any) -> Any:
    """Rows W [k, r] without their parts along the rows of S."""
    return W - S * (S * W).sum(1, keepdims=True)


def _left_out(samples: Callable[[Any], Any], k: int) -> tuple[Any, Any]:
    """The mean of samples [k, ...] that share their probes, and its standard error by the jackknife.

    samples : from the numbers of some probes to what these alone give. Samples that share probes are correlated, so
    their own spread would say too little; that of the means without each probe says enough (Efron and Stein 1981, *Ann.
    Stat.* 9).
    """
    value = samples(np.arange(k)).mean(0)
    if k == 1:
        return value, jnp.full_like(jax.lax.stop_gradient(value), jnp.inf)
    others = np.stack([np.delete(np.arange(k), j) for j in range(k)])
    means = jax.lax.stop_gradient(jax.lax.map(lambda rows: samples(rows).mean(0), others))
    return value, means.std(0) * (k - 1) ** 0.5


def _xtrace(push: Product, x: Any, resphered: bool) -> tuple[Any, Any]:
    """Sample i is exact on the span Q_i of the images of all other probes, and takes probe i for what is left of A.

    tr(Q_iᵀ A Q_i) + gᵀ A g, g = (I - Q_i Q_iᵀ) ω_i. The direction of a normal g is uniform, whatever its length: it is
    given the one that makes the estimate exact for multiples of the identity. All of it is found from k×k numbers.
    """
    Y = push(x)
    Q = _basis(Y)[0]
    Z = push(Q)
    R, W, V, H = Y @ Q.T, x @ Q.T, x @ Z.T, Q @ Z.T
    own, size = (x * Y).sum(1), (x * x).sum(1)

    def samples(rows: Any) -> Any:
        B, S = _basis(R[rows])  # in coordinates of Q
        C = _without(S, W[rows] @ B.T) @ B
        found = own[rows] - ((R[rows] + V[rows]) * C).sum(1) + ((C @ H) * C).sum(1)
        if resphered:
            left = (x.shape[1] - (B**2).sum() + (S**2).sum(1)).round()  # dimensions
            length = size[rows] - (C**2).sum(1)
            found = found * jnp.where(left > 0, left / jnp.where(left > 0, length, 1), 0)
        lost = S @ B
        return jnp.trace(B @ H @ B.T) - ((lost @ H) * lost).sum(1) + found

    return _left_out(samples, len(x))


def _xdiag(push: Product, pull: Product, x: Any) -> tuple[Any, Any]:
    """As `_xtrace`: diag(Q_i Q_iᵀ A) + ω_i ∘ (I - Q_i Q_iᵀ) A ω_i."""
    Y = push(x)
    Q = _basis(Y)[0]
    Z, R = pull(Q), Y @ Q.T

    def samples(rows: Any) -> Any:
        B, S = _basis(R[rows])
        lost = S @ B
        known = ((B @ Q) * (B @ Z)).sum(0, keepdims=True) - (lost @ Q) * (lost @ Z)
        return known + x[rows] * (Y[rows] - _without(S, R[rows] @ B.T) @ B @ Q)

    return _left_out(samples, len(x))
