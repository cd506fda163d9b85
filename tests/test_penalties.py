"""Penalties against numpy: masks, trees of every shape, gradients, and a penalty joined to a loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from weightdecay import penalties

ROUNDING = {"rtol": 1e-6}  # a few float32 roundings, in sums of a few dozen terms of one sign
NUMPY = {
    "l1": lambda w: np.abs(w).sum(),
    "l2": lambda w: np.square(w).sum() / 2,
    "elastic_net": lambda w: np.abs(w).sum() + np.square(w).sum() / 2,
}
PARAMS = {
    "Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.25, -0.75])},
    "Dense_1": {"kernel": jnp.array([[-1.5], [4.0]]), "bias": jnp.array([2.0])},
}
WEIGHTS = {name: np.concatenate([np.ravel(leaf) for leaf in layer.values()]) for name, layer in PARAMS.items()}
ARRAYS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4), elements=st.floats(-8, 8, width=32)
)


@pytest.mark.parametrize("name", NUMPY)
@settings(max_examples=20, deadline=None)
@given(leaves=st.lists(ARRAYS, max_size=3))
def test_penalty_is_numpys_for_any_shapes(name, leaves):
    expected = sum(NUMPY[name](leaf.astype(np.float64)) for leaf in leaves)
    for params in (leaves, {"layer": {"kernels": tuple(leaves)}}):
        penalty = getattr(penalties, name)(params)
        assert jnp.shape(penalty) == ()
        np.testing.assert_allclose(penalty, expected, **ROUNDING, atol=1e-30)  # atol: squares of denormals


def test_elastic_net_weighs_its_two_parts():
    params = PARAMS["Dense_0"]
    penalty = penalties.elastic_net(params, l1_coefficient=0.3, l2_coefficient=jnp.array(2.0))
    np.testing.assert_allclose(penalty, 0.3 * penalties.l1(params) + 2 * penalties.l2(params), **ROUNDING)
    without_biases = penalties.elastic_net(params, {"kernel": True, "bias": False}, l1_coefficient=0.3)
    np.testing.assert_allclose(without_biases, 0.3 * 6.5 + 14.25 / 2, **ROUNDING)


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize(
    ("mask", "counted"),
    [
        (None, ("Dense_0", "Dense_1")),
        (True, ("Dense_0", "Dense_1")),
        (np.True_, ("Dense_0", "Dense_1")),
        (False, ()),
        ({"Dense_0": True, "Dense_1": False}, ("Dense_0",)),
        ({"Dense_0": {"kernel": False, "bias": False}, "Dense_1": True}, ("Dense_1",)),
        ({"Dense_0": jnp.array(True), "Dense_1": jnp.array(False)}, ("Dense_0",)),
    ],
)
def test_penalty_counts_what_the_mask_selects(name, mask, counted):
    expected = sum(NUMPY[name](WEIGHTS[layer]) for layer in counted)
    np.testing.assert_allclose(getattr(penalties, name)(PARAMS, mask), expected, **ROUNDING)


def test_penalty_takes_a_traced_mask():
    penalty = jax.jit(lambda kernel: penalties.l1(PARAMS, {"Dense_0": kernel, "Dense_1": False}))
    np.testing.assert_allclose([penalty(True), penalty(False)], [7.5, 0], **ROUNDING)


def test_penalty_refuses_a_mask_that_does_not_fit():
    with pytest.raises(ValueError, match=r"mask is a tree that does not fit .*'Dense_9'.*Dense_0/bias, Dense_0/kernel"):
        penalties.l2(PARAMS, {"Dense_9": True})
    with pytest.raises(TypeError, match="function"):
        penalties.l2(PARAMS, lambda params: True)


@pytest.mark.parametrize("name", NUMPY)
@pytest.mark.parametrize(
    "params", [{}, [], None, {"layer": {}}, {"layer": None}, jnp.zeros((0, 3)), [(), jnp.zeros(())]]
)
def test_penalty_of_nothing_is_zero(name, params):
    for mask in (None, True, False):
        penalty = getattr(penalties, name)(params, mask)
        assert jnp.shape(penalty) == ()
        assert penalty == 0


def test_penalty_passes_over_none_leaves():
    params = {"kernel": jnp.array([3.0, -4.0]), "bias": None, "rest": {}}
    assert penalties.l1(params) == 7
    assert penalties.l2(params, {"kernel": True, "bias": None, "rest": {}}) == 12.5


def test_l2_has_the_weights_as_its_gradient():
    gradient = jax.grad(penalties.l2)(PARAMS)
    jax.tree.map(np.testing.assert_array_equal, gradient, PARAMS)
    masked = jax.grad(penalties.l2)(PARAMS, {"Dense_0": True, "Dense_1": False})
    np.testing.assert_array_equal(masked["Dense_0"]["kernel"], PARAMS["Dense_0"]["kernel"])
    np.testing.assert_array_equal(masked["Dense_1"]["kernel"], 0)


def test_l1_has_the_signs_as_its_gradient():
    np.testing.assert_array_equal(jax.grad(penalties.l1)(jnp.array([3.0, -0.5])), [1, -1])


def _squared_error(weights, batch):
    inputs, targets = batch
    return jnp.mean((inputs @ weights - targets) ** 2) / 2


BATCH = (jnp.array([[1.0, 2.0], [0.0, -1.0], [3.0, 1.0]]), jnp.array([1.0, 0.0, 2.0]))
POINT = jnp.array([2.0, -1.0])  # errors (-1, 1, 3), |w|²/2 = 2.5


def test_penalized_adds_its_parts_up():
    total, parts = penalties.penalized(_squared_error, penalties.l2)(POINT, BATCH, 0.1)
    assert set(parts) == {"loss", "penalty"}
    np.testing.assert_allclose([parts["loss"], parts["penalty"]], [11 / 6, 0.25], **ROUNDING)
    np.testing.assert_allclose(total, parts["loss"] + parts["penalty"], **ROUNDING)


def test_penalized_serves_value_and_grad():
    penalized = penalties.penalized(_squared_error, penalties.l2)
    (total, parts), gradient = jax.jit(jax.value_and_grad(penalized, has_aux=True))(POINT, BATCH, 0.1)
    np.testing.assert_allclose(total, sum(parts.values()), **ROUNDING)
    inputs, targets = map(np.asarray, BATCH)
    expected = inputs.T @ (inputs @ np.asarray(POINT) - targets) / 3 + 0.1 * np.asarray(POINT)
    np.testing.assert_allclose(gradient, expected, **ROUNDING)


def test_penalized_takes_traced_coefficients():
    penalized = penalties.penalized(_squared_error, penalties.l1)
    coefficients = jnp.array([0.0, 0.1, 10.0])
    totals, parts = jax.vmap(penalized, (None, None, 0))(POINT, BATCH, coefficients)
    np.testing.assert_allclose(parts["penalty"], 3 * coefficients, **ROUNDING)
    np.testing.assert_allclose(totals, 11 / 6 + 3 * coefficients, **ROUNDING)
    slope = jax.grad(lambda coefficient: penalized(POINT, BATCH, coefficient)[0])(0.5)
    np.testing.assert_allclose(slope, 3, **ROUNDING)  # the penalty itself


def test_l1_has_the_gradient_of_the_rule_at_zero():
    np.testing.assert_array_equal(jax.grad(penalties.l1)(jnp.array([0.0, -0.0, 2.0, -3.0])), [0, 0, 1, -1])
