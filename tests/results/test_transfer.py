"""The coefficient for another run, compared with closed forms, with ``convert``, and with laws that are known."""

import math

import numpy as np
import pytest
from constructed_results import constructed, path_without_decay, valley
from sklearn.linear_model import Ridge

import weightdecay as wd
from weightdecay.core.checks import ArgumentError, ArgumentTypeError

LADDER = (1e-3, 1e1, 9)
STEPS = np.arange(20, 1001, 20)


def result_of(kind, best=0.1, ladder=LADDER, **run):
    return constructed(wd.logspace(kind, *ladder), valley(best), **run)


def epochs_of_time_scale(coefficient, *, learning_rate=0.01, batch_size=50, num_examples=1000, **_):
    """Time scale of `Decoupled` in epochs, by its definition."""
    return batch_size / (learning_rate * coefficient * num_examples)


@pytest.mark.parametrize(
    "new",
    [
        {"num_steps": 4000},
        {"learning_rate": 0.03},
        {"batch_size": 200},
        {"num_examples": 4000},
        {"batch_size": 200, "num_examples": 4000},
        {"num_steps": 500, "learning_rate": 0.001},
    ],
)
def test_transfer_keeps_the_time_scale_in_epochs(new):
    row = result_of(wd.Decoupled).transfer(**new)["Decoupled"]
    assert row.before == pytest.approx(0.1)
    assert epochs_of_time_scale(row.coefficient, **new) == pytest.approx(epochs_of_time_scale(0.1), rel=1e-12)
    assert row.decay == wd.Decoupled(row.coefficient)
    size = {"learning_rate": 0.01, "batch_size": 50, "num_examples": 1000}
    changed = {f"new_{name}": value for name, value in new.items() if name != "num_steps"}
    converted = wd.convert(row.before, "Decoupled", "Decoupled", **size, **changed)
    assert row.coefficient == pytest.approx(converted, rel=1e-12)


@pytest.mark.parametrize("new", [{"num_steps": 4000}, {"num_steps": 500, "learning_rate": 0.02}])
def test_transfer_in_less_than_one_epoch_keeps_the_fraction_of_the_run(new):
    row = result_of(wd.Decoupled, num_examples=10**6).transfer(**new)["Decoupled"]
    changed = {f"new_{name}": value for name, value in new.items()}
    converted = wd.convert(row.before, "Decoupled", "Decoupled", num_steps=1000, learning_rate=0.01, **changed)
    assert row.coefficient == pytest.approx(converted, rel=1e-12)
    # Four times the steps, with four times the batch size: the fraction of the run does not depend on the batch.
    both = result_of(wd.Decoupled, num_examples=10**6).transfer(**new, batch_size=200)["Decoupled"]
    assert both.coefficient == pytest.approx(row.coefficient, rel=1e-12)


def test_transfer_to_more_epochs_adds_what_stopping_no_longer_does():
    turning = path_without_decay(200)

    def loss(one, step, seed):
        return turning(one, step, seed) if one["decay"] == wd.NoDecay() else valley(0.1)(one, step, seed)

    result = constructed(wd.logspace(wd.Decoupled, *LADDER), loss)
    row = result.transfer(num_steps=4000)["Decoupled"]
    # The turn is at step 200 of 1000; stopping at t is a decay of about 1 / (η t).
    assert row.coefficient == pytest.approx(0.1 * (1 / 200 - 1 / 4000) / (1 / 200 - 1 / 1000))
    assert "1810.10082" in row.source
    assert result.transfer(num_steps=100)["Decoupled"].coefficient == 0  # it ends before the turn
    assert result.transfer(batch_size=100)["Decoupled"].coefficient == pytest.approx(0.2)  # as many epochs
    suggested = [
        wd.suggest(STEPS * end // 1000, np.log(STEPS * end // 1000 / 200) ** 2, learning_rate=0.01)
        for end in (1000, 4000)
    ]
    ratio = suggested[1]["Decoupled"].coefficient / suggested[0]["Decoupled"].coefficient
    assert suggested[1].turn.step in (160, 240)
    assert ratio == pytest.approx(row.coefficient / 0.1, rel=0.35)  # evaluated at every 80 steps


@pytest.mark.parametrize(
    ("kind", "optimizer", "factor", "keeps"),
    [
        (wd.Decoupled, "adam", 2 / 10, "time scale"),
        (wd.Corrected, "adam", 2 / 10, "time scale"),
        (wd.Cautious, "adam", 2 / 10, "time scale"),
        (wd.Independent, "adam", 2, "time scale"),
        (wd.L2, "sgd", 2 / 10, "time scale"),
        (wd.L2, "adam", 1.0, "objective"),
        (wd.ProximalL1, "adam", 1.0, "objective"),
    ],
)
def test_transfer_of_each_rule_by_its_own_formula(kind, optimizer, factor, keeps):
    ladder = (1e-3, 1e0, 7)
    row = result_of(kind, ladder=ladder, optimizer=optimizer).transfer(batch_size=100, learning_rate=0.1)[kind.__name__]
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
    row = flat.transfer(batch_size=100)["Decoupled"]
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
    assert transfer.rules() == [wd.Decoupled(0.1)]
    lines = str(transfer).splitlines()
    assert max(map(len, lines)) <= 80
    assert any("no basis" in line for line in lines)
    assert transfer.table().loc["Decoupled", "coefficient"] == pytest.approx(0.1)


def test_transfer_marks_a_best_coefficient_at_the_edge_of_its_grid():
    transfer = result_of(wd.Decoupled, best=100.0).transfer(num_steps=100)
    assert transfer["Decoupled"].edge == "highest"
    assert "may lie beyond the grid" in str(transfer)
    assert result_of(wd.Decoupled).transfer(num_steps=100)["Decoupled"].edge is None

    def searched(one, step, seed):
        value = getattr(one["decay"], "coefficient", 0.0)
        return math.nan if value > 0.1 else valley(0.1)(one, step, seed)

    # A search leaves candidates untrained; the best of the others is not at the end of the grid.
    partial = constructed(wd.logspace(wd.Decoupled, *LADDER), searched)
    assert partial.transfer(num_steps=100)["Decoupled"].edge is None


def test_transfer_of_masked_rules_and_schedules():
    schedule = wd.schedules.WarmupCosine(0.01, 0.1)
    rules = [wd.Masked(rule, wd.masks.first) for rule in wd.logspace(wd.Decoupled, *LADDER)]
    result = constructed(rules, valley(0.1), rates=[schedule])
    (row,) = result.transfer(learning_rate=0.02, num_examples=2000)
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
