"""The regularization path in several panels, one for each value of another axis of the grid."""

from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.checks import ArgumentError
from weightdecay.plots import axis_labels, panels, style, table_lines, value_axis
from weightdecay.plots.path import good_limits, path
from weightdecay.plots.table_lines import Chosen

MAX_FACETS = 9
"""Maximum number of panels."""


def path_facets(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    by: str = "learning_rate",
    *,
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> list[Any]:
    """Plot a metric against the coefficient, one line per rule, in a panel for each value of an axis of the grid.

    All panels have the same axes and the same colours. If there are more than twelve rules, those with the best
    validation metric are drawn.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: A column of the table that is not a hyperparameter.
      by: Axis of the grid; at most `MAX_FACETS` values.
      chosen: The chosen candidate, marked by a ring in its panel; None marks nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes whose place the panels take; None makes a new figure.

    Returns:
      The axes of the panels, in the order of the values.

    Raises:
      ArgumentError: Not such an axis, or no such column.
    """
    axis = value_axis.of(table, by, argument="facets")
    count = len(axis.levels)
    if by == "decay" or not 0 < count <= MAX_FACETS:
        raise ArgumentError(
            "facets",
            f"facets is {by!r}, which has {count} values; give an axis other than the rule with at most {MAX_FACETS}.",
        )
    rules = _best_rules(table, metric)
    left_out = len(set(table["decay"]) - {"NoDecay", *rules})
    table = table_lines.rows_where(table, [rule in rules or rule == "NoDecay" for rule in table["decay"]])
    axis = value_axis.of(table, by, argument="facets")
    colours = {rule: number for number, rule in enumerate(rules)}
    top, drawn = panels.in_place_of(ax, count)
    notes: dict[str, None] = {}
    parts = [table_lines.rows_where(table, axis.positions == level) for level in axis.levels]
    lines = [line for part in parts for line in table_lines.through(part, metric, split=None).lines]
    limits = good_limits(lines, table, metric)
    for panel, part, name in zip(drawn, parts, axis.names, strict=True):
        here = chosen if chosen is not None and chosen.number in part.index else None
        path(part, metric, split=None, chosen=here, loss=loss, colours=colours, limits=limits, ax=panel)
        legend = panel.get_legend()
        if legend is not None:
            notes |= dict.fromkeys(filter(None, legend.get_title().get_text().replace("\n", " ").split("; ")))
        panel.set_title(f"{axis_labels.name_of(by)} {name}", fontsize="medium")
    _share(drawn, lines)
    panels.finish(top, drawn, [*notes, *([f"{left_out} other rules, worse, are not shown"] if left_out else [])])
    return drawn


def _best_rules(table: pd.DataFrame, metric: str) -> list[str]:
    """Return the rules that are drawn, in the order of the table."""
    lines = [line for line in table_lines.through(table, metric, split=None).lines if line.rule != "NoDecay"]
    kept = {line.rule for line in table_lines.leading(lines, table, metric)}
    return [rule for rule in dict.fromkeys(table["decay"]) if rule in kept]


def _share(drawn: list[Any], lines: list[table_lines.Line]) -> None:
    """Give all panels the same limits, and the outer ones the labels."""
    coefficients = np.concatenate([line.coefficients for line in lines] or [np.zeros(0)])
    ends = [panel.get_ylim() for panel in drawn]
    for panel in drawn:
        style.coefficient_axis(panel, coefficients)
        panel.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    for index, panel in enumerate(drawn):
        if index % panels.MAX_COLUMNS:
            panel.set_ylabel("")
            panel.tick_params(labelleft=False)
        if index + panels.MAX_COLUMNS < len(drawn):
            panel.set_xlabel("")
