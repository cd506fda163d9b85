"""What the members of a grid compute, as the engine sees it: one interface, which `fit_grid` and `map_grid` share.

The engine knows groups, lanes, devices, the run directory and interruptions. It does not know what a member is: a
`Workload` says that. A training of `fit_grid` takes many steps and is evaluated between them
(`weightdecay.engine.training_workload`); a function of `map_grid` is one step (`weightdecay.engine.function_workload`).

The life of a lane, the members of one group that one device, or one mesh of devices, computes side by side:

1. *compiled*: ``workload.compile(group)`` starts compiling the group's programs, once a device, in the background.
2. *made ready*: ``workload.on_device(index)`` puts on a device what all lanes share; ``begin(programs, lane, saved)``
   puts there what is the lane's own, at its first step or from what the run directory holds.
3. *advanced*: ``lane_run.advance()`` computes one segment of steps and returns the step that its members have reached.
4. *collected*: ``workload.collect(lane, step, states)`` takes the members' states from the device into the result, and
   ``workload.snapshot(lane, step, states)`` into the run directory.

Shapes: ``members`` is the number of members of a lane, at most its width; a compiled program always computes ``width``
members, of which the last ones repeat the first where a lane is not full. States that leave a device are NumPy arrays
of shape ``(width, ...)`` in the structure of ``group.state``; the first ``members`` rows count.

Two seats are left for what is to come. `weightdecay.engine.lanes.schedule` alone decides which lane is computed next: a
strategy takes its place. `weightdecay.engine.workers.distribute` alone decides who computes a lane, one thread a
device: another executor takes its place.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np

from weightdecay.engine.groups import Group, Lane
from weightdecay.engine.plans import Plan
from weightdecay.storage.checkpoints import Snapshot


@runtime_checkable
class LaneRun(Protocol):
    """One lane on one device, between its first step and its last."""

    def advance(self) -> int:
        """Compute one segment, with the evaluation at its end if there is one.

        Returns:
          The step that the members have reached; the workload's ``num_steps`` when nothing is left to compute.
        """
        ...

    def states(self) -> Any:
        """Return what the members carry now, as NumPy arrays, each of shape ``(width, ...)``."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A device with what all lanes of a workload share."""

    def begin(self, programs: Any, lane: Lane, saved: Sequence[np.ndarray] | None) -> LaneRun:
        """Put a lane on the device.

        Args:
          programs: What the future that `Workload.compile` returned for this device holds.
          lane: Members of one group, all at step ``lane.start``.
          saved: Leaves of the members' states from the run directory, each of shape ``(members, ...)``; None = the
            members start at their first step.

        Returns:
          The lane, ready to advance.
        """
        ...


@runtime_checkable
class Workload(Protocol):
    """What the members of a grid compute.

    Attributes:
      groups: Members of equal structure; the indices of all groups together are those of the grid.
      num_steps: Last step of each member.
      plan: Lanes and devices.
      programs_key: Name under which ``run.json`` holds the digests of the groups' programs.
    """

    groups: Sequence[Group]
    num_steps: int
    plan: Plan
    programs_key: str

    def with_groups(self, groups: Sequence[Any]) -> "Workload":
        """Return the same workload with other completed steps and keys of its groups."""
        ...

    def lane_width(self, group: Group) -> int:
        """Return the number of members that a program of a group computes at once."""
        ...

    def compile(self, group: Group) -> "Sequence[Future[Any]]":
        """Start compiling the programs of a group.

        Args:
          group: One of ``groups``.

        Returns:
          The programs to come, one future a device.
        """
        ...

    def on_device(self, index: int) -> AbstractContextManager[OnDevice]:
        """Put on a device what all lanes share, and remove it at the end of the ``with``.

        Args:
          index: Position of the device among those of the plan.
        """
        ...

    def collect(self, lane: Lane, step: int, states: Any) -> None:
        """Take the members of a lane into the result.

        Args:
          lane: The lane.
          step: The step that its members have reached.
          states: What they carry, each array of shape ``(width, ...)``.
        """
        ...

    def snapshot(self, lane: Lane, step: int, states: Any) -> Snapshot:
        """Return the members of a lane as the run directory saves them; arguments as in `collect`."""
        ...

    def restore(self, group: Group, members: Sequence[int], snapshot: Snapshot) -> None:
        """Take members that the run directory holds into the result.

        Args:
          group: Their group.
          members: Their positions in the group.
          snapshot: What was saved of them, in this order, all at one step.
        """
        ...

    def depends_on(self) -> Mapping[str, Any]:
        """Return what the numbers of the members depend on in addition to their programs, as values of JSON by name."""
        ...

    def reduced(self, *, width_is_free: bool) -> "Workload | None":
        """Return the same workload with a plan that needs less memory, after a device ran out of it.

        Args:
          width_is_free: Whether lanes may become narrower, which changes the last bits of a member.

        Returns:
          The workload; None where no smaller plan gives the same numbers.
        """
        ...
