"""Write a result as one self-contained HTML page, which begins with the decision.

`weightdecay.results.report.content` collects the content; the template ``page.html.jinja`` defines how it looks.
"""

import functools
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from weightdecay.core import files
from weightdecay.core.checks import ArgumentError
from weightdecay.results.report.content import Report

_GENERATOR = '<meta name="generator" content="weightdecay report">'


def write(path: str | os.PathLike[str], page: str) -> Path:
    """Write a report; the file appears complete or not at all.

    Args:
      path: An ``.html`` file; missing folders are made. An existing report is replaced.
      page: The page, as `page` returns it.

    Returns:
      The path.

    Raises:
      FileExistsError: The file exists and is not a report.
      ArgumentError: The path has another extension.
    """
    file = Path(path)
    if file.suffix not in (".html", ".htm"):
        raise ArgumentError("path", f"path is {file}; give a path that ends in .html, such as report.html.")
    if file.exists() and not _is_report(file):
        raise FileExistsError(f"path {file} exists and is not a report; nothing was touched. Give another path.")
    with files.atomic(file) as unfinished:
        unfinished.write_text(page, encoding="utf-8")
    return file


def page(
    result: Any,
    *,
    metric: str = "validation_loss",
    test: Mapping[str, Any] | None = None,
    refresh: int | None = None,
) -> str:
    """Render the page.

    Args:
      result: A `weightdecay.GridResult`.
      metric: The metric of the choice, as in ``result.best``.
      test: Test scores, as they are kept with the result; None = the test set was not scored.
      refresh: Seconds after which a browser reads the file again; None = never.

    Returns:
      HTML that loads nothing from elsewhere; the same for the same result.

    Raises:
      ArgumentError: An unknown metric.
    """
    return render(**Report(result, metric, test).parts(), refresh=refresh)


def render(**parts: Any) -> str:
    """Render a page of given parts; `weightdecay.results.report.content.Report.parts` lists those of a result.

    Args:
      **parts: Values of the template by name. These may be left out: ``kind``, what the page is, ``lead``, the heading
        above its sentence, ``no_plots``, the sentence in place of plots, and ``refresh``, seconds after which a browser
        reads the file again (None = never).

    Returns:
      HTML that loads nothing from elsewhere.
    """
    usual = {
        "kind": "Weight decay report",
        "lead": "Decision",
        "no_plots": "No candidate has a finite value to draw.",
        "refresh": None,
    }
    fixed = {"generator": _GENERATOR, "style": _file("page.css"), "script": _file("tables.js")}
    return _template().render(**{**usual, **fixed, **parts})


@functools.cache
def _template() -> Any:
    import jinja2

    options: dict[str, Any] = {"autoescape": True, "undefined": jinja2.StrictUndefined}
    return jinja2.Environment(trim_blocks=True, lstrip_blocks=True, **options).from_string(_file("page.html.jinja"))


@functools.cache
def _file(name: str) -> str:
    return resources.files("weightdecay.results.report").joinpath(name).read_text(encoding="utf-8")


def _is_report(file: Path) -> bool:
    if not file.is_file():
        return False
    with open(file, "rb") as opened:
        return _GENERATOR.encode() in opened.read(2000)
