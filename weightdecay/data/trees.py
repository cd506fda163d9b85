"""Trees of arrays: inputs, and targets, that are several arrays with one row for each example.

A dictionary, a tuple of arrays, a NamedTuple and a dataclass that is registered as a pytree are trees. Everything else,
such as a list of rows, is one array. A tree of one array and the array itself are treated alike, so that no other file
asks which of both it has.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError


def is_tree(values: Any) -> bool:
    """Whether inputs or targets are a tree of arrays, rather than one array or what becomes one.

    Args:
      values: What the user passed.

    Examples:
      >>> is_tree({"tokens": np.zeros((3, 4))}), is_tree(np.zeros(3)), is_tree([[1.0, 2.0]]), is_tree(((1.0, 2.0),))
      (True, False, False, False)
    """
    if isinstance(values, Mapping):
        return True
    if isinstance(values, list) or hasattr(values, "shape") or jax.tree_util.all_leaves([values]):
        return False
    if type(values) is tuple:
        return len(values) > 0 and all(is_tree(entry) or hasattr(entry, "shape") for entry in values)
    return True


def named(values: Any, name: str) -> list[tuple[str, Any]]:
    """List the arrays of a tree with their names.

    Args:
      values: A tree of arrays, or one array.
      name: Name of the whole, such as ``"inputs"``.

    Returns:
      Pairs such as ``("inputs[tokens]", array)``; one array has the name of the whole.
    """
    if not is_tree(values):
        return [(name, values)]
    return [(f"{name}[{path}]", leaf) for path, leaf in tree.named_leaves(values)]


def mapped(function: Callable[[str, Any], np.ndarray], values: Any, name: str) -> Any:
    """Apply a function to each array of a tree.

    Args:
      function: ``function(name, array) -> array``.
      values: A tree of arrays, or one array.
      name: Name of the whole, for messages.

    Returns:
      The tree of its results.

    Raises:
      ArgumentError: The tree has no arrays.
    """
    if not is_tree(values):
        return function(name, values)
    leaves = [function(path, leaf) for path, leaf in named(values, name)]
    if not leaves:
        raise ArgumentError(argument_of(name), f"{name} have no arrays; give at least one.")
    return jax.tree.unflatten(jax.tree.structure(values), leaves)


def argument_of(name: str) -> str:
    """Return the argument in the name of an array: ``"data"`` for ``"data.train inputs[tokens]"``."""
    return re.split(r"[.\s\[]", name)[0]


def num_rows(values: Any) -> int:
    """Return the number of examples of a tree of arrays or of their shapes."""
    return jax.tree.leaves(values)[0].shape[0]


def rows(values: Any, indices: Any) -> Any:
    """Return some examples of a tree of arrays.

    Args:
      values: A tree of arrays, or one array.
      indices: Integers, a slice or booleans.
    """
    return jax.tree.map(lambda array: array[indices], values)
