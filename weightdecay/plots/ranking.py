"""Methods ranked by their score."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.plots import axis_labels, style


def ranking(table: pd.DataFrame, score: str, *, reference: str = "no regularization", ax: Any = None) -> Any:
    """Plot a score per method, the best at the top, with one standard error of the paired difference to the best.

    Args:
      table: The table, as ``Comparison.table()`` returns it: one row per method, the best first, with the score,
        ``behind_standard_error`` and ``within_noise``.
      score: Column of the score, such as ``"test_accuracy"``.
      reference: Method whose score is marked by a dashed line, if the table has it.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.
    """
    ax = style.axes(ax)
    rows = np.arange(len(table))
    scores, errors = table[score].to_numpy(float), np.nan_to_num(table["behind_standard_error"].to_numpy(float))
    within_noise = table["within_noise"].to_numpy(bool)
    sorts = {
        "within noise of the best": (within_noise, {"color": style.COLOURS[0], "marker": "o"}),
        "worse than the best by more than noise": (
            ~within_noise,
            {"color": style.COLOURS[1], "marker": "s", "markerfacecolor": "white"},
        ),
    }
    for label, (shown, looks) in sorts.items():
        if shown.any():
            ax.errorbar(
                scores[shown], rows[shown], xerr=errors[shown], linestyle="none", capsize=3, label=label, **looks
            )
    ax.axvline(scores[0], color="black", linewidth=1, label="the best")
    if reference in table.index:
        ax.axvline(table.loc[reference, score], color=style.GREY, linestyle="--", linewidth=1, label=reference)
    ax.set_yticks(rows, [str(name) for name in table.index])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.locator_params(axis="x", nbins=5)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    note = "bars: one standard error of the difference to the best, paired by seed and test example"
    style.finish(ax, axis_labels.axis_of_metric(score), "", [note])
    # The names of the methods make the axes narrow; the legend may extend over the space of the names.
    ax.get_legend().set_loc("lower right")
    ax.get_legend().set_bbox_to_anchor((1, 1), transform=ax.transAxes)
    return ax
