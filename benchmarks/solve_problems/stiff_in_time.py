"""The 2-D equation of `steady_state` in time, by diffrax's Kvaerno5: its own linear solver, and ours."""

from __future__ import annotations

import functools
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import scipy.integrate

import chainrule as cr
from solve_problems.steady_state import ByHand, residual
from solve_problems.task import KLU, Task, Ways

OWN = "default solver"


def integrate(linear: Any, N: int, until: float, k: Any) -> Any:
    """(u at the end [N·N], number of steps)."""
    term = diffrax.ODETerm(lambda t, u, k: residual(u.reshape(N, N), k).reshape(-1))
    solver = diffrax.Kvaerno5(root_finder=diffrax.VeryChord(rtol=1e-8, atol=1e-8, linear_solver=linear))
    control = diffrax.PIDController(rtol=1e-6, atol=1e-8)
    found = diffrax.diffeqsolve(
        term, solver, 0.0, until, 1e-3, jnp.zeros(N * N), k, stepsize_controller=control, max_steps=2000
    )
    return found.ys[0], found.stats["num_steps"]


def make(N: int, until: float, klu: bool = KLU) -> Ways:
    solvers = {"ours": cr.StructuredSolver()}
    if klu:
        solvers["ours, KLU"] = cr.StructuredSolver(method="klu")
    solvers[OWN] = lineax.AutoLinearSolver(well_posed=None)
    k = jnp.array(5.0)
    programs = {
        name: jax.jit(functools.partial(integrate, linear, N, until)).lower(k).compile()
        for name, linear in solvers.items()
    }

    def run(name: str, _: int) -> Any:
        return jax.block_until_ready(programs[name](k))[0]

    ways = {name: functools.partial(run, name) for name in programs}
    return Ways(ways, reference(N, until, k), once=frozenset([OWN]), note=f"{int(programs['ours'](k)[1])} steps")


def reference(N: int, until: float, k: Any) -> np.ndarray:
    """By SciPy's Radau, with the Jacobian by hand."""
    hand, k = ByHand(N), np.asarray(k)
    found = scipy.integrate.solve_ivp(
        lambda t, u: residual(u.reshape(N, N), k, np).ravel(),
        (0.0, until),
        np.zeros(N * N),
        method="Radau",
        jac=lambda t, u: hand.jacobian(u.reshape(N, N), k),
        rtol=1e-8,
        atol=1e-10,
    )
    return found.y[:, -1]


tasks = [
    Task("Kvaerno5 n=36", functools.partial(make, 6, 0.05, klu=False), within=1e-4, smoke=True),
    Task("Kvaerno5 n=1024", functools.partial(make, 32, 1.0), times={OWN: 30.0}, within=1e-4),
]
