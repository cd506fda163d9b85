"""Which rule with which coefficient acts on which array of weights.

A coefficient may be one number, a tree of numbers, or `PerLayer` (numbers by patterns of names); a rule may have a mask
of its own (`Masked`), and several rules may act together. `parts` and `leafwise` reduce all of this to one rule per
array, with one number per coefficient.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from typing_extensions import override

from weightdecay.core import checks, tree
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.core.text import short
from weightdecay.core.types import Coefficient, Mask, MaskFn, Params
from weightdecay.decay.array_kinds import KERNEL
from weightdecay.decay.base import WEIGHTS, Rule
from weightdecay.decay.elementwise import ElementwiseRule, Terms
from weightdecay.decay.laid_out import laid_out
from weightdecay.decay.layout import describe_arrays
from weightdecay.decay.touched import Touched, TouchedRows


@dataclass(frozen=True, eq=False)
class PerLayer:
    """A coefficient, or a learning rate, that differs between layers: the first pattern that matches a name decides.

    A name is the path to an array, ``"Dense_0/kernel"``. A pattern is a regular expression that must match one or more
    complete parts of the path: ``"Dense_1"`` matches ``"Dense_1/kernel"`` and not ``"Dense_10/kernel"``.

    Args:
      coefficients: Coefficient or learning rate by pattern; each >= 0, a number, a (traced) array of shape ``()``, or a
        schedule.
      default: Of the arrays that no pattern matches. None = every array that decays (for a learning rate, every array)
        must match a pattern.
      base_width: Fan-in for which ``default`` is meant, > 0, a Python number. A kernel of another fan-in that no
        pattern matches gets ``default * (fan_in / base_width) ** power``, so that numbers carry over from a narrow
        network to a wide one. Biases, scales and embeddings have no such fan-in and get ``default``, and a pattern's
        number is used as it is written: give the first layer, whose fan-in is that of the data, a pattern. None = no
        dependence.
      power: Power of the fan-in; a Python number. -1 for the learning rates of Adam (Yang et al., Tensor Programs V,
        2022, arXiv 2203.03466); for the coefficient of `Decoupled` then 1 holds the fraction that a step removes.

    Raises:
      TypeError: ``coefficients`` is not a dictionary, a pattern is not a string, or a width is not a number.
      ValueError: ``base_width`` without a ``default``, or a width that is not above 0.

    Examples:
      >>> by_layer = PerLayer({"Dense_0": 1e-3, "Dense_[1-9]": 1e-4})
      >>> slower_below = PerLayer({"backbone": 1e-5}, default=1e-3)  # learning rates
      >>> by_width = PerLayer({"Dense_0": 1e-3}, default=1e-3, base_width=64, power=-1)
      >>> print(by_width)
      {Dense_0: 0.001, else: 0.001 (fan-in / 64)^-1}
    """

    coefficients: Mapping[str, Any]
    default: Any = None
    base_width: float | int | None = None
    power: float | int = -1

    def __post_init__(self) -> None:
        """Copy the dictionary, so that later changes to the user's own do not change the rule."""
        is_dictionary = isinstance(self.coefficients, Mapping)
        if not is_dictionary or not all(isinstance(pattern, str) for pattern in self.coefficients):
            raise ArgumentTypeError(
                "coefficients",
                f"coefficients are {self.coefficients!r}, of type {type(self.coefficients).__name__}; give a "
                "dictionary from patterns to numbers, as in wd.PerLayer({'Dense_0': 1e-3, 'Dense_[1-9]': 1e-4}).",
            )
        object.__setattr__(self, "coefficients", dict(self.coefficients))
        if self.base_width is None:
            return
        checks.number(self.base_width, "base_width", above=0, allowed="a fan-in above 0, or None")
        checks.number(self.power, "power", allowed="a finite number, such as -1")
        if self.default is None:
            raise ArgumentError(
                "default", "default is None, and base_width scales the default; give the number for that fan-in."
            )

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same patterns in the same order, with the same coefficients."""
        return isinstance(other, PerLayer) and self._key() == other._key()

    def __hash__(self) -> int:
        """Return a hash of the patterns and their coefficients."""
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return tuple(self.coefficients.items()), self.default, self._width

    def __str__(self) -> str:
        """Return the patterns with their coefficients."""
        pairs = [f"{pattern}: {short(value)}" for pattern, value in self.coefficients.items()]
        width = "" if self.base_width is None else f" (fan-in / {self.base_width:g})^{self.power:g}"
        return "{" + ", ".join(pairs + ([] if self.default is None else [f"else: {short(self.default)}{width}"])) + "}"

    @property
    def _width(self) -> tuple[float | int, float | int] | None:
        return None if self.base_width is None else (self.base_width, self.power)

    def factors(self, params: Params) -> list[float]:
        """Look up what the default is multiplied by for each array.

        Args:
          params: Weights, or their shapes.

        Returns:
          ``(fan_in / base_width) ** power`` for each kernel; 1 for each other array, and without a base width.
        """
        if self.base_width is None:
            return [1.0] * len(jax.tree.leaves(params))
        shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(params)]
        arrays = describe_arrays(params)
        fan_ins = [
            math.prod(shape[axis] for axis in array.inputs) if array.kind == KERNEL and array.is_matrix else None
            for shape, array in zip(shapes, arrays, strict=True)
        ]
        return [1.0 if fan_in is None else (fan_in / self.base_width) ** self.power for fan_in in fan_ins]

    def spread(
        self, params: Params, decays: Sequence[bool], *, argument: str, what: str = "weight that decays"
    ) -> list[Any]:
        """Look up the coefficient of each array.

        Args:
          params: Weights.
          decays: Whether each leaf of ``params`` decays.
          argument: Name of the coefficient, for the message.
          what: What the names stand for, for the message.

        Returns:
          One value per leaf; None for a leaf that does not decay.

        Raises:
          ValueError: A pattern decides for no array that decays, or no pattern matches such an array.
        """
        names = [name for (name, _), decayed in zip(tree.named_leaves(params), decays, strict=True) if decayed]
        chosen = tree.first_match(list(self.coefficients), names, argument=argument, what=what)
        unmatched = [name for name, pattern in zip(names, chosen, strict=True) if pattern is None]
        if unmatched and self.default is None:
            raise ArgumentError(
                "learning_rate" if argument == "learning_rate" else "decay",
                f"{argument}: no pattern matches {', '.join(unmatched)}; add a pattern, or give default=0.0, so that "
                f"they do not {'train' if argument == 'learning_rate' else 'decay'}.",
            )
        factors = [factor for factor, decayed in zip(self.factors(params), decays, strict=True) if decayed]
        values = iter(
            [
                _multiplied(self.default, factor) if pattern is None else self.coefficients[pattern]
                for pattern, factor in zip(chosen, factors, strict=True)
            ]
        )
        return [next(values) if decayed else None for decayed in decays]


def _multiplied(value: Any, factor: float) -> Any:
    """A number times the factor of its width; a text says so."""
    if factor == 1:
        return value
    return f"{value} · {factor:.4g}" if isinstance(value, str) else value * factor


class _Patterns(NamedTuple):
    """What is static in a `PerLayer` with a base width."""

    patterns: tuple[str, ...]
    width: tuple[float | int, float | int]


jax.tree_util.register_pytree_with_keys(
    PerLayer,
    lambda by_layer: (
        [(jax.tree_util.DictKey(key), value) for key, value in by_layer.coefficients.items()]
        + [(jax.tree_util.GetAttrKey("default"), by_layer.default)],
        tuple(by_layer.coefficients)
        if by_layer._width is None
        else _Patterns(tuple(by_layer.coefficients), by_layer._width),
    ),
    lambda static, values: _per_layer(static, list(values)),
)


def _per_layer(static: tuple[str, ...] | _Patterns, values: list[Any]) -> PerLayer:
    """Make a `PerLayer` of its parts, as JAX does."""
    patterns, width = static if isinstance(static, _Patterns) else (static, (None, -1))
    # JAX puts in placeholders as well, None among them, which are not to be validated.
    made = PerLayer(dict(zip(patterns, values, strict=False)), values[-1])
    object.__setattr__(made, "base_width", width[0])
    object.__setattr__(made, "power", width[1])
    return made


@tree.dataclass
class Masked(Rule):
    """A rule with a mask of its own, which replaces the mask of the optimizer.

    Several rules together may act on different weights: ``(wd.L2(1e-4), wd.Masked(wd.ProximalL1(1e-3),
    wd.masks.first))``. As an axis of a grid it answers the question *on which weights?*

    Args:
      rule: Any single rule.
      mask: True = decays; a function from weights to a mask, a bool, or a tree of bools.
    """

    rule: Rule
    mask: Mask | MaskFn = field(metadata={"static": True})

    @override
    def coefficients(self) -> dict[str, Coefficient]:
        return self.rule.coefficients()

    @property
    @override
    def name(self) -> str:
        return f"{self.rule.name} on {short(self.mask)}"

    @override
    def __str__(self) -> str:
        return f"Masked({self.rule}, {short(self.mask)})"


@tree.dataclass
class Combined(Rule):
    """Several rules together: gradient terms and shrinkage add up, and moves are applied one after the other.

    Users write a tuple of rules; `parts` accepts both.
    """

    rules: tuple[Rule, ...]

    @override
    def coefficients(self) -> dict[str, Coefficient]:
        names = [rule.name for rule in self.rules]
        # Two rules of one name are distinguished by their number.
        numbered = [
            name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, start=1)
        ]
        return {
            f"{name}.{field}": value
            for name, rule in zip(numbered, self.rules, strict=True)
            for field, value in rule.coefficients().items()
        }

    @property
    @override
    def name(self) -> str:
        return " + ".join(rule.name for rule in self.rules)

    @override
    def __str__(self) -> str:
        return " + ".join(map(str, self.rules))


def parts(decay: Rule | Sequence[Rule]) -> list[tuple[Rule, Mask | MaskFn | None]]:
    """Split decay into its rules, each with its mask.

    Elementwise rules with different terms and without a mask of their own are merged into one, so that the proximal map
    of several penalties is the exact map of their sum, in whatever order they were given.

    Args:
      decay: A rule, or several in a tuple.

    Returns:
      Pairs of a rule and its mask; None = the mask of the optimizer.
    """
    rules = list(decay.rules) if isinstance(decay, Combined) else [decay] if isinstance(decay, Rule) else list(decay)
    merged: Terms | None = None
    others: list[tuple[Rule, Any]] = []
    for rule in rules:
        if isinstance(rule, ElementwiseRule | Terms) and len(rules) > 1:
            terms = rule.terms()
            if merged is None or not merged.present & terms.present:
                earlier = {} if merged is None else {name: getattr(merged, name) for name in merged.present}
                merged = Terms(**earlier, **{name: getattr(terms, name) for name in terms.present})
                continue
        others.append((rule.rule, rule.mask) if isinstance(rule, Masked) else (rule, None))
    return ([] if merged is None else [(merged, None)]) + others


def changed(
    decay: Rule,
    *,
    mask: Callable[[Mask | MaskFn], Mask | MaskFn] = lambda mask: mask,
    anchor: Callable[[Params | None], Params | None] = lambda anchor: anchor,
) -> Rule:
    """Change the masks and the anchors of rules.

    Args:
      decay: A rule, with others in it or not.
      mask: What becomes of the mask of a `Masked`.
      anchor: What becomes of an anchor, such as that of `TowardAnchor`; None = the initial weights.

    Returns:
      The rule.
    """
    if isinstance(decay, Combined):
        return Combined(tuple(changed(rule, mask=mask, anchor=anchor) for rule in decay.rules))
    if isinstance(decay, Touched):
        return Touched(changed(decay.rule, mask=mask, anchor=anchor))
    if isinstance(decay, Masked):
        return Masked(changed(decay.rule, mask=mask, anchor=anchor), mask(decay.mask))
    anchors = [one.name for one in fields(decay) if "anchor" in one.metadata]  # pyright: ignore[reportArgumentType]
    values = {name: anchor(getattr(decay, name)) for name in anchors}
    return replace(decay, **values) if anchors else decay  # pyright: ignore[reportArgumentType]


def leafwise(rule: Rule, params: Params, decays: Sequence[bool]) -> list[Any]:
    """Make one rule per array of the weights, with a number in place of each coefficient.

    Args:
      rule: Its coefficients are scalars, pytree prefixes of ``params`` or `PerLayer`, possibly traced.
      params: Weights.
      decays: Whether each leaf of ``params`` decays.

    Returns:
      One rule per leaf, in the order of `jax.tree.leaves`; None for a leaf that does not decay. The numbers have at
      least float32's precision, also where the weights have less.

    Raises:
      TypeError: Weights that decay are not floats.
      ValueError: A coefficient or an anchor is a tree that does not fit the weights.
    """
    if isinstance(rule, Touched):
        by_leaf = zip(leafwise(rule.rule, params, decays), describe_arrays(params), strict=True)
        return [None if leaf_rule is None else TouchedRows(leaf_rule, array) for leaf_rule, array in by_leaf]
    named = tree.named_leaves(params)
    tree.check_weights([leaf for (_, leaf), decayed in zip(named, decays, strict=True) if decayed])
    columns: dict[str, list[Any]] = {}
    for field_ in fields(rule):  # pyright: ignore[reportArgumentType]
        value = getattr(rule, field_.name)
        if "static" in field_.metadata or value is None:
            columns[field_.name] = [value] * len(named)
        elif "anchor" in field_.metadata:
            columns[field_.name] = _spread_anchor(value, named, argument=f"{field_.name} of {type(rule).__name__}")
        else:
            argument = f"{field_.name} of {rule}"
            spread = (
                value.spread(params, decays, argument=argument)
                if isinstance(value, PerLayer)
                else tree.spread(value, params, argument=argument)
            )
            precise = (jnp.promote_types(jnp.float32, jnp.result_type(weight)) for _, weight in named)
            columns[field_.name] = [
                None if number is None or not decayed else jnp.asarray(number, dtype)
                for number, dtype, decayed in zip(spread, precise, decays, strict=True)
            ]
    arrays = describe_arrays(params, getattr(rule, "layout", None)) if rule.acts_on != WEIGHTS else [None] * len(named)
    rules: list[Any] = [None] * len(named)
    for index, array in enumerate(arrays):
        if decays[index]:
            leaf_rule = type(rule)(**{name: column[index] for name, column in columns.items()})
            rules[index] = leaf_rule if array is None else laid_out(leaf_rule, array)
    return rules


def _spread_anchor(anchor: Params, named: list[tuple[str, Any]], *, argument: str) -> list[Any]:
    """Anchor of each array, matched by name; 0 for an array that the anchor does not have."""
    anchors = dict(tree.named_leaves(anchor))
    unknown = sorted(set(anchors) - {name for name, _ in named})
    if unknown:
        raise ArgumentError(
            "decay",
            f"{argument} has {', '.join(name or '(a bare array)' for name in unknown)}, which the weights do not have; "
            f"they are: {', '.join(name for name, _ in named)}.",
        )
    for name, weight in named:
        if name in anchors and jnp.shape(anchors[name]) != jnp.shape(weight):
            raise ArgumentError(
                "decay",
                f"{argument}: {name} has shape {jnp.shape(anchors[name])}, and the weights have {jnp.shape(weight)}; "
                "leave a new head out of the anchor, so that it decays toward 0.",
            )
    return [
        jnp.asarray(anchors[name], jnp.result_type(weight)) if name in anchors else jnp.zeros_like(weight)
        for name, weight in named
    ]
