"""`map_grid`: a pure training function of the user's own over a grid, in lanes on every device, saved as it goes."""

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from weightdecay.core import metrics
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.names import suggest_keywords
from weightdecay.core.warn import warn
from weightdecay.engine import devices, executors, interrupts, plans
from weightdecay.engine import race as races
from weightdecay.engine.execution import execute
from weightdecay.engine.function_workload import FunctionWorkload, TrainFn, prepare_function
from weightdecay.engine.map_result import MapResult
from weightdecay.engine.plans import Plan
from weightdecay.search.grid import Grid
from weightdecay.search.strategy import Strategy
from weightdecay.storage import run_directory


@suggest_keywords
@devices.outside_mesh
def map_grid(
    train_fn: TrainFn,
    grid: Grid,
    *,
    static: Sequence[str] = (),
    directory: str | os.PathLike[str] | None = None,
    save_every: float | int = 30.0,
    plan: Plan | None = None,
    executor: Any = None,
    budget: float | int | None = None,
    strategy: Strategy | None = None,
    metric: str | None = None,
    lower_is_better: bool | None = None,
    progress: bool = True,
) -> MapResult:
    """Run a pure training function of your own for every member of a grid.

    The function is written for one member and traced. It may hold a `jax.lax.scan` over steps, any optimizer and any
    model. Members run in lanes of one fixed width on all devices, so that the numbers of a member do not depend on what
    else is in the grid.

    Args:
      train_fn: ``train_fn(hyperparameters) -> outputs``, a tree of arrays. ``hyperparameters`` is a dictionary by the
        names of the axes: ``decay`` is a rule whose coefficients are traced, ``seed`` and ``fold`` are traced int32,
        other numbers are traced floats of shape ``()``. Strings, bools, None and tuples are passed as they are; each
        combination of them is a program of its own.
      grid: The members.
      static: Axes whose numbers are passed as Python numbers too, such as a width.
      directory: Run directory, in which finished members are saved. The same call resumes where an earlier one was cut
        off; with more members it runs only the new ones. None: nothing is saved.
      save_every: Seconds between two saves, > 0.
      plan: Lanes and devices. None: chosen by the size of the function's arrays, for each program by itself, so that
        the lane of a member is equally wide in every grid.
      executor: Runs the members on workers, as in `fit_grid`. None: this process does.
      budget: The fraction of the members that may be run, in (0, 1]; ``strategy`` decides which, by ``metric``. None:
        every member is run.
      strategy: As in `fit_grid`. None: `weightdecay.search.surface.Surface`, where there is a budget.
      metric: With a budget or a strategy, the name of the output that decides, as in ``result.dataset``: a scalar, or a
        curve, of which the last value counts; let it be of validation data.
      lower_is_better: Whether lower values of ``metric`` are better; None = by its name, as in ``MapResult.best``.
      progress: Whether to show a progress bar.

    Returns:
      The outputs of each member, in the order of the grid.

    Raises:
      TypeError: ``train_fn`` is not a function, ``grid`` is not a grid, outputs are not arrays, or the function needs
        the value of a traced number.
      ValueError: A name in ``static`` is not an axis; ``directory`` holds a run of something else; a budget out of
        range, or a metric that is missing, is not an output, or whose direction is not known.
      MemoryError: A device ran out of memory under every plan that gives the same numbers.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> from weightdecay import decay
      >>> from weightdecay.decay import optimizers
      >>> def train(hyperparameters):
      ...     optimizer = optimizers.sgd(hyperparameters["learning_rate"], hyperparameters["decay"])
      ...     params = {"kernel": jnp.ones((1, 1))}
      ...     state = optimizer.init(params)
      ...     def step(carry, _):
      ...         params, state = carry
      ...         gradients = jax.tree.map(lambda w: w - 2.0, params)
      ...         updates, state = optimizer.update(gradients, state, params)
      ...         return (jax.tree.map(jnp.add, params, updates), state), None
      ...     (params, _), _ = jax.lax.scan(step, (params, state), length=200)
      ...     return {"weight": params["kernel"][0, 0]}
      >>> grid = Grid(decay=[decay.NoDecay(), decay.L2(1.0)], learning_rate=0.1)
      >>> map_grid(train, grid, progress=False)["weight"].round(3).tolist()  # the minimum of (w - 2)²/2 + c w²/2
      [2.0, 1.0]
    """
    if not callable(train_fn):
        raise ArgumentTypeError(
            "train_fn", f"train_fn is {train_fn!r}; give a function of a dictionary of hyperparameters."
        )
    if not isinstance(grid, Grid):
        raise ArgumentTypeError(
            "grid", f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], seed=range(3))."
        )
    if isinstance(static, str):
        raise ArgumentTypeError(
            "static", f"static is {static!r}; give the names of axes in a list: static=[{static!r}]."
        )
    unknown = [name for name in static if name not in grid.axes]
    if unknown:
        raise ArgumentError(
            "static",
            f"static names {unknown[0]!r}, which is not an axis of the grid; its axes are {', '.join(grid.axes)}.",
        )
    run_directory.check_save_every(save_every)
    chosen, allowed = races.settled(strategy, budget, grid, 1)
    sign = _sign(metric, lower_is_better) if chosen is not None else 1
    executors.check(executor, strategy=chosen)
    devices.prepare()
    if plan is not None:
        plans.check(plan, batch_size=None)
    helpers = None
    if executor is not None:
        of_worker = {"static": tuple(static), "save_every": save_every, "plan": plan}
        helpers = executors.Helpers(executor, executors.partial(map_grid, train_fn, **of_worker), grid)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(executors.directory_of(executor, directory))
        stack.enter_context(interrupts.first_only())
        run = (
            None
            if directory is None
            else stack.enter_context(run_directory.open_run(directory, save_every=save_every, alone=chosen is not None))
        )
        before = {} if run is None else run.description.get("depends_on", {})
        workload = prepare_function(train_fn, grid, frozenset(static), plan, before)
        if chosen is not None:
            workload = workload.measured_by(str(metric), sign)
        started: list[races.Race] = []

        def race(workload: FunctionWorkload) -> races.Race:
            at_once = workload.plan.lane_width * workload.plan.num_devices
            assert chosen is not None
            started.append(races.Race(chosen, grid, [1], allowed, at_once))
            return started[-1]

        workload, interrupted = execute(
            workload,
            grid,
            run,
            unit="members",
            width_is_free=plan is None,
            race=None if chosen is None else race,
            helpers=helpers,
            progress=progress,
        )
        if interrupted:
            if run is not None:
                warn(
                    f"interrupted; the members that were done are saved. To resume, make the same call again, with "
                    f"directory={str(run.path)!r}."
                )
            raise KeyboardInterrupt
        if helpers is not None:
            helpers.wait()
    if not started:
        return MapResult(list(grid), workload.outputs, workload.plan)
    trained = started[-1].reached > 0
    return MapResult(list(grid), workload.outputs_where(trained), workload.plan, trained=trained)


def _sign(metric: str | None, lower_is_better: bool | None) -> int:
    """1 where lower values of a metric are better, and -1 where higher ones are."""
    if metric is None:
        raise ArgumentError(
            "metric", "a search needs metric, the name of the output that decides, such as 'validation_loss'."
        )
    known = metrics.direction(metric)
    if lower_is_better is None and known is None:
        raise ArgumentError(
            "lower_is_better", f"it is not known whether lower values of {metric!r} are better; give lower_is_better."
        )
    return 1 if (known == "lower" if lower_is_better is None else lower_is_better) else -1
