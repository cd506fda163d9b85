"""Lanes on devices: every lane of a workload is compiled, made ready, advanced and collected here.

Every device takes the next lane when it has finished one. A lane never depends on another lane, and every device runs
the same program, so neither the number of devices nor the order of lanes changes a bit of any member.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, wait
from typing import Any

from weightdecay.core.warn import warn
from weightdecay.engine import devices, workers
from weightdecay.engine.groups import Lane
from weightdecay.engine.workload import OnDevice, Workload
from weightdecay.storage.run_directory import RunDirectory

Advanced = Callable[[int], Any]


def run(workload: Workload, advanced: Advanced, saved: RunDirectory | None = None) -> None:
    """Compute every member that is not finished, lane by lane.

    Args:
      workload: What the members compute; it takes what comes of them, also where this is interrupted.
      advanced: Called with the number of member-steps done, after each segment of a lane.
      saved: Run directory in which members are saved, and from which those that have started are read; None = nowhere.
    """
    stop, lock = threading.Event(), threading.Lock()

    def report(member_steps: int) -> None:
        with lock:
            advanced(member_steps)

    def begin(index: int, stack: contextlib.ExitStack) -> Callable[[tuple[Lane, Sequence[Future[Any]]]], None]:
        worker = DeviceWorker(workload, stack.enter_context(workload.on_device(index)), report, stop, saved)

        def compute(item: tuple[Lane, Sequence[Future[Any]]]) -> None:
            lane, programs = item
            worker.compute(lane, programs[index].result())

        return compute

    with contextlib.closing(schedule(workload)) as items:
        workers.distribute(items, workload.plan.num_devices, begin, stop)


def schedule(workload: Workload) -> Generator[tuple[Lane, Sequence[Future[Any]]], None, None]:
    """Iterate over the lanes that are left to compute, in the order in which devices take them.

    This is the seat of a strategy: which members are computed next, and up to which step, is decided here alone.

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


class DeviceWorker:
    """A device that computes one lane after the other."""

    def __init__(
        self,
        workload: Workload,
        on_device: OnDevice,
        advanced: Advanced,
        stop: threading.Event,
        saved: RunDirectory | None,
    ) -> None:
        """Take what `run` has, and the device with what all lanes share."""
        self._workload, self._on_device = workload, on_device
        self._advanced, self._stop, self._saved = advanced, stop, saved

    def compute(self, lane: Lane, programs: Any) -> None:
        """Compute a lane up to its last step, and save it now and then; end early where ``stop`` is set.

        Args:
          lane: The lane.
          programs: The compiled programs of its group on this device.
        """
        saved, last = self._saved, self._workload.num_steps
        leaves = None
        if lane.start > 0 and saved is not None:
            try:
                leaves = saved.read(lane.keys).leaves
            except (OSError, ValueError) as error:
                warn(f"directory {saved.path}: saved members cannot be read ({error}); they start again at step 0.")
                lane = lane._replace(start=0)
        lane_run = self._on_device.begin(programs, lane, leaves)
        reached, saved_at = lane.start, time.monotonic()
        while reached < last and not self._stop.is_set():
            step = lane_run.advance()
            if step == last:
                self._keep(lane, step, lane_run.states())
            elif saved is not None and time.monotonic() - saved_at >= saved.save_every:
                saved.save(self._workload.snapshot(lane, step, lane_run.states()))
                saved_at = time.monotonic()
            self._advanced((step - reached) * len(lane.members))
            reached = step
        if lane.start < reached < last:
            self._keep(lane, reached, lane_run.states())

    def _keep(self, lane: Lane, step: int, states: Any) -> None:
        """Save the members of a lane that ends here, and take them into the result."""
        if self._saved is not None:
            self._saved.save(self._workload.snapshot(lane, step, states))
        self._workload.collect(lane, step, states)
