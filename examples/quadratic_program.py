"""The optimum of a convex quadratic program, differentiated through its KKT system, however it was found.

    minimise ½ yᵀ Q y + qᵀ y   subject to   G y ≤ h,  A y = b

Where an active constraint has no price, the system is singular, and `implicit` says so (Amos and Kolter, *OptNet*,
2017, section 3).

    python examples/quadratic_program.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import chainrule as cr

jax.config.update("jax_enable_x64", True)
# a portfolio of four assets: little risk, some return, no more than 40 % of each, all of the money
risk = [[0.10, 0.02, 0.01, 0.00], [0.02, 0.08, 0.02, 0.01], [0.01, 0.02, 0.12, 0.03], [0.00, 0.01, 0.03, 0.20]]
problem = {"Q": jnp.array(risk), "q": -jnp.array([0.05, 0.04, 0.09, 0.12])}
problem |= {"G": jnp.concatenate([-jnp.eye(4), jnp.eye(4)]), "h": jnp.array([0.0] * 4 + [0.4] * 4)}
problem |= {"A": jnp.ones((1, 4)), "b": jnp.ones(1)}


def kkt(p, unknown):
    """Stationarity, complementarity and feasibility of a point y with its multipliers."""
    y, prices, nu = unknown
    stationary = p["Q"] @ y + p["q"] + p["G"].T @ prices + p["A"].T @ nu
    return stationary, prices * (p["G"] @ y - p["h"]), p["A"] @ y - p["b"]


def solved(p):
    """The optimum by SciPy, its multipliers by least squares, and the last digits by Newton's method."""
    Q, q, G, h, A, b = (np.asarray(p[name]) for name in "QqGhAb")
    limits = [{"type": "ineq", "fun": lambda y: h - G @ y}, {"type": "eq", "fun": lambda y: A @ y - b}]
    y = scipy.optimize.minimize(lambda y: y @ Q @ y / 2 + q @ y, np.full(4, 0.25), constraints=limits, tol=1e-12).x
    active = h - G @ y < 1e-6
    found = np.linalg.lstsq(np.concatenate([G[active], A]).T, -(Q @ y + q), rcond=None)[0]
    prices = np.zeros(len(h))
    prices[active] = found[:-1]
    return cr.newton(lambda unknown: kkt(p, unknown), tuple(map(jnp.asarray, (y, prices, found[-1:])))).x


optimum = solved(problem)
y, prices, nu = optimum
J = cr.implicit(kkt)(problem, optimum)  # of (y, prices, nu), by every number of the problem
print("shares", np.round(y, 4), "prices of the upper limits", np.round(prices[4:], 4), J, sep="\n")
print("d shares / d upper limits", np.round(J.tree()[0]["h"][:, 4:], 4), sep="\n")


def value(h):
    """The least value as a function of the limits, with derivatives."""
    y = cr.root(kkt, optimum)({**problem, "h": h})[0]
    return y @ problem["Q"] @ y / 2 + problem["q"] @ y


print("d value / d limits + prices, which is 0:", np.round(jax.grad(value)(problem["h"]) + prices, 10))
