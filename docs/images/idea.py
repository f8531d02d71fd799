"""Draw the picture of the README: the local Jacobians of three steps, as chainrule and as `jax.jacfwd` multiply them.

python docs/images/idea.py
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

import chainrule as cr

N = 16
INK, QUIET, FILL = "#1f2933", "#7b8794", "#0072b2"


def diffuse(x):
    return x + 0.1 * (jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1))


def pairs(x):
    return x[::2] * x[1::2]


STEPS = {"pairs": pairs, "tanh": jnp.tanh, "diffuse": diffuse}


def model(x):
    return pairs(jnp.tanh(diffuse(x)))


def square(ax, shown, name, below, colour=FILL):
    m, n = shown.shape
    ax.imshow(shown, cmap=mpl.colors.ListedColormap(["#ffffff", colour]), vmin=0, vmax=1, extent=(0, n, m, 0))
    ax.set(xticks=[], yticks=[], xlim=(0, N), ylim=(N, 0))
    if shown.all():
        ax.vlines(range(1, n), 0, m, color="#ffffff", lw=0.8)
    ax.add_patch(plt.Rectangle((0, 0), n, m, fill=False, color=INK, lw=0.8, clip_on=False))
    ax.axis("off")
    ax.set_title(name, fontsize=10, color=INK)
    ax.text(n / 2, m + 0.6, below, ha="center", va="top", fontsize=8.5, color=QUIET)


def sign(ax, text):
    ax.axis("off")
    ax.text(0.5, 0.62, text, ha="center", va="center", fontsize=16, color=INK, transform=ax.transAxes)


def figure():
    x = jnp.linspace(0.1, 1.0, N)
    points = {"diffuse": x, "tanh": diffuse(x), "pairs": jnp.tanh(diffuse(x))}
    local = {name: cr.jacobian(step)(points[name]) for name, step in STEPS.items()}
    J = cr.jacobian(model)(x)
    fig, axes = plt.subplots(2, 8, figsize=(9, 4.6), width_ratios=[2.4, 4, 0.6, 4, 0.6, 4, 0.6, 4])
    for row, head, said in zip(
        axes, ("chainrule", "jax.jacfwd"), ("multiplies\nstructures", "pushes a\ndense identity"), strict=True
    ):
        row[0].axis("off")
        row[0].text(0, 0.72, head, fontsize=11, weight="bold", color=INK, transform=row[0].transAxes, va="bottom")
        row[0].text(0, 0.69, said, fontsize=9, color=QUIET, transform=row[0].transAxes, va="top")
        for ax, text in zip(row[2::2], "··=", strict=True):
            sign(ax, text)
    for ax, (name, Jk) in zip(axes[0, 1:7:2], local.items(), strict=True):
        square(ax, Jk.dense() != 0, f"$J$ of {name}", f"{Jk.structure.kind}\n{Jk.nnz} numbers")
    square(axes[0, 7], J.dense() != 0, "$J$", f"{J.structure.kind}\n{J.nnz} numbers")
    for ax, (name, Jk) in zip(axes[1, 1:7:2], local.items(), strict=True):
        m, n = Jk.shape
        square(ax, jnp.ones((m, n)), f"{N} columns, {name}", f"{m * N} numbers", "#e69f00")
    dense = jax.jacfwd(model)(x)
    square(
        axes[1, 7],
        jnp.ones(dense.shape),
        "$J$",
        f"{dense.size} numbers,\n{int((dense == 0).sum())} of them 0",
        "#e69f00",
    )
    fig.subplots_adjust(left=0.01, right=0.99, top=0.93, bottom=0.06, wspace=0.05, hspace=0.42)
    return fig


if __name__ == "__main__":
    with mpl.rc_context({"svg.hashsalt": "chainrule", "svg.fonttype": "path"}):
        figure().savefig(Path(__file__).with_suffix(".svg"), metadata={"Date": None}, facecolor="white")
