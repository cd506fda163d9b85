"""Data losses: one loss an example, with the accuracy and the targets that go with it; metrics of the user's own."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from weightdecay.core.types import LossFn


def softmax_cross_entropy(outputs: Any, targets: Any) -> Any:
    """Cross-entropy of the softmax of the outputs, in nats.

    Args:
      outputs: Logits, shape ``(examples, classes)``.
      targets: Class indices, integers, shape ``(examples,)``.

    Returns:
      Losses, shape ``(examples,)``.
    """
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)


def sigmoid_cross_entropy(outputs: Any, targets: Any) -> Any:
    """Cross-entropy of independent sigmoids, in nats, averaged over an example's outputs.

    Args:
      outputs: Logits, shape ``(examples, ...)``.
      targets: In [0, 1], same shape.

    Returns:
      Losses, shape ``(examples,)``.
    """
    return _mean_over_outputs(optax.sigmoid_binary_cross_entropy(outputs, targets.astype(outputs.dtype)))


def squared_error(outputs: Any, targets: Any) -> Any:
    """``(output - target)²``, without a factor 1/2, averaged over an example's outputs.

    Args:
      outputs: Shape ``(examples, ...)``.
      targets: Same shape.

    Returns:
      Losses, shape ``(examples,)``, unit target².
    """
    return _mean_over_outputs(optax.squared_error(outputs, targets.astype(outputs.dtype)))


def huber(outputs: Any, targets: Any) -> Any:
    """``error²/2`` up to ``|error| = 1`` and ``|error| - 1/2`` beyond, averaged over an example's outputs.

    Of ``error = output - target``. Small errors cost half of what they cost in `squared_error`.

    Args:
      outputs: Shape ``(examples, ...)``.
      targets: Same shape.

    Returns:
      Losses, shape ``(examples,)``; the 1 is in the unit of the targets.

    References:
      Huber, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics 35, 1964.
    """
    return _mean_over_outputs(optax.huber_loss(outputs, targets.astype(outputs.dtype)))


def _mean_over_outputs(losses: Any) -> Any:
    return losses.reshape(losses.shape[0], -1).mean(axis=1)


class Loss(NamedTuple):
    """A data loss with all that training needs to know of it."""

    name: str
    per_example: LossFn

    @property
    def smooths(self) -> bool:
        """Whether it has labels to smooth."""
        return self._is(softmax_cross_entropy, sigmoid_cross_entropy)

    def smoothed(self, outputs: Any, targets: Any, strength: Any) -> Any:
        """Losses with smoothed labels.

        Of ``classes`` classes, the label has the share ``1 - strength + strength / classes`` and every other one
        ``strength / classes``; a target of a sigmoid becomes ``(1 - strength) target + strength / 2``. Strength 0 gives
        the plain losses, bit for bit.

        Args:
          outputs: Logits, aligned with the targets.
          targets: As the loss takes them.
          strength: From 0 to below 1, shape ``()``; may be traced.

        Returns:
          Losses, shape ``(examples,)``.

        Raises:
          ValueError: A loss without labels.

        References:
          Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016.
        """
        if not self.smooths:
            raise ValueError(
                f"loss is {self.name!r}, which has no labels to smooth; give softmax_cross_entropy or "
                "sigmoid_cross_entropy."
            )
        strength = jnp.asarray(strength, outputs.dtype)
        if self._is(sigmoid_cross_entropy):
            return self.per_example(outputs, (1 - strength) * targets.astype(outputs.dtype) + strength / 2)
        own = jnp.take_along_axis(outputs, targets[:, None], axis=-1)[:, 0]
        return self.per_example(outputs, targets) + strength * (own - outputs.mean(axis=-1))

    def _is(self, *losses: LossFn) -> bool:
        return any(self.per_example is loss for loss in losses)

    def align(self, outputs: Any, targets: Any) -> Any:
        """Outputs in the targets' shape where they differ by one last dimension of 1: ``(n, 1)`` beside ``(n,)``."""
        if not hasattr(outputs, "ndim"):
            raise TypeError(f"model gives outputs of type {type(outputs).__name__}; give one array, a row an example.")
        if outputs.ndim == 0 or outputs.shape[0] != targets.shape[0]:
            raise ValueError(
                f"model gives outputs of shape {outputs.shape} for {targets.shape[0]} examples; give a row each."
            )
        if self._is(*_NAMED.values()) and not jnp.issubdtype(outputs.dtype, jnp.floating):
            raise TypeError(f"model gives outputs of dtype {outputs.dtype}; give floats.")
        if self._is(*_ELEMENTWISE) and outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
            return outputs[..., 0]
        return outputs

    def correct(self, outputs: Any, targets: Any) -> Any:
        """Share of right predictions an example, shape ``(examples,)``; nan where the loss has no accuracy."""
        if self._is(softmax_cross_entropy):
            return (outputs.argmax(axis=-1) == targets).astype(jnp.float32)
        if self._is(sigmoid_cross_entropy):
            return _mean_over_outputs(((outputs > 0) == (targets > 0.5)).astype(jnp.float32))
        return jnp.full(outputs.shape[:1], jnp.nan, jnp.float32)


_ELEMENTWISE = (sigmoid_cross_entropy, squared_error, huber)
_NAMED = {fn.__name__: fn for fn in (softmax_cross_entropy, *_ELEMENTWISE)}


def resolve(loss: str | LossFn | None, targets: Any) -> Loss:
    """Loss from its name, from a function of the user's own, or by default from the targets.

    Args:
      loss: A name, ``loss_fn(outputs, targets) -> losses`` of shape ``(examples,)``, or None: softmax cross-entropy for
        class indices, sigmoid cross-entropy for integer targets of several dimensions that are all 0 or 1, squared
        error for all others.
      targets: Training targets, shape ``(examples, ...)``.

    Returns:
      The loss.

    Raises:
      TypeError: ``loss`` is neither.
      ValueError: An unknown name.
    """
    if loss is None:
        loss = _default(targets)
    if callable(loss):
        return Loss(getattr(loss, "__name__", "loss_fn"), loss)
    if not isinstance(loss, str):
        raise TypeError(f"loss is {loss!r}; give one of {', '.join(_NAMED)}, or loss_fn(outputs, targets) -> losses.")
    if loss not in _NAMED:
        raise ValueError(f"loss is {loss!r}, which is none of {', '.join(_NAMED)}; a function serves as well.")
    return Loss(loss, _NAMED[loss])


def _default(targets: Any) -> str:
    if not np.issubdtype(targets.dtype, np.integer):
        return "squared_error"
    if targets.ndim == 1:
        return "softmax_cross_entropy"
    return "sigmoid_cross_entropy" if np.isin(targets, (0, 1)).all() else "squared_error"


def check_targets(loss: Loss, targets: Any, *, argument: str) -> None:
    """Refuse targets that do not fit the loss.

    Args:
      loss: The loss.
      targets: Shape ``(examples, ...)``.
      argument: Where they were given, for the message.

    Raises:
      ValueError: Wrong type, shape or range.
    """
    came = f"{argument} has dtype {targets.dtype} and shape {targets.shape}"
    if loss._is(softmax_cross_entropy):
        if not np.issubdtype(targets.dtype, np.integer) or targets.ndim != 1:
            raise ValueError(
                f"{came}, but loss='softmax_cross_entropy' takes one class index an example: integers of shape "
                "(examples,). Convert the targets to class indices, or pass loss='squared_error' for real targets."
            )
        if targets.size and targets.min() < 0:
            raise ValueError(f"{argument} holds the class {targets.min()}; classes are counted from 0.")
    if loss._is(sigmoid_cross_entropy) and targets.size and (targets.min() < 0 or targets.max() > 1):
        raise ValueError(
            f"{came} and values from {targets.min()} to {targets.max()}, but loss='sigmoid_cross_entropy' takes "
            "targets in [0, 1]. For class indices pass loss='softmax_cross_entropy'."
        )


def num_outputs(loss: Loss, targets: Any) -> int:
    """Outputs an example that the targets ask for: the classes, or the numbers in a target.

    Args:
      loss: The loss.
      targets: All targets there are, shape ``(examples, ...)``.

    Returns:
      The number of outputs.
    """
    if loss._is(softmax_cross_entropy):
        return int(targets.max()) + 1
    return int(np.prod(targets.shape[1:], dtype=int))


def check_outputs(loss: Loss, outputs: Any, targets: Any) -> None:
    """Refuse a model whose outputs do not fit the targets.

    Args:
      loss: The loss.
      outputs: Shape and dtype of a batch of outputs, aligned with the targets.
      targets: All targets there are, shape ``(examples, ...)``.

    Raises:
      ValueError: Fewer outputs than classes, or another shape than the targets.
    """
    if loss._is(softmax_cross_entropy):
        classes = num_outputs(loss, targets)
        if outputs.ndim != 2 or outputs.shape[1] < classes:
            raise ValueError(
                f"model gives outputs of shape (examples, {', '.join(map(str, outputs.shape[1:]))}), but data holds "
                f"{classes} classes (targets 0 to {classes - 1}): give the model at least {classes} outputs, or leave "
                "num_outputs unset where it can be taken from the data."
            )
    elif loss._is(*_ELEMENTWISE) and outputs.shape[1:] != targets.shape[1:]:
        raise ValueError(
            f"model gives outputs of shape {('examples', *outputs.shape[1:])}, but the targets have shape "
            f"{('examples', *targets.shape[1:])}; give the model as many outputs as a target has numbers."
        )


class Metric(NamedTuple):
    """What a user wants to know of a member beside its loss; its mean over a split is told."""

    name: str
    per_example: LossFn


def metrics(given: Mapping[str, LossFn] | None, *, taken: Collection[str] = ()) -> tuple[Metric, ...]:
    """Metrics of the user's own, checked.

    Args:
      given: By name, ``metric(outputs, targets) -> numbers`` of shape ``(examples,)``; None = none.
      taken: Names, beside ``loss`` and ``accuracy``, under which other numbers are told.

    Returns:
      The metrics, in the order given.

    Raises:
      TypeError: No mapping, a name that is no string, or a metric that is no function.
      ValueError: A name that is no identifier, or that is taken.
    """
    if given is None:
        return ()
    if not isinstance(given, Mapping):
        raise TypeError(f"metrics is {given!r}; give functions by name, as {{'absolute_error': function}}.")
    for name, metric in given.items():
        if not isinstance(name, str):
            raise TypeError(f"metrics has the name {name!r}, of type {type(name).__name__}; give a string.")
        if not name.isidentifier():
            raise ValueError(f"metrics has the name {name!r}; give letters, digits and underscores, a letter first.")
        if name in ("loss", "accuracy", *taken):
            raise ValueError(f"metrics has the name {name!r}, under which another number is told; give another name.")
        if not callable(metric):
            raise TypeError(f"metrics[{name!r}] is {metric!r}; give a function, metric(outputs, targets) -> numbers.")
    return tuple(Metric(name, metric) for name, metric in given.items())


def check_metric_shape(metric: Metric, outputs: Any, targets: Any) -> None:
    """Refuse a metric that does not give one number an example, by shapes alone.

    Args:
      metric: The metric.
      outputs: Outputs aligned with the targets, or their shape and dtype.
      targets: Targets, or their shape and dtype.

    Raises:
      TypeError: It cannot be traced, or gives no array.
      ValueError: Another shape than ``(examples,)``.
    """
    try:
        values = jax.eval_shape(metric.per_example, outputs, targets)
    except (jax.errors.TracerArrayConversionError, jax.errors.ConcretizationTypeError) as error:
        raise TypeError(
            f"metrics[{metric.name!r}] needs the values of its arguments, but it is compiled; write it in jax.numpy."
        ) from error
    if not hasattr(values, "shape"):
        raise TypeError(f"metrics[{metric.name!r}] gives a {type(values).__name__}; give one array.")
    if values.shape != targets.shape[:1]:
        raise ValueError(
            f"metrics[{metric.name!r}] gives an array of shape {values.shape} for {targets.shape[0]} examples; it must "
            f"give one number an example, shape {targets.shape[:1]}, and not their mean."
        )
