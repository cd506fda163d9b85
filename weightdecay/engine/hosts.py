"""Several hosts of one mesh: every process makes the same call, and all of them compute the same lanes together.

What may differ between processes, such as the clock, free memory or a file, is decided in the first process, and the
others take it over. That one alone writes the run directory; what is read from it is sent to the others.
"""

import contextlib
import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from typing_extensions import override

from weightdecay.storage import run_directory
from weightdecay.storage.checkpoints import Snapshot
from weightdecay.storage.run_directory import RunDirectory

_HALF = 2**31  # a number of bytes is sent as two numbers of 31 bits


def several(mesh: Any) -> bool:
    """Whether a mesh has devices of several processes.

    Args:
      mesh: A mesh, or anything else.

    Returns:
      True if it does.
    """
    return isinstance(mesh, Mesh) and mesh.is_multi_process


def is_first(mesh: Any) -> bool:
    """Whether this process is the one that decides, writes and reports; always where a mesh is of one process.

    Args:
      mesh: A mesh, or anything else.

    Returns:
      True if it is.
    """
    return not several(mesh) or jax.process_index() == 0


def agreed(mesh: Any, function: Callable[[], Any]) -> Any:
    """Call a function in the first process of a mesh, and return what it returns, or raise its error, in all of them.

    Args:
      mesh: The mesh; if it is of one process, or is not a mesh, the function is called here.
      function: Returns anything that can be pickled. Every process must be here at the same time.

    Returns:
      What the function returned in the first process.

    Raises:
      Exception: What the function raised in the first process.
    """
    if not several(mesh):
        return function()
    outcome: tuple[Any, BaseException | None] = (None, None)
    if jax.process_index() == 0:
        try:
            outcome = function(), None
        except Exception as error:
            outcome = None, error
    value, error = _broadcast(outcome)
    if error is not None:
        raise error
    return value


@contextlib.contextmanager
def open_run(
    path: str | os.PathLike[str], *, mesh: Any, save_every: float | int, alone: bool
) -> Iterator[RunDirectory]:
    """Enter a run directory, as `weightdecay.storage.run_directory.open_run`, in all processes of a mesh.

    Args:
      path: The directory, which only the first process must see.
      mesh: The mesh; if it is of one process, or is not a mesh, the directory is that of this process.
      save_every: Seconds between two saves.
      alone: Whether no other call may train there; several hosts never let one.

    Yields:
      The run directory.

    Raises:
      OSError: As there.
      RuntimeError: As there.
      ValueError: As there.
    """
    if not several(mesh):
        with run_directory.open_run(path, save_every=save_every, alone=alone) as run:
            yield run
        return
    with contextlib.ExitStack() as stack:
        opened: list[RunDirectory] = []

        def enter() -> None:
            opened.append(stack.enter_context(run_directory.open_run(path, save_every=save_every, alone=True)))

        agreed(mesh, enter)
        yield HostsDirectory(mesh, path, opened[0] if opened else None)


class HostsDirectory(RunDirectory):
    """A run directory that the processes of a mesh use together; the first one alone reads and writes it."""

    is_shared = False

    def __init__(self, mesh: Mesh, path: Any, run: RunDirectory | None) -> None:
        """Take the directory of the first process; None in all others."""
        self._mesh, self._run, self._steps = mesh, run, {}
        self.path, self.index = path, _Refreshed(self)  # pyright: ignore[reportAttributeAccessIssue]

    def refresh(self) -> None:
        """Read which members are saved."""
        self._steps: dict[str, int] = self._agreed(lambda run: (run.index.refresh(), run.index.steps())[1])

    @override
    def record_dependencies(
        self, depends_on: Mapping[str, Any], num_steps: int, *, patient: bool = False, call: str | None = None
    ) -> None:
        self._agreed(lambda run: run.record_dependencies(depends_on, num_steps, patient=patient, call=call))

    @override
    def forget_description(self) -> None:
        if self._run is not None:
            self._run.forget_description()

    @override
    def saved_steps(self, key: str, num_steps: int) -> int:
        return min(self._steps.get(key, 0), num_steps)

    @override
    def in_disk_order(self, keys: Sequence[str]) -> list[int]:
        return self._agreed(lambda run: run.in_disk_order(keys))

    @override
    def has_members(self) -> bool:
        return bool(self._steps)

    @override
    def read(self, keys: Sequence[str]) -> Snapshot:
        return self._agreed(lambda run: run.read(keys))

    @override
    def is_due(self, saved_at: float) -> bool:
        return self._agreed(lambda run: run.is_due(saved_at))

    @override
    def save(self, snapshot: Snapshot) -> None:
        if self._run is not None:
            self._run.save(snapshot)

    @override
    def flush(self) -> None:
        if self._run is not None:
            self._run.flush()

    @override
    def record_members(self, members: Mapping[str, Mapping[str, Any]]) -> None:
        if self._run is not None:
            self._run.record_members(members)

    @override
    def write_result(self, write: Callable[[Any], None]) -> None:
        if self._run is not None:
            self._run.write_result(write)

    def _agreed(self, function: Callable[[RunDirectory], Any]) -> Any:
        def of_first() -> Any:
            assert self._run is not None
            return function(self._run)

        return agreed(self._mesh, of_first)


class _Refreshed:
    """The index of a run directory of several processes."""

    def __init__(self, directory: HostsDirectory) -> None:
        self._directory = directory

    def refresh(self) -> None:
        self._directory.refresh()


def _broadcast(value: Any) -> Any:
    """Send a value of the first process to all of them; it is made by this program, and never read from a file."""
    from jax.experimental import multihost_utils

    content = np.zeros(0, np.uint8)
    if jax.process_index() == 0:
        content = np.frombuffer(_pickled(value), np.uint8)
    high, low = map(int, multihost_utils.broadcast_one_to_all(np.array(divmod(len(content), _HALF), np.int32)))
    size = high * _HALF + low
    content = content if jax.process_index() == 0 else np.zeros(size, np.uint8)
    return pickle.loads(np.asarray(multihost_utils.broadcast_one_to_all(content)).tobytes())


def _pickled(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # such as an error that holds a lock
        return pickle.dumps((None, RuntimeError(f"{value!r} cannot be sent to the other hosts ({error})")))
