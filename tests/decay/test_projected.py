"""Rules that move the weights: norms, bounds, projections, exact zeros."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_lp_of_two_is_the_implicit_step_of_twice_the_coefficient():
    plain = lambda one: cases.train(wd.sgd(0.1, one))  # noqa: E731
    compare.close(plain(wd.Lp(0.3, 2.0)), plain(wd.ProximalL2(0.6)), rtol=1e-13, atol=1e-15)  # a rounding or two


@pytest.mark.slow
@pytest.mark.parametrize("base", cases.BASES)
@pytest.mark.usefixtures("float64")
def test_norm_control_holds_the_norm_and_decays_at_ratio_zero(base):
    held = cases.train(cases.optimizer(base, wd.NormControl(1.0)))
    for layer in cases.PARAMS:
        start = np.linalg.norm(cases.PARAMS[layer]["kernel"])
        np.testing.assert_allclose(np.linalg.norm(held[layer]["kernel"]), start, rtol=1e-13)  # a few roundings
    if base != "muon":
        decayed = cases.decay_alone(cases.optimizer(base, wd.NormControl(0.25, 0.0)), 7)
        np.testing.assert_allclose(decayed, cases.WEIGHTS * 0.75**7, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("base", cases.BASES)
def test_max_norm_bounds_every_unit_and_leaves_it_there(base):
    trained = cases.train(cases.optimizer(base, wd.MaxNorm(0.6)))
    kernel = trained["Dense_0"]["kernel"]
    assert np.all(np.linalg.norm(kernel, axis=0) <= 0.6 * (1 + 1e-6))  # float32
    again = cases.train(wd.sgd(0.1, wd.MaxNorm(0.6)), trained, 1, lambda params: jax.tree.map(jnp.zeros_like, params))
    compare.close(again, trained, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_constrained_reads_its_bound_after_the_warm_start_and_holds_it():
    away = lambda params: jax.tree.map(lambda w: -w, params)  # noqa: E731 - grows without end
    square = lambda params: np.sum(np.square(params))  # noqa: E731
    start = jnp.array(cases.KERNEL)

    def train(one, num_steps):
        transform = wd.sgd(0.1, one)

        def step(_, carry):
            updates, state = transform.update(away(carry[0]), carry[1], carry[0])
            return optax.apply_updates(carry[0], updates), state

        return jax.jit(lambda: jax.lax.fori_loop(0, num_steps, step, (start, transform.init(start)))[0])()

    for warm_start in (0, 3):
        held = train(wd.Constrained(1.5, 0.01, warm_start=warm_start), 4000)
        bound = 1.5 * square(start) * 1.1 ** (2 * warm_start)  # each step without decay makes the weights longer by .1
        np.testing.assert_allclose(square(held), bound, rtol=0.3)  # the multiplier swings about it; free: 1.1 ** 8000
    free = [cases.train(wd.sgd(0.1, wd.NoDecay()), start, steps, away) for steps in (3, 5)]
    waiting = cases.train(wd.sgd(0.1, wd.Constrained(1.5, 0.01, warm_start=3)), start, 3, away)
    compare.same_bits(waiting, free[0])
    within = cases.train(wd.sgd(0.1, wd.Constrained(1e3, 0.01)), start, 5, away)
    compare.same_bits(within, free[1])  # an array within its bound does not decay


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_selective_projection_undoes_steps_away_from_the_anchor_against_the_gradient():
    start, gradient = jnp.array([[1.0, 2.0]]), lambda sign: lambda params: sign * jnp.ones_like(params)
    transform = wd.sgd(0.1, wd.SelectiveProjection(1.0, jnp.zeros((1, 2))))
    # <g, w - a> > 0: the step itself goes back toward the anchor, so nothing was added to the distance.
    np.testing.assert_allclose(cases.train(transform, start, 1, gradient(1)), start - 0.1)
    # <g, w - a> < 0: the gradient asks to go on; it may.
    np.testing.assert_allclose(cases.train(transform, start, 1, gradient(-1)), start + 0.1)
    # Momentum goes on although the gradient has turned: with c = 1 the distance stays what it was.
    transform = wd.sgd(0.1, wd.SelectiveProjection(1.0, jnp.zeros((1, 2))), 0.9)
    moving = transform.init(start)._replace(base=optax.TraceState(-10.0 * jnp.ones((1, 2))))
    updates, _ = transform.update(jnp.ones((1, 2)), moving, start)
    np.testing.assert_allclose(np.linalg.norm(start + updates), np.linalg.norm(start), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
def test_proximal_l1_makes_exact_zeros_that_l1_does_not(make):
    proximal, coupled = (cases.train(make(0.1, rule(0.6)), num_steps=100) for rule in (wd.ProximalL1, wd.L1))
    assert np.sum(proximal["Dense_0"]["kernel"] == 0) > 3
    assert np.all(coupled["Dense_0"]["kernel"] != 0)


HUGE = np.array([[1e30, -1e30], [5e29, 0.0]], np.float32)  # the square of 1e30 is not a float32
zeros_like = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731


@pytest.mark.slow
@pytest.mark.parametrize(("ratio", "factor"), [(1.0, 1.0), (0.5, 0.5)])
def test_norm_control_is_right_where_a_square_overflows(ratio, factor):
    trained = cases.train(wd.sgd(0.1, wd.NormControl(1.0, ratio)), jnp.asarray(HUGE), 2, zeros_like)
    np.testing.assert_allclose(trained, factor * HUGE, rtol=1e-6)


def test_constrained_is_right_where_a_square_overflows():
    within = cases.train(wd.sgd(0.1, wd.Constrained(1.0, warm_start=0)), jnp.asarray(HUGE), 3, zeros_like)
    np.testing.assert_array_equal(within, HUGE)  # at its bound
    beyond = wd.sgd(0.1, wd.Constrained(1e30))
    updates, state = beyond.update(jnp.zeros((2, 2)), beyond.init(jnp.asarray(HUGE)), jnp.asarray(HUGE))
    assert np.isfinite(updates).all()
    assert state.decay[0]["multiplier"] == 1


@pytest.mark.usefixtures("float64")
def test_constrained_projects_onto_the_bound_where_the_formula_would_overshoot():
    start = jnp.array([[3.0, 4.0]])
    trained = cases.train(wd.sgd(0.1, wd.Constrained(4.0, 1.0)), start, 1, zeros_like)  # λ = 21 by the formula
    np.testing.assert_allclose(trained, start * 2 / 5, rtol=1e-13)
    by_formula = cases.train(wd.sgd(0.1, wd.Constrained(4.0, 0.04)), start, 1, zeros_like)  # λ = 0.84
    np.testing.assert_allclose(by_formula, start * (1 - 2 * 0.84), rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "size"), [(jnp.float32, 1e30), (jnp.float16, 3e4)])
def test_selective_projection_sees_the_direction_of_large_gradients(dtype, size):
    """⟨g, w - a⟩ > 0 although both products are infinite, with opposite signs."""
    start = jnp.array([[1.0, 0.5]], dtype) * size
    transform = wd.sgd(1.0, wd.SelectiveProjection(1.0, jnp.zeros((1, 2))), 0.9)
    gradient = jnp.array([[1.0, -1.0]], dtype) * size * dtype(1e-3)
    momentum = -start * dtype(0.5)
    moving = transform.init(start)._replace(base=optax.TraceState(momentum / dtype(0.9)))
    updates, _ = transform.update(gradient, moving, start)
    lengths = [np.linalg.norm(np.asarray(array, np.float64)) for array in (start, start + updates)]
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=5e-3)  # float16 has three digits


@pytest.mark.parametrize("rule", [wd.ProximalL1(0.3), wd.ProximalL2(0.3), wd.ProximalElasticNet(0.3, 0.3)])
def test_proximal_rule_leaves_weights_where_the_diagonal_is_infinite(rule):
    """Adam's second moment overflows: D is infinite, the map η c / D is the identity."""
    kernel = jnp.asarray(HUGE)
    updates, _ = (step := wd.adam(0.1, rule)).update(kernel, step.init(kernel), kernel)
    np.testing.assert_array_equal(updates, 0)
