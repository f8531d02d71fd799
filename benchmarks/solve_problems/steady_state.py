"""2-D advection, reaction and diffusion: a Newton step, Newton's method, and the gradient of the steady state."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
import scipy.sparse.linalg

import chainrule as cr
from solve_problems.task import KLU, VARIANTS, Task, Ways, jitted, on_host

DIFFUSION, SPEED = 0.1, 1.0
STOP = 1e-7  # the step after a change so small is exact to rounding
METHODS = {"ours, SuperLU": "auto"} | ({"ours, KLU": "klu"} if KLU else {})


def residual(u: Any, k: Any, xp: Any = jnp) -> Any:
    """D Δu - c·∇u (upwind) + k u (1 - u²) + 1 on N×N inner points of the unit square, u = 0 around it; [N, N]."""
    h = 1 / (u.shape[0] + 1)
    p = xp.pad(u, 1)
    south, north, west, east = p[:-2, 1:-1], p[2:, 1:-1], p[1:-1, :-2], p[1:-1, 2:]
    diffused = (south + north + west + east - 4 * u) / h**2
    carried = (u - south) / h + 0.5 * (u - west) / h
    return DIFFUSION * diffused - SPEED * carried + k * u * (1 - u**2) + 1


class ByHand:
    """The pattern and the constant entries, once; the diagonal of each Jacobian, by hand; SuperLU of SciPy."""

    def __init__(self, N: int, dtype: Any = float):
        h, eye = dtype(1) / (N + 1), scipy.sparse.eye_array(N, dtype=dtype)

        def line(before: Any) -> Any:
            """Coefficients of the neighbours along an axis."""
            ones = np.ones(N - 1, dtype)
            return scipy.sparse.diags_array([ones * before, ones * (DIFFUSION / h**2)], offsets=[-1, 1])

        south, west = (DIFFUSION / h**2 + share * SPEED / h for share in (1, 0.5))
        A = scipy.sparse.kron(line(south), eye) + scipy.sparse.kron(eye, line(west))
        self._A = (A + scipy.sparse.eye_array(N * N, dtype=dtype)).tocsc()
        self._A.sort_indices()
        columns = np.repeat(np.arange(N * N), np.diff(self._A.indptr))
        self._diagonal = np.flatnonzero(self._A.indices == columns)
        self._constant = -4 * DIFFUSION / h**2 - 1.5 * SPEED / h

    def jacobian(self, u: np.ndarray, k: Any) -> Any:
        A = self._A.copy()
        A.data[self._diagonal] = self._constant + k * (1 - 3 * u.ravel() ** 2)
        return A

    def step(self, u: np.ndarray, k: Any) -> np.ndarray:
        """u less the correction."""
        change = scipy.sparse.linalg.splu(self.jacobian(u, k)).solve(residual(u, k, np).ravel())
        return u - change.reshape(u.shape)

    def newton(self, u: np.ndarray, k: Any) -> list[np.ndarray]:
        """All iterates."""
        path = [u]
        while len(path) < 2 or abs(path[-1] - path[-2]).max() > STOP:
            path.append(self.step(path[-1], k))
        return path

    def gradient(self, u: np.ndarray, k: Any) -> Any:
        """Of the mean of u, by k."""
        w = np.full(u.size, 1 / u.size)
        return -scipy.sparse.linalg.splu(self.jacobian(u, k)).solve(w, "T") @ (u * (1 - u**2)).ravel()


class Exact(ByHand):
    """The same with residuals in extended precision."""

    def __init__(self, N: int):
        super().__init__(N, np.longdouble)

    def _solved(self, u: np.ndarray, k: Any, b: np.ndarray, transposed: bool = False) -> np.ndarray:
        A = self.jacobian(u, k)
        lu, A, x = scipy.sparse.linalg.splu(A.astype(float)), A.T if transposed else A, np.zeros_like(b)
        for _ in range(4):
            x = x + lu.solve((b - A @ x).astype(float), "T" if transposed else "N")
        return x

    def step(self, u: np.ndarray, k: Any) -> np.ndarray:
        u = u.astype(np.longdouble)
        return u - self._solved(u, k, residual(u, k, np).ravel()).reshape(u.shape)

    def gradient(self, u: np.ndarray, k: Any) -> Any:
        u = u.astype(np.longdouble)
        w = np.full(u.size, np.longdouble(1) / u.size)
        return -self._solved(u, k, w, True) @ (u * (1 - u**2)).ravel()


def step(solve: Any, u: Any, k: Any) -> Any:
    return u - solve(lambda u: residual(u, k), u, residual(u, k))


def newton(solve: Any, u: Any, k: Any) -> Any:
    """Until the last change is so small that the next one is rounding."""

    def body(state: Any) -> Any:
        after = step(solve, state[0], k)
        return after, jnp.abs(after - state[0]).max()

    return jax.lax.while_loop(lambda state: state[1] > STOP, body, (u, jnp.array(jnp.inf)))[0]


def gradient(solve: Any, u: Any, k: Any) -> Any:
    """-λᵀ ∂f/∂k with Jᵀ λ = ∂(mean u)/∂u: one transposed solve."""
    adjoint = solve(lambda u: residual(u, k), u, jnp.full(u.shape, 1 / u.size), transposed=True)
    return -jnp.vdot(adjoint, jax.jvp(lambda k: residual(u, k), (k,), (jnp.ones_like(k),))[1])


def ours(f: Any, u: Any, b: Any, transposed: bool = False, method: str = "auto") -> Any:
    J = cr.jacobian(f)(u)
    return (J.T if transposed else J).solve(b, method=method)


def dense(f: Any, u: Any, b: Any, transposed: bool = False) -> Any:
    J = jax.jacfwd(f)(u).reshape(u.size, u.size)
    return jnp.linalg.solve(J.T if transposed else J, b.ravel()).reshape(u.shape)


@dataclass(frozen=True)
class Setting:
    """Start and steady state for each of the parameters."""

    hand: ByHand
    starts: list[tuple[np.ndarray, np.ndarray]]
    paths: list[list[np.ndarray]]

    @property
    def steady(self) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(path[-1], k) for path, (_, k) in zip(self.paths, self.starts, strict=True)]


@functools.cache
def setting(N: int) -> Setting:
    x = np.arange(1, N + 1) / (N + 1)
    bump = np.outer(x * (1 - x), x * (1 - x)) * 12
    hand, starts = ByHand(N), [(bump, np.asarray(4 + 0.1 * i)) for i in range(VARIANTS)]
    return Setting(hand, starts, [hand.newton(*s) for s in starts])


def _in_jax(do: Any, N: int, inputs: Any) -> dict[str, Any]:
    found = {
        name: jitted(functools.partial(do, functools.partial(ours, method=method)), inputs)
        for name, method in METHODS.items()
    }
    return found | ({"dense JAX": jitted(functools.partial(do, dense), inputs)} if N <= 32 else {})


def _alone(matrices: list[Any], transposed: bool = False) -> Any:
    """Factor and solve, of matrices that are there: the solver's share."""
    b, turn = np.ones(matrices[0][0].shape[0]), "T" if transposed else "N"
    return on_host(lambda *path: [scipy.sparse.linalg.splu(A).solve(b, turn) for A in path], matrices)


def _klu_alone(matrices: list[Any], transposed: bool = False) -> Any:
    """The same by klujax, of a pattern that was analysed before."""
    places = matrices[0].tocoo()
    rows, cols, b = places.row.astype(np.int32), places.col.astype(np.int32), np.ones(places.shape[0])

    @functools.cache
    def program() -> Any:
        import klujax

        symbolic = klujax.analyze(jnp.asarray(rows), jnp.asarray(cols), len(b))
        run = klujax.tsolve_with_symbol if transposed else klujax.solve_with_symbol
        return jitted(lambda values: run(rows, cols, values, b, symbolic), [(A.data,) for A in matrices])

    return lambda i: program()(i)


HAND, ALONE, KLU_ALONE = "SciPy by hand", "SuperLU alone", "KLU alone"
SHARES = frozenset([ALONE, KLU_ALONE])


def _shares(matrices: list[Any], transposed: bool = False) -> dict[str, Any]:
    """What the solvers take of the time."""
    alone = {ALONE: _alone([(A,) for A in matrices], transposed)}
    return alone | ({KLU_ALONE: _klu_alone(matrices, transposed)} if KLU else {})


def steps(N: int) -> Ways:
    s = setting(N)
    ways = _in_jax(step, N, s.starts) | {HAND: on_host(s.hand.step, s.starts)}
    ways |= _shares([s.hand.jacobian(*start) for start in s.starts])
    return Ways(ways, Exact(N).step(*s.starts[0]), SHARES)


def newtons(N: int) -> Ways:
    s = setting(N)
    ways = _in_jax(newton, N, s.starts) | {HAND: on_host(lambda u, k: s.hand.newton(u, k)[-1], s.starts)}
    pairs = zip(s.paths, s.starts, strict=True)
    ways[ALONE] = _alone([tuple(s.hand.jacobian(u, k) for u in path[:-1]) for path, (_, k) in pairs])
    return Ways(ways, Exact(N).newton(*s.starts[0])[-1], SHARES, note=f"{len(s.paths[0]) - 1} steps")


def gradients(N: int) -> Ways:
    s = setting(N)
    ways = _in_jax(gradient, N, s.steady) | {HAND: on_host(s.hand.gradient, s.steady)}
    ways |= _shares([s.hand.jacobian(*at) for at in s.steady], True)
    return Ways(ways, Exact(N).gradient(*s.steady[0]), SHARES)


def _tasks(N: int, smoke: bool = False) -> list[Task]:
    most = {"ours, SuperLU": 30.0, "ours, KLU": 12.0} if N == 100 else {}
    makers = {"a Newton step": steps, "Newton": newtons, "implicit gradient": gradients}
    return [
        Task(f"steady state n={N * N}: {name}", functools.partial(make, N), most, smoke=smoke)
        for name, make in makers.items()
    ]


tasks = [*_tasks(16, smoke=True), *(t for N in (32, 48, 100) for t in _tasks(N))]
