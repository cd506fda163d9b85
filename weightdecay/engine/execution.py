"""Execution of a workload: progress bar, run directory, interruption, and a second attempt when memory runs out."""

import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from weightdecay.core.warn import warn
from weightdecay.engine import lanes, plans, progress_bar
from weightdecay.engine.executors import Helpers
from weightdecay.engine.race import Race
from weightdecay.engine.resume import resume
from weightdecay.search.grid import Grid
from weightdecay.storage.run_directory import RunDirectory


def execute(
    workload: Any,
    grid: Grid,
    run: RunDirectory | None,
    *,
    unit: str,
    width_is_free: bool,
    has_patience: bool = False,
    race: Callable[[Any], Race] | None = None,
    helpers: Helpers | None = None,
    progress: bool = True,
) -> tuple[Any, bool]:
    """Compute every member that is not computed yet.

    Args:
      workload: What the members compute; see `weightdecay.engine.workload.Workload`. It takes what comes of them.
      grid: The members.
      run: The run directory, held by this process; None = nothing is saved.
      unit: What the progress bar counts, such as ``"member-steps"``.
      width_is_free: Whether lanes may become narrower when memory runs out.
      has_patience: Whether any member may stop early.
      race: ``race(workload)`` decides which members are computed; None = every member.
      helpers: Compute the members on an executor; None = this process does.
      progress: Whether to show the bar.

    Returns:
      The workload as it was computed, and whether Ctrl-C interrupted it; what was computed until then is taken, and
      saved in the run directory.

    Raises:
      MemoryError: A device ran out of memory, also with a smaller plan.
      ValueError: The run directory holds something else.
    """
    attempt = workload
    for may_retry in (True, False):
        try:
            return _execute_once(
                attempt, grid, run, unit=unit, has_patience=has_patience, race=race, helpers=helpers, progress=progress
            )
        except jax.errors.JaxRuntimeError as error:
            if not plans.out_of_memory(error):
                raise
            holds_members = run is not None and run.has_members()
            smaller = attempt.reduced(width_is_free=width_is_free and not holds_members)
            layout = f"lanes of {attempt.plan.lane_width} on {attempt.plan.num_devices} device(s)"
            if not may_retry or smaller is None:
                raise MemoryError(
                    f"a device ran out of memory with {layout}, and no other plan was tried that gives the same "
                    "numbers. Take a smaller model or batch_size, or a plan with narrower lanes (in a new directory). "
                    f"{error}"
                ) from error
            warn(f"a device ran out of memory with {layout}; trying once more with {smaller.plan}")
            if run is not None and not holds_members:
                run.forget_description()  # Lanes may have another width now.
            attempt = smaller
    raise AssertionError("unreachable")


def _execute_once(
    workload: Any,
    grid: Grid,
    run: RunDirectory | None,
    *,
    unit: str,
    has_patience: bool,
    race: Callable[[Any], Race] | None,
    helpers: Helpers | None,
    progress: bool,
) -> tuple[Any, bool]:
    done = 0
    if run is not None:
        workload = resume(workload, grid, run, has_patience=has_patience)
        started = np.concatenate([group.started for group in workload.groups])
        done = int(started.sum())
        if done and progress:
            finished = int((started == workload.num_steps).sum())
            print(f"{run.path}: {finished} of {len(grid)} members are done; resuming", file=sys.stderr)
    races = None if race is None else race(workload)
    total = len(grid) * workload.num_steps if races is None else max(races.budget, done)
    with progress_bar.progress_bar(total, unit, shown=progress, done=done) as bar:
        try:
            lanes.run(workload, bar.update, run, races, helpers)
        except KeyboardInterrupt:
            return workload, True
    return workload, False
