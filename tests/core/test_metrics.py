"""The table of metrics: each row has its function, its label and its direction."""

import numpy as np
import pytest

from weightdecay.core import metrics
from weightdecay.core.metrics import lower_is_better
from weightdecay.training import diagnostics, losses


def test_every_row_has_its_function():
    assert sorted(losses.resolve("huber", np.zeros(1)).metrics()) == sorted(metrics.names("examples"))
    derived = losses.Loss("loss", np.mean, predicts_tokens=True).derived(0.0)
    assert tuple(derived) == metrics.names("derived")
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
        ("validation_bits_per_token", "validation loss, bits per token"),
        ("test_perplexity", "test perplexity, tokens"),
        ("rotation", "rotation of a layer, radians per step"),
        ("test", "test, its own unit"),
        ("my_number", "my number, its own unit"),
    ],
)
def test_axis_label(name, label):
    assert metrics.axis_label(name, "nats") == label


LOWER = """
    loss error rmse mse mae mape nll perplexity bits_per_token brier brier_score ece log_loss RMSE absolute_error
    weighted_loss mae_weighted rmse_median error_at_5 negative_log_likelihood neg_accuracy one_minus_f1
""".split()
HIGHER = """
    accuracy auc roc_auc average_precision f1 precision recall r2 score f1_macro top_5_accuracy accuracy_top5
    neg_mean_squared_error neg_log_loss log_likelihood AUC balanced_accuracy
""".split()
UNKNOWN = ["my_number", "loss_free_share", "weight_norm", "zero_fraction", "penalty", "in_accuracy_we_trust", "top_two"]


@pytest.mark.parametrize("prefix", ["", "train_", "validation_", "test_"])
@pytest.mark.parametrize("name", [*LOWER, *HIGHER])
def test_well_known_names_have_a_direction(name, prefix):
    assert lower_is_better(prefix + name) is (name in LOWER)


@pytest.mark.parametrize("name", UNKNOWN)
def test_other_names_have_the_direction_that_the_user_states(name):
    assert metrics.direction(f"validation_{name}") is None
    with pytest.raises(ValueError, match=rf"metric 'validation_{name}' .*give lower_is_better={{'{name}': True}} or F"):
        lower_is_better(f"validation_{name}")
    for lower in (True, False):
        assert lower_is_better(f"validation_{name}", {name: lower}) is lower
        assert lower_is_better(f"validation_{name}", {f"validation_{name}": lower}) is lower


def test_a_statement_has_precedence():
    assert not lower_is_better("validation_loss", {"loss": False})
    assert lower_is_better("validation_loss", {"accuracy": False})
