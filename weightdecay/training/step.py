"""Training of one member: its initial state, its steps, and its forward pass outside training.

Random keys follow from the seed alone, so that members that differ only in the decay start at the same weights and see
the same batches.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import Float

from weightdecay.core import random_streams, tree
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Batch, ModelState, Params
from weightdecay.data import augment, dataset, trees
from weightdecay.data.batches import Examples
from weightdecay.training import accumulation, diagnostics, fine_tuning, losses
from weightdecay.training.accumulation import Part
from weightdecay.training.task import LAYER_METRICS, Average, Best, Hyperparameters, State, Task

_BLOCK = 32  # steps between two checks that all numbers are finite


def check_outputs(task: Task, hyperparameters: Hyperparameters, state: State, splits: Mapping[str, Batch]) -> None:
    """Check, by shapes alone, that the outputs of a network fit the targets, the loss and the metrics.

    Args:
      task: What is trained.
      hyperparameters: A member's, as shapes.
      state: Its state, as shapes.
      splits: Examples by the name of the split.

    Raises:
      TypeError: A metric that cannot be traced.
      ValueError: Fewer outputs than classes, outputs of another shape than the targets, or a loss or a metric that does
        not return one number for each example.
    """
    validation = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), splits["validation"])

    def outputs_of(hyperparameters: Hyperparameters, state: State, batch: Batch) -> Any:
        return outputs_and_batch(task, hyperparameters, state.params, state.model_state, batch)[0]

    outputs = jax.eval_shape(outputs_of, hyperparameters, state, validation)
    losses.check_outputs(task.loss, outputs, [split.targets for split in splits.values()])
    values = jax.eval_shape(task.loss.per_example, outputs, validation.targets)
    if not losses.has_one_per_example(values, outputs, validation.targets):
        num_examples = validation.num_examples
        raise ArgumentError(
            "loss",
            f"loss returns an array of shape {getattr(values, 'shape', None)} for {num_examples} examples; return one "
            f"loss for each example, shape ({num_examples},), or for each position of it, not their mean.",
        )
    are_equal = not task.loss.ignores and all(split.weights is None and split.fold is None for split in splits.values())
    for metric in task.metrics:
        losses.check_metric_shape(metric, outputs, validation.targets)
        if metric.of_split is not None and not metric.of_split.takes_weights() and not are_equal:
            raise ArgumentError(
                "metrics",
                f"metrics[{metric.name!r}] takes no weights, and not all examples count alike (data has folds, weights "
                "or targets below 0); give wd.metrics.whole_split a function of outputs, targets and weights.",
            )


def initialize(
    task: Task, hyperparameters: Hyperparameters, inputs: Any, start: fine_tuning.Start = fine_tuning.NOTHING
) -> State:
    """Initial weights and state of a member.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      inputs: Some inputs, for their shape, ``(examples, ...)``.
      start: Weights that are given.

    Returns:
      The state at step 0.
    """
    params, model_state = task.network().init(
        random_streams.key(hyperparameters.seed, random_streams.INITIAL_WEIGHTS), inputs
    )
    params, model_state = fine_tuning.started(task, hyperparameters, params, model_state, start)
    anchored = fine_tuning.anchored(task, hyperparameters, start)
    optimizer_state = task.transformation(anchored).init(params)
    zero, never = jnp.zeros((), jnp.int32), jnp.full((), -1, jnp.int32)
    average = Average(params, model_state) if "ema" in hyperparameters.training else None
    best = None
    if "patience" in hyperparameters.training:
        unknown = {name: jnp.full((), jnp.nan) for name in task.metric_names()}
        unknown |= {name: jnp.full((len(task.layers(params)),), jnp.nan) for name in LAYER_METRICS}
        best = Best(zero, params, model_state, unknown, zero, average)
    return State(zero, params, model_state, optimizer_state, never, never, best, average)


def outputs_and_batch(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, batch: Batch
) -> tuple[Any, Batch]:
    """Outputs of a network outside training, aligned with the targets.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: State of the model.
      batch: Examples as in the data.

    Returns:
      The outputs in the shape of the targets, and the standardized batch that the network received.
    """
    outputs, batch, _ = outputs_batch_and_state(task, hyperparameters, params, model_state, batch)
    return outputs, batch


def outputs_batch_and_state(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, batch: Batch
) -> tuple[Any, Batch, ModelState]:
    """`outputs_and_batch`, and the state of the model after the forward pass, which holds its sown loss."""
    batch = standardized(hyperparameters, batch)
    outputs, model_state = forward(task, hyperparameters, params, model_state, batch.inputs)
    return task.loss.align(outputs, batch.targets), batch, model_state


def forward(
    task: Task, hyperparameters: Hyperparameters, params: Params, model_state: ModelState, inputs: Any
) -> tuple[Any, ModelState]:
    """Outputs of a network outside training, and its state, in which only the sown loss may change.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      params: Weights.
      model_state: State of the model.
      inputs: Standardized inputs, ``(examples, ...)``.

    Returns:
      The outputs, ``(examples, ...)``, and the state.
    """
    network, key = fine_tuning.network(task, hyperparameters), random_streams.constant_key()
    return network.apply(params, model_state, inputs, key=key, train=False, hyperparameters=hyperparameters.network)


def standardized(hyperparameters: Hyperparameters, batch: Batch) -> Batch:
    """Standardize examples by the scaling of a member's fold.

    Args:
      hyperparameters: The member's.
      batch: Examples as in the data.

    Returns:
      The standardized examples; the same examples if there are no folds.
    """
    scaling = hyperparameters.scaling
    if scaling is None:
        return batch
    targets = batch.targets
    if scaling.target_mean is not None:
        targets = dataset.scaled(targets, scaling.target_mean, scaling.target_scale)
    return batch._replace(inputs=scaling.scaled_inputs(batch.inputs), targets=targets)


def sizes(task: Task, hyperparameters: Mapping[str, Any], batch: Batch) -> tuple[int, int]:
    """Bytes of the weights of a network, and of all arrays that its forward pass computes, from shapes alone.

    Args:
      task: What is trained.
      hyperparameters: Of the network, as shapes.
      batch: A batch, as shapes.

    Returns:
      The two numbers of bytes.
    """
    network = task.network()
    key = random_streams.constant_key()
    params, model_state = jax.eval_shape(network.init, key, batch.inputs)

    def forward(params: Params, model_state: ModelState, inputs: Any, hyperparameters: Mapping[str, Any]) -> Any:
        return network.apply(params, model_state, inputs, key=key, train=True, hyperparameters=hyperparameters)

    equations = jax.make_jaxpr(forward)(params, model_state, batch.inputs, dict(hyperparameters)).jaxpr.eqns
    computed = [variable.aval for equation in equations for variable in equation.outvars]
    return _num_bytes(jax.tree.leaves(params)), _num_bytes(computed)


def _num_bytes(arrays: list[Any]) -> int:
    return sum(array.size * array.dtype.itemsize for array in arrays)


def train_step(task: Task, hyperparameters: Hyperparameters, state: State, batch: Batch) -> tuple[State, Any]:
    """One training step: forward pass, loss, gradient, update.

    With ``task.accumulate`` the batch is divided into as many parts of equal size, whose gradients are computed one
    after the other and summed. The loss is the same mean over everything that counts in the whole batch; each part has
    random keys of its own, and passes the model state, such as batch statistics, on to the next one.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: Before the step.
      batch: Examples of the step.

    Returns:
      The state after the step, and the loss and the gradients of the step.
    """
    network, strengths = fine_tuning.network(task, hyperparameters), hyperparameters.training
    key = jax.random.fold_in(random_streams.key(hyperparameters.seed, random_streams.FORWARD_PASS), state.step)
    batch = standardized(hyperparameters, batch)
    targets, weights = batch.targets, batch.weights
    inputs, partners, fraction = _augmented(task, hyperparameters, state.step, batch.inputs)

    def losses_of(outputs: Any, targets: Any, weights: Any) -> Any:
        if "label_smoothing" in strengths:
            values = task.loss.smoothed(outputs, targets, strengths["label_smoothing"])
        else:
            values = task.loss.per_example(outputs, targets)
        return values if weights is None else values * losses.spread(weights, values)

    def data_loss(
        params: Params, model_state: ModelState, key: Any, part: Part, mean: Callable[[Any, Any], Any]
    ) -> tuple[Float[Array, ""], ModelState]:
        part = task.spread(part)
        outputs, model_state = network.apply(
            params, model_state, part.inputs, key=key, train=True, hyperparameters=hyperparameters.network
        )
        sown = fine_tuning.sown_loss(model_state)
        # Each part of a batch sows a loss of its own; the mean of them is added.
        sown = sown if sown is None or task.accumulate == 1 else sown / task.accumulate
        outputs = task.loss.align(outputs, part.targets)
        values = losses_of(outputs, part.targets, part.weights)
        if partners is not None:
            partner_targets, partner_weights = part.of_partners()
            of_partners = losses_of(outputs, partner_targets, partner_weights)
            if task.loss.ignores:
                of_partners = mean(of_partners, partner_targets)
                loss = fraction * mean(values, part.targets) + (1 - fraction) * of_partners
                return loss if sown is None else loss + sown, model_state
            values = fraction * values + (1 - fraction) * of_partners
        loss = mean(values, part.targets)
        return loss if sown is None else loss + sown, model_state

    whole = Part(inputs, targets, weights, partners)
    if task.accumulate == 1:
        value_and_gradient = jax.value_and_grad(data_loss, has_aux=True)
        (loss, model_state), gradients = value_and_gradient(state.params, state.model_state, key, whole, task.loss.mean)
        # Layers may return statistics in the dtype of their inputs; the state of a member keeps its dtypes.
        model_state = jax.tree.map(lambda new, old: new.astype(old.dtype), model_state, state.model_state)
    else:
        loss, model_state, gradients = accumulation.summed(task, data_loss, state, key, whole)
    loss_and_gradients = loss, gradients
    if "clip_norm" in strengths:
        norm, bound = tree.norm(gradients), strengths["clip_norm"]
        factor = jnp.where(norm > bound, bound / norm, 1)
        gradients = jax.tree.map(lambda gradient: gradient * factor.astype(gradient.dtype), gradients)
    updates, optimizer_state = task.transformation(hyperparameters).update(
        gradients, state.optimizer_state, state.params
    )
    after = state._replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        model_state=model_state,
        optimizer_state=optimizer_state,
    )
    return _with_average(hyperparameters, after), loss_and_gradients


def _with_average(hyperparameters: Hyperparameters, state: State) -> State:
    """Update the average of a member after a step, ``average <- d average + (1 - d) weights``; integers are copied."""
    if state.average is None:
        return state
    decay = hyperparameters.training["ema"]

    def update(average: Any, now: Any) -> Any:
        if not jnp.issubdtype(now.dtype, jnp.floating):
            return now
        return (decay * average + (1 - decay) * now).astype(average.dtype)

    now = Average(state.params, state.model_state)
    return state._replace(average=jax.tree.map(update, state.average, now))


def train(
    task: Task, hyperparameters: Hyperparameters, state: State, examples: Examples, num_steps: Any
) -> tuple[State, Params, Any]:
    """Take some steps in one compiled loop, without checking the numbers of each.

    The number of steps is traced, so that one compiled program serves short and long segments alike.

    Steps are taken in blocks. If a number was not finite after a block, the member returns to the state before the
    block, and waits there for `repeat`. As long as all members of a lane are finite, this costs one check and one copy
    for each block. The last step is a block of its own, so that the weights before it are available.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: Before the steps.
      examples: Of at least ``num_steps`` steps.
      num_steps: At least 1, shape ``()``.

    Returns:
      The state after the steps, the weights before the last step, and -1, shape ``()``. If a number of a block was not
      finite: the state and the weights before the block, and the number of steps that were taken before it.
    """

    def step(index: Any, carry: tuple[State, Any]) -> tuple[State, Any]:
        after, (loss, _) = train_step(task, hyperparameters, carry[0], examples.at(index))
        return after, carry[1] & jnp.isfinite(loss)

    last_block = -(-(num_steps - 1) // _BLOCK)

    def block(number: Any, carry: tuple[State, Params, Any]) -> tuple[State, Params, Any]:
        before, _, failed = carry
        first = jnp.minimum(number * _BLOCK, num_steps - 1)
        last = jnp.where(number == last_block, num_steps, jnp.minimum(first + _BLOCK, num_steps - 1))
        after, finite = jax.lax.fori_loop(first, last, step, (before, jnp.ones((), bool)))
        finite &= diagnostics.all_finite(after)
        is_training = before.is_training() & (failed < 0)
        state = jax.tree.map(lambda new, old: jnp.where(is_training & finite, new, old), after, before)
        return state, before.params, jnp.where(is_training & ~finite, first, failed)

    best, state = state.best, state._replace(best=None)  # no step changes it
    start = state, state.params, jnp.full((), -1, jnp.int32)
    state, previous, failed = jax.lax.fori_loop(0, last_block + 1, block, start)
    return state._replace(best=best), previous, failed


def repeat(
    task: Task,
    hyperparameters: Hyperparameters,
    state: State,
    previous: Params,
    failed: Any,
    examples: Examples,
    num_steps: Any,
) -> tuple[State, Params]:
    """Take the steps again that `train` did not finish, and check each; a member that diverges stays as it was before.

    Args:
      task: What is trained.
      hyperparameters: The member's.
      state: As `train` returned it.
      previous: As `train` returned it.
      failed: As `train` returned it. Where it is -1 nothing changes.
      examples: The same as in `train`.
      num_steps: The same as in `train`.

    Returns:
      The state after the steps, and the weights before the last step. If a step has a loss, a gradient or a new state
      that is not finite, ``diverged_at`` is the first such step and everything else is as before that step.
    """

    def repeats(carry: tuple[Any, State, Params]) -> Any:
        index, state, _ = carry
        return (index >= 0) & (index < num_steps) & state.is_training()

    def step(carry: tuple[Any, State, Params]) -> tuple[Any, State, Params]:
        index, state, _ = carry
        after, loss_and_gradients = train_step(task, hyperparameters, state, examples.at(index))
        finite = diagnostics.all_finite((after, loss_and_gradients))
        diverged = state._replace(diverged_at=state.step)
        state_after = jax.tree.map(lambda new, old: jnp.where(finite, new, old), after, diverged)
        return index + 1, state_after, state.params

    best, state = state.best, state._replace(best=None)  # no step changes it
    _, state, previous = jax.lax.while_loop(repeats, step, (failed, state, previous))
    return state._replace(best=best), previous


def _augmented(task: Task, hyperparameters: Hyperparameters, step: Any, inputs: Any) -> tuple[Any, Any, Any]:
    """Inputs of a step after augmentation and mixup, the mixing partners (None = no mixup), and the mixing fraction."""
    strengths = hyperparameters.training
    if trees.is_tree(inputs):
        return _augmented_leaf(task, hyperparameters, step, inputs)
    augmentations = {name: strengths[name] for name in augment.KINDS if name in strengths}
    if augmentations:
        inputs = augment.augmented(
            jax.random.fold_in(random_streams.key(hyperparameters.seed, random_streams.AUGMENTATION), step),
            inputs,
            augmentations,
        )
    if "mixup" not in strengths:
        return inputs, None, None
    return augment.mixup(
        jax.random.fold_in(random_streams.key(hyperparameters.seed, random_streams.MIXUP), step),
        inputs,
        strengths["mixup"],
    )


def _augmented_leaf(task: Task, hyperparameters: Hyperparameters, step: Any, inputs: Any) -> tuple[Any, Any, Any]:
    """`_augmented` of inputs that are several arrays, of which each kind acts on one."""
    leaves, structure = jax.tree.flatten(inputs)
    partners = fraction = None
    strengths = hyperparameters.training
    for name in (*augment.KINDS, "mixup"):  # in the order of one array
        if name in strengths:
            index = augment.leaf(name, inputs, task.augmented)
            alone = hyperparameters._replace(training={name: strengths[name]})
            leaves[index], partners_of, fraction_of = _augmented(task, alone, step, leaves[index])
            partners, fraction = (partners_of, fraction_of) if name == "mixup" else (partners, fraction)
    return jax.tree.unflatten(structure, leaves), partners, fraction
