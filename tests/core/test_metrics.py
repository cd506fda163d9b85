"""The table of metrics: each row has its function, its label and its direction."""

import numpy as np
import pytest

from weightdecay.core import metrics
from weightdecay.core.metrics import lower_is_better
from weightdecay.training import diagnostics, losses


def test_every_row_has_its_function():
    assert sorted(losses.resolve("huber", np.zeros(1)).metrics()) == sorted(metrics.names("examples"))
    assert {"penalty", *diagnostics.OF_WEIGHTS} == set(metrics.names("weights"))
    assert tuple(diagnostics.OF_LAYERS) == metrics.names("layers")


def test_names_are_unique_and_recorded_once():
    names = [row.name for row in metrics.TABLE]
    assert len(set(names)) == len(names)
    recorded = metrics.recorded(["rank"])
    assert len(set(recorded)) == len(recorded) == 2 * 3 + len(metrics.names("weights"))


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("validation_loss", "validation loss, nats"),
        ("test_accuracy", "test accuracy, fraction of examples"),
        ("penalty", "penalty, nats"),
        ("train_penalty", "training penalty, its own unit"),
        ("generalization_gap", "generalization gap, nats"),
        ("rotation", "rotation of a layer, radians a step"),
        ("test", "test, its own unit"),
        ("my_number", "my number, its own unit"),
    ],
)
def test_axis_label(name, label):
    assert metrics.axis_label(name, "nats") == label


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("validation_loss", True),
        ("validation_absolute_error", True),
        ("train_log_loss", True),
        ("validation_accuracy", False),
        ("validation_loss_free_share", False),
        ("validation_auc", False),
    ],
)
def test_lower_is_better_for_losses_and_errors(name, lower):
    assert lower_is_better(name) is lower
