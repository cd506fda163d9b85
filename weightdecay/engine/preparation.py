"""A grid prepared for training: everything is checked and decided before anything is compiled."""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from weightdecay import data as datasets
from weightdecay.core import checks
from weightdecay.core import metrics as metrics_table
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Batch, Device, Integer, LossFn, Mask, MaskFn
from weightdecay.data import Data, Scaling
from weightdecay.data.batches import FromHost, OnDevice
from weightdecay.engine import devices, groups, hosts, meshes, plans, routing
from weightdecay.engine.groups import TrainingGroup
from weightdecay.engine.initial_weights import Initial
from weightdecay.engine.meshes import MeshSettings, Weight
from weightdecay.engine.placements import OneDevice, OnMesh, Placement
from weightdecay.engine.plans import Plan
from weightdecay.search.grid import Grid, in_steps
from weightdecay.training import step
from weightdecay.training import task as tasks
from weightdecay.training.task import Task

_LARGEST_STEP = 2**31 - 1  # steps are counted in int32


@dataclass(frozen=True, eq=False)
class TrainingRun:
    """A grid prepared for training.

    Attributes:
      groups: Members of equal structure.
      grid: The members, with numbers of steps in place of fractions of the run.
      splits: Examples by name.
      steps: Steps at which members are evaluated, ascending; the last one is the last training step.
      batch_size: Examples a step; None = all of them.
      plan: Lanes and devices.
      model: The model, completed by what follows from the data (the number of outputs).
      scaling: Standardization of the folds; None = no standardization.
      class_names: Names of the classes 0, 1, 2, ...; None = their own numbers, or the targets are not classes.
      mesh: Devices that compute a lane together; None = each lane is computed by one device.
      weights: How the weights of each group are partitioned over the mesh, by the name of the group.
    """

    groups: list[TrainingGroup]
    grid: Grid
    splits: Mapping[str, Batch]
    steps: list[int]
    batch_size: int | None
    plan: Plan
    model: Any
    scaling: Scaling | None
    class_names: tuple[Any, ...] | None
    mesh: MeshSettings | None = None
    weights: Mapping[str, tuple[Weight, ...]] = field(default_factory=dict)

    @property
    def longest_segment(self) -> int:
        """Largest number of steps of a segment."""
        return min(self.plan.steps_per_call, max(stop - start for start, stop in itertools.pairwise([0, *self.steps])))

    @property
    def cross_validates(self) -> bool:
        """Whether each training example validates in its fold: one copy of the examples then serves both purposes."""
        return self.splits["train"].fold is not None

    @property
    def may_stream(self) -> bool:
        """Whether batches may come from the host, chunk by chunk also for the metrics of the training examples."""
        return not self.cross_validates and not any(group.limits_examples for group in self.groups)

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices that lanes are spread over; of a mesh, those of this process."""
        if self.mesh is not None:
            return tuple(self.mesh.mesh.local_devices)
        return tuple(jax.local_devices()[: self.plan.num_devices])

    def placements(self, group: TrainingGroup) -> tuple[Placement, ...]:
        """Where lanes of a group are computed at the same time: each device, or the whole mesh."""
        if self.mesh is not None:
            return (OnMesh(self.mesh.mesh, self.weights[group.name]),)
        return tuple(map(OneDevice, self.devices))

    @property
    def program_width(self) -> int:
        """Members that a program computes: the lane width, filled up to a multiple of the mesh's axis ``member``."""
        multiple = 1 if self.mesh is None else self.mesh.shape[meshes.MEMBER]
        return -(-self.plan.lane_width // multiple) * multiple

    @functools.cached_property
    def source(self) -> OnDevice | FromHost:
        """Where the batches come from."""
        if not self.plan.streamed:
            return OnDevice(self.splits["train"], self.batch_size)
        assert self.batch_size is not None
        streams = max(len(np.unique(group.streams(slice(None)), axis=0)) for group in self.groups)
        return FromHost(self.splits["train"], self.batch_size, min(streams, self.plan.lane_width))


def prepare_run(
    model: Any,
    data: Data,
    grid: Grid,
    *,
    optimizer: Callable[..., Any],
    loss: str | LossFn | None,
    num_steps: Integer,
    batch_size: Integer | None,
    eval_every: Integer | None,
    patience: Integer | None,
    stopping_metric: str,
    metrics: Mapping[str, LossFn] | None,
    lower_is_better: Mapping[str, bool] | None,
    mask: Mask | MaskFn,
    initial: Any,
    trainable: Mask | MaskFn | None,
    plan: Plan | None,
    memory_budget: Integer | None,
    dtype: Any,
    accumulate: Integer,
    mesh: Any = None,
    sharding: Any = None,
    before: Mapping[str, Any] = MappingProxyType({}),
) -> TrainingRun:
    """Check everything, and decide what is run and how, before anything is compiled.

    What an earlier call in the same run directory chose is chosen again.

    Args:
      model: As in `weightdecay.engine.fit.fit_grid`.
      data: As in ``fit_grid``.
      grid: As in ``fit_grid``.
      optimizer: As in ``fit_grid``.
      loss: As in ``fit_grid``.
      num_steps: As in ``fit_grid``.
      batch_size: As in ``fit_grid``.
      eval_every: As in ``fit_grid``; None = as ``before``, or about twenty evaluations.
      patience: As in ``fit_grid``.
      stopping_metric: As in ``fit_grid``.
      metrics: As in ``fit_grid``.
      lower_is_better: As in ``fit_grid``.
      mask: As in ``fit_grid``.
      initial: As in ``fit_grid``.
      trainable: As in ``fit_grid``.
      plan: As in ``fit_grid``.
      memory_budget: As in ``fit_grid``.
      dtype: As in ``fit_grid``.
      accumulate: As in ``fit_grid``.
      mesh: As in ``fit_grid``.
      sharding: As in ``fit_grid``.
      before: What an earlier call in the same run directory depends on; empty = there was no earlier call.

    Returns:
      The prepared run.

    Raises:
      TypeError: An argument has a wrong type.
      ValueError: An argument has a wrong value.
      MemoryError: One member does not fit into the memory under any plan.
    """
    devices.prepare()
    if eval_every is None:
        eval_every = before.get("eval_every")
    num_steps, eval_every = _check_steps(num_steps, eval_every)
    if isinstance(data, Data):
        data = data.with_class_indices(loss)
    datasets.check(data, batch_size)
    batch_size = None if batch_size is None else int(batch_size)
    accumulate = _check_accumulate(accumulate, batch_size, len(jax.tree.leaves(data.train[0])[0]))
    on_mesh = meshes.settings(mesh, sharding)
    if on_mesh is not None:
        num_examples = len(jax.tree.leaves(data.train[0])[0])
        meshes.check_batch(on_mesh, batch_size, num_examples, accumulate)
    if plan is not None:
        plans.check(plan, batch_size=batch_size, mesh=None if on_mesh is None else on_mesh.shape)
    if memory_budget is not None:
        memory_budget = checks.integer(memory_budget, "memory_budget", at_least=0, allowed="a number of bytes, or None")
    if patience is not None:
        patience = checks.integer(
            patience, "patience", at_least=1, allowed="a number of evaluations of at least 1, or None"
        )
    if not isinstance(grid, Grid):
        raise TypeError(
            f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], learning_rate=[...], seed=range(3))."
        )
    grid = in_steps(grid, num_steps)
    routing.check_optimizer(optimizer)
    splits = data.batches()
    folds = data.num_folds is not None
    if folds:
        splits["validation"] = splits["train"]
        if batch_size is None or (plan is not None and plan.streamed):
            raise ValueError(
                "data has folds: give batch_size a number (all training examples of a fold at once are its size), and "
                "no plan that streams the examples."
            )
    task = tasks.prepare(
        model,
        splits,
        loss=loss,
        optimizer=optimizer,
        mask=mask,
        batch_size=batch_size,
        dtype=dtype,
        stopping_metric=stopping_metric,
        metrics=metrics,
        lower_is_better=lower_is_better,
        class_names=data.class_names,
        num_classes=data.num_classes,
        accumulate=accumulate,
    )
    task = replace(task, augmented=data.augmented)
    without_average = sum(member.get("ema") is None for member in grid)
    recorded = replace(task, averages=without_average == 0).metric_names()
    validated = [name for name in recorded if name.startswith("validation_")]
    if stopping_metric not in validated:
        hint = ""
        if metrics_table.is_of_average(stopping_metric):
            hint = f" {without_average} of {len(grid)} members have no average; give every member a number for ema."
        raise ValueError(f"stopping_metric is {stopping_metric!r}; give one of {', '.join(validated)}.{hint}")
    routing.check(grid, task, splits, num_folds=data.num_folds, patience=patience)
    if plan is not None:
        task = replace(task, reduce_convolutions=plan.convolutions == "slices")
    if initial is not None and not isinstance(initial, Initial):
        initial = Initial(initial)
    divided = groups.divide(
        task,
        grid,
        splits,
        num_steps=num_steps,
        patience=patience,
        scaling=data.scaling,
        trainable=trainable,
        initial=initial,
    )
    limited = any(group.limits_examples for group in divided)
    if limited and plan is not None and plan.streamed:
        raise ValueError(
            "grid has an axis 'epochs', and plan streams the examples; give a plan that does not, or select the "
            "training examples in the data."
        )
    weights = {}
    if on_mesh is not None:
        of_groups = meshes.weights(on_mesh, divided)
        weights = {group.name: of_group for group, of_group in zip(divided, of_groups, strict=True)}
    if plan is None:
        may_stream = not (folds or limited)
        choose = functools.partial(
            _choose,
            task,
            divided,
            splits,
            batch_size,
            memory_budget,
            may_stream=may_stream,
            mesh=on_mesh,
            weights=weights,
        )
        plan = hosts.agreed(mesh, choose)  # the memory of hosts may differ
        assert plan is not None
        if "lane_width" in before:
            plan = replace(plan, lane_width=before["lane_width"], reasons=("as the first call in this directory",))
    if on_mesh is not None:
        plan = replace(plan, num_devices=on_mesh.mesh.size, mesh=on_mesh.shape)
    steps = [*range(eval_every, num_steps, eval_every), num_steps]
    return TrainingRun(
        divided,
        grid,
        splits,
        steps,
        batch_size,
        plan,
        task.model,
        data.scaling,
        data.class_names,
        mesh=on_mesh,
        weights=weights,
    )


def _choose(
    task: Task,
    divided: list[TrainingGroup],
    splits: Mapping[str, Batch],
    batch_size: int | None,
    memory_budget: int | None,
    *,
    may_stream: bool,
    mesh: MeshSettings | None,
    weights: Mapping[str, tuple[Weight, ...]],
) -> Plan:
    train = splits["train"]
    rows = batch_size or train.num_examples
    one_batch, one_part = (
        jax.tree.map(lambda array, size=size: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype), train)
        for size in (rows, rows // task.accumulate)
    )
    try:  # The model as the user passed it, so that the width does not depend on the grid.
        params_bytes, forward_bytes = step.sizes(task, {}, one_part)
    except TypeError:  # The model needs a value from an axis of the grid.
        params_bytes, forward_bytes = step.sizes(divided[0].task, divided[0].one().network, one_part)
    device_bytes = None
    if mesh is not None:
        device_bytes = max(OnMesh(mesh.mesh, weights[group.name]).bytes_on_device(group.state) for group in divided)
    sum_bytes = 0 if task.accumulate == 1 else params_bytes  # of the gradients
    return plans.choose(
        params_bytes=params_bytes,
        forward_bytes=forward_bytes,
        state_bytes=sum_bytes + max(plans.bytes_of(group.state) for group in divided),
        data_bytes=plans.bytes_of(train),
        batch_bytes=plans.bytes_of(one_batch) if batch_size is not None and may_stream else None,
        memory_budget=memory_budget,
        mesh=None if mesh is None else mesh.shape,
        state_bytes_on_device=device_bytes,
    )


def _check_accumulate(accumulate: Any, batch_size: int | None, num_examples: int) -> int:
    """Return the number of parts of a batch, which divides its size."""
    accumulate = checks.integer(accumulate, "accumulate", at_least=1)
    size = num_examples if batch_size is None else batch_size
    if size % accumulate:
        of_batch = f"all {size} training examples" if batch_size is None else f"batch_size, {size}"
        raise ArgumentError(
            "accumulate",
            f"accumulate is {accumulate}, which does not divide {of_batch}; give a divisor, so that all parts of a "
            "step have the same number of examples.",
        )
    return accumulate


def _check_steps(num_steps: Any, eval_every: Any) -> tuple[int, int]:
    """Return both as integers; None for ``eval_every`` becomes about twenty evaluations."""
    num_steps = checks.integer(num_steps, "num_steps", at_least=1, at_most=_LARGEST_STEP)
    if eval_every is None:
        return num_steps, max(1, num_steps // 20)
    return num_steps, checks.integer(eval_every, "eval_every", at_least=1)
