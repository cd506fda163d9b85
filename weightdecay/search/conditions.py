"""Conditions that select members by their hyperparameters, for ``grid.where`` and ``result.where``."""

import math
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

from weightdecay.core import text
from weightdecay.core.checks import ArgumentError, ArgumentTypeError
from weightdecay.decay import Rule

_TOLERANCE = 1e-6  # relative, of numbers: a float32 equals the number that it was made of


def selected(
    members: Iterable[Mapping[str, Any]], predicate: Callable[[dict[str, Any]], Any] | None, values: Mapping[str, Any]
) -> list[int]:
    """Select members.

    Args:
      members: Hyperparameters of each member by name.
      predicate: ``predicate(member) -> bool``; None = every member.
      values: The value of each named hyperparameter, or several in a list, a range or a set, one of which it must have.
        A rule may be given by its name or its class, in place of one with its coefficients.

    Returns:
      Numbers of the members that satisfy all of it, at least one.

    Raises:
      ArgumentTypeError: ``predicate`` is not a function.
      ArgumentError: No member has a hyperparameter of this name, or none satisfies all of it.
    """
    members = list(members)
    if predicate is not None and not callable(predicate):
        raise ArgumentTypeError(
            "predicate",
            f"predicate is {predicate!r}, of type {type(predicate).__name__}; give a function of a member, as in "
            "where(lambda member: member['learning_rate'] < 0.1), or values by name, as in where(learning_rate=0.1).",
        )
    names = list(dict.fromkeys(name for member in members for name in member))
    for name in values:
        if name not in names:
            raise ArgumentError(
                name, f"no member has {name!r}; give one of {', '.join(names)}{text.suggestion(name, names)}."
            )
    kept = [
        number
        for number, member in enumerate(members)
        if (predicate is None or predicate(dict(member)))
        and all(name in member and _is_one_of(member[name], wanted) for name, wanted in values.items())
    ]
    if not kept:
        what = " and ".join([*["the predicate"] * (predicate is not None), *(f"{n} = {v}" for n, v in values.items())])
        raise ArgumentError(
            next(iter(values), "predicate"),
            f"none of the {len(members)} members satisfies {what}; {_alternatives(members, values)}.",
        )
    return kept


def _is_one_of(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list | range | set | frozenset):
        return any(_is(value, one) for one in wanted)
    return _is(value, wanted)


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(value, Rule):
        if isinstance(wanted, type):
            return isinstance(value, wanted)
        return wanted == (value.name if isinstance(wanted, str) else value)
    if isinstance(value, Real) and isinstance(wanted, Real) and not isinstance(value, bool) | isinstance(wanted, bool):
        return math.isclose(value, wanted, rel_tol=_TOLERANCE)
    return type(value) is type(wanted) and bool(value == wanted) if isinstance(wanted, bool) else bool(value == wanted)


def _alternatives(members: list[Mapping[str, Any]], values: Mapping[str, Any]) -> str:
    """Values that the members have."""
    parts = []
    for name in values:
        has = dict.fromkeys(
            member[name].name if isinstance(member[name], Rule) else str(member[name])
            for member in members
            if name in member
        )
        parts.append(f"{name} is one of {text.shortened(', '.join(has))}")
    return "; ".join(parts) or "result.members and grid.axes have the values"
