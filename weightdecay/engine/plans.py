"""How a grid is laid out on the hardware: lanes of members, spread over devices; and what that takes.

Members train in lanes of one fixed width. Sums inside a compiled program may be taken in another order at another
width, so the width follows from the model, the batch and the backend alone, never from the grid: a member has the same
bits in any grid.
"""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

import jax
import numpy as np

from weightdecay.core import html
from weightdecay.engine import devices as backend

# What a lane reads and writes in each step stays in a core's cache; elsewhere it fills the device.
_LANE_BYTES = {"cpu": 2 * 2**20}
_LANE_BYTES_ELSEWHERE = 2**30
_WIDEST = {"cpu": 16}
_WIDEST_ELSEWHERE = 256
LOWERINGS = ("slices", "plain")
_DATA_SHARE = 0.25  # of the free memory, where training examples stay on the device


@dataclass(frozen=True)
class Forecast:
    """What a run will take.

    Attributes:
      members: Of the grid.
      programs: Structural groups, each compiled once a device.
      device_bytes: On each device; CPU devices share the machine's memory.
      total_bytes: On all devices.
      disk_bytes: Metrics and weights of all members, in temporary files.
      free_bytes: What the device, or the machine, has free now; None = unknown.
      seconds: Training without compiling; None = not calibrated.
      compile_seconds: Of the first group.
      member_steps_per_second: On all devices; None = not calibrated.
      batching_gain: Speed of a lane over members one by one; None = not calibrated, or the lane holds one.
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
    """Layout of a run.

    Attributes:
      lane_width: Members that train side by side in one lane, >= 1. Changes a member's last bits.
      num_devices: Devices that lanes are spread over, >= 1. Changes no bit.
      steps_per_call: Most training steps between two words with the device, >= 1. Changes no bit.
      streamed: Whether the training examples come from the host, a stretch of steps at a time, in place of lying on
        each device. Changes no bit.
      lowering: ``"slices"`` computes convolutions and pooling by slices and matrix products, as
        `weightdecay.models.convolutions` says for which; ``"plain"`` leaves them to XLA. Changes a member's last bits.
      reasons: Why it was chosen so.
      forecast: What it takes; None = not asked for.
    """

    lane_width: int
    num_devices: int
    steps_per_call: int = 1000
    streamed: bool = False
    lowering: str = "slices"
    reasons: tuple[str, ...] = field(default=(), compare=False)
    forecast: Forecast | None = field(default=None, compare=False)

    def layout(self) -> dict[str, Any]:
        """Return what a run depends on, by name: ``Plan(**layout)`` is the plan again."""
        return {name: value for name, value in asdict(self).items() if name not in ("reasons", "forecast")}

    def __str__(self) -> str:
        """Return the plan, the reasons and the forecast in words."""
        batches = "from the host" if self.streamed else "on each device"
        head = (
            f"lanes of {self.lane_width} on {self.num_devices} {jax.default_backend()} device(s), at most "
            f"{self.steps_per_call} steps a call, training examples {batches}, convolutions "
            + ("left to XLA" if self.lowering == "plain" else "by slices")
        )
        return "\n".join([head, *(f"  {line}" for line in self._reasons())])

    def _repr_html_(self) -> str:
        """Return the layout in a table, the reasons and the forecast below it, as a notebook shows them."""
        layout = {name.replace("_", " "): value for name, value in self.layout().items()}
        return "\n".join([html.facts(layout), *map(html.paragraph, self._reasons())])

    def _reasons(self) -> list[str]:
        forecast = [] if self.forecast is None else _told(self.forecast, self.lane_width)
        return [*self.reasons, *forecast]


def choose(
    *,
    params_bytes: int,
    forward_bytes: int,
    state_bytes: int,
    data_bytes: int,
    batch_bytes: int | None,
    memory_budget: int | None,
) -> Plan:
    """Plan for a model on the default backend.

    Args:
      params_bytes: Of one member's weights.
      forward_bytes: Of the arrays that a forward pass over a batch makes.
      state_bytes: Of one member's weights and optimizer state, under the rule that carries most.
      data_bytes: Of the training examples.
      batch_bytes: Of one batch; None = every step sees all examples.
      memory_budget: Bytes of training examples that may lie on a device; None = a quarter of what is free.

    Returns:
      The plan.

    Raises:
      MemoryError: One member on one device does not fit.
    """
    name = jax.default_backend()
    # A step reads and writes the weights, two moments and a gradient.
    member_bytes = 4 * params_bytes + forward_bytes
    room, widest = _LANE_BYTES.get(name, _LANE_BYTES_ELSEWHERE), _WIDEST.get(name, _WIDEST_ELSEWHERE)
    width = 1
    while 2 * width * member_bytes <= room and 2 * width <= widest:
        width *= 2
    devices = len(jax.local_devices())
    devices = min(devices, backend.num_cores()) if name == "cpu" else devices
    reasons = [
        f"lane width: a step moves {_size(member_bytes)} a member, and a lane should stay within {_size(room)}"
        + ("" if 2 * width <= widest else f" and {widest} members")
    ]
    free = backend.free_memory(jax.local_devices()[0])
    share = None if free is None else int(_DATA_SHARE * free / (devices if name == "cpu" else 1))
    budget = share if memory_budget is None else memory_budget
    steps, streamed, examples = 1000, False, data_bytes
    if budget is not None and batch_bytes is not None and data_bytes > budget:
        # Two stretches are held at a time, with batches of as many seeds as there are members.
        steps, streamed = max(1, min(steps, budget // (2 * width * batch_bytes))), True
        examples = 2 * steps * width * batch_bytes
        reasons.append(f"streamed: the training examples are {_size(data_bytes)}, above the budget of {_size(budget)}")
    # Weights, state and a gradient, and what the forward pass keeps for the backward pass.
    training_bytes = state_bytes + params_bytes + forward_bytes
    while free is not None and width > 1 and width * training_bytes + examples > free:
        width //= 2
    need = width * training_bytes + examples
    if free is not None and need > free:
        raise too_large(need, free, width=width, what="The state of a member with its gradient and the examples")
    if free is not None and name == "cpu" and devices * need > free:
        devices = free // need
        reasons.append(f"devices: each needs {_size(need)} of the {_size(free)} that they share")
    return Plan(width, devices, steps_per_call=steps, streamed=streamed, reasons=tuple(reasons))


def check(plan: Any, *, batch_size: int | None) -> None:
    """Refuse a plan that cannot be run.

    Args:
      plan: What a user gave.
      batch_size: Examples a step; None = all.

    Raises:
      TypeError: No `Plan`.
      ValueError: A number below 1, more devices than there are, or streaming without batches.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"plan is {plan!r}, of type {type(plan).__name__}; give a Plan, or None to have one chosen.")
    for name in ("lane_width", "num_devices", "steps_per_call"):
        value = getattr(plan, name)
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"plan.{name} is {value!r}; give a whole number of at least 1.")
    available = len(jax.local_devices())
    if plan.num_devices > available:
        raise ValueError(
            f"plan.num_devices is {plan.num_devices}, but JAX has {available} here; give at most {available}."
        )
    if plan.lowering not in LOWERINGS:
        raise ValueError(f"plan.lowering is {plan.lowering!r}; give one of {', '.join(LOWERINGS)}.")
    if plan.streamed and batch_size is None:
        raise ValueError("plan.streamed is True, but batch_size is None: a step sees all examples; give a batch_size.")


def lowered(plan: Plan, *, batch_size: int | None, width_is_free: bool) -> Plan | None:
    """Plan that needs less memory, after one that ran out of it.

    Args:
      plan: That one.
      batch_size: Examples a step; None = all.
      width_is_free: Whether lanes may become narrower, which changes a member's last bits: not where the width was
        asked for, nor where members have been trained at it.

    Returns:
      The plan; None where there is none.
    """
    if jax.default_backend() == "cpu" and plan.num_devices > 1:
        return replace(plan, num_devices=plan.num_devices // 2, reasons=("devices: fewer, for want of memory",))
    if width_is_free and plan.lane_width > 1:
        return replace(plan, lane_width=plan.lane_width // 2, reasons=("lane width: less, for want of memory",))
    if not plan.streamed and batch_size is not None:
        steps = min(plan.steps_per_call, 100)
        return replace(plan, streamed=True, steps_per_call=steps, reasons=("streamed: for want of memory",))
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory while it trained.

    Args:
      error: What came.

    Returns:
      True if so.
    """
    return isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" in str(error)


def bytes_of(tree: Any) -> int:
    """Bytes of arrays, or of their shapes.

    Args:
      tree: Any pytree of them.

    Returns:
      Their sum.
    """
    return sum(int(np.prod(leaf.shape)) * np.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree))


def too_large(need: int, free: int, *, width: int, what: str) -> MemoryError:
    """Say that a run does not fit.

    Args:
      need: Bytes.
      free: Bytes.
      width: Of a lane.
      what: What needs them.

    Returns:
      The error, to be raised.
    """
    return MemoryError(
        f"{what} needs {_size(need)} for a lane of {width} on one device, and {_size(free)} are free: no plan makes "
        "this run fit. Take a smaller model or batch_size, an optimizer with less state (wd.sgd), or stream the "
        "training examples (memory_budget)."
    )


def _told(forecast: Forecast, width: int) -> list[str]:
    free = "" if forecast.free_bytes is None else f" of {_size(forecast.free_bytes)} free"
    lines = [
        f"{forecast.members} members, {forecast.programs} program(s)",
        f"memory: {_size(forecast.device_bytes)} a device, {_size(forecast.total_bytes)} in all{free}; "
        f"{_size(forecast.disk_bytes)} on disk",
    ]
    if forecast.seconds is not None:
        lines.append(
            f"time: about {_duration(forecast.seconds)} at {forecast.member_steps_per_second:,.0f} member-steps a "
            f"second, after {_duration(forecast.compile_seconds or 0)} of compiling"
        )
    if forecast.batching_gain is not None:
        said = "batching gains nothing here" if forecast.batching_gain < 1.05 else "batching"
        lines.append(f"{said}: a lane of {width} is {forecast.batching_gain:.2f} times as fast as members one by one")
    elif forecast.seconds is not None and width == 1:
        lines.append("batching gains nothing here: one member fills a core's cache, so lanes hold one")
    return lines


def _size(number: float | int) -> str:
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}" if unit == "B" or number >= 10 else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _duration(seconds: float | int) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
