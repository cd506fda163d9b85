"""The three records of training: `Task`, `Hyperparameters` and `State`.

`Task` is the same for all members of a compiled program. `Hyperparameters` differ between members, and each is traced.
`State` is what a member carries from step to step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float, Int

from weightdecay.core import metrics as metric_table
from weightdecay.core import random_streams, tree
from weightdecay.core.checks import ArgumentTypeError
from weightdecay.core.types import Batch, LossFn, Mask, MaskFn, ModelState, Params, PyTree
from weightdecay.data import Scaling, augment
from weightdecay.decay import Rule, masks
from weightdecay.models import adapters, convolutions
from weightdecay.models import network as networks
from weightdecay.training import losses
from weightdecay.training.losses import Loss, UserMetric

LAYER_METRICS = metric_table.names("layers")
"""Names of the metrics that are recorded for each array of weights that decays."""

REGULARIZERS = (*augment.KINDS, "mixup", "label_smoothing", "clip_norm", "ema", "patience")
"""Axes of a grid that are used by training itself, and not by the optimizer or the network."""

EPOCHS = "epochs"
"""Axis of a grid: how often a member takes each of its training examples, which are then as many as its steps need."""


@dataclass(frozen=True)
class Task:
    """What is trained: the same for all members of one compiled program."""

    model: Any
    loss: Loss
    optimizer: Callable[..., optax.GradientTransformation]
    mask: Mask | MaskFn
    batch_size: int | None
    options: tuple[tuple[str, Any], ...] = ()
    """Arguments of the optimizer that change its structure (``nesterov``), by name."""
    dtype: str | None = None
    """Dtype in which the network computes; None = the dtype of the weights."""
    reduce_convolutions: bool = True
    """Whether convolutions and pooling are reduced to slices; see `weightdecay.models.convolutions`."""
    stopping_metric: str = "validation_loss"
    """Metric on which patience is based."""
    metrics: tuple[UserMetric, ...] = ()
    """Metrics of the user."""
    frozen: tuple[str, ...] = ()
    """Names of the weights that do not train; see `weightdecay.training.fine_tuning`."""
    accumulate: int = 1
    """Parts of a batch whose gradients are computed one after the other."""
    averages: bool = False
    """Whether an average of the weights is kept and evaluated in addition to the last weights."""
    sows: bool = False
    """Whether the network sows losses, which are recorded as `weightdecay.core.metrics.SOWN_LOSS`."""
    augmented: str | None = None
    """Name of the array that augmentation acts on, of inputs that are several; None = the only one that fits."""
    batch_sharding: Any = None
    """Sharding of the examples of a batch over the devices that compute a member; None = one device computes it."""

    def network(self) -> networks.Network:
        """Return the model in the common interface."""
        network = networks.network(self.model)
        if self.reduce_convolutions:
            network = networks.rewritten(network, convolutions.rewrite)
        return network if self.dtype is None else networks.computing_in(network, self.dtype)

    def spread(self, batch: Any) -> Any:
        """Return a tree of arrays of shape ``(examples, ...)``, spread over the devices that compute a member."""
        return batch if self.batch_sharding is None else jax.lax.with_sharding_constraint(batch, self.batch_sharding)

    def metric_names(self) -> tuple[str, ...]:
        """Return the names of the numbers that are recorded of a member at an evaluation."""
        return metric_table.recorded(self.own_metrics(), derived=self.loss.predicts_tokens, averages=self.averages)

    def own_metrics(self) -> tuple[str, ...]:
        """Return the names of the user's metrics, and of the sown loss if there is one."""
        return (*(metric.name for metric in self.metrics), *([metric_table.SOWN_LOSS] if self.sows else []))

    def has_metrics_of_splits(self) -> bool:
        """Return whether any metric is computed from all outputs of a split."""
        return any(metric.of_split is not None for metric in self.metrics)

    def lower_is_better(self, metric: str) -> bool:
        """Return whether lower values of a recorded metric are better."""
        return metric_table.lower_is_better(metric, {own.name: own.lower_is_better for own in self.metrics})

    def layers(self, params: Params) -> list[str]:
        """Return the names of the arrays of weights that decay."""
        decays = masks.resolve(self.mask, params)
        return [name for (name, _), decayed in zip(tree.named_leaves(params), decays, strict=True) if decayed]

    def transformation(self, hyperparameters: "Hyperparameters") -> optax.GradientTransformation:
        """Return the optimizer of one member.

        Raises:
          ArgumentTypeError: It reads a number that is traced.
        """
        try:
            return self.optimizer(
                hyperparameters.learning_rate,
                hyperparameters.decay,
                mask=self.mask,
                **hyperparameters.optimizer,
                **dict(self.options),
            )
        except jax.errors.ConcretizationTypeError as error:
            raise ArgumentTypeError(
                "optimizer",
                "optimizer takes the value of a number that is traced, as optax.warmup_cosine_decay_schedule(0.0, "
                "learning_rate, ...) does. In a grid, give learning_rate=[wd.schedules.WarmupCosine(peak, 0.1)] or "
                "a schedule of optax itself; or multiply in the optimizer, as in lambda count: "
                f"learning_rate * schedule(count). ({str(error).splitlines()[0]})",
            ) from error


class Hyperparameters(NamedTuple):
    """The values in which members differ."""

    decay: Rule
    learning_rate: Any  # shape (), or a schedule
    seed: Any  # int32, shape ()
    optimizer: dict[str, Any]  # other arguments of the optimizer, each shape ()
    # By the names of REGULARIZERS, each shape (); and num_examples, how many of its training examples a member takes.
    training: dict[str, Any] = {}  # noqa: RUF012 (never mutated)
    network: dict[str, Any] = {}  # noqa: RUF012  # arguments of the network, such as a dropout rate, each shape ()
    fold: Any = None  # whose examples validate the member, int32, shape (); None = there are validation examples
    scaling: Scaling | None = None  # of the fold
    frozen: Any = None  # weights that do not train and are the same for all members; see `training.fine_tuning`


class WithFrozen(NamedTuple):
    """Model state of a member with frozen weights of its own, which were drawn from its seed."""

    frozen: Params  # None at all other arrays
    model_state: ModelState


class Average(NamedTuple):
    """The average of a member's weights over its steps, and that of the floating-point arrays of its model state."""

    params: Params
    model_state: ModelState


class Best(NamedTuple):
    """The state of a member with patience at its best evaluation so far."""

    step: Int[Array, ""]
    params: Params
    model_state: ModelState
    metrics: dict[str, Float[Array, "..."]]
    waited: Int[Array, ""]  # evaluations since then
    average: Average | None = None  # None = without an average


class State(NamedTuple):
    """What a member carries from step to step."""

    step: Int[Array, ""]
    params: Params
    model_state: ModelState
    optimizer_state: PyTree
    diverged_at: Int[Array, ""]  # first step with a number that is not finite; -1 = no such step
    stopped_at: Int[Array, ""]  # step of the evaluation at which patience ran out; -1 = it has not
    best: Best | None  # None = without patience
    average: Average | None = None  # None = without an average

    def is_training(self) -> Any:
        """Whether the member has neither diverged nor stopped, bool, shape ``()``."""
        return (self.diverged_at < 0) & (self.stopped_at < 0)

    def result(self) -> tuple[Params, ModelState]:
        """Return the weights and the model state that are saved: with patience the best, unless the member diverged."""
        kept = self if self.best is None or self.diverged_at >= 0 else self.best
        return _whole(kept.params, kept.model_state)

    def averaged(self) -> tuple[Params, ModelState] | None:
        """Return the average that is saved, of the same step as `result`; None = without an average."""
        average = self.average if self.best is None or self.diverged_at >= 0 else self.best.average
        return None if average is None else _whole(*average)


def _whole(params: Params, model_state: ModelState) -> tuple[Params, ModelState]:
    """Put frozen weights that a member drew back among its weights."""
    if not isinstance(model_state, WithFrozen):
        return params, model_state
    return tree.first_given(params, model_state.frozen), model_state.model_state


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
    lower_is_better: Mapping[str, bool] | None = None,
    class_names: Sequence[Any] | None = None,
    num_classes: int | None = None,
    accumulate: int = 1,
) -> Task:
    """Determine the task: the loss from the targets, and the number of outputs of the model from the classes.

    Args:
      model: A model that `weightdecay.models.network.network` accepts.
      splits: Examples by the name of the split: ``train``, ``validation`` and, if there are any, ``test``.
      loss: A name, a function, or None for the default of the targets.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others)``.
      mask: Which weights decay.
      batch_size: Examples a step; None = all.
      dtype: Dtype in which the network computes; None = the dtype of the weights.
      stopping_metric: Metric on which patience is based.
      metrics: ``metric(outputs, targets) -> values`` of shape ``(examples,)``, or metrics of a whole split, by name.
      lower_is_better: Whether lower values of each of these metrics are better; may lack well-known names.
      class_names: Names of the classes, if there may be more than in the targets; None = as many as in the targets.
      num_classes: Number of classes, if there may be more than in the targets; None = as many as in the targets.
      accumulate: Parts of a batch whose gradients are computed one after the other; divides the size of the batch.

    Returns:
      The task.

    Raises:
      TypeError: A model, a loss, a metric or a dtype of a wrong type.
      ValueError: An unknown loss, targets that do not fit the loss, or a reserved name of a metric.
    """
    targets = [split.targets for split in splits.values()]

    def output_shape() -> tuple[int, ...] | None:
        return _output_shape(networks.complete(model, int(targets[0].max()) + 1), splits["train"])

    resolved = losses.resolve(loss, targets[0], output_shape)
    for name, split in splits.items():
        losses.check_targets(resolved, split.targets, argument=f"data.{name} targets")
    if resolved.name == "softmax_cross_entropy":
        resolved = resolved._replace(
            ignores=any(of_split.size and bool(of_split.min() < 0) for of_split in targets),
            predicts_tokens=targets[0].ndim > 1,
        )
    num_outputs = losses.num_outputs(resolved, targets)
    if resolved.name == "softmax_cross_entropy":
        num_outputs = max(num_outputs, len(class_names or ()), num_classes or 0)
    complete = networks.complete(model, num_outputs)
    network = networks.network(complete)
    return Task(
        complete,
        resolved,
        optimizer,
        mask,
        batch_size,
        dtype=None if dtype is None else _float_name(dtype),
        stopping_metric=stopping_metric,
        metrics=losses.resolve_metrics(metrics, lower_is_better, derived=resolved.predicts_tokens),
        sows=_sows(network, splits["train"]),
        accumulate=accumulate,
    )


def _sows(network: networks.Network, train: Batch) -> bool:
    """Whether a network sows losses; False where it cannot be initialized yet."""
    try:
        state = jax.eval_shape(network.init, random_streams.constant_key(), train.first().inputs)[1]
    except Exception:  # What is wrong is reported where the model is made ready.
        return False
    return adapters.sown_loss(state) is not None


def _output_shape(model: Any, train: Batch) -> tuple[int, ...] | None:
    """Return the shape of the outputs for the first training example; None where the model cannot be called."""
    network, key = networks.network(model), random_streams.constant_key()

    def outputs(inputs: Any) -> Any:
        params, model_state = network.init(key, inputs)
        return network.apply(params, model_state, inputs, key=key, train=False)[0]

    try:
        return jax.eval_shape(outputs, train.first().inputs).shape
    except Exception:  # What is wrong is reported where the model is made ready.
        return None


def _float_name(dtype: Any) -> str:
    allowed = "give a floating dtype, such as jax.numpy.bfloat16"
    try:
        name = jnp.dtype(dtype).name
    except TypeError as error:
        raise ArgumentTypeError("dtype", f"dtype is {dtype!r}; {allowed}.") from error
    if not jnp.issubdtype(jnp.dtype(dtype), jnp.floating):
        raise ArgumentTypeError("dtype", f"dtype is {name}; {allowed}.")
    return name
