"""A metric against the coefficient: the regularization path."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core import metrics
from weightdecay.plots import along_coefficient, axis_labels, style, table_lines
from weightdecay.plots.table_lines import Chosen, Line


def path(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    split: str | None = "learning_rate",
    chosen: Chosen | None = None,
    loss: str | None = None,
    colours: Mapping[str, int] | None = None,
    limits: tuple[float, float] | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric against the coefficient, one line per rule and learning rate, with bands of one standard error.

    For every other axis of the grid the best candidate is shown, and the legend names these axes. Rules without a
    coefficient are horizontal lines. A coefficient of 0 is at the left of a linear piece of the axis. If there are more
    than twelve lines, the twelve with the best validation metric are drawn in colour and the others in grey. Points are
    joined where their candidates differ in the coefficient alone, and not in another axis, as in a random grid or the
    best over an axis. A validation metric is shown from its best value to three times the spread of its better third,
    and no decay in addition; a triangle at the edge marks each worse candidate, and a cross at the top each that
    diverged.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      split: Axis of the grid with one line per value. None, or if that gives more than eight lines: the best over it.
      chosen: The chosen candidate, marked by a ring, on the left axis if it has no coefficient; None marks nothing.
      loss: Name of the data loss, for its unit.
      colours: Number of the colour of each rule, where several axes share them; None = by the order of the rules.
      limits: Limits of the y axis, where several axes share them; None = `good_limits` of the lines.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: No such column, or no such axis of the grid.
    """
    along_coefficient.check_metric(table, metric)
    along_coefficient.check_split(table, split)
    ax = style.axes(ax)
    lines = table_lines.through(table, metric, split=split)
    errors = f"{metric}_standard_error"
    notes = along_coefficient.draw(
        ax, lines, table, metric, lambda line: (line.values(table, metric), line.values(table, errors)), colours=colours
    )
    values = np.concatenate([line.values(table, metric) for line in lines.lines] or [np.zeros(0)])
    style.mark_empty(ax, values)
    limits = good_limits(lines.lines, table, metric) if limits is None else limits
    if limits is not None:
        _show_within(ax, lines.lines, table, metric, limits)
    along_coefficient.cross_diverged(ax, lines.lines, table, metric)
    if chosen is not None and chosen.number in table.index:
        along_coefficient.ring_chosen(ax, lines.lines, table, float(table.loc[chosen.number, metric]), chosen)  # pyright: ignore[reportArgumentType]
    return style.finish(ax, along_coefficient.axis_label(lines.lines), axis_labels.axis_of_metric(metric, loss), notes)


def good_limits(lines: Sequence[Line], table: pd.DataFrame, metric: str) -> tuple[float, float] | None:
    """Limits of the y axis in which the good values of a validation metric can be distinguished.

    Args:
      lines: The lines that are drawn.
      table: The table, as ``result.table()`` returns it.
      metric: Column of the table.

    Returns:
      The limits, with one standard error of the best value inside; None where all values are shown, and of a metric
      that is not a validation metric of a known direction.
    """
    try:
        lower = metrics.lower_is_better(metric, table.attrs.get("lower_is_better"))
    except ValueError:
        return None
    values = np.concatenate([line.values(table, metric) for line in lines] or [np.zeros(0)])
    no_decay = [line.values(table, metric)[0] for line in lines if line.column is None]
    low, high = style.limits_of_good(values, lower_is_better=lower, shown=no_decay)
    if not metric.startswith("validation_") or not low < high:
        return None
    margin = 0.08 * (high - low)
    low, high = low - margin, high + margin
    errors = np.concatenate([line.values(table, f"{metric}_standard_error") for line in lines])
    best = int(np.nanargmin(values if lower else -values))
    if np.isfinite(errors[best]):
        low, high = min(low, values[best] - 1.1 * errors[best]), max(high, values[best] + 1.1 * errors[best])
    finite = values[np.isfinite(values)]
    return None if finite.min() >= low and finite.max() <= high else (low, high)


def _show_within(ax: Any, lines: Sequence[Line], table: pd.DataFrame, metric: str, limits: tuple[float, float]) -> None:
    """Limit the y axis, and mark the candidates that are outside."""
    low, high = limits
    ax.set_ylim(low, high)
    outside = [
        (coefficient, value > high)
        for line in lines
        if line.column is not None
        for coefficient, value in zip(line.coefficients, line.values(table, metric), strict=True)
        if value > high or value < low
    ]
    if outside:
        looks = {"transform": ax.get_xaxis_transform(), "linestyle": "none", "color": "0.25", "markersize": 5}
        edge, marker = (0.95, "^") if outside[0][1] else (0.05, "v")
        worse = [coefficient for coefficient, _ in outside]
        ax.plot(worse, np.full(len(worse), edge), marker=marker, label="worse than shown", **looks)
