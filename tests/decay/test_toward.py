"""SODA and TowardAverage: the pull to the start, and to a running average."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd
from weightdecay.storage import checkpoints

DATA = wd.data.digits(num_train=60)
MODEL = wd.models.MLP((4,))
SHORT = {"num_steps": 8, "batch_size": 30, "eval_every": 4, "progress": False}
RATE = 3e-2


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_soda_averages_the_start_with_the_sum_of_the_steps():
    """Dual averaging: (k + 1) (w_k - w0) is minus the sum of (j + 2) η u_j, if the directions do not depend on w."""
    start = jnp.array(cases.KERNEL)
    directions = [np.cos(np.arange(12.0).reshape(3, 4) * (k + 1)) for k in range(5)]
    transform = wd.sgd(0.1, wd.SODA())
    params, state = start, transform.init(start)
    for k, direction in enumerate(directions):
        updates, state = transform.update(jnp.asarray(direction), state, params)
        params = optax.apply_updates(params, updates)
        # (w_{k+1} - w0) = (w_k - w0) (k + 1) / (k + 2) - η u_k, multiplied by k + 2.
        total = -sum(0.1 * (j + 2) * u for j, u in enumerate(directions[: k + 1]))
        np.testing.assert_allclose((k + 2) * (params - start), total, rtol=1e-12, atol=1e-14)


@pytest.mark.usefixtures("float64")
def test_soda_does_not_depend_on_the_learning_rate():
    far = jnp.array([[5.0, -1.0]])
    for rate in (1e-3, 10.0):
        transform = wd.adam(rate, wd.SODA(0.5))
        state = transform.init(jnp.zeros((1, 2)))._replace(step=jnp.array(3, jnp.int32))
        updates, _ = transform.update(jnp.zeros((1, 2)), state, far)
        np.testing.assert_allclose(updates, -0.5 * far / 5, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_soda_ends_after_its_number_of_steps():
    with_end, without = wd.sgd(0.1, wd.SODA(fade=2)), wd.sgd(0.1, wd.SODA())
    compare.same_bits(cases.train(with_end, num_steps=2), cases.train(without, num_steps=2))
    params = cases.train(without, num_steps=2)
    state = with_end.init(cases.params_of())._replace(step=jnp.array(2, jnp.int32))
    updates, _ = with_end.update(cases.gradient(params), state, params)
    np.testing.assert_array_equal(updates["Dense_0"]["kernel"], -0.1 * cases.gradient(params)["Dense_0"]["kernel"])


def test_soda_is_finite_at_the_largest_count():
    transform = wd.sgd(1.0, wd.SODA())
    state = transform.init(jnp.zeros((1, 2)))._replace(step=jnp.array(2**31 - 1, jnp.int32))
    updates, _ = transform.update(jnp.zeros((1, 2)), state, jnp.ones((1, 2)))
    np.testing.assert_allclose(updates, -1 / 2**31, rtol=1e-5)


def test_soda_takes_a_fraction_of_the_run_where_its_length_is_known():
    assert wd.SODA(fade=0.25).over(1000) == wd.SODA(fade=250)
    same = wd.SODA(fade=7)
    assert same.over(1000) is same
    touched = wd.decay.schedules.over(wd.Touched(wd.SODA(fade=0.5)), 10)
    assert touched == wd.Touched(wd.SODA(fade=5))
    for rule in (wd.SODA(fade=0.5), wd.Touched(wd.SODA(fade=0.5))):
        with pytest.raises(
            ValueError, match=r"SODA\(fade=0\.5\): fade is 0\.5, a fraction.*SODA\(fade=0\.5\)\.over\(1000\)"
        ):
            wd.adam(0.1, rule)
    with pytest.raises(ValueError, match="fade is -1; a coefficient is a finite number > 0"):
        wd.adam(0.1, wd.SODA(fade=-1))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_toward_average_is_a_fixed_point_at_rest_and_an_anchor_at_one():
    rest = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    compare.same_bits(cases.train(wd.sgd(0.1, wd.TowardAverage(2.0, 0.9)), gradient_fn=rest), cases.params_of())
    one, anchor = wd.TowardAverage(2.0, 1.0), wd.TowardAnchor(2.0, decoupled=True)
    compare.close(cases.train(wd.adam(0.1, one)), cases.train(wd.adam(0.1, anchor)), rtol=1e-12)
    zero = cases.train(wd.adam(0.1, wd.TowardAverage(2.0, 0.0)))
    compare.same_bits(zero, cases.train(wd.adam(0.1, wd.NoDecay())))  # the average is the weights


@pytest.mark.usefixtures("float64")
def test_toward_average_uses_the_average_that_optax_computes():
    start, average = jnp.array(cases.KERNEL), optax.ema(0.8, debias=False)
    transform = wd.sgd(0.1, wd.TowardAverage(3.0, 0.8))
    params, state, memory = start, transform.init(start), average.init(start)._replace(ema=start)
    for _ in range(5):
        updates, state = transform.update(cases.gradient(params), state, params)
        mean, memory = average.update(params, memory)
        np.testing.assert_allclose(
            updates, -0.1 * cases.gradient(params) - 0.1 * 3.0 * (params - mean), rtol=1e-12, atol=1e-15
        )
        params = optax.apply_updates(params, updates)


def test_toward_average_keeps_its_digits_in_bfloat16():
    start = jnp.ones((1, 2), jnp.bfloat16)
    transform = wd.sgd(1.0, wd.TowardAverage(0.0, 0.999))
    state = transform.init(start)
    moved = start + 1
    for _ in range(10):
        _, state = transform.update(jnp.zeros_like(start), state, moved)
    np.testing.assert_allclose(state.decay[0], 2 - 0.999**10, rtol=1e-6)  # in bfloat16 it would still be 1


STATEFUL = [
    wd.SODA(0.5, fade=0.5),
    wd.TowardAverage(3.0, 0.7),
    (wd.Hyperball(), wd.TowardAverage(1.0)),
    (wd.Decoupled(0.1), wd.RadialBrake(0.3), wd.RelativeStep(2.0)),
]
AT_START = wd.Grid(decay=wd.NoDecay(), learning_rate=1e-30)


def by_hand(rule, params, num_steps):
    """Full-batch training of the MLP in a loop of optax, with a transformation of this library."""
    inputs, labels = (np.asarray(array) for array in DATA.train)

    def loss(params):
        hidden = jax.nn.relu(inputs.reshape(len(inputs), -1) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
        outputs = hidden @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(outputs, labels).mean()

    transform = wd.adam(RATE, rule)
    state = transform.init(params)
    step = jax.jit(lambda params, state: transform.update(jax.grad(loss)(params), state, params))
    for _ in range(num_steps):
        updates, state = step(params, state)
        params = optax.apply_updates(params, updates)
    return params


@pytest.mark.slow
def test_fit_grid_trains_rules_with_a_memory_as_a_loop_by_hand_does(tmp_path):
    grid = wd.Grid(decay=STATEFUL, learning_rate=RATE)
    settings = {**SHORT, "batch_size": None, "directory": tmp_path / "run"}
    result = wd.fit_grid(MODEL, DATA, AT_START + grid, **settings)
    start = jax.tree.map(jnp.asarray, result.params(0))
    for index, member in enumerate(grid, 1):
        in_steps = wd.decay.schedules.over(member["decay"], 8)
        compare.close(result.params(index), by_hand(in_steps, start, 8), rtol=2e-4, atol=2e-5)  # float32, fused
    assert wd.load(tmp_path / "run").dataset.identical(result.dataset)
    table = result.table()
    assert set(table["decay"]) >= {"NoDecay", "SODA", "TowardAverage", "Hyperball + TowardAverage"}
    assert table.loc[table["decay"] == "TowardAverage", "average_decay"].item() == pytest.approx(0.7)


@pytest.mark.slow
def test_rules_with_a_memory_resume_with_the_same_bits(tmp_path, monkeypatch):
    """What a rule carries is in the checkpoint: a run that is cut off ends as one that is not."""
    grid = wd.Grid(decay=STATEFUL[:3], learning_rate=RATE)

    def fit(directory):
        return wd.fit_grid(MODEL, DATA, grid, directory=directory, save_every=1e-9, **SHORT)

    whole, write, num_written = fit(None), checkpoints.write, []

    def limited(folder, blocks):
        if len(num_written) == 1:
            raise ConnectionAbortedError("gone")
        num_written.append(folder)
        return write(folder, blocks)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", limited)
        with (
            pytest.warns(UserWarning, match="training continues"),
            pytest.warns(UserWarning, match="could not be saved"),
        ):
            fit(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "result")
    resumed = fit(tmp_path / "run")
    for index in range(3):
        compare.same_bits(resumed.params(index), whole.params(index))
    assert resumed.dataset.identical(whole.dataset)


@pytest.mark.slow
def test_accumulated_gradients_and_frozen_weights_work_with_rules_that_have_a_memory():
    grid = AT_START + wd.Grid(decay=STATEFUL, learning_rate=RATE)
    of = lambda **options: wd.fit_grid(MODEL, DATA, grid, **{**SHORT, **options})  # noqa: E731
    whole, parts, frozen = of(), of(accumulate=3), of(trainable=wd.masks.matching("Dense_1"))
    for index in range(1, len(grid)):
        compare.close(whole.params(index), parts.params(index), rtol=1e-3, atol=1e-4)  # sums in another order
        trained, start = frozen.params(index), frozen.params(0)
        compare.same_bits(trained["Dense_0"], start["Dense_0"])
        assert np.abs(trained["Dense_1"]["kernel"] - start["Dense_1"]["kernel"]).max() > 1e-3
