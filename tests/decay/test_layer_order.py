"""What runs first and last: told by numbers, by widths, or not at all."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from weightdecay import models
from weightdecay.core import tree
from weightdecay.decay import masks


def _init(module, *inputs):
    return jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"]


def _state(make):
    return nnx.eval_shape(lambda: nnx.state(make(nnx.Rngs(0)), nnx.Param))


def _selected(mask, params):
    leaves = jax.tree.leaves(mask(params))
    return {name for (name, _), decayed in zip(tree.named_leaves(params), leaves, strict=True) if decayed}


def _kernels(**shapes):
    return {name: {"kernel": np.zeros(shape), "bias": np.zeros(shape[-1])} for name, shape in shapes.items()}


class CNN(nn.Module):
    """Convolutions with pooling, then dense layers."""

    num_outputs: int = 10

    @nn.compact
    def __call__(self, x):
        for width in (8, 16):
            x = nn.avg_pool(nn.relu(nn.BatchNorm(True)(nn.Conv(width, (3, 3))(x))), (2, 2), (2, 2))
        x = nn.relu(nn.Dense(64)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.num_outputs)(x)


class Block(nn.Module):
    """Attention and a perceptron, each beside the identity."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        wide = nn.gelu(nn.Dense(32)(nn.LayerNorm()(x)))
        return x + nn.Dense(8)(wide)


class Transformer(nn.Module):
    """Tables of tokens and places, blocks, and logits."""

    num_outputs: int

    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 8)(tokens) + nn.Embed(5, 8)(jnp.arange(5))
        for _ in range(2):
            x = Block()(x)
        return nn.Dense(self.num_outputs)(nn.LayerNorm()(x))


class Residual(nn.Module):
    """A first convolution, residual blocks with a projection, and a dense layer, under names of their own."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (3, 3), name="stem")(x)
        for place, width in enumerate((8, 16)):
            x = ResidualBlock(width, name=f"stage{place + 1}")(x)
        return nn.Dense(10, name="classifier")(x.mean((1, 2)))


class ResidualBlock(nn.Module):
    """Two convolutions beside a projection."""

    width: int

    @nn.compact
    def __call__(self, x):
        y = nn.Conv(self.width, (3, 3))(nn.relu(nn.Conv(self.width, (3, 3))(x)))
        return y + nn.Conv(self.width, (1, 1), name="projection")(x)


class InOut(nnx.Module):
    """Two layers whose names sort the wrong way round."""

    def __init__(self, rngs):
        self.linear_in = nnx.Linear(4, 16, rngs=rngs)
        self.a_linear_out = nnx.Linear(16, 2, rngs=rngs)


class Numbered(nnx.Module):
    """Three layers of one width, numbered from 1."""

    def __init__(self, rngs):
        self.linear1, self.linear2, self.linear3 = (nnx.Linear(8, 8, rngs=rngs) for _ in range(3))


class Listed(nnx.Module):
    """A list of twelve layers of one width."""

    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(8, 8, rngs=rngs) for _ in range(12)])


IMAGES = jnp.zeros((2, 8, 8, 1))
FLAT = {"w1": (3, 8), "w2": (8, 8), "w3": (8, 2)}
DECIDED = {
    "linen MLP": (lambda: _init(models.MLP((8,) * 11, 3), jnp.zeros((2, 4))), "Dense_0/kernel", "Dense_11/kernel"),
    "linen MLP of one layer": (lambda: _init(models.MLP((), 3), jnp.zeros((2, 4))), "Dense_0/kernel", "Dense_0/kernel"),
    "linen layer": (lambda: _init(nn.Dense(3), jnp.zeros((2, 4))), "kernel", "kernel"),
    "linen CNN": (lambda: _init(CNN(), IMAGES), "Conv_0/kernel", "Dense_1/kernel"),
    "linen CNN of one output": (lambda: _init(CNN(1), IMAGES), "Conv_0/kernel", "Dense_1/kernel"),
    "linen CNN of colours": (lambda: _init(CNN(3), jnp.zeros((2, 8, 8, 3))), "Conv_0/kernel", "Dense_1/kernel"),
    "linen residual": (lambda: _init(Residual(), jnp.zeros((2, 8, 8, 3))), "stem/kernel", "classifier/kernel"),
    "linen sequence": (
        lambda: _init(nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(8)]), jnp.zeros((2, 8))),
        "layers_0/kernel",
        "layers_2/kernel",
    ),
    "nnx names": (lambda: _state(InOut), "linear_in/kernel", "a_linear_out/kernel"),
    "nnx numbers": (lambda: _state(Numbered), "linear1/kernel", "linear3/kernel"),
    "nnx list": (lambda: _state(Listed), "layers/0/kernel", "layers/11/kernel"),
    "pairs in a list": (lambda: [(np.zeros((8, 8)), np.zeros(8)) for _ in range(12)], "0/0", "11/0"),
    "kernels in a list": (lambda: [np.zeros((8, 8)) for _ in range(12)], "0", "11"),
    "numbered dict": (
        lambda: _kernels(layer10=(8, 8), layer1=(8, 8), layer2=(8, 8)),
        "layer1/kernel",
        "layer10/kernel",
    ),
    "flat dict": (
        lambda: {**{k: np.zeros(s) for k, s in FLAT.items()}, "b1": np.zeros(8), "b2": np.zeros(8)},
        "w1",
        "w3",
    ),
    "flat names": (lambda: {"out": np.zeros((8, 2)), "into": np.zeros((3, 8)), "b": np.zeros(8)}, "into", "out"),
    "nested": (
        lambda: {"head": _kernels(d=(16, 3))["d"], "rear": _kernels(layers_0=(4, 8), layers_1=(8, 16))},
        "rear/layers_0/kernel",
        "head/kernel",
    ),
    "transposed": (
        lambda: {
            "a": {"weight": np.zeros((3, 16)), "bias": np.zeros(3)},
            "b": {"weight": np.zeros((16, 4)), "bias": np.zeros(16)},
        },
        "b/weight",
        "a/weight",
    ),
    "transposed convolution": (
        lambda: {
            "a": {"weight": np.zeros((32, 8, 3, 3)), "bias": np.zeros((32, 1, 1))},
            "b": {"weight": np.zeros((8, 3, 5, 5)), "bias": np.zeros((8, 1, 1))},
        },
        "b/weight",
        "a/weight",
    ),
    "sizes in names": (
        lambda: _kernels(dense128=(6, 128), dense64=(128, 64), out=(64, 5)),
        "dense128/kernel",
        "out/kernel",
    ),
    "windows in names": (
        lambda: _kernels(conv1x3=(1, 3, 16, 5), conv3x3=(3, 3, 1, 16)),
        "conv3x3/kernel",
        "conv1x3/kernel",
    ),
    "two numbers": (
        lambda: _kernels(conv1_2=(3, 3, 8, 8), conv2_1=(3, 3, 8, 8), conv1_1=(3, 3, 8, 8)),
        "conv1_1/kernel",
        "conv2_1/kernel",
    ),
    "paths as keys": (
        lambda: {f"mlp/~/linear_{place}": {"w": np.zeros((8, 8)), "b": np.zeros(8)} for place in (1, 0, 2)},
        "mlp/~/linear_0/w",
        "mlp/~/linear_2/w",
    ),
    "skip connection": (
        lambda: _kernels(Dense_0=(3, 8), Dense_1=(11, 8), out=(8, 2)),
        "Dense_0/kernel",
        "out/kernel",
    ),
    "one convolution a channel": (
        lambda: _kernels(
            Conv_0=(3, 3, 3, 32),
            Conv_1=(3, 3, 1, 32),
            Conv_2=(1, 1, 32, 64),
            Conv_3=(3, 3, 1, 64),
            Conv_4=(1, 1, 64, 128),
            Dense_0=(128, 10),
        ),
        "Conv_0/kernel",
        "Dense_0/kernel",
    ),
    "empty arrays": (lambda: _kernels(a_1=(0, 3), a_2=(3, 0)), "a_1/kernel", "a_2/kernel"),
    "heads": (
        lambda: {
            "read": {"kernel": np.zeros((8, 2, 5)), "bias": np.zeros((2, 5))},
            **_kernels(first=(3, 8), out=(10, 7)),
        },
        "first/kernel",
        "out/kernel",
    ),
    "bare array": (lambda: np.zeros((3, 2)), "", ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("network", DECIDED)
def test_first_last_and_hidden_are_told_by_the_structure(network):
    make, first, last = DECIDED[network]
    params = make()
    assert _selected(masks.first, params) == {first}
    assert _selected(masks.last, params) == {last}
    assert _selected(masks.hidden, params) == _selected(masks.kernels, params) - {first, last}


def test_first_takes_the_kernels_of_a_whole_container():
    cell = {"w_in": np.zeros((3, 20)), "w_hidden": np.zeros((5, 20)), "bias": np.zeros(20)}
    params = {"cell": cell, "out": {"kernel": np.zeros((5, 2)), "bias": np.zeros(2)}}
    with pytest.raises(ValueError, match="cell or out"):  # gates are four times the width: not told by widths
        masks.first(params)
    assert _selected(masks.first, {"layers": [cell, cell]}) == {"layers/0/w_in", "layers/0/w_hidden"}


def test_first_takes_the_tables_of_a_network_with_embeddings():
    params = _init(Transformer(11), jnp.zeros((3, 5), int))
    tables = {"Embed_0/embedding", "Embed_1/embedding"}
    assert _selected(masks.first, params) == tables
    assert _selected(masks.last, params) == {"Dense_0/kernel"}
    assert _selected(masks.hidden, params) == _selected(masks.kernels, params) - {"Dense_0/kernel"}
    assert not _selected(masks.hidden, params) & tables
    with pytest.raises(ValueError, match=r"masks\.last: .* Block_1/Dense_1, .* or Dense_0"):
        masks.last(_init(Transformer(8), jnp.zeros((3, 5), int)))  # logits of the blocks' own width


class Reversed(nn.Module):
    """Modules that are made from the last to the first."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(2)(nn.relu(nn.Dense(8)(nn.relu(nn.Dense(8)(x)))))


BRANCHES = {"trunk": (5, 8), "policy": (8, 3), "value": (8, 1)}
UNDECIDED = {
    "equal widths": (lambda: _kernels(a=(8, 8), b=(8, 8)), "first", "a or b"),
    "a ring": (lambda: _kernels(a=(8, 4), b=(4, 8)), "last", "[ab] or [ab]"),
    "linen from behind": (lambda: _init(Reversed(), jnp.zeros((2, 4))), "first", "Dense_0 or Dense_2"),
    "two towers": (lambda: _kernels(user=(10, 8), item=(20, 8), joint=(16, 1)), "first", "user|item"),
    "branches": (lambda: _kernels(**BRANCHES), "last", "policy or value"),
    "half of a width": (
        lambda: _kernels(encoder=(784, 400), moments=(400, 40), decoder=(20, 400), out=(400, 784)),
        "first",
        "decoder.*encoder.*",
    ),
    "gates": (lambda: _kernels(gated=(8, 32), down=(16, 8)), "last", "down or gated|gated or down"),
    "U": (
        lambda: _kernels(
            down_0=(3, 3, 3, 16), down_1=(3, 3, 16, 32), mid=(3, 3, 32, 32), up_0=(3, 3, 64, 16), up_1=(3, 3, 32, 3)
        ),
        "first",
        "down_0.*mid.*up_0",
    ),
    "generator": (
        lambda: _kernels(Dense_0=(100, 6272), ConvTranspose_0=(5, 5, 128, 64), ConvTranspose_1=(5, 5, 64, 1)),
        "first",
        "Dense_0 or ConvTranspose_0|ConvTranspose_0 or Dense_0",
    ),
    "sequences or heads": (
        lambda: _kernels(Conv_0=(5, 3, 8), Conv_1=(5, 8, 16), Dense_0=(160, 64), Dense_1=(64, 3)),
        "first",
        "Conv_0 or Dense_0",
    ),
    "attention": (lambda: _init(Block(), jnp.zeros((2, 5, 8))), "first", ".*query"),
    "empty arrays": (lambda: _kernels(a=(0, 3, 0), b=(3, 0)), "last", "a or b"),
    "too many": (lambda: _kernels(**{letter: (8, 8) for letter in "abcdefghijklmnop"}), "last", "a, b, c, .* or p"),
}


@pytest.mark.parametrize("network", UNDECIDED)
def test_first_and_last_raise_where_the_structure_leaves_several_answers(network):
    make, end, candidates = UNDECIDED[network]
    params = make()
    message = rf"masks\.{end}: the structure .* which layer comes {end}: (?:{candidates}).*wd\.masks\.matching\('"
    with pytest.raises(ValueError, match=message):
        getattr(masks, end)(params)
    with pytest.raises(ValueError, match=r"masks\.(first|last): the structure of the weights does not tell"):
        masks.hidden(params)


def test_first_is_told_where_last_is_not():
    assert _selected(masks.first, _kernels(**BRANCHES)) == {"trunk/kernel"}


def test_hidden_selects_nothing_in_a_network_of_one_layer():
    params = _kernels(Dense_0=(3, 2))
    assert not _selected(masks.hidden, params)
    with pytest.raises(ValueError, match=r"mask 'hidden' selects no weight \(it selects the kernels of neither the fi"):
        masks.resolve(masks.hidden, params)


@pytest.mark.parametrize("params", [{}, [], None, {"scale": np.zeros(3)}])
@pytest.mark.parametrize("mask", [masks.first, masks.last, masks.hidden])
def test_first_last_and_hidden_select_nothing_without_kernels(mask, params):
    assert not any(jax.tree.leaves(mask(params)))
    assert jax.tree.structure(mask(params)) == jax.tree.structure(params)


@pytest.mark.slow
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data(), depth=st.integers(1, 15), stem=st.sampled_from(["Dense_{}", "layer{}", "{}", "block_{}_dense"]))
def test_layers_run_in_the_order_of_their_numbers(data, depth, stem):
    begin = data.draw(st.integers(0, 1))
    widths = data.draw(st.lists(st.sampled_from([4, 8, 16]), min_size=depth + 1, max_size=depth + 1))
    names = [stem.format(begin + place) for place in range(depth)]
    shapes = dict(zip(names, itertools.pairwise(widths), strict=True))
    params = _kernels(**{name: shapes[name] for name in data.draw(st.permutations(names))})
    for network, prefix in ((params, ""), ({"net": params}, "net/"), ([params], "0/")):
        assert _selected(masks.first, network) == {f"{prefix}{names[0]}/kernel"}
        assert _selected(masks.last, network) == {f"{prefix}{names[-1]}/kernel"}
        inner = {f"{prefix}{name}/kernel" for name in names[1:-1]}
        assert _selected(masks.hidden, network) == inner


@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data(), depth=st.integers(2, 6))
def test_layers_run_in_the_order_of_their_widths(data, depth):
    # Primes above 6: no width is a multiple of another, none the sum of two.
    primes = [7, 11, 13, 17, 19, 23, 29]
    widths = data.draw(st.permutations(primes))[: depth + 1]
    names = data.draw(st.permutations(["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]))[:depth]
    params = _kernels(**dict(zip(names, itertools.pairwise(widths), strict=True)))
    assert _selected(masks.first, params) == {f"{names[0]}/kernel"}
    assert _selected(masks.last, params) == {f"{names[-1]}/kernel"}
