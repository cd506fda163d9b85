"""Schedules beside optax's over many steps; laws of every kind: a pytree, one trace, batches, dtypes; the checks."""

import dataclasses
import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import weightdecay as wd
from weightdecay.decay import schedules

KINDS = {
    name: kind
    for name, kind in inspect.getmembers(schedules, inspect.isclass)
    if issubclass(kind, schedules.Parametric) and kind is not schedules.Parametric
}
EXAMPLES = {
    "Constant": (0.3,),
    "Linear": (0.3, 0.1, 50.0),
    "Cosine": (0.3, 50.0, 0.1),
    "Exponential": (0.3, 0.5, 20.0),
    "EarlyOnly": (0.3, 50.0),
    "LogTime": (0.3, 20.0),
    "WarmupCosine": (0.3, 10.0, 60.0, 0.1),
    "WarmupStableDecay": (0.3, 10.0, 20.0, 60.0, 0.1),
    "Sawtooth": (0.3, 0.1, 20.0),
    "Piecewise": ((10.0, 40.0), (0.1, 0.3, 0.2)),
    "Function": (optax.cosine_decay_schedule(0.3, 50), 2.0),
}
COUNTS = np.concatenate([np.arange(150), [10**4, 2**24 + 1, 10**9]])
every_kind = pytest.mark.parametrize("name", KINDS)
every_kind_of_numbers = pytest.mark.parametrize(
    "name", [name for name in KINDS if name not in ("Piecewise", "Function")]
)


def example(name):
    return KINDS[name](*EXAMPLES[name])


def over(schedule, counts=COUNTS):
    return jax.jit(jax.vmap(schedule))(jnp.asarray(counts))


def test_every_kind_has_an_example():
    assert set(KINDS) == set(EXAMPLES) == set(schedules.KINDS)


def test_kinds_differ_in_structure():
    """Else `jax.jit` may run the program that it has of another schedule."""
    structures = [jax.tree.structure(example(name)) for name in KINDS]
    assert all(a != b for a, b in itertools.combinations(structures, 2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (schedules.Constant(0.3), optax.constant_schedule(0.3)),
        (schedules.Linear(0.3, 0.1, 70), optax.linear_schedule(0.3, 0.1, 70)),
        (schedules.Linear(0.0, 2.0, 1), optax.linear_schedule(0.0, 2.0, 1)),
        (schedules.Cosine(0.3, 70), optax.cosine_decay_schedule(0.3, 70)),
        (schedules.Cosine(0.4, 33, 0.1), optax.cosine_decay_schedule(0.4, 33, alpha=0.25)),
        (schedules.Exponential(0.3, 0.9), optax.exponential_decay(0.3, 1, 0.9)),
        (schedules.Exponential(0.3, 0.5, 40), optax.exponential_decay(0.3, 40, 0.5)),
        (schedules.EarlyOnly(0.3, 70), optax.piecewise_constant_schedule(0.3, {70: 0.0})),
        (schedules.LogTime(0.3, 40), lambda count: 0.3 / (1 + count / 40)),
        (schedules.WarmupCosine(0.3, 10, 70), optax.warmup_cosine_decay_schedule(0.0, 0.3, 10, 70)),
        (schedules.WarmupCosine(0.3, 7, 40, 0.1), optax.warmup_cosine_decay_schedule(0.0, 0.3, 7, 40, 0.1)),
        (schedules.WarmupCosine(0.3, 0, 40), optax.cosine_decay_schedule(0.3, 40)),
        (
            schedules.WarmupStableDecay(0.3, 10, 20, 70, 0.1),
            optax.join_schedules(
                [
                    optax.linear_schedule(0.0, 0.3, 10),
                    optax.constant_schedule(0.3),
                    optax.linear_schedule(0.3, 0.1, 20),
                ],
                [10, 50],
            ),
        ),
        (
            schedules.Piecewise((20, 50, 90), (0.3, 0.03, 0.06, 0.0)),
            optax.piecewise_constant_schedule(0.3, {20: 0.1, 50: 2.0, 90: 0.0}),
        ),
        (
            schedules.Piecewise((20, 50, 90), (0.3, 0.03, 0.06, 0.0), interpolate=True),
            optax.piecewise_interpolate_schedule("linear", 0.3, {20: 0.1, 50: 2.0, 90: 0.0}),
        ),
        (
            schedules.Piecewise((0, 20), (0.3, 0.2, 0.1)),
            optax.join_schedules([optax.constant_schedule(0.2), optax.constant_schedule(0.1)], [20]),
        ),
        (schedules.Function(optax.cosine_decay_schedule(0.1, 70), 3.0), optax.cosine_decay_schedule(0.3, 70)),
        (schedules.Cosine(0.3, 0.7).over(100), optax.cosine_decay_schedule(0.3, 70)),
        (schedules.Cosine(0.3).over(70), optax.cosine_decay_schedule(0.3, 70)),
        (schedules.WarmupCosine(0.3, 0.1).over(100), optax.warmup_cosine_decay_schedule(0.0, 0.3, 10, 100)),
        (schedules.Sawtooth(0.3, 0.1, 16), lambda count: 0.3 - 0.2 * (count % 16) / 15),
        (schedules.Sawtooth(0.0, 0.1, 5), lambda count: 0.1 * (count % 5) / 4),
    ],
    ids=lambda one: str(one) if isinstance(one, schedules.Parametric) else "",
)
@pytest.mark.usefixtures("float64")
def test_schedule_is_optaxs(ours, theirs):
    expected = [float(theirs(jnp.asarray(count, float))) for count in range(150)]
    # Rounding; the last share of a cosine is a difference of numbers near 1.
    np.testing.assert_allclose(over(ours, np.arange(150)), expected, rtol=1e-13, atol=1e-17)


@every_kind_of_numbers
def test_kind_is_a_frozen_dataclass_and_a_pytree_of_its_parameters(name):
    schedule = example(name)
    assert tuple(jax.tree.leaves(schedule)) == EXAMPLES[name] == tuple(schedule.parameters().values())
    doubled = jax.tree.map(lambda value: 2 * value, schedule)
    assert isinstance(doubled, KINDS[name])
    assert doubled == KINDS[name](*(2 * value for value in EXAMPLES[name]))
    field = dataclasses.fields(schedule)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(schedule, field, 1.0)


@pytest.mark.slow
@every_kind
def test_schedules_of_a_kind_share_one_program(name):
    traces = 0

    @jax.jit
    def value(schedule, count):
        nonlocal traces
        traces += 1
        return schedule(count)

    for scale in (1.0, 0.5, 0.0):
        for count in (0, 7, 1000):
            schedule = jax.tree.map(lambda parameter, scale=scale: scale * parameter, example(name))
            alone = schedule(count)
            np.testing.assert_allclose(value(schedule, count), alone, rtol=1e-6)  # compiled and not: a rounding or two
    assert traces == 1


@pytest.mark.slow
@every_kind
def test_schedules_under_vmap_are_a_loop(name):
    scales = jnp.array([0.25, 1.0, 3.0])
    many = jax.tree.map(lambda parameter: scales * parameter, example(name))
    together = jax.vmap(lambda schedule: jax.vmap(schedule)(jnp.arange(100)))(many)
    for row, scale in zip(together, scales, strict=True):
        alone = over(jax.tree.map(lambda parameter, scale=scale: scale * parameter, example(name)), np.arange(100))
        np.testing.assert_allclose(row, alone, rtol=1e-5, atol=1e-7)  # a rounding in the cosine's argument


@pytest.mark.slow
@every_kind_of_numbers
@pytest.mark.parametrize("x64", [False, True])
def test_schedule_starts_at_its_first_parameter_and_stays_finite(name, x64):
    with jax.enable_x64(x64):
        schedule = example(name)
        values = over(schedule)
        assert values.dtype == schedule(3).dtype == (jnp.float64 if x64 else jnp.float32)
        assert values.shape == COUNTS.shape
        assert jnp.shape(schedule(3)) == ()
        first = 0.0 if name.startswith("Warmup") else EXAMPLES[name][0]
        np.testing.assert_allclose(values[0], first, rtol=1e-7 if not x64 else 1e-15)  # the dtype's own
        assert np.isfinite(values).all()
        assert (values >= 0).all()
        if name.startswith("Warmup"):
            np.testing.assert_allclose(values[-1], EXAMPLES[name][-1], rtol=1e-6)
        elif name not in ("Constant", "Sawtooth"):
            assert values[-1] < values[0]
        narrow = KINDS[name](*(jnp.asarray(value, jnp.bfloat16) for value in EXAMPLES[name]))
        assert narrow(3).dtype == values.dtype


@pytest.mark.slow
@every_kind_of_numbers
@pytest.mark.parametrize("count", [0, 1, 50, 10**9])
def test_schedule_has_finite_gradients(name, count):
    zeros = KINDS[name](*(0.0 for _ in EXAMPLES[name]))
    no_time = KINDS[name](*EXAMPLES[name][:-1], 0.0)
    ones = KINDS[name](*(1.0 for _ in EXAMPLES[name]))
    for schedule in (example(name), zeros, no_time, ones):
        value, gradient = jax.value_and_grad(lambda schedule: schedule(count))(schedule)
        assert np.isfinite([value, *jax.tree.leaves(gradient)]).all()


@pytest.mark.parametrize(
    ("schedule", "first", "later"),
    [
        (schedules.Linear(0.3, 0.1, 0), 0.1, 0.1),
        (schedules.Cosine(0.3, 0, 0.1), 0.1, 0.1),
        (schedules.EarlyOnly(0.3, 0), 0, 0),
        (schedules.Exponential(0.3, 0.5, 0), 0.3, 0),
        (schedules.LogTime(0.3, 0), 0.3, 0),
    ],
    ids=str,
)
def test_schedule_without_time_is_at_its_end(schedule, first, later):
    # 1e-12: a time of 0 counts as 1e-12 steps
    np.testing.assert_allclose(
        [schedule(0), schedule(1), schedule(10**9)], [first, later, later], rtol=1e-6, atol=1e-12
    )


@pytest.mark.usefixtures("float64")
def test_gradients_are_those_of_the_formulas():
    linear = jax.grad(lambda schedule: schedule(10))(schedules.Linear(0.3, 0.1, 40.0))
    np.testing.assert_allclose(jax.tree.leaves(linear), [0.75, 0.25, 0.2 * 10 / 40**2], rtol=1e-13)  # rounding
    slow = jax.grad(lambda schedule: schedule(10))(schedules.LogTime(0.3, 40.0))
    np.testing.assert_allclose(jax.tree.leaves(slow), [0.8, 0.3 * 10 / 50**2], rtol=1e-13)  # rounding
    falling = jax.grad(lambda schedule: schedule(10))(schedules.Exponential(0.3, 0.25, 20.0))
    expected = [0.5, 0.3 * 0.5 * 0.25**-0.5, -0.3 * 0.5 * np.log(0.25) * 10 / 20**2]
    np.testing.assert_allclose(jax.tree.leaves(falling), expected, rtol=1e-13)  # rounding


def test_early_only_ends_at_the_very_step():
    schedule = schedules.EarlyOnly(0.5, 2**24 + 1)  # a number that float32 does not hold
    last = jnp.asarray(2**24)
    np.testing.assert_array_equal([schedule(last), schedule(last + 1)], [0.5, 0])


@pytest.mark.slow
@every_kind_of_numbers
@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    parameters=st.lists(st.floats(0, 100, width=32), min_size=5, max_size=5),
    counts=st.lists(st.integers(0, 10**9), min_size=5, max_size=5),
)
def test_schedule_is_never_negative(name, parameters, counts):
    if name == "Exponential":
        parameters[1] /= 100
    values = over(KINDS[name](*(jnp.float32(value) for value in parameters[: len(EXAMPLES[name])])), sorted(counts))
    assert (values >= 0).all()
    assert np.isfinite(values).all()


def test_log_time_sums_to_the_logarithm():
    total = float(jnp.sum(jax.vmap(schedules.LogTime(1.0, 100.0))(jnp.arange(100_000))))
    # The sum is above the integral by between 0 and the first term.
    assert 0 < total - 100 * np.log(1 + 100_000 / 100) < 1


@pytest.mark.parametrize(
    ("schedule", "text"),
    [
        (schedules.Constant(0.1), "Constant(0.1)"),
        (schedules.Cosine(0.1, 1000), "Cosine(0.1, 1000)"),
        (schedules.Cosine(0.1, 1000, 0.0), "Cosine(0.1, 1000)"),
        (schedules.Cosine(0.1, 1000, 0.01), "Cosine(0.1, 1000, 0.01)"),
        (schedules.Exponential(1 / 3, 0.5), "Exponential(0.3333, 0.5)"),
        (schedules.LogTime(np.float32(0.1), jnp.array(100.0)), "LogTime(0.1, 100)"),
        (schedules.EarlyOnly(jnp.array(3), 10), "EarlyOnly(3, 10)"),
    ],
)
def test_schedule_is_written_short(schedule, text):
    assert str(schedule) == text


@every_kind
def test_traced_schedule_passes_the_check_and_is_written(name):
    def run(schedule):
        schedules.check(schedule, argument="coefficient")
        assert name in str(schedule)
        return schedule(0)

    jax.jit(run)(example(name))
    schedules.check(example(name), argument="coefficient")
    schedules.check(jax.tree.map(jnp.asarray, example(name)), argument="coefficient")


@pytest.mark.parametrize(
    ("schedule", "error", "message"),
    [
        (0.1, TypeError, r"^coefficient is 0\.1, of type float, which is not a schedule; give one of: Constant, Li"),
        (schedules.Cosine, TypeError, r"of type type, which is not a schedule; .*Cosine\(0\.1, 1000\)"),
        (schedules.Parametric(), TypeError, r"of type Parametric, which is not a schedule"),
        (
            schedules.Constant(-0.1),
            ValueError,
            r"^coefficient = Constant\(-0\.1\): value is -0\.1; give a finite number",
        ),
        (schedules.Linear(0.1, np.inf, 3), ValueError, r"stop is inf; give a finite number >= 0"),
        (schedules.Linear(0.1, 0, jnp.array(-1)), ValueError, r"num_steps is -1; give"),
        (schedules.LogTime(0.1, float("nan")), ValueError, r"time_scale is nan; give"),
        (schedules.EarlyOnly(0.1, "ten"), TypeError, r"num_steps is 'ten', of type str; give a number"),
        (schedules.EarlyOnly(True, 10), TypeError, r"value is True, of type bool; give a number"),
        (schedules.EarlyOnly(np.True_, 10), TypeError, r"value is .*True.*; give a number"),
        (schedules.Exponential(None, 0.1), TypeError, r"start is None, of type NoneType; give a number"),
        (schedules.Constant([0.1, 0.2]), ValueError, r"value is an array of shape \(2,\); give one number"),
        (schedules.Constant(0.1j), TypeError, r"value is 0\.1j, of type complex; give a number"),
    ],
)
def test_check_refuses_what_no_schedule_allows(schedule, error, message):
    with pytest.raises(error, match=message):
        schedules.check(schedule, argument="coefficient")


def test_parametric_has_no_values():
    with pytest.raises(NotImplementedError, match="Parametric does not define its values"):
        schedules.Parametric()(0)


@pytest.mark.slow
@every_kind
def test_peak_is_the_largest_value(name):
    schedule = example(name)
    if name == "Function":
        assert schedule.largest() is None
        return
    values = [float(schedule(count)) for count in range(2000)]
    np.testing.assert_allclose(float(schedule.largest()), max(values), rtol=1e-6)
    traced = jax.jit(lambda one: one.largest())(schedule)
    np.testing.assert_allclose(float(traced), max(values), rtol=1e-6)


@pytest.mark.slow
def test_warmup_is_an_axis_whose_numbers_share_a_program_and_are_stored(tmp_path):
    """The schedule of most language models, for learning rates and for coefficients."""
    rates = [schedules.WarmupCosine(peak, 2, 8) for peak in (1e-3, 1e-2)] + [schedules.WarmupStableDecay(0.01, 2, 3, 8)]
    decay = [wd.NoDecay(), wd.Independent(0.01), wd.Decoupled(schedules.Sawtooth(0.0, 0.1, 4))]
    grid = wd.Grid(decay=decay, learning_rate=rates)
    settings = {"num_steps": 8, "batch_size": None, "progress": False}
    result = wd.fit_grid(wd.models.MLP((4,)), wd.data.diabetes(), grid, **settings)
    assert np.isfinite(result.dataset["validation_loss"]).all()
    alone = wd.fit_grid(
        wd.models.MLP((4,)),
        wd.data.diabetes(),
        wd.Grid(decay=decay[1:2], learning_rate=[1.0]),
        **settings,
        optimizer=lambda rate, decay, mask: wd.adam(
            optax.warmup_cosine_decay_schedule(0, 1e-2, 2, 8), decay, mask=mask, peak_learning_rate=1e-2
        ),
    )
    member = next(
        number for number, one in enumerate(grid) if (one["decay"], one["learning_rate"]) == (decay[1], rates[1])
    )
    np.testing.assert_allclose(
        result.params(member)["Dense_0"]["kernel"], alone.params(0)["Dense_0"]["kernel"], rtol=1e-4, atol=1e-6
    )
    result.save(tmp_path / "result")
    assert [one["learning_rate"] for one in wd.load(tmp_path / "result").members] == [
        one["learning_rate"] for one in grid
    ]


def test_peak_of_rising_growing_and_empty_schedules():
    assert float(schedules.Linear(0.1, 0.4, 10).largest()) == np.float32(0.4)
    assert float(schedules.Cosine(0.1, 10, 0.4).largest()) == np.float32(0.4)
    assert float(schedules.Cosine(0.4, 0, 0.1).largest()) == np.float32(0.1)  # it is 0.1 from the start
    assert schedules.Exponential(0.1, 1.1, 10).largest() is None
    with pytest.raises(ValueError, match=r"Independent\(0\.1\) together with a schedule needs the peak"):
        wd.adam(schedules.Exponential(0.1, 1.1, 10), wd.Independent(0.1))


@pytest.mark.slow
@pytest.mark.parametrize("make", [wd.sgd, wd.adam, wd.muon])
@pytest.mark.parametrize("kind", [wd.Independent, wd.Corrected])
def test_rules_that_need_the_peak_find_it_in_the_schedule(make, kind):
    rate, params = schedules.Cosine(0.1, 20), {"kernel": jnp.ones((2, 3))}
    gradient = jnp.sin

    def trained(transform):
        weights, state = params, transform.init(params)
        for _ in range(3):
            updates, state = transform.update(jax.tree.map(gradient, weights), state, weights)
            weights = jax.tree.map(jnp.add, weights, updates)
        return weights["kernel"]

    found = trained(make(rate, kind(0.3)))
    np.testing.assert_array_equal(found, trained(make(rate, kind(0.3), peak_learning_rate=rate.largest())))
    compiled = jax.jit(lambda rate: trained(make(rate, kind(0.3))))(rate)
    np.testing.assert_allclose(compiled, found, rtol=1e-5)  # fused and not


@pytest.mark.slow
def test_fit_grid_trains_independent_decay_with_a_schedule_of_known_peak():
    grid = wd.Grid(decay=[wd.Independent(0.02), wd.Corrected(0.2)], learning_rate=[schedules.Cosine(0.1, 20)])
    settings = {"num_steps": 8, "batch_size": None, "progress": False}
    result = wd.fit_grid(wd.models.MLP(()), wd.data.diabetes(), grid, **settings)
    # s c = η c / peak, and η s c: decoupled decay with a coefficient that is a schedule, too.
    equal = wd.Grid(
        decay=[wd.Decoupled(0.2), wd.Decoupled(schedules.Cosine(0.2, 20))], learning_rate=[schedules.Cosine(0.1, 20)]
    )
    expected = wd.fit_grid(wd.models.MLP(()), wd.data.diabetes(), equal, **settings)
    for member in range(2):
        kernels = [np.asarray(one.params(member)["Dense_0"]["kernel"]) for one in (result, expected)]
        np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)  # float32 over 8 steps
    assert np.isfinite(result.dataset["time_scale_epochs"].values).all()


@pytest.mark.parametrize("num_steps", [2**31, 2**40])
def test_schedule_of_more_steps_than_an_int32_is_right(num_steps):
    for count in (0, 2**30, 2**31 - 1):
        np.testing.assert_allclose(schedules.Linear(1.0, 0.0, num_steps)(count), 1 - count / num_steps, atol=1e-6)
        assert float(schedules.EarlyOnly(0.5, num_steps)(jnp.int32(count))) == 0.5


# Steps as fractions of a run.


def test_fractions_become_steps_of_the_run_and_steps_stay():
    whole = schedules.WarmupStableDecay(0.3, 0.1, 0.25)
    assert whole.over(2000) == schedules.WarmupStableDecay(0.3, 200, 500, 2000)
    assert schedules.Cosine(0.3, 1.0).over(70) == schedules.Cosine(0.3, 70)
    assert schedules.Sawtooth(0.3, 0.1, 0.001).over(100) == schedules.Sawtooth(0.3, 0.1, 1)  # at least one step
    assert schedules.Piecewise((0.5, 90), (1.0, 0.1, 0.0)).over(100).boundaries == (50, 90)
    in_steps = schedules.Cosine(0.3, 70.0)
    assert in_steps.over(100) is in_steps
    traced = schedules.Cosine(0.3, jnp.asarray(0.5))  # numbers of JAX are steps
    assert traced.over(100) is traced
    rule = wd.L2(wd.PerLayer({"Dense_0": schedules.EarlyOnly(0.1, 0.5)}, default=0.2))
    assert schedules.over(rule, 10) == wd.L2(wd.PerLayer({"Dense_0": schedules.EarlyOnly(0.1, 5)}, default=0.2))
    assert schedules.over(in_steps, 10) is in_steps
    assert [str(one) for one in (whole, schedules.Exponential(0.1, 0.5, 1.0), schedules.Exponential(0.1, 0.5, 1))] == [
        "WarmupStableDecay(0.3, 0.1, 0.25)",
        "Exponential(0.1, 0.5, 1.0)",
        "Exponential(0.1, 0.5)",
    ]


def test_fraction_outside_of_a_run_is_refused_with_what_mends_it():
    message = r"warmup_steps = 0\.1 is a fraction of the run; wd\.fit_grid .*WarmupCosine\(0\.3, 0\.1\)\.over\(1000\)"
    with pytest.raises(ValueError, match=message):
        schedules.WarmupCosine(0.3, 0.1)(0)
    with pytest.raises(ValueError, match=r"^learning_rate is Cosine\(0\.3\), in which num_steps = None is the whole"):
        wd.adam(schedules.Cosine(0.3), wd.NoDecay())
    params = {"kernel": jnp.ones((2, 2))}
    transformation = wd.sgd(0.1, wd.L2(schedules.Cosine(0.3)))
    with pytest.raises(ValueError, match=r"num_steps = None is the whole run"):
        transformation.update(params, transformation.init(params), params)


@pytest.mark.slow
def test_fractions_are_of_each_runs_length_and_a_longer_run_does_not_mix_them(tmp_path):
    """The member of 8 steps has other learning rates than the one of 16 steps, which is trained from its start."""
    grid = wd.Grid(
        decay=wd.Decoupled(schedules.Piecewise((0.5,), (0.1, 0.01))), learning_rate=schedules.WarmupCosine(0.01, 0.25)
    )
    in_steps = wd.Grid(
        decay=wd.Decoupled(schedules.Piecewise((8,), (0.1, 0.01))), learning_rate=schedules.WarmupCosine(0.01, 4, 16)
    )
    model, data, settings = wd.models.MLP((4,)), wd.data.diabetes(), {"batch_size": 16, "progress": False}
    directory = {"directory": tmp_path / "run", "eval_every": 4}
    short = wd.fit_grid(model, data, grid, num_steps=8, **settings, **directory)
    longer = wd.fit_grid(model, data, grid, num_steps=16, **settings, **directory)
    expected = wd.fit_grid(model, data, in_steps, num_steps=16, **settings)
    assert short.members == longer.members == list(grid)
    assert str(wd.load(tmp_path / "run").members[0]["learning_rate"]) == "WarmupCosine(0.01, 0.25)"

    def compare(one, other):
        return np.testing.assert_array_equal(*(r.params()["Dense_0"]["kernel"] for r in (one, other)))

    compare(longer, expected)
    assert np.isfinite(longer.dataset["time_scale_epochs"]).all()
    with pytest.raises(AssertionError):
        compare(short, longer)


# Functions: schedules of optax.


def cosine(peak=0.01):
    return optax.warmup_cosine_decay_schedule(0.0, peak, 2, 8)


def test_functions_are_equal_if_they_have_one_name_and_compute_the_same():
    one, again, other = (schedules.of_function(cosine(peak), argument="it") for peak in (0.01, 0.01, 0.02))
    assert one == again
    assert hash(one) == hash(again)
    assert one != other
    assert jax.tree.structure(one) == jax.tree.structure(again) != jax.tree.structure(other)
    tables = [jnp.arange(8.0), jnp.arange(8.0) + 1]
    first, second = (
        schedules.of_function(lambda step, t=table: jax.jit(t.__getitem__)(step), argument="it") for table in tables
    )
    assert first != second  # their programs differ in a constant alone


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda step: 0.1 if step < 3 else 0.0,
            r"learning_rate\[0\] is the function .*<lambda>, which JAX cannot trace",
        ),
        (lambda step: jnp.ones(3), r"which returns an array of shape \(3,\) for a step; a schedule returns one real"),
        (lambda step: None, r"which returns a NoneType for a step"),
    ],
)
def test_function_that_is_no_schedule_is_refused(function, message):
    with pytest.raises(TypeError, match=message):
        wd.Grid(learning_rate=[function])


@pytest.mark.slow
def test_optax_schedules_train_in_a_grid_and_in_a_directory(tmp_path):
    model, data = wd.models.MLP((4,)), wd.data.diabetes()
    settings = {"num_steps": 8, "batch_size": 16, "eval_every": 4, "progress": False}
    coefficient = optax.linear_schedule(0.1, 0.0, 8)
    grid = wd.Grid(
        decay=[wd.L2(0.01), wd.Decoupled(coefficient)], learning_rate=[cosine(), cosine(0.02)], seed=range(2)
    )
    result = wd.fit_grid(model, data, grid, **settings)
    ours = wd.Grid(
        decay=[wd.L2(0.01), wd.Decoupled(schedules.Linear(0.1, 0.0, 8))],
        learning_rate=[schedules.WarmupCosine(peak, 2, 8) for peak in (0.01, 0.02)],
        seed=range(2),
    )
    expected = wd.fit_grid(model, data, ours, **settings)
    for member in range(len(grid)):
        kernels = [np.asarray(one.params(member)["Dense_0"]["kernel"]) for one in (result, expected)]
        np.testing.assert_allclose(*kernels, rtol=1e-4, atol=1e-6)  # float32 over 8 steps
    assert result.dataset["candidate"].values.max() == 3
    result.save(tmp_path / "saved")
    again = wd.load(tmp_path / "saved")
    assert again.members == result.members
    with pytest.raises(ValueError, match=r"optax\.join_schedules#\w+ was read from a file, .*make the schedule again"):
        again.members[0]["learning_rate"](0)
    assert again.best().hyperparameters == result.best().hyperparameters

    # In a directory: the same schedule, made anew, resumes; another one is another member.
    def in_directory(rate, steps):
        return wd.fit(
            model,
            data,
            decay=wd.L2(0.01),
            learning_rate=rate,
            directory=tmp_path / "run",
            **{**settings, "num_steps": steps},
        )

    in_directory(cosine(), 4)
    kernels = [in_directory(cosine(peak), 8).params()["Dense_0"]["kernel"] for peak in (0.01, 0.02)]
    np.testing.assert_array_equal(kernels[0], result.params(0)["Dense_0"]["kernel"])
    np.testing.assert_array_equal(kernels[1], result.params(2)["Dense_0"]["kernel"])


@pytest.mark.slow
def test_optimizer_that_reads_a_traced_learning_rate_is_refused_with_what_mends_it():
    """`optax.warmup_cosine_decay_schedule` compares the peak with 0."""
    grid, data = wd.Grid(decay=wd.L2(0.1), learning_rate=[0.01]), wd.data.diabetes()
    with pytest.raises(TypeError, match=r"takes the value of a number that is traced.*WarmupCosine.*learning_rate \*"):
        wd.fit_grid(
            wd.models.MLP(()),
            data,
            grid,
            optimizer=lambda learning_rate, decay, mask: wd.adam(cosine(learning_rate), decay, mask=mask),
            num_steps=2,
            batch_size=None,
        )
