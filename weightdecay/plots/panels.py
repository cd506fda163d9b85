"""Panels in the place of one plot: facets of a path, or a panel per hyperparameter, with one legend above them."""

from collections.abc import Sequence
from typing import Any

from weightdecay.plots import style

MAX_COLUMNS = 3
"""Panels next to each other."""


def in_place_of(ax: Any, num_panels: int) -> tuple[Any, list[Any]]:
    """Divide the place of some axes into panels, below a strip for the legend.

    Args:
      ax: Matplotlib axes, which are removed; None makes a new figure.
      num_panels: Number of panels, >= 1.

    Returns:
      The axes of the legend, and those of the panels.
    """
    columns = min(num_panels, MAX_COLUMNS)
    rows = -(-num_panels // columns)
    if ax is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(max(6.4, 3.4 * columns), 1.2 + 3.2 * rows), layout="constrained")
        spec = figure.add_gridspec(1, 1)[0, 0]
    else:
        ax = style.axes(ax)
        figure, spec = ax.figure, ax.get_subplotspec()
        ax.remove()
    grid = spec.subgridspec(rows + 1, columns, height_ratios=[0.02, *[1] * rows])
    top = figure.add_subplot(grid[0, :])
    top.set_axis_off()
    return top, [figure.add_subplot(grid[1 + index // columns, index % columns]) for index in range(num_panels)]


def finish(top: Any, panels: Sequence[Any], notes: Sequence[str] = ()) -> None:
    """Gather the legends of the panels into one above them.

    Args:
      top: The axes of the legend.
      panels: The panels; their own legends are removed.
      notes: Remarks that are printed as the title of the legend.
    """
    handles: dict[str, Any] = {}
    for panel in panels:
        legend = panel.get_legend()
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
        if legend is not None:
            legend.remove()
    style.legend_above(top, list(handles.values()), list(handles), notes)
