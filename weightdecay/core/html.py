"""Tables, paragraphs and folded parts in HTML, for notebooks and the report. All text is escaped."""

import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from weightdecay.core import text

_LEFT, _COLUMN, _ROW = 'style="text-align:left"', 'scope="col"', 'scope="row"'
_MAX_LISTED = 12  # values; of more, only the first and the last are listed


def table(
    columns: Mapping[str, Sequence[Any]],
    *,
    text_columns: Collection[str] = (),
    row_classes: Mapping[int, str] | None = None,
) -> str:
    """Make a table.

    Args:
      columns: Cells by the title of their column, all of one length.
      text_columns: Titles of columns of text, which are aligned left; the others have numbers and are aligned right.
      row_classes: CSS class by the index of the row, counted from 0.

    Returns:
      HTML that loads nothing from elsewhere.

    Examples:
      >>> print(table({"name": ["a < b"], "value": [3]}, text_columns=["name"]))
      <table>
      <thead><tr><th scope="col" style="text-align:left">name</th><th scope="col">value</th></tr></thead>
      <tbody>
      <tr><td style="text-align:left">a &lt; b</td><td>3</td></tr>
      </tbody>
      </table>
    """
    styles = [_LEFT if title in text_columns else "" for title in columns]
    titles = [_element("th", title, _COLUMN, style) for title, style in zip(columns, styles, strict=True)]
    lines = ["<table>", f"<thead><tr>{''.join(titles)}</tr></thead>", "<tbody>"]
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        row = "".join(_element("td", cell, style) for cell, style in zip(cells, styles, strict=True))
        name = (row_classes or {}).get(index)
        lines.append(f'<tr class="{html.escape(name)}">{row}</tr>' if name else f"<tr>{row}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def facts(values: Mapping[str, Any]) -> str:
    """Make a table of names and values, one row per name.

    Args:
      values: Values by name.

    Returns:
      HTML that loads nothing from elsewhere.

    Examples:
      >>> print(facts({"num_steps": 100}))
      <table>
      <tbody>
      <tr><th scope="row" style="text-align:left">num_steps</th><td style="text-align:left">100</td></tr>
      </tbody>
      </table>
    """
    rows = [
        f"<tr>{_element('th', name, _ROW, _LEFT)}{_element('td', value, _LEFT)}</tr>" for name, value in values.items()
    ]
    return "\n".join(["<table>", "<tbody>", *rows, "</tbody>", "</table>"])


def axes(values: Mapping[str, Sequence[Any]]) -> str:
    """Make a table of the axes of a grid: the number of values of each, and the values (the first and last of many).

    Args:
      values: The distinct values of each axis by name.

    Returns:
      HTML that loads nothing from elsewhere.
    """
    return table(
        {
            "axis": [name.replace("_", " ") for name in values],
            "values": [len(axis) for axis in values.values()],
            "which": [listed(axis) for axis in values.values()],
        },
        text_columns=["axis", "which"],
    )


def cell(value: Any) -> str:
    """Format a hyperparameter for a cell of a table.

    Args:
      value: The hyperparameter.

    Returns:
      "none" for None, otherwise as `weightdecay.core.text.short`.

    Examples:
      >>> cell(0.012345678), cell(3), cell(None), cell(len)
      ('0.01235', '3', 'none', 'len')
    """
    return "none" if value is None else text.short(value)


def listed(values: Sequence[Any]) -> str:
    """Format hyperparameters as a comma-separated list; of many, only the first and the last.

    Args:
      values: The hyperparameters.

    Returns:
      The text.

    Examples:
      >>> listed(range(3)), listed(range(100))
      ('0, 1, 2', '0, 1, 2, 3, 4, 5, 6, 7, 8, ..., 98, 99')
    """
    cells = [cell(value) for value in values]
    return ", ".join(cells if len(cells) <= _MAX_LISTED else [*cells[: _MAX_LISTED - 3], "...", *cells[-2:]])


def code(content: str) -> str:
    """Format text in a monospaced font, with its line breaks.

    Args:
      content: The text.

    Returns:
      HTML.

    Examples:
      >>> code("f(<a>)")
      '<pre>f(&lt;a&gt;)</pre>'
    """
    return _element("pre", content)


def paragraph(content: str) -> str:
    """Make a paragraph.

    Args:
      content: The text.

    Returns:
      HTML.

    Examples:
      >>> paragraph("a < b")
      '<p>a &lt; b</p>'
    """
    return _element("p", content)


def folded(title: str, body: str) -> str:
    r"""Make a part that is hidden until its title is clicked.

    Args:
      title: The title, text.
      body: The hidden part, HTML.

    Returns:
      HTML.

    Examples:
      >>> folded("more", paragraph("text"))
      '<details><summary>more</summary>\n<p>text</p>\n</details>'
    """
    return f"<details>{_element('summary', title)}\n{body}\n</details>"


def _element(tag: str, content: Any, *attributes: str) -> str:
    opening = " ".join([tag, *filter(None, attributes)])
    return f"<{opening}>{html.escape(str(content))}</{tag}>"
