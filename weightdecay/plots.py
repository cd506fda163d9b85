"""Pictures of a result: matplotlib axes in and out, readable in grey and for the colour-blind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.selection import Choice, mean_and_error

# Okabe & Ito's palette, told apart by markers and dashes as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_LABELS = {
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "generalization_gap": "generalization gap",
    "weight_norm": "norm of the weights that decay",
    "zero_fraction": "share of exact zeros among the weights that decay",
}
_WORST_SHOWN = 2.5  # times the best loss; what lies above leaves the picture, so that the basin can be read


def path(table: pd.DataFrame, metric: str = "validation_loss", *, chosen: Choice | None = None, ax: Any = None) -> Any:
    """Plot a metric against the coefficient: a line a rule (and learning rate), bands of one standard error.

    Losses above 2.5 times the best leave the picture at the top.

    Args:
      table: As ``result.table()`` makes it.
      metric: A column of it.
      chosen: The chosen candidate, marked by a ring; None marks nothing.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.

    Raises:
      ValueError: No such column.
    """
    if metric not in _LABELS:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(_LABELS)}.")
    ax = _axes(ax)
    lines = _lines(table, metric)
    for style, dash, label, line in lines:
        ax.plot(line[:, 0], line[:, 1], label=label, **_style(style, dash))
        _band(ax, line, style)
    for dash, (label, mean, error) in enumerate(_without_decay(table, metric)):
        ax.axhline(mean, color="0.35", linestyle=_DASHES[(dash + 1) % len(_DASHES)], linewidth=1, label=label)
        ax.axhspan(mean - error, mean + error, color="0.35", alpha=0.12, linewidth=0)
    if chosen is not None:
        _ring(ax, table, metric, chosen)
    if metric.endswith("loss"):
        _show_the_basin(ax, table[metric].to_numpy(float))
    return _finished(ax, metric, logarithmic=bool(lines))


def sparsity(table: pd.DataFrame, *, ax: Any = None) -> Any:
    """Plot the share of exact zeros against the coefficient; rules that make none are one line.

    Args:
      table: As ``result.table()`` makes it.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.
    """
    ax = _axes(ax)
    lines = _lines(table, "zero_fraction")
    dense = [label for *_, label, line in lines if not line[:, 1].any()]
    dense += [label for label, mean, _ in _without_decay(table, "zero_fraction") if mean == 0]
    for style, dash, label, line in lines:
        if label not in dense:
            ax.plot(line[:, 0], line[:, 1], label=label, **_style(style, dash))
    if dense:
        ax.axhline(0, color="0.35", linestyle="--", linewidth=1, label="none: " + ", ".join(dense))
    ax.set_ylim(-0.03, 1.03)
    return _finished(ax, "zero_fraction", logarithmic=bool(lines))


def curves(dataset: Any, shown: Mapping[str, Sequence[int]], *, ax: Any = None) -> Any:
    """Plot training and validation loss along training, seeds averaged, bands of one standard error.

    Args:
      dataset: As ``result.dataset``.
      shown: Members to average by the label of their lines.
      ax: Matplotlib axes; None makes new ones.

    Returns:
      The axes.
    """
    ax = _axes(ax)
    for style, (label, members) in enumerate(shown.items()):
        for dash, metric in enumerate(("validation_loss", "train_loss")):
            values = dataset[metric].values[list(members)]
            line = np.array(
                [(step, *mean_and_error(v)) for step, v in zip(dataset["step"].values, values.T, strict=True)]
            )
            ax.plot(line[:, 0], line[:, 1], label=f"{label}, {_LABELS[metric]}", markevery=0.2, **_style(style, dash))
            _band(ax, line, style)
    _logarithmic_in_plain_numbers(ax)
    _finished(ax, "validation_loss", logarithmic=False)
    ax.set_xlabel("training step")
    ax.set_ylabel("data loss")
    return ax


def _lines(table: pd.DataFrame, metric: str) -> list[tuple[int, int, str, np.ndarray]]:
    """Lines of a path: style of the rule, style of the learning rate, label, and (coefficient, mean, error) a point."""
    rows = [row for row in table.to_dict("records") if not np.isnan(row["coefficient"])]
    kinds, rates = (list(dict.fromkeys(row[name] for row in rows)) for name in ("decay", "learning_rate"))
    lines = []
    for style, kind in enumerate(kinds):
        for dash, rate in enumerate(rates):
            points = [_point(row, metric) for row in rows if row["decay"] == kind and row["learning_rate"] == rate]
            if points:
                label = f"{kind}, learning rate {rate:g}" if len(rates) > 1 else str(kind)
                lines.append((style, dash, label, np.array(sorted(points))))
    return lines


def _without_decay(table: pd.DataFrame, metric: str) -> list[tuple[str, float, float]]:
    """Label, mean and error of each candidate without decay."""
    rows = [row for row in table.to_dict("records") if row["decay"] == "NoDecay"]
    return [
        (
            "no decay" if len(rows) == 1 else f"no decay, learning rate {row['learning_rate']:g}",
            *_point(row, metric)[1:],
        )
        for row in rows
    ]


def _point(row: Mapping[Any, Any], metric: str) -> tuple[float, float, float]:
    return row["coefficient"], row[metric], float(np.nan_to_num(row.get(f"{metric}_standard_error", 0.0)))


def _ring(ax: Any, table: pd.DataFrame, metric: str, chosen: Choice) -> None:
    """Mark the chosen point; no decay has none, and is told in the legend alone."""
    coefficient, mean, _ = _point(table.to_dict("records")[chosen.number], metric)
    ring = {} if np.isnan(coefficient) else {"marker": "o", "markersize": 12, "markerfacecolor": "none"}
    ax.plot(coefficient, mean, linestyle="none", label=f"chosen: {chosen.decay}", markeredgecolor="black", **ring)


def _style(style: int, dash: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[style % len(_COLOURS)],
        "marker": _MARKERS[style % len(_MARKERS)],
        "linestyle": _DASHES[dash % len(_DASHES)],
        "markersize": 4,
    }


def _band(ax: Any, line: np.ndarray, style: int) -> None:
    x, mean, error = line.T[0], line.T[1], np.nan_to_num(line.T[2])
    ax.fill_between(x, mean - error, mean + error, color=_COLOURS[style % len(_COLOURS)], alpha=0.15, linewidth=0)


def _show_the_basin(ax: Any, losses: np.ndarray) -> None:
    finite = losses[np.isfinite(losses)]
    if len(finite) and finite.max() > _WORST_SHOWN * finite.min() > 0:
        ax.set_ylim(top=_WORST_SHOWN * finite.min(), bottom=0.9 * finite.min())


def _logarithmic_in_plain_numbers(ax: Any) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    plain = FuncFormatter(lambda value, _: f"{value:g}")
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
    ax.yaxis.set_minor_formatter(plain)


def _finished(ax: Any, metric: str, *, logarithmic: bool) -> Any:
    if logarithmic:
        ax.set_xscale("log")
    ax.set_xlabel("coefficient, in the unit of its rule")
    ax.set_ylabel(_LABELS[metric])
    ax.legend(fontsize="small", frameon=False)
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")[1]
