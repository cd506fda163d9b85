"""Distributions: their quantiles, their frequencies, what they hold, and what they refuse."""

import math

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

import weightdecay as wd
from weightdecay.decay import schedules
from weightdecay.search import distributions
from weightdecay.search.distributions import Choice, Distribution, Holder, IntUniform, LogUniform, Uniform

UNITS = np.random.default_rng(7).random(4000)
UNIT = st.floats(0, 1)
sweep = settings(max_examples=50, deadline=None, derandomize=True)


@sweep
@given(UNIT, st.floats(1e-8, 1e3), st.floats(1.01, 1e6))
def test_numbers_are_scipys_quantiles(unit, low, ratio):
    high = low * ratio
    # A few roundings of float64 in a sum or in two powers.
    np.testing.assert_allclose(Uniform(low, high).at([unit]), stats.uniform(low, high - low).ppf(unit), rtol=1e-12)
    np.testing.assert_allclose(LogUniform(low, high).at([unit]), stats.loguniform(low, high).ppf(unit), rtol=1e-12)


@sweep
@given(UNIT, st.integers(-1000, 1000), st.integers(1, 1000))
def test_whole_numbers_are_scipys_quantiles(unit, low, width):
    # scipy's quantile is the least number of at least this probability: the two differ where the probability is met.
    steps = unit * (width + 1)
    if abs(steps - round(steps)) > 1e-6:
        assert IntUniform(low, low + width).at([unit]) == stats.randint(low, low + width + 1).ppf(unit)


@sweep
@given(st.sampled_from([Uniform(-2, 0.1), LogUniform(1e-7, 0.3), IntUniform(-3, 9)]), UNIT, UNIT)
def test_numbers_rise_between_their_ends(one, first, second):
    low, high = one.ends()
    assert (low, high) == (one.low, one.high)
    assert low <= one.at([min(first, second)]) <= one.at([max(first, second)]) <= high


@pytest.mark.parametrize(
    ("one", "oracle"),
    [
        (Uniform(-1.0, 3.0), stats.uniform(-1, 4)),
        (LogUniform(1e-5, 1e-1), stats.loguniform(1e-5, 1e-1)),
    ],
)
def test_numbers_follow_their_law(one, oracle):
    # The probability of a larger distance, at a fixed seed; a false law gives 1e-10 and less.
    assert stats.kstest([one.at([unit]) for unit in UNITS], oracle.cdf).pvalue > 0.01


@pytest.mark.parametrize(
    ("one", "shares"),
    [
        (IntUniform(3, 9), dict.fromkeys(range(3, 10), 1 / 7)),
        (Choice("a", None, 0.5), {"a": 1 / 3, None: 1 / 3, 0.5: 1 / 3}),
        (Choice("a", "b", "a"), {"a": 2 / 3, "b": 1 / 3}),
    ],
)
def test_values_have_their_shares(one, shares):
    drawn = [one.at([unit]) for unit in UNITS]
    assert set(drawn) == set(shares)
    counts = [drawn.count(value) for value in shares]
    # At a fixed seed; a false share gives 1e-10 and less.
    assert stats.chisquare(counts, [len(drawn) * share for share in shares.values()]).pvalue > 0.01


def test_choice_draws_what_it_chooses():
    one = Choice(wd.NoDecay(), wd.L2(LogUniform(1e-6, 1e-1)), wd.ElasticNet(LogUniform(1e-4, 1), Uniform(0, 1)))
    assert one.num_dimensions == 3
    assert one.at([0.1, 0.5, 0.5]) == wd.NoDecay()
    assert one.at([0.5, 0.0, 0.9]) == wd.L2(1e-6)
    assert one.at([0.9, 1.0, 0.25]) == wd.ElasticNet(1.0, 0.25)
    nested = Choice(0, Choice(1, IntUniform(2, 5)))
    assert nested.num_dimensions == 3
    assert [nested.at([u, v, 0.99]) for u, v in ((0.2, 0.9), (0.7, 0.2), (0.7, 0.9))] == [0, 1, 5]


def test_a_branch_of_a_choice_follows_its_own_law():
    one = Choice(None, LogUniform(1e-5, 1e-1))
    drawn = [one.at(units) for units in np.random.default_rng(3).random((8000, 2))]
    chosen = [value for value in drawn if value is not None]
    assert stats.binomtest(len(chosen), len(drawn), 0.5).pvalue > 0.01
    assert stats.kstest(chosen, stats.loguniform(1e-5, 1e-1).cdf).pvalue > 0.01


HOLDING = [
    (wd.L2(Uniform(0, 1)), [0.25], wd.L2(0.25)),
    (wd.L2({"Dense_0": Uniform(0, 1), "Dense_1": 0.5}), [0.25], wd.L2({"Dense_0": 0.25, "Dense_1": 0.5})),
    (wd.L2(wd.PerLayer({"a": Uniform(0, 1)}, Uniform(0, 1))), [0.25, 0.75], wd.L2(wd.PerLayer({"a": 0.25}, 0.75))),
    (wd.Masked(wd.L1(Uniform(0, 1)), wd.masks.first), [0.25], wd.Masked(wd.L1(0.25), wd.masks.first)),
    ((wd.L2(Uniform(0, 1)), wd.L1(Uniform(0, 2))), [0.25, 0.25], (wd.L2(0.25), wd.L1(0.5))),
    (wd.L2(schedules.Cosine(Uniform(0, 1), 9)), [0.25], wd.L2(schedules.Cosine(0.25, 9))),
    (schedules.Linear(Uniform(0, 1), 0, IntUniform(10, 19)), [0.5, 0.5], schedules.Linear(0.5, 0, 15)),
    (wd.L2(Choice(0.5, Uniform(0, 1))), [0.9, 0.25], wd.L2(0.25)),
    ((64, IntUniform(1, 4)), [0.99], (64, 4)),
    (None, [], None),
    ("relu", [], "relu"),
    (wd.NoDecay(), [], wd.NoDecay()),
]


@pytest.mark.parametrize(("value", "units", "expected"), HOLDING, ids=lambda one: str(one)[:40])
def test_distributions_are_drawn_where_they_stand(value, units, expected):
    one = distributions.of(value)
    one.check("axis")
    assert one.num_dimensions == len(units)
    assert one.at(units) == expected


def test_ends_are_those_of_every_branch():
    assert Choice("a", Uniform(0, 1), wd.L2(LogUniform(0.25, 4.0))).ends() == ["a", 0, 1, wd.L2(0.25), wd.L2(4.0)]
    two = Holder(wd.ElasticNet(Uniform(0, 1), Uniform(2, 3)))
    assert two.ends() == [wd.ElasticNet(a, b) for a, b in ((0, 2), (1, 2), (0, 2), (0, 3))]


def test_values_are_pythons_own_numbers():
    assert type(LogUniform(np.float32(1e-3), jnp.float32(1)).at(np.array([0.5]))) is float
    assert type(Uniform(0, 1).at(np.array([0.0]))) is float
    assert type(IntUniform(np.int64(1), 4).at(np.array([0.5]))) is int


def test_distributions_are_written_as_they_are_made():
    for one in (Choice("a", Uniform(low=0, high=1)), Choice(wd.L2(coefficient=LogUniform(low=0.1, high=1)))):
        assert repr(eval(repr(one), {**vars(distributions), "L2": wd.L2})) == repr(one)


def test_a_distribution_of_no_kind_has_no_values():
    with pytest.raises(NotImplementedError, match="Distribution has no values"):
        Distribution().at([0.5])


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("one", "error", "message"),
    [
        (LogUniform(0, 1), ValueError, r"axis = LogUniform.*: low is 0; give a finite number > 0"),
        (LogUniform(1e-50, 1), ValueError, "low is 1e-50; give a finite number > 0"),  # 0 in float32
        (LogUniform(1e-3, math.inf), ValueError, "high is inf; give a finite number > 0"),
        (LogUniform(1e-1, 1e-3), ValueError, "low is not below high; give the smaller end first"),
        (Uniform(1, 1), ValueError, "low is not below high.*one value without a range"),
        (Uniform(math.nan, 1), ValueError, "low is nan; give a finite number"),
        (Uniform(0, 10**400), ValueError, "high is 10+; give a finite number"),
        (Uniform("0", 1), TypeError, "low is '0', of type str; give one number"),
        (Uniform(0, None), TypeError, "high is None, of type NoneType"),
        (Uniform(0, np.ones(2)), ValueError, r"high is an array of shape \(2,\); give one number"),
        (IntUniform(0.5, 3), TypeError, "low is 0.5, of type float; give an integer"),
        (IntUniform(0, True), TypeError, "high is True, of type bool; give an integer"),
        (IntUniform(3, 3), ValueError, "low is not below high"),
        (Choice(), ValueError, "axis is a Choice without values; give at least one value"),
        (Choice([1, 2]), TypeError, r"axis\[0\] is \[1, 2\], of type list; .* put a star before it"),
        (Choice(0, np.arange(3)), TypeError, r"axis\[1\] is array.*put a star"),
        (Choice(0, Choice(1, Uniform(2, 1))), ValueError, r"axis\[1\]\[1\] = Uniform.*low is not below high"),
        (Holder(wd.L2(LogUniform(-1, 1))), ValueError, r"axis.coefficient = LogUniform.*low is -1"),
    ],
)  # fmt: skip
def test_distributions_refuse(one, error, message):
    with pytest.raises(error, match=message):
        one.check("axis")
