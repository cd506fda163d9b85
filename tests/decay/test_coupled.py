"""Coupled rules: gradients of their penalties, identities with other rules, anchors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule_cases as cases

import compare
import weightdecay as wd
from weightdecay import decay


def test_penalty_toward_an_anchor_is_half_the_squared_distance():
    params, anchor = cases.params_of(), jax.tree.map(lambda leaf: leaf + 0.5, cases.params_of())
    sizes = sum(layer["kernel"].size for layer in cases.PARAMS.values())
    expected = 0.3 / 2 * 0.25 * sizes
    transform = wd.sgd(0.1, wd.TowardAnchor(0.3))
    state = transform.init(anchor)
    np.testing.assert_allclose(decay.penalty(wd.TowardAnchor(0.3), params, state=state.decay), expected, rtol=1e-6)
    np.testing.assert_allclose(decay.penalty(wd.TowardAnchor(0.3, anchor), params), expected, rtol=1e-6)
    assert np.isnan(decay.penalty(wd.TowardAnchor(0.3), params))  # the start is not known
    assert decay.penalty(wd.TowardAnchor(0.3, anchor, decoupled=True), params) == 0


COUPLED = ["L2", "L1", "ElasticNet", "Huber", "Elimination", "Orthogonal", "Spectral"]


@pytest.mark.slow
@pytest.mark.parametrize("name", COUPLED)
@pytest.mark.usefixtures("float64")
def test_coupled_rule_is_the_gradient_of_its_penalty(name):
    params = cases.params_of()
    slopes = jax.grad(lambda params: decay.penalty(cases.rule(name), params))(params)
    transform = wd.sgd(1.0, cases.rule(name))
    updates, _ = transform.update(jax.tree.map(jnp.zeros_like, params), transform.init(params), params)
    compare.close(jax.tree.map(jnp.negative, updates), slopes, rtol=1e-9, atol=1e-12)  # roundings, and the iteration's


@pytest.mark.usefixtures("float64")
def test_l2_is_decoupled_in_plain_sgd_and_not_with_momentum():
    plain, coupled = (cases.train(wd.sgd(0.1, rule(0.3))) for rule in (wd.L2, wd.Decoupled))
    compare.close(plain, coupled, rtol=1e-12, atol=1e-14)  # a few roundings
    assert (
        cases.largest_difference(
            cases.train(cases.optimizer("sgd", wd.L2(0.3))), cases.train(cases.optimizer("sgd", wd.Decoupled(0.3)))
        )
        > 1e-2
    )


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_l2_with_momentum_decays_at_the_slow_rate():
    # Zero gradients: m <- mu m + c w, w <- w - eta m; its slow root is 1 - eta c / (1 - mu) to first order.
    momentum, rate, c = 0.9, 1e-3, 0.1
    roots = np.roots([1, -(1 + momentum - rate * c), momentum])
    np.testing.assert_allclose(1 - roots.max(), rate * c / (1 - momentum), rtol=2e-2)  # the next order
    before, after = (cases.decay_alone(wd.sgd(rate, wd.L2(c), momentum), steps, 1.0) for steps in (400, 401))
    np.testing.assert_allclose(after / before, roots.max(), rtol=1e-10)  # the fast root is gone: .9 ** 400


@pytest.mark.usefixtures("float64")
def test_l2_is_not_decoupled_in_adam():
    assert (
        cases.largest_difference(
            cases.train(cases.optimizer("adam", wd.L2(0.3))), cases.train(cases.optimizer("adam", wd.Decoupled(0.3)))
        )
        > 1e-2
    )


@pytest.mark.slow
def test_anchor_is_matched_by_names_and_a_new_head_decays_to_zero():
    anchor = {"Dense_0": {"kernel": cases.PARAMS["Dense_0"]["kernel"] + 1}}
    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    for one in (wd.TowardAnchor(1.0, anchor), wd.TowardAnchor(1.0, anchor, decoupled=True)):
        trained = cases.train(wd.sgd(0.5, one), cases.params_of(), 60, zeros)
        np.testing.assert_allclose(trained["Dense_0"]["kernel"], anchor["Dense_0"]["kernel"], atol=1e-5)
        np.testing.assert_allclose(trained["Dense_1"]["kernel"], 0, atol=1e-5)
    step = wd.sgd(0.5, wd.TowardAnchor(1.0, anchor))
    program = jax.make_jaxpr(step.update)(cases.params_of(), step.init(cases.params_of()), cases.params_of())
    assert not any(np.ndim(constant) for constant in program.consts)  # the anchor is carried, not compiled in
    kept = cases.train(wd.sgd(0.5, wd.TowardAnchor(1.0)), cases.params_of(), 10, zeros)
    compare.same_bits(kept, cases.params_of())


@pytest.mark.parametrize("kind", [wd.TowardAnchor, wd.SelectiveProjection])
def test_anchor_that_does_not_fit_is_refused(kind):
    head = {"Dense_1": {"kernel": np.zeros((4, 7))}}
    with pytest.raises(ValueError, match=r"anchor of .*Dense_1/kernel has shape \(4, 7\).*leave a new head out"):
        wd.sgd(0.1, kind(0.1, head)).init(cases.params_of())
    with pytest.raises(ValueError, match=r"anchor of .* has Dense_7/kernel, which the weights do not have; they are"):
        wd.sgd(0.1, kind(0.1, {"Dense_7": head["Dense_1"]})).init(cases.params_of())


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_spectral_finds_the_largest_singular_value_along_training():
    transform = wd.sgd(0.0, wd.Spectral(1.0))
    params = jnp.array(cases.KERNEL)
    state = transform.init(params)
    for _ in range(200):
        _, state = transform.update(jnp.zeros_like(params), state, params)
    np.testing.assert_allclose(np.abs(state.decay[0]), np.abs(np.linalg.svd(params)[2][0]), rtol=1e-9)  # (σ2/σ1)^400


@pytest.mark.slow
def test_spectral_is_right_where_a_square_overflows():
    kernel = jnp.array([[3e30, 0.0], [0.0, 1e30]])
    transform = wd.sgd(1.0, wd.Spectral(0.5, 60))
    updates, _ = transform.update(jnp.zeros((2, 2)), transform.init(kernel), kernel)
    np.testing.assert_allclose(updates, [[-1.5e30, 0.0], [0.0, 0.0]], rtol=1e-5, atol=1e25)


def test_orthogonal_is_right_where_the_gram_matrix_overflows_in_float16():
    kernel = jnp.full((2, 1), 300.0, jnp.float16)
    transform = wd.sgd(1.0, wd.Orthogonal(1e-6))
    updates, _ = transform.update(jnp.zeros_like(kernel), transform.init(kernel), kernel)
    np.testing.assert_allclose(updates, -4e-6 * 300 * (2 * 300**2 - 1), rtol=1e-3)  # the precision of float16
