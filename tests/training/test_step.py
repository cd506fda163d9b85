"""One member: the order of its batches, and its evaluation."""

import jax
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay import models
from weightdecay.core.types import Batch
from weightdecay.data.batches import Orders
from weightdecay.decay import masks
from weightdecay.training import evaluation, losses
from weightdecay.training import step as training
from weightdecay.training import task as tasks


def make_task(batch_size=None):
    return tasks.Task(
        models.MLP((5,), num_outputs=10), losses.resolve("softmax_cross_entropy", np.zeros(1, int)), wd.adam,
        masks.kernels, batch_size,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("num_examples", [1, 127, 128, 129, 1000])
def test_score_is_the_plain_mean_whatever_the_chunks(num_examples):
    task = make_task()
    whole = wd.data.digits()
    data = Batch(whole.train[0][:num_examples], whole.train[1][:num_examples])
    params, model_state = task.network().init(jax.random.key(0), data.inputs[:1])
    outputs = task.model.apply({"params": params}, data.inputs)
    hyperparameters = tasks.Hyperparameters(wd.NoDecay(), np.float32(1e-3), np.int32(0), {})
    score = evaluation.score(task, hyperparameters, params, model_state, data)
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, data.targets).mean()
    np.testing.assert_allclose(score["loss"], expected, rtol=1e-5)  # another order of sums in float32
    np.testing.assert_allclose(score["accuracy"], (outputs.argmax(axis=1) == data.targets).mean(), rtol=1e-6)


@pytest.mark.slow
def test_train_marks_the_step_whose_loss_is_not_finite():
    task = make_task(batch_size=20)
    data = Batch(*wd.data.digits(num_train=100).train)
    hyperparameters = tasks.Hyperparameters(wd.NoDecay(), np.float32(1e30), np.int32(0), {})
    state = training.initialize(task, hyperparameters, data.inputs[:1])
    rows = Orders(20, data)((0, -1), 0, 10)

    @jax.jit
    def advance(state, rows):
        examples = training.Examples(data, rows, None)
        trained = training.train(task, hyperparameters, state, examples, 1)
        return training.repeat(task, hyperparameters, *trained, examples, 1)[0]

    score = jax.jit(
        lambda state: evaluation.score(task, hyperparameters, state.params, state.model_state, data)["loss"]
    )
    seen = []
    for step in range(5):
        state = advance(state, rows[step : step + 1])
        loss = score(state)
        seen.append((int(state.diverged_at), bool(np.isfinite(loss))))
    # A step of 1e30 makes products beyond float32 in the next forward pass: the first steps are marked, and stay.
    first = next(step for step, (marked, _) in enumerate(seen) if marked >= 0)
    assert [marked for marked, _ in seen] == [-1] * first + [first] * (5 - first)
    assert not seen[first][1]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("targets", ["classes", "real"])
def test_statistics_keep_their_dtype_in_double_precision(dtype, targets):
    """Folds and batch normalization: statistics of float64 values are stored in the float32 of the model."""
    random = np.random.default_rng(0)
    inputs = random.normal(size=(60, 4)).astype(dtype)
    targets = (inputs[:, 0] > 0).astype(int) if targets == "classes" else inputs[:, 0]
    model = models.MLP((4,), normalization="batch")
    settings = {"num_steps": 4, "batch_size": 8, "progress": False, "optimizer": wd.sgd}
    with jax.enable_x64(True):
        folds = wd.data.folds(inputs, targets, num_folds=3)
        result = wd.fit_grid(model, folds, wd.Grid(learning_rate=[0.1], fold=range(3)), **settings)
        assert np.isfinite(result.dataset["validation_loss"].values[:, -1]).all()
        given = wd.Data(train=(inputs, targets), validation=(inputs, targets))
        result = wd.fit_grid(model, given, wd.Grid(learning_rate=[0.1]), **settings)
        assert np.isfinite(result.dataset["validation_loss"].values[:, -1]).all()
        assert {leaf.dtype for leaf in jax.tree.leaves(result.params(0))} == {np.dtype(np.float32)}
