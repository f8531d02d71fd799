"""Every example computes what is true, and draws its picture."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.csgraph

import chainrule as cr

matplotlib = pytest.importorskip("matplotlib")
EXAMPLES = Path(__file__).parents[1] / "examples"
Module = SimpleNamespace  # what an example defines
Found = Any  # what its `main` gives


def attention(module: Module, found: Found, printed: str) -> None:
    """The queries' Jacobian is a block a token; self-attention stores the blocks that do not vanish, and no more."""
    assert found["of_queries"].nnz == 8 * 16
    J, x = found["J"], module.x0
    np.testing.assert_allclose(J.dense(), jax.jacrev(module.self_attention)(x).reshape(J.shape), atol=1e-13)
    assert J.nnz == 36 * 16 and found["error"] < 1e-13
    assert not found["sizes"][~module.causal].any() and found["sizes"][module.causal].all()
    assert "block-diagonal (8 blocks 4×4)" in printed and "above the diagonal: 0.0" in printed


def brusselator(module: Module, found: Found, printed: str) -> None:
    """The step solves its equation, each Newton step squares the error, and six numbers a row are stored."""
    residual, x, y = module.residual, module.x0, np.asarray(found["y"])
    np.testing.assert_allclose(y, x + 0.01 * residual(y), atol=1e-11)
    errors = found["errors"]
    assert len(errors) == 4 and errors[2] < 10 * errors[1] ** 2 and errors[3] < 1e-12
    assert isinstance(x, np.ndarray) and x.dtype == np.float64
    J, v = cr.jacobian(residual)(x), np.random.default_rng(1).normal(size=x.shape)
    assert J.nnz == 6 * x.size
    np.testing.assert_allclose(J.scipy() @ v.ravel(), np.ravel(jax.jvp(residual, (x,), (v,))[1]), rtol=1e-12)
    assert f"{y[0].max():.3f}" in printed


def bundle_adjustment(module: Module, found: Found, printed: str) -> None:
    """The residuals vanish at the solution, the errors fall, and each row keeps nine numbers."""
    np.testing.assert_allclose(module.residual(found["x"]), 0, atol=1e-12)
    rms = found["rms"]
    assert len(rms) == 8 and rms == sorted(rms, reverse=True) and rms[-1] < 1e-10 * rms[0]
    # a point's three coordinates; of its camera all but the translation along the other axis of the image
    assert found["J"].nnz == 9 * found["J"].shape[0]


def continuous_flow(module: Module, found: Found, printed: str) -> None:
    """The mass stays 1; without a sink the largest density too, with one it grows as exp(2 · 0.3 t) at the most."""
    highest = {name: [p.max() for p in by_time.values()] for name, by_time in found.items()}
    for by_time in found.values():
        for p in by_time.values():
            np.testing.assert_allclose(p.sum() * module.AREA, 1, atol=2e-3)
    peak = 1 / (2 * np.pi * 0.8 * 0.25)
    np.testing.assert_allclose(highest["stirred"], peak, rtol=0.01)
    np.testing.assert_allclose(highest["stirred, with a sink"], peak * np.exp(0.6 * np.arange(3)), rtol=0.02)


def coupling_flow(module: Module, found: Found, printed: str) -> None:
    """It has learned, its density has the mass 1, and the log-determinant is that of the Jacobian."""
    assert -found["losses"][-50:].mean() > found["best"] - 0.15
    # the entropy of the data: of a normal number, and of another of deviation 0.15
    np.testing.assert_allclose(found["best"], -np.log(2 * np.pi * np.e) - np.log(0.15), atol=1e-12)
    np.testing.assert_allclose(found["p"].sum() * 0.04**2, 1, atol=0.01)
    assert found["back"] < 1e-9
    x, layers = jnp.array([0.4, -0.3]), found["layers"]
    by_hand = module.log_normal(module.flow(x, layers)) + jnp.linalg.slogdet(jax.jacfwd(module.flow)(x, layers))[1]
    np.testing.assert_allclose(module.log_density(x[None], layers)[0], by_hand, rtol=1e-10)


def deep_equilibrium(module: Module, found: Found, printed: str) -> None:
    """It has learned; its gradient is that of the unrolled iteration, and its memory does not grow."""
    assert float(found["right"]) > 0.98 and found["error"] < 1e-6
    (ours, unrolled), (ours_longer, unrolled_longer) = (found["bytes"][n] for n in (100, 1000))
    assert ours == ours_longer < unrolled < unrolled_longer / 5


def enclosing_ellipse(module: Module, found: Found, printed: str) -> None:
    """The points are inside, and Khachiyan's algorithm finds the same area; so does the gradient of log det."""
    assert found["error"] < 1e-12 and float(module.reach(found["x"]).max()) <= 1
    P, weight = np.c_[module.points, np.ones(len(module.points))].T, np.full(60, 1 / 60)
    for _ in range(20_000):
        far = ((P.T @ np.linalg.inv(P * weight @ P.T)) * P.T).sum(1)
        weight *= far / 3
    mean = module.points.T @ weight
    spread = module.points.T * weight @ module.points - np.outer(mean, mean)
    np.testing.assert_allclose(found["area"], 2 * np.pi * np.sqrt(np.linalg.det(spread)), rtol=1e-5)
    assert found["held"] == (weight > 1e-4).sum() and f"area {found['area']:.6f}" in printed


def gradient_flow(module: Module, found: Found, printed: str) -> None:
    """The flow is x₁ e^(-t), x₂ e^(-10 t); descent goes up just where its rate is beyond 2 by the curvature."""
    flow = found["flow"]
    closed = module.START * np.exp(-np.outer(flow.times, [1, module.SHARP]))
    np.testing.assert_allclose(flow.points, closed, atol=1e-6)
    np.testing.assert_allclose(found["mu"], 1, atol=1e-3)
    assert found["off"] < 0.01 and (flow.losses <= found["bound"] * (1 + 1e-6)).all()
    for rate, path in found["paths"].items():
        steps = np.arange(len(path))[:, None]
        np.testing.assert_allclose(path, module.START * (1 - rate * np.array([1, module.SHARP])) ** steps, atol=1e-12)
        assert (module.f(path[-1]) > module.f(path[0])) == (rate > 2 / module.SHARP)


def graph_filter(module: Module, found: Found, printed: str) -> None:
    """The Hessian is 2 L, the modes are L's, and the filter is exp(-3 L)."""
    L = scipy.sparse.csgraph.laplacian(module.A).toarray()
    np.testing.assert_array_equal(found["H"].dense(), 2 * L)
    np.testing.assert_allclose(L @ found["modes"], found["modes"] * found["frequencies"], atol=1e-10)
    np.testing.assert_allclose(found["filtered"], scipy.linalg.expm(-3 * L) @ module.noisy, atol=1e-8)
    before, after = found["errors"]
    assert after < before / 3 and f"{module.A.nnz // 2} edges" in printed


def hutchinson(module: Module, found: Found, printed: str) -> None:
    """The exact trace is that of JAX's Jacobian; errors fall as they should, and the error bars cover."""
    np.testing.assert_allclose(found["exact"], np.trace(jax.jacfwd(module.f)(jnp.asarray(module.x0))), rtol=1e-12)
    plain, better = (np.array(found["errors"][name]) for name in ("hutchinson", "hutch++"))
    np.testing.assert_allclose(plain[:, 1], plain[0, 1] * np.sqrt(8 / plain[:, 0]), rtol=0.3)
    assert better[-1, 1] < plain[-1, 1] / 8 and better[-1, 1] < better[0, 1] / 4
    assert found["covered"] > 0.85


def hydrogen(module: Module, found: Found, printed: str) -> None:
    """Each orbital has its energy everywhere; the trial function has 3/4 - r²/8 - 1/r."""
    for n, name in enumerate(module.ORBITALS, 1):
        np.testing.assert_allclose(found[name], -1 / (2 * n * n), rtol=1e-9)
    r = np.linalg.norm(np.random.default_rng(1).normal(size=(20_000, 3)), axis=1)
    np.testing.assert_allclose(found["trial"], 3 / 4 - r**2 / 8 - 1 / r, rtol=1e-9)
    assert abs(found["trial"].mean() - (3 / 8 - np.sqrt(2 / np.pi))) < 0.02


def kepler(module: Module, found: Found, printed: str) -> None:
    """E solves the equation, its derivatives are those by hand, and Kepler's second law holds."""
    M, E, e = module.MEAN, found["E"], module.ECCENTRICITY
    np.testing.assert_allclose(E - e * np.sin(E), M, atol=1e-12)
    assert found["J"].nnz == len(M)
    np.testing.assert_allclose(found["by_time"], 1 / (1 - e * np.cos(E)), rtol=1e-10)
    np.testing.assert_allclose(found["by_shape"], np.sin(E) / (1 - e * np.cos(E)), atol=1e-10)
    np.testing.assert_allclose(found["swept"], np.sqrt(1 - e**2) / 2, rtol=1e-10)
    assert "singular" in printed


def kuramoto_sivashinsky(module: Module, found: Found, printed: str) -> None:
    """The Jacobian has five numbers a row, few steps are taken, the mean stays, and u has come to its size."""
    J, run = found["J"], found["run"]
    assert J.nnz == 5 * module.N and run.success
    np.testing.assert_allclose(J.dense(), jax.jacfwd(module.kuramoto, 1)(0.0, jnp.asarray(module.u0)), atol=1e-10)
    assert run.nfev < found["explicit"] / 5
    np.testing.assert_allclose(run.y.mean(0), module.u0.mean(), atol=1e-10)
    assert 2 < abs(run.y[:, -1]).max() < 5


def langevin(module: Module, found: Found, printed: str) -> None:
    """The samples have the density's mean; Stein's identity knows them from the start."""
    np.testing.assert_allclose(found["mean"], module.WEIGHTS @ module.CENTRES, atol=0.12)
    assert found["away"]["samples"] < 4 < 20 < found["away"]["start"]
    np.testing.assert_allclose(found["score"], -0.5, atol=1e-12)


def mlp_per_sample(module: Module, found: Found, printed: str) -> None:
    """The blocks are the Jacobians of single samples, and nothing else is stored."""
    by_sample = jax.vmap(jax.jacrev(module.network))(module.x0)
    np.testing.assert_allclose(found["blocks"], by_sample, atol=1e-13)
    assert found["J"].nnz == by_sample.size and found["error"] < 1e-13
    assert "block-diagonal (32 blocks 4×8)" in printed
    assert f"{np.linalg.norm(by_sample, 2, axis=(1, 2)).max():.3f}" in printed


def newton_fractal(module: Module, found: Found, printed: str) -> None:
    """Complex arithmetic reaches the same roots, which share the plane; a block a start is stored."""
    z = module.start[0] + 1j * module.start[1]
    for _ in range(module.STEPS):
        z = z - (z**3 - 1) / (3 * z**2)
    roots = module.ROOTS @ [1, 1j]
    same = abs(z[..., None] - roots).argmin(-1) == found["root"]
    assert same.mean() > 0.995 and found["done"] > 0.99
    assert found["J"].nnz == 4 * z.size
    np.testing.assert_allclose(found["shares"], 1 / 3, atol=0.02)


def not_differentiable(module: Module, found: Found, printed: str) -> None:
    """A jump, a smooth function, a kink and an affine map: orders 0, 2, 1, and no remainder."""
    orders = [min(d.order for d in report.directions) for report in found.values()]
    np.testing.assert_allclose(orders[:3], [0, 2, 1], atol=0.05)
    assert orders[3] == np.inf
    assert [report.ok for report in found.values()] == [False, True, False, True]
    assert [found[name].findings[0].kind for name in ("x y / (x² + y²)", "|x| + y")] == ["jump", "kink"]
    assert "partial derivatives of the first: [0. 0.]" in printed


def orders(module: Module, found: Found, printed: str) -> None:
    """The counts are those of products of matrices and diagonals, and the cheapest order is taken."""
    n, wide, waist = module.INPUTS, module.WIDE, module.WAIST
    for m, plan in found["plans"].items():
        cost = module.costs(plan)
        products = n * (wide * waist + waist * wide + wide * m)  # W₁ is J of the first layer, and costs nothing
        assert products <= cost["forward"] <= 1.3 * products  # and scalings by the slopes of tanh
        assert cost[plan.chosen] <= 1.3 * min(cost.values())
        assert m < 16 or plan.chosen == "mixed"
    large = module.costs(found["large"])
    np.testing.assert_allclose(large["forward"], 10**6 * (9 * 10**6 + 10**3), rtol=0.01)
    np.testing.assert_allclose(large["reverse"], 10**9 + 9 * 10**6, rtol=0.01)


def patterns(module: Module, found: Found, printed: str) -> None:
    """Each is JAX's Jacobian; what is stored is what does not vanish, whatever x is."""
    for name, f in module.PROGRAMS.items():
        dense = np.asarray(jax.jacfwd(f)(jnp.asarray(module.x0))).reshape(-1, module.N)
        np.testing.assert_allclose(found[name].dense(), dense, atol=1e-12)
        # the first token sees itself alone: its block is the identity, which only its softmax of one score knows
        assert found[name].nnz == np.count_nonzero(dense) + 56 * (name == "causal attention"), name
        assert str(found[name].structure) in printed
    assert found["diffusion"].nnz == 48 + 2 * (5 * 8 + 6 * 7)


def plane_map(module: Module, found: Found, printed: str) -> None:
    """By hand: J = [[2x₁, 1], [x₂, x₁]], with the determinant 2x₁² - x₂."""
    np.testing.assert_allclose(found["kernel"] / found["kernel"][0], [1, -2], atol=1e-12)
    np.testing.assert_allclose(found["area"], 2, atol=1e-3)
    x = np.random.default_rng(0).normal(size=(20, 2))
    by_hand = 2 * x[:, 0] ** 2 - x[:, 1]
    np.testing.assert_allclose(cr.jacobian_determinant(module.f, batched=True)(x), by_hand, atol=1e-12)
    assert "[[2.0, 1.0], [2.0, 1.0]], rank 1, det 0" in printed
    assert "[[2.0, 1.0], [0.0, 1.0]], rank 2, det 2" in printed


def push_and_pull(module: Module, found: Found, printed: str) -> None:
    """The pairing is that of the network's Jacobian in every layer."""
    J = jax.jacrev(module.network)(jnp.asarray(module.x0))
    np.testing.assert_allclose(found["pairings"], module.w0 @ J @ module.v0, rtol=1e-12)
    np.testing.assert_allclose(found["pushed"][-1], J @ module.v0, rtol=1e-12)
    np.testing.assert_allclose(found["pulled"][0], module.w0 @ J, rtol=1e-12)
    np.testing.assert_allclose(found["J"].dense(), J, rtol=1e-12)


def quadratic_program(module: Module, found: Found, printed: str) -> None:
    """The optimum of other limits, found anew, agrees with the derivative; and with the prices."""
    problem, h = module.problem, 1e-3  # the optimum is linear in the limits
    near = [module.found_by_scipy({**problem, "h": problem["h"].at[6].add(step)})[0] for step in (h, -h)]
    np.testing.assert_allclose(found["by_limits"][:, 2], (near[0] - near[1]) / (2 * h), atol=1e-3)
    y, prices, _ = module.optimum
    assert found["error"] < 1e-10
    assert float(prices.max()) > 1e-3 and float(y.sum()) == pytest.approx(1)


def robot_arm(module: Module, found: Found, printed: str) -> None:
    """The hand is there and stays there; the first step is the one of least norm."""
    assert found["drift"] < 1e-9 and np.linalg.norm(found["path"][-1] - found["reached"]) > 1
    np.testing.assert_allclose(module.hand(found["reached"]), module.TARGET, atol=1e-12)
    J = np.asarray(jax.jacfwd(module.hand)(module.rest))
    least = np.linalg.pinv(J) @ (module.TARGET - module.hand(module.rest))
    step = module.reach(module.rest, module.TARGET, 1) - module.rest
    np.testing.assert_allclose(step, least * min(1, 0.5 / np.linalg.norm(least)), atol=1e-10)
    assert "rank 2; surjective: True, injective: False" in printed


def rosenbrock(module: Module, found: Found, printed: str) -> None:
    """Newton's method arrives at (1, ..., 1) in a few steps, with three diagonals."""
    np.testing.assert_allclose(found["x"], 1, atol=1e-9)
    assert found["steps"] <= 20 and found["error"] < 1e-12
    assert "banded(1, 1)" in printed
    few = module.x0[:20]
    H = cr.hessian(module.rosenbrock)(few).dense()
    np.testing.assert_allclose(H, jax.hessian(module.rosenbrock)(few), atol=1e-9)


def softmax(module: Module, found: Found, printed: str) -> None:
    """JAX's Jacobian; between two probabilities lies an eigenvalue; the kernel is spanned by ones."""
    J, s = found["J"].dense(), np.sort(found["s"])
    np.testing.assert_allclose(J, jax.jacrev(jax.nn.softmax)(module.logits), atol=1e-15)
    eigenvalues = found["eigenvalues"]
    assert abs(eigenvalues[0]) < 1e-15 and (s[:-1] < eigenvalues[1:]).all() and (eigenvalues[1:] < s[1:]).all()
    np.testing.assert_allclose(found["kernel"] / found["kernel"][0], 1, atol=1e-12)
    assert found["pulled"] < 1e-15 and found["rank"] == 99_999


def sum_over_paths(module: Module, found: Found, printed: str) -> None:
    """The products are those of the weights and slopes along each path, and add up to the derivative."""
    u = jnp.tanh(module.A @ module.x0)
    v = jnp.tanh(module.B @ u)
    # [v, u]: from y₁ through v and u to x₁
    by_hand = module.C[0][:, None] * (1 - v**2)[:, None] * module.B * (1 - u**2) * module.A[:, 0]
    np.testing.assert_allclose(np.sort(found["products"]), np.sort(by_hand.ravel()), atol=1e-12)
    np.testing.assert_allclose(found["value"], jax.jacrev(module.network)(module.x0)[0, 0], rtol=1e-12)
    assert found["cost"] < 50 * 50 * 50 * 45


def two_moons(module: Module, found: Found, printed: str) -> None:
    """The samples lie on the moons, on both of them, along all of each."""
    drawn, real = np.asarray(found["drawn"]), np.asarray(found["real"])
    away = np.sqrt(((drawn[:, None] - real[None]) ** 2).sum(-1).min(1))
    assert np.quantile(away, 0.95) < 0.1
    assert found["losses"][-100:].mean() < 0.9 * found["losses"][:100].mean()
    for x in (drawn, real):
        assert abs((x[:, 1] > 0.25).mean() - (real[:, 1] > 0.25).mean()) < 0.07
        np.testing.assert_allclose(x.mean(0), 0, atol=0.1)
        np.testing.assert_allclose(np.cov(x.T), np.cov(real.T), atol=0.12)


def vector_fields(module: Module, found: Found, printed: str) -> None:
    """By hand: the source is the gradient of -½ exp(-r²), the vortex of nothing; and the two identities."""
    kinds = {"source": (True, False), "vortex": (False, True), "saddle": (True, True), "wavy": (False, False)}
    assert found["kinds"] == kinds
    r2 = 0.6**2 + 0.3**2
    np.testing.assert_allclose(found["potential"], (1 - np.exp(-r2)) / 2, rtol=1e-10)
    np.testing.assert_allclose(found["curl grad"], 0, atol=1e-14)
    np.testing.assert_allclose(found["div curl"], 0, atol=1e-14)
    both = f"{2 * (1 - r2) * np.exp(-r2):.5f}"  # the divergence of the one, the curl of the other
    assert printed.count(both) == 2


CHECKS: dict[str, Callable[[Module, Found, str], None]] = {
    check.__name__: check
    for check in list(globals().values())
    if getattr(check, "__module__", None) == __name__ and callable(check)
}


def test_every_example_has_a_check() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_example_is_true_and_draws_its_picture(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    matplotlib.use("agg")
    # a user's JAX promotes as it comes; the suite's does not
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        module = Module(**runpy.run_path(str(EXAMPLES / f"{name}.py")))
        found = module.main()
        CHECKS[name](module, found, capsys.readouterr().out)
        picture = module.figure(found)
    picture.draw_without_rendering()
    assert matplotlib.pyplot.gcf() is picture and picture.axes  # where a gallery looks for it
    matplotlib.pyplot.close(picture)


@pytest.mark.parametrize("name", CHECKS)
def test_example_keeps_the_form(name: str) -> None:
    """Short; a title in reStructuredText and how to run it; the figure last, where a gallery finds it."""
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    title, line, blank, *rest = text.removeprefix('"""').splitlines()
    assert line == "=" * len(title) and not blank and len(rest) <= 90
    assert f"``python examples/{name}.py``" in text.split('"""')[1]
    assert text.endswith('\n\nif __name__ == "__main__":\n    figure(main())\n')


def test_table_of_the_examples_is_whole() -> None:
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"]({name}.py)" in table for name in CHECKS)


def test_first_command_of_the_readme() -> None:
    """`chainrule jacobian examples/brusselator.py:residual --check` finds its point in the module."""
    command = [sys.executable, "-m", "chainrule", "jacobian", "examples/brusselator.py:residual", "--check"]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "8,192 outputs × 8,192 inputs" in done.stdout
    assert done.stdout.count("agrees") == 3
