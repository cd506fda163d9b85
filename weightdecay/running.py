"""Training whole grids: the only place where members are batched.

Members of one structure share one compiled program, mapped over a lane of members and sharded over devices. A round
of lanes is trained from its first step to its last before the next begins, so that a device holds one round at a time.
"""

import functools
import inspect
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from weightdecay import data as datasets
from weightdecay import masks, optimizers, planning, training
from weightdecay.data import Data
from weightdecay.decay import Rule
from weightdecay.grid import Grid
from weightdecay.placement import parts
from weightdecay.planning import Plan
from weightdecay.results import GridResult, Trained
from weightdecay.terms import Plain, Terms
from weightdecay.training import Hyperparameters, Task
from weightdecay.types import Batch, Integer, LossFn, Mask, MaskFn, Scalar

_OWN_AXES = ("decay", "learning_rate", "seed")
# Random numbers take the compiler long and the machine no time: compile them with little optimization.
_RUN_ONCE = {"xla_backend_optimization_level": 1}


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
    mask: Mask | MaskFn = masks.kernels,
    plan: Plan | None = None,
    progress: bool = True,
) -> GridResult:
    """Train every member of a grid, and say what came of each.

    Each member starts from weights drawn from its own seed and sees batches drawn from its own seed, whatever else is
    in the grid. Rules with one normal form, and all numbers of a grid, train in one compiled program.

    Args:
      model: A flax linen module, such as ``wd.models.MLP((64, 64))``, or ``wd.Model(init, apply)``.
      data: Training, validation and test examples.
      grid: The members. Axes beside ``decay``, ``learning_rate`` and ``seed`` are arguments of ``optimizer``.
      optimizer: ``optimizer(learning_rate, decay, mask=..., **others) -> optax.GradientTransformation``, such as
        `wd.adam` or `wd.sgd`.
      loss: ``"softmax_cross_entropy"`` (default for integer targets), ``"sigmoid_cross_entropy"``, ``"squared_error"``
        (default for real targets), or ``loss_fn(outputs, targets) -> losses`` of shape ``(examples,)``.
      num_steps: Training steps of each member.
      batch_size: Examples a step; None takes all of them in each step.
      eval_every: Steps between evaluations, counted from the start; the last step is always evaluated. None: about
        twenty evaluations.
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
    if plan is not None:
        planning.check(plan)
    _check_axes(grid, optimizer)
    num_steps, batch_size = int(num_steps), None if batch_size is None else int(batch_size)
    splits = data.batches()
    task = training.prepare(model, splits, loss=loss, optimizer=optimizer, mask=mask, batch_size=batch_size)
    places = _places(task, grid, splits)
    _check_rules(task, grid, places, splits)
    groups = _groups(grid, places)
    tasks = [replace(task, options=group.options) for group in groups]
    shapes = [_check_shapes(task, group, splits) for task, group in zip(tasks, groups, strict=True)]
    plans = [planning.choose(shape) if plan is None else plan for shape in shapes]

    steps = [*range(eval_every, num_steps, eval_every), num_steps]
    started = time.perf_counter()
    trained: dict[int, Trained] = {}
    with _bar(len(grid) * num_steps, progress) as bar:
        for group_task, group, group_plan in zip(tasks, groups, plans, strict=True):
            trained |= _train(group_task, group, splits, steps, group_plan, bar)
    settings = {
        "model": repr(task.model),
        "optimizer": _name(optimizer),
        "loss": task.loss.name,
        "mask": _name(mask),
        "num_steps": num_steps,
        "batch_size": batch_size,
        "examples": {name: len(split.inputs) for name, split in splits.items()},
        "compiled_programs": len(groups),
        "plan": asdict(plans[0]),
        "backend": jax.default_backend(),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return GridResult.build(
        list(grid),
        steps,
        [trained[place] for place in range(len(grid))],
        settings,
        model=task.model,
        score_test=_test_scorer(task, splits),
    )


def fit(
    model: Any, data: Data, *, decay: Rule | Sequence[Rule], learning_rate: Scalar, seed: Integer = 0, **settings: Any
) -> GridResult:
    """Train one member alone; its numbers are, bit for bit, those that it has in any grid.

    Args:
      model: As in `fit_grid`.
      data: As in `fit_grid`.
      decay: The rule, or several in a tuple.
      learning_rate: > 0.
      seed: Of the first weights, the batches and the dropout.
      **settings: ``num_steps``, ``batch_size`` and the other arguments of `fit_grid`; every further one is an argument
        of the optimizer, such as ``momentum=0.9``.

    Returns:
      A result of one member: ``result.params()`` are its weights.

    Raises:
      TypeError: As `fit_grid`.
      ValueError: As `fit_grid`.
    """
    for_grid = inspect.signature(fit_grid).parameters
    others = {name: [value] for name, value in settings.items() if name not in for_grid}
    grid = Grid(decay=[decay], learning_rate=[learning_rate], seed=[seed], **others)
    return fit_grid(model, data, grid, **{name: value for name, value in settings.items() if name in for_grid})


class _Group(NamedTuple):
    """Members that one compiled program trains."""

    options: tuple[tuple[str, Any], ...]  # arguments of the optimizer that change its structure
    places: np.ndarray  # in the grid, (members,)
    hyperparameters: Hyperparameters  # every leaf (members,)


def _groups(grid: Grid, places: frozenset[str]) -> list[_Group]:
    """Members of equal structure: only their numbers differ, so that one compiled program trains them.

    Plain rules are brought to their normal form with a number in each of the named places, so that they are one group.
    """
    structures: dict[Any, list[tuple[int, Hyperparameters]]] = {}
    for place, member in enumerate(grid):
        decay, options, numbers = _split(member)
        one = Hyperparameters(
            decay=jax.tree.map(_real, decay.terms().filled(places) if isinstance(decay, Plain | Terms) else decay),
            learning_rate=_real(member["learning_rate"]),
            seed=np.asarray(member["seed"], np.int32),
            optimizer=jax.tree.map(_real, numbers),
        )
        structures.setdefault((options, jax.tree.structure(one)), []).append((place, one))
    return [
        _Group(
            options,
            np.array([place for place, _ in members]),
            jax.tree.map(lambda *leaves: np.stack(leaves), *(one for _, one in members)),
        )
        for (options, _), members in structures.items()
    ]


def _split(member: Mapping[str, Any]) -> tuple[Rule, tuple[tuple[str, Any], ...], dict[str, Any]]:
    """A member's rule, its options that change the optimizer's structure, and its numbers for the optimizer."""
    rules = parts(member["decay"])
    alone = len(rules) == 1 and rules[0][1] is None
    others = {name: value for name, value in member.items() if name not in _OWN_AXES}
    options = {name: value for name, value in others.items() if isinstance(value, bool | str)}
    numbers = {name: value for name, value in others.items() if name not in options}
    return rules[0][0] if alone else member["decay"], tuple(sorted(options.items())), numbers


def _places(task: Task, grid: Grid, splits: Mapping[str, Batch]) -> frozenset[str]:
    """Terms of the normal form that the optimizer takes, whatever stands in the grid.

    Lion takes no proximal step, a schedule without its peak no independent decay; all others take every term.
    """
    _, options, numbers = _split(grid[0])
    every = Terms().coefficients().keys()
    plain = every - {"proximal_l1", "proximal_l2"}
    for places in map(frozenset, (every, plain, plain - {"independent", "corrected"})):
        one = Hyperparameters(Terms().filled(places), grid[0]["learning_rate"], np.int32(0), numbers)
        try:
            jax.eval_shape(
                functools.partial(training.initialize, replace(task, options=options)), one, _example(splits)
            )
        except ValueError:
            continue
        return places
    return frozenset()


def _check_rules(task: Task, grid: Grid, places: frozenset[str], splits: Mapping[str, Batch]) -> None:
    """Let the optimizer refuse a rule in the words of that rule, before it is brought to its normal form."""
    for member in grid:
        decay, options, numbers = _split(member)
        if isinstance(decay, Plain | Terms) and not decay.terms().present <= places:
            one = Hyperparameters(decay, member["learning_rate"], np.int32(0), numbers)
            initialize = functools.partial(training.initialize, replace(task, options=options), one)
            jax.eval_shape(initialize, _example(splits))


def _example(splits: Mapping[str, Batch]) -> jax.ShapeDtypeStruct:
    inputs = splits["train"].inputs
    return jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)


def _check_axes(grid: Any, optimizer: Any) -> None:
    if not isinstance(grid, Grid):
        raise TypeError(
            f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], learning_rate=[...], seed=range(3))."
        )
    if not callable(optimizer):
        raise TypeError(
            f"optimizer is {optimizer!r}; give wd.adam, wd.sgd or a function of learning_rate, decay and mask."
        )
    if "learning_rate" not in grid.axes:
        raise ValueError("grid has no axis learning_rate; add one, as in wd.Grid(decay=[...], learning_rate=[1e-3]).")
    parameters = inspect.signature(optimizer).parameters.values()
    named = (p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
    names = [p.name for p in named if p.name not in ("decay", "mask")]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for axis in grid.axes:
        if axis not in _OWN_AXES and axis not in names and not takes_any:
            raise ValueError(
                f"grid has an axis {axis!r}, which the optimizer does not take; its arguments are {', '.join(names)}."
            )


def _check_shapes(task: Task, group: _Group, splits: Mapping[str, Batch]) -> training.State:
    """Run one member on shapes alone: what does not fit is told before anything is compiled."""
    one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), group.hyperparameters)
    state = jax.eval_shape(functools.partial(training.initialize, task), one, _example(splits))
    training.check_outputs(task, state, splits)
    return state


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
        initialize=jax.jit(sharded(initialize, (lanes, shared)), compiler_options=_RUN_ONCE),
        advance=jax.jit(sharded(advance, (lanes, lanes, lanes, shared, shared, shared)), donate_argnums=1),
    )


def _train(
    task: Task, group: _Group, splits: Mapping[str, Batch], steps: Sequence[int], plan: Plan, bar: Any
) -> dict[int, Trained]:
    """Train the members of one group, a round of lanes after the other; each comes back under its place in the grid."""
    num_members = len(group.places)
    mesh = Mesh(np.array(jax.local_devices()[: plan.num_devices]), ("lanes",))
    programs = _programs(task, mesh)
    over_lanes, everywhere = NamedSharding(mesh, PartitionSpec("lanes")), NamedSharding(mesh, PartitionSpec())
    data, validation = jax.device_put((splits["train"], splits["validation"]), everywhere)
    longest = min(plan.steps_per_call, max(stop - start for start, stop in itertools.pairwise([0, *steps])))
    orders = _Orders(task.batch_size, len(data.inputs), longest)

    def train_round(members: np.ndarray) -> dict[int, Trained]:
        slots = np.resize(members, per_round)  # The last round is filled up with its own members once more.
        here = jax.device_put(jax.tree.map(lambda leaf: leaf[slots], group.hyperparameters), over_lanes)
        states = programs.initialize(here, splits["train"].inputs[:1])
        records, ran = [], 0
        for start, stop in _stretches(steps, longest):
            order = jax.device_put(orders(group.hyperparameters.seed[slots], start), over_lanes)
            # One program at a time: on a CPU the devices share one pool of threads.
            jax.block_until_ready(states)
            bar.update(ran)
            states, record = programs.advance(here, states, order, np.int32(stop - start), data, validation)
            if stop in steps:
                records.append(record)
            ran = (stop - start) * len(members)
        jax.block_until_ready(states)
        bar.update(ran)
        return _unbatch(group.places[members], *jax.device_get((states, records)))

    per_round = plan.lane_width * plan.num_devices
    trained: dict[int, Trained] = {}
    for first in range(0, num_members, per_round):
        trained |= train_round(np.arange(first, min(first + per_round, num_members)))
    return trained


def _stretches(steps: Sequence[int], longest: int) -> Iterator[tuple[int, int]]:
    """Stretches of training between evaluations, ``(start, stop)``, none longer than ``longest``."""
    for first, last in itertools.pairwise([0, *steps]):
        for start in range(first, last, longest):
            yield start, min(start + longest, last)


def _unbatch(places: Any, states: Any, records: Sequence[Mapping[str, Any]]) -> dict[int, Trained]:
    """Members of a round, each alone, by their places in the grid."""

    def alone(tree: Any, slot: int) -> Any:
        return jax.tree.map(lambda leaf: np.array(leaf[slot]), tree)

    return {
        int(place): Trained(
            metrics={name: np.array([record[name][slot] for record in records]) for name in records[0]},
            params=alone(states.params, slot),
            model_state=alone(states.model_state, slot),
            diverged_at=int(states.diverged_at[slot]),
            stopped_at=-1,
        )
        for slot, place in enumerate(places)
    }


class _Orders:
    """Which examples the members of a round see; made once a seed, since members with one seed share them."""

    def __init__(self, batch_size: int | None, num_examples: int, num_steps: int) -> None:
        self._of_seed = None
        if batch_size is not None:
            program = _order_program(num_steps, batch_size, num_examples)
            self._of_seed = functools.lru_cache(maxsize=256)(
                lambda seed, start: np.asarray(program(np.int32(seed), np.int32(start)))
            )

    def __call__(self, seeds: Any, start: int) -> Any:
        return None if self._of_seed is None else np.stack([self._of_seed(int(seed), start) for seed in seeds])


@functools.lru_cache(maxsize=16)
def _order_program(num_steps: int, batch_size: int, num_examples: int) -> Callable[..., Any]:
    order = functools.partial(
        training.batch_order, num_steps=num_steps, batch_size=batch_size, num_examples=num_examples
    )
    return jax.jit(order, compiler_options=_RUN_ONCE)


def _test_scorer(task: Task, splits: Mapping[str, Batch]) -> Callable[[Any, Any], dict[str, float | None]] | None:
    if "test" not in splits:
        return None
    score = jax.jit(lambda params, model_state: training.score(task, params, model_state, splits["test"]))
    return lambda params, model_state: {
        name: float(value) if np.isfinite(value) else None for name, value in score(params, model_state).items()
    }


def _check_steps(num_steps: Any, eval_every: Any) -> int:
    for name, value in {"num_steps": num_steps, "eval_every": eval_every}.items():
        if value is None and name == "eval_every":
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}; give a whole number of at least 1.")
    return int(eval_every or max(1, num_steps // 20))


def _real(value: Any) -> np.ndarray:
    return np.asarray(value, jnp.zeros(()).dtype)


def _name(function: Any) -> str:
    return getattr(function, "__name__", None) or repr(function)


def _bar(total: int, progress: bool) -> Any:
    from tqdm import tqdm

    shape = "{desc} {percentage:3.0f}% |{bar:30}| {n_fmt}/{total_fmt} member-steps, {elapsed} gone, {remaining} left"
    return tqdm(total=total, disable=not progress, desc="training", unit_scale=True, bar_format=shape)
