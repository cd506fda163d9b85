"""Estimators of scikit-learn: their solutions, scores and weights are those of scikit-learn's own estimators."""

import io
import pickle

import jax.numpy as jnp
import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, special
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    RepeatedKFold,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import weightdecay as wd
from weightdecay.core.checks import ArgumentError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
Y = X @ [1.0, -2.0, 0.5, 0.0, 0.0] + RNG.normal(size=60)
CLASSES = np.where(Y > 0, "yes", "no")
THREE = np.digitize(Y, [-1.0, 1.0])
WEIGHTS = RNG.integers(0, 4, size=60).astype(float)
LINEAR = {"model": (), "optimizer": wd.sgd, "learning_rate": 0.1, "num_steps": 400, "random_state": 0}
"""Gradient descent on a linear model with all examples, which converges to the minimizer."""
QUICK = {"model": (8,), "learning_rate": 0.01, "num_steps": 20, "cv": 2, "random_state": 0}
DECAYS = [wd.NoDecay(), wd.L2(0.1), wd.L2(1.0)]
# A model that is not of this library is never padded: its splits train as folds, or one after the other.
OWN = wd.Model(
    lambda key, inputs: {"kernel": jnp.zeros(inputs.shape[1]), "bias": jnp.zeros(())},
    lambda params, inputs: inputs @ params["kernel"] + params["bias"],
)
OWN_MASK = {"kernel": True, "bias": False}


def ridge(coefficient, num_examples):
    """The same objective: mean squared error of standardized targets + c/2 |w|²."""
    return Ridge(alpha=coefficient * num_examples / 2)


def logistic(coefficient, num_examples, **settings):
    """The same objective: mean cross-entropy + c/2 |w|²."""
    return LogisticRegression(C=1 / (coefficient * num_examples), tol=1e-8, max_iter=1000, **settings)


@pytest.mark.parametrize("targets", [Y, 1e9 + 1e6 * Y, np.stack([1e-6 * Y, 3 + X[:, 3]], axis=1)])
def test_linear_regressor_is_ridge_at_any_scale_of_the_targets(targets):
    regressor = wd.DecayRegressorCV(decay=wd.L2(0.3), cv=2, **LINEAR).fit(X, targets)
    # The loss is the mean over the targets, and the penalty the sum. A ridge of several targets standardizes none.
    mean, scale, num = targets.mean(axis=0), targets.std(axis=0), targets[0].size
    expected = ridge(0.3, num * len(X)).fit(X, (targets - mean) / scale)
    assert regressor.predict(X).shape == targets.shape
    # Float32: 1e-5 of the spread of the targets.
    np.testing.assert_allclose((regressor.predict(X) - mean) / scale, expected.predict(X), atol=2e-5)
    np.testing.assert_allclose(regressor.score(X, targets), expected.score(X, (targets - mean) / scale), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [CLASSES, THREE])
def test_linear_classifier_is_logistic_regression(classes):
    classifier = wd.DecayClassifierCV(decay=wd.L2(0.1), cv=2, **{**LINEAR, "learning_rate": 0.5}).fit(X, classes)
    # Two outputs share the weights of one: for two classes, the penalty is half of it.
    num = len(np.unique(classes))
    expected = logistic(0.1 if num > 2 else 0.05, len(X)).fit(X, classes)
    np.testing.assert_allclose(classifier.predict_proba(X), expected.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(classifier.classes_, expected.classes_)
    np.testing.assert_array_equal(classifier.predict(X), expected.predict(X))
    if num == 2:
        np.testing.assert_allclose(classifier.decision_function(X), expected.decision_function(X), atol=1e-3)
    np.testing.assert_allclose(special.softmax(classifier.predict_log_proba(X), axis=1), classifier.predict_proba(X))


@pytest.mark.slow
@pytest.mark.parametrize("model", [(), OWN])
@pytest.mark.parametrize(
    "cv",
    [
        KFold(4),
        ShuffleSplit(2, random_state=0),
        PredefinedSplit(np.repeat([-1, 0], 30)),
        RepeatedKFold(n_splits=2, n_repeats=2, random_state=0),
    ],
    ids=lambda cv: type(cv).__name__,
)
def test_scores_are_those_of_cross_validated_ridge(model, cv):
    mask = OWN_MASK if model is OWN else wd.masks.kernels
    settings = {**LINEAR, "model": model, "mask": mask, "decay": [wd.L2(0.1), wd.L2(1.0), wd.L2(10.0)]}
    regressor = wd.DecayRegressorCV(cv=cv, scoring="neg_mean_absolute_error", **settings).fit(X, Y)
    for coefficient, score in zip([0.1, 1.0, 10.0], regressor.cv_results_["mean_test_score"], strict=True):
        expected = [
            -abs(ridge(coefficient, len(train)).fit(X[train], Y[train]).predict(X[rows]) - Y[rows]).mean()
            for train, rows in cv.split(X)
        ]
        np.testing.assert_allclose(score, np.mean(expected), rtol=1e-4)
    assert regressor.decay_ == wd.L2(0.1)
    assert regressor.best_score_ == regressor.cv_results_["mean_test_score"].max()
    assert regressor.n_splits_ == cv.get_n_splits()
    np.testing.assert_array_equal(regressor.cv_results_["rank_test_score"], [1, 2, 3])


@pytest.mark.slow
def test_default_score_is_the_negative_log_loss():
    by_loss = wd.DecayClassifierCV(decay=DECAYS, **QUICK).fit(X, THREE)
    by_scorer = wd.DecayClassifierCV(decay=DECAYS, scoring="neg_log_loss", **QUICK).fit(X, THREE)
    np.testing.assert_allclose(
        by_loss.cv_results_["mean_test_score"], by_scorer.cv_results_["mean_test_score"], rtol=1e-5
    )
    assert by_loss.best_score_ == pytest.approx(by_scorer.best_score_, rel=1e-5)
    assert by_loss.score(X, THREE) == np.mean(by_loss.predict(X) == THREE)
    assert by_scorer.score(X, THREE) == pytest.approx(-log_loss(THREE, by_scorer.predict_proba(X)))


@pytest.mark.slow
def test_scorer_chooses_the_candidate():
    def prefers_small_outputs(estimator, inputs, targets):
        return -np.abs(estimator.predict(inputs)).mean()

    regressor = wd.DecayRegressorCV(
        cv=2, scoring=prefers_small_outputs, **{**LINEAR, "decay": [wd.L2(0.1), wd.L2(1.0), wd.L2(10.0)]}
    ).fit(X, Y - Y.mean())
    assert regressor.decay_ == wd.L2(10.0)


@pytest.mark.slow
def test_weights_of_examples_and_classes_are_those_of_scikit_learn():
    regressor = wd.DecayRegressorCV(decay=wd.L2(0.3), cv=2, **LINEAR).fit(X, Y, sample_weight=WEIGHTS)
    expected = ridge(0.3, WEIGHTS.sum()).fit(X, Y, sample_weight=WEIGHTS)
    np.testing.assert_allclose(regressor.predict(X), expected.predict(X), atol=1e-4)

    settings = {**LINEAR, "learning_rate": 0.5, "cv": 2}
    classifier = wd.DecayClassifierCV(decay=wd.L2(0.1), class_weight="balanced", **settings)
    classifier.fit(X, THREE, sample_weight=WEIGHTS)
    # Its objective is a sum, so that its C depends on the sum of all weights, which balancing does not change.
    expected = logistic(0.1, WEIGHTS.sum(), class_weight="balanced").fit(X, THREE, sample_weight=WEIGHTS)
    np.testing.assert_allclose(classifier.predict_proba(X), expected.predict_proba(X), atol=1e-4)


@pytest.mark.slow
def test_scores_of_splits_are_weighted():
    settings = {**LINEAR, "decay": wd.L2(0.1), "cv": KFold(3), "scoring": "neg_mean_squared_error"}
    regressor = wd.DecayRegressorCV(**settings).fit(X, Y, sample_weight=WEIGHTS)
    expected = []
    for train, rows in KFold(3).split(X):
        trained = ridge(0.1, WEIGHTS[train].sum()).fit(X[train], Y[train], WEIGHTS[train])
        expected.append(-np.average((trained.predict(X[rows]) - Y[rows]) ** 2, weights=WEIGHTS[rows]))
    np.testing.assert_allclose(regressor.best_score_, np.mean(expected), rtol=1e-4)


@pytest.mark.slow
def test_double_precision_reaches_the_solution_more_exactly():
    # A model whose weights are of the default dtype, which is float64 then; layers of flax keep float32.
    settings = {**LINEAR, "model": OWN, "mask": OWN_MASK, "num_steps": 1500, "decay": wd.L2(0.25), "cv": 2}
    expected = ridge(0.25, len(X)).fit(X, Y).predict(X)
    double = wd.DecayRegressorCV(precision="float64", **settings).fit(X, Y).predict(X)
    np.testing.assert_allclose(double, expected, atol=1e-9)


@pytest.mark.slow
def test_groups_reach_the_splitter():
    groups = np.arange(60) % 4
    settings = {**QUICK, "cv": GroupKFold(4), "decay": DECAYS}
    classifier = wd.DecayClassifierCV(**settings).fit(X, CLASSES, groups=groups)
    splits = list(GroupKFold(4).split(X, CLASSES, groups))
    by_hand = wd.DecayClassifierCV(**{**settings, "cv": splits}).fit(X, CLASSES)
    np.testing.assert_array_equal(classifier.cv_results_["mean_test_score"], by_hand.cv_results_["mean_test_score"])
    with pytest.raises(ValueError, match="groups"):
        wd.DecayClassifierCV(**settings).fit(X, CLASSES)


@pytest.mark.slow
def test_padded_examples_train_as_plain_ones():
    # 60 rows are filled up to 64, and every split has the shape of all rows.
    settings = {**QUICK, "decay": DECAYS, "scoring": "neg_log_loss"}
    classifier = wd.DecayClassifierCV(**settings).fit(X, CLASSES)
    seed = classifier.result_.members[0]["seed"]
    half = len(X) // 2
    for fold, (train, rows) in enumerate(wd_splits(CLASSES)):
        labels = (CLASSES == "yes").astype(int)
        data = wd.Data((X[train], labels[train]), (X[rows], labels[rows]))
        grid = wd.Grid(decay=DECAYS, learning_rate=0.01, seed=seed)
        result = wd.fit_grid(wd.models.MLP((8,)), data, grid, num_steps=20, batch_size=None, progress=False)
        expected = result.dataset["validation_loss"].values[:, -1]
        of_fold = classifier.result_.dataset["fold"].values == fold
        trained = classifier.result_.dataset["validation_loss"].values[of_fold, -1]
        np.testing.assert_allclose(trained, expected, rtol=1e-5)
    assert classifier.result_.settings["examples"] == {"train": half, "validation": half}


def wd_splits(y):
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(2).split(X, y)


@pytest.mark.slow
def test_folds_are_one_grid_with_the_bits_of_fit_grid():
    settings = {**QUICK, "decay": DECAYS, "cv": KFold(3), "batch_size": 8}
    regressor = wd.DecayRegressorCV(**settings).fit(X, Y)
    fold = np.repeat(range(3), 20)
    scaling = wd.data.folds(X, Y, num_folds=3).scaling
    parts = [Y[fold != number] for number in range(3)]
    mean, scale = np.array([part.mean() for part in parts]), np.array([part.std() for part in parts])
    data = wd.Data((X, Y), fold=fold, scaling=type(scaling)(None, None, mean, scale))
    grid = wd.Grid(decay=DECAYS, learning_rate=0.01, seed=regressor.result_.members[0]["seed"], fold=range(3))
    expected = wd.fit_grid(wd.models.MLP((8,)), data, grid, num_steps=20, batch_size=8, progress=False)
    np.testing.assert_array_equal(
        regressor.result_.dataset["validation_loss"].values, expected.dataset["validation_loss"].values
    )


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", ["auto", 16])
def test_without_refit_the_networks_of_all_splits_predict_together(batch_size):
    settings = {**QUICK, "decay": DECAYS, "num_seeds": 2, "refit": False, "batch_size": batch_size}
    classifier = wd.DecayClassifierCV(**settings).fit(X, THREE)
    result, members = classifier.result_, classifier.selected_.members
    assert len(members) == 4
    if batch_size == 16:
        outputs = [result.predict(X.astype(np.float32), member) for member in members]
        expected = np.mean([special.softmax(output, axis=1) for output in outputs], axis=0)
        np.testing.assert_allclose(classifier.predict_proba(X), expected, atol=1e-6)
    single = [wd.DecayClassifierCV(**{**settings, "num_seeds": 1}).fit(X, THREE)]
    assert not np.array_equal(single[0].predict_proba(X), classifier.predict_proba(X))


@pytest.mark.slow
def test_copies_predict_the_same_and_hold_no_code(tmp_path):
    frame = pd.DataFrame(X, columns=list("abcde"))
    for estimator, targets in ((wd.DecayClassifierCV, CLASSES), (wd.DecayRegressorCV, Y)):
        fitted = estimator(decay=DECAYS, **QUICK).fit(frame, targets)
        joblib.dump(fitted, tmp_path / "estimator.joblib")
        content = pickle.dumps(fitted)
        for copied in (pickle.loads(content), joblib.load(tmp_path / "estimator.joblib")):
            np.testing.assert_array_equal(copied.predict(frame), fitted.predict(frame))
            pd.testing.assert_frame_equal(copied.result_.table(), fitted.result_.table())
            assert (copied.decay_, copied.best_score_) == (fitted.decay_, fitted.best_score_)
            assert list(copied.feature_names_in_) == list("abcde")
        rooms = {module.split(".")[1] for module in loaded_modules(content) if module.startswith("weightdecay.")}
        assert rooms <= {"apps", "core", "decay", "models", "results", "search"}


def loaded_modules(content):
    """Modules whose classes and functions a pickle loads."""
    modules = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module, name):
            modules.add(module)
            return super().find_class(module, name)

    Unpickler(io.BytesIO(content)).load()
    assert not [module for module in modules if module.startswith("jax")]
    return modules


@pytest.mark.slow
def test_works_in_pipelines_and_searches_of_scikit_learn():
    inputs, classes = load_iris(return_X_y=True, as_frame=True)
    pipeline = make_pipeline(
        StandardScaler().set_output(transform="pandas"), wd.DecayClassifierCV(decay=DECAYS, **QUICK)
    )
    scores = cross_val_score(pipeline, inputs, classes, cv=2)
    assert scores.shape == (2,)
    assert np.isfinite(scores).all()
    search = GridSearchCV(pipeline, {"decayclassifiercv__learning_rate": [1e-4, 0.03]}, cv=2).fit(inputs, classes)
    assert search.best_params_ == {"decayclassifiercv__learning_rate": 0.03}
    fitted = search.best_estimator_[-1]
    assert list(fitted.feature_names_in_) == list(inputs.columns)
    assert "DecayClassifierCV" in search.best_estimator_._repr_html_()
    assert not hasattr(clone(fitted), "decay_")


@pytest.mark.slow
@pytest.mark.parametrize("container", [sparse.csr_matrix, sparse.csc_array])
def test_sparse_inputs_train_as_dense_ones(container):
    dense = np.where(np.abs(X) < 0.5, 0, X)
    fitted = wd.DecayRegressorCV(decay=DECAYS, **QUICK).fit(dense, Y)
    of_sparse = wd.DecayRegressorCV(decay=DECAYS, **QUICK).fit(container(dense), Y)
    np.testing.assert_array_equal(of_sparse.predict(container(dense)), fitted.predict(dense))


@pytest.mark.slow
def test_same_random_state_gives_the_same_bits_and_another_does_not():
    fitted = [wd.DecayRegressorCV(**{**QUICK, "random_state": state}).fit(X, Y).predict(X) for state in (1, 1, 2)]
    np.testing.assert_array_equal(fitted[0], fitted[1])
    assert not np.array_equal(fitted[0], fitted[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.1, [wd.Decoupled(0.1)]),
        ([0, 0.1, wd.L2(1.0)], [wd.NoDecay(), wd.Decoupled(0.1), wd.L2(1.0)]),
        ("L2", [wd.NoDecay(), *wd.logspace(wd.L2, 1e-6, 1e-1, 7)]),
        (wd.L2, [wd.NoDecay(), *wd.logspace(wd.L2, 1e-6, 1e-1, 7)]),
        ("auto", [wd.NoDecay(), *wd.logspace(wd.Decoupled, 1e-3, 1e1, 7)]),
    ],
)
def test_decay_may_be_given_in_several_ways(decay, expected):
    settings = {**QUICK, "num_steps": 1}
    regressor = wd.DecayRegressorCV(decay=decay, **settings).fit(X, Y)
    assert [candidate["decay"] for candidate in regressor.cv_results_["params"]] == expected


@pytest.mark.slow
def test_axes_draws_and_budget_reach_the_grid():
    settings = {**QUICK, "decay": wd.Decoupled(wd.LogUniform(1e-2, 1.0)), "n_iter": 6}
    classifier = wd.DecayClassifierCV(axes={"dropout_rate": [0.0, 0.3]}, **settings).fit(X, CLASSES)
    candidates = classifier.cv_results_["params"]
    assert len(candidates) == 6
    assert {candidate["dropout_rate"] for candidate in candidates} == {0.0, 0.3}
    assert classifier.best_params_["dropout_rate"] in (0.0, 0.3)
    few = wd.DecayClassifierCV(**{**settings, "decay": DECAYS, "n_iter": 100}).fit(X, CLASSES)
    assert [candidate["decay"] for candidate in few.cv_results_["params"]] == DECAYS
    searched = wd.DecayClassifierCV(budget=0.5, batch_size=16, **settings).fit(X, CLASSES)
    assert searched.result_.spent <= 0.5
    assert np.isfinite(searched.best_score_)
    assert np.isnan(searched.cv_results_["mean_test_score"]).any()


@pytest.mark.slow
def test_candidates_that_diverge_are_never_chosen():
    settings = {**QUICK, "optimizer": wd.sgd, "learning_rate": [0.01, 1e20], "decay": [wd.NoDecay()]}
    for scoring in (None, "r2"):
        assert wd.DecayRegressorCV(scoring=scoring, **settings).fit(X, Y).learning_rate_ == 0.01
    with pytest.raises(ArgumentError, match="StandardScaler"):
        wd.DecayRegressorCV(scoring="r2", **{**settings, "learning_rate": 1e20}).fit(X, Y)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": []}, "decay is empty"),
        ({"decay": "L3"}, "decay is 'L3'; give 'auto', a rule"),
        ({"precision": "float16"}, "precision is 'float16'"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"max_epochs": -1}, "max_epochs is -1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"num_seeds": 0}, "num_seeds is 0"),
        ({"n_iter": 0}, "n_iter is 0"),
        ({"cv": [([], [0, 1])]}, "cv has a split without training examples"),
    ],
)
def test_wrong_argument_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wd.DecayClassifierCV(**{**QUICK, **wrong}).fit(X, CLASSES)


def test_one_class_is_refused():
    with pytest.raises(ArgumentError, match="1 class"):
        wd.DecayClassifierCV(**QUICK).fit(X, np.zeros(60))
