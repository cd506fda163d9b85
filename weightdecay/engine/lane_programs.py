"""Programs that compute a lane: the only file in which members are batched.

Functions of one member become functions of a lane of members. They are traced and compiled once a group, in the
background. Compiled programs are kept for the next call, the least recently used ones are dropped.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import eval_jaxpr
from jax.sharding import SingleDeviceSharding

from weightdecay.core import jax_settings
from weightdecay.core.types import Batch, Device
from weightdecay.data.batches import FromHost, OnDevice
from weightdecay.engine import devices, executables, mesh_programs, plans
from weightdecay.engine.groups import TrainingGroup
from weightdecay.engine.placements import OneDevice, Placement
from weightdecay.engine.preparation import TrainingRun
from weightdecay.training import early_stopping, evaluation, step
from weightdecay.training.losses import Loss
from weightdecay.training.task import Hyperparameters, Task

_KEPT_GROUPS = 16  # groups whose programs are kept in memory; those of a small network take some 15 MB a device


_NUMBERS = Hyperparameters._make([0] * (len(Hyperparameters._fields) - 1) + [None])  # frozen is the last
"""Axis along which the hyperparameters of a lane are mapped; its members share the frozen weights."""


class Programs(NamedTuple):
    """Compiled functions of a group on one device, each over a lane of members.

    Attributes:
      initialize: ``(hyperparameters, one input, given weights) -> states``.
      advance: ``(hyperparameters, states, examples, num_steps) -> (states, weights before the last step, failed)``.
      repeat: ``(hyperparameters, states, weights before the last step, failed, examples, num_steps) -> (states, weights
        before the last step)``, for members with a number that was not finite; see `executables.SharedPrograms`.
      evaluate: ``(hyperparameters, states, weights before the last step, training examples or their sums, validation
        examples) -> (metrics, stopped_at, best)``.
      add_up: ``(hyperparameters, states, chunk, counts) -> sums`` over a chunk of the training examples, by the prefix
        of the weights' metrics; None where they are kept on the device.
    """

    initialize: Any
    advance: Any
    repeat: Any
    evaluate: Any
    add_up: Any = None


def compiled(run: TrainingRun, group: TrainingGroup, source: OnDevice | FromHost) -> list[Future[Programs]]:
    """Compile the programs of a group: traced once, here, and compiled in the background for each device.

    Args:
      run: The prepared run.
      group: One of its groups.
      source: Where the batches come from.

    Returns:
      The programs to come, in the order of the devices; on a mesh, one for all its devices.
    """
    arguments = _arguments(run, group, source)
    leaves, structure = jax.tree.flatten(arguments)
    settings = tuple(jax_settings.numeric().values())
    placements = run.placements(group)
    task = replace(group.task, batch_sharding=placements[0].batch_sharding)
    key = task, structure, tuple(leaves), placements
    try:
        programs = _compiled(*key, settings)
        if any(program.done() and program.exception() for program in programs):
            _compiled.cache_clear()  # What failed once, perhaps because memory ran out, may be tried again.
            programs = _compiled(*key, settings)
        return programs
    except TypeError:  # A model or a mask that cannot be hashed is compiled again in each call.
        return _compiled.__wrapped__(*key, settings)


def compile_first(run: TrainingRun) -> int:
    """Compile the programs of the first group on every device.

    Args:
      run: The prepared run.

    Returns:
      Bytes that a device needs.

    Raises:
      MemoryError: The device has fewer.
    """
    with devices.kept_programs():
        programs = [future.result() for future in compiled(run, run.groups[0], run.source)]
    return check_memory(programs[0], run)


def check_memory(programs: Programs, run: TrainingRun) -> int:
    """Check that the programs of a group fit into the memory of a device.

    Args:
      programs: The programs of the group.
      run: The prepared run.

    Returns:
      Bytes that they need on a device, including the examples.

    Raises:
      MemoryError: The device has fewer.
    """
    train = 0 if run.plan.streamed else plans.bytes_of(run.splits["train"])
    validation = plans.bytes_of(run.splits["validation"])
    # The examples stay on the device all the time, and are arguments of some programs as well.
    counted = {"advance": train, "evaluate": train + validation}
    needs = []
    for name, program in programs._replace(repeat=None)._asdict().items():
        used = None if program is None else program.memory_analysis()
        if used is not None:
            arguments = used.argument_size_in_bytes - counted.get(name, 0)
            needs.append(arguments + used.output_size_in_bytes - used.alias_size_in_bytes + used.temp_size_in_bytes)
    need = train + validation + max(needs, default=0)
    free = devices.free_memory(run.devices[0])
    if free is not None and need > free:
        raise plans.too_large(need, free, width=run.plan.lane_width, what="The compiled program")
    return need


def chunks(loss: Loss, data: Batch) -> Iterator[tuple[Batch, np.ndarray]]:
    """Cut the training examples into chunks, gathered on the host one at a time.

    Args:
      loss: What is computed of each example.
      data: All training examples.

    Yields:
      A chunk, and whether each of its examples counts, bool, shape ``(examples of a chunk,)``.
    """
    for rows, counts in zip(*map(np.asarray, evaluation.chunk_rows(loss, data)), strict=True):
        yield jax.tree.map(lambda array, rows=rows: array[rows], data), counts


def compiled_function(
    traced: Any, numbers: Sequence[np.ndarray], lane_width: int, targets: Sequence[Device]
) -> list[Future[tuple[Any, Any]]]:
    """Compile a traced function of one member for lanes of members, in the background for each device.

    Args:
      traced: A closed jaxpr of one member, whose inputs are ``numbers`` of that member.
      numbers: Traced numbers of all members, each of shape ``(members,)``.
      lane_width: Members that the program computes at once.
      targets: Devices to compile for.

    Returns:
      For each device ``(program, constants)`` to come: ``program(constants, numbers of a lane)`` returns the outputs,
      each of shape ``(lane_width, ...)``; the constants are the arrays that the function closes over, on the device.
    """
    lane = jax.vmap(lambda constants, inputs: eval_jaxpr(traced.jaxpr, constants, *inputs), in_axes=(None, 0))

    jitted = jax.jit(lane)
    constants = {device: jax.device_put(traced.consts, device) for device in targets}

    def lower(device: Device) -> dict[str, Any]:
        on_device = SingleDeviceSharding(device)
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_device), constants[device]
        )
        inputs = [jax.ShapeDtypeStruct((lane_width,), column.dtype, sharding=on_device) for column in numbers]
        return {"lane": jitted.lower(shapes, inputs)}

    return executables.compiled(lower, targets, lambda programs, device: (programs["lane"], constants[device]))


def clear() -> None:
    """Drop all compiled programs that are kept in memory."""
    _compiled.cache_clear()


@functools.lru_cache(maxsize=_KEPT_GROUPS)
def _compiled(
    task: Task,
    structure: Any,
    leaves: Sequence[jax.ShapeDtypeStruct],
    placements: tuple[Placement, ...],
    settings: Any,
) -> list[Future[Programs]]:
    """Compile the programs for each placement; ``settings`` are the settings of JAX that a program depends on."""
    functions = _functions(task, placements[0].member_axis)
    options = {"initialize": jax_settings.FAST_COMPILE}
    donated = {"advance": 1, "repeat": 1}
    jit = lambda name, **shardings: jax.jit(  # noqa: E731
        functions[name], compiler_options=options.get(name), donate_argnums=donated.get(name, ()), **shardings
    )
    names = [name for name in structure.unflatten(leaves) if name != "repeat"]
    if not isinstance(placements[0], OneDevice):
        arguments = structure.unflatten(leaves)
        lower_on_mesh = functools.partial(mesh_programs.lowered, jit, arguments, placements[0])
        repeat = functools.cache(lambda: lower_on_mesh(["repeat"])["repeat"].compile())
        return [executables.in_background(lower_on_mesh(names), lambda programs: Programs(**programs, repeat=repeat))]
    jitted = {name: jit(name) for name in functions}

    def lower(names: Sequence[str], device: Device) -> dict[str, Any]:
        on_device = SingleDeviceSharding(device)
        placed = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=on_device) for leaf in leaves]
        arguments = structure.unflatten(placed)
        return {name: jitted[name].lower(*arguments[name]) for name in names}

    on_demand = executables.SharedPrograms(functools.partial(lower, ["repeat"]))
    return executables.compiled(
        functools.partial(lower, names),
        [placement.device for placement in placements],
        lambda programs, device: Programs(**programs, repeat=lambda: on_demand.on(device)["repeat"]),
    )


def _functions(task: Task, member_axis: str | None = None) -> dict[str, Callable[..., Any]]:
    """Functions of a lane that are compiled, by the names of `Programs`."""
    vmap = functools.partial(jax.vmap, spmd_axis_name=member_axis)

    def initialize(hyperparameters: Any, inputs: Any, start: Any) -> Any:
        return vmap(lambda numbers: step.initialize(task, numbers, inputs, start), in_axes=(_NUMBERS,))(hyperparameters)

    def advance(hyperparameters: Any, states: Any, examples: Any, num_steps: Any) -> Any:
        # All members share the examples; the order, or the choice among the batches of several seeds, is per member.
        mapped = type(examples)(data=None, order=0, stream=0)
        return vmap(
            lambda numbers, state, examples: step.train(task, numbers, state, examples, num_steps),
            in_axes=(_NUMBERS, 0, mapped),
        )(hyperparameters, states, examples)

    def repeat(hyperparameters: Any, states: Any, previous: Any, failed: Any, examples: Any, num_steps: Any) -> Any:
        mapped = type(examples)(data=None, order=0, stream=0)
        return vmap(
            lambda numbers, state, previous, failed, examples: step.repeat(
                task, numbers, state, previous, failed, examples, num_steps
            ),
            in_axes=(_NUMBERS, 0, 0, 0, mapped),
        )(hyperparameters, states, previous, failed, examples)

    def evaluate(hyperparameters: Any, states: Any, previous: Any, train: Any, validation: Any) -> Any:
        def member(numbers: Any, state: Any, previous: Any, train: Any) -> Any:
            on_train = (
                evaluation.results(task, train)
                if isinstance(train, dict)
                else evaluation.scores(task, numbers, state, train, validation=False)
            )
            metrics = evaluation.evaluate(task, numbers, state, previous, on_train, validation)
            metrics, judged = early_stopping.update(task, numbers, state, metrics)
            return metrics, judged.stopped_at, judged.best

        in_axes = (_NUMBERS, 0, 0, 0 if isinstance(train, dict) else None)
        return vmap(member, in_axes=in_axes)(hyperparameters, states, previous, train)

    def add_up(hyperparameters: Any, states: Any, chunk: Any, counts: Any) -> Any:
        return vmap(
            lambda numbers, state: {
                prefix: evaluation.chunk_sums(task, numbers, *weights, chunk, counts)
                for prefix, weights in evaluation.weights_of(state).items()
            },
            in_axes=(_NUMBERS, 0),
        )(hyperparameters, states)

    return {"initialize": initialize, "advance": advance, "repeat": repeat, "evaluate": evaluate, "add_up": add_up}


def _arguments(run: TrainingRun, group: TrainingGroup, source: OnDevice | FromHost) -> dict[str, tuple[Any, ...]]:
    """Arguments of each function, as shapes."""
    width = run.program_width

    def wide(tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((width, *leaf.shape), leaf.dtype), tree)

    def shapes(tree: Any) -> Any:
        dtype = jax.dtypes.canonicalize_dtype
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype(leaf.dtype)), tree)

    one = group.one()
    hyperparameters = wide(one._replace(frozen=None))._replace(frozen=one.frozen)
    states, validation = wide(group.state), shapes(run.splits["validation"])
    streams = group.streams(np.resize(np.arange(len(group.indices)), width))
    examples = shapes(source.segment(source.shared(), streams, 0, 1, run.longest_segment))
    number = jax.ShapeDtypeStruct((), np.int32)
    arguments: dict[str, tuple[Any, ...]] = {
        "initialize": (
            hyperparameters,
            shapes(run.splits["train"].first().inputs),
            shapes(group.start._replace(frozen=None)),
        ),
        "advance": (hyperparameters, states, examples, number),
        "repeat": (hyperparameters, states, states.params, wide(number), examples, number),
    }
    if isinstance(source, OnDevice):
        train = shapes(run.splits["train"])
        return arguments | {"evaluate": (hyperparameters, states, states.params, train, validation)}
    loss, train = group.task.loss, run.splits["train"]
    first, num_chunks = shapes(next(chunks(loss, train))), len(evaluation.chunk_rows(loss, train)[0])
    one_chunk = jax.eval_shape(_functions(group.task)["add_up"], hyperparameters, states, *first)
    of_chunks = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((width, num_chunks, *leaf.shape[1:]), leaf.dtype), one_chunk
    )
    sums = jax.eval_shape(lambda of_chunks: evaluation.joined(of_chunks, train.num_examples, axis=1), of_chunks)
    return arguments | {
        "evaluate": (hyperparameters, states, states.params, sums, validation),
        "add_up": (hyperparameters, states, *first),
    }
