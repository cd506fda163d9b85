"""The norm of each layer, against the coefficient or along training."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentError
from weightdecay.core.statistics import mean_and_error
from weightdecay.core.text import suggestion
from weightdecay.plots import axis_labels, layers, style, table_lines
from weightdecay.plots.along_coefficient import BANDS

_LABEL = "norm of a layer, in units of weight"


def norms(table: Any, layer_norm: Any, *, decay: str | None = None, ax: Any = None) -> Any:
    """Plot the norm of each layer at the last step against the coefficient of one rule.

    Bands are one standard error.
    For every other axis of the grid the candidate with the best validation loss is shown, and the legend names these
    axes. Dotted lines are the norms without decay.

    Args:
      table: The table, as ``result.table()`` returns it.
      layer_norm: An `xarray.DataArray` with the dimensions ``member`` and ``layer`` and their coordinates ``candidate``
        and ``layer`` (names of weights); values of members that are not shown may be nan.
      decay: Name of a rule; None: the first rule that has a coefficient.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: No such rule.
    """
    known = list(dict.fromkeys(table["decay"]))
    if decay is not None and decay not in known:
        raise ArgumentError(
            "decay",
            f"decay is {decay!r}; give the name of a rule of the grid: {', '.join(known)}."
            f"{suggestion(str(decay), known)}",
        )
    lines = table_lines.through(table, "validation_loss", split=None)
    line = next((line for line in lines.lines if line.column and decay in (None, line.rule)), None)
    without_decay = next((line for line in lines.lines if line.rule == "NoDecay"), None)
    if line is not None:
        lines = table_lines.through(table[table["decay"] == line.rule], "validation_loss", split=None)
    ax = style.axes(ax)
    style.coefficient_axis(ax, np.zeros(0) if line is None else line.coefficients)
    candidates, drawn, has_bands = layer_norm["candidate"].values, [], False

    def estimate(values: np.ndarray, candidate: int) -> tuple[float, float]:
        members = np.flatnonzero(candidates == candidate)
        return mean_and_error(values[members], table_lines.folds(layer_norm, members))

    names = [str(name) for name in layer_norm["layer"].values]
    for index, (name, looks) in enumerate(zip(names, layers.line_styles(len(names)), strict=True)):
        values = layer_norm.values[:, index].astype(float)
        if line is not None:
            mean, error = np.array([estimate(values, candidate) for candidate in line.candidates]).T
            ax.plot(line.coefficients, mean, label=name, **looks | ({} if all(line.joined) else {"linestyle": "none"}))
            for run in [] if all(line.joined) else line.runs():
                ax.plot(line.coefficients[run], mean[run], **looks | {"marker": ""})
            if all(line.joined):
                has_bands |= style.band(ax, line.coefficients, mean, error, looks["color"])
            elif (np.nan_to_num(error) > 0).any():
                ax.errorbar(line.coefficients, mean, np.nan_to_num(error), fmt="none", ecolor=looks["color"], capsize=3)
            drawn += list(mean)
        if without_decay is not None:
            mean, _ = estimate(values, without_decay.candidates[0])
            label = name if line is None else "" if index else "no decay, in the layer's colour"
            ax.axhline(mean, color=looks["color"], linestyle=":", linewidth=1.2, label=label)
            drawn.append(mean)
    style.mark_empty(ax, drawn)
    style.logarithmic_y(ax, drawn)
    axis = axis_labels.axis_of_coefficients([] if line is None else [(line.rule, line.column or "")])
    return style.finish(ax, axis, _LABEL, style.notes_on(lines.best_over, BANDS if has_bands else ""))


def norm_curves(dataset: Any, shown: Mapping[str, Sequence[int]], *, ax: Any = None) -> Any:
    """Plot the norm of each layer along training, averaged over seeds, with bands of one standard error.

    Args:
      dataset: The dataset, as ``result.dataset``, with the variable ``layer_weight_norm``.
      shown: Members to average, by label; each label has its own dashes, each layer its own colour.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: A dataset without ``layer_weight_norm``.
    """
    layers.check_variable(dataset, "layer_weight_norm")
    ax = style.axes(ax)
    style.logarithmic_y(ax, layers.draw_along_training(ax, dataset, "layer_weight_norm", shown))
    return style.finish(ax, style.STEP_LABEL, _LABEL)
