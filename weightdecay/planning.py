"""How a grid is laid out on the hardware: lanes of members, spread over devices.

Members train in lanes of one fixed width. Sums inside a compiled program may be taken in another order at another
width, so the width follows from the model and the backend alone, never from the grid: a member has the same bits in
any grid.
"""

import os
from dataclasses import dataclass
from typing import Any

import jax

_LANE_BYTES = {"cpu": 2**20}  # what a lane updates in each step stays in a core's cache
_LANE_BYTES_ELSEWHERE = 2**30
_WIDEST = {"cpu": 8}
_WIDEST_ELSEWHERE = 256


@dataclass(frozen=True)
class Plan:
    """Layout of a run.

    Attributes:
      lane_width: Members that train side by side in one lane, >= 1. Changes a member's last bits.
      num_devices: Devices that lanes are spread over, >= 1. Two or more change no bit; one device alone is another
        compiled program, and may differ in the last bits.
      steps_per_call: Most training steps between two words with the device, >= 1. Changes no bit.
    """

    lane_width: int
    num_devices: int
    steps_per_call: int = 1000


def prepare_devices() -> None:
    """Give JAX one CPU device a core, where its backend has not started yet and nobody else has said how many."""
    chosen = getattr(jax.config, "jax_num_cpu_devices", -1) != -1
    if chosen or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", _num_cores())
    except RuntimeError:
        pass  # The backend runs already: members train on the devices it has.


def choose(state: Any) -> Plan:
    """Plan for a model on the default backend.

    Args:
      state: One member's training state, as shapes.

    Returns:
      The plan.
    """
    backend = jax.default_backend()
    # A step reads and writes the state, and a gradient as large as the weights.
    member_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves((state, state.params)))
    room = _LANE_BYTES.get(backend, _LANE_BYTES_ELSEWHERE) // max(member_bytes, 1)
    widest = _WIDEST.get(backend, _WIDEST_ELSEWHERE)
    width = 1
    while width * 2 <= min(room, widest):
        width *= 2
    devices = len(jax.local_devices())
    return Plan(lane_width=width, num_devices=min(devices, _num_cores()) if backend == "cpu" else devices)


def check(plan: Any) -> None:
    """Refuse a plan that cannot be run.

    Args:
      plan: What a user gave.

    Raises:
      TypeError: No `Plan`.
      ValueError: A number below 1, or more devices than there are.
    """
    if not isinstance(plan, Plan):
        raise TypeError(f"plan is {plan!r}, of type {type(plan).__name__}; give a Plan, or None to have one chosen.")
    for name in ("lane_width", "num_devices", "steps_per_call"):
        if getattr(plan, name) < 1:
            raise ValueError(f"plan.{name} is {getattr(plan, name)}; give at least 1.")
    available = len(jax.local_devices())
    if plan.num_devices > available:
        raise ValueError(
            f"plan.num_devices is {plan.num_devices}, but JAX has {available} here; give at most {available}."
        )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
