"""Proximal maps: each one minimizes its own objective; limits, gradients, dtypes and trees; groups in a metric."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.test_util import check_grads
from scipy.optimize import brentq, minimize, minimize_scalar

from weightdecay.decay import proximal

MAPS = {
    name: function
    for name, function in inspect.getmembers(proximal, inspect.isfunction)
    if function.__module__ == proximal.__name__ and not name.startswith("_")
}
PROJECTIONS = {name: m for name, m in MAPS.items() if "step_size" not in inspect.signature(m).parameters}
EXAMPLES = {  # coefficients, and the penalty of one weight with them in it
    "l1": ((0.7,), lambda y, c: c * np.abs(y)),
    "l2": ((0.7,), lambda y, c: c * y**2 / 2),
    "elastic_net": ((0.7, 1.3), lambda y, c1, c2: c1 * np.abs(y) + c2 * y**2 / 2),
    "huber": ((0.7,), lambda y, c: c * np.where(np.abs(y) <= 1, y**2 / 2, np.abs(y) - 0.5)),
    "group_lasso": ((0.7,), lambda y, c: c * np.abs(y)),
    "max_norm": ((0.7,), lambda y, c: np.where(np.abs(y) <= c, 0, np.inf)),
}
DTYPES = [jnp.float32, jnp.bfloat16, jnp.float64]
every_map = pytest.mark.parametrize("name", MAPS)
every_step = pytest.mark.parametrize("name", [name for name in MAPS if name not in PROJECTIONS])


def numbers(name, scale=1.0, step_size=0.5):
    """What a map takes beside the weights."""
    coefficients = tuple(scale * c for c in EXAMPLES[name][0])
    return coefficients if name in PROJECTIONS else (*coefficients, step_size)


def test_every_map_has_an_example():
    assert set(MAPS) == set(EXAMPLES)
    assert set(PROJECTIONS) == {"max_norm"}


@pytest.mark.slow
@every_step
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


@pytest.mark.slow
@every_step
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


@pytest.mark.slow
@every_step
def test_map_at_infinity_is_zero(name):
    params = jnp.array([0.0, 1e-30, -2.0, 3e38])
    infinities = (jnp.array(jnp.inf),) * len(EXAMPLES[name][0])
    np.testing.assert_array_equal(MAPS[name](params, *infinities, 0.1), 0)
    np.testing.assert_array_equal(MAPS[name](params, *EXAMPLES[name][0], jnp.array(jnp.inf)), 0)


@pytest.mark.slow
@every_map
def test_map_has_finite_gradients_at_zero_and_at_the_threshold(name):
    coefficients, _ = EXAMPLES[name]
    at = jnp.array([0.0, -0.0, coefficients[0] * 0.5, -coefficients[0] * 0.5, 1.0, coefficients[0], 1e20])
    kernel = jnp.array([[0.0, coefficients[0] * 0.5, 1.0, 1e-30], [0.0, coefficients[0] * 0.5, -3.0, 1e20]])
    for weights in (at, kernel):
        for scale in (1.0, 0.0):
            for rest in (numbers(name, scale), numbers(name, scale, jnp.full_like(weights, 0.5).at[0].set(0.1))):
                total = lambda w, *rest: jnp.sum(MAPS[name](w, *rest))  # noqa: E731
                gradients = jax.jit(jax.grad(total, argnums=tuple(range(len(rest) + 1))))(weights, *rest)
                assert all(np.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.slow
@every_map
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    pair=hnp.arrays(np.float64, (2, 5), elements=st.floats(-100, 100)),
    step_size=st.floats(0, 100),
    scale=st.floats(0, 100),
)
def test_map_is_nonexpansive(name, pair, step_size, scale):
    with jax.enable_x64(True):
        move = jax.jit(MAPS[name])
        moved = [move(vector, *numbers(name, scale, step_size)) for vector in pair]
        kernels = [move(vector[:, None], *numbers(name, scale, step_size)) for vector in pair]  # one group
        assert np.linalg.norm(kernels[0] - kernels[1]) <= np.linalg.norm(pair[0] - pair[1]) + 1e-12
        # 1e-12: rounding of numbers up to 100
        assert np.linalg.norm(moved[0] - moved[1]) <= np.linalg.norm(pair[0] - pair[1]) + 1e-12


@settings(max_examples=20, deadline=None, derandomize=True)
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


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)


@pytest.mark.slow
@every_map
@settings(max_examples=4, deadline=None, derandomize=True)
@given(shapes=st.lists(SHAPES, max_size=2), dtype=st.sampled_from(DTYPES), arrays=st.booleans())
def test_map_keeps_structure_shapes_and_dtypes(name, shapes, dtype, arrays):
    with jax.enable_x64(dtype == jnp.float64):
        leaves = [jnp.full(shape, 2, dtype) for shape in shapes]
        params = {"layers": [{"kernel": leaf, "bias": None} for leaf in leaves], "rest": ()}
        rest = numbers(name)
        moved = MAPS[name](params, *(map(jnp.float32, rest) if arrays else rest))
        assert jax.tree.structure(moved) == jax.tree.structure(params)
        expected = float(MAPS[name](jnp.float32(2), *rest))
        for before, after in zip(leaves, jax.tree.leaves(moved), strict=True):
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
            if name in PROJECTIONS:  # one bound for the whole group
                after = after * np.sqrt(np.prod(after.shape[:-1]))
            # One rounding in the dtype, and one or two of the float32 numbers.
            np.testing.assert_allclose(after.astype(float), expected, rtol=jnp.finfo(dtype).eps + 3e-7)


@pytest.mark.slow
@every_map
def test_map_takes_a_python_number(name):
    assert MAPS[name](0.0, *numbers(name)) == 0
    np.testing.assert_allclose(  # one rounding
        MAPS[name](2.0, *numbers(name)), MAPS[name](jnp.array(2.0), *numbers(name)), rtol=1e-7
    )


@pytest.mark.slow
@every_step
def test_map_takes_a_step_size_a_weight(name):
    coefficients, _ = EXAMPLES[name]
    params = {"weights": jnp.array([1.0, -2.0, 0.3, 4.0]), "bias": jnp.array([0.5, -0.5])}
    step_sizes = {"weights": jnp.array([0.1, 0.5, 1.0, 2.0]), "bias": jnp.array(0.25)}
    moved = jax.jit(MAPS[name])(params, *coefficients, step_sizes)
    for leaf in params:
        steps = np.broadcast_to(step_sizes[leaf], params[leaf].shape)
        for index in np.ndindex(steps.shape):
            alone = MAPS[name](params[leaf][index], *coefficients, float(steps[index]))
            np.testing.assert_allclose(moved[leaf][index], alone, rtol=1e-6)  # compiled and not: a rounding or two
    by_prefix = MAPS[name]({"a": params, "b": params}, *coefficients, {"a": 0.1, "b": 2.0})
    jax.tree.map(np.testing.assert_array_equal, by_prefix["b"], MAPS[name](params, *coefficients, 2.0))


@every_step
def test_map_refuses_a_step_size_that_does_not_fit(name):
    with pytest.raises(ValueError, match=r"step_size is a tree that does not fit the weights.*bias"):
        MAPS[name]({"bias": jnp.ones(2)}, *EXAMPLES[name][0], {"kernel": 0.1})


@pytest.mark.slow
@every_map
def test_map_under_vmap_is_a_loop_over_coefficients(name):
    params = {"kernel": jnp.linspace(-2, 2, 12).reshape(4, 3), "bias": jnp.linspace(-2, 2, 9)}
    scales = jnp.array([0.0, 0.5, 2.0])
    metric = {"kernel": jnp.linspace(0, 2, 12).reshape(4, 3), "bias": 0.5}
    for step_size in (0.5, metric):
        run = jax.jit(lambda scale: MAPS[name](params, *numbers(name, scale, step_size)))  # noqa: B023
        batched = jax.vmap(run)(scales)
        for index, scale in enumerate(scales):
            for leaf, alone in run(scale).items():
                np.testing.assert_allclose(batched[leaf][index], alone, rtol=2e-6)  # batched and not: a few roundings


@pytest.mark.usefixtures("float64")
def test_huber_runs_from_l1_to_l2():
    weights = jnp.array([0.0, -1e-3, 0.4, -3.0, 50.0, jnp.inf, -jnp.inf])
    np.testing.assert_array_equal(proximal.huber(weights, 0.7, 0.5, delta=jnp.inf), proximal.l2(weights, 0.7, 0.5))
    np.testing.assert_array_equal(proximal.huber(weights, 0.7, 0.5, delta=0.0), weights)
    # c huber(y; delta) tends to c delta |y|, from which it differs by no more than delta
    nearly = proximal.huber(weights[:-2], 0.7 / 1e-9, 0.5, delta=1e-9)
    np.testing.assert_allclose(nearly, proximal.l1(weights[:-2], 0.7, 0.5), atol=1e-8)


@pytest.mark.parametrize("delta", [0.2, 1.0, 5.0])
@pytest.mark.usefixtures("float64")
def test_huber_minimizes_with_any_delta(delta):
    torch = pytest.importorskip("torch")
    for weight in (0.1, -0.9, 2.0, -7.0):
        huber = lambda y: torch.nn.functional.huber_loss(  # noqa: E731
            torch.tensor(y, dtype=torch.float64), torch.zeros((), dtype=torch.float64), delta=delta
        ).item()
        objective = lambda y, w=weight: (y - w) ** 2 / 2 + 1.5 * huber(float(y))  # noqa: B023, E731
        found = minimize_scalar(objective, bounds=(-8, 8), method="bounded", options={"xatol": 1e-10})
        moved = float(proximal.huber(jnp.array(weight), 3.0, 0.5, delta=delta))
        assert objective(moved) <= objective(found.x) + 1e-14  # no worse than the search, to rounding
        np.testing.assert_allclose(moved, found.x, atol=1e-6)  # the square root of the rounding


def closed_form_group(weights, step_size, coefficient):
    """The map of one group in a metric, by scipy's root of |D z / (D r + t)| = 1, D = 1 / step_size."""
    metric, threshold = 1 / step_size, coefficient * np.sqrt(len(weights))
    if np.linalg.norm(metric * weights) <= threshold:
        return 0 * weights
    excess = lambda r: np.linalg.norm(metric * weights / (metric * r + threshold)) - 1  # noqa: E731
    radius = brentq(excess, 0, np.linalg.norm(weights), xtol=1e-300, rtol=1e-15, maxiter=1000)
    return metric * weights * radius / (metric * radius + threshold)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    decades=st.floats(0, 6),
    slope=st.floats(-0.5, 2.0),
    strength=st.floats(-8, 0.2),
)
def test_group_lasso_in_a_metric_is_scipys_root(seed, decades, slope, strength):
    random = np.random.default_rng(seed)
    step_size = 10 ** random.uniform(-decades, 0, (6, 4))
    weights = random.normal(size=(6, 4)) * step_size**slope
    # In units of the coefficient at which the first group vanishes.
    coefficient = 10**strength * np.linalg.norm(weights[:, 0] / step_size[:, 0]) / np.sqrt(6)
    with jax.enable_x64(True):
        moved = jax.jit(proximal.group_lasso)(weights, coefficient, step_size)
    for group in range(4):
        expected = closed_form_group(weights[:, group], step_size[:, group], coefficient)
        # 1e-12 of the root, but for what a threshold just below the norm cancels
        np.testing.assert_allclose(moved[:, group], expected, rtol=1e-10, atol=1e-13 * np.abs(weights).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "thresholds"),
    [
        ([1.26219434e-05, 1.0, 2.63658022e-04], [2.58059099e-05, 1.00073580, 1.66704163e-03]),
        ([1.12774635e-06, 1.0, 4.85995221e-01], [7.26238217e-06, 1.34207347, 7.28596493e-01]),
    ],
)
@pytest.mark.usefixtures("float64")
def test_group_lasso_finds_the_roots_that_take_longest(weights, thresholds):
    weights, step_size = np.array(weights), np.array(thresholds) / np.sqrt(3)
    moved = proximal.group_lasso(weights[:, None], 1.0, step_size[:, None])
    # 1e-12 of the root, which ten steps and no fewer come to, and what the smallest weight makes of it
    np.testing.assert_allclose(moved[:, 0], closed_form_group(weights, step_size, 1.0), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
@pytest.mark.usefixtures("float64")
def test_group_lasso_in_a_metric_minimizes_its_own_objective(spread):
    random = np.random.default_rng(2)
    weights, step_size = random.normal(size=(5, 3)), 10 ** random.uniform(-spread, 0, (5, 3))
    coefficient = 0.4
    moved = np.asarray(proximal.group_lasso(weights, coefficient, step_size))
    assert (np.linalg.norm(moved, axis=0) > 0).any()
    for group in range(3):
        w, s, y = weights[:, group], step_size[:, group], moved[:, group]
        objective = lambda y, w=w, s=s: (  # noqa: E731
            np.sum((y - w) ** 2 / (2 * s)) + coefficient * np.sqrt(5) * np.linalg.norm(y)
        )
        found = min(
            [minimize(objective, start, method="BFGS", options={"gtol": 1e-9}) for start in (w, w / 2)],
            key=lambda result: result.fun,
        )
        assert objective(y) <= found.fun + 1e-13  # no worse than the search, to rounding
        if np.linalg.norm(y) > 0:
            # the objective is flat at its minimum: the square root of the rounding, over the smallest curvature
            np.testing.assert_allclose(y, found.x, atol=1e-6)
            stationary = (y - w) / s + coefficient * np.sqrt(5) * y / np.linalg.norm(y)
            np.testing.assert_allclose(stationary, 0, atol=1e-10)  # rounding, times the metric of up to 1000
        else:
            assert np.linalg.norm(w / s) <= coefficient * np.sqrt(5)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_group_lasso_with_one_step_size_is_the_closed_form_in_either_way():
    weights = np.random.default_rng(4).normal(size=(2, 3, 4)) * [1, 2, 0.1, 0.5]
    norms = np.sqrt(np.square(weights).sum((0, 1)))
    expected = weights * np.maximum(0, 1 - 0.3 * 0.9 * np.sqrt(6) / norms)
    assert 0 < np.count_nonzero(expected) < expected.size
    for step_size in (
        0.3,
        jnp.full(4, 0.3),
        jnp.full((1, 1, 4), 0.3),
        jnp.full((2, 1, 1), 0.3),
        jnp.full((2, 3, 4), 0.3),
    ):
        # rounding; what comes out is zero where the closed form is
        np.testing.assert_allclose(proximal.group_lasso(weights, 0.9, step_size), expected, rtol=1e-12)
    spread = jnp.linspace(0.1, 0.5, 24).reshape(2, 3, 4)  # of mean 0.3
    assert np.abs(proximal.group_lasso(weights, 0.9, spread) - expected).max() > 0.1


@pytest.mark.slow
def test_group_lasso_moves_no_weight_whose_step_size_is_zero():
    weights = jnp.array([[1.0, -0.0, 0.0, jnp.inf], [0.01, 2.0, 0.0, 1.0]])
    step_size = jnp.array([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    for coefficient in (0.0, 0.3, 1e30, jnp.inf):
        moved = np.asarray(proximal.group_lasso(weights, coefficient, step_size))
        held = np.asarray(weights)[step_size == 0]
        np.testing.assert_array_equal(moved[step_size == 0].view(np.uint32), held.view(np.uint32))
        assert not np.isnan(moved).any()
        if coefficient >= 1e30:
            assert (
                np.abs(moved[1, :2]).max() <= 10 / coefficient
            )  # what is held holds the group, and w r / (r + t) of it


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
def test_group_lasso_without_a_coefficient_is_the_identity_of_kernels(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        weights = jnp.array([[0.0, 1e-30, 3e38, -0.0], [2.0, 1e20, -1.0, -0.0], [jnp.inf, 1.0, 1e-20, 0.0]], dtype)
        for step_size in (0.3, jnp.linspace(0, 2, 12).reshape(3, 4), jnp.inf):
            moved = jax.jit(proximal.group_lasso)(weights, 0.0, step_size)
            np.testing.assert_array_equal(np.asarray(moved).view(np.uint8), np.asarray(weights).view(np.uint8))


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-66, 66])
def test_group_lasso_does_not_depend_on_the_scale(exponent):
    random = np.random.default_rng(6)
    weights, step_size = random.normal(size=(8, 3)).astype(np.float32), 10 ** random.uniform(-3, 0, (8, 3))
    step_size = step_size.astype(np.float32)
    moved = proximal.group_lasso(weights, np.float32(0.5), step_size)
    assert 0 < np.count_nonzero(moved)
    scaled = proximal.group_lasso(np.ldexp(weights, exponent), np.ldexp(np.float32(0.5), exponent), step_size)
    np.testing.assert_array_equal(scaled, np.ldexp(moved, exponent))


SIZES = [0.0, 1e-30, 1.0, 1e20, 3e38]


def test_group_lasso_makes_no_nan_of_any_numbers():
    signs = np.array([[1], [-1]], np.float32)
    weights = np.stack([axis.ravel() for axis in np.meshgrid(SIZES, SIZES)]).astype(np.float32) * signs
    steps = np.stack([axis.ravel() for axis in np.meshgrid([*SIZES, np.inf], [*SIZES, np.inf])]).astype(np.float32)
    weights, steps = np.repeat(weights, steps.shape[1], 1), np.tile(steps, (1, weights.shape[1]))
    map_and_slopes = jax.jit(
        lambda w, c, s: (
            proximal.group_lasso(w, c, s),
            jax.grad(lambda w, s: proximal.group_lasso(w, c, s).sum(), (0, 1))(w, s),
            jax.jvp(lambda c: proximal.group_lasso(w, c, s), (c,), (jnp.ones(()),))[1],
        )
    )
    for coefficient in (*SIZES, np.inf):
        moved, *slopes = map_and_slopes(weights, jnp.float32(coefficient), steps)
        assert np.isfinite(moved).all()
        assert (np.abs(moved) <= np.abs(weights)).all()
        assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))


@pytest.mark.slow
def test_group_lasso_lets_nan_through():
    weights = jnp.array([[jnp.nan, 1.0], [2.0, 3.0]])
    for step_size in (0.1, jnp.full((2, 2), 0.1)):
        moved = proximal.group_lasso(weights, 0.5, step_size)
        assert np.isnan(moved[:, 0]).all()
        assert np.isfinite(moved[:, 1]).all()
        assert np.isnan(proximal.group_lasso(jnp.ones((2, 2)), jnp.nan, step_size)).all()


@pytest.mark.slow
@pytest.mark.parametrize("metric", [False, True])
@pytest.mark.usefixtures("float64")
def test_group_lasso_has_the_derivatives_of_its_minimizer(metric):
    random = np.random.default_rng(8)
    weights = jnp.asarray(random.normal(size=(5, 3)) * np.array([1.0, 0.02, 3.0]))  # the middle group vanishes
    step_size = jnp.asarray(10 ** random.uniform(-1.5, 0, (5, 3))) if metric else 0.4
    assert np.count_nonzero(proximal.group_lasso(weights, 0.9, step_size)) == 10
    # Against finite differences, whose own error this is.
    run = jax.jit(proximal.group_lasso)
    check_grads(run, (weights, 0.9, step_size), order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)
    slope = jax.jit(jax.grad(lambda *numbers: jnp.sum(proximal.group_lasso(*numbers) ** 2), (0, 1, 2)))
    check_grads(slope, (weights, 0.9, step_size), order=1, modes=("fwd",), rtol=1e-6, atol=1e-6)


def test_max_norm_is_numpys_rescaling():
    random = np.random.default_rng(9)
    params = {
        "kernel": random.normal(size=(6, 4)),
        "filters": random.normal(size=(3, 3, 2, 5)),
        "bias": random.normal(size=7),
    }
    for bound in (0.0, 0.8, 2.5, 1e9):
        moved = jax.jit(proximal.max_norm)(jax.tree.map(jnp.float32, params), bound)
        for leaf, weights in params.items():
            norms = np.sqrt(np.square(weights).sum(tuple(range(weights.ndim - 1)), keepdims=True))
            expected = weights * np.minimum(1, bound / norms)
            np.testing.assert_allclose(moved[leaf], expected, rtol=1e-6)  # float32 roundings


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    weights=hnp.arrays(np.float32, (4, 3), elements=st.floats(-100, 100, width=32)),
    bound=st.floats(0, 100, width=32),
    dtype=st.sampled_from(DTYPES),
)
def test_max_norm_is_a_projection(weights, bound, dtype):
    with jax.enable_x64(dtype == jnp.float64):
        weights = jnp.asarray(weights, dtype)
        once = proximal.max_norm(weights, bound)
        rounding = 3 * float(jnp.finfo(dtype).eps)
        assert (np.linalg.norm(once.astype(float), axis=0) <= bound * (1 + rounding) + 1e-37).all()
        twice = proximal.max_norm(once, bound)
        np.testing.assert_allclose(twice.astype(float), once.astype(float), rtol=rounding, atol=1e-37)  # denormals
        inside = np.linalg.norm(np.asarray(weights, float), axis=0) < bound * (1 - 1e-6)
        np.testing.assert_array_equal(np.asarray(once)[:, inside], np.asarray(weights)[:, inside])


@pytest.mark.slow
def test_max_norm_does_not_depend_on_the_scale():
    weights = jnp.array([[3e38, 3e-25, -0.0, jnp.inf, 1.0], [-3e38, 4e-25, 0.0, 1.0, 1.0]])
    root = np.sqrt(0.5)
    expected = [[2 * root, 3e-25, 0, 2, 1], [-2 * root, 4e-25, 0, 0, 1]]
    np.testing.assert_allclose(proximal.max_norm(weights, 2.0), expected, rtol=1e-6)  # float32 roundings
    np.testing.assert_array_equal(proximal.max_norm(weights, jnp.inf), weights)
    np.testing.assert_array_equal(proximal.max_norm(weights, 0.0), 0)
    np.testing.assert_allclose(proximal.max_norm(weights[:, 1], 1e-25), [1e-25, 1e-25], rtol=1e-6)


@pytest.mark.usefixtures("float64")
def test_max_norm_has_the_derivatives_of_its_projection():
    weights = jnp.array([[3.0, 0.1, -1.0], [4.0, 0.2, 2.0]])
    check_grads(jax.jit(proximal.max_norm), (weights, 1.5), order=1, modes=("fwd", "rev"), rtol=1e-6, atol=1e-6)


def test_max_norm_takes_a_bound_a_layer_and_refuses_one_that_does_not_fit():
    params = {"kernel": jnp.full((4, 2), 3.0), "bias": jnp.array([5.0])}
    moved = proximal.max_norm(params, {"kernel": 1.0, "bias": jnp.array(2.0)})
    np.testing.assert_allclose(moved["kernel"], 0.5, rtol=1e-6)  # a rounding
    np.testing.assert_allclose(moved["bias"], 2, rtol=1e-6)
    with pytest.raises(ValueError, match=r"bound is a tree that does not fit the weights.*bias, kernel"):
        proximal.max_norm(params, {"filters": 1.0})
