"""Times of the parts of one training step: initialize, forward, loss, backward and update, each compiled separately.

The parts, one after the other, compute what `weightdecay.training.step.train_step` computes as one program.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float

from weightdecay.core import random_streams
from weightdecay.core.types import Batch, Integer, Params, Scalar
from weightdecay.data import Data
from weightdecay.decay import Rule, masks, optimizers
from weightdecay.training import step
from weightdecay.training import task as tasks
from weightdecay.training.task import Hyperparameters, State, Task

PARTS = ("initialize", "forward", "loss", "backward", "update")
"""Parts of a training step, in order; initialize occurs once per run."""

WHOLE = "whole step"
"""Forward, loss, backward and update as one compiled program, which is how members train."""


@dataclass(frozen=True)
class StepTimes:
    """Times of the parts of a training step.

    Attributes:
      seconds: Time of each part and of the `WHOLE`, by name; the median over the calls of each round, shape
        ``(rounds,)``.
      difference: Largest absolute difference between the weights after the parts and those after the whole step.
      learning_rate: Learning rate of the step; Adam moves a weight by about this value.
      before: Weights before the step.
      after: Weights after the parts.
    """

    seconds: dict[str, Float[np.ndarray, " rounds"]]
    difference: float
    learning_rate: float
    before: Params
    after: Params


def parts_of_a_step(
    model: Any,
    data: Data,
    *,
    decay: Rule,
    learning_rate: Scalar,
    batch_size: Integer,
    seed: Integer = 0,
    rounds: Integer = 7,
    calls: Integer = 20,
) -> StepTimes:
    """Measure the parts of one training step of one member, with Adam.

    Each part is a compiled program, so that its time includes the time of the call, some tens of microseconds on a CPU.
    XLA cannot fuse operations of two parts, so that the whole step can be faster than their sum.

    Args:
      model: A network without state, as in `weightdecay.fit_grid`.
      data: Examples; the first ``batch_size`` training examples are the batch.
      decay: The rule.
      learning_rate: Learning rate, > 0.
      batch_size: Number of examples of the step.
      seed: Seed of the initial weights.
      rounds: Number of rounds, at least 1. A round measures each part once, so that a disturbance affects all parts.
      calls: Number of calls of each part per round, at least 1.

    Returns:
      The times without compilation; each call is measured until its outputs are ready.

    Examples:
      >>> from weightdecay import data, decay, models
      >>> times = parts_of_a_step(
      ...     models.MLP((8,)), data.digits(), decay=decay.L2(0.01), learning_rate=1e-3, batch_size=9, rounds=2, calls=1
      ... )
      >>> list(times.seconds)
      ['initialize', 'forward', 'loss', 'backward', 'update', 'whole step']
    """
    splits = data.with_class_indices().batches()
    task = tasks.prepare(
        model, splits, loss=None, optimizer=optimizers.adam, mask=masks.kernels, batch_size=int(batch_size)
    )
    hyperparameters = Hyperparameters(
        decay=jax.tree.map(jnp.float32, decay),
        learning_rate=jnp.float32(learning_rate),
        seed=jnp.int32(seed),
        optimizer={},
        training={},
        network={},
    )
    batch = jax.tree.map(lambda array: jnp.asarray(array[: int(batch_size)]), splits["train"])
    programs, before, after = _programs(task, hyperparameters, batch)
    after_whole = programs[WHOLE]()
    differences = jax.tree.map(lambda left, right: jnp.abs(left - right).max(), after, after_whole.params)
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            seconds[name].append(float(np.median([_seconds(program) for _ in range(calls)])))
    return StepTimes(
        {name: np.array(values) for name, values in seconds.items()},
        float(max(jax.tree.leaves(differences))),
        float(learning_rate),
        before,
        after,
    )


def _programs(
    task: Task, hyperparameters: Hyperparameters, batch: Batch
) -> tuple[dict[str, Callable[[], Any]], Params, Params]:
    """Each part as a function that calls its compiled program; and the weights before and after the step."""
    network, key = task.network(), random_streams.constant_key()

    @jax.jit
    def initialize(hyperparameters: Hyperparameters, batch: Batch) -> State:
        return step.initialize(task, hyperparameters, batch.inputs)

    @jax.jit
    def forward(state: State, batch: Batch) -> Any:
        def outputs(params: Any) -> Any:
            made, _ = network.apply(params, state.model_state, batch.inputs, key=key, train=True, hyperparameters={})
            return task.loss.align(made, batch.targets)

        return jax.vjp(outputs, state.params)

    @jax.jit
    def loss(outputs: Any, batch: Batch) -> Any:
        return jax.vjp(lambda outputs: task.loss.per_example(outputs, batch.targets).mean(), outputs)

    @jax.jit
    def backward(value: Any, through_loss: Any, through_network: Any) -> Any:
        return through_network(*through_loss(jnp.ones_like(value)))[0]

    @jax.jit
    def update(hyperparameters: Hyperparameters, gradients: Any, state: State) -> Any:
        updates, optimizer_state = task.transformation(hyperparameters).update(
            gradients, state.optimizer_state, state.params
        )
        return optax.apply_updates(state.params, updates), optimizer_state

    @jax.jit
    def whole(hyperparameters: Hyperparameters, state: State, batch: Batch) -> State:
        return step.train_step(task, hyperparameters, state, batch)[0]

    state = initialize(hyperparameters, batch)
    outputs, through_network = forward(state, batch)
    value, through_loss = loss(outputs, batch)
    gradients = backward(value, through_loss, through_network)
    params, _ = update(hyperparameters, gradients, state)
    programs: dict[str, Callable[[], Any]] = {
        "initialize": lambda: initialize(hyperparameters, batch),
        "forward": lambda: forward(state, batch),
        "loss": lambda: loss(outputs, batch),
        "backward": lambda: backward(value, through_loss, through_network),
        "update": lambda: update(hyperparameters, gradients, state),
        WHOLE: lambda: whole(hyperparameters, state, batch),
    }
    return programs, state.params, params


def _seconds(program: Callable[[], Any]) -> float:
    started = time.perf_counter()
    jax.block_until_ready(program())
    return time.perf_counter() - started
