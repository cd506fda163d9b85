"""Coefficients per layer, masks of a rule's own, and several rules together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rule_cases as cases

import compare
import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import masks, placement


@cases.every_rule
@pytest.mark.parametrize(
    ("dtype", "expected"), [(jnp.bfloat16, jnp.float32), (jnp.float32, jnp.float32), (jnp.float64, jnp.float64)]
)
def test_leafwise_keeps_coefficients_in_float32_at_least(name, dtype, expected):
    with jax.enable_x64(dtype == jnp.float64):
        one = jax.tree.map(lambda _: 1e-3, cases.rule(name))
        for here in placement.leafwise(one, cases.params_of(dtype), [True] * 4):
            numbers = jax.tree.leaves(here)
            assert len(numbers) == len(cases.EXAMPLES[name].coefficients)
            assert all(number.dtype == expected and number == expected(1e-3) for number in numbers)


def test_leafwise_is_nothing_where_nothing_decays():
    here = placement.leafwise(wd.L2(0.1), cases.params_of(), [False, True, False, True])
    assert [one is None for one in here] == [True, False, True, False]


@pytest.mark.slow
@cases.few_pairs
def test_coefficient_a_layer_is_each_layers_own(base, name):
    scales = {"Dense_0": 1.0, "Dense_1": 0.5}
    by_layer = [
        {layer: c for layer, c in zip(scales, pair, strict=True)}
        for pair in zip(*(jax.tree.leaves(cases.weaker_rule(name, scale)) for scale in scales.values()), strict=True)
    ]
    layers = cases.rule(name, tuple(by_layer))
    patterns = cases.rule(name, tuple(wd.PerLayer({"Dense_0": c["Dense_0"], ".*": c["Dense_1"]}) for c in by_layer))
    decay.check(layers, argument="decay")
    decay.check(patterns, argument="decay")
    num_steps = 1 if name in ("Stable", "Adaptive") else 2  # these look at all layers together
    together = cases.train(cases.optimizer(base, layers), num_steps=num_steps)
    compare.same_bits(cases.train(cases.optimizer(base, patterns), num_steps=num_steps), together)
    for layer, scale in scales.items():
        alone = cases.train(cases.optimizer(base, cases.weaker_rule(name, scale)), num_steps=num_steps)
        compare.same_bits(together[layer], alone[layer])


def test_coefficient_tree_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"coefficient of L2\(.*Dense_9.*does not fit.*Dense_0/bias"):
        wd.sgd(0.1, wd.L2({"Dense_9": 0.1})).init(cases.params_of())


@pytest.mark.parametrize(
    ("coefficient", "message"),
    [
        (
            wd.PerLayer({"Dense_9": 0.1}),
            r"coefficient of L2.*'Dense_9' matches no weight that decays; these are: Dense_0/ker",
        ),
        (wd.PerLayer({"Dense_0": 0.1}), r"no pattern matches Dense_1/kernel; add a pattern, or give default=0\.0"),
        (wd.PerLayer({".*": 0.1, "Dense_0": 0.2}), r"'Dense_0' is never used, because '\.\*' comes before it"),
        (wd.PerLayer({".*/kernel": 0.1, "bias": 0.2}), r"'bias' matches no weight that decays"),
        (wd.PerLayer({"(": 0.1}), r"'\(' is not a regular expression"),
    ],
)
def test_per_layer_is_refused_where_it_misses(coefficient, message):
    with pytest.raises(ValueError, match=message):
        wd.sgd(0.1, wd.L2(coefficient)).init(cases.params_of())


def test_per_layer_gives_the_rest_its_default_and_may_be_traced():
    by_layer = wd.PerLayer({"Dense_0": 0.3}, default=0.0)
    assert str(by_layer) == "{Dense_0: 0.3, else: 0}"
    assert by_layer == wd.PerLayer({"Dense_0": 0.3}, default=0.0)
    assert hash(by_layer) == hash(wd.PerLayer({"Dense_0": 0.3}, default=0.0))
    assert wd.PerLayer({"a": 1, "b": 2}) != wd.PerLayer({"b": 2, "a": 1})  # the first match wins
    trained = jax.jit(lambda one: cases.train(wd.sgd(0.1, wd.L2(one))))(by_layer)
    expected = cases.train(wd.sgd(0.1, wd.L2({"Dense_0": 0.3, "Dense_1": 0.0})))
    compare.close(trained, expected, rtol=1e-5, atol=1e-6)  # float32, fused and not


@pytest.mark.slow
@pytest.mark.parametrize("base", cases.BASES)
def test_rules_together_act_each_in_its_place(base):
    rules = (wd.MaxNorm(0.6), wd.L2(0.3), wd.Cautious(0.1), wd.Decoupled(0.2))
    params, train = cases.params_of(), lambda *rules: cases.train(cases.optimizer(base, rules), num_steps=1)
    joined = train(wd.L2(0.3))
    expected = jax.tree.map(
        lambda joined, cautious, w: joined + (cautious - joined) - 0.1 * 0.2 * w,
        joined,
        train(wd.L2(0.3), wd.Cautious(0.1)),
        {layer: {"kernel": leaves["kernel"], "bias": 0} for layer, leaves in params.items()},
    )
    for leaves in expected.values():
        leaves["kernel"] = cases.max_norm(np.asarray(leaves["kernel"]), 0.6)
    compare.close(train(*rules), expected, rtol=1e-5, atol=1e-6)  # a few float32 roundings
    compare.same_bits(
        cases.train(cases.optimizer(base, list(rules))), cases.train(cases.optimizer(base, decay.combined(rules)))
    )


@pytest.mark.slow
@cases.two_bases
def test_proximal_rules_together_are_the_elastic_net_in_any_order(base):
    expected = cases.train(cases.optimizer(base, wd.ProximalElasticNet(0.2, 0.3)))
    for both in ((wd.ProximalL1(0.2), wd.ProximalL2(0.3)), (wd.ProximalL2(0.3), wd.ProximalL1(0.2))):
        compare.same_bits(cases.train(cases.optimizer(base, both)), expected)


@pytest.mark.slow
@cases.two_bases
def test_rules_together_may_act_on_weights_of_their_own(base):
    both = (wd.L2(0.3), wd.Masked(wd.ProximalL1(0.5), masks.first))
    trained = cases.train(cases.optimizer(base, both))
    compare.same_bits(trained["Dense_1"], cases.train(cases.optimizer(base, wd.L2(0.3)))["Dense_1"])
    compare.same_bits(
        trained["Dense_0"], cases.train(cases.optimizer(base, (wd.L2(0.3), wd.ProximalL1(0.5))))["Dense_0"]
    )
    everywhere = cases.train(cases.optimizer(base, wd.Masked(wd.L2(0.3), masks.everything)))
    compare.same_bits(everywhere, cases.train(cases.optimizer(base, wd.L2(0.3), mask=masks.everything)))


def test_rules_together_have_a_name_and_coefficients():
    both = decay.combined((wd.L2(0.1), wd.Masked(wd.ProximalL1(0.2), masks.first)))
    assert str(both) == "L2(0.1) + Masked(ProximalL1(0.2), first)"
    assert both.name == "L2 + ProximalL1 on first"
    assert both.coefficients() == {"L2.coefficient": 0.1, "ProximalL1 on first.coefficient": 0.2}
    twice = decay.combined((wd.L2(0.1), wd.L2({"Dense_0": 0.2, "Dense_1": 0.3})))
    assert list(twice.coefficients()) == ["L2 (1).coefficient", "L2 (2).coefficient"]
    assert decay.penalty(twice, cases.params_of()) > decay.penalty(wd.L2(0.1), cases.params_of())
    assert decay.combined(wd.L2(0.1)) == wd.L2(0.1)
    assert decay.penalty(both, cases.params_of()) == decay.penalty(
        (wd.L2(0.1), wd.Masked(wd.L1(0.2), masks.first)), cases.params_of()
    )
