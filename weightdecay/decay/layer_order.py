"""Which layers of a network run first and last, as far as the structure of its weights tells.

A pytree does not hold the order of its layers, because JAX sorts the keys of dictionaries. It holds this:

- Siblings whose names differ only in numbers (``Dense_2``, ``Dense_10``, positions in a list) run in the order of the
  numbers, if these begin with 0 or 1; in ``dense64`` and ``dense128`` they are sizes. The order is in doubt where the
  widths fit only in the opposite order.
- Other siblings run in an order in which each kernel can take the outputs of an earlier one as its inputs. Which axes
  are inputs and outputs is answered by `weightdecay.decay.layout`.

If this allows several answers, all of them are returned.
"""

import functools
import itertools
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from weightdecay.core import tree
from weightdecay.core.types import Params
from weightdecay.decay.layout import ArrayLayout, describe_arrays


class Layer(NamedTuple):
    """The kernels of one container, or one of several that are numbered in it."""

    name: str
    leaves: tuple[int, ...]  # positions of the kernels among `jax.tree.leaves`
    inputs: frozenset[int]  # possible widths of the inputs
    outputs: frozenset[int]  # possible widths of the outputs
    window: tuple[int, ...]  # of a convolution; () for a matrix


class Ends(NamedTuple):
    """Candidates for the first layer and for the last layer of a part of a network."""

    first: tuple[Layer, ...]
    last: tuple[Layer, ...]


class _Array(NamedTuple):
    keys: tuple[str, ...]
    leaf: int
    shape: tuple[int, ...]
    kernel: bool
    layout: ArrayLayout


def ends(params: Params, kernels: Sequence[bool]) -> Ends:
    """Layers that may run first, and layers that may run last.

    Args:
      params: Weights, any pytree of arrays.
      kernels: One bool per leaf of ``params``: whether it is a kernel. A container without kernels is not a layer.

    Returns:
      One layer at an end that the structure decides, all candidates at an end that it does not decide; empty without
      kernels.
    """
    named = zip(tree.named_leaves(params), kernels, describe_arrays(params), strict=True)
    return _ends(
        [
            _Array(tuple(name.split("/")), index, tuple(np.shape(leaf)), kernel, array)
            for index, ((name, leaf), kernel, array) in enumerate(named)
        ],
        depth=0,
    )


def _ends(arrays: Sequence[_Array], depth: int) -> Ends:
    blocks: dict[str, Ends] = {}
    children: dict[str, list[_Array]] = defaultdict(list)
    for array in arrays:
        if len(array.keys) > depth + 1:
            children[array.keys[depth]].append(array)
    for key, child in children.items():
        blocks[key] = _ends(child, depth + 1)
    direct = [array for array in arrays if len(array.keys) == depth + 1]
    kernels = [array for array in direct if array.kernel]
    # The network itself is not a layer, and numbered kernels are separate layers.
    separate = depth == 0 or len({_stem(kernel.keys[depth]) for kernel in kernels}) < len(kernels)
    for group in [[kernel] for kernel in kernels] if separate else [kernels]:
        if group:
            keys = group[0].keys
            name = "/".join(keys if separate else keys[:depth])
            biases = [array for array in direct if not array.kernel]
            if separate and len(kernels) > 1:
                biases = [array for array in biases if _numbers(array.keys[depth]) == _numbers(keys[depth]) != ()]
            layer = _layer(name, group, {array.shape for array in biases})
            blocks[keys[depth]] = Ends((layer,), (layer,))
    chains = _chains({key: block for key, block in blocks.items() if block.first})
    answers = [_decide(list(chains.values()))]
    # linen counts modules in the order in which they are made: in Dense(2)(Dense(8)(x)), Dense_0 runs last.
    if any(_backward(chain) for stem, chain in chains.items() if stem != "#"):
        answers.append(_decide([[block] for chain in chains.values() for block in chain]))
    return _join(answers, answers)


_NUMBER = re.compile(r"(?<!\d)(?<!\dx)\d+(?!\d)(?!x\d)")  # not in "conv3x3"


def _stem(key: str) -> str:
    return _NUMBER.sub("#", key)


def _numbers(key: str) -> tuple[int, ...]:
    return tuple(map(int, _NUMBER.findall(key)))


def _chains(blocks: dict[str, Ends]) -> dict[str, list[Ends]]:
    """Blocks by the stem of their keys, in the order of their numbers."""
    stems: dict[str, list[tuple[tuple[int, ...], Ends]]] = defaultdict(list)
    for key, block in blocks.items():
        stems[_stem(key)].append((_numbers(key), block))
    chains: dict[str, list[Ends]] = {}
    for stem, numbered in stems.items():
        ordered = sorted(numbered, key=lambda pair: pair[0])
        columns = zip(*(numbers for numbers, _ in numbered), strict=True)
        if all(min(column) <= 1 or len(set(column)) == 1 for column in columns):
            chains[stem] = [block for _, block in ordered]
        else:
            chains.update({f"{stem}{numbers}": [block] for numbers, block in ordered})
    return chains


def _layer(name: str, kernels: Sequence[_Array], biases: set[tuple[int, ...]]) -> Layer:
    squeezed = {_squeezed(shape) for shape in biases}
    inputs: set[int] = set()
    outputs: set[int] = set()
    window: tuple[int, ...] = ()
    for kernel in kernels:
        taken, given, window, is_sure = _widths(kernel, squeezed)
        inputs |= {math.prod(taken[-1:])} | ({math.prod(taken)} if len(window) == 1 else set())
        outputs |= {math.prod(given)}
        if len(window) == 1 and not is_sure:  # three axes: a convolution, or a matrix with heads
            outputs.add(math.prod((*taken[-1:], *given)))
    return Layer(
        name, tuple(kernel.leaf for kernel in kernels), frozenset(inputs - {0}), frozenset(outputs - {0}), window
    )


def _widths(
    kernel: _Array, biases: set[tuple[int, ...]]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], bool]:
    """Sizes of the axes of inputs and of outputs, of the window, and whether the split is sure."""
    shape, array = kernel.shape, kernel.layout
    if array.is_matrix and (array.stack or array.outputs[0] < array.inputs[-1]):
        taken = tuple(shape[axis] for axis in array.inputs)
        if array.outputs[0] < array.inputs[-1]:  # (outputs, inputs, *window), as in torch and equinox
            taken = (*taken[1:], taken[0])
        given = tuple(shape[axis] for axis in array.outputs)
        return taken, given, (*taken, *given)[:-2], True
    splits = (axis for axis in range(len(shape) - 1, 0, -1) if _squeezed(shape[axis:]) in biases)
    split = next(splits, array.outputs[0] if len(array.outputs) > 1 else None)
    if split is None and _squeezed(shape[:1]) in biases:
        shape = (*shape[2:], *shape[1:2], shape[0])
        split = len(shape) - 1
    taken, given = (shape[:-1], shape[-1:]) if split is None else (shape[:split], shape[split:])
    return taken, given, shape[:-2], split is not None


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _decide(chains: Sequence[Sequence[Ends]]) -> Ends:
    """Ends of blocks that run in an order which keeps the order of each chain."""
    if len(chains) < 2:
        return _join([chain[0] for chain in chains], [chain[-1] for chain in chains])
    # A kernel with three axes is a convolution over a sequence, or a matrix with heads.
    orders = [_ordered(chains, axes) for axes in (3, 4)]
    known = [ends for ends in orders if ends is not None] or [_outermost(chains)]
    return _join(known, known)


def _backward(chain: Sequence[Ends]) -> bool:
    """Whether neighbors fit only in the opposite order."""
    reshapes = [_junctions([chain], axes) for axes in (3, 4)]
    return any(
        all(count(before, after) == math.inf for count in reshapes)
        and any(count(after, before) < math.inf for count in reshapes)
        for before, after in itertools.pairwise(chain)
    )


def _ordered(chains: Sequence[Sequence[Ends]], axes: int) -> Ends | None:
    """Ends of the orders of all blocks that need the fewest reshapes, or None if there is no order.

    A kernel with at least ``axes`` axes counts as a convolution.
    """
    if math.prod(len(chain) + 1 for chain in chains) > 1_024:
        return None
    reshapes = _junctions(chains, axes)

    @functools.cache
    def rest(done: tuple[int, ...], at: int) -> tuple[float, frozenset[int]]:
        """Fewest reshapes after the block that chain ``at`` has reached, and the chains that may come last."""
        options: list[tuple[float, frozenset[int]]] = []
        for chain, number in enumerate(done):
            if number < len(chains[chain]):
                count = reshapes(chains[at][done[at] - 1], chains[chain][number])
                later, last = rest((*done[:chain], number + 1, *done[chain + 1 :]), chain)
                # Numbers take precedence over widths: neighbors in number may be adjacent whatever their widths.
                options.append((later + (min(count, 3.0) if chain == at else count), last))
        return _fewest(options) if options else (0.0, frozenset({at}))

    starts = [rest(tuple(int(chain == start) for chain in range(len(chains))), start) for start in range(len(chains))]
    fewest, last = _fewest(starts)
    if fewest == math.inf:
        return None
    first = [chain for chain, (count, _) in enumerate(starts) if count == fewest]
    # A ring of blocks may begin anywhere.
    if any(reshapes(chains[end][-1], chains[start][0]) <= 1 for start in first for end in starts[start][1]):
        first = last = range(len(chains))
    return _join([chains[chain][0] for chain in first], [chains[chain][-1] for chain in last])


def _fewest(options: Sequence[tuple[float, frozenset[int]]]) -> tuple[float, frozenset[int]]:
    fewest = min(count for count, _ in options)
    return fewest, frozenset(chain for count, last in options if count == fewest for chain in last)


def _outermost(chains: Sequence[Sequence[Ends]]) -> Ends:
    """Ends of a network with branches: blocks without a predecessor, and blocks without a successor."""
    reshapes = _junctions(chains, axes=3)
    blocks = [block for chain in chains for block in chain]
    heads, tails = [chain[0] for chain in chains], [chain[-1] for chain in chains]
    unfed = [head for head in heads if all(reshapes(block, head) == math.inf for block in blocks if block != head)]
    final = [tail for tail in tails if all(reshapes(tail, block) == math.inf for block in blocks if block != tail)]
    return _join(unfed or heads, final or tails)


def _join(heads: Sequence[Ends], tails: Sequence[Ends]) -> Ends:
    first = (layer for head in heads for layer in head.first)
    last = (layer for tail in tails for layer in tail.last)
    return Ends(tuple(dict.fromkeys(first)), tuple(dict.fromkeys(last)))


def _junctions(chains: Sequence[Sequence[Ends]], axes: int) -> Callable[[Ends, Ends], float]:
    """Function that counts the reshapes between two blocks."""
    layers = {layer for chain in chains for block in chain for side in block for layer in side}
    return functools.cache(functools.partial(_junction, layers=layers, axes=axes))


def _junction(before: Ends, after: Ends, layers: set[Layer], axes: int) -> float:
    pairs = itertools.product(before.last, after.first)
    return min(_reshapes(earlier, later, layers - {earlier, later}, axes) for earlier, later in pairs)


def _reshapes(before: Layer, after: Layer, others: set[Layer], axes: int) -> float:
    """Number of reshapes that turn the outputs of one layer into the inputs of another; infinite if impossible."""
    convolutions = [len(layer.window) + 2 >= axes for layer in (before, after)]
    counts = [math.inf]
    for given, taken in itertools.product(before.outputs, after.inputs):
        if convolutions[0] == convolutions[1]:
            # Halves (gates; mean and variance), thirds (query, key, value), and concatenated outputs of two layers.
            part = taken > 1 and given in (2 * taken, 3 * taken)
            joined = any(given + width == taken for other in others for width in other.outputs)
            groups = given // taken if all(convolutions) and given % taken == 0 else math.inf
            grouped = any(width % groups == 0 for width in after.outputs)
            counts.append(0.0 if given == taken else 1.0 if part or joined else 2.0 if grouped else math.inf)
        elif convolutions[0]:
            counts.append(1.0 if taken % given == 0 else math.inf)
        else:
            grid = given % taken == 0 and _fills(given // taken, after.window)
            counts.append(1.0 if grid else 2.0 if given == taken else math.inf)
    return min(counts)


def _fills(positions: int, window: tuple[int, ...]) -> bool:
    """Whether a number of positions can be a grid that holds a window (of at most 4, because of padding)."""
    if not window:
        return positions == 1
    sides = range(min(window[0], 4), positions + 1)
    return any(positions % side == 0 and _fills(positions // side, window[1:]) for side in sides)
