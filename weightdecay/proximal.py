"""Proximal maps: the exact minimizer of a penalty beside a squared distance, under the penalty's name.

``prox(z) = argmin_y |y - z|²/2 + step_size * coefficient * penalty(y)``. Taken after a gradient step, it makes exact
zeros where a gradient of the penalty only makes small numbers. ``step_size`` is the learning rate for plain SGD; where
the step was preconditioned by a diagonal ``D``, it is ``learning_rate / D``, a number a weight.
"""

from typing import Any

import jax
import jax.numpy as jnp

from weightdecay import tree
from weightdecay.types import Params, PyTree, Scalar


def l1(params: Params, coefficient: Scalar, step_size: Scalar | PyTree) -> Params:
    """Proximal map of the L1 penalty: soft thresholding.

    Minimizes ``|y - params|²/2 + step_size * coefficient * |y|₁`` over ``y``:
    ``sign(w) max(|w| - step_size * coefficient, 0)``. The scalars may be traced.

    Args:
      params: Weights, any pytree of float arrays.
      coefficient: Multiplies ``|y|₁``; >= 0, shape ``()``, loss / weight.
      step_size: >= 0, weight² / loss; shape ``()``, or a pytree prefix of ``params`` with arrays that broadcast against
        the weights.

    Returns:
      The minimizer, with the structure, shapes and dtypes of ``params``.

    Numerics:
      Exactly 0 below the threshold. At ``coefficient = 0`` the identity; at infinity 0; finite gradients at 0.

    References:
      Parikh & Boyd, Proximal Algorithms, 2014, section 6.5.2.

    Examples:
      >>> l1(jnp.array([3.0, -0.5, -2.0]), coefficient=2.0, step_size=0.5).tolist()
      [2.0, 0.0, -1.0]
    """
    return _map(lambda w, s: _soft_threshold(w, s * coefficient), params, step_size)


def l2(params: Params, coefficient: Scalar, step_size: Scalar | PyTree) -> Params:
    """Proximal map of the L2 penalty: shrinkage by a factor.

    Minimizes ``|y - params|²/2 + step_size * coefficient * |y|²/2`` over ``y``: ``w / (1 + step_size * coefficient)``,
    the implicit step, stable for any coefficient. The scalars may be traced.

    Args:
      params: Weights, any pytree of float arrays.
      coefficient: Multiplies ``|y|²/2``; >= 0, shape ``()``, loss / weight².
      step_size: >= 0, weight² / loss; shape ``()``, or a pytree prefix of ``params`` with arrays that broadcast against
        the weights.

    Returns:
      The minimizer, with the structure, shapes and dtypes of ``params``.

    References:
      Parikh & Boyd, Proximal Algorithms, 2014, section 2.2.

    Examples:
      >>> l2(jnp.array([3.0, -1.5]), coefficient=1.0, step_size=0.5).tolist()
      [2.0, -1.0]
    """
    return _map(lambda w, s: w / (1 + s * coefficient), params, step_size)


def elastic_net(params: Params, l1_coefficient: Scalar, l2_coefficient: Scalar, step_size: Scalar | PyTree) -> Params:
    """Proximal map of the elastic net: soft-threshold, then shrink.

    Minimizes ``|y - params|²/2 + step_size * (l1 |y|₁ + l2 |y|²/2)`` over ``y``. The scalars may be traced.

    Args:
      params: Weights, any pytree of float arrays.
      l1_coefficient: Multiplies ``|y|₁``; >= 0, shape ``()``, loss / weight.
      l2_coefficient: Multiplies ``|y|²/2``; >= 0, shape ``()``, loss / weight².
      step_size: >= 0, weight² / loss; shape ``()``, or a pytree prefix of ``params`` with arrays that broadcast against
        the weights.

    Returns:
      The minimizer, with the structure, shapes and dtypes of ``params``.

    Numerics:
      Exactly 0 below the threshold. At both coefficients 0 the identity; finite gradients at 0.

    References:
      Parikh & Boyd, Proximal Algorithms, 2014, section 6.5.3.

    Examples:
      >>> elastic_net(jnp.array([3.0, -0.5]), 1.0, 2.0, step_size=0.5).tolist()
      [1.25, 0.0]
    """
    return l2(l1(params, l1_coefficient, step_size), l2_coefficient, step_size)


def _soft_threshold(weight: Any, threshold: Any) -> Any:
    # Rather than max(|w| - t, 0): this stays finite where weight and threshold are both infinite.
    return jnp.where(jnp.abs(weight) <= threshold, 0, weight - jnp.sign(weight) * threshold)


def _map(function: Any, params: Params, step_size: Scalar | PyTree) -> Params:
    leaves, structure = jax.tree.flatten(params)
    steps = tree.spread(step_size, params, argument="step_size")
    moved = (function(jnp.asarray(w), s).astype(jnp.result_type(w)) for w, s in zip(leaves, steps, strict=True))
    return structure.unflatten(moved)
