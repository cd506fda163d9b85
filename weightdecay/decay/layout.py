"""What each array of the weights is: a kernel or not, and which of its axes are inputs, outputs or stacked layers.

Everything that needs to know it asks `describe_arrays`: masks, rules and penalties that act on units or matrices,
proximal maps, Muon and LAMB. A kernel multiplies the inputs of a layer as a matrix of shape ``(inputs, outputs)``. Its
array may have several input axes (the window of a convolution), several output axes (heads and their width), and axes
that only stack kernels of equal layout (layers under ``nn.scan`` or `jax.vmap`, experts).

The answer comes from the first of these that knows it:

1. the user: ``layout={"w1": "out in"}``, a pattern of names and one word per axis (``in``, ``out`` or ``stack``);
2. the class of an equinox layer, where the weights are a module of equinox;
3. the names that flax gives to layers and arrays, and names in common use (``cls_token``, ``pos_embed``, ``A_log``);
4. the bias of the layer, whose shape is the shape of the outputs;
5. the default: the last axis is the outputs, all others are inputs.

Whether an array is a kernel at all, and the classes and names that tell, are in `weightdecay.decay.array_kinds`.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Params
from weightdecay.decay.array_kinds import (
    BUFFER,
    EMBEDDING,
    KERNEL,
    POSITION,
    SCALE,
    Leaf,
    bias_shape,
    kind_of,
    layer_class,
)

Layout = Mapping[str, str]
"""Layouts by patterns of names, such as ``{"w1": "out in"}``."""


class ArrayLayout(NamedTuple):
    """What one array of the weights is.

    Attributes:
      kind: `KERNEL`, `BIAS`, `SCALE`, `EMBEDDING`, `POSITION` or `BUFFER`.
      stack: Axes that stack arrays of equal layout, ascending.
      inputs: Axes of the inputs, ascending; empty where the array is not a matrix.
      outputs: Axes of the outputs, ascending.
      is_known: Whether the layout is known rather than the default.
    """

    kind: str
    stack: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    is_known: bool = True

    @property
    def is_matrix(self) -> bool:
        """Whether the array, or each of those that it stacks, is a matrix."""
        return bool(self.inputs and self.outputs)

    @property
    def is_default(self) -> bool:
        """Whether the last axis is the outputs and all other axes are inputs."""
        return not self.stack and self.outputs == (len(self.inputs),)

    def __str__(self) -> str:
        """Return one word per axis, as the user would write it."""
        words = {axis: "stack" for axis in self.stack} | {axis: "in" for axis in self.inputs}
        words |= {axis: "out" for axis in self.outputs}
        return " ".join(words[axis] for axis in sorted(words))

    def to_matrices(self, array: Any) -> Any:
        """Bring an array to the shape ``(stacked, inputs, outputs)``, each the product of its axes.

        An array that is not a matrix has 1 input: each number is an output of its own.
        """
        shape = jnp.shape(array)
        sizes = [math.prod(shape[axis] for axis in axes) for axes in (self.stack, self.inputs, self.outputs)]
        return jnp.transpose(array, (*self.stack, *self.inputs, *self.outputs)).reshape(sizes)

    def from_matrices(self, matrices: Any, shape: Sequence[int]) -> Any:
        """Bring matrices of shape ``(stacked, inputs, outputs)`` back to the shape of the array."""
        order = (*self.stack, *self.inputs, *self.outputs)
        array = matrices.reshape([shape[axis] for axis in order])
        return jnp.transpose(array, [order.index(axis) for axis in range(len(order))])

    def to_stacked(self, array: Any) -> Any:
        """Bring an array to the shape ``(stacked, ...)`` with the other axes in their order."""
        shape = jnp.shape(array)
        others = [axis for axis in range(len(shape)) if axis not in self.stack]
        sizes = [math.prod(shape[axis] for axis in self.stack), *(shape[axis] for axis in others)]
        return jnp.transpose(array, (*self.stack, *others)).reshape(sizes)

    def from_stacked(self, stacked: Any, shape: Sequence[int]) -> Any:
        """Bring an array of shape ``(stacked, ...)`` back to the shape of the array."""
        order = (*self.stack, *(axis for axis in range(len(shape)) if axis not in self.stack))
        array = stacked.reshape([shape[axis] for axis in order])
        return jnp.transpose(array, [order.index(axis) for axis in range(len(order))])


def describe_arrays(params: Params, layout: Layout | None = None) -> list[ArrayLayout]:
    """What each array of the weights is.

    Args:
      params: Weights, any pytree of arrays; may be traced, or shapes alone.
      layout: Layouts by patterns of names, for what cannot be known: ``{"w1": "out in"}``, one word per axis (``in``,
        ``out`` or ``stack``). A pattern is a regular expression for a run of whole parts of a name; the first that
        matches applies.

    Returns:
      One `ArrayLayout` per leaf, in the order of `jax.tree.leaves`.

    Raises:
      TypeError: ``layout`` is not a dictionary of strings.
      ValueError: A pattern matches no weight, or a layout does not fit its array.

    Examples:
      >>> import numpy as np
      >>> query = {"query": {"kernel": np.zeros((4, 2, 3)), "bias": np.zeros((2, 3))}}
      >>> [str(array) for array in describe_arrays(query)]
      ['out out', 'in out out']
    """
    paths = jax.tree_util.tree_leaves_with_path(params)
    named = tree.named_leaves(params)
    leaves = [Leaf.of(params, path, name, leaf) for (path, _), (name, leaf) in zip(paths, named, strict=True)]
    siblings = {leaf.keys: leaf for leaf in leaves}
    kinds = [kind_of(leaf, siblings) for leaf in leaves]
    depths = _stack_depths(leaves, kinds)
    arrays = [_array(leaf, kind, depth, siblings) for leaf, kind, depth in zip(leaves, kinds, depths, strict=True)]
    arrays = _outputs_first_like_others(leaves, arrays)
    return arrays if layout is None else _with_layout(layout, [name for name, _ in named], leaves, arrays)


def apply_to_matrices(function: Callable[..., Any], array: ArrayLayout, *arrays: Any) -> Any:
    """Apply a function of matrices to an array, to each of those that it stacks.

    Args:
      function: Of matrices of shape ``(inputs, outputs)``, to one of the same shape.
      array: Layout of all of ``arrays``.
      *arrays: Arrays of equal shape.

    Returns:
      An array of this shape.
    """
    matrices = [array.to_matrices(each) for each in arrays]
    return array.from_matrices(jax.vmap(function)(*matrices), jnp.shape(arrays[0]))


_WRAPPERS = re.compile(r"^(?:Scan|Vmap|Checkpoint|Remat|Jit|Shard|Partial)+(?=[A-Z])")
_QUERIES = ("query", "key", "value")


def _stack_depths(leaves: Sequence[Leaf], kinds: Sequence[str]) -> list[int]:
    """Number of leading axes that stack layers, for each array, as far as names and neighbors in the tree tell.

    flax names what ``nn.scan`` and ``nn.vmap`` make after the layer: ``ScanBlock_0``. A normalization scale with two
    axes in a container whose arrays all have the same first size tells it too.
    """
    by_name = [sum(map(_stacks, leaf.keys)) for leaf in leaves]
    stacked: set[tuple[str, ...]] = set()
    scales = [leaf for leaf, kind in zip(leaves, kinds, strict=True) if kind == SCALE and leaf.keys[-1] == "scale"]
    for scale in (leaf for leaf in scales if len(leaf.shape) == 2):
        for end in range(len(scale.keys) - 1, 0, -1):
            container = scale.keys[:end]
            inside = [
                (leaf, kind)
                for leaf, kind in zip(leaves, kinds, strict=True)
                if leaf.keys[:end] == container and kind != BUFFER
            ]
            if any(leaf.shape[:1] != scale.shape[:1] for leaf, _ in inside):
                break
            if any(kind == KERNEL and len(leaf.shape) > 2 for leaf, kind in inside):
                stacked.add(container)
    return [
        max(depth, int(any(leaf.keys[:end] in stacked for end in range(len(leaf.keys)))))
        for leaf, depth in zip(leaves, by_name, strict=True)
    ]


def _stacks(key: str) -> bool:
    """Whether the name of a container says that its arrays are stacked."""
    if re.search(r"(?:^|_)experts$", key):
        return True
    wrappers = _WRAPPERS.match(key)
    return wrappers is not None and re.search("Scan|Vmap", wrappers[0]) is not None


def _array(leaf: Leaf, kind: str, depth: int, siblings: Mapping[tuple[str, ...], Leaf]) -> ArrayLayout:
    num_axes = len(leaf.shape)
    known = layer_class(leaf)
    if known is not None:
        depth = max(num_axes - known[0].num_axes(known[1]), 0)
    is_table = kind in (EMBEDDING, POSITION)
    if (kind != KERNEL and not is_table) or num_axes < 2:
        return _split(kind, num_axes, min(depth, max(num_axes - 1, 0)), 0)
    if is_table:
        depth = depth if known else 0
        return _split(kind, num_axes, depth, num_axes - 1 - depth)
    if known is not None:
        stack, outputs, *inputs = (tuple(range(depth)), depth, *range(depth + 1, num_axes))
        return ArrayLayout(KERNEL, stack, tuple(inputs), (outputs,))
    found = _named_kernel(leaf, depth, siblings) or _kernel_by_bias(leaf, depth, siblings)
    if found is not None:
        return found
    depth = min(depth, num_axes - 1)
    if num_axes - depth < 2:  # a vector in each of the stacked layers
        return _split(SCALE, num_axes, depth, 0)
    # A weight without a bias may have its outputs first, as in torch, or last.
    is_known = depth > 0 or (num_axes == 2 and leaf.keys[-1] != "weight")
    return _split(KERNEL, num_axes, depth, num_axes - depth - 1, is_known=is_known)


def _split(kind: str, num_axes: int, num_stack: int, num_inputs: int, *, is_known: bool = True) -> ArrayLayout:
    """Layout with axes in the order stack, inputs, outputs."""
    axes = tuple(range(num_axes))
    end = num_stack + num_inputs
    return ArrayLayout(kind, axes[:num_stack], axes[num_stack:end], axes[end:], is_known)


def _named_kernel(leaf: Leaf, depth: int, siblings: Mapping[tuple[str, ...], Leaf]) -> ArrayLayout | None:
    """Layout of a kernel of flax from the names of its layer."""
    num_axes = len(leaf.shape)
    if leaf.keys[-1] != "kernel" or num_axes < 3:
        return None
    bias = bias_shape(leaf, siblings)
    base = re.sub(r"_\d+$", "", _WRAPPERS.sub("", leaf.layer))
    if base in ("Dense", "Linear"):
        return _split(KERNEL, num_axes, num_axes - 2, 1)
    if base in ("Conv", "ConvTranspose") and bias is None:
        return _split(KERNEL, num_axes, depth, num_axes - depth - 1)
    attention = leaf.keys[:-2]
    has_queries = all(any(keys[:-1] == (*attention, part) for keys in siblings) for part in _QUERIES)
    if leaf.layer in _QUERIES:
        num_stack = num_axes - 3
        if bias is None or bias == (*leaf.shape[:num_stack], *leaf.shape[num_stack + 1 :]):
            return _split(KERNEL, num_axes, num_stack, 1)
    if leaf.layer == "out" and has_queries:
        num_stack = num_axes - 3
        if bias is None or bias == (*leaf.shape[:num_stack], leaf.shape[-1]):
            return _split(KERNEL, num_axes, num_stack, 2)
    return None


def _kernel_by_bias(leaf: Leaf, depth: int, siblings: Mapping[tuple[str, ...], Leaf]) -> ArrayLayout | None:
    """Layout of a kernel whose bias has the shape of its stack and outputs, if one layout alone agrees."""
    bias, shape = bias_shape(leaf, siblings), leaf.shape
    if bias is None or not bias:
        return None
    num_axes = len(shape)
    agreeing = []
    for num_stack in range(min(len(bias), num_axes - 1)):
        outputs = bias[num_stack:]
        last = num_axes - len(outputs)
        if bias[:num_stack] == shape[:num_stack] and shape[last:] == outputs and last > num_stack:
            agreeing.append(_split(KERNEL, num_axes, num_stack, last - num_stack))
    if len(agreeing) > 1:
        with_depth = [array for array in agreeing if len(array.stack) == depth]
        agreeing = with_depth if depth else []
    if agreeing:
        is_ambiguous = len(bias) == 1 and shape[0] == shape[-1] and leaf.keys[-1] != "kernel"
        return agreeing[0]._replace(is_known=not is_ambiguous)
    vector = tuple(size for size in bias if size != 1)
    if len(vector) == 1 and (shape[0], *[1] * (len(bias) - 1)) == bias and num_axes >= 2:
        return ArrayLayout(KERNEL, (), tuple(range(1, num_axes)), (0,))  # (outputs, inputs, ...), as in torch
    if len(bias) == 1 and num_axes >= 3 and shape[-2] == bias[0]:
        return ArrayLayout(KERNEL, (), (*range(num_axes - 2), num_axes - 1), (num_axes - 2,))  # transposed convolution
    return None


def _outputs_first_like_others(leaves: Sequence[Leaf], arrays: list[ArrayLayout]) -> list[ArrayLayout]:
    """Give square kernels the layout of the other arrays of the same name, where those have the outputs first."""
    first: dict[str, set[bool]] = {}
    for leaf, array in zip(leaves, arrays, strict=True):
        if array.kind == KERNEL and array.is_known and array.is_matrix and leaf.keys[-1] in ("weight", "w", "W"):
            if leaf.shape[0] != leaf.shape[-1]:
                first.setdefault(leaf.keys[-1], set()).add(array.outputs == (0,))
    return [
        ArrayLayout(KERNEL, (), tuple(range(1, len(leaf.shape))), (0,))
        if array.kind == KERNEL and not array.is_known and first.get(leaf.keys[-1]) == {True}
        else array
        for leaf, array in zip(leaves, arrays, strict=True)
    ]


_WORDS = ("stack", "in", "out")


def _with_layout(
    layout: Layout, names: Sequence[str], leaves: Sequence[Leaf], arrays: Sequence[ArrayLayout]
) -> list[ArrayLayout]:
    check(layout)
    chosen = tree.first_match(list(layout), names, argument="layout")
    return [
        array if pattern is None else _from_words(layout[pattern], name, leaf.shape, array.kind)
        for pattern, name, leaf, array in zip(chosen, names, leaves, arrays, strict=True)
    ]


def check(layout: Any, *, argument: str = "layout") -> None:
    """Validate a layout without the weights.

    Args:
      layout: What the user passed; None is allowed.
      argument: Name of the argument, for the message.

    Raises:
      TypeError: Not a dictionary of strings.
      ValueError: A word that is not known, or no axis of outputs.
    """
    if layout is None:
        return
    if not isinstance(layout, Mapping) or not all(isinstance(text, str) for pair in layout.items() for text in pair):
        raise ArgumentTypeError(
            argument,
            f"{argument} is {layout!r}; give a dictionary from patterns of names to one word per axis, such as "
            "{'w1': 'out in'}.",
        )
    for pattern, text in layout.items():
        words = text.split()
        if not words or set(words) - set(_WORDS) or "out" not in words:
            raise ArgumentError(
                argument,
                f"{argument}[{pattern!r}] is {text!r}; give one of 'in', 'out' and 'stack' per axis, and at least one "
                "'out', such as 'in out'.",
            )


def _from_words(text: str, name: str, shape: Sequence[int], kind: str) -> ArrayLayout:
    words = text.split()
    if len(words) != len(shape):
        raise ArgumentError(
            "layout", f"layout is {text!r} for {name or 'an array'} of shape {tuple(shape)}; give one word per axis."
        )
    stack, inputs, outputs = (tuple(axis for axis, word in enumerate(words) if word == each) for each in _WORDS)
    return ArrayLayout(kind, stack, inputs, outputs)
