"""Members on a mesh of devices: their numbers are those of one device, and their arrays are spread as the rules say."""

import concurrent.futures
import functools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import weightdecay as wd
from weightdecay.core import tree
from weightdecay.engine import lane_programs, plans, preparation
from weightdecay.engine.training_workload import TrainingLane

DATA = wd.data.digits(num_train=200)
MODEL = wd.models.MLP((8,))
GRID = wd.Grid(decay=[wd.NoDecay(), wd.L2(1e-2), wd.Decoupled(1e-1)], learning_rate=1e-2, ema=[0.9])
SETTINGS = {"num_steps": 12, "batch_size": 16, "eval_every": 4, "progress": False}
WIDTH = wd.Plan(4, 1)
PATTERNS = {"Dense_0/kernel": PartitionSpec(None, "model"), "Dense_1/kernel": PartitionSpec("model")}


def mesh(**axes):
    """Make a mesh of as many of the eight devices as its axes need."""
    return jax.make_mesh(tuple(axes.values()), tuple(axes), devices=jax.devices()[: np.prod([*axes.values()])])


@functools.cache
def alone():
    """Train the grid on one device."""
    return wd.fit_grid(MODEL, DATA, GRID, plan=WIDTH, **SETTINGS)


def assert_same_numbers(result, expected):
    """Two results agree within the rounding of float32 sums, which training amplifies."""
    for name, variable in expected.dataset.data_vars.items():
        values = result.dataset[name].values
        np.testing.assert_allclose(values, variable.values, rtol=2e-4, atol=2e-5, err_msg=name)
    for member in range(len(expected)):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-5),
            result.params(member),
            expected.params(member),
        )


def assert_same_bits(result, expected, members=None):
    members = range(len(expected)) if members is None else members
    for name in ("train_loss", "validation_loss", "weight_norm", "rotation"):
        np.testing.assert_array_equal(result.dataset[name], expected.dataset[name].isel(member=list(members)))
    for row, member in enumerate(members):
        jax.tree.map(np.testing.assert_array_equal, result.params(row), expected.params(member))


def placed(model=MODEL, grid=GRID, optimizer=wd.adam, **settings):
    """Partitioning of each array that a member carries, by its name, without compiling anything."""
    run = preparation.prepare_run(
        model,
        DATA,
        grid,
        optimizer=optimizer,
        loss=None,
        num_steps=12,
        batch_size=16,
        eval_every=4,
        patience=2,
        stopping_metric="validation_loss",
        metrics=None,
        lower_is_better=None,
        mask=wd.masks.kernels,
        initial=settings.pop("initial", None),
        trainable=settings.pop("trainable", None),
        plan=WIDTH,
        memory_budget=None,
        dtype=None,
        accumulate=1,
        **settings,
    )
    group = run.groups[0]
    lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype), group.state)
    shardings = run.placements(group)[0].members(lane)
    return {name: sharding.spec for name, sharding in tree.named_leaves(shardings)}


# Numbers.


@pytest.mark.slow
def test_numbers_on_a_mesh_are_those_of_one_device(monkeypatch):
    expected, layouts, programs = alone(), [], []

    def evaluate(lane, previous, original=TrainingLane._evaluate):
        layouts.append({name: leaf.addressable_shards[0].data.shape for name, leaf in tree.named_leaves(lane._states)})
        programs.append(lane._programs)
        return original(lane, previous)

    monkeypatch.setattr(TrainingLane, "_evaluate", evaluate)
    result = wd.fit_grid(MODEL, DATA, GRID, mesh=mesh(member=2, data=4), sharding="fsdp", plan=WIDTH, **SETTINGS)
    assert_same_numbers(result, expected)
    assert result.settings["plan"]["mesh"] == {"member": 2, "data": 4}
    assert len(layouts) == 3
    for layout in layouts:  # (members of a device, inputs of a device, outputs), after each segment of steps
        for name in ("params", "optimizer_state/base/mu", "optimizer_state/base/nu", "average/params"):
            assert layout[f"{name}/Dense_0/kernel"] == (2, 16, 8)
            assert layout[f"{name}/Dense_1/kernel"] == (2, 2, 10)
            assert layout[f"{name}/Dense_1/bias"] == (2, 10)  # 10 is not a multiple of 4
    advance, evaluate = programs[0].advance.as_text(), programs[0].evaluate.as_text()
    assert "f32[2,4,8]" in advance  # hidden units of 2 of the 4 members, for 4 of the 16 examples
    assert "f32[2,25,8]" in evaluate  # for 25 of the 100 examples of a chunk
    assert not any(shape in evaluate for shape in ("f32[2,100,8]", "f32[100,2,8]"))


@pytest.mark.slow
def test_a_lane_that_the_axis_of_members_does_not_divide_is_filled_up():
    result = wd.fit_grid(MODEL, DATA, GRID, mesh=mesh(member=8), plan=WIDTH, **SETTINGS)
    assert_same_numbers(result, alone())


@pytest.mark.slow
def test_numbers_of_batches_that_are_streamed_and_computed_in_parts():
    settings = dict(SETTINGS, plan=wd.Plan(4, 1, streamed=True), accumulate=2)
    result = wd.fit_grid(MODEL, DATA, GRID, mesh=mesh(member=2, data=4), sharding="fsdp", **settings)
    assert_same_numbers(result, wd.fit_grid(MODEL, DATA, GRID, **settings))


class Random(nn.Module):
    """A network with batch statistics and dropout."""

    @nn.compact
    def __call__(self, inputs, train=False):
        hidden = nn.BatchNorm(use_running_average=not train)(nn.Dense(8)(inputs))
        return nn.Dense(10)(nn.Dropout(0.1, deterministic=not train)(nn.relu(hidden)))


@pytest.mark.slow
def test_batch_statistics_are_those_of_the_whole_batch_and_random_numbers_are_the_same():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(1e-2)], learning_rate=1e-1, dropout_rate=[0.3], mixup=[0.2])
    settings = dict(SETTINGS, plan=wd.Plan(2, 1), optimizer=wd.sgd)  # Adam would follow the rounding of zero gradients
    result = wd.fit_grid(Random(), DATA, grid, mesh=mesh(member=2, data=4), sharding="fsdp", **settings)
    assert_same_numbers(result, wd.fit_grid(Random(), DATA, grid, **settings))


@pytest.mark.slow
def test_gradient_descent_on_a_mesh_is_that_of_numpy():
    rng = np.random.default_rng(0)
    inputs, targets = rng.normal(size=(2, 32, 8)), rng.normal(size=(2, 32, 1))
    data = wd.Data(
        train=(inputs[0].astype(np.float32), targets[0].astype(np.float32)),
        validation=(inputs[1].astype(np.float32), targets[1].astype(np.float32)),
    )
    model = wd.Model(
        init=lambda key, inputs: {"kernel": jnp.full((8, 1), 0.5)},
        apply=lambda params, inputs: inputs @ params["kernel"],
    )
    coefficients, rate, num_steps = [0.0, 0.3], 0.05, 25
    result = wd.fit_grid(
        model,
        data,
        wd.Grid(decay=[wd.L2(coefficient) for coefficient in coefficients], learning_rate=rate),
        optimizer=wd.sgd,
        num_steps=num_steps,
        batch_size=None,
        mesh=mesh(member=2, data=4),
        sharding="fsdp",
        progress=False,
    )
    for member, coefficient in enumerate(coefficients):
        kernel = np.full((8, 1), 0.5)
        for _ in range(num_steps):
            error = inputs[0] @ kernel - targets[0]
            kernel = kernel - rate * (2 * inputs[0].T @ error / len(error) + coefficient * kernel)
        np.testing.assert_allclose(result.params(member)["kernel"], kernel, rtol=2e-5, atol=1e-6)
        loss = np.mean((inputs[1] @ kernel - targets[1]) ** 2)
        np.testing.assert_allclose(result.dataset["validation_loss"][member, -1], loss, rtol=1e-5)


@pytest.mark.slow
def test_a_member_that_diverges_leaves_its_neighbours_alone():
    grid = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-2, 1e30, 3e-2])
    settings = dict(SETTINGS, plan=WIDTH, optimizer=wd.sgd)
    result = wd.fit_grid(MODEL, DATA, grid, mesh=mesh(member=2, data=2), sharding="fsdp", **settings)
    expected = wd.fit_grid(MODEL, DATA, grid, **settings)
    np.testing.assert_array_equal(result.dataset["diverged_at"], expected.dataset["diverged_at"])
    assert result.dataset["diverged_at"].values.tolist()[1] >= 0
    for member in (0, 2):
        np.testing.assert_allclose(
            result.dataset["validation_loss"][member], expected.dataset["validation_loss"][member], rtol=2e-4
        )


# Bits, and run directories.


@pytest.mark.slow
def test_bits_are_those_of_the_mesh_in_any_grid_and_after_resuming(tmp_path):
    fit = functools.partial(
        wd.fit_grid, MODEL, DATA, mesh=mesh(member=2, data=4), sharding="fsdp", plan=WIDTH, **SETTINGS
    )
    first = fit(GRID)
    lane_programs.clear()
    assert_same_bits(fit(GRID), first)  # compiled again
    part = wd.Grid(decay=[wd.Decoupled(1e-1), wd.NoDecay()], learning_rate=1e-2, ema=[0.9])
    assert_same_bits(fit(part), first, members=[2, 0])
    short = fit(GRID, num_steps=8, directory=tmp_path)
    np.testing.assert_array_equal(short.dataset["train_loss"], first.dataset["train_loss"][:, :2])
    assert_same_bits(fit(GRID, directory=tmp_path), first)


@pytest.mark.slow
def test_a_run_goes_on_on_another_mesh_and_on_none(tmp_path):
    fit = functools.partial(wd.fit_grid, MODEL, DATA, GRID, **{**SETTINGS, "directory": tmp_path})
    fit(num_steps=4, mesh=mesh(member=2, data=4), sharding="fsdp", plan=WIDTH)
    fit(
        num_steps=8, mesh=mesh(member=1, data=2, model=2), sharding=PATTERNS
    )  # the lane width is that of the first call
    assert_same_numbers(fit(num_steps=12), alone())
    depends_on = json.loads((tmp_path / "run.json").read_text())["depends_on"]
    assert depends_on["meshes"] == [
        {"axes": {"member": 2, "data": 4}, "sharding": "fsdp"},
        {
            "axes": {"member": 1, "data": 2, "model": 2},
            "sharding": [[pattern, str(spec)] for pattern, spec in PATTERNS.items()],
        },
        None,
    ]


# Partitioning.


def test_fsdp_partitions_the_first_axis_that_the_devices_of_a_member_divide():
    specs = placed(mesh=mesh(member=2, data=2, model=2), sharding="fsdp")
    for prefix in ("params", "optimizer_state/base/mu", "best/params", "average/params", "best/average/params"):
        assert specs[f"{prefix}/Dense_0/kernel"] == PartitionSpec("member", ("data", "model"))
        assert specs[f"{prefix}/Dense_0/bias"] == PartitionSpec("member", ("data", "model"))  # (8,)
        assert specs[f"{prefix}/Dense_1/bias"] == PartitionSpec("member")  # (10,)
    assert specs["step"] == PartitionSpec("member")
    specs = placed(wd.models.MLP((12,)), mesh=mesh(member=1, model=5), sharding="fsdp")
    assert specs["params/Dense_1/kernel"] == PartitionSpec("member", None, "model")  # (12, 10)
    assert specs["params/Dense_0/kernel"] == PartitionSpec("member")  # (64, 12)


class Annotated(nn.Module):
    annotate: object = nn.with_partitioning

    @nn.compact
    def __call__(self, inputs):
        kernel = self.annotate(nn.initializers.lecun_normal(), (None, "model"))
        hidden = nn.relu(nn.Dense(8, kernel_init=kernel, name="Dense_0")(inputs))
        return nn.Dense(10, name="Dense_1")(hidden)


class Module(nnx.Module):
    def __init__(self, *, rngs):
        kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        self.Dense_0 = nnx.Linear(64, 8, kernel_init=kernel, rngs=rngs)
        self.Dense_1 = nnx.Linear(8, 10, rngs=rngs)

    def __call__(self, inputs):
        return self.Dense_1(nnx.relu(self.Dense_0(inputs)))


@pytest.mark.parametrize(
    "model", [Annotated(), Annotated(nn.with_logical_partitioning), Module], ids=["linen", "logical", "nnx"]
)
def test_metadata_of_the_network_partitions_weights_and_what_belongs_to_them(model):
    on_mesh = mesh(member=2, model=4)
    specs = placed(model, mesh=on_mesh)
    for prefix in ("params", "optimizer_state/base/nu", "best/params", "average/params"):
        assert specs[f"{prefix}/Dense_0/kernel"] == PartitionSpec("member", None, "model")
        assert specs[f"{prefix}/Dense_1/kernel"] == PartitionSpec("member")
    specs = placed(model, mesh=on_mesh, sharding={"Dense_0": PartitionSpec("model")})  # a pattern comes first
    assert specs["params/Dense_0/kernel"] == PartitionSpec("member", "model")
    specs = placed(model, mesh=on_mesh, sharding={"Dense_1/kernel": PartitionSpec("model")})
    assert specs["params/Dense_0/kernel"] == PartitionSpec("member", None, "model")


@pytest.mark.slow
def test_numbers_of_an_annotated_linen_network_are_those_of_the_plain_one():
    result = wd.fit_grid(Annotated(), DATA, GRID, mesh=mesh(member=2, model=4), plan=WIDTH, **SETTINGS)
    assert isinstance(result.params(0)["Dense_0"]["kernel"], nn.Partitioned)
    np.testing.assert_allclose(result.dataset["train_loss"], alone().dataset["train_loss"], rtol=2e-4)


@pytest.mark.slow
def test_numbers_of_an_annotated_nnx_network():
    grid = wd.Grid(decay=[wd.NoDecay(), wd.L2(1e-2)], learning_rate=1e-2)
    result = wd.fit_grid(Module, DATA, grid, mesh=mesh(member=2, model=4), plan=WIDTH, **SETTINGS)
    assert_same_numbers(result, wd.fit_grid(Module, DATA, grid, plan=WIDTH, **SETTINGS))


def test_frozen_weights_are_partitioned_as_those_that_train():
    specs = placed(mesh=mesh(member=2, data=4), sharding="fsdp", trainable=wd.masks.matching("Dense_1"))
    assert specs["model_state/frozen/Dense_0/kernel"] == PartitionSpec("member", "data")
    assert specs["params/Dense_1/kernel"] == PartitionSpec("member", "data")


# Plans.


@pytest.mark.slow
def test_plan_says_what_each_device_holds_and_the_program_needs_less():
    model, grid = wd.models.MLP((512, 512)), wd.Grid(decay=[wd.L2(1e-3)], learning_rate=1e-3)
    predict = functools.partial(wd.plan, model, DATA, grid, **SETTINGS, calibrate=False)
    one_device = predict(plan=wd.Plan(1, 1))
    rules = {"Dense_[12]/kernel": PartitionSpec("model"), "Dense_0/kernel": PartitionSpec(None, "model")}
    settings = {"mesh": mesh(member=1, model=8), "sharding": rules}
    on_mesh = predict(**settings)
    assert on_mesh.mesh == {"member": 1, "model": 8}
    assert (on_mesh.lane_width, on_mesh.num_lanes_at_once) == (1, 1)
    assert "lanes of 1 on 8 cpu device(s) of a mesh (member=1, model=8)" in str(on_mesh)
    assert "fits without a mesh; on member=1, model=8 each device holds" in str(on_mesh)
    weights_bytes = 4 * (64 * 512 + 512 * 512 + 512 * 10)
    assert one_device.forecast.device_bytes > 6 * weights_bytes  # weights, moments, copies of a block, a gradient
    assert on_mesh.forecast.device_bytes < one_device.forecast.device_bytes / 5
    assert on_mesh.forecast.total_bytes == 8 * on_mesh.forecast.device_bytes
    assert predict(plan=wd.Plan(**on_mesh.layout()), **settings) == on_mesh


def test_plan_of_a_member_that_does_not_fit_one_device(monkeypatch):
    need = 2**20  # weights, two moments and a gradient
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")  # whose devices do not share their memory
    monkeypatch.setattr("weightdecay.engine.devices.free_memory", lambda device: need // 2)
    sizes = {
        "params_bytes": need // 4,
        "forward_bytes": 0,
        "state_bytes": 3 * need // 4,
        "data_bytes": 0,
        "batch_bytes": None,
        "memory_budget": None,
    }
    with pytest.raises(MemoryError, match=r"mesh, sharding='fsdp'"):
        plans.choose(**sizes)
    plan = plans.choose(**sizes, mesh={"member": 2, "data": 4}, state_bytes_on_device=3 * need // 16)
    assert plan.lane_width == 4  # two members on each of two rows: a quarter of a member is on each device
    assert any("does not fit without a mesh" in reason for reason in plan.reasons)
    with pytest.raises(MemoryError):
        plans.choose(**sizes, mesh={"member": 2, "data": 4}, state_bytes_on_device=3 * need // 4)


# Errors.


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"mesh": "data"}, TypeError, "mesh is 'data', of type str; give a jax.sharding.Mesh"),
        ({"mesh": mesh(data=2)}, ValueError, "mesh has the axes 'data', and none is named 'member'"),
        ({"sharding": "fsdp"}, ValueError, "mesh is None; give a mesh"),
        ({"mesh": mesh(member=2), "sharding": "zero"}, ValueError, "sharding is 'zero'; give 'fsdp'"),
        ({"mesh": mesh(member=2), "sharding": 3}, TypeError, "sharding is 3; give 'fsdp'"),
        ({"mesh": mesh(member=2), "sharding": {"a": "model"}}, TypeError, "PartitionSpec by pattern"),
        (
            {"mesh": mesh(member=2), "sharding": {"Dense_0": PartitionSpec("model")}},
            ValueError,
            r"sharding\['Dense_0'\] names the axis 'model', which mesh does not have",
        ),
        (
            {"mesh": mesh(member=2), "sharding": {"Dense_0": PartitionSpec("member")}},
            ValueError,
            r"sharding\['Dense_0'\] names the axis 'member'",
        ),
        (
            {"mesh": mesh(member=1, model=2), "sharding": {"Dens_0": PartitionSpec("model")}},
            ValueError,
            "the pattern 'Dens_0' matches no weight; these are: Dense_0/bias",
        ),
        (
            {"mesh": mesh(member=1, model=4), "sharding": {"Dense_1/bias": PartitionSpec("model")}},
            ValueError,
            r"'Dense_1/bias'.*does not fit its shape \(10,\).*divided by \(4,\)",
        ),
        (
            {"mesh": mesh(member=1, model=2), "sharding": {"Dense_1/bias": PartitionSpec(None, "model")}},
            ValueError,
            r"'Dense_1/bias'.*does not fit its shape \(10,\)",
        ),
        ({"mesh": mesh(member=1, model=2)}, ValueError, "axis 'model' of 2 devices over which nothing is partitioned"),
        (
            {"mesh": mesh(member=1, data=3)},
            ValueError,
            "batch_size, 16, cannot be divided over the 3 devices of the axis 'data'",
        ),
        (
            {"mesh": mesh(member=1, data=4), "accumulate": 8},
            ValueError,
            r"batch_size, 16, cannot be divided in 8 parts \(accumulate\) over the 4 devices",
        ),
        (
            {"mesh": mesh(member=1, data=3), "batch_size": None},
            ValueError,
            "all 200 training examples cannot be divided over the 3 devices",
        ),
        ({"plan": wd.Plan(4, 2, mesh={"member": 2})}, ValueError, r"plan is of a mesh \(member=2\), and mesh is None"),
    ],
)
def test_wrong_meshes_and_shardings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        wd.fit_grid(MODEL, DATA, GRID, **{**SETTINGS, **settings})


def test_a_network_that_names_another_axis_is_refused():
    with pytest.raises(ValueError, match=r"model names for 'Dense_0/kernel'.*'model', which mesh does not have"):
        wd.fit_grid(Annotated(), DATA, GRID, mesh=mesh(member=2, data=2), **SETTINGS)


def test_executor_and_mesh_are_refused_together():
    with (
        concurrent.futures.ThreadPoolExecutor(1) as executor,
        pytest.raises(ValueError, match="executor trains on workers, which do not have the devices of mesh"),
    ):
        wd.fit_grid(MODEL, DATA, GRID, mesh=mesh(member=2), executor=executor, **SETTINGS)
