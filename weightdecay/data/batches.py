"""The batches of each training step, and where they are stored.

The order is a sequence of shuffled epochs, divided into batches. It follows from a member's seed, its fold and the step
alone. The examples are stored on each device once; if they are too large for this, each segment of steps receives its
batches from the host. Both give the same batches in the same order.
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
from weightdecay.data import on_disk

_KEPT_BYTES = 64 * 2**20  # for orders of epochs in memory


class Examples(NamedTuple):
    """The examples of a segment of steps.

    Attributes:
      data: All training examples; or, with ``stream``, batches ``(streams, steps, batch, ...)``.
      order: Indices of examples, ``(steps, batch)``; None = every step takes all examples, or ``data`` has batches.
      stream: Index of the member's batches among the streams, shape ``()``; None = ``data`` has all examples.
    """

    data: Batch
    order: Any
    stream: Any

    def at(self, index: Any) -> Batch:
        """Return the batch of a step, counted from the first step of the segment."""
        if self.stream is not None:
            return jax.tree.map(lambda array: jnp.asarray(array)[self.stream, index], self.data)
        if self.order is None:
            return jax.tree.map(jnp.asarray, self.data)
        rows = jnp.asarray(self.order)[index]
        return jax.tree.map(lambda array: jnp.asarray(array)[rows], self.data)


class Orders:
    """Order of the examples for each seed and fold; the order of an epoch is computed once and kept."""

    def __init__(self, batch_size: int, data: Batch) -> None:
        """Store the training examples; a step takes ``batch_size`` of those that do not validate the member."""
        self._batch_size = batch_size
        kept = max(4, _KEPT_BYTES // (4 * data.num_examples))
        self._rows = functools.cache(functools.partial(_all_but, data))
        self._epoch = functools.lru_cache(maxsize=kept)(self._shuffled)

    def __call__(self, stream: Sequence[int] | np.ndarray, start: int, num_steps: int) -> np.ndarray:
        """Indices of the examples of some steps.

        Every example occurs once in each epoch; a batch may span two epochs.

        Args:
          stream: A member's seed and fold; the fold is -1 without folds. A third number is that of its examples, the
            first of those that it could take.
          start: First step.
          num_steps: Number of steps.

        Returns:
          int32, shape ``(num_steps, batch_size)``.
        """
        seed, fold, *limit = map(int, stream)
        num_examples = limit[0] if limit else len(self._rows(fold))
        first, last = start * self._batch_size, (start + num_steps) * self._batch_size
        epochs = range(first // num_examples, -(-last // num_examples))
        order = np.concatenate([self._epoch(seed, fold, num_examples, epoch) for epoch in epochs])
        offset = first - epochs.start * num_examples
        return order[offset : offset + last - first].reshape(num_steps, self._batch_size)

    def _shuffled(self, seed: int, fold: int, num_examples: int, epoch: int) -> np.ndarray:
        rows = self._rows(fold)[:num_examples]
        shuffle = _shuffle(len(rows), setting("enable_x64"))
        return rows[np.asarray(shuffle(np.int32(seed), np.int32(epoch)))]


class OnDevice:
    """Batches that the compiled program takes from training examples on the device."""

    def __init__(self, data: Batch, batch_size: int | None) -> None:
        """Store all training examples; ``batch_size`` None = every step takes all of them."""
        self._data = jax.tree.map(on_disk.in_memory, data)
        self._orders = None if batch_size is None else Orders(batch_size, data)

    def shared(self) -> Batch:
        """Return what all segments on a device share; it is copied to the device once."""
        return self._data

    def segment(self, shared: Any, streams: np.ndarray, start: int, num_steps: int, longest: int) -> Examples:
        """Return the examples of a segment of steps of a lane.

        Args:
          shared: What `shared` returned, on the device.
          streams: Seeds and folds of the members, ``(members, 2)``.
          start: First step.
          num_steps: Number of steps.
          longest: Number of steps for which there is room; entries after ``num_steps`` are 0.

        Returns:
          The examples, with one order for each member.
        """
        if self._orders is None:
            return Examples(shared, None, None)
        return Examples(shared, _padded([self._orders(stream, start, num_steps) for stream in streams], longest), None)


class FromHost:
    """Batches that the host gathers for a segment of steps; members of the same stream share them."""

    def __init__(self, data: Batch, batch_size: int, num_streams: int) -> None:
        """Store all training examples, and the largest number of streams in a lane."""
        self._data, self._num_streams = data, num_streams
        self._orders = Orders(batch_size, data)

    def shared(self) -> None:
        """Return None: segments share nothing on the device."""

    def segment(self, shared: Any, streams: np.ndarray, start: int, num_steps: int, longest: int) -> Examples:
        """Return the batches of a segment of steps of a lane; the arguments are those of `OnDevice.segment`."""
        distinct, stream = np.unique(streams, axis=0, return_inverse=True)
        orders = _padded([self._orders(stream, start, num_steps) for stream in distinct], longest)
        room = [(0, self._num_streams - len(distinct))]
        orders = np.pad(orders, room + [(0, 0)] * (orders.ndim - 1))
        gathered = jax.tree.map(lambda array: array[orders], self._data)
        return Examples(gathered, None, stream.astype(np.int32))


def _all_but(data: Batch, fold: int) -> np.ndarray:
    """Indices of the examples outside a fold, int32."""
    num_examples = data.num_examples
    return (np.arange(num_examples) if data.fold is None else np.flatnonzero(data.fold != fold)).astype(np.int32)


def _padded(orders: Sequence[np.ndarray], longest: int) -> np.ndarray:
    stacked = np.stack(orders)
    return np.pad(stacked, [(0, 0), (0, longest - stacked.shape[1]), (0, 0)])


@functools.lru_cache(maxsize=16)
def _shuffle(num_examples: int, x64: bool) -> Any:
    """Compile the shuffle of an epoch; all threads use the same program."""
    shuffle = functools.partial(random_streams.epoch_order, num_examples=num_examples)
    return jax.jit(shuffle, compiler_options=FAST_COMPILE).lower(np.int32(0), np.int32(0)).compile()
