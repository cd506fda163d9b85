"""The laws that every decay rule keeps, each rule against its formula in numpy, and exact identities between rules."""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import weightdecay as wd
from weightdecay import decay, masks


class Example(NamedTuple):
    """A rule written again in numpy, with coefficients to run it at."""

    coefficients: tuple[float, ...]
    penalty: Callable = lambda w, *c: 0
    gradient: Callable = lambda w, *c: 0  # what is added to the gradient
    share: Callable = lambda rate, scale, *c: 0  # of the weight, taken off beside the step
    prox: Callable = lambda z, t, *c: z  # of the stepped weight, t = η / D


def _soft(z, t):
    return np.sign(z) * np.maximum(np.abs(z) - t, 0)


EXAMPLES = {
    "NoDecay": Example(()),
    "L2": Example((0.3,), lambda w, c: c / 2 * np.sum(w**2), lambda w, c: c * w),
    "L1": Example((0.3,), lambda w, c: c * np.sum(np.abs(w)), lambda w, c: c * np.sign(w)),
    "ElasticNet": Example(
        (0.2, 0.3),
        lambda w, c1, c2: c1 * np.sum(np.abs(w)) + c2 / 2 * np.sum(w**2),
        lambda w, c1, c2: c1 * np.sign(w) + c2 * w,
    ),
    "Decoupled": Example((0.3,), share=lambda rate, scale, c: rate * c),
    "Independent": Example((0.05,), share=lambda rate, scale, c: scale * c),
    "ProximalL1": Example((0.3,), lambda w, c: c * np.sum(np.abs(w)), prox=lambda z, t, c: _soft(z, t * c)),
    "ProximalL2": Example((0.3,), lambda w, c: c / 2 * np.sum(w**2), prox=lambda z, t, c: z / (1 + t * c)),
    "ProximalElasticNet": Example(
        (0.2, 0.3),
        lambda w, c1, c2: c1 * np.sum(np.abs(w)) + c2 / 2 * np.sum(w**2),
        prox=lambda z, t, c1, c2: _soft(z, t * c1) / (1 + t * c2),
    ),
}
BASES = {
    "sgd": lambda rule, rate=0.1, **rest: wd.sgd(rate, rule, **{"momentum": 0.9, **rest}),
    "adam": lambda rule, rate=0.1, **rest: wd.adam(rate, rule, **rest),
}
PLAIN = {"sgd": optax.sgd(0.1, 0.9), "adam": optax.adam(0.1)}
every_rule = pytest.mark.parametrize("name", decay.KINDS)
every_base = pytest.mark.parametrize("base", BASES)

RANDOM = np.random.default_rng(0)
PARAMS = {
    "Dense_0": {"kernel": RANDOM.normal(size=(3, 4)), "bias": RANDOM.normal(size=4)},
    "Dense_1": {"kernel": RANDOM.normal(size=(4, 1)), "bias": RANDOM.normal(size=1)},
}
KERNEL = PARAMS["Dense_0"]["kernel"].tolist()  # JAX may keep an array's float64 copy beyond the test that asked for it
NUM_STEPS = 6


# Fused, a product and the sum behind it are rounded once, here and there; bits can be compared where nothing is fused.
AS_WRITTEN = {"xla_disable_hlo_passes": "fusion,algsimp"}
QUICK = {"xla_backend_optimization_level": 0}  # to compile


def _rule(name, scale=1.0):
    return decay.KINDS[name](*(scale * c for c in EXAMPLES[name].coefficients))


def _params(dtype=None):
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype or jnp.result_type(float)), PARAMS)


def _loss(params):
    return sum(jnp.sum(1 - jnp.cos(2 * leaf + 0.5)) / 2 for leaf in jax.tree.leaves(params))


def _gradient(params):
    """Gradient of `_loss`: elementwise, so each array runs on its own."""
    return jax.tree.map(lambda leaf: jnp.sin(2 * leaf + 0.5), params)


def _train(transform, params=None, num_steps=NUM_STEPS, gradient_fn=_gradient):
    """Weights after some steps, one operation at a time: nothing is fused, so that bits can be compared."""
    params = _params() if params is None else params
    state = transform.init(params)
    for _ in range(num_steps):
        updates, state = transform.update(gradient_fn(params), state, params)
        params = optax.apply_updates(params, updates)
    return params


def _scan(transform):
    """The same as one scan, to be compiled; of a kernel alone, which is quick."""
    params = jnp.asarray(KERNEL)

    def step(carry, _):
        params, state = carry
        updates, state = transform.update(_gradient(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, transform.init(params)), length=NUM_STEPS)[0][0]


_scan_as_written = functools.cache(lambda transform: jax.jit(lambda: _scan(transform), compiler_options=AS_WRITTEN)())


def _assert_same_bits(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def _assert_close(actual, expected, **tolerance):
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, **tolerance), actual, expected)


def _largest_difference(one, other):
    return max(jax.tree.leaves(jax.tree.map(lambda a, b: np.max(np.abs(a - b)), one, other)))


# The laws, over every rule.


def test_kinds_holds_every_rule_of_the_module():
    written = {name for name, kind in inspect.getmembers(decay, inspect.isclass) if issubclass(kind, decay.Rule)}
    assert set(decay.KINDS) == written - {"Rule", "Terms"}
    assert all(getattr(wd, name) is kind and name in wd.__all__ for name, kind in decay.KINDS.items())


@every_rule
def test_rule_is_a_frozen_dataclass(name):
    rule = _rule(name)
    assert dataclasses.is_dataclass(rule)
    assert rule == _rule(name)
    assert hash(rule) == hash(_rule(name))
    assert dataclasses.replace(rule) == rule
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.coefficient = 1.0
    assert tuple(rule.coefficients().values()) == EXAMPLES[name].coefficients
    assert str(rule) == f"{name}({', '.join(map(str, EXAMPLES[name].coefficients))})"


@every_rule
def test_rule_is_a_pytree_of_its_coefficients(name):
    rule = _rule(name)
    leaves, structure = jax.tree.flatten(rule)
    assert tuple(leaves) == EXAMPLES[name].coefficients
    assert structure.unflatten(leaves) == rule
    placeholder = object()  # what JAX itself puts in
    assert jax.tree.leaves(structure.unflatten([placeholder] * len(leaves))) == [placeholder] * len(leaves)

    def doubled(traced):
        assert type(traced) is type(rule)
        assert all(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(traced))
        decay.check(traced, argument="decay")
        return jax.tree.map(lambda c: 2 * c, traced)

    _assert_close(jax.jit(doubled)(rule), _rule(name, 2.0), rtol=1e-7)  # float32 holds 7 digits
    jax.eval_shape(doubled, rule)


@every_rule
@every_base
@pytest.mark.usefixtures("float64")
def test_rule_is_its_formula(name, base):
    example, rate = EXAMPLES[name], optax.cosine_decay_schedule(0.1, 8)
    c = example.coefficients
    trained = _train(BASES[base](_rule(name), rate, peak_learning_rate=0.1, mask=masks.everything))

    def step(w, first, second, count):
        eta, g = float(rate(count)), np.sin(2 * w + 0.5) + example.gradient(w, *c)
        if base == "sgd":
            first, metric = 0.9 * first + g, 1 - 0.9
            direction = first
        else:
            first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
            metric = np.sqrt(second / (1 - 0.999 ** (count + 1))) + 1e-8
            direction = first / (1 - 0.9 ** (count + 1)) / metric
        stepped = w - example.share(eta, eta / 0.1, *c) * w - eta * direction
        return example.prox(stepped, eta / metric, *c), first, second

    def train(w):
        first = second = 0.0
        for count in range(NUM_STEPS):
            w, first, second = step(w, first, second, count)
        return w

    # 1 - b2^t cancels three digits of sixteen; the rest is rounding.
    _assert_close(trained, jax.tree.map(train, PARAMS), rtol=1e-11, atol=1e-12)


@every_rule
@every_base
def test_coefficient_zero_is_the_base_optimizer_bit_for_bit(name, base):
    by_hand = _train(BASES[base](_rule(name, 0.0)))
    _assert_same_bits(by_hand, _train(PLAIN[base]))
    _assert_same_bits(by_hand, _train(BASES[base](wd.NoDecay())))
    update = lambda transform: transform.update(_gradient(_params()), transform.init(_params()), _params())[0]  # noqa: E731
    _assert_same_bits(update(BASES[base](_rule(name, 0.0))), update(PLAIN[base]))

    compiled = jax.jit(lambda rule: _scan(BASES[base](rule)), compiler_options=AS_WRITTEN)(_rule(name, 0.0))
    _assert_same_bits(compiled, _scan_as_written(PLAIN[base]))


@pytest.mark.parametrize("name", ["ElasticNet", "Decoupled", "ProximalElasticNet"])
@every_base
def test_coefficient_zero_and_filled_terms_agree_to_rounding_where_the_compiler_fuses(name, base):
    scan = jax.jit(lambda rule: _scan(BASES[base](rule)))
    bits = {"rtol": 1e-6, "atol": 1e-7}  # one or two of float32, over a few steps
    _assert_close(scan(_rule(name, 0.0)), scan(wd.NoDecay()), **bits)
    _assert_close(scan(_rule(name).terms().filled()), scan(_rule(name)), **bits)


@every_rule
@every_base
def test_filled_terms_are_the_rule_bit_for_bit(name, base):
    terms = _rule(name).terms()
    assert not any(value is None for value in terms.filled().coefficients().values())
    assert terms.filled().terms() == terms.filled()
    _assert_same_bits(_train(BASES[base](terms.filled())), _train(BASES[base](_rule(name))))


def test_filled_terms_of_all_rules_share_one_program():
    traces = []

    @jax.jit
    def run(terms):
        traces.append(terms)
        return _scan(wd.adam(0.1, terms))

    for name in decay.KINDS:
        run.eval_shape(_rule(name).terms().filled())
    assert len(traces) == 1


@every_rule
@every_base
def test_rule_leaves_biases_alone_by_default(name, base):
    with_rule, without = (_train(BASES[base](rule)) for rule in (_rule(name), wd.NoDecay()))
    for layer in PARAMS:
        _assert_same_bits(with_rule[layer]["bias"], without[layer]["bias"])
        if name != "NoDecay":
            assert _largest_difference(with_rule[layer]["kernel"], without[layer]["kernel"]) > 1e-3


@every_rule
@every_base
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rule_keeps_the_dtype(name, base, dtype):
    transform, params = BASES[base](_rule(name)), _params(dtype)
    updates, state = transform.update(_gradient(params), transform.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shapes(state) == shapes(transform.init(params))


@every_rule
@pytest.mark.parametrize(
    ("dtype", "expected"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32), (jnp.float64, jnp.float64)]
)
def test_leafwise_keeps_coefficients_in_float32_at_least(name, dtype, expected):
    with jax.enable_x64(dtype == jnp.float64):
        rule = jax.tree.map(lambda _: 1e-3, _rule(name))
        for terms in decay.leafwise(rule, _params(dtype), [True] * 4):
            numbers = jax.tree.leaves(terms)
            assert len(numbers) == len(EXAMPLES[name].coefficients)
            assert all(number.dtype == expected and number == expected(1e-3) for number in numbers)


def test_coefficient_acts_unrounded_on_bfloat16_weights():
    weights, coefficient = jnp.arange(1, 129, dtype=jnp.bfloat16), 1e-3
    assert float(jnp.bfloat16(coefficient)) != coefficient
    zeros = jnp.zeros_like(weights)
    expected = (np.float32(coefficient) * weights.astype(jnp.float32)).astype(jnp.bfloat16)
    for rule in (wd.L2(coefficient), wd.Decoupled(coefficient)):
        transform = wd.sgd(1.0, rule)
        updates, _ = transform.update(zeros, transform.init(weights), weights)
        np.testing.assert_array_equal(-updates, expected)


def test_leafwise_is_empty_where_nothing_decays():
    terms = decay.leafwise(wd.L2(0.1), _params(), [False, True, False, True])
    assert [leaf.is_empty for leaf in terms] == [True, False, True, False]


@every_rule
@every_base
def test_rule_under_vmap_is_a_loop_over_coefficients(name, base):
    scales = [0.0, 0.1, 1.0]
    run = jax.vmap(lambda scale: _scan(BASES[base](_rule(name, scale))))
    batched = jax.jit(run, compiler_options=QUICK)(jnp.array(scales))
    for index, scale in enumerate(scales):
        by_hand = _train(BASES[base](_rule(name, scale)), jnp.array(KERNEL))
        np.testing.assert_allclose(batched[index], by_hand, rtol=1e-5, atol=1e-6)  # float32, fused and not


@every_rule
@every_base
def test_rule_with_traced_coefficients_traces_once(name, base):
    traces = []

    @jax.jit
    def run(rule):
        traces.append(rule)
        return _scan(BASES[base](rule))

    for scale in (0.0, 0.1, 1.0):
        run.eval_shape(_rule(name, scale))
    assert len(traces) == 1


@every_rule
@every_base
@pytest.mark.usefixtures("float64")
def test_rule_has_a_finite_gradient_in_its_coefficient(name, base):
    final_loss = lambda scale: _loss(_scan(BASES[base](_rule(name, scale))))  # noqa: E731
    forward = jax.jit(lambda scale: jax.jvp(final_loss, (scale,), (1.0,)), compiler_options=QUICK)
    backward = jax.jit(jax.grad(final_loss), compiler_options=QUICK)
    for scale in (0.0, 0.1):
        slope, (_, tangent) = backward(scale), forward(scale)
        assert np.isfinite(slope)
        np.testing.assert_allclose(slope, tangent, rtol=1e-9, atol=1e-13)  # one sum in two orders
    # Central difference at 0.1: its error is about step² = 1e-10, beside slopes of .001 to 1.
    difference = (forward(0.1 + 1e-5)[0] - forward(0.1 - 1e-5)[0]) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-9)
    assert name == "NoDecay" or abs(slope) > 1e-4


@every_rule
@every_base
def test_coefficient_a_layer_is_each_layers_own(name, base):
    scales = {"Dense_0": 1.0, "Dense_1": 0.25}
    by_layer = decay.KINDS[name](*({layer: s * c for layer, s in scales.items()} for c in EXAMPLES[name].coefficients))
    decay.check(by_layer, argument="decay")
    together = _train(BASES[base](by_layer))
    for layer, scale in scales.items():
        _assert_same_bits(together[layer], _train(BASES[base](_rule(name, scale)))[layer])


def test_coefficient_tree_that_does_not_fit_is_refused():
    transform = wd.sgd(0.1, wd.L2({"Dense_9": 0.1}))
    with pytest.raises(ValueError, match=r"coefficient of L2\(.*Dense_9.*does not fit.*Dense_0/bias"):
        transform.update(_params(), transform.init(_params()), _params())


@every_rule
@every_base
def test_coefficient_schedule_is_its_number_at_each_step(name, base):
    scheduled = decay.KINDS[name](*((lambda count, c=c: c / (1 + count)) for c in EXAMPLES[name].coefficients))
    decay.check(scheduled, argument="decay")
    params = _params()
    state = BASES[base](wd.NoDecay()).init(params)
    for count in range(3):
        rule = _rule(name, 1 / (1 + count))
        np.testing.assert_allclose(jax.tree.leaves(decay.at_step(scheduled, count)), jax.tree.leaves(rule), rtol=1e-12)
        updates, state = BASES[base](rule).update(_gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    # The schedule divides in float32, the loop in float64.
    _assert_close(_train(BASES[base](scheduled), num_steps=3), params, rtol=1e-6, atol=1e-7)


@every_rule
def test_penalty_is_its_formula(name):
    decays = [False, True, False, True]  # kernels
    example, params = EXAMPLES[name], _params()
    kernels = np.concatenate([np.ravel(layer["kernel"]) for layer in PARAMS.values()])
    expected = example.penalty(kernels, *example.coefficients)
    # A few float32 roundings in sums of positive terms.
    np.testing.assert_allclose(decay.penalty(_rule(name), params, decays), expected, rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(lambda rule: decay.penalty(rule, params, decays))(_rule(name)), expected, rtol=1e-6
    )
    assert decay.penalty(_rule(name), params, [False] * 4) == 0


@pytest.mark.parametrize("name", ["L2", "L1", "ElasticNet"])
def test_coupled_rule_is_the_gradient_of_its_penalty(name):
    penalized = lambda w: _loss(w) + decay.penalty(_rule(name), w, [False, True, False, True])  # noqa: E731
    by_loss = _train(BASES["sgd"](wd.NoDecay()), gradient_fn=jax.grad(penalized))
    _assert_close(_train(BASES["sgd"](_rule(name))), by_loss, rtol=1e-5, atol=1e-6)  # a few float32 roundings


def test_schedules_of_coefficient_and_learning_rate_run_compiled():
    transform = wd.adam(
        optax.linear_schedule(0.1, 0.0, 9), wd.ProximalElasticNet(optax.linear_schedule(0.3, 0.0, 9), 0.1)
    )
    _assert_close(
        jax.jit(lambda: _scan(transform))(), _train(transform, jnp.array(KERNEL)), rtol=1e-5, atol=1e-6
    )  # fused and not


# Exact identities between rules.

WEIGHTS = np.array([1.0, -3.0, 0.0])


def _decay_alone(transform, num_steps, weights=WEIGHTS):
    return _train(transform, jnp.array(weights), num_steps, jnp.zeros_like)


@every_base
def test_decoupled_with_zero_gradients_shrinks_by_exactly_one_minus_rate_times_coefficient(base):
    decayed = _decay_alone(BASES[base](wd.Decoupled(0.25), 0.5), 7)
    np.testing.assert_array_equal(decayed, WEIGHTS * 0.875**7)  # each product has a float32: no rounding at all


@every_base
@pytest.mark.usefixtures("float64")
def test_independent_with_zero_gradients_shrinks_by_the_schedule_alone(base):
    shape = optax.cosine_decay_schedule(1.0, 50)
    expected = WEIGHTS * np.prod([1 - 0.2 * float(shape(step)) for step in range(50)])
    for peak in (1e-3, 10.0):
        rate = lambda count, peak=peak: peak * shape(count)  # noqa: E731
        decayed = _decay_alone(BASES[base](wd.Independent(0.2), rate, peak_learning_rate=peak), 50)
        np.testing.assert_allclose(decayed, expected, rtol=1e-13)  # 50 products of a few roundings each
    constant = _decay_alone(BASES[base](wd.Independent(0.25), 3.0), 7)
    np.testing.assert_array_equal(constant, WEIGHTS * 0.75**7)


@every_base
@pytest.mark.usefixtures("float64")
def test_independent_is_decoupled_times_the_peak_rate(base):
    rate = optax.cosine_decay_schedule(0.1, 8)
    independent = _train(BASES[base](wd.Independent(0.03), rate, peak_learning_rate=0.1))
    _assert_close(independent, _train(BASES[base](wd.Decoupled(0.3), rate)), rtol=1e-12)  # a few roundings


def test_independent_gives_the_table_of_a_fifth_an_epoch():
    epochs = [_decay_alone(wd.sgd(0.1, wd.Independent(0.2)), epoch, 0.875) for epoch in (1, 2, 3, 4)]
    np.testing.assert_allclose(epochs, [0.7, 0.56, 0.448, 0.3584], rtol=1e-6)  # float32 rounding


@pytest.mark.usefixtures("float64")
def test_l2_is_decoupled_in_plain_sgd_and_not_beside_momentum():
    plain, coupled = (_train(wd.sgd(0.1, rule(0.3))) for rule in (wd.L2, wd.Decoupled))
    _assert_close(plain, coupled, rtol=1e-12, atol=1e-14)  # a few roundings
    assert _largest_difference(_train(BASES["sgd"](wd.L2(0.3))), _train(BASES["sgd"](wd.Decoupled(0.3)))) > 1e-2


@pytest.mark.usefixtures("float64")
def test_l2_beside_momentum_decays_at_the_slow_rate():
    # Zero gradients: m <- mu m + c w, w <- w - eta m; its slow root is 1 - eta c / (1 - mu) to first order.
    momentum, rate, c = 0.9, 1e-3, 0.1
    roots = np.roots([1, -(1 + momentum - rate * c), momentum])
    np.testing.assert_allclose(1 - roots.max(), rate * c / (1 - momentum), rtol=2e-2)  # the next order
    before, after = (_decay_alone(wd.sgd(rate, wd.L2(c), momentum), steps, 1.0) for steps in (400, 401))
    np.testing.assert_allclose(after / before, roots.max(), rtol=1e-10)  # the fast root is gone: .9 ** 400


@pytest.mark.usefixtures("float64")
def test_l2_is_not_decoupled_in_adam():
    assert _largest_difference(_train(BASES["adam"](wd.L2(0.3))), _train(BASES["adam"](wd.Decoupled(0.3)))) > 1e-2


@every_base
@pytest.mark.parametrize(
    ("both", "alone"),
    [
        (wd.ProximalElasticNet(0.0, 0.3), wd.ProximalL2(0.3)),
        (wd.ProximalElasticNet(0.3, 0.0), wd.ProximalL1(0.3)),
        (wd.ElasticNet(0.0, 0.3), wd.L2(0.3)),
        (wd.ElasticNet(0.3, 0.0), wd.L1(0.3)),
    ],
)
def test_elastic_net_with_one_part_is_that_part_bit_for_bit(base, both, alone):
    _assert_same_bits(_train(BASES[base](both)), _train(BASES[base](alone)))


@pytest.mark.parametrize("make", [wd.sgd, wd.adam])
def test_proximal_l1_makes_exact_zeros_that_l1_does_not(make):
    proximal, coupled = (_train(make(0.1, rule(0.6)), num_steps=100) for rule in (wd.ProximalL1, wd.L1))
    assert np.sum(proximal["Dense_0"]["kernel"] == 0) > 3
    assert np.all(coupled["Dense_0"]["kernel"] != 0)


# What is refused.


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (wd.L2, TypeError, r"decay is the kind L2 without its coefficient; write wd\.L2\(0\.01\)"),
        (wd.ElasticNet, TypeError, r"decay is the kind ElasticNet .*; write wd\.ElasticNet\(0\.01, 0\.01\)"),
        (wd.NoDecay, TypeError, r"decay is the kind NoDecay .*; write wd\.NoDecay\(\)"),
        (0.01, TypeError, r"decay is 0\.01, of type float.*give one of: NoDecay, L2, .* for example wd\.L2\(0\.01\)"),
        ("L2", TypeError, r"decay is 'L2', of type str.*give one of: NoDecay"),
        (None, TypeError, r"decay is None, of type NoneType.*give one of: NoDecay"),
        (wd.L2("0.1"), TypeError, r"decay = L2\(0\.1\): coefficient is '0\.1', of type str; give a number >= 0"),
        (wd.L2(None), TypeError, r"decay = L2\(None\): coefficient is None, of type NoneType; give a number >= 0"),
        (wd.L2({}), TypeError, r"coefficient is {}, of type dict; give a number >= 0"),
        (wd.L2(1j), TypeError, r"coefficient is 1j, of type complex; give a number >= 0"),
        (decay.Rule, TypeError, r"which is no decay rule; give one of: NoDecay, L2"),
        (decay.Rule(), TypeError, r"which is no decay rule; give one of: NoDecay, L2"),
        (wd.L2(True), TypeError, r"coefficient is True, of type bool; give a number >= 0"),
        (wd.L2(np.True_), TypeError, r"coefficient is np\.True_, of type bool; give a number >= 0"),
        (wd.L2(-0.1), ValueError, r"decay = L2\(-0\.1\): coefficient is -0\.1; a coefficient is a finite number >= 0"),
        (wd.L2(np.nan), ValueError, r"coefficient is nan; a coefficient is a finite number >= 0"),
        (wd.L1(np.inf), ValueError, r"decay = L1\(inf\): coefficient is inf; a coefficient is a finite number >= 0"),
        (wd.Decoupled(np.ones(2)), ValueError, r"coefficient is an array of shape \(2,\); give one number, or a tree"),
        (
            wd.Decoupled(jnp.ones(1)),
            ValueError,
            r"coefficient is an array of shape \(1,\); .* candidates .*wd\.logspace",
        ),
        (wd.Decoupled(jnp.array(-1.0)), ValueError, r"coefficient is -1\.0; a coefficient is a finite number >= 0"),
        (
            wd.ElasticNet(0.1, -1),
            ValueError,
            r"ElasticNet\(0\.1, -1\): l2_coefficient is -1; a coefficient is a finite",
        ),
        (wd.L2({"a": 0.1, "b": {"c": -1.0}}), ValueError, r"coefficient\[b/c\] is -1\.0; a coefficient is a finite"),
    ],
)
def test_check_says_what_came_and_what_to_do(rule, error, message):
    with pytest.raises(error, match=message):
        decay.check(rule, argument="decay")


@pytest.mark.parametrize(
    "coefficient",
    [0, 0.0, 3, 0.1, np.float32(0.1), np.int64(2), jnp.array(0.1), {"a": 0.1}, optax.linear_schedule(0.1, 0, 5)],
)
def test_check_passes_every_number_tree_and_schedule(coefficient):
    decay.check(wd.L2(coefficient), argument="decay")
    decay.check(wd.ElasticNet(coefficient, coefficient), argument="decay")


def test_check_names_the_argument():
    with pytest.raises(TypeError, match=r"grid\[3\] is 1, of type int"):
        decay.check(1, argument="grid[3]")
