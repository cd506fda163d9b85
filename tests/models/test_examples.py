"""The networks of flax's examples, in their shape and written anew: each trains as a loop of flax and optax by hand."""

import dataclasses
import functools
import zlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import weightdecay as wd
from weightdecay.core import random_streams

RNG = np.random.default_rng(0)
EXAMPLES, TRAIN, BATCH, STEPS, SEED = 36, 24, 8, 7, 3
COEFFICIENTS = (0.0, 0.5)
ROWS = RNG.uniform(size=(EXAMPLES, 6)).astype(np.float32)
IMAGES = RNG.normal(size=(EXAMPLES, 8, 8, 1)).astype(np.float32)
TOKENS = RNG.integers(0, 9, (EXAMPLES, 5)).astype(np.int32)
LENGTHS = RNG.integers(1, 6, EXAMPLES).astype(np.int32)
LABELS = (ROWS[:, 0] > 0.5).astype(np.int32)
PADDED = np.where(np.arange(5) < LENGTHS[:, None], TOKENS % 3, -1).astype(np.int32)
cross_entropy = optax.softmax_cross_entropy_with_integer_labels


def trained(model, inputs, targets, **settings):
    """A member without decay and one with decoupled decay, trained by the library."""
    split = lambda rows: jax.tree.map(lambda array: array[rows], (inputs, targets))  # noqa: E731
    data = wd.Data(train=split(slice(TRAIN)), validation=split(slice(TRAIN, EXAMPLES)))
    grid = wd.Grid(decay=[wd.Decoupled(c) for c in COEFFICIENTS], learning_rate=1e-2, seed=SEED)
    return wd.fit_grid(
        model, data, grid, num_steps=STEPS, batch_size=BATCH, eval_every=STEPS, progress=False, **settings
    )


def keys_of_init():
    """The keys with which the library initializes a member."""
    return jax.random.split(random_streams.key(SEED, random_streams.INITIAL_WEIGHTS))


def named_key(key, name):
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def by_hand(variables, loss_fn, inputs, targets, coefficient):
    """AdamW of optax, on the batches and with the keys of the member.

    ``loss_fn(params, state, inputs, targets, key) -> (loss, state)``.
    """
    state = {name: value for name, value in variables.items() if name != "params"}
    params = variables["params"]
    mask = jax.tree_util.tree_map_with_path(
        lambda path, _: any(getattr(k, "key", "") == "kernel" for k in path), params
    )
    optimizer = optax.adamw(1e-2, weight_decay=coefficient, mask=mask)
    optimizer_state = optimizer.init(params)
    epochs = -(-STEPS * BATCH // TRAIN)
    order = np.concatenate([random_streams.epoch_order(SEED, epoch, num_examples=TRAIN) for epoch in range(epochs)])

    @jax.jit
    def step(params, state, optimizer_state, batch, key):
        gradients, state = jax.grad(loss_fn, has_aux=True)(params, state, *batch, key)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, params)
        return optax.apply_updates(params, updates), state, optimizer_state

    for number in range(STEPS):
        rows = order[number * BATCH : (number + 1) * BATCH]
        batch = jax.tree.map(lambda array, rows=rows: array[rows], (inputs, targets))
        key = jax.random.fold_in(random_streams.key(SEED, random_streams.FORWARD_PASS), number)
        params, state, optimizer_state = step(params, state, optimizer_state, batch, key)
    return params, state


def assert_trains_alike(result, variables, loss_fn, inputs, targets):
    """Every weight, and every state of the model, of both members."""
    trained_weights = []
    for member, coefficient in enumerate(COEFFICIENTS):
        params, state = by_hand(variables, loss_fn, inputs, targets, coefficient)
        assert jax.tree.structure(result.params(member)) == jax.tree.structure(params)
        pairs = [(result.params(member), params)]
        pairs += [(result.model_state(member)[name], value) for name, value in state.items()]
        for one, other in pairs:
            for ours, theirs in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
                # float32; Adam divides by the root of small second moments.
                np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=3e-5)
        trained_weights.append(jax.tree.leaves(params))
    # The tolerance tells the members apart.
    assert not all(np.allclose(*pair, rtol=1e-3, atol=3e-5) for pair in zip(*trained_weights, strict=True))


def without_state(loss):
    """A loss function of `by_hand` from ``loss(params, inputs, targets, key)``."""
    return lambda params, state, inputs, targets, key: (loss(params, inputs, targets, key), state)


class VAE(nn.Module):
    """A variational autoencoder: a key in the call, and three outputs."""

    latents: int = 2

    @nn.compact
    def __call__(self, x, z_rng):
        hidden = nn.relu(nn.Dense(8, name="encoder")(x))
        mean, logvar = nn.Dense(self.latents, name="mean")(hidden), nn.Dense(self.latents, name="logvar")(hidden)
        z = mean + jnp.exp(0.5 * logvar) * jax.random.normal(z_rng, logvar.shape)
        return nn.Dense(x.shape[-1], name="decoder")(nn.relu(nn.Dense(8)(z))), mean, logvar


def evidence(outputs, images):
    logits, mean, logvar = outputs
    divergence = -0.5 * (1 + logvar - mean**2 - jnp.exp(logvar)).sum(axis=-1)
    return optax.sigmoid_binary_cross_entropy(logits, images).sum(axis=-1) + divergence


@pytest.mark.slow
def test_variational_autoencoder():
    result = trained(VAE(), ROWS, ROWS, loss=evidence)
    params_key, key = keys_of_init()
    variables = VAE().init(params_key, ROWS[:1], named_key(key, "z_rng"))

    def loss(params, images, targets, key):
        return evidence(VAE().apply({"params": params}, images, named_key(key, "z_rng")), targets).mean()

    assert_trains_alike(result, variables, without_state(loss), ROWS, ROWS)


class Tagger(nn.Module):
    """A class for each token of padded sentences."""

    @nn.compact
    def __call__(self, inputs, *, train):
        hidden = nn.Embed(9, 6)(inputs)
        hidden = nn.Bidirectional(nn.RNN(nn.LSTMCell(4)), nn.RNN(nn.LSTMCell(4)))(hidden)
        return nn.Dense(3)(nn.Dropout(0.2, deterministic=not train)(hidden))


@pytest.mark.slow
def test_tagger_with_padding():
    result = trained(Tagger(), TOKENS, PADDED)
    variables = Tagger().init(keys_of_init()[0], TOKENS[:1], train=False)

    def loss(params, tokens, targets, key):
        outputs = Tagger().apply({"params": params}, tokens, train=True, rngs={"dropout": key})
        weights = targets >= 0
        return (cross_entropy(outputs, jnp.maximum(targets, 0)) * weights).sum() / weights.sum()

    assert_trains_alike(result, variables, without_state(loss), TOKENS, PADDED)


@dataclasses.dataclass(frozen=True)
class Config:
    """As the configurations of flax's language models, which say whether the model is training."""

    vocabulary: int = 9
    width: int = 8
    deterministic: bool = False


class LanguageModel(nn.Module):
    """A causal decoder, which is told by its configuration whether it is training."""

    config: Config

    @nn.compact
    def __call__(self, inputs):
        config = self.config
        hidden = nn.Embed(config.vocabulary, config.width)(inputs)
        hidden += self.param("positions", nn.initializers.normal(0.02), (inputs.shape[1], config.width))
        mask = nn.make_causal_mask(inputs)
        # Without biases: attention does not depend on those of the keys, and Adam makes steps of their rounding.
        attention = nn.MultiHeadDotProductAttention(2, deterministic=config.deterministic, use_bias=False)
        attended = attention(nn.LayerNorm()(hidden), mask=mask)
        hidden += nn.Dropout(0.1, deterministic=config.deterministic)(attended)
        hidden += nn.Dense(config.width)(nn.gelu(nn.Dense(16)(nn.LayerNorm()(hidden))))
        return nn.Dense(config.vocabulary)(nn.LayerNorm()(hidden))


@pytest.mark.slow
def test_causal_language_model():
    inputs, targets = TOKENS[:, :-1], TOKENS[:, 1:]
    training = LanguageModel(Config())
    evaluating = LanguageModel(Config(deterministic=True))
    result = trained(wd.Model.pair(train=training, evaluate=evaluating), inputs, targets)
    variables = evaluating.init(keys_of_init()[0], inputs[:1])

    def loss(params, tokens, targets, key):
        return cross_entropy(training.apply({"params": params}, tokens, rngs={"dropout": key}), targets).mean()

    assert_trains_alike(result, variables, without_state(loss), inputs, targets)
    outputs = evaluating.apply({"params": result.params(1)}, inputs[TRAIN:])
    expected = cross_entropy(outputs, targets[TRAIN:]).mean()
    np.testing.assert_allclose(result.dataset["validation_loss"][1, -1], expected, rtol=1e-5)


class UNet(nn.Module):
    """A class for each pixel, from a path down and a path up with a connection between them."""

    @nn.compact
    def __call__(self, x):
        fine = nn.relu(nn.Conv(4, (3, 3))(x))
        coarse = nn.relu(nn.Conv(6, (3, 3))(nn.max_pool(fine, (2, 2), (2, 2))))
        up = nn.ConvTranspose(4, (2, 2), (2, 2))(coarse)
        return nn.Conv(3, (1, 1))(nn.relu(nn.Conv(4, (3, 3))(jnp.concatenate([fine, up], axis=-1))))


@pytest.mark.slow
def test_u_net():
    classes = np.digitize(IMAGES[..., 0], [-0.5, 0.5]).astype(np.int32)
    result = trained(UNet(), IMAGES, classes)
    variables = UNet().init(keys_of_init()[0], IMAGES[:1])
    loss = without_state(lambda p, x, y, key: cross_entropy(UNet().apply({"params": p}, x), y).mean())
    assert_trains_alike(result, variables, loss, IMAGES, classes)


class ResNet(nn.Module):
    """A residual network with batch normalization over the devices of a mapped program."""

    axis_name: str | None = "batch"

    @nn.compact
    def __call__(self, x, train: bool = True):
        norm = functools.partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, axis_name=self.axis_name)
        x = nn.relu(norm()(nn.Conv(4, (3, 3), use_bias=False)(x)))
        residual = nn.relu(norm()(nn.Conv(4, (3, 3), use_bias=False)(x)))
        residual = norm(scale_init=nn.initializers.ones)(nn.Conv(4, (3, 3), use_bias=False)(residual))
        return nn.Dense(2)(nn.relu(x + residual).mean(axis=(1, 2)))


@pytest.mark.slow
def test_residual_network_with_a_named_axis():
    result = trained(ResNet(), IMAGES, LABELS)
    model = ResNet(axis_name=None)  # one device
    variables = model.init(keys_of_init()[0], IMAGES[:1], train=False)

    def loss(params, state, images, labels, key):
        outputs, state = model.apply({"params": params, **state}, images, mutable=["batch_stats"])
        return cross_entropy(outputs, labels).mean(), state

    assert_trains_alike(result, variables, loss, IMAGES, LABELS)


class Recurrent(nn.Module):
    """The last state of an LSTM over sequences of their own lengths."""

    @nn.compact
    def __call__(self, token_ids, *, seq_lengths):
        cell = nn.RNN(nn.OptimizedLSTMCell(5), return_carry=True)
        (_, hidden), _ = cell(nn.Embed(9, 4)(token_ids), seq_lengths=seq_lengths)
        return nn.Dense(2)(hidden)


@pytest.mark.slow
def test_lstm_with_lengths():
    inputs = {"token_ids": TOKENS, "seq_lengths": LENGTHS}
    result = trained(Recurrent(), inputs, LABELS)
    variables = Recurrent().init(keys_of_init()[0], TOKENS[:1], seq_lengths=LENGTHS[:1])
    loss = without_state(lambda p, x, y, key: cross_entropy(Recurrent().apply({"params": p}, **x), y).mean())
    assert_trains_alike(result, variables, loss, inputs, LABELS)


# Metadata, stacks, sown losses and other collections.


class Annotated(nn.Module):
    """A network whose weights say over which axes of a mesh they are partitioned."""

    annotate: Any = nn.with_partitioning

    @nn.compact
    def __call__(self, x):
        kernel = self.annotate(nn.initializers.lecun_normal(), ("embed", "mlp"))
        hidden = nn.relu(nn.Dense(8, kernel_init=kernel)(x))
        return nn.Dense(2)(hidden)


@pytest.mark.slow
@pytest.mark.parametrize("annotate", [nn.with_partitioning, nn.with_logical_partitioning])
def test_partitioned_weights_stay_in_their_boxes(tmp_path, annotate):
    model = Annotated(annotate)
    result = trained(model, ROWS, LABELS)
    variables = model.init(keys_of_init()[0], ROWS[:1])
    loss = without_state(lambda p, x, y, key: cross_entropy(model.apply({"params": p}, x), y).mean())
    assert_trains_alike(result, variables, loss, ROWS, LABELS)
    assert isinstance(result.params(0)["Dense_0"]["kernel"], nn.Partitioned)
    assert result.dataset["layer"].values.tolist() == ["Dense_0/kernel", "Dense_1/kernel"]
    result.save(tmp_path / "result")
    kernel = wd.load(tmp_path / "result").params(0)["Dense_0"]["kernel"]  # a saved result holds plain arrays
    np.testing.assert_array_equal(kernel, result.params(0)["Dense_0"]["kernel"].value)


@pytest.mark.slow
def test_metadata_of_nnx_changes_nothing():
    class Linear(nnx.Module):
        def __init__(self, annotated, rngs):
            kernel = nnx.initializers.lecun_normal()
            kernel = nnx.with_partitioning(kernel, ("embed", "mlp")) if annotated else kernel
            with nnx.use_eager_sharding(False):  # there is no mesh
                self.dense = nnx.Linear(6, 2, kernel_init=kernel, rngs=rngs)

        def __call__(self, x):
            return self.dense(x)

    annotated, plain = (trained(functools.partial(Linear, one), ROWS, LABELS) for one in (True, False))
    for member in range(2):
        np.testing.assert_array_equal(*(one.params(member)["dense"]["kernel"] for one in (annotated, plain)))


class Block(nn.Module):
    train: bool

    @nn.compact
    def __call__(self, x, _):
        hidden = nn.Dropout(0.2, deterministic=not self.train)(nn.relu(nn.Dense(6)(x)))
        self.sow("losses", "activity", jnp.abs(hidden).mean(axis=-1))  # of each example
        return x + hidden, None


class Stack(nn.Module):
    """Blocks with the weights of all layers in one array, of which each sows a loss."""

    @nn.compact
    def __call__(self, x, train: bool):
        axes, split = {"params": 0, "losses": 0}, {"params": True, "dropout": True}
        x, _ = nn.scan(Block, variable_axes=axes, split_rngs=split, length=3)(train)(x, None)
        return nn.Dense(2)(x)


@pytest.mark.slow
def test_scanned_stack_with_sown_losses_and_dropout():
    model = Stack()
    result = trained(model, ROWS, LABELS)
    variables = {"params": model.init(keys_of_init()[0], ROWS[:1], train=False)["params"]}

    def sown(collections):
        return sum(value.mean(axis=-1).sum() for value in jax.tree.leaves(collections["losses"]))

    def loss(params, x, y, key):
        outputs, changed = model.apply({"params": params}, x, train=True, rngs={"dropout": key}, mutable=["losses"])
        return cross_entropy(outputs, y).mean() + sown(changed)

    assert_trains_alike(result, variables, without_state(loss), ROWS, LABELS)
    # Recorded apart from the data loss.
    for split, rows in (("train", slice(TRAIN)), ("validation", slice(TRAIN, EXAMPLES))):
        outputs, changed = model.apply({"params": result.params(1)}, ROWS[rows], train=False, mutable=["losses"])
        expected = {"loss": cross_entropy(outputs, LABELS[rows]).mean(), "sown_loss": sown(changed)}
        for name, value in expected.items():
            np.testing.assert_allclose(result.dataset[f"{split}_{name}"][1, -1], value, rtol=1e-4)
    kernel = result.params(0)["ScanBlock_0"]["Dense_0"]["kernel"]
    assert kernel.shape == (3, 6, 6)
    described = wd.masks.describe(result.params(0), wd.masks.kernels)
    assert "(3, 6, 6)  stack in out      108  yes" in described


@pytest.mark.slow
def test_decay_sees_the_layers_of_a_stack():
    """A norm bound holds for the columns of every layer of the stack, as for matrices that are arrays of their own."""
    split = wd.Data((ROWS[:TRAIN], LABELS[:TRAIN]), (ROWS[TRAIN:], LABELS[TRAIN:]))
    settings = {"num_steps": 3, "batch_size": None, "progress": False}
    result = wd.fit(Stack(), split, decay=wd.MaxNorm(0.3), learning_rate=1e-3, **settings)
    norms = np.linalg.norm(result.params()["ScanBlock_0"]["Dense_0"]["kernel"], axis=1)
    assert norms.shape == (3, 6)
    np.testing.assert_allclose(norms.max(axis=1), 0.3, rtol=1e-5)


class Experts(nn.Module):
    """Sown losses and other collections: values kept for inspection, and a count that is the model's state."""

    own: str = "losses"
    in_training_only: bool = False

    @nn.compact
    def __call__(self, x, train: bool = False):
        gates = nn.softmax(nn.Dense(3, name="gates")(x))
        if train or not self.in_training_only:
            self.sow(self.own, "balance", 3 * (gates.mean(axis=0) ** 2).sum())
        self.sow("intermediates", "shares", gates)
        self.sow("looks", "shares", gates)
        calls = self.variable("counts", "calls", lambda: jnp.zeros((), jnp.int32))
        if train:
            calls.value += 1
        experts = nn.Dense(6, name="experts")(x).reshape(*x.shape[:-1], 3, 2)
        return (gates[..., None] * experts).sum(axis=-2)


@pytest.mark.slow
def test_sown_scalars_are_added_and_other_collections_are_kept_or_dropped():
    model, result = Experts(), trained(Experts(), ROWS, LABELS)
    variables = {"params": model.init(keys_of_init()[0], ROWS[:1])["params"]}

    def loss(params, x, y, key):
        outputs, changed = model.apply({"params": params, "counts": {"calls": 0}}, x, mutable=["losses"])
        return cross_entropy(outputs, y).mean() + changed["losses"]["balance"][0]

    assert_trains_alike(result, variables, without_state(loss), ROWS, LABELS)
    state = result.model_state(0)
    assert set(state) == {"counts", "sown_loss"}
    assert state["counts"]["calls"] == STEPS
    model.apply({"params": result.params(0), **state}, ROWS)
    elsewhere = trained(Experts("auxiliary"), ROWS, LABELS)  # another collection is not a loss
    assert "train_sown_loss" not in elsewhere.dataset
    assert set(elsewhere.model_state(0)) == {"counts"}
    with pytest.raises(TypeError, match="sows into the collection 'losses' in training only"):
        trained(Experts(in_training_only=True), ROWS, LABELS)
