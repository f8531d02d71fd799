"""The solution of a small convex quadratic program, differentiated through its KKT system.

    minimise ½ yᵀ Q y + qᵀ y   subject to   G y ≤ h,  A y = b

The optimum is where the KKT residual of (y, λ, ν) vanishes; `implicit` differentiates it there, whatever solver
found it (Amos and Kolter, *OptNet*, 2017, section 3). The derivative exists only where exactly one factor of each
λ_i (G y - h)_i = 0 vanishes: where both do (an active constraint without a price), the system is singular, and
`implicit` says so.

    python examples/quadratic_program.py
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

import chainrule as cr

jax.config.update("jax_enable_x64", True)

# a portfolio of four assets: little risk, some return, no more than 40 % of each, all of the money
RISK = np.array(
    [[0.10, 0.02, 0.01, 0.00], [0.02, 0.08, 0.02, 0.01], [0.01, 0.02, 0.12, 0.03], [0.00, 0.01, 0.03, 0.20]]
)
problem = {
    "Q": jnp.asarray(RISK),
    "q": -jnp.array([0.05, 0.04, 0.09, 0.12]),
    "G": jnp.concatenate([-jnp.eye(4), jnp.eye(4)]),
    "h": jnp.concatenate([jnp.zeros(4), jnp.full(4, 0.4)]),
    "A": jnp.ones((1, 4)),
    "b": jnp.ones(1),
}


def kkt(p, unknown):
    """Stationarity, complementarity and feasibility of a point with its multipliers."""
    y, prices, nu = unknown
    return (
        p["Q"] @ y + p["q"] + p["G"].T @ prices + p["A"].T @ nu,
        prices * (p["G"] @ y - p["h"]),
        p["A"] @ y - p["b"],
    )


def solved(p, y0):
    """The optimum by SciPy, then the multipliers, and Newton's method on the KKT system for the last digits."""
    own = jax.tree.map(np.asarray, p)
    constraints = [
        {"type": "ineq", "fun": lambda y: own["h"] - own["G"] @ y, "jac": lambda y: -own["G"]},
        {"type": "eq", "fun": lambda y: own["A"] @ y - own["b"], "jac": lambda y: own["A"]},
    ]
    found = scipy.optimize.minimize(
        lambda y: y @ own["Q"] @ y / 2 + own["q"] @ y,
        y0,
        jac=lambda y: own["Q"] @ y + own["q"],
        constraints=constraints,
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 200},
    )
    y, active = found.x, own["h"] - own["G"] @ found.x < 1e-6
    normals = np.concatenate([own["G"][active], own["A"]]).T
    multipliers = np.linalg.lstsq(normals, -(own["Q"] @ y + own["q"]), rcond=None)[0]
    prices = np.zeros(len(own["h"]))
    prices[active] = multipliers[: active.sum()]
    exact = cr.newton(lambda u: kkt(p, u), tuple(map(jnp.asarray, (y, prices, multipliers[active.sum() :]))))
    return exact.x


optimum = solved(problem, np.full(4, 0.25))
y, prices, nu = optimum
print("share of each asset ", np.round(np.asarray(y), 4))
print("prices of the limits", np.round(np.asarray(prices), 6))

J = cr.implicit(kkt)(problem, optimum)
print(J)
sensitivity = jax.tree.map(np.asarray, J.tree()[0])  # of the shares, by every number of the problem
print("d share / d limits on top:", np.round(sensitivity["h"][:, 4:], 3), sep="\n")


def risk_of(h):
    """The optimal risk as a function of the limits, with derivatives, from the same equations."""
    unknown = cr.root(kkt, optimum)({**problem, "h": h})
    return unknown[0] @ problem["Q"] @ unknown[0] / 2 + problem["q"] @ unknown[0]


envelope = jax.grad(risk_of)(problem["h"])
print(
    "d optimum / d limits, and minus the prices:",
    np.round(np.asarray(envelope), 6),
    np.round(-np.asarray(prices), 6),
    sep="\n",
)
