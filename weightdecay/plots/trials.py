"""Every trial of several methods, one row per method."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core.metrics import direction
from weightdecay.plots import axis_labels, style


def trials(
    values: Mapping[str, Sequence[float]],
    chosen: Mapping[str, float],
    metric: str,
    *,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric of every trial, one row per method, the first at the top.

    Args:
      values: The metric of the trials by method; one that is not finite is a cross at the worse end of the axis.
      chosen: The metric of the chosen trial by method, which is marked.
      metric: Name of the metric.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.
    """
    ax = style.axes(ax)
    shown = {name: np.asarray(one, float) for name, one in values.items()}
    everything = np.concatenate([*shown.values(), np.zeros(0)])
    lower = direction(metric) == "lower"
    low, high = style.limits_of_good(everything, lower_is_better=lower)
    low, high = low - 0.06 * (high - low), high + 0.06 * (high - low)
    outside = lost = False
    for row, (name, one) in enumerate(shown.items()):
        inside = np.isfinite(one) & (one >= low) & (one <= high)
        ax.plot(one[inside], np.full(inside.sum(), row), "o", markersize=4, color=style.COLOURS[0], alpha=0.5)
        beyond = np.isfinite(one) & ~inside
        edge, marker = (0.985, ">") if lower else (0.015, "<")
        looks = {"transform": ax.get_yaxis_transform(), "linestyle": "none", "color": "black", "markersize": 5}
        if beyond.any():
            ax.plot([edge], [row], marker=marker, label="" if outside else "worse than shown", **looks)
            outside = True
        if not np.isfinite(one).all():
            shift = -0.03 if lower else 0.03
            ax.plot([edge + shift], [row], marker="x", label="" if lost else "diverged, or not finite", **looks)
            lost = True
        if name in chosen:
            ax.plot([chosen[name]], [row], "D", markersize=6, color=style.COLOURS[1], label="" if row else "chosen")
    if np.isfinite([low, high]).all() and low < high:
        ax.set_xlim(low, high)
    ax.set_yticks(range(len(shown)), [style.wrapped(name, 30.0) for name in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.grid(axis="y", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
    style.mark_empty(ax, everything)
    style.finish(ax, axis_labels.axis_of_metric(metric, loss), "")
    return ax
