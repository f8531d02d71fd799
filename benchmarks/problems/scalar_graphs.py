"""Small functions of scalars whose Jacobians the literature on vertex elimination counts multiplications for.

Subexpressions are written out as often as in the graphs of Lohoff and Neftci, Optimizing automatic differentiation with
deep reinforcement learning (2024), so that counts compare: forward and reverse mode take exactly the multiplications
published there for the arm, the dipoles and the propane. Roe's 1-D flux takes 614 and 366 here, 620 and 364 there,
where |u| stands for |u - a|. `python benchmarks/scalar_counts.py` prints the counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erf
from problem import Problem

Scalars = tuple[Array, ...]

GAMMA = 1.4  # the ratio of specific heats of air


def roe_flux_1d(rho_l: Array, m_l: Array, E_l: Array, rho_r: Array, m_r: Array, E_r: Array) -> Scalars:
    """Roe's approximate solution of the Riemann problem of the 1-D Euler equations: the flux from left to right.

    Roe, Approximate Riemann solvers, parameter vectors, and difference schemes (1981). A state is (density, momentum,
    energy), each per volume.
    """

    def pressure(rho: Array, m: Array, E: Array) -> Array:
        return (GAMMA - 1) * (E - 0.5 * m**2 / rho)

    def flux(rho: Array, m: Array, E: Array, p: Array) -> Scalars:
        velocity = m / rho
        return m, p + m * velocity, velocity * (p + E)

    def mean(left: Array, right: Array) -> Array:
        return (jnp.sqrt(rho_l) * left + jnp.sqrt(rho_r) * right) / weights

    rho, weights = jnp.sqrt(rho_l * rho_r), jnp.sqrt(rho_l) + jnp.sqrt(rho_r)
    p_l, p_r = pressure(rho_l, m_l, E_l), pressure(rho_r, m_r, E_r)
    u_l, u_r = m_l / rho_l, m_r / rho_r
    u, h = mean(u_l, u_r), mean((E_l + p_l) / rho_l, (E_r + p_r) / rho_r)
    square = u**2
    a2 = (GAMMA - 1) * (h - 0.5 * square)
    a = jnp.sqrt(a2)

    dp, du, impedance = p_r - p_l, u_r - u_l, rho * a
    slow, fast = u - a, u + a
    entropy = (rho_r - rho_l - dp / a2) * jnp.abs(u)
    right = (du + dp / impedance) * jnp.abs(fast)
    left = (du - dp / impedance) * jnp.abs(slow)
    scale = 0.5 * rho / a
    jumps = (
        entropy + scale * right - scale * left,
        entropy * u + scale * right * fast - scale * left * slow,
        entropy * 0.5 * square + scale * right * (h + u * a) - scale * left * (h - u * a),
    )
    both = zip(flux(rho_l, m_l, E_l, p_l), flux(rho_r, m_r, E_r, p_r), jumps, strict=True)
    return tuple(0.5 * (f_l + f_r - jump) for f_l, f_r, jump in both)


def roe_flux_3d(*states: Array) -> Scalars:
    """The same for the 3-D Euler equations, through a face with normal x: (density, 3 momenta, energy) on each side.

    The strengths of the waves as in Toro, Riemann Solvers and Numerical Methods for Fluid Dynamics (2009), 11.2.
    """
    (rho_l, *m_l, E_l), (rho_r, *m_r, E_r) = states[:5], states[5:]

    def pressure(rho: Array, m: list[Array], E: Array) -> Array:
        return (GAMMA - 1) * (E - 0.5 * (m[0] ** 2 + m[1] ** 2 + m[2] ** 2) / rho)

    def flux(rho: Array, m: list[Array], E: Array, p: Array) -> Scalars:
        u, v, w = (k / rho for k in m)
        return m[0], p + m[0] * u, m[0] * v, m[0] * w, u * (p + E)

    def mean(left: Array, right: Array) -> Array:
        return (jnp.sqrt(rho_l) * left + jnp.sqrt(rho_r) * right) / weights

    weights = jnp.sqrt(rho_l) + jnp.sqrt(rho_r)
    p_l, p_r = pressure(rho_l, m_l, E_l), pressure(rho_r, m_r, E_r)
    u, v, w = (mean(k_l / rho_l, k_r / rho_r) for k_l, k_r in zip(m_l, m_r, strict=True))
    h = mean((E_l + p_l) / rho_l, (E_r + p_r) / rho_r)
    square = u**2 + v**2 + w**2
    a2 = (GAMMA - 1) * (h - 0.5 * square)
    a = jnp.sqrt(a2)

    drho, dE = rho_r - rho_l, E_r - E_l
    dm = [k_r - k_l for k_l, k_r in zip(m_l, m_r, strict=True)]
    slow, fast = u - a, u + a
    entropy = (GAMMA - 1) / a2 * ((h - square) * drho + (u * dm[0] + v * dm[1] + w * dm[2]) - dE)
    rest, skew = drho - entropy, (dm[0] - u * drho) / a
    left = 0.5 * (rest - skew) * jnp.abs(slow)
    right = 0.5 * (rest + skew) * jnp.abs(fast)
    shear_v = (dm[1] - v * drho) * jnp.abs(u)
    shear_w = (dm[2] - w * drho) * jnp.abs(u)
    middle = entropy * jnp.abs(u)
    jumps = (
        left + middle + right,
        left * slow + middle * u + right * fast,
        left * v + middle * v + right * v + shear_v,
        left * w + middle * w + right * w + shear_w,
        left * (h - u * a) + middle * 0.5 * square + right * (h + u * a) + shear_v * v + shear_w * w,
    )
    both = zip(flux(rho_l, m_l, E_l, p_l), flux(rho_r, m_r, E_r, p_r), jumps, strict=True)
    return tuple(0.5 * (f_l + f_r - jump) for f_l, f_r, jump in both)


def robot_arm(t1: Array, t2: Array, t3: Array, t4: Array, t5: Array, t6: Array) -> Scalars:
    """Forward kinematics of an arm of 6 revolute joints, the last 3 in one point: its tool's place and z-y-z angles.

    Denavit and Hartenberg's links (a, alpha, d): (a1, 90°, d1), (a2, 0, 0), (a3, 90°, 0), (0, -90°, d4), (0, 90°, 0),
    (0, 0, d6), multiplied out as in Craig, Introduction to Robotics (2005), ch. 3. Lengths in mm.
    """
    a1, a2, a3, d1, d4, d6 = 175.0, 890.0, 50.0, 575.0, 1035.0, 185.0
    c1, c2, c4, c5, c6 = (jnp.cos(t) for t in (t1, t2, t4, t5, t6))
    s1, s2, s4, s5, s6 = (jnp.sin(t) for t in (t1, t2, t4, t5, t6))
    c23 = jnp.cos(t2) * jnp.cos(t3) - jnp.sin(t2) * jnp.sin(t3)
    s23 = jnp.cos(t2) * jnp.sin(t3) + jnp.sin(t2) * jnp.cos(t3)

    def approach_x() -> Array:  # the direction in which the tool points
        return s5 * (c1 * c23 * c4 + s1 * s4) + c1 * s23 * c5

    def approach_y() -> Array:
        return s5 * (s1 * c23 * c4 - c1 * s4) + s1 * s23 * c5

    def approach_z() -> Array:
        return s23 * c4 * s5 - c23 * c5

    def reach() -> Array:  # of the wrist, from the axis of the first joint
        return a1 + a2 * c2 + a3 * c23 + d4 * s23

    def tilt() -> Array:  # the fifth link's x axis, upwards
        return c23 * s5 + s23 * c4 * c5

    x = d6 * approach_x() + c1 * reach()
    y = d6 * approach_y() + s1 * reach()
    z = a2 * s2 + d1 + a3 * s23 - d4 * c23 + d6 * approach_z()
    az = approach_z()
    normal_z = c6 * tilt() - s23 * s4 * s6
    slide_z = -s6 * tilt() - s23 * s4 * c6
    first = jnp.arctan2(approach_y(), approach_x())
    second = jnp.arctan2(jnp.sqrt(1.0 - az**2), az)
    return x, y, z, first, second, jnp.arctan2(slide_z, -normal_z)


def heart_dipole(a: Array, b: Array, c: Array, d: Array, t: Array, u: Array, v: Array, w: Array) -> Scalars:
    """Two dipoles that explain the eight moments of a heart's electric field (MINPACK-2, human heart dipole)."""
    mx, my, A, B, C, D, E, F = 0.485, -0.0019, -0.0581, 0.015, 0.105, 0.0406, 0.167, -0.399  # its first data set
    tv, uw = t**2 - v**2, u**2 - w**2
    ttv, vvt = t * (t**2 - 3 * v**2), v * (v**2 - 3 * t**2)
    uuw, wwu = u * (u**2 - 3 * w**2), w * (w**2 - 3 * u**2)
    return (
        a + b - mx,
        c + d - my,
        t * a + u * b - v * c - w * d - A,
        v * a + w * b + t * c + u * d - B,
        a * tv - 2 * c * t * v + b * uw - 2 * d * u * w - C,
        c * tv + 2 * a * t * v + d * uw + 2 * b * u * w - D,
        a * ttv + c * vvt + b * uuw + d * wwu - E,
        c * ttv - a * vvt + d * uuw - b * wwu - F,
    )


def propane(*x: Array) -> Scalars:
    """Propane burning in air: balances and equilibria of ten products and their sum (MINPACK-2, full formulation).

    Each equilibrium constant is 1, as in the published counts: others would add six multiplications to the function.
    """
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = x
    p, R = 40.0, 10.0  # the pressure, and air per fuel
    root = jnp.sqrt(p / x11)
    return (
        x1 + x4 - 3.0,
        2 * x1 + x2 + x4 + x7 + x8 + x9 + 2 * x10 - R,
        2 * x2 + 2 * x5 + x6 + x7 - 8.0,
        2 * x3 + x9 - 4 * R,
        x2 * x4 - x1 * x5,
        jnp.sqrt(x2 * x4) - jnp.sqrt(x1) * root * x6,
        jnp.sqrt(x1 * x2) - jnp.sqrt(x4) * x7 * root,
        x1 - x4 * x8 * p / x11,
        x1 * jnp.sqrt(x3) - x4 * x9 * root,
        x1**2 - x4**2 * x10 * p / x11,
        x11 - x1 - x2 - x3 - x4 - x5 - x6 - x7 - x8 - x9 - x10,
    )


def call_price(S: Array, K: Array, r: Array, sigma: Array, T: Array) -> Scalars:
    """The price of a European call: Black and Scholes (1973), by the forward price as in Black (1976)."""

    def normal(z: Array) -> Array:
        return (1.0 + erf(z / 2**0.5)) / 2

    future = jnp.exp(r * T) * S
    d1 = (jnp.log(future / K) + sigma**2 / 2 * T) / (sigma * jnp.sqrt(T))
    d2 = d1 - sigma * jnp.sqrt(T)
    return (jnp.exp(-r * T) * (future * normal(d1) - K * normal(d2)),)


def call_greeks(*x: Array) -> Scalars:
    """The gradient of the price, by reverse mode: the Jacobian of this one is the Hessian of that."""
    return jax.grad(lambda y: call_price(*y)[0])(x)


@dataclass(frozen=True)
class Scalar:
    """A function of scalars with values in scalars, and the published multiplications of its Jacobian.

    published : forward, reverse, Markowitz and the learned order; empty where none are at hand.
    """

    name: str
    f: Callable[..., Scalars]
    x: tuple[float, ...]
    published: tuple[int, ...] = ()

    def vector(self, x: Array) -> Array:
        """The function of [n] with values in [m]."""
        return jnp.stack(self.f(*x))


AIR_L, AIR_R = (1.0, 0.3, 2.5), (0.6, 0.1, 1.4)
FLOW_L, FLOW_R = (1.0, 0.3, 0.2, -0.1, 2.5), (0.6, 0.1, 0.1, 0.2, 1.4)
OPTION = (100.0, 110.0, 0.03, 0.2, 0.5)

functions = [
    Scalar("Roe flux 1-D", roe_flux_1d, AIR_L + AIR_R, (620, 364, 407, 320)),
    Scalar("Roe flux 3-D", roe_flux_3d, FLOW_L + FLOW_R),
    Scalar("robot arm", robot_arm, (0.3, 0.7, -0.4, 0.5, 0.9, -0.6), (397, 301, 288, 231)),
    Scalar("heart dipole", heart_dipole, (0.3, 0.2, 0.1, -0.1, 1.2, 0.8, 0.6, -0.5), (240, 172, 194, 148)),
    Scalar("propane", propane, tuple(itertools.islice(itertools.count(0.5, 0.25), 11)), (151, 90, 111, 88)),
    Scalar("call price", call_price, OPTION),
    Scalar("call greeks", call_greeks, OPTION),
]

problems: list[Problem] = []  # no rows of the report of times: these compare counts
