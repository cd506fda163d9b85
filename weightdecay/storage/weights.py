"""Weights as safetensors files.

Each array has a name, the keys on its path joined by slashes (``Dense_0/kernel``). If the path cannot be recovered
from the name, the metadata of the file hold it under ``paths``: a JSON object of the paths by the names of the arrays.
A path is a list of keys: a string for a key of a dictionary or an attribute, a number for a position in a list or
tuple, and ``{"key": ...}`` for any other key of a dictionary (a number, true, false, null, or a list for a tuple).
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import quote

import jax
import numpy as np

from weightdecay.core import files, tree
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Params

_PATHS = "paths"  # in the metadata of a file
_LARGEST_DEPTH = 100  # of a tree of weights
_MOST_EMPTY = 1000  # items of a list without any array, more than items with arrays

KeyPath: TypeAlias = tuple[Any, ...]
"""Keys from the root of a tree to an array: strings, positions, and other keys of dictionaries."""


class MissingWeights(ValueError):
    """A member has no weights, because it was not trained."""


class Position(int):
    """A position in a list or tuple, as distinct from an integer key of a dictionary."""


class NamedArrays(NamedTuple):
    """Arrays of a file.

    Attributes:
      arrays: Arrays by name.
      paths: Paths by name, of those arrays whose path cannot be recovered from the name.
    """

    arrays: dict[str, np.ndarray]
    paths: dict[str, KeyPath]

    def path(self, name: str) -> KeyPath:
        """Return the path of an array."""
        return self.paths[name] if name in self.paths else tuple(name.split("/"))


def write_params(path: str | os.PathLike[str], params: Params, *, overwrite: bool = False) -> Path:
    """Write the weights of one member to one safetensors file, completely or not at all.

    Args:
      path: A new file, ``*.safetensors``. Missing parent folders are created.
      params: Weights, any pytree of arrays. Each array is stored under its name (``Dense_0/kernel``).
      overwrite: Whether an existing file is replaced.

    Returns:
      The path.

    Raises:
      FileExistsError: The file exists and ``overwrite`` is False, or the path is a folder.
      ArgumentError: The path does not end in ``.safetensors``.
      ValueError: ``params`` holds no arrays.
    """
    file = files.check_path(path, "path")
    if file.suffix != ".safetensors":
        raise ArgumentError("path", f"path is {file}; give a file name that ends in .safetensors.")
    if file.exists() and not (overwrite and file.is_file()):
        raise FileExistsError(
            f"path {file} exists; nothing was changed. Give another path"
            + (", or overwrite=True to replace the file." if file.is_file() else ".")
        )
    named = by_name(params)
    if not named.arrays:
        raise ArgumentError("params", "params holds no weights; give a tree with at least one array.")
    with files.atomic(file) as unfinished:
        write_arrays(unfinished, named)
    return file


def load_params(path: str | os.PathLike[str]) -> Params:
    """Read a safetensors file of weights, such as `write_params` wrote.

    Args:
      path: The file.

    Returns:
      Nested dictionaries (and lists, if the weights were in lists or tuples) with NumPy arrays; a single array if the
      weights were one array. In a file of another program, slashes in a name separate the keys.

    Raises:
      FileNotFoundError: There is no such file.
      IsADirectoryError: The path is a folder.
      ValueError: The file is damaged, or is not a safetensors file.
    """
    file = Path(path)
    try:
        if file.is_dir():
            raise IsADirectoryError(f"path {file} is a folder; give a safetensors file.")
        named = read_arrays(file)
        whole = {("params", *(named.path(name) if name else ())): array for name, array in named.arrays.items()}
        return nested(whole)["params"]
    except (FileNotFoundError, IsADirectoryError):
        raise
    except Exception as error:  # parsers raise errors of many types for damaged files
        raise files.damaged(file, error) from error


def write_arrays(file: Path, named: NamedArrays) -> None:
    """Write a safetensors file.

    Args:
      file: A new file.
      named: The arrays.

    Raises:
      OSError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    paths = {name: _encode_path(path) for name, path in named.paths.items()}
    metadata = {_PATHS: json.dumps(paths)} if paths else None
    try:
        save_file(named.arrays, file, metadata)
    except SafetensorError as error:  # also if the disk is full
        raise OSError(f"{file.name} cannot be written: {error}") from error


def read_arrays(file: Path) -> NamedArrays:
    """Read the arrays of a safetensors file. The parser compares their sizes with the size of the file.

    Args:
      file: Its path.

    Returns:
      The arrays.

    Raises:
      ValueError: It is not a regular file.
      OSError: It cannot be opened.
    """
    from safetensors import safe_open
    from safetensors.numpy import load_file

    files.opened_file(file).close()
    arrays = load_file(file)
    with safe_open(file, framework="numpy") as opened:
        stored = (opened.metadata() or {}).get(_PATHS)
    try:
        paths = {} if stored is None else {name: _decode_path(path) for name, path in json.loads(stored).items()}
    except (TypeError, AttributeError, RecursionError) as error:
        raise ValueError("its paths are not lists of keys by name") from error
    named = NamedArrays(arrays, {name: path for name, path in paths.items() if name in arrays})
    if len(set(map(named.path, arrays))) < len(arrays):
        raise ValueError("two arrays in it have one path")
    return named


def by_name(params: Params) -> NamedArrays:
    """Name the arrays of a tree.

    Args:
      params: Any pytree of arrays.

    Returns:
      NumPy arrays in C order, which safetensors expects.
    """
    arrays: dict[str, np.ndarray] = {}
    paths: dict[str, KeyPath] = {}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    for (name, leaf), (keys, _) in zip(tree.named_leaves(params), leaves, strict=True):
        in_box = jax.tree_util.keystr(keys, simple=True, separator="/") != name
        path = tuple(map(_key, keys[:-1] if in_box else keys))
        if name in arrays:  # the same name by other keys: {"a": {"b": ...}, "a/b": ...}
            name = "/".join(quote(str(key), safe=" ") for key in path)
        while name in arrays:
            name += "'"
        arrays[name] = np.asarray(leaf, order="C")
        if path and tuple(name.split("/")) != path:
            paths[name] = path
    return NamedArrays(arrays, paths)


def nested(arrays: Mapping[KeyPath, Any]) -> dict[Any, Any]:
    """Build a tree from arrays by path.

    Args:
      arrays: Arrays by path, such as ``("params", "Dense_0", "kernel")``.

    Returns:
      Nested dictionaries; lists where the keys are positions. An item of a list that held no array is an empty tuple.

    Raises:
      ValueError: A path begins with another path, or has too many keys.
    """
    root: dict[Any, Any] = {}
    for path, array in arrays.items():
        *outer, last = path
        if len(outer) > _LARGEST_DEPTH:
            raise ValueError(f"a name in it has {len(outer) + 1} parts")
        parent = root
        for key in outer:
            parent = parent.setdefault(_node_key(key), {})
            if not isinstance(parent, dict):
                raise ValueError(f"{_text(path)} is below another array")
        if _node_key(last) in parent:
            raise ValueError(f"{_text(path)} is above another array")
        parent[_node_key(last)] = array
    return _with_lists(root)


def _key(key: Any) -> Any:
    """The key of a path as `NamedArrays` holds it."""
    if isinstance(key, jax.tree_util.SequenceKey):
        return Position(key.idx)
    if isinstance(key, jax.tree_util.FlattenedIndexKey):
        return Position(key.key)
    if isinstance(key, jax.tree_util.GetAttrKey):
        return key.name
    plain = getattr(key, "key", key)
    return plain if _is_plain(plain) else str(plain)


def _is_plain(key: Any) -> bool:
    """Whether JSON can hold a key of a dictionary."""
    if isinstance(key, tuple):
        return type(key) is tuple and all(map(_is_plain, key))
    return type(key) in (str, int, float, bool, type(None))


def _encode_path(path: KeyPath) -> list[Any]:
    return [key if isinstance(key, str) else int(key) if isinstance(key, Position) else {"key": key} for key in path]


def _decode_path(path: Any) -> KeyPath:
    def plain(key: Any) -> Any:
        if isinstance(key, list):
            return tuple(map(plain, key))
        if not _is_plain(key):
            raise TypeError(key)
        return key

    def decode(key: Any) -> Any:
        if isinstance(key, dict):
            return plain(key["key"])
        if isinstance(key, str):
            return key
        if type(key) is not int or key < 0:
            raise TypeError(key)
        return Position(key)

    if not isinstance(path, list):
        raise TypeError(path)
    try:
        return tuple(map(decode, path))
    except KeyError as error:
        raise TypeError(path) from error


def _node_key(key: Any) -> Any:
    """A key that differs for a position 0, an integer 0, a number 0.0 and False, which are equal in Python."""
    return key if isinstance(key, str) else (type(key), key)


def _with_lists(node: Any) -> Any:
    """Replace the keys of `_node_key` by those of the tree, and dictionaries of positions by lists."""
    if not isinstance(node, dict):
        return node
    items = {key: _with_lists(value) for key, value in node.items()}
    positions = {key[1]: value for key, value in items.items() if isinstance(key, tuple) and key[0] is Position}
    if not positions:
        return {key if isinstance(key, str) else key[1]: value for key, value in items.items()}
    if len(positions) < len(items):
        raise ValueError("positions of a list stand next to keys of a dictionary")
    if max(positions) > len(positions) + _MOST_EMPTY:
        raise ValueError(f"a list in it has a position {max(positions)}")
    return [positions.get(number, ()) for number in range(max(positions) + 1)]


def _text(path: KeyPath) -> str:
    return "/".join(map(str, path))
