"""Convolutions and pooling replaced by slices and matrix products, in a computation that is already traced.

XLA computes a convolution whose kernels differ from member to member as a grouped convolution, and pooling window by
window. Both are slow, especially under the gradient. `rewrite` replaces them in any function, before gradients are
taken and members are batched, so that networks need not be changed.

The shapes alone decide how. A convolution of floats becomes one matrix product with the patches of its inputs; one with
dilated inputs and stride 1 (a transposed convolution) the transpose of that; one with a single channel per group a sum
of scaled slices. Max-pooling becomes selections among slices. Sum-pooling (the numerator of average-pooling) becomes a
sum of slices where windows overlap, and is left unchanged where they do not, since that is as fast. Large windows,
batch groups and empty arrays are left unchanged.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import ClosedJaxpr, JaxprEqn

from weightdecay.core import jaxprs


class _Window(NamedTuple):
    """A window along one axis."""

    size: int = 1
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    operand_dilation: int = 1
    dilation: int = 1


_POINT = _Window()
# Each slice is an operation of its own; beyond these numbers they cost more to compile, and finally to run, than they
# save. Windows that do not overlap are fast without rewriting: rewritten, 6 by 6 is 1.5 times faster, 7 by 7 slower.
_MOST_SLICES = 64
_MOST_SLICES_APART = 36


def rewrite(function: Callable[..., Any]) -> Callable[..., Any]:
    """Replace the convolutions and poolings of a function by slices and matrix products.

    The result is the same except for the order of sums. A function without convolutions or pooling is unchanged,
    operation by operation. Loops, branches, `jax.jit` and `jax.checkpoint` inside it are entered. Custom derivatives
    are kept: the function of a `jax.custom_vjp` is rewritten, its rules are not.

    Args:
      function: Any traceable function; its arguments are pytrees of arrays.

    Returns:
      A function with the same arguments and results. It can be differentiated, batched and compiled like any other.

    Numerics:
      At ties, max-pooling sends its gradient to the first maximum of the window, as `jax.lax.reduce_window` does. On
      one core of an AVX-512 CPU, with eight members and gradients in a loop, convolutions were 5 to 45 times faster,
      depthwise ones 280 times, max-pooling 1.5 to 7 times, sum-pooling 1.2 to 2.6 times. The same rule applies on GPU
      and TPU, where it was not measured.

    Examples:
      >>> blur = lambda image, kernel: jax.lax.conv(image, kernel, (1, 1), "SAME")
      >>> print(rewrite(blur)(jnp.ones((1, 1, 3, 3)), jnp.ones((1, 1, 3, 3)))[0, 0])
      [[4. 6. 4.]
       [6. 9. 6.]
       [4. 6. 4.]]
    """

    @functools.wraps(function)
    def rewritten(*args: Any) -> Any:
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        outputs = _evaluate(traced, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return rewritten


def _evaluate(traced: ClosedJaxpr, inputs: Sequence[Any]) -> list[Any]:
    def interpret(equation: JaxprEqn, operands: list[Any]) -> list[Any] | None:
        if _is_rewritten(equation):
            return [_REWRITINGS[equation.primitive.name](*operands, **equation.params)]
        changed = _with_inner_rewritten(equation)
        return None if changed is equation else jaxprs.bind(changed, operands, traced.jaxpr.debug_info)

    return jaxprs.evaluate(traced.jaxpr, traced.consts, inputs, interpret)


def _with_inner_rewritten(equation: JaxprEqn) -> JaxprEqn:
    changed = {
        name: jax.tree.map(_rewritten_inner, value)
        for name, value in equation.params.items()
        if any(map(_holds_any, jax.tree.leaves(value)))
    }
    return equation.replace(params={**equation.params, **changed}) if changed else equation


def _rewritten_inner(value: Any) -> Any:
    if not _holds_any(value):
        return value
    closed = value if isinstance(value, ClosedJaxpr) else ClosedJaxpr(value, ())
    inputs = [jax.ShapeDtypeStruct(a.shape, a.dtype, weak_type=a.weak_type) for a in closed.in_avals]
    changed = jax.make_jaxpr(lambda *args: _evaluate(closed, args))(*inputs)
    return changed if isinstance(value, ClosedJaxpr) else changed.jaxpr


def _holds_any(value: Any) -> bool:
    """Whether a parameter of an equation is a traced function in which anything is rewritten."""
    closed = jaxprs.as_closed(value)
    return closed is not None and any(
        _is_rewritten(equation) or any(map(_holds_any, jaxprs.inner(equation))) for equation in closed.jaxpr.eqns
    )


def _is_rewritten(equation: JaxprEqn) -> bool:
    name, params = equation.primitive.name, equation.params
    if name not in _REWRITINGS:
        return False
    arrays: list[Any] = [variable.aval for variable in (*equation.invars, *equation.outvars)]
    if not all(jnp.issubdtype(array.dtype, jnp.floating) and array.size for array in arrays):
        return False
    if name != "conv_general_dilated":
        sizes, strides = params["window_dimensions"], params["window_strides"]
        overlap = any(size > stride for size, stride in zip(sizes, strides, strict=True))
        if not overlap:
            return math.prod(sizes) <= _MOST_SLICES_APART and name == "reduce_window_max"
        return math.prod(sizes) <= _MOST_SLICES
    _, channels, *sizes = (arrays[1].shape[axis] for axis in params["dimension_numbers"].rhs_spec)
    num_slices = math.prod(sizes) if _is_sum(channels, params["feature_group_count"]) else sum(sizes)
    return num_slices <= _MOST_SLICES and params["batch_group_count"] == 1


def _convolution(
    inputs: Any,
    kernel: Any,
    *,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: Any,
    feature_group_count: int,
    precision: Any,
    preferred_element_type: Any,
    **_: Any,
) -> Array:
    """Compute a convolution of any layout with channels last."""
    to_inputs, to_kernel, to_outputs = dimension_numbers
    dtype = preferred_element_type or inputs.dtype

    # The patches are many times larger than the inputs; computing them again in the backward pass is not slower.
    @jax.checkpoint
    def convolve(inputs: Any, kernel: Any) -> Array:
        inputs = lax.transpose(inputs, (to_inputs[0], *to_inputs[2:], to_inputs[1]))
        kernel = lax.transpose(kernel, (*to_kernel[2:], to_kernel[1], to_kernel[0]))
        kernel = kernel.reshape(*kernel.shape[:-1], feature_group_count, -1)
        if any(step > 1 for step in lhs_dilation) and all(stride == 1 for stride in window_strides):
            outputs = _transposed(inputs, kernel, padding, lhs_dilation, rhs_dilation, precision, dtype)
        else:
            along = zip(kernel.shape, window_strides, padding, lhs_dilation, rhs_dilation, strict=False)
            windows = [_Window(*settings) for settings in along]
            outputs = _windowed(inputs, kernel, windows, precision, dtype)
        order = (to_outputs[0], *to_outputs[2:], to_outputs[1])
        return lax.transpose(outputs, [order.index(axis) for axis in range(len(order))])

    return convolve(inputs, kernel)


def _windowed(inputs: Any, kernel: Any, windows: Sequence[_Window], precision: Any, dtype: Any) -> Array:
    """Convolution, ``(examples, *spatial, channels)``; kernel ``(*window, channels, groups, outputs)``, per group."""
    *_, channels, groups, outputs_each = kernel.shape
    if groups > 1:
        inputs = inputs.reshape(*inputs.shape[:-1], groups, channels)
    if _is_sum(channels, groups):
        wide = jnp.promote_types(dtype, jnp.float32)  # float16s are summed in float32, as in a product
        slices = _slices(inputs, [_POINT, *windows])
        factors = kernel.reshape(-1, groups, outputs_each)
        terms = (part.astype(wide) * factor.astype(wide) for part, factor in zip(slices, factors, strict=True))
        outputs = functools.reduce(lax.add, terms).astype(dtype)
    else:
        # Axis by axis, so that a window of h * w entries needs h + w slices.
        for axis, window in reversed(list(enumerate(windows, 1))):
            inputs = jnp.concatenate(_slices(inputs, [_POINT] * axis + [window]), -1)
        settings = {"precision": precision, "preferred_element_type": dtype}
        if groups == 1:
            return jnp.matmul(inputs, kernel.reshape(-1, outputs_each), **settings)
        outputs = jnp.einsum("...gc,cgo->...go", inputs, kernel.reshape(-1, groups, outputs_each), **settings)
    return outputs.reshape(*outputs.shape[:-2], -1)


def _transposed(
    inputs: Any,
    kernel: Any,
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    precision: Any,
    dtype: Any,
) -> Array:
    """Convolution of dilated inputs with stride 1, as the transpose of a strided one, without products with zeros."""
    *entries, _, groups, channels = kernel.shape
    windows, sizes = [], []
    for before, size, (low, high), stride, dilation in zip(
        inputs.shape[1:-1], entries, padding, lhs_dilation, rhs_dilation, strict=True
    ):
        spread, reach = (before - 1) * stride + 1, (size - 1) * dilation
        windows.append(_Window(size, stride, (reach - low, reach - high), 1, dilation))
        sizes.append(spread + low + high - reach)
    mirrored = jnp.flip(jnp.swapaxes(kernel, -1, -3), range(len(entries))).astype(dtype)
    striding = jax.linear_transpose(
        lambda outputs: _windowed(outputs, mirrored, windows, precision, dtype),
        jax.ShapeDtypeStruct((inputs.shape[0], *sizes, groups * channels), dtype),
    )
    return striding(inputs.astype(dtype))[0]


def _maximum(operand: Any, **params: Any) -> Array:
    windows = _windows(params)
    sizes = [window.size for window in windows]
    apart = all(window == _Window(window.size, window.size) for window in windows)

    def first_maximum(operand: Any) -> tuple[Array, Array]:
        first, *others = _slices(operand, windows, -jnp.inf)
        best, index = first, jnp.zeros(first.shape, jnp.uint8)
        for position, other in enumerate(others, 1):
            stays = (best >= other) | (best != best)  # nan stays as well
            best, index = jnp.where(stays, best, other), jnp.where(stays, index, position)
        return best, index

    def at(index: Any, operand: Any) -> Array:
        if not apart:
            parts = enumerate(_slices(operand, windows))
            chosen = (jnp.where(index == position, part, 0) for position, part in parts)
            return functools.reduce(lax.add, chosen)
        # Separate axes for the windows: shape (outputs, window, outputs, window, ...).
        covered = lax.slice(operand, [0] * operand.ndim, [n * size for n, size in zip(index.shape, sizes, strict=True)])
        blocks = covered.reshape([n for pair in zip(index.shape, sizes, strict=True) for n in pair])
        positions = lax.iota(jnp.uint8, math.prod(sizes)).reshape([n for size in sizes for n in (1, size)])
        inside = range(1, blocks.ndim, 2)
        return jnp.where(jnp.expand_dims(index, inside) == positions, blocks, 0).sum(inside)

    @jax.custom_jvp
    def pooled(operand: Any) -> Array:
        return functools.reduce(lax.max, _slices(operand, windows, -jnp.inf))

    @pooled.defjvp
    def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
        best, index = first_maximum(primals[0])
        return best, at(index, tangents[0])

    return pooled(operand)


def _sum(operand: Any, **params: Any) -> Array:
    for axis, window in enumerate(_windows(params)):
        operand = functools.reduce(lax.add, _slices(operand, [_POINT] * axis + [window]))
    return operand


def _slices(operand: Any, windows: Sequence[_Window], fill: float = 0.0) -> list[Array]:
    """One array per entry of the window, each over all windows; the entries of the last axis vary fastest."""
    windows = [*windows, *[_POINT] * (operand.ndim - len(windows))]
    edges = [(window.padding[0], window.padding[1], window.operand_dilation - 1) for window in windows]
    padded = lax.pad(operand, np.array(fill, operand.dtype), edges)
    strides = [window.stride for window in windows]
    # From the first start of a window to the last, both inclusive.
    extents = [
        (size - (window.size - 1) * window.dilation - 1) // window.stride * window.stride + 1
        for size, window in zip(padded.shape, windows, strict=True)
    ]
    starts = itertools.product(*(range(0, window.size * window.dilation, window.dilation) for window in windows))
    return [lax.slice(padded, start, list(map(operator.add, start, extents)), strides) for start in starts]


def _windows(params: dict[str, Any]) -> list[_Window]:
    names = ("window_dimensions", "window_strides", "padding", "base_dilation", "window_dilation")
    return [_Window(*settings) for settings in zip(*(params[name] for name in names), strict=True)]


def _is_sum(channels: int, groups: int) -> bool:
    """Whether a convolution is a sum of scaled slices, from its channels per group and its number of groups."""
    return channels == 1 and groups > 1


_REWRITINGS: dict[str, Callable[..., Array]] = {
    "conv_general_dilated": _convolution,
    "reduce_window_max": _maximum,
    "reduce_window_sum": _sum,
}
