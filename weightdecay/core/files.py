"""Atomic writing of files and folders, and JSON files with a checksum.

`atomic` is the one writer of the library: a file or folder is complete under its name, or not there at all. Each write
goes to a folder of its own next to the target, which the writing process locks. A process that is killed leaves this
folder behind; the next write of the same target finds that nobody holds the lock, and removes it.
"""

import contextlib
import ctypes
import errno
import hashlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weightdecay.core.checks import ArgumentError

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows: folders of killed processes stay
    fcntl = None

_REPLACED = "replaced"  # the earlier target, within the folder of an unfinished write
_LONGEST_NAME = 100  # bytes of the target's name within the name of the folder of an unfinished write
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_AT_CURRENT_FOLDER = -100  # AT_FDCWD


@contextlib.contextmanager
def atomic(path: Path, *, parents: bool = True) -> Iterator[Path]:
    """Write a file or a folder so that it appears complete or not at all.

    The block writes to a path in a new folder next to ``path``. At the end of the block the data is flushed to the
    disk, and the new file or folder gets the name ``path`` in one step. An existing file or folder is replaced: at
    every moment either the old or the new one is complete under its name. If the block raises, the old one stays.

    Files and folders get the permissions of newly created ones (``0o666`` and ``0o777`` without the bits of the umask).
    If ``path`` is a symbolic link, its target is replaced.

    Args:
      path: The file or folder to write.
      parents: Whether missing parent folders are created.

    Yields:
      A path that does not exist yet, with the name of ``path``. The block creates a file or a folder there.

    Raises:
      OSError: The file or folder cannot be written.
    """
    path = Path(os.path.realpath(path))
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    with _unfinished(path) as folder:
        recover(path)
        _remove_abandoned(path)
        written = folder / path.name
        yield written
        _set_permissions(written, folder)
        _flush(written)
        _rename(written, path, folder / _REPLACED)
        _flush_folder(path.parent)


def recover(path: Path) -> None:
    """Finish a replacement that was interrupted between its two renames.

    This can only happen on file systems that cannot exchange two names in one step (see `atomic`). Nothing happens if
    ``path`` exists or cannot be recovered.

    Args:
      path: File or folder that `atomic` writes.
    """
    path = Path(os.path.realpath(path))
    if os.path.lexists(path):
        return
    for folder in _abandoned(path):
        # The earlier target is moved aside only after the new one is complete.
        if os.path.lexists(folder / _REPLACED) and os.path.lexists(folder / path.name):
            with contextlib.suppress(OSError):
                os.rename(folder / path.name, path)
            return


def publish(folder: Path, name: Path) -> bool:
    """Give a complete folder a name in one step, unless a folder has the name.

    Args:
      folder: The folder, which is not empty.
      name: The new name, in the same parent folder.

    Returns:
      Whether the folder has the name now; several processes may try at the same time, and one succeeds.

    Raises:
      OSError: It cannot be renamed.
    """
    try:
        os.rename(folder, name)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    _flush_folder(name.parent)
    return True


def remove_folder(folder: Path, by: str = "") -> None:
    """Remove a folder so that it is complete under its name, or not there at all; what cannot be removed stays.

    Args:
      folder: The folder. A process that is killed meanwhile leaves ``.<name>-removed`` next to it.
      by: Name of the process, where several processes may remove the same folder.
    """
    removed = folder.with_name(f".{folder.name}-removed{by and '-'}{by}")
    with contextlib.suppress(OSError):
        os.rename(folder, removed)
        shutil.rmtree(removed, ignore_errors=True)


def check_path(path: str | os.PathLike[str], argument: str) -> Path:
    """Validate a path before any work is done for what is to be written there.

    Args:
      path: What the user passed.
      argument: Name of the argument, for the message.

    Returns:
      The path.

    Raises:
      ArgumentError: The path is not valid UTF-8, which the formats of the files require, or holds a null character.
    """
    checked = Path(path)
    try:
        valid = "\0" not in str(checked)
        str(checked.absolute()).encode("utf-8")
    except UnicodeEncodeError:
        valid = False
    if not valid:
        raise ArgumentError(argument, f"{argument} is {str(checked)!r}, which is not valid UTF-8; give another path.")
    return checked


def canonical(value: Any) -> bytes:
    """Encode a JSON value as bytes that do not depend on the order of keys, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def file_sum(file: Path) -> str:
    """Compute the SHA-256 of a file; pipes and devices are refused."""
    with opened_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any], *, parents: bool = True) -> None:
    """Write a JSON object with a checksum to a file; see `atomic`.

    Args:
      path: The file.
      content: A JSON object without the key ``checksum``.
      parents: Whether missing parent folders are created.

    Raises:
      OSError: The file cannot be written.
    """
    content = json.loads(json.dumps(content))
    digest = hashlib.sha256(canonical(content)).hexdigest()
    with atomic(path, parents=parents) as unfinished:
        unfinished.write_text(json.dumps({**content, "checksum": digest}, indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that `write_json` wrote.

    Args:
      path: The file.

    Returns:
      Its content, without the checksum.

    Raises:
      ValueError: The file is not JSON, or its checksum does not match.
      OSError: The file cannot be read.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is not a JSON object")
    digest = content.pop("checksum", None)
    if hashlib.sha256(canonical(content)).hexdigest() != digest:
        raise ValueError(f"{path.name} was altered")
    return content


def opened_file(file: Path) -> io.BufferedReader:
    """Open a regular file for reading; a pipe or a device has no size, and reading it may never end.

    Args:
      file: Its path.

    Returns:
      The open file.

    Raises:
      ValueError: It is not a regular file.
      OSError: It cannot be opened.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is not a regular file")
    return open(file, "rb")


def damaged(file: Path, error: Exception) -> ValueError:
    """Make the error about a file that cannot be read.

    Args:
      file: Its path.
      error: What its parser raised.

    Returns:
      The error to raise.
    """
    reason = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
    return ValueError(f"file {file} is missing, damaged or altered ({reason}); save it again.")


@contextlib.contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Make the folder of a write, locked by this process until it is removed."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=_prefix(path.name), dir=path.parent))
        lock = _lock(folder)
        # Another process may have taken the folder for abandoned before it was locked.
        if lock is not None and folder.exists():
            break
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _prefix(target: str) -> str:
    return f".{os.fsdecode(os.fsencode(target)[:_LONGEST_NAME])}-unfinished-"


def _lock(folder: Path) -> int | None:
    """Lock a folder and return its descriptor; None if it is gone or another process holds it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows cannot open folders
        return os.open(os.devnull, os.O_RDONLY)
    except FileNotFoundError:
        return None
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            pass  # The file system has no locks, so that nobody removes the folder.
    return descriptor


def _abandoned(path: Path) -> Iterator[Path]:
    """Folders of writes of ``path`` whose processes are dead, each locked while it is looked at."""
    if fcntl is None:
        return
    try:
        names = sorted(name for name in os.listdir(path.parent) if name.startswith(_prefix(path.name)))
    except OSError:
        return
    for name in names:
        folder = path.parent / name
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _remove_abandoned(path: Path) -> None:
    for folder in _abandoned(path):
        shutil.rmtree(folder, ignore_errors=True)


def _rename(written: Path, path: Path, replaced: Path) -> None:
    """Give ``written`` the name ``path``; an existing folder changes places with it."""
    if not os.path.lexists(path) or not written.is_dir():
        os.replace(written, path)
    elif not _exchanged(written, path):
        os.rename(path, replaced)
        os.rename(written, path)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    names = os.fsencode(one), os.fsencode(other)
    if renameat2(_AT_CURRENT_FOLDER, names[0], _AT_CURRENT_FOLDER, names[1], _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(other))


def _set_permissions(written: Path, folder: Path) -> None:
    """Give what was written the permissions of new files, whatever library wrote it."""
    probe = folder / "permissions"
    os.close(os.open(probe, os.O_CREAT | os.O_WRONLY, 0o666))
    mode = probe.stat().st_mode & 0o666
    for entry in _entries(written):
        # Who may read a folder may enter it.
        os.chmod(entry, mode | (mode & 0o444) >> 2 if entry.is_dir() else mode)


def _flush(written: Path) -> None:
    """Wait until a file, or every file of a folder, is on the disk."""
    for entry in _entries(written):
        if entry.is_dir():
            _flush_folder(entry)
        else:
            with open(entry, "rb") as opened:
                os.fsync(opened.fileno())


def _flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the file system can do so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _entries(written: Path) -> list[Path]:
    return [written, *(written.rglob("*") if written.is_dir() else ())]
