"""Which layers of a network run first and last, as far as the structure of its weights tells.

A pytree does not hold the order of its layers: JAX sorts the keys of dictionaries. What it does hold:

- Siblings whose names differ in numbers alone (``Dense_2``, ``Dense_10``, places in a list) run in the order of the
  numbers, if these begin with 0 or 1: in ``dense64`` and ``dense128`` they are sizes. Widths that fit the other way
  round alone put this in doubt.
- Other siblings run in an order in which each kernel, shape ``(..., inputs, outputs)``, can take what came before it.
  A bias beside it may say that the axes are ``(outputs, inputs, ...)``.

Where this leaves several answers, all of them come back.
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


class Layer(NamedTuple):
    """The kernels of one container, or one of several that are numbered in it."""

    name: str
    places: tuple[int, ...]  # of the kernels among `jax.tree.leaves`
    inputs: frozenset[int]  # widths that it may take
    outputs: frozenset[int]  # widths that it may give
    window: tuple[int, ...]  # of a convolution; () for a matrix


class Ends(NamedTuple):
    """The layers of which one runs first, and those of which one runs last, in a part of a network."""

    first: tuple[Layer, ...]
    last: tuple[Layer, ...]


class _Array(NamedTuple):
    keys: tuple[str, ...]
    place: int
    shape: tuple[int, ...]
    kernel: bool


def ends(params: Params, kernels: Sequence[bool]) -> Ends:
    """Layers that may run first, and layers that may run last.

    Args:
      params: Weights, any pytree of arrays.
      kernels: One bool a leaf of ``params``: whether it is a kernel. What has none is no layer.

    Returns:
      One layer at an end that the structure decides, all candidates at one that it does not, none without kernels.
    """
    named = zip(tree.named_leaves(params), kernels, strict=True)
    return _ends(
        [
            _Array(tuple(name.split("/")), place, tuple(np.shape(leaf)), kernel)
            for place, ((name, leaf), kernel) in enumerate(named)
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
    own = [array for array in arrays if len(array.keys) == depth + 1]
    kernels = [array for array in own if array.kernel]
    # The network itself is no layer, and what is numbered runs one after the other.
    apart = depth == 0 or len({_stem(kernel.keys[depth]) for kernel in kernels}) < len(kernels)
    for group in [[kernel] for kernel in kernels] if apart else [kernels]:
        if group:
            keys = group[0].keys
            name = "/".join(keys if apart else keys[:depth])
            beside = [array for array in own if not array.kernel]
            if apart and len(kernels) > 1:
                beside = [array for array in beside if _numbers(array.keys[depth]) == _numbers(keys[depth]) != ()]
            layer = _layer(name, group, {array.shape for array in beside})
            blocks[keys[depth]] = Ends((layer,), (layer,))
    chains = _chains({key: block for key, block in blocks.items() if block.first})
    answers = [_decide(list(chains.values()))]
    # linen counts modules as they are made: in Dense(2)(Dense(8)(x)), Dense_0 runs last.
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


def _layer(name: str, kernels: Sequence[_Array], beside: set[tuple[int, ...]]) -> Layer:
    biases = {_squeezed(shape) for shape in beside}
    inputs: set[int] = set()
    outputs: set[int] = set()
    window: tuple[int, ...] = ()
    for kernel in kernels:
        shape = kernel.shape
        split = next((place for place in range(len(shape) - 1, 0, -1) if _squeezed(shape[place:]) in biases), None)
        if split is None and _squeezed(shape[:1]) in biases:
            shape = (*shape[2:], *shape[1:2], shape[0])
            split = len(shape) - 1
        taken, given = (shape[:-1], shape[-1:]) if split is None else (shape[:split], shape[split:])
        inputs |= {math.prod(taken[-1:])} | ({math.prod(taken)} if len(shape) == 3 else set())
        outputs |= {math.prod(given)} | ({math.prod(shape[1:])} if len(shape) == 3 and split is None else set())
        window = shape[:-2]
    return Layer(
        name, tuple(kernel.place for kernel in kernels), frozenset(inputs - {0}), frozenset(outputs - {0}), window
    )


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _decide(chains: Sequence[Sequence[Ends]]) -> Ends:
    """Ends of what runs in some order that keeps the order of each chain."""
    if len(chains) < 2:
        return _join([chain[0] for chain in chains], [chain[-1] for chain in chains])
    # A kernel with three axes is a convolution over a sequence, or a matrix with heads.
    found = [_ordered(chains, axes) for axes in (3, 4)]
    known = [one for one in found if one is not None] or [_outermost(chains)]
    return _join(known, known)


def _backward(chain: Sequence[Ends]) -> bool:
    """Whether neighbours fit the other way round alone."""
    reshapes = [_junctions([chain], axes) for axes in (3, 4)]
    return any(
        all(count(before, after) == math.inf for count in reshapes)
        and any(count(after, before) < math.inf for count in reshapes)
        for before, after in itertools.pairwise(chain)
    )


def _ordered(chains: Sequence[Sequence[Ends]], axes: int) -> Ends | None:
    """Ends of the orders of all blocks that take the fewest reshapes, or None if there is no order.

    A kernel with ``axes`` axes or more counts as a convolution.
    """
    if math.prod(len(chain) + 1 for chain in chains) > 1_024:
        return None
    reshapes = _junctions(chains, axes)

    @functools.cache
    def rest(done: tuple[int, ...], at: int) -> tuple[float, frozenset[int]]:
        """Fewest reshapes behind the block that chain ``at`` has come to, and the chains that may come last."""
        options: list[tuple[float, frozenset[int]]] = []
        for chain, place in enumerate(done):
            if place < len(chains[chain]):
                count = reshapes(chains[at][done[at] - 1], chains[chain][place])
                behind, last = rest((*done[:chain], place + 1, *done[chain + 1 :]), chain)
                # Numbers outweigh widths: neighbours in number may stand together whatever their widths.
                options.append((behind + (min(count, 3.0) if chain == at else count), last))
        return _fewest(options) if options else (0.0, frozenset({at}))

    starts = [rest(tuple(int(chain == start) for chain in range(len(chains))), start) for start in range(len(chains))]
    fewest, last = _fewest(starts)
    if fewest == math.inf:
        return None
    first = [chain for chain, (count, _) in enumerate(starts) if count == fewest]
    # A ring may have been cut open at any place.
    if any(reshapes(chains[end][-1], chains[start][0]) <= 1 for start in first for end in starts[start][1]):
        first = last = range(len(chains))
    return _join([chains[chain][0] for chain in first], [chains[chain][-1] for chain in last])


def _fewest(options: Sequence[tuple[float, frozenset[int]]]) -> tuple[float, frozenset[int]]:
    fewest = min(count for count, _ in options)
    return fewest, frozenset(chain for count, last in options if count == fewest for chain in last)


def _outermost(chains: Sequence[Sequence[Ends]]) -> Ends:
    """Ends of a network with branches: the blocks that no other feeds, and those that feed no other."""
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
    """Count of the reshapes between two blocks."""
    layers = {layer for chain in chains for block in chain for side in block for layer in side}
    return functools.cache(functools.partial(_junction, layers=layers, axes=axes))


def _junction(before: Ends, after: Ends, layers: set[Layer], axes: int) -> float:
    pairs = itertools.product(before.last, after.first)
    return min(_reshapes(one, other, layers - {one, other}, axes) for one, other in pairs)


def _reshapes(before: Layer, after: Layer, others: set[Layer], axes: int) -> float:
    """Reshapes that one layer's outputs need to be another's inputs; infinite where none will do."""
    convolutions = [len(layer.window) + 2 >= axes for layer in (before, after)]
    counts = [math.inf]
    for given, taken in itertools.product(before.outputs, after.inputs):
        if convolutions[0] == convolutions[1]:
            # Halves (gates; mean and variance), thirds (query, key, value), and two layers' outputs side by side.
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
    """Whether positions make a grid on which a window (of 4 at most, for padding) finds room."""
    if not window:
        return positions == 1
    sides = range(min(window[0], 4), positions + 1)
    return any(positions % side == 0 and _fills(positions // side, window[1:]) for side in sides)
