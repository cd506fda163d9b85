"""Lines through a table of candidates: one rule, one learning rate, the best over every other axis of its grid.

A grid may have any axes, and a plot has two. What is on neither is not averaged over: of the candidates that differ in
it, the one with the best validation metric stands for all, as it would be chosen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from weightdecay.core.metrics import lower_is_better
from weightdecay.plots import axis_labels

MOST_LINES = 8  # more cannot be told apart; then the best over the learning rates is shown
_METRICS = ("penalty", "weight_norm", "zero_fraction", "generalization_gap", "seeds", "diverged")


@dataclass(frozen=True)
class Line:
    """Candidates of one rule, in the order of their coefficients.

    Attributes:
      label: Of the line in a legend.
      rule: Name of the rule.
      column: Of the table, where the coefficients stand; None for rules without any, whose line is a single point.
      group: Which of the values is its own that split the lines of a rule, from 0.
      coefficients: Ascending, shape ``(points,)``; nan where there is none.
      candidates: Number of the candidate at each point.
      own: Axes that differ from point to point where each point is one candidate alone, as in a random grid; the points
        are no curve then.
    """

    label: str
    rule: str
    column: str | None
    group: int
    coefficients: np.ndarray
    candidates: tuple[int, ...]
    own: tuple[str, ...] = ()

    def values(self, table: pd.DataFrame, metric: str) -> np.ndarray:
        """Return a metric along the line.

        Args:
          table: The one that the line was drawn through.
          metric: A column of it; nan where it has no such column.

        Returns:
          Shape ``(points,)``.
        """
        if metric not in table:
            return np.full(len(self.candidates), np.nan)
        return table.loc[list(self.candidates), metric].to_numpy(float)


class Lines(NamedTuple):
    """Lines through a table, and the axes over which each point is the best."""

    lines: list[Line]
    best_over: tuple[str, ...]


def hyperparameters(table: pd.DataFrame) -> list[str]:
    """Names of the columns that hold hyperparameters: those before the first metric.

    Args:
      table: As ``result.table()`` makes it.

    Returns:
      The names, in order.
    """
    names = [str(name) for name in table.columns]
    told = [name in _METRICS or name.startswith(("validation_", "train_")) for name in names]
    return names[: told.index(True)] if True in told else names


def through(table: pd.DataFrame, metric: str, *, split: str | None = "learning_rate") -> Lines:
    """Lines through the candidates of each rule.

    Args:
      table: As ``result.table()`` makes it.
      metric: What will be drawn. Where it is a validation metric the best is meant by it, else by the validation loss.
      split: Axis with a line a value; None, or where that makes more than `MOST_LINES`: the best over it.

    Returns:
      The lines, those of rules without a coefficient last.
    """
    axes, rows = hyperparameters(table), _rows(table)
    values = list(dict.fromkeys(_value(row, split) for row in rows)) if split in axes else []
    if len({(row["decay"], _value(row, split)) for row in rows if values and row["decay"] != "NoDecay"}) > MOST_LINES:
        values = []
    lines, varying = [], set()
    for rule in dict.fromkeys(row["decay"] for row in rows):
        column = coefficient_column([row for row in rows if row["decay"] == rule], axes)
        for group, value in enumerate(values or [""]):
            points: dict[float, list[dict[Any, Any]]] = {}
            for row in rows:
                if row["decay"] == rule and (not values or _value(row, split) == value):
                    points.setdefault(0.0 if column is None else float(row[column]), []).append(row)
            points = {x: points[x] for x in sorted(points) if np.isfinite(x)}
            if not points:
                continue
            fixed = {"decay", column, *([split, f"{split}_schedule"] if values else [])}
            varying |= _varying(points.values(), axes, fixed)
            alone = [alike[0] for alike in points.values()] if max(map(len, points.values())) == 1 else []
            differing = _varying([alone], axes, fixed)
            label = "no decay" if rule == "NoDecay" else f"{rule} by {column}" if _unusual(column) else str(rule)
            if len(values) > 1:
                label += f", {str(split).replace('_', ' ')} {_said(value)}"
            chosen = tuple(_best(alike, metric)["candidate"] for alike in points.values())
            where = np.array([np.nan if column is None else x for x in points])
            own = tuple(name for name in axes if name in differing)
            lines.append(Line(label, str(rule), column, group, where, chosen, own))
    lines.sort(key=lambda line: line.column is None)
    return Lines(lines, tuple(name for name in axes if name in varying))


def leading(found: Sequence[Line], table: pd.DataFrame, metric: str) -> list[Line]:
    """Lines that are told apart where there are more than `MOST_LINES`: those with the best validation metric.

    Args:
      found: Lines with coefficients.
      table: The one that they were drawn through.
      metric: As in `through`.

    Returns:
      At most `MOST_LINES` of them, in their order.
    """
    by = _judge(metric)
    sign = 1 if lower_is_better(by) else -1
    best = {line.label: np.nanmin([np.inf, *(sign * line.values(table, by))]) for line in found}
    kept = sorted(best, key=best.__getitem__)[:MOST_LINES]
    return [line for line in found if line.label in kept]


def folds(dataset: Any, members: Any) -> list[Any] | None:
    """Fold of each of some members, as their standard error needs it.

    Args:
      dataset: As ``result.dataset``.
      members: Their numbers.

    Returns:
      One a member; None where there are no folds.
    """
    return [dataset["fold"].values[member] for member in members] if "fold" in dataset.coords else None


@dataclass(frozen=True)
class Map:
    """Candidates of one rule by coefficient and learning rate.

    Attributes:
      column: Of the table, where the coefficients stand; None for a rule without any.
      coefficients: Those above 0, ascending, shape ``(columns,)``.
      rates: Learning rates, ascending, shape ``(rows,)``; of schedules, the value at step 0.
      names: How they are said; a schedule by its own words.
      candidates: Number of the candidate by row and column.
      best_over: Axes over which each is the best.
    """

    column: str | None
    coefficients: np.ndarray
    rates: np.ndarray
    names: tuple[str, ...]
    candidates: dict[tuple[int, int], int]
    best_over: tuple[str, ...]

    def values(self, table: pd.DataFrame, metric: str) -> np.ma.MaskedArray:
        """Return a metric on the map.

        Args:
          table: The one that the map was made of.
          metric: A column of it.

        Returns:
          Shape ``(rows, columns)``, masked where there is no candidate.
        """
        values = np.ma.masked_all((len(self.rates), len(self.coefficients)))
        for place, number in self.candidates.items():
            values[place] = float(table.loc[number, metric])  # pyright: ignore[reportArgumentType]
        return values


def over_learning_rates(table: pd.DataFrame, metric: str, decay: str) -> Map:
    """Candidates of a rule by coefficient and learning rate.

    Args:
      table: As ``result.table()`` makes it.
      metric: As in `through`.
      decay: The rule's name.

    Returns:
      The map.
    """
    axes = hyperparameters(table)
    rows = [row for row in _rows(table) if row["decay"] == decay]
    column = coefficient_column(rows, axes)
    cells: dict[tuple[tuple[float, str], float], list[dict[Any, Any]]] = {}
    for row in rows:
        if column is not None and row[column] > 0:
            rate = (float(row["learning_rate"]), _said(_value(row, "learning_rate")))
            cells.setdefault((rate, float(row[column])), []).append(row)
    rates, coefficients = sorted({rate for rate, _ in cells}), sorted({x for _, x in cells})
    varying = _varying(cells.values(), axes, {"decay", column, "learning_rate", "learning_rate_schedule"})
    return Map(
        column,
        np.array(coefficients),
        np.array([rate for rate, _ in rates]),
        tuple(name for _, name in rates),
        {
            (rates.index(rate), coefficients.index(x)): _best(alike, metric)["candidate"]
            for (rate, x), alike in cells.items()
        },
        tuple(name for name in axes if name in varying),
    )


def coefficient_column(rows: Sequence[Mapping[Any, Any]], axes: Sequence[str]) -> str | None:
    """Column along which the coefficient of a rule varies.

    Args:
      rows: The rule's rows of the table.
      axes: Names of the columns that hold hyperparameters.

    Returns:
      ``"coefficient"`` where the rule has one of that name; of several others the one with most values; None where the
      rule has none.
    """
    counts = {}
    for name in axes:
        if axis_labels.is_coefficient(name):
            finite = {row[name] for row in rows if np.isfinite(row[name])}
            if finite:
                counts[name] = len(finite)
    return "coefficient" if "coefficient" in counts else max(counts, key=counts.__getitem__, default=None)


def _unusual(column: str | None) -> bool:
    return column not in (None, "coefficient")


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    rows = table.to_dict("records")
    return [{**row, "candidate": int(number)} for row, number in zip(rows, table.index, strict=True)]


def _best(rows: Sequence[dict[Any, Any]], metric: str) -> dict[Any, Any]:
    """The row with the best finite validation metric; the first where none has one."""
    by = _judge(metric)
    finite = [row for row in rows if by in row and np.isfinite(row[by])]
    if not finite:
        return rows[0]
    return (min if lower_is_better(by) else max)(finite, key=lambda row: row[by])


def _judge(metric: str) -> str:
    """The validation metric that says which candidate is the best where another metric is drawn."""
    return metric if metric.startswith("validation_") else "validation_loss"


def _varying(groups: Iterable[Sequence[Mapping[Any, Any]]], axes: Sequence[str], fixed: set[Any]) -> set[str]:
    """Axes in which candidates differ that share a point."""
    varying = set()
    for alike in groups:
        varying |= {name for name in axes if name not in fixed and len({str(row.get(name)) for row in alike}) > 1}
    return varying


def _value(row: Mapping[Any, Any], name: str | None) -> Any:
    """A hyperparameter; a schedule by its own words."""
    return row.get(f"{name}_schedule") or row[name]


def _said(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)
