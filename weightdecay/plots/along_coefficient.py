"""What the plots against the coefficient share (`path`, `gap`, `sparsity`): lines, bands, marks and checks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.checks import ArgumentError
from weightdecay.core.text import suggestion
from weightdecay.plots import axis_labels, style, table_lines
from weightdecay.plots.table_lines import Chosen, Line, Lines

BANDS = "bands: one standard error over seeds"
"""Remark of a legend whose lines have bands."""
_NO_BANDS = "grey band: one standard error; those of so many lines are left out"
_MAX_BANDS = 6  # lines whose bands can be distinguished
_BARS = "bars and grey band: one standard error over seeds"


def draw(
    ax: Any,
    lines: Lines,
    table: pd.DataFrame,
    metric: str,
    values_of: Callable[[Line], tuple[np.ndarray, np.ndarray]],
    *,
    bars: bool = False,
    without: Sequence[Line] = (),
    colours: Mapping[str, int] | None = None,
) -> list[str]:
    """Draw lines against the coefficient.

    Args:
      ax: Matplotlib axes.
      lines: Lines through the table.
      table: The table, as ``result.table()`` returns it.
      metric: What is drawn; decides which lines are distinguished if there are many.
      values_of: ``values_of(line)`` returns means and standard errors of a line, each of shape ``(points,)``.
      bars: Whether standard errors are drawn as bars and not as bands.
      without: Lines that are not drawn.
      colours: Number of the colour of each rule, where several axes share them; None = by the order of the lines.

    Returns:
      Remarks for the legend.
    """
    with_coefficients = [line for line in lines.lines if line.column]
    distinguished = table_lines.leading(with_coefficients, table, metric)
    rules = list(dict.fromkeys(line.rule for line in distinguished))
    style.coefficient_axis(ax, np.concatenate([line.coefficients for line in lines.lines] or [np.zeros(0)]))
    has_errors, is_full = False, len(distinguished) > _MAX_BANDS
    others = [line for line in with_coefficients if line not in distinguished and line not in without]
    for line in sorted(lines.lines, key=lambda line: (line.column is None, line in others)):
        if line in without:
            continue
        mean, error = values_of(line)
        if line in others:
            label = f"{len(others)} others, worse" if line is others[0] else ""
            grey = {"color": "0.75", "linewidth": 0.8, "zorder": 1}
            if all(line.joined):
                ax.plot(line.coefficients, mean, label=label, **grey)
                continue
            ax.plot(line.coefficients, mean, ".", label=label, **grey)
            for run in line.runs():
                ax.plot(line.coefficients[run], mean[run], **grey)
            continue
        has_errors |= bool((np.nan_to_num(error) > 0).any())
        if line.column is None:
            _draw_horizontal(ax, line, mean[0], error[0])
            continue
        by_rule = len(rules) > 1 and max(line.group for line in distinguished) < len(style.DASHES)
        colour = rules.index(line.rule) if by_rule else distinguished.index(line)
        looks = style.line_style(colour if colours is None else colours[line.rule], line.group)
        is_whole = all(line.joined)
        ax.plot(line.coefficients, mean, label=line.label, **looks | ({} if is_whole else {"linestyle": "none"}))
        for run in [] if is_whole else line.runs():
            ax.plot(line.coefficients[run], mean[run], **looks | {"marker": ""})
        if is_full:
            continue
        if bars or not is_whole:
            errors = np.nan_to_num(error)
            if errors.any():
                ax.errorbar(line.coefficients, mean, errors, fmt="none", ecolor=looks["color"], capsize=3, elinewidth=1)
        else:
            style.band(ax, line.coefficients, mean, error, looks["color"])
    parted = [line for line in lines.lines if line not in without and not all(line.joined)]
    varying = dict.fromkeys(axis_labels.name_of(name) for line in parted for name in line.varying)
    parting = "points that differ in {} are not joined" if lines.best_over else "each point has its own {}"
    return style.notes_on(
        lines.best_over,
        parting.format(", ".join(varying)) if varying else "",
        "" if not has_errors else _NO_BANDS if is_full else _BARS if bars or parted else BANDS,
    )


def ring_chosen(ax: Any, lines: Sequence[Line], table: pd.DataFrame, value: float, chosen: Chosen) -> None:
    """Mark the chosen point by a ring; a rule without a coefficient has its ring on the left axis.

    Args:
      ax: Matplotlib axes.
      lines: The lines that were drawn.
      table: The table.
      value: Value of the chosen candidate.
      chosen: The chosen candidate.
    """
    columns = {line.rule: line.column for line in lines}
    column = columns.get(chosen.decay.name)
    on_left_axis = {"transform": ax.get_yaxis_transform(), "clip_on": False} if column is None else {}
    ax.plot(
        0.0 if column is None else float(table.loc[chosen.number, column]),  # pyright: ignore[reportArgumentType]
        value,
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="black",
        markeredgewidth=1.4,
        label=f"chosen: {chosen.decay}",
        zorder=5,
        **on_left_axis,
    )


def cross_diverged(ax: Any, lines: Sequence[Line], table: pd.DataFrame, metric: str) -> None:
    """Mark the coefficients of candidates without a finite mean by crosses at the top of the axes.

    Args:
      ax: Matplotlib axes.
      lines: The lines that were drawn.
      table: The table.
      metric: Column of the table.
    """
    diverged = [
        coefficient
        for line in lines
        if line.column is not None
        for coefficient, value in zip(line.coefficients, line.values(table, metric), strict=True)
        if not np.isfinite(value)
    ]
    if diverged:
        ax.plot(
            diverged,
            np.full(len(diverged), 0.985),
            "x",
            color="black",
            markersize=6,
            transform=ax.get_xaxis_transform(),
            label="diverged, or not finite",
        )


def axis_label(lines: Sequence[Line]) -> str:
    """Label of the x axis.

    Args:
      lines: The lines that were drawn.

    Returns:
      The label, with the unit of each rule's coefficient.
    """
    return axis_labels.axis_of_coefficients((line.rule, line.column) for line in lines if line.column is not None)


def check_metric(table: pd.DataFrame, metric: str) -> None:
    """Validate the name of a metric.

    Args:
      table: The table, as ``result.table()`` returns it.
      metric: The name.

    Raises:
      ArgumentError: Not a metric of the table.
    """
    known = [name for name in table.columns if name not in table_lines.hyperparameters(table)]
    known = [
        name
        for name in known
        if not name.endswith(("_standard_error", "_lower", "_upper")) and name not in ("seeds", "diverged")
    ]
    if metric not in known:
        raise ArgumentError(
            "metric", f"metric is {metric!r}; give one of {', '.join(known)}.{suggestion(str(metric), known)}"
        )


def check_split(table: pd.DataFrame, split: str | None) -> None:
    """Validate the axis of the grid that splits the lines of a rule.

    Args:
      table: The table, as ``result.table()`` returns it.
      split: Name of the axis; None = lines are not split.

    Raises:
      ArgumentError: Not an axis of the grid.
    """
    known = [
        name for name in table_lines.hyperparameters(table) if name != "decay" and not axis_labels.is_coefficient(name)
    ]
    if split is not None and split not in known and split != "learning_rate":
        raise ArgumentError(
            "split",
            f"split is {split!r}; give one of {', '.join(known)}, or None for one line per rule."
            f"{suggestion(str(split), known)}",
        )


def _draw_horizontal(ax: Any, line: Line, mean: float, error: float) -> None:
    """Draw a rule without a coefficient."""
    dash = style.DASHES[(line.group + 1) % len(style.DASHES)]
    ax.axhline(mean, color=style.GREY, linestyle=dash, linewidth=1, label=line.label)
    if error > 0:
        ax.axhspan(mean - error, mean + error, color=style.GREY, alpha=0.12, linewidth=0)
