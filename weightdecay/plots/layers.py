"""What the plots of layers share (`norms`, `rotation`, `weights`): colours by layer, curves along training, kernels."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from weightdecay.core import tree
from weightdecay.core.checks import ArgumentError
from weightdecay.core.statistics import mean_and_error
from weightdecay.plots import style, table_lines


def line_styles(count: int) -> list[dict[str, Any]]:
    """Return a line style for each layer.

    Args:
      count: Number of layers.

    Returns:
      Keyword arguments of ``ax.plot``, in the order of the layers: the palette, or, for more layers than colours,
      shades from dark (first layer) to bright.
    """
    styles = [style.line_style(index) for index in range(count)]
    if count <= len(style.COLOURS):
        return styles
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0, 0.9, count))
    return [looks | {"color": tuple(map(float, shade))} for looks, shade in zip(styles, shades, strict=True)]


def draw_along_training(ax: Any, dataset: Any, name: str, shown: Mapping[str, Sequence[int]]) -> np.ndarray:
    """Draw a variable of each layer along training, averaged over seeds, with bands of one standard error.

    Args:
      ax: Matplotlib axes.
      dataset: The dataset, as ``result.dataset``.
      name: A variable with the dimensions ``member``, ``step`` and ``layer``.
      shown: Members to average, by label; each label has its own dashes, each layer its own colour.

    Returns:
      All values that were drawn.
    """
    check_variable(dataset, name)
    steps, layers = dataset["step"].values, [str(layer) for layer in dataset["layer"].values]
    styles, drawn = line_styles(len(layers)), []
    for dash, members in enumerate(shown.values()):
        folds = table_lines.folds(dataset, members)
        for index, layer in enumerate(layers):
            values = dataset[name].values[list(members), :, index].astype(float)
            mean, error = np.array([mean_and_error(at_step, folds) for at_step in values.T]).T
            looks = styles[index] | {"linestyle": style.DASHES[dash % len(style.DASHES)]}
            ax.plot(steps, mean, label="" if dash else layer, markevery=max(1, len(steps) // 8), **looks)
            style.band(ax, steps, mean, error, looks["color"])
            drawn.append(mean)
    if len(shown) > 1:
        for dash, label in enumerate(shown):
            ax.plot([], [], color=style.GREY, linestyle=style.DASHES[dash % len(style.DASHES)], label=label)
    values = np.concatenate(drawn or [np.zeros(0)])
    style.mark_empty(ax, values)
    return values


def check_variable(dataset: Any, name: str) -> None:
    """Validate that a dataset has a variable that is recorded for each layer.

    Args:
      dataset: The dataset, as ``result.dataset``.
      name: Name of the variable.

    Raises:
      ArgumentError: No such variable.
    """
    if name not in dataset:
        raise ArgumentError(
            "dataset",
            f"dataset has no {name!r}, which results of earlier versions lack; run the grid again with this version.",
        )


def kernels(trees: Sequence[Any], *, only_finite: bool = True) -> dict[str, np.ndarray]:
    """Collect the kernels of several trees of weights.

    Args:
      trees: Weights of one or more members, trees of equal structure.
      only_finite: Whether values that are not finite are left out.

    Returns:
      Flat float64 arrays by name, the trees joined: all arrays of two or more dimensions, or all arrays if there are no
      such.
    """
    collected: dict[str, list[np.ndarray]] = {}
    for params in trees:
        leaves = [(name or "weights", np.asarray(leaf, np.float64)) for name, leaf in tree.named_leaves(params)]
        with_axes = [(name, leaf) for name, leaf in leaves if leaf.ndim >= 2]
        for name, leaf in with_axes or leaves:
            collected.setdefault(name, []).append(leaf[np.isfinite(leaf)] if only_finite else leaf.ravel())
    return {name: np.concatenate(arrays) for name, arrays in collected.items()}


def kernel_norms(params: Any) -> dict[str, float]:
    """Compute the Euclidean norm of each kernel.

    Args:
      params: Weights of one member.

    Returns:
      Norms by name: of all arrays of two or more dimensions, or of all arrays if there are no such.
    """
    return {name: float(np.linalg.norm(kernel)) for name, kernel in kernels([params], only_finite=False).items()}
