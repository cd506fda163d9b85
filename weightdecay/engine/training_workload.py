"""The workload of `fit_grid`: members are trained segment by segment, and evaluated between segments."""

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import jax
import numpy as np

from weightdecay.core import jax_settings
from weightdecay.data.on_disk import in_memory
from weightdecay.engine import devices, lane_programs, plans
from weightdecay.engine.groups import Lane, TrainingGroup
from weightdecay.engine.lane_programs import Programs
from weightdecay.engine.placements import Placement
from weightdecay.engine.plans import Plan
from weightdecay.engine.preparation import TrainingRun
from weightdecay.engine.tracker_thread import Receivers
from weightdecay.storage import fingerprints, result_folder
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.training_records import TrainingRecords
from weightdecay.training import evaluation
from weightdecay.training.fine_tuning import Start


@dataclass(frozen=True, eq=False)
class TrainingWorkload:
    """Training of the members of a grid; see `weightdecay.engine.workload.Workload` for the methods.

    Attributes:
      run: The prepared run.
      records: Take the metrics and the weights of every member, by its position in the grid.
      names: What the run is called by: model, optimizer, loss, metrics, mask and the like, as values of JSON.
      callback: Receives what is recorded at each evaluation; None = nobody does.
    """

    run: TrainingRun
    records: TrainingRecords
    names: Mapping[str, Any] = field(default_factory=dict)
    callback: Receivers | None = None
    programs_key: ClassVar[str] = "programs"

    @property
    def groups(self) -> Sequence[TrainingGroup]:
        """Members of equal structure."""
        return self.run.groups

    @property
    def num_steps(self) -> int:
        """Last step of each member."""
        return self.run.steps[-1]

    @property
    def plan(self) -> Plan:
        """Lanes and devices."""
        return self.run.plan

    def with_groups(self, groups: Sequence[TrainingGroup]) -> "TrainingWorkload":
        """Return the same workload with other completed steps and keys."""
        return replace(self, run=replace(self.run, groups=list(groups)))

    def measured(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what a strategy decides by, and where members have diverged.

        Returns:
          The metric that stops early, made so that lower is better, shape ``(members, evaluations)``, nan where it has
          not been measured; and the step at which each member diverged, -1 for never, shape ``(members,)``.
        """
        task = self.run.groups[0].task
        sign = 1 if task.lower_is_better(task.stopping_metric) else -1
        return sign * np.asarray(self.records.metrics[task.stopping_metric]), self.records.marks["diverged_at"]

    def lane_width(self, group: TrainingGroup) -> int:
        """Return the number of members that a program trains at once."""
        return self.plan.lane_width

    def compile(self, group: TrainingGroup) -> Sequence[Future[Programs]]:
        """Start compiling the programs of a group, once a device."""
        return lane_programs.compiled(self.run, group, self.run.source)

    @contextlib.contextmanager
    def on_device(self, index: int) -> Iterator["TrainingDevice"]:
        """Put the examples on a device, and start the thread that prepares the next batches while it computes."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as prefetch:
            yield TrainingDevice(self, index, prefetch)

    def collect(self, lane: Lane, step: int, states: Any) -> None:
        """Record the weights of the members of a lane."""
        self.records.write_members(
            lane.indices, states, lane.group.layers(), last=step == self.num_steps, frozen=lane.group.start.frozen
        )

    def snapshot(self, lane: Lane, step: int, states: Any) -> Snapshot:
        """Return the members of a lane as the run directory saves them, with their curves so far."""
        evaluated = [of_run for of_run in self.run.steps if of_run <= step]
        metrics = self.records.rows(lane.indices, len(evaluated), lane.group.layers()) if evaluated else {}
        leaves = [leaf[: len(lane.members)] for leaf in jax.tree.leaves(states)]
        return Snapshot(lane.keys, step, leaves, metrics, evaluated, done=step == self.num_steps)

    def restore(self, group: TrainingGroup, members: Sequence[int], snapshot: Snapshot) -> None:
        """Record the curves and the weights of members that the run directory holds."""
        indices, layers = group.indices[list(members)], group.layers()
        for column, evaluated in enumerate(snapshot.evaluated):
            if evaluated in self.run.steps:
                metrics = {name: values[:, column] for name, values in snapshot.metrics.items()}
                self.records.write_metrics(indices, self.run.steps.index(evaluated), metrics, layers)
        states = jax.tree.unflatten(jax.tree.structure(group.state), snapshot.leaves)
        self.records.write_members(
            indices, states, layers, last=snapshot.step >= self.num_steps, frozen=group.start.frozen
        )

    def depends_on(self) -> Mapping[str, Any]:
        """Return what the numbers of the members depend on, for the run directory."""
        run = self.run
        return {
            **self.names,
            **({} if run.mesh is None else {fingerprints.MESHES: [run.mesh.describe()]}),
            "batch_size": run.batch_size,
            "eval_every": run.steps[0],
            "lane_width": run.plan.lane_width,
            "lowering": run.plan.convolutions,  # the key's name is part of the format
            **devices.arithmetic(run.devices[0]),
            "data": fingerprints.of_data(run.splits),
            "initial": {group.name: fingerprints.of_arrays(jax.tree.leaves(group.start)) for group in run.groups},
            "frozen": {group.name: list(group.task.frozen) for group in run.groups},
            "evaluations": {group.name: group.evaluation() for group in run.groups},
            "versions": result_folder.versions(),
        }

    def reduced(self, *, width_is_free: bool) -> "TrainingWorkload | None":
        """Return the same workload with a plan that needs less memory."""
        batch_size = self.run.batch_size if self.run.may_stream else None
        smaller = plans.reduced(self.plan, batch_size=batch_size, width_is_free=width_is_free)
        return None if smaller is None else replace(self, run=replace(self.run, plan=smaller))


class TrainingDevice:
    """A device, or a mesh of devices, with the examples that all lanes share."""

    def __init__(self, workload: TrainingWorkload, index: int, prefetch: ThreadPoolExecutor) -> None:
        """Put the examples on the device; ``prefetch`` prepares the next batches while it computes."""
        self.run, self.records, self.callback = workload.run, workload.records, workload.callback
        self.prefetch, self._index = prefetch, index
        run, anywhere = self.run, self.placement(workload.groups[0])
        self.examples = anywhere.put_shared(run.source.shared())
        self.validation = self.examples
        if not run.cross_validates:
            self.validation = anywhere.put_shared(jax.tree.map(in_memory, run.splits["validation"]))
        self._given: dict[TrainingGroup, Start] = {}

    def placement(self, group: TrainingGroup) -> Placement:
        """Return where the lanes of a group are."""
        return self.run.placements(group)[self._index]

    def begin(self, programs: Programs, lane: Lane, saved: Sequence[np.ndarray] | None) -> "TrainingLane":
        """Put a lane on the device: its hyperparameters, and its states at the first step or as they were saved."""
        lane_programs.check_memory(programs, self.run)
        return TrainingLane(self, programs, lane, saved)

    def given(self, group: TrainingGroup) -> Start:
        """Return the weights that are given to the members of a group, on the device."""
        if group not in self._given:
            self._given = {group: self.placement(group).put_shared(group.start)}  # of one group at a time
        return self._given[group]

    def segment(self, placement: Placement, streams: np.ndarray, start: int, end: int) -> Any:
        """Return the batches of one segment of a lane, on the device."""
        batches = self.run.source.segment(self.examples, streams, start, end - start, self.run.longest_segment)
        return placement.put_examples(batches)


class TrainingLane:
    """A lane that is being trained."""

    def __init__(
        self, on_device: TrainingDevice, programs: Programs, lane: Lane, saved: Sequence[np.ndarray] | None
    ) -> None:
        """Put the lane on the device, filled up with its own members where it is not full."""
        self._on_device, self._programs, self._lane = on_device, programs, lane
        group, run = lane.group, on_device.run
        self._placement = placement = on_device.placement(group)
        members = np.resize(lane.members, run.program_width)
        numbers = placement.put_members(jax.tree.map(lambda leaf: leaf[members], group.hyperparameters))
        given = on_device.given(group)
        self._hyperparameters = numbers._replace(frozen=given.frozen)
        if saved is None:
            inputs = placement.put_shared(run.splits["train"].first().inputs)
            self._states = programs.initialize(self._hyperparameters, inputs, given._replace(frozen=None))
        else:
            rows = np.resize(np.arange(len(lane.members)), run.program_width)
            states = jax.tree.unflatten(jax.tree.structure(group.state), [leaf[rows] for leaf in saved])
            self._states = placement.put_members(states)
        self._streams = group.streams(members)
        self._segments = iter(_segments(run, lane.start, lane.stop))
        self._batches = self._prefetch()

    def advance(self) -> int:
        """Train one segment, and evaluate the members at its end if an evaluation is due.

        Returns:
          The step that the members have reached. Where no member of the lane is changed by further steps, that is the
          step that the lane is to reach, and the evaluations in between repeat the present one.
        """
        steps, stop = self._on_device.run.steps, self._lane.stop
        start, end, batches = self._batches
        examples = batches.result()
        self._states, previous, failed = self._programs.advance(
            self._hyperparameters, self._states, examples, np.int32(end - start)
        )
        if end < stop:
            self._batches = self._prefetch()
        if (self._placement.get(failed) >= 0).any():
            self._states, previous = self._programs.repeat()(
                self._hyperparameters, self._states, previous, failed, examples, np.int32(end - start)
            )
            jax.block_until_ready(self._states)
        if end in steps:
            self._record_evaluation([steps.index(end)], previous)
            if end < stop and not self._continues():
                self._record_evaluation(range(steps.index(end) + 1, steps.index(stop) + 1), previous)
                return stop
        return end

    def states(self) -> Any:
        """Return what the members carry now, as NumPy arrays, each of shape ``(width, ...)``."""
        return self._placement.get(self._states)

    def measure(self, seconds: float) -> tuple[float, float]:
        """Return the seconds that a step and an evaluation take, both measured for about ``seconds``."""
        longest = self._on_device.run.longest_segment
        examples, previous = self._on_device.segment(self._placement, self._streams, 0, longest), None

        def advance(num_steps: int) -> float:
            nonlocal previous
            started = time.perf_counter()
            self._states, previous, _ = jax.block_until_ready(
                self._programs.advance(self._hyperparameters, self._states, examples, np.int32(num_steps))
            )
            return time.perf_counter() - started

        def evaluate() -> float:
            started = time.perf_counter()
            jax.block_until_ready(self._evaluate(previous))
            return time.perf_counter() - started

        steps = 1
        while (elapsed := advance(steps)) < seconds / 10 and steps < longest:
            steps = min(2 * steps, longest)
        repeats = max(3, min(50, int(seconds / max(elapsed, 1e-6))))
        return (
            float(np.median([advance(steps) for _ in range(repeats)])) / steps,
            float(np.median([evaluate() for _ in range(4)][1:])),
        )

    def _prefetch(self) -> "tuple[int, int, Future[Any]]":
        """Start preparing the batches of the next segment; return its first and last step with them."""
        start, end = next(self._segments)
        segment = self._on_device.segment
        return start, end, self._on_device.prefetch.submit(segment, self._placement, self._streams, start, end)

    def _continues(self) -> bool:
        """Whether any of the lane's members is changed by further steps."""
        diverged_at, stopped_at = self._placement.get((self._states.diverged_at, self._states.stopped_at))
        return bool(((diverged_at < 0) & (stopped_at < 0))[: len(self._lane.members)].any())

    def _record_evaluation(self, evaluations: Iterable[int], previous: Any) -> None:
        """Evaluate the members, and record the same numbers for each of these evaluations."""
        metrics, stopped_at, best = self._evaluate(previous)
        metrics, layers, on_device = self._placement.get(metrics), self._lane.group.layers(), self._on_device
        for number in evaluations:
            on_device.records.write_metrics(self._lane.indices, number, metrics, layers)
            if on_device.callback is not None:
                on_device.callback.put(self._lane.indices, on_device.run.steps[number], metrics, layers)
        self._states = self._states._replace(stopped_at=stopped_at, best=best)

    def _evaluate(self, previous: Any) -> Any:
        programs, on_device, placement = self._programs, self._on_device, self._placement
        before = self._hyperparameters, self._states
        if programs.add_up is None:
            return programs.evaluate(*before, previous, on_device.examples, on_device.validation)
        # One chunk is on the device at a time: the sums of each are waited for.
        sums = [
            placement.get(programs.add_up(*before, *placement.put_shared(chunk)))
            for chunk in lane_programs.chunks(self._lane.group.task.loss, on_device.run.splits["train"])
        ]
        together = jax.tree.map(lambda *column: np.stack(column, axis=1), *sums)
        together = evaluation.joined(together, on_device.run.splits["train"].num_examples, axis=1)
        return programs.evaluate(*before, previous, placement.put_members(together), on_device.validation)


def measure(run: TrainingRun, seconds: float = 0.5) -> tuple[float, float]:
    """Measure a lane of the first group while every device trains one.

    Args:
      run: The prepared run; the programs of its first group are compiled.
      seconds: Time to measure for.

    Returns:
      Seconds a training step, and seconds an evaluation.
    """
    group = run.groups[0]
    workload = TrainingWorkload(run, TrainingRecords(0, len(run.steps)))
    programs = [future.result() for future in workload.compile(group)]
    lane = next(group.lanes(run.steps[-1], run.plan.lane_width))
    x64 = jax_settings.setting("enable_x64")

    def one_device(index: int) -> tuple[float, float]:
        with jax.enable_x64(x64), workload.on_device(index) as on_device:
            return TrainingLane(on_device, programs[index], lane, None).measure(seconds)

    with ThreadPoolExecutor(run.plan.num_lanes_at_once) as pool:
        times = list(pool.map(one_device, range(run.plan.num_lanes_at_once)))
    return max(step for step, _ in times), max(evaluation for _, evaluation in times)


def _segments(run: TrainingRun, start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Segments from one step to another, ``(first, last)``, cut at evaluations and none longer than the longest."""
    for first, last in itertools.pairwise([0, *(step for step in run.steps if step <= stop)]):
        for begin in range(max(first, start), last, run.longest_segment):
            yield begin, min(begin + run.longest_segment, last)
