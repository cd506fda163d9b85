"""Lanes that several processes share: each process takes units of work from the run directory until none is left.

A unit is the members of one lane, as `weightdecay.storage.leases` lists them. A process takes those that nobody holds;
then it waits for the others, and takes over the units of those that die. At the end it reads what the others trained,
so that every process has every member. The bits of a member do not depend on who trains it.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from weightdecay.engine.groups import Lane
from weightdecay.engine.resume import restore
from weightdecay.engine.workload import Workload
from weightdecay.storage import processes
from weightdecay.storage.run_directory import RunDirectory


class Unit(NamedTuple):
    """Members of one lane, which one process trains.

    Attributes:
      number: Number of the unit; -1 = this process trains it without a lease.
      group: Their group.
      members: Positions in the group, shape ``(members,)``.
    """

    number: int
    group: Any  # Group
    members: np.ndarray


class Shared:
    """The units of a call, as this process sees them."""

    def __init__(self, workload: Workload, run: RunDirectory, advanced: Callable[[int], Any]) -> None:
        """Take the workload as it was resumed; ``advanced`` takes the member-steps of all processes."""
        self._workload, self._run, self._advanced = workload, run, advanced
        content = {
            "units": [
                [number, lane.members.tolist()]
                for number, group in enumerate(workload.groups)
                for lane in group.lanes(workload.num_steps, workload.lane_width(group))
            ],
            "keys": [list(group.keys) for group in workload.groups],
            "num_steps": workload.num_steps,
        }
        self._leases = run.share(content)
        self.units = [
            Unit(number, workload.groups[group], np.array(members, np.int64))
            for number, (group, members) in enumerate(self._leases.units)
        ]
        self._mine: set[int] = set()  # units that this process has trained to the end
        self._trained = [np.zeros(len(group.indices), bool) for group in workload.groups]
        self._lock = threading.Lock()
        self._reached: dict[int, int] = {}  # member-steps by unit, of this process
        self._done = 0  # member-steps of this process
        self._shown = sum(int(group.started.sum()) for group in workload.groups)
        self._shown_at = time.monotonic()
        self._started = time.monotonic()
        run.processes.on_beat = self._beat

    def rounds(self, stop: threading.Event) -> Iterator[list[Unit]]:
        """Iterate over what this process may train next; the units of a round have ended before the next is asked for.

        Args:
          stop: Ends the iteration early.

        Yields:
          First the units that nobody has held; then those of processes that died, as they are noticed. Last, members
          that no unit holds, such as those of a checkpoint that was damaged meanwhile.
        """
        yield [unit for unit in self.units if self._leases.is_free(unit.number)]
        self._run.flush()
        while not stop.is_set():
            self._run.index.refresh()
            left = [unit for unit in self.units if not self._is_done(unit)]
            lost = [unit for unit in left if self._leases.is_lost(unit.number)]
            if lost:
                yield lost
                self._run.flush()
            elif left:
                self._show_others()
                stop.wait(self._run.processes.patience())
            else:
                break
        if not stop.is_set():
            yield [Unit(-1, group, members) for group, members in self._unassigned()]

    def watch(self, check: Callable[[], None]) -> None:
        """Wait until other processes have trained every member.

        Args:
          check: Called now and then; raises where nobody is left to train them.
        """
        while True:
            self._run.index.refresh()
            if all(map(self._is_done, self.units)) and not list(self._unassigned()):
                return
            check()
            self._show_others()
            time.sleep(self._run.processes.patience() / 4)

    def take(self, unit: Unit) -> list[Lane]:
        """Take a unit for this process.

        Returns:
          Its lanes, one for each step that its members have reached; empty where another process holds the unit.
        """
        if unit.number >= 0:
            if not self._leases.take(unit.number):
                return []
            with self._lock:
                self._reached[unit.number] = self._saved_steps(unit)
        self._run.index.refresh()
        steps = np.array([self._run.saved_steps(key, self._workload.num_steps) for key in _keys(unit)])
        steps = np.maximum(steps, unit.group.started[unit.members] * (unit.number < 0))
        return [
            Lane(unit.group, unit.members[steps == step], int(step), self._workload.num_steps)
            for step in np.unique(steps)
            if step < self._workload.num_steps
        ]

    def advance(self, unit: Unit, member_steps: int) -> None:
        """Count member-steps of a unit that this process trains."""
        with self._lock:
            if unit.number in self._reached:
                self._reached[unit.number] += member_steps
            self._done += member_steps
            self._shown += member_steps
        self._advanced(member_steps)

    def finish(self, unit: Unit, lanes: Sequence[Lane]) -> None:
        """Record that this process has trained some lanes of a unit to the end."""
        number = next(number for number, group in enumerate(self._workload.groups) if group is unit.group)
        for lane in lanes:
            self._trained[number][lane.members] = True
        with self._lock:
            self._mine.add(unit.number)

    def collect(self) -> None:
        """Take the members that other processes have trained into the result."""
        self._run.index.refresh()
        for group, trained in zip(self._workload.groups, self._trained, strict=True):
            members = np.flatnonzero(~trained & (group.started < self._workload.num_steps))
            restore(self._workload, group, members.tolist(), self._run)
        self._show_others(always=True)
        self._run.is_complete = True

    def close(self) -> None:
        """Count the steps of others no longer."""
        self._run.processes.on_beat = lambda: None

    def _unassigned(self) -> Iterator[tuple[Any, np.ndarray]]:
        for group, trained in zip(self._workload.groups, self._trained, strict=True):
            saved = np.array([self._run.saved_steps(key, self._workload.num_steps) for key in group.keys])
            have = np.maximum(saved, group.started) >= self._workload.num_steps
            members = np.flatnonzero(~trained & ~have)
            width = self._workload.lane_width(group)
            for first in range(0, len(members), width):
                yield group, members[first : first + width]

    def _is_done(self, unit: Unit) -> bool:
        last = self._workload.num_steps
        return unit.number in self._mine or all(self._run.saved_steps(key, last) == last for key in _keys(unit))

    def _saved_steps(self, unit: Unit) -> int:
        return sum(self._run.saved_steps(key, self._workload.num_steps) for key in _keys(unit))

    def _beat(self) -> None:
        """Tell the others what this process trains, and count what they train."""
        with self._lock:
            unsaved = {number: steps for number, steps in self._reached.items() if number not in self._mine}
            unsaved |= {
                number: steps
                for number, steps in self._reached.items()
                if number in self._mine and steps > self._saved_steps(self.units[number])
            }
            self._run.processes.content |= {
                "units": unsaved,
                "done": self._done,
                "seconds": time.monotonic() - self._started,
            }
        self._show_others()

    def _show_others(self, *, always: bool = False) -> None:
        """Advance the progress bar to the member-steps of all processes."""
        others = self._run.processes.others() if always or time.monotonic() >= self._shown_at else None
        if others is None:
            return
        self._shown_at = time.monotonic() + max(processes.HEARTBEAT, self._run.processes.patience())
        if not others and not always:
            return
        self._run.index.refresh()
        reached = dict(self._reached)
        for content in others.values():
            for number, steps in content.get("units", {}).items():
                reached[int(number)] = max(reached.get(int(number), 0), steps)
        last = self._workload.num_steps
        together = sum(self._run.saved_steps(key, last) for group in self._workload.groups for key in group.keys)
        for number, steps in reached.items():
            together += max(0, steps - self._saved_steps(self.units[number])) if number < len(self.units) else 0
        with self._lock:
            more = together - self._shown
            self._shown = max(self._shown, together)
        if more > 0:
            self._advanced(more)


def _keys(unit: Unit) -> list[str]:
    return [unit.group.keys[member] for member in unit.members]
