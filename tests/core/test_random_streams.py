"""The random streams of a member have an implementation of their own, whatever the settings of JAX are."""

import contextlib

import jax
import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.core import jax_settings, random_streams

DATA = wd.data.digits(num_train=64)
GRID = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1), wd.Decoupled(1.0)], learning_rate=[0.1], seed=[3])
SETTINGS = {"num_steps": 4, "batch_size": 16, "eval_every": 2, "progress": False, "optimizer": wd.sgd}


@contextlib.contextmanager
def updated(name, value):
    before = getattr(jax.config, name)
    jax.config.update(name, value)
    try:
        yield
    finally:
        jax.config.update(name, before)


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg", "threefry2x32"])
def test_keys_and_orders_do_not_depend_on_the_default_implementation(implementation):
    expected = random_streams.key(5, random_streams.INITIAL_WEIGHTS)
    order = random_streams.epoch_order(5, 1, num_examples=50)
    for partitionable in (True, False):
        with jax.default_prng_impl(implementation), jax.threefry_partitionable(partitionable):
            key = random_streams.key(5, random_streams.INITIAL_WEIGHTS)
            np.testing.assert_array_equal(random_streams.epoch_order(5, 1, num_examples=50), order)
        assert str(jax.random.key_impl(key)) == random_streams.IMPLEMENTATION
        np.testing.assert_array_equal(jax.random.key_data(key), jax.random.key_data(expected))


@pytest.mark.slow
def test_members_are_the_same_bits_under_another_default_implementation():
    model = wd.models.MLP((8,), dropout_rate=0.2)
    plain = wd.fit_grid(model, DATA, GRID, **SETTINGS)
    with updated("jax_default_prng_impl", "rbg"):
        other = wd.fit_grid(model, DATA, GRID, **SETTINGS)
    for number in range(len(GRID)):
        same_bits(other.params(number), plain.params(number))


def test_settings_of_random_numbers_belong_to_what_numbers_depend_on():
    before = jax_settings.numeric()
    assert before["random_numbers"] == "threefry2x32"
    with jax.threefry_partitionable(not before["partitionable_random_numbers"]):
        assert jax_settings.numeric() != before
    with jax.default_prng_impl("rbg"):
        assert jax_settings.numeric()["random_numbers"] == "rbg"


@pytest.mark.slow
def test_a_run_is_not_resumed_with_other_random_numbers(tmp_path):
    model, directory = wd.models.MLP((8,)), tmp_path / "run"
    wd.fit_grid(model, DATA, GRID, directory=directory, **SETTINGS)
    with updated("jax_threefry_partitionable", False), pytest.raises(ValueError, match="partitionable_random_numbers"):
        wd.fit_grid(model, DATA, GRID, directory=directory, **SETTINGS)
