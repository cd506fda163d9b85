"""Which examples each step sees, and where they come from.

The order is a stream of shuffled epochs, cut into batches; it follows from a member's seed and the step alone, and
members with one seed share it. The examples lie on each device once, or, where they are too many, come from the host a
stretch of steps at a time: the same batches in the same order.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from weightdecay import backend, training
from weightdecay.training import Examples
from weightdecay.types import Batch

_KEPT_BYTES = 64 * 2**20  # of epochs' orders
# Random numbers take the compiler long and the machine no time: compile them with little optimization.
RUN_ONCE = {"xla_backend_optimization_level": 1}


class Orders:
    """Order of the examples by seed; an epoch is shuffled once, whoever asks for it."""

    def __init__(self, batch_size: int, num_examples: int) -> None:
        """Compile the shuffle of ``num_examples`` examples; a step takes ``batch_size`` of them."""
        self._batch_size, self._num_examples = batch_size, num_examples
        shuffle = _shuffle(num_examples, backend.setting("enable_x64"))
        kept = max(4, _KEPT_BYTES // (4 * num_examples))
        self._epoch = functools.lru_cache(maxsize=kept)(
            lambda seed, epoch: np.asarray(shuffle(np.int32(seed), np.int32(epoch)))
        )

    def __call__(self, seed: int, start: int, num_steps: int) -> np.ndarray:
        """Example numbers of some steps.

        Every example comes once an epoch; a batch may span two epochs.

        Args:
          seed: A member's.
          start: First step.
          num_steps: How many.

        Returns:
          int32, shape ``(num_steps, batch_size)``.
        """
        first, last = start * self._batch_size, (start + num_steps) * self._batch_size
        epochs = range(first // self._num_examples, -(-last // self._num_examples))
        stream = np.concatenate([self._epoch(seed, epoch) for epoch in epochs])
        offset = first - epochs.start * self._num_examples
        return stream[offset : offset + last - first].reshape(num_steps, self._batch_size)


class OnDevice:
    """Batches taken, in the compiled program, from training examples that lie on the device."""

    def __init__(self, data: Batch, batch_size: int | None) -> None:
        """Take all training examples; ``batch_size`` None = every step sees all of them."""
        self._data = data
        self._orders = None if batch_size is None else Orders(batch_size, len(data.inputs))

    def shared(self) -> Batch:
        """What every stretch on a device needs, to be put there once."""
        return self._data

    def stretch(self, shared: Any, seeds: np.ndarray, start: int, num_steps: int, longest: int) -> Examples:
        """Examples of some steps of a lane.

        Args:
          shared: As it lies on the device.
          seeds: Of the members, ``(members,)``.
          start: First step.
          num_steps: How many.
          longest: Room in steps; what is beyond ``num_steps`` is 0.

        Returns:
          The examples, with an order a member.
        """
        if self._orders is None:
            return Examples(shared, None, None)
        return Examples(shared, _padded([self._orders(int(seed), start, num_steps) for seed in seeds], longest), None)


class FromHost:
    """Batches gathered on the host for a stretch of steps; members with one seed share them."""

    def __init__(self, data: Batch, batch_size: int, num_seeds: int) -> None:
        """Take all training examples, and how many seeds a lane may hold at the most."""
        self._data, self._num_seeds = data, num_seeds
        self._orders = Orders(batch_size, len(data.inputs))

    def shared(self) -> None:
        """Nothing lies on the device."""

    def stretch(self, shared: Any, seeds: np.ndarray, start: int, num_steps: int, longest: int) -> Examples:
        """Examples of some steps of a lane, as `OnDevice.stretch` has them: the batches, and which are a member's."""
        distinct, which = np.unique(seeds, return_inverse=True)
        orders = _padded([self._orders(int(seed), start, num_steps) for seed in distinct], longest)
        room = [(0, self._num_seeds - len(distinct))]
        orders = np.pad(orders, room + [(0, 0)] * (orders.ndim - 1))
        gathered = jax.tree.map(lambda array: array[orders], self._data)
        return Examples(gathered, None, which.astype(np.int32))


def _padded(orders: Sequence[np.ndarray], longest: int) -> np.ndarray:
    stacked = np.stack(orders)
    return np.pad(stacked, [(0, 0), (0, longest - stacked.shape[1]), (0, 0)])


@functools.lru_cache(maxsize=16)
def _shuffle(num_examples: int, x64: bool) -> Any:
    """Compiled shuffle of an epoch; one program whatever thread runs it."""
    shuffle = functools.partial(training.epoch_order, num_examples=num_examples)
    return jax.jit(shuffle, compiler_options=RUN_ONCE).lower(np.int32(0), np.int32(0)).compile()
