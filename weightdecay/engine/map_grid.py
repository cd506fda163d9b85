"""`map_grid`: a training function of the user's own over a grid, in lanes on every device, saved as it goes.

The function is traced for one member; everything about many of them, lanes, devices and the directory, is as in
`weightdecay.engine.fit.fit_grid`. Arrays that the function closes over lie on each device once.
"""

import contextlib
import hashlib
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import subjaxprs
from jax.sharding import SingleDeviceSharding

from weightdecay.core import jax_settings
from weightdecay.core.types import Device
from weightdecay.engine import devices as backend
from weightdecay.engine import hoisting, progress_bar, routing, workers
from weightdecay.engine import plans as planning
from weightdecay.engine.map_result import MapResult
from weightdecay.engine.plans import Plan
from weightdecay.search.grid import Grid
from weightdecay.search.member import REPLICATES
from weightdecay.storage import fingerprints, result_folder, run_directory
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.run_directory import Run

TrainFn = Callable[[dict[str, Any]], Any]
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_WHOLE = (*REPLICATES, "patience")  # the numbers that stay whole; all others are real


def map_grid(
    train_fn: TrainFn,
    grid: Grid,
    *,
    static: Sequence[str] = (),
    directory: str | os.PathLike[str] | None = None,
    save_every: float | int = 30.0,
    plan: Plan | None = None,
    progress: bool = True,
) -> MapResult:
    """Run a pure training function of your own for every member of a grid.

    The function is written for one member and traced; it may hold a `jax.lax.scan` over steps, any optimizer, any
    model. Members run in lanes of one fixed width on all devices, so that a member's numbers do not depend on what
    stands beside it.

    Args:
      train_fn: ``train_fn(hyperparameters) -> outputs``, a tree of arrays. ``hyperparameters`` is a dictionary by the
        names of the axes: ``decay`` a rule whose coefficients are traced, ``seed`` and ``fold`` traced int32, other
        numbers traced floats of shape ``()``; words, bools, None and tuples as they are, each in a program of its own.
      grid: The members.
      static: Axes whose numbers are given as Python numbers too, such as a width.
      directory: Where members that are done are saved; the same call goes on where an earlier one was cut off, and
        with more members runs only those that are new. None: nothing is saved.
      save_every: Seconds between two saves, > 0.
      plan: Lanes and devices; None = chosen by what the function's arrays take, for each program by itself, so that a
        member's lane is as wide in every grid.
      progress: Whether to show a bar.

    Returns:
      What each member gave, in the order of the grid.

    Raises:
      TypeError: No function, no grid, outputs that are no arrays, or a function that needs a traced number's value.
      ValueError: A name in ``static`` that is no axis; a directory that holds a run of something else.

    Examples:
      >>> from weightdecay import decay, optimizers
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
        raise TypeError(f"train_fn is {train_fn!r}; give a function of a dictionary of hyperparameters.")
    if not isinstance(grid, Grid):
        raise TypeError(f"grid is of type {type(grid).__name__}; give wd.Grid(decay=[...], seed=range(3)).")
    if isinstance(static, str):
        raise TypeError(f"static is {static!r}; give the names of axes in a list: static=[{static!r}].")
    unknown = [name for name in static if name not in grid.axes]
    if unknown:
        raise ValueError(f"static names {unknown[0]!r}, which is no axis of the grid; it has {', '.join(grid.axes)}.")
    run_directory.check_save_every(save_every)
    backend.prepare()
    if plan is not None:
        planning.check(plan, batch_size=None)
    groups = _divide(train_fn, grid, frozenset(static))
    with contextlib.ExitStack() as stack:
        run = None if directory is None else stack.enter_context(run_directory.opened(directory, save_every=save_every))
        groups, plan = _laid_out(groups, plan, {} if run is None else run.stored.get("depends_on", {}))
        outputs: list[Any] = [None] * len(grid)
        if run is not None:
            groups = _found(groups, grid, run, outputs)
        missing = sum(len(group.places) for group in groups)
        with progress_bar.bar(len(grid), "members", shown=progress, done=len(grid) - missing) as bar:
            try:
                _run(groups, plan, outputs, bar.update, run)
            except KeyboardInterrupt:
                if run is not None:
                    warnings.warn(
                        f"interrupted; the members that were done are saved. To go on, make the same call again, with "
                        f"directory={str(run.path)!r}.",
                        UserWarning,
                        stacklevel=2,
                    )
                raise
    return MapResult(list(grid), outputs, plan)


class _Group(NamedTuple):
    """Members of one structure."""

    name: str  # that it has in every grid
    traced: Any  # a closed jaxpr of one member
    structure: Any  # of its outputs
    places: np.ndarray  # in the grid
    numbers: list[np.ndarray]  # what is traced, each (members,)
    lane_width: int = 1
    keys: tuple[str, ...] = ()

    def program(self) -> Callable[..., Any]:
        """Return ``(constants, numbers) -> outputs`` of a lane."""
        jaxpr = self.traced.jaxpr
        return jax.vmap(lambda constants, numbers: eval_jaxpr(jaxpr, constants, *numbers), in_axes=(None, 0))

    def digest(self) -> str:
        """Return the digest of what one member runs."""
        numbers = [column[0] for column in self.numbers]
        one = jax.jit(lambda constants, numbers: eval_jaxpr(self.traced.jaxpr, constants, *numbers))
        return hashlib.sha256(one.lower(self.traced.consts, numbers).as_text().encode()).hexdigest()


def _divide(train_fn: TrainFn, grid: Grid, static: frozenset[str]) -> list[_Group]:
    """Members by structure; the function is traced once for each."""
    structures: dict[Any, list[tuple[int, list[np.ndarray]]]] = {}
    fixed: dict[Any, dict[str, Any]] = {}
    for place, member in enumerate(grid):
        traced = {name: value for name, value in member.items() if name not in static and _is_traced(value)}
        others = {name: value for name, value in member.items() if name not in traced}
        leaves, structure = jax.tree.flatten({name: _numbers(name, value) for name, value in traced.items()})
        kind = structure, tuple(sorted((name, repr(value)) for name, value in others.items()))
        structures.setdefault(kind, []).append((place, leaves))
        fixed[kind] = others
    groups = []
    for kind, members in structures.items():

        def one(*leaves: Any, kind: Any = kind) -> Any:
            return _checked(train_fn({**jax.tree.unflatten(kind[0], leaves), **fixed[kind]}))

        traced, shapes = _traced(one, members[0][1], kind[0])
        if not jax.tree.leaves(shapes):
            raise TypeError("train_fn gives no array; return a number or a tree of arrays, such as {'loss': loss}.")
        words = " ".join(f"{name}={value}" for name, value in kind[1])
        groups.append(
            _Group(
                re.sub(r" at 0x\w+", "", f"{words} {kind[0]}".strip()),
                traced,
                jax.tree.structure(shapes),
                np.array([place for place, _ in members]),
                [np.stack(column) for column in zip(*(leaves for _, leaves in members), strict=True)],
            )
        )
    return groups


def _traced(one: Callable[..., Any], numbers: Sequence[np.ndarray], structure: Any) -> tuple[Any, Any]:
    """One member's program and the shapes of what it gives."""
    try:
        traced, shapes = jax.make_jaxpr(one, return_shape=True)(*numbers)
    except TypeError as error:
        if not isinstance(error, _NEEDS_VALUES) and "concrete values" not in str(error):
            raise
        named = jax.tree.unflatten(structure, numbers)
        raise TypeError(
            "train_fn needs the value of a number that is traced: members that differ in numbers run as one program, "
            "so compute with jax.numpy and jax.lax in place of float(), if and NumPy (NumPy's arrays are indexed as "
            "jnp.asarray(array)[rows]); or, where a number sets a shape, name its axis in static. Axes that are "
            "traced: "
            f"{', '.join(name for name, value in named.items() if jax.tree.leaves(value))}. JAX says: {error}"
        ) from error
    return hoisting.hoist(traced), shapes


def _checked(outputs: Any) -> Any:
    for leaf in jax.tree.leaves(outputs):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float):
            raise TypeError(
                f"train_fn gives {leaf!r}, of type {type(leaf).__name__}; return a tree of numbers or arrays."
            )
    return outputs


def _is_traced(value: Any) -> bool:
    return not isinstance(value, bool | str | tuple | None)


def _numbers(name: str, value: Any) -> Any:
    return np.asarray(value, np.int32) if name in _WHOLE else jax.tree.map(routing.real, value)


def _laid_out(groups: Sequence[_Group], plan: Plan | None, before: Mapping[str, Any]) -> tuple[list[_Group], Plan]:
    """Groups with the width of their lanes, and the plan; an earlier call in the directory has chosen for this one."""
    if plan is not None:
        return [group._replace(lane_width=plan.lane_width) for group in groups], plan
    plans = [_choose(group) for group in groups]
    chosen = before.get("lane_widths", {})
    widths = [chosen.get(group.name, plan.lane_width) for group, plan in zip(groups, plans, strict=True)]
    widest = replace(
        plans[int(np.argmax(widths))], lane_width=max(widths), num_devices=min(plan.num_devices for plan in plans)
    )
    return [group._replace(lane_width=width) for group, width in zip(groups, widths, strict=True)], widest


def _choose(group: _Group) -> Plan:
    return planning.choose(
        params_bytes=0,
        forward_bytes=_working_bytes(group.traced.jaxpr),
        state_bytes=0,
        data_bytes=sum(np.asarray(one).nbytes for one in group.traced.consts),
        batch_bytes=None,
        memory_budget=None,
    )


def _working_bytes(jaxpr: Any) -> int:
    """Bytes of the arrays that a program makes at its widest level: the body of a loop, most often."""
    level = sum(
        variable.aval.size * variable.aval.dtype.itemsize
        for equation in jaxpr.eqns
        for variable in equation.outvars
        if hasattr(variable.aval, "dtype") and jnp.issubdtype(variable.aval.dtype, jnp.number)
    )
    return max([level, *map(_working_bytes, subjaxprs(jaxpr))])


def _found(groups: Sequence[_Group], grid: Grid, run: Run, outputs: list[Any]) -> list[_Group]:
    """Settle that the directory is of this run, take from it what is done, and return what is not."""
    programs = {group.name: group.digest() for group in groups}
    run.settle(
        {
            "kind": "map_grid",
            "lane_widths": {group.name: group.lane_width for group in groups},
            "float64": jax_settings.setting("enable_x64"),
            "matmul_precision": jax_settings.setting("default_matmul_precision"),
            "device": f"{jax.default_backend()} {jax.local_devices()[0].device_kind}",
            "closed_over": {group.name: fingerprints.of_arrays(group.traced.consts) for group in groups},
            "versions": result_folder.versions(),
            "functions": programs,
        },
        num_steps=1,
    )
    left = []
    for group in groups:
        keys = [fingerprints.of_member(grid[place], programs[group.name]) for place in group.places]
        done = run.in_order(keys)
        if done:
            snapshot = run.read([keys[member] for member in done])
            for slot, member in enumerate(done):
                leaves = [leaf[slot] for leaf in snapshot.leaves]
                outputs[group.places[member]] = jax.tree.unflatten(group.structure, leaves)
        missing = np.setdiff1d(np.arange(len(keys)), done)
        left.append(
            group._replace(
                places=group.places[missing],
                numbers=[column[missing] for column in group.numbers],
                keys=tuple(keys[member] for member in missing),
            )
        )
    return [group for group in left if len(group.places)]


def _run(
    groups: Sequence[_Group], plan: Plan, outputs: list[Any], advanced: Callable[[int], Any], run: Run | None
) -> None:
    """Run every lane on the next device that is free."""
    devices, lock = jax.local_devices()[: plan.num_devices], threading.Lock()

    def begin(
        index: int, stack: contextlib.ExitStack
    ) -> Callable[[tuple[_Group, np.ndarray, list[Future[Any]]]], None]:
        def do(job: tuple[_Group, np.ndarray, list[Future[Any]]]) -> None:
            group, members, programs = job
            program, constants = programs[index].result()
            lane = np.resize(members, group.lane_width)
            made = jax.device_get(program(constants, [column[lane] for column in group.numbers]))
            leaves = [np.asarray(leaf)[: len(members)] for leaf in made]
            for slot, member in enumerate(members):
                one = jax.tree.unflatten(group.structure, [leaf[slot] for leaf in leaves])
                outputs[group.places[member]] = one
            if run is not None:
                keys = [group.keys[member] for member in members]
                run.save(Snapshot(keys, 1, leaves, {}, [], done=True))
            with lock:
                advanced(len(members))

        return do

    with ThreadPoolExecutor(backend.num_cores()) as compilers:
        jobs = _jobs(groups, devices, compilers)
        workers.share_out(jobs, len(devices), begin, threading.Event())


def _jobs(
    groups: Sequence[_Group], devices: Sequence[Device], compilers: ThreadPoolExecutor
) -> Iterator[tuple[_Group, np.ndarray, list[Future[Any]]]]:
    """Every lane with its programs, compiled in the background for each device."""
    with backend.kept_programs():
        compiling = []
        for group in groups:
            programs = [_compiled(group, device, compilers) for device in devices]
            compiling += programs
            for first in range(0, len(group.places), group.lane_width):
                yield group, np.arange(len(group.places))[first : first + group.lane_width], programs
        for program in compiling:
            program.exception()


def _compiled(group: _Group, device: Device, compilers: ThreadPoolExecutor) -> "Future[Any]":
    on_device = SingleDeviceSharding(device)
    constants = jax.device_put(group.traced.consts, device)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_device), constants)
    numbers = [jax.ShapeDtypeStruct((group.lane_width,), column.dtype, sharding=on_device) for column in group.numbers]
    lowered = jax.jit(group.program()).lower(shapes, numbers)
    return compilers.submit(lambda: (lowered.compile(), constants))
