"""A metric against each hyperparameter, one panel each: the plot of random and Sobol grids."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core import metrics
from weightdecay.plots import along_coefficient, axis_labels, panels, style, value_axis
from weightdecay.plots.table_lines import Chosen

_MAX_PANELS = 9


def slices(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> list[Any]:
    """Plot a metric of every candidate against each hyperparameter that varies, in a panel each.

    Points are never joined, since their candidates differ in the other hyperparameters too. Colour and marker are the
    rule; with more than twelve rules, those with the best metric are in colour and the others grey. A validation metric
    is shown from its best value to three times the spread of its better third; a triangle marks each worse candidate,
    and a cross each that diverged.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      chosen: The chosen candidate, marked by a ring; None marks nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes whose place the panels take; None makes a new figure.

    Returns:
      The axes of the panels, at most nine.

    Raises:
      ArgumentError: No such column.
    """
    along_coefficient.check_metric(table, metric)
    names = value_axis.varying(table)
    names = [name for name in names if name != "decay" or len(names) == 1] or ["decay"]
    top, drawn = panels.in_place_of(ax, min(len(names), _MAX_PANELS))
    values = table[metric].to_numpy(float)
    low, high = _limits(table, values, metric)
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    is_lower = _lower_is_better(table, metric) is not False
    for index, (panel, name) in enumerate(zip(drawn, names, strict=False)):
        axis = value_axis.of(table, name)
        axis.set_on(panel, "x")
        value_axis.widen(panel, axis, "x")
        _draw(panel, axis.positions, values, table["decay"].tolist(), _rules(table, metric))
        _mark(panel, axis.positions, values, (low, high), is_lower=is_lower)
        if chosen is not None and chosen.number in table.index:
            place = table.index.get_loc(chosen.number)
            looks = {"markersize": 11, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.4}
            label = f"chosen: {chosen.decay}"
            panel.plot([axis.positions[place]], [values[place]], "o", label=label, zorder=5, **looks)
        if np.isfinite([low, high]).all() and low < high:
            panel.set_ylim(low, high)
        style.mark_empty(panel, values)
        is_first = index % panels.MAX_COLUMNS == 0
        style.finish(panel, axis.label, axis_labels.axis_of_metric(metric, loss) if is_first else "")
        if not is_first:
            panel.tick_params(labelleft=False)
    left_out = len(names) - len(drawn)
    panels.finish(top, drawn, [f"{left_out} more hyperparameters are not shown"] if left_out else [])
    return drawn


def _lower_is_better(table: pd.DataFrame, metric: str) -> bool | None:
    try:
        return metrics.lower_is_better(metric, table.attrs.get("lower_is_better"))
    except ValueError:
        return None


def _limits(table: pd.DataFrame, values: np.ndarray, metric: str) -> tuple[float, float]:
    """Return the range of the metric that is shown."""
    lower, finite = _lower_is_better(table, metric), values[np.isfinite(values)]
    if lower is None or not metric.startswith("validation_") or not len(finite):
        return (float(finite.min()), float(finite.max())) if len(finite) else (np.nan, np.nan)
    return style.limits_of_good(values, lower_is_better=lower)


def _rules(table: pd.DataFrame, metric: str) -> list[str]:
    """Return the rules that have a colour, in the order of the table."""
    rules = list(dict.fromkeys(table["decay"]))
    if len(rules) <= len(style.COLOURS):
        return rules
    sign = -1 if _lower_is_better(table, metric) is False else 1
    best = {rule: (sign * table[metric][table["decay"] == rule]).min() for rule in rules}
    kept = sorted(rules, key=lambda rule: best[rule] if np.isfinite(best[rule]) else np.inf)[: len(style.COLOURS)]
    return [rule for rule in rules if rule in kept]


def _draw(panel: Any, positions: np.ndarray, values: np.ndarray, of_rows: list[str], rules: list[str]) -> None:
    others = np.array([rule not in rules for rule in of_rows])
    if others.any():
        count = len({rule for rule in of_rows if rule not in rules})
        panel.plot(positions[others], values[others], ".", color="0.75", zorder=1, label=f"{count} others, worse")
    for number, rule in enumerate(rules):
        shown = np.array([name == rule for name in of_rows]) & np.isfinite(positions)
        looks = style.line_style(number) | {"linestyle": "none"}
        if shown.any():
            panel.plot(positions[shown], values[shown], label="no decay" if rule == "NoDecay" else rule, **looks)


def _mark(
    panel: Any, positions: np.ndarray, values: np.ndarray, limits: tuple[float, float], *, is_lower: bool
) -> None:
    """Mark candidates that are worse than the limits, or not finite, at the edge of the axes."""
    looks = {"transform": panel.get_xaxis_transform(), "linestyle": "none", "markersize": 5}
    has_place = np.isfinite(positions)
    worse = has_place & ((values > limits[1]) if is_lower else (values < limits[0]))
    edge, marker = (0.95, "^") if is_lower else (0.05, "v")
    if worse.any():
        at_edge = np.full(worse.sum(), edge)
        panel.plot(positions[worse], at_edge, marker=marker, color="0.25", label="worse than shown", **looks)
    lost = has_place & ~np.isfinite(values)
    if lost.any():
        at_top = np.full(lost.sum(), 0.985)
        panel.plot(positions[lost], at_top, marker="x", color="black", label="diverged, or not finite", **looks)
