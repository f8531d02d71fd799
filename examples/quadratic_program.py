"""The derivative of an optimum
============================

The optimum of the quadratic program of least ½ yᵀ Q y + qᵀ y with G y ≤ h and A y = b, differentiated through its KKT
system, however it was found: here a portfolio of four assets, at most 40 % each. Where a limit is active, its
multiplier is its price: the derivative of the least value by the limit. Where an active constraint has no price, the
system is singular, and ``implicit`` says so (Amos and Kolter, *OptNet*, 2017, section 3).

Run it: ``python examples/quadratic_program.py``
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import chainrule as cr

jax.config.update("jax_enable_x64", True)
risk = [[0.10, 0.02, 0.01, 0.00], [0.02, 0.08, 0.02, 0.01], [0.01, 0.02, 0.12, 0.03], [0.00, 0.01, 0.03, 0.20]]
problem = {"Q": jnp.array(risk), "q": -jnp.array([0.05, 0.04, 0.09, 0.12])}
problem |= {"G": jnp.concatenate([-jnp.eye(4), jnp.eye(4)]), "h": jnp.array([0.0] * 4 + [0.4] * 4)}
problem |= {"A": jnp.ones((1, 4)), "b": jnp.ones(1)}


def kkt(p, unknown):
    """Stationarity, complementarity and feasibility of a point y with its multipliers."""
    y, prices, nu = unknown
    stationary = p["Q"] @ y + p["q"] + p["G"].T @ prices + p["A"].T @ nu
    return stationary, prices * (p["G"] @ y - p["h"]), p["A"] @ y - p["b"]


def found_by_scipy(p):
    """The optimum by SciPy, and its multipliers by least squares."""
    Q, q, G, h, A, b = (np.asarray(p[name]) for name in "QqGhAb")
    limits = [{"type": "ineq", "fun": lambda y: h - G @ y}, {"type": "eq", "fun": lambda y: A @ y - b}]
    y = scipy.optimize.minimize(lambda y: y @ Q @ y / 2 + q @ y, np.full(4, 0.25), constraints=limits, tol=1e-12).x
    active = h - G @ y < 1e-6
    found = np.linalg.lstsq(np.concatenate([G[active], A]).T, -(Q @ y + q), rcond=None)[0]
    prices = np.zeros(len(h))
    prices[active] = found[:-1]
    return y, prices, found[-1:]


def solved(p):
    """The last digits by Newton's method."""
    return cr.newton(lambda unknown: kkt(p, unknown), tuple(map(jnp.asarray, found_by_scipy(p)))).x


optimum = solved(problem)


def value(h):
    """The least value as a function of the limits, with derivatives."""
    y = cr.root(kkt, optimum)({**problem, "h": h})[0]
    return y @ problem["Q"] @ y / 2 + problem["q"] @ y


def main():
    """Shares, prices, and the derivatives of both by every number of the problem."""
    y, prices, _ = optimum
    J = cr.implicit(kkt)(problem, optimum)
    print("shares", np.round(y, 4), "prices of the upper limits", np.round(prices[4:], 4))
    print(J)
    by_limits = J.tree()[0]["h"][:, 4:]
    print("d shares / d upper limits", np.round(by_limits, 4), sep="\n")
    error = float(abs(jax.grad(value)(problem["h"]) + prices).max())
    print(f"d value / d limits + prices: {error:.1e}")
    return {"J": J, "by_limits": by_limits, "error": error}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    limits = np.linspace(0.3, 0.5, 11)
    shares = np.array([found_by_scipy({**problem, "h": problem["h"].at[6].set(limit)})[0] for limit in limits])
    y, slope = np.asarray(optimum[0]), np.asarray(found["by_limits"][:, 2])
    near = np.array([0.37, 0.43])
    for k, color in enumerate(("#3b6ea5", "#4c8a4a", "#b5442e", "#d8973c")):
        left.plot(limits, shares[:, k], "o", ms=4, color=color, label=f"asset {k + 1}")
        left.plot(near, y[k] + slope[k] * (near - 0.4), color=color, lw=2)
    left.set(title="shares solved anew (dots), and the derivative (lines)", xlabel="limit of asset 3")
    left.legend(loc="center right")
    shown = right.imshow(found["by_limits"], cmap="PuOr", vmin=-1, vmax=1)
    fig.colorbar(shown, ax=right)
    ticks = {"xticks": range(4), "xticklabels": range(1, 5), "yticks": range(4), "yticklabels": range(1, 5)}
    right.set(title="d shares / d limits", xlabel="limit of asset", ylabel="share of asset", **ticks)
    return fig


if __name__ == "__main__":
    figure(main())
