"""Norms, sparsity and movement of one member's weights, beside NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from weightdecay.training import diagnostics

RNG = np.random.default_rng(0)
BEFORE = {"kernel": RNG.normal(size=(5, 3)).astype(np.float32), "bias": RNG.normal(size=3).astype(np.float32)}
AFTER = {
    "kernel": np.where(RNG.uniform(size=(5, 3)) < 0.3, 0, BEFORE["kernel"] + 0.1).astype(np.float32),
    "bias": np.array([0, 5e-4, 1e-3], np.float32),
}
BOTH, KERNEL = [True, True], [False, True]  # in the order of the leaves: bias, kernel


def test_by_layer_equals_numpy():
    told = diagnostics.by_layer(AFTER, BEFORE, BOTH)
    for place, name in enumerate(("bias", "kernel")):
        before, now = (np.asarray(tree[name], np.float64).ravel() for tree in (BEFORE, AFTER))
        cosine = now @ before / np.linalg.norm(now) / np.linalg.norm(before)
        expected = {
            "layer_weight_norm": np.linalg.norm(now),
            "layer_zero_fraction": (now == 0).mean(),
            "rotation": np.arccos(cosine),
            "effective_learning_rate": np.linalg.norm(now - before) / np.linalg.norm(before),
        }
        assert told.keys() == expected.keys()
        for metric, value in expected.items():
            np.testing.assert_allclose(told[metric][place], value, rtol=1e-5)  # float32
    assert {values.shape for values in diagnostics.by_layer(AFTER, BEFORE, KERNEL).values()} == {(1,)}
    assert {values.shape for values in diagnostics.by_layer(AFTER, BEFORE, [False, False]).values()} == {(0,)}


@pytest.mark.slow
def test_norms_and_fractions_count_the_chosen_weights():
    every = np.concatenate([AFTER["bias"], AFTER["kernel"].ravel()])
    np.testing.assert_allclose(diagnostics.weight_norm(AFTER, BOTH), np.linalg.norm(every), rtol=1e-6)
    np.testing.assert_allclose(diagnostics.zero_fraction(AFTER, BOTH), (every == 0).mean(), rtol=1e-6)
    # A weight of 1e-3 itself is not near zero.
    np.testing.assert_allclose(diagnostics.near_zero_fraction(AFTER, [True, False]), 2 / 3, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.near_zero_fraction(AFTER, BOTH), (np.abs(every) < 1e-3).mean(), rtol=1e-6)
    assert np.isnan(diagnostics.zero_fraction(AFTER, [False, False]))
    assert np.isnan(diagnostics.near_zero_fraction(AFTER, [False, False]))


@pytest.mark.parametrize("radians", [1e-6, 1e-3, 1.0, np.pi / 2, 3.0, np.pi])
def test_angle_is_exact_for_small_and_for_flat_angles(radians):
    """In the plane; the arc cosine would give 0 or 3e-4 for an angle of 1e-6."""
    other = np.array([np.cos(radians), np.sin(radians)], np.float32)
    ours = diagnostics.angle(jnp.array([1.0, 0.0]), 7 * other)
    np.testing.assert_allclose(ours, radians, rtol=2e-6)  # rounding of float32


def test_angle_of_a_zero_is_nan_and_of_equals_is_zero():
    assert np.isnan(diagnostics.angle(jnp.zeros(3), jnp.ones(3)))
    assert diagnostics.angle(jnp.ones(3), jnp.ones(3)) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_all_finite_finds_one_number(wrong):
    fine = {"a": jnp.ones((3, 2)), "count": jnp.int32(3), "none": None}
    assert diagnostics.all_finite(fine)
    assert not diagnostics.all_finite({**fine, "a": fine["a"].at[2, 1].set(wrong)})
    assert diagnostics.all_finite({})
