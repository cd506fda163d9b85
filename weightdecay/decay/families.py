"""Families of rules: what rules have in common that differ in the coefficient alone."""

import math
from dataclasses import fields, replace
from numbers import Real

import numpy as np

from weightdecay.core import tree
from weightdecay.decay.base import Rule
from weightdecay.decay.elementwise import NoDecay
from weightdecay.decay.placement import Combined, Masked
from weightdecay.decay.registry import check
from weightdecay.decay.touched import Touched


def coefficient(rule: Rule) -> float | None:
    """Return the coefficient by which rules of the same family are ordered.

    Args:
      rule: Any rule.

    Returns:
      Its only coefficient, or, of several, the one named ``coefficient``; None if that is not a finite number.
    """
    name = coefficient_name(rule)
    return None if name is None else float(rule.coefficients()[name])  # pyright: ignore[reportArgumentType]


def coefficient_name(rule: Rule) -> str | None:
    """Return the name of the coefficient by which rules of the same family are ordered; None if there is none."""
    numbers = rule.coefficients()
    name = next(iter(numbers)) if len(numbers) == 1 else "coefficient"
    value = numbers.get(name)
    return name if isinstance(value, Real) and math.isfinite(value) else None


def is_without_decay(rule: Rule) -> bool:
    """Whether a rule changes nothing: `weightdecay.NoDecay`, or a rule with neutral coefficients, such as ``L2(0)``.

    The coefficients that count are those named ``coefficient``, ``l1_coefficient`` and so on. A rule without any of
    these, such as one with a bound, always decays; a bound of 0 even removes all weights.

    Args:
      rule: Any rule; a combined rule is without decay if all its parts are.

    Returns:
      Whether it changes nothing.
    """
    if isinstance(rule, NoDecay):
        return True
    if isinstance(rule, Masked | Touched):
        return is_without_decay(rule.rule)
    if isinstance(rule, Combined):
        return all(is_without_decay(part) for part in rule.rules)
    strengths = [value for name, value in rule.coefficients().items() if name.endswith("coefficient")]
    leaves = [np.asarray(leaf) for value in strengths for _, leaf in tree.named_leaves(value)]
    return bool(leaves) and all(leaf.dtype != object and not (leaf != rule.neutral).any() for leaf in leaves)


def rule_family(rule: Rule) -> tuple[str, str]:
    """Return what is equal in rules that differ only in their coefficient: the kind and the other coefficients."""
    numbers, name = rule.coefficients(), coefficient_name(rule)
    others = {other: value for other, value in numbers.items() if other != name}
    return rule.name, str(others) if name is not None else ""


def with_coefficient(rule: Rule, value: float) -> Rule | None:
    """Return the same rule with another coefficient.

    Args:
      rule: Any rule.
      value: The coefficient by which rules of its family are ordered.

    Returns:
      The rule; None if it has no such coefficient, or does not allow this value.
    """
    if isinstance(rule, Masked | Touched):
        inner = with_coefficient(rule.rule, value)
        return None if inner is None else replace(rule, rule=inner)
    name = coefficient_name(rule)
    if name not in {field.name for field in fields(rule)}:  # pyright: ignore[reportArgumentType]
        return None
    other = replace(rule, **{name: value})  # pyright: ignore[reportArgumentType, reportCallIssue]
    try:
        check(other, argument="decay")
    except ValueError:
        return None
    return other
