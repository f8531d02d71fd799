"""Normalizing flows written as plain functions: the log-likelihood of a batch, and its gradient by the parameters.

By hand: every layer gives its own log-determinant beside its value, as the papers derive it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr
from solve_problems.task import VARIANTS, Task, Ways, jitted

BATCH, LAYERS = 16, 4


@dataclass(frozen=True)
class Flow:
    """A flow of one point and its parameters; the same with its log-determinant, of one point too."""

    f: Callable[..., Any]
    by_hand: Callable[..., Any]
    parameters: Callable[[np.random.Generator, int], Any]


def base(z: Any) -> Any:
    return -0.5 * sum(jnp.sum(part**2) for part in jax.tree.leaves(z))


# RealNVP: one half scales and shifts the other (Dinh, Sohl-Dickstein and Bengio 2017) ---------------------------------


def conditioner(a: Any, p: Any) -> Any:
    h = jnp.tanh(a @ p["in"])
    return jnp.tanh(h @ p["scale"]), h @ p["shift"]


def coupling_parameters(rng: np.random.Generator, n: int) -> Any:
    half = n // 2
    shapes = {"in": (half, n), "scale": (n, half), "shift": (n, half)}
    return [{k: rng.normal(size=s) / np.sqrt(s[0]) for k, s in shapes.items()} for _ in range(LAYERS)]


def real_nvp(x: Any, layers: Any) -> Any:
    for p in layers:
        a, b = jnp.split(x, 2)
        s, t = conditioner(a, p)
        x = jnp.concatenate([b * jnp.exp(s) + t, a])
    return x


def real_nvp_by_hand(x: Any, layers: Any) -> Any:
    log = 0.0
    for p in layers:
        a, b = jnp.split(x, 2)
        s, t = conditioner(a, p)
        x, log = jnp.concatenate([b * jnp.exp(s) + t, a]), log + s.sum()
    return x, log


# MAF: number i is scaled and shifted by those before it (Papamakarios, Pavlakou and Murray 2017) ----------------------


def masks(n: int) -> tuple[np.ndarray, np.ndarray]:
    inputs, hidden = np.arange(n), np.arange(n) % (n - 1)
    return (hidden[None] >= inputs[:, None]).astype(float), (inputs[None] > hidden[:, None]).astype(float)


def made(x: Any, p: Any) -> Any:
    first, last = masks(len(x))
    h = jnp.tanh(x @ (p["in"] * first))
    return jnp.tanh(h @ (p["scale"] * last)), h @ (p["shift"] * last)


def made_parameters(rng: np.random.Generator, n: int) -> Any:
    return [{k: rng.normal(size=(n, n)) / np.sqrt(n) for k in ("in", "scale", "shift")} for _ in range(LAYERS)]


def maf(x: Any, layers: Any) -> Any:
    for p in layers:
        s, t = made(x, p)
        x = ((x - t) * jnp.exp(-s))[::-1]
    return x


def maf_by_hand(x: Any, layers: Any) -> Any:
    log = 0.0
    for p in layers:
        s, t = made(x, p)
        x, log = ((x - t) * jnp.exp(-s))[::-1], log - s.sum()
    return x, log


# planar layers: identity + rank one (Rezende and Mohamed 2015) --------------------------------------------------------


def planar_parameters(rng: np.random.Generator, n: int) -> Any:
    w = rng.normal(size=(2 * LAYERS, n)) / np.sqrt(n)
    return list(zip(0.5 * w + 0.2 * rng.normal(size=w.shape) / np.sqrt(n), w, strict=True))  # uᵀw > -1: one-to-one


def planar(x: Any, layers: Any) -> Any:
    for u, w in layers:
        x = x + u * jnp.tanh(w @ x + 0.1)
    return x


def planar_by_hand(x: Any, layers: Any) -> Any:
    log = 0.0
    for u, w in layers:
        h = jnp.tanh(w @ x + 0.1)
        x, log = x + u * h, log + jnp.log(abs(1 + (1 - h**2) * (w @ u)))
    return x, log


# orthogonal layers: reflections, whose logarithm is 0, and scales between them (Tomczak and Welling 2016) -------------


def reflection_parameters(rng: np.random.Generator, n: int) -> Any:
    return [(v, 0.1 * s) for v, s in rng.normal(size=(2 * LAYERS, 2, n))]


def reflections(x: Any, layers: Any) -> Any:
    for v, s in layers:
        x = (x - 2 * v * (v @ x) / (v @ v)) * jnp.exp(s)
    return x


def reflections_by_hand(x: Any, layers: Any) -> Any:
    return reflections(x, layers), sum(s.sum() for _, s in layers)


# residual layers with a waist: identity + rank n/32 -------------------------------------------------------------------


def residual_parameters(rng: np.random.Generator, n: int) -> Any:
    r = n // 32
    return [(rng.normal(size=(n, r)) / n, rng.normal(size=(r, n)) / np.sqrt(n)) for _ in range(LAYERS)]


def residual(x: Any, layers: Any) -> Any:
    for U, V in layers:
        x = x + U @ jnp.tanh(V @ x)
    return x


def residual_by_hand(x: Any, layers: Any) -> Any:
    log = 0.0
    for U, V in layers:
        h = jnp.tanh(V @ x)
        small = jnp.eye(len(h)) + (1 - h**2)[:, None] * (V @ U)
        x, log = x + U @ h, log + jnp.linalg.slogdet(small)[1]
    return x, log


# Glow: actnorm, 1×1 convolution, coupling by a convolutional network; half is put out (Kingma and Dhariwal 2018) ------


def squeeze(x: Any) -> Any:
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 1, 3, 4).reshape(h // 2, w // 2, 4 * c)


def conv(x: Any, W: Any) -> Any:
    return jax.lax.conv_general_dilated(x[None], W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def network(a: Any, p: Any) -> Any:
    h = jnp.tanh(conv(jnp.tanh(conv(a, p["first"])), p["middle"]))
    s, t = jnp.split(conv(h, p["last"]), 2, axis=-1)
    return jnp.tanh(s), t


def glow_parameters(rng: np.random.Generator, n: int) -> Any:
    levels = []
    for c in (4, 8):
        shapes = {"first": (3, 3, c // 2, 32), "middle": (1, 1, 32, 32), "last": (3, 3, 32, c)}
        one = {k: 0.3 * rng.normal(size=s) / np.sqrt(s[2]) for k, s in shapes.items()}
        own = {"bias": rng.normal(size=c), "scale": 0.1 * rng.normal(size=c)}
        levels.append([{**one, **own, "W": np.linalg.qr(rng.normal(size=(c, c)))[0]} for _ in range(2)])
    return levels


def glow(x: Any, levels: Any) -> Any:
    x, out = x.reshape(int(np.sqrt(len(x))), -1, 1), []
    for steps in levels:
        x = squeeze(x)
        for p in steps:
            x = ((x + p["bias"]) * jnp.exp(p["scale"])) @ p["W"]
            a, b = jnp.split(x, 2, axis=-1)
            s, t = network(a, p)
            x = jnp.concatenate([a, b * jnp.exp(s) + t], axis=-1)
        z, x = jnp.split(x, 2, axis=-1)
        out.append(z)
    return [*out, x]


def glow_by_hand(x: Any, levels: Any) -> Any:
    x, out, log = x.reshape(int(np.sqrt(len(x))), -1, 1), [], 0.0
    for steps in levels:
        x = squeeze(x)
        for p in steps:
            x = ((x + p["bias"]) * jnp.exp(p["scale"])) @ p["W"]
            a, b = jnp.split(x, 2, axis=-1)
            s, t = network(a, p)
            x = jnp.concatenate([a, b * jnp.exp(s) + t], axis=-1)
            pixels = x.shape[0] * x.shape[1]
            log = log + s.sum() + pixels * (p["scale"].sum() + jnp.linalg.slogdet(p["W"])[1])
        z, x = jnp.split(x, 2, axis=-1)
        out.append(z)
    return [*out, x], log


FLOWS = {
    "RealNVP": Flow(real_nvp, real_nvp_by_hand, coupling_parameters),
    "MAF": Flow(maf, maf_by_hand, made_parameters),
    "planar": Flow(planar, planar_by_hand, planar_parameters),
    "orthogonal": Flow(reflections, reflections_by_hand, reflection_parameters),
    "residual": Flow(residual, residual_by_hand, residual_parameters),
    "Glow": Flow(glow, glow_by_hand, glow_parameters),
}


def likelihoods(flow: Flow) -> dict[str, Callable[..., Any]]:
    """Ways to the mean log-likelihood of a batch, from the parameters and the batch."""
    log_p = cr.transform_log_density(base, flow.f, batched=True)

    def by_hand(x: Any, parameters: Any) -> Any:
        z, log = flow.by_hand(x, parameters)
        return base(z) + log

    def dense(x: Any, parameters: Any) -> Any:
        def flat(x: Any) -> Any:
            return jnp.concatenate([z.reshape(-1) for z in jax.tree.leaves(flow.f(x, parameters))])

        return base(flat(x)) + jnp.linalg.slogdet(jax.jacfwd(flat)(x))[1]

    def mean(one: Any) -> Any:
        return lambda parameters, x: jax.vmap(one, (0, None))(x, parameters).mean()

    return {
        "ours": lambda parameters, x: log_p(x, parameters).mean(),
        "by hand": mean(by_hand),
        "dense JAX": mean(dense),
    }


def make(flow: Flow, n: int, gradient: bool) -> Ways:
    rng = np.random.default_rng(0)
    inputs = [(flow.parameters(rng, n), rng.normal(size=(BATCH, n))) for _ in range(VARIANTS)]
    made = {k: jax.value_and_grad(f) if gradient else f for k, f in likelihoods(flow).items()}
    if n > 512:
        del made["dense JAX"]  # its gradient keeps several GiB
    ways = {name: jitted(f, inputs) for name, f in made.items()}
    slow = frozenset({"dense JAX"} & set(made) if n > 128 else ())
    for name in slow:
        ways[name](0)  # the run that is timed compiles nothing
    return Ways(ways, jax.tree.map(np.asarray, ways["by hand"](0)), once=slow)


def tasks_of(name: str, flow: Flow) -> list[Task]:
    small, *sizes = (64, 256, 1024) if name == "Glow" else (32, 64, 128, 256, 512)
    full = [(n, gradient, False) for gradient in (False, True) for n in sizes]
    return [
        Task(
            f"{name} n={n}: log-likelihood{', gradient' * gradient}",
            functools.partial(make, flow, n, gradient),
            times={"by hand": 0.5},
            smoke=smoke,
        )
        for n, gradient, smoke in [(small, True, True), *full]
    ]


tasks = [task for name, flow in FLOWS.items() for task in tasks_of(name, flow)]
