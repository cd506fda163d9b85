"""Models of our own beside the same networks by flax and torch, and what they refuse."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import compare
from weightdecay import models
from weightdecay.core import tree
from weightdecay.decay import masks
from weightdecay.models import convolutions, dropout
from weightdecay.models import network as networks

KEY, FIRST = jax.random.key(1), jax.random.key(0)
ROWS = jax.random.normal(jax.random.key(2), (4, 5))
IMAGES = jax.random.normal(jax.random.key(3), (4, 6, 7, 2))
TOKENS = jnp.array([[3, 1, 4, 1, 5], [2, 6, 5, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]])


def initialized(model, inputs):
    return jax.jit(model.init)(FIRST, inputs)


def trained(model, variables, inputs):
    """Outputs and changed collections in training."""
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    return jax.jit(lambda variables: run(variables, inputs, rngs={"dropout": KEY}))(variables)


class Stack(nn.Module):
    """Layers one after the other, each named by flax as it comes."""

    layers: tuple

    @nn.compact
    def __call__(self, inputs):
        for make in self.layers:
            inputs = make()(inputs) if isinstance(make, functools.partial) else make(inputs)
        return inputs


dense, conv = (functools.partial(functools.partial, layer) for layer in (nn.Dense, nn.Conv))
flat = lambda inputs: inputs.reshape(len(inputs), -1)  # noqa: E731
pool = lambda inputs: nn.max_pool(inputs, (2, 2), (2, 2))  # noqa: E731
mean_over = functools.partial(functools.partial, nn.BatchNorm)


@pytest.mark.slow
def test_mlp_with_its_defaults_is_dense_layers_and_relu_bit_for_bit():
    by_hand = Stack((flat, dense(4), nn.relu, dense(3), nn.relu, dense(2)))
    model = models.MLP((4, 3), 2)
    variables = initialized(model, IMAGES)
    compare.same_bits(variables, initialized(by_hand, IMAGES))
    compare.same_bits(jax.jit(model.apply)(variables, IMAGES), jax.jit(by_hand.apply)(variables, IMAGES))
    assert list(variables["params"]) == ["Dense_0", "Dense_1", "Dense_2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("normalization", "layer"),
    [
        ("layer", functools.partial(nn.LayerNorm)),
        ("batch", functools.partial(nn.BatchNorm, use_running_average=False, momentum=0.9)),
    ],
)
def test_mlp_normalizes_before_its_activation_and_drops_after(normalization, layer):
    drop = functools.partial(nn.Dropout, 0.5, deterministic=False)
    model = models.MLP((4,), 2, "tanh", normalization, 0.5)
    variables = initialized(model, ROWS)
    assert {name.split("_")[0] for name in variables["params"]} == {"Dense", type(layer()).__name__}
    by_hand = Stack((flat, dense(4), layer, nn.tanh, drop, dense(2)))
    run = functools.partial(by_hand.apply, mutable=["batch_stats"], rngs={"dropout": KEY})
    outputs, changed = trained(model, variables, ROWS)
    compare.same_bits((outputs, changed), jax.jit(lambda variables: run(variables, ROWS))(variables))
    if normalization == "batch":
        hidden = ROWS @ variables["params"]["Dense_0"]["kernel"]
        mean = changed["batch_stats"]["BatchNorm_0"]["mean"]
        np.testing.assert_allclose(mean, 0.1 * hidden.mean(axis=0), atol=1e-6)  # sums of 4 numbers of about 1


@pytest.mark.slow
def test_cnn_is_blocks_of_convolution_and_pooling_before_dense_layers():
    model = models.CNN((3, 4), (5,), 2, activation="silu")
    layers = (conv(3, (3, 3)), nn.silu, pool, conv(4, (3, 3)), nn.silu, pool, flat, dense(5), nn.silu, dense(2))
    variables = initialized(model, IMAGES)
    compare.same_bits(variables, initialized(Stack(layers), IMAGES))
    outputs = jax.jit(model.apply)(variables, IMAGES)
    compare.same_bits(outputs, jax.jit(Stack(layers).apply)(variables, IMAGES))
    network = networks.rewritten(networks.network(model), convolutions.rewrite)
    written_out, _ = network.apply(variables["params"], {}, IMAGES, key=KEY, train=True)
    np.testing.assert_allclose(written_out, outputs, atol=1e-5)  # sums of up to 27 products in another order


def test_cnn_takes_images_without_a_channel():
    model = models.CNN((3,), (), 2)
    variables = initialized(model, IMAGES[..., :1])
    compare.same_bits(model.apply(variables, IMAGES[..., 0]), model.apply(variables, IMAGES[..., :1]))


def test_cnn_drops_before_every_dense_layer():
    model = models.CNN((3,), (4,), 2, dropout_rate=1.0)
    variables = initialized(model, IMAGES)
    # Nothing comes through, so that the last layer's bias is all there is.
    compare.same_bits(trained(model, variables, IMAGES)[0], jnp.zeros((4, 2)))
    lifted = jax.tree.map(lambda leaf: leaf + 1, variables)
    compare.same_bits(trained(model, lifted, IMAGES)[0], jnp.ones((4, 2)))


# --- Transformer ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_transformer_is_torch_encoder_that_normalizes_first():
    torch = pytest.importorskip("torch")
    model = models.Transformer(2, 8, 2, mlp_width=12, num_outputs=3, vocabulary_size=7, padding=0)
    params = initialized(model, TOKENS)["params"]
    drawn = iter(jax.random.split(KEY, 100))  # biases and scales too
    params = jax.tree.map(lambda leaf: leaf + 0.1 * jax.random.normal(next(drawn), leaf.shape), params)

    def tensor(array):
        return torch.nn.Parameter(torch.tensor(np.asarray(array)))

    def put(layer, weights):
        layer.weight, layer.bias = tensor(weights.get("scale", weights.get("kernel")).T), tensor(weights["bias"])

    inputs = np.array(TOKENS[:3])  # torch gives nan where all is padding
    hidden = tensor(params["Embed_0"]["embedding"])[inputs] + tensor(params["position_embedding"])
    for number in range(2):
        block = torch.nn.TransformerEncoderLayer(
            8, 2, 12, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        attention = params[f"MultiHeadDotProductAttention_{number}"]
        parts = [attention[name] for name in ("query", "key", "value")]
        block.self_attn.in_proj_weight = tensor(np.concatenate([part["kernel"].reshape(8, 8).T for part in parts]))
        block.self_attn.in_proj_bias = tensor(np.concatenate([part["bias"].reshape(8) for part in parts]))
        out = attention["out"]
        put(block.self_attn.out_proj, {"kernel": out["kernel"].reshape(8, 8), "bias": out["bias"]})
        put(block.norm1, params[f"LayerNorm_{2 * number}"])
        put(block.norm2, params[f"LayerNorm_{2 * number + 1}"])
        put(block.linear1, params[f"Dense_{2 * number}"])
        put(block.linear2, params[f"Dense_{2 * number + 1}"])
        hidden = block(hidden, src_key_padding_mask=torch.tensor(inputs == 0))
    norm, head = torch.nn.LayerNorm(8, eps=1e-6), torch.nn.Linear(8, 3)
    put(norm, params["LayerNorm_4"])
    put(head, params["Dense_4"])
    there = torch.tensor(inputs != 0)[..., None]
    expected = head((norm(hidden) * there).sum(1) / there.sum(1))
    outputs = jax.jit(model.apply)({"params": params}, TOKENS)[:3]
    np.testing.assert_allclose(outputs, expected.detach(), atol=1e-5)  # float32 through two blocks


@pytest.mark.slow
def test_transformer_looks_at_no_padding():
    model = models.Transformer(
        1, 8, 2, num_outputs=3, vocabulary_size=7, max_length=5, padding=0, normalization="batch"
    )
    variables = initialized(model, TOKENS)
    run = jax.jit(model.apply)
    outputs = run(variables, TOKENS)
    assert np.isfinite(outputs).all()
    for row, length in ((1, 3), (2, 1)):
        # The same numbers without the places that are filled up, and so with sums of other lengths.
        np.testing.assert_allclose(outputs[row], model.apply(variables, TOKENS[row : row + 1, :length])[0], atol=1e-6)
    table = variables["params"]["Embed_0"]["embedding"].at[0].add(100.0)
    changed = jax.tree.map(lambda leaf: table if leaf.shape == table.shape else leaf, variables)
    np.testing.assert_allclose(run(changed, TOKENS)[:3], outputs[:3], atol=1e-6)
    # Nor do batch statistics.
    statistics = [trained(model, one, TOKENS)[1] for one in (variables, changed)]
    compare.close(*[one["batch_stats"]["BatchNorm_0"] for one in statistics], atol=1e-6)
    bare = model.clone(padding=None)
    assert not np.allclose(bare.apply(changed, TOKENS)[:3], bare.apply(variables, TOKENS)[:3], atol=1e-2)


@pytest.mark.slow
def test_transformer_sees_the_order_of_tokens():
    model = models.Transformer(1, 8, 2, num_outputs=3, vocabulary_size=7)
    variables = initialized(model, TOKENS[:, :3])
    outputs = model.apply(variables, jnp.array([[1, 2, 3], [3, 2, 1]]))
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-4
    still = jax.tree.map(lambda leaf: leaf, variables)
    still["params"]["position_embedding"] = jnp.zeros_like(still["params"]["position_embedding"])
    outputs = model.apply(still, jnp.array([[1, 2, 3], [3, 2, 1]]))
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)  # the same sums in another order


@pytest.mark.slow
def test_transformer_takes_real_sequences_and_longer_ones_up_to_max_length():
    model = models.Transformer(1, 8, 2, num_outputs=1, max_length=6, pooling="first", normalization=None)
    variables = initialized(model, ROWS)
    assert variables["params"]["position_embedding"].shape == (6, 8)
    compare.same_bits(model.apply(variables, ROWS), model.apply(variables, ROWS[..., None]))
    shape = jax.eval_shape(model.apply, variables, jnp.zeros((2, 6))).shape
    assert shape == (2, 1)
    with pytest.raises(ValueError, match=r"\(examples, 7\), and model.max_length is 6; give a max_length of 7"):
        model.apply(variables, jnp.zeros((2, 7)))


@pytest.mark.slow
def test_transformer_drops_behind_embedding_attention_and_perceptron():
    model = models.Transformer(2, 8, 2, num_outputs=3, vocabulary_size=7, dropout_rate=1.0, normalization=None)
    variables = initialized(model, TOKENS)
    lifted = jax.tree.map(lambda leaf: leaf + 1, variables)
    compare.same_bits(trained(model, lifted, TOKENS)[0], jnp.ones((4, 3)))


# --- all ----------------------------------------------------------------------------------------------------------


def test_kernels_of_models_leave_embeddings_scales_and_biases():
    cases = [
        (models.Transformer(1, 8, 2, num_outputs=2, vocabulary_size=7, normalization="batch"), TOKENS),
        (models.CNN((2,), (3,), 2, normalization="layer"), IMAGES),
        (models.MLP((3,), 2, normalization="batch"), ROWS),
    ]
    for model, inputs in cases:
        params = jax.eval_shape(model.init, FIRST, inputs)["params"]
        decays = zip(tree.named_leaves(params), jax.tree.leaves(masks.kernels(params)), strict=True)
        for (name, _), decayed in decays:
            assert decayed == (name.rpartition("/")[2] == "kernel"), name


@pytest.mark.parametrize("rate", [jnp.array(0.4), 0.4])
def test_dropout_layer_takes_numbers_and_arrays_as_flax_takes_numbers(rate):
    options = {"deterministic": False, "broadcast_dims": (1,)}
    rngs = {"dropout": KEY}
    own = models.Dropout(rate, **options).apply({}, ROWS, rngs=rngs)
    compare.same_bits(own, nn.Dropout(0.4, **options).apply({}, ROWS, rngs=rngs))
    compare.same_bits(models.Dropout(rate).apply({}, ROWS, deterministic=True), ROWS)


def test_drop_at_rate_one_has_gradients_of_zero():
    for rate in (0.0, 1.0):
        gradient = jax.grad(lambda inputs, rate: dropout.drop(inputs, rate, KEY).sum())(ROWS, jnp.asarray(rate))
        compare.same_bits(gradient, jnp.full_like(ROWS, 1 - rate))


@pytest.mark.parametrize("activation", sorted(models.ACTIVATIONS))
def test_activation_names_are_the_functions_of_torch(activation):
    torch = pytest.importorskip("torch")
    name = "gelu" if activation == "gelu_tanh" else activation
    options = {"approximate": "tanh"} if activation == "gelu_tanh" else {}
    values = np.linspace(-3, 3, 25, dtype=np.float32)
    expected = getattr(torch.nn.functional, name)(torch.tensor(values), **options)
    # float32, whose exponentials and error functions differ by a few units in the last place between the libraries
    np.testing.assert_allclose(models.activation_function(activation)(values), expected, rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "error", "message"),
    [
        (
            lambda: models.MLP(activation="rely"),
            ValueError,
            r"model.activation is 'rely'; give one of relu, .*function.* Did you mean 'relu'",
        ),
        (
            lambda: models.MLP(activation=3),
            TypeError,
            r"model.activation is 3; give a function of an array.*one of relu",
        ),
        (
            lambda: models.MLP(normalization="group"),
            ValueError,
            r"model.normalization is 'group'; give one of None, 'batch', 'layer'",
        ),
        (lambda: models.MLP(dropout_rate=1.5), ValueError, r"model.dropout_rate is 1.5; give a number in \[0, 1\]"),
        (lambda: models.MLP(dropout_rate="0.5"), TypeError, r"model.dropout_rate is '0.5', of type str; give a number"),
        (
            lambda: models.CNN(features=8),
            TypeError,
            r"model.features is 8; give one width per block",
        ),
        (lambda: models.CNN(hidden=(0,)), ValueError, r"model.hidden\[0\] is 0; give an integer of at least 1"),
        (lambda: models.Transformer(num_layers=0), ValueError, r"model.num_layers is 0"),
        (
            lambda: models.Transformer(width=10),
            ValueError,
            r"model.width is 10; give a multiple of model.num_heads",
        ),
        (
            lambda: models.Transformer(vocabulary_size=2.0),
            TypeError,
            r"model.vocabulary_size is 2.0, of type float; give an integer",
        ),
        (lambda: models.Transformer(pooling="max"), ValueError, r"model.pooling is 'max'; give one of 'mean', 'first'"),
        (
            lambda: models.Transformer(padding=0),
            ValueError,
            r"model.padding is 0, a token, and model.vocabulary_size is None",
        ),
        (
            lambda: models.Transformer(vocabulary_size=7, padding="0"),
            TypeError,
            r"'0', of type str; give a token",
        ),
    ],
)
def test_network_refuses_fields_that_make_no_model(model, error, message, without_beartype):
    with pytest.raises(error, match=message):
        networks.network(model())


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (models.CNN(num_outputs=2), ROWS, r"\(examples, 5\), and models.CNN takes images.*reshape them"),
        (models.CNN((2, 2, 2), num_outputs=2), IMAGES, r"6, 7, 2\), too small for 3 blocks.*need at least 8 x 8"),
        (models.Transformer(num_outputs=2), TOKENS, r"integers of shape \(examples, 5\), so tokens.*number of tokens"),
        (models.Transformer(num_outputs=2, vocabulary_size=7), ROWS, r"dtype float32 .*tokens are integers"),
        (models.Transformer(num_outputs=2), IMAGES, r"models.Transformer takes sequences"),
        (models.MLP(), ROWS, r"num_outputs is None; give it"),
    ],
)
def test_models_refuse_inputs_that_do_not_fit(model, inputs, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, FIRST, inputs)
