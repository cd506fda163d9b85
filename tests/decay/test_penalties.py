"""Penalties against numpy and torch: masks, trees of every shape, gradients, and a penalty joined to a loss."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from weightdecay.decay import penalties

ROUNDING = {"rtol": 1e-6}  # a few float32 roundings, in sums of a few dozen terms of one sign
PENALTIES = {
    name: function
    for name, function in inspect.getmembers(penalties, inspect.isfunction)
    if function.__module__ == penalties.__name__
    and list(inspect.signature(function).parameters)[:2] == ["params", "mask"]
}
ARGUMENTS = {"huber": {"delta": 1.5}, "elimination": {"scale": 2.0}, "lp": {"p": 1.25}}


def _matrix(w):
    return w.reshape(-1, w.shape[-1]) if w.ndim >= 2 and w.size else np.zeros((0, 0))


def _norms(w):
    return np.sqrt(np.square(w).sum(tuple(range(w.ndim - 1)), keepdims=True))


NUMPY = {  # of one array
    "l1": lambda w: np.abs(w).sum(),
    "l2": lambda w: np.square(w).sum() / 2,
    "elastic_net": lambda w: np.abs(w).sum() + np.square(w).sum() / 2,
    "huber": lambda w: np.where(np.abs(w) <= 1.5, w**2 / 2, 1.5 * (np.abs(w) - 0.75)).sum(),
    "elimination": lambda w: (w**2 / (4 + w**2)).sum(),
    "orthogonal": lambda w: np.square(_matrix(w).T @ _matrix(w) - np.eye(_matrix(w).shape[1])).sum(),
    "spectral": lambda w: max(np.linalg.svd(_matrix(w), compute_uv=False), default=0) ** 2 / 2,
    "group_lasso": lambda w: np.sqrt(np.prod(w.shape[:-1])) * _norms(w).sum(),
    "lp": lambda w: (np.abs(w) ** 1.25).sum(),
}


def _spectral_gradient(w):
    u, s, v = np.linalg.svd(_matrix(w), full_matrices=False)
    return (s[0] * np.outer(u[:, 0], v[0])).reshape(w.shape) if s.size else 0 * w


GRADIENTS = {
    "l1": np.sign,
    "l2": lambda w: w,
    "elastic_net": lambda w: np.sign(w) + w,
    "huber": lambda w: np.clip(w, -1.5, 1.5),
    "elimination": lambda w: (2 * w / 4) / (1 + w**2 / 4) ** 2,
    "orthogonal": lambda w: (
        (4 * _matrix(w) @ (_matrix(w).T @ _matrix(w) - np.eye(_matrix(w).shape[1]))).reshape(w.shape)
        if w.ndim >= 2
        else 0 * w
    ),
    "spectral": _spectral_gradient,
    "group_lasso": lambda w: np.sqrt(np.prod(w.shape[:-1])) * w / _norms(w),
    "lp": lambda w: 1.25 * np.abs(w) ** 0.25 * np.sign(w),
}
PENALTY = {name: functools.partial(function, **ARGUMENTS.get(name, {})) for name, function in PENALTIES.items()}
every_penalty = pytest.mark.parametrize("name", PENALTIES)
PARAMS = {
    "Dense_0": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([0.25, -0.75])},
    "Dense_1": {"kernel": jnp.array([[-1.5], [4.0]]), "bias": jnp.array([2.0])},
}
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float64]
# Whole eighths, so that every dtype holds them: the penalties of the same weights differ in rounding alone.
ARRAYS = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    elements=st.integers(-31, 31).map(lambda number: number / 8),
)


def test_every_penalty_has_an_example():
    assert set(PENALTIES) == set(NUMPY) == set(GRADIENTS)


@pytest.mark.slow
@every_penalty
@settings(max_examples=5, deadline=None, derandomize=True)
@given(leaves=st.lists(ARRAYS, max_size=2), dtype=st.sampled_from(DTYPES))
def test_penalty_is_numpys_for_any_shapes(name, leaves, dtype):
    expected = sum(NUMPY[name](leaf) for leaf in leaves)
    with jax.enable_x64(dtype == jnp.float64):
        arrays = [jnp.asarray(leaf, dtype) for leaf in leaves]
        penalty = PENALTY[name]({"layer": {"kernels": tuple(arrays), "bias": None}, "rest": []})
        assert jnp.shape(penalty) == ()
        # A few roundings in sums of up to 27 terms of one sign; l1 and l2 of bfloat16 weights are summed as such.
        np.testing.assert_allclose(penalty, expected, rtol=8 * float(jnp.finfo(dtype).eps))


def test_elastic_net_weighs_its_two_parts():
    params = PARAMS["Dense_0"]
    penalty = penalties.elastic_net(params, l1_coefficient=0.3, l2_coefficient=jnp.array(2.0))
    np.testing.assert_allclose(penalty, 0.3 * penalties.l1(params) + 2 * penalties.l2(params), **ROUNDING)
    without_biases = penalties.elastic_net(params, {"kernel": True, "bias": False}, l1_coefficient=0.3)
    np.testing.assert_allclose(without_biases, 0.3 * 6.5 + 14.25 / 2, **ROUNDING)


@pytest.mark.slow
@every_penalty
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
    expected = sum(NUMPY[name](np.asarray(leaf, float)) for layer in counted for leaf in PARAMS[layer].values())
    np.testing.assert_allclose(PENALTY[name](PARAMS, mask), expected, **ROUNDING)


def test_penalty_takes_a_traced_mask():
    penalty = jax.jit(lambda kernel: penalties.l1(PARAMS, {"Dense_0": kernel, "Dense_1": False}))
    np.testing.assert_allclose([penalty(True), penalty(False)], [7.5, 0], **ROUNDING)


def test_penalty_refuses_a_mask_that_does_not_fit():
    with pytest.raises(ValueError, match=r"mask is a tree that does not fit .*'Dense_9'.*Dense_0/bias, Dense_0/kernel"):
        penalties.l2(PARAMS, {"Dense_9": True})
    with pytest.raises(TypeError, match="function"):
        penalties.l2(PARAMS, lambda params: True)


@pytest.mark.slow
@every_penalty
@pytest.mark.parametrize(
    "params", [{}, [], None, {"layer": {}}, {"layer": None}, jnp.zeros((0, 3)), [(), jnp.zeros(())]]
)
def test_penalty_of_nothing_is_zero(name, params):
    for mask in (None, True, False):
        penalty = PENALTY[name](params, mask)
        assert jnp.shape(penalty) == ()
        assert penalty == 0


@pytest.mark.slow
@every_penalty
@pytest.mark.usefixtures("float64")
def test_penalty_has_the_gradient_of_its_formula(name):
    random = np.random.default_rng(3)
    params = {
        "kernel": 2 * random.normal(size=(4, 3)),
        "filters": random.normal(size=(2, 3, 2)),
        "wide": random.normal(size=(2, 5)),
        "bias": 3 * random.normal(size=5),
        "scale": np.array(-0.7),
    }
    gradient = jax.jit(jax.grad(PENALTY[name]))(params)
    for leaf, weights in params.items():
        # Rounding, in a few terms of size 100 that cancel.
        np.testing.assert_allclose(gradient[leaf], GRADIENTS[name](weights), rtol=1e-12, atol=1e-13)


@pytest.mark.slow
@every_penalty
def test_penalty_is_finite_with_a_finite_gradient_for_weights_of_any_size(name):
    largest = {"orthogonal": 1e9}.get(name, 1e18)  # where the penalty itself is a number in float32
    sizes = jnp.array([0.0, -0.0, 1e-45, 1e-38, 1e-30, 1e-10, 1.0, largest])
    one, zero = jnp.ones_like(sizes), jnp.zeros_like(sizes)
    mixed = jnp.stack([jnp.stack([sizes, one]), jnp.stack([zero, -sizes]), jnp.stack([zero, zero])])
    for weights in (jnp.broadcast_to(sizes, (3, 2, len(sizes))), mixed, -sizes):
        values, gradients = jax.jit(jax.vmap(jax.value_and_grad(PENALTY[name]), -1, (0, -1)))(weights)
        assert np.isfinite(values).all()
        assert np.isfinite(gradients).all()
        if name not in ("orthogonal", "spectral"):  # where each weight's gradient depends on the others
            assert (np.asarray(gradients)[np.asarray(weights) == 0] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "slope"),
    [
        *(
            (name, size, slope)
            for name, slope in (("l1", 1), ("huber", 1.5), ("elimination", 0))
            for size in (3e38, np.inf)
        ),
        ("group_lasso", 3e38, 1),
    ],
)
def test_penalty_has_the_right_slope_at_huge_weights(name, size, slope):
    gradient = jax.grad(PENALTY[name])(jnp.array([size, -size]))
    np.testing.assert_allclose(gradient, [slope, -slope], **ROUNDING)


@pytest.mark.slow
@every_penalty
def test_penalty_traces_under_jit_and_over_many_weights(name):
    many = jax.random.normal(jax.random.key(1), (3, 4, 2))
    together = jax.jit(jax.vmap(PENALTY[name]))(many)
    # Batched, compiled and neither: a few roundings.
    np.testing.assert_allclose(together, [PENALTY[name](weights) for weights in many], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "argument", "values"),
    [
        ("huber", "delta", [0.3, 1.0, 2.0, 9.0]),
        ("elimination", "scale", [0.1, 1.0, 30.0]),
        ("lp", "p", [0.4, 1.0, 1.5, 2.0, 3.0]),
        ("elastic_net", "l1_coefficient", [0.0, 1.0]),
        ("elastic_net", "l2_coefficient", [0.0, 1.0]),
    ],
)
@pytest.mark.usefixtures("float64")
def test_penalty_takes_a_traced_parameter(name, argument, values):
    weights = jnp.array([[0.0, 0.2, -0.7], [1.9, -4.0, 11.0]])
    run = lambda value: PENALTIES[name](weights, **{argument: value})  # noqa: E731
    traced = jax.vmap(jax.jit(run))(jnp.array(values))
    slopes = jax.vmap(jax.grad(run))(jnp.array(values))
    for value, together, slope in zip(values, traced, slopes, strict=True):
        np.testing.assert_allclose(together, run(value), rtol=1e-14)  # a rounding or two
        central = (run(value + 1e-6) - run(value - 1e-6)) / 2e-6
        np.testing.assert_allclose(slope, central, rtol=1e-6, atol=1e-8)  # the difference's own error


def test_every_parameter_is_tried_traced():
    marks = next(m for m in test_penalty_takes_a_traced_parameter.pytestmark if m.name == "parametrize")
    keywords = {
        (name, parameter.name)
        for name, function in PENALTIES.items()
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.name != "layout"  # a dictionary of strings
    }
    assert keywords == {case[:2] for case in marks.args[1]}


def _torch(torch):
    functional = torch.nn.functional
    matrix = lambda w: w.reshape(-1, w.shape[-1])  # noqa: E731
    return {
        "huber": lambda w: functional.huber_loss(w, torch.zeros_like(w), reduction="sum", delta=1.5),
        "orthogonal": lambda w: torch.linalg.matrix_norm(matrix(w).T @ matrix(w) - torch.eye(w.shape[-1])) ** 2,
        "spectral": lambda w: torch.linalg.matrix_norm(matrix(w), ord=2) ** 2 / 2,
        "group_lasso": lambda w: matrix(w).shape[0] ** 0.5 * torch.linalg.vector_norm(matrix(w), dim=0).sum(),
        "lp": lambda w: torch.linalg.vector_norm(w, ord=1.25) ** 1.25,
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["huber", "orthogonal", "spectral", "group_lasso", "lp"])
@pytest.mark.parametrize("shape", [(3, 5), (3, 2, 4)])
@pytest.mark.usefixtures("float64")
def test_penalty_and_gradient_are_torchs(name, shape):
    torch = pytest.importorskip("torch")
    weights = 2 * np.random.default_rng(5).normal(size=shape)
    theirs = torch.tensor(weights, requires_grad=True)
    with torch.device("cpu"):
        torch.set_default_dtype(torch.float64)
        value = _torch(torch)[name](theirs)
        torch.set_default_dtype(torch.float32)
    value.backward()
    ours, gradient = jax.value_and_grad(PENALTY[name])(weights)
    np.testing.assert_allclose(ours, value.item(), rtol=1e-13)  # rounding
    np.testing.assert_allclose(gradient, theirs.grad.numpy(), rtol=1e-11, atol=1e-12)  # of terms of size 100


@pytest.mark.slow
def test_huber_runs_from_l1_to_l2():
    weights = jnp.array([0.0, 0.3, -2.0, 40.0])
    np.testing.assert_array_equal(penalties.huber(weights, delta=jnp.inf), penalties.l2(weights))
    np.testing.assert_array_equal(jax.grad(penalties.huber)(weights, delta=jnp.inf), weights)
    np.testing.assert_allclose(penalties.huber(weights, delta=1e-6) / 1e-6, penalties.l1(weights), **ROUNDING)
    assert penalties.huber(weights, delta=0.0) == 0


def test_lp_is_l1_and_twice_l2():
    weights = jnp.array([[0.0, 0.3], [-2.0, 40.0]])
    np.testing.assert_allclose(penalties.lp(weights, p=1), penalties.l1(weights), **ROUNDING)
    np.testing.assert_allclose(penalties.lp(weights, p=2.0), 2 * penalties.l2(weights), **ROUNDING)


def test_lp_below_one_has_a_zero_gradient_at_zero():
    weights = jnp.array([0.0, -0.0, 1e-45, 1e-36, -0.25])
    gradient = jax.jit(jax.grad(lambda weights: penalties.lp(weights, p=0.5)))(weights)
    np.testing.assert_allclose(gradient, [0, 0, 0, 0.5e18, -1], rtol=1e-5)  # a power in float32
    assert np.isfinite(jax.grad(lambda p: penalties.lp(weights, p=p))(0.5))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_orthogonal_is_zero_for_orthonormal_units_alone():
    units = jnp.linalg.qr(jax.random.normal(jax.random.key(0), (12, 5)))[0]
    assert penalties.orthogonal({"filters": units.reshape(3, 2, 2, 5)}) < 1e-28  # 25 roundings, squared
    np.testing.assert_allclose(penalties.orthogonal(units.T), 12 - 5, rtol=1e-12)  # a unit too many counts 1


@pytest.mark.slow
def test_group_lasso_counts_each_number_of_a_bias():
    weights = jnp.array([3.0, -4.0])
    assert penalties.group_lasso(weights) == 7
    assert penalties.group_lasso(weights[:, None]) == 5 * np.float32(np.sqrt(2))


@pytest.mark.slow
def test_penalty_lets_nan_through():
    for name in PENALTIES:
        assert np.isnan(PENALTY[name](jnp.array([[1.0, jnp.nan], [2.0, 3.0]]))), name


def test_penalty_passes_over_none_leaves():
    params = {"kernel": jnp.array([3.0, -4.0]), "bias": None, "rest": {}}
    assert penalties.l1(params) == 7
    assert penalties.l2(params, {"kernel": True, "bias": None, "rest": {}}) == 12.5


@pytest.mark.slow
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
