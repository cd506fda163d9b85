"""What a run without decay suggests, compared with closed forms and with ridge regression."""

import math

import numpy as np
import pytest
from constructed_results import constructed, path_without_decay, valley
from sklearn.linear_model import Ridge

import weightdecay as wd
from weightdecay.core.checks import ArgumentError
from weightdecay.decay import scaling
from weightdecay.search import calibration, turn

STEPS = np.arange(20, 1001, 20)
CURVE = np.log(STEPS / 200) ** 2


def test_find_turn_of_exact_curves():
    assert turn.find(STEPS, CURVE[None]).step == 200
    assert turn.find(STEPS, -CURVE[None]) is not None  # falls at both ends: its minimum is the first step
    assert turn.find(STEPS, 1 / STEPS[None]) is None
    assert turn.find(STEPS, np.zeros((2, 50))) is None
    assert turn.find(STEPS[:3], CURVE[None, :3]) is None


@pytest.mark.parametrize("seeds", [1, 5])
def test_find_turn_in_noise_alone_is_rare(seeds):
    rng = np.random.default_rng(0)
    curves = 1 + 0.1 * rng.normal(size=(200, seeds, 50))
    found = sum(turn.find(STEPS, one) is not None for one in curves)
    # The last three evaluations are all above a chance minimum: at most a few percent with seeds to pair. A single
    # curve of noise without any trend has only itself to judge by.
    assert found <= (20 if seeds > 1 else 100)


@pytest.mark.parametrize("seeds", [1, 5])
def test_find_turn_sees_a_rise_above_the_noise(seeds):
    rng = np.random.default_rng(1)
    # The rise is 0.26 at the end; the noise is 0.01.
    curves = 0.1 * CURVE + 0.01 * rng.normal(size=(seeds, 50))
    found = turn.find(STEPS, curves)
    assert 120 <= found.step <= 320
    assert found.since > found.step


def test_find_turn_ignores_a_rise_that_is_smaller_than_the_differences_of_the_seeds():
    slopes = np.linspace(-1, 1.2, 6)[:, None]  # some seeds rise, others fall
    curves = np.maximum(200 - STEPS, 0) / 200 + slopes * np.maximum(STEPS - 200, 0) / 800
    assert turn.find(STEPS, curves) is None
    assert turn.find(STEPS, curves + 2 * np.maximum(STEPS - 200, 0) / 800).step == 200


def test_strength_is_the_sum_of_what_a_coefficient_of_one_removes():
    assert scaling.removed_until(wd.Decoupled, 0.01, 300) == pytest.approx(3.0)
    assert scaling.removed_until(wd.Independent, 0.01, 300) == pytest.approx(300.0)
    assert scaling.removed_until(wd.L2, 0.01, 300, momentum=0.9) == pytest.approx(30.0)
    assert math.isnan(scaling.removed_until(wd.L2, 0.01, 300))
    schedule = wd.schedules.Linear(0.02, 0.0, 1000)
    # The sum of an arithmetic series; evaluated at 200 of its steps.
    assert scaling.removed_until(wd.Decoupled, schedule, 1000) == pytest.approx(0.02 * 1001 / 2, rel=1e-3)


def test_suggest_is_the_missing_part_of_early_stopping():
    suggestion = wd.suggest(STEPS, CURVE, learning_rate=1e-3)
    assert suggestion.turn.step == 200
    assert suggestion.is_needed
    missing = 1 / (1e-3 * 200) - 1 / (1e-3 * 1000)
    calibrated = calibration.RECORDED["time scale", "Decoupled"]
    row = suggestion["Decoupled"]
    assert row.coefficient == pytest.approx(calibrated.factor * missing)
    assert row.low * row.high == pytest.approx(row.coefficient**2)
    assert row.time_scale == pytest.approx(1 / (1e-3 * row.coefficient))
    assert suggestion["Independent"].coefficient == pytest.approx(1e-3 * row.coefficient)
    assert suggestion["Independent"].time_scale == pytest.approx(row.time_scale)
    assert {"MaxNorm", "L1"} <= set(suggestion.without_basis)
    assert not {row.rule for row in suggestion} & set(suggestion.without_basis)


def test_suggest_under_sgd_knows_the_momentum():
    plain = wd.suggest(STEPS, CURVE, learning_rate=0.1, optimizer="sgd")
    heavy = wd.suggest(STEPS, CURVE, learning_rate=0.1, optimizer="sgd", momentum=0.9)
    assert plain["L2"].coefficient == pytest.approx(plain["Decoupled"].coefficient)
    assert heavy["L2"].coefficient == pytest.approx(plain["L2"].coefficient / 10)
    assert heavy["L2"].time_scale == pytest.approx(plain["L2"].time_scale)
    assert heavy["Decoupled"] == plain["Decoupled"]


@pytest.mark.slow
def test_suggest_is_near_the_best_ridge_coefficient_of_linear_regression():
    # Gradient descent without decay on noisy linear regression turns; the best ridge coefficient is known by search.
    for seed in range(5):
        rng = np.random.default_rng(seed)
        weights = rng.normal(size=30) / math.sqrt(30)
        inputs, more = rng.normal(size=(45, 30)), rng.normal(size=(2000, 30))
        targets, wanted = inputs @ weights + rng.normal(size=45), more @ weights
        params, losses = np.zeros(30), []
        for _ in range(1000):  # loss |x w - y|² / 2n, whose gradient the coefficient of L2 is added to
            params -= 0.1 * inputs.T @ (inputs @ params - targets) / 45
            losses.append(np.mean((more @ params - wanted) ** 2))
        row = wd.suggest(np.arange(1, 1001), losses, learning_rate=0.1, optimizer="sgd")["L2"]
        ladder = np.logspace(-3, 1, 41)
        errors = [
            np.mean((Ridge(alpha=45 * c, fit_intercept=False).fit(inputs, targets).predict(more) - wanted) ** 2)
            for c in ladder
        ]
        best = ladder[int(np.argmin(errors))]
        assert row.low <= best <= row.high
        assert 0.5 < best / row.coefficient < 2  # of 40 seeds none was outside


def test_interval_of_a_calibration_is_that_of_students_distribution():
    low, high = calibration.Calibration(2.0, 0.5, 10).factors(0.8)
    # The 90 % quantile of t with 9 degrees of freedom is 1.3830 in printed tables.
    np.testing.assert_allclose([low, high], 2 * np.exp([-0.5 * 1.3830, 0.5 * 1.3830]), rtol=1e-4)


def test_suggest_says_that_none_is_needed_where_the_loss_did_not_turn():
    suggestion = wd.suggest(STEPS, 1 / STEPS, learning_rate=1e-3)
    assert not suggestion.is_needed
    assert str(suggestion).startswith("None needed so far")
    assert suggestion.rules(5) == [wd.NoDecay()]
    row = suggestion["Decoupled"]
    assert (row.coefficient, row.low, row.time_scale) == (0, 0, math.inf)
    assert row.high > 0


def test_suggest_makes_rules_for_a_grid():
    suggestion = wd.suggest(STEPS, CURVE, learning_rate=1e-3)
    row = suggestion["Decoupled"]
    none, *decays = suggestion.rules(3, only=["Decoupled"])
    assert none == wd.NoDecay()
    expected = np.geomspace(row.low, row.high, 3)
    np.testing.assert_allclose([rule.coefficient for rule in decays], expected, rtol=1e-6)
    assert suggestion.rules(1, only=["Decoupled"])[1] == wd.Decoupled(row.coefficient)
    assert len(wd.Grid(decay=suggestion.rules(4), learning_rate=1e-3)) == 1 + 4 * len(suggestion)
    assert suggestion.table().loc["Decoupled", "high"] == row.high


def test_suggest_prints_in_eighty_columns():
    for losses in (CURVE, 1 / STEPS):
        text = str(wd.suggest(STEPS, losses, learning_rate=wd.schedules.WarmupCosine(1e-3, 0.1)))
        assert max(map(len, text.splitlines())) <= 80
        assert "Decoupled" in text


def test_suggest_reads_a_result_and_uses_all_its_seeds():
    result = constructed([wd.Decoupled(0.1)], path_without_decay(200), rates=(1e-3, 1e-2))
    suggestion = wd.suggest(result, learning_rate=1e-3)
    assert (suggestion.turn.step, suggestion.num_curves, suggestion.optimizer) == (200, 3, "adam")
    by_hand = wd.suggest(STEPS, [CURVE, CURVE + 0.1, CURVE + 0.2], learning_rate=1e-3)
    assert suggestion["Decoupled"] == by_hand["Decoupled"]
    assert wd.suggest(result).learning_rate == 1e-3  # both rates have the same loss: the first


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda: wd.suggest(3), "run", "give a GridResult, or steps and losses"),
        (lambda: wd.suggest(STEPS, CURVE), "learning_rate", "learning_rate is None"),
        (lambda: wd.suggest(STEPS, CURVE, learning_rate=-1), "learning_rate", "give a number above 0"),
        (lambda: wd.suggest(STEPS, CURVE[1:], learning_rate=1e-3), "losses", r"have the shape \(49,\) for 50 steps"),
        (lambda: wd.suggest(STEPS[::-1], CURVE, learning_rate=1e-3), "run", "give ascending evaluation steps"),
        (lambda: wd.suggest(STEPS - 20, CURVE, learning_rate=1e-3), "run", "begins with step 0"),
        (lambda: wd.suggest(STEPS, CURVE * np.nan, learning_rate=1e-3), "losses", "no curve that is finite"),
        (lambda: wd.suggest(STEPS, CURVE, learning_rate=1, optimizer="adamw"), "optimizer", "give one of 'adam'"),
        (lambda: wd.suggest(STEPS, CURVE, learning_rate=1, momentum=1.0), "momentum", r"give a number in \[0, 1\)"),
        (lambda: wd.suggest(STEPS, CURVE, learning_rate=1, confidence=1.0), "confidence", "between 0 and 1"),
        (lambda: wd.suggest(STEPS, CURVE, learning_rate=1).rules(2, only=["L1"]), "only", "give one of 'L2'"),
        (
            lambda: wd.suggest(constructed([wd.L2(0.1)], valley(1.0)).part([3, 4])),
            "run",
            "no member without decay",
        ),
        (lambda: wd.suggest(constructed([], valley(1.0)), learning_rate=3), "learning_rate", "give one of 0.01"),
        (lambda: wd.suggest(constructed([], lambda *_: math.nan)), "run", "no finite validation loss"),
    ],
)
def test_suggest_names_the_argument_that_is_wrong(call, argument, message):
    with pytest.raises(ArgumentError, match=message) as raised:
        call()
    assert raised.value.argument == argument
