"""Checkpoints: some members of a run at one moment, as a folder on disk.

``state/`` holds their arrays, written by orbax, and ``contents.json`` says which members, at which step, and the
SHA-256 of every file. A checkpoint appears whole or not at all, and is read only if its checksums hold. Reading runs no
code from the files.
"""

import functools
import itertools
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import files

_CONTENTS, _STATE = "contents.json", "state"


class Snapshot(NamedTuple):
    """Some members of one group at one step, on the host.

    Attributes:
      keys: Who they are.
      step: Steps that they have behind them.
      leaves: Of their states, each ``(members, ...)``.
      metrics: By name, ``(members, evaluations so far)``.
      evaluated: Steps of these evaluations.
      done: Whether the run wants no more steps of them.
    """

    keys: list[str]
    step: int
    leaves: list[np.ndarray]
    metrics: dict[str, np.ndarray]
    evaluated: list[int]
    done: bool

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in (*self.leaves, *self.metrics.values()))

    def member(self, slot: int) -> "Snapshot":
        """Return one of the members alone."""
        rows = slice(slot, slot + 1)
        metrics = {name: values[rows] for name, values in self.metrics.items()}
        return self._replace(keys=self.keys[rows], leaves=[leaf[rows] for leaf in self.leaves], metrics=metrics)


def blocks_of(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Blocks of a checkpoint: snapshots that fit together in one; of a member that comes twice the later one.

    Args:
      snapshots: In the order in which they were made.

    Returns:
      The blocks.
    """
    newest = {one: number for number, snapshot in enumerate(snapshots) for one in snapshot.keys}
    together: dict[Any, list[Snapshot]] = {}
    for number, snapshot in enumerate(snapshots):
        shapes = tuple((leaf.shape[1:], leaf.dtype.name) for leaf in snapshot.leaves)
        alike = (snapshot.step, snapshot.done, tuple(snapshot.evaluated), tuple(snapshot.metrics), shapes)
        if all(newest[one] == number for one in snapshot.keys):
            together.setdefault(alike, []).append(snapshot)
    return [joined(alike) for alike in together.values()]


def joined(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Join snapshots of members that are alike.

    Args:
      snapshots: At least one, all at one step.

    Returns:
      One of all their members, in their order.
    """
    if len(snapshots) == 1:
        return snapshots[0]
    leaves = [np.concatenate(leaf) for leaf in zip(*(one.leaves for one in snapshots), strict=True)]
    metrics = {name: np.concatenate([one.metrics[name] for one in snapshots]) for name in snapshots[0].metrics}
    return snapshots[0]._replace(
        keys=list(itertools.chain(*(one.keys for one in snapshots))), leaves=leaves, metrics=metrics
    )


def write(folder: Path, blocks: Sequence[Snapshot]) -> dict[str, Any]:
    """Write a checkpoint; it appears whole or not at all.

    Args:
      folder: A new folder.
      blocks: What to write, as `blocks_of` made it.

    Returns:
      Its ``contents.json``.

    Raises:
      OSError: It cannot be written.
    """
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        arrays = {
            f"{number}": {
                "leaves": {f"{place}": leaf for place, leaf in enumerate(block.leaves)},
                "metrics": block.metrics,
            }
            for number, block in enumerate(blocks)
        }
        _orbax().save((unfinished / _STATE).absolute(), arrays)
        written = sorted(path for path in (unfinished / _STATE).rglob("*") if path.is_file())
        contents = {
            "blocks": [
                {"keys": block.keys, "step": block.step, "evaluated": block.evaluated, "done": block.done}
                for block in blocks
            ],
            "sha256": {str(path.relative_to(unfinished)): _kept_sum(path) for path in written},
        }
        files.write_json(unfinished / _CONTENTS, contents)
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return contents


def read_contents(folder: Path) -> dict[str, Any]:
    """Contents of a checkpoint whose files are all as they were written.

    Args:
      folder: The checkpoint.

    Returns:
      Its ``contents.json``.

    Raises:
      ValueError: A file was altered.
      OSError: A file cannot be read.
    """
    contents = files.read_json(folder / _CONTENTS)
    for name, digest in contents["sha256"].items():
        if files.file_sum(folder / name) != digest:
            raise ValueError(f"{name} was altered")
    return contents


@functools.lru_cache(maxsize=2)
def read(folder: Path) -> list[Snapshot]:
    """Blocks of a checkpoint that was found sound; the last two that were read are remembered.

    Args:
      folder: The checkpoint.

    Returns:
      Its blocks.
    """
    stored = _orbax().restore((folder / _STATE).absolute())
    blocks = []
    for number, told in enumerate(files.read_json(folder / _CONTENTS)["blocks"]):
        arrays = stored[f"{number}"]
        leaves = [np.asarray(arrays["leaves"][f"{place}"]) for place in range(len(arrays["leaves"]))]
        metrics = {name: np.asarray(values) for name, values in arrays.get("metrics", {}).items()}
        blocks.append(Snapshot(**told, leaves=leaves, metrics=metrics))
    return blocks


@functools.cache
def _orbax() -> Any:
    import logging

    import orbax.checkpoint

    logging.getLogger("absl").addFilter(lambda record: record.levelno >= logging.ERROR)
    return orbax.checkpoint.PyTreeCheckpointer()


def _kept_sum(path: Path) -> str:
    """SHA-256 of a file that is on the disk for good."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return files.file_sum(path)


def numbers(folder: Path) -> list[int]:
    """Numbers of the checkpoints in a folder.

    Args:
      folder: It holds checkpoints named by their numbers.

    Returns:
      The numbers, in no order.
    """
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
