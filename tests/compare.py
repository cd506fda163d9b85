"""Assertions on whole trees of arrays."""

import jax
import numpy as np


def same_bits(actual, expected):
    """Structures, dtypes, shapes and every bit agree."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def close(actual, expected, **tolerance):
    """Structures agree, and every number up to the tolerance."""
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **tolerance), actual, expected)
