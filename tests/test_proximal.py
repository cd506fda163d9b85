"""Proximal maps: each one minimizes its own objective; limits, gradients, dtypes and trees."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize_scalar

from weightdecay import proximal

MAPS = {
    name: function
    for name, function in inspect.getmembers(proximal, inspect.isfunction)
    if function.__module__ == proximal.__name__ and not name.startswith("_")
}
EXAMPLES = {  # coefficients, and the penalty of one weight with them in it
    "l1": ((0.7,), lambda y, c: c * np.abs(y)),
    "l2": ((0.7,), lambda y, c: c * y**2 / 2),
    "elastic_net": ((0.7, 1.3), lambda y, c1, c2: c1 * np.abs(y) + c2 * y**2 / 2),
}
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float64]
every_map = pytest.mark.parametrize("name", MAPS)


@every_map
@pytest.mark.parametrize("step_size", [0.01, 0.5, 3.0])
@pytest.mark.usefixtures("float64")
def test_map_minimizes_its_own_objective(name, step_size):
    coefficients, penalty = EXAMPLES[name]
    for weight in (0.0, 1e-3, 0.35, -0.35, 0.8, -2.0, 5.0):
        objective = lambda y, w=weight: (y - w) ** 2 / 2 + step_size * penalty(y, *coefficients)  # noqa: E731
        found = minimize_scalar(objective, bounds=(-6, 6), method="bounded", options={"xatol": 1e-10})
        moved = float(MAPS[name](jnp.array(weight), *coefficients, step_size))
        assert objective(moved) <= objective(found.x) + 1e-15  # no worse than the search, to rounding
        # A search that compares values finds a smooth minimum to the square root of the rounding, no closer.
        np.testing.assert_allclose(moved, found.x, atol=1e-7)


@every_map
@pytest.mark.parametrize("dtype", DTYPES)
def test_map_at_zero_is_the_identity(name, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        weights = jnp.concatenate(
            [jnp.array([0, 1e-30, 3e38, -jnp.inf, jnp.inf]), 10 * jax.random.normal(jax.random.key(0), (200,))]
        )
        params = weights.astype(dtype)
        for zeros, step_size in (((0.0,) * len(EXAMPLES[name][0]), 0.3), (EXAMPLES[name][0], 0.0)):
            moved = jax.jit(MAPS[name])(params, *zeros, step_size)
            np.testing.assert_array_equal(np.asarray(moved).view(np.uint8), np.asarray(params).view(np.uint8))


@every_map
def test_map_at_infinity_is_zero(name):
    params = jnp.array([0.0, 1e-30, -2.0, 3e38])
    infinities = (jnp.array(jnp.inf),) * len(EXAMPLES[name][0])
    np.testing.assert_array_equal(MAPS[name](params, *infinities, 0.1), 0)
    np.testing.assert_array_equal(MAPS[name](params, *EXAMPLES[name][0], jnp.array(jnp.inf)), 0)


@every_map
def test_map_has_finite_gradients_at_zero_and_at_the_threshold(name):
    coefficients, _ = EXAMPLES[name]
    at = jnp.array([0.0, -0.0, coefficients[0] * 0.5, -coefficients[0] * 0.5, 1.0])
    for zeroed in (coefficients, (0.0,) * len(coefficients)):
        total = lambda w, *rest: jnp.sum(MAPS[name](w, *rest))  # noqa: E731
        gradients = jax.grad(total, argnums=tuple(range(len(coefficients) + 2)))(at, *zeroed, 0.5)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


@every_map
@settings(max_examples=30, deadline=None)
@given(
    pair=hnp.arrays(np.float64, (2, 5), elements=st.floats(-100, 100)),
    step_size=st.floats(0, 100),
    scale=st.floats(0, 100),
)
def test_map_is_nonexpansive(name, pair, step_size, scale):
    with jax.enable_x64(True):
        moved = MAPS[name](pair, *(scale * c for c in EXAMPLES[name][0]), step_size)
        # 1e-12: rounding of numbers up to 100
        assert np.linalg.norm(moved[0] - moved[1]) <= np.linalg.norm(pair[0] - pair[1]) + 1e-12


@settings(max_examples=30, deadline=None)
@given(
    weights=hnp.arrays(np.float32, (7,), elements=st.floats(-100, 100, width=32)),
    coefficient=st.floats(0, 10, width=32),
    step_size=st.floats(0, 10, width=32),
)
def test_elastic_net_with_one_part_is_that_part(weights, coefficient, step_size):
    lasso = proximal.elastic_net(weights, coefficient, 0.0, step_size)
    np.testing.assert_array_equal(lasso, proximal.l1(weights, coefficient, step_size))
    ridge = proximal.elastic_net(weights, 0.0, coefficient, step_size)
    np.testing.assert_array_equal(ridge, proximal.l2(weights, coefficient, step_size))


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@every_map
@settings(max_examples=12, deadline=None)
@given(shapes=st.lists(SHAPES, max_size=3), dtype=st.sampled_from(DTYPES), arrays=st.booleans())
def test_map_keeps_structure_shapes_and_dtypes(name, shapes, dtype, arrays):
    with jax.enable_x64(dtype == jnp.float64):
        leaves = [jnp.full(shape, 2, dtype) for shape in shapes]
        params = {"layers": [{"kernel": leaf, "bias": None} for leaf in leaves], "rest": ()}
        numbers = (*EXAMPLES[name][0], 0.5)
        moved = MAPS[name](params, *(map(jnp.float32, numbers) if arrays else numbers))
        assert jax.tree.structure(moved) == jax.tree.structure(params)
        expected = MAPS[name](jnp.float32(2), *numbers)
        for before, after in zip(leaves, jax.tree.leaves(moved), strict=True):
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
            # One rounding in the dtype, and one or two of the float32 numbers.
            np.testing.assert_allclose(after.astype(float), expected, rtol=jnp.finfo(dtype).eps + 3e-7)


@every_map
def test_map_takes_a_python_number(name):
    assert MAPS[name](0.0, *EXAMPLES[name][0], 0.5) == 0
    np.testing.assert_allclose(  # one rounding
        MAPS[name](2.0, *EXAMPLES[name][0], 0.5), MAPS[name](jnp.array(2.0), *EXAMPLES[name][0], 0.5), rtol=1e-7
    )


@every_map
def test_map_takes_a_step_size_a_weight(name):
    coefficients, _ = EXAMPLES[name]
    params = {"kernel": jnp.array([[1.0, -2.0], [0.3, 4.0]]), "bias": jnp.array([0.5, -0.5])}
    step_sizes = {"kernel": jnp.array([[0.1, 0.5], [1.0, 2.0]]), "bias": jnp.array(0.25)}
    moved = jax.jit(MAPS[name])(params, *coefficients, step_sizes)
    for leaf in params:
        steps = np.broadcast_to(step_sizes[leaf], params[leaf].shape)
        for index in np.ndindex(steps.shape):
            alone = MAPS[name](params[leaf][index], *coefficients, float(steps[index]))
            np.testing.assert_allclose(moved[leaf][index], alone, rtol=1e-6)  # compiled and not: a rounding or two
    by_prefix = MAPS[name]({"a": params, "b": params}, *coefficients, {"a": 0.1, "b": 2.0})
    jax.tree.map(np.testing.assert_array_equal, by_prefix["b"], MAPS[name](params, *coefficients, 2.0))


@every_map
def test_map_refuses_a_step_size_that_does_not_fit(name):
    with pytest.raises(ValueError, match=r"step_size is a tree that does not fit the weights.*bias"):
        MAPS[name]({"bias": jnp.ones(2)}, *EXAMPLES[name][0], {"kernel": 0.1})


@every_map
def test_map_under_vmap_is_a_loop_over_coefficients(name):
    coefficients, _ = EXAMPLES[name]
    params = {"kernel": jnp.linspace(-2, 2, 9)}
    scales = jnp.array([0.0, 0.5, 2.0])
    run = lambda scale: MAPS[name](params, *(scale * c for c in coefficients), 0.5)  # noqa: E731
    batched = jax.vmap(run)(scales)["kernel"]
    for row, scale in zip(batched, scales, strict=True):
        np.testing.assert_allclose(row, run(scale)["kernel"], rtol=1e-6)  # batched and not: a rounding or two
