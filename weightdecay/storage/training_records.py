"""Metrics and weights of the members of a grid, in temporary files, so that memory does not grow with the grid.

`TrainingRecords` takes them while the members train. The files have no names: they vanish with the result, or with the
process. Their space on the disk is allocated before training, so that a full disk is reported then, and not by a crash
in the middle (a write to a memory-mapped file on a full disk ends the process).
"""

import math
import os
import pickle
import tempfile
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from weightdecay.core import text
from weightdecay.core import tree as trees
from weightdecay.storage.weights import MissingWeights

_MARKS = ("diverged_at", "stopped_at", "best_step")
_CHUNK = 2**24  # bytes written at once, where the system cannot allocate


class RecordedWeights(Sequence[Any]):
    """Trees of arrays by index, in one temporary file; a tree is read when it is accessed.

    Reads are positional (`os.pread`), so that threads and forked processes may read at the same time. A pickled copy
    holds all trees in memory.
    """

    def __init__(self, num_members: int, num_bytes: int = 0) -> None:
        """Allocate the file.

        Args:
          num_members: Number of trees.
          num_bytes: Size of all trees together; more is allocated where it is written.

        Raises:
          OSError: There is no room for them.
        """
        self._file = _allocated(num_bytes)
        weakref.finalize(self, self._file.close)
        self._lock = threading.Lock()
        self._end = 0
        self._positions: list[tuple[int, int] | None] = [None] * num_members  # layout, offset
        self._shared: list[Any] = [None] * num_members
        self._layouts: list[tuple[Any, list[tuple[tuple[int, ...], np.dtype]]]] = []

    def write(self, index: int, tree: Any, shared: Any = None) -> None:
        """Store the tree of a member; other threads may write at the same time.

        Args:
          index: Position of the member in the grid.
          tree: NumPy arrays; None at those that members share.
          shared: Those, in the same structure; kept in memory, and read as part of the tree. None = none.

        Raises:
          OSError: The file cannot be written.
        """
        leaves, structure = jax.tree.flatten(tree)
        layout = structure, [(leaf.shape, leaf.dtype) for leaf in leaves]
        content = b"".join(np.ascontiguousarray(leaf).tobytes() for leaf in leaves)
        with self._lock:
            if layout not in self._layouts:
                self._layouts.append(layout)
            number, before = self._layouts.index(layout), self._positions[index]
            # A tree that is written again takes the place of the first if it is of the same size.
            offset = before[1] if before is not None and before[0] == number else self._end
            self._end = max(self._end, offset + len(content))
            _at_positions(os.pwrite, self._file.fileno(), memoryview(content), offset)
            self._positions[index] = number, offset
            self._shared[index] = shared

    def forget(self, index: int) -> None:
        """Forget the tree of a member.

        Args:
          index: Position of the member in the grid.
        """
        with self._lock:
            self._positions[index] = self._shared[index] = None

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._positions)

    def __getitem__(self, index: Any) -> Any:
        """Return the tree of a member."""
        position = self._positions[index]
        if position is None:
            raise MissingWeights(
                f"member {index} has no weights: it was not trained, because the run was interrupted or because of the "
                "budget. Make the same call again, or without a budget; with a directory it resumes."
            )
        structure, shapes = self._layouts[position[0]]
        sizes = [math.prod(shape) * dtype.itemsize for shape, dtype in shapes]
        content = memoryview(bytearray(sum(sizes)))

        def read(descriptor: int, part: memoryview, offset: int) -> int:
            read = os.pread(descriptor, len(part), offset)
            part[: len(read)] = read
            return len(read)

        _at_positions(read, self._file.fileno(), content, position[1])
        ends = np.cumsum(sizes)
        own = structure.unflatten(
            np.frombuffer(content[end - size : end], dtype).reshape(shape).copy()
            for (shape, dtype), size, end in zip(shapes, sizes, ends, strict=True)
        )
        return trees.first_given(own, self._shared[index])

    def __reduce__(self) -> Any:
        """Return what a copy in another process is made of."""
        trees = [None if position is None else self[index] for index, position in enumerate(self._positions)]
        try:
            content = pickle.dumps(trees)
        except Exception as error:  # whatever the classes of the user's network raise
            raise TypeError(
                f"the weights cannot be pickled ({error}); use result.save(folder) here, and wd.load(folder) in the "
                "other process."
            ) from error
        return _unpickled, (content,)


class TrainingRecords:
    """Metrics and weights of the members of a grid.

    Attributes:
      metrics: Metrics by name, float32 on disk, shape ``(members, steps)`` or ``(members, steps, layers)``; nan where
        nothing is written.
      layers: Names of the arrays of weights that decay, of all members.
      marks: Steps by name, int32, shape ``(members,)``: ``diverged_at`` and ``stopped_at``, -1 for never, and
        ``best_step``, the evaluation of which a member with patience keeps the weights, -1 without patience.
      weights: ``(params, model_state)`` of each member.
      averages: The same of the averaged weights of the members that have them; None = no member has them.
    """

    def __init__(
        self,
        num_members: int,
        num_steps: int,
        layers: Sequence[str] = (),
        *,
        metrics: Sequence[str] = (),
        layer_metrics: Sequence[str] = (),
        weights_bytes: int = 0,
        averages_bytes: int = 0,
    ) -> None:
        """Allocate the files.

        Args:
          num_members: Number of members.
          num_steps: Number of evaluations of each.
          layers: Names of the layers of any member.
          metrics: Names of the metrics that are one number an evaluation.
          layer_metrics: Names of the metrics that are a number an evaluation and layer.
          weights_bytes: Size of the weights and model states of all members together.
          averages_bytes: Size of their averages.

        Raises:
          OSError: There is no room for them in the folder of temporary files.
        """
        self._shape = num_members, num_steps
        self.layers = list(layers)
        self._lock = threading.Lock()
        self.marks = {name: np.full(num_members, -1, np.int32) for name in _MARKS}
        self.weights = RecordedWeights(num_members, weights_bytes)
        self.averages = RecordedWeights(num_members, averages_bytes) if averages_bytes else None
        self.metrics: dict[str, np.ndarray] = {name: _on_disk(self._shape) for name in metrics}
        self.metrics |= {name: _on_disk((*self._shape, len(self.layers))) for name in layer_metrics}

    def write_metrics(
        self, indices: np.ndarray, step: int, metrics: Mapping[str, np.ndarray], layers: Sequence[str] = ()
    ) -> None:
        """Store one evaluation of some members.

        Args:
          indices: Positions of the members in the grid, shape ``(members,)``.
          step: Number of the evaluation, from 0.
          metrics: Metrics by name, each of shape ``(rows,)`` or ``(rows, layers)``. There are at least as many rows as
            members; further rows are ignored.
          layers: Names of the layers of the members.
        """
        columns = self._columns(layers)
        with self._lock:
            for name, values in metrics.items():
                by_layer = np.ndim(values) == 2
                if name not in self.metrics:
                    self.metrics[name] = _on_disk((*self._shape, len(self.layers)) if by_layer else self._shape)
                if by_layer:
                    self.metrics[name][indices[:, None], step, columns] = values[: len(indices)]
                else:
                    self.metrics[name][indices, step] = values[: len(indices)]

    def rows(self, indices: np.ndarray, num_steps: int, layers: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Return the first evaluations of some members.

        Args:
          indices: Positions of the members in the grid, shape ``(members,)``.
          num_steps: Number of evaluations.
          layers: Names of the layers of the members.

        Returns:
          Metrics by name, each of shape ``(members, num_steps)`` or ``(members, num_steps, layers)``.
        """
        columns = self._columns(layers)
        rows = {name: np.array(values[indices, :num_steps]) for name, values in self.metrics.items()}
        return {name: values[..., columns] if values.ndim == 3 else values for name, values in rows.items()}

    def write_members(
        self, indices: np.ndarray, states: Any, layers: Sequence[str] = (), *, last: bool, frozen: Any = None
    ) -> None:
        """Store the weights, averaged weights and marks of some members.

        Args:
          indices: Positions of the members in the grid, shape ``(members,)``.
          states: `weightdecay.training.task.State` with NumPy arrays of shape ``(rows, ...)``; there are at least as
            many rows as members.
          layers: Names of the layers of the members.
          last: Whether the members have taken all their steps. The last evaluation of a member with patience is then
            replaced by the evaluation of its best weights, which are stored.
          frozen: Weights that members share, in the structure of the weights with None elsewhere; None = none.
        """
        num_members = len(indices)
        for name, marks in self.marks.items():
            if hasattr(states, name):
                marks[indices] = getattr(states, name)[:num_members]
        if states.best is not None:
            self.marks["best_step"][indices] = states.best.step[:num_members]
            if last:
                diverged = states.diverged_at >= 0
                best = {
                    name: np.where(diverged.reshape(-1, *[1] * (np.ndim(values) - 1)), np.nan, values)
                    for name, values in states.best.metrics.items()
                }
                self.write_metrics(indices, self._shape[1] - 1, best, layers)
        for row, index in enumerate(indices):
            member = jax.tree.map(lambda leaf, row=row: np.asarray(leaf[row]), states)
            self._write_weights(self.weights, int(index), member.result(), frozen)
            if self.averages is not None and member.average is not None:
                self._write_weights(self.averages, int(index), member.averaged(), frozen)

    def keep_until(self, reached: np.ndarray, steps: np.ndarray) -> None:
        """Forget what members did after a step, as what a run directory holds of an earlier, other search.

        Args:
          reached: The last step that counts, 0 = nothing does, shape ``(members,)``.
          steps: Steps of the evaluations, shape ``(evaluations,)``.
        """
        later = steps[None, :] > reached[:, None]
        measured = np.any(
            [np.isfinite(values).reshape(*later.shape, -1).any(axis=-1) & later for values in self.metrics.values()],
            axis=(0, 2),
        )
        for values in self.metrics.values():
            values[later] = np.nan
        for marks in self.marks.values():
            marks[marks > reached] = -1
        for index in np.flatnonzero(measured):
            for records in (self.weights, self.averages):
                if records is not None:
                    records.forget(int(index))

    def _write_weights(self, records: RecordedWeights, index: int, weights: Any, frozen: Any) -> None:
        params, model_state = jax.tree.map(np.asarray, weights)
        shared = None if frozen is None else (frozen, jax.tree.map(lambda _: None, model_state))
        records.write(index, (params, model_state), shared)

    def _columns(self, layers: Sequence[str]) -> list[int]:
        return [self.layers.index(layer) for layer in layers]


class _UnpickledWeights(Sequence[Any]):
    """Trees of a pickled `RecordedWeights`, in memory."""

    def __init__(self, trees: Sequence[Any]) -> None:
        self._trees = trees

    def __len__(self) -> int:
        return len(self._trees)

    def __getitem__(self, index: Any) -> Any:
        if self._trees[index] is None:
            raise MissingWeights(f"member {index} has no weights: it was not trained.")
        return jax.tree.map(np.copy, self._trees[index])


def _unpickled(content: bytes) -> _UnpickledWeights:
    return _UnpickledWeights(pickle.loads(content))


def _at_positions(
    operation: Callable[[int, memoryview, int], int], descriptor: int, content: memoryview, offset: int
) -> None:
    """Read or write all bytes at an offset; one call of the system may do a part only."""
    done = 0
    while done < len(content):
        count = operation(descriptor, content[done:], offset + done)
        if count == 0:
            raise OSError("a temporary file ended early")
        done += count


def _allocated(num_bytes: int) -> Any:
    """Open a temporary file for which the disk has room; without it, say where and how much."""
    try:
        file = tempfile.TemporaryFile()
        try:
            if hasattr(os, "posix_fallocate"):
                if num_bytes:
                    os.posix_fallocate(file.fileno(), 0, num_bytes)
            else:
                for start in range(0, num_bytes, _CHUNK):
                    file.write(bytes(min(_CHUNK, num_bytes - start)))
                file.flush()
        except OSError:
            file.close()
            raise
    except OSError as error:
        raise OSError(
            error.errno,
            f"folder {tempfile.gettempdir()} for temporary files has no room for {text.size(num_bytes)} ({num_bytes} "
            f"bytes) of metrics or weights ({error.strerror}). Make room there, or set the environment variable TMPDIR "
            "to another folder",
        ) from error
    return file


def _on_disk(shape: tuple[int, ...]) -> np.ndarray:
    with _allocated(max(1, math.prod(shape) * 4)) as file:  # the map keeps it open
        metric = np.memmap(file, np.float32, "r+", shape=shape)
    metric[:] = np.nan
    return metric
