"""Parallel coordinates: each candidate is a line through all its hyperparameters and its metric."""

import textwrap
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core import metrics
from weightdecay.plots import along_coefficient, axis_labels, style, value_axis
from weightdecay.plots.table_lines import Chosen

_BELOW = -0.09  # where a candidate without a value crosses an axis


def parallel(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot each candidate as a line that crosses one vertical axis per hyperparameter, and that of the metric at last.

    Colour is the metric: bright is good, and good candidates are above the others. A candidate without a value, such as
    no decay on the axis of the coefficient, crosses below the axis. Candidates that diverged are dotted grey and end
    before the metric.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      chosen: The chosen candidate, drawn in black; None marks nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes. The horizontal axis counts the vertical ones, and each of these extends from 0 to 1.

    Raises:
      ArgumentError: No such column.
    """
    from matplotlib import cm
    from matplotlib.colors import Normalize

    along_coefficient.check_metric(table, metric)
    names = value_axis.varying(table) or ["decay"]
    ax = style.axes(ax)
    axes = [value_axis.of(table, name) for name in names]
    values = table[metric].to_numpy(float)
    try:
        lower = metrics.lower_is_better(metric, table.attrs.get("lower_is_better"))
    except ValueError:
        lower = True
    low, high = style.limits_of_good(values, lower_is_better=lower)
    if not low < high:
        low, high = (low - 0.5, high + 0.5) if np.isfinite(low) else (0.0, 1.0)
    shown = np.clip(values, low, high)
    heights = np.column_stack([*(axis.fraction() for axis in axes), (shown - low) / (high - low)])
    has_gap = bool(np.isnan(heights[:, :-1]).any())
    heights[:, :-1] = np.where(np.isnan(heights[:, :-1]), _BELOW, heights[:, :-1])
    colours = cm.ScalarMappable(Normalize(low, high), "viridis_r" if lower else "viridis")
    worst_first = np.argsort(np.where(np.isfinite(values), -values if lower else values, -np.inf), kind="stable")
    xs, is_first = np.arange(heights.shape[1]), True
    for row in worst_first:
        if not np.isfinite(values[row]):
            label = "diverged, or not finite" if is_first else ""
            ax.plot(xs[:-1], heights[row, :-1], ":", color="0.6", linewidth=0.8, zorder=1, label=label)
            is_first = False
            continue
        ax.plot(xs, heights[row], color=colours.to_rgba(shown[row]), linewidth=1.1, zorder=2)
    if chosen is not None and chosen.number in table.index:
        row = table.index.get_loc(chosen.number)
        label = f"chosen: {chosen.decay}"
        ax.plot(xs, heights[row], color="black", linewidth=2.2, zorder=4, marker="o", markersize=4, label=label)
    for x, axis in zip(xs, axes, strict=False):
        _write_axis(ax, float(x), *_ticks(axis))
    count = 5
    _write_axis(ax, float(xs[-1]), [index / (count - 1) for index in range(count)], _numbers(low, high, count))
    titles = [*(axis_labels.name_of(name) if name != "decay" else "rule" for name in names), metric.replace("_", " ")]
    width = max(6, int(12 * style.size(ax)[0] / len(titles)))
    ax.set_xticks(xs, [textwrap.fill(title, width) for title in titles], fontsize="small")
    ax.set_yticks([])
    ax.set_xlim(-0.25, len(axes) + 0.45)
    ax.set_ylim(_BELOW - 0.05, 1.05)
    notes = ["below an axis: the candidate has no such value"] if has_gap else []
    if np.isfinite(values).any() and (np.nanmin(values) < low or np.nanmax(values) > high):
        notes.append("worse values are at the end of the last axis")
    style.finish(ax, "hyperparameters, and the metric at last", "position on each axis, fraction", notes)
    ax.spines[["left", "bottom"]].set_visible(False)
    bar = ax.figure.colorbar(colours, ax=ax, pad=0.02)
    bar.set_label(style.wrapped(axis_labels.axis_of_metric(metric, loss), 45.0))
    return ax


def _ticks(axis: value_axis.ValueAxis) -> tuple[list[float], list[str]]:
    """Return heights and texts of the ticks of a vertical axis."""
    positions, texts = axis.ticks()
    low, high = axis.levels[0], axis.levels[-1]
    if low == high:
        return [0.5], texts[:1]
    if axis.scale == "log":
        heights = np.log(np.array(positions) / low) / np.log(high / low)
    else:
        heights = (np.array(positions, float) - low) / (high - low)
    kept = [(float(h), t) for h, t in zip(heights, texts, strict=True) if -1e-6 <= h <= 1 + 1e-6]
    return [height for height, _ in kept], [text for _, text in kept]


def _numbers(low: float, high: float, count: int) -> list[str]:
    places = max(0, 2 - int(np.floor(np.log10(high - low))))
    return [f"{value:.{min(places, 8)}f}" for value in np.linspace(low, high, count)]


def _write_axis(ax: Any, x: float, heights: list[float], texts: list[str]) -> None:
    """Draw a vertical axis with its ticks."""
    ax.plot([x, x], [0, 1], color="black", linewidth=1, zorder=3)
    for height, text in zip(heights, texts, strict=True):
        ax.plot([x, x + 0.02], [height, height], color="black", linewidth=1, zorder=3)
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
        shown = style.wrapped(text if len(text) < 28 else f"{text[:25]}...", 14.0)
        ax.text(x + 0.03, height, shown, fontsize=7.5, va="center", ha="left", bbox=box, zorder=6)
