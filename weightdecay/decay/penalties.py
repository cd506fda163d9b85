"""Penalties that a decay rule adds to the loss: functions of the weights, without a coefficient.

The L2 penalty includes the factor 1/2, so that its gradient is the weights themselves. `penalized` adds a penalty with
its coefficient to a data loss.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentTypeError
from weightdecay.core.types import Mask, Params, Scalar
from weightdecay.decay.layout import ArrayLayout, Layout, describe_arrays


def l1(params: Params, mask: Mask | None = None) -> Scalar:
    """Sum of absolute values, ``|w|₁``.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.

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
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.

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
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
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
    tree.check_number(l1_coefficient, "l1_coefficient", "finite number", np.isfinite)
    tree.check_number(l2_coefficient, "l2_coefficient", "finite number", np.isfinite)
    return l1_coefficient * l1(params, mask) + l2_coefficient * l2(params, mask)


def huber(params: Params, mask: Mask | None = None, *, delta: Scalar = 1.0) -> Scalar:
    """Huber penalty, quadratic in small weights and linear in large ones: the gradient is ``clip(w, -delta, delta)``.

    Sum over the weights of ``w²/2`` where ``|w| <= delta``, and of ``delta (|w| - delta/2)`` elsewhere.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
      delta: Absolute value above which the penalty is linear; >= 0, shape ``()``, unit weight. May be traced. If it is
        infinite, this is `l2`.

    Returns:
      The penalty, shape ``()``, unit weight².

    References:
      Huber, Robust Estimation of a Location Parameter, 1964.

    Examples:
      >>> float(huber({"kernel": jnp.array([0.5, -4.0])}, delta=1.0))
      3.625
    """
    tree.check_number(delta, "delta")

    def of_array(weight: Array) -> Array:
        size = jnp.abs(weight)
        small = size <= delta
        # Each branch gets 0 where the other one applies, so that an infinite number makes no nan.
        inside, size, bound = jnp.where(small, weight, 0), jnp.where(small, 0, size), jnp.where(small, 0, delta)
        return jnp.sum(inside * (inside / 2) + bound * (size - bound / 2))

    return _total(of_array, params, mask)


def elimination(params: Params, mask: Mask | None = None, *, scale: Scalar = 1.0) -> Scalar:
    """Weight elimination: approximately quadratic below the scale, and at most 1 per weight above it.

    Sum over the weights of ``(w/scale)² / (1 + (w/scale)²)``, with the gradient ``(2 w/scale²) / (1 + w²/scale²)²``:
    small weights decay, large ones hardly.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
      scale: Absolute value at which a weight contributes 1/2; > 0, shape ``()``, unit weight. May be traced.

    Returns:
      The penalty, shape ``()``: a number of weights, without a unit.

    Numerics:
      Value and gradient are finite for weights of any size: a weight is divided by the larger of itself and the scale
      before it is squared.

    References:
      Weigend, Rumelhart & Huberman, Generalization by Weight-Elimination with Application to Forecasting, 1991.

    Examples:
      >>> float(elimination(jnp.array([2.0, -2.0]), scale=2.0))
      1.0
    """
    tree.check_number(scale, "scale", "number > 0", lambda number: number > 0)

    def of_array(weight: Array) -> Array:
        weight = jnp.clip(weight, -jnp.finfo(weight.dtype).max, jnp.finfo(weight.dtype).max)
        # A common factor of weight and scale does not change the ratio, so it has no gradient.
        larger = jax.lax.stop_gradient(jnp.maximum(jnp.abs(weight), scale))
        weight_square, scale_square = jnp.square(weight / larger), jnp.square(scale / larger)
        return jnp.sum(weight_square / (weight_square + scale_square))

    return _total(of_array, params, mask)


def orthogonal(params: Params, mask: Mask | None = None, *, layout: Layout | None = None) -> Scalar:
    """Distance of the units of a layer from an orthonormal system, ``|Wᵀ W - I|²`` in the Frobenius norm.

    ``W`` is the matrix that the layer multiplies by, rows = inputs, columns = output units. The gradient is
    ``4 W (Wᵀ W - I)``. Arrays that are not matrices (biases, scales), and empty ones, contribute 0. Of an array that
    stacks layers, each layer is a matrix.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`.

    Returns:
      The penalty, shape ``()``, without a unit: 0 for orthonormal units. More units than inputs cannot be
      orthonormal; each unit in excess adds at least 1.

    References:
      Bansal, Chen & Wang, Can We Gain More from Orthogonality Regularizations in Training Deep CNNs?, 2018,
      arXiv 1810.09102.

    Examples:
      >>> float(orthogonal({"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.ones(2)}))
      9.0
    """

    def of_matrix(matrix: Array) -> Array:
        gram = jnp.matmul(matrix.T, matrix, precision="highest")
        return jnp.sum(jnp.square(gram - jnp.eye(matrix.shape[1], dtype=matrix.dtype)))

    return _matrix_total(lambda w: _of_matrix(of_matrix, w), params, mask, layout)


def spectral(params: Params, mask: Mask | None = None, *, layout: Layout | None = None) -> Scalar:
    """Half the square of the largest singular value of each matrix, ``σ₁(W)²/2``, summed over the matrices.

    ``W`` is the matrix that the layer multiplies by, rows = inputs, columns = output units. The gradient is
    ``σ₁ u₁ v₁ᵀ``. Arrays that are not matrices (biases, scales), and empty ones, contribute 0. Of an array that stacks
    layers, each layer is a matrix.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`.

    Returns:
      The penalty, shape ``()``, unit weight².

    Numerics:
      Computed by a singular value decomposition, not by power iteration: exact, at a cost that grows with the cube of
      the smaller side. If the largest singular value is multiple, the gradient is that of one of its vectors; at
      ``W = 0`` it is 0.

    References:
      Yoshida & Miyato, Spectral Norm Regularization for Improving the Generalizability of Deep Learning, 2017,
      arXiv 1705.10941.

    Examples:
      >>> float(spectral({"kernel": jnp.array([[3.0, 0.0], [0.0, -4.0]])}))
      8.0
    """

    def of_matrix(matrix: Array) -> Array:
        return jnp.square(jnp.linalg.svd(matrix, compute_uv=False)[0]) / 2

    return _matrix_total(lambda w: _of_matrix(of_matrix, w), params, mask, layout)


def group_lasso(params: Params, mask: Mask | None = None, *, layout: Layout | None = None) -> Scalar:
    """Sum of the norms of groups, ``√(group size) |w_group|₂``: all weights of a group become zero together.

    A group is the incoming weights of one output unit or filter: a column of the matrix that the layer multiplies by.
    In an array that is not a matrix (biases, scales) each number is a group.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`.

    Returns:
      The penalty, shape ``()``, unit weight.

    Numerics:
      The gradient at a group of zeros is 0. Weights are divided by the largest of their group before they are squared,
      so that the squares neither overflow nor underflow.

    References:
      Yuan & Lin, Model Selection and Estimation in Regression with Grouped Variables, 2006; Wen et al., Learning
      Structured Sparsity in Deep Neural Networks, 2016, arXiv 1608.03665.

    Examples:
      >>> float(group_lasso(jnp.array([[3.0, 0.0], [4.0, 0.0], [0.0, 0.0], [0.0, 0.0]])))
      10.0
    """

    def of_matrix(weight: Array) -> Array:
        axes = tuple(range(weight.ndim - 1))
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(weight), axis=axes, keepdims=True, initial=0))
        # A compiler may multiply by the reciprocal, which is flushed to 0 for the very largest numbers.
        unit = jnp.where(largest > 0, jnp.minimum(largest, jnp.finfo(weight.dtype).max / 8), 1)
        square = jnp.sum(jnp.square(weight / unit), axis=axes, keepdims=True)
        norms = jnp.where(square == 0, 0, unit * jnp.sqrt(jnp.where(square == 0, 1, square)))
        return math.sqrt(math.prod(weight.shape[:-1])) * jnp.sum(norms)

    return _matrix_total(of_matrix, params, mask, layout)


def lp(params: Params, mask: Mask | None = None, *, p: Scalar) -> Scalar:
    """Sum of the p-th powers of the absolute values, ``|w|ᵖ``.

    Args:
      params: Weights, any pytree of float arrays.
      mask: True = included; a pytree prefix of ``params``. None = every weight is included.
      p: The power; > 0, shape ``()``. May be traced. 2 is twice `l2`, 1 is `l1`; below 1 it is not convex.

    Returns:
      The penalty, shape ``()``, unit weightᵖ.

    Numerics:
      The gradient at 0 is 0 by convention, also for ``p < 1``, where ``p |w|ᵖ⁻¹`` grows without bound towards 0.
      Weights below the smallest normal number are treated as 0, so that the gradient is finite everywhere near 0.

    References:
      Outmezguine & Levi, Decoupled Weight Decay for Any p Norm, 2024, arXiv 2404.10824.

    Examples:
      >>> float(lp(jnp.array([4.0, 0.0, -9.0]), p=0.5))
      5.0
    """
    tree.check_number(p, "p", "number > 0", lambda number: number > 0)

    def of_array(weight: Array) -> Array:
        size = jnp.abs(weight)
        zero = size < jnp.finfo(weight.dtype).tiny
        return jnp.sum(jnp.where(zero, 0, jnp.where(zero, 1, size) ** p))

    return _total(of_array, params, mask)


def penalized(
    loss_fn: Callable[[Params, Any], Scalar], penalty_fn: Callable[[Params], Scalar]
) -> Callable[[Params, Any, Scalar], tuple[Scalar, dict[str, Scalar]]]:
    """Add a penalty to a data loss: ``total = loss + coefficient * penalty``.

    The result works with `jax.value_and_grad` and ``has_aux=True``.

    Args:
      loss_fn: ``loss_fn(params, batch) -> loss``, the mean data loss, shape ``()``.
      penalty_fn: ``penalty_fn(params) -> penalty``, shape ``()``; any function of this module.

    Returns:
      ``penalized_loss(params, batch, coefficient) -> (total, {"loss": ..., "penalty": ...})``. Both parts have the unit
      of the loss and add up to ``total``: ``"penalty"`` includes the coefficient. The coefficient may be traced.

    Raises:
      TypeError: An argument is not a function; when called, a coefficient that is not a number.
      ValueError: When called, a loss or penalty that is not one number, or a negative coefficient.

    Examples:
      >>> loss = penalized(lambda w, x: jnp.mean((x - w) ** 2), l2)
      >>> total, parts = loss(jnp.array(2.0), jnp.array([1.0, 3.0]), 0.5)
      >>> float(total), float(parts["loss"]), float(parts["penalty"])
      (2.0, 1.0, 1.0)
    """
    for name, function in {"loss_fn": loss_fn, "penalty_fn": penalty_fn}.items():
        if not callable(function):
            raise ArgumentTypeError(
                name, f"{name} is {function!r}, of type {type(function).__name__}; give a function of the weights."
            )

    def penalized_loss(params: Params, batch: Any, coefficient: Scalar) -> tuple[Scalar, dict[str, Scalar]]:
        tree.check_number(coefficient, "coefficient")
        loss, penalty = loss_fn(params, batch), penalty_fn(params)
        for name, value in {"loss_fn": loss, "penalty_fn": penalty}.items():
            if np.ndim(value) > 0:
                raise ValueError(
                    f"{name} returns an array of shape {np.shape(value)}; it must return one number: a mean loss."
                )
        penalty = coefficient * penalty
        return loss + penalty, {"loss": loss, "penalty": penalty}

    return penalized_loss


def _total(penalty: Callable[[Any], Any], params: Params, mask: Mask | None) -> Scalar:
    return _sum_over_arrays([penalty] * len(jax.tree.leaves(params)), params, mask)


def _matrix_total(penalty: Callable[[Any], Any], params: Params, mask: Mask | None, layout: Layout | None) -> Scalar:
    """Sum of the penalties of all matrices; the penalty also gets arrays of one axis."""

    def in_layout(array: ArrayLayout, weight: Array) -> Array:
        if (array.is_matrix and array.is_default) or weight.ndim < 2:
            return penalty(weight)
        matrices = array.to_matrices(weight)
        return jnp.sum(jax.vmap(penalty)(matrices if array.is_matrix else matrices[:, 0]))

    arrays = describe_arrays(params, layout)
    return _sum_over_arrays([functools.partial(in_layout, array) for array in arrays], params, mask)


def _sum_over_arrays(penalties: Sequence[Callable[[Any], Any]], params: Params, mask: Mask | None) -> Scalar:
    tree.check_weights(params, integers=True)
    included = tree.spread(True if mask is None else mask, params, argument="mask")
    wrong = next((m for m in included if not isinstance(m, bool) and not _is_flag(m)), None)
    if wrong is not None:
        hint = ": call the function, as in mask=wd.masks.kernels(params)" if callable(wrong) else ""
        raise ArgumentTypeError(
            "mask",
            f"mask has a leaf {wrong!r} of type {type(wrong).__name__}; a mask holds True (included) or False{hint}.",
        )
    terms = zip(penalties, jax.tree.leaves(params), included, strict=True)
    return sum((jnp.where(m, penalty(_wide(w)), 0) for penalty, w, m in terms), start=jnp.zeros(()))


def _is_flag(leaf: Any) -> bool:
    return np.ndim(leaf) == 0 and jnp.issubdtype(getattr(leaf, "dtype", float), np.bool_)


def _wide(weight: Any) -> Array:
    return jnp.asarray(weight, jnp.promote_types(jnp.float32, jnp.result_type(weight)))


def _of_matrix(penalty: Callable[[Array], Array], weight: Any) -> Array:
    if np.ndim(weight) < 2 or np.size(weight) == 0:
        return jnp.zeros(())
    return penalty(weight.reshape(-1, np.shape(weight)[-1]))
