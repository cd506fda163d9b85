"""Gradient accumulation: the gradients of a batch, computed in parts, one after the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from weightdecay.core.types import ModelState, Params
from weightdecay.data import trees
from weightdecay.training.task import State, Task


class Part(NamedTuple):
    """Examples of a step, or of a part of it."""

    inputs: Any
    targets: Any
    weights: Any = None  # None = equal weights
    partners: Any = None  # of mixup, rows among these examples; None = no mixup, or they are gathered
    partner_targets: Any = None
    partner_weights: Any = None

    def of_partners(self) -> tuple[Any, Any]:
        """Return the targets and weights of the partners of mixup."""
        if self.partners is None:
            return self.partner_targets, self.partner_weights
        targets = trees.rows(self.targets, self.partners)
        return targets, None if self.weights is None else self.weights[self.partners]

    def divided(self, number: int) -> "Part":
        """Return as many parts of equal size, one after the other along a new first axis."""
        gathered = self
        if self.partners is not None:
            targets, weights = self.of_partners()
            gathered = self._replace(partners=None, partner_targets=targets, partner_weights=weights)
        return jax.tree.map(lambda array: array.reshape(number, -1, *array.shape[1:]), gathered)


def summed(
    task: Task, data_loss: Callable[..., Any], state: State, key: Any, whole: Part
) -> tuple[Any, ModelState, Params]:
    """Compute loss and gradients of a step as sums over the parts of its batch, one part after the other.

    The loss is the mean over everything that counts in the whole batch, not a mean of the parts' means.

    Args:
      task: What is trained, with the number of parts.
      data_loss: ``data_loss(params, model_state, key, part, mean) -> (loss, model_state)``, where ``mean(values,
        targets)`` is the mean of the losses of a part.
      state: The member before the step.
      key: Random key of the step; each part has a key of its own.
      whole: The batch.

    Returns:
      The loss; the model state after the last part; the gradients, with the dtypes of the weights, summed in float32.
    """
    counts = task.loss.counts(whole.targets)
    total = None if counts is None else jnp.maximum(counts.sum(), 1)

    def summand(values: Any, targets: Any) -> Any:
        """What a part contributes to the mean over the whole batch."""
        if total is None:
            return values.mean() / task.accumulate
        return jnp.where(task.loss.counts(targets), values, 0).sum() / total

    def add(carry: Any, numbered: tuple[Any, Part]) -> tuple[Any, None]:
        loss, model_state, gradients = carry
        number, part = numbered
        (of_part, after), of_gradients = jax.value_and_grad(data_loss, has_aux=True)(
            state.params, model_state, jax.random.fold_in(key, number), part, summand
        )
        after = jax.tree.map(lambda new, old: new.astype(old.dtype), after, model_state)
        gradients = jax.tree.map(lambda total, new: total + new.astype(total.dtype), gradients, of_gradients)
        return (loss + of_part.astype(loss.dtype), after, gradients), None

    precise = [jnp.promote_types(jnp.float32, leaf.dtype) for leaf in jax.tree.leaves(state.params)]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(jnp.float32, leaf.dtype)), state.params)
    start = jnp.zeros((), jnp.result_type(*precise)), state.model_state, zeros
    parts = jnp.arange(task.accumulate), whole.divided(task.accumulate)
    (loss, model_state, gradients), _ = jax.lax.scan(add, start, parts)
    return loss, model_state, jax.tree.map(lambda new, old: new.astype(old.dtype), gradients, state.params)
