"""The directory of a run: what is trained is saved there, and a second call goes on where the first was cut off.

- ``run.json``: what the run depends on; a call with anything else is refused, with the difference named.
- ``checkpoints/00000001/``: some members at one moment, as `weightdecay.storage.checkpoints` writes them.
- ``result/``: the finished result, as `weightdecay.storage.result_folder` writes it.
- ``lock``, ``owner.json``: which process trains there now.

A member is known by the hash of its hyperparameters and of the program that trains it, so that a grid may grow in its
directory. Reading runs no code from the files.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from weightdecay.core import files
from weightdecay.storage import checkpoints, fingerprints, result_folder
from weightdecay.storage.checkpoints import Snapshot

_FORMAT, _VERSION = "weightdecay run", 1
_RUN, _LOCK, _OWNER, _CHECKPOINTS, _RESULT = "run.json", "lock", "owner.json", "checkpoints", "result"
_OURS = {_RUN, _LOCK, _OWNER, _CHECKPOINTS, _RESULT}
_KEPT = 2  # checkpoints of a member that is not done: the last, and the one before it
_WAITING_BYTES = 256 * 2**20  # of members that are done and not saved yet


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
            told = fingerprints.differences(self.stored["depends_on"], depends_on)
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
                name: {**earlier[name], **value} if name in fingerprints.BY_STRUCTURE else value
                for name, value in depends_on.items()
            }
        self.stored = {
            "format": _FORMAT,
            "version": _VERSION,
            "num_steps": num_steps,
            "depends_on": json.loads(json.dumps(depends_on)),
        }
        try:
            files.write_json(self.path / _RUN, self.stored)
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
        read = {number: checkpoints.read(self._checkpoint(number)) for number in {place.checkpoint for place in places}}
        return checkpoints.joined([read[place.checkpoint][place.block].member(place.slot) for place in places])

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
        for number in sorted(checkpoints.numbers(self.path / _CHECKPOINTS)):
            folder, self._last = self._checkpoint(number), number
            try:
                contents = checkpoints.read_contents(folder)
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
        blocks = checkpoints.blocks_of(waiting)
        self._last += 1
        number = self._last
        try:
            contents = checkpoints.write(self._checkpoint(number), blocks)
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
    if not result_folder.is_result(directory / _RESULT):
        if stored(directory)["depends_on"].get("kind") == "map_grid":
            raise FileNotFoundError(
                f"directory {directory} holds members of wd.map_grid, and no result to load; make the same call again, "
                f"with directory={str(directory)!r}, which finds what is done."
            )
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
    files.write_json(path / _OWNER, {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime()})
    (path / _CHECKPOINTS).mkdir(exist_ok=True)
    checkpoints.read.cache_clear()
    for leftover in (path / _CHECKPOINTS).glob(".*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _read_run(path: Path) -> dict[str, Any]:
    if not (path / _RUN).exists():
        return {}
    try:
        stored = files.read_json(path / _RUN)
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
        owner = files.read_json(path / _OWNER)
        return f"process {owner['process']} on {owner['host']} (since {owner['since']})"
    except (OSError, ValueError, LookupError):
        return "another process"
