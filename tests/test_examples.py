"""Every example runs as a user would run it, and what it computes is true."""

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import chainrule as cr

EXAMPLES = Path(__file__).parents[1] / "examples"
Run = dict[str, Any]


def brusselator(run: Run, printed: str) -> None:
    """The step solves its equation, each Newton step squares the error, and six numbers a row are stored."""
    residual, x, y = run["residual"], run["x0"], np.asarray(run["y"])
    np.testing.assert_allclose(y, x + 0.01 * residual(y), atol=1e-11)
    errors = [float(line.split("=")[1]) for line in printed.splitlines() if line.startswith("|F|")]
    assert len(errors) == 4 and errors[2] < 10 * errors[1] ** 2 and errors[3] < 1e-12
    assert isinstance(x, np.ndarray) and x.dtype == np.float64
    J, v = cr.jacobian(residual)(x), np.random.default_rng(1).normal(size=x.shape)
    assert J.nnz == 6 * x.size
    np.testing.assert_allclose(J.scipy() @ v.ravel(), np.ravel(jax.jvp(residual, (x,), (v,))[1]), rtol=1e-12)


def mlp_per_sample(run: Run, printed: str) -> None:
    """The blocks are the Jacobians of single samples, and nothing else is stored."""
    by_sample = jax.vmap(jax.jacrev(run["network"]))(run["x0"])
    np.testing.assert_allclose(run["blocks"], by_sample, atol=1e-13)
    assert run["J"].nnz == by_sample.size
    assert "block-diagonal (32 blocks 4×8)" in printed
    assert 0 < run["gains"].min() < run["gains"].max()


def attention(run: Run, printed: str) -> None:
    """The queries' Jacobian is a block a token; self-attention stores at least what is not zero."""
    assert "block-diagonal (8 blocks 4×4)" in printed and "no token depends on a later one" in printed
    J, x = run["J"], run["x0"]
    np.testing.assert_allclose(J.dense(), jax.jacrev(run["self_attention"])(x).reshape(J.shape), atol=1e-13)
    # 36 of 64 blocks do not vanish; the masked weights on the values may keep the diagonals of the others
    assert 36 * 16 <= J.nnz <= 36 * 16 + 28 * 4


def bundle_adjustment(run: Run, printed: str) -> None:
    """The residuals vanish at the solution, the errors fall, and each row keeps nine numbers."""
    np.testing.assert_allclose(run["residual"](run["x"]), 0, atol=1e-12)
    rms = [float(line.split("rms")[1]) for line in printed.splitlines() if "rms" in line]
    assert len(rms) == 8 and rms == sorted(rms, reverse=True) and rms[-1] < 1e-10 * rms[0]
    # a point's three coordinates; of its camera all but the translation along the other axis of the image
    assert run["J"].nnz == 9 * run["J"].shape[0]


def rosenbrock(run: Run, printed: str) -> None:
    """Newton's method arrives at (1, ..., 1) in a few steps, with three diagonals."""
    np.testing.assert_allclose(run["x"], 1, atol=1e-9)
    assert run["steps"] <= 20
    assert "banded(1, 1)" in printed
    few = run["x0"][:20]
    np.testing.assert_allclose(
        cr.hessian(run["rosenbrock"])(few).dense(), jax.hessian(run["rosenbrock"])(few), atol=1e-9
    )


def two_moons(run: Run, printed: str) -> None:
    """The samples lie on the moons, on both of them, along all of each; and there is a picture."""
    drawn, real = np.asarray(run["drawn"]), np.asarray(run["real"])
    away = np.sqrt(((drawn[:, None] - real[None]) ** 2).sum(-1).min(1))
    assert np.quantile(away, 0.95) < 0.1
    for x in (drawn, real):
        assert abs((x[:, 1] > 0.25).mean() - (real[:, 1] > 0.25).mean()) < 0.07
        np.testing.assert_allclose(x.mean(0), 0, atol=0.1)
        np.testing.assert_allclose(np.cov(x.T), np.cov(real.T), atol=0.12)
    with open(run["picture"], "rb") as picture:
        assert picture.read(4) == b"\x89PNG"
    assert "the picture" in printed


def deep_equilibrium(run: Run, printed: str) -> None:
    """It has learned; its gradient is that of the unrolled iteration, and its memory does not grow."""
    assert float(run["right"]) > 0.98 and run["error"] < 1e-6
    (ours, unrolled), (ours_longer, unrolled_longer) = (run["bytes_of"][n] for n in (100, 1000))
    assert ours == ours_longer < unrolled < unrolled_longer / 5


def quadratic_program(run: Run, printed: str) -> None:
    """The optimum of other limits, found anew, agrees with the derivative; and with the prices."""
    problem, J, h = run["problem"], run["J"], 1e-4
    near = [run["solved"]({**problem, "h": problem["h"].at[6].add(step)})[0] for step in (h, -h)]
    np.testing.assert_allclose(J.tree()[0]["h"][:, 6], (near[0] - near[1]) / (2 * h), atol=1e-6)
    y, prices, _ = run["optimum"]
    np.testing.assert_allclose(jax.grad(run["value"])(problem["h"]), -prices, atol=1e-10)
    assert float(prices.max()) > 1e-3 and float(y.sum()) == 1


def distributed(run: Run, printed: str) -> None:
    """One process: a second step finds the equation solved; the log-determinant is that of the samples' own blocks."""
    found, again = json.loads(printed.split(": ", 1)[1]), run["main"](rounds=2)
    rng = np.random.default_rng(0)
    rng.random((2, 16, 16), np.float32)
    samples, w = rng.random((16, 4), np.float32), rng.random((4, 8), np.float32)
    own = jax.vmap(jax.jacfwd(lambda r: run["network"](r, w)))(samples)
    np.testing.assert_allclose(found["log |det|"], np.linalg.slogdet(np.float64(own))[1].sum(), rtol=1e-4)
    assert again["|F|"] < 1e-3 * found["|F|"]


CHECKS: dict[str, Callable[[Run, str], None]] = {
    check.__name__: check
    for check in (
        attention,
        brusselator,
        bundle_adjustment,
        deep_equilibrium,
        distributed,
        mlp_per_sample,
        quadratic_program,
        rosenbrock,
        two_moons,
    )
}


def test_every_example_has_a_check() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_example_runs_and_is_true(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py"])
    # a user's JAX promotes as it comes; the suite's does not
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        run = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        CHECKS[name](run, capsys.readouterr().out)


@pytest.mark.parametrize("name", CHECKS)
def test_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 60
    assert text.startswith('"""') and f"python examples/{name}.py" in text.split('"""')[1]


def test_first_command_of_the_readme() -> None:
    """`chainrule jacobian examples/brusselator.py:residual --check` finds its point in the module."""
    command = [sys.executable, "-m", "chainrule", "jacobian", "examples/brusselator.py:residual", "--check"]
    done = subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "8,192 outputs × 8,192 inputs" in done.stdout
    assert done.stdout.count("agrees") == 3
