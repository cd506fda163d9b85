"""Files that are held against their sums."""

import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


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
    unfinished = path.with_name(f".{path.name}")
    with unfinished.open("w", encoding="utf-8") as file:
        json.dump({**content, "checksum": digest}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


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
