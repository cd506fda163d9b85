"""Regularizers at the same budget: the draws, the choices, and the noise of the ranking."""

import numpy as np
import pytest
from scipy import stats

import weightdecay as wd
from weightdecay.apps import comparison as comparing
from weightdecay.apps.comparison import Comparison, compare, regularizers

FEW = {
    "none": {},
    "decoupled": {"decay": wd.Decoupled(wd.LogUniform(1e-2, 1.0))},
    "dropout": {"dropout_rate": wd.Uniform(0.05, 0.5)},
}
SETTINGS = {"num_steps": 12, "batch_size": 32, "progress": False}


def absolute_error(outputs, targets):
    return abs(outputs.reshape(targets.shape) - targets)


@pytest.fixture(scope="module")
def data():
    return wd.data.digits(num_train=100)


@pytest.fixture(scope="module")
def compared(data):
    return compare(wd.models.MLP((8,)), data, num_trials=3, seeds=range(2), methods=FEW, **SETTINGS)


def comparison(correct):
    """A comparison of methods with the given correctness of the test examples, ``(seeds, examples)``."""
    compared = object.__new__(Comparison)
    losses = {name: 1.0 - values for name, values in correct.items()}
    vars(compared).update(chosen=dict.fromkeys(correct), losses=losses, correct=correct)
    return compared


@pytest.mark.slow
def test_compare_gives_every_method_the_same_trials_and_learning_rates(compared):
    assert len(compared.result) == 3 * 3 * 2
    rates = {}
    for name, numbers in compared.trials.items():
        candidates = [compared.result.candidates()[number] for number in numbers]
        rates[name] = [candidate.hyperparameters["learning_rate"] for candidate in candidates]
        assert len(set(rates[name])) == 3
    assert rates["none"] == rates["decoupled"] == rates["dropout"]


@pytest.mark.slow
def test_compare_chooses_on_validation_data_among_a_methods_own_trials(compared):
    means = [candidate.mean for candidate in compared.result.candidates()]
    for name, choice in compared.chosen.items():
        assert choice.number == min(compared.trials[name], key=lambda number: means[number])


def test_compare_scores_the_choices_on_the_test_examples(compared, data):
    inputs, targets = data.test
    for name, choice in compared.chosen.items():
        assert compared.correct[name].shape == (2, len(targets))
        for row, member in zip(compared.correct[name], choice.members, strict=True):
            params = compared.result.params(member)
            hidden = np.maximum(inputs @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"], 0)
            outputs = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
            np.testing.assert_array_equal(row, outputs.argmax(axis=1) == targets)


def test_compare_table_ranks_by_the_test_examples(compared):
    table = compared.table()
    assert list(table.index) == compared.ranking
    assert (np.diff(table["test_accuracy"]) <= 0).all()
    assert table["behind"].iloc[0] == 0
    np.testing.assert_allclose(table["behind"], table["test_accuracy"].iloc[0] - table["test_accuracy"], atol=1e-12)
    assert (table["trials"] == 3).all()


def test_compare_prints_its_conclusion(compared):
    text = str(compared)
    assert all(name in text for name in FEW)
    assert text.endswith(compared.sentence)
    assert compared.sentence.startswith("Best test accuracy: ")


def test_compare_plots_one_line_per_method(compared):
    ax = compared.plot()
    assert [label.get_text() for label in ax.get_yticklabels()] == compared.ranking
    assert ax.get_xlabel()


@pytest.mark.slow
def test_compare_of_a_regression_ranks_by_the_loss():
    compared = compare(wd.models.MLP(()), wd.data.diabetes(), num_trials=2, seeds=[0], methods={"none": {}}, **SETTINGS)
    assert compared.scored_by == "test_loss"
    assert "test_accuracy" not in compared.table()


@pytest.mark.slow
def test_compare_scores_by_a_loss_of_the_users_own():
    data = wd.data.diabetes()
    compared = compare(
        wd.models.MLP(()), data, num_trials=2, seeds=[0], methods={"none": {}}, loss=absolute_error, **SETTINGS
    )
    (choice,) = compared.chosen.values()
    params = compared.result.params(choice.members[0])["Dense_0"]
    outputs = data.test[0] @ params["kernel"][:, 0] + params["bias"]
    # float32, summed in another order.
    np.testing.assert_allclose(compared.losses["none"][0], np.abs(outputs - data.test[1]), rtol=1e-4, atol=1e-5)


def test_regularizers_are_those_that_apply_to_the_model_and_the_data(data):
    plain = wd.Model(init=lambda key, inputs: {"kernel": np.zeros((64, 10))}, apply=lambda params, x: x)
    common = {"no regularization", "coupled L2", "decoupled decay", "L1"}
    assert set(regularizers(plain, data)) == common | {
        "early stopping",
        "decoupled decay + early stopping",
        "augmentation",
        "decoupled decay + augmentation",
    }
    full = regularizers(wd.models.MLP((8,)), data)
    assert {"dropout", "batch normalization", "decoupled decay + dropout"} < set(full)
    images = wd.Data(*((inputs.reshape(-1, 8, 8, 1), targets) for inputs, targets in (data.train, data.validation)))
    assert set(regularizers(plain, images)["augmentation"]) == {"shift", "cutout"}
    tokens = wd.Data(*((np.zeros((4, 6), np.int32), np.zeros(4, np.int32)) for _ in range(2)))
    assert "augmentation" not in regularizers(plain, tokens)


# The noise of a ranking.


def test_differences_of_one_seed_are_a_paired_test():
    random = np.random.default_rng(2)
    first, second = (random.random((1, 200)) < probability for probability in (0.8, 0.7))
    table = comparison({"a": first.astype(float), "b": second.astype(float)}).differences("a")
    test = stats.ttest_rel(first[0].astype(float), second[0].astype(float))
    np.testing.assert_allclose(table.loc["b", "p_value"], test.pvalue, rtol=1e-9)
    np.testing.assert_allclose(table.loc["b", "mean"], first.mean() - second.mean(), rtol=1e-12)


def test_differences_pair_examples_so_that_hard_ones_drop_out():
    hard = (np.arange(300) < 210).astype(float)
    better = np.maximum(hard, (np.arange(300) >= 294).astype(float))
    table = comparison({"a": better[None].repeat(3, 0), "b": hard[None].repeat(3, 0)})
    # 0.72 and 0.70 with errors of 0.026 each, but six examples are right in one and none in the other alone.
    assert table.differences("b").loc["a", "p_value"] < 0.02
    assert not table.differences("b").loc["a", "within_noise"]


def test_holm_reproduces_its_example():
    # The example of Holm's procedure: p (m - rank + 1), made monotone.
    np.testing.assert_allclose(comparing._holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(comparing._holm(np.array([0.6, 0.7])), [1.0, 1.0])


@pytest.mark.slow
@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": wd.Data((np.zeros((4, 2)), np.zeros(4, int)), (np.zeros((4, 2)), np.zeros(4, int)))}, "data has no"),
        ({"methods": {}}, "methods is empty"),
        ({"methods": {"odd": {"dropout": 0.5}}}, "axis 'dropout', which nobody takes"),
        ({"num_trials": 0}, "num is 0"),
        ({"metric": "test_loss"}, "stopping_metric is 'test_loss'"),
        ({"learning_rate": 0.1}, "num is 2, but .* gave 1 distinct"),
    ],
)
def test_compare_refuses(data, changed, message):
    arguments = {"data": data, "num_trials": 2, "methods": {"none": {}}, **SETTINGS, **changed}
    with pytest.raises(ValueError, match=message):
        compare(wd.models.MLP((8,)), **arguments)


def test_differences_refuse_an_unknown_reference(compared):
    with pytest.raises(ValueError, match="reference is 'decay'; give one of '"):
        compared.differences("decay")
