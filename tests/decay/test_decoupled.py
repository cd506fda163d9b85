"""Decoupled rules: exact shrinkage, schedules, and identities with other rules."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd


@pytest.mark.slow
@pytest.mark.parametrize("base", [base for base in cases.BASES if base != "muon"])
@pytest.mark.parametrize("kind", [wd.Decoupled, wd.Corrected, wd.Cautious])
def test_decoupled_with_zero_gradients_shrinks_by_exactly_one_minus_rate_times_coefficient(base, kind):
    decayed = cases.decay_alone(cases.optimizer(base, kind(0.25), 0.5), 7)
    np.testing.assert_array_equal(decayed, cases.WEIGHTS * 0.875**7)  # each product has a float32: no rounding at all


@pytest.mark.slow
@cases.two_bases
@pytest.mark.usefixtures("float64")
def test_independent_with_zero_gradients_shrinks_by_the_schedule_alone(base):
    shape = optax.cosine_decay_schedule(1.0, 50)
    expected = cases.WEIGHTS * np.prod([1 - 0.2 * float(shape(step)) for step in range(50)])
    for peak in (1e-3, 10.0):
        rate = lambda count, peak=peak: peak * shape(count)  # noqa: E731
        decayed = cases.decay_alone(cases.optimizer(base, wd.Independent(0.2), rate, peak_learning_rate=peak), 50)
        np.testing.assert_allclose(decayed, expected, rtol=1e-13)  # 50 products of a few roundings each
    constant = cases.decay_alone(cases.optimizer(base, wd.Independent(0.25), 3.0), 7)
    np.testing.assert_array_equal(constant, cases.WEIGHTS * 0.75**7)


@pytest.mark.slow
@cases.two_bases
@pytest.mark.usefixtures("float64")
def test_independent_is_decoupled_times_the_peak_rate(base):
    rate = optax.cosine_decay_schedule(0.1, 8)
    independent = cases.train(cases.optimizer(base, wd.Independent(0.03), rate, peak_learning_rate=0.1))
    compare.close(
        independent, cases.train(cases.optimizer(base, wd.Decoupled(0.3), rate)), rtol=1e-12
    )  # a few roundings


def test_independent_gives_the_table_of_a_fifth_an_epoch():
    epochs = [cases.decay_alone(wd.sgd(0.1, wd.Independent(0.2)), epoch, 0.875) for epoch in (1, 2, 3, 4)]
    np.testing.assert_allclose(epochs, [0.7, 0.56, 0.448, 0.3584], rtol=1e-6)  # float32 rounding


@pytest.mark.slow
@cases.two_bases
@pytest.mark.parametrize(
    ("both", "alone"),
    [
        (wd.ProximalElasticNet(0.0, 0.3), wd.ProximalL2(0.3)),
        (wd.ProximalElasticNet(0.3, 0.0), wd.ProximalL1(0.3)),
        (wd.ElasticNet(0.0, 0.3), wd.L2(0.3)),
        (wd.ElasticNet(0.3, 0.0), wd.L1(0.3)),
        (wd.TowardAnchor(0.3, {}), wd.L2(0.3)),
        (wd.TowardAnchor(0.3, {}, decoupled=True), wd.Decoupled(0.3)),
        (wd.Huber(0.3, 1e6), wd.L2(0.3)),
        (wd.NormControl(0.0, 0.5), wd.NoDecay()),
        (wd.Corrected(0.3), wd.Decoupled(0.3)),
    ],
)
def test_rule_at_its_limit_is_the_simpler_rule_bit_for_bit(base, both, alone):
    compare.same_bits(cases.train(cases.optimizer(base, both)), cases.train(cases.optimizer(base, alone)))


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_corrected_with_a_schedule_is_decoupled_scaled_by_it():
    rate = optax.cosine_decay_schedule(0.1, 8)
    corrected = cases.train(wd.adam(rate, wd.Corrected(0.3), peak_learning_rate=0.1))
    scheduled = wd.Decoupled(lambda count: 0.3 * rate(count) / 0.1)
    compare.close(corrected, cases.train(wd.adam(rate, scheduled)), rtol=1e-13, atol=1e-15)  # roundings
    assert cases.largest_difference(corrected, cases.train(wd.adam(rate, wd.Decoupled(0.3)))) > 1e-3


def test_adaptive_is_right_where_a_square_overflows():
    kernel = jnp.full((2, 2), 1e30)
    transform = wd.sgd(0.5, wd.Adaptive(0.2))
    updates, _ = transform.update(kernel, transform.init(kernel), kernel)
    np.testing.assert_allclose(updates, -0.5 * (1 + 0.9 * 0.2) * 1e30, rtol=1e-6)  # g = w: their ratio is 1


def test_stable_is_right_where_the_sum_of_second_moments_overflows_in_float16():
    kernel = jnp.ones((400, 400), jnp.float16)
    transform = wd.adam(0.5, wd.Stable(0.2), b1=0.0, b2=0.5, eps=1.0)
    updates, _ = transform.update(kernel, transform.init(kernel), kernel)
    np.testing.assert_allclose(updates, -0.5 * (0.5 + 0.2), rtol=1e-3)  # v̂ = 1, of which there are 160,000


def test_count_of_steps_stays_at_its_largest_value():
    params = jnp.ones(2)
    last = 2**31 - 1
    for rule in (wd.Decoupled(wd.schedules.Linear(1.0, 0.25, 100)), wd.Constrained(9.0, warm_start=5)):
        transform = wd.sgd(1.0, rule, mask=True)
        state = transform.init(params)._replace(step=jnp.array(last, jnp.int32))
        updates, state = transform.update(jnp.zeros(2), state, params)
        assert int(state.step) == last
        np.testing.assert_allclose(updates, -0.25 if isinstance(rule, wd.Decoupled) else 0)
