"""A metric against the coefficient: the regularization path."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.plots import along_coefficient, axis_labels, style, table_lines
from weightdecay.plots.table_lines import Chosen

_MAX_SHOWN = 2.5  # times the best loss; larger losses are cut off, so that the minimum can be read


def path(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    split: str | None = "learning_rate",
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric against the coefficient, one line per rule and learning rate, with bands of one standard error.

    For every other axis of the grid the best candidate is shown, and the legend names these axes. Rules without a
    coefficient are horizontal lines. A coefficient of 0 is at the left of a linear piece of the axis. If there are more
    than eight lines, the eight with the best validation metric are drawn in colour and the others in grey. Where each
    candidate has its own value of another axis, as in a random grid, points are not joined. Losses above 2.5 times the
    best are cut off at the top; a cross at the top marks each candidate that diverged.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      split: Axis of the grid with one line per value. None, or if that gives more than eight lines: the best over it.
      chosen: The chosen candidate, marked by a ring, on the left axis if it has no coefficient; None marks nothing.
      loss: Name of the data loss, for its unit.
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
        ax, lines, table, metric, lambda line: (line.values(table, metric), line.values(table, errors))
    )
    values = np.concatenate([line.values(table, metric) for line in lines.lines] or [np.zeros(0)])
    style.mark_empty(ax, values)
    if metric.endswith("loss"):
        _cut_off(ax, values)
    along_coefficient.cross_diverged(ax, lines.lines, table, metric)
    if chosen is not None and chosen.number in table.index:
        along_coefficient.ring_chosen(ax, lines.lines, table, float(table.loc[chosen.number, metric]), chosen)  # pyright: ignore[reportArgumentType]
    return style.finish(ax, along_coefficient.axis_label(lines.lines), axis_labels.axis_of_metric(metric, loss), notes)


def _cut_off(ax: Any, losses: np.ndarray) -> None:
    """Limit the y axis to losses that are not far above the best."""
    finite = losses[np.isfinite(losses)]
    if len(finite) and finite.max() > _MAX_SHOWN * finite.min() > 0:
        ax.set_ylim(top=_MAX_SHOWN * finite.min(), bottom=0.9 * finite.min())
