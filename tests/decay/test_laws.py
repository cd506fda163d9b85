"""The laws that every decay rule obeys under every base optimizer, and each rule against its formula in numpy."""

import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import rule_cases as cases

import compare
import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import masks


@cases.every_rule
def test_rule_is_a_frozen_dataclass(name):
    one, numbers = cases.rule(name), cases.EXAMPLES[name].coefficients
    assert dataclasses.is_dataclass(one)
    assert one == cases.rule(name)
    assert hash(one) == hash(cases.rule(name))
    assert dataclasses.replace(one) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.coefficient = 1.0
    assert tuple(one.coefficients().values())[: len(numbers)] == numbers
    assert str(one) == f"{name}({', '.join(map(str, [*numbers, *cases.EXAMPLES[name].static]))})"
    assert one.name == name


def test_rules_differ_in_structure():
    """Else `jax.jit` may run the program that it has of another rule."""
    structures = {name: jax.tree.structure(cases.rule(name)) for name in decay.KINDS}
    equal = [(a, b) for a, b in itertools.combinations(structures, 2) if structures[a] == structures[b]]
    assert not equal


@cases.every_rule
def test_rule_is_a_pytree_of_its_coefficients(name):
    one = cases.rule(name)
    leaves, structure = jax.tree.flatten(one)
    assert tuple(leaves) == cases.EXAMPLES[name].coefficients
    assert structure.unflatten(leaves) == one
    placeholder = object()  # what JAX itself puts in
    assert jax.tree.leaves(structure.unflatten([placeholder] * len(leaves))) == [placeholder] * len(leaves)

    def checked(traced):
        assert type(traced) is type(one)
        assert all(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(traced))
        decay.check(traced, argument="decay")
        return traced

    assert jax.tree.structure(jax.eval_shape(checked, one)) == structure


@pytest.mark.slow
@cases.every_pair
@pytest.mark.usefixtures("float64")
def test_rule_is_its_formula(base, name):
    example, rate = cases.EXAMPLES[name], optax.cosine_decay_schedule(0.1, 8)
    peaks = {"peak_learning_rate": 0.1}
    trained = cases.train(cases.optimizer(base, cases.rule(name), rate, mask=masks.everything, **peaks), num_steps=3)
    weights, structure = jax.tree.flatten(cases.PARAMS)
    start, memories = weights, [({}, {}) for _ in weights]
    for count in range(3):
        eta = float(rate(count))
        gradients = [np.sin(2 * w + 0.5) for w in weights]
        joined = [
            g + example.pull(w, w0, *example.coefficients) for g, w, w0 in zip(gradients, weights, start, strict=True)
        ]
        steps = [
            cases.BASES[base].numpy(memory, g, w, count)
            for (memory, _), g, w in zip(memories, joined, weights, strict=True)
        ]
        norms = [np.sqrt(sum(np.sum(array**2) for array in arrays)) for arrays in (gradients, weights)]
        seconds = [np.ravel(second) for *_, second in steps if second is not None]
        after = []
        for w, w0, g, (u, diagonal, _), (_, memory) in zip(weights, start, gradients, steps, memories, strict=True):
            at = SimpleNamespace(
                w=w, w0=w0, g=g, u=u, diagonal=diagonal, eta=eta, scale=eta / 0.1, memory=memory, k=count
            )
            at.gradient_norm, at.weight_norm = norms
            at.mean_second_moment = np.mean(np.concatenate(seconds)) if seconds else None
            stepped = w - eta * u - example.shrink(at, *example.coefficients)
            after.append(example.move(stepped, at, *example.coefficients))
        weights = after
    # 1 - b2^t cancels three digits of sixteen; the rest is rounding, which Newton-Schulz spreads.
    compare.close(trained, structure.unflatten(weights), rtol=1e-11, atol=1e-10 if base == "muon" else 1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("base", cases.BASES)
def test_no_decay_is_the_base_optimizer_bit_for_bit(base):
    if cases.BASES[base].plain is not None:
        compare.same_bits(cases.train(cases.optimizer(base, wd.NoDecay())), cases.train(cases.BASES[base].plain))


@pytest.mark.slow
@cases.every_pair
def test_coefficient_zero_is_no_decay_bit_for_bit(base, name):
    if cases.EXAMPLES[name].neutral is None:
        return  # a rule without a coefficient
    compare.same_bits(cases.train(cases.optimizer(base, cases.neutral_rule(name)), num_steps=2), cases.undecayed(base))


@pytest.mark.slow
@cases.two_bases
@pytest.mark.parametrize("name", ["ElasticNet", "Decoupled", "ProximalElasticNet", "Huber", "Cautious", "Lp"])
def test_coefficient_zero_compiled_as_written_is_the_base_optimizer_bit_for_bit(base, name):
    compiled = jax.jit(lambda one: cases.scan(cases.optimizer(base, one)), compiler_options=cases.AS_WRITTEN)(
        cases.neutral_rule(name)
    )
    compare.same_bits(compiled, cases.scan_as_written(cases.BASES[base].plain))


@pytest.mark.slow
@cases.every_pair
def test_rule_leaves_biases_alone_by_default(base, name):
    with_rule, without = cases.train(cases.optimizer(base, cases.rule(name)), num_steps=2), cases.undecayed(base)
    for layer in cases.PARAMS:
        compare.same_bits(with_rule[layer]["bias"], without[layer]["bias"])
        # Lion's and Muon's first steps hardly know the size of a pull; a projection waits for a step away.
        # The first steps of RMSprop are ten times those of Adam, longer than any floor that is sane.
        acts = (base, name) != ("rmsprop", "RelativeStep")
        if acts and base not in ("lion", "muon") and name not in ("NoDecay", "SelectiveProjection", *cases.LATER):
            assert cases.largest_difference(with_rule[layer]["kernel"], without[layer]["kernel"]) > 1e-4


@pytest.mark.slow
@cases.every_pair
def test_rule_keeps_the_dtype_and_the_state_its_form(base, name):
    dtype = jnp.bfloat16
    transform, params = cases.optimizer(base, cases.rule(name)), cases.params_of(dtype)
    start = transform.init(params)
    updates, state = jax.eval_shape(transform.update, cases.gradient(params), start, params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(dtype)}
    shapes = lambda tree: jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)  # noqa: E731
    assert shapes(state) == shapes(start)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_coefficient_acts_unrounded_on_weights_of_low_precision(dtype):
    weights, coefficient = jnp.arange(1, 129, dtype=dtype), 1e-3
    assert float(dtype(coefficient)) != coefficient
    zeros = jnp.zeros_like(weights)
    expected = (np.float32(coefficient) * weights.astype(jnp.float32)).astype(dtype)
    for one in (wd.L2(coefficient), wd.Decoupled(coefficient), wd.Huber(coefficient, 1e3)):
        transform = wd.sgd(1.0, one)
        updates, _ = transform.update(zeros, transform.init(weights), weights)
        np.testing.assert_array_equal(-updates, expected)


@pytest.mark.slow
@cases.every_rule
def test_rule_under_vmap_is_a_loop_over_coefficients(name):
    base = "adam"
    run = jax.vmap(lambda scale: cases.scan(cases.optimizer(base, cases.weaker_rule(name, scale))))
    batched = jax.jit(run, compiler_options=cases.QUICK)(jnp.array(cases.SCALES))
    for index, scale in enumerate(cases.SCALES):
        by_hand = cases.train(cases.optimizer(base, cases.weaker_rule(name, scale)), jnp.array(cases.KERNEL))
        np.testing.assert_allclose(batched[index], by_hand, rtol=1e-4, atol=1e-5)  # float32, fused and not


@pytest.mark.slow
@cases.few_pairs
def test_rule_with_traced_coefficients_traces_once(base, name):
    traces = []

    @jax.jit
    def run(one):
        traces.append(one)
        return cases.scan(cases.optimizer(base, one))

    for scale in cases.SCALES:
        run.eval_shape(cases.weaker_rule(name, scale))
    assert len(traces) == 1


@pytest.mark.slow
@cases.every_rule
@pytest.mark.usefixtures("float64")
def test_rule_has_a_finite_gradient_in_its_coefficient(name):
    base = "adam"
    final_loss = lambda scale: cases.loss(cases.scan(cases.optimizer(base, cases.weaker_rule(name, scale))))  # noqa: E731
    both = jax.jit(
        lambda scale: (jax.grad(final_loss)(scale), *jax.jvp(final_loss, (scale,), (1.0,))),
        compiler_options=cases.QUICK,
    )
    slope, _, tangent = both(0.9)
    np.testing.assert_allclose(slope, tangent, rtol=1e-9, atol=1e-13)  # one sum in two orders
    # Its error is about step² = 1e-10, beside slopes of .001 to 1.
    difference = (both(0.9 + 1e-5)[1] - both(0.9 - 1e-5)[1]) / 2e-5
    np.testing.assert_allclose(slope, difference, rtol=1e-5, atol=1e-9)
    inactive = ("NoDecay", "SelectiveProjection", "Hyperball", *cases.LATER)  # no step goes away against advice here
    assert name in inactive or abs(slope) > 1e-5
    if name not in ("MaxNorm", "Constrained"):  # bounds lie above 0
        assert np.isfinite(both(0.0)[0])


@pytest.mark.slow
@cases.few_pairs
def test_rule_is_finite_and_differentiable_where_everything_is_zero(base, name):
    zeros = jnp.zeros((3, 4))

    def after(params, scale):
        transform = cases.optimizer(base, cases.weaker_rule(name, scale))
        state = transform.init(params)
        for _ in range(2):
            updates, state = transform.update(jax.tree.map(jnp.zeros_like, params), state, params)
            params = optax.apply_updates(params, updates)
        return params

    trained, slope = jax.jvp(after, (zeros, 1.0), (jnp.ones_like(zeros), 1.0))
    assert not trained.any()
    assert np.isfinite(slope).all()


@pytest.mark.slow
@cases.every_rule
def test_rule_is_finite_with_a_huge_coefficient(name):
    base = "adam"
    first = dataclasses.fields(cases.rule(name))[:1]
    largest = min((one.metadata.get("at_most", 1e30) for one in first), default=1e30)
    scale = largest / cases.EXAMPLES[name].coefficients[0] if largest < 1e30 else 1e30
    transform = cases.optimizer(base, cases.weaker_rule(name, scale), mask=masks.everything)
    params = cases.params_of()
    updates, _ = transform.update(cases.gradient(params), transform.init(params), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(updates))


SCHEDULES = [
    lambda c: lambda count: c / (1 + count),
    lambda c: wd.schedules.LogTime(c, 1.0),
]


@pytest.mark.slow
@pytest.mark.parametrize("schedule", SCHEDULES)
@cases.every_rule
def test_coefficient_schedule_is_its_number_at_each_step(name, schedule):
    base = "adam"
    scheduled = cases.rule(name, tuple(schedule(c) for c in cases.EXAMPLES[name].coefficients))
    decay.check(scheduled, argument="decay")
    params = cases.params_of()
    state = cases.optimizer(base, cases.rule(name)).init(params)
    for count in range(3):
        one = cases.rule(name, tuple(c / (1 + count) for c in cases.EXAMPLES[name].coefficients))
        np.testing.assert_allclose(jax.tree.leaves(decay.at_step(scheduled, count)), jax.tree.leaves(one), rtol=1e-6)
        updates, state = cases.optimizer(base, one).update(cases.gradient(params), state, params)
        params = optax.apply_updates(params, updates)
    # The schedule divides in float32, the loop in float64.
    compare.close(cases.train(cases.optimizer(base, scheduled), num_steps=3), params, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_schedules_of_coefficient_and_learning_rate_run_compiled():
    transform = wd.adam(
        optax.linear_schedule(0.1, 0.0, 9), wd.ProximalElasticNet(optax.linear_schedule(0.3, 0.0, 9), 0.1)
    )
    compare.close(
        jax.jit(lambda: cases.scan(transform))(), cases.train(transform, jnp.array(cases.KERNEL)), rtol=1e-5, atol=1e-6
    )  # fused and not


@pytest.mark.slow
@cases.every_rule
def test_penalty_is_its_formula(name):
    example, params = cases.EXAMPLES[name], cases.params_of()
    if name == "TowardAnchor":
        return  # below
    expected = sum(example.penalty(layer["kernel"], *example.coefficients) for layer in cases.PARAMS.values())
    # A few float32 roundings in sums of positive terms.
    np.testing.assert_allclose(decay.penalty(cases.rule(name), params), expected, rtol=1e-5)
    if name != "NoDecay":
        with pytest.raises(ValueError, match="selects no weight"):
            decay.penalty(cases.rule(name), params, False)
