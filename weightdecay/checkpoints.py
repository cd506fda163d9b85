"""The directory of a run: what is trained is saved there, and a second call goes on where the first was cut off.

- ``run.json``: what the run depends on; a call with anything else is refused, with the difference named.
- ``checkpoints/00000001/``: some members at one moment. ``state/`` holds their arrays, written by orbax, and
  ``contents.json`` says which members, at which step, and the SHA-256 of every file.
- ``result/``: the finished result, as `weightdecay.folders` writes it.
- ``lock``, ``owner.json``: which process trains there now.

A checkpoint appears whole or not at all, and is read only if its checksums hold. A member is known by the hash of its
hyperparameters and of the program that trains it, so that a grid may grow in its directory. Reading runs no code from
the files.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import os
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from weightdecay import files, folders, member_json
from weightdecay.types import Batch

_FORMAT, _VERSION = "weightdecay run", 1
_RUN, _LOCK, _OWNER, _CHECKPOINTS, _RESULT = "run.json", "lock", "owner.json", "checkpoints", "result"
_OURS = {_RUN, _LOCK, _OWNER, _CHECKPOINTS, _RESULT}
_CONTENTS, _STATE = "contents.json", "state"
_BY_STRUCTURE = {  # of what a run depends on, that which each structure in a grid has by itself; and what a change says
    "programs": "the program of a training step (model, loss, optimizer or mask) is another one",
    "functions": "train_fn is another one",
    "closed_over": "the arrays that train_fn uses are others",
    "lane_widths": "the lanes are of another width",
}
_KEPT = 2  # checkpoints of a member that is not done: the last, and the one before it
_WAITING_BYTES = 256 * 2**20  # of members that are done and not saved yet


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


class Place(NamedTuple):
    """Where a member is saved."""

    step: int
    done: bool
    checkpoint: int
    block: int
    slot: int


@dataclass
class Run:
    """The directory of a run, held by this process; `opened` makes it.

    Attributes:
      path: The directory.
      stored: Contents of ``run.json``; empty where the run is new.
      save_every: Seconds between two saves.
    """

    path: Path
    stored: dict[str, Any]
    save_every: float | int
    _places: dict[str, list[Place]] = field(default_factory=dict)  # newest last
    _keys_of: dict[int, set[str]] = field(default_factory=dict)  # by checkpoint
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: list[Snapshot] = field(default_factory=list)
    _saved_at: float = field(default_factory=time.monotonic)
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="save"))
    _writing: "Future[None] | None" = None
    _failed: OSError | None = None
    _last: int = 0  # checkpoint

    def settle(self, depends_on: Mapping[str, Any], num_steps: int, *, patient: bool = False) -> None:
        """Write down what a new run depends on; refuse what differs from an earlier call.

        Args:
          depends_on: Values of JSON by name; ``data`` is a dictionary of digests, and so are those that a grid has by
            structure: ``programs``, or ``functions``, ``closed_over`` and ``lane_widths``.
          num_steps: Steps that are wanted now.
          patient: Whether any member has patience.

        Raises:
          ValueError: The directory holds a run of something else, or one with more steps.
          OSError: It cannot be written.
        """
        if self.stored:
            told = _differences(self.stored["depends_on"], depends_on)
            if told:
                raise ValueError(
                    f"directory {self.path} holds a run of something else: {'; '.join(told)}. Nothing was touched; "
                    "give the same again, or another directory."
                )
            if num_steps < self.stored["num_steps"]:
                raise ValueError(
                    f"directory {self.path} holds a run of {self.stored['num_steps']} steps, num_steps is {num_steps}; "
                    "a run can only grow: give at least as many, or another directory."
                )
            before = self.stored["num_steps"]
            if num_steps > before and patient and before % depends_on["eval_every"]:
                raise ValueError(
                    f"directory {self.path} holds a run with patience whose last step, {before}, is no multiple of "
                    f"eval_every, {depends_on['eval_every']}, so that it cannot grow in steps; give another directory."
                )
            earlier = self.stored["depends_on"]
            depends_on = {
                name: {**earlier[name], **value} if name in _BY_STRUCTURE else value
                for name, value in depends_on.items()
            }
        self.stored = {
            "format": _FORMAT,
            "version": _VERSION,
            "num_steps": num_steps,
            "depends_on": json.loads(json.dumps(depends_on)),
        }
        try:
            _write_json(self.path / _RUN, self.stored)
        except OSError as error:
            raise OSError(
                f"directory {self.path} cannot be written ({error}); make room there, or give another directory."
            ) from error

    def found(self, key: str, num_steps: int) -> int:
        """Steps of a member that need not be trained again.

        Args:
          key: The member's.
          num_steps: Steps that are wanted.

        Returns:
          A number of steps; 0 for a member that was never saved.
        """
        places = self._places.get(key)
        return min(places[-1].step, num_steps) if places else 0

    def in_order(self, keys: Sequence[str]) -> list[int]:
        """Numbers of those members that were saved, in the order in which they lie on the disk."""
        return sorted(
            (n for n, key in enumerate(keys) if key in self._places), key=lambda n: self._places[keys[n]][-1][2:]
        )

    def holds_members(self) -> bool:
        """Whether any member is saved."""
        return bool(self._places)

    def read(self, keys: Sequence[str]) -> Snapshot:
        """Some members as they were saved last, all at one step.

        Args:
          keys: Who they are; each was `found`.

        Returns:
          Their snapshot.
        """
        places = [self._places[key][-1] for key in keys]
        read = {number: _read_checkpoint(self._checkpoint(number)) for number in {place.checkpoint for place in places}}
        return _joined([read[place.checkpoint][place.block].member(place.slot) for place in places])

    def save(self, snapshot: Snapshot) -> None:
        """Have members saved, in the background; what is done may wait until a save is due.

        Args:
          snapshot: The members.
        """
        with self._lock:
            self._waiting.append(snapshot)
            waited = time.monotonic() - self._saved_at >= self.save_every
            many = sum(one.nbytes for one in self._waiting) > _WAITING_BYTES
            if (waited or many or not snapshot.done) and (self._writing is None or self._writing.done()):
                self._saved_at = time.monotonic()
                self._writing = self._writer.submit(self._write_waiting)

    def close(self) -> None:
        """Save what waits, and let the directory go."""
        self._writer.submit(self._write_waiting).result()
        self._writer.shutdown()
        if self._failed is not None:
            warnings.warn(
                f"directory {self.path}: the last members could not be saved ({self._failed}); the result holds them "
                "all the same. Make room and save it with result.save(...).",
                UserWarning,
                stacklevel=3,
            )

    def finish(self, write: Callable[[Path], None]) -> None:
        """Write the finished result into the directory.

        Args:
          write: Writes it to a path.
        """
        try:
            write(self.path / _RESULT)
        except OSError as error:
            self._failed = error

    def look(self) -> None:
        """Find every checkpoint, and leave out those that are damaged, with a word."""
        for number in sorted(_numbers(self.path / _CHECKPOINTS)):
            folder, self._last = self._checkpoint(number), number
            try:
                contents = _read_contents(folder)
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                warnings.warn(
                    f"checkpoint {folder} is damaged ({error}); it is left out, and what it held is taken from the one "
                    "before or trained again.",
                    UserWarning,
                    stacklevel=4,
                )
                os.replace(folder, folder.with_name(f"damaged-{number:08d}-{time.time_ns()}"))
                continue
            self._note(number, contents["blocks"])

    def _write_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        blocks = _blocks(waiting)
        self._last += 1
        number = self._last
        try:
            contents = _write_checkpoint(self._checkpoint(number), blocks)
        except OSError as error:
            if self._failed is None:
                warnings.warn(
                    f"directory {self.path} cannot be written ({error}); training goes on, and saving is tried again. "
                    "Make room there.",
                    UserWarning,
                    stacklevel=2,
                )
            self._failed = error
            with self._lock:  # what goes on will be saved again anyway
                self._waiting = [*(one for one in waiting if one.done), *self._waiting]
            return
        self._failed = None
        self._note(number, contents["blocks"])

    def _note(self, number: int, blocks: Sequence[Mapping[str, Any]]) -> None:
        """Enter a checkpoint, and remove those that nobody needs any more."""
        for block_number, block in enumerate(blocks):
            for slot, key in enumerate(block["keys"]):
                place = Place(block["step"], block["done"], number, block_number, slot)
                self._places.setdefault(key, []).append(place)
                self._keys_of.setdefault(number, set()).add(key)
        for key in self._keys_of.get(number, ()):
            places = self._places[key]
            kept = 1 if places[-1].done else _KEPT
            for old in places[:-kept]:
                self._keys_of[old.checkpoint].discard(key)
                if not self._keys_of[old.checkpoint]:
                    shutil.rmtree(self._checkpoint(old.checkpoint), ignore_errors=True)
            self._places[key] = places[-kept:]

    def _checkpoint(self, number: int) -> Path:
        return self.path / _CHECKPOINTS / f"{number:08d}"


def stored(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What an earlier call wrote down in a directory.

    Args:
      path: The directory.

    Returns:
      Contents of ``run.json``; empty where there is none.

    Raises:
      ValueError: It is damaged, or of a later version.
    """
    return _read_run(Path(path))


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], *, save_every: float | int) -> Iterator[Run]:
    """Hold the directory of a run while it is trained, and save what waits at the end.

    Args:
      path: The directory; it is made where it is missing.
      save_every: Seconds between two saves.

    Yields:
      The run.

    Raises:
      OSError: It cannot be written, is a file, or holds something else.
      RuntimeError: Another process trains there.
      ValueError: ``run.json`` is damaged, or of a later version.
    """
    directory = Path(path)
    with _locked(directory):
        try:
            _enter(directory)
            run = Run(directory, stored(directory), save_every)
            run.look()
            try:
                yield run
            finally:
                run.close()
        finally:
            (directory / _OWNER).unlink(missing_ok=True)


def check_save_every(save_every: Any) -> None:
    """Refuse what is no time between two saves.

    Args:
      save_every: What a user gave.

    Raises:
      ValueError: It is no number of seconds above 0.
    """
    if isinstance(save_every, bool) or not isinstance(save_every, int | float) or not save_every > 0:
        raise ValueError(f"save_every is {save_every!r}; give a number of seconds above 0.")


def key(member: Mapping[str, Any], program: str) -> str:
    """Who a member is, whatever stands beside it.

    Args:
      member: Hyperparameters by name.
      program: Digest of what trains it.

    Returns:
      A hash.
    """
    return hashlib.sha256(files.canonical({"member": member_json.encode(member), "program": program})).hexdigest()[:32]


def data_digests(splits: Mapping[str, Batch]) -> dict[str, str]:
    """Digest of each split: bytes, dtypes and shapes of its arrays.

    Args:
      splits: Examples by name.

    Returns:
      SHA-256 by name.
    """
    digests = {}
    for name, split in splits.items():
        digest = hashlib.sha256()
        for array in jax.tree.leaves(split):
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        digests[name] = digest.hexdigest()
    return digests


def finished_result(path: str | os.PathLike[str]) -> Path | None:
    """Where the result of a run lies.

    Args:
      path: Perhaps the directory of a run.

    Returns:
      The folder of its result; None where the path is no directory of a run.

    Raises:
      FileNotFoundError: The run is not finished.
    """
    directory = Path(path)
    if not (directory / _RUN).exists():
        return None
    if not folders.is_result(directory / _RESULT):
        raise FileNotFoundError(
            f"directory {directory} holds a run that is not finished; go on with the same call of wd.fit_grid and "
            f"directory={str(directory)!r}."
        )
    return directory / _RESULT


def _locked(path: Path) -> Any:
    """Make a directory and take its lock, which is let go at the end of a with."""
    from filelock import FileLock, Timeout

    try:
        path.mkdir(parents=True, exist_ok=True)
        others = sorted({entry.name for entry in path.iterdir()} - _OURS)
        if others and not (path / _RUN).exists():
            raise FileExistsError(
                f"directory {path} holds something else ({', '.join(others[:3])}); nothing was touched. Give a new "
                "or an empty directory, or one of an earlier run."
            )
        return FileLock(path / _LOCK).acquire(timeout=0)
    except Timeout:
        raise RuntimeError(
            f"directory {path} is in use by {_owner(path)}: wait until it ends, or give another directory."
        ) from None
    except FileExistsError as error:
        if path.is_dir():
            raise
        raise NotADirectoryError(f"directory {path} is a file; give a new or an empty directory.") from error
    except NotADirectoryError as error:
        raise NotADirectoryError(f"directory {path} lies under a file; give another directory.") from error
    except OSError as error:
        raise PermissionError(f"directory {path} cannot be written ({error}); give another directory.") from error


def _enter(path: Path) -> None:
    """Say who trains here now, and clear away what a dead process left."""
    if (path / _OWNER).exists():
        warnings.warn(
            f"directory {path}: {_owner(path)} ended without a word; going on from what it saved.",
            UserWarning,
            stacklevel=5,
        )
    _write_json(path / _OWNER, {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime()})
    (path / _CHECKPOINTS).mkdir(exist_ok=True)
    _read_checkpoint.cache_clear()
    for leftover in (path / _CHECKPOINTS).glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    if before.get("kind") != now.get("kind"):
        kinds = [one.get("kind", "fit_grid") for one in (before, now)]
        return [f"it was trained by wd.{kinds[0]}, and this is wd.{kinds[1]}"]
    told = []
    now = json.loads(json.dumps(now))
    for name in before:
        if name in _BY_STRUCTURE:
            common = before[name].keys() & now[name].keys()
            if any(before[name][kind] != now[name][kind] for kind in common):
                told.append(_BY_STRUCTURE[name])
        elif name == "data":
            changed = [
                split for split in {**before[name], **now[name]} if before[name].get(split) != now[name].get(split)
            ]
            told += [f"the {split} examples are others" for split in changed]
        elif name == "versions":
            changed = [lib for lib, version in before[name].items() if now[name].get(lib) != version]
            told += [f"{lib} was {before[name][lib]} and is {now[name].get(lib)}" for lib in changed]
        elif before[name] != now.get(name):
            told.append(f"{name} was {before[name]} and is {now.get(name)}")
    # What follows from another difference is not told beside it.
    return [one for one in told if not one.startswith("the program")] or told


def _blocks(snapshots: Iterable[Snapshot]) -> list[Snapshot]:
    """Snapshots that fit together in one; of a member that comes twice the later one."""
    newest = {one: number for number, snapshot in enumerate(snapshots) for one in snapshot.keys}
    together: dict[Any, list[Snapshot]] = {}
    for number, snapshot in enumerate(snapshots):
        shapes = tuple((leaf.shape[1:], leaf.dtype.name) for leaf in snapshot.leaves)
        alike = (snapshot.step, snapshot.done, tuple(snapshot.evaluated), tuple(snapshot.metrics), shapes)
        if all(newest[one] == number for one in snapshot.keys):
            together.setdefault(alike, []).append(snapshot)
    return [_joined(alike) for alike in together.values()]


def _joined(snapshots: Sequence[Snapshot]) -> Snapshot:
    if len(snapshots) == 1:
        return snapshots[0]
    leaves = [np.concatenate(leaf) for leaf in zip(*(one.leaves for one in snapshots), strict=True)]
    metrics = {name: np.concatenate([one.metrics[name] for one in snapshots]) for name in snapshots[0].metrics}
    return snapshots[0]._replace(
        keys=list(itertools.chain(*(one.keys for one in snapshots))), leaves=leaves, metrics=metrics
    )


def _write_checkpoint(folder: Path, blocks: Sequence[Snapshot]) -> dict[str, Any]:
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
        files = sorted(path for path in (unfinished / _STATE).rglob("*") if path.is_file())
        contents = {
            "blocks": [
                {"keys": block.keys, "step": block.step, "evaluated": block.evaluated, "done": block.done}
                for block in blocks
            ],
            "sha256": {str(path.relative_to(unfinished)): _kept_sum(path) for path in files},
        }
        _write_json(unfinished / _CONTENTS, contents)
        os.replace(unfinished, folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return contents


def _read_contents(folder: Path) -> dict[str, Any]:
    """Contents of a checkpoint whose files are all as they were written."""
    contents = _read_json(folder / _CONTENTS)
    for name, digest in contents["sha256"].items():
        if files.file_sum(folder / name) != digest:
            raise ValueError(f"{name} was altered")
    return contents


@functools.lru_cache(maxsize=2)
def _read_checkpoint(folder: Path) -> list[Snapshot]:
    """Blocks of a checkpoint that was found sound."""
    stored = _orbax().restore((folder / _STATE).absolute())
    blocks = []
    for number, told in enumerate(_read_json(folder / _CONTENTS)["blocks"]):
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


def _numbers(folder: Path) -> list[int]:
    return [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that appears whole or not at all, with a checksum of its own."""
    content = json.loads(json.dumps(content))
    digest = hashlib.sha256(files.canonical(content)).hexdigest()
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump({**content, "checksum": digest}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


def _read_json(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no description")
    digest = content.pop("checksum", None)
    if hashlib.sha256(files.canonical(content)).hexdigest() != digest:
        raise ValueError(f"{path.name} was altered")
    return content


def _read_run(path: Path) -> dict[str, Any]:
    if not (path / _RUN).exists():
        return {}
    try:
        stored = _read_json(path / _RUN)
        version = int(stored["version"])
        if stored["format"] != _FORMAT:
            raise ValueError("it is of another program")
        if version <= _VERSION:
            return stored
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"file {path / _RUN} is damaged or altered ({error}), so that nobody can say what was trained there; "
            "nothing was touched. Give another directory."
        ) from error
    raise ValueError(
        f"directory {path} has format version {version}, this library reads up to {_VERSION}; upgrade weightdecay."
    )


def _owner(path: Path) -> str:
    try:
        owner = _read_json(path / _OWNER)
        return f"process {owner['process']} on {owner['host']} (since {owner['since']})"
    except (OSError, ValueError, LookupError):
        return "another process"
