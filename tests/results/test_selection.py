"""An honest choice: seeds are replicates, nan never wins, and the edge of the grid is said."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import weightdecay as wd
from weightdecay.decay import KINDS
from weightdecay.decay.families import is_without_decay
from weightdecay.results import selection
from weightdecay.results.candidates import difference, gather

INF, NAN = math.inf, math.nan


def candidates(metric, *, decay, learning_rate=(1e-3,), seeds=2, norms=None):
    """Candidates with the given metric: a row a candidate, a column a seed."""
    members = list(wd.Grid(decay=decay, learning_rate=list(learning_rate), seed=range(seeds)))
    norms = np.ones(len(members)) if norms is None else np.repeat(norms, seeds)
    return gather(members, np.ravel(metric), norms)


def choose(metric, criterion="best_mean", metric_name="validation_loss", confidence=0.95, **kwargs):
    made = candidates(metric, **kwargs)
    return selection.choose(made, metric=metric_name, criterion=criterion, confidence=confidence)


PATH = [wd.NoDecay(), wd.L2(0.01), wd.L2(0.1), wd.L2(1.0)]


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
        (1, "lowest", "as with wd.logspace(wd.L2, 0.0001, 0.001, 2)."),
        (2, None, ""),
        (3, "highest", "as with wd.logspace(wd.L2, 10, 100, 2)."),
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
        ([[0.5, 0.5]] * 4, {"criterion": "luck"}, "criterion is 'luck'; give one of best_mean"),
        (
            [[0.5]] * 4,
            {"criterion": "one_standard_error", "seeds": 1},
            "needs at least two seeds or folds; add an axis seed",
        ),
        ([[0.5]] * 4, {"criterion": "one_standard_error_paired", "seeds": 1}, "'one_standard_error_paired' needs at"),
        ([[0.5, 0.5]] * 4, {"confidence": 1.0}, "confidence is 1.0; give a number between 0 and 1"),
    ],
)
def test_choose_refuses(metric, kwargs, message):
    with pytest.raises(ValueError, match=message):
        choose(metric, decay=PATH, **kwargs)


def test_choice_reads_as_a_sentence():
    chosen = choose([[0.5, 0.5], [0.1, 0.2], [0.4, 0.4], [0.6, 0.6]], decay=PATH)
    assert str(chosen) == "L2(0.01), learning_rate 0.001: validation loss 0.1500 ± 0.0500"
    third = choose([[0.1, 0.2], [0.3, 0.4]], decay=PATH[1:3], learning_rate=[10**-1.5])
    assert str(third) == "L2(0.01), learning_rate 0.03162: validation loss 0.1500 ± 0.0500"


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
    assert "wd.logspace(wd.MaxNorm, 0.001, 0.01, 2)" in chosen.advice


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


def test_check_metric_refuses_what_is_not_of_validation_data():
    with pytest.raises(ValueError, match="metric is 'test_loss'; the choice is made on validation data: give one of"):
        selection.check_metric("test_loss")


@pytest.mark.slow
@given(st.integers(2, 8), st.integers(0, 100), st.sampled_from([0.5, 0.9, 0.95]))
@settings(max_examples=15, deadline=None)
def test_difference_equals_scipy(seeds, key, confidence):
    metric = np.random.default_rng(key).normal(size=(4, seeds))
    first, *_, last = candidates(metric, decay=PATH, seeds=seeds)
    found = difference(last, first, confidence=confidence)
    expected = stats.ttest_rel(metric[3], metric[0]).confidence_interval(confidence)
    np.testing.assert_allclose((found.lower, found.upper), expected, rtol=1e-9, atol=1e-12)  # float64, other order
    assert found.replicates == seeds
    swapped = difference(first, last, confidence=confidence)
    np.testing.assert_allclose(swapped.mean, -found.mean, rtol=1e-12)


def test_difference_pairs_by_seed_and_not_by_place():
    rule, other = wd.L2(0.1), wd.L2(1.0)
    values = {(rule, 0): 1.0, (rule, 1): 2.0, (rule, 2): 9.0, (other, 2): 9.5, (other, 5): 70.0, (other, 1): 2.25}
    members = [{"decay": decay, "learning_rate": 0.1, "seed": seed} for decay, seed in values]
    first, second = gather(members, list(values.values()), np.ones(6))
    found = difference(second, first)
    assert (found.mean, found.replicates) == (0.375, 2)
    # Of half the range of two numbers: s / sqrt(2).
    assert found.standard_error == pytest.approx(0.125)


def test_difference_pairs_by_fold_as_well_and_corrects_for_shared_examples():
    generator = np.random.default_rng(0)
    metric = generator.normal(size=(2, 2, 4))  # candidate, seed, fold
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1)], learning_rate=0.1, seed=range(2), fold=range(4))
    order = generator.permutation(16)
    members, values = [grid[place] for place in order], metric.ravel()[order]
    made = {str(one.decay): one for one in gather(members, values, np.ones(16), num_folds=4)}
    found = difference(made["L2(0.1)"], made["NoDecay()"], num_folds=4)
    by_fold = (metric[1] - metric[0]).mean(axis=0)
    np.testing.assert_allclose(found.mean, by_fold.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, math.sqrt(7 / 12) * by_fold.std(ddof=1), rtol=1e-12)
    half = stats.t.ppf(0.975, 3) * found.standard_error
    np.testing.assert_allclose((found.lower, found.upper), (found.mean - half, found.mean + half), rtol=1e-9)
    assert found.replicates == 8


def test_difference_to_a_broken_candidate_or_without_a_pair_is_nan():
    first, second, *_ = candidates([[0.1, 0.2], [0.1, INF], [0, 0], [0, 0]], decay=PATH)
    assert math.isnan(difference(second, first).mean)
    assert math.isnan(difference(second, second).mean)
    members = [{"decay": wd.L2(c), "learning_rate": 0.1, "seed": seed} for seed, c in enumerate((0.1, 1.0))]
    first, second = gather(members, [0.1, 0.2], np.ones(2))
    assert (math.isnan(difference(first, second).mean), difference(first, second).replicates) == (True, 0)


def test_choose_one_standard_error_paired_uses_what_the_seeds_share():
    # Seeds differ by 1, candidates within a seed by hundredths: the error of a mean hides what the pairs show.
    seeds = np.array([0.0, 1.0, 2.0])
    metric = seeds + np.array([[5, 5, 5], [0.01, -0.01, 0.0], [0.02, -0.015, 0.01], [0.1, 0.1, 0.1]])
    assert choose(metric, "one_standard_error", decay=PATH, seeds=3).decay == wd.L2(1.0)
    apart = np.subtract(metric[2], metric[1])
    assert 0 < apart.mean() <= stats.sem(apart)
    assert choose(metric, "one_standard_error_paired", decay=PATH, seeds=3).decay == wd.L2(0.1)
    for_accuracy = choose(
        -np.array(metric),
        "one_standard_error_paired",
        decay=PATH,
        seeds=3,
        metric_name="validation_accuracy",
    )
    assert for_accuracy.decay == wd.L2(0.1)


def beaten(best, none, *, num=1, seeds=3, **kwargs):
    """Choice of a first candidate among some that are far worse."""
    decay = [wd.NoDecay(), *(wd.L2(1.0 + place) for place in range(num))]
    return choose([none, best, *[[90.0] * seeds] * (num - 1)], decay=decay, seeds=seeds, **kwargs)


def test_choose_says_when_decay_beats_none():
    best, none = [0.11, 0.13, 0.12], [0.21, 0.24, 0.22]
    chosen = beaten(best, none)
    assert chosen.difference == difference(chosen, candidates([none, best], decay=PATH[:2], seeds=3)[0])
    assert (chosen.no_decay_is_as_good, chosen.beats_no_decay) == (False, True)
    assert chosen.sentence == (
        "Take L2(1) at learning rate 0.001: validation loss 0.1200 ± 0.0058, 0.1033 ± 0.0033 below no decay (paired, "
        "3 seeds; 95 % interval of the difference -0.1177 to -0.0890)."
    )
    assert chosen.summary == chosen.sentence


def test_choose_counts_the_candidates_before_it_says_that_decay_beats_none():
    best, none = [0.11, 0.13, 0.12], [0.21, 0.24, 0.19]
    statistic = -stats.ttest_rel(best, none).statistic
    # Of so many, the best shows such a difference by luck at the most once in twenty times.
    most = math.floor(0.05 / (2 * stats.t.sf(statistic, 2)))
    assert most > 1
    assert beaten(best, none, num=most).beats_no_decay
    chosen = beaten(best, none, num=most + 1)
    assert (chosen.no_decay_is_as_good, chosen.beats_no_decay) == (False, None)
    assert f"; the best of {most + 1} may be so by luck: more seeds would tell." in chosen.sentence


@pytest.mark.slow
def test_choose_seldom_says_of_equal_candidates_that_decay_beats_none():
    generator, trials, claims, naive = np.random.default_rng(0), 100, 0, 0
    same = candidates(
        np.zeros((31, 10)), decay=[wd.NoDecay(), *(wd.ElasticNet(0.1 * c, c) for c in range(1, 31))], seeds=10
    )
    for _ in range(trials):
        metric = generator.normal(size=(31, 10)) + generator.normal(size=10)
        drawn = [
            replace(one, mean=values.mean(), values=dict(zip(one.values, values, strict=True)))
            for one, values in zip(same, metric, strict=True)
        ]
        chosen = selection.choose(drawn, metric="validation_loss")
        claims += bool(chosen.beats_no_decay)
        naive += chosen.no_decay_is_as_good is False
    assert claims <= stats.binom.ppf(0.999, trials, 0.05)
    assert naive > stats.binom.ppf(0.999, trials, 0.05)  # so that the count of candidates is what holds it


@pytest.mark.parametrize(
    ("best", "none", "metric", "as_good", "said"),
    [
        (
            [0.11, 0.13, 0.12],
            [0.12, 0.12, 0.13],
            "validation_loss",
            None,
            "Cannot tell with 3 seeds (95 % interval of the difference -0.0320 to 0.0254) whether decay helps: more "
            "seeds would. Chosen: L2(1) at learning rate 0.001, validation loss 0.1200 ± 0.0058, 0.0033 ± 0.0067 below "
            "no decay (paired).",
        ),
        (
            [0.91, 0.93, 0.92],
            [0.71, 0.74, 0.72],
            "validation_accuracy",
            False,
            "Take L2(1) at learning rate 0.001: validation accuracy 0.9200 ± 0.0058, 0.1967 ± 0.0033 above no decay "
            "(paired, 3 seeds; 95 % interval of the difference 0.1823 to 0.2110).",
        ),
        (
            [0.12],
            [0.22],
            "validation_loss",
            None,
            "Take L2(1) at learning rate 0.001: validation loss 0.12, 0.1 below no decay; one seed cannot tell whether "
            "that is luck.",
        ),
        (
            [0.3, 0.3],
            [0.2, 0.3],
            "validation_loss",
            None,
            "Cannot tell with 2 seeds (95 % interval of the difference -0.585 to 0.685) whether decay helps: more "
            "seeds would. Chosen: no decay at learning rate 0.001, validation loss 0.250 ± 0.050; the candidate with "
            "decay, L2(1) at learning rate 0.001, is 0.050 ± 0.050 above that (paired).",
        ),
        (
            [0.5, 0.6, 0.7],
            [0.2, 0.3, 0.5],
            "validation_loss",
            True,
            "No decay is better (95 % interval of the difference 0.123 to 0.410): no decay at learning rate 0.001 has "
            "validation loss 0.333 ± 0.088; the candidate with decay, L2(1) at learning rate 0.001, is 0.267 ± 0.033 "
            "above that (paired, 3 seeds).",
        ),
        (
            [0.9999, 1.1001, 1.1999],
            [1.0, 1.1, 1.2],
            "validation_loss",
            True,
            "No decay is as good (95 % interval of the difference -0.000320 to 0.000254, within ± 0.0055): L2(1) at "
            "learning rate 0.001 has validation loss 1.100 ± 0.058, 0.000033 ± 0.000067 below no decay (paired, 3 "
            "seeds).",
        ),
        (
            [1.0001, 1.0999, 1.2001],
            [1.0, 1.1, 1.2],
            "validation_loss",
            True,
            "No decay is as good (95 % interval of the difference -0.000254 to 0.000320, within ± 0.0055): no decay at "
            "learning rate 0.001 has validation loss 1.100 ± 0.058; the candidate with decay, L2(1) at learning rate "
            "0.001, is 0.000033 ± 0.000067 above that (paired, 3 seeds).",
        ),
        (
            [0.3],
            [0.2],
            "validation_loss",
            None,
            "Take no decay at learning rate 0.001: validation loss 0.2; the candidate with decay, L2(1) at learning "
            "rate 0.001, is 0.1 above that; one seed cannot tell whether that is luck.",
        ),
    ],
)
def test_choice_says_what_to_take_in_a_sentence(best, none, metric, as_good, said):
    chosen = beaten(best, none, seeds=len(best), metric_name=metric)
    assert chosen.no_decay_is_as_good is as_good
    assert chosen.sentence == said


def test_choice_says_when_a_cautious_choice_is_worse_than_no_decay():
    # The best has no decay; the most decayed within its error is worse in each seed.
    metric = [[0.1, 0.2, 0.3], [0.11, 0.21, 0.31], [0.9, 0.9, 0.9], [0.9, 0.9, 0.9]]
    chosen = choose(metric, "one_standard_error", decay=PATH, seeds=3, norms=[4.0, 3.0, 2.0, 1.0])
    assert (chosen.decay, chosen.no_decay_is_as_good, chosen.beats_no_decay) == (wd.L2(0.01), True, False)
    assert chosen.sentence.startswith("No decay is better (95 % interval of the difference 0.0")
    assert "): L2(0.01) at learning rate 0.001 has validation loss 0.210 ± " in chosen.sentence


@pytest.mark.parametrize(
    ("difference", "error", "seeds", "loss"),
    [(-0.027, 0.057, 2, 1.12), (-0.00152, 0.00046, 2, 0.2), (-1.02, 0.22, 2, 2.11), (-0.01, 0.004, 3, 0.5)],
)
def test_choice_does_not_take_a_wide_interval_for_evidence_that_no_decay_is_as_good(difference, error, seeds, loss):
    pairs = difference + error * math.sqrt(seeds) * stats.zscore(np.arange(seeds), ddof=1)
    chosen = beaten(loss + pairs, np.full(seeds, loss), seeds=seeds)
    assert chosen.difference.mean == pytest.approx(difference)
    assert chosen.difference.standard_error == pytest.approx(error)
    assert chosen.difference.lower < 0 < chosen.difference.upper
    assert (chosen.no_decay_is_as_good, chosen.beats_no_decay) == (None, None)
    assert chosen.sentence.startswith(f"Cannot tell with {seeds} seeds (95 % interval of the difference ")
    assert "more seeds would" in chosen.sentence
    assert "as good" not in chosen.sentence


def test_choice_is_as_good_within_a_margin_of_the_user(without_beartype):
    best, none = [0.98, 1.13, 1.18], [1.0, 1.1, 1.2]
    unknown = beaten(best, none)
    ends = unknown.difference
    assert (unknown.no_decay_is_as_good, unknown.margin) == (None, pytest.approx(0.005 * 1.1))
    widest = max(abs(ends.lower), abs(ends.upper))
    made = candidates([none, best], decay=[wd.NoDecay(), wd.L2(1.0)], seeds=3)
    within = selection.choose(made, metric="validation_loss", margin=1.001 * widest)
    assert (within.no_decay_is_as_good, within.beats_no_decay) == (True, False)
    assert within.sentence.startswith("No decay is as good (95 % interval of the difference -0.0")
    assert selection.choose(made, metric="validation_loss", margin=0.999 * widest).no_decay_is_as_good is None
    for margin in (-0.1, math.nan, "1 %"):
        with pytest.raises(ValueError, match=r"margin is .*; give a number of at least 0 in the unit of the metric"):
            selection.choose(made, metric="validation_loss", margin=margin)


def test_choice_of_a_small_but_certain_gain_is_decay():
    chosen = beaten([1.0009, 1.1010, 1.2009], [1.001, 1.1011, 1.201])
    assert abs(chosen.difference.lower) < chosen.margin
    assert (chosen.no_decay_is_as_good, chosen.beats_no_decay) == (False, True)
    assert chosen.sentence.startswith("Take L2(1)")


@pytest.mark.parametrize(
    "decay",
    [
        wd.L2(0.0),
        wd.ElasticNet(0.0, 0.0),
        wd.Masked(wd.Decoupled(0), wd.masks.last),
        (wd.L2(0.0), wd.ProximalL1(0.0)),
        wd.L2(wd.PerLayer({"a": 0.0, "b": 0.0})),
        wd.Decoupled(np.float32(0)),
        wd.Huber(0.0, 1.0),
    ],
    ids=str,
)
def test_choice_takes_coefficients_of_zero_for_no_decay(decay):
    chosen = choose([[0.5, 0.5], [0.1, 0.2]], decay=[decay, wd.L2(0.1)])
    assert chosen.difference.mean == pytest.approx(-0.35)
    assert chosen.num_with_decay == 1
    without = choose([[0.1, 0.2], [0.5, 0.5]], decay=[decay, wd.L2(0.1)])
    assert without.is_without_decay
    assert "no decay at learning rate" in without.sentence


@pytest.mark.parametrize(
    "decay",
    [wd.MaxNorm(0.1), (wd.L2(0.0), wd.MaxNorm(1.0)), wd.L2(wd.PerLayer({"a": 0.0, "b": 0.1})), wd.ElasticNet(0, 0.1)],
    ids=str,
)
def test_choice_takes_a_bound_or_a_single_zero_for_decay(decay):
    assert choose([[0.5, 0.5], [0.1, 0.2]], decay=[wd.NoDecay(), decay]).num_with_decay == 1


@pytest.mark.slow
@pytest.mark.parametrize("rule", KINDS.values(), ids=KINDS)
def test_rules_with_coefficients_of_zero_train_like_no_decay(rule):
    zero = {name: rule.neutral if name.endswith("coefficient") else 0.1 for name in rule.coefficient_names()}
    if not any(name.endswith("coefficient") for name in zero):
        assert not is_without_decay(rule(**zero)) or rule is wd.NoDecay
        return
    assert is_without_decay(rule(**zero))
    gradient = {"kernel": jnp.array([[0.3, -0.2], [0.1, 0.4]])}
    trained = []
    for decay in (rule(**zero), wd.NoDecay()):
        optimizer, params = wd.adam(0.1, decay), {"kernel": jnp.array([[1.0, -2.0], [0.5, 0.0]])}
        state = optimizer.init(params)
        for _ in range(3):
            updates, state = optimizer.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        trained.append(params["kernel"])
    np.testing.assert_allclose(*trained, rtol=1e-6)  # float32, in another order of operations


def test_choice_of_no_decay_where_all_decay_diverged():
    chosen = choose([[0.1, 0.2], [NAN, 0.1], [NAN, NAN]], decay=PATH[:3])
    assert (chosen.no_decay_is_as_good, chosen.beats_no_decay, chosen.best_with_decay) == (True, False, None)
    assert chosen.sentence == (
        "Take no decay at learning rate 0.001: validation loss 0.150 ± 0.050 (2 seeds); none of the 2 candidates with "
        "decay has a finite validation loss."
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: choose([[0.1, 0.2]], "one_standard_eror", decay=PATH[:1]), "Did you mean 'one_standard_error'"),
        (lambda: selection.check_metric("validation_acuracy"), "Did you mean 'validation_accuracy'"),
        (lambda: selection.check_metric("accuracy"), "Did you mean 'validation_accuracy'"),
    ],
)
def test_misspelled_names_get_a_suggestion(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_choice_without_a_candidate_to_compare_with_says_so():
    chosen = choose([[0.1, 0.2]], decay=[wd.L2(0.1)])
    assert (chosen.difference, chosen.no_decay_is_as_good, chosen.beats_no_decay) == (None, None, None)
    assert chosen.sentence.endswith("(2 seeds); the grid has no finite candidate without decay to compare it with.")
    broken = choose([[0.1, 0.2], [NAN, 0.1]], decay=[wd.L2(0.1), wd.NoDecay()])
    assert broken.difference is None
    alone = choose([[0.1, 0.2]], decay=[wd.NoDecay()])
    assert alone.sentence == "Take no decay at learning rate 0.001: validation loss 0.150 ± 0.050 (2 seeds)."
    assert alone.no_decay_is_as_good is None


def test_choice_summary_tells_the_optimism_and_the_edge():
    made = candidates([[0.5, 0.6], [0.2, 0.3], [0.1, 0.2]], decay=PATH[:3])
    chosen = selection.choose(made, metric="validation_loss", optimism=selection.Optimism(0.0123, 0.0041))
    first, second, third = chosen.summary.split("\n")
    assert (first, third) == (chosen.sentence, chosen.advice)
    assert second.startswith("The best of a grid looks better than it is: here by 0.0123 ± 0.0041 in validation loss")
    unknown = selection.choose(made, metric="validation_loss", optimism=selection.Optimism(NAN, NAN))
    assert "one replicate cannot tell" in unknown.summary


def test_choose_compares_with_the_best_of_several_without_decay():
    # In the order decay, learning rate.
    metric = [[0.5, 0.5], [0.3, 0.3], [0.1, 0.2], [0.9, 0.9]]
    chosen = choose(metric, decay=PATH[:2], learning_rate=(1e-3, 1e-2))
    assert chosen.difference.mean == pytest.approx(-0.15)


def test_choose_extends_a_product_by_a_product():
    decay = [wd.NoDecay(), *wd.logspace(wd.L2, 1e-3, 1e-1, 5), wd.L1(0.5)]
    metric = np.full((7, 3, 2), 0.5)  # decay, learning rate, seed
    metric[5, 1] = 0.1
    chosen = choose(metric, decay=decay, learning_rate=(1e-3, 1e-2, 1e-1))
    assert (chosen.edge, chosen.learning_rate_edge) == ("highest", None)
    further = [wd.L2(c) for c in (0.316227766017, 1.0, 3.16227766017, 10.0)]
    expected = wd.Grid(decay=further, learning_rate=[1e-3, 1e-2, 1e-1], seed=range(2))
    assert sorted(map(str, chosen.extension)) == sorted(map(str, expected))


def test_choose_extends_the_learning_rate_with_its_rule_and_no_decay():
    decay = [wd.NoDecay(), wd.L2(0.1), wd.L2(1.0), wd.L2(10.0), wd.L1(0.5)]
    metric = np.full((5, 3, 2), 0.5)
    metric[2, 0] = 0.1
    chosen = choose(metric, decay=decay, learning_rate=(1e-3, 1e-2, 1e-1))
    assert (chosen.edge, chosen.learning_rate_edge) == (None, "lowest")
    assert chosen.advice == (
        "learning_rate 0.001 is the lowest of its grid, so the best may lie beyond it: add 0.0001."
    )
    expected = wd.Grid(decay=decay[:4], learning_rate=1e-4, seed=range(2))
    assert sorted(map(str, chosen.extension)) == sorted(map(str, expected))


def test_choose_extends_both_axes_to_one_larger_product():
    decay = [wd.NoDecay(), wd.L2(0.1), wd.L2(1.0), wd.L2(10.0)]
    metric = np.full((4, 2, 2), 0.5)
    metric[3, 1] = 0.1
    chosen = choose(metric, decay=decay, learning_rate=(1e-2, 3e-2))
    assert (chosen.edge, chosen.learning_rate_edge) == ("highest", "highest")
    assert "is the highest coefficient of its grid" in chosen.advice
    assert "learning_rate 0.03 is the highest of its grid" in chosen.advice
    whole = wd.Grid(decay=decay, learning_rate=(1e-2, 3e-2), seed=range(2)) + chosen.extension
    product = wd.Grid(
        decay=[*decay, wd.L2(100.0), wd.L2(1000.0)], learning_rate=[1e-2, 3e-2, 9e-2, 0.27], seed=range(2)
    )
    assert sorted(map(str, whole)) == sorted(map(str, product))
    assert len(chosen.extension) == len(product) - 16


def test_choose_extends_folds_and_other_axes_as_they_are():
    grid = wd.Grid(
        decay=[wd.NoDecay(), wd.Huber(0.1, 2.0), wd.Huber(1.0, 2.0)],
        learning_rate=0.1,
        hidden=[(4,), (8, 8)],
        clip_norm=[None, 1.0],
        seed=[3],
        fold=range(2),
    )
    metric = [float(member["decay"] != wd.Huber(0.1, 2.0)) for member in grid]
    chosen = selection.choose(gather(list(grid), metric, np.ones(len(grid))), metric="validation_loss")
    assert chosen.edge == "lowest"
    expected = wd.Grid(
        decay=[wd.Huber(0.001, 2.0), wd.Huber(0.01, 2.0)],
        learning_rate=0.1,
        hidden=[(4,), (8, 8)],
        clip_norm=[None, 1.0],
        seed=[3],
        fold=range(2),
    )
    key = lambda member: str(sorted(member.items(), key=lambda item: item[0]))  # noqa: E731
    assert sorted(map(key, chosen.extension)) == sorted(map(key, expected))


def test_choose_extends_a_masked_rule():
    path = [wd.Masked(wd.L2(c), wd.masks.last) for c in (0.1, 1.0)]
    chosen = choose([[0.5, 0.5], [0.1, 0.1]], decay=path)
    assert chosen.edge == "highest"
    assert [member["decay"] for member in chosen.extension][::2] == [
        wd.Masked(wd.L2(c), wd.masks.last) for c in (10.0, 100.0)
    ]


def test_choose_a_coefficient_of_zero_has_nothing_below_it():
    path = [wd.L2(0.0), wd.L2(0.1), wd.L2(1.0)]
    chosen = choose([[0.1, 0.1], [0.5, 0.5], [0.5, 0.5]], decay=path)
    assert (chosen.edge, chosen.advice, chosen.extension) == (None, "", None)
    highest = choose([[0.5, 0.5], [0.1, 0.1]], decay=path[:2])
    assert highest.extension[0]["decay"] == wd.L2(0.316227766017)  # a spacing of its own beside 0


def test_choose_has_no_edge_where_what_lies_beyond_diverged():
    chosen = choose([[0.9, 0.9], [0.1, 0.1], [0.5, 0.5], [0.5, 0.5], [NAN, NAN]], decay=[*PATH, wd.L2(10.0)])
    assert chosen.edge == "lowest"
    chosen = choose([[0.9, 0.9], [0.5, 0.5], [0.5, 0.5], [0.1, 0.1], [NAN, NAN]], decay=[*PATH, wd.L2(10.0)])
    assert chosen.edge is None
