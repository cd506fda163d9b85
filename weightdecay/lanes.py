"""Lanes of members on devices: the only place where members are batched.

A lane is a fixed number of members, trained side by side by one compiled program on one device. The last lane of a
group is filled up with its own members once more. Every device takes the next lane when it is done with one; a lane
never hears of another, and every device runs the same program, so neither their number nor their order changes a bit.
"""

import contextlib
import functools
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from weightdecay import backend, evaluation, planning, training, workers
from weightdecay.batches import RUN_ONCE, FromHost, OnDevice
from weightdecay.checkpoints import Run, Snapshot
from weightdecay.evaluation import Sums
from weightdecay.groups import Group
from weightdecay.planning import Plan
from weightdecay.records import Records
from weightdecay.training import Task
from weightdecay.types import Batch, Device


class Job(NamedTuple):
    """A lane to be trained."""

    group: Group
    members: np.ndarray  # numbers in the group; fewer than the lane is wide where it is the last
    start: int  # step that they have all reached


class Work(NamedTuple):
    """A grid made ready to be trained."""

    groups: list[Group]
    splits: Mapping[str, Batch]
    steps: list[int]  # evaluation steps; the last step is the last of them
    batch_size: int | None
    plan: Plan
    model: Any  # completed with what came from the data

    @property
    def longest(self) -> int:
        """Most steps of a stretch."""
        return min(self.plan.steps_per_call, max(stop - start for start, stop in itertools.pairwise([0, *self.steps])))

    @property
    def devices(self) -> tuple[Device, ...]:
        """Devices that lanes are spread over."""
        return tuple(jax.local_devices()[: self.plan.num_devices])

    def source(self) -> OnDevice | FromHost:
        """Return where the batches come from."""
        if not self.plan.streamed:
            return OnDevice(self.splits["train"], self.batch_size)
        assert self.batch_size is not None
        streams = max(len(np.unique(group.streams(slice(None)), axis=0)) for group in self.groups)
        return FromHost(self.splits["train"], self.batch_size, min(streams, self.plan.lane_width))

    def lanes(self, group: Group) -> Iterator[Job]:
        """Go through a group's lanes, each of members that have the same steps behind them; who is done has none."""
        for start in np.unique(group.started[group.started < self.steps[-1]]):
            members = np.flatnonzero(group.started == start)
            for first in range(0, len(members), self.plan.lane_width):
                yield Job(group, members[first : first + self.plan.lane_width], int(start))


class Programs(NamedTuple):
    """Compiled functions of a group on one device, each over a lane of members."""

    initialize: Any  # (hyperparameters, an input) -> states
    advance: Any  # (hyperparameters, states, examples, num_steps) -> states, and weights before the last step
    evaluate: (
        Any  # (hyperparameters, states, these weights, training examples, validation) -> metrics, stopped_at, best
    )
    add_up: Any = (
        None  # (hyperparameters, states, chunk, counts) -> sums, where the training examples come from the host
    )


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
            _check_memory(ready, work)
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
                programs = compiled(work, group, source)
                compiling += programs
                yield from ((job, programs) for job in jobs)
        wait(compiling)


def compile_first(work: Work) -> int:
    """Compile the programs of the first group on every device.

    Args:
      work: The grid.

    Returns:
      Bytes that a device needs.

    Raises:
      MemoryError: More than it has.
    """
    with backend.kept_programs():
        programs = [future.result() for future in compiled(work, work.groups[0], work.source())]
    return _check_memory(programs[0], work)


def measure(work: Work, seconds: float = 0.5) -> tuple[float, float]:
    """Time of a lane of the first group, while every device trains one.

    Args:
      work: The grid; its first group's programs are compiled.
      seconds: To measure for.

    Returns:
      Seconds a training step, and seconds an evaluation.
    """
    group, source = work.groups[0], work.source()
    programs = [future.result() for future in compiled(work, group, source)]
    x64 = backend.setting("enable_x64")

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
        folds = work.splits["validation"] is work.splits["train"]
        self._validation = self._shared if folds else jax.device_put(work.splits["validation"], device)

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
            for chunk in _chunks(self._work.splits["train"])
        ]
        together = jax.tree.map(lambda *column: np.stack(column, axis=1), *sums)
        together = jax.device_put(together, self._device)
        return programs.evaluate(hyperparameters, states, previous, together, self._validation)


def _go_on(states: Any, num_members: int) -> bool:
    """Whether any of a lane's first members is changed by more steps."""
    diverged_at, stopped_at = jax.device_get((states.diverged_at, states.stopped_at))
    return bool(((diverged_at < 0) & (stopped_at < 0))[:num_members].any())


def _check_memory(programs: Programs, work: Work) -> int:
    """Bytes that a group's programs need on a device, if it has them."""
    train = 0 if work.plan.streamed else planning.bytes_of(work.splits["train"])
    validation = planning.bytes_of(work.splits["validation"])
    # The examples lie there all the time, and are arguments of some programs beside.
    counted = {"advance": train, "evaluate": train + validation}
    needs = []
    for name, program in programs._asdict().items():
        used = None if program is None else program.memory_analysis()
        if used is not None:
            arguments = used.argument_size_in_bytes - counted.get(name, 0)
            needs.append(arguments + used.output_size_in_bytes - used.alias_size_in_bytes + used.temp_size_in_bytes)
    need = train + validation + max(needs, default=0)
    free = backend.free_memory(work.devices[0])
    if free is not None and need > free:
        raise planning.too_large(need, free, width=work.plan.lane_width, what="The compiled program")
    return need


def compiled(work: Work, group: Group, source: OnDevice | FromHost) -> list[Future[Programs]]:
    """Programs of a group: traced once, here, and compiled in the background for each device.

    Args:
      work: The grid.
      group: Its members.
      source: Where their batches come from.

    Returns:
      The programs to come, in the order of the devices.
    """
    arguments = _arguments(work, group, source)
    leaves, structure = jax.tree.flatten(arguments)
    settings = backend.setting("enable_x64"), backend.setting("default_matmul_precision")
    key = group.task, structure, tuple(leaves), work.devices
    try:
        programs = _compiled(*key, settings)
        if any(program.done() and program.exception() for program in programs):
            _compiled.cache_clear()  # What failed once, for want of memory perhaps, may be tried again.
            programs = _compiled(*key, settings)
        return programs
    except TypeError:  # A model or a mask that cannot be hashed is compiled afresh in each call.
        return _compiled.__wrapped__(*key, settings)


@functools.lru_cache(maxsize=32)
def _compiled(
    task: Task,
    structure: Any,
    leaves: Sequence[jax.ShapeDtypeStruct],
    devices: tuple[Device, ...],
    settings: Any,
) -> list[Future[Programs]]:
    """Programs for each device; ``settings`` are those of JAX that a program depends on."""
    functions = _functions(task)
    options = {"initialize": RUN_ONCE}
    donated = {"advance": 1}
    jitted = {
        name: jax.jit(function, compiler_options=options.get(name), donate_argnums=donated.get(name, ()))
        for name, function in functions.items()
    }

    def lowered(device: Device) -> dict[str, Any]:
        on_device = SingleDeviceSharding(device)
        placed = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_device) for leaf in leaves]
        arguments = structure.unflatten(placed)
        return {name: jitted[name].lower(*arguments[name]) for name in arguments}

    def compile_all(programs: dict[str, Any]) -> Programs:
        return Programs(**{name: program.compile() for name, program in programs.items()})

    return [_compilers().submit(compile_all, lowered(device)) for device in devices]


@functools.cache
def _compilers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(backend.num_cores(), thread_name_prefix="compile")


def _functions(task: Task) -> dict[str, Callable[..., Any]]:
    """What is compiled, by the names of `Programs`."""

    def initialize(hyperparameters: Any, inputs: Any) -> Any:
        return jax.vmap(lambda one: training.initialize(task, one, inputs))(hyperparameters)

    def advance(hyperparameters: Any, states: Any, examples: Any, num_steps: Any) -> Any:
        # The examples lie there once; their order, or the choice among the batches of several seeds, is a member's.
        mapped = type(examples)(data=None, order=0, which=0)
        return jax.vmap(
            lambda one, state, examples: training.train(task, one, state, examples, num_steps), in_axes=(0, 0, mapped)
        )(hyperparameters, states, examples)

    def evaluate(hyperparameters: Any, states: Any, previous: Any, train: Any, validation: Any) -> Any:
        def member(one: Any, state: Any, previous: Any, train: Any) -> Any:
            on_train = (
                evaluation.means(train)
                if isinstance(train, Sums)
                else evaluation.score(task, one, state.params, state.model_state, train, validation=False)
            )
            metrics = evaluation.report(task, one, state, previous, on_train, validation)
            metrics, judged = evaluation.judge(task, one, state, metrics)
            return metrics, judged.stopped_at, judged.best

        in_axes = (0, 0, 0, 0 if isinstance(train, Sums) else None)
        return jax.vmap(member, in_axes=in_axes)(hyperparameters, states, previous, train)

    def add_up(hyperparameters: Any, states: Any, chunk: Any, counts: Any) -> Any:
        return jax.vmap(
            lambda one, state: evaluation.chunk_sums(task, one, state.params, state.model_state, chunk, counts)
        )(hyperparameters, states)

    return {"initialize": initialize, "advance": advance, "evaluate": evaluate, "add_up": add_up}


def _arguments(work: Work, group: Group, source: OnDevice | FromHost) -> dict[str, tuple[Any, ...]]:
    """Arguments of each function, as shapes."""
    width = work.plan.lane_width

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape), leaf.dtype), tree)

    def shapes(tree: Any) -> Any:
        dtype = jax.dtypes.canonicalize_dtype
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype(leaf.dtype)), tree)

    hyperparameters = wide(jax.tree.map(lambda leaf: leaf[0], group.hyperparameters))
    states, validation = wide(group.state), shapes(work.splits["validation"])
    streams = group.streams(np.resize(np.arange(len(group.places)), width))
    examples = shapes(source.stretch(source.shared(), streams, 0, 1, work.longest))
    arguments: dict[str, tuple[Any, ...]] = {
        "initialize": (hyperparameters, shapes(work.splits["train"].inputs[:1])),
        "advance": (hyperparameters, states, examples, jax.ShapeDtypeStruct((), np.int32)),
    }
    if isinstance(source, OnDevice):
        train = shapes(work.splits["train"])
        return arguments | {"evaluate": (hyperparameters, states, states.params, train, validation)}
    first = shapes(next(_chunks(work.splits["train"])))
    num_chunks = len(evaluation.chunk_rows(len(work.splits["train"].inputs))[0])
    one_chunk = jax.eval_shape(_functions(group.task)["add_up"], hyperparameters, states, *first)
    sums = jax.tree.map(lambda one: jax.ShapeDtypeStruct((*one.shape, num_chunks), one.dtype), one_chunk)
    return arguments | {
        "evaluate": (hyperparameters, states, states.params, sums, validation),
        "add_up": (hyperparameters, states, *first),
    }


def _chunks(data: Batch) -> Iterator[tuple[Batch, np.ndarray]]:
    """Chunks of the training examples with what counts in them, gathered on the host one at a time."""
    for rows, counts in zip(*map(np.asarray, evaluation.chunk_rows(len(data.inputs))), strict=True):
        yield jax.tree.map(lambda array, rows=rows: array[rows], data), counts
