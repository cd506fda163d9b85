"""Files that are held against their sums."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any


def canonical(value: Any) -> bytes:
    """Return a value of JSON as bytes that do not depend on the order of names, to be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def file_sum(file: Path) -> str:
    """Return the SHA-256 of a file; a pipe or a device is refused."""
    with opened_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
