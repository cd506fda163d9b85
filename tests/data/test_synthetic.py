"""Made data sets: what their docstrings say of the truth is what scikit-learn's models find."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier

import weightdecay as wd

MAKERS = {
    "teacher_student": (wd.data.teacher_student, {"num_train": 100}),
    "clusters": (wd.data.clusters, {"num_examples": 200}),
    "spirals": (wd.data.spirals, {"num_examples": 200}),
    "token_order": (wd.data.token_order, {"num_examples": 200}),
}


@pytest.mark.parametrize("name", MAKERS)
def test_made_sets_follow_from_the_seed_alone(name):
    make, options = MAKERS[name]
    one, again, other = make(**options), make(**options), make(**options, seed=1)
    wd.data.check(one, None)
    for split, same in ((one.train, again.train), (one.validation, again.validation), (one.test, again.test)):
        np.testing.assert_array_equal(split[0], same[0])
        np.testing.assert_array_equal(split[1], same[1])
    assert (one.train[0] != other.train[0]).any()
    every = np.concatenate([one.train[0], one.validation[0], one.test[0]])
    assert len(np.unique(every, axis=0)) == len(every)


def test_teacher_student_is_linear_without_noise():
    data = wd.data.teacher_student(noise_variance=0.0, num_train=100)
    fit = LinearRegression(fit_intercept=False).fit(*data.train)
    np.testing.assert_allclose(fit.predict(data.test[0]), data.test[1], atol=1e-5)  # float32 of about 1
    assert fit.coef_.shape == (50,)


def test_teacher_student_has_the_noise_that_it_says():
    data = wd.data.teacher_student(noise_variance=0.5, num_train=20_000, num_features=10, num_test=20_000)
    fit = LinearRegression().fit(*data.train)
    for inputs, targets in (data.train, data.test):
        # A variance out of n normal numbers has the relative deviation sqrt(2 / n) = 0.01: five of them.
        np.testing.assert_allclose(np.mean((fit.predict(inputs) - targets) ** 2), 0.5, rtol=0.05)


def test_teacher_student_says_which_decay_is_best():
    num_train, num_features, noise_variance = 40, 20, 0.5
    coefficient = 2 * noise_variance * num_features / num_train
    factors = [0.1, 0.4, 1.0, 2.5, 10.0]
    errors = np.zeros(len(factors))
    for seed in range(40):
        data = wd.data.teacher_student(
            num_train=num_train, num_features=num_features, noise_variance=noise_variance, num_test=500, seed=seed
        )
        for at, factor in enumerate(factors):
            # Mean squared error + c/2 |w|² is scikit-learn's sum of squares + alpha |w|² with alpha = c n / 2.
            fit = Ridge(factor * coefficient * num_train / 2, fit_intercept=False).fit(*data.train)
            errors[at] += np.mean((fit.predict(data.test[0]) - data.test[1]) ** 2)
    assert errors.argmin() == 2
    assert (np.diff(errors)[:2] < 0).all()
    assert (np.diff(errors)[2:] > 0).all()


def test_teacher_student_with_hidden_layers_is_not_linear_and_has_the_variance_one():
    data = wd.data.teacher_student(hidden=(3,), num_train=5000, num_features=5, noise_variance=0.0, num_test=5000)
    np.testing.assert_allclose(data.test[1].var(), 1, rtol=0.1)  # five deviations of a variance out of 5,000 numbers
    assert LinearRegression().fit(*data.train).score(*data.test) < 0.97
    noisy = wd.data.teacher_student(hidden=(3,), num_train=5000, num_features=5, noise_variance=0.3, num_test=5000)
    np.testing.assert_array_equal(data.train[0], noisy.train[0])
    np.testing.assert_allclose((noisy.train[1] - data.train[1]).var(), 0.3, rtol=0.1)


def test_clusters_have_few_features_that_tell():
    data = wd.data.clusters(num_examples=2000, num_classes=3, separation=2.0, irrelevant_features=30)
    inputs, targets = data.train
    assert inputs.shape == (1200, 50)
    assert np.bincount(targets).tolist() == [400, 400, 400]
    scores = [
        KNeighborsClassifier().fit(inputs[:, columns], targets).score(data.test[0][:, columns], data.test[1])
        for columns in (slice(0, 20), slice(20, 50))
    ]
    assert scores[0] > 0.9
    assert scores[1] < 0.45


def test_spirals_are_divided_by_no_line():
    data = wd.data.spirals(num_examples=3000, num_classes=2, turns=1.5, noise=0.02)
    assert KNeighborsClassifier().fit(*data.train).score(*data.test) > 0.98
    assert LogisticRegression().fit(*data.train).score(*data.test) < 0.7
    assert np.bincount(data.train[1]).tolist() == [900, 900]


def test_spirals_are_the_formula():
    data = wd.data.spirals(num_examples=3000, num_classes=3, turns=0.75, noise=0.0)
    radius = np.linspace(0.1, 1, 901)
    angle = 2 * np.pi * (0.75 * radius[:, None] + np.arange(3) / 3)
    plane = np.stack([radius[:, None] * np.cos(angle), radius[:, None] * np.sin(angle)], axis=2).reshape(-1, 2)
    # Standardized by examples that are spread along the arms: means and deviations of 1,800 examples.
    expected = (plane - plane.mean(axis=0)) / plane.std(axis=0)
    nearest = KNeighborsClassifier(1).fit(expected, np.tile(np.arange(3), 901))
    assert nearest.score(*data.test) == 1
    assert nearest.kneighbors(data.test[0])[0].max() < 0.1


def test_token_order_is_what_it_says():
    data = wd.data.token_order(num_examples=3000, length=9, num_tokens=7)
    for inputs, targets in (data.train, data.validation, data.test):
        assert (inputs.dtype, targets.dtype) == (np.int32, np.int32)
        sequences = inputs.tolist()
        assert [int(tokens.index(0) < tokens.index(1)) for tokens in sequences] == targets.tolist()
        assert all(tokens.count(0) == tokens.count(1) == 1 for tokens in sequences)
        assert set(inputs.ravel()) == set(range(7))
        assert np.bincount(targets)[0] == len(targets) // 2
    # Zeros lie anywhere: no place is much more frequent than another.
    assert np.bincount(data.train[0].argmin(axis=1)).min() > 1800 / 9 * 0.7


def test_token_order_is_not_told_by_how_often_tokens_come():
    data = wd.data.token_order(num_examples=3000, length=9, num_tokens=7)
    bags = [np.stack([np.bincount(row, minlength=7) for row in split[0]]) for split in (data.train, data.test)]
    score = MultinomialNB().fit(bags[0], data.train[1]).score(bags[1], data.test[1])
    assert abs(score - 0.5) < 0.1  # five deviations of a share out of 600


def test_label_noise_is_in_the_training_labels_of_made_sets_alone():
    for make in (wd.data.clusters, wd.data.spirals, wd.data.token_order):
        clean, noisy = make(num_examples=500), make(num_examples=500, label_noise=0.2)
        assert (clean.train[1] != noisy.train[1]).sum() == 60
        np.testing.assert_array_equal(clean.test[1], noisy.test[1])
        np.testing.assert_array_equal(clean.train[0], noisy.train[0])


def test_with_irrelevant_features_adds_noise_of_its_own_to_each_split():
    data = wd.data.split(*wd.data.arrays((np.eye(400)[:, :3], np.arange(400) % 2)), weights=np.ones(400))
    wider = wd.data.with_irrelevant_features(data, 4, seed=3)
    added = []
    for before, after in ((data.train, wider.train), (data.validation, wider.validation), (data.test, wider.test)):
        np.testing.assert_array_equal(after[0][:, :3], before[0])
        assert after[0].dtype == np.float32
        assert after[1] is before[1]
        assert after[2] is before[2]
        added.append(after[0][:, 3:])
    assert len(np.unique(np.concatenate(added), axis=0)) == 400
    # Five deviations of a mean and of a standard deviation of 1,600 numbers.
    np.testing.assert_allclose(np.concatenate(added).mean(), 0, atol=5 / 40)
    np.testing.assert_allclose(np.concatenate(added).std(), 1, atol=5 / 56)


def test_with_irrelevant_features_leaves_the_scaling_of_folds_alone():
    inputs, targets = np.random.default_rng(0).normal(5, 3, (60, 2)), np.arange(60) % 3
    data = wd.data.folds(inputs, targets, num_folds=3, test_size=0.2)
    wider = wd.data.with_irrelevant_features(data, 2)
    wd.data.check(wider, None)
    np.testing.assert_array_equal(wider.fold, data.fold)
    np.testing.assert_array_equal(wider.scaling.input_mean[:, :2], data.scaling.input_mean)
    np.testing.assert_array_equal(wider.scaling.input_mean[:, 2:], np.zeros((3, 2)))
    np.testing.assert_array_equal(wider.scaling.input_scale[:, 2:], np.ones((3, 2)))
    assert wider.test[0].shape == (12, 4)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        ("teacher_student", {"num_train": 0}, "num_train is 0; give an integer of at least 1"),
        ("teacher_student", {"hidden": (4, 0)}, r"hidden\[1\] is 0; give an integer"),
        ("teacher_student", {"noise_variance": -1}, "noise_variance is -1; give a finite number of at least 0"),
        (
            "teacher_student",
            {"irrelevant_features": -1},
            "irrelevant_features is -1; give an integer of at least 0",
        ),
        ("teacher_student", {"seed": -1}, "seed is -1; give an integer from 0"),
        ("clusters", {"num_features": 4}, "num_features is 4; give an integer of at least 5"),
        ("clusters", {"num_classes": 1}, "num_classes is 1; give an integer of at least 2"),
        (
            "clusters",
            {"num_classes": 17},
            "num_informative is 5, so that the cube has 32 corners, and 17 classes need 34",
        ),
        ("spirals", {"noise": -0.1}, "noise is -0.1; give a standard deviation of at least 0"),
        ("token_order", {"length": 1}, "length is 1; give an integer of at least 2"),
        ("token_order", {"num_tokens": 2}, "num_tokens is 2; give an integer of at least 3"),
    ],
)
def test_made_sets_refuse(make, options, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        getattr(wd.data, make)(**options)


def test_with_irrelevant_features_refuses_images_and_tokens():
    with pytest.raises(
        ValueError, match=r"^data.train has inputs of dtype int32 and shape \(1200, 16\); give real numbers"
    ):
        wd.data.with_irrelevant_features(wd.data.token_order(), 3)
    images = wd.Data((np.zeros((4, 2, 2)), np.zeros(4)), (np.zeros((4, 2, 2)), np.zeros(4)))
    with pytest.raises(ValueError, match=r"^data.train has inputs of dtype float64 and shape \(4, 2, 2\)"):
        wd.data.with_irrelevant_features(images, 3)
