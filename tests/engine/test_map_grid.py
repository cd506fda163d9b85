"""`map_grid`: a training function of one's own, member by member the same as alone, saved, and told what is wrong.

The oracle is a Python loop that calls the jitted function once a member.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay.engine import function_workload, hoisting, progress_bar, workers
from weightdecay.engine.plans import Plan

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(40, 6)).astype(np.float32)
TARGETS = (INPUTS @ RNG.normal(size=6) + 0.1 * RNG.normal(size=40)).astype(np.float32)
GRID = {
    "decay": [wd.NoDecay(), wd.L2(0.1), wd.L2(1.0), wd.Decoupled(0.1)],
    "learning_rate": [0.01, 0.1],
    "seed": [0, 3],
}
FOUR_WIDE = {"plan": Plan(4, 2), "progress": False}


def train(hyperparameters):
    """Ridge regression by stochastic gradients; sees minibatches by its own seed."""
    optimizer = wd.sgd(hyperparameters["learning_rate"], hyperparameters["decay"], momentum=0.5)
    key = jax.random.key(hyperparameters["seed"])
    params = {"kernel": jax.random.normal(key, (6, 1))}

    def loss(params, rows):
        inputs, targets = jnp.asarray(INPUTS)[rows], jnp.asarray(TARGETS)[rows]
        return jnp.mean((inputs @ params["kernel"][:, 0] - targets) ** 2)

    def step(carry, number):
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(key, number), (8,), 0, 40)
        value, gradients = jax.value_and_grad(loss)(params, rows)
        updates, state = optimizer.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), curve = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(12))
    return {"kernel": params["kernel"], "curve": curve, "validation_loss": loss(params, jnp.arange(40))}


def by_member(result):
    return {
        (str(one["decay"]), one["learning_rate"], one["seed"]): jax.tree.leaves(result.member(number))
        for number, one in enumerate(result.members)
    }


def assert_same_bits(ours, theirs):
    ours, theirs = by_member(ours), by_member(theirs)
    shared = ours.keys() & theirs.keys()
    assert shared
    for key in shared:
        for one, other in zip(ours[key], theirs[key], strict=True):
            assert one.tobytes() == other.tobytes(), key


@pytest.fixture(scope="module")
def result():
    return wd.map_grid(train, wd.Grid(**GRID), **FOUR_WIDE)


@pytest.mark.slow
def test_map_grid_equals_a_python_loop(result):
    one = jax.jit(train)
    for number, member in enumerate(wd.Grid(**GRID)):
        numbers = {"learning_rate": jnp.float32(member["learning_rate"]), "seed": jnp.int32(member["seed"])}
        expected = one({"decay": member["decay"], **numbers})
        # Twelve steps in float32, whose sums another program takes in another order.
        for name, values in expected.items():
            np.testing.assert_allclose(result.member(number)[name], values, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(result[name][number], result.member(number)[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("axes", "plan"),
    [
        ({name: values[::-1] for name, values in GRID.items()}, Plan(4, 2)),
        ({"decay": [wd.L2(1.0)], "learning_rate": [0.1], "seed": [3]}, Plan(4, 2)),
        ({**GRID, "learning_rate": [0.1, 1e30]}, Plan(4, 2)),
        (GRID, Plan(4, 1)),
        (GRID, Plan(4, 7)),
    ],
    ids=["permuted", "alone", "beside nan", "one device", "seven devices"],
)
def test_map_grid_member_has_the_same_bits_in_any_grid(result, axes, plan):
    other = wd.map_grid(train, wd.Grid(**axes), plan=plan, progress=False)
    assert_same_bits(other, result)
    wild = np.array([member["learning_rate"] > 1 for member in other.members])
    np.testing.assert_array_equal(other.finite, ~wild)


@pytest.fixture
def executed(monkeypatch):
    """Members that are executed, a number a lane."""
    members = []
    distribute = workers.distribute

    def counted(items, num_workers, begin, stop):
        def listed():
            for lane, programs in items:
                members.append(len(lane.members))
                yield lane, programs

        distribute(listed(), num_workers, begin, stop)

    monkeypatch.setattr(workers, "distribute", counted)
    return members


@pytest.mark.slow
def test_map_grid_goes_on_where_it_was_cut_off(tmp_path, result, executed, monkeypatch):
    class GoneError(Exception):
        pass

    class Bar:
        """Dies with the process at the second lane."""

        def __init__(self):
            self.lanes = 0

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, members):
            self.lanes += 1
            if self.lanes == 2:
                raise GoneError

    with monkeypatch.context() as patch:
        patch.setattr(progress_bar, "progress_bar", lambda *_, **__: Bar())
        with pytest.raises(GoneError):
            wd.map_grid(train, wd.Grid(**GRID), directory=tmp_path, plan=Plan(4, 1))
    executed.clear()
    again = wd.map_grid(train, wd.Grid(**GRID), directory=tmp_path, **FOUR_WIDE)
    assert sum(executed) == 16 - 8
    assert_same_bits(again, result)
    grown = {**GRID, "seed": [3, 7], "learning_rate": [0.1, 0.01, 0.5]}
    executed.clear()
    assert_same_bits(wd.map_grid(train, wd.Grid(**grown), directory=tmp_path, **FOUR_WIDE), result)
    assert sum(executed) == 4 * 3 * 2 - 4 * 2
    executed.clear()
    assert_same_bits(wd.map_grid(train, wd.Grid(**GRID), directory=tmp_path, **FOUR_WIDE), result)
    assert not executed


def sums(hyperparameters):
    return {"sum": hyperparameters["learning_rate"] * jnp.asarray(INPUTS).sum()}


def other_sums(hyperparameters):
    return {"sum": hyperparameters["learning_rate"] * jnp.asarray(INPUTS).max()}


def of_others(hyperparameters):
    return {"sum": hyperparameters["learning_rate"] * jnp.asarray(INPUTS + 1).sum()}


@pytest.mark.parametrize(
    ("train_fn", "plan", "told"),
    [
        (other_sums, Plan(4, 2), "a different run: train_fn differs. Nothing was changed"),
        (of_others, Plan(4, 2), "a different run: the arrays that train_fn uses differ"),
        (sums, Plan(2, 2), "a different run: the lanes have another width"),
    ],
)
def test_map_grid_refuses_another_run_in_its_directory(tmp_path, train_fn, plan, told):
    grid = wd.Grid(learning_rate=[0.1, 0.2])
    first = wd.map_grid(sums, grid, directory=tmp_path, **FOUR_WIDE)
    with pytest.raises(ValueError, match=told):
        wd.map_grid(train_fn, grid, directory=tmp_path, plan=plan, progress=False)
    again = wd.map_grid(sums, grid, directory=tmp_path, **FOUR_WIDE)
    np.testing.assert_array_equal(again["sum"], first["sum"])


def test_map_grid_and_fit_grid_refuse_the_directory_of_each_other(tmp_path):
    grid = wd.Grid(learning_rate=[0.1])
    wd.map_grid(sums, grid, directory=tmp_path, **FOUR_WIDE)
    with pytest.raises(ValueError, match=r"it was trained by wd\.map_grid, and this is wd\.fit_grid"):
        wd.fit_grid(
            wd.models.MLP((3,)), wd.data.digits(num_train=50), grid, num_steps=2, batch_size=4, directory=tmp_path,
            progress=False,
        )  # fmt: skip


def test_load_says_how_to_get_at_what_map_grid_saved(tmp_path):
    wd.map_grid(sums, wd.Grid(learning_rate=0.1), directory=tmp_path, **FOUR_WIDE)
    with pytest.raises(FileNotFoundError, match=r"holds members of wd\.map_grid, and no result to load"):
        wd.load(tmp_path)


def of_width(hyperparameters):
    width = hyperparameters["width"]
    assert isinstance(width, int)
    ones = jnp.ones(width) * hyperparameters["learning_rate"]
    return {"ones": ones, "sum": ones.sum()}


def test_map_grid_static_axes_are_python_numbers_and_shapes_may_differ(tmp_path):
    grid = wd.Grid(width=[2, 5], learning_rate=[0.5, 2.0])
    result = wd.map_grid(of_width, grid, static=["width"], directory=tmp_path, progress=False)
    assert [result.member(number)["sum"] for number in range(4)] == [1.0, 4.0, 2.5, 10.0]
    assert result.member(-1)["ones"].shape == (5,)
    with pytest.raises(
        ValueError, match=r"have 2 different structures, which do not stack; take them one by one: result.member"
    ):
        _ = result.outputs
    with pytest.raises(IndexError, match="member is 4; give 0 to 3"):
        result.member(4)
    # A structure more does not make those that are there others.
    grown = wd.Grid(width=[7, 2, 5], learning_rate=[0.5, 2.0])
    again = wd.map_grid(of_width, grown, static=["width"], directory=tmp_path, progress=False)
    assert again.member(0)["sum"] == 3.5
    np.testing.assert_array_equal(again.member(3)["ones"], result.member(1)["ones"])


def test_map_grid_lane_is_as_wide_in_every_grid():
    """The width follows from a member's own program, not from a wider one beside it."""

    def groups(widths):
        grid = wd.Grid(width=widths, learning_rate=[0.1])
        return function_workload.prepare_function(of_width, grid, frozenset({"width"}), None, {}).groups

    small, large = groups([2, 200_000])
    assert small.lane_width > large.lane_width
    assert groups([2])[0].lane_width == small.lane_width


def test_map_grid_words_bools_none_and_schedules_reach_the_function():
    seen = []

    def kinds(hyperparameters):
        seen.append({name: type(value) for name, value in hyperparameters.items()})
        sign = -1 if hyperparameters["activation"] == "minus" else 1
        rate = hyperparameters["learning_rate"]
        rate = rate(4) if callable(rate) else rate
        return sign * rate + hyperparameters["flag"]

    linear = wd.schedules.Linear(1.0, 0.0, 8)
    grid = wd.Grid(activation=["plus", "minus"], flag=[False, True], learning_rate=[0.25, linear], other=[None])
    result = wd.map_grid(kinds, grid, progress=False)
    np.testing.assert_allclose(result.outputs, [0.25, 0.5, 1.25, 1.5, -0.25, -0.5, 0.75, 0.5])
    assert len(seen) == 8  # each structure is traced once
    assert {(one["activation"], one["flag"], one["other"]) for one in seen} == {(str, bool, type(None))}
    assert result.dataset["output"].dims == ("member",)


LARGE = RNG.normal(size=(300, 200)).astype(np.float32)


def looped(hyperparameters):
    @jax.jit
    def step(weights):
        return weights - hyperparameters["learning_rate"] * (LARGE.T @ (LARGE @ weights - 1)) / 300

    return jax.lax.fori_loop(0, 3, lambda _, weights: step(weights), jnp.zeros(200))


def branched(hyperparameters):
    large = jax.jit(lambda: jnp.asarray(LARGE).sum() * hyperparameters["learning_rate"])
    return jax.lax.cond(hyperparameters["learning_rate"] > 0.15, large, lambda: jnp.float32(0))


def repeated(hyperparameters):
    more = jax.jit(lambda weight: weight + jnp.abs(jnp.asarray(LARGE)).mean())
    return jax.lax.while_loop(lambda weight: weight < 9, more, hyperparameters["learning_rate"])


@pytest.mark.parametrize("train_fn", [looped, jax.jit(looped), branched, repeated])
def test_hoist_takes_arrays_out_of_the_program(train_fn):
    numbers = {"learning_rate": np.float32(0.2)}
    traced = hoisting.hoist(jax.make_jaxpr(train_fn)(numbers))
    assert any(constant.size == LARGE.size for constant in traced.consts)
    program = jax.jit(lambda constants, rate: jax.core.eval_jaxpr(traced.jaxpr, constants, rate))
    text = program.lower(traced.consts, np.float32(0.2)).as_text()
    assert len(text) < 20_000  # the array alone would take eight letters a number
    (ours,) = program(traced.consts, np.float32(0.2))
    # The same operations, compiled apart.
    np.testing.assert_allclose(ours, jax.tree.leaves(train_fn(numbers))[0], rtol=1e-5, atol=1e-6)


def test_map_grid_of_a_jitted_function_has_a_small_program():
    grid = wd.Grid(learning_rate=[0.1, 0.2])
    (group,) = function_workload.prepare_function(jax.jit(looped), grid, frozenset(), None, {}).groups
    assert len(group.traced.jaxpr.pretty_print()) < 20_000
    assert sum(constant.nbytes for constant in group.traced.consts) >= LARGE.nbytes
    result = wd.map_grid(jax.jit(looped), wd.Grid(learning_rate=[0.1, 0.2]), progress=False)
    np.testing.assert_allclose(result.outputs[1], looped({"learning_rate": 0.2}), rtol=1e-4, atol=1e-6)


def test_map_result_table_averages_over_seeds(result):
    table = result.table()
    losses = result["validation_loss"].reshape(8, 2)
    np.testing.assert_allclose(table["validation_loss"], losses.mean(axis=1), rtol=1e-6)
    # The standard error of two numbers is half their distance.
    error = np.abs(losses[:, 0] - losses[:, 1]) / 2
    np.testing.assert_allclose(table["validation_loss_standard_error"], error, rtol=1e-5, atol=1e-7)
    assert table["seeds"].tolist() == [2] * 8
    assert table["decay"].tolist()[::2] == ["NoDecay", "L2", "L2", "Decoupled"]
    assert "curve" not in table
    assert repr(result) == "MapResult of 16 members"


def test_map_result_best_takes_the_least_loss(result):
    best = result.best("validation_loss")
    expected = result["validation_loss"].reshape(8, 2).mean(axis=1)
    least = result.members[2 * expected.argmin()]
    assert (best.decay, best.hyperparameters["learning_rate"]) == (least["decay"], least["learning_rate"])
    np.testing.assert_allclose(best.mean, expected.min(), rtol=1e-6)
    with pytest.raises(ValueError, match="metric is 'curve'; give the name of a scalar output: validation_loss"):
        result.best("curve")


def test_map_result_dataset_has_every_output_and_axis(result):
    dataset = result.dataset
    assert dataset["kernel"].dims == ("member", "kernel_0", "kernel_1")
    assert dataset["curve"].shape == (16, 12)
    assert dataset["seed"].values.tolist() == [0, 3] * 8
    assert dataset["finite"].all()


@pytest.mark.parametrize("name", ["finite", "seed", "member", "candidate"])
def test_map_result_refuses_a_name_that_a_dataset_has(name):
    result = wd.map_grid(lambda h: {name: h["learning_rate"]}, wd.Grid(learning_rate=[0.1]), progress=False)
    np.testing.assert_allclose(result[name], [0.1], rtol=1e-6)
    with pytest.raises(
        ValueError, match=f"train_fn returns an output '{name}', a name that the dataset uses for something else"
    ):
        _ = result.dataset


def test_map_result_folds_are_no_seeds():
    """With folds the standard error is of means over seeds, as in `weightdecay.core.statistics`."""
    result = wd.map_grid(
        lambda h: {"loss": h["seed"] + 10.0 * h["fold"]}, wd.Grid(seed=[0, 2], fold=range(3)), progress=False
    )
    (row,) = result.table().to_dict("records")
    assert row["loss"] == 11.0
    means = np.array([1.0, 11.0, 21.0])  # of each fold, over its seeds
    # Nadeau & Bengio: the variance over k folds times 1/k + 1/(k - 1).
    np.testing.assert_allclose(row["loss_standard_error"], means.std(ddof=1) * np.sqrt(1 / 3 + 1 / 2))


ONE = wd.Grid(learning_rate=[0.1], width=[3])
BAD = {
    "no function": (("train", ONE), {}, TypeError, "train_fn is 'train'; give a function of a dictionary"),
    "no grid": ((sums, [0.1]), {}, TypeError, "grid is of type list; give wd.Grid"),
    "static word": ((sums, ONE), {"static": "width"}, TypeError,
        r"static is 'width'; give .* in a list: static=\['width'"),
    "unknown static": ((sums, ONE), {"static": ["depth"]}, ValueError,
        "static names 'depth', which is not an axis.*learning_rate"),
    "nothing": ((lambda h: None, ONE), {}, TypeError, "train_fn returns no array; return a number or a tree"),
    "word": ((lambda h: "done", ONE), {}, TypeError,
        "train_fn returns 'done'.*of type str; return a tree of numbers or arrays"),
    "float": ((lambda h: float(h["learning_rate"]), ONE), {}, TypeError,
        "train_fn needs the value of a number that is traced.*jax.numpy.*static.*axes are: learning_rate, seed, width"),
    "if": ((lambda h: 1.0 if h["learning_rate"] > 0 else 2.0, ONE), {}, TypeError, "train_fn needs the value"),
    "numpy": ((lambda h: np.sin(h["learning_rate"]), ONE), {}, TypeError, "train_fn needs the value"),
    "shape": ((lambda h: jnp.zeros(h["width"]), ONE), {}, TypeError, "train_fn needs the value"),
    "range": ((lambda h: sum(range(h["seed"])), ONE), {}, TypeError, "train_fn needs the value"),
    "plan": ((sums, ONE), {"plan": Plan(0, 1)}, ValueError, "plan.lane_width is 0"),
    "save_every": ((sums, ONE), {"save_every": 0}, ValueError, "save_every is 0"),
}  # fmt: skip


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize("name", BAD)
def test_map_grid_refuses(name, monkeypatch):
    monkeypatch.setattr(workers, "distribute", lambda *_: pytest.fail("something was run"))
    arguments, settings, error, message = BAD[name]
    with pytest.raises(error, match=message):
        wd.map_grid(*arguments, **{"progress": False, **settings})


def test_map_grid_lets_errors_of_the_function_through():
    def fail(hyperparameters):
        raise RuntimeError("my own")

    with pytest.raises(RuntimeError, match="my own"):
        wd.map_grid(fail, ONE, progress=False)
