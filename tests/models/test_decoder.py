"""The decoder compared with torch, its causality, its default mask, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compare import same_bits
from weightdecay.core import tree
from weightdecay.decay import masks
from weightdecay.decay.layout import describe_arrays
from weightdecay.models import Decoder
from weightdecay.models import network as networks
from weightdecay.models.decoder import rotated

TOKENS = np.random.default_rng(0).integers(0, 11, (3, 10)).astype(np.uint8)
SMALL = {"num_layers": 1, "width": 12, "num_heads": 3, "num_outputs": 11}
KINDS = [("rotary", True), ("rotary", False), ("learned", True), ("learned", False)]


@functools.cache
def weights(model):
    """Weights of which none is 0 or 1, so that every one matters."""
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros(TOKENS.shape, int))["params"]
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return structure.unflatten(drawn)


def shapes(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(TOKENS.shape, int))["params"]


def outputs(model, tokens, params=None):
    return jax.jit(model.apply)({"params": weights(model) if params is None else params}, tokens)


def by_torch(model, params, tokens):
    """The decoder in torch, from its own functions, with rotations as products of complex numbers."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    params = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf, np.float64)), params)

    def norm(number, hidden):
        layer = params[f"LayerNorm_{number}"]
        return functional.layer_norm(hidden, (model.width,), layer["scale"], layer["bias"], eps=1e-6)

    def dense(number, hidden):
        layer = params[f"Dense_{number}"]
        return functional.linear(hidden, layer["kernel"].T, layer["bias"])

    def turned(features):  # (examples, heads, length, width)
        half = features.shape[-1] // 2
        rates = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(features.shape[-2], dtype=torch.float64)[:, None] * rates
        product = torch.complex(features[..., :half], features[..., half:]) * torch.polar(
            torch.ones_like(angles), angles
        )
        return torch.cat([product.real, product.imag], dim=-1)

    def attention(number, hidden):
        layer = params[f"CausalAttention_{number}"]
        parts = {}
        for name in ("query", "key", "value"):
            kernel, bias = layer[name]["kernel"], layer[name]["bias"]
            flat = functional.linear(hidden, kernel.reshape(model.width, -1).T, bias.reshape(-1))
            parts[name] = flat.reshape(*hidden.shape[:2], model.num_heads, -1).transpose(1, 2)
        if model.positions == "rotary":
            parts |= {name: turned(parts[name]) for name in ("query", "key")}
        attended = functional.scaled_dot_product_attention(*parts.values(), is_causal=True)
        attended = attended.transpose(1, 2).reshape(hidden.shape)
        return functional.linear(attended, layer["out"]["kernel"].reshape(-1, model.width).T, layer["out"]["bias"])

    embedding = params["Embed_0"]["embedding"]
    hidden = functional.embedding(torch.tensor(np.asarray(tokens, np.int64)), embedding)
    if model.positions == "learned":
        hidden = hidden + params["position_embedding"][: tokens.shape[1]]
    for block in range(model.num_layers):
        hidden = hidden + attention(block, norm(2 * block, hidden))
        hidden = hidden + dense(2 * block + 1, functional.gelu(dense(2 * block, norm(2 * block + 1, hidden))))
    hidden = norm(2 * model.num_layers, hidden)
    return (hidden @ embedding.T if model.tied else dense(2 * model.num_layers, hidden)).numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("positions", "tied"), [KINDS[0], KINDS[3]])
def test_decoder_is_that_of_torch(positions, tied):
    model = Decoder(**{**SMALL, "num_layers": 2}, positions=positions, tied=tied)
    params = weights(model)
    expected = by_torch(model, params, TOKENS)
    np.testing.assert_allclose(outputs(model, TOKENS, params), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize("positions", ["rotary", "learned"])
def test_no_output_depends_on_a_later_token(positions):
    model = Decoder(**SMALL, positions=positions)
    before = outputs(model, TOKENS)
    for at in (1, 6, 9):
        changed = TOKENS.copy()
        changed[:, at] = (changed[:, at] + 1) % 11
        after = outputs(model, changed)
        same_bits(after[:, :at], before[:, :at])
        assert (np.abs(after[:, at:] - before[:, at:]).max(axis=(0, 2)) > 1e-4).all()


def test_products_of_rotated_features_depend_on_the_distance_alone():
    query, key = jax.random.normal(jax.random.key(0), (2, 8))
    along = lambda features: rotated(jnp.broadcast_to(features, (1, 20, 1, 8)))[0, :, 0]  # noqa: E731
    products = np.asarray(along(query) @ along(key).T)
    for distance in (0, 1, 7):
        diagonal = np.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, np.full_like(diagonal, diagonal[0]), rtol=1e-4, atol=1e-5)
    assert np.std(products[0]) > 0.1
    np.testing.assert_allclose(jnp.linalg.norm(along(query), axis=-1), jnp.linalg.norm(query), rtol=1e-5)


@pytest.mark.parametrize(("positions", "tied"), KINDS)
def test_default_mask_decays_kernels_and_neither_norms_nor_embeddings(positions, tied):
    params = shapes(Decoder(**SMALL, positions=positions, tied=tied))
    names = [name for name, _ in tree.named_leaves(params)]
    decays = dict(zip(names, masks.resolve(masks.kernels, params), strict=True))
    assert {name for name, decayed in decays.items() if decayed} == {name for name in names if name.endswith("/kernel")}
    assert ("position_embedding" in names) == (positions == "learned")
    num_kernels = 6 if tied else 7
    assert sum(decays.values()) == num_kernels
    rows = {line.split("  ")[0]: line.split()[-1] for line in masks.describe(params).splitlines()[1:-1]}
    assert rows == {name: "yes" if decayed else "no" for name, decayed in decays.items()}


def test_layout_of_attention_has_heads_among_the_outputs():
    params = shapes(Decoder(**SMALL))
    layouts = dict(zip([name for name, _ in tree.named_leaves(params)], map(str, describe_arrays(params)), strict=True))
    for name in ("query", "key", "value"):
        assert layouts[f"CausalAttention_0/{name}/kernel"] == "in out out"
    assert layouts["CausalAttention_0/out/kernel"] == "in in out"
    assert layouts["Dense_0/kernel"] == "in out"


@pytest.mark.slow
def test_dropout_changes_training_alone_and_its_rate_is_an_axis():
    model = Decoder(**SMALL, dropout_rate=0.5)
    network, params = networks.network(model), weights(Decoder(**SMALL))

    def run(train, **rates):
        key = jax.random.key(3)
        return network.apply(params, {}, TOKENS, key=key, train=train, hyperparameters=rates)[0]

    plain = outputs(Decoder(**SMALL), TOKENS, params)
    np.testing.assert_allclose(run(False), plain, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(run(True, dropout_rate=jnp.array(0.0)), plain, rtol=1e-5, atol=1e-5)
    assert np.abs(run(True) - plain).max() > 0.1
    same_bits(run(True), run(True, dropout_rate=jnp.array(0.5)))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"width": 10}, ValueError, "model.width is 10; give a multiple of model.num_heads, which is 3"),
        ({"width": 9}, ValueError, "a head is 3 wide; rotary positions need an even number"),
        ({"positions": "sine"}, ValueError, "model.positions is 'sine'; give one of 'rotary', 'learned'"),
        ({"tied": "yes"}, ValueError, "model.tied is 'yes'; give one of True, False"),
        ({"num_layers": 0}, ValueError, "model.num_layers is 0; give an integer of at least 1"),
        ({"max_length": 2.5}, TypeError, "model.max_length is 2.5"),
        ({"dropout_rate": 2}, ValueError, r"model.dropout_rate is 2; give a number in \[0, 1\]"),
        ({"activation": "rulu"}, ValueError, "activation is 'rulu'; give one of .*Did you mean 'relu'"),
    ],
)
@pytest.mark.usefixtures("without_beartype")
def test_fields_that_do_not_fit_are_refused(fields, error, message):
    with pytest.raises(error, match=message):
        networks.network(Decoder(**{**SMALL, **fields}))


def test_inputs_that_do_not_fit_are_refused():
    for inputs in (np.zeros((2, 5)), np.zeros((2, 5, 1), int)):
        with pytest.raises(ValueError, match=r"models\.Decoder takes tokens, integers of shape"):
            Decoder(**SMALL).init(jax.random.key(0), inputs)
    model = Decoder(**SMALL, positions="learned", max_length=4)
    with pytest.raises(ValueError, match=r"inputs have 5 positions, and .* is 4; give a max_length of 5"):
        model.init(jax.random.key(0), np.zeros((2, 5), int))
    assert model.init(jax.random.key(0), np.zeros((2, 3), int))["params"]["position_embedding"].shape == (4, 12)
    with pytest.raises(ValueError, match="num_outputs is None; give it"):
        Decoder().init(jax.random.key(0), np.zeros((2, 5), int))
