"""Run directories: a run saves itself while it trains, and the same call resumes it after an interruption.

- ``run.json``: what the numbers of the run depend on. A call that differs in any of it is refused, and the error names
  the difference; only the mesh of devices may differ, and those that were used are listed there.
- ``checkpoints/00000001/``: some members at one step each, as `weightdecay.storage.checkpoints` writes them.
- ``result/``: the finished result, as `weightdecay.storage.result_folder` writes it.
- ``members.json``: until then, the hyperparameters of the members (`weightdecay.storage.run_members`).
- ``processes/``, ``turn/``, ``leases/``: only while processes train there, or after they were killed: who they are
  (`weightdecay.storage.processes`), and which lanes each of them trains (`weightdecay.storage.leases`).

Any number of processes that make the same call share a directory; each takes lanes that nobody trains. A member is
identified by the hash of its hyperparameters and of the program that trains it, so that a grid may grow in its
directory. Reading executes no code from the files. A process may be killed at any moment: what it was writing is not
there, and another process, or the same call, resumes from what is.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from weightdecay.core import files
from weightdecay.core.checks import ArgumentError, is_number
from weightdecay.core.warn import warn
from weightdecay.search import member as member_json
from weightdecay.storage import checkpoints, entrance, fingerprints, result_folder
from weightdecay.storage.checkpoint_index import CheckpointIndex
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.leases import Leases
from weightdecay.storage.processes import Processes

_FORMAT, _VERSION = "weightdecay run", 1
_WAITING_BYTES = 256 * 2**20  # of members that are done and not saved yet


class RunDirectory:
    """The directory of a run, in which this process trains; `open_run` makes it.

    Attributes:
      path: The directory.
      description: Content of ``run.json``; empty if the run is new.
      save_every: Seconds between two saves.
      processes: The processes that train in the directory; this one is among them.
      index: Which members are saved.
      leases: Which process trains which lane; None = `share` was not called, and this process trains all of them.
      is_complete: Whether every member of the call is trained; set by who trains them.
      is_shared: Whether other processes may train some of the lanes.
    """

    is_shared = True

    def __init__(self, path: Path, description: dict[str, Any], save_every: float | int, processes: Processes) -> None:
        """Take the directory, which exists, and in which the process is registered."""
        self.path = path
        self.description = description
        self.save_every = save_every
        self.processes = processes
        self.index = CheckpointIndex(path / entrance.CHECKPOINTS, processes.name)
        self.leases: Leases | None = None
        self.is_complete = False
        self._identity = _identity(path)
        self._forgets = False
        self._lock = threading.Lock()
        self._waiting: list[Snapshot] = []
        self._saved_at = time.monotonic()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="save")
        self._writing: Future[None] | None = None
        self._failure: Exception | None = None
        self._result_failure: Exception | None = None

    def record_dependencies(
        self, depends_on: Mapping[str, Any], num_steps: int, *, patient: bool = False, call: str | None = None
    ) -> None:
        """Record what the numbers of the run depend on; refuse a call that differs from an earlier one.

        Args:
          depends_on: JSON values by name. ``data`` is an object of digests by split; the entries of
            `weightdecay.storage.fingerprints.BY_STRUCTURE` are objects by structure.
          num_steps: Number of steps of each member.
          patient: Whether any member has patience.
          call: Digest of the members and steps that this process trains; None = it shares nothing.

        Raises:
          ArgumentError: The directory holds a different run, or a run with more steps.
          RuntimeError: Another process trains other members or steps there now.
          OSError: The directory cannot be written.
        """
        description: dict[str, Any] = {}

        def compare() -> None:
            self.description = {} if self._forgets else read_description(self.path)
            merged = depends_on
            if self.description:
                merged = self._merged_with_earlier(depends_on, num_steps, patient=patient)
            description.update(
                format=_FORMAT, version=_VERSION, num_steps=num_steps, depends_on=json.loads(json.dumps(merged))
            )

        with entrance.turn_without_others(
            self.processes,
            lambda other: other.get("call") not in (None, call),
            f"directory {self.path} is in use by {{owner}}, which trains other members, or for other steps: wait until "
            "it ends, or give another directory.",
            before=compare,
        ):
            if description != self.description:
                try:
                    files.write_json(self.path / entrance.RUN, description, parents=False)
                except OSError as error:
                    raise entrance.not_writable(self.path, error) from error
            self.description, self._forgets = description, False
            self.processes.content["call"] = call
            with contextlib.suppress(OSError):  # a full disk: it trains alone
                self.processes.write()

    def forget_description(self) -> None:
        """Let the next `record_dependencies` replace what is recorded; only for a run that holds no members."""
        self._forgets = True

    def share(self, content: Mapping[str, Any]) -> Leases:
        """Share the lanes of the call with other processes, after `record_dependencies`.

        Args:
          content: Units of work, used if this process is the first one; see `weightdecay.storage.leases.Leases`.

        Returns:
          The leases of the units.
        """
        self.leases = Leases(self.path, self.processes.content["call"], self.processes, content)
        return self.leases

    def saved_steps(self, key: str, num_steps: int) -> int:
        """Return the number of steps of a member that need not be trained again.

        Args:
          key: Name of the member.
          num_steps: Number of steps wanted.

        Returns:
          At most ``num_steps``; 0 if the member is not saved.
        """
        return min(self.index.step(key), num_steps)

    def in_disk_order(self, keys: Sequence[str]) -> list[int]:
        """Return the positions of the keys whose members are saved, in the order in which they are on the disk."""
        saved = [position for position, key in enumerate(keys) if key in self.index]
        return sorted(saved, key=lambda position: self.index.position(keys[position]))

    def has_members(self) -> bool:
        """Return whether any member is saved."""
        return bool(self.index)

    def read(self, keys: Sequence[str]) -> Snapshot:
        """Read members as they were saved last.

        Args:
          keys: Names of saved members, all at one step.

        Returns:
          Their snapshot.

        Raises:
          OSError: The checkpoint is gone.
        """
        return self.index.read(keys)

    def is_due(self, saved_at: float) -> bool:
        """Return whether members should be saved that were saved last at a time of `time.monotonic`."""
        return time.monotonic() - saved_at >= self.save_every

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

    def flush(self) -> None:
        """Save the members that wait, and wait until they are saved."""
        self._writer.submit(self._write_waiting).result()

    def record_members(self, members: Mapping[str, Mapping[str, Any]]) -> None:
        """Record the hyperparameters of the members that a call trains, for reports of a run that is not finished.

        Where the disk is full, nothing is recorded.

        Args:
          members: Hyperparameters by the name of the member in the run directory, in the order of the grid.
        """
        encoded = {key: member_json.encode(member) for key, member in members.items()}
        with contextlib.suppress(OSError):
            content = {"format": entrance.MEMBERS_FORMAT, "members": encoded}
            files.write_json(self.path / entrance.MEMBERS, content, parents=False)

    def write_result(self, write: Callable[[Path], None]) -> None:
        """Write the finished result into the directory, unless another process does; `close` reports if that fails.

        Args:
          write: Function that writes it to a path.
        """
        try:
            self._require_present()
            if self.leases is None or self.leases.take_result():
                write(self.path / entrance.RESULT)
                if self.leases is not None:
                    self.leases.result_is_written()
            if result_folder.is_result(self.path / entrance.RESULT):  # else the process that writes it removes them
                (self.path / entrance.MEMBERS).unlink(missing_ok=True)
        except Exception as error:  # whatever fails, the caller still returns the result
            self._result_failure = error

    def close(self) -> None:
        """Save the members that wait, report what could not be saved, and leave the directory."""
        try:
            self.flush()
            self._writer.shutdown()
        finally:
            entrance.leave(self.path, self.processes, is_complete=self.is_complete and self._failure is None)
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
        } | fingerprints.meshes(earlier, depends_on)

    def _write_waiting(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            self.index.write(checkpoints.merged(waiting), self._require_present)
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
    file = Path(path) / entrance.RUN
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
def open_run(path: str | os.PathLike[str], *, save_every: float | int, alone: bool = False) -> Iterator[RunDirectory]:
    """Enter the directory of a run while this process trains there, and save what waits at the end.

    Args:
      path: The directory; it is created if it does not exist.
      save_every: Seconds between two saves.
      alone: Whether the run cannot be shared, so that no other process may be there.

    Yields:
      The run directory.

    Raises:
      OSError: It cannot be written, is a file, or holds other files.
      RuntimeError: Another process trains there, and either of the two runs cannot be shared.
      ValueError: ``run.json`` is damaged, or of a later version; or the path is not valid UTF-8.
    """
    directory = files.check_path(path, "directory")
    entrance.create(directory)
    present = Processes(directory)
    entrance.enter(directory, present, alone=alone)
    try:
        run = RunDirectory(directory, read_description(directory), save_every, present)
        run.index.refresh(verify=True)
    except BaseException:
        entrance.leave(directory, present, is_complete=False)
        raise
    try:
        yield run
    finally:
        run.close()


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
    if not (directory / entrance.RUN).exists():
        return None
    files.recover(directory / entrance.RESULT)
    if not result_folder.is_result(directory / entrance.RESULT):
        if read_description(directory)["depends_on"].get("kind") == "map_grid":
            raise FileNotFoundError(
                f"directory {directory} holds members of wd.map_grid, and no result to load; make the same call again "
                f"with directory={str(directory)!r}, which returns what is saved."
            )
        raise FileNotFoundError(
            f"directory {directory} holds a run that is not finished; resume it by the same call of wd.fit_grid with "
            f"directory={str(directory)!r}."
        )
    return directory / entrance.RESULT


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
