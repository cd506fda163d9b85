"""Folds: examples validate once, classes in proportion, groups whole, nothing fitted on those that validate."""

import numpy as np
import pytest
from sklearn import datasets
from sklearn.preprocessing import StandardScaler

import weightdecay as wd
from weightdecay import data
from weightdecay.data.dataset import Scaling
from weightdecay.training.step import standardized
from weightdecay.training.task import Hyperparameters

RANDOM = np.random.default_rng(0)
INPUTS = RANDOM.normal(3, 2, (90, 4)).astype(np.float32)
LABELS = np.repeat([0, 1, 2], [45, 30, 15])
GROUPS = np.arange(90) % 18


def counts(fold, labels):
    return np.stack(
        [np.bincount(labels[fold == number], minlength=labels.max() + 1) for number in range(fold.max() + 1)]
    )


def test_folds_are_numbers_beside_examples_that_are_not_copied():
    splits = wd.data.folds(INPUTS, LABELS.astype(np.int32), num_folds=4)
    assert np.shares_memory(splits.train[0], INPUTS)
    assert splits.num_folds == 4
    assert splits.validation is None
    assert splits.fold.shape == (90,)
    assert np.bincount(splits.fold).min() >= 22
    batches = splits.batches()
    assert list(batches) == ["train"]
    assert np.shares_memory(batches["train"].inputs, INPUTS)
    np.testing.assert_array_equal(batches["train"].targets, LABELS)
    np.testing.assert_array_equal(batches["train"].fold, splits.fold)
    assert batches["train"].fold.dtype == np.int32


def test_folds_follow_from_the_seed_alone():
    one, again, other = (wd.data.folds(INPUTS, LABELS, seed=seed).fold for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (np.diff(one) != 0).sum() > 30  # shuffled, not in runs


def test_folds_keep_classes_in_proportion_unless_told_not_to():
    np.testing.assert_array_equal(counts(wd.data.folds(INPUTS, LABELS).fold, LABELS), [[9, 6, 3]] * 5)
    assert counts(wd.data.folds(INPUTS, LABELS, stratify=False).fold, LABELS)[:, 2].tolist() != [3] * 5
    rare = np.where(np.arange(90) < 2, 3, LABELS)
    assert wd.data.folds(INPUTS, rare, stratify=False).num_folds == 5


@pytest.mark.parametrize("targets", [LABELS, INPUTS[:, 0]], ids=["classes", "real"])
def test_folds_keep_groups_whole(targets):
    fold = wd.data.folds(INPUTS, targets, num_folds=3, groups=[f"patient {group}" for group in GROUPS]).fold
    assert all(len(np.unique(fold[group == GROUPS])) == 1 for group in range(18))
    assert np.bincount(fold).min() >= 20


def test_folds_keep_classes_in_proportion_though_groups_are_whole():
    groups, labels = np.arange(90) // 5, (np.arange(90) // 5) % 3  # a group has one class
    for seed in range(3):
        fold = wd.data.folds(INPUTS, labels, num_folds=3, groups=groups, seed=seed).fold
        assert counts(fold, labels).tolist() == [[10, 10, 10]] * 3
    alone = wd.data.folds(INPUTS, labels, num_folds=3, groups=groups, stratify=False).fold
    assert counts(alone, labels).tolist() != [[10, 10, 10]] * 3


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_folds_hold_test_examples_out(groups):
    splits = wd.data.folds(INPUTS, LABELS, test_size=1 / 6, groups=groups, standardize=False)
    inputs, targets = splits.test
    assert len(targets) == 15
    assert len(splits.fold) == len(splits.train[0]) == 75
    both = np.concatenate([splits.train[0], inputs])
    np.testing.assert_array_equal(np.sort(both, axis=0), np.sort(INPUTS, axis=0))
    rows = [int(np.flatnonzero((row == INPUTS).all(axis=1))[0]) for row in inputs]
    np.testing.assert_array_equal(targets, LABELS[rows])
    if groups is None:
        assert np.bincount(targets).tolist() in ([8, 5, 2], [7, 5, 3])
    else:
        assert np.bincount(GROUPS[rows], minlength=18).tolist().count(5) == 3


def test_folds_standardize_each_by_its_own_training_examples():
    inputs, targets = datasets.load_diabetes(return_X_y=True, scaled=False)
    inputs[:, 3] = 7
    splits = wd.data.folds(inputs, targets, num_folds=3)
    scaling = splits.scaling
    for number in range(3):
        trains = splits.fold != number
        for values, mean, scale in (
            (inputs, scaling.input_mean, scaling.input_scale),
            (targets[:, None], scaling.target_mean[:, None], scaling.target_scale[:, None]),
        ):
            fitted = StandardScaler().fit(values[trains])
            # Float32 of values computed in float64, of inputs that were float32 before.
            np.testing.assert_allclose(mean[number], fitted.mean_, rtol=1e-6)
            np.testing.assert_allclose(scale[number], fitted.scale_, rtol=1e-6)
    assert scaling.input_scale[:, 3].tolist() == [1, 1, 1]
    np.testing.assert_array_equal(splits.train[0], inputs.astype(np.float32))


def test_folds_fit_nothing_on_the_examples_that_validate():
    before = wd.data.folds(INPUTS, LABELS)
    other = INPUTS.copy()
    other[before.fold == 2] *= 100
    after = wd.data.folds(other, LABELS)
    np.testing.assert_array_equal(before.fold, after.fold)
    for array, changed in zip(before.scaling[:2], after.scaling[:2], strict=True):
        np.testing.assert_array_equal(array[2], changed[2])
        assert (array[[0, 1, 3, 4]] != changed[[0, 1, 3, 4]]).all()


def test_folds_standardize_what_they_are_told_to():
    integers = RANDOM.integers(0, 9, (90, 5))
    assert wd.data.folds(integers, LABELS, tokens=True).scaling is None
    assert wd.data.folds(integers, LABELS, tokens=True).train[0].dtype == np.int32
    features = wd.data.folds(integers, LABELS)
    assert features.train[0].dtype == np.float32
    assert features.scaling.input_mean.shape == (5, 5)
    assert wd.data.folds(INPUTS, LABELS, standardize=False).scaling is None
    only_targets = wd.data.folds(integers, INPUTS[:, 0], tokens=True).scaling
    assert only_targets.input_mean is None
    assert only_targets.target_mean.shape == (5,)


def test_folds_weigh_examples_with_the_mean_one():
    weights = RANDOM.uniform(0, 5, 90)
    splits = wd.data.folds(INPUTS, LABELS, weights=weights, test_size=1 / 6)
    for name, batch in splits.batches().items():
        rows = [int(np.flatnonzero((row == INPUTS).all(axis=1))[0]) for row in batch.inputs]
        np.testing.assert_allclose(batch.weights, weights[rows] / weights[rows].mean(), rtol=1e-6)  # float32
        assert batch.weights.dtype == np.float32, name


def test_folds_are_trained_on_as_scikit_learn_standardizes_them():
    inputs, targets = datasets.load_diabetes(return_X_y=True, scaled=False)
    splits = wd.data.folds(inputs, targets, num_folds=3)
    batch = splits.batches()["train"]
    for number in range(3):
        own = Scaling(*(array[number] for array in splits.scaling))
        member = Hyperparameters(wd.NoDecay(), 0.1, 0, {}, fold=number, scaling=own)
        seen = standardized(member, batch)
        trains = splits.fold != number
        for values, here in ((inputs, seen.inputs), (targets[:, None], seen.targets[:, None])):
            expected = StandardScaler().fit(values[trains]).transform(values)
            # Float32: one rounding of values that lie some ten deviations from 0.
            np.testing.assert_allclose(here, expected, atol=5e-6)


def test_data_takes_folds_of_its_own():
    splits = wd.Data(train=(INPUTS, LABELS), fold=np.arange(90) % 6)
    assert splits.num_folds == 6
    data.check(splits, 75)
    with pytest.raises(
        ValueError, match="batch_size is 76, but data has a fold with 75 training examples; give 1 to 75"
    ):
        data.check(splits, 76)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_folds": 1}, "num_folds is 1; give an integer of at least 2"),
        ({"num_folds": 91, "stratify": False}, "num_folds is 91, but there are 90 examples; give at most as many"),
        ({"num_folds": 16}, "num_folds is 16, but class 2 has 15 examples to train and validate on; give fewer folds"),
        (
            {"num_folds": 19, "groups": GROUPS, "stratify": False},
            "num_folds is 19, but there are 18 groups; give at most",
        ),
        ({"groups": GROUPS[:3]}, r"groups have shape \(3,\); give one for each example, shape \(90,\)"),
        ({"test_size": 1.0}, "test_size is 1.0; give a fraction above 0 and below 1, or None"),
        ({"test_size": 0.001}, "0 examples cannot be chosen from 90"),
        ({"test_size": 0.01, "groups": GROUPS}, "groups: 0 cannot be chosen from 18 so that some remain"),
        ({"weights": np.ones(89)}, r"weights have shape \(89,\); give one for each example, shape \(90,\)"),
        ({"weights": -np.ones(90)}, "weights contain -1.0 in example 0; give finite numbers of at least 0"),
        ({"weights": np.zeros(90)}, "weights are all 0, so that no example counts; give at least one above 0"),
        ({"seed": 2**32}, "seed is 4294967296; give an integer"),
    ],
)
def test_folds_refuse(options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        wd.data.folds(INPUTS, LABELS, **options)


def test_folds_refuse_to_stratify_without_classes():
    with pytest.raises(ValueError, match="stratify is True, but targets have dtype float"):
        wd.data.folds(INPUTS, INPUTS[:, 0], stratify=True)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"validation": (INPUTS, LABELS), "fold": GROUPS % 3}, "data has both validation examples and folds"),
        ({"fold": GROUPS[:5]}, r"data.fold has dtype int64 and shape \(5,\); give one integer for each example"),
        ({"fold": GROUPS * 1.0}, "data.fold has dtype float64"),
        ({"fold": GROUPS + 1}, "data.fold contains the numbers 1, 2, 3, .* give 0, 1, 2, ... without a gap"),
        ({"fold": GROUPS * 0}, "data.fold contains the numbers 0; give .* at least two folds"),
        ({"fold": GROUPS - 1}, "data.fold contains the numbers -1, 0, 1"),
    ],
)
def test_check_refuses_folds(parts, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        data.check(wd.Data(train=(INPUTS, LABELS), **parts), None)


def test_check_refuses_a_fold_without_weight():
    weights = np.where(GROUPS % 3 == 1, 0.0, 1.0)
    with pytest.raises(ValueError, match="weights are all 0 in fold 1; give at least one above 0 in every fold"):
        data.check(wd.Data(train=(INPUTS, LABELS, weights), fold=GROUPS % 3), None)


@pytest.mark.parametrize("offset", [0.0, 1.7e9, -3e10])
def test_folds_keep_differences_between_large_values(offset):
    """Targets and a feature far from 0, whose differences float32 cannot represent."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(120, 3)) + np.array([0, 0, offset])
    targets = offset + 10 * (inputs[:, 0] + rng.normal(size=120))
    splits = wd.data.folds(inputs, targets, num_folds=3, test_size=0.1)
    batch = splits.batches()["train"]
    for ours, original in zip(batch[:2], splits.train, strict=True):
        assert len(np.unique(ours)) == len(np.unique(original)) > 300 * (ours.ndim - 1)
    assert batch.targets.dtype == batch.inputs.dtype == np.float32
    assert (np.abs(splits.scaling.target_scale - 15) < 4).all()
    for number in range(3):
        member = Hyperparameters(wd.NoDecay(), 0.1, 0, {}, fold=number, scaling=splits.scaling.of_fold(number))
        standardized_batch, trains = standardized(member, batch), splits.fold != number
        original = splits.train
        for values, ours in (
            (original[0], standardized_batch.inputs),
            (original[1][:, None], standardized_batch.targets[:, None]),
        ):
            expected = StandardScaler().fit(values[trains].astype(float)).transform(values.astype(float))
            # Float32 of values within a few deviations of 0; means in float64 of values of 3e10.
            np.testing.assert_allclose(ours, expected, atol=5e-5 if offset < 0 else 5e-6)


def test_folds_of_ordinary_values_are_stored_as_float32():
    splits = wd.data.folds(INPUTS + 100, INPUTS[:, 0] + 900.0)
    assert splits.train[0].dtype == splits.train[1].dtype == np.float32
    np.testing.assert_array_equal(splits.batches()["train"].targets, splits.train[1])


@pytest.mark.parametrize("scale", [1e-36, 1e36, 1e100])
def test_folds_take_values_out_of_the_range_of_float32(scale):
    splits = wd.data.folds(INPUTS.astype(float) * scale, INPUTS[:, 0].astype(float) * scale)
    member = Hyperparameters(wd.NoDecay(), 0.1, 0, {}, fold=0, scaling=splits.scaling.of_fold(0))
    seen = standardized(member, splits.batches()["train"])
    trains = splits.fold != 0
    np.testing.assert_allclose(np.std(seen.inputs[trains], axis=0), 1, rtol=1e-5)  # float32
    np.testing.assert_allclose(np.std(seen.targets[trains]), 1, rtol=1e-5)


@pytest.mark.slow
def test_cross_validation_and_predictions_do_not_depend_on_an_offset():
    """The reference is the same data without the offset, which is a power of two."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(120, 3))
    targets = np.round((10 * (inputs[:, 0] + rng.normal(size=120))) * 2**10) / 2**10
    inputs = np.round(inputs * 2**10) / 2**10
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[0.1], fold=range(3))
    settings = {"num_steps": 60, "batch_size": 16, "progress": False, "optimizer": wd.sgd}
    model = wd.models.MLP(())
    near, far = (
        wd.fit_grid(model, wd.data.folds(inputs + shift, targets + shift, num_folds=3), grid, **settings)
        for shift in (0.0, 2.0**31)
    )
    losses = [result.dataset["validation_loss"].values[:, -1] for result in (near, far)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)  # rounding of the means
    assert (losses[0] > 0.1).all()
    ours = far.predict(inputs + 2.0**31, member=1)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours - 2.0**31, near.predict(inputs, member=1), atol=1e-2)  # targets of about 10


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (INPUTS, 1.7e9 + 10.0 * INPUTS[:, 0].astype(float)),
        (INPUTS.astype(float) + 1e9, INPUTS[:, 0]),
        (INPUTS.astype(float) * 1e39, INPUTS[:, 0]),
    ],
)
def test_values_that_float32_cannot_tell_apart_are_refused(inputs, targets):
    pattern = "contain values of about .*, whose differences float32 cannot represent; subtract the mean"
    with pytest.raises(ValueError, match=pattern):
        data.check(wd.Data(train=(inputs, targets), validation=(inputs, targets)), None)
    for divide in (wd.data.split, wd.data.folds):
        with pytest.raises(ValueError, match=pattern):
            divide(inputs, targets, standardize=False)
        divide(inputs, targets)
