"""How much each hyperparameter matters, with its uncertainty."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.plots import axis_labels, style


def importance(table: pd.DataFrame, metric: str, *, ax: Any = None) -> Any:
    """Plot the importance of each hyperparameter, the largest at the top, with bars of one standard error.

    Args:
      table: As `weightdecay.results.importance.importance` returns it.
      metric: The metric that it explains.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.
    """
    ax = style.axes(ax)
    rows = np.arange(len(table))
    looks = {"linestyle": "none", "marker": "o", "color": style.COLOURS[0], "capsize": 3}
    ax.errorbar(table["importance"], rows, xerr=np.nan_to_num(table["standard_error"]), **looks)
    ax.axvline(0, color="black", linewidth=1)
    names = ["rule" if name == "decay" else axis_labels.name_of(str(name)) for name in table.index]
    ax.set_yticks(rows, [style.wrapped(name, 24.0) for name in names])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    explained, error = table.attrs["explained"], table.attrs["explained_standard_error"]
    note = f"of candidates that the forest has not seen, it explains {explained:.2f} ± {error:.2f} of the variance"
    if explained < 0.3:
        note += ": too little to trust these numbers"
    name = metric.replace("_", " ")
    style.finish(ax, f"importance, fraction of the variance of the {name}", "", [note, "bars: one standard error"])
    legend = ax.get_legend()
    # The names make the axes narrow; the legend may extend over the space of the names.
    legend.set_loc("lower right")
    legend.set_bbox_to_anchor((1, 1), transform=ax.transAxes)
    return ax
