"""Which members are saved in which checkpoint of a run directory, also while other processes save there.

Checkpoints are numbered folders. A process writes one under a name of its own, and then gives it the next number that
nobody has. It removes a checkpoint whose members are all saved at a later step. Who reads one that was removed
meanwhile looks again, and finds the later one.
"""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from weightdecay.core import files
from weightdecay.core.warn import warn
from weightdecay.storage import checkpoints
from weightdecay.storage.checkpoints import Snapshot

_KEPT = 2  # checkpoints of a member that is not done: the last and the one before
_LOOKS = 4  # attempts at reading a member that another process saves meanwhile


class SavedMember(NamedTuple):
    """Where a member is saved; later steps are larger.

    Attributes:
      step: Number of steps that it had taken.
      checkpoint: Number of the checkpoint.
      block: Number of the block in the checkpoint.
      row: Row in the block.
      done: Whether it takes no more steps in the run.
    """

    step: int
    checkpoint: int
    block: int
    row: int
    done: bool


class CheckpointIndex:
    """Members of the checkpoints in a folder."""

    def __init__(self, folder: Path, writer: str) -> None:
        """Take the folder, and a name that no other process has."""
        self._folder, self._writer = folder, writer
        self._saved: dict[str, list[SavedMember]] = {}  # by key, latest step last
        self._keys: dict[int, set[str]] = {}  # by checkpoint
        self._lock = threading.RLock()
        self._written = itertools.count(1)

    def __bool__(self) -> bool:
        """Return whether any member is saved."""
        return bool(self._saved)

    def __contains__(self, key: str) -> bool:
        """Return whether a member is saved."""
        return key in self._saved

    def step(self, key: str) -> int:
        """Return the last step at which a member is saved; 0 if it is not."""
        saved = self._saved.get(key)
        return saved[-1].step if saved else 0

    def steps(self) -> dict[str, int]:
        """Return the last step of each saved member, by key."""
        return {key: saved[-1].step for key, saved in self._saved.items()}

    def position(self, key: str) -> tuple[int, int, int]:
        """Return where a saved member is on the disk: checkpoint, block and row."""
        saved = self._saved[key][-1]
        return saved.checkpoint, saved.block, saved.row

    def refresh(self, *, verify: bool = False) -> None:
        """Index the checkpoints that are new, and forget those that are gone.

        Args:
          verify: Whether the files of new checkpoints are compared with their checksums. A damaged checkpoint is
            renamed, with a warning.
        """
        with self._lock:
            try:
                numbers = sorted(checkpoints.numbers(self._folder))
            except OSError:
                return
            for number in self._keys.keys() - set(numbers):
                self._forget(number)
            for number in numbers:
                if number not in self._keys:
                    self._index_folder(number, verify=verify)

    def write(self, blocks: Sequence[Snapshot], require_present: Callable[[], None]) -> None:
        """Write a checkpoint under the next number, and index it.

        Args:
          blocks: What to write, as `weightdecay.storage.checkpoints.merged` returns it.
          require_present: Raises if the folder is not the one that was opened.

        Raises:
          OSError: It cannot be written.
        """
        unfinished = self._folder / f".{self._writer}-{next(self._written)}"
        require_present()
        contents = checkpoints.write(unfinished, blocks)
        self._publish(unfinished, contents)

    def adopt(self, folder: Path) -> None:
        """Take the checkpoints of another folder of the same file system.

        Args:
          folder: Has checkpoints with the names of their numbers; they are moved.

        Raises:
          OSError: They cannot be moved.
          ValueError: A checkpoint is damaged.
        """
        for number in sorted(checkpoints.numbers(folder)):
            contents = checkpoints.read_contents(folder / f"{number:08d}")
            unfinished = self._folder / f".{self._writer}-{next(self._written)}"
            os.rename(folder / f"{number:08d}", unfinished)
            self._publish(unfinished, contents)

    def _publish(self, unfinished: Path, contents: Mapping[str, Any]) -> None:
        try:
            number = max([*checkpoints.numbers(self._folder), *self._keys], default=0) + 1
            while not files.publish(unfinished, self._folder / f"{number:08d}"):
                number += 1
        except BaseException:
            files.remove_folder(unfinished)
            raise
        with self._lock:
            self._index(number, contents["blocks"])

    def read(self, keys: Sequence[str]) -> Snapshot:
        """Read members as they were saved last.

        Args:
          keys: Names of saved members, all at one step.

        Returns:
          Their snapshot.

        Raises:
          OSError: A checkpoint is gone, or the members are not at one step.
        """
        for look in range(_LOOKS):
            try:
                return self._read(keys)
            except (OSError, LookupError, ValueError) as error:
                if look == _LOOKS - 1:
                    raise error if isinstance(error, OSError) else OSError(f"{error}") from error
            checkpoints.read.cache_clear()
            self.refresh()
        raise AssertionError("unreachable")

    def _read(self, keys: Sequence[str]) -> Snapshot:
        with self._lock:
            saved = [self._saved[key][-1] for key in keys]
        blocks = {number: checkpoints.read(self._path(number)) for number in {one.checkpoint for one in saved}}
        members = [blocks[one.checkpoint][one.block].member(one.row) for one in saved]
        for key, one, member in zip(keys, saved, members, strict=True):
            if member.keys != [key] or member.step != one.step:  # another checkpoint has the number now
                with self._lock:
                    self._forget(one.checkpoint)
                raise FileNotFoundError(f"checkpoint {one.checkpoint} was removed")
        if len({one.step for one in saved}) > 1:
            raise FileNotFoundError("the members are saved at several steps")
        return checkpoints.concatenated(members)

    def _index_folder(self, number: int, *, verify: bool) -> None:
        folder = self._path(number)
        try:
            contents = checkpoints.read_contents(folder, verify=verify)
            self._index(number, contents["blocks"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if not folder.exists():  # another process has removed it
                return
            with contextlib.suppress(OSError):
                os.replace(folder, folder.with_name(f"damaged-{number:08d}-{time.time_ns()}"))
            warn(
                f"checkpoint {folder} is damaged ({error}); it is skipped. Its members are read from an earlier "
                "checkpoint, or trained again."
            )

    def _index(self, number: int, blocks: Sequence[Any]) -> None:
        """Index the members of a checkpoint, and remove checkpoints that are no longer needed."""
        if number in self._keys:
            return
        keys = self._keys.setdefault(number, set())
        for block_number, block in enumerate(blocks):
            for row, key in enumerate(block["keys"]):
                saved = SavedMember(block["step"], number, block_number, row, block["done"])
                self._saved[key] = sorted([*self._saved.get(key, ()), saved])
                keys.add(key)
        for key in list(keys):
            all_saved = self._saved[key]
            kept = 1 if all_saved[-1].done else _KEPT
            for old in all_saved[:-kept]:
                self._keys[old.checkpoint].discard(key)
                if not self._keys[old.checkpoint]:
                    del self._keys[old.checkpoint]
                    files.remove_folder(self._path(old.checkpoint), self._writer)
            self._saved[key] = all_saved[-kept:]

    def _forget(self, number: int) -> None:
        for key in self._keys.pop(number, ()):
            left = [saved for saved in self._saved[key] if saved.checkpoint != number]
            self._saved[key] = left
            if not left:
                del self._saved[key]

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}"
