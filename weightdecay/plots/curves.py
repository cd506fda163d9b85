"""Training and validation curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core.checks import ArgumentError
from weightdecay.core.statistics import mean_and_error
from weightdecay.core.text import suggestion
from weightdecay.plots import axis_labels, style, table_lines
from weightdecay.plots.along_coefficient import BANDS


def curves(
    dataset: Any,
    shown: Mapping[str, Sequence[int]],
    *,
    metric: str = "loss",
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot training and validation curves, averaged over seeds, with bands of one standard error.

    A cross marks a member that diverged, at its last finite value; a square marks a member that stopped early. A mean
    ends where the first of its members diverges.

    Args:
      dataset: The dataset, as ``result.dataset``.
      shown: Members to average, by the label of their lines.
      metric: ``"loss"``, ``"accuracy"``, or a metric of the user's own: the part of its name after ``validation_``.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.

    Raises:
      ArgumentError: No such metric, or the accuracy of a loss that has none.
    """
    known = [str(name)[11:] for name in dataset.data_vars if str(name).startswith("validation_")]
    if metric not in known:
        raise ArgumentError(
            "metric", f"metric is {metric!r}; give one of {', '.join(known)}.{suggestion(str(metric), known)}"
        )
    if metric == "accuracy" and np.isnan(dataset["validation_accuracy"].values).all():
        raise ArgumentError(
            "metric",
            "metric is 'accuracy', but this loss has none, or no member reached a finite one; give metric='loss'.",
        )
    ax = style.axes(ax)
    steps, means, has_bands = dataset["step"].values, [], False
    for colour, (label, members) in enumerate(shown.items()):
        for dash, split in enumerate(("validation", "train")):
            values = dataset[f"{split}_{metric}"].values[list(members)].astype(float)
            folds = table_lines.folds(dataset, members)
            mean, error = np.array([mean_and_error(at_step, folds) for at_step in values.T]).T
            name = f"{label}, {'training' if split == 'train' else split} {metric.replace('_', ' ')}"
            markers = {"markevery": max(1, len(steps) // 8)}
            ax.plot(steps, mean, label=name, **style.line_style(colour, dash), **markers)
            has_bands |= style.band(ax, steps, mean, error, style.COLOURS[colour % len(style.COLOURS)])
            means.append(mean)
    style.mark_empty(ax, means)
    _mark_ends(ax, dataset, [index for members in shown.values() for index in members], f"validation_{metric}")
    if metric.endswith("loss"):
        style.logarithmic_y(ax, means)
    label = axis_labels.axis_of_metric(f"validation_{metric}", loss).removeprefix("validation ")
    label = f"data {label}" if metric == "loss" else label
    return style.finish(ax, style.STEP_LABEL, label, [BANDS] if has_bands else ())


def _mark_ends(ax: Any, dataset: Any, members: Sequence[int], metric: str) -> None:
    """Mark the last finite value of members that diverged or stopped early."""
    steps = dataset["step"].values
    for name, marker, label in (("diverged_at", "x", "a member diverged"), ("stopped_at", "s", "a member stopped")):
        if name not in dataset:
            continue
        ends = []
        for index in members:
            end, values = int(dataset[name].values[index]), dataset[metric].values[index]
            before = np.flatnonzero(np.isfinite(values) & (steps <= end))
            if end >= 0 and len(before):
                ends.append((end, values[before[-1]]))
        if ends:
            looks = {"color": "black", "markersize": 7, "markerfacecolor": "none", "linestyle": "none", "zorder": 4}
            ax.plot(*np.array(ends, float).T, marker=marker, label=label, **looks)
