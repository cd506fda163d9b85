"""Cells and tables of the report: numbers with the digits that their errors allow, and tables that fold when long."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core import html, text

MAX_ROWS = 20
"""Number of rows of a long table that are shown at once; the others are folded."""


def digits(errors: Iterable[float | int]) -> int | None:
    """Return the number of decimal places of a column of means, so that the smallest error keeps one digit.

    An error that is far smaller than the others is ignored.

    Args:
      errors: Standard errors of the column.

    Returns:
      The number of decimal places; None if there are no errors.
    """
    places = [-math.floor(math.log10(error)) for error in errors if math.isfinite(error) and error > 0]
    return min(max(min(max(places), int(np.median(places)) + 2), 0), 8) if places else None


def mean(value: float, error: float, num_digits: int | None) -> str:
    """Format a mean with its standard error.

    Args:
      value: The mean.
      error: Its standard error; nan = the mean alone.
      num_digits: Decimal places, as `digits` returns them.

    Returns:
      The text.
    """
    if not math.isfinite(value) or num_digits is None:
        return text.number(value)
    return f"{value:.{num_digits}f} ± {error:.{num_digits}f}" if math.isfinite(error) else f"{value:.{num_digits}f}"


def interval(lower: float, upper: float, num_digits: int | None) -> str:
    """Format an interval.

    Args:
      lower: Lower end.
      upper: Upper end.
      num_digits: Decimal places, as `digits` returns them.

    Returns:
      The text; a dash if an end is not finite.
    """
    if num_digits is None or not (math.isfinite(lower) and math.isfinite(upper)):
        return text.NOTHING
    return f"{lower:.{num_digits}f} to {upper:.{num_digits}f}"


def some_of(some: int, total: int) -> str:
    """Format a part of a number of things.

    Examples:
      >>> some_of(3, 5), some_of(5, 5)
      ('3 of 5', 'all 5')
    """
    return f"all {total}" if some == total > 1 else f"{some} of {total}"


def setting(value: Any) -> str:
    """Format a setting of a run.

    Examples:
      >>> setting(True), setting([]), setting({"rank": False}), setting(0.1 + 0.2)
      ('yes', 'none', 'rank no', '0.3')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {setting(part)}" for name, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return html.cell(value)


def long_table(
    columns: Mapping[str, Sequence[Any]], text_columns: Collection[str], row_classes: Mapping[int, str], noun: str
) -> str:
    """Make a table that shows its first rows; the others are folded.

    Args:
      columns: Cells by the title of their column.
      text_columns: Titles of columns of text.
      row_classes: CSS class by the index of the row.
      noun: What the rows are, plural.

    Returns:
      HTML.
    """
    count = len(next(iter(columns.values())))
    first = {name: cells[:MAX_ROWS] for name, cells in columns.items()}
    table = scrolled(html.table(first, text_columns=text_columns, row_classes=row_classes))
    if count <= MAX_ROWS:
        return table
    rest = {name: cells[MAX_ROWS:] for name, cells in columns.items()}
    rest_classes = {index - MAX_ROWS: name for index, name in row_classes.items()}
    folded = scrolled(html.table(rest, text_columns=text_columns, row_classes=rest_classes))
    return f"{table}\n{html.folded(f'The other {count - MAX_ROWS} of {count} {noun}', folded)}"


def scrolled(table: str) -> str:
    """Let a table scroll if the page is too narrow for it."""
    return f'<div class="scrolled" tabindex="0">\n{table}\n</div>'
