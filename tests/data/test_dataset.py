"""Data sets: honest splits, noise in the training labels alone, standardization by the training examples alone."""

import numpy as np
import pytest
from sklearn import datasets
from sklearn.preprocessing import LabelEncoder
from sklearn.utils.class_weight import compute_sample_weight

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
        ({"label_noise": 1.5}, "label_noise is 1.5; give a fraction from 0 to 1"),
        ({"test_size": 0.9}, "test_size is 0.9; give fractions above 0"),
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


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 5, 4, 3)).astype(np.uint8)
LABELS = np.arange(60) % 3


def test_split_is_what_the_built_in_sets_are_made_with():
    inputs, targets = datasets.load_wine(return_X_y=True)
    options = {"seed": 3, "validation_size": 0.3, "test_size": 0.1, "num_train": 80, "label_noise": 0.2}
    made, built_in = wd.data.split(inputs, targets, **options), wd.data.wine(**options)
    for one, other in zip((made.train, made.validation, made.test), built_in.batches().values(), strict=True):
        np.testing.assert_array_equal(one[0], other.inputs)
        np.testing.assert_array_equal(one[1], other.targets)


def test_split_keeps_images_with_their_labels_and_shape():
    splits = wd.data.split(IMAGES, LABELS, standardize=False)
    for inputs, targets in (splits.train, splits.validation, splits.test):
        assert inputs.shape[1:] == (5, 4, 3)
        assert (inputs.dtype, targets.dtype) == (np.float32, np.int32)
        assert np.bincount(targets).tolist() == [len(targets) // 3] * 3
        for image, label in zip(inputs, targets, strict=True):
            where = (image == IMAGES).all(axis=(1, 2, 3))
            assert LABELS[where].tolist() == [label]


def test_split_standardizes_each_channel_of_each_pixel_by_the_training_examples():
    constant = IMAGES.copy()
    constant[:, 0, 0, 0] = 7
    splits = wd.data.split(constant, LABELS)
    train, test = splits.train[0], splits.test[0]
    assert np.bincount(splits.train[1]).tolist() == [12, 12, 12]
    # Float32 of values computed in float64.
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-6)
    deviation = train.std(axis=0)
    assert deviation[0, 0, 0] == test[:, 0, 0, 0].max() == 0
    np.testing.assert_allclose(deviation.ravel()[1:], 1, rtol=1e-6)
    assert abs(test.mean(axis=0)).max() > 0.1


def test_split_leaves_real_targets_of_any_shape_to_standardize():
    targets = np.random.default_rng(1).normal(3, 2, (60, 2))
    raw, standardized = (wd.data.split(IMAGES, targets, standardize=value).train[1] for value in (False, True))
    assert {row.tobytes() for row in raw} <= {row.tobytes() for row in targets.astype(np.float32)}
    np.testing.assert_allclose(standardized, (raw - raw.mean(axis=0)) / raw.std(axis=0), rtol=1e-4)  # float32
    assert raw.shape == (36, 2)


def test_split_takes_truth_as_classes():
    splits = wd.data.split(np.arange(60.0)[:, None], LABELS == 0)
    assert np.bincount(splits.train[1]).tolist() == [24, 12]
    assert splits.train[1].dtype == np.int32


@pytest.mark.parametrize(
    ("inputs", "targets", "options", "error", "message"),
    [
        (
            IMAGES,
            LABELS[:-1],
            {},
            ValueError,
            "the data has 60 inputs and 59 targets; give one target for each example",
        ),
        (np.zeros((0, 3)), [], {}, ValueError, r"^inputs have shape \(0, 3\); give one row for each example"),
        (
            np.full((60, 2), np.nan),
            LABELS,
            {},
            ValueError,
            "^inputs contain 120 values that are nan or infinite, the first",
        ),
        ([["a"]] * 60, LABELS, {}, TypeError, "^inputs have dtype <U1; give numbers"),
        (IMAGES * 1j, LABELS, {}, TypeError, "^inputs have dtype complex128; give real numbers"),
        (IMAGES, LABELS, {"validation_size": 0.0}, ValueError, "validation_size is 0.0 and .* give fractions above 0"),
        (IMAGES, LABELS, {"seed": -1}, ValueError, "seed is -1; give an integer from 0 to 4294967295"),
        (IMAGES, np.stack([LABELS, LABELS + 2**40], 1), {}, ValueError, "targets contain integers that int32 cannot"),
        (IMAGES, LABELS * 0.5, {"label_noise": 0.1}, ValueError, "label_noise is 0.1, but the targets are not labels"),
        (IMAGES, LABELS * 0, {"label_noise": 0.1}, ValueError, "label_noise is 0.1, but the targets are not labels"),
        (
            IMAGES,
            np.arange(60),
            {"classes": True},
            ValueError,
            "12 examples cannot be chosen from 60 with their 60 classes .* classes=False",
        ),
        (IMAGES[:3], [0.5, 1, 2], {"test_size": 0.1}, ValueError, "0 examples cannot be chosen from 3 .* give more"),
    ],
)
def test_split_refuses(inputs, targets, options, error, message):
    with pytest.raises(error, match=message):
        wd.data.split(inputs, targets, **options)


def test_split_numbers_words_as_scikit_learn_does():
    words = np.array(["wren", "crow", "jay"])[LABELS]
    numbered = LabelEncoder().fit_transform(words)
    for given in (words, words.tolist(), words.astype(object)):
        splits = wd.data.split(np.arange(60.0)[:, None], given, standardize=False)
        np.testing.assert_array_equal(splits.train[1], numbered[splits.train[0][:, 0].astype(int)])
        assert splits.train[1].dtype == np.int32


def test_split_takes_integers_for_features_unless_they_are_tokens():
    integers = np.random.default_rng(2).integers(0, 1000, (60, 7))
    features = wd.data.split(integers, LABELS).train[0]
    np.testing.assert_array_equal(features, wd.data.split(integers.astype(float), LABELS).train[0])
    raw = wd.data.split(integers, LABELS, standardize=False).train[0]
    assert features.dtype == raw.dtype == np.float32
    tokens = wd.data.split(integers, LABELS, tokens=True).train[0]
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, raw)
    with pytest.raises(ValueError, match=r"tokens is True, but inputs contain integers from -\d+ to -\d+; give tokens"):
        wd.data.split(integers - 1000, LABELS, tokens=True)
    with pytest.raises(TypeError, match="tokens is True, but inputs have dtype float64; give integers"):
        wd.data.split(integers * 1.0, LABELS, tokens=True)
    with pytest.raises(ValueError, match="standardize is True and tokens is True"):
        wd.data.split(integers, LABELS, tokens=True, standardize=True)


def test_split_only_centers_what_is_constant_though_its_deviation_is_not_quite_zero():
    constant = np.full((60, 1), 0.1)
    assert constant.std() > 0  # by rounding
    train = wd.data.split(constant, LABELS).train[0]
    np.testing.assert_allclose(train, 0, atol=1e-7)  # rounding of the mean, in float64


def test_split_passes_several_labels_an_example():
    labels = np.stack([LABELS == 0, LABELS == 1, LABELS < 2], axis=1).astype(int)
    for splits in (wd.data.split(IMAGES, labels), wd.data.folds(IMAGES, labels)):
        data.check(splits, 8)
        assert splits.train[1].dtype == np.int32
        assert splits.train[1].shape[1:] == (3,)


def test_split_keeps_weights_with_their_examples():
    weights = np.arange(60) / 10
    splits = wd.data.split(np.arange(60.0)[:, None], LABELS, weights=weights, standardize=False)
    for (inputs, _, own), batch in zip(
        (splits.train, splits.validation, splits.test), splits.batches().values(), strict=True
    ):
        np.testing.assert_allclose(own, inputs[:, 0] / 10, rtol=1e-6)  # float32
        np.testing.assert_allclose(batch.weights, own / own.mean(), rtol=1e-6)
        assert batch.weights.dtype == np.float32


def test_split_keeps_groups_whole():
    groups = np.arange(60) % 20
    splits = wd.data.split(np.arange(60.0)[:, None], LABELS, groups=groups, standardize=False)
    names = [set(groups[split[0][:, 0].astype(int)]) for split in (splits.train, splits.validation, splits.test)]
    assert [len(part) for part in names] == [12, 4, 4]
    assert not names[0] & names[1] | names[1] & names[2] | names[0] & names[2]


def test_split_leaves_classes_out_of_proportion_if_told_to():
    rare = np.where(np.arange(60) == 0, 3, LABELS)
    assert len(wd.data.split(IMAGES, rare, stratify=False).train[1]) == 36
    with pytest.raises(ValueError, match="cannot be chosen from 60 with their 4 classes in proportion"):
        wd.data.split(IMAGES, rare)


@pytest.mark.parametrize("targets", [np.repeat([0, 1, 5], [7, 2, 3]), np.repeat(["a", "b"], [9, 1])])
def test_class_weights_agree_with_scikit_learn(targets):
    expected = compute_sample_weight("balanced", targets)
    np.testing.assert_allclose(wd.data.class_weights(targets), expected, rtol=1e-12)
    own = {name: 0.5 + place for place, name in enumerate(np.unique(targets).tolist()[::-1])}
    np.testing.assert_allclose(wd.data.class_weights(targets, own), compute_sample_weight(own, targets), rtol=1e-12)


def test_split_takes_weights_of_classes():
    names = np.repeat(["rare", "usual"], [15, 45])
    splits = wd.data.split(IMAGES, names, weights="balanced")
    for batch in splits.batches().values():
        totals = np.bincount(batch.targets, batch.weights)
        np.testing.assert_allclose(totals, len(batch.targets) / 2, rtol=1e-6)  # float32
    own = wd.data.split(IMAGES, names, weights={"rare": 2.0, "usual": 1.0})
    np.testing.assert_array_equal(own.train[2], np.where(own.train[1] == 0, 2.0, 1.0))


@pytest.mark.parametrize(
    ("targets", "weights", "error", "message"),
    [
        (
            [0.5, 1],
            "balanced",
            ValueError,
            r"targets have dtype float64 and shape \(2,\); give one class for each example",
        ),
        ([[0], [1]], "balanced", ValueError, r"targets have dtype int64 and shape \(2, 1\)"),
        ([0, 1], "even", TypeError, "weights is 'even'; give 'balanced', or a mapping of classes to weights"),
        (
            [0, 1],
            {0: 1},
            ValueError,
            r"weights has no weight for the classes 1, and weights for the classes \(none\), which",
        ),
        (
            ["a", "b"],
            {0: 1, 1: 2},
            ValueError,
            "weights has no weight for the classes 'a', 'b', and weights for the classes 0, 1, which",
        ),
        ([0, 1], {0: 1, 1: -2}, ValueError, r"weights contain -2.0 in example 1; give finite numbers of at least 0"),
    ],
)
def test_class_weights_refuse(targets, weights, error, message):
    with pytest.raises(error, match=f"^{message}"):
        wd.data.class_weights(targets, weights)


@pytest.mark.parametrize(
    ("split", "error", "message"),
    [
        ((IMAGES, LABELS, np.ones(3)), ValueError, r"data.train weights have shape \(3,\); give one for each example"),
        ((IMAGES, LABELS, LABELS * np.nan), ValueError, "data.train weights contain nan in example 0"),
        ((IMAGES, LABELS, LABELS * 0), ValueError, "data.train weights are all 0"),
        (
            (IMAGES, LABELS, ["a"] * 60),
            TypeError,
            "data.train weights have dtype <U1; give one number for each example",
        ),
        ((IMAGES, LABELS, None, None), TypeError, "data.train is of type tuple; give a pair"),
    ],
)
def test_check_refuses_splits(split, error, message):
    with pytest.raises(error, match=f"^{message}"):
        data.check(wd.Data(train=split, validation=(IMAGES, LABELS)), None)


def test_check_refuses_data_without_validation():
    with pytest.raises(TypeError, match=r"^data\.validation is of type NoneType; give a pair"):
        data.check(wd.Data(train=(IMAGES, LABELS)), None)


def test_data_is_told_by_its_shapes():
    data = wd.data.digits(num_train=100)
    assert repr(data) == (
        "Data(train: float32[100, 64] and int32[100]; validation: float32[359, 64] and int32[359]; "
        "test: float32[359, 64] and int32[359])"
    )
    assert repr(wd.Data(train=([[1.0]], [0]))) == "Data(train: list and list)"
    folds = wd.data.folds(*data.train, num_folds=4)
    assert repr(folds) == "Data(train: float32[100, 64] and int32[100]; 4 folds)"
