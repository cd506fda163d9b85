"""Methods beside each other, each with its score and the error of that."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.plots import axis_labels, style


def ranking(table: pd.DataFrame, score: str, *, reference: str = "no regularization", ax: Any = None) -> Any:
    """Plot a score a method, the best above, with one standard error of its paired difference to the best.

    Args:
      table: As ``Comparison.table()`` makes it: a row a method, the best first, with the score,
        ``behind_standard_error`` and ``within_noise``.
      score: Column of the score, such as ``"test_accuracy"``.
      reference: Method at whose score a line stands, if it is among them.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.
    """
    ax = style.axes(ax)
    places = np.arange(len(table))
    means, errors = table[score].to_numpy(float), np.nan_to_num(table["behind_standard_error"].to_numpy(float))
    noise = table["within_noise"].to_numpy(bool)
    looks = {
        "not to be told from the best": (noise, {"color": style.COLOURS[0], "marker": "o"}),
        "behind by more than noise": (~noise, {"color": style.COLOURS[1], "marker": "s", "markerfacecolor": "white"}),
    }
    for label, (shown, look) in looks.items():
        if shown.any():
            ax.errorbar(
                means[shown], places[shown], xerr=errors[shown], linestyle="none", capsize=3, label=label, **look
            )
    ax.axvline(means[0], color="black", linewidth=1, label="the best")
    if reference in table.index:
        ax.axvline(table.loc[reference, score], color=style.GREY, linestyle="--", linewidth=1, label=reference)
    ax.set_yticks(places, [str(name) for name in table.index])
    ax.set_ylim(len(table) - 0.5, -0.5)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    note = "bars: one standard error of the difference to the best, paired by seed and test example"
    style.finish(ax, axis_labels.axis_of_metric(score), "", [note])
    # The names at the left leave the axes narrow, and the room above them is free.
    ax.get_legend().set_loc("lower right")
    ax.get_legend().set_bbox_to_anchor((1, 1), transform=ax.transAxes)
    return ax
