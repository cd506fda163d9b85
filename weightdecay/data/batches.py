"""Which examples each step sees, and where they come from.

The order is a stream of shuffled epochs, cut into batches; it follows from a member's seed, its fold and the step
alone, and members with the same of these share it. The examples lie on each device once, or, where they are too many,
come from the host a stretch of steps at a time: the same batches in the same order.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from weightdecay.core import random_streams
from weightdecay.core.jax_settings import FAST_COMPILE, setting
from weightdecay.core.types import Batch

_KEPT_BYTES = 64 * 2**20  # of epochs' orders


class Examples(NamedTuple):
    """What some steps are trained on.

    Attributes:
      data: All training examples; or, with ``which``, batches ``(seeds, steps, batch, ...)``.
      order: Example numbers, ``(steps, batch)``; None = every step sees all examples, or the batches are cut already.
      which: Place of the member's batches among the seeds, shape ``()``; None = ``data`` holds all examples.
    """

    data: Batch
    order: Any
    which: Any

    def at(self, index: Any) -> Batch:
        """Return the batch of a step, counted from the first of these steps."""
        if self.which is not None:
            return jax.tree.map(lambda array: jnp.asarray(array)[self.which, index], self.data)
        if self.order is None:
            return jax.tree.map(jnp.asarray, self.data)
        rows = jnp.asarray(self.order)[index]
        return jax.tree.map(lambda array: jnp.asarray(array)[rows], self.data)


class Orders:
    """Order of the examples by seed and fold; an epoch is shuffled once, whoever asks for it."""

    def __init__(self, batch_size: int, data: Batch) -> None:
        """Take the training examples; a step takes ``batch_size`` of those that do not validate the member."""
        self._batch_size = batch_size
        kept = max(4, _KEPT_BYTES // (4 * len(data.inputs)))
        self._rows = functools.cache(functools.partial(_all_but, data))
        self._epoch = functools.lru_cache(maxsize=kept)(self._shuffled)

    def __call__(self, stream: Sequence[int] | np.ndarray, start: int, num_steps: int) -> np.ndarray:
        """Example numbers of some steps.

        Every example comes once an epoch; a batch may span two epochs.

        Args:
          stream: A member's seed and fold, -1 = none.
          start: First step.
          num_steps: How many.

        Returns:
          int32, shape ``(num_steps, batch_size)``.
        """
        seed, fold = map(int, stream)
        num_examples = len(self._rows(fold))
        first, last = start * self._batch_size, (start + num_steps) * self._batch_size
        epochs = range(first // num_examples, -(-last // num_examples))
        order = np.concatenate([self._epoch(seed, fold, epoch) for epoch in epochs])
        offset = first - epochs.start * num_examples
        return order[offset : offset + last - first].reshape(num_steps, self._batch_size)

    def _shuffled(self, seed: int, fold: int, epoch: int) -> np.ndarray:
        rows = self._rows(fold)
        shuffle = _shuffle(len(rows), setting("enable_x64"))
        return rows[np.asarray(shuffle(np.int32(seed), np.int32(epoch)))]


class OnDevice:
    """Batches taken, in the compiled program, from training examples that lie on the device."""

    def __init__(self, data: Batch, batch_size: int | None) -> None:
        """Take all training examples; ``batch_size`` None = every step sees all of them."""
        self._data = data
        self._orders = None if batch_size is None else Orders(batch_size, data)

    def shared(self) -> Batch:
        """What every stretch on a device needs, to be put there once."""
        return self._data

    def stretch(self, shared: Any, streams: np.ndarray, start: int, num_steps: int, longest: int) -> Examples:
        """Examples of some steps of a lane.

        Args:
          shared: As it lies on the device.
          streams: Seeds and folds of the members, ``(members, 2)``.
          start: First step.
          num_steps: How many.
          longest: Room in steps; what is beyond ``num_steps`` is 0.

        Returns:
          The examples, with an order a member.
        """
        if self._orders is None:
            return Examples(shared, None, None)
        return Examples(shared, _padded([self._orders(stream, start, num_steps) for stream in streams], longest), None)


class FromHost:
    """Batches gathered on the host for a stretch of steps; members with one stream share them."""

    def __init__(self, data: Batch, batch_size: int, num_streams: int) -> None:
        """Take all training examples, and how many streams a lane may hold at the most."""
        self._data, self._num_streams = data, num_streams
        self._orders = Orders(batch_size, data)

    def shared(self) -> None:
        """Nothing lies on the device."""

    def stretch(self, shared: Any, streams: np.ndarray, start: int, num_steps: int, longest: int) -> Examples:
        """Examples of some steps of a lane, as `OnDevice.stretch` has them: the batches, and which are a member's."""
        distinct, which = np.unique(streams, axis=0, return_inverse=True)
        orders = _padded([self._orders(stream, start, num_steps) for stream in distinct], longest)
        room = [(0, self._num_streams - len(distinct))]
        orders = np.pad(orders, room + [(0, 0)] * (orders.ndim - 1))
        gathered = jax.tree.map(lambda array: array[orders], self._data)
        return Examples(gathered, None, which.astype(np.int32))


def _all_but(data: Batch, fold: int) -> np.ndarray:
    """Numbers of the examples outside a fold, int32."""
    num_examples = len(data.inputs)
    return (np.arange(num_examples) if data.fold is None else np.flatnonzero(data.fold != fold)).astype(np.int32)


def _padded(orders: Sequence[np.ndarray], longest: int) -> np.ndarray:
    stacked = np.stack(orders)
    return np.pad(stacked, [(0, 0), (0, longest - stacked.shape[1]), (0, 0)])


@functools.lru_cache(maxsize=16)
def _shuffle(num_examples: int, x64: bool) -> Any:
    """Compiled shuffle of an epoch; one program whatever thread runs it."""
    shuffle = functools.partial(random_streams.epoch_order, num_examples=num_examples)
    return jax.jit(shuffle, compiler_options=FAST_COMPILE).lower(np.int32(0), np.int32(0)).compile()
