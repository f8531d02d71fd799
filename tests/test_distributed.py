"""The example of several processes, run as such on this machine: the numbers of one process, and no hang."""

import json
import re
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "cluster" / "distributed.py"
SIZE = "8"


@contextmanager
def processes(count: int, *options: str) -> Iterator[list[subprocess.Popen[str]]]:
    """As many processes of the example, ended in any case."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    command = [sys.executable, str(SCRIPT), "--size", SIZE, "--address", address, "--count", str(count), *options]
    started = [subprocess.Popen([*command, "--index", str(k)], **pipes) for k in range(count)]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def results(printed: str) -> dict[str, float]:
    """What the example found."""
    (found,) = re.findall(r"process \d of \d: (\{.*\})", printed)
    return json.loads(found)


@pytest.fixture(scope="module")
def alone() -> dict[str, float]:
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        return runpy.run_path(str(SCRIPT))["main"](int(SIZE))


def test_one_process_is_true(alone: dict[str, float]) -> None:
    """A second step finds the equation solved; the log-determinant is that of the samples' own blocks."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"), jax.enable_x64(False):
        module, size = runpy.run_path(str(SCRIPT)), int(SIZE)
        again = module["main"](size, rounds=2)
        rng = np.random.default_rng(0)
        rng.random((2, size, size), np.float32)
        samples, w = rng.random((size, 4), np.float32), rng.random((4, 8), np.float32)
        own = jax.vmap(jax.jacfwd(lambda r: module["network"](r, w)))(samples)
    np.testing.assert_allclose(alone["log |det|"], np.linalg.slogdet(np.float64(own))[1].sum(), rtol=1e-4)
    assert again["|F|"] < 1e-3 * alone["|F|"]


@pytest.mark.parametrize("count", [2, 4])
def test_as_one_process(count: int, alone: dict[str, float]) -> None:
    """Every process ends with the numbers of one, to the rounding of float32."""
    with processes(count) as started:
        for k, process in enumerate(started):
            printed = process.communicate(timeout=240)[0]
            assert process.returncode == 0, printed
            assert f"process {k} of {count}:" in printed
            found = results(printed)
            assert found.keys() == alone.keys()
            for name, value in alone.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others(victim: int) -> None:
    """Within a minute, with an error that says what happened; the others report to the first process."""
    with processes(2, "--rounds", "1000000") as started:
        survivor = started[1 - victim]
        for process in started:
            assert "started" in process.stdout.readline()  # type: ignore[union-attr]
        started[victim].kill()
        begun = time.monotonic()
        printed = survivor.communicate(timeout=60)[0]
        assert survivor.returncode != 0 and time.monotonic() - begun < 60
        assert re.search("tasks are unhealthy|Gloo .* failed|lost|UNAVAILABLE|Connection", printed), printed
