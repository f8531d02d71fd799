"""From a linear program to the values of its Jacobian: sweeps, eliminations, parts, and what is kept of them."""
