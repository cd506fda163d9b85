"""The fraction of weights that are exactly 0 against the coefficient."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.plots import along_coefficient, axis_labels, style, table_lines
from weightdecay.plots.table_lines import Line


def sparsity(table: pd.DataFrame, *, split: str | None = "learning_rate", ax: Any = None) -> Any:
    """Plot the fraction of exact zeros against the coefficient; all rules without zeros share one line.

    Args:
      table: The table, as ``result.table()`` returns it.
      split: As in `weightdecay.plots.path.path`.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: No such axis of the grid.
    """
    along_coefficient.check_split(table, split)
    ax = style.axes(ax)
    lines = table_lines.through(table, "zero_fraction", split=split)
    dense = [line for line in lines.lines if not np.nan_to_num(line.values(table, "zero_fraction")).any()]

    def values_of(line: Line) -> tuple[np.ndarray, np.ndarray]:
        return line.values(table, "zero_fraction"), np.full(len(line.candidates), np.nan)

    notes = along_coefficient.draw(ax, lines, table, "zero_fraction", values_of, without=dense)
    if dense:
        entirely_dense = {line.rule for line in lines.lines} - {line.rule for line in lines.lines if line not in dense}
        names = list(dict.fromkeys(_dense_name(line, entirely_dense) for line in dense))
        shown = names[:4] + ([f"{len(names) - 4} others"] if len(names) > 4 else [])
        ax.axhline(0, color=style.GREY, linestyle="--", linewidth=1, label="none: " + ", ".join(shown))
    ax.set_ylim(-0.03, 1.03)
    return style.finish(
        ax, along_coefficient.axis_label(lines.lines), axis_labels.axis_of_metric("zero_fraction"), notes
    )


def _dense_name(line: Line, entirely_dense: set[str]) -> str:
    """Name of a line without zeros; of a rule that has none in any line, the rule."""
    if line.rule not in entirely_dense:
        return line.label
    return "no decay" if line.rule == "NoDecay" else line.rule
