"""A metric over coefficient and learning rate, with lines of equal time scale."""

import math
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core import rule_facts
from weightdecay.core.checks import ArgumentError
from weightdecay.core.metrics import direction
from weightdecay.core.text import suggestion
from weightdecay.plots import axes_map, axis_labels, style, table_lines, value_axis
from weightdecay.plots.table_lines import Chosen, RateMap

_MAX_TIME_SCALES = 6


def heatmap(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    x: str | None = None,
    y: str | None = None,
    decay: str | None = None,
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric over two hyperparameters: by default over coefficient and learning rate of one rule.

    The axes are then logarithmic, and the colour is the mean. Any other two axes, and learning rates with very uneven
    gaps, are drawn by `weightdecay.plots.axes_map.axes_map`.

    Bright is good and dark is bad, also in grey print. For every other axis of the grid a cell shows the best
    candidate, and the legend names these axes. White lines are lines of equal time scale τ, the number of steps in
    which decay alone reduces the weights to 1/e: τ = 1 / (learning rate · coefficient) for `Decoupled`, `Corrected` and
    `Cautious`, and 1 / coefficient for `Independent`. The time scale is what transfers between learning rates, batch
    sizes and data sizes. Other rules have no such lines: the preconditioner acts on a penalty too, so that its time
    scale depends on the gradients. Lines that only cross the lower left corner, and coefficients of 0, are left out. If
    the candidates do not form a product of coefficients and learning rates (a random grid), each candidate is a point.
    Schedules of the learning rate have a row each, labelled by their text, and no time scales.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      x: Hyperparameter on the horizontal axis, a column of the table, such as ``"momentum"``, or ``"decay"``, the rule;
        None: ``"coefficient"``, or the learning rate if ``y`` is the coefficient.
      y: Hyperparameter on the vertical axis; None: ``"learning_rate"``, or the coefficient if ``x`` is that.
      decay: Name of a rule; None: the rule of the chosen candidate if it has several learning rates, else the rule with
        the most cells; with other axes than the default all rules.
      chosen: The chosen candidate, whose cell is ringed; None rings nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes; the colour bar is next to them.

    Raises:
      ArgumentError: No such rule or metric, only one learning rate, or no coefficient above 0.

    References:
      Wang & Aitchison, How to set AdamW's weight decay as you scale model and dataset size, 2024.
    """
    if metric in table_lines.hyperparameters(table) or metric not in table:
        raise ArgumentError(
            "metric",
            f"metric is {metric!r}; give a metric of the table, such as 'validation_loss'."
            f"{suggestion(str(metric), map(str, table.columns))}",
        )
    if (x or y) is not None:
        x = x or ("learning_rate" if y == "coefficient" else "coefficient")
        y = y or ("coefficient" if x == "learning_rate" else "learning_rate")
        if (x, y) != ("coefficient", "learning_rate"):
            return axes_map.axes_map(table, metric, x, y, decay=decay, chosen=chosen, loss=loss, ax=ax)
    decay = _rule(table, decay, chosen)
    cells = table_lines.over_learning_rates(table, metric, decay)
    if cells.column is None or not len(cells.coefficients):
        raise ArgumentError(
            "decay", f"decay is {decay!r}, which has no coefficient above 0 here; give another rule of the grid."
        )
    if len(cells.names) < 2:
        raise ArgumentError(
            "decay",
            f"decay is {decay!r}, whose candidates have one learning rate, {next(iter(cells.names), '')}; a heat map "
            "needs several: add an axis learning_rate=[1e-3, 3e-3] to the grid, or use plot_path.",
        )
    of_rule = table_lines.rows_where(table, table["decay"] == decay)
    if not cells.has_schedules and value_axis.of(of_rule, "learning_rate").scale == "steps":
        return axes_map.axes_map(
            table, metric, cells.column, "learning_rate", decay=decay, chosen=chosen, loss=loss, ax=ax
        )
    ax = style.axes(ax)
    has_schedules = cells.has_schedules
    rows = np.arange(len(cells.rates), dtype=float) if has_schedules else cells.rates
    image, extend = _draw(ax, cells, cells.values(table, metric), rows, metric, has_schedules=has_schedules)
    style.set_ticks(ax.xaxis, style.ticks_among(cells.coefficients))
    if has_schedules:
        ax.set_yticks(rows, cells.names)
    else:
        style.set_ticks(ax.yaxis, style.ticks_among(cells.rates))
    has_time_scales = not has_schedules and _draw_time_scales(ax, decay)
    if chosen is not None:
        cell = next((cell for cell, number in cells.candidates.items() if number == chosen.number), None)
        if cell is not None:
            _ring(ax, cells, rows, cell, f"chosen: {chosen.decay}", has_schedules=has_schedules)
    pad = 0.09 if has_time_scales else 0.03
    bar = ax.figure.colorbar(image, ax=ax, pad=pad, extend=extend)
    bar.set_label(style.wrapped(axis_labels.axis_of_metric(metric, loss), 45.0))
    has_zero = (table.loc[list(table["decay"] == decay), cells.column].to_numpy(float) == 0).any()
    style.finish(
        ax,
        axis_labels.axis_of_coefficients([(decay, cells.column)]),
        "learning rate, schedule" if has_schedules else "learning rate, in the unit of its optimizer",
        style.notes_on(cells.best_over, "coefficient 0 is left out" if has_zero else ""),
        above=3.0 if has_time_scales else 0.4,
    )
    ax.spines[["top", "right"]].set_visible(True)
    return ax


def rules(table: pd.DataFrame) -> list[str]:
    """Return the rules that a heat map can show: those with several learning rates and a coefficient above 0.

    Args:
      table: The table, as ``result.table()`` returns it.

    Returns:
      Their names, the one with the most cells first.
    """
    sizes = {}
    for decay in dict.fromkeys(table["decay"]) if "learning_rate" in table else ():
        cells = table_lines.over_learning_rates(table, "validation_loss", decay)
        if len(cells.names) > 1:
            sizes[decay] = len(cells.candidates)
    return sorted(sizes, key=lambda decay: -sizes[decay])


def _rule(table: pd.DataFrame, decay: str | None, chosen: Chosen | None) -> str:
    """Return the rule that is drawn."""
    known = list(dict.fromkeys(table["decay"]))
    if decay is not None:
        if decay not in known:
            raise ArgumentError(
                "decay",
                f"decay is {decay!r}; give the name of a rule of the grid: {', '.join(known)}."
                f"{suggestion(str(decay), known)}",
            )
        return decay
    possible = rules(table)
    if chosen is not None and chosen.decay.name in possible:
        return chosen.decay.name
    return next(iter(possible), next((name for name in known if name != "NoDecay"), known[0]))


def _draw(
    ax: Any, cells: RateMap, values: np.ma.MaskedArray, y: np.ndarray, metric: str, *, has_schedules: bool
) -> tuple[Any, str]:
    """Draw cells, or points where most cells would be empty.

    Returns:
      What the colour bar belongs to, and the end of it at which worse values share a colour.
    """
    from matplotlib.colors import Normalize

    shown = np.ma.masked_invalid(values)
    low, high = (float(shown.min()), float(shown.max())) if shown.count() else (0.0, 1.0)
    extend, lower = "neither", direction(metric) == "lower"
    if direction(metric) is not None and shown.count():
        ends = style.limits_of_good(shown.compressed(), lower_is_better=lower)
        extend = "max" if ends[1] < high else "min" if ends[0] > low else "neither"
        low, high = ends
    norm = Normalize(low, high)
    looks = {"norm": norm, "cmap": "viridis_r" if lower else "viridis"}
    x_edges, y_edges = _edges(cells.coefficients), np.arange(len(y) + 1) - 0.5 if has_schedules else _edges(y)
    ax.set_xscale("log")
    ax.set_yscale("linear" if has_schedules else "log")
    if _is_scattered(cells):
        x_edges, y_edges = _margins(cells.coefficients), y_edges if has_schedules else _margins(y)
    ax.set_xlim(x_edges[0], x_edges[-1])
    ax.set_ylim(y_edges[0], y_edges[-1])
    diverged = [cell for cell in cells.candidates if not np.isfinite(values[cell])]
    if _is_scattered(cells):
        finite = [cell for cell in cells.candidates if cell not in diverged]
        xs, ys = ([cells.coefficients[column] for _, column in finite], [y[row] for row, _ in finite])
        image = ax.scatter(
            xs, ys, c=[values[cell] for cell in finite], s=42, edgecolors="black", linewidths=0.6, **looks
        )
        if diverged:
            xs, ys = ([cells.coefficients[column] for _, column in diverged], [y[row] for row, _ in diverged])
            ax.plot(xs, ys, "x", color="black", markersize=6, label="diverged, or not finite")
        return image, extend
    image = ax.pcolormesh(x_edges, y_edges, shown, **looks)
    for row, column in diverged:
        ax.add_patch(
            _cell(x_edges, y_edges, row, column, facecolor="0.92", edgecolor="0.45", hatch="////", linewidth=0)
        )
    if diverged:
        ax.patches[-1].set_label("diverged, or not finite")
    values_at = {
        (float(cells.coefficients[column]), float(y[row])): (
            float(shown[row, column]),
            image.to_rgba(shown[row, column]),
        )
        for row, column in cells.candidates
        if shown[row, column] is not np.ma.masked
    }
    style.write_values(ax, values_at, (len(cells.rates), len(cells.coefficients)))
    return image, extend


def _is_scattered(cells: RateMap) -> bool:
    """Whether the candidates do not form a product of coefficients and learning rates, as in a random grid."""
    return len(cells.rates) * len(cells.coefficients) > 3 * len(cells.candidates)


def _draw_time_scales(ax: Any, decay: str) -> bool:
    """Draw lines of equal time scale, each labelled with its steps at its end.

    Returns:
      Whether any line was drawn.
    """
    from matplotlib import patheffects

    facts = rule_facts.of_rule(decay)
    if facts is None or facts.removed_fraction is None:
        return False
    left, right, bottom, top = *ax.get_xlim(), *ax.get_ylim()
    # Fraction that a coefficient of 1 removes at the ends of the axis; a coefficient c has the time scale
    # 1 / (fraction · c).
    at_bottom, at_top_rate = float(facts.removed_fraction(bottom)), float(facts.removed_fraction(top))
    if min(at_bottom, at_top_rate) <= 0:
        return False
    ends = (1 / (at_top_rate * right), 1 / min(at_top_rate * left, at_bottom * right))
    powers = range(math.floor(math.log10(ends[0]) + 1e-6) + 1, math.ceil(math.log10(ends[1]) - 1e-6))
    scales = [10.0**power for power in powers][:: math.ceil(max(1, len(powers)) / _MAX_TIME_SCALES)]
    if not scales:
        scales = [10 ** float(np.mean(np.log10(ends)))]
    halo = [patheffects.withStroke(linewidth=2.4, foreground="black")]
    for index, scale in enumerate(scales):
        rates = np.array([bottom, top])
        coefficients = 1 / (scale * np.array([at_bottom, at_top_rate]))
        ax.plot(
            coefficients,
            rates,
            color="white",
            linewidth=1.1,
            path_effects=halo,
            label="" if index else "equal time scale τ",
            scalex=False,
            scaley=False,
            gid=f"time scale {scale:g}",
        )
        at_top = left <= coefficients[1] <= right
        # Straight on logarithmic axes, as every power of the learning rate is.
        end = (coefficients[1], top)
        if not at_top:
            position = np.interp(-math.log(right), -np.log(coefficients), np.log(rates))
            end = (right, math.exp(float(position)))
        ax.annotate(
            style.numbers([scale])[0],
            end,
            (0, 3) if at_top else (3, 0),
            textcoords="offset points",
            ha="center" if at_top else "left",
            va="bottom" if at_top else "center",
            fontsize=8,
        )
    ax.annotate(
        "τ, steps:",
        (0, 1),
        (-14, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="right",
        va="bottom",
        fontsize=8,
    )
    return True


def _ring(ax: Any, cells: RateMap, y: np.ndarray, cell: tuple[int, int], label: str, *, has_schedules: bool) -> None:
    """Draw a ring around a cell or a point."""
    row, column = cell
    if _is_scattered(cells):
        looks = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.6}
        ax.plot(cells.coefficients[column], y[row], "o", label=label, zorder=5, **looks)
        return
    x_edges, y_edges = _edges(cells.coefficients), np.arange(len(y) + 1) - 0.5 if has_schedules else _edges(y)
    for width, colour, name in ((4.5, "white", ""), (2.2, "black", label)):
        ring = _cell(x_edges, y_edges, row, column, fill=False, edgecolor=colour, linewidth=width, label=name, zorder=5)
        ax.add_patch(ring).set_clip_on(False)


def _cell(x_edges: np.ndarray, y_edges: np.ndarray, row: int, column: int, **looks: Any) -> Any:
    from matplotlib.patches import Rectangle

    corner = x_edges[column], y_edges[row]
    return Rectangle(corner, x_edges[column + 1] - corner[0], y_edges[row + 1] - corner[1], **looks)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Compute the edges of the cells around values on a logarithmic axis; a single cell is a factor √10 wide."""
    logs = np.log10(centres)
    if len(logs) == 1:
        return 10 ** (logs[0] + np.array([-0.25, 0.25]))
    middle = (logs[1:] + logs[:-1]) / 2
    return 10 ** np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]])


def _margins(values: np.ndarray) -> np.ndarray:
    """Compute the ends of a logarithmic axis that extends a twentieth of its length beyond the values."""
    low, high = np.log10(values[[0, -1]])
    return 10 ** np.array([low - 0.05 * (high - low) - 0.02, high + 0.05 * (high - low) + 0.02])
