"""Members that diverge or stop early: frozen where they were, while their neighbours do not notice.

Oracles: a loop of optax steps by hand, which looks at every number; and the curves of members without patience, from
which NumPy says where patience would have ended.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from compare import same_bits
from weightdecay.core import metrics as metric_table
from weightdecay.engine import training_workload
from weightdecay.engine.plans import Plan
from weightdecay.training import step as training
from weightdecay.training import task as tasks
from weightdecay.training.step import Examples
from weightdecay.training.task import Hyperparameters

DATA = wd.data.digits(num_train=100)
MODEL = wd.models.MLP((8,))
SETTINGS = {"num_steps": 60, "batch_size": 20, "eval_every": 5, "progress": False}
PATIENT = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(2.0), wd.L1(0.05)], learning_rate=[0.03, 0.3], seed=range(2))


def loop(task, hyperparameters, num_steps, data, order):
    """Steps of optax one by one: where a number first was not finite, and the weights before that."""
    state = training.initialize(task, hyperparameters, data.inputs[:1])
    network, optimizer = task.network(), task.transformation(hyperparameters)

    def loss(params, rows):
        outputs, _ = network.apply(params, {}, data.inputs[rows], key=jax.random.key(0), train=True)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, data.targets[rows]).mean()

    @jax.jit
    def step(params, optimizer_state, rows):
        value, gradients = jax.value_and_grad(loss)(params, rows)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return value, gradients, optax.apply_updates(params, updates), optimizer_state

    params, optimizer_state = state.params, state.optimizer_state
    for number in range(num_steps):
        value, gradients, after, optimizer_state = step(params, optimizer_state, order[number])
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradients, after))):
            return number, params
        params = after
    return -1, params


@pytest.mark.slow
@pytest.mark.parametrize("learning_rate", [1e-2, 1e2, 3e4, 1e12, 1e37])
@pytest.mark.parametrize("num_steps", [7, 75])
def test_train_freezes_at_the_last_finite_state(learning_rate, num_steps):
    splits = jax.tree.map(jnp.asarray, DATA.batches())
    momentum = {"momentum": jnp.float32(0.9)}
    task = tasks.prepare(MODEL, splits, loss=None, optimizer=wd.sgd, mask=wd.masks.kernels, batch_size=20)
    hyperparameters = Hyperparameters(wd.L2(jnp.float32(0.1)), jnp.float32(learning_rate), jnp.int32(0), momentum)
    order = np.random.default_rng(0).integers(0, 100, (num_steps, 20)).astype(np.int32)
    state = training.initialize(task, hyperparameters, splits["train"].inputs[:1])
    examples = Examples(splits["train"], order, None)

    @jax.jit
    def train(one, state):
        trained = training.train(task, one, state, examples, num_steps)
        return training.repeat(task, one, *trained, examples, num_steps)

    trained, previous = train(hyperparameters, state)
    died, params = loop(task, hyperparameters, num_steps, splits["train"], order)
    assert int(trained.diverged_at) == died
    assert int(trained.step) == (num_steps if died < 0 else died)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((trained.params, trained.optimizer_state, previous)))
    # Sums in another order, and a step's factor of up to 1e12 on what is rounded.
    for ours, theirs in zip(jax.tree.leaves(trained.params), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=1e-5)


@pytest.mark.slow
def test_train_freezes_where_the_gradient_alone_is_not_finite():
    def init(key, inputs):
        return {"w": jnp.ones(())}

    def apply(params, inputs):
        return inputs[:, 0] * jnp.sqrt(jnp.maximum(params["w"] - 1.0, 0.0))  # 0 at w = 1, with an infinite slope

    inputs = np.ones((4, 1), np.float32)
    data = wd.Data((inputs, np.ones(4, np.float32)), (inputs, np.ones(4, np.float32)))
    for optimizer in (wd.sgd, wd.lion):
        result = wd.fit(
            wd.Model(init, apply), data, decay=wd.NoDecay(), learning_rate=0.1, optimizer=optimizer,
            mask=wd.masks.everything, num_steps=40, batch_size=None, progress=False,
        )  # fmt: skip
        assert int(result.dataset["diverged_at"][0]) == 0
        assert result.params()["w"] == 1.0


@pytest.mark.slow
def test_train_freezes_where_the_loss_alone_is_not_finite():
    def init(key, inputs):
        return {"w": jnp.ones(())}

    def apply(params, inputs):
        return inputs[:, 0] * params["w"]

    def loss(outputs, targets):
        return outputs + jnp.where(outputs < 0.55, jnp.inf, 0.0)  # infinite, with a gradient of 1

    inputs = np.ones((4, 1), np.float32)
    data = wd.Data((inputs, np.ones(4, np.float32)), (inputs, np.ones(4, np.float32)))
    result = wd.fit(
        wd.Model(init, apply), data, decay=wd.NoDecay(), learning_rate=0.1, optimizer=wd.sgd, loss=loss,
        mask=wd.masks.everything, num_steps=40, batch_size=None, progress=False,
    )  # fmt: skip
    assert int(result.dataset["diverged_at"][0]) == 5
    np.testing.assert_allclose(result.params()["w"], 0.5, rtol=1e-6)  # five steps of 0.1 in float32


@pytest.mark.slow
def test_a_dead_member_has_finite_weights_and_nan_metrics_and_is_never_chosen():
    grid = wd.Grid(learning_rate=[1e-2, 1e30], seed=range(2))
    result = wd.fit_grid(MODEL, DATA, grid, **SETTINGS)
    dead = result.dataset["learning_rate"].values > 1
    np.testing.assert_array_equal(result.dataset["diverged_at"].values >= 0, dead)
    for number in np.flatnonzero(dead):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params(number)))
        assert np.isnan(result.dataset["validation_loss"].values[number]).all()
        assert np.isnan(result.dataset["weight_norm"].values[number]).all()
    for metric in ("validation_loss", "validation_accuracy"):
        for criterion in ("best_mean", "one_standard_error"):
            assert result.best(criterion, metric=metric).hyperparameters["learning_rate"] == 1e-2


@pytest.mark.slow
def test_a_grid_in_which_every_member_dies_says_so():
    result = wd.fit_grid(MODEL, DATA, wd.Grid(learning_rate=[1e30, 1e35], seed=range(2)), **SETTINGS)
    assert (result.dataset["diverged_at"].values >= 0).all()
    assert "all of them diverged" in repr(result)
    assert result.table()["diverged"].tolist() == [2, 2]
    with pytest.raises(
        ValueError, match=r"every one of the 4 members diverged, the last at step \d; lower the learning rates"
    ):
        result.best()


def patience_by_hand(curve, patience):
    """Number of the evaluation that stops, or None, and of the best until then."""
    best, waited = 0, 0
    for number, value in enumerate(curve):
        if number == 0 or value < curve[best]:
            best, waited = number, 0
        else:
            waited += 1
        if waited >= patience:
            return number, best
    return None, best


@pytest.fixture(scope="module")
def plain():
    return wd.fit_grid(MODEL, DATA, PATIENT, **SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["validation_loss", "validation_accuracy"])
@pytest.mark.parametrize("patience", [1, 3])
def test_patience_stops_where_the_curve_says(plain, metric, patience):
    stopping = wd.fit_grid(MODEL, DATA, PATIENT, patience=patience, stopping_metric=metric, **SETTINGS)
    steps = plain.dataset["step"].values
    curves = plain.dataset[metric].values * (-1 if metric == "validation_accuracy" else 1)
    expected = [patience_by_hand(curve, patience) for curve in curves]
    stops = [-1 if stop is None else steps[stop] for stop, _ in expected]
    assert -1 < max(stops)
    assert stopping.dataset["stopped_at"].values.tolist() == stops
    assert stopping.dataset["best_step"].values.tolist() == [steps[best] for _, best in expected]
    for name in metric_table.recorded():
        before, after = plain.dataset[name].values, stopping.dataset[name].values
        for member, (stop, best) in enumerate(expected):
            until = len(steps) - 1 if stop is None else min(stop + 1, len(steps) - 1)
            np.testing.assert_array_equal(after[member, :until], before[member, :until])
            np.testing.assert_array_equal(after[member, until:], before[member, best])


@pytest.mark.slow
def test_patience_keeps_the_weights_of_the_best_evaluation(plain):
    stopping = wd.fit_grid(MODEL, DATA, PATIENT, patience=2, **SETTINGS)
    for number, member in enumerate(PATIENT):
        best = int(stopping.dataset["best_step"][number])
        assert best < 60 or stopping.dataset["stopped_at"][number] == -1
        alone = wd.Grid(**{name: [value] for name, value in member.items()})
        short = wd.fit_grid(MODEL, DATA, alone, **{**SETTINGS, "num_steps": best})
        same_bits(stopping.params(number), short.params())
        scored = short.dataset.isel(step=-1, member=0)["validation_loss"].values
        assert stopping.dataset["validation_loss"].values[number, -1] == scored


@pytest.mark.slow
def test_patience_of_a_member_that_dies_keeps_its_last_finite_weights():
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e30])
    result = wd.fit_grid(MODEL, DATA, grid, patience=1, **SETTINGS)
    assert int(result.dataset["diverged_at"][0]) >= 0
    assert int(result.dataset["stopped_at"][0]) == -1
    assert np.isnan(result.dataset["validation_loss"].values).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.params()))


@pytest.mark.slow
def test_a_lane_without_a_living_member_takes_no_more_steps(monkeypatch):
    taken = []
    segment = training_workload.TrainingDevice.segment

    def counted(self, *arguments):
        taken.append(arguments[-1])
        return segment(self, *arguments)

    monkeypatch.setattr(training_workload.TrainingDevice, "segment", counted)
    grid = wd.Grid(learning_rate=[1e30, 1e31], seed=range(2))
    result = wd.fit_grid(MODEL, DATA, grid, plan=Plan(4, 1), **SETTINGS)
    assert max(taken) <= 10  # one stretch of five steps, and one made ready beside it
    assert result.dataset.sizes["step"] == 12


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"patience": 0}, "patience is 0; give a number of evaluations of at least 1"),
        ({"patience": True}, "patience is True"),
        ({"patience": -1}, "patience is -1"),
        (
            {"patience": 2, "stopping_metric": "train_loss"},
            "stopping_metric is 'train_loss'; give one of validation_accuracy, validation_loss",
        ),
    ],
)
def test_patience_refuses_what_is_none(wrong, told):
    with pytest.raises(ValueError, match=told):
        wd.fit_grid(MODEL, DATA, PATIENT, **{**SETTINGS, **wrong})
