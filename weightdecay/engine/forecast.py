"""`plan`: what `fit_grid` would run, where, and what that takes in memory and time."""

import inspect
import time
from dataclasses import replace
from typing import Any

from weightdecay.data import Data
from weightdecay.engine import devices, lane_programs, lanes, plans, preparation
from weightdecay.engine.fit import fit_grid
from weightdecay.engine.plans import Forecast, Plan
from weightdecay.engine.preparation import Work
from weightdecay.search.grid import Grid
from weightdecay.training import task as tasks


def plan(model: Any, data: Data, grid: Grid, *, calibrate: bool = True, **settings: Any) -> Plan:
    """What `fit_grid` would run with these arguments, where, and what that takes.

    Compiles the programs of the first structural group, reads its memory from them and, to calibrate, trains one lane
    on every device for about a second. `fit_grid` takes the plan as it is, and finds the programs compiled.

    Args:
      model: As in `fit_grid`.
      data: As in `fit_grid`.
      grid: As in `fit_grid`.
      calibrate: Whether to measure the time.
      **settings: ``num_steps``, ``batch_size`` and the other arguments of `fit_grid`; ``plan`` is one to be judged.

    Returns:
      The plan with its reasons and a forecast; ``print`` it. Other groups are taken to cost what the first costs.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`.
      MemoryError: As `fit_grid`.
    """
    arguments = inspect.signature(fit_grid).bind(model, data, grid, **settings)
    arguments.apply_defaults()
    for name in ("directory", "save_every", "progress"):
        del arguments.arguments[name]
    work = preparation.settle(**arguments.arguments)
    started = time.perf_counter()
    device_bytes = lane_programs.compile_first(work)
    compile_seconds = time.perf_counter() - started
    state, task = work.groups[0].state, work.groups[0].task
    numbers = len(task.metric_names()) + len(task.layers(state.params)) * len(tasks.LAYER_METRICS)
    forecast = Forecast(
        members=len(grid),
        programs=len(work.groups),
        device_bytes=device_bytes,
        total_bytes=device_bytes * work.plan.num_devices,
        disk_bytes=len(grid) * (plans.bytes_of((state.params, state.model_state)) + 4 * numbers * len(work.steps)),
        free_bytes=devices.free_memory(work.devices[0]),
        compile_seconds=compile_seconds,
    )
    if calibrate:
        forecast = _timed(forecast, work)
    return replace(work.plan, forecast=forecast)


def _timed(forecast: Forecast, work: Work) -> Forecast:
    """Forecast with the time, from one lane a device."""
    step, evaluation = lanes.measure(work)
    width, num_steps, num_devices = work.plan.lane_width, work.steps[-1], work.plan.num_devices
    num_lanes = sum(len(list(work.lanes(group))) for group in work.groups)
    rounds = -(-num_lanes // num_devices)
    gain = None
    if width > 1:
        alone = work._replace(plan=replace(work.plan, lane_width=1))
        lane_programs.compile_first(alone)
        gain = lanes.measure(alone)[0] * width / step
    return replace(
        forecast,
        seconds=rounds * (num_steps * step + len(work.steps) * evaluation),
        member_steps_per_second=width * num_devices / step,
        batching_gain=gain,
    )
