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
from weightdecay.core import metrics as metric_table
from weightdecay.core.types import Batch, ModelState, Params
from weightdecay.decay import masks, transformation
from weightdecay.training import diagnostics, fine_tuning, losses
from weightdecay.training.losses import Loss
from weightdecay.training.step import forward, outputs_batch_and_state, standardized
from weightdecay.training.task import Hyperparameters, State, Task

_CHUNK = 128  # examples, or class indices of examples that have several


class Collected(NamedTuple):
    """What metrics of a whole split are computed from, in the order of the examples."""

    outputs: Any  # (examples, ...)
    targets: Any  # (examples, ...)
    weights: Any  # (examples,), or as the targets if some of these do not count; 0 = does not count


class Sums(NamedTuple):
    """Sums over the examples of a chunk that count, or over their positions, each of shape ``()``."""

    weight: Any  # of the examples
    metrics: dict[str, Any]  # by the names of `weightdecay.training.losses.Loss.metrics` and of the user's metrics
    weights: dict[str, Any]  # by the names of those metrics that have several positions, or targets that do not count
    collected: Collected | None = None  # of the chunk; None = there is no metric of a whole split


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
    batch = task.spread(batch)
    outputs, batch, model_state = outputs_batch_and_state(task, hyperparameters, params, model_state, batch)
    own = {metric.name: metric.per_example for metric in task.metrics if metric.of_split is None}
    functions = task.loss.metrics() | own
    values = {name: metric(outputs, batch.targets) for name, metric in functions.items()}
    if task.sows:
        sown = fine_tuning.sown_loss(model_state)
        values[metric_table.SOWN_LOSS] = jnp.full(counts.shape, 0.0 if sown is None else sown)
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
        collected=_collected(outputs, batch, counts, target_counts) if task.has_metrics_of_splits() else None,
    )


def _collected(outputs: Any, batch: Batch, counts: Any, target_counts: Any) -> Collected:
    weights = counts.astype(jnp.float32) if batch.weights is None else jnp.where(counts, batch.weights, 0)
    if target_counts is not None:
        weights = jnp.where(target_counts, losses.spread(weights, target_counts), 0)
    return Collected(outputs, batch.targets, weights)


def joined(chunks: dict[str, Sums], num_examples: int, *, axis: int = 0) -> dict[str, Sums]:
    """Join what was collected of the chunks of a split.

    Args:
      chunks: Sums of the chunks, one after the other along an axis of each array, by the prefix of their metrics.
      num_examples: Number of examples of the split.
      axis: That axis; arrays of examples have the examples of a chunk in the next one.

    Returns:
      The sums as they are, with all collected examples of the split along the axis, without those that fill up the last
      chunk.
    """

    def examples(array: Any) -> Any:
        shape = array.shape
        flat = array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        return flat[(slice(None),) * axis + (slice(num_examples),)]

    return {
        prefix: of_weights._replace(collected=jax.tree.map(examples, of_weights.collected))
        for prefix, of_weights in chunks.items()
    }


def results(task: Task, sums: dict[str, Sums]) -> dict[str, Float[Array, ""]]:
    """Every metric of a split, from what `joined` returned.

    Args:
      task: What is trained.
      sums: Each of shape ``(chunks,)``, and arrays of examples, by the prefix of their metrics.

    Returns:
      As `means`, with the metrics of the whole split.
    """
    values = {}
    for prefix, of_weights in sums.items():
        values |= {f"{prefix}{name}": value for name, value in means(task.loss, of_weights).items()}
        for metric in task.metrics:
            if metric.of_split is not None and of_weights.collected is not None:
                value = jnp.asarray(metric.of_split(*of_weights.collected))
                values[f"{prefix}{metric.name}"] = value.astype(jnp.promote_types(value.dtype, jnp.float32))
    return values


def means(loss: Loss, sums: Sums) -> dict[str, Float[Array, ""]]:
    """Mean of each metric over a split, from the sums of its chunks.

    Args:
      loss: What is computed of each example.
      sums: Each of shape ``(chunks,)``.

    Returns:
      ``{"loss": ..., "accuracy": ...}`` and every metric by its name; the accuracy is nan if the loss has none. What
      derives from the loss, such as the perplexity, is computed from its mean.
    """
    weight = sums.weight.sum()
    weights = {name: of_metric.sum() for name, of_metric in sums.weights.items()}
    averaged = {name: values.sum() / weights.get(name, weight) for name, values in sums.metrics.items()}
    return averaged | loss.derived(averaged["loss"])


def score(
    task: Task,
    hyperparameters: Hyperparameters,
    params: Params,
    model_state: ModelState,
    data: Batch,
    *,
    validation: bool = True,
) -> dict[str, Float[Array, ""]]:
    """Mean loss, accuracy and metrics of a network on a split, and metrics of the whole split.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: State of the model.
      data: Examples. If they have folds, only those of the member's own fold count, or only those of the other folds.
      validation: True = the examples of the member's own fold count, which validate it; False = the others. Of the
        latter, a member with the axis ``epochs`` counts those that it takes.

    Returns:
      As `results`.
    """
    taken = None
    if not validation and "num_examples" in hyperparameters.training:
        trains = jnp.ones(data.num_examples, bool) if data.fold is None else data.fold != hyperparameters.fold
        taken = jnp.cumsum(trains) <= hyperparameters.training["num_examples"]

    def one_chunk(chunk: tuple[Array, Array]) -> Sums:
        rows, counts = chunk
        if taken is not None:
            counts &= taken[rows]
        batch = jax.tree.map(lambda array: jnp.asarray(array)[rows], data)
        if data.fold is not None:
            counts &= (batch.fold == hyperparameters.fold) == validation
        return chunk_sums(task, hyperparameters, params, model_state, batch, counts)

    chunks = {"": jax.lax.map(one_chunk, chunk_rows(task.loss, data))}
    return results(task, joined(chunks, data.num_examples))


def weights_of(state: State) -> dict[str, tuple[Params, ModelState]]:
    """Return the weights of a member that are evaluated, with their model state, by the prefix of their metrics."""
    last = {"": (state.params, state.model_state)}
    return last if state.average is None else last | {metric_table.AVERAGED: tuple(state.average)}


def scores(
    task: Task, hyperparameters: Hyperparameters, state: State, data: Batch, *, validation: bool = True
) -> dict[str, Float[Array, ""]]:
    """`score` of the last weights of a member and, under names with a prefix, of its averaged weights.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: The member.
      data: As in `score`.
      validation: As in `score`.

    Returns:
      Numbers by name, such as ``loss`` and ``ema_loss``.
    """
    return {
        f"{prefix}{name}": value
        for prefix, weights in weights_of(state).items()
        for name, value in score(task, hyperparameters, *weights, data, validation=validation).items()
    }


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
      on_train: Its `scores` on the training examples.
      validation: Validation examples.

    Returns:
      Numbers by name: of shape ``()`` for the names of ``task.metric_names()``, of shape ``(layers,)`` for those of
      `weightdecay.training.task.LAYER_METRICS`. All are nan if the member has diverged.
    """
    decays = masks.resolve(task.mask, state.params)
    decay_state = transformation.rule_states(state.optimizer_state)
    on_validation = scores(task, hyperparameters, state, validation)
    penalty = rules.penalty(hyperparameters.decay, state.params, task.mask, state=decay_state, count=state.step)
    measured = {
        "penalty": penalty,
        **{f"train_{name}": value for name, value in on_train.items()},
        **{f"validation_{name}": value for name, value in on_validation.items()},
        **{name: metric(state.params, decays) for name, metric in diagnostics.OF_WEIGHTS.items()},
        **diagnostics.by_layer(state.params, previous, decays),
    }
    return {name: jnp.where(state.diverged_at < 0, value, jnp.nan) for name, value in measured.items()}
