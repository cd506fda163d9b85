"""How networks are called: inputs by name, keys, named axes, and a network for training beside one for evaluation."""

import dataclasses

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import weightdecay as wd
from compare import same_bits
from weightdecay.models import network as networks

RNG = np.random.default_rng(0)
EXAMPLES = 40
TOKENS = RNG.integers(0, 9, (EXAMPLES, 6)).astype(np.int32)
LENGTHS = RNG.integers(1, 7, EXAMPLES).astype(np.int32)
ROWS = RNG.normal(size=(EXAMPLES, 5)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(np.int32)
GRID = {"decay": [wd.NoDecay(), wd.Decoupled(0.5)], "learning_rate": [1e-2], "seed": range(2)}
KEY = jax.random.key(0)


def data(inputs):
    def split(rows):
        return jax.tree.map(lambda array: array[rows], inputs), LABELS[rows]

    return wd.Data(train=split(slice(0, 24)), validation=split(slice(24, EXAMPLES)))


def fit(model, inputs=ROWS, **changed):
    settings = {"num_steps": 6, "batch_size": 8, "eval_every": 3, "progress": False, **changed}
    return wd.fit_grid(model, data(inputs), wd.Grid(**GRID), **settings)


class Reader(nn.Module):
    """A recurrent network over sequences of unequal lengths, called as those of flax's examples."""

    @nn.compact
    def __call__(self, token_ids, *, lengths, train: bool):
        embedded = nn.Embed(9, 4)(token_ids)
        (_, hidden), _ = nn.RNN(nn.LSTMCell(4), return_carry=True)(embedded, seq_lengths=lengths)
        return nn.Dense(2)(nn.Dropout(0.2, deterministic=not train)(hidden))


@pytest.mark.slow
def test_a_dictionary_is_passed_by_name():
    result = fit(Reader(), {"token_ids": TOKENS, "lengths": LENGTHS})
    rows = slice(24, EXAMPLES)
    outputs = Reader().apply({"params": result.params(0)}, TOKENS[rows], lengths=LENGTHS[rows], train=False)
    loss = optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS[rows]).mean()
    np.testing.assert_allclose(result.dataset["validation_loss"][0, -1], loss, rtol=1e-5)
    predicted = result.predict({"token_ids": TOKENS[rows], "lengths": LENGTHS[rows]}, 0)
    np.testing.assert_allclose(predicted, outputs, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_dictionary_without_these_names_is_the_first_argument():
    class Takes(nn.Module):
        @nn.compact
        def __call__(self, batch):
            return nn.Dense(2)(jnp.concatenate([batch["a"], batch["b"]], axis=-1))

    assert np.isfinite(fit(Takes(), {"a": ROWS, "b": ROWS}).dataset["validation_loss"]).all()


@pytest.mark.slow
@pytest.mark.parametrize("library", ["nnx", "equinox"])
def test_a_dictionary_is_passed_by_name_in_every_library(library):
    class Linear(nnx.Module):
        def __init__(self, rngs):
            self.dense = nnx.Linear(10, 2, rngs=rngs)

        def __call__(self, left, right):
            return self.dense(jnp.concatenate([left, right], axis=-1))

    class OneExample(eqx.Module):
        dense: eqx.nn.Linear

        def __init__(self, key):
            self.dense = eqx.nn.Linear(10, 2, key=key)

        def __call__(self, left, right):
            return self.dense(jnp.concatenate([left, right]))

    network = networks.network(Linear if library == "nnx" else OneExample)
    inputs = {"right": ROWS * 2, "left": ROWS}
    params, state = network.init(KEY, inputs)
    outputs, _ = network.apply(params, state, inputs, key=KEY, train=True)
    dense = params["dense"] if library == "nnx" else params.dense
    kernel, bias = (dense["kernel"], dense["bias"]) if library == "nnx" else (dense.weight.T, dense.bias)
    np.testing.assert_allclose(outputs, np.concatenate([ROWS, ROWS * 2], axis=1) @ kernel + bias, rtol=1e-4, atol=1e-5)


def test_names_that_fit_in_part_are_refused():
    with pytest.raises(TypeError, match=r"inputs have the names .*'length'.* give no 'length', or add an argument"):
        networks.network(Reader()).init(KEY, {"token_ids": TOKENS, "length": LENGTHS})
    with pytest.raises(TypeError, match=r"'lengths', whose value is not known.*\{'token_ids': \.\.\., 'lengths': \.\."):
        networks.network(Reader()).init(KEY, TOKENS)


def test_arguments_named_rng_have_keys_of_their_own():
    class Noisy(nn.Module):
        @nn.compact
        def __call__(self, inputs, z_rng, *, noise_key):
            hidden = nn.Dense(2)(inputs)
            return hidden, jax.random.normal(z_rng, (2,)), jax.random.normal(noise_key, (2,))

    network = networks.network(Noisy())
    params, state = network.init(KEY, ROWS)
    (_, first, second), _ = network.apply(params, state, ROWS, key=KEY, train=True)
    (_, again, _), _ = network.apply(params, state, ROWS, key=KEY, train=True)
    (_, other, _), _ = network.apply(params, state, ROWS, key=jax.random.key(1), train=True)
    same_bits(first, again)
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_a_named_axis_has_one_device():
    class Normalized(nn.Module):
        axis_name: str | None = None

        @nn.compact
        def __call__(self, inputs, train: bool):
            return nn.Dense(2)(
                nn.BatchNorm(use_running_average=not train, axis_name=self.axis_name)(nn.Dense(4)(inputs))
            )

    named, plain = fit(Normalized("batch")), fit(Normalized())
    np.testing.assert_allclose(named.dataset["validation_loss"], plain.dataset["validation_loss"], rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(named.model_state(1)), jax.tree.leaves(plain.model_state(1)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Config:
    deterministic: bool


class Configured(nn.Module):
    """A network that is told by its configuration whether it is training."""

    config: Config
    width: int = 8

    @nn.compact
    def __call__(self, inputs):
        hidden = nn.relu(nn.Dense(self.width)(inputs))
        return nn.Dense(2)(nn.Dropout(0.5, deterministic=self.config.deterministic)(hidden))


@pytest.mark.slow
def test_a_pair_trains_as_one_network_and_evaluates_as_the_other():
    class Called(nn.Module):
        @nn.compact
        def __call__(self, inputs, deterministic: bool):
            hidden = nn.relu(nn.Dense(8)(inputs))
            return nn.Dense(2)(nn.Dropout(0.5, deterministic=deterministic)(hidden))

    pair = wd.Model.pair(train=Configured(Config(False)), evaluate=Configured(Config(True)))
    paired, called = fit(pair), fit(Called())
    assert paired.dataset["validation_loss"].equals(called.dataset["validation_loss"])
    same_bits(paired.params(3), called.params(3))
    rates = wd.Grid(decay=[wd.NoDecay()], learning_rate=[1e-2], dropout_rate=[0.0, 0.5], width=[8, 9])
    result = wd.fit_grid(pair, data(ROWS), rates, num_steps=3, batch_size=8, progress=False)
    assert sorted({result.params(member)["Dense_0"]["bias"].shape for member in range(4)}) == [(8,), (9,)]
    assert len(np.unique(result.dataset["validation_loss"][:, -1])) == 4


def test_a_network_that_does_not_know_that_it_evaluates_is_refused():
    with pytest.raises(TypeError, match=r'needs PRNG for "dropout"\), as nothing tells it.*wd.Model.pair\(train='):
        fit(Configured(Config(False)))
