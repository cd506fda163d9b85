"""`fit_grid` trains every member of a grid; `fit` trains one member alone."""

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh, PartitionSpec

from weightdecay.core.names import suggest_keywords
from weightdecay.core.types import Integer, LossFn, Mask, MaskFn, Scalar, Schedule
from weightdecay.core.warn import warn
from weightdecay.data import Data
from weightdecay.decay import PerLayer, Rule, masks, optimizers
from weightdecay.engine import devices, executors, hosts, interrupts, outcome, plans, preparation
from weightdecay.engine import race as races
from weightdecay.engine.evaluation_callback import EvaluationCallback
from weightdecay.engine.execution import execute
from weightdecay.engine.groups import TrainingGroup
from weightdecay.engine.plans import Plan
from weightdecay.engine.tracker_thread import Receivers, TrackerThread
from weightdecay.engine.training_workload import TrainingWorkload
from weightdecay.results.grid_result import GridResult
from weightdecay.results.trackers import kinds
from weightdecay.results.trackers.base import Tracker
from weightdecay.search.grid import Grid
from weightdecay.search.strategy import Strategy
from weightdecay.storage import run_directory
from weightdecay.storage.training_records import TrainingRecords
from weightdecay.training import gradients
from weightdecay.training.task import LAYER_METRICS


@suggest_keywords
@devices.outside_mesh
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
    budget: float | int | None = None,
    strategy: Strategy | None = None,
    executor: Any = None,
    mesh: Mesh | None = None,
    sharding: str | Mapping[str, PartitionSpec] | Sequence[tuple[str, PartitionSpec]] | None = None,
    progress: bool = True,
) -> GridResult:
    """Train every member of a grid, and return their curves, weights and scores.

    The initial weights and the batches of a member are drawn from its own seed, whatever else is in the grid. All
    elementwise rules, and all numbers of a grid, train in one compiled program. A member whose numbers become nan or
    infinite stays at its last finite state, and its metrics are nan from then on.

    Args:
      model: A flax linen module, such as ``wd.models.MLP((64, 64))``; a flax nnx class, or a function of ``rngs`` that
        makes an nnx module; a function of ``key`` that makes an equinox module; or ``wd.Model(init, apply)``.
      data: Training, validation and test examples, or folds of `wd.data.folds`, with an axis ``fold`` in the grid.
      grid: The members. In addition to ``decay``, ``learning_rate``, ``seed`` and ``fold``, an axis is a regularizer
        (``dropout_rate``, ``label_smoothing``, ``mixup``, ``input_noise``, ``shift``, ``flip``, ``crop``, ``cutout``,
        ``clip_norm``, ``patience``), ``ema``, ``epochs``, a field of the model, or an argument of ``optimizer``.
        ``ema`` is the decay rate d, in [0, 1), of averaged weights that are evaluated and kept in addition to the last
        ones: they start as the initial weights and become ``d average + (1 - d) weights`` after each step, as does what
        the model has in addition to its weights, such as batch statistics; None = no average. A member with ``epochs``
        takes its steps on the first ``round(num_steps * batch_size / epochs)`` training examples that it may take, and
        its training metrics are those of these examples.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others) -> optax.GradientTransformation``, such as
        `wd.adam` or `wd.sgd`.
      loss: ``"softmax_cross_entropy"`` (default for classes), ``"sigmoid_cross_entropy"`` (default for several labels
        of 0 or 1 an example), ``"squared_error"`` (default for real targets), ``"huber"``, or
        ``loss_fn(outputs, targets) -> losses`` of shape ``(examples,)``.
      num_steps: Training steps of each member.
      batch_size: Examples a step; None takes all of them in each step.
      eval_every: Steps between evaluations, counted from the start; the last step is always evaluated. None: about
        twenty evaluations; in a directory, as the first call had it.
      patience: Evaluations without a better ``stopping_metric`` after which a member stops. The weights that are kept,
        and the metrics of the last evaluation, are then those of its best evaluation. None: every member takes all
        steps.
      stopping_metric: ``"validation_loss"``, ``"validation_accuracy"``, ``"validation_perplexity"`` or
        ``"validation_bits_per_token"`` (where the targets are classes at several positions), ``"validation_..."`` of a
        metric of yours, or, where every member has ``ema``, ``"validation_ema_..."``.
      metrics: Your own metrics by name, ``metric(outputs, targets) -> numbers`` of shape ``(examples,)``, whose means
        are in the result as ``train_...`` and ``validation_...``; or metrics of a whole split, such as
        `wd.metrics.roc_auc` or ``wd.metrics.whole_split(function)``, for which all outputs of a split are kept in
        memory during an evaluation.
      lower_is_better: Whether lower values of each of your metrics are better, by name, as ``{"my_number": True}``.
        Well-known names, such as ``rmse`` and ``roc_auc``, need no entry; see `weightdecay.core.metrics.direction`.
      mask: Which weights decay; see `weightdecay.masks`.
      initial: Weights to start from: a tree of arrays as the model holds it, a safetensors file, or `wd.Initial`, which
        changes names. They are matched by name and shape; weights that are not given are drawn from the member's seed.
        `TowardAnchor` pulls toward them. None: every weight is drawn.
      trainable: Which weights train: True = trains, a pytree prefix of the weights, or a function that makes one, as
        ``wd.masks.matching("head")``. The others are frozen: they have no optimizer state, do not decay, and count in
        no norm, penalty or fraction; statistics of normalization layers still follow the data. None: all.
      directory: Where the run is saved as it goes. The same call goes on where an earlier one was cut off, bit for bit;
        with more members or steps it trains what is new; with anything else changed it is refused. Ctrl-C saves and
        returns what there is. Several processes that make the same call at the same time train it together, each some
        lanes, and return the same result; with a budget or a strategy only one may. None: nothing is saved.
      save_every: Seconds between two saves, > 0; so much is trained again at the most, and the steps of a call.
      plan: Lanes and devices; None has them chosen for the model and the backend; see `plan`.
      memory_budget: Bytes of training examples that may lie on a device; more are streamed from the host. None: a
        quarter of what is free.
      dtype: What the network computes in, such as ``jax.numpy.bfloat16``; weights, optimizer state, coefficients and
        losses keep their own. None: as the weights are.
      accumulate: Parts of equal size into which the batch of each step is divided, for networks of which a whole batch
        does not fit into memory: their gradients are computed one after the other and summed, and one update follows.
        ``batch_size`` stays the examples of a step, and the loss the mean over all of them that count. Batch statistics
        are those of the parts, one after the other, and each part has a dropout mask of its own.
      on_evaluation: ``on_evaluation(table)``, for your own logging: called after each evaluation of some members, with
        a `pandas.DataFrame` of one row a member: ``member``, its hyperparameters as in ``result.dataset``, ``step``,
        and all that was recorded (of layers as ``rotation/<layer>``). It is called in a thread of its own, one call
        after the other; training does not wait for it, all calls are done when this returns, and no number depends on
        it. An exception in it ends up in a warning, and it is called on. A run that resumes reports what it trains.
      log_to: A tracker that gets the run while it trains, as ``result.log`` would log it afterwards: ``"mlflow"``,
        ``"wandb"``, ``"tensorboard"``, or one with settings, such as ``wd.trackers.TensorBoard("runs")``. It is called
        in a thread of its own; if it fails, it is left alone and one warning says so. A candidate's point is logged
        when all its seeds and folds are there. What a resumed run has from before, and what workers of an ``executor``
        trained, is logged at the end.
      budget: The fraction of the grid's member-steps that may be spent, in (0, 1]. The strategy decides which members
        are trained; the others have no metrics, and only candidates with all their seeds are chosen from. None: all of
        it, or as the strategy decides.
      strategy: Which member is trained next, and how far; decides by ``stopping_metric``. See
        `weightdecay.search.strategies`. None: `weightdecay.search.surface.Surface`, where there is a budget.
      executor: Trains the members on workers: anything with ``submit(function, *arguments)`` that returns something
        with ``result()``, such as ``concurrent.futures.ProcessPoolExecutor(2)``, a ``distributed.Client`` of Dask,
        `wd.executors.ray`, or ``wd.executors.sized(submitit_executor, 8)``. Each worker gets one task, which is this
        call in ``directory`` (or a temporary one); ``on_evaluation`` is called there. None: this process trains.
      mesh: Devices that train a lane together: a mesh with an axis ``member``, over which the members of a lane are
        spread, and others, such as ``data``, over which the examples of a batch are spread, and ``model``; for members
        that are larger than a device. The bits of a member depend on the sizes of the axes and on ``sharding``. None:
        each lane is trained by one device.
      sharding: How weights are partitioned over the axes of ``mesh`` other than ``member``, and with them optimizer
        states and averages: ``"fsdp"`` divides the first axis that the number of a member's devices divides; a
        `jax.sharding.PartitionSpec` by pattern, as in `weightdecay.masks.matching`, of which the first that matches
        counts. Others, and all with None, are partitioned as the network says by ``nn.with_partitioning`` or
        ``nnx.with_partitioning``; what nothing names is copied to each device.
      progress: Whether to show a bar with the time left.

    Returns:
      The result, one member a row, in the order of the grid.

    Raises:
      TypeError: An argument has a wrong type.
      ValueError: An argument has a wrong value; raised before anything is compiled.
      MemoryError: One member does not fit into the memory under any plan; raised before training.
      RuntimeError: Another process trains other members, or within a budget, in ``directory``.
      OSError: ``directory`` cannot be written, or holds something else.

    Examples:
      >>> from weightdecay import data, decay, models
      >>> grid = Grid(decay=[decay.NoDecay(), decay.L2(0.01)], learning_rate=1e-3, seed=range(2))
      >>> result = fit_grid(models.MLP((16,)), data.digits(), grid, num_steps=20, batch_size=32, progress=False)
      >>> result.dataset.sizes["member"], result.dataset.sizes["step"]
      (4, 20)
    """
    run_directory.check_save_every(save_every)
    tracker = None if log_to is None else kinds.checked(log_to, "log_to", {})
    given_directory = directory
    before = {}
    if directory is not None:
        before = hosts.agreed(mesh, functools.partial(run_directory.read_description, directory))
    settings: dict[str, Any] = {
        "optimizer": optimizer,
        "loss": loss,
        "num_steps": num_steps,
        "batch_size": batch_size,
        "eval_every": eval_every,
        "patience": patience,
        "stopping_metric": stopping_metric,
        "metrics": metrics,
        "lower_is_better": lower_is_better,
        "mask": mask,
        "initial": initial,
        "trainable": trainable,
        "plan": plan,
        "memory_budget": memory_budget,
        "dtype": dtype,
        "accumulate": accumulate,
        "mesh": mesh,
        "sharding": sharding,
    }
    prepared = preparation.prepare_run(model, data, grid, **settings, before=before.get("depends_on", {}))
    task = prepared.groups[0].task
    names = {
        "model": " ".join(re.sub(r" at 0x\w+", "", repr(prepared.model)).split()),
        "optimizer": _name(optimizer),
        "loss": task.loss.name,
        "metrics": list(task.own_metrics()),
        "lower_is_better": {metric.name: metric.lower_is_better for metric in task.metrics},
        "mask": _name(mask) if masks.is_function(mask) else "a tree of its own",
        "patience": None if patience is None else int(patience),
        "stopping_metric": stopping_metric,
        "dtype": task.dtype,
        "accumulate": task.accumulate,
    }
    layers = dict.fromkeys(layer for group in prepared.groups for layer in group.layers())
    gradients.warn_of_decay_without_gradient(_without_gradient(prepared.groups))
    records = TrainingRecords(
        len(grid),
        len(prepared.steps),
        list(layers),
        metrics=list(dict.fromkeys(name for group in prepared.groups for name in group.task.metric_names())),
        layer_metrics=LAYER_METRICS,
        weights_bytes=sum(
            len(group.indices) * plans.bytes_of((group.state.params, group.state.model_state))
            for group in prepared.groups
        ),
        averages_bytes=sum(len(group.indices) * plans.bytes_of(group.state.average) for group in prepared.groups),
    )
    chosen_strategy, allowed = races.settled(strategy, budget, grid, prepared.steps[-1])
    executors.check(executor, strategy=chosen_strategy, mesh=mesh)
    helpers = None
    if executor is not None:
        of_worker = {**settings, "save_every": save_every, "on_evaluation": on_evaluation}
        helpers = executors.Helpers(executor, executors.partial(fit_grid, model, data, **of_worker), grid)
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(executors.directory_of(executor, directory))
        watches = hosts.is_first(mesh)
        callback = (
            None
            if on_evaluation is None or not watches
            else stack.enter_context(EvaluationCallback(on_evaluation, list(grid)))
        )
        logging = None if tracker is None or not watches else stack.enter_context(TrackerThread(tracker, list(grid)))
        stack.enter_context(interrupts.first_only())
        run = (
            None
            if directory is None
            else stack.enter_context(
                hosts.open_run(directory, mesh=mesh, save_every=save_every, alone=chosen_strategy is not None)
            )
        )
        started_races: list[races.Race] = []

        def race(workload: TrainingWorkload) -> races.Race:
            lanes_at_once = workload.plan.lane_width * workload.plan.num_lanes_at_once
            assert chosen_strategy is not None
            started_races.append(races.Race(chosen_strategy, grid, workload.run.steps, allowed, lanes_at_once))
            return started_races[-1]

        workload, interrupted = execute(
            TrainingWorkload(prepared, records, names, Receivers(callback, logging)),
            prepared.grid,
            run,
            unit="member-steps",
            width_is_free=plan is None,
            has_patience=any(group.state.best is not None for group in prepared.groups),
            race=None if chosen_strategy is None else race,
            helpers=helpers,
            progress=progress and hosts.is_first(mesh),
        )
        if interrupted:
            warn(
                "interrupted; what was trained is returned, and nothing is saved: a run in a directory can be resumed."
                if run is None
                else "interrupted; what was trained is saved. To resume, make the same call (or run the same command) "
                f"again, with directory={str(run.path)!r}."
            )
        trained = workload.run
        if started_races:
            reached = started_races[-1].reached
            if run is not None:  # which may hold more than this search asked for
                records.keep_until(reached, np.asarray(trained.steps))
            records.marks["dropped_at"] = np.where(reached < trained.steps[-1], reached, -1).astype(np.int32)
        outcome.record_theory(trained, trained.grid, records)
        result = GridResult.build(
            list(grid),
            trained.steps,
            records,
            {
                **names,
                "num_steps": trained.steps[-1],
                "batch_size": trained.batch_size,
                "examples": {name: split.num_examples for name, split in trained.splits.items()},
                "folds": data.num_folds,
                "class_names": None if trained.class_names is None else list(trained.class_names),
                "compiled_programs": len(trained.groups),
                "plan": trained.plan.layout(),
                **({} if trained.mesh is None else {"mesh": trained.mesh.describe()}),
                "backend": jax.default_backend(),
                "interrupted": interrupted,
                **({"spent": started_races[-1].spent, "strategy": repr(chosen_strategy)} if started_races else {}),
                "seconds": round(time.perf_counter() - started, 3),
            },
            model=trained.model,
            score_test=outcome.score_function(trained),
            predict=outcome.predict_function(trained),
            network=outcome.network_function(trained),
            extend=_Extension(
                model,
                data,
                {
                    **settings,
                    "budget": budget,
                    "strategy": strategy,
                    "eval_every": trained.steps[0],
                    "directory": given_directory,
                    "executor": executor,
                    "save_every": save_every,
                    "on_evaluation": on_evaluation,
                    "log_to": log_to,
                    "progress": progress,
                },
                grid,
            ),
        )
        if helpers is not None and not interrupted:
            helpers.wait()
        if run is not None and not interrupted:
            run.write_result(lambda path: result.save(path, overwrite=True))
        if logging is not None:
            logging.finish(result)
    return result


class _Extension:
    """Trains further grids as one was trained; the grids of one run directory stay together in it."""

    def __init__(self, model: Any, data: Data, settings: Mapping[str, Any], grid: Grid) -> None:
        """Take the arguments of `fit_grid`."""
        self._model, self._data, self._settings = model, data, settings
        self._in_directory = grid

    def __call__(self, grid: Grid, num_steps: int | None) -> GridResult:
        """Train another grid.

        Args:
          grid: Its members.
          num_steps: Training steps of each; None = as before.

        Returns:
          The result of that grid alone.
        """
        if num_steps is not None or self._settings["directory"] is None:
            settings = {**self._settings, "num_steps": num_steps or self._settings["num_steps"]}
            return fit_grid(self._model, self._data, grid, **settings)
        together = self._in_directory + grid
        added = len(together) - len(self._in_directory)
        result = fit_grid(self._model, self._data, together, **self._settings)
        self._in_directory = together
        return result.part(range(len(result) - added, len(result)))

    def refit(self, hyperparameters: Mapping[str, Any], seeds: Sequence[Any], num_steps: int | None) -> GridResult:
        """Train one candidate on the training and the validation examples.

        Args:
          hyperparameters: Its hyperparameters by name, without seed and fold.
          seeds: Seeds of its members.
          num_steps: Training steps; None = as before.

        Returns:
          The result of these members.
        """
        num_steps = num_steps or self._settings["num_steps"]
        alone = {"directory": None, "executor": None, "patience": None, "budget": None, "strategy": None, "plan": None}
        settings = {**self._settings, **alone, "num_steps": num_steps, "eval_every": num_steps}
        grid = Grid(**{name: [value] for name, value in hyperparameters.items()}, seed=list(seeds))
        return fit_grid(self._model, self._data.joined(), grid, **settings)


def fit(
    model: Any,
    data: Data,
    *,
    decay: Rule | Sequence[Rule],
    learning_rate: Scalar | Schedule | PerLayer,
    seed: Integer = 0,
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
    **axes: Any,
) -> GridResult:
    """Train one member alone; its numbers are, bit for bit, those that it has in any grid.

    Args:
      model: As in `fit_grid`.
      data: As in `fit_grid`.
      decay: The rule, or several in a tuple.
      learning_rate: > 0, a schedule of `weightdecay.schedules` or of optax, or `PerLayer`.
      seed: Seed of the initial weights, the batches and the dropout.
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
      directory: As in `fit_grid`.
      save_every: As in `fit_grid`.
      plan: As in `fit_grid`.
      memory_budget: As in `fit_grid`.
      dtype: As in `fit_grid`.
      accumulate: As in `fit_grid`.
      on_evaluation: As in `fit_grid`.
      log_to: As in `fit_grid`.
      mesh: As in `fit_grid`.
      sharding: As in `fit_grid`.
      progress: As in `fit_grid`.
      **axes: Values of further axes of a grid, such as ``momentum=0.9`` or ``label_smoothing=0.1``.

    Returns:
      A result of one member: ``result.params()`` are its weights.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`.
    """
    rules = decay if isinstance(decay, Rule) else tuple(decay)
    one_of_each = {name: [value] for name, value in axes.items()}
    return fit_grid(
        model,
        data,
        Grid(decay=[rules], learning_rate=[learning_rate], seed=[seed], **one_of_each),
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
        directory=directory,
        save_every=save_every,
        plan=plan,
        memory_budget=memory_budget,
        dtype=dtype,
        accumulate=accumulate,
        on_evaluation=on_evaluation,
        log_to=log_to,
        mesh=mesh,
        sharding=sharding,
        progress=progress,
    )


def _without_gradient(groups: Sequence[TrainingGroup]) -> list[str]:
    """Names of the arrays that decay and have no gradient; of each model, the first group in which a rule decays."""
    of_model: dict[Any, list[str]] = {}
    for group in groups:
        if group.model_options not in of_model and group.has_decay():
            of_model[group.model_options] = group.without_gradient()
    return [name for names in of_model.values() for name in names]


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)
