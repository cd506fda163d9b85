"""Several plots on one page."""

from collections.abc import Callable, Sequence
from typing import Any

from weightdecay.plots import style


def overview(panels: Sequence[Callable[[Any], Any]], title: str = "") -> Any:
    """Draw plots on one page, two per row.

    Args:
      panels: ``panel(ax)`` draws one plot.
      title: Title of the page.

    Returns:
      The matplotlib figure.
    """
    from matplotlib import pyplot

    rows = -(-len(panels) // 2)
    figure = pyplot.figure(figsize=(12.8, 5.0 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)  # pyright: ignore[reportOptionalMemberAccess, reportCallIssue]
    for index, panel in enumerate(panels):
        panel(figure.add_subplot(rows, 2, index + 1))
    if title:
        figure.suptitle(style.wrapped(title, 140.0), x=0.01, ha="left", fontsize="medium")
    return figure
