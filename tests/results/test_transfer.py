"""The coefficient for another run, compared with closed forms, with ``convert``, and with laws that are known."""

import math

import numpy as np
import pytest
from constructed_results import constructed, valley
from sklearn.linear_model import Ridge

import weightdecay as wd
from weightdecay.core.checks import ArgumentError, ArgumentTypeError

LADDER = (1e-3, 1e1, 9)


def result_of(kind, best=0.1, ladder=LADDER, **run):
    return constructed(wd.logspace(kind, *ladder), valley(best), **run)


@pytest.mark.parametrize(
    ("new", "factor"),
    [
        ({"num_steps": 4000}, 1 / 4),
        ({"learning_rate": 0.03}, 1 / 3),
        ({"batch_size": 200}, 4),
        ({"num_examples": 4000}, 1 / 4),
        ({"batch_size": 200, "num_examples": 4000}, 1),
        ({"num_steps": 4000, "batch_size": 200}, 1 / 4),  # a fraction of the run does not depend on the batch
        ({"num_steps": 500, "learning_rate": 0.001}, 20),
    ],
)
def test_transfer_keeps_the_time_scale(new, factor):
    result = result_of(wd.Decoupled)
    row = result.transfer(**new)["Decoupled"]
    assert row.before == pytest.approx(0.1)
    assert row.coefficient == pytest.approx(0.1 * factor, rel=1e-12)
    assert row.decay == wd.Decoupled(row.coefficient)
    size = {"num_steps": 1000, "learning_rate": 0.01, "batch_size": 50, "num_examples": 1000}
    names = set(new) - ({"batch_size", "num_examples"} if "num_steps" in new else set())
    converted = wd.convert(row.before, "Decoupled", "Decoupled", **size, **{f"new_{name}": new[name] for name in names})
    assert row.coefficient == pytest.approx(converted, rel=1e-12)


@pytest.mark.parametrize(
    ("kind", "optimizer", "factor", "keeps"),
    [
        (wd.Decoupled, "adam", 1 / 20, "time scale"),
        (wd.Corrected, "adam", 1 / 20, "time scale"),
        (wd.Cautious, "adam", 1 / 20, "time scale"),
        (wd.Independent, "adam", 1 / 2, "time scale"),
        (wd.L2, "sgd", 1 / 20, "time scale"),
        (wd.L2, "adam", 1.0, "objective"),
        (wd.ProximalL1, "adam", 1.0, "objective"),
    ],
)
def test_transfer_of_each_rule_by_its_own_formula(kind, optimizer, factor, keeps):
    ladder = (1e-3, 1e0, 7)
    row = result_of(kind, ladder=ladder, optimizer=optimizer).transfer(num_steps=2000, learning_rate=0.1)[kind.__name__]
    assert row.coefficient == pytest.approx(row.before * factor, rel=1e-12)
    assert keeps in row.keeps
    assert "1992" in row.source or "2405.13698" in row.source


def test_transfer_of_a_penalty_to_more_examples_keeps_ridges_alpha():
    result = result_of(wd.ProximalL2, num_examples=100)
    row = result.transfer(num_examples=400)["ProximalL2"]
    # scikit-learn's Ridge weighs alpha against a sum over examples; every example four times is four times alpha.
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(100, 3)), rng.normal(size=100)
    one = Ridge(alpha=100 * row.before, fit_intercept=False).fit(inputs, targets)
    more = Ridge(alpha=4 * 100 * row.before, fit_intercept=False).fit(np.tile(inputs, (4, 1)), np.tile(targets, 4))
    np.testing.assert_allclose(one.coef_, more.coef_)  # the same mean loss has the same c: no transfer would be needed
    assert 400 * row.coefficient == pytest.approx(100 * row.before, rel=1e-12)  # the same prior


def test_transfer_scales_the_coefficients_within_one_standard_error():
    rules = wd.logspace(wd.Decoupled, 1e-3, 1e1, 9)
    flat = constructed(rules, lambda one, step, seed: valley(0.1)(one, step, seed) + 2.0 * seed)
    # The error of the mean of 0, 2 and 4 is 2 / √3; the valley stays below it for |log(c / 0.1)| < 1.07, one neighbour
    # would be at 1.15.
    row = flat.transfer(num_steps=2000)["Decoupled"]
    assert (row.low, row.high) == pytest.approx((row.coefficient, row.coefficient))
    wide = constructed(rules, lambda one, step, seed: valley(0.1)(one, step, seed) + 3.0 * seed)
    row = wide.transfer(num_steps=2000)["Decoupled"]
    spacing = 10 ** (4 / 8)
    assert (row.low, row.high) == pytest.approx((row.coefficient / spacing, row.coefficient * spacing))


def test_transfer_says_where_there_is_no_basis():
    rules = [wd.MaxNorm(1.0), wd.MaxNorm(2.0), wd.ElasticNet(0.1, 0.1), wd.Decoupled(0.1)]
    transfer = constructed(rules, valley(1.0)).transfer(num_steps=100)
    assert [row.rule for row in transfer] == ["MaxNorm", "ElasticNet", "Decoupled"]
    for name in ("MaxNorm", "ElasticNet"):
        assert math.isnan(transfer[name].coefficient)
        assert transfer[name].keeps.startswith("no basis")
        assert transfer[name].decay is None
    assert transfer.rules() == [wd.Decoupled(pytest.approx(1.0))]
    lines = str(transfer).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("no basis" in line for line in lines)
    assert transfer.table().loc["Decoupled", "coefficient"] == pytest.approx(1.0)


def test_transfer_marks_a_best_coefficient_at_the_edge_of_its_grid():
    transfer = result_of(wd.Decoupled, best=100.0).transfer(num_steps=100)
    assert transfer["Decoupled"].edge == "highest"
    assert "may lie beyond the grid" in str(transfer)
    assert result_of(wd.Decoupled).transfer(num_steps=100)["Decoupled"].edge is None


def test_transfer_of_masked_rules_and_schedules():
    schedule = wd.schedules.WarmupCosine(0.01, 0.1)
    rules = [wd.Masked(rule, wd.masks.first) for rule in wd.logspace(wd.Decoupled, *LADDER)]
    result = constructed(rules, valley(0.1), rates=[schedule])
    (row,) = result.transfer(learning_rate=0.02, num_steps=2000)
    assert row.coefficient == pytest.approx(0.1 / 4, rel=1e-6)  # the peak of a schedule is a float32
    assert row.decay.mask is wd.masks.first
    assert row.decay.rule == wd.Decoupled(row.coefficient)


@pytest.mark.parametrize("exponent", [-1.0, -0.5])
def test_transfer_from_three_lengths_finds_the_law(exponent):
    ladder = (1e-5, 1e1, 61)
    results = [
        result_of(wd.Decoupled, best=0.1 * (steps / 1000) ** exponent, ladder=ladder, num_steps=steps)
        for steps in (100, 1000, 10_000)
    ]
    row = results[0].transfer(*results[1:], num_steps=100_000)["Decoupled"]
    # The best of a ladder is at one of its ten coefficients per decade.
    assert row.exponents["num_steps"].value == pytest.approx(exponent, abs=0.03)
    expected = 0.1 * 100**exponent
    assert row.low < expected < row.high
    assert row.coefficient == pytest.approx(expected, rel=0.15)
    twice = results[0].transfer(*results[1:], num_steps=100_000, learning_rate=0.02)["Decoupled"]
    assert twice.coefficient == pytest.approx(row.coefficient / 2)  # not in the law: by the time scale


def test_transfer_from_two_batch_sizes_at_the_same_epochs():
    sizes = ((1000, 50), (250, 200))
    results = [
        result_of(wd.Decoupled, best=100 / steps, ladder=(1e-4, 1e2, 61), num_steps=steps, batch_size=batch_size)
        for steps, batch_size in sizes
    ]
    row = results[0].transfer(results[1], batch_size=25)["Decoupled"]
    assert list(row.exponents) == ["num_steps"]
    assert row.coefficient == pytest.approx(0.05, rel=0.05)
    assert row.formula.startswith("law of 2 runs")


def test_transfer_from_results_of_one_size_is_that_of_the_first():
    result = result_of(wd.Decoupled)
    assert result.transfer(result, num_steps=2000).rows == result.transfer(num_steps=2000).rows


def test_transfer_chooses_by_another_metric():
    result = result_of(wd.Decoupled)
    result.dataset["validation_accuracy"] = -abs(result.dataset["validation_loss"] - 1.0)
    by_loss, by_accuracy = (
        result.transfer(num_steps=2000, metric=metric)["Decoupled"].before
        for metric in ("validation_loss", "validation_accuracy")
    )
    assert by_loss == pytest.approx(0.1)
    assert by_accuracy in (pytest.approx(0.1 * 10**0.5), pytest.approx(0.1 / 10**0.5))


@pytest.mark.parametrize(
    ("call", "argument", "message"),
    [
        (lambda result: result.transfer(), "num_steps", "are all None; give what is new"),
        (lambda result: result.transfer(num_steps=0), "num_steps", "give an integer of at least 1"),
        (lambda result: result.transfer(learning_rate=-1.0), "learning_rate", "give a number above 0"),
        (lambda result: result.transfer(num_steps=2, confidence=0.0), "confidence", "between 0 and 1"),
        (lambda result: result.transfer(num_steps=2, metric="validation_f1"), "metric", "validation_f1"),
        (lambda result: result.transfer(num_steps=2)["L2"], "rule", "give one of 'Decoupled'"),
    ],
)
def test_transfer_names_the_argument_that_is_wrong(call, argument, message):
    with pytest.raises(ArgumentError, match=message) as raised:
        call(result_of(wd.Decoupled))
    assert raised.value.argument == argument


def test_transfer_refuses_what_is_not_a_result(without_beartype):
    with pytest.raises(ArgumentTypeError, match="give results of"):
        result_of(wd.Decoupled).transfer(3, num_steps=2)
    with pytest.raises(ArgumentTypeError, match="give an integer"):
        result_of(wd.Decoupled).transfer(num_steps=2.5)
