"""Preconditioners of optax in the form that decay rules need: differentiable at 0, and with their diagonals.

A preconditioner turns gradients g into a direction u; if it is diagonal, u = g / D under a steady gradient.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax import contrib

from weightdecay.core.types import Params, PyTree, Scalar


def scale_by_adam(b1: Scalar, b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    """`optax.scale_by_adam`, bit for bit, with a finite derivative where a second moment is 0.

    Args:
      b1: Decay of the first moment, in [0, 1), shape ``()``.
      b2: Decay of the second moment, in [0, 1), shape ``()``.
      eps: > 0, shape ``()``, unit of the gradient.

    Returns:
      A transformation with an `optax.ScaleByAdamState`.
    """
    base = optax.scale_by_adam(b1=b1, b2=b2, eps=eps)  # pyright: ignore[reportArgumentType]

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = base.update(updates, state, params)
        first = optax.tree.bias_correction(state.mu, b1, state.count)
        return jax.tree.map(lambda m, d: m / d, first, adam_diagonal(state, b2, eps)), state

    return optax.GradientTransformation(base.init, update)


def adam_diagonal(state: Any, b2: Scalar, eps: Scalar) -> PyTree:
    """Diagonal of Adam's preconditioner, ``sqrt(v_hat) + eps``.

    Args:
      state: An `optax.ScaleByAdamState`, after the step.
      b2: Decay of the second moment.
      eps: The number that is added to the root.

    Returns:
      D, in the structure and shapes of the weights.
    """
    second = optax.tree.bias_correction(state.nu, b2, state.count)
    return jax.tree.map(lambda v: sqrt(v) + eps, second)


def scale_by_rms(b2: Scalar, eps: Scalar) -> optax.GradientTransformation:
    """`optax.scale_by_rms`, with a finite derivative where a second moment is 0.

    Args:
      b2: Decay of the second moment, in [0, 1), shape ``()``.
      eps: > 0, shape ``()``, unit of the gradient; added to the root.

    Returns:
      A transformation with an `optax.ScaleByRmsState`.
    """
    base = optax.scale_by_rms(decay=b2, eps=eps, eps_in_sqrt=False)  # pyright: ignore[reportArgumentType]

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        _, state = base.update(updates, state, params)
        return jax.tree.map(lambda g, v: 1 / (sqrt(v) + eps) * g, updates, state.nu), state

    return optax.GradientTransformation(base.init, update)


def scale_by_trust_ratio() -> optax.GradientTransformation:
    """`optax.scale_by_trust_ratio`, bit for bit, with a finite derivative where a norm is 0.

    Returns:
      A transformation whose state are the ratios, one number of shape ``()`` per leaf of the weights.
    """

    def init(params: Params) -> PyTree:
        return jax.tree.map(lambda w: jnp.ones((), jnp.result_type(w)), params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def ratio(direction: Any, weight: Any) -> Any:
            direction_norm, weight_norm = optax.safe_norm(direction, 0.0), optax.safe_norm(weight, 0.0)
            defined = (direction_norm > 0) & (weight_norm > 0)
            quotient = weight_norm / jnp.where(defined, direction_norm, 1)
            return jnp.where(defined, quotient, 1).astype(direction.dtype)

        ratios = jax.tree.map(ratio, updates, params)
        return jax.tree.map(jnp.multiply, updates, ratios), ratios

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def orthogonalize(updates: Any) -> Any:
    """Replace matrices by nearly orthogonal ones with optax's Newton-Schulz iteration, scaled for their shape.

    Args:
      updates: Arrays of at least two dimensions; the last axis of an array are the outputs of the matrix, all other
        axes its inputs.

    Returns:
      The same shapes; all singular values are near ``sqrt(max(1, outputs / inputs))``.
    """
    return jax.tree.map(_orthogonal, updates)


@jax.jit  # optax's loop is a new function at each call: outside a compiled step it would be compiled in every step
def _orthogonal(matrix: Array) -> Array:
    if matrix.size == 0:
        return matrix
    inputs, outputs = tuple(range(matrix.ndim - 1)), matrix.ndim - 1
    # Without momentum, Muon is the iteration alone.
    iteration = contrib.scale_by_muon(
        beta=0.0, nesterov=False, weight_dimension_numbers=contrib.MuonDimensionNumbers(inputs, outputs)
    )
    orthogonal, _ = iteration.update(matrix, iteration.init(matrix))
    return max(1, matrix.shape[-1] / (matrix.size / matrix.shape[-1])) ** 0.5 * jnp.asarray(orthogonal)


def sqrt(moment: Any) -> Any:
    """Square root with a derivative of 0 at 0; nan stays nan.

    Args:
      moment: >= 0, any shape.

    Returns:
      The roots, the same shape.
    """
    return jnp.where(moment == 0, 0, jnp.sqrt(jnp.where(moment == 0, 1, moment)))
