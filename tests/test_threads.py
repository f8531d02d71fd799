"""One transform in many threads gives the bits of one thread; many calls take no more memory than few."""

import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import chainrule as cr

THREADS = 8


def flow(x, steps, mask):
    """Its pattern depends on a whole number and on a mask, both known while tracing."""
    for _ in range(steps):
        x = x + 0.1 * jnp.where(mask, jnp.tanh(jnp.roll(x, 1)) * x, jnp.sin(x))
    return x


def task(transform, k):
    """Everything that keeps something between calls: traces, patterns, compiled programs, factors on the host."""
    n = 4 + k % 4
    mask = np.arange(n) % (2 + k // 4) == 0
    J = transform(jnp.linspace(0.1, 1.0 + k, n), 1 + k % 2, mask)
    b = jnp.linspace(-1.0, 1.0, n)
    parts = J.coo()[2], J @ b, J.solve(b)
    return str(J.structure), [np.asarray(part).tobytes() for part in parts]


def test_eight_threads_give_the_bits_of_one():
    expected = [task(cr.jacobian(flow), k) for k in range(THREADS)]
    assert len({bits[0] for _, bits in expected}) == THREADS  # they differ
    jax.clear_caches()
    transform, together = cr.jacobian(lambda *args: flow(*args)), threading.Barrier(THREADS)

    def run(first):
        together.wait()
        return {k % THREADS: task(transform, k % THREADS) for k in (first, first + 1)}

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, range(THREADS)))
    assert all(own[k] == expected[k] for own in found for k in own)


def test_threads_have_memory_limits_of_their_own():
    """What one thread may take is not what another may."""
    together, x = threading.Barrier(2), jnp.linspace(0.0, 1.0, 40)

    def run(limit):
        together.wait()
        try:
            return cr.jacobian(lambda x: jnp.cumsum(x) ** 2, memory_limit=limit)(x).shape
        except cr.MemoryLimitError:
            return None

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, [100, 10**9])) == [None, (40, 40)]


def resident():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from Linux")
def test_ten_thousand_calls_take_no_more_memory():
    """Of a transform, of products and of solves, with new arrays each time; no buffer stays, nor a program."""
    transform = cr.jacobian(flow)
    b, points = jnp.ones(64), np.linspace(0.1, 1.0, 64)

    def calls(count):
        for k in range(count):
            mask = np.arange(64) % 2 == 0  # a new array of the same numbers
            J = transform(points + 1e-6 * k, 2, mask if k % 2 else jnp.asarray(mask))
            if k % 10 == 0:
                J.T @ (J @ b)
                J.solve(b + k)
        del J
        gc.collect()
        return resident(), len(jax.live_arrays()), transform._compiled._cache_size()

    before, buffers, programs = calls(2000)
    after, buffers_after, programs_after = calls(10_000)
    assert programs_after == programs <= 2
    assert buffers_after <= buffers
    assert after - before < 4 * 2**20  # a call that kept its values would take 10 MB, one that kept its pattern 30


def test_what_is_kept_of_arguments_is_bounded():
    """Arrays of whole numbers that were read are remembered, but only so many."""
    transform, x = cr.jacobian(lambda x, i: x[i] ** 2), jnp.arange(4.0)
    for _ in range(300):
        transform(x, jnp.array([1, 2]))
    assert len(transform._last) <= 65
    assert transform._compiled._cache_size() == 1


def test_what_is_kept_of_a_function_goes_with_it():
    """Programs belong to the function: without it they are gone."""
    from chainrule._compiled import _CACHE

    gc.collect()
    before = len(_CACHE)
    for k in range(5):
        cr.jacobian(lambda x, k=k: x * k)(jnp.ones(2))
    gc.collect()
    assert len(_CACHE) <= before
