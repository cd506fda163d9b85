"""What theory foretells, beside simulations, figures of the literature and scikit-learn's data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets
from sklearn.linear_model import Lasso, Ridge

import weightdecay as wd
from weightdecay.decay import theory
from weightdecay.training import diagnostics


@pytest.fixture
def diabetes():
    inputs, targets = datasets.load_diabetes(return_X_y=True, scaled=False)
    return (inputs - inputs.mean(0)) / inputs.std(0), targets - targets.mean()


def simulated(optimizer, decay, num_steps=10_000):
    """Angle a step of 1,000 weights whose gradient is noise across them, as that of a scale-invariant loss is."""

    def step(carry, key):
        params, state = carry
        weights = params["kernel"]
        noise = jax.random.normal(key, weights.shape)
        across = noise - (noise @ weights) / (weights @ weights) * weights
        updates, state = optimizer.update({"kernel": across / jnp.linalg.norm(weights)}, state, params)
        after = jax.tree.map(jnp.add, params, updates)
        return (after, state), diagnostics.angle(weights, after["kernel"])

    params = {"kernel": jax.random.normal(jax.random.key(0), (1000,))}
    keys = jax.random.split(jax.random.key(1), num_steps)
    _, angles = jax.lax.scan(step, (params, optimizer.init(params)), keys)
    return float(angles[num_steps // 2 :].mean())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "member"),
    [
        (wd.adam, {"decay": wd.Decoupled(0.1), "learning_rate": 0.01}),
        (wd.adam, {"decay": wd.Independent(1e-3), "learning_rate": 0.01}),
        (wd.sgd, {"decay": wd.L2(0.1), "learning_rate": 0.05}),
        (wd.sgd, {"decay": wd.L2(0.1), "learning_rate": 0.05, "momentum": 0.9}),
    ],
    ids=["adamw", "independent", "sgd", "momentum"],
)
def test_decayed_rotation_is_that_of_a_simulation(kind, member):
    optimizer = kind(**member, mask=wd.masks.everything)
    (predicted,) = theory.decayed(optimizer, [1]).rotation
    # The equilibrium is one of means: a run of 5,000 steps is within some percent of it.
    np.testing.assert_allclose(simulated(optimizer, member["decay"]), predicted, rtol=0.04)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "decay", "others"),
    [
        (wd.adam, wd.Decoupled(0.5), {}),
        (wd.adam, wd.Independent(0.01), {}),
        (wd.adam, wd.Corrected(0.5), {}),
        (wd.sgd, wd.Decoupled(0.5), {"momentum": 0.9}),
        (wd.lion, wd.Decoupled(0.5), {}),
        (wd.adam, wd.Decoupled(wd.schedules.Linear(1.0, 0.1, 40)), {}),
    ],
)
def test_decayed_time_scale_is_how_weights_shrink_by_themselves(kind, decay, others):
    params = {"kernel": jnp.ones((4, 4))}
    optimizer = kind(0.02, decay, mask=wd.masks.everything, **others)
    state, norms = optimizer.init(params), [4.0]
    zeros = jax.tree.map(jnp.zeros_like, params)
    for _ in range(10):
        updates, state = optimizer.update(zeros, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        norms.append(float(jnp.linalg.norm(params["kernel"])))
    predicted = theory.decayed(optimizer, range(1, 11))
    # float32: shares of 1e-2 are known to some 1e-5.
    np.testing.assert_allclose(1 - np.divide(norms[1:], norms[:-1]), 1 / predicted.time_scale, rtol=1e-4)


def test_decayed_time_scale_of_l2_under_momentum_is_reached_slowly():
    optimizer = wd.sgd(0.01, wd.L2(0.01), momentum=0.9, mask=wd.masks.everything)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update({"kernel": jnp.zeros(3)}, state, params)
        after = jax.tree.map(jnp.add, params, updates)
        return (after, state), after["kernel"][0]

    params = {"kernel": jnp.ones(3)}
    _, weights = jax.lax.scan(step, (params, optimizer.init(params)), length=400)
    (time_scale,) = theory.decayed(optimizer, [1]).time_scale
    # exp(-steps / time scale) to first order in learning rate x coefficient / (1 - momentum)², which is 0.01.
    np.testing.assert_allclose(np.log(weights[399] / weights[199]), -200 / time_scale, rtol=0.02)


@pytest.mark.parametrize(
    ("kind", "decay"),
    [
        (wd.adam, wd.L2(0.1)),
        (wd.adam, wd.NoDecay()),
        (wd.adam, (wd.L2(0.1), wd.Decoupled(0.1))),
        (wd.adam, wd.Decoupled(wd.PerLayer({".*": 0.1}))),
        (wd.adam, wd.Masked(wd.Decoupled(0.1), wd.masks.first)),
        (wd.adam, wd.MaxNorm(1.0)),
        (wd.lion, wd.L1(0.1)),
    ],
)
def test_decayed_is_silent_where_theory_is(kind, decay):
    predicted = theory.decayed(kind(0.1, decay), [1, 2])
    assert np.isnan(predicted.time_scale).all()
    assert np.isnan(predicted.rotation).all()


def test_decayed_without_a_coefficient_has_no_end():
    predicted = theory.decayed(wd.adam(0.1, wd.Decoupled(0.0)), [1])
    assert (predicted.time_scale.item(), predicted.rotation.item()) == (np.inf, 0.0)


def test_degrees_of_freedom_of_diabetes_are_those_of_the_literature(diabetes):
    inputs, _ = diabetes
    # scikit-learn's Ridge(alpha=1): c = 2 alpha / n beside a mean squared error without 1/2.
    freedom = theory.degrees_of_freedom(inputs, wd.L2(2 / len(inputs)), intercept=False)
    np.testing.assert_allclose(freedom, 9.7400431, atol=1e-7)  # as many digits as are printed


@pytest.mark.parametrize("intercept", [True, False])
def test_degrees_of_freedom_are_the_trace_of_ridges_hat_matrix(diabetes, intercept):
    inputs = diabetes[0][:60] + 1.0
    hat = [
        Ridge(alpha=3.0, fit_intercept=intercept).fit(inputs, row).predict(inputs)[place]
        for place, row in enumerate(np.eye(len(inputs)))
    ]
    freedom = theory.degrees_of_freedom(inputs, wd.ProximalL2(6.0 / len(inputs)), intercept=intercept)
    np.testing.assert_allclose(freedom, sum(hat), rtol=1e-8)


def test_degrees_of_freedom_without_decay_are_the_rank():
    inputs = np.random.default_rng(0).normal(size=(9, 3)) @ np.ones((3, 5))
    for decay in (wd.NoDecay(), wd.L2(0.0)):
        assert theory.degrees_of_freedom(inputs, decay, intercept=False) == pytest.approx(1)


def test_degrees_of_freedom_of_l1_are_the_weights_left(diabetes):
    num_nonzero = int(np.count_nonzero(Lasso(alpha=1.0).fit(*diabetes).coef_))
    assert theory.degrees_of_freedom(diabetes[0], wd.ProximalL1(2.0), num_nonzero=num_nonzero) == num_nonzero + 1 == 8


@pytest.mark.parametrize(
    "decay", [wd.Decoupled(0.1), wd.L2(wd.schedules.Linear(1.0, 0.0, 4)), wd.MaxNorm(1.0), wd.L1(1.0)]
)
def test_degrees_of_freedom_are_unknown_elsewhere(diabetes, decay):
    assert np.isnan(theory.degrees_of_freedom(diabetes[0], decay))


def test_fit_grid_tells_what_theory_says_beside_what_it_measured():
    data = wd.data.diabetes()
    linear = wd.models.MLP(())
    grid = wd.Grid(decay=[wd.L2(0.3), wd.Decoupled(0.1), wd.ProximalL1(0.05)], learning_rate=0.05)
    result = wd.fit_grid(linear, data, grid, optimizer=wd.sgd, num_steps=60, batch_size=None, progress=False)
    told = result.dataset
    expected = theory.degrees_of_freedom(data.train[0], wd.L2(0.3))
    assert told["degrees_of_freedom"].values[0] == pytest.approx(expected)
    assert np.isnan(told["degrees_of_freedom"].values[1])
    left = np.count_nonzero(result.params(2)["Dense_0"]["kernel"])
    assert told["degrees_of_freedom"].values[2] == left + 1
    assert told["decaying_fraction"].values == pytest.approx([10 / 11] * 3)
    # Every step is an epoch here.
    np.testing.assert_allclose(told["time_scale_epochs"].values[:2, -1], [1 / 0.015, 1 / 0.005], rtol=1e-6)
    np.testing.assert_allclose(told["predicted_rotation"].values[0, -1, 0], np.sqrt(0.03), rtol=1e-6)
    assert np.isnan(told["predicted_rotation"].values[2]).all()
