"""What trained members give beyond their curves: test scores, predictions, and what theory says of their decay."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from weightdecay.data import Scaling, on_disk, trees
from weightdecay.decay import masks, theory
from weightdecay.engine import devices
from weightdecay.engine.groups import TrainingGroup
from weightdecay.engine.preparation import TrainingRun
from weightdecay.models import network as networks
from weightdecay.search.grid import Grid
from weightdecay.storage.training_records import TrainingRecords
from weightdecay.training import evaluation, fine_tuning


def score_function(run: TrainingRun) -> Callable[[int, Any, Any], dict[str, float | None]] | None:
    """Return a function that scores a member on the test examples.

    Args:
      run: The run, trained.

    Returns:
      ``score(member, params, model_state)``, numbers by name, None for one that is not finite. None where there are no
      test examples.
    """
    if "test" not in run.splits:
        return None
    scores_of = _function_of_member(
        run,
        lambda task, numbers, params, model_state: evaluation.score(
            task, numbers, params, model_state, jax.tree.map(on_disk.in_memory, run.splits["test"])
        ),
    )

    def score(member: int, params: Any, model_state: Any) -> dict[str, float | None]:
        scores = scores_of(member, params, model_state)
        return {name: float(value) if np.isfinite(value) else None for name, value in scores.items()}

    return score


def predict_function(run: TrainingRun) -> Callable[[int, Any, Any, Any], Any]:
    """Return a function that computes the outputs of a member.

    Args:
      run: The run, trained.

    Returns:
      ``predict(member, params, model_state, inputs)``, arrays of shape ``(examples, ...)``.
    """
    outputs = _function_of_member(run, evaluation.predict)
    scaling = run.scaling or Scaling()

    def predict(member: int, params: Any, model_state: Any, inputs: Any) -> Any:
        inputs = trees.mapped(lambda _, array: np.asarray(array), inputs, "inputs")
        stored = scaling.stored_inputs(inputs)
        made = outputs(member, params, model_state, stored)
        return jax.tree.map(lambda array: scaling.original_targets(np.asarray(array)), made)

    return predict


def network_function(run: TrainingRun) -> Callable[[int, Any, Any], Any]:
    """Return a function that makes the trained network of a member.

    Args:
      run: The run, trained.

    Returns:
      ``network(member, params, model_state)``; see `weightdecay.models.network.trained`.
    """
    groups = {int(index): group for group in run.groups for index in group.indices}

    def make(member: int, params: Any, model_state: Any) -> Any:
        model = networks.with_options(run.model, dict(groups[member].model_options))
        return networks.trained(model, params, model_state)

    return make


def record_theory(run: TrainingRun, grid: Grid, records: TrainingRecords) -> None:
    """Record what `weightdecay.decay.theory` predicts for every member, next to what was measured.

    Args:
      run: The run, trained.
      grid: Its members.
      records: Hold what was measured. Take ``time_scale_epochs``, shape ``(members, steps)``; ``predicted_rotation``,
        ``(members, steps, layers)``; ``decaying_fraction`` and ``degrees_of_freedom``, ``(members,)``.
    """
    shape = len(grid), len(run.steps)
    time_scale, rotation = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    decaying, freedom = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    num_train = run.splits["train"].num_examples
    steps_per_epoch = 1.0 if run.batch_size is None else num_train / run.batch_size
    for group in run.groups:
        sizes = [leaf.size for leaf in jax.tree.leaves(group.state.params)]
        decays = masks.resolve(group.task.mask, group.state.params)
        decaying[group.indices] = sum(np.array(sizes)[decays]) / sum(sizes)
        inputs, intercept = _linear_inputs(run, group, decays), len(sizes) > 1
        squares = None if inputs is None else theory.spectrum(inputs, intercept=intercept)
        for member, index in enumerate(group.indices):
            predicted = theory.decayed(_transformation(group, grid[index]), run.steps)
            steps = (
                group.distinction(member)["num_examples"] / run.batch_size if group.limits_examples else steps_per_epoch
            )
            time_scale[index], rotation[index] = predicted.time_scale / steps, predicted.rotation
            if inputs is not None:
                zeros = float(records.metrics["zero_fraction"][index, -1]) if records.metrics else math.nan
                nonzero = None if math.isnan(zeros) else round((1 - zeros) * inputs.shape[1])
                freedom[index] = theory.degrees_of_freedom(
                    inputs, grid[index]["decay"], num_nonzero=nonzero, intercept=intercept, squares=squares
                )
    records.metrics["time_scale_epochs"] = time_scale
    measured = records.metrics.get("rotation", np.zeros((*shape, 0), np.float32))
    records.metrics["predicted_rotation"] = np.where(np.isnan(measured), np.nan, rotation[..., None])
    records.marks |= {"decaying_fraction": decaying, "degrees_of_freedom": freedom}


def _transformation(group: TrainingGroup, member: Mapping[str, Any]) -> Any:
    """Make the optimizer of a member, with its numbers as the user wrote them."""
    numbers = {name: member[name] for name in group.hyperparameters.optimizer}
    options = dict(group.task.options)
    return group.task.optimizer(member["learning_rate"], member["decay"], mask=group.task.mask, **numbers, **options)


def _linear_inputs(run: TrainingRun, group: TrainingGroup, decays: list[bool]) -> np.ndarray | None:
    """Return the training inputs of a linear network with one output that is fitted by squared error, else None."""
    inputs, leaves = run.splits["train"].inputs, jax.tree.leaves(group.state.params)
    kernels = [leaf for leaf, decayed in zip(leaves, decays, strict=True) if decayed]
    if on_disk.is_on_disk(inputs) and not run.plan.streamed:
        inputs = on_disk.in_memory(inputs)
    if not isinstance(inputs, np.ndarray) or on_disk.is_on_disk(inputs) or group.task.frozen:
        return None
    features = int(np.prod(inputs.shape[1:]))
    shapes = sorted(leaf.shape for leaf in leaves)
    is_linear = shapes in ([(features, 1)], [(1,), (features, 1)]) and len(kernels) == 1
    is_plain = not group.hyperparameters.training and not run.cross_validates
    if group.task.loss.name != "squared_error" or not is_linear or not is_plain:
        return None
    return inputs.reshape(len(inputs), features)


def _function_of_member(run: TrainingRun, function: Callable[..., Any]) -> Callable[..., Any]:
    """Turn ``function(task, hyperparameters, params, model_state, *others)`` into a function of a member's index.

    It takes all weights of the member, and is compiled once a group.
    """

    @functools.cache
    def compiled(group_number: int) -> Callable[..., Any]:
        return jax.jit(functools.partial(function, run.groups[group_number].task))

    positions = {
        int(index): (group_number, position)
        for group_number, group in enumerate(run.groups)
        for position, index in enumerate(group.indices)
    }

    @devices.outside_mesh
    def of_member(member: int, params: Any, model_state: Any, *others: Any) -> Any:
        group_number, position = positions[member]
        group = run.groups[group_number]
        numbers = jax.tree.map(lambda leaf: leaf[position], group.hyperparameters)._replace(frozen=group.start.frozen)
        weights = fine_tuning.divided(group.task, params, model_state, group.start.frozen)
        return compiled(group_number)(numbers, *weights, *others)

    return of_member
