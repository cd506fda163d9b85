"""Importance of hyperparameters agrees with the closed form, and with the order of optuna's functional ANOVA."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import qmc

import weightdecay as wd
from made_results import made
from weightdecay.results.importance import importance


def table_of(points, values):
    frame = pd.DataFrame(points, columns=[f"axis_{index}" for index in range(points.shape[1])])
    return pd.concat([pd.DataFrame({"decay": ["L2"] * len(frame)}), frame], axis=1).assign(validation_loss=values)


def test_importance_of_a_sum_is_its_share_of_the_variance():
    points = qmc.Sobol(3, seed=0).random(256)
    found = importance(table_of(points, 3 * points[:, 0] + points[:, 1]))
    # Uniform numbers: the variance of 3 x is nine times that of x, and both do not interact.
    np.testing.assert_allclose(found["importance"][["axis_0", "axis_1", "axis_2"]], [0.9, 0.1, 0], atol=0.05)
    assert found.index[0] == "axis_0"
    assert found.attrs["explained"] > 0.95
    assert (found["standard_error"] < 0.1).all()


@pytest.mark.slow
def test_importance_of_ishigamis_function_is_its_total_index():
    points = qmc.Sobol(3, seed=1).random(1024)
    a, b, c = (2 * np.pi * points - np.pi).T
    found = importance(table_of(points, np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)))
    # Total indices of Ishigami & Homma 1990 with a = 7 and b = 0.1. The forest smooths what it learns: 0.1.
    np.testing.assert_allclose(found["importance"][["axis_0", "axis_1", "axis_2"]], [0.558, 0.442, 0.244], atol=0.1)
    assert found["importance"].sum() > 1  # the first and the third interact


@pytest.mark.slow
def test_importance_has_the_order_of_optunas_functional_anova():
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(0)
    points = rng.uniform(size=(128, 3))
    values = 4 * points[:, 2] + 1.5 * points[:, 0] + 0.3 * points[:, 1] + 0.05 * rng.normal(size=128)
    study = optuna.create_study()
    for point, value in zip(points, values, strict=True):
        parameters = {f"axis_{index}": float(number) for index, number in enumerate(point)}
        uniform = dict.fromkeys(parameters, optuna.distributions.FloatDistribution(0, 1))
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=uniform, value=float(value)))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    theirs = pd.Series(optuna.importance.get_param_importances(study, evaluator=evaluator))
    ours = importance(table_of(points, values))["importance"]
    assert list(ours.index) == list(theirs.index)
    np.testing.assert_allclose(ours / ours.sum(), theirs[list(ours.index)], atol=0.1)


def test_importance_of_noise_is_within_its_error_and_explains_nothing():
    points = np.random.default_rng(3).uniform(size=(64, 2))
    found = importance(table_of(points, np.random.default_rng(4).normal(size=64)))
    assert found.attrs["explained"] < 0.2
    assert (found["importance"] < 0.3).all()


def test_importance_leaves_out_what_diverged_and_one_bad_candidate():
    points = qmc.Sobol(2, seed=0).random(64)
    values = points[:, 0].copy()
    values[5], values[6] = np.nan, 1e6
    found = importance(table_of(points, values))
    assert found["importance"]["axis_0"] > 0.3 > 0.1 > found["importance"]["axis_1"]
    assert found.attrs["explained"] > 0.3


def test_importance_of_a_result_has_its_axes(monkeypatch):
    axes = {"learning_rate": wd.LogUniform(1e-4, 1e-1), "momentum": wd.Uniform(0, 0.99)}
    grid = wd.Grid.sobol(32, decay=wd.L2(wd.LogUniform(1e-5, 1e0)), **axes)
    result = made(grid)
    result.dataset["validation_loss"][:, -1] = np.log10([member["learning_rate"] for member in grid]) ** 2
    found = result.importance()
    assert set(found.index) == {"coefficient", "learning_rate", "momentum"}
    assert found.index[0] == "learning_rate"
    ax = result.plot_importance()
    assert next(one.get_text() for one in ax.get_yticklabels()) == "learning rate"
    shown = ax.containers[0].lines[0].get_xdata()
    np.testing.assert_allclose(np.asarray(shown, float), found["importance"], rtol=1e-12)
    with pytest.raises(ValueError, match="finite for 4 candidates; importance needs at least 12"):
        result.part(range(4)).importance()
