"""The plots of a report: which ones a result has, their titles and captions, and their bytes within the page."""

import base64
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from weightdecay.core import text
from weightdecay.plots import heatmap, value_axis
from weightdecay.plots.importance import importance
from weightdecay.results.selected import Selected

_WIDE = ("slices", "facets")
_MAX_PANELS = 3  # of a plot of the report
_MAX_SVG_BYTES = 200_000  # a larger plot is smaller as a PNG

Drawn = tuple[str, str, str, str, Callable[[Any], Any]]


class Illustration(NamedTuple):
    """A plot with its texts.

    Attributes:
      name: Name of the plot, one word.
      title: A short title.
      caption: How to read the plot.
      alt: What it shows, for readers who cannot see it.
      source: The plot itself, a ``data:`` URL.
      is_wide: Whether it has several panels next to each other, and the width of the page.
    """

    name: str
    title: str
    caption: str
    alt: str
    source: str
    is_wide: bool = False


def of(result: Any, metric: str, chosen: Selected) -> list[Illustration]:
    """Draw the plots of a result.

    They are: the path of the metric; the heat map, if a rule has several learning rates; the curves; the generalization
    gap; the exact zeros, if there are any; norms and weights of the layers; their rotation, if it was recorded.

    Args:
      result: A `weightdecay.GridResult`.
      metric: A validation metric.
      chosen: The candidate that was chosen by it.

    Returns:
      The plots in this order. The same result gives the same bytes.
    """
    return illustrations(_drawn(result, metric, chosen))


def illustrations(drawn: Iterable[Drawn]) -> list[Illustration]:
    """Draw plots in the default style, whatever the user has set.

    Args:
      drawn: Name, title, caption, alternative text and drawing function of each; a function takes matplotlib axes.

    Returns:
      The plots in this order. The same plots give the same bytes.
    """
    import matplotlib
    from matplotlib import style

    # Identifiers within an SVG are the same every time.
    with style.context("default"), matplotlib.rc_context({"svg.hashsalt": "weightdecay"}):
        return [
            Illustration(name, title, caption, alt, _source(draw, is_wide=name in _WIDE), name in _WIDE)
            for name, title, caption, alt, draw in drawn
        ]


def _drawn(result: Any, metric: str, chosen: Selected) -> Iterator[Drawn]:
    """Yield name, title, caption, alternative text and drawing function of each plot."""
    table, dataset = result.table(), result.dataset
    metric_name, base_name = metric.replace("_", " "), metric.removeprefix("validation_")
    decay = f"the chosen {chosen.decay}"
    shown = decay if chosen.is_without_decay or result.no_decay() is None else f"{decay} and of no decay"
    facets = _facets(table)
    panels = "" if facets is None else f", in a panel for each {facets.replace('_', ' ')}"
    yield (
        "path" if facets is None else "facets",
        f"{metric_name.capitalize()} against the coefficient",
        "How much decay helps, and from where on it harms. With a flat minimum a wrong coefficient costs little.",
        f"Line plot of the {metric_name} against the coefficient, one line per rule{panels}. A ring marks {decay} at "
        f"{chosen.mean:.4g}.",
        lambda ax: result.plot_path(metric, facets=facets, ax=ax),
    )
    if value_axis.is_scattered(table):
        yield from _drawn_of_scattered(result, metric, decay)
    if heatmap.rules(table):
        yield (
            "heatmap",
            "Coefficient and learning rate together",
            "If good cells lie along a diagonal, the product of coefficient and learning rate matters.",
            f"Heat map of the {metric_name} over coefficient and learning rate of one rule.",
            lambda ax: result.plot_heatmap(metric, ax=ax),
        )
    yield (
        "curves",
        "Training and validation curves",
        "A validation curve that rises while the training curve falls shows overfitting; decay should reduce it.",
        f"Training and validation {base_name.replace('_', ' ')} of {shown} against the training step.",
        lambda ax: result.plot_curves(base_name, ax=ax),
    )
    yield (
        "gap",
        "Generalization gap",
        "Difference between training and validation data. Decay reduces the gap; the path above shows whether that "
        "helps.",
        "Line plot of the generalization gap against the coefficient, one line per rule.",
        lambda ax: result.plot_gap(ax=ax),
    )
    if (table["zero_fraction"] > 0).any():
        yield (
            "sparsity",
            "Exact zeros",
            "Weights that a rule set to zero and that need not be stored. Only some rules make any.",
            "Line plot of the fraction of exact zeros against the coefficient, one line per rule; the largest is "
            f"{text.percent(table['zero_fraction'].max())}.",
            lambda ax: result.plot_sparsity(ax=ax),
        )
    if "unfinished" in result.settings:
        return  # it has no weights
    yield (
        "norms",
        "Norms of the layers",
        "How far decay reduces each layer.",
        "Line plot of the norm of each layer against the coefficient of one rule.",
        lambda ax: result.plot_norms(ax=ax),
    )
    yield (
        "weights",
        "Weights of the layers",
        "All weights, layer by layer.",
        f"Histograms of the weights of each layer of {shown}.",
        lambda ax: result.plot_weights(ax=ax),
    )
    if "rotation" in dataset and np.isfinite(dataset["rotation"].values).any():
        yield (
            "rotation",
            "Rotation of the layers",
            "How far each layer turns in a step. Under decay the angle reaches an equilibrium, which determines how "
            "fast the layer learns.",
            f"Line plot of the angle by which each layer of {decay} turns in a step, against the training step.",
            lambda ax: result.plot_rotation(ax=ax),
        )


def _facets(table: Any) -> str | None:
    """Return the axis by which the path has panels: the learning rate, if several rules have a few of them."""
    if "learning_rate" not in table:
        return None
    rows = table[table["decay"] != "NoDecay"]
    rules = len(set(rows["decay"]))
    rates = value_axis.of(table, "learning_rate").levels
    is_product = len(rows) and len(set(zip(rows["decay"], rows["learning_rate"], strict=True))) == rules * len(rates)
    return "learning_rate" if rules > 1 and 1 < len(rates) <= _MAX_PANELS and is_product else None


def _drawn_of_scattered(result: Any, metric: str, decay: str) -> Iterator[Drawn]:
    """Yield the plots of a grid whose candidates were drawn at random."""
    metric_name = metric.replace("_", " ")
    yield (
        "slices",
        "Each hyperparameter alone",
        "Where good candidates lie on each axis. Good ones at an end of an axis say that it should go further.",
        f"Plots of the {metric_name} of every candidate, one against each hyperparameter. A ring marks {decay}.",
        lambda ax: result.plot_slices(metric, ax=ax),
    )
    yield (
        "parallel",
        "All hyperparameters together",
        "Each line is a candidate. Bright lines that share a part of an axis show what good candidates have in common.",
        f"Parallel coordinates of all candidates, coloured by the {metric_name}. {decay.capitalize()} is black.",
        lambda ax: result.plot_parallel(metric, ax=ax),
    )
    try:
        estimated = result.importance(metric)
    except ValueError:
        return  # too few candidates
    yield (
        "importance",
        "Importance of the hyperparameters",
        "Which fraction of the differences between candidates each hyperparameter takes part in, over the range of the "
        "grid, as a random forest estimates it.",
        f"Plot of the importance of each hyperparameter for the {metric_name}, with standard errors.",
        lambda ax: importance(estimated, metric, ax=ax),
    )


def _source(draw: Callable[[Any], Any], *, is_wide: bool) -> str:
    """Draw a plot and return it as a ``data:`` URL: an SVG, or a PNG if the SVG would be large."""
    from matplotlib.figure import Figure

    # Not a figure of pyplot, which a notebook would show and a backend would open.
    figure = Figure(figsize=(12.8 if is_wide else 6.4, 4.8), layout="constrained")
    draw(figure.add_subplot())
    content, kind = _saved(figure, format="svg", metadata={"Date": None}), "svg+xml"
    if len(content) > _MAX_SVG_BYTES:
        content, kind = _saved(figure, format="png", dpi=150, metadata={"Software": None}), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _saved(figure: Any, **options: Any) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, **options)
    return content.getvalue()
