"""One member from its first weights to its last: initialize, forward, loss, backward, update.

Pure functions of one member, without a thought of others; `weightdecay.training.task` says what they take and give.
Random keys come from the seed alone, so that members that differ in the decay start at the same weights and see the
same batches. `weightdecay.training.evaluation` says what is told of a member.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from weightdecay.core import random_streams, tree
from weightdecay.core.types import Batch, ModelState, Params
from weightdecay.data import augment
from weightdecay.data.batches import Examples
from weightdecay.training import diagnostics, losses
from weightdecay.training.task import LAYER_METRICS, Best, Hyperparameters, State, Task, all_targets

_BLOCK = 32  # steps between two looks whether all numbers are finite


def check_outputs(task: Task, hyperparameters: Hyperparameters, state: State, splits: Mapping[str, Batch]) -> None:
    """Refuse a network whose outputs do not fit the targets or the loss, by its shapes alone.

    Args:
      task: What is to be trained.
      hyperparameters: A member's, as shapes.
      state: Its state, as shapes.
      splits: Examples by name.

    Raises:
      ValueError: Fewer outputs than classes, outputs of another shape than the targets, or a loss that does not give
        one number an example.
    """
    validation = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), splits["validation"])

    def forward(hyperparameters: Hyperparameters, state: State, batch: Batch) -> Any:
        return evaluated(task, hyperparameters, state.params, state.model_state, batch)[0]

    outputs = jax.eval_shape(forward, hyperparameters, state, validation)
    losses.check_outputs(task.loss, outputs, all_targets(splits))
    each = jax.eval_shape(task.loss.per_example, outputs, validation.targets)
    if each.shape != validation.targets.shape[:1]:
        raise ValueError(
            f"loss gives an array of shape {each.shape} for {len(validation.targets)} examples; it must give one loss "
            f"an example, shape {validation.targets.shape[:1]}, and not their mean."
        )
    for metric in task.metrics:
        losses.check_metric_shape(metric, outputs, validation.targets)


def initialize(task: Task, hyperparameters: Hyperparameters, inputs: Any) -> State:
    """First weights and states of a member.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      inputs: Some inputs, for their shape, ``(examples, ...)``.

    Returns:
      The state at step 0.
    """
    params, model_state = task.network().init(
        random_streams.key(hyperparameters.seed, random_streams.INITIAL_WEIGHTS), inputs
    )
    optimizer_state = task.transformation(hyperparameters).init(params)
    zero, never = jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
    best = None
    if "patience" in hyperparameters.training:
        unknown = {name: jnp.full((), jnp.nan) for name in task.metric_names()}
        unknown |= {name: jnp.full((len(task.layers(params)),), jnp.nan) for name in LAYER_METRICS}
        best = Best(zero, params, model_state, unknown, zero)
    return State(zero, params, model_state, optimizer_state, diverged_at=never, stopped_at=never, best=best)


def evaluated(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, batch: Batch
) -> tuple[Any, Batch]:
    """Outputs of a network that is not being trained.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Its weights.
      model_state: What goes with them.
      batch: Examples as they lie in the data.

    Returns:
      The outputs in the targets' shape, and the examples as the network sees them.
    """
    batch = scaled(hyperparameters, batch)
    return task.loss.align(forward(task, hyperparameters, params, model_state, batch.inputs), batch.targets), batch


def forward(task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, inputs: Any) -> Any:
    """Outputs of a network that is not being trained, as it gives them.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Its weights.
      model_state: What goes with them.
      inputs: As the network sees them, ``(examples, ...)``.

    Returns:
      The outputs, ``(examples, ...)``.
    """
    outputs, _ = task.network().apply(
        params, model_state, inputs, key=jax.random.key(0), train=False, hyperparameters=hyperparameters.network
    )
    return outputs


def scaled(hyperparameters: Hyperparameters, batch: Batch) -> Batch:
    """Examples standardized by what was fitted on the training examples of a member's fold.

    Args:
      hyperparameters: The member's.
      batch: Examples as they lie in the data.

    Returns:
      The same, where there are no folds.
    """
    scaling = hyperparameters.scaling
    if scaling is None:
        return batch
    inputs, targets = batch.inputs, batch.targets
    if scaling.input_mean is not None:
        inputs = (inputs - scaling.input_mean) / scaling.input_scale
    if scaling.target_mean is not None:
        targets = (targets - scaling.target_mean) / scaling.target_scale
    return batch._replace(inputs=inputs, targets=targets)


def sizes(task: Task, hyperparameters: Mapping[str, Any], batch: Batch) -> tuple[int, int]:
    """Bytes of a network's weights, and of the arrays that a forward pass makes, from its shapes alone.

    Args:
      task: What is trained.
      hyperparameters: Of the network, as shapes.
      batch: A batch, as shapes.

    Returns:
      The two.
    """
    network = task.network()
    key = jax.random.key(0)
    params, model_state = jax.eval_shape(network.init, key, batch.inputs)

    def forward(params: Params, model_state: ModelState, inputs: Any, hyperparameters: Mapping[str, Any]) -> Any:
        return network.apply(params, model_state, inputs, key=key, train=True, hyperparameters=hyperparameters)

    made = jax.make_jaxpr(forward)(params, model_state, batch.inputs, dict(hyperparameters)).jaxpr.eqns
    arrays = [variable.aval for equation in made for variable in equation.outvars]
    size = lambda arrays: sum(array.size * array.dtype.itemsize for array in arrays)  # noqa: E731
    return size(jax.tree.leaves(params)), size(arrays)


def train_step(task: Task, hyperparameters: Hyperparameters, state: State, batch: Batch) -> tuple[State, Any]:
    """One step: forward, loss, backward, update.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: Before the step.
      batch: Its examples.

    Returns:
      The state after the step, and the loss and the gradients that led there.
    """
    network, strengths = task.network(), hyperparameters.training
    key = jax.random.fold_in(random_streams.key(hyperparameters.seed, random_streams.FORWARD_PASS), state.step)
    batch = scaled(hyperparameters, batch)
    targets, weights = batch.targets, batch.weights
    inputs, other, share = _varied(hyperparameters, state.step, batch.inputs)

    def losses_of(outputs: Any, targets: Any, weights: Any) -> Any:
        if "label_smoothing" in strengths:
            each = task.loss.smoothed(outputs, targets, strengths["label_smoothing"])
        else:
            each = task.loss.per_example(outputs, targets)
        return each if weights is None else each * weights

    def data_loss(params: Params) -> tuple[Float[Array, ""], ModelState]:
        outputs, model_state = network.apply(
            params, state.model_state, inputs, key=key, train=True, hyperparameters=hyperparameters.network
        )
        outputs = task.loss.align(outputs, targets)
        each = losses_of(outputs, targets, weights)
        if other is not None:
            others = losses_of(outputs, targets[other], None if weights is None else weights[other])
            each = share * each + (1 - share) * others
        return each.mean(), model_state

    (loss, model_state), gradients = jax.value_and_grad(data_loss, has_aux=True)(state.params)
    made = loss, gradients
    if "clip_norm" in strengths:
        norm, most = tree.norm(gradients), strengths["clip_norm"]
        shrink = jnp.where(norm > most, most / norm, 1)
        gradients = jax.tree.map(lambda gradient: gradient * shrink.astype(gradient.dtype), gradients)
    updates, optimizer_state = task.transformation(hyperparameters).update(
        gradients, state.optimizer_state, state.params
    )
    after = state._replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        optimizer_state=optimizer_state,
    )
    return after, made


def train(
    task: Task, hyperparameters: Hyperparameters, state: State, examples: Examples, num_steps: Any
) -> tuple[State, Params]:
    """Some steps in one compiled loop; a member that is not finite any more stays at its last finite state.

    The number of steps is traced, so that one compiled program serves a first, a full and a last stretch alike.

    Steps are taken in short blocks without a look at their numbers. After a block in which a number was not finite, the
    member goes back to its start and takes the steps again one by one, up to the one that fails. This costs a lane
    nothing but one look and one copy a block, as long as all its members live. The last step is a block of its own, so
    that what it started from is at hand.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: Before the steps.
      examples: Of at least ``num_steps`` steps.
      num_steps: At least 1, shape ``()``.

    Returns:
      The state after the steps; ``diverged_at`` is the first step whose loss, gradient or new state is not finite, and
      all else is as it was before that step. And the weights before the last step.
    """

    def step(index: Any, state: State) -> tuple[State, Any]:
        return train_step(task, hyperparameters, state, examples.at(index))

    last_block = -(-(num_steps - 1) // _BLOCK)

    def block(number: Any, carry: tuple[State, Params]) -> tuple[State, Params]:
        before, _ = carry
        first = jnp.minimum(number * _BLOCK, num_steps - 1)
        last = jnp.where(number == last_block, num_steps, jnp.minimum(first + _BLOCK, num_steps - 1))

        def unseen(index: Any, carry: tuple[State, Any]) -> tuple[State, Any]:
            after, (loss, _) = step(index, carry[0])
            return after, carry[1] & jnp.isfinite(loss)

        after, sound = jax.lax.fori_loop(first, last, unseen, (before, jnp.ones((), bool)))
        sound &= diagnostics.all_finite(after)
        lives = before.goes_on()
        state = jax.tree.map(lambda new, old: jnp.where(lives & sound, new, old), after, before)

        def goes_on(carry: tuple[Any, State]) -> Any:
            index, state = carry
            return lives & ~sound & (index < last) & state.goes_on()

        def seen(carry: tuple[Any, State]) -> tuple[Any, State]:
            index, state = carry
            after, made = step(index, state)
            finite = diagnostics.all_finite((after, made))
            stays = state._replace(diverged_at=state.step)
            return index + 1, jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, stays)

        return jax.lax.while_loop(goes_on, seen, (first, state))[1], before.params

    best, state = state.best, state._replace(best=None)  # no step touches it
    state, previous = jax.lax.fori_loop(0, last_block + 1, block, (state, state.params))
    return state._replace(best=best), previous


def _varied(hyperparameters: Hyperparameters, step: Any, inputs: Any) -> tuple[Any, Any, Any]:
    """Inputs of a step, augmented and mixed; with whom each is mixed (None = with nobody), and its own share."""
    strengths = hyperparameters.training
    augmenting = {name: strengths[name] for name in augment.KINDS if name in strengths}
    if augmenting:
        inputs = augment.augmented(
            jax.random.fold_in(random_streams.key(hyperparameters.seed, random_streams.AUGMENTATION), step),
            inputs,
            augmenting,
        )
    if "mixup" not in strengths:
        return inputs, None, None
    return augment.mixup(
        jax.random.fold_in(random_streams.key(hyperparameters.seed, random_streams.MIXUP), step),
        inputs,
        strengths["mixup"],
    )
