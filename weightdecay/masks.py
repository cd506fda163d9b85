"""Which weights decay: ``masks.<name>(params) -> mask``, True = decays, and the table that shows it.

A mask is decided by the structure of the weights, so that a renamed layer does not slip out of it.
"""

from typing import Any

import jax
import numpy as np

from weightdecay import tree
from weightdecay.types import Mask, MaskFn, Params

_NOT_KERNELS = ("bias", "scale", "embedding")


def kernels(params: Params) -> Mask:
    """Kernels alone: no biases, no scales of normalization layers, no embeddings.

    A kernel has at least two dimensions; what flax names ``bias``, ``scale`` or ``embedding`` is none, whatever its
    shape (attention has two-dimensional biases). A bare array in place of a tree has no biases beside it and is a
    kernel at any shape.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool a leaf, in the structure of ``params``.

    Examples:
      >>> kernels({"Dense_0": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}})
      {'Dense_0': {'bias': False, 'kernel': True}}
    """
    return jax.tree_util.tree_map_with_path(_is_kernel, params)


def everything(params: Params) -> Mask:
    """Every weight, biases and scales included.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      True a leaf, in the structure of ``params``.
    """
    return jax.tree.map(lambda _: True, params)


def resolve(mask: Mask | MaskFn, params: Params) -> list[bool]:
    """Whether each leaf decays, from a mask or the function that makes one.

    Args:
      mask: A bool, a pytree prefix of ``params`` with a bool a leaf, or a function from weights to one of these.
      params: Weights.

    Returns:
      One bool a leaf of ``params``, in the order of `jax.tree.leaves`.

    Raises:
      TypeError: A leaf of the mask is no bool.
      ValueError: The mask does not fit the weights, or selects none of them.
    """
    decays = tree.spread(mask(params) if callable(mask) else mask, params, argument="mask")
    wrong = next((leaf for leaf in decays if not isinstance(leaf, bool | np.bool_)), None)
    if wrong is not None:
        raise TypeError(
            f"mask has a leaf {wrong!r} of type {type(wrong).__name__}; a mask holds True (decays) or False."
        )
    if decays and not any(decays):
        chosen = getattr(mask, "__name__", "given")
        leaves = ", ".join(f"{leaf_name} {np.shape(leaf)}" for leaf_name, leaf in tree.named_leaves(params))
        raise ValueError(
            f"mask {chosen!r} selects no weight, so nothing would decay. The weights are: {leaves}. "
            "Pass mask=wd.masks.everything, or a tree of True and False in the structure of the weights."
        )
    return [bool(leaf) for leaf in decays]


def describe(params: Params, mask: Mask | MaskFn = kernels) -> str:
    """Table of every weight array: name, shape, whether it decays, and what share of all weights decays.

    Args:
      params: Weights, any pytree of arrays.
      mask: True = decays; a pytree prefix of ``params``, or a function that makes one.

    Returns:
      The table, a line an array and a last line with the totals.

    Raises:
      ValueError: The mask does not fit the weights, or selects none of them.

    Examples:
      >>> print(describe({"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}))
      name    shape   weights  decays
      bias    (2,)          2  no
      kernel  (3, 2)        6  yes
      6 of 8 weights decay (75.0 %)
    """
    decays = resolve(mask, params)
    leaves = [
        (leaf_name or "(array)", str(np.shape(leaf)), int(np.size(leaf)))
        for leaf_name, leaf in tree.named_leaves(params)
    ]
    names, shapes = (
        max(map(len, column)) for column in zip(("name", "shape"), *(row[:2] for row in leaves), strict=True)
    )
    lines = [f"{'name':<{names}}  {'shape':<{shapes}}  weights  decays"]
    lines += [
        f"{leaf_name:<{names}}  {shape:<{shapes}}  {size:>7}  {'yes' if decayed else 'no'}"
        for (leaf_name, shape, size), decayed in zip(leaves, decays, strict=True)
    ]
    total = sum(size for *_, size in leaves)
    chosen = sum(size for (*_, size), decayed in zip(leaves, decays, strict=True) if decayed)
    return "\n".join([*lines, f"{chosen:,} of {total:,} weights decay ({100 * chosen / max(total, 1):.1f} %)"])


def _is_kernel(path: tuple[Any, ...], leaf: Any) -> bool:
    if not path:
        return True
    last = tree.name(path[-1:])
    return np.ndim(leaf) >= 2 and last not in _NOT_KERNELS
