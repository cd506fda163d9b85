"""Run directories: a run saves itself while it trains, and the same call resumes it after an interruption.

- ``run.json``: what the numbers of the run depend on. A call that differs in any of it is refused, and the error names
  the difference.
- ``checkpoints/00000001/``: some members at one step each, as `weightdecay.storage.checkpoints` writes them.
- ``result/``: the finished result, as `weightdecay.storage.result_folder` writes it.
- ``lock``, ``owner.json``: which process trains there now.

A member is identified by the hash of its hyperparameters and of the program that trains it, so that a grid may grow in
its directory. Reading executes no code from the files. A process may be killed at any moment: what it was writing is
not there, and the same call resumes from what is.
"""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from weightdecay.core import files
from weightdecay.core.checks import ArgumentError, is_number
from weightdecay.core.warn import warn
from weightdecay.storage import checkpoints, fingerprints, result_folder
from weightdecay.storage.checkpoints import Snapshot

_FORMAT, _VERSION = "weightdecay run", 1
_RUN, _LOCK, _OWNER, _CHECKPOINTS, _RESULT = "run.json", "lock", "owner.json", "checkpoints", "result"
_ENTRIES = {_RUN, _LOCK, _OWNER, _CHECKPOINTS, _RESULT}
_KEPT = 2  # checkpoints of a member that is not done: the last and the one before
_WAITING_BYTES = 256 * 2**20  # of members that are done and not saved yet


class SavedMember(NamedTuple):
    """Where a member is saved.

    Attributes:
      step: Number of steps that it had taken.
      done: Whether it takes no more steps in the run.
      checkpoint: Number of the checkpoint.
      block: Number of the block in the checkpoint.
      row: Row in the block.
    """

    step: int
    done: bool
    checkpoint: int
    block: int
    row: int


class RunDirectory:
    """The directory of a run, locked by this process; `open_run` makes it.

    Attributes:
      path: The directory.
      description: Content of ``run.json``; empty if the run is new.
      save_every: Seconds between two saves.
    """

    def __init__(self, path: Path, description: dict[str, Any], save_every: float | int) -> None:
        """Take the directory, which exists and is locked."""
        self.path = path
        self.description = description
        self.save_every = save_every
        self._identity = _identity(path)
        self._saved: dict[str, list[SavedMember]] = {}  # by key, newest last
        self._keys: dict[int, set[str]] = {}  # by checkpoint
        self._last = 0  # checkpoint
        self._lock = threading.Lock()
        self._waiting: list[Snapshot] = []
        self._saved_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._writing: Future[None] | None = None
        self._failure: Exception | None = None
        self._result_failure: Exception | None = None

    def record_dependencies(self, depends_on: Mapping[str, Any], num_steps: int, *, patient: bool = False) -> None:
        """Record what the numbers of the run depend on; refuse a call that differs from an earlier one.

        Args:
          depends_on: JSON values by name. ``data`` is an object of digests by split; the entries of
            `weightdecay.storage.fingerprints.BY_STRUCTURE` are objects by structure.
          num_steps: Number of steps of each member.
          patient: Whether any member has patience.

        Raises:
          ArgumentError: The directory holds a different run, or a run with more steps.
          OSError: The directory cannot be written.
        """
        if self.description:
            depends_on = self._merged_with_earlier(depends_on, num_steps, patient=patient)
        description = {
            "format": _FORMAT,
            "version": _VERSION,
            "num_steps": num_steps,
            "depends_on": json.loads(json.dumps(depends_on)),
        }
        if description == self.description:
            return
        try:
            files.write_json(self.path / _RUN, description, parents=False)
        except OSError as error:
            raise _not_writable(self.path, error) from error
        self.description = description

    def saved_steps(self, key: str, num_steps: int) -> int:
        """Return the number of steps of a member that need not be trained again.

        Args:
          key: Name of the member.
          num_steps: Number of steps wanted.

        Returns:
          At most ``num_steps``; 0 if the member is not saved.
        """
        saved = self._saved.get(key)
        return min(saved[-1].step, num_steps) if saved else 0

    def in_disk_order(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of the keys whose members are saved, in the order in which they are on the disk."""
        saved = [position for position, key in enumerate(keys) if key in self._saved]
        return sorted(saved, key=lambda position: self._saved[keys[position]][-1][2:])

    def has_members(self) -> bool:
        """Return whether any member is saved."""
        return bool(self._saved)

    def read(self, keys: Sequence[str]) -> Snapshot:
        """Read members as they were saved last.

        Args:
          keys: Names of saved members, all at one step.

        Returns:
          Their snapshot.

        Raises:
          OSError: The checkpoint is gone.
        """
        saved = [self._saved[key][-1] for key in keys]
        blocks = {number: checkpoints.read(self._checkpoint(number)) for number in {one.checkpoint for one in saved}}
        return checkpoints.concatenated([blocks[one.checkpoint][one.block].member(one.row) for one in saved])

    def save(self, snapshot: Snapshot) -> None:
        """Save members in the background. Members that are done may wait until a save is due.

        Args:
          snapshot: The members.
        """
        with self._lock:
            self._waiting.append(snapshot)
            is_due = time.monotonic() - self._saved_at >= self.save_every
            is_large = sum(waiting.nbytes for waiting in self._waiting) > _WAITING_BYTES
            if (is_due or is_large or not snapshot.done) and (self._writing is None or self._writing.done()):
                self._saved_at = time.monotonic()
                self._writing = self._writer.submit(self._write_waiting)

    def write_result(self, write: Callable[[Path], None]) -> None:
        """Write the finished result into the directory; `close` reports if that fails.

        Args:
          write: Function that writes it to a path.
        """
        try:
            self._require_present()
            write(self.path / _RESULT)
        except Exception as error:  # whatever fails, the caller still returns the result
            self._result_failure = error

    def close(self) -> None:
        """Save the members that wait, and report what could not be saved."""
        self._writer.submit(self._write_waiting).result()
        self._writer.shutdown()
        if self._failure is not None:
            warn(
                f"directory {self.path}: the last members could not be saved ({self._failure}); the returned result "
                "holds them. Save it with result.save(...) where there is room."
            )
        elif self._result_failure is not None:
            warn(
                f"directory {self.path}: the result could not be written there ({self._result_failure}); it is "
                "returned. Save it with result.save(...) where there is room."
            )

    def index_checkpoints(self) -> None:
        """Index the members of all checkpoints; damaged checkpoints are skipped with a warning."""
        for number in sorted(checkpoints.numbers(self.path / _CHECKPOINTS)):
            folder, self._last = self._checkpoint(number), number
            try:
                contents = checkpoints.read_contents(folder)
            except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
                warn(
                    f"checkpoint {folder} is damaged ({error}); it is skipped. Its members are read from an earlier "
                    "checkpoint, or trained again."
                )
                os.replace(folder, folder.with_name(f"damaged-{number:08d}-{time.time_ns()}"))
                continue
            self._index(number, contents["blocks"])

    def _merged_with_earlier(
        self, depends_on: Mapping[str, Any], num_steps: int, *, patient: bool
    ) -> Mapping[str, Any]:
        """Compare with the earlier call, and keep its entries of structures that this grid does not have."""
        earlier, steps_before = self.description["depends_on"], self.description["num_steps"]
        different = fingerprints.differences(earlier, depends_on)
        if different:
            raise ArgumentError(
                "directory",
                f"directory {self.path} holds a different run: {'; '.join(different)}. Nothing was changed; make the "
                "same call as before, or give another directory.",
            )
        if num_steps < steps_before:
            raise ArgumentError(
                "num_steps",
                f"num_steps is {num_steps}, but directory {self.path} holds a run of {steps_before} steps, and a run "
                "can only grow; give at least as many, or another directory.",
            )
        if num_steps > steps_before and patient and steps_before % depends_on["eval_every"]:
            raise ArgumentError(
                "num_steps",
                f"num_steps is {num_steps}, but directory {self.path} holds a run with patience whose last step, "
                f"{steps_before}, is not a multiple of eval_every, {depends_on['eval_every']}, so that it cannot grow "
                "in steps; give another directory.",
            )
        return {
            name: {**earlier.get(name, {}), **value} if name in fingerprints.BY_STRUCTURE else value
            for name, value in depends_on.items()
        }

    def _write_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        blocks = checkpoints.merged(waiting)
        self._last += 1
        number = self._last
        try:
            self._require_present()
            contents = checkpoints.write(self._checkpoint(number), blocks)
        except Exception as error:  # whatever fails, training goes on
            if self._failure is None:
                warn(
                    f"directory {self.path} cannot be written ({error}); training continues, and saving is tried "
                    "again. Make room there."
                )
            self._failure = error
            with self._lock:  # members that are not done will be saved again anyway
                self._waiting = [*(snapshot for snapshot in waiting if snapshot.done), *self._waiting]
            return
        self._failure = None
        self._index(number, contents["blocks"])

    def _index(self, number: int, blocks: Sequence[Mapping[str, Any]]) -> None:
        """Index the members of a checkpoint, and remove checkpoints that are no longer needed."""
        for block_number, block in enumerate(blocks):
            for row, key in enumerate(block["keys"]):
                saved = SavedMember(block["step"], block["done"], number, block_number, row)
                self._saved.setdefault(key, []).append(saved)
                self._keys.setdefault(number, set()).add(key)
        for key in list(self._keys.get(number, ())):
            all_saved = self._saved[key]
            kept = 1 if all_saved[-1].done else _KEPT
            for old in all_saved[:-kept]:
                self._keys[old.checkpoint].discard(key)
                if not self._keys[old.checkpoint]:
                    files.remove_folder(self._checkpoint(old.checkpoint))
            self._saved[key] = all_saved[-kept:]

    def _checkpoint(self, number: int) -> Path:
        return self.path / _CHECKPOINTS / f"{number:08d}"

    def _require_present(self) -> None:
        """Raise if the directory is not the one that was opened."""
        if _identity(self.path) != self._identity:
            raise FileNotFoundError("it was removed, moved or replaced during the run")


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what an earlier call recorded in a directory.

    Args:
      path: The directory.

    Returns:
      Content of ``run.json``; empty if there is none.

    Raises:
      ValueError: It is damaged, or of a later version.
    """
    file = Path(path) / _RUN
    if not file.exists():
        return {}
    try:
        description = files.read_json(file)
        version = int(description["version"])
        if description["format"] != _FORMAT:
            raise ValueError("it was written by another program")
        if version <= _VERSION:
            return description
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"file {file} is damaged or altered ({error}), so that it is unknown what was trained there; nothing was "
            "changed. Give another directory."
        ) from error
    raise ValueError(
        f"directory {path} has format version {version}, this library reads up to {_VERSION}; upgrade weightdecay."
    )


@contextlib.contextmanager
def open_run(path: str | os.PathLike[str], *, save_every: float | int) -> Iterator[RunDirectory]:
    """Lock the directory of a run while it trains, and save what waits at the end.

    Args:
      path: The directory; it is created if it does not exist.
      save_every: Seconds between two saves.

    Yields:
      The run directory.

    Raises:
      OSError: It cannot be written, is a file, or holds other files.
      RuntimeError: Another process trains there.
      ValueError: ``run.json`` is damaged, or of a later version; or the path is not valid UTF-8.
    """
    directory = files.check_path(path, "directory")
    with _locked(directory):
        try:
            _enter(directory)
            run = RunDirectory(directory, read_description(directory), save_every)
            run.index_checkpoints()
            try:
                yield run
            finally:
                run.close()
        finally:
            with contextlib.suppress(OSError):
                (directory / _OWNER).unlink()


def check_save_every(save_every: Any) -> None:
    """Validate the time between two saves.

    Args:
      save_every: What the user passed.

    Raises:
      ArgumentError: It is not a number of seconds above 0.
    """
    if not is_number(save_every) or not save_every > 0:
        raise ArgumentError("save_every", f"save_every is {save_every!r}; give a number of seconds above 0.")


def finished_result(path: str | os.PathLike[str]) -> Path | None:
    """Find the result of a finished run.

    Args:
      path: A folder, which may be the directory of a run.

    Returns:
      The folder of its result; None if the path is not the directory of a run.

    Raises:
      FileNotFoundError: The run is not finished.
    """
    directory = Path(path)
    if not (directory / _RUN).exists():
        return None
    files.recover(directory / _RESULT)
    if not result_folder.is_result(directory / _RESULT):
        if read_description(directory)["depends_on"].get("kind") == "map_grid":
            raise FileNotFoundError(
                f"directory {directory} holds members of wd.map_grid, and no result to load; make the same call again "
                f"with directory={str(directory)!r}, which returns what is saved."
            )
        raise FileNotFoundError(
            f"directory {directory} holds a run that is not finished; resume it by the same call of wd.fit_grid with "
            f"directory={str(directory)!r}."
        )
    return directory / _RESULT


def _locked(path: Path) -> Any:
    """Create a directory and lock it; the lock is released at the end of a ``with``."""
    from filelock import FileLock, Timeout

    try:
        path.mkdir(parents=True, exist_ok=True)
        others = sorted(entry.name for entry in path.iterdir() if not _is_ours(entry.name))
        if others and not (path / _RUN).exists():
            raise FileExistsError(
                f"directory {path} holds other files ({', '.join(others[:3])}); nothing was changed. Give a new or an "
                "empty directory, or the directory of an earlier run."
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
        raise NotADirectoryError(f"directory {path} is below a file; give another directory.") from error
    except OSError as error:
        raise PermissionError(f"directory {path} cannot be written ({error}); give another directory.") from error


def _enter(path: Path) -> None:
    """Record which process trains in a locked directory, and remove what a killed process left."""
    if (path / _OWNER).exists():
        warn(f"directory {path}: {_owner(path)} was killed or crashed; resuming from what it saved.")
    try:
        (path / _CHECKPOINTS).mkdir(exist_ok=True)
    except OSError as error:
        raise _not_writable(path, error) from error
    checkpoints.read.cache_clear()
    unfinished = [entry for entry in path.iterdir() if entry.name not in _ENTRIES and _is_ours(entry.name)]
    files.recover(path / _RESULT)
    for entry in (*unfinished, *(path / _CHECKPOINTS).glob(".*")):
        shutil.rmtree(entry, ignore_errors=True)
    with contextlib.suppress(OSError):  # Only messages need it; a run can be resumed on a full disk.
        owner = {"process": os.getpid(), "host": socket.gethostname(), "since": time.ctime()}
        files.write_json(path / _OWNER, owner, parents=False)


def _is_ours(name: str) -> bool:
    """Whether a name in a directory is that of an entry of a run, or of an unfinished write of one."""
    return name in _ENTRIES or name.startswith(tuple(f".{entry}-" for entry in _ENTRIES))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _not_writable(path: Path, error: OSError) -> OSError:
    return OSError(f"directory {path} cannot be written ({error}); make room there, or give another directory.")


def _owner(path: Path) -> str:
    try:
        owner = files.read_json(path / _OWNER)
        return f"process {owner['process']} on {owner['host']} (since {owner['since']})"
    except (OSError, ValueError, LookupError):
        return "another process"
