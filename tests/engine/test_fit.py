"""Whole grids: a member is the same run whatever stands beside it, and a grid is one compiled program."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay.data import batches
from weightdecay.decay import masks
from weightdecay.engine import lane_programs, progress_bar
from weightdecay.engine.plans import Plan

DATA = wd.data.digits(num_train=150)
# Odd widths, so that no array fills whole vector registers.
MODEL = wd.models.MLP((13, 7))
SHORT = {"num_steps": 24, "batch_size": 32, "eval_every": 10, "progress": False}
GRID = {
    "decay": [wd.NoDecay(), wd.L2(0.01), wd.L1(0.001), wd.ProximalL1(0.001), wd.Decoupled(1.0), wd.Independent(0.002)],
    "learning_rate": [1e-3, 1e-2],
    "seed": [0, 5],
}


@pytest.fixture(scope="module")
def result():
    return wd.fit_grid(MODEL, DATA, wd.Grid(**GRID), **SHORT)


def members(result):
    """Everything a member is, by its hyperparameters."""
    return {
        (str(one["decay"]), one["learning_rate"], one["seed"]): (
            result.params(index),
            {name: result.dataset[name].values[index] for name in result.dataset.data_vars},
        )
        for index, one in enumerate(result.members)
    }


def assert_same_bits(ours, theirs):
    shared = ours.keys() & theirs.keys()
    assert shared
    for key in shared:
        for one, other in zip(jax.tree.leaves(ours[key]), jax.tree.leaves(theirs[key]), strict=True):
            assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), key


@pytest.mark.slow
def test_fit_grid_permuted_grid_has_the_same_bits(result):
    permuted = {name: list(reversed(values)) for name, values in GRID.items()}
    assert_same_bits(members(result), members(wd.fit_grid(MODEL, DATA, wd.Grid(**permuted), **SHORT)))


@pytest.mark.slow
def test_fit_grid_part_of_a_grid_has_the_same_bits(result):
    part = {"decay": [wd.L1(0.001), wd.Decoupled(1.0), wd.L2(0.5)], "learning_rate": [1e-2], "seed": [5, 6, 7]}
    assert_same_bits(members(result), members(wd.fit_grid(MODEL, DATA, wd.Grid(**part), **SHORT)))


def test_fit_alone_has_the_same_bits(result):
    alone = wd.fit(MODEL, DATA, decay=wd.ProximalL1(0.001), learning_rate=1e-2, seed=5, **SHORT)
    assert len(alone) == 1
    assert_same_bits(members(result), members(alone))
    np.testing.assert_array_equal(alone.params()["Dense_0"]["kernel"], alone.params(0)["Dense_0"]["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("num_devices", [1, 3, 8])
def test_fit_grid_any_number_of_devices_has_the_same_bits(result, num_devices):
    plan = Plan(lane_width=result.settings["plan"]["lane_width"], num_devices=num_devices)
    assert_same_bits(members(result), members(wd.fit_grid(MODEL, DATA, wd.Grid(**GRID), plan=plan, **SHORT)))


@pytest.mark.slow
def test_fit_grid_shorter_stretches_have_the_same_bits(result):
    plan = Plan(result.settings["plan"]["lane_width"], num_devices=2, steps_per_call=3)
    assert_same_bits(members(result), members(wd.fit_grid(MODEL, DATA, wd.Grid(**GRID), plan=plan, **SHORT)))


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", [3, 1000])
def test_fit_grid_streamed_from_the_host_has_the_same_bits(result, steps_per_call):
    plan = Plan(result.settings["plan"]["lane_width"], 2, steps_per_call=steps_per_call, streamed=True)
    streamed = wd.fit_grid(MODEL, DATA, wd.Grid(**GRID), plan=plan, **SHORT)
    assert_same_bits(members(result), members(streamed))


@pytest.mark.slow
def test_fit_grid_streams_what_is_above_the_memory_budget(result):
    budget = DATA.train[0].nbytes // 2
    streamed = wd.fit_grid(MODEL, DATA, wd.Grid(**GRID), memory_budget=budget, **SHORT)
    layout = streamed.settings["plan"]
    assert layout["streamed"]
    # Two stretches of batches for each member of a lane stay within the budget.
    batch = 32 * (DATA.train[0][0].nbytes + DATA.train[1][0].nbytes)
    assert 2 * layout["lane_width"] * layout["steps_per_call"] * batch <= budget or layout["steps_per_call"] == 1
    assert_same_bits(members(result), members(streamed))


@pytest.mark.slow
def test_fit_grid_plan_of_a_result_gives_its_numbers_again(result):
    again = Plan(**result.settings["plan"])
    part = wd.Grid(decay=[wd.Decoupled(1.0)], learning_rate=[1e-2], seed=[5])
    assert_same_bits(members(result), members(wd.fit_grid(MODEL, DATA, part, plan=again, **SHORT)))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_fit_grid_trains_in_float64_where_that_is_switched_on():
    linear = wd.Model(
        init=lambda key, inputs: jax.random.normal(key, (inputs.shape[1], 10)), apply=lambda params, x: x @ params
    )
    grid = wd.Grid(decay=[wd.L2(0.01)], learning_rate=1e-2, seed=range(3))
    wide = wd.fit_grid(linear, DATA, grid, mask=masks.everything, **SHORT)
    assert wide.params(2).dtype == np.float64
    alone = wd.fit(linear, DATA, decay=wd.L2(0.01), learning_rate=1e-2, seed=2, mask=masks.everything, **SHORT)
    assert_same_bits(members(wide), members(alone))


@pytest.mark.slow
def test_fit_grid_computes_in_bfloat16_and_carries_float32(result):
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(1.0)], learning_rate=1e-2, seed=[0])
    seen = []

    class Watched(nn.Module):
        @nn.compact
        def __call__(self, inputs, train: bool):
            hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(13)(inputs))
            seen.append((inputs.dtype, hidden.dtype))
            return nn.Dense(10)(nn.relu(hidden))

    narrow = wd.fit_grid(Watched(), DATA, grid, dtype=jnp.bfloat16, **SHORT)
    assert narrow.settings["dtype"] == "bfloat16"
    assert (jnp.bfloat16, jnp.bfloat16) in seen
    assert {leaf.dtype for leaf in jax.tree.leaves((narrow.params(1), narrow.model_state(1)))} == {np.dtype(np.float32)}
    wide = wd.fit_grid(Watched(), DATA, grid, **SHORT)
    ours, theirs = narrow.dataset["train_loss"].values, wide.dataset["train_loss"].values
    assert not np.array_equal(ours, theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0.05)  # bfloat16 has three digits


@pytest.mark.slow
def test_fit_grid_progress_counts_every_member_step_once(monkeypatch):
    told = []
    monkeypatch.setattr(progress_bar, "progress_bar", lambda total, *_, **__: Bar(total, told))
    grid = wd.Grid(decay=wd.logspace(wd.L2, 1e-4, 1e-1, 19), learning_rate=1e-3)
    wd.fit_grid(MODEL, DATA, grid, plan=Plan(8, 2), **SHORT)
    assert told[0] == 19 * 24
    assert sum(told[1:]) == 19 * 24
    assert set(told[1:]) == {8 * 10, 8 * 4, 3 * 10, 3 * 4}  # lanes of 8, 8 and 3, a stretch at a time


class Bar:
    def __init__(self, total, told):
        told.append(total)
        self.update = told.append

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.mark.slow
def test_fit_grid_stops_its_devices_where_one_fails(monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr("weightdecay.storage.training_records.TrainingRecords.write_members", fail)
    with pytest.raises(OSError, match="disk full"):
        wd.fit_grid(MODEL, DATA, wd.Grid(**GRID), **SHORT)


@pytest.mark.slow
def test_fit_grid_member_beside_one_that_diverges_has_the_same_bits(result):
    wild = {**GRID, "learning_rate": [1e-2, 1e30]}
    beside = wd.fit_grid(MODEL, DATA, wd.Grid(**wild), **SHORT)
    assert_same_bits(members(result), members(beside))
    died = beside.dataset.where(beside.dataset["learning_rate"] > 1, drop=True)
    assert (died["diverged_at"] >= 0).all()
    assert (result.dataset["diverged_at"] == -1).all()
    assert beside.best().hyperparameters["learning_rate"] == 1e-2


def test_fit_grid_differs_where_it_should(result):
    by_member = members(result)
    kernel = {key: params["Dense_0"]["kernel"] for key, (params, _) in by_member.items()}
    assert len({value.tobytes() for value in kernel.values()}) == len(kernel)


CARRYING = [
    wd.TowardAnchor(0.1),
    (wd.Spectral(0.1), wd.Masked(wd.Constrained(1.0, 0.01, warm_start=3), masks.first)),
    (wd.L2(wd.schedules.Linear(0.1, 0.0, 20)), wd.ProximalL1(wd.PerLayer({"Dense_0": 1e-3, ".*": 1e-4}))),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decay", "make"),
    [
        (wd.Decoupled(1.0), lambda mask: optax.adamw(1e-2, weight_decay=1.0, mask=mask)),
        (wd.L2(0.01), lambda mask: optax.chain(optax.add_decayed_weights(0.01, mask), optax.adam(1e-2))),
        (wd.NoDecay(), lambda mask: optax.adam(1e-2)),
        # Rules that carry something, change with the step, or act on weights of their own: beside one update at a time.
        *((decay, lambda mask, decay=decay: wd.adam(1e-2, decay)) for decay in CARRYING),
    ],
)
def test_fit_equals_a_loop_written_by_hand(decay, make):
    num_steps, batch_size, seed = 30, 32, 3
    inputs, targets = DATA.train
    model = wd.models.MLP((13,), num_outputs=10)
    order = batches.Orders(batch_size, DATA.batches()["train"])((seed, -1), 0, num_steps)
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), 0)
    params = model.init(jax.random.split(key)[0], inputs[:1])["params"]
    step = make({name: {"kernel": True, "bias": False} for name in params})
    state = step.init(params)

    @jax.jit
    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(model.apply({"params": params}, x), y).mean()

    @jax.jit
    def advance(params, state, x, y):
        updates, state = step.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    for rows in order:
        params, state = advance(params, state, inputs[rows], targets[rows])

    ours = wd.fit(
        model,
        DATA,
        decay=decay,
        learning_rate=1e-2,
        seed=seed,
        num_steps=num_steps,
        batch_size=batch_size,
        progress=False,
    )
    # Thirty steps of Adam in float32: the order of sums differs between the programs.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-4), ours.params(), params)
    validation = loss(params, *DATA.validation)
    np.testing.assert_allclose(ours.dataset["validation_loss"].values[0, -1], validation, rtol=1e-3)


def count_traces(grid, **settings):
    traces = []

    def loss_fn(outputs, targets):
        traces.append(outputs.shape)
        return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)

    result = wd.fit_grid(wd.models.MLP((5,), num_outputs=10), DATA, grid, loss=loss_fn, **{**SHORT, **settings})
    return len(traces), result.settings["compiled_programs"]


@pytest.mark.slow
def test_fit_grid_mixed_kinds_of_any_number_are_one_compiled_program():
    alone = count_traces(wd.Grid(decay=[wd.L2(0.1)], learning_rate=[1e-3]))
    kinds = [wd.L2, wd.L1, wd.ProximalL1, wd.Decoupled, wd.Independent, wd.ProximalL2]
    mixed = [rule for kind in kinds for rule in wd.logspace(kind, 1e-5, 1e-2, 2)]
    mixed += [wd.ElasticNet(1e-3, 1e-2), wd.ProximalElasticNet(1e-3, 1e-2)]
    assert alone[1] == 1
    assert count_traces(wd.Grid(decay=mixed, learning_rate=[1e-3, 1e-2], seed=range(2))) == alone
    assert count_traces(wd.Grid(decay=mixed, learning_rate=[1e-3]), num_steps=61, eval_every=7) == alone


@pytest.mark.slow
def test_fit_grid_compiles_as_often_for_any_grid(monkeypatch):
    """Compilations are counted where JAX hands a program to XLA."""
    monkeypatch.setenv("WEIGHTDECAY_COMPILATION_CACHE", "off")
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))

    def count(**axes):
        compiled.clear()
        # A mask of its own keeps programs of other runs from serving this one.
        own = {"mask": lambda params: masks.kernels(params), "plan": Plan(4, 2)}
        wd.fit_grid(wd.models.MLP((11,), num_outputs=10), DATA, wd.Grid(learning_rate=[1e-3], **axes), **own, **SHORT)
        return compiled.count("/jax/core/compile/backend_compile_duration")

    count(seed=range(2))  # JAX's own small programs
    small = count(decay=[wd.L2(0.1)])
    large = count(decay=[wd.NoDecay(), *wd.logspace(wd.L1, 1e-5, 1e-1, 20)], seed=range(3))
    assert small == large
    assert small == 3  # first weights, training and evaluation, once for two devices


@pytest.mark.slow
def test_fit_grid_option_of_the_optimizer_is_a_structure_and_a_number_is_not():
    grid = wd.Grid(decay=[wd.L2(0.01)], learning_rate=[0.1], momentum=[0.0, 0.5, 0.9], nesterov=[False, True])
    result = wd.fit_grid(MODEL, DATA, grid, optimizer=wd.sgd, **SHORT)
    assert result.settings["compiled_programs"] == 2
    np.testing.assert_allclose(result.dataset["momentum"], [0.0, 0.0, 0.5, 0.5, 0.9, 0.9])
    losses = result.dataset["train_loss"].values[:, -1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)  # without momentum there is nothing to look ahead with
    assert len(np.unique(losses.round(6))) == 5
    assert result.table()["momentum"].tolist() == result.dataset["momentum"].values.tolist()


def test_fit_grid_dataset_has_the_promised_schema(result):
    dataset = result.dataset
    assert dict(dataset.sizes) == {"member": 24, "step": 3, "layer": 3}
    assert dataset["step"].values.tolist() == [10, 20, 24]
    dims = {name: values.dims for name, values in dataset.data_vars.items()}
    told = (
        "train_loss", "penalty", "train_accuracy", "validation_loss", "validation_accuracy", "weight_norm",
        "zero_fraction", "near_zero_fraction", "time_scale_epochs",
    )  # fmt: skip
    by_layer = (
        "layer_weight_norm", "layer_zero_fraction", "rotation", "effective_learning_rate", "predicted_rotation",
    )  # fmt: skip
    marks = ("diverged_at", "stopped_at", "best_step", "decaying_fraction", "degrees_of_freedom")
    assert dims == {
        **dict.fromkeys(told, ("member", "step")),
        **dict.fromkeys(by_layer, ("member", "step", "layer")),
        **dict.fromkeys(marks, ("member",)),
    }
    assert set(dataset.coords) == {
        "member", "step", "layer", "decay", "coefficient", "learning_rate", "seed", "candidate",
    }  # fmt: skip
    assert dataset["layer"].values.tolist() == ["Dense_0/kernel", "Dense_1/kernel", "Dense_2/kernel"]
    assert dataset["decay"].values[:5].tolist() == ["NoDecay"] * 4 + ["L2"]
    assert np.isnan(dataset["coefficient"].values[:4]).all()
    assert dataset["candidate"].values.tolist() == [index // 2 for index in range(24)]
    assert (dataset["stopped_at"] == -1).all()


@pytest.mark.slow
def test_fit_grid_penalty_is_apart_from_the_data_loss(result):
    dataset = result.dataset
    shrinks_beside = dataset["decay"].isin(["NoDecay", "Decoupled", "Independent"])
    assert (dataset["penalty"].where(shrinks_beside, drop=True) == 0).all()
    l2 = dataset.where(dataset["decay"] == "L2", drop=True)
    # Both are sums over the same weights in float32.
    np.testing.assert_allclose(l2["penalty"], 0.01 * l2["weight_norm"] ** 2 / 2, rtol=1e-5)
    outputs = MODEL.clone(num_outputs=10).apply({"params": result.params(4)}, DATA.train[0])
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, DATA.train[1]).mean()
    np.testing.assert_allclose(dataset["train_loss"].values[4, -1], expected, rtol=1e-5)
    assert (dataset["zero_fraction"].where(dataset["decay"] == "ProximalL1", drop=True) > 0).any()


class Convolutional(nn.Module):
    """What a user brings: batch statistics, dropout, and flax's own flag."""

    @nn.compact
    def __call__(self, inputs, train: bool):
        hidden = inputs.reshape(-1, 8, 8, 1)
        hidden = nn.Conv(4, (3, 3))(hidden)
        hidden = nn.BatchNorm(use_running_average=not train)(hidden)
        hidden = nn.relu(hidden).reshape(len(inputs), -1)
        hidden = nn.Dropout(0.5, deterministic=not train)(hidden)
        return nn.Dense(10)(hidden)


@pytest.mark.slow
def test_fit_grid_carries_batch_statistics_and_dropout_keys():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.Decoupled(0.1)], learning_rate=[1e-2], seed=range(2))
    result = wd.fit_grid(Convolutional(), DATA, grid, **SHORT)
    alone = wd.fit(Convolutional(), DATA, decay=wd.Decoupled(0.1), learning_rate=1e-2, seed=1, **SHORT)
    mean = result.model_state(3)["batch_stats"]["BatchNorm_0"]["mean"]
    assert np.abs(mean).max() > 1e-3
    np.testing.assert_array_equal(mean, alone.model_state()["batch_stats"]["BatchNorm_0"]["mean"])
    assert_same_bits(members(result), members(alone))
    variables = {"params": result.params(3), **result.model_state(3)}
    outputs = Convolutional().apply(variables, DATA.validation[0], train=False)
    expected = optax.softmax_cross_entropy_with_integer_labels(outputs, DATA.validation[1]).mean()
    np.testing.assert_allclose(result.dataset["validation_loss"].values[3, -1], expected, rtol=1e-4)


@pytest.mark.slow
def test_fit_plain_functions_and_all_examples_in_a_step():
    data = wd.data.diabetes()
    x, y = (np.asarray(a, np.float64) for a in data.train)
    model = wd.Model(init=lambda key, inputs: jnp.zeros(inputs.shape[1]), apply=lambda params, inputs: inputs @ params)
    result = wd.fit(
        model,
        data,
        decay=wd.L2(0.2),
        learning_rate=0.1,
        optimizer=wd.sgd,
        num_steps=600,
        batch_size=None,
        progress=False,
    )
    # The data loss is the squared error without 1/2: its ridge has twice the Gram matrix.
    ridge = np.linalg.solve(2 * x.T @ x / len(x) + 0.2 * np.eye(10), 2 * x.T @ y / len(x))
    np.testing.assert_allclose(result.params(), ridge, atol=1e-5)  # float32
    assert np.isnan(result.dataset["train_accuracy"]).all()
    assert result.table()["generalization_gap"].notna().all()


@pytest.mark.slow
def test_fit_grid_binary_targets_have_an_accuracy():
    data = wd.data.breast_cancer()
    splits = [(x, y.astype(np.float32)) for x, y in (data.train, data.validation)]
    result = wd.fit(
        wd.models.MLP((8,)),
        wd.Data(*splits),
        decay=wd.Decoupled(0.1),
        learning_rate=1e-2,
        loss="sigmoid_cross_entropy",
        num_steps=60,
        batch_size=64,
        progress=False,
    )
    assert result.dataset["validation_accuracy"].values[0, -1] > 0.9


@pytest.mark.slow
def test_fit_grid_coefficient_a_layer_is_a_structure_of_its_own():
    by_layer = wd.L2({"Dense_0": 0.01, "Dense_1": 0.02, "Dense_2": 0.0})
    result = wd.fit_grid(MODEL, DATA, wd.Grid(decay=[wd.L2(0.01), by_layer], learning_rate=1e-2), **SHORT)
    assert result.settings["compiled_programs"] == 2
    assert result.dataset["coefficient[Dense_1]"].values.tolist()[1] == 0.02
    assert np.isnan(result.dataset["coefficient"].values[1])


@pytest.mark.slow
def test_fit_grid_parameters_of_a_schedule_are_numbers_of_one_program():
    grid = wd.Grid(
        decay=[wd.L2(wd.schedules.Linear(start, 0.0, num_steps)) for start in (0.0, 0.1) for num_steps in (5, 20)],
        learning_rate=1e-2,
    )
    result = wd.fit_grid(MODEL, DATA, grid, **SHORT)
    assert result.settings["compiled_programs"] == 1
    np.testing.assert_allclose(result.dataset["coefficient[start]"], [0.0, 0.0, 0.1, 0.1])
    assert len(np.unique(result.dataset["train_loss"].values[:, -1])) == 3  # a start at 0 has no end
    last = result.dataset.isel(step=-1)
    np.testing.assert_allclose(last["penalty"].values[[0, 1, 2]], 0)  # over, or never begun
    assert 0.1 * (20 - 24) < 0 == last["penalty"].values[3]


@pytest.mark.slow
def test_fit_grid_takes_an_optimizer_without_a_metric_or_a_peak():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(0.1), wd.Decoupled(0.1)], learning_rate=1e-3)
    assert wd.fit_grid(MODEL, DATA, grid, optimizer=wd.lion, **SHORT).settings["compiled_programs"] == 1

    def cosine(learning_rate, decay, mask):
        return wd.adam(lambda step: learning_rate * optax.cosine_decay_schedule(1.0, 24)(step), decay, mask=mask)

    assert wd.fit_grid(MODEL, DATA, grid, optimizer=cosine, **SHORT).settings["compiled_programs"] == 1
    sparse = wd.Grid(decay=[wd.NoDecay(), wd.ProximalL1(0.1)], learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"ProximalL1\(.*\) does not work here: the step of Lion is a sign"):
        wd.fit_grid(MODEL, DATA, sparse, optimizer=wd.lion, **SHORT)
    independent = wd.Grid(decay=[wd.Independent(0.1)], learning_rate=1e-3)
    with pytest.raises(ValueError, match="together with a schedule needs the peak of the schedule"):
        wd.fit_grid(MODEL, DATA, independent, optimizer=cosine, **SHORT)


def bad(**changes):
    """Arguments of `fit_grid` with one mistake in them."""
    fine = {"model": MODEL, "data": DATA, "grid": wd.Grid(decay=[wd.L2(0.1)], learning_rate=[1e-3]), **SHORT}
    return {**fine, **changes}


def with_train(inputs=None, targets=None):
    x, y = DATA.train
    return wd.Data((x if inputs is None else inputs, y if targets is None else targets), DATA.validation)


BAD = {
    "grid": (bad(grid=[wd.L2(0.1)]), TypeError, "grid is of type list; give wd.Grid"),
    "no learning rate": (bad(grid=wd.Grid(decay=[wd.L2(0.1)])), ValueError, "no axis learning_rate; add one"),
    "axis": (bad(grid=wd.Grid(learning_rate=1e-3, beta=[0.9])), ValueError,
        "axis 'beta', which nobody takes.*the optimizer .*b1"),
    "model": (bad(model="MLP"), TypeError, "model is 'MLP', of type str; give a flax linen module"),
    "model class": (bad(model=wd.models.MLP), TypeError, "it is a class; give an instance"),
    "data": (bad(data=DATA.train), TypeError, "data is of type tuple; give wd.data.digits"),
    "nan": (bad(data=with_train(np.full((150, 64), np.nan, np.float32))), ValueError,
        r"data.train inputs contain 9600 values that are nan.*remove"),
    "lengths": (bad(data=with_train(targets=np.zeros(3, int))), ValueError,
        "150 inputs and 3 targets; give one target for each example"),
    "words": (bad(data=with_train(targets=np.array(["a"] * 150))), TypeError, "targets have dtype <U1; give numbers"),
    "empty": (bad(data=wd.Data((np.zeros((0, 64)), np.zeros(0, int)), DATA.validation)), ValueError,
        "give one row for each example"),
    "shapes": (bad(data=with_train(np.zeros((150, 63), np.float32))), ValueError,
        r"data.validation has inputs of shape \(examples, \*\(64"),
    "targets": (bad(data=with_train(targets=np.zeros(150, np.float32)), loss="softmax_cross_entropy"), ValueError,
        "data.train targets has dtype float32.*integers"),
    "quantity": (bad(data=with_train(targets=np.arange(150) * 7)), ValueError, r"look like a quantity \(\d+ distinct"),
    "sigmoid": (bad(loss="sigmoid_cross_entropy"), ValueError, r"values from 0 to 9.*needs targets in \[0, 1\]"),
    "outputs": (bad(model=wd.models.MLP((5,), num_outputs=7)), ValueError,
        "outputs of shape .*7.*has 10 classes.*at least 10 outputs"),
    "loss": (bad(loss="mse"), ValueError, "loss is 'mse'; give one of softmax"),
    "mean loss": (bad(loss=lambda o, t: o.mean()), ValueError,
        r"loss returns an array of shape \(\).*one loss for each example"),
    "batch": (bad(batch_size=151), ValueError, "batch_size is 151, but data.train has 150 examples; give 1 to 150"),
    "batch type": (bad(batch_size=3.5), TypeError, "batch_size is 3.5; give an integer"),
    "steps": (bad(num_steps=0), ValueError, "num_steps is 0; give an integer from 1 to"),
    "mask": (bad(mask=lambda params: False), ValueError, "selects no weight.*Dense_0/kernel.*everything"),
    "optimizer": (bad(optimizer="adam"), TypeError, "optimizer is 'adam'; give wd.adam"),
    "plan": (bad(plan=4), TypeError, "plan is 4, of type int; give a Plan"),
    "convolutions": (
        bad(plan=Plan(4, 1, convolutions="fast")), ValueError, "convolutions is 'fast'; give one of slices"
    ),
    "width": (bad(plan=Plan(0, 1)), ValueError, "plan.lane_width is 0; give an integer of at least 1"),
    "no batches to stream": (bad(plan=Plan(4, 1, streamed=True), batch_size=None), ValueError, "give a batch_size"),
    "budget": (bad(memory_budget=-1), ValueError, "memory_budget is -1; give a number of bytes"),
    "budget type": (bad(memory_budget="x"), ValueError, "memory_budget is 'x', of type str; give a number of bytes"),
    "optax optimizer": (bad(optimizer=optax.adam), TypeError, "optimizer is adam, which takes no decay and mask"),
    "large labels": (
        bad(data=wd.Data((np.ones((9, 2)), np.arange(9) + 2**40), (np.ones((9, 2)), np.arange(9)))),
        ValueError,
        "look like a quantity",
    ),
    "no features": (
        bad(data=wd.Data((np.ones((9, 0)), np.arange(9)), (np.ones((9, 0)), np.arange(9)))),
        ValueError,
        "which has no features; give at least one feature",
    ),
    "dtype": (bad(dtype=int), TypeError, "dtype is int.*give a floating dtype"),
    "dtype word": (bad(dtype="half precision"), TypeError, "dtype is 'half precision'; give a floating dtype"),
    "devices": (bad(plan=Plan(4, 99)), ValueError, "num_devices is 99, but JAX has 8"),
}  # fmt: skip


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize("name", BAD)
def test_fit_grid_refuses_before_anything_is_compiled(name, monkeypatch):
    def compiled(*_):
        raise AssertionError("something was compiled")

    monkeypatch.setattr(lane_programs, "compiled", compiled)
    arguments, error, message = BAD[name]
    with pytest.raises(error, match=message):
        wd.fit_grid(arguments.pop("model"), arguments.pop("data"), arguments.pop("grid"), **arguments)
