"""A histogram of the weights of each layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.plots import layers, style

_MAX_ROWS = 12


def weights(shown: Mapping[str, Sequence[Any]], *, ax: Any = None) -> Any:
    """Plot a histogram of the weights of each layer, one row per layer, with a logarithmic number of weights.

    Exact zeros are left out, because they would hide the other weights; the label of each row has their fraction.

    Args:
      shown: Trees of weights, one per seed, by the label of their histograms; the first label is filled.
      ax: Matplotlib axes; None makes new axes.

    Returns:
      The axes.
    """
    ax = style.axes(ax)
    kernels = {label: layers.kernels(trees) for label, trees in shown.items()}
    names = list(dict.fromkeys(name for by_name in kernels.values() for name in by_name))
    notes = [f"{_MAX_ROWS} of {len(names)} arrays"] if len(names) > _MAX_ROWS else []
    names = names[:_MAX_ROWS]
    ends = [abs(by_name[name]).max() for by_name in kernels.values() for name in names if _has_weights(by_name, name)]
    end = float(max(ends, default=1.0)) or 1.0
    edges = np.linspace(-end, end, 82)
    log_counts: dict[tuple[str, str], np.ndarray] = {
        (label, name): np.log1p(np.histogram(by_name[name][by_name[name] != 0], edges)[0] / len(shown[label]))
        for label, by_name in kernels.items()
        for name in names
        if name in by_name
    }
    tallest = max((float(counts.max()) for counts in log_counts.values()), default=0.0) or 1.0
    for row, name in enumerate(names):
        base = len(names) - 1 - row
        ax.axhline(base, color=style.GREY, linewidth=0.6, zorder=1)
        for order, label in enumerate(kernels):
            if name not in kernels[label]:
                continue
            heights = base + 0.85 * log_counts[label, name] / tallest
            looks = {"color": style.COLOURS[order % len(style.COLOURS)]}
            looks |= {"fill": True, "alpha": 0.45} if order == 0 else {"linewidth": 1.3}
            ax.stairs(heights, edges, baseline=base, label="" if row else label, zorder=2 + order, **looks)
    fractions = [
        " / ".join(
            f"{np.mean(by_name[name] == 0):.3g}" if _has_weights(by_name, name) else "-" for by_name in kernels.values()
        )
        for name in names
    ]
    ax.set_yticks(
        range(len(names) - 1, -1, -1),
        [f"{name}\nzeros: {fraction}" for name, fraction in zip(names, fractions, strict=True)],
        fontsize="small" if len(names) < 8 else "x-small",
    )
    ax.set_ylim(-0.08, max(1, len(names)))
    ax.set_xlim(-1.04 * end, 1.04 * end)
    notes.append(f"height: log(1 + weights per bin), full height {np.expm1(tallest):.0f} weights")
    return style.finish(
        ax,
        "value of a weight, in units of weight",
        "layer, and the fraction of exact zeros in the order of the legend",
        notes,
    )


def _has_weights(kernels: Mapping[str, np.ndarray], name: str) -> bool:
    return name in kernels and kernels[name].size > 0
