"""Leases: which process trains which lane of a run directory.

``leases/CALL/`` belongs to one call, that is to some members up to some step; every process that makes the call uses
it:

- ``units.json``: the units of work, each the members of one lane, and the names of all members. The first process
  decides on them from what is left; the folder appears with this file in it, so that all processes have the same units.
- ``12``: the lease of unit 12, created with ``O_EXCL`` by the process whose name it holds. ``12.1`` takes its place
  after that process has died, ``12.2`` after the next one; who creates the file has the unit, so that two processes
  that see a process dead never both win. A lease is not given back: that its holder is gone is enough.
- ``result``, ``result.1``: the same for the one who writes the result; ``written``: it is written.

That a unit is finished is not recorded here: its members are saved at their last step.
"""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weightdecay.core import files
from weightdecay.storage.processes import Processes

_UNITS, _RESULT, _WRITTEN = "units.json", "result", "written"
_LISTED_FOR = 1.0  # seconds that a listing of the leases is trusted


class Leases:
    """The leases of one call, as one process sees them.

    Attributes:
      units: Units of work, ``(group, members)``: the number of the group and positions in it.
      keys: Names of the members of each group in the run directory.
    """

    def __init__(self, directory: Path, call: str, processes: Processes, content: Mapping[str, Any]) -> None:
        """Take the units of a call, or publish them.

        Args:
          directory: The run directory.
          call: Digest of the call.
          processes: The processes of the run directory; this one is among them.
          content: What ``units.json`` holds if this process is the first one: ``units``, ``keys`` and whatever
            `weightdecay.storage.run_status` shows. Where the folder cannot be written, this process trains all units.
        """
        self._processes, self._folder = processes, directory / "leases" / call
        published = content
        with contextlib.suppress(OSError, ValueError):  # a full disk, or a directory that was removed: it trains alone
            if not (self._folder / _UNITS).exists():
                self._publish(content)
            published = files.read_json(self._folder / _UNITS)
        self.units: list[tuple[int, list[int]]] = [(group, members) for group, members in published["units"]]
        self.keys: list[list[str]] = published["keys"]
        self._inode = self._current_inode()
        self._listed: set[str] = set()
        self._listed_at = -float("inf")

    def is_free(self, unit: int) -> bool:
        """Return whether nobody has held a unit yet, as far as this process knows."""
        if time.monotonic() - self._listed_at > _LISTED_FOR:
            with contextlib.suppress(OSError):
                self._listed = set(os.listdir(self._folder))
            self._listed_at = time.monotonic()
        return f"{unit}" not in self._listed

    def take(self, unit: int | str) -> bool:
        """Take a unit that nobody holds, or whose holder is dead.

        Args:
          unit: Number of the unit, or a name of something else that one process does.

        Returns:
          Whether this process holds it now. Where leases cannot be written, it is to go on without one.
        """
        if self._is_gone() or self._create(f"{unit}"):
            return True
        generation, holder = self.holder(unit)
        if holder == self._processes.name:
            return True
        return self._is_dead(generation, holder) and self._create(f"{unit}.{int(generation.rpartition('.')[2]) + 1}")

    def is_lost(self, unit: int | str) -> bool:
        """Return whether a unit has no living holder."""
        if self._is_gone():
            return True
        generation, holder = self.holder(unit)
        return holder != self._processes.name and self._is_dead(generation, holder)

    def holder(self, unit: int | str) -> tuple[str, str]:
        """Return the newest lease of a unit, ``unit.generation``, and the name of the process that holds it."""
        generation = 0
        while (self._folder / f"{unit}.{generation + 1}").exists():
            generation += 1
        name = f"{unit}.{generation}"
        try:
            return name, (self._folder / (name if generation else f"{unit}")).read_text(encoding="utf-8")
        except OSError:
            return name, ""

    def take_result(self) -> bool:
        """Wait until this process is to write the result, or another one has written it.

        Returns:
          Whether this process is to write it.
        """
        while not (self._folder / _WRITTEN).exists():
            if self.take(_RESULT):
                return True
            time.sleep(self._processes.patience() / 4)
        return False

    def result_is_written(self) -> None:
        """Record that the result is written."""
        self._create(_WRITTEN)

    def _current_inode(self) -> int:
        try:
            return self._folder.stat().st_ino
        except OSError:
            return 0

    def _is_gone(self) -> bool:
        """Return whether there are no leases of these units, since the folder could not be written, or was replaced."""
        return self._inode == 0 or self._current_inode() != self._inode

    def _is_dead(self, lease: str, holder: str) -> bool:
        # A process that died between creating a lease and writing its name has no name: the lease expires.
        return self._processes.is_dead(holder or f"lease {lease}")

    def _create(self, name: str) -> bool:
        try:
            descriptor = os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            self._listed.add(name)
            return False
        except OSError:
            return True  # the directory is full or gone, which the next save reports
        self._listed.add(name)
        try:
            os.write(descriptor, self._processes.name.encode())
        except OSError:
            pass
        finally:
            os.close(descriptor)
        return True

    def _publish(self, content: Mapping[str, Any]) -> None:
        self._folder.parent.mkdir(exist_ok=True)
        unfinished = self._folder.parent / f".{self._processes.name}"
        try:
            unfinished.mkdir()
            files.write_json(unfinished / _UNITS, content, parents=False)
            files.publish(unfinished, self._folder)
        finally:
            files.remove_folder(unfinished)


def read_units(directory: Path) -> list[dict[str, Any]]:
    """Read the units of every call of a run directory that is not finished.

    Args:
      directory: The run directory.

    Returns:
      The contents of ``units.json``, each with ``call``; those that cannot be read are left out.
    """
    read = []
    for folder in sorted((directory / "leases").glob("[!.]*")) if (directory / "leases").is_dir() else ():
        with contextlib.suppress(OSError, ValueError):
            read.append({**files.read_json(folder / _UNITS), "call": folder.name})
    return read


def holders(directory: Path, call: str, units: Sequence[int]) -> dict[int, str]:
    """Return who holds some units of a call, by unit; those that nobody has held are left out."""
    found: dict[int, tuple[int, str]] = {}
    folder = directory / "leases" / call
    for name in os.listdir(folder) if folder.is_dir() else ():
        unit, _, generation = name.partition(".")
        if unit.isdecimal() and (generation or "0").isdecimal() and int(unit) in units:
            if int(generation or 0) >= found.get(int(unit), (0, ""))[0]:
                with contextlib.suppress(OSError):
                    found[int(unit)] = int(generation or 0), (folder / name).read_text(encoding="utf-8")
    return {unit: holder for unit, (_, holder) in found.items()}
