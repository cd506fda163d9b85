"""What is told of a member at an evaluation: losses, accuracies and metrics on its splits, norms, sparsity.

Pure functions of one member, as in `weightdecay.training.step`. Splits are gone through in chunks, so that what a
forward pass makes stays in cache; where there are folds, one pass over all examples counts those that train, or those
that validate.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from weightdecay import decay as rules
from weightdecay.core.metrics import lower_is_better
from weightdecay.core.types import Batch, ModelState, Params
from weightdecay.decay import masks, transformation
from weightdecay.training import diagnostics
from weightdecay.training.step import evaluated, forward, scaled
from weightdecay.training.task import Best, Hyperparameters, State, Task

_CHUNK = 128  # examples


class Sums(NamedTuple):
    """Sums over the examples of a chunk that count, each shape ``()``."""

    weight: Any
    loss: Any
    correct: Any
    metrics: dict[str, Any]


def chunk_rows(num_examples: int) -> tuple[Array, Array]:
    """Chunks in which a split is evaluated; the last is filled up with the first examples, which do not count.

    Args:
      num_examples: Of the split.

    Returns:
      Example numbers, and whether each counts; both ``(chunks, examples of a chunk)``.
    """
    num_chunks = -(-num_examples // _CHUNK)
    size = -(-num_examples // num_chunks)
    rows = jnp.arange(num_chunks * size, dtype=jnp.int32).reshape(num_chunks, size)
    return rows % num_examples, rows < num_examples


def chunk_sums(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, batch: Batch, counts: Any
) -> Sums:
    """Sums of losses, right answers and metrics over a chunk.

    Args:
      task: What was trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: What goes with them.
      batch: The chunk.
      counts: Whether each example counts.

    Returns:
      The sums, each example with its weight.
    """
    outputs, batch = evaluated(task, hyperparameters, params, model_state, batch)

    def total(each: Any) -> Any:
        each = each.astype(jnp.promote_types(each.dtype, jnp.float32))
        return jnp.where(counts, each if batch.weights is None else each * batch.weights, 0).sum()

    return Sums(
        weight=total(jnp.ones(counts.shape)),
        loss=total(task.loss.per_example(outputs, batch.targets)),
        correct=total(task.loss.correct(outputs, batch.targets)),
        metrics={metric.name: total(metric.per_example(outputs, batch.targets)) for metric in task.metrics},
    )


def means(sums: Sums) -> dict[str, Float[Array, ""]]:
    """Mean loss, accuracy and metrics from the chunks' sums.

    Args:
      sums: Each ``(chunks,)``.

    Returns:
      ``{"loss": ..., "accuracy": ...}`` and every metric by its name; the accuracy is nan where the loss has none.
    """
    weight = sums.weight.sum()
    named = {"loss": sums.loss, "accuracy": sums.correct, **sums.metrics}
    return {name: values.sum() / weight for name, values in named.items()}


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
      task: What was trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: What goes with them.
      data: Examples; of those with a fold, the ones count that validate the member, or those that train it.
      validation: Which of these.

    Returns:
      As `means`.
    """

    def one_chunk(chunk: tuple[Array, Array]) -> Sums:
        rows, counts = chunk
        batch = jax.tree.map(lambda array: jnp.asarray(array)[rows], data)
        if data.fold is not None:
            counts &= (batch.fold == hyperparameters.fold) == validation
        return chunk_sums(task, hyperparameters, params, model_state, batch, counts)

    return means(jax.lax.map(one_chunk, chunk_rows(len(data.inputs))))


def predict(task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, inputs: Any) -> Any:
    """Outputs of a network on inputs without targets.

    Args:
      task: What was trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: What goes with them.
      inputs: As they lie in the data, ``(examples, ...)``.

    Returns:
      The outputs, ``(examples, ...)``; of targets that were standardized by folds, in their own unit.
    """
    batch = scaled(hyperparameters, Batch(jnp.asarray(inputs), jnp.zeros(())))
    outputs = forward(task, hyperparameters, params, model_state, batch.inputs)
    scaling = hyperparameters.scaling
    if scaling is None or scaling.target_mean is None:
        return outputs
    return outputs * scaling.target_scale + scaling.target_mean


def report(
    task: Task,
    hyperparameters: Hyperparameters,
    state: State,
    previous: Params,
    on_train: Mapping[str, Any],
    validation: Batch,
) -> dict[str, Float[Array, "..."]]:
    """What is recorded of a member at an evaluation step; data loss and penalty stay apart.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: The member now.
      previous: Its weights before the last step.
      on_train: Its `score` on the training examples.
      validation: Validation examples.

    Returns:
      Numbers by name, each shape ``()``, or ``(layers,)`` for those of `weightdecay.training.task.LAYER_METRICS`.
    """
    decays = masks.resolve(task.mask, state.params)
    decay_state = transformation.carried(state.optimizer_state)
    on_validation = score(task, hyperparameters, state.params, state.model_state, validation)
    told = {
        "train_loss": on_train["loss"],
        "penalty": rules.penalty(hyperparameters.decay, state.params, task.mask, state=decay_state, count=state.step),
        "train_accuracy": on_train["accuracy"],
        "validation_loss": on_validation["loss"],
        "validation_accuracy": on_validation["accuracy"],
        "weight_norm": diagnostics.weight_norm(state.params, decays),
        "zero_fraction": diagnostics.zero_fraction(state.params, decays),
        "near_zero_fraction": diagnostics.near_zero_fraction(state.params, decays),
        **diagnostics.by_layer(state.params, previous, decays),
    }
    for metric in task.metrics:
        told |= {f"train_{metric.name}": on_train[metric.name], f"validation_{metric.name}": on_validation[metric.name]}
    return {name: jnp.where(state.diverged_at < 0, value, jnp.nan) for name, value in told.items()}


def judge(
    task: Task, hyperparameters: Hyperparameters, state: State, metrics: Mapping[str, Any]
) -> tuple[Mapping[str, Any], State]:
    """Stop a member whose patience has ended, and keep its best weights.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: The member at an evaluation.
      metrics: Its `report`.

    Returns:
      What is recorded: of a member that had stopped before, the metrics of its best weights. And the state, with
      ``stopped_at`` and ``best`` as they are now.
    """
    if state.best is None:
        return metrics, state
    sign = 1 if lower_is_better(task.stopping_metric) else -1
    value, least = sign * metrics[task.stopping_metric], sign * state.best.metrics[task.stopping_metric]
    runs = state.goes_on()
    better = runs & ((value < least) | (jnp.isnan(least) & ~jnp.isnan(value)))
    now = Best(state.step, state.params, state.model_state, dict(metrics), jnp.zeros_like(state.best.waited))
    waits = state.best._replace(waited=state.best.waited + 1)
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, waits)
    stopped = state.stopped_at >= 0
    recorded = {name: jnp.where(stopped, best.metrics[name], metrics[name]) for name in metrics}
    stopped_at = jnp.where(runs & (best.waited >= hyperparameters.training["patience"]), state.step, state.stopped_at)
    return recorded, state._replace(stopped_at=stopped_at, best=best)
