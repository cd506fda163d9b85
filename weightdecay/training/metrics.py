"""Metrics of a whole split that are not means over its examples: ROC AUC, average precision, F1, R², calibration.

Each is ``metric(outputs, targets, weights=None) -> scalar`` of all outputs of a split, for
``fit_grid(metrics={"roc_auc": wd.metrics.roc_auc})`` and for scripts of your own. They are computed within the compiled
program, and handle ties and weights as scikit-learn does. `whole_split` marks a function of your own as such a metric.

Outputs are logits, as the losses take them:

- classes: outputs ``(examples, ..., classes)``, targets integers ``(examples, ...)``. Two classes are a binary problem
  whose positive class is 1; several classes are one problem for each class against the others, averaged over classes.
- binary: one logit for each target, both ``(examples,)``, targets 0 or 1.
- several labels: outputs and targets ``(examples, ..., labels)``; metrics are averaged over the labels.

Axes between the examples and the classes (or labels), such as positions, count as further examples. ``weights`` >= 0
have the shape of the examples, or that of the examples and positions; what has weight 0, or a class index below 0, does
not count.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class WholeSplit:
    """A metric of a whole split; `whole_split` makes it."""

    function: Callable[..., Any]

    def __call__(self, outputs: Any, targets: Any, weights: Any = None) -> Any:
        """Compute the metric; a function that takes no ``weights`` receives the outputs and targets alone."""
        return self.function(outputs, targets, weights) if self.takes_weights() else self.function(outputs, targets)

    def takes_weights(self) -> bool:
        """Return whether the function has an argument named ``weights``."""
        return "weights" in inspect.signature(self.function).parameters


def whole_split(function: Callable[..., Any]) -> WholeSplit:
    """Mark a function of your own as a metric of all outputs and targets of a split, for ``metrics`` of `fit_grid`.

    Args:
      function: ``function(outputs, targets, weights) -> scalar``, written in `jax.numpy`. ``weights`` are >= 0, of
        shape ``(examples,)``, or that of the targets if some of these are below 0; what does not count (examples of
        other folds, targets below 0) has weight 0. A function of outputs and targets alone is taken where all examples
        count alike.

    Returns:
      The metric.

    Raises:
      TypeError: Not a function.

    Examples:
      >>> @whole_split
      ... def largest_error(outputs, targets, weights):
      ...     return jnp.max(jnp.where(weights > 0, abs(outputs - targets), 0))
      >>> float(largest_error(jnp.array([1.0, 5.0]), jnp.array([1.5, 1.0]), jnp.array([1, 0])))
      0.5
    """
    if not callable(function):
        raise TypeError(f"function is {function!r}; give a function, metric(outputs, targets, weights) -> scalar.")
    return WholeSplit(function)


def roc_auc(outputs: Any, targets: Any, weights: Any = None) -> Any:
    """Area under the ROC curve: the probability that a positive example has a higher score than a negative one.

    Equal scores count one half. Several classes: the mean over the classes of the area of each against the others
    (``multi_class="ovr", average="macro"`` in scikit-learn), by the probabilities of the softmax; classes and labels
    that have no positive or no negative example are left out of the mean.

    Args:
      outputs: Logits; see the top of this page for shapes.
      targets: Class indices, or labels 0 and 1.
      weights: >= 0, of each example; None = all alike.

    Returns:
      In [0, 1], shape ``()``; nan if no class has both kinds of examples, or if an output is nan.

    Numerics:
      Sums in float32; relative error about 1e-6. Scores are log-odds, which have no ties where probabilities round to
      1.

    References:
      Fawcett, An Introduction to ROC Analysis, 2006. Hand & Till, A Simple Generalisation of the Area Under the ROC
      Curve for Multiple Class Classification Problems, 2001.
    """
    return _mean_over_problems(_area_under_roc, outputs, targets, weights)


def average_precision(outputs: Any, targets: Any, weights: Any = None) -> Any:
    """Average precision: ``Σ_n (R_n - R_{n-1}) P_n`` over the distinct scores, from the highest to the lowest.

    ``P_n`` and ``R_n`` are precision and recall of the examples with at least the n-th score; nothing is interpolated.
    Several classes: the mean over the classes, each against the others; classes and labels without a positive example
    are left out of the mean (scikit-learn counts them as 0).

    Args:
      outputs: Logits; see the top of this page for shapes.
      targets: Class indices, or labels 0 and 1.
      weights: >= 0, of each example; None = all alike.

    Returns:
      In [0, 1], shape ``()``; nan if there is no positive example, or if an output is nan.

    Numerics:
      As `roc_auc`.
    """
    return _mean_over_problems(_average_precision, outputs, targets, weights)


def f1(outputs: Any, targets: Any, weights: Any = None) -> Any:
    """F1 score: ``2 TP / (2 TP + FP + FN)``, the harmonic mean of precision and recall.

    A class is predicted if its logit is the largest; a label, if its logit is above 0. Two classes: the score of class
    1. Several: the mean over the classes that occur among targets or predictions; several labels: the mean over all
    labels (``average="macro"`` in scikit-learn). 0 / 0 is 0.

    Args:
      outputs: Logits; see the top of this page for shapes.
      targets: Class indices, or labels 0 and 1.
      weights: >= 0, of each example; None = all alike.

    Returns:
      In [0, 1], shape ``()``; nan if an output is nan.
    """
    rows, weights = _rows(outputs, targets), _weights_of_rows(outputs, targets, weights)
    if rows.is_classes:
        predicted = jax.nn.one_hot(rows.outputs.argmax(axis=-1), rows.outputs.shape[-1], dtype=bool)
    else:
        predicted = rows.outputs > 0
    if rows.is_classes and predicted.shape[-1] == 2:
        predicted, positive = predicted[:, 1:], rows.positive[:, 1:]
    else:
        positive = rows.positive
    true_positives = (predicted & positive).astype(weights.dtype)
    both = predicted.astype(weights.dtype) + positive
    doubled, total = (2 * weights[:, None] * true_positives).sum(axis=0), (weights[:, None] * both).sum(axis=0)
    scores = jnp.where(total > 0, doubled / jnp.where(total > 0, total, 1), 0)
    counts = total > 0 if rows.is_classes and len(scores) > 1 else jnp.ones(scores.shape, bool)
    value = jnp.where(counts, scores, 0).sum() / jnp.maximum(counts.sum(), 1)
    return _unless_nan(value, rows.outputs, weights)


def r2(outputs: Any, targets: Any, weights: Any = None) -> Any:
    """Coefficient of determination R²: ``1 - Σ w (y - output)² / Σ w (y - mean)²``.

    For targets of several values it is the mean over these (``multioutput="uniform_average"`` in scikit-learn).
    Where all targets are equal it is 1 for perfect outputs and 0 for all others, as in scikit-learn.

    Args:
      outputs: Shape ``(examples, ...)``, or ``(examples, ..., 1)``.
      targets: Real numbers, shape ``(examples, ...)``.
      weights: >= 0, shape ``(examples,)``; None = all alike.

    Returns:
      At most 1, shape ``()``; nan with fewer than two examples, or if an output is nan.

    Numerics:
      Two passes in float32: the mean is subtracted before the squares are summed.
    """
    outputs = outputs.reshape(targets.shape)
    targets = targets.reshape(len(targets), -1).astype(_precise(outputs))
    outputs = outputs.reshape(targets.shape).astype(targets.dtype)
    weights = jnp.ones(len(targets)) if weights is None else jnp.asarray(weights)
    counts = weights > 0
    column = weights.astype(targets.dtype)[:, None]
    error, first = targets - outputs, targets[jnp.argmax(counts)]
    shifted = targets - first  # so that the mean of targets far from 0 keeps its digits
    mean = (column * shifted).sum(axis=0) / column.sum()
    unexplained = jnp.where(counts[:, None], column * error**2, 0).sum(axis=0)
    total = jnp.where(counts[:, None], column * (shifted - mean) ** 2, 0).sum(axis=0)
    equal = jnp.where(unexplained == 0, 1.0, 0.0)
    scores = jnp.where(total > 0, 1 - unexplained / jnp.where(total > 0, total, 1), equal)
    return jnp.where(counts.sum() >= 2, scores.mean(), jnp.nan)


def expected_calibration_error(outputs: Any, targets: Any, weights: Any = None, num_bins: int = 15) -> Any:
    """Expected calibration error: the mean of ``|accuracy - confidence|`` over bins of confidence, by their weight.

    The confidence is the probability of the predicted class, ``max softmax(outputs)`` (of a label, ``max(p, 1 - p)``
    with ``p = sigmoid(output)``), and the bins are ``num_bins`` intervals ``(low, high]`` of equal width on [0, 1].
    Several labels: the mean over the labels.

    Args:
      outputs: Logits; see the top of this page for shapes.
      targets: Class indices, or labels 0 and 1.
      weights: >= 0, of each example; None = all alike.
      num_bins: Number of bins, >= 1; `functools.partial` sets another one for ``metrics``.

    Returns:
      In [0, 1], shape ``()``; nan if an output is nan.

    References:
      Guo et al., On Calibration of Modern Neural Networks, ICML 2017.
    """
    rows, weights = _rows(outputs, targets), _weights_of_rows(outputs, targets, weights)
    if rows.is_classes:
        confidence = jax.nn.softmax(rows.outputs, axis=-1).max(axis=-1, keepdims=True)
        predicted = jax.nn.one_hot(rows.outputs.argmax(axis=-1), rows.outputs.shape[-1], dtype=bool)
        correct = (predicted & rows.positive).any(axis=-1, keepdims=True)
    else:
        confidence = jax.nn.sigmoid(abs(rows.outputs))
        correct = (rows.outputs > 0) == rows.positive
    edges = jnp.linspace(0, 1, num_bins + 1)[1:-1].astype(confidence.dtype)
    bins = jnp.searchsorted(edges, confidence, side="left")
    in_bin = bins[:, :, None] == jnp.arange(num_bins)  # (rows, labels, bins)
    gaps = jnp.where(weights[:, None] > 0, weights[:, None] * (correct - confidence), 0)
    value = abs(jnp.where(in_bin, gaps[:, :, None], 0).sum(axis=0)).sum(axis=-1) / weights.sum()
    return _unless_nan(value.mean(), rows.outputs, weights)


_OF_SPLIT = (roc_auc, average_precision, f1, r2, expected_calibration_error)


def of_whole_split(metric: Any) -> WholeSplit | None:
    """Return a metric as one of a whole split.

    Args:
      metric: A function of this module, `functools.partial` of one, or what `whole_split` returned.

    Returns:
      The metric; None for any other function, which returns one number for each example.
    """
    if isinstance(metric, WholeSplit):
        return metric
    function = metric.func if isinstance(metric, functools.partial) else metric
    return WholeSplit(metric) if any(function is ours for ours in _OF_SPLIT) else None


@dataclass(frozen=True)
class _Rows:
    """Examples and positions as rows: outputs ``(rows, classes or labels)``, and which of them are positive."""

    outputs: Any
    positive: Any
    is_classes: bool


def _rows(outputs: Any, targets: Any) -> _Rows:
    outputs, targets = jnp.asarray(outputs), jnp.asarray(targets)
    outputs = outputs.astype(_precise(outputs))
    if outputs.ndim == targets.ndim + 1 and outputs.shape[-1] > 1:
        logits = outputs.reshape(-1, outputs.shape[-1])
        positive = targets.reshape(-1, 1) == jnp.arange(logits.shape[-1])
        return _Rows(logits, positive, is_classes=True)
    if outputs.size != targets.size:
        raise ValueError(
            f"outputs have shape {outputs.shape} and targets {targets.shape}; give logits of shape (examples, ..., "
            "classes) for class indices, or one logit for each target."
        )
    num_labels = targets.shape[-1] if targets.ndim > 1 else 1
    return _Rows(outputs.reshape(-1, num_labels), targets.reshape(-1, num_labels) > 0.5, is_classes=False)


def _weights_of_rows(outputs: Any, targets: Any, weights: Any) -> Any:
    """Weights of the rows of `_rows`, those of an example repeated for its positions."""
    is_classes = outputs.ndim == targets.ndim + 1 and outputs.shape[-1] > 1
    shape = targets.shape if is_classes or targets.ndim == 1 else targets.shape[:-1]
    weights = jnp.ones(shape) if weights is None else jnp.asarray(weights)
    weights = jnp.broadcast_to(weights.reshape(*weights.shape, *[1] * (len(shape) - weights.ndim)), shape)
    if is_classes:
        weights = jnp.where(targets >= 0, weights, 0)
    return weights.reshape(-1).astype(_precise(outputs))


def _precise(outputs: Any) -> Any:
    return jnp.promote_types(jnp.float32, outputs.dtype)


def _mean_over_problems(metric: Callable[..., Any], outputs: Any, targets: Any, weights: Any) -> Any:
    """Mean of a binary metric over the problems for which it is defined."""
    rows, weights = _rows(outputs, targets), _weights_of_rows(outputs, targets, weights)
    scores, positive = (_log_odds(rows.outputs) if rows.is_classes else rows.outputs), rows.positive
    if rows.is_classes and scores.shape[-1] == 2:
        scores, positive = scores[:, 1:], positive[:, 1:]
    values = jax.lax.map(lambda problem: metric(*problem, weights), (scores.T, positive.T))
    is_defined = ~jnp.isnan(values)
    mean = jnp.where(is_defined, values, 0).sum() / is_defined.sum()
    return _unless_nan(mean, rows.outputs, weights)


def _log_odds(logits: Any) -> Any:
    """Log-odds of each class of a softmax, ``log p - log(1 - p)``, which order examples as their probabilities do.

    Rows that differ by a constant, or by the order of the other classes, give the same bits.
    """
    logits -= logits.max(axis=-1, keepdims=True)
    if logits.shape[-1] == 2:
        return logits - logits[:, ::-1]
    in_order = jnp.sort(logits, axis=-1)
    of_others = jax.nn.logsumexp(in_order[:, :-1], axis=-1, keepdims=True)  # but for the largest
    is_largest = logits == 0
    log_probability = logits - jax.nn.logsumexp(in_order, axis=-1, keepdims=True)
    small = jnp.where(is_largest, -1.0, log_probability)  # at most log(1/2)
    return jnp.where(is_largest, -of_others, small - jnp.log1p(-jnp.exp(small)))


def _ties(scores: Any) -> tuple[Any, Any]:
    """First and last position of the group of equal values of each entry of a sorted array."""
    starts = jnp.concatenate([jnp.ones(1, bool), scores[1:] != scores[:-1]])
    ends = jnp.concatenate([starts[1:], jnp.ones(1, bool)])
    positions = jnp.arange(len(scores))
    first = jax.lax.cummax(jnp.where(starts, positions, 0))
    last = jax.lax.cummin(jnp.where(ends, positions, len(scores)), reverse=True)
    return first, last


def _area_under_roc(scores: Any, positive: Any, weights: Any) -> Any:
    order = jnp.argsort(scores)
    scores, positive, weights = scores[order], positive[order], weights[order]
    first, last = _ties(scores)
    negative_weight = jnp.where(positive, 0, weights)
    positive_weight = jnp.where(positive, weights, 0)
    up_to = jnp.cumsum(negative_weight)
    before = jnp.where(first > 0, up_to[first - 1], 0)
    pairs = positive_weight * ((before + up_to[last]) / 2)
    return pairs.sum() / (positive_weight.sum() * negative_weight.sum())  # 0 / 0 is nan


def _average_precision(scores: Any, positive: Any, weights: Any) -> Any:
    order = jnp.argsort(-scores)
    scores, positive, weights = scores[order], positive[order], weights[order]
    _, last = _ties(scores)
    positive_weight = jnp.where(positive, weights, 0)
    true, predicted = jnp.cumsum(positive_weight)[last], jnp.cumsum(weights)[last]
    precision = jnp.where(predicted > 0, true / jnp.where(predicted > 0, predicted, 1), 0)
    return (positive_weight * precision).sum() / positive_weight.sum()  # 0 / 0 is nan


def _unless_nan(value: Any, outputs: Any, weights: Any) -> Any:
    return jnp.where((jnp.isnan(outputs) & (weights > 0)[:, None]).any(), jnp.nan, value)
