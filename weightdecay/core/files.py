"""Files that appear whole or not at all, and files with checksums."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Write a file or a folder that appears whole or not at all.

    What is written goes to a new folder next to ``path`` and is renamed to ``path`` at the end. Where an error ends the
    block, the new folder is removed and whatever was at ``path`` is as it was.

    Args:
      path: The file or folder to write; folders above it are made. An existing file is replaced; so is an existing
        folder, which is put aside until the new one is there.

    Yields:
      A path that does not exist yet and that the block is to write, a file or a folder of the same name as ``path``.

    Raises:
      OSError: It cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        written = unfinished / path.name
        yield written
        _to_disk(written)
        if written.is_dir() and path.exists():
            os.replace(path, unfinished / f"{path.name}.replaced")
        os.replace(written, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def canonical(value: Any) -> bytes:
    """Return a value of JSON as bytes that do not depend on the order of names, to be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def file_sum(file: Path) -> str:
    """Return the SHA-256 of a file; a pipe or a device is refused."""
    with opened_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of JSON that appears whole or not at all, with a checksum of its own.

    Args:
      path: The file.
      content: An object of JSON, without ``checksum``.

    Raises:
      OSError: It cannot be written.
    """
    content = json.loads(json.dumps(content))
    digest = hashlib.sha256(canonical(content)).hexdigest()
    with atomic(path) as unfinished:
        unfinished.write_text(json.dumps({**content, "checksum": digest}, indent=1), encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that `write_json` wrote.

    Args:
      path: The file.

    Returns:
      Its content.

    Raises:
      ValueError: It is no JSON, or was altered.
      OSError: It cannot be read.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} is no description")
    digest = content.pop("checksum", None)
    if hashlib.sha256(canonical(content)).hexdigest() != digest:
        raise ValueError(f"{path.name} was altered")
    return content


def opened_file(file: Path) -> io.BufferedReader:
    """Open a file if it is one: a pipe or a device has no size and may have no end.

    Args:
      file: Its path.

    Returns:
      The file, open for reading.

    Raises:
      ValueError: It is no ordinary file.
      OSError: It cannot be opened.
    """
    if file.exists() and not file.is_file():
        raise ValueError("it is no ordinary file")
    return open(file, "rb")


def damaged(file: Path, error: Exception) -> ValueError:
    """Say that a file cannot be read.

    Args:
      file: Its path.
      error: What its parser raised.

    Returns:
      The error to raise.
    """
    told = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
    return ValueError(f"file {file} is missing, damaged or altered ({told}); save it again.")


def _to_disk(path: Path) -> None:
    """Wait until every file of a folder, or a file, has reached the disk."""
    for file in [path] if path.is_file() else [entry for entry in path.rglob("*") if entry.is_file()]:
        with open(file, "rb") as opened:
            os.fsync(opened.fileno())
