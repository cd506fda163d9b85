"""The axis ``epochs``: members that take fewer training examples more often, in the same number of steps."""

import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(90, 4)).astype(np.float32)
LABELS = (INPUTS[:, 0] > 0).astype(np.int32)
TRAIN, VALIDATION = (INPUTS[:64], LABELS[:64]), (INPUTS[64:], LABELS[64:])
DATA = wd.Data(train=TRAIN, validation=VALIDATION)
MODEL = wd.models.MLP((3,))
SETTINGS = {"num_steps": 16, "batch_size": 8, "eval_every": 8, "progress": False}
RULES = [wd.NoDecay(), wd.Decoupled(0.5)]


def first(number, split=TRAIN):
    return split[0][:number], split[1][:number]


@pytest.fixture(scope="module")
def result():
    return wd.fit_grid(
        MODEL, DATA, wd.Grid(decay=RULES, learning_rate=1e-2, epochs=[2, 8, 16], seed=range(2)), **SETTINGS
    )


def member(result, epochs, seed=1, decay="Decoupled"):
    return next(
        number
        for number, one in enumerate(result.members)
        if (one["epochs"], one["seed"], one["decay"].name) == (epochs, seed, decay)
    )


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "number"), [(2, 64), (8, 16), (16, 8)])
def test_member_is_the_run_on_its_first_examples_alone(result, epochs, number):
    """The same seed on data that have these examples only: weights, and the metrics of training and validation."""
    alone = wd.fit_grid(
        MODEL,
        wd.Data(train=first(number), validation=VALIDATION),
        wd.Grid(decay=RULES, learning_rate=1e-2, seed=[1]),
        **SETTINGS,
        plan=wd.Plan(result.settings["plan"]["lane_width"], 1),
    )
    index = member(result, epochs)
    for ours, theirs in zip(tree_of(result, index), tree_of(alone, 1), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    for name in ("train_loss", "train_accuracy", "validation_loss", "time_scale_epochs"):
        np.testing.assert_allclose(result.dataset[name][index], alone.dataset[name][1], rtol=1e-5)


def tree_of(result, index):
    return [leaf for layer in result.params(index).values() for leaf in layer.values()]


@pytest.mark.slow
def test_training_metrics_are_those_of_the_examples_that_a_member_takes(result):
    index = member(result, 8)
    logits = result.predict(TRAIN[0][:16], index)
    np.testing.assert_allclose(
        result.dataset["train_accuracy"][index, -1], (logits.argmax(axis=1) == TRAIN[1][:16]).mean(), rtol=1e-6
    )
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -log_probabilities[np.arange(16), TRAIN[1][:16]].mean()
    np.testing.assert_allclose(result.dataset["train_loss"][index, -1], expected, rtol=1e-5)


@pytest.mark.slow
def test_all_members_are_one_program_and_each_is_a_candidate(result):
    assert result.settings["compiled_programs"] == 1
    assert sorted(set(result.dataset["epochs"].values.tolist())) == [2, 8, 16]
    assert len(result.table()) == 6


@pytest.mark.slow
def test_members_without_the_axis_keep_their_bits():
    grid = wd.Grid(decay=RULES, learning_rate=1e-2, seed=range(2))
    plain = wd.fit_grid(MODEL, DATA, grid, **SETTINGS)
    mixed = wd.fit_grid(
        MODEL, DATA, wd.Grid(decay=RULES, learning_rate=1e-2, epochs=[None, 4], seed=range(2)), **SETTINGS
    )
    for number, one in enumerate(plain.members):
        index = next(i for i, other in enumerate(mixed.members) if {**one, "epochs": None} == other)
        same_bits(plain.params(number), mixed.params(index))


@pytest.mark.slow
def test_folds_take_the_first_examples_outside_the_fold():
    data = wd.data.folds(INPUTS, LABELS, num_folds=3, standardize=False)
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-2], epochs=[8], fold=range(3))
    result = wd.fit_grid(MODEL, data, grid, **SETTINGS)
    for fold in range(3):
        rows = np.flatnonzero(data.fold != fold)[:16]
        alone = wd.Data(
            train=(data.train[0][rows], data.train[1][rows]),
            validation=(data.train[0][data.fold == fold], data.train[1][data.fold == fold]),
        )
        scores = result.dataset.isel(member=fold, step=-1)
        logits = result.predict(alone.train[0], fold)
        assert scores["train_accuracy"] == pytest.approx((logits.argmax(axis=1) == alone.train[1]).mean())
        logits = result.predict(alone.validation[0], fold)
        assert scores["validation_accuracy"] == pytest.approx((logits.argmax(axis=1) == alone.validation[1]).mean())


@pytest.mark.slow
def test_more_steps_are_another_run_and_not_a_resumed_one(tmp_path):
    """With more steps, the same number of epochs means more examples."""
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-2], epochs=[8], seed=range(2))
    short = wd.fit_grid(MODEL, DATA, grid, directory=tmp_path / "run", **{**SETTINGS, "num_steps": 8})
    again = wd.fit_grid(MODEL, DATA, grid, directory=tmp_path / "run", **{**SETTINGS, "num_steps": 8})
    same_bits(short.params(1), again.params(1))
    resumed = wd.fit_grid(MODEL, DATA, grid, directory=tmp_path / "run", **SETTINGS)
    fresh = wd.fit_grid(MODEL, DATA, grid, **SETTINGS)
    for index in range(2):
        same_bits(resumed.params(index), fresh.params(index))


@pytest.mark.parametrize(
    ("axes", "settings", "message"),
    [
        (
            {"epochs": [1]},
            {},
            "epochs is 1: 16 steps of 8 examples are that many epochs of 128 examples, and there are 64",
        ),
        ({"epochs": [20]}, {}, "epochs is 20: .* give 2 to 16, another num_steps"),
        ({"epochs": [0]}, {}, "epochs is 0; give a number of epochs above 0"),
        ({"epochs": ["two"]}, {}, "epochs is 'two'"),
        ({"epochs": [2]}, {"batch_size": None}, "batch_size is None, so that each step takes all examples"),
        ({"epochs": [2]}, {"plan": wd.Plan(2, 1, streamed=True)}, "grid has an axis 'epochs', and plan streams"),
        (
            {"epochs": [2]},
            {"optimizer": lambda learning_rate, decay, mask, epochs: wd.adam(learning_rate, decay, mask=mask)},
            "grid has an axis 'epochs', which both training and the optimizer take; give the argument of the optimizer",
        ),
    ],
)
def test_numbers_of_epochs_that_do_not_fit_are_refused(axes, settings, message):
    with pytest.raises(ValueError, match=message):
        wd.fit_grid(MODEL, DATA, wd.Grid(decay=RULES, learning_rate=1e-2, **axes), **{**SETTINGS, **settings})


@pytest.mark.slow
def test_less_than_a_batch_too_many_are_all_examples():
    result = wd.fit_grid(MODEL, DATA, wd.Grid(decay=[wd.NoDecay()], learning_rate=1e-2, epochs=[1.9, 2]), **SETTINGS)
    same_bits(result.params(0), result.params(1))
