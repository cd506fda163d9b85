"""Leaves' names, values spread over trees, and patterns that match names."""

import itertools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core import FrozenDict
from hypothesis import given, settings
from hypothesis import strategies as st

from weightdecay.core import tree


class Pair(NamedTuple):
    weight: Any
    bias: Any


@jax.tree_util.register_dataclass
@dataclass
class Attention:
    key: Any
    query: Any
    value: Any


@jax.tree_util.register_dataclass
@dataclass
class Linear:
    weight: Any
    bias: Any


def _names(params):
    return [name for name, _ in tree.named_leaves(params)]


@pytest.mark.parametrize(
    ("params", "names"),
    [
        (np.zeros(3), [""]),
        ({}, []),
        ({"a": {}, "b": None}, []),
        ({"b": 1.0, "a": [1.0, (2.0, None)]}, ["a/0", "a/1/0", "b"]),
        ({10: 1.0, 9: 2.0}, ["9", "10"]),
        (FrozenDict({"Dense_0": {"kernel": 1.0}}), ["Dense_0/kernel"]),
        ([Pair(1.0, 2.0)], ["0/weight", "0/bias"]),
        ({"layer": Linear(1.0, 2.0)}, ["layer/weight", "layer/bias"]),
        ({"layer": Attention(1.0, 2.0, 3.0)}, ["layer/key", "layer/query", "layer/value"]),
        ({"value": 1.0}, ["value"]),
        ({"kernel": nn.Partitioned(1.0, ("a",))}, ["kernel"]),
        (nn.Partitioned(1.0, ("a",)), [""]),
        (nnx.State({"dense": {"kernel": nnx.Param(jnp.ones(2))}}), ["dense/kernel"]),
        (nnx.State({"value": nnx.Param(jnp.ones(2))}), ["value"]),
    ],
)
def test_name_is_the_path_without_boxes(params, names):
    assert _names(params) == names


def test_name_leaves_out_the_box_at_the_end_alone():
    keys = jax.tree_util.DictKey("value"), jax.tree_util.GetAttrKey("value")
    assert tree.name(()) == ""
    assert tree.name(keys) == "value"
    assert tree.name((keys[1], jax.tree_util.SequenceKey(0))) == "value/0"


NESTED = st.recursive(
    st.none() | st.floats(-1, 1),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text("ab_12", max_size=3), children, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(params=NESTED)
def test_named_leaves_are_the_leaves_of_jax_under_different_names(params):
    leaves = tree.named_leaves(params)
    assert [leaf for _, leaf in leaves] == jax.tree.leaves(params)
    assert len({name for name, _ in leaves}) == len(leaves)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(params=NESTED)
def test_spread_gives_one_value_to_each_leaf(params):
    assert tree.spread(3, params, argument="mask") == [3] * len(jax.tree.leaves(params))
    assert tree.spread(params, params, argument="mask") == jax.tree.leaves(params)


PARAMS = {"Dense_0": {"bias": 0.0, "kernel": 0.0}, "Dense_1": {"bias": 0.0, "kernel": 0.0}, "scale": 0.0}


@pytest.mark.parametrize(
    ("prefix", "values"),
    [
        (7, [7, 7, 7, 7, 7]),
        ({"Dense_0": 1, "Dense_1": 2, "scale": 3}, [1, 1, 2, 2, 3]),
        ({"Dense_0": {"bias": 1, "kernel": 2}, "Dense_1": 3, "scale": 4}, [1, 2, 3, 3, 4]),
    ],
)
def test_spread_takes_a_tree_down_to_some_depth(prefix, values):
    assert tree.spread(prefix, PARAMS, argument="mask") == values


def test_spread_reaches_into_boxes():
    boxed = {"kernel": nn.Partitioned(jnp.ones(2), ("a",)), "bias": jnp.ones(2)}
    assert tree.spread({"kernel": 1, "bias": 2}, boxed, argument="mask") == [2, 1]


@pytest.mark.parametrize("prefix", [{"Dense_0": 1}, [1, 2], {"Dense_0": 1, "Dense_1": 2, "scale": {"more": 1}}])
def test_spread_refuses_a_tree_that_does_not_fit(prefix):
    with pytest.raises(ValueError, match=r"rates is a tree that does not fit.*Dense_0/bias, Dense_0/kernel, Dense_1"):
        tree.spread(prefix, PARAMS, argument="rates")


NAMES = ["Dense_0/bias", "Dense_0/kernel", "Dense_1/kernel", "Dense_10/kernel", "head/proj/kernel"]
MATCHES = [
    ("Dense_1", [0, 0, 1, 0, 0]),
    ("Dense_10", [0, 0, 0, 1, 0]),
    (r"Dense_\d", [1, 1, 1, 0, 0]),
    (r"Dense_\d+", [1, 1, 1, 1, 0]),
    ("kernel", [0, 1, 1, 1, 1]),
    ("Dense_0/kernel", [0, 1, 0, 0, 0]),
    ("proj", [0, 0, 0, 0, 1]),
    ("head", [0, 0, 0, 0, 1]),
    ("head/.*", [0, 0, 0, 0, 1]),
    ("Dense_0|head", [1, 1, 0, 0, 1]),
    (".*", [1, 1, 1, 1, 1]),
    ("^Dense_1/kernel$", [0, 0, 1, 0, 0]),
]


@pytest.mark.parametrize(("pattern", "expected"), MATCHES)
def test_matches_and_first_match_take_runs_of_whole_parts(pattern, expected):
    assert tree.matches([pattern], NAMES, argument="mask") == [bool(one) for one in expected]
    assert tree.first_match([pattern], NAMES, argument="mask") == [pattern if one else None for one in expected]


def test_first_match_takes_the_first_pattern():
    chosen = tree.first_match(["Dense_0/kernel", "Dense_0", "kernel"], NAMES, argument="rates")
    assert chosen == ["Dense_0", "Dense_0/kernel", "kernel", "kernel", "kernel"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    names=st.lists(
        st.lists(st.sampled_from(["a", "b", "a_1", "a_10"]), min_size=1, max_size=3), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_first_match_is_the_first_whose_parts_stand_in_the_name(names, data):
    parts = data.draw(st.lists(st.sampled_from([part for name in names for part in name]), min_size=1, unique=True))
    expected = [next((part for part in parts if part in name), None) for name in names]
    joined = ["/".join(name) for name in names]
    assert tree.matches(parts, joined, argument="rates") == [one is not None for one in expected]
    if set(parts) <= set(expected):
        assert tree.first_match(parts, joined, argument="rates") == expected
    else:
        with pytest.raises(ValueError, match="is never used"):
            tree.first_match(parts, joined, argument="rates")


@pytest.mark.parametrize("function", [tree.first_match, tree.matches])
@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["Dense_2"], r"rates: the pattern 'Dense_2' matches no weight; these are: Dense_0/bias, Dense_0/kernel"),
        (["kernel", "ense_0"], r"the pattern 'ense_0' matches no weight"),
        (["Dense_("], r"rates: 'Dense_\(' is not a regular expression: missing \)"),
    ],
)
def test_patterns_that_match_nothing_are_refused(function, patterns, message):
    with pytest.raises(ValueError, match=message):
        function(patterns, NAMES, argument="rates")


def test_first_match_refuses_a_pattern_that_decides_nowhere():
    with pytest.raises(ValueError, match=r"rates: the pattern 'Dense_0' is never used, because 'Dense_.', 'kernel' "):
        tree.first_match(["kernel", "Dense_.", "Dense_0"], NAMES, argument="rates")
    assert tree.matches(["kernel", "Dense_.", "Dense_0"], NAMES, argument="rates") == [True] * 5


@tree.dataclass
class First:
    value: Any
    shape: Any = field(default=0, metadata={"static": True})


@tree.dataclass
class Second:
    value: Any
    shape: Any = field(default=0, metadata={"static": True})


def test_dataclass_tells_classes_and_static_fields_apart():
    """A program compiled for one class never runs for another that has the same fields."""
    structures = [jax.tree.structure(one) for one in (First(1.0), Second(1.0), First(1.0, 2))]
    assert all(a != b for a, b in itertools.combinations(structures, 2))
    assert jax.tree.structure(First(2.0)) == structures[0]


def test_dataclass_is_a_tree_of_its_fields():
    one = First({"a": 1.0, "b": None}, 3)
    assert jax.tree.map(lambda value: 2 * value, one) == First({"a": 2.0, "b": None}, 3)
    assert _names(one) == ["value/a"]
    assert jax.vmap(lambda rule: rule.value["a"], in_axes=0)(First({"a": jnp.arange(3.0)})).shape == (3,)
