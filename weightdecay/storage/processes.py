"""The processes that train in one run directory: who is there, who is alive, and whose turn it is to change the run.

- ``processes/NAME.json``: one file a process, which the process replaces every few seconds with a higher ``beat``. It
  holds the host, the process id, the call and what the process trains now. The name tells host, process id, start of
  the process, machine and a random number.
- ``turn/NAME``: the process that changes ``run.json`` now, for some milliseconds.

A process is dead if it runs on this machine and its process id is gone, if its file is gone, or if this process saw no
new beat for `EXPIRY` seconds by its own clock: the clocks of two machines are never compared. A process that is wrongly
taken for dead (it was stopped, or its file system hung) does no harm: it trains what another one trains as well, and
both write the same bits. The file system must rename in one step, refuse to rename a folder onto one that is not empty,
and refuse to create with ``O_EXCL`` what exists; nothing else is used.
"""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

HEARTBEAT = 5.0
"""Seconds between two beats of a process."""
EXPIRY = 60.0
"""Seconds without a beat after which a process is taken for dead."""
_READS = 0.2  # seconds that a process waits for each other process between two looks at all of them
_TAKEN = (errno.ENOTEMPTY, errno.EEXIST)


class Identity(NamedTuple):
    """What the name of a process tells.

    Attributes:
      host: Name of the host.
      pid: Process id.
      start: When the process started, by the clock of its machine; empty where the system does not tell.
      machine: Boot and process namespace of the machine, in which the process id holds.
    """

    host: str
    pid: int
    start: str
    machine: str

    @classmethod
    def of(cls, name: str) -> "Identity | None":
        """Parse the name of a process; None if it is not one."""
        matched = re.fullmatch(r"(.+)_(\d+)_(\d*)_(\w+)_\w+", name)
        return None if matched is None else cls(matched[1], int(matched[2]), matched[3], matched[4])

    def is_gone(self) -> bool:
        """Return whether the process certainly does not run: it was on this machine, and its process id is free."""
        if self.machine != _machine() or self.host != _host():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        state, start = _state(self.pid)
        return state == "Z" or (bool(self.start) and bool(start) and start != self.start)


def new_name() -> str:
    """Return a name for a call in this process, which no other call has."""
    return f"{_host()}_{os.getpid()}_{_state(os.getpid())[1]}_{_machine()}_{secrets.token_hex(4)}"


class Processes:
    """The processes of a run directory, as one of them sees them.

    Attributes:
      directory: The run directory.
      name: Name of this process.
      content: What the file of this process holds in addition to its identity and beat; changed in place.
      on_beat: Called in the thread of the heartbeat before each beat.
    """

    def __init__(self, directory: Path) -> None:
        """Take the run directory, which exists; nothing is written yet."""
        self.name = new_name()
        self.content: dict[str, Any] = {}
        self.on_beat: Callable[[], Any] = lambda: None
        self.directory, self._folder = directory, directory / "processes"
        self._beat = 0
        self._seen: dict[str, tuple[Any, float]] = {}  # the last beat of others, and when it was first seen
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._keep_beating, name="heartbeat", daemon=True)

    def enter(self) -> None:
        """Register this process, and start its heartbeat.

        Raises:
          OSError: Its file cannot be written.
        """
        self._folder.mkdir(exist_ok=True)
        self.write()
        self._thread.start()

    def write(self) -> None:
        """Write the file of this process with the next beat."""
        identity = Identity.of(self.name)
        assert identity is not None
        self._beat += 1
        content = {"process": identity.pid, "host": identity.host, **self.content, "beat": self._beat}
        unfinished = self._folder / f".{self.name}"
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        os.replace(unfinished, self._file(self.name))

    def leave(self) -> None:
        """Stop the heartbeat and remove the file of this process."""
        self._left.set()
        if self._thread.ident is not None:
            self._thread.join()
        for file in (self._file(self.name), self._folder / f".{self.name}"):
            with contextlib.suppress(OSError):
                file.unlink()

    def others(self) -> dict[str, dict[str, Any]]:
        """Return what the files of all other processes hold, by name; dead ones are among them."""
        return {name: content for name, content in read(self.directory).items() if name != self.name}

    def is_here(self, name: str) -> bool:
        """Return whether a process is on this machine, where its end is seen at once."""
        identity = Identity.of(name)
        return identity is not None and (identity.host, identity.machine) == (_host(), _machine())

    def is_dead(self, name: str) -> bool:
        """Return whether a process is dead; one of another machine must have been looked at for a while.

        Args:
          name: Its name. Any other string counts as a process that never beats.
        """
        if name == self.name:
            return False
        identity = Identity.of(name)
        if identity is not None and identity.is_gone():
            return True
        if identity is not None and not self._file(name).exists():
            return True
        return self._is_silent(name, _read(self._file(name)).get("beat"))

    def remove(self, name: str) -> None:
        """Remove the file of a process that is dead."""
        with contextlib.suppress(OSError):
            self._file(name).unlink()

    def patience(self) -> float:
        """Return the seconds between two looks at all processes, more where there are many."""
        return max(min(HEARTBEAT, 1.0), _READS * len(self._seen))

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Let only one process at a time be in the block; the others wait.

        Raises:
          OSError: The directory cannot be written. Where there is merely no room, the block runs without waiting.
        """
        turn, mine = self.directory / "turn", self.directory / f".turn-{self.name}"
        try:
            self._wait_for_turn(mine, turn)
        except OSError as error:
            shutil.rmtree(mine, ignore_errors=True)
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (turn / self.name).unlink()
                turn.rmdir()  # fails where the next process has taken it already

    def _wait_for_turn(self, mine: Path, turn: Path) -> None:
        while True:
            mine.mkdir(exist_ok=True)  # again where the process whose turn it is has tidied up
            try:
                (mine / self.name).touch()
                os.rename(mine, turn)  # fails where the folder holds the name of another process
                return
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in _TAKEN:
                    raise
            with contextlib.suppress(OSError):
                for name in os.listdir(turn):
                    if self._has_lost_turn(name):
                        os.rename(turn / name, turn / self.name)  # the first one who looks gets it
                        shutil.rmtree(mine, ignore_errors=True)
                        return
            time.sleep(0.02)

    def _has_lost_turn(self, name: str) -> bool:
        identity = Identity.of(name)
        if identity is not None and identity.is_gone():
            return True
        # A process takes its first turn before it has a file.
        return self.is_dead(name) if self._file(name).exists() else self._is_silent(f"turn of {name}", None)

    def _is_silent(self, name: str, beat: Any) -> bool:
        """Return whether this process has seen the same beat for long, by its own clock."""
        now = time.monotonic()
        if name not in self._seen or self._seen[name][0] != beat:
            self._seen[name] = beat, now
        return now - self._seen[name][1] >= EXPIRY

    def _keep_beating(self) -> None:
        while not self._left.wait(HEARTBEAT):
            with contextlib.suppress(OSError):  # a full disk, or a directory that was removed: others see no beat
                self.on_beat()
                self.write()

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def read(directory: Path) -> dict[str, dict[str, Any]]:
    """Read the files of all processes of a run directory.

    Args:
      directory: The run directory.

    Returns:
      Their contents by name; empty where a file cannot be read now.
    """
    try:
        names = sorted(os.listdir(directory / "processes"))
    except OSError:
        return {}
    return {name.removesuffix(".json"): _read(directory / "processes" / name) for name in names if name[0] != "."}


def described(content: Mapping[str, Any]) -> str:
    """Return who a process is, for messages: ``process 12 on host (since ...)``."""
    return f"process {content.get('process')} on {content.get('host')} (since {content.get('since')})"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname())[:60] or "host"


def _machine() -> str:
    """Return what the process ids of this machine hold in: its boot, and the namespace of a container."""
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
    with contextlib.suppress(OSError):
        parts.append(re.sub(r"\D", "", os.readlink("/proc/self/ns/pid")))
    return "x".join(parts) or "here"


def _state(pid: int) -> tuple[str, str]:
    """Return the state of a process, ``Z`` for one that has ended, and when it started; empty where unknown."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""
