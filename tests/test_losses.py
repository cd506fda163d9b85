"""Data losses against scikit-learn and NumPy."""

import numpy as np
import pytest
from sklearn import metrics

from weightdecay import losses

RANDOM = np.random.default_rng(0)


def test_softmax_cross_entropy_equals_scikit_learn():
    outputs, targets = RANDOM.normal(size=(50, 4)).astype(np.float32), RANDOM.integers(0, 4, 50)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    ours = losses.softmax_cross_entropy(outputs, targets)
    assert ours.shape == (50,)
    np.testing.assert_allclose(ours.mean(), metrics.log_loss(targets, shares, labels=range(4)), rtol=1e-5)  # float32
    loss = losses.resolve(None, targets)
    expected = metrics.accuracy_score(targets, outputs.argmax(axis=1))
    np.testing.assert_allclose(loss.correct(outputs, targets).mean(), expected, rtol=1e-6)


def test_sigmoid_cross_entropy_equals_scikit_learn():
    outputs, targets = RANDOM.normal(size=50).astype(np.float32), RANDOM.integers(0, 2, 50)
    ours = losses.sigmoid_cross_entropy(outputs, targets)
    np.testing.assert_allclose(ours.mean(), metrics.log_loss(targets, 1 / (1 + np.exp(-outputs))), rtol=1e-5)
    correct = losses.resolve("sigmoid_cross_entropy", targets).correct(outputs, targets)
    np.testing.assert_allclose(correct.mean(), metrics.accuracy_score(targets, outputs > 0), rtol=1e-6)


def test_squared_error_equals_scikit_learn_and_never_broadcasts():
    outputs, targets = RANDOM.normal(size=(2, 30, 3)).astype(np.float32)
    ours = losses.squared_error(outputs, targets)
    assert ours.shape == (30,)
    np.testing.assert_allclose(ours.mean(), metrics.mean_squared_error(targets, outputs), rtol=1e-5)
    loss = losses.resolve(None, targets[:, 0])
    aligned = loss.align(outputs[:, :1], targets[:, 0])
    assert aligned.shape == (30,)
    np.testing.assert_allclose(
        loss.per_example(aligned, targets[:, 0]), (outputs[:, 0] - targets[:, 0]) ** 2, rtol=1e-5
    )


@pytest.mark.parametrize(
    ("targets", "name"),
    [
        (np.zeros(3, np.int32), "softmax_cross_entropy"),
        (np.zeros(3), "squared_error"),
        (np.zeros((3, 2), int), "squared_error"),
    ],
)
def test_resolve_takes_the_default_from_the_targets(targets, name):
    assert losses.resolve(None, targets).name == name
