"""ProximalHuber and ProximalMCP: the maps of penalties that spare large weights."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases
from scipy.optimize import minimize_scalar

import compare
import weightdecay as wd

WEIGHTS = np.array([0.0, 1e-3, -0.2, 0.35, -0.5, 0.8, -2.0, 5.0])
at_rest = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731


def moved(rule, rate, weights=WEIGHTS):
    """Weights after one step of plain SGD without a gradient: the map alone, with D = 1."""
    return np.asarray(cases.train(wd.sgd(rate, rule), jnp.asarray(weights), 1, at_rest))


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "gamma"), [(0.5, 3.0), (0.5, 0.6), (2.0, 1.0), (1.0, 1.0)])
@pytest.mark.usefixtures("float64")
def test_proximal_mcp_minimizes_its_own_objective(rate, gamma):
    c = 0.4
    found = moved(wd.ProximalMCP(c, gamma), rate)
    objective = lambda y, w: (y - w) ** 2 / 2 + rate * cases.mcp(np.atleast_1d(y), c, gamma)  # noqa: E731
    for weight, result in zip(WEIGHTS, found, strict=True):
        # Not convex: the best of a search from each of many intervals.
        ends = np.linspace(-6, 6, 61)
        searched = [
            minimize_scalar(objective, bounds=pair, args=(weight,), method="bounded", options={"xatol": 1e-10})
            for pair in itertools.pairwise(ends)
        ]
        best = min([*(one.fun for one in searched), objective(0.0, weight), objective(weight, weight)])
        assert objective(result, weight) <= best + 1e-15


@pytest.mark.usefixtures("float64")
def test_proximal_mcp_is_the_map_of_skglm():
    skglm = pytest.importorskip("skglm.utils.prox_funcs")
    for rate, c, gamma in ((0.5, 0.4, 3.0), (0.1, 1.0, 1.5), (0.9, 0.05, 1.0)):
        expected = [skglm.prox_MCP(weight, rate, c, gamma) for weight in WEIGHTS]
        np.testing.assert_allclose(moved(wd.ProximalMCP(c, gamma), rate), expected, rtol=1e-13)


@pytest.mark.usefixtures("float64")
def test_proximal_mcp_runs_from_a_hard_threshold_to_l1():
    nearly = moved(wd.ProximalMCP(0.4, 1e12), 0.5)
    np.testing.assert_allclose(nearly, moved(wd.ProximalL1(0.4), 0.5), rtol=1e-10)
    hard = moved(wd.ProximalMCP(0.4, 0.1), 10.0)
    np.testing.assert_array_equal(hard, np.where(np.abs(WEIGHTS) > 0.4, WEIGHTS, 0))  # c √(t γ) = 0.4


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_proximal_mcp_does_not_bias_what_it_keeps_where_l1_does():
    """An orthogonal design: the solution of least squares for large effects, exact zeros for small ones."""
    effects = jnp.array([3.0, -2.0, 0.15, -0.1, 0.05])
    gradient = lambda w: w - effects  # noqa: E731 - of |w - effects|²/2
    fit = lambda rule: np.asarray(cases.train(wd.sgd(0.2, rule), jnp.zeros(5), 150, gradient))  # noqa: E731
    np.testing.assert_allclose(fit(wd.ProximalMCP(0.2, 3.0)), [3, -2, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(fit(wd.ProximalL1(0.2)), [2.8, -1.8, 0, 0, 0], atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_proximal_mcp_is_finite_at_the_limits(dtype):
    weights = jnp.array([0.0, 1e-30, -2.0, 3e38], dtype)
    for rule in (wd.ProximalMCP(1e30, 1e-30), wd.ProximalMCP(1e-30, 1e30), wd.ProximalMCP(0.0, 1.0)):
        assert np.isfinite(np.asarray(moved(rule, 1.0, weights), np.float32)).all()
    np.testing.assert_array_equal(moved(wd.ProximalMCP(0.0, 1.0), 3.0, weights), weights)


@pytest.mark.usefixtures("float64")
def test_proximal_huber_is_torch_minimized():
    torch = pytest.importorskip("torch")
    found = moved(wd.ProximalHuber(3.0, 0.6), 0.5)

    def objective(y, weight):
        huber = torch.nn.functional.huber_loss(torch.tensor(y), torch.tensor(0.0), delta=0.6)
        return (y - weight) ** 2 / 2 + 0.5 * 3.0 * float(huber)

    for weight, result in zip(WEIGHTS, found, strict=True):
        best = minimize_scalar(objective, bounds=(-6, 6), args=(weight,), method="bounded", options={"xatol": 1e-9})
        np.testing.assert_allclose(result, best.x, atol=1e-7)  # to the square root of the rounding of the values


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_proximal_huber_has_the_minimizer_of_huber_under_every_base():
    """The slope of the loss and of the penalty cancel: 0 = g + c clip(w, -δ, δ), for SGD and for Adam."""
    target = jnp.array([2.0, -0.3, 0.7, 0.05])
    gradient = lambda w: w - target  # noqa: E731
    expected = np.where(np.abs(target) <= 0.4 * 1.5, target / 1.5, target - 0.5 * 0.4 * np.sign(target))
    for make, steps in ((wd.sgd, 200), (wd.adam, 1500)):
        transform = make(0.02 if make is wd.adam else 0.3, wd.ProximalHuber(0.5, 0.4), mask=True)

        def step(_, carry, transform=transform):
            updates, state = transform.update(gradient(carry[0]), carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        start = jnp.zeros(4)
        found = jax.jit(lambda: jax.lax.fori_loop(0, steps, step, (start, transform.init(start)))[0])()  # noqa: B023
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_proximal_huber_decoupled_is_the_map_without_the_preconditioner():
    rule, start = wd.ProximalHuber(0.5, 0.4, decoupled=True), jnp.array(cases.KERNEL)
    gradient = cases.gradient(start)
    for make in (wd.adam, wd.lion, wd.muon):
        plain = make(0.1, wd.NoDecay())
        z = start + plain.update(gradient, plain.init(start), start)[0]
        transform = make(0.1, rule)
        updates, _ = transform.update(gradient, transform.init(start), start)
        t = 0.1 * 0.5  # algorithm of Guo & Fan: the map of α λ
        expected = np.where(np.abs(z) <= 0.4 * (1 + t), z / (1 + t), z - t * 0.4 * np.sign(z))
        np.testing.assert_allclose(start + updates, expected, rtol=1e-12)
    assert wd.decay.penalty(rule, start) == 0
    with pytest.raises(ValueError, match="does not work here"):
        wd.lion(0.1, wd.ProximalHuber(0.5, 0.4))
    compare.same_bits(
        cases.train(wd.lion(0.1, wd.ProximalHuber(0.0, 0.4, True))), cases.train(wd.lion(0.1, wd.NoDecay()))
    )


@pytest.mark.usefixtures("without_beartype")
def test_proximal_huber_refuses_what_is_not_a_bool():
    with pytest.raises(TypeError, match="decoupled is 1; give True or False"):
        wd.adam(0.1, wd.ProximalHuber(0.5, 0.4, decoupled=1))
