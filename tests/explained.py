"""Functions that are explained in the tests; the source is part of what is tested."""

import jax
import jax.numpy as jnp
import numpy as np

W = np.array([[1.0, -0.5], [0.8, 1.2], [-0.6, 0.9]])
b = np.array([0.1, -0.2, 0.3])
c = np.array([1.5, -1.0, 2.0])


def net(x):
    a = W @ x + b
    h = jnp.tanh(a)
    loss = c @ h
    return loss  # noqa: RET504


def one_line(x):
    return c @ jnp.tanh(W @ x + b)


def quadratic(x):
    return jnp.stack([x[0] ** 2 + x[1], x[0] * x[1]])


def softmax(x):
    z = W @ x
    s = jax.nn.softmax(z)
    return s  # noqa: RET504


def affine(x):
    return W @ x + b


@jax.jit
def act(a):
    h = jnp.tanh(a)
    k = h * h
    return k + h


def nested(x):
    a = affine(x)
    h = act(a)
    for _ in range(4):
        h = jnp.sin(h) * 2.0
    for _ in range(3):
        h = act(h)
        h = h / 2.0
    r, _ = jax.lax.scan(lambda s, t: (jnp.sin(s) * t, None), h, jnp.arange(1.0, 5.0))
    r = jax.lax.cond(r[0] > -9.0, lambda r: jnp.cos(r) * 2.0, lambda r: r, r)
    l = c @ r  # noqa: E741
    return l, x


@jax.custom_jvp
def rounded(x):
    return jnp.round(x)


rounded.defjvp(lambda primals, tangents: (rounded(*primals), tangents[0]))


@jax.custom_vjp
def clipped(x):
    return x * 3.0


clipped.defvjp(lambda x: (x * 3.0, None), lambda _, g: (g * 7.0,))


@jax.custom_vjp
def cut(x):
    return x * 3.0


cut.defvjp(lambda x: (x * 3.0, None), lambda _, g: (jnp.clip(g, -0.5, 0.5),))


@jax.custom_jvp
def bent(x):
    return x**2


bent.defjvp(lambda primals, tangents: (primals[0] ** 2, jnp.tanh(tangents[0])))


def called_back(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="sequential") * 2.0


def custom(x):
    r = rounded(x) * 2.0
    return r + jnp.sin(x)


def counted(x):
    k = jnp.argmax(x)
    y = x[k] * x
    return jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] * x), (0, y))[1]


def tree(p, scale):
    u = p["w"] @ p["v"]
    return {"sum": u.sum() * scale, "all": u}


def transformer(depth=12, width=16, length=8, heads=8):
    """A transformer of `depth` blocks, written in plain JAX, and its parameters."""
    rng = np.random.default_rng(0)

    def block():
        shapes = {"q": (width, width), "k": (width, width), "v": (width, width), "o": (width, width)}
        shapes |= {"up": (width, 4 * width), "down": (4 * width, width)}
        return {k: rng.normal(size=s) / np.sqrt(s[0]) for k, s in shapes.items()}

    parameters = [block() for _ in range(depth)]
    head = rng.normal(size=width)

    def normalised(x):
        mean = jnp.mean(x, axis=-1, keepdims=True)
        centred = x - mean
        variance = jnp.mean(centred**2, axis=-1, keepdims=True)
        return centred / jnp.sqrt(variance + 1e-5)

    def attention(x, p):
        outs = []
        for k in range(heads):
            part = slice(k * width // heads, (k + 1) * width // heads)
            q = x @ p["q"][:, part]
            keys = x @ p["k"][:, part]
            v = x @ p["v"][:, part]
            scores = q @ keys.T / np.sqrt(width // heads)
            masked = jnp.where(np.tril(np.ones((length, length), bool)), scores, -1e9)
            shifted = jnp.exp(masked - masked.max(axis=-1, keepdims=True))
            weights = shifted / shifted.sum(axis=-1, keepdims=True)
            outs.append(weights @ v)
        return jnp.concatenate(outs, axis=-1) @ p["o"]

    def gelu(x):
        inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1.0 + jnp.tanh(inner))

    def mlp(x, p):
        up = x @ p["up"]
        h = gelu(up)
        return h @ p["down"]

    def layer(x, p):
        x = x + attention(normalised(x), p)
        x = x + mlp(normalised(x), p)
        return x  # noqa: RET504

    def model(x):
        for p in parameters:
            x = layer(x, p)
        last = normalised(x)[-1]
        score = last @ head
        return score  # noqa: RET504

    return model, rng.normal(size=(length, width))
