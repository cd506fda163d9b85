"""One member from its first weights to its last: initialize, forward, loss, backward, update.

Pure functions of one member, without a thought of others. What a member carries is `State`; what stands fixed for all
members of a program is `Task`; what tells them apart is `Hyperparameters`, every one of them traced. Random keys come
from the seed alone, so that members that differ in the decay start at the same weights and see the same batches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jaxtyping import Float, Int

from weightdecay import decay as rules
from weightdecay import diagnostics, losses, masks, models, transform
from weightdecay.decay import Rule
from weightdecay.losses import Loss
from weightdecay.types import Batch, Key, LossFn, Mask, MaskFn, ModelState, Params, PyTree, Scalar

_EVALUATION_CHUNK = 1024


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

    def network(self) -> models.Network:
        """Return the model under the one face."""
        return models.network(self.model)

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
    learning_rate: Scalar
    seed: Any  # int32, shape ()
    optimizer: dict[str, Any]  # further arguments of the optimizer, each shape ()


class State(NamedTuple):
    """What one member carries from step to step."""

    step: Int[Array, ""]
    params: Params
    model_state: ModelState
    optimizer_state: PyTree
    diverged_at: Int[Array, ""]  # first step whose loss was not finite; -1 = none


def prepare(
    model: Any,
    splits: Mapping[str, Batch],
    *,
    loss: str | LossFn | None,
    optimizer: Callable[..., optax.GradientTransformation],
    mask: Mask | MaskFn,
    batch_size: int | None,
) -> Task:
    """Settle what is trained: the loss from the targets, the model's outputs from the classes.

    Args:
      model: A flax linen module, or a `Model` of plain functions.
      splits: Examples by name: ``train``, ``validation`` and perhaps ``test``.
      loss: A name, a function, or None for the targets' own.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others)``.
      mask: Which weights decay.
      batch_size: Examples a step; None = all.

    Returns:
      The task.

    Raises:
      TypeError: A model or a loss that is none.
      ValueError: An unknown loss, or targets that do not fit it.
    """
    resolved = losses.resolve(loss, splits["train"].targets)
    for name, split in splits.items():
        losses.check_targets(resolved, split.targets, argument=f"data.{name} targets")
    complete = models.complete(model, losses.num_outputs(resolved, _all_targets(splits)))
    models.network(complete)
    return Task(complete, resolved, optimizer, mask, batch_size)


def check_outputs(task: Task, state: "State", splits: Mapping[str, Batch]) -> None:
    """Refuse a network whose outputs do not fit the targets or the loss, by its shapes alone.

    Args:
      task: What is to be trained.
      state: A member's state, as shapes.
      splits: Examples by name.

    Raises:
      ValueError: Fewer outputs than classes, outputs of another shape than the targets, or a loss that does not give
        one number an example.
    """
    validation = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), splits["validation"])

    def forward(params: Params, model_state: ModelState, batch: Batch) -> Any:
        outputs, _ = task.network().apply(params, model_state, batch.inputs, key=jax.random.key(0), train=False)
        return task.loss.align(outputs, batch.targets)

    outputs = jax.eval_shape(forward, state.params, state.model_state, validation)
    losses.check_outputs(task.loss, outputs, _all_targets(splits))
    each = jax.eval_shape(task.loss.per_example, outputs, validation.targets)
    if each.shape != validation.targets.shape[:1]:
        raise ValueError(
            f"loss gives an array of shape {each.shape} for {len(validation.targets)} examples; it must give one loss "
            f"an example, shape {validation.targets.shape[:1]}, and not their mean."
        )


def initialize(task: Task, hyperparameters: Hyperparameters, inputs: Any) -> State:
    """First weights and states of a member.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      inputs: Some inputs, for their shape, ``(examples, ...)``.

    Returns:
      The state at step 0.
    """
    params, model_state = task.network().init(_key(hyperparameters.seed, 0), inputs)
    optimizer_state = task.transformation(hyperparameters).init(params)
    return State(jnp.zeros((), jnp.int32), params, model_state, optimizer_state, jnp.full((), -1, jnp.int32))


def batch_order(
    seed: Any, start: Any, *, num_steps: int, batch_size: int, num_examples: int
) -> Int[Array, "steps batch"]:
    """Which examples each step sees: a stream of shuffled epochs, cut into batches.

    Every example comes once an epoch; a batch may span two epochs. The order depends on the seed and the step alone.

    Args:
      seed: The member's, shape ``()``; may be traced.
      start: First step, shape ``()``; may be traced.
      num_steps: Steps to give the order of.
      batch_size: Examples a step.
      num_examples: Training examples.

    Returns:
      Example numbers, int32, shape ``(num_steps, batch_size)``.
    """
    # start * batch_size may pass 2**31 in a long run: count whole epochs and the rest apart.
    whole, rest = jnp.divmod(jnp.asarray(start, jnp.int32), num_examples)
    epoch, offset = jnp.divmod(rest * batch_size, num_examples)
    first_epoch = whole * batch_size + epoch
    num_epochs = -(-(num_steps * batch_size) // num_examples) + 1
    key = _key(seed, 1)
    shuffled = jax.vmap(lambda e: jax.random.permutation(jax.random.fold_in(key, e), num_examples))(
        first_epoch + jnp.arange(num_epochs)
    )
    stream = jax.lax.dynamic_slice_in_dim(shuffled.reshape(-1), offset, num_steps * batch_size)
    return stream.reshape(num_steps, batch_size).astype(jnp.int32)


def train_step(task: Task, hyperparameters: Hyperparameters, state: State, batch: Batch) -> State:
    """One step: forward, loss, backward, update.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: Before the step.
      batch: Its examples.

    Returns:
      The state after the step.
    """
    network = task.network()
    key = jax.random.fold_in(_key(hyperparameters.seed, 2), state.step)

    def data_loss(params: Params) -> tuple[Float[Array, ""], ModelState]:
        outputs, model_state = network.apply(params, state.model_state, batch.inputs, key=key, train=True)
        return task.loss.per_example(task.loss.align(outputs, batch.targets), batch.targets).mean(), model_state

    (loss, model_state), gradients = jax.value_and_grad(data_loss, has_aux=True)(state.params)
    updates, optimizer_state = task.transformation(hyperparameters).update(
        gradients, state.optimizer_state, state.params
    )
    return State(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        optimizer_state=optimizer_state,
        diverged_at=jnp.where((state.diverged_at < 0) & ~jnp.isfinite(loss), state.step, state.diverged_at),
    )


def train(task: Task, hyperparameters: Hyperparameters, state: State, data: Batch, order: Any, num_steps: Any) -> State:
    """Some steps in one compiled loop.

    The number of steps is traced, so that one compiled program serves a first, a full and a last stretch alike.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: Before the steps.
      data: All training examples.
      order: Example numbers, shape ``(at least num_steps, batch)``; None = every step sees all examples.
      num_steps: Shape ``()``.

    Returns:
      The state after the steps.
    """
    data, order = jax.tree.map(jnp.asarray, (data, order))

    def body(index: Any, state: State) -> State:
        batch = data if order is None else jax.tree.map(lambda array: array[order[index]], data)
        return train_step(task, hyperparameters, state, batch)

    return jax.lax.fori_loop(0, num_steps, body, state)


def score(task: Task, params: Params, model_state: ModelState, data: Batch) -> dict[str, Float[Array, ""]]:
    """Mean loss and accuracy of a network on a split.

    Args:
      task: What was trained.
      params: Weights.
      model_state: What goes with them.
      data: Inputs and targets.

    Returns:
      ``{"loss": ..., "accuracy": ...}``; the accuracy is nan where the loss has none.
    """
    network = task.network()

    def chunk_sums(batch: Batch, counts: Any) -> tuple[Any, Any]:
        outputs, _ = network.apply(params, model_state, batch.inputs, key=jax.random.key(0), train=False)
        outputs = task.loss.align(outputs, batch.targets)
        each = task.loss.per_example(outputs, batch.targets)
        correct = task.loss.correct(outputs, batch.targets)
        return jnp.where(counts, each, 0).sum(), jnp.where(counts, correct, 0).sum()

    num_examples = len(data.inputs)
    num_chunks = -(-num_examples // _EVALUATION_CHUNK)
    size = -(-num_examples // num_chunks)
    # The last chunk is filled up with the first examples, which do not count.
    rows = jnp.arange(num_chunks * size)
    chunks = jax.tree.map(lambda a: jnp.asarray(a)[rows % num_examples].reshape(num_chunks, size, *a.shape[1:]), data)
    loss_sums, correct_sums = jax.lax.map(
        lambda chunk: chunk_sums(*chunk), (chunks, (rows < num_examples).reshape(num_chunks, size))
    )
    return {"loss": loss_sums.sum() / num_examples, "accuracy": correct_sums.sum() / num_examples}


def report(
    task: Task, hyperparameters: Hyperparameters, state: State, data: Batch, validation: Batch
) -> dict[str, Float[Array, ""]]:
    """What is recorded of a member at an evaluation step; data loss and penalty stay apart.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: The member now.
      data: Training examples.
      validation: Validation examples.

    Returns:
      Numbers by name, each shape ``()``.
    """
    decays = masks.resolve(task.mask, state.params)
    decay_state = transform.carried(state.optimizer_state)
    on_train = score(task, state.params, state.model_state, data)
    on_validation = score(task, state.params, state.model_state, validation)
    return {
        "train_loss": on_train["loss"],
        "penalty": rules.penalty(hyperparameters.decay, state.params, task.mask, state=decay_state, count=state.step),
        "train_accuracy": on_train["accuracy"],
        "validation_loss": on_validation["loss"],
        "validation_accuracy": on_validation["accuracy"],
        "weight_norm": diagnostics.weight_norm(state.params, decays),
        "zero_fraction": diagnostics.zero_fraction(state.params, decays),
    }


def _all_targets(splits: Mapping[str, Batch]) -> np.ndarray:
    return np.concatenate([split.targets for split in splits.values()])


def _key(seed: Any, stream: int) -> Key:
    """Key of a member's stream: 0 the first weights, 1 the batches, 2 the forward passes."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(0), seed), stream)
