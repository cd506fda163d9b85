"""The article's tables: its claims, the rules of the verdicts, and numbers that the trained grids reproduce."""

import json
import math

import jax
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from typer.testing import CliRunner

import weightdecay as wd
from compare import close, same_bits
from weightdecay.apps import article, article_tables, claims, cli, step_times
from weightdecay.apps.article_protocol import Protocol
from weightdecay.apps.claims import Check
from weightdecay.core.statistics import Estimate
from weightdecay.engine.plans import Plan

NAMES = ["A", "B", *map(str, range(1, 11))]


def command(*arguments):
    return CliRunner().invoke(cli.app, ["article", *map(str, arguments)])


def made_by_the_command(folder, dataset, *arguments):
    """Run the command with a small network, and return its output, the article and the folder."""
    kept, run = [], article.run

    def keep(protocol, **settings):
        kept.append(run(protocol, plan=Plan(8, 1), **settings))  # one device: a program is compiled once
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(article, "run", keep)
        shown = command(dataset, "--widths", 4, "--seeds", 2, "--output", folder, *arguments)
    assert shown.exit_code == 0, shown.output
    return shown, kept[0], folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return made_by_the_command(tmp_path_factory.mktemp("article") / "digits", "digits", "--steps", 140)


@pytest.fixture(scope="module")
def diabetes(tmp_path_factory):
    return made_by_the_command(tmp_path_factory.mktemp("article") / "diabetes", "diabetes", "--steps", 40)


# Verdicts.


def check(low, high, setting="some setting", claim="it rises"):
    middle = (low + high) / 2
    return Check(claim, setting, Estimate(middle, (high - low) / 4, low, high, 5))


HOLDS, OPPOSITE, NOISE = (0.1, 0.3), (-0.3, -0.1), (-0.1, 0.3)


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        (HOLDS, "holds"),
        (OPPOSITE, "the opposite holds"),
        (NOISE, "within noise"),
        ((0.0, 0.2), "within noise"),
        ((-0.2, 0.0), "within noise"),
        ((0.0, 0.0), "within noise"),
        ((math.nan, math.nan), "within noise"),
    ],
)
def test_check_holds_where_the_interval_is_above_zero(interval, outcome):
    assert check(*interval).outcome == outcome


@pytest.mark.parametrize(
    ("intervals", "verdict", "reason"),
    [
        ([HOLDS], "confirmed", "The check holds."),
        ([HOLDS, HOLDS], "confirmed", "All 2 checks hold."),
        ([NOISE, NOISE], "not confirmed", "None of 2 checks holds: all are within noise."),
        ([OPPOSITE, OPPOSITE], "not confirmed", "None of 2 checks holds: for all the opposite holds."),
        (
            [OPPOSITE, NOISE],
            "not confirmed",
            "None of 2 checks holds: for 1 the opposite holds, 1 are within noise.",
        ),
        ([HOLDS, NOISE], "depends", "It depends on the setting: it holds for 0, and not for 1."),
        ([OPPOSITE, HOLDS], "depends", "It depends on the setting: it holds for 1, and not for 0."),
    ],
)
def test_verdict_of_one_claim_in_several_settings(intervals, verdict, reason):
    checks = [check(*interval, setting=str(number)) for number, interval in enumerate(intervals)]
    assert (claims.verdict(checks), claims.reason(checks)) == (verdict, reason)


def test_reason_names_the_claim_where_settings_agree():
    checks = [
        check(*interval, setting=setting, claim=claim)
        for setting in ("clean", "noisy")
        for claim, interval in {"training falls": HOLDS, "test rises": NOISE}.items()
    ]
    assert claims.verdict(checks) == "depends"
    assert claims.reason(checks) == (
        "It depends on the statement: it holds for training falls, and not for test rises."
    )
    mixed = [*checks[:3], check(*HOLDS, setting="noisy", claim="test rises")]
    assert claims.reason(mixed) == "Of 4 checks 3 hold; it depends on the setting and on the statement."


def test_verdict_needs_a_check():
    with pytest.raises(ValueError, match="checks is empty"):
        claims.verdict([])


def test_within_holds_below_what_is_allowed():
    outcomes = [
        claims.within("equal", "some setting", difference, 0.005).outcome for difference in (0.002, 0.005, 0.006)
    ]
    assert outcomes == ["holds", "within noise", "the opposite holds"]


def test_crossed_equals_the_two_samples_of_welch():
    # The value is a function of the seed minus a function of the example: the test of Welch for two samples.
    seeds, examples = np.array([1.0, 2.0, 4.0]), np.array([0.3, -0.2, 0.5, 0.0, -0.6])
    estimate = claims.crossed(seeds[:, None] - examples[None, :])
    expected = stats.ttest_ind(seeds, examples, equal_var=False)
    interval = expected.confidence_interval(0.95)
    np.testing.assert_allclose(
        (estimate.mean, estimate.standard_error, estimate.lower, estimate.upper),
        (seeds.mean() - examples.mean(), (seeds.mean() - examples.mean()) / expected.statistic, *interval),
        rtol=1e-12,  # float64
    )


# Claims.


@pytest.mark.slow
def test_claimed_figures_are_those_of_the_article(digits):
    tables = digits[1].tables
    figures = {
        name: [tuple(row) for row in tables[name].claimed.itertuples(index=False)] for name in tables if name != "3"
    }
    column = lambda *values: [(value,) for value in values]  # noqa: E731
    assert figures == {
        "A": [(98.5, 85.2), (97.9, 88.6)],
        "B": [("reduced", "no"), ("reduced", "yes")],
        "1": column(95.3, 97.8),
        "2": column(10.0, 8.5),
        "4": column(0.7, 0.56, 0.45, 0.36),
        "5": column(0.0, 2.5, 1.8, 2.1),
        "6": column(96.7, 97.2, 97.8),
        "7": column(49.2, 34.8, 25.1),
        "8": column(0.98, 0.89, 0.76, 0.63),
        "9": column(97.8, 97.4, 97.2),
        "10": column(90.2, 92.1, 94.5, 96.3),
    }
    rows = {name: list(tables[name].claimed.index) for name in ("A", "5", "6", "7", "8", "9")}
    assert rows == {
        "A": ["without", "with"],
        "5": ["no decay", "decoupled decay", "L1", "L2"],
        "6": ["0.0001", "0.001", "0.01"],
        "7": [1, 2, 3],
        "8": [1, 2, 3, 4],
        "9": ["L2", "L1", "batch normalization"],
    }
    assert list(tables["3"].claimed.index) == ["initialize", "forward", "loss", "backward", "update"]


# Measured numbers, computed again from what was trained.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["digits", "diabetes"])
def test_article_has_every_table_with_verdict_and_standard_errors(kind, request):
    shown, made, folder = request.getfixturevalue(kind)
    assert list(made.tables) == NAMES
    protocol, *_ = shown.stdout.split("\n\n")
    assert "Choice: the coefficient of each method is chosen by the mean validation" in protocol
    assert shown.stdout.index("Choice: ") < shown.stdout.index("Table A.")
    for name, table in made.tables.items():
        assert table.verdict in ("confirmed", "not confirmed", "depends")
        assert f"{table.verdict.capitalize()}. {table.reason}" in shown.stdout
        assert f"Table {name}. {table.title}" in shown.stdout
        columns = [column for column in table.measured if not column.endswith("_standard_error")]
        assert list(table.measured) == [c for column in columns for c in (column, f"{column}_standard_error")]
        means = table.measured[columns].to_numpy()
        errors = table.measured[[f"{column}_standard_error" for column in columns]].to_numpy()
        assert np.isfinite(errors[np.isfinite(means)]).all()
        assert np.isfinite(means).any(axis=1).all()
    assert f"written to {folder}" in shown.stdout


def members(result, decay, coefficient=None, normalization=None):
    dataset = result.dataset
    selected = dataset["decay"].values == decay
    if coefficient is not None:
        selected &= np.isclose(dataset["coefficient"].values, coefficient, rtol=1e-6)
    selected &= np.array([member.get("normalization") == normalization for member in result.members])
    indices = np.flatnonzero(selected)
    assert dataset["seed"].values[indices].tolist() == [0, 1]
    return indices


def chosen(result, decay):
    """Members of the first candidate with the best mean validation accuracy."""
    table = result.table()
    of_decay = table[table["decay"] == decay]
    number = of_decay["validation_accuracy"].idxmax()
    return np.flatnonzero(result.dataset["candidate"].values == number)


def accuracy(made, setting, number):
    """Accuracy of members on the test examples in percent, by the public prediction."""
    inputs, targets = made.protocol.settings[setting].test
    result = made.results[setting]
    return np.array([100.0 * (result.predict(inputs, int(member)).argmax(axis=1) == targets) for member in number])


@pytest.mark.slow
def test_tables_of_test_accuracy_equal_the_predictions(digits):
    made = digits[1]
    kinds = {
        "no decay": "NoDecay",
        "decoupled decay": "Decoupled",
        "L1": "L1",
        "L2": "L2",
        "L1, proximal": "ProximalL1",
    }
    for setting, result in made.results.items():
        none = accuracy(made, setting, members(result, "NoDecay"))
        for method, kind in kinds.items():
            scores = none if method == "no decay" else accuracy(made, setting, chosen(result, kind))
            row = made.tables["5"].measured.loc[(setting, method)]
            gains = scores - none
            variance = gains.mean(axis=1).var(ddof=1) / 2 + gains.mean(axis=0).var(ddof=1) / gains.shape[1]
            np.testing.assert_allclose(
                row, (gains.mean(), math.sqrt(variance)), rtol=1e-9, atol=1e-12
            )  # float64 sums of the same numbers
            if method in ("no decay", "decoupled decay"):
                row = made.tables["1"].measured.loc[(setting, "without" if method == "no decay" else "with")]
                np.testing.assert_allclose(row.iloc[0], scores.mean(), rtol=1e-9)
            if method in ("L1", "L2"):
                row = made.tables["9"].measured.loc[(setting, method)]
                np.testing.assert_allclose(row.iloc[0], scores.mean(), rtol=1e-9)
        normalized = accuracy(made, setting, members(result, "NoDecay", normalization="batch"))
        row = made.tables["9"].measured.loc[(setting, "batch normalization")]
        np.testing.assert_allclose(row.iloc[0], normalized.mean(), rtol=1e-9)


def mean_and_error(values):
    """Mean and standard error of two seeds."""
    return values.mean(), np.abs(values[0] - values[1]) / 2


@pytest.mark.slow
def test_tables_by_epoch_equal_the_datasets(digits):
    made = digits[1]
    for setting, epoch in {"all examples": 34, "few and noisy": 9}.items():
        result = made.results[setting]
        with_decay = result.dataset.isel(member=chosen(result, "Decoupled"))
        for number in (2, 3, 4):
            at = with_decay.sel(step=number * epoch)
            expected = {
                "8": {
                    "training loss, with decay": at["train_loss"],
                    "validation loss, with decay": at["validation_loss"],
                },
                "10": {"validation accuracy (%), with decay": 100 * at["validation_accuracy"].astype(np.float64)},
            }
            for name, columns in expected.items():
                for column, values in columns.items():
                    row = made.tables[name].measured.loc[(setting, number)]
                    np.testing.assert_allclose(
                        (row[column], row[f"{column}_standard_error"]),
                        mean_and_error(values.values.astype(np.float64)),
                        rtol=1e-9,
                    )


@pytest.mark.slow
def test_coefficients_of_table_6_equal_the_datasets(digits):
    made = digits[1]
    for setting, result in made.results.items():
        for rule, method in {"L2": "L2", "Decoupled": "decoupled decay"}.items():
            for row, coefficient in {"0.0001": 1e-4, "0.001": 1e-3, "0.01": 1e-2}.items():
                last = result.dataset["validation_accuracy"].isel(step=-1)[members(result, rule, coefficient)]
                values = made.tables["6"].measured.loc[(setting, row)]
                name = f"validation accuracy (%), {method}"
                expected = mean_and_error(100 * last.values.astype(np.float64))
                np.testing.assert_allclose((values[name], values[f"{name}_standard_error"]), expected, rtol=1e-9)


@pytest.mark.slow
def test_weights_of_tables_b_and_7_equal_the_params(digits):
    made = digits[1]
    for setting, trained in made.settings.items():
        result = made.results[setting]
        for method in ("L2", "L1", "L1, proximal"):
            choice = trained.choice(method, cautious=True)
            kernels = [
                np.concatenate([layer["kernel"].ravel() for layer in result.params(member).values()]).astype(np.float64)
                for member in choice.members
            ]
            expected = {
                "weight norm": [np.linalg.norm(w) for w in kernels],
                "effective number of weights": [(w**2).sum() ** 2 / (w**4).sum() for w in kernels],
                "exact zeros (%)": [100 * (w == 0).mean() for w in kernels],
                "below 0.001 (%)": [100 * (np.abs(w) < 1e-3).mean() for w in kernels],
            }
            row = made.tables["B"].measured.loc[(setting, method)]
            for column, values in expected.items():
                np.testing.assert_allclose(row[column], np.mean(values), rtol=1e-5, atol=1e-12)  # metrics are float32
            last = made.tables["7"].measured.loc[(setting, trained.last_epoch)]
            left = 100 - np.mean(expected["exact zeros (%)"])
            np.testing.assert_allclose(last[f"non-zero weights (%), {method}"], left, rtol=1e-5)
        # The most decayed candidate of the rule within one standard error of the best mean.
        table = result.table()
        of_rule = table[table["decay"] == "ProximalL1"]
        best = of_rule.loc[of_rule["validation_accuracy"].idxmax()]
        good = (
            of_rule["validation_accuracy"] >= best["validation_accuracy"] - best["validation_accuracy_standard_error"]
        )
        assert trained.choice("L1, proximal", cautious=True).number == of_rule[good]["coefficient"].idxmax()


def test_steps_to_a_level_are_those_of_the_first_evaluation_below_it():
    without = np.array([[4.0, 2.0, 1.05, 1.0, 3.0], [4.0, 3.0, 2.0, 1.0, 0.5], [9.0, 8.0, np.nan, np.nan, np.nan]])
    with_decay = np.array([[4.0, 2.1, 2.2, 2.0, 2.0], [4.0, 0.54, 0.2, 0.1, 0.1], [9.0, 8.0, 7.0, 6.0, 5.0]])
    steps = article_tables.steps_to_level([10, 20, 30, 40, 45], without, with_decay)
    # Levels: 1.1 times 2.0, and 1.1 times 0.5; the last pair has no level.
    np.testing.assert_array_equal(steps, [[20, 45, np.nan], [20, 20, np.nan]])


@pytest.mark.slow
def test_steps_of_table_2_equal_the_datasets(digits):
    made = digits[1]
    for setting, result in made.results.items():
        dataset = result.dataset
        pair = members(result, "NoDecay"), chosen(result, "Decoupled")
        for split, name in {"training": "train_loss", "validation": "validation_loss"}.items():
            curves = [dataset[name].values[indices].astype(np.float64) for indices in pair]
            expected = article_tables.steps_to_level(dataset["step"].values, *curves)
            for row, steps in zip(("without", "with"), expected, strict=True):
                values = made.tables["2"].measured.loc[(setting, row)]
                name_in_table = f"steps to the {split} loss"
                np.testing.assert_allclose(
                    (values[name_in_table], values[f"{name_in_table}_standard_error"]), mean_and_error(steps), rtol=1e-9
                )


@pytest.mark.slow
def test_checks_are_differences_of_the_measured_numbers(digits):
    made = digits[1]
    expected = {  # column, the row ahead and the row behind, for each check of a setting
        "A": [(0, "without", "with"), (2, "with", "without")],
        "B": [
            *((0, "no decay", method) for method in ("L2", "L1", "L1, proximal")),
            *((2, method, "L2") for method in ("L1", "L1, proximal")),
        ],
        "1": [(0, "with", "without")],
        "2": [(0, "without", "with"), (1, "without", "with")],
        "5": [(0, method, "no decay") for method in ("decoupled decay", "L1", "L2")],
        "6": [(0, "0.01", "0.0001"), (1, "0.01", "0.0001")],
        "7": [(0, 1, 3), (1, 1, 3)],
        "8": [(0, 1, 4), (2, 1, 4)],
        "9": [(0, "L2", "L1"), (0, "L1", "batch normalization")],
        "10": [(0, 4, 1)],
    }
    for name, differences in expected.items():
        table = made.tables[name]
        columns = [column for column in table.measured if not column.endswith("_standard_error")]
        for setting in made.results:
            checks = [check for check in table.checks if check.setting == setting]
            for check, (column, ahead, behind) in zip(checks, differences, strict=True):
                values = table.measured.loc[setting][columns[column]]
                np.testing.assert_allclose(
                    check.estimate.mean, (values[ahead] - values[behind]), rtol=1e-9, atol=1e-9
                )  # float64 sums in another order


@pytest.mark.slow
def test_table_4_is_exact_without_gradient(digits):
    np.testing.assert_allclose(
        article_tables.decayed_alone(0.7, 0.2, 4), [0.7, 0.56, 0.448, 0.3584], rtol=3e-7
    )  # three multiplications in float32
    table = digits[1].tables["4"]
    np.testing.assert_allclose(table.measured.loc["zero gradient"]["weight"], [0.7, 0.56, 0.448, 0.3584], rtol=3e-7)
    assert table.checks[0].outcome == "holds"


@pytest.mark.slow
def test_table_4_takes_a_fifth_off_in_an_epoch(digits):
    made = digits[1]
    for setting, epoch in {"all examples": 34, "few and noisy": 9}.items():
        result = made.results[setting]
        fractions = result.dataset["coefficient"].values[members(result, "Independent")]
        np.testing.assert_allclose((1 - fractions) ** epoch, 0.8, rtol=1e-9)
        norms = result.dataset["weight_norm"].sel(step=[epoch, 3 * epoch])[members(result, "Independent")].values
        row = made.tables["4"].measured.loc[(setting, 3)]
        np.testing.assert_allclose(row["weight"], np.mean(0.7 * norms[:, 1] / norms[:, 0]), rtol=1e-6)  # float32


# Settings.


@pytest.mark.slow
def test_few_examples_keep_classes_in_proportion_and_a_fraction_has_wrong_labels(digits):
    settings = digits[1].protocol.settings
    every, few = settings["all examples"], settings["few and noisy"]
    inputs, targets = few.train
    assert inputs.shape == (300, 64)
    rows = [np.flatnonzero((every.train[0] == image).all(axis=1)) for image in inputs]
    assert all(len(matches) == 1 for matches in rows)  # no digit occurs twice
    true = every.train[1][np.concatenate(rows)]
    assert (true != targets).sum() == 120
    assert targets.min() >= 0
    assert targets.max() <= 9
    expected = np.bincount(every.train[1]) * 300 / len(every.train[1])
    assert np.abs(np.bincount(true) - expected).max() <= 1
    for split in ("validation", "test"):
        assert getattr(few, split) is getattr(every, split)


@pytest.mark.slow
def test_regression_has_r2_and_no_wrong_labels(diabetes):
    shown, made, _ = diabetes
    assert "where the article has an accuracy, the tables have R² in %" in shown.stdout
    few = made.protocol.settings["few examples"]
    every = made.protocol.settings["all examples"]
    assert len(few.train[1]) == len(every.train[1]) // 2
    assert set(few.train[1]) <= set(every.train[1])
    for name in ("A", "1", "5", "6", "9", "10"):
        assert "these targets are not classes" in made.tables[name].note
    for name in ("B", "2", "3", "4", "7", "8"):
        assert "classes" not in made.tables[name].note


@pytest.mark.slow
def test_r2_equals_that_of_sklearn(diabetes):
    from sklearn.metrics import r2_score

    made = diabetes[1]
    for setting, result in made.results.items():
        inputs, targets = made.protocol.settings[setting].test
        none = members(result, "NoDecay")
        scores = [100 * r2_score(targets, result.predict(inputs, int(member))[:, 0]) for member in none]
        row = made.tables["1"].measured.loc[(setting, "without")]
        np.testing.assert_allclose(row["test R² (%)"], np.mean(scores), rtol=1e-4, atol=1e-4)  # losses are float32
        validation_inputs, validation = made.protocol.settings[setting].validation
        scores = [100 * r2_score(validation, result.predict(validation_inputs, int(m))[:, 0]) for m in none]
        row = made.tables["A"].measured.loc[(setting, "without")]
        np.testing.assert_allclose(row["validation R² (%)"], np.mean(scores), rtol=1e-4, atol=1e-4)


# What is written.


@pytest.mark.slow
def test_save_writes_the_tables_and_results_that_load(digits):
    _, made, folder = digits
    text = (folder / "article.md").read_text()
    assert text == made.to_markdown()
    content = json.loads((folder / "article.json").read_text())
    assert content["tables"]["1"]["verdict"] == made.tables["1"].verdict
    for name, table in made.tables.items():
        assert f"## Table {name}. {table.title}" in text
        measured = pd.read_csv(folder / f"table-{name}-measured.csv", index_col=[0, 1])
        np.testing.assert_allclose(measured, table.measured, rtol=1e-12)
        claimed = pd.read_csv(folder / f"table-{name}-claimed.csv", index_col=0)
        assert list(map(str, claimed.index)) == list(map(str, table.claimed.index))
    for name, result in zip(("all", "few"), made.results.values(), strict=True):
        loaded = wd.load(folder / name)
        assert loaded.dataset.identical(result.dataset)
        for member in (0, len(result) - 1):  # the last has batch normalization, and so other weights
            same_bits(loaded.params(member), result.params(member))


@pytest.mark.slow
def test_save_replaces_an_earlier_article_alone(digits, tmp_path):
    _, made, folder = digits
    with pytest.raises(FileExistsError, match="holds an earlier article; nothing was changed"):
        made.save(folder)
    assert made.save(folder, overwrite=True) == folder
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files"):
        made.save(tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


# Refusals.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "dataset is 'mnist'; give one of digits, "),
        (
            ["digits", "--seeds", 1],
            "--seeds: seeds is 1; give an integer of at least 2, since one run has no standard error",
        ),
        (["digits", "--steps", 100], "--steps: num_steps is 100; give an integer of at least 136"),
        (["wine", "--batch-size", 60], "--batch-size: batch_size is 60, but the setting with few examples has 53"),
        (["digits", "--learning-rate", 0], "--learning-rate: learning_rate is 0.0; give a finite number above 0"),
    ],
)
def test_command_refuses_with_one_message(arguments, message, tmp_path):
    shown = command(*arguments, "--output", tmp_path / "out")
    assert shown.exit_code == 2, shown.output
    assert shown.stderr.splitlines()[-1].startswith(f"weightdecay: {message}")
    assert not (tmp_path / "out").exists()


def test_protocol_refuses_data_that_it_cannot_use():
    inputs, targets = np.ones((40, 2), np.float32), np.arange(40, dtype=np.int32) % 2
    one = (inputs, targets)
    with pytest.raises(ValueError, match="data has no separate validation and test examples"):
        Protocol.of(wd.Data(train=one, validation=one), batch_size=4)
    with pytest.raises(ValueError, match="data has no separate validation and test examples"):
        Protocol.of(wd.data.folds(inputs, targets, num_folds=2), batch_size=4)
    with pytest.raises(ValueError, match="data has weights of examples"):
        Protocol.of(wd.Data(train=(*one, np.ones(40)), validation=one, test=one), batch_size=4)
    several = inputs, np.stack([targets, 1 - targets], axis=1)
    with pytest.raises(ValueError, match=r"data.train targets have shape \(40, 2\); give one class per example"):
        Protocol.of(wd.Data(train=several, validation=several, test=several), batch_size=4)


# The parts of a step.


@pytest.mark.slow
def test_parts_of_a_step_make_the_weights_of_optax():
    import optax

    data, model = wd.data.digits(num_train=100), wd.models.MLP((8,), num_outputs=10)
    times = step_times.parts_of_a_step(
        model, data, decay=wd.Decoupled(0.5), learning_rate=1e-2, batch_size=16, seed=3, rounds=3, calls=1
    )
    assert {name: seconds.shape for name, seconds in times.seconds.items()} == dict.fromkeys(
        (*step_times.PARTS, step_times.WHOLE), (3,)
    )
    assert all((seconds > 0).all() for seconds in times.seconds.values())
    assert times.difference <= 1e-2 / 100
    inputs, targets = (array[:16] for array in data.train)

    def loss(params):
        outputs = model.apply({"params": params}, inputs)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

    optimizer = optax.adamw(1e-2, weight_decay=0.5, mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params))
    updates, _ = optimizer.update(jax.grad(loss)(times.before), optimizer.init(times.before), times.before)
    expected = optax.apply_updates(times.before, updates)
    # A hundredth of the step: the first step of Adam is g / (|g| + 1e-8), so that rounding matters for small gradients.
    close(times.after, expected, rtol=0, atol=1e-4)
