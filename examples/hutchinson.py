"""The trace of a Jacobian from a few products
===========================================

Hutchinson's estimate of the trace takes products of J with random signs, and no matrix: its error falls with the
square root of their number. Where the singular values fall, Hutch++ sees the large part exactly and estimates the
rest: its error falls far faster. Each estimate says how far off it may be.

Run it: ``python examples/hutchinson.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

N, REPEATS = 80, 256
rng = np.random.default_rng(0)
Q, R = (np.linalg.qr(rng.normal(size=(N, N)))[0] for _ in range(2))
decay = 10 * np.arange(1, N + 1.0) ** -2.0
x0 = rng.normal(size=N)
PROBES = {"hutchinson": (8,), "hutch++": (9, 36)}


def f(x):
    """A layer whose Jacobian has falling singular values."""
    return Q @ (decay * jnp.tanh(Q.T @ x)) + R @ (decay * jnp.sin(R.T @ x)) / 3


def estimates(method, probes):
    """Values and standard errors of many independent estimates."""
    estimate = cr.trace_estimate(f, method=method, probes=probes)
    return jax.jit(jax.vmap(lambda key: estimate(x0, key=key)))(jax.random.split(jax.random.key(probes), REPEATS))


def main():
    """The exact trace, and the error of each method by the number of products."""
    exact, found = float(cr.trace_estimate(f, method="exact")(x0).value), {}
    print(f"exact trace {exact:.6f}")
    for method, counts in PROBES.items():
        found[method] = []
        for probes in counts:
            e = estimates(method, probes)
            found[method].append((probes, float(jnp.sqrt(jnp.mean((e.value - exact) ** 2)))))
            if method == "hutchinson":  # means of independent estimates are estimates of more probes
                for k in (2, 4):
                    means = e.value.reshape(-1, k).mean(1)
                    found[method].append((probes * k, float(jnp.sqrt(jnp.mean((means - exact) ** 2)))))
                spread = jnp.sqrt((e.standard_error.reshape(-1, 4) ** 2).sum(1)) / 4
                covered = float((abs(means - exact) < 3 * spread).mean())
        print(f"{method:11}", *(f"{probes} products: {error:.1e}" for probes, error in found[method]), sep="  ")
    print(f"Hutchinson's with 32 products is within three standard errors in {covered:.1%} of the cases")
    return {"exact": exact, "errors": found, "covered": covered}


def figure(found):
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 4.6), layout="constrained")
    for (method, errors), color in zip(found["errors"].items(), ("#3b6ea5", "#b5442e"), strict=True):
        ax.loglog(*np.transpose(errors), "o-", color=color, label=method)
    probes = np.array([8, 32])
    ax.loglog(
        probes, found["errors"]["hutchinson"][0][1] * np.sqrt(8 / probes), "--", color="#777777", label="1/√products"
    )
    ax.set(xlabel="products with J", ylabel="root mean square error", title=f"the trace of a Jacobian of {N} × {N}")
    ax.set_xticks([8, 16, 32], ["8", "16", "32"])
    ax.minorticks_off()
    ax.legend()
    return fig


if __name__ == "__main__":
    figure(main())
