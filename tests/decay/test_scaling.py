"""What a coefficient keeps in another run, compared with simulated weights that decay alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import scaling


def left_after(optimizer, num_steps):
    """Fraction of the weights that is left where the gradient is 0."""
    params = {"kernel": jnp.ones((2, 2))}
    state = optimizer.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(zeros, state, params)
        return (jax.tree.map(jnp.add, params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (params, state), length=num_steps)
    return float(params["kernel"][0, 0])


@pytest.mark.parametrize(
    ("rule", "rate"),
    [
        (wd.Decoupled(0.1), 0.02),
        (wd.Independent(0.002), 0.02),
        (wd.Corrected(0.1), 0.02),
        (wd.Decoupled(0.1), wd.schedules.WarmupCosine(0.02, 10, 50)),
        (wd.Corrected(0.1), wd.schedules.WarmupCosine(0.02, 10, 50)),
    ],
)
def test_removed_fractions_are_those_of_weights_that_decay_alone(rule, rate):
    fractions = scaling.removed(rule, rate, range(1, 51))
    # float32 weights over 50 steps.
    np.testing.assert_allclose(left_after(wd.adam(rate, rule), 50), np.prod(1 - fractions), rtol=1e-5)


def test_removed_fraction_is_nan_where_theory_is_silent():
    assert np.isnan(scaling.removed(wd.L2(0.1), 0.01, [1, 2])).all()
    assert np.isnan(scaling.removed(wd.Stable(0.1), 0.01, [1], momentum=0.0)).all()  # SGD has no second moments
    schedule = wd.schedules.Function(optax.cosine_decay_schedule(0.1, 40))  # its peak is not known
    assert np.isnan(scaling.removed(wd.Independent(0.1), schedule, [1])).all()


def test_basis_of_every_rule():
    bases = {name: scaling.basis(kind.from_one(0.5)) for name, kind in decay.KINDS.items() if name != "NoDecay"}
    time_scale = {"Decoupled", "Independent", "Corrected", "Cautious"}
    nothing = {
        *("Stable", "Adaptive", "Lp", "MaxNorm", "NormControl", "Constrained", "SelectiveProjection"),
        *("Hyperball", "RadialBrake", "RelativeStep", "SODA", "TowardAverage"),
    }
    assert {name for name, basis in bases.items() if basis == scaling.TIME_SCALE} == time_scale
    assert {name for name, basis in bases.items() if basis is None} == nothing
    assert scaling.basis(wd.L2(0.5), momentum=0.9) == scaling.TIME_SCALE
    assert scaling.basis(wd.TowardAnchor(0.5, decoupled=True)) is None
    assert scaling.basis(wd.Masked(wd.Decoupled(0.5), wd.masks.first)) == scaling.TIME_SCALE
    assert scaling.basis(decay.combined([wd.L2(0.1), wd.Decoupled(0.1)])) is None


@pytest.mark.parametrize(
    "kind", [kind for kind in decay.KINDS.values() if kind.search_range], ids=lambda kind: kind.__name__
)
def test_ladder_at_the_default_length_is_the_range_of_the_rule(kind):
    assert scaling.ladder(kind, 1e-3, 1000) == kind.search_range


@pytest.mark.parametrize(("rate", "num_steps"), [(1e-3, 200), (3e-4, 1000), (1e-2, 50_000)])
def test_ladder_has_the_same_time_scales_in_every_run(rate, num_steps):
    for kind in (wd.Decoupled, wd.Independent, wd.Corrected, wd.Cautious):
        ends = scaling.ladder(kind, rate, num_steps)
        time_scales = [1 / scaling.removed(kind(end), rate, [1])[0] for end in ends]
        np.testing.assert_allclose(time_scales, [1000 * num_steps, num_steps / 10], rtol=1e-9)
    assert scaling.ladder(wd.L2, rate, num_steps) == wd.L2.search_range


def test_ladder_of_a_short_run_removes_at_most_a_tenth_a_step():
    _, largest = scaling.ladder(wd.Decoupled, 1e-3, 5)
    assert scaling.removed(wd.Decoupled(largest), 1e-3, [1])[0] == pytest.approx(0.1)


def test_ladder_of_l2_under_sgd_is_that_of_its_time_scale():
    assert scaling.ladder(wd.L2, 0.1, 1000, momentum=0.0) == scaling.ladder(wd.Decoupled, 0.1, 1000)
