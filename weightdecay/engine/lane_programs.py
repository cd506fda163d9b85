"""Programs that train a lane: the only place where members are batched.

Functions of one member become functions of a lane of members, traced once a group and compiled in the background for
each device. What was compiled is kept for the next call.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import SingleDeviceSharding

from weightdecay.core import jax_settings
from weightdecay.core.types import Batch, Device
from weightdecay.data.batches import FromHost, OnDevice
from weightdecay.engine import devices as backend
from weightdecay.engine import plans
from weightdecay.engine.groups import Group
from weightdecay.engine.preparation import Work
from weightdecay.training import early_stopping, evaluation, step
from weightdecay.training.evaluation import Sums
from weightdecay.training.task import Task


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
    settings = jax_settings.setting("enable_x64"), jax_settings.setting("default_matmul_precision")
    key = group.task, structure, tuple(leaves), work.devices
    try:
        programs = _compiled(*key, settings)
        if any(program.done() and program.exception() for program in programs):
            _compiled.cache_clear()  # What failed once, for want of memory perhaps, may be tried again.
            programs = _compiled(*key, settings)
        return programs
    except TypeError:  # A model or a mask that cannot be hashed is compiled afresh in each call.
        return _compiled.__wrapped__(*key, settings)


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
    return check_memory(programs[0], work)


def check_memory(programs: Programs, work: Work) -> int:
    """Bytes that a group's programs need on a device, if it has them.

    Args:
      programs: The group's.
      work: The grid.

    Returns:
      Bytes, the examples among them.

    Raises:
      MemoryError: More than the device has.
    """
    train = 0 if work.plan.streamed else plans.bytes_of(work.splits["train"])
    validation = plans.bytes_of(work.splits["validation"])
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
        raise plans.too_large(need, free, width=work.plan.lane_width, what="The compiled program")
    return need


def chunks(data: Batch) -> Iterator[tuple[Batch, np.ndarray]]:
    """Chunks of the training examples with what counts in them, gathered on the host one at a time.

    Args:
      data: All training examples.

    Yields:
      A chunk, and whether each of its examples counts, ``(examples of a chunk,)``.
    """
    for rows, counts in zip(*map(np.asarray, evaluation.chunk_rows(len(data.inputs))), strict=True):
        yield jax.tree.map(lambda array, rows=rows: array[rows], data), counts


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
    options = {"initialize": jax_settings.FAST_COMPILE}
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
        return jax.vmap(lambda one: step.initialize(task, one, inputs))(hyperparameters)

    def advance(hyperparameters: Any, states: Any, examples: Any, num_steps: Any) -> Any:
        # The examples lie there once; their order, or the choice among the batches of several seeds, is a member's.
        mapped = type(examples)(data=None, order=0, which=0)
        return jax.vmap(
            lambda one, state, examples: step.train(task, one, state, examples, num_steps), in_axes=(0, 0, mapped)
        )(hyperparameters, states, examples)

    def evaluate(hyperparameters: Any, states: Any, previous: Any, train: Any, validation: Any) -> Any:
        def member(one: Any, state: Any, previous: Any, train: Any) -> Any:
            on_train = (
                evaluation.means(train)
                if isinstance(train, Sums)
                else evaluation.score(task, one, state.params, state.model_state, train, validation=False)
            )
            metrics = evaluation.evaluate(task, one, state, previous, on_train, validation)
            metrics, judged = early_stopping.update(task, one, state, metrics)
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
    first = shapes(next(chunks(work.splits["train"])))
    num_chunks = len(evaluation.chunk_rows(len(work.splits["train"].inputs))[0])
    one_chunk = jax.eval_shape(_functions(group.task)["add_up"], hyperparameters, states, *first)
    sums = jax.tree.map(lambda one: jax.ShapeDtypeStruct((*one.shape, num_chunks), one.dtype), one_chunk)
    return arguments | {
        "evaluate": (hyperparameters, states, states.params, sums, validation),
        "add_up": (hyperparameters, states, *first),
    }
