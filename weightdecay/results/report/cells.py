"""Cells and tables of the report: numbers, and tables that fold when long."""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from weightdecay.core import html, text

MAX_COLUMNS = 13
"""Number of columns of numbers that fit on a page of 1100 pixels."""
MAX_ROWS = 20
"""Number of rows of a long table that are shown at once; the others are folded."""


def interval(lower: float, upper: float, error: float) -> str:
    """Format an interval with the decimal places of the estimate that it belongs to.

    Args:
      lower: Lower end.
      upper: Upper end.
      error: Standard error of the estimate, which determines the decimal places as in `weightdecay.core.text.estimate`.

    Returns:
      The text; a dash if an end is not finite.

    Examples:
      >>> interval(1.85123, 2.08, 0.027)
      '1.851 to 2.080'
    """
    if not (math.isfinite(lower) and math.isfinite(upper)):
        return text.NOTHING
    if not (math.isfinite(error) and error > 0):
        return f"{lower:.4g} to {upper:.4g}"
    places = max(1 - math.floor(math.log10(error)), 0)
    if places > 8:
        return f"{lower:.4g} to {upper:.4g}"
    return f"{lower:.{places}f} to {upper:.{places}f}"


def mean(value: float, error: float) -> str:
    """Format a mean with its standard error as `weightdecay.core.text.estimate` does; a dash if it is not finite.

    Args:
      value: The mean.
      error: Its standard error; nan = the mean alone.

    Returns:
      The text.
    """
    return text.estimate(value, error) if math.isfinite(value) else text.NOTHING


def narrowed(columns: dict[str, list[str]], least_needed: Sequence[str]) -> list[str]:
    """Remove columns of a table that would be wider than a page.

    Args:
      columns: Cells by the title of their column; columns are removed from it.
      least_needed: Titles of the columns that may be removed, in this order.

    Returns:
      The titles that were removed.
    """
    removed = []
    for title in least_needed:
        if len(columns) > MAX_COLUMNS and columns.pop(title, None) is not None:
            removed.append(title)
    return removed


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
    """Make a table that shows its first rows; the others are folded, and ``tables.js`` sorts and filters all of them.

    Args:
      columns: Cells by the title of their column.
      text_columns: Titles of columns of text.
      row_classes: CSS class by the index of the row.
      noun: What the rows are, plural.

    Returns:
      HTML.
    """
    count = len(next(iter(columns.values())))
    if count > 1:
        return f'<div data-rows="{noun}">\n{_folding(columns, text_columns, row_classes, noun, count)}\n</div>'
    return _folding(columns, text_columns, row_classes, noun, count)


def scrolled(table: str) -> str:
    """Let a table scroll if the page is too narrow for it; what follows a number stays together in one line."""
    table = re.sub(r" ((?:±|to|of) [^<\s]+)(?=</td>)", r" <span>\1</span>", table)
    table = re.sub(r"(?<=>)([-+.\d]+ %)(?=</td>)", r"<span>\1</span>", table)
    return f'<div class="scrolled" tabindex="0">\n{table}\n</div>'


def _folding(
    columns: Mapping[str, Sequence[Any]],
    text_columns: Collection[str],
    row_classes: Mapping[int, str],
    noun: str,
    count: int,
) -> str:
    first = {name: cells[:MAX_ROWS] for name, cells in columns.items()}
    table = scrolled(html.table(first, text_columns=text_columns, row_classes=row_classes))
    if count <= MAX_ROWS:
        return table
    rest = {name: cells[MAX_ROWS:] for name, cells in columns.items()}
    rest_classes = {index - MAX_ROWS: name for index, name in row_classes.items()}
    folded = scrolled(html.table(rest, text_columns=text_columns, row_classes=rest_classes))
    return f"{table}\n{html.folded(f'The other {count - MAX_ROWS} of {count} {noun}', folded)}"
