"""Masks: what counts as a kernel in flax modules and in plain trees, the table that shows it, and what is refused."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from weightdecay import masks, tree


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
