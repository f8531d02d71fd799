"""The energy of the hydrogen atom, point by point
===============================================

Where ψ solves Schrödinger's equation, the local energy -½ Δψ/ψ - 1/r is the same number at every point: the Laplacian
balances the attraction of the nucleus. For the orbitals with n = 1, 2, 3, 4 it is -1/(2 n²). For a trial function
that is no solution it varies, and its mean over ``|ψ|²`` lies above the lowest energy: for exp(-r²/4) it is
3/8 - √(2/π).

Run it: ``python examples/hydrogen.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)


def orbital(n, angular):
    """The orbital of the largest angular momentum for n, r^(n-1) e^(-r/n) with a harmonic polynomial of degree n-1."""
    return lambda x: angular(*x) * jnp.exp(-jnp.sqrt(x @ x) / n)


ORBITALS = {
    "1s": orbital(1, lambda x, y, z: 1.0),
    "2p": orbital(2, lambda x, y, z: z),
    "3d": orbital(3, lambda x, y, z: 2 * z**2 - x**2 - y**2),
    "4f": orbital(4, lambda x, y, z: z * (2 * z**2 - 3 * x**2 - 3 * y**2)),
}


def local_energy(psi):
    return lambda x: -cr.laplacian(psi)(x) / (2 * psi(x)) - 1 / jnp.sqrt(x @ x)


def main():
    """The local energies of four orbitals, and of a trial function, at random points."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(500, 3))) * 3
    found = {}
    for n, (name, psi) in enumerate(ORBITALS.items(), 1):
        found[name] = jax.vmap(local_energy(psi))(x)
        print(
            f"{name}: from {found[name].min():.12f} to {found[name].max():.12f}; -1/(2·{n}²) = {-1 / (2 * n * n):.12f}"
        )
    drawn = jnp.asarray(np.random.default_rng(1).normal(size=(20_000, 3)))  # of |ψ|² for the trial function
    found["trial"] = energies = jax.vmap(local_energy(lambda x: jnp.exp(-(x @ x) / 4)))(drawn)
    error = energies.std() / len(energies) ** 0.5
    print(f"exp(-r²/4): mean {energies.mean():.3f} ± {error:.3f}; 3/8 - √(2/π) = {3 / 8 - (2 / np.pi) ** 0.5:.3f}")
    return found


def figure(found):
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
    for n, (ax, (name, psi)) in enumerate(zip(axes, ORBITALS.items(), strict=True), 1):
        size = 2.2 * n**1.7
        x, z = np.mgrid[-size:size:160j, -size:size:160j]
        value = np.array(jax.vmap(psi)(np.stack([x, 0 * x, z], -1).reshape(-1, 3))).reshape(x.shape)
        value = np.sign(value) * np.sqrt(abs(value) / abs(value).max())
        ax.pcolormesh(x, z, value, cmap="PuOr", vmin=-1, vmax=1, rasterized=True)
        ax.set(title=f"{name}: -½ Δψ/ψ - 1/r = -1/{2 * n * n}", aspect="equal", xlabel="x")
    axes[0].set_ylabel("z")
    return fig


if __name__ == "__main__":
    figure(main())
