"""What training gives back, written to disk as lanes end, so that memory does not grow with the grid.

`Records` holds the metrics and the weights of every member in unnamed temporary files, which vanish with the result.
"""

import os
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

_MARKS = ("diverged_at", "stopped_at", "best_step")


class Weights(Sequence[Any]):
    """Trees of arrays by place, in one temporary file; a tree is read when it is asked for."""

    def __init__(self, num_members: int) -> None:
        """Make room for a tree a member."""
        self._file = tempfile.TemporaryFile()
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._end = 0
        self._where: list[tuple[int, int] | None] = [None] * num_members
        self._layouts: list[tuple[Any, list[tuple[tuple[int, ...], np.dtype]]]] = []

    def write(self, place: int, tree: Any) -> None:
        """Keep the tree of a member; other threads may write at the same time.

        Args:
          place: The member's.
          tree: NumPy arrays.
        """
        leaves, structure = jax.tree.flatten(tree)
        layout = structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
        content = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
        with self._lock:
            if layout not in self._layouts:
                self._layouts.append(layout)
            self._file.seek(self._end)
            self._file.write(content)
            self._where[place] = self._layouts.index(layout), self._end
            self._end += len(content)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._where)

    def __getitem__(self, index: Any) -> Any:
        """Return a member's tree."""
        where = self._where[index]
        if where is None:
            raise ValueError(
                f"member {index} has no weights: the run was interrupted before its turn; go on with the same call."
            )
        structure, shapes = self._layouts[where[0]]
        sizes = [int(np.prod(shape)) * dtype.itemsize for shape, dtype in shapes]
        with self._lock:
            self._file.seek(where[1])
            content = self._file.read(sum(sizes))
        ends = np.cumsum(sizes)
        return structure.unflatten(
            np.frombuffer(content[end - size : end], dtype).reshape(shape).copy()
            for (shape, dtype), size, end in zip(shapes, sizes, ends, strict=True)
        )


class Records:
    """Metrics and weights of the members of a grid.

    Attributes:
      metrics: By name, float32 on disk, shape ``(members, steps)`` or ``(members, steps, layers)``; nan where nothing
        is written.
      layers: Names of the arrays of weights that decay, of all members.
      marks: By name, int32, shape ``(members,)``: ``diverged_at`` and ``stopped_at``, -1 for never, and ``best_step``,
        the evaluation that a member with patience is kept from, -1 where all steps count.
      weights: ``(params, model_state)`` of each member.
    """

    def __init__(self, num_members: int, num_steps: int, layers: Sequence[str] = ()) -> None:
        """Make room for the members of a grid, each with some evaluations; ``layers`` are those of any of them."""
        self._shape = num_members, num_steps
        self.layers = list(layers)
        self._lock = threading.Lock()
        self.metrics: dict[str, np.ndarray] = {}
        self.marks = {name: np.full(num_members, -1, np.int32) for name in _MARKS}
        self.weights = Weights(num_members)

    def write_metrics(
        self, places: np.ndarray, step: int, metrics: Mapping[str, np.ndarray], layers: Sequence[str] = ()
    ) -> None:
        """Keep one evaluation of some members.

        Args:
          places: Of the members, ``(some,)``.
          step: Which evaluation, from 0.
          metrics: By name, each ``(at least some,)`` or ``(at least some, layers)``; what is beyond the places is left
            out.
          layers: Names of the members' layers.
        """
        columns = self._columns(layers)
        with self._lock:
            for name, values in metrics.items():
                by_layer = np.ndim(values) == 2
                if name not in self.metrics:
                    self.metrics[name] = _on_disk((*self._shape, len(self.layers)) if by_layer else self._shape)
                if by_layer:
                    self.metrics[name][places[:, None], step, columns] = values[: len(places)]
                else:
                    self.metrics[name][places, step] = values[: len(places)]

    def rows(self, places: np.ndarray, num_steps: int, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """First evaluations of some members.

        Args:
          places: Of the members, ``(some,)``.
          num_steps: How many evaluations.
          layers: Names of the members' layers.

        Returns:
          By name, each ``(some, num_steps)``, or ``(some, num_steps, layers)``.
        """
        columns = self._columns(layers)
        found = {name: np.array(values[places, :num_steps]) for name, values in self.metrics.items()}
        return {name: values[..., columns] if values.ndim == 3 else values for name, values in found.items()}

    def write_members(self, places: np.ndarray, states: Any, layers: Sequence[str] = (), *, last: bool) -> None:
        """Keep some members as they are now.

        Args:
          places: Of the members, ``(some,)``.
          states: `weightdecay.training.task.State` with NumPy arrays, each ``(at least some, ...)``.
          layers: Names of the members' layers.
          last: Whether they have all their steps behind them: of a member with patience, the last evaluation then is
            that of its best weights, which are kept.
        """
        some = len(places)
        for name, marks in self.marks.items():
            if hasattr(states, name):
                marks[places] = getattr(states, name)[:some]
        if states.best is not None:
            self.marks["best_step"][places] = states.best.step[:some]
            if last:
                dead = states.diverged_at >= 0
                best = {
                    name: np.where(dead.reshape(-1, *[1] * (np.ndim(values) - 1)), np.nan, values)
                    for name, values in states.best.metrics.items()
                }
                self.write_metrics(places, self._shape[1] - 1, best, layers)
        for slot, place in enumerate(places):
            alone = jax.tree.map(lambda leaf, slot=slot: np.asarray(leaf[slot]), states)
            self.weights.write(int(place), jax.tree.map(np.asarray, alone.result()))

    def _columns(self, layers: Sequence[str]) -> list[int]:
        return [self.layers.index(layer) for layer in layers]


def _on_disk(shape: tuple[int, ...]) -> np.ndarray:
    with tempfile.TemporaryFile() as file:  # the map keeps it
        file.truncate(max(1, int(np.prod(shape)) * 4))
        file.seek(0, os.SEEK_SET)
        metric = np.memmap(file, np.float32, "r+", shape=shape)
    metric[:] = np.nan
    return metric
