"""Data losses and metrics of examples: functions that return one number for each example.

A new loss is a function here and its name in `_BY_NAME`; `Loss` adds what training and evaluation need with it.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from weightdecay.core import metrics as core_metrics
from weightdecay.core import text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import LossFn
from weightdecay.data import trees
from weightdecay.training.metrics import WholeSplit, of_whole_split


def softmax_cross_entropy(outputs: Any, targets: Any) -> Any:
    """Cross-entropy of the softmax of the outputs, in nats.

    Args:
      outputs: Logits, shape ``(examples, ..., classes)``.
      targets: Class indices, integers, shape ``(examples, ...)``; those below 0 do not count, see `Loss.counts`.

    Returns:
      Losses, shape ``(examples, ...)``.
    """
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)


def sigmoid_cross_entropy(outputs: Any, targets: Any) -> Any:
    """Cross-entropy of independent sigmoids, in nats, averaged over the outputs of an example.

    Args:
      outputs: Logits, shape ``(examples, ...)``.
      targets: In [0, 1], same shape.

    Returns:
      Losses, shape ``(examples,)``.
    """
    return _mean_over_outputs(optax.sigmoid_binary_cross_entropy(outputs, targets.astype(outputs.dtype)))


def squared_error(outputs: Any, targets: Any) -> Any:
    """``(output - target)²``, without a factor 1/2, averaged over the outputs of an example.

    Args:
      outputs: Shape ``(examples, ...)``.
      targets: Same shape.

    Returns:
      Losses, shape ``(examples,)``, unit target².
    """
    return _mean_over_outputs(optax.squared_error(outputs, targets.astype(outputs.dtype)))


def huber(outputs: Any, targets: Any) -> Any:
    """``error²/2`` up to ``|error| = 1`` and ``|error| - 1/2`` beyond, averaged over the outputs of an example.

    Here ``error = output - target``. Small errors cost half as much as in `squared_error`.

    Args:
      outputs: Shape ``(examples, ...)``.
      targets: Same shape.

    Returns:
      Losses, shape ``(examples,)``; the threshold 1 is in the unit of the targets.

    References:
      Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35, 1964.
    """
    return _mean_over_outputs(optax.huber_loss(outputs, targets.astype(outputs.dtype)))


def _mean_over_outputs(losses: Any) -> Any:
    return losses.reshape(losses.shape[0], -1).mean(axis=1)


def spread(weights: Any, values: Any) -> Any:
    """Spread one number an example over the positions of its losses.

    Args:
      weights: Shape ``(examples,)``.
      values: Losses, shape ``(examples, ...)``.

    Returns:
      The numbers, with axes of size 1 after the first one.
    """
    return weights.reshape(-1, *[1] * (values.ndim - 1))


def has_one_per_example(values: Any, outputs: Any, targets: Any) -> bool:
    """Whether a loss or a metric has one number for each example, or for each position of its outputs or targets.

    Args:
      values: What it returned, or its shape.
      outputs: What it received: arrays or shapes.
      targets: What it received.
    """
    arrays = jax.tree.leaves((outputs, targets))
    shape, positions = getattr(values, "shape", ()), [array.shape[1:] for array in arrays]
    return shape[:1] == (trees.num_rows(targets),) and any(
        shape[1:] == of_array[: len(shape) - 1] for of_array in positions
    )


class Loss(NamedTuple):
    """A data loss, with the accuracy and the label smoothing that belong to it."""

    name: str
    per_example: LossFn
    ignores: bool = False
    """Whether there are targets below 0, which do not count."""
    predicts_tokens: bool = False
    """Whether a target is a class at each of several positions, as in language models; see `derived`."""

    def counts(self, targets: Any) -> Any:
        """Return which losses count, bool, shape ``(examples, ...)`` as the targets; None = all of them."""
        return targets >= 0 if self.ignores else None

    def num_positions(self, targets: Any) -> int:
        """Return the number of class indices of an example; 1 for other losses."""
        return math.prod(targets.shape[1:]) if self._is_one_of(softmax_cross_entropy) else 1

    def mean(self, values: Any, targets: Any) -> Any:
        """Mean of the losses of a batch over those that count, shape ``()``; 0 if none counts.

        Args:
          values: Losses, shape ``(examples, ...)``.
          targets: Their targets.
        """
        counts = self.counts(targets)
        if counts is None:
            return values.mean()
        return jnp.where(counts, values, 0).sum() / jnp.maximum(counts.sum(), 1)

    @property
    def smooths(self) -> bool:
        """Whether label smoothing is defined for it."""
        return self._is_one_of(softmax_cross_entropy, sigmoid_cross_entropy)

    def smoothed(self, outputs: Any, targets: Any, strength: Any) -> Any:
        """Losses with smoothed labels.

        With ``classes`` classes, the probability of the label is ``1 - strength + strength / classes``, and that of
        every other class ``strength / classes``. A target of a sigmoid becomes
        ``(1 - strength) target + strength / 2``. Strength 0 gives the plain losses, bit for bit.

        Args:
          outputs: Logits, aligned with the targets.
          targets: As for the loss.
          strength: In [0, 1), shape ``()``; may be traced.

        Returns:
          Losses, shape ``(examples,)``.

        Raises:
          ValueError: A loss without labels.

        References:
          Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016.
        """
        if not self.smooths:
            raise ArgumentError(
                "loss",
                f"loss is {self.name!r}, which has no labels to smooth; give softmax_cross_entropy or "
                "sigmoid_cross_entropy.",
            )
        strength = jnp.asarray(strength, outputs.dtype)
        if self._is_one_of(sigmoid_cross_entropy):
            return self.per_example(outputs, (1 - strength) * targets.astype(outputs.dtype) + strength / 2)
        of_label = jnp.take_along_axis(outputs, targets[..., None], axis=-1)[..., 0]
        return self.per_example(outputs, targets) + strength * (of_label - outputs.mean(axis=-1))

    def align(self, outputs: Any, targets: Any) -> Any:
        """Drop a last dimension of 1 from outputs of shape ``(examples, 1)`` if the targets have ``(examples,)``.

        Args:
          outputs: Of the model; a loss of the user may take a tree of arrays, which is returned unchanged.
          targets: Shape ``(examples, ...)``.

        Returns:
          The outputs, in the targets' shape where this is the only difference.

        Raises:
          TypeError: Outputs that are not one array of floats.
          ValueError: Outputs without one row for each example.
        """
        if not self._is_one_of(*_BY_NAME.values()) and not (hasattr(outputs, "ndim") and hasattr(targets, "ndim")):
            return outputs
        if not hasattr(outputs, "ndim"):
            raise ArgumentTypeError(
                "model",
                f"model returns outputs of type {type(outputs).__name__}, and loss {self.name!r} takes one array with "
                "one row for each example; return such an array, or give a loss of your own that takes these outputs.",
            )
        if outputs.ndim == 0 or outputs.shape[0] != targets.shape[0]:
            raise ArgumentError(
                "model",
                f"model returns outputs of shape {outputs.shape} for {targets.shape[0]} examples; return one row for "
                "each example.",
            )
        if self._is_one_of(*_BY_NAME.values()) and not jnp.issubdtype(outputs.dtype, jnp.floating):
            raise ArgumentTypeError("model", f"model returns outputs of dtype {outputs.dtype}; return floats.")
        if self._is_one_of(*_ELEMENTWISE) and outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
            return outputs[..., 0]
        return outputs

    def accuracy(self, outputs: Any, targets: Any) -> Any:
        """Fraction of correct predictions, shape ``(examples, ...)`` as the loss; nan if the loss has no accuracy."""
        if self._is_one_of(softmax_cross_entropy):
            return (outputs.argmax(axis=-1) == targets).astype(jnp.float32)
        if self._is_one_of(sigmoid_cross_entropy):
            return _mean_over_outputs(((outputs > 0) == (targets > 0.5)).astype(jnp.float32))
        return jnp.full(jax.tree.leaves(outputs)[0].shape[:1], jnp.nan, jnp.float32)

    def metrics(self) -> dict[str, LossFn]:
        """Return the metrics of examples by their names in `weightdecay.core.metrics`."""
        return {"loss": self.per_example, "accuracy": self.accuracy}

    def derived(self, loss: Any) -> dict[str, Any]:
        """Metrics that derive from the mean loss of a split, where a target is a class at each of several positions.

        ``perplexity = exp(loss)`` and ``bits_per_token = loss / ln(2)``; none for other targets.

        Args:
          loss: Mean loss, nats, shape ``()``.

        Returns:
          Metrics by their names in `weightdecay.core.metrics`. A perplexity above the largest float is infinite.
        """
        return {"perplexity": jnp.exp(loss), "bits_per_token": loss / math.log(2)} if self.predicts_tokens else {}

    def _is_one_of(self, *losses: LossFn) -> bool:
        return any(self.per_example is loss for loss in losses)


_ELEMENTWISE = (sigmoid_cross_entropy, squared_error, huber)
_BY_NAME = {fn.__name__: fn for fn in (softmax_cross_entropy, *_ELEMENTWISE)}


def resolve(
    loss: str | LossFn | None, targets: Any, output_shape: Callable[[], tuple[int, ...] | None] = lambda: None
) -> Loss:
    """Find a loss by its name, take a function of the user, or choose the default for the targets.

    Args:
      loss: A name, ``loss_fn(outputs, targets) -> losses`` of shape ``(examples, ...)``, or None: softmax cross-entropy
        for integers, one for each row of outputs (``targets.shape == outputs.shape[:-1]``), sigmoid cross-entropy for
        other integers that are all 0 or 1, squared error for all others.
      targets: Training targets, shape ``(examples, ...)``.
      output_shape: Returns the shape of the outputs for one example, None = unknown; called where it decides.

    Returns:
      The loss.

    Raises:
      TypeError: ``loss`` is not a name or a function.
      ValueError: An unknown name.
    """
    if loss is None and hasattr(targets, "dtype"):
        loss = _default(targets, output_shape)
    if callable(loss):
        return Loss(getattr(loss, "__name__", "loss_fn"), loss)
    if not hasattr(targets, "dtype"):
        raise ArgumentError(
            "loss",
            f"loss is {loss!r}, and data has targets that are several arrays; give a function of your own, "
            "loss_fn(outputs, targets) -> losses.",
        )
    names = ", ".join(_BY_NAME)
    if not isinstance(loss, str):
        raise ArgumentTypeError(
            "loss", f"loss is {loss!r}; give one of {names}, or loss_fn(outputs, targets) -> losses."
        )
    if loss not in _BY_NAME:
        raise ArgumentError(
            "loss",
            f"loss is {loss!r}; give one of {names}, or loss_fn(outputs, targets) -> losses."
            f"{text.suggestion(loss, _BY_NAME)}",
        )
    return Loss(loss, _BY_NAME[loss])


def _default(targets: Any, output_shape: Callable[[], tuple[int, ...] | None]) -> str:
    if not np.issubdtype(targets.dtype, np.integer):
        return "squared_error"
    if targets.ndim == 1:
        return "softmax_cross_entropy"
    shape = output_shape()
    if shape is not None and shape[1:-1] == targets.shape[1:]:
        return "softmax_cross_entropy"
    return "sigmoid_cross_entropy" if np.isin(targets, (0, 1)).all() else "squared_error"


def check_targets(loss: Loss, targets: Any, *, argument: str) -> None:
    """Check that targets fit the loss.

    Args:
      loss: The loss.
      targets: Shape ``(examples, ...)``.
      argument: Name of the targets in messages.

    Raises:
      ValueError: Wrong type, shape or range.
    """
    if not hasattr(targets, "dtype"):
        return
    description = f"{argument} has dtype {targets.dtype} and shape {targets.shape}"
    if loss._is_one_of(softmax_cross_entropy):
        if not np.issubdtype(targets.dtype, np.integer):
            raise ArgumentError(
                "loss",
                f"{description}, but loss='softmax_cross_entropy' needs class indices: integers of shape (examples,), "
                "or (examples, positions) for outputs of shape (examples, positions, classes). Convert the targets to "
                "class indices, or give loss='squared_error' for real targets.",
            )
        if targets.size and targets.max() < 0:
            raise ArgumentError(
                "loss",
                f"{argument} are all below 0, so that none of them counts; give at least one class index from 0.",
            )
    if loss._is_one_of(sigmoid_cross_entropy) and targets.size and (targets.min() < 0 or targets.max() > 1):
        raise ArgumentError(
            "loss",
            f"{description} and values from {targets.min()} to {targets.max()}, but loss='sigmoid_cross_entropy' needs "
            "targets in [0, 1]. Give loss='softmax_cross_entropy' for class indices.",
        )


def num_outputs(loss: Loss, targets: Sequence[Any]) -> int:
    """Number of outputs that the targets require: the number of classes, or of values in one target.

    Args:
      loss: The loss.
      targets: Targets of each split, shape ``(examples, ...)``.

    Returns:
      Outputs for each example, or for each position of one.
    """
    if loss._is_one_of(softmax_cross_entropy):
        return max(int(split.max()) for split in targets) + 1
    return sum(int(np.prod(array.shape[1:], dtype=int)) for array in jax.tree.leaves(targets[0]))


def check_outputs(loss: Loss, outputs: Any, targets: Sequence[Any]) -> None:
    """Check that the outputs of a model fit the targets.

    Args:
      loss: The loss.
      outputs: Shape and dtype of a batch of outputs, aligned with the targets.
      targets: Targets of each split, shape ``(examples, ...)``.

    Raises:
      ValueError: Fewer outputs than classes, or another shape than the targets.
    """
    if loss._is_one_of(softmax_cross_entropy):
        classes = num_outputs(loss, targets)
        positions = targets[0].shape[1:]
        if outputs.ndim < 2 or outputs.shape[1:-1] != positions or outputs.shape[-1] < classes:
            shape = ", ".join(map(str, ("examples", *positions, classes)))
            raise ArgumentError(
                "model",
                f"model returns outputs of shape (examples, {', '.join(map(str, outputs.shape[1:]))}), but data has "
                f"{classes} classes (targets 0 to {classes - 1}){' at each position' if positions else ''}; give the "
                f"model at least {classes} outputs{f', shape ({shape})' if positions else ''}, or leave num_outputs "
                "unset where the model takes it from the data.",
            )
    elif loss._is_one_of(*_ELEMENTWISE) and outputs.shape[1:] != targets[0].shape[1:]:
        raise ArgumentError(
            "model",
            f"model returns outputs of shape {('examples', *outputs.shape[1:])}, but the targets have shape "
            f"{('examples', *targets[0].shape[1:])}; give the model as many outputs as a target has values.",
        )


class UserMetric(NamedTuple):
    """A metric of the user: its mean over each split is recorded, or one number computed from the whole split."""

    name: str
    per_example: LossFn
    lower_is_better: bool
    of_split: WholeSplit | None = None
    """The metric, if it is one of a whole split."""


def resolve_metrics(
    metrics: Mapping[str, LossFn] | None,
    lower_is_better: Mapping[str, bool] | None = None,
    *,
    derived: bool = False,
) -> tuple[UserMetric, ...]:
    """Check the metrics of the user, and determine which direction of each is better.

    Args:
      metrics: By name, ``metric(outputs, targets) -> values`` of shape ``(examples,)``, or metrics of a whole split,
        see `weightdecay.training.metrics`; None = no metrics.
      lower_is_better: Whether lower values are better, by the name of a metric; may lack metrics with a well-known
        name, see `weightdecay.core.metrics.direction`.
      derived: Whether the library records the metrics that derive from the loss.

    Returns:
      The metrics, in the order given.

    Raises:
      TypeError: Not a mapping of strings to functions.
      ValueError: A name that is not an identifier, or that the library uses itself; a metric whose direction is not
        known, or a direction of a metric that does not exist.
    """
    stated = _checked_directions(lower_is_better, () if metrics is None else metrics)
    if metrics is None:
        return ()
    if not isinstance(metrics, Mapping):
        raise ArgumentTypeError(
            "metrics", f"metrics is {metrics!r}; give functions by name, as {{'absolute_error': function}}."
        )
    reserved = (*core_metrics.names("examples"), *core_metrics.recorded(derived=derived), core_metrics.SOWN_LOSS)
    reserved += core_metrics.names("derived") if derived else ()
    for name, metric in metrics.items():
        if not isinstance(name, str):
            raise ArgumentTypeError(
                "metrics", f"metrics has the name {name!r}, of type {type(name).__name__}; give a string."
            )
        if not name.isidentifier():
            raise ArgumentError(
                "metrics",
                f"metrics has the name {name!r}; give letters, digits and underscores, beginning with a letter.",
            )
        if name in reserved or name.startswith(core_metrics.AVERAGED):
            raise ArgumentError(
                "metrics", f"metrics has the name {name!r}, which is reserved for a metric of the library; rename it."
            )
        if not callable(metric):
            raise ArgumentTypeError(
                "metrics", f"metrics[{name!r}] is {metric!r}; give a function, metric(outputs, targets) -> values."
            )
    return tuple(
        UserMetric(name, metric, core_metrics.lower_is_better(name, stated), of_whole_split(metric))
        for name, metric in metrics.items()
    )


def _checked_directions(lower_is_better: Any, names: Collection[str]) -> Mapping[str, bool]:
    allowed = "give True or False by the name of each metric, as {'my_number': True}"
    if lower_is_better is None:
        return {}
    if not isinstance(lower_is_better, Mapping) or not all(
        isinstance(value, bool | np.bool_) for value in lower_is_better.values()
    ):
        raise ArgumentTypeError("lower_is_better", f"lower_is_better is {lower_is_better!r}; {allowed}.")
    unknown = [name for name in lower_is_better if name not in names]
    if unknown:
        raise ArgumentError(
            "lower_is_better",
            f"lower_is_better contains {unknown[0]!r}, which is not the name of a metric in metrics "
            f"({', '.join(names) or 'there are none'}); {allowed}.",
        )
    return lower_is_better


def check_metric_shape(metric: UserMetric, outputs: Any, targets: Any) -> None:
    """Check, by shapes alone, that a metric returns one number for each example, or for the whole split.

    Args:
      metric: The metric.
      outputs: Outputs aligned with the targets, or their shape and dtype.
      targets: Targets, or their shape and dtype.

    Raises:
      TypeError: It cannot be traced, or does not return an array.
      ValueError: Another shape than ``(examples,)``.
    """
    argument = f"metrics[{metric.name!r}]"
    arguments = outputs, targets
    if metric.of_split is not None:
        arguments = *arguments, jax.ShapeDtypeStruct((trees.num_rows(targets),), jnp.float32)
    try:
        values = jax.eval_shape(metric.of_split or metric.per_example, *arguments)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise ArgumentTypeError(
            "metrics", f"{argument} needs the values of its arguments, but it is compiled; write it in jax.numpy."
        ) from error
    if not hasattr(values, "shape"):
        raise ArgumentTypeError("metrics", f"{argument} returns a {type(values).__name__}; return one array.")
    if metric.of_split is not None:
        if values.shape != ():
            raise ArgumentError(
                "metrics",
                f"{argument} is a metric of the whole split and returns an array of shape {values.shape}; return one "
                "number, shape ().",
            )
        return
    if not has_one_per_example(values, outputs, targets):
        num_examples = trees.num_rows(targets)
        raise ArgumentError(
            "metrics",
            f"{argument} returns an array of shape {values.shape} for {num_examples} examples; return one number "
            f"for each example, shape ({num_examples},), or for each position of it, not their mean. For one number "
            "that is computed from the whole split, give wd.metrics.whole_split(function).",
        )
