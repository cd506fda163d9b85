"""What is trained: the task of a program, the hyperparameters of a member, and the state that it carries.

`Task` stands fixed for all members of a program; `Hyperparameters` tell them apart, every one of them traced; `State`
is what a member carries from step to step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from weightdecay.core import tree
from weightdecay.core.types import Batch, LossFn, Mask, MaskFn, ModelState, Params, PyTree
from weightdecay.data import Scaling, augment
from weightdecay.decay import Rule, masks
from weightdecay.models import convolutions
from weightdecay.models import network as networks
from weightdecay.training import losses
from weightdecay.training.losses import Loss, Metric

METRICS = (
    "train_loss",
    "penalty",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "weight_norm",
    "zero_fraction",
    "near_zero_fraction",
)
"""What is told of every member at an evaluation, each one number."""

LAYER_METRICS = ("layer_weight_norm", "layer_zero_fraction", "rotation", "effective_learning_rate")
"""What is told of every array of weights that decays."""

REGULARIZERS = (*augment.KINDS, "mixup", "label_smoothing", "clip_norm", "patience")
"""Axes of a grid that training itself takes."""


@dataclass(frozen=True)
class Task:
    """What is trained, the same for all members of one compiled program."""

    model: Any
    loss: Loss
    optimizer: Callable[..., optax.GradientTransformation]
    mask: Mask | MaskFn
    batch_size: int | None
    options: tuple[tuple[str, Any], ...] = ()
    """Arguments of the optimizer that change its structure (``nesterov``), by name."""
    dtype: str | None = None
    """What the network computes in; None = as the weights are."""
    by_slices: bool = True
    """Whether convolutions and pooling are written out; see `weightdecay.models.convolutions`."""
    stopping_metric: str = "validation_loss"
    """What patience looks at."""
    metrics: tuple[Metric, ...] = ()
    """Of the user's own."""

    def network(self) -> networks.Network:
        """Return the model under the one face."""
        network = networks.network(self.model)
        if self.by_slices:
            network = networks.rewritten(network, convolutions.rewrite)
        return network if self.dtype is None else networks.computing_in(network, self.dtype)

    def metric_names(self) -> tuple[str, ...]:
        """Return what is told of a member at an evaluation."""
        return *METRICS, *(f"{split}_{metric.name}" for metric in self.metrics for split in ("train", "validation"))

    def layers(self, params: Params) -> list[str]:
        """Return the names of the arrays of weights that decay."""
        decays = masks.resolve(self.mask, params)
        return [name for (name, _), decayed in zip(tree.named_leaves(params), decays, strict=True) if decayed]

    def transformation(self, hyperparameters: "Hyperparameters") -> optax.GradientTransformation:
        """Return one member's optimizer."""
        return self.optimizer(
            hyperparameters.learning_rate,
            hyperparameters.decay,
            mask=self.mask,
            **hyperparameters.optimizer,
            **dict(self.options),
        )


class Hyperparameters(NamedTuple):
    """What tells one member from another."""

    decay: Rule
    learning_rate: Any  # shape (), or a schedule
    seed: Any  # int32, shape ()
    optimizer: dict[str, Any]  # further arguments of the optimizer, each shape ()
    training: dict[str, Any] = {}  # noqa: RUF012 (nobody changes it)  # by the names of REGULARIZERS, each shape (); patience is there if it has any
    network: dict[str, Any] = {}  # noqa: RUF012  # what the network takes, such as its dropout rate, each shape ()
    fold: Any = None  # in which it validates, int32, shape (); None = there are validation examples
    scaling: Scaling | None = None  # of its fold


class Best(NamedTuple):
    """A member at its best evaluation so far."""

    step: Int[Array, ""]
    params: Params
    model_state: ModelState
    metrics: dict[str, Float[Array, "..."]]
    waited: Int[Array, ""]  # evaluations since


class State(NamedTuple):
    """What one member carries from step to step."""

    step: Int[Array, ""]
    params: Params
    model_state: ModelState
    optimizer_state: PyTree
    diverged_at: Int[Array, ""]  # the step that it could not take, since numbers were not finite; -1 = none
    stopped_at: Int[Array, ""]  # step of the evaluation at which its patience ended; -1 = not
    best: Best | None  # None = it has no patience

    def goes_on(self) -> Any:
        """Whether more steps change anything, bool, shape ``()``."""
        return (self.diverged_at < 0) & (self.stopped_at < 0)

    def kept(self) -> tuple[Params, ModelState]:
        """Return what is kept of one member, with NumPy arrays: its best weights, if it has patience and lives."""
        if self.best is None or self.diverged_at >= 0:
            return self.params, self.model_state
        return self.best.params, self.best.model_state


def prepare(
    model: Any,
    splits: Mapping[str, Batch],
    *,
    loss: str | LossFn | None,
    optimizer: Callable[..., optax.GradientTransformation],
    mask: Mask | MaskFn,
    batch_size: int | None,
    dtype: Any = None,
    stopping_metric: str = "validation_loss",
    metrics: Mapping[str, LossFn] | None = None,
) -> Task:
    """Settle what is trained: the loss from the targets, the model's outputs from the classes.

    Args:
      model: Any that `weightdecay.models.network.network` takes.
      splits: Examples by name: ``train``, ``validation`` and perhaps ``test``.
      loss: A name, a function, or None for the targets' own.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others)``.
      mask: Which weights decay.
      batch_size: Examples a step; None = all.
      dtype: What the network computes in; None = as the weights are.
      stopping_metric: What patience looks at.
      metrics: Of the user's own by name, ``metric(outputs, targets) -> numbers`` of shape ``(examples,)``.

    Returns:
      The task.

    Raises:
      TypeError: A model, a loss, a metric or a dtype that is none.
      ValueError: An unknown loss, or targets that do not fit it; a name of a metric that is taken.
    """
    resolved = losses.resolve(loss, splits["train"].targets)
    for name, split in splits.items():
        losses.check_targets(resolved, split.targets, argument=f"data.{name} targets")
    complete = networks.complete(model, losses.num_outputs(resolved, all_targets(splits)))
    networks.network(complete)
    return Task(
        complete,
        resolved,
        optimizer,
        mask,
        batch_size,
        dtype=None if dtype is None else _float_name(dtype),
        stopping_metric=stopping_metric,
        metrics=losses.metrics(metrics, taken=METRICS),
    )


def all_targets(splits: Mapping[str, Batch]) -> np.ndarray:
    """Targets of all splits together.

    Args:
      splits: Examples by name.

    Returns:
      Shape ``(examples, ...)``.
    """
    return np.concatenate([split.targets for split in splits.values()])


def _float_name(dtype: Any) -> str:
    try:
        name = jnp.dtype(dtype).name
    except TypeError as error:
        raise TypeError(f"dtype is {dtype!r}; give a floating dtype, such as jax.numpy.bfloat16.") from error
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise TypeError(f"dtype is {name}; give a floating dtype, such as jax.numpy.bfloat16.")
    return name
