"""How a process enters and leaves a run directory: what may be there, who else is there, and who tidies up."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from weightdecay.core import files
from weightdecay.core.warn import warn
from weightdecay.storage import checkpoints, processes
from weightdecay.storage.processes import Processes

RUN, CHECKPOINTS, RESULT, MEMBERS = "run.json", "checkpoints", "result", "members.json"
MEMBERS_FORMAT = "weightdecay members 1"
_PROCESSES, _TURN, _LEASES = "processes", "turn", "leases"
_EARLIER = {"lock", "owner.json"}  # earlier versions let one process in
_OPTIONS = "sweep.yaml"  # what the command line writes before the run begins
_ENTRIES = {RUN, CHECKPOINTS, RESULT, MEMBERS, _PROCESSES, _TURN, _LEASES, _OPTIONS, *_EARLIER}


def create(path: Path) -> None:
    """Create a directory, or check that it is one of a run."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = sorted(entry.name for entry in path.iterdir() if not _is_ours(entry.name))
        if others and not (path / RUN).exists():
            raise FileExistsError(
                f"directory {path} holds other files ({', '.join(others[:3])}); nothing was changed. Give a new or an "
                "empty directory, or the directory of an earlier run."
            )
    except FileExistsError as error:
        if path.is_dir():
            raise
        raise NotADirectoryError(f"directory {path} is a file; give a new or an empty directory.") from error
    except NotADirectoryError as error:
        raise NotADirectoryError(f"directory {path} is below a file; give another directory.") from error
    except OSError as error:
        raise PermissionError(f"directory {path} cannot be written ({error}); give another directory.") from error


def enter(path: Path, present: Processes, *, alone: bool) -> None:
    """Register this process in a directory, and remove what killed processes left where nobody else is there.

    Args:
      path: The directory.
      present: The processes there, as this one sees them.
      alone: Whether this process cannot share the run.

    Raises:
      RuntimeError: Another process is there, and either of the two runs cannot be shared.
      OSError: The directory cannot be written.
    """
    refusal = f"directory {path} is in use by {{owner}}: wait until it ends, or give another directory. " + (
        "A run with a budget or a strategy cannot be shared by several processes."
    )
    with turn_without_others(present, lambda other: alone or other.get("alone"), refusal):
        living = False
        for name, content in present.others().items():
            if present.is_dead(name):
                warn(
                    f"directory {path}: {processes.described(content)} was killed or crashed; resuming from what it "
                    "saved."
                )
                present.remove(name)
            else:
                living = True
        try:
            (path / CHECKPOINTS).mkdir(exist_ok=True)
        except OSError as error:
            raise not_writable(path, error) from error
        checkpoints.read.cache_clear()
        if not living:
            _remove_unfinished(path)
        present.content |= {"since": time.ctime(), "alone": alone, "call": None}
        with contextlib.suppress(OSError):  # A run can be resumed on a full disk; others do not see it there.
            present.enter()


def leave(path: Path, present: Processes, *, is_complete: bool) -> None:
    """Take this process out of a directory; the last one of a complete run removes what they shared."""
    try:
        with present.turn():
            present.leave()
            for name in present.others():
                if present.is_dead(name):
                    present.remove(name)
            if not present.others():
                if is_complete:
                    files.remove_folder(path / _LEASES)
                shutil.rmtree(path / _PROCESSES, ignore_errors=True)
    except OSError:  # the directory is gone, or cannot be written
        present.leave()


@contextlib.contextmanager
def turn_without_others(
    present: Processes,
    is_in_the_way: Callable[[Mapping[str, Any]], Any],
    refusal: str,
    before: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Take the turn to change a run; refuse where a living process is in the way.

    Args:
      present: The processes of the directory.
      is_in_the_way: Function of what the file of another process holds.
      refusal: Message, with ``{owner}`` for the process.
      before: Called in the turn, before others are looked for.

    Raises:
      RuntimeError: A process is in the way. One of another machine is watched until it beats, or expires.
    """
    watched: dict[str, Any] = {}
    while True:
        try:
            turn = contextlib.ExitStack()
            turn.enter_context(present.turn())
        except OSError as error:
            raise PermissionError(
                f"directory {present.directory} cannot be written ({error}); give another directory."
            ) from error
        with turn:
            before()
            found = {name: content for name, content in present.others().items() if is_in_the_way(content)}
            found = {name: content for name, content in found.items() if not present.is_dead(name)}
            for name, content in found.items():
                if present.is_here(name) or watched.setdefault(name, content.get("beat")) != content.get("beat"):
                    raise RuntimeError(refusal.format(owner=processes.described(content)))
            if not found:
                yield
                return
        time.sleep(processes.HEARTBEAT / 4)


def _remove_unfinished(path: Path) -> None:
    """Remove what processes that were killed did not finish; no other process is there."""
    unfinished = [entry for entry in path.iterdir() if entry.name not in _ENTRIES and _is_ours(entry.name)]
    files.recover(path / RESULT)
    for entry in (*unfinished, *(path / CHECKPOINTS).glob(".*"), path / _LEASES, path / _PROCESSES):
        shutil.rmtree(entry, ignore_errors=True)
    for name in _EARLIER:
        with contextlib.suppress(OSError):
            (path / name).unlink()


def _is_ours(name: str) -> bool:
    """Whether a name in a directory is that of an entry of a run, or of an unfinished write of one."""
    return name in _ENTRIES or name.startswith(tuple(f".{entry}-" for entry in _ENTRIES))


def not_writable(path: Path, error: OSError) -> OSError:
    """Make the error about a directory that cannot be written."""
    return OSError(f"directory {path} cannot be written ({error}); make room there, or give another directory.")
