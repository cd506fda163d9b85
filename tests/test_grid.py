"""Grids: their order, their candidates, their JSON, and what they refuse."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

import weightdecay as wd
from weightdecay import decay, grid, masks


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
    assert grid.candidates(members) == [0, 1, 0, 1]


def test_decode_inverts_encode():
    rules = [wd.NoDecay(), wd.L2(0.1), wd.ElasticNet(0.1, 1e-300), wd.L2({"Dense_0": jnp.float32(0.5), "out": 1})]
    for one in wd.Grid(decay=rules, learning_rate=[1e-3], nesterov=[True]):
        assert grid.decode(grid.encode(one)) == one


def test_decode_refuses_an_unknown_rule():
    with pytest.raises(ValueError, match="no rule of this version"):
        grid.decode({"decay": {"rule": "__import__", "coefficient": 1}})


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize(
    ("axes", "error", "message"),
    [
        ({"decay": ["L2"]}, TypeError, r"decay\[0\] is 'L2', of type str, .* no decay rule; give one of: NoDecay, L2"),
        ({"decay": "L2"}, TypeError, r"decay\[0\] is 'L2'.*for example wd.L2\(0.01\)"),
        ({"decay": [wd.NoDecay(), wd.L2]}, TypeError, r"decay\[1\] is the kind L2 without its.*; write wd.L2\(0.01\)"),
        ({"decay": [wd.L2(-1e-3)]}, ValueError, r"decay\[0\] = L2\(-0.001\): coefficient is -0.001; .* >= 0"),
        ({"decay": [wd.L1(float("nan"))]}, ValueError, "coefficient is nan; a coefficient is a finite number"),
        ({"decay": [wd.ElasticNet(0.1, float("inf"))]}, ValueError, "l2_coefficient is inf"),
        ({"decay": [wd.L2("0.1")]}, TypeError, "coefficient is '0.1', of type str; give a number"),
        ({"decay": [wd.L2(np.ones(3))]}, ValueError, r"array of shape \(3,\); give one number.*wd.logspace"),
        ({"decay": [wd.L2(lambda step: 0.1)]}, TypeError, r"function as its coefficient.*wd\.schedules"),
        ({"decay": [wd.Masked(wd.L2(0.1), lambda params: True)]}, TypeError, r"mask of its own making.*kernels, every"),
        ({"decay": [(wd.L2(0.1), wd.TowardAnchor(0.1, {}))]}, TypeError, "TowardAnchor has an anchor of its own"),
        ({"decay": [()]}, ValueError, r"decay\[0\] is empty; give rules, or wd\.NoDecay\(\)"),
        ({"decay": [((wd.L2(0.1),),)]}, TypeError, r"decay\[0\]\[0\] holds several rules itself"),
        ({"decay": []}, ValueError, "decay is an empty axis.*give at least one value"),
        ({"seed": []}, ValueError, "seed is an empty axis"),
        ({"seed": [0.5]}, TypeError, r"seed\[0\] is 0.5, of type float; a seed is a whole number"),
        ({"seed": [-1]}, ValueError, "seed lies between 0 and 2147483647"),
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
        ((wd.L2, 1e-3, 1.0, 0), ValueError, "num is 0; give at least 1"),
        ((wd.L2(0.1), 1e-3, 1.0, 3), TypeError, "without a coefficient"),
        ((wd.ElasticNet, 1e-3, 1.0, 3), TypeError, "ElasticNet, which does not take one coefficient.*lambda c"),
        ((float, 1e-3, 1.0, 3), TypeError, "rule is 0.001.*no decay rule"),
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
    *(wd.L2(kind(*(0.1 for _ in dataclasses.fields(kind)))) for kind in wd.schedules.KINDS.values()),
    *(wd.Masked(wd.L2(0.1), mask) for mask in (True, masks.kernels, masks.everything, masks.first, masks.last)),
    wd.Masked(wd.ProximalL1(0.1), masks.matching("Dense_0/kernel", "Dense_1")),
    (wd.L2(0.1), wd.Masked(wd.ProximalL1(wd.schedules.Linear(0.1, 0.0, 9)), masks.hidden)),
]


@pytest.mark.parametrize("rule", STORED, ids=lambda one: str(decay.combined(one)))
def test_grid_stores_every_decay_as_json_and_reads_it_again(rule):
    (member,) = wd.Grid(decay=[rule], learning_rate=0.1)
    stored = json.loads(json.dumps(grid.encode(member)))
    assert grid.decode(stored) == member
    assert str(grid.decode(stored)["decay"]) == str(member["decay"])


def test_grid_takes_a_tuple_in_a_list_as_several_rules_together():
    both = (wd.L2(0.1), wd.ProximalL1(0.2))
    assert [member["decay"] for member in wd.Grid(decay=[both, wd.L2(0.3)])] == [decay.combined(both), wd.L2(0.3)]
    assert [member["decay"] for member in wd.Grid(decay=both)] == list(both)


def test_decode_refuses_what_is_no_rule():
    for stored in ({"rule": "L3"}, {"rule": "L2"}, {"mask": "mine"}, 3, {}, "L2"):
        with pytest.raises(ValueError, match=r"decay is stored as .* which is no rule of this version"):
            grid.decode({"decay": stored})
