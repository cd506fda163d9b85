"""Which weights decay: ``masks.<name>(params) -> mask``, True = decays, and the table that shows it.

A mask is decided by the structure of the weights, so that a renamed layer does not slip out of it; `matching` goes by
names, and raises when a pattern of it matches nothing.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np
from jax.core import Tracer
from typing_extensions import override

from weightdecay.core import html, tree
from weightdecay.core.types import Mask, MaskFn, Params
from weightdecay.decay import layer_order
from weightdecay.decay.base import Rule
from weightdecay.decay.placement import Combined, Masked, PerLayer


def kernels(params: Params) -> Mask:
    """Kernels alone: no biases, no scales of normalization layers, no embeddings.

    A kernel has at least two dimensions. An array whose name is ``bias``, ``scale`` or ``embedding``, or ends in
    ``_bias``, ``_scale`` or ``_embedding``, is none, whatever its shape (attention has two-dimensional biases). A bare
    array in place of a tree has no biases beside it and is a kernel at any shape.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool a leaf, in the structure of ``params``.

    Examples:
      >>> kernels({"Dense_0": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}})
      {'Dense_0': {'bias': False, 'kernel': True}}
    """
    return _structure(params).unflatten(_kernels(params))


def everything(params: Params) -> Mask:
    """Every weight, biases and scales included.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      True a leaf, in the structure of ``params``.
    """
    structure = _structure(params)
    return structure.unflatten([True] * structure.num_leaves)


def first(params: Params) -> Mask:
    """Kernels of the first layer, or the tables of a network with embeddings.

    A layer is the arrays of one container. What comes first is told by numbers in names and places in lists, and where
    these do not tell, by the shapes: each kernel, ``(..., inputs, outputs)``, takes what one before it gives.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool a leaf, in the structure of ``params``.

    Raises:
      ValueError: The structure leaves several answers.

    Examples:
      >>> first([np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 2))])
      [True, False, False]
    """
    tables = _tables(params)
    return _structure(params).unflatten(tables if any(tables) else _end(params, "first"))


def last(params: Params) -> Mask:
    """Kernels of the last layer; which one that is, is told as for `first`.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool a leaf, in the structure of ``params``.

    Raises:
      ValueError: The structure leaves several answers.

    Examples:
      >>> last([np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 2))])
      [False, False, True]
    """
    return _structure(params).unflatten(_end(params, "last"))


def hidden(params: Params) -> Mask:
    """Kernels of neither the first nor the last layer.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool a leaf, in the structure of ``params``.

    Raises:
      ValueError: The structure leaves several answers to what comes first or last.

    Examples:
      >>> hidden([np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 2))])
      [False, True, False]
    """
    outer = zip(jax.tree.leaves(first(params)), jax.tree.leaves(last(params)), strict=True)
    inner = [kernel and not any(ends) for kernel, ends in zip(_kernels(params), outer, strict=True)]
    return _structure(params).unflatten(inner)


@dataclass(frozen=True)
class Matching:
    """What `matching` gives: a function from weights to a mask, equal to another with the same patterns."""

    patterns: tuple[str, ...]

    def __call__(self, params: Params) -> Mask:
        """Return a bool a leaf, in the structure of ``params``."""
        names = [leaf_name for leaf_name, _ in tree.named_leaves(params)]
        return _structure(params).unflatten(tree.matches(self.patterns, names, argument=str(self)))

    @override
    def __repr__(self) -> str:
        return f"matching({', '.join(map(repr, self.patterns))})"


def matching(*patterns: str) -> Matching:
    """Weights by name: every array, biases included, that one of the patterns matches.

    Args:
      *patterns: Regular expressions for a run of whole parts of a name such as ``"Dense_1/kernel"``: ``"Dense_1"``
        matches it, and does not match ``"Dense_10/kernel"``.

    Returns:
      ``mask_fn(params) -> mask``, hashable. It raises a ValueError for a pattern that matches no weight, which lists
      the names that there are.

    Raises:
      TypeError: No pattern, or one that is no string.

    Examples:
      >>> mask = matching("Dense_0/.*", "bias")
      >>> mask({"Dense_0": {"kernel": np.zeros((3, 2))}, "Dense_1": {"bias": np.zeros(2), "kernel": np.zeros((2, 2))}})
      {'Dense_0': {'kernel': True}, 'Dense_1': {'bias': True, 'kernel': False}}
    """
    if not patterns or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            f"patterns are {patterns!r}; give one string or more, such as matching('Dense_0', 'head/kernel')."
        )
    return Matching(patterns)


_SELECTED: dict[Any, str] = {
    kernels: "kernels alone, arrays of two dimensions or more that are no bias, scale or embedding",
    first: "the kernels of the first layer, or the embeddings",
    last: "the kernels of the last layer",
    hidden: "the kernels of neither the first nor the last layer",
}


def resolve(mask: Mask | MaskFn, params: Params) -> list[bool]:
    """Whether each leaf decays, from a mask or the function that makes one.

    Args:
      mask: A bool, a pytree prefix of ``params`` with a bool a leaf, or a function from weights to one of these.
      params: Weights.

    Returns:
      One bool a leaf of ``params``, in the order of `jax.tree.leaves`.

    Raises:
      TypeError: A leaf of the mask is no bool.
      ValueError: The mask does not fit the weights, or selects none of them.
    """
    decays = tree.spread(mask(params) if callable(mask) else mask, params, argument="mask")
    wrong = next((leaf for leaf in decays if not isinstance(leaf, bool | np.bool_)), None)
    if wrong is not None:
        raise TypeError(
            f"mask has a leaf {wrong!r} of type {type(wrong).__name__}; a mask holds True (decays) or False."
        )
    if decays and not any(decays):
        chosen = getattr(mask, "__name__", "given")
        meant = next((f" (it selects {text})" for function, text in _SELECTED.items() if mask is function), "")
        leaves = ", ".join(f"{leaf_name} {np.shape(leaf)}" for leaf_name, leaf in tree.named_leaves(params))
        raise ValueError(
            f"mask {chosen!r} selects no weight{meant}, so nothing would decay. The weights are: {leaves}. "
            "Pass mask=wd.masks.everything, or a tree of True and False in the structure of the weights."
        )
    return [bool(leaf) for leaf in decays]


class Description(str):
    """The table that `describe` gives: a string, which a notebook shows as a table.

    Attributes:
      rows: The cells of each line, the titles first.
      total: The last line.
    """

    rows: Sequence[Sequence[str]]
    total: str

    def _repr_html_(self) -> str:
        titles, *rows = self.rows
        columns = {title: [row[place] for row in rows] for place, title in enumerate(titles)}
        words = [title for title in titles if title != "weights"]
        return f"{html.table(columns, words=words)}\n{html.paragraph(self.total)}"


def describe(params: Params, mask: Mask | MaskFn = kernels, decay: Rule | Sequence[Rule] | None = None) -> Description:
    """Table of every weight array: name, shape, whether it decays, and what share of all weights decays.

    Args:
      params: Weights, any pytree of arrays, or a flax nnx module.
      mask: True = decays; a pytree prefix of ``params``, or a function that makes one.
      decay: A rule, or several in a tuple; adds each array's coefficients to the table. A rule with a mask of its own
        acts there.

    Returns:
      The table, a line an array and a last line with the totals; a string, which a notebook shows as a table.

    Raises:
      TypeError: ``decay`` is no rule; a coefficient is no number; ``params`` holds no arrays.
      ValueError: A mask does not fit the weights, or selects none of them; a coefficient does not fit them.

    Examples:
      >>> print(describe({"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}))
      name    shape   weights  decays
      bias    (2,)          2  no
      kernel  (3, 2)        6  yes
      6 of 8 weights decay (75.0 %)
      >>> from weightdecay.decay.coupled import L2
      >>> print(describe({"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}, decay=L2(0.01)))
      name    shape   weights  decays  coefficient
      bias    (2,)          2  no      -
      kernel  (3, 2)        6  yes     0.01
      6 of 8 weights decay (75.0 %)
    """
    params = _params(params)
    if decay is None:
        rows = [("yes" if decayed else "no",) for decayed in resolve(mask, params)]
    else:
        rows = [("no", "-") if text is None else ("yes", text) for text in _coefficients(decay, mask, params)]
    named = tree.named_leaves(params)
    sizes = [int(np.size(leaf)) for _, leaf in named]
    table = [("name", "shape", "weights", "decays", *([] if decay is None else ["coefficient"]))]
    table += [
        (leaf_name or "(array)", str(np.shape(leaf)), str(size), *row)
        for (leaf_name, leaf), size, row in zip(named, sizes, rows, strict=True)
    ]
    names, shapes = (max(map(len, column)) for column in list(zip(*table, strict=True))[:2])
    lines = [
        f"{leaf_name:<{names}}  {shape:<{shapes}}  {size:>7}  {'  '.join([f'{decayed:<6}', *rest])}".rstrip()
        for leaf_name, shape, size, decayed, *rest in table
    ]
    total = sum(sizes)
    chosen = sum(size for size, row in zip(sizes, rows, strict=True) if row[0] == "yes")
    last = f"{chosen:,} of {total:,} weights decay ({100 * chosen / max(total, 1):.1f} %)"
    described = Description("\n".join([*lines, last]))
    described.rows, described.total = table, last
    return described


_NO_KERNEL = re.compile(r"(?:^|[/_])(?:bias|scale|embedding)$")


def _structure(params: Params) -> Any:
    """Structure of weights; a step count is none, and comes where a mask is taken for a schedule."""
    if getattr(params, "shape", None) == () and np.issubdtype(params.dtype, np.integer):
        raise TypeError(
            "params is a whole number rather than weights: a mask was called like a schedule, as "
            "optax.inject_hyperparams calls every function; pass it static_args='mask'."
        )
    for leaf in jax.tree.leaves(params):
        if not hasattr(leaf, "shape") and not isinstance(leaf, int | float | complex):
            raise TypeError(f"params holds {leaf!r}, of type {type(leaf).__name__}; give weights: a tree of arrays.")
    return jax.tree.structure(params)


def _kernels(params: Params) -> list[bool]:
    return [
        not leaf_name or (np.ndim(leaf) >= 2 and not _NO_KERNEL.search(leaf_name))
        for leaf_name, leaf in tree.named_leaves(params)
    ]


def _end(params: Params, end: Literal["first", "last"]) -> list[bool]:
    candidates = getattr(layer_order.ends(params, _kernels(params)), end)
    if len(candidates) > 1:
        names = [layer.name for layer in candidates]
        raise ValueError(
            f"masks.{end}: the structure of the weights does not tell which layer comes {end}: "
            f"{', '.join(names[:-1])} or {names[-1]}. Name it, such as wd.masks.matching({re.escape(names[-1])!r})."
        )
    places = {place for layer in candidates for place in layer.places}
    return [place in places for place in range(len(jax.tree.leaves(params)))]


def _tables(params: Params) -> list[bool]:
    return [
        leaf_name.rpartition("/")[2] == "embedding" and np.ndim(leaf) >= 2
        for leaf_name, leaf in tree.named_leaves(params)
    ]


def _params(params: Params) -> Params:
    nnx = sys.modules.get("flax.nnx")
    return nnx.state(params, nnx.Param) if nnx is not None and isinstance(params, nnx.Module) else params


def _coefficients(decay: Rule | Sequence[Rule], mask: Mask | MaskFn, params: Params) -> list[str | None]:
    """What acts on each array, in words; None = nothing."""
    rules = decay.rules if isinstance(decay, Combined) else decay if isinstance(decay, Sequence) else (decay,)
    columns: list[list[str | None]] = []
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"decay is {rule!r}, of type {type(rule).__name__}; give a rule, such as wd.L2(0.01).")
        rule, where = (rule.rule, rule.mask) if isinstance(rule, Masked) else (rule, mask)
        if not rule.coefficients():
            continue  # it does nothing
        decays = resolve(where, params)
        texts = [
            _spread(jax.tree.map(_text, value, is_leaf=callable), params, decays, argument=f"{name} of {rule}")
            for name, value in rule.coefficients().items()
            if value is not None
        ]
        title = f"{type(rule).__name__} " if len(rules) > 1 else ""
        columns.append(
            [
                title + ", ".join(row) if decayed else None
                for decayed, row in zip(decays, zip(*texts, strict=True), strict=True)
            ]
        )
    rows = zip(*columns, strict=True) if columns else [()] * len(jax.tree.leaves(params))
    return [" + ".join(acting) if (acting := [text for text in row if text is not None]) else None for row in rows]


def _spread(value: Any, params: Params, decays: Sequence[bool], *, argument: str) -> list[Any]:
    if isinstance(value, PerLayer):
        return value.spread(params, decays, argument=argument)
    return tree.spread(value, params, argument=argument)


def _text(value: Any) -> str:
    if isinstance(value, Tracer):
        return "traced"
    if callable(value):
        return getattr(value, "__name__", None) or str(value)
    if not tree.is_real(value):
        raise TypeError(f"decay has the coefficient {value!r}, of type {type(value).__name__}; give a number.")
    return f"{float(value):.4g}" if np.ndim(value) == 0 else str(value)
