"""What `weightdecay.decay.theory` says of every member of a grid, entered beside what was measured."""

import math

import jax
import numpy as np

from weightdecay.decay import masks, theory
from weightdecay.engine.groups import Group
from weightdecay.engine.preparation import Work
from weightdecay.search.grid import Grid
from weightdecay.storage.records import Records


def enter(work: Work, grid: Grid, records: Records) -> None:
    """Enter time scale, predicted rotation, the share of the weights that decay, and degrees of freedom.

    Args:
      work: The grid, trained.
      grid: Its members.
      records: Hold what was measured; take ``time_scale_epochs``, ``(members, steps)``; ``predicted_rotation``,
        ``(members, steps, layers)``; ``decaying_fraction`` and ``degrees_of_freedom``, ``(members,)``.
    """
    shape = len(grid), len(work.steps)
    time_scale, rotation = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    decaying, freedom = np.full(len(grid), np.nan), np.full(len(grid), np.nan)
    num_train = len(work.splits["train"].inputs)
    steps_per_epoch = 1.0 if work.batch_size is None else num_train / work.batch_size
    for group in work.groups:
        sizes = [leaf.size for leaf in jax.tree.leaves(group.state.params)]
        decays = masks.resolve(group.task.mask, group.state.params)
        decaying[group.places] = sum(np.array(sizes)[decays]) / sum(sizes)
        inputs, intercept = _linear_inputs(work, group, decays), len(sizes) > 1
        squares = None if inputs is None else theory.spectrum(inputs, intercept=intercept)
        for place in group.places:
            told = theory.decayed(grid[place], group.task.optimizer, work.steps)
            time_scale[place], rotation[place] = told.time_scale / steps_per_epoch, told.rotation
            if inputs is not None:
                zeros = float(records.metrics["zero_fraction"][place, -1]) if records.metrics else math.nan
                nonzero = None if math.isnan(zeros) else round((1 - zeros) * inputs.shape[1])
                freedom[place] = theory.degrees_of_freedom(
                    inputs, grid[place]["decay"], num_nonzero=nonzero, intercept=intercept, squares=squares
                )
    records.metrics["time_scale_epochs"] = time_scale
    measured = records.metrics.get("rotation", np.zeros((*shape, 0), np.float32))
    records.metrics["predicted_rotation"] = np.where(np.isnan(measured), np.nan, rotation[..., None])
    records.marks |= {"decaying_fraction": decaying, "degrees_of_freedom": freedom}


def _linear_inputs(work: Work, group: Group, decays: list[bool]) -> np.ndarray | None:
    """Training inputs, where the network is linear with one output and is fitted by squared error; else None."""
    inputs, leaves = work.splits["train"].inputs, jax.tree.leaves(group.state.params)
    kernels = [leaf for leaf, decayed in zip(leaves, decays, strict=True) if decayed]
    features = int(np.prod(inputs.shape[1:]))
    shapes = sorted(leaf.shape for leaf in leaves)
    is_linear = shapes in ([(features, 1)], [(1,), (features, 1)]) and len(kernels) == 1
    plain = not group.hyperparameters.training and work.splits["train"].fold is None
    if group.task.loss.name != "squared_error" or not is_linear or not plain:
        return None
    return inputs.reshape(len(inputs), features)
