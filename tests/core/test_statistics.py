"""Standard errors and intervals as SciPy has them, folds that are not independent, and the luck of the best of many."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from weightdecay.core import statistics, text

NAN, INF = math.nan, math.inf
SAMPLES = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=12).filter(
    lambda values: np.ptp(values) > 0
)


def test_mean_and_error_equals_scipy():
    values = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(statistics.mean_and_error(values), (values.mean(), stats.sem(values)), rtol=1e-12)


@pytest.mark.parametrize("values", [[1.0], [1.0, NAN], [1.0, INF], [INF, -INF], []])
def test_mean_and_error_of_what_has_no_spread_is_nan(values):
    mean, error = statistics.mean_and_error(values)
    assert math.isnan(error)
    assert mean == 1.0 if values == [1.0] else not math.isfinite(mean)
    found = statistics.estimate(values)
    assert math.isnan(found.lower)
    assert math.isnan(found.upper)
    assert found.replicates == len(values)


@given(SAMPLES, st.floats(0.5, 0.999))
@settings(max_examples=60, deadline=None)
def test_estimate_t_equals_scipy(values, confidence):
    found = statistics.estimate(values, confidence=confidence)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    # Float64 sums in another order; the ends may lie near 0, which the spread of the values gives a scale.
    scale = 1e-9 * np.abs(values).max()
    np.testing.assert_allclose((found.lower, found.upper), expected, rtol=1e-9, atol=scale)
    np.testing.assert_allclose((found.mean, found.standard_error), (np.mean(values), stats.sem(values)), rtol=1e-9)


@pytest.mark.parametrize("num", [2, 3, 10])
def test_estimate_bootstrap_equals_scipy(num):
    values = np.random.default_rng(num).exponential(size=num)
    found = statistics.estimate(values, interval="bootstrap", confidence=0.9)
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    np.testing.assert_allclose((found.lower, found.upper), expected, rtol=1e-12)
    again = statistics.estimate(values, interval="bootstrap", confidence=0.9)
    assert again == found


@pytest.mark.parametrize("interval", statistics.INTERVALS)
def test_estimate_of_equal_values_is_a_point(interval):
    assert statistics.estimate([0.5] * 3, interval=interval) == statistics.Estimate(0.5, 0.0, 0.5, 0.5, 3)


def test_mean_and_error_averages_the_seeds_of_a_fold_and_corrects_for_shared_examples():
    values = np.random.default_rng(0).normal(size=(5, 3))  # folds, seeds
    folds = np.repeat(range(5), 3).tolist()
    mean, error = statistics.mean_and_error(values.ravel(), folds, 5)
    by_fold = values.mean(axis=1)
    np.testing.assert_allclose(mean, by_fold.mean(), rtol=1e-12)
    np.testing.assert_allclose(error, math.sqrt((1 / 5 + 1 / 4) * by_fold.var(ddof=1)), rtol=1e-12)
    # Two folds of five: each still shares its training examples with the others.
    _, error = statistics.mean_and_error(values[:2].ravel(), folds[:6], 5)
    np.testing.assert_allclose(error, math.sqrt((1 / 2 + 1 / 4) * by_fold[:2].var(ddof=1)), rtol=1e-12)
    # One fold is one validation set: its seeds are the replicates.
    alone = statistics.mean_and_error(values[0], [0, 0, 0], 5)
    np.testing.assert_allclose(alone, (values[0].mean(), stats.sem(values[0])), rtol=1e-12)


@pytest.mark.slow
def test_mean_and_error_of_folds_is_right_for_errors_as_correlated_as_nadeau_and_bengio_take_them():
    num_folds, correlation, trials = 5, 1 / 5, 4000  # correlation: validation examples over all
    covariance = (1 - correlation) * np.eye(num_folds) + correlation
    drawn = np.random.default_rng(0).multivariate_normal(np.zeros(num_folds), covariance, size=trials)
    folds = list(range(num_folds))
    squared = [statistics.mean_and_error(values, folds, num_folds)[1] ** 2 for values in drawn]
    # The mean of equicorrelated numbers has the variance of the mean of the covariance matrix; six Monte Carlo errors.
    np.testing.assert_allclose(np.mean(squared), covariance.mean(), atol=6 * stats.sem(squared))
    uncorrected = np.mean([stats.sem(values) ** 2 for values in drawn])
    assert uncorrected < 0.6 * covariance.mean()


def test_estimate_of_folds_widens_both_intervals_alike():
    values, folds = np.random.default_rng(1).normal(size=4), [0, 1, 2, 3]
    for interval in statistics.INTERVALS:
        plain = statistics.estimate(values, interval=interval)
        with_folds = statistics.estimate(values, folds=folds, num_folds=4, interval=interval)
        wider = math.sqrt((1 / 4 + 1 / 3) / (1 / 4))
        for end in ("lower", "upper"):
            moved = (getattr(with_folds, end) - plain.mean) / (getattr(plain, end) - plain.mean)
            np.testing.assert_allclose(moved, wider, rtol=1e-12)


def expected_maximum(num):
    """Of independent standard normal numbers."""
    density = lambda x: x * num * stats.norm.pdf(x) * stats.norm.cdf(x) ** (num - 1)  # noqa: E731
    return integrate.quad(density, -10, 10)[0]


@pytest.mark.parametrize(("num_candidates", "num_replicates"), [(5, 3), (20, 2), (20, 5), (8, 12)])
def test_optimism_of_equal_candidates_is_the_expected_minimum(num_candidates, num_replicates):
    generator, trials = np.random.default_rng(0), 200
    found = np.array(
        [
            statistics.optimism(generator.normal(size=(num_candidates, num_replicates)), lower_is_better=True)
            for _ in range(trials)
        ]
    )
    expected = expected_maximum(num_candidates) / math.sqrt(num_replicates)
    error = found[:, 0].std(ddof=1)
    np.testing.assert_allclose(found[:, 0].mean(), expected, atol=5 * error / math.sqrt(trials))
    # Told on the safe side, and of the right size.
    assert error < found[:, 1].mean() < 4 * error


def test_optimism_of_a_clear_winner_is_zero():
    noise = np.random.default_rng(0).normal(size=(6, 7))
    values = noise + 100 * np.arange(6)[:, None]
    np.testing.assert_allclose(statistics.optimism(values, lower_is_better=True).mean, 0, atol=1e-12)


def test_optimism_does_not_see_what_all_candidates_share_in_a_replicate():
    generator = np.random.default_rng(0)
    values = generator.normal(size=(6, 5))
    shared = values + 100 * generator.normal(size=5)
    plain = statistics.optimism(values, lower_is_better=True)
    # Numbers of 100 lose two digits of float64's sixteen.
    np.testing.assert_allclose(statistics.optimism(shared, lower_is_better=True), plain, rtol=1e-11)
    np.testing.assert_allclose(statistics.optimism(-values, lower_is_better=False), plain, rtol=1e-12)


def test_optimism_of_one_replicate_cannot_be_told():
    assert all(math.isnan(value) for value in statistics.optimism(np.ones((3, 1)), lower_is_better=True))


@pytest.mark.parametrize(
    ("mean", "error", "told"),
    [
        (0.12061, 0.00312, "0.1206 ± 0.0031"),
        (123.4, 17.0, "123 ± 17"),
        (0.5, 0.099, "0.500 ± 0.099"),
        (1234.0, 567.0, "1234 ± 567"),
        (0.123456, NAN, "0.1235"),
        (0.5, 0.0, "0.5"),
        (0.5, 1.23e-10, "0.5 ± 1.2e-10"),
        (NAN, NAN, "nan"),
        (-0.0012, 0.0021, "-0.0012 ± 0.0021"),
    ],
)
def test_text_estimate_keeps_the_digits_that_the_error_allows(mean, error, told):
    assert text.estimate(mean, error) == told


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": "normal"}, "interval is 'normal'; give one of 't', 'bootstrap'"),
        ({"confidence": 95}, "confidence is 95; give a number between 0 and 1, such as 0.95"),
        ({"confidence": 0.0}, "confidence is 0.0; give a number between 0 and 1"),
        ({"confidence": NAN}, "confidence is nan; give a number"),
    ],
)
def test_estimate_refuses(settings, message, without_beartype):
    with pytest.raises(ValueError, match=message):
        statistics.estimate([1.0, 2.0], **settings)


def test_standard_error_of_one_seed_is_that_of_its_examples():
    right = (np.arange(100) < 80).astype(float)[None]
    mean, error, degrees = statistics.mean_over_seeds_and_examples(right)
    assert (mean, degrees) == (0.8, 99)
    np.testing.assert_allclose(error, stats.sem(right[0]), rtol=1e-12)


def test_standard_error_adds_the_noise_of_seeds_and_of_examples():
    random = np.random.default_rng(0)
    draws = []
    for _ in range(2000):
        seeds, examples = random.normal(0, 0.3, (4, 1)), random.normal(0, 1.0, (1, 50))
        draws.append(statistics.mean_over_seeds_and_examples(seeds + examples)[:2])
    means, errors = np.array(draws).T
    # The means vary by 0.3²/4 + 1/50; the estimates are unbiased (2,000 draws: 3 %).
    np.testing.assert_allclose(means.var(), 0.3**2 / 4 + 1 / 50, rtol=0.1)
    np.testing.assert_allclose((errors**2).mean(), 0.3**2 / 4 + 1 / 50, rtol=0.03)


def test_degrees_of_freedom_are_welchs():
    # With two values a row and a column the formula is that of a two-sample test of unequal variances.
    values = np.random.default_rng(1).normal(size=(5, 8))
    over_seeds, over_examples = values.mean(axis=1), values.mean(axis=0)
    welch = stats.ttest_ind(over_seeds, over_examples, equal_var=False)
    np.testing.assert_allclose(statistics.mean_over_seeds_and_examples(values)[2], welch.df, rtol=1e-12)
