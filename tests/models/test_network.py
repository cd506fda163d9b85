"""Networks of every library beside the same network written out by hand with that library."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from weightdecay import models
from weightdecay.core import tree
from weightdecay.decay import masks
from weightdecay.models import convolutions
from weightdecay.models import network as networks

KEY, FIRST = jax.random.key(1), jax.random.key(0)
IMAGES = jax.random.normal(jax.random.key(2), (6, 4, 4, 1))
ROWS = jax.random.normal(jax.random.key(3), (6, 5))
LABELS = jnp.arange(6) % 3


def same(actual, desired, rtol=0.0):
    """Bit for bit unless told otherwise; a tolerance is for programs that add up in another order."""
    assert jax.tree.structure(actual) == jax.tree.structure(desired)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol), actual, desired)


def cross_entropy(outputs):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, LABELS).mean()


class FlaxCNN(nn.Module):
    """The network of flax's own examples, with batch normalization and dropout."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Conv(features=4, kernel_size=(3, 3))(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.relu(x)
        x = nn.avg_pool(x, window_shape=(2, 2), strides=(2, 2))
        x = x.reshape((x.shape[0], -1))
        x = nn.Dense(features=8)(x)
        x = nn.Dropout(0.5, deterministic=not train)(nn.relu(x))
        return nn.Dense(features=3)(x)


class Deterministic(nn.Module):
    """Told by its call that it does not train."""

    @nn.compact
    def __call__(self, x, deterministic: bool = True):
        return nn.Dropout(0.5)(nn.Dense(3)(x), deterministic=deterministic)


class ToldByField(nn.Module):
    """Told by its field whether it trains."""

    training: bool = False

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=not self.training)(nn.Dense(3)(x))


class Noisy(nn.Module):
    """Draws from two random streams."""

    @nn.compact
    def __call__(self, x, train: bool):
        x = nn.Dense(3)(x)
        if not train:
            return x
        noise = [jax.random.normal(self.make_rng(name), x.shape) for name in ("noise", "dropout")]
        return x + jnp.concatenate(noise, axis=-1)[:, ::2]


class NnxCNN(nnx.Module):
    """The network of flax's own documents."""

    def __init__(self, num_outputs=3, *, features=4, activation=nnx.relu, rngs: nnx.Rngs):
        self.conv = nnx.Conv(1, features, kernel_size=(3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout1 = nnx.Dropout(rate=0.25, rngs=rngs)
        self.linears = nnx.List([nnx.Linear(4 * features, 8, rngs=rngs), nnx.Linear(8, num_outputs, rngs=rngs)])
        self.dropout2 = nnx.Dropout(rate=0.5, rngs=rngs)
        self.activation = activation

    def __call__(self, x):
        x = nnx.avg_pool(self.activation(self.norm(self.dropout1(self.conv(x)))), (2, 2), strides=(2, 2))
        x = self.activation(self.dropout2(self.linears[0](x.reshape(x.shape[0], -1))))
        return self.linears[1](x)


# --- flax linen -------------------------------------------------------------------------------------------------------


def by_hand(model, params, model_state, inputs, key, **mode):
    """flax's own calls in training: outputs and changed collections."""
    return model.apply(
        {"params": params, **model_state}, inputs, **mode, rngs={"dropout": key}, mutable=["batch_stats"]
    )


@pytest.mark.slow
def test_network_of_linen_is_flax_own_in_value_gradient_and_step():
    model, network = FlaxCNN(), networks.network(FlaxCNN())
    params, model_state = jax.jit(network.init)(FIRST, IMAGES)
    variables = jax.jit(functools.partial(model.init, train=False))(jax.random.split(FIRST)[0], IMAGES)
    same({"params": params, **model_state}, variables)

    def loss(params):
        outputs, changed = network.apply(params, model_state, IMAGES, key=KEY, train=True)
        return cross_entropy(outputs), changed

    def own_loss(params):
        outputs, changed = by_hand(model, params, model_state, IMAGES, KEY, train=True)
        return cross_entropy(outputs), changed

    (value, changed), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    (own_value, own_changed), own_gradient = jax.jit(jax.value_and_grad(own_loss, has_aux=True))(params)
    same((value, changed, gradient), (own_value, own_changed, own_gradient))
    step = optax.adam(1e-2)
    updates, _ = step.update(gradient, step.init(params))
    params = optax.apply_updates(params, updates)
    assert not np.array_equal(
        changed["batch_stats"]["BatchNorm_0"]["mean"], 0 * changed["batch_stats"]["BatchNorm_0"]["mean"]
    )
    outputs, kept = network.apply(params, changed, IMAGES, key=KEY, train=False)
    same(outputs, model.apply({"params": params, **own_changed}, IMAGES, train=False))
    same(kept, changed)


@pytest.mark.parametrize("model", [Deterministic(), ToldByField()])
def test_network_tells_linen_whether_it_trains(model):
    network = networks.network(model)
    params, _ = network.init(FIRST, ROWS)
    dense = nn.Dense(3).apply({"params": params["Dense_0"]}, ROWS)
    same(network.apply(params, {}, ROWS, key=KEY, train=False)[0], dense)
    trained = network.apply(params, {}, ROWS, key=KEY, train=True)[0]
    assert 0 < (trained == 0).sum() < trained.size
    same(trained, jnp.where(trained == 0, 0, dense / 0.5))


def test_network_gives_every_random_stream_of_linen_numbers_of_its_own():
    network = networks.network(Noisy())
    params, _ = network.init(FIRST, ROWS)
    still, trained = (network.apply(params, {}, ROWS, key=KEY, train=train)[0] for train in (False, True))
    noise = trained - still
    assert len(np.unique(np.round(noise, 5))) == noise.size
    assert not np.array_equal(trained, network.apply(params, {}, ROWS, key=FIRST, train=True)[0])


def test_network_refuses_linen_calls_that_it_cannot_make():
    class Unknown(nn.Module):
        def __call__(self, x, temperature):
            return x * temperature

    with pytest.raises(TypeError, match="argument 'temperature', whose value is not known; give it a default, or give"):
        networks.network(Unknown()).init(FIRST, ROWS)

    class Nothing(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(TypeError, match="Nothing, which has no __call__"):
        networks.network(Nothing())


# --- flax nnx ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_network_of_nnx_is_flax_own_in_value_gradient_and_statistics():
    network = networks.network(functools.partial(NnxCNN, features=3))
    params, model_state = jax.jit(network.init)(FIRST, IMAGES)
    module = NnxCNN(features=3, rngs=nnx.Rngs(FIRST))
    same(params, nnx.to_pure_dict(nnx.state(module, nnx.Param)))
    same(model_state, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)))

    def loss(params):
        outputs, changed = network.apply(
            params, model_state, IMAGES, key=KEY, train=True, hyperparameters={"dropout_rate": jnp.zeros(())}
        )
        return cross_entropy(outputs), changed

    module.train()
    module.dropout1.rate = module.dropout2.rate = 0.0
    own, own_gradient = nnx.jit(nnx.value_and_grad(lambda module: cross_entropy(module(IMAGES))))(module)
    (value, changed), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    # The two programs are not the same, so that sums may come in another order.
    same((value, gradient), (own, nnx.to_pure_dict(own_gradient)), rtol=1e-6)
    same(changed, nnx.to_pure_dict(nnx.state(module, nnx.BatchStat)), rtol=1e-6)
    assert np.abs(changed["norm"]["mean"]).min() > 0
    module.eval()
    outputs, kept = network.apply(params, changed, IMAGES, key=KEY, train=False)
    same(outputs, module(IMAGES), rtol=1e-6)
    same(kept, changed)


@pytest.mark.slow
def test_weights_of_nnx_are_what_nnx_update_takes():
    network = networks.network(NnxCNN)
    params, model_state = jax.jit(network.init)(FIRST, IMAGES)
    module = NnxCNN(rngs=nnx.Rngs(7))
    nnx.update(module, params)
    module.eval()
    same(module(IMAGES), network.apply(params, model_state, IMAGES, key=KEY, train=False)[0])
    assert "linears/0/kernel" in [name for name, _ in tree.named_leaves(params)]


def test_layers_of_nnx_drop_apart_and_anew_with_every_key():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.scale = nnx.Param(jnp.ones(()))
            self.one, self.other = nnx.Dropout(0.5, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return jnp.stack([self.one(self.scale * x), self.other(self.scale * x)])

    network = networks.network(Two)
    params, state = network.init(FIRST, ROWS)
    assert state == {}
    outputs = [network.apply(params, state, ROWS, key=key, train=True)[0] for key in (KEY, KEY, FIRST)]
    same(outputs[0], outputs[1])
    assert not np.array_equal(outputs[0][0] == 0, outputs[0][1] == 0)
    assert not np.array_equal(outputs[0] == 0, outputs[2] == 0)


def test_network_gives_nnx_its_streams_where_the_call_asks_for_them():
    class Called(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(5, 3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5)

        def __call__(self, x, deterministic: bool, rngs: nnx.Rngs | None = None):
            return self.dropout(self.linear(x), deterministic=deterministic, rngs=rngs)

    network = networks.network(lambda rngs: Called(rngs))
    params, state = network.init(FIRST, ROWS)
    trained = network.apply(params, state, ROWS, key=KEY, train=True)[0]
    assert 0 < (trained == 0).sum() < trained.size
    same(network.apply(params, state, ROWS, key=KEY, train=False)[0], Called(nnx.Rngs(FIRST)).linear(ROWS))


# --- equinox ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def eqx():
    return pytest.importorskip("equinox")


def equinox_model(eqx):
    class EqxMLP(eqx.Module):
        first: eqx.nn.Linear
        norm: eqx.nn.BatchNorm
        dropout: eqx.nn.Dropout
        second: eqx.nn.Linear

        def __init__(self, num_outputs=None, *, key):
            keys = jax.random.split(key)
            self.first = eqx.nn.Linear(5, 4, key=keys[0])
            self.norm = eqx.nn.BatchNorm(4, axis_name="batch", mode="ema")
            self.dropout = eqx.nn.Dropout(0.5)
            self.second = eqx.nn.Linear(4, num_outputs, key=keys[1])

        def __call__(self, x, state, *, key=None):
            x, state = self.norm(self.first(x), state)
            return self.second(self.dropout(jax.nn.relu(x), key=key)), state

    return EqxMLP


@pytest.mark.slow
def test_network_of_equinox_is_equinox_own_in_value_gradient_and_statistics(eqx):
    cls = equinox_model(eqx)
    network = networks.network(networks.complete(cls, 3))
    params, model_state = network.init(FIRST, ROWS)
    module, state = eqx.nn.make_with_state(cls)(3, key=FIRST)
    same(jax.tree.leaves(params), jax.tree.leaves(eqx.filter(module, eqx.is_inexact_array)))

    def own_loss(module, state):
        batch = jax.vmap(
            lambda x, key, state: module(x, state, key=key), axis_name="batch", in_axes=(0, 0, None), out_axes=(0, None)
        )
        outputs, state = batch(ROWS, jax.random.split(KEY, 6), state)
        return cross_entropy(outputs), state

    def loss(params):
        outputs, changed = network.apply(params, model_state, ROWS, key=KEY, train=True)
        return cross_entropy(outputs), changed

    (value, changed), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    (own, state), own_gradient = eqx.filter_jit(eqx.filter_value_and_grad(own_loss, has_aux=True))(module, state)
    # The two programs are not the same, so that sums may come in another order.
    same((value, jax.tree.leaves(gradient)), (own, jax.tree.leaves(own_gradient)), rtol=1e-6)
    same(changed["state"], jax.tree.leaves(state), rtol=1e-6)
    assert any(not np.array_equal(a, b) for a, b in zip(changed["state"], model_state["state"], strict=True))
    still = eqx.nn.inference_mode(eqx.combine(params, module))
    outputs, kept = network.apply(params, changed, ROWS, key=KEY, train=False)
    same(outputs, jax.vmap(lambda x: still(x, state)[0])(ROWS))
    same(kept, changed)


def test_network_of_equinox_has_one_structure_for_all_members_and_names(eqx):
    model = lambda key: eqx.nn.MLP(5, 3, 4, 2, activation=lambda x: jnp.sin(x), key=key)  # noqa: E731
    network = networks.network(model)
    params, state = network.init(FIRST, ROWS)
    again, _ = jax.eval_shape(networks.network(model).init, KEY, ROWS)
    assert jax.tree.structure(params) == jax.tree.structure(again)
    assert state == {}
    names = [name for name, _ in tree.named_leaves(params)]
    assert names == [f"layers/{layer}/{array}" for layer in range(3) for array in ("weight", "bias")]
    assert jax.tree.leaves(masks.kernels(params)) == [True, False] * 3
    outputs, _ = network.apply(params, state, ROWS, key=KEY, train=True)
    same(outputs, jax.vmap(eqx.combine(params, model(KEY)))(ROWS))


@pytest.mark.slow
def test_network_of_equinox_carries_whole_numbers_untrained(eqx):
    class Gathers(eqx.Module):
        places: jax.Array
        weight: jax.Array

        def __init__(self, key):
            self.places = jnp.array([2, 0])
            self.weight = jax.random.normal(key, (2,))

        def __call__(self, x):
            return x[self.places] * self.weight

    network = networks.network(Gathers)
    params, state = network.init(FIRST, ROWS)
    assert [leaf.shape for leaf in jax.tree.leaves(params)] == [(2,)]
    outputs, kept = network.apply(params, state, ROWS, key=KEY, train=True)
    same(outputs, ROWS[:, jnp.array([2, 0])] * params.weight)
    same(kept, {"constants": [jnp.array([2, 0])]})


# --- plain functions --------------------------------------------------------------------------------------------------


def test_network_of_functions_gives_what_apply_asks_for():
    seen = {}

    def apply(params, inputs, *, train, key, dropout_rate, temperature=2.0):
        seen.update(train=train, key=key)
        return inputs @ params * temperature - dropout_rate

    model = networks.Model(lambda key, inputs: jnp.ones((inputs.shape[1], 1)), apply)
    assert networks.traced_axes(model) == {"dropout_rate", "temperature"}
    assert networks.static_axes(model) == frozenset()
    network = networks.network(model)
    params, state = network.init(FIRST, ROWS)
    outputs, _ = network.apply(params, state, ROWS, key=KEY, train=True, hyperparameters={"dropout_rate": 0.5})
    same(outputs, ROWS.sum(1, keepdims=True) * 2 - 0.5, rtol=1e-6)  # a product and a sum add up in their own orders
    assert seen == {"train": True, "key": KEY}


def test_network_of_functions_refuses_an_axis_that_apply_does_not_take():
    model = networks.Model(lambda key, inputs: jnp.ones(5), lambda params, inputs: inputs @ params)
    assert networks.traced_axes(model) == frozenset()
    with pytest.raises(ValueError, match=r"axis 'dropout_rate', which .* does not take"):
        networks.network(model).apply(
            jnp.ones(5), {}, ROWS, key=KEY, train=False, hyperparameters={"dropout_rate": jnp.zeros(())}
        )


# --- traced dropout ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.5, float(np.float32(0.9)), 1.0])
def test_dropout_rate_gives_the_bits_of_flax(rate):
    def model(rate):
        class Net(nn.Module):
            @nn.compact
            def __call__(self, x, train: bool):
                for dims in ((), (0,), (1,)):
                    x = nn.Dropout(rate, broadcast_dims=dims, deterministic=not train)(nn.Dense(7)(x))
                return nn.Dropout(rate)(jnp.sin(x), deterministic=not train)

        return Net()

    network = networks.network(model(0.25))
    params, state = network.init(FIRST, ROWS)
    hyperparameters = {"dropout_rate": jnp.asarray(rate)}
    # Operation by operation: in a program, a matrix product is computed as what stands behind it has it.
    outputs, _ = network.apply(params, state, ROWS, key=KEY, train=True, hyperparameters=hyperparameters)
    same(outputs, model(rate).apply({"params": params}, ROWS, train=True, rngs={"dropout": KEY}))


def every_kind(eqx):
    return {
        "linen": (FlaxCNN(), IMAGES),
        "own layer": (models.CNN((3,), (4,), 3), IMAGES),
        "nnx": (NnxCNN, IMAGES),
        "equinox": (functools.partial(equinox_model(eqx), 3), ROWS),
        "equinox without statistics": (
            lambda key: eqx.nn.Sequential(
                [eqx.nn.Linear(5, 9, key=key), eqx.nn.Dropout(0.5), eqx.nn.Linear(9, 3, key=key)]
            ),
            ROWS,
        ),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linen", "own layer", "nnx", "equinox"])
def test_dropout_rate_traced_over_members_is_each_rate_alone(kind, eqx):
    model, inputs = every_kind(eqx)[kind]
    network = networks.network(model)
    if kind == "own layer":
        network = networks.rewritten(network, convolutions.rewrite)
    params, state = jax.jit(network.init)(FIRST, inputs)

    def loss(params, rate):
        outputs, _ = network.apply(params, state, inputs, key=KEY, train=True, hyperparameters={"dropout_rate": rate})
        return cross_entropy(outputs)

    rates = jnp.array([0.0, 0.2, 0.7])
    together = jax.jit(jax.vmap(jax.grad(loss), in_axes=(None, 0)))(params, rates)
    one = jax.jit(jax.grad(loss))
    alone = [one(params, rate) for rate in rates]
    # Matrix products of a batch of members add up in another order.
    same(together, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone), rtol=2e-6)

    @jax.jit
    def evaluated(rate):
        return network.apply(params, state, inputs, key=KEY, train=False, hyperparameters={"dropout_rate": rate})[0]

    same(evaluated(rates[0]), evaluated(rates[2]))


@pytest.mark.slow
def test_dropout_rate_of_zero_is_the_network_without_dropout_bit_for_bit(eqx):
    class Bare(NnxCNN):
        def __call__(self, x):
            x = nnx.avg_pool(self.activation(self.norm(self.conv(x))), (2, 2), strides=(2, 2))
            return self.linears[1](self.activation(self.linears[0](x.reshape(x.shape[0], -1))))

    class Cut(nn.Module):
        @nn.compact
        def __call__(self, x, deterministic: bool = True):
            return nn.Dense(3)(x)

    class EqxBare(equinox_model(eqx)):
        def __init__(self, num_outputs, key):
            super().__init__(num_outputs, key=key)
            self.dropout = eqx.nn.Dropout(0.0)

    pairs = [
        (Deterministic(), Cut(), ROWS),
        (NnxCNN, Bare, IMAGES),
        (functools.partial(equinox_model(eqx), 3), functools.partial(EqxBare, 3), ROWS),
    ]
    for model, bare, inputs in pairs:
        dropping, cut = networks.network(model), networks.network(bare)
        params, state = dropping.init(FIRST, inputs)
        own, own_state = cut.init(FIRST, inputs)

        def run(network, leaves, weights, state, inputs=inputs, **options):
            params = jax.tree.unflatten(jax.tree.structure(weights), leaves)
            return cross_entropy(network.apply(params, state, inputs, key=KEY, train=True, **options)[0])

        zero = {"hyperparameters": {"dropout_rate": jnp.zeros(())}}
        leaves = jax.tree.leaves(params)
        # Operation by operation: in a program, a matrix product is computed as what stands behind it has it.
        same(run(dropping, leaves, params, state, **zero), run(cut, leaves, own, own_state))
        gradient = jax.jit(jax.grad(lambda leaves: run(dropping, leaves, params, state, **zero)))(leaves)  # noqa: B023
        own_gradient = jax.jit(jax.grad(lambda leaves: run(cut, leaves, own, own_state)))(leaves)  # noqa: B023
        same(gradient, own_gradient, rtol=1e-6)


@pytest.mark.parametrize("train", [True, False])
def test_dropout_rate_refuses_networks_without_a_layer(train, eqx):
    for model in (nn.Dense(3), lambda rngs: nnx.Linear(5, 3, rngs=rngs), lambda key: eqx.nn.Linear(5, 3, key=key)):
        network = networks.network(model)
        params, state = jax.eval_shape(network.init, KEY, ROWS)

        def forward(params, state, rate, network=network):
            return network.apply(params, state, ROWS, key=KEY, train=train, hyperparameters={"dropout_rate": rate})

        with pytest.raises(ValueError, match=r"axis 'dropout_rate', but the model called no dropout layer.*wd\.models"):
            jax.eval_shape(forward, params, state, 0.1)


def test_dropout_rate_takes_a_layer_that_stands_in_training_alone():
    class InTraining(nn.Module):
        @nn.compact
        def __call__(self, x, train: bool):
            x = nn.Dense(3)(x)
            return nn.Dropout(0.5, deterministic=False)(x) if train else x

    network = networks.network(InTraining())
    params, state = network.init(FIRST, ROWS)
    still = network.apply(params, state, ROWS, key=KEY, train=False, hyperparameters={"dropout_rate": 0.5})[0]
    same(still, network.apply(params, state, ROWS, key=KEY, train=False)[0])


def test_dropout_rate_refuses_attention_that_drops_by_itself():
    for model in (
        nn.MultiHeadDotProductAttention(1, dropout_rate=0.1),
        lambda rngs: nnx.MultiHeadAttention(1, 5, decode=False, dropout_rate=0.1, rngs=rngs),
    ):
        network = networks.network(model)
        sequences = ROWS[:, None]
        params, state = network.init(FIRST, sequences)
        with pytest.raises(ValueError, match="drops attention weights at its own rate"):
            network.apply(params, state, sequences, key=KEY, train=True, hyperparameters={"dropout_rate": 0.5})


# --- completion and fields --------------------------------------------------------------------------------------------


def test_complete_fills_what_is_open_alone():
    assert networks.complete(models.MLP((4,)), 3) == models.MLP((4,), 3)
    assert networks.complete(models.MLP((4,), 7), 3).num_outputs == 7
    fixed = lambda rngs: nnx.Linear(5, 7, rngs=rngs)  # noqa: E731
    assert networks.complete(fixed, 3) is fixed
    assert networks.complete(NnxCNN, 5) is NnxCNN  # it has a number of its own
    open_one = lambda num_outputs, rngs: nnx.Linear(5, num_outputs, rngs=rngs)  # noqa: E731
    completed = networks.complete(open_one, 3)
    assert completed == networks.complete(open_one, 3)
    assert hash(completed) == hash(networks.complete(open_one, 3))
    assert completed != networks.complete(open_one, 4)
    assert networks.network(completed).init(FIRST, ROWS)[0]["kernel"].shape == (5, 3)
    bound = functools.partial(open_one, 2)
    assert networks.complete(bound, 3) is bound


def test_static_axes_are_fields_and_arguments_of_the_model():
    assert networks.static_axes(models.MLP()) == {"hidden", "num_outputs", "activation", "normalization"}
    assert networks.static_axes(ToldByField()) == frozenset()
    assert networks.static_axes(NnxCNN) == {"num_outputs", "features", "activation"}
    assert networks.static_axes(functools.partial(NnxCNN, 3)) == {"features", "activation"}
    assert networks.traced_axes(NnxCNN) == networks.traced_axes(models.MLP()) == {"dropout_rate"}


def test_with_options_sets_fields_and_finds_functions_by_their_words():
    assert networks.with_options(models.MLP(), {"hidden": (3,), "activation": "tanh"}) == models.MLP(
        (3,), activation="tanh"
    )

    class Users(nn.Module):
        activation: object = nn.relu

        def __call__(self, x):
            return self.activation(x)

    assert networks.with_options(Users(), {"activation": "tanh"}).activation is nn.tanh
    wider = networks.with_options(NnxCNN, {"features": 2, "activation": "tanh"})
    assert wider == networks.with_options(NnxCNN, {"features": 2, "activation": "tanh"})
    params, state = networks.network(wider).init(FIRST, IMAGES)
    module = NnxCNN(features=2, activation=nnx.tanh, rngs=nnx.Rngs(FIRST))
    module.eval()
    same(networks.network(wider).apply(params, state, IMAGES, key=KEY, train=False)[0], module(IMAGES))
    with pytest.raises(ValueError, match="activation is 'tan'; give one of relu"):
        networks.with_options(NnxCNN, {"activation": "tan"})
    with pytest.raises(ValueError, match="model has no field 'depth' that a grid can set; it has: activation, "):
        networks.with_options(NnxCNN, {"depth": 3})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda eqx: FlaxCNN, "it is a class; give an instance"),
        (lambda eqx: NnxCNN(rngs=nnx.Rngs(0)), r"has weights already.*lambda rngs: NnxCNN\(..., rngs=rngs\)"),
        (lambda eqx: equinox_model(eqx)(3, key=FIRST), "has weights already.*lambda key"),
        (lambda eqx: eqx.nn.Dropout, r"its __init__ must take rngs \(flax nnx\) or key \(equinox\)"),
        (lambda eqx: lambda x: x, r"must have an argument named rngs \(flax nnx\) or key \(equinox\)"),
        (lambda eqx: 3, "model is 3, of type int; give a flax linen module"),
    ],
)
def test_network_refuses_what_is_no_model(model, message, eqx):
    with pytest.raises(TypeError, match=message):
        networks.network(model(eqx))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda rngs: nn.Dense(3), "a function of rngs must make a flax nnx module"),
        (lambda key: nn.Dense(3), "a function of key must make an equinox module"),
    ],
)
def test_network_refuses_functions_that_make_no_module(model, message, eqx):
    with pytest.raises(TypeError, match=message):
        networks.network(model).init(FIRST, ROWS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["linen", "nnx", "equinox without statistics"])
def test_computing_in_bfloat16_keeps_the_dtypes_of_weights_and_state(kind, eqx):
    model, inputs = every_kind(eqx)[kind]
    network = networks.network(model)
    params, state = network.init(FIRST, inputs)
    half = networks.computing_in(network, "bfloat16")
    at_rate = {"hyperparameters": {"dropout_rate": jnp.asarray(0.3)}, "key": KEY, "train": True}
    outputs, changed = jax.jit(functools.partial(half.apply, **at_rate))(params, state, inputs)
    desired, _ = jax.jit(functools.partial(network.apply, **at_rate))(params, state, inputs)
    assert outputs.dtype == jnp.float32
    np.testing.assert_allclose(outputs, desired, atol=0.1)  # 8 bits of mantissa through four layers
    assert not np.array_equal(outputs, desired)
    dtypes = lambda tree: jax.tree.map(lambda leaf: leaf.dtype, tree)  # noqa: E731
    assert dtypes(changed) == dtypes(state)
