"""Pictures of a result: matplotlib axes in and out, readable in grey and for the colour-blind.

Those of layers stand in `layer_plots`, the heat map in `heatmaps`; all of them are to be had from here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core.statistics import mean_and_error
from weightdecay.plots import axis_labels, style, table_lines
from weightdecay.plots.chosen import Chosen
from weightdecay.plots.heatmap import heatmap
from weightdecay.plots.heatmap import rules as mapped_rules
from weightdecay.plots.layers import norm_curves, norms, rotation, weights
from weightdecay.plots.ranking import ranking

__all__ = [
    "curves",
    "gap",
    "heatmap",
    "mapped_rules",
    "norm_curves",
    "norms",
    "page",
    "path",
    "ranking",
    "rotation",
    "sparsity",
    "weights",
]

_WORST_SHOWN = 2.5  # times the best loss; what lies above leaves the picture, so that the basin can be read


def path(
    table: pd.DataFrame,
    metric: str = "validation_loss",
    *,
    split: str | None = "learning_rate",
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot a metric against the coefficient: a line a rule (and learning rate), bands of one standard error.

    Over every other axis of the grid the best candidate is shown, and the legend says so. Rules without a coefficient
    are horizontal lines; a coefficient of 0 stands left of a linear piece of the axis. Of more than eight lines those
    with the best validation metric are told apart, the others are grey. Where each candidate has its own value of
    another axis, as in a random grid, points are not joined. Losses above 2.5 times the best
    leave the picture at the top, and a cross there marks each candidate that diverged.

    Args:
      table: As ``result.table()`` makes it.
      metric: A column of it that is no hyperparameter.
      split: Axis of the grid with a line a value; None, or where that makes more than eight lines: the best over it.
      chosen: The chosen candidate, marked by a ring, on the axis where it has no coefficient; None marks nothing.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: No such column.
    """
    _check_metric(table, metric)
    _check_split(table, split)
    ax = style.axes(ax)
    drawn = table_lines.through(table, metric, split=split)
    label = f"{metric}_standard_error"
    notes = _draw(ax, drawn, table, metric, lambda line: (line.values(table, metric), line.values(table, label)))
    values = np.concatenate([line.values(table, metric) for line in drawn.lines] or [np.zeros(0)])
    style.say_nothing_there(ax, values)
    if metric.endswith("loss"):
        _show_the_basin(ax, values)
    _mark_diverged(ax, drawn.lines, table, metric)
    if chosen is not None and chosen.number in table.index:
        _ring(ax, drawn.lines, table, float(table.loc[chosen.number, metric]), chosen)
    return style.finish(ax, _coefficients(drawn.lines), axis_labels.axis_of_metric(metric, loss), notes)


def gap(
    table: pd.DataFrame,
    dataset: Any,
    *,
    split: str | None = "learning_rate",
    chosen: Chosen | None = None,
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot the generalization gap at the last step against the coefficient, with error bars of one standard error.

    The gap is training less validation accuracy, or validation less training loss where there is no accuracy.

    Args:
      table: As ``result.table()`` makes it.
      dataset: As ``result.dataset``; the gap of each member is taken from it.
      split: As in `path`.
      chosen: As in `path`.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: No such axis to split the lines by.
    """
    _check_split(table, split)
    ax = style.axes(ax)
    last = dataset.isel(step=-1)
    accuracy = bool(np.isfinite(dataset["validation_accuracy"].values).any())
    words = ("train_accuracy", "validation_accuracy") if accuracy else ("validation_loss", "train_loss")
    each = last[words[0]].values - last[words[1]].values
    of = {}
    for number in table.index:
        members = np.flatnonzero(dataset["candidate"].values == number)
        of[number] = mean_and_error(each[members], table_lines.folds(dataset, members))

    def told(line: table_lines.Line) -> tuple[np.ndarray, np.ndarray]:
        means, errors = zip(*(of[number] for number in line.candidates), strict=True)
        return np.array(means), np.array(errors)

    drawn = table_lines.through(table, "generalization_gap", split=split)
    notes = _draw(ax, drawn, table, "generalization_gap", told, bars=True)
    style.say_nothing_there(ax, [mean for mean, _ in of.values()])
    _mark_diverged(ax, drawn.lines, table, "generalization_gap")
    if chosen is not None and chosen.number in of:
        _ring(ax, drawn.lines, table, of[chosen.number][0], chosen)
    ax.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
    difference, unit = ("training less validation accuracy", "share of examples")
    if not accuracy:
        difference, unit = "validation less training loss", axis_labels.of_loss(loss)
    return style.finish(ax, _coefficients(drawn.lines), f"generalization gap ({difference}), {unit}", notes)


def sparsity(table: pd.DataFrame, *, split: str | None = "learning_rate", ax: Any = None) -> Any:
    """Plot the share of exact zeros against the coefficient; rules that make none are one line.

    Args:
      table: As ``result.table()`` makes it.
      split: As in `path`.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: No such axis to split the lines by.
    """
    _check_split(table, split)
    ax = style.axes(ax)
    drawn = table_lines.through(table, "zero_fraction", split=split)
    dense = [line for line in drawn.lines if not np.nan_to_num(line.values(table, "zero_fraction")).any()]

    def told(line: table_lines.Line) -> tuple[np.ndarray, np.ndarray]:
        return line.values(table, "zero_fraction"), np.full(len(line.candidates), np.nan)

    notes = _draw(ax, drawn, table, "zero_fraction", told, without=dense)
    if dense:
        rules = {line.rule for line in drawn.lines} - {line.rule for line in drawn.lines if line not in dense}
        names = list(dict.fromkeys(_plainly(line.rule) if line.rule in rules else line.label for line in dense))
        shown = names[:4] + ([f"{len(names) - 4} others"] if len(names) > 4 else [])
        ax.axhline(0, color=style.GREY, linestyle="--", linewidth=1, label="none: " + ", ".join(shown))
    ax.set_ylim(-0.03, 1.03)
    return style.finish(ax, _coefficients(drawn.lines), axis_labels.axis_of_metric("zero_fraction"), notes)


def curves(
    dataset: Any,
    shown: Mapping[str, Sequence[int]],
    *,
    metric: str = "loss",
    loss: str | None = None,
    ax: Any = None,
) -> Any:
    """Plot training and validation curves, averaged over seeds, bands of one standard error.

    Crosses mark members that diverged, at the last finite value before; squares those that stopped early. A mean ends
    where the first of its members diverges.

    Args:
      dataset: As ``result.dataset``.
      shown: Members to average by the label of their lines.
      metric: ``"loss"``, ``"accuracy"``, or a metric of your own: what stands behind ``validation_``.
      loss: Name of the data loss, for its unit.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: No such metric, or an accuracy of a loss that has none.
    """
    known = [str(name)[11:] for name in dataset.data_vars if str(name).startswith("validation_")]
    if metric not in known:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(known)}.")
    if metric == "accuracy" and np.isnan(dataset["validation_accuracy"].values).all():
        raise ValueError("metric is 'accuracy', but this loss has none, or no member got to one; give metric='loss'.")
    ax = style.axes(ax)
    steps, drawn, shaded = dataset["step"].values, [], False
    for colour, (label, members) in enumerate(shown.items()):
        for dash, split in enumerate(("validation", "train")):
            each = dataset[f"{split}_{metric}"].values[list(members)].astype(float)
            mean, error = np.array([mean_and_error(values, table_lines.folds(dataset, members)) for values in each.T]).T
            name = f"{label}, {'training' if split == 'train' else split} {metric.replace('_', ' ')}"
            marked = {"markevery": max(1, len(steps) // 8)}
            ax.plot(steps, mean, label=name, **style.style(colour, dash), **marked)
            shaded |= style.band(ax, steps, mean, error, style.COLOURS[colour % len(style.COLOURS)])
            drawn.append(mean)
    style.say_nothing_there(ax, drawn)
    _mark_ends(ax, dataset, [index for members in shown.values() for index in members], f"validation_{metric}")
    if metric.endswith("loss"):
        style.logarithmic_y(ax, drawn)
    label = axis_labels.axis_of_metric(f"validation_{metric}", loss).removeprefix("validation ")
    label = f"data {label}" if metric == "loss" else label
    return style.finish(ax, "training step, number of updates", label, [_BANDS] if shaded else ())


def page(panels: Sequence[Callable[[Any], Any]], title: str = "") -> Any:
    """Put plots on one page, two a row.

    Args:
      panels: ``panel(ax)`` draws one.
      title: Of the page.

    Returns:
      The figure.
    """
    from matplotlib import pyplot

    rows = -(-len(panels) // 2)
    figure = pyplot.figure(figsize=(12.8, 5.0 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    for place, panel in enumerate(panels):
        ax = figure.add_subplot(rows, 2, place + 1)
        panel(ax)
    if title:
        figure.suptitle(style.wrapped(title, 140.0), x=0.01, ha="left", fontsize="medium")
    return figure


_BANDS = "bands: one standard error over seeds"
_BARS = "bars and grey band: one standard error over seeds"


def _draw(
    ax: Any,
    drawn: table_lines.Lines,
    table: pd.DataFrame,
    metric: str,
    told: Callable[[table_lines.Line], tuple[np.ndarray, np.ndarray]],
    *,
    bars: bool = False,
    without: Sequence[table_lines.Line] = (),
) -> list[str]:
    """Draw lines but those ``without`` against the coefficient, and say what has to be said of them."""
    with_coefficients = [line for line in drawn.lines if line.column]
    told_apart = table_lines.leading(with_coefficients, table, metric)
    rules = list(dict.fromkeys(line.rule for line in told_apart))
    style.coefficient_axis(ax, np.concatenate([line.coefficients for line in drawn.lines] or [np.zeros(0)]))
    shaded = False
    others = [line for line in with_coefficients if line not in told_apart and line not in without]
    for line in sorted(drawn.lines, key=lambda line: (line.column is None, line in others)):
        if line in without:
            continue
        mean, error = told(line)
        if line in others:
            label = f"{len(others)} others, worse" if line is others[0] else ""
            ax.plot(line.coefficients, mean, color="0.75", linewidth=0.8, zorder=1, label=label)
            continue
        shaded |= bool((np.nan_to_num(error) > 0).any())
        if line.column is None:
            dash = style.DASHES[(line.group + 1) % len(style.DASHES)]
            ax.axhline(mean[0], color=style.GREY, linestyle=dash, linewidth=1, label=line.label)
            if error[0] > 0:
                ax.axhspan(mean[0] - error[0], mean[0] + error[0], color=style.GREY, alpha=0.12, linewidth=0)
            continue
        looks = (
            style.style(line.group, line.group) if len(rules) == 1 else style.style(rules.index(line.rule), line.group)
        )
        looks |= {"linestyle": "none"} if line.own else {}
        ax.plot(line.coefficients, mean, label=line.label, **looks)
        if bars or line.own:
            errors = np.nan_to_num(error)
            ax.errorbar(line.coefficients, mean, errors, fmt="none", ecolor=looks["color"], capsize=3, elinewidth=1)
        else:
            style.band(ax, line.coefficients, mean, error, looks["color"])
    own = dict.fromkeys(name for line in drawn.lines for name in line.own)
    notes = [f"best over {_listed(drawn.best_over)}"] if drawn.best_over else []
    notes += [f"each point has its own {_listed(own)}"] if own else []
    return notes + ([_BARS if bars or own else _BANDS] if shaded else [])


def _plainly(rule: str) -> str:
    return "no decay" if rule == "NoDecay" else rule


def _listed(names: Iterable[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)


def _coefficients(drawn: Sequence[table_lines.Line]) -> str:
    return axis_labels.axis_of_coefficients((line.rule, line.column) for line in drawn if line.column is not None)


def _ring(ax: Any, drawn: Sequence[table_lines.Line], table: pd.DataFrame, value: float, chosen: Chosen) -> None:
    """Mark the chosen point; one without a coefficient has its ring on the left axis."""
    columns = {line.rule: line.column for line in drawn}
    column = columns.get(chosen.decay.name)
    where = {"transform": ax.get_yaxis_transform(), "clip_on": False} if column is None else {}
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
        **where,
    )


def _mark_diverged(ax: Any, drawn: Sequence[table_lines.Line], table: pd.DataFrame, metric: str) -> None:
    """Cross the coefficients at the top whose candidates have no finite mean."""
    died = [
        x
        for line in drawn
        if line.column is not None
        for x, value in zip(line.coefficients, line.values(table, metric), strict=True)
        if not np.isfinite(value)
    ]
    if died:
        ax.plot(
            died,
            np.full(len(died), 0.985),
            "x",
            color="black",
            markersize=6,
            transform=ax.get_xaxis_transform(),
            label="diverged, or not finite",
        )


def _mark_ends(ax: Any, dataset: Any, members: Sequence[int], metric: str) -> None:
    steps = dataset["step"].values
    for name, marker, label in (("diverged_at", "x", "a member diverged"), ("stopped_at", "s", "a member stopped")):
        if name not in dataset:
            continue
        ends = []
        for index in members:
            at, values = int(dataset[name].values[index]), dataset[metric].values[index]
            before = np.flatnonzero(np.isfinite(values) & (steps <= at))
            if at >= 0 and len(before):
                ends.append((at, values[before[-1]]))
        if ends:
            looks = {"color": "black", "markersize": 7, "markerfacecolor": "none", "linestyle": "none", "zorder": 4}
            ax.plot(*np.array(ends, float).T, marker=marker, label=label, **looks)


def _show_the_basin(ax: Any, losses: np.ndarray) -> None:
    finite = losses[np.isfinite(losses)]
    if len(finite) and finite.max() > _WORST_SHOWN * finite.min() > 0:
        ax.set_ylim(top=_WORST_SHOWN * finite.min(), bottom=0.9 * finite.min())


def _check_metric(table: pd.DataFrame, metric: str) -> None:
    known = [name for name in table.columns if name not in table_lines.hyperparameters(table)]
    known = [
        name
        for name in known
        if not name.endswith(("_standard_error", "_lower", "_upper")) and name not in ("seeds", "diverged")
    ]
    if metric not in known:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(known)}.")


def _check_split(table: pd.DataFrame, split: str | None) -> None:
    known = [
        name for name in table_lines.hyperparameters(table) if name != "decay" and not axis_labels.is_coefficient(name)
    ]
    if split is not None and split not in known and split != "learning_rate":
        raise ValueError(f"split is {split!r}; give one of {', '.join(known)}, or None for one line a rule.")
