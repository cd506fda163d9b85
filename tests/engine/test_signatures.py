"""`fit_grid`, `fit` and `plan` take the same settings, with the same defaults."""

import inspect

import pytest

import weightdecay as wd
from weightdecay.engine import preparation

SETTINGS = {
    name: parameter.default
    for name, parameter in inspect.signature(wd.fit_grid).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in ("budget", "strategy", "executor")  # of a grid
}


@pytest.mark.parametrize("function", [wd.fit, wd.plan])
def test_signature_has_every_setting_of_fit_grid(function):
    parameters = inspect.signature(function).parameters
    assert {name: parameters[name].default for name in SETTINGS} == SETTINGS


def test_prepare_run_takes_every_setting_that_training_depends_on():
    taken = set(inspect.signature(preparation.prepare_run).parameters)
    assert set(SETTINGS) - taken == {"directory", "save_every", "on_evaluation", "log_to", "progress"}
