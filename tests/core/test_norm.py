"""The norm of a tree: right up to the largest numbers of a dtype, with its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weightdecay.core import tree


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e30, 1.5e38])
def test_norm_is_right_at_every_size(size):
    arrays = {"a": jnp.array([3.0, 0.0]) * (size / 5), "b": jnp.array([[4.0]]) * (size / 5)}
    np.testing.assert_allclose(tree.norm(arrays), size, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(tree.norm)(arrays), size, rtol=1e-6)
    slopes = jax.grad(tree.norm)(arrays)
    np.testing.assert_allclose(slopes["a"], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(slopes["b"], [[0.8]], rtol=1e-6)


def test_norm_has_the_bits_of_the_root_of_the_sum_of_squares():
    random = np.random.default_rng(0)
    for scale in (1e-10, 1.0, 1e10):
        array = jnp.asarray(scale * random.normal(size=(17, 31)), jnp.float32)
        assert tree.norm(array) == jnp.sqrt(jnp.sum(jnp.square(array)))


@pytest.mark.parametrize(
    ("array", "expected"), [([0.0, 0.0], 0.0), ([], 0.0), ([np.inf, 1.0], np.inf), ([np.nan, np.inf], np.nan)]
)
def test_norm_of_zeros_nothing_and_infinity(array, expected):
    np.testing.assert_array_equal(tree.norm(jnp.array(array)), expected)


def test_norm_of_low_precision_is_a_float32():
    norm = tree.norm(jnp.full(4, 6e4, jnp.float16))
    assert norm.dtype == jnp.float32
    np.testing.assert_allclose(norm, 1.2e5, rtol=1e-3)


def test_power_of_two_divides_exactly():
    for value in (2e-38, 0.3, 1.0, 3.0, 1e30, 3e38):
        power = float(tree.power_of_two([jnp.array([value, 0.0])]))
        assert power <= value < 2 * max(power, value)
        assert np.log2(power).is_integer()
    assert float(tree.power_of_two([])) == 1
