"""Lanes on devices: every lane of a workload is compiled, made ready, advanced and collected here.

Every device takes the next lane when it has finished one. A lane never depends on another lane, and every device runs
the same program, so neither the number of devices nor the order of lanes changes a bit of any member.
"""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from typing import Any

import jax
import numpy as np

from weightdecay.core.warn import warn
from weightdecay.engine import devices, workers
from weightdecay.engine.executors import Helpers
from weightdecay.engine.groups import Lane
from weightdecay.engine.race import Race, with_targets
from weightdecay.engine.sharing import Shared, Unit
from weightdecay.engine.workload import OnDevice, Workload
from weightdecay.storage.run_directory import RunDirectory

Advanced = Callable[[int], Any]


def run(
    workload: Workload,
    advanced: Advanced,
    saved: RunDirectory | None = None,
    race: Race | None = None,
    helpers: Helpers | None = None,
) -> None:
    """Compute every member that is not finished, lane by lane.

    Args:
      workload: What the members compute; it takes what comes of them, also where this is interrupted.
      advanced: Called with the number of member-steps done, after each segment of a lane.
      saved: Run directory in which members are saved, and from which those that have started are read; None = nowhere.
      race: Decides which members are computed; None = all.
      helpers: Compute the members in place of this process; None = this process does.
    """
    stop, lock, rounds = threading.Event(), threading.Lock(), Rounds()

    def report(member_steps: int) -> None:
        with lock:
            advanced(member_steps)

    if race is None and saved is not None and saved.is_shared:
        shared = Shared(workload, saved, report)
        try:
            if helpers is None:
                _run_shared(workload, shared, saved, stop, rounds)
            else:
                helpers.start(saved)
                shared.watch(helpers.check)
            shared.collect()
        finally:
            shared.close()
        return

    def begin(index: int, stack: contextlib.ExitStack) -> Callable[[tuple[Lane, Sequence[Future[Any]]]], None]:
        with rounds.failing():
            on_device = stack.enter_context(workload.on_device(index))
        worker = DeviceWorker(workload, on_device, report, stop, saved, rounds)

        def compute(item: tuple[Lane, Sequence[Future[Any]]]) -> None:
            lane, programs = item
            with rounds.lane():
                worker.compute(lane, programs[index].result())

        return compute

    items = schedule(workload) if race is None else schedule_rounds(workload, race, rounds)
    with contextlib.closing(items):
        workers.distribute(items, workload.plan.num_lanes_at_once, begin, stop)


def _run_shared(
    workload: Workload, shared: Shared, saved: RunDirectory, stop: threading.Event, rounds: "Rounds"
) -> None:
    """Compute members together with other processes that make the same call, until all members are computed."""

    def begin(index: int, stack: contextlib.ExitStack) -> Callable[[tuple[Unit, Sequence[Future[Any]]]], None]:
        with rounds.failing():
            on_device = stack.enter_context(workload.on_device(index))

        def compute(item: tuple[Unit, Sequence[Future[Any]]]) -> None:
            unit, programs = item
            with rounds.lane():
                compiled = programs[index].result()  # before the unit is taken: others may be ready earlier
                lanes = shared.take(unit)
                advanced = functools.partial(shared.advance, unit)
                worker = DeviceWorker(workload, on_device, advanced, stop, saved, rounds)
                if lanes and all([worker.compute(lane, compiled) for lane in lanes]):
                    shared.finish(unit, lanes)

        return compute

    items = schedule_shared(workload, shared, stop, rounds)
    with contextlib.closing(items):
        workers.distribute(items, workload.plan.num_lanes_at_once, begin, stop)


def schedule_shared(
    workload: Workload, shared: Shared, stop: threading.Event, rounds: "Rounds"
) -> Generator[tuple[Unit, Sequence[Future[Any]]], None, None]:
    """Iterate over the units of work that other processes may train as well.

    Args:
      workload: What the members compute.
      shared: Knows who trains what.
      stop: Ends the iteration early.
      rounds: Knows which units have ended.

    Yields:
      As `schedule`, with units in place of lanes.
    """
    with devices.kept_programs():
        compiling: list[Future[Any]] = []
        try:
            for units in shared.rounds(stop):
                programs: dict[int, Sequence[Future[Any]]] = {}
                for unit in units:
                    if id(unit.group) not in programs:
                        programs = {id(unit.group): workload.compile(unit.group)}
                        compiling += programs[id(unit.group)]
                    rounds.begin_lane()
                    yield unit, programs[id(unit.group)]
                if not rounds.wait():
                    return
        finally:
            wait(compiling)


def schedule(workload: Workload) -> Generator[tuple[Lane, Sequence[Future[Any]]], None, None]:
    """Iterate over the lanes that are left to compute, in the order in which devices take them.

    Which members are computed next, and up to which step, is decided here and in `schedule_rounds` alone.

    Args:
      workload: What the members compute.

    Yields:
      A lane with the programs of its group, one future a device; they are compiled in the background.
    """
    with devices.kept_programs():
        compiling: list[Future[Any]] = []
        try:
            for group in workload.groups:
                lanes = list(group.lanes(workload.num_steps, workload.lane_width(group)))
                if lanes:
                    programs = workload.compile(group)
                    compiling += programs
                    yield from ((lane, programs) for lane in lanes)
        finally:
            wait(compiling)


def schedule_rounds(
    workload: Any, race: Race, rounds: "Rounds"
) -> Generator[tuple[Lane, Sequence[Future[Any]]], None, None]:
    """Iterate over the lanes of a race; the lanes of a round are asked for when those of the round before have ended.

    Args:
      workload: What the members compute, with the steps that each has completed; a `TrainingWorkload`.
      race: Decides.
      rounds: Knows which lanes have ended.

    Yields:
      As `schedule`.
    """
    now = np.zeros(sum(len(group.indices) for group in workload.groups), np.int64)
    for group in workload.groups:
        now[group.indices] = group.started
    with devices.kept_programs():
        compiling: list[Future[Any]] = []
        try:
            while wanted := race.next_round(*workload.measured()):
                for group in workload.groups:
                    lanes = list(with_targets(group, wanted, now).lanes(workload.num_steps, workload.lane_width(group)))
                    if lanes:
                        programs = workload.compile(group)
                        compiling += programs
                        for lane in lanes:
                            rounds.begin_lane()
                            yield lane, programs
                for index, step in wanted.items():
                    now[index] = max(now[index], step)
                if not rounds.wait():
                    return
        finally:
            wait(compiling)


class Rounds:
    """Lanes of a round that have not ended, and the members that wait for a later round."""

    def __init__(self) -> None:
        """Begin without any."""
        self._condition, self._open, self._failed = threading.Condition(), 0, False
        self.waiting: dict[int, list[np.ndarray]] = {}
        """Leaves of the states of members between two rounds, by their position in the grid."""

    def begin_lane(self) -> None:
        """Count a lane that is going to be computed."""
        with self._condition:
            self._open += 1

    @contextlib.contextmanager
    def lane(self) -> Iterator[None]:
        """Compute a lane, and count its end."""
        try:
            with self.failing():
                yield
        finally:
            with self._condition:
                self._open -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """Let nobody wait for lanes any longer if the block raises."""
        try:
            yield
        except BaseException:
            with self._condition:
                self._failed = True
                self._condition.notify_all()
            raise

    def wait(self) -> bool:
        """Wait for the end of all lanes; return whether none has failed."""
        with self._condition:
            self._condition.wait_for(lambda: self._open <= 0 or self._failed)
        return not self._failed


class DeviceWorker:
    """A device that computes one lane after the other."""

    def __init__(
        self,
        workload: Workload,
        on_device: OnDevice,
        advanced: Advanced,
        stop: threading.Event,
        saved: RunDirectory | None,
        rounds: Rounds,
    ) -> None:
        """Take what `run` has, and the device with what all lanes share."""
        self._workload, self._on_device, self._rounds = workload, on_device, rounds
        self._advanced, self._stop, self._saved = advanced, stop, saved

    def compute(self, lane: Lane, programs: Any) -> bool:
        """Compute a lane up to the step that it is to reach, and save it now and then; end early where ``stop`` is set.

        Args:
          lane: The lane.
          programs: The compiled programs of its group on this device.

        Returns:
          Whether its members have reached that step.
        """
        saved, last = self._saved, lane.stop
        leaves = None
        if lane.start > 0 and all(int(index) in self._rounds.waiting for index in lane.indices):
            waiting = [self._rounds.waiting.pop(int(index)) for index in lane.indices]
            leaves = [np.stack(rows) for rows in zip(*waiting, strict=True)]
        elif lane.start > 0 and saved is not None:
            try:
                snapshot = saved.read(lane.keys)
                leaves = snapshot.leaves
                if (lane.group.started[lane.members] < snapshot.step).any():  # another process has trained them since
                    self._workload.restore(lane.group, lane.members.tolist(), snapshot)
                    self._advanced((snapshot.step - lane.start) * len(lane.members))
                    lane = lane._replace(start=snapshot.step)
            except (OSError, ValueError) as error:
                warn(f"directory {saved.path}: saved members cannot be read ({error}); they start again at step 0.")
                lane = lane._replace(start=0)
        if lane.start >= last:
            return True
        lane_run = self._on_device.begin(programs, lane, leaves)
        reached, saved_at = lane.start, time.monotonic()
        while reached < last and not self._stop.is_set():
            step = lane_run.advance()
            if step == last:
                self._keep(lane, step, lane_run.states())
            elif saved is not None and saved.is_due(saved_at):
                saved.save(self._workload.snapshot(lane, step, lane_run.states()))
                saved_at = time.monotonic()
            self._advanced((step - reached) * len(lane.members))
            reached = step
        if lane.start < reached < last:
            self._keep(lane, reached, lane_run.states())
        return reached == last

    def _keep(self, lane: Lane, step: int, states: Any) -> None:
        """Save the members of a lane that ends here, and take them into the result."""
        if self._saved is not None:
            self._saved.save(self._workload.snapshot(lane, step, states))
        if step == lane.stop < self._workload.num_steps:
            for row, index in enumerate(lane.indices):
                self._rounds.waiting[int(index)] = [np.array(leaf[row]) for leaf in jax.tree.leaves(states)]
        self._workload.collect(lane, step, states)
