"""Log-log laws, compared with scipy's curve fit and with laws that are known."""

import numpy as np
import pytest
from scipy import optimize, stats

from weightdecay.results import power_law


def test_fit_is_that_of_curve_fit():
    rng = np.random.default_rng(0)
    steps, rates = rng.uniform(100, 10_000, 7), rng.uniform(1e-4, 1e-1, 7)
    errors = rng.uniform(0.1, 0.5, 7)
    logarithms = 1.0 - 0.8 * np.log(steps) - 1.1 * np.log(rates) + 3 * errors * rng.normal(size=7)
    runs = [{"steps": s, "rate": r} for s, r in zip(steps, rates, strict=True)]
    law = power_law.fit(np.exp(logarithms).tolist(), errors.tolist(), runs, ["steps", "rate"])

    def line(x, a, b, c):
        return a + b * x[0] + c * x[1]

    x = np.log(np.stack([steps, rates]))
    solution, covariance = optimize.curve_fit(line, x, logarithms, sigma=errors, absolute_sigma=True)
    squares = (((line(x, *solution) - logarithms) / errors) ** 2).sum()
    assert squares > 4  # the scatter is larger than the errors say, which widens the covariance
    # curve_fit iterates from a numerical derivative.
    np.testing.assert_allclose([e.value for e in law.exponents.values()], solution[1:], rtol=1e-5)
    expected = np.sqrt(np.diag(covariance) * squares / 4)[1:]
    np.testing.assert_allclose([e.standard_error for e in law.exponents.values()], expected, rtol=1e-4)
    value, low, high = law.predict({"steps": 5e4, "rate": 1e-3}, 0.9)
    row = np.array([1, np.log(5e4), np.log(1e-3)])
    half = stats.norm.ppf(0.95) * np.sqrt(row @ covariance @ row * squares / 4)
    np.testing.assert_allclose(np.log([low, value, high]) - row @ solution, [-half, 0, half], rtol=1e-4, atol=1e-5)


def test_fit_of_two_runs_has_the_errors_that_were_given():
    law = power_law.fit([1.0, 0.1], [0.3, 0.4], [{"n": 10.0}, {"n": 100.0}], ["n"])
    exponent = law.exponents["n"]
    assert exponent.value == pytest.approx(-1)
    assert exponent.standard_error == pytest.approx(0.5 / np.log(10))


def test_fit_takes_no_more_quantities_than_the_runs_can_tell_apart():
    runs = [{"n": 10.0, "m": 5.0, "k": 1.0}, {"n": 100.0, "m": 50.0, "k": 1.0}, {"n": 1000.0, "m": 500.0, "k": 1.0}]
    law = power_law.fit([1.0, 0.1, 0.01], [0.1] * 3, runs, ["m", "n", "k"])
    assert law.names == ("m",)  # n varies together with m, and k does not vary
    two = power_law.fit([1.0, 0.1], [0.1] * 2, [{"n": 1.0, "m": 5.0}, {"n": 2.0, "m": 1.0}], ["n", "m"])
    assert two.names == ("n",)


def test_interval_of_a_law_holds_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(3)
    runs = [{"n": float(n)} for n in (100, 300, 1000, 3000)]
    held = 0
    for _ in range(400):
        coefficients = [3 / run["n"] * np.exp(0.4 * rng.normal()) for run in runs]
        _, low, high = power_law.fit(coefficients, [0.4] * 4, runs, ["n"]).predict({"n": 1e5}, 0.8)
        held += low <= 3 / 1e5 <= high
    assert 0.76 < held / 400 < 0.90  # the covariance is only ever widened, so rather above 0.8
