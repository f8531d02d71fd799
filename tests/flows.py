"""Flows written as plain functions of n numbers: what log-determinants and inverses are tested with."""

import jax
import jax.numpy as jnp
import numpy as np

HIDDEN = 3  # times n: wide enough that differentiating a conditioner would show


def point(n, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=n))


def weights(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=s) / np.sqrt(s[0])) for s in shapes]


def conditioner(n_in, n_out, seed=0):
    first, scale, shift = weights((n_in, HIDDEN * n_in), (HIDDEN * n_in, n_out), (HIDDEN * n_in, n_out), seed=seed)

    def run(a):
        h = jnp.tanh(a @ first)
        return jnp.tanh(h @ scale), h @ shift

    return run


def coupling(n, seed=0):
    run = conditioner(n // 2, n // 2, seed)

    def f(x):
        a, b = jnp.split(x, 2)
        s, t = run(a)
        return jnp.concatenate([a, b * jnp.exp(s) + t])

    return f


def real_nvp(n):
    """Couplings with a known permutation between them."""
    layers, order = [coupling(n, seed) for seed in range(3)], np.random.default_rng(0).permutation(n)

    def f(x):
        for layer in layers:
            x = layer(x)[order]
        return x

    return f


def halves(n):
    """Two arrays side by side, that only together are all there is."""
    runs = [conditioner(n // 2, n // 2, seed) for seed in range(3)]

    def f(x):
        a, b = x[: n // 2], x[n // 2 :]
        for run in runs:
            s, t = run(a)
            a, b = b * jnp.exp(s) + t, a
        return jnp.concatenate([a, b])

    return f


def masked(n):
    """Alternating masks, as the paper of RealNVP has them."""
    runs, mask = [conditioner(n, n, seed) for seed in range(3)], (np.arange(n) % 2).astype(float)

    def f(x):
        for k, run in enumerate(runs):
            m = mask if k % 2 else 1 - mask
            s, t = run(m * x)
            x = m * x + (1 - m) * (x * jnp.exp(s) + t)
        return x

    return f


def made(n, seed=0):
    first, scale, shift = weights((n, HIDDEN * n), (HIDDEN * n, n), (HIDDEN * n, n), seed=seed)
    own, hidden = np.arange(n), np.arange(HIDDEN * n) % max(n - 1, 1)
    into, out = (hidden[None] >= own[:, None]).astype(float), (own[None] > hidden[:, None]).astype(float)

    def f(x):
        h = jnp.tanh(x @ (first * into))
        return (x - h @ (shift * out)) * jnp.exp(-jnp.tanh(h @ (scale * out)))

    return f


def maf(n):
    layers = [made(n, seed) for seed in range(3)]

    def f(x):
        for layer in layers:
            x = layer(x)[::-1]
        return x

    return f


def planar(n):
    u, w = weights((n, 3), (n, 3))

    def f(x):
        for k in range(3):
            x = x + 0.5 * (u + w)[:, k] * jnp.tanh(w[:, k] @ x + 0.1)
        return x

    return f


def residual(n):
    """A dense Jacobian, or one of low rank beside the identity for large n: the waist has two numbers."""
    U, V = weights((n, 2), (2, n))

    def f(x):
        return x + 0.1 * U @ jnp.tanh(V @ x)

    return f


def householder(n):
    (V,) = weights((n, 3))

    def f(x):
        for v in V.T:
            x = x - 2 * v * (v @ x) / (v @ v)
        return x

    return f


def orthogonal(n):
    """A rotation by QR, and one by the exponential of a skew matrix."""
    A, B = weights((n, n), (n, n))

    def f(x):
        return jax.scipy.linalg.expm(B - B.T) @ (jnp.linalg.qr(A)[0] @ x)

    return f


def scanned(n):
    first, scale, shift = weights((n // 2, n), (n, n // 2), (n, n // 2))

    def step(x, w):
        a, b = jnp.split(x, 2)
        h = jnp.tanh(a @ w[0])
        return jnp.concatenate([b * jnp.exp(jnp.tanh(h @ w[1])) + h @ w[2], a]), None

    stacked = tuple(jnp.stack([w, 0.5 * w, -w]) for w in (first, scale, shift))
    return lambda x: jax.lax.scan(step, x, stacked)[0]


def squeeze(x):
    h, w, c = x.shape
    return x.reshape(h // 2, 2, w // 2, 2, c).transpose(0, 2, 1, 3, 4).reshape(h // 2, w // 2, 4 * c)


def conv(x, W):
    return jax.lax.conv_general_dilated(x[None], W, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))[0]


def glow(n):
    """Multi-scale: squeeze, actnorm, 1×1 convolution, coupling by a convolutional network; half is put out early."""
    side, levels = int(np.sqrt(n)), []
    for seed, c in enumerate((4, 8)):
        first, last, W, bias, scale = weights((3, 3, c // 2, 6), (3, 3, 6, c), (c, c), (1, 1, c), (1, 1, c), seed=seed)
        levels.append((first, last, W, bias, 0.3 * scale))

    def f(x):
        x, out = x.reshape(side, side, 1), []
        for first, last, W, bias, scale in levels:
            x = ((squeeze(x) + bias) * jnp.exp(scale)) @ W
            a, b = jnp.split(x, 2, axis=-1)
            s, t = jnp.split(conv(jnp.tanh(conv(a, first)), last), 2, axis=-1)
            z, x = jnp.split(jnp.concatenate([a, b * jnp.exp(jnp.tanh(s)) + t], axis=-1), 2, axis=-1)
            out.append(z)
        return jnp.concatenate([z.reshape(-1) for z in (*out, x)])

    return f


FLOWS = {
    f.__name__: f
    for f in (coupling, real_nvp, halves, masked, made, maf, planar, residual, householder, orthogonal, scanned, glow)
}
