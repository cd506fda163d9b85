"""Hyperball, RadialBrake and RelativeStep: norms that are held, kept from growing, or compared with the step."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd

RNG = np.random.default_rng(0)
DATA = wd.data.digits(num_train=60)


def norms(params):
    return [np.linalg.norm(params[layer]["kernel"]) for layer in params]


@pytest.mark.slow
@pytest.mark.parametrize("make", [wd.sgd, wd.adam, wd.muon])
@pytest.mark.usefixtures("float64")
def test_hyperball_holds_the_norm_and_the_angle_of_each_matrix(make):
    start, rate = cases.params_of(), 0.02
    transform = make(rate, wd.Hyperball())
    state = transform.init(start)
    updates, state = transform.update(cases.gradient(start), state, start)
    after = optax.apply_updates(start, updates)
    np.testing.assert_allclose(norms(after), norms(start), rtol=1e-13)  # a few roundings
    for layer in start:
        # Geometry: w and -η R u/|u| have the lengths R and η R; the angle of their sum with w follows from the angle
        # between them.
        w, moved = start[layer]["kernel"].ravel(), after[layer]["kernel"].ravel()
        u = make(1.0, wd.NoDecay()).update(cases.gradient(start), make(1.0, wd.NoDecay()).init(start), start)[0]
        u = u[layer]["kernel"].ravel()
        cosine = np.dot(w, u) / np.linalg.norm(w) / np.linalg.norm(u)
        expected = np.arctan2(rate * np.sqrt(1 - cosine**2), 1 + rate * cosine)
        angle = np.arccos(np.dot(w, moved) / np.dot(w, w))
        np.testing.assert_allclose(angle, expected, rtol=1e-6)  # arccos near 1 has half the digits


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
def test_hyperball_depends_on_the_learning_rate_and_not_on_the_size_of_the_direction():
    step = lambda scale: cases.train(  # noqa: E731
        wd.sgd(0.1, wd.Hyperball()),
        num_steps=3,
        gradient_fn=lambda p: jax.tree.map(lambda g: scale * g, cases.gradient(p)),
    )
    kernels = lambda params: {layer: params[layer]["kernel"] for layer in params}  # noqa: E731
    compare.close(kernels(step(1.0)), kernels(step(1e-9)), rtol=1e-12)
    compare.close(kernels(step(1.0)), kernels(step(1e12)), rtol=1e-12)


def test_hyperball_is_right_where_a_step_overflows():
    start = jnp.array([[3.0, 0.0], [0.0, 4.0]])
    huge = lambda _: jnp.array([[0.0, 8e37], [0.0, 0.0]])  # noqa: E731
    trained = cases.train(wd.sgd(10.0, wd.Hyperball()), start, 1, huge)  # η u is infinite
    target = np.array([[3.0, -50.0], [0.0, 4.0]])
    np.testing.assert_allclose(trained, 5 * target / np.linalg.norm(target), rtol=1e-6)  # float32


@pytest.mark.usefixtures("float64")
def test_hyperball_goes_together_with_other_rules_and_leaves_vectors_alone():
    start = cases.params_of()
    both = wd.sgd(0.1, (wd.Decoupled(0.5), wd.Hyperball()), mask=True)
    trained = cases.train(both, num_steps=1)
    w, g = (np.asarray(tree["Dense_0"]["kernel"]) for tree in (start, cases.gradient(start)))
    radius = np.linalg.norm(w)
    target = w - 0.1 * radius * g / np.linalg.norm(g) - 0.1 * 0.5 * w
    np.testing.assert_allclose(trained["Dense_0"]["kernel"], radius * target / np.linalg.norm(target), rtol=1e-12)
    b, g = (np.asarray(tree["Dense_0"]["bias"]) for tree in (start, cases.gradient(start)))
    np.testing.assert_allclose(trained["Dense_0"]["bias"], b - 0.1 * g - 0.1 * 0.5 * b, rtol=1e-12)


@pytest.mark.slow
def test_hyperball_holds_the_norm_of_bfloat16_over_many_steps():
    start = jnp.asarray(RNG.normal(size=(8, 8)), jnp.bfloat16)
    transform = wd.sgd(0.05, wd.Hyperball())

    def step(_, carry):
        params, state = carry
        updates, state = transform.update(jnp.sin(3 * params), state, params)
        return optax.apply_updates(params, updates), state

    trained = jax.jit(lambda: jax.lax.fori_loop(0, 300, step, (start, transform.init(start)))[0])()
    lengths = [np.linalg.norm(np.asarray(array, np.float64)) for array in (start, trained)]
    assert trained.dtype == jnp.bfloat16
    np.testing.assert_allclose(lengths[1], lengths[0], rtol=2**-8)  # one rounding of bfloat16; not one per step


class ZeroHead(nn.Module):
    """A network with a projection that starts at zero."""

    @nn.compact
    def __call__(self, inputs):
        hidden = nn.relu(nn.Dense(4, name="body")(inputs.reshape(len(inputs), -1)))
        return nn.Dense(10, kernel_init=nn.initializers.zeros, name="head")(hidden)


def test_hyperball_refuses_a_matrix_of_norm_zero_with_the_reason():
    params = {"body": {"kernel": jnp.ones((3, 2))}, "head": {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}}
    with pytest.raises(ValueError, match=r"^decay = Hyperball: head/kernel has norm 0 at the start.*leave it out"):
        wd.adam(0.01, wd.Hyperball(), mask=True).init(params)
    stacked = {"ScanDense_0": {"kernel": jnp.ones((3, 2, 2)).at[1].set(0)}}
    with pytest.raises(ValueError, match="ScanDense_0/kernel has norm 0"):
        optax.chain(optax.clip(1.0), wd.adam(0.01, wd.Hyperball())).init(stacked)
    only_body = wd.Masked(wd.Hyperball(), wd.masks.matching("body"))
    wd.adam(0.01, only_body).init(params)
    # Where init is traced there is no number to look at: the matrix takes the step of the base optimizer.
    transform = wd.sgd(0.5, wd.Hyperball())
    state = jax.jit(transform.init)(params)
    ones = jax.tree.map(jnp.ones_like, params)
    np.testing.assert_array_equal(transform.update(ones, state, params)[0]["head"]["kernel"], -0.5)


@pytest.mark.slow
def test_fit_grid_refuses_a_matrix_of_norm_zero_under_hyperball():
    grid = lambda rule: wd.Grid(decay=[wd.NoDecay(), rule], learning_rate=0.01)  # noqa: E731
    settings = {"num_steps": 4, "batch_size": 30, "progress": False}
    fit = lambda rule: wd.fit_grid(ZeroHead(), DATA, grid(rule), **settings)  # noqa: E731
    with pytest.raises(ValueError, match="decay = Hyperball: head/kernel has norm 0 at the start"):
        fit(wd.Hyperball())
    with pytest.raises(ValueError, match="decay = Hyperball: head/kernel has norm 0 at the start"):
        fit((wd.L2(0.1), wd.Touched(wd.Hyperball())))
    result = fit(wd.Masked(wd.Hyperball(), wd.masks.matching("body")))
    kernels = [result.params(member)["body"]["kernel"] for member in range(2)]
    assert np.abs(kernels[0] - kernels[1]).max() > 1e-4  # it acts, without a coefficient


@pytest.mark.usefixtures("float64")
def test_radial_brake_keeps_a_fraction_of_what_emerging_optimizers_test():
    # The cases of the tests of RadialBrakeHook: 8 with the update 8 and 0.5 of it kept; 8 with -4, all of it kept.
    for update, expected in ((8.0, 12.0), (-4.0, 4.0)):
        start = jnp.zeros((2, 3)).at[1, 2].set(8.0)
        gradient = lambda params, update=update: -update * (params != 0)  # noqa: E731
        trained = cases.train(wd.sgd(1.0, wd.RadialBrake(0.5)), start, 1, gradient)
        np.testing.assert_allclose(trained, start * expected / 8, rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
@pytest.mark.parametrize("coefficient", [0.0, 0.3, 1.0])
@pytest.mark.usefixtures("float64")
def test_radial_brake_scales_growth_and_keeps_the_direction(make, coefficient):
    away = lambda params: jax.tree.map(lambda w: -jnp.sign(w), params)  # noqa: E731
    free, braked = (
        cases.train(make(0.1, r), num_steps=1, gradient_fn=away) for r in (wd.NoDecay(), wd.RadialBrake(coefficient))
    )
    for layer in free:
        start, grown, kept = (np.asarray(tree[layer]["kernel"]) for tree in (cases.PARAMS, free, braked))
        lengths = [np.linalg.norm(array) for array in (start, grown, kept)]
        assert lengths[1] > lengths[0]
        np.testing.assert_allclose(lengths[2] - lengths[0], coefficient * (lengths[1] - lengths[0]), atol=1e-14)
        np.testing.assert_allclose(kept / lengths[2], grown / lengths[1], rtol=1e-13)
    if coefficient == 1:
        compare.same_bits(braked, free)


@pytest.mark.usefixtures("float64")
def test_radial_brake_counts_decay_as_a_part_of_the_step():
    start = jnp.array([[3.0, 4.0]])
    away = lambda params: -params  # noqa: E731
    trained = cases.train(wd.sgd(0.3, (wd.Decoupled(0.5), wd.RadialBrake(0.2))), start, 1, away)
    np.testing.assert_allclose(trained, start * (1 + 0.2 * (0.3 - 0.15)), rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
@pytest.mark.usefixtures("float64")
def test_relative_step_has_the_floor_as_its_relative_size(make):
    start = cases.params_of()
    transform = make(0.01, wd.RelativeStep(50.0))
    updates, _ = transform.update(cases.gradient(start), transform.init(start), start)
    plain, _ = make(0.01, wd.NoDecay()).update(cases.gradient(start), make(0.01, wd.NoDecay()).init(start), start)
    for layer in start:
        u, base, w = updates[layer]["kernel"], plain[layer]["kernel"], start[layer]["kernel"]
        np.testing.assert_allclose(np.linalg.norm(u) / np.linalg.norm(w), 0.01 * 50, rtol=1e-12)
        np.testing.assert_allclose(u / np.linalg.norm(u), base / np.linalg.norm(base), rtol=1e-12)
        np.testing.assert_array_equal(updates[layer]["bias"], plain[layer]["bias"])
    below = make(0.01, wd.RelativeStep(1e-3))
    updates, _ = below.update(cases.gradient(start), below.init(start), start)
    compare.same_bits(updates, plain)  # longer than the floor: the step of the base optimizer


def test_coefficient_above_one_is_refused_where_it_is_a_fraction():
    with pytest.raises(ValueError, match=r"RadialBrake\(1\.5\): coefficient is 1\.5; .* number from 0 to 1"):
        wd.decay.check(wd.RadialBrake(1.5), argument="decay")
    with pytest.raises(ValueError, match=r"decay is 2; a coefficient is a finite number from 0 to 1"):
        wd.adam(0.1, wd.TowardAverage(0.1, 2))
