"""The pictures of a report: what is drawn of a result, what each shows in words, and its bytes within a page."""

import base64
import io
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from weightdecay.plots import paths
from weightdecay.results.selection import Choice

_LARGEST_SVG = 200_000  # bytes; above, a picture of pixels is smaller


class Illustration(NamedTuple):
    """A picture with its words.

    Attributes:
      name: Of the picture, a word.
      title: A line.
      caption: How to read it.
      alt: What it shows, for those who do not see it.
      source: The picture itself, a ``data:`` address.
    """

    name: str
    title: str
    caption: str
    alt: str
    source: str


def of(result: Any, metric: str, chosen: Choice) -> list[Illustration]:
    """Draw what there is to be seen of a result.

    The path of the metric; the heat map, where a rule has several learning rates; the curves; the generalization gap;
    the exact zeros, where there are any; norms and weights of the layers; their rotation, where it was measured.

    Args:
      result: A `weightdecay.GridResult`.
      metric: A validation metric.
      chosen: The choice by it.

    Returns:
      The pictures in this order. The same result gives the same bytes.
    """
    import matplotlib
    from matplotlib import style

    # As matplotlib comes, whatever a user has set; and names within a picture that are the same every time.
    with style.context("default"), matplotlib.rc_context({"svg.hashsalt": "weightdecay"}):
        return [
            Illustration(name, title, caption, alt, _source(draw))
            for name, title, caption, alt, draw in _drawn(result, metric, chosen)
        ]


def _drawn(result: Any, metric: str, chosen: Choice) -> Iterator[tuple[str, str, str, str, Callable[[Any], Any]]]:
    table, dataset = result.table(), result.dataset
    words, own = metric.replace("_", " "), metric.removeprefix("validation_")
    what = f"the chosen {chosen.decay}"
    beside = what if chosen.is_without_decay or result.no_decay() is None else f"{what} beside no decay"
    yield (
        "path",
        f"{words.capitalize()} along the coefficient",
        "The basin: how much decay helps, and from where on it harms. A flat basin forgives a wrong coefficient.",
        f"Line plot of the {words} against the coefficient, a line a rule. A ring marks {what} at {chosen.mean:.4g}.",
        lambda ax: result.plot_path(metric, ax=ax),
    )
    if paths.mapped_rules(table):
        yield (
            "heatmap",
            "Coefficient and learning rate together",
            "Where good cells lie along a diagonal, what counts is the product of the two.",
            f"Heat map of the {words} over coefficient and learning rate of one rule.",
            lambda ax: result.plot_heatmap(metric, ax=ax),
        )
    yield (
        "curves",
        "Along training",
        "A validation curve that turns up while the training curve falls is overfitting; decay should hold it down.",
        f"Training and validation {own.replace('_', ' ')} of {beside} against the training step.",
        lambda ax: result.plot_curves(own, ax=ax),
    )
    yield (
        "gap",
        "Generalization gap",
        "What training and validation data are apart. Decay closes the gap; whether it pays, the path above says.",
        "Line plot of the generalization gap against the coefficient, a line a rule.",
        lambda ax: result.plot_gap(ax=ax),
    )
    if (table["zero_fraction"] > 0).any():
        yield (
            "sparsity",
            "Exact zeros",
            "Weights that a rule set to zero and that need not be kept. Only some rules make any.",
            "Line plot of the share of exact zeros against the coefficient, a line a rule; the largest is "
            f"{100 * table['zero_fraction'].max():.1f} %.",
            lambda ax: result.plot_sparsity(ax=ax),
        )
    yield (
        "norms",
        "Norms of the layers",
        "How much of each layer the decay leaves.",
        "Line plot of the norm of each layer against the coefficient of one rule.",
        lambda ax: result.plot_norms(ax=ax),
    )
    yield (
        "weights",
        "Weights of the layers",
        "Every weight, layer by layer.",
        f"Histograms of the weights of each layer of {beside}.",
        lambda ax: result.plot_weights(ax=ax),
    )
    if "rotation" in dataset and np.isfinite(dataset["rotation"].values).any():
        yield (
            "rotation",
            "Rotation of the layers",
            "How far each layer turns in a step. Under decay it comes to an equilibrium, which sets the pace at which "
            "the layer learns.",
            f"Line plot of the angle that each layer of {what} turns in a step, against the training step.",
            lambda ax: result.plot_rotation(ax=ax),
        )


def _source(draw: Callable[[Any], Any]) -> str:
    """A picture as a ``data:`` address: drawn by lines, or by pixels where that would take more."""
    from matplotlib.figure import Figure

    # A figure of its own, which no notebook shows and no backend opens.
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    draw(figure.add_subplot())
    content, kind = _saved(figure, format="svg", metadata={"Date": None}), "svg+xml"
    if len(content) > _LARGEST_SVG:
        content, kind = _saved(figure, format="png", dpi=150, metadata={"Software": None}), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _saved(figure: Any, **how: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, **how)
    return content.getvalue()
