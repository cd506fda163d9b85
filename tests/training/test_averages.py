"""Averaged weights (the axis ``ema``): against loops of optax, and through saves, stops and divergence."""

import functools

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

import weightdecay as wd
from compare import close, same_bits
from weightdecay.core import metrics as metric_table
from weightdecay.core import random_streams
from weightdecay.data import batches
from weightdecay.models import network as networks

DATA = wd.data.digits(num_train=151)
MODEL = wd.models.MLP((6,))
SHORT = {"num_steps": 12, "batch_size": 32, "eval_every": 6, "progress": False}
GRID = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.01)], learning_rate=[0.03], ema=[None, 0.0, 0.5, 0.9], seed=range(2))


def fit(grid=GRID, **settings):
    return wd.fit_grid(MODEL, DATA, grid, **{**SHORT, **settings})


@pytest.fixture(scope="module")
def result():
    return fit()


def outputs_of(params, inputs):
    return wd.models.MLP((6,), num_outputs=10).apply({"params": params}, inputs)


def mean_loss(params, split):
    inputs, targets = getattr(DATA, split)
    return optax.softmax_cross_entropy_with_integer_labels(outputs_of(params, inputs), targets).mean()


def initial_weights(seed):
    key = random_streams.key(seed, random_streams.INITIAL_WEIGHTS)
    return networks.network(wd.models.MLP((6,), num_outputs=10)).init(key, DATA.train[0][:1])[0]


def by_hand(decay, coefficient, seed, num_steps=12):
    """A loop of optax over the batches of a member, from its initial weights."""
    order = batches.Orders(32, DATA.batches()["train"])((seed, -1), 0, num_steps)
    params = initial_weights(seed)
    optimizer = optax.adam(0.03)
    state, average = optimizer.init(params), params
    decays = wd.masks.kernels(params)

    @jax.jit
    def step(params, state, average, inputs, targets):
        def loss(params):
            penalty = sum(
                coefficient / 2 * (w**2).sum() if decayed else 0.0
                for w, decayed in zip(jax.tree.leaves(params), jax.tree.leaves(decays), strict=True)
            )
            outputs = outputs_of(params, inputs)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean() + penalty

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        return params, state, optax.incremental_update(params, average, 1 - decay)

    inputs, targets = DATA.train
    for rows in order:
        params, state, average = step(params, state, average, inputs[rows], targets[rows])
    return params, average


@pytest.mark.slow
@pytest.mark.parametrize(("member", "coefficient", "decay", "seed"), [(6, 0.0, 0.9, 0), (13, 0.01, 0.5, 1)])
def test_average_is_that_of_a_loop_of_optax(result, member, coefficient, decay, seed):
    one = result.members[member]
    assert (one["ema"], one["seed"]) == (decay, seed)
    params, average = by_hand(decay, coefficient, seed)
    # Twelve steps of Adam in float32, whose first ones divide by small numbers.
    close(result.params(member), params, rtol=2e-3, atol=2e-4)
    close(result.params(member, average=True), average, rtol=2e-3, atol=2e-4)
    for split in ("train", "validation"):
        expected = mean_loss(result.params(member, average=True), split)
        np.testing.assert_allclose(result.dataset[f"{split}_ema_loss"][member, -1], expected, rtol=1e-5)
        assert abs(expected - result.dataset[f"{split}_loss"].values[member, -1]) > 1e-3
    outputs = result.predict(DATA.validation[0], member, average=True)
    accuracy = (outputs.argmax(axis=1) == DATA.validation[1]).mean()
    np.testing.assert_allclose(result.dataset["validation_ema_accuracy"][member, -1], accuracy, rtol=1e-6)


@pytest.mark.slow
def test_members_have_the_bits_that_they_have_without_an_average(result):
    plain = fit(wd.Grid(decay=[wd.NoDecay(), wd.L2(0.01)], learning_rate=[0.03], seed=range(2)))
    assert set(result.dataset.data_vars) - set(plain.dataset.data_vars) == {
        f"{split}_ema_{name}" for split in ("train", "validation") for name in ("loss", "accuracy")
    }
    ema = result.dataset["ema"].values
    for number in range(16):
        seed, rule = number % 2, number // 8
        alike = 2 * rule + seed
        same = same_bits if np.isnan(ema[number]) else functools.partial(close, rtol=1e-5, atol=1e-6)
        same(result.params(number), plain.params(alike))
    without = np.isnan(result.dataset["validation_ema_loss"].values).all(axis=1)
    np.testing.assert_array_equal(without, np.isnan(ema))
    zero = np.flatnonzero(ema == 0)
    for name in ("loss", "accuracy"):  # an average of the last weights alone
        ours, last = (result.dataset[f"validation_{prefix}{name}"].values[zero] for prefix in ("ema_", ""))
        np.testing.assert_array_equal(ours, last)
    with pytest.raises(ValueError, match="average is True, but member 0 has no averaged weights"):
        result.params(0, average=True)


@pytest.mark.slow
def test_averages_may_choose_and_be_scored(result):
    chosen = result.best(metric="validation_ema_loss")
    means = result.dataset["validation_ema_loss"].values[:, -1].reshape(8, 2).mean(axis=1)
    assert chosen.number == np.nanargmin(means)
    scores = result.test(metric="validation_ema_loss")
    expected = np.mean([mean_loss(result.params(member, average=True), "test") for member in chosen.members])
    np.testing.assert_allclose(scores.loc["chosen", "test_loss"], expected, rtol=1e-5)
    table = result.table()
    np.testing.assert_allclose(table["validation_ema_loss"], means, rtol=1e-6)
    part = result.where(lambda member: member["ema"] == 0.9)
    part.test(metric="validation_ema_loss")
    with pytest.raises(ValueError, match=r"already looked at for candidates .* with averaged weights"):
        part.test()


@pytest.mark.slow
def test_averages_are_saved_and_joined(result, tmp_path):
    result.save(tmp_path / "result")
    read = wd.load(tmp_path / "result")
    joined = result.part([0, 6]).part([1, 0])
    for member in range(16):
        if result.members[member]["ema"] is None:
            with pytest.raises(ValueError, match=f"member {member} has no averaged weights"):
                read.params(member, average=True)
        else:
            same_bits(read.params(member, average=True), result.params(member, average=True))
    same_bits(joined.params(0, average=True), result.params(6, average=True))
    extended = fit(wd.Grid(learning_rate=[0.03])).extend(wd.Grid(learning_rate=[0.03], ema=[0.9]))
    same_bits(extended.params(1, average=True), result.params(6, average=True))
    assert np.isnan(extended.dataset["validation_ema_loss"].values[0]).all()
    extended.save(tmp_path / "extended")
    same_bits(wd.load(tmp_path / "extended").params(1, average=True), result.params(6, average=True))


@pytest.mark.slow
def test_a_run_resumes_and_streams_with_the_same_averages(result, tmp_path):
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[0.03], ema=[None, 0.9], seed=range(2))
    fit(grid, num_steps=6, eval_every=6, directory=tmp_path / "run")
    resumed = fit(grid, directory=tmp_path / "run")
    plan = wd.Plan(result.settings["plan"]["lane_width"], 1, streamed=True)
    streamed = fit(grid, plan=plan)
    for number, member in ((2, 6), (3, 7)):
        for one in (resumed, streamed, wd.load(tmp_path / "run")):
            same_bits(one.params(number, average=True), result.params(member, average=True))
        for name in ("train_ema_loss", "validation_ema_loss"):
            np.testing.assert_array_equal(resumed.dataset[name][number], result.dataset[name][member])
            np.testing.assert_allclose(streamed.dataset[name][number], result.dataset[name][member], rtol=1e-6)


@pytest.mark.slow
def test_a_member_that_stops_keeps_the_average_of_its_best_evaluation():
    settings = {"num_steps": 24, "eval_every": 2, "optimizer": wd.sgd}
    grid = wd.Grid(learning_rate=[1.5], ema=[0.6], seed=range(3))
    stopping = fit(grid, patience=1, stopping_metric="validation_ema_accuracy", **settings)
    stopped = np.flatnonzero(stopping.dataset["stopped_at"].values > 0)
    assert len(stopped)
    number = int(stopped[0])
    best = int(stopping.dataset["best_step"][number])
    shorter = fit(grid, **{**settings, "num_steps": best})
    same_bits(stopping.params(number, average=True), shorter.params(number, average=True))
    curve = shorter.dataset["validation_ema_accuracy"].values[number]
    assert curve[-1] == curve.max()


@pytest.mark.slow
def test_a_diverged_member_keeps_its_last_finite_average():
    grid = wd.Grid(learning_rate=[0.1, 1e30], ema=[0.9])
    result = fit(grid, optimizer=wd.sgd)
    died = int(result.dataset["diverged_at"][1])
    assert died > 0
    assert all(np.isfinite(w).all() for w in jax.tree.leaves(result.params(1, average=True)))
    assert np.isnan(result.dataset["validation_ema_loss"].values[1, -1])
    assert died == 1
    expected = jax.tree.map(lambda start, last: 0.9 * start + 0.1 * last, initial_weights(0), result.params(1))
    close(result.params(1, average=True), expected, rtol=1e-5)


@pytest.mark.slow
def test_batch_statistics_are_averaged_as_well():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, inputs, train: bool):
            return nn.Dense(10)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(5)(inputs)))

    settings = {**SHORT, "batch_size": None, "optimizer": wd.sgd}

    first, second = (
        wd.fit(Normalized(), DATA, decay=wd.NoDecay(), learning_rate=0.1, ema=0.5, **{**settings, "num_steps": steps})
        for steps in (1, 2)
    )
    initial = {"mean": np.zeros(5), "var": np.ones(5)}
    for name, start in initial.items():
        before, after = (one.model_state()["batch_stats"]["BatchNorm_0"][name] for one in (first, second))
        expected = 0.25 * start + 0.25 * before + 0.5 * after
        average = second.model_state(average=True)["batch_stats"]["BatchNorm_0"][name]
        np.testing.assert_allclose(average, expected, rtol=1e-5)
    outputs = second.model.apply(
        {"params": second.params(average=True), **second.model_state(average=True)}, DATA.validation[0], train=False
    )
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, DATA.validation[1]).mean()
    np.testing.assert_allclose(second.dataset["validation_ema_loss"][0, -1], loss, rtol=1e-5)


def test_what_is_no_decay_rate_is_refused():
    for value in (1.0, -0.1):
        with pytest.raises(ValueError, match=r"ema\[0\].*give a number from 0 to below 1, or None for no average"):
            wd.Grid(learning_rate=[0.1], ema=[value])
    message = (
        "give one of validation_accuracy, validation_loss. 8 .*|4 of 16 members have no average; give every member"
    )
    with pytest.raises(ValueError, match=message):
        fit(patience=2, stopping_metric="validation_ema_loss")
    with pytest.raises(ValueError, match="'ema_rank', which is reserved"):
        fit(metrics={"ema_rank": lambda outputs, targets: targets})
    assert metric_table.lower_is_better("validation_ema_number", {"number": False}) is False
