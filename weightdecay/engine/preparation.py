"""A grid made ready to be trained: everything is checked and settled before anything is compiled."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay import data as datasets
from weightdecay.core.types import Batch, Device, Integer, LossFn, Mask, MaskFn
from weightdecay.data import Data
from weightdecay.data.batches import FromHost, OnDevice
from weightdecay.engine import devices as backend
from weightdecay.engine import groups, plans, routing
from weightdecay.engine.groups import Group
from weightdecay.engine.plans import Plan
from weightdecay.search.grid import Grid
from weightdecay.training import step
from weightdecay.training import task as tasks
from weightdecay.training.task import Task


class Job(NamedTuple):
    """A lane to be trained."""

    group: Group
    members: np.ndarray  # numbers in the group; fewer than the lane is wide where it is the last
    start: int  # step that they have all reached


class Work(NamedTuple):
    """A grid made ready to be trained."""

    groups: list[Group]
    splits: Mapping[str, Batch]
    steps: list[int]  # evaluation steps; the last step is the last of them
    batch_size: int | None
    plan: Plan
    model: Any  # completed with what came from the data

    @property
    def longest(self) -> int:
        """Most steps of a stretch."""
        return min(self.plan.steps_per_call, max(stop - start for start, stop in itertools.pairwise([0, *self.steps])))

    @property
    def cross_validates(self) -> bool:
        """Whether each training example validates in its fold: one copy of the examples then serves both purposes."""
        return self.splits["train"].fold is not None

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices that lanes are spread over."""
        return tuple(jax.local_devices()[: self.plan.num_devices])

    def source(self) -> OnDevice | FromHost:
        """Return where the batches come from."""
        if not self.plan.streamed:
            return OnDevice(self.splits["train"], self.batch_size)
        assert self.batch_size is not None
        streams = max(len(np.unique(group.streams(slice(None)), axis=0)) for group in self.groups)
        return FromHost(self.splits["train"], self.batch_size, min(streams, self.plan.lane_width))

    def lanes(self, group: Group) -> Iterator[Job]:
        """Go through a group's lanes, each of members that have the same steps behind them; who is done has none."""
        for start in np.unique(group.started[group.started < self.steps[-1]]):
            members = np.flatnonzero(group.started == start)
            for first in range(0, len(members), self.plan.lane_width):
                yield Job(group, members[first : first + self.plan.lane_width], int(start))


def settle(
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
    mask: Mask | MaskFn,
    plan: Plan | None,
    memory_budget: Integer | None,
    dtype: Any,
    before: Mapping[str, Any] = MappingProxyType({}),
) -> Work:
    """Check everything, and settle what is run and how, before anything is compiled.

    What an earlier call in the same directory chose is chosen again.

    Args:
      model: This and all others, but for ``before``: as in `weightdecay.engine.fit.fit_grid`.
      data: Examples.
      grid: The members.
      optimizer: Makes a member's optimizer.
      loss: What is trained on.
      num_steps: Training steps of each member.
      batch_size: Examples a step; None = all.
      eval_every: Steps between evaluations; None = as ``before``, or about twenty evaluations.
      patience: Evaluations without a better one after which a member stops.
      stopping_metric: What patience looks at.
      metrics: Of the user's own by name.
      mask: Which weights decay.
      plan: Lanes and devices; None = chosen.
      memory_budget: Bytes of training examples that may lie on a device.
      dtype: What the network computes in.
      before: What an earlier call in the same directory depends on; empty = there is none.

    Returns:
      The grid, made ready.

    Raises:
      TypeError: An argument of the wrong kind.
      ValueError: An argument of the wrong value.
      MemoryError: A model too large for the memory at any plan.
    """
    backend.prepare()
    if eval_every is None:
        eval_every = before.get("eval_every")
    eval_every = _check_steps(num_steps, eval_every)
    datasets.check(data, batch_size)
    num_steps, batch_size = int(num_steps), None if batch_size is None else int(batch_size)
    if plan is not None:
        plans.check(plan, batch_size=batch_size)
    is_size = isinstance(memory_budget, int | np.integer) and not isinstance(memory_budget, bool)
    if memory_budget is not None and not (is_size and memory_budget >= 0):
        raise ValueError(f"memory_budget is {memory_budget!r}; give a number of bytes, or None.")
    if patience is not None and (
        isinstance(patience, bool) or not isinstance(patience, int | np.integer) or patience < 1
    ):
        raise ValueError(f"patience is {patience!r}; give a number of evaluations of at least 1, or None.")
    if not isinstance(grid, Grid):
        raise TypeError(
            f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], learning_rate=[...], seed=range(3))."
        )
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
    )
    validated = [name for name in task.metric_names() if name.startswith("validation_")]
    if stopping_metric not in validated:
        raise ValueError(f"stopping_metric is {stopping_metric!r}; give one of {', '.join(validated)}.")
    patience = None if patience is None else int(patience)
    routing.check(grid, task, splits, num_folds=data.num_folds, patience=patience)
    if plan is not None:
        task = replace(task, reduce_convolutions=plan.lowering == "slices")
    divided = groups.divide(task, grid, splits, patience=patience, scaling=data.scaling)
    if plan is None:
        plan = _choose(task, divided, splits, batch_size, memory_budget, may_stream=not folds)
        if "lane_width" in before:
            plan = replace(plan, lane_width=before["lane_width"], reasons=("as the first call in this directory",))
    steps = [*range(eval_every, num_steps, eval_every), num_steps]
    return Work(divided, splits, steps, batch_size, plan, task.model)


def _choose(
    task: Task,
    divided: list[Group],
    splits: Mapping[str, Batch],
    batch_size: int | None,
    memory_budget: Integer | None,
    *,
    may_stream: bool,
) -> Plan:
    train = splits["train"]
    one_batch = jax.tree.map(
        lambda array: jax.ShapeDtypeStruct((batch_size or len(array), *array.shape[1:]), array.dtype), train
    )
    try:  # The model as it is given, so that the width does not follow from what stands in the grid.
        params_bytes, forward_bytes = step.sizes(task, {}, one_batch)
    except TypeError:  # It is not whole without an axis.
        params_bytes, forward_bytes = step.sizes(divided[0].task, divided[0].one().network, one_batch)
    return plans.choose(
        params_bytes=params_bytes,
        forward_bytes=forward_bytes,
        state_bytes=max(plans.bytes_of(group.state) for group in divided),
        data_bytes=plans.bytes_of(train),
        batch_bytes=plans.bytes_of(one_batch) if batch_size is not None and may_stream else None,
        memory_budget=None if memory_budget is None else int(memory_budget),
    )


def _check_steps(num_steps: Any, eval_every: Any) -> int:
    for name, value in {"num_steps": num_steps, "eval_every": eval_every}.items():
        if value is None and name == "eval_every":
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least 1.")
    return int(eval_every or max(1, num_steps // 20))
