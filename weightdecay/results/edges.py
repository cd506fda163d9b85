"""Whether the chosen candidate sits at the edge of its grid, and the grid that goes on beyond it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from numbers import Real
from typing import Any, NamedTuple

from weightdecay.decay import KINDS, Masked, Rule, check
from weightdecay.results.candidates import Candidate, coefficient, coefficient_name, shape
from weightdecay.search import member
from weightdecay.search.grid import Grid

_SPACING = math.sqrt(10)  # where a grid has none of its own: beside a coefficient of 0
_MOST = 6  # new values of an axis


class _Beyond(NamedTuple):
    edge: str  # "lowest" or "highest"
    values: list[float | int]  # ascending


class Edges(NamedTuple):
    """Where the chosen candidate sits at the end of an axis.

    Attributes:
      coefficient: ``"lowest"`` or ``"highest"``, or None where it lies between others or has none beside it.
      learning_rate: Likewise.
      advice: What to do about it, in words; empty where there is nothing to do.
      extension: The grid that goes on beyond; None where there is nothing to do.
    """

    coefficient: str | None
    learning_rate: str | None
    advice: str
    extension: Grid | None


def of(chosen: Candidate, candidates: Sequence[Candidate]) -> Edges:
    """Look for edges.

    A coefficient is compared with those of the same kind, the same other coefficients and the same other
    hyperparameters; a learning rate with those of the same decay and the same other hyperparameters. Beyond an edge the
    axis goes on in its own mean spacing on a logarithmic scale: a coefficient by a factor of about 100, a learning rate
    by about 10, and neither by more than six values. New coefficients stand with every combination of the other
    hyperparameters that the rule has in the grid, new learning rates with every coefficient of the rule and with no
    decay, and all with the seeds and folds of the chosen.

    Args:
      chosen: The choice.
      candidates: All of the grid, broken ones too.

    Returns:
      What was found.
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
    here = coefficient(chosen.decay)
    if here is None or _with_coefficient(chosen.decay, here) is None:
        return None
    beside = [c for c in candidates if c.others == chosen.others]
    path = [c for c in beside if shape(c.decay) == shape(chosen.decay)]
    values = [value for c in path if (value := coefficient(c.decay)) is not None]
    found = _beyond(here, values, reach=100.0, least=2)
    if found is None:
        return None
    allowed = [value for value in found.values if _with_coefficient(chosen.decay, value) is not None]
    return found._replace(values=allowed) if allowed else None


def _learning_rates(chosen: Candidate, candidates: Sequence[Candidate]) -> _Beyond | None:
    here = chosen.hyperparameters.get("learning_rate")
    if not isinstance(here, Real):
        return None
    same = {**chosen.hyperparameters, "learning_rate": None}
    beside = [c.hyperparameters for c in candidates if {**c.hyperparameters, "learning_rate": None} == same]
    values = [float(one["learning_rate"]) for one in beside if isinstance(one.get("learning_rate"), Real)]
    return _beyond(float(here), values, reach=10.0, least=1)


def _beyond(here: float, values: Iterable[float | int], *, reach: float, least: int) -> _Beyond | None:
    """The end at which a value stands, and what comes beyond it; None between others, alone, and at 0."""
    path = sorted(set(values))
    if len(path) < 2 or path[0] < here < path[-1] or here <= 0:
        return None
    positive = [value for value in path if value > 0]
    spacing = (positive[-1] / positive[0]) ** (1 / (len(positive) - 1)) if len(positive) > 1 else _SPACING
    num = min(max(round(math.log(reach) / math.log(spacing)), least), _MOST)
    edge, direction = ("lowest", -1) if here == path[0] else ("highest", 1)
    # Twelve digits: 10, and not 10.000000000000002.
    return _Beyond(edge, sorted(float(f"{here * spacing ** (direction * step):.12g}") for step in range(1, num + 1)))


def _example(rule: Rule, beyond: _Beyond) -> str:
    first, last = beyond.values[0], beyond.values[-1]
    if rule.name in KINDS and len(rule.coefficients()) == 1 and len(beyond.values) > 1:
        return f", as with wd.logspace(wd.{rule.name}, {first:.4g}, {last:.4g}, {len(beyond.values)})"
    return f" to {first if beyond.edge == 'lowest' else last:.4g}"


def _with_coefficient(rule: Rule, value: float) -> Rule | None:
    """The same rule with another coefficient; None where it allows no such one."""
    if isinstance(rule, Masked):
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
    """Hyperparameters of the new candidates, each once."""
    kin = [c for c in candidates if shape(c.decay) == shape(chosen.decay)]
    rules = [_with_coefficient(chosen.decay, value) for value in coefficients]
    rows = [{**c.hyperparameters, "decay": rule} for rule in rules for c in kin]
    with_rate = [*rows, *(c.hyperparameters for c in (*kin, *(c for c in candidates if c.is_without_decay)))]
    rows += [{**row, "learning_rate": rate} for rate in rates for row in with_rate]
    there = {_key(c.hyperparameters) for c in candidates}
    new = {_key(row): row for row in rows if isinstance(row.get("learning_rate"), Real) or not rates}
    return [row for key, row in new.items() if key not in there]


def _grid(rows: Sequence[Mapping[str, Any]], chosen: Candidate) -> Grid:
    seeds = list(dict.fromkeys(replicate.seed for replicate in chosen.values))
    folds = [fold for fold in dict.fromkeys(replicate.fold for replicate in chosen.values) if fold is not None]
    replicates = {"seed": seeds} | ({"fold": folds} if folds else {})
    by_axes: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_axes.setdefault(tuple(sorted(row)), []).append(row)
    zipped = [
        Grid.zip(**{name: [row[name] for row in some] for name in some[0]}, **replicates) for some in by_axes.values()
    ]
    return sum(zipped[1:], start=zipped[0])


def _key(hyperparameters: Mapping[str, Any]) -> str:
    return json.dumps(member.encode(hyperparameters), sort_keys=True)
