"""An arm with more joints than it needs
=====================================

A plane arm of five joints reaches for a point: its Jacobian is 2 × 5, of rank 2. The least change of the angles that
moves the hand as wanted is a least-squares solution; the three-dimensional kernel moves the joints and leaves the
hand where it is. How well the hand moves in each direction is an ellipse: J maps the unit ball of joint speeds to it.

Run it: ``python examples/robot_arm.py``
"""

import jax
import jax.numpy as jnp
import numpy as np

import chainrule as cr

jax.config.update("jax_enable_x64", True)

LENGTHS, TARGET = np.array([1.0, 0.9, 0.8, 0.6, 0.4]), jnp.array([1.2, 1.9])
rest = jnp.array([0.4, 0.3, 0.3, 0.2, 0.2])


def joints(angles):
    """The places of all joints and of the hand, [2, 6], for angles that add up along the arm."""
    turn = jnp.cumsum(angles)
    steps = jnp.stack([LENGTHS * jnp.cos(turn), LENGTHS * jnp.sin(turn)])
    return jnp.concatenate([jnp.zeros((2, 1)), jnp.cumsum(steps, 1)], 1)


def hand(angles):
    return joints(angles)[:, -1]


value_and_jacobian = cr.value_and_jacobian(hand)


def reach(angles, target, steps=30):
    """Gauss-Newton steps, of least change each, no longer than half a turn in all."""
    for _ in range(steps):
        place, J = value_and_jacobian(angles)
        change = J.lstsq(target - place)
        angles = angles + change * jnp.minimum(1.0, 0.5 / jnp.linalg.norm(change))
    return angles


def main():
    """The hand reaches the point, and stays there while the joints move on."""
    reached = reach(rest, TARGET)
    J = cr.jacobian(hand)(reached)
    print(f"hand at {hand(reached)}, {jnp.linalg.norm(hand(reached) - TARGET):.1e} from the target")
    print(f"J is of rank {J.rank()}; surjective: {J.is_surjective()}, injective: {J.is_injective()}")
    path, along = [reached], J.null_space()[:, 0]
    for _ in range(40):
        kernel = cr.jacobian(hand)(path[-1]).null_space()
        along = kernel @ (kernel.T @ along)  # the part of the last direction that leaves the hand alone
        path.append(reach(path[-1] + 0.06 * along / jnp.linalg.norm(along), TARGET, steps=2))
    drift = max(float(jnp.linalg.norm(hand(angles) - TARGET)) for angles in path)
    print(f"the joints move by {jnp.linalg.norm(path[-1] - reached):.2f}, the hand by at most {drift:.1e}")
    return {"reached": reached, "J": J, "path": path, "drift": drift}


def figure(found):
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), sharex=True, sharey=True, layout="constrained")
    circle = np.stack([np.cos(t := np.linspace(0, 2 * np.pi, 100)), np.sin(t)])
    for k, angles in enumerate((rest, reach(rest, TARGET, 2), reach(rest, TARGET, 4), found["reached"])):
        color = ("#999999", "#9dbbd8", "#6f96c0", "#3b6ea5")[k]
        left.plot(*joints(angles), "o-", lw=3, color=color)
        u, s, _ = np.linalg.svd(cr.jacobian(hand)(angles).dense())
        left.plot(*(np.asarray(hand(angles))[:, None] + 0.15 * u @ (s[:, None] * circle)), color=color, lw=1)
    for k, angles in enumerate(found["path"][::5]):
        right.plot(*joints(angles), "o-", lw=2, color=plt.get_cmap("viridis")(k / 9))
    for ax, title in ((left, "reaching for a point"), (right, "moving in the kernel of J")):
        ax.plot(*TARGET, "*", ms=18, color="#b5442e", zorder=5)
        ax.set(title=title, aspect="equal")
    return fig


if __name__ == "__main__":
    figure(main())
