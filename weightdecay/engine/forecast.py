"""`plan`: what `fit_grid` would run, where, and how much memory and time that takes."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from jax.sharding import Mesh, PartitionSpec

from weightdecay.core.names import suggest_keywords
from weightdecay.core.types import Integer, LossFn, Mask, MaskFn
from weightdecay.data import Data
from weightdecay.decay import masks, optimizers
from weightdecay.engine import devices, lane_programs, plans, preparation, training_workload
from weightdecay.engine.plans import Forecast, Plan
from weightdecay.engine.preparation import TrainingRun
from weightdecay.results.trackers.base import Tracker
from weightdecay.search.grid import Grid
from weightdecay.training.task import LAYER_METRICS


@suggest_keywords
@devices.outside_mesh
def plan(
    model: Any,
    data: Data,
    grid: Grid,
    *,
    calibrate: bool = True,
    optimizer: Callable[..., Any] = optimizers.adam,
    loss: str | LossFn | None = None,
    num_steps: Integer,
    batch_size: Integer | None,
    eval_every: Integer | None = None,
    patience: Integer | None = None,
    stopping_metric: str = "validation_loss",
    metrics: Mapping[str, LossFn] | None = None,
    lower_is_better: Mapping[str, bool] | None = None,
    mask: Mask | MaskFn = masks.kernels,
    initial: Any = None,
    trainable: Mask | MaskFn | None = None,
    directory: str | os.PathLike[str] | None = None,
    save_every: float | int = 30.0,
    plan: Plan | None = None,
    memory_budget: Integer | None = None,
    dtype: Any = None,
    accumulate: Integer = 1,
    on_evaluation: Callable[[pd.DataFrame], Any] | None = None,
    log_to: str | Tracker | None = None,
    mesh: Mesh | None = None,
    sharding: str | Mapping[str, PartitionSpec] | Sequence[tuple[str, PartitionSpec]] | None = None,
    progress: bool = True,
) -> Plan:
    """Predict what `fit_grid` would run with these arguments, where, and how much memory and time that takes.

    Compiles the programs of the first group, reads the memory that they need, and, to calibrate, trains one lane on
    every device for about a second. `fit_grid` takes the plan as it is, and finds the programs compiled.

    Args:
      model: As in `fit_grid`.
      data: As in `fit_grid`.
      grid: As in `fit_grid`.
      calibrate: Whether to measure the time.
      optimizer: As in `fit_grid`.
      loss: As in `fit_grid`.
      num_steps: As in `fit_grid`.
      batch_size: As in `fit_grid`.
      eval_every: As in `fit_grid`.
      patience: As in `fit_grid`.
      stopping_metric: As in `fit_grid`.
      metrics: As in `fit_grid`.
      lower_is_better: As in `fit_grid`.
      mask: As in `fit_grid`.
      initial: As in `fit_grid`.
      trainable: As in `fit_grid`.
      directory: Accepted so that the arguments of `fit_grid` can be passed unchanged; nothing is written.
      save_every: As ``directory``.
      plan: A plan to evaluate; None = chosen.
      memory_budget: As in `fit_grid`.
      dtype: As in `fit_grid`.
      accumulate: As in `fit_grid`.
      on_evaluation: As ``directory``; it is not called.
      log_to: As ``directory``; nothing is logged.
      mesh: As in `fit_grid`. The reasons of the plan say what a member needs on one device, and what each device of the
        mesh holds.
      sharding: As in `fit_grid`.
      progress: As ``directory``.

    Returns:
      The plan with its reasons and a forecast; ``print`` it. All groups are assumed to cost what the first one costs.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`.
      MemoryError: As `fit_grid`.
    """
    run = preparation.prepare_run(
        model,
        data,
        grid,
        optimizer=optimizer,
        loss=loss,
        num_steps=num_steps,
        batch_size=batch_size,
        eval_every=eval_every,
        patience=patience,
        stopping_metric=stopping_metric,
        metrics=metrics,
        lower_is_better=lower_is_better,
        mask=mask,
        initial=initial,
        trainable=trainable,
        plan=plan,
        memory_budget=memory_budget,
        dtype=dtype,
        accumulate=accumulate,
        mesh=mesh,
        sharding=sharding,
    )
    started = time.perf_counter()
    device_bytes = lane_programs.compile_first(run)
    compile_seconds = time.perf_counter() - started
    state, task = run.groups[0].state, run.groups[0].task
    numbers = len(task.metric_names()) + len(task.layers(state.params)) * len(LAYER_METRICS)
    forecast = Forecast(
        members=len(grid),
        programs=len(run.groups),
        device_bytes=device_bytes,
        total_bytes=device_bytes * run.plan.num_devices,
        disk_bytes=len(grid)
        * (plans.bytes_of((state.params, state.model_state, state.average)) + 4 * numbers * len(run.steps)),
        free_bytes=devices.free_memory(run.devices[0]),
        compile_seconds=compile_seconds,
    )
    if calibrate:
        forecast = _with_time(forecast, run)
    return replace(run.plan, forecast=forecast)


def _with_time(forecast: Forecast, run: TrainingRun) -> Forecast:
    """Return the forecast with the time, measured on one lane a device."""
    step, evaluation = training_workload.measure(run)
    width, num_steps, at_once = run.plan.lane_width, run.steps[-1], run.plan.num_lanes_at_once
    num_lanes = sum(len(list(group.lanes(num_steps, width))) for group in run.groups)
    rounds = -(-num_lanes // at_once)
    gain = None
    if width > 1 and run.mesh is None:
        alone = replace(run, plan=replace(run.plan, lane_width=1))
        lane_programs.compile_first(alone)
        gain = training_workload.measure(alone)[0] * width / step
    return replace(
        forecast,
        seconds=rounds * (num_steps * step + len(run.steps) * evaluation),
        member_steps_per_second=width * at_once / step,
        batching_gain=gain,
    )
