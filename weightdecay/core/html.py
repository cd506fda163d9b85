"""Tables and folds in HTML, as notebooks and the report show them. Whatever comes in is text, and is escaped."""

import html
from collections.abc import Collection, Mapping, Sequence
from typing import Any

_LEFT, _COLUMN, _ROW = 'style="text-align:left"', 'scope="col"', 'scope="row"'
_FEW = 12  # values of an axis that are all listed


def table(
    columns: Mapping[str, Sequence[Any]], *, words: Collection[str] = (), marked: Mapping[int, str] | None = None
) -> str:
    """A table.

    Args:
      columns: Cells by the title of their column, all of one length.
      words: Titles of columns that hold words, which stand left; the others hold numbers, which stand right.
      marked: Class of a row by its place, from 0.

    Returns:
      HTML that needs nothing from elsewhere.

    Examples:
      >>> print(table({"name": ["a < b"], "value": [3]}, words=["name"]))
      <table>
      <thead><tr><th scope="col" style="text-align:left">name</th><th scope="col">value</th></tr></thead>
      <tbody>
      <tr><td style="text-align:left">a &lt; b</td><td>3</td></tr>
      </tbody>
      </table>
    """
    looks = [_LEFT if title in words else "" for title in columns]
    titles = [_element("th", title, _COLUMN, look) for title, look in zip(columns, looks, strict=True)]
    lines = ["<table>", f"<thead><tr>{''.join(titles)}</tr></thead>", "<tbody>"]
    for place, cells in enumerate(zip(*columns.values(), strict=True)):
        row = "".join(_element("td", cell, look) for cell, look in zip(cells, looks, strict=True))
        name = (marked or {}).get(place)
        lines.append(f'<tr class="{html.escape(name)}">{row}</tr>' if name else f"<tr>{row}</tr>")
    return "\n".join([*lines, "</tbody>", "</table>"])


def facts(values: Mapping[str, Any]) -> str:
    """A table of names with a value each.

    Args:
      values: By name.

    Returns:
      HTML that needs nothing from elsewhere.

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
    """A table of the axes of a grid: how many values each has, and which; of many, the first and the last.

    Args:
      values: The distinct values of each axis by name.

    Returns:
      HTML that needs nothing from elsewhere.
    """
    return table(
        {
            "axis": [name.replace("_", " ") for name in values],
            "values": [len(one) for one in values.values()],
            "which": [listed(one) for one in values.values()],
        },
        words=["axis", "which"],
    )


def said(value: Any) -> str:
    """A hyperparameter in a few characters.

    Args:
      value: Any.

    Returns:
      Four digits of a number, the name of a function, "none" for None, or its own words.

    Examples:
      >>> said(0.012345678), said(3), said(None), said(len)
      ('0.01235', '3', 'none', 'len')
    """
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.4g}"
    return getattr(value, "__name__", None) or str(value)


def listed(values: Sequence[Any]) -> str:
    """Hyperparameters in a line; of many, the first and the last.

    Args:
      values: Any.

    Returns:
      Their words, with commas between.

    Examples:
      >>> listed(range(3)), listed(range(100))
      ('0, 1, 2', '0, 1, 2, 3, 4, 5, 6, 7, 8, ..., 98, 99')
    """
    texts = [said(value) for value in values]
    return ", ".join(texts if len(texts) <= _FEW else [*texts[: _FEW - 3], "...", *texts[-2:]])


def code(text: str) -> str:
    """Text in letters of one width, with its own lines.

    Args:
      text: Any.

    Returns:
      HTML.

    Examples:
      >>> code("f(<a>)")
      '<pre>f(&lt;a&gt;)</pre>'
    """
    return _element("pre", text)


def paragraph(text: str) -> str:
    """A paragraph.

    Args:
      text: Its words.

    Returns:
      HTML.

    Examples:
      >>> paragraph("a < b")
      '<p>a &lt; b</p>'
    """
    return _element("p", text)


def folded(title: str, body: str) -> str:
    r"""What is shown when its title is clicked.

    Args:
      title: Its words.
      body: HTML.

    Returns:
      HTML.

    Examples:
      >>> folded("more", paragraph("text"))
      '<details><summary>more</summary>\n<p>text</p>\n</details>'
    """
    return f"<details>{_element('summary', title)}\n{body}\n</details>"


def _element(tag: str, text: Any, *attributes: str) -> str:
    opening = " ".join([tag, *filter(None, attributes)])
    return f"<{opening}>{html.escape(str(text))}</{tag}>"
