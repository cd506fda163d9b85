"""Coefficients and learning rates that follow the fan-in of a kernel: `PerLayer` with a base width."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import compare
import weightdecay as wd
from weightdecay.search import member

RNG = np.random.default_rng(0)
SHAPES = {
    "Dense_0": {"kernel": (5, 16), "bias": (16,)},
    "Dense_1": {"kernel": (16, 32), "bias": (32,)},
    "Conv_0": {"kernel": (3, 3, 2, 4), "bias": (4,)},
    "query": {"kernel": (6, 2, 4), "bias": (2, 4)},
    "Embed_0": {"embedding": (7, 3)},
}
PARAMS = jax.tree.map(
    lambda shape: jnp.asarray(RNG.normal(size=shape), jnp.float32), SHAPES, is_leaf=lambda s: isinstance(s, tuple)
)
FAN_IN = {"Dense_0": 5, "Dense_1": 16, "Conv_0": 18, "query": 6}  # by hand: inputs, times the window
gradient = lambda params: jax.tree.map(jnp.cos, params)  # noqa: E731


def factors(base, power):
    """What each array is multiplied by: kernels by their fan-in, all else by 1."""
    of_array = lambda layer, name: (FAN_IN[layer] / base) ** power if name == "kernel" else 1.0  # noqa: E731
    return {layer: {name: of_array(layer, name) for name in arrays} for layer, arrays in SHAPES.items()}


@pytest.mark.parametrize("power", [-1, 0.5, 0])
def test_coefficient_by_width_is_a_power_of_the_fan_in(power):
    by_width = wd.PerLayer({"Dense_0": 0.3}, default=0.2, base_width=8, power=power)
    transform = wd.sgd(0.5, wd.Decoupled(by_width), mask=wd.masks.everything)
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    updates, _ = transform.update(zeros, transform.init(PARAMS), PARAMS)
    for layer, arrays in factors(8, power).items():
        for name, factor in arrays.items():
            coefficient = 0.3 if layer == "Dense_0" else 0.2 * factor  # a pattern's number is used as it is written
            expected = -0.5 * coefficient * PARAMS[layer][name]
            np.testing.assert_allclose(updates[layer][name], expected, rtol=1e-6)  # float32


@pytest.mark.parametrize("rate", [0.05, wd.schedules.Linear(0.05, 0.01, 5)], ids=["number", "schedule"])
def test_learning_rate_by_width_is_adam_of_optax_scaled(rate):
    ours = wd.adam(wd.PerLayer({}, default=rate, base_width=8), wd.Independent(0.1), mask=wd.masks.everything)
    scale = factors(8, -1)
    at = rate if callable(rate) else lambda count: rate
    base = optax.scale_by_adam()
    params, state, memory, expected = PARAMS, ours.init(PARAMS), base.init(PARAMS), PARAMS
    for count in range(3):
        updates, state = ours.update(gradient(params), state, params)
        params = optax.apply_updates(params, updates)
        directions, memory = base.update(gradient(expected), memory)
        eta = float(at(count))
        # Independent decay follows the schedule, η / its peak, which the width does not change.
        expected = jax.tree.map(
            lambda w, u, factor, eta=eta: w - eta * factor * u - 0.1 * eta / 0.05 * w, expected, directions, scale
        )
    compare.close(params, expected, rtol=1e-5, atol=1e-6)  # float32


def test_coefficient_by_width_may_be_traced_and_traces_once():
    traces = []

    @jax.jit
    def update(rate, coefficient):
        traces.append(rate)
        rates = wd.PerLayer({"Dense_0": rate}, default=rate, base_width=8)
        rule = wd.Decoupled(wd.PerLayer({}, default=coefficient, base_width=8, power=1))
        transform = wd.sgd(rates, rule, mask=wd.masks.everything)
        return transform.update(gradient(PARAMS), transform.init(PARAMS), PARAMS)[0]

    for coefficient in (0.0, 0.3):
        updates = update(0.5, coefficient)
        # η falls and c rises with the width: a step removes the same fraction of every kernel with the default.
        scale = factors(8, -1)["Dense_1"]["kernel"]
        w = PARAMS["Dense_1"]["kernel"]
        np.testing.assert_allclose(
            updates["Dense_1"]["kernel"], -0.5 * scale * jnp.cos(w) - 0.5 * coefficient * w, rtol=1e-5, atol=1e-6
        )
    assert len(traces) == 1


def test_per_layer_by_width_is_stored_shown_and_compared():
    plain, wide = wd.PerLayer({"a": 0.1}, default=0.2), wd.PerLayer({"a": 0.1}, default=0.2, base_width=8, power=-2)
    assert plain != wide
    assert jax.tree.structure(plain) != jax.tree.structure(wide)
    leaves, structure = jax.tree.flatten(wide)
    assert structure.unflatten(leaves) == wide
    assert jax.tree.leaves(structure.unflatten([None, None])) == []  # JAX puts placeholders in
    for one in (plain, wide):
        for hyperparameters in ({"decay": wd.L2(one)}, {"learning_rate": one}):
            assert member.decode(member.encode(hyperparameters)) == hyperparameters
    assert "base_width" not in str(member.encode({"learning_rate": plain}))  # as earlier versions stored it
    grid = wd.Grid(decay=wd.Decoupled(wide), learning_rate=[wide, plain, 0.1])
    assert grid[0]["learning_rate"] == wide
    table = str(wd.masks.describe(PARAMS, decay=wd.L2(wd.PerLayer({}, default=0.2, base_width=8, power=-2))))
    assert "0.2 · 0.25" in table  # Dense_1: (16 / 8)^-2


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: wd.PerLayer({}, default=0.1, base_width=0), ValueError, "base_width is 0; give a fan-in above 0"),
        (lambda: wd.PerLayer({}, default=0.1, base_width="x"), TypeError, "base_width is 'x'"),
        (
            lambda: wd.PerLayer({}, default=0.1, base_width=8, power=float("nan")),
            ValueError,
            "power is nan; give a finite",
        ),
        (
            lambda: wd.PerLayer({".*": 0.1}, base_width=8),
            ValueError,
            "default is None, and base_width scales the default",
        ),
    ],
)
@pytest.mark.usefixtures("without_beartype")
def test_per_layer_by_width_refuses(make, error, message):
    with pytest.raises(error, match=message):
        make()
