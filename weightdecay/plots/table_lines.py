"""Lines and maps through a table of candidates, which the plots draw.

A grid may have any number of axes, and a plot has two. Candidates that differ only in an axis that the plot does not
show are not averaged: the one with the best validation metric is drawn, as it would be chosen.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from weightdecay.core import metrics, text
from weightdecay.plots import axis_labels

MAX_LINES = 12
"""Maximum number of lines that can be distinguished; with more, the best over the learning rates is shown."""
_METRICS = (*metrics.names("weights"), *metrics.names("table"), "seeds", "diverged")


@runtime_checkable
class Chosen(Protocol):
    """What a plot needs to know of the chosen candidate, to mark it.

    Attributes:
      number: Its row in the table.
      decay: Its rule.
    """

    @property
    def number(self) -> int:
        """Its row in the table."""
        ...

    @property
    def decay(self) -> Any:
        """Its rule."""
        ...


@dataclass(frozen=True)
class Line:
    """Candidates of one rule, ordered by their coefficients.

    Attributes:
      label: Label of the line in a legend.
      rule: Name of the rule.
      column: Column of the table that has the coefficients; None for rules without a coefficient, whose line is a
        single point.
      group: Index of the line among the lines of its rule, counted from 0.
      coefficients: Ascending, shape ``(points,)``; nan for rules without a coefficient.
      candidates: Number of the candidate at each point.
      varying: Axes of the grid, other than that of the coefficient, in which candidates of the line differ.
      joined: Whether each point is joined to the next one: their candidates differ in the coefficient alone. One less
        than there are points.
    """

    label: str
    rule: str
    column: str | None
    group: int
    coefficients: np.ndarray
    candidates: tuple[int, ...]
    varying: tuple[str, ...] = ()
    joined: tuple[bool, ...] = ()

    def runs(self) -> list[slice]:
        """Return the slices of points that are joined to each other, each of at least two points."""
        ends = [-1, *(index for index, joined in enumerate(self.joined) if not joined), len(self.joined)]
        runs = [slice(before + 1, after + 1) for before, after in itertools.pairwise(ends)]
        return [run for run in runs if run.stop - run.start > 1]

    def values(self, table: pd.DataFrame, metric: str) -> np.ndarray:
        """Return a metric along the line.

        Args:
          table: The table that the line goes through.
          metric: A column of the table; nan if it has no such column.

        Returns:
          Shape ``(points,)``.
        """
        if metric not in table:
            return np.full(len(self.candidates), np.nan)
        return table.loc[list(self.candidates), metric].to_numpy(float)


class Lines(NamedTuple):
    """Lines through a table, and the axes of the grid over which each point is the best."""

    lines: list[Line]
    best_over: tuple[str, ...]


def hyperparameters(table: pd.DataFrame) -> list[str]:
    """Return the names of the columns that have hyperparameters: those before the first metric.

    Args:
      table: The table, as ``result.table()`` returns it.

    Returns:
      The names, in order.
    """
    names = [str(name) for name in table.columns]
    is_metric = [name in _METRICS or name.startswith(("validation_", "train_")) for name in names]
    return names[: is_metric.index(True)] if True in is_metric else names


def through(table: pd.DataFrame, metric: str, *, split: str | None = "learning_rate") -> Lines:
    """Make lines through the candidates of each rule.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: The metric that is drawn. "The best" is by this metric if it is a validation metric, otherwise by the
        validation loss.
      split: Axis of the grid with one line per value. None, or if that gives more than `MAX_LINES`: the best over it.

    Returns:
      The lines; those of rules without a coefficient come last.
    """
    axes, rows = hyperparameters(table), _rows(table)
    deciding, sign = _deciding_metric(metric, table)
    values = list(dict.fromkeys(_value(row, split) for row in rows)) if split in axes else []
    split_rows = [(row["decay"], _value(row, split)) for row in rows if values and row["decay"] != "NoDecay"]
    if len(set(split_rows)) > MAX_LINES or (len(values) > 1 and len(set(split_rows)) == len(split_rows) > 1):
        values = []  # too many lines, or lines of one point each, as in a random grid
    lines, best_over = [], set()
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
            best_over |= _differing_axes(points.values(), axes, fixed)
            drawn = [_best(alike, deciding, sign) for alike in points.values()]
            differing = _differing_axes([drawn], axes, fixed)
            joined = tuple(not _differing_axes([pair], axes, fixed) for pair in itertools.pairwise(drawn))
            label = "no decay" if rule == "NoDecay" else str(rule)
            if column not in (None, "coefficient"):
                label = f"{rule} by {axis_labels.name_of(str(column))}"
            if len(values) > 1:
                label += f", {str(split).replace('_', ' ')} {text.short(value)}"
            candidates = tuple(row["candidate"] for row in drawn)
            coefficients = np.array([np.nan if column is None else x for x in points])
            varying = tuple(name for name in axes if name in differing)
            lines.append(Line(label, str(rule), column, group, coefficients, candidates, varying, joined))
    lines.sort(key=lambda line: line.column is None)
    return Lines(lines, tuple(name for name in axes if name in best_over))


def rows_where(table: pd.DataFrame, mask: Any) -> pd.DataFrame:
    """Return some rows of a table.

    Args:
      table: The table.
      mask: Whether each row is kept, shape ``(rows,)``.

    Returns:
      The rows, with their labels and the attributes of the table.
    """
    return table.iloc[np.flatnonzero(np.asarray(mask, bool))]


def differing(table: pd.DataFrame, groups: Iterable[Sequence[Any]], fixed: set[str]) -> list[str]:
    """Return the hyperparameters in which rows of one group differ.

    Args:
      table: The table, as ``result.table()`` returns it.
      groups: Labels of the rows of each group.
      fixed: Names that are left out.

    Returns:
      Names of columns, in order.
    """
    names = hyperparameters(table)
    rows = {label: row for label, row in zip(table.index, table.to_dict("records"), strict=True)}
    found = _differing_axes(([rows[label] for label in group] for group in groups), names, fixed)
    return [name for name in names if name in found]


def best_of(table: pd.DataFrame, labels: Sequence[Any], metric: str) -> Any:
    """Return the label of the best of some rows, as `through` chooses it.

    Args:
      table: The table, as ``result.table()`` returns it.
      labels: Labels of the rows.
      metric: As in `through`.

    Returns:
      One of the labels.
    """
    rows = _rows(table.loc[list(labels)])
    return _best(rows, *_deciding_metric(metric, table))["candidate"]


def leading(lines: Sequence[Line], table: pd.DataFrame, metric: str) -> list[Line]:
    """Select the lines that are drawn in colour: those with the best validation metric.

    Args:
      lines: Lines with coefficients.
      table: The table that they go through.
      metric: As in `through`.

    Returns:
      At most `MAX_LINES` of the lines, in their order.
    """
    deciding, sign = _deciding_metric(metric, table)
    best = {line.label: np.nanmin([np.inf, *(sign * line.values(table, deciding))]) for line in lines}
    kept = sorted(best, key=best.__getitem__)[:MAX_LINES]
    return [line for line in lines if line.label in kept]


def folds(dataset: Any, members: Any) -> list[Any] | None:
    """Return the fold of each of some members, which their standard error depends on.

    Args:
      dataset: The dataset, as ``result.dataset``.
      members: Numbers of the members.

    Returns:
      One fold per member; None if there are no folds.
    """
    return [dataset["fold"].values[member] for member in members] if "fold" in dataset.coords else None


@dataclass(frozen=True)
class RateMap:
    """Candidates of one rule by coefficient and learning rate.

    Attributes:
      column: Column of the table that has the coefficients; None for a rule without a coefficient.
      coefficients: The coefficients above 0, ascending, shape ``(columns,)``.
      rates: The learning rates, ascending, shape ``(rows,)``; of a schedule, its value at step 0.
      names: Labels of the learning rates; of a schedule, its text.
      candidates: Number of the candidate by (row, column).
      best_over: Axes of the grid over which each candidate is the best.
      has_schedules: Whether any learning rate is a schedule.
    """

    column: str | None
    coefficients: np.ndarray
    rates: np.ndarray
    names: tuple[str, ...]
    candidates: dict[tuple[int, int], int]
    best_over: tuple[str, ...]
    has_schedules: bool

    def values(self, table: pd.DataFrame, metric: str) -> np.ma.MaskedArray:
        """Return a metric on the map.

        Args:
          table: The table that the map was made of.
          metric: A column of the table.

        Returns:
          Shape ``(rows, columns)``, masked where there is no candidate.
        """
        values = np.ma.masked_all((len(self.rates), len(self.coefficients)))
        for cell, number in self.candidates.items():
            values[cell] = float(table.loc[number, metric])  # pyright: ignore[reportArgumentType]
        return values


def over_learning_rates(table: pd.DataFrame, metric: str, decay: str) -> RateMap:
    """Arrange the candidates of a rule by coefficient and learning rate.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: As in `through`.
      decay: Name of the rule.

    Returns:
      The map.
    """
    axes = hyperparameters(table)
    rows = [row for row in _rows(table) if row["decay"] == decay]
    column = coefficient_column(rows, axes)
    cells: dict[tuple[tuple[float, str], float], list[dict[Any, Any]]] = {}
    for row in rows:
        if column is not None and row[column] > 0:
            rate = (float(row["learning_rate"]), text.short(_value(row, "learning_rate")))
            cells.setdefault((rate, float(row[column])), []).append(row)
    rates, coefficients = sorted({rate for rate, _ in cells}), sorted({x for _, x in cells})
    best_over = _differing_axes(cells.values(), axes, {"decay", column, "learning_rate", "learning_rate_schedule"})
    return RateMap(
        column,
        np.array(coefficients),
        np.array([rate for rate, _ in rates]),
        tuple(name for _, name in rates),
        {
            (rates.index(rate), coefficients.index(x)): _best(alike, *_deciding_metric(metric, table))["candidate"]
            for (rate, x), alike in cells.items()
        },
        tuple(name for name in axes if name in best_over),
        any(row.get("learning_rate_schedule") for row in rows),
    )


def coefficient_column(rows: Sequence[Mapping[Any, Any]], axes: Sequence[str]) -> str | None:
    """Find the column along which the coefficient of a rule varies.

    Args:
      rows: The rule's rows of the table.
      axes: Names of the columns that have hyperparameters.

    Returns:
      ``"coefficient"`` if the rule has one of that name; of several others, the one with the most values; None if the
      rule has no coefficient.
    """
    counts = {}
    for name in axes:
        if axis_labels.is_coefficient(name):
            finite = {row[name] for row in rows if np.isfinite(row[name])}
            if finite:
                counts[name] = len(finite)
    return "coefficient" if "coefficient" in counts else max(counts, key=counts.__getitem__, default=None)


def _rows(table: pd.DataFrame) -> list[dict[Any, Any]]:
    rows = table.to_dict("records")
    return [{**row, "candidate": int(number)} for row, number in zip(rows, table.index, strict=True)]


def _best(rows: Sequence[dict[Any, Any]], deciding: str, sign: int) -> dict[Any, Any]:
    """Return the row with the best finite deciding metric; the first row if there is no finite one."""
    finite = [row for row in rows if deciding in row and np.isfinite(row[deciding])]
    if not finite:
        return rows[0]
    return min(finite, key=lambda row: sign * row[deciding])


def _deciding_metric(metric: str, table: pd.DataFrame) -> tuple[str, int]:
    """Return the validation metric that decides which row is the best when ``metric`` is drawn, and its sign.

    The sign is 1 if lower is better and -1 if higher is. A metric whose direction is unknown does not decide.
    """
    stated = table.attrs.get("lower_is_better")
    if metric.startswith("validation_"):
        try:
            return metric, 1 if metrics.lower_is_better(metric, stated) else -1
        except ValueError:
            pass
    return "validation_loss", 1


def _differing_axes(groups: Iterable[Sequence[Mapping[Any, Any]]], axes: Sequence[str], fixed: set[Any]) -> set[str]:
    """Return the axes in which rows of the same group differ, except the ``fixed`` ones."""
    differing = set()
    for rows in groups:
        differing |= {name for name in axes if name not in fixed and len({str(row.get(name)) for row in rows}) > 1}
    return differing


def _value(row: Mapping[Any, Any], name: str | None) -> Any:
    """Return a hyperparameter; of a schedule, its text."""
    return row.get(f"{name}_schedule") or row[name]
