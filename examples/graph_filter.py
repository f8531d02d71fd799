"""Frequencies of a graph
======================

The energy of a signal on a graph, the sum of its squared differences along the edges, has the Hessian 2 L: the
graph's Laplacian, exactly as sparse as the graph. Its eigenvectors are the graph's modes, from smooth to rough. A
filter of the frequencies takes the noise from a signal, with a few products with L and no basis.

Run it: ``python examples/graph_filter.py``
"""

import jax
import numpy as np
import scipy.sparse
import scipy.spatial

import chainrule as cr
import chainrule.graph

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(1)
points = rng.uniform(size=(700, 2)) * [2, 1]
points = points[((points - [0.6, 0.5]) ** 2).sum(1) > 0.05]  # a plate with a hole
triangles = scipy.spatial.Delaunay(points).simplices
i, j = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).T
short = np.hypot(*(points[i] - points[j]).T) < 0.2
A = scipy.sparse.coo_array((np.ones(short.sum()), (i[short], j[short])), shape=(len(points),) * 2)
A = ((A + A.T) > 0).astype(float).tocsr()
clean = np.sin(3 * points[:, 0]) * np.cos(3 * points[:, 1])
noisy = clean + 0.5 * rng.normal(size=len(points))


def main():
    """The Hessian of the energy, the first frequencies, and the error before and after the filter."""
    L, H = chainrule.graph.laplacian(A), cr.hessian(chainrule.graph.energy(A))(clean)
    difference = abs(H.scipy() - 2 * L).max()
    print(f"{A.nnz // 2} edges; Hessian {H}; largest difference from 2 L: {difference:.1e}")
    frequencies, modes = chainrule.graph.fourier_basis(A, 8)
    print("frequencies", np.round(frequencies, 4))
    filtered = chainrule.graph.spectral_filter(A, noisy, lambda f: np.exp(-3 * f), degree=60)
    before, after = (float(np.sqrt(np.mean((x - clean) ** 2))) for x in (noisy, filtered))
    print(f"error {before:.3f}, after the filter {after:.3f}")
    return {"H": H, "L": L, "frequencies": frequencies, "modes": modes, "filtered": filtered, "errors": (before, after)}


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    shown = {f"mode {k}, frequency {found['frequencies'][k]:.3f}": found["modes"][:, k] * 20 for k in (1, 3, 7)}
    shown |= {"a signal": clean, "with noise": noisy, "filtered by exp(-3λ)": found["filtered"]}
    rows, columns = scipy.sparse.triu(A).nonzero()
    edges = np.stack([points[rows], points[columns], np.full((len(rows), 2), np.nan)], 1).reshape(-1, 2)
    for ax, (title, x) in zip(axes.flat, shown.items(), strict=True):
        ax.plot(*edges.T, color="#999999", lw=0.4, zorder=1)
        ax.scatter(*points.T, c=x, s=14, cmap="PuOr", vmin=-1.2, vmax=1.2)
        ax.set(title=title, aspect="equal")
        ax.axis("off")
    return fig


if __name__ == "__main__":
    figure(main())
