"""What a decay rule adds to the loss: functions of the weights alone, without a coefficient.

The L2 penalty carries 1/2, so that its gradient is the weights themselves. `penalized` joins a penalty and its
coefficient to a data loss.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from weightdecay import tree
from weightdecay.types import Mask, Params, Scalar


def l1(params: Params, mask: Mask | None = None) -> Scalar:
    """Sum of absolute values, ``|w|₁``.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = counts; a pytree prefix of ``params``. None counts every weight.

    Returns:
      The penalty, shape ``()``, unit weight.

    References:
      Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996.

    Examples:
      >>> float(l1({"kernel": jnp.array([3.0, -4.0])}))
      7.0
    """
    # Not abs(w): its derivative at 0 is 1 in JAX, and the penalty's is 0, as in the rule.
    return _total(lambda w: jnp.sum(w * jnp.sign(w)), params, mask)


def l2(params: Params, mask: Mask | None = None) -> Scalar:
    """Half the sum of squares, ``|w|²/2``.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = counts; a pytree prefix of ``params``. None counts every weight.

    Returns:
      The penalty, shape ``()``, unit weight².

    References:
      Krogh & Hertz, A Simple Weight Decay Can Improve Generalization, 1992.

    Examples:
      >>> float(l2({"kernel": jnp.array([3.0, -4.0])}))
      12.5
    """
    return _total(lambda w: jnp.sum(jnp.square(w)) / 2, params, mask)


def elastic_net(
    params: Params, mask: Mask | None = None, *, l1_coefficient: Scalar = 1.0, l2_coefficient: Scalar = 1.0
) -> Scalar:
    """Weighted sum of both, ``l1 |w|₁ + l2 |w|²/2``.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = counts; a pytree prefix of ``params``. None counts every weight.
      l1_coefficient: Multiplies ``|w|₁``; >= 0, shape ``()``. May be traced.
      l2_coefficient: Multiplies ``|w|²/2``; >= 0, shape ``()``. May be traced.

    Returns:
      The penalty, shape ``()``.

    References:
      Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005.

    Examples:
      >>> float(elastic_net(jnp.array([3.0, -4.0]), l1_coefficient=2.0))
      26.5
    """
    return l1_coefficient * l1(params, mask) + l2_coefficient * l2(params, mask)


def penalized(
    loss_fn: Callable[[Params, Any], Scalar], penalty_fn: Callable[[Params], Scalar]
) -> Callable[[Params, Any, Scalar], tuple[Scalar, dict[str, Scalar]]]:
    """Join a penalty to a data loss: ``total = loss + coefficient * penalty``.

    The result fits `jax.value_and_grad` with ``has_aux=True``.

    Args:
      loss_fn: ``loss_fn(params, batch) -> loss``, the mean data loss, shape ``()``.
      penalty_fn: ``penalty_fn(params) -> penalty``, shape ``()``; any function of this module.

    Returns:
      ``penalized_loss(params, batch, coefficient) -> (total, {"loss": ..., "penalty": ...})``. Both parts have the unit
      of the loss and add up to ``total``: ``"penalty"`` has the coefficient in it. The coefficient may be traced.

    Examples:
      >>> loss = penalized(lambda w, x: jnp.mean((x - w) ** 2), l2)
      >>> total, parts = loss(jnp.array(2.0), jnp.array([1.0, 3.0]), 0.5)
      >>> float(total), float(parts["loss"]), float(parts["penalty"])
      (2.0, 1.0, 1.0)
    """

    def penalized_loss(params: Params, batch: Any, coefficient: Scalar) -> tuple[Scalar, dict[str, Scalar]]:
        loss = loss_fn(params, batch)
        penalty = coefficient * penalty_fn(params)
        return loss + penalty, {"loss": loss, "penalty": penalty}

    return penalized_loss


def _total(penalty: Callable[[Any], Any], params: Params, mask: Mask | None) -> Scalar:
    counts = tree.spread(True if mask is None else mask, params, argument="mask")
    leaves = jax.tree.leaves(params)
    return sum((jnp.where(m, penalty(w), 0) for w, m in zip(leaves, counts, strict=True)), start=jnp.zeros(()))
