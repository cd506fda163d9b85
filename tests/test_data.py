"""Data sets: honest splits, noise in the training labels alone, standardization by the training examples alone."""

import numpy as np
import pytest
from sklearn import datasets

import weightdecay as wd
from weightdecay import data


def rows(split):
    return {row.tobytes() for row in np.asarray(split[0])}


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "diabetes"])
def test_built_in_splits_are_disjoint_complete_and_fixed(name):
    make = data.BUILT_IN[name]
    splits, again, other = make(), make(), make(seed=1)
    parts = [rows(splits.train), rows(splits.validation), rows(splits.test)]
    distinct = len(rows((getattr(datasets, f"load_{name}")(return_X_y=True)[0].astype(np.float32), None)))
    assert len(set.union(*parts)) == distinct == sum(map(len, parts))
    np.testing.assert_array_equal(splits.train[0], again.train[0])
    assert parts[2] != rows(other.test)
    assert all(split[0].dtype == np.float32 for split in (splits.train, splits.validation, splits.test))


def test_digits_are_stratified_and_scaled():
    splits = wd.data.digits()
    assert [len(split[1]) for split in (splits.train, splits.validation, splits.test)] == [1079, 359, 359]
    whole = np.bincount(datasets.load_digits().target) / 1797
    for inputs, targets in (splits.train, splits.validation, splits.test):
        # A split cannot be closer to the shares of the classes than one example.
        np.testing.assert_allclose(np.bincount(targets) / len(targets), whole, atol=1 / len(targets))
        assert inputs.min() == 0
        assert inputs.max() == 1
        assert targets.dtype == np.int32


def test_digits_num_train_keeps_a_stratified_part():
    whole, part = wd.data.digits(), wd.data.digits(num_train=300)
    assert rows(part.train) < rows(whole.train)
    np.testing.assert_array_equal(part.validation[0], whole.validation[0])
    assert np.bincount(part.train[1]).min() >= 29


def test_digits_label_noise_is_exact_and_in_the_training_labels_alone():
    clean, noisy = wd.data.digits(num_train=300), wd.data.digits(num_train=300, label_noise=0.4)
    np.testing.assert_array_equal(clean.train[0], noisy.train[0])
    assert (clean.train[1] != noisy.train[1]).sum() == 120
    assert set(noisy.train[1]) <= set(range(10))
    for one, other in ((clean.validation, noisy.validation), (clean.test, noisy.test)):
        np.testing.assert_array_equal(one[1], other[1])


def test_diabetes_is_standardized_by_the_training_examples():
    inputs, targets = wd.data.diabetes().train
    # Float32 of values computed in float64.
    np.testing.assert_allclose(inputs.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(inputs.std(axis=0), 1, rtol=1e-6)
    np.testing.assert_allclose([targets.mean(), targets.std()], [0, 1], atol=1e-6)
    assert abs(wd.data.diabetes().test[0].mean(axis=0)).max() > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 5}, "num_train is 5; give 10 to 1069, or 1079"),
        ({"num_train": 2000}, "num_train is 2000"),
        ({"label_noise": 1.5}, "label_noise is 1.5; give a share between 0 and 1"),
        ({"test_size": 0.9}, "test_size is 0.9; give shares above 0"),
    ],
)
def test_digits_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        wd.data.digits(**arguments)


def test_batches_take_the_precision_that_jax_computes_in():
    splits = wd.Data((np.zeros((2, 3)), np.array([0, 1])), ([[1.0, 2, 3]], [1])).batches()
    assert list(splits) == ["train", "validation"]
    assert (splits["train"].inputs.dtype, splits["train"].targets.dtype) == (np.float32, np.int32)
    assert splits["validation"].inputs.shape == (1, 3)
