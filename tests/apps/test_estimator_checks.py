"""Every check that scikit-learn has for estimators, of its own list, on both estimators."""

import warnings

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator

import weightdecay as wd

# Full batches of a small network: all data of a similar size then share a program.
SMALL = {
    "model": (16,),
    "decay": [wd.Decoupled(0.1)],
    "learning_rate": 0.03,
    "cv": 2,
    "num_steps": 60,
    "batch_size": 1024,
}
# scikit-learn, too, gives its multilayer perceptron other settings for this check. It compares to 1e-7.
SETTINGS = {"check_sample_weight_equivalence_on_dense_data": {"precision": "float64"}}
SETTINGS["check_sample_weight_equivalence_on_sparse_data"] = SETTINGS["check_sample_weight_equivalence_on_dense_data"]


def checks():
    for estimator in (wd.DecayClassifierCV(**SMALL), wd.DecayRegressorCV(**SMALL)):
        for checked, check in estimator_checks_generator(estimator, legacy=True, mark=None):
            name = check.func.__name__
            yield pytest.param(checked, check, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.slow
@pytest.mark.usefixtures("without_beartype")  # some checks pass arguments of wrong types, as users may
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_estimator_passes_check_of_scikit_learn(estimator, check):
    estimator.set_params(**SETTINGS.get(check.func.__name__, {}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's checks warn of themselves, and count what they want to see
        check(estimator)
