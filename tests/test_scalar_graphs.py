"""The scalar functions that orders of elimination are counted on are what they are said to be."""

import importlib
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
graphs = importlib.import_module("problems.scalar_graphs")


def euler(rho, m, E):
    p = (graphs.GAMMA - 1) * (E - 0.5 * m**2 / rho)
    return np.array([m, p + m**2 / rho, (E + p) * m / rho])


def test_the_flux_between_equal_states_is_that_of_the_state():
    state = graphs.AIR_L
    np.testing.assert_allclose(graphs.roe_flux_1d(*state, *state), euler(*state), rtol=1e-6)


def test_a_shock_that_stands_is_resolved():
    """Roe's matrix maps the jump of the states to that of the fluxes; across a standing shock both fluxes agree."""
    g, mach = graphs.GAMMA, 2.0
    density = (g + 1) * mach**2 / ((g - 1) * mach**2 + 2)
    pressure = 1 + 2 * g / (g + 1) * (mach**2 - 1)
    speed = mach * math.sqrt(g)
    before = (1.0, speed, 1 / (g - 1) + speed**2 / 2)
    after = (density, speed, pressure / (g - 1) + speed**2 / (2 * density))
    np.testing.assert_allclose(graphs.roe_flux_1d(*before, *after), euler(*before), rtol=1e-5)
    three = graphs.roe_flux_3d(*before[:2], 0.0, 0.0, before[2], *after[:2], 0.0, 0.0, after[2])
    np.testing.assert_allclose(three, [*euler(*before)[:2], 0, 0, euler(*before)[2]], rtol=1e-5, atol=1e-5)


def test_the_fluxes_in_one_and_in_three_dimensions_agree():
    l, r = graphs.AIR_L, graphs.AIR_R  # noqa: E741
    one = graphs.roe_flux_1d(*l, *r)
    three = graphs.roe_flux_3d(l[0], l[1], 0.0, 0.0, l[2], r[0], r[1], 0.0, 0.0, r[2])
    np.testing.assert_allclose([three[0], three[1], three[4]], one, rtol=1e-5)


def link(theta, a, alpha, d):
    """Denavit and Hartenberg's matrix of one joint and link."""
    c, s, ca, sa = math.cos(theta), math.sin(theta), math.cos(alpha), math.sin(alpha)
    return np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])


def test_the_arm_is_the_product_of_its_links():
    t = graphs.functions[2].x
    right = math.pi / 2
    links = [(175, right, 575), (890, 0, 0), (50, right, 0), (0, -right, 1035), (0, right, 0), (0, 0, 185)]
    T = np.linalg.multi_dot([link(angle, *rest) for angle, rest in zip(t, links, strict=True)])
    euler_zyz = [
        math.atan2(T[1, 2], T[0, 2]),
        math.atan2(math.sqrt(1 - T[2, 2] ** 2), T[2, 2]),
        math.atan2(T[2, 1], -T[2, 0]),
    ]
    np.testing.assert_allclose(graphs.robot_arm(*t), [*T[:3, 3], *euler_zyz], rtol=1e-5)


def test_a_call_has_its_known_price_and_delta():
    """Hull, Options, Futures, and Other Derivatives: S = 42, K = 40, r = 0.1, sigma = 0.2, T = 0.5 gives 4.76."""
    x = (42.0, 40.0, 0.1, 0.2, 0.5)
    np.testing.assert_allclose(graphs.call_price(*x)[0], 4.76, atol=0.005)
    np.testing.assert_allclose(graphs.call_greeks(*x)[0], 0.7791, atol=1e-4)
