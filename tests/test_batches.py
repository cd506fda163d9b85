"""The order of the examples, and batches that are the same wherever they come from."""

import numpy as np
import pytest

from weightdecay.batches import FromHost, OnDevice, Orders
from weightdecay.types import Batch


def order(start, num_steps, *, seed=0, batch_size=7, num_examples=20):
    return Orders(batch_size, num_examples)(seed, start, num_steps)


def test_orders_shows_every_example_once_an_epoch():
    stream = order(0, 40).reshape(-1)
    for epoch in range(14):
        assert sorted(stream[20 * epoch : 20 * epoch + 20]) == list(range(20))
    assert not np.array_equal(stream[:20], stream[20:40])


@pytest.mark.parametrize("start", [0, 1, 2, 3, 19, 20, 1000])
def test_orders_does_not_depend_on_where_it_is_cut(start):
    np.testing.assert_array_equal(order(start, 5), order(start // 2, start - start // 2 + 5)[start - start // 2 :])


def test_orders_goes_on_after_two_billion_examples():
    start = 2**31 // 7 + 12345  # start * batch_size is above what an int32 holds
    before = order(start - 3, 8)
    np.testing.assert_array_equal(before[3:], order(start, 5))
    assert before.min() >= 0
    assert before.max() < 20


def test_orders_differs_between_seeds():
    assert not np.array_equal(order(0, 5, seed=0), order(0, 5, seed=1))


def test_orders_of_many_examples_go_beyond_what_an_int32_counts():
    """Examples times batch size pass 2**31 within one epoch."""
    large = Orders(batch_size=5000, num_examples=500_000)
    before = large(0, 98, 4)
    np.testing.assert_array_equal(before[2:], large(0, 100, 2))
    assert len(np.unique(large(0, 0, 100))) == 500_000


def test_orders_shuffle_an_epoch_once():
    orders = Orders(batch_size=10, num_examples=100)
    for start in range(0, 40, 4):
        orders(3, start, 4)
    assert orders._epoch.cache_info().misses == 4


@pytest.mark.parametrize("num_seeds", [2, 5])
def test_batches_from_the_host_are_those_on_the_device(num_seeds):
    rng = np.random.default_rng(0)
    data = Batch(rng.normal(size=(30, 2, 3)).astype(np.float32), rng.integers(0, 9, 30))
    seeds = np.array([7, 1, 1, 7])
    on_device, from_host = OnDevice(data, 8), FromHost(data, 8, num_seeds)
    for start, num_steps in ((0, 5), (13, 3)):
        here = on_device.stretch(data, seeds, start, num_steps, 6)
        there = from_host.stretch(None, seeds, start, num_steps, 6)
        assert there.data.inputs.shape == (num_seeds, 6, 8, 2, 3)
        for member in range(4):
            for step in range(num_steps):
                mine = type(here)(data, here.order[member], None).at(step)
                theirs = type(there)(there.data, None, there.which[member]).at(step)
                np.testing.assert_array_equal(mine.inputs, theirs.inputs)
                np.testing.assert_array_equal(mine.targets, theirs.targets)
