"""A partial derivative is a sum over paths
========================================

Each entry of a Jacobian is a sum over all paths from an input to an output, and each path the product of the local
derivatives along it. Here are the 25 paths of a small network from x₁ to y₁, the wider the larger their part: most of
it cancels. Their number grows as a power of the depth, so that ``explain`` counts and ranks them without enumerating
them. Multiplying matrices adds them all up at the cost of a few products.

Run it: ``python examples/sum_over_paths.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

rng = np.random.default_rng(2)
A, B, C = rng.normal(size=(5, 3)), rng.normal(size=(5, 5)) / 1.5, rng.normal(size=(2, 5))
deep = [rng.normal(size=(50, 50)) / 7 for _ in range(40)]
x0 = np.array([0.5, -1.0, 0.8])


def network(x):
    u = jnp.tanh(A @ x)
    v = jnp.tanh(B @ u)
    return C @ v


def main():
    """All paths of a small network; the number of those of a deep one."""
    found = cr.explain(network, detail="lines")(x0).paths(0, 0, k=25)
    products = np.array([path["product"] for path in found["top"]])
    print(f"∂y₁/∂x₁ = {found['value']:.6f}, a sum of {found['count']} paths: {products.sum():.6f}")
    print("the largest:", np.round(products[:5], 4))
    product = cr.jacobian(lambda x: [x := jnp.tanh(W @ x) for W in deep][-1])(np.ones(50))
    print(f"forty layers of fifty: {50**39:.1e} paths an entry, {product.cost:,} multiply-adds for all 2,500 entries")
    return {"products": products, "paths": found["top"], "value": found["value"], "cost": product.cost}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), width_ratios=(3, 2), layout="constrained")
    where = {(layer, k): (layer, (n - 1) / 2 - k) for layer, n in enumerate((3, 5, 5, 2)) for k in range(n)}
    largest = abs(found["products"]).max()
    for path in found["paths"][::-1]:
        nodes = [where[layer, k] for layer, (_, k) in enumerate(path["components"])]
        size = abs(path["product"]) / largest
        color = "#3b6ea5" if path["product"] > 0 else "#b5442e"
        left.plot(
            *np.transpose(nodes), color=color, lw=0.4 + 7 * size, alpha=0.25 + 0.6 * size, solid_joinstyle="round"
        )
    for (layer, k), (x, y) in where.items():
        left.plot(x, y, "o", ms=20, color="white", mec="#444444", zorder=3)
        left.text(x, y, "xuvy"[layer] + "₁₂₃₄₅"[k], ha="center", va="center", zorder=4)
    left.set(title="paths from x₁ to y₁: blue adds, red takes away")
    left.axis("off")
    places = np.arange(1, 26)
    right.bar(places, found["products"], color=np.where(found["products"] > 0, "#3b6ea5", "#b5442e"))
    right.step(places, np.cumsum(found["products"]), where="mid", color="#444444", label="sum so far")
    right.axhline(found["value"], color="#4c8a4a", ls="--", label="∂y₁/∂x₁")
    right.set(xlabel="paths, the largest first", title="their products, and the sum")
    right.legend()
    return fig


if __name__ == "__main__":
    figure(main())
