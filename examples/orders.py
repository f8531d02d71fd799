"""One product, many costs
=======================

The product of the local Jacobians has one value, whatever the order in which it is multiplied, and very different
costs. From the input the cost goes with the number of inputs, from the output with that of outputs; where the network
has a narrow waist, it is cheapest to start there, both ways. ``plan`` counts the multiply-adds from shapes alone and
takes the cheapest: nothing is run, so that a million inputs are no trouble.

Run it: ``python examples/orders.py``
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

INPUTS, WIDE, WAIST = 512, 1024, 8
OUTPUTS = [2**k for k in range(0, 15, 2)]


def network(x, W):
    for w in W:
        x = jnp.tanh(w @ x)
    return x


def chain(*widths):
    """The plan of a network with these widths."""
    shapes = [jax.ShapeDtypeStruct((m, n), jnp.float32) for n, m in itertools.pairwise(widths)]
    return cr.plan(network)(jax.ShapeDtypeStruct(widths[:1], jnp.float32), shapes)


def costs(plan):
    """Multiply-adds by order; there is a mixed one where it saves."""
    return {order.name: order.multiply_adds for order in plan.orders}


def main():
    """Costs of a network with a waist, by its number of outputs; and of one with a million inputs and one output."""
    found = {m: chain(INPUTS, WIDE, WAIST, WIDE, m) for m in OUTPUTS}
    for m, plan in found.items():
        print(f"{m:6} outputs: {plan.chosen} of", {name: f"{cost:.3g}" for name, cost in costs(plan).items()})
    large = chain(10**6, *[1000] * 10, 1)
    ratio = large["forward"].multiply_adds / large["reverse"].multiply_adds
    print(f"a million inputs, ten layers of a thousand, one output: reverse is {ratio:,.0f} times cheaper")
    return {"plans": found, "large": large, "ratio": ratio}


def figure(found):
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(8, 4.6), layout="constrained")
    drawn = {"forward": ("from the input", "#3b6ea5"), "reverse": ("from the output", "#b5442e")}
    drawn["mixed"] = "from the waist, both ways", "#4c8a4a"
    for order, (label, color) in drawn.items():
        cost = [costs(plan).get(order, np.nan) for plan in found["plans"].values()]
        ax.loglog(OUTPUTS, cost, "o-", color=color, label=label)
    chosen = [plan[plan.chosen].multiply_adds for plan in found["plans"].values()]
    ax.loglog(OUTPUTS, chosen, "o", ms=13, mfc="none", color="#444444", label="chosen")
    ax.set(xlabel="outputs", ylabel="multiply-adds of the Jacobian")
    ax.set_title(f"{INPUTS} inputs → {WIDE} → a waist of {WAIST} → {WIDE} → outputs")
    ax.legend()
    return fig


if __name__ == "__main__":
    figure(main())
