"""Early stopping: end a member whose stopping metric has not improved for ``patience`` evaluations."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from weightdecay.training.task import Best, Hyperparameters, State, Task


def update(
    task: Task, hyperparameters: Hyperparameters, state: State, metrics: Mapping[str, Any]
) -> tuple[Mapping[str, Any], State]:
    """Stop a member whose patience has run out, and remember its best weights.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: The member at an evaluation.
      metrics: What `weightdecay.training.evaluation.evaluate` returned for ``state``.

    Returns:
      The metrics to record, and the state with its new ``stopped_at`` and ``best``. For a member that had already
      stopped, the recorded metrics are those of its best weights. Without patience both are returned unchanged.
    """
    if state.best is None:
        return metrics, state
    sign = 1 if task.lower_is_better(task.stopping_metric) else -1
    value, lowest = sign * metrics[task.stopping_metric], sign * state.best.metrics[task.stopping_metric]
    is_training = state.is_training()
    improved = is_training & ((value < lowest) | (jnp.isnan(lowest) & ~jnp.isnan(value)))
    waited = jnp.zeros_like(state.best.waited)
    current = Best(state.step, state.params, state.model_state, dict(metrics), waited, state.average)
    unchanged = state.best._replace(waited=state.best.waited + 1)
    best = jax.tree.map(lambda new, old: jnp.where(improved, new, old), current, unchanged)
    has_stopped = state.stopped_at >= 0
    recorded = {name: jnp.where(has_stopped, best.metrics[name], metrics[name]) for name in metrics}
    stops = is_training & (best.waited >= hyperparameters.training["patience"])
    return recorded, state._replace(stopped_at=jnp.where(stops, state.step, state.stopped_at), best=best)
