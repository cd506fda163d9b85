"""Which weights decay: ``masks.<name>(params) -> mask``, True = decays, and the table that shows it.

A mask depends on what an array is (`weightdecay.decay.layout`) and on the structure of the weights, not on the names
that a user gives to layers. `matching` goes by names, and raises an error when a pattern matches nothing.

A new mask is one function with the decorator `_named`; the table of masks, what can be stored, and error messages
derive from it.
"""

import itertools
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from typing_extensions import override

from weightdecay.core import html, tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.types import Mask, MaskFn, Params
from weightdecay.decay import layer_order, layout
from weightdecay.decay.base import Rule
from weightdecay.decay.elementwise import NoDecay
from weightdecay.decay.layout import Layout
from weightdecay.decay.placement import Combined, Masked, PerLayer

NAMED: dict[str, MaskFn] = {}
"""Every mask of this file by its name: these can be an axis of a grid and can be saved."""
_MEANINGS: dict[MaskFn, str] = {}


def _named(meaning: str) -> Callable[[MaskFn], MaskFn]:
    """Register a mask with what it selects, for error messages."""

    def register(mask: MaskFn) -> MaskFn:
        NAMED[mask.__name__] = mask
        _MEANINGS[mask] = meaning
        return mask

    return register


@_named("only kernels: no biases, scales, embeddings, position tables or tokens")
def kernels(params: Params) -> Mask:
    """Only kernels: no biases, no scales of normalization layers, no embeddings.

    A kernel has at least two dimensions, in addition to axes that stack layers. These arrays are not kernels:

    - the biases, scales and tables of the layers of flax and equinox;
    - in any tree, arrays named ``bias``, ``scale`` or ``embedding``, or whose name ends in ``_bias``, ``_scale`` or
      ``_embedding``, whatever their shape (attention has two-dimensional biases);
    - class tokens and position tables (``cls``, ``mask_token``, ``pos_embed`` ...), layer scales (``gamma``), slopes of
      activation functions, and the parameters of state-space models (``A_log``, ``dt_bias``, and ``D`` next to them);
    - arrays that are not weights: integers, batch statistics and other variables.

    A bare array in place of a tree is a kernel of any shape. `describe` shows what the mask selects.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool per leaf, in the structure of ``params``.

    Examples:
      >>> kernels({"Dense_0": {"kernel": np.zeros((3, 2)), "bias": np.zeros(2)}})
      {'Dense_0': {'bias': False, 'kernel': True}}
    """
    return _structure(params).unflatten(_kernels(params))


@_named("every array")
def everything(params: Params) -> Mask:
    """Every weight, including biases and scales.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      True per leaf, in the structure of ``params``.
    """
    structure = _structure(params)
    return structure.unflatten([True] * structure.num_leaves)


@_named("the kernels of the first layer, or the embeddings")
def first(params: Params) -> Mask:
    """Kernels of the first layer, or the embeddings if the network has any.

    A layer is the arrays of one container. The order of layers is read from numbers in names and positions in lists. If
    these do not decide it, the shapes do: the inputs of each kernel are the outputs of an earlier one.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool per leaf, in the structure of ``params``.

    Raises:
      ValueError: The structure allows several answers.

    Examples:
      >>> first([np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 2))])
      [True, False, False]
    """
    tables = _tables(params)
    return _structure(params).unflatten(tables if any(tables) else _end(params, "first"))


@_named("the kernels of the last layer")
def last(params: Params) -> Mask:
    """Kernels of the last layer, which is found in the same way as for `first`.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool per leaf, in the structure of ``params``.

    Raises:
      ValueError: The structure allows several answers.

    Examples:
      >>> last([np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 2))])
      [False, False, True]
    """
    return _structure(params).unflatten(_end(params, "last"))


@_named("the kernels of neither the first nor the last layer")
def hidden(params: Params) -> Mask:
    """Kernels of neither the first nor the last layer.

    Args:
      params: Weights, any pytree of arrays.

    Returns:
      A bool per leaf, in the structure of ``params``.

    Raises:
      ValueError: The structure allows several answers to which layer is first or last.

    Examples:
      >>> hidden([np.zeros((3, 4)), np.zeros((4, 4)), np.zeros((4, 2))])
      [False, True, False]
    """
    outer = zip(jax.tree.leaves(first(params)), jax.tree.leaves(last(params)), strict=True)
    inner = [kernel and not any(ends) for kernel, ends in zip(_kernels(params), outer, strict=True)]
    return _structure(params).unflatten(inner)


@dataclass(frozen=True)
class Matching:
    """What `matching` returns: a function from weights to a mask, equal to another one with the same patterns."""

    patterns: tuple[str, ...]

    def __call__(self, params: Params) -> Mask:
        """Return a bool per leaf, in the structure of ``params``."""
        names = [leaf_name for leaf_name, _ in tree.named_leaves(params)]
        return _structure(params).unflatten(tree.matches(self.patterns, names, argument=str(self)))

    @override
    def __repr__(self) -> str:
        return f"matching({', '.join(map(repr, self.patterns))})"


def matching(*patterns: str) -> Matching:
    """Weights by name: every array, including biases, that one of the patterns matches.

    Args:
      *patterns: Regular expressions for a run of whole parts of a name such as ``"Dense_1/kernel"``: ``"Dense_1"``
        matches it, and does not match ``"Dense_10/kernel"``.

    Returns:
      ``mask_fn(params) -> mask``, hashable. It raises a ValueError for a pattern that matches no weight; the message
      lists the names.

    Raises:
      TypeError: No pattern, or one that is not a string.

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


def is_function(mask: Mask | MaskFn) -> bool:
    """Whether a mask is a function of the weights; a tree of bools is not one, even if it can be called.

    Args:
      mask: A mask. ``jax.tree.map`` over an equinox module makes a module of bools, which has a ``__call__``.

    Returns:
      Whether it must be called with the weights.
    """
    if not callable(mask):
        return False
    leaves = jax.tree.leaves(mask)
    return not leaves or any(not isinstance(leaf, bool | np.bool_) for leaf in leaves)


def selected(mask: Mask | MaskFn, params: Params, *, argument: str) -> list[bool]:
    """Which arrays a mask selects that stands for something else than decay, such as which weights train.

    Args:
      mask: A bool, a pytree prefix of ``params`` with a bool per leaf, or a function from weights to one of these.
      params: Weights, or their shapes.
      argument: Name of the mask, for messages.

    Returns:
      One bool per leaf of ``params``.

    Raises:
      ArgumentTypeError: A leaf of the mask is not a bool.
      ArgumentError: The mask does not fit the weights, or selects none.
    """
    try:
        chosen = tree.spread(mask(params) if is_function(mask) else mask, params, argument=argument)
    except ValueError as error:
        raise ArgumentError(argument, str(error)) from error
    wrong = next((leaf for leaf in chosen if not isinstance(leaf, bool | np.bool_)), None)
    if wrong is not None:
        raise ArgumentTypeError(
            argument, f"{argument} has a leaf {wrong!r} of type {type(wrong).__name__}; it holds True or False."
        )
    if not any(chosen):
        names = ", ".join(leaf_name for leaf_name, _ in tree.named_leaves(params))
        raise ArgumentError(argument, f"{argument} selects no weight; the weights are: {names}.")
    return [bool(leaf) for leaf in chosen]


def resolve(mask: Mask | MaskFn, params: Params) -> list[bool]:
    """Whether each leaf decays, from a mask or from the function that makes one.

    Args:
      mask: A bool, a pytree prefix of ``params`` with a bool per leaf, or a function from weights to one of these.
      params: Weights.

    Returns:
      One bool per leaf of ``params``, in the order of `jax.tree.leaves`.

    Raises:
      TypeError: A leaf of the mask is not a bool.
      ValueError: The mask does not fit the weights, or selects none of them.
    """
    decays = tree.spread(mask(params) if is_function(mask) else mask, params, argument="mask")
    wrong = next((leaf for leaf in decays if not isinstance(leaf, bool | np.bool_)), None)
    if wrong is not None:
        raise TypeError(
            f"mask has a leaf {wrong!r} of type {type(wrong).__name__}; a mask holds True (decays) or False."
        )
    if decays and not any(decays):
        if not any(jnp.issubdtype(jnp.result_type(leaf), np.floating) for leaf in jax.tree.leaves(params)):
            tree.check_weights(params)  # Nothing can be selected where no array holds floats.
        name = getattr(mask, "__name__", "given")
        meaning = next((f" (it selects {text})" for function, text in _MEANINGS.items() if mask is function), "")
        leaves = ", ".join(f"{leaf_name} {np.shape(leaf)}" for leaf_name, leaf in tree.named_leaves(params))
        raise ValueError(
            f"mask {name!r} selects no weight{meaning}, so nothing would decay. The weights are: {leaves}. "
            "Pass mask=wd.masks.everything, or a tree of True and False in the structure of the weights."
        )
    return [bool(leaf) for leaf in decays]


def weights_of(params: Params) -> Params:
    """Return the weights of a module.

    Args:
      params: A module of flax nnx or equinox, or a tree of weights.

    Returns:
      Its weights; a tree of weights as it is.
    """
    nnx, equinox = sys.modules.get("flax.nnx"), sys.modules.get("equinox")
    if nnx is not None and isinstance(params, nnx.Module):
        return nnx.state(params, nnx.Param)
    if equinox is not None and isinstance(params, equinox.Module):
        return equinox.filter(params, lambda leaf: hasattr(leaf, "shape"))
    return params


class Description(str):
    """The table that `describe` returns: a string, which a notebook shows as a table.

    Attributes:
      rows: The cells of each line, beginning with the titles.
      total: The last line.
    """

    rows: Sequence[Sequence[str]]
    total: str

    def _repr_html_(self) -> str:
        titles, *rows = self.rows
        columns = {title: [row[index] for row in rows] for index, title in enumerate(titles)}
        text_columns = [title for title in titles if title != "weights"]
        return f"{html.table(columns, text_columns=text_columns)}\n{html.paragraph(self.total)}"


def describe(
    params: Params,
    mask: Mask | MaskFn = kernels,
    decay: Rule | Sequence[Rule] | None = None,
    layout: Layout | None = None,
    *,
    trainable: Mask | MaskFn | None = None,
) -> Description:
    """Table of every weight array: name, shape, whether it decays, and the fraction of all weights that decays.

    A column ``layout`` says which axes are inputs, outputs, or stacked layers. It is shown where an array has another
    layout than inputs before outputs, where the layout of an array with more than two axes is assumed, not known (then
    with a question mark), and where ``layout`` is passed.

    Args:
      params: Weights, any pytree of arrays, or a module of flax nnx or equinox.
      mask: True = decays; a pytree prefix of ``params``, or a function that makes one.
      decay: A rule, or several in a tuple; adds the coefficients of each array to the table. A rule with a mask of its
        own acts where this mask says.
      layout: Layouts by patterns of names, such as ``{"w1": "out in"}``, for arrays whose layout is not known.
      trainable: True = trains; a pytree prefix of ``params``, or a function that makes one, as in `fit_grid`. Adds a
        column; arrays that do not train do not decay, and the last line counts those that train. None = all train.

    Returns:
      The table, one line per array and a last line with the totals; a string, which a notebook shows as a table.

    Raises:
      TypeError: ``decay`` is not a rule; a coefficient is not a number; ``params`` holds no arrays.
      ValueError: A mask does not fit the weights, or selects none of them; a coefficient or a layout does not fit them.

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
      >>> print(describe({"query": {"kernel": np.zeros((4, 2, 3)), "bias": np.zeros((2, 3))}}))
      name          shape      layout      weights  decays
      query/bias    (2, 3)     -                 6  no
      query/kernel  (4, 2, 3)  in out out       24  yes
      24 of 30 weights decay (80.0 %)
      >>> print(describe({"base": np.zeros((3, 2)), "head": np.zeros((2, 2))}, trainable=matching("head")))
      name  shape   trains  weights  decays
      base  (3, 2)  no            6  no
      head  (2, 2)  yes           4  yes
      4 of 4 weights decay (100.0 %), 6 are frozen
    """
    params = weights_of(params)
    if decay is None:
        rows = [("yes" if decayed else "no",) for decayed in resolve(mask, params)]
    else:
        rows = [("no", "-") if text is None else ("yes", text) for text in _coefficients(decay, mask, params)]
    named = tree.named_leaves(params)
    sizes = [int(np.size(leaf)) for _, leaf in named]
    trains = [True] * len(named) if trainable is None else selected(trainable, params, argument="trainable")
    rows = [row if trained else ("no", "-")[: len(row)] for trained, row in zip(trains, rows, strict=True)]
    layouts = _layouts(params, layout)
    training = [] if trainable is None else [("yes" if trained else "no",) for trained in trains]
    titles = ("name", "shape", *(["layout"] if layouts else []), *(["trains"] if training else []), "weights", "decays")
    table = [(*titles, *([] if decay is None else ["coefficient"]))]
    table += [
        (
            leaf_name or "(array)",
            str(np.shape(leaf)),
            *layouts[index : index + 1],
            *itertools.chain(*training[index : index + 1]),
            str(size),
            *row,
        )
        for index, ((leaf_name, leaf), size, row) in enumerate(zip(named, sizes, rows, strict=True))
    ]
    num_left = titles.index("weights")
    widths = [max(map(len, column)) for column in list(zip(*table, strict=True))[:num_left]]
    lines = []
    for row in table:
        left = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False))
        size, decayed, *rest = row[num_left:]
        lines.append(f"{left}  {size:>7}  {'  '.join([f'{decayed:<6}', *rest])}".rstrip())
    total = sum(size for size, trained in zip(sizes, trains, strict=True) if trained)
    chosen = sum(size for size, row in zip(sizes, rows, strict=True) if row[0] == "yes")
    frozen = f", {sum(sizes) - total:,} are frozen" if trainable is not None else ""
    last = f"{chosen:,} of {total:,} weights decay ({100 * chosen / max(total, 1):.1f} %){frozen}"
    described = Description("\n".join([*lines, last]))
    described.rows, described.total = table, last
    return described


def _layouts(params: Params, given: Layout | None) -> list[str]:
    """Layout of each array, as text; empty where every array has its inputs before its outputs and this is known."""
    arrays = layout.describe_arrays(params, given)
    if given is None and all(not array.is_matrix or (array.is_known and array.is_default) for array in arrays):
        return []
    return [f"{array}{'' if array.is_known else ' ?'}" if array.is_matrix else "-" for array in arrays]


def _structure(params: Params) -> Any:
    """Structure of the weights; an error where a mask is called with a step count, as a schedule is."""
    if getattr(params, "shape", None) == () and np.issubdtype(params.dtype, np.integer):
        raise TypeError(
            "params is an integer, not weights: a mask was called like a schedule, as optax.inject_hyperparams calls "
            "every function; pass it static_args='mask'."
        )
    for leaf in jax.tree.leaves(params):
        if not hasattr(leaf, "shape") and not isinstance(leaf, int | float | complex):
            raise TypeError(f"params holds {leaf!r}, of type {type(leaf).__name__}; give weights: a tree of arrays.")
    return jax.tree.structure(params)


def _kernels(params: Params) -> list[bool]:
    arrays = layout.describe_arrays(params)
    is_bare = [not leaf_name for leaf_name, _ in tree.named_leaves(params)]
    return [
        array.kind == layout.KERNEL and (bare or array.is_matrix) for array, bare in zip(arrays, is_bare, strict=True)
    ]


def _end(params: Params, end: Literal["first", "last"]) -> list[bool]:
    candidates = getattr(layer_order.ends(params, _kernels(params)), end)
    if len(candidates) > 1:
        names = [layer.name for layer in candidates]
        raise ValueError(
            f"masks.{end}: the structure of the weights does not tell which layer comes {end}: "
            f"{', '.join(names[:-1])} or {names[-1]}. Name it, such as wd.masks.matching({re.escape(names[-1])!r})."
        )
    leaves = {leaf for layer in candidates for leaf in layer.leaves}
    return [leaf in leaves for leaf in range(len(jax.tree.leaves(params)))]


def _tables(params: Params) -> list[bool]:
    return [array.kind == layout.EMBEDDING and array.is_matrix for array in layout.describe_arrays(params)]


def _coefficients(decay: Rule | Sequence[Rule], mask: Mask | MaskFn, params: Params) -> list[str | None]:
    """What acts on each array, as text; None = nothing."""
    rules = decay.rules if isinstance(decay, Combined) else decay if isinstance(decay, Sequence) else (decay,)
    columns: list[list[str | None]] = []
    for rule in rules:
        if not isinstance(rule, Rule):
            raise TypeError(f"decay is {rule!r}, of type {type(rule).__name__}; give a rule, such as wd.L2(0.01).")
        rule, rule_mask = (rule.rule, rule.mask) if isinstance(rule, Masked) else (rule, mask)
        if isinstance(rule, NoDecay):
            continue  # the rule does nothing
        decays = resolve(rule_mask, params)
        texts = [
            _spread(jax.tree.map(_text, value, is_leaf=callable), params, decays, argument=f"{name} of {rule}")
            for name, value in rule.coefficients().items()
            if value is not None
        ]
        # A rule without coefficients is written by its name.
        title = f"{type(rule).__name__} " if len(rules) > 1 or not texts else ""
        written = zip(*texts, strict=True) if texts else [()] * len(decays)
        columns.append(
            [
                (title + ", ".join(row)).rstrip() if decayed else None
                for decayed, row in zip(decays, written, strict=True)
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
