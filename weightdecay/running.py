"""Training whole grids: the only place where members are batched.

Members of one structure share one compiled program, mapped over a lane of members and sharded over devices. A round
of lanes is trained from its first step to its last before the next begins, so memory does not grow with the grid.
"""

import functools
import inspect
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from weightdecay import data as datasets
from weightdecay import grid as grids
from weightdecay import losses, masks, models, optimizers, planning, training
from weightdecay.data import Data
from weightdecay.decay import Rule
from weightdecay.grid import Grid
from weightdecay.planning import Plan
from weightdecay.results import GridResult, Trained
from weightdecay.training import Hyperparameters, Task
from weightdecay.types import Batch, LossFn, Mask, MaskFn

_OWN_AXES = ("decay", "learning_rate", "seed")


def fit_grid(
    model: Any,
    data: Data,
    grid: Grid,
    *,
    optimizer: Callable[..., Any] = optimizers.adam,
    loss: str | LossFn | None = None,
    num_steps: int,
    batch_size: int | None,
    eval_every: int | None = None,
    mask: Mask | MaskFn = masks.kernels,
    plan: Plan | None = None,
    progress: bool = True,
) -> GridResult:
    """Train every member of a grid, and say what came of each.

    Each member starts from weights drawn from its own seed and sees batches drawn from its own seed, whatever else is in the
    grid. Rules with one normal form, and all numbers of a grid, train in one compiled program.

    Args:
      model: A flax linen module, such as ``wd.models.MLP((64, 64))``, or ``wd.Model(init, apply)``.
      data: Training, validation and test examples.
      grid: The members. Axes beside ``decay``, ``learning_rate`` and ``seed`` are arguments of ``optimizer``.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others) -> optax.GradientTransformation``, such as `wd.adam` or
        `wd.sgd`.
      loss: ``"softmax_cross_entropy"`` (default for integer targets), ``"sigmoid_cross_entropy"``, ``"squared_error"`` (default
        for real targets), or ``loss_fn(outputs, targets) -> losses`` of shape ``(examples,)``.
      num_steps: Training steps of each member.
      batch_size: Examples a step; None takes all of them in each step.
      eval_every: Steps between evaluations, counted from the start; the last step is always evaluated. None: about twenty
        evaluations.
      mask: Which weights decay; see `weightdecay.masks`.
      plan: Lanes and devices; None has them chosen for the model and the backend.
      progress: Whether to show a bar with the time left.

    Returns:
      The result, one member a row, in the order of the grid.

    Raises:
      TypeError: An argument of the wrong kind.
      ValueError: An argument of the wrong value: told before anything is compiled.

    Examples:
      >>> from weightdecay import decay, models
      >>> grid = Grid(decay=[decay.NoDecay(), decay.L2(0.01)], learning_rate=1e-3, seed=range(2))
      >>> result = fit_grid(models.MLP((16,)), datasets.digits(), grid, num_steps=20, batch_size=32, progress=False)
      >>> result.dataset.sizes["member"], result.dataset.sizes["step"]
      (4, 20)
    """
    planning.prepare_devices()
    eval_every = _check_steps(num_steps, eval_every)
    datasets.check(data, batch_size)
    groups = _groups(grid, optimizer)
    splits = data.batches()
    task = _task(model, splits, loss, optimizer, mask, batch_size)
    example = jax.ShapeDtypeStruct((1, *splits["train"].inputs.shape[1:]), splits["train"].inputs.dtype)

    runs = []
    for options, indices, hyperparameters in groups:
        group_task = Task(task.model, task.loss, optimizer, mask, batch_size, options)
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), hyperparameters)
        state = jax.eval_shape(functools.partial(training.initialize, group_task), one, example)
        runs.append((group_task, indices, hyperparameters, plan or planning.choose(state)))
    if plan is not None:
        planning.check(plan)
    _check_outputs(task, state, splits)

    steps = _eval_steps(num_steps, eval_every)
    started = time.perf_counter()
    with _bar(len(grid) * num_steps, progress) as bar:
        finished: list[Any] = [None] * len(grid)
        for group_task, indices, hyperparameters, group_plan in runs:
            for index, member in _run(group_task, hyperparameters, splits, steps, group_plan, bar):
                finished[indices[index]] = member
    settings = {
        "model": repr(task.model),
        "optimizer": getattr(optimizer, "__name__", repr(optimizer)),
        "loss": task.loss.name,
        "mask": getattr(mask, "__name__", repr(mask)),
        "num_steps": num_steps,
        "batch_size": batch_size,
        "num_train": len(splits["train"].inputs),
        "num_validation": len(splits["validation"].inputs),
        "num_test": len(splits["test"].inputs) if "test" in splits else 0,
        "compiled_programs": len(runs),
        "lane_width": runs[0][-1].lane_width,
        "num_devices": runs[0][-1].num_devices,
        "backend": jax.default_backend(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return GridResult.build(list(grid), steps, finished, settings, model=task.model, score_test=_test_scorer(task, splits))


def fit(
    model: Any,
    data: Data,
    *,
    decay: Rule,
    learning_rate: float,
    seed: int = 0,
    optimizer: Callable[..., Any] = optimizers.adam,
    loss: str | LossFn | None = None,
    num_steps: int,
    batch_size: int | None,
    eval_every: int | None = None,
    mask: Mask | MaskFn = masks.kernels,
    plan: Plan | None = None,
    progress: bool = True,
    **hyperparameters: Any,
) -> GridResult:
    """Train one member alone; its numbers are those that it has in any grid.

    Args:
      model: As in `fit_grid`.
      data: As in `fit_grid`.
      decay: The rule.
      learning_rate: > 0.
      seed: Of the first weights, the batches and the dropout.
      optimizer: As in `fit_grid`.
      loss: As in `fit_grid`.
      num_steps: As in `fit_grid`.
      batch_size: As in `fit_grid`.
      eval_every: As in `fit_grid`.
      mask: As in `fit_grid`.
      plan: As in `fit_grid`.
      progress: As in `fit_grid`.
      **hyperparameters: Further arguments of the optimizer.

    Returns:
      A result of one member: ``result.params()`` are its weights.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`.
    """
    return fit_grid(
        model,
        data,
        Grid(decay=[decay], learning_rate=[learning_rate], seed=[seed], **{k: [v] for k, v in hyperparameters.items()}),
        optimizer=optimizer,
        loss=loss,
        num_steps=num_steps,
        batch_size=batch_size,
        eval_every=eval_every,
        mask=mask,
        plan=plan,
        progress=progress,
    )


class _Programs(NamedTuple):
    """The two compiled functions of a group, each over one round of lanes."""

    initialize: Callable[..., Any]
    advance: Callable[..., Any]


def _programs(task: Task, mesh: Mesh) -> _Programs:
    try:
        return _cached_programs(task, mesh)
    except TypeError:  # A model or a mask that cannot be hashed is compiled afresh in each call.
        return _cached_programs.__wrapped__(task, mesh)


@functools.lru_cache(maxsize=16)
def _cached_programs(task: Task, mesh: Mesh) -> _Programs:
    lanes, shared = PartitionSpec("lanes"), PartitionSpec()

    def initialize(hyperparameters: Any, inputs: Any) -> Any:
        return jax.vmap(lambda one: training.initialize(task, one, inputs))(hyperparameters)

    def advance(hyperparameters: Any, states: Any, order: Any, num_steps: Any, data: Batch, validation: Batch) -> Any:
        def member(one: Any, state: Any, order: Any) -> Any:
            state = training.train(task, one, state, data, order, num_steps)
            return state, training.report(task, one, state, data, validation)

        return jax.vmap(member)(hyperparameters, states, order)

    def sharded(function: Any, in_specs: Any) -> Any:
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=lanes, check_vma=False)

    return _Programs(
        initialize=jax.jit(sharded(initialize, (lanes, shared))),
        advance=jax.jit(sharded(advance, (lanes, lanes, lanes, shared, shared, shared)), donate_argnums=1),
    )


def _run(
    task: Task, hyperparameters: Hyperparameters, splits: Mapping[str, Batch], steps: Sequence[int], plan: Plan, bar: Any
) -> Iterator[tuple[int, Trained]]:
    """Train the members of one group, and yield each with its place in the group."""
    num_members = len(hyperparameters.seed)
    num_devices = min(plan.num_devices, -(-num_members // plan.lane_width))
    mesh = Mesh(np.array(jax.local_devices()[:num_devices]), ("lanes",))
    programs = _programs(task, mesh)
    over_lanes, everywhere = NamedSharding(mesh, PartitionSpec("lanes")), NamedSharding(mesh, PartitionSpec())
    data, validation = jax.device_put((splits["train"], splits["validation"]), everywhere)
    longest = min(plan.steps_per_call, max(b - a for a, b in itertools.pairwise([0, *steps])))
    order = _Orders(task.batch_size, len(splits["train"].inputs), longest)

    per_round = plan.lane_width * num_devices
    for first in range(0, num_members, per_round):
        here = np.arange(first, min(first + per_round, num_members))
        slots = np.resize(here, per_round)  # The last round is filled up with its own members once more.
        one_round = jax.device_put(jax.tree.map(lambda leaf: leaf[slots], hyperparameters), over_lanes)
        states = programs.initialize(one_round, data.inputs[:1])

        records: list[Any] = []
        done = 0
        pending = None
        for stop in steps:
            while done < stop:
                count = min(stop - done, longest)
                batches = jax.device_put(order(hyperparameters.seed[slots], done), over_lanes)
                states, record = programs.advance(one_round, states, batches, np.int32(count), data, validation)
                done += count
                if pending is not None:  # Wait for the stretch before, while this one runs.
                    jax.block_until_ready(pending[0])
                    bar.update(pending[1])
                pending = (record, count * len(here))
            records.append(record)
        jax.block_until_ready(pending[0])
        bar.update(pending[1])

        states, records = jax.device_get((states, records))
        metrics = {name: np.stack([record[name] for record in records], axis=1) for name in records[0]}
        for slot, index in enumerate(here):
            pick = functools.partial(jax.tree.map, lambda leaf, slot=slot: np.array(leaf[slot]))
            yield (
                int(index),
                Trained(
                    metrics={name: values[slot] for name, values in metrics.items()},
                    params=pick(states.params),
                    model_state=pick(states.model_state),
                    diverged_at=int(states.diverged_at[slot]),
                    stopped_at=-1,
                ),
            )


class _Orders:
    """Which examples the members of a round see; made once a seed, since members with one seed share them."""

    def __init__(self, batch_size: int | None, num_examples: int, num_steps: int) -> None:
        self._make = None
        if batch_size is not None:
            make = jax.jit(
                functools.partial(
                    training.batch_order, num_steps=num_steps, batch_size=batch_size, num_examples=num_examples
                )
            )
            self._make = functools.lru_cache(maxsize=256)(lambda seed, start: np.asarray(make(np.int32(seed), np.int32(start))))

    def __call__(self, seeds: Any, start: int) -> Any:
        return None if self._make is None else np.stack([self._make(int(seed), start) for seed in seeds])


def _groups(grid: Any, optimizer: Callable[..., Any]) -> list[tuple[tuple[tuple[str, Any], ...], list[int], Hyperparameters]]:
    """Members of equal structure: their optimizer's structural options, their places, and their numbers, stacked."""
    if not isinstance(grid, Grid):
        raise TypeError(f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], learning_rate=[...], seed=range(3)).")
    if "learning_rate" not in grid.axes:
        raise ValueError("grid has no axis learning_rate; add one, as in wd.Grid(decay=[...], learning_rate=[1e-3]).")
    if not callable(optimizer):
        raise TypeError(f"optimizer is {optimizer!r}; give wd.adam, wd.sgd or a function of learning_rate, decay and mask.")
    parameters = inspect.signature(optimizer).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for axis in grid.axes:
        if axis not in _OWN_AXES and axis not in names and not takes_any:
            raise ValueError(
                f"grid has an axis {axis!r}, which the optimizer does not take; its arguments are "
                f"{', '.join(name for name in names if name not in ('decay', 'mask'))}."
            )
    structures: dict[Any, list[tuple[int, Hyperparameters]]] = {}
    for index, member in enumerate(grid):
        others = {name: value for name, value in member.items() if name not in _OWN_AXES}
        options = tuple(sorted((name, value) for name, value in others.items() if isinstance(value, bool | str)))
        numbers = {name: value for name, value in others.items() if not isinstance(value, bool | str)}
        one = Hyperparameters(
            decay=jax.tree.map(_real, member["decay"].terms().filled()),
            learning_rate=_real(member["learning_rate"]),
            seed=np.int32(member["seed"]),
            optimizer=jax.tree.map(_real, numbers),
        )
        structures.setdefault((options, jax.tree.structure(one)), []).append((index, one))
    return [
        (options, [index for index, _ in members], jax.tree.map(lambda *leaves: np.stack(leaves), *(one for _, one in members)))
        for (options, _), members in structures.items()
    ]


def _real(value: Any) -> np.ndarray:
    return np.asarray(value, jnp.zeros(()).dtype)


def _task(
    model: Any, splits: Mapping[str, Batch], loss: Any, optimizer: Any, mask: Any, batch_size: int | None
) -> Task:
    resolved = losses.resolve(loss, splits["train"].targets)
    for name, split in splits.items():
        losses.check_targets(resolved, split.targets, argument=f"data.{name} targets")
    complete = models.complete(model, losses.num_outputs(resolved, _all_targets(splits)))
    models.network(complete)
    return Task(complete, resolved, optimizer, mask, batch_size)


def _all_targets(splits: Mapping[str, Batch]) -> np.ndarray:
    return np.concatenate([split.targets for split in splits.values()])


def _check_outputs(task: Task, state: Any, splits: Mapping[str, Batch]) -> None:
    """Run the network and the loss on shapes alone."""
    batch = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), splits["validation"])
    apply = functools.partial(task.network().apply, train=False)
    key = jax.eval_shape(lambda: jax.random.key(0))
    outputs, _ = jax.eval_shape(lambda *args: apply(*args[:3], key=args[3]), state.params, state.model_state, batch.inputs, key)
    losses.check_outputs(task.loss, outputs, _all_targets(splits))
    each = jax.eval_shape(lambda o, t: task.loss.per_example(task.loss.align(o, t), t), outputs, batch.targets)
    if each.shape != (len(batch.targets),):
        raise ValueError(
            f"loss gives an array of shape {each.shape} for {len(batch.targets)} examples; it must give one loss an example, "
            f"shape ({len(batch.targets)},), not their mean."
        )


def _test_scorer(task: Task, splits: Mapping[str, Batch]) -> Callable[[Any, Any], dict[str, float]] | None:
    if "test" not in splits:
        return None
    score = jax.jit(lambda params, model_state: training.score(task, params, model_state, splits["test"]))
    return lambda params, model_state: {name: float(value) for name, value in score(params, model_state).items()}


def _check_steps(num_steps: Any, eval_every: Any) -> int:
    for name, value in {"num_steps": num_steps, "eval_every": eval_every}.items():
        if value is None and name == "eval_every":
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least 1.")
    return int(eval_every or max(1, num_steps // 20))


def _eval_steps(num_steps: int, eval_every: int) -> list[int]:
    return [*range(eval_every, num_steps, eval_every), num_steps]


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total,
        disable=not progress,
        desc="training",
        unit="step",
        unit_scale=True,
        file=sys.stderr,
        bar_format="{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} member-steps, {elapsed} gone, {remaining} left",
    )
