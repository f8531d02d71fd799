"""Roots and minima by the structure of their matrices, and the callbacks of other solvers."""
