"""Plans: how wide lanes are, how many devices they are spread over, and what that takes.

Members train in lanes of one fixed width. At another width a compiled program may take its sums in another order, so
the width follows from the model, the batch and the backend alone, never from the grid: a member has the same bits in
any grid.
"""

import math
from collections.abc import Mapping
from dataclasses import InitVar, asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np

from weightdecay.core import checks, html, text
from weightdecay.core.checks import ArgumentError
from weightdecay.engine import devices

# On a CPU, what a lane reads and writes in a step should stay in a core's cache; elsewhere it should fill the device.
_LANE_BYTES = {"cpu": 2 * 2**20}
_LANE_BYTES_ELSEWHERE = 2**30
_WIDEST = {"cpu": 16}
_WIDEST_ELSEWHERE = 256
CONVOLUTIONS = ("slices", "plain")
_DATA_FRACTION = 0.25  # of the free memory, for training examples that stay on the device


@dataclass(frozen=True)
class Forecast:
    """Predicted memory and time of a run.

    Attributes:
      members: Number of members of the grid.
      programs: Number of groups; the programs of each are compiled once a device.
      device_bytes: Memory on each device; CPU devices share the machine's memory.
      total_bytes: Memory on all devices.
      disk_bytes: Metrics and weights of all members, in temporary files.
      free_bytes: Free memory of the device, or of the machine, now; None = unknown.
      seconds: Training time without compilation; None = not measured.
      compile_seconds: Compilation time of the first group.
      member_steps_per_second: Speed of all devices together; None = not measured.
      batching_gain: Speed of a lane over the speed of its members one by one; None = not measured, or a lane holds one
        member.
    """

    members: int
    programs: int
    device_bytes: int
    total_bytes: int
    disk_bytes: int
    free_bytes: int | None = None
    seconds: float | None = None
    compile_seconds: float | None = None
    member_steps_per_second: float | None = None
    batching_gain: float | None = None


@dataclass(frozen=True)
class Plan:
    """Lane width, devices and segment length of a run.

    Attributes:
      lane_width: Members that train side by side in one lane, >= 1. Changes the last bits of a member.
      num_devices: Devices that lanes are spread over, >= 1. Changes no bit.
      steps_per_call: Maximum number of training steps per device call, >= 1. Changes no bit.
      streamed: Whether the training examples come from the host, one segment of steps at a time, instead of being kept
        on each device. Changes no bit.
      mesh: Number of devices along each axis of a mesh whose devices compute each lane together; None = a lane is
        computed by one device. Changes the last bits of a member.
      convolutions: ``"slices"`` computes convolutions and pooling by slices and matrix products, where
        `weightdecay.models.convolutions` supports it; ``"plain"`` leaves them to XLA. Changes the last bits of a
        member.
      lowering: Former name of ``convolutions``, which results of version 0.1.0 hold; sets ``convolutions``.
      reasons: Why the plan was chosen.
      forecast: Predicted memory and time; None = not requested.
    """

    lane_width: int
    num_devices: int
    steps_per_call: int = 1000
    streamed: bool = False
    convolutions: str = "slices"
    mesh: Mapping[str, int] | None = field(default=None, hash=False)
    reasons: tuple[str, ...] = field(default=(), compare=False)
    forecast: Forecast | None = field(default=None, compare=False)
    lowering: InitVar[str | None] = None

    def __post_init__(self, lowering: str | None) -> None:
        """Take the former name of ``convolutions``."""
        if lowering is not None:
            object.__setattr__(self, "convolutions", lowering)

    def layout(self) -> dict[str, Any]:
        """Return the fields that a run depends on, by name: ``Plan(**layout)`` is the same plan."""
        left_out = ("reasons", "forecast") if self.mesh else ("reasons", "forecast", "mesh")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def num_lanes_at_once(self) -> int:
        """Lanes that are computed at the same time: one a device, or one on the whole mesh."""
        return self.num_devices if self.mesh is None else 1

    def __str__(self) -> str:
        """Return the plan, the reasons and the forecast as text."""
        batches = "from the host" if self.streamed else "on each device"
        where = "" if self.mesh is None else f" of a mesh ({mesh_text(self.mesh)})"
        head = (
            f"lanes of {self.lane_width} on {self.num_devices} {jax.default_backend()} device(s){where}, at most "
            f"{self.steps_per_call} steps a call, training examples {batches}, convolutions "
            + ("left to XLA" if self.convolutions == "plain" else "by slices")
        )
        return "\n".join([head, *(f"  {line}" for line in self._reasons())])

    def _repr_html_(self) -> str:
        """Return the layout as an HTML table with the reasons and the forecast below it, for a notebook."""
        layout = {name.replace("_", " "): value for name, value in self.layout().items()}
        return "\n".join([html.facts(layout), *map(html.paragraph, self._reasons())])

    def _reasons(self) -> list[str]:
        forecast = [] if self.forecast is None else _forecast_lines(self.forecast, self.lane_width)
        return [*self.reasons, *forecast]


def choose(
    *,
    params_bytes: int,
    forward_bytes: int,
    state_bytes: int,
    data_bytes: int,
    batch_bytes: int | None,
    memory_budget: int | None,
    mesh: Mapping[str, int] | None = None,
    state_bytes_on_device: int | None = None,
) -> Plan:
    """Choose a plan for a model on the default backend.

    Args:
      params_bytes: Bytes of the weights of one member.
      forward_bytes: Bytes of the arrays that a forward pass over a batch makes.
      state_bytes: Bytes of the weights and the optimizer state of one member, under the rule with the largest state.
      data_bytes: Bytes of the training examples.
      batch_bytes: Bytes of one batch; None = every step sees all examples.
      memory_budget: Bytes of training examples that may be kept on a device; None = a quarter of the free memory.
      mesh: Devices along each axis of a mesh, by name; None = a lane is computed by one device.
      state_bytes_on_device: Of ``state_bytes``, those on each device of a mesh.

    Returns:
      The plan.

    Raises:
      MemoryError: One member does not fit on one device.
    """
    name = jax.default_backend()
    rows, columns = (1, 1) if mesh is None else (mesh["member"], mesh.get("data", 1))
    batch_bytes = None if batch_bytes is None else -(-rows * batch_bytes // columns)  # per member of a device
    # A step reads and writes the weights, two moments and a gradient.
    member_bytes = 4 * params_bytes + -(-forward_bytes // columns)
    room, widest = _LANE_BYTES.get(name, _LANE_BYTES_ELSEWHERE), _WIDEST.get(name, _WIDEST_ELSEWHERE)
    width = 1
    while 2 * width * member_bytes <= room and 2 * width <= widest:
        width *= 2
    num_devices = len(jax.local_devices()) if mesh is None else math.prod(mesh.values())
    num_devices = min(num_devices, devices.num_cores()) if name == "cpu" and mesh is None else num_devices
    reasons = [
        f"lane width: a step moves {text.size(member_bytes)} a member, and a lane should stay within {text.size(room)}"
        + ("" if 2 * width <= widest else f" and {widest} members")
        + ("" if rows == 1 else f", on each of {rows} parts of the mesh")
    ]
    free = devices.free_memory(jax.local_devices()[0])
    default = None if free is None else int(_DATA_FRACTION * free / (num_devices if name == "cpu" else 1))
    budget = default if memory_budget is None else memory_budget
    steps, streamed, examples = 1000, False, data_bytes
    if budget is not None and batch_bytes is not None and data_bytes > budget:
        # Two segments are held at a time, with the batches of at most one seed a member.
        steps, streamed = max(1, min(steps, budget // (2 * width * batch_bytes))), True
        examples = 2 * steps * width * batch_bytes
        reasons.append(
            f"streamed: the training examples are {text.size(data_bytes)}, above the budget of {text.size(budget)}"
        )
    # Weights, state and a gradient, and what the forward pass keeps for the backward pass.
    training_bytes = state_bytes + params_bytes + forward_bytes
    if mesh is not None:
        of_device = state_bytes if state_bytes_on_device is None else state_bytes_on_device
        gradient_bytes = -(-params_bytes * of_device // max(1, state_bytes))
        on_device = of_device + gradient_bytes + -(-forward_bytes // columns)
        reasons.append(_mesh_reason(mesh, training_bytes, on_device, examples, free))
        training_bytes = on_device
        free = free // num_devices if free is not None and name == "cpu" else free
    while free is not None and width > 1 and width * training_bytes + examples > free:
        width //= 2
    need = width * training_bytes + examples
    if free is not None and need > free:
        raise too_large(need, free, width=width, what="The state of a member with its gradient and the examples")
    if mesh is None and free is not None and name == "cpu" and num_devices * need > free:
        num_devices = free // need
        reasons.append(f"devices: each needs {text.size(need)} of the {text.size(free)} that they share")
    return Plan(rows * width, num_devices, steps_per_call=steps, streamed=streamed, mesh=mesh, reasons=tuple(reasons))


def mesh_text(mesh: Mapping[str, int]) -> str:
    """Return the axes of a mesh as text, such as ``member=2, data=4``."""
    return ", ".join(f"{axis}={size}" for axis, size in mesh.items())


def _mesh_reason(mesh: Mapping[str, int], alone: int, on_device: int, examples: int, free: int | None) -> str:
    """Say what a member needs on one device, what each device of the mesh holds, and whether the mesh is needed."""
    verdict = ""
    if free is not None:
        fits = alone + examples <= free
        verdict = f", which has {text.size(free)} free, so that it " + (
            "fits without a mesh" if fits else "does not fit without a mesh"
        )
    return (
        f"mesh: a member in training and the examples need {text.size(alone + examples)} on one device{verdict}; on "
        f"{mesh_text(mesh)} each device holds {text.size(on_device)} of a member, and {text.size(examples)} of examples"
    )


def check(plan: Any, *, batch_size: int | None, mesh: Mapping[str, int] | None = None) -> None:
    """Validate a plan that a user passed.

    Args:
      plan: What the user passed.
      batch_size: Examples a step; None = all.
      mesh: Devices along each axis of the mesh of the call, by name; None = it has no mesh.

    Raises:
      TypeError: Not a `Plan`.
      ValueError: A number below 1, more devices than JAX has, streaming without batches, or a plan of a mesh in a call
        without one.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"plan is {plan!r}, of type {type(plan).__name__}; give a Plan, or None to have one chosen.")
    for name in ("lane_width", "num_devices", "steps_per_call"):
        checks.integer(getattr(plan, name), f"plan.{name}", at_least=1)
    if plan.mesh is not None and mesh is None:
        raise ArgumentError(
            "plan",
            f"plan is of a mesh ({mesh_text(plan.mesh)}), and mesh is None; give mesh= as well, or a plan without it.",
        )
    available = len(jax.local_devices())
    if mesh is None and plan.num_devices > available:
        raise ValueError(
            f"plan.num_devices is {plan.num_devices}, but JAX has {available} here; give at most {available}."
        )
    if plan.convolutions not in CONVOLUTIONS:
        raise ValueError(f"plan.convolutions is {plan.convolutions!r}; give one of {', '.join(CONVOLUTIONS)}.")
    if plan.streamed and batch_size is None:
        raise ValueError("plan.streamed is True, but batch_size is None: a step sees all examples; give a batch_size.")


def reduced(plan: Plan, *, batch_size: int | None, width_is_free: bool) -> Plan | None:
    """Return a plan that needs less memory than one that ran out of it.

    Args:
      plan: The plan that ran out of memory.
      batch_size: Examples a step; None = all.
      width_is_free: Whether lanes may become narrower, which changes the last bits of a member. They may not where the
        user chose the width, nor where members have been trained at it.

    Returns:
      The plan; None where no smaller plan gives the same numbers.
    """
    if jax.default_backend() == "cpu" and plan.num_devices > 1 and plan.mesh is None:
        return replace(plan, num_devices=plan.num_devices // 2, reasons=("devices: fewer, because memory ran out",))
    if width_is_free and plan.lane_width > 1:
        return replace(plan, lane_width=plan.lane_width // 2, reasons=("lane width: smaller, because memory ran out",))
    if not plan.streamed and batch_size is not None:
        steps = min(plan.steps_per_call, 100)
        return replace(plan, streamed=True, steps_per_call=steps, reasons=("streamed: because memory ran out",))
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device ran out of memory.

    Args:
      error: The error.

    Returns:
      True if it does.
    """
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def bytes_of(tree: Any) -> int:
    """Count the bytes of arrays, or of arrays of given shapes.

    Args:
      tree: Any pytree of arrays or shapes.

    Returns:
      The sum of their bytes.
    """
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def too_large(need: int, free: int, *, width: int, what: str) -> MemoryError:
    """Return the error for a run that does not fit into the memory.

    Args:
      need: Bytes that are needed on one device.
      free: Bytes that are free there.
      width: Lane width.
      what: What needs them, at the beginning of the message.

    Returns:
      The error, to be raised.
    """
    return MemoryError(
        f"{what} needs {text.size(need)} for a lane of {width} on one device, and {text.size(free)} are free: no plan "
        "makes this run fit. Take a smaller model or batch_size, an optimizer with less state (wd.sgd), stream the "
        "training examples (memory_budget), or divide each member over several devices (mesh, sharding='fsdp')."
    )


def _forecast_lines(forecast: Forecast, width: int) -> list[str]:
    free = "" if forecast.free_bytes is None else f" of {text.size(forecast.free_bytes)} free"
    lines = [
        f"{forecast.members} members, {forecast.programs} program(s)",
        f"memory: {text.size(forecast.device_bytes)} a device, {text.size(forecast.total_bytes)} in all{free}; "
        f"{text.size(forecast.disk_bytes)} on disk",
    ]
    if forecast.seconds is not None:
        lines.append(
            f"time: about {text.duration(forecast.seconds)} at {forecast.member_steps_per_second:,.0f} member-steps a "
            f"second, after {text.duration(forecast.compile_seconds or 0)} of compiling"
        )
    if forecast.batching_gain is not None:
        verdict = "batching gains nothing here" if forecast.batching_gain < 1.05 else "batching"
        lines.append(
            f"{verdict}: a lane of {width} is {forecast.batching_gain:.2f} times as fast as members one by one"
        )
    elif forecast.seconds is not None and width == 1:
        lines.append("batching gains nothing here: one member fills a core's cache, so lanes hold one")
    return lines
