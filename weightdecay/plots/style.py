"""What all plots share: colours that colour-blind readers can tell apart, markers and dashes for grey prints, ticks.

The legend is above the axes, where it covers no data, and a title that the user sets is above the legend.
"""

import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.plots import axis_labels

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"),
    *("#882255", "#2B2BFF", "#4E4E00", "#7FA800", "#14147A"),
)
"""Twelve colours: the palette of Okabe & Ito without its yellow, which is hard to see on paper, and five more that
differ from these and from each other, also for readers who see no green."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "*", "h")
DASHES = ("-", "--", "-.", ":")
GREY = "0.35"
STEP_LABEL = "training step, number of updates"
"""Label of an axis of training steps."""
MAX_LEGEND_ENTRIES = 18
"""Maximum number of entries of a legend; further entries are only counted."""
_MAX_LEGEND_ROWS = 9
_MAX_TICKS = 6
_MAX_LABEL_LENGTH = 60  # characters of a legend entry


def axes(ax: Any) -> Any:
    """Return axes whose figure leaves room for a legend.

    Args:
      ax: Matplotlib axes; their figure gets the constrained layout if it has no layout engine. None makes new axes.

    Returns:
      The axes.
    """
    if ax is None:
        from matplotlib import pyplot

        return pyplot.subplots(figsize=(6.4, 4.8), layout="constrained")[1]
    if ax.figure.get_layout_engine() is None:
        ax.figure.set_layout_engine("constrained")
    return ax


def line_style(colour: int, dash: int = 0) -> dict[str, Any]:
    """Return the style of a line: colour and marker by the first number, dashes by the second.

    Args:
      colour: Counted from 0. There are twelve colours, each with a marker of its own.
      dash: Counted from 0.

    Returns:
      Keyword arguments of ``ax.plot``.
    """
    return {
        "color": COLOURS[colour % len(COLOURS)],
        "marker": MARKERS[colour % len(MARKERS)],
        "linestyle": DASHES[dash % len(DASHES)],
        "markersize": 4,
        "linewidth": 1.4,
    }


def band(ax: Any, x: Any, mean: Any, error: Any, colour: Any) -> bool:
    """Shade a band of one standard error around a line.

    Args:
      ax: Matplotlib axes.
      x: Shape ``(points,)``.
      mean: Shape ``(points,)``.
      error: Standard errors, shape ``(points,)``; nan = unknown, drawn as 0.
      colour: Colour of the line.

    Returns:
      Whether any error is above 0, that is, whether a band was drawn.
    """
    if not (np.nan_to_num(error) > 0).any():
        return False
    ax.fill_between(x, mean - np.nan_to_num(error), mean + np.nan_to_num(error), color=colour, alpha=0.18, linewidth=0)
    return True


def finish(ax: Any, xlabel: str, ylabel: str, notes: Sequence[str] = (), *, above: float = 0.4) -> Any:
    """Label the axes and put the legend above them.

    Args:
      ax: Matplotlib axes.
      xlabel: Label of the x axis, with a unit.
      ylabel: Label of the y axis, with a unit.
      notes: Remarks that are printed as the title of the legend.
      above: Distance between the axes and the legend, in units of the font size.

    Returns:
      The axes.
    """
    width, height = size(ax)
    ax.set_xlabel(wrapped(xlabel, width * 12.5))
    ax.set_ylabel(wrapped(ylabel, height * 12.5))
    ax.spines[["top", "right"]].set_visible(False)
    handles, labels = ax.get_legend_handles_labels()
    if handles or notes:
        legend_above(ax, handles, labels, notes, above=above)
        _reserve_legend_space(ax)
    return ax


def legend_above(
    ax: Any, handles: Sequence[Any], labels: Sequence[str], notes: Sequence[str] = (), *, above: float = 0.4
) -> None:
    """Put a legend above axes.

    Args:
      ax: Matplotlib axes.
      handles: What is explained.
      labels: One text for each.
      notes: Remarks that are printed as the title of the legend.
      above: Distance between the axes and the legend, in units of the font size.
    """
    width, _ = size(ax)
    labels = [textwrap.shorten(label, _MAX_LABEL_LENGTH, placeholder=" ...") for label in labels]
    columns = int(max(1, width * 14 // (max(map(len, labels), default=1) + 7)))
    most = min(MAX_LEGEND_ENTRIES, _MAX_LEGEND_ROWS * columns)
    if len(handles) > most:
        kept = most - 4  # The last three mark no decay, diverged candidates and the chosen candidate.
        labels = [*labels[:kept], f"and {len(handles) - kept - 3} others", *labels[-3:]]
        handles = [*handles[:kept], _invisible_handle(), *handles[-3:]]
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


def mark_empty(ax: Any, values: Any) -> None:
    """Write "no finite value" into axes that show no finite value.

    Args:
      ax: Matplotlib axes.
      values: The values that were drawn.
    """
    if not np.isfinite(np.asarray(values, float)).any():
        ax.text(0.5, 0.5, "no finite value", transform=ax.transAxes, ha="center", va="center", color=GREY)


def limits_of_good(values: Any, *, lower_is_better: bool, shown: Sequence[float] = ()) -> tuple[float, float]:
    """Compute the range of a metric in which its good values can be distinguished.

    It extends from the best value to three times the spread of the better third (at least three values), which is the
    whole range if values are spread evenly, and less if some are far worse than the others.

    Args:
      values: The metric; values that are not finite are ignored.
      lower_is_better: Whether lower values are better.
      shown: Values that are inside in any case, unless they are ten spreads worse than the best.

    Returns:
      The lowest and the highest value of the range; nan if no value is finite.

    Examples:
      >>> limits_of_good([0.5, 0.52, 0.53, 0.6, 2.3, 40.0], lower_is_better=True)
      (0.5, 0.59)
      >>> limits_of_good([0.9, 0.8, 0.7], lower_is_better=False)
      (0.7, 0.9)
    """
    finite = np.asarray(values, float)
    finite = np.sort(finite[np.isfinite(finite)] * (1 if lower_is_better else -1))
    if not len(finite):
        return math.nan, math.nan
    best, worst = finite[0], finite[-1]
    spread = finite[min(len(finite) - 1, max(2, math.ceil(len(finite) / 3) - 1))] - best
    limit = min(worst, best + 3 * spread) if spread > 0 else worst
    for value in np.asarray(shown, float) * (1 if lower_is_better else -1):
        if limit < value <= best + 10 * spread:
            limit = value
    ends = sorted((float(best), float(limit)) if lower_is_better else (-float(limit), -float(best)))
    return round(ends[0], 12), round(ends[1], 12)


def coefficient_axis(ax: Any, coefficients: Any) -> None:
    """Make the x axis logarithmic, with ticks at the coefficients if there are few.

    If a coefficient is 0, the axis has a linear piece at the left end, from 0 to the smallest positive coefficient.

    Args:
      ax: Matplotlib axes.
      coefficients: All coefficients that are drawn, >= 0.
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
    """Choose at most six ticks for a logarithmic axis.

    Args:
      values: The values that are drawn, ascending, > 0.

    Returns:
      If the values are evenly spaced: the values themselves, or every second, third, ... of them. Otherwise powers of
      ten, or, within one decade, the two ends and their geometric mean.
    """
    logs = np.log10(values)
    if len(values) == 1:
        return [float(values[0])]
    gaps = np.diff(logs)
    if gaps.min() > 0.6 * gaps.max() and len(values) <= 4 * _MAX_TICKS:
        return [float(v) for v in values[:: math.ceil(len(values) / _MAX_TICKS)]]
    first, last = math.ceil(logs[0] - 1e-9), math.floor(logs[-1] + 1e-9)
    if last - first >= 1:
        return [10.0**power for power in range(first, last + 1, math.ceil((last - first + 1) / _MAX_TICKS))]
    return [float(v) for v in np.geomspace(values[0], values[-1], 3)]


def set_ticks(axis: Any, values: Sequence[float | int]) -> None:
    """Set labelled ticks at the given values and remove all other ticks.

    Args:
      axis: ``ax.xaxis`` or ``ax.yaxis``.
      values: Positions of the ticks.
    """
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    axis.set_major_locator(FixedLocator(list(values)))
    axis.set_major_formatter(FixedFormatter(numbers(values)))
    axis.set_minor_locator(NullLocator())


def numbers(values: Sequence[float | int]) -> list[str]:
    r"""Format the tick labels of an axis with three digits.

    All labels are plain if every value is 0 or between 0.001 and 10000; otherwise all have powers of ten.

    Args:
      values: The numbers.

    Returns:
      One label per value, in matplotlib's mathtext.

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
    """Make the y axis logarithmic, with plain numbers at the ticks, if every finite value is above 0.

    Args:
      ax: Matplotlib axes.
      values: The values that are drawn; values that are not finite are ignored.
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


def write_values(
    ax: Any, values: Mapping[tuple[float, float], tuple[float, Any]], shape: tuple[int, int], *, font_size: float = 8.0
) -> None:
    """Write numbers into cells if there is space, in black or white, whichever has more contrast.

    Args:
      ax: Matplotlib axes.
      values: Number and colour of the cell at each position.
      shape: Numbers of rows and columns of all cells.
      font_size: In points.
    """
    width, height = size(ax)
    written = {place: f"{value:.3g}" for place, (value, _) in values.items()}
    longest = max(map(len, written.values()), default=0)
    space = 0.72 * width / shape[1], 0.62 * height / shape[0]
    if longest * 0.66 * font_size / 72 > space[0] or 1.7 * font_size / 72 > space[1]:
        return
    for place, number in written.items():
        red, green, blue, _ = colour = values[place][1]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
        ax.text(
            *place,
            number,
            ha="center",
            va="center",
            fontsize=font_size,
            color="black" if luminance > 0.179 else "white",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
            zorder=4,
        )


def wrapped(text: str, width: float) -> str:
    """Wrap a text into lines without breaking a unit.

    Args:
      text: The text.
      width: Maximum number of characters per line.

    Returns:
      The lines, joined by newlines.
    """
    fixed_space = "\N{NO-BREAK SPACE}"
    unbroken = re.sub(r"(?<=\S) (?=[/·(])|(?<=[/·]) |(?<=· learning) |(?<=\bin) | (?=in\b)", fixed_space, text)
    lines = textwrap.wrap(unbroken, max(20, int(width)), break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines).replace(fixed_space, " ")


def size(ax: Any) -> tuple[float, float]:
    """Estimate the size of axes before the figure is laid out.

    Args:
      ax: Matplotlib axes.

    Returns:
      Width and height in inches.
    """
    width, height = ax.figure.get_size_inches()
    of_width, of_height = _fractions(ax.get_subplotspec())
    return 0.85 * width * of_width, 0.75 * height * of_height


def _fractions(spec: Any) -> tuple[float, float]:
    """Return the fractions of width and height of a figure that a place in its grid has."""
    if spec is None:
        return 1.0, 1.0
    grid = spec.get_gridspec()
    rows, columns = grid.get_geometry()
    widths, heights = (
        np.ones(count) if ratios is None else np.asarray(ratios, float)
        for count, ratios in ((columns, grid.get_width_ratios()), (rows, grid.get_height_ratios()))
    )
    own = widths[list(spec.colspan)].sum() / widths.sum(), heights[list(spec.rowspan)].sum() / heights.sum()
    above = grid.get_topmost_subplotspec() if hasattr(grid, "get_topmost_subplotspec") else None
    outer = (1.0, 1.0) if above is None else _fractions(above)
    return float(own[0] * outer[0]), float(own[1] * outer[1])


def notes_on(best_over: Sequence[str], *others: str) -> list[str]:
    """Collect the remarks of a legend.

    Args:
      best_over: Axes of the grid over which each point is the best candidate.
      *others: Further remarks; empty ones are left out.

    Returns:
      The remarks.
    """
    names = ", ".join(map(axis_labels.name_of, best_over))
    return [*([f"best over {names}"] if names else []), *filter(None, others)]


def _reserve_legend_space(ax: Any) -> None:
    """Make matplotlib place the title of the axes above the legend.

    Matplotlib puts a title above everything that it finds in the child axes of its axes. The invisible child axes that
    are added here always cover the legend.
    """
    from matplotlib.transforms import TransformedBbox

    def legend_box(_: Any, renderer: Any) -> Any:
        legend = ax.get_legend()  # The user may have replaced or removed it.
        box = ax.bbox if legend is None else legend.get_window_extent(renderer)
        return TransformedBbox(box, ax.figure.transSubfigure.inverted())

    space = ax.inset_axes((0, 1, 1, 0.1), label="legend space")
    space.set_axis_off()
    space.set_navigate(False)
    space.set_axes_locator(legend_box)


def _invisible_handle() -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], linestyle="none")
