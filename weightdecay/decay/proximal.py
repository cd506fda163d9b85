"""Proximal maps: the exact minimizer of a squared distance plus a penalty, with the name of the penalty.

``prox(z) = argmin_y |y - z|²/2 + step_size * coefficient * penalty(y)``. Applied after a gradient step, it makes
weights exactly zero, while the gradient of the penalty only makes them small. ``step_size`` is the learning rate for
plain SGD; after a step with a diagonal preconditioner ``D`` it is ``learning_rate / D``, one number per weight.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError
from weightdecay.core.types import Params, PyTree, Scalar
from weightdecay.decay.layout import ArrayLayout, Layout, describe_arrays

_NEWTON_STEPS = 24


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
    tree.check_number(coefficient, "coefficient")
    return _map(lambda w, s: _soft_threshold(w, s * coefficient), params, step_size)


def l2(params: Params, coefficient: Scalar, step_size: Scalar | PyTree) -> Params:
    """Proximal map of the L2 penalty: multiplication by a factor.

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
    tree.check_number(coefficient, "coefficient")
    return _map(lambda w, s: w / (1 + s * coefficient), params, step_size)


def elastic_net(params: Params, l1_coefficient: Scalar, l2_coefficient: Scalar, step_size: Scalar | PyTree) -> Params:
    """Proximal map of the elastic net: soft thresholding, then multiplication by a factor.

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
    tree.check_number(l1_coefficient, "l1_coefficient")
    tree.check_number(l2_coefficient, "l2_coefficient")
    return l2(l1(params, l1_coefficient, step_size), l2_coefficient, step_size)


def huber(params: Params, coefficient: Scalar, step_size: Scalar | PyTree, *, delta: Scalar = 1.0) -> Params:
    """Proximal map of the Huber penalty: small weights shrink by a factor, large ones by a constant amount.

    Minimizes ``|y - params|²/2 + step_size * coefficient * huber(y)`` over ``y``. With ``k = step_size * coefficient``:
    ``w / (1 + k)`` where ``|w| <= delta (1 + k)``, else ``w - k delta sign(w)``. The scalars may be traced.

    Args:
      params: Weights, any pytree of float arrays.
      coefficient: Multiplies the penalty; >= 0, shape ``()``, loss / weight².
      step_size: >= 0, weight² / loss; shape ``()``, or a pytree prefix of ``params`` with arrays that broadcast against
        the weights.
      delta: Absolute value above which the penalty is linear; >= 0, shape ``()``, unit weight. If it is infinite, this
        is `l2`.

    Returns:
      The minimizer, with the structure, shapes and dtypes of ``params``.

    Numerics:
      At ``coefficient = 0`` the identity; at infinity 0; finite gradients everywhere.

    References:
      Guo & Fan, 2025, arXiv 2511.14721.

    Examples:
      >>> huber(jnp.array([3.0, -8.0]), coefficient=4.0, step_size=0.5, delta=1.0).tolist()
      [1.0, -6.0]
    """
    tree.check_number(coefficient, "coefficient")
    tree.check_number(delta, "delta")
    return _map(lambda w, s: _huber(w, s * coefficient, delta), params, step_size)


def group_lasso(
    params: Params, coefficient: Scalar, step_size: Scalar | PyTree, *, layout: Layout | None = None
) -> Params:
    """Proximal map of the group lasso: the norm of each group is soft-thresholded, so that whole groups become zero.

    Minimizes ``sum_i (y_i - w_i)² / (2 step_size_i) + coefficient * √size |y|₂`` over ``y`` for each group ``w`` of
    ``size`` weights. A group is the incoming weights of one output unit or filter: a column of the matrix that the
    layer multiplies by. In an array that is not a matrix (biases, scales) each number is a group.

    With one step size for the group this is ``w max(0, 1 - t / |w|)``, ``t = step_size * coefficient * √size``. With
    one step size per weight it is the exact map in that metric: 0 where ``|w / t|₂ <= 1``, else ``w_i r / (r + t_i)``
    with ``r = |y|₂`` the root of ``|w / (r + t)|₂ = 1``. The scalars may be traced.

    Args:
      params: Weights, any pytree of float arrays.
      coefficient: Multiplies the penalty; >= 0, shape ``()``, loss / weight.
      step_size: >= 0, weight² / loss; shape ``()``, or a pytree prefix of ``params`` with arrays that broadcast against
        the weights.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`.

    Returns:
      The minimizer, with the structure, shapes and dtypes of ``params``.

    Numerics:
      At ``coefficient = 0``, and where a step size is 0, the identity bit for bit; at infinity 0; finite gradients at
      0. The root is found in units of the largest weight of the group, in 24 steps of Newton's method from below, where
      it cannot overshoot. In a search for the worst case, 1e-12 of the root took 14 steps with step sizes spread over
      1e6, and 22 with 1e12. Derivatives are those of the equation, not of the steps.

    References:
      Yuan & Lin, Model Selection and Estimation in Regression with Grouped Variables, 2006; Wen et al., Learning
      Structured Sparsity in Deep Neural Networks, 2016, arXiv 1608.03665.

    Examples:
      >>> kernel = jnp.array([[3.0, 1.0], [4.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
      >>> group_lasso(kernel, coefficient=2.5, step_size=0.5).tolist()
      [[1.5, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
    """
    tree.check_number(coefficient, "coefficient")
    return _matrix_map(lambda w, s: _group_lasso(w, s, coefficient), params, step_size, layout)


def max_norm(params: Params, bound: Scalar | PyTree, *, layout: Layout | None = None) -> Params:
    """Projection on a ball: each group whose norm exceeds the bound is scaled back to it.

    Minimizes ``|y - params|²`` over ``y`` with ``|y_group|₂ <= bound`` for each group: ``w min(1, bound / |w|₂)``. A
    group is the incoming weights of one output unit or filter, as in `group_lasso`. The bound may be traced.

    Args:
      params: Weights, any pytree of float arrays.
      bound: Largest norm of a group; >= 0, unit weight; shape ``()``, or a pytree prefix of ``params``.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known; see
        `weightdecay.decay.masks.describe`.

    Returns:
      The projection, with the structure, shapes and dtypes of ``params``.

    Numerics:
      A group within the bound is returned bit for bit. The norm of the others is the bound up to rounding in the dtype
      of the weights, and a second projection changes them by no more. At ``bound = 0`` exactly 0; finite gradients at
      0. Keras ``MaxNorm`` divides by ``1e-7 + |w|₂``, and therefore slightly changes the groups within the bound too.

    References:
      Srebro, Rennie & Jaakkola, Maximum-Margin Matrix Factorization, 2005.

    Examples:
      >>> max_norm(jnp.array([[0.0, 0.5], [4.0, 0.25]]), bound=1.0).tolist()
      [[0.0, 0.5], [1.0, 0.25]]
    """
    return _matrix_map(_max_norm, params, bound, layout, argument="bound")


def _soft_threshold(weight: Any, threshold: Any) -> Any:
    # In place of max(|w| - t, 0): this stays finite where weight and threshold are both infinite.
    return jnp.where(jnp.abs(weight) <= threshold, 0, weight - jnp.sign(weight) * threshold)


def _huber(weight: Array, strength: Any, delta: Any) -> Array:
    weight = _wide(weight, strength, delta)
    size = jnp.abs(weight)
    beyond = size > delta * (1 + strength)
    # Each branch gets 0 where the other one applies, so that an infinite number makes no nan.
    length = jnp.where(beyond, strength, 0) * jnp.where(beyond, delta, 0)
    return jnp.where(beyond, weight - length * jnp.sign(weight), jnp.where(beyond, 0, weight) / (1 + strength))


def _max_norm(weight: Array, bound: Any) -> Array:
    unit, scale = _unit(_wide(weight, bound))
    outside = ~(_norm(jax.lax.stop_gradient(unit)) * scale <= bound)
    unit = jnp.where(outside, unit, 1)
    return jnp.where(outside, unit / _norm(unit) * jnp.where(outside, bound, 0), weight)


def _group_lasso(weight: Array, step_size: Any, coefficient: Any) -> Array:
    if weight.size == 0:
        return weight
    weight = _wide(weight, step_size, coefficient)
    # Both factors stay finite, so that 0 times the other one, and 0 times its derivative, are 0.
    limit = float(jnp.finfo(weight.dtype).max) / 1e6
    total = jnp.minimum(coefficient * math.sqrt(math.prod(weight.shape[:-1])), limit)
    endless = (jnp.isinf(coefficient) & (step_size > 0)) | (jnp.isinf(step_size) & (coefficient > 0))
    thresholds = jnp.where(endless, jnp.inf, jnp.minimum(step_size, limit) * total).astype(weight.dtype)
    return _shrunk(weight, thresholds.reshape((1,) * (weight.ndim - thresholds.ndim) + thresholds.shape))


@jax.custom_jvp
def _shrunk(weight: Array, thresholds: Array) -> Array:
    return weight * _root(weight, thresholds)[0]


@_shrunk.defjvp
def _shrunk_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    # The differentials of y = w r / (r + t) and |q| = 1, with q = w / (r + t), after eliminating dr.
    weight, thresholds = primals
    weight_tangent, threshold_tangent = tangents
    kept, ratio, inverse = _root(weight, thresholds)
    slope = ratio * inverse
    curvature = _sum(ratio * slope)
    slope = slope / jnp.where(curvature == 0, 1, curvature)
    radius_tangent = _sum(slope * weight_tangent) - _sum(slope * ratio * threshold_tangent)
    moved = kept * weight_tangent + ratio * ((1 - kept) * radius_tangent - kept * threshold_tangent)
    return weight * kept, moved


def _root(weight: Array, thresholds: Array) -> tuple[Array, Array, Array]:
    """Solve ``|w / (r + t)| = 1`` for r, in units of the largest weight of each group.

    Returns ``r / (r + t)``, ``w / (r + t)``, and ``1 / (r + t)`` in those units. Where the group vanishes, all of them
    are 0, except that the first is 1 where t is 0.
    """
    unit, scale = _unit(weight)
    tiny, huge = jnp.finfo(weight.dtype).tiny, jnp.finfo(weight.dtype).max
    thresholds = jnp.minimum(thresholds / scale, huge)
    if math.prod(thresholds.shape[:-1]) == 1:
        radius = _norm(unit) - thresholds
        vanishes = radius <= 0
    else:
        t = jnp.where(unit == 0, 1, thresholds)  # a weight of 0 does not change the root
        square = _sum(jnp.square(unit))
        # Two lower bounds: from all weights together, by Jensen's inequality, and from each weight alone.
        start = jnp.sqrt(square) - _sum(jnp.square(unit) * t) / jnp.where(square == 0, 1, square)
        start = jnp.maximum(start, jnp.max(jnp.abs(unit) - t, axis=_axes(unit), keepdims=True))
        start = jnp.maximum(start, 0)
        vanishes = (start == 0) & (_norm(unit / t) <= 1)
        t = jnp.where(vanishes, 1, t)

        def newton(_: Any, radius: Array) -> Array:
            # Applied to 1 / |w / (r + t)|, which is concave in r, and linear where all t are equal.
            inverse = 1 / (radius + t)
            norm = _norm(unit * inverse)
            slope = _sum(jnp.square(unit * inverse / jnp.where(norm == 0, 1, norm)) * inverse)
            return radius + (norm - 1) / jnp.where(slope == 0, 1, slope)

        radius = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, start)
    radius = jnp.where(vanishes, 1, jnp.maximum(radius, tiny))
    inverse = 1 / (radius + thresholds)
    kept = jnp.where(thresholds == 0, 1, jnp.where(vanishes, 0, radius * inverse))
    inverse = jnp.where(vanishes, 0, inverse)
    return kept, unit * inverse, inverse


def _unit(weight: Array) -> tuple[Array, Array]:
    """Each group divided by its largest weight, and that weight; the squares neither overflow nor underflow."""
    largest = jnp.max(jnp.abs(weight), axis=_axes(weight), keepdims=True, initial=0)
    # Results are multiplied by the scale again, so that it has no gradient.
    scale = jax.lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    # A compiler may multiply by the reciprocal, which is flushed to 0 for the very largest numbers.
    scale = jnp.where(jnp.isinf(scale), scale, jnp.minimum(scale, jnp.finfo(weight.dtype).max / 8))
    return jnp.where(jnp.isinf(weight), jnp.sign(weight), weight / scale), scale


def _norm(weight: Array) -> Array:
    return jnp.sqrt(_sum(jnp.square(weight)))


def _sum(numbers: Array) -> Array:
    return jnp.sum(numbers, axis=_axes(numbers), keepdims=True)


def _axes(weight: Array) -> tuple[int, ...]:
    return tuple(range(weight.ndim - 1))


def _wide(weight: Array, *numbers: Any) -> Array:
    return weight.astype(jnp.promote_types(jnp.float32, jnp.result_type(weight, *numbers)))


def _map(function: Any, params: Params, prefix: Scalar | PyTree, argument: str = "step_size") -> Params:
    tree.check_weights(params)
    return _map_arrays([function] * len(jax.tree.leaves(params)), params, prefix, argument)


def _matrix_map(
    function: Any, params: Params, prefix: Scalar | PyTree, layout: Layout | None, argument: str = "step_size"
) -> Params:
    """Apply a function of matrices, or of arrays of one axis, and of a number or an array that broadcasts to it."""
    tree.check_weights(params)

    def in_layout(array: ArrayLayout, weight: Array, number: Any) -> Array:
        if (array.is_matrix and array.is_default) or weight.ndim < 2:
            return function(weight, number)

        def split(values: Any) -> Array:
            matrices = array.to_matrices(values)
            return matrices if array.is_matrix else matrices[:, 0]

        if np.ndim(number):
            moved = jax.vmap(function)(split(weight), split(jnp.broadcast_to(number, weight.shape)))
        else:
            moved = jax.vmap(lambda matrix: function(matrix, number))(split(weight))
        return array.from_matrices(moved, weight.shape)

    arrays = describe_arrays(params, layout)
    return _map_arrays([functools.partial(in_layout, array) for array in arrays], params, prefix, argument)


def _map_arrays(functions: Sequence[Any], params: Params, prefix: Scalar | PyTree, argument: str) -> Params:
    leaves, structure = jax.tree.flatten(params)
    numbers = tree.spread(prefix, params, argument=argument)
    for index, (weight, number) in enumerate(zip(leaves, numbers, strict=True)):
        if not np.ndim(number):
            tree.check_number(number, argument)
        elif not _fits(np.shape(number), np.shape(weight)):
            raise ArgumentError(
                argument,
                f"{argument} has shape {np.shape(number)} for {tree.named_leaves(params)[index][0] or 'an array'} of "
                f"shape {np.shape(weight)}; give one number, or an array that broadcasts to the shape of the weights.",
            )
    moved = (
        function(jnp.asarray(w), n).astype(jnp.result_type(w))
        for function, w, n in zip(functions, leaves, numbers, strict=True)
    )
    return structure.unflatten(moved)


def _fits(shape: tuple[int, ...], onto: tuple[int, ...]) -> bool:
    """Whether an array of one shape broadcasts to the other."""
    return len(shape) <= len(onto) and all(
        size in (1, other) for size, other in zip(shape[::-1], onto[::-1], strict=False)
    )
