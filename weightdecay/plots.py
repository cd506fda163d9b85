"""Pictures of a result: matplotlib axes in and out, readable in grey and for the colour-blind."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.selection import Choice

# Okabe & Ito's palette, told apart by markers and dashes as well.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES = ("-", "--", "-.", ":")
_LABELS = {
    "validation_loss": "validation loss",
    "validation_accuracy": "validation accuracy",
    "train_loss": "training loss",
    "train_accuracy": "training accuracy",
    "weight_norm": "norm of the weights that decay",
    "zero_fraction": "exact zeros among the weights that decay",
    "generalization_gap": "generalization gap",
}


def path(table: pd.DataFrame, metric: str = "validation_loss", *, chosen: Choice | None = None, ax: Any = None) -> Any:
    """Plot a metric against the coefficient: a line a rule (and learning rate), bands of one standard error.

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
    if metric not in table.columns:
        raise ValueError(f"metric is {metric!r}; give one of {', '.join(_LABELS)}.")
    ax = _axes(ax)
    errors = table.get(f"{metric}_standard_error", pd.Series(0.0, table.index)).fillna(0.0)
    without = table[table["decay"] == "NoDecay"]
    with_decay = table[table["coefficient"].notna()]
    learning_rates = sorted(table["learning_rate"].unique())
    several = len(learning_rates) > 1
    for style, (kind, of_kind) in enumerate(with_decay.groupby("decay", sort=False)):
        for dash, rate in enumerate(learning_rates):
            line = of_kind[of_kind["learning_rate"] == rate].sort_values("coefficient")
            if line.empty:
                continue
            colour = _COLOURS[style % len(_COLOURS)]
            ax.plot(
                line["coefficient"],
                line[metric],
                marker=_MARKERS[style % len(_MARKERS)],
                markersize=4,
                linestyle=_DASHES[dash % len(_DASHES)],
                color=colour,
                label=f"{kind}, learning rate {rate:g}" if several else str(kind),
            )
            error = errors[line.index]
            ax.fill_between(line["coefficient"], line[metric] - error, line[metric] + error, color=colour, alpha=0.15, linewidth=0)
    for dash, (index, row) in enumerate(without.iterrows()):
        label = f"no decay, learning rate {row['learning_rate']:g}" if several else "no decay"
        ax.axhline(row[metric], color="0.35", linestyle=_DASHES[(dash + 1) % len(_DASHES)], linewidth=1, label=label)
        ax.axhspan(row[metric] - errors[index], row[metric] + errors[index], color="0.35", alpha=0.12, linewidth=0)
    if chosen is not None and pd.notna(table.loc[chosen.number, "coefficient"]):
        ax.plot(
            table.loc[chosen.number, "coefficient"],
            table.loc[chosen.number, metric],
            marker="o",
            markersize=12,
            markerfacecolor="none",
            markeredgecolor="black",
            linestyle="none",
            label=f"chosen: {chosen.decay}",
        )
    if not with_decay.empty:
        ax.set_xscale("log")
    if metric.endswith("loss"):
        _show_all_but_the_tail(ax, table[metric])
    ax.set_xlabel("coefficient, in the unit of its rule")
    ax.set_ylabel(_LABELS.get(metric, metric))
    ax.legend(fontsize="small", frameon=False, loc="best")
    return ax


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
    steps = dataset["step"].values
    for style, (label, members) in enumerate(shown.items()):
        colour = _COLOURS[style % len(_COLOURS)]
        for metric, dash in (("validation_loss", "-"), ("train_loss", "--")):
            values = dataset[metric].values[list(members)]
            mean = values.mean(axis=0)
            ax.plot(steps, mean, dash, color=colour, marker=_MARKERS[style], markevery=0.2, markersize=4, label=f"{label}, {_LABELS[metric]}")
            if len(values) > 1:
                error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
                ax.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("data loss")
    ax.legend(fontsize="small", frameon=False)
    return ax


def _show_all_but_the_tail(ax: Any, values: pd.Series) -> None:
    """Keep the differences that matter readable where too much decay makes the loss many times larger."""
    finite = values[np.isfinite(values)]
    if len(finite) and finite.max() > 4 * finite.min() > 0:
        ax.set_yscale("log")


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(6.4, 4.4), layout="constrained")[1]
