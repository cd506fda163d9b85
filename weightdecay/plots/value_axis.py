"""A hyperparameter as an axis of a plot: numbers on a linear or logarithmic scale, anything else in equal steps."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from weightdecay.core import text
from weightdecay.core.checks import ArgumentError
from weightdecay.core.text import suggestion
from weightdecay.plots import axis_labels, style, table_lines

_UNEVEN = 6.0  # a gap this many times as large as the median one makes equal steps of the values
_LOGARITHMIC = 8.0  # positive numbers with this ratio are on a logarithmic scale
_MAX_TICKS = 12


@dataclass(frozen=True)
class ValueAxis:
    """A column of a table as an axis.

    Attributes:
      column: Name of the column.
      label: Label with the unit.
      scale: ``"log"``, ``"linear"`` or ``"steps"``.
      positions: Position of each row of the table, shape ``(rows,)``; nan for a row without a value.
      levels: The distinct positions, ascending.
      names: Text of each level.
    """

    column: str
    label: str
    scale: str
    positions: np.ndarray
    levels: np.ndarray
    names: tuple[str, ...]

    def fraction(self) -> np.ndarray:
        """Return the positions as fractions of the axis from its lowest to its highest level, nan for no value."""
        low, high = (self.levels[0], self.levels[-1]) if len(self.levels) else (0.0, 1.0)
        if low == high:
            return np.where(np.isnan(self.positions), np.nan, 0.5)
        if self.scale == "log":
            return np.log(self.positions / low) / np.log(high / low)
        return (self.positions - low) / (high - low)

    def ticks(self, most: int = 6) -> tuple[list[float], list[str]]:
        """Return positions and texts of ticks: about ``most`` numbers, or up to twelve names."""
        if self.scale == "log":
            values = style.ticks_among(self.levels)
            values = values[:: -(-len(values) // most)]
            return values, style.numbers(values)
        if self.scale == "linear":
            step = -(-len(self.levels) // most)
            values = [float(value) for value in self.levels[::step]]
            if len(self.levels) > _MAX_TICKS:
                from matplotlib.ticker import MaxNLocator

                low, high = float(self.levels[0]), float(self.levels[-1])
                values = [float(v) for v in MaxNLocator(min(4, most)).tick_values(low, high) if low <= v <= high]
            return values, style.numbers(values)
        step = -(-len(self.levels) // _MAX_TICKS)
        return [float(value) for value in self.levels[::step]], list(self.names[::step])

    def set_on(self, ax: Any, which: str) -> None:
        """Set scale, limits, ticks and label of an axis of matplotlib axes.

        Args:
          ax: The axes.
          which: ``"x"`` or ``"y"``.
        """
        axis = getattr(ax, f"{which}axis")
        getattr(ax, f"set_{which}scale")("log" if self.scale == "log" else "linear")
        if len(self.levels):
            edges = self.edges()
            getattr(ax, f"set_{which}lim")(edges[0], edges[-1])
            positions, names = self.ticks(max(2, int(style.size(ax)[which == "y"] / 0.65)))
            if self.scale != "steps":
                style.set_ticks(axis, positions)
            else:
                from matplotlib.ticker import NullLocator

                is_long = max(map(len, names)) * len(names) > 40
                names = [style.wrapped(textwrap.shorten(name, 48, placeholder=" ..."), 24.0) for name in names]
                looks = {"rotation": 30, "ha": "right", "fontsize": "small"} if is_long and which == "x" else {}
                axis.set_ticks(positions, names, **looks)
                axis.set_minor_locator(NullLocator())
        getattr(ax, f"set_{which}label")(self.label)

    def edges(self) -> np.ndarray:
        """Return the edges of cells around the levels; the first and the last are the ends of the axis."""
        levels = np.log10(self.levels) if self.scale == "log" else self.levels
        if len(levels) == 1:
            edges = levels[0] + np.array([-0.25, 0.25]) * (1 if self.scale != "linear" else max(1, abs(levels[0])))
        else:
            middle = (levels[1:] + levels[:-1]) / 2
            edges = np.concatenate([[2 * levels[0] - middle[0]], middle, [2 * levels[-1] - middle[-1]]])
        return 10**edges if self.scale == "log" else edges


def of(table: pd.DataFrame, column: str, *, argument: str = "x", rules: Sequence[str] = ()) -> ValueAxis:
    """Make an axis of a column of a table.

    Args:
      table: The table, as ``result.table()`` returns it, or some of its rows.
      column: Name of a hyperparameter; ``"decay"`` = the rule.
      argument: Name of the argument that the user passed, for the error.
      rules: Rules whose coefficients the column has, for the unit; empty = those of the table.

    Returns:
      The axis.

    Raises:
      ArgumentError: Not a hyperparameter of the table.
    """
    known = columns(table)
    if column not in known:
        raise ArgumentError(
            argument, f"{argument} is {column!r}; give one of {', '.join(known)}.{suggestion(str(column), known)}"
        )
    schedule = f"{column}_schedule"
    values: list[Any] = table[column].tolist()
    if schedule in table:
        values = [name or value for name, value in zip(table[schedule], values, strict=True)]
    if all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values):
        return _numeric(column, _label(table, column, rules), np.array(values, float))
    names = ["" if isinstance(value, float) and np.isnan(value) else text.short(value) for value in values]
    by_number = {name: value for name, value in zip(names, values, strict=True) if isinstance(value, int | float)}
    distinct = sorted(
        filter(None, dict.fromkeys(names)), key=lambda name: (name not in by_number, by_number.get(name, 0))
    )
    return _in_steps(column, _label(table, column, rules), names, distinct)


def columns(table: pd.DataFrame) -> list[str]:
    """Return the hyperparameters of a table that can be an axis.

    Args:
      table: The table, as ``result.table()`` returns it.

    Returns:
      Names of columns; a schedule belongs to the column of its number.
    """
    names = table_lines.hyperparameters(table)
    return [name for name in names if not (name.endswith("_schedule") and name.removesuffix("_schedule") in names)]


def varying(table: pd.DataFrame) -> list[str]:
    """Return the hyperparameters that have at least two values.

    Args:
      table: The table, as ``result.table()`` returns it.

    Returns:
      Names of columns; the rule, if it varies, is ``"decay"`` and comes first.
    """
    return [name for name in columns(table) if len(of(table, name).levels) > 1]


def is_scattered(table: pd.DataFrame) -> bool:
    """Whether candidates were drawn, as in a random or Sobol grid: two axes have a value of their own for each.

    Args:
      table: The table, as ``result.table()`` returns it.

    Returns:
      Whether at least two hyperparameters have distinct numbers in more than half of the candidates with a number.
    """
    own = 0
    for name in columns(table):
        axis = of(table, name)
        count = int(np.isfinite(axis.positions).sum())
        own += axis.scale != "steps" and count >= 8 and len(axis.levels) > count / 2
    return own > 1


def widen(ax: Any, axis: ValueAxis, which: str) -> None:
    """Set limits that leave a margin of a tenth of a numeric axis around its points.

    Args:
      ax: Matplotlib axes.
      axis: The axis.
      which: ``"x"`` or ``"y"``.
    """
    if axis.scale == "steps" or len(axis.levels) < 2:
        return
    ends = axis.levels[[0, -1]]
    logs = np.log10(ends) if axis.scale == "log" else ends
    logs = logs + 0.1 * (logs[1] - logs[0]) * np.array([-1, 1])
    getattr(ax, f"set_{which}lim")(10**logs if axis.scale == "log" else logs)


def _numeric(column: str, label: str, values: np.ndarray) -> ValueAxis:
    levels = np.unique(values[np.isfinite(values)])
    names = tuple(text.short(float(value)) for value in levels)
    scale = "linear"
    if len(levels) and levels[0] > 0 and levels[-1] / levels[0] >= _LOGARITHMIC:
        # The median of numbers that are spread evenly is in the middle of the axis.
        logs = np.log(levels)
        off = abs((np.median(levels) - levels[0]) / (levels[-1] - levels[0]) - 0.5)
        scale = "log" if abs((np.median(logs) - logs[0]) / (logs[-1] - logs[0]) - 0.5) <= off else "linear"
    has_zero = len(levels) > 1 and levels[0] == 0 and levels[-1] / levels[1] >= _LOGARITHMIC
    gaps = np.diff(np.log(levels) if scale == "log" else levels)
    is_uneven = 1 < len(gaps) < _MAX_TICKS and gaps.max() > _UNEVEN * np.median(gaps)
    if has_zero or is_uneven:
        shown = [text.short(float(value)) if np.isfinite(value) else "" for value in values]
        return _in_steps(column, label, shown, list(names))
    return ValueAxis(column, label, scale, np.where(np.isfinite(values), values, np.nan), levels, names)


def _in_steps(column: str, label: str, names: Sequence[str], distinct: Sequence[str]) -> ValueAxis:
    position = {name: float(index) for index, name in enumerate(distinct)}
    positions = np.array([position.get(name, np.nan) for name in names], float)
    return ValueAxis(column, label, "steps", positions, np.arange(len(distinct), dtype=float), tuple(distinct))


def _label(table: pd.DataFrame, column: str, rules: Sequence[str]) -> str:
    if column == "decay":
        return "rule, by its name"
    if axis_labels.is_coefficient(column):
        of_rows = table["decay"][np.isfinite(table[column].to_numpy(float))]
        return axis_labels.axis_of_coefficients((rule, column) for rule in rules or dict.fromkeys(of_rows))
    unit = {"learning_rate": "in the unit of its optimizer"}.get(column, "in units of its argument")
    return f"{axis_labels.name_of(column)}, {unit}"
