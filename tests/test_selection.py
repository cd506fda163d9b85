"""An honest choice: seeds are replicates, nan never wins, and the edge of the grid is said."""

import math

import numpy as np
import pytest
from scipy import stats

import weightdecay as wd
from weightdecay import selection

INF, NAN = math.inf, math.nan


def candidates(metric, *, decay, learning_rate=(1e-3,), seeds=2, norms=None):
    """Candidates with the given metric: a row a candidate, a column a seed."""
    members = list(wd.Grid(decay=decay, learning_rate=list(learning_rate), seed=range(seeds)))
    norms = np.ones(len(members)) if norms is None else np.repeat(norms, seeds)
    return selection.gather(members, np.ravel(metric), norms)


def choose(metric, criterion="best_mean", metric_name="validation_loss", **kwargs):
    return selection.choose(candidates(metric, **kwargs), metric=metric_name, criterion=criterion)


PATH = [wd.NoDecay(), wd.L2(0.01), wd.L2(0.1), wd.L2(1.0)]


def test_mean_and_error_equals_scipy():
    values = np.random.default_rng(0).normal(size=7)
    np.testing.assert_allclose(selection.mean_and_error(values), (values.mean(), stats.sem(values)), rtol=1e-12)
    assert math.isnan(selection.mean_and_error([1.0])[1])


def test_choose_averages_the_seeds_and_never_picks_a_lucky_one():
    chosen = choose([[0.5, 0.5], [0.1, 0.95], [0.4, 0.4], [0.6, 0.6]], decay=PATH)
    assert chosen.decay == wd.L2(0.1)
    assert chosen.members == (4, 5)
    assert chosen.mean == pytest.approx(0.4)


def test_choose_takes_the_highest_accuracy():
    chosen = choose([[0.5, 0.5], [0.1, 0.9], [0.6, 0.8], [0.6, 0.6]], decay=PATH, metric_name="validation_accuracy")
    assert chosen.decay == wd.L2(0.1)


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
@pytest.mark.parametrize("metric", selection.METRICS)
def test_choose_never_takes_a_candidate_with_a_broken_seed(broken, metric):
    # Broken candidates come first and last: a comparison with nan is false, and keeps whatever stands first.
    values = [[broken, broken], [0.5, 0.5], [0.5, 0.5], [0.4, broken]]
    assert choose(values, decay=PATH, metric_name=metric).decay == wd.L2(0.01)


def test_choose_takes_the_first_of_equals():
    assert choose([[0.5, 0.5]] * 4, decay=PATH).decay == wd.NoDecay()


def test_choose_one_standard_error_takes_the_largest_coefficient_within_it():
    # Best 0.40 ± 0.05: up to 0.45 counts.
    metric = [[0.9, 0.9], [0.35, 0.45], [0.44, 0.44], [0.46, 0.46]]
    chosen = choose(metric, "one_standard_error", decay=PATH)
    assert chosen.decay == wd.L2(0.1)
    assert choose(metric, decay=PATH).decay == wd.L2(0.01)


def test_choose_one_standard_error_stays_with_the_rule_and_the_other_hyperparameters():
    decay = [wd.L2(0.01), wd.L2(0.1), wd.Decoupled(5.0)]
    # In the order decay, learning rate: the other learning rate and the other rule are as good, and do not count.
    metric = [[0.35, 0.45], [0.41, 0.41], [0.9, 0.9], [0.41, 0.41], [0.41, 0.41], [0.41, 0.41]]
    chosen = choose(metric, "one_standard_error", decay=decay, learning_rate=(1e-3, 1e-2))
    assert (chosen.decay, chosen.hyperparameters["learning_rate"]) == (wd.L2(0.01), 1e-3)


def test_choose_one_standard_error_from_no_decay_goes_on_with_any_rule_by_its_norm():
    decay = [wd.NoDecay(), wd.L2(0.1), wd.Decoupled(1.0), wd.L1(9.0)]
    metric = [[0.35, 0.45], [0.41, 0.41], [0.42, 0.42], [0.8, 0.8]]
    chosen = choose(metric, "one_standard_error", decay=decay, norms=[9.0, 5.0, 4.0, 1.0])
    assert chosen.decay == wd.Decoupled(1.0)


def test_choose_one_standard_error_of_several_coefficients_goes_by_the_norm():
    decay = [wd.ElasticNet(0.1, 0.1), wd.ElasticNet(1.0, 0.01), wd.ElasticNet(0.01, 1.0)]
    metric = [[0.35, 0.45], [0.41, 0.41], [0.42, 0.42]]
    chosen = choose(metric, "one_standard_error", decay=decay, norms=[3.0, 1.0, 2.0])
    assert chosen.decay == wd.ElasticNet(1.0, 0.01)


@pytest.mark.parametrize(
    ("best", "edge", "advice"),
    [
        (0, None, ""),
        (1, "lowest", r"wd.logspace(wd.L2, 0.0001, 0.01, 7)"),
        (2, None, ""),
        (3, "highest", r"wd.logspace(wd.L2, 1, 100, 7)"),
    ],
)
def test_choose_says_when_the_best_sits_at_the_edge_of_its_grid(best, edge, advice):
    metric = np.full((4, 2), 0.5)
    metric[best] = 0.1
    chosen = choose(metric, decay=PATH)
    assert chosen.edge == edge
    assert advice in chosen.advice
    assert bool(chosen.advice) == (edge is not None)


def test_choose_a_single_coefficient_has_no_edge():
    assert choose([[0.5, 0.5], [0.1, 0.1]], decay=[wd.NoDecay(), wd.L2(0.1)]).edge is None


@pytest.mark.parametrize(
    ("metric", "kwargs", "message"),
    [
        ([[NAN, NAN]] * 4, {}, "no candidate has a finite validation_loss for every seed.*lower the learning rate"),
        (
            [[0.5, 0.5]] * 4,
            {"metric_name": "test_loss"},
            "metric is 'test_loss'; the choice is made on validation data",
        ),
        ([[0.5, 0.5]] * 4, {"criterion": "luck"}, "criterion is 'luck'; give one of best_mean"),
        ([[0.5]] * 4, {"criterion": "one_standard_error", "seeds": 1}, "needs at least two seeds; add an axis seed"),
    ],
)
def test_choose_refuses(metric, kwargs, message):
    with pytest.raises(ValueError, match=message):
        choose(metric, decay=PATH, **kwargs)


def test_choice_reads_as_a_sentence():
    chosen = choose([[0.5, 0.5], [0.1, 0.2], [0.4, 0.4], [0.6, 0.6]], decay=PATH)
    assert str(chosen) == "L2(0.01), learning_rate 0.001: validation loss 0.1500 ± 0.0500"


def test_choose_orders_a_rule_of_several_coefficients_by_the_one_of_that_name():
    path = [wd.Huber(c, delta) for delta in (0.1, 1.0) for c in (0.01, 0.1, 1.0)]
    metric = [[0.9, 0.9], [0.35, 0.45], [0.44, 0.44], [0.9, 0.9], [0.9, 0.9], [0.4, 0.4]]
    chosen = choose(metric, "one_standard_error", decay=path)
    assert chosen.decay == wd.Huber(1.0, 0.1)  # of the same delta
    assert chosen.edge == "highest"
    assert chosen.advice.endswith("extend the grid to 100.")


def test_choose_takes_the_tightest_bound_by_its_norm():
    bounds = [wd.MaxNorm(0.1), wd.MaxNorm(1.0), wd.MaxNorm(10.0)]
    metric = [[0.44, 0.44], [0.35, 0.45], [0.44, 0.44]]
    chosen = choose(metric, "one_standard_error", decay=bounds, norms=[1.0, 2.0, 3.0])
    assert chosen.decay == wd.MaxNorm(0.1)
    assert "wd.logspace(wd.MaxNorm, 0.001, 0.1, 7)" in chosen.advice


@pytest.mark.parametrize(
    "decay",
    [
        wd.L2(wd.PerLayer({"a": 0.1})),
        wd.L2(wd.schedules.Constant(0.1)),
        wd.L2({"a": 0.1}),
        (wd.L2(0.1), wd.ProximalL1(0.1)),
        wd.Masked(wd.ElasticNet(0.1, 0.2), True),
    ],
    ids=str,
)
def test_choose_takes_decays_without_one_number(decay):
    chosen = choose([[0.9, 0.9], [0.4, 0.4]], "one_standard_error", decay=[wd.NoDecay(), decay])
    assert (chosen.number, chosen.edge) == (1, None)
