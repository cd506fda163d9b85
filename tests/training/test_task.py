"""The classic tasks from data to score: each is learned, beside scikit-learn or beside chance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from sklearn import datasets
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.multiclass import OneVsRestClassifier

import weightdecay as wd


def fitted(model, data, **settings):
    # One member needs no lane of sixteen, and no program on eight devices.
    settings = {"plan": wd.Plan(lane_width=1, num_devices=1), **settings}
    settings = {"decay": wd.NoDecay(), "learning_rate": 0.01, "num_steps": 200, "batch_size": 64, **settings}
    return wd.fit(model, data, progress=False, **settings)


def last(result, name):
    return float(result.dataset[name].values[0, -1])


@pytest.mark.slow
def test_classification_is_learned_by_a_convolutional_network():
    data = wd.data.digits(num_train=600)
    images = wd.Data(*((inputs.reshape(-1, 8, 8, 1), targets) for inputs, targets in (data.train, data.validation)))
    result = fitted(wd.models.CNN(features=(8, 16), hidden=(), normalization="batch"), images, num_steps=120)
    assert last(result, "validation_accuracy") > 0.93  # chance is 0.1


@pytest.mark.slow
def test_binary_classification_agrees_with_scikit_learn():
    data = wd.data.breast_cancer()
    binary = wd.Data(*((inputs, targets) for inputs, targets in (data.train, data.validation)))
    decay = wd.L2(0.02)
    # Several hundred full-batch steps bring Adam to the minimum of this small convex problem.
    result = fitted(
        wd.models.MLP(()), binary, decay=decay, loss="sigmoid_cross_entropy", batch_size=None, num_steps=1500
    )
    oracle = LogisticRegression(C=1 / (0.02 * len(data.train[1])), tol=1e-8).fit(*data.train)
    np.testing.assert_allclose(result.params()["Dense_0"]["kernel"][:, 0], oracle.coef_[0], atol=2e-3)
    np.testing.assert_allclose(last(result, "validation_accuracy"), oracle.score(*data.validation), atol=1e-6)


@pytest.mark.slow
def test_regression_agrees_with_scikit_learn():
    data = wd.data.diabetes()
    # c = 2 alpha / n beside a mean squared error without 1/2.
    alpha = 0.1 * len(data.train[0]) / 2
    result = fitted(wd.models.MLP(()), data, decay=wd.L2(0.1), batch_size=None, num_steps=1500)
    oracle = Ridge(alpha=alpha).fit(*data.train)
    np.testing.assert_allclose(result.params()["Dense_0"]["kernel"][:, 0], oracle.coef_, atol=1e-3)
    expected = np.mean((oracle.predict(data.validation[0]) - data.validation[1]) ** 2)
    np.testing.assert_allclose(last(result, "validation_loss"), expected, rtol=1e-3)


@pytest.mark.slow
def test_multi_label_classification_agrees_with_scikit_learn():
    inputs, labels = datasets.make_multilabel_classification(400, 8, n_classes=4, random_state=0)
    data = wd.data.split(inputs, labels)
    # The loss is the mean over four labels, the penalty is not: 4 c of each label's own problem.
    result = fitted(wd.models.MLP(()), data, decay=wd.L2(0.01), batch_size=None, num_steps=2000)
    assert result.settings["loss"] == "sigmoid_cross_entropy"
    oracle = OneVsRestClassifier(LogisticRegression(C=1 / (0.04 * len(data.train[1])), tol=1e-8)).fit(*data.train)
    for label, estimator in enumerate(oracle.estimators_):
        kernel = result.params()["Dense_0"]["kernel"][:, label]
        np.testing.assert_allclose(kernel, estimator.coef_[0], atol=5e-3)


@pytest.mark.slow
def test_sequence_classification_is_learned_by_a_transformer_that_knows_places():
    data = wd.data.token_order(num_examples=1500, length=6, num_tokens=6)
    model = wd.models.Transformer(num_layers=1, width=32, num_heads=2, vocabulary_size=6)
    result = fitted(model, data, learning_rate=3e-3, num_steps=300)
    assert last(result, "validation_accuracy") > 0.9  # chance is 0.5, and how often a token comes says nothing


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["huber", "own"])
def test_regression_with_a_robust_or_an_own_loss_leaves_outliers_aside(kind):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(200, 3)).astype(np.float32)
    targets = inputs @ np.array([1.0, -2.0, 0.5], np.float32)
    broken = targets.copy()
    broken[:20] += 50
    data = wd.Data(train=(inputs, broken), validation=(inputs, targets))
    loss = "huber" if kind == "huber" else lambda outputs, targets: abs(outputs[:, 0] - targets)
    robust = fitted(wd.models.MLP((), num_outputs=1), data, loss=loss, batch_size=None, num_steps=1000)
    plain = fitted(wd.models.MLP((), num_outputs=1), data, batch_size=None, num_steps=1000)
    kernels = [result.params()["Dense_0"]["kernel"][:, 0] for result in (robust, plain)]
    errors = [np.abs(kernel - [1.0, -2.0, 0.5]).max() for kernel in kernels]
    assert errors[0] < 0.05 < errors[1]


class LinenNetwork(linen.Module):
    @linen.compact
    def __call__(self, inputs):
        hidden = jnp.tanh(linen.Dense(8)(inputs))
        return linen.Dense(10)(hidden)


class NnxNetwork(nnx.Module):
    def __init__(self, *, rngs):
        self.first, self.second = nnx.Linear(64, 8, rngs=rngs), nnx.Linear(8, 10, rngs=rngs)

    def __call__(self, inputs):
        return self.second(jnp.tanh(self.first(inputs)))


def equinox_network():
    equinox = pytest.importorskip("equinox")
    return lambda key: equinox.nn.MLP(64, 10, width_size=8, depth=1, activation=jnp.tanh, key=key)


def plain_network():
    def init(key, inputs):
        first, second = (
            jax.random.normal(one, shape) / 8 for one, shape in zip(jax.random.split(key), shapes, strict=True)
        )
        return {"first": first, "b": jnp.zeros(8), "second": second, "c": jnp.zeros(10)}

    shapes = [(64, 8), (8, 10)]
    return wd.Model(
        init, lambda params, x: jnp.tanh(x @ params["first"] + params["b"]) @ params["second"] + params["c"]
    )


KINDS = {  # how to make a model, and its weights as (kernel, bias, kernel, bias)
    "linen": (LinenNetwork, lambda p: [p[f"Dense_{n}"][name] for n in (0, 1) for name in ("kernel", "bias")]),
    "nnx": (
        lambda: NnxNetwork,
        lambda p: [p[layer][name] for layer in ("first", "second") for name in ("kernel", "bias")],
    ),
    "equinox": (equinox_network, lambda p: [w for layer in p.layers for w in (layer.weight.T, layer.bias)]),
    "plain": (plain_network, lambda p: [p[name] for name in ("first", "b", "second", "c")]),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_fit_trains_each_kind_of_model_as_the_network_written_by_hand(kind):
    make, weights = KINDS[kind]
    data = wd.data.digits(num_train=100)
    inputs, targets = data.train

    def loss(first, b, second, c):
        outputs = jnp.tanh(inputs @ first + b) @ second + c
        return -jax.nn.log_softmax(outputs)[np.arange(len(targets)), targets].mean()

    model = make()
    settings = {"optimizer": wd.sgd, "decay": wd.L2(0.01), "learning_rate": 0.5, "batch_size": None}
    begun, done = (fitted(model, data, num_steps=steps, **settings).params() for steps in (1, 30))
    ours = [jnp.asarray(w) for w in weights(begun)]
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))
    for _ in range(29):
        # Plain SGD; the kernels decay, the biases do not.
        ours = [w - 0.5 * (g + 0.01 * w * (w.ndim == 2)) for w, g in zip(ours, gradients(*ours), strict=True)]
    # Thirty steps of float32, summed in other orders.
    for one, other in zip(weights(done), ours, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    assert float(loss(*ours)) < 0.8 * float(loss(*map(jnp.asarray, weights(begun))))
