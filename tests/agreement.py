"""When two pytrees of arrays are the same."""

import jax
import numpy as np


def same(ours, theirs, **tolerance):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, **({"rtol": 1e-12, "atol": 1e-12} | tolerance))
