"""Jacobians over all devices of all processes: a Newton step of the 2-D Brusselator, and per-sample Jacobians.

python examples/cluster/distributed.py                                          one process
python examples/cluster/distributed.py --address HOST:1234 --count 4 --index 0  one of four, each with its own index
srun python examples/cluster/distributed.py --cluster                           SLURM, a TPU pod: JAX finds the others
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

import chainrule as cr


def split(mesh, array, *axes):
    """An array of which each process makes and holds its own part."""
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, PartitionSpec(*axes)), lambda k: array[k])


def step(y, x, dt=0.01):
    """The residual of a step of implicit Euler from x to y, both of shape (2, N, N)."""
    u, v = y
    lu, lv = (sum(jnp.roll(w, by, k) for k in (0, 1) for by in (1, -1)) - 4 * w for w in (u, v))
    return y - x - dt * jnp.stack([1 + u**2 * v - 4.4 * u + lu, 3.4 * u - u**2 * v + lv])


def network(x, w):
    return x + jnp.tanh(jnp.tanh(x @ w) @ w.T)


def main(size=16, rounds=1):
    mesh = jax.make_mesh((jax.device_count(),), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    rng = np.random.default_rng(0)
    y = x = split(mesh, rng.random((2, size, size), np.float32), None, "d")  # rows of the grid
    samples, w = split(mesh, rng.random((size, 4), np.float32), "d"), split(mesh, rng.random((4, 8), np.float32))
    for _ in range(rounds):
        F, J = cr.value_and_jacobian(step)(y, x)
        y = y - J.solve(F, method="bicgstab")  # of products alone: a direct solve of a sparse J is one host's
        log_det = cr.jacobian(network)(samples, w).slogdet()[1]
    found = {"trace": J.trace(), "|F|": jnp.abs(F).max(), "|y|": jnp.sum(y * y), "log |det|": log_det}
    return {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--address"), parser.add_argument("--cluster", action="store_true")
    for name, default in {"--count": None, "--index": None, "--size": 16, "--rounds": 1}.items():
        parser.add_argument(name, type=int, default=default)
    given = parser.parse_args()
    if given.cluster or given.address:  # before JAX starts; a process that is lost ends the others within seconds
        limits = {"heartbeat_timeout_seconds": 10, "shutdown_timeout_seconds": 20}
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(given.address, given.count, given.index, **limits)
    name = f"process {jax.process_index()} of {jax.process_count()}"
    print(f"{name} started", flush=True)
    print(f"{name}:", json.dumps(main(given.size, given.rounds)))
