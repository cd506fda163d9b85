"""Lanes of members on devices.

A lane is a fixed number of members, trained side by side by one compiled program on one device. The last lane of a
group is filled up with its own members once more. Every device takes the next lane when it is done with one; a lane
never hears of another, and every device runs the same program, so neither their number nor their order changes a bit.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import jax
import numpy as np

from weightdecay.core import jax_settings
from weightdecay.core.types import Device
from weightdecay.data.batches import FromHost, OnDevice
from weightdecay.engine import devices as backend
from weightdecay.engine import lane_programs, workers
from weightdecay.engine.groups import Group
from weightdecay.engine.lane_programs import Programs
from weightdecay.engine.preparation import Job, Work
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.records import Records
from weightdecay.storage.run_directory import Run


def run(work: Work, records: Records, advanced: Callable[[int], Any], saved: Run | None = None) -> None:
    """Train every member that is not done, lane by lane.

    Args:
      work: The grid.
      records: Take what comes of the members, by their places in the grid; also where this is interrupted.
      advanced: Is told the member-steps done behind every stretch of a lane.
      saved: Where members are saved, and those that have begun are found; None = nowhere.
    """
    source, devices = work.source(), work.devices
    stop, lock = threading.Event(), threading.Lock()

    def told(member_steps: int) -> None:
        with lock:
            advanced(member_steps)

    def begin(index: int, stack: contextlib.ExitStack) -> Callable[[tuple[Job, list[Future[Programs]]]], None]:
        lane = Lane(work, source, devices[index], stack.enter_context(ThreadPoolExecutor(1)))

        def train(job: tuple[Job, list[Future[Programs]]]) -> None:
            ready = job[1][index].result()
            lane_programs.check_memory(ready, work)
            lane.train(ready, job[0], records, told, stop, saved)

        return train

    workers.share_out(_jobs(work, source), len(devices), begin, stop)


def _jobs(work: Work, source: OnDevice | FromHost) -> Iterator[tuple[Job, list[Future[Programs]]]]:
    """Every lane with its programs, which are compiled in the background."""
    with backend.kept_programs():
        compiling: list[Future[Programs]] = []
        for group in work.groups:
            jobs = list(work.lanes(group))
            if jobs:
                programs = lane_programs.compiled(work, group, source)
                compiling += programs
                yield from ((job, programs) for job in jobs)
        wait(compiling)


def measure(work: Work, seconds: float = 0.5) -> tuple[float, float]:
    """Time of a lane of the first group, while every device trains one.

    Args:
      work: The grid; its first group's programs are compiled.
      seconds: To measure for.

    Returns:
      Seconds a training step, and seconds an evaluation.
    """
    group, source = work.groups[0], work.source()
    programs = [future.result() for future in lane_programs.compiled(work, group, source)]
    x64 = jax_settings.setting("enable_x64")

    def one_device(index: int) -> tuple[float, float]:
        with jax.enable_x64(x64), ThreadPoolExecutor(1) as ahead:
            return Lane(work, source, work.devices[index], ahead).measure(programs[index], group, seconds)

    with ThreadPoolExecutor(len(work.devices)) as pool:
        times = list(pool.map(one_device, range(len(work.devices))))
    return max(step for step, _ in times), max(evaluation for _, evaluation in times)


class Lane:
    """A device that trains one lane after the other."""

    def __init__(self, work: Work, source: OnDevice | FromHost, device: Device, ahead: ThreadPoolExecutor) -> None:
        """Put on the device what all lanes share; ``ahead`` makes the next batches ready while it computes."""
        self._work, self._source, self._device, self._ahead = work, source, device, ahead
        self._shared = jax.device_put(source.shared(), device)
        self._validation = self._shared if work.cross_validates else jax.device_put(work.splits["validation"], device)

    def train(
        self,
        programs: Programs,
        job: Job,
        records: Records,
        advanced: Callable[[int], Any],
        stop: threading.Event,
        saved: Run | None = None,
    ) -> None:
        """Train a lane to its last step.

        Args:
          programs: The group's.
          job: The lane.
          records: Take the metrics and the weights.
          advanced: Is told the member-steps done.
          stop: Set = leave at the end of a stretch.
          saved: Where the members are saved now and then, and at the end; None = nowhere.
        """
        streams, here, states = self._begin(programs, job, saved)
        places, stretches = job.group.places[job.members], list(self._stretches(job.start))
        steps, saved_at = self._work.steps, time.monotonic()
        coming = self._ahead.submit(self._examples, streams, *stretches[0])
        reached = job.start
        for (start, end), following in itertools.zip_longest(stretches, stretches[1:]):
            if stop.is_set():
                break
            examples = coming.result()
            states, previous = programs.advance(here, states, examples, np.int32(end - start))
            if following is not None:
                coming = self._ahead.submit(self._examples, streams, *following)
            jax.block_until_ready(states)
            if end in steps:
                states = self._evaluate_into(records, job, [steps.index(end)], programs, here, states, previous)
                if end < steps[-1] and not _go_on(states, len(places)):
                    left = range(steps.index(end) + 1, len(steps))
                    states = self._evaluate_into(records, job, left, programs, here, states, previous)
                    end = steps[-1]
            advanced((end - reached) * len(places))
            reached = end
            if reached == steps[-1]:
                break
            if saved is not None and time.monotonic() - saved_at >= saved.save_every:
                self._save(saved, records, job, reached, jax.device_get(states))
                saved_at = time.monotonic()
        if reached == job.start:
            return
        last, on_host = reached == steps[-1], jax.device_get(states)
        if saved is not None:
            self._save(saved, records, job, reached, on_host)
        records.write_members(places, on_host, job.group.layers(), last=last)

    def _save(self, saved: Run, records: Records, job: Job, step: int, states: Any) -> None:
        some, evaluated = len(job.members), [one for one in self._work.steps if one <= step]
        keys = [job.group.keys[member] for member in job.members]
        places = job.group.places[job.members]
        metrics = records.rows(places, len(evaluated), job.group.layers()) if evaluated else {}
        leaves = [leaf[:some] for leaf in jax.tree.leaves(states)]
        saved.save(Snapshot(keys, step, leaves, metrics, evaluated, done=step == self._work.steps[-1]))

    def measure(self, programs: Programs, group: Group, seconds: float) -> tuple[float, float]:
        """Seconds a step and an evaluation, of a lane of the group's first members."""
        streams, here, states = self._begin(programs, next(self._work.lanes(group)), None)
        stretch, previous = self._examples(streams, 0, self._work.longest), None

        def advance(num_steps: int) -> float:
            nonlocal states, previous
            started = time.perf_counter()
            states, previous = jax.block_until_ready(programs.advance(here, states, stretch, np.int32(num_steps)))
            return time.perf_counter() - started

        def evaluate() -> float:
            started = time.perf_counter()
            jax.block_until_ready(self._evaluate(programs, here, states, previous))
            return time.perf_counter() - started

        steps = 1
        while (took := advance(steps)) < seconds / 10 and steps < self._work.longest:
            steps = min(2 * steps, self._work.longest)
        repeats = max(3, min(50, int(seconds / max(took, 1e-6))))
        return (
            float(np.median([advance(steps) for _ in range(repeats)])) / steps,
            float(np.median([evaluate() for _ in range(4)][1:])),
        )

    def _begin(self, programs: Programs, job: Job, saved: Run | None) -> tuple[np.ndarray, Any, Any]:
        """Streams, hyperparameters and states of a lane at its start, filled up with its own members."""
        group, width = job.group, self._work.plan.lane_width
        slots = np.resize(job.members, width)
        here = jax.device_put(jax.tree.map(lambda leaf: leaf[slots], group.hyperparameters), self._device)
        if job.start == 0 or saved is None:
            states = programs.initialize(here, jax.device_put(self._work.splits["train"].inputs[:1], self._device))
        else:
            leaves = saved.read([group.keys[member] for member in job.members]).leaves
            filled = np.resize(np.arange(len(job.members)), width)
            states = jax.tree.unflatten(jax.tree.structure(group.state), [leaf[filled] for leaf in leaves])
            states = jax.device_put(states, self._device)
        return group.streams(slots), here, states

    def _stretches(self, start: int) -> Iterator[tuple[int, int]]:
        """Stretches of training between evaluations, ``(start, end)``, none longer than the longest."""
        for first, last in itertools.pairwise([0, *self._work.steps]):
            for here in range(max(first, start), last, self._work.longest):
                yield here, min(here + self._work.longest, last)

    def _examples(self, streams: np.ndarray, start: int, end: int) -> Any:
        examples = self._source.stretch(self._shared, streams, start, end - start, self._work.longest)
        return jax.device_put(examples, self._device)

    def _evaluate_into(
        self,
        records: Records,
        job: Job,
        numbers: Iterable[int],
        programs: Programs,
        here: Any,
        states: Any,
        previous: Any,
    ) -> Any:
        """Evaluate the members, enter the same numbers for each of these evaluations, and return the states."""
        metrics, stopped_at, best = self._evaluate(programs, here, states, previous)
        metrics = jax.device_get(metrics)
        for number in numbers:
            records.write_metrics(job.group.places[job.members], number, metrics, job.group.layers())
        return states._replace(stopped_at=stopped_at, best=best)

    def _evaluate(self, programs: Programs, hyperparameters: Any, states: Any, previous: Any) -> Any:
        if programs.add_up is None:
            return programs.evaluate(hyperparameters, states, previous, self._shared, self._validation)
        # One chunk lies on the device at a time: each is waited for.
        sums = [
            jax.device_get(programs.add_up(hyperparameters, states, *jax.device_put(chunk, self._device)))
            for chunk in lane_programs.chunks(self._work.splits["train"])
        ]
        together = jax.tree.map(lambda *column: np.stack(column, axis=1), *sums)
        together = jax.device_put(together, self._device)
        return programs.evaluate(hyperparameters, states, previous, together, self._validation)


def _go_on(states: Any, num_members: int) -> bool:
    """Whether any of a lane's first members is changed by more steps."""
    diverged_at, stopped_at = jax.device_get((states.diverged_at, states.stopped_at))
    return bool(((diverged_at < 0) & (stopped_at < 0))[:num_members].any())
