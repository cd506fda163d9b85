"""Trees of weights: their leaves' names, and values spread over them."""

from typing import Any

import jax

from weightdecay.types import Params, PyTree


def name(path: tuple[Any, ...]) -> str:
    """Name of a leaf from its key path, ``"Dense_0/kernel"``; ``""`` for a bare array.

    Args:
      path: Key path, as `jax.tree_util.tree_flatten_with_path` gives it.

    Returns:
      The keys, joined by slashes.
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """Leaves with their names, in the tree's own order.

    Args:
      tree: Any pytree.

    Returns:
      Pairs ``(name, leaf)``.
    """
    return [(name(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


def spread(prefix: PyTree, params: Params, *, argument: str) -> list[Any]:
    """Spread a pytree prefix over the leaves of the weights.

    Args:
      prefix: One value, or a tree that agrees with ``params`` down to some depth.
      params: Weights.
      argument: What the prefix is, for the error message.

    Returns:
      One value a leaf of ``params``, in the order of `jax.tree.leaves`.

    Raises:
      ValueError: ``prefix`` does not fit ``params``.
    """
    try:
        return jax.tree.leaves(jax.tree.broadcast(prefix, params))
    except ValueError as error:
        names = ", ".join(leaf_name or "(a bare array)" for leaf_name, _ in named_leaves(params))
        raise ValueError(
            f"{argument} is a tree that does not fit the weights: {jax.tree.structure(prefix)}. "
            f"Give one value, or a tree with the weights' own structure down to some depth; the weights are: {names}."
        ) from error
