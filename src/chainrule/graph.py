"""Calculus on graphs: gradients along edges, Laplacians, Fourier bases and filters, on SciPy's sparse matrices.

A graph is its adjacency matrix A, (n, n): a sparse or dense array of SciPy or NumPy, symmetric, with the weight
w_ij ≥ 0 of the edge between i and j, 0 where there is none. Loops (i to i) carry no difference and are left out. Edges
are listed once, with i < j, in the order of i and then of j.

    gradient       (∇x)_e = √w_ij (x_j - x_i)               incidence(A) @ x
    divergence     (div y)_i = Σ √w y (out of i) - (into i) -incidence(A).T @ y
    Laplacian      L = D - A = incidence(A).T @ incidence(A), positive semi-definite: div ∇x = -L x
    energy         E(x) = Σ_edges w_ij (x_i - x_j)² = xᵀ L x

See Shuman, Narang, Frossard, Ortega and Vandergheynst, *The emerging field of signal processing on graphs* (2013).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.sparse
import scipy.sparse.csgraph
import scipy.sparse.linalg

from chainrule._errors import InputTypeError, ShapeError
from chainrule._memory import require_memory
from chainrule._options import require_count

_NODES = 1000  # of a graph, up to which a few frequencies are taken from all of them


def incidence(A: Any) -> scipy.sparse.csr_array:
    """The weighted incidence matrix B, (edges, n): the row of edge (i, j), i < j, has -√w_ij at i and +√w_ij at j.

    BᵀB = L, and B x is the gradient of x along the edges.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix.

    Returns
    -------
    scipy.sparse.csr_array (edges, n)

    Raises
    ------
    ShapeError
        Where A is not square.
    InputTypeError
        Where A is not symmetric, complex, not finite, or has a negative weight.

    Notes
    -----
    See Shuman et al. (2013), section II.

    Examples
    --------
    >>> import chainrule.graph
    >>> chainrule.graph.incidence([[0, 1, 0], [1, 0, 4], [0, 4, 0]]).toarray().tolist()
    [[-1.0, 1.0, 0.0], [0.0, -2.0, 2.0]]
    """
    i, j, w, n = _edges("incidence", A)
    rows, root = np.arange(len(w)), np.sqrt(w)
    both = (np.concatenate([-root, root]), (np.concatenate([rows, rows]), np.concatenate([i, j])))
    return scipy.sparse.csr_array(scipy.sparse.coo_array(both, shape=(len(w), n)))


def gradient(A: Any, x: Any) -> np.ndarray:
    """The gradient of a signal on the nodes: √w_ij (x_j - x_i) for each edge (i, j), i < j.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix.
    x : array (n,) or (n, channels)

    Returns
    -------
    array (edges,) or (edges, channels)

    Raises
    ------
    ShapeError
        Where x has not n rows; else as `incidence`.

    Examples
    --------
    >>> import chainrule.graph
    >>> chainrule.graph.gradient([[0, 1, 0], [1, 0, 4], [0, 4, 0]], [0.0, 3.0, 4.0]).tolist()
    [3.0, 2.0]
    """
    B = incidence(A)
    return B @ _signal("gradient", x, B.shape[1], "node")


def divergence(A: Any, y: Any) -> np.ndarray:
    """The divergence of a flow along the edges, -Bᵀ y: what flows out of each node less what flows in.

    A positive y_e flows from i to j, for the edge e = (i, j), i < j, and counts √w_ij y_e. It is minus the adjoint of
    the gradient, as in the continuum: ⟨∇x, y⟩ = -⟨x, div y⟩, and div ∇x = -L x.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix.
    y : array (edges,) or (edges, channels)
        In the order of `incidence`.

    Returns
    -------
    array (n,) or (n, channels)

    Raises
    ------
    ShapeError
        Where y has not a row for each edge; else as `incidence`.

    Examples
    --------
    >>> import chainrule.graph
    >>> chainrule.graph.divergence([[0, 1, 0], [1, 0, 4], [0, 4, 0]], [1.0, 0.0]).tolist()
    [1.0, -1.0, 0.0]
    """
    B = incidence(A)
    return B.T @ -_signal("divergence", y, B.shape[0], "edge")


def laplacian(A: Any, *, normalized: bool = False) -> scipy.sparse.csr_array:
    """The graph Laplacian L = D - A, (n, n) and positive semi-definite, with the degrees D_ii = Σ_j w_ij.

    (L x)_i = Σ_j w_ij (x_i - x_j): minus what a discretized Δx is, positive where x_i is above its neighbours.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix; weights of both signs will do here, unless `normalized`.
    normalized : bool
        D^(-1/2) L D^(-1/2), whose eigenvalues lie from 0 to 2; a node without edges has a row of zeros.

    Returns
    -------
    scipy.sparse.csr_array (n, n)

    Raises
    ------
    ShapeError, InputTypeError
        As `incidence`.

    Notes
    -----
    By `scipy.sparse.csgraph.laplacian`. See Chung, *Spectral Graph Theory* (1997), section 1.2.

    Examples
    --------
    >>> import chainrule.graph
    >>> chainrule.graph.laplacian([[0, 1, 0], [1, 0, 4], [0, 4, 0]]).toarray().tolist()
    [[1.0, -1.0, 0.0], [-1.0, 5.0, -4.0], [0.0, -4.0, 4.0]]
    """
    return _laplacian("laplacian", A, normalized, signed=not normalized)


def fourier_basis(A: Any, k: int | None = None, *, normalized: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The eigenvalues and eigenvectors of the Laplacian, the smallest first: frequencies and modes of the graph.

    With (λ, U), L = U diag(λ) Uᵀ; Uᵀ x is the Fourier transform of x, and U its inverse. The signs of the modes, and
    a basis among equal frequencies, are arbitrary.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix.
    k : int, optional
        How many, the smallest; all n unless given.
    normalized : bool
        As for `laplacian`.

    Returns
    -------
    array (k,), array (n, k)
        λ in ascending order, and the modes as orthonormal columns.

    Raises
    ------
    ShapeError, InputTypeError
        As `incidence`; or where k is no number from 1 to n.
    MemoryLimitError
        Where all n modes would not fit: give k.

    Notes
    -----
    By `scipy.linalg.eigh`; a few modes of a large graph by `scipy.sparse.linalg.eigsh` with the inverse of a shifted L.
    See Shuman et al. (2013), section II.

    Examples
    --------
    >>> import chainrule.graph
    >>> frequencies, modes = chainrule.graph.fourier_basis([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> frequencies.round(6).tolist(), modes.shape
    ([0.0, 1.0, 3.0], (3, 3))
    """
    L = _laplacian("fourier_basis", A, normalized)
    n = L.shape[0]
    if k is not None and not (isinstance(k, (int, np.integer)) and 0 < k <= n):
        raise InputTypeError(f"fourier_basis: k={k!r} is no whole number from 1 to the {n} nodes")
    if k is not None and n > _NODES and 2 * k < n:
        shift = -1e-2 * max(L.diagonal().mean(), np.finfo(float).tiny)  # L itself is singular
        start = np.random.default_rng(0).normal(size=n)  # SciPy's own would be another at every call
        found, modes = scipy.sparse.linalg.eigsh(L.tocsc(), k, sigma=shift, which="LM", v0=start)
        order = np.argsort(found)
        return np.maximum(found[order], 0), modes[:, order]
    require_memory("fourier_basis: all modes", (n, n), 8, "Give k for the slowest few.")
    found, modes = scipy.linalg.eigh(L.toarray(), subset_by_index=None if k is None else [0, k - 1])
    return np.maximum(found, 0), modes


def spectral_filter(
    A: Any,
    x: Any,
    h: Callable[[Any], Any],
    *,
    degree: int | None = None,
    normalized: bool = False,
) -> np.ndarray:
    """Apply a function of the frequency to a signal: h(L) x = U h(λ) Uᵀ x.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix.
    x : array (n,) or (n, channels)
    h : callable
        h(λ) of an array of frequencies, elementwise: `lambda λ: np.exp(-t * λ)` is heat after the time t.
    degree : int, optional
        Take the Chebyshev polynomial of this degree that interpolates h on [0, λ_max] in place of h: `degree` products
        with L, and no basis. Exact where h is a polynomial of that degree; for a smooth h its error falls fast.
    normalized : bool
        As for `laplacian`.

    Returns
    -------
    array (n,) or (n, channels)

    Raises
    ------
    ShapeError
        Where x has not n rows; else as `incidence`.
    MemoryLimitError
        Where the basis would not fit: give a degree.

    Notes
    -----
    λ_max is at most the largest sum of the degrees at the ends of an edge, and at most 2 for the normalized L. See
    Hammond, Vandergheynst and Gribonval, *Wavelets on graphs via spectral graph theory* (2011), section 6.

    Examples
    --------
    >>> import chainrule.graph
    >>> A = [[0, 1, 0], [1, 0, 4], [0, 4, 0]]
    >>> chainrule.graph.spectral_filter(A, [1.0, 2.0, 4.0], lambda s: s).round(6).tolist()  # L x
    [-1.0, -7.0, 8.0]
    """
    L = _laplacian("spectral_filter", A, normalized)
    x = _signal("spectral_filter", x, L.shape[0], "node")
    if degree is None:
        frequencies, modes = fourier_basis(A, normalized=normalized)
        gains = np.broadcast_to(np.asarray(h(frequencies)), frequencies.shape)
        return modes @ (gains.reshape(-1, *[1] * (x.ndim - 1)) * (modes.T @ x))
    require_count("spectral_filter", "degree", degree, 0)
    return _chebyshev(L, x, h, int(degree), 2.0 if normalized else _largest(L))


def _largest(L: Any) -> float:
    """A bound of the largest eigenvalue (Anderson and Morley 1985)."""
    degrees, (i, j) = L.diagonal(), L.nonzero()
    return float(np.max(degrees[i] + degrees[j], where=i != j, initial=0.0))


def _chebyshev(L: Any, x: Any, h: Callable[[Any], Any], degree: int, largest: float) -> Any:
    half = largest / 2 or 1.0
    stretched: Any = lambda s: np.broadcast_to(h(half * (s + 1)), s.shape)  # noqa: E731
    c = np.polynomial.chebyshev.chebinterpolate(stretched, degree)
    before, own = x, L @ x / half - x
    out = c[0] * before
    for k in range(1, degree + 1):
        out = out + c[k] * own
        before, own = own, 2 * (L @ own / half - own) - before
    return out


def energy(A: Any) -> Callable[[Any], Any]:
    """The Dirichlet energy of a signal as a JAX function: E(x) = Σ_edges w_ij (x_i - x_j)² = xᵀ L x.

    Its gradient is 2 L x, and its Hessian 2 L comes out as sparse as the graph.

    Parameters
    ----------
    A : sparse or dense array (n, n)
        The adjacency matrix; weights of both signs will do.

    Returns
    -------
    callable
        E of an array x (n,), or (n, channels) whose energies are added: one number.

    Raises
    ------
    ShapeError, InputTypeError
        As `incidence`; the function raises ShapeError where x has not n rows.

    Notes
    -----
    See Shuman et al. (2013), section II.

    Examples
    --------
    >>> import chainrule as cr, chainrule.graph, jax.numpy as jnp
    >>> E = chainrule.graph.energy([[0, 1, 0], [1, 0, 4], [0, 4, 0]])
    >>> E(jnp.array([0.0, 3.0, 4.0])).item()
    13.0
    >>> H = cr.hessian(E)(jnp.zeros(3))
    >>> H.dense().tolist(), H.nnz
    ([[2.0, -2.0, 0.0], [-2.0, 10.0, -8.0], [0.0, -8.0, 8.0]], 7)
    """
    i, j, w, n = _edges("energy", A, signed=True)

    def dirichlet_energy(x: Any) -> Any:
        x = jnp.asarray(x)
        if jnp.iscomplexobj(x):
            raise InputTypeError("energy: x is complex; its energy is that of the real part and of the imaginary part")
        x = x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(float)  # or weights would be cut
        _require_rows("energy", x.shape, n, "node")
        weights = jnp.asarray(w, x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return (weights * (x[i] - x[j]) ** 2).sum()

    return dirichlet_energy


# what they share -------------------------------------------------------------------------------------


def _adjacency(what: str, A: Any) -> scipy.sparse.csr_array:
    """A in float64, without loops."""
    try:
        own = scipy.sparse.csr_array(A)
    except (TypeError, ValueError) as error:
        raise InputTypeError(f"{what}: A is no matrix of numbers: {error}") from error
    if own.ndim != 2 or own.shape[0] != own.shape[1]:
        raise ShapeError(f"{what}: A has the shape {own.shape}; an adjacency matrix is square, a row for each node")
    bad = own.data[~np.isfinite(own.data)][:1] if own.dtype.kind in "biuf" else own.dtype
    if isinstance(bad, np.dtype) or bad.size:
        raise InputTypeError(f"{what}: A holds {bad}; an adjacency matrix has real, finite weights")
    own = own.astype(float)
    own.sum_duplicates()
    if (own != own.T).nnz:
        raise InputTypeError(f"{what}: A is not symmetric; edges have no direction here: give (A + A.T) / 2")
    own = scipy.sparse.csr_array(own - scipy.sparse.diags_array(own.diagonal()))
    own.eliminate_zeros()
    own.sort_indices()
    return own


def _laplacian(what: str, A: Any, normalized: bool, signed: bool = False) -> scipy.sparse.csr_array:
    own = _adjacency(what, A)
    if not signed:
        _require_weights(what, own.data)
    return scipy.sparse.csr_array(scipy.sparse.csgraph.laplacian(own, normed=normalized))


def _edges(what: str, A: Any, signed: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(i, j, w, n) with i < j, row by row."""
    own = _adjacency(what, A)
    upper = scipy.sparse.triu(own, 1, format="coo")
    if not signed:
        _require_weights(what, upper.data)
    order = np.lexsort((upper.col, upper.row))
    return upper.row[order], upper.col[order], upper.data[order], own.shape[0]


def _require_weights(what: str, weights: np.ndarray) -> None:
    if (weights < 0).any():
        raise InputTypeError(f"{what}: A has a negative weight, {weights.min():g}, which has no root; see energy")


def _signal(what: str, x: Any, count: int, of: Literal["node", "edge"]) -> np.ndarray:
    if isinstance(x, jax.core.Tracer):
        raise InputTypeError(f"{what}: it works on NumPy's arrays, outside of jit, vmap and grad; see energy")
    x = np.asarray(x)
    _require_rows(what, x.shape, count, of)
    return x


def _require_rows(what: str, shape: tuple[int, ...], count: int, of: str) -> None:
    if len(shape) not in (1, 2) or shape[0] != count:
        raise ShapeError(f"{what}: a signal has a row for each {of}, ({count},) or ({count}, channels), got {shape}")
