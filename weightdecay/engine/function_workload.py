"""The workload of `map_grid`: a member is one call of a pure function of the user's own.

The function is traced once for each structure of hyperparameters. To the engine its call is a training of one step,
whose states are the outputs. Arrays that the function closes over are put on each device once.
"""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import eval_jaxpr
from jax.extend.core import subjaxprs

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError
from weightdecay.core.text import suggestion
from weightdecay.engine import devices, hoisting, lane_programs, plans, routing
from weightdecay.engine.groups import Group, Lane
from weightdecay.engine.plans import Plan
from weightdecay.search.grid import Grid
from weightdecay.search.member import REPLICATES
from weightdecay.storage import fingerprints, result_folder
from weightdecay.storage.checkpoints import Snapshot

TrainFn = Callable[[dict[str, Any]], Any]
_NEEDS_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_INTEGERS = (*REPLICATES, "patience")  # axes that stay integers; the numbers of all others are real


@dataclass(frozen=True, kw_only=True, eq=False)
class FunctionGroup(Group):
    """Members whose hyperparameters have one structure.

    Attributes:
      structure_name: Name of the structure, the same in every grid.
      traced: The function as a closed jaxpr of one member.
      lane_width: Members that a program computes at once.
    """

    structure_name: str
    traced: Any
    lane_width: int = 1

    @property
    def name(self) -> str:
        """Name of the structure that the members share, the same in every grid."""
        return self.structure_name

    def program(self) -> str:
        """Return the digest of what one member computes."""
        numbers = [column[0] for column in self.hyperparameters]
        function = jax.jit(lambda constants, numbers: eval_jaxpr(self.traced.jaxpr, constants, *numbers))
        return hashlib.sha256(function.lower(self.traced.consts, numbers).as_text().encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class FunctionWorkload:
    """Calls of a function over the members of a grid; see `weightdecay.engine.workload.Workload` for the methods.

    Attributes:
      groups: Members of equal structure.
      plan: Lanes and devices; of several groups whose lanes were chosen, the widest lane.
      outputs: Takes the outputs of every member, by its position in the grid.
      metric: Name of the output that a strategy decides by; empty = there is no strategy.
      sign: -1 where higher values of the metric are better.
    """

    groups: Sequence[FunctionGroup]
    plan: Plan
    outputs: list[Any] = field(repr=False)
    metric: str = ""
    sign: int = 1
    num_steps: ClassVar[int] = 1
    programs_key: ClassVar[str] = "functions"

    def with_groups(self, groups: Sequence[FunctionGroup]) -> "FunctionWorkload":
        """Return the same workload with other completed steps and keys."""
        return replace(self, groups=list(groups))

    def measured_by(self, metric: str, sign: int) -> "FunctionWorkload":
        """Return the same workload for a strategy that decides by an output.

        Raises:
          ArgumentError: The function does not return it, or it is neither a scalar nor a curve.
        """
        for group in self.groups:
            found = named_outputs(group.state)
            if metric not in found or len(found[metric].shape) > 1:
                known = [name for name, leaf in found.items() if len(leaf.shape) < 2]
                raise ArgumentError(
                    "metric",
                    f"metric is {metric!r}; give the name of an output that is a scalar or a curve: "
                    f"{', '.join(known) or 'there is none'}.{suggestion(metric, known)}",
                )
        return replace(self, metric=metric, sign=sign)

    def measured(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what a strategy decides by, as `weightdecay.engine.training_workload.TrainingWorkload.measured`."""
        values = np.full((len(self.outputs), 1), np.nan)
        for index, outputs in enumerate(self.outputs):
            if outputs is not None:
                values[index, 0] = self.sign * float(np.ravel(named_outputs(outputs)[self.metric])[-1])
        return values, np.full(len(self.outputs), -1)

    def outputs_where(self, trained: np.ndarray) -> list[Any]:
        """Return the outputs of the members; those of the others are nan, and 0 where they are not real numbers."""
        outputs = list(self.outputs)
        for group in self.groups:
            for index in group.indices[~trained[group.indices]]:
                outputs[int(index)] = jax.tree.map(_missing, group.state)
        return outputs

    def lane_width(self, group: FunctionGroup) -> int:
        """Return the number of members that a program computes at once."""
        return group.lane_width

    def compile(self, group: FunctionGroup) -> Sequence[Future[Any]]:
        """Start compiling the function of a group, once a device."""
        targets = jax.local_devices()[: self.plan.num_devices]
        return lane_programs.compiled_function(group.traced, group.hyperparameters, group.lane_width, targets)

    @contextlib.contextmanager
    def on_device(self, index: int) -> Iterator["FunctionDevice"]:
        """Lanes share nothing on a device but the constants, which are there with the program."""
        yield FunctionDevice()

    def collect(self, lane: Lane, step: int, states: Any) -> None:
        """Take the outputs of the members of a lane."""
        self._take(lane.group, lane.indices, jax.tree.leaves(states))

    def snapshot(self, lane: Lane, step: int, states: Any) -> Snapshot:
        """Return the outputs of the members of a lane as the run directory saves them."""
        leaves = [leaf[: len(lane.members)] for leaf in jax.tree.leaves(states)]
        return Snapshot(lane.keys, step, leaves, {}, [], done=True)

    def restore(self, group: FunctionGroup, members: Sequence[int], snapshot: Snapshot) -> None:
        """Take the outputs of members that the run directory holds."""
        self._take(group, group.indices[list(members)], snapshot.leaves)

    def depends_on(self) -> Mapping[str, Any]:
        """Return what the outputs of the members depend on in addition to their programs."""
        return {
            "kind": "map_grid",
            "lane_widths": {group.name: group.lane_width for group in self.groups},
            **devices.arithmetic(jax.local_devices()[0]),
            "closed_over": {group.name: fingerprints.of_arrays(group.traced.consts) for group in self.groups},
            "versions": result_folder.versions(),
        }

    def reduced(self, *, width_is_free: bool) -> "FunctionWorkload | None":
        """Return the same workload with a plan that needs less memory."""
        smaller = plans.reduced(self.plan, batch_size=None, width_is_free=width_is_free)
        if smaller is None:
            return None
        groups = [replace(group, lane_width=min(group.lane_width, smaller.lane_width)) for group in self.groups]
        return replace(self, groups=groups, plan=smaller)

    def _take(self, group: FunctionGroup, indices: np.ndarray, leaves: Sequence[np.ndarray]) -> None:
        structure = jax.tree.structure(group.state)
        for row, index in enumerate(indices):
            self.outputs[int(index)] = jax.tree.unflatten(structure, [leaf[row] for leaf in leaves])


def named_outputs(outputs: Any) -> dict[str, Any]:
    """Return the arrays of outputs by their names in the dataset of a result."""
    return {name.replace("/", ".") or "output": leaf for name, leaf in tree.named_leaves(outputs)}


def _missing(shape: Any) -> np.ndarray:
    return np.full(shape.shape, np.nan if jnp.issubdtype(shape.dtype, jnp.inexact) else 0, shape.dtype)


class FunctionDevice:
    """A device that computes lanes of a function."""

    def begin(self, programs: Any, lane: Lane, saved: Any) -> "FunctionLane":
        """Take a lane; a call has no step in between that could have been saved."""
        return FunctionLane(programs, lane)


class FunctionLane:
    """A lane of calls."""

    def __init__(self, programs: Any, lane: Lane) -> None:
        """Take the program with its constants, and the lane."""
        (self._program, self._constants), self._lane = programs, lane
        self._outputs: list[np.ndarray] = []

    def advance(self) -> int:
        """Compute all members, and return 1, the only step."""
        group = self._lane.group
        members = np.resize(self._lane.members, group.lane_width)
        outputs = self._program(self._constants, [column[members] for column in group.hyperparameters])
        self._outputs = [np.asarray(leaf) for leaf in jax.device_get(outputs)]
        return 1

    def states(self) -> Any:
        """Return the leaves of the outputs, as NumPy arrays, each of shape ``(width, ...)``."""
        return self._outputs


def prepare_function(
    train_fn: TrainFn, grid: Grid, static: frozenset[str], plan: Plan | None, before: Mapping[str, Any]
) -> FunctionWorkload:
    """Trace a function for every structure of a grid, and decide on lanes and devices.

    Args:
      train_fn: The user's function.
      grid: The members.
      static: Axes whose numbers are passed as Python numbers.
      plan: Lanes and devices; None = chosen.
      before: What an earlier call in the same run directory depends on; empty = there was no earlier call.

    Returns:
      The workload, with no outputs yet.

    Raises:
      TypeError: Outputs that are not arrays, or a function that needs the value of a traced number.
    """
    groups = _divide(train_fn, grid, static)
    outputs: list[Any] = [None] * len(grid)
    if plan is not None:
        return FunctionWorkload([replace(group, lane_width=plan.lane_width) for group in groups], plan, outputs)
    chosen = [_choose(group) for group in groups]
    earlier = before.get("lane_widths", {})
    widths = [earlier.get(group.name, plan.lane_width) for group, plan in zip(groups, chosen, strict=True)]
    widest = replace(
        chosen[int(np.argmax(widths))], lane_width=max(widths), num_devices=min(plan.num_devices for plan in chosen)
    )
    wide = [replace(group, lane_width=width) for group, width in zip(groups, widths, strict=True)]
    return FunctionWorkload(wide, widest, outputs)


def _divide(train_fn: TrainFn, grid: Grid, static: frozenset[str]) -> list[FunctionGroup]:
    """Divide the members into groups of equal structure; the function is traced once for each."""
    structures: dict[Any, list[tuple[int, list[np.ndarray]]]] = {}
    fixed: dict[Any, dict[str, Any]] = {}
    for index, member in enumerate(grid):
        traced = {name: value for name, value in member.items() if name not in static and _is_traced(value)}
        others = {name: value for name, value in member.items() if name not in traced}
        leaves, structure = jax.tree.flatten({name: _as_array(name, value) for name, value in traced.items()})
        kind = structure, tuple(sorted((name, repr(value)) for name, value in others.items()))
        structures.setdefault(kind, []).append((index, leaves))
        fixed[kind] = others
    groups = []
    for kind, members in structures.items():
        function = functools.partial(_call, train_fn, kind[0], fixed[kind])
        traced, shapes = _trace(function, members[0][1], kind[0])
        if not jax.tree.leaves(shapes):
            raise TypeError(
                "train_fn returns no array; return a number or a tree of arrays, such as {'validation_loss': loss}."
            )
        options = " ".join(f"{name}={value}" for name, value in kind[1])
        groups.append(
            FunctionGroup(
                structure_name=re.sub(r" at 0x\w+", "", f"{options} {kind[0]}".strip()),
                traced=traced,
                state=shapes,
                indices=np.array([index for index, _ in members]),
                hyperparameters=[np.stack(column) for column in zip(*(leaves for _, leaves in members), strict=True)],
                started=np.zeros(len(members), np.int32),
            )
        )
    return groups


def _call(train_fn: TrainFn, structure: Any, fixed: Mapping[str, Any], *leaves: Any) -> Any:
    """Call the function with one member's hyperparameters, and check what it returns."""
    outputs = train_fn({**jax.tree.unflatten(structure, leaves), **fixed})
    for leaf in jax.tree.leaves(outputs):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float):
            raise TypeError(
                f"train_fn returns {leaf!r}, of type {type(leaf).__name__}; return a tree of numbers or arrays."
            )
    return outputs


def _trace(function: Callable[..., Any], numbers: Sequence[np.ndarray], structure: Any) -> tuple[Any, Any]:
    """Return the program of one member as a closed jaxpr, and the shapes of its outputs."""
    try:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*numbers)
    except TypeError as error:
        if not isinstance(error, _NEEDS_VALUES) and "concrete values" not in str(error):
            raise
        named = jax.tree.unflatten(structure, numbers)
        raise TypeError(
            "train_fn needs the value of a number that is traced. Members that differ in numbers run as one program, "
            "so compute with jax.numpy and jax.lax instead of float(), if and NumPy (index NumPy arrays as "
            "jnp.asarray(array)[rows]); where a number sets a shape, name its axis in static. The traced axes are: "
            f"{', '.join(name for name, value in named.items() if jax.tree.leaves(value))}. JAX reports: {error}"
        ) from error
    return hoisting.hoist(traced), shapes


def _is_traced(value: Any) -> bool:
    return not isinstance(value, bool | str | tuple | None)


def _as_array(name: str, value: Any) -> Any:
    return np.asarray(value, np.int32) if name in _INTEGERS else jax.tree.map(routing.real, value)


def _choose(group: FunctionGroup) -> Plan:
    return plans.choose(
        params_bytes=0,
        forward_bytes=_working_bytes(group.traced.jaxpr),
        state_bytes=0,
        data_bytes=sum(np.asarray(constant).nbytes for constant in group.traced.consts),
        batch_bytes=None,
        memory_budget=None,
    )


def _working_bytes(jaxpr: Any) -> int:
    """Count the bytes of the arrays that a program makes at its widest level, most often the body of a loop."""
    level = sum(
        variable.aval.size * variable.aval.dtype.itemsize
        for equation in jaxpr.eqns
        for variable in equation.outvars
        if hasattr(variable.aval, "dtype") and jnp.issubdtype(variable.aval.dtype, jnp.number)
    )
    return max([level, *map(_working_bytes, subjaxprs(jaxpr))])
