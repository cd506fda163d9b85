"""What decay did to one network's weights: pure functions of the weights of one member."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from weightdecay import tree
from weightdecay.types import Params, PyTree


def weight_norm(params: Params, decays: list[bool]) -> Any:
    """Euclidean norm of all weights that decay.

    Args:
      params: Weights.
      decays: One bool a leaf of ``params``.

    Returns:
      The norm, shape ``()``.
    """
    return tree.norm(_chosen(params, decays))


def zero_fraction(params: Params, decays: list[bool]) -> Any:
    """Share of exact zeros among the weights that decay.

    Args:
      params: Weights.
      decays: One bool a leaf of ``params``.

    Returns:
      In [0, 1], shape ``()``; nan where no weight decays.
    """
    chosen = _chosen(params, decays)
    zeros = sum((jnp.sum(w == 0) for w in chosen), start=jnp.zeros((), jnp.int32))
    return zeros / jnp.float32(sum(w.size for w in chosen))


def all_finite(values: PyTree) -> Any:
    """Whether no number is nan or infinite.

    Args:
      values: Any pytree of arrays; what are no floating-point numbers counts as finite.

    Returns:
      bool, shape ``()``.
    """
    floats = [leaf for leaf in jax.tree.leaves(values) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in floats), jnp.ones((), bool))


def _chosen(params: Params, decays: list[bool]) -> list[Any]:
    return [w for w, decayed in zip(jax.tree.leaves(params), decays, strict=True) if decayed]
