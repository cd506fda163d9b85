"""What is recorded of a member at an evaluation: losses, accuracies and metrics of its splits, norms, sparsity.

A split is evaluated in chunks, so that the arrays of a forward pass stay in cache. With folds, the same examples are
evaluated twice, once counting those that train the member and once counting those that validate it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from weightdecay import decay as rules
from weightdecay.core import metrics as core_metrics
from weightdecay.core.types import Batch, ModelState, Params
from weightdecay.decay import masks, transformation
from weightdecay.models import adapters
from weightdecay.training import diagnostics, losses
from weightdecay.training.losses import Loss
from weightdecay.training.step import forward, outputs_batch_and_state, standardized
from weightdecay.training.task import Hyperparameters, State, Task

_CHUNK = 128  # examples, or class indices of examples that have several


class Sums(NamedTuple):
    """Sums over the examples of a chunk that count, or over their positions, each of shape ``()``."""

    weight: Any  # of the examples
    metrics: dict[str, Any]  # by the names of `weightdecay.training.losses.Loss.metrics` and of the user's metrics
    weights: dict[str, Any]  # by the names of those metrics that have several positions, or targets that do not count


def chunk_rows(loss: Loss, data: Batch) -> tuple[Array, Array]:
    """Divide a split into chunks of equal size; the last is filled up with the first examples, which do not count.

    Args:
      loss: What is computed of each example.
      data: The split, as arrays or as shapes.

    Returns:
      Indices of the examples, and whether each counts; both of shape ``(chunks, examples of a chunk)``.
    """
    num_examples = data.num_examples
    num_chunks = -(-num_examples // max(1, _CHUNK // loss.num_positions(data.targets)))
    size = -(-num_examples // num_chunks)
    rows = jnp.arange(num_chunks * size, dtype=jnp.int32).reshape(num_chunks, size)
    return rows % num_examples, rows < num_examples


def chunk_sums(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, batch: Batch, counts: Any
) -> Sums:
    """Sum the loss, the accuracy and the metrics over the targets of a chunk that count.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: State of the model.
      batch: The chunk.
      counts: Whether each example counts, shape ``(examples,)``.

    Returns:
      The sums; each example is multiplied by its weight.
    """
    outputs, batch, model_state = outputs_batch_and_state(task, hyperparameters, params, model_state, batch)
    functions = task.loss.metrics() | {metric.name: metric.per_example for metric in task.metrics}
    values = {name: metric(outputs, batch.targets) for name, metric in functions.items()}
    if task.sows:
        sown = adapters.sown_loss(model_state)
        values[core_metrics.SOWN_LOSS] = jnp.full(counts.shape, 0.0 if sown is None else sown)
    target_counts = task.loss.counts(batch.targets)

    def total(values: Any) -> Any:
        values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
        which = losses.spread(counts, values)
        if target_counts is not None and target_counts.shape == values.shape:
            which &= target_counts
        return jnp.where(
            which, values if batch.weights is None else values * losses.spread(batch.weights, values), 0
        ).sum()

    own_weight = {name for name, of_metric in values.items() if of_metric.ndim > 1 or target_counts is not None}
    return Sums(
        weight=total(jnp.ones(counts.shape)),
        metrics={name: total(of_metric) for name, of_metric in values.items()},
        weights={name: total(jnp.ones(values[name].shape)) for name in sorted(own_weight)},
    )


def means(sums: Sums) -> dict[str, Float[Array, ""]]:
    """Mean of each metric over a split, from the sums of its chunks.

    Args:
      sums: Each of shape ``(chunks,)``.

    Returns:
      ``{"loss": ..., "accuracy": ...}`` and every metric by its name; the accuracy is nan if the loss has none.
    """
    weight = sums.weight.sum()
    weights = {name: of_metric.sum() for name, of_metric in sums.weights.items()}
    return {name: values.sum() / weights.get(name, weight) for name, values in sums.metrics.items()}


def score(
    task: Task,
    hyperparameters: Hyperparameters,
    params: Params,
    model_state: ModelState,
    data: Batch,
    *,
    validation: bool = True,
) -> dict[str, Float[Array, ""]]:
    """Mean loss, accuracy and metrics of a network on a split.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: State of the model.
      data: Examples. If they have folds, only those of the member's own fold count, or only those of the other folds.
      validation: True = the examples of the member's own fold count, which validate it; False = the others.

    Returns:
      As `means`.
    """

    def one_chunk(chunk: tuple[Array, Array]) -> Sums:
        rows, counts = chunk
        batch = jax.tree.map(lambda array: jnp.asarray(array)[rows], data)
        if data.fold is not None:
            counts &= (batch.fold == hyperparameters.fold) == validation
        return chunk_sums(task, hyperparameters, params, model_state, batch, counts)

    return means(jax.lax.map(one_chunk, chunk_rows(task.loss, data)))


def predict(task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, inputs: Any) -> Any:
    """Outputs of a network for inputs without targets.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: State of the model.
      inputs: As in the data, arrays of shape ``(examples, ...)``.

    Returns:
      The outputs, ``(examples, ...)``; in the original unit of the targets if folds standardize them.
    """
    batch = standardized(hyperparameters, Batch(jax.tree.map(jnp.asarray, inputs), jnp.zeros(())))
    outputs, _ = forward(task, hyperparameters, params, model_state, batch.inputs)
    scaling = hyperparameters.scaling
    if scaling is None or scaling.target_mean is None:
        return outputs
    return outputs * scaling.target_scale + scaling.target_mean


def evaluate(
    task: Task,
    hyperparameters: Hyperparameters,
    state: State,
    previous: Params,
    on_train: Mapping[str, Any],
    validation: Batch,
) -> dict[str, Float[Array, "..."]]:
    """Measure everything that is recorded of a member at an evaluation step.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: The member now.
      previous: Its weights before the last step.
      on_train: Its `score` on the training examples.
      validation: Validation examples.

    Returns:
      Numbers by name: of shape ``()`` for the names of ``task.metric_names()``, of shape ``(layers,)`` for those of
      `weightdecay.training.task.LAYER_METRICS`. All are nan if the member has diverged.
    """
    decays = masks.resolve(task.mask, state.params)
    decay_state = transformation.rule_states(state.optimizer_state)
    on_validation = score(task, hyperparameters, state.params, state.model_state, validation)
    penalty = rules.penalty(hyperparameters.decay, state.params, task.mask, state=decay_state, count=state.step)
    measured = {
        "penalty": penalty,
        **{f"train_{name}": value for name, value in on_train.items()},
        **{f"validation_{name}": value for name, value in on_validation.items()},
        **{name: metric(state.params, decays) for name, metric in diagnostics.OF_WEIGHTS.items()},
        **diagnostics.by_layer(state.params, previous, decays),
    }
    return {name: jnp.where(state.diverged_at < 0, value, jnp.nan) for name, value in measured.items()}
