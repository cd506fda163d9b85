"""Training grids: `fit_grid`, and one member alone."""

import contextlib
import functools
import inspect
import operator
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from weightdecay.core import jax_settings
from weightdecay.core.types import Integer, LossFn, Mask, MaskFn, Scalar
from weightdecay.data import Data
from weightdecay.decay import Rule, masks, optimizers
from weightdecay.decay.schedules import Parametric
from weightdecay.engine import expectations, lanes, plans, preparation, progress_bar, scoring
from weightdecay.engine.plans import Plan
from weightdecay.engine.preparation import Work
from weightdecay.results.grid_result import GridResult
from weightdecay.search.grid import Grid
from weightdecay.storage import fingerprints, result_folder, run_directory
from weightdecay.storage.records import Records
from weightdecay.storage.run_directory import Run

_READ_AT_ONCE = 256  # saved members


def fit_grid(
    model: Any,
    data: Data,
    grid: Grid,
    *,
    optimizer: Callable[..., Any] = optimizers.adam,
    loss: str | LossFn | None = None,
    num_steps: Integer,
    batch_size: Integer | None,
    eval_every: Integer | None = None,
    patience: Integer | None = None,
    stopping_metric: str = "validation_loss",
    metrics: Mapping[str, LossFn] | None = None,
    mask: Mask | MaskFn = masks.kernels,
    directory: str | os.PathLike[str] | None = None,
    save_every: float | int = 30.0,
    plan: Plan | None = None,
    memory_budget: Integer | None = None,
    dtype: Any = None,
    progress: bool = True,
) -> GridResult:
    """Train every member of a grid, and say what came of each.

    Each member starts from weights drawn from its own seed and sees batches drawn from its own seed, whatever else is
    in the grid. Rules with one normal form, and all numbers of a grid, train in one compiled program. A member whose
    numbers are not finite any more stays at its last finite state, and its metrics are nan from then on.

    Args:
      model: A flax linen module, such as ``wd.models.MLP((64, 64))``; a flax nnx class, or a function of ``rngs`` that
        makes an nnx module; a function of ``key`` that makes an equinox module; or ``wd.Model(init, apply)``.
      data: Training, validation and test examples, or folds of `wd.data.folds`, with an axis ``fold`` in the grid.
      grid: The members. Beside ``decay``, ``learning_rate``, ``seed`` and ``fold``, an axis is a regularizer
        (``dropout_rate``, ``label_smoothing``, ``mixup``, ``input_noise``, ``shift``, ``flip``, ``crop``, ``cutout``,
        ``clip_norm``, ``patience``), a field of the model, or an argument of ``optimizer``.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others) -> optax.GradientTransformation``, such as
        `wd.adam` or `wd.sgd`.
      loss: ``"softmax_cross_entropy"`` (default for classes), ``"sigmoid_cross_entropy"`` (default for several labels
        of 0 or 1 an example), ``"squared_error"`` (default for real targets), ``"huber"``, or
        ``loss_fn(outputs, targets) -> losses`` of shape ``(examples,)``.
      num_steps: Training steps of each member.
      batch_size: Examples a step; None takes all of them in each step.
      eval_every: Steps between evaluations, counted from the start; the last step is always evaluated. None: about
        twenty evaluations; in a directory, as the first call had it.
      patience: Evaluations without a better ``stopping_metric`` after which a member stops. What is kept of a member,
        and what the last evaluation tells, is then its best evaluation. None: every member takes all steps.
      stopping_metric: ``"validation_loss"``, ``"validation_accuracy"``, or ``"validation_..."`` of a metric of yours.
      metrics: Of your own by name, ``metric(outputs, targets) -> numbers`` of shape ``(examples,)``; their means stand
        in the result as ``train_...`` and ``validation_...``. More is better, but for names that end in ``loss`` or
        ``error``.
      mask: Which weights decay; see `weightdecay.masks`.
      directory: Where the run is saved as it goes. The same call goes on where an earlier one was cut off, bit for bit;
        with more members or steps it trains what is new; with anything else changed it is refused. Ctrl-C saves and
        returns what there is. None: nothing is saved.
      save_every: Seconds between two saves, > 0; so much is trained again at the most, and the steps of a call.
      plan: Lanes and devices; None has them chosen for the model and the backend; see `plan`.
      memory_budget: Bytes of training examples that may lie on a device; more are streamed from the host. None: a
        quarter of what is free.
      dtype: What the network computes in, such as ``jax.numpy.bfloat16``; weights, optimizer state, coefficients and
        losses keep their own. None: as the weights are.
      progress: Whether to show a bar with the time left.

    Returns:
      The result, one member a row, in the order of the grid.

    Raises:
      TypeError: An argument of the wrong kind.
      ValueError: An argument of the wrong value: told before anything is compiled.
      MemoryError: A model too large for the memory at any plan: told before training.
      RuntimeError: Another process trains in ``directory``.
      OSError: ``directory`` cannot be written, or holds something else.

    Examples:
      >>> from weightdecay import data, decay, models
      >>> grid = Grid(decay=[decay.NoDecay(), decay.L2(0.01)], learning_rate=1e-3, seed=range(2))
      >>> result = fit_grid(models.MLP((16,)), data.digits(), grid, num_steps=20, batch_size=32, progress=False)
      >>> result.dataset.sizes["member"], result.dataset.sizes["step"]
      (4, 20)
    """
    run_directory.check_save_every(save_every)
    before = {} if directory is None else run_directory.stored(directory)
    asked: dict[str, Any] = {
        "optimizer": optimizer,
        "loss": loss,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "eval_every": eval_every,
        "patience": patience,
        "stopping_metric": stopping_metric,
        "metrics": metrics,
        "mask": mask,
        "plan": plan,
        "memory_budget": memory_budget,
        "dtype": dtype,
    }
    work = preparation.settle(model, data, grid, **asked, before=before.get("depends_on", {}))
    task = work.groups[0].task
    names = {
        "model": " ".join(re.sub(r" at 0x\w+", "", repr(work.model)).split()),
        "optimizer": _name(optimizer),
        "loss": task.loss.name,
        "metrics": [metric.name for metric in task.metrics],
        "mask": _name(mask) if callable(mask) else "a tree of its own",
        "patience": None if patience is None else int(patience),
        "stopping_metric": stopping_metric,
        "dtype": task.dtype,
    }
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        run = None if directory is None else stack.enter_context(run_directory.opened(directory, save_every=save_every))
        work, records, interrupted = _trained(work, grid, names, run, width_is_free=plan is None, progress=progress)
        settings = {
            **names,
            "num_steps": work.steps[-1],
            "batch_size": work.batch_size,
            "examples": {name: len(split.inputs) for name, split in work.splits.items()},
            "folds": data.num_folds,
            "compiled_programs": len(work.groups),
            "plan": work.plan.layout(),
            "backend": jax.default_backend(),
            "interrupted": interrupted,
            "seconds": round(time.perf_counter() - started, 3),
        }
        expectations.enter(work, grid, records)
        result = GridResult.build(
            list(grid),
            work.steps,
            records,
            settings,
            model=work.model,
            score_test=scoring.scorer(work),
            predict=scoring.predictor(work),
            extend=functools.partial(
                _extend,
                [grid],
                functools.partial(
                    fit_grid, model, data, **asked, directory=directory, save_every=save_every, progress=progress
                ),
                eval_every=work.steps[0],
            ),
        )
        if run is not None and not interrupted:
            run.finish(lambda path: result.save(path, overwrite=True))
    return result


def _extend(
    known: list[Grid], run: Callable[..., GridResult], grid: Grid, num_steps: int | None, *, eval_every: int
) -> GridResult:
    """Train another grid as one was trained; ``known`` were trained so before, in one directory if there is any."""
    arguments = {**run.keywords, "eval_every": eval_every}  # pyright: ignore[reportFunctionMemberAccess]
    if num_steps is not None or arguments["directory"] is None:
        return run(grid, **{**arguments, "num_steps": num_steps or arguments["num_steps"]})
    whole = functools.reduce(operator.add, known)
    known.append(grid)
    added = len(whole + grid) - len(whole)
    together = run(whole + grid, **arguments)
    return together.part(range(len(together) - added, len(together)))


def _trained(
    work: Work,
    grid: Grid,
    names: Mapping[str, Any],
    run: Run | None,
    *,
    width_is_free: bool,
    progress: bool,
    again: bool = False,
) -> tuple[Work, Records, bool]:
    """Train what is not trained yet; out of memory, try once more with a smaller plan."""
    try:
        return work, *_train(work, grid, names, run, progress=progress)
    except jax.errors.JaxRuntimeError as error:
        if not plans.out_of_memory(error):
            raise
        holds_members = run is not None and run.holds_members()
        free = width_is_free and not holds_members
        batch_size = None if work.cross_validates else work.batch_size
        smaller = plans.lowered(work.plan, batch_size=batch_size, width_is_free=free)
        lanes_on = f"lanes of {work.plan.lane_width} on {work.plan.num_devices} device(s)"
        if again or smaller is None:
            raise MemoryError(
                f"a device ran out of memory with {lanes_on}, and no other plan was tried that gives the same "
                "numbers. Take a smaller model or batch_size, or a plan with narrower lanes (in a new directory). "
                f"{error}"
            ) from error
        warnings.warn(
            f"a device ran out of memory with {lanes_on}; trying once more with {smaller}", UserWarning, stacklevel=4
        )
    if run is not None and not holds_members:
        run.stored = {}  # the lanes may be of another width now
    work = work._replace(plan=smaller)
    return _trained(work, grid, names, run, width_is_free=width_is_free, progress=progress, again=True)


def _train(
    work: Work, grid: Grid, names: Mapping[str, Any], run: Run | None, *, progress: bool
) -> tuple[Records, bool]:
    """Train what is not trained yet: what came of the members, and whether it was interrupted."""
    layers = dict.fromkeys(layer for group in work.groups for layer in group.layers())
    records, done = Records(len(grid), len(work.steps), list(layers)), 0
    if run is not None:
        work = _found(work, grid, names, run, records)
        started = np.concatenate([group.started for group in work.groups])
        done = int(started.sum())
        if done and progress:
            finished = int((started == work.steps[-1]).sum())
            print(f"{run.path}: {finished} of {len(grid)} members are done; going on", file=sys.stderr)
    with progress_bar.bar(len(grid) * work.steps[-1], "member-steps", shown=progress, done=done) as bar:
        try:
            lanes.run(work, records, bar.update, run)
        except KeyboardInterrupt:
            if run is None:
                raise
            warnings.warn(
                f"interrupted; what was trained is saved. To go on, make the same call (or the same command) again, "
                f"with directory={str(run.path)!r}.",
                UserWarning,
                stacklevel=5,
            )
            return records, True
    return records, False


def _found(work: Work, grid: Grid, names: Mapping[str, Any], run: Run, records: Records) -> Work:
    """Settle that the directory is of this run, and take from it what is trained."""
    programs, known = {}, []
    for group in work.groups:
        program = group.program(work.splits)
        programs[group.name()] = program
        keys = tuple(fingerprints.of_member(grid[place], program) for place in group.places)
        known.append(group._replace(keys=keys))
    depends_on = {
        **names,
        "batch_size": work.batch_size,
        "eval_every": work.steps[0],
        "lane_width": work.plan.lane_width,
        "lowering": work.plan.lowering,
        "float64": jax_settings.setting("enable_x64"),
        "matmul_precision": jax_settings.setting("default_matmul_precision"),
        "device": f"{jax.default_backend()} {work.devices[0].device_kind}",
        "data": fingerprints.of_data(work.splits),
        "versions": result_folder.versions(),
        "programs": programs,
    }
    num_steps = work.steps[-1]
    patient = any(group.state.best is not None for group in work.groups)
    run.settle(depends_on, num_steps, patient=patient)
    with_steps = []
    for group in known:
        started = np.array([run.found(key, num_steps) for key in group.keys], np.int32)
        with_steps.append(group._replace(started=started))
        order = run.in_order(group.keys)
        for step in np.unique(started[order]):
            members = [member for member in order if started[member] == step]
            for first in range(0, len(members), _READ_AT_ONCE):
                some = members[first : first + _READ_AT_ONCE]
                snapshot = run.read([group.keys[member] for member in some])
                for column, evaluated in enumerate(snapshot.evaluated):
                    if evaluated in work.steps:
                        metrics = {name: values[:, column] for name, values in snapshot.metrics.items()}
                        records.write_metrics(group.places[some], work.steps.index(evaluated), metrics, group.layers())
                states = jax.tree.unflatten(jax.tree.structure(group.state), snapshot.leaves)
                records.write_members(group.places[some], states, group.layers(), last=bool(step == num_steps))
    return work._replace(groups=with_steps)


def fit(
    model: Any,
    data: Data,
    *,
    decay: Rule | Sequence[Rule],
    learning_rate: Scalar | Parametric,
    seed: Integer = 0,
    **settings: Any,
) -> GridResult:
    """Train one member alone; its numbers are, bit for bit, those that it has in any grid.

    Args:
      model: As in `fit_grid`.
      data: As in `fit_grid`.
      decay: The rule, or several in a tuple.
      learning_rate: > 0, or a schedule of `weightdecay.schedules`.
      seed: Of the first weights, the batches and the dropout.
      **settings: ``num_steps``, ``batch_size`` and the other arguments of `fit_grid`; every further one is the value of
        an axis, such as ``momentum=0.9`` or ``label_smoothing=0.1``.

    Returns:
      A result of one member: ``result.params()`` are its weights.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`.
    """
    for_grid = inspect.signature(fit_grid).parameters
    others = {name: [value] for name, value in settings.items() if name not in for_grid}
    rules = decay if isinstance(decay, Rule) else tuple(decay)
    grid = Grid(decay=[rules], learning_rate=[learning_rate], seed=[seed], **others)
    return fit_grid(model, data, grid, **{name: value for name, value in settings.items() if name in for_grid})


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)
