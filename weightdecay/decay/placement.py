"""Which rule stands with which coefficient on which array of weights.

A coefficient may be one number, a tree of numbers, or `PerLayer`, numbers by name patterns; a rule may have a mask of
its own (`Masked`), and several may act together. `parts` and `leafwise` bring all that to one rule an array.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import jax
import jax.numpy as jnp
from typing_extensions import override

from weightdecay.core import tree
from weightdecay.core.types import Coefficient, Mask, MaskFn, Params
from weightdecay.decay.base import Rule, short
from weightdecay.decay.elementwise import Plain, Terms


@dataclass(frozen=True, eq=False)
class PerLayer:
    """A coefficient by layer: of the patterns that match a weight's name, the first gives its coefficient.

    A name is the path to an array, ``"Dense_0/kernel"``. A pattern is a regular expression for a run of whole parts of
    it: ``"Dense_1"`` matches ``"Dense_1/kernel"`` and not ``"Dense_10/kernel"``.

    Args:
      coefficients: By pattern; each >= 0, a number, a (traced) array of shape ``()``, or a schedule.
      default: Coefficient where no pattern matches; None refuses weights that decay and that no pattern matches.

    Raises:
      TypeError: ``coefficients`` is no dictionary, or a pattern is no string.

    Examples:
      >>> by_layer = PerLayer({"Dense_0": 1e-3, "Dense_[1-9]": 1e-4})
    """

    coefficients: Mapping[str, Any]
    default: Any = None

    def __post_init__(self) -> None:
        """Keep a copy, so that the rule stays what it was."""
        if not isinstance(self.coefficients, Mapping) or not all(isinstance(one, str) for one in self.coefficients):
            raise TypeError(
                f"coefficients are {self.coefficients!r}, of type {type(self.coefficients).__name__}; give a "
                "dictionary from patterns to numbers, as in wd.PerLayer({'Dense_0': 1e-3, 'Dense_[1-9]': 1e-4})."
            )
        object.__setattr__(self, "coefficients", dict(self.coefficients))

    def __eq__(self, other: object) -> bool:
        """Return whether the other has the same patterns in the same order, and the same coefficients."""
        return isinstance(other, PerLayer) and self._key() == other._key()

    def __hash__(self) -> int:
        """Return a hash of the patterns and their coefficients."""
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return tuple(self.coefficients.items()), self.default

    def __str__(self) -> str:
        """Return patterns and coefficients."""
        pairs = [f"{pattern}: {short(value)}" for pattern, value in self.coefficients.items()]
        return "{" + ", ".join(pairs + ([] if self.default is None else [f"else: {short(self.default)}"])) + "}"

    def spread(self, params: Params, decays: Sequence[bool], *, argument: str) -> list[Any]:
        """Coefficient of each array of the weights.

        Args:
          params: Weights.
          decays: One bool a leaf of ``params``.
          argument: What the coefficient belongs to, for the message.

        Returns:
          One value a leaf; None where the weight does not decay.

        Raises:
          ValueError: A pattern that decides for no weight that decays, or such a weight that no pattern decides for.
        """
        names = [name for (name, _), decayed in zip(tree.named_leaves(params), decays, strict=True) if decayed]
        chosen = tree.first_match(list(self.coefficients), names, argument=argument, what="weight that decays")
        left = [name for name, pattern in zip(names, chosen, strict=True) if pattern is None]
        if left and self.default is None:
            raise ValueError(
                f"{argument}: no pattern matches {', '.join(left)}; add a pattern, or give default=0.0 to leave them."
            )
        values = iter([self.default if pattern is None else self.coefficients[pattern] for pattern in chosen])
        return [next(values) if decayed else None for decayed in decays]


jax.tree_util.register_pytree_with_keys(
    PerLayer,
    lambda one: (
        [(jax.tree_util.DictKey(key), value) for key, value in one.coefficients.items()]
        + [(jax.tree_util.GetAttrKey("default"), one.default)],
        tuple(one.coefficients),
    ),
    lambda patterns, values: PerLayer(dict(zip(patterns, values, strict=False)), list(values)[-1]),
)


@tree.dataclass
class Masked(Rule):
    """A rule on weights of its own, whatever the optimizer's mask says.

    Several rules together may act on different weights: ``(wd.L2(1e-4), wd.Masked(wd.ProximalL1(1e-3),
    wd.masks.first))``. As an axis of a grid it asks *on which weights?*

    Args:
      rule: Any rule.
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
    """Several rules together: they add up in each place, and move the weights one after the other.

    Users write a tuple of rules; `parts` takes either.
    """

    rules: tuple[Rule, ...]

    @override
    def coefficients(self) -> dict[str, Coefficient]:
        names = [rule.name for rule in self.rules]
        # Two of one name are told apart by their place.
        said = [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, start=1)]
        return {
            f"{name}.{field}": value
            for name, rule in zip(said, self.rules, strict=True)
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
    """The rules that a decay is made of, each with a mask of its own.

    Plain rules without a mask of their own and with different terms come as one, so that the proximal map of several
    penalties is the exact one of their sum, in whatever order they were given.

    Args:
      decay: A rule, or several in a tuple.

    Returns:
      Pairs of a rule and its mask; None = the optimizer's.
    """
    given = (
        list(decay.rules) if isinstance(decay, Combined) else list(decay) if isinstance(decay, Sequence) else [decay]
    )
    merged: Terms | None = None
    others: list[tuple[Rule, Any]] = []
    for rule in given:
        if isinstance(rule, Plain | Terms) and len(given) > 1:
            terms = rule.terms()
            if merged is None or not merged.present & terms.present:
                both = {} if merged is None else {name: getattr(merged, name) for name in merged.present}
                merged = Terms(**both, **{name: getattr(terms, name) for name in terms.present})
                continue
        others.append((rule.rule, rule.mask) if isinstance(rule, Masked) else (rule, None))
    return ([] if merged is None else [(merged, None)]) + others


def leafwise(rule: Rule, params: Params, decays: Sequence[bool]) -> list[Any]:
    """A rule for each array of the weights, with a number in place of each coefficient.

    Args:
      rule: Coefficients are scalars, pytree prefixes of ``params`` or `PerLayer`, possibly traced.
      params: Weights.
      decays: One bool a leaf of ``params``; where it is False there is no rule.

    Returns:
      One rule, or None, a leaf, in the order of `jax.tree.leaves`. The numbers have at least float32's precision,
      whatever the weights have.

    Raises:
      TypeError: Weights that decay and are no floats.
      ValueError: A coefficient or an anchor is a tree that does not fit the weights.
    """
    named = tree.named_leaves(params)
    tree.check_weights([leaf for (_, leaf), decayed in zip(named, decays, strict=True) if decayed])
    columns: dict[str, list[Any]] = {}
    for one in fields(rule):  # pyright: ignore[reportArgumentType]
        value = getattr(rule, one.name)
        if "static" in one.metadata or value is None:
            columns[one.name] = [value] * len(named)
        elif "anchor" in one.metadata:
            columns[one.name] = _spread_anchor(value, named, argument=f"{one.name} of {type(rule).__name__}")
        else:
            argument = f"{one.name} of {rule}"
            spread = (
                value.spread(params, decays, argument=argument)
                if isinstance(value, PerLayer)
                else tree.spread(value, params, argument=argument)
            )
            precise = (jnp.promote_types(jnp.float32, jnp.result_type(weight)) for _, weight in named)
            columns[one.name] = [
                None if number is None or not decayed else jnp.asarray(number, dtype)
                for number, dtype, decayed in zip(spread, precise, decays, strict=True)
            ]
    return [
        type(rule)(**{name: column[index] for name, column in columns.items()}) if decayed else None
        for index, decayed in enumerate(decays)
    ]


def _spread_anchor(anchor: Params, named: list[tuple[str, Any]], *, argument: str) -> list[Any]:
    """Anchor of each array, matched by names; 0 for an array that the anchor does not have."""
    given = dict(tree.named_leaves(anchor))
    unknown = sorted(set(given) - {name for name, _ in named})
    if unknown:
        raise ValueError(
            f"{argument} has {', '.join(one or '(a bare array)' for one in unknown)}, which the weights do not have; "
            f"they are: {', '.join(name for name, _ in named)}."
        )
    for name, weight in named:
        if name in given and jnp.shape(given[name]) != jnp.shape(weight):
            raise ValueError(
                f"{argument}: {name} has shape {jnp.shape(given[name])}, and the weights there {jnp.shape(weight)}; "
                "leave a new head out of the anchor, so that it decays toward 0."
            )
    return [
        jnp.asarray(given[name], jnp.result_type(weight)) if name in given else jnp.zeros_like(weight)
        for name, weight in named
    ]
