"""Grids: their order, their candidates, their JSON, and what they refuse."""

import dataclasses
import json

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from hypothesis import given, settings
from scipy import stats
from scipy.stats import qmc

import weightdecay as wd
from weightdecay import decay
from weightdecay.decay import masks
from weightdecay.search import member as member_json
from weightdecay.search.distributions import Choice, IntUniform, LogUniform, Uniform

sweep = settings(max_examples=25, deadline=None, derandomize=True)


def test_grid_is_the_product_with_the_last_axis_fastest():
    ours = wd.Grid(
        decay=[wd.NoDecay(), *wd.logspace(wd.L2, 1e-6, 1e-1, 11), *wd.logspace(wd.Decoupled, 1e-4, 1e1, 11)],
        learning_rate=[1e-3, 3e-3],
        seed=range(3),
    )
    assert len(ours) == 138
    assert [one["seed"] for one in ours[:4]] == [0, 1, 2, 0]
    assert ours[3] == {"decay": wd.NoDecay(), "learning_rate": 3e-3, "seed": 0}
    assert ours[-1] == {"decay": wd.Decoupled(10.0), "learning_rate": 3e-3, "seed": 2}
    assert repr(ours) == "Grid of 138 members: decay (23) x learning_rate (2) x seed (3)"


def test_grid_takes_single_values_and_arrays_and_has_defaults():
    assert list(wd.Grid(learning_rate=0.1)) == [{"learning_rate": 0.1, "decay": wd.NoDecay(), "seed": 0}]
    rates = wd.Grid(learning_rate=np.array([0.1, 0.2], np.float64), decay=wd.L2(0.5), seed=jnp.arange(2))
    assert [(one["learning_rate"], one["seed"]) for one in rates] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert all(type(one["learning_rate"]) is float and type(one["seed"]) is int for one in rates)


def test_logspace_equals_numpy_and_holds_both_ends():
    rules = wd.logspace(wd.L1, 1e-4, 3e-1, 9)
    np.testing.assert_allclose([rule.coefficient for rule in rules], np.geomspace(1e-4, 3e-1, 9), rtol=1e-12)
    assert (rules[0].coefficient, rules[-1].coefficient) == (1e-4, 3e-1)
    assert wd.logspace(lambda c: wd.ElasticNet(c, 0.1), 0.5, 0.5, 1) == [wd.ElasticNet(0.5, 0.1)]


def test_candidates_differ_in_more_than_the_seed():
    members = wd.Grid(seed=[3, 4], decay=[wd.L2(0.1), wd.L1(0.1)], learning_rate=[1.0])
    assert member_json.candidates(members) == [0, 1, 0, 1]


def test_decode_inverts_encode():
    rules = [wd.NoDecay(), wd.L2(0.1), wd.ElasticNet(0.1, 1e-300), wd.L2({"Dense_0": jnp.float32(0.5), "out": 1})]
    for one in wd.Grid(decay=rules, learning_rate=[1e-3], nesterov=[True]):
        assert member_json.decode(member_json.encode(one)) == one


def test_decode_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match=r"is stored as the rule __import__, .* no such rule is defined here"):
        member_json.decode({"decay": {"rule": "__import__", "coefficient": 1}})


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"decay": ["L2"]}, TypeError, r"decay\[0\] is 'L2', of type str, .* not a decay rule; give one of: NoDecay, "),
        ({"decay": "L2"}, TypeError, r"decay\[0\] is 'L2'.*for example wd.L2\(0.01\)"),
        ({"decay": [wd.NoDecay(), wd.L2]}, TypeError, r"decay\[1\] is the class L2 without a.*; write wd.L2\(0.01\)"),
        ({"decay": [wd.L2(-1e-3)]}, ValueError, r"decay\[0\] = L2\(-0.001\): coefficient is -0.001; .* >= 0"),
        ({"decay": [wd.L1(float("nan"))]}, ValueError, "coefficient is nan; a coefficient is a finite number"),
        ({"decay": [wd.ElasticNet(0.1, float("inf"))]}, ValueError, "l2_coefficient is inf"),
        ({"decay": [wd.L2("0.1")]}, TypeError, "coefficient is '0.1', of type str; give a number"),
        ({"decay": [wd.L2(np.ones(3))]}, ValueError, r"array of shape \(3,\); give one number.*wd.logspace"),
        ({"decay": [wd.L2(lambda step: float(step))]}, TypeError, r"<lambda>, which JAX cannot trace .*wd\.schedules"),
        ({"decay": [wd.Masked(wd.L2(0.1), lambda params: True)]}, TypeError, r"mask that is a function .*kernels"),
        ({"decay": [(wd.L2(0.1), wd.TowardAnchor(0.1, {}))]}, TypeError, "TowardAnchor has an anchor; in a grid"),
        ({"decay": [()]}, ValueError, r"decay\[0\] is empty; give rules, or wd\.NoDecay\(\)"),
        ({"decay": [((wd.L2(0.1),),)]}, TypeError, r"decay\[0\]\[0\] is a tuple of rules itself"),
        ({"decay": []}, ValueError, "decay is an empty axis.*give at least one value"),
        ({"seed": []}, ValueError, "seed is an empty axis"),
        ({"seed": [0.5]}, TypeError, r"seed\[0\] is 0.5, of type float; give a seed, an integer from 0 to"),
        ({"seed": [-1]}, ValueError, "give a seed, an integer from 0 to 2147483647"),
        ({"seed": [0, 1, 0]}, ValueError, "seed holds 0 twice"),
        ({"decay": [wd.L2(0.1), wd.L2(0.1)]}, ValueError, r"decay holds L2\(0.1\) twice"),
        ({"learning_rate": [0.0]}, ValueError, r"learning_rate\[0\] is 0.0; a learning rate is a number above 0"),
        ({"learning_rate": [float("inf")]}, ValueError, "give a finite number"),
        ({"momentum": [None]}, TypeError, r"momentum\[0\] is None, of type NoneType; give a number"),
    ],
)  # fmt: skip
def test_grid_refuses(axes, error, message):
    with pytest.raises(error, match=message):
        wd.Grid(**axes)


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((wd.L2, 0.0, 1.0, 3), ValueError, "start is 0.0.*ends above 0.*wd.NoDecay"),
        ((wd.L2, 1e-3, float("inf"), 3), ValueError, "stop is inf"),
        ((wd.L2, 1e-3, 1.0, 0), ValueError, "num is 0; give an integer of at least 1"),
        ((wd.L2(0.1), 1e-3, 1.0, 3), TypeError, "without a coefficient"),
        ((wd.ElasticNet, 1e-3, 1.0, 3), TypeError, "ElasticNet, which does not take one coefficient.*lambda c"),
        ((float, 1e-3, 1.0, 3), TypeError, "rule is 0.001.*not a decay rule"),
    ],
)  # fmt: skip
def test_logspace_refuses(arguments, error, message):
    with pytest.raises(error, match=message):
        wd.logspace(*arguments)


STORED = [
    *(
        kind(*(0.1 for one in dataclasses.fields(kind) if one.default is dataclasses.MISSING))
        for kind in decay.KINDS.values()
    ),
    wd.Spectral(0.1, num_iterations=3),
    wd.TowardAnchor(0.1, decoupled=True),
    wd.Constrained(0.5, 0.1, warm_start=7),
    wd.L2({"Dense_0": 0.1, "Dense_1": {"kernel": 0.2, "bias": 0.0}}),
    wd.L2({"rule": 0.1, "mask": 0.2}),
    wd.L2(wd.PerLayer({"Dense_0": 0.1, "rule": 0.2}, default=0.3)),
    *(
        wd.L2(kind(*(0.1 for _ in dataclasses.fields(kind))))
        for name, kind in wd.schedules.KINDS.items()
        if name not in ("Piecewise", "Function")
    ),
    wd.L2(wd.schedules.Piecewise((0.5, 1.0), (0.1, 0.2, 0.3), interpolate=True)),
    wd.L2(wd.schedules.Piecewise((1, 3), (0.1, 0.2, 0.3))),
    wd.L2(optax.cosine_decay_schedule(0.1, 100)),
    *(wd.Masked(wd.L2(0.1), mask) for mask in (True, masks.kernels, masks.everything, masks.first, masks.last)),
    wd.Masked(wd.ProximalL1(0.1), masks.matching("Dense_0/kernel", "Dense_1")),
    (wd.L2(0.1), wd.Masked(wd.ProximalL1(wd.schedules.Linear(0.1, 0.0, 9)), masks.hidden)),
]


@pytest.mark.parametrize("rule", STORED, ids=lambda one: str(decay.combined(one)))
def test_grid_stores_every_decay_as_json_and_reads_it_again(rule):
    (member,) = wd.Grid(decay=[rule], learning_rate=0.1)
    stored = json.loads(json.dumps(member_json.encode(member)))
    assert member_json.decode(stored) == member
    assert str(member_json.decode(stored)["decay"]) == str(member["decay"])


def test_grid_takes_a_tuple_in_a_list_as_several_rules_together():
    both = (wd.L2(0.1), wd.ProximalL1(0.2))
    assert [member["decay"] for member in wd.Grid(decay=[both, wd.L2(0.3)])] == [decay.combined(both), wd.L2(0.3)]
    assert [member["decay"] for member in wd.Grid(decay=both)] == list(both)


def test_decode_refuses_what_is_no_rule():
    with pytest.raises(ValueError, match="decay is stored as the rule L3, and no such rule is defined here"):
        member_json.decode({"decay": {"rule": "L3"}})
    for stored in ({"rule": "L2"}, {"mask": "mine"}, 3, {}, "L2"):
        with pytest.raises(ValueError, match=r"decay is stored as .* which is not a rule of this version"):
            member_json.decode({"decay": stored})


# Replicates.


def test_candidates_differ_in_more_than_seed_and_fold():
    members = wd.Grid(fold=range(2), decay=[wd.L2(0.1), wd.L1(0.1)], seed=[3, 4], learning_rate=1.0)
    assert member_json.REPLICATES == ("seed", "fold")
    assert member_json.candidates(members) == [0, 0, 1, 1, 0, 0, 1, 1]


# Side by side.


def test_zip_pairs_values_and_crosses_replicates():
    ours = wd.Grid.zip(
        decay=[wd.L2(0.1), wd.L1(0.2)], learning_rate=[0.1, 0.2], momentum=0.9, fold=range(3), seed=[3, 4]
    )
    pairs = [(wd.L2(0.1), 0.1), (wd.L1(0.2), 0.2)]
    assert list(ours) == [
        {"decay": rule, "learning_rate": rate, "momentum": 0.9, "seed": seed, "fold": fold}
        for rule, rate in pairs
        for fold in (0, 1, 2)
        for seed in (3, 4)
    ]
    assert member_json.candidates(ours) == [0] * 6 + [1] * 6
    assert ours.axes == {
        "decay": [wd.L2(0.1), wd.L1(0.2)],
        "learning_rate": [0.1, 0.2],
        "momentum": [0.9],
        "fold": [0, 1, 2],
        "seed": [3, 4],
    }


def test_zip_has_the_defaults_of_a_product():
    assert list(wd.Grid.zip(learning_rate=0.1)) == list(wd.Grid(learning_rate=0.1))
    repeated = wd.Grid.zip(learning_rate=[0.1, 0.1, 0.2], momentum=[0.0, 0.5, 0.5], hidden=[(8, 8)])
    assert [(one["learning_rate"], one["momentum"]) for one in repeated] == [(0.1, 0.0), (0.1, 0.5), (0.2, 0.5)]
    assert repr(repeated) == "Grid of 3 members: learning_rate (2), momentum (2), hidden (1), decay (1), seed (1)"


# Draws.


def spread(num_values):
    """Axes of continuous values and few others."""
    return {
        "decay": [wd.NoDecay(), wd.L2(LogUniform(1e-6, 1e-1)), wd.ElasticNet(LogUniform(1e-6, 1), Uniform(0, 1))],
        "learning_rate": LogUniform(1e-4, 1e-1),
        "momentum": Choice(0.0, Uniform(0.5, 0.95)),
        "nesterov": [True, False],
        "width": IntUniform(1, num_values),
        "b2": 0.999,
    }


DRAWS = pytest.mark.parametrize("draw", [wd.Grid.random, wd.Grid.sobol])


@pytest.mark.slow
@DRAWS
@sweep
@given(st.integers(1, 9), st.integers(0, 9), st.integers(0, 2**40))
def test_a_larger_draw_begins_with_the_smaller(draw, num, more, seed):
    few, many = draw(num, seed, **spread(9)), draw(num + more, seed=seed, **spread(9))
    assert len(few) == num
    assert list(few) == many[:num]
    assert len(many.axes["learning_rate"]) == num + more


@pytest.mark.slow
@DRAWS
@sweep
@given(st.permutations(list(spread(9))), st.integers(0, 5))
def test_a_draw_does_not_depend_on_the_order_of_its_axes(draw, names, seed):
    assert list(draw(6, seed, **{name: spread(9)[name] for name in names})) == list(draw(6, seed, **spread(9)))


@DRAWS
def test_draws_of_other_seeds_differ(draw):
    rates = [one["learning_rate"] for seed in range(20) for one in draw(4, seed, learning_rate=LogUniform(1e-4, 1))]
    assert len(set(rates)) == 80


@DRAWS
def test_draws_with_few_values_are_the_same_without_their_repetitions(draw):
    axes = {"learning_rate": [0.1, 0.2, 0.3], "width": IntUniform(1, 4)}
    every = draw(12, **axes)
    combinations = {(one["learning_rate"], one["width"]) for one in every}
    assert combinations == {(rate, width) for rate in (0.1, 0.2, 0.3) for width in range(1, 5)}
    for num in range(1, 12):
        assert list(draw(num, **axes)) == every[:num]


def test_random_gives_each_axis_numbers_of_its_own():
    alone = wd.Grid.random(20, 3, learning_rate=LogUniform(1e-4, 1e-1))
    beside = wd.Grid.random(20, 3, momentum=Uniform(0, 0.9), learning_rate=LogUniform(1e-4, 1e-1), b2=Uniform(0, 0.9))
    assert [one["learning_rate"] for one in beside] == [one["learning_rate"] for one in alone]
    assert not {one["momentum"] for one in beside} & {one["b2"] for one in beside}


def test_random_takes_numpys_numbers():
    ours = wd.Grid.random(50, 3, momentum=Uniform(0, 0.5), learning_rate=1.0)
    numbers = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3, spawn_key=tuple(b"momentum")))).random(50)
    assert [one["momentum"] for one in ours] == [0.5 * number for number in numbers]


@pytest.mark.slow
def test_random_follows_its_laws():
    ours = wd.Grid.random(600, 5, **spread(10**6))
    # Probabilities of a larger distance, at a fixed seed; a false law gives 1e-10 and less.
    rates = [one["learning_rate"] for one in ours]
    assert stats.kstest(rates, stats.loguniform(1e-4, 1e-1).cdf).pvalue > 0.01
    momenta = [one["momentum"] for one in ours if one["momentum"] > 0]
    assert stats.kstest(momenta, stats.uniform(0.5, 0.45).cdf).pvalue > 0.01
    kinds = [one["decay"].name for one in ours]
    assert stats.chisquare([kinds.count(kind) for kind in ("NoDecay", "L2", "ElasticNet")]).pvalue > 0.01
    # Axes do not depend on one another.
    assert stats.spearmanr(rates, [one["width"] for one in ours]).pvalue > 0.01


def test_sobol_takes_scipys_points_in_the_order_of_the_names():
    ours = wd.Grid.sobol(
        16,
        5,
        momentum=Uniform(0, 0.5),
        learning_rate=LogUniform(1e-4, 1e-1),
        decay=wd.ElasticNet(Uniform(0, 1), Uniform(0, 2)),
    )
    points = qmc.Sobol(4, seed=np.random.default_rng(5)).random(16)
    for member, (l1, l2, rate, momentum) in zip(ours, points, strict=True):
        assert member["decay"] == wd.ElasticNet(l1, 2 * l2)
        assert member["learning_rate"] == LogUniform(1e-4, 1e-1).at([rate])
        assert member["momentum"] == 0.5 * momentum


def test_sobol_fills_every_cell():
    ours = wd.Grid.sobol(64, 1, momentum=Uniform(0, 0.8), learning_rate=Uniform(1, 2))
    cells = {(int(one["momentum"] * 10), int((one["learning_rate"] - 1) * 8)) for one in ours}
    assert cells == {(i, j) for i in range(8) for j in range(8)}


@pytest.mark.parametrize("num", [1, 2, 3, 5, 7, 100])
def test_sobol_does_not_warn(num):
    assert len(wd.Grid.sobol(num, learning_rate=LogUniform(1e-4, 1))) == num


@DRAWS
def test_draws_are_replicated_over_seeds_and_folds(draw):
    ours = draw(3, 7, learning_rate=LogUniform(1e-4, 1), seeds=range(2), folds=[0, 3])
    plain = draw(3, 7, learning_rate=LogUniform(1e-4, 1))
    assert list(ours) == [{**one, "seed": s, "fold": f} for one in plain for s in range(2) for f in (0, 3)]
    assert member_json.candidates(ours) == [0] * 4 + [1] * 4 + [2] * 4
    assert [one["seed"] for one in plain] == [0, 0, 0]
    assert all("fold" not in one for one in plain)


@DRAWS
def test_draws_of_one_value_are_one_member(draw):
    assert list(draw(1, learning_rate=0.1)) == list(wd.Grid(learning_rate=0.1))


@DRAWS
def test_draws_are_stored_as_json_and_read_again(draw):
    for member in draw(8, 2, **spread(9), hidden=[(4,), (8, IntUniform(2, 9))]):
        assert member_json.decode(json.loads(json.dumps(member_json.encode(member)))) == member


@pytest.mark.slow
@pytest.mark.usefixtures("without_beartype")
@DRAWS
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num": 0}, ValueError, "num is 0; give an integer of at least 1"),
        ({"num": 2.0}, TypeError, "num is 2.0, of type float; give an integer"),
        ({"seed": range(3)}, TypeError, r"seed is range\(0, 3\), .*the seed of the draw.*seeds=range\(3\)"),
        ({"seed": -1}, ValueError, "seed is -1; give the seed of the draw, an integer of at least 0"),
        ({"seed": True}, TypeError, "seed is True, of type bool"),
        ({"seeds": 0.5}, TypeError, r"seeds\[0\] is 0.5, of type float; give a seed, an integer from 0 to"),
        ({"seeds": [1, 1]}, ValueError, "seeds holds 1 twice"),
        ({"seeds": []}, ValueError, "seeds is an empty axis"),
        ({"folds": -1}, ValueError, r"folds\[0\] is -1; give a fold, an integer from 0"),
        ({"fold": range(3)}, TypeError, r"fold is not an axis of a draw.*folds=range\(5\)"),
        ({"learning_rate": []}, ValueError, "learning_rate is an empty axis"),
        ({"learning_rate": {0.1}}, TypeError, "learning_rate is of type set; give its values in a list"),
        ({"learning_rate": LogUniform}, TypeError, r"learning_rate\[0\] is <class.*of type type; a learning rate"),
        ({"learning_rate": Uniform(-1, 1)}, ValueError, r"learning_rate\[0\] is -1.0; a learning rate is a number"),
        ({"learning_rate": LogUniform(0, 1)}, ValueError, "learning_rate = LogUniform.*low is 0; give a finite"),
        ({"momentum": Choice(0.5, Uniform(0.5, 1))}, ValueError, r"momentum\[1\] is 1.0; give a number from 0"),
        ({"momentum": [0.5, IntUniform(0, 1)]}, ValueError, r"momentum\[1\] is 1; give a number from 0"),
        ({"patience": Uniform(1, 9)}, TypeError, r"patience\[0\] is 1.0, of type float; give patience, an integer"),
        ({"decay": [wd.L2(LogUniform(1, 0.1))]}, ValueError, r"decay\[0\].coefficient = LogUniform.*low is not below"),
        ({"decay": wd.L2(Uniform(-1, 1))}, ValueError, r"decay\[0\] = L2\(-1\): coefficient is -1.0"),
        ({"decay": LogUniform(0.1, 1)}, TypeError, r"decay\[0\] is 0.1, of type float, which is not a decay rule"),
        ({"decay": Choice([wd.NoDecay(), wd.L2(1)])}, TypeError, r"decay\[0\] is \[NoDecay.*put a star before it"),
        ({"learning_rate": [0.1, 0.2], "num": 3}, ValueError, "num is 3, but 1024 draws gave 2 distinct.*num=2"),
        ({"num": 2}, ValueError, "num is 2, but 1024 draws gave 1 distinct candidates"),
    ],
)  # fmt: skip
def test_draws_refuse(draw, arguments, error, message):
    with pytest.raises(error, match=message):
        draw(**{"num": 1, **arguments})


# Sums and parts.


FEW = st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1, unique=True)


@pytest.mark.slow
@sweep
@given(FEW, FEW, st.lists(st.integers(0, 2), min_size=1, unique=True))
def test_sum_is_the_ordered_union(first, second, seeds):
    left, right = wd.Grid(learning_rate=first, seed=seeds), wd.Grid(learning_rate=second, momentum=0.5)
    assert list(left + right) == [*left, *right]
    right = wd.Grid(learning_rate=second, decay=[wd.NoDecay(), wd.L2(0.1)])
    both = left + right
    assert list(both) == [*left, *(one for one in right if one not in list(left))]
    assert list(left + left) == list(left)
    assert (left + left).axes == left.axes
    assert repr(left + left) == repr(left)
    assert both.axes["learning_rate"] == list(dict.fromkeys(first + second))


def test_sum_takes_equal_numbers_of_other_kinds_once():
    once = wd.Grid(learning_rate=0.1, decay=wd.L2(1)) + wd.Grid(decay=wd.L2(1.0), learning_rate=np.float32(0.1))
    assert len(once) == 1
    # Seeds are compared as they are, though float32 rounds them to one number.
    assert len(wd.Grid(seed=2**30) + wd.Grid(seed=2**30 + 1)) == 2
    assert len(wd.Grid(size=[None]) + wd.Grid(size=["None"]) + wd.Grid()) == 3


def test_sum_has_one_candidate_for_equal_numbers_of_other_kinds():
    ours = wd.Grid(learning_rate=0.1, decay=wd.L2(1), seed=0) + wd.Grid(
        learning_rate=np.float32(0.1), decay=wd.L2(1.0), seed=1
    )
    assert (len(ours), member_json.candidates(ours)) == (2, [0, 0])


def test_sum_with_other_axes_is_no_product():
    ours = wd.Grid(learning_rate=[0.1, 0.2]) + wd.Grid(learning_rate=0.1, momentum=[0.0, 0.5])
    assert repr(ours) == "Grid of 4 members: learning_rate (2), decay (1), seed (1), momentum (2)"
    assert ["momentum" in one for one in ours] == [False, False, True, True]


@pytest.mark.usefixtures("without_beartype")
def test_sum_refuses_what_is_no_grid():
    with pytest.raises(TypeError, match=r"a grid and 3, of type int, cannot be added; give two grids"):
        wd.Grid(learning_rate=0.1) + 3


@pytest.mark.slow
@sweep
@given(FEW, FEW, st.sets(st.sampled_from([0.1, 0.2, 0.3, 0.4]), min_size=1))
def test_where_keeps_the_members_for_which_it_is_true(rates, others, kept):
    ours = wd.Grid(learning_rate=rates, eps=others, seed=range(2))
    expected = [one for one in ours if one["eps"] in kept and one["learning_rate"] <= one["eps"]]
    if expected:
        part = ours.where(lambda one: one["eps"] in kept and one["learning_rate"] <= one["eps"])
        assert list(part) == expected
        assert part.axes["eps"] == list(dict.fromkeys(one["eps"] for one in expected))
    assert repr(ours.where(lambda one: True)) == repr(ours)


def test_where_does_not_let_its_function_change_members():
    ours = wd.Grid(learning_rate=[0.1, 0.2])
    part = ours.where(lambda one: one.pop("learning_rate") < 1)
    assert list(part) == list(ours) == list(wd.Grid(learning_rate=[0.1, 0.2]))


@pytest.mark.usefixtures("without_beartype")
def test_where_refuses():
    ours = wd.Grid(learning_rate=[0.1, 0.2])
    with pytest.raises(ValueError, match="none of the 2 members satisfies the predicate"):
        ours.where(lambda one: one["learning_rate"] > 1)
    with pytest.raises(TypeError, match=r"predicate is 'learning_rate > 1', of type str; give a function"):
        ours.where("learning_rate > 1")


def test_a_slice_is_a_list():
    ours = wd.Grid(learning_rate=[0.1, 0.2, 0.3]) + wd.Grid(learning_rate=0.4)
    assert [one["learning_rate"] for one in ours[1:3]] == [0.2, 0.3]
    assert isinstance(ours[1:3], list)


# Values.


VALUES = {
    "learning_rate": [
        0.1,
        *(one.coefficient for one in STORED if isinstance(getattr(one, "coefficient", None), wd.schedules.Parametric)),
    ],
    "fold": range(3),
    "label_smoothing": [0, 0.5],
    "mixup": [0, 2.0],
    "input_noise": [0, 3],
    "shift": [0, 2.5],
    "flip": [0, 1],
    "crop": [0, 0.9],
    "cutout": [0.0, 1.0],
    "clip_norm": [None, 1e-3],
    "patience": [None, 1, 100],
    "dropout_rate": [0, 0.5],
    "normalization": [None, "batch"],
    "hidden": [(), (64,), (64, 32), (0.5, 1)],
    "nesterov": [True, False],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VALUES)
def test_grid_stores_every_value_as_json_and_reads_it_again(name):
    members = [*wd.Grid(**{name: VALUES[name]}), *wd.Grid.zip(**{name: VALUES[name]})]
    assert [one[name] for one in members[: len(VALUES[name])]] == list(VALUES[name])
    for member in members:
        again = member_json.decode(json.loads(json.dumps(member_json.encode(member))))
        assert again == member
        assert type(again[name]) is type(member[name])


def test_grid_takes_numpys_numbers_in_tuples():
    (member,) = wd.Grid(hidden=[(np.int64(64), jnp.int32(32))])
    assert member["hidden"] == (64, 32)
    assert [type(one) for one in member["hidden"]] == [int, int]


def test_decode_refuses_what_is_no_schedule():
    for stored in ({"schedule": "Step"}, {"schedule": "Cosine"}, {"rule": "NoDecay"}, {"mask": "mine"}, {}):
        with pytest.raises(ValueError, match=r"learning_rate is stored as .* which is not a schedule of this version"):
            member_json.decode({"learning_rate": stored})


class Sawtooth(wd.schedules.Constant):
    """A schedule that no stored result knows."""


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize("make", [wd.Grid, wd.Grid.zip])
@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"learning_rate": wd.schedules.Cosine(-0.1, 9)}, ValueError, r"learning_rate\[0\] = Cosine.*start is -0.1"),
        ({"learning_rate": [wd.schedules.Cosine]}, TypeError, r"learning_rate\[0\] is <class.*or a schedule"),
        ({"learning_rate": lambda step: (0.1,)}, TypeError, r"returns a tuple for a step; a schedule returns one real"),
        ({"learning_rate": Sawtooth(0.1)}, TypeError, r"learning_rate\[0\] is Sawtooth\(0.1\), a schedule of your own"),
        ({"learning_rate": LogUniform(0.1, 1)}, TypeError, r"learning_rate\[0\] = LogUniform.*wd.Grid.random\(num"),
        ({"learning_rate": wd.schedules.Cosine(Uniform(0, 1), 9)}, TypeError, "a distribution; give.*wd.Grid.sobol"),
        ({"decay": [wd.NoDecay(), wd.L2(Uniform(0, 1))]}, TypeError, r"decay\[1\] = L2.*a distribution; give"),
        ({"decay": [(wd.L1(1), wd.L2(Uniform(0, 1)))]}, TypeError, r"decay\[0\] = .*a distribution; give"),
        ({"size": [Choice(1, 2)]}, TypeError, r"size\[0\] = Choice\(1, 2\) is a distribution; give"),
        ({"momentum": wd.schedules.Cosine(0.1, 9)}, TypeError, r"momentum\[0\] is Cosine.*give a number from 0"),
        ({"activation": [jax.nn.relu]}, TypeError, r"activation\[0\] is relu, .*give a string or a number"),
        ({"activation": [nn.LayerNorm]}, TypeError, r"activation\[0\] is LayerNorm, .*give a string or a number"),
        ({"hidden": [[64, 64]]}, TypeError, r"hidden\[0\] is \[64, 64\], of type list; give .* or a tuple of numbers"),
        ({"hidden": [(64, "64")]}, TypeError, r"hidden\[0\]\[1\] is '64', of type str; give numbers in a tuple"),
        ({"hidden": [((64,),)]}, TypeError, r"hidden\[0\]\[0\] is \(64,\), of type tuple"),
        ({"hidden": [(float("inf"),)]}, ValueError, r"hidden\[0\]\[0\] is inf; give a finite number"),
        ({"momentum": [(0.1,)]}, TypeError, r"momentum\[0\] is \(0.1,\), of type tuple; give a number from 0"),
        ({"size": [1, 2**31]}, ValueError, r"size\[1\] is 2147483648, an integer that a result on disk cannot hold"),
        ({"size": -(2**40)}, ValueError, r"size\[0\] is -1099511627776, .* or a real number such as -1099511627776.0"),
        ({"hidden": [(2**31, 1)]}, ValueError, r"hidden\[0\]\[0\] is 2147483648, an integer that"),
        ({"clip_norm": 2**31}, ValueError, r"clip_norm\[0\] is 2147483648, an integer that"),
        ({"fold": 0.0}, TypeError, r"fold\[0\] is 0.0, of type float; give a fold, an integer from 0 to"),
        ({"fold": [-1]}, ValueError, r"fold\[0\] is -1; give a fold, an integer from 0"),
        ({"fold": None}, TypeError, r"fold\[0\] is None"),
        ({"patience": 0}, ValueError, r"patience\[0\] is 0; give patience, an integer from 1 to .*, or None for never"),
        ({"patience": 2.0}, TypeError, r"patience\[0\] is 2.0, .* give patience, an integer .*, or None for never"),
        ({"clip_norm": 0}, ValueError, r"clip_norm\[0\] is 0; give a number above 0, or None for no clipping"),
        ({"clip_norm": "off"}, TypeError, r"clip_norm\[0\] is 'off', of type str; give a number above 0, or None"),
        ({"mixup": None}, TypeError, r"mixup\[0\] is None, of type NoneType; give a number >= 0"),
        *(
            ({name: value}, ValueError, rf"{name}\[0\] is {value}; give a number from 0 to below 1")
            for name in ("label_smoothing", "crop", "dropout_rate")
            for value in (-0.1, 1.0)
        ),
        *(
            ({name: value}, ValueError, rf"{name}\[0\] is {value}; give a number from 0 to 1")
            for name in ("flip", "cutout")
            for value in (-0.1, 1.1)
        ),
        *(({name: -0.1}, ValueError, rf"{name}\[0\] is -0.1; .* >= 0") for name in ("mixup", "input_noise", "shift")),
    ],
)  # fmt: skip
def test_grids_refuse_values(make, axes, error, message):
    with pytest.raises(error, match=message):
        make(**axes)


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"hidden": (64, 64)}, ValueError, r"hidden holds 64 twice.*one value in a list: hidden=\[\(64, 64\)\]"),
        ({"hidden": [(64, 1), (64.0, 1)]}, ValueError, "hidden holds .* twice"),
        ({"size": [None, None]}, ValueError, "size holds None twice"),
        ({"learning_rate": [wd.schedules.Constant(1), wd.schedules.Constant(1.0)]}, ValueError, "twice, as JAX rounds"),
        ({"fold": [1, 1]}, ValueError, "fold holds 1 twice"),
    ],
)  # fmt: skip
def test_grid_refuses_a_value_twice(axes, error, message):
    with pytest.raises(error, match=message):
        wd.Grid(**axes)


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"learning_rate": [1, 2], "momentum": [0, 0.1, 0.2]}, "learning_rate has 2, momentum has 3 values; give"),
        ({"learning_rate": [1, 2, 1.0], "momentum": [0, 0.1, 0]}, "values at positions 0 and 2 are the same in every"),
        ({"learning_rate": []}, "learning_rate is an empty axis"),
        ({"seed": [1, 1]}, "seed holds 1 twice"),
    ],
)  # fmt: skip
def test_zip_refuses(axes, message):
    with pytest.raises(ValueError, match=message):
        wd.Grid.zip(**axes)
