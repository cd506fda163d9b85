"""The generalization gap against the coefficient."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.statistics import mean_and_error
from weightdecay.plots import along_coefficient, axis_labels, style, table_lines
from weightdecay.plots.table_lines import Chosen, Line


def gap(
    table: pd.DataFrame,
    dataset: Any,
    *,
    split: str | None = "learning_rate",
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot the generalization gap at the last step against the coefficient, with error bars of one standard error.

    The gap is the training accuracy minus the validation accuracy; for a loss without an accuracy, the validation loss
    minus the training loss.

    Args:
      table: The table, as ``result.table()`` returns it.
      dataset: The dataset, as ``result.dataset``; the gap of each member is computed from it.
      split: As in `weightdecay.plots.path.path`.
      chosen: As in `weightdecay.plots.path.path`.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: No such axis of the grid.
    """
    along_coefficient.check_split(table, split)
    ax = style.axes(ax)
    last = dataset.isel(step=-1)
    has_accuracy = bool(np.isfinite(dataset["validation_accuracy"].values).any())
    names = ("train_accuracy", "validation_accuracy") if has_accuracy else ("validation_loss", "train_loss")
    gaps = last[names[0]].values - last[names[1]].values
    estimates = {}
    for number in table.index:
        members = np.flatnonzero(dataset["candidate"].values == number)
        estimates[number] = mean_and_error(gaps[members], table_lines.folds(dataset, members))

    def values_of(line: Line) -> tuple[np.ndarray, np.ndarray]:
        means, errors = zip(*(estimates[number] for number in line.candidates), strict=True)
        return np.array(means), np.array(errors)

    lines = table_lines.through(table, "generalization_gap", split=split)
    notes = along_coefficient.draw(ax, lines, table, "generalization_gap", values_of, bars=True)
    style.mark_empty(ax, [mean for mean, _ in estimates.values()])
    along_coefficient.cross_diverged(ax, lines.lines, table, "generalization_gap")
    if chosen is not None and chosen.number in estimates:
        along_coefficient.ring_chosen(ax, lines.lines, table, estimates[chosen.number][0], chosen)
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    difference, unit = ("training minus validation accuracy", "fraction of examples")
    if not has_accuracy:
        difference, unit = "validation minus training loss", axis_labels.of_loss(loss)
    label = f"generalization gap ({difference}), {unit}"
    return style.finish(ax, along_coefficient.axis_label(lines.lines), label, notes)
