"""Whether the chosen candidate is at the edge of its grid, and the grid that continues beyond the edge."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Real
from typing import Any, NamedTuple

from weightdecay.decay import KINDS, Masked, Rule, Touched, check
from weightdecay.decay.families import coefficient, coefficient_name, rule_family
from weightdecay.decay.registry import USER_KINDS
from weightdecay.results.candidates import Candidate
from weightdecay.search import member
from weightdecay.search.grid import Grid

_DEFAULT_SPACING = math.sqrt(10)  # if the grid has no spacing of its own: one coefficient and 0
_MAX_NEW_VALUES = 6  # of an axis


class _Beyond(NamedTuple):
    edge: str  # "lowest" or "highest"
    values: list[float | int]  # ascending


class Edges(NamedTuple):
    """The axes at whose end the chosen candidate is.

    Attributes:
      coefficient: ``"lowest"`` or ``"highest"``; None if it is between others or the only one.
      learning_rate: The same for the learning rate.
      advice: A sentence that says what to do; empty if there is nothing to do.
      extension: The grid that continues beyond the edges; None if there is nothing to do.
    """

    coefficient: str | None
    learning_rate: str | None
    advice: str
    extension: Grid | None


def of(chosen: Candidate, candidates: Sequence[Candidate]) -> Edges:
    """Find the edges at which the chosen candidate is.

    A coefficient is compared with those of rules of the same kind with the same other coefficients and the same other
    hyperparameters; a learning rate with those of the same decay and the same other hyperparameters. Beyond an edge the
    axis continues with its own mean spacing on a logarithmic scale: a coefficient by a factor of about 100, a learning
    rate by about 10, and neither by more than six values. New coefficients are combined with every combination of the
    other hyperparameters that the rule has in the grid, new learning rates with every coefficient of the rule and with
    no decay, and all of them with the seeds and folds of the chosen candidate.

    Args:
      chosen: The chosen candidate.
      candidates: All candidates of the grid, including those that are not finite.

    Returns:
      The edges.
    """
    by_rule, by_rate = _coefficients(chosen, candidates), _learning_rates(chosen, candidates)
    advice = []
    if by_rule is not None:
        advice.append(
            f"{chosen.decay} is the {by_rule.edge} coefficient of its grid, so the best may lie beyond it: "
            f"extend the grid{_example(chosen.decay, by_rule)}."
        )
    if by_rate is not None:
        advice.append(
            f"learning_rate {chosen.hyperparameters['learning_rate']:.4g} is the {by_rate.edge} of its grid, so the "
            f"best may lie beyond it: add {', '.join(f'{value:.4g}' for value in by_rate.values)}."
        )
    if not advice:
        return Edges(None, None, "", None)
    rows = _rows(
        chosen, candidates, [] if by_rule is None else by_rule.values, [] if by_rate is None else by_rate.values
    )
    return Edges(
        None if by_rule is None else by_rule.edge,
        None if by_rate is None else by_rate.edge,
        " ".join(advice),
        _grid(rows, chosen),
    )


def _coefficients(chosen: Candidate, candidates: Sequence[Candidate]) -> _Beyond | None:
    value = coefficient(chosen.decay)
    if value is None or _with_coefficient(chosen.decay, value) is None:
        return None
    family = rule_family(chosen.decay)
    path = [c.decay for c in candidates if c.others == chosen.others and rule_family(c.decay) == family]
    values = [number for rule in path if (number := coefficient(rule)) is not None]
    beyond = _beyond(value, values, reach=100.0, least=2)
    if beyond is None:
        return None
    allowed = [number for number in beyond.values if _with_coefficient(chosen.decay, number) is not None]
    return beyond._replace(values=allowed) if allowed else None


def _learning_rates(chosen: Candidate, candidates: Sequence[Candidate]) -> _Beyond | None:
    value = chosen.hyperparameters.get("learning_rate")
    if not isinstance(value, Real):
        return None
    same = {**chosen.hyperparameters, "learning_rate": None}
    rates = [
        c.hyperparameters.get("learning_rate")
        for c in candidates
        if {**c.hyperparameters, "learning_rate": None} == same
    ]
    return _beyond(float(value), [float(rate) for rate in rates if isinstance(rate, Real)], reach=10.0, least=1)


def _beyond(value: float, values: Iterable[float | int], *, reach: float, least: int) -> _Beyond | None:
    """Return the end at which a value is, and the new values beyond; None if it is between others, alone, or 0."""
    path = sorted(set(values))
    if len(path) < 2 or path[0] < value < path[-1] or value <= 0:
        return None
    positive = [number for number in path if number > 0]
    spacing = (positive[-1] / positive[0]) ** (1 / (len(positive) - 1)) if len(positive) > 1 else _DEFAULT_SPACING
    num = min(max(round(math.log(reach) / math.log(spacing)), least), _MAX_NEW_VALUES)
    edge, direction = ("lowest", -1) if value == path[0] else ("highest", 1)
    # Twelve digits: 10, and not 10.000000000000002.
    return _Beyond(edge, sorted(float(f"{value * spacing ** (direction * step):.12g}") for step in range(1, num + 1)))


def _example(rule: Rule, beyond: _Beyond) -> str:
    first, last = beyond.values[0], beyond.values[-1]
    is_defined = rule.name in KINDS or rule.name in USER_KINDS
    if is_defined and len(rule.coefficients()) == 1 and len(beyond.values) > 1:
        kind = f"wd.{rule.name}" if rule.name in KINDS else rule.name
        return f", as with wd.logspace({kind}, {first:.4g}, {last:.4g}, {len(beyond.values)})"
    return f" to {first if beyond.edge == 'lowest' else last:.4g}"


def _with_coefficient(rule: Rule, value: float) -> Rule | None:
    """Return the same rule with another coefficient; None if the rule does not allow it."""
    if isinstance(rule, Masked | Touched):
        inner = _with_coefficient(rule.rule, value)
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


def _rows(
    chosen: Candidate, candidates: Sequence[Candidate], coefficients: list[float | int], rates: list[float | int]
) -> list[dict[str, Any]]:
    """Return the hyperparameters of the new candidates, each once."""
    relatives = [c for c in candidates if rule_family(c.decay) == rule_family(chosen.decay)]
    rules = [_with_coefficient(chosen.decay, value) for value in coefficients]
    rows = [{**c.hyperparameters, "decay": rule} for rule in rules for c in relatives]
    with_rate = [*rows, *(c.hyperparameters for c in (*relatives, *(c for c in candidates if c.is_without_decay)))]
    rows += [{**row, "learning_rate": rate} for rate in rates for row in with_rate]
    existing = {_key(c.hyperparameters) for c in candidates}
    new = {_key(row): row for row in rows if isinstance(row.get("learning_rate"), Real) or not rates}
    return [row for key, row in new.items() if key not in existing]


def _grid(rows: Sequence[Mapping[str, Any]], chosen: Candidate) -> Grid:
    seeds = list(dict.fromkeys(replicate.seed for replicate in chosen.values))
    folds = [fold for fold in dict.fromkeys(replicate.fold for replicate in chosen.values) if fold is not None]
    replicates = {"seed": seeds} | ({"fold": folds} if folds else {})
    by_axes: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_axes.setdefault(tuple(sorted(row)), []).append(row)
    zipped = [
        Grid.zip(**{name: [row[name] for row in alike] for name in alike[0]}, **replicates)
        for alike in by_axes.values()
    ]
    return sum(zipped[1:], start=zipped[0])


def _key(hyperparameters: Mapping[str, Any]) -> str:
    return json.dumps(member.encode(hyperparameters), sort_keys=True)
