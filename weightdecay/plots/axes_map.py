"""A metric over any two hyperparameters: cells of a full grid, points of a random one."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.checks import ArgumentError
from weightdecay.core.metrics import direction
from weightdecay.plots import axis_labels, style, table_lines, value_axis
from weightdecay.plots.table_lines import Chosen
from weightdecay.plots.value_axis import ValueAxis

_DIVERGED = "diverged, or not finite"


def axes_map(
    table: pd.DataFrame,
    metric: str,
    x: str,
    y: str,
    *,
    decay: str | None = None,
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric over two hyperparameters; the colour is the mean, bright is good.

    For every other axis of the grid a cell shows the best candidate, and the legend names these axes. Numbers are on a
    logarithmic or linear scale; names, numbers with a zero, and numbers with very uneven gaps are in equal steps. If
    the candidates do not form a product of the two axes (a random grid), each candidate is a point.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      x: Hyperparameter on the horizontal axis: a column of the table; ``"decay"`` = the rule.
      y: Hyperparameter on the vertical axis.
      decay: Name of the rule whose candidates are drawn; None = all rules, or, if an axis is a coefficient, those that
        have it.
      chosen: The chosen candidate, which is ringed; None rings nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes; the colour bar is next to them.

    Raises:
      ArgumentError: Not two different hyperparameters, or no such rule.
    """
    if x == y:
        raise ArgumentError("y", f"y is {y!r}, as x is; give two different hyperparameters.")
    if decay is not None:
        if decay not in set(table["decay"]):
            known = ", ".join(dict.fromkeys(table["decay"]))
            raise ArgumentError("decay", f"decay is {decay!r}; give the name of a rule of the grid: {known}.")
        table = table_lines.rows_where(table, table["decay"] == decay)
    across, up = value_axis.of(table, x, argument="x"), value_axis.of(table, y, argument="y")
    cells = _cells(table, metric, across, up)
    if not cells:
        raise ArgumentError("x", f"x is {x!r} and y is {y!r}; no candidate has both.")
    best_over = table_lines.differing(table, cells.values(), {x, y, f"{x}_schedule", f"{y}_schedule"})
    numbers = {place: table_lines.best_of(table, rows, metric) for place, rows in cells.items()}
    values = {place: float(table.loc[number, metric]) for place, number in numbers.items()}  # pyright: ignore[reportArgumentType]
    ax = style.axes(ax)
    across.set_on(ax, "x")
    up.set_on(ax, "y")
    image, is_clipped = _draw(ax, across, up, values, metric)
    _ring(ax, across, up, numbers, chosen)
    bar = ax.figure.colorbar(image, ax=ax, pad=0.03, extend=is_clipped)
    bar.set_label(style.wrapped(axis_labels.axis_of_metric(metric, loss), 45.0))
    style.finish(ax, across.label, up.label, style.notes_on(best_over))
    ax.spines[["top", "right"]].set_visible(True)
    return ax


def is_scattered(num_cells: int, across: ValueAxis, up: ValueAxis) -> bool:
    """Whether so few of all cells have a candidate that candidates are drawn as points."""
    return len(across.levels) * len(up.levels) > 3 * num_cells


def _cells(table: pd.DataFrame, metric: str, across: ValueAxis, up: ValueAxis) -> dict[tuple[float, float], list[Any]]:
    """Return the labels of the rows at each pair of positions."""
    cells: dict[tuple[float, float], list[Any]] = {}
    for label, one, other in zip(table.index, across.positions, up.positions, strict=True):
        if np.isfinite([one, other]).all():
            cells.setdefault((float(one), float(other)), []).append(label)
    return cells


def _draw(
    ax: Any, across: ValueAxis, up: ValueAxis, values: dict[tuple[float, float], float], metric: str
) -> tuple[Any, str]:
    """Draw cells or points.

    Returns:
      What the colour bar belongs to, and the ends at which values are beyond the colours.
    """
    from matplotlib.colors import Normalize

    everything = np.array(list(values.values()))
    finite = everything[np.isfinite(everything)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    extend, lower = "neither", direction(metric)
    if lower is not None and len(finite):
        shown = style.limits_of_good(finite, lower_is_better=lower == "lower")
        extend = "max" if shown[1] < high else "min" if shown[0] > low else "neither"
        low, high = shown
    looks = {"norm": Normalize(low, high), "cmap": "viridis_r" if lower == "lower" else "viridis"}
    good = {place: value for place, value in values.items() if np.isfinite(value)}
    lost = [place for place in values if place not in good]
    if is_scattered(len(values), across, up):
        xs, ys = ([place[axis] for place in good] for axis in (0, 1))
        image = ax.scatter(xs, ys, c=list(good.values()), s=42, edgecolors="black", linewidths=0.6, **looks)
        if lost:
            ax.plot(*zip(*lost, strict=True), "x", color="black", markersize=6, label=_DIVERGED)
        for axis, which in ((across, "x"), (up, "y")):
            value_axis.widen(ax, axis, which)
        return image, extend
    mesh = np.ma.masked_all((len(up.levels), len(across.levels)))
    for (one, other), value in good.items():
        mesh[np.searchsorted(up.levels, other), np.searchsorted(across.levels, one)] = value
    image = ax.pcolormesh(across.edges(), up.edges(), mesh, **looks)
    for index, place in enumerate(lost):
        hatched = {"facecolor": "0.92", "edgecolor": "0.45", "hatch": "////", "linewidth": 0}
        ax.add_patch(_cell(across, up, place, label="" if index else _DIVERGED, **hatched))
    style.write_values(ax, {place: (value, image.to_rgba(value)) for place, value in good.items()}, mesh.shape)
    return image, extend


def _ring(
    ax: Any, across: ValueAxis, up: ValueAxis, numbers: dict[tuple[float, float], Any], chosen: Chosen | None
) -> None:
    """Draw a ring around the cell or the point of the chosen candidate."""
    place = next((place for place, number in numbers.items() if chosen is not None and number == chosen.number), None)
    if place is None or chosen is None:
        return
    label = f"chosen: {chosen.decay}"
    if is_scattered(len(numbers), across, up):
        looks = {"markersize": 12, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.6}
        ax.plot(*place, "o", label=label, zorder=5, **looks)
        return
    for width, colour, name in ((4.5, "white", ""), (2.2, "black", label)):
        looks = {"fill": False, "edgecolor": colour, "linewidth": width, "label": name, "zorder": 5}
        ax.add_patch(_cell(across, up, place, **looks)).set_clip_on(False)


def _cell(across: ValueAxis, up: ValueAxis, place: tuple[float, float], **looks: Any) -> Any:
    from matplotlib.patches import Rectangle

    column, row = (int(np.searchsorted(axis.levels, value)) for axis, value in zip((across, up), place, strict=True))
    x_edges, y_edges = across.edges(), up.edges()
    corner = x_edges[column], y_edges[row]
    return Rectangle(corner, x_edges[column + 1] - corner[0], y_edges[row + 1] - corner[1], **looks)
