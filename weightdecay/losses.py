"""Data losses: one loss an example, with the accuracy that goes with it and the targets that fit it."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax

from weightdecay.types import LossFn


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


def _mean_over_outputs(losses: Any) -> Any:
    return losses.reshape(losses.shape[0], -1).mean(axis=1)


class Loss(NamedTuple):
    """A data loss with all that training needs to know of it."""

    name: str
    per_example: LossFn

    def align(self, outputs: Any, targets: Any) -> Any:
        """Outputs in the targets' shape where they differ by one last dimension of 1: ``(n, 1)`` beside ``(n,)``."""
        if not hasattr(outputs, "ndim"):
            raise TypeError(f"model gives outputs of type {type(outputs).__name__}; give one array, a row an example.")
        if outputs.ndim == 0 or outputs.shape[0] != targets.shape[0]:
            raise ValueError(
                f"model gives outputs of shape {outputs.shape} for {targets.shape[0]} examples; give a row each."
            )
        if self.name in _NAMED and not jnp.issubdtype(outputs.dtype, jnp.floating):
            raise TypeError(f"model gives outputs of dtype {outputs.dtype}; give floats.")
        if self.name in _ELEMENTWISE and outputs.ndim == targets.ndim + 1 and outputs.shape[-1] == 1:
            return outputs[..., 0]
        return outputs

    def correct(self, outputs: Any, targets: Any) -> Any:
        """Share of right predictions an example, shape ``(examples,)``; nan where the loss has no accuracy."""
        if self.name == "softmax_cross_entropy":
            return (outputs.argmax(axis=-1) == targets).astype(jnp.float32)
        if self.name == "sigmoid_cross_entropy":
            return _mean_over_outputs(((outputs > 0) == (targets > 0.5)).astype(jnp.float32))
        return jnp.full(outputs.shape[:1], jnp.nan, jnp.float32)


_NAMED = {fn.__name__: fn for fn in (softmax_cross_entropy, sigmoid_cross_entropy, squared_error)}
_ELEMENTWISE = ("sigmoid_cross_entropy", "squared_error")


def resolve(loss: str | LossFn | None, targets: Any) -> Loss:
    """Loss from its name, from a function of the user's own, or by default from the targets.

    Args:
      loss: A name, ``loss_fn(outputs, targets) -> losses`` of shape ``(examples,)``, or None: softmax cross-entropy for
        integer targets, squared error for real ones.
      targets: Training targets, shape ``(examples, ...)``.

    Returns:
      The loss.

    Raises:
      TypeError: ``loss`` is neither.
      ValueError: An unknown name.
    """
    if loss is None:
        loss = (
            "softmax_cross_entropy"
            if np.issubdtype(targets.dtype, np.integer) and targets.ndim == 1
            else "squared_error"
        )
    if callable(loss):
        return Loss(getattr(loss, "__name__", "loss_fn"), loss)
    if not isinstance(loss, str):
        raise TypeError(f"loss is {loss!r}; give one of {', '.join(_NAMED)}, or loss_fn(outputs, targets) -> losses.")
    if loss not in _NAMED:
        raise ValueError(f"loss is {loss!r}, which is none of {', '.join(_NAMED)}; a function serves as well.")
    return Loss(loss, _NAMED[loss])


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
    if loss.name == "softmax_cross_entropy":
        if not np.issubdtype(targets.dtype, np.integer) or targets.ndim != 1:
            raise ValueError(
                f"{came}, but loss='softmax_cross_entropy' takes one class index an example: integers of shape "
                "(examples,). Convert the targets to class indices, or pass loss='squared_error' for real targets."
            )
        if targets.size and targets.min() < 0:
            raise ValueError(f"{argument} holds the class {targets.min()}; classes are counted from 0.")
    if loss.name == "sigmoid_cross_entropy" and targets.size and (targets.min() < 0 or targets.max() > 1):
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
    if loss.name == "softmax_cross_entropy":
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
    if loss.name == "softmax_cross_entropy":
        classes = num_outputs(loss, targets)
        if outputs.ndim != 2 or outputs.shape[1] < classes:
            raise ValueError(
                f"model gives outputs of shape (examples, {', '.join(map(str, outputs.shape[1:]))}), but data holds "
                f"{classes} classes (targets 0 to {classes - 1}): give the model at least {classes} outputs, or leave "
                "num_outputs unset where it can be taken from the data."
            )
    elif loss.name in _ELEMENTWISE and outputs.shape[1:] != targets.shape[1:]:
        raise ValueError(
            f"model gives outputs of shape {('examples', *outputs.shape[1:])}, but the targets have shape "
            f"{('examples', *targets.shape[1:])}; give the model as many outputs as a target has numbers."
        )
