"""What all plots share: colours for the colour-blind, markers and dashes for grey print, ticks that do not overlap.

A legend stands above its axes, where it covers nothing.
"""

import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's palette, without its yellow, which paper swallows."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", "--", "-.", ":")
GREY = "0.35"
MOST_ENTRIES = 14  # of a legend; the others are counted
_MOST_ROWS = 8  # of a legend
_MOST_TICKS = 6
_LONGEST_LABEL = 60  # characters of an entry of a legend


def axes(ax: Any) -> Any:
    """Axes to draw in, in a figure that keeps room for a legend.

    Args:
      ax: Matplotlib axes, whose figure gets the constrained layout where it has none; None makes new ones.

    Returns:
      The axes.
    """
    if ax is None:
        from matplotlib import pyplot

        return pyplot.subplots(figsize=(6.4, 4.8), layout="constrained")[1]
    if ax.figure.get_layout_engine() is None:
        ax.figure.set_layout_engine("constrained")
    return ax


def style(colour: int, dash: int = 0) -> dict[str, Any]:
    """Looks of a line: colour and marker of the first number, dashes of the second.

    Args:
      colour: From 0; there are seven colours, and nine markers, so that 63 pairs differ.
      dash: From 0.

    Returns:
      Arguments of ``ax.plot``.
    """
    return {
        "color": COLOURS[colour % len(COLOURS)],
        "marker": MARKERS[colour % len(MARKERS)],
        "linestyle": DASHES[dash % len(DASHES)],
        "markersize": 4,
        "linewidth": 1.4,
    }


def band(ax: Any, x: Any, mean: Any, error: Any, colour: Any) -> bool:
    """Shade one standard error around a line.

    Args:
      ax: Axes.
      x: Shape ``(points,)``.
      mean: Shape ``(points,)``.
      error: Shape ``(points,)``; nan where there is none.
      colour: Of the line.

    Returns:
      Whether there was any error to draw.
    """
    if not (np.nan_to_num(error) > 0).any():
        return False
    ax.fill_between(x, mean - np.nan_to_num(error), mean + np.nan_to_num(error), color=colour, alpha=0.18, linewidth=0)
    return True


def finish(ax: Any, xlabel: str, ylabel: str, notes: Sequence[str] = (), *, above: float = 0.4) -> Any:
    """Label the axes, and put the legend above them.

    Args:
      ax: Axes.
      xlabel: Label with a unit.
      ylabel: Label with a unit.
      notes: What is said above the legend.
      above: Distance of the legend from the axes, in heights of its letters.

    Returns:
      The axes.
    """
    width, height = size(ax)
    ax.set_xlabel(wrapped(xlabel, width * 12.5))
    ax.set_ylabel(wrapped(ylabel, height * 12.5))
    ax.spines[["top", "right"]].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    labels = [textwrap.shorten(label, _LONGEST_LABEL, placeholder=" ...") for label in labels]
    columns = int(max(1, width * 14 // (max(map(len, labels), default=1) + 7)))
    most = min(MOST_ENTRIES, _MOST_ROWS * columns)
    if len(handles) > most:
        kept = most - 4  # the last three are what is marked: no decay, what diverged, the choice
        labels = [*labels[:kept], f"and {len(handles) - kept - 3} others", *labels[-3:]]
        handles = [*handles[:kept], _nothing(), *handles[-3:]]
    if handles or notes:
        ax.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            borderaxespad=above,
            ncols=math.ceil(len(labels) / math.ceil(len(labels) / columns)) if labels else 1,
            title=wrapped("; ".join(notes), width * 14) or None,
            title_fontsize="small",
            alignment="left",
            fontsize="small",
            frameon=False,
            handlelength=2.6,
        )
    return ax


def say_nothing_there(ax: Any, values: Any) -> None:
    """Say so in axes where no value is finite.

    Args:
      ax: Axes.
      values: What would be drawn.
    """
    if not np.isfinite(np.asarray(values, float)).any():
        ax.text(0.5, 0.5, "no finite value", transform=ax.transAxes, ha="center", va="center", color=GREY)


def coefficient_axis(ax: Any, coefficients: Any) -> None:
    """Make the x axis logarithmic, with ticks at the coefficients where they are few; 0 stands left of a linear piece.

    Args:
      ax: Axes.
      coefficients: All that are drawn, >= 0.
    """
    values = np.unique(np.asarray(coefficients, float))
    values = values[np.isfinite(values)]
    positive = values[values > 0]
    if not len(positive):
        ax.set_xticks([0] if len(values) else [])
        return
    decades = max(1.0, math.log10(positive[-1] / positive[0]))
    if len(positive) < len(values):
        ax.set_xscale("symlog", linthresh=positive[0], linscale=max(0.5, decades / 6))
        ax.set_xlim(-0.3 * positive[0], positive[-1] * 10 ** (0.05 * decades))
    else:
        margin = 10 ** (0.05 * decades)
        ax.set_xscale("log")
        ax.set_xlim(positive[0] / margin, positive[-1] * margin)
    set_ticks(ax.xaxis, [*([0.0] if len(positive) < len(values) else []), *ticks_among(positive)])


def ticks_among(values: np.ndarray) -> list[float]:
    """Ticks of a logarithmic axis, at most six.

    Args:
      values: What is drawn, ascending, > 0.

    Returns:
      The values themselves, or every second ... of them, where they are evenly spaced; else powers of ten, or a few
      plain numbers within a decade.
    """
    logs = np.log10(values)
    if len(values) == 1:
        return [float(values[0])]
    gaps = np.diff(logs)
    if gaps.min() > 0.6 * gaps.max() and len(values) <= 4 * _MOST_TICKS:
        return [float(v) for v in values[:: math.ceil(len(values) / _MOST_TICKS)]]
    first, last = math.ceil(logs[0] - 1e-9), math.floor(logs[-1] + 1e-9)
    if last - first >= 1:
        return [10.0**power for power in range(first, last + 1, math.ceil((last - first + 1) / _MOST_TICKS))]
    return [float(v) for v in np.geomspace(values[0], values[-1], 3)]


def set_ticks(axis: Any, values: Sequence[float | int]) -> None:
    """Put labelled ticks at values, and no others.

    Args:
      axis: An axis of axes.
      values: Where.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(numbers(values)))
    axis.set_minor_locator(NullLocator())


def numbers(values: Sequence[float | int]) -> list[str]:
    r"""Numbers of an axis at three digits: all plain, or all with powers of ten where one of them is long.

    Args:
      values: Any.

    Returns:
      One label a value, in matplotlib's mathtext.

    Examples:
      >>> numbers([0, 0.00316228, 0.1, 1000])
      ['0', '0.00316', '0.1', '1000']
      >>> numbers([0.0, 1e-5, 3.16e-3, 1.0])
      ['0', '$10^{-5}$', '$3.16 \\times 10^{-3}$', '$10^{0}$']
    """
    if all(value == 0 or 1e-3 <= abs(value) < 1e4 for value in values):
        return [f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}" for value in values]
    labels = []
    for value in values:
        digits, power = f"{value:.2e}".split("e")
        digits = digits.rstrip("0").rstrip(".")
        ten = f"10^{{{int(power)}}}"
        labels.append("0" if value == 0 else f"${ten}$" if digits == "1" else f"${digits} \\times {ten}$")
    return labels


def logarithmic_y(ax: Any, values: Any) -> None:
    """Make the y axis logarithmic in plain numbers where all that is drawn is above 0.

    Args:
      ax: Axes.
      values: What is drawn; what is not finite does not count.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    finite = np.asarray(values, float)
    finite = finite[np.isfinite(finite)]
    if not len(finite) or finite.min() <= 0:
        return
    ax.set_yscale("log")
    ratio = finite.max() / finite.min()
    subs = (1, 1.5, 2, 3, 4, 5, 6, 8) if ratio < 8 else (1, 2, 5) if ratio < 300 else (1,)
    ax.yaxis.set_major_locator(MaxNLocator(5) if ratio < 1.6 else LogLocator(subs=subs, numticks=12))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: numbers([value])[0]))
    ax.yaxis.set_minor_formatter(NullFormatter())
    if ratio < 300:
        ax.yaxis.set_minor_locator(NullLocator())


def wrapped(text: str, width: float) -> str:
    """Break a text into lines, but never within a unit.

    Args:
      text: Any.
      width: Characters of a line.

    Returns:
      The lines, joined.
    """
    held = "\N{NO-BREAK SPACE}"
    whole = re.sub(r"(?<=\S) (?=[/·(])|(?<=[/·]) |(?<=· learning) |(?<=\bin) | (?=in\b)", held, text)
    lines = textwrap.wrap(whole, max(20, int(width)), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(held, " ")


def size(ax: Any) -> tuple[float, float]:
    """Size of axes, as far as that is known before the figure is laid out.

    Args:
      ax: Axes.

    Returns:
      Width and height in inches.
    """
    grid = ax.get_subplotspec()
    rows, columns = (1, 1) if grid is None else grid.get_gridspec().get_geometry()
    width, height = ax.figure.get_size_inches()
    return 0.85 * width / columns, 0.75 * height / rows


def _nothing() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none")
