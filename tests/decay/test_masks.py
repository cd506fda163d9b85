"""Masks: what counts as a kernel in flax modules and in plain trees, the table that shows it, and what is refused."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.core import FrozenDict
from hypothesis import given, settings
from hypothesis import strategies as st

from weightdecay import decay
from weightdecay.core import tree
from weightdecay.decay import coupled, decoupled, masks, optimizers, projected, schedules
from weightdecay.decay.placement import Combined, Masked, PerLayer


class Transformer(nn.Module):
    """One of each kind of layer that flax gives its own names."""

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens)
        x = nn.LayerNorm()(x + nn.MultiHeadDotProductAttention(num_heads=2)(x))
        x = nn.BatchNorm(use_running_average=True)(nn.Conv(4, kernel_size=(3,))(x))
        return nn.Dense(2)(nn.GroupNorm(num_groups=2)(x))


def _init(module, *inputs):
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes["params"])


def _selected(mask, params):
    decays = masks.resolve(mask, params)
    return {name for (name, _), decayed in zip(tree.named_leaves(params), decays, strict=True) if decayed}


def test_kernels_selects_the_kernels_of_a_flax_module():
    params = _init(Transformer(), jnp.zeros((3, 5), int))
    attention = "MultiHeadDotProductAttention_0"
    assert params[attention]["query"]["bias"].ndim == 2  # a bias by its name alone
    assert _selected(masks.kernels, params) == {
        *(f"{attention}/{part}/kernel" for part in ("query", "key", "value", "out")),
        "Conv_0/kernel",
        "Dense_0/kernel",
    }


@pytest.mark.parametrize(
    ("module", "inputs", "kernels"),
    [
        (nn.Dense(3), (2, 4), {"kernel"}),
        (nn.Conv(3, kernel_size=(3, 3)), (2, 8, 8, 1), {"kernel"}),
        (nn.DenseGeneral((3, 2)), (2, 4), {"kernel"}),  # two-dimensional bias
        (nn.Sequential([nn.Dense(3), nn.relu, nn.Dense(1)]), (2, 4), {"layers_0/kernel", "layers_2/kernel"}),
    ],
)
def test_kernels_leaves_out_biases(module, inputs, kernels):
    assert _selected(masks.kernels, _init(module, jnp.zeros(inputs))) == kernels


@pytest.mark.parametrize("module", [nn.LayerNorm(), nn.RMSNorm(), nn.GroupNorm(num_groups=2)])
def test_kernels_leaves_out_scales(module):
    assert not any(jax.tree.leaves(masks.kernels(_init(module, jnp.zeros((2, 4))))))


def test_kernels_leaves_out_embeddings():
    params = _init(nn.Embed(7, 3), jnp.zeros(2, int))
    assert params["embedding"].shape == (7, 3)
    assert masks.kernels(params) == {"embedding": False}


class Layer(NamedTuple):
    weights: np.ndarray
    bias: np.ndarray


class Mixed(nnx.Module):
    """One of each kind of layer that flax nnx gives its own names."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(num_heads=2, in_features=8, decode=False, rngs=rngs)
        self.batch_norm = nnx.BatchNorm(8, rngs=rngs)
        self.conv = nnx.Conv(8, 4, (3,), rngs=rngs)
        self.einsum = nnx.Einsum("nta,hab->nthb", (2, 8, 4), (2, 4), rngs=rngs)
        self.embed = nnx.Embed(11, 8, rngs=rngs)
        self.general = nnx.LinearGeneral(8, (3, 2), rngs=rngs)
        self.gru = nnx.GRUCell(8, 5, rngs=rngs)
        self.layer_norm = nnx.LayerNorm(8, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)])
        self.lora = nnx.LoRALinear(8, 4, lora_rank=2, rngs=rngs)
        self.prelu = nnx.PReLU()
        self.transposed = nnx.ConvTranspose(8, 4, (3,), rngs=rngs)


MIXED_KERNELS = {
    *(f"attention/{part}/kernel" for part in ("query", "key", "value", "out")),
    "conv/kernel",
    "einsum/kernel",
    "general/kernel",
    "gru/dense_h/kernel",
    "gru/dense_i/kernel",
    "layers/0/kernel",
    "layers/1/kernel",
    "lora/kernel",
    "lora/lora/lora_a",
    "lora/lora/lora_b",
    "transposed/kernel",
}


@pytest.fixture(scope="module")
def mixed():
    return Mixed(nnx.Rngs(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "weights",
    [
        lambda module: nnx.state(module, nnx.Param),
        nnx.state,  # with statistics and the state of random numbers
        lambda module: nnx.to_pure_dict(nnx.state(module, nnx.Param)),
        lambda module: nnx.split(module, nnx.Param, ...)[1],
        lambda module: nnx.eval_shape(lambda: nnx.state(module, nnx.Param)),
    ],
)
def test_kernels_selects_the_kernels_of_an_nnx_module(mixed, weights):
    params = weights(mixed)
    assert _selected(masks.kernels, params) == MIXED_KERNELS
    assert jax.tree.structure(masks.kernels(params)) == jax.tree.structure(params)


@pytest.mark.slow
def test_kernels_is_a_mask_for_optax_on_an_nnx_state(mixed):
    params = nnx.state(mixed, nnx.Param)
    transformation = optax.add_decayed_weights(1.0, mask=masks.kernels)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = transformation.update(zeros, transformation.init(params), params)
    moved = {name for name, update in tree.named_leaves(updates) if np.any(update)}
    assert moved == MIXED_KERNELS - {"lora/lora/lora_b"}  # which begins at 0


class Recurrent(nn.Module):
    """Recurrent and boxed layers of linen."""

    @nn.compact
    def __call__(self, x):
        boxed = nn.with_partitioning(nn.initializers.ones, ("in", "out"))
        x = nn.Dense(4, kernel_init=boxed)(x)
        x = nn.RNN(nn.GRUCell(5))(x)
        x = nn.RNN(nn.OptimizedLSTMCell(5))(x)
        x = nn.WeightNorm(nn.ConvTranspose(3, (3,)))(nn.PReLU()(x))
        place = self.param("position_embedding", nn.initializers.zeros, (5, 3))
        return nn.Einsum((3, 2), "...a,ab->...b")(x + place)


def test_kernels_selects_the_kernels_of_recurrent_and_boxed_layers():
    params = _init(Recurrent(), jnp.zeros((2, 5, 3)))
    assert isinstance(params["Dense_0"]["kernel"], nn.Partitioned)
    assert _selected(masks.kernels, params) == {
        "Dense_0/kernel",
        *(f"GRUCell_0/{part}{gate}/kernel" for part in "ih" for gate in "rzn"),
        *(f"OptimizedLSTMCell_0/{part}{gate}/kernel" for part in "ih" for gate in "ifgo"),
        "ConvTranspose_0/kernel",
        "Einsum_0/kernel",
    }
    assert jax.tree.structure(masks.kernels(params)) == jax.tree.structure(params)


@jax.tree_util.register_dataclass
@dataclass
class Linear:
    weight: Any
    bias: Any


@pytest.mark.parametrize(
    ("params", "mask"),
    [
        (FrozenDict({"a": {"kernel": np.zeros((2, 2))}}), FrozenDict({"a": {"kernel": True}})),
        (Linear(np.zeros((2, 2)), np.zeros((2, 1, 1))), Linear(True, False)),
        ([Linear(np.zeros((2, 2)), None)], [Linear(True, None)]),
        ({"in_bias": np.zeros((2, 2)), "bias_in": np.zeros((2, 2))}, {"in_bias": False, "bias_in": True}),
        ({"norm_scale": np.zeros((2, 2)), "upscale": np.zeros((2, 2))}, {"norm_scale": False, "upscale": True}),
        ({"scale": {"kernel": np.zeros((2, 2))}}, {"scale": {"kernel": True}}),
        ({"kernel": np.zeros((0, 3)), "none": {}}, {"kernel": True, "none": {}}),
    ],
)
def test_kernels_decides_by_the_last_part_of_a_name(params, mask):
    assert masks.kernels(params) == mask


SHAPES = st.sampled_from([(), (3,), (2, 3), (3, 2), (3, 3), (2, 2, 3), (3, 3, 2, 2)])
ARRAYS = st.none() | SHAPES.map(lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32))
NESTED = st.recursive(
    ARRAYS,
    lambda children: (
        st.lists(children, max_size=3)
        | st.tuples(children, children)
        | st.dictionaries(st.sampled_from(["a", "kernel", "bias", "w_0", "w_1", "embedding"]), children, max_size=4)
        | st.builds(Linear, children, children)
    ),
    max_leaves=8,
)


def _told(function, params):
    try:
        return [function(params)]
    except ValueError as error:
        if "does not tell which layer comes" in str(error):
            return []
        raise


@settings(max_examples=40, deadline=None, derandomize=True)
@given(params=NESTED)
def test_masks_keep_the_structure_of_any_tree(params):
    for function in (masks.kernels, masks.everything, masks.first, masks.last, masks.hidden):
        for mask in _told(function, params):
            assert jax.tree.structure(mask) == jax.tree.structure(params)
            assert all(type(leaf) is bool for leaf in jax.tree.leaves(mask))
            if function not in (masks.everything, masks.first):  # the first layer may be tables
                chosen = zip(jax.tree.leaves(mask), jax.tree.leaves(masks.kernels(params)), strict=True)
                assert all(kernel for selected, kernel in chosen if selected)


@pytest.mark.parametrize(
    "name",
    [
        *("cls", "cls_token", "class_token", "mask_token", "register_tokens"),
        *("pos_embed", "pos_embedding", "position_embeddings", "positional_encoding", "rel_pos_h", "wpe", "wte"),
        *("A_log", "dt_bias", "log_dt", "gamma", "ls_gamma", "layer_scale", "logit_scale", "negative_slope", "slopes"),
        *("relative_attention_bias", "input_embedding"),
    ],
)
@pytest.mark.parametrize("shape", [(4, 3), (1, 1, 6)])
def test_kernels_leaves_out_arrays_that_are_no_kernels_by_their_name(name, shape):
    params = {"block": {name: np.zeros(shape), "w": np.zeros((2, 2))}, "w": np.zeros((2, 2))}
    assert _selected(masks.kernels, params) == {"block/w", "w"}
    assert _selected(masks.kernels, {**params, "list": [{name: np.zeros(shape)}]}) == {"block/w", "w"}


@pytest.mark.parametrize(
    ("params", "selected"),
    [
        ({"D": np.zeros((3, 2)), "A": np.zeros((3, 2))}, {"D", "A"}),  # matrices of any kind
        ({"A_log": np.zeros((3, 2)), "D": np.zeros((3, 2)), "x_proj": np.zeros((3, 2))}, {"x_proj"}),
        ({"ln_1": {"weight": np.zeros((4, 3)), "bias": np.zeros((4, 3))}, "lnet": {"weight": np.zeros((4, 3))}},
         {"lnet/weight"}),
        ({"norm": {"weight": np.zeros((4, 3)), "bias": np.zeros(4)}}, {"norm/weight"}),  # a layer of that name
        ({"wte": {"weight": np.zeros((7, 3))}, "patch_embed": {"weight": np.zeros((7, 3))}}, {"patch_embed/weight"}),
        ({"embed": {"weight": np.zeros((7, 3)), "bias": np.zeros(7)}}, {"embed/weight"}),
        ({"embedding": {"kernel": np.zeros((4, 4, 3, 8))}, "cls": {"kernel": np.zeros((8, 2))}},
         {"embedding/kernel", "cls/kernel"}),
        ({"ids": np.zeros((3, 2), np.int32), "w": np.zeros((3, 2))}, {"w"}),
        ({"in_proj": {"weight": np.zeros((6, 3))}, "table": np.zeros((2, 2)), "token_mixing": np.zeros((2, 2))},
         {"in_proj/weight", "table", "token_mixing"}),
        ({"ScanBlock_0": {"gain": np.zeros((3, 4)), "w": np.zeros((3, 4, 4))}}, {"ScanBlock_0/w"}),
    ],
)  # fmt: skip
def test_kernels_decides_a_name_by_what_is_next_to_it(params, selected):
    assert _selected(masks.kernels, params) == selected


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox")


def _modules_without_kernels(eqx):
    keys = jax.random.split(jax.random.key(0), 4)
    return {
        "embedding": eqx.nn.Embedding(7, 3, key=keys[0]),
        "norm": eqx.nn.LayerNorm((2, 3)),
        "norms": eqx.filter_vmap(lambda key: eqx.nn.LayerNorm(3))(keys),
        "rms": eqx.filter_vmap(lambda key: eqx.nn.RMSNorm(3))(keys),
        "group": eqx.filter_vmap(lambda key: eqx.nn.GroupNorm(1, 3))(keys),
        "batch": eqx.nn.BatchNorm((3), "batch", mode="batch"),
        "slopes": eqx.filter_vmap(lambda key: eqx.nn.PReLU())(keys),
        "biases": eqx.filter_vmap(lambda key: eqx.nn.Linear(2, 3, key=key))(keys).bias,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedding", "norm", "norms", "rms", "group", "batch", "slopes"])
def test_default_mask_leaves_modules_of_equinox_without_kernels_as_they_are(kind, eqx):
    linear = eqx.nn.Linear(3, 4, key=jax.random.key(1))
    params = eqx.filter({"layer": _modules_without_kernels(eqx)[kind], "linear": linear}, eqx.is_inexact_array)
    optimizer = optimizers.sgd(1.0, decoupled.Decoupled(0.25))
    updates, _ = optimizer.update(jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params)
    assert not any(np.any(update) for update in jax.tree.leaves(updates["layer"]))
    np.testing.assert_allclose(updates["linear"].weight, -0.25 * linear.weight)


def test_first_and_last_of_equinox_are_its_embedding_and_its_head(eqx):
    class Net(eqx.Module):
        head: Any
        body: Any
        embedding: Any

        def __init__(self, key):
            self.embedding = eqx.nn.Embedding(7, 3, key=key)
            self.body = [eqx.nn.Linear(3, 5, key=key), eqx.nn.Linear(5, 6, key=key)]
            self.head = eqx.nn.Linear(6, 2, key=key)

    params = eqx.filter(Net(jax.random.key(0)), eqx.is_array)
    assert _selected(masks.first, params) == {"embedding/weight"}
    assert _selected(masks.last, params) == {"head/weight"}
    assert _selected(masks.hidden, params) == {"body/0/weight", "body/1/weight"}


def test_mask_may_be_a_module_of_bools_that_can_be_called(eqx):
    class Net(eqx.Module):
        linear: Any

        def __call__(self, x):
            return self.linear(x @ x)

    params = eqx.filter(Net(eqx.nn.Linear(3, 4, key=jax.random.key(0))), eqx.is_array)
    mask = jax.tree.map(lambda w: w.ndim > 1, params)
    assert callable(mask)
    assert masks.resolve(mask, params) == [True, False]
    optimizer = optimizers.sgd(1.0, decoupled.Decoupled(0.25), mask=mask)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    of_optax = optax.add_decayed_weights(-0.25, mask)
    expected, _ = of_optax.update(zeros, of_optax.init(params), params)
    jax.tree.map(np.testing.assert_allclose, updates, expected)
    assert masks.describe(params, mask).endswith("12 of 16 weights decay (75.0 %)")


def test_describe_takes_modules_of_equinox_as_they_are(eqx):
    module = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))  # with its activation function
    assert masks.describe(module) == masks.describe(eqx.filter(module, eqx.is_array))


def test_named_masks_are_those_that_are_stored():
    assert set(masks.NAMED) == {"kernels", "everything", "first", "last", "hidden"}
    assert all(masks.NAMED[name] is getattr(masks, name) for name in masks.NAMED)


def test_kernels_decides_by_dimensions_in_trees_without_names():
    layers = [(np.zeros((3, 2)), np.zeros(2)), (np.zeros((2, 1)), np.zeros(()))]
    assert masks.kernels(layers) == [(True, False), (True, False)]
    assert masks.kernels([Layer(np.zeros((3, 2)), np.zeros((1, 2)))]) == [Layer(True, False)]


def test_kernels_does_not_care_how_a_kernel_is_called():
    assert masks.kernels({"renamed": {"w": np.zeros((3, 2))}}) == {"renamed": {"w": True}}


@pytest.mark.parametrize("shape", [(), (3,), (3, 2)])
def test_kernels_takes_a_bare_array_as_a_kernel(shape):
    assert masks.kernels(np.zeros(shape)) is True
    assert masks.resolve(masks.kernels, np.zeros(shape)) == [True]


@pytest.mark.parametrize("function", [masks.kernels, masks.everything])
def test_mask_keeps_the_structure_and_needs_shapes_alone(function):
    params = {"a": [jnp.zeros((2, 2)), None], "b": {}, "c": (jnp.zeros(2),)}
    mask = function(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    assert all(type(leaf) is bool for leaf in jax.tree.leaves(mask))
    assert function(jax.eval_shape(lambda: params)) == mask


def test_everything_selects_every_leaf():
    params = _init(Transformer(), jnp.zeros((3, 5), int))
    assert _selected(masks.everything, params) == {name for name, _ in tree.named_leaves(params)}
    assert masks.everything(np.zeros(3)) is True


def test_matching_selects_what_matches():
    params = _init(Transformer(), jnp.zeros((3, 5), int))
    assert _selected(masks.matching("Dense_0"), params) == {"Dense_0/kernel", "Dense_0/bias"}
    assert _selected(masks.matching("Dense_0/kernel"), params) == {"Dense_0/kernel"}
    assert _selected(masks.matching("Dense_0", "bias"), params) == {
        "Dense_0/kernel",
        *(name for name, _ in tree.named_leaves(params) if name.endswith("/bias")),
    }
    every = {name for name, _ in tree.named_leaves(params)}
    assert _selected(masks.matching(".*", "Dense_0"), params) == every  # the second adds nothing, and may


@pytest.mark.slow
def test_matching_selects_by_the_same_names_in_nnx(mixed):
    params = nnx.state(mixed, nnx.Param)
    assert _selected(masks.matching("layers/0", "lora_."), params) == {
        "layers/0/kernel",
        "layers/0/bias",
        "lora/lora/lora_a",
        "lora/lora/lora_b",
    }


def test_matching_keeps_the_structure():
    params = {"a": [jnp.zeros((2, 2)), None], "b": {}, "c": (jnp.zeros(2),)}
    assert masks.matching("a")(params) == {"a": [True, None], "b": {}, "c": (False,)}


def test_matching_is_a_value():
    mask = masks.matching("Dense_0", "bias")
    assert mask == masks.matching("Dense_0", "bias") != masks.matching("bias", "Dense_0")
    assert hash(mask) == hash(masks.matching("Dense_0", "bias"))
    assert str(mask) == repr(mask) == "matching('Dense_0', 'bias')"
    assert str(Masked(coupled.L2(0.1), masks.matching("bias"))) == "Masked(L2(0.1), matching('bias'))"


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            masks.matching("Dense_0", "Dense_1"),
            r"matching\('Dense_0', 'Dense_1'\): the pattern 'Dense_1' matches no weight; these are: Dense_0/bias",
        ),
        (masks.matching("ernel"), "the pattern 'ernel' matches no weight"),
        (masks.matching("Dense_["), r"matching\('Dense_\['\): .*'Dense_\[' is not a regular expression"),
    ],
)
def test_matching_refuses_a_pattern_that_matches_nothing(mask, message):
    with pytest.raises(ValueError, match=message):
        mask(PARAMS)
    with pytest.raises(ValueError, match=message):
        masks.resolve(mask, PARAMS)


@pytest.mark.usefixtures("without_beartype")
@pytest.mark.parametrize("patterns", [(), (["Dense_0"],), (re.compile("Dense_0"),)])
def test_matching_takes_strings(patterns):
    with pytest.raises(TypeError, match=r"patterns are \(.*\); give one string or more, such as matching\('Dense_0'"):
        masks.matching(*patterns)


PARAMS = {"Dense_0": {"bias": np.zeros(2), "kernel": np.zeros((3, 2))}, "scale": np.zeros(1000)}


@pytest.mark.parametrize(
    ("mask", "decays"),
    [
        (masks.kernels, [False, True, False]),
        (masks.everything, [True, True, True]),
        (True, [True, True, True]),
        ({"Dense_0": True, "scale": False}, [True, True, False]),
        ({"Dense_0": {"bias": np.True_, "kernel": np.False_}, "scale": True}, [True, False, True]),
        (lambda params: {"Dense_0": False, "scale": True}, [False, False, True]),
    ],
)
def test_resolve_gives_a_bool_a_leaf(mask, decays):
    resolved = masks.resolve(mask, PARAMS)
    assert resolved == decays
    assert all(type(leaf) is bool for leaf in resolved)


def test_resolve_takes_weights_without_leaves():
    assert masks.resolve(masks.kernels, {}) == []


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (False, ValueError, r"mask 'given' selects no weight.*Dense_0/kernel \(3, 2\).*wd\.masks\.everything"),
        ({"Dense_0": False, "scale": False}, ValueError, "mask 'given' selects no weight"),
        (1, TypeError, r"mask has a leaf 1 of type int; a mask holds True \(decays\) or False"),
        ({"Dense_0": "yes", "scale": True}, TypeError, "mask has a leaf 'yes' of type str; a mask holds"),
        (jnp.array(True), TypeError, "mask has a leaf .* of type ArrayImpl; a mask holds"),
        ({"Dense_1": True}, ValueError, "mask is a tree that does not fit.*'Dense_1'.*the weights are: Dense_0/bias"),
        ([True, False], ValueError, "mask is a tree that does not fit.*Give one value, or a tree"),
        (lambda params: {"other": True}, ValueError, "mask is a tree that does not fit.*'other'"),
    ],
)
def test_resolve_refuses(mask, error, message):
    with pytest.raises(error, match=message):
        masks.resolve(mask, PARAMS)


def test_resolve_refuses_kernels_where_there_are_none():
    with pytest.raises(ValueError, match=r"mask 'kernels' selects no weight.*The weights are: scale \(4,\)"):
        masks.resolve(masks.kernels, {"scale": np.zeros(4)})


@pytest.mark.parametrize(
    ("mask", "selects"),
    [
        (masks.kernels, "only kernels"),
        (masks.first, "the kernels of the first layer"),
        (masks.last, "the kernels of the last layer"),
        (masks.hidden, "the kernels of neither the first nor the last layer"),
    ],
)
def test_resolve_says_what_a_mask_selects(mask, selects):
    message = rf"mask '{mask.__name__}' selects no weight \(it selects {selects}.*\), so nothing .*: scale \(4,\)\."
    with pytest.raises(ValueError, match=message):
        masks.resolve(mask, {"scale": np.zeros(4)})


def test_describe_counts_weights():
    assert masks.describe(PARAMS).splitlines() == [
        "name            shape    weights  decays",
        "Dense_0/bias    (2,)           2  no",
        "Dense_0/kernel  (3, 2)         6  yes",
        "scale           (1000,)     1000  no",
        "6 of 1,008 weights decay (0.6 %)",
    ]
    assert masks.describe(PARAMS, masks.everything).endswith("1,008 of 1,008 weights decay (100.0 %)")


def test_describe_agrees_with_flax_about_the_number_of_weights():
    params = _init(Transformer(), jnp.zeros((3, 5), int))
    *rows, total = masks.describe(params).splitlines()[1:]
    sizes = {row.split()[0]: leaf.size for row, (_, leaf) in zip(rows, tree.named_leaves(params), strict=True)}
    assert sizes == {name: leaf.size for name, leaf in tree.named_leaves(params)}
    chosen = sum(sizes[name] for name in _selected(masks.kernels, params))
    assert total == f"{chosen:,} of {sum(sizes.values()):,} weights decay ({100 * chosen / sum(sizes.values()):.1f} %)"
    assert {row.split()[0] for row in rows if row.endswith("yes")} == _selected(masks.kernels, params)


def test_describe_takes_a_bare_array_and_refuses_what_resolve_refuses():
    assert masks.describe(np.zeros(3)).splitlines()[1] == "(array)  (3,)         3  yes"
    with pytest.raises(ValueError, match="selects no weight"):
        masks.describe(PARAMS, False)


def _columns(decay, mask=masks.kernels, params=PARAMS):
    """The columns ``decays`` and ``coefficient``, and the share."""
    title, *rows, total = masks.describe(params, mask, decay).splitlines()
    assert title.endswith("weights  decays  coefficient")
    begin = title.index("decays")
    return [tuple(row[begin:].split(maxsplit=1)) for row in rows], total


def test_describe_shows_coefficients():
    assert masks.describe(PARAMS, decay=coupled.L2(0.012345678)).splitlines() == [
        "name            shape    weights  decays  coefficient",
        "Dense_0/bias    (2,)           2  no      -",
        "Dense_0/kernel  (3, 2)         6  yes     0.01235",
        "scale           (1000,)     1000  no      -",
        "6 of 1,008 weights decay (0.6 %)",
    ]


NO = ("no", "-")


@pytest.mark.parametrize(
    ("rule", "rows"),
    [
        (coupled.L2(np.float32(0.5)), [NO, ("yes", "0.5"), NO]),
        (coupled.L2(jnp.array(0.0)), [NO, ("yes", "0"), NO]),
        (coupled.ElasticNet(0.1, 0.2), [NO, ("yes", "0.1, 0.2"), NO]),
        (coupled.L2({"Dense_0": 0.1, "scale": 0.2}), [NO, ("yes", "0.1"), NO]),
        (coupled.L2(PerLayer({"kernel": 0.1})), [NO, ("yes", "0.1"), NO]),
        (coupled.L2(schedules.Linear(0.5, 0.0, 10)), [NO, ("yes", str(schedules.Linear(0.5, 0.0, 10))), NO]),
        (
            coupled.L2(PerLayer({"kernel": schedules.Constant(0.5)})),
            [NO, ("yes", str(schedules.Constant(0.5))), NO],
        ),
        (coupled.L2(optax.constant_schedule(0.5)), [NO, ("yes", optax.constant_schedule(0.5).__name__), NO]),
        ((coupled.L2(0.01), projected.ProximalL1(0.1)), [NO, ("yes", "L2 0.01 + ProximalL1 0.1"), NO]),
        (Combined((coupled.L2(0.01), decoupled.Decoupled(0.1))), [NO, ("yes", "L2 0.01 + Decoupled 0.1"), NO]),
        ((coupled.L2(0.01),), [NO, ("yes", "0.01"), NO]),
        (Masked(coupled.L2(0.01), masks.matching("bias")), [("yes", "0.01"), NO, NO]),
        (
            (coupled.L2(0.01), Masked(projected.ProximalL1(0.1), masks.everything)),
            [("yes", "ProximalL1 0.1"), ("yes", "L2 0.01 + ProximalL1 0.1"), ("yes", "ProximalL1 0.1")],
        ),
        ((decay.NoDecay(), coupled.L2(0.01)), [NO, ("yes", "L2 0.01"), NO]),
        (decay.NoDecay(), [NO, NO, NO]),
    ],
)
def test_describe_shows_what_each_rule_does_to_each_array(rule, rows):
    columns, total = _columns(rule)
    assert columns == rows
    chosen = sum(size for size, row in zip((2, 6, 1000), rows, strict=True) if row != NO)
    assert total == f"{chosen:,} of 1,008 weights decay ({chosen / 10.08:.1f} %)"


def test_describe_does_not_evaluate_traced_coefficients():
    tables = []
    jax.eval_shape(lambda c: tables.append(_columns(coupled.ElasticNet(c, 0.2))[0]), 0.1)
    assert tables == [[NO, ("yes", "traced, 0.2"), NO]]


def test_describe_takes_nnx_modules_and_shapes(mixed):
    table = masks.describe(mixed, decay=coupled.L2(0.1))
    assert table == masks.describe(nnx.state(mixed, nnx.Param), decay=coupled.L2(0.1))
    assert table == masks.describe(nnx.eval_shape(lambda: nnx.state(mixed, nnx.Param)), decay=coupled.L2(0.1))
    assert {row.split()[0] for row in table.splitlines() if row.endswith("0.1")} == MIXED_KERNELS


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (coupled.L2({"Dense_1": 0.1}), r"coefficient of L2\(.*\) is a tree that does not fit .*Dense_0/bias"),
        (coupled.L2(PerLayer({"Dense_1": 0.1})), r"coefficient of L2\(.*: the pattern 'Dense_1' matches no weight"),
        (
            coupled.L2(PerLayer({"bias": 0.1})),
            r"coefficient of L2\(.*: the pattern 'bias' matches no weight that decays",
        ),
        (Masked(coupled.L2(0.1), False), "mask 'given' selects no weight"),
    ],
)
def test_describe_refuses_coefficients_that_do_not_fit(rule, message):
    with pytest.raises(ValueError, match=message):
        masks.describe(PARAMS, decay=rule)


@pytest.mark.parametrize("mask", [masks.kernels, masks.everything, masks.first, masks.last, masks.matching("kernel")])
def test_mask_refuses_a_step_count_in_place_of_weights(mask):
    with pytest.raises(TypeError, match=r"params is an integer, .* optax\.inject_hyperparams .*static_args='mask'"):
        mask(jnp.zeros((), jnp.int32))
