"""What is told of a member at an evaluation, and that telling it changes nothing.

Oracles: NumPy, and runs that end one step apart.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.core import metrics as metric_table
from weightdecay.core.types import Batch
from weightdecay.decay import masks
from weightdecay.training import evaluation, losses, step
from weightdecay.training import task as tasks

DATA = wd.data.digits(num_train=64)
MODEL = wd.models.MLP((8,))
SHORT = {"num_steps": 12, "batch_size": 16, "progress": False, "optimizer": wd.sgd}
GRID = wd.Grid(decay=[wd.NoDecay(), wd.ProximalL1(0.05)], learning_rate=[0.1, 1e30])


def absolute_error(outputs, targets):
    return jnp.abs(outputs - targets)


def top_two(outputs, targets):
    return (jnp.argsort(outputs, axis=-1)[:, -2:] == targets[:, None]).any(axis=-1).astype(jnp.float32)


@pytest.fixture(scope="module")
def result():
    return wd.fit_grid(MODEL, DATA, GRID, eval_every=1, **SHORT)


@pytest.mark.slow
def test_weights_do_not_depend_on_how_often_a_member_is_evaluated(result):
    for eval_every in (7, 12):
        seldom = wd.fit_grid(MODEL, DATA, GRID, eval_every=eval_every, **SHORT)
        for number in range(len(GRID)):
            same_bits(seldom.params(number), result.params(number))
        for name in (*metric_table.recorded(), *tasks.LAYER_METRICS):
            ours, theirs = (one.dataset[name].sel(step=seldom.dataset["step"]).values for one in (seldom, result))
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_layer_metrics_are_those_of_two_runs_one_step_apart(result):
    shorter = wd.fit_grid(MODEL, DATA, GRID, eval_every=1, **{**SHORT, "num_steps": 11})
    last = result.dataset.isel(step=-1)
    for number in (0, 2):
        for layer in last["layer"].values:
            now, before = (
                one.params(number)[layer.split("/")[0]]["kernel"].astype(np.float64).ravel()
                for one in (result, shorter)
            )
            told = last.sel(member=number, layer=layer)
            cosine = now @ before / np.linalg.norm(now) / np.linalg.norm(before)
            # float32; the arc cosine of a small angle has half the digits of its argument, which is float64.
            np.testing.assert_allclose(told["rotation"], np.arccos(cosine), rtol=1e-3)
            moved = np.linalg.norm(now - before) / np.linalg.norm(before)
            np.testing.assert_allclose(told["effective_learning_rate"], moved, rtol=1e-4)
            np.testing.assert_allclose(told["layer_weight_norm"], np.linalg.norm(now), rtol=1e-5)
            assert told["layer_zero_fraction"] == np.float32((now == 0).mean())
    weights = np.concatenate([result.params(2)[name]["kernel"].ravel() for name in ("Dense_0", "Dense_1")])
    assert (weights == 0).any()
    np.testing.assert_allclose(last["near_zero_fraction"][2], (np.abs(weights) < 1e-3).mean(), rtol=1e-6)


def test_layer_metrics_of_a_dead_member_are_nan(result):
    dead = result.dataset["diverged_at"].values >= 0
    np.testing.assert_array_equal(dead, result.dataset["learning_rate"].values > 1)
    for name in tasks.LAYER_METRICS:
        assert np.isnan(result.dataset[name].values[dead, 2:]).all()
        assert np.isfinite(result.dataset[name].values[~dead]).all()


@pytest.mark.slow
def test_layer_metrics_of_a_stopped_member_are_of_its_best_evaluation():
    settings = {**SHORT, "num_steps": 24, "eval_every": 2}
    grid = wd.Grid(learning_rate=[1.5], seed=range(3))
    plain = wd.fit_grid(MODEL, DATA, grid, **settings)
    stopping = wd.fit_grid(MODEL, DATA, grid, patience=1, **settings)
    stopped = np.flatnonzero(stopping.dataset["stopped_at"].values > 0)
    assert len(stopped)
    for number in stopped:
        best = int(stopping.dataset["best_step"][number])
        for name in tasks.LAYER_METRICS:
            there = plain.dataset[name].sel(step=best).values[number]
            np.testing.assert_array_equal(stopping.dataset[name].values[number, -1], there)


@pytest.mark.slow
def test_metrics_of_ones_own_are_means_over_the_splits():
    metrics = {"top_two": top_two, "class_error": lambda outputs, targets: outputs.argmax(axis=-1) != targets}
    settings = {**SHORT, "metrics": metrics, "lower_is_better": {"top_two": False}, "eval_every": 6}
    result = wd.fit(MODEL, DATA, decay=wd.NoDecay(), learning_rate=0.1, **settings)
    assert result.settings["lower_is_better"] == {"top_two": False, "class_error": True}
    for split in ("train", "validation"):
        inputs, targets = getattr(DATA, split)
        outputs = np.asarray(result.model.apply({"params": result.params()}, inputs))
        order = np.argsort(outputs, axis=-1)
        told = {name: result.dataset[f"{split}_{name}"].values[0, -1] for name in metrics}
        np.testing.assert_allclose(told["top_two"], (order[:, -2:] == targets[:, None]).any(axis=1).mean(), rtol=1e-6)
        np.testing.assert_allclose(told["class_error"], (order[:, -1] != targets).mean(), rtol=1e-6)
        np.testing.assert_allclose(
            told["class_error"], 1 - result.dataset[f"{split}_accuracy"].values[0, -1], rtol=1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("top_two_accuracy", None),
        ("top_two_error", None),
        ("nll", None),
        ("perplexity", None),
        ("top_two", {"top_two": False}),
        ("missed", {"missed": True}),
        ("f1", {"f1": True}),
    ],
)
def test_patience_looks_at_a_metric_of_ones_own(name, stated):
    """The direction follows from a well-known name or from the user; the curve says where patience ends."""
    sign = 1 if name in ("top_two_error", "nll", "perplexity", "missed", "f1") else -1
    metric = {name: (lambda outputs, targets: 1 - top_two(outputs, targets)) if sign > 0 else top_two}
    settings = {**SHORT, "num_steps": 24, "eval_every": 2, "metrics": metric, "lower_is_better": stated}
    grid = wd.Grid(learning_rate=[1.0], seed=range(3))
    plain = wd.fit_grid(MODEL, DATA, grid, **settings)
    stopping = wd.fit_grid(MODEL, DATA, grid, patience=2, stopping_metric=f"validation_{name}", **settings)
    for number, curve in enumerate(sign * plain.dataset[f"validation_{name}"].values):
        best = np.minimum.accumulate(curve)
        since = np.arange(len(curve)) - np.array([int(np.argmax(curve[: n + 1] == best[n])) for n in range(len(curve))])
        stops = np.flatnonzero(since >= 2)
        expected = plain.dataset["step"].values[stops[0]] if len(stops) else -1
        assert stopping.dataset["stopped_at"].values[number] == expected
    assert (stopping.dataset["stopped_at"] > 0).any()


def linear_task(metrics=None):
    model = wd.Model(init=lambda key, x: {"w": jnp.ones(x.shape[1])}, apply=lambda params, x: x @ params["w"])
    loss = losses.resolve("squared_error", np.zeros(1, np.float32))
    return tasks.Task(model, loss, wd.sgd, masks.everything, None, metrics=losses.resolve_metrics(metrics))


@pytest.mark.slow
@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize("num_examples", [5, 300])
def test_score_weighs_examples_and_counts_those_of_the_fold(validation, num_examples):
    rng = np.random.default_rng(num_examples)
    data = Batch(
        rng.normal(size=(num_examples, 3)).astype(np.float32),
        rng.normal(size=num_examples).astype(np.float32),
        rng.uniform(size=num_examples).astype(np.float32),
        np.arange(num_examples, dtype=np.int32) % 2,
    )
    task = linear_task({"absolute_error": absolute_error})
    one = tasks.Hyperparameters(wd.NoDecay(), np.float32(0.1), np.int32(0), {}, fold=np.int32(1))
    params = {"w": jnp.array([0.5, -1.0, 2.0])}
    told = evaluation.score(task, one, params, {}, data, validation=validation)
    errors = data.inputs.astype(np.float64) @ [0.5, -1.0, 2.0] - data.targets
    weights = data.weights * ((data.fold == 1) == validation)
    # Sums of float32, a chunk at a time.
    np.testing.assert_allclose(told["loss"], np.average(errors**2, weights=weights), rtol=2e-5)
    np.testing.assert_allclose(told["absolute_error"], np.average(abs(errors), weights=weights), rtol=2e-5)
    assert np.isnan(told["accuracy"])


@pytest.mark.parametrize("num_examples", [1, 128, 129, 1000])
def test_chunk_rows_count_every_example_once(num_examples):
    data = Batch(np.zeros((num_examples, 2)), np.zeros(num_examples, np.int32))
    rows, counts = map(np.asarray, evaluation.chunk_rows(losses.resolve(None, data.targets), data))
    assert sorted(rows[counts]) == list(range(num_examples))
    assert rows.shape[1] <= 128
    assert (rows < num_examples).all()


@pytest.mark.slow
def test_evaluate_is_nan_for_a_diverged_member():
    task = linear_task()
    data = Batch(np.ones((4, 3), np.float32), np.zeros(4, np.float32))
    one = tasks.Hyperparameters(wd.L2(jnp.float32(0.5)), jnp.float32(0.1), jnp.int32(0), {})
    state = step.initialize(task, one, data.inputs)
    on_train = evaluation.score(task, one, state.params, {}, data)
    told = evaluation.evaluate(task, one, state, {"w": jnp.zeros(3)}, on_train, data)
    np.testing.assert_allclose([told["train_loss"], told["validation_loss"]], 9.0, rtol=1e-6)
    np.testing.assert_allclose(told["penalty"], 0.5 * 3 / 2, rtol=1e-6)
    np.testing.assert_allclose(told["weight_norm"], np.sqrt(3), rtol=1e-6)
    assert set(told) == {*task.metric_names(), *tasks.LAYER_METRICS}
    dead = state._replace(diverged_at=jnp.int32(3))
    told = evaluation.evaluate(task, one, dead, state.params, on_train, data)
    assert all(np.isnan(value).all() for value in jax.tree.leaves(told))
