"""What decay did to one network's weights: pure functions of the weights of one member."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from weightdecay.core import tree
from weightdecay.core.types import Params, PyTree

NEAR_ZERO = 1e-3
"""Absolute value below which a weight counts as near zero."""


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


def near_zero_fraction(params: Params, decays: list[bool]) -> Any:
    """Share of the weights that decay with ``|w| < 1e-3``: what a penalty left small without making it zero.

    Args:
      params: Weights.
      decays: One bool a leaf of ``params``.

    Returns:
      In [0, 1], shape ``()``, exact zeros among them; nan where no weight decays.
    """
    chosen = _chosen(params, decays)
    small = sum((_sum(jnp.abs(w) < NEAR_ZERO) for w in chosen), start=jnp.zeros(()))
    return small / jnp.float32(sum(w.size for w in chosen))


def by_layer(params: Params, previous: Params, decays: list[bool]) -> dict[str, Any]:
    """Norm, sparsity and movement of each array of weights that decays.

    Args:
      params: Weights.
      previous: Weights one step before.
      decays: One bool a leaf of ``params``.

    Returns:
      Each of shape ``(layers,)``: ``layer_weight_norm``, Euclidean; ``layer_zero_fraction``, of exact zeros;
      ``rotation``, the angle of the step in radians; and ``effective_learning_rate``, the length of the step over the
      norm before it. The rotation is nan where the weights are or were all zero; the effective learning rate is nan
      or infinite where they were.
    """
    pairs = list(zip(_chosen(params, decays), _chosen(previous, decays), strict=True))

    def stack(values: list[Any]) -> Any:
        return jnp.stack(values) if values else jnp.zeros((0,))

    return {
        "layer_weight_norm": stack([_norm(now) for now, _ in pairs]),
        "layer_zero_fraction": stack([_sum(now == 0) / now.size for now, _ in pairs]),
        "rotation": stack([angle(before, now) for now, before in pairs]),
        "effective_learning_rate": stack([_norm(now - before) / _norm(before) for now, before in pairs]),
    }


def angle(one: Any, other: Any) -> Any:
    """Angle between two arrays, taken as vectors: ``2 atan2(|a - b|, |a + b|)`` of the unit vectors a and b.

    Args:
      one: Any shape.
      other: Same shape.

    Returns:
      Radians, in [0, pi], shape ``()``; nan where an array is zero.

    Numerics:
      Exact to a rounding also for small angles, where the arc cosine is not.

    References:
      Kahan, How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?, 2006.
    """
    one, other = (w / _norm(w) for w in (one, other))
    return 2 * jnp.arctan2(_norm(one - other), _norm(one + other))


def all_finite(values: PyTree) -> Any:
    """Whether no number is nan or infinite.

    Args:
      values: Any pytree of arrays; what are no floating-point numbers counts as finite.

    Returns:
      bool, shape ``()``.
    """
    floats = [leaf for leaf in jax.tree.leaves(values) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in floats), jnp.ones((), bool))


def _norm(weights: Any) -> Any:
    precise = weights.astype(jnp.promote_types(jnp.float32, weights.dtype))
    return jnp.sqrt(_sum(jnp.square(precise)))


def _sum(values: Any) -> Any:
    """Sum of an array, the last axis last: so far the processor adds many at a time, as it cannot in one long sum."""
    floats = values.astype(jnp.promote_types(jnp.float32, values.dtype))
    return floats.sum(axis=tuple(range(values.ndim - 1))).sum()


def _chosen(params: Params, decays: list[bool]) -> list[Any]:
    return [w for w, decayed in zip(jax.tree.leaves(params), decays, strict=True) if decayed]
