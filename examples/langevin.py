"""Walking by the score
====================

The score of a density, the gradient of its logarithm, points to where it is denser, and needs no normalizing factor.
Particles that follow it with some noise become samples of the density. Stein's identity tells whether they have: the
mean of φ(x) s(x)ᵀ + ∇φ(x) is 0 for samples, and many standard errors away for the points that they started from.

Run it: ``python examples/langevin.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

CENTRES, WEIGHTS, WIDTH = np.array([[-1.6, 0.0], [1.4, 1.0], [0.8, -1.3]]), np.array([0.5, 0.3, 0.2]), 0.7


def log_p(x):
    """A mixture of three normal densities."""
    return jax.nn.logsumexp(jnp.log(WEIGHTS) - ((x - CENTRES) ** 2).sum(1) / (2 * WIDTH**2))


def main():
    """Samples by Langevin's walk, their mean, and Stein's identity before and after."""
    start = jax.random.normal(jax.random.key(0), (2000, 2)) * 0.5 + jnp.array([0.0, 2.0])
    s = cr.score(log_p)
    walked = cr.langevin(s, start, jax.random.key(1), step=0.1, steps=400, log_p=log_p)
    print(f"{walked.accepted.mean():.1%} of the steps were taken")
    mean, sides = walked.x.mean(0), (walked.x[:, 0] < -0.3).mean()
    print(f"mean {np.round(mean, 3)}, that of the density {np.round(WEIGHTS @ CENTRES, 3)}; on the left {sides:.3f}")
    stein = cr.stein_residual(log_p, jnp.tanh)
    away = {}
    for name, x in (("start", start), ("samples", walked.x)):
        e = stein(x)
        away[name] = float((abs(e.value) / e.standard_error).max())
        print(f"Stein's identity, {name}: {away[name]:.1f} standard errors away from 0")
    one = cr.score(lambda x: -(((x - 1.0) / 2.0) ** 2) / 2)(3.0)
    print(f"score of a normal density of mean 1 and deviation 2 at 3: {one:.2f}")
    return {"start": start, "samples": walked.x, "away": away, "mean": mean, "score": one}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), sharex=True, sharey=True, layout="constrained")
    fine, coarse = np.mgrid[-4:4:101j, -3.6:3.6:101j], np.mgrid[-3.8:3.8:20j, -3.4:3.4:18j]
    arrows = np.array(jax.vmap(cr.score(log_p))(coarse.reshape(2, -1).T).T)
    p = jnp.exp(jax.vmap(log_p)(fine.reshape(2, -1).T)).reshape(fine.shape[1:])
    for ax in (left, right):
        ax.contour(*fine, p, levels=6, colors="#777777", linewidths=0.8)
        ax.set_aspect("equal")
    left.quiver(*coarse.reshape(2, -1), *arrows, color="#b5442e", width=0.003)
    left.scatter(*found["start"][::2].T, s=3, color="#d8973c")
    left.set_title("the score, and where the particles start")
    right.scatter(*found["samples"].T, s=3, color="#3b6ea5", alpha=0.7)
    right.set_title("after 400 steps")
    return fig


if __name__ == "__main__":
    figure(main())
