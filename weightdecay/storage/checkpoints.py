"""Checkpoints: some members of a run at one step each, as a folder on disk.

``state/`` holds their arrays, written by orbax. ``contents.json`` holds the members, their steps, and the SHA-256 of
every file. A checkpoint appears completely or not at all, and is read only if its checksums match. Reading executes no
code from the files.
"""

import errno
import functools
import itertools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import files, text

_CONTENTS, _STATE = "contents.json", "state"
_OVERHEAD = 2**16  # bytes; orbax writes the arrays twice before it removes the first copies


class Snapshot(NamedTuple):
    """Some members of one group at one step, in host memory.

    Attributes:
      keys: Names of the members in the run directory.
      step: Number of steps that they have taken.
      leaves: Leaves of their states, each of shape ``(members, ...)``.
      metrics: Metrics by name, each of shape ``(members, evaluations so far)`` or with layers after that.
      evaluated: Steps of these evaluations.
      done: Whether they take no more steps in this run.
    """

    keys: list[str]
    step: int
    leaves: list[np.ndarray]
    metrics: dict[str, np.ndarray]
    evaluated: list[int]
    done: bool

    @property
    def nbytes(self) -> int:
        """Size of the arrays in bytes."""
        return sum(array.nbytes for array in (*self.leaves, *self.metrics.values()))

    def member(self, row: int) -> "Snapshot":
        """Return the snapshot of one of the members."""
        rows = slice(row, row + 1)
        metrics = {name: values[rows] for name, values in self.metrics.items()}
        return self._replace(keys=self.keys[rows], leaves=[leaf[rows] for leaf in self.leaves], metrics=metrics)


def merged(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Merge snapshots into the blocks of a checkpoint.

    Snapshots with the same step, evaluations and shapes make one block. If a member occurs in two snapshots, the later
    one counts.

    Args:
      snapshots: Snapshots in the order in which they were taken.

    Returns:
      The blocks.
    """
    snapshots = list(snapshots)
    newest = {key: number for number, snapshot in enumerate(snapshots) for key in snapshot.keys}
    blocks: dict[Any, list[Snapshot]] = {}
    for number, snapshot in enumerate(snapshots):
        shapes = tuple((leaf.shape[1:], leaf.dtype.name) for leaf in snapshot.leaves)
        kind = (snapshot.step, snapshot.done, tuple(snapshot.evaluated), tuple(snapshot.metrics), shapes)
        if all(newest[key] == number for key in snapshot.keys):
            blocks.setdefault(kind, []).append(snapshot)
    return [concatenated(block) for block in blocks.values()]


def concatenated(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Concatenate snapshots of members with the same step, evaluations and shapes.

    Args:
      snapshots: At least one.

    Returns:
      One snapshot of all members, in their order.
    """
    if len(snapshots) == 1:
        return snapshots[0]
    leaves = [np.concatenate(leaf) for leaf in zip(*(snapshot.leaves for snapshot in snapshots), strict=True)]
    metrics = {
        name: np.concatenate([snapshot.metrics[name] for snapshot in snapshots]) for name in snapshots[0].metrics
    }
    keys = list(itertools.chain(*(snapshot.keys for snapshot in snapshots)))
    return snapshots[0]._replace(keys=keys, leaves=leaves, metrics=metrics)


def write(folder: Path, blocks: Sequence[Snapshot]) -> dict[str, Any]:
    """Write a checkpoint, completely or not at all.

    Args:
      folder: A new folder; its parent exists.
      blocks: What to write, as `merged` returns it.

    Returns:
      The content of its ``contents.json``.

    Raises:
      OSError: It cannot be written, for example because the disk is full.
    """
    arrays = {
        f"{number}": {
            "leaves": {f"{position}": leaf for position, leaf in enumerate(block.leaves)},
            "metrics": block.metrics,
        }
        for number, block in enumerate(blocks)
    }
    with files.atomic(folder, parents=False) as unfinished:
        unfinished.mkdir()
        _require_room(unfinished / "room", 2 * sum(block.nbytes for block in blocks) + _OVERHEAD)
        try:
            _orbax().save((unfinished / _STATE).absolute(), arrays)
        except Exception as error:
            # The arrays can always be stored. What fails is the disk, which orbax and TensorStore report by a
            # ValueError and errors of other types.
            raise OSError(f"{_STATE} of checkpoint {folder.name} cannot be written: {_first_line(error)}") from error
        written = sorted(path for path in (unfinished / _STATE).rglob("*") if path.is_file())
        contents = {
            "blocks": [
                {"keys": block.keys, "step": block.step, "evaluated": block.evaluated, "done": block.done}
                for block in blocks
            ],
            "sha256": {str(path.relative_to(unfinished)): files.file_sum(path) for path in written},
        }
        files.write_json(unfinished / _CONTENTS, contents)
    return contents


def read_contents(folder: Path, *, verify: bool = True) -> dict[str, Any]:
    """Verify the files of a checkpoint.

    Args:
      folder: The checkpoint.
      verify: Whether the files are compared with their checksums; else only ``contents.json`` is.

    Returns:
      The content of its ``contents.json``.

    Raises:
      ValueError: A file was altered.
      OSError: A file cannot be read.
    """
    contents = files.read_json(folder / _CONTENTS)
    for name, digest in contents["sha256"].items() if verify else ():
        if files.file_sum(folder / name) != digest:
            raise ValueError(f"{name} was altered")
    return contents


@functools.lru_cache(maxsize=2)
def read(folder: Path) -> list[Snapshot]:
    """Read a verified checkpoint; the last two that were read stay in memory.

    Args:
      folder: The checkpoint.

    Returns:
      Its blocks.
    """
    stored = _orbax().restore((folder / _STATE).absolute())
    blocks = []
    for number, description in enumerate(files.read_json(folder / _CONTENTS)["blocks"]):
        arrays = stored[f"{number}"]
        leaves = [np.asarray(arrays["leaves"][f"{position}"]) for position in range(len(arrays["leaves"]))]
        metrics = {name: np.asarray(values) for name, values in arrays.get("metrics", {}).items()}
        blocks.append(Snapshot(**description, leaves=leaves, metrics=metrics))
    return blocks


def numbers(folder: Path) -> list[int]:
    """List the checkpoints in a folder.

    Args:
      folder: A folder with checkpoints named by their numbers.

    Returns:
      The numbers, in no particular order.
    """
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


@functools.cache
def _orbax() -> Any:
    import logging

    import jax
    import orbax.checkpoint

    logging.getLogger("absl").addFilter(lambda record: record.levelno >= logging.ERROR)
    if jax.process_count() == 1:
        return orbax.checkpoint.PyTreeCheckpointer()
    # In a program of several processes orbax would wait for all of them, and only this one writes.
    process = jax.process_index()
    alone = orbax.checkpoint.options.MultiprocessingOptions(
        primary_host=process, active_processes={process}, barrier_sync_key_prefix=f"weightdecay-{process}"
    )
    handler = orbax.checkpoint.PyTreeCheckpointHandler(multiprocessing_options=alone)
    return orbax.checkpoint.Checkpointer(handler, multiprocessing_options=alone)


def _require_room(file: Path, num_bytes: int) -> None:
    """Raise if the disk has no room for the arrays: TensorStore reports that late, and with tracebacks."""
    if num_bytes and hasattr(os, "posix_fallocate"):
        with file.open("wb") as opened:
            try:
                os.posix_fallocate(opened.fileno(), 0, num_bytes)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise OSError(error.errno, f"{error.strerror}: {text.size(num_bytes)} are needed") from error
        file.unlink()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
