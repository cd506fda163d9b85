"""Preconditioners of optax in the form that decay rules need: differentiable at 0, and with their diagonals.

A preconditioner turns gradients g into a direction u; if it is diagonal, u = g / D under a steady gradient.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array
from optax import contrib

from weightdecay.core.types import Params, PyTree, Scalar
from weightdecay.decay.layout import ArrayLayout, apply_to_matrices, describe_arrays


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
        arrays = describe_arrays(params)
        shapes = [_stack_shape(w, array) for w, array in zip(jax.tree.leaves(params), arrays, strict=True)]
        ones = [jnp.ones(shape, jnp.result_type(w)) for shape, w in zip(shapes, jax.tree.leaves(params), strict=True)]
        return jax.tree.structure(params).unflatten(ones)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        def ratio(direction: Any, weight: Any, array: ArrayLayout) -> Any:
            if array.stack:
                return per_layer(direction, weight, array)
            direction_norm, weight_norm = optax.safe_norm(direction, 0.0), optax.safe_norm(weight, 0.0)
            defined = (direction_norm > 0) & (weight_norm > 0)
            quotient = weight_norm / jnp.where(defined, direction_norm, 1)
            return jnp.where(defined, quotient, 1).astype(direction.dtype)

        def per_layer(direction: Any, weight: Any, array: ArrayLayout) -> Any:
            """Ratios of the layers that an array stacks, of a shape that broadcasts against the array."""
            of_layer = functools.partial(ratio, array=array._replace(stack=()))
            ratios = jax.vmap(of_layer)(array.to_stacked(direction), array.to_stacked(weight))
            return ratios.reshape(_stack_shape(weight, array))

        structure = jax.tree.structure(params)
        arrays = structure.unflatten(describe_arrays(params))
        ratios = jax.tree.map(ratio, updates, params, arrays)
        return jax.tree.map(jnp.multiply, updates, ratios), ratios

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _stack_shape(weight: Any, array: ArrayLayout) -> tuple[int, ...]:
    """Shape of one number per stacked layer, which broadcasts against the weights; ``()`` without a stack."""
    sizes = [size if axis in array.stack else 1 for axis, size in enumerate(jnp.shape(weight))]
    return tuple(sizes) if array.stack else ()


def orthogonalize(updates: Any, arrays: Sequence[ArrayLayout] | None = None) -> Any:
    """Replace matrices by nearly orthogonal ones with optax's Newton-Schulz iteration, scaled for their shape.

    Args:
      updates: Arrays of at least two dimensions.
      arrays: Their layouts; None = as `describe_arrays` finds them. Of an array that stacks layers, each layer is a
        matrix of its own.

    Returns:
      The same shapes; all singular values are near ``sqrt(max(1, outputs / inputs))``.
    """

    def orthogonal(update: Array, array: ArrayLayout) -> Array:
        if array.is_default or not array.is_matrix or update.size == 0:
            return _orthogonal(update)
        if array.stack:
            return apply_to_matrices(_orthogonal, array, update)
        return array.from_matrices(_orthogonal(array.to_matrices(update)[0]), update.shape)

    arrays = describe_arrays(updates) if arrays is None else arrays
    leaves, structure = jax.tree.flatten(updates)
    return structure.unflatten([orthogonal(update, array) for update, array in zip(leaves, arrays, strict=True)])


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
