"""Gradient accumulation: against optax.MultiSteps, and against the same step without parts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from compare import close, same_bits
from weightdecay.core import random_streams
from weightdecay.data import batches
from weightdecay.models import network as networks

DATA = wd.data.digits(num_train=120)
MODEL = wd.models.MLP((6,), num_outputs=10)
SHORT = {"num_steps": 8, "batch_size": 24, "eval_every": 4, "progress": False}
# Eight steps in float32, with sums in another order; the first steps of Adam divide by small numbers.
TOLERANCE = {"rtol": 2e-3, "atol": 2e-4}


def initial_weights(model, seed):
    return networks.network(model).init(random_streams.key(seed, random_streams.INITIAL_WEIGHTS), DATA.train[0][:1])


def batches_of(seed, num_steps=8):
    return batches.Orders(24, DATA.batches()["train"])((seed, -1), 0, num_steps)


@pytest.mark.slow
def test_steps_are_those_of_multisteps_of_optax():
    result = wd.fit(MODEL, DATA, decay=wd.NoDecay(), learning_rate=0.03, seed=3, accumulate=4, **SHORT)
    optimizer = optax.MultiSteps(optax.adam(0.03), every_k_schedule=4)
    params = initial_weights(MODEL, 3)[0]
    state = optimizer.init(params)

    @jax.jit
    def micro_step(params, state, inputs, targets):
        def loss(params):
            outputs = MODEL.apply({"params": params}, inputs)
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    inputs, targets = DATA.train
    for rows in batches_of(3):
        for part in rows.reshape(4, 6):
            params, state = micro_step(params, state, inputs[part], targets[part])
    close(result.params(), params, **TOLERANCE)
    assert result.settings["accumulate"] == 4


def fit_with_ignored(data, grid, **settings):
    with pytest.warns(UserWarning, match="targets below 0"):
        return wd.fit_grid(MODEL, data, grid, **settings)


@pytest.mark.slow
def test_a_step_is_that_without_parts():
    """With decay, weights of examples, targets that do not count (unequal numbers in each part) and mixed examples."""
    rng = np.random.default_rng(0)
    inputs, labels = DATA.train
    labels = np.where((rng.random(120) < 0.5) & (np.arange(120) > 30), -1, labels).astype(np.int32)
    data = wd.Data(train=(inputs, labels, rng.uniform(0.5, 2, 120)), validation=DATA.validation)
    grid = wd.Grid(
        decay=[wd.L2(0.1), wd.Decoupled(0.1)], learning_rate=[0.1], mixup=[0.4], label_smoothing=[0.1], clip_norm=[1.0]
    )
    settings = {**SHORT, "num_steps": 4, "eval_every": 4, "optimizer": wd.sgd}
    whole, parts = (fit_with_ignored(data, grid, accumulate=number, **settings) for number in (1, 6))
    for member in range(2):
        close(parts.params(member), whole.params(member), rtol=1e-4, atol=1e-5)
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(parts.dataset[name], whole.dataset[name], rtol=1e-4)


@pytest.mark.slow
def test_a_step_of_real_targets_is_that_without_parts():
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(40, 3)).astype(np.float32)
    data = wd.Data(train=(inputs, inputs @ [1.0, 2.0, 3.0], rng.uniform(size=40)), validation=(inputs, inputs[:, 0]))
    settings = {**SHORT, "num_steps": 4, "batch_size": None, "optimizer": wd.sgd}
    one, parts = (
        wd.fit(wd.models.MLP(()), data, decay=wd.L2(0.1), learning_rate=0.1, accumulate=accumulate, **settings)
        for accumulate in (1, 5)
    )
    close(parts.params(), one.params(), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_batch_statistics_advance_with_every_part():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, inputs, train: bool):
            return nn.Dense(10)(nn.BatchNorm(use_running_average=not train, momentum=0.5)(nn.Dense(5)(inputs)))

    model = Normalized()
    settings = {**SHORT, "num_steps": 2, "optimizer": wd.sgd}
    result = wd.fit(model, DATA, decay=wd.NoDecay(), learning_rate=0.1, accumulate=3, **settings)
    params, state = initial_weights(model, 0)

    @jax.jit
    def gradient(params, state, inputs, targets):
        def loss(params):
            outputs, after = model.apply({"params": params, **state}, inputs, train=True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(outputs, targets).mean(), after

        return jax.grad(loss, has_aux=True)(params)

    inputs, targets = DATA.train
    for rows in batches_of(0, 2):
        total = jax.tree.map(jnp.zeros_like, params)
        for part in rows.reshape(3, 8):
            gradients, state = gradient(params, state, inputs[part], targets[part])
            total = jax.tree.map(jnp.add, total, gradients)
        params = jax.tree.map(lambda w, g: w - 0.1 * g / 3, params, total)
    close(result.model_state(), state, rtol=1e-4, atol=1e-5)
    close(result.params(), params, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_part_has_a_random_key_of_its_own():
    """The gradient is the number that the network draws: the weight falls by the mean of three numbers a step."""
    model = wd.Model(
        init=lambda key, inputs: {"w": jnp.zeros(1)},
        apply=lambda params, inputs, key, train: params["w"] * jax.random.uniform(key) * jnp.ones(len(inputs)),
    )
    targets = np.zeros(120, np.float32)
    data = wd.Data(train=(DATA.train[0], targets), validation=(DATA.train[0], targets))
    settings = {**SHORT, "num_steps": 2, "optimizer": wd.sgd, "loss": lambda outputs, targets: outputs}
    settings["mask"] = wd.masks.everything
    result = wd.fit(model, data, decay=wd.NoDecay(), learning_rate=1.0, seed=5, accumulate=3, **settings)
    of_run = random_streams.key(5, random_streams.FORWARD_PASS)
    drawn = [
        jax.random.uniform(jax.random.fold_in(jax.random.fold_in(of_run, step), part))
        for step in range(2)
        for part in range(3)
    ]
    assert len(set(map(float, drawn))) == 6
    np.testing.assert_allclose(result.params()["w"], [-np.sum(drawn) / 3], rtol=1e-5)


@pytest.mark.slow
def test_members_diverge_resume_and_stream_as_without_parts(tmp_path):
    grid = wd.Grid(learning_rate=[0.1, 1e30], seed=range(2), ema=[0.5])
    settings = {**SHORT, "optimizer": wd.sgd, "accumulate": 2}
    whole = wd.fit_grid(MODEL, DATA, grid, **settings)
    wd.fit_grid(MODEL, DATA, grid, **{**settings, "num_steps": 4}, directory=tmp_path / "run")
    resumed = wd.fit_grid(MODEL, DATA, grid, **settings, directory=tmp_path / "run")
    plan = wd.Plan(whole.settings["plan"]["lane_width"], 1, streamed=True)
    streamed = wd.fit_grid(MODEL, DATA, grid, **settings, plan=plan)
    np.testing.assert_array_equal(whole.dataset["diverged_at"].values > 0, [False, False, True, True])
    for member in range(4):
        same_bits(resumed.params(member), whole.params(member))
        same_bits(streamed.params(member), whole.params(member))
    with pytest.raises(ValueError, match="accumulate was 2 and is 4"):
        wd.fit_grid(MODEL, DATA, grid, **{**settings, "accumulate": 4}, directory=tmp_path / "run")


@pytest.mark.slow
def test_a_plan_counts_the_memory_of_a_part():
    data = wd.data.digits(num_train=720)
    grid = wd.Grid(learning_rate=[0.1])
    settings = {"num_steps": 2, "batch_size": 720, "calibrate": False, "optimizer": wd.sgd}
    model = wd.models.MLP((64, 64, 64))
    one, parts = (wd.plan(model, data, grid, accumulate=accumulate, **settings) for accumulate in (1, 8))
    assert parts.lane_width > one.lane_width
    of_member = [made.forecast.device_bytes / made.lane_width for made in (one, parts)]
    assert of_member[1] < 0.75 * of_member[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accumulate": 5}, "accumulate is 5, which does not divide batch_size, 24; give a divisor"),
        ({"accumulate": 7, "batch_size": None}, "accumulate is 7, which does not divide all 120 training examples"),
        ({"accumulate": 0}, "accumulate is 0; give an integer of at least 1"),
    ],
)
def test_parts_that_are_not_equal_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        wd.fit_grid(MODEL, DATA, wd.Grid(learning_rate=[0.1]), **{**SHORT, **settings})
