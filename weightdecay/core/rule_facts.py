"""What plots and labels show about a decay rule, looked up by the rule's name.

A plot is drawn from a table, where a rule is only a name. `weightdecay.decay` therefore enters the facts of every rule
here when the rule is defined, those of a user's own rules included. A rule that this process has not defined, such as
the user's rule of a result that another script saved, has no entry.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple


class RuleFacts(NamedTuple):
    """What is shown about one rule."""

    units: Mapping[str, str]
    """Unit of each coefficient, by the name of the coefficient; coefficients without a declared unit are left out."""
    names: tuple[str, ...]
    """Names of the coefficients, in the order of the constructor."""
    removed_fraction: Callable[[float], float] | None
    """Fraction of the weights that a coefficient of 1 removes per step, as a function of the learning rate; the
    fraction is proportional to the coefficient. None = it depends on more than these two."""


def column(coefficient: str) -> str:
    """Column of a table that holds a coefficient of this name; the column ``decay`` is the name of the rule.

    Args:
      coefficient: Name of the coefficient; of several rules together, with the name of its rule before it.

    Returns:
      The name of the column.

    Examples:
      >>> [column(name) for name in ("delta", "decay", "TowardAverage.decay")]
      ['delta', 'average_decay', 'TowardAverage.average_decay']
    """
    *before, name = coefficient.split(".")
    return ".".join([*before, "average_decay" if name == "decay" else name])


_FACTS: dict[str, RuleFacts] = {}


def enter(name: str, facts: RuleFacts) -> None:
    """Enter the facts of a rule, or replace them.

    Args:
      name: Name of the rule.
      facts: What is shown about it.
    """
    _FACTS[name] = facts


def of_rule(name: str) -> RuleFacts | None:
    """Facts of a rule.

    Args:
      name: Name of the rule.

    Returns:
      The facts, or None where no such rule is defined.
    """
    return _FACTS.get(name)


def coefficient_names() -> set[str]:
    """Return the names of the coefficients of all rules that are defined."""
    return {name for facts in _FACTS.values() for name in facts.names}
