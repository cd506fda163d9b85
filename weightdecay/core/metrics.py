"""The table of metrics: what is recorded of every member, its label and unit, and which direction is better.

A new metric is one row of `TABLE` and one function of the same name: in `weightdecay.training.losses` for a metric of
examples, in `weightdecay.training.diagnostics` for a metric of weights or layers. The dataset, the table of candidates,
the plots and the report derive from the row.
"""

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from weightdecay.core.checks import ArgumentError

Kind: TypeAlias = Literal["examples", "derived", "weights", "layers", "table"]
"""What a metric is computed from. ``"examples"``: averaged over the examples of each split, and recorded as
``train_<name>`` and ``validation_<name>``. ``"derived"``: a function of the mean loss of a split, recorded like
these where the targets are classes at several positions. ``"weights"``: one number for all weights that decay.
``"layers"``: one number for each array of weights that decays. ``"table"``: from other columns of the table of
candidates."""

SPLITS = {"validation": "validation", "train": "training", "test": "test"}
"""The adjective of each split in labels, by the prefix of its metrics."""

LOSS_UNIT = "unit of the loss"
"""Unit of metrics that are measured in the unit of the data loss, which differs between runs."""


SOWN_LOSS = "sown_loss"
"""Metric of networks that sow losses: their sum, which training adds to the data loss. Recorded as a metric of the
user's is, for such networks alone."""


class Metric(NamedTuple):
    """One row of the table."""

    name: str
    label: str  # a noun phrase; the labels of metrics of examples begin with their split
    unit: str | None  # None = the label contains it
    better: Literal["lower", "higher"] | None  # None = neither direction is better in itself
    kind: Kind


TABLE: tuple[Metric, ...] = (
    Metric("accuracy", "accuracy", "fraction of examples", "higher", "examples"),
    Metric("loss", "loss", LOSS_UNIT, "lower", "examples"),
    Metric("perplexity", "perplexity", "tokens", "lower", "derived"),
    Metric("bits_per_token", "loss", "bits per token", "lower", "derived"),
    Metric("penalty", "penalty", LOSS_UNIT, None, "weights"),
    Metric("weight_norm", "norm of the weights that decay, in units of weight", None, None, "weights"),
    Metric("zero_fraction", "exact zeros, fraction of the weights that decay", None, None, "weights"),
    Metric("near_zero_fraction", "values below 0.001, fraction of the weights that decay", None, None, "weights"),
    Metric("layer_weight_norm", "norm of a layer's weights", "weight", None, "layers"),
    Metric("layer_zero_fraction", "exact zeros, fraction of a layer's weights", None, None, "layers"),
    Metric("rotation", "rotation of a layer", "radians per step", None, "layers"),
    Metric("effective_learning_rate", "effective learning rate of a layer", "1 / step", None, "layers"),
    Metric("generalization_gap", "generalization gap", LOSS_UNIT, "lower", "table"),
)
"""All metrics that the library itself computes."""


def names(kind: Kind) -> tuple[str, ...]:
    """Names of the metrics of one kind, in the order of the table.

    Examples:
      >>> names("examples")
      ('accuracy', 'loss')
    """
    return tuple(metric.name for metric in TABLE if metric.kind == kind)


def derived_of(split: str, columns: Container[Any]) -> list[str]:
    """Names of the metrics of a split that derive from its loss, where they are recorded.

    Args:
      split: A key of `SPLITS`.
      columns: Names that are recorded.

    Examples:
      >>> derived_of("validation", ["validation_loss", "validation_perplexity"])
      ['validation_perplexity']
    """
    return [name for name in (f"{split}_{derived}" for derived in names("derived")) if name in columns]


AVERAGED = "ema_"
"""Prefix of the metrics of averaged weights, after the split: ``validation_ema_loss``."""


def recorded(own: Iterable[str] = (), *, derived: bool = False, averages: bool = False) -> tuple[str, ...]:
    """Names of the numbers that an evaluation records of a member; ``names("layers")`` are recorded in addition.

    Args:
      own: Names of the user's metrics.
      derived: Whether the metrics that derive from the loss are recorded.
      averages: Whether averaged weights are evaluated in addition.

    Returns:
      Metrics of the validation examples, of the training examples, and of the weights; then the user's metrics, and
      those that derive from the loss; then those of the averaged weights.

    Examples:
      >>> recorded(["rank"])[:5]
      ('validation_accuracy', 'validation_loss', 'train_accuracy', 'train_loss', 'penalty')
      >>> recorded(["rank"])[-2:]
      ('train_rank', 'validation_rank')
    """
    ours = [f"{split}_{name}" for split in ("validation", "train") for name in names("examples")]
    others = [*own, *(names("derived") if derived else ())]
    users = [f"{split}_{name}" for name in others for split in ("train", "validation")]
    averaged = [f"{split}_{AVERAGED}{name}" for split, name in map(split_of, (*ours, *users))] if averages else []
    return *ours, *names("weights"), *users, *averaged


def axis_label(metric: str, loss_unit: str = LOSS_UNIT) -> str:
    """Label, with its unit, of an axis along which a metric is drawn.

    Args:
      metric: Name of a variable of the dataset or of a column of the table of candidates.
      loss_unit: Unit of the data loss.

    Returns:
      The label.

    Examples:
      >>> axis_label("validation_loss", "nats"), axis_label("train_absolute_error")
      ('validation loss, nats', 'training absolute error, its own unit')
      >>> axis_label("validation_ema_loss", "nats")
      'validation loss of the averaged weights, nats'
    """
    split, name = split_of(metric)
    averaged = " of the averaged weights" if is_of_average(metric) else ""
    name = name.removeprefix(AVERAGED) if averaged else name
    row = next(
        (row for row in TABLE if row.name == name and (row.kind in ("examples", "derived")) == bool(split)), None
    )
    if row is None:
        row = Metric(name, name.replace("_", " "), "its own unit", None, "examples")
    label = f"{SPLITS[split]} {row.label}{averaged}" if split else row.label
    return label if row.unit is None else f"{label}, {loss_unit if row.unit == LOSS_UNIT else row.unit}"


def split_of(metric: str) -> tuple[str, str]:
    """Divide the recorded name of a metric into its split and its own name.

    Examples:
      >>> split_of("validation_loss"), split_of("weight_norm")
      (('validation', 'loss'), ('', 'weight_norm'))
    """
    split, _, name = metric.partition("_")
    return (split, name) if split in SPLITS and name else ("", metric)


def is_of_average(metric: str) -> bool:
    """Whether a metric is one of the averaged weights.

    Examples:
      >>> is_of_average("validation_ema_loss"), is_of_average("validation_loss")
      (True, False)
    """
    split, name = split_of(metric)
    return bool(split) and name.startswith(AVERAGED)


_LOWER = """
    loss error mse rmse mae mape smape msle rmsle mean_squared_error mean_absolute_error error_rate errors nll
    log_loss logloss cross_entropy crossentropy negative_log_likelihood ppl bits_per_byte
    bits_per_character bits_per_dim bpt bpb bpc bpd brier brier_score ece mce calibration_error hinge deviance kl
    kl_divergence divergence distance wer cer fid crps pinball cost regret risk residual misclassification
    misclassification_rate false_positive_rate false_negative_rate fpr fnr generalization_gap
""".split()
_HIGHER = """
    accuracy acc auc auroc roc_auc auprc pr_auc average_precision f1 fbeta f_score precision recall sensitivity
    specificity r2 r_squared explained_variance correlation pearson spearman kendall kappa mcc iou dice jaccard bleu
    rouge ndcg mrr psnr ssim score likelihood log_likelihood elbo reward return success_rate hit_rate true_positive_rate
    true_negative_rate tpr tnr
""".split()
_QUALIFIERS = r"(?:macro|micro|weighted|samples|mean|median|avg|average|(?:top|at)_?\d+|\d+)"
_OPPOSITES = ("neg_", "negative_", "minus_", "one_minus_")


def direction(metric: str) -> Literal["lower", "higher"] | None:
    """Which values of a metric are better, by its name.

    The name of a metric of the library, or a well-known name such as ``rmse`` or ``roc_auc``, may have a split before
    it and other words before it (``validation_weighted_f1``), or a kind of average after it (``f1_macro``). A prefix
    ``neg_`` or ``negative_`` reverses the direction.

    Args:
      metric: Such as ``"validation_loss"``.

    Returns:
      The direction; None for names that are not known and for metrics without a direction.

    Examples:
      >>> [direction(name) for name in ("validation_rmse", "test_roc_auc", "neg_mean_squared_error", "my_number")]
      ['lower', 'higher', 'higher', None]
    """
    _, name = split_of(metric.lower())
    known: dict[str, Literal["lower", "higher"] | None] = dict.fromkeys(_LOWER, "lower")
    known |= dict.fromkeys(_HIGHER, "higher")
    known |= {row.name: row.better for row in TABLE}
    if name in known:
        return known[name]
    for prefix in _OPPOSITES:
        if name.startswith(prefix) and (reversed_direction := direction(name.removeprefix(prefix))):
            return "higher" if reversed_direction == "lower" else "lower"
    name = re.sub(rf"_{_QUALIFIERS}$", "", name)
    words = name.split("_")
    return next((known[end] for end in ("_".join(words[at:]) for at in range(len(words))) if end in known), None)


def lower_is_better(metric: str, stated: Mapping[str, bool] | None = None) -> bool:
    """Whether lower values of a metric are better.

    Args:
      metric: Such as ``"validation_loss"``.
      stated: What the user stated, by the name of the metric, with or without its split; it has precedence.

    Returns:
      What the user stated, or else what `direction` finds.

    Raises:
      ArgumentError: Neither is known.

    Examples:
      >>> lower_is_better("validation_loss"), lower_is_better("validation_number", {"number": False})
      (True, False)
    """
    for name in (metric, split_of(metric)[1], split_of(metric)[1].removeprefix(AVERAGED)):
        if stated and name in stated:
            return bool(stated[name])
    found = direction(metric)
    if found is None:
        raise ArgumentError(
            "lower_is_better",
            f"metric {metric!r} has a name from which it does not follow whether lower or higher values are better; "
            f"give lower_is_better={{{split_of(metric)[1]!r}: True}} or False.",
        )
    return found == "lower"
