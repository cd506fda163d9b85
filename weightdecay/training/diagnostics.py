"""What decay does to the weights of one member: norms, sparsity and movement, and whether all numbers are finite.

A function of `OF_WEIGHTS` or `OF_LAYERS` has the name of its row in `weightdecay.core.metrics`.
"""

import functools
from collections.abc import Callable, Mapping
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
      decays: Whether each leaf of ``params`` decays.

    Returns:
      The norm, shape ``()``.
    """
    return tree.norm(_decaying(params, decays))


def zero_fraction(params: Params, decays: list[bool]) -> Any:
    """Fraction of exact zeros among the weights that decay.

    Args:
      params: Weights.
      decays: Whether each leaf of ``params`` decays.

    Returns:
      In [0, 1], shape ``()``; nan if no weight decays.
    """
    arrays = _decaying(params, decays)
    zeros = sum((jnp.sum(w == 0) for w in arrays), start=jnp.zeros((), jnp.int32))
    return zeros / jnp.float32(sum(w.size for w in arrays))


def near_zero_fraction(params: Params, decays: list[bool]) -> Any:
    """Fraction of ``|w| < 0.001`` among the weights that decay: small weights and exact zeros.

    Args:
      params: Weights.
      decays: Whether each leaf of ``params`` decays.

    Returns:
      In [0, 1], shape ``()``; nan if no weight decays.
    """
    arrays = _decaying(params, decays)
    small = sum((_sum(jnp.abs(w) < NEAR_ZERO) for w in arrays), start=jnp.zeros(()))
    return small / jnp.float32(sum(w.size for w in arrays))


def layer_weight_norm(weights: Any, previous: Any) -> Any:
    """Euclidean norm of an array of weights, shape ``()``."""
    del previous
    return _norm(weights)


def layer_zero_fraction(weights: Any, previous: Any) -> Any:
    """Fraction of exact zeros in an array of weights, in [0, 1], shape ``()``."""
    del previous
    return _sum(weights == 0) / weights.size


def rotation(weights: Any, previous: Any) -> Any:
    """Angle between an array of weights and the same array one step earlier.

    Args:
      weights: After the step.
      previous: Before the step.

    Returns:
      Radians, in [0, pi], shape ``()``; nan if one of the arrays is all zero.
    """
    return angle(previous, weights)


def effective_learning_rate(weights: Any, previous: Any) -> Any:
    """Length of a step, divided by the norm of the weights before it.

    Args:
      weights: After the step.
      previous: Before the step.

    Returns:
      ``|weights - previous| / |previous|``, shape ``()``; nan or infinite if ``previous`` is all zero.
    """
    return _norm(weights - previous) / _norm(previous)


OF_WEIGHTS: Mapping[str, Callable[[Params, list[bool]], Any]] = {
    fn.__name__: fn for fn in (weight_norm, zero_fraction, near_zero_fraction)
}
"""Metrics of all weights that decay, ``metric(params, decays) -> number``."""

OF_LAYERS: Mapping[str, Callable[[Any, Any], Any]] = {
    fn.__name__: fn for fn in (layer_weight_norm, layer_zero_fraction, rotation, effective_learning_rate)
}
"""Metrics of one array of weights, ``metric(weights, previous) -> number``; ``previous`` is one step earlier."""


def by_layer(params: Params, previous: Params, decays: list[bool]) -> dict[str, Any]:
    """Compute every metric of `OF_LAYERS` for each array of weights that decays.

    Args:
      params: Weights.
      previous: Weights one step earlier.
      decays: Whether each leaf of ``params`` decays.

    Returns:
      By name, each of shape ``(layers,)``.
    """
    pairs = list(zip(_decaying(params, decays), _decaying(previous, decays), strict=True))

    def stacked(values: list[Any]) -> Any:
        return jnp.stack(values) if values else jnp.zeros((0,))

    return {name: stacked([metric(now, before) for now, before in pairs]) for name, metric in OF_LAYERS.items()}


def angle(a: Any, b: Any) -> Any:
    """Angle between two arrays, regarded as vectors: ``2 atan2(|a - b|, |a + b|)`` of the unit vectors a and b.

    Args:
      a: Any shape.
      b: Same shape.

    Returns:
      Radians, in [0, pi], shape ``()``; nan if one of the arrays is all zero.

    Numerics:
      Exact to a rounding also for small angles; the arc cosine of the scalar product is not.

    References:
      Kahan, How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?, 2006.
    """
    a, b = (w / _norm(w) for w in (a, b))
    return 2 * jnp.arctan2(_norm(a - b), _norm(a + b))


def all_finite(values: PyTree) -> Any:
    """Whether all floating-point numbers of a pytree are finite.

    Args:
      values: Any pytree of arrays; integers and truth values count as finite.

    Returns:
      bool, shape ``()``.
    """
    floats = [leaf for leaf in jax.tree.leaves(values) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return functools.reduce(jnp.logical_and, (jnp.isfinite(leaf).all() for leaf in floats), jnp.ones((), bool))


def _norm(weights: Any) -> Any:
    precise = weights.astype(jnp.promote_types(jnp.float32, weights.dtype))
    return jnp.sqrt(_sum(jnp.square(precise)))


def _sum(values: Any) -> Any:
    """Sum of an array. The last axis is summed last: XLA vectorizes the other sums, but not one long sum."""
    floats = values.astype(jnp.promote_types(jnp.float32, values.dtype))
    return floats.sum(axis=tuple(range(values.ndim - 1))).sum()


def _decaying(params: Params, decays: list[bool]) -> list[Any]:
    return [w for w, decayed in zip(jax.tree.leaves(params), decays, strict=True) if decayed]
