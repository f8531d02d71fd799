"""Functions that equations define: equilibrium layers, alone and in a batch; a steady state with many parameters."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optimistix as optx
import scipy.sparse
import scipy.sparse.linalg

import chainrule as cr
from solve_problems.flows import made, made_parameters
from solve_problems.steady_state import residual, setting
from solve_problems.task import VARIANTS, Task, Ways, jitted, on_host, refined

TOLERANCE = 1e-12


def layer(given: Any, z: Any) -> Any:
    W, x = given
    return jnp.tanh(W @ z + x)


def iterated(f: Any, z: Any) -> Any:
    """Until it changes by rounding."""
    return optx.fixed_point(lambda z, _: f(z), optx.FixedPointIteration(TOLERANCE, TOLERANCE), z, max_steps=1000).value


def by_adjoint(solve: Any, given: Any) -> Any:
    """dL/dx and L for L = Σ z² / 2: λ = (I - J)ᵀ⁻¹ z and (∂f/∂x)ᵀ λ, by hand; the state is found as ours is."""
    z = iterated(lambda z: layer(given, z), jnp.zeros_like(given[1]))
    slope = 1 - z**2
    adjoint = solve(given[0], slope, z)
    return z @ z / 2, slope * adjoint


def by_lu(W: Any, slope: Any, z: Any) -> Any:
    return jnp.linalg.solve(jnp.eye(len(z)) - (slope[:, None] * W).T, z)


def by_iteration(W: Any, slope: Any, z: Any) -> Any:
    return iterated(lambda a: z + W.T @ (slope * a), z)


def by_krylov(method: str, W: Any, slope: Any, z: Any) -> Any:
    run = getattr(jax.scipy.sparse.linalg, method)
    return run(lambda a: a - W.T @ (slope * a), z, tol=1e-11)[0]


def ours(given: Any) -> Any:
    def loss(x: Any) -> Any:
        z = cr.fixed_point(layer, jnp.zeros_like(x))((given[0], x))
        return z @ z / 2

    return jax.value_and_grad(loss)(given[1])


def by_optimistix(given: Any) -> Any:
    def loss(x: Any) -> Any:
        solver, adjoint = optx.FixedPointIteration(TOLERANCE, TOLERANCE), optx.ImplicitAdjoint(lx.GMRES(1e-11, 1e-11))
        start = jnp.zeros_like(x)
        z = optx.fixed_point(
            lambda z, x: layer((given[0], x), z), solver, start, x, adjoint=adjoint, max_steps=1000
        ).value
        return z @ z / 2

    return jax.value_and_grad(loss)(given[1])


def exact(given: Any) -> Any:
    W, x = given
    z = np.zeros(len(x), np.longdouble)
    for _ in range(200):
        z = np.tanh(W.astype(np.longdouble) @ z + x)
    slope = 1 - z**2
    A = np.eye(len(x)) - (slope[:, None] * W).T
    return z @ z / 2, slope * refined(scipy.sparse.csc_array(A), z)


def equilibria(n: int) -> Ways:
    rng = np.random.default_rng(0)
    W = rng.normal(size=(n, n)) * 0.4 / np.sqrt(n)
    inputs = [((W, rng.normal(size=n)),) for _ in range(VARIANTS)]
    ways = {
        "ours": jitted(ours, inputs),
        "LU": jitted(functools.partial(by_adjoint, by_lu), inputs),
        "adjoint iteration": jitted(functools.partial(by_adjoint, by_iteration), inputs),
        **{
            name: jitted(functools.partial(by_adjoint, functools.partial(by_krylov, name)), inputs)
            for name in ("gmres", "bicgstab")
        },
        "optimistix, GMRES": jitted(by_optimistix, inputs),
    }
    return Ways(ways, exact(inputs[0][0]))


def batch_ours(W: Any, xs: Any) -> Any:
    z_of = cr.fixed_point(lambda x, z: layer((W, x), z), jnp.zeros(W.shape[0]))

    def loss(xs: Any) -> Any:
        return (jax.vmap(z_of)(xs) ** 2).sum() / 2

    return jax.value_and_grad(loss)(xs)


def batch_by_adjoint(solve: Any, W: Any, xs: Any) -> Any:
    values, gradients = jax.vmap(lambda x: by_adjoint(solve, (W, x)))(xs)
    return values.sum(), gradients


def batches(n: int, size: int) -> Ways:
    rng = np.random.default_rng(1)
    W = rng.normal(size=(n, n)) * 0.4 / np.sqrt(n)
    inputs = [(W, rng.normal(size=(size, n))) for _ in range(VARIANTS)]
    solvers = {"LU": by_lu, "adjoint iteration": by_iteration, "bicgstab": functools.partial(by_krylov, "bicgstab")}
    ways = {"ours": jitted(batch_ours, inputs)} | {
        name: jitted(functools.partial(batch_by_adjoint, solve), inputs) for name, solve in solvers.items()
    }
    single = [exact((W, x)) for x in inputs[0][1]]
    return Ways(ways, (sum(v for v, _ in single), np.stack([g for _, g in single])))


def steady_ours(u: Any, k: Any) -> Any:
    """Of the mean of the steady state, by the rate of reaction in each cell: one transposed solve."""
    source = jnp.full(u.shape, k)
    return jax.grad(lambda k: cr.root(lambda k, u: residual(u, k), u)(k).mean())(source)


def steady_gradients(N: int) -> Ways:
    s = setting(N)

    def by_hand(u: np.ndarray, k: Any) -> np.ndarray:
        A = s.hand.jacobian(u, k)
        lu = scipy.sparse.linalg.splu(A)
        for _ in range(2):  # the two residuals and the step that a root finder takes to see that it is there
            u = u - lu.solve(residual(u, k, np).ravel()).reshape(u.shape)
        w = np.full(u.size, 1 / u.size)
        return -(scipy.sparse.linalg.splu(s.hand.jacobian(u, k)).solve(w, "T") * (u * (1 - u**2)).ravel()).reshape(
            u.shape
        )

    u, k = s.steady[0]
    A, w = s.hand.jacobian(u, k), np.full(u.size, 1 / u.size)
    reference = -(refined(A.T, w) * (u * (1 - u**2)).ravel()).reshape(u.shape)
    return Ways({"ours": jitted(steady_ours, s.steady), "SciPy by hand": on_host(by_hand, s.steady)}, reference)


def maf(x: Any, p: Any) -> Any:
    s, t = made(x, p)
    return (x - t) * jnp.exp(-s)


def maf_inverse(y: Any, p: Any) -> Any:
    """One number after the other, each from a run of the network."""

    def number(k: Any, x: Any) -> Any:
        s, t = made(x, p)
        return x.at[k].set(y[k] * jnp.exp(s[k]) + t[k])

    return jax.lax.fori_loop(0, len(y), number, jnp.zeros_like(y))


def maf_by_newton(y: Any, p: Any) -> Any:
    """Newton's method with a dense Jacobian."""
    solver = optx.Newton(TOLERANCE, TOLERANCE)
    return optx.root_find(lambda x, _: maf(x, p) - y, solver, y, max_steps=300, throw=False).value


def maf_inverses(n: int) -> Ways:
    rng = np.random.default_rng(0)
    p = made_parameters(rng, n)[0]
    points = [rng.normal(size=n) for _ in range(VARIANTS)]
    inputs = [(maf(x, p), p) for x in points]
    ways = {"ours": jitted(cr.triangular_inverse(maf), inputs), "a run per number by hand": jitted(maf_inverse, inputs)}
    return Ways(ways | {"Newton, dense": jitted(maf_by_newton, inputs)}, points[0])


tasks = [
    Task("equilibrium layer n=32: gradient", functools.partial(equilibria, 32), within=1e-9, smoke=True),
    *(Task(f"equilibrium layer n={n}: gradient", functools.partial(equilibria, n), within=1e-9) for n in (256, 2048)),
    Task("64 equilibrium layers at once n=64: gradient", functools.partial(batches, 64, 64), within=1e-9),
    Task("steady state n=10000: gradient by as many parameters", functools.partial(steady_gradients, 100), within=1e-9),
    *(Task(f"inverse of MAF n={n}", functools.partial(maf_inverses, n), within=1e-9, smoke=n < 64) for n in (32, 256)),
]
