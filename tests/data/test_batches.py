"""The order of the examples, and batches that are the same wherever they come from."""

import numpy as np
import pytest

from compare import same_bits
from weightdecay.core.types import Batch
from weightdecay.data.batches import FromHost, OnDevice, Orders

ALONE = -1  # the fold of a member of data without folds


def examples(num_examples, fold=None):
    return Batch(np.zeros((num_examples, 1), np.float32), np.zeros(num_examples, np.int32), fold=fold)


def order(start, num_steps, *, seed=0, batch_size=7, num_examples=20):
    return Orders(batch_size, examples(num_examples))((seed, ALONE), start, num_steps)


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


@pytest.mark.slow
def test_orders_of_many_examples_go_beyond_what_an_int32_counts():
    """Examples times batch size pass 2**31 within one epoch."""
    large = Orders(5000, examples(500_000))
    before = large((0, ALONE), 98, 4)
    np.testing.assert_array_equal(before[2:], large((0, ALONE), 100, 2))
    assert len(np.unique(large((0, ALONE), 0, 100))) == 500_000


def test_orders_shuffle_an_epoch_once():
    orders = Orders(10, examples(100))
    for start in range(0, 40, 4):
        orders((3, ALONE), start, 4)
    assert orders._epoch.cache_info().misses == 4


@pytest.mark.slow
def test_orders_show_a_fold_the_examples_of_the_others():
    fold = np.array([0, 1, 2, 1, 0] * 4, np.int32)
    orders = Orders(4, examples(20, fold))
    for number, num_training in enumerate([12, 12, 16]):
        stream = orders((5, number), 0, 2 * num_training).reshape(-1)
        for epoch in range(8):
            seen = stream[num_training * epoch : num_training * (epoch + 1)]
            assert sorted(seen) == np.flatnonzero(fold != number).tolist()
    assert not np.array_equal(orders((5, 0), 0, 3), orders((6, 0), 0, 3))


def test_orders_of_a_fold_are_those_of_its_training_examples_alone():
    """The shuffle of an epoch knows the number of examples and the seed, and nothing of the fold."""
    fold = np.array([0, 1] * 10, np.int32)
    whole, part = Orders(3, examples(20, fold)), Orders(3, examples(10))
    np.testing.assert_array_equal(whole((1, 0), 0, 9), np.flatnonzero(fold != 0)[part((1, ALONE), 0, 9)])


@pytest.mark.slow
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("num_streams", [3, 5])
def test_batches_from_the_host_are_those_on_the_device(num_streams, folded):
    rng = np.random.default_rng(0)
    data = Batch(
        rng.normal(size=(30, 2, 3)).astype(np.float32),
        rng.integers(0, 9, 30),
        rng.uniform(size=30).astype(np.float32),
        rng.permutation(30).astype(np.int32) % 3 if folded else None,
    )
    streams = np.array([[7, 0], [1, 2], [1, 1], [7, 0]] if folded else [[7, ALONE], [1, ALONE], [1, ALONE], [7, ALONE]])
    on_device, from_host = OnDevice(data, 8), FromHost(data, 8, num_streams)
    for start, num_steps in ((0, 5), (13, 3)):
        here = on_device.segment(data, streams, start, num_steps, 6)
        there = from_host.segment(None, streams, start, num_steps, 6)
        assert there.data.inputs.shape == (num_streams, 6, 8, 2, 3)
        for member in range(4):
            for step in range(num_steps):
                mine = type(here)(data, here.order[member], None).at(step)
                theirs = type(there)(there.data, None, there.stream[member]).at(step)
                same_bits(mine, theirs)
                assert not folded or not (np.asarray(mine.fold) == streams[member, 1]).any()
