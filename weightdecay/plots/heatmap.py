"""A metric over coefficient and learning rate, with the lines along which the time scale of the decay is one."""

import math
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.metrics import lower_is_better
from weightdecay.plots import axis_labels, style, table_lines
from weightdecay.plots.chosen import Chosen

_BY_RATE = ("Decoupled", "Corrected", "Cautious")
_BY_STEP = ("Independent",)
_WORST_SHOWN = 2.5  # times the best loss; what is above has the colour of the worst
_MOST_SCALES = 6


def heatmap(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    decay: str | None = None,
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric over coefficient and learning rate of one rule, both logarithmic, a colour a mean.

    Bright is good, dark is bad, also in grey. A cell is the best over every other axis of the grid, and the legend says
    so. White lines are those of equal time scale τ, the steps in which decay alone takes the weights to 1/e: τ =
    1 / (learning rate · coefficient) for `Decoupled`, `Corrected` and `Cautious`, 1 / coefficient for `Independent`. It
    is what transfers between learning rates, batch sizes and data sizes. Other rules have no such lines: a penalty goes
    through the preconditioner, so that its time scale depends on the gradients. Lines that only cross the lower left
    corner, and coefficients of 0, are left out. Where coefficients and learning rates make no product (a random grid),
    each candidate is a point. Learning rates that are schedules stand in rows by their names, without time scales.

    Args:
      table: As ``result.table()`` makes it.
      metric: A column of it that is no hyperparameter.
      decay: Name of a rule; None: that of the chosen candidate where it has several learning rates, else of the
        rule with most cells.
      chosen: The chosen candidate, whose cell is ringed; None rings nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes; the colour bar stands beside them.

    Raises:
      ValueError: No such rule or metric, a single learning rate, or no coefficient above 0.

    References:
      Wang & Aitchison, How to set AdamW's weight decay as you scale model and dataset size, 2024.
    """
    if metric in table_lines.hyperparameters(table) or metric not in table:
        raise ValueError(f"metric is {metric!r}; give a metric of the table, such as 'validation_loss'.")
    decay = _rule(table, decay, chosen)
    found = table_lines.over_learning_rates(table, metric, decay)
    own = table.loc[list(table["decay"] == decay)]
    if found.column is None or not len(found.coefficients):
        raise ValueError(f"decay is {decay!r}, which has no coefficient above 0 here; give another rule of the grid.")
    if len(found.names) < 2:
        raise ValueError(
            f"decay is {decay!r}, whose candidates have one learning rate, {next(iter(found.names), '')}; a heat map "
            "takes several: add an axis learning_rate=[1e-3, 3e-3] to the grid, or use plot_path."
        )
    ax = style.axes(ax)
    scheduled = any(not _is_number(name) for name in found.names)
    y = np.arange(len(found.rates), dtype=float) if scheduled else found.rates
    image, clipped = _draw(ax, found, found.values(table, metric), y, metric, scheduled=scheduled)
    style.set_ticks(ax.xaxis, style.ticks_among(found.coefficients))
    if scheduled:
        ax.set_yticks(y, found.names)
    else:
        style.set_ticks(ax.yaxis, style.ticks_among(found.rates))
    labelled = not scheduled and _draw_time_scales(ax, decay)
    if chosen is not None:
        place = next((place for place, number in found.candidates.items() if number == chosen.number), None)
        if place is not None:
            _ring(ax, found, y, place, f"chosen: {chosen.decay}", scheduled=scheduled)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.09 if labelled else 0.03, extend="max" if clipped else "neither")
    bar.set_label(style.wrapped(axis_labels.axis_of_metric(metric, loss), 45.0))
    notes = [f"best over {', '.join(name.replace('_', ' ') for name in found.best_over)}"] if found.best_over else []
    if (own[found.column].to_numpy(float) == 0).any():
        notes.append("coefficient 0 is left out")
    style.finish(
        ax,
        axis_labels.axis_of_coefficients([(decay, found.column)]),
        "learning rate, schedule" if scheduled else "learning rate, in the unit of its optimizer",
        notes,
        above=3.0 if labelled else 0.4,
    )
    ax.spines[["top", "right"]].set_visible(True)
    return ax


def rules(table: pd.DataFrame) -> list[str]:
    """Rules that a heat map can be made of: those with several learning rates and a coefficient above 0.

    Args:
      table: As ``result.table()`` makes it.

    Returns:
      Their names, the one with most cells first.
    """
    sizes = {}
    for decay in dict.fromkeys(table["decay"]) if "learning_rate" in table else ():
        found = table_lines.over_learning_rates(table, "validation_loss", decay)
        if len(found.names) > 1:
            sizes[decay] = len(found.candidates)
    return sorted(sizes, key=lambda decay: -sizes[decay])


def _rule(table: pd.DataFrame, decay: str | None, chosen: Chosen | None) -> str:
    """The rule that is meant."""
    known = list(dict.fromkeys(table["decay"]))
    if decay is not None:
        if decay not in known:
            raise ValueError(f"decay is {decay!r}; give the name of a rule of the grid: {', '.join(known)}.")
        return decay
    possible = rules(table)
    if chosen is not None and chosen.decay.name in possible:
        return chosen.decay.name
    return next(iter(possible), next((name for name in known if name != "NoDecay"), known[0]))


def _draw(
    ax: Any, found: table_lines.Map, values: np.ma.MaskedArray, y: np.ndarray, metric: str, *, scheduled: bool
) -> tuple[Any, bool]:
    """Draw cells, or points where most cells would be empty; whether the worst share a colour."""
    from matplotlib.colors import Normalize

    shown = np.ma.masked_invalid(values)
    low, high = (float(shown.min()), float(shown.max())) if shown.count() else (0.0, 1.0)
    clipped = metric.endswith("loss") and 0 < _WORST_SHOWN * low < high
    norm = Normalize(low, _WORST_SHOWN * low if clipped else high)
    looks = {"norm": norm, "cmap": "viridis_r" if lower_is_better(metric) else "viridis"}
    x_edges, y_edges = _edges(found.coefficients), np.arange(len(y) + 1) - 0.5 if scheduled else _edges(y)
    ax.set_xscale("log")
    ax.set_yscale("linear" if scheduled else "log")
    if _is_scattered(found):
        x_edges, y_edges = _margins(found.coefficients), y_edges if scheduled else _margins(y)
    ax.set_xlim(x_edges[0], x_edges[-1])
    ax.set_ylim(y_edges[0], y_edges[-1])
    died = [place for place in found.candidates if not np.isfinite(values[place])]
    if _is_scattered(found):
        places = [place for place in found.candidates if place not in died]
        xs, ys = ([found.coefficients[column] for _, column in places], [y[row] for row, _ in places])
        image = ax.scatter(
            xs, ys, c=[values[place] for place in places], s=42, edgecolors="black", linewidths=0.6, **looks
        )
        if died:
            xs, ys = ([found.coefficients[column] for _, column in died], [y[row] for row, _ in died])
            ax.plot(xs, ys, "x", color="black", markersize=6, label="diverged, or not finite")
        return image, clipped
    image = ax.pcolormesh(x_edges, y_edges, shown, **looks)
    for row, column in died:
        ax.add_patch(
            _cell(x_edges, y_edges, row, column, facecolor="0.92", edgecolor="0.45", hatch="////", linewidth=0)
        )
    if died:
        ax.patches[-1].set_label("diverged, or not finite")
    _write(ax, found, y, shown, image)
    return image, clipped


def _is_scattered(found: table_lines.Map) -> bool:
    """Whether coefficients and learning rates make no product, as in a random grid."""
    return len(found.rates) * len(found.coefficients) > 3 * len(found.candidates)


def _write(ax: Any, found: table_lines.Map, y: np.ndarray, shown: np.ma.MaskedArray, image: Any) -> None:
    """Write the numbers into the cells where they fit, black or white, whichever stands out more."""
    width, height = style.size(ax)
    size = 8.0
    words = {place: f"{float(shown[place]):.3g}" for place in found.candidates if shown[place] is not np.ma.masked}
    longest = max(map(len, words.values()), default=0)
    room = 0.72 * width / len(found.coefficients), 0.62 * height / len(found.rates)
    if longest * 0.66 * size / 72 > room[0] or 1.7 * size / 72 > room[1]:
        return
    for (row, column), word in words.items():
        red, green, blue, _ = colour = image.to_rgba(float(shown[row, column]))
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
        ax.text(
            found.coefficients[column],
            y[row],
            word,
            ha="center",
            va="center",
            fontsize=size,
            color="black" if luminance > 0.179 else "white",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
            zorder=4,
        )


def _draw_time_scales(ax: Any, decay: str) -> bool:
    """Draw the lines of equal time scale, each with its steps where it leaves the map at the top or the right."""
    from matplotlib import patheffects

    if decay not in (*_BY_RATE, *_BY_STEP):
        return False
    left, right, bottom, top = *ax.get_xlim(), *ax.get_ylim()
    # A line goes from (1 / (scale · top), top) down to (right, 1 / (scale · right)).
    ends = (1 / (top * right), 1 / min(top * left, bottom * right))
    if decay in _BY_STEP:
        ends = (1 / right, 1 / left)
    powers = range(math.floor(math.log10(ends[0]) + 1e-6) + 1, math.ceil(math.log10(ends[1]) - 1e-6))
    scales = [10.0**power for power in powers][:: math.ceil(max(1, len(powers)) / _MOST_SCALES)]
    if not scales:
        scales = [10 ** float(np.mean(np.log10(ends)))]
    halo = [patheffects.withStroke(linewidth=2.4, foreground="black")]
    for place, scale in enumerate(scales):
        rates = np.array([bottom, top])
        coefficients = 1 / (scale * rates) if decay in _BY_RATE else np.full(2, 1 / scale)
        ax.plot(
            coefficients,
            rates,
            color="white",
            linewidth=1.1,
            path_effects=halo,
            label="" if place else "equal time scale τ",
            scalex=False,
            scaley=False,
            gid=f"time scale {scale:g}",
        )
        at_top = left <= coefficients[1] <= right
        where = (coefficients[1], top) if at_top else (right, 1 / (scale * right))
        ax.annotate(
            style.numbers([scale])[0],
            where,
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


def _ring(
    ax: Any, found: table_lines.Map, y: np.ndarray, place: tuple[int, int], label: str, *, scheduled: bool
) -> None:
    """Ring a cell, or a point."""
    row, column = place
    if _is_scattered(found):
        looks = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.6}
        ax.plot(found.coefficients[column], y[row], "o", label=label, zorder=5, **looks)
        return
    x_edges, y_edges = _edges(found.coefficients), np.arange(len(y) + 1) - 0.5 if scheduled else _edges(y)
    for width, colour, name in ((4.5, "white", ""), (2.2, "black", label)):
        ring = _cell(x_edges, y_edges, row, column, fill=False, edgecolor=colour, linewidth=width, label=name, zorder=5)
        ax.add_patch(ring).set_clip_on(False)


def _cell(x_edges: np.ndarray, y_edges: np.ndarray, row: int, column: int, **looks: Any) -> Any:
    from matplotlib.patches import Rectangle

    corner = x_edges[column], y_edges[row]
    return Rectangle(corner, x_edges[column + 1] - corner[0], y_edges[row + 1] - corner[1], **looks)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of the cells around values on a logarithmic axis; those of a single one lie a factor √10 apart."""
    logs = np.log10(centres)
    if len(logs) == 1:
        return 10 ** (logs[0] + np.array([-0.25, 0.25]))
    middle = (logs[1:] + logs[:-1]) / 2
    return 10 ** np.concatenate([[2 * logs[0] - middle[0]], middle, [2 * logs[-1] - middle[-1]]])


def _margins(values: np.ndarray) -> np.ndarray:
    """Ends of a logarithmic axis a twentieth of its length beyond the values."""
    low, high = np.log10(values[[0, -1]])
    return 10 ** np.array([low - 0.05 * (high - low) - 0.02, high + 0.05 * (high - low) + 0.02])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
