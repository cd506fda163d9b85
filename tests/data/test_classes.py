"""Labels of classes: consecutive indices with names, and integers that look like a quantity, which are refused."""

import numpy as np
import pytest
from sklearn import datasets

import weightdecay as wd
from weightdecay.data import classes

RANDOM = np.random.default_rng(0)
SETTINGS = {"num_steps": 20, "batch_size": 16, "progress": False, "optimizer": wd.sgd}
GRID = wd.Grid(decay=[wd.NoDecay()], learning_rate=[0.1])

LABELS = {
    "digits": datasets.load_digits().target,
    "wine": datasets.load_wine().target,
    "one to three": RANDOM.integers(1, 4, 200),
    "wine quality": RANDOM.integers(3, 10, 200),
    "glass, without 4": RANDOM.choice([1, 2, 3, 5, 6, 7], 214),
    "two and four": RANDOM.choice([2, 4], 100),
    "minus one and one": RANDOM.choice([-1, 1], 100),
    "minus two to two": RANDOM.integers(-2, 3, 100),
    "mask of an image": RANDOM.choice([0, 255], 100),
    "consecutive identifiers": RANDOM.integers(100001, 100004, 90),
    "beyond int32": RANDOM.integers(0, 3, 90) + 2**40,
    "a hundred classes": np.arange(1000) % 100,
    "a hundred classes, of which some are missing": np.setdiff1d(np.arange(100), [3, 50, 77]).repeat(10),
    "forty people, from 1": np.arange(400) % 40 + 1,
    "unsigned": (np.arange(90) % 3).astype(np.uint64),
    "only one": np.full(50, 7),
}
QUANTITIES = {
    "prices": RANDOM.integers(18, 23, 200) * 10000,
    "years": RANDOM.integers(2001, 2011, 300),
    "ages": RANDOM.integers(17, 91, 2000),
    "large counts": RANDOM.poisson(30, 500),
    "rare counts": np.concatenate([np.arange(300), RANDOM.poisson(100, 2000)]),
    "times": 1_700_000_000 + RANDOM.integers(0, 10**6, 200),
    "postal codes": RANDOM.choice([10115, 20095, 50667, 80331], 200),
    "one value for each example": np.arange(60),
    "few examples": np.arange(12),
    "negative": RANDOM.integers(-40, 10, 200),
    "tens": RANDOM.choice([10, 20, 30], 100),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels_become_consecutive_classes_with_names(name):
    labels = LABELS[name]
    inputs = np.arange(len(labels), dtype=float)[:, None]
    names, expected = np.unique(labels, return_inverse=True)
    data = wd.data.split(inputs, labels, standardize=False)
    assert data.class_names == tuple(names.tolist())
    for inputs_of_split, targets in (data.train, data.validation, data.test):
        assert targets.dtype == np.int32
        np.testing.assert_array_equal(targets, expected[inputs_of_split[:, 0].astype(int)])
    folds = wd.data.folds(inputs, labels, num_folds=2)
    assert folds.class_names == data.class_names
    np.testing.assert_array_equal(folds.train[1], expected)


@pytest.mark.parametrize("name", QUANTITIES)
@pytest.mark.parametrize("divide", [wd.data.split, wd.data.folds])
def test_what_looks_like_a_quantity_is_refused_with_both_ways(name, divide):
    targets = QUANTITIES[name]
    inputs = RANDOM.normal(size=(len(targets), 2))
    pattern = (
        r"^targets are integers that look like a quantity \(\d+ distinct values .*\); .*classes=True .*classes=False"
    )
    with pytest.raises(ValueError, match=pattern) as caught:
        divide(inputs, targets)
    assert caught.value.argument == "targets"
    data = divide(inputs, targets, classes=False)
    assert data.class_names is None
    assert data.train[1].dtype.kind == "f"
    data = divide(inputs, targets, classes=True, stratify=False)
    assert data.class_names == tuple(np.unique(targets).tolist())


def test_strings_and_truth_values_are_classes():
    inputs = RANDOM.normal(size=(60, 2))
    words = RANDOM.choice(["wren", "crow", "jay"], 60)
    assert wd.data.split(inputs, words).class_names == ("crow", "jay", "wren")
    assert wd.data.split(inputs, words == "jay").class_names == (False, True)
    assert wd.data.split(inputs, (words == "jay").astype(str)).class_names == ("False", "True")
    with pytest.raises(ValueError, match="classes is False, but targets are strings; give numbers"):
        wd.data.split(inputs, words, classes=False)


def test_floats_are_real_numbers_unless_they_are_said_to_be_classes():
    inputs, targets = RANDOM.normal(size=(60, 2)), RANDOM.choice([1.0, 2.0], 60)
    assert wd.data.split(inputs, targets).class_names is None
    assert wd.data.split(inputs, targets, classes=True).class_names == (1, 2)
    with pytest.raises(ValueError, match="classes is True, but targets have dtype float64 and shape"):
        wd.data.split(inputs, targets + 0.5, classes=True)


def test_labels_of_hand_made_data_are_mapped_over_all_splits():
    inputs = np.zeros((4, 2), np.float32)
    data = wd.Data(train=(inputs, np.array([7, 9, 7, 9])), validation=(inputs, np.array([8, 9, 9, 8])))
    mapped = data.with_class_indices()
    assert mapped.class_names == (7, 8, 9)
    assert mapped.train[1].tolist() == [0, 2, 0, 2]
    assert mapped.validation[1].tolist() == [1, 2, 2, 1]
    gapped = wd.Data(train=(inputs, np.array([0, 1, 3, 3])), validation=(inputs, np.array([2, 1, 0, 0])))
    assert gapped.with_class_indices() is gapped
    assert data.with_class_indices("squared_error") is data
    named = wd.Data(*(data.train, data.validation), class_names=tuple("abcdefghij"))
    assert named.with_class_indices() is named
    with pytest.raises(ValueError, match=r"data\.train has targets from 7 to 9, and class_names has 3 names"):
        wd.Data(*(data.train, data.validation), class_names=tuple("abc")).with_class_indices()
    truth = wd.Data(train=(inputs, np.array([True, False] * 2)), validation=(inputs, np.array([True, False] * 2)))
    assert truth.with_class_indices().class_names == (False, True)
    assert truth.with_class_indices().train[1].dtype == np.int32


@pytest.mark.slow
def test_a_model_has_one_output_for_each_label_and_the_names_are_in_the_result(tmp_path):
    inputs = RANDOM.normal(size=(90, 3)).astype(np.float32)
    labels = np.where(inputs[:, 0] > 0, 100003, 100001)
    data = wd.Data(train=(inputs, labels), validation=(inputs, labels))
    result = wd.fit_grid(wd.models.MLP((4,)), data, GRID, **SETTINGS)
    assert result.predict(inputs[:5], member=0).shape == (5, 2)
    assert result.settings["class_names"] == [100001, 100003]
    result.save(tmp_path / "run")
    assert wd.load(tmp_path / "run").settings["class_names"] == [100001, 100003]
    accuracy = (result.predict(inputs, member=0).argmax(axis=1) == (labels == 100003)).mean()
    np.testing.assert_allclose(result.dataset["validation_accuracy"].values[0, -1], accuracy, rtol=1e-6)


@pytest.mark.slow
def test_a_quantity_in_hand_made_data_is_refused_before_training():
    inputs, prices = RANDOM.normal(size=(50, 3)).astype(np.float32), np.arange(50) % 5 * 10000 + 180000
    data = wd.Data(train=(inputs, prices), validation=(inputs, prices))
    pattern = (
        r"quantity \(5 distinct values from 180000 to 220000\).*loss='softmax_cross_entropy'.*loss='squared_error'"
    )
    with pytest.raises(ValueError, match=pattern):
        wd.fit_grid(wd.models.MLP((4,)), data, GRID, **SETTINGS)
    result = wd.fit_grid(wd.models.MLP((4,)), data, GRID, loss="softmax_cross_entropy", **SETTINGS)
    assert result.predict(inputs, member=0).shape == (50, 5)


def test_quantity_describes_the_values():
    assert classes.quantity(QUANTITIES["prices"]) == "5 distinct values from 180000 to 220000"


def test_a_column_of_labels_is_one_label_for_each_example():
    inputs, labels = RANDOM.normal(size=(60, 2)), np.arange(60)[:, None] % 3
    data = wd.data.split(inputs, labels)
    assert data.train[1].shape == (36,)
    assert data.class_names == (0, 1, 2)
    assert wd.data.split(inputs, labels, classes=False).train[1].shape == (36, 1)
    assert wd.data.split(inputs, inputs[:, :1]).train[1].shape == (36, 1)


@pytest.mark.parametrize("divide", [wd.data.split, wd.data.folds])
def test_differences_below_the_range_of_floats_count_as_none(divide):
    inputs = RANDOM.normal(size=(60, 2))
    data = divide(inputs, inputs[:, 0] * 1e-300)
    assert np.isfinite(data.batches()["train"].targets).all()
