"""Weights as safetensors files, each array under its name."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weightdecay.core import files, tree
from weightdecay.core.types import Params

_LARGEST_DEPTH = 100  # of a tree of weights


def write_params(path: str | os.PathLike[str], params: Params, *, overwrite: bool = False) -> Path:
    """Write the weights of one member as one safetensors file; it appears whole or not at all.

    Args:
      path: A new file, ``*.safetensors``; folders above it are made.
      params: Weights, any pytree of arrays; each is stored under its name (``Dense_0/kernel``).
      overwrite: Whether a file that is there may be replaced.

    Returns:
      The path.

    Raises:
      FileExistsError: The file is there, and ``overwrite`` was not given.
      ValueError: Another ending than ``.safetensors``, no weights, or two of one name.
    """
    from safetensors.numpy import save_file

    file = Path(path)
    if file.suffix != ".safetensors":
        raise ValueError(f"path is {file}; end it in .safetensors, which says what it is.")
    if file.exists() and not (overwrite and file.is_file()):
        raise FileExistsError(
            f"path {file} is there already; nothing was touched. Give another path"
            + (", or overwrite=True to replace the file." if file.is_file() else ".")
        )
    arrays = by_name(params)
    if not arrays:
        raise ValueError("params hold no weights; give a tree with one array or more.")
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{file.name}-", dir=file.parent))
    try:
        save_file(arrays, unfinished / file.name)
        (unfinished / file.name).chmod(0o644)
        os.replace(unfinished / file.name, file)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return file


def load_params(path: str | os.PathLike[str]) -> Params:
    """Read a safetensors file of weights, such as `write_params` wrote.

    Args:
      path: The file.

    Returns:
      Nested dictionaries by the parts of the names, with NumPy arrays; or the one array of a file that has no names.

    Raises:
      FileNotFoundError: No such file.
      IsADirectoryError: A folder.
      ValueError: A file that is damaged or is no safetensors file.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise IsADirectoryError(f"path {file} is a folder; give a safetensors file.")
        arrays = read_arrays(file)
        return nested_by_name({f"params/{name}" if name else "params": array for name, array in arrays.items()})[
            "params"
        ]
    except (FileNotFoundError, IsADirectoryError):
        raise
    except Exception as error:  # what parsers make of broken bytes is of many types
        raise files.damaged(file, error) from error


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a safetensors file; its parser holds their sizes against the file's.

    Args:
      file: Its path.

    Returns:
      Arrays by name.

    Raises:
      ValueError: It is no ordinary file.
      OSError: It cannot be opened.
    """
    from safetensors.numpy import load_file

    files.opened_file(file).close()
    return load_file(file)


def by_name(params: Params) -> dict[str, np.ndarray]:
    """Arrays by name, each in C order, which safetensors takes for granted.

    Args:
      params: Any pytree of arrays.

    Returns:
      NumPy arrays by name.

    Raises:
      ValueError: Two of one name.
    """
    named = tree.named_leaves(params)
    arrays = {name: np.asarray(leaf, order="C") for name, leaf in named}
    if len(arrays) < len(named):
        twice = next(name for name in arrays if [other for other, _ in named].count(name) > 1)
        raise ValueError(f"two weights have the name {twice!r}; name them apart, without slashes in a key.")
    return arrays


def nested_by_name(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Tree of dictionaries by the parts of the names.

    Args:
      leaves: Arrays by name, such as ``params/Dense_0/kernel``.

    Returns:
      Nested dictionaries.

    Raises:
      ValueError: A name that lies above or below another, or has too many parts.
    """
    nested: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *outer, last = name.split("/")
        if len(outer) > _LARGEST_DEPTH:
            raise ValueError(f"a name in it has {len(outer) + 1} parts")
        place = nested
        for key in outer:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise ValueError(f"{name} lies below another array")
        if last in place:
            raise ValueError(f"{name} lies above another array")
        place[last] = leaf
    return nested
